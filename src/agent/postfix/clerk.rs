//! Settles recipients without an attempt: a thread beside the workers, since reports wait for Postfix's daemons.
//!
//! - Owns: the thread.
//! - Leaves to others: which outcome (the master), how it is reported (`recorder`).
//! - Always true: a job that was handed over here is answered here.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::delivery::{self, Context};
use super::job::Job;
use super::master::Report;
use crate::agent::report::Reporter;
use crate::mail::Outcome;

/// A job whose unsettled recipients are not to be tried.
#[derive(Debug)]
pub struct Task {
    /// Which.
    pub job: Arc<Job>,
    /// What becomes of them, but for those of whom the job itself knows; `None`: it knows of all.
    pub outcome: Option<Outcome>,
    /// Whether the destination is at fault, so that qmgr spares it for a while.
    pub destination_failed: bool,
}

/// Starts the thread; it ends when the sender is dropped.
pub fn start(context: Arc<Context>, reporter: Reporter<Report>) -> io::Result<Sender<Task>> {
    let (sender, tasks) = unbounded();
    std::thread::Builder::new().name("clerk".to_owned()).spawn(move || run(&context, &reporter, &tasks))?;
    Ok(sender)
}

fn run(context: &Context, reporter: &Reporter<Report>, tasks: &Receiver<Task>) {
    let _guard = Guard(reporter.clone());
    for Task { job, outcome, destination_failed } in tasks {
        #[cfg(test)]
        super::tests::panic_if_asked(&job, "clerk");
        delivery::settle(context, &job, outcome.as_ref(), destination_failed);
        reporter.send(Report::Settled(job.key));
    }
}

/// Without a clerk jobs would stay unanswered for ever.
struct Guard(Reporter<Report>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send(Report::ClerkLost);
        }
    }
}
