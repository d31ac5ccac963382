//! Servers that go and come back, and that change their minds, under load.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::servers::Server;
use super::{LogTail, drop_file, logged_delay, median_and_95th, outcome, queue_file};
use crate::common::agent::{SOON, Site};
use crate::common::long::short_or_long;

/// Retries within seconds, so that tests can wait for them.
const HURRY: &str = "minimal_backoff_time = 1\nmaximal_backoff_time = 1\nqueue_run_delay = 1\n";

/// Everything that may happen to a transaction, some of it often.
fn moods() -> String {
    let mut script = "data delay 5ms\n".to_owned();
    for round in 0..6 {
        let after = 7 * round;
        for rule in [
            "mail after {} times 1 421 4.3.2 closing",
            "rcpt * after {} times 2 450 4.2.1 busy",
            "data-done * after {} times 1 451 4.2.0 locked",
            "mail after {} times 1 451 4.3.0 not now",
            "data-done * after {} times 1 close-after 250 2.0.0 stored",
        ] {
            script.push_str(&format!("{}\n", rule.replace("{}", &after.to_string())));
        }
    }
    script
}

#[test]
fn nothing_is_lost_where_a_server_restarts_and_changes_its_mind() {
    let (count, restarts) = short_or_long((200, 1), (5000, 5));
    let site = Site::in_memory("");
    let mut server = Server::start(&site, "mail", &moods());
    let limit = "[transport.lmtp]\ndestination_recipient_limit = 5\n";
    site.configure(&format!("default_transport = \"lmtp:{}\"\n{HURRY}{limit}", server.nexthop()));
    let agent = site.start_agent();
    let mut open = HashSet::new();
    for number in 0..count {
        let to: Vec<_> = (0..1 + number % 7).map(|to| format!("u{number}-{to}@example.org")).collect();
        drop_file(&site, &format!("m{number}"), &queue_file(None, &to, "one of many"));
        open.extend(to);
    }
    let all = open.len();
    let (mut tail, mut taken, mut doubtful) = (LogTail::new(), 0, 0);
    let mut attempts: HashMap<String, usize> = HashMap::new();
    let started = Instant::now();
    let mut to_restart = (1..=restarts).map(|restart| all * restart / (restarts + 1)).collect::<Vec<_>>();
    while !open.is_empty() {
        for line in tail.more(&site) {
            doubtful += usize::from(line.contains("may be delivered twice"));
            let Some((address, status)) = outcome(&line) else { continue };
            assert_ne!(status, "bounced", "{line}");
            *attempts.entry(address.to_owned()).or_default() += 1;
            if status == "sent" {
                assert!(open.remove(address), "a second time: {line}");
            }
        }
        if to_restart.first().is_some_and(|at| all - open.len() >= *at) {
            to_restart.remove(0);
            taken += server.handle.stop().deliveries;
            std::thread::sleep(Duration::from_millis(100));
            server = Server::start(&site, "mail", &moods());
        }
        assert!(
            started.elapsed() < short_or_long(3 * SOON, 20 * SOON),
            "{} are open\n{}",
            open.len(),
            site.log()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let taken = usize::try_from(taken + server.deliveries()).unwrap();
    let again = attempts.values().filter(|attempts| **attempts > 1).count();
    println!(
        "{all} recipients, {again} more than once tried, {} twice delivered, {doubtful} in doubt",
        taken - all
    );
    assert!(again > 20, "there was no trouble");
    assert!((all..=all + doubtful).contains(&taken), "{taken} of {all}, with {doubtful} in doubt");
    site.wait_until_empty(SOON);
    agent.stop();
}

#[test]
fn servers_that_turn_clients_away_delay_no_other_server() {
    const MOODY: usize = 12;
    let site = Site::in_memory("");
    let calm = Server::start(&site, "calm", "");
    let script = "greeting times 3 421 4.3.2 not now\nmail after 2 times 500 421 4.3.2 closing";
    let moody: Vec<_> = (0..MOODY).map(|n| Server::start(&site, &format!("moody{n}"), script)).collect();
    let route =
        |(n, server): (usize, &Server)| format!("\"moody{n}.example\" = \"lmtp:{}\"\n", server.nexthop());
    let routes: String = moody.iter().enumerate().map(route).collect();
    site.configure(&format!("default_transport = \"lmtp:{}\"\n{HURRY}[routes]\n{routes}", calm.nexthop()));
    let agent = site.start_agent();
    for number in 0..200 {
        for domain in [&format!("moody{}.example", number % MOODY), "calm.example"] {
            let to = [format!("u{number}@{domain}")];
            drop_file(&site, &format!("m{number}-{domain}"), &queue_file(None, &to, "one"));
        }
    }
    let sent = site.wait_for_lines(200, &["@calm.example>", "status=sent"], SOON);
    assert_eq!(calm.deliveries(), 200);
    let (median, _) = median_and_95th(sent.iter().filter_map(|line| logged_delay(line)).collect());
    assert!(median < 1.0, "half of the calm server's mail took longer than {median} s");
    let is_resting =
        |n: usize| site.lines_with(&[&format!("@moody{n}.example>"), "421 4.3.2 not now"]).len() < 17;
    assert!((0..MOODY).all(is_resting), "who turns clients away is left alone for a while");
    agent.kill();
}
