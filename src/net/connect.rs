//! From a destination to a connected socket, within a deadline.
//!
//! - Owns: name look-ups, the order of servers and addresses, connecting.
//! - Leaves to others: the conversation (`connection`), and how long a destination that fails rests (`queue`).
//! - Always true: each address has one deadline of its own, and at most [`ADDRESSES_MAX`] are tried for a name.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::connection::Connection;
use super::peer::Peer;
use crate::config::{Timeout, Transport};
use crate::mail::{Destination, EnhancedStatus, Reason, Server};

/// Addresses that are tried for one name.
const ADDRESSES_MAX: usize = 8;

/// How long each stage of a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug)]
pub enum NotConnected {
    /// The server has no room for another connection now (a UNIX socket's backlog is full): not a failure.
    Busy(Reason),
    /// All servers of the destination failed; the last one's reason.
    Failed(Reason),
}

impl NotConnected {
    /// Why, in words.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Busy(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Opens a connection to the first server of `destination` that is ready for mail. What failed before it is told
/// to `passed_over`.
pub fn open(
    destination: &Destination,
    transport: &Transport,
    myhostname: &str,
    passed_over: &mut dyn FnMut(&Reason),
) -> Result<Connection, NotConnected> {
    let mut last = None;
    for server in destination.servers() {
        let peers = match peers_of(server, transport, myhostname) {
            Ok(peers) => peers,
            Err(reason) => {
                note(&mut last, NotConnected::Failed(reason), passed_over);
                continue;
            }
        };
        for peer in peers {
            match connect(&peer, transport).and_then(|socket| {
                Connection::start(socket, peer, transport, myhostname).map_err(NotConnected::Failed)
            }) {
                Ok(connection) => {
                    if let Some(failure) = &last {
                        passed_over(failure.reason());
                    }
                    return Ok(connection);
                }
                Err(failure) => note(&mut last, failure, passed_over),
            }
        }
    }
    let nobody =
        || Reason::local(EnhancedStatus::new(4, 3, 0), "server unavailable or unable to receive mail");
    Err(last.unwrap_or_else(|| NotConnected::Failed(nobody())))
}

/// Whether anything is ready for mail where `destination` leads: says LHLO or EHLO and QUIT. Returns which server is.
/// Somebody may be waiting for the answer, so each stage has at most [`PROBE_TIMEOUT`].
pub fn answers(destination: &Destination, transport: &Transport, myhostname: &str) -> Result<String, Reason> {
    let mut transport = transport.clone();
    if let Some(limit) = Timeout::new(PROBE_TIMEOUT) {
        let timeouts = &mut transport.timeouts;
        for stage in [&mut timeouts.connect, &mut timeouts.lhlo, &mut timeouts.quit] {
            *stage = limit.min(*stage);
        }
    }
    let transport = &transport;
    let connection = open(destination, transport, myhostname, &mut |_| {});
    connection
        .map(|mut connection| {
            let relay = connection.peer().relay();
            connection.quit(transport, &|| false);
            relay
        })
        .map_err(|failure| failure.reason().clone())
}

/// The last failure is the batch's outcome; the ones before are only told.
fn note(last: &mut Option<NotConnected>, failure: NotConnected, passed_over: &mut dyn FnMut(&Reason)) {
    if let Some(before) = last.replace(failure) {
        passed_over(before.reason());
    }
}

/// Where a server can be reached, in the order of trying.
fn peers_of(server: &Server, transport: &Transport, myhostname: &str) -> Result<Vec<Peer>, Reason> {
    match server {
        Server::Unix(path) => Ok(vec![Peer::Unix { host: myhostname.to_owned(), path: path.clone() }]),
        Server::Tcp { host, port } => {
            let status = EnhancedStatus::new(4, 4, 4);
            let found = (host.as_str(), port.get()).to_socket_addrs().map_err(|error| {
                Reason::local(status, format!("unable to look up host {host}: {}", words(&error)))
            })?;
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found.filter(|address| transport.inet_protocols.allows(address.ip())) {
                if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() {
                let text = format!(
                    "unable to look up host {host}: no address of a family that inet_protocols allows"
                );
                return Err(Reason::local(status, text));
            }
            Ok(addresses.into_iter().map(|address| Peer::Tcp { host: host.clone(), address }).collect())
        }
    }
}

fn connect(peer: &Peer, transport: &Transport) -> Result<Socket, NotConnected> {
    let limit = transport.timeouts.connect.get();
    let connected = match peer {
        Peer::Unix { path, .. } => connect_unix(path, limit),
        Peer::Tcp { address, .. } => connect_tcp(*address, transport, limit),
    };
    connected.map_err(|error| {
        let text = format!("connect to {}: {}", peer.relay(), words(&error));
        let reason = Reason::local(EnhancedStatus::new(4, 4, 1), text);
        if peer.is_unix() && error.kind() == io::ErrorKind::WouldBlock {
            NotConnected::Busy(reason)
        } else {
            NotConnected::Failed(reason)
        }
    })
}

/// Connects while blocking, under a send timeout: a non-blocking connect fails at once when the backlog is full.
fn connect_unix(path: &Path, limit: Duration) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let deadline = Instant::now() + limit;
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_write_timeout(Some(left))?;
        match socket.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && Instant::now() < deadline => {}
            result => return result.map(|()| socket),
        }
    }
}

fn connect_tcp(address: SocketAddr, transport: &Transport, limit: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(own) = transport.bind_address_for(address.ip()) {
        socket.bind(&SocketAddr::new(own, 0).into())?;
    }
    // Flights are written whole, so there is nothing to gather; Nagle would only hold the last segment back.
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&address.into(), limit)?;
    // A port of the ephemeral range on which nobody listens can connect to itself.
    if socket.local_addr()?.as_socket() == Some(address) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

/// An error as strerror(3) has it, without Rust's number behind it.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "Connection timed out".to_owned(),
        io::ErrorKind::ConnectionRefused => "Connection refused".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}
