//! Notices to the postmaster that are about us and our peers, not about a message.
//!
//! - Owns: the words of the classes `protocol`, `resource` and `software`.
//! - Leaves to others: which classes are wanted, and the report kinds of the postmaster (`report`).

use jiff::Timestamp;

use crate::mail::{Address, QueueId};

use super::message::{Author, Frame, Notice, ORIGIN_POSTMASTER, text_part};
use super::text::{Charset, one_line, wrap, wrap_words};

/// Lines of the beginning of a transcript: they tell what kind of server it is.
const FIRST_LINES: usize = 100;
/// Lines of its end, where the conversation went wrong.
const LAST_LINES: usize = 400;
/// Octets of one of them.
const LINE_MAX: usize = 600;

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
    /// By nobody: a remark about the conversation.
    Note(&'a str),
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
        frame.write(text_part(self.words()))
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
        let left_out = self.transcript.len().saturating_sub(FIRST_LINES + LAST_LINES);
        for (at, said) in self.transcript.iter().enumerate() {
            if left_out > 0 && at == FIRST_LINES {
                line(&mut out, Said::Note(&format!("{left_out} lines are left out here")));
            }
            if !(FIRST_LINES..FIRST_LINES + left_out).contains(&at) {
                line(&mut out, *said);
            }
        }
        out
    }
}

/// Writes a line of a transcript.
fn line(out: &mut String, said: Said<'_>) {
    match said {
        Said::Client(text) => wrap_words(out, "C:", &one_line(text, Charset::Utf8, LINE_MAX)),
        Said::Server(text) => wrap_words(out, "S:", &one_line(text, Charset::Utf8, LINE_MAX)),
        Said::Note(text) => wrap_words(out, "  ", &format!("({})", one_line(text, Charset::Utf8, LINE_MAX))),
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
