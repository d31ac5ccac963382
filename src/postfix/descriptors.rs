//! The descriptors that a process under master(8) is born with.
//!
//! - Owns: their numbers, and turning the numbers into something that is owned and closed. The one place with `unsafe`.
//! - Leaves to others: what is said over them.
//! - Always true: a number is taken once in the life of a process, before it opens anything itself, and only where it
//!   is what master(8) would have put there.
//!
//! master(8) leaves 0, 1 and 2 on `/dev/null`, a pipe on 3 and 4 that only other daemons use, one end of the status
//! channel on 5, and from 6 on the listening sockets. A worker finds the same without the pipe, and on 0 one end of a
//! socket pair of which its supervisor has the other.
#![allow(
    unsafe_code,
    reason = "inherited descriptors are numbers, of which only the start of a program knows the owner"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;
use rustix::io::FdFlags;

/// The pipe that qmgr(8) and cleanup(8) share.
const FLOW_CONTROL: [RawFd; 2] = [3, 4];
const STATUS: RawFd = 5;
const FIRST_LISTENER: RawFd = 6;

/// Whether the descriptors of this process have their owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A descriptor that is not what it should be: nobody who knows how has started this process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this program is started by Postfix's master(8), as the command of a service in master.cf, and not by hand: \
     descriptor {number} should be {expected}, and is {found}"
)]
pub struct NotUnderMaster {
    number: RawFd,
    expected: &'static str,
    found: &'static str,
}

/// What a process of a service has.
#[derive(Debug)]
pub(super) struct Inherited {
    /// One end of the status channel.
    pub(super) status: OwnedFd,
    /// Where connections come in.
    pub(super) listeners: Vec<UnixListener>,
}

/// For the process that master(8) has started: status channel and listening sockets, to be passed on. The pipe is
/// closed.
pub(super) fn of_master(sockets: usize) -> Result<Inherited, NotUnderMaster> {
    let inherited = inherited(sockets)?;
    for number in FLOW_CONTROL {
        // By hand the numbers may not be there, or be something else that is closed at the end.
        if let Some(pipe) = adopt(number).filter(|pipe| is(pipe, FileType::Fifo)) {
            drop(pipe);
        }
    }
    Ok(inherited)
}

/// For its worker: the same, not to be passed on any more.
pub(super) fn of_supervisor(sockets: usize) -> Result<Inherited, NotUnderMaster> {
    let inherited = inherited(sockets)?;
    let listeners = inherited.listeners.iter().map(AsFd::as_fd);
    for descriptor in listeners.chain([inherited.status.as_fd()]) {
        // This fails only for a descriptor that is not open.
        let _ = rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
    Ok(inherited)
}

/// For its worker: the end of the socket pair.
pub(super) fn lifeline() -> Result<UnixStream, NotUnderMaster> {
    let (expected, found) = ("the socket of a supervisor", "no socket");
    standard_input().map_err(|_| NotUnderMaster { number: 0, expected, found })
}

/// The socket on standard input, where there is one. `/dev/null` takes its place there: what is opened next must not
/// become standard input.
pub(super) fn standard_input() -> io::Result<UnixStream> {
    let standard_input = io::stdin();
    if !is(&standard_input, FileType::Socket) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket"));
    }
    let socket = standard_input.as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(socket))
}

fn inherited(sockets: usize) -> Result<Inherited, NotUnderMaster> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        let (expected, found) = ("the status channel", "in use already");
        return Err(NotUnderMaster { number: STATUS, expected, found });
    }
    let status = known(STATUS, "the status channel", |socket| is(socket, FileType::Socket))?;
    let is_listener = |socket: &OwnedFd| rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false);
    let listener = |number| known(number, "a listening socket", is_listener).map(UnixListener::from);
    let listeners = (FIRST_LISTENER..).take(sockets).map(listener).collect::<Result<_, _>>()?;
    Ok(Inherited { status, listeners })
}

/// Takes a number that is what it should be.
fn known(
    number: RawFd,
    expected: &'static str,
    is_it: impl FnOnce(&OwnedFd) -> bool,
) -> Result<OwnedFd, NotUnderMaster> {
    let unfit = |found| NotUnderMaster { number, expected, found };
    let descriptor = adopt(number).ok_or_else(|| unfit("not open"))?;
    if is_it(&descriptor) { Ok(descriptor) } else { Err(unfit("something else")) }
}

fn is(descriptor: impl AsFd, kind: FileType) -> bool {
    rustix::fs::fstat(descriptor).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
}

/// Owns a number from now on, if it is open.
fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the number is not -1. That it is open is what is asked here: the kernel says so, or EBADF. Nothing else
    // is done with this borrow, and it ends with the question.
    let asked = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(asked).ok()?;
    // SAFETY: the number is open. It was inherited and is nobody's: its callers run once in a process (`TAKEN`), as
    // the first thing that `cli` does for these programs, when the standard library has opened nothing above 2.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
