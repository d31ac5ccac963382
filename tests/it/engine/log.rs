//! The log, as another program and as a grammar read it.

use std::process::Command;

use serde_json::json;

use super::{HURRY, Server, submit, submit_job, to_socket, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site, run};

const SCRIPT: &str =
    "rcpt no@* 550 5.1.1 no such user\nrcpt late@* times 2 450 4.2.1 mailbox\\n4.2.1 locked\n";

/// A site with mail of every fate in its log: five are sent (the bounce is one), two attempts deferred, one bounced.
fn with_mail_of_every_fate() -> Site {
    let site = Site::new("");
    let server = Server::start(&site, "mail", SCRIPT);
    site.configure(&to_socket(&server.socket, HURRY));
    let agent = site.start_agent();
    submit(&site, "to three", &["yes@example.org", "no@example.org", "late@example.org"]);
    let aliased = json!({"address": "\"odd box\"@example.org", "orcpt": "rfc822;list@x.example"});
    submit_job(&site, "aliased", json!({"sender": "", "recipients": [aliased]}));
    submit(&site, "one more", &["yes@example.org"]);
    site.wait_for_line(&["to=<late@example.org>", "status=sent"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
    site
}

#[test]
fn pflogsumm_counts_as_postfix_would_have_been_counted() {
    let site = with_mail_of_every_fate();
    let mut command = Command::new("pflogsumm");
    command.arg("--syslog-name=lastmile").arg(site.path().join("agent.log")).env("LC_ALL", "C");
    if Command::new("pflogsumm").arg("--version").output().is_err() {
        eprintln!("skipped: pflogsumm is not installed");
        return;
    }
    let output = run(&mut command, b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let count = |what: &str| {
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(what));
        line.and_then(|line| line.split_whitespace().next()).map(str::to_owned)
    };
    for (what, expected) in [("received", "3"), ("delivered", "5"), ("bounced", "1"), ("deferred", "1")] {
        assert_eq!(count(what).as_deref(), Some(expected), "{what}: {text}\n{}", site.log());
    }
    // One message, deferred twice.
    assert!(text.contains("(2  deferrals)") || text.contains("(2 deferrals)"), "{text}");
}

/// Takes `start` off the front, then everything up to `end`.
fn field<'a>(line: &'a str, start: &str, end: &str) -> Result<(&'a str, &'a str), String> {
    let rest = line.strip_prefix(start).ok_or_else(|| format!("no {start:?} before {line:?}"))?;
    rest.split_once(end).ok_or_else(|| format!("no {end:?} after {start:?} in {line:?}"))
}

/// Two significant digits, no finer than hundredths, no zeros at the end, whole seconds from ten on.
fn is_time(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = |digits: &str| digits.bytes().all(|octet| octet.is_ascii_digit());
    let fits = match (whole, fraction.len()) {
        (_, 0) => !text.contains('.'),
        ("0", 1 | 2) => true,
        (_, 1) => whole.len() == 1,
        _ => false,
    };
    fits && !whole.is_empty() && are_digits(whole) && are_digits(fraction) && !fraction.ends_with('0')
}

fn is_status(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| (1..=3).contains(&part.len()) && part.parse::<u32>().is_ok())
}

/// What a line about a recipient says, if it is one by the grammar: the reuse count, and the status.
fn parse(line: &str) -> Result<(Option<u32>, String), String> {
    let line = line.split_once("]: ").ok_or("no tag")?.1;
    let (id, line) = line.split_once(": ").ok_or("no ID")?;
    if id.len() != 20 || !id.bytes().all(|octet| octet.is_ascii_digit() || octet.is_ascii_uppercase()) {
        return Err(format!("{id} is no ID"));
    }
    let (_, mut line) = field(line, "to=<", ">, ")?;
    if line.starts_with("orig_to=") {
        (_, line) = field(line, "orig_to=<", ">, ")?;
    }
    let (relay, mut line) = field(line, "relay=", ", ")?;
    if relay != "none" && !(relay.starts_with("mx.example.org[/") && relay.ends_with(']')) {
        return Err(format!("{relay} is no relay"));
    }
    let mut uses = None;
    if line.starts_with("conn_use=") {
        let (number, rest) = field(line, "conn_use=", ", ")?;
        uses = Some(number.parse().map_err(|_| format!("conn_use={number}"))?);
        line = rest;
    }
    let (delay, line) = field(line, "delay=", ", ")?;
    let (delays, line) = field(line, "delays=", ", ")?;
    let delays: Vec<_> = delays.split('/').collect();
    if delays.len() != 4 || !delays.iter().chain([&delay]).all(|delay| is_time(delay)) {
        return Err(format!("{delay} or {delays:?}"));
    }
    let (dsn, line) = field(line, "dsn=", ", ")?;
    let (status, line) = field(line, "status=", " (")?;
    if !is_status(dsn) || !["sent", "deferred", "bounced"].contains(&status) || !line.ends_with(')') {
        return Err(format!("{dsn}, {status}, {line}"));
    }
    Ok((uses, status.to_owned()))
}

#[test]
fn a_line_about_a_recipient_is_in_postfix_s_form() {
    let site = with_mail_of_every_fate();
    let lines = site.lines_with(&[" to=<"]);
    let parsed: Vec<_> =
        lines.iter().map(|line| parse(line).unwrap_or_else(|why| panic!("{why}: {line}"))).collect();
    let count = |word: &str| parsed.iter().filter(|(_, status)| status == word).count();
    assert_eq!([count("sent"), count("deferred"), count("bounced")], [5, 2, 1], "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("lastmile/lmtp[")), "{lines:#?}");
    assert!(parsed.iter().all(|(uses, _)| uses.is_none_or(|uses| uses >= 2)), "{lines:#?}");
    assert!(parsed.iter().any(|(uses, _)| uses.is_some()), "no connection was used again: {lines:#?}");
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(has("to=<\"odd box\"@example.org>, orig_to=<list@x.example>, "), "{lines:#?}");
    assert!(has(" said: 550 5.1.1 no such user (in reply to RCPT TO command))"), "{lines:#?}");
    assert!(has(" said: 450-4.2.1 mailbox 450 4.2.1 locked (in reply to RCPT TO command))"), "{lines:#?}");
    // Around them: where a message comes from, that it is begun, and that it is gone, each once.
    for (number, parts) in [
        (4, &["lastmile/qmgr[", "from=<", ", size=", ", nrcpt=", " (queue active)"][..]),
        (4, &["lastmile/qmgr[", ": removed"]),
        (1, &["lastmile/bounce[", "sender non-delivery notification: "]),
    ] {
        let found = site.lines_with(parts);
        // A message that was deferred is begun again at each attempt.
        let extra = if parts.contains(&" (queue active)") { 2 } else { 0 };
        assert_eq!(found.len(), number + extra, "{found:#?}");
    }
}
