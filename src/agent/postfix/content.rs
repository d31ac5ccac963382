//! The content of a request's message, as a connection wants it.
//!
//! - Owns: what is prepended, what is kept in memory, what becomes of a message whose content cannot be read.
//! - Leaves to others: records and lines (`postfix`), what goes over the wire (`net`).
//! - Always true: content was read once, to its end, before anything is said of it to a server: so its size is exact, and
//!   a damaged message is never begun.

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
}

impl<'a> MeasuredContent<'a> {
    /// Reads the content of a job's message once.
    pub fn read(
        prefix: Vec<u8>,
        file: &'a QueueFile,
        job: &Job,
        line_length_limit: usize,
    ) -> Result<Self, ContentError> {
        let form = Form { line_length_limit, seven_bit: false };
        let offset = job.request.content_offset;
        let loaded = file.load(offset, form, KEEP)?;
        if loaded.measured.breaks > 0 {
            log::info!("{}: breaking line > {line_length_limit} bytes with <CR><LF>SPACE", job.queue_id());
        }
        Ok(Self { prefix, file, offset, declared_size: job.request.size, form, loaded })
    }

    fn pieces(&self, form: Form, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken {
        if !self.prefix.is_empty() {
            take(&self.prefix)?;
        }
        let done = self.file.for_each_piece(self.offset, form, buffer, take);
        done.map(drop).map_err(|stopped| match stopped {
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
