//! Directories of the queue that somebody removes while an agent holds them open.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{HURRY, assert_rests, files_in, id, job, message, prepared, put, queue_file, wait_for_files};
use crate::common::agent::{SOON, Site};
use crate::common::long::is_long;
use crate::common::process::wait_for;

fn remove(site: &Site, place: &str) -> PathBuf {
    let path = site.queue().join(place);
    fs::remove_dir(&path).unwrap();
    path
}

/// What an agent says of a directory that is gone.
fn gone(place: &str) -> String {
    format!("{place}/ was removed while it was in use: the agent makes it again when it is restarted")
}

#[test]
fn damaged_mail_without_corrupt_stays_and_is_set_aside_after_a_restart() {
    let (site, _server) = prepared("");
    let agent = site.start_agent();
    remove(&site, "corrupt");
    let path = format!("active/{}", id(1));
    put(&site, &path, "lastmile/1\nrubbish\n");
    site.write_job(&serde_json::json!({"queue_file": path}));
    site.wait_for_line(&["error: ", &id(1), "and it cannot be moved to corrupt/: ", &gone("corrupt")], SOON);
    put(&site, "incoming/rubbish", "lastmile/1\nrubbish\n");
    site.wait_for_line(&["error: tmp/", "cannot be moved: ", &gone("corrupt"), "it stays"], SOON);
    assert_rests(&site, &agent);
    assert!(site.files().contains(&path), "{:?}", site.files());
    assert_eq!(files_in(&site, "tmp").len(), 1, "{:?}", site.files());
    agent.stop();
    let agent = site.start_agent();
    wait_for("both set aside", SOON, || (files_in(&site, "corrupt").len() == 2).then_some(()));
    assert_eq!(site.files().len(), 2, "{:?}", site.files());
    agent.stop();
}

#[test]
fn mail_that_cannot_be_deferred_stays_active_and_is_told_of() {
    let (site, server) = prepared(HURRY);
    let agent = site.start_agent();
    remove(&site, "deferred");
    let refused = site.run(&["sendmail", "-i", "-f", "a@example.org", "b@example.org"], b"");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(69) && text.contains("has no deferred/"), "{refused:?}");
    let path = format!("active/{}", id(1));
    put(
        &site,
        &path,
        queue_file(&id(1), &["later@example.org", "b@example.org", "no@example.org"], "X: y\r\n\r\n"),
    );
    site.write_job(&serde_json::json!({"queue_file": path}));
    site.wait_for_line(
        &["error: ", "it cannot be deferred: ", &gone("deferred"), "it stays in active/"],
        SOON,
    );
    site.wait_for_line(&["<no@example.org>", "status=deferred", "the refusal cannot be recorded"], SOON);
    assert_rests(&site, &agent);
    let active = files_in(&site, "active");
    assert_eq!((site.files().len(), active.len()), (1, 1), "{:?}", site.files());
    assert_eq!(fs::read_to_string(&active[0]).unwrap().lines().nth(2), Some("-PSP"));
    agent.stop();
    let agent = site.start_agent();
    server.wait_for_mail_of(&site, "a@example.org", 1);
    site.wait_for_line(&["<no@example.org>", "status=bounced"], SOON);
    agent.stop();
    assert_eq!(server.mail_of("b@example.org").len(), 1);
    assert_eq!(files_in(&site, "deferred").iter().filter(|path| path.extension().is_none()).count(), 1);
}

#[test]
fn mail_that_cannot_be_held_or_copied_stays_where_it_is() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    remove(&site, "hold");
    let path = format!("active/{}", id(1));
    put(
        &site,
        &path,
        queue_file(&id(1), &["b@example.org"], "X: y\r\n\r\n").replace("lastmile/1", "lastmile/2"),
    );
    site.write_job(&serde_json::json!({"queue_file": path}));
    site.wait_for_line(
        &["error: ", &id(1), "of another version", "cannot be moved to hold/: ", &gone("hold")],
        SOON,
    );
    let asked = site.run(&["queue", "hold", &id(1)], b"");
    assert_eq!(asked.status.code(), Some(74), "{asked:?}");
    assert!(String::from_utf8_lossy(&asked.stdout).contains(&gone("hold")), "{asked:?}");
    remove(&site, "tmp");
    put(&site, "incoming/whole", queue_file(&id(2), &["c@example.org"], "X: y\r\n\r\n"));
    site.wait_for_line(&["error: incoming/whole cannot be moved: ", &gone("tmp"), "it stays"], SOON);
    site.drop_message("bare", message("bare").as_bytes());
    site.write_job(&job("bare", "d@example.org"));
    site.wait_for_line(&["error: incoming/bare cannot be queued now: "], SOON);
    assert_rests(&site, &agent);
    wait_for_files(&site, &[&path, "incoming/bare", "incoming/whole"]);
    agent.stop();
    let agent = site.start_agent();
    server.wait_for_mail_of(&site, "c@example.org", 1);
    wait_for("it on hold", SOON, || (files_in(&site, "hold").len() == 1).then_some(()));
    wait_for_files(&site, &[&format!("hold/{}", id(1)), "incoming/bare"]);
    agent.stop();
}

/// Nothing moves, so nothing would ever fail: what is made in its place is looked at by nobody. A long run waits for the
/// next listing, which is a minute away.
#[test]
fn an_incoming_that_was_removed_is_told_of_and_made_again_by_a_restart() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    remove(&site, "incoming");
    if is_long() {
        site.wait_for_line(&["error: ", &gone("incoming")], Duration::from_secs(90));
    }
    agent.stop();
    let agent = site.start_agent();
    put(&site, "incoming/whole", queue_file(&id(2), &["c@example.org"], "X: y\r\n\r\n"));
    server.wait_for_mail_of(&site, "c@example.org", 1);
    agent.stop();
}
