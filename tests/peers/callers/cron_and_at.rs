//! cron and at: a job's output becomes mail to its owner.
//!
//! - Owns: the lines that the daemons call sendmail with, tried without them and, where that is possible, by them.
//! - Leaves to others: aliases in general (`it::sendmail`).
//! - Always true: no crontab, spool or process of the machine is touched.

use super::support::Machine;

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
