//! The program as a delivery agent of a real Postfix: every scenario is played with Postfix's own lmtp(8), too, and
//! what can be seen from outside must be the same.
//!
//! - Owns: the scenarios; a private Postfix, a server that remembers, and the comparison they need.
//! - Leaves to others: the protocols octet by octet (tests of the code itself), our own queue (`delivery`).
//! - Always true: differences that are wanted are declared, each with its reason, and have to be there.
//!
//! `TESTS_POSTFIX_OURS=no` lets Postfix's program play both sides: what fails then is a fault of the scenario.
//! `TESTS_POSTFIX_SHOW=yes` prints what was observed. Only root can start a Postfix; for others the tests pass with a
//! word about it.

mod answers;
mod broken;
pub mod client;
mod content;
mod conversation;
mod envelopes;
pub mod instance;
mod life;
mod mail;
mod mailboxes;
mod mask;
mod milter;
mod notices;
mod observation;
pub mod processes;
mod queue_files;
mod secure;
mod server;
mod set_up;
mod wire;
