//! Reading recipients' lines from any place in a queue file.
//!
//! - Owns: where the next line begins. Leaves to others: what a line says (`format`), states (`state`).
//! - Always true: an open file's own offset is neither used nor moved, because threads share it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use super::format::{self, FormatError};
use crate::mail::Recipient;

/// Where the next window of a large message begins. The default is the first recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    position: u32,
    /// Octets from the first recipient's line: without it, the windows of a list of a million recipients
    /// would mean reading the file a thousand times.
    offset: u64,
}

impl Cursor {
    /// The position of the next recipient, settled or not.
    pub fn position(self) -> u32 {
        self.position
    }
}

/// Octets of lines read at a time.
const LINES_READ: usize = 64 << 10;

/// A part of a file, read without moving its offset: threads share the open file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub(super) file: &'a File,
    /// The first octets of the file, where they have been read already; not read again.
    pub(super) front: &'a [u8],
    pub(super) at: u64,
    pub(super) end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let Some(part) = buffer.get_mut(..length) else { return Ok(0) };
        let known = usize::try_from(self.at).ok().and_then(|at| self.front.get(at..)).unwrap_or_default();
        let read = if known.is_empty() {
            self.file.read_at(part, self.at)?
        } else {
            let read = part.len().min(known.len());
            part[..read].copy_from_slice(&known[..read]);
            read
        };
        self.at += read as u64;
        Ok(read)
    }
}

/// The recipients' lines, from a cursor on.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    reader: BufReader<Section<'a>>,
    pub(super) cursor: Cursor,
    count: u32,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    /// The lines of `count` recipients in `section`, which ends before the blank line.
    pub(super) fn new(section: Section<'a>, count: u32, cursor: Cursor) -> Self {
        let Section { at, end, .. } = section;
        let at = at.saturating_add(cursor.offset);
        let capacity = LINES_READ.min(usize::try_from(end.saturating_sub(at)).unwrap_or(LINES_READ));
        let reader = BufReader::with_capacity(capacity, Section { at, ..section });
        Self { reader, cursor, count, line: Vec::new() }
    }

    pub(super) fn read(&mut self) -> Result<Recipient, FormatError> {
        let recipient = format::read_recipient(&mut self.reader, self.cursor.position, &mut self.line)?;
        self.advance();
        Ok(recipient)
    }

    pub(super) fn skip(&mut self) -> Result<(), FormatError> {
        if !format::read_line(&mut self.reader, format::RECIPIENT_LENGTH_MAX, &mut self.line)? {
            return Err(FormatError::Bad(format!(
                "the line of its recipient {} is too long, or missing",
                self.cursor.position
            )));
        }
        self.advance();
        Ok(())
    }

    fn advance(&mut self) {
        self.cursor.position += 1;
        self.cursor.offset += self.line.len() as u64 + 1;
    }

    /// Sees that there are exactly as many lines as recipients.
    pub(super) fn skip_to_end(mut self) -> Result<(), FormatError> {
        while self.cursor.position < self.count {
            self.skip()?;
        }
        if !self.reader.fill_buf()?.is_empty() {
            return Err(FormatError::bad("it has more recipients than its head says"));
        }
        Ok(())
    }
}
