//! What a sender may ask about delivery reports (RFC 3461).

use std::fmt;
use std::str::FromStr;

use super::address::ADDRESS_LENGTH_MAX;
use super::text::{printable, serde_as_text};

/// Octets in an ORCPT or ENVID parameter; RFC 3461 sections 4.2 and 4.4 allow 500 and 100.
const PARAMETER_LENGTH_MAX: usize = 500;
/// Octets of an original recipient of another mail system, which may have been longer than any sender of ours may
/// write: as many as an address that is quoted throughout, with its type.
const OCTETS_MAX: usize = 2 * ADDRESS_LENGTH_MAX + 50;

/// Why a delivery report parameter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadParameter {
    /// A word NOTIFY does not know, or NEVER beside others.
    #[error("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")]
    Notify,
    /// RET is neither FULL nor HDRS.
    #[error("RET is FULL or HDRS")]
    Return,
    /// ORCPT without type, with control characters, or too long.
    #[error("ORCPT is an address type, \";\" and an address, of printable characters, at most 500")]
    OriginalRecipient,
}

/// Which reports are wanted for a recipient. Nothing set (the default) means the server's own habit: failures
/// only, and delays where the administrator wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Notify(u8);

impl Notify {
    /// No report at all.
    pub const NEVER: Self = Self(1);
    /// A report once delivered.
    pub const SUCCESS: Self = Self(2);
    /// A report when given up.
    pub const FAILURE: Self = Self(4);
    /// A report when late.
    pub const DELAY: Self = Self(8);

    /// From the bits of these constants, which are Postfix's too; others mean nothing.
    pub fn from_bits(bits: u32) -> Self {
        Self((bits & 15) as u8)
    }

    /// Whether nothing was asked.
    pub fn is_default(self) -> bool {
        self.0 == 0
    }

    /// Whether no report may be sent.
    pub fn never(self) -> bool {
        self == Self::NEVER
    }

    /// Whether success is to be reported.
    pub fn on_success(self) -> bool {
        self.0 & Self::SUCCESS.0 != 0
    }

    /// Whether a failure is to be reported.
    pub fn on_failure(self) -> bool {
        self.is_default() || self.0 & Self::FAILURE.0 != 0
    }

    /// Whether a delay was explicitly asked to be reported.
    pub fn asks_delay(self) -> bool {
        self.0 & Self::DELAY.0 != 0
    }

    /// Whether a delay may be reported.
    pub fn on_delay(self) -> bool {
        self.is_default() || self.asks_delay()
    }
}

impl FromStr for Notify {
    type Err = BadParameter;

    fn from_str(text: &str) -> Result<Self, BadParameter> {
        let mut bits = 0;
        for word in text.split(',') {
            bits |= match word.trim().to_ascii_uppercase().as_str() {
                "NEVER" => Self::NEVER.0,
                "SUCCESS" => Self::SUCCESS.0,
                "FAILURE" => Self::FAILURE.0,
                "DELAY" => Self::DELAY.0,
                _ => return Err(BadParameter::Notify),
            };
        }
        if bits & Self::NEVER.0 != 0 && bits != Self::NEVER.0 {
            Err(BadParameter::Notify)
        } else {
            Ok(Self(bits))
        }
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (bit, word) in [
            (Self::NEVER, "NEVER"),
            (Self::SUCCESS, "SUCCESS"),
            (Self::FAILURE, "FAILURE"),
            (Self::DELAY, "DELAY"),
        ] {
            if self.0 & bit.0 != 0 {
                write!(f, "{comma}{word}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// What of the message a bounce returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

impl FromStr for Return {
    type Err = BadParameter;

    fn from_str(text: &str) -> Result<Self, BadParameter> {
        match text.to_ascii_uppercase().as_str() {
            "FULL" => Ok(Self::Full),
            "HDRS" => Ok(Self::Headers),
            _ => Err(BadParameter::Return),
        }
    }
}

impl fmt::Display for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

/// The recipient as the sender wrote it: address type, `;`, address, both decoded from xtext.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OriginalRecipient {
    text: Box<str>,
    /// What the text would not be encoded to: an encoding of octets that are no text, or no type and address.
    parameter: Option<Box<str>>,
}

impl OriginalRecipient {
    /// `rfc822;c@y` as text, decoded.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address after the type.
    pub fn address(&self) -> &str {
        self.text.split_once(';').map_or("", |(_, address)| address)
    }

    /// Takes over what another mail system has taken from a sender, decoded, whatever it is: as text it may have
    /// question marks, but as a parameter it is what the sender wrote. `None` where there is nothing, or more than
    /// [`OCTETS_MAX`] of it.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        if octets.is_empty() || octets.len() > OCTETS_MAX {
            return None;
        }
        let text = printable(octets);
        let is_utf8 = octets.get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case(b"utf-8;"));
        let parameter = match std::str::from_utf8(octets) {
            Ok(text) if is_utf8 => utf8_xtext(text),
            _ => xtext_of(octets),
        };
        let known = text.parse::<Self>().ok().filter(|known| known.parameter() == parameter);
        Some(known.unwrap_or_else(|| Self { text: text.into(), parameter: Some(parameter.into()) }))
    }

    /// Reads the value of an ORCPT parameter, encoded.
    pub fn from_parameter(text: &str) -> Result<Self, BadParameter> {
        let (kind, address) = text.split_once(';').ok_or(BadParameter::OriginalRecipient)?;
        let is_utf8 = kind.eq_ignore_ascii_case("utf-8");
        let decoded = if is_utf8 { from_utf8_xtext(address) } else { from_xtext(address) };
        format!("{kind};{}", decoded.ok_or(BadParameter::OriginalRecipient)?).parse()
    }

    /// As the value of an ORCPT parameter, encoded.
    pub fn parameter(&self) -> String {
        if let Some(parameter) = &self.parameter {
            return parameter.to_string();
        }
        let (kind, address) = self.text.split_once(';').unwrap_or(("rfc822", ""));
        let encoded = if kind.eq_ignore_ascii_case("utf-8") { utf8_xtext(address) } else { xtext(address) };
        format!("{kind};{encoded}")
    }
}

impl FromStr for OriginalRecipient {
    type Err = BadParameter;

    fn from_str(text: &str) -> Result<Self, BadParameter> {
        let (kind, address) = text.split_once(';').ok_or(BadParameter::OriginalRecipient)?;
        let is_kind = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let fits = !address.is_empty()
            && text.len() <= PARAMETER_LENGTH_MAX
            && !address.chars().any(char::is_control);
        let taken = || Self { text: text.into(), parameter: None };
        (is_kind && fits).then(taken).ok_or(BadParameter::OriginalRecipient)
    }
}

impl fmt::Display for OriginalRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Encodes as xtext (RFC 3461 section 4).
pub fn xtext(text: &str) -> String {
    xtext_of(text.as_bytes())
}

fn xtext_of(octets: &[u8]) -> String {
    let mut encoded = String::with_capacity(octets.len());
    for &octet in octets {
        match octet {
            b'!'..=b'~' if octet != b'+' && octet != b'=' => encoded.push(char::from(octet)),
            _ => encoded.push_str(&format!("+{octet:02X}")),
        }
    }
    encoded
}

/// Decodes xtext (RFC 3461 section 4). `None` for what is none, or stands for octets that are no UTF-8.
pub fn from_xtext(text: &str) -> Option<String> {
    let mut octets = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(octet) = octets.next() {
        match octet {
            b'+' => {
                let (high, low) = (hexadecimal(octets.next()?)?, hexadecimal(octets.next()?)?);
                decoded.push(high << 4 | low);
            }
            b'!'..=b'~' if octet != b'=' => decoded.push(octet),
            _ => return None,
        }
    }
    String::from_utf8(decoded).ok()
}

/// A hexadecimal digit; xtext has upper case ones only.
fn hexadecimal(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// Decodes `utf-8-addr-xtext` or `utf-8-addr-unitext` (RFC 6533 section 3), whose characters may also be written as
/// they are.
fn from_utf8_xtext(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\\' {
            let (code, after) = rest.strip_prefix("\\x{")?.split_once('}')?;
            let fits = (2..=6).contains(&code.len()) && code.bytes().all(|b| hexadecimal(b).is_some());
            decoded.push(char::from_u32(u32::from_str_radix(code, 16).ok().filter(|_| fits)?)?);
            rest = after;
        } else {
            decoded.push((c != '+' && c != '=' && c > ' ').then_some(c)?);
            rest = rest.get(c.len_utf8()..)?;
        }
    }
    Some(decoded)
}

/// Encodes as `utf-8-addr-xtext` (RFC 6533 section 3).
fn utf8_xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '!'..='~' if !matches!(c, '+' | '=' | '\\') => encoded.push(c),
            _ => encoded.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
        }
    }
    encoded
}

serde_as_text!(Notify, Return, OriginalRecipient);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notify_reads_and_writes_in_rfc_order() {
        assert_eq!("delay, success".parse::<Notify>().unwrap().to_string(), "SUCCESS,DELAY");
        assert!("NEVER,SUCCESS".parse::<Notify>().is_err());
        assert!("".parse::<Notify>().is_err());
        assert!(Notify::default().on_failure() && !Notify::default().on_success());
        assert_eq!(Notify::from_bits(16 | 8 | 2), "SUCCESS,DELAY".parse().unwrap());
        assert!(!Notify::NEVER.on_failure() && !Notify::SUCCESS.on_failure());
    }

    #[test]
    fn original_recipients_are_encoded_for_the_wire() {
        for (text, wire) in [
            ("rfc822;orig+b@x.example", "rfc822;orig+2Bb@x.example"),
            ("rfc822;é1@full.example", "rfc822;+C3+A91@full.example"),
            ("utf-8;é+1@x", "utf-8;\\x{E9}\\x{2B}1@x"),
        ] {
            let recipient = text.parse::<OriginalRecipient>().unwrap();
            assert_eq!(recipient.parameter(), wire);
            assert_eq!(OriginalRecipient::from_parameter(wire), Ok(recipient));
        }
        for text in ["", "c@y", ";c@y", "rfc822;", "rfc822;a\r\nb"] {
            assert!(text.parse::<OriginalRecipient>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_another_mail_system_has_taken_is_said_again_as_it_was() {
        for (octets, text, parameter) in [
            (&b"rfc822;a+b@x"[..], "rfc822;a+b@x", "rfc822;a+2Bb@x"),
            (b"UTF-8;\xc3\xa9@x", "UTF-8;\u{e9}@x", "UTF-8;\\x{E9}@x"),
            (b"utf-8;\xe9@x", "utf-8;?@x", "utf-8;+E9@x"),
            (b"rfc822;a\rb@x", "rfc822;a?b@x", "rfc822;a+0Db@x"),
            (b"x=y;z", "x=y;z", "x+3Dy;z"),
            (b"z", "z", "z"),
        ] {
            let recipient = OriginalRecipient::from_octets(octets).unwrap();
            assert_eq!((recipient.as_str(), recipient.parameter().as_str()), (text, parameter));
        }
        assert!(OriginalRecipient::from_octets(&vec![b'a'; OCTETS_MAX]).is_some());
        for octets in [vec![], vec![b'a'; OCTETS_MAX + 1]] {
            assert_eq!(OriginalRecipient::from_octets(&octets), None);
        }
        assert_eq!(OriginalRecipient::from_octets(b"rfc822;c@y"), "rfc822;c@y".parse().ok());
    }

    #[test]
    fn what_is_not_encoded_as_it_should_be_is_not_guessed_at() {
        for wire in [
            "",
            "c@y",
            "rfc822;",
            "rfc822;a=b@x",
            "rfc822;a+b@x",
            "rfc822;a+2",
            "rfc822;a+2b@x",
            "rfc822;a+0D+0Ab@x",
            "rfc822;+E9@x",
            "rfc822;é@x",
            "utf-8;\\x{E9@x",
            "utf-8;\\x{110000}@x",
            "utf-8;\\x{00000E9}@x",
            "utf-8;\\x{0D}@x",
            "utf-8;\\e@x",
        ] {
            assert_eq!(
                OriginalRecipient::from_parameter(wire),
                Err(BadParameter::OriginalRecipient),
                "{wire:?}"
            );
        }
        let unencoded = OriginalRecipient::from_parameter("UTF-8;é@x").unwrap();
        assert_eq!(unencoded.as_str(), "UTF-8;é@x");
        assert_eq!(from_xtext("a+20b+2B").as_deref(), Some("a b+"));
    }

    proptest! {
        #[test]
        fn any_text_is_encoded_so_that_it_comes_back(text in "\\PC{1,30}") {
            prop_assert_eq!(from_xtext(&xtext(&text)), Some(text.clone()));
            prop_assert_eq!(from_utf8_xtext(&utf8_xtext(&text)), Some(text));
        }
    }
}
