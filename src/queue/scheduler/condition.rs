//! Whether a destination may be tried: open, resting after a failure, pausing because it is busy, on probation.
//!
//! - Owns: how long a rest and a pause last, what ends them, which failures count.
//! - Leaves to others: timers, batches, limits.
//! - Always true: what a batch reports counts only if it was handed out after the rest (or pause) began. Twenty
//!   batches that fail together are one failure.

use std::time::Duration;

use crate::mail::Reason;

/// The first rest; each further failure doubles it.
const REST_FIRST: Duration = Duration::from_secs(5);
/// From this length of a rest on, batches are deferred instead of waiting for its end.
const REST_SUSPENDS: Duration = Duration::from_secs(60);
/// The first pause of a busy destination; each further one doubles it.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause. A backlog empties in seconds or not at all.
const PAUSE_LONGEST: Duration = Duration::from_secs(30);

/// The number of a batch handed out; later ones have higher numbers.
pub(super) type Serial = u64;

/// What we know of a destination's health.
#[derive(Debug, Default)]
pub(super) struct Condition {
    state: State,
    failures: u32,
    pauses: u32,
    /// When it was too busy for the first time since it was reached last.
    busy_since: Option<Duration>,
    /// Batches up to this one were handed out before the last rest.
    before_rest: Serial,
    /// Batches up to this one were handed out before the last pause.
    before_pause: Serial,
    reason: Option<Reason>,
    /// A batch has reached it since it failed last.
    has_answered: bool,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    Open,
    Resting {
        until: Duration,
        length: Duration,
    },
    Paused {
        until: Duration,
    },
    /// The rest is over; one batch goes ahead alone.
    Probation {
        ahead: Option<Serial>,
    },
}

impl Condition {
    /// Whether a batch may be handed out now.
    pub(super) fn may_start(&self) -> bool {
        matches!(self.state, State::Open | State::Probation { ahead: None })
    }

    /// Whether nothing has to be remembered.
    pub(super) fn is_clean(&self) -> bool {
        self.state == State::Open && self.failures == 0 && self.pauses == 0
    }

    /// Whether it is known to take mail: a batch has reached it, and none has failed to since.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// When the rest or the pause ends.
    pub(super) fn until(&self) -> Option<Duration> {
        match self.state {
            State::Resting { until, .. } | State::Paused { until } => Some(until),
            State::Open | State::Probation { .. } => None,
        }
    }

    /// Why the destination rests or last did.
    pub(super) fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }

    /// The reason to defer its mail with, while it rests for long.
    pub(super) fn suspends(&self) -> Option<Reason> {
        match (&self.state, &self.reason) {
            (State::Resting { length, .. }, Some(reason)) if *length >= REST_SUSPENDS => Some(Reason::local(
                reason.status.with_class(4),
                format!("delivery temporarily suspended: {}", reason.text),
            )),
            _ => None,
        }
    }

    /// A batch was handed out.
    pub(super) fn started(&mut self, serial: Serial) {
        if let State::Probation { ahead: ahead @ None } = &mut self.state {
            *ahead = Some(serial);
        }
    }

    /// A batch came back or ended without a word about the destination: another may go ahead in its stead.
    pub(super) fn untouched(&mut self, serial: Serial) {
        if self.state == (State::Probation { ahead: Some(serial) }) {
            self.state = State::Probation { ahead: None };
        }
    }

    /// A batch has reached the destination.
    pub(super) fn reached(&mut self, serial: Serial) {
        if serial > self.before_rest {
            self.failures = 0;
            self.reason = None;
            self.has_answered = true;
            if matches!(self.state, State::Probation { .. }) {
                self.state = State::Open;
            }
        }
        if serial > self.before_pause {
            self.pauses = 0;
            self.busy_since = None;
        }
    }

    /// A batch has failed to reach the destination; `last` is the last one handed out, `longest` bounds the rest.
    /// True if a rest begins.
    pub(super) fn failed(
        &mut self,
        serial: Serial,
        reason: Reason,
        now: Duration,
        last: Serial,
        longest: Duration,
    ) -> bool {
        if serial <= self.before_rest {
            return false;
        }
        let length = doubled(REST_FIRST, self.failures).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.before_rest = last;
        self.reason = Some(reason);
        self.has_answered = false;
        self.state = State::Resting { until: now.saturating_add(length), length };
        true
    }

    /// The destination was too busy to take a batch. True if a pause begins.
    pub(super) fn busy(&mut self, serial: Serial, now: Duration, last: Serial) -> bool {
        self.busy_since.get_or_insert(now);
        if serial <= self.before_pause || serial <= self.before_rest {
            return false;
        }
        let length = doubled(PAUSE_FIRST, self.pauses).min(PAUSE_LONGEST);
        self.pauses = self.pauses.saturating_add(1);
        self.before_pause = last;
        self.state = State::Paused { until: now.saturating_add(length) };
        true
    }

    /// For how long it has been too busy, without taking anything.
    pub(super) fn busy_for(&self, now: Duration) -> Duration {
        self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Ends the rest or the pause if its time has come. After a failure one batch goes ahead alone.
    pub(super) fn wake(&mut self, now: Duration) {
        if self.until().is_some_and(|until| until <= now) {
            self.state = if self.failures == 0 { State::Open } else { State::Probation { ahead: None } };
        }
    }
}

/// `first`, doubled `times` times.
fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::EnhancedStatus;

    fn reason() -> Reason {
        Reason::local(EnhancedStatus::new(5, 4, 1), "connect to mx1[192.0.2.1]:24: Connection refused")
    }

    #[test]
    fn each_failure_doubles_the_rest_up_to_the_longest() {
        let mut condition = Condition::default();
        let mut now = Duration::ZERO;
        for (serial, seconds) in (1..).zip([5, 10, 20, 40, 80, 160, 300, 300]) {
            condition.started(serial);
            assert!(condition.failed(serial, reason(), now, serial, Duration::from_secs(300)));
            assert_eq!(condition.until(), Some(now + Duration::from_secs(seconds)));
            assert_eq!(condition.suspends().is_some(), seconds >= 60, "{seconds}");
            now += Duration::from_secs(seconds);
            condition.wake(now);
            assert!(condition.may_start());
        }
        assert!(doubled(REST_FIRST, 4000) > Duration::from_secs(300));
    }

    #[test]
    fn what_was_handed_out_before_the_rest_neither_doubles_nor_ends_it() {
        let mut condition = Condition::default();
        let (now, longest) = (Duration::ZERO, Duration::from_secs(300));
        assert!(condition.failed(3, reason(), now, 20, longest));
        for serial in [1, 2, 20] {
            assert!(!condition.failed(serial, reason(), now, 20, longest));
            assert!(!condition.busy(serial, now, 20));
            condition.reached(serial);
        }
        assert_eq!(condition.until(), Some(Duration::from_secs(5)));
        condition.wake(Duration::from_secs(5));
        condition.started(21);
        assert!(!condition.may_start(), "one goes ahead alone");
        condition.reached(20);
        assert!(!condition.may_start());
        condition.reached(21);
        assert!(condition.may_start() && condition.is_clean());
    }

    #[test]
    fn a_probe_that_learnt_nothing_gives_way_to_another() {
        let mut condition = Condition::default();
        condition.failed(1, reason(), Duration::ZERO, 1, Duration::from_secs(300));
        condition.wake(Duration::from_secs(5));
        condition.started(2);
        condition.untouched(1);
        assert!(!condition.may_start());
        condition.untouched(2);
        assert!(condition.may_start());
    }

    #[test]
    fn pauses_grow_and_end_without_probation_unless_a_failure_is_open() {
        let mut condition = Condition::default();
        let mut now = Duration::ZERO;
        for (serial, seconds) in (1..).zip([1, 2, 4, 8, 16, 30, 30]) {
            assert!(condition.busy(serial, now, serial));
            assert_eq!(condition.until(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            condition.wake(now);
            condition.started(100);
            assert!(condition.may_start());
        }
        assert_eq!(condition.busy_for(now), now);
        condition.reached(7);
        assert_eq!(condition.busy_for(now), now, "it was reached before it was busy");
        condition.reached(8);
        assert_eq!(condition.busy_for(now), Duration::ZERO);
        assert!(condition.is_clean());
        condition.failed(9, reason(), now, 9, Duration::from_secs(300));
        condition.wake(now + Duration::from_secs(5));
        condition.started(10);
        condition.busy(10, now + Duration::from_secs(5), 10);
        condition.wake(now + Duration::from_secs(6));
        condition.started(11);
        assert!(!condition.may_start(), "still one alone");
    }

    #[test]
    fn the_reason_of_a_suspension_is_transient_and_ours() {
        let mut condition = Condition::default();
        for serial in 1..=5 {
            condition.failed(serial, reason(), Duration::ZERO, serial, Duration::from_secs(300));
        }
        let suspended = condition.suspends().unwrap();
        assert_eq!(suspended.status.to_string(), "4.4.1");
        assert_eq!(
            suspended.text,
            "delivery temporarily suspended: connect to mx1[192.0.2.1]:24: Connection refused"
        );
        assert_eq!(suspended.reply, None);
    }
}
