//! One bit of a queue file that is not what it was.
//!
//! - Owns: what may become of such a file, told from what it literally says, by a reader of our own.
//! - Always true: a file is delivered as it literally says, or kept as it is with a log line, or bounced where it says
//!   that a bounce is owed; and no other file changes.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::server::Received;
use super::{files_in, id, prepared, put, queue_file};
use crate::common::agent::{SOON, Site};
use crate::common::long::short_or_long;
use crate::common::process::look_for;

const CONTENT: &str =
    "From: a@example.org\r\nSubject: flipped\r\n\r\n.a line that begins with a dot\r\nand a last one\r\n";

/// The file, and what it literally says.
struct Flipped {
    id: String,
    octets: Vec<u8>,
    bit: usize,
}

/// What a file says to somebody who believes it.
#[derive(Debug, PartialEq, Eq)]
struct Literal {
    sender: String,
    /// With their states.
    recipients: Vec<(String, u8)>,
    content: Vec<u8>,
}

impl Flipped {
    fn new(number: usize, bit: usize) -> Self {
        let id = id(number);
        let mut octets = original(&id);
        octets[bit / 8] ^= 1 << (bit % 8);
        Self { id, octets, bit }
    }

    /// Reads without any check but those that finding the parts needs; `None` where they cannot be found.
    fn literally(&self) -> Option<Literal> {
        let mut lines = self.octets.split(|&octet| octet == b'\n');
        lines.next()?;
        let head: Value = serde_json::from_slice(lines.next()?).ok()?;
        let states = lines.next()?;
        let count = usize::try_from(head["recipients"].as_u64()?).ok()?;
        let mut recipients = Vec::new();
        for state in states.get(1..)?.iter().take(count) {
            let line: Value = serde_json::from_slice(lines.next()?).ok()?;
            recipients.push((unquoted(line["address"].as_str()?), *state));
        }
        let size = usize::try_from(head["size"].as_u64()?).ok()?;
        let content = self.octets.get(self.octets.len().checked_sub(size)?..)?.to_vec();
        Some(Literal { sender: unquoted(head["sender"].as_str()?), recipients, content })
    }

    fn describe(&self) -> String {
        let at = self.bit / 8;
        let around = &self.octets[at.saturating_sub(10)..(at + 10).min(self.octets.len())];
        format!("{} (bit {} of octet {at}, \"…{}…\")", self.id, self.bit % 8, around.escape_ascii())
    }
}

/// Every file has recipients of its own; with its ID twice in them, no bit makes them another's.
fn recipients(id: &str) -> [String; 2] {
    ["b", "c"].map(|name| format!("{name}.{id}.{id}@example.org"))
}

/// An address without the quotes that an odd character in it asks for on the wire (RFC 5321 section 4.1.2).
fn unquoted(address: &str) -> String {
    address.replace(['"', '\\'], "")
}

fn original(id: &str) -> Vec<u8> {
    let [b, c] = recipients(id);
    queue_file(id, &[&b, &c], CONTENT).into_bytes()
}

/// Content as it comes over the wire: line ends are made what SMTP has.
fn on_the_wire(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, &octet) in content.iter().enumerate() {
        let (before, after) = (at.checked_sub(1).map(|at| content[at]), content.get(at + 1));
        match octet {
            b'\n' if before != Some(b'\r') => out.extend_from_slice(b"\r\n"),
            b'\r' if after != Some(&b'\n') => out.push(b' '),
            octet => out.push(octet),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A table of all bits for a long run; for a short one some of them, always the same.
fn bits() -> Vec<usize> {
    let all = original(&id(0)).len() * 8;
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let mut bits: Vec<_> = (0..all).collect();
    random.shuffle(&mut bits);
    bits.truncate(short_or_long(300, all));
    bits
}

#[test]
fn a_file_with_one_bit_flipped_is_delivered_as_it_says_or_kept_as_it_is() {
    // A flipped time of arrival makes some of them old, and those are tried all the same.
    let (site, server) = prepared("");
    let flipped: Vec<_> = bits().into_iter().enumerate().map(|(at, bit)| Flipped::new(at, bit)).collect();
    for file in &flipped {
        put(&site, &format!("active/{}", file.id), &file.octets);
    }
    let mut others = HashMap::new();
    for (number, place) in [(1, "hold"), (2, "corrupt")] {
        let name = id(900_000 + number);
        let path = put(&site, &format!("{place}/{name}"), original(&name));
        others.insert(path.clone(), fs::read(path).unwrap());
    }
    let agent = site.start_agent();
    let limit = short_or_long(SOON, Duration::from_secs(300));
    if look_for(limit, || (files_in(&site, "active").is_empty()).then_some(())).is_none() {
        panic!("{:?} stay in active/:\n{}", files_in(&site, "active"), site.log());
    }
    agent.stop();
    let (received, log) = (server.all(), site.log());
    let counts =
        flipped.iter().map(|file| judge(&site, &log, &received, file)).fold([0; 3], |mut counts, kind| {
            counts[kind as usize] += 1;
            counts
        });
    println!("{} delivered, {} kept, {} bounced", counts[0], counts[1], counts[2]);
    assert!(counts[0] > flipped.len() / 10 && counts[1] > flipped.len() / 10, "{counts:?} shows nothing");
    // Nothing came that is not accounted for.
    let bounces = received.iter().filter(|received| received.sender.is_empty()).count();
    let expected: usize = flipped.iter().map(|file| mail_for(&received, file).len()).sum();
    assert_eq!(received.len(), expected + bounces, "somebody got mail that nobody has sent");
    assert_eq!(bounces, counts[2]);
    for (path, octets) in others {
        assert!(fs::read(&path).is_ok_and(|found| found == octets), "{} was changed", path.display());
    }
    assert!(site.lines_with(&["panick"]).is_empty(), "{}", site.log());
}

#[derive(Clone, Copy)]
enum Kind {
    Delivered,
    Kept,
    Bounced,
}

/// Mail for those whom the file names now, or named before.
fn mail_for<'a>(received: &'a [Received], file: &Flipped) -> Vec<&'a Received> {
    let mut names = Vec::from(recipients(&file.id));
    names.extend(file.literally().into_iter().flat_map(|said| said.recipients).map(|(address, _)| address));
    let is_named = |to: &String| names.contains(&unquoted(to));
    let is_for =
        |received: &&Received| !received.sender.is_empty() && received.recipients.iter().any(is_named);
    received.iter().filter(is_for).collect()
}

fn judge(site: &Site, log: &str, received: &[Received], file: &Flipped) -> Kind {
    let what = file.describe();
    let told = |first: &str, second: &str| {
        log.lines().filter(|line| line.contains(first) && line.contains(second)).count()
    };
    let mail = mail_for(received, file);
    for place in ["corrupt", "hold"] {
        let Ok(kept) = fs::read(site.queue().join(place).join(&file.id)) else { continue };
        assert!(kept == file.octets, "{what} was changed in {place}/");
        assert!(mail.is_empty(), "{what} was delivered, and is in {place}/");
        assert_eq!(told(&format!("error: {}: ", file.id), &format!("it is kept in {place}/")), 1, "{what}");
        return Kind::Kept;
    }
    // It is gone: so it has ended, and was believed.
    assert_eq!(told("/qmgr[", &format!(": {}: removed", file.id)), 1, "{what} is lost");
    let said = file.literally().unwrap_or_else(|| panic!("{what} was believed"));
    let pending = |state: u8| matches!(state, b'P' | b'I');
    let (due, refused): (Vec<_>, Vec<_>) = said.recipients.iter().partition(|(_, state)| pending(*state));
    let mut reached: Vec<_> =
        mail.iter().flat_map(|received| received.recipients.iter().map(|to| unquoted(to))).collect();
    reached.sort();
    let mut expected: Vec<_> = due.iter().map(|(address, _)| address.clone()).collect();
    expected.sort();
    assert_eq!(reached, expected, "{what}");
    for received in mail {
        assert_eq!(unquoted(&received.sender), said.sender, "{what}");
        let expected = on_the_wire(&said.content);
        assert!(received.content == expected, "{what}: {}", received.content.escape_ascii());
    }
    if refused.is_empty() {
        return Kind::Delivered;
    }
    assert!(refused.iter().all(|(_, state)| *state == b'R'), "{what}: {refused:?}");
    let tells = |received: &Received| {
        received.sender.is_empty() && String::from_utf8_lossy(&received.content).contains(&refused[0].0)
    };
    assert!(received.iter().any(tells), "{what}: nobody was told of a refusal");
    Kind::Bounced
}
