//! To whom a submission goes: what was written, aliases, and the domain that local names lack.
//!
//! - Owns: the order of these, and that nobody is named twice.
//! - Always true: every recipient has a domain; aliases are asked once, so that they cannot go round in circles.

use std::collections::HashSet;

use super::address_list;
use super::failure::{Code, Failure};
use super::options::Options;
use crate::config::Config;
use crate::mail::{Address, Notify, OriginalRecipient, Recipient};

/// Recipients as they are found.
pub(super) struct Recipients<'a> {
    config: &'a Config,
    use_aliases: bool,
    notify: Notify,
    seen: HashSet<Address>,
    list: Vec<Recipient>,
}

impl<'a> Recipients<'a> {
    pub(super) fn new(config: &'a Config, options: &Options) -> Self {
        let (use_aliases, notify) = (!options.no_aliases, options.notify);
        Self { config, use_aliases, notify, seen: HashSet::new(), list: Vec::new() }
    }

    /// Adds those of the command line; each argument may be a list, as in a header.
    pub(super) fn add_arguments(&mut self, arguments: &[String]) -> Result<(), Failure> {
        for argument in arguments {
            let list = address_list::parse(argument)
                .map_err(|error| Failure::new(Code::Data, format!("the message was not queued: {error}")))?;
            if list.is_empty() {
                let text = format!("the message was not queued: {argument:?} is no recipient");
                return Err(Failure::new(Code::Data, text));
            }
            self.add_all(list)?;
        }
        Ok(())
    }

    /// Adds addresses as they were written.
    pub(super) fn add_all(&mut self, addresses: Vec<Address>) -> Result<(), Failure> {
        addresses.into_iter().try_for_each(|address| self.add(&address))
    }

    fn add(&mut self, address: &Address) -> Result<(), Failure> {
        let is_local = address.domain().is_empty() && self.use_aliases;
        match is_local.then(|| self.config.aliases.lookup(address.local_part())).flatten() {
            Some(targets) => {
                // A report names the address that the sender knows. One that no report can name is left out.
                let orcpt = format!("rfc822;{}", self.completed(address)?).parse().ok();
                targets.iter().try_for_each(|target| self.push(target, orcpt.clone()))
            }
            None => self.push(address, None),
        }
    }

    fn push(&mut self, address: &Address, orcpt: Option<OriginalRecipient>) -> Result<(), Failure> {
        let address = self.completed(address)?;
        if self.seen.insert(comparable(&address)) {
            // The position is the spool's to set.
            self.list.push(Recipient { notify: self.notify, orcpt, ..Recipient::new(0, address) });
        }
        Ok(())
    }

    fn completed(&self, address: &Address) -> Result<Address, Failure> {
        address.completed_with(&self.config.myorigin).map_err(|error| {
            let text = format!("the message was not queued: {address} cannot be a recipient: {error}");
            Failure::new(Code::Data, text)
        })
    }

    pub(super) fn into_vec(self) -> Vec<Recipient> {
        self.list
    }
}

/// The address with its domain in lower case: the case of a domain means nothing, that of a local part may.
fn comparable(address: &Address) -> Address {
    let domain = address.domain();
    if !domain.bytes().any(|octet| octet.is_ascii_uppercase()) {
        return address.clone();
    }
    // What was an address is one in lower case too.
    Address::from_parts(address.local_part(), &domain.to_ascii_lowercase())
        .unwrap_or_else(|_| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config() -> Config {
        let overrides = [
            "myhostname=mx.example",
            "myorigin=example",
            "aliases={ root = [\"ann\", \"ops@other\"], ann = [\"bob\"] }",
        ];
        let overrides = overrides.map(ToOwned::to_owned).to_vec();
        Config::load(&Sources { file: Some("/dev/null".into()), environment: Vec::new(), overrides }).unwrap()
    }

    #[test]
    fn local_names_are_completed_and_aliases_are_followed_once() {
        let config = config();
        for (arguments, no_aliases, expected) in [
            (&["carl"][..], false, "carl@example"),
            (&["carl@x", "CARL@x"], false, "carl@x CARL@x"),
            (&["carl@Y.Example", "carl@y.example", "Carl@y.example"], false, "carl@Y.Example Carl@y.example"),
            (&["carl, dora", "Carl <carl@example>"], false, "carl@example dora@example"),
            // "ann" behind "root" is not an alias again: that is one level.
            (&["root"], false, "ann@example(rfc822;root@example) ops@other(rfc822;root@example)"),
            (&["Root"], false, "ann@example(rfc822;Root@example) ops@other(rfc822;Root@example)"),
            (&["root"], true, "root@example"),
            (&["root@example"], false, "root@example"),
        ] {
            let options = Options { no_aliases, ..Options::default() };
            let mut recipients = Recipients::new(&config, &options);
            let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
            recipients.add_arguments(&arguments).unwrap();
            let found: Vec<_> = recipients
                .into_vec()
                .iter()
                .map(|r| {
                    let orcpt = r.orcpt.as_ref().map(|orcpt| format!("({})", orcpt.as_str()));
                    format!("{}{}", r.address, orcpt.unwrap_or_default())
                })
                .collect();
            assert_eq!(found.join(" "), expected, "{arguments:?}");
        }
    }

    #[test]
    fn an_argument_that_is_no_recipient_is_refused() {
        let (config, options) = (config(), Options::default());
        for argument in ["", " ", ",", "a b", "<>", "a@"] {
            let failure =
                Recipients::new(&config, &options).add_arguments(&[argument.to_owned()]).unwrap_err();
            assert_eq!(failure.code(), 65, "{argument:?}");
        }
    }
}
