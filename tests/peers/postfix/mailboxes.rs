//! A real Dovecot behind a real Postfix.
//!
//! - Owns: what arrives in mailboxes, what Dovecot's refusals become.
//! - Leaves to others: Dovecot itself (`dovecot`).

use super::client::both;
use super::instance::{Place, Postfix, Settings};
use super::mail::{header, submit, submit_with};
use super::mask::Mask;
use super::observation::{Observation, observe};
use crate::dovecot::Dovecot;

/// The part of a stored message that Postfix gave to Dovecot, masked.
fn stored(mask: &Mask, message: &[u8]) -> String {
    let text = message.escape_ascii().to_string();
    let start = text.find("Received: by mx.test.example").expect("Postfix's line is there");
    assert!(text[..start].contains("Return-Path: "), "{}", &text[..start]);
    text[start..].split(r"\n").map(|line| mask.text(line)).collect::<Vec<_>>().join("\n")
}

/// Dovecot names its sessions at random: `250 2.0.0 <alice@example.org> SESSION Saved`.
fn without_sessions(line: &str) -> String {
    let is_session = |word: &str| word.len() > 20 && !word.contains(['<', '[', '=', '@']);
    line.split(' ').map(|word| if is_session(word) { "SESSION" } else { word }).collect::<Vec<_>>().join(" ")
}

#[test]
fn dovecot_gets_the_same_from_both() {
    let pair = both(|client| {
        let (place, dovecot) = (Place::new(), Dovecot::start());
        let settings = Settings::default()
            .route("example.org", format!("unix:{}", dovecot.socket().display()))
            .route("tcp.example", format!("inet:127.0.0.1:{}", dovecot.port()));
        let postfix = Postfix::start(&place, client, settings);
        for number in 0..10 {
            submit(&postfix, &format!("one-{number}"), &["alice@example.org"]);
        }
        submit(&postfix, "several", &["alice@example.org", "bob@example.org", "carol@example.org"]);
        submit(&postfix, "mixed", &["alice@example.org", "nosuch@example.org", "full@example.org"]);
        submit(&postfix, "unknown", &["u@tcp.example"]);
        let body = format!("\n.dot\n\n{}\nGrüße\nend", "x".repeat(3000));
        let text = format!("{}{body}", header("odd"));
        submit_with(&postfix, "odd", &["-B", "8BITMIME"], &["bob@example.org"], text.as_bytes());
        postfix.settle();
        let mask = Mask::new(postfix.path(), &postfix.log());
        let mut seen = Observation::default();
        for (topic, lines) in observe(&postfix, &[]).topics {
            for line in lines {
                let line = line.replace(&dovecot.path().display().to_string(), "DOVECOT");
                seen.add(&topic, without_sessions(&line));
            }
        }
        for user in ["alice", "bob", "carol", "full"] {
            let mut mailbox: Vec<_> = dovecot.mailbox(user).iter().map(|it| stored(&mask, it)).collect();
            mailbox.sort();
            mailbox.into_iter().for_each(|message| seen.add(&format!("mailbox {user}"), message));
        }
        seen
    });
    let Some(pair) = pair else { return };
    assert_eq!(pair.ours.lines("mailbox alice").len(), 12, "{:?}", pair.ours.lines("mailbox alice"));
    assert_eq!(pair.ours.lines("mailbox bob").len(), 2, "{:?}", pair.ours.lines("mailbox bob"));
    pair.show("mixed log", &["to=<nosuch@example.org>", "dsn=5.1.1", "status=bounced"]);
    pair.show("mixed log", &["to=<full@example.org>", "dsn=5.2.2", "status=bounced"]);
    pair.agree();
}
