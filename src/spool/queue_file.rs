//! Queue files: loading a message, marking what became of each recipient, reading its content.
//!
//! - Owns: reading what `submit` wrote, and the states that are overwritten in place.
//! - Leaves to others: the grammar (`format`), which message is loaded when (`agent`), what the marks mean
//!   for delivery (`queue`, `agent`).
//! - Always true: only files that the queue's owner has written are read as ours; whatever else a file holds,
//!   the answer is a [`LoadError`], never a panic, and memory stays within the window that was asked for, a
//!   head and one byte per recipient.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::buffer::spare_capacity;
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::directory::{Place, Spool};
use super::format::{self, FormatError, Head};
use super::lines::{Cursor, Lines, Section};
use super::listing::system_time;
use super::state::{State, States};
use crate::mail::{Envelope, QueueId, Recipient};

/// Octets read when a file is opened: most mail has its head and all its recipients there.
const FRONT: usize = 1000;

/// Why a message cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not there (any more): somebody moved or deleted it. No error for anybody.
    #[error("the message is gone")]
    Gone,
    /// A queue file of another version, by its first line: it goes to `hold/`.
    #[error("the queue file is of another version: its first line is \"{0}\"")]
    Version(String),
    /// The file of some other user, which came here by hand or by a release of something dropped. It is to be
    /// taken in as a dropped file is ([`super::Pickup::take_foreign`]): its head is not to be believed.
    #[error("the queue file belongs to uid {0}, who may still write to it")]
    Foreign(u32),
    /// Not a queue file, or a damaged one: it goes to `corrupt/`. Says what is wrong, as the end of a
    /// sentence about the file.
    #[error("the queue file is damaged: {0}")]
    Corrupt(String),
    /// The disk failed us; the file may be fine.
    #[error("the queue file cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl LoadError {
    /// Where a message goes that cannot be loaded for this reason; `None` if its file is not at fault, or is
    /// to be taken in first.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Version(_) => Some(Place::Hold),
            Self::Corrupt(_) => Some(Place::Corrupt),
            Self::Gone | Self::Foreign(_) | Self::Io(_) => None,
        }
    }
}

impl From<FormatError> for LoadError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Io(error) => Self::Io(error),
            FormatError::Version(line) => Self::Version(line),
            FormatError::Bad(reason) => Self::Corrupt(reason),
        }
    }
}

/// A message, and a window of the recipients for whom something is still to be done.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is known of the message.
    pub envelope: Arc<Envelope>,
    /// By which the file is opened again without reading it.
    pub layout: Layout,
    /// The window: pending, in doubt and refused recipients only. Those in doubt are to be tried again, with
    /// a warning; for refused ones only the bounce is owed.
    pub recipients: Vec<(Recipient, State)>,
    /// Recipients behind the window that are not settled.
    pub rest: usize,
    /// All recipients in the file that are not settled; 0: the file is a leftover and may be removed.
    pub unsettled: usize,
    /// All recipients.
    pub count: u32,
    /// Where the next window begins; `None` if nothing unsettled is behind this one.
    pub next: Option<Cursor>,
    /// Whether the sender has been told of the delay.
    pub delay_notice_sent: bool,
    /// When the file was last modified; in `deferred/`, when it is to be tried again.
    pub modified: SystemTime,
}

/// Where everything lies in a queue file, and which file that is. A queue file's states change in place, the rest
/// never: whoever has the layout of a file needs not read it again to deliver it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    device: u64,
    inode: u64,
    length: u64,
    count: u32,
    states_at: u64,
    recipients_at: u64,
    content_at: u64,
}

/// The file of one message, open. A rename or an unlink meanwhile does not disturb it.
#[derive(Debug)]
pub struct QueueFile {
    file: File,
    envelope: Arc<Envelope>,
    layout: Layout,
    modified: SystemTime,
    /// What was read when it was opened. Its states are as old as that.
    front: Vec<u8>,
}

impl Spool {
    /// Loads a message from `active/`: see [`QueueFile::load`].
    pub fn load(&self, id: QueueId, from: Cursor, window: usize) -> Result<Loaded, LoadError> {
        self.open_message(id, Place::Active)?.load(from, window)
    }

    /// Opens a message in `active/` to deliver and mark it; `None` if it is gone: deleted or held.
    pub fn open_active(&self, id: QueueId) -> Result<Option<QueueFile>, LoadError> {
        match self.open_queue_file(id, Place::Active, true) {
            Err(LoadError::Gone) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Opens a message in `active/` that was loaded before, without reading it once more; `None` if it is gone, or if
    /// somebody has put another file in its place: what is in memory, positions above all, is not about that one.
    pub fn open_again(
        &self,
        envelope: &Arc<Envelope>,
        layout: &Layout,
    ) -> Result<Option<QueueFile>, LoadError> {
        let (file, metadata) = match self.open_own_file(envelope.id, Place::Active, true) {
            Err(LoadError::Gone) => return Ok(None),
            result => result?,
        };
        if !layout.is_of(&metadata) {
            return Ok(None);
        }
        let (envelope, modified) = (Arc::clone(envelope), modified(&metadata));
        Ok(Some(QueueFile { file, envelope, layout: *layout, modified, front: Vec::new() }))
    }

    /// Whether a file that was opened in `active/` is still there under its name.
    pub fn is_active(&self, file: &QueueFile) -> Result<bool, LoadError> {
        match self.open_own_file(file.envelope.id, Place::Active, false) {
            Ok((_, metadata)) => Ok(file.layout.is_of(&metadata)),
            Err(LoadError::Gone | LoadError::Foreign(_) | LoadError::Corrupt(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a message for reading, wherever it is.
    pub fn open_message(&self, id: QueueId, place: Place) -> Result<QueueFile, LoadError> {
        self.open_queue_file(id, place, false)
    }

    fn open_queue_file(&self, id: QueueId, place: Place, write: bool) -> Result<QueueFile, LoadError> {
        let (file, metadata) = self.open_own_file(id, place, write)?;
        QueueFile::of_message(id, file, &metadata)
    }

    /// Opens what may be a queue file: a regular one of the queue's owner.
    fn open_own_file(&self, id: QueueId, place: Place, write: bool) -> Result<(File, Metadata), LoadError> {
        let file = match self.open_file(place, id.as_str().as_ref(), write) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(LoadError::Gone),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(corrupt("it is not a regular file")),
            Err(error) => return Err(LoadError::Io(error.into())),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(corrupt("it is not a regular file"));
        }
        if metadata.uid() != self.owner().0.as_raw() {
            return Err(LoadError::Foreign(metadata.uid()));
        }
        Ok((file, metadata))
    }
}

impl Layout {
    fn is_of(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode, self.length) == (metadata.dev(), metadata.ino(), metadata.len())
    }
}

impl QueueFile {
    fn of_message(id: QueueId, file: File, metadata: &Metadata) -> Result<Self, LoadError> {
        let queue_file = Self::from_file(file, metadata)?;
        if queue_file.envelope.id != id {
            return Err(LoadError::Corrupt(format!("it says that it is {}", queue_file.envelope.id)));
        }
        Ok(queue_file)
    }

    /// Reads the head and finds where everything lies, in constant time whatever the number of recipients:
    /// content has only CRLF for line ends, so the first two LF in a row end the recipients, and they must
    /// stand right where the size says that the content begins. A file that was cut short, or whose size was
    /// never filled in, fails this.
    fn from_file(file: File, metadata: &Metadata) -> Result<Self, LoadError> {
        let length = metadata.len();
        let front = read_front(&file, length)?;
        let head = match front.get(format::VERSION_LINE.len()..).and_then(|rest| memchr::memchr(b'\n', rest))
        {
            Some(_) => read_version_and_head(&mut &front[..])?,
            None => {
                let whole = Section { file: &file, front: &front, at: 0, end: length };
                read_version_and_head(&mut BufReader::new(whole))?
            }
        };
        let size = head.size.ok_or_else(|| corrupt("it was never finished: its size is missing"))?;
        let states_at = (format::VERSION_LINE.len() + head.length) as u64;
        let recipients_at = states_at + u64::from(head.count) + 2;
        let content_at = length
            .checked_sub(size)
            .filter(|&at| at > recipients_at)
            .ok_or_else(|| corrupt("it is shorter than its head says: it was never acknowledged"))?;
        let mut ends = [0; 2];
        let before_content = content_at - 2;
        Section { file: &file, front: &front, at: before_content, end: content_at }.read_exact(&mut ends)?;
        if ends != *b"\n\n" {
            return Err(corrupt("it is not as long as its head says: it was never acknowledged"));
        }
        let (device, inode, count) = (metadata.dev(), metadata.ino(), head.count);
        let layout = Layout { device, inode, length, count, states_at, recipients_at, content_at };
        Ok(Self { file, envelope: Arc::new(head.envelope), layout, modified: modified(metadata), front })
    }

    /// What is known of the message.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// All recipients, settled ones too.
    pub fn recipient_count(&self) -> u32 {
        self.layout.count
    }

    /// When it had last been modified as it was opened; in `deferred/`, when it is to be tried again.
    pub fn modified(&self) -> SystemTime {
        self.modified
    }

    /// Reads up to `window` unsettled recipients (at least one) from `from` on. With the default cursor, that
    /// is once for each message, all lines are counted too. What was read on opening is not read again: this is
    /// for a file just opened.
    pub fn load(&self, from: Cursor, window: usize) -> Result<Loaded, LoadError> {
        let window = window.max(1);
        let states = self.read_states(&self.front)?;
        let unsettled = |state: &State| !state.is_final();
        let total = states.iter().filter(unsettled).count();
        let mut ahead = states.iter().skip(from.position() as usize).filter(unsettled).count();
        let mut lines = self.lines(from);
        let mut recipients = Vec::with_capacity(window.min(ahead));
        for state in states.iter().skip(from.position() as usize) {
            if recipients.len() >= window || ahead == 0 {
                break;
            }
            if state.is_final() {
                lines.skip()?;
            } else {
                recipients.push((lines.read()?, state));
                ahead -= 1;
            }
        }
        let next = (ahead > 0).then_some(lines.cursor);
        if from == Cursor::default() {
            lines.skip_to_end()?;
        }
        Ok(Loaded {
            envelope: Arc::clone(&self.envelope),
            layout: self.layout,
            recipients,
            rest: ahead,
            unsettled: total,
            count: self.layout.count,
            next,
            delay_notice_sent: states.delay_notice_sent,
            modified: self.modified,
        })
    }

    /// All recipients and their states, one at a time: for bounces and for `queue show`.
    pub fn recipients(&self) -> Result<Recipients<'_>, LoadError> {
        Ok(Recipients { states: self.states()?.into_iter(), lines: self.lines(Cursor::default()) })
    }

    /// The states of all recipients, by position, as they are now.
    pub fn states(&self) -> Result<Vec<State>, LoadError> {
        Ok(self.read_states(&[])?.iter().collect())
    }

    fn lines(&self, from: Cursor) -> Lines<'_> {
        let Layout { recipients_at, content_at, count, .. } = self.layout;
        let section =
            Section { file: &self.file, front: &self.front, at: recipients_at, end: content_at - 1 };
        Lines::new(section, count, from)
    }

    /// Reads the states, as far as they do not stand in `front`.
    fn read_states(&self, front: &[u8]) -> Result<States, LoadError> {
        let Layout { states_at, recipients_at, count, .. } = self.layout;
        let mut line = Section { file: &self.file, front, at: states_at, end: recipients_at };
        Ok(States::read(&mut line, count)?)
    }

    /// Marks recipients, given by position in ascending order: each run of neighbours is one write. The marks
    /// are not synced: a power loss may double what was finished in the last seconds, which is better than to
    /// pay a sync for each reply.
    pub fn mark(&self, positions: &[u32], state: State) -> io::Result<()> {
        for run in positions.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (Some(&first), Some(&last)) = (run.first(), run.last()) else { continue };
            if last >= self.layout.count {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} has no recipient {last}", self.envelope.id),
                ));
            }
            let at = self.layout.states_at + 1 + u64::from(first);
            self.file.write_all_at(&vec![state.byte(); run.len()], at)?;
        }
        Ok(())
    }

    /// Whether the sender has been told of the delay.
    pub fn delay_notice_sent(&self) -> Result<bool, LoadError> {
        Ok(self.read_states(&[])?.delay_notice_sent)
    }

    /// Notes that the sender has been told of the delay.
    pub fn mark_delay_notice_sent(&self) -> io::Result<()> {
        self.file.write_all_at(b"W", self.layout.states_at)
    }

    /// Sets when the message is to be tried again: the file's modification time. To be done before it is
    /// renamed to `deferred/`, where the time counts.
    pub fn set_next_attempt(&self, time: SystemTime) -> io::Result<()> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last_modification = Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos().into(),
        };
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        Ok(rustix::fs::futimens(&self.file, &Timestamps { last_access, last_modification })?)
    }

    /// Where the content lies in the file: offset and length. In wire form, but for transparency dots.
    pub fn content_range(&self) -> (u64, u64) {
        (self.layout.content_at, self.envelope.size)
    }

    /// The file itself, for reading where [`QueueFile::content_range`] says.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` from `offset` octets into the content; fewer only at its end.
    pub fn read_content_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.envelope.size.saturating_sub(offset);
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(part) = buffer.get_mut(..length) else { return Ok(0) };
        // Less than the head promises is an error, never a shorter message.
        self.file.read_exact_at(part, self.layout.content_at.saturating_add(offset))?;
        Ok(length)
    }

    /// The content from its start.
    pub fn content(&self) -> Content<'_> {
        Content { file: self, offset: 0 }
    }
}

impl AsFd for QueueFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_version_and_head(reader: &mut impl BufRead) -> Result<Head, FormatError> {
    format::read_version(reader)?;
    format::read_head(reader)
}

/// Reads the front of a file of `length` octets. Less only where the file is shorter.
fn read_front(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let mut front = Vec::with_capacity(FRONT.min(usize::try_from(length).unwrap_or(FRONT)));
    while front.len() < front.capacity() {
        let at = front.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut front), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(front)
}

fn modified(metadata: &Metadata) -> SystemTime {
    system_time(metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0))
}

fn corrupt(reason: &str) -> LoadError {
    LoadError::Corrupt(reason.into())
}

/// Reads the content of a message. An error if the file holds less than its head promises.
#[derive(Debug)]
pub struct Content<'a> {
    file: &'a QueueFile,
    offset: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_content_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// All recipients of a message with their states, read as they are asked for.
#[derive(Debug)]
pub struct Recipients<'a> {
    states: std::vec::IntoIter<State>,
    lines: Lines<'a>,
}

impl Iterator for Recipients<'_> {
    type Item = Result<(Recipient, State), LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let state = self.states.next()?;
        let recipient = self.lines.read();
        if recipient.is_err() {
            // What follows a line that does not parse cannot be trusted.
            self.states = Vec::new().into_iter();
        }
        Some(recipient.map(|recipient| (recipient, state)).map_err(LoadError::from))
    }
}
