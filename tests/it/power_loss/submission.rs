//! Submissions that were acknowledged: by the queue's owner, by anybody, through the agent's socket.
//!
//! - Owns: that the whole message is there, octet by octet, right after the acknowledgement.
//! - Leaves to others: what the agent does with it then (`pickup`, `finishing`).
//! - Always true: no time passes between the acknowledgement and the power loss.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lastmile::mail::QueueId;
use lastmile::spool::{Place, Spool};

use super::disk::{FileSystem, Machine, stop};
use super::mail::{GOOD, Promises, SENDER, assert_everybody_is_served, machine_and_server, message, promise};
use crate::common::agent::{LASTMILE, run};
use crate::common::long::short_or_long;

/// Somebody without an account.
const STRANGER: u32 = 54321;
/// Octets: less than a block, more than a write, more than a megabyte.
const SIZES: [usize; 3] = [100, 100_000, 1_500_000];

/// Files of the queue with their content, by place and name.
fn contents(machine: &Machine) -> Vec<(String, Vec<u8>)> {
    let queue = machine.site.queue();
    machine.site.files().into_iter().map(|name| (name.clone(), fs::read(queue.join(name)).unwrap())).collect()
}

/// Fails unless both disks hold the same files, and these are `count` messages in `place`.
#[track_caller]
fn assert_same(survived: &Machine, machine: &Machine, place: &str, count: usize) {
    let (found, expected) = (contents(survived), contents(machine));
    let brief = |files: &[(String, Vec<u8>)]| -> Vec<_> {
        files.iter().map(|(name, content)| format!("{name}: {} octets", content.len())).collect()
    };
    assert!(found == expected, "{:#?}\ninstead of\n{:#?}", brief(&found), brief(&expected));
    let in_place = found.iter().filter(|(name, _)| name.starts_with(place)).count();
    assert_eq!((found.len(), in_place), (count, count), "{:#?}", brief(&found));
}

/// Runs sendmail as somebody who may not write to `active/`.
#[track_caller]
fn sendmail_as_stranger(machine: &Machine, content: &[u8]) {
    // The build directory may be closed to others.
    let copy = machine.site.path().join("lastmile");
    if !copy.exists() {
        fs::copy(LASTMILE, &copy).unwrap();
        fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={STRANGER}")).arg(format!("--regid={STRANGER}"));
    command.args(["--clear-groups", "--"]).arg(copy).args(["sendmail", "-i", "-f", SENDER]).args(GOOD);
    command.env_clear().env("LASTMILE_CONFIG", machine.site.config()).current_dir("/");
    let output = run(&mut command, content);
    assert!(output.status.success(), "{output:?}");
}

fn sendmail(machine: &Machine, content: &[u8]) {
    machine.site.sendmail(&[&["-i", "-f", SENDER], &GOOD[..]].concat(), content);
}

/// Submits messages of all sizes in one way; after each the power fails, and only the copy goes on.
fn submissions_survive(submit: impl Fn(&Machine, &[u8]), place: &str) {
    for &kind in FileSystem::all() {
        let Some((machine, _server)) = machine_and_server(kind, "") else { continue };
        // It makes the queue; nobody needs it for submitting.
        machine.site.start_agent().stop();
        let mut promises = Promises::new();
        for number in 0..short_or_long(SIZES.len(), 30) {
            let subject = format!("message {number}");
            submit(&machine, &message(&subject, SIZES[number % SIZES.len()]));
            let survived = machine.after_power_loss();
            promise(&mut promises, &subject, &GOOD);
            assert_same(&survived, &machine, place, number + 1);
            if number % SIZES.len() == SIZES.len() - 1 {
                let when = format!("{kind:?}, after message {number}");
                assert_everybody_is_served(&survived, &promises, &Promises::new(), &when);
            }
        }
    }
}

#[test]
fn a_new_queue_is_on_disk_before_anything_is_in_it() {
    for &kind in FileSystem::all() {
        let Some((machine, _server)) = machine_and_server(kind, "") else { continue };
        let agent = machine.site.start_agent();
        let stopped = stop(&agent);
        let survived = machine.after_power_loss();
        drop(stopped);
        Spool::open(&survived.site.queue()).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let mode = |machine: &Machine, place: Place| {
            fs::metadata(machine.site.queue().join(place.name())).unwrap().permissions().mode()
        };
        for place in Place::ALL {
            assert_eq!(mode(&survived, place), mode(&machine, place), "{kind:?}, {place}");
        }
        agent.stop();
    }
}

#[test]
fn what_the_owner_of_the_queue_has_submitted_is_in_active() {
    submissions_survive(sendmail, "active/");
}

#[test]
fn what_anybody_has_submitted_is_in_incoming() {
    submissions_survive(sendmail_as_stranger, "incoming/");
}

#[test]
fn what_the_agent_has_taken_through_its_socket_is_in_active() {
    for &kind in FileSystem::all() {
        let Some((machine, server)) = machine_and_server(kind, "rcpt * delay 1s\n") else { continue };
        let mut promises = Promises::new();
        let agent = machine.site.start_agent();
        // The way of a service that may not write to the queue.
        fs::set_permissions(machine.site.queue().join("incoming"), Permissions::from_mode(0o3700)).unwrap();
        for number in 0..short_or_long(SIZES.len(), 15) {
            let subject = format!("message {number}");
            sendmail_as_stranger(&machine, &message(&subject, SIZES[number % SIZES.len()]));
            let stopped = stop(&agent);
            let survived = machine.after_power_loss();
            let before = server.served();
            drop(stopped);
            promise(&mut promises, &subject, &GOOD);
            let spool = Spool::open(&survived.site.queue()).unwrap();
            let ids = survived
                .site
                .files()
                .into_iter()
                .filter_map(|name| name.strip_prefix("active/")?.parse().ok());
            let whole =
                ids.map(|id: QueueId| spool.open_message(id, Place::Active).map(|file| file.envelope().size));
            let whole = whole.collect::<Result<Vec<_>, _>>().unwrap();
            assert!(
                whole.iter().any(|&size| size >= SIZES[number % SIZES.len()] as u64),
                "{kind:?}: {whole:?}"
            );
            let when = format!("{kind:?}, after message {number}");
            assert_everybody_is_served(&survived, &promises, &before, &when);
        }
        agent.stop();
    }
}
