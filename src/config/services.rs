//! services(5): the port that this machine gives to a service.
//!
//! - Owns: the file and its format.
//! - Leaves to others: the port to use where the file has none.
//! - Always true: a file that is missing or odd gives no port and no error.

use std::num::NonZeroU16;

/// Where this machine lists the ports of services.
pub(super) const SERVICES: &str = "/etc/services";

/// The TCP port of a service of this machine, by its name or one of its aliases.
pub fn service_port(name: &str) -> Option<NonZeroU16> {
    tcp_port(&std::fs::read_to_string(SERVICES).ok()?, name)
}

/// The TCP port of a service, by its name or one of its aliases. Only lines that hold the name somewhere are read: every
/// command reads the configuration, and this file is longer than anything else in it.
pub(super) fn tcp_port(services: &str, name: &str) -> Option<NonZeroU16> {
    memchr::memmem::find_iter(services.as_bytes(), name)
        .find_map(|at| port_in(line_around(services, at), name))
}

fn line_around(text: &str, at: usize) -> &str {
    let (before, after) = text.split_at(at);
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let end = after.find('\n').map_or(text.len(), |end| at + end);
    text.get(start..end).unwrap_or_default()
}

/// `smtp 25/tcp mail # a comment`
fn port_in(line: &str, name: &str) -> Option<NonZeroU16> {
    let mut words = line.split('#').next()?.split_ascii_whitespace();
    let official = words.next()?;
    let (port, protocol) = words.next()?.split_once('/')?;
    let is_it = protocol == "tcp" && (official == name || words.any(|alias| alias == name));
    if is_it { port.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn services_are_found_by_name_and_alias() {
        let services =
            "# smtp 99/tcp\nsmtp\t25/tcp mail\nlmtp 24/udp\nodd\nbad x/tcp lmtp\nx 2003/tcp a lmtp # b\n";
        for (name, port) in [("smtp", Some(25)), ("mail", Some(25)), ("lmtp", Some(2003)), ("b", None)] {
            assert_eq!(tcp_port(services, name).map(NonZeroU16::get), port, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_search_for_the_name_finds_what_reading_every_line_finds(
            services in "((lmtp|smtp|xlmtp|a)[ \t](2[0-9]|0|lmtp)/(tcp|udp)( lmtp| #lmtp| \u{e9})?\r?\n?){0,8}",
        ) {
            let line_by_line = services.lines().find_map(|line| port_in(line, "lmtp"));
            prop_assert_eq!(tcp_port(&services, "lmtp"), line_by_line);
        }
    }
}
