//! Messages, and the ways into a Postfix.
//!
//! - Owns: messages whose name is the local part of their sender, sendmail's and SMTP's way in.
//! - Leaves to others: what becomes of them.
//! - Always true: a submission that fails fails the test.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::instance::Postfix;

/// The header of a message of that name, with all fields that the mail system would add.
pub fn header(name: &str) -> String {
    format!(
        "From: <{name}@sender.example>\nTo: somebody@example.org\nSubject: {name}\n\
         Date: Sat, 21 Nov 2026 19:30:00 +0000 (UTC)\nMessage-ID: <{name}@id.example>\n"
    )
}

/// A message of that name.
pub fn message(name: &str) -> Vec<u8> {
    format!("{}\nThe text of {name}.\n", header(name)).into_bytes()
}

/// Submits a message of that name.
#[track_caller]
pub fn submit(postfix: &Postfix<'_>, name: &str, recipients: &[&str]) {
    submit_with(postfix, name, &[], recipients, &message(name));
}

/// Submits octets under a name, with further options of sendmail's.
#[track_caller]
pub fn submit_with(postfix: &Postfix<'_>, name: &str, options: &[&str], recipients: &[&str], message: &[u8]) {
    let sender = format!("{name}@sender.example");
    let arguments = [&["-i", "-f", &sender][..], options, &["--"], recipients].concat();
    postfix.sendmail(&arguments, message);
}

/// A client of Postfix's smtpd.
pub struct Smtp {
    stream: BufReader<TcpStream>,
}

impl Smtp {
    /// Connects and says EHLO.
    #[track_caller]
    pub fn connect(postfix: &Postfix<'_>) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, postfix.smtpd_port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Self { stream: BufReader::new(stream) };
        client.reply();
        client.says("EHLO client.example", "250");
        client
    }

    /// The last line of a reply.
    #[track_caller]
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stream.read_line(&mut line).unwrap(), 0, "smtpd closed the connection");
            if line.as_bytes().get(3) == Some(&b' ') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Says something and hears the reply.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        write!(self.stream.get_mut(), "{command}\r\n").unwrap();
        self.reply()
    }

    /// The same where the reply has to start so.
    #[track_caller]
    pub fn says(&mut self, command: &str, reply: &str) {
        let got = self.ask(command);
        assert!(got.starts_with(reply), "{command}: {got}");
    }

    /// Sends a message: words after `MAIL FROM:` and `RCPT TO:`, lines with LF.
    #[track_caller]
    pub fn send(&mut self, mail: &str, recipients: &[&str], message: &[u8]) {
        self.says(&format!("MAIL FROM:{mail}"), "250");
        for recipient in recipients {
            self.says(&format!("RCPT TO:{recipient}"), "250");
        }
        self.says("DATA", "354");
        let mut octets = Vec::new();
        for line in message.strip_suffix(b"\n").unwrap_or(message).split(|&octet| octet == b'\n') {
            if line.starts_with(b".") {
                octets.push(b'.');
            }
            octets.extend_from_slice(line);
            octets.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&octets).unwrap();
        self.says(".", "250");
    }
}
