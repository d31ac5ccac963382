//! Sympa without a queue: `sendmail_args --lmtp` and `--esmtp`, as the manual of smtpc tells its administrators.
//!
//! - Owns: all ways that the manual names, under the names `smtpc` and `sendmail`: what Sympa calls, what arrives, which
//!   exit status and which lines are in its log where somebody did not get the mail.
//! - Leaves to others: running Sympa (`sympa`); conversations with servers (`it::dialogue`).
//! - Always true: what is delivered is what Sympa has made, with nothing added.

use std::path::PathBuf;

use lastmile::mail::Protocol;
use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store};
use serde_json::json;

use super::support::{Machine, with_crlf};
use super::sympa::{ListServer, OWNER, POSTING, TRACKED, line};
use crate::common::mailbox;

/// A server of Sympa's own for its mail, on a UNIX-domain socket or a port.
struct MailServer {
    _handle: Handle,
    option: &'static str,
    destination: String,
    maildirs: PathBuf,
}

impl MailServer {
    fn start(machine: &Machine, protocol: Protocol, listen: &str) -> Self {
        let maildirs = machine.path().join("maildirs");
        // LMTP has a reply for each recipient after the content too. Only the list's own mail is taken: a wrong sender
        // would show.
        let busy = if protocol == Protocol::Lmtp { "data-done" } else { "rcpt" };
        let script = format!(
            "mail {OWNER} 250 2.1.0 ok\nmail bounce+*@lists.example.org 250 2.1.0 ok\n\
             mail * 550 5.7.1 not from the list\nrcpt nobody@* 550 5.1.1 no such user\n\
             {busy} busy@* 451 4.2.1 mailbox locked\n"
        );
        let config = SinkConfig {
            protocol,
            store: Store::Maildir(maildirs.clone()),
            script: Script::parse(&script).unwrap(),
            ..SinkConfig::new(listen.parse().unwrap())
        };
        let handle = Sink::start(config).unwrap();
        let option = if protocol == Protocol::Lmtp { "--lmtp" } else { "--esmtp" };
        let destination = match &handle.addresses()[0] {
            Listen::Unix(path) => path.display().to_string(),
            Listen::Tcp(address) => address.to_string(),
        };
        Self { _handle: handle, option, destination, maildirs }
    }

    fn arguments(&self) -> [&str; 2] {
        [self.option, &self.destination]
    }

    /// Fails unless what was posted is all that has arrived for these recipients since the last look, and nothing for
    /// others.
    #[track_caller]
    fn assert_has(&self, recipients: &[&str], posted: &[u8]) {
        for recipient in recipients {
            let maildir = self.maildirs.join(recipient);
            let messages = mailbox::messages(&maildir);
            assert_eq!(messages.len(), 1, "mail of {recipient}");
            assert!(messages[0] == with_crlf(posted), "{}", String::from_utf8_lossy(&messages[0]));
            std::fs::remove_dir_all(maildir).unwrap();
        }
    }

    /// Fails unless there is no more mail.
    #[track_caller]
    fn assert_has_no_more(&self) {
        assert_eq!(mailbox::messages(&self.maildirs), Vec::<Vec<u8>>::new());
    }
}

/// Sends by `server`, under both names.
fn deliver_at_once(list: &ListServer, server: &MailServer) {
    // More than the buffers of a socket hold.
    let large = [POSTING, b"\n", &b"A line of a digest, and there are many.\n".repeat(25_000)].concat();
    let large_file = list.machine.write_home("large", &large);
    for (name, refused, busy) in [("smtpc", "253", "253"), ("sendmail", "67", "75")] {
        let arguments = server.arguments().join(" ");
        list.configure(name, &format!("sendmail_args {arguments}\nmaxsmtp 1"));
        let run = list.send(json!([
            {"list": "announce", "recipients": ["bob@example.net", "-carol@example.net"], "message": large_file},
            {"list": "announce", "recipients": ["bob@two.example", "nobody@two.example"]},
            {"list": "announce", "recipients": ["busy@three.example", "carol@three.example"]},
        ]));

        let calls = [
            ["-carol@example.net", "bob@example.net"],
            ["bob@two.example", "nobody@two.example"],
            ["busy@three.example", "carol@three.example"],
        ];
        let calls = calls.map(|recipients| line(&server.arguments(), OWNER, &recipients));
        assert_eq!(list.calls(), calls, "{}", run.log);
        server.assert_has(&["bob@example.net", "-carol@example.net"], &large);
        server.assert_has(&["bob@two.example", "carol@three.example"], POSTING);
        server.assert_has_no_more();
        let mut failures = run.failures();
        failures.sort_unstable();
        let mut expected = [refused, busy];
        expected.sort_unstable();
        assert_eq!(failures, expected, "{name}: {}", run.log);
        // Not even the mail that may go later is kept.
        assert_eq!((run.packets, run.kept), (3, false), "{}", run.log);
        for parts in [
            ["to=<bob@example.net>, relay=", ", dsn=2.", ", status=sent (250 "],
            ["to=<nobody@two.example>, relay=", ", dsn=5.1.1, ", "550 5.1.1 no such user"],
            ["to=<busy@three.example>, relay=", ", dsn=4.2.1, ", "451 4.2.1 mailbox locked"],
        ] {
            let tells = |line: &str| parts.iter().all(|part| line.contains(part));
            assert!(run.log.lines().any(tells), "{parts:?}: {}", run.log);
        }
        list.machine.assert_nothing_queued();
    }
}

#[test]
fn by_lmtp_to_a_socket_the_mail_arrives_at_once_or_the_log_says_why_not() {
    let Some(list) = ListServer::new() else { return };
    let socket = list.machine.path().join("lmtp");
    let server = MailServer::start(&list.machine, Protocol::Lmtp, &format!("unix:{}", socket.display()));
    deliver_at_once(&list, &server);
}

#[test]
fn by_lmtp_to_a_port_the_mail_arrives_at_once_or_the_log_says_why_not() {
    let Some(list) = ListServer::new() else { return };
    let server = MailServer::start(&list.machine, Protocol::Lmtp, "inet:127.0.0.1:0");
    deliver_at_once(&list, &server);
}

#[test]
fn by_esmtp_the_mail_arrives_at_once_or_the_log_says_why_not() {
    let Some(list) = ListServer::new() else { return };
    let server = MailServer::start(&list.machine, Protocol::Smtp, "inet:127.0.0.1:0");
    deliver_at_once(&list, &server);
}

#[test]
fn the_reports_that_sympa_asks_for_are_asked_of_the_server_too() {
    let Some(list) = ListServer::new() else { return };
    let server = MailServer::start(&list.machine, Protocol::Lmtp, "inet:127.0.0.1:0");
    let arguments = server.arguments().join(" ");
    list.configure("smtpc", &format!("sendmail_args {arguments} --dump"));
    let run = list.send(json!([{"list": "announce", "recipients": ["bob@example.net"], "tracking": true}]));
    run.assert_done(1);

    let sender = "bounce+bob==a==example.net==announce==1234@lists.example.org";
    let options = [&server.arguments()[..], &["--dump"], &TRACKED].concat();
    assert_eq!(list.calls(), [line(&options, sender, &["bob@example.net"])]);
    server.assert_has(&["bob@example.net"], POSTING);
    let said = |parts: [&str; 2]| run.log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(said([&format!("MAIL FROM:<{sender}>"), " ENVID=00001234"]), "{}", run.log);
    assert!(said(["RCPT TO:<bob@example.net>", " NOTIFY=SUCCESS,FAILURE,DELAY"]), "{}", run.log);
}

#[test]
fn without_a_server_the_log_says_so() {
    let Some(list) = ListServer::new() else { return };
    let socket = list.machine.path().join("nobody-listens");
    for (name, status) in [("smtpc", "255"), ("sendmail", "75")] {
        list.configure(name, &format!("sendmail_args --lmtp {}", socket.display()));
        let run = list.send(json!([{"list": "announce", "recipients": ["bob@example.net"]}]));
        assert_eq!(run.failures(), [status], "{}", run.log);
        let tells = |line: &str| line.contains("to=<bob@example.net>") && line.contains("nobody-listens");
        assert!(run.log.lines().any(tells), "{}", run.log);
        list.machine.assert_nothing_queued();
    }
}
