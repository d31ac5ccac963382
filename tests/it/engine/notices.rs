//! Every kind of notice as it arrives: taken apart by Python's email package, and shown by mutt.
//!
//! - Owns: that what a person and a program get to read is whole, right and readable.
//! - Leaves to others: who is told and how often (`bounces`), each word (`notice`).
//! - Always true: a notice comes out of a server's Maildir, where a running agent has delivered it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lastmile::mail::Protocol;
use lastmile::sink::maildir_name;
use serde_json::{Value, json};

use super::{HURRY, QueueFile, Server, id, message, messages_in, submit_job, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site, run};
use crate::common::long::short_or_long;
use crate::common::mailbox;
use crate::common::process::wait_for;

const POSTMASTER: &str = "postmaster@mx.example.org";

/// Recipients of one report.
const EACH: usize = 5000;

/// The messages that have arrived for an address, once there are as many.
#[track_caller]
fn arrived(server: &Server, address: &str, count: usize) -> Vec<Vec<u8>> {
    let maildir = server.maildirs.join(maildir_name(&address.parse().unwrap()));
    let found = wait_for(&format!("{count} messages for {address}"), SOON, || {
        Some(mailbox::messages(&maildir)).filter(|found| found.len() >= count)
    });
    assert_eq!(found.len(), count, "{address}");
    found
}

/// The only notice for an address: taken apart, found right, and found readable.
#[track_caller]
fn notice(site: &Site, server: &Server, address: &str, reason: &str) -> Value {
    examined(site, &arrived(server, address, 1)[0], reason)
}

/// Takes a notice apart, and shows it; its first screen must hold `reason`.
#[track_caller]
fn examined(site: &Site, octets: &[u8], reason: &str) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/notice_check.py");
    let output = run(Command::new("python3").arg(script).env("PYTHONIOENCODING", "utf-8"), octets);
    let text = String::from_utf8_lossy(octets);
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    let notice: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(notice["problems"], json!([]), "{text}");
    assert_shown(site, octets, &notice, reason);
    notice
}

/// Fails unless mutt shows the words whole, and `reason` on the first screen.
#[track_caller]
fn assert_shown(site: &Site, octets: &[u8], notice: &Value, reason: &str) {
    if Command::new("mutt").arg("-v").output().is_err() {
        eprintln!("skipped: mutt is not installed");
        return;
    }
    let home = tempfile::tempdir_in(site.path()).unwrap();
    let maildir = home.path().join("maildir");
    for directory in ["tmp", "new", "cur"] {
        fs::create_dir_all(maildir.join(directory)).unwrap();
    }
    // As a server that stores lines in the way of the system would have stored it.
    let stored: Vec<u8> = octets.iter().copied().filter(|&octet| octet != b'\r').collect();
    fs::write(maildir.join("new/1.notice"), stored).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/mutt.py");
    let output = run(Command::new("python3").arg(script).arg(&maildir).arg(home.path()), b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = shown["text"].as_str().unwrap();
    let words = notice["words"].as_str().unwrap().trim();
    assert!(text.contains(words), "mutt does not show all of\n{words}\nbut\n{text}");
    for remnant in ["=3D", "=20", "=\n", "=?", "?=", "\r", "\u{fffd}", "\u{c3}", "base64", "[-- Error"] {
        assert!(!text.contains(remnant), "{remnant:?} in\n{text}");
    }
    let screen: Vec<_> =
        shown["screen"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let together = screen.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [notice["subject"].as_str().unwrap(), reason] {
        assert!(together.contains(part), "the first screen does not show {part:?}:\n{}", screen.join("\n"));
    }
}

/// The fields about a recipient, without the times, which must be there.
#[track_caller]
fn recipient(notice: &Value, number: usize) -> Value {
    let mut fields = notice["groups"][number].clone();
    assert!(fields.as_object_mut().unwrap().remove("Last-Attempt-Date").is_some(), "{notice:#}");
    fields
}

/// Fails unless exactly these octets, with any line ends, came back, and as this type.
#[track_caller]
fn assert_returned(notice: &Value, kind: &str, octets: &[u8]) {
    assert_eq!(notice["original"]["type"], kind);
    let hexadecimal: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(notice["original"]["octets"], hexadecimal);
}

/// Fails unless the words for people hold these, in this order, whatever the line breaks.
#[track_caller]
fn assert_says(notice: &Value, parts: &[&str]) {
    let words = notice["words"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = &words[..];
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in {rest:?} of\n{words}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_bounce_tells_who_did_not_get_what_and_why() {
    let site = Site::new("");
    let script = "rcpt no@* 550 5.1.1 no such user\\n5.1.1 but try another\ndata-done full@* 552 5.2.2 mailbox is full";
    let server = Server::start(&site, "mail", script);
    server.serves(&site, "");
    let agent = site.start_agent();
    let recipients = json!([
        {"address": "no@example.org", "orcpt": "rfc822;list@example.net", "notify": "FAILURE"},
        {"address": "full@example.org"},
        {"address": "yes@example.org"},
    ]);
    let job = json!({"sender": "a@example.org", "recipients": recipients, "envid": "E+1 2"});
    submit_job(&site, "Angebot", job);
    let host = format!("host mx.example.org[{}]", server.socket.display());
    let notice = notice(&site, &server, "a@example.org", "550 5.1.1");
    assert_eq!(notice["subject"], "Undeliverable: your message was not delivered");
    assert_eq!(notice["to"], "a@example.org");
    assert_says(
        &notice,
        &[
            "could not be delivered to these recipients, and will not be tried again.",
            "<no@example.org> (you wrote <list@example.net>)",
            &format!(
                "{host} said: 550-5.1.1 no such user 550 5.1.1 but try another (in reply to RCPT TO command)"
            ),
            "<full@example.org>",
            &format!("{host} said: 552 5.2.2 mailbox is full (in reply to end of DATA command)"),
            "please check how it is written, and send the message again.",
            "please tell its owner in another way",
            "write to postmaster@mx.example.org",
            "The message is attached.",
        ],
    );
    assert_eq!(notice["groups"][0]["Original-Envelope-Id"], "E+1 2");
    assert_eq!(notice["groups"][0]["Reporting-MTA"], "dns; mx.example.org");
    assert_eq!(notice["groups"][0]["X-Lastmile-Sender"], "rfc822; a@example.org");
    let expected = json!({
        "Original-Recipient": "rfc822; list@example.net", "Final-Recipient": "rfc822; no@example.org",
        "Action": "failed", "Status": "5.1.1", "Remote-MTA": "dns; mx.example.org",
        "Diagnostic-Code": "smtp; 550-5.1.1 no such user    550 5.1.1 but try another",
    });
    assert_eq!(recipient(&notice, 1), expected);
    let expected = json!({
        "Final-Recipient": "rfc822; full@example.org", "Action": "failed", "Status": "5.2.2",
        "Remote-MTA": "dns; mx.example.org", "Diagnostic-Code": "smtp; 552 5.2.2 mailbox is full",
    });
    assert_eq!(recipient(&notice, 2), expected);
    assert_eq!(notice["groups"].as_array().unwrap().len(), 3);
    assert_returned(&notice, "message/rfc822", &message("Angebot"));
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
}

#[test]
fn a_bounce_returns_eight_bits_as_they_were_and_headers_alone_on_demand() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt no@* 550 5.7.1 nicht f\u{fc}r uns");
    server.serves(&site, "");
    let agent = site.start_agent();
    let content = "From: a@example.org\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nMIME-Version: 1.0\n\
                   Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\u{fc}\u{df}e\n";
    for (name, sender, ret) in [("full", "full@example.org", "FULL"), ("hdrs", "hdrs@example.org", "HDRS")] {
        let path = site.drop_message(name, content.as_bytes());
        let job = json!({"queue_file": path, "sender": sender, "recipients": ["no@example.org"], "ret": ret});
        site.write_job(&job);
    }
    let full = arrived(&server, "full@example.org", 1);
    // What the server said is ASCII in an ASCII report; the message comes back as it was, and mutt decodes it.
    let full = examined(&site, &full[0], "550 5.7.1 nicht f?r uns");
    assert_returned(&full, "message/rfc822", content.as_bytes());
    let headers = arrived(&server, "hdrs@example.org", 1);
    let headers = String::from_utf8(headers[0].clone()).unwrap();
    assert!(headers.contains("text/rfc822-headers") && !headers.contains("Gr\u{fc}"), "{headers}");
    agent.stop();
}

#[test]
fn a_message_that_got_too_old_comes_back_with_the_last_reason() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt b@* 450 4.2.1 mailbox is locked");
    server.serves(&site, &format!("{HURRY}maximal_queue_lifetime = 1\n"));
    let agent = site.start_agent();
    submit_job(&site, "old", json!({"sender": "a@example.org", "recipients": ["b@example.org"]}));
    let notice = notice(&site, &server, "a@example.org", "450 4.2.1 mailbox is locked");
    assert_says(&notice, &["mailbox is locked", "the reason above is that of the last time"]);
    let expected = json!({
        "Final-Recipient": "rfc822; b@example.org", "Action": "failed", "Status": "5.4.7",
        "Remote-MTA": "dns; mx.example.org", "Diagnostic-Code": "smtp; 450 4.2.1 mailbox is locked",
    });
    assert_eq!(recipient(&notice, 1), expected);
    agent.stop();
}

#[test]
fn a_delay_notice_tells_until_when_it_is_tried_and_the_postmaster_gets_a_copy() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt b@* 450 4.2.1 mailbox is locked");
    server.serves(&site, "notify_classes = [\"delay\"]\n");
    site.start_agent().stop();
    let arrival = Timestamp::now() - SignedDuration::from_hours(5);
    let recipients = [json!({"address": "b@example.org", "notify": "DELAY"})];
    let head = json!({"arrival": arrival.to_string(), "envid": "E1"});
    let (id, content) = (id(1), "From: a@example.org\r\nSubject: late\r\n\r\ntext\r\n");
    QueueFile { id: &id, head, states: "-P", recipients: &recipients, content }.write(&site, "active");
    let agent = site.start_agent();
    for (address, subject, opening) in [
        (
            "a@example.org",
            "Delayed: your message is still on its way",
            "There is nothing that you need to do",
        ),
        (POSTMASTER, "Postmaster copy: a message is delayed", "Its sender has been told; this is your copy."),
    ] {
        let notice = notice(&site, &server, address, "450 4.2.1 mailbox is locked");
        assert_eq!((&notice["subject"], &notice["to"]), (&json!(subject), &json!(address)));
        assert_says(&notice, &["has not been delivered to this recipient yet.", opening]);
        assert_eq!(notice["groups"][0]["X-Lastmile-Queue-ID"], id);
        assert_eq!(notice["groups"][0]["Original-Envelope-Id"], "E1");
        let mut fields = recipient(&notice, 1);
        let until = fields.as_object_mut().unwrap().remove("Will-Retry-Until").unwrap();
        let day = (arrival + SignedDuration::from_hours(5 * 24)).strftime("%-d %b %Y").to_string();
        assert!(until.as_str().unwrap().contains(&day), "{until} is not on {day}");
        assert_says(&notice, &[until.as_str().unwrap()]);
        let expected = json!({
            "Final-Recipient": "rfc822; b@example.org", "Action": "delayed", "Status": "4.2.1",
            "Remote-MTA": "dns; mx.example.org", "Diagnostic-Code": "smtp; 450 4.2.1 mailbox is locked",
        });
        assert_eq!(fields, expected);
        assert_returned(&notice, "text/rfc822-headers", b"From: a@example.org\nSubject: late\n");
    }
    agent.stop();
}

#[test]
fn a_success_notice_tells_what_is_known_of_the_delivery() {
    for (transport, protocol, action, subject, words) in [
        (
            "lmtp",
            Protocol::Lmtp,
            "delivered",
            "Delivered: your message has arrived",
            "it is in the mailbox now",
        ),
        (
            "smtp",
            Protocol::Smtp,
            "relayed",
            "Relayed: your message has been handed over",
            "to the next server",
        ),
    ] {
        let site = Site::new("");
        let server = Server::start_with(&site, "mail", "", |config| {
            config.without = vec![lastmile::sink::Extension::Dsn];
            config.protocol = protocol;
        });
        let socket = server.socket.display();
        site.configure(&format!("default_transport = \"{transport}:unix:{socket}\"\n"));
        let agent = site.start_agent();
        let to = json!({"address": "b@example.org", "notify": "SUCCESS", "orcpt": "rfc822;list@example.net"});
        let job = json!({"sender": "a@example.org", "recipients": [to], "envid": "E1", "ret": "FULL"});
        submit_job(&site, "report", job);
        let notice = notice(&site, &server, "a@example.org", words);
        assert_eq!(notice["subject"], subject);
        let fields = recipient(&notice, 1);
        assert_eq!((&fields["Action"], &fields["Status"]), (&json!(action), &json!("2.0.0")));
        assert_eq!(fields["Original-Recipient"], "rfc822; list@example.net");
        assert!(fields["Diagnostic-Code"].as_str().unwrap().starts_with("smtp; 250 2.0.0 "), "{fields}");
        assert_eq!(notice["groups"][0]["Original-Envelope-Id"], "E1");
        // RFC 3461 section 4.3: RET speaks of failures.
        assert_returned(&notice, "text/rfc822-headers", b"From: a@example.org\nSubject: report\n");
        agent.stop();
    }
}

#[test]
fn the_postmaster_hears_of_bounces_and_of_bounces_that_bounce() {
    let site = Site::new("");
    let server =
        Server::start(&site, "mail", "rcpt no@* 550 5.1.1 no such user\nrcpt gone@* 551 5.1.6 moved");
    server.serves(&site, "notify_classes = [\"bounce\", \"2bounce\"]\n");
    let agent = site.start_agent();
    submit_job(&site, "one", json!({"sender": "a@example.org", "recipients": ["no@example.org"]}));
    let copy = notice(&site, &server, POSTMASTER, "550 5.1.1 no such user");
    assert_eq!(copy["subject"], "Postmaster copy: a message was not delivered");
    assert_eq!(copy["groups"][0]["X-Lastmile-Sender"], "rfc822; a@example.org");
    assert_returned(&copy, "text/rfc822-headers", b"From: a@example.org\nSubject: one\n");
    submit_job(&site, "two", json!({"sender": "gone@example.org", "recipients": ["no@example.org"]}));
    let all = arrived(&server, POSTMASTER, 3);
    let double = all.iter().find(|octets| {
        String::from_utf8_lossy(octets)
            .contains("Subject: Postmaster notice: a bounce could not be delivered")
    });
    let double = examined(&site, double.unwrap(), "551 5.1.6 moved");
    assert_says(&double, &["A message without a sender, most often a bounce, could not be delivered"]);
    assert_eq!(double["groups"][1]["Final-Recipient"], "rfc822; gone@example.org");
    assert_eq!(double["groups"][0].get("X-Lastmile-Sender"), None);
    assert_eq!(
        double["original"]["type"], "message/rfc822",
        "the bounce comes with it, and its message in that"
    );
    agent.stop();
}

#[test]
fn an_international_bounce_names_international_addresses() {
    let site = Site::new("");
    let server =
        Server::start(&site, "mail", "rcpt n\u{f6}@* 550 5.1.1 <n\u{f6}@b\u{fc}cher.example> unbekannt");
    server.serves(&site, "");
    let agent = site.start_agent();
    let content = "From: \u{e4}@b\u{fc}cher.example\nSubject: Gr\u{fc}\u{df}e\n\nGr\u{fc}\u{df}e\n";
    let path = site.drop_message("odd", content.as_bytes());
    let to = json!({"address": "n\u{f6}@b\u{fc}cher.example", "orcpt": "utf-8;l\u{ef}st@example.net"});
    let job = json!({
        "queue_file": path, "sender": "\u{e4}@b\u{fc}cher.example", "recipients": [to], "smtputf8": true,
    });
    site.write_job(&job);
    let notice =
        notice(&site, &server, "\u{e4}@b\u{fc}cher.example", "<n\u{f6}@b\u{fc}cher.example> unbekannt");
    assert_eq!(notice["to"], "\u{e4}@b\u{fc}cher.example");
    assert_says(&notice, &["<n\u{f6}@b\u{fc}cher.example> (you wrote <l\u{ef}st@example.net>)", "550 5.1.1"]);
    assert_eq!(notice["groups"][0]["X-Lastmile-Sender"], "utf-8; \u{e4}@b\u{fc}cher.example");
    let fields = recipient(&notice, 1);
    assert_eq!(fields["Final-Recipient"], "utf-8; n\u{f6}@b\u{fc}cher.example");
    assert_eq!(fields["Original-Recipient"], "utf-8; l\u{ef}st@example.net");
    assert_returned(&notice, "message/global", content.as_bytes());
    agent.stop();
}

#[test]
fn a_protocol_notice_has_the_conversation_and_no_content() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "data-done b@* times 1 garbage \u{1b}[2J what?");
    server.serves(&site, &format!("{HURRY}notify_classes = [\"protocol\"]\n"));
    let agent = site.start_agent();
    submit_job(&site, "secret", json!({"sender": "a@example.org", "recipients": ["b@example.org"]}));
    let notice = notice(&site, &server, POSTMASTER, "which is no SMTP reply");
    assert_eq!(notice["subject"], "Postmaster notice: a server broke the protocol");
    let size = message("secret").len() + message("secret").iter().filter(|&&octet| octet == b'\n').count();
    assert_says(
        &notice,
        &[
            "A mail server broke the protocol: protocol error of mx.example.org[",
            "while sending end of data",
            "of the recipients there: 1 deferred (to be tried again).",
            "you are told once an hour at most.",
            "S: 220 ",
            "C: LHLO mx.example.org",
            "S: 250-",
            "C: MAIL FROM:<a@example.org>",
            "C: RCPT TO:<b@example.org>",
            &format!("C: BDAT {size} LAST (message content, {size} octets)"),
            "S: 250 2.1.0",
            "S: 250 2.1.5",
            "S: \\u{1b}[2J what? (here the conversation was broken off)",
        ],
    );
    assert!(!notice["words"].as_str().unwrap().contains("text of"), "no content: {notice:#}");
    agent.stop();
}

#[test]
fn a_server_that_never_understands_is_told_of_once() {
    const MESSAGES: usize = 30;
    let site = Site::new("");
    // Not about the protocol: an address that is none.
    let script = "mail bad@* 501 5.1.7 bad sender address\nmail odd@* 501 5.5.4 unknown parameter";
    let server = Server::start(&site, "mail", script);
    server.serves(&site, "notify_classes = [\"protocol\"]\n");
    let agent = site.start_agent();
    submit_job(&site, "bad", json!({"sender": "bad@example.org", "recipients": ["b@example.org"]}));
    site.wait_for_line(&["to=<b@example.org>", "501 5.1.7", "status=bounced"], SOON);
    for number in 0..MESSAGES {
        let job = json!({"sender": "odd@example.org", "recipients": ["b@example.org"]});
        submit_job(&site, &format!("m{number}"), job);
    }
    site.wait_for_lines(MESSAGES, &["to=<b@example.org>", "501 5.5.4", "status=bounced"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    let notice = notice(&site, &server, POSTMASTER, "501 5.5.4 unknown parameter");
    assert_says(&notice, &["1 bounced (returned to the sender)", "C: MAIL FROM:<odd@", "S: 501 5.5.4"]);
    agent.stop();
}

#[test]
fn want_of_room_is_told_to_the_postmaster() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "queue_minfree = \"900000G\"\n");
    let agent = site.start_agent();
    submit_job(&site, "bare", json!({"sender": "", "recipients": ["b@example.org"]}));
    let notice = notice(&site, &server, POSTMASTER, "cannot be queued");
    assert_eq!(notice["subject"], "Postmaster notice: a resource is short");
    assert_says(&notice, &["octets free, less than the", "It is kept there, and tried again every minute."]);
    agent.stop();
}

/// The most memory that the running agent ever had, in octets.
fn peak_memory(site: &Site) -> u64 {
    let pid = fs::read_to_string(site.queue().join("agent.lock")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn bounces_for_very_many_take_little_memory_and_name_everybody() {
    let refused = short_or_long(10_001, 100_000);
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "");
    site.start_agent().stop();
    // As a killed agent leaves it: everybody is refused, at length, and nobody has been told.
    let recipients: Vec<_> =
        (0..refused).map(|at| json!({"address": format!("r{at}@example.org")})).collect();
    let text = "host mx.example.org[/run/lmtp] said: 550 5.1.1 no such user, ".repeat(16);
    let replies: String = (0..refused)
        .map(|at| {
            let reply = json!({
                "time": "2026-11-21T19:30:00Z", "recipient": at, "address": format!("r{at}@example.org"),
                "outcome": "bounced", "dsn": "5.1.1", "text": text, "reply": text, "mta": "mx.example.org",
            });
            format!("{reply}\n")
        })
        .collect();
    let id = id(1);
    fs::write(site.queue().join("deferred").join(format!("{id}.log")), replies).unwrap();
    let states = format!("-{}", "R".repeat(refused));
    let file = QueueFile {
        id: &id,
        head: json!({}),
        states: &states,
        recipients: &recipients,
        content: "X: y\r\n\r\n",
    };
    file.write(&site, "active");
    let agent = site.start_agent();
    let limit = Duration::from_secs(300);
    wait_for("the message to be done with", limit, || messages_in(&site, "active").is_empty().then_some(()));
    wait_until_nothing_is_left(&site, limit);
    let peak = peak_memory(&site);
    assert!(peak < 48 << 20, "the agent took {} MiB", peak >> 20);
    let notices = arrived(&server, "a@example.org", refused.div_ceil(EACH));
    let mut named: Vec<_> = notices.iter().flat_map(|notice| numbers_in(notice)).collect();
    assert!(notices.iter().all(|notice| notice.len() < 10 << 20), "no server takes such a bounce");
    named.sort_unstable();
    assert!(named.iter().copied().eq(0..refused), "{} are named", named.len());
    agent.stop();
}

/// The numbers in the final recipients of a bounce.
fn numbers_in(notice: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(notice).into_owned();
    let recipients = text.lines().filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; r"));
    recipients.map(|address| address.trim_end_matches("@example.org").parse().unwrap()).collect()
}

#[test]
fn a_delay_is_told_for_each_of_very_many_and_marked_once() {
    const LATE: usize = EACH + 1;
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt r* 450 4.2.1 mailbox is locked");
    server.serves(&site, "delay_warning_time = \"1h\"\n");
    site.start_agent().stop();
    let arrival = Timestamp::now() - SignedDuration::from_hours(5);
    let recipients: Vec<_> = (0..LATE).map(|at| json!({"address": format!("r{at}@example.org")})).collect();
    let (id, states) = (id(1), format!("-{}", "P".repeat(LATE)));
    let head = json!({"arrival": arrival.to_string()});
    let file = QueueFile { id: &id, head, states: &states, recipients: &recipients, content: "X: y\r\n\r\n" };
    file.write(&site, "active");
    let agent = site.start_agent();
    wait_for("it to be deferred", Duration::from_secs(60), || messages_in(&site, "deferred").pop());
    let notices = arrived(&server, "a@example.org", 2);
    let mut named: Vec<_> = notices.iter().flat_map(|notice| numbers_in(notice)).collect();
    named.sort_unstable();
    assert!(named.iter().copied().eq(0..LATE), "{} are named", named.len());
    let marks = super::states(&messages_in(&site, "deferred")[0]).unwrap();
    assert!(marks == format!("W{}", "P".repeat(LATE)), "{}", &marks[..20]);
    agent.stop();
}
