//! Python's smtplib, speaking SMTP to `sendmail -bs` through a pipe.
//!
//! - Owns: what a client library makes of our greeting, extensions and replies, for each recipient.
//! - Leaves to others: the server's grammar and its limits (`cli::sendmail`); Symfony (`symfony`).
//! - Always true: one process serves one session, and ends with 0 after QUIT.

use serde_json::{Value, json};

use super::support::{Machine, has, login, said};

/// What as_bytes() of a Python message makes: lines that end in LF.
const MESSAGE: &str = "From: Ann <ann@x.example>\nTo: Bob <bob@y.example>\nBcc: dora@z.example\nSubject: x\n\
    Date: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <7@x.example>\n\nhello\n.\n..two\nGr\u{fc}\u{df}e\nend";

/// With the line ends that smtplib's `send_message` makes.
fn message() -> String {
    MESSAGE.replace('\n', "\r\n")
}

/// Sessions of smtplib with the command that Alpine and Symfony call.
fn smtplib(machine: &Machine, steps: &Value) -> Vec<Value> {
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/callers/smtplib_pipe.py");
    let arguments = [driver, &machine.sendmail(), "-bs", "-odb", "-oem"];
    let output = machine.run("python3", &arguments, steps.to_string().as_bytes());
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(machine.call().arguments, arguments[2..]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One call of smtplib's `sendmail`.
fn send(sender: &str, recipients: &[&str], mail_options: &[&str], rcpt_options: &[&str]) -> Value {
    let options = json!({"mail_options": mail_options, "rcpt_options": rcpt_options});
    json!(["sendmail", [sender, recipients, message()], options])
}

fn quit() -> Value {
    json!(["quit", [], {}])
}

#[test]
fn smtplib_finds_the_extensions_that_it_can_use() {
    if !has("python3", "python3") {
        return;
    }
    let machine = Machine::with_config("message_size_limit = \"12345\"");
    let said =
        smtplib(&machine, &json!([["ehlo", [], {}], ["noop", [], {}], ["verify", ["bob"], {}], quit()]));
    assert_eq!(said[0][0], 220);
    assert!(said[0][1].as_str().unwrap().starts_with("mx.example.org ESMTP"), "{said:?}");
    let features = said[1].as_object().unwrap();
    assert_eq!(features["size"], "12345");
    for keyword in ["pipelining", "8bitmime", "dsn", "smtputf8", "enhancedstatuscodes"] {
        assert!(features.contains_key(keyword), "{keyword} is missing: {features:?}");
    }
    assert_eq!((&said[2][0], &said[3][0], &said[4][0]), (&json!(250), &json!(252), &json!(221)));
    assert_eq!(said[5], 0);
    machine.assert_nothing_queued();
}

/// The message as others may read it: smtplib's sendmail() leaves the field in, and Postfix's -bs takes it out too.
fn without_bcc() -> String {
    MESSAGE.replace("Bcc: dora@z.example\n", "")
}

#[test]
fn smtplib_queues_message_after_message() {
    if !has("python3", "python3") {
        return;
    }
    let machine = Machine::new();
    let steps = json!([
        send(
            "ann@x.example",
            &["bob@y.example", "carl@z.example"],
            &["BODY=8BITMIME", "RET=HDRS", "ENVID=QQ7"],
            &["NOTIFY=FAILURE,DELAY"],
        ),
        send("", &["bob@y.example"], &[], &[]),
        send("m\u{fc}ller@x.example", &["b\u{f6}b@y.example"], &["SMTPUTF8", "BODY=8BITMIME"], &[]),
        quit(),
    ]);
    let answers = smtplib(&machine, &steps);
    // Nobody was refused.
    assert_eq!(answers[1..4], [json!({}), json!({}), json!({})], "{answers:?}");
    assert_eq!((&answers[4][0], &answers[5]), (&json!(221), &json!(0)));
    let queued = machine.take_queued();
    let envelope = |at: usize| (queued[at].sender(), queued[at].addresses().join(" "));
    assert_eq!(envelope(0), ("ann@x.example", "bob@y.example carl@z.example".to_owned()));
    assert_eq!(envelope(1), ("", "bob@y.example".to_owned()));
    assert_eq!(envelope(2), ("m\u{fc}ller@x.example", "b\u{f6}b@y.example".to_owned()));
    assert_eq!(queued.len(), 3);
    assert_eq!((&queued[0].head["ret"], &queued[0].head["envid"]), (&json!("HDRS"), &json!("QQ7")));
    assert!(queued[0].recipients.iter().all(|recipient| recipient["notify"] == "FAILURE,DELAY"));
    assert_eq!((&queued[0].head["smtputf8"], &queued[2].head["smtputf8"]), (&json!(false), &json!(true)));
    for message in &queued {
        // The dots that SMTP doubles are single again.
        message.assert_is(without_bcc().as_bytes(), &[]);
    }
}

#[test]
fn smtplib_may_have_lines_that_end_in_lf() {
    if !has("python3", "python3") {
        return;
    }
    // A message's as_bytes() has LF; smtplib doubles its dots and sends it as it is.
    let machine = Machine::new();
    let steps = json!([["sendmail", ["ann@x.example", ["bob@y.example"], MESSAGE], {}], quit()]);
    let answers = smtplib(&machine, &steps);
    assert_eq!((&answers[1], &answers[3]), (&json!({}), &json!(0)), "{answers:?}");
    machine.take_one().assert_is(without_bcc().as_bytes(), &[]);
}

#[test]
fn smtplib_hears_of_each_recipient() {
    if !has("python3", "python3") {
        return;
    }
    let machine = Machine::new();
    let bad = "bob@-@x";
    let steps = json!([
        send("ann@x.example", &[bad, "carl@z.example", &login()], &[], &[]),
        send("ann@x.example", &[bad], &[], &[]),
        send("ann@x.example", &["dora@z.example"], &[], &[]),
        quit(),
    ]);
    let answers = smtplib(&machine, &steps);
    assert_eq!(answers[1][bad][0], 501, "{answers:?}");
    assert_eq!(answers[1].as_object().unwrap().len(), 1, "{answers:?}");
    assert_eq!(answers[2]["raised"], "SMTPRecipientsRefused", "{answers:?}");
    assert_eq!(answers[2]["said"][bad][0], 501, "{answers:?}");
    // The session goes on.
    assert_eq!(answers[3], json!({}), "{answers:?}");
    let queued = machine.take_queued();
    let recipients: Vec<_> = queued.iter().map(|message| message.addresses().join(" ")).collect();
    assert_eq!(recipients, [format!("carl@z.example {}@example.org", login()), "dora@z.example".to_owned()]);
}

#[test]
fn smtplib_raises_where_nothing_can_be_queued() {
    if !has("python3", "python3") {
        return;
    }
    let steps = json!([send("ann@x.example", &["bob@y.example"], &[], &[]), quit()]);
    for (config, exception, code) in [
        // smtplib says how large the message is.
        ("message_size_limit = \"30\"", "SMTPSenderRefused", "552"),
        ("queue_minfree = \"1000000G\"", "SMTPDataError", "452"),
    ] {
        let machine = Machine::with_config(config);
        let answers = smtplib(&machine, &steps);
        assert_eq!(answers[1]["raised"], exception, "{answers:?}");
        assert_eq!(answers[1]["said"][0].to_string(), code, "{answers:?}");
        assert_eq!((&answers[2][0], &answers[3]), (&json!(221), &json!(0)), "{answers:?}");
        machine.assert_nothing_queued();
    }
}

#[test]
fn smtplib_is_turned_away_where_the_configuration_is_wrong() {
    if !has("python3", "python3") {
        return;
    }
    let machine = Machine::with_config("workers = \"many\"");
    let answers = smtplib(&machine, &json!([]));
    assert_eq!(answers[0][0], 421, "{answers:?}");
    assert!(answers[0][1].as_str().unwrap().contains("workers"), "{answers:?}");
    assert_eq!(answers[1], 78, "{answers:?}");
    machine.assert_nothing_queued();
}
