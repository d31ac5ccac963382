//! Messages that an administrator holds, releases, requeues and deletes.
//!
//! - Owns: that such a message is in one place, whole, wherever the power loss left it.
//! - Leaves to others: what the commands say (`queue`).
//! - Always true: the word of an administrator may be lost with the power; the mail is not.

use std::fs;

use serde_json::Value;

use super::disk::{FileSystem, Machine, stop, write_back_some};
use super::mail::{GOOD, Promises, SENDER, assert_everybody_is_served, machine_and_server, message, promise};
use crate::common::agent::SOON;
use crate::common::long::short_or_long;
use crate::common::process::wait_for;

/// Everybody is put off, so that there is something to be moved.
const SCRIPT: &str = "rcpt * 450 4.2.0 not now\n";

/// The places of a message: `deferred`, say.
fn places_of(machine: &Machine, id: &str) -> Vec<&'static str> {
    let is_there = |place: &&str| machine.site.queue().join(place).join(id).exists();
    ["active", "deferred", "hold", "corrupt"].into_iter().filter(is_there).collect()
}

fn queue(machine: &Machine, arguments: &[&str]) {
    let output = machine.site.run(&[&["queue"], arguments].concat(), b"");
    assert!(output.status.success(), "queue {arguments:?}: {output:?}\n{}", machine.site.log());
}

/// Queues a message, and waits for it to be deferred.
fn deferred(machine: &Machine, subject: &str) -> String {
    let known = machine.site.queued().len();
    machine.site.sendmail(&[&["-i", "-f", SENDER], &GOOD[..]].concat(), &message(subject, 5000));
    wait_for("the message to be deferred", SOON, || {
        let queued = machine.site.queued();
        let id = |message: &Value| message["id"].as_str().map(str::to_owned);
        let newest = queued.iter().filter_map(id).max().filter(|_| queued.len() > known)?;
        (places_of(machine, &newest) == ["deferred"]).then_some(newest)
    })
}

/// Without the states, which a power loss may set back.
fn content(machine: &Machine, place: &str, id: &str) -> Vec<u8> {
    let octets = fs::read(machine.site.queue().join(place).join(id)).unwrap();
    let states =
        octets.iter().enumerate().filter(|(_, octet)| **octet == b'\n').map(|(at, _)| at).nth(1).unwrap();
    octets[states + GOOD.len() + 2..].to_vec()
}

#[test]
fn a_message_that_an_administrator_moves_is_whole_in_one_place() {
    for &kind in FileSystem::all() {
        let Some((machine, server)) = machine_and_server(kind, SCRIPT) else { continue };
        let agent = machine.site.start_agent();
        let mut instants = 0;
        for number in 0..short_or_long(1, 6) {
            let mut promises = Promises::new();
            let (moved, doomed) = (format!("moved-{number}"), format!("doomed-{number}"));
            let id = deferred(&machine, &moved);
            promise(&mut promises, &moved, &GOOD);
            let other = deferred(&machine, &doomed);
            for action in ["hold", "release", "requeue", "hold", "delete"] {
                let target = if action == "delete" { &other } else { &id };
                queue(&machine, &[action, target]);
                let stopped = stop(&agent);
                write_back_some(&machine);
                let survived = machine.after_power_loss();
                let now = places_of(&machine, &id)[0];
                let whole = content(&machine, now, &id);
                let before = server.served();
                drop(stopped);
                instants += 1;
                let found = places_of(&survived, &id);
                assert_eq!(found.len(), 1, "{kind:?}, {action}: {found:?} of {:?}", survived.site.files());
                assert!(
                    content(&survived, found[0], &id) == whole,
                    "{kind:?}, {action}: its content differs"
                );
                if found == ["hold"] {
                    queue(&survived, &["release", &id]);
                }
                assert_everybody_is_served(&survived, &promises, &before, &format!("{kind:?}, {action}"));
            }
            queue(&machine, &["delete", &id]);
        }
        eprintln!("{kind:?}: {instants} instants");
        agent.stop();
    }
}
