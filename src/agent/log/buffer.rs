//! Lines that were logged and are not written yet.
//!
//! - Owns: the bound on them, who may wait for room, when the log thread wakes.
//! - Leaves to others: how lines look (the module above), where they go (`target`).
//! - Always true: whoever may not wait does not: a line without room is counted, and the count is logged.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Octets that wait for the log thread.
const WAITING_MAX: usize = 512 * 1024;
/// Octets that are worth a write of their own.
const GATHERED_MAX: usize = 64 * 1024;
/// How long lines are gathered before they are written: waking a thread for each would cost more than the line.
const GATHERING: Duration = Duration::from_millis(2);
/// How long the end of the program may wait for the log.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// What the log thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It waits for the first line.
    Idle,
    /// It waits for more.
    Gathering,
    /// It writes, and will look again by itself.
    Writing,
}

/// Who appends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// It may wait for room.
    MayWait,
    /// It may not.
    MayNotWait,
    /// It is about to write lines itself: the log thread need not be woken.
    Writer,
}

#[derive(Debug)]
struct State {
    octets: Vec<u8>,
    rest: Rest,
    is_flushing: bool,
    dropped: u64,
}

/// What stands between all threads and the log thread.
#[derive(Debug)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// For the log thread: there is something to do.
    came: Condvar,
    /// For the others: the log thread has taken or written something.
    progress: Condvar,
}

impl Buffer {
    pub(super) fn new() -> Self {
        let state = State { octets: Vec::new(), rest: Rest::Writing, is_flushing: false, dropped: 0 };
        Self { state: Mutex::new(state), came: Condvar::new(), progress: Condvar::new() }
    }

    /// A thread that panicked while it appended has left a line at worst half written.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what `write` writes. Without room it waits for some, or, where it may not wait, drops the line. `write`
    /// gets the number of lines that were dropped since, to say so first.
    pub(super) fn append(&self, by: By, write: impl FnOnce(&mut Vec<u8>, u64)) {
        let mut state = self.lock();
        while state.octets.len() >= WAITING_MAX {
            if by == By::MayNotWait {
                state.dropped += 1;
                return;
            }
            // Whoever was to write this may not have come to it.
            self.came.notify_one();
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let dropped = std::mem::take(&mut state.dropped);
        write(&mut state.octets, dropped);
        let wakes = match state.rest {
            Rest::Idle => by != By::Writer || state.octets.len() >= GATHERED_MAX,
            Rest::Gathering => state.octets.len() >= GATHERED_MAX,
            Rest::Writing => false,
        };
        if wakes {
            // Once is enough: it may take a while until it runs.
            state.rest = Rest::Writing;
            drop(state);
            self.came.notify_one();
        }
    }

    /// For the log thread: lines that were taken could not be written. The next line says so.
    pub(super) fn lost(&self, lines: u64) {
        if lines > 0 {
            self.lock().dropped += lines;
        }
    }

    /// For the log thread: waits for lines that are worth a write. What was taken before is written.
    pub(super) fn wait(&self) {
        let mut state = self.lock();
        state.rest = Rest::Idle;
        self.progress.notify_all();
        while state.octets.is_empty() {
            state.rest = Rest::Idle;
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.rest = Rest::Gathering;
        let is_more_worth_it = |state: &mut State| state.octets.len() < GATHERED_MAX && !state.is_flushing;
        let gathered = self.came.wait_timeout_while(state, GATHERING, is_more_worth_it);
        (state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        state.rest = Rest::Writing;
    }

    /// Takes all there are, into `taken`. Whoever takes them holds what they are written to, so that lines stay in
    /// order.
    pub(super) fn take(&self, taken: &mut Vec<u8>) {
        taken.clear();
        std::mem::swap(&mut self.lock().octets, taken);
        self.progress.notify_all();
    }

    /// Waits until all that was appended is written, for half a second at most: a log that is stuck stays behind.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        state.is_flushing = true;
        self.came.notify_one();
        let is_under_way = |state: &mut State| !state.octets.is_empty() || state.rest != Rest::Idle;
        let result = self.progress.wait_timeout_while(state, FLUSH_TIMEOUT, is_under_way);
        (state, _) = result.unwrap_or_else(PoisonError::into_inner);
        state.is_flushing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    fn line(text: &'static str) -> impl FnOnce(&mut Vec<u8>, u64) {
        move |octets, dropped| {
            if dropped > 0 {
                octets.extend(format!("{dropped} dropped\n").bytes());
            }
            octets.extend(text.bytes());
        }
    }

    #[test]
    fn the_log_thread_sleeps_on_where_somebody_writes_himself() {
        let buffer = Arc::new(Buffer::new());
        let (done, log) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), Arc::clone(&buffer));
        let has_woken = Arc::clone(&done);
        let thread = thread::spawn(move || {
            log.wait();
            has_woken.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while buffer.lock().rest != Rest::Idle {
            thread::yield_now();
        }
        buffer.append(By::Writer, line("a\n"));
        thread::sleep(GATHERING * 10);
        assert!(!done.load(std::sync::atomic::Ordering::SeqCst));
        buffer.append(By::MayWait, line("b\n"));
        thread.join().unwrap();
        let mut taken = Vec::new();
        buffer.take(&mut taken);
        assert_eq!(taken, b"a\nb\n");
    }

    #[test]
    fn lines_are_taken_together_and_in_order() {
        let (buffer, mut taken) = (Buffer::new(), Vec::new());
        buffer.append(By::MayWait, line("a\n"));
        buffer.append(By::MayNotWait, line("b\n"));
        buffer.take(&mut taken);
        assert_eq!(taken, b"a\nb\n");
        buffer.append(By::MayWait, line("c\n"));
        buffer.take(&mut taken);
        assert_eq!(taken, b"c\n");
    }

    #[test]
    fn who_may_not_wait_drops_and_the_next_line_says_how_many() {
        let (buffer, mut taken) = (Buffer::new(), Vec::new());
        buffer.append(By::MayWait, |octets, _| octets.resize(WAITING_MAX, b'x'));
        buffer.append(By::MayNotWait, line("lost\n"));
        buffer.append(By::MayNotWait, line("lost\n"));
        buffer.take(&mut taken);
        buffer.append(By::MayNotWait, line("kept\n"));
        buffer.append(By::MayNotWait, line("last\n"));
        buffer.take(&mut taken);
        assert_eq!(taken, b"2 dropped\nkept\nlast\n");
    }

    #[test]
    fn who_may_wait_waits_for_room() {
        let (buffer, mut taken) = (Arc::new(Buffer::new()), Vec::new());
        buffer.append(By::MayWait, |octets, _| octets.resize(WAITING_MAX, b'x'));
        let waiting = Arc::clone(&buffer);
        let writer = thread::spawn(move || waiting.append(By::MayWait, line("late\n")));
        buffer.take(&mut taken);
        assert_eq!(taken.len(), WAITING_MAX);
        writer.join().unwrap();
        buffer.take(&mut taken);
        assert_eq!(taken, b"late\n");
    }

    #[test]
    fn a_flush_returns_when_all_is_written_and_no_line_is_lost_between_threads() {
        const LINES: usize = 5000;
        let buffer = Arc::new(Buffer::new());
        let (log, written) = (Arc::clone(&buffer), Arc::new(Mutex::new(Vec::new())));
        let (sender, done) = crossbeam_channel::bounded::<()>(0);
        let into = Arc::clone(&written);
        let logger = thread::spawn(move || {
            let mut taken = Vec::new();
            while done.try_recv() != Err(crossbeam_channel::TryRecvError::Disconnected) {
                log.wait();
                log.take(&mut taken);
                into.lock().unwrap().extend_from_slice(&taken);
            }
        });
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..LINES).for_each(|_| buffer.append(By::MayWait, line("x\n"))));
            }
        });
        buffer.flush();
        assert_eq!(written.lock().unwrap().len(), 4 * LINES * 2);
        drop(sender);
        buffer.append(By::MayWait, line("end\n"));
        logger.join().unwrap();
    }
}
