//! lastmile carries mail over its last mile: from a queue to the server that keeps the mailboxes.

pub mod agent;
pub mod cli;
pub mod config;
pub mod mail;
pub mod net;
pub mod notice;
pub mod queue;
pub mod sink;
pub mod smtp;
pub mod spool;
