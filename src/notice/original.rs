//! What a notice returns of the message that it is about.
//!
//! - Owns: the choice between the whole message and its header, and making either fit into a MIME part.
//! - Leaves to others: reading it from disk; only its first octets are ever asked for.
//! - Always true: what is returned has no line over 998 octets and no NUL.

use std::borrow::Cow;

use crate::mail::{Envelope, Return};

use super::report::Kind;

/// Octets of a message up to which a bounce returns all of it, unless the caller says otherwise.
pub const RETURN_LIMIT_DEFAULT: u64 = 50_000;
/// Octets of the header that are returned at most.
const HEADER_MAX: usize = 65_536;
/// Octets of a line (RFC 5322 section 2.1.1), CRLF not counted.
const LINE_MAX: usize = 998;

/// How many octets of the content, from its start, a [`Report`](super::Report) wants to see.
pub fn octets_wanted(return_limit: u64) -> u64 {
    return_limit.max(HEADER_MAX as u64)
}

/// What is returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Original<'a> {
    /// The message as it was queued.
    Full(&'a [u8]),
    /// Its header, and why not more.
    Header(Cow<'a, [u8]>, HeaderOnly),
}

/// Why only the header is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderOnly {
    /// The sender asked for that (RET=HDRS), or this kind of notice never returns more.
    Habit,
    /// The message is larger than the limit.
    Large,
    /// It has NUL octets or lines that no MIME part may hold (RFC 2045 section 2.8).
    Unfit,
    /// It was refused because it is not ASCII: a report with its content would be refused, too.
    EightBit,
}

impl<'a> Original<'a> {
    /// Chooses. `start` is the beginning of the content, [`octets_wanted`] of it or all there is; `ascii` says that
    /// nothing else may be returned.
    pub(super) fn choose(
        kind: Kind,
        envelope: &Envelope,
        start: &'a [u8],
        return_limit: u64,
        ascii: bool,
    ) -> Self {
        let why = if !kind.returns_content() || envelope.ret == Some(Return::Headers) {
            HeaderOnly::Habit
        } else if envelope.size > return_limit || envelope.size != start.len() as u64 {
            HeaderOnly::Large
        } else if !fits_mime(start) {
            HeaderOnly::Unfit
        } else if ascii && !start.is_ascii() {
            HeaderOnly::EightBit
        } else {
            return Self::Full(start);
        };
        let mut header = presentable(header_of(start));
        if ascii && !header.is_ascii() {
            header.to_mut().iter_mut().filter(|octet| !octet.is_ascii()).for_each(|octet| *octet = b'?');
        }
        Self::Header(header, why)
    }

    /// The octets that are returned.
    pub(super) fn octets(&self) -> &[u8] {
        match self {
            Self::Full(content) => content,
            Self::Header(header, _) => header,
        }
    }
}

/// Whether content may stand in a part as it is.
fn fits_mime(content: &[u8]) -> bool {
    memchr::memchr(0, content).is_none()
        && content.split(|&b| b == b'\n').all(|line| line.len() <= LINE_MAX + 1)
}

/// The header at the front of a message, with the CRLF of its last field. A header that is too long ends with its
/// last whole line.
fn header_of(start: &[u8]) -> &[u8] {
    if start.starts_with(b"\r\n") {
        return &[];
    }
    let start = &start[..start.len().min(HEADER_MAX)];
    match memchr::memmem::find(start, b"\r\n\r\n") {
        Some(end) => &start[..end + 2],
        None => &start[..memchr::memrchr(b'\n', start).map_or(0, |end| end + 1)],
    }
}

/// A header fit for a MIME part: lines that are too long are folded, NUL becomes a space.
fn presentable(header: &[u8]) -> Cow<'_, [u8]> {
    if fits_mime(header) {
        return Cow::Borrowed(header);
    }
    let mut out = Vec::with_capacity(header.len() + header.len() / LINE_MAX * 3);
    for line in header.split_inclusive(|&b| b == b'\n') {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        for (at, piece) in text.chunks(LINE_MAX - 1).enumerate() {
            out.extend_from_slice(if at == 0 { b"" } else { b"\r\n " });
            out.extend(piece.iter().map(|&b| if b == 0 { b' ' } else { b }));
        }
        out.extend_from_slice(b"\r\n");
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::report::tests::envelope;

    #[test]
    fn what_was_refused_for_its_octets_does_not_come_back_with_them() {
        let mut envelope = envelope();
        let content = "Subject: gr\u{fc}n\r\n\r\nbody\r\n".as_bytes();
        envelope.size = content.len() as u64;
        let original = Original::choose(Kind::Bounce, &envelope, content, 50_000, true);
        assert_eq!(original, Original::Header(b"Subject: gr??n\r\n".into(), HeaderOnly::EightBit));
    }

    #[test]
    fn a_bounce_returns_the_message_where_it_may() {
        let long = format!("Subject: x\r\n\r\n{}\r\n", "a".repeat(999));
        let small = "Subject: x\r\n\r\nbody\r\n";
        for (content, limit, ret, expected) in [
            (small, 50_000, None, None),
            (small, 50_000, Some(Return::Full), None),
            (small, 50_000, Some(Return::Headers), Some(HeaderOnly::Habit)),
            (small, 10, None, Some(HeaderOnly::Large)),
            (long.as_str(), 50_000, None, Some(HeaderOnly::Unfit)),
            ("Subject: x\r\n\r\n\0\r\n", 50_000, None, Some(HeaderOnly::Unfit)),
        ] {
            let mut envelope = envelope();
            (envelope.ret, envelope.size) = (ret, content.len() as u64);
            let original = Original::choose(Kind::Bounce, &envelope, content.as_bytes(), limit, false);
            let why = match &original {
                Original::Full(_) => None,
                Original::Header(header, why) => {
                    assert_eq!(&header[..], b"Subject: x\r\n");
                    Some(*why)
                }
            };
            assert_eq!(why, expected, "{content:?} {limit} {ret:?}");
        }
    }

    #[test]
    fn headers_end_where_the_body_begins() {
        for (content, header) in [
            ("A: 1\r\nB: 2\r\n\r\nbody", "A: 1\r\nB: 2\r\n"),
            ("\r\nbody\r\n", ""),
            ("A: 1\r\nB: cut he", "A: 1\r\n"),
            ("A: 1\r\n", "A: 1\r\n"),
            ("", ""),
        ] {
            assert_eq!(header_of(content.as_bytes()), header.as_bytes(), "{content:?}");
        }
    }

    #[test]
    fn long_header_lines_are_folded() {
        let header = format!("References: {}\r\nB: \0\r\n", "x".repeat(3000));
        let folded = presentable(header.as_bytes());
        assert!(fits_mime(&folded));
        let text = String::from_utf8(folded.into_owned()).unwrap();
        assert_eq!(text.replace("\r\n ", "").replace("B:  ", "B: \0"), header);
    }
}
