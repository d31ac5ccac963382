//! A private Postfix: its own configuration, queue, data and log below one directory, loopback only, no port 25.
//!
//! - Owns: the configuration, start, reload and stop, the ways in, the queue and the log.
//! - Leaves to others: the servers that the mail goes to (`server`), what is made of it all (`observation`).
//! - Always true: nothing of the machine's own Postfix is read or changed; every process of the instance ends with
//!   its test, also with one that fails. Only root can start one.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::client::Client;
use super::processes;
use super::server::Server;
use crate::common::agent::{LASTMILE, run};
use crate::common::process::{Process, look_for, tied_to_this_thread, wait_for};

/// From a submission to the last line in the log, for mail that nothing holds up. A busy machine takes its time.
pub const SETTLED: Duration = Duration::from_secs(40);
/// How long a master may take to start, and all processes to end.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// The service under test: its name in master.cf, the same for both programs.
pub const SERVICE: &str = "carry";

/// Directories of the queue that belong to the mail system's account.
const PRIVATE: [&str; 11] = [
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved",
    "trace",
];

/// Directories of messages that wait.
const KEPT: [&str; 3] = ["deferred", "hold", "corrupt"];

/// What differs between instances.
#[derive(Clone, Default)]
pub struct Settings {
    /// Further lines of main.cf.
    pub main: String,
    /// Arguments of the service under test.
    pub arguments: String,
    /// Whether the service under test is locked into the queue directory.
    pub chroot: bool,
    /// How many processes of the service there may be, in the place of what is usual for each program.
    pub processes: Option<u32>,
    /// How often master(8) wakes the service up, in seconds.
    pub wakeup: Option<u32>,
    /// Whether IPv6 is used, too.
    pub both_families: bool,
    /// Whether it is the programs for ESMTP that are under test.
    pub esmtp: bool,
    /// Whether there is an smtpd on a port of its own.
    pub smtpd: bool,
    /// Further smtpds, each on a port of its own, by their arguments.
    pub listeners: Vec<String>,
    /// Services that master.cf leaves out, by name.
    pub without: Vec<&'static str>,
    /// Domains, and where their mail goes through the service under test.
    pub routes: Vec<(String, String)>,
}

impl Settings {
    /// Lines for main.cf.
    pub fn main(text: &str) -> Self {
        Self { main: text.to_owned(), ..Self::default() }
    }

    /// Mail for `domain` goes to `nexthop`.
    pub fn route(mut self, domain: &str, nexthop: impl Into<String>) -> Self {
        self.routes.push((domain.to_owned(), nexthop.into()));
        self
    }

    /// Arguments for the service under test.
    pub fn arguments(mut self, text: &str) -> Self {
        self.arguments = text.to_owned();
        self
    }

    /// An smtpd on a port of its own.
    pub fn smtpd(mut self) -> Self {
        self.smtpd = true;
        self
    }
}

/// A place for an instance, its servers and its files, before it runs.
pub struct Place {
    directory: TempDir,
}

impl Place {
    /// An empty one. The accounts of the mail system have to reach what is in it.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("lastmile-postfix-").tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// A running Postfix.
pub struct Postfix<'a> {
    place: &'a Place,
    client: Client,
    settings: Settings,
    master: Option<Process>,
    /// The process groups of all masters that have run.
    groups: Vec<Pid>,
    smtpd_port: u16,
    /// Of the settings' listeners.
    ports: Vec<u16>,
    notices: Server,
}

impl<'a> Postfix<'a> {
    /// Starts one whose mail for the settings' routes goes through `client`.
    pub fn start(place: &'a Place, client: Client, settings: Settings) -> Self {
        let notices = Server::obliging(place.path());
        let mut postfix = Self {
            place,
            client,
            settings,
            master: None,
            groups: Vec::new(),
            smtpd_port: 0,
            ports: Vec::new(),
            notices,
        };
        postfix.make_directories();
        // Another program may take the port between our look and smtpd's.
        for _ in 0..3 {
            postfix.ports = free_ports(1 + postfix.settings.listeners.len());
            postfix.smtpd_port = postfix.ports.remove(0);
            postfix.configure();
            if postfix.try_start() {
                return postfix;
            }
        }
        panic!("Postfix did not start:\n{}", postfix.log());
    }

    fn make_directories(&self) {
        let (user, group) = (account("postfix"), group("postdrop"));
        let make = |path: PathBuf, owner: u32, group: u32, mode: u32| {
            fs::create_dir_all(&path).unwrap();
            chown(&path, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        make(self.configuration(), 0, 0, 0o755);
        make(self.queue(), 0, 0, 0o755);
        make(self.path().join("data"), user, 0, 0o700);
        for name in PRIVATE {
            make(self.queue().join(name), user, 0, 0o700);
        }
        make(self.queue().join("pid"), 0, 0, 0o755);
        make(self.queue().join("maildrop"), user, group, 0o1730);
        make(self.queue().join("public"), user, group, 0o2710);
        for name in ["lastmile-lmtp", "lastmile-smtp"] {
            let program = self.path().join(name);
            // The directory of the build may be closed to the mail system's account.
            if fs::hard_link(LASTMILE, &program).is_err() {
                fs::copy(LASTMILE, &program).unwrap();
            }
        }
    }

    /// Writes main.cf, master.cf and the transport table.
    pub fn configure(&self) {
        let directory = self.path().display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {directory}/queue\ndata_directory = {directory}/data\n\
             maillog_file = {directory}/log\nmaillog_file_prefixes = {directory}\nmyhostname = mx.test.example\n\
             mydestination =\nmynetworks = 127.0.0.0/8\ninet_interfaces = loopback-only\ninet_protocols = {}\n\
             alias_maps =\nalias_database =\nlocal_recipient_maps =\nappend_dot_mydomain = no\n\
             smtpd_peername_lookup = no\nsmtputf8_autodetect_classes = all\n\
             in_flow_delay = 0\ntransport_maps = texthash:{directory}/transport\n\
             default_transport = error:no route to this domain\n{}\n",
            if self.settings.both_families { "all" } else { "ipv4" },
            self.settings.main
        );
        let routes = self.settings.routes.iter();
        let table: String =
            routes.map(|(domain, nexthop)| format!("{domain} {SERVICE}:{nexthop}\n")).collect();
        // What goes back to a sender is looked at, too: by a program that is not under test.
        let table = format!("{table}sender.example bounced:{}\n", self.notices.unix());
        write_settled(&self.path().join("transport"), &table);
        write_settled(&self.configuration().join("main.cf"), &main);
        fs::write(self.configuration().join("master.cf"), self.master_cf()).unwrap();
    }

    fn master_cf(&self) -> String {
        let mut text = String::from(
            "pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
             rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
             trace unix - - n - 0 bounce\nverify unix - - n - 1 verify\nflush unix n - n 1000? 0 flush\n\
             proxymap unix - - n - - proxymap\nshowq unix n - n - - showq\nerror unix - - n - - error\n\
             retry unix - - n - - error\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\nscache unix - - n - 1 scache\nanvil unix - - n - 1 anvil\n\
             postlog unix-dgram n - n - 1 postlogd\nbounced unix - - n - - lmtp -o syslog_name=notices\n\
             virtual unix - n n - - virtual\n",
        );
        let is_kept =
            |line: &&str| !self.settings.without.iter().any(|name| line.starts_with(&format!("{name} ")));
        text = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        if self.settings.smtpd {
            text.push_str(&format!("127.0.0.1:{} inet n - n - - smtpd\n", self.smtpd_port));
        }
        for (port, arguments) in self.ports.iter().zip(&self.settings.listeners) {
            text.push_str(&format!("127.0.0.1:{port} inet n - n - - smtpd {arguments}\n"));
        }
        if self.settings.without.contains(&SERVICE) {
            return text;
        }
        let chroot = if self.settings.chroot { 'y' } else { 'n' };
        // Relative to Postfix's directory of daemons, as every command is.
        let protocol = if self.settings.esmtp { "smtp" } else { "lmtp" };
        let (processes, program) = match self.client {
            Client::Stock => ("-", protocol.to_owned()),
            Client::Ours => ("1", format!("../../../..{}/lastmile-{protocol}", self.path().display())),
        };
        let Settings { arguments, processes: wanted, wakeup, .. } = &self.settings;
        let processes = wanted.map_or(processes.to_owned(), |count| count.to_string());
        let wakeup = wakeup.map_or("-".to_owned(), |seconds| seconds.to_string());
        text.push_str(&format!("{SERVICE} unix - - {chroot} {wakeup} {processes} {program} {arguments}\n"));
        text
    }

    fn try_start(&mut self) -> bool {
        let log = self.log().len();
        let mut command = tied_to_this_thread("TERM", daemons().join("master"));
        command.arg("-c").arg(self.configuration()).arg("-s").env_clear().env("LANG", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut master = Process::start("Postfix", &mut command).stopped_by(Signal::TERM, STOP_LIMIT);
        self.groups.push(master.pid());
        let is_up = look_for(START_LIMIT, || {
            let up = self.log()[log..].contains("daemon started");
            (up || master.ended().is_some()).then_some(up)
        });
        self.master = (is_up == Some(true)).then_some(master);
        self.master.is_some()
    }

    /// Starts it again, after [`Postfix::stop`].
    pub fn start_again(&mut self) {
        assert!(self.master.is_none() && self.try_start(), "Postfix did not start again:\n{}", self.log());
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Its configuration directory.
    pub fn configuration(&self) -> PathBuf {
        self.path().join("conf")
    }

    /// Its queue directory.
    pub fn queue(&self) -> PathBuf {
        self.path().join("queue")
    }

    /// Whose delivery agent it has.
    pub fn client(&self) -> Client {
        self.client
    }

    /// Other settings, for the next [`Postfix::reload`] or start.
    pub fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.configure();
    }

    /// The server that gets what goes back to senders, all of them `@sender.example`.
    pub fn notices(&self) -> &Server {
        &self.notices
    }

    /// The process ID of the master.
    pub fn master(&self) -> Pid {
        self.master.as_ref().expect("Postfix runs").pid()
    }

    /// The processes of the service under test.
    pub fn carriers(&self) -> Vec<Pid> {
        let group = processes::of_group(self.master());
        let is_one = |process: &processes::Running| match self.client {
            // Notices are delivered by another service of the same program.
            Client::Stock => process.command == "lmtp" && process.arguments.contains(SERVICE),
            Client::Ours => process.command.starts_with("lastmile"),
        };
        group.into_iter().filter(is_one).map(|process| process.pid).collect()
    }

    /// A command of Postfix's, on this instance.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(format!("/usr/sbin/{program}"));
        command
            .env_clear()
            .env("MAIL_CONFIG", self.configuration())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // In another time zone dates would have another form.
        command.env("TZ", "UTC").env("LANG", "C");
        run(command.args(arguments), input)
    }

    /// The same for one that has to succeed; what it printed.
    #[track_caller]
    pub fn succeed(&self, program: &str, arguments: &[&str], input: &[u8]) -> String {
        let output = self.run(program, arguments, input);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {text}{complaint}");
        text
    }

    /// `postfix reload`.
    #[track_caller]
    pub fn reload(&self) {
        let before = self.log().matches("reload -- version").count();
        self.succeed("postfix", &["reload"], b"");
        self.wait_for("the master's reload", || {
            (self.log().matches("reload -- version").count() > before).then_some(())
        });
    }

    /// `postfix stop`: the master ends at once, services as they like.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut master = self.master.take().expect("Postfix runs");
        self.succeed("postfix", &["stop"], b"");
        master.wait(STOP_LIMIT);
    }

    /// The log, as it is.
    pub fn log(&self) -> String {
        let octets = fs::read(self.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&octets).into_owned()
    }

    /// As [`wait_for`], and shows the log where it was in vain.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        match look_for(SETTLED, look) {
            Some(found) => found,
            None => panic!(
                "waited {SETTLED:?} in vain for {what}; {:?}; active: {:?}; the log:\n{}",
                self.client,
                self.queued("active"),
                self.log()
            ),
        }
    }

    /// Waits for a line that holds all `parts`.
    #[track_caller]
    pub fn wait_for_line(&self, parts: &[&str]) -> String {
        self.wait_for(&format!("a line with {parts:?}"), || {
            self.log().lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        })
    }

    /// Waits for that many lines with all `parts`.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize, parts: &[&str]) {
        self.wait_for(&format!("{count} lines with {parts:?}"), || {
            let log = self.log();
            let lines = log.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
            (lines.count() >= count).then_some(())
        });
    }

    /// Names of the queue files in a directory of the queue, hashed or not.
    pub fn queued(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.queue().join(name), 4, &mut found);
        found.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Where a queue file is.
    pub fn queue_file(&self, id: &str) -> Option<PathBuf> {
        let mut found = Vec::new();
        for name in ["incoming", "active", "deferred", "hold", "corrupt"] {
            collect(&self.queue().join(name), 4, &mut found);
        }
        found.into_iter().find(|path| path.file_name().is_some_and(|name| name == id))
    }

    /// Waits until no message is on its way: each is delivered, or waits for another attempt. Nothing may be
    /// submitted meanwhile. Then every line of what has happened is in the log.
    #[track_caller]
    pub fn settle(&self) {
        let on_its_way =
            || ["maildrop", "incoming", "active"].iter().any(|name| !self.queued(name).is_empty());
        // A bounce is made before its message goes; what a listing misses on the move stands in the next.
        self.wait_for("the end of all deliveries", || (!on_its_way() && !on_its_way()).then_some(()));
        self.wait_for_log();
        let untold = || {
            let log = self.log();
            let ends = [": removed", "saving corrupt file"];
            let told: HashSet<_> =
                log.lines().filter(|line| ends.iter().any(|end| line.contains(end))).collect();
            let waiting: Vec<_> = KEPT.iter().flat_map(|name| self.queued(name)).collect();
            let is_told =
                |id: &String| told.iter().any(|line| line.contains(id.as_str())) || waiting.contains(id);
            self.ids(&log).into_iter().find(|id| !is_told(id))
        };
        if look_for(SETTLED, || untold().is_none().then_some(())).is_none() {
            panic!("the log does not tell of the end of {:?}:\n{}", untold(), self.log());
        }
    }

    /// Waits until what was logged so far is in the file: postlogd takes lines in their order, and its time.
    fn wait_for_log(&self) {
        static MARKS: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("mark {}.", MARKS.fetch_add(1, Ordering::SeqCst));
        self.succeed("postlog", &["-t", "test", "-p", "info", &mark], b"");
        self.wait_for("the mark in the log", || self.log().contains(&mark).then_some(()));
    }

    /// The queue ID of every message in the log. One that bounce(8) began and gave up has none.
    pub fn ids(&self, log: &str) -> Vec<String> {
        let is_one = |line: &&str| line.contains(": from=<") || line.contains(": uid=");
        let ids = log.lines().filter(is_one).filter_map(|line| line.split(": ").nth(1));
        ids.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
    }

    /// Submits by the sendmail command.
    #[track_caller]
    pub fn sendmail(&self, arguments: &[&str], message: &[u8]) {
        self.succeed("sendmail", arguments, message);
    }

    /// Submits `count` messages at once through smtpd, from `name@sender.example`: to `1000000user@…` and on.
    #[track_caller]
    pub fn flood(&self, count: usize, name: &str, user: &str) {
        let (count, sender) = (count.to_string(), format!("{name}@sender.example"));
        let server = format!("127.0.0.1:{}", self.smtpd_port);
        let arguments =
            ["-N", "-d", "-s", "4", "-l", "300", "-m", &count, "-f", &sender, "-t", user, &server];
        self.succeed("smtp-source", &arguments, b"");
    }

    /// The port of one of the settings' listeners.
    pub fn port(&self, listener: usize) -> u16 {
        self.ports[listener]
    }

    /// The port of its smtpd.
    pub fn smtpd_port(&self) -> u16 {
        assert!(self.settings.smtpd, "this instance has no smtpd");
        self.smtpd_port
    }
}

impl Drop for Postfix<'_> {
    fn drop(&mut self) {
        drop(self.master.take());
        // The master does not wait for its services; one that finishes its work may take its time, but not ours.
        for &group in &self.groups {
            let is_gone = || processes::of_group(group).is_empty().then_some(());
            if look_for(STOP_LIMIT, is_gone).is_none() {
                let _ = kill_process_group(group, Signal::KILL);
                wait_for("the end of Postfix's processes", STOP_LIMIT, is_gone);
            }
        }
    }
}

/// Writes a file that looks as if nobody had written to it for a minute: programs of Postfix wait for seconds where one was
/// just written, in case somebody still writes.
fn write_settled(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    let written = fs::File::options().append(true).open(path).unwrap();
    written.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
}

/// Files in and below a directory.
fn collect(directory: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if !path.is_dir() {
            found.push(path);
        } else if depth > 0 {
            collect(&path, depth - 1, found);
        }
    }
}

/// Where Postfix's daemons are.
fn daemons() -> PathBuf {
    let output = Command::new("/usr/sbin/postconf").args(["-dh", "daemon_directory"]).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn account(name: &str) -> u32 {
    nix::unistd::User::from_name(name).unwrap().expect("the package made this account").uid.as_raw()
}

fn group(name: &str) -> u32 {
    nix::unistd::Group::from_name(name).unwrap().expect("the package made this group").gid.as_raw()
}

/// Ports that nobody uses, and that no other test is given while this one runs: Postfix shares a port that another one
/// listens on (SO_REUSEPORT), and each would get some of the other's mail.
fn free_ports(count: usize) -> Vec<u16> {
    static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let take = |listener: TcpListener| {
        let port = listener.local_addr().unwrap().port();
        // A name that goes with the process that holds it.
        let name = SocketAddr::from_abstract_name(format!("lastmile-tests-port-{port}")).unwrap();
        let claim = UnixListener::bind_addr(&name).ok()?;
        TAKEN.lock().unwrap().push(claim);
        Some(port)
    };
    std::iter::repeat_with(any).filter_map(take).take(count).collect()
}
