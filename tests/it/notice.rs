//! Our notices, read by another program: Python's email package.
//!
//! The texts in `notice/` are what an administrator or a sender gets to see.

use std::io::Write as _;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use lastmile::mail::{
    Address, BodyType, Envelope, OriginalRecipient, Protocol, QueueId, Reason, Recipient, Return,
};
use lastmile::notice::{Author, Kind, Notice, Report, ReportedRecipient, Said, Trouble, TroubleClass};

const CONTENT: &str = "From: Ann <ann@x.example>\r\nSubject: Plans\r\n\r\nLet us meet.\r\n";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn envelope(content: &str) -> Envelope {
    Envelope {
        id: "0LATEM1NUTE000000001".parse().unwrap(),
        sender: "ann@x.example".parse().unwrap(),
        arrival: at("2026-11-21T19:30:00Z"),
        nexthop: None,
        body: BodyType::SevenBit,
        smtputf8: false,
        envid: None,
        ret: None,
        origin: "uid=1000".to_owned(),
        size: content.len() as u64,
    }
}

/// A refusal in the server's words.
fn refused(address: &str, status: &str, reply: &str) -> (Recipient, Reason) {
    let said = reply.replace('\n', " ");
    let text = format!("host mx.example[/run/lmtp] said: {said} (in reply to RCPT TO command)");
    let reason = Reason { status: status.parse().unwrap(), text, reply: Some(reply.to_owned()) };
    (Recipient::new(0, address.parse().unwrap()), reason)
}

/// Writes a report on `recipients`, who were tried over LMTP.
fn report(
    kind: Kind,
    to: &str,
    envelope: &Envelope,
    recipients: &[(Recipient, Reason)],
    content: &str,
) -> Notice {
    report_over(Protocol::Lmtp, kind, to, envelope, recipients, content)
}

fn report_over(
    protocol: Protocol,
    kind: Kind,
    to: &str,
    envelope: &Envelope,
    recipients: &[(Recipient, Reason)],
    content: &str,
) -> Notice {
    let reported: Vec<_> = recipients
        .iter()
        .map(|(recipient, reason)| ReportedRecipient {
            recipient,
            reason,
            remote_mta: reason.reply.is_some().then_some("mx.example"),
            protocol,
            last_attempt: Some(at("2026-11-21T19:31:00Z")),
        })
        .collect();
    let to: Address = to.parse().unwrap();
    let (id, author) = (QueueId::new(0, 0), Author { hostname: "mx.example", origin: "example" });
    let (content_start, now) = (content.as_bytes(), at("2026-11-21T19:31:01Z"));
    let report = Report {
        kind,
        id,
        author,
        to: &to,
        envelope,
        recipients: &reported,
        content_start,
        return_limit: 50_000,
        now,
    };
    report.write()
}

/// What Python makes of a notice.
fn read(notice: &Notice) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/notice.py");
    let mut python = Command::new("python3")
        .arg(script)
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed to read the notices");
    python.stdin.take().unwrap().write_all(&notice.content).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Compares line by line, so that a difference shows where it is.
fn assert_reads(notice: &Notice, expected: &str) {
    let text = read(notice);
    for (line, (got, want)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "line {} of\n{text}", line + 1);
    }
    assert_eq!(text, expected);
}

#[test]
fn a_bounce_names_the_host_its_words_and_what_to_do() {
    let mut envelope = envelope(CONTENT);
    envelope.envid = Some("QQ-7".to_owned());
    let mut recipients = vec![
        refused("bob@y.example", "5.1.1", "550-5.1.1 no such user\n550 5.1.1 <bob@y.example> really"),
        (
            Recipient::new(1, "carl@y.example".parse().unwrap()),
            Reason::local("5.4.6".parse().unwrap(), "mail forwarding loop for carl@y.example"),
        ),
    ];
    recipients[0].0.orcpt = Some("rfc822;robert@z.example".parse::<OriginalRecipient>().unwrap());
    let notice = report(Kind::Bounce, "ann@x.example", &envelope, &recipients, CONTENT);
    assert_eq!((notice.body, notice.smtputf8, notice.origin), (BodyType::SevenBit, false, "bounce"));
    assert_reads(&notice, include_str!("notice/bounce.txt"));
}

#[test]
fn a_delay_notice_says_until_when() {
    let kind = Kind::Delay { retry_until: at("2026-11-26T19:30:00Z") };
    let recipients = [refused("bob@y.example", "4.2.1", "450 4.2.1 mailbox busy")];
    let notice = report(kind, "ann@x.example", &envelope(CONTENT), &recipients, CONTENT);
    assert_eq!(notice.origin, "delay");
    assert_reads(&notice, include_str!("notice/delay.txt"));
}

#[test]
fn a_success_notice_tells_delivered_from_relayed() {
    let mut envelope = envelope(CONTENT);
    envelope.envid = Some("QQ-7".to_owned());
    let recipients = [refused("bob@y.example", "2.0.0", "250 2.0.0 stored")];
    let notice = report(Kind::Success, "ann@x.example", &envelope, &recipients, CONTENT);
    assert_eq!(notice.origin, "success");
    let relayed =
        report_over(Protocol::Smtp, Kind::Success, "ann@x.example", &envelope, &recipients, CONTENT);
    assert_reads(&relayed, include_str!("notice/relayed.txt"));
    assert_reads(&notice, include_str!("notice/success.txt"));
}

#[test]
fn a_double_bounce_goes_to_the_postmaster() {
    let mut envelope = envelope(CONTENT);
    envelope.sender = "".parse().unwrap();
    let recipients = [refused("ann@x.example", "5.2.2", "552 5.2.2 over quota")];
    let notice = report(Kind::DoubleBounce, "postmaster@example", &envelope, &recipients, CONTENT);
    assert_eq!(notice.origin, "postmaster");
    assert_reads(&notice, include_str!("notice/double.txt"));
}

#[test]
fn a_bounce_in_eight_bits_with_ret_hdrs_says_so() {
    let content = "Subject: Gr\u{fc}\u{df}e\r\n\r\nbody\r\n";
    let mut envelope = envelope(content);
    (envelope.ret, envelope.body) = (Some(Return::Headers), BodyType::EightBitMime);
    let recipients = [refused("bob@y.example", "5.7.1", "550 5.7.1 nicht f\u{fc}r uns")];
    let notice = report(Kind::Bounce, "ann@x.example", &envelope, &recipients, content);
    assert_eq!((notice.body, notice.smtputf8), (BodyType::EightBitMime, false));
    let text = read(&notice);
    for line in [
        "multipart/report delivery-status",
        "  Diagnostic-Code: smtp; 550 5.7.1 nicht f?r uns",
        "= text/rfc822-headers (Header of the message) 8bit",
        "  | Subject: Gr\u{fc}\u{df}e",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is missing in\n{text}");
    }
    assert!(!text.contains("body") && !text.contains("DEFECT") && !text.contains("BAD LINE"), "{text}");
}

#[test]
fn an_international_bounce_uses_the_international_types() {
    let content = "From: \u{e9}@x.example\r\nSubject: \u{e9}\r\n\r\nbody\r\n";
    let mut envelope = envelope(content);
    (envelope.sender, envelope.smtputf8) = ("\u{e9}@x.example".parse().unwrap(), true);
    let mut recipients = [refused("\u{e8}@y.example", "5.1.1", "550 5.1.1 <\u{e8}@y.example> unknown")];
    recipients[0].0.orcpt = Some("utf-8;\u{e0}@z.example".parse().unwrap());
    let notice = report(Kind::Bounce, "\u{e9}@x.example", &envelope, &recipients, content);
    assert_eq!((notice.body, notice.smtputf8), (BodyType::EightBitMime, true));
    let text = read(&notice);
    for line in [
        "To: \u{e9}@x.example",
        "multipart/report global-delivery-status",
        "= message/global-delivery-status (Delivery report) 8bit",
        "  | X-Lastmile-Sender: utf-8; \u{e9}@x.example",
        "  | Original-Recipient: utf-8; \u{e0}@z.example",
        "  | Final-Recipient: utf-8; \u{e8}@y.example",
        "  | Diagnostic-Code: smtp; 550 5.1.1 <\u{e8}@y.example> unknown",
        "= message/global (The message) 8bit",
        "  | Subject: \u{e9}",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is missing in\n{text}");
    }
    assert!(!text.contains("BAD LINE"), "{text}");
}

#[test]
fn a_large_message_comes_back_as_its_header() {
    let content = format!("{CONTENT}{}", "line\r\n".repeat(10_000));
    let recipients = [refused("bob@y.example", "5.3.4", "552 5.3.4 too big")];
    let notice = report(Kind::Bounce, "ann@x.example", &envelope(&content), &recipients, &content);
    let text = read(&notice);
    assert!(text.contains("= text/rfc822-headers (Header of the message, which is large) 7bit\n"), "{text}");
    assert!(text.contains("  | Subject: Plans\n") && !text.contains("Let us meet"), "{text}");
}

#[test]
fn a_protocol_notice_shows_the_conversation() {
    let trouble = Trouble {
        class: TroubleClass::Protocol,
        id: QueueId::new(0, 0),
        author: Author { hostname: "mx.example", origin: "example" },
        to: &"postmaster@example".parse().unwrap(),
        about: "The server mx.example[/run/lmtp] answered RSET with \"hello\". Its connection was closed; the mail \
                is tried again.",
        transcript: &[Said::Server("220 here"), Said::Client("RSET"), Said::Server("hello")],
        now: at("2026-11-21T19:31:01Z"),
    };
    assert_reads(&trouble.write(), include_str!("notice/protocol.txt"));
}
