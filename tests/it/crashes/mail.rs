//! The mail of a campaign: whom it is for, the ways in, and what has become of it in the end.
//!
//! - Owns: messages that differ in their Message-ID, sender and content; the last count.
//! - Leaves to others: when who is killed.
//! - Always true: what has arrived is compared octet for octet with what was submitted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use fastrand::Rng;
use lastmile::mail::{Recipient, Sender};
use lastmile::spool::{Draft, Spool, SubmitLimits};
use serde_json::{Value, json};

use super::ledger::{Ledger, bounces_to};
use crate::common::agent::Site;
use crate::common::mailbox;
use crate::common::sink::SinkProcess;

/// Fields that may stand in front of what was submitted.
const ADDED: [&str; 1] = ["Received"];
/// Lines of the largest content.
const LINES_MAX: usize = 1500;
/// What ends each content, so that half of one is seen.
const END: &str = "This is the end of the message.\n";

/// One message.
#[derive(Clone)]
pub struct Mail {
    pub number: usize,
    /// Its Message-ID.
    pub id: String,
    pub sender: String,
    /// Whom it must reach.
    pub accepted: Vec<String>,
    /// For whom a bounce must come.
    pub refused: Vec<String>,
    pub content: Vec<u8>,
}

impl Mail {
    /// A message to `accepted` and `refused`, of random length.
    pub fn new(dice: &mut Rng, number: usize, accepted: Vec<String>, refused: Vec<String>) -> Self {
        let id = format!("<m{number}@crashes.example>");
        let sender = format!("s{number}@example.org");
        // Most mail is small; some does not fit into a pipe.
        let lines = if dice.u8(..8) == 0 { dice.usize(..LINES_MAX) } else { dice.usize(..20) };
        let mut content = format!(
            "Message-ID: {id}\nFrom: {sender}\nTo: people:;\nDate: Sat, 21 Nov 2026 19:30:00 +0000\n\
             Subject: message {number}\n\n"
        );
        for line in 0..lines {
            // Some lines begin with a dot, which is not to be seen on the other side.
            let dot = if dice.u8(..10) == 0 { "." } else { "" };
            content.push_str(&format!("{dot}{line} {:016x} {:016x}\n", dice.u64(..), dice.u64(..)));
        }
        content.push_str(END);
        Self { number, id, sender, accepted, refused, content: content.into_bytes() }
    }

    pub fn recipients(&self) -> Vec<&str> {
        // Those who are refused are not all at the end.
        let (first, rest) = self.accepted.split_at(self.accepted.len() / 2);
        first.iter().chain(&self.refused).chain(rest).map(String::as_str).collect()
    }

    /// The arguments of the sendmail command.
    pub fn arguments(&self) -> Vec<&str> {
        [&["-i", "-f", &self.sender, "--"], &self.recipients()[..]].concat()
    }

    /// Drops it into `incoming/` as a queue file, as the sendmail command does for other users.
    pub fn drop_queue_file(&self, spool: &Spool) {
        let recipients = (0..).zip(self.recipients());
        let draft = Draft {
            sender: self.sender.parse::<Sender>().unwrap(),
            recipients: recipients
                .map(|(at, address)| Recipient::new(at, address.parse().unwrap()))
                .collect(),
            origin: "uid=0".to_owned(),
            ..Draft::default()
        };
        spool.drop_incoming(draft, &mut self.content.as_slice(), &SubmitLimits::default()).unwrap();
    }

    /// The name of the bare file that it is dropped as.
    pub fn bare_name(&self) -> String {
        format!("bare-{}", self.number)
    }

    /// The line that speaks for the bare file.
    pub fn job(&self) -> Value {
        let queue_file = format!("incoming/{}", self.bare_name());
        json!({"queue_file": queue_file, "sender": self.sender, "recipients": self.recipients()})
    }
}

/// Writes the job lines of all bare files that still lie in `incoming/`: what their writers do who have not seen them
/// leave. Returns how many there were.
pub fn write_jobs(site: &Site, mails: &[Mail]) -> usize {
    let waiting: BTreeSet<_> = super::ledger::names(site, "incoming").into_iter().collect();
    let waiting = mails.iter().filter(|mail| waiting.contains(&mail.bare_name()));
    waiting.map(|mail| site.write_job(&mail.job())).count()
}

/// What a campaign comes to.
#[derive(Debug, Default)]
pub struct Totals {
    pub copies: usize,
    pub doubled: usize,
    pub bounces: usize,
    pub bounces_again: usize,
}

/// Everything that has arrived, by recipient and Message-ID.
pub struct Arrived(BTreeMap<(String, String), Vec<Vec<u8>>>);

impl Arrived {
    pub fn look(sink: &SinkProcess) -> Self {
        let mut arrived: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for recipient in fs::read_dir(&sink.maildirs).into_iter().flatten().flatten() {
            let address = recipient.file_name().to_str().unwrap().to_owned();
            for message in sink.mail_of(&address) {
                let id = mailbox::header(&message, "Message-ID").unwrap();
                arrived.entry((address.clone(), id)).or_default().push(message);
            }
        }
        Self(arrived)
    }

    /// What has come of a message to a recipient, all of it whole.
    pub fn copies(&self, mail: &Mail, address: &str) -> usize {
        let copies = self.0.get(&(address.to_owned(), mail.id.clone()));
        for copy in copies.into_iter().flatten() {
            let text = String::from_utf8_lossy(copy).replace("\r\n", "\n");
            mailbox::assert_same(text.as_bytes(), &mail.content, &ADDED);
        }
        copies.map_or(0, Vec::len)
    }

    /// Whether every recipient has got it.
    pub fn has_all_of(&self, mail: &Mail) -> bool {
        mail.accepted.iter().all(|address| self.0.contains_key(&(address.clone(), mail.id.clone())))
    }

    /// Counts a message that must have arrived, and its bounce.
    pub fn count(&self, mail: &Mail, ledger: &Ledger, sink: &SinkProcess, totals: &mut Totals) {
        for address in &mail.accepted {
            let copies = self.copies(mail, address);
            assert!(copies >= 1, "{} to {address} was lost", mail.id);
            let (doubled, allowed) = (copies - 1, ledger.allowed(&mail.id, address));
            assert!(doubled <= allowed, "{} to {address} came {copies} times, in doubt {allowed}", mail.id);
            totals.copies += copies;
            totals.doubled += doubled;
        }
        for address in &mail.refused {
            assert_eq!(self.copies(mail, address), 0, "{} to {address} was refused", mail.id);
        }
        self.count_bounces(mail, ledger, sink, totals);
    }

    fn count_bounces(&self, mail: &Mail, ledger: &Ledger, sink: &SinkProcess, totals: &mut Totals) {
        let bounces = bounces_to(sink, &mail.sender);
        let again = ledger.unrecorded_bounces(&mail.sender);
        // One; one more for each kill between a bounce and the note that it is on disk.
        let expected = if mail.refused.is_empty() { 0 } else { 1 + again };
        assert_eq!(bounces.len(), expected, "bounces of {}: {bounces:?}", mail.id);
        for bounce in &bounces {
            let copies = &self.0[&(mail.sender.clone(), bounce.clone())];
            let (doubled, allowed) = (copies.len() - 1, ledger.allowed(bounce, &mail.sender));
            assert!(doubled <= allowed, "the bounce {bounce} came {} times", copies.len());
            for address in &mail.refused {
                let field = format!("Final-Recipient: rfc822; {address}\r\n");
                let names_it = |copy: &Vec<u8>| String::from_utf8_lossy(copy).contains(&field);
                assert!(copies.iter().all(names_it), "a bounce of {} is silent about {address}", mail.id);
            }
            totals.copies += copies.len();
            totals.doubled += doubled;
        }
        totals.bounces += bounces.len();
        totals.bounces_again += bounces.len().saturating_sub(1);
    }

    /// Nothing has arrived but copies that were counted.
    pub fn assert_nothing_else(&self, totals: &Totals) {
        assert_eq!(self.0.values().map(Vec::len).sum::<usize>(), totals.copies, "something else arrived");
    }
}

/// A dropped file becomes one message: each sender's mail was begun under one ID only.
pub fn assert_one_id_each(site: &Site) {
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in site.lines_with(&[": from=<s", "(queue active)"]) {
        let (before, after) = line.split_once(": from=<").unwrap();
        let (sender, id) = (after.split_once('>').unwrap().0, before.rsplit(' ').next().unwrap());
        ids.entry(sender.to_owned()).or_default().insert(id.to_owned());
    }
    let doubled: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() != 1).collect();
    assert!(doubled.is_empty(), "taken in more than once: {doubled:?}");
    assert!(!ids.is_empty(), "the log says nothing:\n{}", site.log());
}
