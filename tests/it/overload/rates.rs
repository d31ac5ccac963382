//! The rate of a fast destination, alone and beside others that hold their workers for long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::servers::{DRIPPING, NeverAccepting, SILENT, Server, closed_port, dead_socket, thinking};
use super::{Writer, drop_file, median_and_95th, queue_file};
use crate::common::agent::{SOON, Site};
use crate::common::long::short_or_long;
use crate::common::process::wait_for;

/// Messages for the fast destination that are on their way at any time: more than it works on, so that it never waits.
const ON_THE_WAY: u64 = 60;

/// Keeps the fast destination supplied, by bare files and job lines, until it is told to stop.
struct Supply<'a> {
    site: &'a Site,
    fast: &'a Server,
    /// Messages for it so far, over all sites.
    submitted: &'a AtomicU64,
    enough: &'a AtomicBool,
}

impl Supply<'_> {
    fn run(&self) {
        let mut writer = Writer::open(self.site);
        while !self.enough.load(Ordering::Relaxed) {
            if self.submitted.load(Ordering::Relaxed) < self.fast.deliveries() + ON_THE_WAY {
                let number = self.submitted.fetch_add(1, Ordering::Relaxed);
                let name = format!("fast{number}");
                drop_file(self.site, &name, b"Subject: fast\n\ntext\n");
                let to = format!("u{number}@fast.example");
                let file = format!("incoming/{name}");
                let job = json!({"queue_file": file, "sender": "a@example.org", "recipients": [to]});
                writer.write(&job, SOON);
            } else {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Mail for the others, that keeps coming.
fn trickle(site: &Site, round: usize, domains: &[&str], enough: &AtomicBool) {
    for number in 0_usize.. {
        if enough.load(Ordering::Relaxed) {
            return;
        }
        let to = format!("u{number}@{}", domains[number % domains.len()]);
        drop_file(site, &format!("late{round}-{number}"), &queue_file(None, &[to], "late"));
        thread::sleep(Duration::from_millis(20));
    }
}

/// Messages a second that the fast destination takes. The agent is killed in the end: what is under way at a silent
/// server need not be waited for.
fn rate(site: &Site, round: usize, fast: &Server, submitted: &AtomicU64, others: &[&str]) -> f64 {
    // Longer than a destination takes to come to its full concurrency, several times over: mail goes in waves.
    let window = short_or_long(Duration::from_secs(4), Duration::from_secs(10));
    let agent = site.start_agent();
    let enough = AtomicBool::new(false);
    let supply = Supply { site, fast, submitted, enough: &enough };
    let rate = thread::scope(|scope| {
        scope.spawn(|| supply.run());
        if !others.is_empty() {
            scope.spawn(|| trickle(site, round, others, &enough));
        }
        let first = fast.deliveries();
        wait_for("the fast destination's first mail", SOON, || {
            (fast.deliveries() >= first + 8).then_some(())
        });
        let (before, since) = (fast.deliveries(), Instant::now());
        thread::sleep(window);
        let rate = (fast.deliveries() - before) as f64 / since.elapsed().as_secs_f64();
        enough.store(true, Ordering::Relaxed);
        rate
    });
    agent.kill();
    rate
}

#[test]
fn a_fast_destination_keeps_its_rate_beside_slow_and_dead_ones() {
    const LIMIT: usize = 8;
    let rounds = short_or_long(2, 5);
    // More of it comes with each round, so that each has files to take in.
    let backlog = short_or_long(700, 4000);
    let (alone, beside) = (Site::in_memory(""), Site::in_memory(""));
    let fast = Server::start(&alone, "fast", &thinking(160));
    let silent = Server::start(&beside, "silent", SILENT);
    let hushed = Server::start(&beside, "hushed", SILENT);
    let drip = Server::start(&beside, "drip", DRIPPING);
    let locked = Server::start(&beside, "locked", "data-done u1@* delay 3s\n");
    let full = NeverAccepting::start(&beside, "full");
    // The silent one has the default time of 300 s for its greeting; the hushed one loses its clients after a second.
    let others = [
        ("silent.example", format!("lmtp:{}", silent.nexthop())),
        ("hushed.example", format!("hasty:{}", hushed.nexthop())),
        ("drip.example", format!("lmtp:{}", drip.nexthop())),
        ("locked.example", format!("lmtp:{}", locked.nexthop())),
        ("full.example", format!("lmtp:{}", full.nexthop)),
        ("dead.example", format!("lmtp:{}", dead_socket(&beside))),
        ("closed.example", format!("lmtp:{}", closed_port())),
    ];
    let routes: String =
        others.iter().map(|(domain, nexthop)| format!("\"{domain}\" = \"{nexthop}\"\n")).collect();
    // Room for everybody's limit: what is held to its limit then takes nothing from others.
    let config = format!(
        "default_transport = \"lmtp:{}\"\nworkers = {}\nworkers_reserved = 2\n[routes]\n{routes}\
         [transport.lmtp]\ndestination_concurrency_limit = {LIMIT}\n\
         [transport.hasty]\nprotocol = \"lmtp\"\ndestination_concurrency_limit = {LIMIT}\n\
         connect_timeout = 1\nlhlo_timeout = 1\n",
        fast.nexthop(),
        (others.len() + 1) * LIMIT + 2,
    );
    alone.configure(&config);
    beside.configure(&config);
    let domains = others.each_ref().map(|(domain, _)| *domain);
    // The directories exist once an agent has started.
    beside.start_agent().stop();
    let submitted = AtomicU64::new(0);
    let (mut rates_alone, mut rates_beside) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        rates_alone.push(rate(&alone, round, &fast, &submitted, &[]));
        for number in 0..backlog {
            let to = format!("u{}@{}", number / domains.len() % 10, domains[number % domains.len()]);
            drop_file(&beside, &format!("backlog{round}-{number}"), &queue_file(None, &[to], "backlog"));
        }
        let connections = silent.handle.counts().connections;
        rates_beside.push(rate(&beside, round, &fast, &submitted, &domains));
        let held = silent.handle.counts().connections - connections;
        assert!(held as usize <= LIMIT, "{held} workers with the silent one");
        assert!(full.accept_and_drop() <= LIMIT);
    }
    let share = short_or_long(0.7, 0.9);
    println!("alone {rates_alone:.0?}\nbeside {rates_beside:.0?} messages a second");
    let (alone, _) = median_and_95th(rates_alone);
    let (beside, _) = median_and_95th(rates_beside);
    // With windows of a second one unlucky moment of the machine costs more than a tenth; with long ones it does not.
    assert!(beside >= share * alone, "{beside:.0} messages a second beside the others, {alone:.0} alone");
}

/// The same with the keys that the program is shipped with: there are fewer workers than the others could hold together,
/// so that it counts how few a server gets that has not answered yet.
#[test]
fn a_fast_destination_keeps_its_rate_with_the_shipped_configuration() {
    let rounds = short_or_long(1, 5);
    let (alone, beside) = (Site::in_memory(""), Site::in_memory(""));
    let fast = Server::start(&alone, "fast", &thinking(320));
    let silent = Server::start(&beside, "silent", SILENT);
    let drip = Server::start(&beside, "drip", DRIPPING);
    let others = [
        ("silent.example", format!("lmtp:{}", silent.nexthop())),
        ("drip.example", format!("lmtp:{}", drip.nexthop())),
        ("dead.example", format!("lmtp:{}", dead_socket(&beside))),
    ];
    let routes: String =
        others.iter().map(|(domain, nexthop)| format!("\"{domain}\" = \"{nexthop}\"\n")).collect();
    let config = format!("default_transport = \"lmtp:{}\"\n[routes]\n{routes}", fast.nexthop());
    alone.configure(&config);
    beside.configure(&config);
    beside.start_agent().stop();
    let domains = others.each_ref().map(|(domain, _)| *domain);
    let submitted = AtomicU64::new(0);
    let (mut rates_alone, mut rates_beside) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        rates_alone.push(rate(&alone, round, &fast, &submitted, &[]));
        for number in 0..150 {
            let to = format!("u{number}@{}", domains[number % domains.len()]);
            drop_file(&beside, &format!("backlog{round}-{number}"), &queue_file(None, &[to], "backlog"));
        }
        rates_beside.push(rate(&beside, round, &fast, &submitted, &domains));
    }
    let share = short_or_long(0.7, 0.9);
    println!("alone {rates_alone:.0?}\nbeside {rates_beside:.0?} messages a second");
    let ((alone, _), (beside, _)) = (median_and_95th(rates_alone), median_and_95th(rates_beside));
    assert!(beside >= share * alone, "{beside:.0} messages a second beside the others, {alone:.0} alone");
}
