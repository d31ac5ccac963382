//! The log's line about a recipient of a request, as Postfix's own clients write it.
//!
//! - Owns: how Postfix's raw addresses are shown, and when the original one is.
//! - Leaves to others: the fields behind them (`mail`), the times (`stamps`), what is logged (`decision`).
//! - Always true: it is one line, in printable characters.

use std::borrow::Cow;
use std::fmt;

use super::decision::Logged;
use super::stamps::Spent;
use crate::mail::{AttemptFields, Resolution, printable, same_but_for_case};
use crate::postfix::address::{Form, externalised};
use crate::postfix::request::Recipient;

/// How addresses stand in the log (`info_log_address_format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressFormat {
    /// With quotes where they are needed.
    #[default]
    External,
    /// As the queue file has them.
    Internal,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineFormat {
    /// Addresses.
    pub addresses: AddressFormat,
    /// Times (`delay_logging_resolution_limit`).
    pub resolution: Resolution,
}

/// A line: `ID: to=<…>, relay=…` and so on.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// How it is written.
    pub format: LineFormat,
    /// The message.
    pub queue_id: &'a str,
    /// For whom.
    pub recipient: &'a Recipient,
    /// The server as the log writes it, or `none` where there was no session.
    pub relay: &'a str,
    /// How often the connection had been used before.
    pub uses: u32,
    /// How long it took.
    pub spent: Spent,
    /// What became of it.
    pub result: &'a Logged<'a>,
}

impl LogLine<'_> {
    fn shown<'b>(&self, address: &'b [u8]) -> Cow<'b, str> {
        match self.format.addresses {
            AddressFormat::Internal => printable(address),
            AddressFormat::External => match externalised(address, Form::Header) {
                Cow::Borrowed(address) => printable(address),
                Cow::Owned(address) => Cow::Owned(printable(&address).into_owned()),
            },
        }
    }
}

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, queue_id, recipient, relay, uses, spent, result } = *self;
        let Recipient { original, address, .. } = recipient;
        let is_same =
            same_but_for_case(&String::from_utf8_lossy(original), &String::from_utf8_lossy(address));
        let original = (!original.is_empty() && !is_same).then(|| self.shown(original));
        let fields = AttemptFields {
            to: &self.shown(address),
            original: original.as_deref(),
            relay: &printable(relay.as_bytes()),
            uses,
            delay: spent.delay,
            delays: spent.delays,
            resolution: format.resolution,
            status: result.status,
            word: result.word,
            text: &printable(result.text.as_bytes()),
        };
        write!(f, "{queue_id}: {fields}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postfix::report::stamps::Stamps;
    use crate::postfix::request::Times;
    use std::time::Duration;

    /// A delivery that took so many hundredths of a second in each of its parts.
    fn spent(parts: [u64; 4]) -> Spent {
        let [before, queue, connection, transmission] = parts;
        let at = |hundredths: u64| Duration::from_millis(1_700_000_000_000 + 10 * hundredths);
        let times = Times { arrival: Some(at(0)), active: Some(at(before)), handoff: None };
        let mut stamps = Stamps::new(&times, at(before + queue));
        stamps.ready(at(before + queue + connection));
        stamps.spent(at(before + queue + connection + transmission))
    }

    struct Captured {
        line: &'static str,
        address: &'static str,
        /// Hundredths of a second.
        parts: [u64; 4],
        /// What of the delay is in none of the parts, for want of digits.
        more: i64,
        uses: u32,
    }

    /// A line of Postfix's own client, and what is not written in it with all its digits.
    fn captured(line: &'static str, address: &'static str, parts: [u64; 4]) -> Captured {
        Captured { line, address, parts, more: 0, uses: 0 }
    }

    /// Reads the fields that a line has, and writes them again.
    fn again(captured: &Captured) -> String {
        let field = |name: &str, end: char| {
            let start = captured.line.find(name).unwrap() + name.len();
            let rest = &captured.line[start..];
            &rest[..rest.find(end).unwrap()]
        };
        let words = ["sent", "deferred", "bounced", "deliverable"];
        let word = words.into_iter().find(|word| *word == field("status=", ' ')).unwrap();
        let text = &captured.line[captured.line.find('(').unwrap() + 1..captured.line.len() - 1];
        let mut spent = spent(captured.parts);
        let more = Duration::from_millis(10 * captured.more.unsigned_abs());
        spent.delay = if captured.more < 0 { spent.delay - more } else { spent.delay + more };
        let recipient = Recipient { address: captured.address.as_bytes().to_vec(), ..Recipient::default() };
        LogLine {
            format: LineFormat::default(),
            queue_id: &captured.line[..11],
            recipient: &recipient,
            relay: field("relay=", ','),
            uses: captured.uses,
            spent,
            result: &Logged { word, status: field("dsn=", ',').parse().unwrap(), text: text.into() },
        }
        .to_string()
    }

    #[test]
    fn lines_read_as_those_of_postfix() {
        let lines = [
            captured(
                "76F3B9B879E: to=<u1@ok.example>, relay=mx.test.example[/run/lmtp.sock], delay=0.15, \
                 delays=0.02/0.13/0/0, dsn=2.1.5, status=sent (250 2.1.5 u1 delivered)",
                "u1@ok.example",
                [2, 13, 0, 0],
            ),
            Captured {
                uses: 1,
                ..captured(
                    "CE7839B8A09: to=<sender@test.example>, relay=mx.test.example[/run/lmtp.sock], conn_use=2, \
                     delay=0.02, delays=0.02/0/0/0, dsn=2.1.5, status=sent (250 2.1.5 sender delivered)",
                    "sender@test.example",
                    [2, 0, 0, 0],
                )
            },
            captured(
                "ABEE79B8765: to=<u1@realrefused.example>, relay=none, delay=0, delays=0/0/0/0, dsn=4.4.1, \
                 status=deferred (connect to 127.0.0.1[127.0.0.1]:12499: Connection refused)",
                "u1@realrefused.example",
                [0; 4],
            ),
            captured(
                "C12639B89A1: to=<u1@nosock.example>, relay=none, delay=0, delays=0/0/0/0, dsn=4.4.1, \
                 status=deferred (connect to mx.test.example[/run/lmtp.sock]: No such file or directory)",
                "u1@nosock.example",
                [0; 4],
            ),
            Captured {
                more: 1,
                ..captured(
                    "2ABC89B87CF: to=<r450@real.example>, relay=mx.test.example[/run/lmtp.sock], delay=0.01, \
                     delays=0/0/0/0, dsn=4.2.1, status=deferred (host mx.test.example[/run/lmtp.sock] said: 450 \
                     4.2.1 mailbox r450@real.example busy (in reply to RCPT TO command))",
                    "r450@real.example",
                    [0; 4],
                )
            },
            Captured {
                more: 1,
                ..captured(
                    "2ABC89B87CF: to=<r550@real.example>, relay=mx.test.example[/run/lmtp.sock], delay=0.01, \
                     delays=0/0/0/0, dsn=5.1.1, status=bounced (host mx.test.example[/run/lmtp.sock] said: \
                     550-5.1.1 no such user 550 5.1.1 <r550@real.example> really (in reply to RCPT TO command))",
                    "r550@real.example",
                    [0; 4],
                )
            },
            captured(
                "119E49B9377: to=<u@nobanner.example>, relay=127.0.0.1[127.0.0.1]:12430, delay=1.2, \
                 delays=0.18/0.01/1/0, dsn=4.4.2, status=deferred (lost connection with 127.0.0.1[127.0.0.1] \
                 while receiving the initial server greeting)",
                "u@nobanner.example",
                [18, 1, 100, 0],
            ),
            captured(
                "64A129B937B: to=<u@b421.example>, relay=127.0.0.1[127.0.0.1]:12432, delay=0.18, \
                 delays=0.17/0.01/0/0, dsn=4.3.2, status=deferred (host 127.0.0.1[127.0.0.1] refused to talk to \
                 me: 421 4.3.2 go away for now)",
                "u@b421.example",
                [17, 1, 0, 0],
            ),
            Captured {
                more: 1,
                ..captured(
                    "830839B937D: to=<u@b554.example>, relay=127.0.0.1[127.0.0.1]:12433, delay=0.11, \
                     delays=0.1/0/0/0, dsn=4.7.1, status=deferred (host 127.0.0.1[127.0.0.1] refused to talk to \
                     me: 554 5.7.1 no service here)",
                    "u@b554.example",
                    [10, 0, 0, 0],
                )
            },
            captured(
                "CBCC99B937F: to=<u@nolhlo.example>, relay=127.0.0.1[127.0.0.1]:12435, delay=0.14, \
                 delays=0.14/0/0/0, dsn=5.5.1, status=bounced (host 127.0.0.1[127.0.0.1] refused to talk to me: \
                 502 5.5.1 not implemented)",
                "u@nolhlo.example",
                [14, 0, 0, 0],
            ),
            captured(
                "1BA7B9B9387: to=<u@smallsize.example>, relay=127.0.0.1[127.0.0.1]:12440, delay=0.14, \
                 delays=0.14/0/0/0, dsn=5.3.4, status=bounced (message size 200622 exceeds size limit 100 of \
                 server 127.0.0.1[127.0.0.1])",
                "u@smallsize.example",
                [14, 0, 0, 0],
            ),
            captured(
                "C6AB09B8A0F: to=<\u{e9}1@real.example>, relay=mx.test.example[/run/lmtp.sock], delay=0.01, \
                 delays=0/0/0.01/0, dsn=5.6.7, status=bounced (SMTPUTF8 is required, but was not offered by \
                 host mx.test.example[/run/lmtp.sock])",
                "\u{e9}1@real.example",
                [0, 0, 1, 0],
            ),
            captured(
                "E97239B9393: to=<dropdot@real.example>, relay=mx.test.example[/run/lmtp.sock], delay=0.17, \
                 delays=0.17/0/0/0, dsn=4.4.2, status=deferred (lost connection with \
                 mx.test.example[/run/lmtp.sock] while sending end of data -- message may be sent more than once)",
                "dropdot@real.example",
                [17, 0, 0, 0],
            ),
            captured(
                "505279B89BD: to=<thr@refused.example>, relay=none, delay=2.1, delays=0/2.1/0/0, dsn=4.4.1, \
                 status=deferred (delivery temporarily suspended: connect to 127.0.0.1[127.0.0.1]:12499: \
                 Connection refused)",
                "thr@refused.example",
                [0, 210, 0, 0],
            ),
            Captured {
                more: 1,
                ..captured(
                    "4801A9B870E: to=<q1@ok.example>, relay=mx.test.example[/run/lmtp.sock], delay=0.09, \
                     delays=0/0.08/0/0, dsn=2.1.5, status=deliverable (250 2.1.5 rcpt ok)",
                    "q1@ok.example",
                    [0, 8, 0, 0],
                )
            },
            Captured {
                more: -1,
                ..captured(
                    "E65F69B93E5: to=<r550.bounce@real.example>, relay=mx.test.example[/run/lmtp.sock], \
                     delay=0.03, delays=0.02/0.01/0/0.01, dsn=4.3.0, status=deferred (bounce or trace service \
                     failure)",
                    "r550.bounce@real.example",
                    [2, 1, 0, 1],
                )
            },
        ];
        for captured in &lines {
            assert_eq!(again(captured), captured.line);
        }
    }

    fn line(format: LineFormat, original: &[u8], address: &[u8], text: &str) -> String {
        let recipient =
            Recipient { original: original.to_vec(), address: address.to_vec(), ..Recipient::default() };
        let status = "2.0.0".parse().unwrap();
        let result = &Logged { word: "sent", status, text: text.into() };
        let spent = spent([0, 0, 0, 123]);
        LogLine { format, queue_id: "A", recipient: &recipient, relay: "none", uses: 0, spent, result }
            .to_string()
    }

    const END: &str = "relay=none, delay=1.2, delays=0/0/0/1.2, dsn=2.0.0, status=sent (250 ok)";

    #[test]
    fn addresses_are_quoted_unless_the_administrator_wants_them_raw() {
        let internal = LineFormat { addresses: AddressFormat::Internal, ..LineFormat::default() };
        for (address, external_form, internal_form) in [
            (&b"a b@x"[..], "\"a b\"@x", "a b@x"),
            (b"back\\slash@x", "\"back\\\\slash\"@x", "back\\slash@x"),
            (b"tab\tx@x", "\"tab?x\"@x", "tab?x@x"),
            (b"\xff@x", "?@x", "?@x"),
            (b"a\nb@x", "\"a?b\"@x", "a?b@x"),
            (b"@r:u@x", "@r:u@x", "@r:u@x"),
            (b"", "\"\"", ""),
        ] {
            let external = line(LineFormat::default(), b"", address, "250 ok");
            assert_eq!(external, format!("A: to=<{external_form}>, {END}"));
            assert_eq!(line(internal, b"", address, "250 ok"), format!("A: to=<{internal_form}>, {END}"));
        }
    }

    #[test]
    fn the_original_address_is_shown_where_more_than_case_differs() {
        for (original, address, shown) in [
            (&b""[..], &b"a@x"[..], ""),
            (b"A@X", b"a@x", ""),
            ("\u{c9}@x".as_bytes(), "\u{e9}@x".as_bytes(), ""),
            (b"o p@x", b"a@x", "orig_to=<\"o p\"@x>, "),
        ] {
            let to = String::from_utf8_lossy(address);
            let expected = format!("A: to=<{to}>, {shown}{END}");
            assert_eq!(line(LineFormat::default(), original, address, "250 ok"), expected);
        }
    }

    #[test]
    fn times_are_as_fine_as_the_administrator_wants_them() {
        let resolution = Resolution::new(0).unwrap();
        let format = LineFormat { resolution, ..LineFormat::default() };
        let end = END.replace("1.2", "1");
        assert_eq!(line(format, b"", b"a@x", "250 ok"), format!("A: to=<a@x>, {end}"));
    }

    #[test]
    fn nothing_breaks_the_line() {
        let line = line(LineFormat::default(), b"o\r\n@x", b"a\n@x", "250 ok\r\nA: to=<b@x>");
        assert!(!line.contains(['\r', '\n']), "{line:?}");
    }
}
