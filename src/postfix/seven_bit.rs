//! 8-bit mail for servers without 8BITMIME (RFC 6152 section 3): its 8-bit parts become quoted-printable (RFC 2045
//! section 6.7).
//!
//! - Owns: finding the parts of a message that say that they are 8bit or binary, and encoding them.
//! - Leaves to others: whether that has to be done; the lines that come of it (`lines`).
//! - Always true: what does not say that it is 8-bit goes out as it came, so that every signature over it stays good. A
//!   label says what follows it. Memory does not grow with the message.
//!
//! Field by field and line by line this does what Postfix's own clients do, but for parts of type message whose content
//! is no message: there these encode the text and write "7bit" on it.

mod content_type;
mod quoted_printable;

pub(super) use self::content_type::is_field;
use self::content_type::{Kind, parse_encoding, parse_type};
use self::quoted_printable::QuotedPrintable;
use super::lines::Lines;
use super::record::Text;

/// Multiparts within multiparts that are told apart; what is deeper goes out as it came. Postfix lets no deeper ones in.
const DEPTH_MAX: usize = 100;

/// Octets of a boundary that are compared.
const BOUNDARY_MAX: usize = 2048;

/// Octets of a header field that are looked at.
const FIELD_MAX: usize = 100 * 1024;

/// Converts one message.
#[derive(Debug)]
pub struct SevenBit {
    place: Place,
    /// What the part at hand is, and whether it says that it has 8-bit text.
    kind: Kind,
    is_eight_bit: bool,
    field: Field,
    /// Those that we are in, the innermost last.
    multiparts: Vec<Multipart>,
    /// The last piece did not end its line.
    is_within_line: bool,
    encoded: QuotedPrintable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The header of the message itself.
    Header,
    /// The header of a part, or of a message within the message.
    InnerHeader,
    Body,
}

/// The field of a header that is being read.
#[derive(Debug)]
enum Field {
    /// None yet.
    None,
    /// One that goes out as it comes.
    Passed,
    /// Content-Type, which goes out as it comes, too: what stands behind its colon.
    Type(Vec<u8>),
    /// Content-Transfer-Encoding: its pieces, the value within them, and octets of both.
    Encoding(Vec<(Text, Vec<u8>)>, Vec<u8>, usize),
    /// A label that no longer is true.
    Dropped,
}

#[derive(Debug)]
struct Multipart {
    boundary: Vec<u8>,
    /// What a part is that does not say it.
    default: Kind,
}

/// Where lines go.
struct Wire<'a> {
    lines: &'a mut Lines,
    out: &'a mut Vec<u8>,
}

impl Wire<'_> {
    fn push(&mut self, text: Text, piece: &[u8]) {
        self.lines.push(text, piece, self.out);
    }
}

impl Default for SevenBit {
    fn default() -> Self {
        Self::new()
    }
}

impl SevenBit {
    /// Starts a message.
    pub fn new() -> Self {
        Self {
            place: Place::Header,
            kind: Kind::Other,
            is_eight_bit: false,
            field: Field::None,
            multiparts: Vec::new(),
            is_within_line: false,
            encoded: QuotedPrintable::default(),
        }
    }

    /// Takes a piece of text; what becomes of it goes by way of `lines` to `out`: at most three times its length, and
    /// what was held back, which is bounded.
    pub fn push(&mut self, text: Text, piece: &[u8], lines: &mut Lines, out: &mut Vec<u8>) {
        let mut wire = Wire { lines, out };
        let begins_line = !std::mem::replace(&mut self.is_within_line, text == Text::Part);
        if self.place != Place::Body && self.push_header(begins_line, text, piece, &mut wire) {
            return;
        }
        // Two hyphens alone are no boundary, even where somebody has chosen an empty one.
        if begins_line && let Some(rest @ [_, ..]) = piece.strip_prefix(b"--") {
            self.look_for_boundary(rest);
        }
        if self.is_eight_bit && self.place == Place::Body {
            self.encoded.push(text, piece, |line| push_encoded(line, &self.multiparts, &mut wire));
        } else {
            wire.push(text, piece);
        }
    }

    /// Ends the message, and its last line where that has no end.
    pub fn finish(mut self, lines: &mut Lines, out: &mut Vec<u8>) {
        let mut wire = Wire { lines, out };
        if self.is_within_line && self.is_eight_bit && self.place == Place::Body {
            self.encoded.push(Text::Line, b"", |line| push_encoded(line, &self.multiparts, &mut wire));
        }
        wire.lines.finish(wire.out);
        self.end_field(&mut wire);
        if self.place != Place::Body {
            self.label(&mut wire);
        }
        wire.lines.finish(wire.out);
    }

    /// Takes a piece within a header. False: it stands behind the header's end.
    fn push_header(&mut self, begins_line: bool, text: Text, piece: &[u8], wire: &mut Wire<'_>) -> bool {
        let is_folded = matches!(piece.first(), Some(b' ' | b'\t')) && !matches!(self.field, Field::None);
        if begins_line && !is_folded {
            self.end_field(wire);
            let Some((name, value)) = is_field(piece) else {
                self.end_header(piece.is_empty(), wire);
                return false;
            };
            self.field = if name.eq_ignore_ascii_case(b"Content-Type") {
                Field::Type(value.to_vec())
            } else if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") {
                Field::Encoding(vec![(text, piece.to_vec())], value.to_vec(), piece.len())
            } else {
                Field::Passed
            };
            if !matches!(self.field, Field::Encoding(..)) {
                wire.push(text, piece);
            }
            return true;
        }
        self.continue_field(text, piece, wire);
        true
    }

    fn continue_field(&mut self, text: Text, piece: &[u8], wire: &mut Wire<'_>) {
        match &mut self.field {
            Field::None | Field::Passed => wire.push(text, piece),
            Field::Type(value) => {
                wire.push(text, piece);
                let room = FIELD_MAX.saturating_sub(value.len()).min(piece.len());
                value.extend_from_slice(piece.get(..room).unwrap_or_default());
            }
            Field::Encoding(held, value, size) => {
                held.push((text, piece.to_vec()));
                value.extend_from_slice(piece);
                // An empty piece takes memory, too.
                *size += piece.len() + 1;
                if *size > FIELD_MAX {
                    // It begins with what counts.
                    self.end_field(wire);
                    self.field = if self.is_eight_bit { Field::Dropped } else { Field::Passed };
                }
            }
            Field::Dropped => {}
        }
    }

    fn end_field(&mut self, wire: &mut Wire<'_>) {
        match std::mem::replace(&mut self.field, Field::None) {
            Field::Type(value) => {
                let multiparts = &mut self.multiparts;
                self.kind = parse_type(&value, |boundary, default| {
                    if multiparts.len() < DEPTH_MAX {
                        let boundary = boundary.get(..BOUNDARY_MAX).unwrap_or(boundary).to_vec();
                        multiparts.push(Multipart { boundary, default });
                    }
                });
            }
            Field::Encoding(held, value, _) => {
                self.is_eight_bit = parse_encoding(&value).unwrap_or(self.is_eight_bit);
                if !self.is_eight_bit {
                    held.iter().for_each(|(text, piece)| wire.push(*text, piece));
                }
            }
            Field::None | Field::Passed | Field::Dropped => {}
        }
    }

    /// Ends a header, at an empty line or at one that is no field.
    fn end_header(&mut self, at_empty_line: bool, wire: &mut Wire<'_>) {
        self.label(wire);
        // What is in a multipart or in a message has labels of its own. A line that is no field belongs to no part and
        // to no message's header: it has only the label that is written above, and is encoded up to the next boundary.
        self.is_eight_bit &= !(at_empty_line && self.kind.has_parts());
        let was = std::mem::replace(&mut self.place, Place::Body);
        if !at_empty_line && was == Place::Header {
            wire.push(Text::Line, b"");
        }
        if at_empty_line && self.kind == Kind::Message {
            self.place = Place::InnerHeader;
        }
        if at_empty_line && self.kind.has_parts() {
            self.kind = Kind::Other;
        }
    }

    /// Writes the new label of a part that had said that it is 8-bit.
    fn label(&self, wire: &mut Wire<'_>) {
        let label = match self.kind {
            Kind::Multipart | Kind::Message => &b"Content-Transfer-Encoding: 7bit"[..],
            Kind::Other => b"Content-Transfer-Encoding: quoted-printable",
        };
        if self.is_eight_bit {
            wire.push(Text::Line, label);
        }
    }

    /// A boundary of an outer multipart ends the inner ones, whose own may be missing.
    fn look_for_boundary(&mut self, rest: &[u8]) {
        let Some(at) = self.multiparts.iter().rposition(|multipart| rest.starts_with(&multipart.boundary))
        else {
            return;
        };
        self.multiparts.truncate(at + 1);
        let Some(Multipart { boundary, default }) = self.multiparts.last() else { return };
        let is_last = rest.get(boundary.len()..).is_some_and(|rest| rest.starts_with(b"--"));
        self.is_eight_bit = false;
        self.field = Field::None;
        if is_last {
            self.multiparts.truncate(at);
            (self.place, self.kind) = (Place::Body, Kind::Other);
        } else {
            (self.place, self.kind) = (Place::InnerHeader, *default);
        }
    }
}

/// Which of the multiparts that we are in has a boundary that a line begins with, behind its two hyphens.
fn boundary_at(rest: &[u8], multiparts: &[Multipart]) -> Option<usize> {
    multiparts.iter().rposition(|multipart| rest.starts_with(&multipart.boundary))
}

/// Hands on a line that was encoded. One that was no boundary before does not become one: where a long line is broken,
/// what follows may look like it. It may have two columns more than the 76 of RFC 2045 then.
fn push_encoded(line: &[u8], multiparts: &[Multipart], wire: &mut Wire<'_>) {
    match line.strip_prefix(b"--") {
        Some(rest) if boundary_at(rest, multiparts).is_some() => {
            wire.push(Text::Line, &[b"=2D-", rest].concat());
        }
        _ => wire.push(Text::Line, line),
    }
}

#[cfg(test)]
mod tests;
