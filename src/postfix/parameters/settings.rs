//! Settings: everything that a service under master(8) goes by, from main.cf.
//!
//! - Owns: which parameters there are for the service itself, and their values as the rest of the program wants them.
//! - Leaves to others: the parameters of a transport (`transport`, `tls`, `sasl`), tables (`maps`), what becomes of
//!   parameters that have no effect here or cannot be obeyed (`table`).
//! - Always true: settings that exist are complete; nobody checks a value again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::main_cf;
use super::ports::KnownPorts;
use super::postconf::{self, PostconfError, Source};
use super::sasl::LoginSettings;
use super::table::{self, Scope};
use super::tls::TlsSettings;
use super::transport;
use super::values::{Problems, Reader, TIME_MAX, Values};
use crate::config::{Config, Flags, NotifyClasses, Transport};
use crate::mail::{PostfixNexthops, Protocol, Resolution, TransportName};
use crate::postfix::queue_file::Layout;
use crate::postfix::report::{AddressFormat, LineFormat, ServiceNames};
use crate::postfix::request::Release;

/// Threads at most.
const WORKERS_MAX: u64 = 4096;

/// What a service goes by.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The release of Postfix.
    pub mail_version: Release,
    /// The queue.
    pub queue_directory: PathBuf,
    /// Who a service becomes (`-u`).
    pub mail_owner: String,
    /// In front of the program's name in the log.
    pub syslog_name: String,
    /// The facility of syslog, by its name: `mail`.
    pub syslog_facility: String,
    /// Whether lines go to postlogd(8) instead of syslog (`maillog_file`).
    pub logs_to_postlogd: bool,
    /// The names of the daemons that hear of outcomes.
    pub services: ServiceNames,
    /// proxymap(8)'s socket, below the queue directory.
    pub proxymap_socket: PathBuf,
    /// postlogd(8)'s socket, below the queue directory.
    pub postlog_socket: PathBuf,
    /// The name of this host.
    pub myhostname: String,
    /// The domain of addresses that have none.
    pub myorigin: String,
    /// The name of the mail system, for notices.
    pub mail_name: String,
    /// How long a service waits for requests before it ends; `None`: for ever.
    pub max_idle: Option<Duration>,
    /// How long another service may take to read or write.
    pub ipc_timeout: Duration,
    /// Where queue files lie.
    pub layout: Layout,
    /// Whether mail stays in the queue that would be returned.
    pub soft_bounce: bool,
    /// Whether verify(8) hears of recipients that cannot be delivered to.
    pub address_verify_negative_cache: bool,
    /// Whose transcripts the postmaster gets.
    pub notices: Notices,
    /// How log lines are written.
    pub line_format: LineFormat,
    /// Names of ports.
    pub known_ports: KnownPorts,
    /// Where mail goes that no server of a TCP destination takes: destinations as in a next hop.
    pub fallback_relay: Vec<String>,
    /// Which connections are kept.
    pub connection_cache: ConnectionCache,
    /// TLS, as far as the transport does not say.
    pub tls: TlsSettings,
    /// Logins, as far as the transport does not say.
    pub logins: LoginSettings,
    /// Tables that are to be opened ([`super::super::maps`]).
    pub tables: TableNames,
    /// The name of the one transport that is used: `lmtp` or `smtp`.
    pub transport: TransportName,
    /// The transport.
    pub client: Arc<Transport>,
    /// The same for the engine: workers, host name, and the transport.
    pub config: Config,
    /// Sentences for the log: what has less effect than one might think.
    pub warnings: Vec<String>,
}

/// Transcripts of sessions for the postmaster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notices {
    /// Of sessions in which a server broke the protocol.
    pub protocol: bool,
    /// Of sessions that ended because the message could not be read here.
    pub data: bool,
    /// Who gets them.
    pub recipient: String,
    /// Who they are from; a message from this sender gives no notice.
    pub double_bounce_sender: String,
}

/// Which connections are kept for the next message (`lastmile_connection_cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionCache {
    /// Each worker keeps its last one.
    Keep,
    /// Those that Postfix would keep: as a request says if `on_demand`, and those to
    /// `lmtp_connection_cache_destinations`.
    Postfix {
        /// Whether the flags of a request count.
        on_demand: bool,
    },
}

/// Tables and lists that are asked while mail is delivered: elements as main.cf has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableNames {
    /// Replaces statuses and reasons.
    pub delivery_status_filter: Vec<String>,
    /// From the addresses of servers to keywords that count as not offered.
    pub discard_keyword_address_maps: Vec<String>,
    /// Domains of which flush(8) is told.
    pub fast_flush_domains: Vec<String>,
    /// Whether a name in `fast_flush_domains` means the domains below it too.
    pub fast_flush_subdomains: bool,
    /// Next hops to which connections are kept, with [`ConnectionCache::Postfix`].
    pub connection_cache_destinations: Vec<String>,
    /// What TLS has to be for single next hops.
    pub tls_policy_maps: Vec<String>,
}

impl Settings {
    /// Reads main.cf with the help of postconf(1). `flags` are those of the service's command line.
    pub fn read(source: &Source, protocol: Protocol, flags: Flags) -> Result<Self, Problems> {
        let refuse = |error: PostconfError| Problems::from(error.to_string());
        let own: Vec<_> = table::names(protocol, Scope::Own).collect();
        let asked = table::names(protocol, Scope::Client).chain(table::names(protocol, Scope::Service));
        let values = postconf::ask(source, asked, &own).map_err(refuse)?;
        let mut settings = Self::from_values(&values, protocol, flags)?;
        let main_cf = source.main_cf().map_err(refuse)?;
        settings.warnings.extend(strangers(&main_cf, &source.overrides, protocol));
        Ok(settings)
    }

    /// The settings that these values make. The error tells everything that is wrong, not only the first thing.
    pub fn from_values(values: &Values, protocol: Protocol, flags: Flags) -> Result<Self, Problems> {
        let mut reader = Reader::new(values);
        table::refuse(&mut reader, values, protocol);
        let settings = read(&mut reader, protocol, flags);
        let problems = reader.problems();
        match settings {
            Some(settings) if problems.is_empty() => Ok(settings),
            _ => Err(problems),
        }
    }
}

/// Names that look like ours but mean nothing, so that a slip of the pen does not stay unseen: in main.cf those that
/// begin as our own do, and on the command line those of the client too.
fn strangers(main_cf: &str, overrides: &[(String, String)], protocol: Protocol) -> Vec<String> {
    let is_own = |name: &str| name.starts_with("lastmile_");
    let is_client = |name: &str| name.starts_with(&table::name(protocol, ""));
    let of_file = main_cf::assigned_names(main_cf).into_iter().filter(|name| is_own(name));
    let of_line = overrides.iter().map(|(name, _)| name.clone());
    let all = of_file.chain(of_line.filter(|name| is_own(name) || is_client(name)));
    // A name may be somebody's own, to be referred to.
    let is_used =
        |name: &str| ["$", "${", "$("].iter().any(|start| main_cf.contains(&format!("{start}{name}")));
    let unknown = all.filter(|name| !table::is_known(name, protocol) && !is_used(name));
    unknown.map(|name| format!("{name} is set, but there is no such parameter: it has no effect")).collect()
}

/// Reads all values; `None` once the problem of one is noted without which nothing can be made.
fn read(reader: &mut Reader<'_>, protocol: Protocol, flags: Flags) -> Option<Settings> {
    let version = reader.parsed("mail_version", "", |text| {
        Release::parse(text).ok_or_else(|| "postconf told no version of Postfix".to_owned())
    });
    let queue_directory = reader.parsed("queue_directory", "", |text| match text.starts_with('/') {
        true => Ok(PathBuf::from(text)),
        false => Err("a path that begins with / is needed".to_owned()),
    });
    let connection_cache = connection_cache(reader, protocol);
    let known_ports = reader.parsed("known_tcp_ports", "", KnownPorts::parse).unwrap_or_default();
    let max_idle = Some(reader.time("max_idle", "100s")).filter(|time| !time.is_zero());
    let mut warnings = Vec::new();
    let transport::Client { transport, tls, logins } = transport::read(
        reader,
        &transport::Given {
            protocol,
            flags,
            max_idle: max_idle.unwrap_or(TIME_MAX),
            connection_cache,
            known_ports: &known_ports,
        },
        &mut warnings,
    )?;
    let name = transport.name.clone();
    let client = Arc::new(transport.clone());
    let config = config(reader)?.with_transport(transport);
    Some(Settings {
        mail_version: version?,
        queue_directory: queue_directory?,
        mail_owner: reader.word("mail_owner", "postfix"),
        syslog_name: reader.word("syslog_name", "postfix"),
        syslog_facility: reader.word("syslog_facility", "mail"),
        logs_to_postlogd: !reader.text("maillog_file", "").is_empty(),
        services: services(reader),
        proxymap_socket: Path::new("private").join(reader.word("proxymap_service_name", "proxymap")),
        postlog_socket: Path::new("public").join(reader.word("postlog_service_name", "postlog")),
        myhostname: config.myhostname.clone(),
        myorigin: config.myorigin.clone(),
        mail_name: reader.word("mail_name", "Postfix"),
        max_idle,
        ipc_timeout: reader.parsed("ipc_timeout", "3600s", some_time).unwrap_or_default(),
        layout: Layout {
            hash_queue_names: reader
                .text("hash_queue_names", "deferred, defer")
                .to_ascii_lowercase()
                .split([',', ' ', '\t'])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            hash_queue_depth: reader.number("hash_queue_depth", "1", 1, 10) as usize,
        },
        soft_bounce: reader.yes("soft_bounce", false),
        address_verify_negative_cache: reader.yes("address_verify_negative_cache", true),
        notices: notices(reader),
        line_format: line_format(reader),
        fallback_relay: fallback_relay(reader, &client, &known_ports),
        known_ports,
        connection_cache,
        tls,
        logins,
        tables: table_names(reader, protocol, connection_cache),
        transport: name,
        client,
        config,
        warnings,
    })
}

/// A time that is not zero.
fn some_time(text: &str) -> Result<Duration, String> {
    match super::values::time(text)? {
        Duration::ZERO => Err("the time must be longer than zero".to_owned()),
        time => Ok(time),
    }
}

/// What the engine goes by beside the transport.
fn config(reader: &mut Reader<'_>) -> Option<Config> {
    let mut config = Config::default();
    // Each worker has one connection, as each process of Postfix's client has: so many may there be by default.
    let processes = reader.number("default_process_limit", "100", 1, u64::MAX).min(WORKERS_MAX).to_string();
    let workers = match reader.text("lastmile_workers", "") {
        "" => processes.parse().ok(),
        _ => Some(reader.number("lastmile_workers", "", 1, WORKERS_MAX)),
    };
    config.workers = workers? as usize;
    config.myhostname = reader.word("myhostname", "");
    config.myorigin = match reader.text("myorigin", "") {
        "" => config.myhostname.clone(),
        origin => origin.to_owned(),
    };
    config.syslog_name = reader.word("syslog_name", "postfix");
    config.shutdown_timeout = reader.time("lastmile_shutdown_timeout", "30s");
    // cleanup(8) has seen to that when the message came.
    config.message_size_limit = i64::MAX as u64;
    // Notices of Postfix's classes are sent by its own programs; what is left to us stands in `Notices`.
    config.notify_classes = NotifyClasses::default();
    Some(config)
}

fn services(reader: &mut Reader<'_>) -> ServiceNames {
    let mut name = |parameter: &str, default| reader.word(&format!("{parameter}_service_name"), default);
    ServiceNames {
        bounce: name("bounce", "bounce"),
        defer: name("defer", "defer"),
        trace: name("trace", "trace"),
        verify: name("address_verify", "verify"),
        flush: name("flush", "flush"),
        cleanup: name("cleanup", "cleanup"),
    }
}

fn notices(reader: &mut Reader<'_>) -> Notices {
    const CLASSES: [&str; 8] =
        ["bounce", "2bounce", "data", "delay", "policy", "protocol", "resource", "software"];
    let classes = reader.list("notify_classes", "resource, software");
    let classes: Vec<_> = classes.iter().map(|class| class.to_ascii_lowercase()).collect();
    if let Some(unknown) = classes.iter().find(|class| !CLASSES.contains(&class.as_str())) {
        reader.refuse(
            "notify_classes",
            format!("there is no class {unknown:?}; the classes are {}", CLASSES.join(", ")),
        );
    }
    let has = |class: &str| classes.iter().any(|known| known == class);
    Notices {
        protocol: has("protocol"),
        data: has("data"),
        recipient: reader.word("error_notice_recipient", "postmaster"),
        double_bounce_sender: reader.word("double_bounce_sender", "double-bounce"),
    }
}

fn line_format(reader: &mut Reader<'_>) -> LineFormat {
    let parse = |text: &str| match text {
        "external" => Ok(AddressFormat::External),
        "internal" => Ok(AddressFormat::Internal),
        _ => Err("it is \"external\" or \"internal\"".to_owned()),
    };
    let addresses = reader.parsed("info_log_address_format", "external", parse).unwrap_or_default();
    let decimals = reader.number("delay_logging_resolution_limit", "2", 0, 6) as u8;
    LineFormat { addresses, resolution: Resolution::new(decimals).unwrap_or_default() }
}

/// The relays, each as a next hop has it.
fn fallback_relay(reader: &mut Reader<'_>, client: &Transport, ports: &KnownPorts) -> Vec<String> {
    let name = table::name(client.protocol, "fallback_relay");
    let relays = reader.list(&name, "");
    let nexthops = PostfixNexthops {
        transport: &client.name,
        protocol: client.protocol,
        default_port: client.tcp_port,
        port_of: |name: &str| ports.port_of(name),
    };
    for relay in &relays {
        if relay.starts_with("unix:") || relay.starts_with('/') {
            reader.refuse(&name, format!("{relay} is a UNIX socket, and only TCP servers can take over"));
        } else if let Err(reason) = nexthops.destination(relay) {
            reader.refuse(&name, reason.text);
        }
    }
    relays
}

fn connection_cache(reader: &mut Reader<'_>, protocol: Protocol) -> ConnectionCache {
    let on_demand = reader.yes(&table::name(protocol, "connection_cache_on_demand"), true);
    let parse = |text: &str| match text {
        "" | "keep" => Ok(ConnectionCache::Keep),
        "postfix" => Ok(ConnectionCache::Postfix { on_demand }),
        _ => Err("\"keep\" or \"postfix\" is needed".to_owned()),
    };
    reader.parsed("lastmile_connection_cache", "", parse).unwrap_or(ConnectionCache::Keep)
}

fn table_names(reader: &mut Reader<'_>, protocol: Protocol, cache: ConnectionCache) -> TableNames {
    let with_subdomains = reader.list("parent_domain_matches_subdomains", "");
    let destinations = reader.list(&table::name(protocol, "connection_cache_destinations"), "");
    TableNames {
        delivery_status_filter: reader.list(&table::name(protocol, "delivery_status_filter"), ""),
        discard_keyword_address_maps: reader
            .list(&table::name(protocol, "discard_lhlo_keyword_address_maps"), ""),
        fast_flush_domains: reader.list("fast_flush_domains", ""),
        fast_flush_subdomains: with_subdomains.iter().any(|name| name == "fast_flush_domains"),
        connection_cache_destinations: match cache {
            ConnectionCache::Keep => Vec::new(),
            ConnectionCache::Postfix { .. } => destinations,
        },
        tls_policy_maps: reader.list(&table::name(protocol, "tls_policy_maps"), ""),
    }
}

#[cfg(test)]
mod tests;
