//! Where jobs come from, and where their outcomes go back to: what the engine asks of a source.
//!
//! - Owns: the line between the workers, who are the same for all mail, and what a source knows of its mail.
//! - Leaves to others: the sources: our own spool (`delivery`), Postfix's queue manager (`postfix`).
//! - Always true: workers and their pool know nothing of files, marks and reports.

use crate::net::CachedConnection;
use crate::queue::scheduler::WorkerId;

/// A source of jobs, as workers see it. Each worker has a clone.
pub trait Source: Clone + Send + 'static {
    /// A batch on its way to a worker, with what it takes to deliver it.
    type Order: Send + 'static;
    /// What the source's master is told.
    type Report: Send + 'static;

    /// Delivers a batch over the worker's connection; returns the one report that ends it.
    fn deliver(
        &self,
        worker: WorkerId,
        order: &Self::Order,
        connection: &mut CachedConnection,
    ) -> Self::Report;

    /// `worker` has panicked over `order`, which has no other report.
    fn lost(worker: WorkerId, order: Self::Order) -> Self::Report;

    /// `worker` has panicked while it worked on nothing.
    fn gone(worker: WorkerId) -> Self::Report;

    /// The report on a batch has been sent: for tests that want a panic there.
    #[cfg(test)]
    fn reported(_order: &Self::Order) {}
}
