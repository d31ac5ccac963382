//! Content as it goes over the wire: lines that end in CRLF (RFC 5321 section 2.3.8), made while it streams
//! by.
//!
//! - Owns: what becomes of bare LF, bare CR and a last line without an end. PURE: bytes in, bytes out.
//! - Leaves to others: transparency dots (`smtp`), headers (`cli`), how much content is too much (`submit`).
//! - Always true: CR and LF come out only as CRLF, content that has this form already comes out unchanged,
//!   and how the input is cut into pieces makes no difference.

use memchr::memchr2;

/// Turns content into wire form, piece by piece: bare LF becomes CRLF, bare CR a space (a CR alone ends a
/// line for some servers and not for others, which is how one message is smuggled inside another).
#[derive(Debug, Default)]
pub struct Normaliser {
    /// A CR was the last octet; what follows decides what it was.
    held_cr: bool,
    /// Octets of the line that has not ended yet.
    line: u64,
    longest: u64,
    eight_bit: bool,
}

impl Normaliser {
    /// Appends the wire form of `input` to `output`: at most twice as long, and one octet.
    pub fn push(&mut self, mut input: &[u8], output: &mut Vec<u8>) {
        self.eight_bit = self.eight_bit || !input.is_ascii();
        if let (true, Some(&first)) = (self.held_cr, input.first()) {
            self.held_cr = false;
            if first == b'\n' {
                self.end_line(output);
                input = input.split_at(1).1;
            } else {
                self.text(b" ", output);
            }
        }
        while let Some(at) = memchr2(b'\r', b'\n', input) {
            let (text, rest) = input.split_at(at);
            self.text(text, output);
            input = match rest {
                [b'\r'] => {
                    self.held_cr = true;
                    &[]
                }
                [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => {
                    self.end_line(output);
                    rest
                }
                [_, rest @ ..] => {
                    self.text(b" ", output);
                    rest
                }
                [] => &[],
            };
        }
        self.text(input, output);
    }

    /// Ends the content: what was held back, and the last CRLF where it is missing. Empty content stays
    /// empty.
    pub fn finish(&mut self, output: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_cr) {
            self.text(b" ", output);
        }
        if self.line > 0 {
            self.end_line(output);
        }
    }

    /// Whether an octet over 127 was seen: the content needs 8BITMIME.
    pub fn eight_bit(&self) -> bool {
        self.eight_bit
    }

    /// Octets of the longest line, without its CRLF.
    pub fn longest_line(&self) -> u64 {
        self.longest.max(self.line)
    }

    fn text(&mut self, text: &[u8], output: &mut Vec<u8>) {
        self.line = self.line.saturating_add(text.len() as u64);
        output.extend_from_slice(text);
    }

    fn end_line(&mut self, output: &mut Vec<u8>) {
        self.longest = self.longest.max(self.line);
        self.line = 0;
        output.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut normaliser, mut output) = (Normaliser::default(), Vec::new());
        for piece in pieces {
            normaliser.push(piece, &mut output);
        }
        normaliser.finish(&mut output);
        output
    }

    #[test]
    fn line_endings_become_crlf_and_nothing_else_changes() {
        for (input, output) in [
            (&b""[..], &b""[..]),
            (b"a", b"a\r\n"),
            (b"a\nb\n", b"a\r\nb\r\n"),
            (b"a\r\nb\r\n", b"a\r\nb\r\n"),
            (b"\n\n", b"\r\n\r\n"),
            (b"a\rb\n", b"a b\r\n"),
            (b"a\r\r\nb", b"a \r\nb\r\n"),
            (b"a\r", b"a \r\n"),
            (b"\r", b" \r\n"),
            (b"\n\r", b"\r\n \r\n"),
            (b"a\n\r\nb", b"a\r\n\r\nb\r\n"),
            (b"a\r\n.\rb\n", b"a\r\n. b\r\n"),
            (b"nul\0 and \xff stay\n", b"nul\0 and \xff stay\r\n"),
        ] {
            assert_eq!(wire(&[input]), output, "{:?}", input.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_crlf_cut_between_two_reads_is_one_line_end() {
        assert_eq!(wire(&[b"a\r", b"\nb"]), b"a\r\nb\r\n");
        assert_eq!(wire(&[b"a\r", b"", b"\nb\r", b"c"]), b"a\r\nb c\r\n");
    }

    #[test]
    fn eight_bit_octets_and_long_lines_are_noticed() {
        let (mut normaliser, mut output) = (Normaliser::default(), Vec::new());
        normaliser.push(b"ab\ncdef\n", &mut output);
        assert!(!normaliser.eight_bit());
        normaliser.push("longest of all, \u{e9}".as_bytes(), &mut output);
        normaliser.finish(&mut output);
        assert!(normaliser.eight_bit());
        assert_eq!(normaliser.longest_line(), 18);
    }

    proptest! {
        #[test]
        fn no_bare_cr_or_lf_comes_out(
            input in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()],
                0..200,
            ),
        ) {
            let output = wire(&[&input]);
            for (at, octet) in output.iter().enumerate() {
                match octet {
                    b'\r' => prop_assert_eq!(output.get(at + 1), Some(&b'\n')),
                    b'\n' => prop_assert!(at > 0 && output[at - 1] == b'\r'),
                    _ => {}
                }
            }
            prop_assert!(output.is_empty() || output.ends_with(b"\r\n"));
            prop_assert_eq!(wire(&[&output]), output.clone());
            prop_assert!(output.len() <= 2 * input.len() + 2);
        }

        #[test]
        fn how_the_input_is_cut_makes_no_difference(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
            prop_assert_eq!(wire(&pieces), wire(&[&input]));
        }
    }
}
