//! A disk without room, and one that nobody may write to.
//!
//! - Owns: a small file system for a queue, filled and emptied while an agent runs.
//! - Leaves to others: limits of a process (`limits`), `queue_minfree` (`engine::shortage`).
//! - Always true: what is mounted is unmounted, however the test ends. Only root can mount; others see a message.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::server::Server;
use super::{
    HURRY, assert_rests, assert_still_delivers, files_in, id, is_root, job, message, queue_file, submit,
    wait_for_files,
};
use crate::common::agent::{SOON, Site, run};
use crate::common::long::is_long;
use crate::common::process::wait_for;

/// A user who has no rights in the queue.
const SOMEBODY: u32 = 65534;

/// Something mounted.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], at: PathBuf) -> Self {
        let status = Command::new("mount").args(arguments).arg(&at).status().unwrap();
        assert!(status.success(), "mount {arguments:?} {}: {status}", at.display());
        Self(at)
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(status.unwrap().success(), "cannot remount {} {options}", self.0.display());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a process may be about to end.
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

/// A site with its queue on a small file system.
struct Small {
    // Dropped in this order: what is mounted goes before the directory that it is mounted on.
    lock: Option<Mounted>,
    disk: Mounted,
    server: Server,
    site: Site,
}

impl Small {
    fn new(options: &str, keys: &str) -> Self {
        let site = Site::new("");
        fs::create_dir(site.queue()).unwrap();
        let disk = Mounted::new(&["-t", "tmpfs", "-o", &format!("mode=755,{options}"), "none"], site.queue());
        let server = Server::start(&site);
        site.configure(&format!("{}{keys}", server.as_default()));
        site.start_agent().stop();
        Self { lock: None, disk, server, site }
    }

    /// One whose file system can be made read-only under a running agent, whose lock is a file that is open for
    /// writing: that one lies elsewhere.
    fn that_can_be_closed(keys: &str) -> Self {
        let mut small = Self::new("size=4m", keys);
        let elsewhere = small.site.path().join("elsewhere.lock");
        File::create(&elsewhere).unwrap();
        let lock = small.site.queue().join("agent.lock");
        small.lock = Some(Mounted::new(&["--bind", elsewhere.to_str().unwrap()], lock));
        small
    }

    fn filler(&self) -> PathBuf {
        self.site.queue().join("filler")
    }

    /// Takes all room, to the last octet.
    fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.filler()).unwrap();
        for size in [64 << 10, 4 << 10, 512, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Takes all names.
    fn fill_with_names(&self) {
        fs::create_dir(self.filler()).unwrap();
        let mut names = 0..;
        while File::create(self.filler().join(names.next().unwrap().to_string())).is_ok() {}
    }

    fn empty(&self) {
        if self.filler().is_dir() {
            fs::remove_dir_all(self.filler()).unwrap();
        } else {
            fs::remove_file(self.filler()).unwrap();
        }
    }
}

/// Fails unless sendmail says one sentence, with a code that makes its caller try again.
#[track_caller]
fn assert_tries_again(site: &Site, uid: u32) {
    let mut command = site.command(&["sendmail", "-i", "-f", "a@example.org", "b@example.org"]);
    let output = run(command.uid(uid).gid(uid), message("no room").as_bytes());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(73..=75)), "{:?}: {text}", output.status);
    assert!(text.contains("the message was not queued") && text.lines().count() == 1, "{text:?}");
}

/// The same where SMTP is spoken: the message is refused for now, and the session goes on.
#[track_caller]
fn assert_smtp_tries_again(site: &Site, uid: u32) {
    let mut command = site.command(&["sendmail", "-bs"]);
    let message = message("no room").replace('\n', "\r\n");
    let session =
        format!("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n{message}.\r\nQUIT\r\n");
    let output = run(command.uid(uid).gid(uid), session.as_bytes());
    let text = String::from_utf8(output.stdout).unwrap();
    let replies: Vec<_> = text.lines().rev().take(2).collect();
    assert!(replies[1].starts_with("452 4.3.1 the message was not queued: "), "{text}");
    assert!(replies[0].starts_with("221 ") && output.status.success(), "{text}");
}

#[test]
fn sendmail_on_a_full_disk_says_so_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    for (options, fill) in
        [("size=1m", Small::fill as fn(&Small)), ("size=4m,nr_inodes=60", Small::fill_with_names)]
    {
        let small = Small::new(options, "");
        for runs in [false, true] {
            let agent = runs.then(|| small.site.start_agent());
            fill(&small);
            for uid in [0, SOMEBODY] {
                assert_tries_again(&small.site, uid);
                assert_smtp_tries_again(&small.site, uid);
            }
            assert_eq!(small.site.files(), Vec::<String>::new());
            small.empty();
            if let Some(agent) = agent {
                assert_still_delivers(&small.site, &small.server);
                agent.stop();
            }
        }
    }
}

#[test]
fn an_agent_on_a_full_disk_starts_and_makes_room_by_delivering() {
    if !is_root() {
        return;
    }
    for (options, fill) in
        [("size=1m", Small::fill as fn(&Small)), ("size=4m,nr_inodes=60", Small::fill_with_names)]
    {
        let small = Small::new(options, "");
        let Small { site, server, .. } = &small;
        let path = format!("active/{}", id(1));
        put_within(site, &path, &queue_file(&id(1), &["b@example.org"], "Subject: x\r\n\r\n"));
        // What the agent before has written there made room for what this one writes.
        File::create(site.queue().join("agent.lock")).unwrap();
        fill(&small);
        let agent = site.start_agent();
        server.wait_for_mail_of(site, "b@example.org", 1);
        wait_for_files(site, &[]);
        assert_rests(site, &agent);
        agent.stop();
    }
}

/// Without what it needs to work at all it does not start, and says what.
#[test]
fn an_agent_that_cannot_make_its_fifo_or_socket_says_so_in_a_sentence() {
    if !is_root() {
        return;
    }
    let small = Small::new("size=4m,nr_inodes=60", "");
    fs::remove_file(small.site.queue().join("jobs")).unwrap();
    small.fill_with_names();
    let refused = |told: &str| {
        let (status, log) = small.site.start_agent_in_vain();
        assert!(!status.success(), "{log}");
        let line = log.lines().last().unwrap_or_default();
        assert!(line.contains(told) && line.contains("the agent does not start"), "{told}: {log}");
    };
    refused("cannot make the job FIFO");
    small.empty();
    small.disk.remount("ro");
    refused("Read-only file system");
    small.disk.remount("rw");
    let agent = small.site.start_agent();
    assert_still_delivers(&small.site, &small.server);
    agent.stop();
}

/// No rename leads from one file system to another, so an agent must not be looking.
fn put_within(site: &Site, path: &str, text: &str) {
    fs::write(site.queue().join(path), text).unwrap();
}

#[test]
fn what_was_dropped_on_a_full_disk_stays_and_is_picked_up_later() {
    if !is_root() {
        return;
    }
    let small = Small::new("size=1m", "");
    let Small { site, server, .. } = &small;
    let agent = site.start_agent();
    put_within(site, "incoming/.whole", &queue_file(&id(1), &["b@example.org"], "Subject: x\r\n\r\n"));
    site.drop_message("bare", message("bare").as_bytes());
    small.fill();
    fs::rename(site.queue().join("incoming/.whole"), site.queue().join("incoming/whole")).unwrap();
    site.write_job(&job("bare", "c@example.org"));
    let told = ["error: incoming/", "cannot be queued now: ", "it is kept and tried again in a minute"];
    site.wait_for_lines(2, &told, SOON);
    assert_rests(site, &agent);
    assert_eq!(site.lines_with(&told).len(), 2, "{}", site.log());
    assert_eq!(site.files(), ["incoming/bare", "incoming/whole"]);
    small.empty();
    if is_long() {
        // By itself.
        for to in ["b@example.org", "c@example.org"] {
            wait_for(to, Duration::from_secs(150), || (server.mail_of(to).len() == 1).then_some(()));
        }
        agent.stop();
    } else {
        site.write_job(&job("bare", "c@example.org"));
        server.wait_for_mail_of(site, "c@example.org", 1);
        agent.stop();
        let agent = site.start_agent();
        server.wait_for_mail_of(site, "b@example.org", 1);
        agent.stop();
    }
    assert_eq!(server.count(), 2);
    assert_eq!(site.files(), Vec::<String>::new());
}

#[test]
fn a_refusal_that_cannot_be_recorded_is_put_off_and_a_bounce_that_cannot_be_written_stays_owed() {
    if !is_root() {
        return;
    }
    let small = Small::new("size=1m", HURRY);
    let Small { site, server, .. } = &small;
    // One whose bounce is owed, and one that is refused only now; somebody else of it gets it.
    put_within(
        site,
        &format!("active/{}", id(1)),
        &queue_file(&id(1), &["no1@example.org"], "X: y\r\n\r\n").replace("-P", "-R"),
    );
    put_within(
        site,
        &format!("active/{}", id(2)),
        &queue_file(&id(2), &["no2@example.org", "b@example.org"], "X: y\r\n\r\n"),
    );
    small.fill();
    let agent = site.start_agent();
    site.wait_for_lines(
        2,
        &[&id(1), "error: ", "a notice about it cannot be queued: ", "the message is deferred"],
        SOON,
    );
    let put_off = ["<no2@example.org>", "status=deferred", "550 5.1.1", "the refusal cannot be recorded"];
    site.wait_for_lines(2, &put_off, SOON);
    assert_rests(site, &agent);
    for (number, states) in [(1, "-R"), (2, "-PS")] {
        let find = |place: &str| fs::read_to_string(site.queue().join(place).join(id(number))).ok();
        let text = wait_for("the file", SOON, || find("deferred").or_else(|| find("active")));
        assert_eq!(text.lines().nth(2), Some(states), "{text}");
    }
    small.empty();
    let bounces = server.wait_for_mail_of(site, "a@example.org", 2);
    wait_for_files(site, &[]);
    let text: String =
        bounces.iter().map(|bounce| String::from_utf8_lossy(&bounce.content).into_owned()).collect();
    assert!(text.contains("no1@example.org") && text.contains("no2@example.org"), "{text}");
    assert_eq!(server.mail_of("b@example.org").len(), 1, "delivered again");
    assert_eq!(server.count(), 3);
    agent.stop();
}

#[test]
fn an_attempt_whose_replies_cannot_be_kept_is_an_attempt() {
    if !is_root() {
        return;
    }
    let small = Small::new("size=1m", HURRY);
    let Small { site, server, .. } = &small;
    put_within(
        site,
        &format!("active/{}", id(1)),
        &queue_file(&id(1), &["later@example.org", "b@example.org"], "X: y\r\n\r\n"),
    );
    small.fill();
    let agent = site.start_agent();
    site.wait_for_lines(2, &["<later@example.org>", "status=deferred (", "450 4.2.1"], SOON);
    small.empty();
    site.wait_for_lines(4, &["<later@example.org>", "status=deferred (", "450 4.2.1"], SOON);
    agent.stop();
    let log = fs::read_to_string(site.queue().join(format!("deferred/{}.log", id(1)))).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    assert_eq!(server.mail_of("b@example.org").len(), 1);
}

/// Nothing can be moved, marked or removed, so nothing is sent; and when it can be, all is as it was.
#[test]
fn a_queue_that_becomes_read_only_is_waited_for_and_nothing_is_lost_or_doubled() {
    if !is_root() {
        return;
    }
    let small =
        Small::that_can_be_closed(&format!("{HURRY}[transport.lmtp]\ndestination_recipient_limit = 1\n"));
    let Small { site, server, disk, .. } = &small;
    let agent = site.start_agent();
    submit(site, "waits", &["later@example.org", "b@example.org"]);
    server.wait_for_mail_of(site, "b@example.org", 1);
    site.wait_for_lines(2, &["<later@example.org>", "status=deferred"], SOON);
    let id = site.queued()[0]["id"].as_str().unwrap().to_owned();
    put_within(
        site,
        &format!("active/{}", super::id(7)),
        &queue_file(&super::id(7), &["c@example.org"], "X: y\r\n\r\n"),
    );
    site.drop_message("bare", message("bare").as_bytes());
    // A file that is open for writing keeps the file system open: that is so while a batch is under way.
    wait_for("the disk to be closed", SOON, || {
        Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&disk.0)
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
            .then_some(())
    });
    site.write_job(&serde_json::json!({"queue_file": format!("active/{}", super::id(7))}));
    site.write_job(&job("bare", "d@example.org"));
    site.wait_for_line(
        &[
            "error: ",
            &super::id(7),
            "cannot be opened for writing",
            "Read-only file system",
            "deferred unsent",
        ],
        SOON,
    );
    site.wait_for_line(
        &["error: incoming/bare cannot be queued now: ", "Read-only file system", "it is kept"],
        SOON,
    );
    site.wait_for_lines(2, &["error: ", &id, "Read-only file system"], SOON);
    for uid in [0, SOMEBODY] {
        assert_tries_again(site, uid);
    }
    assert_rests(site, &agent);
    assert!(server.mail_of("c@example.org").is_empty(), "sent though it could not be marked");
    disk.remount("rw");
    site.write_job(&serde_json::json!({"queue_file": format!("active/{}", super::id(7))}));
    site.write_job(&job("bare", "d@example.org"));
    for to in ["c@example.org", "d@example.org"] {
        server.wait_for_mail_of(site, to, 1);
    }
    let attempts = site.lines_with(&["<later@example.org>", "status=deferred"]).len();
    site.wait_for_lines(attempts + 2, &["<later@example.org>", "status=deferred"], SOON);
    agent.stop();
    assert_eq!(server.count(), 3, "{:?}", server.all());
    let kept: Vec<_> = [files_in(site, "active"), files_in(site, "deferred")].concat();
    assert!(kept.iter().any(|path| path.ends_with(&id)), "{kept:?}");
}
