//! Masks: what differs from run to run, and from place to place, without being a difference.
//!
//! - Owns: queue IDs, times, ports, process IDs, directories, and whose name a message has.
//! - Leaves to others: which texts are looked at (`observation`).
//! - Always true: a mask takes away nothing that a person or a log analyser decides by.

use std::path::Path;

/// What is known of one run.
pub struct Mask {
    directory: String,
    /// Queue IDs with the names of their messages; `notice` for what the mail system wrote.
    names: Vec<(String, String)>,
}

impl Mask {
    /// Learns the queue IDs from the log.
    pub fn new(directory: &Path, log: &str) -> Self {
        let mut names: Vec<(String, String)> = Vec::new();
        for line in log.lines() {
            let mut parts = line.splitn(3, ": ");
            let (Some(tag), Some(id), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if text.starts_with("message-id=") && !names.iter().any(|(known, _)| known == id) {
                names.push((id.to_owned(), "notice".to_owned()));
            }
            let Some((_, from)) = text.split_once("from=<") else { continue };
            let sender = from.split('>').next().unwrap_or_default();
            let name = sender.strip_suffix("@sender.example");
            let name = name.or_else(|| (sender.is_empty() && tag.contains("/pickup[")).then_some("null"));
            let Some(name) = name.filter(|_| text.starts_with("from=<") || text.starts_with("uid=")) else {
                continue;
            };
            names.retain(|(known, _)| known != id);
            names.push((id.to_owned(), name.to_owned()));
        }
        Self { directory: directory.display().to_string(), names }
    }

    /// Queue IDs and the names of their messages.
    pub fn names(&self) -> &[(String, String)] {
        &self.names
    }

    /// Whose queue ID is the first in a line of the log or of `mailq`.
    pub fn name_in(&self, line: &str) -> Option<&str> {
        let found = self.names.iter().filter_map(|(id, name)| Some((line.find(id.as_str())?, name)));
        found.min().map(|(_, name)| name.as_str())
    }

    /// A line of the log without its time and process ID; whether the program under test wrote it.
    pub fn log_line(&self, line: &str) -> (String, bool) {
        let (stamp, text) = line.split_once(": ").unwrap_or(("", line));
        let tag = stamp.rsplit(' ').next().unwrap_or_default();
        let tag = tag.split('[').next().unwrap_or_default();
        // The one by the name that is in master.cf, the other by its own.
        let is_carrier = ["lmtp", "lastmile-lmtp", "smtp", "lastmile-smtp"]
            .iter()
            .any(|program| tag.strip_prefix("postfix/") == Some(program));
        let tag = if is_carrier { "CLIENT" } else { tag };
        (format!("{tag}: {}", self.text(text)), is_carrier)
    }

    /// The words after `MAIL FROM:`. The length of a queue ID, which is in the content, is taken off the size.
    pub fn envelope(&self, name: &str, words: &str) -> String {
        let length = self.names.iter().find(|(_, known)| known == name).map_or(0, |(id, _)| id.len());
        format!("MAIL FROM:{}", less(words, "SIZE=", length))
    }

    /// Any text.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.replace(&self.directory, "DIR");
        for (id, name) in &self.names {
            if text.contains(id.as_str()) {
                for before in [" size=", "message size "] {
                    text = less(&text, before, id.len());
                }
                text = text.replace(id.as_str(), &format!("<{name}>"));
            }
        }
        // Connections are kept longer by ours: how often one was used is looked at where it matters.
        text = without_run(&text, ", conn_use=", is_digit, "");
        text = without_run(&text, "delay=", is_time, "delay=T");
        text = without_run(&text, "delays=", is_time, "delays=T");
        text = without_run(&text, "127.0.0.1:", is_digit, "127.0.0.1:PORT");
        text = without_run(&text, "[127.0.0.1]:", is_digit, "[127.0.0.1]:PORT");
        text = without_run(&text, "[::1]:", is_digit, "[::1]:PORT");
        text = without_run(&text, " PORT=", is_digit, " PORT=N");
        text = without_run(&text, ">.", is_digit, ">.T");
        text = without_run(&text, "<20", |c| is_digit(c) || c == '.', "<TIME.");
        text = without_run(&text, "process id ", is_digit, "process id PID");
        text = without_run(&text, " pid ", is_digit, " pid PID");
        without_dates(&text)
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn is_time(c: char) -> bool {
    c.is_ascii_digit() || c == '.' || c == '/'
}

/// Replaces each `before` and the run of characters that follows it. Without such a run nothing is replaced.
fn without_run(text: &str, before: &str, is_run: impl Fn(char) -> bool, with: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(before) {
        let (front, back) = rest.split_at(at);
        let after = back[before.len()..].trim_start_matches(&is_run);
        out.push_str(front);
        out.push_str(if after.len() < back.len() - before.len() { with } else { before });
        rest = after;
    }
    out + rest
}

/// Takes `length` off the number after `before`.
fn less(text: &str, before: &str, length: usize) -> String {
    let Some(at) = text.find(before) else { return text.to_owned() };
    let (front, back) = text.split_at(at + before.len());
    let digits = back.len() - back.trim_start_matches(is_digit).len();
    match back[..digits].parse::<usize>() {
        Ok(number) => format!("{front}{}{}", number.saturating_sub(length), &back[digits..]),
        Err(_) => text.to_owned(),
    }
}

/// Dates as mail has them, from the day of the week to the zone's name.
fn without_dates(text: &str) -> String {
    let mut text = text.to_owned();
    for day in ["Mon, ", "Tue, ", "Wed, ", "Thu, ", "Fri, ", "Sat, ", "Sun, "] {
        while let Some(start) = text.find(day) {
            let Some(end) = text[start..].find(')') else { break };
            text.replace_range(start..=start + end, "DATE");
        }
    }
    text
}
