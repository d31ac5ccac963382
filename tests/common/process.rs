//! Processes under test.
//!
//! - Owns: that a process ends with its test, whichever way the test ends; signals; waiting with a limit.
//! - Leaves to others: which programs, and what they do.
//! - Always true: dropping a [`Process`] leaves nothing of it behind.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks until `look` finds something, for `limit` at most.
pub fn look_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// As [`look_for`]; where it was in vain the test fails, saying what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    match look_for(limit, look) {
        Some(found) => found,
        None => panic!("waited {limit:?} in vain for {what}"),
    }
}

/// A command that the kernel ends with `signal` when the thread that started it ends: a test that is killed runs no
/// destructor. The process keeps its ID: setpriv(1) becomes the program.
pub fn tied_to_this_thread(signal: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program);
    command
}

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    /// Signal by which the program stops its own children too, and how long that may take.
    orderly: Option<(Signal, Duration)>,
}

impl Process {
    /// Starts `command`; dropping the result kills it.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name: name.to_owned(), child, orderly: None }
    }

    /// Dropping it sends `signal` first and waits for up to `limit` before it kills.
    pub fn stopped_by(mut self, signal: Signal, limit: Duration) -> Self {
        self.orderly = Some((signal, limit));
        self
    }

    /// The process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal. The process must not have been waited for.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal)
            .unwrap_or_else(|error| panic!("cannot send {signal:?} to {}: {error}", self.name));
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.name))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, limit, || self.ended())
    }

    /// SIGKILL, as the out-of-memory killer or a power cut would do it: no destructor runs, nothing is flushed.
    #[track_caller]
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        let status = self.wait(Duration::from_secs(10));
        assert_eq!(status.signal(), Some(9), "{} ended by itself before it was killed: {status}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Ok(None) = self.child.try_wait() else { return };
        if let Some((signal, limit)) = self.orderly {
            // Whatever fails here, the kill below ends it.
            let _ = kill_process(self.pid(), signal);
            look_for(limit, || self.child.try_wait().ok().flatten());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process of that ID exists.
pub fn is_running(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}
