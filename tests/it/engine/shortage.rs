//! Want of room, busy servers and stops in the middle: nothing is forgotten, nothing goes round in circles.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{HURRY, Server, message, messages_in, submit, submit_job, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;

/// More than any disk has.
const NO_ROOM: &str = "queue_minfree = \"900000G\"\n";
/// Long enough for a loop to show.
const A_WHILE: Duration = Duration::from_millis(1500);

/// A queue file as a user writes it.
fn dropped(subject: &str) -> String {
    let content = String::from_utf8(message(subject)).unwrap();
    let head = json!({"sender": "a@example.org", "recipients": 1});
    format!("lastmile/1\n{head}\n-P\n{{\"address\":\"b@example.org\"}}\n\n{content}")
}

fn drop_file(site: &Site, name: &str, text: &str) {
    let incoming = site.queue().join("incoming");
    fs::write(incoming.join(format!(".{name}")), text).unwrap();
    fs::rename(incoming.join(format!(".{name}")), incoming.join(name)).unwrap();
}

#[test]
fn a_file_without_room_waits_without_spinning_and_is_not_forgotten() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, NO_ROOM);
    let agent = site.start_agent();
    drop_file(&site, "user", &dropped("user"));
    submit_job(&site, "bare", json!({"sender": "", "recipients": ["b@example.org"]}));
    site.wait_for_lines(2, &["cannot be queued now", "tried again in a minute"], SOON);
    std::thread::sleep(A_WHILE);
    assert_eq!(site.lines_with(&["cannot be queued now"]).len(), 2, "{}", site.log());
    assert_eq!(site.files(), ["incoming/bare", "incoming/user"]);
    agent.stop();
}

#[test]
fn a_file_with_holes_does_not_fill_the_disk_for_others() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "message_size_limit = \"900000G\"\n");
    let agent = site.start_agent();
    let incoming = site.queue().join("incoming");
    fs::write(incoming.join(".holes"), dropped("holes")).unwrap();
    // Not more than a file can have, and more than any disk of ours.
    fs::File::options().write(true).open(incoming.join(".holes")).unwrap().set_len(8 << 40).unwrap();
    fs::rename(incoming.join(".holes"), incoming.join("holes")).unwrap();
    site.wait_for_line(&["incoming/holes cannot be queued now"], SOON);
    drop_file(&site, "small", &dropped("small"));
    server.only_mail_of("b@example.org");
    agent.stop();
}

#[test]
fn job_lines_that_were_written_before_a_stop_are_not_lost() {
    const MESSAGES: usize = 300;
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    for number in 0..MESSAGES {
        submit_job(&site, &format!("m{number}"), json!({"sender": "", "recipients": ["b@example.org"]}));
    }
    agent.stop();
    let agent = site.start_agent();
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(server.mail_of("b@example.org").len(), MESSAGES, "{:?}", site.files());
    agent.stop();
}

#[test]
fn mail_for_a_server_that_takes_no_connection_gets_old_all_the_same() {
    let site = Site::new("");
    let bounces = Server::start(&site, "bounces", "");
    let socket = site.path().join("busy.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // A backlog of nothing, taken by ourselves: connecting blocks, as with a server that hangs.
    rustix::net::listen(&listener, 0).unwrap();
    let _taken = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    site.configure(&format!(
        "default_transport = \"lmtp:unix:{}\"\nbounce_nexthop = \"lmtp:unix:{}\"\n\
         minimal_backoff_time = 2\nmaximal_backoff_time = 2\nqueue_run_delay = 1\nmaximal_queue_lifetime = 2\n\
         [transport.lmtp]\nconnect_timeout = 1\n",
        socket.display(),
        bounces.socket.display()
    ));
    let agent = site.start_agent();
    submit(&site, "waits", &["b@example.org"]);
    site.wait_for_line(&["the server is busy, and the mail waits"], SOON);
    site.wait_for_line(&["to=<b@example.org>", "status=deferred (connect to "], SOON);
    let bounce = bounces.only_mail_of("a@example.org");
    assert!(bounce.contains("5.4.7"), "{bounce}");
    agent.stop();
}

#[test]
fn a_bounce_of_an_earlier_attempt_is_not_forgotten_at_the_end() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt no@* 550 5.1.1 no\nrcpt late@* times 1 450 4.2.1 busy");
    server.serves(&site, &format!("{HURRY}notify_classes = [\"resource\"]\n"));
    let agent = site.start_agent();
    site.sendmail(&["-i", "-f", "", "no@example.org", "late@example.org"], &message("from nobody"));
    server.only_mail_of("late@example.org");
    wait_for("it to be kept", SOON, || (messages_in(&site, "corrupt").len() == 1).then_some(()));
    assert_eq!(site.lines_with(&[": removed"]).len(), 0, "{}", site.log());
    agent.stop();
}

#[test]
fn who_cannot_be_sent_their_octets_back_is_told_without_them() {
    let site = Site::new("");
    let server = Server::start_with(&site, "mail", "", |config| {
        config.without = vec!["8BITMIME".parse().unwrap(), "SMTPUTF8".parse().unwrap()];
    });
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    let content = "From: a@example.org\nSubject: Grüße\n\ngrün\n";
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], content.as_bytes());
    let bounce = server.only_mail_of("a@example.org");
    assert!(bounce.contains("5.6.3") && bounce.contains("Subject: Gr????e") && bounce.is_ascii(), "{bounce}");
    agent.stop();
}

#[test]
fn a_broken_protocol_is_told_to_a_postmaster_who_asks_for_it() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "mail times 1 garbage");
    server.serves(&site, &format!("{HURRY}notify_classes = [\"protocol\"]\n"));
    let agent = site.start_agent();
    submit(&site, "odd", &["b@example.org"]);
    let notice = server.only_mail_of("postmaster@mx.example.org");
    assert!(notice.contains("broke the protocol"), "{notice}");
    server.only_mail_of("b@example.org");
    agent.stop();
}

#[test]
fn a_server_that_never_says_goodbye_holds_up_neither_mail_nor_a_stop() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "quit silence");
    server.serves(&site, "workers = 1\nworkers_reserved = 0\n[transport.lmtp]\ncache_connection = \"no\"\n");
    let agent = site.start_agent();
    submit(&site, "first", &["b@example.org"]);
    site.wait_for_line(&[": removed"], SOON);
    submit(&site, "second", &["b@example.org"]);
    site.wait_for_lines(2, &[": removed"], SOON);
    let stopped = Instant::now();
    agent.stop();
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
}
