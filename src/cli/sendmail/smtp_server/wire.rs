//! Octets of a conversation: lines and contents in, replies out.
//!
//! - Owns: the buffers, where lines and contents end, when replies are sent.
//! - Leaves to others: what lines mean (`session`), waiting and signals (`stdin`, `stdout`).
//! - Always true: buffers are bounded; replies leave before anything is waited for, and pipelined ones together;
//!   of content that breaks off no reader sees an end, only an error.

use std::io::{self, BufRead, Read, Write};

use memchr::{memchr, memmem};

use crate::sink::{DotDecoder, LineEnd, Reply};

/// Octets of input held at a time.
const INPUT_SIZE: usize = 64 << 10;
/// Octets of a command line. RFC 5321 section 4.5.3.1.4 asks for 512; long addresses and DSN parameters need more.
pub const LINE_LENGTH_MAX: usize = 8 << 10;
/// Octets of replies that gather at most. A client that reads only after it has written all gets on as long as they
/// fit into its pipe: thousands do.
const REPLIES_MAX: usize = 64 << 10;

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Nothing more comes.
    #[error("standard input ended before it did")]
    Ended,
    /// Nothing came for as long as is waited.
    #[error("nothing more came on standard input for too long")]
    Silent,
    /// Reading failed, or a signal came.
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    /// Nobody reads the replies.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// CR LF where all lines ended in LF.
    #[error("some of its lines end in LF and some in CR LF, so that its end is anybody's guess")]
    MixedLineEnds,
}

/// A command line as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, and how it ended.
    Complete(LineEnd),
    /// One that is too long; it was read to its end and is gone.
    TooLong(LineEnd),
}

/// Both directions, with their buffers.
#[derive(Debug)]
pub struct Wire<R, W> {
    input: R,
    output: W,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    replies: Vec<u8>,
}

impl<R: Read, W: Write> Wire<R, W> {
    /// Speaks through these.
    pub fn new(input: R, output: W) -> Self {
        Self { input, output, buffer: vec![0; INPUT_SIZE], start: 0, end: 0, replies: Vec::new() }
    }

    /// Says something, when the time comes.
    pub fn say(&mut self, reply: &Reply) -> Result<(), Broken> {
        reply.write(&mut self.replies, true);
        if self.replies.len() > REPLIES_MAX { self.flush() } else { Ok(()) }
    }

    /// Sends what was said.
    pub fn flush(&mut self) -> Result<(), Broken> {
        let written = self.output.write_all(&self.replies).and_then(|()| self.output.flush());
        self.replies.clear();
        written.map_err(Broken::Output)
    }

    fn available(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, octets: usize) {
        self.start = (self.start + octets).min(self.end);
    }

    /// Reads more. The peer may wait for what was said, so that goes first.
    fn fill(&mut self) -> Result<(), Broken> {
        self.flush()?;
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match self.input.read(room) {
            Ok(0) => Err(Broken::Ended),
            Ok(octets) => {
                self.end += octets;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Broken::Silent),
            Err(error) => Err(Broken::Input(error)),
        }
    }

    /// Reads a line into `line`, without its end, which LF alone is too. Who is `patient` waits for ever.
    pub fn read_line(&mut self, line: &mut Vec<u8>, patient: bool) -> Result<Line, Broken> {
        line.clear();
        let (mut scanned, mut is_too_long) = (0, false);
        loop {
            let available = self.available();
            if let Some(at) = memchr(b'\n', available.get(scanned..).unwrap_or_default()) {
                let whole = available.get(..scanned + at).unwrap_or_default();
                let (text, line_end) = match whole.strip_suffix(b"\r") {
                    Some(text) => (text, LineEnd::CrLf),
                    None => (whole, LineEnd::Lf),
                };
                line.extend_from_slice(text);
                self.consume(scanned + at + 1);
                let fits = !is_too_long && line.len() <= LINE_LENGTH_MAX;
                return Ok(if fits { Line::Complete(line_end) } else { Line::TooLong(line_end) });
            }
            scanned = available.len();
            // One octet more may be the CR of a line that fits.
            if scanned > LINE_LENGTH_MAX + 1 {
                is_too_long = true;
                self.consume(scanned);
                scanned = 0;
            }
            match self.fill() {
                Err(Broken::Silent) if patient => {}
                filled => filled?,
            }
        }
    }
}

/// The content of a message on its way in: transparency dots are gone, and after its last octet comes the
/// end. Where it breaks off there is an error instead, however often one reads.
#[derive(Debug)]
pub struct Content<'w, R, W> {
    wire: &'w mut Wire<R, W>,
    line_end: LineEnd,
    decoder: DotDecoder,
    bare: BareLines,
    /// Octets that were decoded and not handed on yet.
    ready: Vec<u8>,
    given: usize,
    has_ended: bool,
    after_cr: bool,
    broken: Option<Broken>,
}

impl<'w, R: Read, W: Write> Content<'w, R, W> {
    /// What follows on the wire, up to the dot on a line of its own.
    pub fn new(wire: &'w mut Wire<R, W>, line_end: LineEnd) -> Self {
        let (decoder, bare, ready) = (DotDecoder::new(line_end), BareLines::default(), Vec::new());
        Self {
            wire,
            line_end,
            decoder,
            bare,
            ready,
            given: 0,
            has_ended: false,
            after_cr: false,
            broken: None,
        }
    }

    /// Reads what nobody wants up to the end, so that no command is looked for in it.
    pub fn finish(mut self) -> Result<(), Broken> {
        while !self.has_ended && self.broken.is_none() {
            self.step();
        }
        self.broken.map_or(Ok(()), Err)
    }

    /// Makes more octets ready, of those that have come if they give any; else waits for others.
    fn step(&mut self) {
        self.ready.clear();
        self.given = 0;
        let available = self.wire.available();
        let (used, has_ended) =
            self.decoder.decode(available, &mut |octets| self.ready.extend_from_slice(octets));
        self.wire.consume(used);
        self.has_ended = has_ended;
        if self.line_end == LineEnd::CrLf {
            self.bare.undouble(&mut self.ready, has_ended);
        }
        if self.line_end == LineEnd::Lf && self.has_cr_lf() {
            self.broken = Some(Broken::MixedLineEnds);
        } else if self.ready.is_empty() && !has_ended {
            self.broken = self.wire.fill().err();
        }
    }

    /// Whether the octets that have become ready bring a CR LF to its end.
    fn has_cr_lf(&mut self) -> bool {
        let has =
            self.after_cr && self.ready.starts_with(b"\n") || memmem::find(&self.ready, b"\r\n").is_some();
        if let Some(&last) = self.ready.last() {
            self.after_cr = last == b'\r';
        }
        has
    }
}

impl<R: Read, W: Write> BufRead for Content<'_, R, W> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.given == self.ready.len() && !self.has_ended && self.broken.is_none() {
            self.step();
        }
        match &self.broken {
            Some(broken) => Err(io::Error::other(broken.to_string())),
            None => Ok(self.ready.get(self.given..).unwrap_or_default()),
        }
    }

    fn consume(&mut self, length: usize) {
        self.given = self.ready.len().min(self.given + length);
    }
}

impl<R: Read, W: Write> Read for Content<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

/// Lines that end in a bare LF, in content whose end is CR LF "." CR LF. Python's smtplib doubles the dots that follow any
/// LF, and Postfix takes one away again; so does this. A dot alone stays, and never ends anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BareLines {
    #[default]
    Elsewhere,
    AfterCr,
    AtStart,
    /// After a dot at the start, which is held back.
    Dot,
}

impl BareLines {
    /// Takes away one of two dots at the start of each such line; `is_last`: no more comes.
    fn undouble(&mut self, piece: &mut Vec<u8>, is_last: bool) {
        let is_within = matches!(self, Self::Elsewhere | Self::AfterCr);
        if is_within && memmem::find(piece, b"\n.").is_none() && !piece.ends_with(b"\n") {
            // As nearly always.
            if let Some(&last) = piece.last() {
                *self = if last == b'\r' { Self::AfterCr } else { Self::Elsewhere };
            }
            return;
        }
        let mut kept = Vec::with_capacity(piece.len() + 1);
        for &octet in piece.iter() {
            let before = *self;
            *self = match (before, octet) {
                (Self::AtStart, b'.') => {
                    *self = Self::Dot;
                    continue;
                }
                (Self::Elsewhere | Self::AtStart | Self::Dot, b'\n') => Self::AtStart,
                (_, b'\r') => Self::AfterCr,
                _ => Self::Elsewhere,
            };
            if before == Self::Dot && octet != b'.' {
                kept.push(b'.');
            }
            kept.push(octet);
        }
        if is_last && *self == Self::Dot {
            kept.push(b'.');
        }
        *piece = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undoubled(text: &str, size: usize) -> String {
        let (mut lines, mut out) = (BareLines::default(), Vec::new());
        let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let mut piece = piece.to_vec();
            lines.undouble(&mut piece, at + 1 == pieces.len());
            out.extend_from_slice(&piece);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dots_are_single_again_after_a_bare_lf_only() {
        for (text, expected) in [
            ("a\n..\nb\n", "a\n.\nb\n"),
            ("a\n..two\n...three\n", "a\n.two\n..three\n"),
            ("a\n.\nb", "a\n.\nb"),
            ("a\n.b\n.", "a\n.b\n."),
            ("a\n.\r\n", "a\n.\r\n"),
            ("a\n\n..\n\n", "a\n\n.\n\n"),
            ("a\r\n..b\r\n", "a\r\n..b\r\n"),
            ("a\r\r\n..b", "a\r\r\n..b"),
            ("..a\n", "..a\n"),
            ("a..\nb", "a..\nb"),
            ("a\n.\n..b\n", "a\n.\n.b\n"),
            ("\n..", "\n."),
        ] {
            for size in 1..=text.len() {
                assert_eq!(undoubled(text, size), expected, "{text:?} in pieces of {size}");
            }
        }
    }
}
