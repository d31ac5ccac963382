//! postconf(1) as it is installed, and programs in its place that misbehave.
//!
//! - Owns: how main.cf reaches settings; the table of parameters, held against what an installed Postfix knows.
//! - Leaves to others: values (`settings`, `values`).
//! - Always true: tests that need Postfix pass with a line that says so where it is not installed.

use super::super::Settings;
use super::super::table::{Scope, names};
use std::io::Write;
use std::time::SystemTime;

use super::*;
use crate::config::Flags;
use crate::mail::Protocol;

const INSTALLED: &str = "/usr/sbin/postconf";

/// Whether there is a postconf to ask; else says that the test is skipped.
fn is_installed() -> bool {
    let is_there = Path::new(INSTALLED).is_file();
    if !is_there {
        println!("skipped: {INSTALLED} is not there");
    }
    is_there
}

/// A directory with a main.cf, and an empty master.cf.
fn configured(main_cf: &str) -> (tempfile::TempDir, Source) {
    let directory = tempfile::tempdir().unwrap();
    let mut file = File::create(directory.path().join("main.cf")).unwrap();
    file.write_all(main_cf.as_bytes()).unwrap();
    // Postfix reads a file that was written in the last seconds until it has rested.
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    std::fs::write(directory.path().join("master.cf"), "").unwrap();
    let source = Source { config_directory: directory.path().into(), overrides: Vec::new() };
    (directory, source)
}

fn overrides(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn values_are_expanded_and_overrides_win() {
    if !is_installed() {
        return;
    }
    let main_cf = "\
        compatibility_level = 3.6\nmyhostname = mx.example.org\nbase = 1\n# a comment\n\n  7\n\
        lmtp_mail_timeout = ${base}s\nlmtp_rcpt_timeout = ${nope:19s}\n\
        lmtp_data_init_timeout = ${{3} < {10} ? {21s} : {22s}}\nlmtp_lhlo_name = lmtp.$myhostname\n\
        lastmile_workers = $base\nlmtp_rset_timeout = 23s\n";
    let (_directory, mut source) = configured(main_cf);
    source.overrides = overrides(&[
        ("lmtp_rset_timeout", "$other"),
        ("other", "1m"),
        ("base", "9"),
        ("lastmile_chunking", "${none?x}no"),
    ]);
    let settings = Settings::read(&source, Protocol::Lmtp, Flags::default()).unwrap();
    let transport = settings.config.transport(&settings.transport).unwrap();
    let limits = &transport.timeouts;
    let told = [limits.mail, limits.rcpt, limits.data_init, limits.rset].map(|limit| limit.get().as_secs());
    assert_eq!(told, [9, 19, 21, 60]);
    assert_eq!(transport.habits.lhlo_name.as_deref(), Some("lmtp.mx.example.org"));
    assert_eq!((settings.config.workers, transport.chunking), (9, false));
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}

#[test]
fn what_nobody_set_has_the_defaults_of_the_installed_release() {
    if !is_installed() {
        return;
    }
    let (_directory, source) =
        configured("compatibility_level = 3.6\nmyhostname = mx.example.org\nfoo = bar\n");
    for protocol in [Protocol::Lmtp, Protocol::Smtp] {
        let settings = Settings::read(&source, protocol, Flags::default()).unwrap();
        let least = [
            ("mail_version", "3.7.11"),
            ("myhostname", "mx.example.org"),
            ("myorigin", "mx.example.org"),
            ("queue_directory", "/var/spool/postfix"),
            ("parent_domain_matches_subdomains", "fast_flush_domains"),
        ];
        let mut known =
            Settings::from_values(&least.into_iter().collect(), protocol, Flags::default()).unwrap();
        known.mail_version = settings.mail_version;
        // Releases before 3.6 know no ports.
        known.known_ports = settings.known_ports.clone();
        assert_eq!(settings, known);
    }
}

#[test]
fn the_table_has_every_parameter_of_the_installed_release() {
    if !is_installed() {
        return;
    }
    let output = Command::new(INSTALLED).arg("-d").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let defaults = Values::printed(&text);
    let mut counts = Vec::new();
    for (protocol, prefix) in [(Protocol::Lmtp, "lmtp_"), (Protocol::Smtp, "smtp_")] {
        let known: Vec<_> = names(protocol, Scope::Client).collect();
        let installed: Vec<_> = defaults.names().filter(|name| name.starts_with(prefix)).collect();
        let missing: Vec<_> = installed.iter().filter(|name| !known.contains(*name)).collect();
        assert!(missing.is_empty(), "the table does not know {missing:?}");
        counts.push(installed.len());
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
    let service: Vec<_> = names(Protocol::Lmtp, Scope::Service).collect();
    let invented: Vec<_> = service.into_iter().filter(|name| defaults.get(name).is_none()).collect();
    // Newer than some releases that are in use.
    let invented: Vec<_> = invented.into_iter().filter(|name| *name != "info_log_address_format").collect();
    assert!(invented.is_empty(), "Postfix does not know {invented:?}");
}

#[test]
fn what_postconf_cannot_read_is_told_in_its_words() {
    if !is_installed() {
        return;
    }
    let cases = [
        ("myhostname\n", "missing '='"),
        ("myhostname = $myorigin\nmyorigin = $myhostname\n", "macro processing error"),
        ("lmtp_lhlo_name = ${x\n", "macro processing error"),
    ];
    let tell = |(main_cf, words): (&str, &str)| {
        let (directory, source) = configured(main_cf);
        let told = Settings::read(&source, Protocol::Lmtp, Flags::default()).unwrap_err().to_string();
        let start =
            format!("{INSTALLED} could not read the configuration in {}: ", directory.path().display());
        assert!(told.starts_with(&start) && told.contains(words) && told.lines().count() == 1, "{told}");
    };
    // Postfix's programs wait a second before they give up.
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || tell(case));
        }
    });
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let source = Source { config_directory: "/nonexistent".into(), overrides: vec![] };
    let told = ask(&source, ["mail_version"], &[]).unwrap_err().to_string();
    assert!(told.starts_with("/nonexistent/main.cf cannot be read"), "{told}");
}

#[test]
fn the_command_is_where_main_cf_or_an_override_says() {
    let (directory, mut source) = configured("command_directory = /nonexistent\n");
    let told = ask(&source, ["mail_version"], &[]).unwrap_err().to_string();
    assert!(
        told.starts_with("there is no postconf command in /nonexistent; set command_directory in /"),
        "{told}"
    );
    std::os::unix::fs::symlink("/bin/true", directory.path().join("postconf")).unwrap();
    source.overrides = overrides(&[("command_directory", directory.path().to_str().unwrap())]);
    assert_eq!(find(&source).unwrap(), directory.path().join("postconf"));
    assert_eq!(ask(&source, ["mail_version"], &[]).unwrap(), Values::default());
}

#[test]
fn an_override_cannot_add_a_line() {
    let (_directory, mut source) = configured("");
    for (name, value) in [("", "x"), ("x", "1\nmail_owner = root")] {
        source.overrides = overrides(&[(name, value)]);
        let told = ask(&source, ["mail_version"], &[]).unwrap_err().to_string();
        assert!(told.starts_with(&format!("-o {name}: ")), "{told}");
    }
}

/// Runs a shell script in the place of postconf.
fn run(script: &str, limit: Duration) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Why> {
    let run = Run { command: Path::new("/bin/sh"), deadline: Instant::now() + limit };
    run.run(&["-c", script])
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn both_outputs_are_read_to_their_ends() {
    // More than a pipe holds.
    let script = "head -c 300000 /dev/zero >&2; head -c 200000 /dev/zero; exit 3";
    let (status, output, complaints) = run(script, LONG).unwrap();
    assert_eq!((status.code(), output.len(), complaints.len()), (Some(3), 200_000, 300_000));
}

#[test]
fn a_command_that_does_not_end_is_ended() {
    for script in ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000"] {
        let before = Instant::now();
        let told = run(script, Duration::from_millis(300)).unwrap_err().to_string();
        assert!(told.starts_with("/bin/sh cannot be run") && told.contains("timed out"), "{told}");
        assert!(before.elapsed() < LONG, "{:?}", before.elapsed());
    }
}

#[test]
fn a_command_that_prints_without_end_is_ended() {
    let told = run("exec yes", LONG).unwrap_err().to_string();
    assert!(told.contains("prints without end"), "{told}");
}

#[test]
fn the_last_complaint_that_is_fatal_is_told() {
    let (status, ..) = run("exit 1", LONG).unwrap();
    for (complaints, told) in [
        ("postconf: warning: a\npostconf: fatal: b\npostconf: warning: c\n", "b"),
        ("postconf: warning: a\n", "postconf: warning: a"),
        ("", "it ended with exit status: 1 and did not say why"),
    ] {
        assert_eq!(fatal_line(complaints, status), told);
    }
}
