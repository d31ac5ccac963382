//! Mail on its way from `incoming/` to `active/`, at any instant.
//!
//! - Owns: that a dropped file leads to its message wherever the pickup was; that a bare message keeps its envelope.
//! - Leaves to others: submission itself.
//! - Always true: the agent rests while the disk is copied.

use std::collections::BTreeSet;

use serde_json::json;

use super::disk::{FileSystem, Machine, Stopped, stop, stop_when, write_back_some};
use super::mail::{
    GOOD, Promises, SENDER, assert_everybody_is_served, draft, machine_and_server, message, promise,
    some_time,
};
use crate::common::agent::{Agent, SOON};
use crate::common::long::short_or_long;

use lastmile::spool::{Spool, SubmitLimits};

/// Takes long enough to be copied that the agent can be stopped meanwhile.
const LARGE: usize = 8_000_000;
/// Instants for which one machine is good: what is deferred or doubled gathers.
const INSTANTS_AT_ONCE: usize = 8;

/// Drops a bare message and writes its job line.
fn submit_bare(machine: &Machine, name: &str, content: &[u8]) {
    let queue_file = machine.site.drop_message(name, content);
    machine.site.write_job(&json!({"queue_file": queue_file, "sender": SENDER, "recipients": GOOD}));
}

/// Drops a queue file, as sendmail does for anybody.
fn submit_queue_file(machine: &Machine, content: &[u8]) {
    let spool = Spool::open(&machine.site.queue()).unwrap();
    let limits = SubmitLimits::default();
    spool.drop_incoming(draft(&GOOD), &mut &content[..], &limits).unwrap();
}

fn has_left_incoming(machine: &Machine, name: &str) -> bool {
    !machine.site.queue().join("incoming").join(name).exists()
}

#[test]
fn a_bare_message_that_has_left_incoming_keeps_its_recipients() {
    for &kind in FileSystem::all() {
        let Some((machine, server)) = machine_and_server(kind, "rcpt * delay 100ms\n") else { continue };
        let agent = machine.site.start_agent();
        let (mut caught, instants) = (0, short_or_long(2, 20));
        for number in 0..instants {
            let subject = format!("bare-{number}");
            submit_bare(&machine, &subject, &message(&subject, LARGE));
            let stopped = stop_when(&agent, || has_left_incoming(&machine, &subject)).unwrap();
            let survived = machine.after_power_loss();
            let is_being_copied = machine.site.files().iter().any(|name| name.ends_with(".in"));
            caught += usize::from(is_being_copied);
            let before = server.served();
            drop(stopped);
            let mut promises = Promises::new();
            promise(&mut promises, &subject, &GOOD);
            assert_everybody_is_served(&survived, &promises, &before, &format!("{kind:?}, {subject}"));
            machine.site.wait_for_lines(number + 1, &["status=sent", GOOD[1]], SOON);
        }
        eprintln!("{kind:?}: {instants} instants, {caught} of them within a pickup");
        assert!(caught > 0, "no pickup was under way when the power failed: it tests nothing");
        agent.stop();
    }
}

#[test]
fn at_any_instant_of_a_pickup_a_dropped_file_leads_to_its_message() {
    for &kind in FileSystem::all() {
        let mut places = BTreeSet::new();
        for round in 0..short_or_long(1, 12) {
            let Some((machine, server)) = machine_and_server(kind, "data-done * delay 20ms\n") else { break };
            let agent = machine.site.start_agent();
            let mut promises = Promises::new();
            for instant in 0..INSTANTS_AT_ONCE {
                let subject = |way: &str| format!("{way}-{round}-{instant}");
                let mut bare = Vec::new();
                for (way, size) in [("small", 500), ("large", 1_000_000)] {
                    let dropped = subject(way);
                    submit_queue_file(&machine, &message(&dropped, size));
                    promise(&mut promises, &dropped, &GOOD);
                    let name = subject(&format!("bare-{way}"));
                    submit_bare(&machine, &name, &message(&name, size));
                    bare.push(name);
                }
                let stopped = stop_within_pickup(&machine, &agent);
                write_back_some(&machine);
                let survived = machine.after_power_loss();
                // The writer of the others knows that they are not taken yet.
                bare.retain(|name| has_left_incoming(&machine, name));
                bare.iter().for_each(|name| promise(&mut promises, name, &GOOD));
                let before = server.served();
                drop(stopped);
                places.extend(survived.site.files().iter().map(|name| place_of(name)));
                let when = format!("{kind:?}, {}", subject("instant"));
                assert_everybody_is_served(&survived, &promises, &before, &when);
            }
            agent.stop();
        }
        eprintln!("{kind:?}: {} instants, files in {places:?}", short_or_long(1, 12) * INSTANTS_AT_ONCE);
    }
}

/// Stops an agent at some time, or right after one of the steps of a pickup.
fn stop_within_pickup<'a>(machine: &Machine, agent: &'a Agent) -> Stopped<'a> {
    let is_any = |wanted: &dyn Fn(&str) -> bool| machine.site.files().iter().any(|name| wanted(name));
    let is_claimed = |name: &str| name.ends_with(".in");
    match fastrand::u8(0..4) {
        0 => {
            some_time(25);
            return stop(agent);
        }
        1 => stop_when(agent, || is_any(&is_claimed)),
        2 => stop_when(agent, || is_any(&|name| name.starts_with("active/"))),
        _ => {
            let mut was_claimed = false;
            stop_when(agent, || {
                let is_claimed = is_any(&is_claimed);
                let is_through = was_claimed && !is_claimed;
                was_claimed |= is_claimed;
                is_through || !is_any(&|name| name.starts_with("incoming/"))
            })
        }
    }
    .unwrap_or_else(|| stop(agent))
}

/// The directory, and for a claimed file that it is one.
fn place_of(name: &str) -> String {
    let directory = name.split('/').next().unwrap_or_default();
    if name.ends_with(".in") { format!("{directory} (claimed)") } else { directory.to_owned() }
}
