//! At once: `sendmail --esmtp`, which is what msmtp is to its callers.
//!
//! - Owns: envelopes and octets on the wire, exit codes of deliveries.
//! - Leaves to others: LMTP, result lines, the codes of smtpc (`it::sendmail`).
//! - Always true: both talk to the same server, in turn.

use super::{BARE, Envelope, Sides, WHOLE, added, taken_apart};
use crate::callers::support::{has, said};

#[test]
fn msmtp_and_we_say_the_same_to_a_server() {
    if !has("msmtp", "msmtp") {
        return;
    }
    let sides = Sides::start("");
    let server = sides.server();
    for (arguments, input, theirs) in [
        ("-f ann@x.example -i bob@y.example carl@z.example", BARE, "Date From Message-ID"),
        ("-t -i -f ann@x.example", WHOLE, ""),
        ("-i -f <> bob@y.example", WHOLE, ""),
        ("-f ann@x.example -N failure,delay -R hdrs bob@y.example", BARE, "Date From Message-ID"),
        ("-f ann@x.example -N never -R full bob@y.example", BARE, "Date From Message-ID"),
    ] {
        let words: Vec<_> = arguments.split(' ').collect();
        // In the header that is not read for recipients, Bcc is msmtp's to remove; we alter nothing.
        let bcc = "Bcc: finn@z.example\n";
        let input = if words.contains(&"-t") { input.to_owned() } else { input.replace(bcc, "") };
        let output = sides.msmtp(&words, input.as_bytes());
        assert!(output.status.success(), "{arguments}: {}", said(&output));
        let envelope = Envelope::of_dialogue(&output, "--> ");
        let taken = |recipient: &String| taken_apart(&sides.take_delivered(recipient));
        let delivered: Vec<_> = envelope.recipients.iter().map(taken).collect();

        let our_output =
            sides.ours(&[&["--esmtp", &server, "--dump"], &words[..]].concat(), input.as_bytes());
        assert!(our_output.status.success(), "{arguments}: {}", said(&our_output));
        assert_eq!(Envelope::of_dialogue(&our_output, "C: "), envelope, "{arguments}");
        let our_delivered: Vec<_> = envelope.recipients.iter().map(taken).collect();

        for ((fields, body), (our_fields, our_body)) in delivered.iter().zip(&our_delivered) {
            assert_eq!(our_body, body, "{arguments}");
            assert_eq!(added(fields, &input).join(" "), theirs, "{arguments}");
            assert_eq!(added(our_fields, &input), Vec::<String>::new(), "{arguments}");
            let mut kept = fields.clone();
            kept.retain(|field| !theirs.split(' ').any(|name| field.starts_with(&format!("{name}:"))));
            assert_eq!(our_fields, &kept, "{arguments}");
        }
        sides.machine.assert_nothing_queued();
    }
}

/// What the server does with whom.
const SCRIPT: &str = "mail refused@* 550 5.1.8 no such sender\n\
    rcpt unknown@* 550 5.1.1 no such user\n\
    rcpt plain@* 550 no\n\
    rcpt full@* 552 5.2.2 mailbox full\n\
    rcpt later@* 450 4.2.0 try later\n\
    data-done bad@* 554 5.6.0 not this\n";

#[test]
fn msmtp_and_we_end_with_the_codes_of_this_table() {
    if !has("msmtp", "msmtp") {
        return;
    }
    let sides = Sides::start(SCRIPT);
    let server = sides.server();
    for (arguments, codes, delivered) in [
        ("ann@x bob@y.example", [0, 0], [1, 1]),
        // msmtp knows two codes for refusals, by the first digit: 65 and 69. We say what was refused, as sendmail
        // does; and 75, on which callers keep the mail, wherever another try may help.
        ("ann@x unknown@y.example", [65, 67], [0, 0]),
        ("ann@x plain@y.example", [65, 69], [0, 0]),
        ("ann@x full@y.example", [65, 69], [0, 0]),
        ("ann@x later@y.example", [69, 75], [0, 0]),
        ("refused@x bob@y.example", [65, 65], [0, 0]),
        ("ann@x bad@y.example", [69, 65], [0, 0]),
        // For msmtp one recipient who is refused is a reason to send to nobody. We send to the others.
        ("ann@x bob@y.example unknown@y.example", [65, 67], [0, 1]),
        ("ann@x bob@y.example unknown@y.example later@y.example", [65, 75], [0, 1]),
    ] {
        let words: Vec<_> = arguments.split(' ').collect();
        let words = [&["-f"], &words[..]].concat();
        let output = sides.msmtp(&words, BARE.as_bytes());
        let their_count = sides.take_count();
        let our_output = sides.ours(&[&["--esmtp", &server], &words[..]].concat(), BARE.as_bytes());
        let found = [&output, &our_output].map(|output| output.status.code().unwrap());
        assert_eq!(found, codes, "{arguments}: {}{}", said(&output), said(&our_output));
        assert_eq!([their_count, sides.take_count()], delivered, "{arguments}");
    }
    let words = ["-f", "a@x", "bob@y.example"];
    let nowhere = [
        sides.msmtp(&[&["--port=1"], &words[..]].concat(), BARE.as_bytes()),
        sides.ours(&[&["--esmtp", "127.0.0.1:1"], &words[..]].concat(), BARE.as_bytes()),
    ];
    assert_eq!(nowhere.map(|output| output.status.code()), [Some(75), Some(75)]);
}
