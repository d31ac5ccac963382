//! The content of a request's message, as a connection wants it.
//!
//! - Owns: what is prepended, what is kept in memory, what becomes of a message whose content cannot be read.
//! - Leaves to others: records and lines (`postfix`), what goes over the wire (`net`).
//! - Always true: content was read once, to its end, before anything is said of it to a server: so its size is exact, and
//!   a damaged message is never begun.

use std::cell::Cell;
use std::io;

use super::job::Job;
use crate::mail::{EnhancedStatus, Outcome, Reason};
use crate::net::{Content, Taken};
use crate::postfix::content::{Form, Loaded, Stopped};
use crate::postfix::queue_file::QueueFile;
use crate::postfix::record::ContentError;
use crate::smtp::Cause;

/// Octets of content that are kept in memory between the two readings. Most mail is smaller.
const KEEP: usize = 64 * 1024;

/// The content of a message, measured.
#[derive(Debug)]
pub struct MeasuredContent<'a> {
    /// Header lines of ours, with CRLF.
    prefix: Vec<u8>,
    file: &'a QueueFile,
    offset: u64,
    declared_size: u64,
    form: Form,
    loaded: Loaded,
    queue_id: &'a str,
    /// The log has been told that lines are broken.
    breaks_told: Cell<bool>,
}

impl<'a> MeasuredContent<'a> {
    /// Reads the content of a job's message once.
    pub fn read(
        prefix: Vec<u8>,
        file: &'a QueueFile,
        job: &'a Job,
        line_length_limit: usize,
    ) -> Result<Self, ContentError> {
        let form = Form { line_length_limit, seven_bit: false };
        let offset = job.request.content_offset;
        let loaded = file.load(offset, form, KEEP)?;
        let (declared_size, queue_id) = (job.request.size, job.queue_id());
        Ok(Self {
            prefix,
            file,
            offset,
            declared_size,
            form,
            loaded,
            queue_id,
            breaks_told: Cell::new(false),
        })
    }

    /// Tells the log, once, that lines are broken in the form that is sent: in seven bits other ones may be too long.
    fn tell_of(&self, breaks: u64) {
        if breaks > 0 && !self.breaks_told.replace(true) {
            let (id, limit) = (self.queue_id, self.form.line_length_limit);
            log::info!("{id}: breaking line > {limit} bytes with <CR><LF>SPACE");
        }
    }

    fn pieces(&self, form: Form, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken {
        if !self.prefix.is_empty() {
            take(&self.prefix)?;
        }
        let done = self.file.for_each_piece(self.offset, form, buffer, take);
        done.map(|breaks| self.tell_of(breaks)).map_err(|stopped| match stopped {
            Stopped::Taker(cause) => cause,
            Stopped::Content(error) => Cause::LocalData(io::Error::other(error)),
        })
    }
}

impl Content for MeasuredContent<'_> {
    fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.loaded.measured.size
    }

    fn declared_size(&self) -> u64 {
        self.declared_size
    }

    fn for_each_piece(&self, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken {
        self.tell_of(self.loaded.measured.breaks);
        let Some(octets) = &self.loaded.octets else { return self.pieces(self.form, buffer, take) };
        if !self.prefix.is_empty() {
            take(&self.prefix)?;
        }
        take(octets)
    }

    fn for_each_seven_bit_piece(&self, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken {
        self.pieces(Form { seven_bit: true, ..self.form }, buffer, take)
    }

    /// Lines are broken already.
    fn has_line_over(&self, _limit: usize) -> Result<bool, Cause> {
        Ok(false)
    }
}

/// What becomes of a message whose content cannot be read.
pub fn unreadable(job: &Job, error: &ContentError) -> Outcome {
    let id = job.queue_id();
    match error {
        ContentError::Corrupt(_) => {
            log::warn!("{id}: {error}");
            Outcome::Bounced(Reason::local(EnhancedStatus::new(5, 3, 0), "unreadable mail queue entry"))
        }
        ContentError::Io(_) => {
            log::error!("{id}: {error}; the mail is deferred");
            Outcome::Deferred(Reason::local(EnhancedStatus::new(4, 3, 0), "mail queue file cannot be read"))
        }
    }
}
