//! Queue commands are killed while they move mail about, and the agent that does it for them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;
use lastmile::spool::Spool;

use super::ledger::{left, wait_until_done, whereabouts};
use super::mail::{Arrived, Mail, Totals};
use super::{ALL_DELIVERED, dice, ledger, nap};
use crate::common::agent::{Agent, SOON, Site};
use crate::common::long::short_or_long;
use crate::common::process::{Process, wait_for};
use crate::common::sink::SinkProcess;

/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// When a command is killed at the latest, if it is: most have ended by then.
const KILLED_BY: Duration = Duration::from_millis(80);

/// What a campaign has asked for.
#[derive(Default)]
struct Asked {
    /// Queue IDs that some command was to delete, whether or not it came to that.
    to_be_deleted: BTreeSet<String>,
    commands_killed: usize,
    agents_killed: usize,
    finished: usize,
}

/// A command on some messages, or on all.
fn command(
    dice: &mut Rng,
    site: &Site,
    ids: &[String],
    asked: &mut Asked,
) -> (Command, &'static str, Vec<String>) {
    let action = ["hold", "hold", "release", "release", "requeue", "requeue", "delete"][dice.usize(..7)];
    let mut chosen: Vec<String> =
        (0..dice.usize(1..12)).map(|_| ids[dice.usize(..ids.len())].clone()).collect();
    if action == "delete" {
        chosen.truncate(2);
        asked.to_be_deleted.extend(chosen.iter().cloned());
    } else if dice.u8(..3) == 0 {
        chosen = vec!["ALL".to_owned()];
    }
    let mut command = site.command(&["queue", action]);
    command.args(&chosen).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    (command, action, chosen)
}

/// What a command without an agent has done for certain.
fn assert_done(site: &Site, action: &str, chosen: &[String], asked: &Asked) {
    let places: BTreeMap<_, _> = ledger::messages(site)
        .into_iter()
        .map(|file| file.split_once('/').map(|(place, id)| (id.to_owned(), place.to_owned())).unwrap())
        .collect();
    let expected = match action {
        "hold" => "hold",
        "delete" => "",
        _ => "active",
    };
    let is_meant = |id: &String| chosen[0] == "ALL" && action != "delete" || chosen.contains(id);
    for (id, place) in places.iter().filter(|(id, _)| is_meant(id)) {
        // Only what is on hold can be released.
        let is_right = place == expected || action == "release" && place == "deferred";
        assert!(is_right, "{id} is in {place}/ after {action} {chosen:?}");
    }
    let gone = chosen.iter().filter(|id| *id != "ALL" && !places.contains_key(*id));
    assert!(gone.into_iter().all(|id| asked.to_be_deleted.contains(id)), "{action} {chosen:?}: {places:?}");
}

/// Everybody whom nobody has asked to delete is in one place; the rest is in one place or gone.
fn assert_all_are_there(site: &Site, mails: &[Mail], ids: &BTreeMap<String, String>, asked: &Asked) {
    let there = whereabouts(site);
    for mail in mails {
        let places = there.get(&mail.id).map_or(0, Vec::len);
        let may_be_gone = asked.to_be_deleted.contains(&ids[&mail.id]);
        assert!(places == 1 || places == 0 && may_be_gone, "{}: {:?}", mail.id, there.get(&mail.id));
    }
}

/// One command, with or without an agent; one of them may be killed. Returns the agent that is left.
fn round(
    dice: &mut Rng,
    site: &Site,
    ids: &[String],
    asked: &mut Asked,
    agent: Option<Agent>,
) -> Option<Agent> {
    let agent = agent.or_else(|| dice.bool().then(|| site.start_agent()));
    let (mut command, action, chosen) = command(dice, site, ids, asked);
    let mut process = Process::start("lastmile queue", &mut command);
    let moment = KILLED_BY.mul_f64(dice.f64());
    match (dice.u8(..3), agent) {
        (0, agent) => {
            nap(dice, moment);
            if process.ended().is_none() {
                process.signal(rustix::process::Signal::KILL);
                asked.commands_killed += 1;
            }
            process.wait(COMMAND_LIMIT);
            agent
        }
        (1, Some(agent)) => {
            nap(dice, moment);
            agent.kill();
            asked.agents_killed += 1;
            process.wait(COMMAND_LIMIT);
            None
        }
        (_, agent) => {
            let status = process.wait(COMMAND_LIMIT);
            asked.finished += 1;
            // 1: one of the messages was deleted before.
            assert!(matches!(status.code(), Some(0 | 1)), "queue {action} {chosen:?} ended with {status}");
            if agent.is_none() {
                assert_done(site, action, &chosen, asked);
            }
            agent
        }
    }
}

#[test]
fn a_kill_at_any_moment_of_a_queue_command_loses_nothing() {
    let (count, rounds) = short_or_long((40, 25), (150, 200));
    let (mut dice, seed) = dice();
    let site = Site::new("");
    let full = SinkProcess::start(&site, "full", "rcpt * 450 4.2.1 later\n");
    let to = |sink: &SinkProcess| format!("default_transport = \"lmtp:unix:{}\"\n", sink.socket.display());
    site.configure(&to(&full));
    let agent = site.start_agent();
    let spool = Spool::open(&site.queue()).unwrap();
    let mails: Vec<_> = (0..count)
        .map(|number| Mail::new(&mut dice, number, vec![format!("r{}@example.org", number % 10)], Vec::new()))
        .collect();
    mails.iter().for_each(|mail| mail.drop_queue_file(&spool));
    wait_for("all to be deferred", SOON, || {
        let places = ledger::messages(&site);
        (places.len() == count && places.iter().all(|file| file.starts_with("deferred/"))).then_some(())
    });
    agent.stop();
    let by_message: BTreeMap<_, _> = left(&site).into_iter().map(|left| (left.message, left.id)).collect();
    let ids: Vec<_> = by_message.values().cloned().collect();
    assert_eq!(ids.len(), count);

    let (mut asked, mut agent) = (Asked::default(), None);
    for _ in 0..rounds {
        agent = round(&mut dice, &site, &ids, &mut asked, agent);
        if agent.is_some() && dice.u8(..4) == 0 {
            agent.take().unwrap().kill();
            asked.agents_killed += 1;
        }
        if agent.is_none() {
            assert_all_are_there(&site, &mails, &by_message, &asked);
        }
    }
    if let Some(agent) = agent.take() {
        agent.kill();
    }
    assert_all_are_there(&site, &mails, &by_message, &asked);

    // Whatever is still there arrives, once: nobody's content has left us before.
    let there = whereabouts(&site);
    let sink = SinkProcess::start(&site, "mail", "");
    site.configure(&to(&sink));
    assert!(site.run(&["queue", "requeue", "ALL"], b"").status.success());
    let agent = site.start_agent();
    wait_until_done(&site, ALL_DELIVERED);
    agent.stop();
    assert_eq!(site.files(), Vec::<String>::new());
    let (arrived, mut totals) = (Arrived::look(&sink), Totals::default());
    let kept: Vec<_> = mails.iter().filter(|mail| there.contains_key(&mail.id)).collect();
    kept.iter().for_each(|mail| arrived.count(mail, &ledger::Ledger::default(), &sink, &mut totals));
    arrived.assert_nothing_else(&totals);
    eprintln!(
        "seed {seed}: {count} messages, {rounds} commands: {} finished, {} killed, {} agents killed; {} messages were to \
         be deleted, {} were, {} arrived once, 0 lost",
        asked.finished,
        asked.commands_killed,
        asked.agents_killed,
        asked.to_be_deleted.len(),
        count - kept.len(),
        totals.copies
    );
    assert!(asked.commands_killed + asked.agents_killed > 0, "nobody was killed: it tests nothing");
}
