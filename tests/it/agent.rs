//! The agent as its administrator meets it: killed, stopped, told to reload, started wrongly, fed rubbish.
//!
//! - Owns: what survives a kill, what a signal does, how a start is refused.
//! - Leaves to others: kills at random, in numbers (`crashes`), odd servers (dialogues), real ones (`peers`).
//! - Always true: no mail is lost in any of these tests, and each says how often it may come twice.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getuid};
use serde_json::json;

use crate::common::agent::{LASTMILE, SOON, Site};
use crate::common::process::wait_for;
use crate::common::sink::SinkProcess;
use crate::holding::{END_OF_DATA, Holding, SECOND_ANSWER};

/// EX_CONFIG of sysexits(3).
const EX_CONFIG: i32 = 78;

/// The configuration that leads all mail to `socket`; more top-level keys follow. Bounces, of which there are none,
/// lead elsewhere, so that the look at their server does not take a connection that is meant for mail.
fn to_socket(socket: &Path, keys: &str) -> String {
    let socket = socket.display();
    format!("default_transport = \"lmtp:unix:{socket}\"\nbounce_nexthop = \"unix:{socket}.bounces\"\n{keys}")
}

fn message(subject: &str) -> Vec<u8> {
    format!("From: a@example.org\nSubject: {subject}\n\ntext of {subject}\n").into_bytes()
}

fn submit(site: &Site, subject: &str) {
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], &message(subject));
}

#[test]
fn a_kill_at_any_stage_of_a_conversation_loses_nothing() {
    for stage in ["greeting", "LHLO", "MAIL", "RCPT", "DATA", END_OF_DATA] {
        let site = Site::new("");
        let server = Holding::start(&site, &[stage, ""]);
        site.configure(&to_socket(&server.socket, ""));
        let agent = site.start_agent();
        submit(&site, "only once");
        server.wait_until_it_holds(&site);
        agent.kill();
        server.release();
        let agent = site.start_agent();
        site.wait_for_line(&["to=<b@example.org>", "status=sent (250 2.0.0 held and stored)"], SOON);
        site.wait_until_empty(SOON);
        agent.stop();
        // Only where the server had it whole, and had not said so, may it come twice; and then the log warns.
        let in_doubt = stage == END_OF_DATA;
        assert_eq!(server.stored().len(), 1 + usize::from(in_doubt), "killed at {stage}:\n{}", site.log());
        let warned = !site.lines_with(&["delivered twice"]).is_empty();
        assert_eq!(warned, in_doubt, "killed at {stage}:\n{}", site.log());
    }
}

#[test]
fn a_recipient_whose_answer_came_before_the_kill_is_done() {
    let site = Site::new("");
    let server = Holding::start(&site, &[SECOND_ANSWER, ""]);
    site.configure(&to_socket(&server.socket, ""));
    let agent = site.start_agent();
    let arguments = ["-i", "-f", "a@example.org", "first@example.org", "second@example.org"];
    site.sendmail(&arguments, &message("for two"));
    server.wait_until_it_holds(&site);
    site.wait_for_line(&["to=<first@example.org>", "status=sent"], SOON);
    agent.kill();
    server.release();
    let agent = site.start_agent();
    site.wait_until_empty(SOON);
    agent.stop();
    assert_eq!(
        server.stored(),
        [
            vec!["first@example.org".to_owned(), "second@example.org".to_owned()],
            vec!["second@example.org".to_owned()]
        ]
    );
    assert_eq!(
        site.wait_for_lines(1, &["to=<first@example.org>", "status=sent"], SOON).len(),
        1,
        "{}",
        site.log()
    );
    assert_eq!(
        site.wait_for_lines(1, &["to=<second@example.org>", "status=sent"], SOON).len(),
        1,
        "{}",
        site.log()
    );
}

#[test]
fn a_stop_waits_for_the_answer_that_is_due() {
    let site = Site::new("");
    let server = Holding::start(&site, &[END_OF_DATA]);
    site.configure(&to_socket(&server.socket, "workers = 1\nworkers_reserved = 0"));
    let mut agent = site.start_agent();
    submit(&site, "first");
    server.wait_until_it_holds(&site);
    agent.signal(Signal::TERM);
    wait_for("STOPPING=1", SOON, || agent.was_told("STOPPING=1"));
    // What comes now waits for the next agent.
    submit(&site, "second");
    thread::sleep(Duration::from_millis(300));
    server.release();
    let status = agent.wait(SOON);
    assert!(status.success(), "{status}\n{}", site.log());
    assert_eq!(site.lines_with(&["status=sent (250 2.0.0 held and stored)"]).len(), 1, "{}", site.log());
    assert_eq!(site.files().len(), 1, "{:?}", site.files());

    let sink = SinkProcess::start(&site, "mail", "");
    site.configure(&to_socket(&sink.socket, ""));
    let agent = site.start_agent();
    site.wait_until_empty(SOON);
    agent.stop();
    assert_eq!(sink.subjects(), BTreeMap::from([("second".to_owned(), 1)]));
}

#[test]
fn a_second_signal_ends_it_at_once_and_keeps_the_message() {
    let site = Site::new("");
    let server = Holding::start(&site, &[END_OF_DATA]);
    site.configure(&to_socket(&server.socket, "shutdown_timeout = \"60s\""));
    let mut agent = site.start_agent();
    submit(&site, "held");
    server.wait_until_it_holds(&site);
    agent.signal(Signal::INT);
    wait_for("STOPPING=1", SOON, || agent.was_told("STOPPING=1"));
    let start = Instant::now();
    agent.signal(Signal::INT);
    agent.wait(SOON);
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    assert_eq!(site.files().len(), 1, "{:?}", site.files());
}

#[test]
fn a_stop_does_not_wait_longer_than_it_may() {
    let site = Site::new("");
    let server = Holding::start(&site, &[END_OF_DATA]);
    site.configure(&to_socket(&server.socket, "shutdown_timeout = \"1s\""));
    let mut agent = site.start_agent();
    submit(&site, "held");
    server.wait_until_it_holds(&site);
    let start = Instant::now();
    agent.signal(Signal::TERM);
    agent.wait(SOON);
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(8)).contains(&took), "it took {took:?}");
    assert_eq!(site.files().len(), 1, "{:?}", site.files());
}

#[test]
fn a_reload_takes_up_new_routes_and_names_what_needs_a_restart() {
    let site = Site::new("");
    let (old, new) = (SinkProcess::start(&site, "old", ""), SinkProcess::start(&site, "new", ""));
    site.configure(&to_socket(&old.socket, ""));
    let agent = site.start_agent();
    submit(&site, "before");
    site.wait_for_line(&["status=sent"], SOON);
    site.configure(&to_socket(&new.socket, "workers = 7"));
    agent.signal(Signal::HUP);
    site.wait_for_line(&["workers", "restart"], SOON);
    submit(&site, "after");
    site.wait_for_lines(2, &["status=sent"], SOON);
    site.wait_until_empty(SOON);
    assert_eq!(old.subjects(), BTreeMap::from([("before".to_owned(), 1)]));
    assert_eq!(new.subjects(), BTreeMap::from([("after".to_owned(), 1)]));

    // A mistake in the file changes nothing: the agent goes on with what it has.
    site.configure("no_such_key = 1");
    agent.signal(Signal::HUP);
    site.wait_for_line(&["no_such_key"], SOON);
    // sendmail reads the file itself, and rightly refuses the mistake too.
    site.configure(&to_socket(&new.socket, "workers = 7"));
    submit(&site, "after the mistake");
    site.wait_for_lines(3, &["status=sent"], SOON);
    assert_eq!(new.subjects().len(), 2);
    agent.stop();
}

#[test]
fn a_second_agent_on_one_queue_is_refused() {
    let site = Site::new("");
    let sink = SinkProcess::start(&site, "mail", "");
    site.configure(&to_socket(&sink.socket, ""));
    let agent = site.start_agent();
    let (status, said) = site.start_agent_in_vain();
    assert!(!status.success(), "{said}");
    let queue = site.queue().display().to_string();
    let is_clear = |line: &str| line.contains(&queue) && line.contains("another process");
    assert!(said.lines().any(is_clear), "{said}");
    // The first one has not noticed.
    submit(&site, "still here");
    site.wait_until_empty(SOON);
    assert_eq!(sink.subjects().len(), 1);
    agent.stop();
}

#[test]
fn a_queue_that_is_not_ours_is_refused_with_its_path() {
    let site = Site::new("");
    fs::create_dir(site.queue()).unwrap();
    let (status, said) = if getuid().is_root() {
        // Root may write everywhere; somebody else may not write into root's directory.
        fs::write(site.config(), format!("queue_directory = \"{}\"\n", site.queue().display())).unwrap();
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        let mut command = std::process::Command::new("setpriv");
        command.args(nobody).arg(visible_to_all(&site)).arg("agent").arg("-c").arg(site.config());
        command.current_dir("/");
        let output = crate::common::agent::run(&mut command, b"");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    } else {
        fs::set_permissions(site.queue(), Permissions::from_mode(0o500)).unwrap();
        site.start_agent_in_vain()
    };
    assert!(!status.success(), "{said}");
    let queue = site.queue().display().to_string();
    assert!(said.lines().any(|line| line.contains(&queue) && line.contains("Permission denied")), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// A copy of the program that other users can run: the build directory may be closed to them.
fn visible_to_all(site: &Site) -> PathBuf {
    let copy = site.path().join("lastmile");
    fs::copy(LASTMILE, &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    copy
}

#[test]
fn a_mistake_in_the_configuration_stops_the_start_with_78() {
    for (mistake, named) in [
        ("no_such_key = 1", "no_such_key"),
        ("workers = \"many\"", "workers"),
        ("[transport.lmtp]\nconnect_timeout = \"5 parsecs\"", "connect_timeout"),
    ] {
        let site = Site::new(mistake);
        let (status, said) = site.start_agent_in_vain();
        assert_eq!(status.code(), Some(EX_CONFIG), "{mistake}: {said}");
        assert!(said.contains(named) && said.contains("lastmile.toml"), "{mistake}: {said}");
        assert!(!site.queue().exists(), "{mistake}: the queue was made all the same");
    }
}

#[test]
fn rubbish_in_the_fifo_is_logged_and_spoils_only_itself() {
    let site = Site::new("");
    let sink = SinkProcess::start(&site, "mail", "");
    site.configure(&to_socket(&sink.socket, ""));
    let agent = site.start_agent();
    let mut rubbish = b"rubbish-begins \x1b[31m\x01\xff\"".to_vec();
    rubbish.extend(std::iter::repeat_n(b'x', 300));
    rubbish.extend(b" rubbish-ends");
    // A torn line: no line end follows it.
    site.write_to_fifo(&rubbish);
    for bad in [
        json!({"queue_file": "../../etc/passwd", "sender": "", "recipients": ["b@example.org"]}),
        json!({"queue_file": "incoming/../active/x", "sender": "", "recipients": ["b@example.org"]}),
        json!({"queue_file": "incoming/none"}),
        json!({"sender": "a@example.org", "recipients": ["b@example.org"]}),
        json!([1, 2, 3]),
    ] {
        site.write_job(&bad);
    }
    let queue_file = site.drop_message("good", &message("good"));
    site.write_job(&json!({"queue_file": queue_file, "sender": "", "recipients": ["b@example.org"]}));
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    let line = site.wait_for_line(&["rubbish-begins"], SOON);
    assert!(!line.contains("rubbish-ends"), "more than 200 octets: {line}");
    assert!(line.contains(&"x".repeat(100)), "much less than 200 octets: {line}");
    assert!(!site.log().contains(['\x1b', '\x01']), "control characters reached the log");
    site.wait_for_line(&["../../etc/passwd"], SOON);
    site.wait_until_empty(SOON);
    assert_eq!(sink.subjects(), BTreeMap::from([("good".to_owned(), 1)]));
    agent.stop();
}

#[test]
fn a_flood_of_bad_lines_does_not_flood_the_log() {
    let site = Site::new("");
    let sink = SinkProcess::start(&site, "mail", "");
    site.configure(&to_socket(&sink.socket, ""));
    let agent = site.start_agent();
    site.write_to_fifo("\n{\"flood\":1}".repeat(5000).as_bytes());
    let queue_file = site.drop_message("good", &message("good"));
    site.write_job(&json!({"queue_file": queue_file, "sender": "", "recipients": ["b@example.org"]}));
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    let lines = site.lines_with(&["flood"]).len();
    assert!((1..=20).contains(&lines), "{lines} lines about 5000 bad ones");
    agent.stop();
}

#[test]
fn what_was_queued_while_nobody_ran_is_found_at_the_start() {
    let site = Site::new("");
    let sink = SinkProcess::start(&site, "mail", "");
    site.configure(&to_socket(&sink.socket, ""));
    site.start_agent().stop();
    for number in 0..10 {
        submit(&site, &format!("early {number}"));
    }
    assert_eq!(site.queued().len(), 10);
    let agent = site.start_agent();
    site.wait_until_empty(SOON);
    agent.stop();
    assert_eq!(sink.subjects().len(), 10);
    // The IDs are those of the sendmail command; each is removed once.
    assert_eq!(site.lines_with(&[": removed"]).len(), 10);
}
