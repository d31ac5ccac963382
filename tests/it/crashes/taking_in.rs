//! The agent is killed while it takes in what lies in `incoming/`.

use std::collections::BTreeSet;
use std::time::Duration;

use lastmile::spool::Spool;

use super::ledger::{Ledger, messages, names, wait_until_done, whereabouts};
use super::mail::{Arrived, Mail, Totals, assert_one_id_each, write_jobs};
use super::{ALL_DELIVERED, HURRY, dice, nap, wait_for_goal};
use crate::common::agent::Site;
use crate::common::long::short_or_long;
use crate::common::sink::SinkProcess;

const WORKERS: usize = 4;

/// Files that wait to be taken in, or are being so.
fn dropped(site: &Site) -> usize {
    messages(site).iter().filter(|file| file.starts_with("incoming/") || file.starts_with("tmp/")).count()
}

/// Every message is in the queue, or has arrived.
fn assert_nobody_is_missing(site: &Site, sink: &SinkProcess, mails: &[Mail]) {
    let (queued, arrived) = (whereabouts(site), Arrived::look(sink));
    let missing = |mail: &&Mail| !queued.contains_key(&mail.id) && !arrived.has_all_of(mail);
    let missing: Vec<_> = mails.iter().filter(missing).map(|mail| &mail.id).collect();
    assert!(missing.is_empty(), "lost: {missing:?}\n{}", site.log());
}

#[test]
fn a_kill_at_any_moment_of_a_pickup_loses_nothing_and_takes_nothing_in_twice() {
    let (count, kills) = short_or_long((100, 6), (600, 30));
    let (mut dice, seed) = dice();
    let site = Site::new("");
    let sink = SinkProcess::start(&site, "mail", "");
    site.configure(&format!(
        "default_transport = \"lmtp:unix:{}\"\nworkers = {WORKERS}\nworkers_reserved = 0\n{HURRY}",
        sink.socket.display()
    ));
    site.start_agent().stop();
    let spool = Spool::open(&site.queue()).unwrap();
    let mut mails = Vec::new();
    for number in 0..count {
        let mail = Mail::new(&mut dice, number, vec![format!("r{}@example.org", number % 20)], Vec::new());
        if dice.bool() {
            mail.drop_queue_file(&spool);
        } else {
            site.drop_message(&mail.bare_name(), &mail.content);
        }
        mails.push(mail);
    }
    let (mut ledger, mut during, mut claimed) = (Ledger::default(), 0, 0);
    for kill in 0..kills {
        let before = dropped(&site);
        let agent = if dice.u8(..3) == 0 {
            let agent = site.begin_agent();
            nap(&mut dice, Duration::from_millis(100));
            agent
        } else {
            let agent = site.start_agent();
            write_jobs(&site, &mails);
            let goal = dice.usize(..=before.min(2 * before / (kills - kill)));
            wait_for_goal(|| dropped(&site) + goal <= before);
            nap(&mut dice, Duration::from_millis(5));
            agent
        };
        agent.kill();
        let after = dropped(&site);
        during += usize::from(0 < after && after < before);
        claimed += names(&site, "tmp").iter().filter(|name| name.ends_with(".in")).count();
        ledger.after_kill(&site, &sink, WORKERS);
        assert_nobody_is_missing(&site, &sink, &mails);
    }
    let agent = site.start_agent();
    write_jobs(&site, &mails);
    wait_until_done(&site, ALL_DELIVERED);
    agent.stop();
    ledger.after_the_end(&site);

    let (arrived, mut totals) = (Arrived::look(&sink), Totals::default());
    mails.iter().for_each(|mail| arrived.count(mail, &ledger, &sink, &mut totals));
    arrived.assert_nothing_else(&totals);
    assert_one_id_each(&site);
    let senders: BTreeSet<_> = mails.iter().map(|mail| &mail.sender).collect();
    assert_eq!(senders.len(), count);
    eprintln!(
        "seed {seed}: {count} dropped files, {kills} kills, {during} of them between the first and the last file, \
         {claimed} files claimed then, {} recipients in doubt, {totals:?}, 0 lost",
        ledger.doubts()
    );
    assert!(during > 0, "no kill came while there was something to take in: it tests nothing");
}
