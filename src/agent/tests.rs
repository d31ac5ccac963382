//! What cannot be brought about from outside: workers that panic, marks that cannot be written.
//!
//! A real master with real threads, a queue in a temporary directory, our own sink.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use tempfile::TempDir;

use super::control::{Action, Answer, Ask, Question};
use super::crew::Crew;
use super::delivery::SpoolSource;
use super::doorbell::{Chime, doorbell};
use super::master::{Master, Parts};
use super::message::{Message, Order};
use super::pickup::{Errand, ErrandId, Load, PickupThread};
use super::recorder::Recorder;
use super::report::{Report, Reporter};
use super::sweeper::Sweeper;
use crate::config::{Config, Sources};
use crate::mail::{Batch, EnhancedStatus, Notify, Outcome, Protocol, QueueId, Reason, Recipient};
use crate::net::Observer;
use crate::queue::scheduler::Health;
use crate::sink::{Handle, Listen, Sink, SinkConfig, Store, maildir_name};
use crate::smtp::Settled;
use crate::spool::{Cursor, Draft, Lock, Place, Spool, SubmitLimits, Watch};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Panics where a test has asked for it by an address.
pub(super) fn panic_if_asked(order: &Order, address: &str) {
    panic_if_any(order.batch.recipients(), address);
}

/// The same, where there is no batch yet.
pub(super) fn panic_if_any<'a>(recipients: impl IntoIterator<Item = &'a Recipient>, address: &str) {
    let is_asked = recipients.into_iter().any(|r| r.address.to_string() == address);
    assert!(!is_asked, "asked to panic by {address}");
}

/// The log of this process.
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{}: {}", record.level(), record.args());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn flush(&self) {}
}

/// The lines of the log so far that hold all of `parts`.
fn logged(parts: &[&str]) -> Vec<String> {
    let lines = LINES.0.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).cloned().collect()
}

/// A queue, a server, and what an agent is made of.
struct Bench {
    directory: TempDir,
    spool: Arc<Spool>,
    sweeper: Sweeper,
    config: Arc<Config>,
    reporter: Reporter,
    parts: Option<(Receiver<Report>, Chime)>,
    _lock: Lock,
    _sink: Handle,
}

impl Bench {
    fn new() -> Self {
        // One test of a process is the first.
        let _ = log::set_logger(&LINES);
        log::set_max_level(log::LevelFilter::Debug);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let listen = Listen::Unix(path.join("lmtp"));
        let store = Store::Maildir(path.join("mail"));
        let sink = Sink::start(SinkConfig { store, ..SinkConfig::new(listen) }).unwrap();
        let file = path.join("lastmile.toml");
        let text = format!(
            "queue_directory = \"{}\"\nmyhostname = \"mx.example.org\"\nworkers = 1\nworkers_reserved = 0\n\
             default_transport = \"unix:{}\"\n",
            path.join("queue").display(),
            path.join("lmtp").display()
        );
        fs::write(&file, text).unwrap();
        let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        let (spool, lock) = Spool::prepare(&config.queue_directory, None).unwrap();
        let (doorbell, chime) = doorbell().unwrap();
        let (sender, reports) = unbounded();
        let spool = Arc::new(spool);
        let (sweeper, _) = Sweeper::start(Arc::clone(&spool)).unwrap();
        Self {
            spool,
            sweeper,
            config: Arc::new(config),
            reporter: Reporter::new(sender, doorbell),
            parts: Some((reports, chime)),
            directory,
            _lock: lock,
            _sink: sink,
        }
    }

    fn submit(&self, recipients: &[&str]) -> QueueId {
        let recipients = recipients.iter().zip(0..).map(|(to, at)| Recipient::new(at, to.parse().unwrap()));
        self.submit_to(recipients.collect())
    }

    fn submit_to(&self, recipients: Vec<Recipient>) -> QueueId {
        let draft = Draft {
            sender: "a@example.org".parse().unwrap(),
            recipients,
            nexthop: None,
            envid: None,
            ret: None,
            smtputf8: false,
            origin: "uid=1000".to_owned(),
        };
        let limits = SubmitLimits { message_size_limit: 0, minfree: 0 };
        self.spool.submit(draft, &mut &b"Subject: test\r\n\r\ntext\r\n"[..], &limits).unwrap()
    }

    fn pickup(&self) -> PickupThread {
        let (spool, sweeper) = (Arc::clone(&self.spool), self.sweeper.clone());
        PickupThread::new(spool, sweeper, Arc::clone(&self.config), self.reporter.clone())
    }

    /// All of a message, as a batch on its way to a worker.
    fn order(&self, id: QueueId) -> Order {
        let loaded = self.spool.load(id, Cursor::default(), 100).unwrap();
        let message = Arc::new(Message::new(loaded.envelope, loaded.layout, loaded.unsettled));
        let recipients: Vec<_> = loaded.recipients.into_iter().map(|(recipient, _)| recipient).collect();
        let destination = self.config.route(&recipients[0].address);
        let sender = message.envelope.sender.clone();
        let batch = Batch::new(Arc::clone(&message.envelope), sender, destination, recipients).unwrap();
        Order { batch, message, config: Arc::clone(&self.config), counters: Arc::default() }
    }

    fn run(&mut self) -> JoinHandle<std::io::Result<()>> {
        let pickup = self.pickup();
        let (master, errand_list) = self.run_without_pickup();
        std::thread::spawn(move || pickup.run(&errand_list));
        master
    }

    /// What the master wants done is for the test to do.
    fn run_without_pickup(&mut self) -> (JoinHandle<std::io::Result<()>>, Receiver<Errand>) {
        let (reports, chime) = self.parts.take().unwrap();
        let (errands, errand_list) = unbounded();
        let (spool, config) = (Arc::clone(&self.spool), Arc::clone(&self.config));
        let hostname = config.myhostname.clone();
        let (queue, sweeper) = (Arc::clone(&spool), self.sweeper.clone());
        let source = SpoolSource { spool: queue, sweeper, protocol_notices: Arc::default() };
        let crew = Crew::start(config.workers, source, self.reporter.clone(), hostname).unwrap();
        let watch = Watch::new(&spool).unwrap();
        let master = Master::new(Parts {
            config,
            spool,
            counters: Arc::default(),
            crew,
            errands,
            reports,
            chime,
            watch,
        });
        (std::thread::spawn(move || master.run()), errand_list)
    }

    fn stop(&self, master: JoinHandle<std::io::Result<()>>) {
        self.reporter.send(Report::Stop);
        master.join().unwrap().unwrap();
    }

    fn place(&self, id: QueueId) -> Option<Place> {
        self.spool.find(id).unwrap()
    }

    /// The line of states of a message that lies in `place`.
    fn states(&self, id: QueueId, place: Place) -> String {
        let path = self.spool.path().join(place.name()).join(id.as_str());
        fs::read_to_string(path).unwrap().lines().nth(2).unwrap().to_owned()
    }

    /// The messages in somebody's mailbox.
    fn mail_of(&self, address: &str) -> Vec<String> {
        let maildir = self.directory.path().join("mail").join(maildir_name(&address.parse().unwrap()));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let entries = fs::read_dir(maildir.join("new")).into_iter().flatten().flatten();
        entries.map(|entry| read(&entry.path())).collect()
    }
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}; the log says {:#?}", logged(&[]));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_worker_that_panics_is_replaced_and_its_batch_settled() {
    for (address, states, warnings) in [("unsent@test.invalid", "-P", 0), ("in-doubt@test.invalid", "-I", 1)]
    {
        let mut bench = Bench::new();
        let before = bench.submit(&["before@example.org"]);
        let deadly = bench.submit(&[address]);
        let after: Vec<_> = (0..5).map(|_| bench.submit(&["after@example.org"])).collect();
        let master = bench.run();
        wait_until("the other mail is delivered, by a worker that is not there any more", || {
            bench.mail_of("before@example.org").len() == 1 && bench.mail_of("after@example.org").len() == 5
        });
        wait_until("the batch is deferred", || bench.place(deadly) == Some(Place::Deferred));
        assert_eq!(bench.states(deadly, Place::Deferred), states);
        let told = || bench.mail_of("postmaster@mx.example.org");
        wait_until("the postmaster is told", || !told().is_empty());
        assert_eq!(told().len(), 1);
        assert!(told()[0].contains(deadly.as_str()) && told()[0].contains("software"), "{:?}", told());
        wait_until("nothing else is left", || {
            after.iter().chain([&before]).all(|id| bench.place(*id).is_none())
        });
        bench.stop(master);
        let id = deadly.as_str();
        let line = format!("{id}: to=<{address}>, relay=none");
        assert_eq!(logged(&[&line, "dsn=4.3.0, status=deferred"]).len(), 1, "{:#?}", logged(&[id]));
        assert_eq!(logged(&["ERROR: ", id, "panicked"]).len(), 1);
        assert_eq!(logged(&["WARN: ", id, "delivered twice"]).len(), warnings);
    }
}

#[test]
fn a_panic_after_the_last_outcome_does_not_keep_the_message_in_memory() {
    let mut bench = Bench::new();
    let deadly = bench.submit(&["settled@test.invalid"]);
    let master = bench.run();
    wait_until("the worker has panicked", || !logged(&["ERROR: ", deadly.as_str(), "panicked"]).is_empty());
    wait_until("the postmaster is told", || !bench.mail_of("postmaster@mx.example.org").is_empty());
    // The file says that it is done: the next one who looks at it, as a listing would, removes it.
    wait_until("it is removed", || {
        bench.reporter.send(Report::Queued(vec![deadly]));
        bench.place(deadly).is_none()
    });
    bench.stop(master);
    assert_eq!(bench.mail_of("settled@test.invalid").len(), 1);
}

#[test]
fn a_worker_that_panics_between_two_batches_is_replaced() {
    let mut bench = Bench::new();
    bench.submit(&["between@test.invalid"]);
    for _ in 0..5 {
        bench.submit(&["after@example.org"]);
    }
    let master = bench.run();
    wait_until("the mail after it is delivered, by the one worker's successor", || {
        bench.mail_of("after@example.org").len() == 5
    });
    wait_until("the postmaster is told", || !bench.mail_of("postmaster@mx.example.org").is_empty());
    bench.stop(master);
    assert_eq!(bench.mail_of("between@test.invalid").len(), 1);
}

#[test]
fn a_message_over_which_loading_panics_is_set_aside_and_others_are_loaded() {
    let mut bench = Bench::new();
    let deadly = bench.submit(&["load@test.invalid"]);
    bench.submit(&["after@example.org"]);
    let master = bench.run();
    wait_until("the other mail is delivered", || bench.mail_of("after@example.org").len() == 1);
    wait_until("the message is set aside", || bench.place(deadly) == Some(Place::Hold));
    wait_until("the postmaster is told", || !bench.mail_of("postmaster@mx.example.org").is_empty());
    bench.stop(master);
    assert_eq!(logged(&["ERROR: ", deadly.as_str(), "panicked", "kept in hold/"]).len(), 1);
}

#[test]
fn a_message_whose_marks_cannot_be_written_after_a_reply_is_set_aside() {
    let bench = Bench::new();
    let id = bench.submit(&["b@example.org", "c@example.org"]);
    let order = bench.order(id);
    // Opened for reading, so that a mark fails as it would on a broken disk.
    let file = bench.spool.open_message(id, Place::Active).unwrap();
    let (spool, sweeper) = (Arc::clone(&bench.spool), bench.sweeper.clone());
    let source = SpoolSource { spool, sweeper, protocol_notices: Arc::default() };
    let transport = bench.config.transport(order.batch.destination().transport()).unwrap();
    let mut recorder = Recorder::new(&bench.spool, &file, &order, Protocol::Lmtp);
    let taken = Outcome::Delivered(Reason::local(EnhancedStatus::new(2, 0, 0), "250 2.0.0 taken"));
    let settled = |position| Settled { position, outcome: taken.clone(), in_doubt: false };
    recorder.settled(vec![settled(0), settled(1)]);
    let ended = source.recorded(&order, transport, &file, recorder.into_recorded(), Health::Reached);
    assert!(ended.finished.is_some(), "the master must hear of its end");
    assert_eq!(bench.place(id), Some(Place::Hold));
    let lines = logged(&["ERROR: ", id.as_str(), "outcomes could not be marked", "it is in hold/ now"]);
    assert_eq!(lines.len(), 1, "{:#?}", logged(&[id.as_str()]));
    // What the server said is told all the same.
    assert_eq!(logged(&[id.as_str(), "to=<c@example.org>", "status=sent"]).len(), 1);
}

#[test]
fn a_success_notice_is_on_disk_before_the_mark_of_the_success() {
    let bench = Bench::new();
    let mut recipient = Recipient::new(0, "b@example.org".parse().unwrap());
    recipient.notify = Notify::SUCCESS;
    let id = bench.submit_to(vec![recipient]);
    let order = bench.order(id);
    // No mark can be written: as if the agent were killed between the two.
    let file = bench.spool.open_message(id, Place::Active).unwrap();
    let mut recorder = Recorder::new(&bench.spool, &file, &order, Protocol::Lmtp);
    let outcome = Outcome::Delivered(Reason::local(EnhancedStatus::new(2, 0, 0), "250 2.0.0 taken"));
    recorder.settled(vec![Settled { position: 0, outcome, in_doubt: false }]);
    let recorded = recorder.into_recorded();
    assert!(recorded.failed.is_some());
    assert_eq!(bench.states(id, Place::Active), "-P");
    let [notice] = recorded.queued[..] else { panic!("{:?}", recorded.queued) };
    let path = bench.spool.path().join("active").join(notice.as_str());
    assert!(fs::read_to_string(path).unwrap().contains("Action: delivered\r\n"));
}

#[test]
fn a_batch_that_cannot_be_marked_in_doubt_is_not_sent() {
    let bench = Bench::new();
    let id = bench.submit(&["b@example.org"]);
    let order = bench.order(id);
    let file = bench.spool.open_message(id, Place::Active).unwrap();
    let mut recorder = Recorder::new(&bench.spool, &file, &order, Protocol::Lmtp);
    assert!(recorder.end_of_data(&[0]).is_err());
    assert_eq!(bench.states(id, Place::Active), "-P");
}

#[test]
fn a_batch_of_which_only_some_can_be_marked_in_doubt_leaves_no_doubt() {
    let bench = Bench::new();
    let id = bench.submit(&["b@example.org", "c@example.org"]);
    let order = bench.order(id);
    let file = bench.spool.open_again(&order.message.envelope, &order.message.layout).unwrap().unwrap();
    let mut recorder = Recorder::new(&bench.spool, &file, &order, Protocol::Lmtp);
    // There is no such recipient: the second mark fails when the first is written.
    assert!(recorder.end_of_data(&[0, 7]).is_err());
    assert_eq!(bench.states(id, Place::Active), "-PP");
    assert!(logged(&["WARN: ", id.as_str()]).is_empty(), "what was never marked need not be taken back");
    recorder.end_of_data(&[0, 1]).unwrap();
    assert_eq!(bench.states(id, Place::Active), "-II");
    recorder.unsent();
    assert_eq!(bench.states(id, Place::Active), "-PP");
}

#[test]
fn mail_for_a_destination_that_rests_for_long_is_deferred_with_its_reason() {
    let bench = Bench::new();
    let id = bench.submit(&["b@example.org", "c@example.org"]);
    let order = bench.order(id);
    let text = "delivery temporarily suspended: connect to mx1[192.0.2.1]:24: Connection refused";
    let reason = Reason::local(EnhancedStatus::new(4, 4, 1), text);
    let mut pickup = bench.pickup();
    pickup.run_errand(Errand::Suspend(Box::new(order), reason), &|| false);
    pickup.settle_suspended(1);
    assert_eq!(bench.place(id), Some(Place::Deferred));
    assert_eq!(bench.states(id, Place::Deferred), "-PP");
    let end = format!("/0/0/0, dsn=4.4.1, status=deferred ({text})");
    let parts = [id.as_str(), "to=<b@example.org>, relay=none, delay=", &end];
    assert_eq!(logged(&parts).len(), 1, "{:#?}", logged(&[id.as_str()]));
    let replies = bench.spool.last_replies(id, &[0, 1]).unwrap();
    assert!(replies.values().all(|reply| reply.text == text) && replies.len() == 2, "{replies:?}");
    let (reports, _) = bench.parts.as_ref().unwrap();
    assert!(matches!(reports.try_recv(), Ok(Report::Settled { message, .. }) if message.envelope.id == id));
}

#[test]
fn mail_does_not_wait_for_what_is_suspended_but_the_rest_of_its_message_does() {
    let bench = Bench::new();
    let reason =
        || Reason::local(EnhancedStatus::new(4, 4, 1), "delivery temporarily suspended: for this test");
    let suspended: Vec<_> = (0..6).map(|_| bench.submit(&["dead@example.org"])).collect();
    let other = bench.submit(&["b@example.org"]);
    let mut pickup = bench.pickup();
    for id in &suspended {
        pickup.run_errand(Errand::Suspend(Box::new(bench.order(*id)), reason()), &|| false);
    }
    let places = |place| suspended.iter().filter(|id| bench.place(**id) == Some(place)).count();
    let load = |id, next| {
        let errand = ErrandId::default();
        Errand::Load(Load { id, errand, from: Place::Active, next, window: 9, is_new: false })
    };
    assert_eq!((places(Place::Active), places(Place::Deferred)), (6, 0));
    pickup.run_errand(load(other, None), &|| false);
    assert_eq!((places(Place::Active), places(Place::Deferred)), (5, 1), "one for one");
    let last = suspended[5];
    let next = Some((bench.order(last).message, Cursor::default()));
    pickup.run_errand(load(last, next), &|| false);
    assert_eq!((places(Place::Active), places(Place::Deferred)), (4, 2));
    assert_eq!(bench.place(last), Some(Place::Deferred));
    pickup.settle_suspended(100);
    assert_eq!(places(Place::Deferred), 6);
}

/// The next errand to a message; those to directories are nobody's here.
#[track_caller]
fn errand_to_a_message(errands: &Receiver<Errand>) -> Errand {
    loop {
        let errand = errands.recv_timeout(LIMIT).unwrap();
        if matches!(errand, Errand::Load(_) | Errand::Act(..)) {
            return errand;
        }
    }
}

/// Whether the master has wanted anything done with a message once it has read all reports.
fn is_sent_to_a_message(bench: &Bench, errands: &Receiver<Errand>) -> bool {
    let (answer, answers) = unbounded();
    bench.reporter.send(Report::Asked(Question { ask: Ask::Status, answer: answer.clone() }));
    answers.recv_timeout(LIMIT).unwrap();
    // What comes of a report is done before the next round of reports.
    bench.reporter.send(Report::Asked(Question { ask: Ask::Status, answer }));
    answers.recv_timeout(LIMIT).unwrap();
    errands.try_iter().any(|errand| matches!(errand, Errand::Load(_) | Errand::Act(..)))
}

/// What is reported late of a message that has left memory meanwhile.
fn report_late(bench: &Bench, message: &Arc<Message>) {
    let (id, message) = (message.envelope.id, Arc::clone(message));
    bench.reporter.send(Report::Settled { message, queued: Vec::new() });
    bench.reporter.send(Report::Dismissed { id, errand: ErrandId::default(), queued: Vec::new() });
}

#[test]
fn what_is_reported_late_does_not_end_what_has_begun_since() {
    let mut bench = Bench::new();
    let id = bench.submit(&["b@example.org"]);
    let before = bench.order(id).message;
    let (master, errands) = bench.run_without_pickup();
    bench.reporter.send(Report::Queued(vec![id]));
    let load = errand_to_a_message(&errands);
    report_late(&bench, &before);
    bench.reporter.send(Report::Queued(vec![id]));
    assert!(!is_sent_to_a_message(&bench, &errands), "it is loaded already");
    let mut pickup = bench.pickup();
    pickup.run_errand(load, &|| false);
    wait_until("the mail is delivered", || bench.mail_of("b@example.org").len() == 1);
    wait_until("the file is removed", || bench.place(id).is_none());
    bench.stop(master);
    assert_eq!(bench.mail_of("b@example.org").len(), 1);
}

#[test]
fn an_agent_that_stops_does_what_an_administrator_was_promised() {
    let mut bench = Bench::new();
    let id = bench.submit(&["b@example.org"]);
    let before = bench.order(id).message;
    let (master, errands) = bench.run_without_pickup();
    let (answer, answers) = unbounded();
    bench.reporter.send(Report::Asked(Question { ask: Ask::Act(id, Action::Hold), answer }));
    let act = errand_to_a_message(&errands);
    report_late(&bench, &before);
    bench.reporter.send(Report::Stop);
    wait_until("it stops", || !logged(&["stopping: "]).is_empty());
    std::thread::sleep(Duration::from_millis(100));
    assert!(!master.is_finished(), "the message is not in hold/ yet");
    bench.pickup().run_errand(act, &|| false);
    master.join().unwrap().unwrap();
    assert!(matches!(answers.try_recv(), Ok(Answer::Acted(Ok(Some(Place::Active))))));
    assert_eq!(bench.place(id), Some(Place::Hold));
}
