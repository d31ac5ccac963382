//! An agent with a queue directory and a configuration of its own.
//!
//! - Owns: the temporary site, the ways in (sendmail, job lines, bare files), the agent's start and its log.
//! - Leaves to others: the servers that the mail goes to.
//! - Always true: nothing of the machine's own configuration or environment reaches the program.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Process, look_for, tied_to_this_thread, wait_for};

/// The program under test.
pub const LASTMILE: &str = env!("CARGO_BIN_EXE_lastmile");
/// How long anything may take that ought to be immediate. Generous: the machine may be busy.
pub const SOON: Duration = Duration::from_secs(20);
/// How long a command that is not the agent may run.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A directory with a configuration, a queue and a log.
pub struct Site {
    directory: TempDir,
}

impl Site {
    /// A new site. `config` is added to what every site needs; it starts with top-level keys.
    pub fn new(config: &str) -> Self {
        Self::within(&tempfile::env::temp_dir(), config)
    }

    /// A new site that does not wait for a disk, if there is a file system in memory with room: for measurements that
    /// a neighbour's disk traffic would spoil.
    pub fn in_memory(config: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let has_room = |free: rustix::fs::StatVfs| free.f_bavail * free.f_frsize > 256 << 20;
        if rustix::fs::statvfs(memory).is_ok_and(has_room) {
            Self::within(memory, config)
        } else {
            Self::new(config)
        }
    }

    fn within(parent: &Path, config: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("lastmile-").tempdir_in(parent).unwrap();
        // Another user has to reach the queue in some tests; what is private has its own modes.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let site = Self { directory };
        site.configure(config);
        site
    }

    /// Writes the configuration anew; an agent takes it up when it starts or is told to.
    pub fn configure(&self, config: &str) {
        // Root has to say that it means to stay root.
        let user = if rustix::process::getuid().is_root() { "user = \"root\"\n" } else { "" };
        let text = format!(
            "queue_directory = \"{}\"\nmyhostname = \"mx.example.org\"\n{user}{config}\n",
            self.queue().display()
        );
        fs::write(self.config(), text).unwrap();
    }

    /// The site's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path().join("lastmile.toml")
    }

    /// The queue directory.
    pub fn queue(&self) -> PathBuf {
        self.path().join("queue")
    }

    /// Everything that every agent of this site has written to standard error.
    pub fn log(&self) -> String {
        let mut octets = Vec::new();
        if let Ok(mut file) = File::open(self.path().join("agent.log")) {
            file.read_to_end(&mut octets).unwrap();
        }
        String::from_utf8_lossy(&octets).into_owned()
    }

    /// Waits for a line of the log that holds all of `parts`, and returns it.
    #[track_caller]
    pub fn wait_for_line(&self, parts: &[&str], limit: Duration) -> String {
        let what = format!("a log line with {parts:?} in {}", self.path().display());
        wait_or_show(&what, limit, || self.log(), || self.lines_with(parts).into_iter().next())
    }

    /// Waits until `count` lines of the log hold all of `parts`, and returns all of them.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize, parts: &[&str], limit: Duration) -> Vec<String> {
        let what = format!("{count} log lines with {parts:?}");
        let enough = || Some(self.lines_with(parts)).filter(|lines| lines.len() >= count);
        wait_or_show(&what, limit, || self.log(), enough)
    }

    /// The complete lines of the log that hold all of `parts`.
    pub fn lines_with(&self, parts: &[&str]) -> Vec<String> {
        let log = self.log();
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
        complete.lines().filter(fits).map(str::to_owned).collect()
    }

    /// A `lastmile` command with this site's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tied_to_this_thread("KILL", LASTMILE);
        command.args(arguments);
        self.isolate(&mut command);
        command
    }

    /// Nothing of the environment reaches the program but what it needs to run.
    fn isolate(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        command.env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8").env("LASTMILE_CONFIG", self.config());
        command.current_dir("/");
    }

    /// Runs a command to its end, with `input` on its standard input.
    #[track_caller]
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        run(&mut self.command(arguments), input)
    }

    /// Queues `content` by the sendmail command; the test fails where that does.
    #[track_caller]
    pub fn sendmail(&self, arguments: &[&str], content: &[u8]) {
        let output = self.run(&[&["sendmail"], arguments].concat(), content);
        assert!(output.status.success(), "sendmail {arguments:?}: {output:?}");
    }

    /// Drops a bare message into `incoming/`, as software that injects mail does, and returns its path in the queue.
    pub fn drop_message(&self, name: &str, content: &[u8]) -> String {
        let incoming = self.queue().join("incoming");
        let unfinished = incoming.join(format!(".{name}"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&unfinished).unwrap();
        file.write_all(content).unwrap();
        fs::rename(unfinished, incoming.join(name)).unwrap();
        file.sync_all().unwrap();
        format!("incoming/{name}")
    }

    /// Writes a job line: LF, object, LF.
    pub fn write_job(&self, job: &Value) {
        self.write_to_fifo(format!("\n{job}\n").as_bytes());
    }

    /// Writes octets to the FIFO as they are. What does not fit waits, with a limit, for the agent to read on.
    #[track_caller]
    pub fn write_to_fifo(&self, octets: &[u8]) {
        let path = self.queue().join("jobs");
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo(), "{} is no FIFO", path.display());
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut fifo = OpenOptions::new().write(true).custom_flags(nonblocking).open(&path).unwrap();
        let mut rest = octets;
        while !rest.is_empty() {
            let written = wait_for("room in the FIFO", SOON, || match fifo.write(rest) {
                Ok(written) => Some(written),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                Err(error) => panic!("cannot write the job line: {error}"),
            });
            rest = &rest[written..];
        }
    }

    /// What `queue list --json` shows: one object for each message.
    #[track_caller]
    pub fn queued(&self) -> Vec<Value> {
        let output = self.run(&["queue", "list", "--json"], b"");
        assert!(output.status.success(), "queue list: {output:?}");
        let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
        let values: Vec<_> = values.collect::<Result<_, _>>().unwrap_or_else(|error| {
            panic!("queue list --json wrote no JSON: {error}: {output:?}");
        });
        // One array, or one object a line.
        match <[Value; 1]>::try_from(values) {
            Ok([Value::Array(messages)]) => messages,
            Ok(one) => one.into(),
            Err(many) => many,
        }
    }

    /// Waits until the queue is empty: for the list, and on the disk.
    #[track_caller]
    pub fn wait_until_empty(&self, limit: Duration) {
        let show = || format!("{:?}\n{}", self.files(), self.log());
        wait_or_show("an empty queue", limit, show, || self.files().is_empty().then_some(()));
        assert_eq!(self.queued(), Vec::<Value>::new());
    }

    /// The files in the queue's directories, as `active/ID`, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for directory in ["incoming", "active", "deferred", "hold", "corrupt", "tmp"] {
            // A directory that the agent has not made yet holds nothing.
            let Ok(entries) = fs::read_dir(self.queue().join(directory)) else { continue };
            files.extend(
                entries.flatten().map(|entry| format!("{directory}/{}", entry.file_name().to_string_lossy())),
            );
        }
        files.sort();
        files
    }

    /// The command that runs the agent in the foreground, its log appended to the site's.
    fn agent_command(&self) -> Command {
        let log = OpenOptions::new().append(true).create(true).open(self.path().join("agent.log")).unwrap();
        let mut command = tied_to_this_thread("KILL", LASTMILE);
        command.arg("agent").arg("-c").arg(self.config());
        self.isolate(&mut command);
        command.env_remove("LASTMILE_CONFIG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts an agent and waits until it has told its service manager that it is ready.
    #[track_caller]
    pub fn start_agent(&self) -> Agent {
        self.start_agent_by(self.agent_command())
    }

    /// As [`Site::start_agent`], with more in its environment.
    #[track_caller]
    pub fn start_agent_with(&self, environment: &[(&str, &str)]) -> Agent {
        let mut command = self.agent_command();
        command.envs(environment.iter().copied());
        self.start_agent_by(command)
    }

    /// Starts an agent and waits for nothing.
    #[track_caller]
    pub fn begin_agent(&self) -> Agent {
        self.begin_agent_by(self.agent_command())
    }

    /// As [`Site::start_agent`], with the log through a pipe: a limit to the size of files does not reach it there.
    #[track_caller]
    pub fn start_agent_with_piped_log(&self) -> (Agent, Process) {
        let log = OpenOptions::new().append(true).create(true).open(self.path().join("agent.log")).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut cat = Command::new("cat");
        let cat = Process::start("the log's writer", cat.stdin(reader).stdout(log));
        let mut command = self.agent_command();
        command.stderr(writer);
        (self.start_agent_by(command), cat)
    }

    #[track_caller]
    fn start_agent_by(&self, command: Command) -> Agent {
        let mut agent = self.begin_agent_by(command);
        wait_or_show("READY=1 from the agent", SOON, || self.log(), || agent.is_ready());
        agent
    }

    /// A pipe that the command holds would keep its reader waiting: so it goes here.
    #[track_caller]
    fn begin_agent_by(&self, mut command: Command) -> Agent {
        let socket = self.path().join("notify");
        // Left over from the agent before.
        let _ = fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_nonblocking(true).unwrap();
        let process = Process::start("the agent", command.env("NOTIFY_SOCKET", &socket));
        Agent { process, manager }
    }

    /// Starts an agent that ought to refuse: how it ended, and what it said.
    #[track_caller]
    pub fn start_agent_in_vain(&self) -> (ExitStatus, String) {
        let output = run(&mut self.agent_command(), b"");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A running agent.
pub struct Agent {
    process: Process,
    manager: UnixDatagram,
}

impl Agent {
    /// Whether it has said so since the last time it was asked. The test fails where it has ended instead.
    fn is_ready(&mut self) -> Option<()> {
        if let Some(status) = self.process.ended() {
            panic!("the agent ended while it started: {status}");
        }
        self.was_told("READY=1")
    }

    /// Looks for a word among what the agent has told its service manager.
    pub fn was_told(&self, word: &str) -> Option<()> {
        let mut octets = [0; 4096];
        while let Ok(length) = self.manager.recv(&mut octets) {
            let text = String::from_utf8_lossy(&octets[..length]);
            if text.lines().any(|line| line == word) {
                return Some(());
            }
        }
        None
    }

    /// The process ID.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The time that it has computed so far, in all of its threads.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, in parentheses, may hold anything; utime and stime are the 14th and 15th word (proc(5)), in
        // hundredths of a second.
        let words: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = words[11..13].iter().map(|word| word.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait(limit)
    }

    /// SIGTERM; it must end by itself, with success.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait(SOON);
        assert!(status.success(), "the agent ended with {status}");
    }

    /// SIGKILL.
    #[track_caller]
    pub fn kill(self) {
        self.process.kill();
    }
}

/// As [`wait_for`], and shows what `show` tells where it was in vain.
#[track_caller]
fn wait_or_show<T>(
    what: &str,
    limit: Duration,
    show: impl Fn() -> String,
    look: impl FnMut() -> Option<T>,
) -> T {
    match look_for(limit, look) {
        Some(found) => found,
        None => panic!("waited {limit:?} in vain for {what}; there is:\n{}", show()),
    }
}

/// Runs a command to its end, with `input` on its standard input. A command that does not end fails the test.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let (input, output) =
        (tempfile_with(input), (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()));
    command.stdin(input).stdout(output.0.try_clone().unwrap()).stderr(output.1.try_clone().unwrap());
    let status = Process::start(&format!("{command:?}"), command).wait(COMMAND_LIMIT);
    Output { status, stdout: contents(output.0), stderr: contents(output.1) }
}

fn tempfile_with(octets: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(octets).unwrap();
    file.rewind().unwrap();
    file
}

fn contents(mut file: File) -> Vec<u8> {
    let mut octets = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut octets).unwrap();
    octets
}
