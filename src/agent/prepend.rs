//! Headers that a transport adds on delivery (`flags`), and the loop that one of them reveals.

use std::io::Read;

use crate::config::Flags;
use crate::mail::{Batch, EnhancedStatus, Outcome, Reason};
use crate::spool::QueueFile;

/// Octets of a header that are searched for a loop.
const HEADER_MAX: u64 = 1 << 20;

/// The lines to put before the content, or why it must not be delivered: it has been delivered to this recipient
/// before, and came back.
pub fn headers(batch: &Batch, flags: Flags, file: &QueueFile) -> Result<Vec<u8>, Outcome> {
    let mut lines = String::new();
    if flags.return_path {
        lines.push_str(&format!("Return-Path: <{}>\r\n", batch.sender()));
    }
    // With either of these flags a batch has one recipient.
    let [recipient] = batch.recipients() else { return Ok(lines.into_bytes()) };
    if flags.original_to {
        let original = recipient
            .orcpt
            .as_ref()
            .map_or_else(|| recipient.address.to_string(), |o| o.address().to_owned());
        lines.push_str(&format!("X-Original-To: {original}\r\n"));
    }
    if flags.delivered_to {
        let address = recipient.address.to_string();
        if was_delivered_to(file, &address) {
            let text = format!("mail forwarding loop for {address}");
            return Err(Outcome::Bounced(Reason::local(EnhancedStatus::new(5, 4, 6), text)));
        }
        lines.push_str(&format!("Delivered-To: {address}\r\n"));
    }
    Ok(lines.into_bytes())
}

/// Whether the header has a Delivered-To field for `address`. A header that cannot be read has none: the content
/// that follows it cannot be sent either.
fn was_delivered_to(file: &QueueFile, address: &str) -> bool {
    let mut header = Vec::new();
    if file.content().take(HEADER_MAX).read_to_end(&mut header).is_err() {
        return false;
    }
    let end = memchr::memmem::find(&header, b"\r\n\r\n").unwrap_or(header.len());
    String::from_utf8_lossy(&header[..end]).lines().any(|line| {
        let field =
            line.split_once(':').filter(|(name, _)| name.trim_end().eq_ignore_ascii_case("Delivered-To"));
        field.is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case(address))
    })
}
