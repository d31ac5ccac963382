//! What qmgr(8) is told of a request, octet by octet, and what is in the queue file then.

use lastmile::mail::Server;
use lastmile::sink::Extension;

use super::queue::{CONTENT, Caller, DONE, KEPT, Message, RELAY, Site, Wish, is_locked, kept_and_spared};
use crate::common::agent::SOON;
use crate::common::process::look_for;
use crate::support::{ScriptedPeer, Step};

/// Nobody listens there.
const NOWHERE: &str = "unix:private/nobody";
const NOT_FOUND: &str = "connect to mx.example.org[private/nobody]: No such file or directory";

#[test]
fn the_answer_tells_whether_the_message_and_its_destination_are_good() {
    let lost = |stage: &str| {
        kept_and_spared("4.4.2", &format!("lost connection with mx.example.org[private/lmtp] while {stage}"))
    };
    for (script, answer, records) in [
        ("", DONE.to_owned(), "DD"),
        ("rcpt b@* 450 4.2.1 busy", KEPT.to_owned(), "DR"),
        ("rcpt b@* 550 5.1.1 no such user", DONE.to_owned(), "DD"),
        ("rcpt * 450 4.2.1 busy", KEPT.to_owned(), "RR"),
        ("mail * 451 4.3.0 not now", KEPT.to_owned(), "RR"),
        ("data 451 4.3.0 not now", KEPT.to_owned(), "RR"),
        ("data-done b@* 452 4.2.2 full", KEPT.to_owned(), "DR"),
        (
            "greeting 421 4.3.2 go away",
            kept_and_spared(
                "4.3.2",
                "host mx.example.org[private/lmtp] refused to talk to me: 421 4.3.2 go away",
            ),
            "RR",
        ),
        ("greeting close", lost("receiving the initial server greeting"), "RR"),
        ("rcpt b@* close", lost("sending RCPT TO"), "RR"),
        (
            "data-done a@* close-after",
            lost("sending end of data -- message may be sent more than once"),
            "DR",
        ),
        // Nobody is left to be deferred.
        ("data-done b@* close-after", DONE.to_owned(), "DD"),
    ] {
        let site = Site::start("lmtp_connection_reuse_count_limit = 1");
        let _server = site.serve_with(script, |config| config.without = vec![Extension::Chunking]);
        let message = site.queue("3C0A1", &["a@example.org", "b@example.org"]);
        assert_eq!(site.deliver(&message), answer, "{script}");
        assert_eq!(message.records(), records, "{script}");
    }
}

#[test]
fn a_destination_that_cannot_be_reached_is_to_be_spared_but_not_for_a_probe() {
    let mut site = Site::start("");
    let wish = |flags| Wish { flags, nexthop: NOWHERE, ..Wish::default() };
    let message = site.queue("3C0A1", &["a@example.org"]);
    assert_eq!(site.ask(&message, &wish(3)), kept_and_spared("4.4.1", NOT_FOUND));
    assert_eq!(message.records(), "R");
    let line = site.line_of(&message, "a@example.org");
    assert!(
        line.ends_with(&format!("dsn=4.4.1, status=deferred ({NOT_FOUND})"))
            && line.contains(" relay=none, ")
    );
    let offset = message.recipients[0].1;
    let expected = format!(
        "nrequest~0~flags~0~queue_id~3C0A1~original_recipient~~recipient~a@example.org~offset~{offset}~\
         dsn_orig_rcpt~~notify_flags~0~status~4.4.1~diag_type~~diag_text~~mta_type~~mta_mname~~action~delayed~\
         reason~{NOT_FOUND}~~"
    );
    assert_eq!(site.defer.heard(), [expected]);
    let message = site.queue("3C0A2", &["a@example.org"]);
    assert_eq!(site.ask(&message, &wish(259)), DONE);
    assert_eq!(message.records(), "D");
    let expected = format!("request~update~address~a@example.org~recipient_status~1~reason~{NOT_FOUND}~~");
    assert_eq!(site.verify.heard(), [expected]);
    assert_eq!(site.ask(&site.queue("3C0A3", &["a@example.org"]), &wish(515)), DONE);
    assert_eq!((site.trace.heard().len(), site.defer.heard().len()), (1, 1));
}

#[test]
fn a_destination_is_not_spared_once_a_transaction_has_ended() {
    let site = Site::start("");
    // One recipient at a time: the second one is told to come again, and then the server is gone.
    let _server = site.serve_with("mail * after 1 close", |config| config.recipient_limit = 1);
    let message = site.queue("3C0A1", &["a@example.org", "b@example.org"]);
    assert_eq!(site.deliver(&message), KEPT);
    assert_eq!(message.records(), "DR");
    assert!(site.defer.heard()[0].contains("~status~4.4.2~"), "{:?}", site.defer.heard());
}

#[test]
fn a_message_that_is_not_to_be_delivered_is_left_alone() {
    let site = Site::start("");
    let server = site.serve("");
    let message = site.queue("3C0A1", &["a@example.org"]);
    message.set_mode(0o600);
    assert_eq!(site.deliver(&message), KEPT);
    message.set_mode(0o700);
    let lock = std::fs::File::open(&message.path).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(site.deliver(&message), KEPT);
    drop(lock);
    assert_eq!(message.records(), "R");
    std::fs::remove_file(&message.path).unwrap();
    assert_eq!(site.deliver(&message), KEPT);
    for name in ["../etc/main", "", "A B", "active/3C0A1"] {
        let mut stranger = site.queue("3C0A4", &["a@example.org"]);
        stranger.id = name.to_owned();
        assert_eq!(site.deliver(&stranger), KEPT, "{name:?}");
    }
    let mut site = site;
    for part in [
        "3C0A1: queue file active/3C0A1 is not to be delivered: its mode says",
        "3C0A1: queue file active/3C0A1 is locked by another process",
        "3C0A1: queue file active/3C0A1 does not exist",
        "\"../etc/main\" is not a queue ID",
    ] {
        site.master.wait_for_line(&["warning: ", part, "the message is left to the queue manager"]);
    }
    assert_eq!(server.counts().connections, 0);
    for daemon in [&site.bounce, &site.defer] {
        assert!(daemon.heard().is_empty());
    }
}

#[test]
fn a_corrupt_message_is_returned_and_set_aside_before_a_server_hears_of_it() {
    let mut site = Site::start("");
    let server = site.serve("");
    let message = site.queue("3C0A1", &["a@example.org", "b@example.org"]);
    message.damage();
    assert_eq!(site.deliver(&message), DONE);
    assert_eq!((message.records().as_str(), message.mode()), ("DD", 0o400));
    let heard = site.bounce.heard();
    let part = "~status~5.3.0~diag_type~~diag_text~~mta_type~~mta_mname~~action~failed~reason~unreadable mail queue entry~~";
    assert!(heard.len() == 2 && heard.iter().all(|heard| heard.ends_with(part)), "{heard:?}");
    let line = site.line_of(&message, "a@example.org");
    assert!(
        line.contains("relay=none, ")
            && line.ends_with("dsn=5.3.0, status=bounced (unreadable mail queue entry)")
    );
    site.master.wait_for_line(&["warning: corrupted queue file: active/3C0A1"]);
    // Who cannot be told that it comes back keeps it.
    site.bounce.refuse();
    let message = site.queue("3C0A2", &["a@example.org"]);
    message.damage();
    assert_eq!(site.deliver(&message), KEPT);
    assert_eq!((message.records().as_str(), message.mode()), ("R", 0o700));
    assert!(site.defer.heard()[0].contains("~status~4.3.0~"));
    assert!(site.defer.heard()[0].ends_with("~reason~bounce or trace service failure~~"));
    assert_eq!(server.counts().connections, 0);
}

#[test]
fn who_has_no_record_and_who_is_not_to_be_marked_is_not_marked() {
    let site = Site::start("");
    let _server = site.serve("rcpt no@* 550 5.1.1 no such user");
    let message = site.queue("3C0A1", &["a@example.org", "no@example.org"]);
    // Without the flag, success is not marked, but what comes back is.
    assert_eq!(site.ask(&message, &Wish { flags: 2, ..Wish::default() }), DONE);
    assert_eq!(message.records(), "RD");
    let message = site.queue("3C0A2", &["a@example.org", "no@example.org"]);
    let before = std::fs::read(&message.path).unwrap();
    assert_eq!(site.ask(&message, &Wish { has_records: false, ..Wish::default() }), DONE);
    assert_eq!(std::fs::read(&message.path).unwrap(), before);
    assert!(site.bounce.heard()[1].contains("~offset~18446744073709551615~"), "{:?}", site.bounce.heard());
    assert_eq!(site.mail_of("a@example.org").len(), 2);
}

#[test]
fn an_older_postfix_is_greeted_in_its_own_way() {
    let site = Site::start("mail_version = 3.5.25");
    let _server = site.serve("");
    let message = site.queue("3C0A1", &["a@example.org"]);
    let mut caller = Caller::begin(&site.master);
    caller.hear_announcement("status~0~~");
    caller.say(&message.request(&Wish::default()));
    assert_eq!(caller.answer(), DONE);
}

#[test]
fn addresses_that_cannot_be_said_are_returned_beside_those_that_can() {
    let mut site = Site::start("");
    let server = site.serve("");
    let path = site.master.queue().join("active/3C0A1");
    let message =
        Message::write_octets(&path, "3C0A1", &[b"a@example.org", b"b\xff@example.org", b"c\rd@example.org"]);
    assert_eq!(site.deliver(&message), DONE);
    assert_eq!(message.records(), "DDD");
    let heard = site.bounce.heard();
    assert!(heard.len() == 2 && heard.iter().all(|heard| heard.contains("~status~5.1.3~")), "{heard:?}");
    site.master.wait_for_line(&[
        "3C0A1: to=<",
        "relay=none, ",
        "dsn=5.1.3, status=bounced (bad recipient address syntax: ",
    ]);
    let message = site.queue("3C0A2", &["a@example.org", "b@example.org"]);
    let wish = Wish { sender: b"\xff@example.org", ..Wish::default() };
    assert_eq!(site.ask(&message, &wish), DONE);
    assert_eq!(message.records(), "DD");
    assert!(site.bounce.heard()[2..].iter().all(|heard| heard.contains("~status~5.1.7~")));
    let only_bad = Message::write_octets(&path, "3C0A1", &[b"\n@example.org"]);
    assert_eq!(site.deliver(&only_bad), DONE);
    assert_eq!((server.counts().messages, site.bounce.heard().len()), (1, 5));
    // The same if bounce(8) says no: then they stay, and so does the message.
    site.bounce.refuse();
    let message = Message::write_octets(&path, "3C0A1", &[b"a@example.org", b"b\xff@example.org"]);
    assert_eq!(site.deliver(&message), KEPT);
    assert_eq!(message.records(), "DR");
}

/// A server that takes one message to one recipient in these commands.
fn server_hearing(site: &Site, mail: &str, rcpt: &str) -> ScriptedPeer {
    let say = |reply: &str| Step::Say(format!("{reply}\r\n").into_bytes());
    let hear = |command: &str| Step::Hear(command.to_owned());
    let mut steps = vec![Step::Accept, say("220 ready"), hear("LHLO mx.example.org"), say("250 hello")];
    for command in [mail, rcpt] {
        steps.extend([hear(command), say("250 ok")]);
    }
    let message = [hear("DATA"), say("354 go ahead"), Step::HearMessage(None), say("250 2.0.0 stored")];
    steps.extend(message);
    steps.push(Step::HearClose { may_quit: true });
    let path = site.master.queue().join("private/lmtp");
    let contents = vec![CONTENT.as_bytes().to_vec()];
    ScriptedPeer::start(&Server::Unix(path), (1..).zip(steps).collect(), contents).unwrap()
}

#[test]
fn an_address_without_a_local_part_goes_on_as_it_came() {
    for (sender, recipient, mail, rcpt) in [
        (&b"s@x.example"[..], "@example.org", "MAIL FROM:<s@x.example>", "RCPT TO:<\"\"@example.org>"),
        (b"@x.example", "a@example.org", "MAIL FROM:<\"\"@x.example>", "RCPT TO:<a@example.org>"),
    ] {
        let mut site = Site::start("");
        let server = server_hearing(&site, mail, rcpt);
        let message = site.queue("3C0A1", &[recipient]);
        assert_eq!(site.ask(&message, &Wish { sender, ..Wish::default() }), DONE, "{mail} {rcpt}");
        let (_, written) = rcpt.split_once(':').unwrap();
        let line = site.line_of(&message, written.trim_matches(['<', '>']));
        assert!(line.contains("status=sent (250 2.0.0 stored)"), "{line}");
        assert_eq!(message.records(), "D");
        // The service closes its connection when it ends.
        drop(site);
        server.finish().unwrap();
    }
}

#[test]
fn next_hops_that_lead_nowhere_defer_the_mail() {
    let mut site = Site::start("");
    for (id, nexthop) in [("3C0A1", "inet:[::1"), ("3C0A2", "unix:"), ("3C0A3", "[127.0.0.1]:0")] {
        let message = site.queue(id, &["a@example.org", "b@example.org"]);
        let answer = site.ask(&message, &Wish { nexthop, ..Wish::default() });
        // qmgr(8) need not send more of it before somebody has looked.
        assert!(answer.starts_with("status~4.3.5~") && answer.ends_with("~status~4294967295~~"), "{answer}");
        assert_eq!(message.records(), "RR");
        let line = site.line_of(&message, "b@example.org");
        assert!(line.contains(" relay=none, ") && line.contains(" status=deferred ("), "{line}");
    }
    assert_eq!(site.defer.heard().len(), 6);
    assert!(
        site.defer.heard().iter().all(|heard| heard.contains("~status~4.3.5~")),
        "{:?}",
        site.defer.heard()
    );
}

#[test]
fn header_fields_of_flags_need_one_recipient() {
    let mut site = Site::start_with("", &["flags=DORX"]);
    let _server = site.serve_with("", |config| config.without = vec![Extension::Dsn]);
    let message = site.queue("3C0A1", &["a@example.org", "b@example.org"]);
    assert_eq!(site.deliver(&message), KEPT);
    let line = site.line_of(&message, "b@example.org");
    assert!(
        line.contains(" relay=lastmile, ")
            && line.ends_with("dsn=4.3.5, status=deferred (mail system configuration error)")
    );
    site.master.wait_for_line(&["warning: ", "lastmile_destination_recipient_limit = 1"]);
    let message = site.queue("3C0A2", &["a@example.org"]);
    // NOTIFY=SUCCESS shows in the report what X says.
    let wish = Wish { original: "alias@example.org", notify: 2, ..Wish::default() };
    assert_eq!(site.ask(&message, &wish), DONE);
    let stored = String::from_utf8(site.mail_of("a@example.org").remove(0)).unwrap();
    let expected = "Return-Path: <sender@example.org>\r\nX-Original-To: alias@example.org\r\nDelivered-To: a@example.org\r\n";
    assert_eq!(stored, format!("{expected}{CONTENT}"));
    let heard = site.trace.heard().remove(0);
    assert!(
        heard.contains("~action~delivered~reason~delivery via mx.example.org[private/lmtp]: 250 "),
        "{heard}"
    );
    let line = site.line_of(&message, "a@example.org");
    assert!(line.contains(", orig_to=<alias@example.org>, ") && line.contains(RELAY), "{line}");
    // The lock goes with the request, right behind the answer.
    look_for(SOON, || (!is_locked(&message.path)).then_some(())).unwrap();
}
