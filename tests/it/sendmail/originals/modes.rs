//! Modes other than submitting a message.

use super::case::{Case, answers, case, misuse, refuses, submits_as};
use super::check;

const NO_QUEUE: &str = "it has no queue";
/// What a command of Postfix's would have done, had it not been replaced.
const BY_COMMAND: &str = "another command of its own does that; here it only says so";

/// Something that works, by what Postfix calls for it.
fn mode(args: &[&str], output: &'static str, calls: &'static str) -> Case {
    case(args, answers(output)).postfix(answers(calls), BY_COMMAND).msmtp(refuses(64), NO_QUEUE)
}

#[test]
fn the_queue_is_shown() {
    let empty = "Queue is empty\n";
    check(&[
        mode(&["-bp"], empty, "postqueue -p\n"),
        mode(&["-b", "p"], empty, "postqueue -p\n"),
        mode(&[], empty, "postqueue -p\n").named("mailq"),
        mode(&["-v"], empty, "postqueue -p -v\n").named("mailq"),
        misuse(&["-bp", "b@y"]),
    ]);
}

#[test]
fn the_queue_is_run() {
    const FOREGROUND: &str =
        "it does not have Sendmail's word for \"in the foreground\", which is how we do it anyway";
    check(&[
        mode(&["-q"], "", "postqueue -f\n"),
        case(&["-qI0LATEM1NUTE000000001"], refuses(69))
            .postfix(answers("postqueue -i 0LATEM1NUTE000000001\n"), BY_COMMAND)
            .msmtp(refuses(64), NO_QUEUE),
        case(&["-qf"], answers("")).postfix(refuses(75), FOREGROUND).msmtp(refuses(64), NO_QUEUE),
        misuse(&["-q", "b@y"]),
        misuse(&["-qI"]),
        misuse(&["-qSx.example"]),
        misuse(&["-tq"]),
        case(&["-qRx.example"], refuses(64))
            .postfix(answers("postqueue -s x.example\n"), "it keeps lists of sites"),
        case(&["-q30m"], refuses(64)).postfix(
            answers(""),
            "it does nothing and says nothing; who wants a queue run at intervals does not get it",
        ),
    ]);
}

#[test]
fn aliases() {
    let rebuilds = "postalias -- hash:";
    check(&[
        mode(&["-bi"], "", rebuilds),
        mode(&["-I"], "", rebuilds),
        mode(&[], "", rebuilds).named("newaliases"),
        misuse(&["-bi", "b@y"]),
    ]);
}

#[test]
fn what_only_a_mail_server_can_do() {
    const SERVER: &str = "it starts the mail system; ours is started as any other service";
    const NOTHING: &str = "it has no host status either, and says nothing";
    let probe = "From: a@x\nSubject: probe\nTo:\tb@y\n";
    check(&[
        case(&["-bd"], refuses(64)).postfix(answers(""), SERVER),
        case(&["-bd", "-q30m"], refuses(64)).postfix(answers(""), SERVER),
        case(&["-bl"], refuses(64)).postfix(answers(""), SERVER),
        misuse(&["-bD"]),
        misuse(&["-bt"]),
        misuse(&["-bz"]),
        // Whoever names a recipient has mistaken one letter for another: no mail goes out.
        misuse(&["-bd", "-f", "a@x", "b@y"]),
        misuse(&["-bD", "-f", "a@x", "b@y"]),
        misuse(&["-bt", "-f", "a@x", "b@y"]),
        misuse(&["-bz", "-f", "a@x", "b@y"]),
        case(&["-bh"], refuses(64)).postfix(answers(""), NOTHING),
        case(&["-bH"], refuses(64)).postfix(answers(""), NOTHING),
        case(&["-bv", "-f", "a@x", "b@y"], refuses(64))
            .postfix(submits_as("<a@x> TRACE=512 -> <b@y>", probe), "it mails a report about addresses"),
    ]);
}

#[test]
fn smtp_on_standard_input() {
    const NO_SMTP: &str = "it has no such mode";
    let dialogue = "EHLO x\r\nMAIL FROM:<a@x> RET=HDRS ENVID=QQ7\r\nRCPT TO:<b@y> NOTIFY=NEVER\r\nDATA\r\nFrom: a@x\r\n\
                    Date: Sat, 21 Nov 2026 19:30:00 +0000\r\nMessage-ID: <1@x>\r\n\r\n..\r\n.\r\nQUIT\r\n";
    let content = "From: a@x\nDate: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <1@x>\n\n.\n";
    let received = "Received: from x (localhost [127.0.0.1])\n\tby mx.example (Postfix) with ESMTP id *\n\tfor <b@y>; *\n";
    let envelope = "<a@x> RET=HDRS ENVID=QQ7 -> <b@y> NOTIFY=NEVER";
    let with_orcpt = "<a@x> -> <b@y> NOTIFY=NEVER ORCPT=rfc822;b@y";
    check(&[
        case(&["-bs"], answers("220 mx.example ESMTP")).input("QUIT\r\n").msmtp(refuses(64), NO_SMTP),
        case(&["-bs"], answers("220 mx.example ESMTP")).input("").msmtp(refuses(64), NO_SMTP),
        case(&["-bs"], submits_as(envelope, content))
            .input(dialogue)
            .postfix(
                submits_as(with_orcpt, format!("{received}{content}")),
                "it loses RET and ENVID in this mode, and adds ORCPT",
            )
            .msmtp(refuses(64), NO_SMTP),
        misuse(&["-bs", "-t"]).input("QUIT\r\n"),
        misuse(&["-bs", "b@y"]).input("QUIT\r\n"),
    ]);
}
