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
    /// Remembers `destination`; `true` if that is news.
    pub fn remember(&self, destination: &Destination) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, since| since.elapsed() < MEMORY);
        if known.len() >= DESTINATIONS_MAX {
            return false;
        }
        known.insert(destination.clone(), Instant::now()).is_none()
    }

    /// Whether `destination` is to be spoken to step by step.
    pub fn contains(&self, destination: &Destination) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(destination).is_some_and(|since| since.elapsed() < MEMORY)
    }
}
