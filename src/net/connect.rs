//! From an address to a connected socket, within a deadline.
//!
//! - Owns: where a server can be reached, source addresses, connecting.
//! - Leaves to others: names (`lookup`), which server is tried when (`open`).
//! - Always true: no address takes longer than its deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::lookup;
use super::observer::Observer;
use super::open::NotConnected;
use super::peer::Peer;
use crate::config::Transport;
use crate::mail::{EnhancedStatus, Reason, Server};

/// Octets of a socket's path: what `sun_path` holds on Linux, less its NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Where a server can be reached, in the order of trying.
pub fn peers_of(server: &Server, transport: &Transport, myhostname: &str) -> Result<Vec<Peer>, Reason> {
    match server {
        Server::Unix(path) => Ok(vec![Peer::Unix { host: myhostname.to_owned(), path: path.clone() }]),
        Server::Tcp { host, port } => {
            let addresses = lookup::addresses(host, *port, transport)?;
            Ok(addresses.into_iter().map(|address| Peer::Tcp { host: host.clone(), address }).collect())
        }
    }
}

/// Connects to `peer`.
pub fn connect(
    peer: &Peer,
    transport: &Transport,
    observer: &mut dyn Observer,
) -> Result<Socket, NotConnected> {
    let limit = transport.timeouts.connect.get();
    let connected = match peer {
        Peer::Unix { path, .. } if path.as_os_str().len() > SOCKET_PATH_MAX => {
            let reason = Reason::local(EnhancedStatus::new(4, 3, 5), "Server configuration error");
            return Err(NotConnected::unreachable(reason));
        }
        Peer::Unix { path, .. } => connect_unix(path, limit),
        Peer::Tcp { address, .. } => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None);
            if let Ok(socket) = &socket {
                bind(socket, address.ip(), transport, observer)?;
            }
            socket.and_then(|socket| connect_tcp(socket, *address, limit))
        }
    };
    connected.map_err(|error| {
        let text = format!("connect to {}: {}", peer.relay(), words(&error));
        let reason = Reason::local(EnhancedStatus::new(4, 4, 1), text);
        if peer.is_unix() && error.kind() == io::ErrorKind::WouldBlock {
            NotConnected::Busy(reason)
        } else {
            NotConnected::unreachable(reason)
        }
    })
}

/// Gives `socket` the address to connect to `peer` from, where one is configured.
fn bind(
    socket: &Socket,
    peer: IpAddr,
    transport: &Transport,
    observer: &mut dyn Observer,
) -> Result<(), NotConnected> {
    let Some(own) = transport.bind_address_for(peer) else { return Ok(()) };
    let Err(error) = socket.bind(&SocketAddr::new(own, 0).into()) else { return Ok(()) };
    observer.warning(&format!("bind {own}: {}", words(&error)));
    if transport.habits.bind_address_enforced {
        let reason = Reason::local(EnhancedStatus::new(4, 4, 0), "server configuration error");
        return Err(NotConnected::unreachable(reason));
    }
    Ok(())
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

fn connect_tcp(socket: Socket, address: SocketAddr, limit: Duration) -> io::Result<Socket> {
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
