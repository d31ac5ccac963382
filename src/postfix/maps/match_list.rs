//! Lists of domains or other names, as in `fast_flush_domains`.
//!
//! - Owns: the patterns of such a list, and how a name is compared with them.
//! - Leaves to others: the tables in it.
//! - Always true: the first pattern that fits decides.

use super::super::parameters::list;
use super::super::proxymap::Case;
use super::memory::Memory;
use super::{LookupError, Opener, Table};

/// How deep files may name files.
const DEPTH_MAX: usize = 8;

/// What a domain in a list says of the domains below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subdomains {
    /// Names are no domains.
    None,
    /// `example.org` means them too.
    Meant,
    /// `.example.org` means them and only them.
    WithDot,
}

/// A list of names.
#[derive(Debug)]
pub struct MatchList {
    patterns: Vec<Pattern>,
    subdomains: Subdomains,
}

#[derive(Debug)]
struct Pattern {
    /// Whether a name that fits is *not* in the list.
    negated: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Name(String),
    Table(Table),
}

impl MatchList {
    pub(super) fn open(
        opener: &mut Opener,
        parameter: &str,
        elements: &[String],
        subdomains: Subdomains,
    ) -> Self {
        let mut list = Self { patterns: Vec::new(), subdomains };
        for element in elements {
            list.add(opener, parameter, element, false, 0);
        }
        list
    }

    /// The list that has every name in it.
    pub(super) fn everything() -> Self {
        let table = Table::Memory(Memory::Static("yes".to_owned().into()));
        let patterns = vec![Pattern { negated: false, what: What::Table(table) }];
        Self { patterns, subdomains: Subdomains::None }
    }

    /// Adds a pattern: a name, a table, or a file with more of them.
    fn add(&mut self, opener: &mut Opener, parameter: &str, element: &str, negated: bool, depth: usize) {
        let bare = element.trim_start_matches('!');
        let negated = negated ^ ((element.len() - bare.len()) % 2 == 1);
        if bare.starts_with('/') {
            match read_patterns(bare, depth) {
                Ok(elements) => {
                    for element in elements {
                        self.add(opener, parameter, &element, negated, depth + 1);
                    }
                }
                Err(what) => opener.problems.push(format!("{parameter}: {bare} cannot be used: {what}")),
            }
        } else if is_table(bare) {
            let table = opener.table(parameter, bare, Case::Folded);
            self.patterns.extend(table.map(|table| Pattern { negated, what: What::Table(table) }));
        } else {
            self.patterns.push(Pattern { negated, what: What::Name(bare.to_lowercase()) });
        }
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a name is in the list.
    pub fn contains(&self, name: &str) -> Result<bool, LookupError> {
        let name = name.to_lowercase();
        for pattern in &self.patterns {
            let fits = match &pattern.what {
                What::Name(known) => self.spellings(&name).any(|spelling| spelling == *known),
                What::Table(table) => self.is_in(table, &name)?,
            };
            if fits {
                return Ok(!pattern.negated);
            }
        }
        Ok(false)
    }

    fn is_in(&self, table: &Table, name: &str) -> Result<bool, LookupError> {
        for spelling in self.spellings(name) {
            if table.look_up(spelling)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a pattern may be that fits `name`: the name, and the domains above it as they are written here.
    fn spellings<'a>(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let subdomains = self.subdomains;
        let parents = name.match_indices('.').filter_map(move |(at, _)| match subdomains {
            Subdomains::None => None,
            Subdomains::Meant => name.get(at + 1..),
            Subdomains::WithDot => name.get(at..),
        });
        std::iter::once(name).chain(parents.filter(|parent| !parent.is_empty()))
    }
}

/// Whether a pattern is a table that only proxymap(8) can read.
pub(super) fn needs_proxymap(element: &str) -> bool {
    let bare = element.trim_start_matches('!');
    let is_ours = ["texthash:", "inline:", "static:"].iter().any(|kind| bare.starts_with(kind));
    !bare.starts_with('/') && is_table(bare) && !is_ours
}

/// Whether a pattern names a table. `[address]:port` and next hops such as `unix:path` are names.
fn is_table(pattern: &str) -> bool {
    match pattern.split_once(':') {
        Some(("unix" | "inet", _)) => false,
        Some((kind, rest)) => {
            let is_port = rest.bytes().all(|b| b.is_ascii_digit());
            !is_port && !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        }
        None => false,
    }
}

/// The patterns in a file. A line that begins with # is a comment.
fn read_patterns(path: &str, depth: usize) -> Result<Vec<String>, String> {
    if depth >= DEPTH_MAX {
        return Err("files name each other without end".to_owned());
    }
    let octets = std::fs::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&octets).into_owned();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    list(&lines.collect::<Vec<_>>().join(" "))
}
