//! Each level, with each fault of a certificate: what becomes of the mail, and what the log says.

use crate::common::agent::{SOON, Site};
use crate::common::certificates::Kind;

use super::{MESSAGE, Server, certificates, transports};

/// What becomes of mail at a level.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// It is sent, and the log calls the connection so.
    Sent(&'static str),
    /// It waits, and the log says why.
    Waits(&'static [&'static str]),
}
use Becomes::{Sent, Waits};

const UNTRUSTED: &str = "Server certificate not trusted: ";
const UNVERIFIED: &str = "Server certificate not verified: ";

/// A certificate; what becomes of mail at may and encrypt, at fingerprint (of the good one), at verify and secure.
const TABLE: [(Kind, Becomes, Becomes, Becomes); 9] = [
    (Kind::Good, Sent("Trusted"), Sent("Verified"), Sent("Verified")),
    (Kind::Chained, Sent("Trusted"), Waits(&[UNVERIFIED, "fingerprint"]), Sent("Verified")),
    (
        Kind::ChainIncomplete,
        Sent("Untrusted"),
        Waits(&[UNVERIFIED]),
        Waits(&[UNTRUSTED, "\"lastmile intermediate authority\" is not among those that are trusted"]),
    ),
    (
        Kind::WrongName,
        Sent("Trusted"),
        Waits(&[UNVERIFIED]),
        Waits(&[UNVERIFIED, "other.example.net", "localhost"]),
    ),
    (Kind::Expired, Sent("Untrusted"), Waits(&[UNVERIFIED]), Waits(&[UNTRUSTED, "expired", "2021-02-03"])),
    (
        Kind::NotYetValid,
        Sent("Untrusted"),
        Waits(&[UNVERIFIED]),
        Waits(&[UNTRUSTED, "not valid before", "2098-07-06"]),
    ),
    (Kind::SelfSigned, Sent("Untrusted"), Waits(&[UNVERIFIED]), Waits(&[UNTRUSTED, "signed by itself"])),
    (
        Kind::UnknownAuthority,
        Sent("Untrusted"),
        Waits(&[UNVERIFIED]),
        Waits(&[UNTRUSTED, "\"nobody's authority\" is not among those that are trusted"]),
    ),
    (Kind::Client, Sent("Untrusted"), Waits(&[UNVERIFIED]), Waits(&[UNTRUSTED, "for servers"])),
];

#[test]
fn what_a_certificate_proves_decides_at_each_level() {
    let site = Site::new("");
    let certificates = certificates(&site);
    let servers: Vec<_> =
        TABLE.iter().map(|(kind, ..)| (kind, Server::start(&site, &certificates, *kind, ""))).collect();
    let mut routes = "queue_run_delay = 3600\n[routes]\n".to_owned();
    let mut cases = Vec::new();
    for ((kind, loose, pinned, strict), (_, server)) in TABLE.iter().zip(&servers) {
        let levels = [
            ("none", None),
            ("may", Some(loose)),
            ("encrypt", Some(loose)),
            ("fingerprint", Some(pinned)),
            ("verify", Some(strict)),
            ("secure", Some(strict)),
        ];
        for (level, becomes) in levels {
            let domain = format!("{level}.{}.example", kind.word());
            routes += &format!("\"{domain}\" = \"{level}:inet:localhost:{}\"\n", server.port);
            cases.push((format!("b@{domain}"), server, becomes));
        }
    }
    let [fingerprint, _] = certificates.of(Kind::Good).written_fingerprints();
    let keys = format!(
        "tls_CAfile = \"{}\"\ntls_fingerprints = \"{fingerprint}\"",
        certificates.authority.display()
    );
    site.configure(&format!("{routes}{}", transports(&keys)));
    let agent = site.start_agent();
    let recipients: Vec<_> = cases.iter().map(|(address, ..)| address.as_str()).collect();
    site.sendmail(&recipients, MESSAGE);
    for (address, server, becomes) in &cases {
        let line = site.wait_for_line(&[&format!("to=<{address}>")], SOON);
        match becomes {
            Some(Waits(words)) => {
                assert!(line.contains("dsn=4.7.5, status=deferred"), "{line}");
                assert!(words.iter().all(|word| line.contains(word)), "{words:?} {line}");
                assert_eq!(server.mail_of(address), 0, "{address}");
            }
            Some(Sent(_)) | None => {
                assert!(line.contains("status=sent"), "{line}");
                assert_eq!(server.mail_of(address), 1, "{address}");
            }
        }
    }
    // Which connection is which, a log line tells by the port alone: those of one server, in any order.
    for ((_, loose, pinned, strict), (kind, server)) in TABLE.iter().zip(&servers) {
        let established =
            site.lines_with(&["TLS connection established to", &format!(":{}: TLS", server.port)]);
        let mut heard: Vec<_> = established.iter().filter_map(|line| trust_in(line)).collect();
        let all = [loose, loose, pinned, strict, strict];
        let mut expected: Vec<_> = all.iter().filter_map(|becomes| sent_as(becomes)).collect();
        heard.sort_unstable();
        expected.sort_unstable();
        assert_eq!(heard, expected, "{kind:?} {established:#?}");
    }
    agent.stop();
}

fn trust_in(line: &str) -> Option<&str> {
    line.split(" TLS connection established").next()?.rsplit(' ').next()
}

fn sent_as(becomes: &Becomes) -> Option<&'static str> {
    match becomes {
        Sent(trust) => Some(trust),
        Waits(_) => None,
    }
}
