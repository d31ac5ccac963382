//! The manual and the README, held against the program: what exists is described, what is described exists.
//!
//! - Owns: commands, options, Postfix's parameters, and the README's examples.
//! - Leaves to others: configuration keys (`config`), files that the README names (`tidy`).
//! - Always true: the program is asked what it takes, not a list of its options.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use lastmile::cli::sendmail::{Options, Role, UsageError};
use lastmile::config::{Config, Sources};
use lastmile::postfix::parameters::table::{Fate, Names, Row, Scope};
use tempfile::NamedTempFile;

const README: &str = include_str!("../../README.md");
const SENDMAIL_OPTIONS: &str = include_str!("../../src/cli/sendmail/options/parser.rs");

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man").join(name)
}

fn manual(name: &str) -> String {
    fs::read_to_string(page(name)).unwrap()
}

/// The options that a page names: `f` for `.Fl f`, `-listen` for `.Fl -listen`.
fn options_in(page: &str) -> BTreeSet<&str> {
    let mut options = BTreeSet::new();
    // Other macros of the line end an option's list of words: in ".Fl f Ar sender" only "f" is one.
    for line in page.lines().filter(|line| line.starts_with('.')) {
        for part in line.split("Fl ").skip(1) {
            let words = part.split_whitespace();
            options.extend(words.take_while(|word| !MACROS.contains(word)).filter(|word| *word != "|"));
        }
    }
    options
}

const MACROS: [&str; 12] = ["Ar", "Cm", "Ns", "Op", "Oc", "Oo", ",", ".", "No", "Li", "Pc", "="];

/// The README's code blocks in a language.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| line.trim_start() != "```").collect();
            if fence == language {
                blocks.push(block.join("\n"));
            }
        }
    }
    blocks
}

#[test]
fn every_command_and_option_is_in_the_manual() {
    let main = manual("lastmile.1");
    let mut missing = Vec::new();
    for command in lastmile::cli::command().get_subcommands() {
        let name = command.get_name();
        if !main.contains(&format!("\n.It Cm {name}\n")) && !main.contains(&format!("\n.It Cm {name} ")) {
            missing.push(format!("lastmile {name}"));
        }
        let own = page(&format!("lastmile-{name}.1"));
        let text = if own.exists() { fs::read_to_string(own).unwrap() } else { main.clone() };
        let described = options_in(&text);
        for argument in command.get_arguments() {
            let long = argument.get_long().map(|long| format!("-{long}"));
            let short = argument.get_short().map(String::from);
            let unknown = long.into_iter().chain(short).filter(|word| !described.contains(word.as_str()));
            missing.extend(unknown.map(|word| format!("lastmile {name} -{word}")));
        }
        // A command of commands, as `queue` is.
        for inner in command.get_subcommands() {
            if !text.contains(&format!("Cm {}", inner.get_name())) {
                missing.push(format!("lastmile {name} {}", inner.get_name()));
            }
            for long in inner.get_arguments().filter_map(clap::Arg::get_long) {
                if !described.contains(format!("-{long}").as_str()) {
                    missing.push(format!("lastmile {name} {} --{long}", inner.get_name()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "the manual does not know {missing:#?}");
}

#[test]
fn the_manual_of_the_sink_names_no_option_that_it_lacks() {
    let command = lastmile::cli::command();
    let sink = command.find_subcommand("sink").unwrap();
    let known: BTreeSet<_> =
        sink.get_arguments().filter_map(clap::Arg::get_long).map(|long| format!("-{long}")).collect();
    let text = manual("lastmile-sink.1");
    let invented: Vec<_> = options_in(&text).into_iter().filter(|option| !known.contains(*option)).collect();
    assert!(invented.is_empty(), "lastmile-sink.1 invents {invented:?}");
}

/// Whether sendmail has heard of an option, be it to obey, to ignore or to refuse it.
fn sendmail_knows(option: &str) -> bool {
    let arguments: Vec<OsString> = vec![option.into(), "1".into()];
    !matches!(Options::parse(Role::Sendmail, false, &arguments), Err(UsageError::Unknown(_)))
}

#[test]
fn the_manual_of_sendmail_has_the_options_that_sendmail_knows() {
    let text = manual("lastmile-sendmail.1");
    let mut described = options_in(&text);
    // The synopsis joins those without a value; "--" alone ends the options.
    assert!(described.remove("int") && described.remove("-"));
    for letter in ('0'..='z').filter(char::is_ascii_alphanumeric) {
        let known = sendmail_knows(&format!("-{letter}"));
        let in_manual = described.contains(letter.to_string().as_str());
        assert_eq!(in_manual, known, "-{letter}: in the manual {in_manual}, known to sendmail {known}");
    }
    let is_long = |word: &&str| word.len() > 2 && word[2..].bytes().all(|b| b.is_ascii_alphanumeric());
    let written: BTreeSet<_> =
        SENDMAIL_OPTIONS.split('"').filter(|word| word.starts_with("--")).filter(is_long).collect();
    let known: BTreeSet<_> =
        written.into_iter().filter(|option| sendmail_knows(option)).map(|option| &option[1..]).collect();
    let described: BTreeSet<_> = described.into_iter().filter(|option| option.starts_with('-')).collect();
    assert_eq!(described, known);
}

/// A row of the table of parameters, as lastmile-lmtp(8) has it.
fn entry(row: &Row) -> String {
    let heads = match row.names {
        [names] => format!(".It {}\n", head(names)),
        many => {
            let names: Vec<_> = many.iter().filter_map(|names| names.lmtp.or(names.smtp)).collect();
            format!(".It Xo\n.Cm {}\n.Xc\n", wrapped(&names.join(" , ")).replace(" ,\n", " ,\n.Cm "))
        }
    };
    let text = match row.fate {
        Fate::Refused(when) => format!("refused if {when}: {}.", row.about),
        Fate::Honoured { .. } | Fate::Accepted => format!("{}.", row.about),
    };
    let (first, rest) = text.split_at(1);
    let text = format!("{}{rest}", first.to_uppercase());
    format!("{heads}{}\n", text.split(". ").map(wrapped).collect::<Vec<_>>().join(".\n"))
}

/// The name of a parameter, and the one that it has in smtp(8) where that is more than another beginning.
fn head(names: &Names) -> String {
    match (names.lmtp, names.smtp) {
        (Some(lmtp), Some(smtp)) if smtp != lmtp.replacen("lmtp_", "smtp_", 1) => {
            format!("Cm {lmtp} Pq Cm {smtp}")
        }
        (lmtp, smtp) => format!("Cm {}", lmtp.or(smtp).unwrap()),
    }
}

/// Lines of a manual's source are short.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        match line.len() + word.len() {
            _ if line.is_empty() => line.push_str(word),
            // A comma never begins a line: it belongs to what it follows.
            0..72 => line.extend([" ", word]),
            _ if word == "," => line.push_str(" ,"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[test]
fn the_manual_of_the_postfix_service_has_the_table_of_parameters() {
    let page = manual("lastmile-lmtp.8");
    let list = |heading: &str, scopes: &[Scope], belongs: fn(&Fate) -> bool| {
        let start = page.find(&format!("\n.Ss {heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
        let list = page[start..].split_once(".Bl -tag -width Ds\n").unwrap().1.split_once(".El\n").unwrap().0;
        let rows = scopes.iter().flat_map(|scope| scope.rows()).filter(|row| belongs(&row.fate));
        let expected: String = rows.map(entry).collect();
        assert!(!expected.is_empty() && list == expected, "{heading} should be:\n{expected}");
    };
    let is_honoured = |fate: &Fate| matches!(fate, Fate::Honoured { .. });
    let postfix = [Scope::Client, Scope::Service];
    list("Parameters of the client", &[Scope::Client], is_honoured);
    list("Parameters of Postfix as a whole", &[Scope::Service], is_honoured);
    list("Parameters of our own", &[Scope::Own], |_| true);
    list("Parameters without effect", &postfix, |fate| matches!(fate, Fate::Accepted));
    list("Values that are refused", &postfix, |fate| matches!(fate, Fate::Refused(_)));
}

/// The command that a line of a shell starts, if that is lastmile.
fn command_of(line: &str) -> Option<&str> {
    let words: Vec<_> = line.split_whitespace().collect();
    let is_lastmile = |word: &str| word == "lastmile" || word.ends_with("/lastmile");
    let starts_here = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| words.get(at)).copied();
        matches!(before, None | Some("sudo" | "|" | "$(" | "&&")) || before.is_some_and(|b| b.contains('='))
    };
    let at = words.iter().enumerate().find_map(|(at, word)| {
        let by_cargo = *word == "--" && words.starts_with(&["cargo", "run"]);
        (by_cargo || is_lastmile(word) && starts_here(at)).then_some(at + 1)
    })?;
    words.get(at).copied().filter(|word| !word.starts_with('-'))
}

#[test]
fn the_shell_examples_of_the_readme_use_commands_that_exist() {
    let command = lastmile::cli::command();
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    let used: Vec<_> = lines.filter_map(command_of).collect();
    assert!(used.contains(&"sendmail") && used.contains(&"agent"), "the examples were not found: {used:?}");
    let unknown: Vec<_> = used.into_iter().filter(|word| command.find_subcommand(word).is_none()).collect();
    assert!(unknown.is_empty(), "the README uses {unknown:?}");
}

#[test]
fn commands_are_found_in_shell_lines() {
    for (line, command) in [
        ("lastmile agent", Some("agent")),
        ("    sudo lastmile check -c x", Some("check")),
        ("cargo run --release -- sink --discard", Some("sink")),
        ("target/debug/lastmile sendmail a@b < x", Some("sendmail")),
        ("printf x | lastmile sendmail a@b", Some("sendmail")),
        ("LASTMILE_LOG=debug lastmile agent", Some("agent")),
        ("lastmile --version", None),
        ("sudo systemctl enable --now lastmile", None),
        ("chown lastmile: /tmp/x", None),
    ] {
        assert_eq!(command_of(line), command, "{line}");
    }
}

#[test]
fn the_configurations_of_the_readme_can_be_used() {
    let blocks = blocks("toml");
    assert!(!blocks.is_empty(), "the README shows no configuration");
    for block in blocks {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), &block).unwrap();
        let sources = Sources { file: Some(file.path().into()), environment: vec![], overrides: vec![] };
        Config::load(&sources).unwrap_or_else(|error| panic!("{block}\n{error}"));
    }
}
