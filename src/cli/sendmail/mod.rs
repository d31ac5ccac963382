//! `lastmile sendmail`, and the names that programs know it by: `sendmail`, `smtpc`, `mailq`, `newaliases`.
//!
//! - Owns: which of the things that a sendmail does is asked for.
//! - Leaves to others: the command line (`options`), queueing (`submission`), delivery at once (`direct`), SMTP on standard
//!   input (`smtp_server`), the queue (`cli::queue`).
//! - Always true: of a message, exit code 0 means that it is on disk, or delivered where that was asked for; any other
//!   says why not, in a line on standard error. Where SMTP is spoken the replies say that.

pub mod address_list;
mod caller;
mod direct;
mod failure;
mod input;
mod message;
mod options;
mod recipients;
pub mod smtp_server;
mod stdin;
mod submission;

use std::ffi::OsString;
use std::io::{self, BufReader, Write as _};
use std::process::ExitCode;

use super::queue;
use crate::config::{Config, Sources};
use crate::mail::{Address, Sender, shortened};

pub use failure::{Code, Failure};
pub use options::{Direct, Mode, Options, Role, UsageError};

use caller::Caller;
use input::Input;
use recipients::Recipients;
use stdin::{Stdin, Stopped};
use submission::{Submission, Submitter};

/// Octets that are read from standard input at a time.
const PIECE: usize = 16 << 10;
/// Set for callers that pass along what strangers give them.
const STRICT: &str = "LASTMILE_SENDMAIL_STRICT";
/// What `--help` prints.
const HELP: &str = "\
Queues the message on standard input, or delivers it at once. The common options:

  -f SENDER         the envelope sender, \"\" for none
  -t                recipients also stand in the message's header
  -i                a line with a lone dot does not end the message
  --lmtp SERVER     deliver now over LMTP: /path/to/socket, host or host:port
  --esmtp SERVER    deliver now over ESMTP: host or host:port
  -bs               speak SMTP on standard input and output
  -bp, -q           show the queue; try all that is in it now
  --                ends the options; recipients follow

lastmile-sendmail(1) has them all.
";

/// Runs the command with the arguments after its name.
pub fn run(role: Role, args: &[OsString], sources: &Sources) -> ExitCode {
    match strict(role).and_then(|strict| perform(role, strict, args, sources)) {
        Ok(code) => code,
        Err(failure) => {
            complain(role, &failure.to_string());
            failure.code().into()
        }
    }
}

/// Writes a line to standard error. If nobody can read it, the exit code still says the same.
fn complain(role: Role, text: &str) {
    let _ = writeln!(io::stderr(), "{}: {text}", role.name());
}

/// Whether the caller wants [`Options::parse`] to be strict.
fn strict(role: Role) -> Result<bool, Failure> {
    let value = std::env::var_os(STRICT).unwrap_or_default();
    match value.to_str() {
        Some("" | "0" | "no" | "false") => Ok(false),
        Some("1" | "yes" | "true") => Ok(true),
        _ => {
            let text = format!("{}: {STRICT} is {value:?}, and can be 1 or 0", failure::undone(role));
            Err(Failure::new(Code::Config, text))
        }
    }
}

fn perform(role: Role, strict: bool, args: &[OsString], sources: &Sources) -> Result<ExitCode, Failure> {
    let options = Options::parse(role, strict, args).map_err(|error| Failure::of_usage(role, &error))?;
    let is_to_nobody = options.recipients.is_empty() && !options.recipients_from_header;
    match &options.mode {
        Mode::Submit if is_to_nobody => {
            let text = "the message was not sent: nobody to send to: name recipients, or use -t";
            Err(Failure::new(Code::Usage, text))
        }
        Mode::Submit if let Some(direct) = &options.direct => {
            direct::deliver(role, &options, direct, sources)
        }
        Mode::Smtp => smtp_server::run(role, &options, sources),
        Mode::Submit => submit(role, &options, sources).map(|()| ExitCode::SUCCESS),
        Mode::ShowQueue => Ok(queue::mailq(sources)),
        Mode::Flush(id) => Ok(queue::flush(*id, sources)),
        Mode::RebuildAliases => check_aliases(sources),
        Mode::Help => print(HELP),
        Mode::Version => print(concat!("lastmile ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// Aliases stand in the configuration and are read at each submission: there is nothing to rebuild. But whoever runs
/// newaliases has just changed something, and wants to hear what is wrong with it.
fn check_aliases(sources: &Sources) -> Result<ExitCode, Failure> {
    match Config::load(sources) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(Code::Config, error.in_one_line())),
    }
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Somebody closed the pipe, as head(1) does: nobody is left to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(Code::Io, format!("cannot write to standard output: {error}"))),
    }
}

fn submit(role: Role, options: &Options, sources: &Sources) -> Result<(), Failure> {
    let config = Config::load(sources)?;
    let caller = Caller::find();
    let sender = sender(options, &caller, &config)?;
    let mut recipients = Recipients::new(&config, options);
    recipients.add_arguments(&options.recipients)?;
    let submitter = Submitter::open(role, &config, &caller)?;
    options.nexthop.iter().try_for_each(|nexthop| submitter.check_nexthop(nexthop))?;

    let stdin = Stdin::open().map_err(|error| system("standard input cannot be taken over", &error))?;
    let stopped = stdin.stopped();
    let input = Input::new(BufReader::with_capacity(PIECE, stdin), !options.dots_are_content);
    let submission = Submission::new(options, sender);
    let queued = submitter.queue(submission, recipients, input);
    queued.map(drop).inspect_err(|failure| fail_as_told(role, failure, &stopped))
}

/// After a failure: ends the process if a signal has come, but not without saying what is queued or may be.
fn fail_as_told(role: Role, failure: &Failure, stopped: &Stopped) {
    if stopped.by().is_some() && failure.may_be_queued() {
        complain(role, &failure.to_string());
    }
    die_as_told(stopped);
}

/// Ends the process by the signal that has stopped it, now that nothing half-queued is left: a shell that runs a
/// script sees that, and stops too.
fn die_as_told(stopped: &Stopped) {
    if let Some(signal) = stopped.by() {
        // If this does not end the process, the failure that follows does.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
}

fn system(what: &str, error: &io::Error) -> Failure {
    Failure::new(Code::System, format!("the message was not queued: {what}: {error}"))
}

/// The envelope sender: `-f`, or the caller.
fn sender(options: &Options, caller: &Caller, config: &Config) -> Result<Sender, Failure> {
    let bad = |text: String| Failure::new(Code::Data, format!("the message was not queued: {text}"));
    let address = match options.sender.as_deref() {
        Some(text) => match named_sender(text).map_err(|error| bad(format!("option -f: {error}")))? {
            Some(address) => address,
            None => return Ok(Sender::NULL),
        },
        None => {
            let login = caller.login()?;
            Address::from_parts(login, "")
                .map_err(|error| bad(format!("{login:?} cannot be a sender: {error}")))?
        }
    };
    let completed = address.completed_with(&config.myorigin);
    completed.map(Sender::from).map_err(|error| bad(format!("{address} cannot be a sender: {error}")))
}

/// What `-f` names; `None` for the null sender.
fn named_sender(text: &str) -> Result<Option<Address>, String> {
    match text.trim() {
        "" | "<>" => Ok(None),
        text => one_address(text).map(Some),
    }
}

/// A text that is one address, and no list of them; else what is wrong with it.
fn one_address(text: &str) -> Result<Address, String> {
    let mut list = address_list::parse(text).map_err(|error| error.to_string())?;
    match (list.pop(), list.is_empty()) {
        (Some(address), true) => Ok(address),
        _ => Err(format!("{:?} is not one address", shortened(text))),
    }
}
