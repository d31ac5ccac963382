//! Exit codes of a delivery, from what became of each recipient. PURE.
//!
//! - Owns: the codes of smtpc, and which code of sysexits(3) a refusal has.
//! - Leaves to others: failures before anything was sent (`failure`).
//! - Always true: 0 only if every recipient's mail was accepted.

use crate::cli::sendmail::failure::Code;
use crate::cli::sendmail::options::Role;
use crate::mail::{Outcome, Reason};

/// smtpc: the server refused the mail, or us.
const REFUSED: u8 = 253;
/// smtpc: what came from the server is no reply, or none that fits.
const MALFORMED: u8 = 254;
/// smtpc: no connection, or one that broke.
const NETWORK: u8 = 255;

/// The exit code for `count` recipients.
pub(super) fn code(role: Role, count: usize, outcomes: &[Outcome]) -> u8 {
    if outcomes.len() != count {
        // The engine settles everybody; should it ever not, nobody may believe that it has.
        return Code::Software as u8;
    }
    match role {
        Role::Smtpc => of_smtpc(outcomes),
        Role::Sendmail | Role::Mailq | Role::Newaliases => of_sendmail(outcomes),
    }
}

/// A refusal says most, whoever else had no luck; our own trouble says least of the server.
fn of_smtpc(outcomes: &[Outcome]) -> u8 {
    let failed = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Delivered(_)));
    let causes: Vec<_> = failed.map(|outcome| Cause::of(outcome.reason())).collect();
    let order = [
        (Cause::Refused, REFUSED),
        (Cause::Malformed, MALFORMED),
        (Cause::Network, NETWORK),
        (Cause::Local, Code::Temporary as u8),
    ];
    order.iter().find(|(cause, _)| causes.contains(cause)).map_or(0, |(_, code)| *code)
}

/// What stands behind a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A reply, or what the server does not offer.
    Refused,
    /// What is no reply.
    Malformed,
    /// Connecting, waiting, reading, writing.
    Network,
    /// This machine.
    Local,
}

impl Cause {
    fn of(reason: &Reason) -> Self {
        match (reason.status.class(), reason.status.subject_and_detail()) {
            _ if reason.reply.is_some() => Self::Refused,
            (5, _) => Self::Refused,
            (_, (5, _)) => Self::Malformed,
            (_, (4, _)) => Self::Network,
            _ => Self::Local,
        }
    }
}

/// Whoever calls keeps the mail on 75, and only then. So one recipient who may have it later makes it 75 for all. Of
/// refusals alike their code is told, of different ones that it cannot be delivered.
fn of_sendmail(outcomes: &[Outcome]) -> u8 {
    let mut refused = None;
    for outcome in outcomes {
        match outcome {
            Outcome::Delivered(_) => {}
            Outcome::Deferred(_) => return Code::Temporary as u8,
            Outcome::Bounced(reason) => {
                let code = of_refusal(reason);
                refused =
                    Some(if refused.is_none_or(|known| known == code) { code } else { Code::Unavailable });
            }
        }
    }
    refused.map_or(0, |code| code as u8)
}

/// What a permanent refusal is about (RFC 3463). Without a status of its own it may be about anything.
fn of_refusal(reason: &Reason) -> Code {
    match reason.status.subject_and_detail() {
        // The mailbox does not exist, or has moved.
        (1, 1 | 6) => Code::NoUser,
        // The domain does not exist, or takes no mail (RFC 7505).
        (1, 2 | 10) => Code::NoHost,
        // The address is malformed; the sender's, where it is that.
        (1, 3 | 7 | 8) => Code::Data,
        // The content: conversion, or SMTPUTF8, is needed and not to be had.
        (6, _) => Code::Data,
        (7, _) => Code::NoPermission,
        _ => Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "+": delivered. "-5.1.1": a reply that refuses. "?4.4.2", "?5.3.4": decided without a reply.
    fn outcome(text: &str) -> Outcome {
        let (how, status) = text.split_at(1);
        let status = if status.is_empty() { "2.0.0" } else { status };
        let mut reason = Reason::local(status.parse().unwrap(), "");
        reason.reply = (how != "?").then(|| "said".to_owned());
        match reason.status.class() {
            2 => Outcome::Delivered(reason),
            4 => Outcome::Deferred(reason),
            _ => Outcome::Bounced(reason),
        }
    }

    #[test]
    fn codes_tell_what_became_of_the_mail() {
        for (outcomes, sendmail, smtpc) in [
            ("+", 0, 0),
            ("+ +", 0, 0),
            // Refusals.
            ("-5.1.1", 67, 253),
            ("-5.1.6", 67, 253),
            ("-5.1.2", 68, 253),
            ("-5.1.10", 68, 253),
            ("-5.1.3", 65, 253),
            ("-5.1.8", 65, 253),
            ("-5.2.2", 69, 253),
            ("-5.3.4", 69, 253),
            ("-5.0.0", 69, 253),
            ("-5.5.4", 69, 253),
            ("-5.6.0", 65, 253),
            ("-5.7.1", 77, 253),
            ("-4.2.1", 75, 253),
            ("-4.7.1", 75, 253),
            // What the server does not offer.
            ("?5.3.4", 69, 253),
            ("?5.6.3", 65, 253),
            ("?5.6.7", 65, 253),
            // No answer.
            ("?4.5.0", 75, 254),
            ("?4.4.1", 75, 255),
            ("?4.4.2", 75, 255),
            ("?4.4.4", 75, 255),
            ("?4.3.0", 75, 75),
            ("?4.3.2", 75, 75),
            // Several.
            ("+ -5.1.1", 67, 253),
            ("-5.1.1 +", 67, 253),
            ("-5.1.1 -5.1.1", 67, 253),
            ("-5.1.1 -5.1.6", 67, 253),
            ("-5.1.1 -5.7.1", 69, 253),
            ("-5.7.1 -5.1.1 -5.7.1", 69, 253),
            ("-5.1.1 -4.2.1", 75, 253),
            ("-4.2.1 -5.1.1", 75, 253),
            ("+ ?4.4.2", 75, 255),
            ("?4.4.2 -5.1.1", 75, 253),
            ("?4.4.2 ?4.5.0", 75, 254),
            ("?4.3.0 ?4.4.1", 75, 255),
        ] {
            let outcomes_: Vec<_> = outcomes.split(' ').map(outcome).collect();
            let count = outcomes_.len();
            assert_eq!(code(Role::Sendmail, count, &outcomes_), sendmail, "{outcomes}");
            assert_eq!(code(Role::Smtpc, count, &outcomes_), smtpc, "{outcomes}");
        }
    }

    #[test]
    fn a_recipient_without_outcome_was_not_delivered_to() {
        for role in [Role::Sendmail, Role::Smtpc] {
            assert_eq!(code(role, 2, &[outcome("+")]), 70);
        }
    }
}
