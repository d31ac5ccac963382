//! Recipients whom a server puts off, where another server of the list is to be tried for them.
//!
//! - Owns: which outcomes are held back from the observer.
//! - Leaves to others: which server is next, and everything that an observer does.
//! - Always true: nobody is held back who may have the mail.

use std::io;

use super::cached::Observer;
use super::peer::Peer;
use super::transcript::Transcript;
use crate::mail::{Outcome, Reason};
use crate::smtp::{Capabilities, Settled};

/// Stands between a conversation and its observer.
pub struct PutOff<'o> {
    observer: &'o mut dyn Observer,
    /// Whether there is another server.
    has_next: bool,
    /// Who is held back, by position.
    positions: Vec<u32>,
}

impl<'o> PutOff<'o> {
    /// Nobody is held back unless the list `has_next`.
    pub fn new(observer: &'o mut dyn Observer, has_next: bool) -> Self {
        Self { observer, has_next, positions: Vec::new() }
    }

    /// Who was held back.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }
}

impl Observer for PutOff<'_> {
    fn settled(&mut self, mut settled: Vec<Settled>) {
        if self.has_next {
            let is_put_off =
                |settled: &mut Settled| matches!(settled.outcome, Outcome::Deferred(_)) && !settled.in_doubt;
            for Settled { position, outcome, .. } in settled.extract_if(.., is_put_off) {
                self.observer.note(&outcome.reason().text);
                self.positions.push(position);
            }
        }
        self.observer.settled(settled);
    }

    fn ready(&mut self, peer: &Peer, offered: &Capabilities, uses: u32) {
        self.observer.ready(peer, offered, uses);
    }

    fn not_ready(&mut self, peer: Option<&Peer>) {
        self.observer.not_ready(peer);
    }

    fn destination_failed(&mut self, reason: &Reason) {
        self.observer.destination_failed(reason);
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
