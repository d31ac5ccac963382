//! Notices that something was dropped into `incoming/`, by inotify.
//!
//! - Owns: the watch. Leaves to others: listing the directory (`pickup`), waiting (`agent`).
//! - Always true: a lost event costs a minute, not a message: the directory is listed every minute anyway.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::directory::{Place, Spool};

/// Events read at a time; more of them only mean another round.
const EVENTS_MAX: usize = 4096;

/// A watch on `incoming/`.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Starts to watch. Goes by path, so it must happen before chroot; the watch itself then stays.
    pub fn new(spool: &Spool) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // A message is complete when it gets its final name, or, from writers that know no better, when it is
        // closed.
        let flags = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, spool.path().join(Place::Incoming.name()), flags)?;
        Ok(Self { fd })
    }

    /// Takes what has gathered; `true` if a finished name may have appeared. Never waits.
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut appeared = false;
        for _ in 0..EVENTS_MAX {
            match reader.next() {
                Ok(event) => {
                    let unfinished = event.file_name().is_some_and(|name| name.to_bytes().starts_with(b"."));
                    // Events that the kernel had to drop are events all the same.
                    appeared |= !unfinished || event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(appeared)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
