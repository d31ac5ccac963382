//! Files and job lines that are not what they should be: where each stands afterwards, and what the log says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use super::peer::{Manner, Peer};
use super::{
    QueueFile, Server, id, message, messages_in, set_modified, submit, submit_job, to_socket,
    wait_until_nothing_is_left,
};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;

/// A site with a queue and a server, and nobody who delivers yet.
fn prepared() -> (Site, Server) {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "");
    site.start_agent().stop();
    (site, server)
}

/// The only file in a directory of the queue, whatever its name.
fn only_file_in(site: &Site, place: &str) -> Option<PathBuf> {
    let files: Vec<_> = site.files().into_iter().filter(|file| file.starts_with(place)).collect();
    assert!(files.len() < 2, "{files:?}");
    files.first().map(|file| site.queue().join(file))
}

#[test]
fn a_file_in_active_that_cannot_be_read_is_set_aside_and_kept() {
    let whole = QueueFile {
        id: &id(1),
        head: json!({}),
        states: "-P",
        recipients: &[json!({"address": "b@example.org"})],
        content: "Subject: whole\r\n\r\ntext\r\n",
    };
    for (what, place, change) in [
        ("cut short", "corrupt", (|text| text[..text.len() - 4].to_owned()) as fn(&str) -> String),
        ("too long", "corrupt", |text| format!("{text}more")),
        ("of the future", "hold", |text| text.replace("lastmile/1\n", "lastmile/2\n")),
        ("garbage", "corrupt", |_| "\x01\x02 no queue file\n".to_owned()),
        ("empty", "corrupt", |_| String::new()),
        ("of a strange state", "corrupt", |text| text.replace("\n-P\n", "\n-Q\n")),
        ("somebody else's", "corrupt", |text| text.replace(&id(1), &id(2))),
    ] {
        let (site, server) = prepared();
        let path = whole.write(&site, "active");
        let text = change(&fs::read_to_string(&path).unwrap());
        fs::write(&path, &text).unwrap();
        let agent = site.start_agent();
        let line = site.wait_for_line(&["error: ", &id(1), &format!("it is kept in {place}/")], SOON);
        assert!(!line.contains(['\x01', '\x02']), "{line}");
        assert_eq!(site.files(), [format!("{place}/{}", id(1))], "{what}");
        assert_eq!(fs::read_to_string(site.queue().join(place).join(id(1))).unwrap(), text, "{what}");
        submit(&site, "after it", &["b@example.org"]);
        server.only_mail_of("b@example.org");
        agent.stop();
    }
}

#[test]
fn what_is_no_plain_file_in_incoming_is_set_aside_and_kept() {
    let (site, server) = prepared();
    let secret = site.path().join("secret");
    fs::write(&secret, "lastmile/1\nsecret\n").unwrap();
    let incoming = site.queue().join("incoming");
    for (name, make) in [
        ("link", Box::new(|path: &PathBuf| symlink(&secret, path).unwrap()) as Box<dyn Fn(&PathBuf)>),
        ("hard", Box::new(|path| fs::hard_link(&secret, path).unwrap())),
        ("directory", Box::new(|path| fs::create_dir(path).unwrap())),
        ("fifo", Box::new(|path| mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).unwrap())),
        ("bad name", Box::new(|path| fs::write(path, message("bad name")).unwrap())),
        ("bad\nname", Box::new(|path| fs::write(path, message("bad name")).unwrap())),
    ] {
        let shown = name.replace('\n', "?");
        // Nothing is closed or renamed when such a thing is made: a listing finds it.
        make(&incoming.join(name));
        let agent = site.start_agent();
        let line = site.wait_for_line(&["pickup", "error: ", "is not queued: ", &shown], SOON);
        let kept = only_file_in(&site, "corrupt").unwrap_or_else(|| panic!("{name}: {:?}", site.files()));
        let kept_as = kept.strip_prefix(site.queue()).unwrap().display().to_string();
        assert!(line.contains(&format!("it is kept as {kept_as}")), "{line}");
        assert!(fs::read_dir(&incoming).unwrap().next().is_none(), "{name} is in incoming/ still");
        submit(&site, "after it", &["b@example.org"]);
        wait_for("the mail after it", SOON, || (!server.mail_of("b@example.org").is_empty()).then_some(()));
        agent.stop();
        if kept.is_dir() { fs::remove_dir(&kept).unwrap() } else { fs::remove_file(&kept).unwrap() }
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "lastmile/1\nsecret\n");
}

#[test]
fn unfinished_and_bare_files_wait() {
    let (site, server) = prepared();
    let agent = site.start_agent();
    fs::write(site.queue().join("incoming/.unfinished"), message("unfinished")).unwrap();
    let path = site.drop_message("bare", &message("bare"));
    // Something that is picked up after them shows that they were seen.
    let recipients = [json!({"address": "b@example.org"})];
    let head = json!({"sender": "other@example.org"});
    QueueFile { id: &id(1), head, states: "-P", recipients: &recipients, content: "X: y\r\n\r\n" }
        .write(&site, "incoming");
    server.only_mail_of("b@example.org");
    wait_for("the message to leave", SOON, || messages_in(&site, "active").is_empty().then_some(()));
    assert_eq!(site.files(), ["incoming/.unfinished", "incoming/bare"]);
    // A line that names it, and nothing else, is not enough.
    site.write_job(&json!({"queue_file": path}));
    site.wait_for_line(&["warning: ", "incoming/bare", "it stays"], SOON);
    site.write_job(&json!({"queue_file": path, "sender": "", "recipients": ["c@example.org"]}));
    assert!(server.only_mail_of("c@example.org").contains("Subject: bare"));
    wait_for("the bare file to go", SOON, || (site.files() == ["incoming/.unfinished"]).then_some(()));
    agent.stop();
}

#[test]
fn a_draft_that_nobody_finishes_is_removed_by_its_change_not_by_its_date() {
    let (site, _server) = prepared();
    let draft = site.queue().join("incoming/.old");
    fs::write(&draft, "never finished").unwrap();
    // Anybody can set this; the time of the last change of status is the kernel's.
    set_modified(&draft, std::time::SystemTime::UNIX_EPOCH);
    let agent = site.start_agent();
    submit(&site, "something", &["b@example.org"]);
    site.wait_for_line(&[": removed"], SOON);
    assert_eq!(site.files(), ["incoming/.old"]);
    agent.stop();
}

#[test]
fn job_lines_that_lead_nowhere_are_no_errors_and_bad_ones_are_shown_escaped() {
    let (site, server) = prepared();
    let agent = site.start_agent();
    site.write_job(&json!({"queue_file": format!("active/{}", id(7))}));
    site.write_job(&json!({"queue_file": "incoming/gone"}));
    site.write_job(&json!({"queue_file": "incoming/gone", "sender": "", "recipients": ["b@example.org"]}));
    site.write_job(&json!({"queue_file": 5, "sender": "x\u{1b}[31my"}));
    let line = site.wait_for_line(&["error: job line skipped: "], SOON);
    assert!(line.contains("queue_file") && !line.contains('\x1b'), "{line}");
    submit_job(&site, "good", json!({"sender": "", "recipients": ["b@example.org"]}));
    server.only_mail_of("b@example.org");
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(site.lines_with(&["error: "]).len(), 1, "{}", site.log());
    assert_eq!(site.lines_with(&["warning: "]).len(), 0, "{}", site.log());
    agent.stop();
}

#[test]
fn a_job_line_of_more_than_a_mebibyte_and_a_torn_one_spoil_only_themselves() {
    let site = Site::new("");
    let peer = Peer::start(&site, "peer", Manner::default());
    site.configure(&to_socket(&peer.socket, ""));
    let agent = site.start_agent();
    let job = |subject: &str, count: usize| {
        let path = site.drop_message(subject, &message(subject));
        let to: Vec<_> = (0..count).map(|number| format!("{subject}{number:06}@example.org")).collect();
        json!({"queue_file": path, "sender": "", "recipients": to}).to_string()
    };
    let (long, short) = (job("long", 45_000), job("short", 2_000));
    assert!(long.len() > 1 << 20 && short.len() > 1 << 15);
    site.write_to_fifo(format!("\n{long}\n").as_bytes());
    site.wait_for_line(&["error: job line skipped: it is longer than 1048576 octets"], SOON);
    // A torn line: half an object, and the next writer's line.
    site.write_to_fifo(format!("\n{}", &short[..short.len() / 2]).as_bytes());
    site.write_to_fifo(format!("\n{short}\n").as_bytes());
    site.wait_for_line(&["to=<short001999@example.org>", "status=sent"], SOON);
    site.wait_for_line(&["error: job line skipped: ", "short000000"], SOON);
    assert_eq!(site.lines_with(&["error: "]).len(), 2, "{}", site.log());
    wait_for("the list to end", SOON, || messages_in(&site, "active").is_empty().then_some(()));
    assert_eq!(peer.recipients().len(), 2000);
    // Its message stays.
    assert_eq!(site.files(), ["incoming/long"]);
    agent.stop();
}

#[test]
fn a_nexthop_in_a_file_counts_for_those_who_are_trusted() {
    let (site, server) = prepared();
    let other = Server::start(&site, "other", "");
    site.configure(&to_socket(&server.socket, ""));
    let agent = site.start_agent();
    let nexthop = format!("unix:{}", other.socket.display());
    let recipients = [json!({"address": "b@example.org"})];
    let head = json!({ "nexthop": nexthop });
    QueueFile { id: &id(1), head, states: "-P", recipients: &recipients, content: "X: y\r\n\r\n" }
        .write(&site, "incoming");
    other.only_mail_of("b@example.org");
    // One that makes no sense any more is not fatal.
    submit_job(
        &site,
        "odd",
        json!({"sender": "", "recipients": ["c@example.org"], "nexthop": "gone:unix:/x"}),
    );
    site.wait_for_line(&["gone:unix:/x"], SOON);
    agent.stop();
}

#[test]
fn addresses_of_a_job_line_without_a_domain_get_ours() {
    let (site, server) = prepared();
    let agent = site.start_agent();
    let recipient = json!({"address": "joe", "sender": "list+joe"});
    submit_job(&site, "unqualified", json!({"sender": "ann", "recipients": [recipient]}));
    server.only_mail_of("joe@mx.example.org");
    site.wait_for_line(&["from=<ann@mx.example.org>", "size="], SOON);
    agent.stop();
}
