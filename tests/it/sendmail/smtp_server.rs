//! `sendmail -bs`: whole sessions with the program, as clients of every kind hold them, and what lies in the queue then.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::{Queue, is_root, run};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;

mod life;

const MAIL: &str = "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n";
const MESSAGE: &str = "Subject: hello\r\n\r\n..dots\r\n.\r\n";

/// A running session.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: String,
}

impl Client {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        Self { child, stdin, heard: String::new() }
    }

    fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Reads the next reply, all lines of it. A server that says nothing fails the test.
    #[track_caller]
    fn hear(&mut self) -> String {
        loop {
            let mut end = 0;
            for line in self.heard.split_inclusive('\n') {
                end += line.len();
                if line.ends_with('\n') && line.as_bytes().get(3) == Some(&b' ') {
                    return self.heard.drain(..end).collect::<String>().replace("\r\n", "\n");
                }
            }
            let stdout = self.child.stdout.as_mut().unwrap();
            let limit = Timespec::try_from(SOON).unwrap();
            let ready = poll(&mut [PollFd::new(&*stdout, PollFlags::IN)], Some(&limit)).unwrap();
            assert!(ready > 0, "no reply, only {:?}", self.heard);
            let mut piece = [0; 4096];
            let length = stdout.read(&mut piece).unwrap();
            assert!(length > 0, "the session ended after {:?}", self.heard);
            self.heard.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    }

    /// Says a line, and hears a reply that begins so.
    #[track_caller]
    fn ask(&mut self, line: &str, reply: &str) -> String {
        self.write(&format!("{line}\r\n"));
        let heard = self.hear();
        assert!(heard.starts_with(reply), "{line:?} was answered {heard:?}");
        heard
    }

    /// Waits for the end; what was said until then on standard output, and on standard error.
    #[track_caller]
    fn end(mut self) -> (ExitStatus, String, String) {
        drop(self.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        let text = |octets| String::from_utf8(octets).unwrap();
        (output.status, self.heard + &text(output.stdout).replace("\r\n", "\n"), text(output.stderr))
    }
}

/// The codes of replies, one a reply.
fn codes(heard: &[u8]) -> String {
    let heard = String::from_utf8_lossy(heard);
    let last = heard.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
    last.map(|line| &line[..3]).collect::<Vec<_>>().join(" ")
}

/// The ID in the reply to a message.
fn id(reply: &str) -> &str {
    reply.trim_end().rsplit(' ').next().unwrap()
}

#[test]
fn step_by_step_several_messages_are_queued_in_one_session() {
    let queue = Queue::new();
    let mut client = Client::start(queue.command(&["-bs"]));
    assert_eq!(client.hear(), "220 mx.example ESMTP lastmile\n");
    let offered = client.ask("EHLO [127.0.0.1]", "250-mx.example\n");
    for word in ["PIPELINING", "8BITMIME", "SIZE 10240", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES"] {
        assert!(
            offered.contains(&format!(" {word}\n")) || offered.contains(&format!("-{word}\n")),
            "{offered}"
        );
    }
    for number in 0..3 {
        client.ask(&format!("MAIL FROM:<a{number}@x.example> SIZE=30 BODY=8BITMIME"), "250 2.1.0 ");
        client.ask("RCPT TO:<b@y.example>", "250 2.1.5 ");
        client.ask("RCPT TO:<@>", "501 5.1.3 ");
        client.ask("RCPT TO:<root>", "250 2.1.5 ");
        client.ask("DATA", "354 ");
        client.write("Subject: x\r\nReturn-Path: <c@z>\r\n\r\n..dots, \u{e9}\r\n..\r\n");
        let reply = client.ask(".", "250 2.0.0 queued as ");
        let file = queue.path().join("active").join(id(&reply));
        let message = std::fs::read_to_string(file).unwrap();
        let (head, content) = message.split_once("\n\n").unwrap();
        assert!(head.contains(&format!("\"sender\":\"a{number}@x.example\"")), "{head}");
        assert!(head.contains("\"body\":\"8BITMIME\""), "{head}");
        assert!(
            head.ends_with("-PP\n{\"address\":\"b@y.example\"}\n{\"address\":\"root@example\"}"),
            "{head}"
        );
        assert!(content.starts_with("Received: by mx.example (lastmile, from userid "), "{content}");
        let from = format!("\r\nFrom: <a{number}@x.example>\r\nDate: ");
        assert!(content.contains(&from) || content.contains(&from.replace(['<', '>'], "")), "{content}");
        assert!(content.contains("\r\nMessage-ID: <"), "{content}");
        assert!(
            content.ends_with("\r\n\r\n.dots, \u{e9}\r\n.\r\n") && !content.contains("Return-Path"),
            "{content}"
        );
    }
    client.ask("QUIT", "221 2.0.0 ");
    let (status, rest, complaints) = client.end();
    assert_eq!((status.code(), &*rest, &*complaints), (Some(0), "", ""));
    assert_eq!(queue.files("active").len(), 3);
}

#[test]
fn everything_may_be_written_at_once() {
    let queue = Queue::new();
    let whole = format!("EHLO x\r\n{MAIL}DATA\r\n{MESSAGE}{MAIL}DATA\r\n{MESSAGE}QUIT\r\n");
    let output = run(queue.command(&["-bs", "-i"]), &whole);
    assert_eq!(codes(&output.stdout), "220 250 250 250 354 250 250 250 354 250 221");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    assert_eq!(queue.files("active").len(), 2);
    // A client that reads only after it has written many recipients; the pipe that it does not read holds 64 KiB.
    let mut client = Client::start(queue.command(&["-bs"]));
    client.write("MAIL FROM:<a@x>\r\n");
    client.write(&(0..3000).map(|number| format!("RCPT TO:<r{number}@y>\r\n")).collect::<String>());
    client.write("DATA\r\n.\r\nQUIT\r\n");
    let (status, heard, _) = client.end();
    assert_eq!((status.code(), heard.matches("\n250 2.1.5 ").count()), (Some(0), 3000));
    let id = heard.lines().rev().nth(1).map(id).unwrap();
    let message = std::fs::read_to_string(queue.path().join("active").join(id)).unwrap();
    assert_eq!(message.matches("{\"address\":").count(), 3000);
}

/// As people do at a terminal, and scripts.
#[test]
fn lines_may_end_in_lf() {
    let queue = Queue::new();
    let output = run(queue.command(&["-bs"]), &format!("{MAIL}DATA\r\n{MESSAGE}QUIT\r\n").replace('\r', ""));
    assert_eq!(codes(&output.stdout), "220 250 250 354 250 221");
    assert!(queue.message("active").ends_with("\r\n\r\n.dots\r\n"));
}

/// A mail server that takes LF "." LF for an end has the second message sent by whoever wrote the content.
#[test]
fn content_cannot_smuggle_a_message_in() {
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\n.\r"] {
        let queue = Queue::new();
        let content =
            format!("Subject: x\r\n\r\nhi{end}MAIL FROM:<m@z>\r\nRCPT TO:<n@z>\r\nDATA\r\nSubject: evil\r\n");
        let output = run(queue.command(&["-bs"]), &format!("{MAIL}DATA\r\n{content}.\r\nQUIT\r\n"));
        assert_eq!(codes(&output.stdout), "220 250 250 354 250 221", "{end:?}");
        let message = queue.message("active");
        assert!(
            message.contains("\"recipients\":1,") && message.contains("\r\nSubject: evil\r\n"),
            "{message}"
        );
    }
}

#[test]
fn what_is_asked_of_reports_and_international_addresses_stands_in_the_queue() {
    let queue = Queue::new();
    let mut client = Client::start(queue.command(&["-bs"]));
    client.hear();
    client.ask("EHLO x", "250");
    client.ask("MAIL FROM:<jos\u{e9}@x.example> SMTPUTF8 RET=HDRS ENVID=QQ+2B7", "250 ");
    client.ask("RCPT TO:<b@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old+2Bb@y.example", "250 ");
    client.ask("RCPT TO:<\u{fc}@y.example> NOTIFY=NEVER ORCPT=utf-8;\\x{FC}@y.example", "250 ");
    client.ask("RCPT TO:<c@y.example> NOTIFY=SOMETIMES", "501 5.5.4 ");
    client.ask("DATA", "354 ");
    client.ask(".", "250 ");
    client.end();
    let message = queue.message("active");
    let lines: Vec<_> = message.lines().collect();
    for member in [
        "\"sender\":\"jos\u{e9}@x.example\"",
        "\"smtputf8\":true",
        "\"envid\":\"QQ+7\"",
        "\"ret\":\"HDRS\"",
        "\"recipients\":2,",
    ] {
        assert!(lines[1].contains(member), "{member} is not in {}", lines[1]);
    }
    assert_eq!(
        &lines[3..6],
        [
            r#"{"address":"b@y.example","notify":"SUCCESS,DELAY","orcpt":"rfc822;old+b@y.example"}"#,
            "{\"address\":\"\u{fc}@y.example\",\"notify\":\"NEVER\",\"orcpt\":\"utf-8;\u{fc}@y.example\"}",
            "",
        ]
    );
}

#[test]
fn aliases_and_what_the_command_line_says_hold_for_sessions_too() {
    let queue = Queue::new();
    let mut command = queue.command(&["-bs", "-N", "never", "-V", "QQ8"]);
    command.env("LASTMILE_ALIASES", "{ root = [\"ann\", \"ops@other.example\"] }");
    let output = run(command, "MAIL FROM:<>\r\nRCPT TO:<root>\r\nRCPT TO:<ann>\r\nDATA\r\n.\r\n");
    assert_eq!(codes(&output.stdout), "220 250 250 250 354 250");
    let message = queue.message("active");
    let (head, content) = message.split_once("\n\n").unwrap();
    assert!(head.contains("\"sender\":\"\"") && head.contains("\"envid\":\"QQ8\""), "{head}");
    let list = head.lines().skip(3).collect::<Vec<_>>().join("\n");
    assert_eq!(
        list,
        "{\"address\":\"ann@example\",\"notify\":\"NEVER\",\"orcpt\":\"rfc822;root@example\"}\n\
         {\"address\":\"ops@other.example\",\"notify\":\"NEVER\",\"orcpt\":\"rfc822;root@example\"}"
    );
    assert!(content.contains("From: \"Mail Delivery System\" <MAILER-DAEMON@example>"), "{content}");
}

#[test]
fn a_message_that_cannot_be_queued_is_refused_and_the_session_goes_on() {
    let large = format!("Subject: x\r\n\r\n{}.\r\n", "line\r\n".repeat(40_000));
    for (message, variable, code, words) in [
        (&*large, None, "552", "552 5.3.4 the message was not queued: it is larger than the 10240 octets"),
        (
            MESSAGE,
            Some(("LASTMILE_QUEUE_MINFREE", "1000000G")),
            "452",
            "452 4.3.1 the message was not queued: ",
        ),
    ] {
        let queue = Queue::new();
        let mut command = queue.command(&["-bs"]);
        command.envs(variable);
        let mut client = Client::start(command);
        client.hear();
        for _ in 0..2 {
            client.write(&format!("{MAIL}DATA\r\n{message}"));
            let replies = [client.hear(), client.hear(), client.hear(), client.hear()];
            assert!(replies[3].starts_with(words), "{replies:?}");
            assert!(replies[3].len() <= 510 && replies[3].lines().count() == 1, "{replies:?}");
            assert!(queue.is_empty(), "{words}");
        }
        let expected = if variable.is_none() { "250" } else { code };
        client.write(&format!("{MAIL}DATA\r\n{MESSAGE}QUIT\r\n"));
        let (status, heard, complaints) = client.end();
        assert_eq!(codes(heard.as_bytes()), format!("250 250 354 {expected} 221"));
        assert_eq!((status.code(), &*complaints), (Some(0), ""));
    }
}

/// A file that cannot grow, as on a full disk, in the middle of a message that is still being read.
#[test]
fn a_queue_that_fills_up_while_a_message_comes_leaves_nothing_of_it() {
    let queue = Queue::new();
    let inner = queue.command(&["-bs"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 8; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.env("LASTMILE_MESSAGE_SIZE_LIMIT", "1G");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let body = "QUIT\r\n".repeat(100_000);
    let output = run(command, &format!("{MAIL}DATA\r\n{body}.\r\n{MAIL}DATA\r\n{MESSAGE}QUIT\r\n"));
    assert_eq!(codes(&output.stdout), "220 250 250 354 452 250 250 354 250 221", "{output:?}");
    assert_eq!(queue.files("active").len(), 1);
    assert!(queue.files("tmp").is_empty());
}
