//! Symfony Mailer, which Laravel uses too: one message a process.
//!
//! - Owns: the commands that applications configure, what Symfony throws where we refuse.
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
    machine.assert_nothing_queued();
}
