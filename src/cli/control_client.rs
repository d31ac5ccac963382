//! A command's end of the agent's control socket.
//!
//! - Owns: finding out whether an agent listens, asking, reading answers to their end.
//! - Leaves to others: what a question means (`agent::queue_control`), exit codes (each command).
//! - Always true: an answer that has no last line is an error, never a shorter answer.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::agent::queue_control::{
    Line, REQUEST_MAX, Refusal, RefusalCode, Request, WrittenContent, read_line, write_content,
};
use crate::mail::QueueId;
use crate::spool::SOCKET_NAME;

/// How long the agent may take for one line: a disk may be slow.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// How long we try again while the agent has too many connections.
const BUSY_LIMIT: Duration = Duration::from_secs(10);
/// Time between two tries.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens there.
    #[error("no agent is running for {}", .0.display())]
    NoAgent(PathBuf),
    /// The socket is there, and we may not use it.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What was to be submitted cannot be read to its end; nothing was queued.
    #[error("its content cannot be read: {0}")]
    Content(io::Error),
    /// The agent had the message to its end, and then went away or fell silent: nobody knows whether it is on disk.
    #[error(
        "the agent was given the whole message and did not say that it is queued ({0}): it may be, and arrives twice then \
         if it is sent again"
    )]
    Unanswered(Box<ClientError>),
    /// Whoever takes the answer does not want more of it.
    #[error("the answer cannot be written: {0}")]
    Output(io::Error),
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    reader: BufReader<UnixStream>,
    writer: BufWriter<UnixStream>,
}

impl Client {
    /// Connects to the agent of a queue. An agent that has too many connections is asked again for a while.
    pub fn connect(queue: &Path) -> Result<Self, ClientError> {
        let deadline = Instant::now() + BUSY_LIMIT;
        loop {
            match Self::try_to_connect(queue) {
                Err(ClientError::Refused(Refusal { code: RefusalCode::Busy, .. }))
                    if Instant::now() < deadline =>
                {
                    std::thread::sleep(BUSY_INTERVAL);
                }
                result => return result,
            }
        }
    }

    fn try_to_connect(queue: &Path) -> Result<Self, ClientError> {
        let path = queue.join(SOCKET_NAME);
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            // Nothing there; or left over from an agent that was killed.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoAgent(queue.to_owned())
            }
            _ => ClientError::Io { doing: "connect to", path: path.clone(), source: error },
        })?;
        let set_up = |source| ClientError::Io { doing: "use", path: path.clone(), source };
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(set_up)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT)).map_err(set_up)?;
        let writer = BufWriter::new(stream.try_clone().map_err(set_up)?);
        let mut client = Self { path, reader: BufReader::new(stream), writer };
        match client.read()? {
            Line::Ready { .. } => Ok(client),
            _ => Err(client.odd("the greeting")),
        }
    }

    /// Asks, and gives each line of the answer but the last to `each`.
    pub fn ask(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(Line) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let line = request_line(request)?;
        let written = self.writer.write_all(&line).and_then(|()| self.writer.flush());
        written.map_err(|error| self.failed("ask", error))?;
        self.read_answer(each)
    }

    /// Submits a message; on return it is on disk, under the ID that the agent gave it. After an error it is not, but for
    /// [`ClientError::Unanswered`].
    pub fn submit(&mut self, request: &Request, content: &mut dyn Read) -> Result<QueueId, ClientError> {
        let line = request_line(request)?;
        let written = self.writer.write_all(&line).and_then(|()| {
            let written = write_content(&mut self.writer, content)?;
            self.writer.flush().map(|()| written)
        });
        match written {
            // The connection is given up, and with it what was written.
            Ok(WrittenContent::SourceFailed(error)) => return Err(ClientError::Content(error)),
            Ok(WrittenContent::Whole) => {}
            // It says why it did not want more.
            Err(error) => {
                let failed = self.failed("write to", error);
                return match self.read() {
                    Err(refused @ ClientError::Refused(_)) => Err(refused),
                    _ => Err(failed),
                };
            }
        }
        let mut queued = None;
        let answer = self.read_answer(&mut |line| {
            if let Line::Queued { id } = line {
                queued = Some(id);
            }
            Ok(())
        });
        match (queued, answer) {
            // An agent that is killed between its two lines has said what counts.
            (Some(id), _) => Ok(id),
            (None, Err(refused @ ClientError::Refused(_))) => Err(refused),
            (None, Err(error)) => Err(ClientError::Unanswered(Box::new(error))),
            (None, Ok(())) => Err(ClientError::Unanswered(Box::new(self.odd("its answer")))),
        }
    }

    fn read_answer(&mut self, each: &mut dyn FnMut(Line) -> io::Result<()>) -> Result<(), ClientError> {
        loop {
            match self.read()? {
                Line::End {} => return Ok(()),
                line => each(line).map_err(ClientError::Output)?,
            }
        }
    }

    fn read(&mut self) -> Result<Line, ClientError> {
        match read_line(&mut self.reader) {
            Ok(Line::Refused(refusal)) => Err(refusal.into()),
            Ok(line) => Ok(line),
            Err(error) => Err(self.failed("read the answer from", error)),
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> ClientError {
        let source = match source.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "the agent does not answer"),
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(source.kind(), "the agent has closed the connection")
            }
            _ => source,
        };
        ClientError::Io { doing, path: self.path.clone(), source }
    }

    fn odd(&self, what: &str) -> ClientError {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not one"));
        self.failed("talk to", source)
    }
}

/// A question as it is written. The agent would close the connection on one that is too long.
fn request_line(request: &Request) -> Result<Vec<u8>, ClientError> {
    let bad = |text: String| ClientError::Refused(Refusal::new(RefusalCode::BadMessage, text));
    let mut line =
        serde_json::to_vec(request).map_err(|error| bad(format!("it cannot be written: {error}")))?;
    line.push(b'\n');
    if line.len() > REQUEST_MAX {
        return Err(bad(format!(
            "its recipients take {} octets, and agent.sock takes {REQUEST_MAX} at a time: split it",
            line.len()
        )));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use crate::agent::queue_control::{Submission, write_line};
    use crate::spool::Draft;

    /// An agent that takes a whole message, says `answer`, and goes away.
    fn submit_to_one_that_says(answer: &[Line]) -> Result<QueueId, ClientError> {
        let queue = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(queue.path().join(SOCKET_NAME)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                write_line(&mut stream, &Line::Ready { version: String::new() }).unwrap();
                let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
                // The last piece of the content is an empty one.
                while !String::from_utf8_lossy(&heard).contains("\"octets\":0") {
                    let length = stream.read(&mut piece).unwrap();
                    assert!(length > 0, "the client went away: {}", String::from_utf8_lossy(&heard));
                    heard.extend_from_slice(&piece[..length]);
                }
                answer.iter().for_each(|line| write_line(&mut stream, line).unwrap());
            });
            let request = Request::Submit(Box::new(Submission::from(Draft::default())));
            Client::connect(queue.path())?.submit(&request, &mut &b"Subject: x\n\n"[..])
        })
    }

    #[test]
    fn an_agent_that_goes_away_with_the_message_leaves_its_fate_open() {
        let queued = || Line::Queued { id: QueueId::new(1, 1) };
        assert!(matches!(submit_to_one_that_says(&[]), Err(ClientError::Unanswered(_))));
        assert!(matches!(submit_to_one_that_says(&[Line::End {}]), Err(ClientError::Unanswered(_))));
        assert!(submit_to_one_that_says(&[queued()]).is_ok());
        assert!(submit_to_one_that_says(&[queued(), Line::End {}]).is_ok());
        let refusal = Line::Refused(Refusal::new(RefusalCode::TooLarge, "it is too large"));
        assert!(matches!(submit_to_one_that_says(&[refusal]), Err(ClientError::Refused(_))));
    }
}
