//! The names that the program is called by, and what they take for granted.

use std::process::{Command, Output};

use super::{Queue, assert_queued, run};

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

/// A command that says nothing on standard error; what it printed.
fn printed(command: Command) -> String {
    let Output { status, stdout, stderr } = run(command, "");
    assert_eq!((status.code(), text(&stderr).as_str()), (Some(0), ""));
    text(&stdout)
}

/// One line on standard error, and an exit code.
fn assert_fails(command: Command, code: i32, words: &str) {
    let output = run(command, "Subject: x\n\n");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with(words) && said.lines().count() == 1, "{said:?} is not {words:?}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn sendmail_is_a_name_as_well_as_a_word() {
    for name in ["sendmail", "/usr/sbin/sendmail", "./sendmail"] {
        let queue = Queue::new();
        assert_queued(&run(queue.command_named(name, &["-f", "a@x", "b@y"]), "Subject: x\n\n"));
        assert!(queue.message("active").contains("{\"address\":\"b@y\"}"));
    }
    let queue = Queue::new();
    assert_fails(
        queue.command_named("/x/sendmail", &["-z"]),
        64,
        "sendmail: the message was not sent: there is no",
    );
    let other = run(queue.command_named("lastmile", &["-t"]), "");
    assert!(text(&other.stderr).starts_with("error: unexpected argument"), "{other:?}");
}

#[test]
fn mailq_shows_the_queue_and_q_tries_what_is_in_it() {
    let mut queue = Queue::new();
    queue.lock = None;
    let empty = printed(queue.command_named("mailq", &[]));
    assert!(empty.contains("empty"), "{empty}");
    for _ in 0..2 {
        assert_queued(&run(queue.command(&["-f", "a@x", "b@y"]), "Subject: x\n\n"));
    }
    let defer = |path: &std::path::Path| {
        let deferred = queue.path().join("deferred").join(path.file_name().unwrap());
        std::fs::rename(path, &deferred).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1000);
        std::fs::File::options().write(true).open(&deferred).unwrap().set_modified(later).unwrap();
        path.file_name().unwrap().to_str().unwrap().to_owned()
    };
    let ids: Vec<_> = queue.files("active").iter().map(|path| defer(path)).collect();
    for command in [
        queue.command_named("mailq", &[]),
        queue.command_named("mailq", &["-Ac", "-v"]),
        queue.command_named("sendmail", &["-bp"]),
        queue.command(&["-bp"]),
    ] {
        let listed = printed(command);
        assert!(ids.iter().all(|id| listed.contains(id)), "{listed}");
    }
    let one = format!("-qI{}", ids[0]);
    assert_eq!(printed(queue.command_named("sendmail", &[&one])), "");
    assert_eq!((queue.files("active").len(), queue.files("deferred").len()), (1, 1));
    assert_eq!(printed(queue.command_named("mailq", &["-q"])), "");
    assert_eq!((queue.files("active").len(), queue.files("deferred").len()), (2, 0));
    assert_eq!(
        printed(queue.command_named("sendmail", &["-q"])),
        "",
        "nothing is left to try, and that is no news"
    );
    assert_fails(queue.command_named("sendmail", &["-qINONE"]), 69, "sendmail: NONE: no such message");
}

#[test]
fn newaliases_says_what_is_wrong_with_the_configuration() {
    let queue = Queue::new();
    for (name, args) in [
        ("newaliases", &[][..]),
        ("newaliases", &["-v", "-oA/etc/aliases"]),
        ("sendmail", &["-bi"]),
        ("sendmail", &["-I"]),
    ] {
        assert_eq!(printed(queue.command_named(name, args)), "");
        let mut wrong = queue.command_named(name, args);
        wrong.env("LASTMILE_ALIASES", "{ root = [\"a b\"] }");
        assert_fails(wrong, 78, &format!("{name}: "));
    }
    assert!(queue.is_empty());
}

#[test]
fn help_and_version_are_for_people() {
    let queue = Queue::new();
    for name in ["sendmail", "smtpc", "mailq"] {
        let help = printed(queue.command_named(name, &["--help"]));
        assert!(help.contains("-f SENDER") && help.contains("lastmile-sendmail(1)"), "{help}");
        assert_eq!(
            printed(queue.command_named(name, &["--version"])),
            format!("lastmile {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn strict_callers_choose_neither_files_nor_recipients_by_accident() {
    let strict = |value: &str, args: &[&str]| {
        let queue = Queue::new();
        let mut command = queue.command_named("sendmail", args);
        command.env("LASTMILE_SENDMAIL_STRICT", value);
        (queue, command)
    };
    for args in [
        &["b@y"][..],
        &["-t", "-X/tmp/x"],
        &["-C", "/tmp/x", "--", "b@y"],
        &["-OQueueDirectory=/tmp", "--", "b@y"],
        &["-oQ/tmp", "--", "b@y"],
        &["--nexthop", "unix:/x", "--", "b@y"],
    ] {
        let (queue, command) = strict("1", args);
        assert_fails(
            command,
            64,
            "sendmail: the message was not sent: LASTMILE_SENDMAIL_STRICT is set and does not",
        );
        assert!(queue.is_empty(), "{args:?}");
    }
    for (value, args) in [
        ("1", &["-f", "a@x", "-oi", "--", "b@y"][..]),
        ("yes", &["-f", "a@x", "--", "-b@y"]),
        ("0", &["-f", "a@x", "-X/tmp/x", "b@y"]),
        ("", &["-f", "a@x", "b@y"]),
    ] {
        let (queue, command) = strict(value, args);
        assert_queued(&run(command, "Subject: x\n\n"));
        assert_eq!(queue.files("active").len(), 1);
    }
    let queue = Queue::new();
    let mut mailq = queue.command_named("mailq", &[]);
    mailq.env("LASTMILE_SENDMAIL_STRICT", "2");
    assert_fails(mailq, 78, "mailq: nothing was done: LASTMILE_SENDMAIL_STRICT is \"2\"");
    let (queue, command) = strict("perhaps", &["--", "b@y"]);
    assert_fails(command, 78, "sendmail: the message was not sent: LASTMILE_SENDMAIL_STRICT is \"perhaps\"");
    assert!(queue.is_empty());
}
