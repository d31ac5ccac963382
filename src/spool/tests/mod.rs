//! Tests of the queue on disk, on real file systems, in temporary directories.
//!
//! - Owns: a queue to test with, and threads that are somebody else.
//! - Always true: tests run as root act as other users in a thread of their own, whose credentials are its
//!   own; without root what needs them is left out, and says so.

mod drop_and_pickup;
mod places;
mod queue_files;
mod recovery;
mod reply_logs;
mod submission;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Gid, Uid};
use tempfile::TempDir;

use super::*;
use crate::mail::{Address, QueueId, Recipient};

/// A queue in a directory of its own.
struct TestQueue {
    spool: Arc<Spool>,
    path: PathBuf,
    _lock: Lock,
    _directory: TempDir,
}

impl TestQueue {
    fn new() -> Self {
        Self::owned_by(None)
    }

    fn owned_by(owner: Option<(Uid, Gid)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("queue");
        let (spool, lock) = Spool::prepare(&path, owner).unwrap();
        Self { spool: Arc::new(spool), path, _lock: lock, _directory: directory }
    }

    fn pickup(&self) -> Pickup {
        Pickup::new(Arc::clone(&self.spool), SubmitLimits::default())
    }

    fn submit(&self, recipients: &[&str], content: &str) -> QueueId {
        self.spool.submit(draft(recipients), &mut content.as_bytes(), &SubmitLimits::default()).unwrap()
    }

    fn at(&self, place: Place, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(place.name()).join(name.as_ref())
    }

    fn drop_file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(Place::Incoming, name), content).unwrap();
    }

    /// The names in all places that hold messages, as `place/name`, sorted.
    fn listing(&self) -> Vec<String> {
        let mut names: Vec<String> = Place::ALL
            .into_iter()
            .flat_map(|place| {
                let names = self.spool.names(place).unwrap();
                names.map(move |entry| format!("{place}/{}", entry.unwrap().name.to_string_lossy()))
            })
            .collect();
        names.sort();
        names
    }

    fn content(&self, id: QueueId) -> String {
        let file = self.spool.open_message(id, Place::Active).unwrap();
        let mut content = String::new();
        std::io::Read::read_to_string(&mut file.content(), &mut content).unwrap();
        content
    }
}

fn draft(recipients: &[&str]) -> Draft {
    let recipient = |text: &&str| Recipient::new(0, text.parse::<Address>().unwrap());
    Draft {
        sender: "a@x".parse().unwrap(),
        recipients: recipients.iter().map(recipient).collect(),
        origin: "uid=1000".into(),
        ..Draft::default()
    }
}

fn nobody_trusted(_: u32) -> bool {
    false
}

/// Runs `act` as another user; `None` where we are not root and cannot.
fn as_user<T: Send>(uid: u32, gid: u32, act: impl FnOnce() -> T + Send) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can act as uid {uid}");
        return None;
    }
    let become_user_and_act = || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_gid(Gid::from_raw(gid)).unwrap();
        rustix::thread::set_thread_uid(Uid::from_raw(uid)).unwrap();
        act()
    };
    Some(std::thread::scope(|scope| scope.spawn(become_user_and_act).join().unwrap()))
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}
