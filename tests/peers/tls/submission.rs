//! ESMTP to a real Postfix that relays for known clients alone: logins that Dovecot checks, and certificates.
//!
//! - Owns: each mechanism with Dovecot's at the other end, tokens, the ways TLS is asked for, what arrives.
//! - Leaves to others: both servers (`relay`), LMTP.
//! - Always true: Postfix's log is the witness for who logged in, and how.

use super::carrier::{Carrier, DELIVERED, Papers, message, showing};
use super::relay::{Port, Relay};
use super::tokens::token_for;
use crate::common::certificates::Kind;
use crate::common::mailbox::{assert_same, header};
use crate::delivery::bodies;
use crate::postfix::instance::Place;

/// What Postfix writes in front of a message.
const BY_POSTFIX: [&str; 4] = ["Return-Path", "X-Original-To", "Delivered-To", "Received"];
/// Who may send, by which password.
const NAME: &str = "carrier@example.org";
const PASSWORD: &str = "canary-of-Dovecot-1";
const LOGINS: [[&str; 2]; 2] = [[NAME, PASSWORD], ["second@example.org", "canary-of-Dovecot-2"]];
const VERIFY: &str = "tls_security_level = \"verify\"\n";

/// A site that sends to a port and logs in.
fn carrier(papers: &Papers, relay: &Relay<'_>, port: Port, keys: &str) -> Carrier {
    Carrier::start_with_logins(papers, &relay.nexthop(port), keys, &[["localhost", NAME, PASSWORD]])
}

/// Sends one message and sees it arrive as it was.
#[track_caller]
fn carry(relay: &Relay<'_>, carrier: &Carrier, subject: &str) {
    let before = carrier.site.lines_with(&["status=sent"]).len();
    let submitted = carrier.send(subject, b"text\n");
    carrier.wait_for_sent(before + 1);
    assert_arrived(relay, subject, &submitted);
}

#[track_caller]
fn assert_arrived(relay: &Relay<'_>, subject: &str, submitted: &[u8]) {
    let mut found = relay.mailbox();
    found.retain(|message| header(message, "Subject").as_deref() == Some(subject));
    assert_eq!(found.len(), 1, "{subject:?}\n{}", relay.log());
    assert_same(&found[0], submitted, &BY_POSTFIX);
}

/// The mechanisms that Postfix has seen succeed, one a message.
fn mechanisms(relay: &Relay<'_>) -> Vec<String> {
    let lines = relay.lines_with(&["sasl_method=", &format!("sasl_username={NAME}")]);
    let word =
        |line: &String| line.split("sasl_method=").nth(1).unwrap().split(',').next().unwrap().to_owned();
    lines.iter().map(word).collect()
}

#[test]
fn every_mechanism_lets_mail_in() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    let mut expected = Vec::new();
    for (port, mechanism, keys) in [
        (Port::May, "SCRAM-SHA-256", VERIFY),
        (Port::LoginOverTls, "SCRAM-SHA-1", VERIFY),
        (Port::Encrypt, "CRAM-MD5", VERIFY),
        (Port::LoginOverTls, "PLAIN", VERIFY),
        (Port::Encrypt, "LOGIN", VERIFY),
        (Port::May, "CRAM-MD5", "tls_security_level = \"none\"\n"),
        (Port::Clear, "SCRAM-SHA-256", ""),
    ] {
        let keys = format!("{keys}sasl_mechanism_filter = \"{mechanism}\"");
        let mut carrier = carrier(&papers, &relay, port, &keys);
        carry(&relay, &carrier, &format!("by {mechanism} at {port:?}"));
        expected.push(mechanism);
        assert_eq!(mechanisms(&relay), expected, "{port:?}");
        carrier.stop();
    }
}

#[test]
fn mail_arrives_whole_over_one_connection() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    for (port, keys) in [
        (Port::Encrypt, "tls_security_level = \"secure\"\n"),
        (Port::Wrapped, "tls_security_level = \"secure\"\ntls_wrappermode = \"yes\"\n"),
    ] {
        let mut carrier = carrier(&papers, &relay, port, keys);
        let subject = |name: &str| format!("{name} at {port:?}");
        let bodies: Vec<_> = bodies().into_iter().filter(|(name, _)| *name != "long lines").collect();
        let sent: Vec<_> =
            bodies.iter().map(|(name, body)| (subject(name), carrier.send(&subject(name), body))).collect();
        carrier.wait_for_sent(sent.len());
        for (subject, submitted) in &sent {
            assert_arrived(&relay, subject, submitted);
        }
        carrier.assert_connection("Verified", &relay.name(port));
        assert_eq!(carrier.site.lines_with(&["> AUTH "]).len(), 1, "{}", carrier.site.log());
        carrier.site.wait_until_empty(DELIVERED);
        carrier.stop();
    }
    // The strongest that Dovecot has.
    assert!(mechanisms(&relay).iter().all(|mechanism| mechanism == "SCRAM-SHA-256"), "{}", relay.log());
}

#[test]
fn a_wrong_login_keeps_the_mail() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        let keys = format!("{VERIFY}sasl_mechanism_filter = \"{mechanism}\"");
        let table = [["localhost", NAME, "not-the-canary"]];
        let mut carrier = Carrier::start_with_logins(&papers, &relay.nexthop(Port::May), &keys, &table);
        carrier.send("with a wrong password", b"text\n");
        let words = "SASL authentication failed; server localhost[127.0.0.1]";
        let line = carrier.wait_for_deferred(&[words, " said: 535 5.7.8 ", "dsn=4.7.8"]);
        assert!(line.contains("authentication failed"), "{line}");
        carrier.stop();
    }
    assert!(relay.mailbox().is_empty());
}

#[test]
fn tokens_are_read_at_each_use() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    for mechanism in ["OAUTHBEARER", "XOAUTH2"] {
        let keys = format!("{VERIFY}cache_connection = \"no\"\nsasl_mechanism_filter = \"{mechanism}\"");
        // The path of the token's file is known when there is a site.
        let table = [["mx.elsewhere.example", "nobody", "canary-of-nobody"]];
        let mut carrier = Carrier::start_with_logins(&papers, &relay.nexthop(Port::Encrypt), &keys, &table);
        let token = token_for(NAME);
        let path = carrier.write_secret("token", &format!("{token}\n"));
        carrier.guard(NAME, &token);
        carrier.write_logins(&[["localhost", NAME, &format!("token-file:{}", path.display())]]);
        carrier.agent().signal(rustix::process::Signal::HUP);
        carrier.site.wait_for_line(&["the configuration was read again"], DELIVERED);
        carry(&relay, &carrier, &format!("by {mechanism}"));
        assert_eq!(mechanisms(&relay).last().map(String::as_str), Some(mechanism), "{}", relay.log());
        // Somebody else writes another one, and tells nobody.
        let another = format!("{}x", token_for(NAME));
        carrier.guard(NAME, &another);
        carrier.write_secret("token", &another);
        carrier.send("by a bad token", b"text\n");
        let words = "SASL authentication failed; server localhost[127.0.0.1]";
        carrier.wait_for_deferred(&[words, " said: 535 5.7.8 "]);
        carrier.stop();
    }
}

#[test]
fn a_certificate_does_for_a_login() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    for port in [Port::AskForCertificate, Port::RequireCertificate] {
        let keys = format!("{VERIFY}{}", showing(papers.of(Kind::Client)));
        let mut carrier = Carrier::start(&papers, &relay.nexthop(port), &keys);
        carry(&relay, &carrier, &format!("with a certificate at {port:?}"));
        carrier.assert_connection("Verified", &relay.name(port));
        carrier.stop();
    }
    let trusted = relay.lines_with(&[" Trusted TLS connection established from "]);
    assert_eq!(trusted.len(), 2, "{}", relay.log());
    // Without one this port says 421 as soon as there is TLS.
    let mut carrier = Carrier::start(&papers, &relay.nexthop(Port::RequireCertificate), VERIFY);
    carrier.send("without a certificate", b"text\n");
    carrier.wait_for_deferred(&["refused to talk to me: 421 4.7.1 ", "No client certificate presented"]);
    carrier.stop();
}

#[test]
fn a_server_that_speaks_a_newer_version_alone_says_so() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    let keys = format!("{VERIFY}tls_protocols = \"TLSv1.2\"");
    let mut carrier = carrier(&papers, &relay, Port::Newest, &keys);
    carrier.send("by an old version", b"text\n");
    let line = carrier.wait_for_deferred(&["Cannot start TLS", "localhost[127.0.0.1]", "dsn=4.7.5"]);
    assert!(line.contains("version"), "{line}");
    carrier.stop();
    let keys = format!("{VERIFY}tls_protocols = \"TLSv1.3\"");
    let mut carrier = self::carrier(&papers, &relay, Port::Newest, &keys);
    carry(&relay, &carrier, "by the newest version");
    carrier.stop();
}

#[test]
fn without_an_entry_there_is_no_login() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    let table = [["mx.elsewhere.example", NAME, PASSWORD]];
    let mut carrier = Carrier::start_with_logins(&papers, &relay.nexthop(Port::Open), VERIFY, &table);
    carry(&relay, &carrier, "by nobody");
    assert!(relay.lines_with(&["sasl_method="]).is_empty(), "{}", relay.log());
    carrier.stop();
}

/// No login is offered: mail with an entry waits, rather than being refused for want of one.
#[test]
fn logins_that_are_not_offered_keep_the_mail() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    for (port, keys) in
        [(Port::AskForCertificate, VERIFY), (Port::LoginOverTls, "tls_security_level = \"none\"\n")]
    {
        let mut carrier = carrier(&papers, &relay, port, keys);
        carrier.send("by nobody", b"text\n");
        carrier.wait_for_deferred(&["localhost[127.0.0.1]", "dsn=4.7."]);
        carrier.stop();
    }
    // There is a login, but none that this site wants.
    let mut carrier = carrier(&papers, &relay, Port::May, "sasl_mechanism_filter = \"EXTERNAL\"");
    carrier.send("by nothing", b"text\n");
    let words = "SASL authentication failed; cannot authenticate to server localhost[127.0.0.1]";
    carrier.wait_for_deferred(&[words]);
    carrier.stop();
    assert!(relay.mailbox().is_empty());
}

#[test]
fn each_port_hears_its_own_password() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    let first = format!("localhost:{}", relay.port(Port::Encrypt));
    let second = format!("localhost:{}", relay.port(Port::LoginOverTls));
    let table = [
        [first.as_str(), LOGINS[0][0], LOGINS[0][1]],
        [second.as_str(), LOGINS[1][0], LOGINS[1][1]],
        ["localhost", "third@example.org", "canary-of-nobody"],
    ];
    let mut carrier = Carrier::start_with_logins(&papers, &relay.nexthop(Port::Encrypt), VERIFY, &table);
    carry(&relay, &carrier, "for the first");
    let nexthop = relay.nexthop(Port::LoginOverTls);
    let arguments = ["--nexthop", &nexthop, "-i", "-f", "sender@example.org", "alice@example.org"];
    carrier.site.sendmail(&arguments, &message("for the second", b"text\n"));
    carrier.wait_for_sent(2);
    for [name, _] in LOGINS {
        assert_eq!(relay.lines_with(&[&format!("sasl_username={name}")]).len(), 1, "{}", relay.log());
    }
    carrier.stop();
}

#[test]
fn delivery_without_a_queue_logs_in_too() {
    let (papers, place) = (Papers::new(), Place::new());
    let Some(relay) = Relay::start(&place, &papers, &LOGINS) else { return };
    let mut carrier = carrier(&papers, &relay, Port::Wrapped, &format!("{VERIFY}tls_wrappermode = \"yes\""));
    carrier.stop();
    let submitted = message("at once", b"text\n");
    let output = carrier.send_now("--esmtp", &format!("localhost:{}", relay.port(Port::Wrapped)), &submitted);
    let heard = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && heard.contains("status=sent (250 2.0.0 Ok: "), "{heard}");
    assert_arrived(&relay, "at once", &submitted);
    assert_eq!(mechanisms(&relay), ["SCRAM-SHA-256"]);
}
