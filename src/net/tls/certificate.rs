//! What of a certificate (RFC 5280) is told to people, its issuer, its subject, the names that it is for; and its key.
//!
//! - Owns: reading these from DER: the key where webpki reads none, the others for words and for nothing else.
//! - Leaves to others: every decision (`verify`, by webpki).
//! - Always true: nothing here trusts a length or a text; what is told is printable, short, and not much of it.

use std::net::IpAddr;

use jiff::tz::TimeZone;

use crate::mail::printable;

mod key;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Characters of a name that are shown.
const SHOWN_MAX: usize = 80;
/// Names of a certificate that are listed.
const LISTED_MAX: usize = 5;

/// The parts of a certificate that people are told of, and its key.
pub(super) struct Certificate<'a> {
    issuer: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
    public_key: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads `der`, of any version; `None` if it is no certificate.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut fields = Elements(inside(inside(der, SEQUENCE)?, SEQUENCE)?);
        // Where it is the first version, it is not told.
        if fields.next()?.0 == VERSION {
            let _serial = fields.next()?;
        }
        let _algorithm = fields.sequence()?;
        let (issuer, validity, subject) = (fields.sequence()?, fields.sequence()?, fields.sequence()?);
        let at_key = fields.0;
        fields.sequence()?;
        let public_key = at_key.strip_suffix(fields.0)?;
        let extensions = fields.find(|(tag, _)| *tag == EXTENSIONS);
        let extensions = extensions.and_then(|(_, tagged)| inside(tagged, SEQUENCE)).unwrap_or_default();
        Some(Self { issuer, validity, subject, public_key, extensions })
    }

    /// Its key (section 4.1.2.7), in DER, as it stands there.
    pub(super) fn public_key(&self) -> &'a [u8] {
        self.public_key
    }

    /// Whether it names itself as its issuer.
    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Whether `other` names itself as this one names its issuer.
    pub(super) fn is_issued_by(&self, other: &Certificate<'_>) -> bool {
        self.issuer == other.subject
    }

    /// The issuer, in quotation marks.
    pub(super) fn issuer(&self) -> String {
        name(self.issuer)
    }

    /// Whether `seconds` after 1970 are its first or last moment.
    pub(super) fn begins_or_ends_at(&self, seconds: u64) -> bool {
        let Some(utc) = timestamp(seconds).map(|time| time.to_zoned(TimeZone::UTC)) else { return false };
        // The two forms of section 4.1.2.5: the century stands in one of them.
        let texts = ["%y%m%d%H%M%SZ", "%Y%m%d%H%M%SZ"].map(|form| utc.strftime(form).to_string());
        Elements(self.validity).any(|(_, text)| texts.iter().any(|known| known.as_bytes() == text))
    }

    /// The hosts that it is for: `a.example, b.example and 3 more`; `None` if there is none.
    pub(super) fn hosts(&self) -> Option<String> {
        let names = Elements(self.alternative_names());
        let mut hosts = names.filter_map(|(tag, octets)| match tag {
            DNS_NAME => Some(shown(&printable(octets))),
            IP_ADDRESS => address(octets).map(|address| address.to_string()),
            _ => None,
        });
        let listed: Vec<_> = hosts.by_ref().take(LISTED_MAX).collect();
        let more = match hosts.count() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        (!listed.is_empty()).then(|| listed.join(", ") + &more)
    }

    /// What the extension of section 4.2.1.6 holds.
    fn alternative_names(&self) -> &'a [u8] {
        let names = Elements(self.extensions).find_map(|(_, extension)| {
            let mut parts = Elements(extension);
            parts.next().filter(|part| *part == (OBJECT_IDENTIFIER, SUBJECT_ALT_NAME))?;
            let (_, octets) = parts.find(|(tag, _)| *tag == OCTET_STRING)?;
            inside(octets, SEQUENCE)
        });
        names.unwrap_or_default()
    }
}

/// `seconds` after 1970, as it can be shown.
pub(super) fn date(seconds: u64) -> String {
    match timestamp(seconds) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => "a date beyond all calendars".to_owned(),
    }
}

fn timestamp(seconds: u64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

/// A distinguished name by what people call it: the common name, else the organization.
fn name(rdns: &[u8]) -> String {
    let text = |wanted: &[u8]| {
        let attributes = Elements(rdns).flat_map(|(_, set)| Elements(set));
        attributes.filter_map(|(_, attribute)| attribute_text(attribute, wanted)).next()
    };
    match text(COMMON_NAME).or_else(|| text(ORGANIZATION)) {
        Some(text) => format!("{text:?}"),
        None => "without a name".to_owned(),
    }
}

fn attribute_text(attribute: &[u8], wanted: &[u8]) -> Option<String> {
    let mut parts = Elements(attribute);
    parts.next().filter(|part| *part == (OBJECT_IDENTIFIER, wanted))?;
    let (tag, octets) = parts.next()?;
    if tag != BMP_STRING {
        return Some(shown(&printable(octets)));
    }
    let units = octets.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair));
    let text: String = char::decode_utf16(units).map(|c| c.unwrap_or('?')).collect();
    Some(shown(&printable(text.as_bytes())))
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "...",
        None => text.to_owned(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// The content of the first element of `input`, if it is one of `tag`.
fn inside(input: &[u8], tag: u8) -> Option<&[u8]> {
    Elements(input).next().filter(|(first, _)| *first == tag).map(|(_, content)| content)
}

/// The elements that stand one after the other, each with its tag; it ends at the first one that is malformed.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// What the next one holds, if it is a sequence.
    fn sequence(&mut self) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == SEQUENCE).map(|(_, content)| content)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, length], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // No certificate is longer than a handshake message, of which three octets tell the length.
            0x81..=0x83 => {
                let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests;
