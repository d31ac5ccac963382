//! The services of Postfix, under a master(8) that the test plays.
//!
//! - Owns: how their processes begin and end, and what is in the mail log then.
//! - Leaves to others: Postfix itself (`peers`).
//! - Always true: each test has a queue directory and sockets of its own, and nothing of Postfix needs to be installed.

mod connections;
mod ending;
mod life;
mod master;
mod queue;
mod replies;
mod reports;
mod requests;
mod start;
