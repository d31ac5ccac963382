//! Which mechanism is taken, and what is said where none is.

use super::*;

const ALL: &str = "LOGIN PLAIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-256-PLUS XOAUTH2 OAUTHBEARER \
                   EXTERNAL GSSAPI";

fn setup_for(mechanism: &str) -> Setup {
    let mut setup = match mechanism {
        "EXTERNAL" => Setup::certificate(""),
        "OAUTHBEARER" | "XOAUTH2" => Setup::token("tim", "token"),
        _ => Setup::password("tim", "secret"),
    };
    setup.channel_binding = Some(vec![7; 32]);
    setup
}

fn chosen(setup: &Setup, offered: &str) -> Option<String> {
    let (_, line) = setup.begin(offered).ok()?;
    written(&line).split(' ').nth(1).map(ToOwned::to_owned)
}

#[test]
fn every_option_excludes_what_cyrus_says_it_excludes() {
    // In this order: noplaintext, noactive, nodictionary, noanonymous, mutual_auth.
    for (mechanism, passes) in [
        ("EXTERNAL", [true, true, true, true, false]),
        ("SCRAM-SHA-256-PLUS", [true, true, false, true, true]),
        ("SCRAM-SHA-1-PLUS", [true, true, false, true, true]),
        ("SCRAM-SHA-256", [true, true, false, true, true]),
        ("SCRAM-SHA-1", [true, true, false, true, true]),
        ("CRAM-MD5", [true, false, false, true, false]),
        ("PLAIN", [false, false, false, true, false]),
        ("LOGIN", [false, false, false, true, false]),
        ("OAUTHBEARER", [false, false, true, true, false]),
        ("XOAUTH2", [false, false, true, true, false]),
    ] {
        for (word, passes) in
            ["noplaintext", "noactive", "nodictionary", "noanonymous", "mutual_auth"].into_iter().zip(passes)
        {
            let mut setup = setup_for(mechanism);
            assert_eq!(chosen(&setup, mechanism).as_deref(), Some(mechanism));
            setup.options = word.parse().unwrap();
            match setup.begin(mechanism) {
                Ok(_) => assert!(passes, "{mechanism} under {word}"),
                Err(reason) => {
                    assert!(!passes, "{mechanism} under {word}: {}", reason.text);
                    assert!(
                        reason.text.contains(&format!("{mechanism} (excluded by {word}: ")),
                        "{}",
                        reason.text
                    );
                }
            }
        }
    }
    assert_eq!(known_mechanisms().len(), 10);
}

#[test]
fn the_strongest_that_is_offered_and_allowed_is_taken() {
    let mut setup = setup_for("PLAIN");
    let order = [
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    ];
    let mut offered = ALL.to_owned();
    for expected in order {
        assert_eq!(chosen(&setup, &offered).as_deref(), Some(expected));
        let rest = offered.split_ascii_whitespace().filter(|name| *name != expected);
        offered = rest.collect::<Vec<_>>().join(" ");
    }
    assert_eq!(chosen(&setup, &offered), None);
    setup.filter = vec!["LOGIN".to_owned(), "PLAIN".to_owned()];
    assert_eq!(chosen(&setup, ALL).as_deref(), Some("PLAIN"), "the order of the filter means nothing");
    setup.filter.clear();
    setup.channel_binding = None;
    assert_eq!(chosen(&setup, ALL).as_deref(), Some("SCRAM-SHA-256"), "there is nothing to bind to");
    assert_eq!(chosen(&setup, "plain Login").as_deref(), Some("PLAIN"), "names are without case");
    assert_eq!(chosen(&setup_for("XOAUTH2"), ALL).as_deref(), Some("OAUTHBEARER"));
    assert_eq!(chosen(&setup_for("EXTERNAL"), ALL).as_deref(), Some("EXTERNAL"));
    assert_eq!(chosen(&setup_for("PLAIN"), "\u{1f4a9} X=Y -- PLAIN \x07").as_deref(), Some("PLAIN"));
}

#[test]
fn the_rule_that_excludes_each_mechanism_is_told() {
    let with = |change: fn(&mut Setup)| {
        let mut setup = setup_for("PLAIN");
        change(&mut setup);
        setup
    };
    let keys = "without TLS by sasl_security_options, over TLS by sasl_tls_security_options";
    let unless_set = "or where that is empty because the server's certificate is not verified";
    let plaintext =
        format!("PLAIN, LOGIN (excluded by noplaintext: {keys}, {unless_set}); GSSAPI (not known here)");
    let both = format!(
        "CRAM-MD5 (excluded by noactive: {keys}); PLAIN (excluded by noplaintext, noactive: {keys}, {unless_set})"
    );
    let entry = "and the entry in sasl_password_maps has";
    for (setup, offered, words) in [
        (with(|s| s.options.no_plaintext = true), "LOGIN GSSAPI PLAIN", plaintext),
        (with(|s| (s.options.no_plaintext, s.options.no_active) = (true, true)), "PLAIN CRAM-MD5", both),
        (
            with(|s| s.filter = vec!["PLAIN".into()]),
            "LOGIN",
            "LOGIN (not in sasl_mechanism_filter)".to_owned(),
        ),
        (
            with(|s| s.channel_binding = None),
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-1-PLUS (would need TLS 1.3)".to_owned(),
        ),
        (
            with(|_| {}),
            "EXTERNAL XOAUTH2",
            format!(
                "EXTERNAL (would need an entry without a password, {entry} one); XOAUTH2 (would need a token, {entry} a \
                 password)"
            ),
        ),
        (
            Setup::certificate("tim"),
            "PLAIN",
            format!("PLAIN (would need a password or a token, {entry} none)"),
        ),
        (
            Setup::token("", "token"),
            "PLAIN XOAUTH2",
            format!(
                "PLAIN (would need a password, {entry} a token); XOAUTH2 (would need a user name, {entry} none)"
            ),
        ),
        (with(|_| {}), "=== \u{7f}", "nothing that is a name".to_owned()),
    ] {
        let reason = setup.begin(offered).unwrap_err();
        assert_eq!(reason.status.to_string(), "4.7.0");
        let expected = format!(
            "SASL authentication failed; cannot authenticate to server {PEER}: no mechanism is both offered and allowed: the \
             server offers {words}"
        );
        assert_eq!(reason.text, expected);
    }
    let reason = setup_for("PLAIN").begin("").unwrap_err();
    assert!(reason.text.ends_with(": the server offers no AUTH here"), "{}", reason.text);
}

#[test]
fn a_server_with_a_thousand_names_does_not_fill_the_log() {
    let offered: Vec<_> = (0..1000).map(|number| format!("X-{number}")).collect();
    let reason = setup_for("PLAIN").begin(&offered.join(" ")).unwrap_err();
    assert!(reason.text.len() < 500, "{}", reason.text);
}

#[test]
fn what_cannot_be_a_name_a_password_or_a_token_is_refused_without_showing_it() {
    for (setup, offered, words) in [
        (
            Setup::password("tim", "hunter2\u{fffd}"),
            "SCRAM-SHA-1",
            "SCRAM-SHA-1: the password holds a character that",
        ),
        (Setup::password("tim", "\u{ad}"), "SCRAM-SHA-1", "SCRAM-SHA-1: the password is empty"),
        (
            Setup::password("tim\u{fffd}", "hunter2"),
            "SCRAM-SHA-256",
            "SCRAM-SHA-256: the user name holds a char",
        ),
        (Setup::password("tim\n", "hunter2"), "PLAIN", "PLAIN: the user name holds a control character"),
        (Setup::password("tim", "hunter2\0"), "PLAIN", "PLAIN: The given value contains a NULL-byte"),
        (Setup::password("tim", ""), "PLAIN", "PLAIN: authid and password must not be empty"),
        (
            Setup::token("tim", "hunter2\x01"),
            "XOAUTH2",
            "XOAUTH2: the token is empty or holds a character that",
        ),
        (Setup::token("tim", ""), "OAUTHBEARER", "OAUTHBEARER: the token is empty or holds a character that"),
    ] {
        let reason = setup.begin(offered).unwrap_err();
        assert!(reason.text.contains(words), "{}", reason.text);
        assert!(!reason.text.contains("hunter2") && !reason.text.contains('\u{fffd}'), "{}", reason.text);
    }
}
