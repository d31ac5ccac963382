//! The part for people: what happened to whom, in whose words, and what can be done about it.
//!
//! - Owns: the words of every kind of report.
//! - Always true: lists at most [`LISTED`] recipients, whatever the message has.

use std::fmt::Write as _;

use jiff::Timestamp;
use mail_builder::headers::date::Date;

use crate::mail::{EnhancedStatus, OriginalRecipient, Protocol};

use super::original::{HeaderOnly, Original};
use super::report::{Kind, Report, ReportedRecipient};
use super::text::{Charset, address_word, one_line, wrap};

/// Recipients that are listed for people; programs get all of them.
const LISTED: usize = 100;
/// Octets of the reason that is given for one of them.
const REASON_MAX: usize = 1000;

/// Writes the part.
pub(super) fn words(report: &Report<'_>, original: &Original<'_>, charset: Charset) -> String {
    let mut out = String::new();
    let host = one_line(report.author.hostname, charset, 255);
    paragraph(&mut out, &format!("This is the mail system at host {host}."));
    paragraph(&mut out, &opening(report));
    for reported in report.recipients.iter().take(LISTED) {
        recipient(&mut out, reported, charset);
    }
    if let Some(more @ 1..) = report.recipients.len().checked_sub(LISTED) {
        paragraph(&mut out, &format!("... and {more} more, all named in the delivery report below."));
    }
    for hint in hints(report) {
        paragraph(&mut out, hint);
    }
    paragraph(&mut out, &closing(report));
    paragraph(&mut out, what_is_attached(original));
    out
}

/// Adds a wrapped paragraph and an empty line.
fn paragraph(out: &mut String, text: &str) {
    wrap(out, "", text);
    out.push_str("\r\n");
}

fn opening(report: &Report<'_>) -> String {
    let these = if report.recipients.len() == 1 { "this recipient" } else { "these recipients" };
    match report.kind {
        Kind::Bounce => {
            format!("Your message could not be delivered to {these}, and will not be tried again.")
        }
        Kind::Delay { retry_until } => format!(
            "Your message has not been delivered to {these} yet. There is nothing that you need to do: it will be \
             tried again until {}. If it cannot be delivered by then, you will be told.",
            date(retry_until)
        ),
        Kind::Success if report.protocol() == Protocol::Smtp => format!(
            "As you asked, this is to tell you that your message for {these} has been handed over to the next \
             server. That server does not report deliveries: you will not hear of the message again, unless it \
             comes back."
        ),
        Kind::Success => format!(
            "As you asked, this is to tell you that your message has been delivered to {these}: it is in the \
             mailbox now. Whether anybody has read it is not known."
        ),
        Kind::DoubleBounce => format!(
            "A message without a sender, most often a bounce, could not be delivered to {these}. Nobody else will \
             be told, and it will not be tried again."
        ),
        Kind::BounceCopy => {
            format!(
                "A message could not be delivered to {these}. Its sender has been told; this is your copy."
            )
        }
        Kind::DelayCopy { retry_until } => format!(
            "A message has not been delivered to {these} yet. It will be tried again until {}. Its sender has been \
             told; this is your copy.",
            date(retry_until)
        ),
    }
}

/// The address and, below it, the reason.
fn recipient(out: &mut String, reported: &ReportedRecipient<'_>, charset: Charset) {
    let address = reported.recipient.address.to_string();
    let mut line = format!("<{}>", address_word(&address, charset));
    let written = reported.recipient.orcpt.as_ref().map_or("", OriginalRecipient::address);
    if !written.is_empty() && written != address {
        let _ = write!(line, " (you wrote <{}>)", address_word(written, charset));
    }
    wrap(out, "  ", &line);
    wrap(out, "      ", &one_line(&reported.reason.text, charset, REASON_MAX));
    out.push_str("\r\n");
}

/// What the sender can do, by status; each hint once.
fn hints(report: &Report<'_>) -> Vec<&'static str> {
    if report.kind != Kind::Bounce {
        return Vec::new();
    }
    let mut hints = Vec::new();
    for reported in report.recipients {
        let hint = hint(reported.reason.status);
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
}

/// RFC 3463: the second and third number say what is wrong, the first only for how long.
fn hint(status: EnhancedStatus) -> &'static str {
    match status.subject_and_detail() {
        (1, 0..=6) => {
            "An address is not known there: please check how it is written, and send the message again."
        }
        (2, 2) => "A mailbox is full: please tell its owner in another way, or send the message again later.",
        (2, 1) => "A mailbox takes no mail at present: please try to reach its owner in another way.",
        (2, 3) | (3, 4) => {
            "The message is too large for the server there: please send a smaller one, or a link."
        }
        (4, 7) => {
            "It was tried again and again, until there was no use in waiting any longer; the reason above is that \
             of the last time. Please try to reach the recipient in another way, or send the message again later."
        }
        (4, 6) => "The message went round in circles between servers: please tell the postmaster.",
        (4, _) => {
            "The server there could not be reached: please check the domain of the address, or try again later."
        }
        (6, 7) => {
            "The server there cannot handle an address with such characters: please ask for another address."
        }
        (7, _) => {
            "The server there refused the message by its rules: please ask its owner, quoting this report."
        }
        _ => "If the reason above does not help you, please ask the postmaster, quoting this report.",
    }
}

/// Where to ask, and by which name the message is found in the log.
fn closing(report: &Report<'_>) -> String {
    let Report { author, envelope, .. } = report;
    let arrival = date(envelope.arrival);
    let origin = one_line(author.origin, Charset::Ascii, 255);
    match report.kind {
        Kind::Bounce | Kind::Delay { .. } | Kind::Success => format!(
            "For help, write to postmaster@{origin} and attach this report. The message arrived here on {arrival} \
             and is named {} in our log.",
            envelope.id
        ),
        Kind::DoubleBounce | Kind::BounceCopy | Kind::DelayCopy { .. } => {
            format!("The message arrived here on {arrival} and is named {} in the log.", envelope.id)
        }
    }
}

fn what_is_attached(original: &Original<'_>) -> &'static str {
    match original {
        Original::Full(_) => "The message is attached.",
        Original::Header(_, HeaderOnly::Habit) => "The header of the message is attached.",
        Original::Header(_, HeaderOnly::Large) => {
            "Only the header of the message is attached, because the message is large."
        }
        Original::Header(_, HeaderOnly::EightBit) => {
            "Only the header of the message is attached, as far as it is ASCII: the rest could not be sent back either."
        }
        Original::Header(_, HeaderOnly::Unfit) => {
            "Only the header of the message is attached, because its body has lines that are too long, or characters \
             that may not be sent in a report."
        }
    }
}

fn date(at: Timestamp) -> String {
    Date::new(at.as_second()).to_rfc822()
}
