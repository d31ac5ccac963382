//! One destination: what waits for it and what is in flight to it.
//!
//! - Owns: the ring of its jobs, cutting batches, the count for each recipient address.
//! - Leaves to others: workers (`pool`), whose turn it is among destinations (`dispatch`).
//! - Always true: a recipient address is held by no more batches than `recipient_concurrency_limit` allows; who has
//!   to wait for it is parked and costs nothing until one of them ends.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::condition::{Condition, Serial};
use super::event::{DestinationStatistics, Limits, WorkerId};
use super::lot::{Folded, Lot, Waiting, folded};
use super::ring::{Ring, Turn};
use crate::mail::{Batch, Destination, Envelope, QueueId, Recipient, Sender};

/// A list of destinations that want a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// Nothing of theirs is in flight.
    Unserved,
    /// They have a batch running and could use more workers.
    Served,
}

/// A destination.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) destination: Destination,
    pub(super) limits: Limits,
    pub(super) condition: Condition,
    /// Batches that run or wait in mailboxes.
    pub(super) in_flight: usize,
    /// Recipients that wait here.
    pub(super) waiting: usize,
    /// Recipients of the batches in flight.
    pub(super) carried: usize,
    /// Workers running a batch for it with nothing in their mailbox, by the batch that runs.
    pub(super) open_mailboxes: BTreeMap<Serial, WorkerId>,
    /// Workers with a batch of it in their mailbox that nobody has asked back, by that batch.
    pub(super) mailed: BTreeMap<Serial, WorkerId>,
    /// Its turn among the destinations that want a worker.
    pub(super) listed: Option<(List, Turn)>,
    /// When something happens to it by itself.
    pub(super) timer: Option<Duration>,
    /// Boxed, as the maps within them are: a node of such a map has room for eleven, and most hold one.
    lots: BTreeMap<QueueId, Box<Lot>>,
    ring: Ring<QueueId>,
    addresses: HashMap<Folded, Deliveries>,
}

/// Deliveries to one address.
#[derive(Debug, Default)]
struct Deliveries {
    /// In flight, or kept free for a recipient that waits.
    count: usize,
    parked: Ring<QueueId>,
}

/// A batch, and the addresses that it holds, each once.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) batch: Batch,
    pub(super) addresses: Vec<Folded>,
}

impl Place {
    /// A destination of which nothing is known.
    pub(super) fn new(destination: Destination, limits: Limits) -> Self {
        Self {
            destination,
            limits,
            condition: Condition::default(),
            in_flight: 0,
            waiting: 0,
            carried: 0,
            open_mailboxes: BTreeMap::new(),
            mailed: BTreeMap::new(),
            listed: None,
            timer: None,
            lots: BTreeMap::new(),
            ring: Ring::default(),
            addresses: HashMap::new(),
        }
    }

    /// Whether a batch may be handed out, as far as this destination is concerned.
    pub(super) fn may_start(&self) -> bool {
        !self.ring.is_empty() && self.in_flight < self.concurrency() && self.condition.may_start()
    }

    /// Workers that run a batch for it.
    pub(super) fn workers(&self) -> usize {
        self.in_flight - self.mailed.len()
    }

    /// Batches that may be in flight.
    fn concurrency(&self) -> usize {
        let limit = self.limits.destination_concurrency_limit.max(1);
        if self.condition.has_answered() {
            limit
        } else {
            limit.min(self.limits.initial_destination_concurrency.max(1))
        }
    }

    /// The list on which it is to be.
    pub(super) fn wants(&self) -> Option<List> {
        match self.in_flight {
            0 => self.may_start().then_some(List::Unserved),
            _ => (self.may_start() || !self.mailed.is_empty()).then_some(List::Served),
        }
    }

    /// Whether it has neither mail nor batches in flight.
    pub(super) fn is_unused(&self) -> bool {
        self.waiting == 0 && self.in_flight == 0
    }

    /// Whether something of a job waits here.
    pub(super) fn has_lot(&self, id: QueueId) -> bool {
        self.lots.contains_key(&id)
    }

    /// Numbers for a status report.
    pub(super) fn statistics(&self) -> DestinationStatistics {
        DestinationStatistics {
            destination: self.destination.clone(),
            waiting: self.waiting,
            in_flight: self.in_flight,
            resting_until: self.condition.until(),
            reason: self.condition.reason().cloned(),
        }
    }

    /// The jobs of which something waits here.
    pub(super) fn jobs(&self) -> Vec<QueueId> {
        self.lots.keys().copied().collect()
    }

    /// Lines a recipient up, or parks it where enough batches hold its address.
    pub(super) fn push(&mut self, envelope: &Arc<Envelope>, recipient: Recipient) {
        let sender = recipient.sender.clone().unwrap_or_else(|| envelope.sender.clone());
        let address = folded(&recipient);
        self.waiting += 1;
        self.lots.entry(envelope.id).or_insert_with(|| Box::new(Lot::new(envelope.clone())));
        if self.has_slot(&address) {
            self.enter(envelope.id, sender, Waiting { recipient, address, has_slot: false });
        } else {
            self.park(envelope.id, sender, address, recipient);
        }
    }

    /// Puts a batch that was not delivered before everything else. Its recipients keep their slots, so that nobody
    /// overtakes them.
    pub(super) fn put_back(&mut self, batch: Batch) {
        let (envelope, sender) = (batch.envelope().clone(), batch.sender().clone());
        let mut seen = HashSet::new();
        let waiting = batch.into_recipients().into_iter().map(|recipient| {
            let address = folded(&recipient);
            let has_slot = seen.insert(address.clone());
            Waiting { recipient, address, has_slot }
        });
        let waiting: VecDeque<_> = waiting.collect();
        self.waiting += waiting.len();
        let lot = self.lots.entry(envelope.id).or_insert_with(|| Box::new(Lot::new(envelope.clone())));
        lot.put_back(&sender, waiting);
        if let Some(turn) = lot.turn.take() {
            self.ring.remove(turn);
        }
        lot.turn = Some(self.ring.push_front(envelope.id));
    }

    /// Cuts the next batch: of the job whose turn it is, for one sender, within the limits.
    pub(super) fn cut(&mut self) -> Option<Cut> {
        // Each round either gives a batch or parks somebody, who then waits without cost.
        while let Some(id) = self.ring.pop_front() {
            let cut = self.cut_from(id);
            let Some(lot) = self.lots.get_mut(&id) else { continue };
            lot.turn = lot.takes_turns().then(|| self.ring.push_back(id));
            if lot.is_empty() {
                self.lots.remove(&id);
            }
            if cut.is_some() {
                return cut;
            }
        }
        None
    }

    fn cut_from(&mut self, id: QueueId) -> Option<Cut> {
        let limit = self.batch_size();
        let lot = self.lots.get_mut(&id)?;
        let envelope = lot.envelope.clone();
        let (mut recipients, mut addresses, mut spare) = (Vec::new(), Vec::new(), Vec::new());
        let mut held = HashSet::new();
        let mut batch = None;
        while batch.is_none()
            && let Some(group) = lot.front()
        {
            let sender = group.sender.clone();
            while recipients.len() < limit
                && let Some(Waiting { recipient, address, has_slot }) = lot.front()?.waiting.pop_front()
            {
                let deliveries = self.addresses.entry(address.clone()).or_default();
                // A slot from before the limit was lowered may be one too many.
                deliveries.count -= usize::from(has_slot);
                if held.contains(&address) {
                    // A batch counts once for an address, however often that stands in it.
                    recipients.push(recipient);
                    spare.extend(has_slot.then_some(address));
                } else if deliveries.admits(self.limits) {
                    deliveries.count += 1;
                    recipients.push(recipient);
                    if !lot.front()?.waiting.is_empty() {
                        held.insert(address.clone());
                    }
                    addresses.push(address);
                } else {
                    let turn = deliveries.parked.push_back(id);
                    lot.park(sender.clone(), address, turn, recipient);
                }
            }
            lot.tidy_front();
            let recipients = std::mem::take(&mut recipients);
            batch = Batch::new(envelope.clone(), sender, self.destination.clone(), recipients);
        }
        spare.iter().for_each(|address| self.unpark(address));
        let batch = batch?;
        self.waiting -= batch.recipients().len();
        Some(Cut { batch, addresses })
    }

    /// Recipients of one batch.
    fn batch_size(&self) -> usize {
        match self.limits.destination_recipient_limit {
            0 => usize::MAX,
            limit => limit,
        }
    }

    /// Frees a slot of each address; who waited longest for it gets it.
    pub(super) fn release(&mut self, addresses: &[Folded]) {
        for address in addresses {
            if let Some(deliveries) = self.addresses.get_mut(address) {
                deliveries.count = deliveries.count.saturating_sub(1);
            }
            self.unpark(address);
        }
    }

    /// Takes everything of a job that waits here; returns it by sender.
    pub(super) fn take_all(&mut self, id: QueueId) -> Vec<(Sender, Vec<Recipient>)> {
        let Some(lot) = self.lots.remove(&id) else { return Vec::new() };
        if let Some(turn) = lot.turn {
            self.ring.remove(turn);
        }
        let dissolved = lot.dissolve();
        for (address, turn) in &dissolved.parked {
            if let Some(deliveries) = self.addresses.get_mut(address) {
                deliveries.parked.remove(*turn);
            }
        }
        self.waiting -= dissolved.count;
        self.release(&dissolved.slots);
        dissolved.recipients
    }

    /// Takes everything of a job that waits here; returns it as batches, for whose recipients nobody counts.
    pub(super) fn take_batches(&mut self, id: QueueId) -> Vec<Batch> {
        let Some(envelope) = self.lots.get(&id).map(|lot| lot.envelope.clone()) else { return Vec::new() };
        let size = self.batch_size();
        let mut batches = Vec::new();
        for (sender, recipients) in self.take_all(id) {
            for chunk in recipients.chunks(size) {
                let destination = self.destination.clone();
                batches.extend(Batch::new(envelope.clone(), sender.clone(), destination, chunk.to_vec()));
            }
        }
        batches
    }

    /// Puts other limits into force.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let with_parked = self.addresses.iter().filter(|(_, deliveries)| !deliveries.parked.is_empty());
        let mut addresses: Vec<_> = with_parked.map(|(address, _)| address.clone()).collect();
        addresses.sort();
        for address in &addresses {
            self.unpark(address);
        }
    }

    fn has_slot(&self, address: &Folded) -> bool {
        self.addresses.get(address).is_none_or(|deliveries| deliveries.admits(self.limits))
    }

    fn enter(&mut self, id: QueueId, sender: Sender, waiting: Waiting) {
        let Some(lot) = self.lots.get_mut(&id) else { return };
        lot.push(sender, waiting);
        if lot.turn.is_none() {
            lot.turn = Some(self.ring.push_back(id));
        }
    }

    fn park(&mut self, id: QueueId, sender: Sender, address: Folded, recipient: Recipient) {
        let turn = self.addresses.entry(address.clone()).or_default().parked.push_back(id);
        if let Some(lot) = self.lots.get_mut(&id) {
            lot.park(sender, address, turn, recipient);
        }
    }

    /// Gives the free slots of an address to those that are parked for it, and forgets an address without any.
    fn unpark(&mut self, address: &Folded) {
        let Some(deliveries) = self.addresses.get_mut(address) else { return };
        while deliveries.admits(self.limits)
            && let Some((turn, id)) = deliveries.parked.front_mut().map(|(turn, id)| (turn, *id))
        {
            deliveries.parked.pop_front();
            deliveries.count += 1;
            if let Some(lot) = self.lots.get_mut(&id) {
                lot.unpark(address, turn);
                if lot.turn.is_none() {
                    lot.turn = Some(self.ring.push_back(id));
                }
            }
        }
        if deliveries.count == 0 && deliveries.parked.is_empty() {
            self.addresses.remove(address);
        }
    }
}

impl Deliveries {
    fn admits(&self, limits: Limits) -> bool {
        limits.recipient_concurrency_limit == 0 || self.count < limits.recipient_concurrency_limit
    }
}
