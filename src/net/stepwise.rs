//! Destinations that broke the protocol while pipelined: for an hour they are spoken to step by step.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mail::Destination;

const MEMORY: Duration = Duration::from_secs(3600);
const DESTINATIONS_MAX: usize = 1000;

/// What all workers know of such destinations.
#[derive(Debug, Default)]
pub struct Stepwise(Mutex<HashMap<Destination, Instant>>);

impl Stepwise {
    /// Remembers `destination` for an hour from `now`; `true` if that is news.
    pub fn remember(&self, destination: &Destination, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, since| now.saturating_duration_since(*since) < MEMORY);
        if known.len() >= DESTINATIONS_MAX {
            return false;
        }
        known.insert(destination.clone(), now).is_none()
    }

    /// Whether `destination` is to be spoken to step by step at `now`.
    pub fn contains(&self, destination: &Destination, now: Instant) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(destination).is_some_and(|since| now.saturating_duration_since(*since) < MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Nexthop;

    fn destination(path: &str) -> Destination {
        Nexthop::parse(path, |_| true).unwrap().destination(24.try_into().unwrap())
    }

    #[test]
    fn an_hour_without_pipelining_begins_again_with_each_fault() {
        let (stepwise, start) = (Stepwise::default(), Instant::now());
        let (one, other) = (destination("/run/one"), destination("/run/other"));
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert!(!stepwise.contains(&one, at(0)));
        assert!(stepwise.remember(&one, at(0)), "news");
        assert!(stepwise.contains(&one, at(59)) && !stepwise.contains(&other, at(0)));
        assert!(!stepwise.remember(&one, at(59)), "known");
        assert!(stepwise.contains(&one, at(118)) && !stepwise.contains(&one, at(119)));
        assert!(stepwise.remember(&one, at(119)), "news once more");
    }

    #[test]
    fn not_more_destinations_are_remembered_than_there_is_room_for() {
        let (stepwise, start) = (Stepwise::default(), Instant::now());
        for number in 0..DESTINATIONS_MAX {
            assert!(stepwise.remember(&destination(&format!("/run/{number}")), start));
        }
        let late = destination("/run/late");
        assert!(!stepwise.remember(&late, start) && !stepwise.contains(&late, start));
        assert!(stepwise.remember(&late, start + MEMORY), "the others are forgotten");
    }
}
