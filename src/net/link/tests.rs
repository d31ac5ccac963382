//! A link over TLS: the same promises as in clear.

use std::io::{Read, Write};
use std::thread;

use rustls::version::{TLS12, TLS13};
use zeroize::Zeroizing;

use super::*;
use crate::config::TlsLevel;
use crate::net::tls::tests::{
    HOST, LONG, Served, authority, issued, params, peer_of, policy, roots, served, tcp, trusting,
};

/// A moment that is far enough.
fn later() -> Instant {
    Instant::now() + LONG
}

/// A link over TLS to a server that does what `serve` does.
fn secured<T: Send + 'static>(
    version: &'static rustls::SupportedProtocolVersion,
    serve: impl FnOnce(Served) -> T + Send + 'static,
) -> (Link, thread::JoinHandle<T>) {
    let root = authority("root");
    let config = issued(&params("mx", &[HOST]), &root).server(&[version]).into();
    let (socket, server) = served(&config, serve);
    let mut link = Link::new(socket, peer_of(&tcp(HOST)), Tap::default());
    link.tap().transcript().turn(true);
    let (transport, policy) = (trusting(roots(&[root.der()])), policy(TlsLevel::Verify));
    link.start_tls(&mut TlsSessions::default(), &tcp(HOST), &transport, &policy, later()).unwrap();
    (link, server)
}

/// What was said on `link`.
fn heard(link: &mut Link) -> String {
    link.tap().transcript().lines().map(|line| format!("{line:?}\n")).collect()
}

#[test]
fn a_conversation_goes_on_over_tls() {
    for version in [&TLS12, &TLS13] {
        let (mut link, server) = secured(version, |mut stream| {
            let mut line = [0; 6];
            stream.read_exact(&mut line).unwrap();
            stream.write_all(b"221-so\r\n221 long\r\n").unwrap();
            (line, stream.read(&mut [0]).unwrap())
        });
        assert!(link.tls().is_some_and(|tls| tls.summary().starts_with("TLSv1.")));
        link.write_commands(b"QUIT\r\n", later()).unwrap();
        assert!(link.is_readable(LONG));
        assert_eq!(link.read_reply(later()).unwrap().one_line(), "221-so 221 long");
        drop(link);
        assert_eq!(server.join().unwrap(), (*b"QUIT\r\n", 0), "{version:?}");
    }
}

#[test]
fn what_was_said_in_clear_cannot_be_taken_for_what_follows() {
    let (ours, mut theirs) = Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    theirs.write_all(b"220 go\r\n250 injected\r\n").unwrap();
    let mut link = Link::new(ours, peer_of(&tcp(HOST)), Tap::default());
    link.read_reply(later()).unwrap();
    let (transport, policy) = (trusting(roots(&[])), policy(TlsLevel::May));
    let mut start = || link.start_tls(&mut TlsSessions::default(), &tcp(HOST), &transport, &policy, later());
    let words = "the server sent more in clear than the reply to STARTTLS";
    assert_eq!(start(), Err(TlsError::Handshake(words.into())));
    // Nor does anything go on in clear.
    assert!(matches!(link.write_commands(b"MAIL\r\n", later()), Err(Cause::LostConnection)));
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_server_that_is_another_one_hears_quit_over_tls() {
    let config = issued(&params("mx", &[HOST]), &authority("root")).server(&[&TLS13]).into();
    let (socket, server) = served(&config, |mut stream| {
        let mut said = [0; 6];
        stream.read_exact(&mut said).map(|()| said)
    });
    let mut link = Link::new(socket, peer_of(&tcp(HOST)), Tap::default());
    let (transport, policy) = (trusting(roots(&[])), policy(TlsLevel::Verify));
    let started = link.start_tls(&mut TlsSessions::default(), &tcp(HOST), &transport, &policy, later());
    assert!(matches!(started, Err(TlsError::Certificate(_))), "{started:?}");
    link.write_commands(b"QUIT\r\n", later()).unwrap();
    assert_eq!(server.join().unwrap().unwrap(), *b"QUIT\r\n");
}

#[test]
fn tls_is_begun_once() {
    let (mut link, server) = secured(&TLS13, |mut stream| stream.read(&mut [0]).is_ok());
    let (transport, policy) = (trusting(roots(&[])), policy(TlsLevel::May));
    let again = link.start_tls(&mut TlsSessions::default(), &tcp(HOST), &transport, &policy, later());
    assert!(matches!(again, Err(TlsError::Handshake(_))), "{again:?}");
    drop(link);
    server.join().unwrap();
}

#[test]
fn of_a_line_with_a_secret_only_what_may_be_shown_is_heard() {
    let (mut link, server) = secured(&TLS13, |mut stream| {
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        line
    });
    let line = smtp::Line { octets: Zeroizing::new(b"c2VjcmV0IQ\r\n".to_vec()), shown: "(secret)".into() };
    link.write_line(&line, later()).unwrap();
    assert_eq!(server.join().unwrap(), *b"c2VjcmV0IQ\r\n");
    let heard = heard(&mut link);
    assert!(heard.contains("(secret)") && !heard.contains("c2Vj"), "{heard}");
}

#[test]
fn a_flight_leaves_without_the_server_reading() {
    let in_clear = flight_size(&Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap().0);
    for version in [&TLS12, &TLS13] {
        let (go, wait) = std::sync::mpsc::channel();
        let (mut link, server) = secured(version, move |mut stream| {
            stream.write_all(b"220 hi\r\n").unwrap();
            let count: usize = wait.recv().unwrap();
            let on_the_wire = rustix::io::ioctl_fionread(&stream.sock).unwrap();
            let mut flight = vec![0; count];
            stream.read_exact(&mut flight).unwrap();
            on_the_wire
        });
        // The handshake is over for both, so that nothing of the flight is read with it.
        link.read_reply(later()).unwrap();
        let room = link.flight_size();
        assert!(room > 60_000, "{room}");
        // As content is written that is no larger than a flight: more than half of it at once, then the rest.
        let soon = Instant::now() + Duration::from_secs(10);
        link.write_commands(&vec![b'c'; 1000], soon).unwrap();
        link.write_content(&vec![b'x'; room / 2 + 1], LONG, soon).unwrap();
        link.write_content(&vec![b'x'; room - room / 2 - 1001], LONG, soon).unwrap();
        go.send(room).unwrap();
        let on_the_wire = server.join().unwrap();
        assert!((room as u64..=in_clear as u64).contains(&on_the_wire), "{room} {on_the_wire} {in_clear}");
    }
}

#[test]
fn a_reply_that_drips_does_not_stretch_its_deadline() {
    let (mut link, server) = secured(&TLS13, |mut stream| {
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let mut record = Vec::new();
        stream.conn.writer().write_all(&[b"250 ", &[b'x'; 400][..], b"\r\n"].concat()).unwrap();
        stream.conn.write_tls(&mut record).unwrap();
        for octet in record {
            if stream.sock.write_all(&[octet]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    let read = link.read_reply(Instant::now() + Duration::from_millis(300));
    assert!(matches!(read, Err(Cause::TimedOut)), "{read:?}");
    drop(link);
    assert!(server.join().unwrap(), "the whole reply was heard, and the deadline was over");
}

#[test]
fn a_server_that_does_not_read_holds_nobody_beyond_the_deadline() {
    let (mut link, server) = secured(&TLS13, |mut stream| {
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.sock
    });
    let socket = server.join().unwrap();
    let content = vec![b'x'; 4 << 20];
    let written = link.write_content(&content, LONG, Instant::now() + Duration::from_millis(200));
    assert!(matches!(written, Err(Cause::TimedOut)), "{written:?}");
    let written = link.write_content(&content, Duration::from_millis(50), later());
    assert!(matches!(written, Err(Cause::TimedOut)), "{written:?}");
    drop(socket);
}

#[test]
fn what_is_decrypted_already_can_be_read() {
    let reply = format!("250-{}\r\n", "x".repeat(58)).repeat(63) + &format!("250 {}\r\n", "x".repeat(58));
    assert_eq!(reply.len(), READ_SIZE);
    let (mut link, server) = secured(&TLS13, move |mut stream| {
        stream.write_all((reply + "421 bye\r\n").as_bytes()).unwrap();
        stream.read(&mut [0]).unwrap()
    });
    link.read_reply(later()).unwrap();
    assert!(!link.has_surplus());
    assert!(link.is_readable(Duration::ZERO));
    assert!(link.early_reply().unwrap().is_some_and(|reply| reply.is_closing()));
    assert!(!link.is_readable(Duration::from_millis(20)));
    assert_eq!(link.early_reply().unwrap(), None);
    drop(link);
    assert_eq!(server.join().unwrap(), 0);
}

#[test]
fn chatter_of_tls_comes_to_an_end() {
    let (mut link, server) = secured(&TLS13, |mut stream| {
        stream.conn.complete_io(&mut stream.sock).unwrap();
        while stream.conn.refresh_traffic_keys().is_ok() && stream.conn.complete_io(&mut stream.sock).is_ok()
        {
        }
    });
    // Each lets a key change and says nothing else. At some time that is taken for what it is.
    let broken =
        |cause: &Cause| matches!(cause, Cause::Io(error) if error.kind() == io::ErrorKind::InvalidData);
    let reply = link.read_reply(later());
    assert!(reply.as_ref().is_err_and(broken), "{reply:?}");
    assert!(link.is_readable(Duration::ZERO));
    let reply = link.early_reply();
    assert!(reply.as_ref().is_err_and(broken), "{reply:?}");
    drop(link);
    server.join().unwrap();
}

#[test]
fn a_connection_over_tls_can_be_as_slow_as_its_progress_allows() {
    let content: Vec<u8> = (0..2_u32 << 20).map(|at| (at / 3) as u8).collect();
    let wanted = content.clone();
    let (mut link, server) = secured(&TLS12, move |mut stream| {
        let mut got = vec![0; wanted.len()];
        for piece in got.chunks_mut(50_000) {
            stream.read_exact(piece).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        stream.write_all(b"250 stored\r\n").unwrap();
        got == wanted
    });
    for piece in content.chunks(200_000) {
        link.write_content(piece, LONG, later()).unwrap();
    }
    assert!(link.read_reply(later()).is_ok());
    assert!(server.join().unwrap());
}
