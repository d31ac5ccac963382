//! Symfony Mailer, which Laravel uses too: over a pipe to `sendmail -bs`, or one message a process.
//!
//! - Owns: the commands that applications configure, the conversation that Symfony holds, what it throws where we refuse.
//! - Leaves to others: the driver (`symfony.php`); Symfony's transports that need no sendmail.
//! - Always true: what arrives in the queue is compared with what Symfony says it has sent.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::support::Machine;

/// Debian's php-symfony-mailer.
const AUTOLOADER: &str = "/usr/share/php/Symfony/Component/Mailer/autoload.php";
/// A text that a pipe or a conversation can spoil; without an end of its last line, or with.
const TEXT: &str = ".\n..two\n.end\nGr\u{fc}\u{df}e\nFrom me\n\nQUIT\nno end";
/// The class of what Symfony throws.
const EXCEPTION: &str = "Symfony\\Component\\Mailer\\Exception\\TransportException";

/// None where Symfony Mailer is not installed.
fn machine(config: &str) -> Option<Machine> {
    if !Path::new(AUTOLOADER).exists() {
        eprintln!("skipped: Symfony Mailer is not here (apt-get install php-cli php-symfony-mailer)");
        return None;
    }
    Some(Machine::with_config(config))
}

/// Sends messages by `sendmail FLAGS` as an application names it in its DSN. What became of each.
#[track_caller]
fn send(machine: &Machine, flags: &str, messages: &Value) -> Vec<Value> {
    let command = format!("{}%20{}", machine.sendmail(), flags.replace(' ', "%20"));
    run(machine, &[], &format!("sendmail://default?command={command}"), messages)
}

#[track_caller]
fn run(machine: &Machine, php: &[&str], dsn: &str, messages: &Value) -> Vec<Value> {
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/callers/symfony.php");
    let Output { status, stdout, stderr } =
        machine.run("php", &[php, &[driver, dsn]].concat(), messages.to_string().as_bytes());
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success() && stderr.is_empty(), "{status}: {stderr}");
    stdout
        .split_inclusive(|&octet| octet == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// The octets of a message that Symfony has sent.
#[track_caller]
fn sent(result: &Value) -> Vec<u8> {
    let hexadecimal = result["sent"].as_str().unwrap_or_else(|| panic!("not sent: {result}"));
    let octet = |at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(octet).collect()
}

/// What was thrown: the server's code, and the words.
#[track_caller]
fn thrown(result: &Value) -> (i64, &str) {
    assert_eq!(result["exception"], EXCEPTION, "{result}");
    (result["code"].as_i64().unwrap(), result["message"].as_str().unwrap())
}

/// The lines of a conversation, each content as one `...`.
fn commands(input: &[u8]) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in String::from_utf8(input.to_vec()).unwrap().split_inclusive("\r\n") {
        let line = line.strip_suffix("\r\n").expect("Symfony ends its lines by CRLF");
        match (commands.last().map(String::as_str), line) {
            (Some("DATA"), _) => commands.push("...".to_owned()),
            (Some("..."), ".") => commands.push(".".to_owned()),
            (Some("..."), _) => {}
            _ => commands.push(line.to_owned()),
        }
    }
    commands
}

#[test]
fn one_process_takes_several_messages_and_refuses_one_between() {
    let Some(machine) = machine("") else { return };
    // Valid to Symfony; longer than any address may be here.
    let too_long = format!("{}@example.net", "x".repeat(1000));
    let messages = json!([
        {"from": "ann@example.org", "to": ["bob@example.net"], "cc": ["\"o'neil, pat\"@example.net"],
         "bcc": ["carol@example.net"], "subject": "Gr\u{fc}\u{df}e", "text": TEXT},
        {"from": "ann@example.org", "to": ["dora@example.net", too_long], "subject": "no", "text": "x"},
        {"from": "ann@example.org", "sender": "bounces@example.org", "to": ["emil@example.net"],
         "subject": "with its end", "text": format!("{TEXT}\n")},
    ]);
    // Symfony's default, and Laravel's.
    for flags in ["-bs", "-bs -i"] {
        let results = send(&machine, flags, &messages);
        let call = machine.call();
        assert_eq!(call.arguments, flags.split(' ').collect::<Vec<_>>());
        let conversation = [
            "HELO [127.0.0.1]",
            "MAIL FROM:<ann@example.org>",
            "RCPT TO:<bob@example.net>",
            "RCPT TO:<\"o'neil, pat\"@example.net>",
            "RCPT TO:<carol@example.net>",
            "DATA",
            "...",
            ".",
            "MAIL FROM:<ann@example.org>",
            "RCPT TO:<dora@example.net>",
            &format!("RCPT TO:<{too_long}>"),
            "RSET",
            // After a failure Symfony makes sure that somebody is there.
            "NOOP",
            "MAIL FROM:<bounces@example.org>",
            "RCPT TO:<emil@example.net>",
            "DATA",
            "...",
            ".",
            "QUIT",
        ];
        assert_eq!(commands(&call.input), conversation, "{results:?}");

        let (code, words) = thrown(&results[1]);
        assert!((500..600).contains(&code), "{words}");
        assert!(words.contains(&format!("got code \"{code}\", with message \"{code} 5.1.3 ")), "{words}");

        let queued = machine.take_queued();
        assert_eq!(queued.len(), 2);
        assert_eq!(queued[0].sender(), "ann@example.org");
        let recipients = ["bob@example.net", "\"o'neil, pat\"@example.net", "carol@example.net"];
        assert_eq!(queued[0].addresses(), recipients);
        queued[0].assert_is(&sent(&results[0]), &[]);
        assert_eq!(queued[1].sender(), "bounces@example.org");
        assert_eq!(queued[1].addresses(), ["emil@example.net"]);
        // Symfony says CRLF before the last dot in any case.
        queued[1].assert_is(&[&sent(&results[2])[..], b"\r\n"].concat(), &[]);
    }
}

#[test]
fn more_messages_than_symfony_gives_one_process_are_all_queued() {
    let Some(machine) = machine("") else { return };
    let message = |number: u32| {
        json!({"from": "ann@example.org", "to": [format!("reader{number:03}@example.net")],
               "subject": number.to_string(), "text": TEXT})
    };
    let results = send(&machine, "-bs", &(1..=101).map(message).collect());
    // A new process after 100.
    assert_eq!(machine.calls().len(), 2);
    let queued = machine.take_queued();
    assert_eq!((queued.len(), results.len()), (101, 101));
    for (number, (message, result)) in (1..).zip(queued.iter().zip(&results)) {
        assert_eq!(message.addresses(), [format!("reader{number:03}@example.net")]);
        message.assert_is(&sent(result), &[]);
    }
}

#[test]
fn a_message_that_is_too_large_is_refused_with_a_code_and_the_next_one_is_not() {
    let Some(machine) = machine("message_size_limit = \"20K\"") else { return };
    let message = |text: &str| json!({"from": "ann@example.org", "to": ["bob@example.net"], "subject": "size", "text": text});
    let messages = json!([message(&"x".repeat(100_000)), message(TEXT)]);
    let results = send(&machine, "-bs", &messages);
    let (code, words) = thrown(&results[0]);
    assert!(code == 552 && words.contains("\"552 5.3.4 "), "{words}");
    machine.take_one().assert_is(&sent(&results[1]), &[]);

    let results = send(&machine, "-t -i", &messages);
    let (_, words) = thrown(&results[0]);
    // As a message that does not fit into the pipe: the process ends before it has read everything.
    let expected = ["Process failed with exit code 69: sendmail: ", "Unable to write bytes on the wire."];
    assert!(expected.iter().any(|expected| words.starts_with(expected)), "{words}");
    machine.take_one().assert_is(&sent(&results[1]), &[]);
}

#[test]
fn with_t_symfony_names_the_recipients_itself() {
    let Some(machine) = machine("") else { return };
    let message = json!([{"from": "ann@example.org", "sender": "bounces@example.org", "to": ["bob@example.net"],
        "bcc": ["-carol@example.net"], "subject": "Gr\u{fc}\u{df}e", "text": TEXT}]);
    let end = ["-fbounces@example.org", "--", "bob@example.net", "-carol@example.net"];
    let native = format!("sendmail_path={} -t -i", machine.sendmail());
    for way in ["-t -i", "-oi -t", "php.ini"] {
        let (results, option) = if way == "php.ini" {
            (run(&machine, &["-d", &native], "native://default", &message), "-i")
        } else {
            (send(&machine, way, &message), if way == "-t -i" { "-i" } else { "-oi" })
        };
        assert_eq!(machine.call().arguments, [&[option][..], &end].concat(), "{way}");
        let queued = machine.take_one();
        assert_eq!(queued.sender(), "bounces@example.org");
        assert_eq!(queued.addresses(), ["bob@example.net", "-carol@example.net"]);
        queued.assert_is(&sent(&results[0]), &[]);
        assert_eq!(queued.field("Bcc"), None);
    }
}

#[test]
fn with_t_alone_symfony_doubles_dots_and_they_stay() {
    // Sendmail takes one of two dots away where a lone dot would end the message; Postfix and Exim do not, and nor do
    // we: others that leave out -i double no dots, and would lose one.
    let Some(machine) = machine("") else { return };
    let message =
        json!([{"from": "ann@example.org", "to": ["bob@example.net"], "subject": "dots", "text": TEXT}]);
    let results = send(&machine, "-t", &message);
    assert_eq!(machine.call().arguments, ["-fann@example.org", "--", "bob@example.net"]);
    let doubled = String::from_utf8(sent(&results[0])).unwrap().replace("\r\n.", "\r\n..");
    machine.take_one().assert_is(doubled.as_bytes(), &[]);
}

#[test]
fn what_keeps_us_from_queueing_is_thrown_with_our_words() {
    let Some(machine) = machine("workers = \"many\"") else { return };
    let message =
        json!([{"from": "ann@example.org", "to": ["bob@example.net"], "subject": "x", "text": "x"}]);
    let results = send(&machine, "-t -i", &message);
    let (_, words) = thrown(&results[0]);
    assert!(words.starts_with("Process failed with exit code 78: sendmail: "), "{words}");
    assert!(words.contains("workers"), "{words}");

    let results = send(&machine, "-bs", &message);
    let (code, words) = thrown(&results[0]);
    assert!(code == 421 && words.contains("\"421 4.3.0 ") && words.contains("workers"), "{words}");
    machine.assert_nothing_queued();
}
