//! Headers that a transport adds on delivery (`flags`), and the loop that one of them reveals.

use crate::config::Flags;
use crate::mail::{Batch, EnhancedStatus, Outcome, Reason};

/// Octets of a header that are searched for a loop.
pub const HEADER_MAX: usize = 1 << 20;

/// The lines to put before the content, or why it must not be delivered: it has been delivered to this recipient
/// before, and came back. `original` is the recipient's address before aliases; `header` reads the start of the
/// content, up to [`HEADER_MAX`] octets. With flags that name a recipient a batch has one; else they add nothing.
pub fn headers(
    batch: &Batch,
    flags: Flags,
    original: Option<&str>,
    header: impl FnOnce() -> Vec<u8>,
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
        if was_delivered_to(&header(), &address) {
            let text = format!("mail forwarding loop for {address}");
            return Err(Outcome::Bounced(Reason::local(EnhancedStatus::new(5, 4, 6), text)));
        }
        lines.push_str(&format!("Delivered-To: {address}\r\n"));
    }
    Ok(lines.into_bytes())
}

/// Whether the header has a Delivered-To field for `address`.
fn was_delivered_to(header: &[u8], address: &str) -> bool {
    let end = memchr::memmem::find(header, b"\r\n\r\n").unwrap_or(header.len());
    String::from_utf8_lossy(&header[..end]).lines().any(|line| {
        let field =
            line.split_once(':').filter(|(name, _)| name.trim_end().eq_ignore_ascii_case("Delivered-To"));
        field.is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case(address))
    })
}
