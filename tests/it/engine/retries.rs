//! Mail that could not be delivered yet: when it comes back, and when patience ends.

use std::fs;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::json;

use super::{
    HURRY, QueueFile, Server, id, in_memory, only_message_in, set_modified, submit, submit_job,
    wait_until_nothing_is_left,
};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;

#[test]
fn deferred_mail_comes_back_at_the_time_that_its_file_tells() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "data-done b@* times 1 451 4.2.0 mailbox busy");
    server.serves(&site, "minimal_backoff_time = 2\nmaximal_backoff_time = 2\nqueue_run_delay = 1\n");
    let agent = site.start_agent();
    let before = SystemTime::now();
    submit(&site, "again", &["b@example.org"]);
    let line = site.wait_for_line(&["to=<b@example.org>", "status=deferred"], SOON);
    assert!(line.contains("said: 451 4.2.0 mailbox busy (in reply to end of DATA command)"), "{line}");
    let file = only_message_in(&site, "deferred");
    let next = fs::metadata(&file).unwrap().modified().unwrap();
    // Two seconds, give or take a tenth.
    let wait = |since| next.duration_since(since).unwrap();
    assert!(wait(before) >= Duration::from_millis(1800), "{:?}", wait(before));
    assert!(next <= SystemTime::now() + Duration::from_millis(2200));
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    assert!(SystemTime::now() >= next, "it came back too early");
    wait_until_nothing_is_left(&site, SOON);
    assert!(server.only_mail_of("b@example.org").contains("Subject: again"));
    agent.stop();
}

#[test]
fn mail_that_is_too_old_is_returned_with_the_words_of_its_last_attempt() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt b@* 450 4.2.1 mailbox locked");
    server.serves(&site, &format!("{HURRY}maximal_queue_lifetime = 1\n"));
    let agent = site.start_agent();
    submit(&site, "in vain", &["b@example.org", "c@example.org"]);
    site.wait_for_line(&["from=<a@example.org>, status=expired, returned to sender"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    let bounce = server.only_mail_of("a@example.org");
    for part in ["Status: 5.4.7", "450 4.2.1 mailbox locked", "Final-Recipient: rfc822; b@example.org"] {
        assert!(bounce.contains(part), "no {part:?} in {bounce}");
    }
    assert!(!bounce.contains("c@example.org\n"), "who has got it is no matter of a bounce: {bounce}");
    assert!(site.lines_with(&["to=<b@example.org>", "status=deferred"]).len() >= 2, "{}", site.log());
    agent.stop();
}

#[test]
fn a_next_attempt_further_ahead_than_was_ever_set_is_due_now() {
    const DAY: Duration = Duration::from_secs(86_400);
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "");
    site.start_agent().stop();
    for (number, address, ahead) in [
        (1, "jumped@example.org", 10 * DAY),
        (2, "waits@example.org", Duration::from_secs(3600)),
        (3, "due@example.org", Duration::ZERO),
    ] {
        let recipients = [json!({ "address": address })];
        let arrival = jiff::Timestamp::now().to_string();
        let (id, head, content) = (id(number), json!({ "arrival": arrival }), "Subject: late\r\n\r\n");
        let file = QueueFile { id: &id, head, states: "-P", recipients: &recipients, content };
        set_modified(&file.write(&site, "deferred"), SystemTime::now() + ahead);
    }
    let agent = site.start_agent();
    site.wait_for_line(&["to=<due@example.org>", "status=sent"], SOON);
    site.wait_for_line(&["to=<jumped@example.org>", "status=sent"], SOON);
    assert_eq!(site.files(), [format!("deferred/{}", id(2))]);
    assert_eq!(server.mail_of("waits@example.org"), Vec::<String>::new());
    agent.stop();
}

#[test]
fn mail_waits_for_its_own_nexthop_and_takes_no_other_way() {
    let recipients: Vec<_> = (0..5).map(|number| format!("r{number}@example.org")).collect();
    for is_back_in_time in [true, false] {
        let site = Site::new("");
        let routed = Server::start(&site, "routed", "");
        let chosen = Server::start(&site, "chosen", "rcpt * times 5 450 4.2.1 later\n");
        // Windows of two recipients.
        let keys = format!("{HURRY}active_limit = 8\n");
        let with_relay = format!("{keys}[transport.relay]\nprotocol = \"lmtp\"\n");
        routed.serves(&site, &with_relay);
        let agent = site.start_agent();
        let nexthop = format!("relay:unix:{}", chosen.socket.display());
        let job = json!({"sender": "a@example.org", "nexthop": nexthop, "recipients": recipients});
        submit_job(&site, "chosen", job);
        site.wait_for_lines(5, &["status=deferred (host", "said: 450 4.2.1 later"], SOON);
        routed.serves(&site, &keys);
        agent.signal(Signal::HUP);
        let parts = ["relay=none", "dsn=4.3.5, status=deferred", "there is no transport \"relay\""];
        site.wait_for_lines(10, &parts, SOON);
        for recipient in &recipients {
            assert!(site.lines_with(&[recipient, parts[2]]).len() >= 2, "tried again, and again in vain");
        }
        if is_back_in_time {
            routed.serves(&site, &with_relay);
            agent.signal(Signal::HUP);
            recipients.iter().for_each(|recipient| drop(chosen.only_mail_of(recipient)));
        } else {
            routed.serves(&site, &format!("maximal_queue_lifetime = 1\n{keys}"));
            agent.signal(Signal::HUP);
            let bounce = routed.only_mail_of("a@example.org");
            assert!(bounce.contains("Status: 5.4.7") && bounce.contains("cannot be used"), "{bounce}");
        }
        wait_until_nothing_is_left(&site, SOON);
        recipients.iter().for_each(|recipient| assert!(routed.mail_of(recipient).is_empty()));
        wait_for("an empty memory", SOON, || (in_memory(&site, &agent) == (0, 0)).then_some(()));
        agent.stop();
    }
}
