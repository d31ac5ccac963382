//! The threads of the agent, and what they own.
//!
//! - Owns: master, workers, pickup, sweeper, log and control threads, and the channels between them.
//! - Leaves to others: decisions (`queue`), conversations (`net`, `smtp`), the disk's format (`spool`).
//! - Always true: the master waits for nothing but its poll, and no backlog waits in a channel: what is not in the
//!   scheduler is on disk.

pub mod control;
mod control_server;
mod crew;
mod delivery;
mod doorbell;
mod finish;
mod intake;
mod jobs;
pub mod log;
mod master;
mod message;
mod notices;
mod pickup;
pub mod postfix;
mod prepend;
pub mod queue_control;
mod recorder;
mod report;
mod source;
mod start;
mod sweeper;
#[cfg(test)]
mod tests;
pub mod trust;
mod worker;

pub use start::{AgentError, run};
