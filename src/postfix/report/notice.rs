//! A notice to the postmaster about a conversation that went wrong, as cleanup(8) takes mail.
//!
//! - Owns: who gets such a notice and who does not, its words, its records.
//! - Leaves to others: what was said (`net`), the socket (`services`).
//! - Always true: a notice goes out from the address whose bounces nobody answers; no line of a server can end the
//!   notice or a line of it.
//!
//! A record is a letter, a length in groups of seven bits, and as many octets.

use jiff::Zoned;

use crate::mail::{Address, Protocol, printable};
use crate::postfix::attribute::Writer;

/// Octets of a line. Records of cleanup(8) may be longer, but people have to read this.
const LINE_MAX: usize = 900;
/// Lines of a conversation.
const LINES_MAX: usize = 1000;
/// cleanup(8) does with it what it does with mail of Postfix itself.
const FLAGS: u32 = 32;

/// One line of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken<'a> {
    /// The server said so.
    In(&'a str),
    /// We said so.
    Out(&'a str),
    /// Nobody did: a remark.
    Note(&'a str),
}

/// A notice.
#[derive(Clone, Debug)]
pub struct Notice<'a> {
    /// `double_bounce_sender` at `myorigin`.
    pub sender: &'a str,
    /// `error_notice_recipient`.
    pub recipient: &'a str,
    /// `myhostname`.
    pub hostname: &'a str,
    /// `myorigin`.
    pub origin: &'a str,
    /// `mail_name`.
    pub mail_name: &'a str,
    /// What is spoken.
    pub protocol: Protocol,
    /// The server as the log writes it.
    pub relay: &'a str,
    /// The message that the conversation was about.
    pub queue_id: &'a str,
    /// What went wrong.
    pub what: &'a str,
    /// What was said.
    pub transcript: &'a [Spoken<'a>],
    /// The time of the notice.
    pub now: &'a Zoned,
}

impl Notice<'_> {
    /// Whether mail from `sender` (raw) may make a notice: one about a notice would make another one.
    pub fn is_for(sender: &[u8], double_bounce: &str) -> bool {
        !sender.is_empty() && !sender.eq_ignore_ascii_case(double_bounce.as_bytes())
    }

    /// What cleanup(8) is sent, once it has said what the ID of the notice will be.
    pub fn submission(&self, id: &str) -> Vec<u8> {
        let mut out = Writer::new().number("flags", FLAGS).end();
        let now = self.now.timestamp();
        let time = format!("{} {}", now.as_second(), now.subsec_microsecond());
        record(&mut out, b'T', time.as_bytes());
        record(&mut out, b'A', b"log_message_origin=local");
        record(&mut out, b'A', b"trace_flags=0");
        record(&mut out, b'S', one_line(self.sender).as_bytes());
        record(&mut out, b'R', one_line(self.recipient).as_bytes());
        record(&mut out, b'M', b"");
        for line in self.header(id).into_iter().chain(self.body()) {
            // The first blank of a continued header line is a tab.
            let (tab, line) =
                line.split_at_checked(usize::from(line.starts_with('\t'))).unwrap_or(("", &line));
            record(&mut out, b'N', format!("{tab}{}", one_line(line)).as_bytes());
        }
        record(&mut out, b'X', b"");
        record(&mut out, b'E', b"");
        out
    }

    /// cleanup(8) refuses mail whose first field is not `Received:`.
    fn header(&self, id: &str) -> Vec<String> {
        let Self { hostname, origin, mail_name, recipient, relay, .. } = *self;
        let date = self.now.strftime("%a, %d %b %Y %H:%M:%S %z");
        [
            format!("Received: by {hostname} ({mail_name})"),
            format!("\tid {id}; {date}"),
            format!("Date: {date}"),
            format!("From: Mail Delivery System <MAILER-DAEMON@{origin}>"),
            format!("To: Postmaster <{}>", quoted(recipient)),
            format!("Subject: {mail_name} {} client: errors from {relay}", name(self.protocol)),
            "MIME-Version: 1.0".to_owned(),
            "Content-Type: text/plain; charset=utf-8".to_owned(),
            "Content-Transfer-Encoding: 8bit".to_owned(),
            "Auto-Submitted: auto-generated".to_owned(),
            String::new(),
        ]
        .to_vec()
    }

    fn body(&self) -> Vec<String> {
        let mut lines = vec![
            format!("While mail {} was on its way to {}:", self.queue_id, self.relay),
            format!("  {}", self.what),
            String::new(),
            "This is what was said, by the server (In) and by this host (Out):".to_owned(),
            String::new(),
        ];
        let left_out = self.transcript.len().saturating_sub(LINES_MAX);
        if left_out > 0 {
            lines.push(format!("({left_out} lines are left out here)"));
        }
        lines.extend(self.transcript.iter().skip(left_out).map(|spoken| match spoken {
            Spoken::In(text) => format!("In:  {text}"),
            Spoken::Out(text) => format!("Out: {text}"),
            Spoken::Note(text) => format!("     ({text})"),
        }));
        lines.push(String::new());
        lines.push("The mail log has the rest.".to_owned());
        lines
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Lmtp => "LMTP",
        Protocol::Smtp => "SMTP",
    }
}

/// An address with quotes where it needs them.
fn quoted(address: &str) -> String {
    address.parse::<Address>().map_or_else(|_| address.to_owned(), |address| address.to_string())
}

/// What fits a line, printable.
fn one_line(text: &str) -> String {
    let text = printable(text.as_bytes());
    let end = text.floor_char_boundary(LINE_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

fn record(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(kind);
    let mut length = payload.len();
    while length > 127 {
        out.push((length & 127) as u8 | 128);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zoned() -> Zoned {
        "2026-11-02T09:08:07.000123+01:00[+01:00]".parse().unwrap()
    }

    fn notice<'a>(transcript: &'a [Spoken<'a>], now: &'a Zoned) -> Notice<'a> {
        Notice {
            sender: "double-bounce@test.example",
            recipient: "postmaster",
            hostname: "mx.test.example",
            origin: "test.example",
            mail_name: "Postfix",
            protocol: Protocol::Lmtp,
            relay: "127.0.0.1[127.0.0.1]:24",
            queue_id: "ABC",
            what: "host 127.0.0.1[127.0.0.1] said: 500 what? (in reply to MAIL FROM command)",
            transcript,
            now,
        }
    }

    /// The records behind the list of flags.
    fn records(octets: &[u8]) -> Vec<(char, String)> {
        let mut rest = octets.strip_prefix(b"flags\x0032\0\0").unwrap();
        let mut records = Vec::new();
        while let Some((&kind, after)) = rest.split_first() {
            let (mut length, mut shift, mut at) = (0, 0, 0);
            loop {
                length |= usize::from(after[at] & 127) << shift;
                shift += 7;
                at += 1;
                if after[at - 1] < 128 {
                    break;
                }
            }
            let payload = &after[at..at + length];
            records.push((char::from(kind), String::from_utf8(payload.to_vec()).unwrap()));
            rest = &after[at + length..];
        }
        records
    }

    #[test]
    fn a_notice_is_mail_as_cleanup_takes_it() {
        let now = zoned();
        let long = "x".repeat(300);
        let transcript = [
            Spoken::In("220 hi"),
            Spoken::Out("LHLO mx"),
            Spoken::Note("7 octets"),
            Spoken::In("500 wh\r\n.\u{e9}"),
            Spoken::In(&long),
        ];
        let records = records(&notice(&transcript, &now).submission("4XYZ"));
        let expected = [
            ('T', "1793606887 123"),
            ('A', "log_message_origin=local"),
            ('A', "trace_flags=0"),
            ('S', "double-bounce@test.example"),
            ('R', "postmaster"),
            ('M', ""),
            ('N', "Received: by mx.test.example (Postfix)"),
            ('N', "\tid 4XYZ; Mon, 02 Nov 2026 09:08:07 +0100"),
            ('N', "Date: Mon, 02 Nov 2026 09:08:07 +0100"),
            ('N', "From: Mail Delivery System <MAILER-DAEMON@test.example>"),
            ('N', "To: Postmaster <postmaster>"),
            ('N', "Subject: Postfix LMTP client: errors from 127.0.0.1[127.0.0.1]:24"),
            ('N', "MIME-Version: 1.0"),
            ('N', "Content-Type: text/plain; charset=utf-8"),
            ('N', "Content-Transfer-Encoding: 8bit"),
            ('N', "Auto-Submitted: auto-generated"),
            ('N', ""),
            ('N', "While mail ABC was on its way to 127.0.0.1[127.0.0.1]:24:"),
            ('N', "  host 127.0.0.1[127.0.0.1] said: 500 what? (in reply to MAIL FROM command)"),
            ('N', ""),
            ('N', "This is what was said, by the server (In) and by this host (Out):"),
            ('N', ""),
            ('N', "In:  220 hi"),
            ('N', "Out: LHLO mx"),
            ('N', "     (7 octets)"),
            ('N', "In:  500 wh??.\u{e9}"),
            ('N', &format!("In:  {long}")),
            ('N', ""),
            ('N', "The mail log has the rest."),
            ('X', ""),
            ('E', ""),
        ];
        assert_eq!(records, expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn a_conversation_without_end_is_cut() {
        let now = zoned();
        let endless = "\u{e9}".repeat(5000);
        let transcript = vec![Spoken::Out(&endless); 1500];
        let records = records(&notice(&transcript, &now).submission("4XYZ"));
        assert!(records.iter().all(|(_, text)| text.len() <= LINE_MAX + 1));
        assert!(records.contains(&('N', "(500 lines are left out here)".to_owned())));
        assert_eq!(records.iter().filter(|(_, text)| text.starts_with("Out:")).count(), LINES_MAX);
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let now = zoned();
        let evil = "a\r\nBcc: b\0@x";
        let notice =
            Notice { recipient: evil, relay: evil, sender: evil, hostname: evil, ..notice(&[], &now) };
        for (_, text) in records(&notice.submission(evil)) {
            assert!(!text.contains(['\r', '\n', '\0']), "{text:?}");
        }
    }

    #[test]
    fn no_notice_is_about_a_notice() {
        let double = "double-bounce@test.example";
        for (sender, is_wanted) in [(&b"a@x"[..], true), (b"", false), (b"double-bounce@TEST.example", false)]
        {
            assert_eq!(Notice::is_for(sender, double), is_wanted, "{sender:?}");
        }
    }
}
