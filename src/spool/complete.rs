//! The domain that addresses lack: on the wire none may be without (RFC 5321 section 2.3.5).
//!
//! - Owns: which addresses of an envelope are completed. What a submitter wrote for reports (`orcpt`) stays as it is.
//! - Leaves to others: which domain it is (`config`: `myorigin`), aliases (`cli`).
//! - Always true: an address that cannot be completed, because it would be too long, stays; a server then says no.

use super::submit::Draft;
use crate::mail::{Address, Recipient, Sender};

impl Draft {
    /// The same with `domain` for every address that has none. For all ways in but our own sendmail, which refuses what
    /// cannot be completed.
    pub fn completed(self, domain: &str) -> Self {
        let recipients = self.recipients.into_iter().map(|recipient| complete(recipient, domain)).collect();
        Self { sender: complete_sender(self.sender, domain), recipients, ..self }
    }
}

pub(super) fn complete(recipient: Recipient, domain: &str) -> Recipient {
    let address = complete_address(recipient.address, domain);
    let sender = recipient.sender.map(|sender| complete_sender(sender, domain));
    Recipient { address, sender, ..recipient }
}

pub(super) fn complete_sender(sender: Sender, domain: &str) -> Sender {
    match sender.address() {
        Some(address) if address.domain().is_empty() => complete_address(address.clone(), domain).into(),
        _ => sender,
    }
}

fn complete_address(address: Address, domain: &str) -> Address {
    if address.domain().is_empty() { address.completed_with(domain).unwrap_or(address) } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_without_a_domain_change() {
        let long = "l".repeat(64);
        for (text, completed) in [
            ("bob", "bob@example.org"),
            ("bob@y", "bob@y"),
            ("\"a b\"", "\"a b\"@example.org"),
            ("\"a@y\"", "\"a@y\"@example.org"),
            (&long, &format!("{long}@example.org")),
        ] {
            let address = complete_address(text.parse().unwrap(), "example.org");
            assert_eq!(address.to_string(), completed, "{text}");
        }
        assert_eq!(complete_address("bob".parse().unwrap(), "no domain").to_string(), "bob");
        assert_eq!(complete_sender(Sender::NULL, "example.org"), Sender::NULL);
    }
}
