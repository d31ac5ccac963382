//! A delivery report (RFC 3464 in the frame of RFC 6522): words for people, fields for programs, the message.
//!
//! - Owns: the kinds of report, and which parts each is made of.
//! - Leaves to others: whom to send it to (`plan`), the words (`human`), the fields (`delivery_status`).

use jiff::Timestamp;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::text::Text;
use mail_builder::mime::MimePart;

use crate::mail::{Address, Envelope, Protocol, QueueId, Reason, Recipient};

use super::message::{Author, Frame, Notice, text_part};
use super::message::{ORIGIN_BOUNCE, ORIGIN_DELAY, ORIGIN_POSTMASTER, ORIGIN_SUCCESS};
use super::original::{HeaderOnly, Original};
use super::text::Charset;
use super::{delivery_status, human};

/// What a report is about, and for whom it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the sender: these recipients will not get the message.
    Bounce,
    /// To the sender: these recipients do not have it yet.
    Delay {
        /// When we give up.
        retry_until: Timestamp,
    },
    /// To the sender, who asked for it: these recipients were handed over to a server that reports no success.
    Success,
    /// To the postmaster: a message without sender, most often a bounce, could not be delivered.
    DoubleBounce,
    /// To the postmaster: that a sender has been told of a failure.
    BounceCopy,
    /// To the postmaster: that a sender has been told of a delay.
    DelayCopy {
        /// When we give up.
        retry_until: Timestamp,
    },
}

impl Kind {
    /// Whether all of the message may go back.
    pub(super) fn returns_content(self) -> bool {
        matches!(self, Self::Bounce | Self::DoubleBounce)
    }

    /// The Action field (RFC 3464 section 2.3.3). An LMTP server makes the final delivery; what another server
    /// does with the message we cannot know.
    pub(super) fn action(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Self::Bounce | Self::DoubleBounce | Self::BounceCopy, _) => "failed",
            (Self::Delay { .. } | Self::DelayCopy { .. }, _) => "delayed",
            (Self::Success, Protocol::Lmtp) => "delivered",
            (Self::Success, Protocol::Smtp) => "relayed",
        }
    }

    fn subject(self, protocol: Protocol) -> &'static str {
        match self {
            Self::Success if protocol == Protocol::Smtp => "Relayed: your message has been handed over",
            Self::Bounce => "Undeliverable: your message was not delivered",
            Self::Delay { .. } => "Delayed: your message is still on its way",
            Self::Success => "Delivered: your message has arrived",
            Self::DoubleBounce => "Postmaster notice: a bounce could not be delivered",
            Self::BounceCopy => "Postmaster copy: a message was not delivered",
            Self::DelayCopy { .. } => "Postmaster copy: a message is delayed",
        }
    }

    fn origin(self) -> &'static str {
        match self {
            Self::Bounce => ORIGIN_BOUNCE,
            Self::Delay { .. } => ORIGIN_DELAY,
            Self::Success => ORIGIN_SUCCESS,
            Self::DoubleBounce | Self::BounceCopy | Self::DelayCopy { .. } => ORIGIN_POSTMASTER,
        }
    }
}

/// One recipient of the message that is reported.
#[derive(Clone, Copy, Debug)]
pub struct ReportedRecipient<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// What became of it, in the server's words or ours.
    pub reason: &'a Reason,
    /// The host that said so; our own host name for a UNIX socket; `None` where no server was asked.
    pub remote_mta: Option<&'a str>,
    /// What was spoken to that host.
    pub protocol: Protocol,
    /// When it was tried last.
    pub last_attempt: Option<Timestamp>,
}

/// A delivery report to be written.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// About what, for whom.
    pub kind: Kind,
    /// A fresh ID, used for nothing else: the Message-ID and the MIME boundary are made of it.
    pub id: QueueId,
    /// Who we are.
    pub author: Author<'a>,
    /// Whom to tell.
    pub to: &'a Address,
    /// The message.
    pub envelope: &'a Envelope,
    /// Its recipients that are reported; all in one report.
    pub recipients: &'a [ReportedRecipient<'a>],
    /// The beginning of its content in wire form: [`octets_wanted`](super::octets_wanted) of it, or all there is.
    pub content_start: &'a [u8],
    /// Octets of a message up to which a bounce returns all of it.
    pub return_limit: u64,
    /// The time of the notice.
    pub now: Timestamp,
}

impl Report<'_> {
    /// Writes the report.
    pub fn write(&self) -> Notice {
        let charset = self.charset();
        // RFC 3463: 5.6.3, conversion required but not supported. Where bounces go there may be the same server.
        let ascii = self.recipients.iter().any(|r| r.reason.status.subject_and_detail() == (6, 3));
        let original =
            Original::choose(self.kind, self.envelope, self.content_start, self.return_limit, ascii);
        let words = human::words(self, &original, charset);
        let status = delivery_status::write(self, charset);
        let boundary = boundary(self.id, &[words.as_bytes(), &status, original.octets()]);
        let parts = vec![
            text_part(words).header("Content-Description", Text::new("What happened")),
            raw_part(status_type(charset), "Delivery report", &status),
            raw_part(original_type(charset, &original), original_words(&original), original.octets()),
        ];
        let kind = ContentType::new("multipart/report")
            .attribute("report-type", report_type(charset))
            .attribute("boundary", boundary);
        self.frame().write(MimePart::new(kind, parts))
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            author: self.author,
            id: self.id,
            to: self.to,
            subject: self.kind.subject(self.protocol()),
            now: self.now,
            origin: self.kind.origin(),
        }
    }

    /// What was spoken to the server: the same for all who are reported together.
    pub(super) fn protocol(&self) -> Protocol {
        self.recipients.first().map_or(Protocol::Lmtp, |reported| reported.protocol)
    }

    /// The international types are for those who sent an international message, or to an address that the
    /// others cannot name (RFC 6533 section 4).
    fn charset(&self) -> Charset {
        let international = self.envelope.smtputf8
            || self.envelope.sender.address().is_some_and(Address::needs_smtputf8)
            || self.recipients.iter().any(|r| r.recipient.address.needs_smtputf8());
        if international { Charset::Utf8 } else { Charset::Ascii }
    }
}

fn report_type(charset: Charset) -> &'static str {
    match charset {
        Charset::Ascii => "delivery-status",
        Charset::Utf8 => "global-delivery-status",
    }
}

fn status_type(charset: Charset) -> &'static str {
    match charset {
        Charset::Ascii => "message/delivery-status",
        Charset::Utf8 => "message/global-delivery-status",
    }
}

fn original_type(charset: Charset, original: &Original<'_>) -> &'static str {
    match (charset, original) {
        (Charset::Ascii, Original::Full(_)) => "message/rfc822",
        (Charset::Utf8, Original::Full(_)) => "message/global",
        (Charset::Ascii, Original::Header(..)) => "text/rfc822-headers",
        (Charset::Utf8, Original::Header(..)) => "message/global-headers",
    }
}

fn original_words(original: &Original<'_>) -> &'static str {
    match original {
        Original::Full(_) => "The message",
        Original::Header(_, HeaderOnly::Habit) => "Header of the message",
        Original::Header(_, HeaderOnly::Large) => "Header of the message, which is large",
        Original::Header(_, HeaderOnly::EightBit) => "Header of the message, as far as it is ASCII",
        Original::Header(_, HeaderOnly::Unfit) => {
            "Header of the message, which is not in a form to be attached"
        }
    }
}

/// A part that is written as it is.
fn raw_part<'a>(kind: &'a str, description: &'a str, octets: &'a [u8]) -> MimePart<'a> {
    MimePart::new(kind, octets)
        .header("Content-Description", Text::new(description))
        .transfer_encoding(if octets.is_ascii() { "7bit" } else { "8bit" })
}

/// A boundary that none of the parts holds, even if somebody has guessed the ID.
fn boundary(id: QueueId, parts: &[&[u8]]) -> String {
    let is_free = |boundary: &String| {
        parts.iter().all(|part| memchr::memmem::find(part, boundary.as_bytes()).is_none())
    };
    // Every number that is taken takes room in a part, so that this ends before the numbers do.
    (0_u64..).map(|number| format!("={id}={number}=")).find(is_free).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::BodyType;

    pub(in crate::notice) fn envelope() -> Envelope {
        Envelope {
            id: "0LATE0M1NUTE00000001".parse().unwrap(),
            sender: "s@x.example".parse().unwrap(),
            arrival: Timestamp::UNIX_EPOCH,
            nexthop: None,
            body: BodyType::SevenBit,
            smtputf8: false,
            envid: None,
            ret: None,
            origin: "uid=1000".to_owned(),
            size: 0,
        }
    }

    pub(in crate::notice) fn recipient(
        address: &str,
        status: &str,
        text: &str,
        reply: Option<&str>,
    ) -> (Recipient, Reason) {
        let reason = Reason {
            status: status.parse().unwrap(),
            text: text.to_owned(),
            reply: reply.map(ToOwned::to_owned),
        };
        (Recipient::new(0, address.parse().unwrap()), reason)
    }

    /// Writes a bounce of `content` for one recipient.
    fn bounce(envelope: &Envelope, recipient: &Recipient, reason: &Reason, content: &[u8]) -> Notice {
        let reported = ReportedRecipient {
            recipient,
            reason,
            remote_mta: Some("mx.example"),
            protocol: Protocol::Lmtp,
            last_attempt: None,
        };
        Report {
            kind: Kind::Bounce,
            id: QueueId::new(7, 7),
            author: Author { hostname: "mx.example", origin: "example" },
            to: &"s@x.example".parse().unwrap(),
            envelope,
            recipients: &[reported],
            content_start: content,
            return_limit: 50_000,
            now: Timestamp::UNIX_EPOCH,
        }
        .write()
    }

    /// The names of the fields of a header or a group, folded lines left out.
    fn field_names(block: &str) -> Vec<&str> {
        let names = block.split("\r\n").filter(|line| !line.starts_with([' ', '\t']) && !line.is_empty());
        names.map(|line| line.split_once(": ").map_or(line, |(name, _)| name)).collect()
    }

    #[test]
    fn a_guessed_boundary_is_not_used() {
        let id = QueueId::new(7, 7);
        let (mut envelope, (recipient, reason)) = (envelope(), recipient("b@y", "5.1.1", "no", None));
        let content = format!("Subject: x\r\n\r\n--={id}=0=\r\n--={id}=1=--\r\n");
        envelope.size = content.len() as u64;
        let notice = bounce(&envelope, &recipient, &reason, content.as_bytes());
        let text = String::from_utf8(notice.content).unwrap();
        assert!(text.contains(&format!("boundary=\"={id}=2=\"")), "{text}");
        assert_eq!(text.matches(&format!("--={id}=2=")).count(), 4);
    }

    #[test]
    fn a_report_on_many_recipients_lists_a_hundred_for_people_and_all_for_programs() {
        let (envelope, one) = (envelope(), recipient("b@y", "5.1.1", &"long ".repeat(900), None));
        let reported = ReportedRecipient {
            recipient: &one.0,
            reason: &one.1,
            remote_mta: None,
            protocol: Protocol::Smtp,
            last_attempt: None,
        };
        let notice = Report {
            kind: Kind::Bounce,
            id: QueueId::new(7, 7),
            author: Author { hostname: "mx.example", origin: "example" },
            to: &"s@x.example".parse().unwrap(),
            envelope: &envelope,
            recipients: &vec![reported; 20_000],
            content_start: b"",
            return_limit: 50_000,
            now: Timestamp::UNIX_EPOCH,
        }
        .write();
        let text = String::from_utf8(notice.content).unwrap();
        assert_eq!(text.matches("  <b@y>").count(), 100);
        assert!(text.contains("... and 19900 more"));
        assert_eq!(text.matches("Final-Recipient: ").count(), 20_000);
        assert!(text.len() < 10_000_000, "{}", text.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn nothing_from_elsewhere_adds_a_field_or_a_part(
            local in "\\PC{1,40}|[a-z ]{1,900}",
            text in "(\\PC|[\r\n:-]|\\s){0,200}|[a-z]{1500}",
            reply in proptest::option::of("(\\PC|[\r\n:-]|\\s){0,200}|[a-z]{1500}"),
            envid in "(\\PC|[\r\n:-]|\\s){0,200}",
            orcpt in "rfc822;\\PC{1,100}",
            content in "(Subject: [a-z]{1,5}\r\n)?\r\n([a-zé-]{0,20}\r\n){0,9}",
            smtputf8: bool,
        ) {
            let address = Address::from_parts(&local, "y.example").unwrap();
            let mut recipient = Recipient::new(0, address);
            recipient.orcpt = orcpt.parse().ok();
            let has_orcpt = recipient.orcpt.is_some();
            let reason = Reason { status: "5.1.1".parse().unwrap(), text, reply };
            let mut envelope = envelope();
            (envelope.envid, envelope.smtputf8) = (Some(envid), smtputf8);
            envelope.size = content.len() as u64;

            let notice = bounce(&envelope, &recipient, &reason, content.as_bytes());
            let message = String::from_utf8(notice.content).unwrap();
            prop_assert!(message.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
            prop_assert_eq!(notice.body == BodyType::SevenBit, message.is_ascii());

            let (header, body) = message.split_once("\r\n\r\n").unwrap();
            prop_assert_eq!(
                field_names(header),
                ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
            );
            prop_assert!(header.is_ascii());
            let boundary = header.split('"').find(|word| word.starts_with('=')).unwrap();
            let parts: Vec<_> = format!("\r\n{body}").split(&format!("\r\n--{boundary}")).map(ToOwned::to_owned).collect();
            prop_assert_eq!(parts.len(), 5);
            prop_assert_eq!(&parts[4], "--\r\n");

            let status: Vec<_> = parts[2].split("\r\n\r\n").collect();
            prop_assert_eq!(status.len(), 3, "{:?}", status);
            let mut fields = field_names(status[1]);
            fields.retain(|name| *name != "Original-Envelope-Id");
            prop_assert_eq!(
                fields,
                ["Reporting-MTA", "X-Lastmile-Queue-ID", "X-Lastmile-Sender", "Arrival-Date"]
            );
            let mut fields = field_names(status[2]);
            if has_orcpt {
                prop_assert_eq!(fields.remove(0), "Original-Recipient");
            }
            prop_assert_eq!(fields, ["Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"]);
            let returned = format!("\r\n\r\n{content}");
            prop_assert!(parts[3].ends_with(&returned));
        }
    }
}
