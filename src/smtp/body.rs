//! Content on its way into DATA (RFC 5321 sections 4.5.2 and 2.3.8).
//!
//! - Owns: transparency dots, line endings and the folding of over-long lines.
//! - Leaves to others: reading content, and BDAT, which sends it as it lies on disk.
//! - Always true: whatever comes in, the only line made of a single dot is the last one, and every CR stands
//!   before an LF and every LF behind a CR, so no server can read a second command or message out of it.

use memchr::memchr2;

/// Encodes content piece by piece.
#[derive(Debug)]
pub struct DotStuffing {
    /// Octets a line may have without its CRLF.
    line_length_limit: usize,
    /// Octets in the line so far.
    column: usize,
    /// The last piece ended in a CR that is not written yet.
    pending_cr: bool,
}

impl DotStuffing {
    /// Starts a message; lines longer than `line_length_limit` octets are folded, 0 means never.
    pub fn new(line_length_limit: usize) -> Self {
        let line_length_limit = match line_length_limit {
            0 => usize::MAX,
            // A folded line begins with a blank; one more octet must fit for the folding to get on.
            limit => limit.max(2),
        };
        Self { line_length_limit, column: 0, pending_cr: false }
    }

    /// Adds the encoded form of `input` to `out`: at most twice its length, and three octets for each fold.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut rest = input;
        while !rest.is_empty() {
            if std::mem::take(&mut self.pending_cr) {
                if rest[0] == b'\n' {
                    self.end_line(out);
                    rest = &rest[1..];
                    continue;
                }
                // A bare CR is a line end to some servers.
                self.text(b" ", out);
            }
            let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            self.text(&rest[..end], out);
            match rest.get(end) {
                Some(b'\n') => self.end_line(out),
                Some(_) => self.pending_cr = true,
                None => break,
            }
            rest = &rest[end + 1..];
        }
    }

    /// Adds the end of data, and the end of the last line where the content lacks one.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.pending_cr) {
            self.text(b" ", out);
        }
        if self.column > 0 {
            self.end_line(out);
        }
        out.extend_from_slice(b".\r\n");
    }

    fn text(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        while !piece.is_empty() {
            if self.column == 0 && piece[0] == b'.' {
                out.push(b'.');
            }
            let room = (self.line_length_limit - self.column).min(piece.len());
            out.extend_from_slice(&piece[..room]);
            self.column += room;
            piece = &piece[room..];
            if !piece.is_empty() {
                // The blank keeps a folded header line a header line, and a folded dot off the line's front.
                out.extend_from_slice(b"\r\n ");
                self.column = 1;
            }
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.column = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(pieces: &[&[u8]], limit: usize) -> Vec<u8> {
        let (mut stuffing, mut out) = (DotStuffing::new(limit), Vec::new());
        for piece in pieces {
            stuffing.push(piece, &mut out);
        }
        stuffing.finish(&mut out);
        out
    }

    /// What a strict server takes out of the wire form: content, and what it would read as commands.
    fn decoded(wire: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let wire = [b"\r\n", wire].concat();
        let end = memchr::memmem::find(&wire, b"\r\n.\r\n").unwrap();
        let mut content = Vec::new();
        for line in wire[2..end + 2].split_inclusive(|&b| b == b'\n') {
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        (content, wire[end + 5..].to_vec())
    }

    #[test]
    fn dots_and_line_ends_are_made_safe() {
        for (input, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..a\r\n.b", b"...a\r\n..b\r\n.\r\n"),
            (b"\r\n\r\n", b"\r\n\r\n.\r\n"),
        ] {
            assert_eq!(encoded(&[input], 0), wire, "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn a_bare_lf_around_a_dot_does_not_end_the_data() {
        assert_eq!(encoded(&[b"a\n.\nMAIL FROM:<x@y>\n"], 0), b"a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n");
    }

    #[test]
    fn a_bare_cr_around_a_dot_does_not_end_the_data() {
        assert_eq!(encoded(&[b"a\r.\rMAIL\r\n"], 0), b"a . MAIL\r\n.\r\n");
        assert_eq!(encoded(&[b"a\r\r\n.\r\r\n"], 0), b"a \r\n.. \r\n.\r\n");
        assert_eq!(encoded(&[b"a\r"], 0), b"a \r\n.\r\n");
    }

    #[test]
    fn long_lines_are_folded_only_where_asked() {
        assert_eq!(encoded(&[b"abcdef\r\n"], 3), b"abc\r\n de\r\n f\r\n.\r\n");
        assert_eq!(encoded(&[b"abc\r\n.bc\r\n"], 3), b"abc\r\n..bc\r\n.\r\n");
        let long = [&[b'x'; 5000][..], b"\r\n"].concat();
        assert_eq!(encoded(&[&long], 0), [&long[..], b".\r\n"].concat());
    }

    proptest! {
        #[test]
        fn a_server_reads_one_message_however_the_content_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(b"a.\r\n".to_vec()), 0..12), 0..6),
            limit in 0..5_usize,
        ) {
            let refs: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let wire = encoded(&refs, limit);
            prop_assert_eq!(&wire, &encoded(&[&pieces.concat()], limit));
            prop_assert_eq!(decoded(&wire).1, b"");
            for (at, octet) in wire.iter().enumerate() {
                match octet {
                    b'\r' => prop_assert_eq!(wire.get(at + 1), Some(&b'\n')),
                    b'\n' => prop_assert_eq!(wire.get(at.wrapping_sub(1)), Some(&b'\r')),
                    _ => {}
                }
            }
        }

        #[test]
        fn wire_form_content_survives(lines in prop::collection::vec("[.a-z]{0,4}", 0..10)) {
            let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            prop_assert_eq!(decoded(&encoded(&[content.as_bytes()], 0)).0, content.as_bytes());
        }
    }
}
