//! Life and death under master(8) while mail is on its way: nothing is lost, and what we can finish is not doubled.
//!
//! - Owns: reload, stop, the service's removal, killed processes, idle exit, a destination that is dead.
//! - Leaves to others: what is said in a conversation.
//! - Always true: each recipient is counted in the server's memory, not in anybody's log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, both};
use super::instance::{Place, Postfix, SERVICE, Settings};
use super::mail::submit;
use super::observation::{Observation, observe};
use super::processes;
use super::server::{Answer, Server, Stage};

/// How many are in flight at a time. Postfix's own program needs a process for each.
fn crowd(client: Client) -> usize {
    if client == Client::Ours { 200 } else { 50 }
}

/// All of them may be in flight, for one destination and from the start.
const ROOM: &str = "default_process_limit = 300\ninitial_destination_concurrency = 260\n\
                    default_destination_concurrency_limit = 260\nlastmile_workers = 260\n\
                    service_throttle_time = 1s\ntransport_retry_time = 1s\n";

/// A server that stores everything, and says so when the test lets it.
fn holding(place: &Place) -> Server {
    Server::start(place.path(), |at| match at.stage {
        Stage::DataDone => Answer::Held,
        _ => Answer::Usual,
    })
}

/// How often each recipient's message was stored.
fn ledger(server: &Server) -> BTreeMap<String, usize> {
    let mut ledger = BTreeMap::new();
    let stored = server.heard().transactions.into_iter().filter(|transaction| transaction.content.is_some());
    for recipient in stored.flat_map(|transaction| transaction.accepted) {
        *ledger.entry(recipient).or_default() += 1;
    }
    ledger
}

/// Recipients in all queue files that are still to do.
fn left_to_do(postfix: &Postfix<'_>) -> usize {
    let names = ["incoming", "active", "deferred"];
    let ids: Vec<_> = names.iter().flat_map(|name| postfix.queued(name)).collect();
    let paths = ids.iter().filter_map(|id| Some(postfix.queue_file(id)?.display().to_string()));
    let paths: Vec<_> = paths.collect();
    if paths.is_empty() {
        return 0;
    }
    let arguments: Vec<_> = std::iter::once("-e").chain(paths.iter().map(String::as_str)).collect();
    // A file that goes while we look is no failure.
    let printed = postfix.run("postcat", &arguments, b"").stdout;
    String::from_utf8_lossy(&printed).lines().filter(|line| line.starts_with("recipient: ")).count()
}

/// Waits until the server holds that many answers back.
#[track_caller]
fn wait_until_held(postfix: &Postfix<'_>, server: &Server, count: usize) {
    postfix.wait_for(&format!("{count} deliveries in flight"), || (server.held() == count).then_some(()));
}

/// Everybody has it, and how many have it twice.
#[track_caller]
fn twice(server: &Server, count: usize) -> usize {
    let ledger = ledger(server);
    assert_eq!(ledger.len(), count, "lost: {ledger:?}");
    ledger.values().filter(|&&times| times > 1).count()
}

/// Whether the messages in flight may be sent again: where Postfix's own program is ended it leaves them unmarked.
#[track_caller]
fn expect_twice(client: Client, twice: usize) {
    if client == Client::Ours {
        assert_eq!(twice, 0, "{twice} recipients have their message twice");
    }
}

#[test]
fn a_reload_loses_and_doubles_nothing() {
    let pair = both(|client| {
        let place = Place::new();
        let server = holding(&place);
        let settings = Settings::main(ROOM).smtpd().route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        let crowd = crowd(client);
        postfix.flood(crowd, "first", "first@test.example");
        wait_until_held(&postfix, &server, crowd);
        if client == Client::Ours {
            assert_eq!(postfix.carriers().len(), 2, "one process has them all, and another one starts it");
        }
        postfix.reload();
        // New mail does not wait for the old.
        postfix.flood(50, "second", "second@test.example");
        wait_until_held(&postfix, &server, crowd + 50);
        server.release();
        postfix.wait_for("the last mark", || (left_to_do(&postfix) == 0).then_some(()));
        let mut seen = Observation::default();
        seen.add("twice", twice(&server, crowd + 50));
        seen
    });
    let Some(pair) = pair else { return };
    pair.show("twice", &["0"]);
    pair.agree();
}

#[test]
fn a_stop_loses_nothing_and_we_finish_what_is_in_flight() {
    both(|client| {
        let place = Place::new();
        let server = holding(&place);
        let settings = Settings::main(ROOM).smtpd().route("test.example", server.unix());
        let mut postfix = Postfix::start(&place, client, settings);
        let crowd = crowd(client);
        postfix.flood(crowd, "first", "first@test.example");
        wait_until_held(&postfix, &server, crowd);
        let group = postfix.master();
        postfix.stop();
        server.release();
        postfix.wait_for("the end of all processes", || processes::of_group(group).is_empty().then_some(()));
        let left = left_to_do(&postfix);
        postfix.start_again();
        postfix.settle();
        let twice = twice(&server, crowd);
        assert_eq!(twice, left, "who was not marked has it twice, nobody else");
        expect_twice(client, twice);
        Observation::default()
    });
}

#[test]
fn a_service_that_is_removed_while_busy_freezes_and_loses_nothing() {
    both(|client| {
        let place = Place::new();
        let server = holding(&place);
        let settings = Settings::main(ROOM).smtpd().route("test.example", server.unix());
        let mut postfix = Postfix::start(&place, client, settings);
        postfix.flood(5, "first", "first@test.example");
        wait_until_held(&postfix, &server, 5);
        postfix.change(|settings| settings.without.push(SERVICE));
        let start = Instant::now();
        postfix.reload();
        submit(&postfix, "meanwhile", &["meanwhile@test.example"]);
        // The master answers for the missing service only once it no longer waits for its processes.
        postfix.wait_for_line(&["to=<meanwhile@test.example>", "mail transport unavailable"]);
        assert!(start.elapsed() < Duration::from_secs(15), "mail stood still for {:?}", start.elapsed());
        server.release();
        postfix.change(|settings| settings.without.clear());
        postfix.reload();
        deliver_all(&postfix, &server, 6);
        expect_twice(client, twice(&server, 6));
        Observation::default()
    });
}

/// Asks for new attempts until everybody has the message and every recipient is marked.
#[track_caller]
fn deliver_all(postfix: &Postfix<'_>, server: &Server, count: usize) {
    let mut last = Instant::now();
    postfix.wait_for("everybody's mail", || {
        if last.elapsed() > Duration::from_secs(1) {
            postfix.succeed("postqueue", &["-f"], b"");
            last = Instant::now();
        }
        (ledger(server).len() == count && left_to_do(postfix) == 0).then_some(())
    });
}

/// Which process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The one that master(8) started.
    Supervisor,
    /// The one that delivers.
    Worker,
}

/// The processes to end. Each of Postfix's own is both.
fn victims(postfix: &Postfix<'_>, victim: Victim) -> Vec<Pid> {
    let carriers = postfix.carriers();
    if postfix.client() == Client::Stock {
        return carriers;
    }
    let is_supervisor = |pid: &Pid| processes::parent(*pid) == Some(postfix.master());
    carriers.into_iter().filter(|pid| is_supervisor(pid) == (victim == Victim::Supervisor)).collect()
}

#[test]
fn a_process_that_is_killed_in_the_middle_loses_nothing() {
    const ATTACKS: [(&str, Victim, Signal); 3] = [
        ("worker-kill", Victim::Worker, Signal::KILL),
        ("worker-segv", Victim::Worker, Signal::SEGV),
        ("supervisor-kill", Victim::Supervisor, Signal::KILL),
    ];
    both(|client| {
        let place = Place::new();
        let servers = ATTACKS.map(|_| holding(&place));
        let mut settings = Settings::main(ROOM).smtpd();
        for ((name, ..), server) in ATTACKS.iter().zip(&servers) {
            settings = settings.route(&format!("{name}.example"), server.unix());
        }
        let postfix = Postfix::start(&place, client, settings);
        for ((name, victim, signal), server) in ATTACKS.iter().zip(&servers) {
            postfix.flood(10, name, &format!("u@{name}.example"));
            wait_until_held(&postfix, server, 10);
            let victims = victims(&postfix, *victim);
            assert!(!victims.is_empty(), "nobody to end: {name}");
            for victim in victims {
                kill_process(victim, *signal).unwrap();
            }
            postfix.wait_for_line(&["postfix/master[", "warning: process "]);
            server.release();
            deliver_all(&postfix, server, 10);
            if *victim == Victim::Supervisor {
                expect_twice(client, twice(server, 10));
            }
        }
        Observation::default()
    });
}

#[test]
fn an_idle_process_ends_and_another_one_takes_over() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::obliging(place.path());
        let settings = Settings::main("max_idle = 1s").route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        for name in ["one", "two", "three"] {
            submit(&postfix, name, &["u@test.example"]);
            postfix.settle();
            postfix.wait_for("the end of idle processes", || postfix.carriers().is_empty().then_some(()));
        }
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("three log", &["status=sent"]);
    assert!(pair.ours.lines("warnings").is_empty(), "{:?}", pair.ours.lines("warnings"));
    pair.agree();
}

#[test]
fn a_dead_destination_is_left_alone() {
    both(|client| {
        let place = Place::new();
        let live = Server::obliging(place.path());
        let settings = Settings::default()
            .smtpd()
            .route("dead.example", format!("unix:{}/nobody", place.path().display()))
            .route("live.example", live.unix());
        let postfix = Postfix::start(&place, client, settings);
        postfix.flood(30, "dead", "u@dead.example");
        submit(&postfix, "live", &["u@live.example"]);
        postfix.settle();
        postfix.wait_for_lines(30, &["@dead.example>", "dsn=4.4.1", "status=deferred ("]);
        let log = postfix.log();
        let suspended =
            log.lines().filter(|line| line.contains("delivery temporarily suspended: connect to "));
        let suspended = suspended.count();
        assert!(suspended >= 15, "{suspended} of 30 were spared a hopeless attempt\n{log}");
        assert_eq!(ledger(&live).len(), 1);
        Observation::default()
    });
}
