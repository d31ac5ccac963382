//! What both test binaries share: processes that cannot outlive their test, an agent with a queue of its own.
//!
//! - Owns: starting, watching and stopping programs; waiting for something with an end to the waiting; certificates.
//! - Leaves to others: what is tested, and the mail servers (`peers`).
//! - Always true: every wait has a limit, and nothing here sleeps instead of looking.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod agent;
pub mod certificates;
pub mod long;
pub mod mailbox;
pub mod process;
pub mod sink;
