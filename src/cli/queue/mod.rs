//! `lastmile queue`: what lies in the queue, and doing something about it.
//!
//! - Owns: the command line, JSON on standard output, exit codes.
//! - Leaves to others: the answers (`agent::queue_control`), the way to them (`access`), text for people (`human`).
//! - Always true: 0: it was done; 1: a message was named that is not there; 64: the command line is wrong; 69: the queue
//!   cannot be asked; 75: not now; 77: the caller may not do this.

mod access;
mod human;

use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;

use super::failure::{EX_NOT_FOUND, Failure};
use super::{Configured, EX_IOERR, EX_USAGE};
use crate::agent::control::Action;
use crate::agent::queue_control::{Done, Line, Outcome, Request, Selection};
use crate::config::{Config, Sources};
use crate::mail::QueueId;

use access::Access;

/// Look at the queue and change what lies in it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With an agent running, it answers and does everything itself; everybody may look at what \
                        they have submitted, root and the agent's user may do everything. Without an agent only \
                        these two can use this command, on the queue directory itself.

Exit codes: 0 done; 1 a message that was named is not there; 64 wrong usage; 69 the queue cannot be asked; 75 try \
                        again later; 77 not permitted; 78 wrong configuration."
)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List all messages: where each is, whom it is for, and why it is still here
    #[command(
        after_help = "Places: incoming (dropped, not taken in yet), active (being delivered), deferred (tried \
                            again at the time that is shown), hold (waits for \"release\"), corrupt (not readable, \
                            or a notice that could not be delivered)."
    )]
    List(Listing),
    /// Show one message: its envelope, each recipient, and every attempt with the server's reply
    Show {
        /// The message's queue ID
        id: QueueId,
        /// Also print the message itself
        #[arg(long, conflicts_with = "json")]
        content: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Try deferred messages now: those that are named, or all
    Flush {
        /// Queue IDs; none: all
        #[arg(value_name = "ID")]
        messages: Vec<Target>,
        #[command(flatten)]
        common: Common,
    },
    /// Set messages aside until they are released
    Hold(Named),
    /// Let held messages go on, at once
    Release(Named),
    /// Remove messages; nobody is told, and nothing is left of them
    Delete(Named),
    /// Try messages at once, whatever they wait for: deferred, held or corrupt
    #[command(after_help = "ALL means deferred and held messages; a corrupt one has to be named.")]
    Requeue(Named),
}

/// Options of every subcommand.
#[derive(Debug, clap::Args)]
struct Common {
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Debug, clap::Args)]
struct Listing {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Queue IDs, or ALL
    #[arg(value_name = "ID|ALL", required = true)]
    messages: Vec<Target>,
    #[command(flatten)]
    common: Common,
}

/// A message on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    All,
    Message(QueueId),
}

impl std::str::FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "ALL" { Ok(Self::All) } else { text.parse().map(Self::Message) }
    }
}

/// Runs the command.
pub fn run(options: Options) -> ExitCode {
    let result = match options.command {
        Command::List(Listing { common }) => list(&common.configured.sources(), common.json),
        Command::Show { id, content, common } => {
            with(&common.configured.sources(), |access, out| show(access, out, id, content, common.json))
        }
        Command::Flush { messages, common } if messages.is_empty() => {
            act(Action::Flush, &[Target::All], common)
        }
        Command::Flush { messages, common } => act(Action::Flush, &messages, common),
        Command::Hold(Named { messages, common }) => act(Action::Hold, &messages, common),
        Command::Release(Named { messages, common }) => act(Action::Release, &messages, common),
        Command::Delete(Named { messages, common }) => act(Action::Delete, &messages, common),
        Command::Requeue(Named { messages, common }) => act(Action::Requeue, &messages, common),
    };
    result.map_or_else(|failure| failure.tell("lastmile queue"), |()| ExitCode::SUCCESS)
}

/// `mailq`: the list, for people.
pub fn mailq(sources: &Sources) -> ExitCode {
    list(sources, false).map_or_else(|failure| failure.tell("mailq"), |()| ExitCode::SUCCESS)
}

/// Standard output: a list of 100,000 messages is not to be 100,000 writes.
type Out = BufWriter<StdoutLock<'static>>;

/// Opens the queue, and sees that everything is written at the end.
fn with(
    sources: &Sources,
    command: impl FnOnce(&mut Access, &mut Out) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let config = Config::load(sources)?;
    let mut access = Access::open(&config)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let result = command(&mut access, &mut out);
    // What was told before a failure is told.
    let flushed = out.flush().map_err(|error| unwritable(&error));
    result.and(flushed)
}

fn unwritable(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::silent(0);
    }
    Failure::new(EX_IOERR, format!("the answer cannot be written: {error}"))
}

fn write_json(out: &mut Out, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn list(sources: &Sources, json: bool) -> Result<(), Failure> {
    with(sources, |access, out| {
        let mut totals = human::Totals::default();
        access.ask(&Request::List {}, &mut |line| match line {
            Line::Message(listed) if json => write_json(out, &listed),
            Line::Message(listed) => human::write_listed(out, &listed, &mut totals),
            _ => Ok(()),
        })?;
        if json { Ok(()) } else { totals.write(out).map_err(|error| unwritable(&error)) }
    })
}

fn show(access: &mut Access, out: &mut Out, id: QueueId, content: bool, json: bool) -> Result<(), Failure> {
    let mut shown = human::Shown::default();
    access.ask(&Request::Show { id, content }, &mut |line| {
        if json { write_json(out, &line) } else { shown.write(out, &line) }
    })
}

fn act(action: Action, targets: &[Target], common: Common) -> Result<(), Failure> {
    let messages = selection(targets)?;
    with(&common.configured.sources(), |access, out| {
        let (mut worst, mut count) = (0, 0_u64);
        access.ask(&Request::Act { action, messages }, &mut |line| {
            let Line::Done(done) = line else { return Ok(()) };
            worst = worst.max(code_of(&done));
            count += 1;
            if common.json { write_json(out, &done) } else { human::write_done(out, &done) }
        })?;
        if count == 0 && !common.json {
            writeln!(out, "nothing to {action}").map_err(|error| unwritable(&error))?;
        }
        if worst == 0 { Ok(()) } else { Err(Failure::silent(worst)) }
    })
}

fn selection(targets: &[Target]) -> Result<Selection, Failure> {
    let ids: Vec<QueueId> = targets
        .iter()
        .filter_map(|target| match target {
            Target::All => None,
            Target::Message(id) => Some(*id),
        })
        .collect();
    match (ids.len(), targets.len()) {
        (0, _) => Ok(Selection::ALL),
        (some, all) if some == all => Ok(Selection::These(ids)),
        _ => Err(Failure::new(EX_USAGE, "name messages, or ALL, but not both; nothing was changed")),
    }
}

/// A system that refuses weighs more than a message that is gone.
fn code_of(done: &Done) -> u8 {
    match done.outcome {
        Outcome::Done | Outcome::Waits | Outcome::Unchanged => 0,
        Outcome::NotFound => EX_NOT_FOUND,
        Outcome::Failed => EX_IOERR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_a_word_of_its_own_and_never_mixed() {
        let targets =
            |words: &str| words.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<Target>>();
        assert_eq!(selection(&targets("ALL")).unwrap(), Selection::ALL);
        let these = vec!["A1".parse().unwrap(), "all".parse().unwrap()];
        assert_eq!(selection(&targets("A1 all")).unwrap(), Selection::These(these));
        assert!(selection(&targets("A1 ALL")).is_err());
        assert!("../x".parse::<Target>().is_err());
    }
}
