//! Ours: a queue of its own; what is submitted is read out of the queue file.
//!
//! - Always true: no agent runs. The Received field is there, and is left out of the content for the comparison.

use std::path::{Path, PathBuf};
use std::process::Command;

use lastmile::spool::Spool;
use rustix::fs::{Gid, Uid};
use serde_json::Value;

use super::case::{Trouble, World};
use super::program::{Mail, Site, envelope, mailbox, set_mode, text};

/// The queue's owner where the test is root: neither root nor a caller in any case.
const OWNER: u32 = 54_321;

/// A queue and its configuration.
pub struct Ours {
    config: PathBuf,
    queue: PathBuf,
}

impl Ours {
    pub fn new(directory: &Path, world: &World) -> Self {
        let (config, queue) = (directory.join("lastmile.toml"), directory.join("queue"));
        let workers = if world.trouble == Trouble::Configuration { "many" } else { "2" };
        let minfree = if world.trouble == Trouble::Full { "1000000G" } else { "0" };
        let text = format!(
            "myhostname = \"mx.example\"\nmyorigin = \"example\"\nmessage_size_limit = \"10K\"\n\
             workers = \"{workers}\"\nqueue_minfree = \"{minfree}\"\nqueue_directory = {queue:?}\n\
             [aliases]\nroot = [\"ann@alias.example\"]\n"
        );
        std::fs::write(&config, text).unwrap();
        let owner =
            rustix::process::geteuid().is_root().then(|| (Uid::from_raw(OWNER), Gid::from_raw(OWNER)));
        if world.trouble != Trouble::Missing {
            drop(Spool::prepare(&queue, owner).unwrap());
        }
        if world.trouble == Trouble::Closed {
            for place in ["incoming", "active", "tmp"] {
                set_mode(&queue.join(place), 0o555);
            }
        }
        Self { config, queue }
    }
}

impl Site for Ours {
    fn prepare(&self, command: &mut Command) {
        command.env("LASTMILE_CONFIG", &self.config);
    }

    fn mail(&self) -> Vec<Mail> {
        let files = ["incoming", "active", "tmp"].map(|place| self.queue.join(place));
        let files = files.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten();
        files.map(|file| mail(&std::fs::read(file.unwrap().path()).unwrap())).collect()
    }
}

/// Reads a queue file.
fn mail(file: &[u8]) -> Mail {
    let end = file.windows(2).position(|pair| pair == b"\n\n").unwrap();
    let head = std::str::from_utf8(&file[..end]).unwrap();
    let mut lines = head.lines().skip(1).filter(|line| line.starts_with('{'));
    let head: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    let recipients: Vec<String> = lines.map(|line| recipient(&serde_json::from_str(line).unwrap())).collect();
    let mut parameters = Vec::new();
    for (word, member) in [("RET", "ret"), ("ENVID", "envid")] {
        parameters.extend(head[member].as_str().map(|value| format!("{word}={value}")));
    }
    // A dropped file leaves it to the agent to say so.
    if head["body"] == "8BITMIME" {
        parameters.push("BODY=8BITMIME".to_owned());
    }
    if head["smtputf8"] == true {
        parameters.push("SMTPUTF8".to_owned());
    }
    let sender = head["sender"].as_str().unwrap();
    Mail {
        envelope: envelope(sender, &parameters, &recipients),
        content: without_received(&text(&file[end + 2..])),
    }
}

fn recipient(recipient: &Value) -> String {
    let mut text = mailbox(recipient["address"].as_str().unwrap());
    for (word, member) in [("NOTIFY", "notify"), ("ORCPT", "orcpt")] {
        if let Some(value) = recipient[member].as_str() {
            text += &format!(" {word}={value}");
        }
    }
    text
}

fn without_received(content: &str) -> String {
    assert!(content.starts_with("Received: by mx.example (lastmile, from userid "), "{content}");
    let mut rest = content.split_inclusive('\n').skip(1).peekable();
    while rest.next_if(|line| line.starts_with('\t')).is_some() {}
    rest.collect()
}
