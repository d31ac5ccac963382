//! Parameters: what main.cf and master.cf say, under Postfix's names.
//!
//! - Owns: which parameters are obeyed, accepted or refused; their values as [`Settings`].
//! - Leaves to others: `$` expansion and defaults (postconf(1), which is asked once), tables ([`super::maps`]).
//! - Always true: everything wrong is told at once; nothing that changes what becomes of mail is passed over in silence.

mod main_cf;
mod ports;
mod postconf;
mod sasl;
mod settings;
pub mod table;
mod tls;
mod transport;
mod values;

pub use ports::KnownPorts;
pub use postconf::Source;
pub use sasl::LoginSettings;
pub use settings::{ConnectionCache, Notices, Settings, TableNames};
pub use tls::TlsSettings;
pub use values::{Problems, Values};

pub(in crate::postfix) use main_cf::logical_lines;
pub(in crate::postfix) use tls::{level, protocols, server_name};
pub(in crate::postfix) use values::{elements, list, without_braces};
