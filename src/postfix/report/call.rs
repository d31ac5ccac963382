//! What Postfix's other daemons are told, as the lists that go over the wire.
//!
//! - Owns: the attributes of each message, their order; the daemons, their sockets and what each calls its protocol.
//! - Leaves to others: when which of them is told (`decision`), and the sockets (`services`).
//! - Always true: status and reason of an append are never empty, for bounce(8) refuses such; the server's words and
//!   its name are both there or both missing.

use crate::mail::EnhancedStatus;
use crate::postfix::attribute::Writer;
use crate::postfix::request::Recipient;

/// A daemon that hears what became of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Who returns mail: bounce(8).
    Bounce,
    /// Who keeps why mail is late: bounce(8) by another name.
    Defer,
    /// Who writes delivery reports: bounce(8) by a third name.
    Trace,
    /// Who remembers which addresses are good: verify(8).
    Verify,
    /// Who remembers which mail waits for a domain: flush(8).
    Flush,
    /// Who takes mail: cleanup(8).
    Cleanup,
}

impl Service {
    /// What the daemon calls its protocol, once a client has connected (Postfix 3.6 and later).
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Bounce | Self::Defer | Self::Trace => "delivery_status_protocol",
            // The third word is misspelt in Postfix too.
            Self::Verify => "address_verification_prrotocol",
            Self::Flush => "queue_flush_protocol",
            Self::Cleanup => "cleanup_protocol",
        }
    }
}

/// The names of the daemons' sockets, by the parameters of main.cf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    /// `bounce_service_name`.
    pub bounce: String,
    /// `defer_service_name`.
    pub defer: String,
    /// `trace_service_name`.
    pub trace: String,
    /// `address_verify_service_name`.
    pub verify: String,
    /// `flush_service_name`.
    pub flush: String,
    /// `cleanup_service_name`.
    pub cleanup: String,
}

impl Default for ServiceNames {
    /// Postfix's own names.
    fn default() -> Self {
        let [bounce, defer, trace, verify, flush, cleanup] =
            ["bounce", "defer", "trace", "verify", "flush", "cleanup"].map(str::to_owned);
        Self { bounce, defer, trace, verify, flush, cleanup }
    }
}

impl ServiceNames {
    /// The name of a daemon.
    pub fn of(&self, service: Service) -> &str {
        match service {
            Service::Bounce => &self.bounce,
            Service::Defer => &self.defer,
            Service::Trace => &self.trace,
            Service::Verify => &self.verify,
            Service::Flush => &self.flush,
            Service::Cleanup => &self.cleanup,
        }
    }

    /// Its socket, below the queue directory.
    pub fn socket(&self, service: Service) -> String {
        let class = match service {
            Service::Flush | Service::Cleanup => "public",
            _ => "private",
        };
        format!("{class}/{}", self.of(service))
    }
}

/// Something to tell a daemon, which answers with a status.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Whom.
    pub service: Service,
    /// The list.
    pub octets: Vec<u8>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.service, self.octets.escape_ascii())
    }
}

/// What a log of bounce(8) learns about a recipient.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The flags of the request that bounce(8) knows.
    pub flags: u32,
    /// The message.
    pub queue_id: &'a str,
    /// For whom, as it came in the request.
    pub recipient: &'a Recipient,
    /// Which reports this recipient still wants from us.
    pub notify: u32,
    /// The enhanced status.
    pub status: EnhancedStatus,
    /// What the server has said, lines joined by LF, and its host name; `None` where we decided ourselves.
    pub said: Option<(&'a str, &'a str)>,
    /// `failed`, `delayed` and the like.
    pub action: &'a str,
    /// Why, as in the log.
    pub reason: &'a str,
}

impl Entry<'_> {
    /// Adds the entry to the log of `service`: bounce, defer or trace.
    pub fn append_to(self, service: Service) -> Call {
        let Self { flags, queue_id, recipient, notify, status, said, action, reason } = self;
        let (kind, text, host_kind, host) = match said {
            Some((text, host)) if !text.is_empty() && !host.is_empty() => ("smtp", text, "dns", host),
            _ => ("", "", "", ""),
        };
        let list = Writer::new().number("nrequest", 0_u32).number("flags", flags).text("queue_id", queue_id);
        let octets = recipient
            .write_to(notify, list)
            .text("status", status.to_string())
            .text("diag_type", kind)
            .text("diag_text", text.replace('\n', " "))
            .text("mta_type", host_kind)
            .text("mta_mname", host)
            .text("action", action)
            .text("reason", if reason.is_empty() { "no reason is known" } else { reason })
            .end();
        Call { service, octets }
    }
}

/// Whether an address is good, as verify(8) counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Mail for it would be taken.
    Deliverable,
    /// It cannot be told now.
    Deferred,
    /// Mail for it would be returned.
    Bounced,
}

/// Tells verify(8) about an address.
pub fn update(address: &[u8], verified: Verified, reason: &str) -> Call {
    let status: u32 = match verified {
        Verified::Deliverable => 0,
        Verified::Deferred => 1,
        Verified::Bounced => 2,
    };
    let octets = Writer::new()
        .text("request", "update")
        .text("address", address)
        .number("recipient_status", status)
        .text("reason", reason)
        .end();
    Call { service: Service::Verify, octets }
}

/// Tells flush(8) that a message waits for a domain.
pub fn waits_for(domain: &[u8], queue_id: &str) -> Call {
    let octets = Writer::new().text("request", "add").text("site", domain).text("queue_id", queue_id).end();
    Call { service: Service::Flush, octets }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it goes over the wire, with NUL written as `~`.
    fn dump(call: &Call) -> String {
        String::from_utf8_lossy(&call.octets).replace('\0', "~")
    }

    #[test]
    fn an_append_has_the_octets_that_postfix_sends() {
        let recipient = Recipient {
            original: b"r550@tcp.example".to_vec(),
            address: b"r550@tcp.example".to_vec(),
            offset: Some(242),
            dsn_orcpt: b"rfc822;r550@tcp.example".to_vec(),
            notify: 0,
        };
        let entry = Entry {
            flags: 0,
            queue_id: "364569B87C0",
            recipient: &recipient,
            notify: 0,
            status: EnhancedStatus::new(5, 1, 1),
            said: Some(("550-5.1.1 no such user\n550 5.1.1 <r550@tcp.example> really", "127.0.0.1")),
            action: "failed",
            reason: "host 127.0.0.1[127.0.0.1] said: 550-5.1.1 no such user 550 5.1.1 \
                     <r550@tcp.example> really (in reply to RCPT TO command)",
        };
        let call = entry.append_to(Service::Bounce);
        assert_eq!(
            dump(&call),
            "nrequest~0~flags~0~queue_id~364569B87C0~original_recipient~r550@tcp.example~\
             recipient~r550@tcp.example~offset~242~dsn_orig_rcpt~rfc822;r550@tcp.example~notify_flags~0~\
             status~5.1.1~diag_type~smtp~diag_text~550-5.1.1 no such user 550 5.1.1 <r550@tcp.example> really~\
             mta_type~dns~mta_mname~127.0.0.1~action~failed~reason~host 127.0.0.1[127.0.0.1] said: 550-5.1.1 no \
             such user 550 5.1.1 <r550@tcp.example> really (in reply to RCPT TO command)~~"
        );
        assert_eq!(call.octets.len(), 440);
        assert!(call.octets.starts_with(&[0x6e, 0x72, 0x65, 0x71, 0x75, 0x65, 0x73, 0x74, 0x00, 0x30, 0x00]));
    }

    #[test]
    fn an_append_of_our_own_decision_names_no_server() {
        let recipient = Recipient { address: b"a@x".to_vec(), ..Recipient::default() };
        for said in [None, Some(("", "mx")), Some(("550 no", ""))] {
            let entry = Entry {
                flags: 1024,
                queue_id: "A",
                recipient: &recipient,
                notify: 8,
                status: EnhancedStatus::new(4, 4, 1),
                said,
                action: "delayed",
                reason: "",
            };
            assert_eq!(
                dump(&entry.append_to(Service::Defer)),
                "nrequest~0~flags~1024~queue_id~A~original_recipient~~recipient~a@x~offset~18446744073709551615~\
                 dsn_orig_rcpt~~notify_flags~8~status~4.4.1~diag_type~~diag_text~~mta_type~~mta_mname~~\
                 action~delayed~reason~no reason is known~~"
            );
        }
    }

    #[test]
    fn updates_and_hints_are_written_in_order() {
        let call = update(b"a@x", Verified::Bounced, "550 no");
        assert_eq!(
            (call.service, dump(&call).as_str()),
            (Service::Verify, "request~update~address~a@x~recipient_status~2~reason~550 no~~")
        );
        assert!(dump(&update(b"a@x", Verified::Deliverable, "")).contains("recipient_status~0~"));
        assert!(dump(&update(b"a@x", Verified::Deferred, "")).contains("recipient_status~1~"));
        let call = waits_for(b"x.example", "ABC");
        assert_eq!(
            (call.service, dump(&call).as_str()),
            (Service::Flush, "request~add~site~x.example~queue_id~ABC~~")
        );
    }

    #[test]
    fn each_daemon_has_its_socket() {
        let names = ServiceNames { trace: "my-trace".into(), ..ServiceNames::default() };
        for (service, socket) in [
            (Service::Bounce, "private/bounce"),
            (Service::Defer, "private/defer"),
            (Service::Trace, "private/my-trace"),
            (Service::Verify, "private/verify"),
            (Service::Flush, "public/flush"),
            (Service::Cleanup, "public/cleanup"),
        ] {
            assert_eq!(names.socket(service), socket);
        }
    }
}
