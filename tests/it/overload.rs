//! Too much of everything at once: writers, files, recipients, servers that do not answer.
//!
//! - Owns: rates beside rates, memory and descriptors of an agent under load, delays of small mail beside large.
//! - Leaves to others: the scheduler's rules by themselves (unit tests), single limits (`engine`).
//! - Always true: ratios within one run, since machines differ; servers think for longer than anybody computes, so
//!   that rates are made of places and waiting, not of this machine's speed.

mod backlog;
mod lists;
mod rates;
mod servers;
mod trouble;
mod writers;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::{Value, json};

use crate::common::agent::Site;
use crate::common::process::look_for;

/// Reads the agent's log as it grows, each line once.
struct LogTail {
    file: Option<File>,
    unfinished: Vec<u8>,
}

impl LogTail {
    const fn new() -> Self {
        Self { file: None, unfinished: Vec::new() }
    }

    /// The lines that were finished since the last call.
    fn more(&mut self, site: &Site) -> Vec<String> {
        if self.file.is_none() {
            self.file = File::open(site.path().join("agent.log")).ok();
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.unfinished).unwrap();
        }
        let end = self.unfinished.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
        let finished: Vec<u8> = self.unfinished.drain(..end).collect();
        String::from_utf8_lossy(&finished).lines().map(str::to_owned).collect()
    }
}

/// Whose line this is, if it tells an outcome: the address and the word after `status=`.
fn outcome(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(": to=<")?;
    let (address, rest) = rest.split_once('>')?;
    let (_, status) = rest.split_once("status=")?;
    Some((address, status.split(' ').next()?))
}

/// The seconds after `delay=` of a line that tells an outcome.
fn logged_delay(line: &str) -> Option<f64> {
    line.split_once(", delay=")?.1.split(',').next()?.parse().ok()
}

/// Collects outcomes of one kind until there are `count` of them, one for each address; fails on a second one.
#[track_caller]
fn wait_for_each_once(site: &Site, tail: &mut LogTail, word: &str, expected: Vec<String>, limit: Duration) {
    let mut open: std::collections::HashSet<String> = expected.into_iter().collect();
    let mut seen = std::collections::HashSet::new();
    let until = Instant::now() + limit;
    while !open.is_empty() {
        for line in tail.more(site) {
            let Some((address, _)) = outcome(&line).filter(|(_, status)| *status == word) else { continue };
            open.remove(address);
            assert!(seen.insert(address.to_owned()), "{address} a second time: {line}");
        }
        let first = open.iter().next();
        assert!(Instant::now() < until, "{} have no line with status={word}, as {first:?}", open.len());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The middle one, and the one that a twentieth exceeds.
fn median_and_95th(mut values: Vec<f64>) -> (f64, f64) {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() * 95 / 100])
}

/// A queue file as anybody may drop it, with a nexthop if need be.
fn queue_file(nexthop: Option<&str>, recipients: &[String], subject: &str) -> Vec<u8> {
    let content = format!("From: a@example.org\r\nSubject: {subject}\r\n\r\ntext\r\n");
    let head = json!({
        "id": "0LATEM1NUTE000000000", "sender": "a@example.org", "arrival": "2026-11-21T19:30:00Z",
        "recipients": recipients.len(), "nexthop": nexthop, "body": "7BIT", "smtputf8": false,
        "envid": null, "ret": null, "origin": "uid=0", "size": content.len(),
    });
    let mut file = format!("lastmile/1\n{head}\n-{}\n", "P".repeat(recipients.len()));
    for recipient in recipients {
        file.push_str(&format!("{}\n", json!({ "address": recipient })));
    }
    file.push_str(&format!("\n{content}"));
    file.into_bytes()
}

/// Drops a file into `incoming/` under its final name, without waiting for the disk: nobody pulls the plug here.
fn drop_file(site: &Site, name: &str, octets: &[u8]) {
    let incoming = site.queue().join("incoming");
    let unfinished = incoming.join(format!(".{name}"));
    let mut file =
        File::options().write(true).create_new(true).mode(0o640).open(&unfinished).expect("a new name");
    file.write_all(octets).unwrap();
    fs::rename(unfinished, incoming.join(name)).unwrap();
}

/// A writer of job lines, as a program of its own would be one.
struct Writer {
    fifo: File,
    /// How often there was no room.
    refused: usize,
}

impl Writer {
    fn open(site: &Site) -> Self {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let path = site.queue().join("jobs");
        Self { fifo: File::options().write(true).custom_flags(nonblocking).open(path).unwrap(), refused: 0 }
    }

    /// Writes LF, object, LF with one write; `false` if there is no room. A pipe takes up to 4096 octets whole or not
    /// at all.
    fn try_write(&mut self, line: &str) -> bool {
        assert!(line.len() + 2 <= 4096, "a line of {} octets may be torn", line.len());
        match self.fifo.write(format!("\n{line}\n").as_bytes()) {
            Ok(written) => {
                assert_eq!(written, line.len() + 2, "the line was torn");
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.refused += 1;
                false
            }
            Err(error) => panic!("cannot write to the FIFO: {error}"),
        }
    }

    #[track_caller]
    fn write(&mut self, line: &Value, limit: Duration) {
        let line = line.to_string();
        let written = look_for(limit, || self.try_write(&line).then_some(()));
        assert!(written.is_some(), "no room in the FIFO for {limit:?}");
    }
}

/// The process ID of the agent that has the queue.
fn pid_of_agent(site: &Site) -> Pid {
    let pid = fs::read_to_string(site.queue().join("agent.lock")).unwrap();
    Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

/// What the agent uses.
#[derive(Clone, Copy, Debug)]
struct Use {
    /// KiB in memory at most so far.
    peak: u64,
    /// Open descriptors.
    descriptors: usize,
    /// Ticks of 10 ms that its threads have run.
    ticks: u64,
}

fn used_by_agent(site: &Site) -> Use {
    let process = format!("/proc/{}", pid_of_agent(site).as_raw_nonzero());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
    // The second field, in parentheses, is the only one that may hold blanks.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    Use {
        peak: peak.trim().trim_end_matches(" kB").parse().unwrap(),
        descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count(),
        ticks: fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(),
    }
}
