//! From a host's name to its addresses, by way of the system's resolver.
//!
//! - Owns: what a failed look-up means, and in which order addresses are tried.
//! - Leaves to others: connecting (`connect`). The resolver has its own idea of how long it may take.
//! - Always true: no address stands twice, and at most [`ADDRESSES_MAX`] are tried unless the transport says otherwise.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};

use crate::config::{AddressOrder, Family, Transport};
use crate::mail::{EnhancedStatus, Reason};

/// Addresses that are tried for one name.
const ADDRESSES_MAX: usize = 8;

/// Where `host` can be reached, in the order of trying. A reason of class 5 is one for returning the mail.
pub fn addresses(host: &str, port: NonZeroU16, transport: &Transport) -> Result<Vec<SocketAddr>, Reason> {
    let found = look_up(host).map_err(|error| {
        let bounces = transport.habits.unknown_host_bounces;
        let text = format!("unable to look up host {host}: {}", words(&error));
        Reason::local(status(error.kind(), bounces), text)
    })?;
    to_try(found, host, port, transport)
}

/// Which of the addresses that were found for `host` are tried.
fn to_try(
    found: Vec<IpAddr>,
    host: &str,
    port: NonZeroU16,
    transport: &Transport,
) -> Result<Vec<SocketAddr>, Reason> {
    let mut addresses = each_once(found);
    addresses.retain(|address| transport.inet_protocols.allows(*address));
    if addresses.is_empty() {
        let text =
            format!("unable to look up host {host}: no address of a family that inet_protocols allows");
        return Err(Reason::local(EnhancedStatus::new(4, 4, 4), text));
    }
    put_in_order(&mut addresses, transport.habits.address_order, fastrand::shuffle);
    addresses.truncate(address_limit(transport));
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port.get())).collect())
}

/// Of the addresses of one name.
fn address_limit(transport: &Transport) -> usize {
    transport.habits.address_limit.unwrap_or(ADDRESSES_MAX).max(1)
}

/// A resolver may well find an address in two places.
fn each_once(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    found.into_iter().filter(|address| seen.insert(*address)).collect()
}

fn look_up(host: &str) -> Result<Vec<IpAddr>, LookupError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(host), None, Some(hints))?;
    // What is neither IPv4 nor IPv6 cannot be connected to.
    Ok(found.filter_map(Result::ok).map(|found| found.sockaddr.ip()).collect())
}

/// Whatever may be better in a while is transient. The rest is permanent where that `bounces`.
fn status(kind: LookupErrorKind, bounces: bool) -> EnhancedStatus {
    use LookupErrorKind::{Again, IO, Memory, NoData, NoName, System};
    let is_final = bounces && !matches!(kind, Again | Memory | System | IO);
    let subject = if matches!(kind, Again | NoName | NoData) { 4 } else { 3 };
    let detail = if subject == 4 { 4 } else { 0 };
    EnhancedStatus::new(if is_final { 5 } else { 4 }, subject, detail)
}

/// What gai_strerror(3) says, without the crate's words before it.
fn words(error: &LookupError) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

fn put_in_order(addresses: &mut Vec<IpAddr>, order: AddressOrder, shuffle: impl FnOnce(&mut [IpAddr])) {
    if order.randomize {
        shuffle(addresses);
    }
    match order.first {
        // A stable sort: within a family they stay as they are.
        Some(first) => addresses.sort_by_key(|address| family(*address) != first),
        None if order.balance => *addresses = in_turns(addresses),
        None => {}
    }
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

/// The families by turns, beginning with that of the first address.
fn in_turns(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = addresses.first().copied().map(family) else { return Vec::new() };
    let (ones, others): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().partition(|address| family(**address) == first);
    let longest = ones.len().max(others.len());
    (0..longest).flat_map(|at| [ones.get(at), others.get(at)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::progress::tests::transport;

    const PORT: NonZeroU16 = NonZeroU16::new(24).unwrap();

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_that_does_not_exist_returns_mail_only_where_that_is_asked_for() {
        for (kind, kept, returned) in [
            (LookupErrorKind::NoName, "4.4.4", "5.4.4"),
            (LookupErrorKind::NoData, "4.4.4", "5.4.4"),
            (LookupErrorKind::Again, "4.4.4", "4.4.4"),
            (LookupErrorKind::Memory, "4.3.0", "4.3.0"),
            (LookupErrorKind::System, "4.3.0", "4.3.0"),
            (LookupErrorKind::IO, "4.3.0", "4.3.0"),
            (LookupErrorKind::Fail, "4.3.0", "5.3.0"),
        ] {
            assert_eq!(status(kind, false).to_string(), kept, "{kind:?}");
            assert_eq!(status(kind, true).to_string(), returned, "{kind:?}");
        }
    }

    #[test]
    fn the_resolver_tells_a_bad_name_from_trouble() {
        let mut transport = transport();
        transport.habits.unknown_host_bounces = true;
        // No resolver asks a server about a label of 64 octets.
        let name = format!("{}.invalid", "x".repeat(64));
        let reason = addresses(&name, PORT, &transport).unwrap_err();
        assert_eq!(reason.status.to_string(), "5.4.4", "{}", reason.text);
        assert_eq!(reason.text, format!("unable to look up host {name}: Name or service not known"));
    }

    #[test]
    fn an_address_is_not_looked_up_and_its_family_must_be_in_use() {
        let mut transport = transport();
        let found = |transport: &Transport| addresses("2001:db8::1", PORT, transport);
        assert_eq!(found(&transport).unwrap(), ["[2001:db8::1]:24".parse().unwrap()]);
        transport.inet_protocols = crate::config::InetProtocols::Ipv4;
        let reason = found(&transport).unwrap_err();
        assert_eq!(reason.status.to_string(), "4.4.4");
        assert!(
            reason.text.ends_with("no address of a family that inet_protocols allows"),
            "{}",
            reason.text
        );
    }

    #[test]
    fn addresses_come_in_the_order_that_is_asked_for() {
        let found = "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1 2001:db8::2";
        let backwards = |addresses: &mut [IpAddr]| addresses.reverse();
        for (first, randomize, balance, expected) in [
            (None, false, false, found),
            (None, true, false, "2001:db8::2 2001:db8::1 192.0.2.3 192.0.2.2 192.0.2.1"),
            (None, false, true, "192.0.2.1 2001:db8::1 192.0.2.2 2001:db8::2 192.0.2.3"),
            (None, true, true, "2001:db8::2 192.0.2.3 2001:db8::1 192.0.2.2 192.0.2.1"),
            (Some(Family::Ipv6), false, true, "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2 192.0.2.3"),
            (Some(Family::Ipv4), true, false, "192.0.2.3 192.0.2.2 192.0.2.1 2001:db8::2 2001:db8::1"),
        ] {
            let mut addresses = ips(found);
            put_in_order(&mut addresses, AddressOrder { first, randomize, balance }, backwards);
            assert_eq!(addresses, ips(expected), "{first:?} {randomize} {balance}");
        }
    }

    #[test]
    fn addresses_are_tried_once_each_and_not_without_end() {
        let found: Vec<IpAddr> = (0..20).map(|at| format!("192.0.2.{}", at / 2).parse().unwrap()).collect();
        let mut transport = transport();
        for (limit, count) in [(None, ADDRESSES_MAX), (Some(3), 3), (Some(0), 1), (Some(usize::MAX), 10)] {
            transport.habits.address_limit = limit;
            let expected: Vec<SocketAddr> =
                (0..count).map(|at| format!("192.0.2.{at}:24").parse().unwrap()).collect();
            assert_eq!(to_try(found.clone(), "mx", PORT, &transport).unwrap(), expected, "{limit:?}");
        }
    }
}
