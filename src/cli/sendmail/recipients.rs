//! To whom a submission goes: what was written, aliases, and the domain that local names lack.
//!
//! - Owns: the order of these, and that nobody is named twice.
//! - Always true: every recipient has a domain; aliases are asked once, so that they cannot go round in circles.

use std::collections::HashSet;

use super::address_list;
use super::failure::{Code, Failure};
use super::options::Options;
use crate::config::Config;
use crate::mail::{Address, BadAddress, Notify, OriginalRecipient, Recipient};
use crate::spool::RECIPIENTS_MAX;

/// Recipients as they are found.
#[derive(Debug)]
pub struct Recipients<'a> {
    config: &'a Config,
    use_aliases: bool,
    notify: Notify,
    limit: usize,
    seen: HashSet<Address>,
    list: Vec<Recipient>,
}

/// Why somebody cannot be a recipient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipient {
    /// No address comes of it.
    #[error("{0} cannot be a recipient: {1}")]
    Address(Address, BadAddress),
    /// There are as many as a message can have.
    #[error("it has more than {0} recipients")]
    TooMany(usize),
}

/// What was asked for one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Which reports; `None`: those that the command line asks for.
    pub notify: Option<Notify>,
    /// The recipient as the sender wrote it; `None`: what stands behind an alias has that for it.
    pub orcpt: Option<OriginalRecipient>,
}

impl<'a> Recipients<'a> {
    pub(super) fn new(config: &'a Config, options: &Options) -> Self {
        let (use_aliases, notify) = (!options.no_aliases, options.notify);
        let limit = RECIPIENTS_MAX as usize;
        Self { config, use_aliases, notify, limit, seen: HashSet::new(), list: Vec::new() }
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
        addresses.into_iter().try_for_each(|address| {
            self.add(&address, &Wishes::default())
                .map_err(|error| Failure::new(Code::Data, format!("the message was not queued: {error}")))
        })
    }

    /// Adds one, or those behind it; after an error nobody was added.
    pub(super) fn add(&mut self, address: &Address, wishes: &Wishes) -> Result<(), BadRecipient> {
        let is_local = address.domain().is_empty() && self.use_aliases;
        let (targets, orcpt) =
            match is_local.then(|| self.config.aliases.lookup(address.local_part())).flatten() {
                Some(targets) => {
                    // A report names the address that the sender knows. One that no report can name is left out.
                    let known = || format!("rfc822;{}", self.completed(address).ok()?).parse().ok();
                    (targets, wishes.orcpt.clone().or_else(known))
                }
                None => (std::slice::from_ref(address), wishes.orcpt.clone()),
            };
        let found: Vec<_> = targets.iter().map(|target| self.completed(target)).collect::<Result<_, _>>()?;
        if self.list.len() + found.len() > self.limit {
            return Err(BadRecipient::TooMany(self.limit));
        }
        for address in found {
            if self.seen.insert(comparable(&address)) {
                let notify = wishes.notify.unwrap_or(self.notify);
                // The position is the spool's to set.
                self.list.push(Recipient { notify, orcpt: orcpt.clone(), ..Recipient::new(0, address) });
            }
        }
        Ok(())
    }

    fn completed(&self, address: &Address) -> Result<Address, BadRecipient> {
        address
            .completed_with(&self.config.myorigin)
            .map_err(|error| BadRecipient::Address(address.clone(), error))
    }

    /// Whether there is nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order in which they were added.
    pub fn into_vec(self) -> Vec<Recipient> {
        self.list
    }
}

/// The address with its domain in lower case: the case of a domain means nothing, that of a local part may.
pub(super) fn comparable(address: &Address) -> Address {
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

    #[test]
    fn each_recipient_can_bring_wishes_of_its_own() {
        let config = config();
        let options = Options { notify: Notify::SUCCESS, ..Options::default() };
        let mut recipients = Recipients::new(&config, &options);
        let orcpt = |text: &str| Some(text.parse::<OriginalRecipient>().unwrap());
        for (address, notify, orcpt) in [
            ("a@x", None, None),
            ("b@x", Some(Notify::NEVER), orcpt("rfc822;old@x")),
            ("root", None, orcpt("rfc822;admin@y")),
            // Who is named already keeps what was asked first.
            ("a@x", Some(Notify::NEVER), None),
            ("ops@other", Some(Notify::NEVER), None),
        ] {
            recipients.add(&address.parse().unwrap(), &Wishes { notify, orcpt }).unwrap();
        }
        let list: Vec<_> = recipients.into_vec();
        let shown = list.iter().map(|recipient| {
            let orcpt = recipient.orcpt.as_ref().map_or("", |orcpt| orcpt.as_str());
            format!("{} {} {orcpt}", recipient.address, recipient.notify)
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "a@x SUCCESS ",
                "b@x NEVER rfc822;old@x",
                "ann@example SUCCESS rfc822;admin@y",
                "ops@other SUCCESS rfc822;admin@y",
            ]
        );
    }

    #[test]
    fn who_is_one_too_many_is_refused_with_all_behind_them() {
        let (config, options) = (config(), Options::default());
        let mut recipients = Recipients { limit: 2, ..Recipients::new(&config, &options) };
        let mut add = |address: &str| recipients.add(&address.parse().unwrap(), &Wishes::default());
        assert_eq!(add("a@x"), Ok(()));
        assert_eq!(add("root"), Err(BadRecipient::TooMany(2)));
        assert_eq!(add("b@x"), Ok(()));
        assert_eq!(add("c@x"), Err(BadRecipient::TooMany(2)));
        assert_eq!(recipients.into_vec().len(), 2);
    }
}
