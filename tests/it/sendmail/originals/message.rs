//! The message: where it ends, line ends, what its header lacks and what it should not have.

use super::case::{Case, case, submits, submits_as};
use super::check;
use super::program::text;

const TO: &str = "<a@x> -> <b@y>";
/// A header that lacks nothing.
const HEADER: &str =
    "From: Ann <ann@x.example>\nDate: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <1@x.example>\n";

/// A message with this body, and what is left of it.
fn body(options: &[&str], body: &str, left: &str) -> Case {
    let args = [&["-f", "a@x"], options, &["b@y"]].concat();
    case(&args, submits_as(TO, format!("{HEADER}\n{left}"))).input(format!("{HEADER}\n{body}"))
}

/// A message, and how it goes out.
fn message(input: impl AsRef<[u8]>, content: &str) -> Case {
    case(&["-f", "a@x", "-i", "b@y"], submits_as(TO, content)).input(input)
}

#[test]
fn a_lone_dot_ends_it() {
    const NEVER: &str = "to it a dot is content always; scripts for sendmail end their mail so";
    let ended = |text: &str, left: &str| body(&[], text, left).msmtp(submits(TO), NEVER);
    check(&[
        ended("one\n.\ntwo\n", "one\n"),
        ended("one\r\n.\r\ntwo\r\n", "one\n"),
        ended("one\n.\r\ntwo\n", "one\n"),
        ended("one\n.", "one\n"),
        ended(".\n", ""),
        body(&[], "one\n..\ntwo\n", "one\n..\ntwo\n"),
        body(&[], "one\n.two\n", "one\n.two\n"),
        body(&[], "one\n. \ntwo\n", "one\n. \ntwo\n"),
        body(&[], "one.\ntwo\n", "one.\ntwo\n"),
    ]);
}

#[test]
fn a_lone_dot_does_not_end_it_with_i() {
    for option in ["-i", "-oi"] {
        check(&[
            body(&[option], "one\n.\ntwo\n", "one\n.\ntwo\n"),
            body(&[option], "one\r\n.\r\ntwo\r\n", "one\n.\ntwo\n"),
            body(&[option], "one\n.", "one\n.\n"),
            body(&[option], "one\n.\n", "one\n.\n"),
            body(&[option], "one\n..\n", "one\n..\n"),
        ]);
    }
}

#[test]
fn line_ends() {
    const CR: &str = "it keeps the CR, which RFC 5321 (section 2.3.8) does not allow";
    let crlf = format!("{HEADER}\none\ntwo\n").replace('\n', "\r\n");
    let long = format!("{}\n", "x".repeat(3000));
    check(&[
        body(&["-i"], "one\ntwo\n", "one\ntwo\n"),
        body(&["-i"], "one\ntwo", "one\ntwo\n"),
        body(&["-i"], "", ""),
        body(&["-i"], "\n", "\n"),
        body(&["-i"], "one\n\n", "one\n\n"),
        body(&["-i"], "one\0two\n", "one\0two\n"),
        body(&["-i"], "From here\n>From there\n", "From here\n>From there\n"),
        body(&["-i"], &long, &long),
        message(&crlf, &format!("{HEADER}\none\ntwo\n")),
        message(crlf.trim_end(), &format!("{HEADER}\none\ntwo\n")),
        // Some programs write a header with LF before a body with CRLF, or the other way round.
        body(&["-i"], "one\r\ntwo\r\n", "one\ntwo\n"),
        message(format!("{}\r\none\ntwo\n", HEADER.replace('\n', "\r\n")), &format!("{HEADER}\none\ntwo\n")),
        body(&["-i"], "one\rtwo\n", "one two\n").postfix(submits(TO), CR).msmtp(submits(TO), CR),
        body(&["-i"], "one\r\r\ntwo\n", "one \ntwo\n")
            .postfix(
                submits_as(TO, format!("{HEADER}\none\ntwo\n")),
                "it removes all CR there; we remove none and write a blank",
            )
            .msmtp(submits(TO), CR),
    ]);
}

/// The same message with fields added at the end of its header, and by msmtp at the beginning.
fn completed(input: &str, content: &str, by_msmtp: &str) -> Case {
    message(input, content).postfix(submits(TO), "its cleanup(8) adds fields later").msmtp(
        submits_as(TO, text(format!("{by_msmtp}{input}").as_bytes())),
        "it adds fields at the beginning, and no empty line after them",
    )
}

#[test]
fn what_its_header_lacks() {
    let from = "From: \"Ann Doe\" <a@x>\n";
    let (date, id) = ("Date: ???, * +0000\n", "Message-ID: <*@mx.example>\n");
    let all = format!("{from}{date}{id}");
    let (their_from, their_date, their_id) = ("From: a@x\n", "Date: *\n", "Message-ID: <*@x>\n");
    let theirs = format!("{their_from}{their_date}{their_id}");
    check(&[
        completed("Subject: x\n\nbody\n", &format!("Subject: x\n{all}\nbody\n"), &theirs),
        completed("Subject: x\n", &format!("Subject: x\n{all}\n"), &theirs),
        completed("Subject: x", &format!("Subject: x\n{all}\n"), &theirs),
        completed("Subject: x\n\n", &format!("Subject: x\n{all}\n"), &theirs),
        completed("", &format!("{all}\n"), &theirs),
        completed("\nbody\n", &format!("{all}\nbody\n"), &theirs),
        completed("body only\nno header\n", &format!("{all}\nbody only\nno header\n"), &theirs),
        completed("Subject: x\nbody follows\n", &format!("Subject: x\n{all}\nbody follows\n"), &theirs),
        completed(" folded\nSubject: x\n", &format!("{all}\n folded\nSubject: x\n"), &theirs),
        completed(
            "From: a@x\n\nbody\n",
            &format!("From: a@x\n{date}{id}\nbody\n"),
            &format!("{their_date}{their_id}"),
        ),
        completed(
            "Date: yesterday\n\nbody\n",
            &format!("Date: yesterday\n{from}{id}\nbody\n"),
            &format!("{their_from}{their_id}"),
        ),
        completed(
            "message-id: <1@x>\n\nbody\n",
            &format!("message-id: <1@x>\n{from}{date}\nbody\n"),
            &format!("{their_from}{their_date}"),
        ),
        completed(
            "From: not an address\n\nbody\n",
            &format!("From: not an address\n{date}{id}\nbody\n"),
            &format!("{their_date}{their_id}"),
        ),
    ]);
}

#[test]
fn the_null_sender_signs_as_the_mail_system() {
    let content = "Subject: x\nFrom: \"Mail Delivery System\" <MAILER-DAEMON@example>\nDate: *\n\
                   Message-ID: <*@mx.example>\n\nbody\n";
    let input = "Subject: x\n\nbody\n";
    let theirs = format!("From: \nDate: *\nMessage-ID: <*@*>\n{input}");
    check(&[case(&["-f", "", "-i", "b@y"], submits_as("<> -> <b@y>", content))
        .input(input)
        .postfix(submits("<> -> <b@y>"), "its cleanup(8) adds fields later")
        .msmtp(submits_as("<> -> <b@y>", theirs), "From without an address is no field of RFC 5322")]);
}

#[test]
fn a_lone_dot_in_its_header_ends_it_too() {
    let added = "From: \"Ann Doe\" <a@x>\nDate: *\nMessage-ID: <*@mx.example>\n";
    let input = "Subject: x\n.\nTo: n@n\n";
    check(&[case(&["-f", "a@x", "b@y"], submits_as(TO, format!("Subject: x\n{added}\n")))
        .input(input)
        .postfix(submits_as(TO, "Subject: x\n"), "its cleanup(8) adds fields later")
        .msmtp(
            submits_as(TO, format!("From: a@x\nDate: *\nMessage-ID: <*@x>\n{input}")),
            "to it a dot is content always",
        )]);
}

#[test]
fn what_its_header_should_not_have() {
    const KEPT: &str = "it keeps the field; the server that delivers adds its own";
    const MAILBOX: &str = "it keeps the line, and the server takes the header for a body";
    let rest = format!("{HEADER}\nbody\n");
    let returned = |field: &str| {
        message(format!("{field}{rest}"), &rest)
            .postfix(submits(TO), "its cleanup(8) removes the field later")
            .msmtp(submits(TO), KEPT)
    };
    let from_mailbox = |line: &str| message(format!("{line}{rest}"), &rest).msmtp(submits(TO), MAILBOX);
    let kept = |field: &str| message(format!("{field}{rest}"), &format!("{field}{rest}"));
    check(&[
        returned("Return-Path: <n@n>\n"),
        returned("return-path: <n@n>\n folded\n"),
        from_mailbox("From ann Sat Nov 21 19:30:00 2026\n"),
        from_mailbox(">From ann Sat Nov 21 19:30:00 2026\n"),
        from_mailbox("From a\n>>From b\nFrom c\n"),
        kept("Delivered-To: b@y\n"),
        kept("Content-Length: 5\n"),
        kept("Received: from x\n"),
    ]);
}
