//! Queues full of mail, and agents that empty them.
//!
//! - Owns: the queue files, the agent's configuration, what is read from /proc about it.
//! - Leaves to others: the site and the process (`common`), the server.
//! - Always true: a run counts what has arrived at the server, not what the agent says.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lastmile::mail::QueueId;
use lastmile::sink::Handle;
use rustix::process::Signal;
use serde_json::json;

use crate::common::agent::{Agent, LASTMILE, Site};
use crate::common::process::{Process, look_for, wait_for};

/// Octets of each message's content.
pub const CONTENT_SIZE: usize = 2048;
/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(900);
/// Mailboxes that the mail is for.
const MAILBOXES: usize = 500;
/// When the first message was queued, in microseconds since 1970; each is queued a microsecond later.
const ARRIVAL: u64 = 1_795_300_000_000_000;

/// The content of every message.
pub fn content() -> Vec<u8> {
    let mut content = b"From: a@x.example\r\nSubject: throughput\r\n\r\n".to_vec();
    while content.len() < CONTENT_SIZE {
        let length = (CONTENT_SIZE - content.len()).min(72);
        content.extend(std::iter::repeat_n(b'x', length.saturating_sub(2)));
        content.extend(b"\r\n");
    }
    content.truncate(CONTENT_SIZE);
    content
}

/// One of the mailboxes.
pub fn address(number: usize) -> String {
    format!("user{}@x.example", number % MAILBOXES)
}

/// A queue, its configuration and a place for the server's socket.
pub struct Queue {
    site: Site,
}

/// What a run was like.
pub struct Run {
    /// Until everything had arrived.
    pub took: Duration,
    /// Until nothing was left in the queue.
    pub emptied: Duration,
    /// Of the agent, user and system together.
    pub cpu: Duration,
    /// The agent's largest resident set, in octets.
    pub peak_memory: u64,
    /// Most descriptors that were seen open.
    pub descriptors: usize,
}

impl Run {
    /// Deliveries a second.
    pub fn rate(&self, deliveries: usize) -> f64 {
        deliveries as f64 / self.took.as_secs_f64()
    }

    /// The same until the queue was empty.
    pub fn emptied_rate(&self, deliveries: usize) -> f64 {
        deliveries as f64 / self.emptied.as_secs_f64()
    }

    /// Microseconds of the agent's CPU for each.
    pub fn cpu_per_message(&self, deliveries: usize) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / deliveries as f64
    }
}

impl Queue {
    /// An empty queue for an agent with so many workers.
    pub fn new(workers: usize) -> Self {
        let site = Site::new("");
        let socket = site.path().join("server.sock");
        site.configure(&format!(
            "default_transport = \"lmtp:unix:{}\"\nworkers = {workers}\nworkers_reserved = 0",
            socket.display()
        ));
        // Its first start makes the directories.
        site.start_agent().stop();
        Self { site }
    }

    /// Where the server is to listen.
    pub fn socket(&self) -> PathBuf {
        self.site.path().join("server.sock")
    }

    fn active(&self) -> PathBuf {
        self.site.queue().join("active")
    }

    /// Puts messages into `active/`.
    pub fn fill(&self, messages: usize) {
        for number in 0..messages {
            self.put(number, &[address(number)]);
        }
        // What was written is on disk before the clock starts.
        rustix::fs::sync();
    }

    /// The files in `active/`.
    pub fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.active()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Removes what is left in `active/`.
    pub fn clear(&self) {
        self.files().into_iter().for_each(|file| fs::remove_file(file).unwrap());
    }

    /// Puts one message to many recipients into `active/`.
    pub fn put_list(&self, recipients: usize) {
        let recipients: Vec<_> = (0..recipients).map(|number| format!("list{number}@x.example")).collect();
        self.put(0, &recipients);
        rustix::fs::sync();
    }

    fn put(&self, number: usize, recipients: &[String]) {
        let id = QueueId::new(ARRIVAL + number as u64, number as u64).to_string();
        let head = json!({
            "id": id, "sender": "a@x.example", "arrival": "2026-11-21T19:30:00.123456Z",
            "recipients": recipients.len(), "nexthop": null, "body": "7BIT", "smtputf8": false,
            "envid": null, "ret": null, "origin": "uid=0", "size": CONTENT_SIZE,
        });
        let mut file = format!("lastmile/1\n{head}\n-{}\n", "P".repeat(recipients.len())).into_bytes();
        for recipient in recipients {
            file.extend(format!("{}\n", json!({"address": recipient})).into_bytes());
        }
        file.push(b'\n');
        file.extend(content());
        fs::write(self.active().join(id), file).unwrap();
    }

    /// Starts an agent and watches it until the queue is empty.
    pub fn run(&self, server: &Handle, deliveries: usize) -> Run {
        let goal = server.counts().deliveries + deliveries as u64;
        let start = Instant::now();
        let agent = self.site.start_agent();
        let process = PathBuf::from(format!("/proc/{}", agent.pid().as_raw_nonzero()));
        let mut descriptors = 0;
        wait_for("the last delivery", LIMIT, || {
            descriptors = descriptors.max(fs::read_dir(process.join("fd")).unwrap().count());
            (server.counts().deliveries >= goal).then_some(())
        });
        let took = start.elapsed();
        self.wait_until_empty(&agent);
        let emptied = start.elapsed();
        let peak_memory = peak_memory(&process);
        let run = Run { took, emptied, cpu: agent.cpu_time(), peak_memory, descriptors };
        agent.stop();
        assert_eq!(server.counts().deliveries, goal, "something was delivered twice");
        run
    }

    fn wait_until_empty(&self, agent: &Agent) {
        let is_empty = || fs::read_dir(self.active()).unwrap().next().is_none().then_some(());
        if look_for(LIMIT, is_empty).is_none() {
            panic!("the agent {:?} does not empty its queue:\n{}", agent.pid(), self.site.log());
        }
    }

    /// Instructions that an agent runs until the queue is empty and it has stopped.
    pub fn count_instructions(&self, server: &Handle, deliveries: usize) -> u64 {
        let goal = server.counts().deliveries + deliveries as u64;
        let counts = self.site.path().join("callgrind");
        let log = fs::File::create(self.site.path().join("agent.log")).unwrap();
        let mut command = crate::common::process::tied_to_this_thread("KILL", "valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
        command.args([LASTMILE, "agent", "-c"]).arg(self.site.config()).stderr(log);
        let mut agent = Process::start("the agent under valgrind", &mut command);
        wait_for("the last delivery", LIMIT, || {
            assert!(agent.ended().is_none(), "the agent has ended: {}", self.site.log());
            (server.counts().deliveries >= goal).then_some(())
        });
        let active = self.active();
        wait_for("an empty queue", LIMIT, || fs::read_dir(&active).unwrap().next().is_none().then_some(()));
        agent.signal(Signal::TERM);
        assert!(agent.wait(LIMIT).success());
        summary(&fs::read_to_string(&counts).unwrap())
    }
}

/// The total that callgrind writes at the end of its file.
fn summary(counts: &str) -> u64 {
    let totals = |line: &str| line.strip_prefix("totals: ")?.trim().parse().ok();
    counts.lines().rev().find_map(totals).expect("callgrind writes a line `totals: N`")
}

fn peak_memory(process: &Path) -> u64 {
    let status = fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
