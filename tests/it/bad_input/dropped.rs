//! What anybody may put into `incoming/`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use super::server::Server;
use super::{
    assert_rests, assert_still_delivers, files_in, id, is_root, job, message, prepared, put, queue_file,
    wait_for_files,
};
use crate::common::agent::{SOON, Site};
use crate::common::long::short_or_long;
use crate::common::process::wait_for;

const TO: [&str; 2] = ["b@example.org", "c@example.org"];
const CONTENT: &str = "Subject: whole\r\n\r\nfirst line\r\n";
/// Somebody who owns no queue.
const STRANGER: u32 = 54321;

fn changed(from: &str, to: &str) -> String {
    let text = queue_file(&id(1), &TO, CONTENT);
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1)
}

/// What makes a dropped queue file one that is none.
#[test]
fn a_dropped_file_that_cannot_be_taken_in_is_kept_with_a_reason() {
    let (site, server) = prepared("message_size_limit = 1000\n");
    let large = format!("Subject: x\r\n\r\n{}", "0123456789\r\n".repeat(100));
    let cases = [
        (changed("lastmile/1", "lastmile/2"), "hold", "of another version"),
        ("lastmile/".to_owned(), "corrupt", "its first line does not end"),
        ("lastmile/1\n".to_owned(), "corrupt", "its head ends nowhere"),
        ("lastmile/1\n{}\n".to_owned(), "corrupt", "its head does not parse"),
        (changed("\"recipients\":2", "\"recipients\":0"), "corrupt", "it has 0 recipients"),
        (changed("\"recipients\":2", "\"recipients\":3"), "corrupt", "its states line"),
        (changed("\"recipients\":2", "\"recipients\":900000"), "corrupt", "it ends within its states line"),
        (changed("-PP", "-PPP"), "corrupt", "its states line"),
        (changed("-PP", "-PX"), "corrupt", "the state of its recipient 1 is unknown"),
        (changed("c@example.org", "c@@"), "corrupt", "its recipient 1 does not parse"),
        (
            changed("\"c@example.org\"}\n", "\"c@example.org\"}\n{\"address\":\"d@x\"}\n"),
            "corrupt",
            "more recipients than its head says",
        ),
        (
            changed("\"nexthop\":null", "\"nexthop\":\"a\\u001bb\""),
            "corrupt",
            "its nexthop has control characters",
        ),
        (
            changed(&format!("\"size\":{}", CONTENT.len()), "\"size\":null"),
            "corrupt",
            "it was never finished",
        ),
        (
            changed(&format!("\"size\":{}", CONTENT.len()), "\"size\":1"),
            "corrupt",
            "its head says that the content has 1 octets",
        ),
        (changed("first line\r\n", ""), "corrupt", "its head says that the content has"),
        (changed("a@example.org", &"a".repeat(2 << 20)), "corrupt", "its head ends nowhere"),
        (queue_file(&id(1), &TO, &large), "corrupt", "it is larger than message_size_limit"),
    ];
    let agent = site.start_agent();
    for (number, (text, place, told)) in cases.iter().enumerate() {
        put(&site, &format!("incoming/dropped{number}"), text);
        site.write_job(&json!({"queue_file": format!("incoming/dropped{number}")}));
        let name = format!("incoming/dropped{number} of uid ");
        let line = site.wait_for_line(&["pickup", "error: ", &name, "is not queued: "], SOON);
        assert!(line.contains(told) && line.len() < 1000, "{told}: {line}");
        let kept = line.rsplit("it is kept as ").next().unwrap();
        assert!(kept.starts_with(&format!("{place}/")), "{line}");
        assert!(fs::read_to_string(site.queue().join(kept)).unwrap() == *text, "{told}: changed");
    }
    assert_eq!(site.files().len(), cases.len(), "{:?}", site.files());
    site.drop_message("large", large.as_bytes());
    site.write_job(&job("large", "b@example.org"));
    site.wait_for_line(
        &["incoming/large", "it is larger than message_size_limit; it is kept as corrupt/"],
        SOON,
    );
    assert_still_delivers(&site, &server);
    assert_eq!(server.count(), 1);
    agent.stop();
}

/// Identity, states, time and size are the agent's to say, and line ends what SMTP has.
#[test]
fn what_a_dropped_file_says_of_itself_is_not_believed() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    let uid = rustix::process::getuid().as_raw();
    let no_size = |text: String| text.replacen(&format!(",\"size\":{}", CONTENT.len()), "", 1);
    for (number, (text, content)) in [
        (changed("-PP", "WSB"), CONTENT),
        (changed("-PP", "-RI"), CONTENT),
        (changed("\"origin\":\"uid=0\"", "\"origin\":[]"), CONTENT),
        (changed("\"arrival\":\"2026-11-21T19:30:00Z\"", "\"arrival\":\"never\""), CONTENT),
        (changed("\"body\":\"7BIT\"", "\"body\":\"none\""), CONTENT),
        (changed(&id(1), "../../../etc/passwd"), CONTENT),
        (no_size(changed("\r\n\r\nfirst line\r\n", "\n\nfirst line\n")), CONTENT),
        (no_size(changed("first line\r\n", "bare\rCR")), "Subject: whole\r\n\r\nbare CR\r\n"),
        (no_size(changed(CONTENT, "")), ""),
        (no_size(changed(CONTENT, ".\n..\r\n.\n")), ".\r\n..\r\n.\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        put(&site, "incoming/dropped", &text);
        let mail = server.wait_for_mail_of(&site, "b@example.org", number + 1);
        let got = String::from_utf8_lossy(&mail[number].content).into_owned();
        assert_eq!((got.as_str(), mail[number].recipients.len()), (content, 2), "{text}");
        wait_for_files(&site, &[]);
        assert_eq!(server.count(), number + 1, "{text}");
    }
    assert_eq!(site.lines_with(&["pickup", &format!(": uid={uid} from=<a@example.org>")]).len(), 10);
    assert!(site.lines_with(&["error: "]).is_empty(), "{}", site.log());
    agent.stop();
}

/// Cut anywhere, as a crash of its writer leaves it that took the final name too early.
#[test]
fn a_dropped_file_that_was_cut_anywhere_is_never_delivered() {
    let (site, server) = prepared("");
    let text = queue_file(&id(1), &TO, CONTENT);
    // Where it does not begin as a queue file it is a bare message.
    let bare = "lastmile/".len();
    for at in 0..text.len() {
        put(&site, &format!("incoming/cut{at}"), &text[..at]);
    }
    let agent = site.start_agent();
    wait_for("all of them", SOON, || (files_in(&site, "corrupt").len() == text.len() - bare).then_some(()));
    assert_eq!(files_in(&site, "incoming").len(), bare);
    assert_still_delivers(&site, &server);
    assert_eq!(server.count(), 1, "{:?}", server.all());
    agent.stop();
}

#[test]
fn an_empty_bare_file_waits_for_its_line_and_is_an_empty_message() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    site.drop_message("empty", b"");
    assert_still_delivers(&site, &server);
    wait_for_files(&site, &["incoming/empty"]);
    let listed = site.queued();
    assert_eq!((&listed[0]["id"], &listed[0]["size"]), (&json!("empty"), &json!(0)), "{listed:?}");
    site.write_job(&job("empty", "b@example.org"));
    assert!(server.wait_for_mail_of(&site, "b@example.org", 1)[0].content.is_empty());
    agent.stop();
}

type Make = fn(&Path);

/// Whether a line names it or a listing finds it: it is moved aside, never opened for what it is not.
#[test]
fn what_is_no_file_is_set_aside_while_the_agent_runs() {
    let (site, server) = prepared("");
    let fifo = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::from(0o666), 0).unwrap();
    let mut things: Vec<(&str, Make, &str)> = vec![
        ("link", |path| symlink("/etc/passwd", path).unwrap(), "it is a link"),
        ("dangling", |path| symlink("nowhere", path).unwrap(), "it is a link"),
        ("loop", |path| symlink(path.file_name().unwrap(), path).unwrap(), "it is a link"),
        ("socket", |path| drop(UnixListener::bind(path).unwrap()), "it is a link, a socket or a device"),
        ("fifo", fifo, "it is not a regular file"),
        ("directory", |path| fs::create_dir(path).unwrap(), "it is not a regular file"),
        (
            "full",
            |path| fs::create_dir(path).and_then(|()| fs::write(path.join("kept"), "kept")).unwrap(),
            "it is not a regular file",
        ),
        (
            "hard",
            |path| fs::hard_link(path.parent().unwrap().join("../jobs.other"), path).unwrap(),
            "it has more than one name",
        ),
    ];
    if rustix::process::getuid().is_root() {
        // null(4): nobody minds that it is opened.
        let null = |path: &Path| {
            mknodat(CWD, path, FileType::CharacterDevice, Mode::from(0o666), rustix::fs::makedev(1, 3))
                .unwrap();
        };
        things.push(("device", null, "it is not a regular file"));
    }
    fs::write(site.queue().join("jobs.other"), "somebody else's").unwrap();
    let agent = site.start_agent();
    let told = |name: &str, told: &str| {
        let told = format!("is not queued: {told}");
        site.wait_for_line(
            &["pickup", "error: ", &format!("incoming/{name}"), &told, "it is kept as corrupt/"],
            SOON,
        );
    };
    for (name, make, why) in &things {
        make(&site.queue().join("incoming").join(name));
        site.write_job(&job(name, "b@example.org"));
        told(name, why);
    }
    for (name, make, _) in &things {
        make(&site.queue().join("incoming").join(format!("{name}.unnamed")));
    }
    // No event tells of such things; the next one does. A second name of a file is a bare message by its looks.
    put(&site, "incoming/next", changed("lastmile/1", "lastmile/9"));
    for (name, _, why) in things.iter().filter(|(name, ..)| *name != "hard") {
        told(&format!("{name}.unnamed"), why);
    }
    assert_rests(&site, &agent);
    assert_still_delivers(&site, &server);
    assert_eq!(files_in(&site, "corrupt").len(), 2 * things.len() - 1, "{:?}", site.files());
    assert_eq!(files_in(&site, "incoming"), [site.queue().join("incoming/hard.unnamed")]);
    assert_eq!(server.count(), 1);
    assert_eq!(fs::read_to_string(site.queue().join("jobs.other")).unwrap(), "somebody else's");
    agent.stop();
}

#[test]
fn a_name_that_none_may_have_is_shown_in_a_way_that_cannot_break_the_log() {
    let (site, server) = prepared("");
    let names: [&[u8]; 8] = [
        b"with blank",
        b"with\nline end",
        b"\x1b[2J\x07",
        b"\xff\xfe",
        "gr\u{fc}n\u{202e}".as_bytes(),
        b"-rf *;$(true)",
        &[b'x'; 65],
        &[b'y'; 255],
    ];
    for name in names {
        fs::write(site.queue().join("incoming").join(OsStr::from_bytes(name)), message("odd")).unwrap();
    }
    let agent = site.start_agent();
    let told = ["pickup", "error: ", "is not queued: its name is not 1 to 64 letters, digits"];
    let lines = site.wait_for_lines(names.len(), &told, SOON);
    assert!(lines.iter().all(|line| !line.contains(|c: char| c.is_control())), "{lines:?}");
    assert_eq!((lines.len(), files_in(&site, "corrupt").len()), (names.len(), names.len()));
    assert_eq!(site.queued().len(), names.len());
    assert_still_delivers(&site, &server);
    agent.stop();
}

/// Between any two steps of the agent: what it has claimed by then is delivered, of the rest it has nothing to say.
#[test]
fn files_that_vanish_while_they_are_looked_at_are_no_errors() {
    const AT_ONCE: usize = 60;
    let rounds = short_or_long(60, 1000);
    let (site, server) = prepared("");
    let agent = site.start_agent();
    let text = queue_file(&id(1), &TO, CONTENT);
    let mut random = fastrand::Rng::with_seed(5);
    let mut vanished = 0;
    for round in 0..rounds {
        let names: Vec<_> = (0..AT_ONCE).map(|number| format!("vanishing{round}.{number}")).collect();
        let paths: Vec<_> = names.iter().map(|name| put(&site, &format!("incoming/{name}"), &text)).collect();
        site.write_job(&job(&names[AT_ONCE / 2], "b@example.org"));
        std::thread::sleep(Duration::from_micros(random.u64(0..2000)));
        // Claimed already, as often as not.
        vanished += paths.into_iter().rev().filter(|path| fs::remove_file(path).is_ok()).count();
    }
    wait_for_files(&site, &[]);
    agent.stop();
    assert!(site.lines_with(&["error: "]).is_empty(), "{}", site.log());
    assert_eq!(server.count(), rounds * AT_ONCE - vanished, "{vanished} were removed in time");
    assert!(vanished > 0 && server.count() > 0, "{vanished} removed, {} delivered", server.count());
}

/// An agent that is not root meets what it may not read, and what it may not even move.
#[test]
fn what_another_user_keeps_from_the_agent_is_told_once_and_holds_up_nobody() {
    if !is_root() {
        return;
    }
    let site = Site::new("");
    let server = Server::start(&site);
    fs::set_permissions(site.path().join("server.sock"), PermissionsExt::from_mode(0o666)).unwrap();
    let text = format!(
        "queue_directory = \"{}\"\nmyhostname = \"mx.example.org\"\nuser = \"nobody\"\ngroup = \"nogroup\"\n{}",
        site.queue().display(),
        server.as_default()
    );
    fs::write(site.config(), text).unwrap();
    let agent = site.start_agent();
    let incoming = site.queue().join("incoming");
    let (secret, directory) = (incoming.join(".secret"), incoming.join("directory"));
    fs::write(&secret, changed("lastmile/1", "lastmile/1")).unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    fs::create_dir(&directory).unwrap();
    for path in [&secret, &directory] {
        chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    }
    fs::rename(&secret, incoming.join("secret")).unwrap();
    site.wait_for_line(
        &["error: ", "incoming/secret is not queued: the agent may not read it (mode 0640", "corrupt/"],
        SOON,
    );
    site.wait_for_line(&["error: incoming/directory cannot be moved: Permission denied", "it stays"], SOON);
    for number in 0..3 {
        fs::write(incoming.join(format!(".n{number}")), changed("lastmile/1", "lastmile/1")).unwrap();
        chown(incoming.join(format!(".n{number}")), Some(65534), None).unwrap();
        fs::rename(incoming.join(format!(".n{number}")), incoming.join(format!("n{number}"))).unwrap();
        server.wait_for_mail_of(&site, "b@example.org", number + 1);
    }
    assert_rests(&site, &agent);
    assert_eq!(site.lines_with(&["incoming/directory cannot be moved"]).len(), 1, "{}", site.log());
    assert_eq!(files_in(&site, "incoming"), std::slice::from_ref(&directory));
    assert_eq!(fs::metadata(&directory).unwrap().uid(), STRANGER);
    // It may be removed all the same: the directory it lies in is the agent's.
    assert!(site.run(&["queue", "delete", "incoming/directory"], b"").status.success());
    assert!(!directory.exists());
    agent.stop();
}
