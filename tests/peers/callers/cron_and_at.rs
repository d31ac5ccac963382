//! cron and at: a job's output becomes mail to its owner.
//!
//! - Owns: the lines that the daemons call sendmail with, tried without them and, where that is possible, by them.
//! - Leaves to others: aliases in general (`it::sendmail`).
//! - Always true: no crontab, spool or process of the machine is touched.

use std::path::Path;
use std::process::Stdio;

use super::support::{Call, Machine, Queued, has, said};
use crate::common::agent::SOON;
use crate::common::process::{Process, wait_for};

/// Mail from a job, as cron writes it: no Date, no Message-ID, dots and eight bits as the job printed them.
const FROM_CRON: &str = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@mx> printf '.\\nGr\u{fc}\u{df}e'\n\
    MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\
    X-Cron-Env: <SHELL=/bin/sh>\nX-Cron-Env: <HOME=/root>\n\n.\nGr\u{fc}\u{df}e\n";

#[test]
fn what_cron_has_called_through_the_years_reaches_root_s_alias() {
    let machine = Machine::with_config("[aliases]\nroot = [\"admin@example.net\"]\n");
    for line in [
        // Debian 12, with its two blanks; 11 and before; Vixie's.
        "-FCronDaemon -i -B8BITMIME -oem  root",
        "-i -FCronDaemon -B8BITMIME -oem root",
        "-FCronDaemon -odi -oem -oi -t",
    ] {
        let arguments: Vec<_> = line.split_whitespace().collect();
        let output = machine.run(&machine.sendmail(), &arguments, FROM_CRON.as_bytes());
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
        assert_eq!(machine.call().arguments, arguments);
        let queued = machine.take_one();
        assert_eq!(queued.addresses(), ["admin@example.net"], "{line}");
        queued.assert_is(FROM_CRON.as_bytes(), &["Date", "Message-ID"]);
    }
}

/// What both daemons find in their own view of the files: empty run and spool directories, and our sendmail.
const VIEW: &str = "set -e
    mount -t tmpfs none /run
    mount -t tmpfs none /var/spool/cron
    mount --bind bin/sendmail /usr/sbin/sendmail
";

/// Runs a script as root with a view of the files and with processes of its own; all of it ends with the result.
/// `None` where that cannot be. The script must not become the daemon: its shell dies with us, and all others with it,
/// while one that changes its identity, as atd does, loses the wish to.
fn privately(machine: &Machine, script: &str) -> Option<Process> {
    let skipped = |why: &str| {
        eprintln!("skipped: {why}");
        None
    };
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can give a daemon its own view of the files");
    }
    if !Path::new("/usr/sbin/sendmail").exists() {
        return skipped("there is no /usr/sbin/sendmail to hide (apt-get install postfix)");
    }
    let arguments = ["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"];
    let probe = machine.run("unshare", &[&arguments[..], &["mount -t tmpfs none /run"]].concat(), b"");
    if !probe.status.success() {
        return skipped(&format!("no private mounts here: {}", said(&probe)));
    }
    let mut command = machine.command("unshare");
    command.args(arguments).arg(format!("{VIEW}{script}")).current_dir(machine.path());
    Some(Process::start("the daemon", command.stdin(Stdio::null())))
}

/// Waits for two messages: root's, and that of a user who only drops into the queue. What each was called with.
#[track_caller]
fn root_s_and_nobody_s(machine: &Machine, mut daemon: Process) -> [(Call, Queued); 2] {
    wait_for("the jobs' mail", SOON, || {
        assert!(daemon.ended().is_none(), "the daemon ended");
        (machine.count_queued() == 2).then_some(())
    });
    // Nobody writes any more when we look.
    drop(daemon);
    wait_for("the daemon's end", SOON, || (!is_any_left(machine)).then_some(()));
    let mut messages = machine.take_queued();
    messages.sort_by_key(|message| message.sender().to_owned());
    let senders: Vec<_> = messages.iter().map(Queued::sender).collect();
    assert_eq!(senders, ["nobody@example.org", "root@example.org"]);
    let mut calls = machine.calls();
    let body = |octets: &[u8]| octets.windows(7).any(|window| window == b"for nob");
    calls.sort_by_key(|call| !body(&call.input));
    let both: Vec<_> = calls.into_iter().zip(messages).rev().collect();
    both.try_into().unwrap()
}

/// Whether a process of this machine runs.
fn is_any_left(machine: &Machine) -> bool {
    let home = format!("HOME={}\0", machine.home().display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    // A process that has ended by now is not left.
    let environments = processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok());
    environments.into_iter().any(|octets| octets.windows(home.len()).any(|window| window == home.as_bytes()))
}

#[test]
fn cron_mails_a_job_s_output() {
    if !has("cron", "cron") {
        return;
    }
    let machine = Machine::with_config("[aliases]\nroot = [\"admin@example.net\"]\n");
    std::fs::create_dir(machine.path().join("empty")).unwrap();
    let jobs = "@reboot root printf 'for root\\n.\\nend\\n'\n\
                @reboot nobody echo for nobody; exit 3\n";
    std::fs::write(machine.path().join("crontab"), jobs).unwrap();
    let script = "mkdir -p /var/spool/cron/crontabs
        mount --bind crontab /etc/crontab
        mount --bind empty /etc/cron.d
        cron -f &
        wait";
    let Some(daemon) = privately(&machine, script) else { return };
    let [(call, queued), (nobody_s_call, nobody_s)] = root_s_and_nobody_s(&machine, daemon);

    let line = "-FCronDaemon -i -B8BITMIME -oem";
    assert_eq!(call.arguments.join(" "), format!("{line} root"));
    assert_eq!(queued.addresses(), ["admin@example.net"]);
    queued.assert_is(&call.input, &["Date", "Message-ID"]);
    assert_eq!(queued.field("From").as_deref(), Some("root (Cron Daemon)"));
    assert!(queued.content.ends_with(b"\r\n\r\nfor root\r\n.\r\nend\r\n"), "{}", queued.text());

    assert_eq!(nobody_s_call.arguments.join(" "), format!("{line} nobody"));
    assert_eq!(nobody_s.addresses(), ["nobody@example.org"]);
    nobody_s.assert_is(&nobody_s_call.input, &["Date", "Message-ID"]);
    assert!(nobody_s.head["origin"] == "uid=65534", "{:?}", nobody_s.head);
    assert!(nobody_s.content.ends_with(b"\r\n\r\nfor nobody\r\n"), "{}", nobody_s.text());
}

#[test]
fn at_mails_a_job_s_output() {
    if !has("atd", "at") {
        return;
    }
    let machine = Machine::with_config("[aliases]\nroot = [\"admin@example.net\"]\n");
    std::fs::write(machine.path().join("nobody-denied"), "").unwrap();
    std::fs::write(machine.path().join("output"), "for root\n.\nend\n").unwrap();
    let script = "
        install -d -m 1770 -o daemon -g daemon /var/spool/cron/atjobs /var/spool/cron/atspool
        install -m 600 -o daemon -g daemon /dev/null /var/spool/cron/atjobs/.SEQ
        mount --bind nobody-denied /etc/at.deny
        echo \"cat '$PWD/output'\" | at now
        cd /
        echo 'echo for nobody' | setpriv --reuid nobody --regid nogroup --clear-groups at now
        atd -f -b 1 -l 1000 &
        wait";
    let Some(daemon) = privately(&machine, script) else { return };
    let [(call, queued), (nobody_s_call, nobody_s)] = root_s_and_nobody_s(&machine, daemon);

    assert_eq!(call.arguments, ["-i", "root"]);
    assert_eq!(queued.addresses(), ["admin@example.net"]);
    queued.assert_is(&call.input, &["From", "Date", "Message-ID"]);
    assert!(queued.field("Subject").unwrap().starts_with("Output from your job "));
    assert!(queued.content.ends_with(b"\r\n\r\nfor root\r\n.\r\nend\r\n"), "{}", queued.text());

    assert_eq!(nobody_s_call.arguments, ["-i", "nobody"]);
    assert_eq!(nobody_s.addresses(), ["nobody@example.org"]);
    nobody_s.assert_is(&nobody_s_call.input, &["From", "Date", "Message-ID"]);
    assert!(nobody_s.field("From").unwrap().ends_with("<nobody@example.org>"));
}
