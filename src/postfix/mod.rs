//! Life under Postfix's master(8), in the place of its lmtp(8) and smtp(8): the protocols and files of that world.
//!
//! - Owns: how a process begins and ends under master(8), delivery requests, Postfix's queue files, the reports to
//!   bounce(8), defer(8), trace(8), verify(8) and flush(8), lookup tables, and what main.cf says.
//! - Leaves to others: the engine that delivers (`agent`), what is said to a server (`net`, `smtp`).
//! - Always true: a recipient is marked as done only after its result was reported, and a request is answered with
//!   "done" only when every recipient of it was delivered, or its refusal reported.

pub mod address;
pub mod attribute;
mod descriptors;
pub mod environment;
pub mod options;
pub mod parameters;
pub mod report;
pub mod maps;
pub mod parameters;
pub mod proxymap;
pub mod request;
pub mod service;
mod status;
pub mod supervisor;

pub use descriptors::NotUnderMaster;
pub mod content;
pub mod lines;
pub mod queue_file;
pub mod record;
pub mod request;
pub mod seven_bit;
