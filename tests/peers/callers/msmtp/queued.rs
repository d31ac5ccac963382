//! Into the queue: what msmtp delivers, we queue; what its server refuses, the agent learns later.
//!
//! - Owns: header fields that each adds, the table of exit codes.
//! - Leaves to others: delivery at once (`direct`).
//! - Always true: where we fail nothing is queued.

use super::{BARE, Envelope, Sides, WHOLE, added, taken_apart};
use crate::callers::support::{has, said};

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
        let envelope = Envelope::of_dialogue(&output, "--> ");
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
        assert_eq!(sides.take_count() > 0, codes[0] == 0, "{what}");
        assert_eq!(sides.machine.take_queued().len(), usize::from(codes[1] == 0), "{what}");
        assert_eq!(our_output.stderr.is_empty(), codes[1] == 0, "{what}");
    }
}
