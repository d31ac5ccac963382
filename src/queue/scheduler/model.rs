//! The scheduler against a model of everything around it.
//!
//! Workers, a channel of reports that arrive late, mailboxes that are emptied or found empty, lost threads, broken
//! destinations, a clock. Whatever happens: nobody is lost, nobody goes out twice, limits hold, nobody waits beside
//! an idle worker, and in the end everybody is settled.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{address, destination, envelope, failure, settings};
use super::*;
use crate::mail::{Batch, Envelope, Sender};

const DESTINATIONS: u8 = 4;

/// One recipient to submit: destination, mailbox, and whether it has a sender of its own.
type To = (u8, u8, u8);

#[derive(Clone, Debug)]
enum Op {
    Submit { to: Vec<To>, window: usize },
    Finish { worker: usize, how: u8, cached: bool },
    Begin { worker: usize },
    Report,
    ReportAll,
    Load,
    Withdraw { job: usize },
    Lose { worker: usize },
    Replace { worker: usize },
    Wait { millis: u64 },
    Reconfigure { concurrency: usize, size: usize, recipient: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let to = (0..DESTINATIONS, 0..3_u8, 0..4_u8);
    prop_oneof![
        6 => (vec(to, 1..12), 1..8_usize).prop_map(|(to, window)| Op::Submit { to, window }),
        14 => (0..16_usize, 0..12_u8, any::<bool>())
            .prop_map(|(worker, how, cached)| Op::Finish { worker, how, cached }),
        10 => (0..16_usize).prop_map(|worker| Op::Begin { worker }),
        6 => Just(Op::Report),
        6 => Just(Op::ReportAll),
        3 => Just(Op::Load),
        1 => (0..8_usize).prop_map(|job| Op::Withdraw { job }),
        1 => (0..16_usize).prop_map(|worker| Op::Lose { worker }),
        2 => (0..16_usize).prop_map(|worker| Op::Replace { worker }),
        3 => prop_oneof![Just(500), Just(5_000), Just(70_000), Just(400_000)]
            .prop_map(|millis| Op::Wait { millis }),
        1 => (1..12_usize, 0..4_usize, 0..4_usize)
            .prop_map(|(concurrency, size, recipient)| Op::Reconfigure { concurrency, size, recipient }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    OnDisk,
    Waiting,
    Out,
    Settled,
}

type Who = (QueueId, u32);

/// A batch handed out, and when: how many had been before it.
#[derive(Clone, Debug)]
struct Out {
    batch: Batch,
    number: u64,
}

/// A worker as it is (`running`, and what its channel holds), and as the master knows it from the reports that it has
/// read (`known`, the running one first). It may be long in coming to what it was given.
#[derive(Debug)]
struct SimWorker {
    alive: bool,
    running: Option<Out>,
    mailbox: VecDeque<Out>,
    known: VecDeque<Out>,
}

struct World {
    scheduler: Scheduler,
    settings: Settings,
    now: Duration,
    workers: Vec<SimWorker>,
    reports: VecDeque<(usize, BatchEnd)>,
    /// Taken out of mailboxes, to be told when the actions at hand are done.
    taken: VecDeque<(usize, Batch)>,
    /// Asked back, and neither taken nor ended since.
    asked: HashSet<usize>,
    state: BTreeMap<Who, State>,
    people: HashMap<Who, (Destination, Recipient)>,
    messages: Vec<(Arc<Envelope>, usize)>,
    withdrawn: HashSet<QueueId>,
    to_load: VecDeque<QueueId>,
    handed_out: u64,
    /// Destinations that failed or were busy, and how many batches had been handed out by then.
    suspect: HashMap<Destination, u64>,
}

impl World {
    fn new(workers: usize, reserved: usize) -> Self {
        let settings = Settings { workers_reserved: reserved, ..settings(workers, Limits::default()) };
        let worker =
            || SimWorker { alive: true, running: None, mailbox: VecDeque::new(), known: VecDeque::new() };
        Self {
            scheduler: Scheduler::new(settings.clone()),
            settings,
            now: Duration::ZERO,
            workers: (0..workers).map(|_| worker()).collect(),
            reports: VecDeque::new(),
            taken: VecDeque::new(),
            asked: HashSet::new(),
            state: BTreeMap::new(),
            people: HashMap::new(),
            messages: Vec::new(),
            withdrawn: HashSet::new(),
            to_load: VecDeque::new(),
            handed_out: 0,
            suspect: HashMap::new(),
        }
    }

    fn limits(&self, destination: &Destination) -> Limits {
        self.settings.limits.get(destination.transport()).copied().unwrap_or_default()
    }

    fn reserve(&self) -> usize {
        self.settings.workers_reserved.min(self.workers.len() / 8)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Submit { to, window } => self.submit(&to, window),
            Op::Finish { worker, how, cached } => self.finish(worker % self.workers.len(), how, cached),
            Op::Begin { worker } => self.begin(worker % self.workers.len()),
            Op::Report => self.report(),
            Op::ReportAll => self.report_all(),
            Op::Load => self.load(),
            Op::Withdraw { job } => self.withdraw(job),
            Op::Lose { worker } => self.lose(worker % self.workers.len()),
            Op::Replace { worker } => self.replace(worker % self.workers.len()),
            Op::Wait { millis } => {
                self.now += Duration::from_millis(millis);
                self.step(Event::Tick);
            }
            Op::Reconfigure { concurrency, size, recipient } => {
                let limits = Limits {
                    destination_concurrency_limit: concurrency,
                    destination_recipient_limit: size,
                    recipient_concurrency_limit: recipient,
                    ..Limits::default()
                };
                self.settings = Settings {
                    workers_reserved: self.settings.workers_reserved,
                    ..settings(self.workers.len(), limits)
                };
                self.step(Event::Reconfigured(self.settings.clone()));
            }
        }
        self.check();
    }

    fn submit(&mut self, to: &[To], window: usize) {
        let envelope = envelope(self.messages.len() as u64);
        for (position, (place, mailbox, sender)) in (0..).zip(to) {
            // The case of an address makes no other mailbox.
            let name = if *sender == 0 { format!("M{mailbox}") } else { format!("m{mailbox}") };
            let mut recipient = Recipient::new(position, address(&name));
            recipient.sender = (*sender == 1).then(|| Sender::from(address("verp")));
            self.people.insert((envelope.id, position), (destination(&format!("mx{place}")), recipient));
            self.state.insert((envelope.id, position), State::OnDisk);
        }
        self.messages.push((envelope.clone(), window));
        self.load_window(&envelope, window);
    }

    fn load_window(&mut self, envelope: &Arc<Envelope>, window: usize) {
        let mut on_disk: VecDeque<_> = self
            .state
            .range((envelope.id, 0)..=(envelope.id, u32::MAX))
            .filter(|(_, state)| **state == State::OnDisk)
            .map(|(who, _)| *who)
            .collect();
        let rest = on_disk.len().saturating_sub(window);
        on_disk.truncate(window);
        for who in &on_disk {
            self.state.insert(*who, State::Waiting);
        }
        let recipients = on_disk.iter().map(|who| self.people[who].clone()).collect();
        self.step(Event::Loaded { envelope: envelope.clone(), recipients, rest });
    }

    fn load(&mut self) {
        if let Some(id) = self.to_load.pop_front()
            && let Some((envelope, window)) = self.messages.iter().find(|(e, _)| e.id == id).cloned()
            && !self.withdrawn.contains(&id)
        {
            self.load_window(&envelope, window);
        }
    }

    /// A worker takes the next batch out of its mailbox.
    fn begin(&mut self, worker: usize) {
        let sim = &mut self.workers[worker];
        if sim.running.is_none() {
            sim.running = sim.mailbox.pop_front();
        }
    }

    /// A worker ends a batch and reports that; the master does not know yet.
    fn finish(&mut self, worker: usize, how: u8, cached: bool) {
        self.begin(worker);
        let Some(out) = self.workers[worker].running.take() else { return };
        let destination = match how {
            0 => Health::Failed(failure()),
            1 => Health::Busy(out.batch, failure()),
            2 => Health::Untouched,
            _ => Health::Reached,
        };
        self.reports.push_back((worker, BatchEnd { cached, destination }));
    }

    fn report_all(&mut self) {
        while !self.reports.is_empty() {
            self.report();
        }
    }

    /// The master reads one report.
    fn report(&mut self) {
        let Some((worker, end)) = self.reports.pop_front() else { return };
        let Out { batch, number } = self.workers[worker].known.pop_front().expect("it ran something");
        self.asked.remove(&worker);
        let destination = batch.destination().clone();
        match &end.destination {
            Health::Busy(..) => self.returned(&batch),
            _ => self.settled(&batch),
        }
        match &end.destination {
            Health::Failed(_) | Health::Busy(..) => {
                self.suspect.insert(destination, self.handed_out);
            }
            Health::Reached if self.suspect.get(&destination).is_some_and(|since| number > *since) => {
                self.suspect.remove(&destination);
            }
            Health::Reached | Health::Untouched => {}
        }
        self.step(Event::Ended { worker: WorkerId(worker), end });
    }

    fn settled(&mut self, batch: &Batch) {
        self.set(batch, State::Out, State::Settled);
    }

    fn returned(&mut self, batch: &Batch) {
        let gone = self.withdrawn.contains(&batch.envelope().id);
        self.set(batch, State::Out, if gone { State::Settled } else { State::Waiting });
    }

    fn set(&mut self, batch: &Batch, from: State, to: State) {
        for recipient in batch.recipients() {
            let before = self.state.insert((batch.envelope().id, recipient.position), to);
            assert_eq!(before, Some(from), "{:?} of {}", recipient.address, batch.envelope().id);
        }
    }

    fn withdraw(&mut self, job: usize) {
        let Some(id) = self.messages.get(job).map(|(envelope, _)| envelope.id) else { return };
        self.withdrawn.insert(id);
        for (_, state) in self.state.range_mut((id, 0)..=(id, u32::MAX)) {
            if matches!(state, State::OnDisk | State::Waiting) {
                *state = State::Settled;
            }
        }
        self.to_load.retain(|other| *other != id);
        self.step(Event::Withdrawn { id });
    }

    /// A thread dies. What it had reported before is read first, as from a channel.
    fn lose(&mut self, worker: usize) {
        while self.reports.iter().any(|(other, _)| *other == worker) {
            self.report();
        }
        if !self.workers[worker].alive {
            return;
        }
        let sim = &mut self.workers[worker];
        sim.alive = false;
        let running = sim.running.take();
        let unbegun: Vec<Batch> = sim.mailbox.drain(..).map(|out| out.batch).collect();
        sim.known.clear();
        self.asked.remove(&worker);
        if let Some(out) = running {
            self.settled(&out.batch);
        }
        unbegun.iter().for_each(|batch| self.returned(batch));
        self.step(Event::WorkerLost { worker: WorkerId(worker), unbegun });
    }

    fn replace(&mut self, worker: usize) {
        if !std::mem::replace(&mut self.workers[worker].alive, true) {
            self.step(Event::WorkerReady { worker: WorkerId(worker) });
        }
    }

    fn step(&mut self, event: Event) {
        let actions = self.scheduler.step(self.now, event);
        self.act(actions);
        self.tell_taken();
    }

    fn tell_taken(&mut self) {
        for round in 0.. {
            let Some((worker, batch)) = self.taken.pop_front() else { return };
            assert!(round < 100, "batches go in and out of mailboxes");
            self.returned(&batch);
            let sim = &mut self.workers[worker];
            let is_it = |out: &Out| out.batch == batch;
            let at = sim.known.iter().position(is_it).expect("it was handed out");
            sim.known.remove(at);
            self.asked.remove(&worker);
            let event = Event::TakenBack { worker: WorkerId(worker), batch };
            let actions = self.scheduler.step(self.now, event);
            self.act(actions);
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Assign { worker, batch } => self.assign(worker.0, batch),
                Action::TakeBack { worker: WorkerId(worker) } => {
                    assert_eq!(self.workers[worker].known.len(), 2, "nothing is in that mailbox");
                    assert!(self.asked.insert(worker), "asked twice");
                    match self.workers[worker].mailbox.pop_front() {
                        Some(out) => self.taken.push_back((worker, out.batch)),
                        None => assert!(self.reports.iter().any(|(other, _)| *other == worker)),
                    }
                }
                Action::Suspend { batch, reason } => {
                    assert!(self.suspect.contains_key(batch.destination()));
                    let is_busy = reason.text == failure().text;
                    assert!(is_busy || reason.text.starts_with("delivery temporarily suspended: "));
                    self.set(&batch, State::Waiting, State::Settled);
                }
                Action::LoadMore { id } => {
                    assert!(!self.to_load.contains(&id), "asked twice");
                    let count = |wanted| {
                        let of_job = self.state.range((id, 0)..=(id, u32::MAX));
                        of_job.filter(|(_, state)| **state == wanted).count()
                    };
                    assert!(count(State::OnDisk) > 0, "nothing is on disk");
                    self.to_load.push_back(id);
                }
            }
        }
    }

    fn assign(&mut self, worker: usize, batch: Batch) {
        let limits = self.limits(batch.destination());
        let in_flight = self.in_flight(batch.destination());
        assert!(in_flight < limits.destination_concurrency_limit);
        let size = limits.destination_recipient_limit;
        assert!(size == 0 || batch.recipients().len() <= size);
        for recipient in batch.recipients() {
            let own = recipient.sender.as_ref().unwrap_or(&batch.envelope().sender);
            assert_eq!(own, batch.sender());
            let place = &self.people[&(batch.envelope().id, recipient.position)].0;
            assert_eq!(place, batch.destination());
            let limit = limits.recipient_concurrency_limit;
            assert!(limit == 0 || self.deliveries(batch.destination(), recipient) < limit);
        }
        let idle = self.idle();
        let known = &self.workers[worker].known;
        assert!(self.workers[worker].alive);
        match known.front() {
            None if in_flight > 0 => assert!(idle > self.reserve(), "the reserve was used"),
            None => {}
            Some(running) => {
                assert_eq!(running.batch.destination(), batch.destination());
                assert_eq!(known.len(), 1, "the mailbox is full");
                assert!(idle <= self.reserve() + self.asked.len(), "an idle worker may take it");
            }
        }
        self.set(&batch, State::Waiting, State::Out);
        self.handed_out += 1;
        let out = Out { batch, number: self.handed_out };
        let sim = &mut self.workers[worker];
        sim.known.push_back(out.clone());
        sim.mailbox.push_back(out);
    }

    fn idle(&self) -> usize {
        self.workers.iter().filter(|worker| worker.alive && worker.known.is_empty()).count()
    }

    fn out(&self) -> impl Iterator<Item = &Batch> {
        self.workers.iter().flat_map(|worker| &worker.known).map(|out| &out.batch)
    }

    fn in_flight(&self, destination: &Destination) -> usize {
        self.out().filter(|batch| batch.destination() == destination).count()
    }

    /// Batches in flight that hold this mailbox.
    fn deliveries(&self, destination: &Destination, recipient: &Recipient) -> usize {
        let name = recipient.address.unquoted().to_lowercase();
        let holds = |batch: &&Batch| {
            batch.destination() == destination
                && batch.recipients().iter().any(|r| r.address.unquoted().to_lowercase() == name)
        };
        self.out().filter(holds).count()
    }

    /// What holds at all times, and what holds when no report is under way.
    fn check(&self) {
        let in_memory = |state: &&State| matches!(state, State::Waiting | State::Out);
        assert_eq!(self.scheduler.recipients(), self.state.values().filter(in_memory).count());
        for (envelope, _) in &self.messages {
            let flights = self.out().filter(|batch| batch.envelope().id == envelope.id).count();
            assert_eq!(self.scheduler.in_flight(envelope.id), flights);
        }
        if !self.reports.is_empty() {
            return;
        }
        for destination in (0..DESTINATIONS).map(|place| destination(&format!("mx{place}"))) {
            if self.suspect.contains_key(&destination) {
                continue;
            }
            let in_flight = self.in_flight(&destination);
            let may_take = if in_flight == 0 { self.idle() > 0 } else { self.idle() > self.reserve() };
            let mailed = self.workers.iter().filter_map(|w| w.known.get(1));
            let waits_in_mailbox = mailed.filter(|out| *out.batch.destination() == destination).count() > 0;
            assert!(!(may_take && waits_in_mailbox), "{destination}: a mailbox beside an idle worker");
            assert!(
                !(may_take && self.could_start(&destination, in_flight)),
                "{destination}: waits beside an idle worker"
            );
        }
    }

    fn could_start(&self, destination: &Destination, in_flight: usize) -> bool {
        let limits = self.limits(destination);
        let limit = limits.recipient_concurrency_limit;
        let waiting = self.state.iter().filter(|(_, state)| **state == State::Waiting);
        let mut here = waiting.map(|(who, _)| &self.people[who]).filter(|(place, _)| place == destination);
        // One that has not answered yet may have to wait with more.
        in_flight < limits.destination_concurrency_limit.min(limits.initial_destination_concurrency)
            && here.any(|(_, recipient)| limit == 0 || self.deliveries(destination, recipient) < limit)
    }

    /// From here on everything works: everybody must be settled, in steps that do not outgrow their number.
    fn drain(&mut self) {
        for worker in 0..self.workers.len() {
            self.replace(worker);
        }
        for round in 0.. {
            assert!(round < 4 * self.state.len() + 60, "somebody starves: {:?}", self.scheduler.statistics());
            if self.state.values().all(|state| *state == State::Settled) {
                break;
            }
            let before = self.handed_out;
            (0..self.workers.len()).for_each(|worker| self.finish(worker, 9, true));
            self.report_all();
            while !self.to_load.is_empty() {
                self.load();
            }
            self.check();
            if self.handed_out == before
                && let Some(at) = self.scheduler.next_wakeup()
            {
                self.now = self.now.max(at);
                self.step(Event::Tick);
            }
        }
        (0..2).for_each(|_| (0..self.workers.len()).for_each(|worker| self.finish(worker, 9, true)));
        self.report_all();
        // Failures are forgotten, too.
        while let Some(at) = self.scheduler.next_wakeup() {
            self.now = self.now.max(at);
            self.step(Event::Tick);
        }
        let left = self.scheduler.statistics();
        assert_eq!((left.jobs, left.recipients, left.workers_busy), (0, 0, 0));
        assert_eq!(left.workers_idle, self.workers.len());
        assert_eq!(left.destinations, []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        max_shrink_iters: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_nobody_is_lost_doubled_or_kept_waiting(
        workers in prop_oneof![1..4_usize, 8..17_usize],
        reserved in 0..3_usize,
        ops in vec(op(), 1..120),
    ) {
        let mut world = World::new(workers, reserved);
        for op in ops {
            world.apply(op);
        }
        world.drain();
    }
}
