//! The queue as people read it.
//!
//! - Owns: columns and words.
//! - Leaves to others: what there is to tell (`agent::queue_control`).
//! - Always true: nothing that a server or a submitter wrote can move the cursor or end a line.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::agent::queue_control::{Done, Line, Listed, Outcome, RecipientLine};
use crate::mail::Sender;
use crate::spool::LoggedReply;

/// Where the last column of a list begins.
const COLUMN: usize = 64;

/// Text without anything that a terminal would act on.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A time as the administrator's clock has it.
fn local(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => safe(time),
    }
}

fn sender(sender: Option<&Sender>) -> String {
    match sender {
        Some(sender) if sender.is_null() => "<> (a notice)".to_owned(),
        Some(sender) => sender.to_string(),
        None => "(unknown sender)".to_owned(),
    }
}

/// What all messages together come to.
#[derive(Debug, Default)]
pub(super) struct Totals {
    octets: u64,
    by_place: BTreeMap<String, u64>,
}

impl Totals {
    fn messages(&self) -> u64 {
        self.by_place.values().sum()
    }

    /// The last line.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let messages = self.messages();
        if messages == 0 {
            return writeln!(out, "Queue is empty");
        }
        let places: Vec<_> = self.by_place.iter().map(|(place, count)| format!("{count} {place}")).collect();
        let plural = if messages == 1 { "" } else { "s" };
        writeln!(out, "-- {} in {messages} message{plural}: {}", size(self.octets), places.join(", "))
    }
}

fn size(octets: u64) -> String {
    match octets {
        0..10_240 => format!("{octets} octets"),
        10_240..10_485_760 => format!("{} KiB", octets / 1024),
        _ => format!("{} MiB", octets / (1024 * 1024)),
    }
}

/// One message of a list, the heading before the first.
pub(super) fn write_listed(out: &mut dyn Write, listed: &Listed, totals: &mut Totals) -> io::Result<()> {
    if totals.messages() == 0 {
        writeln!(
            out,
            "{:<21} {:<9} {:>10}  {:<19}  Sender/Recipients",
            "Queue ID", "State", "Size", "Arrival"
        )?;
    }
    totals.octets = totals.octets.saturating_add(listed.size);
    *totals.by_place.entry(listed.place.clone()).or_default() += 1;
    let arrival = listed.arrival.as_deref().map_or_else(String::new, local);
    let (id, place) = (safe(&listed.id), safe(&listed.place));
    let who = match listed.sender {
        None => format!("({})", safe(&listed.origin)),
        Some(_) => sender(listed.sender.as_ref()),
    };
    writeln!(out, "{id:<21} {place:<9} {:>10}  {arrival:<19}  {who}", listed.size)?;
    if let Some(next) = &listed.next_attempt {
        writeln!(out, "{:COLUMN$}  next attempt {}", "", local(next))?;
    }
    if let Some(problem) = &listed.problem {
        writeln!(out, "    ({})", safe(problem))?;
    }
    // Neighbours with the same reason share it.
    let mut last_reason = None;
    for recipient in &listed.recipients {
        if recipient.reason.is_some() && recipient.reason != last_reason {
            writeln!(out, "    ({})", safe(recipient.reason.as_deref().unwrap_or_default()))?;
        }
        last_reason.clone_from(&recipient.reason);
        writeln!(out, "{:COLUMN$}  {}{}", "", recipient.address, remark(recipient))?;
    }
    if listed.recipients_omitted > 0 {
        writeln!(out, "{:COLUMN$}  and {} more", "", listed.recipients_omitted)?;
    }
    writeln!(out)
}

/// What is unusual about a recipient that is not done with.
fn remark(recipient: &RecipientLine) -> &'static str {
    match recipient.state.as_str() {
        "in_doubt" => " (under way, or in doubt)",
        "refused" => " (refused; the sender is to be told)",
        _ => "",
    }
}

/// What has been shown of a message so far: each part has a heading.
#[derive(Debug, Default)]
pub(super) struct Shown {
    recipients: bool,
    attempts: bool,
    content: bool,
}

impl Shown {
    /// Writes one line of the answer.
    pub(super) fn write(&mut self, out: &mut dyn Write, line: &Line) -> io::Result<()> {
        match line {
            Line::Message(listed) => write_envelope(out, listed),
            Line::Recipient(recipient) => {
                heading(out, &mut self.recipients, "Recipients")?;
                write_recipient(out, recipient)
            }
            Line::Attempt(reply) => {
                heading(out, &mut self.attempts, "Attempts")?;
                write_attempt(out, reply)
            }
            Line::Content { data, .. } => {
                heading(out, &mut self.content, "Content")?;
                out.write_all(data)
            }
            Line::Ready { .. }
            | Line::Status(_)
            | Line::Done(_)
            | Line::Queued { .. }
            | Line::Refused(_)
            | Line::End {} => Ok(()),
        }
    }
}

fn heading(out: &mut dyn Write, is_written: &mut bool, text: &str) -> io::Result<()> {
    if std::mem::replace(is_written, true) { Ok(()) } else { writeln!(out, "\n{text}:") }
}

fn write_envelope(out: &mut dyn Write, listed: &Listed) -> io::Result<()> {
    let mut member = |name: &str, value: Option<String>| match value {
        Some(value) => writeln!(out, "{name:<13} {}", safe(&value)),
        None => Ok(()),
    };
    member("Queue ID:", Some(listed.id.clone()))?;
    member("State:", Some(listed.place.clone()))?;
    member("Problem:", listed.problem.clone())?;
    member("Sender:", Some(sender(listed.sender.as_ref())))?;
    member("Submitted by:", Some(listed.origin.clone()))?;
    member("Arrival:", listed.arrival.as_deref().map(local))?;
    member("Next attempt:", listed.next_attempt.as_deref().map(local))?;
    member("Size:", Some(format!("{} octets", listed.size)))?;
    member("Nexthop:", listed.nexthop.clone())?;
    member("Envelope ID:", listed.envid.clone())?;
    member("Return:", listed.ret.map(|ret| ret.to_string()))
}

fn write_recipient(out: &mut dyn Write, recipient: &RecipientLine) -> io::Result<()> {
    write!(out, "  {:<9} {}", recipient.state.replace('_', " "), recipient.address)?;
    if let Some(sender) = &recipient.sender {
        write!(out, ", sender <{sender}>")?;
    }
    if let Some(notify) = &recipient.notify {
        write!(out, ", notify {notify}")?;
    }
    if let Some(original) = &recipient.orcpt {
        write!(out, ", originally {}", safe(original.as_str()))?;
    }
    writeln!(out)
}

fn write_attempt(out: &mut dyn Write, reply: &LoggedReply) -> io::Result<()> {
    let LoggedReply { time, address, outcome, dsn, text, reply, mta, .. } = reply;
    let mta = mta.as_deref().map_or_else(String::new, |mta| format!(" by {}", safe(mta)));
    writeln!(out, "  {} <{address}> {} ({dsn}){mta}: {}", local(time), safe(outcome), safe(text))?;
    for line in reply.iter().flat_map(|reply| reply.lines()) {
        writeln!(out, "      {}", safe(line))?;
    }
    Ok(())
}

/// What became of one message; what was in vain says so in front.
pub(super) fn write_done(out: &mut dyn Write, done: &Done) -> io::Result<()> {
    let what = done.id.map(|id| id.to_string()).or_else(|| done.name.as_deref().map(safe));
    let id = what.map_or_else(String::new, |what| format!("{what}: "));
    let failed =
        if done.outcome == Outcome::Failed { format!("{} failed: ", done.action) } else { String::new() };
    writeln!(out, "{id}{failed}{}", safe(&done.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(listed: &[Listed]) -> String {
        let (mut out, mut totals) = (Vec::new(), Totals::default());
        for listed in listed {
            write_listed(&mut out, listed, &mut totals).unwrap();
        }
        totals.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_empty_queue_says_so() {
        assert_eq!(text(&[]), "Queue is empty\n");
    }

    #[test]
    fn a_list_reads_like_mailq() {
        let recipient = |address: &str, reason: Option<&str>| RecipientLine {
            position: 0,
            address: address.parse().unwrap(),
            state: "pending".into(),
            reason: reason.map(str::to_owned),
            dsn: None,
            notify: None,
            orcpt: None,
            sender: None,
        };
        let listed = Listed {
            id: "A1".into(),
            place: "deferred".into(),
            sender: Some("a@x".parse().unwrap()),
            size: 12_000,
            origin: "uid=7".into(),
            recipients: vec![
                recipient("b@y", Some("452 full\u{1b}[2J\r\nforged")),
                recipient("c@y", Some("452 full\u{1b}[2J\r\nforged")),
                recipient("d@y", None),
            ],
            recipients_omitted: 2,
            ..Listed::default()
        };
        let bare = Listed { id: "bare".into(), place: "incoming".into(), size: 1, ..Listed::default() };
        let text = text(&[listed, bare]);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert!(lines[0].starts_with("Queue ID"), "{text}");
        assert!(lines[1].starts_with("A1") && lines[1].ends_with("a@x"), "{text}");
        assert_eq!(lines[2..7], ["(452 full?[2J??forged)", "b@y", "c@y", "d@y", "and 2 more"], "{text}");
        assert_eq!(lines.last(), Some(&"-- 11 KiB in 2 messages: 1 deferred, 1 incoming"));
        assert!(!text.contains('\u{1b}'));
    }
}
