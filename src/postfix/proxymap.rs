//! The client of proxymap(8), which looks keys up in tables that we cannot read ourselves.
//!
//! - Owns: the two forms of its requests, its connections, its answers and their meaning.
//! - Leaves to others: which tables there are (`maps`), what becomes of mail when there is no answer.
//! - Always true: a request has a deadline; a connection whose conversation did not end as it should is closed; asking
//!   again at once happens once, and only because a connection that had rested was dead.
//!
//! Until Postfix 3.10 a request has the flags for opening a table. Since 3.11 it has these as `instance_flags`, and a
//! look-up has the flags that opening returned too. A server that gets the wrong form calls it malformed, and does not read
//! on properly; so the other form goes over a new connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::attribute::{BadAttributes, List, Writer};

/// Connections that are kept.
const KEPT_MAX: usize = 4;
/// How long a connection may rest to be used again, and how old it may become. So Postfix's own clients do by default;
/// it lets the server end.
const IDLE_MAX: Duration = Duration::from_secs(5);
const AGE_MAX: Duration = Duration::from_secs(1000);
/// Flags of a table: lock it while it is read; ignore case, where keys are fixed texts.
const LOCK: i32 = 64;
const FOLD: i32 = 16384;

/// How keys of a table are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// As they are.
    Kept,
    /// In small letters.
    Folded,
}

impl Case {
    fn flags(self) -> i32 {
        match self {
            Self::Kept => LOCK,
            Self::Folded => LOCK | FOLD,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProxymapError {
    /// The administrator has not allowed the table.
    #[error("proxymap(8) may not read it")]
    NotApproved,
    /// The table cannot be opened.
    #[error("proxymap(8) cannot open it")]
    Unusable,
    /// The table gives no answer now.
    #[error("proxymap(8) has no answer from it now")]
    TryAgain,
    /// Neither form of a request is understood.
    #[error("proxymap(8) does not understand the request")]
    Malformed,
    /// The server cannot be reached, or broke off.
    #[error("proxymap(8) at {} does not answer: {error}", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its reply is none.
    #[error("proxymap(8) sent a reply that cannot be read: {0}")]
    BadReply(#[from] BadAttributes),
}

/// A client, for any number of threads.
#[derive(Debug)]
pub struct Proxymap {
    socket: PathBuf,
    timeout: Duration,
    /// Whether the server knows requests as they are since Postfix 3.11.
    new_form: AtomicBool,
    kept: Mutex<Vec<Connection>>,
}

/// A table and how its keys are compared.
type Instance = (String, Case);

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    made: Instant,
    rested_since: Instant,
    /// What opening these tables returned.
    opened: HashMap<Instance, i32>,
}

/// What went wrong over a connection.
enum Broken {
    /// The server was gone, as may be when it has been idle or has ended.
    Gone(io::Error),
    /// Anything else of the connection.
    Io(io::Error),
    Reply(BadAttributes),
}

impl From<BadAttributes> for Broken {
    fn from(bad: BadAttributes) -> Self {
        Self::Reply(bad)
    }
}

impl Proxymap {
    /// A client of the server behind `socket`. `new_form`: whether Postfix is 3.11 or newer; if that proves wrong, the
    /// other form is used. `timeout` is for one request.
    pub fn new(socket: impl Into<PathBuf>, new_form: bool, timeout: Duration) -> Self {
        Self { socket: socket.into(), timeout, new_form: new_form.into(), kept: Mutex::default() }
    }

    /// Makes the server open a table, as `type:name`.
    pub fn open(&self, table: &str, case: Case) -> Result<(), ProxymapError> {
        self.ask(|connection, new_form, deadline| {
            connection.opened.remove(&(table.to_owned(), case));
            let status = connection.open(table, case, new_form, deadline)?;
            Ok((status, ()))
        })
        .map(|_| ())
    }

    /// Looks a key up; `None`: the table does not have it.
    pub fn look_up(&self, table: &str, case: Case, key: &[u8]) -> Result<Option<Vec<u8>>, ProxymapError> {
        // No key with a NUL can be sent, and none that is sent in part would be the one that was meant.
        if key.contains(&0) {
            return Ok(None);
        }
        self.ask(|connection, new_form, deadline| connection.look_up(table, case, key, new_form, deadline))
    }

    /// Asks in the form that the server knows. The answer, or `None` for a key that is not there.
    fn ask<T>(
        &self,
        request: impl Fn(&mut Connection, bool, Instant) -> Result<(Status, T), Broken>,
    ) -> Result<Option<T>, ProxymapError> {
        let new_form = self.new_form.load(Ordering::Relaxed);
        let (mut status, mut answer) = self.converse(|connection, by| request(connection, new_form, by))?;
        if status == Status::Malformed {
            (status, answer) = self.converse(|connection, by| request(connection, !new_form, by))?;
            if status != Status::Malformed {
                self.new_form.store(!new_form, Ordering::Relaxed);
            }
        }
        match status {
            Status::Found => Ok(Some(answer)),
            Status::NotFound => Ok(None),
            Status::TryAgain => Err(ProxymapError::TryAgain),
            Status::Malformed => Err(ProxymapError::Malformed),
            Status::NotApproved => Err(ProxymapError::NotApproved),
            Status::Unusable => Err(ProxymapError::Unusable),
        }
    }

    /// Has one conversation: over a kept connection if there is one, and over a new one if that is dead.
    fn converse<T>(
        &self,
        request: impl Fn(&mut Connection, Instant) -> Result<(Status, T), Broken>,
    ) -> Result<(Status, T), ProxymapError> {
        let deadline = Instant::now() + self.timeout;
        if let Some(mut connection) = self.take_kept() {
            match request(&mut connection, deadline) {
                Ok(answer) => return Ok(self.ended(connection, answer)),
                Err(Broken::Gone(_)) => {}
                Err(other) => return Err(self.failed(other)),
            }
        }
        let connected = Connection::open_to(&self.socket, deadline);
        let mut connection = connected.map_err(|error| self.failed(Broken::Io(error)))?;
        match request(&mut connection, deadline) {
            Ok(answer) => Ok(self.ended(connection, answer)),
            Err(broken) => Err(self.failed(broken)),
        }
    }

    fn failed(&self, broken: Broken) -> ProxymapError {
        match broken {
            Broken::Gone(error) | Broken::Io(error) => {
                ProxymapError::Unreachable { socket: self.socket.clone(), error }
            }
            Broken::Reply(bad) => bad.into(),
        }
    }

    /// Keeps a connection over which another request can go.
    fn ended<T>(&self, mut connection: Connection, answer: (Status, T)) -> (Status, T) {
        if answer.0 != Status::Malformed {
            connection.rested_since = Instant::now();
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT_MAX {
                kept.push(connection);
            }
        }
        answer
    }

    /// The connection that was used last, if it is not too old; all that rested longer are closed with it.
    fn take_kept(&self) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|connection| {
            connection.rested_since.elapsed() < IDLE_MAX && connection.made.elapsed() < AGE_MAX
        });
        kept.pop()
    }
}

/// What the server says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Found,
    NotFound,
    TryAgain,
    Malformed,
    NotApproved,
    Unusable,
}

impl Status {
    fn of(list: &List) -> Result<Self, BadAttributes> {
        match list.int("status")? {
            0 => Ok(Self::Found),
            1 => Ok(Self::NotFound),
            2 => Ok(Self::TryAgain),
            3 => Ok(Self::Malformed),
            4 => Ok(Self::NotApproved),
            5 => Ok(Self::Unusable),
            _ => Err(BadAttributes::Malformed("status")),
        }
    }
}

impl Connection {
    /// Connects. The socket blocks: one that does not fails at once where the server's backlog is full.
    fn open_to(path: &Path, deadline: Instant) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_write_timeout(Some(time_left(deadline)?))?;
        socket.connect(&SockAddr::unix(path)?)?;
        let now = Instant::now();
        Ok(Self {
            stream: UnixStream::from(std::os::fd::OwnedFd::from(socket)),
            made: now,
            rested_since: now,
            opened: HashMap::new(),
        })
    }

    /// Has the table opened, unless that was done over this connection.
    fn open(&mut self, table: &str, case: Case, new_form: bool, by: Instant) -> Result<Status, Broken> {
        let instance = (table.to_owned(), case);
        if self.opened.contains_key(&instance) {
            return Ok(Status::Found);
        }
        let flags = if new_form { "instance_flags" } else { "flags" };
        let request = Writer::new().text("request", "open").text("table", table).int(flags, case.flags());
        let reply = self.transact(&request.end(), by)?;
        let status = Status::of(&reply)?;
        if status == Status::Found {
            self.opened.insert(instance, reply.int("flags")?);
        }
        Ok(status)
    }

    fn look_up(
        &mut self,
        table: &str,
        case: Case,
        key: &[u8],
        new_form: bool,
        by: Instant,
    ) -> Result<(Status, Vec<u8>), Broken> {
        let request = Writer::new().text("request", "lookup").text("table", table);
        let request = if new_form {
            let status = self.open(table, case, new_form, by)?;
            let Some(flags) = self.opened.get(&(table.to_owned(), case)) else {
                return Ok((status, Vec::new()));
            };
            request.int("instance_flags", case.flags()).int("flags", *flags)
        } else {
            request.int("flags", case.flags())
        };
        let reply = self.transact(&request.text("key", key).end(), by)?;
        match Status::of(&reply)? {
            Status::Found => Ok((Status::Found, reply.octets("value")?.to_vec())),
            status => Ok((status, Vec::new())),
        }
    }

    /// Sends a request and reads the reply. What the server announces of itself before the first one is passed over.
    fn transact(&mut self, request: &[u8], by: Instant) -> Result<List, Broken> {
        self.stream.set_write_timeout(Some(time_left(by).map_err(Broken::Io)?)).map_err(Broken::Io)?;
        self.stream.write_all(request).map_err(gone)?;
        let mut octets = Vec::new();
        loop {
            while let Some((list, length)) = List::parse(&octets)? {
                octets.drain(..length);
                if list.get("status").is_some() {
                    // More than one reply to a request would be taken for the reply to the next.
                    return if octets.is_empty() {
                        Ok(list)
                    } else {
                        Err(BadAttributes::Malformed("status").into())
                    };
                }
                if list.get("protocol").is_none() {
                    return Err(BadAttributes::Missing("status").into());
                }
            }
            self.read_more(&mut octets, by)?;
        }
    }

    fn read_more(&mut self, octets: &mut Vec<u8>, by: Instant) -> Result<(), Broken> {
        self.stream.set_read_timeout(Some(time_left(by).map_err(Broken::Io)?)).map_err(Broken::Io)?;
        let mut some = [0; 4096];
        match self.stream.read(&mut some) {
            Ok(0) => {
                Err(Broken::Gone(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")))
            }
            Ok(length) => {
                octets.extend_from_slice(&some[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(gone(error)),
        }
    }
}

/// Tells a server that is gone from one that is slow.
fn gone(error: io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Broken::Gone(error),
        io::ErrorKind::WouldBlock => Broken::Io(io::ErrorKind::TimedOut.into()),
        _ => Broken::Io(error),
    }
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests;
