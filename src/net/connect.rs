//! From a destination to a connected socket, within a deadline.
//!
//! - Owns: the order of servers, which failure of which of them counts, connecting.
//! - Leaves to others: names (`lookup`), the conversation (`connection`), and how long a destination that fails rests
//!   (`queue`).
//! - Always true: each address has one deadline of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::cached::Observer;
use super::connection::{Connection, NotReady};
use super::lookup;
use super::peer::Peer;
use super::tap::{Tap, Watcher};
use super::transcript::is_about_protocol;
use crate::config::{Timeout, Transport};
use crate::mail::{Destination, EnhancedStatus, Reason, Server};
use crate::smtp::{Capabilities, Settled};

/// Octets of a socket's path: what `sun_path` holds on Linux, less its NUL.
const SOCKET_PATH_MAX: usize = 107;
/// How long each stage of a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug)]
pub enum NotConnected {
    /// The server has no room for another connection now (a UNIX socket's backlog is full): not a failure.
    Busy(Reason),
    /// All servers of the destination failed, none of them for being busy; or one of them has decided for all of them.
    Failed {
        /// Why: the last one's reason. One of class 5 is one for returning the mail.
        reason: Reason,
        /// That server, if it could be connected to, and was not ready for mail then.
        connected: Option<Peer>,
    },
}

impl NotConnected {
    fn unreachable(reason: Reason) -> Self {
        Self::Failed { reason, connected: None }
    }

    /// Whether no other server need be asked: this one has refused the mail for good.
    fn decides_for_all(&self) -> bool {
        matches!(self, Self::Failed { reason, connected: Some(_) } if reason.status.class() == 5)
    }

    /// Why, in words.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Busy(reason) | Self::Failed { reason, .. } => reason,
        }
    }
}

/// Who wants a connection.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// What to call ourselves.
    pub myhostname: &'a str,
    /// Who hears what is said while it is said.
    pub watcher: Option<Watcher>,
}

/// Opens a connection to the first server of `destination`, from the one at `first` on, that is ready for mail.
pub fn open(
    destination: &Destination,
    first: usize,
    transport: &Transport,
    caller: Caller<'_>,
    observer: &mut dyn Observer,
) -> Result<Connection, NotConnected> {
    // A name is looked up only when its turn comes.
    let candidates = destination.servers().iter().enumerate().skip(first).flat_map(|(at, server)| {
        let peers = match peers_of(server, transport, caller.myhostname) {
            Ok(peers) => peers.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(reason) => vec![Err(reason)],
        };
        peers.into_iter().map(move |peer| (at, peer))
    });
    first_ready(candidates, transport, caller, observer)
}

/// Connects to one candidate after the other, until one is ready for mail.
fn first_ready(
    candidates: impl Iterator<Item = (usize, Result<Peer, Reason>)>,
    transport: &Transport,
    caller: Caller<'_>,
    observer: &mut dyn Observer,
) -> Result<Connection, NotConnected> {
    let mut last: Option<NotConnected> = None;
    // How many addresses of which server were spoken to.
    let (mut spoken_to, mut sessions) = (None, 0);
    for (server, candidate) in candidates {
        if spoken_to != Some(server) {
            (spoken_to, sessions) = (Some(server), 0);
        }
        if transport.habits.session_limit.is_some_and(|limit| sessions >= limit.max(1)) {
            continue;
        }
        let socket = candidate.map_err(NotConnected::unreachable).and_then(|peer| {
            let socket = connect(&peer, transport, observer)?;
            Ok((socket, peer))
        });
        let connection = socket.and_then(|(socket, peer)| {
            sessions += 1;
            start(socket, peer, server, transport, caller, observer)
        });
        match connection {
            Ok(connection) => {
                if let Some(failure) = &last {
                    observer.note(&failure.reason().text);
                }
                return Ok(connection);
            }
            Err(failure) => {
                let decides = failure.decides_for_all();
                note(&mut last, failure, &mut |reason| observer.note(&reason.text));
                if decides {
                    break;
                }
            }
        }
    }
    let nobody =
        || Reason::local(EnhancedStatus::new(4, 3, 0), "server unavailable or unable to receive mail");
    Err(last.unwrap_or_else(|| NotConnected::unreachable(nobody())))
}

/// Takes a connected socket so far that it is ready for mail.
fn start(
    socket: Socket,
    peer: Peer,
    server: usize,
    transport: &Transport,
    caller: Caller<'_>,
    observer: &mut dyn Observer,
) -> Result<Connection, NotConnected> {
    let discard = match observer.keywords_to_discard(&peer) {
        Ok(discard) => discard,
        Err(error) => {
            let text = format!("local data error while talking to {}: {error}", peer.name());
            let reason = Reason::local(EnhancedStatus::new(4, 3, 0), text);
            return Err(NotConnected::Failed { reason, connected: Some(peer) });
        }
    };
    let discard = discard.as_deref().unwrap_or(&transport.discard_lhlo_keywords);
    let hello = transport.habits.lhlo_name.as_deref().unwrap_or(caller.myhostname);
    let mut tap = Tap::new(caller.watcher);
    tap.transcript().turn(observer.wants_conversations());
    let connected = peer.clone();
    Connection::start(socket, peer, server, transport, hello, discard, tap).map_err(|failure| {
        let NotReady { reason, transcript } = *failure;
        if is_about_protocol(&reason) {
            observer.protocol_error(&reason.text);
            observer.conversation(&transcript);
        }
        NotConnected::Failed { reason, connected: Some(connected) }
    })
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
    let caller = Caller { myhostname, watcher: None };
    let connection = open(destination, 0, transport, caller, &mut Nobody);
    connection
        .map(|mut connection| {
            let relay = connection.peer().relay();
            connection.quit(transport, &|| false);
            relay
        })
        .map_err(|failure| failure.reason().clone())
}

/// Hears nothing: there is no mail.
struct Nobody;

impl Observer for Nobody {
    fn ready(&mut self, _: &Peer, _: &Capabilities, _: u32) {}

    fn end_of_data(&mut self, _: &[u32]) -> io::Result<()> {
        Ok(())
    }

    fn settled(&mut self, _: Vec<Settled>) {}

    fn note(&mut self, _: &str) {}

    fn protocol_error(&mut self, _: &str) {}
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
            let addresses = lookup::addresses(host, *port, transport)?;
            Ok(addresses.into_iter().map(|address| Peer::Tcp { host: host.clone(), address }).collect())
        }
    }
}

fn connect(peer: &Peer, transport: &Transport, observer: &mut dyn Observer) -> Result<Socket, NotConnected> {
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::net::progress::tests::transport;

    const CALLER: Caller<'_> = Caller { myhostname: "client.example", watcher: None };

    /// Keeps what is noted and what is warned of.
    #[derive(Default)]
    struct Told {
        notes: Vec<String>,
        warnings: Vec<String>,
    }

    impl Observer for Told {
        fn ready(&mut self, _: &Peer, _: &Capabilities, _: u32) {}

        fn end_of_data(&mut self, _: &[u32]) -> io::Result<()> {
            Ok(())
        }

        fn settled(&mut self, _: Vec<Settled>) {}

        fn note(&mut self, text: &str) {
            self.notes.push(text.to_owned());
        }

        fn warning(&mut self, text: &str) {
            self.warnings.push(text.to_owned());
        }

        fn protocol_error(&mut self, text: &str) {
            panic!("{text}");
        }
    }

    fn candidate(at: usize, address: &impl ToString) -> (usize, Result<Peer, Reason>) {
        (at, Ok(Peer::Tcp { host: "mx.example".into(), address: address.to_string().parse().unwrap() }))
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
        let candidates = addresses.iter().map(|address| candidate(0, address));
        let server = std::thread::spawn(move || answer_one(&listener));
        let mut told = Told::default();
        let connection = first_ready(candidates, &transport(), CALLER, &mut told);
        let passed_over = told.notes;
        let relay = connection.unwrap().peer().relay();
        assert_eq!(relay, format!("mx.example[127.0.0.1]:{}", listens.port()));
        assert!(passed_over[0].starts_with("connect to mx.example[::1]:"), "{passed_over:?}");
        assert!(passed_over[1].starts_with("connect to mx.example[127.0.0.2]:"), "{passed_over:?}");
        assert_eq!(passed_over.len(), 2);
        server.join().unwrap();
    }

    /// A server that refuses whoever comes; how many came.
    fn refusing(greeting: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&came);
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                count.fetch_add(1, Ordering::SeqCst);
                // Whoever does not listen is none of this server's concern.
                let _ = stream.write_all(format!("{greeting}\r\n").as_bytes());
            }
        });
        (address, came)
    }

    #[test]
    fn not_more_servers_are_spoken_to_than_the_session_limit_says() {
        let (busy, came) = refusing("451 4.3.2 busy");
        for (limit, expected) in [(None, 4), (Some(2), 3), (Some(1), 2)] {
            came.store(0, Ordering::SeqCst);
            let mut transport = transport();
            transport.habits.session_limit = limit;
            // Three addresses of one server, and one of the next; an address without a server is no session.
            let nobody = format!("127.0.0.2:{}", busy.port());
            let candidates =
                [(0, &nobody), (0, &busy.to_string()), (0, &busy.to_string()), (0, &busy.to_string())];
            let candidates = candidates.map(|(at, address)| candidate(at, address));
            let candidates = candidates.into_iter().chain([candidate(1, &busy)]);
            let failure = first_ready(candidates, &transport, CALLER, &mut Told::default()).unwrap_err();
            assert!(failure.reason().text.ends_with("refused to talk to me: 451 4.3.2 busy"));
            assert_eq!(came.load(Ordering::SeqCst), expected, "{limit:?}");
        }
    }

    #[test]
    fn a_refusal_for_good_decides_for_all_servers_where_it_returns_mail() {
        let (refuses, _) = refusing("554 5.7.1 go away");
        let (other, came) = refusing("451 4.3.2 busy");
        for (bounces, status, spoken_to) in [(true, "5.7.1", 0), (false, "4.3.2", 1)] {
            let mut transport = transport();
            transport.habits.refused_greeting_bounces = bounces;
            let candidates = [candidate(0, &refuses), candidate(1, &other)].into_iter();
            let failure = first_ready(candidates, &transport, CALLER, &mut Told::default()).unwrap_err();
            assert_eq!(failure.reason().status.to_string(), status);
            assert_eq!(came.load(Ordering::SeqCst), spoken_to);
        }
    }

    #[test]
    fn a_source_address_that_cannot_be_bound_is_missed_as_much_as_is_asked_for() {
        let (server, _) = refusing("451 4.3.2 busy");
        for (is_enforced, status, text) in [
            (true, "4.4.0", "server configuration error"),
            (false, "4.3.2", "host mx.example[127.0.0.1] refused to talk to me: 451 4.3.2 busy"),
        ] {
            let mut transport = transport();
            // Of a network for documentation: nobody has it.
            transport.bind_address = vec!["192.0.2.1".parse().unwrap()];
            transport.habits.bind_address_enforced = is_enforced;
            let mut told = Told::default();
            let failure = first_ready([candidate(0, &server)].into_iter(), &transport, CALLER, &mut told);
            let reason = failure.unwrap_err().reason().clone();
            assert_eq!((reason.status.to_string().as_str(), reason.text.as_str()), (status, text));
            assert_eq!(told.warnings, ["bind 192.0.2.1: Cannot assign requested address"]);
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error_of_the_configuration() {
        let of = |length: usize| {
            let peer =
                Peer::Unix { host: "here".into(), path: format!("/{}", "x".repeat(length - 1)).into() };
            let failure = connect(&peer, &transport(), &mut Told::default()).unwrap_err();
            let reason = failure.reason();
            (
                reason.status.to_string(),
                reason.text.contains("No such file") || reason.text.contains("too long"),
            )
        };
        assert_eq!(of(107), ("4.4.1".to_owned(), true));
        assert_eq!(of(108), ("4.3.5".to_owned(), false));
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
