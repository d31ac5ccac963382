//! mutt, s-nail and bsd-mailx: a person's or a script's mail, sent without a terminal.
//!
//! - Owns: their command lines with and without sender and DSN wishes, what they do with each exit status.
//! - Leaves to others: reading mail with them (`it::notice`).
//! - Always true: the body has a lone dot and eight bits, and both arrive.

use std::process::Output;

use super::support::{Machine, Queued, REFUSALS, has, login, said};

const BODY: &str = "hello\n.\nGr\u{fc}\u{df}e\nFrom here\n";
const BODY_QUEUED: &str = "hello\r\n.\r\nGr\u{fc}\u{df}e\r\nFrom here\r\n";

/// A message whose body came through as it was typed.
#[track_caller]
fn assert_body(queued: &Queued) {
    let text = String::from_utf8(queued.content.clone()).unwrap();
    assert_eq!(text.split_once("\r\n\r\n").unwrap().1, BODY_QUEUED);
}

/// mutt with sendmail's options as they are by default.
fn mutt(machine: &Machine, settings: &str, arguments: &[&str]) -> Output {
    let sendmail = format!("set sendmail=\"{} -oem -oi\"\n", machine.sendmail());
    let name = "set realname=\"Ann Doe\" from=ann@x.example hostname=x.example charset=utf-8 send_charset=us-ascii:utf-8\n";
    machine.write_home(".muttrc", format!("{sendmail}{name}{settings}\n"));
    machine.run("mutt", &[&["-n", "-s", "from mutt"], arguments].concat(), BODY.as_bytes())
}

#[test]
fn mutt_names_its_recipients_after_two_dashes() {
    if !has("mutt", "mutt") {
        return;
    }
    let machine = Machine::new();
    let recipients = ["-c", "Carl <carl@z.example>", "-b", "dora@z.example", "bob@y.example"];
    let output = mutt(&machine, "", &recipients);
    assert!(output.status.success(), "{}", said(&output));
    let call = machine.call();
    assert_eq!(call.arguments, ["-oem", "-oi", "--", "bob@y.example", "carl@z.example", "dora@z.example"]);
    let queued = machine.take_one();
    // Where nobody says otherwise the sender is who runs it, not who stands in From.
    assert_eq!(queued.sender(), format!("{}@example.org", login()));
    assert_eq!(queued.addresses(), ["bob@y.example", "carl@z.example", "dora@z.example"]);
    // mutt keeps Bcc out by itself.
    queued.assert_is(&call.input, &[]);
    assert_eq!(queued.field("From").as_deref(), Some("Ann Doe <ann@x.example>"));
    assert_eq!(queued.field("Bcc"), None);
    assert_body(&queued);
}

#[test]
fn mutt_asks_for_reports_by_options() {
    if !has("mutt", "mutt") {
        return;
    }
    let machine = Machine::new();
    let settings = "set use_envelope_from=yes envelope_from_address=bounces@x.example use_8bitmime=yes\n\
                    set dsn_notify=\"failure,delay\" dsn_return=hdrs";
    let output = mutt(&machine, settings, &["bob@y.example"]);
    assert!(output.status.success(), "{}", said(&output));
    let call = machine.call();
    let line = "-oem -oi -B8BITMIME -f bounces@x.example -N failure,delay -R hdrs -- bob@y.example";
    assert_eq!(call.arguments.join(" "), line);
    let queued = machine.take_one();
    assert_eq!(queued.sender(), "bounces@x.example");
    assert_eq!(queued.recipients[0]["notify"], "FAILURE,DELAY");
    assert_eq!((&queued.head["ret"], &queued.head["body"]), (&"HDRS".into(), &"8BITMIME".into()));
    queued.assert_is(&call.input, &[]);
    assert_body(&queued);
}

#[test]
fn mutt_says_why_and_fails_where_nothing_was_queued() {
    if !has("mutt", "mutt") {
        return;
    }
    let machine = Machine::new();
    let sent = machine.home().join("sent");
    let words = |code| match code {
        75 => "Error sending message, child exited 75 (Deferred.).",
        69 => "Error sending message, child exited 69 (Service unavailable.).",
        _ => "Error sending message, child exited 78 ().",
    };
    for (config, code) in REFUSALS {
        machine.configure(config);
        let output = mutt(&machine, "", &["bob@y.example"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(words(code)), "{}", said(&output));
        // Our own sentence is for the person too.
        assert!(said(&output).contains("sendmail: the message was not queued: "), "{}", said(&output));
        machine.assert_nothing_queued();
        assert!(!sent.exists(), "mutt has kept a copy of what was not sent");
    }
    machine.configure("");
    assert!(mutt(&machine, "", &["bob@y.example"]).status.success());
    assert!(sent.exists());
}

/// s-nail with nobody's settings. It takes root's home from the user database, so its dead letters have a place here.
fn s_nail(machine: &Machine, arguments: &[&str]) -> Output {
    let (sendmail, dead) = (machine.sendmail(), machine.home().join("dead.letter"));
    let settings = [format!("-Smta={sendmail}"), format!("-SDEAD={}", dead.display())];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let always = ["-:/", "-Shostname=x.example", "-Smime-encoding=8bit", "-s", "from s-nail"];
    machine.run("s-nail", &[&settings[..], &always, arguments].concat(), BODY.as_bytes())
}

#[test]
fn s_nail_names_its_sender_and_its_recipients() {
    if !has("s-nail", "s-nail") {
        return;
    }
    let machine = Machine::new();
    let plain = format!("{}@example.org", login());
    for (arguments, line, sender) in [
        (
            &["-c", "c@z.example", "-b", "d@z.example"][..],
            "-i -- bob@y.example c@z.example d@z.example",
            &plain[..],
        ),
        (&["-r", "Ann <ann@x.example>"], "-i -F Ann -f ann@x.example -- bob@y.example", "ann@x.example"),
        (
            &["-Smta-arguments=-N never -V QQ7 -R full", "-r", "ann@x.example"],
            "-i -N never -V QQ7 -R full -f ann@x.example -- bob@y.example",
            "ann@x.example",
        ),
    ] {
        let output = s_nail(&machine, &[arguments, &["bob@y.example"]].concat());
        assert!(output.status.success(), "{}", said(&output));
        let call = machine.call();
        assert_eq!(call.arguments.join(" "), line);
        let queued = machine.take_one();
        assert_eq!(queued.sender(), sender);
        let recipients = line.split_once("-- ").unwrap().1.split(' ').collect::<Vec<_>>();
        assert_eq!(queued.addresses(), recipients);
        queued.assert_is(&call.input, &[]);
        assert_body(&queued);
        if line.contains("QQ7") {
            assert_eq!((&queued.head["envid"], &queued.head["ret"]), (&"QQ7".into(), &"FULL".into()));
            assert_eq!(queued.recipients[0]["notify"], "NEVER");
        }
    }
}

#[test]
fn s_nail_keeps_what_was_not_queued() {
    if !has("s-nail", "s-nail") {
        return;
    }
    let machine = Machine::new();
    for (config, _) in REFUSALS {
        machine.configure(config);
        let output = s_nail(&machine, &["bob@y.example"]);
        // Whatever our code: it does not hand it on.
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        assert!(said(&output).contains("... message not sent"), "{}", said(&output));
        machine.assert_nothing_queued();
        let dead = machine.home().join("dead.letter");
        let kept = std::fs::read_to_string(&dead).unwrap();
        assert!(kept.contains("To: bob@y.example\n") && kept.contains("hello\n.\n"), "{kept}");
        std::fs::remove_file(dead).unwrap();
    }
}

/// bsd-mailx, Debian's `mail`. Its settings come from a file alone.
fn bsd_mailx(machine: &Machine, arguments: &[&str]) -> Output {
    let settings = machine.write_home("mailrc", format!("set sendmail={}\n", machine.sendmail()));
    let mut command = machine.command("bsd-mailx");
    command.env("MAILRC", settings).env("NAME", "Ann Doe");
    command.args(["-n", "-s", "from mailx"]).args(arguments);
    crate::common::agent::run(&mut command, BODY.as_bytes())
}

#[test]
fn bsd_mailx_leaves_recipients_to_the_header() {
    if !has("bsd-mailx", "bsd-mailx") {
        return;
    }
    let machine = Machine::with_config("[aliases]\nroot = [\"admin@example.net\"]\n");
    let plain = format!("{}@example.org", login());
    let missing = &["From", "Date", "Message-ID"];
    for (arguments, line, sender, recipients, added) in [
        (
            &["-a", "X-Y: z", "-c", "c@z.example", "Bob O'Hara <bob@y.example>", "root"][..],
            "-i -t",
            &plain[..],
            &["bob@y.example", "admin@example.net", "c@z.example"][..],
            &missing[..],
        ),
        (
            &["-v", "-r", "ann@x.example", "root"],
            "-i -t -f ann@x.example -v",
            "ann@x.example",
            &["admin@example.net"],
            &missing[1..],
        ),
    ] {
        let output = bsd_mailx(&machine, arguments);
        assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
        let call = machine.call();
        assert_eq!(call.arguments.join(" "), line);
        let queued = machine.take_one();
        assert_eq!((queued.sender(), queued.addresses()), (sender, recipients.to_vec()));
        queued.assert_is(&call.input, added);
        assert_body(&queued);
        let from = if added.len() == 3 { format!("\"Ann Doe\" <{plain}>") } else { sender.to_owned() };
        assert_eq!(queued.field("From"), Some(from));
    }
}

#[test]
fn bsd_mailx_leaves_it_to_us_to_remove_bcc() {
    if !has("bsd-mailx", "bsd-mailx") {
        return;
    }
    let machine = Machine::new();
    let output = bsd_mailx(&machine, &["-b", "dora@z.example", "bob@y.example"]);
    assert!(output.status.success(), "{}", said(&output));
    let call = machine.call();
    let given = String::from_utf8(call.input).unwrap();
    assert!(given.contains("\nBcc: dora@z.example\n"), "{given}");
    let queued = machine.take_one();
    assert_eq!(queued.addresses(), ["bob@y.example", "dora@z.example"]);
    let rest = given.replace("Bcc: dora@z.example\n", "");
    queued.assert_is(rest.as_bytes(), &["From", "Date", "Message-ID"]);
}

#[test]
fn bsd_mailx_tells_the_code_and_fails() {
    if !has("bsd-mailx", "bsd-mailx") {
        return;
    }
    let machine = Machine::new();
    let fails = |recipient: &str, code: i32| {
        let output = bsd_mailx(&machine, &[recipient]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let words = format!("Can't send mail: sendmail process failed with error code {code}");
        assert!(said(&output).contains(&words), "{}", said(&output));
        assert!(said(&output).contains("sendmail: the message was not queued: "), "{}", said(&output));
        machine.assert_nothing_queued();
    };
    // Nobody asked whether this is an address before we do.
    fails("bob@", 65);
    for (config, code) in REFUSALS {
        machine.configure(config);
        fails("bob@y.example", code);
    }
}
