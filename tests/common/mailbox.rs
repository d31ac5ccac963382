//! Maildirs, and what a server adds to a message on its way in.
//!
//! - Owns: reading what was stored, and comparing it with what was submitted.
//! - Leaves to others: who stored it (Dovecot, our own sink).
//! - Always true: a comparison is of octets; only headers that were named, in front, may be added.

use std::fs;
use std::path::Path;

/// Directories below each other in a Maildir tree.
const DEPTH_MAX: u32 = 6;

/// Every message in the Maildirs in and below `directory`, in no order.
pub fn messages(directory: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    collect(directory, DEPTH_MAX, &mut found);
    found
}

fn collect(directory: &Path, depth: u32, found: &mut Vec<Vec<u8>>) {
    assert!(depth > 0, "{} is deeper than any Maildir", directory.display());
    // Not there yet, which is what is waited for; a file may move from new/ to cur/ while we look.
    let Ok(entries) = fs::read_dir(directory) else { return };
    let holds_mail = directory.file_name().is_some_and(|name| name == "new" || name == "cur");
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, depth - 1, found);
        } else if holds_mail {
            found.extend(fs::read(&path));
        }
    }
}

/// Fails unless `stored` is `submitted` with LF line endings, after header fields that are named in `added`.
#[track_caller]
pub fn assert_same(stored: &[u8], submitted: &[u8], added: &[&str]) {
    let mut expected = with_lf(submitted);
    if !expected.ends_with(b"\n") {
        // SMTP carries lines; the last one gets its end.
        expected.push(b'\n');
    }
    let Some(front) = stored.strip_suffix(&expected[..]) else {
        let at = first_difference(stored, &expected);
        panic!(
            "the stored message differs from the submitted one {at} octets before the end:\n{:?}\n{:?}",
            String::from_utf8_lossy(around(stored, at)),
            String::from_utf8_lossy(around(&expected, at)),
        );
    };
    let front = str::from_utf8(front).unwrap();
    assert!(front.is_empty() || front.ends_with('\n'), "added in front of the first line: {front:?}");
    for line in front.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let name = line.split_once(':').map_or(line, |(name, _)| name);
        assert!(added.iter().any(|added| name.eq_ignore_ascii_case(added)), "added in front: {line:?}");
    }
}

/// The value of the first header field of that name, unfolded.
pub fn header(message: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(message).replace("\r\n", "\n");
    let head = text.split("\n\n").next()?.replace("\n ", " ").replace("\n\t", " ");
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn with_lf(octets: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(octets.len());
    for (at, &octet) in octets.iter().enumerate() {
        if octet != b'\r' || octets.get(at + 1) != Some(&b'\n') {
            lines.push(octet);
        }
    }
    lines
}

/// Octets, counted from the end, in which both agree.
fn first_difference(left: &[u8], right: &[u8]) -> usize {
    left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count()
}

/// Some octets on both sides of a place counted from the end.
fn around(octets: &[u8], from_end: usize) -> &[u8] {
    let at = octets.len().saturating_sub(from_end);
    &octets[at.saturating_sub(60)..(at + 60).min(octets.len())]
}
