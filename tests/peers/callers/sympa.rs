//! Sympa, the list server: its own code, from its outgoing spool to the exit status that it logs.
//!
//! - Owns: a list server for tests; what it hands over to sendmail with its default arguments.
//! - Leaves to others: `--lmtp` and `--esmtp` (`sympa_direct`); the driver, and what of Sympa is not real (`sympa.pl`);
//!   fetching Sympa (`sympa.sh`).
//! - Always true: to Sympa a packet is done once its message is in the pipe. It logs an exit status, and does nothing
//!   else about it: so what could not be delivered at once is tried again only where it was queued. A packet that it
//!   could not write, because we had refused before we read, it sets aside.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::{Machine, Queued};
use crate::common::agent;

/// What Sympa's list server puts before the recipients where its administrator has chosen nothing.
const DEFAULT: [&str; 3] = ["-oi", "-odi", "-oem"];
/// What it adds where it tracks the delivery to a recipient whose number is 1234.
pub(super) const TRACKED: [&str; 3] = ["-N", "success,delay,failure", "-V00001234"];
/// The sender of what the list says.
pub(super) const OWNER: &str = "announce-owner@lists.example.org";

/// A posting with what a pipe can spoil: dots, eight bits, a line as in a mailbox file, no end of the last line.
pub(super) const POSTING: &[u8] = b"From: Ann <ann@example.org>\nTo: announce@lists.example.org\n\
    Subject: =?iso-8859-1?Q?Gr=FC=DFe?=\n from the list\nDate: Sat, 21 Nov 2026 19:30:00 +0000\n\
    Message-ID: <1@client.example.org>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\n\
    Content-Transfer-Encoding: 8bit\n\n.\n..two\n.end\nGr\xfc\xdfe\nFrom me\n\nQUIT\nno end";

/// A list server with one list, `announce`, and the machine that it runs on.
pub(super) struct ListServer {
    pub machine: Machine,
    code: PathBuf,
}

/// What came of a run of its bulk workflow.
#[derive(Debug)]
pub(super) struct Run {
    /// Packets that the workflow has taken.
    pub packets: u32,
    /// Sympa's log, and what our program wrote to standard error.
    pub log: String,
    /// Whether Sympa still has anything in its spool, be it set aside.
    pub kept: bool,
}

impl ListServer {
    /// None where Sympa's code was not fetched.
    pub fn new() -> Option<Self> {
        let code = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sympa");
        if !code.is_dir() {
            eprintln!("skipped: Sympa's code is not here; tests/peers/callers/sympa.sh fetches it");
            return None;
        }
        let machine = Machine::new();
        let server = Self { machine, code };
        for directory in ["home/announce", "etc", "spool", "tmp"] {
            std::fs::create_dir_all(server.path().join(directory)).unwrap();
        }
        let list = "subject Announcements\n\nstatus open\n\nowner\nemail boss@example.org\n";
        std::fs::write(server.path().join("home/announce/config"), list).unwrap();
        server.configure("sendmail", "");
        Some(server)
    }

    fn path(&self) -> PathBuf {
        self.machine.path().join("sympa")
    }

    /// Writes sympa.conf: mail goes to our program under `name`. `more` has lines of its own.
    pub fn configure(&self, name: &str, more: &str) {
        let (path, sendmail) = (self.path(), self.machine.named(name));
        let path = path.display();
        let text = format!(
            "domain lists.example.org\nlistmaster listmaster@lists.example.org\nlang en-US\n\
             db_type SQLite\ndb_name none\nhome {path}/home\netc {path}/etc\nspool {path}/spool\n\
             queuebulk {path}/spool/bulk\ntmpdir {path}/tmp\nsendmail {sendmail}\n{more}\n"
        );
        std::fs::write(self.path().join("sympa.conf"), text).unwrap();
    }

    /// Sends postings, each [`POSTING`] unless it names another file.
    #[track_caller]
    pub fn send(&self, mut postings: Value) -> Run {
        let posting = self.machine.write_home("posting", POSTING);
        for object in postings.as_array_mut().unwrap() {
            object.as_object_mut().unwrap().entry("message").or_insert(json!(posting));
        }
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/callers/sympa.pl");
        let mut command = self.machine.command("perl");
        command.arg(driver).arg(&self.code).arg(self.path().join("sympa.conf"));
        let output = agent::run(&mut command, postings.to_string().as_bytes());
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {log}", output.status);
        let packets = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        Run { packets, log, kept: holds_files(&self.path().join("spool")) }
    }

    /// The arguments of each call since the last look, in the order of the first recipient.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let mut calls: Vec<_> = self.machine.calls().into_iter().map(|call| call.arguments).collect();
        calls.sort_by_key(|arguments| recipients(arguments).concat());
        calls
    }

    /// What is queued, in the order of the first recipient.
    #[track_caller]
    fn queued(&self) -> Vec<Queued> {
        let mut queued = self.machine.take_queued();
        queued.sort_by_key(|message| message.addresses().concat());
        queued
    }
}

impl Run {
    /// Fails unless Sympa has taken so many packets, is done with all of them, and every child has ended with 0.
    #[track_caller]
    pub fn assert_done(&self, packets: u32) {
        assert_eq!((self.packets, self.kept, self.failures()), (packets, false, Vec::new()), "{}", self.log);
    }

    /// The exit status of each child that did not end with 0, as Sympa has logged it.
    pub fn failures(&self) -> Vec<&str> {
        self.log.lines().filter_map(|line| Some(line.split_once(" exited with status ")?.1)).collect()
    }
}

/// What Sympa calls: its options, the sender, the recipients.
pub(super) fn line(options: &[&str], sender: &str, recipients: &[&str]) -> Vec<String> {
    let parts = [options, &["-f", sender, "--"], recipients].concat();
    parts.into_iter().map(str::to_owned).collect()
}

/// What stands after `--`.
fn recipients(arguments: &[String]) -> &[String] {
    let end_of_options = arguments.iter().position(|argument| argument == "--");
    &arguments[end_of_options.expect("Sympa ends its options by --") + 1..]
}

fn holds_files(directory: &Path) -> bool {
    let mut entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.any(|path| if path.is_dir() { holds_files(&path) } else { true })
}

fn numbered(count: u32) -> Vec<String> {
    (1..=count).map(|number| format!("reader{number:04}@example.net")).collect()
}

#[test]
fn by_default_sympa_queues_as_it_would_with_sendmail() {
    let Some(server) = ListServer::new() else { return };
    let run = server.send(json!([
        // Sympa sorts them. A hostile subscriber's address looks like an option.
        {"list": "announce", "recipients": ["bob@example.net", "-oQ/tmp@example.net"]},
        {"recipients": ["carol@example.net"], "sender": "<>"},
    ]));
    run.assert_done(2);

    let to_list = ["-oQ/tmp@example.net", "bob@example.net"];
    let calls = [line(&DEFAULT, OWNER, &to_list), line(&DEFAULT, "", &["carol@example.net"])];
    assert_eq!(server.calls(), calls);

    let queued = server.queued();
    let envelopes: Vec<_> = queued.iter().map(|message| (message.sender(), message.addresses())).collect();
    assert_eq!(envelopes, [(OWNER, to_list.to_vec()), ("", vec!["carol@example.net"])]);
    for message in queued {
        message.assert_is(POSTING, &[]);
        assert!(message.head.get("envid").is_none_or(Value::is_null), "{:?}", message.head);
        assert!(message.recipients.iter().all(|recipient| recipient.get("notify").is_none()));
    }
}

#[test]
fn where_sympa_tracks_deliveries_each_recipient_has_a_message_and_asks_for_all_reports() {
    let Some(server) = ListServer::new() else { return };
    let run = server.send(json!([
        {"list": "announce", "recipients": ["bob@example.net", "carol@example.net"], "tracking": true},
    ]));
    run.assert_done(1);

    let sender = |name| format!("bounce+{name}==a==example.net==announce==1234@lists.example.org");
    let (calls, queued) = (server.calls(), server.queued());
    assert_eq!((calls.len(), queued.len()), (2, 2));
    for ((name, arguments), message) in ["bob", "carol"].into_iter().zip(calls).zip(queued) {
        let (sender, recipient) = (sender(name), format!("{name}@example.net"));
        assert_eq!(arguments, line(&[&DEFAULT[..], &TRACKED].concat(), &sender, &[&recipient]));
        assert_eq!((message.sender(), &message.head["envid"]), (&*sender, &json!("00001234")));
        assert_eq!(message.addresses(), [&*recipient]);
        let mut notify: Vec<_> = message.recipients[0]["notify"].as_str().unwrap().split(',').collect();
        notify.sort_unstable();
        assert_eq!(notify, ["DELAY", "FAILURE", "SUCCESS"]);
        message.assert_is(POSTING, &[]);
    }
}

#[test]
fn a_large_list_comes_in_packets_as_small_or_large_as_sympa_cuts_them() {
    let Some(server) = ListServer::new() else { return };
    // Its own limit (nrcpt) is 25; an administrator may take the whole list at once.
    for (limits, count, packets) in [("", 60, 3), ("nrcpt 5000\navg 5000\n", 3000, 1)] {
        server.configure("sendmail", limits);
        let everybody = numbered(count);
        let run = server.send(json!([{"list": "announce", "recipients": everybody}]));
        run.assert_done(packets);

        let (calls, queued) = (server.calls(), server.queued());
        let named: Vec<_> = calls.iter().map(|arguments| recipients(arguments)).collect();
        let addresses: Vec<_> = queued.iter().map(Queued::addresses).collect();
        assert_eq!(addresses, named);
        // Nobody is left out, and nobody is there twice.
        assert_eq!(addresses.concat(), everybody);
        for message in queued {
            assert_eq!(message.sender(), OWNER);
            message.assert_is(POSTING, &[]);
        }
    }
}

#[test]
fn what_is_not_queued_is_in_sympa_s_log_with_the_reason() {
    let Some(server) = ListServer::new() else { return };
    let posting = json!([{"list": "announce", "recipients": ["bob@example.net"]}]);
    // The first is refused when we have read it. The second has no reader; if we have gone by the time that Sympa
    // writes, it sets the packet aside.
    for (limit, status, may_be_kept) in [("100", "69", false), ("much", "78", true)] {
        server.machine.configure(&format!("message_size_limit = \"{limit}\""));
        let run = server.send(posting.clone());
        assert_eq!(run.failures(), [status], "{}", run.log);
        let ours = run.log.lines().find(|line| line.starts_with("sendmail: "));
        assert!(ours.is_some_and(|line| line.contains("message_size_limit")), "{}", run.log);
        assert!(may_be_kept || !run.kept, "{}", run.log);
        server.machine.assert_nothing_queued();
    }
}
