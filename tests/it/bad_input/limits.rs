//! Limits of a process: the size of its files, the number of its descriptors. Anybody can lower them.

use std::process::{Command, Output};

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;

use super::{
    HURRY, assert_rests, assert_still_delivers, files_in, id, job, message, prepared, put, queue_file,
    submit, wait_for_files,
};
use crate::common::agent::{Agent, LASTMILE, SOON, Site, run};
use crate::common::process::wait_for;
use crate::holding::{END_OF_DATA, Holding};

/// Lowers a limit of the agent; returns what it was.
fn lower(agent: &Agent, resource: Resource, limit: u64) -> Rlimit {
    let present = rustix::process::getrlimit(resource);
    prlimit(Some(agent.pid()), resource, Rlimit { current: Some(limit), maximum: present.maximum }).unwrap()
}

fn raise(agent: &Agent, resource: Resource, before: Rlimit) {
    prlimit(Some(agent.pid()), resource, before).unwrap();
}

/// Runs sendmail with files of at most so many octets.
fn sendmail_within(site: &Site, octets: u64, content: &[u8]) -> Output {
    let mut command = Command::new("prlimit");
    command.arg(format!("--fsize={octets}")).args(["--", LASTMILE, "sendmail", "-i", "-f", "a@example.org"]);
    command
        .arg("b@example.org")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LASTMILE_CONFIG", site.config());
    run(&mut command, content)
}

#[test]
fn sendmail_that_may_not_write_the_file_says_so_and_leaves_nothing() {
    let (site, server) = prepared("");
    let long = message("long").repeat(1000);
    for octets in [0, 1, 300, 4096, 30_000] {
        let output = sendmail_within(&site, octets, long.as_bytes());
        let text = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(site.files(), Vec::<String>::new(), "{octets}: {text}");
        assert!(matches!(output.status.code(), Some(74 | 75)), "{octets}: {output:?}");
        // Standard error of this test is a file, too: with no octets at all it says nothing.
        if octets > 300 {
            assert!(
                text.contains("the message was not queued: ") && text.contains("File too large"),
                "{text}"
            );
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
    assert!(sendmail_within(&site, 1 << 20, long.as_bytes()).status.success());
    let agent = site.start_agent();
    server.wait_for_mail_of(&site, "b@example.org", 1);
    agent.stop();
}

#[test]
fn a_mark_that_fails_after_the_reply_holds_the_message() {
    let site = Site::new("");
    let server = Holding::start(&site, &[END_OF_DATA, "none"]);
    let keys = format!(
        "default_transport = \"unix:{}\"\nbounce_nexthop = \"unix:/nowhere\"\n",
        server.socket.display()
    );
    site.configure(&keys);
    let (agent, _log) = site.start_agent_with_piped_log();
    submit(&site, "not marked", &["b@example.org"]);
    server.wait_until_it_holds(&site);
    let before = lower(&agent, Resource::Fsize, 10);
    server.release();
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    let told =
        ["error: ", "outcomes could not be marked in the queue file (File too large", "it is in hold/ now"];
    site.wait_for_line(&told, SOON);
    let held = wait_for("it in hold/", SOON, || files_in(&site, "hold").into_iter().next());
    assert_eq!(site.files().len(), 1, "{:?}", site.files());
    assert_eq!(std::fs::read_to_string(&held).unwrap().lines().nth(2), Some("-I"), "it was in doubt");
    raise(&agent, Resource::Fsize, before);
    assert_rests(&site, &agent);
    assert_eq!(server.stored().len(), 1, "it was sent again without being asked for");
    agent.stop();
}

#[test]
fn a_message_that_cannot_be_marked_before_its_end_is_not_sent() {
    let site = Site::new("");
    let server = Holding::start(&site, &["RCPT", "none", "none", "none", "none", "none"]);
    let keys = format!(
        "default_transport = \"unix:{}\"\nbounce_nexthop = \"unix:/nowhere\"\n{HURRY}",
        server.socket.display()
    );
    site.configure(&keys);
    let (agent, _log) = site.start_agent_with_piped_log();
    submit(&site, "not marked", &["b@example.org"]);
    server.wait_until_it_holds(&site);
    let before = lower(&agent, Resource::Fsize, 10);
    server.release();
    site.wait_for_line(&["to=<b@example.org>", "status=deferred", "File too large"], SOON);
    assert!(server.stored().is_empty(), "it was sent without a mark of doubt");
    raise(&agent, Resource::Fsize, before);
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    wait_for_files(&site, &[]);
    assert_eq!(server.stored().len(), 1);
    assert!(site.lines_with(&["delivered twice"]).is_empty(), "{}", site.log());
    agent.stop();
}

#[test]
fn a_dropped_file_that_cannot_be_copied_stays() {
    let (site, server) = prepared("");
    let (agent, _log) = site.start_agent_with_piped_log();
    let before = lower(&agent, Resource::Fsize, 10);
    put(&site, "incoming/whole", queue_file(&id(1), &["b@example.org"], "X: y\r\n\r\n"));
    site.drop_message("bare", message("bare").as_bytes());
    site.write_job(&job("bare", "c@example.org"));
    site.wait_for_lines(
        2,
        &["error: incoming/", "cannot be queued now: ", "File too large", "it is kept"],
        SOON,
    );
    assert_rests(&site, &agent);
    assert_eq!(site.files(), ["incoming/bare", "incoming/whole"]);
    raise(&agent, Resource::Fsize, before);
    site.write_job(&job("bare", "c@example.org"));
    server.wait_for_mail_of(&site, "c@example.org", 1);
    agent.stop();
    let agent = site.start_agent();
    server.wait_for_mail_of(&site, "b@example.org", 1);
    wait_for_files(&site, &[]);
    agent.stop();
}

#[test]
fn an_agent_without_descriptors_waits_and_loses_nothing() {
    let (site, server) = prepared(HURRY);
    let agent = site.start_agent();
    assert_still_delivers(&site, &server);
    // Those that it has it keeps; poll(2) takes no more of them than the limit.
    let before = lower(&agent, Resource::Nofile, 4);
    submit(&site, "no descriptor", &["b@example.org"]);
    site.drop_message("bare", message("bare").as_bytes());
    site.write_job(&job("bare", "c@example.org"));
    put(&site, "incoming/whole", queue_file(&id(1), &["d@example.org"], "X: y\r\n\r\n"));
    site.wait_for_line(
        &["error: ", "the queue file cannot be read: Too many open files", "tried again in a minute"],
        SOON,
    );
    site.wait_for_line(&["error: incoming/bare cannot be queued now: ", "Too many open files"], SOON);
    site.wait_for_line(
        &["error: incoming/ cannot be listed: Too many open files", "tried again in a minute"],
        SOON,
    );
    let asked = site.run(&["queue", "list"], b"");
    assert!(!asked.status.success() || asked.stdout.is_empty(), "{asked:?}");
    assert_rests(&site, &agent);
    assert_eq!(server.count(), 1);
    raise(&agent, Resource::Nofile, before);
    let active = files_in(&site, "active");
    assert_eq!(active.len(), 1, "{:?}", site.files());
    let name = active[0].file_name().unwrap().to_str().unwrap();
    site.write_job(&json!({"queue_file": format!("active/{name}")}));
    site.write_job(&job("bare", "c@example.org"));
    server.wait_for_mail_of(&site, "b@example.org", 1);
    server.wait_for_mail_of(&site, "c@example.org", 1);
    assert_still_delivers(&site, &server);
    agent.stop();
    let agent = site.start_agent();
    server.wait_for_mail_of(&site, "d@example.org", 1);
    wait_for_files(&site, &[]);
    agent.stop();
}
