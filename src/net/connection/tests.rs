//! A connection over a pair of sockets, where a dialogue comes too late: failures of the first write.

use std::io::{BufRead, BufReader, Write};
use std::thread;

use socket2::{Domain, Type};

use super::*;
use crate::mail::Server;
use crate::net::FileContent;
use crate::net::progress::tests::{MANNER, batch, transport};
use crate::net::tls::TlsSessions;
use crate::smtp::{Manner, Message, Settled};

/// A connection in use, over a pair of sockets; the other end.
fn used(transport: &Transport) -> (Connection, Socket) {
    let (ours, mut theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    theirs.write_all(b"220 hi\r\n").unwrap();
    let greets = thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(&theirs).read_line(&mut line).unwrap();
        theirs.write_all(b"250-hi\r\n250-PIPELINING\r\n250 CHUNKING\r\n").unwrap();
        theirs
    });
    let peer = Peer::Unix { host: "here".into(), path: "/run/lmtp".into() };
    let server = Server::Unix("/run/lmtp".into());
    let mut opening = Opening {
        server: &server,
        place: 0,
        transport,
        hello: "client.example",
        discard: &[],
        policy: transport.tls.policy_for(&server),
        credentials: None,
        sessions: &mut TlsSessions::default(),
    };
    let mut connection = Connection::start(ours, peer, &mut opening, Tap::default()).unwrap();
    connection.uses = 1;
    (connection, greets.join().unwrap())
}

/// Hears outcomes, and nothing else.
#[derive(Default)]
struct Outcomes(Vec<Settled>);

impl Observer for Outcomes {
    fn ready(&mut self, _: &Peer, _: &Capabilities, _: u32) {}

    fn end_of_data(&mut self, _: &[u32]) -> io::Result<()> {
        Ok(())
    }

    fn settled(&mut self, settled: Vec<Settled>) {
        self.0.extend(settled);
    }

    fn note(&mut self, _: &str) {}

    fn protocol_error(&mut self, _: &str) {}
}

#[test]
fn a_421_behind_a_failed_write_settles_nobody_who_can_be_tried_again() {
    let (transport, batch, file) = (transport(), batch(2), tempfile::tempfile().unwrap());
    let content = FileContent { prefix: b"", file: &file, offset: 0, length: 0 };
    for (said, retry, settled) in [
        ("421 4.4.2 idle for too long\r\n", true, 0),
        ("421 4.4.2 idle for too long\r\n", false, 2),
        ("250 2.0.0 reset\r\n421 4.3.2 closing\r\n", true, 2),
        ("250 2.0.0 reset\r\n451 4.3.0 later\r\n", true, 2),
        ("", true, 0),
    ] {
        let (mut connection, mut theirs) = used(&transport);
        // Said and closed before the flight is written, and after anybody has looked.
        theirs.write_all(said.as_bytes()).unwrap();
        drop(theirs);
        let offered = connection.offered().clone();
        let manner = Manner { reset: true, ..MANNER };
        let mut transaction =
            Transaction::new(manner, "mx", &offered, &batch, batch.recipients(), Message::of(&batch, 0));
        let mut outcomes = Outcomes::default();
        let result = connection.transact(&mut transaction, &content, &transport, retry, &mut outcomes);
        let error = result.unwrap_err();
        assert!(!error.may_have_delivered(), "{said} {error}");
        assert_eq!(outcomes.0.len(), settled, "{said} {retry}");
        assert_eq!(transaction.unsettled().len(), 2 - settled, "{said} {retry}");
        assert!(outcomes.0.iter().all(|settled| !settled.in_doubt), "{said} {retry}");
    }
}

#[test]
fn content_has_time_for_its_size() {
    assert_eq!(slowest(5000, 500).as_secs(), 10);
    assert!(slowest(u64::MAX, 1).as_secs() > 100 * 365 * 86_400, "and the clock can still add it");
    assert!(slowest(1, 0).as_secs() > 100 * 365 * 86_400);
}

#[test]
fn a_connection_rests_until_it_is_too_idle_or_too_old() {
    let mut transport = transport();
    let (connection, _theirs) = used(&transport);
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    for (idle, age, longest, is_kept) in [
        (minute, None, minute, true),
        (minute, Some(hour), minute, true),
        (hour, Some(minute), minute, true),
        (hour, Some(Duration::ZERO), Duration::ZERO, false),
    ] {
        (transport.max_idle, transport.habits.reuse_time_limit) = (idle, age);
        let left = connection.may_rest(&transport);
        assert!(left <= longest && left + minute / 2 >= longest, "{left:?} {idle:?} {age:?}");
        assert_eq!(connection.may_be_kept(&transport), is_kept, "{age:?}");
        assert_eq!(connection.is_too_old(&transport), !is_kept, "{age:?}");
    }
}
