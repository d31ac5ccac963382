//! The process that master(8) knows.
//!
//! - Owns: when it ends, and how; starting the worker.
//! - Leaves to others: all mail, which is the worker's (`service`).
//! - Always true: it has one thread, catches no signal, waits for two things only, and keeps nothing of root's that it
//!   need not.
//!
//! master(8) starts the next generation of a service only when the process that it knows is gone, and waits for that,
//! with all mail standing still, where a service was removed. A process with deliveries under way cannot end at once,
//! since their recipients would get them again. So there are two: this one has nothing to lose and ends at once, on
//! SIGTERM or at the end of file on the status channel (reload, drain, death of master(8)); the worker, which is the
//! same program started once more, sees the same and finishes what it has, beside its successor.
//!
//! | what happens | supervisor | worker |
//! | --- | --- | --- |
//! | the status channel ends | exits with 0 | takes no new mail, finishes, exits |
//! | SIGTERM to it, or any other signal | dies | the same |
//! | SIGTERM to all (`postfix stop`) | dies | the same, with a limit of time |
//! | the worker exits with 0 (idle) | exits with 0 | |
//! | the worker ends otherwise | exits with 1: master(8) starts another at once | |
//!
//! The two hold one end each of a socket pair, the worker's on its standard input: when one of them ends, however,
//! the other reads the end of file. (Descriptors for processes would do it too, but not on the older kernels that
//! Postfix 3.5 comes with.) The worker knows by [`SUPERVISOR`] that it is one, and whose.
//!
//! With `-u` the supervisor becomes the owner of `private/`, as soon as the worker is started: that is `mail_owner`,
//! known without main.cf, and the user of every other process of Postfix that talks to the world. (`nobody` is shared
//! with strangers, who could end it.)

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::descriptors::{self, NotUnderMaster};
use super::environment::SUPERVISOR;
use super::options::Options;
use crate::system::{Identity, Refused};

/// The program that runs: the same for the worker, also when another version was installed meanwhile.
const OURSELVES: &str = "/proc/self/exe";
/// Below the queue directory, which master(8) starts its services in.
const MAIL_OWNERS: &str = "private";

/// Why no worker was started, or not left alone with its mail. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Started by somebody else.
    #[error(transparent)]
    NotUnderMaster(#[from] NotUnderMaster),
    /// `-u`, and it is not known who `mail_owner` is.
    #[error(
        "-u: the owner of {MAIL_OWNERS}/ in the queue directory should be mail_owner: {0}; no mail is delivered by \
         this service"
    )]
    MailOwner(String),
    /// The worker could not be started.
    #[error("{OURSELVES} cannot be started as the worker: {0}; no mail is delivered by this service")]
    Worker(io::Error),
    /// Privileges that cannot be given up.
    #[error("{0}; the service stops")]
    Refused(#[from] Refused),
    /// poll(2) or wait(2) failed.
    #[error("the worker cannot be waited for: {0}; the service stops")]
    Wait(io::Error),
}

/// Why a supervisor ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// master(8) wants another generation, or no service any more, or is gone itself.
    MasterHasClosed,
    /// The worker has ended.
    Worker {
        /// Its process ID.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
}

/// The supervisor, once its worker runs.
#[derive(Debug)]
pub struct Supervisor {
    status: OwnedFd,
    /// The worker has the other end.
    lifeline: UnixStream,
    worker: Child,
}

impl Supervisor {
    /// Starts the worker. `command` is the whole command line of this process. To be called before it opens anything.
    pub fn start(command: &[OsString], options: &Options) -> Result<Self, SupervisorError> {
        let inherited = descriptors::of_master(options.sockets)?;
        let identity =
            options.unprivileged.then(mail_owner).transpose().map_err(SupervisorError::MailOwner)?;
        let (lifeline, workers_end) = UnixStream::pair().map_err(SupervisorError::Worker)?;
        let mut worker = Command::new(OURSELVES);
        if let [name, arguments @ ..] = command {
            worker.arg0(name).args(arguments);
        }
        worker.env(SUPERVISOR, std::process::id().to_string()).stdin(OwnedFd::from(workers_end));
        let child = worker.spawn().map_err(SupervisorError::Worker)?;
        if let Some(identity) = identity {
            identity.take_on(None)?;
        }
        // What is the worker's alone is closed here: the listening sockets, and its end of the pair, which `worker` has.
        Ok(Self { status: inherited.status, lifeline, worker: child })
    }

    /// Waits until there is a reason to end.
    pub fn wait(mut self) -> Result<End, SupervisorError> {
        loop {
            let end = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::RDHUP);
            let mut ends = [end(self.status.as_fd()), end(self.lifeline.as_fd())];
            match poll(&mut ends, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(SupervisorError::Wait(error.into())),
            }
            let [status, lifeline] = ends.map(|end| !end.revents().is_empty());
            if status {
                return Ok(End::MasterHasClosed);
            }
            if lifeline {
                let pid = self.worker.id();
                let status = self.worker.wait().map_err(SupervisorError::Wait)?;
                return Ok(End::Worker { pid, status });
            }
        }
    }
}

/// Who owns the queue's private parts.
fn mail_owner() -> Result<Identity, String> {
    let stat = rustix::fs::stat(MAIL_OWNERS).map_err(|error| io::Error::from(error).to_string())?;
    let uid = rustix::fs::Uid::from_raw(stat.st_uid);
    if uid.is_root() && rustix::process::geteuid().is_root() {
        return Err("it is root (postfix set-permissions mends that)".to_owned());
    }
    Identity::of_uid(uid).map_err(|reason| format!("uid {}: {reason}", uid.as_raw()))
}
