//! Each rule of the scheduler, as a table of events and what they start.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::mail::{Address, Batch, BodyType, EnhancedStatus, Envelope, Nexthop, Reason, Sender};

pub(super) fn destination(host: &str) -> Destination {
    let port = NonZeroU16::new(24).unwrap();
    Nexthop::parse(&format!("lmtp:inet:{host}:24"), |name| name == "lmtp").unwrap().destination(port)
}

pub(super) fn address(local: &str) -> Address {
    Address::from_parts(local, "example.org").unwrap()
}

pub(super) fn envelope(number: u64) -> Arc<Envelope> {
    Arc::new(Envelope {
        id: QueueId::new(number, 0),
        sender: Sender::from(address("sender")),
        arrival: Timestamp::UNIX_EPOCH,
        nexthop: None,
        body: BodyType::SevenBit,
        smtputf8: false,
        envid: None,
        ret: None,
        origin: "uid=1000".into(),
        size: 1,
    })
}

pub(super) fn failure() -> Reason {
    Reason::local(EnhancedStatus::new(4, 4, 1), "connect to mx: Connection refused")
}

pub(super) fn settings(workers: usize, limits: Limits) -> Settings {
    Settings {
        workers,
        workers_reserved: 2,
        active_limit: 20_000,
        minimal_backoff_time: Duration::from_secs(300),
        limits: [("lmtp".parse().unwrap(), limits)].into(),
    }
}

/// What the tables say: events, and the actions that they cause, in words.
struct Table {
    scheduler: Scheduler,
    now: Duration,
    /// Batches handed out, by worker: the running one first.
    out: HashMap<usize, Vec<Batch>>,
}

impl Table {
    fn new(workers: usize, limits: Limits) -> Self {
        Self::with(settings(workers, limits))
    }

    fn with(settings: Settings) -> Self {
        Self { scheduler: Scheduler::new(settings), now: Duration::ZERO, out: HashMap::new() }
    }

    /// Loads recipients of message `id`, given as `mailbox@destination`, or `mailbox@destination<sender`.
    fn load(&mut self, id: u64, to: &str) -> Vec<String> {
        self.load_window(id, to, 0, 0)
    }

    fn load_window(&mut self, id: u64, to: &str, from: u32, rest: usize) -> Vec<String> {
        let recipients = (from..).zip(to.split(' ')).map(|(position, word)| {
            let (to, sender) = word.split_once('<').map_or((word, None), |(to, sender)| (to, Some(sender)));
            let (mailbox, host) = to.split_once('@').unwrap();
            let mut recipient = Recipient::new(position, address(mailbox));
            recipient.sender = sender.map(|sender| Sender::from(address(sender)));
            (destination(host), recipient)
        });
        let recipients = recipients.collect();
        self.step(Event::Loaded { envelope: envelope(id), recipients, rest })
    }

    fn reached(&mut self, worker: usize) -> Vec<String> {
        self.end(worker, true, Health::Reached)
    }

    fn failed(&mut self, worker: usize) -> Vec<String> {
        self.end(worker, false, Health::Failed(failure()))
    }

    fn busy(&mut self, worker: usize) -> Vec<String> {
        let batch = self.out[&worker][0].clone();
        self.end(worker, false, Health::Busy(batch, failure()))
    }

    fn end(&mut self, worker: usize, cached: bool, destination: Health) -> Vec<String> {
        self.out.get_mut(&worker).unwrap().remove(0);
        self.step(Event::Ended { worker: WorkerId(worker), end: BatchEnd { cached, destination } })
    }

    fn taken_back(&mut self, worker: usize) -> Vec<String> {
        let batch = self.out.get_mut(&worker).unwrap().pop().unwrap();
        self.step(Event::TakenBack { worker: WorkerId(worker), batch })
    }

    fn wait(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        self.step(Event::Tick)
    }

    fn step(&mut self, event: Event) -> Vec<String> {
        let actions = self.scheduler.step(self.now, event);
        actions.into_iter().map(|action| self.words(action)).collect()
    }

    fn words(&mut self, action: Action) -> String {
        let to = |batch: &Batch| {
            let names = batch.recipients().iter().map(|r| r.address.local_part());
            names.collect::<Vec<_>>().join(",")
        };
        match action {
            Action::Assign { worker, batch } => {
                let words = format!("{worker}: {}", to(&batch));
                self.out.entry(worker.0).or_default().push(batch);
                words
            }
            Action::TakeBack { worker } => format!("back from {worker}"),
            Action::Suspend { batch, .. } => format!("suspend {}", to(&batch)),
            Action::LoadMore { id } => format!("more of {}", if id == envelope(1).id { 1 } else { 2 }),
        }
    }
}

const NONE: &[&str] = &[];

fn concurrency(limit: usize) -> Limits {
    Limits { destination_concurrency_limit: limit, ..Limits::default() }
}

#[test]
fn batches_are_cut_by_destination_sender_and_size() {
    let limits = Limits { destination_recipient_limit: 2, ..Limits::default() };
    let mut table = Table::new(8, limits);
    let starts = table.load(1, "a@x b@y c@x d@x e@x<list f@y g@x<list");
    assert_eq!(starts, ["0: a,c", "1: b,f", "2: d", "3: e,g"]);
}

#[test]
fn no_size_limit_means_one_batch() {
    let mut table = Table::new(1, Limits { destination_recipient_limit: 0, ..Limits::default() });
    let all: Vec<_> = (0..1000).map(|n| format!("m{n}@x")).collect();
    let starts = table.load(1, &all.join(" "));
    assert_eq!(starts.len(), 1);
    assert_eq!(table.out[&0][0].recipients().len(), 1000);
}

#[test]
fn small_mail_overtakes_a_list_posting() {
    let mut table = Table::new(
        1,
        Limits { destination_concurrency_limit: 1, destination_recipient_limit: 1, ..Limits::default() },
    );
    assert_eq!(table.load(1, "a@x b@x c@x d@x"), ["0: a"]);
    assert_eq!(table.load(2, "small@x"), NONE);
    assert_eq!(table.reached(0), ["0: b"]);
    assert_eq!(table.reached(0), ["0: small"]);
    assert_eq!(table.reached(0), ["0: c"]);
}

#[test]
fn a_slow_destination_holds_up_only_itself() {
    let mut table = Table::new(4, concurrency(1));
    assert_eq!(table.load(1, "a@slow"), ["0: a"]);
    assert_eq!(table.load(2, "b@slow"), NONE);
    assert_eq!(table.load(3, "c@fast"), ["1: c"]);
    assert_eq!(table.reached(0), ["0: b"]);
}

#[test]
fn a_locked_mailbox_holds_up_only_itself() {
    let limits =
        Limits { recipient_concurrency_limit: 1, destination_recipient_limit: 2, ..Limits::default() };
    let mut table = Table::new(8, limits);
    assert_eq!(table.load(1, "locked@x"), ["0: locked"]);
    assert_eq!(table.load(2, "LOCKED@x a@x b@x"), ["1: a,b"]);
    assert_eq!(table.load(3, "Locked@x"), NONE);
    assert_eq!(table.load(4, "locked@other"), ["2: locked"]);
    assert_eq!(table.reached(1), NONE);
    assert_eq!(table.reached(0), ["0: LOCKED"]);
    assert_eq!(table.reached(0), ["0: Locked"]);
    assert_eq!(table.reached(0), NONE);
    assert_eq!(table.scheduler.recipients(), 1);
}

#[test]
fn a_batch_counts_once_for_an_address_that_stands_in_it_twice() {
    let mut table = Table::new(8, Limits { recipient_concurrency_limit: 1, ..Limits::default() });
    assert_eq!(table.load(1, "a@x A@x"), ["0: a,A"]);
    assert_eq!(table.load(2, "a@x"), NONE);
    assert_eq!(table.reached(0), ["0: a"]);
}

#[test]
fn the_worker_whose_connection_fits_is_preferred_then_one_without_then_the_one_idle_longest() {
    let mut table = Table::new(3, Limits::default());
    assert_eq!(table.load(1, "a@x b@y"), ["0: a", "1: b"]);
    assert_eq!((table.reached(0), table.reached(1)), (vec![], vec![]));
    assert_eq!(table.load(2, "c@y"), ["1: c"]);
    assert_eq!(table.load(3, "d@z"), ["2: d"]);
    assert_eq!((table.reached(1), table.reached(2)), (vec![], vec![]));
    assert_eq!(table.load(4, "e@w"), ["0: e"]);
    assert_eq!(table.load(5, "f@w f@v"), ["1: f", "2: f"]);
}

#[test]
fn a_mailbox_is_used_where_no_worker_is_idle_and_holds_one_batch() {
    let mut table = Table::new(2, Limits { destination_recipient_limit: 1, ..Limits::default() });
    assert_eq!(table.load(1, "a@x b@x c@x d@x e@x"), ["0: a", "1: b", "1: c", "0: d"]);
    assert_eq!(table.reached(0), ["0: e"], "d runs now, and e waits behind it");
    assert_eq!(table.reached(0), NONE);
    assert_eq!(table.reached(0), ["back from 1"], "worker 0 could start c");
    assert_eq!(table.taken_back(1), ["0: c"]);
}

#[test]
fn what_waits_in_mailboxes_counts_as_in_flight() {
    let limits = Limits {
        destination_concurrency_limit: 3,
        destination_recipient_limit: 1,
        recipient_concurrency_limit: 1,
        ..Limits::default()
    };
    let mut table = Table::new(2, limits);
    assert_eq!(table.load(1, "a@x b@x c@x d@x"), ["0: a", "1: b", "1: c"]);
    assert_eq!(table.load(2, "c@x"), NONE);
    assert_eq!(table.scheduler.statistics().destinations[0].in_flight, 3);
}

#[test]
fn a_batch_that_could_not_be_taken_back_runs_where_it_is() {
    let mut table = Table::new(2, Limits { destination_recipient_limit: 1, ..Limits::default() });
    assert_eq!(table.load(1, "a@x b@x c@x"), ["0: a", "1: b", "1: c"]);
    assert_eq!(table.reached(0), ["back from 1"]);
    assert_eq!(table.reached(1), NONE, "its mailbox was empty: c runs");
    assert_eq!(table.scheduler.statistics().workers_idle, 1);
    assert_eq!(table.load(2, "d@x"), ["0: d"], "and worker 0 is free again");
}

#[test]
fn a_mailbox_is_not_filled_while_a_destination_waits_for_its_first_worker() {
    let mut table = Table::new(1, Limits { destination_recipient_limit: 1, ..Limits::default() });
    assert_eq!(table.load(1, "a@x b@x c@x d@x"), ["0: a", "0: b"]);
    assert_eq!(table.load(2, "other@y"), NONE);
    assert_eq!(table.reached(0), NONE);
    assert_eq!(table.reached(0), ["0: other"]);
    assert_eq!(table.reached(0), ["0: c", "0: d"]);
}

#[test]
fn a_batch_behind_a_worker_that_is_held_up_is_asked_back() {
    let mut table = Table::new(2, Limits { destination_recipient_limit: 1, ..Limits::default() });
    let all: Vec<_> = (0..30).map(|n| format!("m{n}@x")).collect();
    assert_eq!(table.load(1, &all.join(" ")), ["0: m0", "1: m1", "1: m2", "0: m3"]);
    // Worker 0 hangs in m0, with m3 in its mailbox.
    let asked = (0..20).find(|_| table.reached(1) == ["back from 0"]);
    assert_eq!(asked, Some(9));
    assert_eq!(table.taken_back(0)[0], "1: m3");
}

#[test]
fn a_destination_with_batches_leaves_the_reserve_to_the_others() {
    let limits = Limits { destination_recipient_limit: 1, ..Limits::default() };
    for (workers, reserved, left) in [(7, 2, 0), (8, 0, 0), (8, 2, 1), (15, 2, 1), (16, 2, 2), (16, 1, 1)] {
        let mut table = Table::with(Settings { workers_reserved: reserved, ..settings(workers, limits) });
        let all: Vec<_> = (0..18).map(|n| format!("m{n}@x")).collect();
        table.load(1, &all.join(" "));
        table.reached(0);
        assert_eq!(table.scheduler.statistics().workers_idle, left, "{workers} {reserved}");
        let other = table.load(2, "o@y p@y");
        assert_eq!(other.len(), if left == 0 { 0 } else { 2 }, "{other:?}");
    }
}

#[test]
fn a_destination_that_has_not_answered_yet_holds_few_workers() {
    let initial = 5;
    assert_eq!(Limits::default().initial_destination_concurrency, initial);
    let limits = Limits {
        destination_recipient_limit: 1,
        initial_destination_concurrency: initial,
        ..concurrency(20)
    };
    let mut table = Table::new(32, limits);
    let busy = |table: &Table| table.scheduler.statistics().workers_busy;
    let many = |domain: &str| (0..40).map(|n| format!("m{n}@{domain}")).collect::<Vec<_>>().join(" ");
    table.load(1, &many("x"));
    assert_eq!(busy(&table), initial);
    table.load(2, &many("y"));
    assert_eq!(busy(&table), 2 * initial);
    // One answer is enough.
    table.reached(0);
    assert_eq!(busy(&table), 20 + initial);
}

#[test]
fn destinations_take_turns() {
    let mut table = Table::new(1, concurrency(1));
    assert_eq!(table.load(1, "a@x"), ["0: a"]);
    for (id, to) in [(2, "b@x"), (3, "c@y"), (4, "d@z"), (5, "e@y")] {
        assert_eq!(table.load(id, to), NONE);
    }
    let turns: Vec<_> = (0..4).flat_map(|_| table.reached(0)).collect();
    assert_eq!(turns, ["0: c", "0: d", "0: b", "0: e"]);
}

#[test]
fn a_destination_does_not_lose_its_workers_to_one_that_keeps_them_for_long() {
    let limits = Limits { destination_recipient_limit: 1, ..Limits::default() };
    let mut table = Table::with(Settings { workers_reserved: 0, ..settings(8, limits) });
    let is_fast = |batch: Option<&Batch>| {
        batch.is_some_and(|b| b.recipients()[0].address.local_part().starts_with("fast"))
    };
    // Four at a time are on their way to the fast one: when one is there the next comes in.
    for id in 0..4 {
        table.load(id, "fast@fast");
    }
    table.load(4, &(0..100).map(|n| format!("slow{n}@slow")).collect::<Vec<_>>().join(" "));
    for id in 5..60 {
        let running = table.out.iter().filter(|(_, batches)| is_fast(batches.first()));
        let worker = *running.map(|(worker, _)| worker).min().unwrap();
        table.load(id, "fast@fast");
        for action in table.reached(worker) {
            if let Some(worker) = action.strip_prefix("back from ") {
                table.taken_back(worker.parse().unwrap());
            }
        }
    }
    let running = table.out.values().filter(|batches| is_fast(batches.first())).count();
    assert_eq!(running, 4);
}
#[test]
fn a_failure_rests_its_destination_and_one_batch_goes_ahead_alone() {
    let limits = Limits { destination_recipient_limit: 1, ..Limits::default() };
    let mut table = Table::new(4, limits);
    assert_eq!(table.load(1, "a@x b@x"), ["0: a", "1: b"]);
    assert_eq!(table.failed(0), NONE);
    assert_eq!(table.failed(1), NONE, "the same failure");
    assert_eq!(table.load(2, "c@x d@x e@y"), ["2: e"]);
    assert_eq!(table.scheduler.next_wakeup(), Some(Duration::from_secs(5)));
    assert_eq!(table.wait(4), NONE);
    assert_eq!(table.wait(1), ["3: c"]);
    assert_eq!(table.reached(3), ["3: d"]);
    assert_eq!(table.reached(3), NONE);
    let reasons: Vec<_> =
        table.scheduler.statistics().destinations.into_iter().map(|d| (d.in_flight, d.reason)).collect();
    assert_eq!(reasons, [(1, None)], "x is forgotten, y runs");
}

#[test]
fn mail_for_a_destination_that_rests_for_long_is_suspended() {
    let mut table = Table::new(1, Limits { destination_recipient_limit: 2, ..Limits::default() });
    let mut rests = Vec::new();
    assert_eq!(table.load(1, "a@x"), ["0: a"]);
    for id in 2..6 {
        assert_eq!(table.failed(0), NONE);
        rests.push(table.scheduler.next_wakeup().unwrap() - table.now);
        assert_eq!(table.load(id, "b@x"), NONE, "it waits");
        let rest = rests.last().unwrap().as_secs();
        assert_eq!(table.wait(rest), ["0: b"]);
    }
    assert_eq!(rests, [5, 10, 20, 40].map(Duration::from_secs));
    assert_eq!(table.load(7, "c@x"), NONE);
    assert_eq!(table.failed(0), ["suspend c"]);
    assert_eq!(table.load(8, "d@x e@x f@x"), ["suspend d,e", "suspend f"]);
    assert_eq!(table.scheduler.recipients(), 0);
    assert_eq!(table.wait(80), NONE);
    assert_eq!(table.load(9, "g@x h@x i@x"), ["0: g,h"], "alone");
    assert_eq!(table.failed(0), ["suspend i"]);
    table.wait(160);
    assert_eq!(table.scheduler.statistics().destinations.len(), 1);
    table.wait(300);
    assert_eq!(table.scheduler.statistics().destinations, [], "failures are forgotten");
}

#[test]
fn a_rest_empties_the_mailboxes() {
    let mut table = Table::new(2, Limits { destination_recipient_limit: 1, ..Limits::default() });
    assert_eq!(table.load(1, "a@x b@x c@x d@x"), ["0: a", "1: b", "1: c", "0: d"]);
    assert_eq!(table.failed(0), ["back from 1"], "d runs already");
    assert_eq!(table.taken_back(1), NONE);
    assert_eq!(table.failed(0), NONE);
    assert_eq!(table.failed(1), NONE);
    assert_eq!(table.wait(5), ["0: c"]);
}

#[test]
fn a_busy_server_gets_the_batch_again_after_a_pause() {
    let mut table = Table::new(2, Limits { destination_recipient_limit: 1, ..Limits::default() });
    assert_eq!(table.load(1, "a@x"), ["0: a"]);
    assert_eq!(table.busy(0), NONE);
    assert_eq!(table.load(2, "b@x"), NONE);
    assert_eq!(table.wait(1), ["1: a", "0: b"], "the batch that came back first, and nobody rests");
    assert_eq!(table.busy(1), NONE);
    assert_eq!(table.wait(1), NONE, "pauses grow");
    assert_eq!(table.wait(1), ["1: a"]);
    assert_eq!(table.scheduler.recipients(), 2);
}

#[test]
fn what_a_server_is_too_busy_for_is_deferred_only_where_it_has_taken_nothing_for_long() {
    let mut table = Table::new(1, Limits { destination_recipient_limit: 1, ..concurrency(1) });
    let all: Vec<_> = (0..9).map(|n| format!("m{n}@x")).collect();
    assert_eq!(table.load(1, &all.join(" ")), ["0: m0"]);
    assert_eq!(table.wait(400), NONE);
    assert_eq!(table.reached(0), ["0: m1"], "the list has been here for longer than until a next attempt");
    assert_eq!(table.busy(0), NONE);
    assert_eq!(table.wait(1), ["0: m1"]);
    assert_eq!(table.wait(298), NONE);
    assert_eq!(table.busy(0), NONE);
    assert_eq!(table.wait(2), ["0: m1"]);
    assert_eq!(table.busy(0), ["suspend m1"], "for 301 seconds nothing was taken");
    assert_eq!(table.wait(4), ["0: m2"]);
    assert_eq!(table.reached(0), ["0: m3"]);
    assert_eq!(table.busy(0), NONE, "since then it has taken something");
    assert_eq!(table.wait(1), ["0: m3"]);
}

#[test]
fn a_withdrawn_message_is_gone_but_for_what_runs() {
    let mut table = Table::new(1, Limits { destination_recipient_limit: 1, ..Limits::default() });
    let id = envelope(1).id;
    assert_eq!(table.load_window(1, "a@x b@x c@x", 0, 9), ["0: a", "0: b"]);
    assert_eq!(table.step(Event::Withdrawn { id }), ["back from 0"]);
    assert_eq!(table.scheduler.in_flight(id), 2);
    assert_eq!(table.taken_back(0), NONE);
    assert_eq!((table.scheduler.in_flight(id), table.scheduler.recipients()), (1, 1));
    assert_eq!(table.busy(0), NONE, "not even what the server was too busy for comes back");
    assert_eq!((table.scheduler.in_flight(id), table.scheduler.recipients()), (0, 0));
}

#[test]
fn a_lost_worker_gets_nothing_until_it_is_replaced() {
    let mut table = Table::new(1, Limits { destination_recipient_limit: 1, ..Limits::default() });
    let worker = WorkerId(0);
    assert_eq!(table.load(1, "a@x b@x"), ["0: a", "0: b"]);
    assert_eq!(table.taken_back(0), ["0: b"], "nobody asked, but it is not lost");
    assert_eq!(table.step(Event::WorkerLost { worker, unbegun: Vec::new() }), NONE);
    assert_eq!(table.scheduler.recipients(), 0, "what it ran, and what nobody got back, is the master's");
    assert_eq!(table.load(2, "c@x"), NONE);
    assert_eq!(table.step(Event::WorkerReady { worker }), ["0: c"]);
    assert_eq!(table.step(Event::WorkerReady { worker }), NONE);
    assert_eq!(table.step(Event::WorkerReady { worker: WorkerId(99) }), NONE);
}

#[test]
fn the_next_window_is_asked_for_once_when_half_is_settled() {
    let mut table = Table::new(1, Limits { destination_recipient_limit: 1, ..concurrency(1) });
    assert_eq!(table.load_window(1, "a@x b@x c@x d@x", 0, 3), ["0: a"]);
    assert_eq!(table.reached(0), ["0: b"]);
    assert_eq!(table.reached(0), ["more of 1", "0: c"]);
    assert_eq!(table.reached(0), ["0: d"]);
    assert_eq!(table.reached(0), NONE);
    assert_eq!(table.load_window(1, "e@x f@x", 4, 1), ["0: e"]);
    assert_eq!(table.reached(0), ["more of 1", "0: f"]);
    assert_eq!(table.load_window(1, "g@x", 6, 0), NONE);
    assert_eq!((table.reached(0), table.reached(0)), (vec!["0: g".to_owned()], vec![]));
    assert_eq!(table.scheduler.statistics().jobs, 0);
}

#[test]
fn the_last_quarter_of_memory_is_for_small_destinations() {
    let mut table = Table::with(Settings { active_limit: 16, ..settings(1, Limits::default()) });
    let to = |host: &str, count: u32| -> Vec<_> {
        (0..count).map(|n| (destination(host), Recipient::new(n, address(&format!("m{n}"))))).collect()
    };
    assert!(table.scheduler.admits(&to("x", 99)), "memory is empty");
    table.load(1, "a@x b@x c@x d@x e@x f@x g@x h@x i@x j@x k@x");
    assert!(table.scheduler.admits(&to("x", 5)) && !table.scheduler.admits(&to("x", 6)));
    table.load(2, "a@y");
    assert_eq!(table.scheduler.room(), 4);
    assert!(!table.scheduler.admits(&to("x", 1)));
    assert!(table.scheduler.admits(&to("y", 1)) && table.scheduler.admits(&to("z", 4)));
    table.load(3, "b@y");
    assert!(!table.scheduler.admits(&to("y", 1)) && table.scheduler.admits(&to("z", 1)));
    table.load(4, "a@z a@v");
    table.load(5, "a@w");
    assert!(!table.scheduler.has_room() && !table.scheduler.admits(&to("u", 1)));
}

#[test]
fn many_destinations_leave_room_for_another_one() {
    let mut table = Table::with(Settings { active_limit: 64, ..settings(1, Limits::default()) });
    let one = |host: &str| vec![(destination(host), Recipient::new(0, address("m")))];
    let mut id = 0;
    for round in 0..9 {
        for place in 0..12 {
            let host = format!("dead{place}");
            if table.scheduler.admits(&one(&host)) {
                id += 1;
                table.load(id, &format!("m{round}@{host}"));
            }
        }
    }
    assert_eq!(table.scheduler.room(), 4, "hardly less than each of them holds");
    assert!(table.scheduler.admits(&one("alive")));
}

#[test]
fn other_limits_hold_at_once() {
    let mut table = Table::new(
        8,
        Limits {
            destination_concurrency_limit: 1,
            destination_recipient_limit: 1,
            recipient_concurrency_limit: 1,
            ..Limits::default()
        },
    );
    assert_eq!(table.load(1, "a@x b@x"), ["0: a"]);
    assert_eq!(table.load(2, "a@x"), NONE);
    let wider = Limits { recipient_concurrency_limit: 0, ..Limits::default() };
    assert_eq!(table.step(Event::Reconfigured(settings(8, wider))), ["1: b", "2: a"]);
}

#[test]
fn a_step_costs_what_it_changes_however_much_waits() {
    // 50,000 resting destinations and one long line: far over a minute if a step looked at all of them.
    let mut table = Table::with(Settings { active_limit: 200_000, ..settings(8, concurrency(1)) });
    let recipients = (0..50_000).map(|n| (destination(&format!("d{n}")), Recipient::new(n, address("a"))));
    let starts =
        table.step(Event::Loaded { envelope: envelope(1), recipients: recipients.collect(), rest: 0 });
    assert_eq!(starts.len(), 8);
    for turn in 0..49_992 {
        assert_eq!(table.failed(turn % 8).len(), 1);
    }
    let recipients = (0..20_000).map(|n| (destination("line"), Recipient::new(n, address("locked"))));
    table.step(Event::Loaded { envelope: envelope(2), recipients: recipients.collect(), rest: 0 });
    assert_eq!(table.scheduler.recipients(), 20_008);
}
