//! Rules that the compiler does not know: who may import whom, what pure means, what every file starts with.
//!
//! - Owns: the import table, and the habits that hold for every file.
//! - Leaves to others: formatting and lints (rustfmt, clippy).
//! - Always true: a violation is named by file and line, all of them at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each folder below src/ may import from `crate::`. A change of the architecture is a change of this table.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("system", &[]),
    ("mail", &[]),
    ("smtp", &["mail"]),
    ("queue", &["mail"]),
    ("notice", &["mail", "smtp"]),
    ("config", &["mail", "smtp", "queue"]),
    ("net", &["mail", "smtp", "config"]),
    ("spool", &["mail", "queue", "config"]),
    ("postfix", &["system", "mail", "queue", "config"]),
    ("sink", &["mail", "smtp"]),
    ("agent", &["system", "mail", "smtp", "queue", "notice", "config", "net", "spool", "postfix", "sink"]),
    (
        "cli",
        &["system", "mail", "smtp", "queue", "notice", "config", "net", "spool", "postfix", "sink", "agent"],
    ),
];

/// Folders and files that compute and do nothing else: bytes and times come in, bytes and decisions go out.
const PURE: &[&str] = &[
    "src/mail/",
    "src/smtp/",
    "src/queue/",
    "src/notice/",
    "src/postfix/address.rs",
    "src/postfix/attribute.rs",
    "src/postfix/content.rs",
    "src/postfix/lines.rs",
    "src/postfix/options.rs",
    "src/postfix/status.rs",
    "src/postfix/request.rs",
    "src/postfix/request/",
    "src/postfix/seven_bit.rs",
    "src/postfix/seven_bit/",
    "src/postfix/record.rs",
    "src/postfix/report/call.rs",
    "src/postfix/report/decision.rs",
    "src/postfix/report/decision/",
    "src/postfix/report/log_line.rs",
    "src/postfix/report/notice.rs",
    "src/postfix/report/stamps.rs",
];

/// What pure code does not name. Addresses (`IpAddr` and its kin) are values and are fine.
const IMPURE: &[&str] = &[
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "ToSocketAddrs",
    "socket2",
    "rustix",
    "nix",
    "signal_hook",
    "crossbeam_channel",
    "tempfile",
    "std::fs",
    "io::stdin",
    "io::stdout",
    "io::stderr",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// A file that grows past this holds more than one thing.
const LINES_MAX: usize = 800;
/// Columns of rustfmt.toml; strings and comments may need a few more.
const COLUMNS_MAX: usize = 130;

/// One source file of ours.
struct Source {
    /// Relative to the root, with slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_under(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// The lines outside of the unit tests, numbered from 1, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<_> = self.text.lines().collect();
        let starts_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
        let is_test_file = ["/tests.rs", "/model.rs"].iter().any(|name| self.path.ends_with(name))
            || self.path.contains("/tests/");
        let count = match lines.windows(2).position(starts_tests) {
            _ if is_test_file => 0,
            Some(at) => at,
            None => lines.len(),
        };
        let numbered = lines.into_iter().take(count).enumerate();
        numbered.map(|(at, line)| (at + 1, without_comment(line)))
    }

    fn at(&self, line: usize, complaint: impl std::fmt::Display) -> String {
        format!("{}:{line}: {complaint}", self.path)
    }
}

/// A line up to its comment. A string that holds `//` behind a blank is cut short too, which hides nothing we look for.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.find(" // ").map_or(line, |at| &line[..at])
}

/// Whether `text` holds `word`, not as part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// The names after each `PREFIX::` in `text`, those of a braced list included: `crate::{a, b::C}` gives a and b.
fn imported<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let first = |path: &'a str| path.trim().split([':', ' ', ';', ',', '}', '(', ')', '<', '>']).next();
    let mut names = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.extend(first(rest)),
            Some(list) => names.extend(outer_items(list).into_iter().filter_map(first)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The items of a braced list up to its closing brace; commas in inner braces separate nothing.
fn outer_items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` that ends in `extension` (any, where that is empty), sorted.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        // A folder that is not there yet has no files.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            // What cargo-fuzz builds is not ours.
            if path.ends_with("tests/fuzz/target") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Our Rust files in these folders.
fn sources(folders: &[&str]) -> Vec<Source> {
    let paths = folders.iter().flat_map(|folder| files(folder, ".rs"));
    let sources: Vec<_> = paths
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(),
        })
        .collect();
    assert!(!sources.is_empty(), "no Rust files in {folders:?}");
    sources
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn folders_import_only_what_the_table_allows() {
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        let Some((folder, _)) = source.path.strip_prefix("src/").and_then(|path| path.split_once('/')) else {
            continue;
        };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == folder) else {
            complaints.push(source.at(1, format_args!("the import table has no folder {folder}")));
            continue;
        };
        // Unit tests too: what they need tells what the code belongs to. Line by line would miss lists that rustfmt
        // breaks, so the whole file is looked at.
        let code: String = source.text.lines().flat_map(|line| [without_comment(line), "\n"]).collect();
        for name in imported(&code, "crate::") {
            let is_folder = MAY_IMPORT.iter().any(|(folder, _)| *folder == name);
            if name != folder && is_folder && !allowed.contains(&name) {
                complaints.push(format!("{}: {folder} may not import {name}", source.path));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_folder_is_in_the_import_table_and_in_the_library() {
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut complaints = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !MAY_IMPORT.iter().any(|(folder, _)| *folder == name) {
            complaints.push(format!("src/{name} is not in the import table"));
        }
        if path.is_dir() && !has_word(&library, &format!("mod {name}")) {
            complaints.push(format!("src/{name} is no module of src/lib.rs"));
        }
    }
    assert_none(&complaints);
}

#[test]
fn pure_code_does_no_io_and_asks_no_clock() {
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        if !PURE.iter().any(|pure| source.is_under(pure)) {
            continue;
        }
        for (at, line) in source.code() {
            let named = IMPURE.iter().filter(|word| has_word(line, word));
            complaints.extend(named.map(|word| source.at(at, format_args!("pure code names {word}"))));
        }
        // `use std::{fs, io}` names them without their path.
        let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
        for name in imported(&code, "std::{").into_iter().chain(imported(&code, "std::")) {
            if ["fs", "env", "process", "thread", "os"].contains(&name) {
                complaints.push(format!("{}: pure code imports std::{name}", source.path));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let complaints: Vec<_> = sources(&["src", "tests", "benches"])
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.at(1, "starts without a `//!` header"))
        .collect();
    assert_none(&complaints);
}

#[test]
fn nothing_outside_of_tests_panics_on_purpose() {
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        for (at, line) in source.code() {
            for call in [
                ".unwrap()",
                ".unwrap_err()",
                ".expect(",
                ".expect_err(",
                "panic!(",
                "todo!(",
                "unimplemented!(",
            ] {
                let has_reason = at > 1
                    && source.text.lines().nth(at - 2).is_some_and(|above| above.contains("// Infallible: "));
                if line.contains(call) && !has_reason {
                    complaints.push(source.at(at, format_args!("{call} outside of tests")));
                }
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn lines_and_files_have_a_bound_and_no_trailing_blanks() {
    let mut complaints = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        let count = source.text.lines().count();
        if count > LINES_MAX {
            complaints.push(source.at(count, format_args!("more than {LINES_MAX} lines")));
        }
        if !source.text.ends_with('\n') || source.text.ends_with("\n\n") {
            complaints.push(source.at(count, "does not end with exactly one line end"));
        }
        for (at, line) in source.text.lines().enumerate() {
            if line.contains('\t') {
                complaints.push(source.at(at + 1, "holds a tab"));
            }
            if line.ends_with(' ') || line.ends_with('\r') {
                complaints.push(source.at(at + 1, "ends with a blank"));
            }
            if line.chars().count() > COLUMNS_MAX {
                complaints.push(source.at(at + 1, format_args!("more than {COLUMNS_MAX} columns")));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_exception_has_its_reason_beside_it() {
    let mut complaints = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        let lines: Vec<_> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            let is_lint = ["allow(", "expect("].iter().any(|lint| {
                line.strip_prefix("#[")
                    .or_else(|| line.strip_prefix("#!["))
                    .is_some_and(|l| l.starts_with(lint))
            });
            // rustfmt may break a long attribute; its reason stands in it all the same.
            let attribute = lines[at..lines.len().min(at + 6)].join(" ");
            let attribute = attribute.split(")]").next().unwrap_or_default();
            let is_explained = at > 0 && lines[at - 1].trim_start().starts_with("// ");
            if is_lint && !is_explained && !attribute.contains("reason = ") {
                complaints.push(source.at(at + 1, "a lint is lifted without a reason"));
            }
            if line == "#[ignore]" {
                complaints.push(source.at(at + 1, "a test is ignored without a reason"));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn nothing_is_known_of_the_machine_it_was_written_on() {
    let mut complaints = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        for (at, line) in source.text.lines().enumerate() {
            // Spelled in pieces: this file is looked at too.
            for word in [
                concat!("/wo", "rk/"),
                concat!("/ro", "ot/"),
                concat!("design", ".md"),
                concat!("style", ".md"),
            ] {
                if line.contains(word) {
                    complaints.push(source.at(at + 1, format_args!("mentions {word}")));
                }
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_dialogue_is_played() {
    let players: String = sources(&["tests/it"]).into_iter().map(|source| source.text).collect();
    // A player that reads the whole directory plays every file in it.
    let plays_all = players.contains(concat!("read_dir(\"tests", "/dialogues\")"))
        || players.contains(concat!("join(\"tests", "/dialogues\")"));
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let complaints: Vec<_> = files("tests/dialogues", "")
        .iter()
        .map(name)
        .filter(|name| !name.ends_with(".txt") || !(plays_all || players.contains(name.as_str())))
        .map(|name| format!("tests/dialogues/{name} is played by no test"))
        .collect();
    assert_none(&complaints);
}

/// The words that follow `lastmile` at the start of a command line in the README's code blocks.
fn commands_in(readme: &str) -> BTreeSet<&str> {
    let mut commands = BTreeSet::new();
    // A shell's code: a configuration may have lines that begin like a command.
    let mut is_code = false;
    for line in readme.lines() {
        if line.trim_start().starts_with("```") {
            is_code = line.trim_end().ends_with("```sh");
            continue;
        }
        let line =
            line.trim_start().trim_start_matches("$ ").trim_start_matches("# ").trim_start_matches("sudo ");
        let command = line.strip_prefix("lastmile ").and_then(|rest| rest.split_whitespace().next());
        if let Some(command) = command.filter(|command| is_code && !command.starts_with('-')) {
            commands.insert(command);
        }
    }
    commands
}

#[test]
fn the_commands_of_the_readme_exist() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else {
        assert!(!root().join("README.md").exists(), "README.md cannot be read");
        return;
    };
    let mut complaints = Vec::new();
    for command in commands_in(&readme) {
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_lastmile"))
            .args([command, "--help"])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        if !help.status.success() || !String::from_utf8_lossy(&help.stdout).contains(command) {
            complaints.push(format!("README.md: `lastmile {command}` does not exist: {help:?}"));
        }
    }
    // A file that the README names has to be there.
    let is_ours = |word: &&str| ["tests/", "packaging/", "etc/"].iter().any(|start| word.starts_with(start));
    for word in readme.split([' ', '`', '\n', '(', ')']).filter(is_ours).filter(|word| !word.contains('*')) {
        if !root().join(word.trim_end_matches(['.', ',', ':'])).exists() {
            complaints.push(format!("README.md: {word} does not exist"));
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_rules_find_what_they_look_for() {
    assert_eq!(
        imported("use crate::{mail, smtp::{Stage, Reply}, queue::Job};", "crate::"),
        ["mail", "smtp", "queue"]
    );
    assert_eq!(imported("let x = crate::net::connect();\nuse crate::spool;\n", "crate::"), ["net", "spool"]);
    assert_eq!(imported("pub(crate) fn x() {}", "crate::"), Vec::<&str>::new());
    assert_eq!(imported("use std::{fmt, fs, io::{self, Read}};", "std::"), ["fmt", "fs", "io"]);
    assert!(has_word("use std::fs::File;", "std::fs") && !has_word("std::fsx", "std::fs"));
    assert!(has_word("let now = Instant::now();", "Instant::now"));
    assert_eq!(without_comment("    // std::fs"), "");
    assert_eq!(without_comment("let a = 1; // std::fs"), "let a = 1;");
    let readme = "lastmile prose\n```sh\n$ lastmile agent\nsudo lastmile queue list\nlastmile --help\n```\n\
                  ```\nlastmile unix\n```\n";
    assert_eq!(commands_in(readme).into_iter().collect::<Vec<_>>(), ["agent", "queue"]);
}
