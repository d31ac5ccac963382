//! Removes the files of messages that are done with, so that no delivery waits for an unlink: on some disks one takes
//! longer than the delivery did.
//!
//! - Owns: a thread, and the list of what it has not come to yet.
//! - Leaves to others: when a message is done with (`finish`).
//! - Always true: all recipients of a message on the list are marked as settled, so whoever finds its file after a
//!   crash has nothing to do but to remove it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::log::QMGR;
use crate::mail::QueueId;
use crate::spool::{Place, Spool};

/// Messages on the list; with more, whoever is done with one removes it itself.
const WAITING_MAX: usize = 64 * 1024;
/// With more than this on the list, a message without anything to do is most likely on it.
const BACKLOG: usize = 1000;
/// How long messages are gathered: waking a thread for each would cost as much as the unlink.
const GATHERING: Duration = Duration::from_millis(1);

/// Everybody's end.
#[derive(Clone, Debug)]
pub struct Sweeper {
    spool: Arc<Spool>,
    done: Sender<QueueId>,
}

impl Sweeper {
    /// Starts the thread. It ends when all clones of the sweeper are gone and nothing is left to be removed.
    pub fn start(spool: Arc<Spool>) -> io::Result<(Self, JoinHandle<()>)> {
        let (done, list) = bounded(WAITING_MAX);
        let queue = Arc::clone(&spool);
        let thread =
            std::thread::Builder::new().name("sweeper".to_owned()).spawn(move || sweep(&queue, &list))?;
        Ok((Self { spool, done }, thread))
    }

    /// Whether the disk is so slow that files of messages done with lie about. Whoever finds one need not add it again.
    pub fn has_backlog(&self) -> bool {
        self.done.len() > BACKLOG
    }

    /// Has the file of a message removed, all of whose recipients are settled.
    pub fn remove(&self, id: QueueId) {
        match self.done.try_send(id) {
            Ok(()) => {}
            Err(TrySendError::Full(id) | TrySendError::Disconnected(id)) => remove(&self.spool, id),
        }
    }
}

fn sweep(spool: &Spool, list: &Receiver<QueueId>) {
    while let Ok(first) = list.recv() {
        std::thread::sleep(GATHERING);
        remove(spool, first);
        list.try_iter().for_each(|id| remove(spool, id));
    }
}

fn remove(spool: &Spool, id: QueueId) {
    match spool.remove(id, Place::Active) {
        Ok(true) => log::info!(target: QMGR, "{id}: removed"),
        // Somebody was faster.
        Ok(false) => {}
        Err(error) => log::error!(
            "{id}: all recipients are settled, but the queue file cannot be removed: {error}; tried again in a minute"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_keeps_nobody_waiting_and_nothing_from_being_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _lock) = Spool::prepare(&directory.path().join("queue"), None).unwrap();
        let spool = Arc::new(spool);
        let file = |number: usize| directory.path().join(format!("queue/active/{}", id(number)));
        // Nobody sweeps, as where a disk is stuck.
        let (done, list) = bounded(2);
        let sweeper = Sweeper { spool: Arc::clone(&spool), done };
        for number in 0..3 {
            std::fs::write(file(number), "").unwrap();
            sweeper.remove(id(number));
        }
        assert_eq!([0, 1, 2].map(|number| file(number).exists()), [true, true, false]);
        assert!(!sweeper.has_backlog());
        drop(sweeper);
        sweep(&spool, &list);
        assert_eq!([0, 1, 2].map(|number| file(number).exists()), [false; 3]);
    }

    fn id(number: usize) -> QueueId {
        QueueId::new(1, number as u64)
    }
}
