//! PHP's mail(): web applications and their contact forms.
//!
//! - Owns: Debian's `sendmail_path`, additional parameters, and what mail() returns.
//! - Leaves to others: libraries that speak SMTP to sendmail (`-bs`).
//! - Always true: a header with CRLF before a body with LF is one message with CRLF.

use std::process::Output;

use super::support::{Machine, REFUSALS, has, login, said};

/// Runs one call of mail(). The script ends with 0 where it returned true, with 1 where it returned false.
fn mail(machine: &Machine, arguments: &str) -> Output {
    // The path is PHP's own default but for the directory.
    let path = format!("sendmail_path={} -t -i", machine.sendmail());
    let script = format!("exit(mail({arguments}) === true ? 0 : 1);");
    machine.run("php", &["-n", "-d", &path, "-r", &script], b"")
}

#[test]
fn php_mail_leaves_everything_to_the_header() {
    if !has("php", "php-cli") {
        return;
    }
    let machine = Machine::new();
    let plain = format!("{}@example.org", login());
    let to_bob = r#""Bob <bob@y.example>", "from php", "hello\n.\nGr\u{fc}\u{df}e""#;
    // Header fields as one text, and as a list.
    let text = r#""From: web@x.example\r\nCc: c@z.example\r\nBcc: d@z.example\r\nDate: Sat, 21 Nov 2026 19:30:00 +0000""#;
    let list = r#"["From" => "web@x.example", "Message-ID" => "<7@x.example>"]"#;
    for (arguments, line, sender, recipients, added) in [
        (
            format!("{to_bob}, 'From: web@x.example'"),
            "-t -i",
            &plain[..],
            "bob@y.example",
            &["Date", "Message-ID"][..],
        ),
        (
            format!("{to_bob}, {text}, '-fbounces@x.example'"),
            "-t -i -fbounces@x.example",
            "bounces@x.example",
            "bob@y.example c@z.example d@z.example",
            &["Message-ID"],
        ),
        (
            format!("{to_bob}, {list}, '-f bounces@x.example -N never -V QQ7'"),
            "-t -i -f bounces@x.example -N never -V QQ7",
            "bounces@x.example",
            "bob@y.example",
            &["Date"],
        ),
    ] {
        let output = mail(&machine, &arguments);
        assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
        let call = machine.call();
        assert_eq!(call.arguments.join(" "), line);
        let queued = machine.take_one();
        assert_eq!((queued.sender(), queued.addresses().join(" ")), (sender, recipients.to_owned()));
        let given = String::from_utf8(call.input).unwrap();
        assert!(given.starts_with("To: Bob <bob@y.example>\r\nSubject: from php\r\n"), "{given:?}");
        queued.assert_is(given.replace("Bcc: d@z.example\r\n", "").as_bytes(), added);
        assert!(queued.content.ends_with("\r\n\r\nhello\r\n.\r\nGr\u{fc}\u{df}e\r\n".as_bytes()));
        if line.contains("QQ7") {
            assert_eq!(queued.head["envid"], "QQ7");
            assert_eq!(queued.recipients[0]["notify"], "NEVER");
        }
    }
}

#[test]
fn php_mail_returns_false_where_nothing_was_queued() {
    if !has("php", "php-cli") {
        return;
    }
    let machine = Machine::new();
    let fails = |arguments: &str, what: &str| {
        let output = mail(&machine, arguments);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", said(&output));
        assert!(said(&output).contains("sendmail: the message was not "), "{}", said(&output));
        machine.assert_nothing_queued();
    };
    fails(r#""Bob Doe", "no address", "hello""#, "65");
    fails(r#""", "nobody", "hello""#, "65, nobody");
    fails(r#""bob@y.example", "no such option", "hello", "", "-Z""#, "64");
    for (config, code) in REFUSALS {
        machine.configure(config);
        fails(r#""bob@y.example", "refused", "hello""#, &code.to_string());
    }
    machine.configure("");
    assert!(mail(&machine, r#""bob@y.example", "accepted", "hello""#).status.success());
}

#[test]
fn php_mail_cannot_be_made_to_name_more_recipients_by_its_parameters() {
    if !has("php", "php-cli") {
        return;
    }
    // What a form's field may hold reaches us escaped for the shell, and then as options only: each word is its own.
    let machine = Machine::new();
    let output =
        mail(&machine, r#""bob@y.example", "x", "hello", "From: web@x.example", "-fa@x; touch pwned""#);
    let call = machine.call();
    assert_eq!(call.arguments, ["-t", "-i", "-fa@x;", "touch", "pwned"]);
    // "a@x;" is no address: nothing is queued, for nobody.
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    machine.assert_nothing_queued();
    assert!(!machine.home().join("pwned").exists());
}
