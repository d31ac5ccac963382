//! Notices to the postmaster that are about us and our peers, not about a message.
//!
//! - Owns: the words of the classes `protocol`, `resource` and `software`.
//! - Leaves to others: which classes are wanted, and the report kinds of the postmaster (`report`).

use jiff::Timestamp;
use mail_builder::mime::MimePart;

use crate::mail::{Address, QueueId};

use super::message::{Author, Frame, Notice, ORIGIN_POSTMASTER};
use super::text::{Charset, one_line, wrap};

/// Lines of a transcript; what was said first is kept, because that is where a conversation goes wrong.
const TRANSCRIPT_LINES_MAX: usize = 500;
/// Octets of one of them.
const LINE_MAX: usize = 500;

/// A class of `notify_classes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleClass {
    /// A server broke the protocol.
    Protocol,
    /// Mail could not be handled for want of space, memory or descriptors.
    Resource,
    /// Mail could not be handled because something in the program or its set-up is wrong.
    Software,
}

/// One line of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// By us.
    Client(&'a str),
    /// By the server.
    Server(&'a str),
}

/// Something that the postmaster should know.
#[derive(Clone, Copy, Debug)]
pub struct Trouble<'a> {
    /// What kind of thing.
    pub class: TroubleClass,
    /// A fresh ID, used for nothing else.
    pub id: QueueId,
    /// Who we are.
    pub author: Author<'a>,
    /// Whom to tell.
    pub to: &'a Address,
    /// What happened, and what has become of the mail, in a sentence or two.
    pub about: &'a str,
    /// What was said before, where this is about a conversation.
    pub transcript: &'a [Said<'a>],
    /// The time of the notice.
    pub now: Timestamp,
}

impl Trouble<'_> {
    /// Writes the notice.
    pub fn write(&self) -> Notice {
        let subject = match self.class {
            TroubleClass::Protocol => "Postmaster notice: a server broke the protocol",
            TroubleClass::Resource => "Postmaster notice: a resource is short",
            TroubleClass::Software => "Postmaster notice: a problem in the mail software",
        };
        let frame = Frame {
            author: self.author,
            id: self.id,
            to: self.to,
            subject,
            now: self.now,
            origin: ORIGIN_POSTMASTER,
        };
        frame.write(MimePart::new("text/plain", self.words()))
    }

    fn words(&self) -> String {
        let mut out = String::new();
        let host = one_line(self.author.hostname, Charset::Ascii, 255);
        wrap(&mut out, "", &format!("This is the mail system at host {host}."));
        out.push_str("\r\n");
        wrap(&mut out, "", &one_line(self.about, Charset::Utf8, 4000));
        if !self.transcript.is_empty() {
            out.push_str("\r\nThe conversation (C: this host, S: the server):\r\n\r\n");
        }
        for said in self.transcript.iter().take(TRANSCRIPT_LINES_MAX) {
            let (who, text) = match said {
                Said::Client(text) => ("C", text),
                Said::Server(text) => ("S", text),
            };
            let line = format!("{who}: {}", one_line(text, Charset::Utf8, LINE_MAX));
            out.push_str(line.trim_end());
            out.push_str("\r\n");
        }
        if let Some(more @ 1..) = self.transcript.len().checked_sub(TRANSCRIPT_LINES_MAX) {
            out.push_str(&format!("({more} more lines)\r\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_cannot_add_fields_or_lines() {
        let trouble = Trouble {
            class: TroubleClass::Protocol,
            id: QueueId::new(1, 1),
            author: Author { hostname: "mx.example", origin: "example" },
            to: &"postmaster@example".parse().unwrap(),
            about: "The server broke\r\nSubject: the rules",
            transcript: &[Said::Client("RSET"), Said::Server("250 fine\r\nC: QUIT"), Said::Server("")],
            now: Timestamp::UNIX_EPOCH,
        };
        let notice = trouble.write();
        let text = String::from_utf8(notice.content).unwrap();
        assert_eq!(text.matches("Subject: ").count(), 2);
        assert!(text.contains("\r\nThe server broke Subject: the rules\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nC: RSET\r\nS: 250 fine  C: QUIT\r\nS:\r\n"), "{text}");
        assert_eq!(notice.origin, ORIGIN_POSTMASTER);
    }
}
