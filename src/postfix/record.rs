//! Records of Postfix's queue files, and the content that they hold.
//!
//! - Owns: headers of records, pointers and padding, where the content ends.
//! - Leaves to others: the file (`queue_file`), what goes over the wire (`lines`), the envelope, which comes with the
//!   request.
//! - Always true: what is no content is an error; no file, however broken, is read without end or into memory whole.
//!
//! A record is a letter, the length of what follows, and that many octets. Where a milter has edited a message there
//! are pointers: reading goes on where they say, and what stands behind them is the rest of what was there before.

use std::io;

/// Octets of text that are handed on at once, at most. Postfix's own records are shorter, unless somebody has changed
/// `line_length_limit`.
pub const TEXT_MAX: usize = 32 * 1024;

/// Octets read at once.
const WINDOW: usize = 64 * 1024;

/// Jumps back to where the reader has been already, or further; as many as Postfix makes.
const JUMPS_BACK_MAX: u32 = 10_000;

/// Digits of a length: seven bits in each, and 31 bits in all.
const LENGTH_DIGITS_MAX: usize = 5;

/// Octets of a pointer's payload: Postfix writes 15.
const POINTER_MAX: u64 = 32;

/// What stands before a record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The letter.
    pub kind: u8,
    /// Octets of payload.
    pub length: u32,
    /// Octets of the header itself.
    pub size: usize,
}

impl Header {
    /// Reads the header at the start of `octets`. `None`: it is longer than they are.
    pub fn parse(octets: &[u8]) -> Result<Option<Self>, BadLength> {
        let Some((&kind, digits)) = octets.split_first() else { return Ok(None) };
        let mut length = 0_u64;
        for (at, &digit) in digits.iter().take(LENGTH_DIGITS_MAX).enumerate() {
            length |= u64::from(digit & 0x7f) << (7 * at);
            if digit & 0x80 == 0 {
                let length = i32::try_from(length).map_err(|_| BadLength)?.cast_unsigned();
                return Ok(Some(Self { kind, length, size: at + 2 }));
            }
        }
        if digits.len() < LENGTH_DIGITS_MAX { Ok(None) } else { Err(BadLength) }
    }
}

/// A length has more than 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

/// Where content comes from. Two: a file, and octets in tests.
pub trait Source {
    /// Appends octets from `at` on to `into`, as many as fit into its capacity or fewer. None: that is the end.
    fn read_at(&self, at: u64, into: &mut Vec<u8>) -> io::Result<usize>;

    /// Octets in all.
    fn length(&self) -> u64;
}

impl Source for [u8] {
    fn read_at(&self, at: u64, into: &mut Vec<u8>) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let piece = rest.get(..into.capacity() - into.len()).unwrap_or(rest);
        into.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn length(&self) -> u64 {
        self.len() as u64
    }
}

/// How a piece of text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// With its line.
    Line,
    /// Within its line, which goes on.
    Part,
}

/// Why content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Something else than the content's proper end. The number is the record's letter; or as Postfix counts,
    /// [`ContentError::END_OF_FILE`] and [`ContentError::BROKEN`].
    #[error("bad record type: {0} in message content")]
    Corrupt(i32),
    /// Reading failed; that says nothing about the file.
    #[error("cannot read the message's content: {0}")]
    Io(#[from] io::Error),
}

impl ContentError {
    /// The file ends where a record should begin.
    pub const END_OF_FILE: i32 = -1;
    /// A record that goes beyond the file's end, a length or a pointer that is none, or pointers without end.
    pub const BROKEN: i32 = -2;

    fn broken() -> Self {
        Self::Corrupt(Self::BROKEN)
    }
}

/// Reads the text of a message's content, record by record.
#[derive(Debug)]
pub struct ContentReader<'s, S: ?Sized> {
    source: &'s S,
    /// Octets of the source, from `window_at` on.
    window: Vec<u8>,
    window_at: u64,
    /// Where the reader is.
    at: u64,
    /// What is left of a record that is handed on in pieces, and how it ends.
    unfinished: Option<(Text, u64)>,
    jumps_back: u32,
    /// Octets that may still be passed over. No record is read twice, so these are as many as the source has.
    left: u64,
}

impl<'s, S: Source + ?Sized> ContentReader<'s, S> {
    /// Starts where the request says that the content begins.
    pub fn new(source: &'s S, offset: u64) -> Self {
        // A small message does not need a large window.
        let size = source.length().saturating_sub(offset).min(WINDOW as u64);
        let window = Vec::with_capacity(usize::try_from(size).unwrap_or(WINDOW).max(64));
        let left = source.length();
        Self { source, window, window_at: offset, at: offset, unfinished: None, jumps_back: 0, left }
    }

    /// The next piece of text; `None` at the content's proper end. Text of up to [`TEXT_MAX`] octets comes in one piece,
    /// longer text in pieces of that many.
    #[expect(clippy::should_implement_trait, reason = "what is returned lives in the reader")]
    pub fn next(&mut self) -> Result<Option<(Text, &[u8])>, ContentError> {
        if let Some((text, length)) = self.unfinished.take() {
            return self.piece(text, length).map(Some);
        }
        loop {
            let header = self.header()?;
            self.pass(header.size as u64)?;
            let length = u64::from(header.length);
            match header.kind {
                b'N' => return self.piece(Text::Line, length).map(Some),
                b'L' => return self.piece(Text::Part, length).map(Some),
                b'X' => return Ok(None),
                b'p' => self.jump(length)?,
                // Padding, which leaves room for pointers.
                b'w' => self.skip(length)?,
                other => return Err(ContentError::Corrupt(other.into())),
            }
        }
    }

    fn header(&mut self) -> Result<Header, ContentError> {
        let octets = self.fill(1 + LENGTH_DIGITS_MAX)?;
        match Header::parse(octets) {
            Ok(Some(header)) => Ok(header),
            Ok(None) if octets.is_empty() => Err(ContentError::Corrupt(ContentError::END_OF_FILE)),
            Ok(None) | Err(BadLength) => Err(ContentError::broken()),
        }
    }

    /// The text at the reader's place, or its first piece.
    fn piece(&mut self, text: Text, length: u64) -> Result<(Text, &[u8]), ContentError> {
        let rest = length.saturating_sub(TEXT_MAX as u64);
        let count = usize::try_from(length - rest).unwrap_or(TEXT_MAX);
        let text_or_part = if rest > 0 { Text::Part } else { text };
        self.unfinished = (rest > 0).then_some((text, rest));
        self.fill(count)?;
        let start = self.place_in_window();
        self.pass(count as u64)?;
        let octets = self.window.get(start..start + count).ok_or_else(ContentError::broken)?;
        Ok((text_or_part, octets))
    }

    /// Follows a pointer. Zero means that there is nothing to follow yet.
    fn jump(&mut self, length: u64) -> Result<(), ContentError> {
        if length > POINTER_MAX {
            return Err(ContentError::broken());
        }
        let count = usize::try_from(length).unwrap_or(0);
        let octets = self.fill(count)?.get(..count).ok_or_else(ContentError::broken)?;
        let target = pointer(octets).ok_or_else(ContentError::broken)?;
        self.pass(length)?;
        if target == 0 {
            return Ok(());
        }
        if target <= self.at {
            self.jumps_back += 1;
        }
        if self.jumps_back > JUMPS_BACK_MAX {
            return Err(ContentError::broken());
        }
        self.at = target;
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), ContentError> {
        if self.at.saturating_add(length) > self.source.length() {
            return Err(ContentError::broken());
        }
        self.pass(length)
    }

    fn pass(&mut self, octets: u64) -> Result<(), ContentError> {
        self.left = self.left.checked_sub(octets).ok_or_else(ContentError::broken)?;
        self.at = self.at.saturating_add(octets);
        Ok(())
    }

    fn place_in_window(&self) -> usize {
        let place = self.at.checked_sub(self.window_at).and_then(|place| usize::try_from(place).ok());
        place.unwrap_or(usize::MAX)
    }

    /// The octets at the reader's place: `wanted` and more, or fewer if the source has no more.
    fn fill(&mut self, wanted: usize) -> Result<&[u8], ContentError> {
        let rest = self.source.length().saturating_sub(self.at);
        let wanted = wanted.min(usize::try_from(rest).unwrap_or(wanted));
        let has = |reader: &Self| reader.window.len().saturating_sub(reader.place_in_window());
        if has(self) < wanted {
            // What lies before the reader's place is of no more use, and if that is elsewhere, nothing is.
            let used = self.place_in_window().min(self.window.len());
            self.window.drain(..used);
            self.window_at = self.at;
            self.window.reserve(wanted.saturating_sub(self.window.len()));
            while self.window.len() < wanted {
                let from = self.window_at.saturating_add(self.window.len() as u64);
                match self.source.read_at(from, &mut self.window) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let place = self.place_in_window();
        Ok(self.window.get(place..).unwrap_or_default())
    }
}

/// A pointer's payload: blanks and digits.
fn pointer(octets: &[u8]) -> Option<u64> {
    let digits = octets.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number: u64 = is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()?;
    i64::try_from(number).is_ok().then_some(number)
}
