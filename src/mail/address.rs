//! Mail addresses (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
//!
//! - Owns: the grammar that we accept, quoting, and what can never be in an address.
//! - Leaves to others: routing (`config`), rewriting at submission (`cli`).
//! - Always true: no address holds CR, LF or NUL, and none is longer than [`ADDRESS_LENGTH_MAX`] octets. Only one from
//!   another mail system's queue may have an empty local part.

use std::fmt;
use std::str::FromStr;

use super::text::serde_as_text;

/// Octets in an address. RFC 5321 section 4.5.3.1 asks for 256; VERP and SRS make longer ones that do travel.
pub const ADDRESS_LENGTH_MAX: usize = 1000;

/// A mail address that is not null. `Display` writes it as RFC 5321 wants it on the wire: the local part quoted
/// where it must be.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Local part without quotes, then `@` and the domain where there is one.
    text: Box<str>,
    /// Octets of the local part.
    local: usize,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Nothing there; only a sender may be null.
    #[error("the address is empty")]
    Empty,
    /// No local part before the `@`, or none of the domain after it.
    #[error("the address lacks a local part or a domain beside its \"@\"")]
    Incomplete,
    /// CR, LF, NUL or another control character.
    #[error("the address contains a control character")]
    Control,
    /// White space or an unbalanced angle bracket outside of quotes, or a domain with characters no domain has.
    #[error("the address has a character that does not belong in a domain or an unquoted local part")]
    Character,
    /// A quoted local part that does not end where the `@` begins.
    #[error("the address has an unbalanced quoted string")]
    Quoting,
    /// Longer than [`ADDRESS_LENGTH_MAX`].
    #[error("the address is longer than {ADDRESS_LENGTH_MAX} octets")]
    TooLong,
}

impl Address {
    /// Puts an address together from a local part without quotes and a domain (`""` for none).
    pub fn from_parts(local: &str, domain: &str) -> Result<Self, BadAddress> {
        match (local, domain) {
            ("", "") => Err(BadAddress::Empty),
            ("", _) => Err(BadAddress::Incomplete),
            _ => Self::checked(local, domain),
        }
    }

    /// The same for an address that another mail system has taken and keeps in its queue: there, `""@domain`, which
    /// RFC 5321 allows, is one too. It goes on as it came.
    pub fn from_foreign_queue(local: &str, domain: &str) -> Result<Self, BadAddress> {
        if domain.is_empty() { Self::from_parts(local, domain) } else { Self::checked(local, domain) }
    }

    /// Puts an address together of which one part may be empty.
    fn checked(local: &str, domain: &str) -> Result<Self, BadAddress> {
        if local.len() + domain.len() + 1 > ADDRESS_LENGTH_MAX {
            return Err(BadAddress::TooLong);
        }
        // A tab may stand in a quoted string (RFC 5322 section 3.2.4), no other control character may.
        if local.chars().any(|c| c.is_control() && c != '\t') || domain.chars().any(char::is_control) {
            return Err(BadAddress::Control);
        }
        if domain.bytes().any(|b| b" \t<>()@,;\\\"".contains(&b)) {
            return Err(BadAddress::Character);
        }
        let text = if domain.is_empty() { local.into() } else { format!("{local}@{domain}").into() };
        Ok(Self { text, local: local.len() })
    }

    /// The local part, without quotes.
    pub fn local_part(&self) -> &str {
        &self.text[..self.local]
    }

    /// The domain as given; empty where there is none.
    pub fn domain(&self) -> &str {
        self.text.get(self.local + 1..).unwrap_or("")
    }

    /// The same mailbox with `domain`, if this address has none.
    pub fn completed_with(&self, domain: &str) -> Result<Self, BadAddress> {
        if self.domain().is_empty() { Self::from_parts(self.local_part(), domain) } else { Ok(self.clone()) }
    }

    /// Local part and domain without quoting: what tables are asked with.
    pub fn unquoted(&self) -> &str {
        &self.text
    }

    /// Whether a server needs SMTPUTF8 (RFC 6531) to take this address.
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Reads `local@domain`, `"quoted local"@domain`, or a bare local part. Angle brackets are not part of it.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if text.is_empty() {
            return Err(BadAddress::Empty);
        }
        if text.len() > 2 * ADDRESS_LENGTH_MAX {
            return Err(BadAddress::TooLong);
        }
        if let Some(rest) = text.strip_prefix('"') {
            let (local, rest) = unquote(rest).ok_or(BadAddress::Quoting)?;
            return match rest.strip_prefix('@') {
                Some("") => Err(BadAddress::Incomplete),
                Some(domain) => Self::from_parts(&local, domain),
                None if rest.is_empty() => Self::from_parts(&local, ""),
                None => Err(BadAddress::Quoting),
            };
        }
        let (local, domain) = match text.rsplit_once('@') {
            Some((_, "")) => return Err(BadAddress::Incomplete),
            Some(parts) => parts,
            None => (text, ""),
        };
        if local.bytes().any(|b| b" \t<>\"".contains(&b)) {
            return Err(BadAddress::Character);
        }
        Self::from_parts(local, domain)
    }
}

/// Reads a quoted string whose opening quote is gone; returns its value and what follows the closing quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

/// Dot-string of RFC 5321 section 4.1.2, with UTF-8 allowed by RFC 6531.
fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| {
        !atom.is_empty() && atom.bytes().all(|b| b > b' ' && b != 0x7f && !b"()<>@,;:\\\"[]".contains(&b))
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(self.local_part()) {
            return f.write_str(&self.text);
        }
        f.write_str("\"")?;
        for c in self.local_part().chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")?;
        f.write_str(&self.text[self.local..])
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

serde_as_text!(Address);

/// Whom a message comes from, in the envelope. The null sender marks notices, to which nobody may answer with
/// another notice (RFC 5321 section 4.5.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sender(Option<Address>);

impl Sender {
    /// The null sender, `<>`.
    pub const NULL: Self = Self(None);

    /// The address, `None` for the null sender.
    pub fn address(&self) -> Option<&Address> {
        self.0.as_ref()
    }

    /// Whether this is the null sender.
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }
}

impl From<Address> for Sender {
    fn from(address: Address) -> Self {
        Self(Some(address))
    }
}

impl FromStr for Sender {
    type Err = BadAddress;

    /// Reads an address; `""` and `<>` are the null sender.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if matches!(text, "" | "<>") { Ok(Self::NULL) } else { text.parse().map(|a| Self(Some(a))) }
    }
}

impl fmt::Display for Sender {
    /// The null sender is written as nothing: callers put the angle brackets around it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |address| address.fmt(f))
    }
}

serde_as_text!(Sender);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn local_parts_are_quoted_where_they_must_be() {
        for (local, written) in [
            ("a", "a@x"),
            ("a b", "\"a b\"@x"),
            ("a..b", "\"a..b\"@x"),
            ("a\"q", "\"a\\\"q\"@x"),
            ("back\\slash", "\"back\\\\slash\"@x"),
            (".lead", "\".lead\"@x"),
            ("at@in", "\"at@in\"@x"),
            ("!#$%&'*+-/=?^_`{|}~", "!#$%&'*+-/=?^_`{|}~@x"),
            ("é", "é@x"),
        ] {
            let address = Address::from_parts(local, "x").unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, why) in [
            ("", BadAddress::Empty),
            ("@x", BadAddress::Incomplete),
            ("a@", BadAddress::Incomplete),
            ("a\r\nRCPT TO:<b@x>", BadAddress::Character),
            ("\"a\r\n\"@x", BadAddress::Control),
            ("a\0@x", BadAddress::Control),
            ("a@x\ny", BadAddress::Control),
            ("a@x y", BadAddress::Character),
            ("<a@x>", BadAddress::Character),
            ("\"a@x", BadAddress::Quoting),
            ("\"a\"b@x", BadAddress::Quoting),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err(), why, "{text:?}");
        }
        assert_eq!("a".repeat(1001).parse::<Address>().unwrap_err(), BadAddress::TooLong);
    }

    #[test]
    fn only_a_foreign_queue_has_addresses_without_a_local_part() {
        let address = Address::from_foreign_queue("", "x").unwrap();
        assert_eq!((address.to_string().as_str(), address.unquoted()), ("\"\"@x", "@x"));
        assert_eq!((address.local_part(), address.domain()), ("", "x"));
        assert_eq!(Address::from_foreign_queue("a b", "x"), Address::from_parts("a b", "x"));
        for (parts, why) in [
            (("", ""), BadAddress::Empty),
            (("", "x y"), BadAddress::Character),
            (("", "x\n"), BadAddress::Control),
            (("a\0", "x"), BadAddress::Control),
        ] {
            assert_eq!(Address::from_foreign_queue(parts.0, parts.1).unwrap_err(), why, "{parts:?}");
        }
        assert_eq!(Address::from_parts("", "x").unwrap_err(), BadAddress::Incomplete);
        assert_eq!("\"\"@x".parse::<Address>().unwrap_err(), BadAddress::Incomplete);
    }

    #[test]
    fn the_null_sender_has_two_spellings() {
        assert!("".parse::<Sender>().unwrap().is_null());
        assert!("<>".parse::<Sender>().unwrap().is_null());
        assert_eq!("a@x".parse::<Sender>().unwrap().to_string(), "a@x");
    }

    proptest! {
        #[test]
        fn any_address_reads_back_as_written(local in "\\PC{1,20}", domain in "[a-z0-9.-]{0,20}") {
            let address = Address::from_parts(&local, &domain).unwrap();
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }

        #[test]
        fn nothing_that_parses_can_leave_its_line(text in ".{0,40}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert!(!address.to_string().contains(['\r', '\n', '\0']));
            }
        }
    }
}
