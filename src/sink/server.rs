//! The server: its listeners, its threads and its end.
//!
//! - Owns: accepting, the bound on connections, stopping.
//! - Leaves to others: the conversation (`session`).
//! - Always true: a connection is in the register while its thread runs, so that stopping ends every thread.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustls::ServerConfig;
use socket2::Socket;

use super::counts::{Counters, add};
use super::maildir::Maildirs;
use super::session;
use super::tls::TlsConfig;
use super::{Counts, Extension, Listen, Script};
use crate::mail::Protocol;

/// Stack of a connection's thread; the buffers are on the heap.
const STACK_SIZE: usize = 256 * 1024;
/// How long stopping waits for the connections' threads.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long the server rests when it has run out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What becomes of the mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A Maildir for each recipient under this directory, named by [`super::maildir_name`]. Files hold the octets
    /// of the content as they came, with CRLF.
    Maildir(PathBuf),
    /// It is counted and forgotten.
    Discard,
}

/// How the server is to be.
#[derive(Debug)]
pub struct SinkConfig {
    /// LMTP or ESMTP.
    pub protocol: Protocol,
    /// Where it listens; at least one.
    pub listen: Vec<Listen>,
    /// What becomes of the mail.
    pub store: Store,
    /// How it misbehaves.
    pub script: Script,
    /// What it does not offer.
    pub without: Vec<Extension>,
    /// Its name in the greeting.
    pub hostname: String,
    /// Connections at a time; further ones get a 421.
    pub connection_limit: usize,
    /// Octets of a message.
    pub message_size_limit: u64,
    /// Recipients of a transaction (LIMITS RCPTMAX); further ones get a 452.
    pub recipient_limit: usize,
    /// Transactions of a connection (LIMITS MAILMAX); a further one gets a 421. `None` for no limit.
    pub transaction_limit: Option<usize>,
    /// How long it waits for a command, or for more content.
    pub timeout: Duration,
    /// What it needs for TLS; `None`: it offers none.
    pub tls: Option<TlsConfig>,
    /// Whether TLS begins with the connection (RFC 8314 section 3). Needs `tls`.
    pub wrappermode: bool,
    /// Names and passwords, one of which a client has to log in with; empty: nobody has to, nor can.
    pub logins: Vec<(String, String)>,
}

impl SinkConfig {
    /// A well-behaved LMTP server that listens at `listen` and throws mail away.
    pub fn new(listen: Listen) -> Self {
        Self {
            protocol: Protocol::Lmtp,
            listen: vec![listen],
            store: Store::Discard,
            script: Script::default(),
            without: Vec::new(),
            hostname: "sink.example".to_owned(),
            connection_limit: 1000,
            message_size_limit: 50 * 1024 * 1024,
            recipient_limit: 1000,
            transaction_limit: None,
            timeout: Duration::from_secs(300),
            tls: None,
            wrappermode: false,
            logins: Vec::new(),
        }
    }
}

/// The server, before it runs.
#[derive(Debug)]
pub struct Sink;

impl Sink {
    /// Opens the listeners and starts to serve. On an error nothing is left running.
    pub fn start(config: SinkConfig) -> io::Result<Handle> {
        let shared = Arc::new(Shared::new(config)?);
        let mut opened = Vec::new();
        for listen in &shared.config.listen {
            let at = |error: io::Error| {
                io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"))
            };
            opened.push(listen.open().map_err(at)?);
        }
        let (listeners, addresses): (Vec<_>, _) = opened.into_iter().unzip();
        let (wake_reader, wake) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let accepting = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("sink accept".to_owned())
            .spawn(move || accept_all(&accepting, &listeners, &wake_reader))?;
        Ok(Handle { shared, addresses, acceptor: Some(acceptor), wake: Some(wake) })
    }
}

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    addresses: Vec<Listen>,
    acceptor: Option<JoinHandle<()>>,
    wake: Option<OwnedFd>,
}

impl Handle {
    /// Where it listens, in the order of the configuration, ports filled in.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Stops: closes all listeners and connections, and waits for their threads.
    pub fn stop(mut self) -> Counts {
        self.end();
        self.counts()
    }

    fn end(&mut self) {
        // Dropping the pipe's end wakes the acceptor.
        if self.wake.take().is_none() {
            return;
        }
        self.shared.stop.set();
        if self.acceptor.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("sink: the accepting thread panicked");
        }
        self.shared.end_connections();
        for address in &self.addresses {
            if let Listen::Unix(path) = address
                && let Err(error) = std::fs::remove_file(path)
            {
                log::debug!("sink: cannot remove {}: {error}", path.display());
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells threads that wait to stop.
#[derive(Debug, Default)]
pub(super) struct Stop {
    set: Mutex<bool>,
    bell: Condvar,
}

impl Stop {
    fn set(&self) {
        *lock(&self.set) = true;
        self.bell.notify_all();
    }

    /// Waits for `time`, or until the server stops; whether it does.
    pub fn wait(&self, time: Duration) -> bool {
        let set = lock(&self.set);
        let (set, _) =
            self.bell.wait_timeout_while(set, time, |set| !*set).unwrap_or_else(PoisonError::into_inner);
        *set
    }
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub config: SinkConfig,
    pub tls: Option<Arc<ServerConfig>>,
    pub maildirs: Option<Maildirs>,
    pub counters: Counters,
    pub stop: Arc<Stop>,
    connections: Mutex<HashMap<u64, Arc<Socket>>>,
    all_gone: Condvar,
}

/// Locks even after a panic elsewhere: what the locks protect is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Opens the Maildirs, and reads certificate and key.
    pub fn new(config: SinkConfig) -> io::Result<Self> {
        let tls = config.tls.as_ref().map(TlsConfig::open).transpose()?;
        if config.wrappermode && tls.is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "wrapper mode needs a certificate"));
        }
        let maildirs = match &config.store {
            Store::Maildir(root) => Some(Maildirs::open(root, &config.hostname)?),
            Store::Discard => None,
        };
        let (counters, stop) = (Counters::default(), Arc::default());
        let (connections, all_gone) = (Mutex::default(), Condvar::new());
        Ok(Self { config, tls, maildirs, counters, stop, connections, all_gone })
    }

    fn end_connections(&self) {
        let connections = lock(&self.connections);
        for socket in connections.values() {
            // One that has ended by itself cannot be shut down, and need not be.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        let left = self.all_gone.wait_timeout_while(connections, STOP_LIMIT, |left| !left.is_empty());
        let (left, _) = left.unwrap_or_else(PoisonError::into_inner);
        if !left.is_empty() {
            log::warn!("sink: {} connections did not end within {STOP_LIMIT:?}", left.len());
        }
    }

    /// Starts the thread for a connection, or refuses it.
    fn take(self: &Arc<Self>, number: u64, socket: Socket) {
        let socket = Arc::new(socket);
        let mut connections = lock(&self.connections);
        if connections.len() >= self.config.connection_limit {
            drop(connections);
            return refuse(&socket);
        }
        connections.insert(number, Arc::clone(&socket));
        drop(connections);
        add(&self.counters.connections, 1);
        let registered = Registered { shared: Arc::clone(self), number };
        let for_thread = Arc::clone(&socket);
        let serve = move || {
            session::serve(&registered.shared, for_thread);
            drop(registered);
        };
        let builder = thread::Builder::new().name("sink".to_owned()).stack_size(STACK_SIZE);
        if let Err(error) = builder.spawn(serve) {
            log::warn!("sink: cannot start a thread for a connection, which is refused: {error}");
            refuse(&socket);
        }
    }
}

/// A connection's entry in the register; gone with its thread, also when that panics.
struct Registered {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut connections = lock(&self.shared.connections);
        connections.remove(&self.number);
        if connections.is_empty() {
            self.shared.all_gone.notify_all();
        }
    }
}

/// Says that there are too many. A new connection has room for this line; whether it arrives is the peer's luck.
fn refuse(mut socket: &Socket) {
    if let Err(error) = io::Write::write_all(&mut socket, b"421 4.3.2 too many connections\r\n") {
        log::debug!("sink: a refused connection was gone: {error}");
    }
}

/// Accepts on all listeners until the other end of `wake` is closed.
fn accept_all(shared: &Arc<Shared>, listeners: &[Socket], wake: &OwnedFd) {
    let mut number = 0;
    loop {
        let mut set: Vec<_> = std::iter::once(wake.as_fd())
            .chain(listeners.iter().map(AsFd::as_fd))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut set, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                log::error!("sink: cannot poll: {error}; no more connections are accepted");
                return;
            }
        }
        let ready: Vec<_> = set.iter().map(|entry| !entry.revents().is_empty()).collect();
        if ready.first() == Some(&true) {
            return;
        }
        for (listener, _) in listeners.iter().zip(ready.iter().skip(1)).filter(|(_, ready)| **ready) {
            match listener.accept() {
                Ok((socket, _)) => {
                    number += 1;
                    shared.take(number, socket);
                }
                Err(error) if may_accept_again(&error) => {}
                Err(error) => {
                    log::warn!("sink: cannot accept: {error}");
                    shared.stop.wait(ACCEPT_REST);
                }
            }
        }
    }
}

/// Whether only this one connection failed.
fn may_accept_again(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}
