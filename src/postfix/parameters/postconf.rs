//! postconf(1): the values of main.cf as Postfix itself reads them.
//!
//! - Owns: finding the command, running it once within a deadline, and reading what it prints.
//! - Leaves to others: which parameters are asked for, and what their values mean (`settings`).
//! - Always true: the command is run with an empty environment and without a shell; its output has a bounded size; a
//!   child that was started has been waited for.
//!
//! Parameters of our own have no meaning to postconf, and it prints only what some program uses or another parameter
//! refers to. So one parameter that no delivery agent reads is given a value that refers to all of them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::main_cf;
use super::values::Values;

/// How long postconf may take. It needs about 10 ms, and more only on a machine that is overloaded.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Octets that are read of its output, and of its complaints.
const OUTPUT_MAX: usize = 1 << 20;
/// Where the command is if main.cf does not tell.
const USUAL_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// The parameter whose value is replaced so that ours are known: the greeting of smtpd(8).
const CARRIER: &str = "smtpd_banner";
/// How often a child that has closed its output is asked whether it has ended.
const PATIENCE: Duration = Duration::from_millis(2);

/// Where parameters come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The directory of main.cf: `$MAIL_CONFIG`, else `/etc/postfix`.
    pub config_directory: PathBuf,
    /// What `-o` said on the service's command line, in order.
    pub overrides: Vec<(String, String)>,
}

impl Source {
    /// The text of main.cf.
    pub(super) fn main_cf(&self) -> Result<String, PostconfError> {
        let path = self.config_directory.join("main.cf");
        let text = std::fs::read(&path).map_err(|error| Why::MainCf { path, error })?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Why there are no values. The words say what happens now.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PostconfError(#[from] Why);

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{} cannot be read, so that nothing is known of the configuration: {error}", path.display())]
    MainCf { path: PathBuf, error: std::io::Error },
    #[error(
        "there is no postconf command in {}; set command_directory in {}", listed(directories), main_cf.display()
    )]
    NotFound { directories: Vec<PathBuf>, main_cf: PathBuf },
    #[error("{} cannot be run, so that nothing is known of the configuration: {error}", command.display())]
    Run { command: PathBuf, error: std::io::Error },
    #[error("{} could not read the configuration in {}: {said}", command.display(), directory.display())]
    Failed { command: PathBuf, directory: PathBuf, said: String },
    #[error("-o {name}: an override must have a name, and no line break in its value")]
    Override { name: String },
}

fn listed(directories: &[PathBuf]) -> String {
    let shown: Vec<_> = directories.iter().map(|directory| directory.display().to_string()).collect();
    shown.join(" or ")
}

/// Asks postconf for the values of `names`, expanded; `own` are parameters that Postfix does not know. What this
/// release has not, and what of our own nobody has set, is left out.
pub fn ask<'a>(
    source: &Source,
    names: impl IntoIterator<Item = &'a str>,
    own: &[&'a str],
) -> Result<Values, PostconfError> {
    let bad = |(name, value): &&(String, String)| name.is_empty() || value.contains(['\n', '\0']);
    if let Some((name, _)) = source.overrides.iter().find(bad) {
        return Err(Why::Override { name: name.clone() }.into());
    }
    let command = find(source)?;
    let mut arguments: Vec<OsString> =
        ["-c".into(), source.config_directory.clone().into(), "-x".into()].into();
    for (name, value) in &source.overrides {
        arguments.extend(["-o".into(), format!("{name}={value}").into()]);
    }
    arguments.extend(["-o".into(), carrier(own).into()]);
    arguments.extend(names.into_iter().chain(own.iter().copied()).map(Into::into));
    let run = Run { command: &command, deadline: Instant::now() + TIME_LIMIT };
    let (status, output, complaints) = run.run(&arguments)?;
    if status.success() {
        return Ok(Values::printed(&String::from_utf8_lossy(&output)));
    }
    let said = fatal_line(&String::from_utf8_lossy(&complaints), status);
    Err(Why::Failed { command, directory: source.config_directory.clone(), said }.into())
}

/// A value that refers to all of our parameters.
fn carrier(own: &[&str]) -> String {
    let references: String = own.iter().map(|name| format!("${{{name}}}")).collect();
    format!("{CARRIER}={references}")
}

/// What postconf said before it gave up: the last line that is no warning, without its own name.
fn fatal_line(complaints: &str, status: ExitStatus) -> String {
    let fatal = complaints.lines().filter_map(|line| line.split_once("fatal: ")).next_back();
    match fatal.map(|(_, what)| what).or_else(|| complaints.lines().next_back()) {
        Some(line) => line.chars().take(500).collect(),
        None => format!("it ended with {status} and did not say why"),
    }
}

/// Where postconf is. PATH is not set below master(8), and what main.cf says of it must be known before postconf can be
/// asked; it is a plain path wherever Postfix's own installer wrote it.
fn find(source: &Source) -> Result<PathBuf, PostconfError> {
    let overridden = source.overrides.iter().rev().find(|(name, _)| name == "command_directory");
    let configured = match overridden {
        Some((_, directory)) => Some(directory.clone()),
        None => main_cf::literal_value(&source.main_cf()?, "command_directory"),
    };
    let directories: Vec<PathBuf> = match configured {
        Some(directory) => vec![directory.into()],
        None => USUAL_DIRECTORIES.iter().map(Into::into).collect(),
    };
    let candidates = directories.iter().map(|directory| directory.join("postconf"));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    let main_cf = source.config_directory.join("main.cf");
    found.ok_or_else(|| Why::NotFound { directories, main_cf }.into())
}

/// One run of a command.
struct Run<'a> {
    command: &'a Path,
    deadline: Instant,
}

impl Run<'_> {
    fn error(&self, error: impl Into<std::io::Error>) -> Why {
        Why::Run { command: self.command.to_owned(), error: error.into() }
    }

    /// Runs the command to its end; what it wrote to its two outputs.
    fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Why> {
        let mut command = Command::new(self.command);
        command.args(arguments).env_clear().env("LANG", "C").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| self.error(error))?;
        let outcome = self.attend(&mut child);
        if outcome.is_err() {
            // Both can fail only because it has ended, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        outcome
    }

    fn attend(&self, child: &mut Child) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Why> {
        let output = child.stdout.take().map(|pipe| Output::new(OwnedFd::from(pipe)));
        let complaints = child.stderr.take().map(|pipe| Output::new(OwnedFd::from(pipe)));
        let mut outputs: Vec<_> = output.into_iter().chain(complaints).collect();
        while outputs.iter().any(|output| output.pipe.is_some()) {
            self.read_some(&mut outputs)?;
        }
        // Outputs are closed, so it ends now, unless somebody stopped it.
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|error| self.error(error))? {
                break status;
            }
            self.time_left()?;
            std::thread::sleep(PATIENCE);
        };
        let mut texts = outputs.into_iter().map(|output| output.text);
        Ok((status, texts.next().unwrap_or_default(), texts.next().unwrap_or_default()))
    }

    fn time_left(&self) -> Result<Timespec, Why> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.error(Errno::TIMEDOUT));
        }
        Timespec::try_from(left).map_err(|_| self.error(Errno::TIMEDOUT))
    }

    /// Waits for something on the outputs that are open, and reads it.
    fn read_some(&self, outputs: &mut [Output]) -> Result<(), Why> {
        let left = self.time_left()?;
        let open = outputs.iter().filter_map(|output| output.pipe.as_ref());
        let mut polled: Vec<_> = open.map(|pipe| PollFd::new(pipe, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(self.error(error)),
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let open = outputs.iter_mut().filter(|output| output.pipe.is_some());
        for (output, _) in open.zip(ready).filter(|(_, ready)| *ready) {
            output.read().map_err(|error| self.error(error))?;
        }
        Ok(())
    }
}

/// An output of a child, as far as it has been read.
struct Output {
    pipe: Option<File>,
    text: Vec<u8>,
}

impl Output {
    fn new(pipe: OwnedFd) -> Self {
        Self { pipe: Some(File::from(pipe)), text: Vec::new() }
    }

    fn read(&mut self) -> std::io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut some = [0; 4096];
        let length = match pipe.read(&mut some) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            length => length?,
        };
        self.text.extend_from_slice(&some[..length]);
        if length == 0 {
            self.pipe = None;
        }
        if self.text.len() > OUTPUT_MAX {
            return Err(std::io::Error::other("it prints without end"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
