//! Postings to large lists, and small mail beside them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::servers::{Server, dead_socket, thinking};
use super::{LogTail, Writer, drop_file, logged_delay, median_and_95th, outcome, queue_file, used_by_agent};
use crate::common::agent::{SOON, Site};
use crate::common::long::{is_long, short_or_long};
use crate::common::process::wait_for;

/// Between two small messages.
const INTERVAL: Duration = Duration::from_millis(10);
/// KiB that an agent may have used at most.
const PEAK_MAX: u64 = 64 * 1024;

/// How the list is posted, and what becomes of it.
struct Posting {
    recipients: usize,
    /// By a bare message and a job line; else as a queue file.
    by_job_line: bool,
    recipient_limit: usize,
    /// What its server says to its recipients.
    script: &'static str,
    /// The outcome of each of them.
    outcome: &'static str,
}

impl Posting {
    fn addresses(&self) -> Vec<String> {
        (0..self.recipients).map(|number| format!("u{number}@list.example")).collect()
    }

    fn submit(&self, site: &Site) {
        let recipients = self.addresses();
        if !self.by_job_line {
            return drop_file(site, "list", &queue_file(None, &recipients, "list"));
        }
        drop_file(site, "list", b"Subject: list\n\ntext\n");
        let job = json!({"queue_file": "incoming/list", "sender": "a@example.org", "recipients": recipients});
        let line = job.to_string();
        assert!(line.len() <= 1 << 20, "a line of {} octets", line.len());
        site.write_to_fifo(format!("\n{line}\n").as_bytes());
    }
}

/// Submits small messages, one after the other, and hears of their delivery.
#[derive(Default)]
struct Small {
    submitted: Vec<Instant>,
    /// Seconds from writing the job line to reading the log line; what the log says; by domain.
    delays: HashMap<String, Vec<(f64, f64)>>,
}

impl Small {
    fn submit(&mut self, site: &Site, writer: &mut Writer, domain: &str) {
        let name = format!("small{}", self.submitted.len());
        drop_file(site, &name, b"Subject: small\n\ntext\n");
        let to = format!("{name}@{domain}");
        let job =
            json!({"queue_file": format!("incoming/{name}"), "sender": "a@example.org", "recipients": [to]});
        self.submitted.push(Instant::now());
        writer.write(&job, SOON);
    }

    /// Whether the line is about one of these.
    fn hears(&mut self, line: &str) -> bool {
        let Some((address, status)) = outcome(line) else { return false };
        let Some((number, domain)) = address.strip_prefix("small").and_then(|rest| rest.split_once('@'))
        else {
            return false;
        };
        assert_eq!(status, "sent", "{line}");
        let since = self.submitted[number.parse::<usize>().unwrap()];
        let both = (since.elapsed().as_secs_f64(), logged_delay(line).unwrap());
        self.delays.entry(domain.to_owned()).or_default().push(both);
        true
    }

    fn heard(&self) -> usize {
        self.delays.values().map(Vec::len).sum()
    }

    /// The medians must be below a second, by our own clock and in the log.
    #[track_caller]
    fn check(&self, what: &str) {
        for (domain, delays) in &self.delays {
            let (own, logged): (Vec<_>, Vec<_>) = delays.iter().copied().unzip();
            let ((own, own_95), (logged, logged_95)) = (median_and_95th(own), median_and_95th(logged));
            println!(
                "{what}: {} small ones to {domain}: median {own:.3} s, 95 % {own_95:.3} s; \
                 in the log {logged:.3} s, {logged_95:.3} s",
                delays.len()
            );
            assert!(
                own < 1.0 && logged < 1.0,
                "{what}: small mail to {domain} waits {own} s, {logged} s in the log"
            );
        }
    }
}

/// Posts to a list, and sends small mail to the same server and to another one until the list is done with.
#[track_caller]
fn beside_small_mail(what: &str, posting: &Posting) {
    let limit = short_or_long(3 * SOON, 30 * SOON);
    let site = Site::in_memory("");
    let script = format!("{}\n{}", posting.script, thinking(5));
    let (server, other) = (Server::start(&site, "list", &script), Server::start(&site, "other", ""));
    site.configure(&format!(
        "default_transport = \"lmtp:{}\"\n[routes]\n\"list.example\" = \"lmtp:{}\"\n\"same.example\" = \"lmtp:{}\"\n\
         [transport.lmtp]\ndestination_recipient_limit = {}\n",
        other.nexthop(),
        server.nexthop(),
        server.nexthop(),
        posting.recipient_limit,
    ));
    let agent = site.start_agent();
    posting.submit(&site);
    let started = Instant::now();
    let (mut writer, mut tail, mut small) = (Writer::open(&site), LogTail::new(), Small::default());
    let mut open: HashSet<_> = posting.addresses().into_iter().collect();
    let mut next = Instant::now();
    let mut peak = 0;
    while !open.is_empty() || small.heard() < small.submitted.len() {
        if next <= Instant::now() && !(open.is_empty() && small.submitted.len() >= 40) {
            next = Instant::now() + INTERVAL;
            let domain = if small.submitted.len() % 2 == 0 { "same.example" } else { "other.example" };
            small.submit(&site, &mut writer, domain);
            peak = peak.max(used_by_agent(&site).peak);
        }
        for line in tail.more(&site) {
            if small.hears(&line) {
                continue;
            }
            if let Some((address, status)) = outcome(&line).filter(|(to, _)| to.ends_with("@list.example")) {
                assert_eq!(status, posting.outcome, "{line}");
                assert!(open.remove(address), "a second time: {line}");
            }
        }
        assert!(started.elapsed() < limit, "{what}: {} of the list are open", open.len());
        std::thread::sleep(Duration::from_millis(1));
    }
    let time = started.elapsed().as_secs_f64();
    let is_sent = posting.outcome == "sent";
    let same = small.delays["same.example"].len();
    let expected = same + if is_sent { posting.recipients } else { 0 };
    assert_eq!(server.deliveries(), expected as u64, "each exactly once");
    match posting.outcome {
        "sent" => site.wait_until_empty(SOON),
        // To the sender, who is at the other server.
        "bounced" => {
            site.wait_until_empty(limit);
            let bounces = other.deliveries() as usize - (small.submitted.len() - same);
            assert_eq!(bounces, posting.recipients.div_ceil(5000), "one bounce for all, up to 5000");
        }
        _ => {
            let files = wait_for("a deferred list", limit, || {
                Some(site.files()).filter(|files| files.iter().all(|file| file.starts_with("deferred/")))
            });
            assert_eq!(files.len(), 2, "{files:?}");
            let log = files.iter().find(|file| file.ends_with(".log")).unwrap();
            let size = fs::metadata(site.queue().join(log)).unwrap().len();
            println!("{what}: a log of {} KiB", size >> 10);
            assert!(size < 17 << 20, "{size}");
        }
    }
    let peak = peak.max(used_by_agent(&site).peak);
    println!("{what}: {} recipients in {time:.1} s, peak {} MiB", posting.recipients, peak >> 10);
    small.check(what);
    assert!(peak < PEAK_MAX, "{what}: {peak} KiB");
    agent.stop();
}

const SENT: Posting =
    Posting { recipients: 0, by_job_line: false, recipient_limit: 50, script: "", outcome: "sent" };

#[test]
fn small_mail_beside_a_list_that_is_delivered() {
    let recipients = short_or_long(5000, 100_000);
    beside_small_mail("delivered by 50", &Posting { recipients, ..SENT });
}

#[test]
fn small_mail_beside_a_list_in_one_job_line() {
    let recipients = short_or_long(5000, 30_000);
    beside_small_mail("in one line", &Posting { recipients, by_job_line: true, ..SENT });
}

#[test]
fn small_mail_beside_a_list_that_is_delivered_one_by_one() {
    let recipients = short_or_long(600, 100_000);
    beside_small_mail("delivered one by one", &Posting { recipients, recipient_limit: 1, ..SENT });
}

#[test]
fn small_mail_beside_a_list_that_is_refused() {
    let recipients = short_or_long(5000, 100_000);
    let script = "rcpt *@list.example 550 5.1.1 nobody here";
    beside_small_mail("refused", &Posting { recipients, script, outcome: "bounced", ..SENT });
}

#[test]
fn small_mail_beside_a_list_that_is_deferred() {
    let recipients = short_or_long(5000, 100_000);
    let script = "rcpt *@list.example 450 4.2.0 not today";
    beside_small_mail("deferred", &Posting { recipients, script, outcome: "deferred", ..SENT });
    if is_long() {
        let posting = Posting { recipients, script, outcome: "deferred", recipient_limit: 1, ..SENT };
        beside_small_mail("deferred one by one", &posting);
    }
}

#[test]
fn five_lists_and_small_mail_share_a_destination() {
    const LISTS: usize = 5;
    let recipients = short_or_long(2000, 10_000);
    let site = Site::in_memory("");
    let server = Server::start(&site, "mail", &thinking(60));
    site.configure(&format!(
        "default_transport = \"lmtp:{}\"\n[transport.lmtp]\ndestination_concurrency_limit = 4\n",
        server.nexthop()
    ));
    // All of them are there when it starts.
    site.start_agent().stop();
    for list in 0..LISTS {
        let to: Vec<_> = (0..recipients).map(|number| format!("u{number}@list{list}.example")).collect();
        drop_file(&site, &format!("list{list}"), &queue_file(None, &to, "list"));
    }
    let agent = site.start_agent();
    let (mut writer, mut tail, mut small) = (Writer::open(&site), LogTail::new(), Small::default());
    let mut done = [0; LISTS];
    let mut at_first_end = None;
    let (started, mut next) = (Instant::now(), Instant::now());
    while done.iter().any(|done| *done < recipients) || small.heard() < small.submitted.len() {
        if next <= Instant::now() && at_first_end.is_none() {
            next = Instant::now() + 4 * INTERVAL;
            small.submit(&site, &mut writer, "small.example");
        }
        for line in tail.more(&site) {
            let Some((address, status)) = outcome(&line).filter(|_| !small.hears(&line)) else { continue };
            assert_eq!(status, "sent", "{line}");
            let (_, list) = address.split_once("@list").unwrap();
            done[list.trim_end_matches(".example").parse::<usize>().unwrap()] += 1;
        }
        if at_first_end.is_none() && done.contains(&recipients) {
            at_first_end = Some(done);
        }
        assert!(started.elapsed() < short_or_long(3 * SOON, 15 * SOON), "{done:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(done, [recipients; LISTS], "each exactly once");
    let least = *at_first_end.unwrap().iter().min().unwrap();
    println!("when the first list was through the others had {:?}", at_first_end.unwrap());
    assert!(least * 10 >= recipients * 7, "{at_first_end:?}: one list held up another");
    small.check("five lists");
    agent.stop();
}

#[test]
fn a_locked_mailbox_holds_up_nobody_else_at_its_server() {
    const OTHERS: usize = 60;
    let site = Site::in_memory("");
    let server = Server::start(&site, "mail", "data-done locked@* delay 4s\n");
    site.configure(&format!(
        "default_transport = \"lmtp:{}\"\n[transport.lmtp]\ndestination_concurrency_limit = 8\n",
        server.nexthop()
    ));
    let agent = site.start_agent();
    for number in 0..40 {
        let to = ["locked@same.example".to_owned()];
        drop_file(&site, &format!("locked{number}"), &queue_file(None, &to, "locked"));
    }
    let transactions = || server.handle.counts().transactions;
    wait_for("as many deliveries to it as may be", SOON, || (transactions() >= 4).then_some(()));
    let (mut writer, mut tail, mut small) = (Writer::open(&site), LogTail::new(), Small::default());
    let mut locked = 0;
    wait_for("the others' mail", SOON, || {
        if small.submitted.len() < OTHERS {
            small.submit(&site, &mut writer, "same.example");
        }
        for line in tail.more(&site) {
            let is_small = small.hears(&line);
            locked += usize::from(!is_small && outcome(&line).is_some());
        }
        (small.heard() == OTHERS).then_some(())
    });
    small.check("beside a locked mailbox");
    // Four at a time, and four seconds each.
    assert!(locked <= 8, "{locked} for the locked mailbox: the others have waited for it");
    agent.kill();
}

#[test]
fn a_large_backlog_that_is_suspended_holds_up_nobody_else() {
    if !is_long() {
        // Only a fifth failure, after 75 s, suspends a destination; what then happens has a unit test.
        println!("skipped: the long form does it");
        return;
    }
    const DEAD: usize = 14_000;
    let site = Site::in_memory("");
    let other = Server::start(&site, "other", "");
    let routes = format!("[routes]\n\"dead.example\" = \"{}\"\n", dead_socket(&site));
    site.configure(&format!("default_transport = \"lmtp:{}\"\n{routes}", other.nexthop()));
    let agent = site.start_agent();
    for number in 0..DEAD {
        let to = [format!("u{number}@dead.example")];
        drop_file(&site, &format!("dead{number}"), &queue_file(None, &to, "dead"));
    }
    let (mut writer, mut tail, mut small) = (Writer::open(&site), LogTail::new(), Small::default());
    let (started, mut suspended) = (Instant::now(), 0);
    while suspended < DEAD - 200 || small.heard() < small.submitted.len() {
        if suspended < DEAD - 200 {
            small.submit(&site, &mut writer, "other.example");
        }
        for line in tail.more(&site) {
            small.hears(&line);
            suspended += usize::from(line.contains("delivery temporarily suspended"));
        }
        assert!(started.elapsed() < 10 * SOON, "{suspended} are suspended");
        std::thread::sleep(INTERVAL);
    }
    let most = small.delays["other.example"].iter().map(|(own, _)| *own).fold(0.0, f64::max);
    println!("{suspended} suspended; the longest that small mail took was {most:.3} s");
    small.check("beside what is suspended");
    assert!(most < 2.0, "small mail waited {most:.1} s");
    agent.kill();
}
