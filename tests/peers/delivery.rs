//! Mail through the agent into a real Dovecot, byte for byte.
//!
//! - Owns: what arrives in which mailbox, what comes back to the sender, what the log says about it.
//! - Leaves to others: peers that misbehave, crashes (`it`).
//! - Always true: each test ends with an empty queue, or says what is left in it and why.

use std::time::Duration;

use serde_json::json;

use crate::common::agent::{SOON, Site};
use crate::common::mailbox::{assert_same, header};
use crate::common::process::{look_for, wait_for};
use crate::dovecot::Dovecot;

/// What Dovecot writes in front of a message.
const BY_DOVECOT: [&str; 3] = ["Return-Path", "Delivered-To", "Received"];
/// From connecting to the last mark, for one message that nothing holds up.
const DELIVERED: Duration = Duration::from_secs(30);

/// A site whose mail goes to `nexthop`. `config` starts with top-level keys.
fn site(nexthop: &str, config: &str) -> Site {
    Site::new(&format!("default_transport = \"{nexthop}\"\n{config}"))
}

/// A message with all the header fields that sendmail would add; the body follows them.
fn message(subject: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: Sender <sender@example.org>\nTo: alice@example.org\nSubject: {subject}\n\
         Date: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <{}@client.example.org>\n\n",
        subject.replace(' ', ".")
    );
    [head.as_bytes(), body].concat()
}

/// The message of that subject, once it is in the mailbox.
#[track_caller]
fn arrived(dovecot: &Dovecot, site: &Site, user: &str, subject: &str) -> Vec<u8> {
    let is_it = |message: &Vec<u8>| header(message, "Subject").as_deref() == Some(subject);
    let found = look_for(DELIVERED, || dovecot.mailbox(user).into_iter().find(is_it));
    found.unwrap_or_else(|| {
        panic!("no {subject:?} for {user}\n{}\n{}\n{:?}", site.log(), dovecot.log(), site.files())
    })
}

/// Bodies that a client gets wrong: their name and their octets.
pub fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let long = format!("{}\nshort\n{}\n", "x".repeat(5000), "y z ".repeat(1250));
    vec![
        ("plain", b"one\ntwo\n".to_vec()),
        ("empty body", Vec::new()),
        ("no last line end", b"one\ntwo".to_vec()),
        ("crlf", b"one\r\ntwo\r\n".to_vec()),
        ("blank lines at the end", b"one\n\n\n\n".to_vec()),
        ("leading dots", b".\n..\n...three\n.\n\n.end\n.\n".to_vec()),
        ("words of the protocol", b"\nQUIT\nDATA\nRSET\nMAIL FROM:<x@y>\nFrom me\n>From you\n".to_vec()),
        ("8 bit", "Grüße, żółw, 猫\n".as_bytes().iter().copied().chain(0x80..=0xff).chain(*b"\n").collect()),
        ("long lines", long.into_bytes()),
    ]
}

#[test]
fn what_sendmail_takes_is_what_the_mailbox_holds() {
    let dovecot = Dovecot::start();
    for nexthop in dovecot.nexthops() {
        let site = site(&nexthop, "");
        let agent = site.start_agent();
        let way = if nexthop.contains("unix") { "unix" } else { "tcp" };
        for (name, body) in bodies() {
            let subject = format!("{name} over {way}");
            let submitted = message(&subject, &body);
            site.sendmail(&["-i", "-f", "sender@example.org", "alice@example.org"], &submitted);
            let stored = arrived(&dovecot, &site, "alice", &subject);
            assert_same(&stored, &submitted, &BY_DOVECOT);
            assert_eq!(header(&stored, "Return-Path").as_deref(), Some("<sender@example.org>"));
        }
        let sent = ["to=<alice@example.org>", "dsn=2.0.0", "status=sent (250 2.0.0 <alice@example.org> "];
        let lines = site.wait_for_lines(bodies().len(), &sent, DELIVERED);
        assert!(lines.iter().all(|line| line.ends_with(" Saved)")), "{lines:?}");
        site.wait_until_empty(DELIVERED);
        assert_eq!(site.wait_for_lines(bodies().len(), &[": removed"], DELIVERED).len(), bodies().len());
        agent.stop();
    }
}

#[test]
fn a_bare_file_arrives_as_it_was_dropped() {
    let dovecot = Dovecot::start();
    // The job line names where the mail goes; the default leads nowhere.
    let site = site("unix:/nonexistent/lmtp", "");
    let agent = site.start_agent();
    for (at, nexthop) in dovecot.nexthops().iter().enumerate() {
        for (number, (name, body)) in bodies().into_iter().enumerate() {
            let subject = format!("{name} by file {at}");
            let submitted = message(&subject, &body);
            let queue_file = site.drop_message(&format!("m-{at}-{number}"), &submitted);
            site.write_job(&json!({
                "queue_file": queue_file, "sender": "sender@example.org",
                "nexthop": nexthop, "recipients": ["bob@example.org"],
            }));
            // Only Dovecot adds anything: a bare file is not a submission by sendmail.
            assert_same(&arrived(&dovecot, &site, "bob", &subject), &submitted, &BY_DOVECOT);
        }
    }
    site.wait_until_empty(DELIVERED);
    agent.stop();
}

#[test]
fn each_of_many_recipients_gets_one_copy() {
    let dovecot = Dovecot::start();
    for nexthop in dovecot.nexthops() {
        let site = site(&nexthop, "");
        let agent = site.start_agent();
        let submitted = message(&format!("to many by {nexthop}"), b"text\n");
        let subject = header(&submitted, "Subject").unwrap();
        let queue_file = site.drop_message("many", &submitted);
        site.write_job(&json!({
            "queue_file": queue_file, "sender": "",
            "recipients": ["alice@example.org", {"address": "bob@example.org"}, "carol@example.org"],
        }));
        for user in ["alice", "bob", "carol"] {
            let stored = arrived(&dovecot, &site, user, &subject);
            assert_same(&stored, &submitted, &BY_DOVECOT);
            assert_eq!(header(&stored, "Return-Path").as_deref(), Some("<>"));
        }
        site.wait_until_empty(DELIVERED);
        for user in ["alice", "bob", "carol"] {
            let copies = dovecot
                .mailbox(user)
                .iter()
                .filter(|m| header(m, "Subject").as_ref() == Some(&subject))
                .count();
            assert_eq!(copies, 1, "{user}");
            let parts = [&format!("to=<{user}@example.org>")[..], "status=sent"];
            assert_eq!(site.wait_for_lines(1, &parts, DELIVERED).len(), 1);
        }
        agent.stop();
    }
}

/// The one bounce in the sender's mailbox, once it is there.
#[track_caller]
fn bounce(dovecot: &Dovecot, site: &Site) -> String {
    wait_for("the bounce's log line", DELIVERED, || {
        site.lines_with(&["to=<sender@example.org>", "status=sent (250 2.0.0 "]).pop()
    });
    let mut mail = dovecot.mailbox("sender");
    assert_eq!(mail.len(), 1, "{}", site.log());
    let bounce = mail.pop().unwrap();
    let kind = header(&bounce, "Content-Type").unwrap();
    assert!(kind.starts_with("multipart/report") && kind.contains("delivery-status"), "{kind}");
    assert_eq!(header(&bounce, "Return-Path").as_deref(), Some("<>"));
    String::from_utf8(bounce).unwrap()
}

#[test]
fn an_unknown_user_s_mail_returns_to_its_sender() {
    for way in 0..2 {
        let dovecot = Dovecot::start();
        let site = site(&dovecot.nexthops()[way], "");
        let agent = site.start_agent();
        let addresses = ["-i", "-f", "sender@example.org", "alice@example.org", "nosuch@example.org"];
        site.sendmail(&addresses, &message("for two", b"the text\n"));
        let line = site.wait_for_line(&["to=<nosuch@example.org>", "status=bounced"], DELIVERED);
        assert!(
            line.contains("dsn=5.1.1") && line.contains("said: 550 5.1.1 <nosuch@example.org> "),
            "{line}"
        );
        assert!(line.ends_with("(in reply to RCPT TO command))"), "{line}");
        arrived(&dovecot, &site, "alice", "for two");
        let bounce = bounce(&dovecot, &site);
        for part in [
            "Final-Recipient: rfc822; nosuch@example.org\n",
            "Action: failed\n",
            "Status: 5.1.1\n",
            "Diagnostic-Code: ",
            "550 5.1.1",
            "Reporting-MTA: dns; mx.example.org\n",
            "Subject: for two\n",
        ] {
            assert!(bounce.contains(part), "{part:?} is missing:\n{bounce}");
        }
        // Who got the mail is nobody's failure.
        assert!(!bounce.contains("Final-Recipient: rfc822; alice@example.org"), "{bounce}");
        site.wait_until_empty(DELIVERED);
        agent.stop();
    }
}

#[test]
fn mail_for_a_full_mailbox_bounces() {
    let dovecot = Dovecot::start();
    let site = site(&dovecot.nexthops()[0], "");
    let agent = site.start_agent();
    let addresses = ["-i", "-f", "sender@example.org", "full@example.org", "alice@example.org"];
    site.sendmail(&addresses, &message("for a full mailbox", b"text\n"));
    let line = site.wait_for_line(&["to=<full@example.org>", "status=bounced"], DELIVERED);
    assert!(line.contains("dsn=5.2.2") && line.contains("said: 552 5.2.2 <full@example.org> "), "{line}");
    let bounce = bounce(&dovecot, &site);
    assert!(bounce.contains("Status: 5.2.2\n") && bounce.contains("552 5.2.2"), "{bounce}");
    arrived(&dovecot, &site, "alice", "for a full mailbox");
    site.wait_until_empty(DELIVERED);
    agent.stop();
}

#[test]
fn mail_for_a_full_mailbox_waits_where_the_site_wants_it() {
    let dovecot = Dovecot::start();
    let site = site(&dovecot.nexthops()[0], "[transport.lmtp]\nover_quota = \"defer\"");
    let agent = site.start_agent();
    let addresses = ["-i", "-f", "sender@example.org", "full@example.org", "alice@example.org"];
    site.sendmail(&addresses, &message("for later", b"text\n"));
    let line = site.wait_for_line(&["to=<full@example.org>", "status=deferred"], DELIVERED);
    assert!(line.contains("dsn=4.2.2") && line.contains("552 5.2.2"), "{line}");
    arrived(&dovecot, &site, "alice", "for later");
    let is_deferred = || site.files().iter().any(|file| file.starts_with("deferred/")).then_some(());
    wait_for("the message in deferred/", SOON, is_deferred);
    let queued = site.queued();
    assert_eq!(queued.len(), 1, "{queued:?}");
    assert!(queued[0].to_string().contains("full@example.org"), "{queued:?}");
    agent.stop();
    assert!(dovecot.mailbox("sender").is_empty());
}

#[test]
fn twenty_megabytes_arrive_whole() {
    let dovecot = Dovecot::start();
    let line = |number: usize| format!("{number:07} {}\n", "0123456789".repeat(7));
    let body: String = (0..20 * 1024 * 1024 / 79).map(line).collect();
    for (at, nexthop) in dovecot.nexthops().iter().enumerate() {
        let site = site(nexthop, "");
        let agent = site.start_agent();
        let subject = format!("large {at}");
        let submitted = message(&subject, body.as_bytes());
        site.sendmail(&["-i", "-f", "sender@example.org", "alice@example.org"], &submitted);
        site.wait_for_line(&["to=<alice@example.org>", "status=sent (250 2.0.0 "], DELIVERED);
        assert_same(&arrived(&dovecot, &site, "alice", &subject), &submitted, &BY_DOVECOT);
        site.wait_until_empty(DELIVERED);
        agent.stop();
    }
}

#[test]
fn one_connection_carries_one_message_after_the_other() {
    let dovecot = Dovecot::start();
    let site = site(&dovecot.nexthops()[0], "workers = 1\nworkers_reserved = 0");
    let agent = site.start_agent();
    for number in 1..=5 {
        site.sendmail(&["-i", "-f", "sender@example.org", "alice@example.org"], &message("again", b"text\n"));
        site.wait_for_lines(number, &["to=<alice@example.org>", "status=sent"], DELIVERED);
    }
    let lines = site.lines_with(&["to=<alice@example.org>", "status=sent"]);
    assert!(!lines[0].contains("conn_use="), "{lines:?}");
    assert!(lines[4].contains("conn_use=5"), "{lines:?}");
    site.wait_until_empty(DELIVERED);
    agent.stop();
}

#[test]
fn a_server_that_was_restarted_is_found_again_without_loss() {
    let mut dovecot = Dovecot::start();
    for (at, nexthop) in dovecot.nexthops().iter().enumerate() {
        let patience =
            "minimal_backoff_time = \"1s\"\nmaximal_backoff_time = \"2s\"\nqueue_run_delay = \"1s\"";
        let site = site(nexthop, patience);
        let agent = site.start_agent();
        let send = |subject: &str| {
            let arguments = ["-i", "-f", "sender@example.org", "alice@example.org"];
            site.sendmail(&arguments, &message(subject, b"text\n"));
        };
        send(&format!("before {at}"));
        arrived(&dovecot, &site, "alice", &format!("before {at}"));
        // The cached connection is stale now: nothing may be lost, deferred or doubled.
        dovecot.stop();
        dovecot.start_again();
        send(&format!("after {at}"));
        arrived(&dovecot, &site, "alice", &format!("after {at}"));
        // Nobody is there: the mail is deferred and the destination rests, both for a second.
        dovecot.stop();
        send(&format!("while away {at}"));
        std::thread::sleep(Duration::from_millis(500));
        dovecot.start_again();
        arrived(&dovecot, &site, "alice", &format!("while away {at}"));
        site.wait_until_empty(DELIVERED);
        assert_eq!(dovecot.mailbox("alice").len(), 3 * (at + 1));
        agent.stop();
    }
}
