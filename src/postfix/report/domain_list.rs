//! Postfix's lists of domains, as in `fast_flush_domains`.
//!
//! - Owns: the syntax of such a list, and which domains it holds.
//! - Leaves to others: tables and files that it names.
//! - Always true: the first item that fits decides; a list without one that fits does not hold the domain.

/// Lists in lists: a file of a list may name others, but not without end.
const DEPTH_MAX: usize = 10;

/// Reads the file at a path.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<String, String>;
/// Looks a key up in a table, `type:name`.
pub type Lookup<'a> = &'a dyn Fn(&str, &str) -> Result<bool, String>;

/// A list of domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainList {
    items: Vec<Item>,
    parents: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    pattern: Pattern,
    /// What the list says of a domain that fits: false behind an odd number of `!`.
    holds: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Domain(String),
    Table(String),
}

impl DomainList {
    /// Reads a list of items between commas and blanks. `parents`: a domain stands for those below it too
    /// (`parent_domain_matches_subdomains` names the parameter); else only one with a dot before it does, and for
    /// those alone. Files are read now, by `read`; the error says which cannot be.
    pub fn parse(list: &str, parents: bool, read: ReadFile<'_>) -> Result<Self, String> {
        let mut items = Vec::new();
        collect(list, true, read, &mut items, 0)?;
        Ok(Self { items, parents })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The tables that are named in it.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.items.iter().filter_map(|item| match &item.pattern {
            Pattern::Table(table) => Some(table.as_str()),
            Pattern::Domain(_) => None,
        })
    }

    /// Whether the list holds `domain`. The error is that of the table which had to be asked.
    pub fn holds(&self, domain: &str, lookup: Lookup<'_>) -> Result<bool, String> {
        let domain = domain.to_lowercase();
        for Item { pattern, holds } in &self.items {
            let fits = match pattern {
                Pattern::Domain(pattern) => self.fits(&domain, pattern),
                Pattern::Table(table) => self.is_in_table(&domain, table, lookup)?,
            };
            if fits {
                return Ok(*holds);
            }
        }
        Ok(false)
    }

    fn fits(&self, domain: &str, pattern: &str) -> bool {
        let above = domain.strip_suffix(pattern);
        match above {
            Some("") => true,
            Some(above) if self.parents => above.ends_with('.'),
            Some(_) => pattern.starts_with('.'),
            None => false,
        }
    }

    /// Asks for the domain, then for those above it.
    fn is_in_table(&self, domain: &str, table: &str, lookup: Lookup<'_>) -> Result<bool, String> {
        let mut key = domain;
        loop {
            if lookup(table, key)? {
                return Ok(true);
            }
            // A pattern decides about the whole domain, and would take a part of it for another one.
            let is_pattern = ["regexp:", "pcre:"].iter().any(|kind| unproxied(table).starts_with(kind));
            let dot = key.char_indices().skip(1).find(|(_, c)| *c == '.').map(|(at, _)| at);
            match dot {
                Some(dot) if !is_pattern => {
                    key = key.get(dot + usize::from(self.parents)..).unwrap_or_default();
                }
                _ => return Ok(false),
            }
        }
    }
}

/// A table without what says who opens it.
fn unproxied(table: &str) -> &str {
    table.strip_prefix("proxy:").unwrap_or(table)
}

fn collect(
    list: &str,
    holds: bool,
    read: ReadFile<'_>,
    items: &mut Vec<Item>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("files are named in each other more than {DEPTH_MAX} times"));
    }
    for word in words(list) {
        let bare = word.trim_start_matches('!');
        let holds = holds == ((word.len() - bare.len()) % 2 == 0);
        if bare.is_empty() {
            return Err(format!("\"{word}\" says of nothing that it is not in the list"));
        }
        let pattern = if bare.starts_with('/') {
            let text = read(bare).map_err(|error| format!("cannot read {bare}: {error}"))?;
            collect(&without_comments(&text), holds, read, items, depth + 1)?;
            continue;
        } else if is_table(bare) {
            Pattern::Table(bare.to_owned())
        } else {
            Pattern::Domain(bare.to_lowercase())
        };
        items.push(Item { pattern, holds });
    }
    Ok(())
}

/// `[` begins an address, in which a colon means something else.
fn is_table(word: &str) -> bool {
    word.contains(':') && !word.starts_with('[')
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| [line, " "]).collect()
}

/// The words of a list. What stands in braces is one, with them: `inline:{a=b, c=d}`.
fn words(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut words) = (0_usize, None, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_between = depth == 0 && (c == ',' || c.is_ascii_whitespace());
        match (is_between, start) {
            (true, Some(begun)) => {
                words.extend(list.get(begun..at));
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.and_then(|begun| list.get(begun..)));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str, parents: bool) -> DomainList {
        DomainList::parse(list, parents, &|path| match path {
            "/etc/domains" => Ok("# ours\nfile.example\n  !not.file.example, /etc/more\n".to_owned()),
            "/etc/more" => Ok("more.example".to_owned()),
            "/etc/loop" => Ok("/etc/loop".to_owned()),
            _ => Err("no such file".to_owned()),
        })
        .unwrap()
    }

    fn holds(list: &str, parents: bool, domain: &str) -> bool {
        let lookup = |table: &str, key: &str| match (table, key) {
            ("hash:/t", "in.example" | ".dot.example") => Ok(true),
            ("regexp:/t", key) => Ok(key.ends_with("example")),
            ("hash:/gone", _) => Err("table is gone".to_owned()),
            _ => Ok(false),
        };
        parsed(list, parents).holds(domain, &lookup).unwrap()
    }

    #[test]
    fn a_domain_stands_for_itself_and_where_parents_do_for_those_below() {
        for (list, domain, alone, with_parents) in [
            ("example.org", "example.org", true, true),
            ("Example.ORG", "eXample.org", true, true),
            ("example.org", "sub.example.org", false, true),
            ("example.org", "badexample.org", false, false),
            (".example.org", "example.org", false, false),
            (".example.org", "a.b.example.org", true, false),
            ("a.example, b.example\tc.example", "c.example", true, true),
            ("", "example.org", false, false),
            ("example.org", "", false, false),
        ] {
            assert_eq!(holds(list, false, domain), alone, "{list:?} {domain:?}");
            assert_eq!(holds(list, true, domain), with_parents, "{list:?} {domain:?} with parents");
        }
    }

    #[test]
    fn the_first_item_that_fits_decides() {
        for (list, domain, held) in [
            ("!sub.example.org, example.org", "sub.example.org", false),
            ("!sub.example.org, example.org", "x.example.org", true),
            ("example.org, !sub.example.org", "sub.example.org", true),
            ("!!example.org", "example.org", true),
            ("!example.org", "other.org", false),
        ] {
            assert_eq!(holds(list, true, domain), held, "{list} {domain}");
        }
    }

    #[test]
    fn tables_are_asked_for_the_domain_and_for_those_above() {
        for (list, domain, alone, with_parents) in [
            ("hash:/t", "in.example", true, true),
            ("hash:/t", "sub.in.example", false, true),
            ("hash:/t", "sub.dot.example", true, false),
            ("regexp:/t", "any.example", true, true),
            ("regexp:/t", "example.org", false, false),
            ("!hash:/t, regexp:/t", "in.example", false, false),
            ("no.example, hash:/t", "in.example", true, true),
        ] {
            assert_eq!(holds(list, false, domain), alone, "{list} {domain}");
            assert_eq!(holds(list, true, domain), with_parents, "{list} {domain} with parents");
        }
        let list = parsed("first.example, !hash:/gone", true);
        let lookup = |_: &str, _: &str| Err("table is gone".to_owned());
        assert_eq!(list.holds("first.example", &lookup), Ok(true));
        assert_eq!(list.holds("x.example", &lookup), Err("table is gone".to_owned()));
        assert_eq!(list.tables().collect::<Vec<_>>(), ["hash:/gone"]);
    }

    #[test]
    fn a_pattern_is_asked_for_the_whole_domain_alone() {
        for (table, keys) in [
            ("regexp:/t", &["a.b.c"][..]),
            ("proxy:pcre:/t", &["a.b.c"]),
            ("hash:/t", &["a.b.c", "b.c", "c"]),
        ] {
            let asked = std::cell::RefCell::new(Vec::new());
            let lookup = |_: &str, key: &str| {
                asked.borrow_mut().push(key.to_owned());
                Ok(false)
            };
            assert_eq!(parsed(table, true).holds("a.b.c", &lookup), Ok(false));
            assert_eq!(*asked.borrow(), keys, "{table}");
        }
    }

    #[test]
    fn files_and_braces_are_part_of_a_list() {
        assert!(holds("/etc/domains", true, "file.example"));
        assert!(holds("/etc/domains", true, "more.example"));
        assert!(holds("/etc/domains", true, "not.file.example"), "the first that fits decides");
        assert!(!holds("!/etc/domains, file.example", true, "file.example"));
        assert_eq!(words(" a,b  inline:{x=1, y = {2}} c "), ["a", "b", "inline:{x=1, y = {2}}", "c"]);
        assert!(parsed(" , ", true).is_empty() && !parsed("a", true).is_empty());
        let none = |_: &str| Err("no such file".to_owned());
        assert_eq!(DomainList::parse("/none", true, &none).unwrap_err(), "cannot read /none: no such file");
        assert!(DomainList::parse("/x", true, &|_| Ok("/x".into())).unwrap_err().contains("10 times"));
        assert!(DomainList::parse("a, !", true, &none).is_err());
    }
}
