//! The queue directory: what lies where, with which modes, and how a message moves.
//!
//! - Owns: the open directories, and every rename and unlink of a message.
//! - Leaves to others: owners, modes and the lock (`prepare`), what is in a queue file (`queue_file`), how
//!   one comes into being (`submit`, `pickup`).
//! - Always true: everything is done relative to directories that are open, so it works after chroot and when
//!   somebody renames the tree; no symbolic link below the queue directory is followed; a name that exists is
//!   never overwritten.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::fifo::JobFifo;
use crate::mail::QueueId;
use crate::queue::job::IncomingName;

/// The agent's control socket, beside the places.
pub const SOCKET_NAME: &str = "agent.sock";

/// Where a message can be. A rename moves it from one place to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Dropped by anybody, not looked at yet.
    Incoming,
    /// In the queue, to be delivered now.
    Active,
    /// To be tried again when its modification time has come.
    Deferred,
    /// Set aside until somebody releases it.
    Hold,
    /// Not readable as a message; kept for somebody to look at.
    Corrupt,
    /// Being written.
    Tmp,
}

impl Place {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 6] =
        [Self::Incoming, Self::Active, Self::Deferred, Self::Hold, Self::Corrupt, Self::Tmp];
    /// Those in which a message with an ID stays.
    const QUEUES: [Self; 4] = [Self::Active, Self::Deferred, Self::Hold, Self::Corrupt];

    /// The directory's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Active => "active",
            Self::Deferred => "deferred",
            Self::Hold => "hold",
            Self::Corrupt => "corrupt",
            Self::Tmp => "tmp",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a queue directory cannot be used. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A system call failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody could read, forge or lose mail here.
    #[error("{} is unsafe as part of the mail queue: {why}", path.display())]
    Unsafe {
        /// What.
        path: PathBuf,
        /// The reason, and what would repair it.
        why: String,
    },
    /// There is no queue.
    #[error("there is no mail queue in {}: \"lastmile agent\" makes one when it starts", .0.display())]
    NoQueue(PathBuf),
    /// There is one, but a part of it was removed.
    #[error(
        "the mail queue {} has no {place}/: \"lastmile agent\" makes it when it is started again",
        path.display()
    )]
    Incomplete {
        /// The queue directory.
        path: PathBuf,
        /// What it lacks.
        place: Place,
    },
    /// Another process holds the lock.
    #[error("the queue {} is in use by another process{holder}: one agent per queue", path.display())]
    Locked {
        /// The queue directory.
        path: PathBuf,
        /// ` (pid N)`, where the lock file tells.
        holder: String,
    },
}

/// A directory of the queue was removed by somebody while it was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}/ was removed while it was in use: the agent makes it again when it is restarted")]
pub struct Gone(pub Place);

/// An open directory of the queue.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// A directory that we may not list was opened as a path only: names can be made in it, but it can be
    /// neither listed nor synced.
    readable: bool,
}

impl Directory {
    pub(super) fn open(parent: BorrowedFd<'_>, name: &str) -> Result<Self, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags | OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, readable: true }),
            Err(Errno::ACCESS) => {
                let fd = rustix::fs::openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
                Ok(Self { fd, readable: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the names in it durable, where we may open it.
    pub(super) fn sync(&self) -> io::Result<()> {
        if self.readable {
            rustix::fs::fsync(&self.fd)?;
        }
        Ok(())
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The queue directory, open. Shared by all threads.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    root: OwnedFd,
    places: [Directory; 6],
    /// The owner of `active/`: whose queue this is.
    owner: Uid,
    group: Gid,
    jobs: Option<JobFifo>,
}

impl Spool {
    /// Opens a queue that exists: for commands and submitters, who may be allowed to do no more than drop
    /// messages into `incoming/`.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        match rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) => Self::from_root(path, root),
            Err(Errno::NOENT) => Err(SpoolError::NoQueue(path.to_owned())),
            Err(error) => Err(io_error("open the queue directory", path, error)),
        }
    }

    pub(super) fn from_root(path: &Path, root: OwnedFd) -> Result<Self, SpoolError> {
        let open = |place: Place| match Directory::open(root.as_fd(), place.name()) {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT) if place == Place::Incoming => Err(SpoolError::NoQueue(path.to_owned())),
            Err(Errno::NOENT) => Err(SpoolError::Incomplete { path: path.to_owned(), place }),
            Err(error) => Err(io_error("open", &path.join(place.name()), error)),
        };
        let [a, b, c, d, e, f] = Place::ALL.map(open);
        let places = [a?, b?, c?, d?, e?, f?];
        let [_, active, ..] = &places;
        let stat = rustix::fs::fstat(active)
            .map_err(|error| io_error("examine", &path.join(Place::Active.name()), error))?;
        let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        Ok(Self { path: path.to_owned(), root, places, owner, group, jobs: None })
    }

    /// Where the queue is, as it was named. For messages: after chroot nothing is found there.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The user and group whose queue this is. Root becomes them before it touches anything here.
    pub fn owner(&self) -> (Uid, Gid) {
        (self.owner, self.group)
    }

    /// Whether we may put messages into `active/` ourselves: the queue's owner may, everyone else drops them.
    pub fn is_ours(&self) -> bool {
        rustix::process::geteuid() == self.owner
    }

    /// The job FIFO; only [`Spool::prepare`] opens it.
    pub fn jobs(&self) -> Option<&JobFifo> {
        self.jobs.as_ref()
    }

    /// Where the message is now. Looks twice, because it may move against the direction in which we look.
    pub fn find(&self, id: QueueId) -> io::Result<Option<Place>> {
        for place in Place::QUEUES.into_iter().chain(Place::QUEUES) {
            match rustix::fs::statat(self.at(place), id.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => return Ok(Some(place)),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Moves a message; `false` if it was not there. An error if there is one of this name in `to` already.
    pub fn move_to(&self, id: QueueId, from: Place, to: Place) -> io::Result<bool> {
        match self.rename_new(from, id.as_str().as_ref(), to, id.as_str().as_ref()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.explained(to, error)),
        }
    }

    /// What the system said, or that a directory is gone, for which it has no words.
    pub(super) fn explained(&self, place: Place, error: Errno) -> io::Error {
        if self.is_gone(place) { io::Error::other(Gone(place)) } else { error.into() }
    }

    /// Whether somebody has removed a directory of the queue that we hold open: nothing can be put there any more, and
    /// one that is made in its place is another.
    pub fn is_gone(&self, place: Place) -> bool {
        rustix::fs::fstat(self.at(place)).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Removes a message and what `deferred/ID.log` says about it; `false` if it was not there. The log goes
    /// last: one without a message is found and removed at the next start, a message without its log would
    /// have lost its history.
    pub fn remove(&self, id: QueueId, place: Place) -> io::Result<bool> {
        let was_there = self.remove_any(place, id.as_str())?;
        if was_there {
            self.remove_log(id)?;
        }
        Ok(was_there)
    }

    /// Removes what lies in `incoming/` under a name; `false` if it was not there (any more). Whoever claims it at the
    /// same time has it, or finds nothing.
    pub fn remove_dropped(&self, name: &IncomingName) -> io::Result<bool> {
        self.remove_any(Place::Incoming, name.as_str())
    }

    /// What somebody has dropped may be a directory. An empty one goes as a file does; nobody has asked for what lies
    /// in another.
    fn remove_any(&self, place: Place, name: &str) -> io::Result<bool> {
        let removed = match rustix::fs::unlinkat(self.at(place), name, AtFlags::empty()) {
            Err(Errno::ISDIR) => match rustix::fs::unlinkat(self.at(place), name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let what = "it is a directory with something in it, to be looked at and removed by hand";
                    return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, what));
                }
                result => result,
            },
            result => result,
        };
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the control socket of an agent that stops; `false` if there was none. For whoever holds the lock.
    pub fn remove_socket(&self) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.root, SOCKET_NAME, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Octets free for us on the queue's file system.
    pub fn free_space(&self) -> io::Result<u64> {
        let stat =
            rustix::fs::fstatvfs(self.at(Place::Active)).or_else(|_| rustix::fs::fstatvfs(&self.root))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) fn set_jobs(&mut self, jobs: JobFifo) {
        self.jobs = Some(jobs);
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(super) fn at(&self, place: Place) -> &Directory {
        let [incoming, active, deferred, hold, corrupt, tmp] = &self.places;
        match place {
            Place::Incoming => incoming,
            Place::Active => active,
            Place::Deferred => deferred,
            Place::Hold => hold,
            Place::Corrupt => corrupt,
            Place::Tmp => tmp,
        }
    }

    /// For messages: the path of a name, as the queue was named.
    pub(super) fn path_of(&self, place: Place, name: &OsStr) -> PathBuf {
        self.path.join(place.name()).join(name)
    }

    /// Opens a file that exists, never through a symbolic link, and without waiting for a FIFO's other end.
    pub(super) fn open_file(&self, place: Place, name: &OsStr, write: bool) -> Result<File, Errno> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(self.at(place), name, flags, Mode::empty()).map(File::from)
    }

    /// Makes a file that must not exist yet. The mode is set apart from the umask, which might take away the
    /// group's right to read, or that of the owner: one of them is the agent's.
    pub(super) fn create_file(&self, place: Place, name: &OsStr, mode: u32) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.at(place), name, flags, Mode::from(mode & 0o600))?;
        rustix::fs::fchmod(&fd, Mode::from(mode)).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(self.at(place), name, AtFlags::empty());
        })?;
        Ok(File::from(fd))
    }

    /// Renames without ever overwriting. ENOENT means that `old` is not there, never that `to` is gone: that is ESTALE.
    pub(super) fn rename_new(&self, from: Place, old: &OsStr, to: Place, new: &OsStr) -> Result<(), Errno> {
        let target = to;
        let (from, to) = (self.at(from), self.at(to));
        match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
            Err(Errno::NOENT) if self.is_gone(target) => Err(Errno::STALE),
            // Some network file systems cannot do it in one step. Names are random and made by us alone, so
            // that looking first is nearly as good.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Err(Errno::EXIST),
                    Err(Errno::NOENT) => rustix::fs::renameat(from, old, to, new),
                    Err(error) => Err(error),
                }
            }
            result => result,
        }
    }

    /// Unlinks; `false` if it was not there.
    pub(super) fn unlink(&self, place: Place, name: &OsStr) -> io::Result<bool> {
        match rustix::fs::unlinkat(self.at(place), name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) fn io_error(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> SpoolError {
    SpoolError::Io { doing, path: path.to_owned(), source: source.into() }
}
