//! Settings from values: each fate of each parameter, and values that cannot be.
//!
//! - Owns: the table of parameters, held against what is read from them.
//! - Leaves to others: postconf(1) (`postconf`).
//! - Always true: no program is started here.

use super::super::table::Fate;
use super::*;
use crate::config::{CertMatch, Fingerprint, Secret, TlsLevel, TlsProtocols, TlsServerName};

const PROTOCOLS: [Protocol; 2] = [Protocol::Lmtp, Protocol::Smtp];

/// What every configuration has.
fn least() -> Values {
    [("mail_version", "3.7.11"), ("queue_directory", "/var/spool/postfix"), ("myhostname", "mx.example.org")]
        .into_iter()
        .collect()
}

#[track_caller]
fn settings(values: &Values, protocol: Protocol) -> Settings {
    Settings::from_values(values, protocol, Flags::default()).unwrap()
}

#[track_caller]
fn problems(values: &Values, protocol: Protocol) -> String {
    Settings::from_values(values, protocol, Flags::default()).unwrap_err().to_string()
}

fn rows(protocol: Protocol) -> impl Iterator<Item = (&'static table::Row, &'static str)> {
    let scopes = [Scope::Client, Scope::Service, Scope::Own].into_iter();
    scopes
        .flat_map(Scope::rows)
        .flat_map(move |row| row.names.iter().filter_map(move |names| Some((row, names.of(protocol)?))))
}

#[test]
fn parameters_that_are_obeyed_change_settings() {
    for protocol in PROTOCOLS {
        for (row, name) in rows(protocol) {
            let Fate::Honoured { example, with } = row.fate else { continue };
            let values = with
                .iter()
                .fold(least(), |values, (names, value)| values.with(names.of(protocol).unwrap(), value));
            let example = match example {
                "!" => ["yes", "no"][usize::from(protocol == Protocol::Smtp)],
                example => example,
            };
            let changed = settings(&values.clone().with(name, example), protocol);
            assert_ne!(changed, settings(&values, protocol), "{name} = {example}");
        }
    }
}

#[test]
fn parameters_without_effect_change_nothing() {
    for protocol in PROTOCOLS {
        for (row, name) in rows(protocol) {
            if let Fate::Accepted = row.fate {
                let settings_with = settings(&least().with(name, "any thing"), protocol);
                assert_eq!(settings_with, settings(&least(), protocol), "{name}");
            }
        }
    }
}

#[test]
fn parameters_that_cannot_be_obeyed_are_refused() {
    for protocol in PROTOCOLS {
        for (row, name) in rows(protocol) {
            let Fate::Refused(when) = row.fate else { continue };
            let (bad, fine) = match when {
                table::When::Set => ("texthash:/etc/x", ""),
                table::When::Yes => ("Yes", "no"),
                table::When::NoneOf(fine) => ("may", fine[0]),
            };
            let told = problems(&least().with(name, bad), protocol);
            assert!(told.starts_with(&format!("{name} = {bad}: ")), "{told}");
            assert!(
                told.ends_with(&format!(
                    "-o {name}={fine}, or let Postfix's own {protocol} deliver this mail"
                )),
                "{told}"
            );
            assert_eq!(settings(&least().with(name, fine), protocol), settings(&least(), protocol), "{name}");
            assert_eq!(settings(&least().with(name, ""), protocol), settings(&least(), protocol), "{name}");
        }
    }
}

#[test]
fn no_parameter_is_in_two_rows() {
    for protocol in PROTOCOLS {
        let mut names: Vec<_> = rows(protocol).map(|(_, name)| name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

/// What Postfix 3.10 has beside the parameters of 3.7, and 3.11 beside those of 3.10.
const NEWER: [&str; 8] = [
    "lmtp_sasl_password_result_delimiter",
    "lmtp_tls_enable_rpk",
    "lmtp_tls_enforce_sts_mx_patterns",
    "lmtp_tlsrpt_enable",
    "lmtp_tlsrpt_socket_name",
    "lmtp_tlsrpt_skip_reused_handshakes",
    "lmtp_log_tls_feature_status",
    "lmtp_requiretls_policy",
];

#[test]
fn parameters_of_newer_releases_are_known() {
    for protocol in PROTOCOLS {
        let known: Vec<_> = table::names(protocol, Scope::Client).collect();
        for name in NEWER {
            let name = table::name(protocol, name.trim_start_matches("lmtp_"));
            assert!(known.contains(&name.as_str()), "{name}");
        }
    }
}

#[test]
fn defaults_are_those_of_postfix() {
    let lmtp = settings(&least(), Protocol::Lmtp);
    let transport = lmtp.config.transport(&lmtp.transport).unwrap();
    let seconds = |limit: crate::config::Timeout| limit.get().as_secs();
    let limits = &transport.timeouts;
    assert_eq!(seconds(limits.connect), 300);
    let told = [
        limits.lhlo,
        limits.mail,
        limits.rcpt,
        limits.data_init,
        limits.data_xfer,
        limits.data_done,
        limits.rset,
    ];
    assert_eq!(told.map(seconds), [300, 300, 300, 120, 180, 600, 20]);
    assert_eq!((transport.tcp_port.get(), transport.line_length_limit, transport.max_use), (24, 998, 100));
    assert_eq!((transport.max_idle.as_secs(), lmtp.max_idle), (100, Some(Duration::from_secs(100))));
    assert_eq!((transport.min_data_rate, transport.skip_quit_response), (0, false));
    assert_eq!(
        (transport.destination_concurrency_limit, transport.effective_recipient_limit()),
        (usize::MAX, 0)
    );
    assert_eq!((transport.habits.address_limit, transport.habits.session_limit), (Some(5), Some(2)));
    assert_eq!(transport.habits.lhlo_name.as_deref(), Some("mx.example.org"));
    assert_eq!((lmtp.config.workers, lmtp.myorigin.as_str()), (100, "mx.example.org"));
    assert_eq!(lmtp.services, ServiceNames::default());
    assert_eq!(lmtp.proxymap_socket, Path::new("private/proxymap"));
    assert_eq!(lmtp.postlog_socket, Path::new("public/postlog"));
    assert_eq!(lmtp.line_format, LineFormat::default());

    let smtp = settings(&least(), Protocol::Smtp);
    let transport = smtp.config.transport(&smtp.transport).unwrap();
    assert_eq!((seconds(transport.timeouts.connect), transport.tcp_port.get()), (30, 25));
    assert!(transport.skip_quit_response);
    let destination = smtp.config.destination_of(smtp.transport, "[192.0.2.1]").unwrap();
    assert_eq!(destination.to_string(), "smtp:inet:[192.0.2.1]:25");
}

#[test]
fn a_next_hop_without_a_port_has_the_one_of_main_cf() {
    let settings = settings(&least().with("lmtp_tcp_port", "2424"), Protocol::Lmtp);
    let destination = settings.config.destination_of(settings.transport, "mx.example.org").unwrap();
    assert_eq!(destination.to_string(), "lmtp:inet:mx.example.org:2424");
}

#[test]
fn ports_have_the_names_that_main_cf_gives_them() {
    let port = |values: &Values, protocol| settings(values, protocol).client.tcp_port.get();
    let values = least().with("known_tcp_ports", "smtp=2525, mine=also-mine=2424");
    assert_eq!(port(&values.clone().with("lmtp_tcp_port", "also-mine"), Protocol::Lmtp), 2424);
    // The default of smtp(8) is a name.
    assert_eq!(port(&values, Protocol::Smtp), 2525);
    // Postfix 3.5 has none of them.
    let told = problems(&least().with("lmtp_tcp_port", "mine"), Protocol::Lmtp);
    assert!(told.starts_with("lmtp_tcp_port = mine: "), "{told}");
}

#[test]
fn zero_is_no_limit() {
    let zeros =
        ["lmtp_mail_timeout", "lmtp_connection_reuse_time_limit", "max_idle", "lmtp_mx_address_limit"];
    let values = zeros.into_iter().fold(least(), |values, name| values.with(name, "0"));
    let settings = settings(&values, Protocol::Lmtp);
    let transport = settings.config.transport(&settings.transport).unwrap();
    assert_eq!(
        (transport.timeouts.mail.get(), transport.max_idle, settings.max_idle),
        (TIME_MAX, TIME_MAX, None)
    );
    assert_eq!((transport.habits.reuse_time_limit, transport.habits.address_limit), (None, None));
}

#[test]
fn a_connection_is_used_as_often_as_both_limits_allow() {
    for (max_use, reuse, uses) in [
        ("100", "0", 100),
        ("0", "0", u32::MAX),
        ("100", "5", 6),
        ("3", "5", 3),
        ("0", "5", 6),
        ("0", "4294967295", u32::MAX),
    ] {
        let values = least().with("max_use", max_use).with("lmtp_connection_reuse_count_limit", reuse);
        let settings = settings(&values, Protocol::Lmtp);
        assert_eq!(
            settings.config.transport(&settings.transport).unwrap().max_use,
            uses,
            "{max_use} {reuse}"
        );
    }
}

#[test]
fn values_that_cannot_be_are_told_all_at_once() {
    for (name, value) in [
        ("lmtp_connect_timeout", "5x"),
        ("lmtp_tcp_port", "0"),
        ("lmtp_tcp_port", "no such service"),
        ("known_tcp_ports", "lmtp=24 smtp=25"),
        ("lmtp_line_length_limit", "15"),
        ("lmtp_bind_address", "::1"),
        ("lmtp_bind_address6", "127.0.0.1"),
        ("lmtp_lhlo_name", "a b"),
        ("lmtp_address_preference", "ipv5"),
        ("lmtp_address_verify_target", "mail"),
        ("lmtp_fallback_relay", "unix:/x"),
        ("lmtp_fallback_relay", "a:b:c"),
        ("lmtp_quote_rfc821_envelope", "maybe"),
        ("lmtp_delivery_status_filter", "inline:{a=1"),
        ("lmtp_tls_security_level", "must"),
        ("lmtp_tls_protocols", "SSLv3"),
        ("lmtp_tls_mandatory_protocols", "TLSv2"),
        ("lmtp_tls_servername", "a b"),
        ("lmtp_tls_verify_cert_match", "a/b"),
        ("lmtp_tls_fingerprint_cert_match", "00:11"),
        ("lmtp_tls_loglevel", "high"),
        ("lmtp_sasl_security_options", "noplain"),
        ("lmtp_sasl_mechanism_filter", "gssapi"),
        ("lmtp_sasl_password_result_delimiter", "::"),
        ("lastmile_workers", "0"),
        ("lastmile_connection_cache", "scache"),
        ("inet_protocols", "ipv5"),
        ("ipc_timeout", "0"),
        ("notify_classes", "protocol, all"),
        ("info_log_address_format", "both"),
        ("mail_version", "unknown"),
        ("queue_directory", "spool"),
    ] {
        let told = problems(&least().with(name, value).with("lmtp_body_checks", "pcre:/x"), Protocol::Lmtp);
        assert_eq!(told.lines().count(), 2, "{told}");
        assert!(told.contains(&format!("{name} = {value}: ")), "{told}");
    }
}

#[test]
fn fallback_relays_are_written_as_next_hops() {
    let relays = "[relay.example], [192.0.2.1]:2525 [other.example]:submission";
    for protocol in PROTOCOLS {
        let values = least().with(&table::name(protocol, "fallback_relay"), relays);
        let values = values.with("known_tcp_ports", "submission=587");
        assert_eq!(settings(&values, protocol).fallback_relay.len(), 3);
    }
    let told = problems(&least().with("smtp_fallback_relay", "relay.example"), Protocol::Smtp);
    assert!(told.contains("relay.example") && told.contains("MX"), "{told}");
}

/// What is set beside [`least`].
fn with(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().fold(least(), |values, (name, value)| values.with(name, value))
}

#[test]
fn a_level_comes_before_the_parameters_that_it_has_replaced() {
    for (level, must, should, with_name, expected) in [
        ("", "no", "no", "yes", TlsLevel::None),
        ("", "no", "yes", "yes", TlsLevel::May),
        ("", "yes", "no", "yes", TlsLevel::Verify),
        ("", "yes", "yes", "no", TlsLevel::Encrypt),
        ("none", "yes", "yes", "yes", TlsLevel::None),
        ("may", "yes", "no", "yes", TlsLevel::May),
        ("Secure", "no", "no", "yes", TlsLevel::Secure),
    ] {
        for protocol in PROTOCOLS {
            let name = |suffix| table::name(protocol, suffix);
            let values = with(&[
                (&name("tls_security_level"), level),
                (&name("enforce_tls"), must),
                (&name("use_tls"), should),
                (&name("tls_enforce_peername"), with_name),
            ]);
            let known = settings(&values, protocol).client.tls.security_level;
            assert_eq!(known, Some(expected), "{level} {must} {should} {with_name}");
        }
    }
}

#[test]
fn versions_go_by_the_level() {
    let lists = [("lmtp_tls_protocols", "TLSv1.2"), ("lmtp_tls_mandatory_protocols", ">=TLSv1.3")];
    for (level, v1_2) in [("may", true), ("encrypt", false), ("secure", false)] {
        let settings = settings(&with(&lists).with("lmtp_tls_security_level", level), Protocol::Lmtp);
        let protocols = TlsProtocols { v1_2, v1_3: !v1_2 };
        assert_eq!(settings.client.tls.protocols, protocols, "{level}");
        assert_eq!(settings.tls.protocols_at(TlsLevel::May), TlsProtocols { v1_2: true, v1_3: false });
        assert_eq!(settings.tls.protocols_at(TlsLevel::Verify), TlsProtocols { v1_2: false, v1_3: true });
    }
}

#[test]
fn one_certificate_is_shown_with_its_key() {
    let own = |pairs: &[(&str, &str)]| {
        let tls = settings(&with(pairs), Protocol::Lmtp).client.tls.clone();
        [tls.cert_file, tls.key_file]
            .map(|path| path.map(|path| path.display().to_string()).unwrap_or_default())
    };
    for (pairs, shown) in [
        (&[][..], ["", ""]),
        (&[("lmtp_tls_cert_file", "/c"), ("lmtp_tls_key_file", "/k")], ["/c", "/k"]),
        // The default of the key is the certificate's file.
        (&[("lmtp_tls_cert_file", "/c"), ("lmtp_tls_key_file", "/c")], ["/c", ""]),
        (&[("lmtp_tls_key_file", "/k")], ["", ""]),
        (&[("lmtp_tls_eccert_file", "/e"), ("lmtp_tls_eckey_file", "/f")], ["/e", "/f"]),
        (
            &[("lmtp_tls_chain_files", "/all"), ("lmtp_tls_cert_file", "/c"), ("lmtp_tls_key_file", "/k")],
            ["/all", ""],
        ),
    ] {
        assert_eq!(own(pairs), shown, "{pairs:?}");
    }
    for (pairs, name) in [
        ([("lmtp_tls_cert_file", "/c"), ("lmtp_tls_eccert_file", "/e")], "lmtp_tls_eccert_file"),
        ([("lmtp_tls_chain_files", "/a, /b"), ("lmtp_tls_key_file", "")], "lmtp_tls_chain_files"),
    ] {
        let told = problems(&with(&pairs), Protocol::Lmtp);
        assert!(told.starts_with(&format!("{name} = ")), "{told}");
    }
}

#[test]
fn what_no_server_could_meet_is_refused_unless_a_policy_may_say_otherwise() {
    for (pairs, name) in [
        (&[("lmtp_tls_wrappermode", "yes")][..], "lmtp_tls_wrappermode"),
        (&[("lmtp_tls_wrappermode", "yes"), ("lmtp_tls_security_level", "may")], "lmtp_tls_wrappermode"),
        (&[("lmtp_tls_security_level", "fingerprint")], "lmtp_tls_fingerprint_cert_match"),
        (
            &[("lmtp_tls_security_level", "verify"), ("lmtp_tls_verify_cert_match", "")],
            "lmtp_tls_verify_cert_match",
        ),
        (
            &[("lmtp_tls_security_level", "secure"), ("lmtp_tls_secure_cert_match", " , ")],
            "lmtp_tls_secure_cert_match",
        ),
    ] {
        let told = problems(&with(pairs), Protocol::Lmtp);
        assert!(told.starts_with(&format!("{name} = ")) && told.lines().count() == 1, "{told}");
        settings(&with(pairs).with("lmtp_tls_policy_maps", "texthash:/x"), Protocol::Lmtp);
    }
    let fine = [("lmtp_tls_wrappermode", "yes"), ("lmtp_tls_security_level", "encrypt")];
    assert!(settings(&with(&fine), Protocol::Lmtp).client.tls.wrappermode);
}

#[test]
fn fingerprints_of_another_digest_are_refused_where_there_are_some() {
    let md5 = [("lmtp_tls_fingerprint_digest", "md5")];
    assert!(!settings(&with(&md5), Protocol::Lmtp).tls.fingerprints_are_sha256);
    let told = problems(&with(&md5).with("lmtp_tls_fingerprint_cert_match", "00:11"), Protocol::Lmtp);
    assert!(told.starts_with("lmtp_tls_fingerprint_digest = md5: ") && told.contains("sha256"), "{told}");
    let digits = "00".repeat(32);
    let both = format!("{digits}, {}", "FF:".repeat(31) + "ff");
    let settings = settings(&least().with("lmtp_tls_fingerprint_cert_match", &both), Protocol::Lmtp);
    assert_eq!(settings.client.tls.fingerprints, [Fingerprint([0; 32]), Fingerprint([0xff; 32])]);
}

#[test]
fn names_of_certificates_and_servers_are_those_of_postfix() {
    let values = with(&[
        ("lmtp_tls_verify_cert_match", "hostname, nexthop:dot-nexthop"),
        ("lmtp_tls_secure_cert_match", "MX.example.org .example.net"),
    ]);
    let tls = settings(&values, Protocol::Lmtp).client.tls.clone();
    assert_eq!(tls.verify_cert_match, [CertMatch::Hostname, CertMatch::Nexthop, CertMatch::DotNexthop]);
    let names = [CertMatch::Name("mx.example.org".to_owned()), CertMatch::Below("example.net".to_owned())];
    assert_eq!(tls.secure_cert_match, names);
    for (text, name) in [
        ("", TlsServerName::None),
        ("hostname", TlsServerName::Hostname),
        ("nexthop", TlsServerName::Hostname),
        ("front.example", TlsServerName::Name("front.example".to_owned())),
    ] {
        let settings = settings(&least().with("lmtp_tls_servername", text), Protocol::Lmtp);
        assert_eq!(settings.client.tls.servername, name, "{text}");
    }
}

#[test]
fn dane_is_refused_with_what_to_do() {
    for level in ["dane", "dane-only", "half-dane"] {
        let told = problems(&least().with("smtp_tls_security_level", level), Protocol::Smtp);
        assert!(told.starts_with(&format!("smtp_tls_security_level = {level}: DANE ")), "{told}");
        assert!(
            told.contains("-o smtp_tls_security_level=encrypt") && told.contains("own smtp deliver"),
            "{told}"
        );
    }
}

const LOGIN: [(&str, &str); 2] =
    [("lmtp_sasl_auth_enable", "yes"), ("lmtp_sasl_password_maps", "texthash:/etc/postfix/sasl_passwd")];

#[test]
fn a_login_needs_a_table_of_passwords_that_is_text() {
    for (maps, words) in [
        ("", "needs a table"),
        ("hash:/etc/postfix/sasl_passwd", "say texthash:/etc/postfix/sasl_passwd, the file"),
        ("static:u:p, lmdb:/x", "postmap -s lmdb:/x"),
        ("proxy:mysql:/x", "passwords are read from text alone"),
        ("inline:{a=b", "\"}\""),
    ] {
        let told = problems(&with(&LOGIN).with("lmtp_sasl_password_maps", maps), Protocol::Lmtp);
        assert!(told.starts_with("lmtp_sasl_password_maps") && told.lines().count() == 1, "{told}");
        assert!(told.contains(words), "{told}");
        // Nobody asks for them where nobody logs in.
        let nobody = least().with("lmtp_sasl_password_maps", maps);
        assert!(settings(&nobody, Protocol::Lmtp).logins.password_maps.is_empty());
    }
    let maps = settings(&with(&LOGIN), Protocol::Lmtp).logins.password_maps;
    assert_eq!(maps, [Secret::new("texthash:/etc/postfix/sasl_passwd".to_owned())]);
}

#[test]
fn passwords_in_main_cf_are_shown_nowhere() {
    let values = with(&LOGIN).with("lmtp_sasl_password_maps", "inline:{a=u:hushhush} static:u:hushhush");
    assert!(!format!("{:?}", settings(&values, Protocol::Lmtp)).contains("hushhush"));
    for maps in ["inline:{a=u:hushhush", "{inline:{a=u:hushhush}} hash:/x", "pcre:{{/a/ u:hushhush}}"] {
        let told = problems(&with(&LOGIN).with("lmtp_sasl_password_maps", maps), Protocol::Lmtp);
        assert!(!told.contains("hushhush"), "{told}");
    }
}

#[test]
fn what_a_mechanism_must_not_do_goes_by_the_connection() {
    let values = with(&[
        ("lmtp_sasl_security_options", "noactive"),
        ("lmtp_sasl_tls_security_options", "noplaintext"),
        ("lmtp_sasl_tls_verified_security_options", "noanonymous"),
    ]);
    let sasl = settings(&values, Protocol::Lmtp).client.sasl.clone();
    for (is_encrypted, is_authenticated, options) in
        [(false, false, "noactive"), (true, false, "noplaintext"), (true, true, "noanonymous")]
    {
        assert_eq!(sasl.options_for(is_encrypted, is_authenticated), options.parse().unwrap(), "{options}");
    }
}

#[test]
fn passwords_are_tokens_where_only_mechanisms_for_tokens_are_left() {
    for (filter, are_tokens) in [("xoauth2, oauthbearer", true), ("xoauth2, plain", false), ("", false)] {
        let settings = settings(&with(&LOGIN).with("lmtp_sasl_mechanism_filter", filter), Protocol::Lmtp);
        assert_eq!(settings.logins.passwords_are_tokens, are_tokens, "{filter}");
    }
}

#[test]
fn a_refused_login_never_bounces() {
    let values = with(&LOGIN).with("lmtp_sasl_auth_soft_bounce", "no");
    let told = settings(&values, Protocol::Lmtp).warnings;
    assert!(
        told.len() == 1 && told[0].starts_with("lmtp_sasl_auth_soft_bounce = no: mail is deferred"),
        "{told:?}"
    );
    assert!(settings(&with(&LOGIN), Protocol::Lmtp).warnings.is_empty());
}

#[test]
fn parameters_of_the_other_program_mean_nothing() {
    let values = least().with("smtp_body_checks", "pcre:/x").with("smtp_mail_timeout", "5x");
    assert_eq!(settings(&values, Protocol::Lmtp), settings(&least(), Protocol::Lmtp));
}

#[test]
fn flags_come_from_the_command_line_or_from_assume_final() {
    let flags: Flags = "DR".parse().unwrap();
    let values = least().with("lmtp_assume_final", "yes");
    let settings = Settings::from_values(&values, Protocol::Lmtp, flags).unwrap();
    assert_eq!(settings.config.transport(&settings.transport).unwrap().flags, "DRX".parse().unwrap());
}

#[test]
fn a_slip_of_the_pen_is_told() {
    let main_cf = "lastmile_workers = 3\nlastmile_wokers = 3\nlmtp_x = y\nlastmile_destination_recipient_limit = 7\n\
                   lastmile_local_transport_rate_delay = 0\nother = ${lastmile_dir}\nlastmile_dir = x\n";
    let overrides =
        [("lmtp_conect_timeout", "5"), ("lmtp_connect_timeout", "5"), ("lastmile_chunk", "no"), ("x", "y")];
    let overrides = overrides.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let told = strangers(main_cf, &overrides, Protocol::Lmtp);
    let names: Vec<_> = told.iter().filter_map(|sentence| sentence.split(' ').next()).collect();
    assert_eq!(names, ["lastmile_wokers", "lmtp_conect_timeout", "lastmile_chunk"]);
}
