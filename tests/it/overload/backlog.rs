//! Much mail on disk: what it costs in memory, descriptors and time of the processor, and how soon it is found.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getuid};

use super::servers::{NeverAccepting, SILENT, Server, closed_port, dead_socket};
use super::{LogTail, Use, median_and_95th, outcome, queue_file, used_by_agent};
use crate::common::agent::{SOON, Site};
use crate::common::long::{is_long, short_or_long};
use crate::common::process::wait_for;

const WORKERS: usize = 32;
/// Each worker may have a connection and a queue file; the rest is the agent's own, with some to spare.
const DESCRIPTORS_MAX: usize = 2 * WORKERS + 24;
/// KiB that an agent may have used at most, whatever lies on disk.
const PEAK_MAX: u64 = 64 * 1024;
/// Ticks of 10 ms in two seconds that are 5 % of a processor.
const IDLE_TICKS: u64 = 10;

/// Waits until the agent has done all that it can do now.
#[track_caller]
fn wait_until_idle(site: &Site, limit: Duration) {
    wait_for("an agent without work", limit, || {
        let before = used_by_agent(site).ticks;
        std::thread::sleep(Duration::from_millis(500));
        (used_by_agent(site).ticks - before <= 2).then_some(())
    });
}

/// What an agent uses that can do nothing about `files` messages in `active/`: servers are silent, dead or full.
fn use_with_backlog(files: usize, active_limit: usize) -> Use {
    let site = Site::new("");
    let silent = Server::start(&site, "silent", SILENT);
    let full = NeverAccepting::start(&site, "full");
    let nexthops = [
        format!("lmtp:{}", silent.nexthop()),
        format!("lmtp:{}", full.nexthop),
        format!("lmtp:{}", dead_socket(&site)),
        format!("lmtp:{}", closed_port()),
    ];
    let routes: String =
        (0..).zip(&nexthops).map(|(n, to)| format!("\"d{n}.example\" = \"{to}\"\n")).collect();
    // For as long as this looks, resting destinations keep their mail in memory.
    site.configure(&format!("workers = {WORKERS}\nactive_limit = {active_limit}\n[routes]\n{routes}"));
    site.start_agent().stop();
    for number in 0..files {
        let id = format!("0LATEM1NUTE{number:09}");
        let to = [format!("u{number}@d{}.example", number % nexthops.len())];
        let file = String::from_utf8(queue_file(None, &to, "backlog")).unwrap();
        let path = site.queue().join("active").join(&id);
        let mut out = File::options().write(true).create_new(true).mode(0o600).open(path).unwrap();
        out.write_all(file.replace("0LATEM1NUTE000000000", &id).as_bytes()).unwrap();
    }
    let agent = site.start_agent();
    wait_for("mail in memory", SOON, || (!site.lines_with(&["(queue active)"]).is_empty()).then_some(()));
    wait_until_idle(&site, short_or_long(2 * SOON, 10 * SOON));
    let before = used_by_agent(&site);
    std::thread::sleep(Duration::from_secs(2));
    let after = used_by_agent(&site);
    let in_memory = site.lines_with(&["(queue active)"]).len();
    println!("{files} files: {in_memory} in memory, {after:?}, {} ticks in 2 s", after.ticks - before.ticks);
    assert!(in_memory > active_limit / 2, "memory was not full: {in_memory}");
    assert!(
        after.ticks - before.ticks < IDLE_TICKS,
        "it computes while it can do nothing: {before:?} {after:?}"
    );
    agent.kill();
    after
}

#[test]
fn neither_memory_nor_descriptors_grow_with_the_backlog() {
    let (few, many, active_limit) = short_or_long((1500, 6000, 1000), (30_000, 100_000, 20_000));
    let (few, many) = std::thread::scope(|scope| {
        let few = scope.spawn(|| use_with_backlog(few, active_limit));
        let many = use_with_backlog(many, active_limit);
        (few.join().unwrap(), many)
    });
    assert!(many.peak < PEAK_MAX, "{many:?}");
    // What is remembered of the files that wait is a number, not a list.
    assert!(many.peak < few.peak + few.peak / 4, "{few:?}, and with more files {many:?}");
    assert!(many.descriptors <= DESCRIPTORS_MAX, "{many:?}");
}

/// Drops a queue file that belongs to somebody else, where we may make it so.
fn drop_for_another(site: &Site, name: &str, octets: &[u8]) {
    let incoming = site.queue().join("incoming");
    let unfinished = incoming.join(format!(".{name}"));
    fs::write(&unfinished, octets).unwrap();
    if getuid().is_root() {
        chown(&unfinished, Some(64_000), None).unwrap();
    }
    fs::rename(unfinished, incoming.join(name)).unwrap();
}

#[test]
fn dropped_files_are_delivered_as_fast_as_they_come() {
    let count = short_or_long(400, 20_000);
    let site = Site::in_memory("");
    let server = Server::start(&site, "mail", "");
    site.configure(&format!("default_transport = \"lmtp:{}\"\n", server.nexthop()));
    let agent = site.start_agent();
    let (mut tail, mut dropped, mut delays) = (LogTail::new(), Vec::new(), Vec::new());
    let started = Instant::now();
    let limit = short_or_long(2 * SOON, 20 * SOON);
    while delays.len() < count {
        // Some 400 a second: more often than a listing takes, and less than can be delivered.
        if dropped.len() < count && started.elapsed() >= Duration::from_micros(2500) * dropped.len() as u32 {
            let to = [format!("u{}@example.org", dropped.len())];
            drop_for_another(&site, &format!("m{}", dropped.len()), &queue_file(None, &to, "dropped"));
            dropped.push(Instant::now());
        }
        for line in tail.more(&site) {
            let Some((address, status)) = outcome(&line) else { continue };
            assert_eq!(status, "sent", "{line}");
            let number: usize = address[1..].split('@').next().unwrap().parse().unwrap();
            delays.push(dropped[number].elapsed().as_secs_f64());
        }
        assert!(started.elapsed() < limit, "{} of {count} are delivered", delays.len());
        std::thread::sleep(Duration::from_micros(500));
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    assert_eq!(server.deliveries(), count as u64, "each exactly once");
    let (median, most) = median_and_95th(delays);
    println!("{count} dropped files, {rate:.0} a second, median {median:.3} s, 95 % {most:.3} s");
    assert!(median < 1.0, "half of them took longer than {median} s");
    site.wait_until_empty(SOON);
    agent.stop();
}

#[test]
fn a_flood_of_dropped_files_is_taken_in_and_delivered() {
    let count = short_or_long(500, 20_000);
    let site = Site::in_memory("");
    let server = Server::start(&site, "mail", "");
    site.configure(&format!("default_transport = \"lmtp:{}\"\n", server.nexthop()));
    let agent = site.start_agent();
    agent.signal(Signal::STOP);
    for number in 0..count {
        let to = [format!("u{number}@example.org")];
        drop_for_another(&site, &format!("m{number}"), &queue_file(None, &to, "flood"));
    }
    let started = Instant::now();
    agent.signal(Signal::CONT);
    wait_for("all of the flood", short_or_long(2 * SOON, 20 * SOON), || {
        (server.deliveries() >= count as u64).then_some(())
    });
    let time = started.elapsed().as_secs_f64();
    println!(
        "{count} files that lay there were taken in and delivered in {time:.1} s, {:.0} a second",
        count as f64 / time
    );
    site.wait_until_empty(SOON);
    assert_eq!(server.deliveries(), count as u64, "each exactly once");
    assert!(used_by_agent(&site).peak < PEAK_MAX);
    agent.stop();
}

#[test]
fn a_drop_is_found_although_the_kernel_had_no_room_to_tell_of_it() {
    let room = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let room: usize = room.trim().parse().unwrap();
    if room > 100_000 {
        println!("skipped: the kernel keeps {room} events");
        return;
    }
    let site = Site::in_memory("");
    let server = Server::start(&site, "mail", "");
    site.configure(&format!("default_transport = \"lmtp:{}\"\n", server.nexthop()));
    let agent = site.start_agent();
    wait_until_idle(&site, SOON);
    agent.signal(Signal::STOP);
    // A writer that is never done: nobody is to list because of it.
    let incoming = site.queue().join("incoming");
    let (one, other) = (incoming.join(".one"), incoming.join(".other"));
    fs::write(&one, "unfinished").unwrap();
    for _ in 0..room / 2 + 100 {
        fs::rename(&one, &other).unwrap();
        fs::rename(&other, &one).unwrap();
    }
    let count = short_or_long(20, 20_000);
    for number in 0..count {
        drop_for_another(
            &site,
            &format!("m{number}"),
            &queue_file(None, &[format!("u{number}@example.org")], "lost"),
        );
    }
    let started = Instant::now();
    agent.signal(Signal::CONT);
    // Without the event the next listing would come after a minute.
    let limit = if is_long() { 10 * SOON } else { SOON };
    wait_for("mail of which no event tells", limit, || (server.deliveries() >= count as u64).then_some(()));
    println!("{count} drops after {room} events: delivered in {:.1?}", started.elapsed());
    agent.stop();
}
