//! Who is told what (RFC 3461 section 5.2, RFC 5321 section 6.1).
//!
//! - Owns: NOTIFY, one notice per sender, copies for the postmaster, and where reports about reports end.
//! - Always true: nobody but the postmaster hears of a message without sender, and nobody at all of one that was
//!   written to the postmaster.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::mail::{Address, Envelope, Notify, Sender};

use super::message::ORIGIN_POSTMASTER;
use super::report::{Kind, ReportedRecipient};

/// What has happened to the recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// They were given up.
    Failed,
    /// They are late.
    Delayed {
        /// When we give up.
        retry_until: Timestamp,
    },
    /// They were handed over to a server that reports no success itself.
    Delivered,
}

/// What the postmaster wants to hear (`notify_classes`).
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Class `bounce`.
    pub copies_of_bounces: bool,
    /// Class `delay`.
    pub copies_of_delays: bool,
    /// Class `2bounce`.
    pub double_bounces: bool,
    /// `error_notice_recipient`.
    pub postmaster: &'a Address,
}

/// A report that is due.
#[derive(Clone, Debug)]
pub struct Addressed<'a> {
    /// About what.
    pub kind: Kind,
    /// To whom.
    pub to: Address,
    /// Its recipients, never none.
    pub recipients: Vec<ReportedRecipient<'a>>,
}

/// Decides which reports are due. Recipients with the same sender share one.
pub fn plan<'a>(
    event: Event,
    envelope: &Envelope,
    recipients: &[ReportedRecipient<'a>],
    policy: &Policy<'_>,
) -> Vec<Addressed<'a>> {
    let wanted = |r: &&ReportedRecipient<'_>| event.is_wanted(r.recipient.notify);
    let groups = by_sender(envelope, recipients.iter().filter(wanted));
    let mut due = Vec::new();
    let mut copied = Vec::new();
    for (sender, recipients) in groups {
        match sender.address() {
            Some(to) => {
                copied.extend_from_slice(&recipients);
                due.push(Addressed { kind: event.to_sender(), to: to.clone(), recipients });
            }
            None if event == Event::Failed
                && policy.double_bounces
                && envelope.origin != ORIGIN_POSTMASTER =>
            {
                due.push(Addressed { kind: Kind::DoubleBounce, to: policy.postmaster.clone(), recipients });
            }
            None => {}
        }
    }
    if let Some(kind) = event.copy(policy).filter(|_| !copied.is_empty()) {
        due.push(Addressed { kind, to: policy.postmaster.clone(), recipients: copied });
    }
    due
}

impl Event {
    fn is_wanted(self, notify: Notify) -> bool {
        match self {
            Self::Failed => notify.on_failure(),
            Self::Delayed { .. } => notify.on_delay(),
            Self::Delivered => notify.on_success(),
        }
    }

    fn to_sender(self) -> Kind {
        match self {
            Self::Failed => Kind::Bounce,
            Self::Delayed { retry_until } => Kind::Delay { retry_until },
            Self::Delivered => Kind::Success,
        }
    }

    fn copy(self, policy: &Policy<'_>) -> Option<Kind> {
        match self {
            Self::Failed => policy.copies_of_bounces.then_some(Kind::BounceCopy),
            Self::Delayed { retry_until } => {
                policy.copies_of_delays.then_some(Kind::DelayCopy { retry_until })
            }
            Self::Delivered => None,
        }
    }
}

/// Groups recipients by the sender they were tried with, in the order of their first recipient.
fn by_sender<'a: 'b, 'b>(
    envelope: &'b Envelope,
    recipients: impl Iterator<Item = &'b ReportedRecipient<'a>>,
) -> Vec<(&'b Sender, Vec<ReportedRecipient<'a>>)> {
    let mut groups: Vec<(&Sender, Vec<_>)> = Vec::new();
    let mut places: HashMap<&Sender, usize> = HashMap::new();
    for reported in recipients {
        let sender = reported.recipient.sender.as_ref().unwrap_or(&envelope.sender);
        let place = *places.entry(sender).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, group)) => group.push(*reported),
            None => groups.push((sender, vec![*reported])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Protocol, Reason, Recipient};
    use crate::notice::report::tests::{envelope, recipient};

    /// The reports for `recipients` (sender of its own, NOTIFY), as "kind to: recipients".
    fn planned(event: Event, sender: &str, origin: &str, recipients: &[(&str, &str)]) -> Vec<String> {
        let mut envelope = envelope();
        (envelope.sender, envelope.origin) = (sender.parse().unwrap(), origin.to_owned());
        let recipients: Vec<(Recipient, Reason)> = recipients
            .iter()
            .enumerate()
            .map(|(at, (own, notify))| {
                let (mut recipient, reason) = recipient(&format!("r{at}@y"), "5.1.1", "no", None);
                recipient.notify = notify.parse().unwrap_or_default();
                recipient.sender = (*own != "-").then(|| own.parse().unwrap());
                (recipient, reason)
            })
            .collect();
        let reported: Vec<_> = recipients
            .iter()
            .map(|(recipient, reason)| ReportedRecipient {
                recipient,
                reason,
                remote_mta: None,
                protocol: Protocol::Lmtp,
                last_attempt: None,
            })
            .collect();
        let postmaster = "postmaster@here".parse().unwrap();
        let policy = Policy {
            copies_of_bounces: origin == "copies",
            copies_of_delays: origin == "copies",
            double_bounces: true,
            postmaster: &postmaster,
        };
        plan(event, &envelope, &reported, &policy)
            .iter()
            .map(|due| {
                let names: Vec<_> = due.recipients.iter().map(|r| r.recipient.address.local_part()).collect();
                let kind = format!("{:?}", due.kind);
                format!("{} {}: {}", kind.split(' ').next().unwrap(), due.to, names.join(" "))
            })
            .collect()
    }

    #[test]
    fn who_is_told_what() {
        let late = Event::Delayed { retry_until: Timestamp::UNIX_EPOCH };
        for (event, sender, origin, recipients, due) in [
            (Event::Failed, "s@x", "uid=0", &[("-", ""), ("-", "")][..], &["Bounce s@x: r0 r1"][..]),
            (Event::Failed, "s@x", "uid=0", &[("-", "NEVER"), ("-", "SUCCESS")], &[]),
            (
                Event::Failed,
                "s@x",
                "uid=0",
                &[("v@x", ""), ("-", ""), ("v@x", "")],
                &["Bounce v@x: r0 r2", "Bounce s@x: r1"],
            ),
            (
                Event::Failed,
                "s@x",
                "copies",
                &[("v@x", ""), ("-", "")],
                &["Bounce v@x: r0", "Bounce s@x: r1", "BounceCopy postmaster@here: r0 r1"],
            ),
            (Event::Failed, "", "bounce", &[("-", "")], &["DoubleBounce postmaster@here: r0"]),
            (Event::Failed, "", "uid=0", &[("-", "")], &["DoubleBounce postmaster@here: r0"]),
            (Event::Failed, "", "postmaster", &[("-", "")], &[]),
            (Event::Failed, "s@x", "uid=0", &[("<>", "")], &["DoubleBounce postmaster@here: r0"]),
            (late, "s@x", "uid=0", &[("-", ""), ("-", "FAILURE")], &["Delay s@x: r0"]),
            (late, "s@x", "copies", &[("-", "DELAY")], &["Delay s@x: r0", "DelayCopy postmaster@here: r0"]),
            (late, "", "bounce", &[("-", "")], &[]),
            (Event::Delivered, "s@x", "copies", &[("-", ""), ("-", "SUCCESS")], &["Success s@x: r1"]),
            (Event::Delivered, "", "uid=0", &[("-", "SUCCESS")], &[]),
        ] {
            assert_eq!(planned(event, sender, origin, recipients), due, "{event:?} {sender:?} {origin}");
        }
    }
}
