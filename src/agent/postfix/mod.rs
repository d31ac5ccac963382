//! The agent as a Postfix delivery agent: jobs come from qmgr(8), outcomes go to bounce(8) and its kin.
//!
//! - Owns: the master of such a process, its requests, what workers do with one.
//! - Leaves to others: the engine (`queue::scheduler`, the pool, `net`), Postfix's protocols and files
//!   (`crate::postfix`).
//! - Always true: a request is one job with one batch, and is answered once; nothing of it is kept on our own disk. How
//!   much mail goes where at a time is qmgr's affair: here no destination rests, and none has a limit of its own unless
//!   it was given one.

mod callers;
mod clerk;
mod client;
mod content;
mod delivery;
mod job;
mod master;
mod recorder;
mod start;
#[cfg(test)]
mod tests;

pub use start::run;
