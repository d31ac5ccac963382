//! From texts to values: one function for each kind of key.
//!
//! - Owns: how times, sizes, numbers, names and lists are written.
//! - Leaves to others: which key takes what (the `keys!` tables).
//! - Always true: no time is so long that adding it to a clock could overflow.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

use super::choices::{Flags, InetProtocols, NotifyClass, NotifyClasses};
use super::keys::{Given, Shape};
use super::timeouts::Timeout;
use super::tls::{CertMatch, Fingerprint, TlsProtocols};
use crate::mail::Address;

/// Ten years: longer than any mail waits, and far from the end of any clock.
const TIME_MAX: u64 = 520 * 7 * 24 * 3600;
/// What a file offset can be.
const SIZE_MAX: u64 = i64::MAX as u64;

/// Makes a key optional: an empty text means that there is none.
pub(super) fn optional<T, E>(
    parse: impl FnOnce(&Given) -> Result<T, E>,
) -> impl FnOnce(&Given) -> Result<Option<T>, E> {
    |given| if given.text().is_ok_and(str::is_empty) { Ok(None) } else { parse(given).map(Some) }
}

/// One of the words of a type.
pub(super) fn choice<T: FromStr<Err = &'static str>>(given: &Given) -> Result<T, String> {
    Ok(given.text()?.parse()?)
}

/// The same for a type whose complaints name what was wrong.
pub(super) fn described_choice<T: FromStr<Err = String>>(given: &Given) -> Result<T, String> {
    given.words()?.join(" ").parse()
}

/// A whole number within bounds.
pub(super) fn number<T: TryFrom<u64>>(least: u64, most: u64) -> impl Fn(&Given) -> Result<T, String> {
    move |given| {
        let value = decimal(given.text()?).filter(|value| (least..=most).contains(value));
        let value = value.and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| format!("a whole number from {least} to {most} is needed"))
    }
}

/// Digits only: no sign, no blank, nothing that could be read in two ways.
fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A TCP port.
pub(super) fn port(given: &Given) -> Result<NonZeroU16, String> {
    let port = decimal(given.text()?).and_then(|port| u16::try_from(port).ok()).and_then(NonZeroU16::new);
    port.ok_or_else(|| "a port from 1 to 65535 is needed".to_owned())
}

/// A time.
pub(super) fn time(given: &Given) -> Result<Duration, String> {
    read_time(given.text()?)
}

/// Reads a time: seconds, or a number with one of `s m h d w`, at most ten years. The error says what is needed.
pub fn read_time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split_unit(text);
    let unit = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        "w" => Some(7 * 24 * 3600),
        _ => None,
    };
    let seconds = unit.zip(decimal(digits)).and_then(|(unit, count)| count.checked_mul(unit));
    match seconds {
        Some(seconds) if seconds <= TIME_MAX => Ok(Duration::from_secs(seconds)),
        Some(_) => Err("a time of at most 520w (ten years) is needed".to_owned()),
        None => {
            Err("a time is needed: a whole number, in seconds or with s, m, h, d or w behind it".to_owned())
        }
    }
}

/// A time that is not zero.
pub(super) fn time_above_zero(given: &Given) -> Result<Duration, String> {
    let time = time(given)?;
    if time.is_zero() { Err("the time must be longer than zero".to_owned()) } else { Ok(time) }
}

/// The limit of a stage.
pub(super) fn timeout(given: &Given) -> Result<Timeout, String> {
    Timeout::new(time(given)?)
        .ok_or_else(|| "a timeout of zero would mean to wait for ever; give a time, up to 520w".to_owned())
}

/// A size.
pub(super) fn size(given: &Given) -> Result<u64, String> {
    read_size(given.text()?)
}

/// Reads a size: octets, or a number with `K`, `M` or `G` for the powers of 1024. The error says what is needed.
pub fn read_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split_unit(text);
    let unit: Option<u64> = match unit {
        "" => Some(1),
        "K" | "k" => Some(1 << 10),
        "M" | "m" => Some(1 << 20),
        "G" | "g" => Some(1 << 30),
        _ => None,
    };
    let size = unit.zip(decimal(digits)).and_then(|(unit, count)| count.checked_mul(unit));
    let size = size.filter(|size| *size <= SIZE_MAX);
    size.ok_or_else(|| "a size is needed: a whole number of bytes, or with K, M or G behind it".to_owned())
}

/// A size that is not zero.
pub(super) fn size_above_zero(given: &Given) -> Result<u64, String> {
    match size(given)? {
        0 => Err("a limit is needed: zero does not mean \"no limit\" here".to_owned()),
        size => Ok(size),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A boolean.
pub(super) fn yes_no(given: &Given) -> Result<bool, String> {
    match given.text()?.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("\"yes\" or \"no\" is needed".to_owned()),
    }
}

/// An absolute path.
pub(super) fn path(given: &Given) -> Result<PathBuf, String> {
    let text = given.text()?;
    if text.starts_with('/') && !text.contains('\0') {
        Ok(text.into())
    } else {
        Err("a path that begins with / is needed".to_owned())
    }
}

/// The path of a file that only who delivers opens: an absolute one, or below [`CREDENTIALS`].
pub(super) fn secret_path(given: &Given) -> Result<PathBuf, String> {
    path_for_who_delivers(given, "file")
}

/// The same of a directory.
pub(super) fn secret_directory(given: &Given) -> Result<PathBuf, String> {
    path_for_who_delivers(given, "directory")
}

fn path_for_who_delivers(given: &Given, what: &str) -> Result<PathBuf, String> {
    let text = given.text()?;
    if is_secret_path(text) {
        Ok(text.into())
    } else {
        Err(format!("the path of a {what} is needed, one that begins with / or with {CREDENTIALS}/"))
    }
}

/// Where the service manager puts what it hands to a service (systemd.exec(5), LoadCredential).
pub(super) const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";

/// Whether `text` is the path of a file with secrets. What is a path cannot well be a secret itself.
pub(super) fn is_secret_path(text: &str) -> bool {
    let below = text.strip_prefix(CREDENTIALS).unwrap_or(text);
    below.starts_with('/') && below.len() > 1 && !text.contains(|c: char| c.is_control())
}

/// The same where more than a path may have been written: one with blanks or colons is taken for a secret.
pub(super) fn is_bare_secret_path(text: &str) -> bool {
    is_secret_path(text) && !text.contains([' ', ':'])
}

/// A name without blanks: of a user, a group, a program.
pub(super) fn word(given: &Given) -> Result<String, String> {
    let text = given.text()?;
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | ',');
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a name is needed: at most 64 visible ASCII characters, no blank, slash, colon or comma"
            .to_owned())
    }
}

/// The start of a syslog tag; slashes stay, as in `postfix/out`.
pub(super) fn tag(given: &Given) -> Result<String, String> {
    let text = given.text()?;
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, ':' | '[' | ']');
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a name is needed: at most 64 visible ASCII characters, no blank, bracket or colon".to_owned())
    }
}

/// A list of names.
pub(super) fn words(given: &Given) -> Result<Vec<String>, String> {
    let words = given.words()?;
    match words.iter().find(|word| word.is_empty() || word.contains(|c: char| c.is_control() || c == ' ')) {
        Some(bad) => Err(format!("{bad:?} in the list is no name")),
        None => Ok(words.into_iter().map(str::to_owned).collect()),
    }
}

/// Keywords of an LHLO or EHLO reply (RFC 5321 section 4.1.1.1), in upper case.
pub(super) fn keywords(given: &Given) -> Result<Vec<String>, String> {
    let is_keyword = |word: &str| {
        word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && word.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    let words = given.words()?;
    match words.iter().find(|word| !is_keyword(word)) {
        Some(bad) => Err(format!("{bad:?} is no keyword such as PIPELINING or 8BITMIME")),
        None => Ok(words.iter().map(|word| word.to_ascii_uppercase()).collect()),
    }
}

/// The name of a host or domain, in lower case.
pub(super) fn host_name(given: &Given) -> Result<String, String> {
    let text = given.text()?;
    if is_host_name(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a host name is needed, such as mail.example.org".to_owned())
    }
}

/// What can stand in LHLO and behind an `@`.
pub(super) fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// A mail address.
pub(super) fn address(given: &Given) -> Result<Address, String> {
    given.text()?.parse().map_err(|error| described(&error))
}

fn described(error: &impl Display) -> String {
    error.to_string()
}

/// What the postmaster is told of.
pub(super) fn notify_classes(given: &Given) -> Result<NotifyClasses, String> {
    let classes = given.words()?.into_iter().map(|word| {
        word.parse::<NotifyClass>().map_err(|known| format!("there is no class {word:?}; {known}"))
    });
    classes.collect()
}

/// The letters of `flags`.
pub(super) fn flags(given: &Given) -> Result<Flags, String> {
    given.words()?.concat().parse()
}

/// `all`, `ipv4`, `ipv6`, or both of these.
pub(super) fn inet_protocols(given: &Given) -> Result<InetProtocols, String> {
    match given.words()?.as_slice() {
        ["all"] | ["ipv4", "ipv6"] | ["ipv6", "ipv4"] => Ok(InetProtocols::All),
        ["ipv4"] => Ok(InetProtocols::Ipv4),
        ["ipv6"] => Ok(InetProtocols::Ipv6),
        _ => Err("\"all\", \"ipv4\" or \"ipv6\" is needed".to_owned()),
    }
}

/// At most one address of each family.
pub(super) fn bind_address(given: &Given) -> Result<Vec<IpAddr>, String> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for word in given.words()? {
        let bare = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
        let address: IpAddr =
            bare.parse().map_err(|_| format!("{word:?} is no IP address of this machine's own"))?;
        if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err("at most one IPv4 and one IPv6 address can be bound to".to_owned());
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// 0, or a length that leaves room for a header's name (RFC 5322 section 2.1.1 allows 998).
pub(super) fn line_length_limit(given: &Given) -> Result<usize, String> {
    match decimal(given.text()?) {
        Some(limit @ (0 | 16..=1_000_000)) => Ok(limit as usize),
        _ => Err("0 (never fold) or a number from 16 to 1000000 is needed".to_owned()),
    }
}

/// Versions of TLS.
pub(super) fn tls_protocols(given: &Given) -> Result<TlsProtocols, String> {
    TlsProtocols::of(given.words()?.into_iter())
}

/// Fingerprints of certificates or public keys.
pub(super) fn fingerprints(given: &Given) -> Result<Vec<Fingerprint>, String> {
    let words = given.words()?;
    Fingerprint::list(words.iter().flat_map(|word| word.split('|')).filter(|word| !word.is_empty()))
}

/// Names that a certificate may be for; Postfix separates them by colons, too.
pub(super) fn cert_matches(given: &Given) -> Result<Vec<CertMatch>, String> {
    let words = given.words()?;
    CertMatch::list(words.iter().flat_map(|word| word.split(':')).filter(|word| !word.is_empty()))
}

/// Words for an entry of a table that is a table itself where one text is needed, such as `example`. TOML reads
/// `example.org = …` without quotes as a section `example`; `attributes` are what somebody may have put there on purpose.
pub(super) fn one_text(name: &str, given: &Given, attributes: &[&str], example: &str) -> Result<(), String> {
    let one_text = || Err(format!("an entry is one text, as {example:?}"));
    let below = match &given.shape {
        Shape::Table(below) => below,
        Shape::Other => return one_text(),
        Shape::Text(_) | Shape::List(_) => return Ok(()),
    };
    let rest = below.keys().next().map_or("…", String::as_str);
    let is_bare =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !is_bare || attributes.contains(&rest) {
        return one_text();
    }
    Err(format!("a name with dots needs quotes, as in \"{name}.{rest}\" = …"))
}

/// The entries of a table: a section of the file, or an inline table as text where the environment or `-o` gives
/// all of it at once.
pub(super) fn inline_table(given: &Given) -> Result<BTreeMap<String, Given>, String> {
    let text = match &given.shape {
        Shape::Table(entries) => return Ok(entries.clone()),
        Shape::Text(text) => text.trim(),
        Shape::List(_) | Shape::Other => "",
    };
    let needed = || "a table is needed, as in { \"a\" = \"b\", \"c\" = \"d\" }".to_owned();
    let wrapped = Toml::from_str::<Dict>(&format!("table = {text}")).map_err(|_| needed())?;
    match wrapped.into_iter().collect::<Vec<_>>().as_slice() {
        // Anything beside the table would come from a line feed in the text.
        [(_, Value::Dict(_, entries))] => Ok(entries
            .iter()
            .map(|(name, value)| {
                (name.clone(), Given { shape: Shape::of(value), source: given.source.clone() })
            })
            .collect()),
        _ => Err(needed()),
    }
}
