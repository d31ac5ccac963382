//! The commands, one file each; here is which of them is meant.
//!
//! - Owns: the command line but for sendmail's and those of Postfix's services, exit codes (sysexits(3)).
//! - Leaves to others: everything a command does.

pub mod agent;
pub mod check;
mod control_client;
pub mod demo;
mod failure;
mod identity;
pub mod postfix;
pub mod queue;
pub mod sendmail;
pub mod sink;
pub mod status;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Sources;
use crate::postfix::options;
use sendmail::Role;

/// sysexits(3): wrong use of a command.
pub const EX_USAGE: u8 = 64;
/// sysexits(3): a service is not there.
pub const EX_UNAVAILABLE: u8 = 69;
/// sysexits(3): something went wrong inside.
pub const EX_SOFTWARE: u8 = 70;
/// sysexits(3): our own set-up failed.
pub const EX_OSERR: u8 = 71;
/// sysexits(3): reading or writing failed.
pub const EX_IOERR: u8 = 74;
/// sysexits(3): try again later.
pub const EX_TEMPFAIL: u8 = 75;
/// sysexits(3): the caller may not do this.
pub const EX_NOPERM: u8 = 77;
/// sysexits(3): the configuration is wrong.
pub const EX_CONFIG: u8 = 78;

/// Hands mail to the server that keeps the mailboxes, over LMTP or ESMTP.
#[derive(Parser)]
#[command(name = "lastmile", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the delivery agent in the foreground.
    Agent(Configured),
    /// Validate the configuration and show where each value comes from.
    Check {
        #[command(flatten)]
        configured: Configured,
        /// Also try every destination that the configuration names.
        #[arg(long)]
        probe: bool,
    },
    /// Look at the queue: list, show, flush, hold, release, delete or requeue messages.
    Queue(queue::Options),
    /// Queue a message from standard input, as sendmail(1) does.
    #[command(disable_help_flag = true)]
    Sendmail {
        /// sendmail options and recipients.
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        arguments: Vec<OsString>,
    },
    /// Show the main job: an agent, a server and some messages in a temporary directory.
    Demo,
    /// Run an LMTP or ESMTP server for tests and demonstrations.
    Sink(sink::Options),
    /// Show what the running agent is doing.
    Status(status::Options),
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug)]
pub struct Configured {
    /// Configuration file, instead of /etc/lastmile/lastmile.toml or $LASTMILE_CONFIG.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Overrides one value, as in -o transport.lmtp.connect_timeout=5s; may be repeated.
    #[arg(short = 'o', long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl Configured {
    /// These, the environment and the default file.
    pub fn sources(self) -> Sources {
        Sources::from_process(self.file, self.overrides)
    }
}

/// The command line that clap knows, for those who compare it with the manual. sendmail's options are not in it.
pub fn command() -> clap::Command {
    <CommandLine as clap::CommandFactory>::command()
}

/// What the program is under the name that it was called by, such as `/usr/sbin/sendmail`.
fn role_of(name: &OsStr) -> Option<Role> {
    Role::named(Path::new(name).file_name()?)
}

/// Finds out which command is meant, and runs it.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let sendmail = |role, rest| sendmail::run(role, rest, &Sources::from_process(None, Vec::new()));
    // sendmail's options are not for clap: `-t` and `-f a@b` have been spelled in every way for forty years. Neither are
    // master(8)'s; and its services take over their descriptors before anything is opened.
    match &arguments[..] {
        [name, ..] if let Some(role) = options::Role::named(name) => return postfix::run(role, &arguments),
        [name, rest @ ..] if let Some(role) = role_of(name) => return sendmail(role, rest),
        [_, word, rest @ ..] if word == "sendmail" => return sendmail(Role::Sendmail, rest),
        _ => {}
    }
    let parsed = match CommandLine::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are no errors; where even they cannot be printed nobody is left to be told.
            let _ = error.print();
            return if error.use_stderr() { EX_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match parsed.command {
        Command::Agent(configured) => agent::run(configured.sources()),
        Command::Check { configured, probe } => check::run(&configured.sources(), probe),
        Command::Demo => demo::run(),
        Command::Queue(options) => queue::run(options),
        Command::Sendmail { arguments } => sendmail(Role::Sendmail, &arguments),
        Command::Sink(options) => sink::run(options),
        Command::Status(options) => status::run(options),
    }
}
