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
use super::tap::{Tap, Watcher};
use super::transcript::{Transcript, is_about_protocol};
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
    /// All servers of the destination failed, none of them for being busy; the last one's reason.
    Failed {
        /// Why.
        reason: Reason,
        /// That server, if it could be connected to, and was not ready for mail then.
        connected: Option<Peer>,
    },
}

impl NotConnected {
    fn unreachable(reason: Reason) -> Self {
        Self::Failed { reason, connected: None }
    }

    /// Why, in words.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Busy(reason) | Self::Failed { reason, .. } => reason,
        }
    }
}

/// What is heard on the way to a connection.
#[derive(Debug)]
pub enum Heard<'a> {
    /// Why a server was passed over.
    PassedOver(&'a Reason),
    /// How a server broke the protocol before there was any mail, and what was said, where that is kept.
    ProtocolError(&'a Reason, &'a Transcript),
}

/// Who wants a connection, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// What to call ourselves.
    pub myhostname: &'a str,
    /// Keep what is said.
    pub keep_transcript: bool,
    /// Who hears it while it is said.
    pub watcher: Option<Watcher>,
}

/// Opens a connection to the first server of `destination`, from the one at `first` on, that is ready for mail.
pub fn open(
    destination: &Destination,
    first: usize,
    transport: &Transport,
    caller: Caller<'_>,
    hear: &mut dyn FnMut(Heard<'_>),
) -> Result<Connection, NotConnected> {
    // A name is looked up only when its turn comes.
    let candidates = destination.servers().iter().enumerate().skip(first).flat_map(|(at, server)| {
        let peers = match peers_of(server, transport, caller.myhostname) {
            Ok(peers) => peers.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(reason) => vec![Err(reason)],
        };
        peers.into_iter().map(move |peer| (at, peer))
    });
    first_ready(candidates, transport, caller, hear)
}

/// Connects to one candidate after the other, until one is ready for mail.
fn first_ready(
    candidates: impl Iterator<Item = (usize, Result<Peer, Reason>)>,
    transport: &Transport,
    caller: Caller<'_>,
    hear: &mut dyn FnMut(Heard<'_>),
) -> Result<Connection, NotConnected> {
    let mut last: Option<NotConnected> = None;
    for (server, candidate) in candidates {
        let connection = candidate.map_err(NotConnected::unreachable).and_then(|peer| {
            let socket = connect(&peer, transport)?;
            let mut tap = Tap::new(caller.watcher);
            tap.transcript().turn(caller.keep_transcript);
            let connected = Some(peer.clone());
            Connection::start(socket, peer, server, transport, caller.myhostname, tap).map_err(|failure| {
                if is_about_protocol(&failure.reason) {
                    hear(Heard::ProtocolError(&failure.reason, &failure.transcript));
                }
                NotConnected::Failed { reason: failure.reason, connected }
            })
        });
        match connection {
            Ok(connection) => {
                if let Some(failure) = &last {
                    hear(Heard::PassedOver(failure.reason()));
                }
                return Ok(connection);
            }
            Err(failure) => note(&mut last, failure, &mut |reason| hear(Heard::PassedOver(reason))),
        }
    }
    let nobody =
        || Reason::local(EnhancedStatus::new(4, 3, 0), "server unavailable or unable to receive mail");
    Err(last.unwrap_or_else(|| NotConnected::unreachable(nobody())))
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
    let caller = Caller { myhostname, keep_transcript: false, watcher: None };
    let connection = open(destination, 0, transport, caller, &mut |_| {});
    connection
        .map(|mut connection| {
            let relay = connection.peer().relay();
            connection.quit(transport, &|| false);
            relay
        })
        .map_err(|failure| failure.reason().clone())
}

/// The last failure is the batch's outcome; the others are only told. But a busy server is alive: with one of
/// them in the list the batch waits, whatever became of the others.
fn note(last: &mut Option<NotConnected>, failure: NotConnected, passed_over: &mut dyn FnMut(&Reason)) {
    match (&last, &failure) {
        (Some(NotConnected::Busy(_)), NotConnected::Failed { reason, .. }) => passed_over(reason),
        _ => {
            if let Some(before) = last.replace(failure) {
                passed_over(before.reason());
            }
        }
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
            let addresses = usable(found, |address| transport.inet_protocols.allows(address.ip()));
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

/// The addresses to try, each once, in the order in which they were found.
fn usable(
    found: impl Iterator<Item = SocketAddr>,
    is_allowed: impl Fn(&SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.filter(is_allowed) {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    addresses
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
            NotConnected::unreachable(reason)
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::config::{Config, Sources};

    fn transport() -> Transport {
        let sources = Sources { file: Some("/dev/null".into()), ..Sources::default() };
        Transport::clone(Config::load(&sources).unwrap().transport(&"lmtp".parse().unwrap()).unwrap())
    }

    /// Greets one client, and answers LHLO.
    fn answer_one(listener: &TcpListener) {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 peer.example\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        stream.write_all(b"250 peer.example\r\n").unwrap();
    }

    #[test]
    fn each_address_of_a_name_is_tried_until_one_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = listener.local_addr().unwrap();
        // On the same port: an address of the other family, and one of the same on which nobody listens.
        let addresses = [
            format!("[::1]:{}", listens.port()),
            format!("127.0.0.2:{}", listens.port()),
            listens.to_string(),
        ];
        let candidates = addresses.iter().map(|address| {
            (0, Ok(Peer::Tcp { host: "mx.example".into(), address: address.parse().unwrap() }))
        });
        let server = std::thread::spawn(move || answer_one(&listener));
        let mut passed_over = Vec::new();
        let caller = Caller { myhostname: "client.example", keep_transcript: false, watcher: None };
        let connection = first_ready(candidates, &transport(), caller, &mut |heard| match heard {
            Heard::PassedOver(reason) => passed_over.push(reason.text.clone()),
            Heard::ProtocolError(..) => panic!("{heard:?}"),
        });
        let relay = connection.unwrap().peer().relay();
        assert_eq!(relay, format!("mx.example[127.0.0.1]:{}", listens.port()));
        assert!(passed_over[0].starts_with("connect to mx.example[::1]:"), "{passed_over:?}");
        assert!(passed_over[1].starts_with("connect to mx.example[127.0.0.2]:"), "{passed_over:?}");
        assert_eq!(passed_over.len(), 2);
        server.join().unwrap();
    }

    #[test]
    fn addresses_are_tried_once_each_and_not_without_end() {
        let found: Vec<SocketAddr> =
            (0..20).map(|at| format!("192.0.2.{}:24", at / 2).parse().unwrap()).collect();
        let six: SocketAddr = "[2001:db8::1]:24".parse().unwrap();
        let usable = usable([six].into_iter().chain(found), SocketAddr::is_ipv4);
        let expected: Vec<SocketAddr> =
            (0..8).map(|at| format!("192.0.2.{at}:24").parse().unwrap()).collect();
        assert_eq!(usable, expected);
    }

    #[test]
    fn a_busy_server_in_the_list_makes_the_batch_wait() {
        let reason = |text: &str| Reason::local(EnhancedStatus::new(4, 4, 1), text);
        let busy = || NotConnected::Busy(reason("busy"));
        let failed = || NotConnected::unreachable(reason("failed"));
        for failures in [vec![busy(), failed()], vec![failed(), busy()], vec![failed(), busy(), failed()]] {
            let (mut last, mut told) = (None, 0);
            let count = failures.len();
            failures.into_iter().for_each(|failure| note(&mut last, failure, &mut |_| told += 1));
            assert!(matches!(last, Some(NotConnected::Busy(_))));
            assert_eq!(told, count - 1, "the others are told");
        }
    }
}
