//! Routes: which nexthop a recipient's mail takes.
//!
//! - Owns: the keys of `[routes]` and their precedence; nexthops with the configured transports and ports.
//! - Leaves to others: the syntax of a nexthop (`mail`), what to do where no route fits ([`super::Config::route`]).
//! - Always true: every nexthop in a table names a transport that exists.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::iter::successors;
use std::num::NonZeroU16;

use super::keys::{Given, Wrong, WrongEntry};
use super::parse::{inline_table, one_text};
use crate::mail::{Address, BadNexthop, Destination, Nexthop, TransportName};

/// Nexthops by recipient, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<String, Destination>);

impl Routes {
    /// The nexthop for a recipient: by its whole address, its domain, `.parent` for each domain above that from
    /// the longest to the shortest, and `*`. A recipient without a domain has `origin`.
    pub fn find(&self, recipient: &Address, origin: &str) -> Option<&Destination> {
        if self.0.is_empty() {
            return None;
        }
        let domain = if recipient.domain().is_empty() { origin } else { recipient.domain() };
        let domain = domain.to_lowercase();
        let address = format!("{}@{domain}", recipient.local_part().to_lowercase());
        let parents = successors(parent(&domain), |above| parent(above.get(1..)?));
        [address.as_str(), domain.as_str()]
            .into_iter()
            .chain(parents)
            .chain(["*"])
            .find_map(|key| self.0.get(key))
    }

    /// All nexthops of the table.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.0.values()
    }
}

/// The domain above, with the dot in front.
fn parent(domain: &str) -> Option<&str> {
    domain.find('.').and_then(|dot| domain.get(dot..))
}

/// The transports that exist, with the port of a nexthop that names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nexthops(pub(super) BTreeMap<TransportName, NonZeroU16>);

impl Nexthops {
    /// What a nexthop means.
    pub(super) fn resolve(&self, text: &str) -> Result<Destination, BadNexthop> {
        let is_transport =
            |name: &str| name.parse().is_ok_and(|name: TransportName| self.0.contains_key(&name));
        self.with_port(&Nexthop::parse(text, is_transport)?)
    }

    /// What the servers of a known transport mean.
    pub(super) fn resolve_of(&self, transport: TransportName, text: &str) -> Result<Destination, BadNexthop> {
        self.with_port(&Nexthop::of(transport, text)?)
    }

    fn with_port(&self, nexthop: &Nexthop) -> Result<Destination, BadNexthop> {
        let port = self.0.get(nexthop.transport()).copied();
        let port = port.ok_or_else(|| BadNexthop::UnknownTransport(nexthop.transport().to_string()))?;
        Ok(nexthop.destination(port))
    }

    /// The value of a key that names a nexthop.
    pub(super) fn destination(&self, given: &Given) -> Result<Destination, String> {
        let text = given.text()?;
        self.resolve(text).map_err(|error| match text.contains('@') && !text.contains("unix:") {
            // A word of it may be a password.
            true => "a nexthop has no name or password in it: they stand in the file that sasl_password_maps of its \
                     transport names"
                .to_owned(),
            false => error.to_string(),
        })
    }

    /// The value of `routes`.
    pub(super) fn routes(&self, given: &Given) -> Result<Routes, Wrong> {
        let mut routes = BTreeMap::new();
        let mut wrong = Vec::new();
        for (name, given) in inline_table(given)? {
            let route = route_key(&name, &given).and_then(|key| Ok((key, self.destination(&given)?)));
            let what = match route {
                Err(what) => what,
                Ok((key, destination)) => match routes.entry(key) {
                    Entry::Occupied(entry) => format!("there is already a route for {:?}", entry.key()),
                    Entry::Vacant(entry) => {
                        entry.insert(destination);
                        continue;
                    }
                },
            };
            wrong.push(WrongEntry { name, given, what });
        }
        if wrong.is_empty() { Ok(Routes(routes)) } else { Err(Wrong::Entries(wrong)) }
    }
}

/// What a route is asked by, in lower case: `user@domain`, `domain`, `.domain` or `*`.
fn route_key(name: &str, given: &Given) -> Result<String, String> {
    one_text(name, given, &["nexthop"], "lmtp:inet:mx1.example.org")?;
    let bad = || "a route is for an address, a domain, a .domain (all below it) or \"*\"".to_owned();
    if name == "*" {
        return Ok(name.to_owned());
    }
    if name.contains('@') {
        let address: Address = name.parse().map_err(|_| bad())?;
        return Ok(address.unquoted().to_lowercase());
    }
    let domain = name.strip_prefix('.').unwrap_or(name);
    let is_domain =
        Address::from_parts("x", domain).is_ok() && domain.split('.').all(|label| !label.is_empty());
    if is_domain { Ok(name.to_lowercase()) } else { Err(bad()) }
}
