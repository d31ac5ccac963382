//! The content of a message, as a transaction reads it.
//!
//! - Owns: what a connection asks of content; content that lies in a file in wire form.
//! - Leaves to others: content that has to be put together first (whoever has it implements [`Content`]), what is added
//!   on its way (`smtp`).
//! - Always true: content comes piece by piece, and is never in memory as a whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::smtp::Cause;

/// Octets read at once.
const PIECE: usize = 32 * 1024;

/// What became of a piece, or of all of them. What fails on our own disk is [`Cause::LocalData`].
pub type Taken = Result<(), Cause>;

/// The content of a message.
pub trait Content {
    /// Octets of the wire form, without transparency dots: exactly what [`Content::for_each_piece`] hands on, since BDAT
    /// must announce it.
    fn size(&self) -> u64;

    /// Octets as SIZE declares them, and as a server's limit applies to them.
    fn declared_size(&self) -> u64 {
        self.size()
    }

    /// Hands the content to `take` piece by piece. `buffer` may hold pieces, and is kept for the next message while it is
    /// small. An error of `take` ends this. Content that ends early is an error: the message was promised whole.
    fn for_each_piece(&self, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken;

    /// The same for a server that takes seven bits only, where the content can be converted; its size shows at its end.
    /// By default it goes out as it is.
    fn for_each_seven_bit_piece(&self, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken {
        self.for_each_piece(buffer, take)
    }

    /// Whether a line has more than `limit` octets besides its CRLF.
    fn has_line_over(&self, limit: usize) -> Result<bool, Cause> {
        let mut lines = LongLines { limit, column: 0, found: false };
        self.for_each_piece(&mut Vec::new(), &mut |piece| {
            lines.push(piece);
            Ok(())
        })?;
        Ok(lines.found || lines.column > limit)
    }
}

/// Looks for a line over a limit.
struct LongLines {
    limit: usize,
    /// Octets of the line so far.
    column: usize,
    found: bool,
}

impl LongLines {
    fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            // The CR counts for nothing, so a line of `limit` octets has its LF one further on.
            self.found |= self.column + end > self.limit + 1;
            (self.column, rest) = (0, &rest[end + 1..]);
        }
        self.column += rest.len();
    }
}

/// Content that lies in a file: header lines that we prepend, then a part of the file in wire form.
#[derive(Clone, Copy, Debug)]
pub struct FileContent<'a> {
    /// Header lines of ours, with CRLF.
    pub prefix: &'a [u8],
    /// The file.
    pub file: &'a File,
    /// Where in the file the content begins.
    pub offset: u64,
    /// Octets of it.
    pub length: u64,
}

impl Content for FileContent<'_> {
    fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.length
    }

    /// The buffer grows as far as that is of use.
    fn for_each_piece(&self, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken {
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
                Ok(0) => return Err(Cause::LocalData(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Cause::LocalData(error)),
            };
            take(&buffer[..read])?;
            done += read as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn with<R>(text: &[u8], test: impl FnOnce(FileContent<'_>) -> R) -> R {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"HEAD").unwrap();
        file.write_all(text).unwrap();
        test(FileContent { prefix: b"P: 1\r\n", file: &file, offset: 4, length: text.len() as u64 })
    }

    #[test]
    fn the_prefix_comes_first_and_the_head_is_left_out() {
        let text = [&[b'x'; 70_000][..], b"\r\n"].concat();
        let mut whole = Vec::new();
        with(&text, |content| {
            content
                .for_each_piece(&mut Vec::new(), &mut |piece| {
                    whole.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            let size = whole.len() as u64;
            assert_eq!((content.size(), content.declared_size()), (size, size));
        });
        assert_eq!(whole, [b"P: 1\r\n", &text[..]].concat());
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let error = with(b"short", |content| {
            FileContent { length: 6, ..content }.for_each_piece(&mut Vec::new(), &mut |_| Ok(())).unwrap_err()
        });
        assert!(matches!(error, Cause::LocalData(error) if error.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn whoever_takes_pieces_can_stop_that() {
        let text = [b'x'; 2 * PIECE];
        let (mut pieces, error) = (
            0,
            with(&text, |content| {
                content.for_each_piece(&mut Vec::new(), &mut |_| Err(Cause::TimedOut)).unwrap_err()
            }),
        );
        assert!(matches!(error, Cause::TimedOut));
        with(&text, |content| {
            content
                .for_each_piece(&mut Vec::new(), &mut |_| {
                    pieces += 1;
                    if pieces == 2 { Err(Cause::LostConnection) } else { Ok(()) }
                })
                .unwrap_err()
        });
        assert_eq!(pieces, 2);
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
