//! What the administrator decides: default < file < environment < command line.
//!
//! - Owns: every key, its default and its meaning; routes and aliases; the words that tell what is wrong with a value.
//! - Leaves to others: what a value makes happen. [`Config::load`] reads the configuration file, the files that `*_FILE`
//!   variables name, `services(5)` and the host name, and touches nothing else. [`Config::open_secrets`], for who
//!   delivers alone, reads the files with certificates, keys and passwords.
//! - Always true: a [`Config`] that exists is complete and possible; nobody checks a value again.
//!
//! Each key stands once in code: in the `keys!` tables here ([`Config`]) and in `transport.rs`, `timeouts.rs`, `tls.rs` and
//! `sasl.rs`.
//! Reading, the refusal of unknown keys, `lastmile check` and the tests of the shipped file and the man page all
//! go by these tables.

mod aliases;
mod choices;
mod error;
mod habits;
mod keys;
mod known;
mod layers;
mod load;
mod parse;
mod routes;
mod sasl;
mod secrets;
mod server_key;
mod services;
mod timeouts;
mod tls;
mod tls_policy;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::mail::{Address, BadNexthop, Destination, TransportName};

pub use aliases::Aliases;
pub use choices::{Flags, InetProtocols, LogTarget, NotifyClass, NotifyClasses};
pub use error::{ConfigError, Problem};
pub use habits::{AddressOrder, EightBit, Family, Habits};
pub use keys::{Setting, quoted};
pub use layers::{DEFAULT_FILE, Sources};
pub use parse::{read_size, read_time};
pub use routes::Routes;
pub use sasl::Sasl;
pub use secrets::{PasswordMaps, SecretFile, Secrets, WrongSecret, system_roots};
pub use services::service_port;
pub use timeouts::{Timeout, Timeouts};
pub use tls::{CertMatch, Fingerprint, Tls, TlsLevel, TlsPolicy, TlsProtocols, TlsServerName};
pub use tls_policy::TlsPolicies;
pub use transport::Transport;

// Of logins, what a configuration is made of.
pub use crate::smtp::{Credentials, Proof, Secret, known_mechanisms};

use keys::keys;
use routes::Nexthops;

keys! {
    /// The configuration. A field bears the name of its key.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Config reads(nexthops: &Nexthops);
    names "", "";
    given {
        transports: BTreeMap<TransportName, Arc<Transport>>,
        ports: Nexthops,
        settings: Vec<Setting>,
    }

    /// Where messages are kept and the job FIFO is.
    [restart] queue_directory: PathBuf = "/var/spool/lastmile", parse::path;
    /// The user to become once everything is open that needs privileges.
    [restart] user: Option<String> = "", parse::optional(parse::word);
    /// The group to become; it may write the job FIFO.
    [restart] group: Option<String> = "", parse::optional(parse::word);
    /// The directory to change the root to.
    [restart] chroot: Option<PathBuf> = "", parse::optional(parse::path);
    /// Worker threads, each with one connection.
    [restart] workers: usize = "32", parse::number(1, 4096);
    /// Workers kept for destinations that have none. The scheduler takes at most an eighth of `workers`.
    workers_reserved: usize = "2", parse::number(0, 4096);
    /// Recipients in memory.
    active_limit: usize = "20000", parse::number(1, 10_000_000);
    /// Where mail goes that no route fits.
    default_transport: Destination = "lmtp:unix:/run/dovecot/lmtp", |given| nexthops.destination(given);
    /// The name of this host: for LHLO and EHLO, in Message-ID, as the reporting MTA.
    myhostname: String = "", parse::host_name;
    /// The domain of addresses that have none.
    myorigin: String = "", parse::host_name;
    /// Users, by name or number, whose files in `incoming/` may name a nexthop. An agent puts numbers in the place of names.
    trusted_users: Vec<String> = "", parse::words;
    /// Octets of a message, at most.
    message_size_limit: u64 = "50M", parse::size_above_zero;
    /// Octets that must be free in the file system of the queue for new mail to be taken.
    queue_minfree: u64 = "0", parse::size;
    /// The shortest time between two attempts.
    minimal_backoff_time: Duration = "5m", parse::time_above_zero;
    /// The longest time between two attempts.
    maximal_backoff_time: Duration = "4000s", parse::time_above_zero;
    /// Time between two looks at what is due.
    queue_run_delay: Duration = "5m", parse::time_above_zero;
    /// Age at which a message is given up. Zero: after one attempt.
    maximal_queue_lifetime: Duration = "5d", parse::time;
    /// The same for bounces and notices.
    bounce_queue_lifetime: Duration = "5d", parse::time;
    /// Age at which senders are told that their mail is late. Zero: never.
    delay_warning_time: Duration = "0h", parse::time;
    /// Where bounces and notices go; `None`: by the routes.
    bounce_nexthop: Option<Destination> = "", parse::optional(|given| nexthops.destination(given));
    /// What the postmaster is told of.
    notify_classes: NotifyClasses = "resource, software, 2bounce", parse::notify_classes;
    /// Who is told. Without a domain, `myorigin` is meant.
    error_notice_recipient: Address = "postmaster", parse::address;
    /// The name in front of log lines.
    [restart] syslog_name: String = "lastmile", parse::tag;
    /// Where log lines go.
    [restart] log_target: LogTarget = "stderr", parse::choice;
    /// How long a graceful stop waits for what runs.
    shutdown_timeout: Duration = "30s", parse::time;
    /// Nexthops by recipient.
    routes: Routes = "{}", |given| nexthops.routes(given);
    /// Addresses behind local names.
    aliases: Aliases = "{}", Aliases::read;
}

impl Config {
    /// Reads all sources. The error tells everything that is wrong, not only the first thing.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        load::load(sources)
    }

    /// The transport of that name.
    pub fn transport(&self, name: &TransportName) -> Option<&Arc<Transport>> {
        self.transports.get(name)
    }

    /// The same configuration with `transport` in the place of the one of that name; next hops go by its port.
    #[must_use]
    pub fn with_transport(mut self, transport: Transport) -> Self {
        self.ports.0.insert(transport.name.clone(), transport.tcp_port);
        self.transports.insert(transport.name.clone(), Arc::new(transport));
        self
    }

    /// All transports, by name.
    pub fn transports(&self) -> impl Iterator<Item = &Arc<Transport>> {
        self.transports.values()
    }

    /// What a nexthop means with the configured transports and their ports.
    pub fn destination(&self, nexthop: &str) -> Result<Destination, BadNexthop> {
        self.ports.resolve(nexthop)
    }

    /// What servers mean that are written as in a nexthop, where the transport is known.
    pub fn destination_of(&self, transport: TransportName, servers: &str) -> Result<Destination, BadNexthop> {
        self.ports.resolve_of(transport, servers)
    }

    /// Where mail for `recipient` goes: by its address, its domain, the domains above it, `*`, and then
    /// `default_transport`.
    pub fn route(&self, recipient: &Address) -> Destination {
        self.routes.find(recipient, &self.myorigin).unwrap_or(&self.default_transport).clone()
    }

    /// Where bounces and notices go, as far as no route says otherwise.
    pub fn bounce_destination(&self) -> &Destination {
        self.bounce_nexthop.as_ref().unwrap_or(&self.default_transport)
    }

    /// Every destination that the configuration names.
    pub fn destinations(&self) -> BTreeSet<&Destination> {
        let named = [&self.default_transport].into_iter().chain(&self.bounce_nexthop);
        named.chain(self.routes.destinations()).collect()
    }

    /// Every value in effect and where it came from, in the order of the shipped file.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The keys that differ in `new` and take effect only at the next start.
    pub fn restart_needed(&self, new: &Self) -> Vec<&'static str> {
        self.differing_restart_keys(new)
    }
}

impl Default for Config {
    /// What holds where nothing is configured.
    fn default() -> Self {
        // Infallible: independent of any input, and a test holds it.
        load::defaults().expect("the default configuration is valid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::default();
        assert_eq!(config.workers, 32);
        let names: Vec<_> = config.transports().map(|transport| transport.name.as_str()).collect();
        assert_eq!(names, ["lmtp", "local", "smtp"]);
    }
}
