//! Addresses, on the wire and in header fields.

use lastmile::cli::sendmail::address_list;
use lastmile::mail::{Address, Recipient, Sender};

use super::{assert_one_line, assert_short, text_of, wire};

/// Octets of an address, as `mail` documents it.
const ADDRESS_LENGTH_MAX: usize = 1000;

/// An address that parses is one on the wire and reads back; what RFC 5321 calls a mailbox parses, to what it means.
pub fn address(input: &[u8]) {
    let text = &*text_of(input);
    let parsed = text.parse::<Address>();
    if let Some((local, domain)) = strict_mailbox(text) {
        let address = parsed.as_ref().unwrap_or_else(|error| panic!("{text:?} is a mailbox: {error}"));
        assert_eq!((address.local_part(), address.domain()), (&*local, domain));
    }
    match &parsed {
        Ok(address) => {
            assert!(!text.contains(['\r', '\n', '\0']), "{text:?}");
            assert!(text.len() <= 2 * ADDRESS_LENGTH_MAX);
            check(address);
            wire::check(&address.clone().into(), &[Recipient::new(0, address.clone())], None);
        }
        Err(error) => assert_short(&error.to_string()),
    }
    match text.parse::<Sender>() {
        Ok(sender) if sender.is_null() => assert!(matches!(text, "" | "<>")),
        sender => assert_eq!(sender, parsed.map(Sender::from)),
    }
    // Any text may be tried as the local part of an address: quoting has to hold it.
    if let Ok(address) = Address::from_parts(text, "example.org") {
        assert_eq!(address.local_part(), text);
        check(&address);
    }
}

/// What holds for every address that exists.
pub fn check(address: &Address) {
    assert!(address.unquoted().len() <= ADDRESS_LENGTH_MAX);
    assert!(!address.local_part().is_empty());
    let printed = address.to_string();
    assert_one_line(&printed);
    assert!(printed.len() <= 2 * ADDRESS_LENGTH_MAX);
    assert_eq!(printed.parse::<Address>().as_ref(), Ok(address), "{printed:?}");
    let parts = Address::from_parts(address.local_part(), address.domain());
    assert_eq!(parts.as_ref(), Ok(address), "put together again");
    let (local, _) = strict_local(&printed).unwrap_or_else(|| panic!("{printed:?} is no path on the wire"));
    assert_eq!(local, address.local_part());
    assert!(
        !address.domain().contains([' ', '\t', '<', '>', '@', '"', '\\', ',', ';', '(', ')']),
        "{printed:?}"
    );
    assert_eq!(address.needs_smtputf8(), !printed.is_ascii());
    let json = serde_json::to_string(address).unwrap();
    assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), *address);
    let completed = address.completed_with("example.net");
    match (address.domain(), completed) {
        ("", Ok(completed)) => assert_eq!(completed.domain(), "example.net"),
        ("", Err(_)) => assert!(address.unquoted().len() + 12 > ADDRESS_LENGTH_MAX),
        (_, completed) => assert_eq!(completed.as_ref(), Ok(address)),
    }
}

/// A mailbox as RFC 5321 section 4.1.2 writes it, with the domain of letters, digits and hyphens, by the letter of the
/// grammar: local part without quotes, and domain. Longer ones than the RFC's may be refused.
fn strict_mailbox(text: &str) -> Option<(String, &str)> {
    let (local, rest) = strict_local(text)?;
    let domain = rest.strip_prefix('@').filter(|_| local.len() <= 64 && !local.is_empty())?;
    let is_label = |label: &str| {
        label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    (domain.len() <= 255 && domain.split('.').all(is_label)).then_some((local, domain))
}

/// Takes a Dot-string or Quoted-string off the front, with UTF-8 as RFC 6531 section 3.3 adds it; its value and what
/// follows. A tab in quotes is RFC 5322's.
fn strict_local(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find('@').unwrap_or(text.len());
        let is_atext =
            |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        let is_atom = |atom: &str| !atom.is_empty() && atom.chars().all(is_atext);
        let is_control = text[..end].contains(char::is_control);
        return (!is_control && text[..end].split('.').all(is_atom))
            .then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((value, rest)),
            '\\' => {
                let escaped = rest.chars().next().filter(|c| matches!(c, ' '..='~'))?;
                value.push(escaped);
                rest = &rest[1..];
            }
            c if c.is_control() && c != '\t' => return None,
            c => value.push(c),
        }
    }
}

/// A list reads the same however it is laid out, and its addresses, printed, are the same list.
pub fn address_list(input: &[u8]) {
    let text = &*text_of(input);
    let parsed = address_list::parse(text);
    for altered in [format!(" {text}\r\n"), format!("(a (nested) comment) {text}"), format!(",{text},")] {
        assert_eq!(address_list::parse(&altered).ok(), parsed.as_ref().ok().cloned(), "{altered:?}");
    }
    if !text.contains('\\') {
        let folded = text.replace(' ', "\r\n ");
        assert_eq!(address_list::parse(&folded).ok(), parsed.as_ref().ok().cloned(), "{folded:?}");
    }
    let list = match parsed {
        Ok(list) => list,
        Err(error) => return assert_short(&error.to_string()),
    };
    assert!(list.len() <= text.len().div_ceil(2), "{} addresses in {} octets", list.len(), text.len());
    list.iter().for_each(check);
    for written in [
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        list.iter().map(|address| format!("\"a, b\" <{address}>")).collect::<Vec<_>>().join(","),
        format!(
            "group: {};",
            list.iter().map(|address| format!("<{address}> (x)")).collect::<Vec<_>>().join(" , ")
        ),
    ] {
        assert_eq!(address_list::parse(&written).as_ref(), Ok(&list), "{written:?}");
    }
}
