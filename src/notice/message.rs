//! The frame of every notice: who writes, to whom, and the fields that all notices share.

use jiff::Timestamp;
use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address as HeaderAddress;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::MimePart;

use crate::mail::{Address, BodyType, QueueId};

use super::text::{Charset, WORD_MAX, one_line};

/// Origin of a bounce in its envelope.
pub const ORIGIN_BOUNCE: &str = "bounce";
/// Origin of a delay notice.
pub const ORIGIN_DELAY: &str = "delay";
/// Origin of a success notice.
pub const ORIGIN_SUCCESS: &str = "success";
/// Origin of what is written to the postmaster. Mail of this origin that cannot be delivered is not reported to
/// anybody: that is where reports about reports end.
pub const ORIGIN_POSTMASTER: &str = "postmaster";

/// Who we are.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// `myhostname`: the reporting MTA.
    pub hostname: &'a str,
    /// `myorigin`: the domain of MAILER-DAEMON.
    pub origin: &'a str,
}

/// A message of ours, ready to be queued with a null sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The one recipient.
    pub to: Address,
    /// Header and body in wire form.
    pub content: Vec<u8>,
    /// 8BITMIME where the content has octets over 127.
    pub body: BodyType,
    /// Whether a server needs SMTPUTF8 to take it: its recipient, and so its To field, is not ASCII.
    pub smtputf8: bool,
    /// What to queue it as.
    pub origin: &'static str,
}

/// What differs between notices.
pub(super) struct Frame<'a> {
    pub(super) author: Author<'a>,
    /// Unique: the Message-ID is made of it.
    pub(super) id: QueueId,
    pub(super) to: &'a Address,
    pub(super) subject: &'a str,
    pub(super) now: Timestamp,
    pub(super) origin: &'static str,
}

impl Frame<'_> {
    /// Writes the whole message around its body.
    pub(super) fn write(&self, body: MimePart<'_>) -> Notice {
        let domain = domain_word(self.author.origin);
        let mut content = Vec::new();
        MessageBuilder::new()
            .header(
                "From",
                HeaderAddress::new_address(Some("Mail Delivery System"), format!("MAILER-DAEMON@{domain}")),
            )
            .header("To", to_field(self.to))
            .header("Subject", Text::new(self.subject))
            .header("Date", Date::new(self.now.as_second()))
            .header(
                "Message-ID",
                MessageId::new(format!("{}@{}", self.id, domain_word(self.author.hostname))),
            )
            // RFC 3834 section 5: vacation responders and list servers do not answer this.
            .header("Auto-Submitted", Raw::new("auto-replied"))
            .body(body)
            .serialize(&mut content);
        let body = if content.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime };
        let smtputf8 = self.to.needs_smtputf8();
        Notice { to: self.to.clone(), content, body, smtputf8, origin: self.origin }
    }
}

/// Words for people, as they are: whoever looks at the message itself can read them, too. Their lines are short enough
/// for that (`text`).
pub(super) fn text_part(words: String) -> MimePart<'static> {
    let (charset, encoding) = if words.is_ascii() { ("us-ascii", "7bit") } else { ("utf-8", "8bit") };
    let kind = ContentType::new("text/plain").attribute("charset", charset);
    MimePart::new(kind, words.into_bytes()).transfer_encoding(encoding)
}

/// The To field. An address that fills a line by itself cannot be written into one.
fn to_field(to: &Address) -> HeaderAddress<'static> {
    let text = to.to_string();
    if text.len() > WORD_MAX {
        HeaderAddress::new_group(Some("long-address"), Vec::new())
    } else {
        HeaderAddress::new_address(None::<String>, text)
    }
}

/// A domain from the configuration without anything that could end a Message-ID or an address early.
fn domain_word(domain: &str) -> String {
    let mut word = one_line(domain, Charset::Ascii, 255);
    word.retain(|c| !" <>@()\",;\\".contains(c));
    word
}
