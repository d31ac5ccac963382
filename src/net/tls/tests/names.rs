//! Which names of a certificate fit, and which name a handshake asks for.

use rustls::version::{TLS12, TLS13};

use super::*;

/// A connection to `server` by `policy`, whose certificate is for `hosts`: the name that was asked for, and the outcome.
fn attempt(
    hosts: &[&str],
    server: &Server,
    policy: &TlsPolicy<'_>,
) -> (Option<String>, Result<Trust, TlsError>) {
    let root = authority("root");
    let config = Arc::new(issued(&params("mx", hosts), &root).server(&[&TLS13, &TLS12]));
    let (socket, serving) = served(&config, |mut stream| {
        let _ = stream.write_all(b"220 hi\r\n");
        stream.conn.server_name().map(str::to_owned)
    });
    let transport = trusting(roots(&[root.der()]));
    let started = start(&mut TlsSessions::default(), socket, server, &transport, policy);
    let trust = started.map(|stream| stream.trust());
    (serving.join().unwrap(), trust)
}

#[test]
fn a_certificate_fits_by_host_by_nexthop_or_by_what_is_configured() {
    let unix = Server::Unix("/run/lmtp".into());
    let name = |name: &str| CertMatch::Name(name.into());
    let below = |domain: &str| CertMatch::Below(domain.into());
    for (hosts, server, matches, fits) in [
        (&[HOST][..], tcp(HOST), vec![CertMatch::Hostname], true),
        (&["MX.Example.ORG"], tcp(HOST), vec![CertMatch::Nexthop], true),
        (&["*.example.org"], tcp(HOST), vec![CertMatch::Nexthop], true),
        (&["*.example.org"], tcp("a.mx.example.org"), vec![CertMatch::Nexthop], false),
        (&["*.example.org"], tcp("example.org"), vec![CertMatch::Nexthop], false),
        (&["a.mx.example.org"], tcp(HOST), vec![CertMatch::Nexthop], false),
        (&["a.mx.example.org"], tcp(HOST), vec![CertMatch::DotNexthop], true),
        (&["*.mx.example.org"], tcp(HOST), vec![CertMatch::DotNexthop], true),
        (&[HOST], tcp(HOST), vec![CertMatch::DotNexthop], false),
        (&["other.example"], tcp(HOST), vec![name("other.example")], true),
        (&["other.example"], tcp(HOST), vec![CertMatch::Hostname, name("other.example")], true),
        (&["a.other.example"], tcp(HOST), vec![name("other.example")], false),
        (&["a.b.other.example"], tcp(HOST), vec![below("other.example")], true),
        (&["*.OTHER.example"], tcp(HOST), vec![below("other.example")], true),
        (&["another.example", "other.example", "*.example"], tcp(HOST), vec![below("other.example")], false),
        (&[HOST], tcp(HOST), vec![], false),
        (&["192.0.2.1"], tcp("192.0.2.1"), vec![CertMatch::Hostname], true),
        (&["192.0.2.2"], tcp("192.0.2.1"), vec![CertMatch::Hostname], false),
        (&["2001:db8::1"], tcp("2001:db8::1"), vec![CertMatch::Nexthop], true),
        (&["a.192.0.2.1"], tcp("192.0.2.1"), vec![CertMatch::DotNexthop], false),
        (&["here.example.org"], unix.clone(), vec![CertMatch::Hostname], true),
        (&["here.example.org"], unix.clone(), vec![CertMatch::Nexthop], true),
        (&["x.here.example.org"], unix, vec![CertMatch::DotNexthop], true),
    ] {
        let policy = TlsPolicy { matches: &matches, ..policy(TlsLevel::Secure) };
        match attempt(hosts, &server, &policy).1 {
            Ok(trust) => assert!(fits && trust == Trust::Verified, "{hosts:?} {server} {matches:?}"),
            Err(TlsError::Certificate(words)) => {
                assert!(!fits, "{hosts:?} {server} {matches:?}: {words}");
                assert!(words.starts_with("Server certificate not verified: it is for "), "{words}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn both_names_are_told_where_they_differ() {
    let matches = [CertMatch::Nexthop, CertMatch::DotNexthop, CertMatch::Name("mx2.example".into())];
    let policy = TlsPolicy { matches: &matches, ..policy(TlsLevel::Secure) };
    let words = "Server certificate not verified: it is for a.example, *.b.example and not for mx.example.org or a host \
                 below mx.example.org or mx2.example";
    let got = attempt(&["a.example", "*.b.example"], &tcp(HOST), &policy).1;
    assert_eq!(got, Err(TlsError::Certificate(words.into())));
}

#[test]
fn a_name_is_asked_for_where_there_is_one() {
    let name = TlsServerName::Name("virtual.example".into());
    for (server, servername, asked) in [
        (tcp(HOST), &TlsServerName::Hostname, Some(HOST)),
        (tcp("mx.example.org."), &TlsServerName::Hostname, Some(HOST)),
        (tcp("192.0.2.1"), &TlsServerName::Hostname, None),
        (tcp("2001:db8::1"), &TlsServerName::Hostname, None),
        (tcp("no_such-.host-"), &TlsServerName::Hostname, None),
        (Server::Unix("/run/lmtp".into()), &TlsServerName::Hostname, None),
        (tcp(HOST), &TlsServerName::None, None),
        (tcp(HOST), &name, Some("virtual.example")),
        (tcp("192.0.2.1"), &name, Some("virtual.example")),
        (Server::Unix("/run/lmtp".into()), &name, Some("virtual.example")),
    ] {
        let policy = TlsPolicy { servername, ..policy(TlsLevel::May) };
        let (got, trust) = attempt(&[HOST], &server, &policy);
        assert_eq!((got.as_deref(), trust), (asked, Ok(Trust::Trusted)), "{server} {servername:?}");
    }
}

#[test]
fn a_name_that_nobody_can_ask_for_is_an_error_in_words() {
    let servername = TlsServerName::Name("-no name-".into());
    let policy = TlsPolicy { servername: &servername, ..policy(TlsLevel::May) };
    let (socket, _serving) = connected(|_| ());
    let got = start_first(socket, &trusting(RootCertStore::empty()), &policy);
    assert_eq!(
        got.err(),
        Some(TlsError::Handshake("\"-no name-\" is no name that a handshake can ask for".into()))
    );
}
