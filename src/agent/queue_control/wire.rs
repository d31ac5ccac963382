//! Lines and content as octets: bounded both ways.
//!
//! - Owns: framing.
//! - Leaves to others: what a line says (`protocol`), timeouts of one read or write (whoever owns the socket).
//! - Always true: nothing is read past what was announced; a peer that drips octets is given up at a deadline.

use std::io::{self, BufRead, Read, Write};
use std::time::Instant;

use serde::Deserialize;

use super::protocol::{Line, Request};
use crate::mail::shortened;

/// Octets of a question, its LF included: about 20,000 recipients.
pub const REQUEST_MAX: usize = 1 << 20;
/// Octets of a line of an answer. The agent is trusted; this only keeps a mistake from filling memory.
const LINE_MAX: usize = 64 << 20;
/// Octets of content in one piece, as we write it.
const PIECE: usize = 64 << 10;
/// Octets of the line before a piece.
const PIECE_LINE_MAX: usize = 256;

/// Reads one line without its LF; `None` at the end. What a line lacks at its end, or is too long, is an error.
fn read_octets(
    reader: &mut impl BufRead,
    max: usize,
    deadline: Option<Instant>,
) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        if deadline.is_some_and(|deadline| deadline < Instant::now()) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a line did not come in time"));
        }
        let piece = match reader.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if piece.is_empty() {
            return if line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let end = memchr::memchr(b'\n', piece);
        line.extend_from_slice(piece.get(..end.unwrap_or(piece.len())).unwrap_or_default());
        let used = end.map_or(piece.len(), |end| end + 1);
        reader.consume(used);
        if line.len() >= max {
            let text = format!("a line has more than {max} octets");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// Reads a question; `None` when the client has no more. The inner error is one sentence for the client.
pub fn read_request(
    reader: &mut impl BufRead,
    deadline: Instant,
) -> io::Result<Option<Result<Request, String>>> {
    let line = match read_octets(reader, REQUEST_MAX, Some(deadline)) {
        Ok(Some(line)) => line,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Some(Err(error.to_string()))),
        Err(error) => return Err(error),
    };
    Ok(Some(serde_json::from_slice(&line).map_err(|error| shortened(&error.to_string()))))
}

/// Reads a line of an answer, with the content that follows it.
pub fn read_line(reader: &mut impl BufRead) -> io::Result<Line> {
    let line = read_octets(reader, LINE_MAX, None)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut line: Line = serde_json::from_slice(&line).map_err(|error| unreadable(&error))?;
    if let Line::Content { octets, data } = &mut line {
        if *octets > LINE_MAX as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece of content is too large"));
        }
        // Memory grows with what comes, not with what was announced.
        reader.take(*octets).read_to_end(data)?;
        if data.len() as u64 != *octets {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(line)
}

/// A line that came whole and is none of ours.
fn unreadable(error: &serde_json::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, shortened(&error.to_string()))
}

/// Writes a line of an answer, with its content. Does not flush.
pub fn write_line(writer: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    writer.write_all(b"\n")?;
    match line {
        Line::Content { data, .. } => writer.write_all(data),
        _ => Ok(()),
    }
}

/// Writes all of `content` in pieces, and its end. Does not flush.
pub fn write_content(writer: &mut impl Write, content: &mut dyn Read) -> io::Result<WrittenContent> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = match content.read(&mut piece) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(WrittenContent::SourceFailed(error)),
        };
        writer.write_all(format!("{{\"content\":{{\"octets\":{length}}}}}\n").as_bytes())?;
        writer.write_all(piece.get(..length).unwrap_or_default())?;
        if length == 0 {
            return Ok(WrittenContent::Whole);
        }
    }
}

/// Whether content could be read to its end.
#[derive(Debug)]
pub enum WrittenContent {
    /// It was, and its end is written.
    Whole,
    /// It was not, and what was written has no end: the receiver throws it away.
    SourceFailed(io::Error),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PieceLine {
    content: PieceLength,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PieceLength {
    octets: u64,
}

/// The content of a submission. Its end is the piece without octets; an end of file before that is an error.
#[derive(Debug)]
pub struct ContentReader<'a, R> {
    reader: &'a mut R,
    left: u64,
    ended: bool,
    deadline: Instant,
}

impl<'a, R: BufRead> ContentReader<'a, R> {
    /// Reads from `reader` until `deadline`.
    pub fn new(reader: &'a mut R, deadline: Instant) -> Self {
        Self { reader, left: 0, ended: false, deadline }
    }

    fn next_piece(&mut self) -> io::Result<()> {
        let line = read_octets(self.reader, PIECE_LINE_MAX, Some(self.deadline))?;
        let line = line.ok_or(io::ErrorKind::UnexpectedEof)?;
        let PieceLine { content } = serde_json::from_slice(&line).map_err(|error| unreadable(&error))?;
        self.left = content.octets;
        self.ended = content.octets == 0;
        Ok(())
    }
}

impl<R: BufRead> Read for ContentReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.next_piece()?;
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.deadline < Instant::now() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the content did not come in time"));
        }
        let read = self.reader.by_ref().take(self.left).read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn content(wire: &[u8]) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        ContentReader::new(&mut &wire[..], later()).read_to_end(&mut octets).map(|_| octets)
    }

    #[test]
    fn content_without_its_end_is_an_error() {
        let whole = b"{\"content\":{\"octets\":3}}\na\nb{\"content\":{\"octets\":0}}\n";
        assert_eq!(content(whole).unwrap(), b"a\nb");
        for length in 0..whole.len() {
            assert!(content(&whole[..length]).is_err(), "{length}");
        }
        for bad in [&b"\n"[..], b"3\nabc", b"{\"content\":{\"octets\":-1}}\n", b"{\"content\":3}\nabc"] {
            assert!(content(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_follows_content_is_the_next_question() {
        let wire = b"{\"content\":{\"octets\":1}}\nx{\"content\":{\"octets\":0}}\n{\"ask\":\"status\"}\n";
        let mut reader = &wire[..];
        io::copy(&mut ContentReader::new(&mut reader, later()), &mut io::sink()).unwrap();
        assert_eq!(read_request(&mut reader, later()).unwrap(), Some(Ok(Request::Status {})));
        assert_eq!(read_request(&mut reader, later()).unwrap(), None);
    }

    #[test]
    fn questions_are_bounded_in_size_and_time() {
        let endless = vec![b' '; REQUEST_MAX + 1];
        assert!(matches!(read_request(&mut &endless[..], later()).unwrap(), Some(Err(_))));
        let past = Instant::now() - Duration::from_millis(1);
        let error = read_request(&mut &b"{\"ask\":\"status\"}\n"[..], past).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(read_request(&mut &b"{\"ask\":"[..], later()).is_err());
    }

    proptest! {
        #[test]
        fn content_comes_out_as_it_went_in(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut wire = Vec::new();
            prop_assert!(matches!(write_content(&mut wire, &mut &octets[..]), Ok(WrittenContent::Whole)));
            prop_assert_eq!(content(&wire).unwrap(), octets.clone());
            let line = Line::Content { octets: octets.len() as u64, data: octets };
            let mut wire = Vec::new();
            write_line(&mut wire, &line).unwrap();
            prop_assert_eq!(read_line(&mut &wire[..]).unwrap(), line);
        }

        #[test]
        fn no_input_panics(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = content(&octets);
            let _ = read_line(&mut &octets[..]);
            let _ = read_request(&mut &octets[..], later());
        }
    }
}
