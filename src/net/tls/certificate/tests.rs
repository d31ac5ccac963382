//! What is told of certificates, of malformed ones too.

use proptest::prelude::*;
use rcgen::{DistinguishedName, DnType, DnValue, SanType};

use super::*;
use crate::net::tls::tests::{authority, authority_params, key, params};

/// A certificate with everything that is told.
fn der() -> Vec<u8> {
    let params = params("mx", &["a.example", "*.b.example", "192.0.2.1", "2001:db8::1"]);
    params.signed_by(&key(), &authority("an authority")).unwrap().der().to_vec()
}

/// How an issuer is told whose name this is.
fn issuer(name: DistinguishedName) -> String {
    let mut params = authority_params("");
    params.distinguished_name = name;
    let der = params.self_signed(&key()).unwrap().der().to_vec();
    Certificate::parse(&der).unwrap().issuer()
}

#[test]
fn the_parts_of_a_certificate_are_found() {
    let der = der();
    let certificate = Certificate::parse(&der).unwrap();
    assert_eq!(certificate.issuer(), "\"an authority\"");
    assert!(!certificate.is_self_issued());
    assert_eq!(certificate.hosts().unwrap(), "a.example, *.b.example, 192.0.2.1, 2001:db8::1");
    let day = |text: &str| u64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_second()).unwrap();
    assert!(certificate.begins_or_ends_at(day("2020-01-01T00:00:00Z")));
    assert!(certificate.begins_or_ends_at(day("2099-01-01T00:00:00Z")));
    assert!(!certificate.begins_or_ends_at(day("2020-01-01T00:00:01Z")));
    assert!(!certificate.begins_or_ends_at(u64::MAX));
}

#[test]
fn an_issuer_is_called_what_people_call_it() {
    let name = |entries: &[(DnType, DnValue)]| {
        let mut name = DistinguishedName::new();
        entries.iter().for_each(|(kind, value)| name.push(kind.clone(), value.clone()));
        name
    };
    let utf8 = |text: &str| DnValue::Utf8String(text.into());
    let (common, organization) = (DnType::CommonName, DnType::OrganizationName);
    for (entries, shown) in [
        (vec![(organization.clone(), utf8("Example Trust")), (common.clone(), utf8("R3"))], "\"R3\""),
        (vec![(organization, utf8("Example Trust"))], "\"Example Trust\""),
        (vec![(common.clone(), utf8("M\u{fc}ller \"CA\""))], "\"M\u{fc}ller \\\"CA\\\"\""),
        (vec![(common.clone(), DnValue::BmpString("M\u{fc}ller".try_into().unwrap()))], "\"M\u{fc}ller\""),
        (vec![(common.clone(), utf8("a\r\n\u{1b}b"))], "\"a???b\""),
        (vec![(common, utf8(&"\u{e4}".repeat(81)))], &format!("\"{}...\"", "\u{e4}".repeat(80))),
        (vec![], "without a name"),
    ] {
        assert_eq!(issuer(name(&entries)), shown);
    }
}

#[test]
fn names_of_others_than_hosts_are_not_listed() {
    let mut params = params("mx", &[]);
    params.subject_alt_names = vec![SanType::Rfc822Name("postmaster@a.example".try_into().unwrap())];
    let der = params.self_signed(&key()).unwrap().der().to_vec();
    assert_eq!(Certificate::parse(&der).unwrap().hosts(), None);
}

#[test]
fn every_prefix_of_a_certificate_is_none() {
    let der = der();
    for end in 0..der.len() {
        assert!(Certificate::parse(&der[..end]).is_none(), "{end}");
    }
}

#[test]
fn dates_beyond_all_calendars_have_words() {
    assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
    assert_eq!(date(u64::MAX), "a date beyond all calendars");
}

/// Asks for everything there is.
fn ask_everything(der: &[u8]) -> String {
    let Some(certificate) = Certificate::parse(der) else { return String::new() };
    let _ = (certificate.is_self_issued(), certificate.begins_or_ends_at(0));
    certificate.issuer() + &certificate.hosts().unwrap_or_default()
}

proptest! {
    #[test]
    fn no_octets_panic_or_tell_more_than_a_line(octets in prop::collection::vec(any::<u8>(), 0..400)) {
        ask_everything(&octets);
    }

    #[test]
    fn altered_certificates_neither(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut der = der();
        for (place, octet) in changes {
            let place = place.index(der.len());
            der[place] = octet;
        }
        let told = ask_everything(&der);
        prop_assert!(!told.contains(char::is_control) && told.len() < 2000, "{told:?}");
    }
}
