//! The log, as another program and as a grammar read it.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use lastmile::mail::Protocol;
use serde_json::json;

use super::{HURRY, Server, submit, submit_job, to_socket, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site, run};
use crate::common::mailbox;

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

/// What pflogsumm says about a log; `None`, and a word about it, where it is not installed.
fn pflogsumm(site: &Site) -> Option<String> {
    if Command::new("pflogsumm").arg("--version").output().is_err() {
        eprintln!("skipped: pflogsumm is not installed");
        return None;
    }
    let mut command = Command::new("pflogsumm");
    command.arg("--syslog-name=lastmile").arg(site.path().join("agent.log")).env("LC_ALL", "C");
    let output = run(&mut command, b"");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The rows of a section of pflogsumm's, in words, up to the next section.
fn section<'a>(text: &'a str, title: &str) -> Vec<Vec<&'a str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(title)).skip(1);
    let lines = lines.skip_while(|line| line.starts_with("---") || line.is_empty());
    lines.take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect()
}

/// Octets that have arrived for some addresses, as the server has stored them.
fn octets_of(server: &Server, addresses: &[&str]) -> usize {
    let stored = |address: &&str| {
        mailbox::messages(&server.maildirs.join(address)).iter().map(Vec::len).sum::<usize>()
    };
    addresses.iter().map(stored).sum()
}

/// Two transports, each with mail that is sent, deferred and refused.
fn with_mail_over_two_transports() -> (Site, Server, Server) {
    let site = Site::new("");
    let near = Server::start(&site, "near", SCRIPT);
    let far = Server::start_with(
        &site,
        "far",
        "rcpt gone@* 554 5.7.1 gone for good\nrcpt later@* times 1 450 4.2.0 later\n",
        |config| config.protocol = Protocol::Smtp,
    );
    let route = format!("[routes]\n\"far.example\" = \"smtp:unix:{}\"\n", far.socket.display());
    site.configure(&to_socket(&near.socket, &format!("{HURRY}{route}")));
    let agent = site.start_agent();
    submit(&site, "to three", &["yes@example.org", "no@example.org", "late@example.org"]);
    submit(&site, "far away", &["you@far.example", "gone@far.example", "later@far.example"]);
    submit_job(&site, "from-nobody", json!({"sender": "", "recipients": ["yes@example.org"]}));
    submit_job(
        &site,
        "everywhere",
        json!({"sender": "b@example.net", "recipients": ["yes@example.org", "you@far.example"]}),
    );
    site.wait_for_line(&["to=<late@example.org>", "status=sent"], SOON);
    site.wait_for_line(&["to=<later@far.example>", "status=sent"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
    (site, near, far)
}

#[test]
fn pflogsumm_counts_as_postfix_would_have_been_counted() {
    let (site, near, far) = with_mail_over_two_transports();
    let Some(text) = pflogsumm(&site) else { return };
    let shown = || format!("{text}\n{}", site.log());
    // Both bounces went to a@example.org, and count as delivered; nobody has handed them in, so they are not received.
    let near_octets = octets_of(&near, &["yes@example.org", "late@example.org", "a@example.org"]);
    let far_octets = octets_of(&far, &["you@far.example", "later@far.example"]);
    let received = octets_of(&near, &["yes@example.org"]) + octets_of(&far, &["later@far.example"]);
    let totals = [
        ("received", 4),
        ("delivered", 9),
        ("forwarded", 0),
        ("deferred", 2),
        ("bounced", 2),
        ("rejected", 0),
        ("held", 0),
        ("discarded", 0),
        ("bytes received", received),
        ("bytes delivered", near_octets + far_octets),
        ("senders", 3),
        ("sending hosts/domains", 3),
        ("recipients", 5),
        ("recipient hosts/domains", 2),
    ];
    for (what, expected) in totals {
        let count = text.lines().find_map(|line| {
            let (number, words) = line.trim_start().split_once(' ')?;
            let rest = words.trim_start().strip_prefix(what)?;
            // "rejected (0%)", "deferred  (3  deferrals)"; but "recipients" is not "recipient hosts/domains".
            if rest.is_empty() || rest.trim_start().starts_with('(') { number.parse().ok() } else { None }
        });
        assert_eq!(count, Some(expected), "{what}: {}", shown());
    }
    // Two messages; one of them was deferred twice.
    assert!(text.contains("(3  deferrals)") || text.contains("(3 deferrals)"), "{}", shown());

    let domains = section(&text, "Host/Domain Summary: Message Delivery");
    for (domain, sent, octets, deferrals) in
        [("example.org", 6, near_octets, 2), ("far.example", 3, far_octets, 1)]
    {
        let row =
            domains.iter().find(|row| row.last() == Some(&domain)).unwrap_or_else(|| panic!("{}", shown()));
        let expected = [sent, octets, deferrals].map(|number| number.to_string());
        assert_eq!(row[..3], expected, "{domain}: {}", shown());
    }
    let recipients = section(&text, "Recipients by message count");
    for (count, address) in [
        ("3", "yes@example.org"),
        ("2", "a@example.org"),
        ("2", "you@far.example"),
        ("1", "late@example.org"),
    ] {
        assert!(recipients.contains(&vec![count, address]), "{address}: {}", shown());
    }
    let senders = section(&text, "Senders by message count");
    for row in [["2", "a@example.org"], ["1", "b@example.net"], ["1", "from=<>"]] {
        assert!(senders.contains(&row.to_vec()), "{row:?}: {}", shown());
    }
    // By transport, and in the server's words.
    let details = |title: &str| section(&text, title).concat().join(" ");
    let deferrals = details("message deferral detail");
    for part in ["lmtp (total: 2)", "mailbox", "smtp (total: 1)", "later"] {
        assert!(deferrals.contains(part), "{part}: {}", shown());
    }
    let bounces = details("message bounce detail");
    for part in ["no such user", "gone for good"] {
        assert!(bounces.contains(part), "{part}: {}", shown());
    }
    for nothing in ["message reject detail", "Warnings", "Fatal Errors", "Panics", "Master daemon messages"] {
        assert!(text.contains(&format!("{nothing}: none")), "{nothing}: {}", shown());
    }
    assert!(!text.contains("with no size data"), "{}", shown());
}

#[test]
fn pflogsumm_shows_a_warning_and_what_it_is_about() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt * 550 5.1.1 nobody is known here\n");
    server.serves(&site, "notify_classes = [\"resource\"]\n");
    let agent = site.start_agent();
    submit(&site, "nobody's", &["no@example.org"]);
    site.wait_for_line(&["warning: ", "kept in corrupt/"], SOON);
    agent.stop();
    let Some(text) = pflogsumm(&site) else { return };
    assert!(!text.contains("Warnings: none"), "{text}\n{}", site.log());
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

/// Says something to each client, and closes.
fn say_and_close(said: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // Whoever has gone does not hear it.
            let _ = client.write_all(said.as_bytes());
        }
    });
    port
}

#[test]
fn a_server_that_was_connected_to_is_named_also_where_it_took_no_mail() {
    let site = Site::new("");
    let none = site.path().join("none.sock");
    let agent_of = |destination: &str| {
        site.configure(&format!("default_transport = \"lmtp:{destination}\"\n"));
        site.start_agent()
    };
    for (said, reason) in [
        ("421 4.3.2 not now\r\n", "refused to talk to me: 421 4.3.2 not now"),
        ("554 5.7.1 not you\r\n", "refused to talk to me: 554 5.7.1 not you"),
        ("", "while receiving the initial server greeting"),
        ("220 hello\r\n", "while performing the LHLO handshake"),
    ] {
        let port = say_and_close(said);
        let relay = format!("relay=127.0.0.1[127.0.0.1]:{port}, ");
        let agent = agent_of(&format!("inet:127.0.0.1:{port}"));
        submit(&site, "refused", &["b@example.org"]);
        site.wait_for_line(&["to=<b@example.org>", &relay, "status=deferred", reason], SOON);
        agent.stop();
        // What counts is the last server of the list, and that it could be connected to.
        let agent = agent_of(&format!("inet:127.0.0.1:{port},unix:{}", none.display()));
        let address = format!("c{port}@example.org");
        submit(&site, "refused twice", &[&address]);
        site.wait_for_line(&[&address, "relay=none", "none.sock]: No such file"], SOON);
        agent.stop();
    }
}

/// The conversations in the log: of each line the worker, and what was said.
fn conversation(site: &Site) -> Vec<(String, String)> {
    let lines = site.lines_with(&["lastmile/agent", "]: worker "]);
    let parts = lines.iter().map(|line| {
        let said = line.split_once("]: ").unwrap().1;
        let [worker, _server, said] = said.splitn(3, ": ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        (worker.to_owned(), said.to_owned())
    });
    parts.collect()
}

#[test]
fn conversations_with_listed_servers_are_logged_as_far_as_asked() {
    for (level, has_commands) in [(1, false), (2, true)] {
        let site = Site::new("");
        let server = Server::start(&site, "mail", "");
        let other = Server::start(&site, "other", "");
        let keys = format!(
            "[routes]\n\"other.example\" = \"unix:{}\"\n[transport.lmtp]\ndebug_peer_list = \"{}\"\ndebug_peer_level = {level}\n",
            other.socket.display(),
            server.socket.display()
        );
        server.serves(&site, &keys);
        let agent = site.start_agent();
        submit(&site, "listed", &["b@example.org"]);
        submit(&site, "not listed", &["b@other.example"]);
        server.only_mail_of("b@example.org");
        other.only_mail_of("b@other.example");
        agent.stop();
        let said = conversation(&site);
        let has = |start: &str| said.iter().any(|(_, text)| text.starts_with(start));
        assert!(has("< 220 ") && has("< 250 2.1.5 "), "{said:?}");
        for command in ["> LHLO mx.example.org", "> MAIL FROM:<a@example.org>", "> RCPT TO:<b@example.org>"] {
            assert_eq!(has(command), has_commands, "{said:?}");
        }
        assert!(said.iter().all(|(worker, _)| *worker == said[0].0), "one message, one worker: {said:?}");
        assert!(site.lines_with(&["]: worker ", "other.sock"]).is_empty(), "nobody asked for that");
        assert!(site.lines_with(&["text of listed"]).is_empty(), "content is nobody's business");
    }
}
