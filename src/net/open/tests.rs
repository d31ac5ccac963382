//! Which server is taken, with servers of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::net::progress::tests::transport;

/// Tries `candidates` in turn: place and address.
fn first_of(
    candidates: &[(usize, String)],
    transport: &Transport,
    observer: &mut dyn Observer,
) -> Result<Connection, NotConnected> {
    let server = Server::Tcp { host: "mx.example".into(), port: NonZeroU16::MIN };
    let candidates = candidates.iter().map(|(place, address)| Candidate {
        place: *place,
        server: &server,
        peer: Ok(Peer::Tcp { host: "mx.example".into(), address: address.parse().unwrap() }),
    });
    let mut sessions = TlsSessions::default();
    let mut caller = Caller { myhostname: "client.example", watcher: None, sessions: &mut sessions };
    first_ready(candidates, transport, &mut caller, observer)
}

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
    let addresses =
        [format!("[::1]:{}", listens.port()), format!("127.0.0.2:{}", listens.port()), listens.to_string()];
    let candidates = addresses.map(|address| (0, address));
    let server = std::thread::spawn(move || answer_one(&listener));
    let mut told = Told::default();
    let connection = first_of(&candidates, &transport(), &mut told);
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
        let busy = busy.to_string();
        let candidates = [(0, nobody), (0, busy.clone()), (0, busy.clone()), (0, busy.clone()), (1, busy)];
        let failure = first_of(&candidates, &transport, &mut Told::default()).unwrap_err();
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
        let candidates = [(0, refuses.to_string()), (1, other.to_string())];
        let failure = first_of(&candidates, &transport, &mut Told::default()).unwrap_err();
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
        let failure = first_of(&[(0, server.to_string())], &transport, &mut told);
        let reason = failure.unwrap_err().reason().clone();
        assert_eq!((reason.status.to_string().as_str(), reason.text.as_str()), (status, text));
        assert_eq!(told.warnings, ["bind 192.0.2.1: Cannot assign requested address"]);
    }
}

#[test]
fn a_path_that_is_too_long_is_an_error_of_the_configuration() {
    let of = |length: usize| {
        let peer = Peer::Unix { host: "here".into(), path: format!("/{}", "x".repeat(length - 1)).into() };
        let failure = connect(&peer, &transport(), &mut Told::default()).unwrap_err();
        let reason = failure.reason();
        (reason.status.to_string(), reason.text.contains("No such file") || reason.text.contains("too long"))
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

/// Offers STARTTLS and a login. It closes the connection in place of the TLS handshake, and refuses each login. Where it
/// listens, and how often it was connected to.
fn breaking_handshakes(offer: &'static str, refusal: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"220 peer.example\r\n").unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap_or_default();
                let (reply, is_last) = match line.split(' ').next() {
                    Some("STARTTLS") => ("220 go ahead\r\n", true),
                    Some("LHLO") => (offer, false),
                    Some("AUTH") => (refusal, false),
                    _ => break,
                };
                stream.write_all(reply.as_bytes()).unwrap();
                if is_last {
                    break;
                }
            }
        }
    });
    (address, count)
}

/// A transport that has a login for the server.
fn transport_with_login(level: TlsLevel) -> Transport {
    let mut transport = transport();
    transport.tls.security_level = Some(level);
    transport.sasl.auth_enable = true;
    let server = Server::Tcp { host: "mx.example".into(), port: NonZeroU16::MIN };
    let password = crate::smtp::Proof::Password(crate::smtp::Secret::new("secret".to_owned()));
    let credentials = Credentials { username: "user".to_owned(), proof: password };
    transport.secrets = transport.secrets.with_credentials(vec![(server, credentials)]);
    transport
}

#[test]
fn a_refused_password_is_not_tried_at_each_address_of_the_server() {
    // But one of them may be in trouble.
    let refusals = [("535 5.7.8 no\r\n", 1), ("454 4.7.0 not now\r\n", 3), ("534 5.7.9 too weak\r\n", 3)];
    for (refusal, asked) in refusals {
        let (address, count) = breaking_handshakes("250-peer.example\r\n250 AUTH CRAM-MD5\r\n", refusal);
        let (other, came) = refusing("451 4.3.2 busy");
        let (same, next) = (address.to_string(), other.to_string());
        let candidates = [(0, same.clone()), (0, same.clone()), (0, same), (1, next)];
        let mut told = Told::default();
        let failure = first_of(&candidates, &transport_with_login(TlsLevel::None), &mut told).unwrap_err();
        assert!(told.notes[0].contains(&format!("said: {}", refusal.trim_end())), "{:?}", told.notes);
        assert!(failure.reason().text.contains("451 4.3.2 busy"), "{}", failure.reason().text);
        assert_eq!((count.load(Ordering::SeqCst), came.load(Ordering::SeqCst)), (asked, 1), "{refusal}");
    }
}

#[test]
fn where_tls_fails_mail_may_go_in_clear_but_no_login_does() {
    for with_login in [false, true] {
        let offer = "250-peer.example\r\n250-STARTTLS\r\n250 AUTH CRAM-MD5\r\n";
        let (address, count) = breaking_handshakes(offer, "535 5.7.8 no\r\n");
        let mut transport = transport_with_login(TlsLevel::May);
        transport.sasl.auth_enable = with_login;
        let mut told = Told::default();
        let connection = first_of(&[(0, address.to_string())], &transport, &mut told);
        assert_eq!(connection.is_err(), with_login);
        assert_eq!(count.load(Ordering::SeqCst), if with_login { 1 } else { 2 });
        assert_eq!(told.notes.iter().any(|note| note.ends_with("tried again without TLS")), !with_login);
    }
}
