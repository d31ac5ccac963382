//! The commands.
pub mod sendmail;
