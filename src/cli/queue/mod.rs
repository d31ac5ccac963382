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
use super::{Configured, EX_IOERR, EX_UNAVAILABLE, EX_USAGE};
use crate::agent::control::Action;
use crate::agent::queue_control::{Done, Line, Outcome, Request, Selection};
use crate::config::{Config, Sources};
use crate::mail::QueueId;
use crate::queue::job::IncomingName;

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
        /// The message's queue ID; or incoming/NAME, for a file that has none yet
        #[arg(value_name = "ID|incoming/NAME")]
        message: Target,
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
    #[command(
        after_help = "A file that waits in incoming/ has no ID yet: it is named as incoming/NAME. ALL does not \
                            mean those: their job lines may be on the way."
    )]
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
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    All,
    Message(QueueId),
    /// A file in `incoming/`.
    Dropped(String),
}

impl std::str::FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("incoming/")) {
            ("ALL", _) => Ok(Self::All),
            (_, Some(name)) => {
                let name =
                    IncomingName::new(name).ok_or("this is no name of a finished file in incoming/")?;
                Ok(Self::Dropped(name.to_string()))
            }
            (_, None) => text.parse().map(Self::Message),
        }
    }
}

/// Runs the command.
pub fn run(options: Options) -> ExitCode {
    let result = match options.command {
        Command::List(Listing { common }) => list(&common.configured.sources(), common.json),
        Command::Show { message, content, common } => show(&message, content, common),
        Command::Flush { messages, common } if messages.is_empty() => {
            act(Action::Flush, vec![Target::All], common)
        }
        Command::Flush { messages, common } => act(Action::Flush, messages, common),
        Command::Hold(Named { messages, common }) => act(Action::Hold, messages, common),
        Command::Release(Named { messages, common }) => act(Action::Release, messages, common),
        Command::Delete(Named { messages, common }) => act(Action::Delete, messages, common),
        Command::Requeue(Named { messages, common }) => act(Action::Requeue, messages, common),
    };
    result.map_or_else(|failure| failure.tell("lastmile queue"), |()| ExitCode::SUCCESS)
}

/// `mailq`: the list, for people.
pub fn mailq(sources: &Sources) -> ExitCode {
    list(sources, false).map_or_else(|failure| failure.tell("mailq"), |()| ExitCode::SUCCESS)
}

/// `sendmail -q`: everything that waits for its next attempt is tried now, or one message. Programs run it, so it tells
/// what failed and nothing else.
pub fn flush(id: Option<QueueId>, sources: &Sources) -> ExitCode {
    let messages = id.map_or(Selection::ALL, |id| Selection::These(vec![id]));
    let request = Request::Act { action: Action::Flush, messages };
    let result = with(sources, |access, _| {
        let mut worst = 0;
        access.ask(&request, &mut |line| match line {
            Line::Done(done) if code_of(&done) > 0 => {
                worst = worst.max(code_of(&done));
                let mut stderr = io::stderr();
                stderr.write_all(b"sendmail: ").and_then(|()| human::write_done(&mut stderr, &done))
            }
            _ => Ok(()),
        })?;
        match worst {
            0 => Ok(()),
            // sysexits(3) begin with 64, and callers of sendmail know no others.
            EX_NOT_FOUND => Err(Failure::silent(EX_UNAVAILABLE)),
            code => Err(Failure::silent(code)),
        }
    });
    result.map_or_else(|failure| failure.tell("sendmail"), |()| ExitCode::SUCCESS)
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

fn show(target: &Target, content: bool, common: Common) -> Result<(), Failure> {
    let request = match target {
        Target::Message(id) => Request::Show { id: *id, content },
        Target::Dropped(name) => Request::ShowDropped { name: name.clone(), content },
        Target::All => return Err(Failure::new(EX_USAGE, "one message can be shown at a time")),
    };
    let json = common.json;
    with(&common.configured.sources(), |access, out| {
        let mut shown = human::Shown::default();
        access.ask(&request, &mut |line| {
            if json { write_json(out, &line) } else { shown.write(out, &line) }
        })
    })
}

fn act(action: Action, targets: Vec<Target>, common: Common) -> Result<(), Failure> {
    let requests = requests(action, targets)?;
    with(&common.configured.sources(), |access, out| {
        let (mut worst, mut count) = (0, 0_u64);
        for request in &requests {
            access.ask(request, &mut |line| {
                let Line::Done(done) = line else { return Ok(()) };
                worst = worst.max(code_of(&done));
                count += 1;
                if common.json { write_json(out, &done) } else { human::write_done(out, &done) }
            })?;
        }
        if count == 0 && !common.json {
            writeln!(out, "nothing to {action}").map_err(|error| unwritable(&error))?;
        }
        if worst == 0 { Ok(()) } else { Err(Failure::silent(worst)) }
    })
}

/// What to ask: about messages, and about files in `incoming/`, which have no ID.
fn requests(action: Action, targets: Vec<Target>) -> Result<Vec<Request>, Failure> {
    let refused = |text| Err(Failure::new(EX_USAGE, format!("{text}; nothing was changed")));
    let (mut all, mut ids, mut names) = (false, Vec::new(), Vec::new());
    for target in targets {
        match target {
            Target::All => all = true,
            Target::Message(id) => ids.push(id),
            Target::Dropped(name) => names.push(name),
        }
    }
    if all && !(ids.is_empty() && names.is_empty()) {
        return refused("name messages, or ALL, but not both");
    }
    if action != Action::Delete && !names.is_empty() {
        return refused("a file in incoming/ can be shown and deleted only: it is no message yet");
    }
    let mut requests = Vec::new();
    if all {
        requests.push(Request::Act { action, messages: Selection::ALL });
    }
    if !ids.is_empty() {
        requests.push(Request::Act { action, messages: Selection::These(ids) });
    }
    if !names.is_empty() {
        requests.push(Request::DeleteDropped { names });
    }
    Ok(requests)
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
        let ask = |action, words: &str| {
            requests(action, words.split(' ').map(|word| word.parse().unwrap()).collect()).ok()
        };
        let act = |messages| Request::Act { action: Action::Delete, messages };
        let delete = |words| ask(Action::Delete, words);
        assert_eq!(delete("ALL"), Some(vec![act(Selection::ALL)]));
        let these = act(Selection::These(vec!["A1".parse().unwrap(), "all".parse().unwrap()]));
        assert_eq!(delete("A1 all"), Some(vec![these.clone()]));
        let dropped = Request::DeleteDropped { names: vec!["a.b".into()] };
        assert_eq!(delete("A1 incoming/a.b all"), Some(vec![these, dropped]));
        for (action, words) in
            [(Action::Delete, "A1 ALL"), (Action::Delete, "ALL incoming/x"), (Action::Hold, "incoming/x")]
        {
            assert_eq!(ask(action, words), None, "{words}");
        }
        for bad in ["../x", "incoming/", "incoming/.x", "incoming/../x", "corrupt/A1", "incoming/a/b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
