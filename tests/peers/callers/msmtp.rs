//! msmtp beside us: the same calls, its mail over SMTP into our sink, ours into the queue.
//!
//! - Owns: that a site which comes from msmtp has the same envelopes and octets; where the two differ, which way we
//!   go and why.
//! - Leaves to others: options that msmtp does not have (`it::sendmail`).
//! - Always true: both get the same arguments and the same input. `--debug` alone is added for msmtp, which shows
//!   the envelope that it sends.

use std::path::PathBuf;
use std::process::Output;

use lastmile::mail::{Address, Protocol};
use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store, maildir_name};

use super::support::{Machine, Queued, has, said};
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

/// What msmtp told its server: MAIL's and RCPT's paths and parameters.
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
        let [Listen::Tcp(address)] = self.sink.addresses() else { panic!("the sink listens at one port") };
        let (host, port) = (address.ip(), address.port());
        let text = format!("account default\nhost {host}\nport {port}\ntls off\nauth off\n{more}\n");
        self.machine.write_home(".msmtprc", text);
    }

    fn msmtp(&self, arguments: &[&str], input: &[u8]) -> Output {
        let rc = self.machine.home().join(".msmtprc");
        let always = ["--debug", "-C", rc.to_str().unwrap()];
        self.machine.run("msmtp", &[&always, arguments].concat(), input)
    }

    fn ours(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.machine.run(&self.machine.sendmail(), arguments, input)
    }

    /// Takes what msmtp has delivered for one recipient.
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
    /// As msmtp shows it.
    fn of_msmtp(output: &Output) -> Self {
        let text = said(output);
        let commands: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("--> ")).collect();
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

#[test]
fn msmtp_and_we_take_the_same_calls_in_the_same_way() {
    if !has("msmtp", "msmtp") {
        return;
    }
    let sides = Sides::start("");
    let crlf = WHOLE.replace('\n', "\r\n");
    let resent = format!("Resent-To: gus@z.example\nResent-Bcc: hal@z.example\n{WHOLE}");
    for (arguments, input, theirs, ours) in [
        (
            "-f ann@x.example -i -- bob@y.example carl@z.example",
            BARE,
            "Date From Message-ID",
            "Date From Message-ID Received",
        ),
        ("-t -i -f ann@x.example", WHOLE, "", "Received"),
        ("-t -i -f ann@x.example", &crlf, "", "Received"),
        ("-ti -fann@x.example gus@y.example", WHOLE, "", "Received"),
        ("-t -oi -oem -odi -bm -f ann@x.example", &resent, "", "Received"),
        (
            "-i -B8BITMIME -N failure,delay -R hdrs -f ann@x.example bob@y.example",
            BARE,
            "Date From Message-ID",
            "Date From Message-ID Received",
        ),
        (
            "-i -N never -R full -f ann@x.example bob@y.example",
            BARE,
            "Date From Message-ID",
            "Date From Message-ID Received",
        ),
        (
            "-i -F Ann -f ann@x.example bob@y.example",
            BARE,
            "Date From Message-ID",
            "Date From Message-ID Received",
        ),
        ("-i -f <> bob@y.example", "From: a@x\nDate: then\nMessage-ID: <1@x>\n\n\n", "", "Received"),
    ] {
        let words: Vec<_> = arguments.split(' ').collect();
        let (output, our_output) =
            (sides.msmtp(&words, input.as_bytes()), sides.ours(&words, input.as_bytes()));
        assert!(output.status.success(), "{arguments}: {}", said(&output));
        assert!(our_output.status.success(), "{arguments}: {}", said(&our_output));

        let queued = sides.machine.take_one();
        let envelope = Envelope::of_msmtp(&output);
        assert_eq!(Envelope::of_queue(&queued), envelope, "{arguments}");

        let delivered = taken_apart(&sides.take_delivered(&envelope.recipients[0]));
        let our_content = taken_apart(&queued.content);
        assert_eq!(our_content.1, delivered.1, "{arguments}");
        assert_eq!(added(&delivered.0, input).join(" "), theirs, "{arguments}");
        assert_eq!(added(&our_content.0, input).join(" "), ours, "{arguments}");
        // What was added has a time or a name of its own; what was not is the same, in the same order.
        let kept = |fields: &[String]| {
            let own = added(fields, input);
            let mut kept = fields.to_vec();
            kept.retain(|field| !own.iter().any(|name| field.starts_with(&format!("{name}:"))));
            kept
        };
        // msmtp shows Resent-Bcc to everybody; we remove it with Bcc, as Postfix does.
        let mut their_fields = kept(&delivered.0);
        their_fields.retain(|field| !field.starts_with("Resent-Bcc:"));
        assert_eq!(kept(&our_content.0), their_fields, "{arguments}");
        // Without -F we look a person's name up, as sendmail does; msmtp does not.
        if arguments.contains("-F Ann") {
            let from = |fields: &[String]| fields.iter().find(|field| field.starts_with("From:")).cloned();
            assert_eq!(from(&delivered.0).as_deref(), Some("From: Ann <ann@x.example>"));
            assert_eq!(from(&our_content.0).as_deref(), Some("From: \"Ann\" <ann@x.example>"));
        }
        for recipient in &envelope.recipients[1..] {
            sides.take_delivered(recipient);
        }
    }
}

/// One call that fails for msmtp, or for us.
struct Failing {
    what: &'static str,
    arguments: &'static [&'static str],
    input: &'static str,
    /// Added to msmtp's configuration, and to ours.
    configs: [&'static str; 2],
    /// msmtp's exit code, and ours.
    codes: [i32; 2],
}

impl Failing {
    const fn new(what: &'static str, arguments: &'static [&'static str], codes: [i32; 2]) -> Self {
        Self { what, arguments, input: BARE, configs: ["", ""], codes }
    }

    const fn with_input(self, input: &'static str) -> Self {
        Self { input, ..self }
    }

    const fn with_configs(self, configs: [&'static str; 2]) -> Self {
        Self { configs, ..self }
    }
}

/// Who refuses at once is msmtp's server, through msmtp; our queue takes the mail, and a bounce tells the sender.
/// Everything else is ours to refuse.
const FAILINGS: [Failing; 13] = [
    Failing::new("an option that nobody has", &["-Z", "-f", "a@x.example", "bob@y.example"], [64, 64]),
    Failing::new("no recipient", &["-f", "a@x.example"], [64, 64]),
    // The header is what is wrong, not the command line.
    Failing::new("no recipient in the header", &["-t", "-f", "a@x.example"], [64, 65]),
    Failing::new("an option without its value", &["-t", "-f"], [64, 64]),
    // msmtp asks its server, which says 501.
    Failing::new("no address", &["-f", "a@x.example", "bob@"], [65, 65]),
    // msmtp sends to "b" without a word. Mail for nobody knows whom is worse than an error.
    Failing::new("two words for an address", &["-f", "a@x.example", "a b"], [0, 65]),
    // A caller has a name, and sendmail takes it for the sender.
    Failing::new("no sender", &["bob@y.example"], [78, 0]),
    // msmtp hands the name on as it is; we complete it with myorigin.
    Failing::new("a recipient without domain", &["-f", "a@x.example", "bob"], [0, 0]),
    Failing::new("a refused recipient", &["-f", "a@x.example", "refused@y.example"], [65, 0]),
    Failing::new("a recipient to be tried again", &["-f", "a@x.example", "later@y.example"], [69, 0]),
    Failing::new("no server", &["-f", "a@x.example", "bob@y.example"], [75, 0])
        .with_configs(["port 1", "default_transport = \"lmtp:inet:[127.0.0.1]:1\""]),
    Failing::new("a wrong configuration", &["-f", "a@x.example", "bob@y.example"], [78, 78])
        .with_configs(["nonsense", "nonsense = 1"]),
    // msmtp sends to what it makes out.
    Failing::new("a list that cannot be read", &["-t", "-f", "a@x.example"], [0, 65])
        .with_input("To: a, b: c;, <\n\n"),
];

#[test]
fn msmtp_and_we_fail_with_the_codes_of_this_table() {
    if !has("msmtp", "msmtp") {
        return;
    }
    let sides = Sides::start("rcpt refused@* 550 5.1.1 no such user\nrcpt later@* 450 4.2.0 try later\n");
    for Failing { what, arguments, input, configs, codes } in FAILINGS {
        sides.configure(configs[0]);
        sides.machine.configure(configs[1]);
        let (output, our_output) =
            (sides.msmtp(arguments, input.as_bytes()), sides.ours(arguments, input.as_bytes()));
        let found = [&output, &our_output].map(|output| output.status.code().unwrap());
        assert_eq!(found, codes, "{what}:\n{}{}", said(&output), said(&our_output));
        // Whoever fails has taken nothing; who does not has taken it.
        assert_eq!(sides.machine.take_queued().len(), usize::from(codes[1] == 0), "{what}");
        assert_eq!(our_output.stderr.is_empty(), codes[1] == 0, "{what}");
    }
}
