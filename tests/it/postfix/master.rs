//! A master(8) in a test: it starts one service as the real one does.
//!
//! - Owns: the queue directory, main.cf and a postconf(1) for it, the inherited descriptors and environment, the postlog
//!   socket, finding the worker.
//! - Leaves to others: what is expected.
//! - Always true: no process outlives its test.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::common::agent::{LASTMILE, SOON};
use crate::common::process::{Process, look_for, tied_to_this_thread, wait_for};

/// Puts the descriptors that a shell is given in their places, and becomes the service. `$1` is where standard input
/// of the service comes from.
const PLACE_DESCRIPTORS: &str = "mkfifo flow-control && exec 3<>flow-control 4<>flow-control 5<&0 6<&1 && \
                                 rm flow-control && exec </dev/null >/dev/null && exec \"$0\" \"$@\"";
/// `GENERATION`: 60, in octal.
pub const GENERATION: &str = "74";

/// A master of one service.
pub struct Master {
    directory: TempDir,
    listener: UnixListener,
    /// Our end and the service's, which the real one keeps too.
    status: Option<(UnixStream, UnixStream)>,
    log: Vec<String>,
    lines: Receiver<String>,
}

/// What every service is told; the log goes to the socket that the test reads.
const MAIN_CF: &str = "mail_version = 3.7.11\nmyhostname = mx.example.org\nsyslog_name = postfix-test\n\
                       maillog_file = /var/log/unused\n";

impl Master {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more lines in main.cf.
    pub fn with(main_cf: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("lastmile-").tempdir().unwrap();
        let queue = directory.path().join("queue");
        for name in ["private", "public", "active", "pid"] {
            fs::create_dir_all(queue.join(name)).unwrap();
        }
        for name in ["lastmile-lmtp", "lastmile-smtp"] {
            symlink(LASTMILE, directory.path().join(name)).unwrap();
        }
        fs::create_dir(directory.path().join("etc")).unwrap();
        let (commands, file) = (directory.path().display(), directory.path().join("etc/main.cf"));
        let places = format!("queue_directory = {}\ncommand_directory = {commands}\n", queue.display());
        fs::write(&file, format!("{places}{MAIN_CF}{main_cf}\n")).unwrap();
        // main.cf is what postconf(1) would make of it.
        let postconf = directory.path().join("postconf");
        fs::write(&postconf, format!("#!/bin/sh\nexec cat {}\n", file.display())).unwrap();
        fs::set_permissions(&postconf, fs::Permissions::from_mode(0o755)).unwrap();
        let postlog = UnixDatagram::bind(queue.join("public/postlog")).unwrap();
        let (out, lines) = channel();
        thread::spawn(move || read_log(&postlog, &out));
        let listener = UnixListener::bind(queue.join("private/lastmile")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let status = Some(UnixStream::pair().unwrap());
        Self { directory, listener, status, log: Vec::new(), lines }
    }

    pub fn queue(&self) -> PathBuf {
        self.directory.path().join("queue")
    }

    /// The program under one of its names.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the real one leaves of its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("MAIL_CONFIG", self.directory.path().join("etc").display().to_string()),
            ("MAIL_LOGTAG", "postfix-test".to_owned()),
            ("LANG", "C".to_owned()),
            ("POSTLOG_SERVICE", self.queue().join("public/postlog").display().to_string()),
            ("POSTLOG_HOSTNAME", "mx.example.org".to_owned()),
            ("GENERATION", GENERATION.to_owned()),
        ]
    }

    /// The command that starts the service. Its standard error is a file here.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let errors =
            OpenOptions::new().append(true).create(true).open(self.directory.path().join("stderr")).unwrap();
        let (_, theirs) = self.status.as_ref().unwrap();
        let mut command = tied_to_this_thread("KILL", "sh");
        command.args(["-c", PLACE_DESCRIPTORS]).arg(self.program(name)).args(arguments);
        command.env_clear().envs(self.environment()).env("PATH", "/usr/bin:/bin").current_dir(self.queue());
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap()));
        command.stdout(OwnedFd::from(self.listener.try_clone().unwrap())).stderr(errors);
        command
    }

    /// Starts the service and waits for its worker.
    #[track_caller]
    pub fn start(&mut self, arguments: &[&str]) -> Running {
        let command = self.command("lastmile-lmtp", &[&["-n", "lastmile", "-t", "unix"], arguments].concat());
        self.start_by(command)
    }

    /// The same, with everything in the log: when it is ready, too.
    #[track_caller]
    pub fn start_verbose(&mut self) -> Running {
        let running = self.start(&["-v"]);
        self.wait_for_line(&["started: "]);
        running
    }

    #[track_caller]
    pub fn start_by(&mut self, mut command: Command) -> Running {
        let supervisor = Process::start("the service", &mut command);
        drop(command);
        let pid = supervisor.pid();
        let worker = look_for(SOON, || Worker::of(pid));
        let worker =
            worker.unwrap_or_else(|| panic!("there is no worker:\n{}\n{}", self.log(), self.stderr()));
        Running { supervisor, worker }
    }

    /// Starts a service that ought to refuse: how it ended, and what it said in the mail log.
    #[track_caller]
    pub fn start_in_vain(&mut self, mut command: Command) -> (ExitStatus, String) {
        let mut process = Process::start("the service", &mut command);
        let status = process.wait(SOON);
        (status, self.log())
    }

    /// A client connects, as qmgr(8) does.
    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(self.queue().join("private/lastmile")).unwrap()
    }

    /// What the service has told us, once it is `octets` long.
    #[track_caller]
    pub fn told(&self, octets: usize) -> Vec<u8> {
        let (ours, _) = self.status.as_ref().unwrap();
        ours.set_read_timeout(Some(SOON)).unwrap();
        let mut told = vec![0; octets];
        (&*ours).read_exact(&mut told).unwrap();
        told
    }

    /// Whether there is more that the service has told us.
    pub fn is_told_more(&self) -> bool {
        let (ours, _) = self.status.as_ref().unwrap();
        let mut set = [PollFd::new(ours, PollFlags::IN)];
        poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 200_000_000 })).unwrap() > 0
    }

    /// As at a reload: processes of the old generation see the end of file.
    pub fn close_status(&mut self) {
        self.status = None;
    }

    /// The mail log up to now.
    pub fn log(&mut self) -> String {
        self.log.extend(self.lines.try_iter());
        self.log.join("\n")
    }

    /// Waits for a line of the mail log that holds all of `parts`.
    #[track_caller]
    pub fn wait_for_line(&mut self, parts: &[&str]) -> String {
        let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
        let found = look_for(SOON, || self.log().lines().find(fits).map(str::to_owned));
        found.unwrap_or_else(|| panic!("no line with {parts:?}:\n{}\n{}", self.log(), self.stderr()))
    }

    /// What the service has written to standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }

    /// The inode of the listening socket.
    pub fn listening_inode(&self) -> String {
        format!("socket:[{}]", rustix::fs::fstat(&self.listener).unwrap().st_ino)
    }

    /// The inode of the service's end of the status channel.
    pub fn status_inode(&self) -> String {
        format!("socket:[{}]", rustix::fs::fstat(&self.status.as_ref().unwrap().1).unwrap().st_ino)
    }
}

/// Reads what comes at once: the socket has room for few lines, and the service drops what has none.
fn read_log(postlog: &UnixDatagram, lines: &Sender<String>) {
    let mut octets = [0; 8192];
    while let Ok(length) = postlog.recv(&mut octets) {
        // An empty line is the test's own, which says that it has ended.
        if length == 0 || lines.send(String::from_utf8_lossy(&octets[..length]).into_owned()).is_err() {
            return;
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // The thread also ends with the process.
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.send_to(b"", self.queue().join("public/postlog"));
        }
    }
}

/// A service that runs.
pub struct Running {
    pub supervisor: Process,
    pub worker: Worker,
}

/// A worker. It is not our child; dropping it kills it.
pub struct Worker {
    pid: Pid,
    process: OwnedFd,
}

impl Worker {
    /// The child of `supervisor` that has become the program.
    fn of(supervisor: Pid) -> Option<Self> {
        let pid = children(supervisor).into_iter().next()?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let is_ready = status_field(pid, "Name:")?.starts_with("lastmile-");
        is_ready.then(|| Self { pid, process })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.process, signal).unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut set = [PollFd::from_borrowed_fd(self.process.as_fd(), PollFlags::IN)];
        poll(&mut set, Some(&Timespec::default())).unwrap() > 0
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&self) {
        wait_for("the end of the worker", SOON, || self.has_ended().then_some(()));
    }

    /// Whether it goes on, also after a while.
    pub fn lives_on(&self) -> bool {
        std::thread::sleep(Duration::from_millis(100));
        !self.has_ended()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended cannot be sent anything.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero().to_string();
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| status_field(*pid, "PPid:").is_some_and(|found| found == parent)).collect()
}

/// A field of /proc/PID/status; `None`: there is no such process (any more).
pub fn status_field(pid: Pid, field: &str) -> Option<String> {
    let status = fs::read_to_string(of_process(pid, "status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A file below /proc/PID.
pub fn of_process(pid: Pid, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join(name)
}

/// What the descriptors of a process are.
pub fn descriptors(pid: Pid) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(of_process(pid, "fd")).unwrap().flatten();
    let link = |path: PathBuf| Some(fs::read_link(path).ok()?.to_string_lossy().into_owned());
    entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, link(entry.path())?)))
        .collect()
}

/// The signal that a process was ended by.
pub fn signal_of(status: ExitStatus) -> Option<i32> {
    status.signal()
}

/// Standard output and error of a command go to files; `sh` is not needed.
pub fn run_by_hand(mut command: Command) -> (ExitStatus, String) {
    let mut errors = tempfile::tempfile().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone().unwrap());
    let status = Process::start("the program", &mut command).wait(SOON);
    (status, contents(&mut errors))
}

fn contents(file: &mut File) -> String {
    let mut text = String::new();
    std::io::Seek::rewind(file).unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}
