//! Settings from values: each fate of each parameter, and values that cannot be.
//!
//! - Owns: the table of parameters, held against what is read from them.
//! - Leaves to others: postconf(1) (`postconf`).
//! - Always true: no program is started here.

use super::super::table::Fate;
use super::*;

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
                table::When::Yes | table::When::YesWithoutLevel => ("Yes", "no"),
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
