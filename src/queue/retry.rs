//! When a message is tried again, given up, or its sender told that it is late.
//!
//! - Owns: the times between attempts, the end of patience.
//! - Leaves to others: files and their times (`spool`), notices (`notice`), rests of destinations (`scheduler`).
//! - Always true: nothing here fails. A clock that jumps makes a message be tried early, never late or not at all.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::mail::Notify;

/// After this time a delay is reported to a sender who asked for it (RFC 3461 NOTIFY=DELAY), where the administrator
/// has not chosen one.
const DELAY_ASKED: Duration = Duration::from_secs(4 * 3600);
/// Attempts are moved by up to this part of their delay, so that mail deferred together does not come back together.
const JITTER_PART: f64 = 0.1;
/// No limit is longer, so that a tenth more can be added to it: a thousand years.
const BACKOFF_MAX: Duration = Duration::from_secs(1000 * 366 * 86_400);

/// How patient the administrator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The shortest time to the next attempt.
    pub minimal_backoff_time: Duration,
    /// The longest time to the next attempt.
    pub maximal_backoff_time: Duration,
    /// Age at which a message is given up.
    pub maximal_queue_lifetime: Duration,
    /// The same for the null sender: notices, which nobody waits for.
    pub bounce_queue_lifetime: Duration,
    /// Age at which the sender is told of the delay; zero: only those who asked for it, after four hours.
    pub delay_warning_time: Duration,
}

impl Patience {
    /// When to try again. The older a message, the longer it waits: as long as it is old, within the limits, give or
    /// take a tenth. `jitter` is a random number from 0 to 1.
    pub fn next_attempt(&self, arrival: Timestamp, now: Timestamp, jitter: f64) -> Timestamp {
        let delay = self.backoff(age(arrival, now));
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
        let delay = delay.mul_f64(1.0 - JITTER_PART + 2.0 * JITTER_PART * jitter);
        after(now, delay)
    }

    /// Whether a message whose next attempt was set to `next` may be tried now. One that is further ahead than was
    /// ever set stems from a clock that has jumped: it is due.
    pub fn is_due(&self, next: Timestamp, now: Timestamp) -> bool {
        next <= now || next > after(now, self.backoff(Duration::MAX).mul_f64(1.0 + JITTER_PART))
    }

    /// Whether a message that could not be delivered is now given up.
    pub fn is_over(&self, arrival: Timestamp, now: Timestamp, sender_is_null: bool) -> bool {
        let lifetime = if sender_is_null { self.bounce_queue_lifetime } else { self.maximal_queue_lifetime };
        age(arrival, now) >= lifetime
    }

    /// Whether a recipient's delay is to be reported now, if it was not before. `notify` is what was asked for the
    /// recipient. The null sender is never told.
    pub fn warning_is_due(
        &self,
        arrival: Timestamp,
        now: Timestamp,
        notify: Notify,
        sender_is_null: bool,
    ) -> bool {
        let limit = match self.delay_warning_time {
            Duration::ZERO if notify.asks_delay() => DELAY_ASKED,
            Duration::ZERO => return false,
            limit => limit,
        };
        !sender_is_null && notify.on_delay() && age(arrival, now) >= limit
    }

    fn backoff(&self, age: Duration) -> Duration {
        // Not `clamp`, which panics where the limits contradict each other.
        age.min(self.maximal_backoff_time).max(self.minimal_backoff_time).min(BACKOFF_MAX)
    }
}

/// How long ago; zero if a clock was set back since.
fn age(arrival: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(arrival)).unwrap_or(Duration::ZERO)
}

fn after(now: Timestamp, delay: Duration) -> Timestamp {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    const PATIENCE: Patience = Patience {
        minimal_backoff_time: Duration::from_secs(300),
        maximal_backoff_time: Duration::from_secs(4000),
        maximal_queue_lifetime: Duration::from_secs(5 * 86_400),
        bounce_queue_lifetime: Duration::from_secs(86_400),
        delay_warning_time: Duration::ZERO,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    #[test]
    fn a_message_waits_as_long_as_it_is_old_within_the_limits() {
        for (age, jitter, delay) in [
            (0, 0.5, 300),
            (299, 0.5, 300),
            (1000, 0.5, 1000),
            (1000, 0.0, 900),
            (1000, 1.0, 1100),
            (1000, 7.0, 1100),
            (1000, f64::NAN, 1000),
            (5 * DAY, 0.5, 4000),
            (5 * DAY, 1.0, 4400),
            (-DAY, 0.5, 300), // the clock was set back
        ] {
            let next = PATIENCE.next_attempt(at(0), at(age), jitter);
            let error = next.duration_since(at(age + delay)).abs();
            assert!(error < SignedDuration::from_millis(1), "{age} {jitter}: {error:?}");
        }
    }

    #[test]
    fn limits_that_contradict_each_other_and_huge_ones_do_no_harm() {
        let contradictory = Patience { maximal_backoff_time: Duration::from_secs(1), ..PATIENCE };
        assert_eq!(contradictory.next_attempt(at(0), at(0), 0.5), at(300));
        let huge = Patience { minimal_backoff_time: Duration::MAX, ..PATIENCE };
        assert!(huge.next_attempt(at(0), at(0), 1.0) > at(1000 * 365 * DAY));
        assert_eq!(huge.next_attempt(Timestamp::MAX, Timestamp::MAX, 1.0), Timestamp::MAX);
        assert!(!huge.is_due(at(1), at(0)));
    }

    #[test]
    fn a_next_attempt_is_due_in_time_or_after_a_clock_has_jumped() {
        for (next, due) in
            [(-1, true), (0, true), (1, false), (4000, false), (4400, false), (4401, true), (DAY, true)]
        {
            assert_eq!(PATIENCE.is_due(at(next), at(0)), due, "{next}");
        }
    }

    #[test]
    fn every_attempt_that_is_set_becomes_due_and_is_not_before() {
        for age in [0, 100, 1000, 4000, DAY] {
            for jitter in [0.0, 0.3, 1.0] {
                let next = PATIENCE.next_attempt(at(0), at(age), jitter);
                assert!(!PATIENCE.is_due(next, at(age)), "{age} {jitter}");
                assert!(PATIENCE.is_due(next, next));
            }
        }
    }

    #[test]
    fn a_message_is_given_up_at_the_end_of_its_life() {
        for (age, sender_is_null, over) in [
            (0, false, false),
            (5 * DAY - 1, false, false),
            (5 * DAY, false, true),
            (DAY - 1, true, false),
            (DAY, true, true),
            (-DAY, true, false),
        ] {
            assert_eq!(PATIENCE.is_over(at(0), at(age), sender_is_null), over, "{age} {sender_is_null}");
        }
        let none = Patience { maximal_queue_lifetime: Duration::ZERO, ..PATIENCE };
        assert!(none.is_over(at(0), at(0), false), "one attempt only");
    }

    #[test]
    fn delays_are_reported_where_they_were_asked_for_or_the_administrator_wants_it() {
        let told = Patience { delay_warning_time: Duration::from_secs(3600), ..PATIENCE };
        for (patience, age, notify, due) in [
            (PATIENCE, 4 * HOUR, "", false),
            (PATIENCE, 4 * HOUR, "FAILURE", false),
            (PATIENCE, 4 * HOUR - 1, "DELAY", false),
            (PATIENCE, 4 * HOUR, "DELAY", true),
            (told, HOUR - 1, "", false),
            (told, HOUR, "", true),
            (told, HOUR, "FAILURE,DELAY", true),
            (told, HOUR, "FAILURE", false),
            (told, HOUR, "NEVER", false),
        ] {
            let notify = if notify.is_empty() { Notify::default() } else { notify.parse().unwrap() };
            assert_eq!(patience.warning_is_due(at(0), at(age), notify, false), due, "{age} {notify}");
            assert!(!patience.warning_is_due(at(0), at(age), notify, true), "nobody to tell");
        }
    }
}
