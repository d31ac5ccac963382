//! Sockets: connections to servers, with a deadline for whatever is awaited.
//!
//! - Owns: connecting, reading and writing within limits, and when a connection may be used again.
//! - Leaves to others: what is said (`smtp`), which batch a worker gets (`queue`), what is done with outcomes (the
//!   [`Observer`]).
//! - Always true: no wait is without a limit, and no write needs the peer to read first.

mod cached;
mod connect;
mod connection;
mod content;
mod link;
mod lookup;
mod observer;
mod open;
mod peer;
mod progress;
mod put_off;
mod shake_hands;
mod stepwise;
mod tap;
mod tls;
mod transcript;

pub use cached::{CachedConnection, Delivered, Delivery};

pub use content::{Content, FileContent, Taken};
pub use observer::Observer;
pub use open::{NotConnected, Ready, answers};
pub use peer::Peer;
pub use stepwise::Stepwise;
pub use tap::Watcher;
pub use transcript::{Line, Transcript, is_about_protocol};
