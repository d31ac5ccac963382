//! The configuration, from its sources to what is said about it; the shipped file and the manual page.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lastmile::cli::check;
use lastmile::config::{Config, InetProtocols, LogTarget, NotifyClass, Sources, Timeout, Transport};
use lastmile::mail::{Address, Protocol};
use lastmile::smtp::OverQuota;
use lastmile::smtp::Stage;
use proptest::prelude::*;
use tempfile::NamedTempFile;

mod secrets;
mod shipped;
mod tls;

const SHIPPED_FILE: &str = include_str!("../../etc/lastmile/lastmile.toml");
const MANUAL_PAGE: &str = include_str!("../../packaging/man/lastmile.toml.5");

/// What a test gives, by source.
#[derive(Default)]
struct Given<'a> {
    file: &'a str,
    environment: &'a [(&'a str, &'a str)],
    overrides: &'a [&'a str],
}

impl Given<'_> {
    /// The result, with `FILE` for the path of the file in what is said.
    fn load(&self) -> Result<Config, Vec<String>> {
        let file = written(self.file);
        let path = file.path().display().to_string();
        Config::load(&self.sources(file.path().into())).map_err(|error| {
            error.problems().iter().map(|problem| problem.to_string().replace(&path, "FILE")).collect()
        })
    }

    fn sources(&self, file: PathBuf) -> Sources {
        let environment = self.environment.iter().map(|(name, value)| (name.into(), value.into()));
        let overrides = self.overrides.iter().map(|text| (*text).to_owned());
        Sources { file: Some(file), environment: environment.collect(), overrides: overrides.collect() }
    }
}

fn written(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn from_file(file: &str) -> Result<Config, Vec<String>> {
    Given { file, ..Given::default() }.load()
}

fn from_environment(environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    Given { environment, ..Given::default() }.load()
}

fn from_options(overrides: &[&str]) -> Result<Config, Vec<String>> {
    Given { overrides, ..Given::default() }.load()
}

fn source<'a>(config: &'a Config, key: &str) -> &'a str {
    &config.settings().iter().find(|setting| setting.key == key).unwrap().source
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let config = Config::default();
    assert_eq!(config.queue_directory, PathBuf::from("/var/spool/lastmile"));
    assert_eq!((&config.user, &config.group, &config.chroot), (&None, &None, &None));
    assert_eq!((config.workers, config.workers_reserved, config.active_limit), (32, 2, 20_000));
    assert_eq!(config.default_transport.to_string(), "lmtp:unix:/run/dovecot/lmtp");
    assert_eq!(config.myorigin, config.myhostname);
    assert!(!config.myhostname.is_empty());
    assert_eq!((config.message_size_limit, config.queue_minfree), (50 << 20, 0));
    assert_eq!(config.maximal_backoff_time, Duration::from_secs(4000));
    assert_eq!((config.minimal_backoff_time, config.queue_run_delay), (minutes(5), minutes(5)));
    assert_eq!(config.maximal_queue_lifetime, minutes(5 * 24 * 60));
    assert!(config.delay_warning_time.is_zero());
    assert_eq!(config.bounce_nexthop, None);
    let told_of = |class| config.notify_classes.contains(class);
    assert!(
        told_of(NotifyClass::Resource)
            && told_of(NotifyClass::Software)
            && told_of(NotifyClass::DoubleBounce)
    );
    assert!(!told_of(NotifyClass::Bounce) && !told_of(NotifyClass::Delay) && !told_of(NotifyClass::Protocol));
    assert_eq!(config.log_target, LogTarget::Stderr);

    let by_name = |name: &str| config.transport(&name.parse().unwrap()).unwrap();
    let (lmtp, local, smtp) = (by_name("lmtp"), by_name("local"), by_name("smtp"));
    assert_eq!(
        (lmtp.protocol, local.protocol, smtp.protocol),
        (Protocol::Lmtp, Protocol::Lmtp, Protocol::Smtp)
    );
    assert_eq!((lmtp.destination_recipient_limit, local.destination_recipient_limit), (50, 1));
    assert_eq!((lmtp.line_length_limit, smtp.line_length_limit), (0, 998));
    assert_eq!((lmtp.max_idle, lmtp.max_use), (Duration::from_secs(100), 100));
    assert_eq!((lmtp.eager_content_limit, lmtp.min_data_rate), (64 << 10, 500));
    assert!(lmtp.cache_connection && lmtp.pipelining && lmtp.chunking && !lmtp.skip_quit_response);
    assert_eq!(lmtp.over_quota, OverQuota::Bounce);
    assert_eq!(config.transports().count(), 3);
}

#[test]
fn each_stage_has_its_limit() {
    let config = from_options(&[
        "transport.lmtp.connect_timeout=1",
        "transport.lmtp.lhlo_timeout=2",
        "transport.lmtp.starttls_timeout=3",
        "transport.lmtp.rset_timeout=4",
        "transport.lmtp.mail_timeout=5",
        "transport.lmtp.rcpt_timeout=6",
        "transport.lmtp.data_init_timeout=7",
        "transport.lmtp.data_xfer_timeout=8",
        "transport.lmtp.data_done_timeout=9",
        "transport.lmtp.quit_timeout=10",
    ])
    .unwrap();
    let mut transport = Transport::clone(config.transport(&"lmtp".parse().unwrap()).unwrap());
    let seconds = |transport: &Transport| {
        Stage::ALL.iter().map(|stage| transport.timeout_at(*stage).get().as_secs()).collect::<Vec<_>>()
    };
    assert_eq!(seconds(&transport), [1, 2, 3, 2, 2, 4, 5, 5, 5, 6, 7, 8, 9, 10]);
    transport.habits.xforward = Timeout::new(Duration::from_secs(11));
    assert_eq!(seconds(&transport), [1, 2, 3, 2, 2, 4, 11, 11, 5, 6, 7, 8, 9, 10]);
    assert_eq!(Timeout::new(Duration::ZERO), None);
}

#[test]
fn each_layer_goes_before_the_ones_below_it() {
    let file = "workers = 11\nactive_limit = 111\nmessage_size_limit = 1111";
    let environment = [("LASTMILE_WORKERS", "12"), ("LASTMILE_ACTIVE_LIMIT", "112")];
    let config =
        Given { file, environment: &environment, overrides: &["workers=1", "workers=13"] }.load().unwrap();
    assert_eq!((config.workers, config.active_limit, config.message_size_limit), (13, 112, 1111));
    assert_eq!(config.queue_minfree, 0);
    assert_eq!(source(&config, "workers"), "option -o");
    assert_eq!(source(&config, "active_limit"), "environment LASTMILE_ACTIVE_LIMIT");
    assert!(source(&config, "message_size_limit").starts_with('/'));
    assert_eq!(source(&config, "queue_minfree"), "default");
}

#[test]
fn each_layer_goes_before_the_ones_below_it_in_a_transport_too() {
    let file = "[transport.lmtp]\nmax_use = 11\nmax_idle = 11\nmail_timeout = \"11s\"";
    let environment =
        [("LASTMILE_TRANSPORT__LMTP__MAX_USE", "12"), ("LASTMILE_TRANSPORT__LMTP__MAX_IDLE", "12s")];
    let config = Given { file, environment: &environment, overrides: &["transport.lmtp.max_use = 13"] };
    let config = config.load().unwrap();
    let lmtp = config.transport(&"lmtp".parse().unwrap()).unwrap();
    assert_eq!((lmtp.max_use, lmtp.max_idle.as_secs()), (13, 12));
    assert_eq!(lmtp.timeouts.at(Stage::Mail).get().as_secs(), 11);
    assert_eq!(lmtp.timeouts.at(Stage::Rcpt).get().as_secs(), 300);
}

#[test]
fn values_are_text_whatever_their_type_in_the_file() {
    let config = from_file(
        "myhostname = 12345\nworkers = \"8\"\nqueue_run_delay = 90\nsyslog_name = true\n\
         trusted_users = [\"sympa\", 7]\nnotify_classes = \"bounce delay,protocol\"\n\
         [transport.lmtp]\npipelining = false\nchunking = \"NO\"\nmax_idle = \"2h\"\neager_content_limit = \"1G\"",
    )
    .unwrap();
    assert_eq!((config.myhostname.as_str(), config.workers), ("12345", 8));
    assert_eq!(config.queue_run_delay, Duration::from_secs(90));
    assert_eq!(config.syslog_name, "true");
    assert_eq!(config.trusted_users, ["sympa", "7"]);
    assert!(config.notify_classes.contains(NotifyClass::Delay));
    assert!(!config.notify_classes.contains(NotifyClass::Software));
    let lmtp = config.transport(&"lmtp".parse().unwrap()).unwrap();
    assert!(!lmtp.pipelining && !lmtp.chunking);
    assert_eq!((lmtp.max_idle, lmtp.eager_content_limit), (minutes(120), 1 << 30));
}

#[test]
fn times_and_sizes_have_units() {
    for (text, seconds) in [
        ("0", 0),
        ("5", 5),
        ("5s", 5),
        ("5m", 300),
        ("1h", 3600),
        ("5d", 432_000),
        ("1w", 604_800),
        (" 007 ", 7),
    ] {
        let config = from_options(&[&format!("delay_warning_time={text}")]).unwrap();
        assert_eq!(config.delay_warning_time.as_secs(), seconds, "{text:?}");
    }
    for text in ["", "s", "-5", "+5", "1.5h", "5 s", "5ms", "5S", "5mm", "٥"] {
        assert!(from_options(&[&format!("delay_warning_time={text}")]).is_err(), "{text:?}");
    }
    for (text, bytes) in [("0", 0), ("5", 5), ("1K", 1024), ("2k", 2048), ("3M", 3 << 20), ("1G", 1 << 30)] {
        let config = from_options(&[&format!("queue_minfree={text}")]).unwrap();
        assert_eq!(config.queue_minfree, bytes, "{text:?}");
    }
    for text in ["", "K", "1KB", "1 K", "-1", "8589934592G", "99999999999999999999"] {
        assert!(from_options(&[&format!("queue_minfree={text}")]).is_err(), "{text:?}");
    }
}

#[test]
fn variables_can_point_to_a_file_with_their_value() {
    let value = written("mail.example.org\n");
    let path = value.path().to_str().unwrap();
    let config = from_environment(&[("LASTMILE_MYHOSTNAME_FILE", path)]).unwrap();
    assert_eq!(
        (config.myhostname.as_str(), config.myorigin.as_str()),
        ("mail.example.org", "mail.example.org")
    );
    assert_eq!(source(&config, "myhostname"), format!("{path}, named by LASTMILE_MYHOSTNAME_FILE"));

    let both = [("LASTMILE_MYHOSTNAME_FILE", path), ("LASTMILE_MYHOSTNAME", "a.example.org")];
    let said = from_environment(&both).unwrap_err();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("its key is set already"), "{said:?}");
    let said = from_environment(&[("LASTMILE_WORKERS_FILE", "/nonexistent/8")]).unwrap_err();
    assert!(said[0].starts_with("environment LASTMILE_WORKERS_FILE: /nonexistent/8"), "{said:?}");
    let said = from_environment(&[("LASTMILE_WORKERS_FILE", "/dev/zero")]).unwrap_err();
    assert!(said[0].contains("larger than 65536 bytes"), "{said:?}");
}

#[test]
fn variables_are_matched_without_regard_to_case_and_some_are_no_keys() {
    let config = from_environment(&[
        ("lastmile_workers", "8"),
        ("LASTMILE_CONFIG", "/nonexistent/because/-c/goes/before"),
        ("LASTMILE_LOG", "debug"),
        ("LASTMILE_SENDMAIL_STRICT", "1"),
        ("LASTMIL_WORKERS", "x"),
        ("WORKERS", "x"),
    ])
    .unwrap();
    assert_eq!(config.workers, 8);
    let sources =
        Sources { environment: vec![("lastmile_config".into(), "/x".into())], ..Sources::default() };
    assert_eq!(sources.file(), ("/x".into(), true));
}

#[test]
fn a_variable_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let environment = vec![("LASTMILE_WORKERS".into(), OsString::from_vec(vec![0xff]))];
    let sources = Sources { file: Some("/dev/null".into()), environment, overrides: vec![] };
    let said = Config::load(&sources).unwrap_err().to_string();
    assert_eq!(said, "environment LASTMILE_WORKERS: its value is not UTF-8");
}

#[test]
fn a_file_that_was_named_must_exist() {
    let missing = "/nonexistent/lastmile.toml";
    let named = Sources { file: Some(missing.into()), ..Sources::default() };
    let variable =
        Sources { environment: vec![("LASTMILE_CONFIG".into(), missing.into())], ..Sources::default() };
    for sources in [named, variable] {
        let said = Config::load(&sources).unwrap_err().to_string();
        assert!(said.starts_with("/nonexistent/lastmile.toml: it cannot be read: "), "{said}");
    }
    let empty = Sources { environment: vec![("LASTMILE_CONFIG".into(), "".into())], ..Sources::default() };
    assert_eq!(empty.file(), ("/etc/lastmile/lastmile.toml".into(), false));
}

#[test]
fn what_is_wrong_is_said_with_key_value_and_source() {
    let time = "a time is needed: a whole number, in seconds or with s, m, h, d or w behind it";
    for (file, said) in [
        ("workers = 0", "workers = \"0\" (FILE): a whole number from 1 to 4096 is needed"),
        ("workers = -1", "workers = \"-1\" (FILE): a whole number from 1 to 4096 is needed"),
        ("workers = [1]", "workers = \"1\" (FILE): one value is needed here, not a list"),
        ("queue_run_delay = \"5 m\"", &format!("queue_run_delay = \"5 m\" (FILE): {time}")),
        ("queue_run_delay = \"\"", &format!("queue_run_delay = \"\" (FILE): {time}")),
        ("queue_run_delay = 0", "queue_run_delay = \"0\" (FILE): the time must be longer than zero"),
        (
            "queue_run_delay = \"99999999999999999999w\"",
            &format!("queue_run_delay = \"99999999999999999999w\" (FILE): {time}"),
        ),
        (
            "shutdown_timeout = \"521w\"",
            "shutdown_timeout = \"521w\" (FILE): a time of at most 520w (ten years) is needed",
        ),
        (
            "queue_minfree = \"1T\"",
            "queue_minfree = \"1T\" (FILE): a size is needed: a whole number of bytes, or with K, M or G behind it",
        ),
        (
            "queue_directory = \"spool\"",
            "queue_directory = \"spool\" (FILE): a path that begins with / is needed",
        ),
        ("log_target = \"file\"", "log_target = \"file\" (FILE): log lines go to \"stderr\" or \"syslog\""),
        (
            "notify_classes = [\"policy\"]",
            "notify_classes = \"policy\" (FILE): there is no class \"policy\"; the classes are bounce, delay, protocol, \
             resource, software and 2bounce",
        ),
        (
            "transport.lmtp.connect_timeout = \"0s\"",
            "transport.lmtp.connect_timeout = \"0s\" (FILE): a timeout of zero would mean to wait for ever; \
             give a time, up to 520w",
        ),
        (
            "transport.lmtp.destination_concurrency_limit = 0",
            "transport.lmtp.destination_concurrency_limit = \"0\" (FILE): a whole number from 1 to 4096 is needed",
        ),
        (
            "transport.lmtp.flags = \"DQ\"",
            "transport.lmtp.flags = \"DQ\" (FILE): there is no flag 'Q'; the flags are D, O, R and X",
        ),
        (
            "transport.lmtp.pipelining = \"maybe\"",
            "transport.lmtp.pipelining = \"maybe\" (FILE): \"yes\" or \"no\" is needed",
        ),
        (
            "transport.lmtp.tcp_port = 65536",
            "transport.lmtp.tcp_port = \"65536\" (FILE): a port from 1 to 65535 is needed",
        ),
        (
            "transport.my-site.protocol = \"lmtp\"",
            "transport.my-site.protocol = \"lmtp\" (FILE): a transport's name is made of a-z, 0-9 and single \
             underscores between them",
        ),
        ("transport = 1", "transport = \"1\" (FILE): a section is needed here, as in [transport.lmtp]"),
        ("transport.x = 1", "transport.x = \"1\" (FILE): a section is needed here, as in [transport.lmtp]"),
        (
            "default_transport = \"lmpt:unix:/run/lmtp\"",
            "default_transport = \"lmpt:unix:/run/lmtp\" (FILE): there is no transport \"lmpt\" (known prefixes \
             are the configured transports, unix: and inet:)",
        ),
        (
            "[routes]\n\"example.org\" = \"relay:unix:/run/lmtp\"",
            "routes.\"example.org\" = \"relay:unix:/run/lmtp\" (FILE): there is no transport \"relay\" (known \
             prefixes are the configured transports, unix: and inet:)",
        ),
        (
            "[routes]\nexample.org = \"lmtp:mx1\"",
            "routes.\"example\" = \"{…}\" (FILE): a name with dots needs quotes, as in \"example.org\" = …",
        ),
        (
            "[routes]\n\"example.org\" = { nexthop = \"lmtp:mx1\" }",
            "routes.\"example.org\" = \"{…}\" (FILE): an entry is one text, as \"lmtp:inet:mx1.example.org\"",
        ),
        (
            "[routes]\n\"a..b\" = \"lmtp:mx1\"",
            "routes.\"a..b\" = \"lmtp:mx1\" (FILE): a route is for an address, a domain, a .domain (all below it) \
             or \"*\"",
        ),
        (
            "[routes]\n\"X.org\" = \"mx1\"\n\"x.org\" = \"mx2\"",
            "routes.\"x.org\" = \"mx2\" (FILE): there is already a route for \"x.org\"",
        ),
        (
            "[aliases]\n\"root@example.org\" = \"a@example.org\"",
            "aliases.\"root@example.org\" = \"a@example.org\" (FILE): an alias is for a local name without a \
             domain, or for \"*\"",
        ),
        ("[aliases]\nroot = []", "aliases.\"root\" = \"\" (FILE): an alias needs at least one address"),
    ] {
        assert_eq!(from_file(file).unwrap_err(), [said], "{file}");
    }
}

#[test]
fn combinations_that_cannot_work_are_refused_by_what_somebody_gave() {
    for (options, said) in [
        (
            &["workers=8", "workers_reserved=8"][..],
            "workers_reserved = \"8\" (option -o): it must be less than workers, which is 8",
        ),
        (
            &["minimal_backoff_time=2h"],
            "minimal_backoff_time = \"2h\" (option -o): it must not be more than maximal_backoff_time, which is \
             4000s",
        ),
        (
            &["maximal_backoff_time=10"],
            "maximal_backoff_time = \"10\" (option -o): it must not be less than minimal_backoff_time, which is \
             300s",
        ),
        (
            &["transport.lmtp.bind_address=::1, 127.0.0.1", "transport.lmtp.inet_protocols=ipv4"],
            "transport.lmtp.bind_address = \"::1, 127.0.0.1\" (option -o): ::1 is never used while \
             inet_protocols is ipv4",
        ),
        (
            &["transport.lmtp.bind_address=127.0.0.1 127.0.0.2"],
            "transport.lmtp.bind_address = \"127.0.0.1 127.0.0.2\" (option -o): at most one IPv4 and one IPv6 \
             address can be bound to",
        ),
    ] {
        assert_eq!(from_options(options).unwrap_err(), [said], "{options:?}");
    }
    // Nobody chose the two reserved workers of a pool that is too small for them.
    assert_eq!(from_options(&["workers=1"]).unwrap().workers, 1);
}

#[test]
fn unknown_keys_are_refused_with_a_guess_at_what_was_meant() {
    for (file, said) in [
        ("wrokers = 8", "wrokers = \"8\" (FILE): there is no such key; did you mean workers?"),
        (
            "connect_timeout = 5",
            "connect_timeout = \"5\" (FILE): there is no such key; it belongs to a transport: \
             transport.lmtp.connect_timeout",
        ),
        (
            "smtp_connect_timeout = 5",
            "smtp_connect_timeout = \"5\" (FILE): there is no such key; it is transport.smtp.connect_timeout here",
        ),
        (
            "conect_timeout = 5",
            "conect_timeout = \"5\" (FILE): there is no such key; did you mean transport.lmtp.connect_timeout?",
        ),
        (
            "[transport.lmtp]\nconnect_timeuot = 5",
            "transport.lmtp.connect_timeuot = \"5\" (FILE): there is no such key; did you mean connect_timeout?",
        ),
        (
            "[transport.lmtp]\nworkers = 5",
            "transport.lmtp.workers = \"5\" (FILE): there is no such key; workers is no key of a transport: in \
             the file it stands above the first [section]",
        ),
        ("Max-Use = 1", "Max-Use = \"1\" (FILE): there is no such key; did you mean transport.lmtp.max_use?"),
        ("xyzzy = 1", "xyzzy = \"1\" (FILE): there is no such key"),
        (
            "[route]\na = 1",
            "route = \"{…}\" (FILE): there is no such key; the sections are [routes], [aliases] and \
             [transport.NAME]",
        ),
        (
            "transport.lmtp.tls_security = \"may\"",
            "transport.lmtp.tls_security = \"may\" (FILE): there is no such key",
        ),
    ] {
        assert_eq!(from_file(file).unwrap_err(), [said], "{file}");
    }
    for (variable, said) in [
        (
            "LASTMILE_WORKRES",
            "workres = \"x\" (environment LASTMILE_WORKRES): there is no such key; did you mean workers?",
        ),
        (
            "LASTMILE_WORKRES_FILE",
            "workres_file = \"x\" (environment LASTMILE_WORKRES_FILE): there is no such key",
        ),
        (
            "LASTMILE_TRANSPORT__LMPT__MAX_USE",
            "transport.lmpt.max_use = \"x\" (environment LASTMILE_TRANSPORT__LMPT__MAX_USE): there is no \
             transport \"lmpt\"; one that the file does not name comes into being by its protocol \
             (LASTMILE_TRANSPORT__LMPT__PROTOCOL); did you mean lmtp?",
        ),
        (
            "LASTMILE_TRANSPORT__LMTP",
            "environment LASTMILE_TRANSPORT__LMTP: a transport's key is transport.NAME.key \
             (LASTMILE_TRANSPORT__NAME__KEY)",
        ),
    ] {
        assert_eq!(from_environment(&[(variable, "x")]).unwrap_err(), [said], "{variable}");
    }
    for (option, said) in [
        ("workers", "option -o \"workers\": key=value is needed"),
        (
            "routes.example.org=mx1",
            "option -o \"routes.example.org=mx1\": give routes as a whole here, as in \
             routes={ \"a\" = \"b\", \"c\" = \"d\" }",
        ),
        (
            "lmtp.max_use=5",
            "option -o \"lmtp.max_use=5\": there is no such section; the sections are routes, aliases and \
             transport.NAME",
        ),
    ] {
        assert_eq!(from_options(&[option]).unwrap_err(), [said], "{option}");
    }
}

#[test]
fn all_problems_are_told_at_once_but_no_more_than_anybody_reads() {
    let given = Given {
        file: "workers = 0\n[transport.lmtp]\nmax_use = 0\nmail_timeout = 0\nfoo = 1",
        environment: &[("LASTMILE_ACTIVE_LIMIT", "many")],
        overrides: &["log_target=nowhere"],
    };
    let said = given.load().unwrap_err();
    for key in ["workers", "max_use", "mail_timeout", "foo", "active_limit", "log_target"] {
        assert!(said.iter().any(|said| said.contains(key)), "{key} in {said:?}");
    }
    assert_eq!(said.len(), 6);

    let file: String = (0..1000).map(|n| format!("key{n} = {n}\n")).collect();
    let said = from_file(&file).unwrap_err();
    assert_eq!((said.len(), said[50].as_str()), (51, "950 more problems are not shown"));
    let long = from_file(&format!("log_target = \"{}\"", "é".repeat(100_000))).unwrap_err();
    assert!(long[0].len() < 600, "{}", long[0].len());
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_the_line() {
    let said = from_file("workers = 8\n[transport.lmtp\nmax_use = 5\n").unwrap_err();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("FILE: it is not TOML: line 2"), "{said:?}");
    assert!(!said[0].contains('\n'), "{said:?}");
    for value in ["5s", "yes", "/var/spool/lastmile"] {
        let said = from_file(&format!("key = {value}")).unwrap_err();
        assert!(said[0].ends_with("; texts need quotes, as in \"5s\" or \"yes\""), "{said:?}");
    }
    // What the file would have said is not held against the other sources.
    let environment = [("LASTMILE_TRANSPORT__MY_SITE__MAX_USE", "7")];
    let given = Given { file: "[transport.my_site]\nx", environment: &environment, overrides: &[] };
    assert_eq!(given.load().unwrap_err().len(), 1);
    let said = from_file("workers = 8\nworkers = 9\n").unwrap_err();
    assert!(said[0].starts_with("FILE: it is not TOML: line 2"), "{said:?}");
}

#[test]
fn a_transport_exists_by_the_file_or_by_its_protocol() {
    let config = from_file("[transport.my_site]\n").unwrap();
    assert_eq!(config.transport(&"my_site".parse().unwrap()).unwrap().protocol, Protocol::Lmtp);
    assert_eq!(config.destination("my_site:mx1").unwrap().to_string(), "my_site:inet:mx1:24");

    let config = from_environment(&[
        ("LASTMILE_TRANSPORT__OUT__PROTOCOL", "smtp"),
        ("LASTMILE_TRANSPORT__OUT__TCP_PORT", "587"),
    ])
    .unwrap();
    let out = config.transport(&"out".parse().unwrap()).unwrap();
    assert_eq!((out.protocol, out.line_length_limit), (Protocol::Smtp, 998));
    // A port that somebody set goes before services(5), which lists smtp nearly everywhere.
    assert_eq!(config.destination("out:relay").unwrap().to_string(), "out:inet:relay:587");
    assert_eq!(config.destination("smtp:relay").unwrap().to_string(), "smtp:inet:relay:25");

    let file = "[transport.my_site]\nprotocol = \"lmtp\"";
    let environment = [("LASTMILE_TRANSPORT__MY_SITE__MAX_USE", "7")];
    let config = Given { file, environment: &environment, overrides: &[] }.load().unwrap();
    assert_eq!(config.transport(&"my_site".parse().unwrap()).unwrap().max_use, 7);
}

#[test]
fn headers_that_name_the_recipient_force_one_per_transaction() {
    for (flags, limit) in [("", 50), ("RX", 50), ("D", 1), ("O", 1), ("R, D", 1)] {
        let config = from_options(&[&format!("transport.lmtp.flags={flags}")]).unwrap();
        let lmtp = config.transport(&"lmtp".parse().unwrap()).unwrap();
        assert_eq!(lmtp.effective_recipient_limit(), limit, "{flags}");
    }
}

#[test]
fn connections_leave_from_the_address_of_their_family() {
    let config = from_options(&["transport.lmtp.bind_address=[::1], 127.0.0.2"]).unwrap();
    let lmtp = config.transport(&"lmtp".parse().unwrap()).unwrap();
    let own = |peer: &str| lmtp.bind_address_for(peer.parse().unwrap()).map(|own| own.to_string());
    assert_eq!(
        (own("192.0.2.1").as_deref(), own("2001:db8::1").as_deref()),
        (Some("127.0.0.2"), Some("::1"))
    );
    assert_eq!(lmtp.inet_protocols, InetProtocols::All);
}

#[test]
fn the_most_particular_route_wins() {
    let config = from_file(
        r#"
        myorigin = "Origin.example"
        default_transport = "lmtp:default"
        [routes]
        "User@Example.org" = "lmtp:address"
        "example.org" = "lmtp:domain"
        ".example.org" = "lmtp:below"
        ".deep.example.org" = "smtp:deep"
        "origin.example" = "lmtp:origin"
        ".net" = "lmtp:net"
        "#,
    )
    .unwrap();
    let table = [
        ("user@example.org", "lmtp:inet:address:24"),
        ("USER@EXAMPLE.ORG", "lmtp:inet:address:24"),
        ("other@example.org", "lmtp:inet:domain:24"),
        ("user@a.example.org", "lmtp:inet:below:24"),
        ("user@a.b.example.org", "lmtp:inet:below:24"),
        ("user@deep.example.org", "lmtp:inet:below:24"),
        ("user@a.deep.example.org", "smtp:inet:deep:25"),
        ("user", "lmtp:inet:origin:24"),
        ("user@example.net", "lmtp:inet:net:24"),
        ("user@net", "lmtp:inet:default:24"),
        ("user@notexample.org", "lmtp:inet:default:24"),
        ("user@elsewhere.example", "lmtp:inet:default:24"),
    ];
    for (recipient, nexthop) in table {
        assert_eq!(config.route(&recipient.parse().unwrap()).to_string(), nexthop, "{recipient}");
    }
    let config = from_options(&["routes={ \"*\" = \"lmtp:rest\", 'a.example' = \"lmtp:a\" }"]).unwrap();
    for (recipient, nexthop) in [("u@a.example", "lmtp:inet:a:24"), ("u@b.a.example", "lmtp:inet:rest:24")] {
        assert_eq!(config.route(&recipient.parse().unwrap()).to_string(), nexthop, "{recipient}");
    }
}

#[test]
fn tables_given_as_a_whole_replace_those_of_the_file() {
    let file = "[routes]\n\"a.example\" = \"lmtp:a\"\n[aliases]\nroot = \"a@example.org\"";
    let given = Given {
        file,
        environment: &[("LASTMILE_ROUTES", "{ \"b.example\" = \"lmtp:b\" }")],
        overrides: &["aliases={ postmaster = \"b@example.org, c\" }"],
    };
    let config = given.load().unwrap();
    assert_eq!(config.route(&"u@b.example".parse().unwrap()).to_string(), "lmtp:inet:b:24");
    assert_eq!(config.route(&"u@a.example".parse().unwrap()), config.default_transport);
    assert_eq!(config.aliases.lookup("root"), None);
    assert_eq!(config.aliases.lookup("Postmaster").map(<[Address]>::len), Some(2));
    for text in ["", "a", "{", "{}\nworkers = 1", "[]", "{ a = { b = 1 } }"] {
        assert!(from_options(&[&format!("routes={text}")]).is_err(), "{text:?}");
    }
    assert!(from_options(&["routes={}"]).is_ok());
}

#[test]
fn aliases_are_asked_without_regard_to_case_and_fall_back_to_the_star() {
    let config =
        from_file("[aliases]\nRoot = [\"a@example.org\", \"b\"]\n\"*\" = \"rest@example.org\"").unwrap();
    let lookup =
        |name| config.aliases.lookup(name).unwrap().iter().map(Address::to_string).collect::<Vec<_>>();
    assert_eq!(lookup("root"), ["a@example.org", "b"]);
    assert_eq!(lookup("ROOT"), ["a@example.org", "b"]);
    assert_eq!(lookup("nobody"), ["rest@example.org"]);
    assert_eq!(Config::default().aliases.lookup("root"), None);
}

/// Another value for each key of the agent.
const OTHER_VALUES: &str = "queue_directory=/q user=u group=g chroot=/c workers=9 workers_reserved=1 \
    active_limit=9 default_transport=/run/other myhostname=m.example myorigin=o.example trusted_users=t \
    message_size_limit=9 queue_minfree=9 minimal_backoff_time=9 maximal_backoff_time=9h queue_run_delay=9 \
    maximal_queue_lifetime=9 bounce_queue_lifetime=9 delay_warning_time=9 bounce_nexthop=/run/other \
    notify_classes=delay error_notice_recipient=e syslog_name=s log_target=syslog shutdown_timeout=9 \
    routes={'a'='b'} aliases={'a'='b'}";

#[test]
fn the_listing_of_check_is_a_configuration_with_the_same_effect() {
    let config = Given {
        file: "[routes]\n'\"a b\"@x.org' = \"lmtp:mx1\"\n[aliases]\nroot = [\"a@x\", \"b@x\"]\n[transport.x]",
        environment: &[("LASTMILE_WORKERS", "9")],
        overrides: &["transport.x.flags=DR", "trusted_users=a b"],
    };
    let config = config.load().unwrap_or_else(|said| panic!("{said:?}"));
    let listing = check::listing(&config);
    assert!(listing.contains("workers = \"9\""), "{listing}");
    assert!(listing.contains("# environment LASTMILE_WORKERS\n"), "{listing}");
    let again = from_file(&listing).unwrap();
    let typed = |config: &Config| {
        let transports: Vec<_> = config.transports().cloned().collect();
        (
            config.routes.clone(),
            config.aliases.clone(),
            transports,
            config.workers,
            config.trusted_users.clone(),
        )
    };
    assert_eq!(typed(&again), typed(&config));
    let values = |config: &Config| -> Vec<(String, String)> {
        config.settings().iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    assert_eq!(values(&again), values(&config));
}

#[test]
fn check_warns_of_what_is_possible_but_not_meant() {
    let given = Given {
        overrides: &[
            "user=no-such-user",
            "trusted_users=nobody-else root 54321",
            "queue_directory=/nonexistent/queue",
            "default_transport=unix:/nonexistent/lmtp",
            "myhostname=short",
            "workers=8",
            "workers_reserved=4",
            "queue_run_delay=1h",
            "delay_warning_time=6d",
            "queue_minfree=1M",
            "transport.lmtp.data_done_timeout=5s",
            "transport.lmtp.flags=D",
            "transport.lmtp.destination_recipient_limit=10",
            "transport.lmtp.destination_concurrency_limit=9",
        ],
        ..Given::default()
    };
    let warnings = check::warnings(&given.load().unwrap(), &given.sources("/dev/null".into())).join("\n");
    for word in [
        "no user \"no-such-user\"",
        "trusted_users: this machine has no user \"nobody-else\"",
        "queue_directory: /nonexistent/queue is not there",
        "no server at /nonexistent/lmtp: No such file",
        "myhostname: \"short\" is not fully qualified",
        "workers_reserved: no more than an eighth of the workers, 1,",
        "queue_run_delay is longer",
        "nobody is ever warned",
        "one message can fill the disk",
        "transport.lmtp.data_done_timeout is below a minute",
        "transport.lmtp.destination_recipient_limit has no effect",
        "transport.lmtp.destination_concurrency_limit: 9 cannot be reached with 8 workers",
    ] {
        assert!(warnings.contains(word), "{word:?} in {warnings}");
    }
    assert_eq!(warnings.matches("no user").count(), 2, "a number is a uid: {warnings}");
    assert_eq!(warnings.lines().count(), 12, "{warnings}");
}

#[test]
fn a_complaint_ends_with_what_it_means() {
    let sources =
        Sources { file: Some("/dev/null".into()), overrides: vec!["workers=0".into()], ..Sources::default() };
    assert_eq!(
        check::complaint(&Config::load(&sources).unwrap_err()),
        "lastmile: error: workers = \"0\" (option -o): a whole number from 1 to 4096 is needed\n\
         lastmile: nothing starts with this configuration until this is mended\n"
    );
}

proptest! {
    #[test]
    fn no_option_panics(option in "(workers|routes|aliases|transport\\.lmtp\\.flags|max_idle|)=?.{0,40}") {
        let _ = from_options(&[&option]);
    }

    #[test]
    fn no_file_panics(file in "([a-z.\\[\\]\"']{0,12} ?=? ?[\\PC]{0,12}\n?){0,4}") {
        let _ = from_file(&file);
    }
}

#[test]
fn nesting_without_end_is_refused() {
    for file in [
        format!("a{} = 1", ".a".repeat(100_000)),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("routes = \"{}\"", "{a=".repeat(100_000)),
        format!("[a{}]", ".a".repeat(100_000)),
    ] {
        assert_eq!(from_file(&file).map_err(|said| said.len()).err(), Some(1), "{}", &file[..20]);
    }
}
