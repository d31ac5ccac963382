//! What only the operating system knows, and more than one folder needs.
//!
//! - Owns: accounts, and becoming one of them.
//! - Leaves to others: which account that is, and when.
//! - Always true: nothing here knows of mail.

mod identity;

pub use identity::{Identity, Refused};
