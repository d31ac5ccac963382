//! Servers, and people between them and us, who want mail in clear or returned.

use crate::common::agent::{SOON, Site};
use crate::common::certificates::Kind;

use lastmile::sink::{Extension, Script, SinkConfig, TlsVersion};

use super::{MESSAGE, Server, certificates, shown, transports};

/// What somebody does; what becomes of mail where TLS may be done without, and where not.
struct Trick {
    name: &'static str,
    script: &'static str,
    change: fn(&mut SinkConfig),
    may: &'static [&'static str],
    must: &'static [&'static str],
}

const NOTHING: fn(&mut SinkConfig) = |_| {};
const SENT: &[&str] = &["status=sent"];

const TRICKS: [Trick; 11] = [
    Trick {
        name: "stripped",
        script: "",
        change: |config| config.without = vec![Extension::StartTls],
        may: SENT,
        must: &["dsn=4.7.4, status=deferred", "TLS is required, but was not offered by host localhost["],
    },
    Trick {
        name: "refused",
        script: "starttls 554 5.7.0 no certificate today",
        change: NOTHING,
        may: SENT,
        must: &["dsn=4.7.0, status=deferred", "refused to start TLS: 554 5.7.0 no certificate today"],
    },
    Trick {
        name: "injected",
        script: "starttls inject 250-mx\\r\\n250 PIPELINING\\r\\n",
        change: NOTHING,
        may: &["dsn=4.5.0, status=deferred", "plain text came behind the reply to STARTTLS"],
        must: &["dsn=4.5.0, status=deferred", "plain text came behind the reply to STARTTLS"],
    },
    Trick {
        name: "closed",
        script: "handshake close",
        change: NOTHING,
        may: SENT,
        must: &["dsn=4.7.5, status=deferred", "Cannot start TLS with localhost["],
    },
    Trick {
        name: "truncated",
        script: "handshake partial 40",
        change: NOTHING,
        may: SENT,
        must: &["dsn=4.7.5, status=deferred", "Cannot start TLS with localhost["],
    },
    Trick {
        name: "garbage",
        script: "handshake garbage",
        change: NOTHING,
        may: SENT,
        must: &["dsn=4.7.5, status=deferred", "Cannot start TLS with localhost[", "is no TLS"],
    },
    Trick {
        name: "silent",
        script: "handshake silence",
        change: NOTHING,
        may: SENT,
        must: &["dsn=4.7.5, status=deferred", "the handshake timed out"],
    },
    Trick { name: "keys", script: "mail rekey\ndata-done * rekey", change: NOTHING, may: SENT, must: SENT },
    Trick {
        name: "older",
        script: "",
        change: |config| config.tls.iter_mut().for_each(|tls| tls.versions = vec![TlsVersion::V1_2]),
        may: SENT,
        must: SENT,
    },
    Trick {
        name: "gone",
        script: "content close",
        change: NOTHING,
        may: &["status=deferred", "lost connection with localhost["],
        must: &["status=deferred", "lost connection with localhost["],
    },
    Trick {
        name: "refusing",
        script: "lhlo 554 5.7.1 go away",
        change: NOTHING,
        may: &["dsn=4.7.1, status=deferred", "refused to talk to me"],
        must: &["dsn=4.7.1, status=deferred", "refused to talk to me"],
    },
];

#[test]
fn nobody_gets_mail_in_clear_that_must_not_go_so_and_nobody_has_it_returned() {
    let site = Site::new("");
    let certificates = certificates(&site);
    let servers: Vec<_> = TRICKS
        .iter()
        .map(|trick| {
            Server::start_with(&site, |config| {
                config.tls = Some(shown(&certificates, Kind::Good));
                config.script = Script::parse(trick.script).unwrap();
                (trick.change)(config);
            })
        })
        .collect();
    let mut routes = "queue_run_delay = 3600\n[routes]\n".to_owned();
    let mut cases = Vec::new();
    for (trick, server) in TRICKS.iter().zip(&servers) {
        let must = ["encrypt", "fingerprint", "verify", "secure"].map(|level| (level, trick.must));
        for (level, expected) in [("may", trick.may)].into_iter().chain(must) {
            let domain = format!("{level}.{}.example", trick.name);
            routes += &format!("\"{domain}\" = \"{level}:inet:localhost:{}\"\n", server.port);
            cases.push((format!("b@{domain}"), server, expected));
        }
    }
    let [fingerprint, _] = certificates.of(Kind::Good).written_fingerprints();
    let keys = format!(
        "tls_CAfile = \"{}\"\ntls_fingerprints = \"{fingerprint}\"\nstarttls_timeout = \"2s\"",
        certificates.authority.display()
    );
    site.configure(&format!("{routes}{}", transports(&keys)));
    let agent = site.start_agent();
    let recipients: Vec<_> = cases.iter().map(|(address, ..)| address.as_str()).collect();
    site.sendmail(&recipients, MESSAGE);
    for (address, server, expected) in &cases {
        let line = site.wait_for_line(&[&format!("to=<{address}>")], SOON);
        assert!(expected.iter().all(|word| line.contains(word)), "{expected:?} {line}");
        assert_eq!(server.mail_of(address), usize::from(*expected == SENT), "{address}");
    }
    // Going on in clear is told, once for each.
    for (trick, server) in TRICKS.iter().zip(&servers).filter(|(trick, _)| trick.may == SENT) {
        let told = site.lines_with(&["Cannot start TLS with", "it is tried again without TLS"]);
        let connections = server.handle.counts().connections;
        match trick.name {
            "closed" | "truncated" | "garbage" | "silent" => assert_eq!(connections, 6, "{}", trick.name),
            _ => assert_eq!(connections, 5, "{}", trick.name),
        }
        assert_eq!(told.len(), 4, "{told:#?}");
    }
    agent.stop();
}

#[test]
fn a_server_that_should_begin_with_tls_and_does_not_gets_no_mail() {
    let site = Site::new("");
    let certificates = certificates(&site);
    let scripts = ["handshake close", "handshake partial 40", "handshake garbage", "handshake silence", ""];
    let servers = scripts.map(|script| {
        Server::start_with(&site, |config| {
            // The last one greets in clear.
            config.wrappermode = !script.is_empty();
            config.tls = Some(shown(&certificates, Kind::Good));
            config.script = Script::parse(script).unwrap();
        })
    });
    let mut keys = "queue_run_delay = 3600\n[routes]\n".to_owned();
    for (at, server) in servers.iter().enumerate() {
        keys += &format!("\"n{at}.example\" = \"inet:localhost:{}\"\n", server.port);
    }
    keys +=
        "[transport.lmtp]\ninet_protocols = \"ipv4\"\ntls_wrappermode = \"yes\"\nstarttls_timeout = \"2s\"\n";
    site.configure(&keys);
    let agent = site.start_agent();
    let recipients: Vec<_> = (0..servers.len()).map(|at| format!("b@n{at}.example")).collect();
    site.sendmail(&recipients.iter().map(String::as_str).collect::<Vec<_>>(), MESSAGE);
    for (address, server) in recipients.iter().zip(&servers) {
        let line = site.wait_for_line(&[&format!("to=<{address}>")], SOON);
        assert!(line.contains("dsn=4.7.5, status=deferred (Cannot start TLS with localhost["), "{line}");
        assert_eq!((server.handle.counts().connections, server.mail_of(address)), (1, 0), "{line}");
    }
    agent.stop();
}
