//! Writing a queue file: head, states and recipients first, then the content, then the head again.
//!
//! - Owns: the order of writes within a file, and the limit on its content; content in wire form in any file.
//! - Leaves to others: names, renames and syncs (`submit`, `copy`), the grammar (`format`), line ends
//!   (`wire`).
//! - Always true: until the last write the head says `"size":null`; that write is one, of the whole head in
//!   place.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use super::format::{self, FormatError};
use super::submit::SubmitLimits;
use super::wire::Normaliser;
use crate::mail::{BodyType, Envelope, Recipient};

/// Octets of content read at a time. Most mail is smaller, and a process that queues one message pays for each page that
/// it touches first.
const CONTENT_READ: usize = 16 << 10;

/// Content that was written in wire form, as an envelope describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Octets of it.
    pub size: u64,
    /// Whether there are octets over 127.
    pub body: BodyType,
}

/// Why content could not be written.
#[derive(Debug)]
pub enum ContentError {
    /// The file that it was written to.
    Disk(io::Error),
    /// Where it comes from.
    Source(io::Error),
    /// It is larger than so many octets.
    TooLarge(u64),
}

/// Appends content to `file` in wire form, at most `limit` octets of it (0: no limit). Reads at most one piece more than
/// that, however much the source grows meanwhile.
pub fn append_content(file: &mut File, content: &mut dyn Read, limit: u64) -> Result<Written, ContentError> {
    let mut normaliser = Normaliser::default();
    let (mut input, mut output) = (vec![0; CONTENT_READ], Vec::with_capacity(CONTENT_READ + 1));
    let mut size = 0;
    loop {
        let length = match content.read(&mut input) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ContentError::Source(error)),
        };
        match input.get(..length) {
            Some(piece) if length > 0 => normaliser.push(piece, &mut output),
            _ => normaliser.finish(&mut output),
        }
        size += output.len() as u64;
        if limit > 0 && size > limit {
            return Err(ContentError::TooLarge(limit));
        }
        file.write_all(&output).map_err(ContentError::Disk)?;
        output.clear();
        if length == 0 {
            break;
        }
    }
    let body = if normaliser.eight_bit() { BodyType::EightBitMime } else { BodyType::SevenBit };
    Ok(Written { size, body })
}

/// Why a queue file could not be written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The file being written.
    Disk(io::Error),
    /// Where the message comes from.
    Source(io::Error),
    TooLarge(u64),
    /// The message cannot be queued as it is, whoever tries.
    Rejected(String),
}

impl From<ContentError> for WriteError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Disk(error) => Self::Disk(error),
            ContentError::Source(error) => Self::Source(error),
            ContentError::TooLarge(limit) => Self::TooLarge(limit),
        }
    }
}

impl From<FormatError> for WriteError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Io(error) => Self::Source(error),
            other => Self::Rejected(other.to_string()),
        }
    }
}

/// A queue file that has its head, states and recipients, and lacks its content. Its head says so: `size` is
/// null.
pub(super) struct Unfinished {
    pub(super) file: File,
    pub(super) envelope: Envelope,
    pub(super) count: u32,
    /// The file in `incoming/` that it is copied from, if that has no envelope of its own.
    pub(super) bare: Option<String>,
    /// Octets of the head's line, which the final head must fill exactly.
    pub(super) head_length: usize,
}

impl Unfinished {
    /// Writes everything but the content, and leaves room in the head for what is not known yet.
    pub(super) fn begin(
        file: File,
        envelope: Envelope,
        count: u32,
        bare: Option<String>,
        recipients: impl Iterator<Item = Result<Recipient, FormatError>>,
    ) -> Result<Self, WriteError> {
        let head_length = longest_head(&envelope, count, bare.as_deref())?;
        let head = head_of(&envelope, count, bare.as_deref(), None, head_length)?;
        let mut writer = BufWriter::with_capacity(CONTENT_READ, &file);
        let states = (|| {
            writer.write_all(format::VERSION_LINE)?;
            writer.write_all(&head)?;
            writer.write_all(b"-")?;
            io::copy(&mut io::repeat(b'P').take(count.into()), &mut writer)?;
            writer.write_all(b"\n")
        })();
        states.map_err(WriteError::Disk)?;
        let mut written = 0;
        for recipient in recipients {
            format::write_recipient(&mut writer, &recipient?).map_err(WriteError::Disk)?;
            written += 1;
        }
        if written != count {
            return Err(WriteError::Rejected(format!("it has {written} recipients, its head says {count}")));
        }
        writer.write_all(b"\n").and_then(|()| writer.flush()).map_err(WriteError::Disk)?;
        drop(writer);
        Ok(Self { file, envelope, count, bare, head_length })
    }

    /// Appends the content in wire form, then writes the head with its size: one write, the last one.
    pub(super) fn add_content(
        &mut self,
        content: &mut dyn Read,
        limits: &SubmitLimits,
    ) -> Result<(), WriteError> {
        let written = append_content(&mut self.file, content, limits.message_size_limit)?;
        self.envelope.size = written.size;
        self.envelope.body = written.body;
        self.write_head()
    }

    fn write_head(&self) -> Result<(), WriteError> {
        let (bare, size) = (self.bare.as_deref(), Some(self.envelope.size));
        let head = head_of(&self.envelope, self.count, bare, size, self.head_length)?;
        let at = format::VERSION_LINE.len() as u64;
        self.file.write_all_at(&head, at).map_err(WriteError::Disk)
    }
}

/// The longest that this head can get: its content decides body type and size, and who owns the file that is
/// picked up decides the origin.
fn longest_head(envelope: &Envelope, count: u32, bare: Option<&str>) -> Result<usize, WriteError> {
    let mut longest = Envelope { body: BodyType::EightBitMime, ..envelope.clone() };
    if longest.origin.len() < LONGEST_UID.len() {
        longest.origin = LONGEST_UID.to_owned();
    }
    Ok(head_of(&longest, count, bare, Some(u64::MAX), 0)?.len())
}

const LONGEST_UID: &str = "uid=4294967295";

fn head_of(
    envelope: &Envelope,
    count: u32,
    bare: Option<&str>,
    size: Option<u64>,
    length: usize,
) -> Result<Vec<u8>, WriteError> {
    format::head_bytes(envelope, count, bare, size, length)
        .ok_or_else(|| WriteError::Rejected("its envelope is too long for a queue file".into()))
}
