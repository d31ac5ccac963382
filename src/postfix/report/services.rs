//! Telling Postfix's daemons over their sockets.
//!
//! - Owns: the sockets, how long a daemon may take, the words for what goes wrong with one.
//! - Leaves to others: what is told (`call`, `notice`), and what a failure means (`decision`).
//! - Always true: each call has a connection of its own, and one deadline for all of it; anything but a yes that was
//!   read is a no.
//!
//! Since 3.6 a daemon says first which protocol it speaks, and a client of Postfix waits for that. An older one says
//! nothing until it is asked. So here the question goes out at once, to either: what comes back first tells the two
//! apart, and nobody needs to know the release.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::call::{Call, Service, ServiceNames};
use super::notice::Notice;
use crate::postfix::attribute::{BadAttributes, List};

/// Octets read at once. Answers are short.
const READ_SIZE: usize = 1024;
/// Lists that are read in the hope of an answer: an announcement, and the answer.
const LISTS_MAX: usize = 2;

/// flush(8) keeps no log for the domain: that is an answer, and no failure.
const FLUSH_DENIED: i32 = 4;

/// The daemons of a Postfix instance. May be used by several threads at once.
#[derive(Clone, Debug)]
pub struct Services {
    queue_directory: PathBuf,
    names: ServiceNames,
    timeout: Duration,
}

/// Why a daemon could not be told.
#[derive(Debug)]
pub struct Failure {
    /// Its socket, below the queue directory.
    socket: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Connect(io::Error),
    Write(io::Error),
    Read(io::Error),
    /// It closed without an answer.
    Closed,
    /// The deadline has passed, after this time.
    TimedOut(Duration),
    Malformed(BadAttributes),
    /// It speaks something else.
    Protocol {
        expected: &'static str,
        found: String,
    },
    /// It answered, and not with yes.
    Status(i32, String),
}

impl Failure {
    /// Whether the daemon has kept us waiting for nothing, and may do so again.
    pub fn is_timeout(&self) -> bool {
        matches!(self.what, What::TimedOut(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = &self.socket;
        match &self.what {
            What::Connect(error) => write!(f, "connect to {socket}: {}", words(error)),
            What::Write(error) => write!(f, "write {socket}: {}", words(error)),
            What::Read(error) => write!(f, "read {socket}: {}", words(error)),
            What::Closed => write!(f, "read {socket}: it closed the connection without an answer"),
            What::TimedOut(limit) => write!(f, "{socket} has not answered within {} s", limit.as_secs()),
            What::Malformed(problem) => write!(f, "read {socket}: the answer is malformed: {problem}"),
            What::Protocol { expected, found } => {
                write!(f, "{socket} speaks \"{found}\" where \"{expected}\" was expected")
            }
            What::Status(status, reason) if reason.is_empty() => {
                write!(f, "{socket} has answered with status {status}")
            }
            What::Status(status, reason) => write!(f, "{socket} has answered with status {status}: {reason}"),
        }
    }
}

impl std::error::Error for Failure {}

impl Services {
    /// The daemons whose sockets are below `queue_directory`: `.` where that is the working directory, also inside of
    /// a changed root. A call takes `timeout` (`ipc_timeout`) at most.
    pub fn new(queue_directory: impl Into<PathBuf>, names: ServiceNames, timeout: Duration) -> Self {
        // To a socket, zero means for ever.
        let timeout = timeout.max(Duration::from_secs(1));
        Self { queue_directory: queue_directory.into(), names, timeout }
    }

    /// Tells a daemon, and waits for its yes.
    pub fn tell(&self, call: &Call) -> Result<(), Failure> {
        let mut line = self.connect(call.service)?;
        line.write(&call.octets)?;
        let (status, _) = line.status()?;
        match (call.service, status) {
            (_, 0) | (Service::Flush, FLUSH_DENIED) => Ok(()),
            _ => Err(line.failure(What::Status(status, String::new()))),
        }
    }

    /// Hands a notice to cleanup(8); returns its queue ID.
    pub fn submit(&self, notice: &Notice<'_>) -> Result<String, Failure> {
        let mut line = self.connect(Service::Cleanup)?;
        // It says which ID the message will have, and `Received:` wants to know.
        let greeting = line.list()?;
        line.check_protocol(&greeting)?;
        let malformed = |line: &Line<'_>, problem| line.failure(What::Malformed(problem));
        let queue_id = greeting.text("queue_id").map_err(|problem| malformed(&line, problem))?;
        line.write(&notice.submission(&queue_id))?;
        match line.status()? {
            (0, _) => Ok(queue_id),
            (status, list) => {
                let reason = list.text("reason").unwrap_or_default();
                Err(line.failure(What::Status(status, reason)))
            }
        }
    }

    fn connect(&self, service: Service) -> Result<Line<'_>, Failure> {
        let socket = self.names.socket(service);
        let deadline = Deadline { at: Instant::now() + self.timeout, limit: self.timeout };
        let connected = connect(&self.queue_directory.join(&socket), deadline);
        match connected {
            Ok(stream) => Ok(Line { service, services: self, stream, deadline, input: Vec::new(), used: 0 }),
            Err(what) => Err(Failure { socket, what }),
        }
    }
}

/// When a call must have ended, and how long that was from its start.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// What is left. Never zero: to a socket that means for ever.
    fn left(self) -> Result<Duration, What> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(What::TimedOut(self.limit)) } else { Ok(left) }
    }

    fn told(self, error: io::Error, what: fn(io::Error) -> What) -> What {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => What::TimedOut(self.limit),
            _ => what(error),
        }
    }
}

/// Waits for room in the daemon's backlog, as long as the deadline allows.
fn connect(path: &Path, deadline: Deadline) -> Result<Socket, What> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(What::Connect)?;
    let address = SockAddr::unix(path).map_err(What::Connect)?;
    loop {
        socket.set_write_timeout(Some(deadline.left()?)).map_err(What::Connect)?;
        match socket.connect(&address) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(deadline.told(error, What::Connect)),
        }
    }
}

/// A connection to a daemon.
struct Line<'a> {
    service: Service,
    services: &'a Services,
    stream: Socket,
    deadline: Deadline,
    input: Vec<u8>,
    /// Octets of the input that were taken.
    used: usize,
}

impl Line<'_> {
    fn failure(&self, what: What) -> Failure {
        Failure { socket: self.services.names.socket(self.service), what }
    }

    fn write(&mut self, mut octets: &[u8]) -> Result<(), Failure> {
        while !octets.is_empty() {
            match self.write_some(octets) {
                Ok(written) => octets = octets.get(written..).unwrap_or_default(),
                Err(what) => return Err(self.failure(what)),
            }
        }
        Ok(())
    }

    fn write_some(&mut self, octets: &[u8]) -> Result<usize, What> {
        self.stream.set_write_timeout(Some(self.deadline.left()?)).map_err(What::Write)?;
        match self.stream.write(octets) {
            Ok(0) => Err(What::Write(io::ErrorKind::WriteZero.into())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            written => written.map_err(|error| self.deadline.told(error, What::Write)),
        }
    }

    /// The answer, behind what the daemon may say of its protocol first.
    fn status(&mut self) -> Result<(i32, List), Failure> {
        for _ in 0..LISTS_MAX {
            let list = self.list()?;
            if list.get("status").is_some() {
                let status = list.last_int("status");
                return match status {
                    Ok(status) => Ok((status, list)),
                    Err(problem) => Err(self.failure(What::Malformed(problem))),
                };
            }
            self.check_protocol(&list)?;
        }
        Err(self.failure(What::Malformed(BadAttributes::Missing("status"))))
    }

    /// Postfix before 3.6 does not name its protocol.
    fn check_protocol(&self, list: &List) -> Result<(), Failure> {
        let expected = self.service.protocol();
        match list.text("protocol") {
            Ok(found) if found != expected => Err(self.failure(What::Protocol { expected, found })),
            _ => Ok(()),
        }
    }

    fn list(&mut self) -> Result<List, Failure> {
        loop {
            let unused = self.input.get(self.used..).unwrap_or_default();
            match List::parse(unused) {
                Ok(Some((list, length))) => {
                    self.used += length;
                    return Ok(list);
                }
                Ok(None) => self.fill().map_err(|what| self.failure(what))?,
                Err(problem) => return Err(self.failure(What::Malformed(problem))),
            }
        }
    }

    fn fill(&mut self) -> Result<(), What> {
        self.stream.set_read_timeout(Some(self.deadline.left()?)).map_err(What::Read)?;
        let mut octets = [0; READ_SIZE];
        match self.stream.read(&mut octets) {
            Ok(0) => Err(What::Closed),
            Ok(length) => {
                self.input.extend_from_slice(octets.get(..length).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.deadline.told(error, What::Read)),
        }
    }
}

/// An error as strerror(3) has it, without Rust's number behind it.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
