//! Commands as bytes (RFC 5321 section 4.1.1, RFC 1870, 3030, 3461, 4954, 6152, 6531).
//!
//! - Owns: the spelling and the order of commands and parameters.
//! - Leaves to others: when which command is sent (`session`, `transaction`).
//! - Always true: a command is one line. Addresses and parameters cannot hold CR, LF or NUL by their types, and
//!   free text is encoded.

use std::borrow::Cow;

use super::Capabilities;
use crate::mail::{Address, BodyType, Protocol, Recipient, Return, Sender, xtext};

/// Writes LHLO or EHLO.
pub fn hello(out: &mut Vec<u8>, protocol: Protocol, myhostname: &str) {
    let verb = match protocol {
        Protocol::Lmtp => "LHLO",
        Protocol::Smtp => "EHLO",
    };
    line(out, format_args!("{verb} {}", one_word(myhostname)));
}

/// Writes HELO, for servers that do not know EHLO.
pub fn helo(out: &mut Vec<u8>, myhostname: &str) {
    line(out, format_args!("HELO {}", one_word(myhostname)));
}

/// Writes a command without parameters.
pub fn plain(out: &mut Vec<u8>, verb: &'static str) {
    line(out, format_args!("{verb}"));
}

/// What MAIL says of a message.
#[derive(Clone, Debug)]
pub struct Mail<'a> {
    /// Whom it comes from.
    pub sender: &'a Sender,
    /// Octets, if they are to be declared.
    pub size: Option<u64>,
    /// Whether there are octets over 127, if that is known.
    pub body: Option<BodyType>,
    /// The submitter's name for it.
    pub envid: Option<&'a str>,
    /// What a bounce is to return.
    pub ret: Option<Return>,
    /// Whether SMTPUTF8 is needed.
    pub smtputf8: bool,
    /// Whether the address stands there without quotes, whatever is in it.
    pub unquoted: bool,
    /// Whether to say that nobody vouches for whoever wrote it.
    pub dummy_auth: bool,
}

impl Mail<'_> {
    /// Writes MAIL FROM with the parameters that the server offers.
    pub fn write(&self, out: &mut Vec<u8>, offered: &Capabilities) {
        let sender = self.sender.address().map(|address| written(address, self.unquoted));
        let mut text = format!("MAIL FROM:<{}>", sender.unwrap_or_default());
        if let Some(size) = self.size.filter(|_| offered.size.is_some()) {
            text.push_str(&format!(" SIZE={size}"));
        }
        if let Some(body) = self.body.filter(|_| offered.eight_bit_mime) {
            text.push_str(&format!(" BODY={body}"));
        }
        if offered.dsn {
            if let Some(envid) = self.envid {
                text.push_str(&format!(" ENVID={}", xtext(envid)));
            }
            if let Some(ret) = self.ret {
                text.push_str(&format!(" RET={ret}"));
            }
        }
        if offered.smtputf8 && self.smtputf8 {
            text.push_str(" SMTPUTF8");
        }
        if !offered.auth.is_empty() && self.dummy_auth {
            text.push_str(" AUTH=<>");
        }
        line(out, format_args!("{text}"));
    }
}

/// An address in a command. Without quotes it may be none that RFC 5321 knows: for servers that know no quotes.
fn written(address: &Address, unquoted: bool) -> Cow<'_, str> {
    if unquoted { address.unquoted().into() } else { address.to_string().into() }
}

/// Writes RCPT TO with the parameters that the server offers.
pub fn rcpt(out: &mut Vec<u8>, recipient: &Recipient, offered: &Capabilities, unquoted: bool) {
    let mut text = format!("RCPT TO:<{}>", written(&recipient.address, unquoted));
    if offered.dsn {
        if let Some(orcpt) = &recipient.orcpt {
            text.push_str(&format!(" ORCPT={}", orcpt.parameter()));
        }
        if !recipient.notify.is_default() {
            text.push_str(&format!(" NOTIFY={}", recipient.notify));
        }
    }
    line(out, format_args!("{text}"));
}

/// Writes XFORWARD; each of `arguments` has a blank before it.
pub fn xforward(out: &mut Vec<u8>, arguments: &str) {
    line(out, format_args!("XFORWARD{arguments}"));
}

/// Writes the only chunk of a message; `size` octets follow.
pub fn bdat_last(out: &mut Vec<u8>, size: u64) {
    line(out, format_args!("BDAT {size} LAST"));
}

/// Adds one line, whatever `text` holds: what would end it early becomes a question mark.
fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let start = out.len();
    // Writing to a Vec cannot fail.
    let _ = std::io::Write::write_fmt(out, text);
    for octet in &mut out[start..] {
        if matches!(octet, b'\r' | b'\n' | 0) {
            *octet = b'?';
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A host name from configuration, cut at the first blank so that it stays one word.
fn one_word(name: &str) -> &str {
    name.split_ascii_whitespace().next().unwrap_or("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn mail_and_rcpt_say_only_what_the_server_offers() {
        let sender = "a@x".parse().unwrap();
        let mail = Mail {
            sender: &sender,
            size: Some(310),
            body: Some(BodyType::EightBitMime),
            envid: Some("a+b c"),
            ret: Some(Return::Headers),
            smtputf8: true,
            unquoted: false,
            dummy_auth: true,
        };
        let mut recipient = Recipient::new(0, "\"b c\"@y".parse().unwrap());
        recipient.orcpt = Some("rfc822;orig+b@x.example".parse().unwrap());
        recipient.notify = "DELAY,SUCCESS".parse().unwrap();
        let nothing = Capabilities::default();
        let all = Capabilities {
            dsn: true,
            eight_bit_mime: true,
            smtputf8: true,
            size: Some(0),
            auth: vec!["PLAIN".to_owned()],
            ..nothing.clone()
        };
        assert_eq!(line_of(|out| mail.write(out, &nothing)), "MAIL FROM:<a@x>\r\n");
        assert_eq!(
            line_of(|out| mail.write(out, &all)),
            "MAIL FROM:<a@x> SIZE=310 BODY=8BITMIME ENVID=a+2Bb+20c RET=HDRS SMTPUTF8 AUTH=<>\r\n"
        );
        assert_eq!(line_of(|out| rcpt(out, &recipient, &nothing, false)), "RCPT TO:<\"b c\"@y>\r\n");
        assert_eq!(
            line_of(|out| rcpt(out, &recipient, &all, false)),
            "RCPT TO:<\"b c\"@y> ORCPT=rfc822;orig+2Bb@x.example NOTIFY=SUCCESS,DELAY\r\n"
        );
    }

    #[test]
    fn what_is_not_known_is_not_said_and_quotes_are_left_out_where_asked() {
        let sender = "\"a b\"@x".parse().unwrap();
        let mail = Mail {
            sender: &sender,
            size: None,
            body: None,
            envid: None,
            ret: None,
            smtputf8: false,
            unquoted: true,
            dummy_auth: false,
        };
        let all = Capabilities {
            eight_bit_mime: true,
            size: Some(0),
            auth: vec!["PLAIN".to_owned()],
            ..Capabilities::default()
        };
        assert_eq!(line_of(|out| mail.write(out, &all)), "MAIL FROM:<a b@x>\r\n");
        let null = Mail { sender: &crate::mail::Sender::NULL, ..mail };
        assert_eq!(line_of(|out| null.write(out, &all)), "MAIL FROM:<>\r\n");
        let recipient = Recipient::new(0, "\"b..c\"@y".parse().unwrap());
        assert_eq!(line_of(|out| rcpt(out, &recipient, &all, true)), "RCPT TO:<b..c@y>\r\n");
        assert_eq!(line_of(|out| rcpt(out, &recipient, &all, false)), "RCPT TO:<\"b..c\"@y>\r\n");
    }

    #[test]
    fn nothing_can_start_a_second_command() {
        assert_eq!(line_of(|out| hello(out, Protocol::Lmtp, "a\r\nQUIT")), "LHLO a\r\n");
        assert_eq!(line_of(|out| line(out, format_args!("A\r\nB\0"))), "A??B?\r\n");
    }
}
