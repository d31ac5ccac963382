//! The part for programs: message/delivery-status (RFC 3464), or its international form (RFC 6533).
//!
//! - Owns: the fields, their order and their folding.
//! - Always true: one group of fields for the message, then one for each recipient, each group ended by an empty
//!   line; a field's value never holds a line end that is not followed by a blank.

use jiff::Timestamp;
use mail_builder::headers::Header;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;

use crate::mail::OriginalRecipient;

use super::report::{Kind, Report, ReportedRecipient};
use super::text::{Charset, address_word, one_line};

/// Octets of a server's words for one recipient.
const DIAGNOSTIC_MAX: usize = 1000;
/// The same for recipients after the first [`DETAILED`]: a report about 100,000 recipients must fit into memory.
const DIAGNOSTIC_MAX_LATER: usize = 200;
/// Recipients with the longer limit.
const DETAILED: usize = 1000;

/// Writes the body of the part.
pub(super) fn write(report: &Report<'_>, charset: Charset) -> Vec<u8> {
    let mut fields = Fields { out: Vec::with_capacity(512 + 400 * report.recipients.len()), charset };
    let envelope = report.envelope;
    if let Some(envid) = &envelope.envid {
        fields.add("Original-Envelope-Id", envid);
    }
    fields.add("Reporting-MTA", &format!("dns; {}", report.author.hostname));
    fields.add("X-Lastmile-Queue-ID", envelope.id.as_str());
    if let Some(sender) = envelope.sender.address() {
        let sender = address_word(&sender.to_string(), charset);
        fields.add("X-Lastmile-Sender", &format!("{}; {sender}", address_type(&sender)));
    }
    fields.date("Arrival-Date", envelope.arrival);
    for (at, recipient) in report.recipients.iter().enumerate() {
        fields.out.extend_from_slice(b"\r\n");
        let diagnostic_max = if at < DETAILED { DIAGNOSTIC_MAX } else { DIAGNOSTIC_MAX_LATER };
        recipient_fields(&mut fields, report.kind, recipient, diagnostic_max);
    }
    fields.out
}

fn recipient_fields(
    fields: &mut Fields,
    kind: Kind,
    reported: &ReportedRecipient<'_>,
    diagnostic_max: usize,
) {
    if let Some(orcpt) = &reported.recipient.orcpt {
        fields.add("Original-Recipient", &original_recipient(orcpt, fields.charset));
    }
    let address = address_word(&reported.recipient.address.to_string(), fields.charset);
    fields.add("Final-Recipient", &format!("{}; {address}", address_type(&address)));
    fields.add("Action", kind.action(reported.protocol));
    fields.add("Status", &reported.reason.status.to_string());
    if let Some(host) = reported.remote_mta {
        fields.add("Remote-MTA", &format!("dns; {host}"));
    }
    match &reported.reason.reply {
        Some(reply) => fields.diagnostic("smtp", reply, diagnostic_max),
        None => fields.diagnostic("X-lastmile", &reported.reason.text, diagnostic_max),
    }
    if let Some(at) = reported.last_attempt {
        fields.date("Last-Attempt-Date", at);
    }
    if let Kind::Delay { retry_until } | Kind::DelayCopy { retry_until } = kind {
        fields.date("Will-Retry-Until", retry_until);
    }
}

/// The address type of RFC 3464, or of RFC 6533 for an address that the former cannot name.
fn address_type(address: &str) -> &'static str {
    if address.is_ascii() { "rfc822" } else { "utf-8" }
}

/// ORCPT's value without its encoding, but encoded (RFC 6533 section 3) where the part is ASCII only.
fn original_recipient(orcpt: &OriginalRecipient, charset: Charset) -> String {
    let encoded;
    let text = if charset == Charset::Utf8 || orcpt.as_str().is_ascii() {
        orcpt.as_str()
    } else {
        encoded = orcpt.parameter();
        &encoded
    };
    let (kind, address) = text.split_once(';').unwrap_or(("rfc822", text));
    format!("{kind}; {}", address_word(address.trim(), charset))
}

/// Fields in wire form.
struct Fields {
    out: Vec<u8>,
    charset: Charset,
}

impl Fields {
    /// Adds a field, unless it is empty; whatever `value` holds, it stays in this field.
    fn add(&mut self, name: &str, value: &str) {
        let value = one_line(value, self.charset, 4 * DIAGNOSTIC_MAX);
        if !value.is_empty() {
            self.folded(name, value);
        }
    }

    fn date(&mut self, name: &str, at: Timestamp) {
        self.add(name, &Date::new(at.as_second()).to_rfc822());
    }

    /// A reply, each of its lines on a line of its own, as the server sent them.
    fn diagnostic(&mut self, kind: &str, text: &str, max: usize) {
        let mut left = max;
        let mut value = format!("{kind};");
        for line in text.lines() {
            let line = one_line(line, self.charset, left);
            // A folded line of blanks alone could be taken for the end of the group.
            if line.is_empty() {
                continue;
            }
            left = left.saturating_sub(line.len());
            value.push_str(if value.ends_with(';') { " " } else { "\r\n    " });
            value.push_str(&line);
            if left == 0 {
                break;
            }
        }
        self.folded("Diagnostic-Code", value);
    }

    fn folded(&mut self, name: &str, value: String) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        Raw::new(value).write_header(&mut self.out, name.len() + 2);
    }
}
