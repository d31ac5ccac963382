//! The threads of the agent, and what they own.

pub mod doorbell;
pub mod log;
