//! Sessions that are taken up again, and what they do not bring along.

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use super::*;

/// A connection that hears one line: whether it was resumed, for us and for the server, and whom it led to.
fn attempt(
    sessions: &mut TlsSessions,
    config: &Arc<ServerConfig>,
    server: &Server,
    transport: &Transport,
    policy: &TlsPolicy<'_>,
) -> (bool, Result<Trust, TlsError>) {
    let (socket, serving) = served(config, |mut stream| {
        let _ = stream.write_all(b"220 hi\r\n");
        let _ = stream.read(&mut [0]);
        stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    });
    let started = start(sessions, socket, server, transport, policy).map(|mut stream| {
        read_exactly(&mut stream, 8);
        (stream.trust(), stream.is_resumed())
    });
    let is_resumed = serving.join().unwrap();
    if let Ok((_, ours)) = &started {
        assert_eq!(*ours, is_resumed);
    }
    (is_resumed, started.map(|(trust, _)| trust))
}

#[test]
fn a_later_connection_of_a_worker_takes_the_session_up_again() {
    let root = authority("root");
    let transport = trusting(roots(&[root.der()]));
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(issued(&params("mx", &[HOST]), &root).server(&[version]));
        let mut sessions = TlsSessions::default();
        for resumed in [false, true, true] {
            let got = attempt(&mut sessions, &config, &tcp(HOST), &transport, &policy(TlsLevel::Verify));
            assert_eq!(got, (resumed, Ok(Trust::Verified)), "{version:?}");
        }
        // Another worker knows nothing of it.
        let got =
            attempt(&mut TlsSessions::default(), &config, &tcp(HOST), &transport, &policy(TlsLevel::Verify));
        assert!(!got.0, "{version:?}");
    }
}

#[test]
fn a_resumed_session_brings_no_trust_along() {
    let root = authority("root");
    let transport = trusting(roots(&[root.der()]));
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(issued(&params("mx", &["other.example"]), &root).server(&[version]));
        let mut sessions = TlsSessions::default();
        let mut by = |policy: &TlsPolicy<'_>| attempt(&mut sessions, &config, &tcp(HOST), &transport, policy);
        assert_eq!(by(&policy(TlsLevel::May)), (false, Ok(Trust::Trusted)));
        // The name is looked at in the session's certificate.
        let (resumed, got) = by(&policy(TlsLevel::Verify));
        assert!(resumed && matches!(got, Err(TlsError::Certificate(_))), "{version:?}: {resumed} {got:?}");
        let matches = [CertMatch::Name("other.example".into())];
        let (resumed, got) = by(&TlsPolicy { matches: &matches, ..policy(TlsLevel::Secure) });
        assert!(resumed && got == Ok(Trust::Verified), "{version:?}: {resumed} {got:?}");
        let (resumed, got) = by(&policy(TlsLevel::Fingerprint));
        assert!(resumed && matches!(got, Err(TlsError::Certificate(_))), "{version:?}: {resumed} {got:?}");
    }
}

#[test]
fn a_session_is_for_one_server_and_one_certificate_of_ours() {
    let root = authority("root");
    let config = Arc::new(issued(&params("mx", &[HOST]), &root).server(&[&TLS13]));
    let trusted = || roots(&[root.der()]);
    let transport = trusting(trusted());
    let level = policy(TlsLevel::May);
    let mut sessions = TlsSessions::default();
    assert!(!attempt(&mut sessions, &config, &tcp(HOST), &transport, &level).0);
    let other_port = Server::Tcp { host: HOST.into(), port: 26.try_into().unwrap() };
    let read_again = Transport { secrets: Secrets::for_tests(1, trusted(), None), ..transport.clone() };
    let trusting_others = Transport { secrets: Secrets::for_tests(2, trusted(), None), ..transport.clone() };
    let ours = Some(issued(&params("client", &["client.example.org"]), &root).identity());
    let changed = Transport { secrets: Secrets::for_tests(3, trusted(), ours), ..transport.clone() };
    let renamed = Transport { name: "other".parse().unwrap(), ..transport.clone() };
    let nameless = TlsPolicy { servername: &TlsServerName::None, ..level };
    let newest = TlsPolicy { protocols: TlsProtocols { v1_2: false, v1_3: true }, ..level };
    for (what, server, transport, policy, resumed) in [
        ("another port", &other_port, &transport, &level, false),
        ("another host", &tcp("mx2.example.org"), &transport, &level, false),
        ("another transport", &tcp(HOST), &renamed, &level, false),
        ("another name", &tcp(HOST), &transport, &nameless, false),
        ("other versions", &tcp(HOST), &transport, &newest, false),
        ("read again, and the same", &tcp(HOST), &read_again, &level, true),
        ("other authorities, by which it is judged anew", &tcp(HOST), &trusting_others, &level, true),
        ("another certificate of ours", &tcp(HOST), &changed, &level, false),
        ("as before, which is forgotten", &tcp(HOST), &transport, &level, false),
    ] {
        assert_eq!(attempt(&mut sessions, &config, server, transport, policy).0, resumed, "{what}");
    }
}

#[test]
fn a_changed_certificate_of_ours_is_shown_at_once() {
    let root = authority("root");
    let mut client = params("client", &["client.example.org"]);
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let shown = issued(&params("mx", &[HOST]), &root);
    let config = Arc::new(shown.demanding_server(roots(&[root.der()]), &TLS13));
    let mut sessions = TlsSessions::default();
    for mark in 1..=2 {
        let client = issued(&client, &root);
        let secrets = Secrets::for_tests(mark, roots(&[root.der()]), Some(client.identity()));
        let transport = Transport { secrets, ..transport() };
        for _ in 0..2 {
            let (socket, serving) = served(&config, |mut stream| {
                let _ = stream.write_all(b"220 hi\r\n");
                let _ = stream.read(&mut [0]);
                stream.conn.peer_certificates().map(<[_]>::to_vec)
            });
            let mut stream =
                start(&mut sessions, socket, &tcp(HOST), &transport, &policy(TlsLevel::Verify)).unwrap();
            read_exactly(&mut stream, 8);
            drop(stream);
            assert_eq!(serving.join().unwrap(), Some(client.chain.clone()));
        }
    }
}

#[test]
fn the_server_that_was_not_spoken_to_for_longest_is_forgotten() {
    let config = Arc::new(issued(&params("mx", &[HOST]), &authority("root")).server(&[&TLS13]));
    let (transport, level) = (trusting(RootCertStore::empty()), policy(TlsLevel::May));
    let mut sessions = TlsSessions::default();
    let mut is_resumed =
        |host: &str| attempt(&mut sessions, &config, &tcp(&format!("{host}.example")), &transport, &level).0;
    let hosts: Vec<_> = (0..16).map(|at| format!("h{at}")).collect();
    assert!(!hosts.iter().any(|host| is_resumed(host)));
    assert!(is_resumed("h0"));
    assert!(!is_resumed("new"));
    assert!(is_resumed("h0") && is_resumed("h2") && !is_resumed("h1"));
}
