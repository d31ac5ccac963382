//! Callers that mean harm, or know no better: nothing half-queued, nothing on the wire that is not an address.

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Queue, assert_queued, is_root, run};
use crate::common::long::short_or_long;

fn code_and_text(output: &std::process::Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn arguments_put_no_line_into_an_envelope_or_a_header() {
    for (args, code) in [
        (&["-f", "a@x\r\nRCPT TO:<m@z>", "b@y"][..], 65),
        (&["-f", "a@x>\nDATA", "b@y"], 65),
        (&["-f", "a@x", "b@y\nc@z"], 65),
        (&["-f", "a@x", "b@y\r\n.\r\nMAIL FROM:<m@z>"], 65),
        (&["-f", "a@x", "\"b\r\nc\"@\"y\""], 65),
        (&["-f", "a@x", "b\u{1}@y"], 65),
        (&["-f", "a@x", "b@y\u{7f}"], 65),
        (&["-f", "a@x", "-V", "id\r\nX: 1", "b@y"], 64),
        (&["-f", "a@x", "-N", "never\r\nX: 1", "b@y"], 64),
        (&["-f", "a@x", "--nexthop", "/run/x\nb", "b@y"], 64),
    ] {
        let queue = Queue::new();
        let output = run(queue.command(args), "Subject: x\n\n");
        let (status, said) = code_and_text(&output);
        assert_eq!(status, Some(code), "{args:?}: {said}");
        assert!(said.lines().count() == 1 && said.ends_with('\n'), "{args:?}: {said:?}");
        assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{args:?}: {said:?}");
        assert!(queue.is_empty(), "{args:?}");
    }
    let queue = Queue::new();
    // Folded as in a header, which is how some programs pass lists along.
    assert_queued(&run(
        queue.command(&["-f", "a@x", "-F", "Ann\r\nBcc: m@z", "b@y,\r\n c@z"]),
        "Subject: x\n\n",
    ));
    let message = queue.message("active");
    assert!(message.contains("{\"address\":\"b@y\"}\n{\"address\":\"c@z\"}\n\n"), "{message}");
    assert!(message.contains("\r\nFrom: \"Ann  Bcc: m@z\" <a@x>\r\n"), "{message}");
}

#[test]
fn octets_that_are_no_text_are_refused_in_arguments() {
    let queue = Queue::new();
    let mut command = queue.command(&["-f", "a@x"]);
    command.arg(std::ffi::OsStr::from_bytes(b"b\xff@y"));
    let (status, said) = code_and_text(&run(command, "Subject: x\n\n"));
    assert_eq!(status, Some(64), "{said}");
    assert!(queue.is_empty());
}

#[test]
fn a_recipient_may_begin_with_a_dash_where_it_cannot_be_an_option() {
    let queue = Queue::new();
    assert_queued(&run(queue.command(&["-f", "a@x", "--", "-f@y", "-t", "-oQ/tmp"]), "Subject: x\n\n"));
    let message = queue.message("active");
    for address in ["-f@y", "-t@example", "-oQ/tmp@example"] {
        assert!(message.contains(&format!("{{\"address\":\"{address}\"}}\n")), "{message}");
    }
    let queue = Queue::new();
    let output = run(queue.command(&["-f", "a@x", "b@y", "-t"]), "To: m@z\n\n");
    assert_eq!(code_and_text(&output).0, Some(64));
    assert!(queue.is_empty());
}

#[test]
fn recipients_in_a_header_are_addresses_or_nothing_is_queued() {
    for header in [
        "To: b\0@y\n",
        "To: b@y\0\n",
        "To: b@y\u{1}\n",
        "To: <b@y\n",
        "To: \"b\n\" c@z d\n",
        "To: b@y> RCPT TO:<m@z>\n",
        "To: b@\rm@z\n",
        "To: b\u{fffd}@y\n",
        "Resent-To: b@y c@z\n",
    ] {
        let queue = Queue::new();
        let output = run(queue.command(&["-t", "-i", "-f", "a@x"]), &format!("{header}\nhello\n"));
        let (status, said) = code_and_text(&output);
        assert_eq!(status, Some(65), "{header:?}: {said}");
        assert!(said.lines().count() == 1 && !said.contains('\0'), "{header:?}: {said:?}");
        assert!(queue.is_empty(), "{header:?}");
    }
}

/// A message whose header names so many recipients.
fn to_many(count: usize) -> String {
    let list: Vec<_> = (0..count).map(|number| format!("user{number}@example.org")).collect();
    format!("From: a@x\nBcc: {}\n\nhello\n", list.join(",\n "))
}

#[test]
fn a_million_recipients_are_queued_and_more_are_refused() {
    let count = short_or_long(30_000, 1_000_000);
    let queue = Queue::new();
    assert_queued(&run(queue.command(&["-t", "-i", "-f", "a@x"]), &to_many(count)));
    let message = queue.message("active");
    assert_eq!(message.matches("{\"address\":").count(), count);
    assert!(message.contains(&format!("\"user{}@example.org\"", count - 1)));
    assert!(!message.contains("Bcc"), "a million people would read who else got it");

    let queue = Queue::new();
    let large = format!("Subject: {}\n\n", "x".repeat(33 << 20));
    let (status, said) = code_and_text(&run(queue.command(&["-t", "-i", "-f", "a@x"]), &large));
    assert_eq!(status, Some(65), "{said}");
    assert!(said.contains("header of the message is larger than"), "{said}");
    assert!(queue.is_empty());
}

#[test]
fn input_without_end_is_read_no_further_than_the_limit() {
    let queue = Queue::new();
    let mut child = queue.command(&["-i", "-f", "a@x", "b@y"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let piece = [b'x'; 1 << 16];
    stdin.write_all(b"Subject: x\n\n").unwrap();
    let mut written = 0_u64;
    let ended = loop {
        match stdin.write_all(&piece) {
            Ok(()) if written < 1 << 30 => written += piece.len() as u64,
            Ok(()) => break None,
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(ended, Some(io::ErrorKind::BrokenPipe));
    assert!(written < 1 << 20, "{written} octets were read, of 10240 allowed");
    let (status, said) = code_and_text(&child.wait_with_output().unwrap());
    assert_eq!(status, Some(69), "{said}");
    assert!(said.contains("larger than the 10240 octets of message_size_limit"), "{said}");
    assert!(queue.is_empty());
}

#[test]
fn who_listens_to_nothing_still_gets_the_exit_code() {
    for (args, code) in [(&["-f", "a@x", "b@y"][..], 0), (&["-z"], 64), (&["-f", "a@x", "b y"], 65)] {
        let queue = Queue::new();
        let mut child = queue.command(args).spawn().unwrap();
        // What is written from now on is a broken pipe, and SIGPIPE for whoever does not ignore that.
        drop((child.stdout.take(), child.stderr.take()));
        let _ = child.stdin.take().unwrap().write_all(b"Subject: x\n\n");
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None), "{args:?}");
        assert_eq!(queue.is_empty(), code != 0, "{args:?}");

        let queue = Queue::new();
        let mut closed = queue.command(args);
        let program = closed.get_program().to_owned();
        let arguments: Vec<_> = closed.get_args().map(ToOwned::to_owned).collect();
        let envs: Vec<_> = closed.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
        closed = std::process::Command::new("sh");
        closed.arg("-c").arg("exec \"$@\" >&- 2>&-").arg("sh").arg(program).args(arguments);
        for (key, value) in envs {
            closed.env(key, value.unwrap_or_default());
        }
        closed.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = run(closed, "Subject: x\n\n");
        assert_eq!(output.status.code(), Some(code), "{args:?}, closed");
        assert_eq!(queue.is_empty(), code != 0, "{args:?}, closed");
    }
}

#[test]
fn a_signal_while_reading_leaves_nothing_and_ends_the_command_as_it_says() {
    let stranger = is_root().then_some(("incoming", Some(54_322)));
    for (place, uid) in [("tmp", None)].into_iter().chain(stranger) {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let queue = Queue::owned_by(uid.map(|_| 54_321));
            let mut command = queue.command(&["-f", "a@x", "b@y"]);
            if let Some(uid) = uid {
                command.uid(uid).gid(uid);
            }
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(b"Subject: x\n\nbody\n").unwrap();
            // It has begun to write once its file is there.
            let deadline = Instant::now() + Duration::from_secs(20);
            while queue.files(place).is_empty() {
                assert!(Instant::now() < deadline, "no file appeared in {place}");
                std::thread::sleep(Duration::from_millis(5));
            }
            kill_process(Pid::from_child(&child), signal).unwrap();
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(signal.as_raw()), "{place}: {status:?}");
            assert!(queue.is_empty(), "{place}");
            drop(stdin);
        }
    }
}

/// As scripts do that must not be stopped half-way.
#[test]
fn a_caller_that_ignores_all_signals_is_served_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nobody").display().to_string();
    let message = "Subject: x\n\nbody\n";
    let session = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n";
    for (args, input, code, count) in [
        (&["-f", "a@x", "b@y"][..], message, 0, 1),
        (&["-bs"], session, 0, 1),
        // The message was read, and nobody took it.
        (&["--lmtp", &socket, "-f", "a@x", "b@y"], message, 75, 0),
    ] {
        let queue = Queue::new();
        let inner = queue.command(args);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "trap '' HUP INT TERM; exec \"$@\"", "sh"]);
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = run(command, input);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert_eq!(queue.files("active").len(), count, "{args:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("a signal came"), "{output:?}");
    }
}

#[test]
fn a_signal_that_the_caller_ignores_does_not_stop_the_reading() {
    let queue = Queue::new();
    let inner = queue.command(&["-f", "a@x", "b@y"]);
    let mut command = std::process::Command::new("sh");
    // As nohup does it.
    command
        .arg("-c")
        .arg("trap '' HUP; exec \"$@\"")
        .arg("sh")
        .arg(inner.get_program())
        .args(inner.get_args());
    for (key, value) in inner.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Subject: x\n\nbody\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while queue.files("tmp").is_empty() {
        assert!(Instant::now() < deadline, "no file appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    stdin.write_all(b"more\n").unwrap();
    drop(stdin);
    assert_queued(&child.wait_with_output().unwrap());
    assert!(queue.message("active").ends_with("body\r\nmore\r\n"));
}
