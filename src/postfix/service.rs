//! The worker's side of life under master(8): how it comes to its connections, and how it learns that it is to end.
//!
//! - Owns: the listening sockets, the status channel, the tie to the supervisor, giving up privileges.
//! - Leaves to others: what is said over a connection, and finishing what is under way.
//! - Always true: master(8) hears of this process once, after its first connection, under the supervisor's process ID.
//!
//! Beside the descriptors here, a worker hears two signals, which its master thread takes up with signal-hook:
//! SIGTERM, with which `postfix stop` ends all processes at once, asks it to finish within a limit; [`SIGNALS`] has
//! both. SIGHUP is passed over: master(8) sends it to nobody, and who sends it to every process of this name ends the
//! supervisor by it, so that a worker with a new configuration follows. Before that thread listens there is nothing to
//! finish, and a signal may do what it always does.
//!
//! There is no watchdog, with which Postfix's daemons end a process that has not come back to its loop for
//! `daemon_timeout`: here that would end hundreds of deliveries for the sake of one. Each stage of each delivery has a
//! limit of its own, and so has each exchange with another daemon.
//!
//! Nor is there a lock around accept(2): the worker is alone, or else whoever comes second finds nothing to accept.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::descriptors::{self, NotUnderMaster};
use super::environment::Environment;
use super::options::{Options, Role};
use super::status::{RECORD_SIZE, Status, record};
use crate::system::{Identity, Refused};

/// The signals of a worker: finish within a limit; nothing.
pub const SIGNALS: [i32; 2] = [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];

/// Why a worker cannot begin. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Started by somebody else.
    #[error(transparent)]
    NotUnderMaster(#[from] NotUnderMaster),
    /// master(8) tells its children which generation they are.
    #[error(
        "this program is started by Postfix's master(8), as the command of a service in master.cf, and not by hand: \
         its environment has no GENERATION, or none that is an octal number"
    )]
    NoGeneration,
    /// `-S` without a client.
    #[error("-S: the client on standard input cannot be served: {0}")]
    NoClient(io::Error),
    /// A listening socket that cannot be used.
    #[error("the listening socket of this service cannot be used: {0}; no mail is delivered by it")]
    Socket(io::Error),
    /// `mail_owner` cannot be used.
    #[error("mail_owner = {name}: {reason}; no mail is delivered by this service")]
    MailOwner {
        /// Its value.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The system refused another identity or root directory.
    #[error("{0}; no mail is delivered by this service")]
    Refused(#[from] Refused),
}

/// A worker that may begin: all that it is told by those who started it.
#[derive(Debug)]
pub struct Started {
    /// What it is by its name.
    pub role: Role,
    /// What its command line asks for.
    pub options: Options,
    /// What its environment says.
    pub environment: Environment,
    /// Where its connections come from.
    pub door: Door,
}

/// Where connections come from.
#[derive(Debug)]
pub enum Door {
    /// master(8)'s sockets.
    Service(Service),
    /// Standard input, where `-S` says so: one client, and then the end. There is no supervisor.
    OneClient(UnixStream),
}

impl Started {
    /// Takes the descriptors. To be called before the process opens anything.
    pub fn take(role: Role, options: Options, environment: Environment) -> Result<Self, ServiceError> {
        let door = if options.one_client {
            Door::OneClient(descriptors::standard_input().map_err(ServiceError::NoClient)?)
        } else {
            Door::Service(Service::take(&options, &environment)?)
        };
        name_process(&role.process);
        Ok(Self { role, options, environment, door })
    }
}

/// The program was started as `/proc/self/exe`; in lists of processes it has its own name. Only for the eye.
fn name_process(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Gives up what root may do, as `-u` (`mail_owner`) and `-c` (the queue directory) ask for, in the order of Postfix's
/// own daemons. By then everything must be open that is outside of the queue directory or closed to `mail_owner`: the
/// log, main.cf, tables; and the queue directory must be the current one.
pub fn drop_privileges(mail_owner: Option<&str>, root: Option<&Path>) -> Result<(), ServiceError> {
    let identity = match mail_owner {
        Some(name) => {
            let unfit = |reason| ServiceError::MailOwner { name: name.to_owned(), reason };
            let identity = Identity::of_user(name).map_err(unfit)?;
            if identity.uid().is_root() || identity.gid().is_root() {
                return Err(unfit(
                    "this account has the privileges of root, which it is to be free of".to_owned(),
                ));
            }
            identity
        }
        None => Identity::present(),
    };
    Ok(identity.take_on(root)?)
}

/// What ties a worker to master(8) and to its supervisor.
#[derive(Debug)]
pub struct Service {
    listeners: Vec<UnixListener>,
    status: OwnedFd,
    /// The supervisor has the other end.
    lifeline: UnixStream,
    supervisor: i32,
    generation: u32,
    is_known_to_work: bool,
}

/// Why a worker takes no new mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// master(8) has closed the status channel: reload, drain, stop, or its death.
    Master,
    /// The supervisor is gone: the service was removed, or somebody has killed it.
    Supervisor,
}

impl Service {
    /// What to poll for on the descriptors of [`Service::ends`]: neither is ever written to.
    pub const END: PollFlags = PollFlags::RDHUP;

    fn take(options: &Options, environment: &Environment) -> Result<Self, ServiceError> {
        let inherited = descriptors::of_supervisor(options.sockets)?;
        let lifeline = descriptors::lifeline()?;
        let generation = environment.generation.ok_or(ServiceError::NoGeneration)?;
        let supervisor = environment.supervisor.ok_or(ServiceError::NoGeneration)?;
        for listener in &inherited.listeners {
            // They are already; several processes may have them, and one that blocks in accept(2) would be deaf.
            listener.set_nonblocking(true).map_err(ServiceError::Socket)?;
        }
        let (status, listeners) = (inherited.status, inherited.listeners);
        Ok(Self { listeners, status, lifeline, supervisor, generation, is_known_to_work: false })
    }

    /// A service for the tests of others.
    #[cfg(test)]
    pub(crate) fn for_test(listener: UnixListener, status: OwnedFd, lifeline: UnixStream) -> Self {
        let (supervisor, generation) = (0, 0);
        Self { listeners: vec![listener], status, lifeline, supervisor, generation, is_known_to_work: false }
    }

    /// The sockets to poll for connections; none after [`Service::close`].
    pub fn listeners(&self) -> &[UnixListener] {
        &self.listeners
    }

    /// The descriptors to poll for [`Service::END`].
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.status.as_fd(), self.lifeline.as_fd()]
    }

    /// Whether it is time to finish, and why. Does not wait.
    pub fn ended(&self) -> Option<Ended> {
        let mut ends = self.ends().map(|end| PollFd::from_borrowed_fd(end, Self::END));
        // A poll that fails is repeated by the loop that asks.
        poll(&mut ends, Some(&Timespec::default())).ok()?;
        match ends.map(|end| !end.revents().is_empty()) {
            [true, _] => Some(Ended::Master),
            [false, true] => Some(Ended::Supervisor),
            [false, false] => None,
        }
    }

    /// A connection that waits at one of the sockets; `None`: nobody is there (any more). The first one is announced to
    /// master(8). The connection blocks, and is not passed on to other programs.
    ///
    /// An error means that this process or the system lacks something; the connection still waits, so that a poll
    /// would find it at once: the caller should do something else for a while.
    pub fn accept(&mut self) -> io::Result<Option<UnixStream>> {
        for listener in &self.listeners {
            match listener.accept() {
                Ok((connection, _)) => {
                    self.tell_master();
                    return Ok(Some(connection));
                }
                Err(error) if is_nobody(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Stops listening: who connects from now on is the successor's.
    pub fn close(&mut self) {
        self.listeners.clear();
    }

    /// Tells master(8), once, that this process has worked. Nobody answers, and nothing depends on it but how soon a
    /// successor starts after a crash; where master(8) is gone, the end of file tells that too.
    fn tell_master(&mut self) {
        if std::mem::replace(&mut self.is_known_to_work, true) {
            return;
        }
        for status in [Status::Taken, Status::Available] {
            let record = record(self.supervisor, self.generation, status);
            // The master thread never blocks, not even here. 24 octets always have room.
            match rustix::net::send(&self.status, &record, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(RECORD_SIZE) => {}
                Ok(sent) => log::warn!("master(8) was told only {sent} octets of {RECORD_SIZE}"),
                Err(error) => log::debug!("master(8) cannot be told anything: {}", io::Error::from(error)),
            }
        }
    }
}

/// Who is not there any more, or was somebody else's.
fn is_nobody(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::Duration;

    use tempfile::TempDir;

    struct Outside {
        directory: TempDir,
        master: UnixStream,
        supervisor: UnixStream,
    }

    fn service(sockets: usize) -> (Service, Outside) {
        let directory = TempDir::new().unwrap();
        let listener = |number: usize| {
            let listener = UnixListener::bind(directory.path().join(number.to_string())).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let listeners = (0..sockets).map(listener).collect();
        let ((master, status), (supervisor, lifeline)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        master.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let service = Service {
            listeners,
            status: status.into(),
            lifeline,
            supervisor: 4711,
            generation: 0o74,
            is_known_to_work: false,
        };
        (service, Outside { directory, master, supervisor })
    }

    impl Outside {
        fn connect(&self, number: usize) -> UnixStream {
            UnixStream::connect(self.directory.path().join(number.to_string())).unwrap()
        }
    }

    #[test]
    fn master_hears_of_the_first_connection_and_of_no_other() {
        let (mut service, mut outside) = service(2);
        assert!(service.accept().unwrap().is_none());
        assert!(outside.master.read(&mut [0; 1]).is_err(), "nothing was accepted");
        let _clients = [outside.connect(1), outside.connect(0), outside.connect(1)];
        for _ in 0..3 {
            assert!(service.accept().unwrap().is_some());
        }
        assert!(service.accept().unwrap().is_none());
        let mut heard = [0; 3 * RECORD_SIZE];
        let length = outside.master.read(&mut heard).unwrap();
        let expected = [record(4711, 60, Status::Taken), record(4711, 60, Status::Available)];
        assert_eq!(heard[..length], *expected.as_flattened());
    }

    #[test]
    fn mail_is_accepted_when_master_is_gone_or_hears_nothing() {
        let (mut service, outside) = service(1);
        let _client = outside.connect(0);
        outside.master.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(service.accept().unwrap().is_some());
        let (mut service, outside) = self::service(1);
        rustix::io::ioctl_fionbio(&service.status, true).unwrap();
        while rustix::io::write(&service.status, &[0; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&service.status, false).unwrap();
        let _client = outside.connect(0);
        assert!(service.accept().unwrap().is_some());
    }

    #[test]
    fn the_end_of_master_and_that_of_the_supervisor_are_both_seen() {
        let (service, outside) = service(1);
        assert_eq!(service.ended(), None);
        drop(outside.supervisor);
        assert_eq!(service.ended(), Some(Ended::Supervisor));
        drop(outside.master);
        assert_eq!(service.ended(), Some(Ended::Master));
    }

    #[test]
    fn what_is_said_by_mistake_is_no_end() {
        let (service, outside) = service(1);
        std::io::Write::write_all(&mut &outside.master, b"?").unwrap();
        std::io::Write::write_all(&mut &outside.supervisor, b"?").unwrap();
        assert_eq!(service.ended(), None);
    }

    #[test]
    fn who_connects_after_the_close_is_left_to_another() {
        let (mut service, outside) = service(1);
        let others = service.listeners()[0].try_clone().unwrap();
        service.close();
        let _client = outside.connect(0);
        assert!(service.accept().unwrap().is_none() && service.listeners().is_empty());
        assert!(others.accept().is_ok());
    }

    #[test]
    fn a_mail_owner_with_root_s_privileges_or_without_an_account_is_refused() {
        for (name, part) in [("root", "the privileges of root"), ("no such user", "there is no such user")] {
            let error = drop_privileges(Some(name), None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("mail_owner = {name}: ")) && error.contains(part), "{error}");
        }
    }

    /// Tells a copy of this test program that it is the one whose privileges are dropped.
    const CHILD: &str = "TEST_DROPS_PRIVILEGES_IN";

    #[test]
    fn the_user_and_the_root_directory_change_for_good_and_for_all_threads() {
        if let Some(root) = std::env::var_os(CHILD) {
            return drop_them_in(Path::new(&root));
        }
        if !rustix::process::getuid().is_root() {
            return eprintln!("skipped: only root can become another user");
        }
        let directory = TempDir::new().unwrap();
        let inside = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), inside).unwrap();
        std::fs::write(directory.path().join("inside"), "").unwrap();
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let name =
            "postfix::service::tests::the_user_and_the_root_directory_change_for_good_and_for_all_threads";
        again.args(["--exact", name, "--nocapture"]).env(CHILD, directory.path());
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
    }

    fn drop_them_in(root: &Path) {
        let nobody = Identity::of_user("nobody").unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            wait.recv().unwrap();
            (rustix::process::getuid(), rustix::process::getgid())
        });
        drop_privileges(Some("nobody"), Some(root)).unwrap();
        go.send(()).unwrap();
        let expected = (nobody.uid(), nobody.gid());
        assert_eq!(other.join().unwrap(), expected);
        assert_eq!((rustix::process::getuid(), rustix::process::getgid()), expected);
        assert!(!rustix::process::getgroups().unwrap().contains(&rustix::fs::Gid::ROOT));
        assert!(nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).is_err(), "root again");
        assert!(Path::new("/inside").exists() && Path::new("inside").exists());
    }
}
