//! The servers by themselves, with a client that shares nothing with ours: what it shows is their behaviour.

use super::carrier::{Papers, message};
use super::cyrus::Cyrus;
use super::dovecot_lmtp::dovecot;
use super::relay::{Port, Relay};
use crate::common::agent::run;
use crate::common::certificates::{Identity, Kind};
use crate::common::mailbox::assert_same;
use crate::postfix::instance::Place;

/// What the relay says to strangers.
const REFUSED: &str = "(554, b'5.7.1 <alice@example.org>: Recipient address rejected: Access denied')";
const LOGIN: [&str; 2] = ["carrier", "canary-of-a-harness"];

fn sent() -> Vec<u8> {
    message("harness", b".leading dot\n")
}

/// What the client printed, or its last line about what went wrong.
fn send(protocol: &str, way: &str, port: u16, papers: &Papers, login: &[&str]) -> Result<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/tls/client.py");
    let mut command = std::process::Command::new("python3");
    command.args([script, protocol, way, &port.to_string()]).arg(&papers.authority).args(login);
    let output = run(&mut command, &sent());
    let [said, wrong] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    if output.status.success() { Ok(said) } else { Err(wrong.lines().last().unwrap_or_default().to_owned()) }
}

fn paths(identity: &Identity) -> [&str; 2] {
    [identity.chain.to_str().unwrap(), identity.key.to_str().unwrap()]
}

#[test]
fn dovecot_speaks_tls_on_both_ports() {
    let papers = Papers::new();
    let dovecot = dovecot(&papers, "");
    let stored = |reply: Result<String, String>| assert!(reply.unwrap().starts_with("(250, b'2.0.0 <alice@"));
    stored(send("lmtp", "starttls", dovecot.port(), &papers, &[]));
    stored(send("lmtp", "wrapped", dovecot.second_port(), &papers, &[]));
    assert_eq!(dovecot.mailbox("alice").len(), 2);
    let strangers = Papers::new();
    let refused = send("lmtp", "starttls", dovecot.port(), &strangers, &[]).unwrap_err();
    assert!(refused.contains("CERTIFICATE_VERIFY_FAILED"), "{refused}");
}

#[test]
fn cyrus_takes_mail_after_a_login_alone() {
    let papers = Papers::new();
    let Some(cyrus) = Cyrus::start(&papers, &[LOGIN], "") else { return };
    let [name, password] = LOGIN;
    let refused = send("lmtp", "starttls", cyrus.port(), &papers, &[]).unwrap();
    assert!(refused.contains("430"), "{refused}");
    for (way, mechanism) in [("starttls", "PLAIN"), ("clear", "CRAM-MD5")] {
        let reply = send("lmtp", way, cyrus.port(), &papers, &[mechanism, name, password]).unwrap();
        assert!(reply.starts_with("(250, b'2.1.5 "), "{reply}");
    }
    let refused = send("lmtp", "starttls", cyrus.port(), &papers, &["PLAIN", name, "wrong"]).unwrap_err();
    assert!(refused.contains("SMTPAuthenticationError: (501, "), "{refused}");
    let stored = cyrus.mailbox("alice");
    assert_eq!(stored.len(), 2);
    stored.iter().for_each(|stored| {
        assert_same(stored, &sent(), &["Return-Path", "Received", "X-Cyrus-Session-Id", "X-Sieve"]);
    });
}

#[test]
fn the_relay_takes_mail_from_those_alone_whom_it_knows() {
    let (papers, place) = (Papers::new(), Place::new());
    let [name, password] = LOGIN;
    let Some(relay) = Relay::start(&place, &papers, &[LOGIN]) else { return };
    let mut expected = 0;
    for (port, way, login, reply) in [
        (Port::May, "clear", &["CRAM-MD5", name, password][..], "(250, b'2.0.0 Ok: queued"),
        (Port::May, "starttls", &[], REFUSED),
        // The client takes "503 authentication not enabled" for a login.
        (Port::LoginOverTls, "clear", &["PLAIN", name, password], REFUSED),
        (Port::Encrypt, "clear", &[], "(530, b'5.7.0 Must issue a STARTTLS"),
        (Port::Wrapped, "wrapped", &["PLAIN", name, password], "(250, b'2.0.0 Ok: queued"),
        (Port::RequireCertificate, "starttls", &paths(papers.of(Kind::Client)), "(250, b'2.0.0 Ok: queued"),
    ] {
        let said = send("smtp", way, relay.port(port), &papers, login).unwrap_or_else(|wrong| wrong);
        assert!(said.contains(reply), "{port:?} {way}: {said}\n{}", relay.log());
        expected += usize::from(reply.starts_with("(250"));
    }
    let stored = relay.mailbox();
    assert_eq!(stored.len(), expected, "{}", relay.log());
    let added = ["Return-Path", "X-Original-To", "Delivered-To", "Received"];
    stored.iter().for_each(|stored| assert_same(stored, &sent(), &added));
}
