//! `lastmile-lmtp` and `lastmile-smtp`: a delivery agent under Postfix's master(8).
//!
//! - Owns: the way from the name of the program to a supervisor or its worker, the log until main.cf is read, the exit
//!   code.
//! - Leaves to others: what a supervisor does (`postfix::supervisor`), and the worker's mail (`agent::postfix`).
//! - Always true: descriptors are taken before anything is opened, and whatever ends the program before its time is in
//!   the mail log as `fatal`, for its standard error is nowhere.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::agent;
use crate::agent::log::{Facility, MailLog, MailLogTarget, OpenMailLog};
use crate::postfix::environment::Environment;
use crate::postfix::options::{Options, Role};
use crate::postfix::service::Started;
use crate::postfix::supervisor::{End, Supervisor};
use crate::spool;

/// Runs the program. `command` is its whole command line.
pub fn run(role: Role, command: &[OsString]) -> ExitCode {
    let mut log = FirstLog::of(&role);
    match begin(role, command, &mut log) {
        Ok(code) => {
            log::logger().flush();
            code
        }
        Err(reason) => {
            log.fatal(&reason);
            // What Postfix's own programs end with.
            ExitCode::FAILURE
        }
    }
}

/// Becomes what it was started as. The error is one sentence.
fn begin(role: Role, command: &[OsString], log: &mut FirstLog) -> Result<ExitCode, String> {
    let environment = Environment::of_this_process();
    log.learn(&environment);
    let options = Options::parse(command.get(1..).unwrap_or_default()).map_err(in_words)?;
    log.settings.to_stderr = options.log_to_stderr;
    log.is_verbose |= options.verbose > 0;
    if environment.supervisor.is_some() || options.one_client {
        work(role, options, environment, log).map(|()| ExitCode::SUCCESS)
    } else {
        supervise(command, &options)
    }
}

fn supervise(command: &[OsString], options: &Options) -> Result<ExitCode, String> {
    let supervisor = Supervisor::start(command, options).map_err(in_words)?;
    match supervisor.wait().map_err(in_words)? {
        End::Worker { pid, status } if status.code().is_none() => Err(format!(
            "the worker, process {pid}, has ended with {status}: mail that it was delivering stays in the queue, and \
             the next connection starts another"
        )),
        // It has said why.
        End::Worker { status, .. } if !status.success() => Ok(ExitCode::FAILURE),
        End::Worker { .. } | End::MasterHasClosed => Ok(ExitCode::SUCCESS),
    }
}

fn work(role: Role, options: Options, environment: Environment, log: &mut FirstLog) -> Result<(), String> {
    let started = Started::take(role, options, environment).map_err(in_words)?;
    spool::survive_file_size_limit().map_err(|error| format!("SIGXFSZ cannot be ignored: {error}"))?;
    let log = log.open().map_err(|error| format!("the log thread cannot be started: {error}"))?;
    if started.options.debugger {
        log::warn!("-D has no effect: attach a debugger to process {}", std::process::id());
    }
    agent::postfix::run(started, &log).map_err(in_words)
}

fn in_words(error: impl std::error::Error) -> String {
    error.to_string()
}

/// The log as far as it is known before main.cf is read.
struct FirstLog {
    settings: MailLog,
    is_verbose: bool,
    is_open: bool,
}

impl FirstLog {
    /// What Postfix's programs do without a word in the environment.
    fn of(role: &Role) -> Self {
        let settings = MailLog {
            syslog_name: "postfix".to_owned(),
            process: role.process.clone(),
            target: MailLogTarget::Syslog(Facility::MAIL),
            to_stderr: false,
        };
        Self { settings, is_verbose: false, is_open: false }
    }

    fn learn(&mut self, environment: &Environment) {
        self.settings.syslog_name.clone_from(&environment.log_tag);
        self.is_verbose = environment.is_verbose;
        if let Some(socket) = &environment.postlog_socket {
            let host = environment.postlog_host.clone();
            let host =
                host.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
            self.settings.target = MailLogTarget::Postlog { socket: socket.clone(), host };
        }
    }

    fn open(&mut self) -> io::Result<OpenMailLog> {
        self.is_open = true;
        agent::log::start_mail_log(&self.settings, self.is_verbose)
    }

    /// Tells the mail log why the program ends, and whoever has started it by hand.
    fn fatal(&mut self, reason: &str) {
        // A log that cannot be opened leaves standard error, below.
        let _ = if self.is_open { Ok(()) } else { self.open().map(drop) };
        agent::log::fatal(reason);
        if !self.settings.to_stderr {
            // Nobody reads it where master(8) has started us.
            let _ = writeln!(io::stderr(), "{}: fatal: {reason}", self.settings.process);
        }
    }
}
