//! Many writers at one FIFO, and a FIFO that is full.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::servers::Server;
use super::{LogTail, Writer, drop_file, outcome, wait_for_each_once};
use crate::common::agent::{SOON, Site};
use crate::common::long::short_or_long;
use crate::common::process::wait_for;

const WRITERS: usize = 50;
/// Octets of a job line, without the LF before it and behind it.
const LINE_LENGTH_MAX: usize = 4094;

/// A job line of exactly `length` octets, or a little less than that, and to whom it is.
fn job_of_length(name: &str, length: usize) -> (Value, Vec<String>) {
    let job = |to: &[String]| json!({"queue_file": format!("incoming/{name}"), "sender": "a@example.org", "recipients": to});
    let mut to = vec![format!("{name}-0@example.org")];
    while job(&to).to_string().len() + 76 < length {
        to.push(format!("{name}-{}-{}@example.org", to.len(), "x".repeat(to.len() % 20)));
    }
    // The last one fills the line up; a local part has 64 octets at most.
    let missing = length.saturating_sub(job(&to).to_string().len());
    if let Some(padding) = missing.checked_sub(format!(",\"{name}-last-@example.org\"").len()) {
        to.push(format!("{name}-last-{}@example.org", "y".repeat(padding.min(64 - name.len() - 6))));
    }
    (job(&to), to)
}

#[test]
fn lines_of_fifty_writers_do_not_mix() {
    let lines = short_or_long(4, 200);
    let site = Site::in_memory("");
    let server = Server::start(&site, "mail", "");
    site.configure(&format!("default_transport = \"lmtp:{}\"\n", server.nexthop()));
    let agent = site.start_agent();
    // The agent does not read until every writer has been refused once.
    agent.signal(Signal::STOP);
    let (waiting, longest) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let write_all = |number: usize| {
        let mut writer = Writer::open(&site);
        let (mut expected, mut was_refused) = (Vec::new(), false);
        for line in 0..lines {
            let name = format!("w{number}-{line}");
            drop_file(&site, &name, format!("Subject: {name}\n\ntext\n").as_bytes());
            let length =
                if line % 4 == 0 { LINE_LENGTH_MAX } else { 100 + (number * 37 + line * 501) % 1500 };
            let (job, to) = job_of_length(&name, length);
            let text = job.to_string();
            longest.fetch_max(text.len(), Ordering::Relaxed);
            expected.extend(to);
            wait_for("room in the FIFO", 10 * SOON, || {
                let written = writer.try_write(&text);
                if !written && !std::mem::replace(&mut was_refused, true) {
                    waiting.fetch_add(1, Ordering::Relaxed);
                }
                written.then_some(())
            });
        }
        expected
    };
    let expected = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(move || write_all(number))).collect();
        // Some writers are through with a short run before the pipe is full.
        wait_for("a full FIFO", SOON, || (waiting.load(Ordering::Relaxed) > WRITERS / 2).then_some(()));
        agent.signal(Signal::CONT);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    let count = expected.len();
    assert_eq!(expected.iter().collect::<HashSet<_>>().len(), count);
    assert_eq!(longest.into_inner(), LINE_LENGTH_MAX, "lines as long as may be");
    wait_for_each_once(&site, &mut LogTail::new(), "sent", expected, short_or_long(2 * SOON, 20 * SOON));
    assert_eq!(server.deliveries(), count as u64, "each exactly once");
    assert_eq!(site.lines_with(&["job line"]), [""; 0], "no line was spoilt");
    println!("{} lines, {count} recipients", WRITERS * lines);
    site.wait_until_empty(SOON);
    agent.stop();
}

#[test]
fn what_found_no_room_in_the_fifo_stays_until_its_writer_tries_again() {
    let site = Site::in_memory("");
    let server = Server::start(&site, "mail", "");
    site.configure(&format!("default_transport = \"lmtp:{}\"\n", server.nexthop()));
    let agent = site.start_agent();
    agent.signal(Signal::STOP);
    let mut writer = Writer::open(&site);
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let name = format!("m{number}");
        drop_file(&site, &name, b"Subject: one\n\ntext\n");
        let (job, to) = job_of_length(&name, 3000);
        let taken = writer.try_write(&job.to_string());
        if taken { written.extend(to) } else { refused.push((name, job, to)) }
    }
    assert!(!written.is_empty() && refused.len() > 10, "a pipe holds 64 KiB");
    agent.signal(Signal::CONT);
    let mut tail = LogTail::new();
    wait_for_each_once(&site, &mut tail, "sent", written, SOON);
    let names: HashSet<_> = refused.iter().map(|(name, ..)| format!("incoming/{name}")).collect();
    wait_for("nothing but what has no line", SOON, || {
        (site.files().into_iter().collect::<HashSet<_>>() == names).then_some(())
    });
    // Nobody guesses to whom they are.
    thread::sleep(Duration::from_millis(300));
    assert!(tail.more(&site).iter().all(|line| outcome(line).is_none()));
    assert_eq!(site.queued().len(), refused.len(), "the list shows them");
    let mut expected = Vec::new();
    for (_, job, to) in refused {
        writer.write(&job, SOON);
        expected.extend(to);
    }
    wait_for_each_once(&site, &mut tail, "sent", expected, SOON);
    site.wait_until_empty(SOON);
    agent.stop();
}
