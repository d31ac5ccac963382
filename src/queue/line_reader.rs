//! Cuts what comes out of the FIFO into lines.
//!
//! - Owns: the bound on a line.
//! - Leaves to others: reading the FIFO (`spool`), what a line says (`job`).
//! - Always true: at most one unfinished line is kept, and no more than [`LINE_LENGTH_MAX`] octets of it. How the
//!   octets were cut into reads makes no difference.

use std::collections::VecDeque;

use super::job::LINE_LENGTH_MAX;

/// A line that was longer than [`LINE_LENGTH_MAX`]; it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Octets in, lines out. Empty lines mean nothing and are left out. The caller takes all finished lines after each
/// `push`.
#[derive(Debug, Default)]
pub struct LineReader {
    unfinished: Vec<u8>,
    is_too_long: bool,
    finished: VecDeque<Result<Vec<u8>, TooLong>>,
}

impl LineReader {
    /// A reader at the beginning of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next octets.
    pub fn push(&mut self, mut octets: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', octets) {
            let (line, rest) = octets.split_at(end);
            self.extend(line);
            self.finish();
            octets = rest.get(1..).unwrap_or_default();
        }
        self.extend(octets);
    }

    /// The next line, without its LF.
    #[expect(clippy::should_implement_trait, reason = "`None` is not the end: more may be pushed")]
    pub fn next(&mut self) -> Option<Result<Vec<u8>, TooLong>> {
        self.finished.pop_front()
    }

    fn extend(&mut self, octets: &[u8]) {
        self.is_too_long |= self.unfinished.len() + octets.len() > LINE_LENGTH_MAX;
        if self.is_too_long {
            self.unfinished = Vec::new();
        } else {
            self.unfinished.extend_from_slice(octets);
        }
    }

    fn finish(&mut self) {
        let line = std::mem::take(&mut self.unfinished);
        if std::mem::take(&mut self.is_too_long) {
            self.finished.push_back(Err(TooLong));
        } else if !line.is_empty() {
            self.finished.push_back(Ok(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Result<Vec<u8>, TooLong>> {
        let mut reader = LineReader::new();
        let mut lines = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            lines.extend(std::iter::from_fn(|| reader.next()));
        }
        lines
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_spoils_only_itself() {
        let (longest, longer) = (vec![b'x'; LINE_LENGTH_MAX], vec![b'y'; LINE_LENGTH_MAX + 1]);
        let got = lines(&[b"a\n", &longest, b"\n", &longer, b"yy", &longer, b"\nb\n\nunfinished"]);
        assert_eq!(got, [Ok(b"a".to_vec()), Ok(longest), Err(TooLong), Ok(b"b".to_vec())]);
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(stream in "[ab\n]{0,60}", sizes in vec(1..9_usize, 60)) {
            let (mut rest, mut chunks) = (stream.as_bytes(), Vec::new());
            for size in sizes {
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            let whole: Vec<_> = stream.rsplit_once('\n').map_or("", |(lines, _)| lines).split('\n')
                .filter(|line| !line.is_empty()).map(|line| Ok(line.as_bytes().to_vec())).collect();
            prop_assert_eq!(lines(&chunks), whole);
        }
    }
}
