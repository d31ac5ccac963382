//! The program under test: which one it is, and how it is called.
//!
//! - Owns: `TESTS_SENDMAIL`, and one interface to three programs.
//! - Leaves to others: each program's surroundings (`ours`, `postfix`, `msmtp`).
//! - Always true: which of the three it is, it has said itself; its path says nothing.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, kill_process_group};

use super::case::{Call, World};
use super::{msmtp, ours, postfix};
use crate::common::process::{Process, look_for};

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `lastmile sendmail`.
    Ours,
    /// Postfix's sendmail(1).
    Postfix,
    /// msmtp(1).
    Msmtp,
}

/// The program under test.
pub struct Program {
    pub kind: Kind,
    path: PathBuf,
    /// What makes a sendmail of a program that is more than that.
    role: Option<&'static str>,
}

/// A message as it left the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Sender, recipients and what is asked for them, in one line.
    pub envelope: String,
    /// Its octets, with LF at the ends of lines.
    pub content: String,
}

/// What came of a call.
#[derive(Debug)]
pub struct Observed {
    /// `None`: it did not end.
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
    pub mail: Vec<Mail>,
}

/// A program's own configuration, and a place where its mail goes, for one call.
pub trait Site {
    /// Adds what the program needs to find both.
    fn prepare(&self, command: &mut Command);
    /// What was submitted.
    fn mail(&self) -> Vec<Mail>;
}

impl Program {
    /// The one that `TESTS_SENDMAIL` names, or ours.
    #[track_caller]
    pub fn under_test() -> Self {
        let named = std::env::var_os("TESTS_SENDMAIL").filter(|path| !path.is_empty());
        let path: PathBuf =
            named.map_or_else(|| assert_cmd::cargo::cargo_bin!("lastmile").into(), PathBuf::from);
        // Postfix's has no such option, and is not to read the system's configuration either.
        let mut asked = Command::new(&path);
        let output = asked.arg("--version").env("MAIL_CONFIG", "/nonexistent").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let (kind, role) = match &*said {
            said if said.starts_with("msmtp version ") => (Kind::Msmtp, None),
            said if said.contains("/nonexistent/main.cf") => (Kind::Postfix, None),
            // By another name than its own it is a sendmail already.
            said if said.starts_with("lastmile ") => {
                (Kind::Ours, is_more_than_sendmail(&path).then_some("sendmail"))
            }
            said => panic!("TESTS_SENDMAIL: {} is none of the three; it says: {said}", path.display()),
        };
        Self { kind, path, role }
    }

    pub fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Calls it in surroundings of its own. If it does not end in time it is killed, and has no exit code.
    pub fn call(&self, call: &Call, limit: Duration) -> Observed {
        let directory = tempfile::tempdir().unwrap();
        open_to_all(directory.path());
        let site: Box<dyn Site> = match self.kind {
            Kind::Ours => Box::new(ours::Ours::new(directory.path(), &call.world)),
            Kind::Postfix => Box::new(postfix::Postfix::new(directory.path(), &call.world)),
            Kind::Msmtp => Box::new(msmtp::Msmtp::new(directory.path(), &call.world)),
        };
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("input"), &call.input).unwrap();
        let mut command = self.command(call);
        site.prepare(&mut command);
        command.current_dir(directory.path()).process_group(0);
        command.stdin(File::open(path("input")).unwrap());
        command.stdout(File::create(path("output")).unwrap()).stderr(File::create(path("errors")).unwrap());
        let mut process = Process::start("the program under test", &mut command);
        let status = look_for(limit, || process.ended());
        if status.is_none() {
            // What it has started too: Postfix's postdrop(1) would try for ever.
            kill_process_group(process.pid(), Signal::KILL).unwrap();
            process.kill();
        }
        let text = |name: &str| String::from_utf8_lossy(&std::fs::read(path(name)).unwrap()).into_owned();
        Observed {
            // As a shell has it.
            code: status.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap())),
            output: text("output"),
            errors: text("errors"),
            mail: site.mail(),
        }
    }

    fn command(&self, call: &Call) -> Command {
        let mut command = Command::new(&self.path);
        match (call.name, self.role) {
            (Some(name), _) => _ = command.arg0(name),
            (None, Some(role)) => _ = command.arg(role),
            (None, None) => {}
        }
        command.args(&call.args).env("NAME", "Ann Doe");
        if let World { caller: Some(uid), .. } = call.world {
            command.uid(uid).gid(uid);
        }
        command
    }
}

/// Whether it takes its first argument for the name of a command, and not for a recipient.
fn is_more_than_sendmail(program: &Path) -> bool {
    Command::new(program).args(["sendmail", "--version"]).output().unwrap().status.success()
}

/// Other users find their way through it.
pub fn open_to_all(directory: &Path) {
    set_mode(directory, 0o755);
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// An address in an envelope.
pub fn mailbox(address: &str) -> String {
    format!("<{address}>")
}

/// The sender; the caller, whoever that is, is `me`.
fn sender(address: &str) -> String {
    let me = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .map(|user| format!("{}@example", user.name));
    if me.is_some_and(|me| me == address) { "<me>".to_owned() } else { mailbox(address) }
}

/// One line for an envelope.
pub fn envelope(from: &str, parameters: &[String], recipients: &[String]) -> String {
    let mut words = vec![sender(from)];
    words.extend_from_slice(parameters);
    format!("{} -> {}", words.join(" "), recipients.join(", "))
}

/// Octets as text, with LF at the ends of lines; the last line has its end.
pub fn text(octets: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(octets).replace("\r\n", "\n");
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Arguments as words.
pub fn words(args: &[OsString]) -> String {
    let words: Vec<_> = args.iter().map(|arg| format!("{arg:?}")).collect();
    words.join(" ")
}
