//! Recipients whom a server puts off, where another server of the list is to be tried for them.
//!
//! - Owns: which outcomes are held back from the observer.
//! - Leaves to others: which server is next, and everything that an observer does.
//! - Always true: nobody is held back who may have the mail.

use std::io;

use super::observer::Observer;
use super::peer::Peer;
use super::transcript::Transcript;
use crate::mail::{Outcome, Reason};
use crate::smtp::{Capabilities, Settled};

/// Stands between a conversation and its observer.
pub struct PutOff<'o> {
    observer: &'o mut dyn Observer,
    /// The last one of the list; `None`: nobody is held back.
    last_server: Option<usize>,
    /// The one that is spoken to; `None`: there is none any more.
    server: Option<usize>,
    /// Who is held back, by position, and at which server.
    held: Vec<(usize, u32)>,
    /// The destination's fault, as long as nobody was deferred for it.
    failure: Option<Reason>,
}

impl<'o> PutOff<'o> {
    /// Where the list has a `last_server`, recipients whom another one puts off are held back.
    pub fn new(observer: &'o mut dyn Observer, last_server: Option<usize>) -> Self {
        Self { observer, last_server, server: None, held: Vec::new(), failure: None }
    }

    /// What comes next is this server's doing.
    pub fn is_at(&mut self, server: usize) {
        self.server = Some(server);
    }

    /// All servers have been tried.
    pub fn no_server_is_left(&mut self) {
        self.server = None;
    }

    /// Who was held back, by the server that has put them off and by position.
    pub fn into_held(self) -> Vec<(usize, u32)> {
        self.held
    }

    /// The server that is spoken to, if another one can be tried.
    fn not_last(&self) -> Option<usize> {
        self.server.filter(|server| self.last_server.is_some_and(|last| *server < last))
    }
}

impl Observer for PutOff<'_> {
    fn settled(&mut self, mut settled: Vec<Settled>) {
        let is_deferred = |settled: &Settled| matches!(settled.outcome, Outcome::Deferred(_));
        if let Some(server) = self.not_last() {
            let is_put_off = |settled: &mut Settled| is_deferred(settled) && !settled.in_doubt;
            for Settled { position, outcome, .. } in settled.extract_if(.., is_put_off) {
                self.observer.note(&outcome.reason().text);
                self.held.push((server, position));
            }
        }
        if settled.iter().any(is_deferred)
            && let Some(reason) = self.failure.take()
        {
            self.observer.destination_failed(&reason);
        }
        self.observer.settled(settled);
    }

    fn secured(&mut self, text: &str) {
        self.observer.secured(text);
    }

    fn ready(&mut self, peer: &Peer, offered: &Capabilities, uses: u32) {
        self.observer.ready(peer, offered, uses);
    }

    fn not_ready(&mut self, peer: Option<&Peer>) {
        self.observer.not_ready(peer);
    }

    fn destination_failed(&mut self, reason: &Reason) {
        match self.not_last() {
            Some(_) => self.failure = Some(reason.clone()),
            None => self.observer.destination_failed(reason),
        }
    }

    fn keywords_to_discard(&mut self, peer: &Peer) -> io::Result<Option<Vec<String>>> {
        self.observer.keywords_to_discard(peer)
    }

    fn end_of_data(&mut self, positions: &[u32]) -> io::Result<()> {
        self.observer.end_of_data(positions)
    }

    fn note(&mut self, text: &str) {
        self.observer.note(text);
    }

    fn warning(&mut self, text: &str) {
        self.observer.warning(text);
    }

    fn manner_changed(&mut self, text: &str) {
        self.observer.manner_changed(text);
    }

    fn protocol_error(&mut self, text: &str) {
        self.observer.protocol_error(text);
    }

    fn wants_conversations(&self) -> bool {
        self.observer.wants_conversations()
    }

    fn conversation(&mut self, transcript: &Transcript) {
        self.observer.conversation(transcript);
    }
}
