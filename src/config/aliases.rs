//! Aliases: the addresses behind local names.
//!
//! - Owns: `[aliases]` and how it is asked.
//! - Leaves to others: asking it, at submission and once only (`cli`), so that aliases cannot go round in circles.
//! - Always true: an alias has at least one address; mail is never sent to nobody.

use std::collections::BTreeMap;

use super::keys::{Given, Wrong, WrongEntry};
use super::parse::inline_table;
use crate::mail::Address;

/// Addresses behind local names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<String, Vec<Address>>);

impl Aliases {
    /// The addresses behind a local part, without regard to case, or those of `*`.
    pub fn lookup(&self, local_part: &str) -> Option<&[Address]> {
        self.0.get(&local_part.to_lowercase()).or_else(|| self.0.get("*")).map(Vec::as_slice)
    }

    /// The value of `aliases`.
    pub(super) fn read(given: &Given) -> Result<Self, Wrong> {
        let mut aliases = BTreeMap::new();
        let mut wrong = Vec::new();
        for (name, given) in inline_table(given)? {
            match entry(&name, &given) {
                Ok((name, _)) if aliases.contains_key(&name) => {
                    let what = format!("there is already an alias {name:?}");
                    wrong.push(WrongEntry { name, given, what });
                }
                Ok((name, addresses)) => {
                    aliases.insert(name, addresses);
                }
                Err(what) => wrong.push(WrongEntry { name, given, what }),
            }
        }
        if wrong.is_empty() { Ok(Self(aliases)) } else { Err(Wrong::Entries(wrong)) }
    }
}

/// One alias: its name in lower case without quotes, and its addresses.
fn entry(name: &str, given: &Given) -> Result<(String, Vec<Address>), String> {
    let local = name.parse::<Address>().ok().filter(|address| address.domain().is_empty());
    let local = local.ok_or("an alias is for a local name without a domain, or for \"*\"")?;
    let addresses = given
        .words()?
        .into_iter()
        .map(|word| word.parse::<Address>().map_err(|error| format!("{word:?} is no address: {error}")));
    let addresses: Vec<Address> = addresses.collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err("an alias needs at least one address".to_owned());
    }
    Ok((local.local_part().to_lowercase(), addresses))
}
