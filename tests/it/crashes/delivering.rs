//! The agent is killed while it delivers.

use std::time::Duration;

use fastrand::Rng;
use lastmile::spool::Spool;

use super::ledger::{Ledger, messages, wait_until_done};
use super::mail::{Arrived, Mail, Totals, assert_one_id_each, write_jobs};
use super::{ALL_DELIVERED, HURRY, dice, nap, wait_for_goal};
use crate::common::agent::Site;
use crate::common::long::{is_long, short_or_long};
use crate::common::sink::SinkProcess;

/// Workers of the agent: each may have one batch in flight.
const WORKERS: usize = 4;
/// Mailboxes that messages share.
const MAILBOXES: usize = 40;
/// Recipients of a message at most: several batches.
const RECIPIENTS_MAX: usize = 8;

/// What the server does: slow enough that a kill finds deliveries under way; some it refuses, early or late; some it
/// takes at the second attempt only.
fn script(mails: &[Mail]) -> String {
    let mut script = "rcpt no-r* 550 5.1.1 no such user\ndata-done no-d* 550 5.7.1 not this one\n".to_owned();
    for address in mails.iter().flat_map(|mail| &mail.accepted) {
        if address.starts_with("late-r") {
            script.push_str(&format!("rcpt {address} times 1 450 4.2.1 mailbox locked\n"));
        } else if address.starts_with("late-d") {
            script.push_str(&format!("data-done {address} times 1 451 4.3.0 try again\n"));
        }
    }
    script + "data-done * delay 10ms\n"
}

/// Half of the mail has one recipient; of all recipients one in eight is refused, one in eight deferred first.
fn mail(dice: &mut Rng, number: usize) -> Mail {
    let count = if dice.bool() { 1 } else { dice.usize(2..=RECIPIENTS_MAX) };
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    let first = dice.usize(..MAILBOXES);
    for at in 0..count {
        let stage = if dice.bool() { "r" } else { "d" };
        match dice.u8(..8) {
            0 => refused.push(format!("no-{stage}{number}.{at}@example.org")),
            1 => accepted.push(format!("late-{stage}{number}.{at}@example.org")),
            _ => accepted.push(format!("r{}@example.org", (first + at) % MAILBOXES)),
        }
    }
    Mail::new(dice, number, accepted, refused)
}

/// By the sendmail command, as a dropped queue file, as a bare file whose job line is still to come.
fn submit(dice: &mut Rng, site: &Site, mail: &Mail) {
    match dice.u8(..3) {
        0 => site.sendmail(&mail.arguments(), &mail.content),
        1 => mail.drop_queue_file(&Spool::open(&site.queue()).unwrap()),
        _ => drop(site.drop_message(&mail.bare_name(), &mail.content)),
    }
}

/// Runs an agent to a random moment: one in four starts is not even waited for.
fn run_and_kill(dice: &mut Rng, site: &Site, sink: &SinkProcess, mails: &[Mail]) {
    if dice.u8(..4) == 0 {
        let agent = site.begin_agent();
        nap(dice, Duration::from_millis(150));
        return agent.kill();
    }
    let waiting = messages(site).len();
    let agent = site.start_agent();
    write_jobs(site, mails);
    let goal = sink.count() + dice.usize(..=waiting);
    wait_for_goal(|| sink.count() >= goal);
    nap(dice, Duration::from_millis(30));
    agent.kill();
}

#[test]
fn a_kill_at_any_moment_of_a_delivery_loses_nothing_and_doubles_what_was_in_doubt_at_most() {
    let (count, kills) = short_or_long((120, 6), (500, 20));
    let (mut dice, seed) = dice();
    let mails: Vec<_> = (0..count).map(|number| mail(&mut dice, number)).collect();
    let site = Site::new("");
    let sink = SinkProcess::start(&site, "mail", &script(&mails));
    site.configure(&format!(
        "default_transport = \"lmtp:unix:{}\"\nworkers = {WORKERS}\nworkers_reserved = 0\n{HURRY}\
         [transport.lmtp]\ndestination_recipient_limit = 3",
        sink.socket.display()
    ));
    // Its first start makes the queue; nobody needs it for submitting.
    site.start_agent().stop();
    let mut ledger = Ledger::default();
    for share in mails.chunks(count.div_ceil(kills)) {
        share.iter().for_each(|mail| submit(&mut dice, &site, mail));
        run_and_kill(&mut dice, &site, &sink, &mails);
        ledger.after_kill(&site, &sink, WORKERS);
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
    eprintln!(
        "seed {seed}: {count} messages, {} kills, {} recipients in doubt after them, {} warnings, {totals:?}, 0 lost",
        ledger.kills,
        ledger.doubts(),
        ledger.warnings
    );
    assert!(!is_long() || ledger.doubts() > 0, "no kill has found a delivery under way: it tests nothing");
}
