//! Logins to a real Cyrus lmtpd, which takes no mail over TCP without one.
//!
//! - Owns: each mechanism with Cyrus's SASL library at the other end, what arrives, what keeps mail waiting.
//! - Leaves to others: Cyrus itself (`cyrus`), mechanisms that it does not have (`submission`).
//! - Always true: Cyrus's own notes are the witness for who has logged in.

use super::carrier::{Carrier, DELIVERED, Papers, message, showing};
use super::cyrus::Cyrus;
use crate::common::certificates::{CLIENT, Kind};
use crate::common::mailbox::{assert_same, header};
use crate::delivery::bodies;

/// What Cyrus writes in front of a message.
const BY_CYRUS: [&str; 4] = ["Return-Path", "Received", "X-Sieve", "X-Cyrus-Session-Id"];
/// Who may deliver, by which password.
const CARRIER: [&str; 2] = ["carrier", "canary-of-Cyrus-1"];
const SECOND: [&str; 2] = ["second", "canary-of-Cyrus-2"];
const VERIFY: &str = "tls_security_level = \"verify\"\n";

/// A site that logs in as the carrier, under a key of the table.
fn carrier(papers: &Papers, cyrus: &Cyrus, key: &str, keys: &str) -> Carrier {
    let [name, password] = CARRIER;
    Carrier::start_with_logins(papers, &cyrus.nexthop(), keys, &[[key, name, password]])
}

/// Sends one message and sees it arrive as it was: the line in front that tells who sent it.
#[track_caller]
fn carry(cyrus: &Cyrus, carrier: &Carrier, subject: &str, body: &[u8]) -> String {
    let before = carrier.site.lines_with(&["status=sent"]).len();
    let submitted = carrier.send(subject, body);
    carrier.wait_for_sent(before + 1);
    arrived(cyrus, subject, &submitted)
}

/// The line that tells who sent a message, which has arrived as it was.
#[track_caller]
fn arrived(cyrus: &Cyrus, subject: &str, submitted: &[u8]) -> String {
    let mut found = cyrus.mailbox("alice");
    found.retain(|message| header(message, "Subject").as_deref() == Some(subject));
    assert_eq!(found.len(), 1, "{subject:?}");
    assert_same(&found[0], submitted, &BY_CYRUS);
    header(&found[0], "Received").unwrap()
}

/// The mechanisms that were tried, in their order.
fn mechanisms(carrier: &Carrier) -> Vec<String> {
    let lines = carrier.site.lines_with(&["> AUTH "]);
    let name = |line: &String| line.split("> AUTH ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    lines.iter().map(name).collect()
}

#[test]
fn every_mechanism_lets_mail_in() {
    let papers = Papers::new();
    let Some(cyrus) = Cyrus::start(&papers, &[CARRIER], "") else { return };
    let mut logins = 0;
    for (mechanism, keys) in [
        ("SCRAM-SHA-256", VERIFY),
        ("SCRAM-SHA-1", VERIFY),
        ("CRAM-MD5", VERIFY),
        ("PLAIN", VERIFY),
        ("LOGIN", VERIFY),
        // No secret goes over the wire as it is: so it may go without TLS.
        ("SCRAM-SHA-256", "tls_security_level = \"none\"\n"),
        ("SCRAM-SHA-1", "tls_security_level = \"none\"\n"),
        ("CRAM-MD5", "tls_security_level = \"none\"\n"),
        ("CRAM-MD5", "tls_security_level = \"encrypt\"\n"),
    ] {
        let keys = format!("{keys}sasl_mechanism_filter = \"{mechanism}\"");
        let mut carrier = carrier(&papers, &cyrus, "localhost", &keys);
        let subject = format!("by {mechanism}, {}", keys.lines().next().unwrap().replace('"', ""));
        let by = carry(&cyrus, &carrier, &subject, b"text\n");
        // RFC 3848 and its registry: with a login, and perhaps over TLS.
        assert!(by.contains(if keys.contains("none") { " LMTPA" } else { " LMTPSA" }), "{by}");
        logins += 1;
        assert_eq!(cyrus.logins("carrier"), logins);
        carrier.site.wait_for_line(&[&cyrus.name(), &format!("> AUTH {mechanism}")], DELIVERED);
        carrier.site.wait_until_empty(DELIVERED);
        carrier.stop();
    }
}

#[test]
fn the_strongest_mechanism_is_taken_and_one_login_serves_all_mail() {
    let papers = Papers::new();
    let Some(cyrus) = Cyrus::start(&papers, &[CARRIER], "") else { return };
    let mut carrier = carrier(&papers, &cyrus, "localhost", VERIFY);
    for (name, body) in bodies() {
        carry(&cyrus, &carrier, name, &body);
    }
    carrier.assert_connection("Verified", &cyrus.name());
    assert_eq!(cyrus.logins("carrier"), 1);
    // Cyrus 3.6 offers -PLUS, and knows none of the bindings of TLS 1.3.
    assert_eq!(mechanisms(&carrier), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    carrier.site.wait_until_empty(DELIVERED);
    carrier.stop();
    // Of a server that has not proved who it is this may be a man in the middle's doing: then nothing goes on without.
    let mut carrier = self::carrier(&papers, &cyrus, "localhost", "tls_security_level = \"encrypt\"");
    carrier.send("to whom it may concern", b"text\n");
    carrier.wait_for_deferred(&["SASL authentication failed; server localhost[127.0.0.1] said: 501 "]);
    assert_eq!(mechanisms(&carrier), ["SCRAM-SHA-256-PLUS"]);
    carrier.stop();
}

#[test]
fn a_wrong_password_keeps_the_mail_and_rests_the_server() {
    let papers = Papers::new();
    let Some(cyrus) = Cyrus::start(&papers, &[CARRIER], "") else { return };
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        let keys = format!("{VERIFY}sasl_mechanism_filter = \"{mechanism}\"");
        let table = [["localhost", "carrier", "not-the-canary"]];
        let mut carrier = Carrier::start_with_logins(&papers, &cyrus.nexthop(), &keys, &table);
        carrier.send("with a wrong password", b"text\n");
        let words = "SASL authentication failed; server localhost[127.0.0.1]";
        carrier.wait_for_deferred(&[words, "said: 501 5.5.4 ", "dsn=4.5.4"]);

        carrier.stop();
    }
    assert!(cyrus.mailbox("alice").is_empty());
}

/// Two servers, reached by different names, with one table: each hears its own password.
#[test]
fn each_server_hears_its_own_password() {
    let papers = Papers::new();
    let Some(first) = Cyrus::start(&papers, &[CARRIER], "") else { return };
    let Some(other) = Cyrus::start(&papers, &[SECOND], "") else { return };
    let second = format!("lmtp:inet:[127.0.0.1]:{}", other.port());
    let (first_key, second_key) =
        (format!("localhost:{}", first.port()), format!("[127.0.0.1]:{}", other.port()));
    let table = [
        ["localhost", "nobody", "canary-of-nobody"],
        [first_key.as_str(), CARRIER[0], CARRIER[1]],
        [second_key.as_str(), SECOND[0], SECOND[1]],
    ];
    let mut carrier = Carrier::start_with_logins(&papers, &first.nexthop(), VERIFY, &table);
    carry(&first, &carrier, "for the first", b"text\n");
    let submitted = message("for the second", b"text\n");
    let arguments = ["--nexthop", &second, "-i", "-f", "sender@example.org", "alice@example.org"];
    carrier.site.sendmail(&arguments, &submitted);
    carrier.wait_for_sent(2);
    arrived(&other, "for the second", &submitted);
    assert_eq!((first.mailbox("alice").len(), other.mailbox("alice").len()), (1, 1));
    assert_eq!((first.logins("carrier"), first.logins("second")), (1, 0));
    assert_eq!((other.logins("carrier"), other.logins("second")), (0, 1));
    carrier.stop();
}

#[test]
fn without_an_entry_there_is_no_login() {
    let papers = Papers::new();
    let Some(cyrus) = Cyrus::start(&papers, &[CARRIER], "") else { return };
    let mut carrier = carrier(&papers, &cyrus, "mx.elsewhere.example", VERIFY);
    carrier.send("by nobody", b"text\n");
    // The server's answer to MAIL.
    carrier.wait_for_deferred(&["said: 430 ", "(in reply to MAIL FROM command)"]);
    assert!(carrier.site.lines_with(&["> AUTH"]).is_empty(), "{}", carrier.site.log());
    carrier.stop();
}

/// The password changes: the agent hears of it by HUP.
#[test]
fn a_new_password_is_taken_up_without_a_restart() {
    let papers = Papers::new();
    let Some(cyrus) = Cyrus::start(&papers, &[CARRIER], "") else { return };
    let patience = "sasl_mechanism_filter = \"CRAM-MD5\"";
    let table = [["localhost", "carrier", "not-the-canary"]];
    let keys = format!("{VERIFY}{patience}");
    let mut carrier = Carrier::start_with_logins(&papers, &cyrus.nexthop(), &keys, &table);
    let submitted = carrier.send("by the new password", b"text\n");
    carrier.wait_for_deferred(&["SASL authentication failed; server localhost[127.0.0.1]"]);
    carrier.write_logins(&[["localhost", CARRIER[0], CARRIER[1]]]);
    carrier.agent().signal(rustix::process::Signal::HUP);
    carrier.site.wait_for_line(&["the configuration was read again"], DELIVERED);
    let output = carrier.site.run(&["queue", "flush"], b"");
    assert!(output.status.success(), "{output:?}");
    carrier.site.wait_for_line(&["to=<alice@example.org>", "status=sent (250 2.1.5 "], DELIVERED);
    arrived(&cyrus, "by the new password", &submitted);
    carrier.stop();
}

#[test]
fn plain_passwords_go_to_no_server_that_has_not_proved_who_it_is() {
    let papers = Papers::new();
    let more = "sasl_mech_list: PLAIN LOGIN\nallowplaintext: yes\n";
    let Some(cyrus) = Cyrus::start(&papers, &[CARRIER], more) else { return };
    for keys in ["tls_security_level = \"none\"", "tls_security_level = \"encrypt\""] {
        let mut carrier = carrier(&papers, &cyrus, "localhost", keys);
        carrier.send("not in clear", b"text\n");
        let words = "SASL authentication failed; cannot authenticate to server localhost[127.0.0.1]";
        carrier.wait_for_deferred(&[words]);
        assert!(carrier.site.lines_with(&["> AUTH"]).is_empty(), "{}", carrier.site.log());
        carrier.stop();
    }
    // Who wants it says so.
    for (at, keys) in [
        "tls_security_level = \"none\"\nsasl_security_options = \"noanonymous\"",
        "tls_security_level = \"encrypt\"\nsasl_tls_security_options = \"noanonymous\"",
    ]
    .into_iter()
    .enumerate()
    {
        let mut carrier = carrier(&papers, &cyrus, "localhost", keys);
        carry(&cyrus, &carrier, &format!("allowed {at}"), b"text\n");
        assert_eq!(cyrus.logins("carrier"), at + 1);
        carrier.stop();
    }
}

#[test]
fn a_certificate_is_a_login_by_external() {
    let papers = Papers::new();
    let more = "sasl_mech_list: EXTERNAL CRAM-MD5\ntls_client_certs: require\n";
    let Some(cyrus) = Cyrus::start(&papers, &[CARRIER], more) else { return };
    let keys = format!("{VERIFY}{}", showing(papers.of(Kind::Client)));
    let table = [["localhost", "", ""]];
    let mut carrier = Carrier::start_with_logins(&papers, &cyrus.nexthop(), &keys, &table);
    carry(&cyrus, &carrier, "by certificate", b"text\n");
    assert_eq!(cyrus.logins(CLIENT), 1);
    carrier.site.wait_for_line(&["> AUTH EXTERNAL"], DELIVERED);
    carrier.stop();
    // This server insists: without a certificate there is no connection, and the mail waits.
    let mut carrier = self::carrier(&papers, &cyrus, "localhost", VERIFY);
    carrier.send("without a certificate", b"text\n");
    carrier.wait_for_deferred(&["localhost[127.0.0.1]", "dsn=4."]);
    carrier.stop();
    assert_eq!(cyrus.mailbox("alice").len(), 1);
}

#[test]
fn delivery_without_a_queue_logs_in_too() {
    let papers = Papers::new();
    let Some(cyrus) = Cyrus::start(&papers, &[CARRIER], "") else { return };
    let mut carrier = carrier(&papers, &cyrus, "localhost", VERIFY);
    carrier.stop();
    let submitted = message("at once", b"text\n");
    let output = carrier.send_now("--lmtp", &format!("localhost:{}", cyrus.port()), &submitted);
    let heard = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && heard.contains("status=sent (250 2.1.5 "), "{heard}");
    assert!(!heard.contains(CARRIER[1]), "{heard}");
    arrived(&cyrus, "at once", &submitted);
    assert_eq!(cyrus.logins("carrier"), 1);
}
