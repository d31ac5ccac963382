//! git send-email: patches to a list.
//!
//! - Owns: its two ways to name sendmail, and how a failure stops a series.
//! - Leaves to others: its own SMTP client.
//! - Always true: what format-patch wrote is what is queued.

use std::process::{Command, Output};

use super::support::{Machine, REFUSALS, said};
use crate::common::agent;

/// What is easily lost on the way: a lone dot, a line that looks like a mailbox's, eight bits.
const LOG: &str = "Carry dots\n\nThe next line is a dot.\n.\nFrom here on Gr\u{fc}\u{df}e.\n";

fn has_send_email() -> bool {
    let found = Command::new("git").arg("--exec-path").output().ok().is_some_and(|output| {
        let directory = String::from_utf8_lossy(&output.stdout).into_owned();
        std::path::Path::new(directory.trim()).join("git-send-email").is_file()
    });
    if !found {
        eprintln!("skipped: there is no git send-email (apt-get install git-email libmailtools-perl)");
    }
    found
}

fn git(machine: &Machine, arguments: &[&str]) -> Output {
    let mut command = machine.command("git");
    command.env("GIT_CONFIG_NOSYSTEM", "1").args(arguments);
    agent::run(&mut command, b"")
}

/// A repository with two commits in the home.
fn repository() -> Machine {
    let machine = Machine::new();
    machine.write_home(
        ".gitconfig",
        "[user]\n\tname = Ann D\u{f6}\n\temail = ann@x.example\n[sendemail]\n\tconfirm = never\n\tsuppresscc = all\n",
    );
    let run = |arguments: &[&str]| {
        let output = git(&machine, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    run(&["init", "-q", "."]);
    let log = machine.write_home("log", LOG);
    for text in ["one\n", "two\n.\n"] {
        machine.write_home("file", text);
        run(&["add", "file"]);
        run(&["commit", "-q", "-F", log.to_str().unwrap()]);
    }
    machine
}

const TO: [&str; 5] =
    ["send-email", "--to=Bob <bob@y.example>", "--cc=c@z.example", "--bcc=d@z.example", "-1"];

#[test]
fn git_send_email_takes_a_path_for_its_server() {
    if !has_send_email() {
        return;
    }
    let machine = repository();
    let server = format!("--smtp-server={}", machine.sendmail());
    for (arguments, line, sender) in [
        (&[][..], "-i bob@y.example c@z.example d@z.example", None),
        (
            &["--envelope-sender=auto"],
            "-f ann@x.example -i bob@y.example c@z.example d@z.example",
            Some("ann@x.example"),
        ),
        (
            &["--envelope-sender=bounces@x.example", "--smtp-server-option=-Nfailure"],
            "-Nfailure -f bounces@x.example -i bob@y.example c@z.example d@z.example",
            Some("bounces@x.example"),
        ),
    ] {
        let output = git(&machine, &[&TO[..], arguments, &[&server]].concat());
        assert!(output.status.success() && said(&output).contains("Result: OK"), "{}", said(&output));
        let call = machine.call();
        assert_eq!(call.arguments.join(" "), line);
        let queued = machine.take_one();
        assert_eq!(queued.addresses(), ["bob@y.example", "c@z.example", "d@z.example"]);
        let plain = format!("{}@example.org", super::support::login());
        assert_eq!(queued.sender(), sender.unwrap_or(&plain));
        queued.assert_is(&call.input, &[]);
        let text = queued.text();
        let log = LOG.split_once("\n\n").unwrap().1;
        assert!(text.contains(&format!("\n\n{log}---\n")) && text.contains("\n+two\n+.\n"), "{text}");
        assert_eq!(queued.field("Cc").as_deref(), Some("c@z.example"));
        assert_eq!(queued.field("Bcc"), None);
        let notify = queued.recipients.iter().map(|recipient| recipient.get("notify").is_some());
        assert!(notify.clone().all(|has| has == line.contains("-N")), "{:?}", queued.recipients);
    }
}

#[test]
fn git_send_email_gives_a_command_to_the_shell() {
    if !has_send_email() {
        return;
    }
    let machine = repository();
    // As in sendemail.sendmailCmd: found in the path, with options of its own.
    let output = git(&machine, &[&TO[..], &["--sendmail-cmd=sendmail -R hdrs -V 'A 7'"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let call = machine.call();
    let line = ["-R", "hdrs", "-V", "A 7", "-i", "bob@y.example", "c@z.example", "d@z.example"];
    assert_eq!(call.arguments, line);
    let queued = machine.take_one();
    assert_eq!((&queued.head["ret"], &queued.head["envid"]), (&"HDRS".into(), &"A 7".into()));
    queued.assert_is(&call.input, &[]);
}

#[test]
fn git_send_email_ends_with_our_code_and_sends_no_further_patch() {
    if !has_send_email() {
        return;
    }
    let machine = repository();
    let server = format!("--smtp-server={}", machine.sendmail());
    let series = ["send-email", "--to=bob@y.example", "-2", &server];
    for (config, code) in REFUSALS {
        machine.configure(config);
        let output = git(&machine, &series);
        // Perl's die hands on what its child ended with.
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains("sendmail: the message was not queued: "), "{}", said(&output));
        assert_eq!(machine.calls().len(), 1);
        machine.assert_nothing_queued();
    }
    machine.configure("");
    let output = git(&machine, &series);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((machine.calls().len(), machine.take_queued().len()), (2, 2));
}
