//! The keys of TLS and SASL: how they are spelled, what they take, what cannot go together.

use lastmile::config::{CertMatch, Fingerprint, PasswordMaps, Tls, TlsLevel, TlsProtocols, TlsServerName};
use lastmile::mail::Server;
use lastmile::smtp::{SecurityOptions, known_mechanisms};

use super::*;

fn transport(config: &Config, name: &str) -> Transport {
    Transport::clone(config.transport(&name.parse().unwrap()).unwrap())
}

fn tls(config: &Config) -> Tls {
    transport(config, "smtp").tls
}

fn server(host: &str) -> Server {
    Server::Tcp { host: host.to_owned(), port: 25.try_into().unwrap() }
}

/// What is said of the keys in `[transport.smtp]`.
fn said_of(section: &str) -> Vec<String> {
    from_file(&format!("[transport.smtp]\n{section}")).unwrap_err()
}

#[test]
fn the_defaults_ask_for_nothing_and_show_nothing() {
    let config = Config::default();
    for name in ["lmtp", "local", "smtp"] {
        let transport = transport(&config, name);
        assert_eq!(transport.tls.security_level, None);
        assert_eq!(transport.tls.protocols, TlsProtocols { v1_2: true, v1_3: true });
        assert_eq!(transport.tls.servername, TlsServerName::Hostname);
        assert_eq!(transport.tls.verify_cert_match, [CertMatch::Hostname]);
        assert_eq!(transport.tls.secure_cert_match, [CertMatch::Nexthop, CertMatch::DotNexthop]);
        assert!(!transport.sasl.auth_enable && transport.sasl.password_maps.is_none());
        assert_eq!(transport.sasl.tls_security_options, None);
        let plain = SecurityOptions { no_plaintext: true, no_anonymous: true, ..SecurityOptions::default() };
        assert_eq!(transport.sasl.options_for(false, false), plain);
        assert_eq!(transport.sasl.options_for(true, false), plain);
        assert!(!transport.sasl.options_for(true, true).no_plaintext);
    }
}

#[test]
fn every_key_of_tls_and_sasl_is_read() {
    let config = from_file(
        r#"
        [transport.smtp]
        tls_security_level = "secure"
        tls_wrappermode = "yes"
        tls_CAfile = "/etc/ssl/ca.pem"
        tls_CApath = "$CREDENTIALS_DIRECTORY/ca"
        tls_cert_file = "/etc/ssl/own.pem"
        tls_key_file = "$CREDENTIALS_DIRECTORY/key"
        tls_servername = "Front.example.org"
        tls_protocols = "TLSv1.3"
        tls_fingerprints = ["00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1F",
                            "ABababababababababababababababababababababababababababababababab"]
        tls_verify_cert_match = "hostname, .Example.org"
        tls_secure_cert_match = "nexthop:dot-nexthop"
        sasl_auth_enable = true
        sasl_password_maps = "texthash:/etc/lastmile/passwords"
        sasl_security_options = "noactive nodictionary"
        sasl_tls_security_options = ["mutual_auth"]
        sasl_mechanism_filter = "scram-sha-256, plain"
        send_dummy_mail_auth = "yes"
        [transport.smtp.tls_policy]
        ".example.net" = "encrypt"
        "#,
    )
    .unwrap();
    let transport = transport(&config, "smtp");
    let (tls, sasl) = (transport.tls, transport.sasl);
    assert_eq!((tls.security_level, tls.wrappermode), (Some(TlsLevel::Secure), true));
    assert_eq!(tls.ca_file, Some("/etc/ssl/ca.pem".into()));
    assert_eq!(tls.ca_path, Some("$CREDENTIALS_DIRECTORY/ca".into()));
    assert_eq!(tls.cert_file, Some("/etc/ssl/own.pem".into()));
    assert_eq!(tls.key_file, Some("$CREDENTIALS_DIRECTORY/key".into()));
    assert_eq!(tls.servername, TlsServerName::Name("front.example.org".into()));
    assert_eq!(tls.protocols, TlsProtocols { v1_2: false, v1_3: true });
    assert_eq!(tls.fingerprints, [Fingerprint(std::array::from_fn(|n| n as u8)), Fingerprint([0xab; 32])]);
    assert_eq!(tls.verify_cert_match, [CertMatch::Hostname, CertMatch::Below("example.org".into())]);
    assert_eq!(tls.secure_cert_match, [CertMatch::Nexthop, CertMatch::DotNexthop]);
    assert_eq!(tls.policy_for(&server("mx.example.net")).level, TlsLevel::Encrypt);
    assert_eq!(tls.policy_for(&server("example.net")).level, TlsLevel::Secure);
    assert!(sasl.auth_enable && transport.send_dummy_mail_auth);
    assert_eq!(sasl.password_maps, Some(PasswordMaps::Texthash("/etc/lastmile/passwords".into())));
    assert!(sasl.security_options.no_active && sasl.security_options.no_dictionary);
    assert!(sasl.options_for(true, true).mutual_auth && !sasl.options_for(true, true).no_plaintext);
    assert_eq!(sasl.mechanism_filter, ["SCRAM-SHA-256", "PLAIN"]);
}

#[test]
fn variables_find_keys_with_capitals_and_keys_that_end_in_file() {
    let config = from_environment(&[
        ("LASTMILE_TRANSPORT__SMTP__TLS_CAFILE", "/ca.pem"),
        ("lastmile_transport__smtp__tls_CApath", "/ca"),
        ("LASTMILE_TRANSPORT__SMTP__TLS_CERT_FILE", "/cert.pem"),
        ("LASTMILE_TRANSPORT__SMTP__TLS_KEY_FILE", "/key.pem"),
    ])
    .unwrap();
    let found = tls(&config);
    let paths = [&found.ca_file, &found.ca_path, &found.cert_file, &found.key_file];
    assert_eq!(
        paths.map(|path| path.as_deref().unwrap().to_str().unwrap()),
        ["/ca.pem", "/ca", "/cert.pem", "/key.pem"]
    );
    assert_eq!(
        source(&config, "transport.smtp.tls_CAfile"),
        "environment LASTMILE_TRANSPORT__SMTP__TLS_CAFILE"
    );

    // The path of the key, in a file.
    let named = written("/run/key.pem\n");
    let config = from_environment(&[
        ("LASTMILE_TRANSPORT__SMTP__TLS_CERT_FILE", "/cert.pem"),
        ("LASTMILE_TRANSPORT__SMTP__TLS_KEY_FILE_FILE", named.path().to_str().unwrap()),
        ("LASTMILE_TRANSPORT__SMTP__TLS_CAFILE_FILE", named.path().to_str().unwrap()),
    ]);
    let tls = tls(&config.unwrap());
    assert_eq!((tls.key_file, tls.ca_file), (Some("/run/key.pem".into()), Some("/run/key.pem".into())));
    let said = from_environment(&[
        ("LASTMILE_TRANSPORT__SMTP__TLS_CAFILE", "/a"),
        ("LASTMILE_TRANSPORT__SMTP__TLS_CAFILE_FILE", named.path().to_str().unwrap()),
    ]);
    assert!(said.unwrap_err()[0].contains("its key is set already"));
}

#[test]
fn a_key_in_the_wrong_case_is_refused_with_the_right_one() {
    for (file, said) in [
        (
            "[transport.smtp]\ntls_cafile = \"/x\"",
            "transport.smtp.tls_cafile = \"/x\" (FILE): there is no such key; did you mean tls_CAfile?",
        ),
        (
            "[transport.smtp]\nTLS_CAPATH = \"/x\"",
            "transport.smtp.TLS_CAPATH = \"/x\" (FILE): there is no such key; did you mean tls_CApath?",
        ),
        (
            "smtp_tls_CAfile = \"/x\"",
            "smtp_tls_CAfile = \"/x\" (FILE): there is no such key; it is transport.smtp.tls_CAfile here",
        ),
        (
            "smtp_tls_policy_maps = \"hash:/x\"",
            "smtp_tls_policy_maps = \"hash:/x\" (FILE): there is no such key; the table is a section, \
             [transport.NAME.tls_policy]",
        ),
        (
            "[transport.smtp]\nuse_tls = \"yes\"",
            "transport.smtp.use_tls = \"yes\" (FILE): there is no such key; it is tls_security_level here",
        ),
    ] {
        assert_eq!(from_file(file).unwrap_err(), [said], "{file}");
    }
    assert_eq!(
        from_options(&["transport.smtp.tls_cafile=/x"]).unwrap_err(),
        ["transport.smtp.tls_cafile = \"/x\" (option -o): there is no such key; did you mean tls_CAfile?"]
    );
}

#[test]
fn the_policy_table_is_a_section_or_given_as_a_whole() {
    let file = "[transport.smtp.tls_policy]\n\"mx.example.org\" = \"encrypt\"\n\"other\" = \"verify\"";
    let level = |config: Config, host| tls(&config).policy_for(&server(host)).level;
    assert_eq!(level(from_file(file).unwrap(), "mx.example.org"), TlsLevel::Encrypt);
    let whole = "{ \"mx.example.org\" = \"secure match=example.org\" }";
    let option = format!("transport.smtp.tls_policy={whole}");
    let by_option = || Given { file, overrides: &[&option], ..Given::default() }.load().unwrap();
    let environment = [("LASTMILE_TRANSPORT__SMTP__TLS_POLICY", whole)];
    let by_variable = || Given { file, environment: &environment, ..Given::default() }.load().unwrap();
    for config in [by_option(), by_variable()] {
        assert_eq!(level(config.clone(), "mx.example.org"), TlsLevel::Secure);
        assert_eq!(level(config, "other"), TlsLevel::May, "the table of the file is replaced");
    }
    assert_eq!(
        from_options(&["transport.smtp.tls_policy.mx=secure"]).unwrap_err(),
        ["option -o \"transport.smtp.tls_policy.mx=secure\": give tls_policy as a whole here, as in \
          transport.smtp.tls_policy={ \"mx.example.org\" = \"secure\" }"]
    );
    assert_eq!(
        from_options(&["transport.smtp.tls_policy={ mx = { level = \"secure\" } }"]).unwrap_err(),
        ["transport.smtp.tls_policy.\"mx\" = \"[…]\" (option -o): an entry is one text, as \"secure \
          match=mx.example.org\""]
    );
    // One transport's table is no other's.
    let config = from_file(file).unwrap();
    assert_eq!(transport(&config, "lmtp").tls.policy_for(&server("mx.example.org")).level, TlsLevel::May);
}

#[test]
fn what_is_wrong_with_a_value_is_said() {
    let level = "a level is none, may, encrypt, fingerprint, verify or secure";
    let fingerprint = "is no fingerprint: 64 hexadecimal digits are needed, SHA-256 of the certificate or of its \
        public key";
    let one_text = "an entry is one text, as \"secure match=mx.example.org\"";
    let sha1 = "ab".repeat(20);
    let prefixed = format!("sha256:{}", "ab".repeat(32));
    for (line, key, value, what) in [
        ("tls_security_level = \"dane\"", "tls_security_level", "dane", level),
        (
            "tls_CAfile = \"ca.pem\"",
            "tls_CAfile",
            "ca.pem",
            "the path of a file is needed, one that begins with / or with $CREDENTIALS_DIRECTORY/",
        ),
        (
            "tls_CApath = \"ca\"",
            "tls_CApath",
            "ca",
            "the path of a directory is needed, one that begins with / or with $CREDENTIALS_DIRECTORY/",
        ),
        (
            "tls_key_file = \"$HOME/key\"",
            "tls_key_file",
            "$HOME/key",
            "the path of a file is needed, one that begins with / or with $CREDENTIALS_DIRECTORY/",
        ),
        ("tls_protocols = \"\"", "tls_protocols", "", "TLSv1.2 or TLSv1.3 is needed"),
        (
            "tls_protocols = \"!SSLv3\"",
            "tls_protocols",
            "!SSLv3",
            "there is no version \"!SSLv3\"; the versions are TLSv1.2 and TLSv1.3, or >=TLSv1.2 for both",
        ),
        (
            "tls_servername = \"a b\"",
            "tls_servername",
            "a b",
            "the server's name is \"hostname\", \"none\" or the name of a host; an address is none",
        ),
        (
            "tls_verify_cert_match = \"*.example.org\"",
            "tls_verify_cert_match",
            "*.example.org",
            "\"*.example.org\" is no name of a host: names are compared as they are; write .example.org for all below \
                example.org",
        ),
        (
            &format!("tls_fingerprints = \"{sha1}\""),
            "tls_fingerprints",
            &sha1,
            &format!("{sha1:?} {fingerprint}"),
        ),
        (
            &format!("tls_fingerprints = \"{prefixed}\""),
            "tls_fingerprints",
            &prefixed,
            &format!("{prefixed:?} {fingerprint}"),
        ),
        (
            "tls_policy = \"hash:/x\"",
            "tls_policy",
            "hash:/x",
            "a table is needed, as in { \"a\" = \"b\", \"c\" = \"d\" }",
        ),
        ("tls_policy = { \"mx\" = \"dane\" }", "tls_policy.\"mx\"", "dane", level),
        (
            "tls_policy = { \"*\" = \"may\" }",
            "tls_policy.\"*\"",
            "may",
            "a server is named as host, host:port, [address], .domain (all hosts below it) or by its socket's path",
        ),
        (
            "tls_policy.example.org = \"may\"",
            "tls_policy.\"example\"",
            "{…}",
            "a name with dots needs quotes, as in \"example.org\" = …",
        ),
        ("tls_policy = { \"mx.a\" = { level = \"secure\" } }", "tls_policy.\"mx.a\"", "{…}", one_text),
        ("tls_policy = { mx = { match = \"a\", level = \"secure\" } }", "tls_policy.\"mx\"", "{…}", one_text),
        (
            "tls_policy = { mx = [\"secure\"] }",
            "tls_policy.\"mx\"",
            "secure",
            "one value is needed here, not a list",
        ),
        (
            "tls_policy = { \"MX\" = \"may\", \"[mx]\" = \"may\" }",
            "tls_policy.\"[mx]\"",
            "may",
            "there is already a policy for it, \"MX\"",
        ),
        (
            "sasl_security_options = \"nonsense\"",
            "sasl_security_options",
            "nonsense",
            "there is no option \"nonsense\"; the options are noplaintext, noactive, nodictionary, noanonymous and \
                mutual_auth",
        ),
        (
            "sasl_password_maps = \"hash:/etc/postfix/sasl_passwd\"",
            "sasl_password_maps",
            "hash:/etc/postfix/sasl_passwd",
            "texthash:/FILE is needed; names and passwords stand in that file, never here",
        ),
    ] {
        assert_eq!(said_of(line), [format!("transport.smtp.{key} = {value:?} (FILE): {what}")], "{line}");
    }
}

#[test]
fn combinations_that_cannot_work_are_refused() {
    let wrapped = |level: &str| {
        format!(
            "with tls_wrappermode = yes TLS begins with the connection; the level {level} would do without it: take \
             encrypt or a higher one"
        )
    };
    let no_fingerprint = "there is no fingerprint that a certificate could have: set tls_fingerprints";
    let no_name = |key| format!("{key} is empty, so no certificate would do: name what one may be for");
    let wrapping = "tls_wrappermode = \"yes\"";
    let known = known_mechanisms().join(", ");
    let nobody = "no mechanism has both nodictionary and mutual_auth, so nobody could log in";
    let nameless = "a socket has no host name that a certificate could be for: name one with match=";
    // What is to blame, what else there is, and what is said.
    for (key, value, rest, what) in [
        ("tls_security_level", "none", wrapping, wrapped("none")),
        ("tls_security_level", "may", wrapping, wrapped("may")),
        ("tls_policy.\"mx.example\"", "may", wrapping, wrapped("may")),
        ("tls_security_level", "fingerprint", "", no_fingerprint.to_owned()),
        ("tls_policy.\"mx\"", "fingerprint", "", no_fingerprint.to_owned()),
        ("tls_security_level", "secure", "tls_secure_cert_match = []", no_name("tls_secure_cert_match")),
        ("tls_security_level", "verify", "tls_verify_cert_match = []", no_name("tls_verify_cert_match")),
        ("tls_policy.\"mx\"", "verify", "tls_verify_cert_match = []", no_name("tls_verify_cert_match")),
        ("tls_policy.\"/run/lmtp\"", "secure", "", nameless.to_owned()),
        ("tls_policy.\"/run/lmtp\"", "verify match=nexthop", "", nameless.to_owned()),
        (
            "tls_key_file",
            "/key.pem",
            "",
            "a key without its certificate is of no use: set tls_cert_file, too".to_owned(),
        ),
        (
            "sasl_auth_enable",
            "yes",
            "",
            "nobody knows by which name and password: set sasl_password_maps".to_owned(),
        ),
        (
            "sasl_mechanism_filter",
            "gssapi, ntlm",
            "",
            format!("none of these mechanisms is known; the known ones are {known}"),
        ),
        ("sasl_security_options", "nodictionary, mutual_auth", "", nobody.to_owned()),
        ("sasl_tls_security_options", "nodictionary, mutual_auth", "", nobody.to_owned()),
    ] {
        let section = format!("{key} = \"{value}\"\n{rest}");
        assert_eq!(
            said_of(&section),
            [format!("transport.smtp.{key} = \"{value}\" (FILE): {what}")],
            "{section}"
        );
    }
    assert_eq!(
        from_options(&["transport.smtp.tls_policy={ \"mx\" = \"fingerprint\" }"]).unwrap_err(),
        [format!("transport.smtp.tls_policy.\"mx\" (option -o): {no_fingerprint}")]
    );
}

#[test]
fn combinations_that_look_odd_but_work_are_taken() {
    let one = "ab".repeat(32);
    for section in [
        "tls_wrappermode = \"yes\"",
        "tls_wrappermode = \"yes\"\ntls_policy = { \"mx\" = \"verify\" }",
        &format!("tls_policy = {{ \"mx\" = \"fingerprint match={one}\" }}"),
        &format!("tls_fingerprints = \"{one}\"\ntls_policy = {{ \"mx\" = \"fingerprint\" }}"),
        "tls_secure_cert_match = []\ntls_policy = { \"mx\" = \"secure match=mx.example.org\" }",
        "tls_policy = { \"/run/lmtp\" = \"secure match=mx.example.org\", \"/run/other\" = \"verify\" }",
        "tls_cert_file = \"/both.pem\"",
        "sasl_mechanism_filter = \"gssapi, plain\"",
        "sasl_password_maps = \"texthash:/x\"",
    ] {
        let config = from_file(&format!("[transport.smtp]\n{section}"));
        assert!(config.is_ok(), "{section}: {config:?}");
    }
}

#[test]
fn the_listing_has_the_entries_of_the_policy_table() {
    let config = from_file(
        "[transport.smtp]\ntls_CAfile = \"/ca.pem\"\n[transport.smtp.tls_policy]\n\"mx.example.org:25\" = \"secure  match=a\"\n\
         \".b.example\" = \"may\"",
    )
    .unwrap();
    let listing = check::listing(&config);
    assert!(
        listing.contains("\ntransport.smtp.tls_policy.\"mx.example.org:25\" = \"secure  match=a\""),
        "{listing}"
    );
    assert_eq!(listing.matches("\n\n").count(), 3, "one empty line above each transport: {listing}");
    let again = from_file(&listing).unwrap();
    assert_eq!(tls(&again), tls(&config));
    assert_eq!(tls(&again).policy_for(&server("x.b.example")).level, TlsLevel::May);
}
