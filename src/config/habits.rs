//! What Postfix's clients do otherwise than a transport of ours, or may be told to by main.cf alone.
//!
//! - Owns: the choices that have no key in our configuration.
//! - Leaves to others: main.cf (`postfix`), and what a choice makes happen (`net`, `smtp`).
//! - Always true: the default is what our own transports do.

use std::time::Duration;

use super::timeouts::Timeout;
pub use crate::smtp::EightBit;

/// Habits of a client. The default ones are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Habits {
    /// The name for LHLO or EHLO; `None`: `myhostname`.
    pub lhlo_name: Option<String>,
    /// 5yz to LHLO or EHLO (or the HELO after it) returns the mail; else it is deferred.
    pub refused_hello_bounces: bool,
    /// 5yz as the greeting returns the mail; else it is deferred (`skip_5xx_greeting`).
    pub refused_greeting_bounces: bool,
    /// Mail to a host that does not exist is returned; else it is deferred.
    pub unknown_host_bounces: bool,
    /// 8-bit mail for a server without 8BITMIME: what to do with it.
    pub eight_bit: EightBit,
    /// Whether XFORWARD is said where the server offers it, and how long its reply may take.
    pub xforward: Option<Timeout>,
    /// How old a connection may become (`connection_reuse_time_limit`); `None`: as old as it likes.
    pub reuse_time_limit: Option<Duration>,
    /// Addresses tried for one message, at most; `None`: our own limit.
    pub address_limit: Option<usize>,
    /// Servers that are spoken to for one message, at most (`mx_session_limit`); `None`: all.
    pub session_limit: Option<usize>,
    /// Where a conversation breaks and the server cannot have the mail, and for recipients whom a server puts off (4yz), the
    /// next server of the list is tried at once. Else only where the protocol was broken.
    pub fail_over: bool,
    /// In which order the addresses of a host are tried.
    pub address_order: AddressOrder,
    /// A source address that cannot be bound defers the mail; else another one is used, with a warning.
    pub bind_address_enforced: bool,
    /// Whether addresses in commands have no quotes (`quote_rfc821_envelope = no`).
    pub unquoted_envelope: bool,
    /// A probe of an address goes as far as DATA (`address_verify_target = data`); else as far as RCPT.
    pub probe_until_data: bool,
    /// Whether each TLS connection gets a line in the log (`tls_loglevel` above 0).
    pub tls_log: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            lhlo_name: None,
            refused_hello_bounces: false,
            refused_greeting_bounces: false,
            unknown_host_bounces: false,
            eight_bit: EightBit::default(),
            xforward: None,
            reuse_time_limit: None,
            address_limit: None,
            session_limit: None,
            fail_over: false,
            address_order: AddressOrder::default(),
            // Who names an address has a reason to: a firewall, or a server that knows us by it.
            bind_address_enforced: true,
            unquoted_envelope: false,
            probe_until_data: false,
            tls_log: true,
        }
    }
}

/// In which order the addresses of a host are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOrder {
    /// Which family comes first; `None`: whichever.
    pub first: Option<Family>,
    /// Shuffle addresses (of one family) so that load spreads over them; else they stay as they were found.
    pub randomize: bool,
    /// Without a first family: families take turns, so that the limits leave some of each.
    pub balance: bool,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}
