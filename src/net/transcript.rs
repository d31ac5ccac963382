//! What was said on a connection, for the postmaster who has to talk to the operator of a server.
//!
//! - Owns: how much of a conversation is kept, and in which form; which answers are about the protocol.
//! - Leaves to others: whether anybody wants to know (the [`Observer`](super::Observer)), and who is told (`agent`).
//! - Always true: at most [`START_MAX`] and [`END_MAX`] octets are kept, printable, of commands and replies alone: of
//!   content its size. A transcript that is off keeps nothing, allocates nothing and looks at nothing.

use std::fmt::{self, Write as _};

use crate::mail::Reason;

/// Octets kept of the beginning: greeting and LHLO tell what kind of server it is.
const START_MAX: usize = 4 << 10;
/// Octets kept of the end, where a conversation breaks.
const END_MAX: usize = 12 << 10;
/// Octets of one line.
const LINE_MAX: usize = 500;
/// What stands where a line was cut off.
const CUT: &str = "[...]";

/// A line of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// We said so.
    Client(&'a str),
    /// The server said so.
    Server(&'a str),
    /// Nobody said so: a remark of ours.
    Note(&'a str),
}

/// The beginning and the end of a conversation.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    is_on: bool,
    /// Lines, each with a letter before it that tells who said it.
    start: String,
    end: String,
    /// Lines between the two.
    left_out: usize,
}

impl Transcript {
    /// Goes on, or stops and forgets.
    pub(super) fn turn(&mut self, on: bool) {
        if on != self.is_on {
            *self = Self { is_on: on, ..Self::default() };
        }
    }

    /// Command lines of ours. Nothing secret may go this way.
    pub(super) fn client(&mut self, commands: &[u8]) {
        self.octets('C', commands);
    }

    /// What the server sent: a reply, or what was to be one.
    pub(super) fn server(&mut self, octets: &[u8]) {
        self.octets('S', octets);
    }

    /// A remark.
    pub(super) fn note(&mut self, text: fmt::Arguments<'_>) {
        if self.is_on {
            self.octets('N', text.to_string().as_bytes());
        }
    }

    fn octets(&mut self, who: char, octets: &[u8]) {
        if self.is_on {
            for_each_line(octets, |text| self.line(who, text));
        }
    }

    fn line(&mut self, who: char, text: &str) {
        let mut line = String::with_capacity(text.len() + 2);
        line.push(who);
        line.push_str(text);
        line.push('\n');
        if self.end.is_empty() && self.start.len() + line.len() <= START_MAX {
            self.start.push_str(&line);
            return;
        }
        if self.end.len() + line.len() > END_MAX {
            // A quarter at a time, so that not each line moves all that are kept.
            let enough = (END_MAX / 4).max(self.end.len() + line.len() - END_MAX);
            let cut = self.end.bytes().skip(enough).position(|octet| octet == b'\n');
            let cut = cut.map_or(self.end.len(), |more| enough + more + 1);
            self.left_out += self.end.drain(..cut).filter(|&c| c == '\n').count();
        }
        self.end.push_str(&line);
    }

    /// The lines that were kept, with a remark where some are left out.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let left_out = (self.left_out > 0).then_some(Line::Note("some lines are left out here"));
        self.start.lines().map(told).chain(left_out).chain(self.end.lines().map(told))
    }
}

fn told(line: &str) -> Line<'_> {
    match line.split_at_checked(1) {
        Some(("C", text)) => Line::Client(text),
        Some(("S", text)) => Line::Server(text),
        Some((_, text)) => Line::Note(text),
        None => Line::Note(line),
    }
}

/// Hands on each line of what was said, in printable form.
pub(super) fn for_each_line(octets: &[u8], mut take: impl FnMut(&str)) {
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut text = String::with_capacity(line.len().min(LINE_MAX) + 8);
        escape(line, &mut text);
        take(&text);
    }
}

/// Adds `octets` in printable form: control characters, and octets that are no UTF-8, as an escape.
fn escape(octets: &[u8], out: &mut String) {
    let full = out.len() + LINE_MAX;
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            if out.len() >= full {
                return out.push_str(CUT);
            }
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for octet in chunk.invalid() {
            if out.len() >= full {
                return out.push_str(CUT);
            }
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{octet:02x}");
        }
    }
}

/// Whether `reason` speaks of the conversation and not of the mail: the server sent what is no reply, or it did not
/// understand us. RFC 5321 section 4.2.1 has x0z replies for syntax, section 4.2.4 has 555 for parameters; an
/// enhanced status code that names an address or a mailbox says that it is about that all the same (501 5.1.3).
pub fn is_about_protocol(reason: &Reason) -> bool {
    let (subject, _) = reason.status.subject_and_detail();
    match reason.reply.as_deref().and_then(|reply| reply.get(..3)) {
        Some(code) => matches!(subject, 0 | 5) && (code.starts_with("50") || code == "555"),
        None => {
            reason.reply.is_none()
                && reason.status.class() == 4
                && reason.status.subject_and_detail() == (5, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on() -> Transcript {
        let mut transcript = Transcript::default();
        transcript.turn(true);
        transcript
    }

    #[test]
    fn a_transcript_tells_who_said_what_in_order() {
        let mut transcript = on();
        transcript.server(b"220-mx\r\n220 here\r\n");
        transcript.client(b"MAIL FROM:<a@x>\r\nRCPT TO:<\xc3\xa9@y>\r\n");
        transcript.note(format_args!("message content, {} octets", 7));
        transcript.server(b"2\x0750 \x00\xff\xc3\xa9\t\x1b[2J");
        let expected = [
            Line::Server("220-mx"),
            Line::Server("220 here"),
            Line::Client("MAIL FROM:<a@x>"),
            Line::Client("RCPT TO:<\u{e9}@y>"),
            Line::Note("message content, 7 octets"),
            Line::Server("2\\u{7}50 \\u{0}\\xff\u{e9}\\t\\u{1b}[2J"),
        ];
        assert_eq!(transcript.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_transcript_that_is_off_keeps_and_allocates_nothing() {
        let mut transcript = Transcript::default();
        transcript.server(b"220 here\r\n");
        transcript.client(b"RSET\r\n");
        transcript.note(format_args!("nothing"));
        assert_eq!(transcript.lines().count(), 0);
        assert_eq!((transcript.start.capacity(), transcript.end.capacity()), (0, 0));
        let mut transcript = on();
        transcript.client(b"RSET\r\n");
        transcript.turn(true);
        assert_eq!(transcript.lines().count(), 1, "what is on goes on");
        transcript.turn(false);
        assert_eq!(transcript.lines().count(), 0);
    }

    #[test]
    fn the_beginning_and_the_end_are_kept() {
        let mut transcript = on();
        for number in 0..10_000 {
            transcript.client(format!("NOOP {number}\r\n").as_bytes());
        }
        let lines: Vec<_> = transcript.lines().collect();
        assert_eq!((lines[0], lines[lines.len() - 1]), (Line::Client("NOOP 0"), Line::Client("NOOP 9999")));
        let gap = lines.iter().position(|line| matches!(line, Line::Note(_))).unwrap();
        assert_eq!(lines[gap - 1], Line::Client(&format!("NOOP {}", gap - 1)));
        let after = 10_000 - (lines.len() - gap - 1);
        assert_eq!(lines[gap + 1], Line::Client(&format!("NOOP {after}")));
        assert_eq!(transcript.left_out, after - gap);
        assert!(transcript.end.len() > END_MAX / 2, "{}", transcript.end.len());
    }

    #[test]
    fn what_is_about_the_protocol() {
        for (status, reply, is_so) in [
            ("4.5.0", None, true),
            ("5.4.7", None, false),
            ("4.4.2", None, false),
            ("5.5.2", Some("500 5.5.2 what?"), true),
            ("5.0.0", Some("503 bad sequence"), true),
            ("5.5.4", Some("555 5.5.4 unknown parameter"), true),
            ("4.5.1", Some("502 5.5.1 not implemented"), true),
            ("5.1.3", Some("501 5.1.3 bad address"), false),
            ("5.1.1", Some("550 5.1.1 no such user"), false),
            ("4.5.3", Some("452 4.5.3 too many"), false),
            ("4.5.0", Some("450 4.5.0 odd"), false),
            ("5.0.0", Some("\u{e9}"), false),
        ] {
            let mut reason = Reason::local(status.parse().unwrap(), "");
            reason.reply = reply.map(str::to_owned);
            assert_eq!(is_about_protocol(&reason), is_so, "{status} {reply:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_is_said_memory_is_bounded_and_lines_are_printable(
            said in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..1200)), 0..50),
        ) {
            let mut transcript = on();
            for (by_us, octets) in &said {
                if *by_us { transcript.client(octets) } else { transcript.server(octets) }
                prop_assert!(transcript.start.len() <= START_MAX && transcript.end.len() <= END_MAX);
            }
            for line in transcript.lines() {
                let (Line::Client(text) | Line::Server(text) | Line::Note(text)) = line;
                prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
                prop_assert!(text.len() <= LINE_MAX + 20, "{}", text.len());
            }
        }
    }
}
