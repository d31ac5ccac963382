//! Where content ends: the dot of DATA (RFC 5321 section 4.5.2) and the counted octets of BDAT (RFC 3030).
//!
//! - Owns: taking the transparency dots out, finding the end.
//! - Leaves to others: what becomes of the content (the `take` of each function).
//! - Always true: only CRLF "." CRLF ends DATA. A bare LF or CR never does, nor makes a dot transparent, so that
//!   content cannot smuggle a second message. Whoever asks for lines that end in LF gets the same of those.

use std::time::{Duration, Instant};

use memchr::memmem;

use super::wire::{Ended, Wire};

/// The longest time one content may take, however steadily it trickles.
const CONTENT_TIME_MAX: Duration = Duration::from_secs(3600);

/// Reads content up to the dot.
pub(super) fn receive_data(wire: &mut Wire, mut take: impl FnMut(&[u8])) -> Result<(), Ended> {
    let began = Instant::now();
    let mut decoder = DotDecoder::default();
    loop {
        let (used, done) = decoder.decode(wire.available(), &mut take);
        wire.consume(used);
        if done {
            return Ok(());
        }
        wire.fill()?;
        if began.elapsed() > CONTENT_TIME_MAX {
            return Err(Ended::Abruptly);
        }
    }
}

/// Reads `octets` octets of content.
pub(super) fn receive_chunk(
    wire: &mut Wire,
    mut octets: u64,
    mut take: impl FnMut(&[u8]),
) -> Result<(), Ended> {
    let began = Instant::now();
    while octets > 0 {
        if wire.available().is_empty() {
            wire.fill()?;
        }
        let available = wire.available();
        let length = usize::try_from(octets).unwrap_or(usize::MAX).min(available.len());
        take(available.get(..length).unwrap_or_default());
        wire.consume(length);
        octets -= length as u64;
        if began.elapsed() > CONTENT_TIME_MAX {
            return Err(Ended::Abruptly);
        }
    }
    Ok(())
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// CR LF, as SMTP wants it.
    CrLf,
    /// LF, as people at a terminal and shell scripts write it.
    Lf,
}

impl LineEnd {
    /// The line that ends the content.
    fn lone_dot(self) -> &'static [u8] {
        match self {
            Self::CrLf => b".\r\n",
            Self::Lf => b".\n",
        }
    }

    /// The end of one line, and a dot that begins the next.
    fn next_dot(self) -> &'static [u8] {
        match self {
            Self::CrLf => b"\r\n.",
            Self::Lf => b"\n.",
        }
    }
}

/// Takes the transparency dots out of what arrives in pieces.
#[derive(Debug)]
pub struct DotDecoder {
    line_end: LineEnd,
    at_line_start: bool,
}

impl Default for DotDecoder {
    /// For lines that end in CR LF.
    fn default() -> Self {
        Self::new(LineEnd::CrLf)
    }
}

impl DotDecoder {
    /// Content begins at the start of a line.
    pub fn new(line_end: LineEnd) -> Self {
        Self { line_end, at_line_start: true }
    }

    /// Decodes what it can of `input`; returns the octets that it used, and whether the end was among them. What is
    /// left (two octets at most) has to be given again, with more.
    pub fn decode(&mut self, input: &[u8], take: &mut impl FnMut(&[u8])) -> (usize, bool) {
        let (lone_dot, next_dot) = (self.line_end.lone_dot(), self.line_end.next_dot());
        let mut rest = input;
        loop {
            if self.at_line_start {
                if let Some(after) = rest.strip_prefix(lone_dot) {
                    return (input.len() - after.len(), true);
                }
                if lone_dot.starts_with(rest) {
                    return (input.len() - rest.len(), false);
                }
                rest = rest.strip_prefix(b".").unwrap_or(rest);
                self.at_line_start = false;
            }
            let Some(at) = memmem::find(rest, next_dot) else {
                // Without its last octet that mark is a line's end; a part of it may stand at the end of the input.
                let is_begun =
                    |&length: &usize| next_dot.get(..length).is_some_and(|mark| rest.ends_with(mark));
                let begun = (1..next_dot.len()).rev().find(is_begun);
                let (whole, open) = rest.split_at(rest.len() - begun.unwrap_or(0));
                take(whole);
                return (input.len() - open.len(), false);
            };
            let (lines, after) = rest.split_at(at + next_dot.len() - 1);
            take(lines);
            rest = after;
            self.at_line_start = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `wire`, which arrives in pieces of `size`; the content, and what was left after the end.
    fn decode(line_end: LineEnd, wire: &[u8], size: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut decoder, mut held, mut content) = (DotDecoder::new(line_end), Vec::new(), Vec::new());
        for (at, piece) in wire.chunks(size).enumerate() {
            held.extend_from_slice(piece);
            let (used, done) = decoder.decode(&held, &mut |octets| content.extend_from_slice(octets));
            held.drain(..used);
            if done {
                held.extend_from_slice(&wire[((at + 1) * size).min(wire.len())..]);
                return Some((content, held));
            }
            assert!(held.len() <= 3, "{held:?}");
        }
        None
    }

    #[test]
    fn only_a_dot_between_crlfs_ends_the_content() {
        for (wire, content) in [
            (&b".\r\n"[..], &b""[..]),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b"a\r\n..b\r\n.c\r\n.\r\n", b"a\r\n.b\r\nc\r\n"),
            (b"a\n.\n\r\n.\r\n", b"a\n.\n\r\n"),
            (b"a\n.\r\nb\r\n.\r\n", b"a\n.\r\nb\r\n"),
            (b"a\r.\r\r\n.\r\n", b"a\r.\r\r\n"),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
            (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\nb\r\n"),
        ] {
            for size in 1..=wire.len() {
                let (decoded, rest) = decode(LineEnd::CrLf, wire, size).unwrap();
                assert_eq!((&decoded[..], &rest[..]), (content, &b""[..]), "{wire:?} in {size}");
            }
        }
        assert_eq!(decode(LineEnd::CrLf, b"a\r\n.", 1), None);
    }

    #[test]
    fn where_lines_end_in_lf_a_dot_between_two_does() {
        for (wire, content) in [
            (&b".\n"[..], &b""[..]),
            (b"a\n.\n", b"a\n"),
            (b"a\n..b\n.c\n\n.\n", b"a\n.b\nc\n\n"),
            (b"a\n.\r\n.\n", b"a\n\r\n"),
        ] {
            for size in 1..=wire.len() {
                let (decoded, rest) = decode(LineEnd::Lf, wire, size).unwrap();
                assert_eq!((&decoded[..], &rest[..]), (content, &b""[..]), "{wire:?} in {size}");
            }
        }
        assert_eq!(decode(LineEnd::Lf, b"a\n.", 1), None);
    }

    proptest! {
        #[test]
        fn any_content_comes_out_as_it_went_in(text in "[.a\\n\\r]{0,30}", size in 1_usize..9) {
            let content = text + "\r\n";
            let stuffed: String = content
                .split_inclusive("\r\n")
                .map(|line| format!("{}{line}", if line.starts_with('.') { "." } else { "" }))
                .collect();
            let (decoded, rest) = decode(LineEnd::CrLf, format!("{stuffed}.\r\nMAIL").as_bytes(), size).unwrap();
            prop_assert_eq!(decoded, content.into_bytes());
            prop_assert_eq!(rest, b"MAIL");
        }
    }
}
