//! Connections of qmgr(8) on which a request has not come whole yet.
//!
//! - Owns: the announcement, and reading without waiting.
//! - Leaves to others: what a request says (`postfix::request`), what becomes of it (`master`).
//! - Always true: each has a place that a delivery would have, so they are as few as these, and each holds a bounded part
//!   of a request. That one of them says nothing, or goes away without a word, is no error: qmgr connects before it knows
//!   what to send.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::postfix::request::{self, BadRequest, Release, Request, RequestReader};

/// Octets read at once.
const PIECE: usize = 32 * 1024;

/// Those who have connected.
#[derive(Debug, Default)]
pub struct Callers {
    callers: Vec<Caller>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Caller {
    stream: UnixStream,
    reader: RequestReader,
}

/// What has come of one.
#[derive(Debug)]
pub enum Arrived {
    /// A request; the connection waits for its answer.
    Request(UnixStream, Box<Request>),
    /// Something else than a request; the connection waits for an answer all the same.
    Bad(UnixStream, BadRequest),
    /// The connection broke in the middle of a request.
    Broken(io::Error),
}

impl Callers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// Takes a new connection, and says what is spoken here.
    pub fn add(&mut self, mut stream: UnixStream, release: Release) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        // A new socket has room for so little.
        stream.write_all(&request::announcement(release))?;
        self.callers.push(Caller { stream, reader: RequestReader::new() });
        Ok(())
    }

    /// For the poll set, in order.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.callers.iter().map(|caller| caller.stream.as_fd())
    }

    /// Reads from those that are `ready`, by their place among the descriptors; whoever is done with leaves.
    pub fn read(&mut self, ready: &[bool]) -> Vec<Arrived> {
        self.buffer.resize(PIECE, 0);
        let mut arrived = Vec::new();
        let mut flags = ready.iter().copied();
        let callers = std::mem::take(&mut self.callers);
        for mut caller in callers {
            if !flags.next().unwrap_or(false) {
                self.callers.push(caller);
                continue;
            }
            match caller.read(&mut self.buffer) {
                Ok(Progress::Waiting) => self.callers.push(caller),
                Ok(Progress::Gone) => {}
                Ok(Progress::Request(request)) => arrived.push(Arrived::Request(caller.stream, request)),
                Ok(Progress::Bad(error)) => arrived.push(Arrived::Bad(caller.stream, error)),
                Err(error) => arrived.push(Arrived::Broken(error)),
            }
        }
        arrived
    }

    /// Lets go of those who have sent nothing: no more requests are taken. Read what is there before.
    pub fn dismiss_silent(&mut self) {
        self.callers.retain(|caller| !caller.reader.is_empty());
    }
}

enum Progress {
    Waiting,
    Gone,
    Request(Box<Request>),
    Bad(BadRequest),
}

impl Caller {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Progress> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.reader.is_empty() => return Ok(Progress::Gone),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => match self.reader.push(&buffer[..count]) {
                    Ok(Some(request)) => return Ok(Progress::Request(Box::new(request))),
                    Ok(None) => {}
                    Err(error) => return Ok(Progress::Bad(error)),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Waiting),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
