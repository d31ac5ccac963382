//! The real programs that call sendmail, on a machine where it is ours.
//!
//! - Owns: for each caller the command line that it really uses, what is in the queue then (envelope, octets), the
//!   exit status, and what the caller does where it is not 0.
//! - Leaves to others: options that no caller uses (`it::sendmail`); delivery.
//! - Always true: a test asserts the command line, so that it says when a new version of a caller calls differently.

mod cron_and_at;
mod git;
mod mail_user_agents;
mod msmtp;
mod php;
mod smtplib;
mod support;
mod symfony;
mod sympa;
mod sympa_direct;
