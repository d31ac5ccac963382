//! The queue file's text: version line, head, states, recipients, blank line, content.
//!
//! ```text
//! lastmile/1
//! {"id":"…","sender":"a@x","arrival":"…","recipients":2,…,"origin":"uid=1000","size":1234      }
//! -PP
//! {"address":"b@y"}
//! {"address":"c@y","notify":"FAILURE"}
//!
//! Subject: …
//! ```
//!
//! - Owns: the grammar, its bounds, and which members of a head are believed from whom.
//! - Leaves to others: where files lie and in which order they are written (`queue_file`, `submit`, `pickup`).
//! - Always true: no line is read beyond its bound, so memory stays bounded whatever a file holds; no input
//!   panics.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Write};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::mail::{
    Address, BodyType, Envelope, Notify, OriginalRecipient, QueueId, Recipient, Return, Sender, shortened,
};

/// How a queue file of any version begins.
pub(super) const MAGIC: &[u8] = b"lastmile/";
/// The version that we write and read.
pub(super) const VERSION_LINE: &[u8] = b"lastmile/1\n";
/// Octets of a head, its LF included.
pub(super) const HEAD_LENGTH_MAX: usize = 1 << 20;
/// Octets of a recipient's line, its LF included.
pub(super) const RECIPIENT_LENGTH_MAX: usize = 16 << 10;
/// Recipients of one message.
pub const RECIPIENTS_MAX: u32 = 1_000_000;
/// Octets of a nexthop, an origin or an envelope ID.
const MEMBER_LENGTH_MAX: usize = 4096;

/// Why a file cannot be read as a queue file.
#[derive(Debug)]
pub(super) enum FormatError {
    Io(io::Error),
    /// A queue file, but of another version; its first line.
    Version(String),
    /// Not a queue file, or a damaged one: what is wrong with it, as the end of a sentence about the file.
    Bad(String),
}

impl FormatError {
    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self::Bad(reason.into())
    }
}

impl From<io::Error> for FormatError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::Version(line) => write!(f, "it is of another version (\"{line}\")"),
            Self::Bad(reason) => f.write_str(reason),
        }
    }
}

/// A head as this program writes it: all of it is believed.
pub(super) struct Head {
    pub(super) envelope: Envelope,
    pub(super) count: u32,
    /// `None`: the writer never came to the end.
    pub(super) size: Option<u64>,
    /// The file in `incoming/` that it was copied from, if that had no envelope of its own.
    pub(super) bare: Option<String>,
    /// Octets of the head's line, its LF included.
    pub(super) length: usize,
}

/// What is believed of the head of a file that a user has made. `id`, `arrival`, `origin`, `body` and the
/// states are not even looked at: they are ours.
#[derive(Deserialize)]
pub(super) struct DroppedHead {
    pub(super) sender: Sender,
    pub(super) recipients: u32,
    #[serde(default)]
    pub(super) nexthop: Option<String>,
    #[serde(default)]
    pub(super) smtputf8: bool,
    #[serde(default)]
    pub(super) envid: Option<String>,
    #[serde(default)]
    pub(super) ret: Option<Return>,
    /// Outer `None`: not given. Inner `None`: written, but never filled in.
    #[serde(default, deserialize_with = "given")]
    pub(super) size: Option<Option<u64>>,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(Some)
}

/// All members together, though a dropped head has most of them: serde's `flatten` would keep every one in a tree
/// before it takes any.
#[derive(Deserialize)]
struct OwnHead<'a> {
    id: QueueId,
    sender: Sender,
    #[serde(borrow)]
    arrival: Cow<'a, str>,
    recipients: u32,
    #[serde(default)]
    nexthop: Option<String>,
    #[serde(default)]
    body: BodyType,
    #[serde(default)]
    smtputf8: bool,
    #[serde(default)]
    envid: Option<String>,
    #[serde(default)]
    ret: Option<Return>,
    origin: String,
    #[serde(default)]
    bare: Option<String>,
    #[serde(default)]
    size: Option<u64>,
}

/// Reads the version line. What does not even begin as a queue file is bad, not of another version.
pub(super) fn read_version(reader: &mut impl BufRead) -> Result<(), FormatError> {
    let mut line = Vec::new();
    let ended = read_line(reader, 64, &mut line)?;
    if !line.starts_with(MAGIC) {
        return Err(FormatError::bad("it does not begin with \"lastmile/1\""));
    }
    if !ended {
        return Err(FormatError::bad("its first line does not end"));
    }
    if line == VERSION_LINE.trim_ascii_end() {
        return Ok(());
    }
    Err(FormatError::Version(String::from_utf8_lossy(&line).escape_debug().to_string()))
}

/// Reads the head of a file that this program has written.
pub(super) fn read_head(reader: &mut impl BufRead) -> Result<Head, FormatError> {
    let line = head_line(reader)?;
    let head: OwnHead<'_> = parse(&line, "its head")?;
    let arrival: Timestamp =
        head.arrival.parse().map_err(|_| FormatError::bad("its arrival is no time stamp"))?;
    check_member("origin", &head.origin)?;
    check_head(head.recipients, head.nexthop.as_deref(), head.envid.as_deref())?;
    let envelope = Envelope {
        id: head.id,
        sender: head.sender,
        arrival,
        nexthop: head.nexthop,
        body: head.body,
        smtputf8: head.smtputf8,
        envid: head.envid,
        ret: head.ret,
        origin: head.origin,
        size: head.size.unwrap_or(0),
    };
    let length = line.len() + 1;
    Ok(Head { envelope, count: head.recipients, size: head.size, bare: head.bare, length })
}

/// Reads the head of a file that a user has made.
pub(super) fn read_dropped_head(reader: &mut impl BufRead) -> Result<DroppedHead, FormatError> {
    let head: DroppedHead = parse(&head_line(reader)?, "its head")?;
    check_head(head.recipients, head.nexthop.as_deref(), head.envid.as_deref())?;
    Ok(head)
}

fn head_line(reader: &mut impl BufRead) -> Result<Vec<u8>, FormatError> {
    let mut line = Vec::new();
    if read_line(reader, HEAD_LENGTH_MAX, &mut line)? {
        return Ok(line);
    }
    Err(FormatError::bad(format!("its head ends nowhere in {} octets", line.len())))
}

fn check_head(recipients: u32, nexthop: Option<&str>, envid: Option<&str>) -> Result<(), FormatError> {
    if recipients == 0 || recipients > RECIPIENTS_MAX {
        return Err(FormatError::Bad(format!("it has {recipients} recipients, not 1 to {RECIPIENTS_MAX}")));
    }
    check_member("nexthop", nexthop.unwrap_or(""))?;
    check_member("envid", envid.unwrap_or(""))
}

/// What goes into log lines and commands must not be able to leave them.
pub(super) fn check_member(name: &str, value: &str) -> Result<(), FormatError> {
    if value.len() > MEMBER_LENGTH_MAX || value.chars().any(char::is_control) {
        let reason = format!("its {name} has control characters or more than {MEMBER_LENGTH_MAX} octets");
        return Err(FormatError::Bad(reason));
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8], what: &str) -> Result<T, FormatError> {
    serde_json::from_slice(line).map_err(|error| unparsable(what, &error))
}

/// The parser's own words may repeat the whole line, which anybody may have written.
fn unparsable(what: impl fmt::Display, error: &serde_json::Error) -> FormatError {
    FormatError::Bad(format!("{what} does not parse: {}", shortened(&error.to_string())))
}

/// Reads up to and without the next LF, at most `max` octets with it; `false` if there was none.
pub(super) fn read_line(reader: &mut impl BufRead, max: usize, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut limited = io::Read::take(reader, max as u64);
    limited.read_until(b'\n', line)?;
    Ok(line.pop_if(|&mut last| last == b'\n').is_some())
}

pub(super) fn cut_short(error: io::Error, what: &str) -> FormatError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return FormatError::Bad(format!("it ends within {what}"));
    }
    FormatError::Io(error)
}

#[derive(Serialize)]
struct HeadLine<'a> {
    id: QueueId,
    sender: &'a Sender,
    arrival: String,
    recipients: u32,
    nexthop: Option<&'a str>,
    body: BodyType,
    smtputf8: bool,
    envid: Option<&'a str>,
    ret: Option<Return>,
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bare: Option<&'a str>,
    size: Option<u64>,
}

/// The head's line with its LF, padded with blanks to `length` octets (0: as long as it comes). `None` if it
/// does not fit: into `length`, or into what a reader takes.
pub(super) fn head_bytes(
    envelope: &Envelope,
    count: u32,
    bare: Option<&str>,
    size: Option<u64>,
    length: usize,
) -> Option<Vec<u8>> {
    let head = HeadLine {
        id: envelope.id,
        sender: &envelope.sender,
        arrival: envelope.arrival.to_string(),
        recipients: count,
        nexthop: envelope.nexthop.as_deref(),
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        envid: envelope.envid.as_deref(),
        ret: envelope.ret,
        origin: &envelope.origin,
        bare,
        size,
    };
    let mut line = serde_json::to_vec(&head).ok()?;
    line.pop_if(|&mut last| last == b'}')?;
    let padding = if length == 0 { 0 } else { length.checked_sub(line.len() + 2)? };
    line.resize(line.len() + padding, b' ');
    line.extend_from_slice(b"}\n");
    (line.len() <= HEAD_LENGTH_MAX).then_some(line)
}

#[derive(Serialize, Deserialize)]
struct RecipientLine {
    address: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notify: Option<Notify>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orcpt: Option<OriginalRecipient>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<Sender>,
}

/// Reads the line of the recipient at `position`; `line` is scratch.
pub(super) fn read_recipient(
    reader: &mut impl BufRead,
    position: u32,
    line: &mut Vec<u8>,
) -> Result<Recipient, FormatError> {
    if !read_line(reader, RECIPIENT_LENGTH_MAX, line)? {
        return Err(FormatError::Bad(format!(
            "the line of its recipient {position} is too long, or the file ends"
        )));
    }
    let parsed: RecipientLine = serde_json::from_slice(line)
        .map_err(|error| unparsable(format_args!("its recipient {position}"), &error))?;
    Ok(Recipient {
        position,
        address: parsed.address,
        notify: parsed.notify.unwrap_or_default(),
        orcpt: parsed.orcpt,
        sender: parsed.sender,
    })
}

/// Writes a recipient's line.
pub(super) fn write_recipient(writer: &mut impl Write, recipient: &Recipient) -> io::Result<()> {
    let line = RecipientLine {
        address: recipient.address.clone(),
        notify: (!recipient.notify.is_default()).then_some(recipient.notify),
        orcpt: recipient.orcpt.clone(),
        sender: recipient.sender.clone(),
    };
    serde_json::to_writer(&mut *writer, &line)?;
    writer.write_all(b"\n")
}

/// Reads the blank line between recipients and content.
pub(super) fn read_blank(reader: &mut impl BufRead) -> Result<(), FormatError> {
    let mut octet = [0];
    reader.read_exact(&mut octet).map_err(|error| cut_short(error, "its recipients"))?;
    if octet == *b"\n" { Ok(()) } else { Err(FormatError::bad("it has more recipients than its head says")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_version_is_read_and_others_are_told_from_rubbish() {
        for (input, expected) in [
            (&b"lastmile/1\n{}"[..], "ok"),
            (b"lastmile/2\n", "version lastmile/2"),
            (b"lastmile/1", "bad"),
            (b"lastmile/1\r\n", "version lastmile/1\\r"),
            (b"lastmile/12\n", "version lastmile/12"),
            (b"", "bad"),
            (b"lastmil", "bad"),
            (b"Subject: x\n\n", "bad"),
            (&[0; 4096], "bad"),
        ] {
            let found = match read_version(&mut &input[..]) {
                Ok(()) => "ok".to_owned(),
                Err(FormatError::Version(line)) => format!("version {line}"),
                Err(FormatError::Bad(_)) => "bad".to_owned(),
                Err(FormatError::Io(error)) => panic!("{error}"),
            };
            assert_eq!(found, expected, "{:?}", input.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_dropped_head_counts_for_what_a_user_may_say() {
        let text =
            br#"{"id":7,"arrival":[],"origin":null,"later":{"a":[1]},"sender":"","recipients":3,"size":null}
"#;
        let head = read_dropped_head(&mut &text[..]).unwrap();
        assert!(head.sender.is_null());
        assert_eq!((head.recipients, head.size), (3, Some(None)));
        for bad in [
            &b"{\"sender\":\"a@x\",\"recipients\":0}\n"[..],
            b"{\"sender\":\"a@x\",\"recipients\":1000001}\n",
            b"{\"sender\":\"a@x\",\"recipients\":1,\"recipients\":2}\n",
            b"{\"sender\":\"a@x\",\"recipients\":1,\"nexthop\":\"a\\nb\"}\n",
            b"{\"recipients\":1}\n",
            b"{\"sender\":\"a b@x\",\"recipients\":1}\n",
            b"{\"sender\":\"a@x\",\"recipients\":1}",
            b"[]\n",
            b"\n",
        ] {
            let result = read_dropped_head(&mut &bad[..]);
            assert!(matches!(result, Err(FormatError::Bad(_))), "{:?}", bad.escape_ascii().to_string());
        }
    }
}
