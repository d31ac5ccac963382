//! When what happened to a recipient's mail, and the delays that the log makes of it.
//!
//! - Owns: which moment counts as which, and how long each part took.
//! - Leaves to others: the clock.
//! - Always true: no part is negative, whatever the clock did.

use std::time::Duration;

use crate::mail::Delays;
use crate::postfix::request::Times;

/// The moments of one delivery, since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Stamps {
    arrival: Duration,
    active: Duration,
    handoff: Duration,
    /// A session was ready for mail, or the search for one had failed.
    ready: Option<Duration>,
    /// The outcome was known.
    done: Option<Duration>,
}

/// How long a delivery took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Since the message arrived.
    pub delay: Duration,
    /// Where that went.
    pub delays: Delays,
}

impl Stamps {
    /// Begins with a request that has come `now`. What the request does not know happened then.
    pub fn new(times: &Times, now: Duration) -> Self {
        let handoff = times.handoff.unwrap_or(now);
        let active = times.active.unwrap_or(handoff);
        let arrival = times.arrival.unwrap_or(active);
        Self { arrival, active, handoff, ready: None, done: None }
    }

    /// A session is ready, new or used before: MAIL is about to be said.
    pub fn ready(&mut self, now: Duration) {
        self.ready = Some(now);
    }

    /// All recipients who were left have failed together. Before there was a session, all of the time went into
    /// looking for one.
    pub fn failed(&mut self, now: Duration) {
        self.ready.get_or_insert(now);
        self.done = Some(now);
    }

    /// Another session follows, for recipients who are left.
    pub fn again(&mut self) {
        (self.ready, self.done) = (None, None);
    }

    /// How long it took; until `now`, where nothing says that it was done before.
    pub fn spent(&self, now: Duration) -> Spent {
        let Self { arrival, active, handoff, ready, done } = *self;
        let done = done.unwrap_or(now);
        let delays = Delays {
            before_queue: active.saturating_sub(arrival),
            in_queue: handoff.saturating_sub(active),
            connection: ready.map_or(Duration::ZERO, |ready| ready.saturating_sub(handoff)),
            transmission: done.saturating_sub(ready.unwrap_or(handoff)),
        };
        Spent { delay: done.saturating_sub(arrival), delays }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn times() -> Times {
        Times { arrival: Some(at(100)), active: Some(at(101)), handoff: None }
    }

    fn parts(spent: Spent) -> (u64, String) {
        (spent.delay.as_secs(), spent.delays.written(crate::mail::Resolution::default()).to_string())
    }

    #[test]
    fn each_moment_ends_its_part() {
        let mut stamps = Stamps::new(&times(), at(103));
        assert_eq!(parts(stamps.spent(at(104))), (4, "1/2/0/1".into()), "no session yet");
        stamps.ready(at(107));
        assert_eq!(parts(stamps.spent(at(112))), (12, "1/2/4/5".into()), "until now");
        assert_eq!(parts(stamps.spent(at(115))), (15, "1/2/4/8".into()), "for the next one, too");
    }

    #[test]
    fn failures_count_for_where_they_happened() {
        let mut stamps = Stamps::new(&times(), at(103));
        stamps.failed(at(133));
        assert_eq!(parts(stamps.spent(at(140))), (33, "1/2/30/0".into()), "while connecting");
        stamps.again();
        let mut unreachable = stamps;
        unreachable.failed(at(143));
        assert_eq!(parts(unreachable.spent(at(150))), (43, "1/2/40/0".into()), "while connecting again");
        stamps.ready(at(141));
        stamps.failed(at(151));
        assert_eq!(parts(stamps.spent(at(160))), (51, "1/2/38/10".into()), "in the session");
    }

    #[test]
    fn missing_moments_and_odd_clocks_make_no_delay() {
        let stamps = Stamps::new(&Times::default(), at(500));
        assert_eq!(parts(stamps.spent(at(501))), (1, "0/0/0/1".into()));
        let mut stamps = Stamps::new(&times(), at(50));
        stamps.ready(at(40));
        assert_eq!(parts(stamps.spent(at(30))), (0, "1/0/0/0".into()));
        let times = Times { handoff: Some(at(102)), ..times() };
        assert_eq!(parts(Stamps::new(&times, at(103)).spent(at(104))), (4, "1/1/0/2".into()));
    }
}
