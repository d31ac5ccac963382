//! Where a message on standard input ends.
//!
//! - Owns: the end by a lone dot. PURE: bytes in, bytes out.
//! - Leaves to others: waiting and signals (`stdin`), what the message says (`message`).
//! - Always true: after the end nobody is asked for more, and what stands before it comes through octet by octet.

use std::io::{self, BufRead, Read};

/// Octets of input that are looked at at a time.
const PIECE: usize = 64 << 10;

/// A message as sendmail reads it: with `until_dot`, a line with a lone dot ends it as the end of input does.
pub struct Input<R> {
    inner: R,
    place: Place,
    /// Octets that were read and not handed on yet.
    ready: Vec<u8>,
    given: usize,
}

/// Where in a line the input stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Dots are content, wherever they stand.
    Anywhere,
    LineStart,
    /// After a dot that began a line.
    Dot,
    /// After that and a CR.
    DotCr,
    InLine,
    Ended,
}

impl<R: BufRead> Input<R> {
    /// Reads from `inner`.
    pub fn new(inner: R, until_dot: bool) -> Self {
        let place = if until_dot { Place::LineStart } else { Place::Anywhere };
        Self { inner, place, ready: Vec::new(), given: 0 }
    }

    /// Takes the next piece; at the end nothing becomes ready.
    fn fill(&mut self) -> io::Result<()> {
        let piece = self.inner.fill_buf()?;
        let mut rest = piece.get(..piece.len().min(PIECE)).unwrap_or_default();
        let taken = rest.len();
        if taken == 0 {
            // A dot without a line end is a lone dot too.
            self.place = Place::Ended;
        }
        while !rest.is_empty() && self.place != Place::Ended {
            rest = step(&mut self.place, rest, &mut self.ready);
        }
        self.inner.consume(taken);
        Ok(())
    }
}

/// Moves some octets from the front of `input`, which is not empty, to `output`; returns what is left.
fn step<'a>(place: &mut Place, input: &'a [u8], output: &mut Vec<u8>) -> &'a [u8] {
    let held: &[u8] = match (*place, input) {
        (Place::LineStart, [b'.', rest @ ..]) => {
            *place = Place::Dot;
            return rest;
        }
        (Place::Dot, [b'\r', rest @ ..]) => {
            *place = Place::DotCr;
            return rest;
        }
        (Place::Dot | Place::DotCr, [b'\n', ..]) => {
            *place = Place::Ended;
            return &[];
        }
        (Place::Dot, _) => b".",
        (Place::DotCr, _) => b".\r",
        _ => b"",
    };
    output.extend_from_slice(held);
    let end = memchr::memchr(b'\n', input);
    let (line, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
    output.extend_from_slice(line);
    *place = if end.is_some() { Place::LineStart } else { Place::InLine };
    rest
}

impl<R: BufRead> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.place == Place::Anywhere {
            // Nothing to look for, and so nothing to copy. After the end nobody is asked for more: that may be a terminal.
            if !self.inner.fill_buf()?.is_empty() {
                return self.inner.fill_buf();
            }
            self.place = Place::Ended;
        }
        while self.given == self.ready.len() && self.place != Place::Ended {
            self.ready.clear();
            self.given = 0;
            self.fill()?;
        }
        Ok(self.ready.get(self.given..).unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        if self.place == Place::Anywhere {
            self.inner.consume(length);
        } else {
            self.given = self.ready.len().min(self.given + length);
        }
    }
}

impl<R: BufRead> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// Reads through a buffer of `capacity` octets, so that every place of a line comes to stand at its end.
    fn input(text: &[u8], until_dot: bool, capacity: usize) -> Vec<u8> {
        let mut out = Vec::new();
        Input::new(BufReader::with_capacity(capacity, text), until_dot).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn a_lone_dot_ends_the_message_unless_it_may_not() {
        for (text, message) in [
            ("a\n.\nb\n", "a\n"),
            ("a\r\n.\r\nb\r\n", "a\r\n"),
            (".\n", ""),
            (".", ""),
            ("a\n.", "a\n"),
            ("a\n..\nb\n", "a\n..\nb\n"),
            ("a\n.b\n", "a\n.b\n"),
            ("a\n.\rb\n.\n", "a\n.\rb\n"),
            ("a.\n.\n", "a.\n"),
            ("a .\n", "a .\n"),
            ("", ""),
        ] {
            for capacity in 1..8 {
                assert_eq!(input(text.as_bytes(), true, capacity), message.as_bytes(), "{text:?} {capacity}");
                assert_eq!(input(text.as_bytes(), false, capacity), text.as_bytes(), "{text:?} {capacity}");
            }
        }
    }

    /// A terminal: after its end more can be typed.
    struct Terminal(Vec<&'static [u8]>);

    impl Read for Terminal {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.pop().unwrap_or_default().read(buffer)
        }
    }

    #[test]
    fn after_the_end_nobody_is_asked_for_more() {
        for until_dot in [false, true] {
            let terminal = Terminal(vec![b"more\n", b"", b"text\n"]);
            let (mut input, mut text) = (Input::new(BufReader::new(terminal), until_dot), Vec::new());
            input.read_to_end(&mut text).unwrap();
            input.read_to_end(&mut text).unwrap();
            assert_eq!(text, b"text\n", "{until_dot}");
        }
    }
}
