//! The engine, from the queue to the server and back: retries, notices, marks, limits, odd files, privileges, the log.
//!
//! - Owns: a server of ours for each test, mail for it, looks into the queue's files.
//! - Leaves to others: crashes and signals (`agent`), odd conversations (dialogues), texts of notices (`notice`).
//! - Always true: each test has an agent, a queue and servers of its own, and waits for what it sees, with a limit.

mod bounces;
mod concurrency;
mod files;
mod headers;
mod keys;
mod log;
mod marks;
mod notices;
mod peer;
mod pressure;
mod privileges;
mod resting;
mod retries;
mod shortage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lastmile::mail::Address;
use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store, maildir_name};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::agent::{Agent, SOON, Site};
use crate::common::mailbox;
use crate::common::process::wait_for;

/// Retries within seconds, so that tests can wait for them.
const HURRY: &str = "minimal_backoff_time = 1\nmaximal_backoff_time = 1\nqueue_run_delay = 1\n";

/// Our own sink, in this process. It stops when this is dropped.
struct Server {
    _handle: Handle,
    socket: PathBuf,
    maildirs: PathBuf,
}

impl Server {
    fn start(site: &Site, name: &str, script: &str) -> Self {
        Self::start_with(site, name, script, |_| {})
    }

    fn start_with(site: &Site, name: &str, script: &str, change: impl FnOnce(&mut SinkConfig)) -> Self {
        let socket = site.path().join(format!("{name}.sock"));
        let maildirs = site.path().join(name);
        let mut config = SinkConfig {
            store: Store::Maildir(maildirs.clone()),
            script: Script::parse(script).unwrap(),
            ..SinkConfig::new(Listen::Unix(socket.clone()))
        };
        change(&mut config);
        Self { _handle: Sink::start(config).unwrap(), socket, maildirs }
    }

    /// What has arrived for an address.
    fn mail_of(&self, address: &str) -> Vec<String> {
        let address: Address = address.parse().unwrap();
        let messages = mailbox::messages(&self.maildirs.join(maildir_name(&address)));
        messages.iter().map(|message| String::from_utf8_lossy(message).replace("\r\n", "\n")).collect()
    }

    /// The only message that has arrived for an address, once it has.
    #[track_caller]
    fn only_mail_of(&self, address: &str) -> String {
        let found = wait_for(&format!("mail for {address}"), SOON, || {
            Some(self.mail_of(address)).filter(|messages| !messages.is_empty())
        });
        assert_eq!(found.len(), 1, "{address} got {found:#?}");
        found.into_iter().next().unwrap()
    }

    /// Leads all mail here; more top-level keys follow.
    fn serves(&self, site: &Site, keys: &str) {
        site.configure(&to_socket(&self.socket, keys));
    }
}

/// The configuration that leads all mail to a socket; more top-level keys follow.
fn to_socket(socket: &Path, keys: &str) -> String {
    format!("default_transport = \"lmtp:unix:{}\"\n{keys}", socket.display())
}

fn message(subject: &str) -> Vec<u8> {
    format!("From: a@example.org\nSubject: {subject}\n\ntext of {subject}\n").into_bytes()
}

/// Queues a message from a@example.org.
#[track_caller]
fn submit(site: &Site, subject: &str, recipients: &[&str]) {
    site.sendmail(&[&["-i", "-f", "a@example.org"], recipients].concat(), &message(subject));
}

/// Queues a message by a bare file and its job line, which has everything but `queue_file`.
fn submit_job(site: &Site, subject: &str, mut job: Value) {
    let path = site.drop_message(subject, &message(subject));
    job["queue_file"] = json!(path);
    site.write_job(&job);
}

/// A queue file as anybody could write it with an editor.
struct QueueFile<'a> {
    id: &'a str,
    head: Value,
    states: &'a str,
    recipients: &'a [Value],
    content: &'a str,
}

impl QueueFile<'_> {
    /// Puts it into a directory of the queue.
    fn write(&self, site: &Site, place: &str) -> PathBuf {
        let mut head = json!({
            "id": self.id, "sender": "a@example.org", "arrival": "2026-11-21T19:30:00Z",
            "recipients": self.recipients.len(), "nexthop": null, "body": "7BIT", "smtputf8": false,
            "envid": null, "ret": null, "origin": "uid=0", "size": self.content.len(),
        });
        for (member, value) in self.head.as_object().into_iter().flatten() {
            head[member] = value.clone();
        }
        let recipients: String = self.recipients.iter().map(|recipient| format!("{recipient}\n")).collect();
        let text = format!("lastmile/1\n{head}\n{}\n{recipients}\n{}", self.states, self.content);
        // Beside the queue first, so that nobody sees half of it.
        let (unfinished, path) = (site.path().join(self.id), site.queue().join(place).join(self.id));
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, &path).unwrap();
        path
    }
}

/// An ID that sorts where it is told to.
fn id(number: u32) -> String {
    format!("0LATEM1NUTE{number:09}")
}

/// The line of states of a queue file, while there is one.
fn states(path: &Path) -> Option<String> {
    let text = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(text.split(|&octet| octet == b'\n').nth(2)?).into_owned())
}

/// Mounts made by this thread and its children are nobody else's from now on, and end with them; `false`, and a word
/// about it, where that is not possible.
fn mounts_of_our_own() -> bool {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of file descriptors, which stay shared here"
    )]
    let unshared = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS);
    let private = || std::process::Command::new("mount").args(["--make-rprivate", "/"]).output();
    let is_possible = unshared.is_ok() && private().is_ok_and(|output| output.status.success());
    if !is_possible {
        eprintln!("skipped: a mount namespace of one's own is not possible here");
    }
    is_possible
}

/// The messages in a directory of the queue: without the logs of replies that lie beside them.
fn messages_in(site: &Site, place: &str) -> Vec<PathBuf> {
    let is_message = |file: &String| file.starts_with(&format!("{place}/")) && !file.contains('.');
    site.files().into_iter().filter(is_message).map(|file| site.queue().join(file)).collect()
}

/// The only message in a directory of the queue, once there is one.
#[track_caller]
fn only_message_in(site: &Site, place: &str) -> PathBuf {
    let look = || messages_in(site, place).into_iter().next();
    match crate::common::process::look_for(SOON, look) {
        Some(path) => path,
        None => panic!("nothing came into {place}/; there is {:?}\n{}", site.files(), site.log()),
    }
}

/// Waits until nothing is left in the queue.
#[track_caller]
fn wait_until_nothing_is_left(site: &Site, limit: Duration) {
    let look = || site.files().is_empty().then_some(());
    if crate::common::process::look_for(limit, look).is_none() {
        panic!("the queue is not empty: {:?}\n{}", site.files(), site.log());
    }
}

/// Sets when a file was last changed: in `deferred/`, when its message is tried next.
fn set_modified(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// The agent's status line, asked for now: messages and recipients in memory.
#[track_caller]
fn in_memory(site: &Site, agent: &Agent) -> (usize, usize) {
    let before = site.lines_with(&["status: ", "recipients in memory"]).len();
    agent.signal(Signal::USR1);
    let lines = site.wait_for_lines(before + 1, &["status: ", "recipients in memory"], SOON);
    let line = lines.last().unwrap();
    let words: Vec<_> = line.split("status: ").nth(1).unwrap().split(' ').collect();
    // "3 messages with 7 of at most 50 recipients in memory, …"
    (words[0].parse().unwrap(), words[3].parse().unwrap())
}
