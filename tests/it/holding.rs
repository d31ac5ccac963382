//! An LMTP server that keeps one answer back until the test lets it go.
//!
//! - Owns: a conversation without any extension, one command and one reply at a time, and what it received whole.
//! - Leaves to others: servers that misbehave (dialogues), servers that store (our sink, Dovecot).
//! - Always true: it ends with the test; an answer is held for a limited time only.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::common::agent::{SOON, Site};

/// How long an answer is kept back where nobody asks for it.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// A server that keeps an answer back until the test lets it go.
pub struct Holding {
    /// Where it listens.
    pub socket: PathBuf,
    holds: Receiver<()>,
    release: Sender<()>,
    /// The recipients of each message that was received whole.
    stored: Receiver<Vec<String>>,
}

/// The last thing that a server can hold: the answer to the end of data.
pub const END_OF_DATA: &str = "end of data";
/// The same for the second recipient: the first one's answer is out.
pub const SECOND_ANSWER: &str = "second answer";

impl Holding {
    /// Serves one connection after the other; each keeps back its answer to the command that `held` names for it.
    pub fn start(site: &Site, held: &[&'static str]) -> Self {
        let socket = site.path().join("holding.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (holds_out, holds) = channel();
        let (release, released) = channel();
        let (stored_out, stored) = channel();
        let held = held.to_vec();
        thread::spawn(move || {
            for (stream, held) in listener.incoming().zip(held) {
                let stream = stream.unwrap();
                let hold = Hold { held, holds: &holds_out, released: &released, stored: &stored_out };
                hold.serve(&stream);
            }
        });
        Self { socket, holds, release, stored }
    }

    /// Waits until the answer is owed.
    #[track_caller]
    pub fn wait_until_it_holds(&self, site: &Site) {
        assert!(self.holds.recv_timeout(SOON).is_ok(), "no message came:\n{}", site.log());
    }

    /// Lets the answer go that is kept back.
    pub fn release(&self) {
        self.release.send(()).unwrap();
    }

    /// The recipients of each message received whole since the last time it was asked.
    pub fn stored(&self) -> Vec<Vec<String>> {
        self.stored.try_iter().collect()
    }
}

/// One connection's part of [`Holding`].
struct Hold<'a> {
    held: &'static str,
    holds: &'a Sender<()>,
    released: &'a Receiver<()>,
    stored: &'a Sender<Vec<String>>,
}

impl Hold<'_> {
    /// No extension at all: one command, one reply. Ends when the client's end does.
    fn serve(&self, stream: &UnixStream) {
        let mut lines = BufReader::new(stream).lines();
        let mut recipients = Vec::new();
        self.reply(stream, "greeting", "220 holding.example.org");
        while let Some(Ok(line)) = lines.next() {
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "DATA" => {
                    self.reply(stream, "DATA", "354 go ahead");
                    let mut ends = lines.by_ref().map_while(Result::ok).filter(|line| line == ".");
                    if ends.next().is_none() {
                        return;
                    }
                    // Nobody may be interested any more.
                    let _ = self.stored.send(recipients.clone());
                    for at in 0..recipients.len() {
                        let stage = if at == 0 { END_OF_DATA } else { SECOND_ANSWER };
                        self.reply(stream, stage, "250 2.0.0 held and stored");
                    }
                }
                "QUIT" => return self.reply(stream, "QUIT", "221 2.0.0 bye"),
                verb => {
                    match (verb, line.find('<').zip(line.find('>'))) {
                        ("MAIL" | "RSET", _) => recipients.clear(),
                        ("RCPT", Some((start, end))) => recipients.push(line[start + 1..end].to_owned()),
                        _ => {}
                    }
                    self.reply(stream, verb, "250 2.0.0 ok");
                }
            }
        }
    }

    /// Answers, at once or when it is released. The client may have been killed meanwhile.
    fn reply(&self, mut stream: &UnixStream, stage: &str, text: &str) {
        if stage == self.held && self.holds.send(()).is_ok() {
            // An error here is the end of the test.
            let _ = self.released.recv_timeout(HOLD_LIMIT);
        }
        let _ = stream.write_all(format!("{text}\r\n").as_bytes());
    }
}
