//! The program against real mail servers, and below real callers.
//!
//! - Owns: starting them on configurations of their own, and what arrives in their mailboxes; the programs that call
//!   sendmail, and what they leave in our queue.
//! - Leaves to others: what needs no program of somebody else's (`it`).
//! - Always true: no service of the machine is used, started or stopped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod callers;
mod delivery;
mod direct;
mod dovecot;
mod harness;
mod postfix;
mod proxymap;
mod tls;
