//! Whole sessions in memory: what the client writes, what it hears, what is queued. That how the input is cut makes no
//! difference, and what can be a message at all, is held by the check `smtp_session` in `tests/fuzz`.

use std::io::{self, BufRead, Read, Write};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::session::{AFTER_DATA, Session, Transaction};
use super::wire::Wire;
use super::{Failure, converse};
use crate::cli::sendmail::options::Options;
use crate::config::{Config, Sources};
use crate::mail::{Notify, QueueId, Recipient, Return};
use crate::spool::SubmitError;

/// Octets of a message.
const SIZE_MAX: u64 = 1000;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let overrides = [
        "myhostname=mx.example",
        "myorigin=example",
        "message_size_limit=1000",
        "aliases={ root = [\"ann\", \"ops@other\"] }",
    ];
    let overrides = overrides.map(ToOwned::to_owned).to_vec();
    Config::load(&Sources { file: Some("/dev/null".into()), environment: Vec::new(), overrides }).unwrap()
});

/// A message that was queued.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Queued {
    sender: String,
    recipients: Vec<Recipient>,
    envid: Option<String>,
    ret: Option<Return>,
    smtputf8: bool,
    content: Vec<u8>,
}

impl Queued {
    fn to(&self) -> String {
        let addresses: Vec<_> = self.recipients.iter().map(|r| r.address.to_string()).collect();
        addresses.join(" ")
    }
}

/// How a session went.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// What the client heard, lines ended by LF.
    heard: String,
    queued: Vec<Queued>,
    /// The exit code, and the line on standard error.
    end: (u8, String),
}

impl Heard {
    /// The codes of the replies but for the greeting, one a reply.
    fn codes(&self) -> String {
        let last = self.heard.lines().filter(|line| line.as_bytes().get(3) != Some(&b'-'));
        last.skip(1).map(|line| &line[..3]).collect::<Vec<_>>().join(" ")
    }

    fn contents(&self) -> Vec<&str> {
        self.queued.iter().map(|queued| std::str::from_utf8(&queued.content).unwrap()).collect()
    }
}

/// Hands the input out in pieces, with an interruption before each.
struct Pieces<'a> {
    input: &'a [u8],
    size: usize,
    interrupted: bool,
    /// What comes when nothing is left.
    end: Option<io::ErrorKind>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if let (true, Some(end)) = (self.input.is_empty(), self.end) {
            return Err(end.into());
        }
        let length = self.size.min(self.input.len()).min(buffer.len());
        let (piece, rest) = self.input.split_at(length);
        buffer[..length].copy_from_slice(piece);
        self.input = rest;
        Ok(length)
    }
}

/// Takes a number of writes, and then no more.
struct Output {
    heard: Vec<u8>,
    writes: usize,
}

impl Write for Output {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.writes = self.writes.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        self.heard.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn play(input: Pieces<'_>, writes: usize, options: &Options) -> Heard {
    let mut queued = Vec::new();
    let mut queue = |transaction: Transaction<'_>, content: &mut dyn BufRead| {
        let mut octets = Vec::new();
        content.take(SIZE_MAX + 1).read_to_end(&mut octets).map_err(SubmitError::Content)?;
        if octets.len() as u64 > SIZE_MAX {
            return Err(SubmitError::TooLarge(SIZE_MAX).into());
        }
        if octets.starts_with(b"doubt") {
            let source = io::ErrorKind::StorageFull.into();
            return Err(SubmitError::InDoubt { path: "/q\n\u{e9}".into(), source }.into());
        }
        queued.push(Queued {
            sender: transaction.sender.to_string(),
            recipients: transaction.recipients.into_vec(),
            envid: transaction.envid,
            ret: transaction.ret,
            smtputf8: transaction.smtputf8,
            content: octets,
        });
        Ok::<_, Failure>(Some(QueueId::new(1, queued.len() as u64)))
    };
    let mut output = Output { heard: Vec::new(), writes };
    let mut wire = Wire::new(input, &mut output);
    let ended = converse(Session::new(&CONFIG, options), &mut wire, &mut queue);
    let end = ended.map_or_else(|failure| (failure.code(), failure.to_string()), |()| (0, String::new()));
    let heard = String::from_utf8(output.heard).unwrap();
    assert!(heard.lines().all(|line| line.len() <= 510), "{heard}");
    assert_eq!(heard.matches('\n').count(), heard.matches("\r\n").count());
    Heard { heard: heard.replace("\r\n", "\n"), queued, end }
}

fn talk_in(input: impl AsRef<[u8]>, size: usize) -> Heard {
    let pieces = Pieces { input: input.as_ref(), size, interrupted: false, end: None };
    play(pieces, usize::MAX, &Options::default())
}

fn talk(input: impl AsRef<[u8]>) -> Heard {
    talk_in(input, usize::MAX)
}

/// Lines, with CR LF.
fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

const MAIL: &str = "MAIL FROM:<a@x>\nRCPT TO:<b@y>\n";

#[test]
fn a_session_as_it_is_written_everywhere() {
    let session = talk(crlf(
        "EHLO client\nMAIL FROM:<a@x> SIZE=20 BODY=8BITMIME\nRCPT TO:<b@y>\nRCPT TO:<root>\nDATA\n\
         Subject: x\n\n..dot\n.\nRSET\nQUIT\nNOOP\n",
    ));
    assert_eq!(
        session.heard,
        "220 mx.example ESMTP lastmile\n250-mx.example\n250-PIPELINING\n250-SIZE 1000\n\
         250-ENHANCEDSTATUSCODES\n250-8BITMIME\n250-DSN\n250 SMTPUTF8\n250 2.1.0 ok\n250 2.1.5 ok\n\
         250 2.1.5 ok\n354 end the message with a dot on a line of its own\n\
         250 2.0.0 queued as 00000000001100000000\n250 2.0.0 ok\n221 2.0.0 bye\n"
    );
    assert_eq!(session.end, (0, String::new()));
    assert_eq!(session.contents(), ["Subject: x\r\n\r\n.dot\r\n"]);
    assert_eq!(session.queued[0].sender, "a@x");
    assert_eq!(session.queued[0].to(), "b@y ann@example ops@other");
}

#[test]
fn every_command_has_its_answer() {
    for (lines, codes) in [
        ("EHLO x\nHELO x\nEHLO\nHELO\nHELO \n", "250 250 501 501 501"),
        ("NOOP\nnoop with words\n NOOP\nNoOp \n\tNOOP\n", "250 250 250 250 250"),
        ("VRFY a\nVRFY\nEXPN list\nHELP\nHELP MAIL\n", "252 252 502 214 214"),
        ("STARTTLS\nAUTH PLAIN AGEAYg==\nNONSENSE\n\nETRN x\n", "502 503 500 500 500"),
        ("RSET\nRSET x\n", "250 501"),
        ("MAIL FROM:<a@x>\nMAIL FROM:<a@x>\nRSET\nMAIL FROM:<a@x>\n", "250 503 250 250 421"),
        ("MAIL FROM:<a@x>\nEHLO x\nRCPT TO:<b@y>\n", "250 250 503"),
        ("RCPT TO:<b@y>\nDATA\n", "503 503"),
        ("MAIL FROM:<a@x>\nDATA\nRCPT TO:<b@y>\nDATA x\n", "250 554 250 501 421"),
        ("QUIT\nNOOP\n", "221"),
        ("MAIL FROM:<a@x>\nQUIT\n", "250 221"),
        // A line that has no end is no command.
        ("NOOP\nMAIL FROM:<a@x>", "250"),
        ("MAIL FROM:<a@x>\nQUIT", "250 421"),
        ("", ""),
    ] {
        let session = talk(crlf(lines));
        assert_eq!(session.codes(), codes, "{lines:?}");
    }
}

#[test]
fn senders_and_recipients_are_read_as_generously_as_elsewhere() {
    for (path, code, address) in [
        ("<a@x>", 250, "a@x"),
        (" <a@x>", 250, "a@x"),
        ("\t<a@x> ", 250, "a@x"),
        ("a@x", 250, "a@x"),
        (" a@x", 250, "a@x"),
        ("< a@x >", 250, "a@x"),
        ("<a>", 250, "a@example"),
        ("<postmaster>", 250, "postmaster@example"),
        ("<\"a b\"@x>", 250, "\"a b\"@x"),
        ("<\"a>b\"@x>", 250, "\"a>b\"@x"),
        ("<@h1,@h2:a@x>", 250, "a@x"),
        ("<a@[192.0.2.1]>", 250, "a@[192.0.2.1]"),
        ("<jos\u{e9}@x>", 250, "jos\u{e9}@x"),
        ("", 501, ""),
        (" ", 501, ""),
        ("<a@x", 501, ""),
        ("a@x>", 501, ""),
        ("<a@>", 501, ""),
        ("<@x>", 501, ""),
        ("<a b@x>", 501, ""),
        ("<a@x, b@y>", 501, ""),
        ("<<a@x>>", 501, ""),
        ("Ann <a@x>", 555, ""),
        ("a@x X=y", 555, ""),
        ("<a@x> x", 555, ""),
        ("<a@x>x", 555, ""),
    ] {
        for (start, keyword) in [("", "MAIL FROM:"), ("MAIL FROM:<s@x>\n", "RCPT TO:"), ("", "mail from:")] {
            let session = talk(crlf(&format!("{start}{keyword}{path}\nRCPT TO:<r@x>\nDATA\n.\n")));
            let nth = usize::from(!start.is_empty());
            assert_eq!(session.codes().split(' ').nth(nth), Some(&*code.to_string()), "{keyword}{path}");
            if code == 250 {
                let queued = &session.queued[0];
                let found = if start.is_empty() { queued.sender.clone() } else { queued.to() };
                assert!(found.starts_with(address) && !address.is_empty(), "{keyword}{path}: {found}");
            }
        }
    }
    for (line, code) in [
        ("MAIL FROM:<>", 250),
        ("MAIL FROM: < >", 250),
        ("MAIL FROM", 501),
        ("MAIL", 501),
        ("MAIL TO:<a@x>", 501),
        ("MAIL <a@x>", 501),
        ("MAIL FR\u{d6}M:<a@x>", 501),
    ] {
        assert_eq!(talk(format!("{line}\r\n")).codes().split(' ').next(), Some(&*code.to_string()), "{line}");
    }
    assert_eq!(talk(crlf("MAIL FROM:<>\nRCPT TO:<>\n")).codes(), "250 501 421");
    assert_eq!(talk(crlf("MAIL FROM:<>\nRCPT TO:<b@y>\nDATA\n.\n")).queued[0].sender, "");
}

#[test]
fn parameters_are_kept_and_wrong_ones_refused() {
    for (parameters, code) in [
        (" SIZE=1000", 250),
        (" SIZE=0", 250),
        (" SIZE=1001", 552),
        (" SIZE=99999999999999999999", 552),
        (" SIZE=999999999999999999999", 501),
        (" SIZE=+1", 501),
        (" SIZE", 501),
        (" BODY=7bit", 250),
        (" BODY=8BITMIME", 250),
        (" BODY=BINARYMIME", 501),
        (" SMTPUTF8", 250),
        (" SMTPUTF8=yes", 501),
        (" RET=FULL ENVID=QQ+2B7", 250),
        (" ret=hdrs", 250),
        (" RET=ALL", 501),
        (" RET=FULL RET=FULL", 501),
        (" ENVID=", 501),
        (" ENVID=a+2", 501),
        (" ENVID=a+0Ab", 501),
        (" AUTH=<>", 555),
        (" X", 555),
    ] {
        let session = talk(crlf(&format!("MAIL FROM:<a@x>{parameters}\nQUIT\n")));
        assert_eq!(session.codes(), format!("{code} 221"), "{parameters}");
    }
    for (parameters, code) in [
        (" NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc@y", 250),
        (" NOTIFY=NEVER", 250),
        (" NOTIFY=NEVER,SUCCESS", 501),
        (" NOTIFY=", 501),
        (" ORCPT=b@y", 501),
        (" ORCPT=rfc822;b+c@y", 501),
        (" SIZE=1", 555),
    ] {
        let session = talk(crlf(&format!("MAIL FROM:<a@x>\nRCPT TO:<b@y>{parameters}\nQUIT\n")));
        assert_eq!(session.codes(), format!("250 {code} 221"), "{parameters}");
    }
    let session = talk(crlf(
        "EHLO x\nMAIL FROM:<a@x> ENVID=Q+2BQ RET=HDRS SMTPUTF8\nRCPT TO:<b@y> NOTIFY=NEVER\n\
         RCPT TO:<root> ORCPT=rfc822;old@y NOTIFY=DELAY\nRCPT TO:<ops@other> NOTIFY=NEVER\nRCPT TO:<c@y>\n\
         DATA\n.\n",
    ));
    let queued = &session.queued[0];
    assert_eq!(
        (queued.envid.as_deref(), queued.ret, queued.smtputf8),
        (Some("Q+Q"), Some(Return::Headers), true)
    );
    let recipients: Vec<_> = queued
        .recipients
        .iter()
        .map(|r| (r.address.to_string(), r.notify, r.orcpt.as_ref().map_or("", |orcpt| orcpt.as_str())))
        .collect();
    let expected = [
        ("b@y", Notify::NEVER, ""),
        ("ann@example", Notify::DELAY, "rfc822;old@y"),
        ("ops@other", Notify::DELAY, "rfc822;old@y"),
        ("c@y", Notify::default(), ""),
    ];
    assert_eq!(recipients, expected.map(|(address, notify, orcpt)| (address.to_owned(), notify, orcpt)));
}

#[test]
fn one_message_says_nothing_about_the_next() {
    let session = talk(crlf(&format!(
        "{MAIL}DATA\none\n.\nMAIL FROM:<c@x> ENVID=7 RET=FULL SMTPUTF8\nRCPT TO:<d@y>\nRSET\n{MAIL}DATA\ntwo\n.\n\
         DATA\nQUIT\n"
    )));
    assert_eq!(session.codes(), "250 250 354 250 250 250 250 250 250 354 250 503 221");
    let one = &session.queued[0];
    assert_eq!(session.queued[1], Queued { content: b"two\r\n".to_vec(), ..one.clone() });
}

#[test]
fn what_is_no_command_is_refused_and_patience_ends() {
    for line in [
        &b"MAIL FROM:<a\0@x>"[..],
        b"NOOP \x07",
        b"NOOP\x7f",
        b"NOOP \xe9",
        b"NO\rOP",
        b"NOOP\r",
        b"\xc2\x85",
    ] {
        let session = talk([line, b"\r\nQUIT\r\n"].concat());
        assert_eq!(session.codes(), "500 221", "{line:?}");
    }
    let session = talk("XYZZY\r\n".repeat(60));
    assert_eq!(session.codes(), format!("{}421", "500 ".repeat(50)));
    assert_eq!(session.end, (65, "the session has ended: too many bad commands".to_owned()));
    let session = talk(format!("{}NOOP\r\n", "XYZZY\r\n".repeat(50)).repeat(3));
    assert!(!session.codes().contains("421"), "{}", session.heard);
}

#[test]
fn a_line_has_a_length() {
    for (length, code) in [(8192, 250), (8193, 500), (20_000, 500), (200_000, 500)] {
        for (line_end, size) in [("\r\n", 1000), ("\n", 1000), ("\r\n", 1), ("\r\n", 8193), ("\r\n", 1 << 20)]
        {
            let line = format!("NOOP {}{line_end}QUIT{line_end}", "x".repeat(length - 5));
            assert_eq!(talk_in(&line, size).codes(), format!("{code} 221"), "{length} {line_end:?} {size}");
        }
    }
    // What stands at its end is no command either.
    for size in [1, 1000, 1 << 20] {
        assert_eq!(talk_in(format!("{}QUIT\r\nNOOP\r\n", " ".repeat(20_000)), size).codes(), "500 250");
    }
    // Without an end it is none, and costs nothing.
    assert_eq!(talk("x".repeat(1 << 20)).codes(), "");
}

#[test]
fn a_message_that_is_refused_is_read_to_its_end() {
    let body = "QUIT\nMAIL FROM:<evil@x>\n".repeat(10_000);
    let session = talk(crlf(&format!("{MAIL}DATA\n{body}.\n{MAIL}DATA\nsmall\n.\nQUIT\n")));
    assert_eq!(session.codes(), "250 250 354 552 250 250 354 250 221");
    assert_eq!(session.contents(), ["small\r\n"]);
    assert!(
        session.heard.contains(
            "\n552 5.3.4 the message was not queued: it is larger than the 1000 octets of message_size_limit\n"
        ),
        "{}",
        session.heard
    );
}

#[test]
fn what_may_be_queued_is_not_called_refused_for_good() {
    let session = talk(crlf(&format!("{MAIL}DATA\ndoubt\n.\n{MAIL}DATA\nhi\n.\nQUIT\n")));
    assert_eq!(session.codes(), "250 250 354 451 250 250 354 250 221");
    let reply = session.heard.lines().find(|line| line.starts_with("451")).unwrap();
    assert!(reply.starts_with("451 4.3.0 the message may be queued: cannot write /q??"), "{reply}");
    assert_eq!(session.contents(), ["hi\r\n"]);
}

/// People at a terminal and scripts write LF, all through.
#[test]
fn lines_may_end_in_lf_if_all_of_them_do() {
    let session = talk(format!("EHLO x\n{MAIL}DATA\nSubject: x\n\n..dot\n.\n{MAIL}DATA\ntwo\n.\nQUIT\n"));
    assert_eq!(session.codes(), "250 250 250 354 250 250 250 354 250 221");
    assert_eq!(session.contents(), ["Subject: x\n\n.dot\n", "two\n"]);
}

/// Content that somebody has thought up who would like to send a message of his own.
#[test]
fn no_line_end_but_the_clients_own_ends_a_message() {
    let evil = "MAIL FROM:<evil@x>\nRCPT TO:<victim@y>\nDATA\nsmuggled\n.\n";
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\n.\r",
        "\r.\n",
        "\r\n\0.\r\n",
        "\r\n .\r\n",
    ] {
        for evil in [evil.to_owned(), crlf(evil), evil.replace('\n', "\r")] {
            let stuffed =
                crlf(&format!("{MAIL}DATA\n")) + "hi" + end + &evil.replace("\r\n.\r\n", "\r\n..\r\n");
            let session = talk(stuffed.clone() + "\r\n.\r\nQUIT\r\n");
            assert_eq!(session.codes(), "250 250 354 250 221", "{end:?} {evil:?}");
            let queued = &session.queued[0];
            assert_eq!((session.queued.len(), &*queued.sender, &*queued.to()), (1, "a@x", "b@y"));
            assert!(session.contents()[0].contains("smuggled"), "{end:?} {evil:?}");
            let session = talk(stuffed + "\r\n");
            assert_eq!((session.queued.len(), session.end.0), (0, 74), "{end:?} {evil:?}");
        }
    }
    // One CR LF on the way is enough to make them count.
    for start in [
        "EHLO x\r\nMAIL FROM:<a@x>\n",
        &format!("{}\r\nMAIL FROM:<a@x>\n", "x".repeat(9000)),
        "NOOP\n\r\nMAIL FROM:<a@x>\n",
        "EHLO x\nMAIL FROM:<a@x>\r\n",
    ] {
        let session = talk(format!("{start}RCPT TO:<b@y>\nDATA\nhi\n.\n{evil}\r\n.\r\n"));
        assert_eq!(session.contents(), [format!("hi\n.\n{evil}\r\n")], "{start:?}");
    }
}

#[test]
fn where_it_is_not_clear_what_ends_a_message_nothing_is_queued_and_the_session_ends() {
    for content in [
        "Subject: x\r\n\r\nhi\r\n.\r\n",
        "hi\r\n.\n",
        "\r\n.\n",
        "hi\n.\r\n.\n",
        ".\r\n.\n",
        "hi\n..\r\n\n.\n",
    ] {
        let input = format!("{MAIL}DATA\n{content}{MAIL}DATA\nhi\n.\nQUIT\n");
        for size in [1, 2, 3, 1000] {
            let session = talk_in(&input, size);
            assert_eq!(session.codes(), "250 250 354 554", "{content:?} {size}");
            assert_eq!((session.queued.len(), session.end.0), (0, 65), "{content:?} {size}");
        }
    }
}

/// Scripts write everything at once, also what comes after a DATA that is refused.
#[test]
fn content_that_nobody_asked_for_is_no_command() {
    for (input, codes) in [
        ("MAIL FROM:<a@x>\nRCPT TO:<>\nDATA\nhello\nMAIL FROM:<evil@x>\n", "250 501 554 554"),
        ("MAIL FROM:<a@x>\nRCPT TO:<>\nDATA\nSubject: x\nMAIL FROM:<evil@x>\n", "250 501 554 554"),
        ("Subject: x\nMAIL FROM:<evil@x>\n", "554"),
        ("Host: example.org\n", "554"),
        ("BDAT 20 LAST\nMAIL FROM:<evil@x>\n", "502"),
        ("DATA\nRSET\nNOOP\n", "503 250 250"),
        ("DATA\nHelp me\nMAIL FROM:<evil@x>\n", "503 554"),
        ("DATA\n\nMAIL FROM:<evil@x>\n", "503 554"),
        ("DATA\na\0b\nMAIL FROM:<evil@x>\n", "503 554"),
        (&format!("DATA\n{}\nMAIL FROM:<evil@x>\n", "x".repeat(9000)), "503 554"),
        (&AFTER_DATA.map(|verb| format!("DATA\n{verb}\n")).concat(), "503 250 503 221"),
    ] {
        let session = talk(crlf(input));
        assert_eq!(session.codes(), codes, "{input:?}");
        assert_eq!(
            session.end.0,
            if codes.ends_with("250") || codes.ends_with("221") { 0 } else { 65 },
            "{input:?}"
        );
    }
}

#[test]
fn a_session_that_breaks_off_queues_nothing_and_says_why() {
    let whole = format!("{MAIL}DATA\nhi\n..\nyou\n.\n");
    for input in [crlf(&whole), whole] {
        let data = input.find("DATA").unwrap();
        for length in 0..input.len() {
            let session = talk(&input[..length]);
            let in_transaction = session.heard.contains("2.1.0");
            assert_eq!(session.queued.len(), 0, "{:?}", &input[..length]);
            assert_eq!(session.end.0, if in_transaction { 74 } else { 0 }, "{:?}", &input[..length]);
            assert_eq!(
                session
                    .heard
                    .ends_with("421 4.3.0 the message was not queued: standard input ended before it did\n"),
                in_transaction
            );
            assert_eq!(
                session.heard.contains("354"),
                length > data + 4 && input[..length].contains("DATA\n")
                    || input[..length].contains("DATA\r\n")
            );
        }
        assert_eq!(talk(&input).queued.len(), 1);
    }
    for (end, code, reply) in [
        (io::ErrorKind::TimedOut, 75, "421 4.4.2 the message was not queued: nothing more came"),
        (io::ErrorKind::Other, 74, "421 4.3.2 the message was not queued: cannot read standard input: "),
    ] {
        for input in [MAIL.to_owned(), format!("{MAIL}DATA\nhi\n"), "MAIL FROM:<a@x>\nRCPT".to_owned()] {
            let pieces = Pieces { input: input.as_bytes(), size: 10, interrupted: false, end: Some(end) };
            let session = play(pieces, usize::MAX, &Options::default());
            assert_eq!((session.end.0, session.queued.len()), (code, 0), "{input:?}");
            assert!(session.heard.lines().last().unwrap().starts_with(reply), "{}", session.heard);
        }
    }
}

/// Silence between transactions lasts as long as the client likes.
#[test]
fn an_idle_client_is_waited_for() {
    struct Sleepy(u32);
    impl Read for Sleepy {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1..10 => Err(io::ErrorKind::TimedOut.into()),
                10 => (&b"QUIT\r\n"[..]).read(buffer),
                _ => panic!("read after QUIT"),
            }
        }
    }
    let mut output = Vec::new();
    let mut wire = Wire::new(Sleepy(0), &mut output);
    let options = Options::default();
    let mut queue = |_: Transaction<'_>, _: &mut dyn BufRead| panic!("nothing was sent");
    converse(Session::new(&CONFIG, &options), &mut wire, &mut queue).unwrap();
    assert!(output.ends_with(b"221 2.0.0 bye\r\n"));
}

#[test]
fn a_client_that_does_not_listen_is_left_and_told_of_on_standard_error() {
    let input = crlf(&format!("{MAIL}DATA\nhi\n.\nQUIT\n"));
    for (writes, size, queued, words) in [
        (0, 1000, 0, "the session has ended: cannot write to standard output: "),
        (
            1,
            1000,
            1,
            "the message is queued as 00000000001100000000; the client did not hear that: cannot write",
        ),
        (2, 1000, 1, "the session has ended: cannot write to standard output: "),
        (3, 1000, 1, ""),
        // The reply to RCPT is written before DATA is read.
        (2, 17, 0, "the message was not queued: cannot write to standard output: "),
    ] {
        let pieces = Pieces { input: input.as_bytes(), size, interrupted: false, end: None };
        let session = play(pieces, writes, &Options::default());
        assert_eq!(session.queued.len(), queued, "{writes} {size}");
        assert_eq!(session.end.0, if words.is_empty() { 0 } else { 74 });
        assert!(session.end.1.starts_with(words), "{writes} {size}: {}", session.end.1);
    }
}

#[test]
fn the_command_line_speaks_where_the_client_does_not() {
    let options = Options { notify: Notify::NEVER, no_aliases: true, ..Options::default() };
    let input = crlf("MAIL FROM:<a@x>\nRCPT TO:<root>\nRCPT TO:<b@y> NOTIFY=DELAY\nDATA\n.\n");
    let pieces = Pieces { input: input.as_bytes(), size: 1000, interrupted: false, end: None };
    let session = play(pieces, usize::MAX, &options);
    let notify: Vec<_> = session.queued[0].recipients.iter().map(|recipient| recipient.notify).collect();
    assert_eq!(session.queued[0].to(), "root@example b@y");
    assert_eq!(notify, [Notify::NEVER, Notify::DELAY]);
}

/// As a client makes it that takes any LF for the end of a line, as Python's smtplib does.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        out.extend_from_slice(if line.starts_with(b".") { b"." } else { b"" });
        out.extend_from_slice(line);
    }
    out
}

proptest! {
    #[test]
    fn no_input_panics(input in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..40) {
        talk_in(&input, size);
        talk_in([crlf(MAIL).as_bytes(), b"DATA\r\n", &input].concat(), size);
        talk_in([MAIL.as_bytes(), b"RCPT TO:<", &input, b">\n"].concat(), size);
    }

    #[test]
    fn any_content_arrives_as_it_was_sent(
        content in "[.a \n\r\u{e9}]{0,40}", is_crlf in any::<bool>(), size in 1_usize..9,
    ) {
        let (eol, content) = if is_crlf { ("\r\n", content + "\r\n") } else { ("\n", content.replace('\r', "") + "\n") };
        let mut input = format!("{MAIL}DATA\n").replace('\n', eol).into_bytes();
        input.extend(stuffed(content.as_bytes()));
        input.extend(format!(".{eol}QUIT{eol}").into_bytes());
        let session = talk_in(&input, size);
        prop_assert_eq!(session.codes(), "250 250 354 250 221");
        prop_assert_eq!(&session.queued[0].content, content.as_bytes());
    }
}
