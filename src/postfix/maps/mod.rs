//! Lookup tables: `texthash:`, `inline:` and `static:` read once, all other types through proxymap(8).
//!
//! - Owns: how tables are named, opened and asked; lists of several tables; lists of domains.
//! - Leaves to others: proxymap(8)'s protocol ([`super::proxymap`]), what an entry means.
//! - Always true: a table that we may not ask is told of when it is opened, not when mail comes; "not there" and "not
//!   known now" are never taken for each other.
//!
//! Tables are opened before privileges are dropped and the root is changed. proxymap(8) is reached by a path below the
//! queue directory, which is the working directory before and after.

mod match_list;
mod memory;

use std::sync::Arc;

pub use match_list::{MatchList, Subdomains};

use super::parameters::{Problems, Settings, table};
use super::proxymap::{Case, Proxymap, ProxymapError};
use super::request::Release;
use crate::config::Secret;
use memory::{Memory, Readers};

/// The tables of a service.
#[derive(Debug)]
pub struct Tables {
    /// From `status reason` to another status and reason.
    pub delivery_status_filter: Maps,
    /// From the addresses of servers to keywords that count as not offered.
    pub discard_keyword_address_maps: Maps,
    /// Domains of which flush(8) is told.
    pub fast_flush_domains: MatchList,
    /// Next hops to which connections are kept, where Postfix's ways with connections are followed.
    pub connection_cache_destinations: MatchList,
    /// From next hops to what TLS has to be for them.
    pub tls_policy_maps: Maps,
    /// From servers and next hops to names and passwords.
    pub sasl_password_maps: Maps,
}

impl Tables {
    /// Opens all of them. The error tells of each one that cannot be used. `transport` in the names of parameters is
    /// `lmtp` or `smtp`.
    pub fn open(settings: &Settings) -> Result<Self, Problems> {
        let names = &settings.tables;
        // proxymap's requests look different since 3.11.
        let new_form = settings.mail_version >= Release { major: 3, minor: 11 };
        let proxymap = Proxymap::new(&settings.proxymap_socket, new_form, settings.ipc_timeout);
        let mut opener = Opener { proxymap: Arc::new(proxymap), problems: Problems::default() };
        let parameter = |suffix: &str| format!("{}_{suffix}", settings.transport);
        let subdomains = match names.fast_flush_subdomains {
            true => Subdomains::Meant,
            false => Subdomains::WithDot,
        };
        let tables = Self {
            delivery_status_filter: opener.maps(
                &parameter("delivery_status_filter"),
                &names.delivery_status_filter,
                Case::Kept,
            ),
            discard_keyword_address_maps: opener.maps(
                &table::name(settings.client.protocol, "discard_lhlo_keyword_address_maps"),
                &names.discard_keyword_address_maps,
                Case::Folded,
            ),
            fast_flush_domains: opener.domains_for_flush(&names.fast_flush_domains, subdomains),
            connection_cache_destinations: opener.match_list(
                &parameter("connection_cache_destinations"),
                &names.connection_cache_destinations,
                Subdomains::None,
            ),
            tls_policy_maps: opener.maps(&parameter("tls_policy_maps"), &names.tls_policy_maps, Case::Folded),
            sasl_password_maps: opener
                .secret_maps(&parameter("sasl_password_maps"), &settings.logins.password_maps),
        };
        if opener.problems.is_empty() { Ok(tables) } else { Err(opener.problems) }
    }
}

/// Opens tables, and keeps what is wrong with them.
#[derive(Debug)]
pub struct Opener {
    /// Whom to ask for what we do not read ourselves.
    pub proxymap: Arc<Proxymap>,
    /// A sentence for each table that cannot be used.
    pub problems: Problems,
}

impl Opener {
    /// Opens the tables that `parameter` names.
    pub fn maps(&mut self, parameter: &str, names: &[String], case: Case) -> Maps {
        let tables = names.iter().filter_map(|name| self.table(parameter, name, case));
        Maps { tables: tables.collect() }
    }

    /// Opens tables of passwords: of text alone, and of files that not everybody may read. What is wrong is told without
    /// what stands in a table or in its name.
    pub fn secret_maps(&mut self, parameter: &str, names: &[Secret]) -> Maps {
        let mut tables = Vec::new();
        for name in names {
            let (kind, rest) = name.expose().split_once(':').unwrap_or_default();
            match Memory::read(kind, rest, Case::Folded, Readers::NotEverybody) {
                Ok(Some(memory)) => tables.push(Table::Memory(memory)),
                Ok(None) => {
                    self.problems.push(format!("{parameter}: a {kind} table of passwords cannot be read"));
                }
                Err(what) if kind == "texthash" => self.problems.push(format!("{parameter}: {what}")),
                Err(_) => {
                    self.problems
                        .push(format!("{parameter}: an {kind} table is not written as it has to be"));
                }
            }
        }
        Maps { tables }
    }

    /// Opens a table; `None` once its problem is noted.
    fn table(&mut self, parameter: &str, name: &str, case: Case) -> Option<Table> {
        match Table::open(name, case, &self.proxymap) {
            Ok(table) => Some(table),
            Err(what) => {
                self.problems.push(format!("{parameter}: the table {name} cannot be used: {what}"));
                None
            }
        }
    }

    /// Opens `fast_flush_domains`. flush(8) looks at the list itself, so that with a table in it that we cannot read it may
    /// as well hear of every domain: the usual list is `$relay_domains`, which is nobody's idea of a table for us.
    fn domains_for_flush(&mut self, elements: &[String], subdomains: Subdomains) -> MatchList {
        if elements.iter().any(|element| match_list::needs_proxymap(element)) {
            return MatchList::everything();
        }
        let before = std::mem::take(&mut self.problems);
        let list = self.match_list("fast_flush_domains", elements, subdomains);
        let problems = std::mem::replace(&mut self.problems, before);
        if problems.is_empty() {
            return list;
        }
        for problem in problems.sentences() {
            log::warn!("{problem}; flush(8) is told of every domain that mail waits for");
        }
        MatchList::everything()
    }

    /// Opens a list of domains or other names.
    pub fn match_list(&mut self, parameter: &str, elements: &[String], subdomains: Subdomains) -> MatchList {
        MatchList::open(self, parameter, elements, subdomains)
    }
}

/// Why a table gave no answer. The words are for the log; the mail is deferred.
#[derive(Debug, thiserror::Error)]
#[error("the table {table} gives no answer: {error}")]
pub struct LookupError {
    /// The table.
    pub table: String,
    /// Why.
    pub error: ProxymapError,
}

/// Tables that are asked one after the other.
#[derive(Debug, Default)]
pub struct Maps {
    tables: Vec<Table>,
}

impl Maps {
    /// Whether there is no table at all.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// What the first table says that has the key.
    pub fn look_up(&self, key: &str) -> Result<Option<String>, LookupError> {
        for table in &self.tables {
            if let Some(value) = table.look_up(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// A table that is open.
#[derive(Debug)]
enum Table {
    Memory(Memory),
    Proxied { name: String, case: Case, proxymap: Arc<Proxymap> },
}

impl Table {
    /// Opens `type:name`. The error says what is wrong and what to do.
    fn open(name: &str, case: Case, proxymap: &Arc<Proxymap>) -> Result<Self, String> {
        let (kind, rest) = name.split_once(':').ok_or("a table is written as type:name")?;
        if kind != "proxy"
            && let Some(memory) = Memory::read(kind, rest, case, Readers::Any)?
        {
            return Ok(Self::Memory(memory));
        }
        let name = if kind == "proxy" { rest } else { name };
        if name.split_once(':').is_none_or(|(kind, rest)| kind.is_empty() || rest.is_empty()) {
            return Err("a table is written as type:name".to_owned());
        }
        match proxymap.open(name, case) {
            Err(ProxymapError::NotApproved) => Err(format!(
                "proxymap(8) may not read it: proxy:{name} must stand in main.cf, in a parameter that proxy_read_maps \
                 names or in proxy_read_maps itself"
            )),
            Err(error @ ProxymapError::Malformed) => Err(error.to_string()),
            // It may be there when mail comes; until then mail is deferred. Postfix's own programs do the same.
            Err(error) => {
                log::warn!("the table {name} gives no answer yet: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }?;
        Ok(Self::Proxied { name: name.to_owned(), case, proxymap: Arc::clone(proxymap) })
    }

    fn look_up(&self, key: &str) -> Result<Option<String>, LookupError> {
        match self {
            Self::Memory(memory) => Ok(memory.look_up(key).map(str::to_owned)),
            Self::Proxied { name, case, proxymap } => {
                let found = proxymap.look_up(name, *case, key.as_bytes());
                let found = found.map_err(|error| LookupError { table: name.clone(), error })?;
                Ok(found.map(|value| String::from_utf8_lossy(&value).into_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
