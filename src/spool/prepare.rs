//! Making and checking the queue directory when an agent starts, and the lock that keeps it one agent's.
//!
//! - Owns: owners and modes, what is unsafe about them, and `agent.lock`.
//! - Leaves to others: everything after the start (`directory`).
//! - Always true: a directory or FIFO that was there is checked and never changed; a refusal says what is
//!   wrong with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::directory::{Directory, Place, Spool, SpoolError, io_error};
use super::fifo::JobFifo;

const LOCK_NAME: &str = "agent.lock";

/// Held as long as this process may move messages about.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Spool {
    /// Opens the queue for an agent: makes what is missing, checks what is there, takes the lock and opens
    /// the job FIFO. `owner` is the user and group that the agent will run as; `None`: the present ones.
    /// Needs root if that is somebody else. Call it before privileges are dropped and before chroot.
    pub fn prepare(path: &Path, owner: Option<(Uid, Gid)>) -> Result<(Self, Lock), SpoolError> {
        let owner = owner.unwrap_or_else(|| (rustix::process::geteuid(), rustix::process::getegid()));
        let root = make_root(path, owner)?;
        let mut made = false;
        for place in Place::ALL {
            made |= make_place(path, root.as_fd(), place, owner)?;
        }
        // A message in a directory that a power loss takes away is not on disk, however well it was synced.
        if made {
            rustix::fs::fsync(&root).map_err(|error| io_error("write to disk", path, error))?;
        }
        let mut spool = Self::from_root(path, root)?;
        // The lock comes before the FIFO: a second agent must not even look at jobs.
        let lock = spool
            .lock_for(Some(owner))?
            .ok_or_else(|| SpoolError::Locked { path: path.to_owned(), holder: spool.lock_holder() })?;
        let jobs = JobFifo::open_or_make(&spool, owner)?;
        spool.set_jobs(jobs);
        Ok((spool, lock))
    }

    /// Takes the agent's lock for a queue command; `None` while an agent (or another command) holds it.
    pub fn lock(&self) -> Result<Option<Lock>, SpoolError> {
        self.lock_for(None)
    }

    fn lock_for(&self, owner: Option<(Uid, Gid)>) -> Result<Option<Lock>, SpoolError> {
        let path = self.path().join(LOCK_NAME);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = rustix::fs::openat(self.root(), LOCK_NAME, flags, Mode::from(0o600))
            .map(File::from)
            .map_err(|error| io_error("open the lock file", &path, error))?;
        // Root opens it too, in a directory of the agent's user: a link to somebody else's file must not be
        // emptied or given away here.
        let stat = rustix::fs::fstat(&file).map_err(|error| io_error("examine", &path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
            return Err(unsafe_path(&path, "it is not a plain file with one name".into()));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io_error("lock", &path, error)),
        }
        // Whoever made it, the queue's owner must be able to open it again.
        let (user, group) = owner.unwrap_or(self.owner());
        if rustix::process::geteuid().is_root() {
            rustix::fs::fchown(&file, Some(user), Some(group))
                .map_err(|error| io_error("change the owner of", &path, error))?;
        }
        // The number is for people who wonder who holds the lock; the lock itself does not need it. On a full disk
        // somebody has to deliver what fills it.
        let pid = format!("{}\n", std::process::id());
        let _ = file.set_len(0).and_then(|()| file.write_all(pid.as_bytes()));
        Ok(Some(Lock { _file: file }))
    }

    /// ` (pid N)` of who holds the lock, as far as its file tells.
    fn lock_holder(&self) -> String {
        let mut text = String::new();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let read = rustix::fs::openat(self.root(), LOCK_NAME, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|fd| File::from(fd).take(32).read_to_string(&mut text));
        match (read, text.trim().parse::<u32>()) {
            (Ok(_), Ok(pid)) => format!(" (pid {pid})"),
            _ => String::new(),
        }
    }
}

/// The mode a directory is made with, and beyond which it is unsafe. In `incoming` anyone may drop a file and
/// nobody but the agent may list; the sticky bit keeps users from touching each other's files, and the
/// set-group-ID bit gives those files the agent's group, so that mode 0640 lets the agent read them.
fn modes(place: Place) -> (u32, u32) {
    match place {
        Place::Incoming => (0o3733, 0o3733),
        // A site may let its mail administrators look (0750); nobody else writes here.
        _ => (0o700, 0o2750),
    }
}

fn unsafe_path(path: &Path, why: String) -> SpoolError {
    SpoolError::Unsafe { path: path.to_owned(), why }
}

/// Makes or checks the queue directory itself: everyone must get through it, only its owner may write to it.
fn make_root(path: &Path, (user, group): (Uid, Gid)) -> Result<OwnedFd, SpoolError> {
    let made = match rustix::fs::mkdir(path, Mode::from(0o755)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(io_error("make the queue directory", path, error)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| io_error("open the queue directory", path, error))?;
    if made {
        set_owner_and_mode(path, root.as_fd(), (user, group), 0o755)?;
        sync_parent(path)?;
    }
    let stat = rustix::fs::fstat(&root).map_err(|error| io_error("examine", path, error))?;
    if stat.st_uid != user.as_raw() && stat.st_uid != 0 {
        let why = format!("it belongs to uid {}, not to root or uid {}", stat.st_uid, user.as_raw());
        return Err(unsafe_path(path, why));
    }
    if stat.st_mode & 0o022 != 0 {
        let why =
            format!("others than its owner may write to it (mode {:04o}; chmod go-w)", stat.st_mode & 0o7777);
        return Err(unsafe_path(path, why));
    }
    Ok(root)
}

/// Makes the name of a directory durable.
fn sync_parent(path: &Path) -> Result<(), SpoolError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(parent, flags, Mode::empty()).and_then(rustix::fs::fsync) {
        // Who may make a name there and not look has to leave it to the file system.
        Ok(()) | Err(Errno::ACCESS) => Ok(()),
        Err(error) => Err(io_error("write to disk", parent, error)),
    }
}

/// Makes or checks one directory of the queue; whether it was made.
fn make_place(
    queue: &Path,
    root: BorrowedFd<'_>,
    place: Place,
    owner: (Uid, Gid),
) -> Result<bool, SpoolError> {
    let path = queue.join(place.name());
    let (mode, loosest) = modes(place);
    let made = match rustix::fs::mkdirat(root, place.name(), Mode::from(0o700)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(io_error("make", &path, error)),
    };
    let directory = match Directory::open(root, place.name()) {
        Ok(directory) => directory,
        // A symbolic link or a file where a directory should be.
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(unsafe_path(&path, "it is not a directory".into())),
        Err(error) => return Err(io_error("open", &path, error)),
    };
    if made {
        set_owner_and_mode(&path, directory.as_fd(), owner, mode)?;
        directory.sync().map_err(|error| io_error("write to disk", &path, error))?;
    }
    let [stat, root] = [rustix::fs::fstat(&directory), rustix::fs::fstat(root)];
    let (stat, root) =
        stat.and_then(|a| Ok((a, root?))).map_err(|error| io_error("examine", &path, error))?;
    if stat.st_uid != owner.0.as_raw() {
        let why = format!("it belongs to uid {}, not to the agent's, {}", stat.st_uid, owner.0.as_raw());
        return Err(unsafe_path(&path, why));
    }
    if stat.st_dev != root.st_dev {
        let why = "it is another file system than the queue directory, so that no rename could reach it";
        return Err(unsafe_path(&path, why.into()));
    }
    check_mode(&path, place, stat.st_mode & 0o7777, mode, loosest)?;
    Ok(made)
}

/// Stricter than `loosest` is fine: a site may let only one group submit.
fn check_mode(path: &Path, place: Place, found: u32, mode: u32, loosest: u32) -> Result<(), SpoolError> {
    let shared = place == Place::Incoming && found & 0o022 != 0;
    let lacks = if shared { found & 0o3700 != 0o3700 } else { found & 0o700 != 0o700 };
    if lacks || found & !loosest != 0 {
        let why = format!("its mode is {found:04o} (chmod {mode:04o} makes it right)");
        return Err(unsafe_path(path, why));
    }
    Ok(())
}

/// Owner first: changing it may clear the set-group-ID bit.
pub(super) fn set_owner_and_mode(
    path: &Path,
    fd: BorrowedFd<'_>,
    (user, group): (Uid, Gid),
    mode: u32,
) -> Result<(), SpoolError> {
    rustix::fs::fchown(fd, Some(user), Some(group))
        .map_err(|error| io_error("change the owner of", path, error))?;
    rustix::fs::fchmod(fd, Mode::from(mode)).map_err(|error| io_error("change the mode of", path, error))
}
