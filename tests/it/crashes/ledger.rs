//! What a kill has left on disk, and what that allows to arrive twice.
//!
//! - Owns: looks into the queue while nobody works in it, and the account of what stood in doubt after each kill.
//! - Leaves to others: which mail there was, and what became of it (`mail`).
//! - Always true: a copy too many is allowed for a recipient that a kill has newly left in doubt, and for nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::agent::Site;
use crate::common::mailbox;
use crate::common::process::look_for;
use crate::common::sink::SinkProcess;

/// A queue file as a kill has left it.
pub struct Left {
    pub id: String,
    /// Its Message-ID.
    pub message: String,
    /// For a notice: whom it tells.
    pub told: Option<String>,
    modified: SystemTime,
    recipients: Vec<(String, char)>,
    sender: String,
}

impl Left {
    /// Reads it with nothing of the program's own: what a kill leaves under a final name must be whole.
    fn read(path: &Path) -> Self {
        let octets = fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&octets);
        let (head, content) = text.split_once("\n\n").unwrap_or_else(|| panic!("half a file: {path:?}"));
        let lines: Vec<_> = head.lines().collect();
        let members: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(members["size"].as_u64(), Some(content.len() as u64), "half a file: {path:?}");
        let recipients: Vec<_> = lines[2][1..].chars().zip(&lines[3..]).map(recipient).collect();
        let is_notice = !members["origin"].as_str().unwrap().starts_with("uid=");
        Self {
            id: path.file_name().unwrap().to_str().unwrap().to_owned(),
            message: mailbox::header(content.as_bytes(), "Message-ID").unwrap(),
            told: is_notice.then(|| recipients[0].0.clone()),
            modified: fs::metadata(path).unwrap().modified().unwrap(),
            recipients,
            sender: members["sender"].as_str().unwrap_or_default().to_owned(),
        }
    }

    fn is_owed_a_bounce(&self) -> bool {
        self.recipients.iter().any(|(_, state)| *state == 'R')
    }
}

fn recipient((state, line): (char, &&str)) -> (String, char) {
    let members: Value = serde_json::from_str(line).unwrap();
    (members["address"].as_str().unwrap().to_owned(), state)
}

/// The names in a directory of the queue.
pub fn names(site: &Site, place: &str) -> Vec<String> {
    let prefix = format!("{place}/");
    site.files().iter().filter_map(|file| file.strip_prefix(&prefix)).map(str::to_owned).collect()
}

/// All messages under their final names. Nobody may be moving them.
pub fn left(site: &Site) -> Vec<Left> {
    let of = |place: &str| {
        let directory = site.queue().join(place);
        // Beside the messages lie the logs of their replies.
        let messages = names(site, place).into_iter().filter(|name| !name.contains('.'));
        messages.map(|name| Left::read(&directory.join(name))).collect::<Vec<_>>()
    };
    ["active", "deferred", "hold"].into_iter().flat_map(of).collect()
}

/// The files in the queue that are messages: also those that wait to be taken in, or are being so. Unfinished ones are
/// nobody's mail yet.
pub fn messages(site: &Site) -> Vec<String> {
    let is_message = |file: &String| match file.split_once('/').unwrap() {
        ("incoming", name) => !name.starts_with('.'),
        ("tmp", name) => name.ends_with(".in"),
        (_, name) => !name.contains('.'),
    };
    site.files().into_iter().filter(is_message).collect()
}

/// Where each message is, by its Message-ID. Nobody may be moving them.
pub fn whereabouts(site: &Site) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in messages(site) {
        let octets = fs::read(site.queue().join(&file)).unwrap();
        let text = String::from_utf8_lossy(&octets);
        let id = text.split("Message-ID: ").nth(1).unwrap_or_else(|| panic!("half a message: {file}"));
        found.entry(id.lines().next().unwrap().to_owned()).or_default().push(file);
    }
    found
}

/// Waits until the running agent has done with all messages.
#[track_caller]
pub fn wait_until_done(site: &Site, limit: Duration) {
    let done = look_for(limit, || messages(site).is_empty().then_some(()));
    assert!(done.is_some(), "{:?} are left after {limit:?}:\n{}", messages(site), site.log());
}

/// A recipient of one message: the message by its queue ID, or by its Message-ID.
type Pair = (String, String);

/// What the kills of a campaign have left in doubt.
#[derive(Default)]
pub struct Ledger {
    pub kills: usize,
    /// By Message-ID: after how many kills it stood newly in doubt.
    in_doubt: BTreeMap<Pair, usize>,
    /// By queue ID: what is in doubt now, and when its file was last written to.
    doubtful: BTreeMap<Pair, SystemTime>,
    /// Notices that were on disk while their message still said that a bounce was owed, by whom they tell.
    unrecorded: BTreeMap<String, BTreeSet<String>>,
    /// Octets of the log that were looked at.
    log_read: usize,
    /// Warnings that are in the log.
    pub warnings: usize,
}

impl Ledger {
    /// To be called after each kill, before the next agent starts. `workers` is how many there were at most.
    pub fn after_kill(&mut self, site: &Site, sink: &SinkProcess, workers: usize) {
        self.kills += 1;
        let run = self.read_log(site);
        let left = left(site);
        assert_nothing_is_there_twice(site);
        let now: BTreeMap<_, _> = left.iter().flat_map(in_doubt).collect();
        for (pair, _) in self.check_warnings(&run) {
            // Not loaded yet, then it stands as it stood; or the kill took the last lines of the log too.
            let (id, address) = &pair;
            let went_on = run.iter().any(|line| line.contains(&format!(" {id}: to=<{address}>, ")));
            assert!(!went_on, "{id} for {address} was tried again without a warning:\n{}", site.log());
        }
        let is_new = |(pair, modified): &(&Pair, &SystemTime)| self.doubtful.get(*pair) != Some(*modified);
        let new: Vec<_> = now.iter().filter(is_new).map(|(pair, _)| pair.clone()).collect();
        let in_flight: BTreeSet<_> =
            new.iter().filter(|pair| !self.doubtful.contains_key(*pair)).map(|(id, _)| id).collect();
        assert!(in_flight.len() <= workers, "more messages in doubt than workers: {in_flight:?}");
        for (id, address) in new {
            let message = &left.iter().find(|left| left.id == id).unwrap().message;
            *self.in_doubt.entry((message.clone(), address)).or_default() += 1;
        }
        self.doubtful = now;
        self.note_unrecorded_bounces(&left, sink);
    }

    /// To be called after the last agent has emptied the queue and stopped.
    pub fn after_the_end(&mut self, site: &Site) {
        let run = self.read_log(site);
        let not_warned = self.check_warnings(&run);
        assert!(not_warned.is_empty(), "without a warning: {not_warned:?}\n{}", site.log());
        assert_nothing_is_there_twice(site);
        assert!(left(site).is_empty(), "{:?}", site.files());
    }

    /// How many copies too many may have arrived.
    pub fn allowed(&self, message: &str, address: &str) -> usize {
        self.in_doubt.get(&(message.to_owned(), address.to_owned())).copied().unwrap_or(0)
    }

    /// How often a recipient stood newly in doubt, over all kills.
    pub fn doubts(&self) -> usize {
        self.in_doubt.values().sum()
    }

    /// Bounces to a sender that a kill has kept from being recorded: as many come again.
    pub fn unrecorded_bounces(&self, sender: &str) -> usize {
        self.unrecorded.get(sender).map_or(0, BTreeSet::len)
    }

    /// The complete lines since the last look.
    fn read_log(&mut self, site: &Site) -> Vec<String> {
        let log = site.log();
        let new = &log[self.log_read..];
        let new = &new[..new.rfind('\n').map_or(0, |end| end + 1)];
        self.log_read += new.len();
        new.lines().map(str::to_owned).collect()
    }

    /// The log warns of exactly what was in doubt; returns what it has not spoken of.
    fn check_warnings(&mut self, run: &[String]) -> BTreeMap<Pair, SystemTime> {
        let mut not_warned = self.doubtful.clone();
        for line in run.iter().filter(|line| line.contains("may be delivered twice")) {
            let words = line.split_once(": an earlier attempt for <").unwrap();
            let id = words.0.rsplit(' ').next().unwrap().to_owned();
            let address = words.1.split_once('>').unwrap().0.to_owned();
            let pair = (id, address);
            assert!(self.doubtful.contains_key(&pair), "nothing was in doubt: {line}");
            not_warned.remove(&pair);
            self.warnings += 1;
        }
        not_warned
    }

    fn note_unrecorded_bounces(&mut self, left: &[Left], sink: &SinkProcess) {
        for owed in left.iter().filter(|left| left.is_owed_a_bounce()) {
            let queued = left.iter().filter(|left| left.told.as_ref() == Some(&owed.sender));
            let mut there: BTreeSet<_> = queued.map(|left| left.message.clone()).collect();
            there.extend(bounces_to(sink, &owed.sender));
            self.unrecorded.entry(owed.sender.clone()).or_default().extend(there);
        }
    }
}

/// The Message-IDs of what has arrived for a sender.
pub fn bounces_to(sink: &SinkProcess, sender: &str) -> BTreeSet<String> {
    sink.mail_of(sender).iter().map(|bounce| mailbox::header(bounce, "Message-ID").unwrap()).collect()
}

fn in_doubt(left: &Left) -> impl Iterator<Item = (Pair, SystemTime)> {
    let doubtful = left.recipients.iter().filter(|(_, state)| *state == 'I');
    doubtful.map(|(address, _)| ((left.id.clone(), address.clone()), left.modified))
}

/// A message is in one place, under one ID; only a claimed file may still lie beside the message that was made of it.
fn assert_nothing_is_there_twice(site: &Site) {
    for (message, places) in whereabouts(site) {
        let id = |file: &String| file.rsplit('/').next().unwrap().trim_end_matches(".in").to_owned();
        let ids: BTreeSet<_> = places.iter().map(id).collect();
        let queued = places.iter().filter(|place| !place.starts_with("tmp/")).count();
        assert!(ids.len() == 1 && queued <= 1, "{message} is in the queue more than once: {places:?}");
    }
    assert_eq!(names(site, "corrupt"), Vec::<String>::new(), "{}", site.log());
}
