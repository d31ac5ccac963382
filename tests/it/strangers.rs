//! Other users of the machine, who have no rights but those that everybody has.
//!
//! - Owns: a queue whose agent is nobody, two strangers without accounts, and what they try at it.
//! - Leaves to others: the agent's own user (`engine::privileges`), servers (dialogues).
//! - Always true: whatever a stranger tries, the other's mail arrives whole, once, at its own recipients. The attacks
//!   are Python, run as the stranger; a script that gets further than it should fails. Only root can run them.

mod crowd;
mod directory;
mod fifo;
mod heads;
mod incoming;
mod moving;
mod sendmail;
mod socket;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lastmile::mail::Address;
use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store, maildir_name};
use rustix::process::{Pid, getuid};

use crate::common::agent::{Agent, LASTMILE, SOON, Site, run};
use crate::common::mailbox;
use crate::common::process::{Process, look_for, wait_for};

/// Who attacks.
const MALLORY: u32 = 54321;
/// Whose mail it is.
const ANN: u32 = 54322;
/// The agent's user and group: `nobody` and `nogroup` of Debian.
const AGENT: u32 = 65534;
/// Header fields that sendmail and the agent may put in front.
const ADDED: &[&str] = &["Received", "Return-Path"];

/// What every script begins with.
const PRELUDE: &str = include_str!("strangers/prelude.py");

/// A queue of an agent that root has started and that is nobody now, with its server.
struct Scene {
    site: Site,
    server: Server,
    agent: Option<Agent>,
}

/// A server that stores.
struct Server {
    _handle: Handle,
    socket: PathBuf,
    maildirs: PathBuf,
}

impl Server {
    fn start(site: &Site, name: &str, script: &str) -> Self {
        let (socket, maildirs) = (site.path().join(format!("{name}.sock")), site.path().join(name));
        let config = SinkConfig {
            store: Store::Maildir(maildirs.clone()),
            script: Script::parse(script).unwrap(),
            ..SinkConfig::new(Listen::Unix(socket.clone()))
        };
        let _handle = Sink::start(config).unwrap();
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
        // What has arrived is its recipients' alone.
        fs::create_dir_all(&maildirs).unwrap();
        fs::set_permissions(&maildirs, Permissions::from_mode(0o700)).unwrap();
        Self { _handle, socket, maildirs }
    }

    /// What has arrived for an address, with LF for line ends.
    fn mail_of(&self, recipient: &str) -> Vec<Vec<u8>> {
        let address: Address = recipient.parse().unwrap();
        with_lf(mailbox::messages(&self.maildirs.join(maildir_name(&address))))
    }

    fn all_mail(&self) -> Vec<Vec<u8>> {
        with_lf(mailbox::messages(&self.maildirs))
    }
}

impl Scene {
    /// `None`, said aloud, where the test does not run as root. `keys` are for the configuration.
    fn new(keys: &str) -> Option<Self> {
        let mut scene = Self::without_agent(keys)?;
        scene.agent = Some(scene.site.start_agent());
        Some(scene)
    }

    fn without_agent(keys: &str) -> Option<Self> {
        if !getuid().is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        let site = Site::new("");
        let server = Server::start(&site, "mail", "");
        let text = format!(
            "queue_directory = \"{}\"\nmyhostname = \"mx.example.org\"\nuser = \"nobody\"\ngroup = \"nogroup\"\n\
             default_transport = \"unix:{}\"\n{keys}\n",
            site.queue().display(),
            server.socket.display()
        );
        fs::write(site.config(), text).unwrap();
        // The build directory may be closed to others.
        let program = site.path().join("lastmile");
        if fs::hard_link(LASTMILE, &program).is_err() {
            fs::copy(LASTMILE, &program).unwrap();
            fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self { site, server, agent: None })
    }

    /// A command that runs as somebody else, and ends with the test.
    fn command(&self, uid: u32, gid: u32, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
        command.args(["--clear-groups", "--pdeathsig", "KILL", "--"]).arg(program.as_ref());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/");
        command.env("LASTMILE_CONFIG", self.site.config()).env("LASTMILE", self.site.path().join("lastmile"));
        command.env("QUEUE", self.site.queue()).env("SITE", self.site.path());
        command
    }

    fn python(&self, uid: u32, gid: u32, script: &str) -> Command {
        let mut command = self.command(uid, gid, "/usr/bin/python3");
        command.arg("-Ic").arg(format!("{PRELUDE}\n{script}"));
        command
    }

    /// Runs a script of Mallory's to its end, which must come by itself; returns what it wrote.
    #[track_caller]
    fn attack(&self, script: &str) -> String {
        let output = run(&mut self.python(MALLORY, MALLORY, script), b"");
        self.accomplished(&output, script)
    }

    #[track_caller]
    fn accomplished(&self, output: &Output, script: &str) -> String {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{said}\n{}", self.site.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a script of Mallory's, and returns once it has said that it is ready. It lasts as long as the result.
    #[track_caller]
    fn siege(&self, script: &str) -> Process {
        let (ready, output) = (self.site.path().join("ready"), self.site.path().join("siege"));
        let mut command = self.python(MALLORY, MALLORY, script);
        let file = fs::File::create(&ready).unwrap();
        command.stdin(Stdio::null()).stdout(file).stderr(fs::File::create(&output).unwrap());
        let mut process = Process::start("the siege", &mut command);
        let is_ready = || fs::read_to_string(&ready).is_ok_and(|said| said.contains("ready")).then_some(());
        let found = look_for(SOON, || is_ready().map(|()| true).or_else(|| process.ended().map(|_| false)));
        let said = || fs::read_to_string(&output).unwrap_or_default();
        assert_eq!(found, Some(true), "{script}\n{}", said());
        process
    }

    /// Runs a `lastmile` command as somebody.
    fn lastmile(&self, uid: u32, arguments: &[&str], input: &[u8]) -> Output {
        run(self.command(uid, uid, self.site.path().join("lastmile")).args(arguments), input)
    }

    /// Queues a message by the sendmail command, as a stranger.
    #[track_caller]
    fn sends(&self, uid: u32, subject: &str, recipient: &str) {
        let sender = format!("u{uid}@example.org");
        let arguments = ["sendmail", "-i", "-f", &sender, recipient];
        let output = self.lastmile(uid, &arguments, &message(subject));
        assert!(output.status.success(), "{output:?}\n{}", self.site.log());
    }

    /// Ann sends a message now, and it arrives as if nobody else were there.
    #[track_caller]
    fn anns_mail_arrives(&self, subject: &str) {
        self.sends(ANN, subject, "ann@example.org");
        self.has_arrived(subject, "ann@example.org");
    }

    /// Waits for a message, and sees that it is what was sent.
    #[track_caller]
    fn has_arrived(&self, subject: &str, recipient: &str) {
        let sent = message(subject);
        let line = format!("Subject: {subject}\n");
        let find = || {
            let mut found = self.server.mail_of(recipient);
            found.retain(|message| String::from_utf8_lossy(message).contains(&line));
            Some(found).filter(|found| !found.is_empty())
        };
        let Some(found) = look_for(SOON, find) else {
            panic!("{subject} did not arrive; there is {:?}\n{}", self.site.files(), self.site.log());
        };
        assert_eq!(found.len(), 1, "{subject} came more than once");
        mailbox::assert_same(&found[0], &sent, ADDED);
    }

    /// The agent is the same process that it was, and stops when it is told to.
    #[track_caller]
    fn ends_well(mut self) {
        let panics = self.site.lines_with(&["panicked"]);
        assert!(panics.is_empty(), "{panics:#?}");
        if let Some(agent) = self.agent.take() {
            agent.stop();
        }
    }

    /// The agent's process.
    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.site.queue().join("agent.lock")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    /// How many descriptors the agent has open.
    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The files of one directory of the queue, with the directory's name.
    fn files_in(&self, place: &str) -> Vec<String> {
        let mut files = self.site.files();
        files.retain(|file| file.starts_with(&format!("{place}/")));
        files
    }
}

fn with_lf(messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let strip = |mut message: Vec<u8>| {
        message.retain(|&octet| octet != b'\r');
        message
    };
    messages.into_iter().map(strip).collect()
}

/// A message to which sendmail has nothing to add but `Received:`.
fn message(subject: &str) -> Vec<u8> {
    format!(
        "Date: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <1@example.org>\nFrom: a@example.org\n\
         Subject: {subject}\n\ntext of {subject}\n.\nFrom dots\n"
    )
    .into_bytes()
}

/// Waits for something the agent ought to do at once.
#[track_caller]
fn soon<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_for(what, SOON, look)
}

/// A time in which nothing ought to happen.
const A_WHILE: Duration = Duration::from_millis(300);
