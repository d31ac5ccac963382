//! The program against real mail servers.
//!
//! - Owns: starting them on configurations of their own, and what arrives in their mailboxes.
//! - Leaves to others: what needs no server of somebody else's (`it`).
//! - Always true: no service of the machine is used, started or stopped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod delivery;
mod direct;
mod dovecot;
mod harness;
