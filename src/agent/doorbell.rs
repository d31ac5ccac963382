//! Wakes the master out of poll(2) when a channel has something for it.
//!
//! - Owns: the pipe in the master's poll set, and the flag that spares most writes to it.
//! - Leaves to others: the channels themselves.
//! - Always true: what was sent before [`Doorbell::ring`] is seen by the master before it sleeps, or wakes it.
//!
//! The master sets the flag, fences, looks at its channels once more, and only then sleeps. Everybody else sends,
//! fences, and rings if the flag was set. Of the two fences one comes first: either the master's look sees the
//! message, or the sender's look sees the flag. Weaker orderings let both miss, and the master sleeps on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::pipe::{PipeFlags, pipe_with};

/// Everybody's end.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    asleep: AtomicBool,
    button: OwnedFd,
}

/// The master's end.
#[derive(Debug)]
pub struct Chime {
    doorbell: Doorbell,
    pipe: OwnedFd,
}

/// Makes both ends.
pub fn doorbell() -> io::Result<(Doorbell, Chime)> {
    let (pipe, button) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    let doorbell = Doorbell(Arc::new(Shared { asleep: AtomicBool::new(false), button }));
    Ok((doorbell.clone(), Chime { doorbell, pipe }))
}

impl Doorbell {
    /// Wakes the master if it sleeps or is about to. Call this after sending.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.0.asleep.swap(false, Ordering::SeqCst) {
            self.ring_anyway();
        }
    }

    /// Wakes the master whatever it does: for signals.
    pub fn ring_anyway(&self) {
        // A full pipe is awake enough, and nothing else can go wrong with a pipe whose reader we hold.
        let _ = rustix::io::write(&self.0.button, &[1]);
    }
}

impl Chime {
    /// Announces that the master is about to sleep. It must look at every channel once more after this.
    pub fn about_to_sleep(&self) {
        self.doorbell.0.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The master is awake: nobody has to ring. Empties the pipe if poll has seen that somebody did; a ring that comes
    /// later is only one look too many.
    pub fn awake(&self, has_rung: bool) {
        self.doorbell.0.asleep.store(false, Ordering::SeqCst);
        let mut rings = [0; 64];
        while has_rung && rustix::io::read(&self.pipe, &mut rings).is_ok_and(|read| read == rings.len()) {}
    }

    /// For the poll set.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    /// Senders hurry, the master sleeps whenever its channel is empty. A lost wake-up shows as a poll that runs
    /// into its limit while messages wait.
    #[test]
    fn no_wake_up_is_lost_under_stress() {
        const SENDERS: u32 = 4;
        const MESSAGES: u32 = 20_000;
        let (doorbell, chime) = doorbell().unwrap();
        let (sender, receiver) = unbounded();
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let (doorbell, sender) = (doorbell.clone(), sender.clone());
                std::thread::spawn(move || {
                    for message in 0..MESSAGES {
                        sender.send(message).unwrap();
                        doorbell.ring();
                        if message % 64 == 0 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut received = 0;
        while received < SENDERS * MESSAGES {
            received += u32::try_from(receiver.try_iter().count()).unwrap();
            chime.about_to_sleep();
            if receiver.is_empty() && received < SENDERS * MESSAGES {
                let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
                let mut set = [PollFd::from_borrowed_fd(chime.descriptor(), PollFlags::IN)];
                assert_eq!(poll(&mut set, Some(&limit)).unwrap(), 1, "nobody rang");
            }
            chime.awake(true);
        }
        senders.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_full_pipe_does_not_block() {
        let (doorbell, chime) = doorbell().unwrap();
        for _ in 0..100_000 {
            doorbell.ring_anyway();
        }
        chime.awake(true);
        chime.about_to_sleep();
        doorbell.ring();
        let mut set = [PollFd::from_borrowed_fd(chime.descriptor(), PollFlags::IN)];
        assert_eq!(poll(&mut set, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap(), 1);
    }
}
