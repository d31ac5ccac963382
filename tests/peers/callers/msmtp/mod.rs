//! msmtp beside us: the same calls, its mail over SMTP into our sink, ours into the queue or into the same sink.
//!
//! - Owns: that a site which comes from msmtp has the same envelopes and octets; where the two differ, which way we
//!   go and why.
//! - Leaves to others: options that msmtp does not have (`it::sendmail`).
//! - Always true: both get the same arguments and the same input. `--debug` alone is added for msmtp, which shows
//!   the envelope that it sends.

mod direct;
mod queued;

use std::path::PathBuf;
use std::process::Output;

use lastmile::mail::{Address, Protocol};
use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store, maildir_name};

use super::support::{Machine, Queued, said};
use crate::common::mailbox;

/// A header that lacks nothing, and a body with what is easily lost.
const WHOLE: &str = "From: Ann <ann@x.example>\nTo: Bob <bob@y.example>, carl@z.example\nCc: dora@z.example,\n\
    \t\"Eve, E.\" <eve@z.example>\nBcc: finn@z.example\nSubject: Gr\u{fc}\u{df}e\n\
    Date: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <7@x.example>\nX-Long: a\n  b\n\n\
    hello\n..two dots\n.one\nGr\u{fc}\u{df}e\n\nFrom here\n\nno line end";
/// Nothing but what a script writes.
const BARE: &str = "Subject: bare\n\nhello\n";

/// Both, and a server for msmtp.
struct Sides {
    machine: Machine,
    sink: Handle,
    maildirs: PathBuf,
}

/// What a server is told: MAIL's and RCPT's paths and parameters.
#[derive(Debug, PartialEq, Eq)]
struct Envelope {
    sender: String,
    ret: Option<String>,
    recipients: Vec<String>,
    notify: Vec<Option<String>>,
}

impl Sides {
    fn start(script: &str) -> Self {
        let machine = Machine::new();
        let maildirs = machine.path().join("maildirs");
        let config = SinkConfig {
            protocol: Protocol::Smtp,
            store: Store::Maildir(maildirs.clone()),
            script: Script::parse(script).unwrap(),
            ..SinkConfig::new("inet:127.0.0.1:0".parse().unwrap())
        };
        let sink = Sink::start(config).unwrap();
        let sides = Self { machine, sink, maildirs };
        sides.configure("");
        sides
    }

    /// msmtp's configuration: the server, no sender of its own.
    fn configure(&self, more: &str) {
        let server = self.server();
        let (host, port) = server.split_once(':').unwrap();
        let text = format!("account default\nhost {host}\nport {port}\ntls off\nauth off\n{more}\n");
        self.machine.write_home(".msmtprc", text);
    }

    /// The server, as host and port.
    fn server(&self) -> String {
        let [Listen::Tcp(address)] = self.sink.addresses() else { panic!("the sink listens at one port") };
        address.to_string()
    }

    fn msmtp(&self, arguments: &[&str], input: &[u8]) -> Output {
        let rc = self.machine.home().join(".msmtprc");
        let always = ["--debug", "-C", rc.to_str().unwrap()];
        self.machine.run("msmtp", &[&always, arguments].concat(), input)
    }

    fn ours(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.machine.run(&self.machine.sendmail(), arguments, input)
    }

    /// How many copies were delivered since the last look.
    fn take_count(&self) -> usize {
        let count = mailbox::messages(&self.maildirs).len();
        // Nobody's mail is there before the first delivery.
        let _ = std::fs::remove_dir_all(&self.maildirs);
        count
    }

    /// Takes what was delivered for one recipient.
    #[track_caller]
    fn take_delivered(&self, recipient: &str) -> Vec<u8> {
        let address: Address = recipient.parse().unwrap();
        let directory = self.maildirs.join(maildir_name(&address));
        let mut found = mailbox::messages(&directory);
        assert_eq!(found.len(), 1, "{recipient}");
        std::fs::remove_dir_all(directory).unwrap();
        found.remove(0)
    }
}

impl Envelope {
    /// From what a client shows of its dialogue, where `mark` stands before what it says itself.
    #[track_caller]
    fn of_dialogue(output: &Output, mark: &str) -> Self {
        let text = said(output);
        let commands: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(mark)).collect();
        let paths = |verb: &str| -> Vec<(&str, &str)> {
            let rest = commands.iter().filter_map(|line| line.strip_prefix(verb));
            rest.map(|rest| rest.split_once('>').unwrap()).collect()
        };
        let parameter = |rest: &str, key: &str| {
            rest.split_whitespace().find_map(|word| word.strip_prefix(key)).map(str::to_owned)
        };
        let (sender, rest) = paths("MAIL FROM:<")[0];
        let recipients = paths("RCPT TO:<");
        Self {
            sender: sender.to_owned(),
            ret: parameter(rest, "RET="),
            recipients: recipients.iter().map(|(path, _)| (*path).to_owned()).collect(),
            notify: recipients.iter().map(|(_, rest)| parameter(rest, "NOTIFY=")).collect(),
        }
    }

    fn of_queue(queued: &Queued) -> Self {
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        Self {
            sender: queued.sender().to_owned(),
            ret: text(&queued.head["ret"]),
            recipients: queued.addresses().into_iter().map(str::to_owned).collect(),
            notify: queued.recipients.iter().map(|recipient| text(&recipient["notify"])).collect(),
        }
    }
}

/// The header's fields, each with its folded lines, and the body.
fn taken_apart(message: &[u8]) -> (Vec<String>, String) {
    let text = String::from_utf8(message.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut fields: Vec<String> = Vec::new();
    for line in head.split("\r\n") {
        match fields.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => *field = format!("{field}\r\n{line}"),
            _ => fields.push(line.to_owned()),
        }
    }
    (fields, body.to_owned())
}

/// The names of the fields in a message that are not in the input.
fn added(fields: &[String], input: &str) -> Vec<String> {
    let head = format!("\n{}", input.replace("\r\n", "\n").split_once("\n\n").unwrap().0).to_lowercase();
    let names = fields.iter().map(|field| field.split(':').next().unwrap().to_owned());
    let mut names: Vec<_> =
        names.filter(|name| !head.contains(&format!("\n{}:", name.to_lowercase()))).collect();
    names.sort();
    names
}
