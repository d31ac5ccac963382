//! Job lines from the FIFO, and a limit to what is said of bad ones.

use std::time::{Duration, Instant};

use crate::queue::job::{JobLine, LINE_LENGTH_MAX, escape_for_log};
use crate::queue::line_reader::LineReader;
use crate::spool::JobFifo;

/// Octets read before other things get their turn: what a pipe holds.
const READ_AT_ONCE: usize = 64 * 1024;
/// Bad lines that are logged in a minute; more are only counted.
const BAD_LINES_MAX: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// The master's view of the FIFO.
#[derive(Debug)]
pub struct Jobs {
    lines: LineReader,
    buffer: Vec<u8>,
    minute: Instant,
    bad_lines: u32,
    /// See [`Jobs::may_have_missed`].
    may_have_missed: bool,
}

impl Jobs {
    /// Nothing read yet.
    pub fn new(now: Instant) -> Self {
        Self {
            lines: LineReader::new(),
            buffer: vec![0; READ_AT_ONCE],
            minute: now,
            bad_lines: 0,
            may_have_missed: false,
        }
    }

    /// Reads what is there; bad lines are logged and skipped.
    pub fn read(&mut self, fifo: &JobFifo) -> Vec<JobLine> {
        match fifo.read(&mut self.buffer) {
            Ok(read) => {
                self.may_have_missed |= read == self.buffer.len();
                self.lines.push(&self.buffer[..read]);
            }
            Err(error) => self.bad(&format!(
                "the job FIFO cannot be read: {error}; jobs in active/ are found by listing it"
            )),
        }
        let mut jobs = Vec::new();
        while let Some(line) = self.lines.next() {
            match line {
                Ok(line) => match JobLine::parse(&line) {
                    Ok(job) => jobs.push(job),
                    Err(error) => {
                        self.bad(&format!("job line skipped: {error}: \"{}\"", escape_for_log(&line)));
                    }
                },
                Err(_) => self.bad(&format!("job line skipped: it is longer than {LINE_LENGTH_MAX} octets")),
            }
        }
        jobs
    }

    /// Whether a message may lie in the queue of which no good line has told: a line was bad, or the FIFO was as full
    /// as it can be, and its writers do not wait. Asked, it forgets.
    pub fn may_have_missed(&mut self) -> bool {
        std::mem::take(&mut self.may_have_missed)
    }

    fn bad(&mut self, text: &str) {
        self.may_have_missed = true;
        self.bad_lines = self.bad_lines.saturating_add(1);
        if self.bad_lines <= BAD_LINES_MAX {
            log::error!("{text}");
        }
    }

    /// Once a minute says how many bad lines were not logged.
    pub fn count_bad_lines(&mut self) {
        if self.minute.elapsed() >= MINUTE {
            self.tell_count();
        }
    }

    /// Says at once how many bad lines were not logged: nobody will when the agent ends.
    pub fn tell_count(&mut self) {
        if self.bad_lines > BAD_LINES_MAX {
            log::error!(
                "{} more bad job lines were skipped in the last minute",
                self.bad_lines - BAD_LINES_MAX
            );
        }
        self.bad_lines = 0;
        self.minute = Instant::now();
    }

    /// When that is due, if there is anything to say.
    pub fn next_count(&self) -> Option<Instant> {
        (self.bad_lines > BAD_LINES_MAX).then(|| self.minute + MINUTE)
    }
}
