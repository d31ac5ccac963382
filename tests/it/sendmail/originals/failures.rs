//! What goes wrong besides the command line: size, the queue, the configuration, the caller.

use super::case::{Does, Trouble, case, misuse, refused, refuses, submits};
use super::check;

const NOBODY: u32 = 65_534;
/// A uid without a login name.
const NAMELESS: u32 = 54_322;

#[test]
fn messages_that_are_too_large() {
    let large = |octets: usize| format!("From: a@x\n\n{}", "line\n".repeat(octets / 5));
    check(&[
        refused(&["-f", "a@x", "b@y"], 69).input(large(20_000)),
        refused(&["-f", "a@x", "-t", "b@y"], 69).input(large(20_000)),
        refused(&["-f", "a@x", "b@y"], 69).input(large(2_000_000)),
    ]);
}

#[test]
fn queues_and_configurations_that_cannot_be_used() {
    const LATER: &str =
        "the server may be there later; a queue directory that is not there is somebody's mistake";
    check(&[
        refused(&["-f", "a@x", "b@y"], 69).with(Trouble::Missing).msmtp(refuses(75), LATER),
        refused(&["-f", "a@x", "b@y"], 69).by(NOBODY).with(Trouble::Missing).msmtp(refuses(75), LATER),
        case(&["-f", "a@x", "b@y"], refuses(73))
            .with(Trouble::Closed)
            .by(NOBODY)
            .postfix(Does::Waits, "its postdrop(1) tries again until it is killed; the caller waits with it")
            .msmtp(refuses(76), "EX_PROTOCOL, for whatever the server's greeting says"),
        case(&["-f", "a@x", "b@y"], refuses(75))
            .with(Trouble::Full)
            .postfix(submits("<a@x> -> <b@y>"), "only its smtpd(8) looks how much room there is")
            .msmtp(refuses(69), "it does not tell a refusal for now from one for good"),
        refused(&["-f", "a@x", "b@y"], 78).with(Trouble::Configuration),
        // What is wrong with the command line is said first: it does not depend on the machine.
        misuse(&["-z", "b@y"]).with(Trouble::Configuration),
    ]);
}

#[test]
fn callers_without_privileges() {
    check(&[
        case(&["-f", "a@x", "b@y"], submits("<a@x> -> <b@y>")).by(NOBODY),
        case(&["b@y"], submits("<nobody@example> -> <b@y>")).by(NOBODY),
        case(&["-f", "root@example", "b@y"], submits("<me> -> <b@y>")).by(NOBODY),
        case(&["-f", "a@x", "b@y"], submits("<a@x> -> <b@y>")).by(NAMELESS),
        // Ours alone: who names a nexthop decides who gets the mail of others.
        case(&["-f", "a@x", "--nexthop", "mx:24", "b@y"], refuses(77))
            .by(NOBODY)
            .postfix(refuses(75), "it has no long options")
            .msmtp(refuses(64), "it does not have the option"),
        refused(&["b@y"], 67)
            .by(NAMELESS)
            .msmtp(submits("<unknown@example> -> <b@y>"), "it makes a name up; bounces would go to nobody"),
    ]);
}
