//! What can be seen of a scenario from outside, with all that differs from run to run masked.
//!
//! - Owns: gathering it: the log, what servers heard, notices, `mailq`, queue files.
//! - Leaves to others: the masks (`mask`), comparing (`client`).
//! - Always true: a topic's lines are facts about one message, or about all of the mail system.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::instance::Postfix;
use super::mask::Mask;
use super::server::{Heard, Server, Transaction};

/// A longer topic is kept as its digest.
const LINES_MAX: usize = 400;

/// Octets of a message that is not looked into line by line, and lines of its header.
const LONG: usize = 200_000;
const HEADER_MAX: usize = 30;

/// Facts by topic.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    pub topics: BTreeMap<String, Vec<String>>,
}

impl Observation {
    /// Adds a fact of the scenario's own.
    pub fn add(&mut self, topic: &str, line: impl Display) {
        self.topics.entry(topic.to_owned()).or_default().push(line.to_string());
    }

    /// Adds the facts of another one.
    pub fn join(mut self, other: Self) -> Self {
        for (topic, lines) in other.topics {
            self.topics.entry(topic).or_default().extend(lines);
        }
        self
    }

    /// The lines of a topic.
    pub fn lines(&self, topic: &str) -> &[String] {
        self.topics.get(topic).map_or(&[], Vec::as_slice)
    }

    /// Fails unless a line of the topic holds all `parts`.
    #[track_caller]
    pub fn shows(&self, topic: &str, parts: &[&str]) {
        let is_it = |line: &String| parts.iter().all(|part| line.contains(part));
        assert!(
            self.lines(topic).iter().any(is_it),
            "{topic}: no line with {parts:?} in {:#?}; topics: {:?}",
            self.lines(topic),
            self.topics.keys()
        );
    }
}

/// A long list as one line that differs when the list does.
fn digest(lines: Vec<String>) -> Vec<String> {
    if lines.len() <= LINES_MAX && lines.iter().all(|line| line.len() < 20_000) {
        return lines;
    }
    let mut hasher = DefaultHasher::new();
    lines.hash(&mut hasher);
    vec![format!("{} lines, digest {:016x}", lines.len(), hasher.finish())]
}

/// Gathers everything about the messages of an instance that has settled, and what `servers` heard of them. A
/// message's name is the local part of its sender.
pub fn observe(postfix: &Postfix<'_>, servers: &[&Server]) -> Observation {
    let log = postfix.log();
    let mask = Mask::new(postfix.path(), &log);
    expect_removals_last(&log);
    let mut seen = Observation::default();
    for (topic, lines) in of_log(&mask, &log)
        .into_iter()
        .chain(of_mailq(&mask, postfix))
        .chain(of_queue(&mask, postfix))
        .chain(of_notices(&mask, postfix.notices()))
        .chain(servers.iter().flat_map(|server| of_server(&mask, &server.heard())))
    {
        seen.topics.entry(topic).or_default().extend(lines);
    }
    for lines in seen.topics.values_mut() {
        *lines = digest(std::mem::take(lines));
    }
    seen
}

/// Who reads a log takes the queue manager's word for the end of a message.
#[track_caller]
fn expect_removals_last(log: &str) {
    let mut removed = BTreeSet::new();
    for line in log.lines() {
        let mut parts = line.splitn(3, ": ").skip(1);
        let (Some(id), Some(text)) = (parts.next(), parts.next()) else { continue };
        if text == "removed" {
            removed.insert(id);
        }
        assert!(
            !(text.contains("status=") && removed.contains(id)),
            "{id} was removed before: {line}\n{log}"
        );
    }
}

type Topics = BTreeMap<String, Vec<String>>;

/// The lines of each message, and those about none that warn.
fn of_log(mask: &Mask, log: &str) -> Topics {
    let mut topics = Topics::new();
    for line in log.lines() {
        // How what goes back to a sender was delivered is not under test; nor is the clock of a virtual machine.
        if line.contains(" notices/") || line.contains(" warning: file system clock is ") {
            continue;
        }
        let (text, is_carrier) = mask.log_line(line);
        let topic = match mask.name_in(line) {
            // What the mail system wrote itself and the program under test carried: probes.
            Some("notice") if is_carrier => "probes".to_owned(),
            Some("notice") => continue,
            Some(name) => format!("{name} log"),
            None if is_carrier || ["warning:", "fatal:", "panic:"].iter().any(|word| text.contains(word)) => {
                "warnings".to_owned()
            }
            None => continue,
        };
        topics.entry(topic).or_default().push(text);
    }
    for (topic, lines) in &mut topics {
        // Recipients of different destinations are told of in any order.
        lines.sort();
        if topic == "warnings" || topic == "probes" {
            lines.dedup();
        }
    }
    topics
}

/// What `mailq` prints of each message.
fn of_mailq(mask: &Mask, postfix: &Postfix<'_>) -> Topics {
    let text = postfix.succeed("postqueue", &["-p"], b"");
    let mut topics = Topics::new();
    for entry in text.split("\n\n") {
        let lines: Vec<_> = entry.lines().filter(|line| !line.starts_with('-')).collect();
        let Some(name) = lines.first().and_then(|line| mask.name_in(line)) else { continue };
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let (mut masked, mut reason) = (Vec::new(), String::new());
        for line in lines.iter().skip(1).map(|line| mask.text(&words(line))) {
            // A reason is printed once for all who follow.
            match line.starts_with('(') {
                true => reason = line,
                false => masked.push(format!("{line} {reason}")),
            }
        }
        let sender = lines[0].split_whitespace().last().unwrap_or_default();
        masked.insert(0, format!("from {sender}"));
        topics.insert(format!("{name} mailq"), masked);
    }
    topics
}

/// Recipients in the queue files that are left, to do or done.
fn of_queue(mask: &Mask, postfix: &Postfix<'_>) -> Topics {
    let mut topics = Topics::new();
    for (id, name) in mask.names() {
        let Some(path) = postfix.queue_file(id).filter(|_| name != "notice") else { continue };
        let relative = path.strip_prefix(postfix.queue()).unwrap();
        let directory = relative.iter().next().unwrap().to_string_lossy().into_owned();
        let file = path.display().to_string();
        let printed = postfix.run("postcat", &["-e", &file], b"");
        let text = String::from_utf8_lossy(&printed.stdout).into_owned();
        let is_about = |line: &&str| line.contains("recipient: ");
        let mut lines: Vec<_> = text.lines().filter(is_about).map(str::to_owned).collect();
        lines.insert(0, format!("in {directory}"));
        topics.insert(format!("{name} queue"), lines);
    }
    topics
}

/// What came back to each sender.
fn of_notices(mask: &Mask, server: &Server) -> Topics {
    let mut topics = Topics::new();
    for transaction in server.heard().transactions {
        let Some(recipient) = transaction.accepted.first() else { continue };
        let name = recipient.split('@').next().unwrap_or_default();
        let mut lines = content(mask, &transaction);
        lines.insert(0, format!("MAIL FROM:<{}>", transaction.sender));
        let topic = topics.entry(format!("{name} notices")).or_default();
        topic.push(lines.join("\n"));
    }
    in_order(topics)
}

/// Several of the same sender come in any order; a probe may be repeated.
fn in_order(mut topics: Topics) -> Topics {
    for (topic, wholes) in &mut topics {
        wholes.sort();
        if topic.starts_with("double-bounce ") {
            wholes.dedup();
        }
        *wholes = wholes.iter().flat_map(|whole| whole.split('\n')).map(str::to_owned).collect();
    }
    topics
}

/// What a server heard about each message: the transaction's envelope and content, however they came.
fn of_server(mask: &Mask, heard: &Heard) -> Topics {
    let mut topics = Topics::new();
    let hello: BTreeSet<_> = heard
        .commands
        .iter()
        .map(|command| &command.line)
        .filter(|line| line[1..].starts_with("HLO"))
        .collect();
    topics.insert("lhlo".to_owned(), hello.into_iter().cloned().collect());
    for transaction in &heard.transactions {
        let name = match transaction.sender.split('@').next().unwrap_or_default() {
            "" => "null",
            name => name,
        };
        let mut lines: Vec<_> = transaction.forwarded.iter().map(|line| mask.text(line)).collect();
        lines.push(mask.envelope(name, &transaction.mail));
        lines.extend(transaction.recipients.iter().map(|words| format!("RCPT TO:{words}")));
        if transaction.content.is_some() {
            lines.push(format!("accepted {}", transaction.accepted.len()));
        }
        lines.extend(content(mask, transaction));
        topics.entry(format!("{name} wire")).or_default().push(lines.join("\n"));
    }
    in_order(topics)
}

/// The lines of the content, in printable form.
fn content(mask: &Mask, transaction: &Transaction) -> Vec<String> {
    let Some(content) = &transaction.content else { return Vec::new() };
    let text = content.escape_ascii().to_string();
    // Of a long message only lines with our own names in them are worth the time.
    let is_masked = |at: usize, line: &str| {
        content.len() < LONG
            || at < HEADER_MAX
            || ["test.example", "tid ", "Date: ", "-ID: "].iter().any(|it| line.contains(it))
    };
    let lines = text.split(r"\r\n").enumerate();
    lines.map(|(at, line)| if is_masked(at, line) { mask.text(line) } else { line.to_owned() }).collect()
}
