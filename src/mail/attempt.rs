//! The log's line about one recipient and attempt, in Postfix's format.
//!
//! - Owns: the fields of the line, from `to=` on, and their order.
//! - Leaves to others: what stands before it (`agent`: the message's ID; `cli`: nothing), the times.
//! - Always true: it is one line, whatever server and sender have said.

use std::fmt;
use std::time::Duration;

use super::{
    Delay, Delays, EnhancedStatus, OriginalRecipient, Outcome, Reason, Recipient, Resolution,
    same_but_for_case,
};

/// How an attempt ended for a recipient, as analysers of mail logs read it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// For whom.
    pub recipient: &'a Recipient,
    /// The server, or `none` where there was no connection.
    pub relay: &'a str,
    /// How often the connection had been used before.
    pub uses: u32,
    /// Where the time went.
    pub delays: Delays,
    /// What became of it.
    pub outcome: &'a Outcome,
}

impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recipient, relay, uses, delays, outcome } = *self;
        let to = recipient.address.to_string();
        let original = recipient.orcpt.as_ref().map(OriginalRecipient::address);
        let Reason { status, text, .. } = outcome.reason();
        let fields = AttemptFields {
            to: &to,
            original: original.filter(|original| !same_but_for_case(original, &to)),
            relay,
            uses,
            delay: delays.total(),
            delays,
            resolution: Resolution::default(),
            status: *status,
            word: outcome.word(),
            text,
        };
        fields.fmt(f)
    }
}

/// The fields of the line, each as it is to be written.
#[derive(Clone, Copy, Debug)]
pub struct AttemptFields<'a> {
    /// The recipient.
    pub to: &'a str,
    /// The recipient before aliases and the like, where it differs.
    pub original: Option<&'a str>,
    /// The server, or `none`.
    pub relay: &'a str,
    /// How often the connection had been used before.
    pub uses: u32,
    /// The whole time since arrival.
    pub delay: Duration,
    /// Where it went.
    pub delays: Delays,
    /// How finely both are written.
    pub resolution: Resolution,
    /// The enhanced status.
    pub status: EnhancedStatus,
    /// `sent` and the like.
    pub word: &'a str,
    /// Why. One line.
    pub text: &'a str,
}

impl fmt::Display for AttemptFields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, original, relay, uses, delay, delays, resolution, status, word, text } = *self;
        write!(f, "to=<{to}>, ")?;
        if let Some(original) = original {
            write!(f, "orig_to=<{original}>, ")?;
        }
        write!(f, "relay={relay}, ")?;
        if uses > 0 {
            write!(f, "conn_use={}, ", u64::from(uses) + 1)?;
        }
        let (delay, delays) = (Delay::new(delay, resolution), delays.written(resolution));
        write!(f, "delay={delay}, delays={delays}, dsn={status}, status={word} ({text})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::EnhancedStatus;
    use std::time::Duration;

    #[test]
    fn an_attempt_reads_as_in_postfix_logs() {
        let mut recipient = Recipient::new(0, "u1@ok.example".parse().unwrap());
        let outcome =
            Outcome::Delivered(Reason::local(EnhancedStatus::new(2, 1, 5), "250 2.1.5 u1 delivered"));
        let hundredths = |count: u64| Duration::from_millis(10 * count);
        let delays = Delays { before_queue: hundredths(2), in_queue: hundredths(13), ..Delays::default() };
        let relay = "mx.test.example[/run/lmtp.sock]";
        let line = |recipient: &Recipient, uses| {
            Attempt { recipient, relay, uses, delays, outcome: &outcome }.to_string()
        };
        let end = "delay=0.15, delays=0.02/0.13/0/0, dsn=2.1.5, status=sent (250 2.1.5 u1 delivered)";
        assert_eq!(line(&recipient, 0), format!("to=<u1@ok.example>, relay={relay}, {end}"));
        assert_eq!(line(&recipient, 1), format!("to=<u1@ok.example>, relay={relay}, conn_use=2, {end}"));
        recipient.orcpt = Some("rfc822;U1@OK.example".parse().unwrap());
        assert_eq!(line(&recipient, 0), format!("to=<u1@ok.example>, relay={relay}, {end}"));
        recipient.orcpt = Some("rfc822;root@x".parse().unwrap());
        assert_eq!(
            line(&recipient, 0),
            format!("to=<u1@ok.example>, orig_to=<root@x>, relay={relay}, {end}")
        );
    }
}
