//! The daemons, played by threads behind sockets of their own: what they are sent, and what becomes of every way in
//! which they may fail.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::call::{update, waits_for};
use super::*;
use crate::mail::{EnhancedStatus, Outcome, Protocol, Reason};
use crate::postfix::attribute::List;
use crate::postfix::request::{Recipient, RequestFlags};

/// How a daemon behaves towards one client.
#[derive(Clone, Debug)]
enum Habit {
    /// Says first what it speaks, takes a list, answers with these octets.
    Modern(&'static str, Vec<u8>),
    /// Says nothing first.
    Old(Vec<u8>),
    /// The same, an octet at a time.
    Drip(&'static str, Vec<u8>),
    /// Closes at once.
    Closes,
    /// Takes a list and closes.
    ClosesAfter,
    /// Says nothing, until the client goes.
    Silent,
}

fn status(status: i32) -> Vec<u8> {
    format!("status\0{}\0\0", status.cast_unsigned()).into_bytes()
}

/// A modern daemon of the bounce family.
fn modern(answer: i32) -> Habit {
    Habit::Modern("delivery_status_protocol", status(answer))
}

/// What was received, by socket, in order.
type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A queue directory with sockets in it.
struct Postfix {
    directory: tempfile::TempDir,
    received: Received,
    threads: Vec<JoinHandle<()>>,
    sockets: Vec<std::path::PathBuf>,
}

impl Postfix {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for folder in ["private", "public"] {
            fs::create_dir(directory.path().join(folder)).unwrap();
        }
        Self { directory, received: Arc::default(), threads: Vec::new(), sockets: Vec::new() }
    }

    /// Serves `habits`, one client each, in this order; the last one for all that follow.
    fn with(mut self, socket: &'static str, habits: Vec<Habit>) -> Self {
        let path = self.directory.path().join(socket);
        let listener = UnixListener::bind(&path).unwrap();
        self.sockets.push(path);
        let received = Arc::clone(&self.received);
        self.threads.push(thread::spawn(move || {
            for at in 0.. {
                let (stream, _) = listener.accept().unwrap();
                let keep = |octets| received.lock().unwrap().push((socket.to_owned(), octets));
                if play(stream, &habits[at.min(habits.len() - 1)], keep).is_none() {
                    return;
                }
            }
        }));
        self
    }

    fn services(&self, timeout: Duration) -> Services {
        Services::new(self.directory.path(), ServiceNames::default(), timeout)
    }

    /// What was received, with NUL written as `~`.
    fn received(&self) -> Vec<(String, String)> {
        let received = self.received.lock().unwrap();
        let shown = |octets: &[u8]| String::from_utf8_lossy(octets).replace('\0', "~");
        received.iter().map(|(socket, octets)| (socket.clone(), shown(octets))).collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        for path in &self.sockets {
            // The word that ends a daemon's thread.
            if let Ok(mut stream) = UnixStream::connect(path) {
                let _ = stream.write_all(b"end\0\0\0");
            }
        }
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

/// Serves one client, and keeps what it says before it gets an answer; `None` if that was to end.
fn play(mut stream: UnixStream, habit: &Habit, keep: impl Fn(Vec<u8>)) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    if let Habit::Modern(protocol, _) | Habit::Drip(protocol, _) = habit {
        let _ = stream.write_all(format!("protocol\0{protocol}\0\0").as_bytes());
    }
    if matches!(habit, Habit::Closes) {
        // Only a look, so that the end is heard all the same.
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    }
    let octets = read_list(&mut stream);
    if octets.starts_with(b"end\0") {
        return None;
    }
    keep(octets);
    match habit {
        Habit::Modern(_, answer) | Habit::Old(answer) => {
            let _ = stream.write_all(answer);
        }
        Habit::Drip(_, answer) => {
            for octet in answer {
                thread::sleep(Duration::from_millis(5));
                if stream.write_all(&[*octet]).is_err() {
                    break;
                }
            }
        }
        Habit::Silent => {
            let _ = stream.read(&mut [0; 16]);
        }
        Habit::Closes | Habit::ClosesAfter => {}
    }
    Some(())
}

fn read_list(stream: &mut UnixStream) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut buffer = [0; 4096];
    while !matches!(List::parse(&octets), Ok(Some(_))) {
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => octets.extend_from_slice(&buffer[..length]),
            _ => break,
        }
    }
    octets
}

const LONG: Duration = Duration::from_secs(60);

fn entry(service: Service) -> Call {
    let recipient = Recipient { address: b"r@y".to_vec(), offset: Some(242), ..Recipient::default() };
    let entry = call::Entry {
        flags: 0,
        queue_id: "QID",
        recipient: &recipient,
        notify: 0,
        status: EnhancedStatus::new(5, 1, 1),
        said: None,
        action: "failed",
        reason: "no",
    };
    entry.append_to(service)
}

#[test]
fn old_and_new_daemons_are_told_alike() {
    for habit in [
        modern(0),
        Habit::Old(status(0)),
        Habit::Drip("delivery_status_protocol", status(0)),
        // What a later release may add.
        Habit::Modern("delivery_status_protocol", b"more\0x\0status\x000\0then\0y\0\0".to_vec()),
    ] {
        for (service, socket) in [
            (Service::Bounce, "private/bounce"),
            (Service::Defer, "private/defer"),
            (Service::Trace, "private/trace"),
        ] {
            let postfix = Postfix::new().with(socket, vec![habit.clone()]);
            let call = entry(service);
            postfix.services(LONG).tell(&call).unwrap();
            let expected = String::from_utf8_lossy(&call.octets).replace('\0', "~");
            assert_eq!(postfix.received(), [(socket.to_owned(), expected)], "{habit:?}");
        }
    }
}

#[test]
fn the_other_daemons_have_their_own_protocols() {
    let postfix = Postfix::new()
        .with("private/verify", vec![Habit::Modern("address_verification_prrotocol", status(0))])
        .with("public/flush", vec![Habit::Modern("queue_flush_protocol", status(0)); 1]);
    let services = postfix.services(LONG);
    services.tell(&update(b"a@x", call::Verified::Deliverable, "250 ok")).unwrap();
    services.tell(&waits_for(b"x", "QID")).unwrap();
    let sockets: Vec<_> = postfix.received().into_iter().map(|(socket, _)| socket).collect();
    assert_eq!(sockets, ["private/verify", "public/flush"]);
}

#[test]
fn flush_may_decline() {
    for (answer, is_fine) in [(0, true), (4, true), (3, false), (-1, false), (1, false)] {
        let habit = Habit::Modern("queue_flush_protocol", status(answer));
        let postfix = Postfix::new().with("public/flush", vec![habit]);
        assert_eq!(postfix.services(LONG).tell(&waits_for(b"x", "QID")).is_ok(), is_fine, "{answer}");
    }
    let postfix = Postfix::new().with("private/bounce", vec![modern(4)]);
    assert!(postfix.services(LONG).tell(&entry(Service::Bounce)).is_err(), "bounce may not");
}

#[test]
fn whatever_a_daemon_does_wrong_is_a_no_in_words() {
    let spoken = "delivery_status_protocol";
    for (habit, words) in [
        (modern(-1), "private/bounce has answered with status -1"),
        (Habit::Old(status(1)), "private/bounce has answered with status 1"),
        (Habit::ClosesAfter, "read private/bounce: it closed the connection without an answer"),
        (
            Habit::Modern(spoken, Vec::new()),
            "read private/bounce: it closed the connection without an answer",
        ),
        (
            Habit::Modern(spoken, b"status\x000".to_vec()),
            "read private/bounce: it closed the connection without an answer",
        ),
        (
            Habit::Modern(spoken, b"status\0yes\0\0".to_vec()),
            "read private/bounce: the answer is malformed: its attribute \"status\" is no number of the size that \
             it should have",
        ),
        (
            Habit::Modern(spoken, b"other\x001\0\0".to_vec()),
            "read private/bounce: the answer is malformed: it has no attribute \"status\"",
        ),
        (
            Habit::Modern("queue_flush_protocol", b"x\0y\0\0".to_vec()),
            "private/bounce speaks \"queue_flush_protocol\" where \"delivery_status_protocol\" was expected",
        ),
    ] {
        let postfix = Postfix::new().with("private/bounce", vec![habit]);
        let failure = postfix.services(LONG).tell(&entry(Service::Bounce)).unwrap_err();
        assert_eq!(failure.to_string(), words);
        assert!(!failure.is_timeout());
    }
}

#[test]
fn a_daemon_that_closes_at_once_has_said_no() {
    let postfix = Postfix::new().with("private/bounce", vec![Habit::Closes]);
    let failure = postfix.services(LONG).tell(&entry(Service::Bounce)).unwrap_err();
    assert!(failure.to_string().contains(" private/bounce: "), "{failure}");
}

#[test]
fn a_daemon_that_is_not_there_is_named_as_postfix_does() {
    let postfix = Postfix::new();
    let failure = postfix.services(LONG).tell(&entry(Service::Defer)).unwrap_err();
    assert_eq!(failure.to_string(), "connect to private/defer: No such file or directory");
    // Nobody listens any more.
    drop(UnixListener::bind(postfix.directory.path().join("private/defer")).unwrap());
    let failure = postfix.services(LONG).tell(&entry(Service::Defer)).unwrap_err();
    assert_eq!(failure.to_string(), "connect to private/defer: Connection refused");
    let nowhere = Services::new("x".repeat(200), ServiceNames::default(), LONG);
    let failure = nowhere.tell(&entry(Service::Defer)).unwrap_err();
    assert!(failure.to_string().starts_with("connect to private/defer: "), "{failure}");
}

#[test]
fn the_deadline_is_for_the_whole_call() {
    let long = b"status\x000\0".repeat(500);
    for habit in [Habit::Silent, Habit::Drip("delivery_status_protocol", long)] {
        let postfix = Postfix::new().with("private/trace", vec![habit]);
        let started = Instant::now();
        let failure = postfix.services(Duration::from_secs(1)).tell(&entry(Service::Trace)).unwrap_err();
        assert_eq!(failure.to_string(), "private/trace has not answered within 1 s");
        assert!(failure.is_timeout());
        assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    }
}

#[test]
fn an_answer_without_end_is_refused() {
    let postfix = Postfix::new()
        .with("private/bounce", vec![Habit::Modern("delivery_status_protocol", vec![b'x'; 1 << 20])]);
    let failure = postfix.services(LONG).tell(&entry(Service::Bounce)).unwrap_err();
    assert!(failure.to_string().contains("longer than"), "{failure}");
}

#[test]
fn daemons_may_bear_other_names() {
    let postfix = Postfix::new().with("private/my-bounce", vec![modern(0)]);
    let names = ServiceNames { bounce: "my-bounce".into(), ..ServiceNames::default() };
    Services::new(postfix.directory.path(), names, LONG).tell(&entry(Service::Bounce)).unwrap();
    assert_eq!(postfix.received().len(), 1);
}

fn policy() -> Policy {
    Policy {
        names: ServiceNames::default(),
        soft_bounce: false,
        negative_cache: true,
        protocol: Protocol::Lmtp,
        final_delivery: false,
    }
}

fn recipients(count: u64) -> Vec<Recipient> {
    (0..count)
        .map(|number| Recipient {
            address: format!("r{number}@y.example").into_bytes(),
            offset: Some(100 + number),
            ..Recipient::default()
        })
        .collect()
}

fn attempted<'a>(recipient: &'a Recipient, outcome: &'a Outcome) -> Attempted<'a> {
    Attempted {
        queue_id: "QID",
        flags: RequestFlags(3),
        recipient,
        outcome,
        relay: NO_RELAY,
        host: "",
        reports_success: false,
    }
}

fn outcome(class: u8) -> Outcome {
    let reason = Reason::local(EnhancedStatus::new(class, 0, 0), "because");
    match class {
        2 => Outcome::Delivered(reason),
        4 => Outcome::Deferred(reason),
        _ => Outcome::Bounced(reason),
    }
}

/// Reports, and tells in which order it happened, marks included.
fn reported(reports: &mut Reports<'_>, attempts: &[Attempted<'_>]) -> (bool, Vec<String>) {
    let story = Mutex::new(Vec::new());
    let say = |attempted: &Attempted<'_>, what: String| {
        let address = String::from_utf8_lossy(&attempted.recipient.address);
        story.lock().unwrap().push(format!("{address} {what}"));
    };
    let mut are_all_done = true;
    for attempted in attempts {
        let verdict = reports.report(attempted, &mut |line| say(attempted, line.word.to_owned()));
        say(attempted, verdict.mark.map_or("stays".into(), |at| format!("at {at}")));
        are_all_done &= verdict.is_done;
    }
    (are_all_done, story.into_inner().unwrap())
}

#[test]
fn each_recipient_is_settled_before_the_next_is_reported() {
    let postfix = Postfix::new()
        .with("private/bounce", vec![modern(0), modern(-1)])
        .with("private/defer", vec![modern(0)]);
    let reporter = Reporter::new(postfix.services(LONG), policy(), None, None);
    let (recipients, sent, bounced, deferred) = (recipients(4), outcome(2), outcome(5), outcome(4));
    let attempts: Vec<_> =
        recipients.iter().zip([&sent, &bounced, &bounced, &deferred]).map(|(r, o)| attempted(r, o)).collect();
    let (done, story) = reported(&mut reporter.begin(), &attempts);
    assert!(!done);
    assert_eq!(
        story,
        [
            "r0@y.example sent",
            "r0@y.example at 100",
            "r1@y.example bounced",
            "r1@y.example at 101",
            "r2@y.example deferred",
            "r2@y.example stays",
            "r3@y.example deferred",
            "r3@y.example stays",
        ]
    );
    let sockets: Vec<_> = postfix.received().into_iter().map(|(socket, _)| socket).collect();
    assert_eq!(sockets, ["private/bounce", "private/bounce", "private/defer", "private/defer"]);
    let (done, _) = reported(&mut reporter.begin(), &attempts[..1]);
    assert!(done);
    assert!(postfix.received()[2].1.contains("reason~bounce or trace service failure~~"));
}

#[test]
fn a_daemon_that_never_answers_costs_one_timeout_a_request() {
    let postfix =
        Postfix::new().with("private/bounce", vec![Habit::Silent]).with("private/defer", vec![modern(0)]);
    let reporter = Reporter::new(postfix.services(Duration::from_secs(1)), policy(), None, None);
    let (recipients, bounced) = (recipients(20), outcome(5));
    let attempts: Vec<_> = recipients.iter().map(|recipient| attempted(recipient, &bounced)).collect();
    let mut reports = reporter.begin();
    let (done, story) = reported(&mut reports, &attempts);
    assert!(!done && story.iter().all(|told| told.ends_with(" deferred") || told.ends_with(" stays")));
    let to = |name: &str| postfix.received().iter().filter(|(socket, _)| socket == name).count();
    assert_eq!((to("private/bounce"), to("private/defer")), (1, 20));
    // The next request tries again.
    reported(&mut reporter.begin(), &attempts[..1]);
    drop(reports);
    assert_eq!(to("private/bounce"), 2);
}

/// `domain` and those below it.
fn flush_domains(domain: &'static str) -> FlushDomains {
    Box::new(move |name| match name {
        "bad.example" => Err("gone".into()),
        name => Ok(name.ends_with(domain)),
    })
}

#[test]
fn flush_hears_once_of_each_domain_that_it_cares_for() {
    let flush = Habit::Modern("queue_flush_protocol", status(0));
    let postfix = Postfix::new().with("private/defer", vec![modern(0)]).with("public/flush", vec![flush]);
    let reporter = Reporter::new(postfix.services(LONG), policy(), None, Some(flush_domains("y.example")));
    let mut recipients = recipients(3);
    recipients[2].address = b"u@sub.y.example".to_vec();
    for address in [&b"u@other.example"[..], b"u@bad.example", b"u@\xff"] {
        recipients.push(Recipient { address: address.to_vec(), ..Recipient::default() });
    }
    let deferred = outcome(4);
    let attempts: Vec<_> = recipients.iter().map(|recipient| attempted(recipient, &deferred)).collect();
    reported(&mut reporter.begin(), &attempts);
    let flushed: Vec<_> =
        postfix.received().into_iter().filter(|(socket, _)| socket == "public/flush").collect();
    let hint =
        |domain: &str| ("public/flush".to_owned(), format!("request~add~site~{domain}~queue_id~QID~~"));
    assert_eq!(flushed, [hint("y.example"), hint("sub.y.example")]);
}

#[test]
fn the_filter_is_asked_for_each_recipient() {
    let postfix = Postfix::new().with("private/defer", vec![modern(0)]);
    let filter: StatusFilter =
        Box::new(|key| Ok((key == "5.0.0 because").then(|| "4.7.0 not yet".to_owned())));
    let reporter = Reporter::new(postfix.services(LONG), policy(), Some(filter), None);
    let (recipients, bounced) = (recipients(1), outcome(5));
    let verdict = reporter.begin().report(&attempted(&recipients[0], &bounced), &mut |_| {});
    let line = verdict.line.unwrap();
    assert_eq!((line.word, line.text.as_ref(), verdict.is_done), ("deferred", "not yet", false));
    assert_eq!(postfix.received().len(), 1);
}

#[test]
fn threads_report_side_by_side() {
    let postfix =
        Postfix::new().with("private/defer", vec![modern(0)]).with("private/bounce", vec![modern(0)]);
    let reporter = Reporter::new(postfix.services(LONG), policy(), None, Some(flush_domains("z.example")));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (recipients, bounced, deferred) = (recipients(20), outcome(5), outcome(4));
                let mut reports = reporter.begin();
                for recipient in &recipients {
                    assert!(reports.report(&attempted(recipient, &bounced), &mut |_| {}).is_done);
                    assert!(!reports.report(&attempted(recipient, &deferred), &mut |_| {}).is_done);
                }
            });
        }
    });
    let to = |name: &str| postfix.received().iter().filter(|(socket, _)| socket == name).count();
    assert_eq!((to("private/bounce"), to("private/defer")), (160, 160));
}

/// Plays cleanup(8): greets, takes everything up to the record of the end, answers.
fn cleanup(greeting: &'static [u8], answer: &'static [u8]) -> (Postfix, JoinHandle<Vec<u8>>) {
    let postfix = Postfix::new();
    let listener = UnixListener::bind(postfix.directory.path().join("public/cleanup")).unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let _ = stream.write_all(greeting);
        let (mut octets, mut buffer) = (Vec::new(), [0; 4096]);
        while !octets.ends_with(b"X\0E\0") {
            match stream.read(&mut buffer) {
                Ok(length) if length > 0 => octets.extend_from_slice(&buffer[..length]),
                _ => return octets,
            }
        }
        let _ = stream.write_all(answer);
        octets
    });
    (postfix, thread)
}

#[test]
fn a_notice_goes_to_cleanup() {
    let now = "2026-11-02T09:08:07+00:00[UTC]".parse().unwrap();
    let notice = Notice {
        sender: "double-bounce@x",
        recipient: "postmaster",
        hostname: "mx",
        origin: "x",
        mail_name: "Postfix",
        protocol: Protocol::Smtp,
        relay: "r",
        queue_id: "QID",
        what: "500",
        transcript: &[Spoken::In("500 no")],
        now: &now,
    };
    let accepted = b"status\x000\0reason\0\0\0";
    let (modern, old) = (b"protocol\0cleanup_protocol\0queue_id\0NEW\0\0", b"queue_id\0NEW\0\0");
    let announced = b"protocol\0cleanup_protocol\0\0status\x000\0reason\0\0\0";
    for (greeting, answer) in
        [(&modern[..], &accepted[..]), (&old[..], &accepted[..]), (&modern[..], &announced[..])]
    {
        let (postfix, thread) = cleanup(greeting, answer);
        assert_eq!(postfix.services(LONG).submit(&notice).unwrap(), "NEW");
        assert_eq!(thread.join().unwrap(), notice.submission("NEW"));
    }
    for (greeting, answer, words) in [
        (&modern[..], &b"status\x001\0reason\0bad header\0\0"[..], "answered with status 1: bad header"),
        (modern, b"status\x001\0\0", "answered with status 1"),
        (modern, b"", "closed the connection without an answer"),
        (b"protocol\0cleanup_protocol\0\0", accepted, "it has no attribute \"queue_id\""),
        (b"protocol\0other\0queue_id\0NEW\0\0", accepted, "speaks \"other\""),
    ] {
        let (postfix, thread) = cleanup(greeting, answer);
        let failure = postfix.services(LONG).submit(&notice).unwrap_err().to_string();
        assert!(failure.contains("public/cleanup") && failure.contains(words), "{failure}");
        drop(postfix);
        thread.join().unwrap();
    }
}
