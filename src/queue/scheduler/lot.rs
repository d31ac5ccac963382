//! The recipients of one job that wait for one destination.
//!
//! - Owns: their order, by sender; those that are parked because enough batches hold their address.
//! - Leaves to others: how many batches hold an address (`place`).
//! - Always true: every recipient stands in one group or is parked, never both.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::ring::{Ring, Turn};
use crate::mail::{Envelope, Recipient, Sender};

/// An address without regard to case.
pub(super) type Folded = Arc<str>;

/// The address by which deliveries to one mailbox are counted.
pub(super) fn folded(recipient: &Recipient) -> Folded {
    recipient.address.unquoted().to_lowercase().into()
}

/// A recipient that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) recipient: Recipient,
    pub(super) address: Folded,
    /// Whether a delivery to this address is kept free for it, so that nobody overtakes it again.
    pub(super) has_slot: bool,
}

/// Recipients that may share a transaction.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) sender: Sender,
    pub(super) waiting: VecDeque<Waiting>,
}

/// What of a job waits for a destination.
#[derive(Debug)]
pub(super) struct Lot {
    pub(super) envelope: Arc<Envelope>,
    /// Its turn among the destination's jobs; none if all of its recipients are parked.
    pub(super) turn: Option<Turn>,
    groups: Ring<Box<Group>>,
    by_sender: HashMap<Sender, Turn>,
    parked: HashMap<(Folded, Turn), (Sender, Recipient)>,
}

impl Lot {
    /// A lot without recipients.
    pub(super) fn new(envelope: Arc<Envelope>) -> Self {
        Self {
            envelope,
            turn: None,
            groups: Ring::default(),
            by_sender: HashMap::new(),
            parked: HashMap::new(),
        }
    }

    /// Whether nobody is left, not even parked.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.parked.is_empty()
    }

    /// Whether it takes turns: somebody is not parked.
    pub(super) fn takes_turns(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Lines a recipient up.
    pub(super) fn push(&mut self, sender: Sender, waiting: Waiting) {
        let known = self.by_sender.get(&sender).and_then(|turn| self.groups.get_mut(*turn));
        match known {
            Some(group) => group.waiting.push_back(waiting),
            None => {
                let group = Group { sender: sender.clone(), waiting: VecDeque::from([waiting]) };
                self.by_sender.insert(sender, self.groups.push_back(Box::new(group)));
            }
        }
    }

    /// Puts the recipients of a batch before all others.
    pub(super) fn put_back(&mut self, sender: &Sender, mut waiting: VecDeque<Waiting>) {
        if let Some(mut group) = self.by_sender.remove(sender).and_then(|turn| self.groups.remove(turn)) {
            waiting.append(&mut group.waiting);
        }
        let turn = self.groups.push_front(Box::new(Group { sender: sender.clone(), waiting }));
        self.by_sender.insert(sender.clone(), turn);
    }

    /// The next recipients to cut a batch from.
    pub(super) fn front(&mut self) -> Option<&mut Group> {
        self.groups.front_mut().map(|(_, group)| &mut **group)
    }

    /// Lets go of the first group if nobody is left in it.
    pub(super) fn tidy_front(&mut self) {
        if self.front().is_some_and(|group| group.waiting.is_empty())
            && let Some(group) = self.groups.pop_front()
        {
            self.by_sender.remove(&group.sender);
        }
    }

    /// Sets a recipient aside; `turn` is its place in the line for its address.
    pub(super) fn park(&mut self, sender: Sender, address: Folded, turn: Turn, recipient: Recipient) {
        self.parked.insert((address, turn), (sender, recipient));
    }

    /// Lines a parked recipient up again, with a slot.
    pub(super) fn unpark(&mut self, address: &Folded, turn: Turn) {
        if let Some((sender, recipient)) = self.parked.remove(&(address.clone(), turn)) {
            self.push(sender, Waiting { recipient, address: address.clone(), has_slot: true });
        }
    }

    /// Everybody, by sender and in order of position; then those that hold slots, and where the parked stood.
    pub(super) fn dissolve(mut self) -> Dissolved {
        let mut dissolved = Dissolved::default();
        let mut by_sender = BTreeMap::<Sender, Vec<Recipient>>::new();
        while let Some(group) = self.groups.pop_front() {
            for waiting in group.waiting {
                if waiting.has_slot {
                    dissolved.slots.push(waiting.address);
                }
                by_sender.entry(group.sender.clone()).or_default().push(waiting.recipient);
            }
        }
        for (place, (sender, recipient)) in self.parked {
            dissolved.parked.push(place);
            by_sender.entry(sender).or_default().push(recipient);
        }
        for (sender, mut recipients) in by_sender {
            recipients.sort_by_key(|recipient| recipient.position);
            dissolved.count += recipients.len();
            dissolved.recipients.push((sender, recipients));
        }
        dissolved
    }
}

/// What a lot held.
#[derive(Debug, Default)]
pub(super) struct Dissolved {
    /// How many recipients.
    pub(super) count: usize,
    /// The recipients, by sender.
    pub(super) recipients: Vec<(Sender, Vec<Recipient>)>,
    /// A slot of each of these addresses is free again.
    pub(super) slots: Vec<Folded>,
    /// Where the parked ones stood in the lines for their addresses.
    pub(super) parked: Vec<(Folded, Turn)>,
}
