//! Who has to be told about a recipient's outcome, and what it means when one of them cannot be.
//!
//! - Owns: the table of outcomes and kinds of requests; the delivery status filter; the words of the log line.
//! - Leaves to others: telling (`services`), writing the line, marking the recipient.
//! - Always true: "done" is never said of a recipient who was neither delivered nor reported as returned, and a mark
//!   is made only where "done" is said.
//!
//! | outcome | probe by Postfix | probe by a user | mail |
//! |---|---|---|---|
//! | sent | verify(8) | trace(8) | trace(8) where it was asked for; if that fails, deferred |
//! | bounced | verify(8) | trace(8) | bounce(8), and trace(8) where asked; if one fails, deferred |
//! | deferred | verify(8) | trace(8) | defer(8), and trace(8) where asked; if one fails, deferred all the same |
//!
//! A probe is done once it is told; if it cannot be told it is not done, and there is no line. Mail is done when it is
//! sent or bounced.

use std::borrow::Cow;

use super::call::{self, Call, Entry, Service, ServiceNames, Verified};
use crate::mail::{EnhancedStatus, Outcome, Protocol, Reason};
use crate::postfix::address;
use crate::postfix::request::{Recipient, RequestFlags};

/// NOTIFY=SUCCESS.
const NOTIFY_SUCCESS: u32 = 2;
/// NOTIFY=DELAY.
const NOTIFY_DELAY: u32 = 8;

/// What stands in the place of a server where there was none.
pub const NO_RELAY: &str = "none";

/// What the administrator has decided about reports.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The names of the daemons.
    pub names: ServiceNames,
    /// Refusals put mail off instead of returning it (`soft_bounce`).
    pub soft_bounce: bool,
    /// verify(8) hears of bad addresses too (`address_verify_negative_cache`).
    pub negative_cache: bool,
    /// What is spoken.
    pub protocol: Protocol,
    /// The server keeps the mailboxes: mail that it takes is delivered, not relayed (flag `X`, LMTP).
    pub final_delivery: bool,
}

/// How an attempt ended for a recipient.
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    /// The message.
    pub queue_id: &'a str,
    /// What qmgr(8) wants.
    pub flags: RequestFlags,
    /// For whom.
    pub recipient: &'a Recipient,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// The server as the log writes it, or `none` where there was no session.
    pub relay: &'a str,
    /// The server's host name; our own for a UNIX socket; may be empty where there was no session.
    pub host: &'a str,
    /// The server has offered DSN: it tells the sender of a success.
    pub reports_success: bool,
}

/// The delivery status filter: what the tables have for a status and its text.
pub type Filter<'a> = &'a dyn Fn(&str) -> Result<Option<String>, String>;

/// What the log says of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged<'a> {
    /// `sent` and the like.
    pub word: &'static str,
    /// The enhanced status.
    pub status: EnhancedStatus,
    /// Why.
    pub text: Cow<'a, str>,
}

/// Who is to be told, in which order, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Before the log line: one after the other, up to the first that fails.
    pub calls: Vec<Call>,
    /// What follows if one fails.
    pub on_failure: OnFailure<'a>,
    /// The log line.
    pub line: Logged<'a>,
    /// After the log line: an entry for a report that somebody asked for. If it fails, nothing changes.
    pub record: Option<Call>,
    /// After that: the domain that the message waits for, for flush(8). If it fails, nothing changes.
    pub waits_for: Option<&'a [u8]>,
    /// Where in the queue file the recipient is to be marked.
    pub mark: Option<u64>,
    /// Whether the recipient is accounted for. If not, the final reply is that the message stays.
    pub is_done: bool,
}

/// What follows if somebody cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnFailure<'a> {
    /// Nothing else: the plan goes on.
    GoOn,
    /// No log line, and the recipient is not done.
    NotDone,
    /// Another plan takes the place of this one.
    Instead(Box<Plan<'a>>),
}

/// Something that a plan wants done.
#[derive(Debug)]
pub enum Act<'p> {
    /// Tell a daemon; true if it has said yes.
    Tell(&'p Call),
    /// Tell flush(8), should it want to know of this domain.
    WaitsFor(&'p [u8]),
    /// Write the log line.
    Log(&'p Logged<'p>),
    /// Warn that a daemon could not be told.
    Warn(Service),
}

/// What a plan came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// What was logged; `None` for a probe that could not be told of.
    pub line: Option<Logged<'a>>,
    /// Where in the queue file the recipient is to be marked.
    pub mark: Option<u64>,
    /// Whether the recipient is accounted for.
    pub is_done: bool,
}

impl<'a> Plan<'a> {
    /// Does what the plan says. `act` does the single things.
    pub fn carry_out(self, act: &mut dyn FnMut(Act<'_>) -> bool) -> Verdict<'a> {
        let Self { calls, on_failure, line, record, waits_for, mark, is_done } = self;
        for call in &calls {
            if act(Act::Tell(call)) {
                continue;
            }
            // Of a refusal that bounce(8) cannot be told of, the line of the plan in its place tells.
            if call.service == Service::Trace || !matches!(on_failure, OnFailure::Instead(_)) {
                act(Act::Warn(call.service));
            }
            match on_failure {
                OnFailure::GoOn => {}
                OnFailure::NotDone => return Verdict { line: None, mark: None, is_done: false },
                OnFailure::Instead(plan) => return plan.carry_out(act),
            }
        }
        act(Act::Log(&line));
        if let Some(call) = &record
            && !act(Act::Tell(call))
        {
            act(Act::Warn(call.service));
        }
        if let Some(domain) = waits_for
            && !act(Act::WaitsFor(domain))
        {
            act(Act::Warn(Service::Flush));
        }
        Verdict { line: Some(line), mark, is_done }
    }
}

/// Decides who has to be told. Also returns what is wrong with the filter, for the log.
pub fn decide<'a>(
    policy: &Policy,
    attempted: &Attempted<'a>,
    filter: Option<Filter<'_>>,
) -> (Plan<'a>, Option<String>) {
    let outcome = Ended::new(attempted.outcome);
    let (outcome, problem) = match filter {
        Some(filter) => filtered(outcome, filter),
        None => (outcome, None),
    };
    let Attempted { recipient, flags, reports_success, .. } = *attempted;
    // The server tells the sender then.
    let is_told = reports_success && outcome.class == Class::Sent;
    let notify = if is_told { recipient.notify & !NOTIFY_SUCCESS } else { recipient.notify };
    let report = Report { policy, attempted, notify, said: said(attempted) };
    let plan = match (flags.is_probe_mta(), flags.is_probe_usr(), outcome.class) {
        (true, _, _) => report.verified(outcome),
        (false, true, _) => report.probed(outcome),
        (false, false, Class::Sent) => report.sent(outcome),
        (false, false, Class::Bounced) => report.bounced(outcome),
        (false, false, Class::Deferred) => report.deferred(outcome.status, outcome.text),
    };
    (plan, problem)
}

/// An outcome that the filter may change.
struct Ended<'a> {
    class: Class,
    status: EnhancedStatus,
    text: Cow<'a, str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Sent,
    Deferred,
    Bounced,
}

impl Class {
    /// The first digit of the status.
    fn digit(self) -> u8 {
        match self {
            Self::Sent => 2,
            Self::Deferred => 4,
            Self::Bounced => 5,
        }
    }
}

impl<'a> Ended<'a> {
    fn new(outcome: &'a Outcome) -> Self {
        let class = match outcome {
            Outcome::Delivered(_) => Class::Sent,
            Outcome::Deferred(_) => Class::Deferred,
            Outcome::Bounced(_) => Class::Bounced,
        };
        let Reason { status, text, .. } = outcome.reason();
        // A status that contradicts the outcome says nothing: bounce(8) and the analysers go by its first digit.
        let is_sane = status.class() == class.digit();
        let status = if is_sane { *status } else { EnhancedStatus::new(class.digit(), 0, 0) };
        Self { class, status, text: Cow::Borrowed(text) }
    }
}

/// Puts what the filter has in the place of status and text. A refusal may become a deferral and the other way round;
/// nothing makes a success of a failure, or a failure of a success.
fn filtered<'a>(ended: Ended<'a>, filter: Filter<'_>) -> (Ended<'a>, Option<String>) {
    let found = match filter(&format!("{} {}", ended.status, ended.text)) {
        Ok(Some(found)) => found,
        Ok(None) => return (ended, None),
        Err(problem) => return (ended, Some(problem)),
    };
    let (status, text) = found.trim().split_once([' ', '\t']).unwrap_or((found.trim(), ""));
    let status = status.parse::<EnhancedStatus>().ok();
    let class = match status.map(EnhancedStatus::class) {
        Some(2) if ended.class == Class::Sent => Class::Sent,
        Some(4) if ended.class != Class::Sent => Class::Deferred,
        Some(5) if ended.class != Class::Sent => Class::Bounced,
        _ => return (ended, Some(format!("bad status code in the delivery status filter: {found}"))),
    };
    let status = status.unwrap_or(ended.status);
    let text = match text.trim_start() {
        "" => ended.text,
        text => Cow::Owned(text.to_owned()),
    };
    (Ended { class, status, text }, None)
}

/// The server's words and its name, where the outcome is an answer of a server.
fn said<'a>(attempted: &Attempted<'a>) -> Option<(&'a str, &'a str)> {
    attempted.outcome.reason().reply.as_deref().map(|reply| (reply, attempted.host))
}

/// Everything that the plans for a recipient have in common.
struct Report<'a, 'p> {
    policy: &'p Policy,
    attempted: &'p Attempted<'a>,
    notify: u32,
    said: Option<(&'a str, &'a str)>,
}

impl<'a> Report<'a, '_> {
    /// Where the recipient is marked. The first octet of a queue file is never a recipient.
    fn mark(&self) -> Option<u64> {
        self.attempted.recipient.offset.filter(|&offset| offset > 0)
    }

    fn mark_of_sent(&self) -> Option<u64> {
        self.mark().filter(|_| self.attempted.flags.success_marks())
    }

    fn append(&self, service: Service, status: EnhancedStatus, action: &str, reason: &str) -> Call {
        let Attempted { queue_id, flags, recipient, .. } = *self.attempted;
        let (flags, notify, said) = (flags.trace_flags(), self.notify, self.said);
        Entry { flags, queue_id, recipient, notify, status, said, action, reason }.append_to(service)
    }

    /// An entry for a report, which tells the way too.
    fn trace(&self, status: EnhancedStatus, action: &str, reason: &str) -> Call {
        match self.attempted.relay {
            NO_RELAY => self.append(Service::Trace, status, action, reason),
            relay => self.append(Service::Trace, status, action, &format!("delivery via {relay}: {reason}")),
        }
    }

    /// A probe by Postfix: verify(8) hears of the address before aliases and the like, and of the one after.
    fn verified(&self, Ended { class, status, text }: Ended<'a>) -> Plan<'a> {
        let Recipient { original, address, .. } = self.attempted.recipient;
        let (mut word, verified) = match class {
            Class::Sent => ("deliverable", Verified::Deliverable),
            Class::Deferred => ("undeliverable", Verified::Deferred),
            Class::Bounced => ("undeliverable", Verified::Bounced),
        };
        let mut calls = Vec::new();
        if verified == Verified::Deliverable || self.policy.negative_cache {
            if !original.is_empty() {
                calls.push(call::update(original, verified, &text));
            }
            if original != address {
                calls.push(call::update(address, verified, &text));
            }
        } else {
            word = "undeliverable-but-not-cached";
        }
        self.probe(class, calls, Logged { word, status, text })
    }

    /// A probe by a user, who gets a report.
    fn probed(&self, Ended { class, status, text }: Ended<'a>) -> Plan<'a> {
        let word = if class == Class::Sent { "deliverable" } else { "undeliverable" };
        let call = self.trace(status, word, &text);
        self.probe(class, vec![call], Logged { word, status, text })
    }

    /// Whatever it found, a probe is done once it is told.
    fn probe(&self, class: Class, calls: Vec<Call>, line: Logged<'a>) -> Plan<'a> {
        let mark = if class == Class::Sent { self.mark_of_sent() } else { self.mark() };
        Plan {
            calls,
            on_failure: OnFailure::NotDone,
            line,
            record: None,
            waits_for: None,
            mark,
            is_done: true,
        }
    }

    fn sent(&self, Ended { status, text, .. }: Ended<'a>) -> Plan<'a> {
        let was_late = self.notify == 0 || self.notify & NOTIFY_DELAY != 0;
        let flags = self.attempted.flags;
        let is_recorded = flags.record() || (flags.rec_dly_sent() && was_late);
        let wanted = [is_recorded, self.notify & NOTIFY_SUCCESS != 0];
        let calls: Vec<_> = wanted
            .into_iter()
            .filter(|is_wanted| *is_wanted)
            .map(|_| self.trace(status, self.action_of_sent(), &text))
            .collect();
        // Most mail wants no report: then nothing can fail, and there is nothing to prepare for that.
        let on_failure = if calls.is_empty() { OnFailure::GoOn } else { self.unreported_success() };
        Plan {
            calls,
            on_failure,
            line: Logged { word: "sent", status, text },
            record: None,
            waits_for: None,
            mark: self.mark_of_sent(),
            is_done: true,
        }
    }

    /// A server that knows DSN may tell the sender more; one that does not is where the mail ends, if it keeps the
    /// mailboxes.
    fn action_of_sent(&self) -> &'static str {
        let Policy { protocol, final_delivery, .. } = *self.policy;
        let is_final = final_delivery && protocol == Protocol::Lmtp && !self.attempted.reports_success;
        if is_final { "delivered" } else { "relayed" }
    }

    /// The sender waits for a report that cannot be written: the mail may come twice rather than the report never.
    fn unreported_success(&self) -> OnFailure<'a> {
        let text = format!("{}: {} service failed", self.attempted.queue_id, self.policy.names.trace);
        OnFailure::Instead(Box::new(self.deferred(EnhancedStatus::new(4, 3, 0), text.into())))
    }

    fn bounced(&self, Ended { status, text, .. }: Ended<'a>) -> Plan<'a> {
        let is_soft = self.policy.soft_bounce;
        let (service, status, action, word) = if is_soft {
            (Service::Defer, status.with_class(4), "delayed", "SOFTBOUNCE")
        } else {
            (Service::Bounce, status, "failed", "bounced")
        };
        let mut calls = vec![self.append(service, status, action, &text)];
        if self.attempted.flags.record() {
            calls.push(self.trace(status, action, &text));
        }
        let names = &self.policy.names;
        let failure = format!("{} or {} service failure", names.bounce, names.trace);
        let instead = self.deferred(EnhancedStatus::new(4, 3, 0), failure.into());
        Plan {
            calls,
            on_failure: OnFailure::Instead(Box::new(instead)),
            line: Logged { word, status, text },
            record: None,
            waits_for: None,
            mark: self.mark().filter(|_| !is_soft),
            is_done: !is_soft,
        }
    }

    /// The recipient stays, whoever hears of it.
    fn deferred(&self, status: EnhancedStatus, text: Cow<'a, str>) -> Plan<'a> {
        let call = self.append(Service::Defer, status, "delayed", &text);
        let record = self.attempted.flags.record().then(|| self.trace(status, "delayed", &text));
        let domain = address::domain(&self.attempted.recipient.address);
        Plan {
            calls: vec![call],
            on_failure: OnFailure::GoOn,
            line: Logged { word: "deferred", status, text },
            record,
            waits_for: Some(domain).filter(|domain| !domain.is_empty()),
            mark: None,
            is_done: false,
        }
    }
}

#[cfg(test)]
mod tests;
