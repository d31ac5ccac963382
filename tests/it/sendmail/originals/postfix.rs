//! Postfix's sendmail(1): a configuration and a queue directory of its own; what is submitted is read out of
//! `maildrop`.
//!
//! - Owns: keeping it away from the system's Postfix. `MAIL_CONFIG` names the configuration; `command_directory` and
//!   `daemon_directory` are our own too. In the first postdrop(1) is the real one, as a copy: a set-gid one reads no
//!   configuration but the system's for anybody but root. Commands that would meet a mail system only say that they
//!   were called, and how; `-bd` starts nothing.
//! - Always true: an address without a domain is shown with `@example`, which `myorigin` would make of it.

use std::fs::{self, DirEntry, File};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::case::{Trouble, World};
use super::program::{Mail, Site, envelope, mailbox, open_to_all, set_mode, text};

/// A configuration and a queue directory.
pub struct Postfix {
    config: PathBuf,
    queue: PathBuf,
}

impl Postfix {
    pub fn new(directory: &Path, world: &World) -> Self {
        let path = |name: &str| directory.join(name);
        let site = Self { config: path("postfix"), queue: path("queue") };
        for name in
            ["postfix", "queue", "queue/maildrop", "queue/public", "queue/pid", "commands", "daemons", "data"]
        {
            fs::create_dir(path(name)).unwrap();
            open_to_all(&path(name));
        }
        let queue = if world.trouble == Trouble::Missing { path("nowhere") } else { path("queue") };
        let limit = if world.trouble == Trouble::Configuration { "many" } else { "10240" };
        let minfree = if world.trouble == Trouble::Full { "9000000000000000" } else { "0" };
        let main = format!(
            "compatibility_level = 3.6\n\
             queue_directory = {}\ndata_directory = {}\ncommand_directory = {}\ndaemon_directory = {}\nmeta_directory = {}\n\
             myhostname = mx.example\nmyorigin = example\nmydestination =\nlocal_recipient_maps =\n\
             alias_maps =\nalias_database = hash:{}\nmessage_size_limit = {limit}\nqueue_minfree = {minfree}\n",
            queue.display(),
            path("data").display(),
            path("commands").display(),
            path("daemons").display(),
            site.config.display(),
            path("aliases").display()
        );
        fs::write(path("postfix/main.cf"), main).unwrap();
        // It waits until a file is some seconds old before it believes that it is whole.
        let earlier = SystemTime::now() - Duration::from_secs(3600);
        File::options().write(true).open(path("postfix/main.cf")).unwrap().set_modified(earlier).unwrap();
        fs::write(path("postfix/master.cf"), "").unwrap();
        fs::copy(installed("command_directory").join("postdrop"), path("commands/postdrop")).unwrap();
        set_mode(&path("commands/postdrop"), 0o755);
        // Its sendmail(1) does not wait for the last of them, so that one says nothing.
        let tells = "#!/bin/sh\necho \"${0##*/} $*\"\n";
        for (name, script) in [("postqueue", tells), ("postalias", tells), ("postfix", "#!/bin/sh\n")] {
            let path = path("commands").join(name);
            fs::write(&path, script).unwrap();
            set_mode(&path, 0o755);
        }
        symlink(installed("daemon_directory").join("smtpd"), path("daemons/smtpd")).unwrap();
        // Who drops a message rings here; nobody listens.
        mknodat(CWD, path("queue/public/pickup"), FileType::Fifo, Mode::from_bits_retain(0o622), 0).unwrap();
        set_mode(&path("queue/public/pickup"), 0o622);
        set_mode(&path("queue/maildrop"), if world.trouble == Trouble::Closed { 0o555 } else { 0o1733 });
        site
    }
}

impl Site for Postfix {
    fn prepare(&self, command: &mut Command) {
        command.env("MAIL_CONFIG", &self.config);
    }

    fn mail(&self) -> Vec<Mail> {
        // postdrop(1) may still be removing what has no end; a file that has one can be executed.
        let is_finished = |file: &DirEntry| file.metadata().is_ok_and(|data| data.mode() & 0o100 != 0);
        let files = fs::read_dir(self.queue.join("maildrop")).unwrap().map(Result::unwrap);
        files.filter(is_finished).map(|file| mail(&fs::read(file.path()).unwrap())).collect()
    }
}

/// A directory of the installed Postfix, as it was built: no configuration is read.
fn installed(parameter: &str) -> PathBuf {
    let output = Command::new("/usr/sbin/postconf").args(["-d", "-h", parameter]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().into()
}

/// The records of a queue file: a letter, the length in groups of seven bits with the lowest first, octets.
fn records(mut file: &[u8]) -> Vec<(u8, &[u8])> {
    let mut records = Vec::new();
    while let [letter, rest @ ..] = file {
        let digits = rest.iter().position(|octet| octet & 0x80 == 0).unwrap() + 1;
        let length =
            rest[..digits].iter().rev().fold(0, |length, octet| length << 7 | usize::from(octet & 0x7f));
        let (value, rest) = rest[digits..].split_at(length);
        records.push((*letter, value));
        file = rest;
    }
    assert_eq!(records.last(), Some(&(b'E', &b""[..])), "the file is not finished");
    records
}

/// Reads a queue file.
fn mail(file: &[u8]) -> Mail {
    let (mut sender, mut parameters, mut recipients, mut content) =
        (String::new(), Vec::new(), Vec::new(), Vec::new());
    let mut notify = String::new();
    for (letter, value) in records(file) {
        let word = String::from_utf8_lossy(value);
        match letter {
            b'S' => sender = completed(&word),
            b'R' => recipients.push(mailbox(&completed(&word)) + &std::mem::take(&mut notify)),
            b'V' => parameters.push(format!("VERP={word}")),
            b'N' => content.extend_from_slice(&[value, b"\n"].concat()),
            b'L' => content.extend_from_slice(value),
            b'A' => match word.split_once('=').unwrap() {
                ("ret_flags", "1") => parameters.push("RET=FULL".to_owned()),
                ("ret_flags", "2") => parameters.push("RET=HDRS".to_owned()),
                ("envelope_id", id) => parameters.push(format!("ENVID={id}")),
                ("notify_flags", flags) => {
                    notify = format!(" NOTIFY={}", notify_words(flags.parse().unwrap()));
                }
                ("encoding", "8bit") => parameters.push("BODY=8BITMIME".to_owned()),
                ("encoding", "7bit") => parameters.push("BODY=7BIT".to_owned()),
                ("trace_flags", flags) => parameters.push(format!("TRACE={flags}")),
                ("rewrite_context", "remote") => parameters.push("REMOTE".to_owned()),
                ("dsn_orig_rcpt", address) => notify += &format!(" ORCPT={address}"),
                ("rewrite_context", "local") => {}
                (name, value) => parameters.push(format!("{name}={value}")),
            },
            // Size, time, full name; where message and extracted recipients begin, and the end.
            b'C' | b'T' | b'F' | b'M' | b'X' | b'E' => {}
            other => panic!("a record of type {other:?}: {word}"),
        }
    }
    Mail { envelope: envelope(&sender, &parameters, &recipients), content: text(&content) }
}

fn notify_words(flags: u32) -> String {
    let words = [(1, "NEVER"), (2, "SUCCESS"), (4, "FAILURE"), (8, "DELAY")];
    let words: Vec<_> = words.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, word)| *word).collect();
    words.join(",")
}

/// An address as it is written: records have it without quotes, and without the domain that `myorigin` is.
fn completed(address: &str) -> String {
    let is_plain =
        |octet: u8| octet > 127 || octet.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&octet);
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, "example"));
    if address.is_empty() {
        String::new()
    } else if local.bytes().all(is_plain) {
        format!("{local}@{domain}")
    } else {
        format!("\"{}\"@{domain}", local.replace('\\', r"\\").replace('"', "\\\""))
    }
}
