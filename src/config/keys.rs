//! Tables of keys, and how one value after the other is taken from what was given.
//!
//! - Owns: [`keys!`], which makes a struct, its table and its reader from one list; settings as `check` shows them.
//! - Leaves to others: what values mean (`parse`), where they come from (`layers`).
//! - Always true: a key is read exactly once; what nobody has read is unknown.

use std::collections::BTreeMap;

use super::error::{Problem, Problems};
use super::known;
use super::layers::NAMED_BY;

/// One value in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key with its path, as TOML writes it: `workers`, `transport.lmtp.flags`, `routes."example.org"`.
    pub key: String,
    /// The value, as it was written.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Its name, without a path.
    pub(super) name: &'static str,
    /// Its default, as it would be written.
    pub(super) default: &'static str,
}

/// A value as it was given, whatever its type was in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) shape: Shape,
    pub(super) source: String,
}

/// What a given value looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text(String),
    List(Vec<String>),
    Table(BTreeMap<String, Given>),
    /// What no key takes, such as a list of lists.
    Other,
}

impl Given {
    /// A single value.
    pub(super) fn of_text(text: &str, source: &str) -> Self {
        Self { shape: Shape::Text(text.to_owned()), source: source.to_owned() }
    }

    /// Whether a variable that ends in `_FILE` has brought it.
    pub(super) fn is_of_a_named_file(&self) -> bool {
        self.source.contains(NAMED_BY)
    }

    /// The value as a person wrote it, on one line.
    pub(super) fn written(&self) -> String {
        match &self.shape {
            Shape::Text(text) => text.clone(),
            Shape::List(words) => words.join(", "),
            Shape::Table(entries) if entries.is_empty() => "{}".to_owned(),
            Shape::Table(_) => "{…}".to_owned(),
            Shape::Other => "[…]".to_owned(),
        }
    }

    /// The same for others to see, where `key` is what it was given for: without a secret that somebody has written where it
    /// does not belong.
    pub(super) fn shown(&self, key: &str) -> String {
        known::shown(key, &self.written())
    }

    /// The value of a key that takes one.
    pub(super) fn text(&self) -> Result<&str, String> {
        match &self.shape {
            Shape::Text(text) => Ok(text.trim()),
            Shape::List(_) | Shape::Other => Err("one value is needed here, not a list".to_owned()),
            Shape::Table(_) => Err("one value is needed here, not a section".to_owned()),
        }
    }

    /// The values of a key that takes several.
    pub(super) fn words(&self) -> Result<Vec<&str>, String> {
        match &self.shape {
            Shape::List(words) => Ok(words.iter().map(String::as_str).collect()),
            Shape::Text(text) => {
                let words = text.split(|c: char| c == ',' || c.is_ascii_whitespace());
                Ok(words.filter(|word| !word.is_empty()).collect())
            }
            Shape::Table(_) | Shape::Other => Err("a list of texts is needed here".to_owned()),
        }
    }
}

/// A text between double quotes, as TOML takes it.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What is wrong with a value: all of it, or some entries of a table.
pub(super) enum Wrong {
    Value(String),
    Entries(Vec<WrongEntry>),
}

/// What is wrong with one entry of a table.
pub(super) struct WrongEntry {
    pub(super) name: String,
    pub(super) given: Given,
    pub(super) what: String,
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self::Value(what)
    }
}

/// Hands out the values of one section, and keeps what was found.
pub(super) struct Reader<'a> {
    /// In front of each key: empty, or `transport.NAME.`
    pub(super) path: String,
    /// What nobody has taken yet.
    pub(super) given: BTreeMap<String, Given>,
    /// What was taken, in order.
    pub(super) settings: Vec<Setting>,
    pub(super) problems: &'a mut Problems,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: String, given: BTreeMap<String, Given>, problems: &'a mut Problems) -> Self {
        Self { path, given, settings: Vec::new(), problems }
    }

    /// Takes the value of `key`; `None` once its problem is noted.
    pub(super) fn take<T, E: Into<Wrong>>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&Given) -> Result<T, E>,
    ) -> Option<T> {
        let path = format!("{}{key}", self.path);
        let Some(given) = self.given.remove(key) else {
            self.problems.push(Problem::general(format!("{path} has no value")));
            return None;
        };
        self.note(&path, &given);
        match parse(&given).map_err(Into::into) {
            Ok(value) => return Some(value),
            Err(Wrong::Value(what)) => self.problems.push(Problem::of_value(&path, &given, what)),
            Err(Wrong::Entries(entries)) => {
                for WrongEntry { name, given, what } in entries {
                    let path = format!("{path}.{}", quoted(&name));
                    self.problems.push(Problem::of_value(&path, &given, what));
                }
            }
        }
        None
    }

    /// Keeps the value for `lastmile check`; a table entry by entry.
    fn note(&mut self, path: &str, given: &Given) {
        let setting = |key: String, given: &Given| Setting {
            key,
            // Settings are seen only where all values are right, and no right one is a secret.
            value: given.written(),
            source: given.source.clone(),
        };
        match &given.shape {
            Shape::Table(entries) if !entries.is_empty() => {
                self.settings.extend(
                    entries.iter().map(|(name, given)| setting(format!("{path}.{}", quoted(name)), given)),
                );
            }
            _ => self.settings.push(setting(path.to_owned(), given)),
        }
    }
}

/// Makes, from one list of keys, the struct that holds their values, the table `KEYS`, a reader that reads every
/// value before it gives up (so that all problems are told at once), and the comparison of the keys marked
/// `[restart]`. Fields under `given` are no keys: they are handed to the reader.
macro_rules! keys {
    (
        $(#[$outer:meta])*
        pub struct $name:ident reads($($context:ident: $context_type:ty)?);
        names $prefix:literal, $suffix:literal;
        given { $($(#[$given_doc:meta])* $given_vis:vis $given:ident: $given_type:ty,)* }
        $(
            $(#[$doc:meta])+
            $([$restart:ident])? $field:ident $(as $spelled:literal)?: $type:ty = $default:literal, $parse:expr;
        )+
    ) => {
        $(#[$outer])*
        pub struct $name {
            $($(#[$given_doc])* $given_vis $given: $given_type,)*
            $($(#[$doc])+ pub $field: $type,)+
        }

        impl $name {
            /// Every key, in the order of the shipped file.
            pub(in crate::config) const KEYS: &[$crate::config::keys::Key] = &[
                $($crate::config::keys::Key {
                    name: $crate::config::keys::key_name!($prefix, $field, $suffix $(, $spelled)?),
                    default: $default,
                },)+
            ];

            /// Reads all keys; `None` if any has a problem.
            pub(in crate::config) fn read(
                reader: &mut $crate::config::keys::Reader<'_>,
                $($context: $context_type,)?
                $($given: Option<$given_type>,)*
            ) -> Option<Self> {
                $(let $field = reader.take($crate::config::keys::key_name!($prefix, $field, $suffix $(, $spelled)?), $parse);)+
                Some(Self { $($given: $given?,)* $($field: $field?,)+ })
            }

            /// The keys marked `[restart]` whose values differ.
            #[allow(dead_code, unused_mut, unused_variables, reason = "some tables mark no key")]
            fn differing_restart_keys(&self, new: &Self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $($(
                    let $restart = $crate::config::keys::key_name!($prefix, $field, $suffix);
                    if self.$field != new.$field {
                        keys.push($restart);
                    }
                )?)+
                keys
            }
        }
    };
}

/// The name of a key: its field's, with what stands before and behind it; or as it is spelled where Rust would have it
/// otherwise.
macro_rules! key_name {
    ($prefix:literal, $field:ident, $suffix:literal) => {
        concat!($prefix, stringify!($field), $suffix)
    };
    ($prefix:literal, $field:ident, $suffix:literal, $spelled:literal) => {
        concat!($prefix, $spelled, $suffix)
    };
}
pub(super) use {key_name, keys};
