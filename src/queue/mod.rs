//! What happens to queued mail next, and when. Pure: no clock, no disk, no channel.
//!
//! - Owns: job lines, when a message is tried again or given up, which batch goes to which worker.
//! - Leaves to others: the queue's files (`spool`), threads (`agent`), outcomes of attempts (`smtp`).
//! - Always true: the same events at the same times give the same decisions.

pub mod job;
pub mod line_reader;
pub mod retry;
pub mod scheduler;
