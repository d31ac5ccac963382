//! A caller's surroundings: the programs by their names, a configuration, and a server of our own.
//!
//! - Owns: how a command is called, and what its caller hears.
//! - Leaves to others: what should come of it (the tests).

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store};
use tempfile::TempDir;

use super::NAMES;
use crate::common::agent::{LASTMILE, run};
use crate::common::mailbox;
use crate::common::process::tied_to_this_thread;

/// A directory with both programs in it and a configuration.
pub(super) struct Place {
    pub(super) directory: TempDir,
}

impl Place {
    pub(super) fn new(config: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("lastmile-").tempdir().unwrap();
        fs::write(directory.path().join("lastmile.toml"), config).unwrap();
        for name in NAMES {
            symlink(LASTMILE, directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn socket(&self) -> String {
        self.path("lmtp.sock").display().to_string()
    }

    pub(super) fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = tied_to_this_thread("KILL", self.path(name));
        self.prepare(&mut command, args);
        command
    }

    pub(super) fn prepare(&self, command: &mut Command, args: &[&str]) {
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        command.env("LASTMILE_CONFIG", self.path("lastmile.toml")).env("TMPDIR", self.directory.path());
    }

    #[track_caller]
    pub(super) fn call(&self, name: &str, args: &[&str], input: &[u8]) -> Heard {
        Heard::from(run(&mut self.command(name, args), input))
    }
}

/// What a caller hears.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl From<Output> for Heard {
    fn from(output: Output) -> Self {
        let text = |octets| String::from_utf8(octets).unwrap();
        let Output { status, stdout, stderr } = output;
        Self { code: status.code(), signal: status.signal(), stdout: text(stdout), stderr: text(stderr) }
    }
}

impl Heard {
    /// The only line about a recipient.
    #[track_caller]
    pub(super) fn of(&self, address: &str) -> &str {
        let lines: Vec<_> =
            self.stderr.lines().filter(|line| line.starts_with(&format!("to=<{address}>, "))).collect();
        assert_eq!(lines.len(), 1, "lines for {address} in {}", self.stderr);
        lines[0]
    }
}

/// A place with a server in it.
pub(super) struct Served {
    pub(super) place: Place,
    pub(super) sink: Handle,
}

impl Served {
    pub(super) fn by(script: &str) -> Self {
        Self::with("", script, |_| {})
    }

    pub(super) fn with(config: &str, script: &str, change: impl FnOnce(&mut SinkConfig)) -> Self {
        let place = Place::new(config);
        let mut sink = SinkConfig::new(Listen::Unix(place.socket().into()));
        sink.store = Store::Maildir(place.path("mail"));
        sink.script = Script::parse(script).unwrap();
        change(&mut sink);
        let sink = Sink::start(sink).unwrap();
        Self { place, sink }
    }

    /// Delivers over LMTP; `args` are all but the server and the sender.
    #[track_caller]
    pub(super) fn lmtp(&self, name: &str, args: &[&str], input: &[u8]) -> Heard {
        let socket = self.place.socket();
        self.place.call(name, &[&["--lmtp", &socket, "-f", "a@x"], args].concat(), input)
    }

    pub(super) fn mail_of(&self, address: &str) -> Vec<String> {
        let mail = mailbox::messages(&self.place.path("mail").join(address));
        mail.into_iter().map(|octets| String::from_utf8(octets).unwrap()).collect()
    }
}
