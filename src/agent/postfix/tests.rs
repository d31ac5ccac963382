//! What cannot be brought about from outside: threads that panic.
//!
//! A real master with real threads, a queue in a temporary directory, our own sink, and a qmgr(8) of a few lines. Queue
//! files are found by the working directory, so there is one test for all of it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::unbounded;
use tempfile::TempDir;

use super::delivery::PostfixSource;
use super::job::Job;
use super::master::{Master, Parts};
use super::{clerk, start};
use crate::agent::crew::Crew;
use crate::agent::doorbell::doorbell;
use crate::agent::log::OpenMailLog;
use crate::agent::report::Reporter;
use crate::config::Flags;
use crate::mail::Protocol;
use crate::postfix::attribute::{List, Writer};
use crate::postfix::maps::Tables;
use crate::postfix::parameters::{Settings, Values};
use crate::postfix::request::{Recipient, Release};
use crate::postfix::service::{Door, Service};
use crate::sink::{Handle, Listen, Script, Sink, SinkConfig};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);
/// The answer to a request of which nobody is left, and to one whose message is to be kept.
const DONE: Option<i32> = Some(0);
const KEPT: Option<i32> = Some(-1);

/// Panics where a test has asked for it by the address of a recipient.
pub(super) fn panic_if_asked(job: &Job, place: &str) {
    job.request.recipients.iter().for_each(|recipient| panic_if_asked_by(recipient, place));
}

pub(super) fn panic_if_asked_by(recipient: &Recipient, place: &str) {
    let address = format!("{place}@test.invalid");
    assert!(recipient.address != address.as_bytes(), "asked to panic by {address}");
}

/// A service with two workers.
struct Bench {
    directory: TempDir,
    master: JoinHandle<io::Result<()>>,
    /// Our ends of what a service watches.
    _ends: (UnixStream, UnixStream),
    _server: Handle,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let queue = directory.path();
        for name in ["private", "active"] {
            fs::create_dir(queue.join(name)).unwrap();
        }
        std::env::set_current_dir(queue).unwrap();
        let script = "rcpt late@* 450 4.2.1 busy\nrcpt no@* 450 4.2.1 busy\ndata-done slow@* delay 500ms";
        let script = Script::parse(script).unwrap();
        let listen = Listen::Unix(queue.join("private/lmtp"));
        let server = Sink::start(SinkConfig { script, ..SinkConfig::new(listen) }).unwrap();
        let listener = UnixListener::bind(queue.join("private/lastmile")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let ((status, ours), (lifeline, supervisor)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let door = Door::Service(Service::for_test(listener, status.into(), lifeline));
        let master = run(queue, door);
        Self { directory, master, _ends: (ours, supervisor), _server: server }
    }

    /// Asks for a delivery; the answer comes over the connection that is returned.
    fn begin(&self, id: &str, nexthop: &str, recipients: &[&str]) -> UnixStream {
        let path = self.directory.path().join("active").join(id);
        fs::write(&path, b"M\0N\x04textX\0").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let mut caller = UnixStream::connect(self.directory.path().join("private/lastmile")).unwrap();
        caller.set_read_timeout(Some(LIMIT)).unwrap();
        caller.write_all(&request(id, nexthop, recipients)).unwrap();
        caller
    }

    #[track_caller]
    fn answer(&self, id: &str, recipients: &[&str]) -> Option<i32> {
        answer(self.begin(id, "unix:private/lmtp", recipients))
    }
}

fn run(queue: &Path, door: Door) -> JoinHandle<io::Result<()>> {
    let values: Values = [
        ("mail_version", "3.7.11"),
        ("queue_directory", queue.to_str().unwrap()),
        ("myhostname", "mx.example.org"),
        ("lastmile_workers", "2"),
        ("lastmile_shutdown_timeout", "1s"),
    ]
    .into_iter()
    .collect();
    let settings = Settings::from_values(&values, Protocol::Lmtp, Flags::default()).unwrap();
    let tables = Tables::open(&settings).unwrap();
    let context = Arc::new(start::context(settings, tables, "lastmile".to_owned(), OpenMailLog::unheard()));
    let (doorbell, chime) = doorbell().unwrap();
    let (sender, reports) = unbounded();
    let reporter = Reporter::new(sender, doorbell);
    let source = PostfixSource { context: Arc::clone(&context) };
    let crew = Crew::start(2, source, reporter.clone(), "mx.example.org".to_owned()).unwrap();
    let clerk = clerk::start(Arc::clone(&context), reporter).unwrap();
    let parts = Parts { context, door, crew, clerk, reports, chime, retire: None };
    thread::spawn(move || Master::new(parts)?.run())
}

/// A request as Postfix 3.7 sends it.
fn request(id: &str, nexthop: &str, recipients: &[&str]) -> Vec<u8> {
    let no_time = format!("{:A<118}==", "");
    let names = ["name", "address", "port"].map(|name| format!("log_client_{name}"));
    let mut list = Writer::new()
        .number("flags", 3_u32)
        .text("queue_name", "active")
        .text("queue_id", id)
        .number("offset", 2_u32)
        .number("size", 4_u32)
        .text("nexthop", nexthop)
        .text("encoding", "")
        .number("smtputf8", 0_u32)
        .text("sender", "a@example.org")
        .text("envelope_id", "")
        .number("ret_flags", 0_u32)
        .text("time", no_time);
    for name in names.iter().map(String::as_str).chain(["log_protocol_name", "log_helo_name", "log_ident"]) {
        list = list.text(name, "");
    }
    let count = u32::try_from(recipients.len()).unwrap();
    let mut octets = list.text("rewrite_context", "local").number("recipient_count", count).end();
    for recipient in recipients {
        let list = Writer::new().text("original_recipient", "").text("recipient", recipient);
        octets.extend(list.long("offset", -1).text("dsn_orig_rcpt", "").number("notify_flags", 0_u32).end());
    }
    octets
}

/// What the last attribute of the answer says; `None`: the connection was closed without one.
#[track_caller]
fn answer(mut caller: UnixStream) -> Option<i32> {
    let mut octets = Vec::new();
    caller.read_to_end(&mut octets).unwrap();
    let announcement = crate::postfix::request::announcement(Release { major: 3, minor: 7 });
    let (list, _) = List::parse(octets.strip_prefix(&announcement[..]).unwrap()).unwrap()?;
    Some(list.last_int("status").unwrap())
}

#[test]
fn threads_that_panic_lose_nobody() {
    let bench = Bench::new();
    for (recipients, expected) in [
        (&["a@example.org"][..], DONE),
        // Before anything is known of anybody.
        (&["early@test.invalid"], KEPT),
        (&["a@example.org", "b@example.org"], DONE),
        // In the middle of a recipient, who is the only one, or the first or the last to be settled.
        (&["between@test.invalid"], KEPT),
        (&["between@test.invalid", "a@example.org"], KEPT),
        (&["a@example.org", "between@test.invalid"], KEPT),
        // When all is said but the answer: the one who was deferred stays deferred.
        (&["late@test.invalid"], KEPT),
        (&["a@example.org", "late@test.invalid"], KEPT),
        // It is answered, and the worker is gone.
        (&["after@test.invalid"], DONE),
        (&["no@example.org", "after@test.invalid"], KEPT),
        (&["a@example.org"], DONE),
    ] {
        assert_eq!(bench.answer("3C0A1", recipients), expected, "{recipients:?}");
    }
    // Without its clerk the service ends, after what is under way.
    let slow = bench.begin("3C0A2", "unix:private/lmtp", &["slow@example.org"]);
    let unsettled = bench.begin("3C0A3", "unix:", &["clerk@test.invalid"]);
    assert_eq!(answer(slow), DONE);
    assert_eq!(answer(unsettled), None);
    let ended = bench.master.join().unwrap();
    assert_eq!(ended.unwrap_err().to_string(), "a thread has failed");
    let late = UnixStream::connect(bench.directory.path().join("private/lastmile"));
    assert!(late.is_err(), "nobody listens any more");
}
