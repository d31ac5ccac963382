//! What a transport may add to content, and what it makes of some refusals.

use serde_json::json;

use super::peer::{Manner, Peer};
use super::{HURRY, Server, submit, submit_job, to_socket, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site};

#[test]
fn flags_put_their_headers_in_front_in_postfix_s_order() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "[transport.lmtp]\nflags = \"DOR\"\n");
    let agent = site.start_agent();
    let aliased = json!({"address": "b@example.org", "orcpt": "rfc822;list@x.example"});
    let job = json!({"sender": "a@example.org", "recipients": [aliased, "c@example.org"]});
    submit_job(&site, "marked", job);
    for (address, original) in [("b@example.org", "list@x.example"), ("c@example.org", "c@example.org")] {
        let found = server.only_mail_of(address);
        let added = format!(
            "Return-Path: <a@example.org>\nX-Original-To: {original}\nDelivered-To: {address}\nFrom: a@example.org\n"
        );
        assert!(found.contains(&added), "{found}");
    }
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
}

#[test]
fn mail_that_was_delivered_to_somebody_before_is_a_loop_for_them_alone() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "[transport.lmtp]\nflags = \"D\"\n");
    let agent = site.start_agent();
    let content = b"Delivered-To: B@Example.org\nSubject: again\n\nDelivered-To: c@example.org\n";
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org", "c@example.org"], content);
    let line = site.wait_for_line(&["to=<b@example.org>", "status=bounced"], SOON);
    assert!(line.contains("relay=none") && line.contains("dsn=5.4.6"), "{line}");
    assert!(line.ends_with("(mail forwarding loop for b@example.org)"), "{line}");
    server.only_mail_of("c@example.org");
    assert!(server.only_mail_of("a@example.org").contains("5.4.6"));
    assert_eq!(server.mail_of("b@example.org"), Vec::<String>::new());
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
}

#[test]
fn long_lines_are_folded_for_smtp_and_left_alone_for_lmtp() {
    let long = format!("{}{}{}", "a".repeat(998), "b".repeat(997), "c".repeat(300));
    for (transport, is_folded) in [("smtp", true), ("lmtp", false)] {
        let site = Site::new("");
        let peer = Peer::start(&site, "peer", Manner::default());
        site.configure(&format!("default_transport = \"{transport}:unix:{}\"\n", peer.socket.display()));
        let agent = site.start_agent();
        let content = format!("Subject: long\n\n{long}\n{}\nend\n", "d".repeat(998));
        site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], content.as_bytes());
        wait_until_nothing_is_left(&site, SOON);
        let lines = peer.seen().transactions.first().unwrap().content.clone();
        let longest = lines.iter().map(String::len).max().unwrap();
        assert_eq!(longest, if is_folded { 998 } else { long.len() }, "{transport}");
        // A continuation begins with a blank, which is what it takes to put the line together again.
        let together = lines.join("\r\n").replace("\r\n ", "");
        assert!(together.contains(&format!("\r\n{long}\r\n{}\r\nend", "d".repeat(998))), "{transport}");
        agent.stop();
    }
}

#[test]
fn a_full_mailbox_is_final_or_not_as_it_was_told() {
    let script =
        "data-done b@* times 1 552 5.2.2 mailbox is full\nrcpt c@* times 1 552 5.2.2 mailbox is full";
    for (keys, status, dsn) in [("", "bounced", "5.2.2"), ("over_quota = \"defer\"", "deferred", "4.2.2")] {
        let site = Site::new("");
        let server = Server::start(&site, "mail", script);
        site.configure(&to_socket(&server.socket, &format!("{HURRY}[transport.lmtp]\n{keys}\n")));
        let agent = site.start_agent();
        submit(&site, "full", &["b@example.org", "c@example.org"]);
        for address in ["b@example.org", "c@example.org"] {
            let to = format!("to=<{address}>");
            let line =
                site.wait_for_line(&[&to, "552 5.2.2 mailbox is full", &format!("status={status}")], SOON);
            assert!(line.contains(&format!("dsn={dsn}")), "{line}");
        }
        wait_until_nothing_is_left(&site, SOON);
        let arrived = ["a@example.org", "b@example.org", "c@example.org"].map(|to| server.mail_of(to).len());
        assert_eq!(arrived, if keys.is_empty() { [1, 0, 0] } else { [0, 1, 1] }, "{keys}");
        agent.stop();
    }
}
