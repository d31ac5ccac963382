//! The agent as a service of Postfix.
//!
//! - Owns: nothing yet but waiting for the end.
//! - Leaves to others: how the process began (`postfix::service`).
//! - Always true: a connection that was accepted stays open until the end.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::log::OpenMailLog;
use crate::postfix::service::{Door, Service, Started};

/// Why a service did not begin, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum PostfixError {}

/// Runs the worker of a service until it is told to end.
// lead: the master loop takes the place of this.
pub fn run(started: Started, _log: &OpenMailLog) -> Result<(), PostfixError> {
    log::info!("started: service {}", started.options.service_name(&started.role));
    let mut held = Vec::new();
    let Door::Service(mut service) = started.door else { return Ok(()) };
    let ended = loop {
        if let Some(ended) = service.ended() {
            break ended;
        }
        match service.accept() {
            Ok(Some(connection)) => held.push(connection),
            Ok(None) => wait(&service),
            Err(error) => {
                log::warn!("cannot accept: {error}");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    };
    service.close();
    log::info!("ended: {ended:?}");
    Ok(())
}

fn wait(service: &Service) {
    let ends = service.ends().map(|end| PollFd::from_borrowed_fd(end, Service::END));
    let doors = service.listeners().iter().map(|listener| PollFd::new(listener, PollFlags::IN));
    let mut set: Vec<_> = ends.into_iter().chain(doors).collect();
    let _ = poll(&mut set, None);
}
