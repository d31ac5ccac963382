//! The end of an attempt, at any instant: marks, bounces, deferrals, removals.
//!
//! - Owns: that nobody is marked as served who is not, and that a bounce is on disk before its cause goes.
//! - Leaves to others: what a bounce says (`notice`).
//! - Always true: after a power loss mail may come twice; that is allowed for the last seconds, and not looked at.

use std::collections::BTreeSet;
use std::fs;

use lastmile::mail::QueueId;
use lastmile::spool::{Place, Spool, SubmitLimits};

use super::disk::{FileSystem, Machine, stop, stop_when, write_back_some};
use super::mail::{
    BUSY, GOOD, Promises, REFUSED, assert_everybody_is_served, draft, machine_and_server, message, promise,
    some_time,
};
use crate::common::long::short_or_long;

/// Instants for which one machine is good: what is deferred gathers, and takes its time.
const INSTANTS_WITH_DEFERRED: usize = 3;
const INSTANTS_WITHOUT: usize = 8;
/// The first server puts one recipient off, for as long as it is there.
const SCRIPT: &str = "rcpt busy@* 450 4.2.0 not now\ndata-done * delay 5ms\n";

/// Queues a message as the queue's owner does.
fn submit(machine: &Machine, subject: &str, recipients: &[&str], size: usize) -> QueueId {
    let spool = Spool::open(&machine.site.queue()).unwrap();
    let content = message(subject, size);
    let id = spool.submit(draft(recipients), &mut content.as_slice(), &SubmitLimits::default()).unwrap();
    spool.announce(id).unwrap();
    id
}

/// The states of the recipients of every message on a disk.
fn states(machine: &Machine) -> BTreeSet<String> {
    let spool = Spool::open(&machine.site.queue()).unwrap();
    let in_place = |place: Place| {
        let names = spool.names(place).unwrap().map(|entry| entry.unwrap());
        let files = names.filter_map(|entry| spool.open_message(entry.id()?, place).ok());
        let letters =
            files.map(|file| file.states().unwrap().iter().map(|state| char::from(state.byte())).collect());
        letters.map(|letters: String| format!("{place}: {letters}")).collect::<Vec<_>>()
    };
    [Place::Active, Place::Deferred].into_iter().flat_map(in_place).collect()
}

/// Whether a message has come to an end that was its last: it is gone, or has a mark that is final.
fn is_settled(machine: &Machine, id: QueueId, marks: &[u8]) -> bool {
    let Ok(octets) = fs::read(machine.site.queue().join("active").join(id.as_str())) else { return true };
    let line = octets.split(|&octet| octet == b'\n').nth(2).unwrap_or_default();
    marks.iter().all(|mark| line.contains(mark))
}

/// Brings the marks of a message to the disk, as the kernel may do at any time.
fn write_back(machine: &Machine, id: QueueId) {
    if let Ok(file) = fs::File::open(machine.site.queue().join("active").join(id.as_str())) {
        file.sync_all().unwrap();
    }
}

/// Lets an agent work on mixed mail, fails the power at moments that `stop_at` chooses, and sees that all are served.
fn nobody_is_forgotten(
    instants: usize,
    mixed: &[&str],
    stop_at: impl for<'a> Fn(&Machine, &'a crate::common::agent::Agent, QueueId) -> super::disk::Stopped<'a>,
) {
    for &kind in FileSystem::all() {
        let mut found = BTreeSet::new();
        let rounds = short_or_long(1, 12);
        for round in 0..rounds {
            let Some((machine, server)) = machine_and_server(kind, SCRIPT) else { break };
            let agent = machine.site.start_agent();
            let mut promises = Promises::new();
            for instant in 0..instants {
                let mut send = |what: &str, recipients: &[&str], size: usize| {
                    let subject = format!("{what}-{round}-{instant}");
                    let id = submit(&machine, &subject, recipients, size);
                    promise(&mut promises, &subject, recipients);
                    id
                };
                send("mixed", mixed, 500);
                send("good", &GOOD, 100_000);
                let refused = send("refused", &[GOOD[0], REFUSED[0], REFUSED[1]], 500);
                let stopped = stop_at(&machine, &agent, refused);
                write_back_some(&machine);
                let survived = machine.after_power_loss();
                let before = server.served();
                drop(stopped);
                found.extend(states(&survived));
                let when = format!("{kind:?}, round {round}, instant {instant}");
                assert_everybody_is_served(&survived, &promises, &before, &when);
            }
            agent.stop();
        }
        eprintln!("{kind:?}: {} instants; on disk were {found:?}", rounds * instants);
    }
}

#[test]
fn at_any_instant_of_a_delivery_everybody_is_served_or_still_owed() {
    let mixed = [GOOD[0], BUSY, REFUSED[0], GOOD[1], REFUSED[1]];
    nobody_is_forgotten(INSTANTS_WITH_DEFERRED, &mixed, |_, agent, _| {
        some_time(60);
        stop(agent)
    });
}

#[test]
fn a_bounce_is_on_disk_before_the_message_goes() {
    nobody_is_forgotten(INSTANTS_WITHOUT, &[GOOD[0], REFUSED[0], GOOD[1]], |machine, agent, id| {
        let stopped = stop_when(agent, || is_settled(machine, id, b"B")).unwrap();
        write_back(machine, id);
        stopped
    });
}

#[test]
fn a_refusal_that_is_marked_is_still_owed() {
    nobody_is_forgotten(INSTANTS_WITHOUT, &[GOOD[0], REFUSED[0], GOOD[1]], |machine, agent, id| {
        let stopped = stop_when(agent, || is_settled(machine, id, b"R")).unwrap();
        write_back(machine, id);
        stopped
    });
}
