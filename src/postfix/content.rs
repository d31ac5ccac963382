//! The content of a message, from the records of its queue file to the octets of its wire form.
//!
//! - Owns: reading, converting and line breaking as one; measuring; keeping small content in memory.
//! - Leaves to others: the file (`queue_file`), the records, lines and encodings themselves (`record`, `lines`,
//!   `seven_bit`), transparency dots (`smtp`).
//! - Always true: the same content in the same form has the same octets each time. Of content that is not small no more
//!   than a piece is in memory.

use super::lines::Lines;
use super::record::{ContentError, ContentReader, Source, Text};
use super::seven_bit::{SevenBit, is_field};

/// Octets of a piece, about.
const PIECE: usize = 32 * 1024;

/// Delivered-To fields that are looked at, and octets of one: no address is longer.
const DELIVERED_TO_MAX: usize = 1000;

/// The form in which content goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Lines with more octets are broken; 0 means never.
    pub line_length_limit: usize,
    /// What says that it is 8-bit goes out as quoted-printable.
    pub seven_bit: bool,
}

/// What content is like in a form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Octets on the wire, without transparency dots and the end of data.
    pub size: u64,
    /// How often a line had to be broken. Where this is not zero the log says so, once.
    pub breaks: u64,
}

/// Content that was read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it is like.
    pub measured: Measured,
    /// All of it, where it is small.
    pub octets: Option<Vec<u8>>,
}

/// Why handing on content stopped.
#[derive(Debug)]
pub enum Stopped<E> {
    /// It could not be read.
    Content(ContentError),
    /// Whoever took it did not want more.
    Taker(E),
}

impl<E> From<ContentError> for Stopped<E> {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

/// Hands the content that begins at `offset` to `take`, piece by piece, each put together in `buffer`; returns how often
/// a line was broken.
pub fn for_each_piece<E>(
    source: &(impl Source + ?Sized),
    offset: u64,
    form: Form,
    buffer: &mut Vec<u8>,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<u64, Stopped<E>> {
    let mut reader = ContentReader::new(source, offset);
    let mut lines = Lines::new(form.line_length_limit);
    let mut seven_bit = form.seven_bit.then(SevenBit::new);
    buffer.clear();
    while let Some((text, piece)) = reader.next()? {
        match &mut seven_bit {
            None => lines.push(text, piece, buffer),
            Some(seven_bit) => seven_bit.push(text, piece, &mut lines, buffer),
        }
        if buffer.len() >= PIECE {
            take(buffer).map_err(Stopped::Taker)?;
            buffer.clear();
        }
    }
    match seven_bit {
        None => lines.finish(buffer),
        Some(seven_bit) => seven_bit.finish(&mut lines, buffer),
    }
    if !buffer.is_empty() {
        take(buffer).map_err(Stopped::Taker)?;
    }
    Ok(lines.breaks())
}

/// Reads the content once; keeps it in memory where it has no more than `keep` octets.
pub fn load(
    source: &(impl Source + ?Sized),
    offset: u64,
    form: Form,
    keep: usize,
) -> Result<Loaded, ContentError> {
    let mut measured = Measured::default();
    let expected = source.length().saturating_sub(offset).min(keep as u64);
    let mut octets = Some(Vec::with_capacity(usize::try_from(expected).unwrap_or(0)));
    let mut buffer = Vec::new();
    let ended = for_each_piece::<std::convert::Infallible>(source, offset, form, &mut buffer, |piece| {
        measured.size += piece.len() as u64;
        match &mut octets {
            Some(octets) if octets.len() + piece.len() <= keep => octets.extend_from_slice(piece),
            octets => *octets = None,
        }
        Ok(())
    });
    match ended {
        Ok(breaks) => measured.breaks = breaks,
        Err(Stopped::Content(error)) => return Err(error),
        Err(Stopped::Taker(never)) => match never {},
    }
    Ok(Loaded { measured, octets })
}

/// The values of the Delivered-To fields of a message, the first thousand at most. Whoever is named there has had it
/// once: it runs in a circle.
pub fn delivered_to(source: &(impl Source + ?Sized), offset: u64) -> Result<Vec<Vec<u8>>, ContentError> {
    let mut reader = ContentReader::new(source, offset);
    let mut found = Vec::new();
    let mut begins_line = true;
    while let Some((text, piece)) = reader.next()? {
        let is_folded = matches!(piece.first(), Some(b' ' | b'\t'));
        if begins_line && !is_folded {
            let Some((name, value)) = is_field(piece) else { break };
            let value = value.trim_ascii();
            if name.eq_ignore_ascii_case(b"Delivered-To") && value.len() <= DELIVERED_TO_MAX {
                found.push(value.to_vec());
            }
            if found.len() >= DELIVERED_TO_MAX {
                break;
            }
        }
        begins_line = text == Text::Line;
    }
    Ok(found)
}
