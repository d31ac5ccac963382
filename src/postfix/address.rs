//! Addresses between Postfix, which keeps them without quotes in any octets, and the rest of the world.
//!
//! - Owns: the quoting of such addresses, and what of them our own nouns (`mail`) can hold.
//! - Leaves to others: what becomes of a recipient whose address they cannot hold.
//! - Always true: nothing is guessed and nothing is left out; what cannot be held as it is, is an error.

use std::borrow::Cow;

use super::request::{Needs, Recipient};
use crate::mail::{self, Address, BadAddress, Notify, OriginalRecipient, Sender};

/// In which surroundings an address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In MAIL FROM and RCPT TO.
    Envelope,
    /// In header fields, logs and ORCPT. A route before the address (`@a,@b:`) stays without quotes.
    Header,
}

/// Writes an address with quotes around its local part, where that is no dot-string (RFC 5321 section 4.1.2).
/// The domain, after the last `@`, stays as it is.
pub fn externalised(address: &[u8], form: Form) -> Cow<'_, [u8]> {
    let start = match form {
        Form::Header if address.starts_with(b"@") => {
            memchr::memchr(b':', address).map_or(0, |colon| colon + 1)
        }
        Form::Header | Form::Envelope => 0,
    };
    let (route, mailbox) = address.split_at_checked(start).unwrap_or((&[], address));
    let (local, domain) = split(mailbox);
    if is_dot_string(local) {
        return Cow::Borrowed(address);
    }
    let mut quoted = Vec::with_capacity(address.len() + 2);
    quoted.extend_from_slice(route);
    quoted.push(b'"');
    for &octet in local {
        if matches!(octet, b'"' | b'\\' | b'\r') || (octet == b'\n' && form == Form::Envelope) {
            quoted.push(b'\\');
        }
        quoted.push(octet);
    }
    quoted.push(b'"');
    quoted.extend_from_slice(domain);
    Cow::Owned(quoted)
}

/// The local part, and the domain with its `@`; without any, the domain is empty.
fn split(mailbox: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memrchr(b'@', mailbox).unwrap_or(mailbox.len());
    mailbox.split_at_checked(at).unwrap_or((mailbox, &[]))
}

/// The domain of an address, without its `@`; empty where there is none.
pub fn domain(address: &[u8]) -> &[u8] {
    let (_, domain) = split(address);
    domain.strip_prefix(b"@").unwrap_or_default()
}

/// A dot-string in the wide sense: octets over 127 belong to it.
fn is_dot_string(local: &[u8]) -> bool {
    local.split(|&octet| octet == b'.').all(|atom| {
        let belongs = |octet: &u8| *octet > b' ' && *octet != 0x7f && !b"()<>@,;:\\\"[]".contains(octet);
        !atom.is_empty() && atom.iter().all(belongs)
    })
}

/// Why an address of Postfix's cannot go over the wire from here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Octets that are no text: servers take UTF-8 (RFC 6531), or ASCII.
    #[error("the address has octets that are no UTF-8")]
    NotUtf8,
    /// Something that no address has.
    #[error(transparent)]
    Bad(#[from] BadAddress),
}

/// An address, as our own noun. Postfix takes `""@x` and keeps it as `@x`.
pub fn to_address(address: &[u8]) -> Result<Address, Unusable> {
    let (local, domain) = split(address);
    let text = |octets| std::str::from_utf8(octets).map_err(|_| Unusable::NotUtf8);
    let (local, domain) = (text(local)?, text(domain)?);
    // `a@` has a domain, and an empty one.
    if domain == "@" {
        return Err(BadAddress::Incomplete.into());
    }
    Ok(Address::from_foreign_queue(local, domain.strip_prefix('@').unwrap_or_default())?)
}

/// A sender, as our own noun; an empty one is null.
pub fn to_sender(address: &[u8]) -> Result<Sender, Unusable> {
    if address.is_empty() { Ok(Sender::NULL) } else { to_address(address).map(Sender::from) }
}

/// A recipient of a request, as our own noun, at `position` among those of the request.
pub fn to_recipient(recipient: &Recipient, position: u32, needs: Needs) -> Result<mail::Recipient, Unusable> {
    Ok(mail::Recipient {
        notify: Notify::from_bits(recipient.notify),
        orcpt: original_recipient(recipient, needs),
        ..mail::Recipient::new(position, to_address(&recipient.address)?)
    })
}

/// What to say in ORCPT: what the sender said, or else the address before aliases and the like. `None` where neither
/// is known.
pub fn original_recipient(recipient: &Recipient, needs: Needs) -> Option<OriginalRecipient> {
    if !recipient.dsn_orcpt.is_empty() {
        return OriginalRecipient::from_octets(&recipient.dsn_orcpt);
    }
    if recipient.original.is_empty() {
        return None;
    }
    let address = externalised(&recipient.original, Form::Header);
    let kind: &[u8] = if needs.any_utf8() && !address.is_ascii() { b"utf-8;" } else { b"rfc822;" };
    OriginalRecipient::from_octets(&[kind, &address].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(address: &[u8], form: Form) -> String {
        String::from_utf8_lossy(&externalised(address, form)).into_owned()
    }

    #[test]
    fn local_parts_are_quoted_where_they_must_be() {
        for (raw, written) in [
            ("a b@x", "\"a b\"@x"),
            ("a..b@x", "\"a..b\"@x"),
            ("a\"q@x", "\"a\\\"q\"@x"),
            ("back\\slash@x", "\"back\\\\slash\"@x"),
            ("trail.@x", "\"trail.\"@x"),
            (".lead@x", "\".lead\"@x"),
            ("at@in@x", "\"at@in\"@x"),
            ("<x>@x", "\"<x>\"@x"),
            ("tab\tx@x", "\"tab\tx\"@x"),
            ("!#$%&'*+-/=?^_`{|}~@x", "!#$%&'*+-/=?^_`{|}~@x"),
            ("\u{e9}@x", "\u{e9}@x"),
            ("@x", "\"\"@x"),
            ("a", "a"),
            ("a b", "\"a b\""),
            ("a@", "a@"),
            ("a[1]@[192.0.2.1]", "\"a[1]\"@[192.0.2.1]"),
            ("cr\rx@x", "\"cr\\\rx\"@x"),
        ] {
            for form in [Form::Envelope, Form::Header] {
                assert_eq!(shown(raw.as_bytes(), form), written, "{raw:?} {form:?}");
            }
        }
        assert_eq!(externalised(b"\xff.b@x", Form::Envelope), &b"\xff.b@x"[..]);
    }

    #[test]
    fn the_two_forms_differ_in_line_feeds_and_routes() {
        assert_eq!(shown(b"a\nb@x", Form::Envelope), "\"a\\\nb\"@x");
        assert_eq!(shown(b"a\nb@x", Form::Header), "\"a\nb\"@x");
        assert_eq!(shown(b"@r,@s:u@x", Form::Header), "@r,@s:u@x");
        assert_eq!(shown(b"@r:u v@x", Form::Header), "@r:\"u v\"@x");
        assert_eq!(shown(b"@r:u@x", Form::Envelope), "\"@r:u\"@x");
    }

    #[test]
    fn what_our_nouns_hold_is_said_as_postfix_says_it() {
        let quoted = ["a b@x", "a..b@x", "at@in@x", "tab\tx@x", "@x", "@@x"];
        for raw in ["u@x.example", "\u{e9}@\u{e9}.example", "u"].into_iter().chain(quoted) {
            let address = to_address(raw.as_bytes()).unwrap();
            assert_eq!(address.to_string(), shown(raw.as_bytes(), Form::Envelope), "{raw:?}");
        }
        assert!(to_sender(b"").unwrap().is_null());
        assert_eq!(to_sender(b"s@x").unwrap().to_string(), "s@x");
        assert_eq!(to_sender(b"@x").unwrap().to_string(), "\"\"@x");
    }

    #[test]
    fn what_our_nouns_cannot_hold_is_told() {
        for (raw, why) in [
            (&b"\xff@x"[..], Unusable::NotUtf8),
            (b"u@\xff", Unusable::NotUtf8),
            (b"u@x y", BadAddress::Character.into()),
            (b"u\r\n@x", BadAddress::Control.into()),
            (b"u\0@x", BadAddress::Control.into()),
            (b"u@x\n", BadAddress::Control.into()),
            (b"@", BadAddress::Incomplete.into()),
            (b"@x y", BadAddress::Character.into()),
            (b"u@", BadAddress::Incomplete.into()),
            (b"", BadAddress::Empty.into()),
            (&[b'a'; 1001], BadAddress::TooLong.into()),
        ] {
            assert_eq!(to_address(raw).unwrap_err(), why, "{raw:?}");
        }
    }

    fn orcpt(dsn_orcpt: &[u8], original: &[u8], needs: u32) -> Option<String> {
        let recipient =
            Recipient { dsn_orcpt: dsn_orcpt.into(), original: original.into(), ..Recipient::default() };
        original_recipient(&recipient, Needs(needs)).map(|orcpt| orcpt.parameter())
    }

    #[test]
    fn original_recipients_go_out_as_postfix_sends_them() {
        for (dsn_orcpt, original, needs, parameter) in [
            (&b"rfc822;orig+@x.example"[..], &b"other@x"[..], 0, "rfc822;orig+2B@x.example"),
            ("rfc822;\u{e9}1@full.example".as_bytes(), b"", 0, "rfc822;+C3+A91@full.example"),
            ("utf-8;\u{e9}+1@x".as_bytes(), b"", 1, "utf-8;\\x{E9}\\x{2B}1@x"),
            (b"rfc822;+E9\xe9@x", b"", 0, "rfc822;+2BE9+E9@x"),
            (b"rfc822;a\rb c@x", b"", 0, "rfc822;a+0Db+20c@x"),
            (b"X.400;a=b;c", b"", 0, "X.400;a+3Db;c"),
            (b"odd type;a@x", b"", 0, "odd+20type;a@x"),
            (b"rfc822;", b"", 0, "rfc822;"),
            (b"no-type@x", b"", 0, "no-type@x"),
            (b"", b"a b@x", 0, "rfc822;\"a+20b\"@x"),
            (b"", "\u{e9}@x".as_bytes(), 0, "rfc822;+C3+A9@x"),
            (b"", "\u{e9}@x".as_bytes(), 1, "utf-8;\\x{E9}@x"),
            (b"", b"a@x", 1, "rfc822;a@x"),
            // TLS-Required: no is not about UTF-8.
            (b"", "\u{e9}@x".as_bytes(), 16, "rfc822;+C3+A9@x"),
        ] {
            assert_eq!(orcpt(dsn_orcpt, original, needs).as_deref(), Some(parameter), "{parameter}");
        }
        assert_eq!(orcpt(b"", b"", 1), None);
    }

    #[test]
    fn recipients_keep_what_the_sender_wants_to_hear() {
        let raw = Recipient {
            address: b"u@x".to_vec(),
            original: b"o@x".to_vec(),
            notify: 2 | 8,
            ..Recipient::default()
        };
        let recipient = to_recipient(&raw, 7, Needs(0)).unwrap();
        assert_eq!((recipient.position, recipient.address.to_string().as_str()), (7, "u@x"));
        assert_eq!(recipient.notify.to_string(), "SUCCESS,DELAY");
        assert_eq!(recipient.orcpt.unwrap().address(), "o@x");
    }

    proptest! {
        #[test]
        fn any_octets_are_quoted_so_that_they_come_back(raw in prop::collection::vec(1..=255_u8, 0..30)) {
            let written = externalised(&raw, Form::Envelope);
            let mut octets = written.iter().copied();
            let mut back = Vec::new();
            if written.first() == Some(&b'"') {
                octets.next();
                while let Some(octet) = octets.next() {
                    match octet {
                        b'"' => break,
                        b'\\' => back.extend(octets.next()),
                        _ => back.push(octet),
                    }
                }
            }
            back.extend(octets);
            prop_assert_eq!(back, raw);
        }

        #[test]
        fn whatever_fits_our_nouns_is_written_alike(raw in "\\PC{1,20}(@[a-z.]{0,10})?") {
            if let Ok(address) = to_address(raw.as_bytes()) {
                prop_assert_eq!(address.to_string(), shown(raw.as_bytes(), Form::Envelope));
            }
        }

        #[test]
        fn an_original_recipient_is_one_word(raw in prop::collection::vec(1..=255_u8, 1..60)) {
            let parameter = orcpt(&raw, b"", 0).unwrap();
            prop_assert!(parameter.bytes().all(|octet| octet.is_ascii_graphic()), "{}", parameter);
        }
    }
}
