//! Quoted-printable (RFC 2045 section 6.7), line by line.

use super::super::record::Text;

/// Octets of an encoded line before which it is not broken yet; three more octets and the "=" make 76.
const COLUMNS: usize = 72;

/// Encodes lines. At most [`COLUMNS`] and four octets are kept.
#[derive(Debug, Default)]
pub(super) struct QuotedPrintable {
    line: Vec<u8>,
}

impl QuotedPrintable {
    /// Takes a piece, and hands on each line that is whole.
    pub(super) fn push(&mut self, text: Text, piece: &[u8], mut take: impl FnMut(&[u8])) {
        for &octet in piece {
            if self.line.len() > COLUMNS {
                self.line.push(b'=');
                take(&self.line);
                self.line.clear();
            }
            match octet {
                b'=' => self.encode(octet),
                b' '..=b'~' | b'\t' => self.line.push(octet),
                _ => self.encode(octet),
            }
        }
        if text == Text::Line {
            // What is blank at the end of a line gets lost on the way.
            if let Some(last @ (b' ' | b'\t')) = self.line.last().copied() {
                self.line.pop();
                self.encode(last);
            }
            take(&self.line);
            self.line.clear();
        }
    }

    fn encode(&mut self, octet: u8) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        self.line.extend([b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut encoder, mut lines) = (QuotedPrintable::default(), Vec::new());
        let (last, parts) = pieces.split_last().unwrap();
        parts.iter().for_each(|piece| encoder.push(Text::Part, piece, |line| lines.push(line.to_vec())));
        encoder.push(Text::Line, last, |line| lines.push(line.to_vec()));
        lines
    }

    /// RFC 2045 section 6.7, the other way round.
    fn decoded(lines: &[Vec<u8>]) -> Vec<u8> {
        let mut octets = Vec::new();
        let (last, soft) = lines.split_last().unwrap();
        let text = soft.iter().flat_map(|line| line.strip_suffix(b"=").expect("a soft break")).chain(last);
        let mut text = text.copied();
        while let Some(octet) = text.next() {
            octets.push(match octet {
                b'=' => {
                    let digits = [text.next().unwrap(), text.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                octet => octet,
            });
        }
        octets
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        for (text, lines) in [
            (&b""[..], &[&b""[..]][..]),
            (b"caf\xe9 = \tx", &[b"caf=E9 =3D \tx"]),
            (b"a ", &[b"a=20"]),
            (b"a\t", &[b"a=09"]),
            (b"a  ", &[b"a =20"]),
            (b"\0\x7f\x80\xff.~", &[b"=00=7F=80=FF.~"]),
        ] {
            assert_eq!(encoded(&[text]), lines, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn lines_are_broken_after_73_columns_or_behind_what_crosses_them() {
        let x = |count| vec![b'x'; count];
        assert_eq!(encoded(&[&x(73)]), [x(73)]);
        assert_eq!(encoded(&[&x(74)]), [[&x(73)[..], b"="].concat(), x(1)]);
        assert_eq!(encoded(&[&[&x(72)[..], b"\xe9"].concat()]), [[&x(72)[..], b"=E9"].concat()]);
        assert_eq!(
            encoded(&[&[&x(72)[..], b"\xe9y"].concat()]),
            [[&x(72)[..], b"=E9="].concat(), b"y".to_vec()]
        );
        assert_eq!(encoded(&[&[&x(72)[..], b" "].concat()]), [[&x(72)[..], b"=20"].concat()]);
    }

    proptest! {
        #[test]
        fn any_line_comes_back(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..99), 1..4)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let lines = encoded(&pieces);
            prop_assert_eq!(&lines, &encoded(&[&pieces.concat()]));
            for line in &lines {
                prop_assert!(line.len() <= 76 && line.iter().all(|octet| matches!(octet, b' '..=b'~' | b'\t')));
                prop_assert!(!line.ends_with(b" ") && !line.ends_with(b"\t"));
            }
            prop_assert_eq!(decoded(&lines), pieces.concat());
        }
    }
}
