//! services(5): the port that this machine gives to a service.
//!
//! - Owns: the format of the file.
//! - Leaves to others: the port to use where the file has none.
//! - Always true: a file that is missing or odd gives no port and no error.

use std::num::NonZeroU16;

/// The TCP port of a service, by its name or one of its aliases.
pub(super) fn tcp_port(services: &str, name: &str) -> Option<NonZeroU16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let official = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let is_it = protocol == "tcp" && (official == name || words.any(|alias| alias == name));
        if is_it { port.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_name_and_alias() {
        let services =
            "# smtp 99/tcp\nsmtp\t25/tcp mail\nlmtp 24/udp\nodd\nbad x/tcp lmtp\nx 2003/tcp a lmtp # b\n";
        for (name, port) in [("smtp", Some(25)), ("mail", Some(25)), ("lmtp", Some(2003)), ("b", None)] {
            assert_eq!(tcp_port(services, name).map(NonZeroU16::get), port, "{name}");
        }
    }
}
