//! The transport that main.cf describes.
//!
//! - Owns: how Postfix's parameters of a client become a [`Transport`] of ours.
//! - Leaves to others: TLS and logins (`tls`, `sasl`), what a transport makes happen (`net`, `smtp`), limits that qmgr(8)
//!   keeps, tables.
//! - Always true: what qmgr(8) limits is not limited here once more, unless our own parameter says so.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::num::NonZeroU16;
use std::time::Duration;

use super::ports::KnownPorts;
use super::sasl::LoginSettings;
use super::settings::ConnectionCache;
use super::table::name;
use super::tls::TlsSettings;
use super::values::{Reader, TIME_MAX, elements};
use crate::config::{
    AddressOrder, Config, EightBit, Family, Flags, Habits, InetProtocols, Timeout, Timeouts, Transport,
};
use crate::mail::{Protocol, TransportName};

/// Octets of a line that leave room for the name of a header.
const LINE_LENGTH_MIN: u64 = 16;

/// How long connecting may take where main.cf leaves that to the system, which gives up TCP before that. But to a UNIX
/// socket whose server has stopped accepting it would wait for ever, and qmgr(8) ends if it waits for us for hours.
const CONNECT_MAX: Duration = Duration::from_secs(300);

/// What a transport depends on beside its parameters.
pub(super) struct Given<'a> {
    /// What is spoken.
    pub(super) protocol: Protocol,
    /// Of the service's command line.
    pub(super) flags: Flags,
    /// The service's, or a very long time.
    pub(super) max_idle: Duration,
    /// Which connections are kept.
    pub(super) connection_cache: ConnectionCache,
    /// Names of ports.
    pub(super) known_ports: &'a KnownPorts,
}

/// A transport, and what a transport of our own has no place for.
pub(super) struct Client {
    pub(super) transport: Transport,
    pub(super) tls: TlsSettings,
    pub(super) logins: LoginSettings,
}

/// Reads the transport; sentences for the log go to `warnings`.
pub(super) fn read(reader: &mut Reader<'_>, given: &Given<'_>, warnings: &mut Vec<String>) -> Option<Client> {
    let protocol = given.protocol;
    let known: TransportName = protocol.to_string().parse().ok()?;
    let mut transport = Transport::clone(Config::default().transport(&known)?);
    let mut parameters = Parameters { reader, protocol };
    parameters.read_timeouts(&mut transport.timeouts);
    transport.habits = parameters.habits(&transport.timeouts);
    parameters.read_connection(&mut transport, given);
    parameters.read_commands(&mut transport);
    transport.flags = given.flags;
    // lmtp_assume_final is what the flag X was before there was one. smtp(8) has no such parameter.
    transport.flags.final_delivery |= protocol == Protocol::Lmtp && parameters.yes("assume_final", false);
    transport.debug_peer_list = parameters.debug_peers(warnings);
    transport.debug_peer_level =
        parameters.reader.number("debug_peer_level", "2", 1, u64::MAX).min(9) as usize;
    transport.destination_concurrency_limit = parameters.concurrency_limit();
    transport.destination_recipient_limit = 0;
    transport.recipient_concurrency_limit = 0;
    let tls = parameters.read_tls(&mut transport);
    let logins = parameters.read_sasl(&mut transport, warnings);
    Some(Client { transport, tls, logins })
}

/// Reads the parameters of one protocol.
pub(super) struct Parameters<'r, 'v> {
    pub(super) reader: &'r mut Reader<'v>,
    pub(super) protocol: Protocol,
}

impl<'v> Parameters<'_, 'v> {
    /// The whole name of a parameter.
    pub(super) fn name(&self, suffix: &str) -> String {
        name(self.protocol, suffix)
    }

    /// A value as it stands; `default` where this release has no such parameter.
    pub(super) fn text(&self, suffix: &str, default: &'v str) -> &'v str {
        self.reader.text(&self.name(suffix), default)
    }

    /// A list.
    pub(super) fn list(&mut self, suffix: &str, default: &'v str) -> Vec<String> {
        self.reader.list(&name(self.protocol, suffix), default)
    }

    /// Notes that a value is wrong.
    pub(super) fn refuse(&mut self, suffix: &str, what: impl fmt::Display) {
        self.reader.refuse(&name(self.protocol, suffix), what);
    }

    pub(super) fn yes(&mut self, suffix: &str, default: bool) -> bool {
        self.reader.yes(&name(self.protocol, suffix), default)
    }

    pub(super) fn number(&mut self, suffix: &str, default: &'v str, least: u64, most: u64) -> u64 {
        self.reader.number(&name(self.protocol, suffix), default, least, most)
    }

    pub(super) fn parsed<T>(
        &mut self,
        suffix: &str,
        default: &'v str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.reader.parsed(&name(self.protocol, suffix), default, parse)
    }

    /// Ours. Of a service called `lastmile` qmgr(8) takes it for its own, which says the same; so 0 is no limit here too.
    fn concurrency_limit(&mut self) -> usize {
        let name = "lastmile_destination_concurrency_limit";
        match self.reader.text(name, "") {
            "" => usize::MAX,
            _ => match self.reader.number(name, "", 0, u64::from(u32::MAX)) {
                0 => usize::MAX,
                limit => limit as usize,
            },
        }
    }

    /// A limit that 0 turns off.
    fn limit(&mut self, suffix: &str, default: &'v str) -> Option<usize> {
        let limit = self.number(suffix, default, 0, u64::from(u32::MAX)) as usize;
        (limit > 0).then_some(limit)
    }

    /// The limit of a stage. 0 turns it off.
    pub(super) fn read_timeout(&mut self, timeout: &mut Timeout, suffix: &str, default: &'v str) {
        self.read_limit(timeout, suffix, default, TIME_MAX);
    }

    /// The limit of a stage, which is `none` where 0 turns it off.
    fn read_limit(&mut self, timeout: &mut Timeout, suffix: &str, default: &'v str, none: Duration) {
        let time = self.reader.time(&name(self.protocol, suffix), default);
        *timeout = Timeout::new(if time.is_zero() { none } else { time }).unwrap_or(*timeout);
    }

    fn read_timeouts(&mut self, timeouts: &mut Timeouts) {
        let connect = if self.protocol == Protocol::Lmtp { "0s" } else { "30s" };
        self.read_limit(&mut timeouts.connect, "connect_timeout", connect, CONNECT_MAX);
        self.read_timeout(&mut timeouts.lhlo, "lhlo_timeout", "300s");
        self.read_timeout(&mut timeouts.mail, "mail_timeout", "300s");
        self.read_timeout(&mut timeouts.rcpt, "rcpt_timeout", "300s");
        self.read_timeout(&mut timeouts.data_init, "data_init_timeout", "120s");
        self.read_timeout(&mut timeouts.data_xfer, "data_xfer_timeout", "180s");
        self.read_timeout(&mut timeouts.data_done, "data_done_timeout", "600s");
        self.read_timeout(&mut timeouts.rset, "rset_timeout", "20s");
        self.read_timeout(&mut timeouts.quit, "quit_timeout", "300s");
    }

    fn habits(&mut self, timeouts: &Timeouts) -> Habits {
        let mut xforward = timeouts.lhlo;
        self.read_timeout(&mut xforward, "xforward_timeout", "300s");
        let reuse_time = self.reader.time(&name(self.protocol, "connection_reuse_time_limit"), "300s");
        Habits {
            lhlo_name: Some(self.lhlo_name()),
            refused_hello_bounces: true,
            refused_greeting_bounces: !self.yes("skip_5xx_greeting", true),
            unknown_host_bounces: true,
            eight_bit: match self.reader.yes("disable_mime_output_conversion", false) {
                true => EightBit::Send,
                false => EightBit::Convert,
            },
            xforward: self.yes("send_xforward_command", false).then_some(xforward),
            reuse_time_limit: Some(reuse_time).filter(|time| !time.is_zero()),
            address_limit: self.limit("mx_address_limit", "5"),
            session_limit: self.limit("mx_session_limit", "2"),
            fail_over: true,
            address_order: AddressOrder {
                first: self.address_preference(),
                randomize: self.yes("randomize_addresses", true),
                balance: self.yes("balance_inet_protocols", true),
            },
            bind_address_enforced: self.yes("bind_address_enforce", false),
            unquoted_envelope: !self.yes("quote_rfc821_envelope", true),
            probe_until_data: self.probes_until_data(),
            // Of the TLS that is read later.
            tls_log: false,
        }
    }

    fn lhlo_name(&mut self) -> String {
        let own = self.reader.text("myhostname", "");
        let name = self.parsed("lhlo_name", own, |text| match text {
            "" => Err("a host name is needed".to_owned()),
            text if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text.to_owned()),
            _ => Err("a host name has no blanks, and ASCII characters only".to_owned()),
        });
        name.unwrap_or_default()
    }

    fn address_preference(&mut self) -> Option<Family> {
        let preference = self.parsed("address_preference", "any", |text| match text {
            "any" => Ok(None),
            "ipv4" => Ok(Some(Family::Ipv4)),
            "ipv6" => Ok(Some(Family::Ipv6)),
            _ => Err("\"any\", \"ipv4\" or \"ipv6\" is needed".to_owned()),
        });
        preference.flatten()
    }

    fn probes_until_data(&mut self) -> bool {
        let target = self.parsed("address_verify_target", "rcpt", |text| match text {
            "rcpt" => Ok(false),
            "data" => Ok(true),
            _ => Err("\"rcpt\" or \"data\" is needed".to_owned()),
        });
        target.unwrap_or_default()
    }

    /// How connections are made, kept and closed.
    fn read_connection(&mut self, transport: &mut Transport, given: &Given<'_>) {
        transport.cache_connection = true;
        let idle = self.reader.time(&name(self.protocol, "connection_cache_time_limit"), "2s");
        transport.max_idle = match given.connection_cache {
            ConnectionCache::Keep => given.max_idle,
            ConnectionCache::Postfix { .. } => idle,
        };
        transport.max_use = self.max_use();
        transport.skip_quit_response = self.yes("skip_quit_response", self.protocol == Protocol::Smtp);
        let default = if self.protocol == Protocol::Lmtp { "24" } else { "smtp" };
        let port = self.parsed("tcp_port", default, |text| tcp_port(text, given.known_ports));
        transport.tcp_port = port.unwrap_or(transport.tcp_port);
        transport.inet_protocols =
            self.reader.parsed("inet_protocols", "all", inet_protocols).unwrap_or(InetProtocols::All);
        transport.bind_address = self.bind_addresses(transport.inet_protocols);
        transport.min_data_rate = self.min_data_rate();
    }

    /// Transactions over one connection: `max_use`, which limits a process of Postfix's, and what may be used again. The
    /// latter counts uses after the first one.
    fn max_use(&mut self) -> u32 {
        let most = u64::from(u32::MAX);
        let max_use = self.reader.number("max_use", "100", 0, most);
        let reuse = self.number("connection_reuse_count_limit", "0", 0, most);
        let limits = [(max_use, max_use), (reuse, reuse.saturating_add(1))];
        let uses = limits.iter().filter(|(limit, _)| *limit > 0).map(|(_, uses)| *uses).min();
        uses.and_then(|uses| u32::try_from(uses).ok()).unwrap_or(u32::MAX)
    }

    /// Postfix asks for a rate only where it counts the time of a whole request.
    fn min_data_rate(&mut self) -> u64 {
        let rate = self.number("min_data_rate", "500", 1, u64::from(u32::MAX));
        if self.yes("per_request_deadline", false) { rate } else { 0 }
    }

    /// Source addresses, at most one of each family: as configured, else the only one that mail is received on.
    fn bind_addresses(&mut self, protocols: InetProtocols) -> Vec<IpAddr> {
        let mut configured = |suffix, family: &str, fits: fn(&IpAddr) -> bool| {
            let parse = |text: &str| match bare(text).parse::<IpAddr>() {
                _ if text.is_empty() => Ok(None),
                Ok(address) if fits(&address) => Ok(Some(address)),
                _ => Err(format!("an {family} address is needed")),
            };
            self.parsed(suffix, "", parse).flatten()
        };
        let configured = [
            configured("bind_address", "IPv4", IpAddr::is_ipv4),
            configured("bind_address6", "IPv6", IpAddr::is_ipv6),
        ];
        let interfaces = own_addresses(self.reader.text("inet_interfaces", "all"), system_addresses);
        let usable = configured.into_iter().zip(interfaces).filter_map(|(address, only)| address.or(only));
        usable.filter(|address| protocols.allows(*address) && !address.is_unspecified()).collect()
    }

    /// What is said, and how content is sent.
    fn read_commands(&mut self, transport: &mut Transport) {
        transport.pipelining = self.reader.own_yes("lastmile_pipelining");
        transport.chunking = self.reader.own_yes("lastmile_chunking");
        transport.discard_lhlo_keywords = self.discarded_keywords();
        transport.line_length_limit = self.line_length_limit();
    }

    fn line_length_limit(&mut self) -> usize {
        let limit = self.parsed("line_length_limit", "998", |text| match text.parse::<u64>() {
            Ok(limit @ (0 | LINE_LENGTH_MIN..=1_000_000)) => Ok(limit as usize),
            _ => Err(format!("0 for no limit, or a number from {LINE_LENGTH_MIN} to 1000000 is needed")),
        });
        limit.unwrap_or_default()
    }

    /// Keywords, in upper case. `silent-discard`, which no server offers, spares the log a line for each connection.
    fn discarded_keywords(&mut self) -> Vec<String> {
        let keywords = self.parsed("discard_lhlo_keywords", "", |text| {
            Ok(super::values::list(text)?.into_iter().map(|word| word.to_ascii_uppercase()).collect())
        });
        keywords.unwrap_or_default()
    }

    /// Peers by name, address or path. Postfix takes patterns and tables too; since this is about debugging, what is no
    /// such thing is passed over with a warning.
    fn debug_peers(&mut self, warnings: &mut Vec<String>) -> Vec<String> {
        let peers = self.reader.list("debug_peer_list", "");
        let is_pattern =
            |peer: &String| peer.starts_with(['!', '.']) || (peer.contains('/') && !peer.starts_with('/'));
        let (patterns, peers): (Vec<_>, Vec<_>) = peers.into_iter().partition(is_pattern);
        warnings.extend(patterns.iter().map(|pattern| {
            format!("debug_peer_list: {pattern} is passed over, for only names, addresses and socket paths are known here")
        }));
        peers
    }
}

/// An address without brackets around it.
fn bare(address: &str) -> &str {
    address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address)
}

/// A port by number or by the name of its service.
fn tcp_port(text: &str, known_ports: &KnownPorts) -> Result<NonZeroU16, String> {
    let port = match text.parse::<u64>() {
        Ok(number) => u16::try_from(number).ok().and_then(NonZeroU16::new),
        // Small systems have no list of services.
        Err(_) => known_ports.port_of(text).or(match text {
            "smtp" => NonZeroU16::new(25),
            "lmtp" => NonZeroU16::new(24),
            _ => None,
        }),
    };
    port.ok_or_else(|| {
        "a port from 1 to 65535, or a name in known_tcp_ports or /etc/services, is needed".to_owned()
    })
}

fn inet_protocols(text: &str) -> Result<InetProtocols, String> {
    let words = elements(text)?;
    let has = |word: &str| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    let is_known = |word: &&str| ["all", "ipv4", "ipv6"].iter().any(|known| known.eq_ignore_ascii_case(word));
    match (has("ipv4"), has("ipv6")) {
        _ if words.is_empty() || !words.iter().all(is_known) => {
            Err("\"all\", \"ipv4\" or \"ipv6\" is needed".to_owned())
        }
        _ if has("all") => Ok(InetProtocols::All),
        (true, false) => Ok(InetProtocols::Ipv4),
        (false, true) => Ok(InetProtocols::Ipv6),
        _ => Ok(InetProtocols::All),
    }
}

/// The IPv4 and the IPv6 address that connections come from because mail is received on no other one
/// (`inet_interfaces`), and it is none of the loopback.
fn own_addresses(interfaces: &str, resolve: impl Fn(&str) -> Vec<IpAddr>) -> [Option<IpAddr>; 2] {
    let words: Vec<_> = interfaces.split([',', ' ', '\t']).filter(|word| !word.is_empty()).collect();
    if words.iter().any(|word| word.eq_ignore_ascii_case("all") || word.eq_ignore_ascii_case("loopback-only"))
    {
        return [None, None];
    }
    let mut addresses: Vec<IpAddr> = words.into_iter().flat_map(|word| resolve(bare(word))).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let only =
        |fits: fn(&IpAddr) -> bool| match addresses.iter().filter(|a| fits(a)).collect::<Vec<_>>().as_slice()
        {
            [address] if !address.is_loopback() => Some(**address),
            _ => None,
        };
    [only(IpAddr::is_ipv4), only(IpAddr::is_ipv6)]
}

/// The addresses of a host, or the address itself. Postfix does not start with a name here that has none.
fn system_addresses(host: &str) -> Vec<IpAddr> {
    let found = (host, 0).to_socket_addrs();
    found.map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postfix::parameters::values::Values;

    fn addresses(words: &[&str]) -> Vec<IpAddr> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn connections_come_from_the_only_address_that_mail_is_received_on() {
        let resolve = |host: &str| match host {
            "mx.example.org" => addresses(&["192.0.2.1", "2001:db8::1"]),
            "localhost" => addresses(&["127.0.0.1", "::1"]),
            address => address.parse().into_iter().collect(),
        };
        for (interfaces, own) in [
            ("all", [None, None]),
            ("All, 192.0.2.1", [None, None]),
            ("loopback-only", [None, None]),
            ("localhost", [None, None]),
            ("192.0.2.1", [Some("192.0.2.1"), None]),
            ("[2001:db8::1]", [None, Some("2001:db8::1")]),
            ("mx.example.org", [Some("192.0.2.1"), Some("2001:db8::1")]),
            ("mx.example.org 192.0.2.1", [Some("192.0.2.1"), Some("2001:db8::1")]),
            ("mx.example.org, localhost", [None, None]),
            ("192.0.2.1, ::1", [Some("192.0.2.1"), None]),
            ("192.0.2.1, 192.0.2.2", [None, None]),
            ("nosuch.example", [None, None]),
            ("", [None, None]),
        ] {
            let own = own.map(|address| address.map(|address| address.parse().unwrap()));
            assert_eq!(own_addresses(interfaces, resolve), own, "{interfaces:?}");
        }
    }

    #[test]
    fn a_source_address_is_of_a_family_in_use() {
        for (values, own) in [
            (&[][..], &[][..]),
            (&[("lmtp_bind_address", "192.0.2.1")], &["192.0.2.1"]),
            (&[("lmtp_bind_address", "192.0.2.1"), ("inet_interfaces", "192.0.2.2 ::1")], &["192.0.2.1"]),
            (
                &[("lmtp_bind_address6", "[2001:db8::1]"), ("inet_interfaces", "192.0.2.2")],
                &["192.0.2.2", "2001:db8::1"],
            ),
            (&[("lmtp_bind_address6", "2001:db8::1"), ("inet_protocols", "ipv4")], &[]),
            (&[("lmtp_bind_address", "0.0.0.0"), ("inet_interfaces", "192.0.2.2")], &[]),
        ] {
            let given: Values = values.iter().copied().collect();
            let mut reader = Reader::new(&given);
            let mut parameters = Parameters { reader: &mut reader, protocol: Protocol::Lmtp };
            let protocols = parameters.reader.parsed("inet_protocols", "all", inet_protocols).unwrap();
            assert_eq!(parameters.bind_addresses(protocols), addresses(own), "{values:?}");
            assert!(reader.problems().is_empty());
        }
    }

    #[test]
    fn protocols_and_ports_have_their_words() {
        for (text, protocols) in [
            ("all", Some(InetProtocols::All)),
            ("ipv4", Some(InetProtocols::Ipv4)),
            ("IPv6", Some(InetProtocols::Ipv6)),
            ("ipv4, ipv6", Some(InetProtocols::All)),
            ("all ipv4", Some(InetProtocols::All)),
            ("ipv4 ipv5", None),
            ("", None),
        ] {
            assert_eq!(inet_protocols(text).ok(), protocols, "{text:?}");
        }
        for (text, port) in
            [("24", Some(24)), ("smtp", Some(25)), ("lmtp", Some(24)), ("65536", None), ("", None)]
        {
            let found = tcp_port(text, &KnownPorts::default());
            assert_eq!(found.ok().map(NonZeroU16::get), port, "{text:?}");
        }
    }

    #[test]
    fn patterns_of_peers_are_passed_over_with_a_warning() {
        let values = [("debug_peer_list", "mx.example.org !a .example.org 192.0.2.0/24 /run/lmtp 192.0.2.1")];
        let values: Values = values.into_iter().collect();
        let (mut reader, mut warnings) = (Reader::new(&values), Vec::new());
        let mut parameters = Parameters { reader: &mut reader, protocol: Protocol::Lmtp };
        assert_eq!(parameters.debug_peers(&mut warnings), ["mx.example.org", "/run/lmtp", "192.0.2.1"]);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
    }

    #[test]
    fn keywords_to_discard_are_in_upper_case() {
        let values: Values =
            [("smtp_discard_ehlo_keywords", "dsn, silent-discard Chunking")].into_iter().collect();
        let mut reader = Reader::new(&values);
        let mut parameters = Parameters { reader: &mut reader, protocol: Protocol::Smtp };
        assert_eq!(parameters.discarded_keywords(), ["DSN", "SILENT-DISCARD", "CHUNKING"]);
    }
}
