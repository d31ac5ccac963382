//! From the text of queue files to lines on the wire.
//!
//! - Owns: line ends, and the breaking of lines that are too long for SMTP (RFC 5321 section 4.5.3.1.6).
//! - Leaves to others: reading records (`record`), transparency dots (`smtp`, for DATA alone).
//! - Always true: lines are broken where Postfix breaks them, octet by octet, so that signatures break with us where
//!   they break with it, and nowhere else.

use super::record::Text;

/// Makes lines.
#[derive(Debug)]
pub struct Lines {
    /// Octets of a line, without its end.
    limit: usize,
    /// How many more the line may have.
    left: usize,
    /// The last piece did not end its line.
    is_open: bool,
    breaks: u64,
}

impl Lines {
    /// Starts a message. Lines of more than `limit` octets are broken, 0 means never.
    pub fn new(limit: usize) -> Self {
        let limit = match limit {
            0 => usize::MAX,
            // What follows a break begins with a blank; one more octet must fit to get on.
            limit => limit.max(2),
        };
        Self { limit, left: limit, is_open: false, breaks: 0 }
    }

    /// How often a line was broken.
    pub fn breaks(&self) -> u64 {
        self.breaks
    }

    /// Adds a piece of text to `out`: its own octets, and three for each break.
    ///
    /// A piece that fills its line to the last octet gets a line end at once, and what follows it a blank; where it is
    /// the last piece of its line, nothing follows.
    pub fn push(&mut self, text: Text, mut piece: &[u8], out: &mut Vec<u8>) {
        self.is_open = text == Text::Part;
        while let Some((line, rest)) = piece.split_at_checked(self.left) {
            self.end_line(line, out);
            if rest.is_empty() && text == Text::Line {
                return;
            }
            out.push(b' ');
            self.left -= 1;
            self.breaks += 1;
            piece = rest;
            if piece.is_empty() {
                return;
            }
        }
        match text {
            Text::Line => self.end_line(piece, out),
            Text::Part => {
                out.extend_from_slice(piece);
                self.left -= piece.len();
            }
        }
    }

    /// Ends a last line that has no end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_open) {
            self.end_line(b"", out);
        }
    }

    fn end_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        self.left = self.limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Text::{Line, Part};

    fn lines(limit: usize, pieces: &[(Text, &[u8])]) -> (Vec<u8>, u64) {
        let (mut lines, mut out) = (Lines::new(limit), Vec::new());
        for (text, piece) in pieces {
            lines.push(*text, piece, &mut out);
        }
        lines.finish(&mut out);
        (out, lines.breaks())
    }

    #[test]
    fn lines_end_in_cr_lf_and_are_broken_at_the_limit() {
        for (limit, pieces, wire, breaks) in [
            (0, &[][..], &b""[..], 0),
            (0, &[(Line, &b""[..]), (Line, b"a")], b"\r\na\r\n", 0),
            (0, &[(Part, b"a"), (Part, b"b")], b"ab\r\n", 0),
            (0, &[(Part, b"")], b"\r\n", 0),
            (4, &[(Line, b"abc"), (Line, b"abcd"), (Line, b"abcde")], b"abc\r\nabcd\r\nabcd\r\n e\r\n", 1),
            (4, &[(Line, b"abcdefg"), (Line, b"abcdefgh")], b"abcd\r\n efg\r\nabcd\r\n efg\r\n h\r\n", 3),
            (4, &[(Part, b"ab"), (Line, b"cd")], b"abcd\r\n", 0),
            (4, &[(Part, b"ab"), (Line, b"cde")], b"abcd\r\n e\r\n", 1),
            // It cannot be known yet that nothing follows.
            (4, &[(Part, b"abcd"), (Line, b"")], b"abcd\r\n \r\n", 1),
            (4, &[(Part, b"abcd")], b"abcd\r\n \r\n", 1),
            (4, &[(Part, b"abcd"), (Line, b"e"), (Line, b"fghi")], b"abcd\r\n e\r\nfghi\r\n", 1),
            (4, &[(Line, b"....."), (Line, b".")], b"....\r\n .\r\n.\r\n", 1),
            (1, &[(Line, b"abc")], b"ab\r\n c\r\n", 1),
            (0, &[(Line, b"\0\t\xff")], b"\0\t\xff\r\n", 0),
        ] {
            assert_eq!(lines(limit, pieces), (wire.to_vec(), breaks), "{limit} {pieces:?}");
        }
    }
}
