//! The queue on disk: one directory tree, in which a message is a file and its state a place.
//!
//! - Owns: the directories, the lock and the job FIFO; queue files and the order in which they are written;
//!   pickup of what users drop; reply logs.
//! - Leaves to others: what is delivered when (`queue`), threads (`agent`), what a message should contain
//!   (`cli`).
//! - Always true: from its acknowledgement on a message is on disk until each recipient is settled; what
//!   other users can write is copied before it is believed; nothing is deleted unread.

mod complete;
mod copy;
mod directory;
mod examine;
mod fifo;
mod format;
mod lines;
mod listing;
mod pickup;
mod prepare;
mod queue_file;
mod received;
mod recovery;
mod reply_log;
mod state;
mod submit;
mod watch;
mod wire;
mod write;

#[cfg(test)]
mod tests;

pub use directory::{Gone, Place, SOCKET_NAME, Spool, SpoolError};
pub use examine::Examined;
pub use fifo::{JOB_LINE_ATOMIC, JobFifo, JobWritten};
pub use format::RECIPIENTS_MAX;
pub use lines::Cursor;
pub use listing::{Entry, Fingerprint, Names, is_incoming_name};
pub use pickup::{Peek, PickedUp, Pickup, Taken};
pub use prepare::Lock;
pub use queue_file::{Content, Layout, LoadError, Loaded, QueueFile, Recipients};
pub use received::PENDING_ID;
pub use recovery::STALE_MAX;
pub use reply_log::{LOG_SIZE_MAX, LastReplies, LoggedReply, ReplyLog};
pub use state::State;
pub use submit::{Draft, SubmitError, SubmitLimits, survive_file_size_limit};
pub use watch::Watch;
pub use wire::Normaliser;
pub use write::{ContentError, Written, append_content};
