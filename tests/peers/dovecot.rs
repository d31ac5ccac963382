//! A real Dovecot (2.3) with a configuration, mailboxes and sockets of its own.
//!
//! - Owns: its configuration, start, stop and mailboxes. It works on a machine where Dovecot's package was installed
//!   and never started, as root and as anybody else.
//! - Leaves to others: talking to it.
//! - Always true: it listens in its own directory and on one loopback port, and ends with its test.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, getgid, getuid};
use tempfile::TempDir;

use crate::common::mailbox;
use crate::common::process::{Process, look_for, tied_to_this_thread};

/// Mailboxes, all `@example.org`. `full` is over its quota with the first message.
const USERS: [&str; 5] = ["alice", "bob", "carol", "full", "sender"];
/// Starting takes some 50 ms; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The master hands SIGTERM on to its children at once, then may wait seconds for the log process; we do not.
const STOP_LIMIT: Duration = Duration::from_millis(500);
/// Another program may take the port between our look and Dovecot's.
const START_ATTEMPTS: u32 = 3;
/// Owner of the mail where root runs the tests: Dovecot stores none as root.
const NOBODY: u32 = 65534;

/// A running Dovecot.
pub struct Dovecot {
    // Stops before its directory goes.
    process: Option<Process>,
    port: u16,
    second_port: u16,
    directory: TempDir,
}

impl Dovecot {
    /// Starts one and waits until both its sockets answer.
    pub fn start() -> Self {
        Self::start_with(&|_, _| String::new())
    }

    /// As [`Dovecot::start`]; its configuration ends with what `more` says for its directory and for a second port,
    /// which overrides what stands above.
    pub fn start_with(more: &dyn Fn(&Path, u16) -> String) -> Self {
        require_version_2_3();
        let directory = tempfile::Builder::new().prefix("lastmile-dovecot-").tempdir().unwrap();
        prepare(directory.path());
        let mut dovecot = Self { process: None, port: 0, second_port: 0, directory };
        for _ in 0..START_ATTEMPTS {
            (dovecot.port, dovecot.second_port) = two_free_ports();
            let text = configuration(dovecot.path(), dovecot.port);
            let more = more(dovecot.path(), dovecot.second_port);
            fs::write(dovecot.path().join("dovecot.conf"), text + &more).unwrap();
            if dovecot.try_start() {
                return dovecot;
            }
        }
        panic!("Dovecot did not start in {START_ATTEMPTS} attempts:\n{}", dovecot.log());
    }

    /// Starts it again, on the same sockets, after [`Dovecot::stop`].
    pub fn start_again(&mut self) {
        assert!(self.process.is_none() && self.try_start(), "Dovecot did not start again:\n{}", self.log());
    }

    /// Stops it: the sockets refuse connections then.
    pub fn stop(&mut self) {
        drop(self.process.take());
        // A stopped master leaves its socket behind; a child may still be about to end.
        let refuses = look_for(START_LIMIT, || UnixStream::connect(self.socket()).err());
        assert!(refuses.is_some(), "Dovecot was stopped and still accepts connections");
    }

    fn try_start(&mut self) -> bool {
        let mut command = tied_to_this_thread("TERM", "dovecot");
        command.arg("-F").arg("-c").arg(self.path().join("dovecot.conf"));
        command.stdin(std::process::Stdio::null());
        let process = Process::start("Dovecot", &mut command);
        let mut process = process.stopped_by(Signal::TERM, STOP_LIMIT);
        let started = look_for(START_LIMIT, || {
            let answers = UnixStream::connect(self.socket()).is_ok()
                && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            (answers || process.ended().is_some()).then_some(answers)
        });
        self.process = (started == Some(true)).then_some(process);
        self.process.is_some()
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its LMTP socket.
    pub fn socket(&self) -> PathBuf {
        self.path().join("lmtp")
    }

    /// Its LMTP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of 127.0.0.1 that is free for what [`Dovecot::start_with`] adds.
    pub fn second_port(&self) -> u16 {
        self.second_port
    }

    /// Its ID.
    pub fn pid(&self) -> rustix::process::Pid {
        self.process.as_ref().unwrap().pid()
    }

    /// Both ways to it, as nexthops.
    pub fn nexthops(&self) -> [String; 2] {
        [format!("lmtp:unix:{}", self.socket().display()), format!("lmtp:inet:[127.0.0.1]:{}", self.port)]
    }

    /// What a user's mailbox holds.
    pub fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        assert!(USERS.contains(&user), "{user} has no mailbox");
        mailbox::messages(&self.path().join("mail").join(user))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read(self.path().join("dovecot.log"))
            .map_or_else(|error| error.to_string(), |log| String::from_utf8_lossy(&log).into_owned())
    }
}

/// Says what to install, rather than failing on a timeout. The configuration of 2.4 has another syntax.
fn require_version_2_3() {
    let version = Command::new("dovecot").arg("--version").output().unwrap_or_else(|error| {
        panic!("cannot run dovecot ({error}): install dovecot-core and dovecot-lmtpd, with /usr/sbin in PATH")
    });
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(version.starts_with("2.3."), "these tests know Dovecot 2.3, not {version}");
}

/// The user and group of the mail.
fn mail_owner() -> (u32, u32) {
    if getuid().is_root() { (NOBODY, NOBODY) } else { (getuid().as_raw(), getgid().as_raw()) }
}

/// Directories and the user list.
fn prepare(directory: &Path) {
    // The mail's owner passes through; the sockets are for everybody.
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    let mail = directory.join("mail");
    fs::create_dir(&mail).unwrap();
    let (uid, gid) = mail_owner();
    chown(&mail, Some(uid), Some(gid)).unwrap();
    let line = |user: &&str| {
        let quota = if *user == "full" { "userdb_quota_rule=*:bytes=1" } else { "" };
        format!("{user}@example.org::{uid}:{gid}::{}/{user}::{quota}\n", mail.display())
    };
    fs::write(directory.join("users"), USERS.iter().map(line).collect::<String>()).unwrap();
}

fn two_free_ports() -> (u16, u16) {
    let listeners = [0, 0].map(|any| TcpListener::bind((Ipv4Addr::LOCALHOST, any)).unwrap());
    let [first, second] = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    (first, second)
}

/// LMTP and what it needs; no service outside of the directory, no login, no TLS.
fn configuration(directory: &Path, port: u16) -> String {
    let directory = directory.display();
    let accounts = if getuid().is_root() {
        // Made by the package.
        "default_internal_user = dovecot\ndefault_login_user = dovenull\n".to_owned()
    } else {
        let user =
            nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().expect("a user with a name").name;
        let group =
            nix::unistd::Group::from_gid(nix::unistd::getgid()).unwrap().expect("a group with a name").name;
        format!(
            "default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n"
        )
    };
    format!(
        r#"
protocols = lmtp
instance_name = lastmile-test
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
log_timestamp = "%Y-%m-%d %H:%M:%S.%{{usecs}} "
hostname = mailbox.example.org
postmaster_address = postmaster@example.org
ssl = no
{accounts}
first_valid_uid = 1
mail_location = maildir:~/Maildir
mail_plugins = quota
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
passdb {{
  driver = passwd-file
  args = {directory}/users
}}
userdb {{
  driver = passwd-file
  args = {directory}/users
}}
service lmtp {{
  unix_listener {directory}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
# Only root may change its root.
service anvil {{
  chroot =
}}
service ipc {{
  chroot =
}}
service stats {{
  chroot =
}}
"#
    )
}
