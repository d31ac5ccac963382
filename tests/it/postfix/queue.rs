//! A qmgr(8) in a test, and the daemons beside it: they say what the real ones cannot be brought to say.
//!
//! - Owns: queue files, delivery requests and their answers, daemons that hear of outcomes.
//! - Leaves to others: the process (`master`), mail servers (our sink), what is expected.
//! - Always true: octets are put together here by hand, so that no mistake of the program is shared.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::master::{Master, Running};
use crate::common::agent::SOON;
use crate::common::mailbox;
use crate::common::process::{look_for, wait_for};

/// What an agent says first.
const ANNOUNCEMENT: &str = "protocol~delivery_request_protocol~~";
/// The answer to a request of which nobody is left.
pub const DONE: &str = "status~~diag_type~~diag_text~~mta_type~~mta_mname~~action~~reason~~status~0~~";
/// The answer to one whose message is to be kept, while nothing is wrong with the destination.
pub const KEPT: &str =
    "status~~diag_type~~diag_text~~mta_type~~mta_mname~~action~~reason~~status~4294967295~~";
/// 88 zero octets in base64: no time is known.
fn no_time() -> String {
    format!("{:A<118}==", "")
}
/// The sink's socket, as a next hop.
pub const SERVER: &str = "unix:private/lmtp";
/// How the log has that server.
pub const RELAY: &str = "relay=mx.example.org[private/lmtp]";

/// The same with a destination that is to be spared.
pub fn kept_and_spared(status: &str, reason: &str) -> String {
    format!(
        "status~{status}~diag_type~~diag_text~~mta_type~~mta_mname~~action~~reason~{reason}~status~4294967295~~"
    )
}

/// With `~` for NUL.
fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).replace('\0', "~")
}

/// A service with its queue and the daemons that it reports to.
pub struct Site {
    pub running: Running,
    pub bounce: Daemon,
    pub defer: Daemon,
    pub trace: Daemon,
    pub verify: Daemon,
    pub master: Master,
}

impl Site {
    #[track_caller]
    pub fn start(main_cf: &str) -> Self {
        Self::start_with(main_cf, &[])
    }

    #[track_caller]
    pub fn start_with(main_cf: &str, arguments: &[&str]) -> Self {
        let mut master = Master::with(&format!("lastmile_workers = 8\n{main_cf}"));
        let daemon = |name, protocol| Daemon::start(&master.queue().join("private").join(name), protocol);
        let [bounce, defer, trace] =
            ["bounce", "defer", "trace"].map(|name| daemon(name, "delivery_status_protocol"));
        let verify = daemon("verify", "address_verification_prrotocol");
        let running = master.start(arguments);
        Self { running, bounce, defer, trace, verify, master }
    }

    /// Starts our sink where [`SERVER`] is.
    #[track_caller]
    pub fn serve(&self, script: &str) -> Handle {
        self.serve_with(script, |_| {})
    }

    #[track_caller]
    pub fn serve_with(&self, script: &str, change: impl FnOnce(&mut SinkConfig)) -> Handle {
        let mut config = SinkConfig {
            store: Store::Maildir(self.master.program("mail")),
            script: Script::parse(script).unwrap(),
            ..SinkConfig::new(Listen::Unix(self.master.queue().join("private/lmtp")))
        };
        change(&mut config);
        Sink::start(config).unwrap()
    }

    /// What the sink has stored for an address.
    pub fn mail_of(&self, address: &str) -> Vec<Vec<u8>> {
        mailbox::messages(&self.master.program("mail").join(address))
    }

    /// Puts a message into the active queue.
    pub fn queue(&self, id: &str, recipients: &[&str]) -> Message {
        Message::write(&self.master.queue().join("active").join(id), id, recipients)
    }

    /// Asks for a delivery to the sink and waits for the answer.
    #[track_caller]
    pub fn deliver(&self, message: &Message) -> String {
        self.ask(message, &Wish::default())
    }

    #[track_caller]
    pub fn ask(&self, message: &Message, wish: &Wish<'_>) -> String {
        let mut caller = Caller::connect(&self.master);
        caller.say(&message.request(wish));
        caller.answer()
    }

    /// The line of a recipient.
    #[track_caller]
    pub fn line_of(&mut self, message: &Message, recipient: &str) -> String {
        self.master.wait_for_line(&[&format!(": {}: to=<{recipient}>, ", message.id)])
    }

    /// Whether there is no line yet that holds all of `parts`.
    pub fn has_line(&mut self, parts: &[&str]) -> bool {
        self.master.log().lines().any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

/// What qmgr wants beside the message.
pub struct Wish<'a> {
    pub flags: u32,
    pub nexthop: &'a str,
    pub sender: &'a [u8],
    pub notify: u32,
    pub original: &'a str,
    /// Whether recipients have records.
    pub has_records: bool,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self {
            flags: 3,
            nexthop: SERVER,
            sender: b"sender@example.org",
            notify: 0,
            original: "",
            has_records: true,
        }
    }
}

/// A message in the queue.
pub struct Message {
    pub id: String,
    pub path: PathBuf,
    content: u64,
    /// Each with the place of its record.
    pub recipients: Vec<(Vec<u8>, u64)>,
}

/// The content of messages, as it is on the wire.
pub const CONTENT: &str = "From: sender@example.org\r\nSubject: test\r\n\r\n.body\r\n";

impl Message {
    fn write(path: &Path, id: &str, recipients: &[&str]) -> Self {
        let octets: Vec<_> = recipients.iter().map(|recipient| recipient.as_bytes()).collect();
        Self::write_octets(path, id, &octets)
    }

    /// A message whose recipients may have any octets.
    pub fn write_octets(path: &Path, id: &str, recipients: &[&[u8]]) -> Self {
        let mut file = Vec::new();
        record(&mut file, b'C', &[b' '; 95]);
        record(&mut file, b'T', b"1700000000 0");
        record(&mut file, b'S', b"sender@example.org");
        let mut written = Vec::new();
        for address in recipients {
            written.push((address.to_vec(), file.len() as u64));
            record(&mut file, b'R', address);
        }
        record(&mut file, b'M', b"");
        let content = file.len() as u64;
        for line in CONTENT.split_terminator("\r\n") {
            record(&mut file, b'N', line.as_bytes());
        }
        record(&mut file, b'X', b"");
        record(&mut file, b'E', b"");
        fs::write(path, file).unwrap();
        let message = Self { id: id.to_owned(), path: path.to_owned(), content, recipients: written };
        message.set_mode(0o700);
        message
    }

    pub fn set_mode(&self, mode: u32) {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn mode(&self) -> u32 {
        fs::metadata(&self.path).unwrap().permissions().mode() & 0o777
    }

    /// Puts something in the place of the first content record that no record begins with.
    pub fn damage(&self) {
        File::options().write(true).open(&self.path).unwrap().write_all_at(b"?", self.content).unwrap();
    }

    /// The types of the recipients' records, in order.
    pub fn records(&self) -> String {
        let file = fs::read(&self.path).unwrap();
        self.recipients.iter().map(|(_, at)| char::from(file[usize::try_from(*at).unwrap()])).collect()
    }

    /// Waits until the records are these.
    #[track_caller]
    pub fn wait_for_records(&self, records: &str) {
        let found = look_for(SOON, || (self.records() == records).then_some(()));
        assert!(found.is_some(), "{} and not {records}", self.records());
    }

    /// The request to deliver it to all of its recipients.
    pub fn request(&self, wish: &Wish<'_>) -> Vec<u8> {
        self.request_for(wish, 0..self.recipients.len())
    }

    pub fn request_for(&self, wish: &Wish<'_>, range: std::ops::Range<usize>) -> Vec<u8> {
        let recipients = &self.recipients[range];
        let mut list = List::default();
        list.number("flags", wish.flags.into()).text("queue_name", "active").text("queue_id", &self.id);
        list.number("offset", self.content).number("size", CONTENT.len() as u64);
        list.text("nexthop", wish.nexthop).text("encoding", "").number("smtputf8", 0);
        list.octets("sender", wish.sender).text("envelope_id", "").number("ret_flags", 0);
        list.text("time", &no_time());
        for name in [
            "log_client_name",
            "log_client_address",
            "log_client_port",
            "log_protocol_name",
            "log_helo_name",
            "sasl_method",
            "sasl_username",
            "sasl_sender",
            "log_ident",
        ] {
            list.text(name, "");
        }
        list.text("rewrite_context", "local").number("recipient_count", recipients.len() as u64).end();
        for (address, offset) in recipients {
            let offset = if wish.has_records { *offset } else { u64::MAX };
            list.text("original_recipient", wish.original).octets("recipient", address);
            list.number("offset", offset).text("dsn_orig_rcpt", "");
            list.number("notify_flags", wish.notify.into()).end();
        }
        list.0
    }
}

fn record(file: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    file.push(kind);
    let mut length = payload.len();
    while length > 127 {
        file.push(u8::try_from(length & 127).unwrap() | 128);
        length >>= 7;
    }
    file.push(u8::try_from(length).unwrap());
    file.extend_from_slice(payload);
}

/// Attribute lists.
#[derive(Default)]
struct List(Vec<u8>);

impl List {
    fn octets(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&[name.as_bytes(), b"\0", value, b"\0"].concat());
        self
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.octets(name, value.as_bytes())
    }

    fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.text(name, &value.to_string())
    }

    fn end(&mut self) {
        self.0.push(0);
    }
}

/// A connection of qmgr.
pub struct Caller(UnixStream);

impl Caller {
    /// Connects, and hears the announcement.
    #[track_caller]
    pub fn connect(master: &Master) -> Self {
        let mut caller = Self::begin(master);
        caller.hear_announcement(ANNOUNCEMENT);
        caller
    }

    /// Connects.
    pub fn begin(master: &Master) -> Self {
        Self::over(master.connect())
    }

    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self(stream)
    }

    #[track_caller]
    pub fn hear_announcement(&mut self, announcement: &str) {
        let mut octets = vec![0; announcement.len()];
        self.0.read_exact(&mut octets).unwrap();
        assert_eq!(shown(&octets), announcement);
    }

    /// Whether something has been said to us, or somebody has hung up.
    pub fn is_answered(&self) -> bool {
        let mut set = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).unwrap() > 0
    }

    #[track_caller]
    pub fn say(&mut self, octets: &[u8]) {
        self.0.write_all(octets).unwrap();
    }

    /// The answer, up to the end.
    #[track_caller]
    pub fn answer(mut self) -> String {
        let mut octets = Vec::new();
        // Who hangs up on what it has not read resets the connection, behind its answer.
        let ended = self.0.read_to_end(&mut octets);
        assert!(
            ended.as_ref().err().is_none_or(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
            "{ended:?}"
        );
        shown(&octets)
    }

    /// Says that nothing more comes, and goes on listening.
    pub fn end(&self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

/// A daemon that hears of outcomes.
pub struct Daemon(Arc<Shared>);

struct Shared {
    heard: Mutex<Vec<String>>,
    status: AtomicI32,
    holds: AtomicBool,
    is_over: AtomicBool,
    path: PathBuf,
    protocol: &'static str,
}

impl Daemon {
    fn start(path: &Path, protocol: &'static str) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::new(Shared {
            heard: Mutex::default(),
            status: AtomicI32::new(0),
            holds: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            path: path.to_owned(),
            protocol,
        });
        let daemon = Self(Arc::clone(&shared));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // Whoever hangs up is no concern of this.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        daemon
    }

    /// What it has heard, with `~` for NUL.
    pub fn heard(&self) -> Vec<String> {
        self.0.heard.lock().unwrap().clone()
    }

    /// Waits until it has heard of so many.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        let what = format!("{count} reports in {}", self.0.path.display());
        wait_for(&what, SOON, || (self.heard().len() >= count).then_some(()));
    }

    /// From now on it says no.
    pub fn refuse(&self) {
        self.0.status.store(-1, Ordering::SeqCst);
    }

    /// From now on it hears and does not answer.
    pub fn hold(&self) {
        self.0.holds.store(true, Ordering::SeqCst);
    }

    /// It answers again, also what it was asked before.
    pub fn release(&self) {
        self.0.holds.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut list = List::default();
        list.text("protocol", self.protocol).end();
        stream.write_all(&list.0)?;
        let mut octets = Vec::new();
        while !is_whole(&octets) {
            let mut some = [0; 4096];
            match stream.read(&mut some)? {
                0 => return Ok(()),
                length => octets.extend_from_slice(&some[..length]),
            }
        }
        self.heard.lock().unwrap().push(shown(&octets));
        look_for(SOON, || (!self.holds.load(Ordering::SeqCst)).then_some(()));
        let mut list = List::default();
        let status = self.status.load(Ordering::SeqCst).cast_unsigned();
        list.number("status", status.into()).end();
        stream.write_all(&list.0)
    }
}

/// Whether a list ends here: with a name that is empty, and not with a value.
fn is_whole(octets: &[u8]) -> bool {
    let parts: Vec<_> = octets.split_inclusive(|octet| *octet == 0).collect();
    parts.iter().step_by(2).any(|name| *name == b"\0")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        self.release();
        // Wakes it; where that fails it has ended.
        let _ = UnixStream::connect(&self.0.path);
    }
}

/// Whether somebody has a lock on a file that would be in the way of qmgr.
pub fn is_locked(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}

/// A while in which nothing is to happen.
pub fn a_while() {
    thread::sleep(Duration::from_millis(100));
}
