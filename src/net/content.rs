//! Content on disk, as a transaction reads it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Octets read at once.
const PIECE: usize = 32 * 1024;

/// The content of a message: header lines that we prepend, then a part of a file in wire form.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Header lines of ours, with CRLF.
    pub prefix: &'a [u8],
    /// The file.
    pub file: &'a File,
    /// Where in the file the content begins.
    pub offset: u64,
    /// Octets of it.
    pub length: u64,
}

impl Content<'_> {
    /// Octets in all.
    pub fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.length
    }

    /// Hands the content to `take` piece by piece, each read into `buffer`, which grows as far as that is of use. A file
    /// that ends early is an error: the message was promised whole.
    pub fn for_each_piece<E: From<io::Error>>(
        &self,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.prefix.is_empty() {
            take(self.prefix)?;
        }
        let piece = PIECE.min(usize::try_from(self.length).unwrap_or(PIECE));
        if buffer.len() < piece {
            buffer.resize(piece, 0);
        }
        let mut done = 0;
        while done < self.length {
            let wanted = buffer.len().min(usize::try_from(self.length - done).unwrap_or(usize::MAX));
            let read = match self.file.read_at(&mut buffer[..wanted], self.offset + done) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            take(&buffer[..read])?;
            done += read as u64;
        }
        Ok(())
    }

    /// Whether a line has more than `limit` octets besides its CRLF.
    pub fn has_line_over(&self, limit: usize) -> io::Result<bool> {
        let (mut column, mut found) = (0, false);
        self.for_each_piece(&mut Vec::new(), |piece| {
            let mut rest = piece;
            while let Some(end) = memchr::memchr(b'\n', rest) {
                // The CR counts for nothing, so a line of `limit` octets has its LF one further on.
                found |= column + end > limit + 1;
                (column, rest) = (0, &rest[end + 1..]);
            }
            column += rest.len();
            Ok::<_, io::Error>(())
        })?;
        Ok(found || column > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn with<R>(text: &[u8], test: impl FnOnce(Content<'_>) -> R) -> R {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"HEAD").unwrap();
        file.write_all(text).unwrap();
        test(Content { prefix: b"P: 1\r\n", file: &file, offset: 4, length: text.len() as u64 })
    }

    #[test]
    fn the_prefix_comes_first_and_the_head_is_left_out() {
        let text = [&[b'x'; 70_000][..], b"\r\n"].concat();
        let mut whole = Vec::new();
        with(&text, |content| {
            content
                .for_each_piece(&mut Vec::new(), |piece| {
                    whole.extend_from_slice(piece);
                    Ok::<_, io::Error>(())
                })
                .unwrap();
            assert_eq!(content.size(), whole.len() as u64);
        });
        assert_eq!(whole, [b"P: 1\r\n", &text[..]].concat());
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let error = with(b"short", |content| {
            Content { length: 6, ..content }
                .for_each_piece(&mut Vec::new(), |_| Ok::<_, io::Error>(()))
                .unwrap_err()
        });
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn long_lines_are_found_at_the_exact_limit() {
        for (text, over) in [
            (&b"12345\r\n"[..], false),
            (b"123456\r\n", true),
            (b"1\r\n123456", true),
            (b"1\r\n12345", false),
        ] {
            assert_eq!(with(text, |content| content.has_line_over(5).unwrap()), over, "{text:?}");
        }
    }
}
