//! Queue files that are cut, too long or contradict themselves, in each directory and at each time.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{
    HURRY, assert_rests, assert_still_delivers, files_in, id, is_root, prepared, put, queue_file,
    wait_for_files,
};
use crate::common::agent::SOON;
use crate::common::long::short_or_long;
use crate::common::process::wait_for;

const TO: [&str; 3] = ["b@example.org", "c@example.org", "d@example.org"];
const CONTENT: &str = "Subject: whole\r\n\r\nfirst line\r\nsecond line\r\n";
/// Somebody who owns no queue.
const STRANGER: u32 = 54321;

/// What a damaged file holds, where it is kept and a part of what is said about it.
type Damaged = (&'static str, Vec<u8>, &'static str, &'static str);

fn whole(id: &str) -> String {
    queue_file(id, &TO, CONTENT)
}

/// A change to a whole file.
fn changed(id: &str, from: &str, to: &str) -> Vec<u8> {
    let text = whole(id);
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

/// Ways to be damaged, one file each.
fn damaged(id: &str) -> Vec<Damaged> {
    let text = whole(id);
    let content_at = text.len() - CONTENT.len();
    let change = |from: &str, to: &str| changed(id, from, to);
    let kept = |what, octets: Vec<u8>, told| (what, octets, "corrupt", told);
    vec![
        kept("empty", Vec::new(), "does not begin with"),
        kept("zeros", vec![0; 8192], "does not begin with"),
        kept("only the first line", b"lastmile/1\n".to_vec(), "its head ends nowhere"),
        kept("without end of its first line", b"lastmile/1".to_vec(), "its first line does not end"),
        kept("a message", b"Subject: x\r\n\r\ntext\r\n".to_vec(), "does not begin with"),
        ("of the next version", change("lastmile/1", "lastmile/2"), "hold", "of another version"),
        ("of version eleven", change("lastmile/1", "lastmile/11"), "hold", "of another version"),
        (
            "with CRLF for its lines",
            text.replacen('\n', "\r\n", 4).into_bytes(),
            "hold",
            "of another version",
        ),
        kept("with a head that is no JSON", change("{\"id\"", "[\"id\""), "its head does not parse"),
        kept("with a head that is an array", b"lastmile/1\n[]\n-P\n\n".to_vec(), "its head does not parse"),
        kept("with a head without sender", change("\"sender\"", "\"Sender\""), "its head does not parse"),
        kept(
            "with a sender that is none",
            change("a@example.org", "a b@example.org"),
            "its head does not parse",
        ),
        kept("with a sender twice", change("\"nexthop\":null", "\"sender\":\"\""), "its head does not parse"),
        kept("with a time that is none", change("19:30:00Z", "19:75:00Z"), "its arrival is no time stamp"),
        kept("with an ID that is none", change(id, "../../etc/passwd"), "its head does not parse"),
        kept(
            "somebody else's",
            change(id, "0LATEM1NUTE999999999"),
            "it says that it is 0LATEM1NUTE999999999",
        ),
        kept(
            "with a nexthop that is a list",
            change("\"nexthop\":null", "\"nexthop\":[]"),
            "its head does not parse",
        ),
        kept(
            "with line ends in its nexthop",
            change("\"nexthop\":null", "\"nexthop\":\"a\\nb\""),
            "its nexthop has control",
        ),
        kept(
            "with line ends in its envid",
            change("\"envid\":null", "\"envid\":\"a\\r\\nb\""),
            "its envid has control",
        ),
        kept("with line ends in its origin", change("uid=0", "uid=0\\nx"), "its origin has control"),
        kept("for nobody", change("\"recipients\":3", "\"recipients\":0"), "it has 0 recipients"),
        kept(
            "for too many",
            change("\"recipients\":3", "\"recipients\":1000001"),
            "it has 1000001 recipients",
        ),
        kept(
            "for less than none",
            change("\"recipients\":3", "\"recipients\":-1"),
            "its head does not parse",
        ),
        kept("for fewer than it names", change("\"recipients\":3", "\"recipients\":2"), "its states line"),
        kept("for more than it names", change("\"recipients\":3", "\"recipients\":4"), "its states line"),
        kept(
            "for a million in three lines",
            change("\"recipients\":3", "\"recipients\":1000000"),
            "shorter than its head says",
        ),
        kept(
            "without size",
            change(&format!("\"size\":{}", CONTENT.len()), "\"size\":null"),
            "its size is missing",
        ),
        kept("with a size below it", change("\"size\":4", "\"size\":3"), "not as long as its head says"),
        kept("with a size above it", change("\"size\":4", "\"size\":5"), "not as long as its head says"),
        kept("with a size of everything", change("\"size\":4", "\"size\":900"), "shorter than its head says"),
        kept(
            "with the largest size",
            change("\"size\":43", "\"size\":18446744073709551615"),
            "shorter than its head says",
        ),
        kept(
            "with a larger size than that",
            change("\"size\":43", "\"size\":18446744073709551616"),
            "its head does not parse",
        ),
        kept("with too few states", change("-PPP\n", "-PP\n"), "its states line"),
        kept("with too many states", change("-PPP\n", "-PPPP\n"), "its states line"),
        kept(
            "with a state that nobody knows",
            change("-PPP\n", "-PXP\n"),
            "the state of its recipient 1 is unknown",
        ),
        kept("with a small state", change("-PPP\n", "-PpP\n"), "the state of its recipient 1 is unknown"),
        kept("without state of the message", change("-PPP\n", "PPPP\n"), "begins with neither"),
        kept("without states", change("-PPP\n", ""), "its states line"),
        kept("with a recipient less", change("{\"address\":\"c@example.org\"}\n", ""), "recipient"),
        kept(
            "with a recipient more",
            change("{\"address\":\"c@", "{\"address\":\"x@y\"}\n{\"address\":\"c@"),
            "more recipients than its head says",
        ),
        kept(
            "with a recipient that is none",
            change("c@example.org", "c d@example.org"),
            "its recipient 1 does not parse",
        ),
        kept(
            "with a command in a recipient",
            change("c@example.org", "c@x>\\r\\nDATA"),
            "its recipient 1 does not parse",
        ),
        kept(
            "with half a recipient",
            change("{\"address\":\"c@example.org\"}", "{\"address\":\"c@exam"),
            "its recipient 1 does not parse",
        ),
        kept(
            "without the blank line",
            change("\"d@example.org\"}\n\n", "\"d@example.org\"}\n"),
            "its head says",
        ),
        kept("longer than it says", [text.as_bytes(), b"more\r\n"].concat(), "not as long as its head says"),
        kept(
            "with a head of megabytes",
            change(
                "\"nexthop\":null",
                &format!("\"x\":\"{}\"", "x".repeat(short_or_long(2 << 20, 10 << 20))),
            ),
            "its head ends nowhere in 1048576 octets",
        ),
        kept(
            "with a recipient of 100 KB",
            change("c@example.org", &"c".repeat(100_000)),
            "the line of its recipient 1 is too long",
        ),
        kept("cut before its content", text.as_bytes()[..content_at].to_vec(), "its head says"),
    ]
}

/// Every damaged file, at once, as an agent finds them at its start and while it runs.
#[test]
fn damaged_files_in_active_are_set_aside_with_a_reason() {
    let (site, server) = prepared("");
    let count = damaged("x").len();
    let write = |from: usize| -> Vec<(String, Damaged)> {
        let ids = (from..from + count).map(id);
        let all = ids.enumerate().map(|(at, id)| (id.clone(), damaged(&id).swap_remove(at)));
        all.inspect(|(id, (_, octets, ..))| drop(put(&site, &format!("active/{id}"), octets))).collect()
    };
    let mut all = write(0);
    let agent = site.start_agent();
    assert_still_delivers(&site, &server);
    let later = write(count);
    for (id, _) in &later {
        site.write_job(&serde_json::json!({"queue_file": format!("active/{id}")}));
    }
    all.extend(later);
    for (id, (what, octets, place, told)) in &all {
        let line = site.wait_for_line(&["error: ", id, &format!("it is kept in {place}/")], SOON);
        assert!(line.contains(told), "{what}: {line}");
        assert!(line.len() < 1000, "{what}: {} octets", line.len());
        let kept =
            fs::read(site.queue().join(place).join(id)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(kept == *octets, "{what} was changed");
    }
    wait_for("the rest", SOON, || (site.files().len() == all.len()).then_some(()));
    assert_eq!(server.count(), 1, "something damaged was delivered: {:?}", server.all());
    assert_eq!(site.wait_for_lines(all.len(), &["error: "], SOON).len(), all.len(), "each is told once");
    agent.stop();
}

/// A file in `deferred/` is looked at when it is due, as one in `active/` is; in `hold/` and `corrupt/` nothing is.
#[test]
fn damaged_files_that_wait_are_found_when_their_time_comes() {
    let (site, server) = prepared(HURRY);
    let count = damaged("x").len();
    let mut kept_anyway = Vec::new();
    for (at, place) in (0..count).flat_map(|at| ["deferred", "hold", "corrupt"].map(|place| (at, place))) {
        let id = id(at + place.len() * 1000);
        let path = put(&site, &format!("{place}/{id}"), damaged(&id).swap_remove(at).1);
        set_modified(&path, SystemTime::now() - Duration::from_secs(3600));
        if place != "deferred" {
            kept_anyway.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    let agent = site.start_agent();
    site.wait_for_lines(count, &["error: ", "; it is kept in "], SOON);
    for (path, octets) in kept_anyway {
        assert!(fs::read(&path).is_ok_and(|found| found == octets), "{} was changed", path.display());
    }
    assert_eq!(files_in(&site, "deferred").len(), 0);
    assert_eq!(site.files().len(), 3 * count);
    assert_eq!(site.queued().len(), 3 * count, "not all are listed");
    assert_still_delivers(&site, &server);
    agent.stop();
}

/// At each place within head, states and recipients, and at several of the content.
#[test]
fn a_file_that_was_cut_anywhere_is_never_delivered() {
    let (site, server) = prepared("");
    let length = whole(&id(0)).len();
    for at in 0..length {
        put(&site, &format!("active/{}", id(at)), &whole(&id(at)).as_bytes()[..at]);
    }
    let agent = site.start_agent();
    assert_still_delivers(&site, &server);
    wait_for("all of them", SOON, || (files_in(&site, "corrupt").len() == length).then_some(()));
    assert_eq!(server.count(), 1, "{:?}", server.all());
    assert_eq!(site.wait_for_lines(length, &["error: ", "; it is kept in corrupt/"], SOON).len(), length);
    agent.stop();
}

/// Nothing that follows a head of our own is trusted to be plain.
#[test]
fn content_that_was_changed_by_hand_cannot_end_early() {
    let (site, server) = prepared("");
    for (number, (content, expected)) in [
        ("Subject: x\n\nLF only\n", "Subject: x\r\n\r\nLF only\r\n"),
        (
            "Subject: x\n.\nMAIL FROM:<x@y>\nRCPT TO:<smuggled@example.org>\nDATA\nhello\n.\n",
            "Subject: x\r\n.\r\nMAIL",
        ),
        (
            "a\r\n.\nMAIL FROM:<x@y>\r\nRCPT TO:<smuggled@example.org>\r\nDATA\r\nhello\r\n.\r\n",
            "a\r\n.\r\nMAIL",
        ),
        (
            "a\n.\r\nMAIL FROM:<x@y>\r\nRCPT TO:<smuggled@example.org>\r\nDATA\r\nhello\r\n.\r\n",
            "a\r\n.\r\nMAIL",
        ),
        ("a\r.\r\nMAIL FROM:<x@y>\r\n", "a .\r\nMAIL"),
        ("bare\rCR\r\n", "bare CR\r\n"),
        ("no end of line", "no end of line\r\n"),
        ("\0\0\0\r\n", "\0\0\0\r\n"),
        ("", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let to = format!("r{number}@example.org");
        put(&site, &format!("active/{}", id(number)), queue_file(&id(number), &[&to], content));
        let agent = site.start_agent();
        let mail = server.wait_for_mail_of(&site, &to, 1);
        wait_for_files(&site, &[]);
        let got = String::from_utf8_lossy(&mail[0].content).into_owned();
        assert!(got.starts_with(expected), "{content:?} came as {got:?}");
        assert_eq!(server.count(), number + 1, "{content:?} became more than one message");
        agent.stop();
    }
    assert!(server.mail_of("smuggled@example.org").is_empty());
}

#[test]
fn what_is_no_file_in_active_is_set_aside_or_left_and_never_opened_for_good() {
    let (site, server) = prepared(HURRY);
    let secret = site.path().join("secret");
    fs::write(&secret, whole(&id(2))).unwrap();
    let at = |place: &str, number: usize| site.queue().join(place).join(id(number));
    for (place, from) in [("active", 0), ("deferred", 10)] {
        fs::create_dir(at(place, from)).unwrap();
        fs::write(at(place, from).join("content"), "kept").unwrap();
        fs::create_dir(at(place, from + 1)).unwrap();
        symlink(&secret, at(place, from + 2)).unwrap();
        mknodat(CWD, at(place, from + 3), FileType::Fifo, Mode::from(0o600), 0).unwrap();
        drop(UnixListener::bind(at(place, from + 4)).unwrap());
        symlink("nowhere", at(place, from + 5)).unwrap();
    }
    let agent = site.start_agent();
    site.wait_for_lines(12, &["error: ", "it is not a regular file; it is kept in corrupt/"], SOON);
    assert_still_delivers(&site, &server);
    assert_rests(&site, &agent);
    assert_eq!((site.files().len(), files_in(&site, "corrupt").len()), (12, 12), "{:?}", site.files());
    assert_eq!(fs::read_to_string(at("corrupt", 10).join("content")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(&secret).unwrap(), whole(&id(2)));
    assert_eq!(server.count(), 1);
    agent.stop();
}

/// Each is listed with its problem, and removed when an administrator says so; but what lies in a directory is not.
#[test]
fn what_is_no_file_in_corrupt_can_be_listed_shown_and_deleted() {
    let (site, _server) = prepared("");
    for running in [false, true] {
        let at = |number: usize| site.queue().join("corrupt").join(id(number));
        fs::create_dir(at(0)).unwrap();
        fs::create_dir(at(1)).unwrap();
        fs::write(at(1).join("content"), "kept").unwrap();
        symlink("/etc/passwd", at(2)).unwrap();
        mknodat(CWD, at(3), FileType::Fifo, Mode::from(0o600), 0).unwrap();
        drop(UnixListener::bind(at(4)).unwrap());
        let agent = running.then(|| site.start_agent());
        let listed = site.queued();
        assert_eq!(listed.len(), 5, "{listed:?}");
        assert!(
            listed.iter().all(|one| one["problem"].to_string().contains("not a regular file")),
            "{listed:?}"
        );
        for number in [0, 2, 3, 4] {
            let shown = site.run(&["queue", "show", &id(number), "--content"], b"");
            assert!(shown.status.success() && !shown.stdout.windows(5).any(|w| w == b"root:"), "{shown:?}");
            let deleted = site.run(&["queue", "delete", &id(number)], b"");
            assert!(deleted.status.success(), "{deleted:?}");
            assert!(!at(number).exists());
        }
        let refused = site.run(&["queue", "delete", &id(1)], b"");
        assert_eq!(refused.status.code(), Some(74), "{refused:?}");
        let text = String::from_utf8(refused.stdout).unwrap();
        assert!(
            text.contains("a directory with something in it") && text.contains("stays where it is"),
            "{text}"
        );
        assert_eq!(fs::read_to_string(at(1).join("content")).unwrap(), "kept");
        fs::remove_dir_all(at(1)).unwrap();
        if let Some(agent) = agent {
            agent.stop();
        }
    }
    assert!(fs::metadata("/etc/passwd").is_ok());
}

/// Its head is not believed: it is taken in as if it had been dropped.
#[test]
fn a_file_of_somebody_else_in_active_is_taken_in_as_a_dropped_one() {
    if !is_root() {
        return;
    }
    let (site, server) = prepared("");
    let head = "\"nexthop\":\"lmtp:unix:/nowhere\"";
    let path = put(&site, &format!("active/{}", id(1)), changed(&id(1), "\"nexthop\":null", head));
    chown(&path, Some(STRANGER), Some(STRANGER)).unwrap();
    let damaged = put(&site, &format!("active/{}", id(2)), changed(&id(2), "-PPP", "-SS"));
    chown(&damaged, Some(STRANGER), Some(STRANGER)).unwrap();
    let agent = site.start_agent();
    server.wait_for_mail_of(&site, "b@example.org", 1);
    site.wait_for_line(&[&id(1), &format!("uid={STRANGER} from=<a@example.org>")], SOON);
    site.wait_for_line(&["warning: ", &id(1), "may not choose the nexthop"], SOON);
    site.wait_for_line(
        &["error: ", &id(2), "is not queued", &format!("it is kept as corrupt/{}", id(2))],
        SOON,
    );
    wait_for_files(&site, &[&format!("corrupt/{}", id(2))]);
    agent.stop();
}

/// Root reads what it likes; for any other user a file without permissions is one that cannot be read now.
#[test]
fn a_file_without_permissions_is_not_lost() {
    let (site, server) = prepared("");
    let path = put(&site, &format!("active/{}", id(1)), whole(&id(1)));
    fs::set_permissions(&path, Permissions::from_mode(0o0)).unwrap();
    let agent = site.start_agent();
    if rustix::process::getuid().is_root() {
        server.wait_for_mail_of(&site, "b@example.org", 1);
    } else {
        site.wait_for_line(&["error: ", &id(1), "cannot be read: Permission denied"], SOON);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        site.write_job(&serde_json::json!({"queue_file": format!("active/{}", id(1))}));
        server.wait_for_mail_of(&site, "b@example.org", 1);
    }
    agent.stop();
}

/// States that are all final are a leftover of a finish that was interrupted.
#[test]
fn a_file_with_nobody_left_is_removed_and_one_with_a_bounce_owed_bounces() {
    let (site, server) = prepared("");
    put(&site, &format!("active/{}", id(1)), changed(&id(1), "-PPP", "-SSS"));
    put(&site, &format!("active/{}", id(2)), changed(&id(2), "-PPP", "WSBS"));
    put(&site, &format!("active/{}", id(3)), changed(&id(3), "-PPP", "-SRB"));
    put(&site, &format!("active/{}", id(4)), changed(&id(4), "-PPP", "-SIS"));
    let agent = site.start_agent();
    let bounce = server.wait_for_mail_of(&site, "a@example.org", 1);
    let text = String::from_utf8_lossy(&bounce[0].content).into_owned();
    assert!(bounce[0].sender.is_empty() && text.contains("c@example.org") && !text.contains("d@example.org"));
    site.wait_for_line(&["warning: ", &id(4), "<c@example.org>", "delivered twice"], SOON);
    server.wait_for_mail_of(&site, "c@example.org", 1);
    wait_for_files(&site, &[]);
    assert_eq!(server.count(), 2, "{:?}", server.all());
    agent.stop();
}

fn set_modified(path: &std::path::Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}
