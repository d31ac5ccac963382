//! XFORWARD, Postfix's own extension: where a message came from, for servers behind a content filter.
//!
//! - Owns: which attributes go into which of the two commands, and when there is nothing to say.
//! - Leaves to others: when the commands are sent, and that a refusal changes nothing (`transaction`).
//! - Always true: only what the server listed and what is known is said, encoded so that it stays one word.

use super::stage::Stage;
use crate::mail::xtext;

/// The names of all attributes, in the order in which they are said.
const NAMES: [&str; 7] = ["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];

/// Where a message came from. Anything may be empty or `unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The client's host name.
    pub name: &'a str,
    /// Its address.
    pub address: &'a str,
    /// Its port.
    pub port: &'a str,
    /// `SMTP`, `ESMTP` and the like.
    pub protocol: &'a str,
    /// What it said in HELO.
    pub helo: &'a str,
    /// The message's name in the queue in which it came in.
    pub ident: &'a str,
    /// `local` or `remote`: whether headers are to be treated as local mail's.
    pub rewrite_context: &'a str,
}

/// Attributes that a server listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u8);

impl Attributes {
    /// Adds an attribute, if it is a known one.
    pub(super) fn add(&mut self, name: &str) {
        if let Some(at) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) {
            self.0 |= 1 << at;
        }
    }

    fn has(self, at: usize) -> bool {
        self.0 & 1 << at != 0
    }
}

/// Which of the two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Name, address and port.
    Client,
    /// Protocol, HELO name, queue name and source.
    Session,
}

impl Part {
    /// The stage of its reply.
    pub fn stage(self) -> Stage {
        match self {
            Self::Client => Stage::XforwardName,
            Self::Session => Stage::XforwardProtocol,
        }
    }

    /// The arguments of the command; empty if there is nothing to say.
    pub fn arguments(self, origin: &Origin<'_>, offered: Attributes) -> String {
        let places = match self {
            Self::Client => 0..3,
            Self::Session => 3..NAMES.len(),
        };
        let mut arguments = String::new();
        for ((at, name), value) in NAMES.iter().enumerate().zip(origin.values()) {
            if places.contains(&at) && offered.has(at) && !value.is_empty() {
                arguments.push_str(&format!(" {name}={}", xtext(value)));
            }
        }
        arguments
    }
}

impl<'a> Origin<'a> {
    /// What may be said, in the order of [`NAMES`]; empty where nothing is known.
    fn values(&self) -> [&'a str; 7] {
        let known = |value: &'a str| if value.eq_ignore_ascii_case("unknown") { "" } else { value };
        let source = match self.rewrite_context {
            "" => "",
            "local" => "LOCAL",
            _ => "REMOTE",
        };
        let [name, address, port, protocol] = [self.name, self.address, self.port, self.protocol].map(known);
        [name, address, port, protocol, self.helo, self.ident, source]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'_> = Origin {
        name: "mx.example",
        address: "192.0.2.1",
        port: "12345",
        protocol: "ESMTP",
        helo: "he lo+x",
        ident: "4jX2yh2zbPz1Tr1c",
        rewrite_context: "remote",
    };

    fn attributes(names: &str) -> Attributes {
        let mut attributes = Attributes::default();
        names.split(' ').for_each(|name| attributes.add(name));
        attributes
    }

    #[test]
    fn only_what_is_listed_and_known_is_said() {
        let all = "NAME ADDR PORT PROTO HELO IDENT SOURCE TTL";
        let unknown = Origin { name: "unknown", address: "UNKNOWN", port: "unknown", ..ORIGIN };
        for (origin, listed, client, session) in [
            (
                ORIGIN,
                all,
                " NAME=mx.example ADDR=192.0.2.1 PORT=12345",
                " PROTO=ESMTP HELO=he+20lo+2Bx IDENT=4jX2yh2zbPz1Tr1c SOURCE=REMOTE",
            ),
            (ORIGIN, "addr helo", " ADDR=192.0.2.1", " HELO=he+20lo+2Bx"),
            (ORIGIN, "", "", ""),
            (ORIGIN, "TTL", "", ""),
            (unknown, "NAME ADDR PORT SOURCE", "", " SOURCE=REMOTE"),
            (Origin { rewrite_context: "local", ..Origin::default() }, all, "", " SOURCE=LOCAL"),
            (Origin { helo: "unknown", ..Origin::default() }, all, "", " HELO=unknown"),
            (Origin::default(), all, "", ""),
        ] {
            let offered = attributes(listed);
            assert_eq!(Part::Client.arguments(&origin, offered), client, "{listed}");
            assert_eq!(Part::Session.arguments(&origin, offered), session, "{listed}");
        }
    }
}
