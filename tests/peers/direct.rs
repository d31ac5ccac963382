//! Delivery at once, without a queue, into a real Dovecot: by the name smtpc and by the word sendmail.
//!
//! - Owns: what arrives in which mailbox, and what the caller hears.
//! - Leaves to others: servers that misbehave (`it`).
//! - Always true: the command has ended before a mailbox is looked at.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use crate::common::agent::{LASTMILE, Site, run};
use crate::common::mailbox::{assert_same, header};
use crate::dovecot::Dovecot;

/// What Dovecot writes in front of a message.
const BY_DOVECOT: [&str; 3] = ["Return-Path", "Delivered-To", "Received"];

/// Calls it by the name smtpc, without any configuration.
fn smtpc(site: &Site, args: &[&str], input: &[u8]) -> Output {
    let name = site.path().join("smtpc");
    if !name.exists() {
        symlink(LASTMILE, &name).unwrap();
    }
    let mut command = Command::new(name);
    run(command.args(args).env_clear().env("LASTMILE_CONFIG", "/dev/null"), input)
}

#[track_caller]
fn lines(output: &Output, code: i32) -> Vec<String> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_megabyte_arrives_whole_over_both_sockets() {
    let (dovecot, site) = (Dovecot::start(), Site::new(""));
    let line = |number: usize| format!(".{number:07} {}\n", "0123456789".repeat(6));
    let body: String = (0..(1 << 20) / 70 + 1).map(line).collect();
    let (socket, port) = (dovecot.socket().display().to_string(), dovecot.port().to_string());
    for (at, server) in [socket, format!("127.0.0.1:{port}")].iter().enumerate() {
        let message = format!("Subject: large {at}\n\n{body}");
        assert!(message.len() > 1 << 20);
        let args = ["--lmtp", server, "-f", "sender@example.org", "alice@example.org"];
        let heard = lines(&smtpc(&site, &args, message.as_bytes()), 0);
        assert!(heard.len() == 1 && heard[0].contains("dsn=2.0.0, status=sent (250 2.0.0 "), "{heard:?}");
        let stored = dovecot.mailbox("alice");
        let subject = Some(format!("large {at}"));
        let stored = stored.iter().find(|message| header(message, "Subject") == subject).unwrap();
        assert_same(stored, message.as_bytes(), &BY_DOVECOT);
        assert_eq!(header(stored, "Return-Path").as_deref(), Some("<sender@example.org>"));
    }
    assert_eq!(dovecot.mailbox("alice").len(), 2);
}

#[test]
fn each_of_several_has_an_answer_of_its_own() {
    let (dovecot, site) = (Dovecot::start(), Site::new(""));
    let server = dovecot.socket().display().to_string();
    let users = ["alice", "nosuch", "full", "bob"].map(|user| format!("{user}@example.org"));
    let [alice, nosuch, full, bob] = users.each_ref().map(String::as_str);
    let args = ["--lmtp", &server, "-f", "", alice, nosuch, full, bob];
    let message = b"Subject: for several\n\ntext\n";
    let by_word = site.run(&[&["sendmail"], &args[..]].concat(), message);
    // The mailbox is full for good, the other user unknown: refusals that are not alike.
    for (output, code) in [(smtpc(&site, &args, message), 253), (by_word, 69)] {
        let heard = lines(&output, code);
        assert_eq!(heard.len(), 4, "{heard:?}");
        for (user, words) in [
            (alice, "status=sent (250 2.0.0 <alice@example.org> "),
            (nosuch, "dsn=5.1.1, status=bounced (host "),
            (full, "552 5.2.2 <full@example.org> "),
            (bob, "status=sent (250 2.0.0 <bob@example.org> "),
        ] {
            let of_user: Vec<_> =
                heard.iter().filter(|line| line.starts_with(&format!("to=<{user}>, "))).collect();
            assert!(of_user.len() == 1 && of_user[0].contains(words), "{heard:?}");
        }
    }
    for user in ["alice", "bob"] {
        let stored = dovecot.mailbox(user);
        assert_eq!(stored.len(), 2, "{user}");
        stored.iter().for_each(|stored| assert_same(stored, message, &BY_DOVECOT));
    }
    let unknown = smtpc(&site, &["--lmtp", &server, "-f", "", nosuch], message);
    assert_eq!(lines(&unknown, 253).len(), 1);
    let unknown = site.run(&["sendmail", "--lmtp", &server, "-f", "", nosuch], message);
    assert_eq!(lines(&unknown, 67).len(), 1);
}
