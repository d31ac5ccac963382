//! An LMTP and ESMTP server for tests, demonstrations and measurements: it delivers into a Maildir for each
//! recipient, or throws the mail away, or misbehaves as a script tells it.
//!
//! - Owns: the server's side of the conversation, the script language ([`Script`]), the Maildirs. How replies, paths
//!   and dots are written is of use to who speaks SMTP on standard input, too.
//! - Leaves to others: everything about sending mail. No code is shared with the client, so that one mistake
//!   cannot hide in both.
//! - Always true: buffers, waits and connections are bounded; a message is in a Maildir before its 250 is
//!   written, unless a rule says otherwise. It is not synced to disk: this is no mail server.

mod auth;
mod channel;
mod content;
mod counts;
mod extension;
mod listen;
mod maildir;
mod mechanism;
mod pattern;
mod receive;
mod reply;
mod scram;
mod script;
mod server;
mod session;
mod starttls;
mod syntax;
#[cfg(test)]
mod tests;
mod tls;
mod transfer;
mod wire;

pub use counts::Counts;
pub use extension::Extension;
pub use listen::Listen;
pub use maildir::maildir_name;
pub use pattern::pattern_matches;
pub use receive::{DotDecoder, LineEnd};
pub use reply::Reply;
pub use script::{BadRule, SCRIPT_HELP, Script, ScriptError};
pub use server::{Handle, Sink, SinkConfig, Store};
pub use syntax::{parse_chunk, split_path};
pub use tls::{TlsConfig, TlsConfigError, TlsVersion};
