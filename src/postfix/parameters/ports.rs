//! Ports that main.cf names (`known_tcp_ports`, since Postfix 3.6).
//!
//! - Owns: the format of the parameter, and that its names come before those of services(5).
//! - Leaves to others: the port where none is named.
//! - Always true: a name has one port.

use std::collections::HashMap;
use std::num::NonZeroU16;

use crate::config::service_port;

/// Names of ports. Releases that do not have the parameter know none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownPorts(HashMap<String, NonZeroU16>);

impl KnownPorts {
    /// Reads `name=port` or `name=other name=port`, between commas. The error says what is needed.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut ports = HashMap::new();
        for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
            let (names, port) = element
                .rsplit_once('=')
                .ok_or_else(|| format!("in {element:?}, name=port or name=other name=port is needed"))?;
            let is_number = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
            let port = Some(port.trim()).filter(|port| is_number(port)).and_then(|port| port.parse().ok());
            let port = port.ok_or_else(|| format!("in {element:?}, a port from 1 to 65535 is needed"))?;
            for name in names.split('=').map(str::trim) {
                if is_number(name) || name.contains(char::is_whitespace) {
                    return Err(format!(
                        "in {element:?}, a name is needed that has no blanks and is no number"
                    ));
                }
                if ports.insert(name.to_owned(), port).is_some() {
                    return Err(format!("{name:?} is there twice"));
                }
            }
        }
        Ok(Self(ports))
    }

    /// The port with this name; where main.cf has none, that of the system's service.
    pub fn port_of(&self, name: &str) -> Option<NonZeroU16> {
        self.0.get(name).copied().or_else(|| service_port(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_before_those_of_services() {
        let ports = KnownPorts::parse("lmtp=24, smtp = 2525,smtps=submissions =465,, http-x=80,").unwrap();
        for (name, port) in [
            ("lmtp", Some(24)),
            ("smtp", Some(2525)),
            ("smtps", Some(465)),
            ("submissions", Some(465)),
            ("http-x", Some(80)),
            ("no-such-service", None),
            ("SMTP", None),
            ("", None),
        ] {
            assert_eq!(ports.port_of(name).map(NonZeroU16::get), port, "{name}");
        }
        assert_eq!(KnownPorts::parse("").unwrap(), KnownPorts::default());
        assert_eq!(KnownPorts::default().port_of("smtp"), service_port("smtp"));
    }

    #[test]
    fn what_names_no_port_is_refused() {
        for text in [
            "smtp",
            "lmtp=24 smtp=25",
            "smtp=",
            "=25",
            "a==25",
            "1=2",
            "smtp=abc",
            "smtp=+25",
            "smtp=0",
            "smtp=65536",
            "smtp=25,smtp=26",
            "a=a=1",
            "a b=25",
            "lmtp=24, smtp",
        ] {
            assert!(KnownPorts::parse(text).is_err(), "{text}");
        }
    }
}
