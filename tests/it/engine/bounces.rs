//! Notices: who gets one, how often, and what becomes of those that cannot be delivered either.

use std::fs;
use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::peer::{Manner, Peer};
use super::{
    HURRY, QueueFile, Server, id, message, messages_in, only_message_in, states, submit, submit_job,
    to_socket, wait_until_nothing_is_left,
};
use crate::common::agent::{SOON, Site, run};
use crate::common::process::wait_for;

/// The log's words for a bounce.
const BOUNCED: &str = "sender non-delivery notification: ";
/// For a success notice.
const REPORTED: &str = "sender delivery status notification: ";

#[test]
fn one_bounce_tells_of_everybody_who_was_refused() {
    let site = Site::new("");
    let script = "rcpt no1@* 550 5.1.1 no such user\nrcpt no2@* 550 5.7.1 not for you\n\
                  data-done no3@* 554 5.6.0 not this\nrcpt later@* times 1 450 4.2.1 busy";
    let server = Server::start(&site, "mail", script);
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    let to = ["yes", "no1", "no2", "no3", "later"].map(|name| format!("{name}@example.org"));
    submit(&site, "for five", &to.each_ref().map(String::as_str));
    site.wait_for_line(&["to=<later@example.org>", "status=sent"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(site.lines_with(&[BOUNCED]).len(), 1, "{}", site.log());
    let bounce = server.only_mail_of("a@example.org");
    for (address, status) in [("no1", "5.1.1"), ("no2", "5.7.1"), ("no3", "5.6.0")] {
        let block = bounce
            .split("\n\n")
            .find(|block| block.contains(&format!("Final-Recipient: rfc822; {address}@example.org\n")));
        assert!(
            block.is_some_and(|block| block.contains(&format!("Status: {status}"))),
            "{address}: {bounce}"
        );
    }
    assert!(!bounce.contains("Final-Recipient: rfc822; yes@"), "{bounce}");
    assert!(bounce.contains("text of for five"), "the message comes back whole: {bounce}");
    agent.stop();
}

#[test]
fn a_bounce_returns_the_header_alone_where_that_was_asked() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt no@* 550 5.1.1 no such user");
    server.serves(&site, "");
    let agent = site.start_agent();
    let job = json!({"sender": "a@example.org", "recipients": ["no@example.org"], "ret": "HDRS"});
    submit_job(&site, "headers", job);
    let bounce = server.only_mail_of("a@example.org");
    assert!(bounce.contains("text/rfc822-headers") && bounce.contains("Subject: headers"), "{bounce}");
    assert!(!bounce.contains("text of headers"), "{bounce}");
    agent.stop();
}

#[test]
fn who_wants_to_hear_nothing_hears_nothing() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt no@* 550 5.1.1 no such user");
    server.serves(&site, "");
    let agent = site.start_agent();
    let recipients = json!([{"address": "no@example.org", "notify": "NEVER"}]);
    submit_job(&site, "quiet", json!({"sender": "a@example.org", "recipients": recipients}));
    site.wait_for_line(&["to=<no@example.org>", "status=bounced"], SOON);
    site.wait_for_line(&[": removed"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    assert!(site.lines_with(&["notification"]).is_empty(), "{}", site.log());
    assert_eq!(server.mail_of("a@example.org"), Vec::<String>::new());
    agent.stop();
}

/// A job that asks for everything that RFC 3461 knows.
fn asks_for_success() -> serde_json::Value {
    let recipient =
        json!({"address": "b@example.org", "notify": "SUCCESS,FAILURE", "orcpt": "rfc822;list@x.example"});
    json!({"sender": "a@example.org", "recipients": [recipient], "envid": "E+1", "ret": "HDRS"})
}

#[test]
fn success_is_reported_by_us_where_the_server_will_not() {
    use lastmile::mail::Protocol::{Lmtp, Smtp};
    for (transport, protocol, action) in [("lmtp", Lmtp, "delivered"), ("smtp", Smtp, "relayed")] {
        let site = Site::new("");
        let server = Server::start_with(&site, "mail", "", |config| {
            config.without = vec![lastmile::sink::Extension::Dsn];
            config.protocol = protocol;
        });
        let socket = server.socket.display();
        site.configure(&format!("default_transport = \"{transport}:unix:{socket}\"\n"));
        let agent = site.start_agent();
        submit_job(&site, "report", asks_for_success());
        site.wait_for_line(&[REPORTED], SOON);
        let report = server.only_mail_of("a@example.org");
        for part in [
            &format!("Action: {action}"),
            "Status: 2.",
            "Original-Recipient: rfc822; list@x.example",
            "Original-Envelope-Id: E+1",
            "Final-Recipient: rfc822; b@example.org",
        ] {
            let is_there = report.contains(part) || report.contains(&part.replace("; ", ";"));
            assert!(is_there, "{transport}: no {part:?} in {report}");
        }
        wait_until_nothing_is_left(&site, SOON);
        assert_eq!(site.lines_with(&[REPORTED]).len(), 1);
        agent.stop();
    }
}

#[test]
fn a_server_with_dsn_is_asked_to_report_itself() {
    let site = Site::new("");
    let peer = Peer::start(&site, "peer", Manner { keywords: &["DSN"], ..Manner::default() });
    site.configure(&to_socket(&peer.socket, ""));
    let agent = site.start_agent();
    submit_job(&site, "report", asks_for_success());
    site.wait_for_line(&["to=<b@example.org>", "orig_to=<list@x.example>", "status=sent"], SOON);
    site.wait_for_line(&[": removed"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    assert!(site.lines_with(&["notification"]).is_empty(), "{}", site.log());
    let transaction = peer.seen().transactions.first().unwrap().clone();
    assert_eq!(transaction.mail, "MAIL FROM:<a@example.org> ENVID=E+2B1 RET=HDRS");
    let rcpt = "RCPT TO:<b@example.org> ORCPT=rfc822;list@x.example NOTIFY=SUCCESS,FAILURE";
    assert_eq!(transaction.rcpt, [rcpt]);
    agent.stop();
}

#[test]
fn a_delay_is_reported_once() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt b@* times 3 450 4.2.1 mailbox locked");
    server.serves(&site, &format!("{HURRY}delay_warning_time = 1\n"));
    let agent = site.start_agent();
    submit(&site, "late", &["b@example.org"]);
    site.wait_for_line(&["sender delay notification: "], SOON);
    let file = only_message_in(&site, "deferred");
    wait_for("the mark of the notice", SOON, || states(&file).filter(|states| states == "WP"));
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(site.wait_for_lines(3, &["to=<b@example.org>", "status=deferred"], SOON).len(), 3);
    assert_eq!(site.lines_with(&["sender delay notification: "]).len(), 1, "{}", site.log());
    let notice = server.only_mail_of("a@example.org");
    assert!(notice.contains("Action: delayed") && notice.contains("4.2.1 mailbox locked"), "{notice}");
    agent.stop();
}

#[test]
fn who_asked_for_it_hears_of_a_delay_after_four_hours() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt b@* 450 4.2.1 mailbox locked");
    server.serves(&site, "");
    site.start_agent().stop();
    let arrival = Timestamp::now() - SignedDuration::from_hours(5);
    let recipients =
        [json!({"address": "b@example.org", "notify": "DELAY"}), json!({"address": "b@example.net"})];
    let head = json!({"arrival": arrival.to_string()});
    let file =
        QueueFile { id: &id(1), head, states: "-PP", recipients: &recipients, content: "X: y\r\n\r\n" };
    file.write(&site, "active");
    let agent = site.start_agent();
    site.wait_for_line(&["sender delay notification: "], SOON);
    let notice = server.only_mail_of("a@example.org");
    assert!(notice.contains("Final-Recipient: rfc822; b@example.org"), "{notice}");
    assert!(
        !notice.contains("Final-Recipient: rfc822; b@example.net"),
        "who did not ask is not told: {notice}"
    );
    agent.stop();
}

#[test]
fn an_undeliverable_bounce_is_kept_and_the_postmaster_told_once() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt no@* 550 5.1.1 no\nrcpt a@* 550 5.1.1 no sender either");
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    submit(&site, "nobody's", &["no@example.org"]);
    let notice = server.only_mail_of("postmaster@mx.example.org");
    assert!(notice.contains("no sender either"), "{notice}");
    site.wait_for_line(&["kept in corrupt/ and reported to the postmaster"], SOON);
    site.wait_for_line(&["to=<postmaster@mx.example.org>", "status=sent"], SOON);
    let kept = only_message_in(&site, "corrupt");
    let text = fs::read_to_string(&kept).unwrap();
    assert!(text.contains("Final-Recipient: rfc822; no@example.org"), "the bounce itself: {text}");
    assert_eq!(site.lines_with(&["postmaster non-delivery notification: "]).len(), 1);
    assert_eq!(messages_in(&site, "corrupt").len(), 1);
    wait_for("the rest to go", SOON, || messages_in(&site, "active").is_empty().then_some(()));
    agent.stop();
}

#[test]
fn an_undeliverable_notice_to_the_postmaster_is_kept_and_nobody_told() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt * 550 5.1.1 nobody is known here");
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    submit(&site, "nobody's", &["no@example.org"]);
    site.wait_for_line(&["to=<postmaster@mx.example.org>", "status=bounced"], SOON);
    wait_for("both to be kept", SOON, || (messages_in(&site, "corrupt").len() == 2).then_some(()));
    agent.stop();
    // A restart brings nothing back.
    let agent = site.start_agent();
    submit(&site, "again", &["no@example.net"]);
    wait_for("all four to be kept", SOON, || (messages_in(&site, "corrupt").len() == 4).then_some(()));
    assert_eq!(site.wait_for_lines(4, &["notification: "], SOON).len(), 4, "{}", site.log());
    assert_eq!(messages_in(&site, "active"), Vec::<std::path::PathBuf>::new());
    agent.stop();
}

#[test]
fn a_postmaster_who_does_not_want_to_know_is_not_said_to_have_been_told() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt * 550 5.1.1 nobody is known here");
    server.serves(&site, "notify_classes = [\"resource\"]\n");
    let agent = site.start_agent();
    submit(&site, "nobody's", &["no@example.org"]);
    let line = site.wait_for_line(&["warning: ", "kept in corrupt/"], SOON);
    assert!(!line.contains("postmaster"), "{line}");
    assert_eq!(site.lines_with(&["notification: "]).len(), 1, "{}", site.log());
    agent.stop();
}

#[test]
fn bounces_go_where_they_are_told_to() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt no@* 550 5.1.1 no such user");
    let bounces = Server::start(&site, "bounces", "");
    server.serves(&site, &format!("bounce_nexthop = \"unix:{}\"\n", bounces.socket.display()));
    let agent = site.start_agent();
    submit(&site, "back", &["no@example.org", "yes@example.org"]);
    assert!(bounces.only_mail_of("a@example.org").contains("5.1.1"));
    // Somebody else's mail without sender is no notice of ours.
    site.sendmail(&["-i", "-f", "<>", "b@example.org"], &message("null"));
    server.only_mail_of("b@example.org");
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(server.mail_of("a@example.org"), Vec::<String>::new());
    agent.stop();
}

/// Lets the running agent write files of that size at most.
fn limit_file_size(site: &Site, limit: &str) {
    let pid = fs::read_to_string(site.queue().join("agent.lock")).unwrap();
    let output = run(
        Command::new("prlimit").args(["--pid", pid.trim(), &format!("--fsize={limit}:")]).env("LC_ALL", "C"),
        b"",
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_bounce_that_cannot_be_queued_is_still_owed() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt no@* 550 5.1.1 no such user");
    server.serves(&site, "minimal_backoff_time = 2\nmaximal_backoff_time = 2\nqueue_run_delay = 1\n");
    let agent = site.start_agent();
    limit_file_size(&site, "20000");
    let large = [message("large"), b"0123456789abcdef\n".repeat(2000)].concat();
    site.sendmail(&["-i", "-f", "a@example.org", "no@example.org", "yes@example.org"], &large);
    site.wait_for_line(&["error: ", "a notice about it cannot be queued: ", "deferred"], SOON);
    let file = only_message_in(&site, "deferred");
    assert_eq!(states(&file).as_deref(), Some("-RS"));
    limit_file_size(&site, "unlimited");
    let bounce = server.only_mail_of("a@example.org");
    assert!(bounce.contains("Status: 5.1.1") && bounce.contains("Subject: large"), "{bounce}");
    wait_until_nothing_is_left(&site, Duration::from_secs(20));
    assert_eq!(site.lines_with(&["to=<no@example.org>", "status=bounced"]).len(), 1, "it was asked again");
    assert_eq!(server.mail_of("yes@example.org").len(), 1);
    agent.stop();
}
