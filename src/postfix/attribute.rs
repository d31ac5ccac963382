//! Attribute lists: what Postfix's programs say to each other over their sockets.
//!
//! - Owns: the encoding of lists, in both directions.
//! - Leaves to others: which attributes a list has, and the sockets.
//! - Always true: what does not parse is an error and never a guess; a list from a peer has a bounded size.
//!
//! A list is `name NUL value NUL` repeated, and one more NUL at its end. Names come in a fixed order, and one may come
//! twice. Values are text of any octets but NUL, decimal numbers, or base64.

use std::fmt;

/// Octets of one list. A list describes one recipient, or a message without its recipients; a reply of a server or an
/// envelope ID may be long, but not like this.
pub const LIST_SIZE_MAX: usize = 256 * 1024;

/// Puts a list together.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    octets: Vec<u8>,
}

impl Writer {
    /// A list without attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds text. It ends at its first NUL, for none can be sent.
    #[must_use]
    pub fn text(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref().split(|&octet| octet == 0).next().unwrap_or_default();
        for part in [name.as_bytes(), value] {
            self.octets.extend_from_slice(part);
            self.octets.push(0);
        }
        self
    }

    /// Adds an unsigned number.
    #[must_use]
    pub fn number(self, name: &str, value: impl Into<u64>) -> Self {
        let value: u64 = value.into();
        self.text(name, value.to_string())
    }

    /// Adds a number of Postfix's type `int`: what is negative goes over the wire as its unsigned 32 bits.
    #[must_use]
    pub fn int(self, name: &str, value: i32) -> Self {
        self.number(name, value.cast_unsigned())
    }

    /// Adds a number of Postfix's type `long`.
    #[must_use]
    pub fn long(self, name: &str, value: i64) -> Self {
        self.number(name, value.cast_unsigned())
    }

    /// The list, ended.
    pub fn end(mut self) -> Vec<u8> {
        self.octets.push(0);
        self.octets
    }
}

/// Why octets are no list, or not the one that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAttributes {
    /// An attribute is not there.
    #[error("it has no attribute \"{0}\"")]
    Missing(&'static str),
    /// A value is no number, or none that fits.
    #[error("its attribute \"{0}\" is no number of the size that it should have")]
    Number(&'static str),
    /// A value is not what it must be.
    #[error("its attribute \"{0}\" is malformed")]
    Malformed(&'static str),
    /// More than [`LIST_SIZE_MAX`] octets.
    #[error("it is longer than {LIST_SIZE_MAX} octets")]
    TooLong,
}

/// A list that was read, in the order of the wire.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct List {
    attributes: Vec<(Octets, Octets)>,
}

type Octets = Box<[u8]>;

impl List {
    /// Reads the list at the start of `octets`; returns it with its length. `None`: it has not come whole yet.
    pub fn parse(octets: &[u8]) -> Result<Option<(Self, usize)>, BadAttributes> {
        let mut list = Self::default();
        let mut at = 0;
        while let Some(name) = until_nul(octets, at) {
            at += name.len() + 1;
            if name.is_empty() {
                return Ok(Some((list, at)));
            }
            let Some(value) = until_nul(octets, at) else { break };
            at += value.len() + 1;
            list.attributes.push((name.into(), value.into()));
        }
        if octets.len() > LIST_SIZE_MAX { Err(BadAttributes::TooLong) } else { Ok(None) }
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.attributes.iter().find(|(known, _)| **known == *name.as_bytes()).map(|(_, value)| &**value)
    }

    /// The last value of that name: replies may have a status of two kinds.
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        let found = self.attributes.iter().rev().find(|(known, _)| **known == *name.as_bytes());
        found.map(|(_, value)| &**value)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.attributes.iter().map(|(name, _)| &**name)
    }

    /// The octets of an attribute that must be there.
    pub fn octets(&self, name: &'static str) -> Result<&[u8], BadAttributes> {
        self.get(name).ok_or(BadAttributes::Missing(name))
    }

    /// An attribute that must be there, as text; octets that are no UTF-8 are replaced.
    pub fn text(&self, name: &'static str) -> Result<String, BadAttributes> {
        self.octets(name).map(|octets| String::from_utf8_lossy(octets).into_owned())
    }

    /// An unsigned 32-bit number that must be there.
    pub fn unsigned(&self, name: &'static str) -> Result<u32, BadAttributes> {
        let number = self.long_unsigned(name)?;
        u32::try_from(number).map_err(|_| BadAttributes::Number(name))
    }

    /// A number of Postfix's type `int`.
    pub fn int(&self, name: &'static str) -> Result<i32, BadAttributes> {
        self.unsigned(name).map(u32::cast_signed)
    }

    /// A number of Postfix's type `long`.
    pub fn long(&self, name: &'static str) -> Result<i64, BadAttributes> {
        self.long_unsigned(name).map(u64::cast_signed)
    }

    fn long_unsigned(&self, name: &'static str) -> Result<u64, BadAttributes> {
        number(self.octets(name)?).ok_or(BadAttributes::Number(name))
    }

    /// An attribute of binary data that must be there, taken out of its base64.
    pub fn data(&self, name: &'static str) -> Result<Vec<u8>, BadAttributes> {
        from_base64(self.octets(name)?).ok_or(BadAttributes::Malformed(name))
    }

    /// The number that the last attribute of that name holds.
    pub fn last_int(&self, name: &'static str) -> Result<i32, BadAttributes> {
        let octets = self.last(name).ok_or(BadAttributes::Missing(name))?;
        let number = number(octets).and_then(|number| u32::try_from(number).ok());
        number.map(u32::cast_signed).ok_or(BadAttributes::Number(name))
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |octets: &[u8]| octets.escape_ascii().to_string();
        f.debug_map()
            .entries(self.attributes.iter().map(|(name, value)| (shown(name), shown(value))))
            .finish()
    }
}

fn until_nul(octets: &[u8], from: usize) -> Option<&[u8]> {
    let rest = octets.get(from..)?;
    memchr::memchr(0, rest).map(|end| &rest[..end])
}

/// Digits and nothing else, as Postfix takes them.
fn number(octets: &[u8]) -> Option<u64> {
    let is_number = !octets.is_empty() && octets.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(octets).ok()?.parse().ok()).flatten()
}

/// Base64 with padding and without line breaks (RFC 4648 section 4).
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let mut octets = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let bits = group.iter().try_fold(0_u32, |bits, &digit| Some(bits << 6 | base64_digit(digit)?))?;
        // A group that is cut short has bits left over, which say nothing.
        let bits = (bits << (6 * (4 - group.len()))).to_be_bytes();
        octets.extend(bits.iter().skip(1).take(group.len() - 1));
    }
    Some(octets)
}

fn base64_digit(digit: u8) -> Option<u32> {
    let (first, value) = match digit {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(digit - first) + value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_reads_as_it_was_written() {
        let octets =
            Writer::new().text("queue_id", "ABC").int("status", -1).long("offset", -1).text("x", "").end();
        assert_eq!(octets, b"queue_id\0ABC\0status\x004294967295\0offset\x0018446744073709551615\0x\0\0\0");
        let (list, length) = List::parse(&octets).unwrap().unwrap();
        assert_eq!(length, octets.len());
        assert_eq!(list.get("queue_id"), Some(&b"ABC"[..]));
        assert_eq!((list.int("status"), list.long("offset")), (Ok(-1), Ok(-1)));
        assert_eq!(list.text("x").as_deref(), Ok(""));
        assert_eq!(list.text("y"), Err(BadAttributes::Missing("y")));
        assert_eq!(list.names().collect::<Vec<_>>(), [&b"queue_id"[..], b"status", b"offset", b"x"]);
    }

    #[test]
    fn the_first_and_the_last_of_a_name_are_told_apart() {
        let octets = Writer::new().text("status", "4.4.1").text("reason", "no").int("status", -1).end();
        let (list, _) = List::parse(&octets).unwrap().unwrap();
        assert_eq!((list.get("status"), list.last_int("status")), (Some(&b"4.4.1"[..]), Ok(-1)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for value in ["", "-1", "+1", " 1", "1 ", "0x1", "4294967296", "99999999999999999999"] {
            let octets = Writer::new().text("n", value).end();
            let (list, _) = List::parse(&octets).unwrap().unwrap();
            assert_eq!(list.int("n"), Err(BadAttributes::Number("n")), "{value:?}");
        }
    }

    #[test]
    fn binary_data_comes_out_of_its_base64() {
        for (text, octets) in [
            ("", Some(&b""[..])),
            ("AA==", Some(b"\0")),
            ("AAE=", Some(b"\0\x01")),
            ("+/+/", Some(b"\xfb\xff\xbf")),
            ("TWFpbA==", Some(b"Mail")),
            ("AAE", None),
            ("AA=A", None),
            ("====", None),
            ("A===", None),
            ("AA\n=", None),
            ("AA-A", None),
            ("AA_A", None),
        ] {
            let octets_read = Writer::new().text("time", text).end();
            let (list, _) = List::parse(&octets_read).unwrap().unwrap();
            let expected = octets.map(<[u8]>::to_vec).ok_or(BadAttributes::Malformed("time"));
            assert_eq!(list.data("time"), expected, "{text:?}");
        }
    }

    #[test]
    fn text_cannot_end_its_list_early() {
        assert_eq!(Writer::new().text("reason", "a\0\0b").end(), b"reason\0a\0\0");
    }

    #[test]
    fn a_list_without_end_is_refused_at_last() {
        assert_eq!(List::parse(&[b'a'; LIST_SIZE_MAX]), Ok(None));
        assert_eq!(List::parse(&[b'a'; LIST_SIZE_MAX + 1]), Err(BadAttributes::TooLong));
    }

    proptest! {
        #[test]
        fn any_octets_are_a_list_or_none_or_an_error(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((list, length))) = List::parse(&octets) {
                prop_assert!(length <= octets.len());
                let mut again = Writer::new();
                for (name, value) in &list.attributes {
                    again = again.text(std::str::from_utf8(name).unwrap_or("?"), value);
                }
                if list.names().all(|name| std::str::from_utf8(name).is_ok()) {
                    prop_assert_eq!(again.end(), &octets[..length]);
                }
            }
        }

        #[test]
        fn no_prefix_of_a_list_is_taken_for_it(values in prop::collection::vec("[a-z]{0,5}", 0..5)) {
            let octets = values.iter().fold(Writer::new(), |list, value| list.text("n", value)).end();
            for length in 0..octets.len() {
                prop_assert_eq!(List::parse(&octets[..length]), Ok(None));
            }
        }
    }
}
