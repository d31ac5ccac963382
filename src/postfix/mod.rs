//! Life under Postfix's master(8), in the place of its lmtp(8) and smtp(8): the protocols and files of that world.
//!
//! - Owns: how a process begins and ends under master(8), delivery requests, Postfix's queue files, the reports to
//!   bounce(8), defer(8), trace(8), verify(8) and flush(8), lookup tables, and what main.cf and its tables say.
//! - Leaves to others: the engine that delivers (`agent`), what is said to a server (`net`, `smtp`).
//! - Always true: a recipient is marked as done only after its result was reported, and a request is answered with
//!   "done" only when every recipient of it was delivered, or its refusal reported.

pub mod address;
pub mod attribute;
pub mod content;
mod descriptors;
pub mod environment;
pub mod lines;
pub mod login;
pub mod maps;
pub mod options;
pub mod parameters;
pub mod proxymap;
pub mod queue_file;
pub mod record;
pub mod report;
pub mod request;
pub mod service;
pub mod seven_bit;
mod status;
pub mod supervisor;
pub mod tls_policy;

pub use descriptors::NotUnderMaster;
