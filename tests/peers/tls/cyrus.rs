//! A real Cyrus lmtpd (3.x) with a configuration, mailboxes, logins and sockets of its own.
//!
//! - Owns: its configuration, start, stop, accounts and mailboxes. It works where the package was installed and never
//!   started, as root and as anybody else.
//! - Leaves to others: talking to it.
//! - Always true: it listens in its own directory and on one loopback port, and ends with its test, children included.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process_group};
use tempfile::TempDir;

use super::carrier::Papers;
use crate::common::agent::run;
use crate::common::certificates::{CLIENT, Kind};
use crate::common::process::{Process, look_for, tied_to_this_thread, wait_for};
use crate::postfix::processes;

/// Where Debian keeps its programs.
const PROGRAMS: &str = "/usr/lib/cyrus/bin";
/// The realm of the logins.
const REALM: &str = "mailbox.example.org";
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Another program may take the port between our look and Cyrus's.
const START_ATTEMPTS: u32 = 3;
/// Directories that have to be there before it starts.
const DIRECTORIES: [&str; 8] =
    ["conf", "conf/db", "conf/log", "conf/socket", "spool", "sieve", "run", "papers"];
/// Who may deliver mail after a login.
const ADMINS: [&str; 3] = ["carrier", "second", CLIENT];

/// A running Cyrus.
pub struct Cyrus {
    process: Option<Process>,
    port: u16,
    directory: TempDir,
}

impl Cyrus {
    /// Starts one in whose configuration `more` overrides what is usual here; for each login there is a name and a
    /// password. `None`, and a word about it, where it is not installed.
    pub fn start(papers: &Papers, logins: &[[&str; 2]], more: &str) -> Option<Self> {
        for program in [&format!("{PROGRAMS}/lmtpd"), "/usr/sbin/saslpasswd2"] {
            if !Path::new(program).exists() {
                eprintln!("skipped: there is no {program} (apt-get install cyrus-common sasl2-bin)");
                return None;
            }
        }
        let directory = tempfile::Builder::new().prefix("lastmile-cyrus-").tempdir().unwrap();
        let mut cyrus = Self { process: None, port: 0, directory };
        cyrus.prepare(papers, logins, more);
        for _ in 0..START_ATTEMPTS {
            cyrus.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if cyrus.try_start() {
                return Some(cyrus);
            }
        }
        panic!("Cyrus did not start in {START_ATTEMPTS} attempts");
    }

    /// Directories, configuration and accounts, all of them its user's.
    fn prepare(&self, papers: &Papers, logins: &[[&str; 2]], more: &str) {
        fs::set_permissions(self.path(), Permissions::from_mode(0o755)).unwrap();
        for name in DIRECTORIES {
            fs::create_dir(self.path().join(name)).unwrap();
        }
        // What a user says after a login is written down where there is a directory of that name.
        for name in ADMINS {
            fs::create_dir(self.path().join("conf/log").join(name)).unwrap();
        }
        let server = papers.of(Kind::Good);
        fs::copy(&server.chain, self.path().join("papers/chain")).unwrap();
        fs::copy(&server.key, self.path().join("papers/key")).unwrap();
        fs::copy(&papers.authority, self.path().join("papers/authority")).unwrap();
        fs::write(self.path().join("imapd.conf"), configuration(self.path(), more)).unwrap();
        for [name, password] in logins {
            let mut command = Command::new("/usr/sbin/saslpasswd2");
            command.args(["-p", "-c", "-u", REALM, "-f"]).arg(self.path().join("sasldb")).arg(name);
            let output = run(&mut command, password.as_bytes());
            assert!(output.status.success(), "saslpasswd2: {output:?}");
        }
        if getuid().is_root() {
            give_to_nobody(self.path());
        }
    }

    fn try_start(&mut self) -> bool {
        let (directory, port) = (self.path().display(), self.port);
        let services = format!(
            "START {{\n}}\nSERVICES {{\n  lmtp cmd=\"lmtpd -C {directory}/imapd.conf\" listen=\"127.0.0.1:{port}\" \
             prefork=0\n}}\nEVENTS {{\n}}\n"
        );
        fs::write(self.path().join("cyrus.conf"), services).unwrap();
        let path = |name: &str| self.path().join(name);
        let mut command = tied_to_this_thread("TERM", format!("{PROGRAMS}/master"));
        command.arg("-D").arg("-C").arg(path("imapd.conf")).arg("-M").arg(path("cyrus.conf"));
        command.arg("-p").arg(path("run/pid")).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start("Cyrus", &mut command).stopped_by(Signal::TERM, STOP_LIMIT);
        let started = look_for(START_LIMIT, || {
            let answers = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            (answers || process.ended().is_some()).then_some(answers)
        });
        self.process = (started == Some(true)).then_some(process);
        self.process.is_some()
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its LMTP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// It as a next hop.
    pub fn nexthop(&self) -> String {
        format!("lmtp:inet:localhost:{}", self.port)
    }

    /// It as the log names it.
    pub fn name(&self) -> String {
        format!("localhost[127.0.0.1]:{}", self.port)
    }

    /// How often somebody has logged in by that name.
    pub fn logins(&self, name: &str) -> usize {
        let entries = fs::read_dir(self.path().join("conf/log").join(name)).unwrap();
        let texts = entries.flatten().map(|entry| fs::read(entry.path()).unwrap());
        let begins = format!("---------- {name} ");
        texts.map(|text| String::from_utf8_lossy(&text).matches(&begins).count()).sum()
    }

    /// What a user's mailbox holds, with LF for its line ends. Mailboxes are made by their first message.
    pub fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.path().join("spool/user").join(user)) else { return Vec::new() };
        let is_message = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.strip_suffix('.').is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let paths = entries.flatten().map(|entry| entry.path()).filter(is_message);
        paths.map(|path| with_lf(&fs::read(path).unwrap())).collect()
    }
}

impl Drop for Cyrus {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        let group = process.pid();
        drop(process);
        end_group(group);
    }
}

/// The master ends before its children do; one that waits for its client would wait long.
fn end_group(group: Pid) {
    let is_gone = || processes::of_group(group).is_empty().then_some(());
    if look_for(Duration::from_millis(200), is_gone).is_none() {
        let _ = kill_process_group(group, Signal::KILL);
        wait_for("the end of Cyrus's processes", STOP_LIMIT, is_gone);
    }
}

fn with_lf(octets: &[u8]) -> Vec<u8> {
    let text: Vec<_> = octets.split(|&octet| octet == b'\n').collect();
    let (last, lines) = text.split_last().unwrap();
    assert!(last.is_empty(), "the last line has its end");
    let without_cr = lines.iter().map(|line| line.strip_suffix(b"\r").expect("CRLF"));
    without_cr.flat_map(|line| [line, b"\n"].concat()).collect()
}

/// Dovecot's and Cyrus's mail belongs to nobody where root runs the tests.
fn give_to_nobody(directory: &Path) {
    let nobody = nix::unistd::User::from_name("nobody").unwrap().expect("there is nobody");
    let (uid, gid) = (Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()));
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            give_to_nobody(&entry.path());
        }
        chown(entry.path(), uid, gid).unwrap();
    }
}

/// LMTP for those who have logged in; lines of `more` replace those of the same key. Mailboxes come to be with their
/// first message.
fn configuration(directory: &Path, more: &str) -> String {
    let directory = directory.display();
    let user = if getuid().is_root() {
        "nobody".to_owned()
    } else {
        nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().expect("a user with a name").name
    };
    let usual = format!(
        "cyrus_user: {user}\nconfigdirectory: {directory}/conf\ndefaultpartition: default\n\
         partition-default: {directory}/spool\nproc_path: {directory}/run/proc\n\
         mboxname_lockpath: {directory}/run/lock\nlmtpsocket: {directory}/run/lmtp\nidlesocket: {directory}/run/idle\n\
         notifysocket: {directory}/run/notify\nsievedir: {directory}/sieve\nservername: {REALM}\n\
         virtdomains: userid\ndefaultdomain: example.org\nmailbox_legacy_dirs: yes\nautocreate_quota: 0\n\
         autocreate_post: yes\nduplicatesuppression: no\nlmtp_admins: {}\n\
         allowplaintext: no\nsasl_pwcheck_method: auxprop\nsasl_auxprop_plugin: sasldb\n\
         sasl_sasldb_path: {directory}/sasldb\n\
         sasl_mech_list: PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-1 SCRAM-SHA-256\n\
         tls_server_cert: {directory}/papers/chain\ntls_server_key: {directory}/papers/key\n\
         tls_client_ca_file: {directory}/papers/authority\n",
        ADMINS.join(" ")
    );
    let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    // A key that stands there twice is an error to Cyrus.
    let is_left = |line: &&str| !more.lines().any(|other| key(other) == key(line));
    usual.lines().filter(is_left).chain(more.lines()).map(|line| format!("{line}\n")).collect()
}
