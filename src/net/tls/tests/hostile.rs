//! Handshakes that come to no end, or to a bad one.

use std::io::{BufReader, Cursor};

use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};

use super::*;

/// An alert of a server, in clear.
const fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

/// What comes of a server that hears us and answers with `answer`.
fn answered(answer: Vec<u8>, policy: &TlsPolicy<'_>) -> Option<TlsError> {
    let (socket, server) = connected(move |mut socket| {
        let mut hello = [0; 4096];
        let _ = socket.read(&mut hello);
        let _ = socket.write_all(&answer);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        // Unread octets would reset the connection.
        while socket.read(&mut hello).is_ok_and(|read| read > 0) {}
    });
    let error = start_first(socket, &trusting(RootCertStore::empty()), policy).err();
    server.join().unwrap();
    error
}

/// The server's first flight, as the answer to the hello that comes over `socket`.
fn first_flight(config: ServerConfig, socket: &mut UnixStream) -> Vec<u8> {
    let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
    while !connection.wants_write() {
        connection.read_tls(socket).unwrap();
        connection.process_new_packets().unwrap();
    }
    let mut flight = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut flight).unwrap();
    }
    flight
}

#[test]
fn a_failed_handshake_is_told_in_words() {
    // A server hello of TLS 1.0.
    let old = [&[22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1][..], &[7; 32], &[0, 0, 47, 0]].concat();
    for (answer, words) in [
        (&b"220 mx.example.org ESMTP\r\n"[..], "the server answered in plain text: 220 mx.example.org ESMTP"),
        (
            b"454 4.7.0 TLS not available\r\n",
            "the server answered in plain text: 454 4.7.0 TLS not available",
        ),
        (b"\x80\x80\x80\x80\x80\x80\x80\x80", "what the server sent is no TLS ("),
        (&old, "the server speaks no TLS 1.2 or later"),
        (
            &alert(70),
            "the server speaks none of the versions of TLS that are allowed here (TLSv1.2 and TLSv1.3)",
        ),
        (
            &alert(40),
            "the server broke off the handshake (alert: handshake failure): there is no version or cipher that both \
             sides allow, or it asks for a certificate of ours, or its key is of a kind we do not know (P-521, Ed448)",
        ),
        (&alert(80), "the server broke off TLS (alert: internal error)"),
        (
            &alert(112),
            "the server has no certificate for the name that was asked for (alert: unrecognised name)",
        ),
        (&alert(48), "the server does not accept our certificate (alert: unknown CA)"),
        (&alert(200), "the server broke off TLS (alert: "),
        (&[22, 3, 3, 0, 50], "the server closed the connection in the middle of the handshake"),
        (&[20, 3, 3, 0, 1, 1], "the server broke the rules of TLS ("),
    ] {
        match answered(answer.to_vec(), &policy(TlsLevel::Encrypt)) {
            Some(TlsError::Handshake(got)) => assert!(got.starts_with(words), "{words}: {got}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    assert_eq!(answered(Vec::new(), &policy(TlsLevel::Encrypt)), Some(TlsError::LostConnection));
}

#[test]
fn no_version_in_common_is_told_with_ours() {
    let root = authority("root");
    for (spoken, protocols, ours) in [
        (&TLS12, TlsProtocols { v1_2: false, v1_3: true }, "(TLSv1.3)"),
        (&TLS13, TlsProtocols { v1_2: true, v1_3: false }, "(TLSv1.2)"),
    ] {
        let config = Arc::new(issued(&params("mx", &[HOST]), &root).server(&[spoken]));
        let (socket, server) = served(&config, |mut stream| stream.write_all(b"220 hi\r\n").is_err());
        let policy = TlsPolicy { protocols, ..policy(TlsLevel::Encrypt) };
        let got = start_first(socket, &trusting(RootCertStore::empty()), &policy).err();
        let words = "the server speaks none of the versions of TLS that are allowed here ";
        assert_eq!(got, Some(TlsError::Handshake(words.to_owned() + ours)));
        assert!(server.join().unwrap());
    }
}

#[test]
fn a_handshake_that_stops_in_the_middle_is_over() {
    for version in [&TLS12, &TLS13] {
        let config = issued(&params("mx", &[HOST]), &authority("root")).server(&[version]);
        let (socket, server) = connected(move |mut socket| {
            let flight = first_flight(config, &mut socket);
            socket.write_all(&flight[..flight.len() / 2]).unwrap();
        });
        let got = start_first(socket, &trusting(RootCertStore::empty()), &policy(TlsLevel::Encrypt)).err();
        let words = "the server closed the connection in the middle of the handshake";
        assert_eq!(got, Some(TlsError::Handshake(words.into())), "{version:?}");
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_drips_octets_cannot_stretch_the_deadline() {
    let config = issued(&params("mx", &[HOST]), &authority("root")).server(&[&TLS13]);
    let (socket, server) = connected(move |mut socket| {
        for octet in first_flight(config, &mut socket) {
            if socket.write_all(&[octet]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    let deadline = Instant::now() + Duration::from_millis(400);
    let (transport, policy) = (trusting(RootCertStore::empty()), policy(TlsLevel::Encrypt));
    let got = TlsSessions::default().start(socket, &tcp(HOST), &transport, &policy, deadline).err();
    assert_eq!(got, Some(TlsError::TimedOut));
    assert!(server.join().unwrap(), "the whole flight was heard, and the deadline was over");
}

#[test]
fn a_silent_server_ends_the_handshake_at_its_deadline() {
    let (socket, theirs) = UnixStream::pair().unwrap();
    for wait in [Duration::ZERO, Duration::from_millis(20)] {
        let (transport, policy) = (trusting(RootCertStore::empty()), policy(TlsLevel::Encrypt));
        let socket = socket.try_clone().unwrap().into();
        let deadline = Instant::now() + wait;
        let got = TlsSessions::default().start(socket, &tcp(HOST), &transport, &policy, deadline).err();
        assert_eq!(got, Some(TlsError::TimedOut), "{wait:?}");
    }
    drop(theirs);
}

#[test]
fn a_server_that_asks_for_a_certificate_sees_ours() {
    let root = authority("root");
    let mut client = params("client", &["client.example.org"]);
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = issued(&client, &root);
    let with_identity = Transport {
        secrets: Secrets::for_tests(1, roots(&[root.der()]), Some(client.identity())),
        ..transport()
    };
    for version in [&TLS12, &TLS13] {
        let shown = issued(&params("mx", &[HOST]), &root);
        let config = Arc::new(shown.demanding_server(roots(&[root.der()]), version));
        let serve = |mut stream: Served| {
            let _ = stream.write_all(b"220 hi\r\n");
            stream.conn.peer_certificates().map(<[_]>::to_vec)
        };
        let (socket, server) = served(&config, serve);
        let mut stream = start_first(socket, &with_identity, &policy(TlsLevel::Verify)).unwrap();
        assert_eq!(read_exactly(&mut stream, 8), b"220 hi\r\n");
        assert_eq!(server.join().unwrap(), Some(client.chain.clone()), "{version:?}");

        // With TLS 1.3 the handshake is over for us before the server has looked.
        let (socket, server) = served(&config, serve);
        let words = match start_first(socket, &trusting(roots(&[root.der()])), &policy(TlsLevel::Verify)) {
            Err(TlsError::Handshake(words)) => words,
            Ok(mut stream) => loop {
                match stream.read(&mut [0; 100]) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => break error.to_string(),
                    Ok(read) => panic!("{read} octets, and no error"),
                }
            },
            Err(error) => panic!("{error:?}"),
        };
        assert!(words.contains("certificate of ours"), "{version:?}: {words}");
        assert_eq!(server.join().unwrap(), None);
    }
}

#[test]
fn a_server_without_the_key_of_its_certificate_is_found_out() {
    let root = authority("root");
    let (whole, stolen) = (issued(&params("mx", &[HOST]), &root), issued(&params("mx", &[HOST]), &root));
    let old = vec![unread::version_1("mx", &stolen.key)];
    for (chain, version) in [(&stolen.chain, &TLS12), (&stolen.chain, &TLS13), (&old, &TLS12), (&old, &TLS13)]
    {
        // The keys fit by their kind.
        let config = server_with(chain.clone(), whole.identity().key.clone(), &[version]);
        let (socket, server) = served(&Arc::new(config), |mut stream| stream.read(&mut [0]).is_ok());
        let got = start_first(socket, &trusting(roots(&[root.der()])), &policy(TlsLevel::May)).err();
        let words = "the server did not prove that it has the key of its certificate";
        assert_eq!(got, Some(TlsError::Handshake(words.into())), "{version:?}");
        assert!(!server.join().unwrap());
    }
}

#[test]
fn a_certificate_that_is_too_long_is_told_as_such() {
    let between = authority("between").der().clone();
    let mut shown = issued(&params("mx", &[HOST]), &authority("root"));
    shown.chain.extend(vec![between; 300]);
    for version in [&TLS12, &TLS13] {
        let (socket, server) =
            served(&Arc::new(shown.server(&[version])), |mut stream| stream.read(&mut [0]).is_ok());
        let got = start_first(socket, &trusting(RootCertStore::empty()), &policy(TlsLevel::Encrypt)).err();
        let words = "the server's certificates are longer than 64 KB";
        assert_eq!(got, Some(TlsError::Handshake(words.into())), "{version:?}");
        assert!(!server.join().unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a server answers, the handshake fails, in words that a log can hold.
    #[test]
    fn any_answer_comes_to_an_end(answer in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        // Records of TLS with anything in them.
        (20_u8..25, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(kind, content)| {
            let [high, low] = (content.len() as u16).to_be_bytes();
            [&[kind, 3, 3, high, low][..], &content].concat()
        }),
    ]) {
        match answered(answer, &policy(TlsLevel::Encrypt)) {
            Some(TlsError::Handshake(words)) => {
                prop_assert!(words.len() < 600 && !words.contains(char::is_control), "{words:?}");
            }
            other => prop_assert_eq!(other, Some(TlsError::LostConnection)),
        }
    }

    /// One octet that somebody has altered on the way spoils the handshake, or what is read after it.
    #[test]
    fn an_octet_that_was_altered_is_noticed(place: prop::sample::Index, mask in 1_u8.., old: bool) {
        let version = if old { &TLS12 } else { &TLS13 };
        let config = issued(&params("mx", &[HOST]), &authority("root")).server(&[version]);
        let (socket, server) = connected(move |mut socket| {
            let mut flight = first_flight(config, &mut socket);
            let place = place.index(flight.len());
            flight[place] ^= mask;
            let _ = socket.write_all(&flight);
            let _ = socket.shutdown(std::net::Shutdown::Write);
            while socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
            (flight, place)
        });
        let started = start_first(socket, &trusting(RootCertStore::empty()), &policy(TlsLevel::Encrypt));
        let got = started.and_then(|mut stream| loop {
            match stream.read(&mut [0; 100]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break Err(TlsError::Handshake(error.to_string())),
                Ok(read) => break Ok(read),
            }
        });
        let (flight, place) = server.join().unwrap();
        // The version of a record means nothing any more (RFC 8446 section 5.1), nor does the record that is sent for
        // middleboxes alone.
        let means_nothing = is_of_no_meaning(&flight, place);
        prop_assert!(got.is_err() || means_nothing, "octet {place} of {version:?}: {got:?}");
    }
}

/// Whether octet `place` of `flight` is one that nobody looks at: the minor version of a record.
fn is_of_no_meaning(flight: &[u8], place: usize) -> bool {
    let mut rest = BufReader::new(Cursor::new(flight));
    let mut at = 0;
    let mut head = [0; 5];
    while rest.read_exact(&mut head).is_ok() {
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if (at + 1..at + 3).contains(&place) {
            return true;
        }
        at += 5 + length;
        rest.seek_relative(length as i64).unwrap();
    }
    false
}
