//! What is wrong with a configuration, in words for the person who has to mend it.
//!
//! - Owns: the sentences, and guesses at what was meant.
//! - Leaves to others: finding the problems; the exit code (78, EX_CONFIG).
//! - Always true: one line per problem, naming the key, the value and where it came from, where there are such.

use std::fmt;

use super::keys::{Given, Setting};

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 200;
/// More problems than this are only counted: nobody reads them, and a wrong file may hold thousands.
const PROBLEMS_MAX: usize = 50;

/// One thing that is wrong: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// About a source as a whole, or about nothing that was given.
    pub(super) fn general(what: String) -> Self {
        Self(what)
    }

    /// About a value.
    pub(super) fn of_value(key: &str, given: &Given, what: impl fmt::Display) -> Self {
        Self(format!("{key} = {} ({}): {what}", shown(&given.shown(key)), given.source))
    }

    /// About a value that is in order by itself.
    pub(super) fn of_setting(setting: &Setting, what: &str) -> Self {
        Self(format!("{} = {} ({}): {what}", setting.key, shown(&setting.value), setting.source))
    }

    /// About a key that is not one.
    pub(super) fn unknown(key: &str, given: &Given, hint: &str) -> Self {
        let space = if hint.is_empty() { "" } else { "; " };
        Self(format!(
            "{key} = {} ({}): there is no such key{space}{hint}",
            shown(&given.shown(key)),
            given.source
        ))
    }
}

/// A value between quotes, escaped and not too long for a terminal.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", value.get(..end).unwrap_or_default()),
        None => format!("{value:?}"),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is wrong with a configuration. `Display` gives one line for each problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<Problem>);

impl ConfigError {
    /// The problems, at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// All of them in one line, for commands that say one.
    pub fn in_one_line(&self) -> String {
        self.to_string().replace('\n', "; ")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    uncounted: usize,
}

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        if self.found.len() < PROBLEMS_MAX {
            self.found.push(problem);
        } else {
            self.uncounted += 1;
        }
    }

    /// The value, if there is one and nothing is wrong.
    pub(super) fn or<T>(mut self, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => {
                if self.uncounted > 0 {
                    self.found.push(Problem(format!("{} more problems are not shown", self.uncounted)));
                }
                Err(ConfigError(self.found))
            }
        }
    }
}

/// The one of `known` that was probably meant. Case does not matter.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = &word.to_lowercase();
    let scored =
        known.map(|candidate| (strsim::damerau_levenshtein(word, &candidate.to_lowercase()), candidate));
    // A third of the letters wrong is a slip; more is another word.
    let close = scored.filter(|(distance, _)| *distance <= word.chars().count().div_ceil(3).min(4));
    close.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}
