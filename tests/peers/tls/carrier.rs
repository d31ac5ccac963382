//! Our side: a site that knows an authority, and perhaps passwords.
//!
//! - Owns: its configuration, messages that can be found again, what its log must say of their connections.
//! - Leaves to others: the servers.
//! - Always true: when it is dropped, nothing that it has written but the files of secrets holds a secret.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use crate::common::agent::{Agent, SOON, Site};
use crate::common::certificates::{Certificates, Identity};
use crate::common::process::{look_for, wait_for};

/// From a submission to the mailbox, for one message that nothing holds up.
pub const DELIVERED: Duration = Duration::from_secs(30);
/// The names of every server here: what it is called, and how it is reached.
const NAMES: [&str; 3] = ["localhost", "mailbox.example.org", "127.0.0.1"];
/// Directories in a queue and below.
const DEPTH_MAX: u32 = 8;

/// Certificates in a directory that every account can look into.
pub struct Papers {
    set: Certificates,
    _directory: TempDir,
}

impl Papers {
    /// New ones, which nobody else trusts.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("lastmile-papers-").tempdir().unwrap();
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { set: Certificates::make(directory.path(), &NAMES), _directory: directory }
    }
}

impl std::ops::Deref for Papers {
    type Target = Certificates;

    fn deref(&self) -> &Certificates {
        &self.set
    }
}

/// `tls_cert_file` and `tls_key_file`.
pub fn showing(identity: &Identity) -> String {
    let (chain, key) = (identity.chain.display(), identity.key.display());
    format!("tls_cert_file = \"{chain}\"\ntls_key_file = \"{key}\"\n")
}

/// A site with one worker, whose mail goes to one next hop unless a message says otherwise.
pub struct Carrier {
    pub site: Site,
    agent: Option<Agent>,
    secrets: Vec<String>,
}

impl Carrier {
    /// A site without a running agent, whose bounces lead nowhere: whether they could be delivered is looked up at its
    /// start, and no server is to see that. `keys` are those of the next hop's transport, which trusts `papers`.
    pub fn new(papers: &Papers, nexthop: &str, keys: &str) -> Self {
        let transport = nexthop.split(':').next().unwrap();
        assert!(["lmtp", "smtp"].contains(&transport), "{nexthop} begins with a transport");
        let authority = papers.authority.display();
        let site = Site::new(&format!(
            "default_transport = \"{nexthop}\"\nworkers = 1\nworkers_reserved = 0\n\
             bounce_nexthop = \"local:unix:/nonexistent/lmtp\"\nminimal_backoff_time = \"1s\"\n\
             [transport.{transport}]\ntls_CAfile = \"{authority}\"\ninet_protocols = \"ipv4\"\n\
             debug_peer_list = \"127.0.0.1\"\n{keys}"
        ));
        Self { site, agent: None, secrets: Vec::new() }
    }

    /// The same with a running agent.
    pub fn start(papers: &Papers, nexthop: &str, keys: &str) -> Self {
        let mut carrier = Self::new(papers, nexthop, keys);
        carrier.agent = Some(carrier.site.start_agent());
        carrier
    }

    /// The same that logs in by `table`: key, name and password in each line.
    pub fn start_with_logins(papers: &Papers, nexthop: &str, keys: &str, table: &[[&str; 3]]) -> Self {
        // The table's name is needed before there is a directory of the site's.
        let mut carrier = Self::new(papers, nexthop, "");
        carrier.write_logins(table);
        let login = format!(
            "sasl_auth_enable = \"yes\"\nsasl_password_maps = \"texthash:{}\"\n{keys}",
            carrier.logins().display()
        );
        let text = fs::read_to_string(carrier.site.config()).unwrap();
        fs::write(carrier.site.config(), format!("{text}{login}\n")).unwrap();
        carrier.agent = Some(carrier.site.start_agent());
        carrier
    }

    /// Where names and passwords stand.
    fn logins(&self) -> PathBuf {
        self.site.path().join("secrets").join("logins")
    }

    /// Writes names and passwords anew; the agent reads them when it starts or is told to.
    pub fn write_logins(&mut self, table: &[[&str; 3]]) {
        let lines = table.iter().map(|[key, name, password]| format!("{key} {name}:{password}\n"));
        let text: String = lines.collect();
        self.write_secret("logins", &text);
        for [_, name, password] in table {
            if !password.is_empty() && !password.starts_with("token-file:") {
                self.guard(name, password);
            }
        }
    }

    /// Writes a file with a secret, which only its owner may read.
    pub fn write_secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.site.path().join("secrets").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    /// From now on neither the secret nor what mechanisms make of it and `name` may be found.
    pub fn guard(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 8, "a secret that may be found by chance");
        let encoded = |text: String| BASE64_STANDARD.encode(text);
        self.secrets.extend([
            secret.to_owned(),
            encoded(secret.to_owned()),
            encoded(format!("\0{name}\0{secret}")),
            encoded(format!("{name}\0{name}\0{secret}")),
            encoded(format!("user={name}\x01auth=Bearer {secret}\x01\x01")),
        ]);
    }

    /// The running agent.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("the agent runs")
    }

    /// Queues a message of that subject for `alice`; what was submitted.
    #[track_caller]
    pub fn send(&self, subject: &str, body: &[u8]) -> Vec<u8> {
        let submitted = message(subject, body);
        self.site.sendmail(&["-i", "-f", "sender@example.org", "alice@example.org"], &submitted);
        submitted
    }

    /// Delivers a message of that subject to `alice` at once, by `--lmtp` or `--esmtp`; what the command ended with.
    pub fn send_now(&self, option: &str, server: &str, submitted: &[u8]) -> Output {
        let arguments = ["sendmail", option, server, "-i", "-f", "sender@example.org", "alice@example.org"];
        self.site.run(&arguments, submitted)
    }

    /// Waits until `count` messages are delivered, and returns the lines that say so.
    #[track_caller]
    pub fn wait_for_sent(&self, count: usize) -> Vec<String> {
        let not_sent = || self.not_sent().is_some();
        let sent = || self.site.lines_with(&["to=<alice@example.org>", "status=sent (250 2."]);
        let end = look_for(DELIVERED, || (sent().len() >= count || not_sent()).then(sent));
        let lines = end.unwrap_or_default();
        assert!(lines.len() >= count, "{} of {count} are delivered:\n{}", lines.len(), self.site.log());
        lines
    }

    /// The first recipient's line that is not one of success.
    fn not_sent(&self) -> Option<String> {
        let lines = self.site.lines_with(&["to=<alice@example.org>", "status="]);
        lines.into_iter().find(|line| !line.contains("status=sent"))
    }

    /// Waits until the one message in the queue is deferred, for a reason that holds `words`; nothing may come back.
    #[track_caller]
    pub fn wait_for_deferred(&self, words: &[&str]) -> String {
        let line = look_for(DELIVERED, || self.not_sent());
        let line = line.unwrap_or_else(|| panic!("all went well:\n{}", self.site.log()));
        assert!(line.contains("status=deferred"), "{line}\n{}", self.site.log());
        for words in words {
            assert!(line.contains(words), "{words:?} is not in:\n{line}\n{}", self.site.log());
        }
        let is_kept = || self.site.files().iter().any(|file| file.starts_with("deferred/")).then_some(());
        wait_for("the message in deferred/", SOON, is_kept);
        assert_eq!(self.site.queued().len(), 1, "a bounce?\n{}", self.site.log());
        assert!(self.site.lines_with(&["status=bounced"]).is_empty(), "{}", self.site.log());
        line
    }

    /// The lines about TLS connections that came to be.
    pub fn connections(&self) -> Vec<String> {
        self.site.lines_with(&[" TLS connection established to "])
    }

    /// The one line about a TLS connection, which has to begin so: trust and server.
    #[track_caller]
    pub fn assert_connection(&self, trust: &str, server: &str) -> String {
        let lines = self.connections();
        assert_eq!(lines.len(), 1, "{}", self.site.log());
        let begins = format!(" {trust} TLS connection established to {server}: TLSv1.");
        assert!(lines[0].contains(&begins), "{begins:?} is not in {:?}", lines[0]);
        assert!(lines[0].contains(" with cipher ") && lines[0].ends_with(" bits)"), "{}", lines[0]);
        lines[0].clone()
    }

    /// Stops the agent; whatever it still says is in the log then.
    pub fn stop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop();
        }
    }

    /// Files below the site's directory that hold a secret.
    fn leaks(&self) -> Vec<String> {
        let mut files = Vec::new();
        collect(self.site.path(), DEPTH_MAX, &mut files);
        let is_leak = |path: &PathBuf| {
            let octets = fs::read(path).unwrap_or_default();
            let holds = |secret: &String| octets.windows(secret.len()).any(|part| part == secret.as_bytes());
            self.secrets.iter().any(holds)
        };
        files.into_iter().filter(is_leak).map(|path| path.display().to_string()).collect()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let leaks = self.leaks();
        if !leaks.is_empty() && !thread::panicking() {
            panic!("a secret stands in {leaks:?}\n{}", self.site.log());
        }
    }
}

/// A message with all the header fields that sendmail would add; the body follows them.
pub fn message(subject: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: Sender <sender@example.org>\nTo: alice@example.org\nSubject: {subject}\n\
         Date: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <{}@client.example.org>\n\n",
        subject.replace(' ', ".")
    );
    [head.as_bytes(), body].concat()
}

/// Files in and below a directory, but for those of secrets.
fn collect(directory: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    assert!(depth > 0, "{} is deeper than any queue", directory.display());
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && entry.file_name() != "secrets" {
            collect(&entry.path(), depth - 1, found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}
