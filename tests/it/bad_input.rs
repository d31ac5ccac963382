//! Files and lines that are wrong: what is logged, and where the message stands afterwards.
//!
//! - Owns: job lines, dropped files, queue files, each broken in one way; a disk that is full.
//! - Leaves to others: parsers by themselves (`parsers`, unit tests).
//! - Always true: nothing is deleted unread.

mod administration;
mod directories;
mod dropped;
mod flips;
mod job_lines;
mod limits;
mod queue_files;
mod reply_logs;
mod room;
mod server;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::agent::{Agent, SOON, Site};
use crate::common::process::look_for;
use server::Server;

/// Retries within seconds, so that tests can wait for them.
const HURRY: &str = "minimal_backoff_time = 1\nmaximal_backoff_time = 1\nqueue_run_delay = 1\n";
/// How long an agent is watched that ought to do nothing.
const WATCHED: Duration = Duration::from_secs(1);
/// What it may compute in that time. One that goes round in circles takes all of it.
const COMPUTED_MAX: Duration = Duration::from_millis(200);

/// A site whose mail goes to a server that keeps what it gets, and a queue that is there already.
fn prepared(keys: &str) -> (Site, Server) {
    let site = Site::new("");
    let server = Server::start(&site);
    site.configure(&format!("{}{keys}", server.as_default()));
    site.start_agent().stop();
    (site, server)
}

fn message(subject: &str) -> String {
    format!("From: a@example.org\nSubject: {subject}\n\ntext of {subject}\n")
}

/// Queues a message from a@example.org.
#[track_caller]
fn submit(site: &Site, subject: &str, recipients: &[&str]) {
    site.sendmail(&[&["-i", "-f", "a@example.org"], recipients].concat(), message(subject).as_bytes());
}

/// A queue ID of our own.
fn id(number: usize) -> String {
    format!("0LATEM1NUTE{number:09}")
}

/// A queue file as it should be, for one or more recipients.
fn queue_file(id: &str, recipients: &[&str], content: &str) -> String {
    let head = json!({
        "id": id, "sender": "a@example.org", "arrival": "2026-11-21T19:30:00Z", "recipients": recipients.len(),
        "nexthop": null, "body": "7BIT", "smtputf8": false, "envid": null, "ret": null, "origin": "uid=0",
        "size": content.len(),
    });
    let states = "P".repeat(recipients.len());
    let lines: String = recipients.iter().map(|to| format!("{}\n", json!({ "address": to }))).collect();
    format!("lastmile/1\n{head}\n-{states}\n{lines}\n{content}")
}

/// Puts a file where it may be seen at once: whole, or not at all.
fn put(site: &Site, path: &str, octets: impl AsRef<[u8]>) -> PathBuf {
    let (unfinished, path) = (site.path().join("unfinished"), site.queue().join(path));
    fs::write(&unfinished, octets).unwrap();
    fs::rename(unfinished, &path).unwrap();
    path
}

/// Files in one directory of the queue.
fn files_in(site: &Site, place: &str) -> Vec<PathBuf> {
    let within = format!("{place}/");
    site.files().iter().filter(|file| file.starts_with(&within)).map(|file| site.queue().join(file)).collect()
}

/// Waits until the queue holds these files and no others.
#[track_caller]
fn wait_for_files(site: &Site, expected: &[&str]) {
    if look_for(SOON, || (site.files() == expected).then_some(())).is_none() {
        panic!("expected {expected:?}, there is {:?}\n{}", site.files(), site.log());
    }
}

/// A job line for a bare file.
fn job(name: &str, recipient: &str) -> Value {
    json!({"queue_file": format!("incoming/{name}"), "sender": "a@example.org", "recipients": [recipient]})
}

/// Mail that comes after something bad shows that the agent has dealt with that and goes on.
#[track_caller]
fn assert_still_delivers(site: &Site, server: &Server) {
    let recipient = format!("after{}@example.org", server.count());
    submit(site, "after it", &[&recipient]);
    server.wait_for_mail_of(site, &recipient, 1);
}

/// Fails if the agent computes without having anything to do.
#[track_caller]
fn assert_rests(site: &Site, agent: &Agent) {
    let before = agent.cpu_time();
    std::thread::sleep(WATCHED);
    let computed = agent.cpu_time() - before;
    assert!(
        computed < COMPUTED_MAX,
        "{computed:?} of {WATCHED:?} computed with nothing to do:\n{}",
        site.log()
    );
}

/// Whether the test can be run; says so where it cannot.
fn is_root() -> bool {
    let is_root = rustix::process::getuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can do this");
    }
    is_root
}
