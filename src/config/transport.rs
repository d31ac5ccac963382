//! Transports: named sets of delivery parameters.
//!
//! - Owns: the keys of `[transport.NAME]`, the built-in transports, where their defaults differ.
//! - Leaves to others: everything that goes over the wire.
//! - Always true: at least one delivery at a time may run, and a bound address is of a family that is in use.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use super::choices::{Flags, InetProtocols};
use super::habits::Habits;
use super::keys::{Key, keys};
use super::parse;
use super::sasl::Sasl;
use super::secrets::Secrets;
use super::timeouts::{Timeout, Timeouts};
use super::tls::Tls;
use crate::mail::{Protocol, TransportName};
use crate::smtp::{OverQuota, Stage};

/// Transports that exist without being configured.
pub(super) const BUILT_IN: [&str; 3] = ["lmtp", "local", "smtp"];

keys! {
    /// A named set of delivery parameters. A field bears the name of its key.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Transport reads();
    names "", "";
    given {
        /// Its name.
        pub name: TransportName,
        /// The limits of the stages.
        pub timeouts: Timeouts,
        /// How connections are secured.
        pub tls: Tls,
        /// How it logs in.
        pub sasl: Sasl,
        /// What stands in the files that the two name, once somebody has opened them.
        pub secrets: Secrets,
        /// What main.cf alone can say.
        pub habits: Habits,
    }

    /// What is spoken.
    protocol: Protocol = "lmtp", parse::choice;
    /// Deliveries in parallel to one destination.
    destination_concurrency_limit: usize = "20", parse::number(1, 4096);
    /// Recipients of one transaction; 0: no limit. See [`Transport::effective_recipient_limit`].
    destination_recipient_limit: usize = "50", parse::number(0, 1_000_000);
    /// Batches in flight for one recipient address; 0: no limit.
    recipient_concurrency_limit: usize = "4", parse::number(0, 4096);
    /// Whether a connection is kept for the next batch.
    cache_connection: bool = "yes", parse::yes_no;
    /// How long a kept connection may rest.
    max_idle: Duration = "100s", parse::time_above_zero;
    /// Transactions over one connection.
    max_use: u32 = "100", parse::number(1, 1_000_000);
    /// Whether to close without waiting for the reply to QUIT.
    skip_quit_response: bool = "no", parse::yes_no;
    /// The port of a nexthop that names none.
    tcp_port: NonZeroU16 = "24", parse::port;
    /// Addresses to connect from, at most one of each family.
    bind_address: Vec<IpAddr> = "", parse::bind_address;
    /// The address families that are used.
    inet_protocols: InetProtocols = "all", parse::inet_protocols;
    /// Whether PIPELINING is used where it is offered.
    pipelining: bool = "yes", parse::yes_no;
    /// Whether CHUNKING is used where it is offered.
    chunking: bool = "yes", parse::yes_no;
    /// Octets of content, at most, that go with the first flight.
    eager_content_limit: u64 = "64K", parse::size;
    /// Octets in a second that a server must take at least; 0: no such limit.
    min_data_rate: u64 = "500", parse::size;
    /// Keywords of a server's LHLO or EHLO reply to overlook, in upper case.
    discard_lhlo_keywords: Vec<String> = "", parse::keywords;
    /// Headers to add, as the letters of pipe(8) flags.
    flags: Flags = "", parse::flags;
    /// Octets of a line, beyond which it is folded; 0: never.
    line_length_limit: usize = "0", parse::line_length_limit;
    /// What a reply of 552 5.2.2 means.
    over_quota: OverQuota = "bounce", parse::choice;
    /// Whether MAIL says `AUTH=<>` after a login (RFC 4954 section 5), where the server offers AUTH.
    send_dummy_mail_auth: bool = "no", parse::yes_no;
    /// Servers whose conversations are logged in full: host names, addresses or paths.
    debug_peer_list: Vec<String> = "", parse::words;
    /// How much more is logged for them.
    debug_peer_level: usize = "2", parse::number(1, 9);
}

impl Transport {
    /// All keys of a transport, in the order of the shipped file.
    pub(super) fn keys() -> impl Iterator<Item = &'static Key> {
        Self::KEYS.iter().chain(Timeouts::KEYS).chain(Tls::KEYS).chain(Sasl::KEYS)
    }

    /// Recipients of one transaction, 0 for no limit: one where a header names the recipient.
    pub fn effective_recipient_limit(&self) -> usize {
        let names_recipient = self.flags.delivered_to || self.flags.original_to;
        if names_recipient { 1 } else { self.destination_recipient_limit }
    }

    /// The same transport, which does not log in.
    #[must_use]
    pub fn without_login(&self) -> Self {
        let mut transport = self.clone();
        transport.sasl.auth_enable = false;
        transport
    }

    /// How long `stage` may take.
    pub fn timeout_at(&self, stage: Stage) -> Timeout {
        let usual = self.timeouts.at(stage);
        match stage {
            Stage::XforwardName | Stage::XforwardProtocol => self.habits.xforward.unwrap_or(usual),
            _ => usual,
        }
    }

    /// The address to connect to `peer` from.
    pub fn bind_address_for(&self, peer: IpAddr) -> Option<IpAddr> {
        self.bind_address.iter().copied().find(|own| own.is_ipv4() == peer.is_ipv4())
    }

    /// Combinations that cannot work: the key to name, without `transport.NAME.`, and why.
    pub fn contradictions(&self) -> Vec<(Cow<'static, str>, String)> {
        let unused = self.bind_address.iter().find(|own| !self.inet_protocols.allows(**own));
        let unused = unused.map(|own| {
            let what = format!("{own} is never used while inet_protocols is {}", self.inet_protocols);
            ("bind_address".into(), what)
        });
        unused.into_iter().chain(self.tls.contradictions()).chain(self.sasl.contradictions()).collect()
    }
}

/// The default of a transport's key: the table's, but for a built-in transport or ESMTP it may differ.
pub(super) fn default_of(name: &str, protocol: Protocol, key: &Key) -> &'static str {
    match (key.name, name, protocol) {
        ("protocol", "smtp", _) => "smtp",
        ("destination_recipient_limit", "local", _) => "1",
        ("tcp_port", _, Protocol::Smtp) => "25",
        ("line_length_limit", _, Protocol::Smtp) => "998",
        _ => key.default,
    }
}
