//! The message on its way through: who stands in its header, what its header lacks.
//!
//! - Owns: reading the header, recipients for `-t`, removing Bcc and Return-Path, adding Received, From, Date and
//!   Message-ID. PURE: bytes in, bytes out.
//! - Leaves to others: where it ends (`input`), line endings and size (`spool`), the body, which streams by.
//! - Always true: at most [`HEADER_SIZE_MAX`] octets of a message are in memory (twice while they are written), and a
//!   field is kept as it came, octet by octet, or left out as a whole.

use std::io::{self, BufRead, Read};

use mail_builder::headers::Header as _;
use mail_builder::headers::address::Address as HeaderAddress;

use super::address_list::{self, BadList};
use crate::mail::{Address, Sender};
use crate::spool::PENDING_ID;

/// Octets of a header. Programs make ones of some kilobytes; only recipients of `-t` fill more: a million of them fit,
/// which is what a queue file takes.
pub const HEADER_SIZE_MAX: u32 = 32 << 20;
/// Octets by which a line is known to separate messages in a mailbox file.
const SEPARATOR_SEEN: u64 = 64;
/// Such lines before a message. Each mailbox that it has been through may have added one.
const SEPARATORS_MAX: usize = 1000;

/// Why a message cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum BadMessage {
    /// Its header does not end.
    #[error("the header of the message is larger than {HEADER_SIZE_MAX} octets")]
    HeaderTooLarge,
    /// A field that should list recipients does not.
    #[error("the {field} field of the message cannot be read: {why}")]
    Recipients {
        /// Its name.
        field: String,
        /// What is wrong.
        why: BadList,
    },
    /// The input failed.
    #[error("the message cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Leaves out the lines that separate messages in a mailbox file, where a message begins with them. Returns what had to be
/// read to see that it does not any more.
pub fn skip_separators(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    for _ in 0..SEPARATORS_MAX {
        let mut start = Vec::new();
        reader.take(SEPARATOR_SEEN).read_until(b'\n', &mut start)?;
        if !is_separator(&start) {
            return Ok(start);
        }
        if !start.ends_with(b"\n") {
            reader.skip_until(b'\n')?;
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it begins with nothing but lines of a mailbox file"))
}

/// A message's header.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// As it came, but for what is in no field.
    text: Vec<u8>,
    /// Small, because a header may be nothing but fields of three octets.
    fields: Vec<Extent>,
    /// The empty line that ended it, as it came; nothing if there was none.
    end: Vec<u8>,
}

/// Where in a header's text a field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u32,
    name_end: u32,
    end: u32,
}

/// A field of a header.
#[derive(Clone, Copy, Debug)]
struct Field<'a> {
    name: &'a [u8],
    /// All lines of it with their ends, the name included.
    raw: &'a [u8],
}

/// What we add to a header; From, Date and Message-ID only where they are missing.
#[derive(Clone, Debug)]
pub struct Additions<'a> {
    /// `myhostname`.
    pub host: &'a str,
    /// Who submits the message.
    pub uid: u32,
    /// What nobody else's Message-ID begins with.
    pub unique: &'a str,
    /// Now, as a header has it.
    pub date: &'a str,
    /// The envelope sender.
    pub sender: &'a Sender,
    /// The sender's full name.
    pub full_name: Option<&'a str>,
    /// `myorigin`, for a message without sender.
    pub origin: &'a str,
}

impl Header {
    /// Reads a header, and the empty line after it. Also returns what was read of the body: a message may begin
    /// with its body, or its body may follow the last field directly. Lines that separate messages in a mailbox file
    /// are no fields, and dropped where the message begins with them.
    pub fn read(reader: &mut impl BufRead) -> Result<(Self, Vec<u8>), BadMessage> {
        let mut header = Self::default();
        let mut left = HEADER_SIZE_MAX;
        loop {
            let start = header.text.len();
            let length = reader.take(left.into()).read_until(b'\n', &mut header.text)?;
            let line = header.text.get(start..).unwrap_or_default();
            if matches!(line, b"" | b"\n" | b"\r\n") {
                header.end = header.text.split_off(start);
                // Nothing was read because nothing may be read any more.
                return if left == 0 { Err(BadMessage::HeaderTooLarge) } else { Ok((header, Vec::new())) };
            }
            if start == 0 && is_separator(line) {
                header.text.truncate(start);
            } else if !header.take_line(start) {
                let body = header.text.split_off(start);
                return Ok((header, body));
            }
            // At most what was left, which fits.
            left -= u32::try_from(length).unwrap_or(left);
        }
    }

    /// Takes the line from `start` on as a field or the rest of one; not if it belongs to the body.
    fn take_line(&mut self, start: usize) -> bool {
        let line = self.text.get(start..).unwrap_or_default();
        // All of these are below the limit.
        let at = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX);
        let end = at(self.text.len());
        if let Some(name_length) = field_name(line) {
            self.fields.push(Extent { start: at(start), name_end: at(start + name_length), end });
            return true;
        }
        match self.fields.last_mut() {
            Some(field) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                field.end = end;
                true
            }
            _ => false,
        }
    }

    fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|extent| extent.in_text(&self.text))
    }

    /// The recipients that the header names: those of its Resent- fields if it has any, else of To, Cc and Bcc.
    pub fn recipients(&self) -> Result<Vec<Address>, BadMessage> {
        let is_resent = ["Resent-To", "Resent-Cc", "Resent-Bcc"].iter().any(|name| self.has(name));
        let names = if is_resent { ["Resent-To", "Resent-Cc", "Resent-Bcc"] } else { ["To", "Cc", "Bcc"] };
        let mut recipients = Vec::new();
        for field in self.fields().filter(|field| field.is_one_of(&names)) {
            let name = || String::from_utf8_lossy(field.name).into_owned();
            let why = |why| BadMessage::Recipients { field: name(), why };
            recipients.append(&mut address_list::parse(&field.value()).map_err(why)?);
        }
        Ok(recipients)
    }

    /// Leaves out what nobody else may see.
    pub fn remove_bcc(&mut self) {
        let Self { text, fields, .. } = self;
        fields.retain(|extent| !extent.in_text(text).is_one_of(&["Bcc", "Resent-Bcc"]));
    }

    /// Whether there is nothing but ASCII in it.
    pub fn is_ascii(&self) -> bool {
        self.fields().all(|field| field.raw.is_ascii())
    }

    /// What is left of it, octet by octet, with the empty line after it if there was one.
    pub fn as_it_came(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + self.end.len());
        self.fields().for_each(|field| out.extend_from_slice(field.raw));
        out.extend_from_slice(&self.end);
        out
    }

    /// Writes the header as it is queued, and the empty line after it. Return-Path is what the last server on the
    /// way writes, so that one that is here already would be a lie.
    pub fn write(&self, additions: &Additions<'_>) -> Vec<u8> {
        let mut out = additions.received().into_bytes();
        out.reserve(self.text.len());
        for field in self.fields().filter(|field| !field.is_one_of(&["Return-Path"])) {
            out.extend_from_slice(field.raw);
            if !field.raw.ends_with(b"\n") {
                out.push(b'\n');
            }
        }
        let Additions { host, unique, date, .. } = additions;
        if self.lacks_from() {
            out.extend_from_slice(&additions.from());
        }
        if !self.has("Date") {
            out.extend_from_slice(format!("Date: {date}\n").as_bytes());
        }
        if !self.has("Message-ID") {
            out.extend_from_slice(format!("Message-ID: <{unique}@{host}>\n").as_bytes());
        }
        out.push(b'\n');
        out
    }

    /// Whether it says nothing of whom the message is from, so that we do.
    pub fn lacks_from(&self) -> bool {
        !self.has("From")
    }

    fn has(&self, name: &str) -> bool {
        self.fields().any(|field| field.is_one_of(&[name]))
    }
}

impl Extent {
    fn in_text(self, text: &[u8]) -> Field<'_> {
        let part = |end: u32| text.get(self.start as usize..end as usize).unwrap_or_default();
        Field { name: part(self.name_end), raw: part(self.end) }
    }
}

impl Field<'_> {
    fn is_one_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// What stands after the colon, folded as it is. Octets that are no UTF-8 show as replacement characters:
    /// in a display name they do no harm, and an address with one is refused.
    fn value(&self) -> String {
        let value = self.raw.iter().position(|&b| b == b':').and_then(|at| self.raw.get(at + 1..));
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    }
}

/// Whether a line separates messages in a mailbox file. Who stores a message that has one puts a `>` before it.
fn is_separator(line: &[u8]) -> bool {
    let marks = line.iter().take_while(|&&octet| octet == b'>').count();
    line.get(marks..).is_some_and(|line| line.starts_with(b"From "))
}

/// Octets of the name of the field that a line begins (RFC 5322 sections 2.2 and 4.5: blanks before the colon are old).
fn field_name(line: &[u8]) -> Option<usize> {
    let name = line.get(..memchr::memchr(b':', line)?)?.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some(name.len())
}

impl Additions<'_> {
    fn received(&self) -> String {
        let Self { host, uid, date, .. } = self;
        // Whoever puts the message into the queue gives it an ID, and knows this place for it.
        format!("Received: by {host} (lastmile, from userid {uid})\n\tid {PENDING_ID}; {date}\n")
    }

    fn from(&self) -> Vec<u8> {
        let (name, address) = match self.sender.address() {
            Some(address) => (self.full_name.map(printable), address.to_string()),
            None => (Some("Mail Delivery System".to_owned()), format!("MAILER-DAEMON@{}", self.origin)),
        };
        let mut out = b"From: ".to_vec();
        let name = name.filter(|name| !name.is_empty());
        HeaderAddress::new_address(name, address).write_header(&mut out, "From: ".len());
        out
    }
}

/// A name without anything that could end its line.
fn printable(name: &str) -> String {
    name.replace(char::is_control, " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    fn additions<'a>(sender: &'a Sender, full_name: Option<&'a str>) -> Additions<'a> {
        let (host, unique, date) = ("mx.example", "ID7", "Sat, 21 Nov 2026 19:30:00 +0000");
        Additions { host, uid: 1000, unique, date, sender, full_name, origin: "example" }
    }

    /// The message as it is queued, without the Received field.
    fn queued(text: &str, sender: &str, full_name: Option<&str>, extract: bool) -> String {
        let mut reader = text.as_bytes();
        let (mut header, body) = Header::read(&mut reader).unwrap();
        if extract {
            header.remove_bcc();
        }
        let sender = sender.parse().unwrap();
        let mut out = header.write(&additions(&sender, full_name));
        out.extend_from_slice(&body);
        out.extend_from_slice(reader);
        let out = String::from_utf8(out).unwrap();
        let received = "Received: by mx.example (lastmile, from userid 1000)\n\tid (not-yet-in-a-queue); \
                        Sat, 21 Nov 2026 19:30:00 +0000\n";
        out.strip_prefix(received).unwrap().to_owned()
    }

    #[test]
    fn missing_fields_are_added_and_the_others_stay() {
        let date = "Date: Sat, 21 Nov 2026 19:30:00 +0000\n";
        let id = "Message-ID: <ID7@mx.example>\n";
        for (text, expected) in [
            ("Subject: x\n\nbody\n", format!("Subject: x\nFrom: \"Ann\" <a@x>\r\n{date}{id}\nbody\n")),
            ("", format!("From: \"Ann\" <a@x>\r\n{date}{id}\n")),
            (
                "just text\nmore: text\n",
                format!("From: \"Ann\" <a@x>\r\n{date}{id}\njust text\nmore: text\n"),
            ),
            (
                "from: b@y\nDATE: then\nmessage-id : <1@y>\n\n",
                "from: b@y\nDATE: then\nmessage-id : <1@y>\n\n".into(),
            ),
            ("From: b@y\r\nDate: then\r\n\r\nbody\r\n", format!("From: b@y\r\nDate: then\r\n{id}\nbody\r\n")),
            (
                "From ann Sat Nov\nFrom: b@y\nDate: t\n\nFrom x\n",
                format!("From: b@y\nDate: t\n{id}\nFrom x\n"),
            ),
            (
                "From ann Sat Nov\n>>From bob Fri Nov\nFrom: b@y\nDate: t\n\n>From x\n",
                format!("From: b@y\nDate: t\n{id}\n>From x\n"),
            ),
            ("From: b@y\nDate: t\nSubject: no end", format!("From: b@y\nDate: t\nSubject: no end\n{id}\n")),
            ("From: b@y\nDate: t\nbody at once\n", format!("From: b@y\nDate: t\n{id}\nbody at once\n")),
            (
                "Return-Path: <c@z>\n (folded)\nFrom: b@y\nDate: t\nBcc: d@z\n\n",
                format!("From: b@y\nDate: t\nBcc: d@z\n{id}\n"),
            ),
        ] {
            let queued = queued(text, "a@x", Some("Ann"), false);
            assert_eq!(queued, expected, "{text:?}");
        }
    }

    #[test]
    fn the_sender_becomes_from() {
        for (sender, name, from) in [
            ("a@x", None, "<a@x>"),
            ("a@x", Some("J\u{fc}rgen"), "=?utf-8?Q?J=C3=BCrgen?= <a@x>"),
            ("a@x", Some("Ann\r\nBcc: b@y"), "\"Ann  Bcc: b@y\" <a@x>"),
            ("a@x", Some("\n"), "<a@x>"),
            ("", Some("Ann"), "\"Mail Delivery System\" <MAILER-DAEMON@example>"),
        ] {
            let queued = queued("Date: t\nMessage-ID: i\n\n", sender, name, false);
            let line = queued.lines().find_map(|line| line.strip_prefix("From: ")).unwrap();
            assert_eq!(line, from, "{sender:?} {name:?}");
        }
    }

    #[test]
    fn recipients_come_from_the_header_and_bcc_goes() {
        for (header, recipients) in [
            ("To: a@x\nCc: Bob <b@y>,\n c@z\nBCC: d@z\n\nTo: e@z\n", "a@x b@y c@z d@z"),
            ("To: a@x\nResent-To: f@x\nResent-Bcc: g@x\n\n", "f@x g@x"),
            ("To: undisclosed-recipients:;\n\n", ""),
            ("Subject: x\n\n", ""),
            ("To: a@x\nTo: b@y\n\n", "a@x b@y"),
        ] {
            let (read, _) = Header::read(&mut header.as_bytes()).unwrap();
            let found: Vec<_> = read.recipients().unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), recipients, "{header:?}");
            let queued = queued(header, "a@x", None, true).to_lowercase();
            assert!(!queued.split("\n\n").next().unwrap().contains("bcc:"), "{queued}");
        }
        let (header, _) = Header::read(&mut &b"Cc: Ann Doe\n\n"[..]).unwrap();
        assert!(header.recipients().unwrap_err().to_string().starts_with("the Cc field"));
    }

    #[test]
    fn a_header_is_bounded_and_a_body_is_not() {
        let long = format!("Subject: {}", "x\n ".repeat(HEADER_SIZE_MAX as usize / 3));
        assert!(matches!(Header::read(&mut long.as_bytes()), Err(BadMessage::HeaderTooLarge)));
        let text = "no header ".repeat(200_000);
        let mut reader = text.as_bytes();
        let (header, body) = Header::read(&mut reader).unwrap();
        assert_eq!(header, Header::default());
        assert_eq!(body.len() + reader.len(), text.len());
    }

    proptest! {
        #[test]
        fn every_octet_comes_through_but_for_what_is_removed(
            text in "([A-Za-z]{1,8}: ?[a-z\u{e9}]{0,9}\r?\n( [a-z]{1,5}\r?\n)?){0,6}(\r?\n[a-z.\r\n]{0,30})?",
        ) {
            let (mut reader, sender) = (text.as_bytes(), Sender::NULL);
            let (header, body) = Header::read(&mut reader).unwrap();
            let out = header.write(&additions(&sender, None));
            let fields: Vec<u8> = header.fields().flat_map(|field| field.raw.to_vec()).collect();
            prop_assert!(memchr::memmem::find(&out, &fields).is_some());
            let rest = [&body[..], reader].concat();
            let head = text.len() - rest.len();
            prop_assert_eq!(&text.as_bytes()[head..], &rest[..]);
            prop_assert!(text.as_bytes()[..head].starts_with(&fields));
            prop_assert!(matches!(&text.as_bytes()[fields.len()..head], b"" | b"\n" | b"\r\n"));
        }

        #[test]
        fn no_input_panics(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut reader = BufReader::with_capacity(7, &text[..]);
            let (header, _) = Header::read(&mut reader).unwrap();
            let _ = header.recipients();
        }
    }
}
