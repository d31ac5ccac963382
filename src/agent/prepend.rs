//! Headers that a transport adds on delivery (`flags`), and the loop that one of them reveals.

use crate::config::Flags;
use crate::mail::{Batch, EnhancedStatus, Outcome, Reason};

/// The lines to put before the content, or why it must not be delivered: it has been delivered to this recipient
/// before, and came back. `original` is the recipient's address before aliases; `was_delivered_to` looks for an address
/// in the message's Delivered-To fields. With flags that name a recipient a batch has one; else they add nothing.
pub fn headers(
    batch: &Batch,
    flags: Flags,
    original: Option<&str>,
    was_delivered_to: impl FnOnce(&str) -> bool,
) -> Result<Vec<u8>, Outcome> {
    let mut lines = String::new();
    if flags.return_path {
        lines.push_str(&format!("Return-Path: <{}>\r\n", batch.sender()));
    }
    let [recipient] = batch.recipients() else { return Ok(lines.into_bytes()) };
    let address = recipient.address.to_string();
    if flags.original_to {
        lines.push_str(&format!("X-Original-To: {}\r\n", original.unwrap_or(&address)));
    }
    if flags.delivered_to {
        if was_delivered_to(&address) {
            let text = format!("mail forwarding loop for {address}");
            return Err(Outcome::Bounced(Reason::local(EnhancedStatus::new(5, 4, 6), text)));
        }
        lines.push_str(&format!("Delivered-To: {address}\r\n"));
    }
    Ok(lines.into_bytes())
}
