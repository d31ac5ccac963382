//! The program and the repository, without anybody else's server.
//!
//! - Owns: crashes, power losses, signals and restarts of the agent; strangers, bad input and overload; conversations with
//!   scripted peers; services under a master(8) of our own; rules for every file.
//! - Leaves to others: real mail servers (`peers`).
//! - Always true: each test has directories and sockets of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod agent;
mod bad_input;
mod certificates;
mod commands;
mod config;
mod connection;
mod crashes;
mod dialogue;
mod engine;
mod faults;
mod holding;
mod logins;
mod manual;
mod notice;
mod overload;
mod parsers;
mod postfix;
mod power_loss;
mod queue;
mod queue_files;
mod sendmail;
mod strangers;
mod support;
mod tidy;
mod tls;
