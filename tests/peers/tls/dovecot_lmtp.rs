//! LMTP over TLS into a real Dovecot: STARTTLS, TLS from the first octet, certificates of both sides.
//!
//! - Owns: what arrives, what both logs say of the connections.
//! - Leaves to others: logins, which Dovecot's LMTP (2.3) does not have (`cyrus_lmtp`, `submission`).
//! - Always true: the server's log is the witness for what was seen on the wire.

use super::carrier::{Carrier, DELIVERED, Papers, message, showing};
use crate::common::certificates::{CLIENT, Identity, Kind};
use crate::common::mailbox::{assert_same, header};
use crate::common::process::wait_for;
use crate::delivery::bodies;
use crate::dovecot::Dovecot;

/// What Dovecot writes in front of a message.
const BY_DOVECOT: [&str; 3] = ["Return-Path", "Delivered-To", "Received"];
/// What Dovecot logs where it shows its certificate: once in each handshake that resumes nothing.
const SHOWN: &str = "write certificate\n";

/// A Dovecot that offers STARTTLS, and TLS from the first octet on its second port.
pub fn dovecot(papers: &Papers, more: &str) -> Dovecot {
    let server = papers.of(Kind::Good);
    let (chain, key, authority) = (server.chain.display(), server.key.display(), papers.authority.display());
    let text = move |port: u16| {
        format!(
            "ssl = yes\nssl_cert = <{chain}\nssl_key = <{key}\nssl_ca = <{authority}\nssl_require_crl = no\n\
             verbose_ssl = yes\n{more}\nservice lmtp {{\n  inet_listener lmtps {{\n    address = 127.0.0.1\n    \
             port = {port}\n    ssl = yes\n  }}\n}}\n"
        )
    };
    Dovecot::start_with(&|_, port| text(port))
}

fn starttls(dovecot: &Dovecot) -> String {
    format!("lmtp:inet:localhost:{}", dovecot.port())
}

/// The message of that subject, which was delivered.
#[track_caller]
fn arrived(dovecot: &Dovecot, carrier: &Carrier, subject: &str) -> Vec<u8> {
    let mut found = dovecot.mailbox("alice");
    found.retain(|message| header(message, "Subject").as_deref() == Some(subject));
    assert_eq!(found.len(), 1, "{subject:?}\n{}\n{}", carrier.site.log(), dovecot.log());
    found.remove(0)
}

/// Sends one message and sees it arrive as it was.
#[track_caller]
fn carry(dovecot: &Dovecot, carrier: &Carrier, subject: &str) {
    let before = carrier.site.lines_with(&["status=sent"]).len();
    let submitted = carrier.send(subject, b"text\n");
    carrier.wait_for_sent(before + 1);
    assert_same(&arrived(dovecot, carrier, subject), &submitted, &BY_DOVECOT);
}

#[test]
fn mail_arrives_whole_by_every_way_in() {
    let papers = Papers::new();
    let dovecot = dovecot(&papers, "");
    let large: String =
        (0..20_000).map(|number| format!(".{number:07} {}\n", "0123456789".repeat(6))).collect();
    let socket = dovecot.socket().display().to_string();
    let (port, second) = (dovecot.port(), dovecot.second_port());
    let (host, wrapped) = (format!("localhost[127.0.0.1]:{port}"), format!("localhost[127.0.0.1]:{second}"));
    for (way, nexthop, name, keys) in [
        ("starttls", format!("inet:localhost:{port}"), host, "tls_security_level = \"verify\""),
        (
            "wrapped",
            format!("inet:localhost:{second}"),
            wrapped,
            "tls_security_level = \"secure\"\ntls_wrappermode = \"yes\"",
        ),
        (
            "socket",
            format!("unix:{socket}"),
            format!("mx.example.org[{socket}]"),
            "tls_security_level = \"verify\"\ntls_verify_cert_match = \"mailbox.example.org\"",
        ),
    ] {
        let mut carrier = Carrier::start(&papers, &format!("lmtp:{nexthop}"), keys);
        let mut bodies = bodies();
        bodies.push(("large", large.clone().into_bytes()));
        let subject = |name: &str| format!("{name} by {way}");
        let submitted: Vec<_> =
            bodies.iter().map(|(name, body)| (subject(name), carrier.send(&subject(name), body))).collect();
        carrier.wait_for_sent(submitted.len());
        for (subject, submitted) in &submitted {
            assert_same(&arrived(&dovecot, &carrier, subject), submitted, &BY_DOVECOT);
        }
        // The same connection for all of them, in the same TLS.
        carrier.assert_connection("Verified", &name);
        carrier.site.wait_until_empty(DELIVERED);
        carrier.stop();
    }
}

#[test]
fn delivery_without_a_queue_goes_over_tls_too() {
    let papers = Papers::new();
    let dovecot = dovecot(&papers, "");
    let carrier = Carrier::new(&papers, &starttls(&dovecot), "tls_security_level = \"verify\"");
    let submitted = message("at once", b"text\n.\n");
    let output = carrier.send_now("--lmtp", &format!("localhost:{}", dovecot.port()), &submitted);
    let heard = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && heard.contains("status=sent (250 2.0.0 "), "{heard}");
    assert_same(&arrived(&dovecot, &carrier, "at once"), &submitted, &BY_DOVECOT);
    assert!(dovecot.log().contains(SHOWN), "{}", dovecot.log());
    // Whom nobody trusts gets nothing, and the caller hears why.
    let strangers = Papers::new();
    let carrier = Carrier::new(&strangers, &starttls(&dovecot), "tls_security_level = \"verify\"");
    let output = carrier.send_now("--lmtp", &format!("localhost:{}", dovecot.port()), &submitted);
    let heard = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && heard.contains("Server certificate not trusted: "), "{heard}");
    assert_eq!(dovecot.mailbox("alice").len(), 1);
}

/// Each level with what is known of the server, and what becomes of the mail: the trust that the log tells, or the
/// words for which it waits.
#[test]
fn a_level_is_met_or_the_mail_waits() {
    let (papers, strangers) = (Papers::new(), Papers::new());
    let dovecot = dovecot(&papers, "");
    let [of_certificate, of_key] = papers.of(Kind::Good).written_fingerprints();
    let [of_another, _] = papers.of(Kind::SelfSigned).written_fingerprints();
    let elsewhere = "tls_verify_cert_match = \"mx.elsewhere.example\"\n";
    let names = ["localhost", "mx.elsewhere.example"];
    let fingerprint = |it: &str| format!("tls_fingerprints = \"{it}\"\n");
    for (at, (level, trusts, keys, outcome)) in [
        ("may", &papers, String::new(), Ok("Trusted")),
        ("may", &strangers, String::new(), Ok("Untrusted")),
        ("encrypt", &strangers, String::new(), Ok("Untrusted")),
        ("encrypt", &papers, String::new(), Ok("Trusted")),
        ("verify", &papers, String::new(), Ok("Verified")),
        (
            "verify",
            &strangers,
            String::new(),
            Err(("Server certificate not trusted: ", ["authority", "localhost"])),
        ),
        ("verify", &papers, elsewhere.to_owned(), Err(("Server certificate not verified: ", names))),
        ("secure", &papers, String::new(), Ok("Verified")),
        (
            "secure",
            &papers,
            "tls_secure_cert_match = \"mx.elsewhere.example\"\n".to_owned(),
            Err(("Server certificate not verified: ", names)),
        ),
        ("fingerprint", &strangers, fingerprint(&of_certificate), Ok("Verified")),
        ("fingerprint", &strangers, fingerprint(&of_key), Ok("Verified")),
        (
            "fingerprint",
            &papers,
            fingerprint(&of_another),
            Err(("Server certificate not verified: ", ["", ""])),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let keys = format!("tls_security_level = \"{level}\"\n{keys}");
        let mut carrier = Carrier::start(trusts, &starttls(&dovecot), &keys);
        let subject = format!("case {at}");
        match outcome {
            Ok(trust) => {
                carry(&dovecot, &carrier, &subject);
                carrier.assert_connection(trust, &format!("localhost[127.0.0.1]:{}", dovecot.port()));
            }
            Err((words, further)) => {
                let before = dovecot.mailbox("alice").len();
                carrier.send(&subject, b"text\n");
                let line = carrier.wait_for_deferred(&[words, "dsn=4.7.5", further[0], further[1]]);
                assert!(carrier.connections().is_empty(), "{line}\n{}", carrier.site.log());
                assert_eq!(dovecot.mailbox("alice").len(), before, "{line}");
            }
        }
        carrier.stop();
    }
}

#[test]
fn a_policy_for_one_server_goes_before_what_holds_for_all() {
    let papers = Papers::new();
    let dovecot = dovecot(&papers, "");
    let (port, second) = (dovecot.port(), dovecot.second_port());
    // Nobody here has the certificate that the transport asks for: only the policies let mail through.
    let policy = |entries: &str| {
        format!(
            "tls_security_level = \"secure\"\ntls_secure_cert_match = \"mx.elsewhere.example\"\n\
             [transport.lmtp.tls_policy]\n{entries}"
        )
    };
    for (entries, outcome) in [
        (format!("\"localhost:{port}\" = \"encrypt\"\n"), Ok("Trusted")),
        ("\"localhost\" = \"verify match=mailbox.example.org\"\n".to_owned(), Ok("Verified")),
        (format!("\"localhost\" = \"none\"\n\"localhost:{port}\" = \"verify\"\n"), Ok("Verified")),
        (format!("\"localhost:{second}\" = \"none\"\n"), Err("Server certificate not verified: ")),
        (
            "\"localhost\" = \"verify match=.other.example\"\n".to_owned(),
            Err("Server certificate not verified: "),
        ),
        (
            format!(
                "\"localhost\" = \"fingerprint match={}\"\n",
                papers.of(Kind::Good).written_fingerprints()[1]
            ),
            Ok("Verified"),
        ),
        ("\"localhost\" = \"encrypt protocols=TLSv1.2\"\n".to_owned(), Ok("Trusted")),
    ] {
        let mut carrier = Carrier::start(&papers, &starttls(&dovecot), &policy(&entries));
        match outcome {
            Ok(trust) => {
                carry(&dovecot, &carrier, &format!("by {entries}").replace(['\n', '"'], ""));
                let line = carrier.assert_connection(trust, &format!("localhost[127.0.0.1]:{port}"));
                let version = if entries.contains("TLSv1.2") { ": TLSv1.2 with " } else { ": TLSv1.3 with " };
                assert!(line.contains(version), "{line}");
            }
            Err(words) => {
                carrier.send("not by policy", b"text\n");
                carrier.wait_for_deferred(&[words, "localhost"]);
            }
        }
        carrier.stop();
    }
    // Without TLS there is no line about it.
    let mut carrier = Carrier::start(&papers, &starttls(&dovecot), &policy("\"localhost\" = \"none\"\n"));
    carry(&dovecot, &carrier, "in clear");
    assert!(carrier.connections().is_empty(), "{}", carrier.site.log());
    carrier.stop();
}

#[test]
fn one_connection_and_its_tls_carry_one_message_after_the_other() {
    let papers = Papers::new();
    let dovecot = dovecot(&papers, "");
    let mut carrier = Carrier::start(&papers, &starttls(&dovecot), "tls_security_level = \"verify\"");
    // Whoever started it has looked whether it listens, which Dovecot may log late.
    let connections = |log: &str| {
        let looks = log.matches("Disconnect from 127.0.0.1: Connection closed (state=GREETING)").count();
        log.matches("Connect from 127.0.0.1").count() - looks
    };
    for number in 1..=5 {
        carry(&dovecot, &carrier, &format!("number {number}"));
    }
    let lines = carrier.wait_for_sent(5);
    assert!(!lines[0].contains("conn_use=") && lines[4].contains("conn_use=5"), "{lines:?}");
    carrier.assert_connection("Verified", &format!("localhost[127.0.0.1]:{}", dovecot.port()));
    let log = dovecot.log();
    assert_eq!((connections(&log), log.matches(SHOWN).count()), (1, 1), "{log}");
    // Saying goodbye is part of it: Dovecot tells a connection that was cut from one that was closed.
    carrier.stop();
    wait_for("the end of the connection", DELIVERED, || {
        dovecot.log().contains("Disconnect from 127.0.0.1: Logged out").then_some(())
    });
}

#[test]
fn the_next_connection_resumes_the_session() {
    let papers = Papers::new();
    // Each of Dovecot's processes knows the sessions that it has begun itself.
    let dovecot = dovecot(&papers, "service lmtp {\n  process_limit = 1\n}");
    for version in ["TLSv1.3", "TLSv1.2"] {
        let keys = format!(
            "tls_security_level = \"verify\"\ntls_protocols = \"{version}\"\ncache_connection = \"no\""
        );
        let mut carrier = Carrier::start(&papers, &starttls(&dovecot), &keys);
        let before = dovecot.log().matches(SHOWN).count();
        for number in 1..=4 {
            carry(&dovecot, &carrier, &format!("number {number} over {version}"));
        }
        // Four connections, and each was judged; the certificate was shown in the first one alone.
        let lines = carrier.connections();
        let name = format!(" Verified TLS connection established to localhost[127.0.0.1]:{}", dovecot.port());
        assert!(lines.len() == 4 && lines.iter().all(|line| line.contains(&name)), "{lines:?}");
        assert!(lines.iter().all(|line| line.contains(&format!(": {version} with "))), "{lines:?}");
        assert_eq!(dovecot.log().matches(SHOWN).count() - before, 1, "{version}\n{}", dovecot.log());
        carrier.stop();
    }
}

/// Dovecot's LMTP asks for a certificate and cannot insist on one; a bad one it refuses.
#[test]
fn a_certificate_is_shown_to_the_server_that_asks() {
    let (papers, strangers) = (Papers::new(), Papers::new());
    let dovecot = dovecot(&papers, "ssl_verify_client_cert = yes");
    let verify = "tls_security_level = \"verify\"\n";
    let accepted = format!("Received valid SSL certificate: /CN={CLIENT}");
    let accepted_in = |log: &str| log.matches(&accepted).count();
    let with = |identity: &Identity| format!("{verify}{}", showing(identity));

    let mut carrier = Carrier::start(&papers, &starttls(&dovecot), verify);
    carry(&dovecot, &carrier, "without a certificate");
    assert_eq!(accepted_in(&dovecot.log()), 0, "{}", dovecot.log());
    carrier.stop();

    // To a server that checks certificates no session is resumed: it sees the certificate each time.
    let keys = format!("{}cache_connection = \"no\"", with(papers.of(Kind::Client)));
    let mut carrier = Carrier::start(&papers, &starttls(&dovecot), &keys);
    carry(&dovecot, &carrier, "with a certificate");
    carry(&dovecot, &carrier, "with a certificate again");
    assert_eq!(accepted_in(&dovecot.log()), 2, "{}", dovecot.log());
    carrier.stop();

    // With TLS 1.3 the client's handshake is over before the server has looked.
    for version in ["TLSv1.3", "TLSv1.2"] {
        let keys = format!("{}tls_protocols = \"{version}\"", with(strangers.of(Kind::Client)));
        let mut carrier = Carrier::start(&papers, &starttls(&dovecot), &keys);
        carrier.send("with a stranger's certificate", b"text\n");
        let line = carrier.wait_for_deferred(&[&format!("localhost[127.0.0.1]:{}", dovecot.port())]);
        assert!(line.contains("dsn=4."), "{line}");
        assert!(dovecot.log().contains("Received invalid SSL certificate: "), "{}", dovecot.log());
        carrier.stop();
    }
    assert_eq!(dovecot.mailbox("alice").len(), 3);
}

#[test]
fn versions_that_do_not_meet_keep_the_mail_or_send_it_in_clear() {
    let papers = Papers::new();
    let dovecot = dovecot(&papers, "ssl_min_protocol = TLSv1.3");
    let keys = |level: &str| format!("tls_security_level = \"{level}\"\ntls_protocols = \"TLSv1.2\"");

    let mut carrier = Carrier::start(&papers, &starttls(&dovecot), &keys("encrypt"));
    carrier.send("encrypted or not at all", b"text\n");
    // Dovecot closes the connection without a word about the version.
    carrier.wait_for_deferred(&["Cannot start TLS with localhost[127.0.0.1]: lost connection ", "dsn=4.7.5"]);
    carrier.stop();
    assert!(dovecot.mailbox("alice").is_empty());

    let mut carrier = Carrier::start(&papers, &starttls(&dovecot), &keys("may"));
    carry(&dovecot, &carrier, "encrypted or not");
    assert!(carrier.connections().is_empty(), "{}", carrier.site.log());
    carrier.site.wait_for_line(&["Cannot start TLS with localhost[127.0.0.1]: "], DELIVERED);
    carrier.stop();
}

/// A server without TLS, under each level that asks for it.
#[test]
fn what_is_not_offered_is_required_in_vain() {
    let (papers, dovecot) = (Papers::new(), Dovecot::start());
    for level in ["encrypt", "verify", "secure"] {
        let keys = format!("tls_security_level = \"{level}\"");
        let mut carrier = Carrier::start(&papers, &starttls(&dovecot), &keys);
        carrier.send("over TLS alone", b"text\n");
        let words = "TLS is required, but was not offered by host localhost[127.0.0.1]";
        carrier.wait_for_deferred(&[words, "dsn=4.7.4"]);
        carrier.stop();
    }
    assert!(dovecot.mailbox("alice").is_empty());
    let mut carrier = Carrier::start(&papers, &starttls(&dovecot), "tls_security_level = \"may\"");
    carry(&dovecot, &carrier, "in clear");
    carrier.stop();
}
