//! What one call does, as strace(1) and callgrind see it.
//!
//! - Owns: running a call under them, and what is read from their files.
//! - Leaves to others: the call (`way`).
//! - Always true: children that the command starts count too; where the tool is missing there is no figure.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};

use crate::way::Way;

/// System calls that put a file on disk, or give it a name.
const NAMING_AND_SYNCING: &str = "trace=rename,renameat,renameat2,link,linkat,fsync,fdatasync,syncfs,sync";

/// How many system calls it makes, from the exec on.
pub fn system_calls(way: &Way) -> Option<u64> {
    let text = run(way, "strace", |file| ["-f".into(), "-c".into(), "-o".into(), file.into()].into())?;
    // Share, seconds, microseconds each, calls, errors where there are any, `total`.
    let line = text.lines().rev().find(|line| line.ends_with("total")).expect("strace -c writes a total");
    Some(line.split_whitespace().nth(3).unwrap().parse().unwrap())
}

/// What it syncs after the message has its final name. A way that syncs no file does not keep what it promises, and ends
/// the measurement.
pub fn syncs(way: &Way) -> Option<Vec<String>> {
    let arguments =
        |file: &str| ["-f", "-y", "-e", NAMING_AND_SYNCING, "-o", file].map(OsString::from).into();
    let text = run(way, "strace", arguments)?;
    let lines: Vec<_> = text.lines().collect();
    let renamed =
        lines.iter().rposition(|line| line.contains("rename")).expect("a message gets its name last");
    let synced: Vec<_> = lines[renamed..].iter().filter_map(|line| synced(line)).collect();
    assert!(synced.iter().any(|name| name.contains("/<")), "{} does not sync its message: {text}", way.name);
    Some(synced)
}

/// `PID fsync(13</queue/active/ID>) = 0`: which directory, or the directory of which file.
fn synced(line: &str) -> Option<String> {
    let (call, rest) = line.split_whitespace().nth(1)?.split_once('(')?;
    if !call.contains("sync") || !line.ends_with("= 0") {
        return None;
    }
    let path = rest.split_once('<')?.1.split('>').next()?;
    let (directory, name) = path.rsplit_once('/')?;
    // Directories of a queue have names, messages have numbers.
    Some(if name.bytes().any(|octet| octet.is_ascii_digit()) {
        format!("{call} {}/<file>", directory.rsplit('/').next()?)
    } else {
        format!("{call} {name}/")
    })
}

/// Instructions that it runs in user mode.
pub fn instructions(way: &Way) -> Option<u64> {
    let text = run(way, "valgrind", |file| {
        let output = format!("--callgrind-out-file={file}.%p");
        ["--tool=callgrind", "--trace-children=yes", "--log-file=/dev/null", &output]
            .map(OsString::from)
            .into()
    })?;
    let totals = |line: &str| line.strip_prefix("totals: ")?.trim().parse::<u64>().ok();
    Some(text.lines().filter_map(totals).sum())
}

/// Calls once under a tool; returns what the tool has written to its files.
fn run(way: &Way, tool: &str, arguments: impl FnOnce(&str) -> Vec<OsString>) -> Option<String> {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        return None;
    }
    let scratch = way.scratch();
    let mut prefix = vec![OsString::from(tool)];
    prefix.extend(arguments(scratch.join("trace").to_str().unwrap()));
    way.call_under(&prefix);
    let files = fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path());
    let text = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    fs::remove_dir_all(scratch).unwrap();
    Some(text)
}
