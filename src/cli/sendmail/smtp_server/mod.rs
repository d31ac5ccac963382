//! `sendmail -bs`: SMTP on standard input and output, for one client, which is whoever runs the command.
//!
//! - Owns: the conversation as a whole: its beginning, its end, a message's way from DATA into the queue.
//! - Leaves to others: commands (`session`), octets (`wire`), queueing (`submission`).
//! - Always true: a 250 after the end of data means that the message is on disk. A message whose end did not come, or is
//!   not clear, is not queued; what follows on the wire is never taken for something else than it is.
//!
//! Lines end in CR LF. People at a terminal and shell scripts write LF, and Postfix takes that for both, anywhere: then
//! an LF in the content of a client that keeps to CR LF can end its message and begin another, which whoever wrote the
//! content has thought up. Here LF counts as the end of content only where every line since the greeting has ended so;
//! and if a CR LF comes in such content then nobody can tell what was meant, and the session ends.

mod session;
mod stdout;
mod syntax;
#[cfg(test)]
mod tests;
mod wire;

use std::io::{BufRead, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

pub use self::session::{Session, Transaction};
pub use self::wire::Wire;

use self::session::Next;
use self::stdout::Stdout;
use self::syntax::refusal;
use self::wire::{Broken, Content, Line};
use super::caller::Caller;
use super::failure::{Code, Failure, NOT_QUEUED};
use super::options::{Options, Role};
use super::stdin::Stdin;
use super::submission::{Submission, Submitter};
use super::{fail_as_told, system};
use crate::config::{Config, Sources};
use crate::mail::QueueId;
use crate::sink::{LineEnd, Reply};

/// How long a client may be silent within a transaction (RFC 5321 section 4.5.3.2.7), and how long it may leave replies
/// unread. Between transactions it may be silent for ever: a worker that sends mail once a day keeps its session, and
/// what it keeps is a process of its own.
const PATIENCE: Duration = Duration::from_secs(300);

/// Serves the client on standard input and output.
pub(super) fn run(role: Role, options: &Options, sources: &Sources) -> Result<ExitCode, Failure> {
    let stdin = Stdin::open().map_err(|error| system("standard input cannot be taken over", &error))?;
    let stopped = stdin.stopped();
    let stdout = stdin
        .bell()
        .and_then(|bell| Stdout::open(bell, PATIENCE))
        .map_err(|error| system("standard output cannot be taken over", &error))?;
    let mut wire = Wire::new(stdin.with_silence_max(PATIENCE), stdout);
    serve(role, options, sources, &mut wire).inspect_err(|failure| fail_as_told(role, failure, &stopped))?;
    Ok(ExitCode::SUCCESS)
}

/// Gets everything ready that is needed for queueing, and talks. What is missing is told instead of a greeting: clients
/// show that to people, and an exit code to nobody.
fn serve<R: Read, W: Write>(
    role: Role,
    options: &Options,
    sources: &Sources,
    wire: &mut Wire<R, W>,
) -> Result<(), Failure> {
    let config =
        Config::load(sources).map_err(Failure::from).inspect_err(|failure| turn_away(wire, failure))?;
    let caller = Caller::find();
    let submitter = Submitter::open(role, &config, &caller)
        .and_then(|submitter| {
            options.nexthop.iter().try_for_each(|nexthop| submitter.check_nexthop(nexthop))?;
            Ok(submitter)
        })
        .inspect_err(|failure| turn_away(wire, failure))?;
    let mut queue = |transaction: Transaction<'_>, content: &mut dyn BufRead| {
        let Transaction { sender, envid, ret, smtputf8, recipients } = transaction;
        // What the command line says holds where the client says nothing.
        let mut submission = Submission { smtputf8, ..Submission::new(options, sender) };
        submission.envid = envid.or(submission.envid);
        submission.ret = ret.or(submission.ret);
        // Whose address the client gives is not who runs the command.
        submission.full_name.get_or_insert_default();
        submitter.queue(submission, recipients, content)
    };
    converse(Session::new(&config, options), wire, &mut queue)
}

/// Says that there is no session, and why.
fn turn_away<R: Read, W: Write>(wire: &mut Wire<R, W>, failure: &Failure) {
    let text = failure.to_string();
    let reason = text.strip_prefix(NOT_QUEUED).unwrap_or(&text);
    let reply = refusal(421, "4.3.0", format!("no mail can be queued: {reason}"));
    // If nobody hears it, the exit code and standard error still say it.
    let _ = wire.say(&reply).and_then(|()| wire.flush());
}

/// Puts a message into the queue, under an ID if that is known.
pub type Queue<'q> = dyn FnMut(Transaction<'_>, &mut dyn BufRead) -> Result<Option<QueueId>, Failure> + 'q;

/// Talks until the client has said QUIT, or has gone between two transactions.
pub fn converse<R: Read, W: Write>(
    mut session: Session<'_>,
    wire: &mut Wire<R, W>,
    queue: &mut Queue<'_>,
) -> Result<(), Failure> {
    let mut line = Vec::new();
    let mut said = wire.say(&session.greeting());
    loop {
        let is_idle = session.is_idle();
        let (answer, next) = match said.and_then(|()| wire.read_line(&mut line, is_idle)) {
            Ok(Line::Complete(line_end)) => session.command(&line, line_end),
            Ok(Line::TooLong(line_end)) => session.too_long(line_end),
            Err(Broken::Ended) if is_idle => return Ok(()),
            Err(broken) => return Err(break_off(wire, &broken, is_idle)),
        };
        said = wire.say(&answer);
        match next {
            Next::Command => {}
            Next::Content(transaction, line_end) => {
                said.map_err(|broken| break_off(wire, &broken, false))?;
                receive(wire, *transaction, line_end, queue)?;
                said = Ok(());
            }
            Next::Quit => {
                let said = said.and_then(|()| wire.flush());
                return said.map_err(|broken| break_off(wire, &broken, true));
            }
            Next::GiveUp(why) => {
                // If nobody hears it, the exit code and standard error still say it.
                let _ = said.and_then(|()| wire.flush());
                return Err(Failure::new(Code::Data, format!("the session has ended: {why}")));
            }
        }
    }
}

/// Takes the content of a message, and says what became of it.
fn receive<R: Read, W: Write>(
    wire: &mut Wire<R, W>,
    transaction: Transaction<'_>,
    line_end: LineEnd,
    queue: &mut Queue<'_>,
) -> Result<(), Failure> {
    let mut content = Content::new(wire, line_end);
    let queued = queue(transaction, &mut content);
    let rest = content.finish();
    let (reply, sentence) = match queued {
        // A queue that has taken a message has read it to its end.
        Ok(id) => {
            let queued = id.map_or_else(|| "queued".to_owned(), |id| format!("queued as {id}"));
            (Reply::new(250, "2.0.0", queued.clone()), format!("the message is {queued}"))
        }
        Err(failure) => {
            rest.map_err(|broken| break_off(wire, &broken, false))?;
            let (code, status) = failure.reply_code();
            (refusal(code, status, failure.to_string()), failure.to_string())
        }
    };
    // At once: a client that does not hear what became of the message may send it again, and somebody should know.
    wire.say(&reply)
        .and_then(|()| wire.flush())
        .map_err(|broken| Failure::of_answer(format!("{sentence}; the client did not hear that: {broken}")))
}

/// Ends a session that cannot go on; says so, if somebody is there to hear it.
fn break_off<R: Read, W: Write>(wire: &mut Wire<R, W>, broken: &Broken, is_idle: bool) -> Failure {
    let text = format!("{}{broken}", if is_idle { "the session has ended: " } else { NOT_QUEUED });
    let (code, reply) = match broken {
        Broken::Output(_) => return Failure::new(Code::Io, text),
        Broken::Ended => (Code::Io, (421, "4.3.0")),
        Broken::Input(_) => (Code::Io, (421, "4.3.2")),
        Broken::Silent => (Code::Temporary, (421, "4.4.2")),
        Broken::MixedLineEnds => (Code::Data, (554, "5.6.0")),
    };
    let _ = wire.say(&refusal(reply.0, reply.1, &text)).and_then(|()| wire.flush());
    Failure::new(code, text)
}
