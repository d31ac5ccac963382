//! Reply logs: what servers said about a message's recipients, attempt by attempt.
//!
//! - Owns: `deferred/ID.log`, JSON lines that are only ever appended to.
//! - Leaves to others: what is shown of it (`cli`), what a bounce says (`notice`).
//! - Always true: the log stays in `deferred/` wherever its message is, and goes with it. A torn or damaged
//!   line costs itself only. No log takes more than [`LOG_SIZE_MAX`] for deferrals; refusals, of which each
//!   recipient has at most one, are always kept, because the bounce needs their text.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::FileExt;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::directory::{Place, Spool};
use super::format::read_line;
use super::lines::Section;
use crate::mail::{Address, EnhancedStatus, Outcome, QueueId, Recipient};

/// Octets up to which deferrals are logged.
pub const LOG_SIZE_MAX: u64 = 16 << 20;
/// Octets of one line; a longer one is not ours.
const LINE_LENGTH_MAX: usize = 128 << 10;
/// Octets of a line that are read at once: most have fewer.
const LINE_READ: usize = 4 << 10;
/// Octets kept of a server's text.
const TEXT_LENGTH_MAX: usize = 1000;
/// The same once the log has [`LOG_SIZE_MAX`]: a server with much to say to each of a million recipients must not fill
/// disk and memory.
const TEXT_LENGTH_SHORT: usize = 200;

/// What became of one recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedReply {
    /// When, as in RFC 3339.
    pub time: String,
    /// The recipient's position.
    pub recipient: u32,
    /// The recipient's address.
    pub address: Address,
    /// `sent`, `deferred` or `bounced`.
    pub outcome: String,
    /// The enhanced status code.
    pub dsn: EnhancedStatus,
    /// One line in words, as in the log.
    pub text: String,
    /// The server's reply as it came, lines joined by LF; `None` where we decided ourselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// The server that said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mta: Option<String>,
}

impl LoggedReply {
    /// Puts a line together.
    pub fn new(time: Timestamp, recipient: &Recipient, outcome: &Outcome, mta: Option<&str>) -> Self {
        let reason = outcome.reason();
        Self {
            time: time.to_string(),
            recipient: recipient.position,
            address: recipient.address.clone(),
            outcome: outcome.word().to_owned(),
            dsn: reason.status,
            text: cut(&reason.text, TEXT_LENGTH_MAX),
            reply: reason.reply.as_deref().map(|reply| cut(reply, TEXT_LENGTH_MAX)),
            mta: mta.map(|mta| cut(mta, TEXT_LENGTH_MAX)),
        }
    }

    /// The same in few words.
    fn shortened(&self) -> Self {
        let short = |text: &str| cut(text, TEXT_LENGTH_SHORT);
        let (reply, mta) = (self.reply.as_deref().map(short), self.mta.as_deref().map(short));
        Self { text: short(&self.text), reply, mta, ..self.clone() }
    }

    fn is_refusal(&self) -> bool {
        self.outcome == "bounced"
    }
}

/// At most `max` octets of a text, whole characters.
fn cut(text: &str, max: usize) -> String {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default().to_owned()
}

/// A log, read from its start: whole lines that parse.
#[derive(Debug)]
pub struct ReplyLog {
    reader: BufReader<File>,
    line: Vec<u8>,
    /// Where the next line begins.
    offset: u64,
}

impl ReplyLog {
    fn new(file: File) -> Self {
        Self { reader: BufReader::new(file), line: Vec::new(), offset: 0 }
    }

    /// The next reply, and where its line begins.
    fn next_with_offset(&mut self) -> io::Result<Option<(u64, LoggedReply)>> {
        loop {
            let start = self.offset;
            let is_whole = read_line(&mut self.reader, LINE_LENGTH_MAX, &mut self.line)?;
            if !is_whole && self.line.is_empty() {
                return Ok(None);
            }
            self.offset += self.line.len() as u64 + u64::from(is_whole);
            if let Ok(reply) = serde_json::from_slice(&self.line) {
                return Ok(Some((start, reply)));
            }
        }
    }
}

impl Iterator for ReplyLog {
    type Item = io::Result<LoggedReply>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_with_offset().map(|found| found.map(|(_, reply)| reply)).transpose()
    }
}

/// The last line about each of many recipients: found once, read one at a time, because a message may have more
/// refused recipients than their texts have room in memory.
#[derive(Debug)]
pub struct LastReplies<'a> {
    positions: &'a [u32],
    /// Where the line of each of them begins.
    offsets: Vec<Option<u64>>,
    file: Option<File>,
}

impl LastReplies<'_> {
    /// Reads what was said of a recipient last; `None` if nothing was logged.
    pub fn of(&self, position: u32) -> io::Result<Option<LoggedReply>> {
        let offset = self.positions.binary_search(&position).ok().and_then(|at| *self.offsets.get(at)?);
        let (Some(offset), Some(file)) = (offset, &self.file) else { return Ok(None) };
        let line = Section { file, front: &[], at: offset, end: offset + LINE_LENGTH_MAX as u64 };
        let mut text = Vec::new();
        read_line(&mut BufReader::with_capacity(LINE_READ, line), LINE_LENGTH_MAX, &mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }
}

impl Spool {
    /// Appends to a message's log with one write, so that the lines of two workers do not mix. Deferrals are
    /// left out when the log is full.
    pub fn append_replies(&self, id: QueueId, replies: &[LoggedReply]) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let deferred = self.at(Place::Deferred);
        let mut file: File = rustix::fs::openat(deferred, log_name(id), flags, Mode::from(0o600))?.into();
        let length = file.metadata()?.len();
        let full = length >= LOG_SIZE_MAX;
        let mut lines = Vec::new();
        if ends_torn(&file, length)? {
            lines.push(b'\n');
        }
        for reply in replies {
            if !full {
                serde_json::to_writer(&mut lines, reply)?;
            } else if reply.is_refusal() {
                serde_json::to_writer(&mut lines, &reply.shortened())?;
            } else {
                continue;
            }
            lines.push(b'\n');
        }
        file.write_all(&lines)
    }

    /// Reads a message's log; `None` if nothing was logged.
    pub fn replies(&self, id: QueueId) -> io::Result<Option<ReplyLog>> {
        match self.open_file(Place::Deferred, &log_name(id), false) {
            Ok(file) => Ok(Some(ReplyLog::new(file))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks through a message's log for the last line about each of these recipients (positions in ascending order).
    pub fn find_last_replies<'a>(&self, id: QueueId, positions: &'a [u32]) -> io::Result<LastReplies<'a>> {
        let mut found = LastReplies { positions, offsets: vec![None; positions.len()], file: None };
        let Some(mut log) = self.replies(id)? else { return Ok(found) };
        while let Some((offset, reply)) = log.next_with_offset()? {
            if let Ok(at) = positions.binary_search(&reply.recipient) {
                found.offsets[at] = Some(offset);
            }
        }
        found.file = Some(log.reader.into_inner());
        Ok(found)
    }

    /// The last line about each of these recipients (positions in ascending order), as far as there is one.
    pub fn last_replies(&self, id: QueueId, positions: &[u32]) -> io::Result<BTreeMap<u32, LoggedReply>> {
        let mut last = BTreeMap::new();
        for reply in self.replies(id)?.into_iter().flatten() {
            let reply = reply?;
            if positions.binary_search(&reply.recipient).is_ok() {
                last.insert(reply.recipient, reply);
            }
        }
        Ok(last)
    }

    /// Removes logs whose message is gone, at start. Returns whose they were.
    pub fn remove_orphan_logs(&self) -> io::Result<Vec<QueueId>> {
        let mut removed = Vec::new();
        for entry in self.names(Place::Deferred)? {
            let name = entry?.name;
            let id = name.to_str().and_then(|name| name.strip_suffix(".log"));
            let Some(id) = id.and_then(|id| id.parse::<QueueId>().ok()) else { continue };
            if self.find(id)?.is_none() {
                self.remove_log(id)?;
                removed.push(id);
            }
        }
        Ok(removed)
    }

    pub(super) fn remove_log(&self, id: QueueId) -> io::Result<()> {
        self.unlink(Place::Deferred, &log_name(id)).map(drop)
    }
}

/// A crash or a full disk may have left half a line.
fn ends_torn(file: &File, length: u64) -> io::Result<bool> {
    let mut last = *b"\n";
    if let Some(at) = length.checked_sub(1) {
        file.read_at(&mut last, at)?;
    }
    Ok(last != *b"\n")
}

fn log_name(id: QueueId) -> OsString {
    format!("{id}.log").into()
}
