//! Tables as main.cf names them, and lists of names.
//!
//! - Owns: which table answers, and what is told of one that cannot.
//! - Leaves to others: the syntax of tables (`memory`), proxymap(8) (`proxymap`).
//! - Always true: there is no proxymap server here.

use std::fs;
use std::time::Duration;

use super::*;
use crate::config::Flags;
use crate::mail::Protocol;

fn opener() -> Opener {
    let proxymap = Proxymap::new("/nonexistent/proxymap", false, Duration::from_secs(1));
    Opener { proxymap: Arc::new(proxymap), problems: Problems::default() }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn the_first_table_that_has_a_key_answers() {
    let mut opener = opener();
    let maps = opener.maps("x", &words(&["inline:{a=1}", "inline:{a=2,b=3}", "static:rest"]), Case::Kept);
    assert!(opener.problems.is_empty() && !maps.is_empty());
    for (key, value) in [("a", "1"), ("b", "3"), ("c", "rest")] {
        assert_eq!(maps.look_up(key).unwrap().as_deref(), Some(value), "{key}");
    }
    assert_eq!(Maps::default().look_up("a").unwrap(), None);
}

#[test]
fn a_table_that_gives_no_answer_hides_those_behind_it() {
    let mut opener = opener();
    let maps = opener.maps("x", &words(&["inline:{a=1}", "proxy:hash:/t", "static:rest"]), Case::Kept);
    assert!(opener.problems.is_empty(), "it may be there when mail comes: {}", opener.problems);
    assert_eq!(maps.look_up("a").unwrap().as_deref(), Some("1"));
    let told = maps.look_up("b").unwrap_err().to_string();
    assert!(told.starts_with("the table hash:/t gives no answer: proxymap(8) at /nonexistent"), "{told}");
}

#[test]
fn each_table_that_cannot_be_used_is_told() {
    let mut opener = opener();
    let names = words(&["nonsense", "inline:{a", "texthash:/nonexistent", "proxy:", "proxy:hash", "hash:"]);
    let maps = opener.maps("lmtp_x", &names, Case::Kept);
    assert!(maps.is_empty());
    let told: Vec<_> = opener.problems.sentences().collect();
    assert_eq!(told.len(), names.len(), "{told:?}");
    for (name, told) in names.iter().zip(told) {
        assert!(told.starts_with(&format!("lmtp_x: the table {name} cannot be used: ")), "{told}");
    }
}

#[test]
fn tables_of_settings_are_opened() {
    let values = [
        ("mail_version", "3.7.11"),
        ("queue_directory", "/var/spool/postfix"),
        ("myhostname", "mx.example.org"),
        ("lmtp_delivery_status_filter", "inline:{{2.0.0 ok = 2.1.5 fine}}"),
        ("lmtp_discard_lhlo_keyword_address_maps", "inline:{{192.0.2.1 = chunking, dsn}}"),
        ("fast_flush_domains", "example.org"),
        ("lastmile_connection_cache", "postfix"),
        ("lmtp_connection_cache_destinations", "unix:/run/lmtp, [192.0.2.1]:24"),
    ];
    let settings =
        Settings::from_values(&values.into_iter().collect(), Protocol::Lmtp, Flags::default()).unwrap();
    let tables = Tables::open(&settings).unwrap();
    assert_eq!(tables.delivery_status_filter.look_up("2.0.0 ok").unwrap().as_deref(), Some("2.1.5 fine"));
    let discarded = tables.discard_keyword_address_maps.look_up("192.0.2.1").unwrap();
    assert_eq!(discarded.as_deref(), Some("chunking, dsn"));
    assert!(tables.fast_flush_domains.contains("example.org").unwrap());
    assert!(!tables.fast_flush_domains.contains("mx.example.org").unwrap());
    for (destination, is_kept) in [("unix:/run/lmtp", true), ("[192.0.2.1]:24", true), ("[192.0.2.1]", false)]
    {
        assert_eq!(
            tables.connection_cache_destinations.contains(destination).unwrap(),
            is_kept,
            "{destination}"
        );
    }
    let values = values.into_iter().collect::<crate::postfix::parameters::Values>();
    let values = values
        .with("lmtp_delivery_status_filter", "texthash:/nonexistent")
        .with("lmtp_connection_cache_destinations", "/none");
    let settings = Settings::from_values(&values, Protocol::Lmtp, Flags::default()).unwrap();
    let told = Tables::open(&settings).unwrap_err();
    assert_eq!(told.sentences().count(), 2, "{told}");
}

#[test]
fn the_first_pattern_that_fits_decides() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("domains");
    fs::write(&file, "# ours\nfile.example\n other.example, third.example\n").unwrap();
    let file = file.to_str().unwrap();
    for (elements, subdomains, name, is_in) in [
        (&["example.org"][..], Subdomains::Meant, "EXAMPLE.org", true),
        (&["example.org"], Subdomains::Meant, "a.b.example.org", true),
        (&["example.org"], Subdomains::Meant, "badexample.org", false),
        (&["example.org"], Subdomains::WithDot, "a.example.org", false),
        (&[".example.org"], Subdomains::WithDot, "a.b.example.org", true),
        (&[".example.org"], Subdomains::WithDot, "example.org", false),
        (&["example.org"], Subdomains::None, "a.example.org", false),
        (&["!a.example.org", "example.org"], Subdomains::Meant, "a.example.org", false),
        (&["!a.example.org", "example.org"], Subdomains::Meant, "b.example.org", true),
        (&["!!a.example.org"], Subdomains::Meant, "a.example.org", true),
        (&["example.org", "!a.example.org"], Subdomains::Meant, "a.example.org", true),
        (&["inline:{example.org=1}"], Subdomains::Meant, "a.example.org", true),
        (&["inline:{example.org=1}"], Subdomains::WithDot, "a.example.org", false),
        (&["!inline:{Example.org=1}", "static:x"], Subdomains::None, "example.org", false),
        (&["static:all"], Subdomains::None, "anything", true),
        (&[file], Subdomains::Meant, "other.example", true),
        (&[file], Subdomains::Meant, "a.third.example", true),
        (&["!FILE", "static:all"], Subdomains::Meant, "file.example", false),
        (&["mx.example.org:24"], Subdomains::None, "mx.example.org:24", true),
        (&["unix:private/lmtp"], Subdomains::None, "unix:private/lmtp", true),
        (&[], Subdomains::Meant, "example.org", false),
    ] {
        let mut opener = opener();
        let elements: Vec<_> = elements.iter().map(|element| element.replace("FILE", file)).collect();
        let list = opener.match_list("x", &elements, subdomains);
        assert!(opener.problems.is_empty(), "{}", opener.problems);
        assert_eq!(list.contains(name).unwrap(), is_in, "{elements:?} {subdomains:?} {name}");
        assert_eq!(list.is_empty(), elements.is_empty());
    }
}

#[test]
fn files_that_name_each_other_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("domains").to_str().unwrap().to_owned();
    fs::write(&file, &file).unwrap();
    let mut opener = opener();
    opener.match_list("x", &[file], Subdomains::Meant);
    assert!(opener.problems.to_string().contains("without end"), "{}", opener.problems);
}

#[test]
fn a_table_that_is_unknown_now_is_not_a_table_without_the_name() {
    let mut opener = opener();
    let list = opener.match_list("x", &words(&["hash:/t", "example.org"]), Subdomains::Meant);
    assert!(list.contains("example.org").is_err());
}

#[test]
fn domains_that_only_flush_can_look_up_are_left_to_it() {
    let mut opener = opener();
    for (elements, other) in [
        (&["hash:/etc/postfix/relay_domains"][..], true),
        (&["a.example", "!regexp:/etc/postfix/not"], true),
        (&["proxy:mysql:/etc/postfix/relay.cf"], true),
        (&["/nonexistent"], true),
        (&["texthash:/nonexistent"], true),
        (&["a.example", "inline:{b.example=x}", "static:yes"], true),
        (&["a.example", "inline:{b.example=x}", "[192.0.2.1]:24"], false),
    ] {
        let list = opener.domains_for_flush(&words(elements), Subdomains::Meant);
        assert_eq!(list.contains("other.example").unwrap(), other, "{elements:?}");
    }
    assert!(opener.problems.is_empty(), "{}", opener.problems);
}

#[test]
fn what_is_wrong_with_a_table_of_passwords_is_told_without_them() {
    let mut opener = opener();
    let names =
        ["inline:{a:hushhush}", "inline:{a=u:hushhush", "static:", "hash:/x", "texthash:/nonexistent"];
    let names = names.map(|name| Secret::new(name.to_owned()));
    let maps = opener.secret_maps("lmtp_sasl_password_maps", &names);
    assert!(maps.is_empty());
    let told: Vec<_> = opener.problems.sentences().collect();
    assert_eq!(told.len(), names.len(), "{told:?}");
    assert!(
        told.iter().all(|told| told.starts_with("lmtp_sasl_password_maps: ") && !told.contains("hushhush"))
    );
    assert!(told[4].contains("/nonexistent cannot be read"), "{told:?}");
    let maps = opener.secret_maps("x", &[Secret::new("inline:{A=u:hushhush}".to_owned())]);
    assert_eq!(maps.look_up("a").unwrap().as_deref(), Some("u:hushhush"));
    assert!(!format!("{maps:?}").contains("hushhush"));
}
