//! Our own sink as a process of its own: what it has stored survives the agent.
//!
//! - Owns: its start, and looks into its Maildirs.
//! - Leaves to others: what it is told to do wrong (`lastmile::sink`, scripts).
//! - Always true: once it is started it listens; what is in a `new/` is whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

use super::agent::{SOON, Site};
use super::mailbox;
use super::process::{Process, wait_for};

/// A running sink.
pub struct SinkProcess {
    _process: Process,
    /// Where it listens.
    pub socket: PathBuf,
    /// A Maildir for each recipient, named as the address.
    pub maildirs: PathBuf,
}

impl SinkProcess {
    /// Starts an LMTP server in the site's directory that follows `script`.
    #[track_caller]
    pub fn start(site: &Site, name: &str, script: &str) -> Self {
        let path = |end: &str| site.path().join(format!("{name}{end}"));
        let (socket, maildirs, rules) = (path(".sock"), path(""), path(".script"));
        fs::write(&rules, script).unwrap();
        let listen = format!("unix:{}", socket.display());
        let mut command = site.command(&["sink", "--lmtp", "--listen", &listen, "--maildir"]);
        command.arg(&maildirs).arg("--script").arg(&rules).stdin(Stdio::null());
        let mut process = Process::start("the sink", &mut command);
        wait_for("the sink's socket", SOON, || {
            assert!(process.ended().is_none(), "the sink ended while it started");
            UnixStream::connect(&socket).ok()
        });
        Self { _process: process, socket, maildirs }
    }

    /// How many messages have arrived, without a look into them.
    pub fn count(&self) -> usize {
        let recipients = fs::read_dir(&self.maildirs).into_iter().flatten().flatten();
        let new = recipients.filter_map(|recipient| fs::read_dir(recipient.path().join("new")).ok());
        new.map(Iterator::count).sum()
    }

    /// What has arrived for an address that has nothing but letters, digits and `@._+=-` in it.
    pub fn mail_of(&self, address: &str) -> Vec<Vec<u8>> {
        mailbox::messages(&self.maildirs.join(address))
    }

    /// How often each subject has arrived.
    pub fn subjects(&self) -> BTreeMap<String, usize> {
        let mut subjects = BTreeMap::new();
        for message in mailbox::messages(&self.maildirs) {
            // A message without its header would be half a message: never in new/.
            *subjects.entry(mailbox::header(&message, "Subject").unwrap()).or_default() += 1;
        }
        subjects
    }
}
