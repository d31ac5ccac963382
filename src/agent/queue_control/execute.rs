//! Carrying a question out: on the directory, and through the master where one runs.
//!
//! - Owns: which answer a question gets.
//! - Leaves to others: submissions, whose content is still on its way (`control_server`).
//! - Always true: with a running agent no message is moved here, and nothing removed but what nobody has claimed; every
//!   answer ends with one last line.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::listing::{self, Opened, RecipientLine};
use super::permission::Caller;
use super::protocol::{Done, Line, Outcome, Refusal, RefusalCode, Request, Selection};
use crate::agent::control::{Action, Answer, Ask, Question, Status};
use crate::agent::log::PICKUP;
use crate::agent::report::{Report, Reporter};
use crate::config::Config;
use crate::mail::QueueId;
use crate::queue::job::IncomingName;
use crate::spool::{Examined, LoadError, Place, QueueFile, Spool};

/// How long the master may take for an answer: it never waits for anything, so this is for a machine that is frozen.
const MASTER_LIMIT: Duration = Duration::from_secs(30);
/// How long we wait, once for each question, for messages that are just being read or delivered.
const LINGER: Duration = Duration::from_millis(500);
/// Times that a message is looked for which moves while we look.
const LOOKS_MAX: usize = 3;
/// Octets of content in one line.
const PIECE: usize = 64 << 10;

/// Whose hands move files.
#[derive(Debug)]
pub enum Hands {
    /// The running agent's.
    Agent(Reporter),
    /// Our own: we hold its lock.
    Ours,
}

/// Why an answer ended early.
#[derive(Debug)]
enum Trouble {
    /// Nobody takes its lines any more.
    Listener(io::Error),
    /// There is none.
    Refused(Refusal),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Answers questions about one queue.
#[derive(Debug)]
pub struct Executor<'a> {
    /// The queue.
    pub spool: &'a Spool,
    /// How it is changed.
    pub hands: &'a Hands,
    /// Who asks.
    pub caller: Caller,
}

/// Takes the lines of an answer.
type Say<'a> = &'a mut dyn FnMut(Line) -> io::Result<()>;
/// Fails as soon as nobody waits for the rest of an answer. It is asked for each message that is looked at: a user who
/// owns none of a million gets no line at which that would show.
type Wanted<'a> = &'a dyn Fn() -> io::Result<()>;

impl Executor<'_> {
    /// Answers a question, to its last line. An error means that nobody listens any more; `wanted` tells so before
    /// there is a line to say.
    pub fn answer(&self, request: &Request, say: Say<'_>, wanted: Wanted<'_>) -> io::Result<()> {
        let result = self
            .caller
            .may_ask(request)
            .map_err(Trouble::from)
            .and_then(|()| self.answer_permitted(request, say, wanted));
        match result {
            Ok(()) => say(Line::End {}),
            Err(Trouble::Refused(refusal)) => say(Line::Refused(refusal)),
            Err(Trouble::Listener(error)) => Err(error),
        }
    }

    fn answer_permitted(&self, request: &Request, say: Say<'_>, wanted: Wanted<'_>) -> Result<(), Trouble> {
        match request {
            Request::Status {} => {
                let status = self.status()?;
                tell(say, Line::Status(Box::new(status)))
            }
            Request::List {} => self.list(say, wanted),
            Request::Show { id, content } => self.show(*id, *content, say),
            Request::ShowDropped { name, content } => self.show_dropped(name, *content, say),
            Request::DeleteDropped { names } => self.delete_dropped(names, say),
            Request::Act { action, messages } => self.act(*action, messages, say),
            Request::Submit(_) => Err(no_agent("submit a message to").into()),
        }
    }

    // ---- the master ----

    fn ask(&self, ask: Ask) -> Result<(Answer, Receiver<Answer>), Refusal> {
        let Hands::Agent(reporter) = self.hands else { return Err(no_agent("ask")) };
        // At most two answers come: "when it ends", and then the end.
        let (answer, answers) = bounded(2);
        reporter.send(Report::Asked(Question { ask, answer }));
        match answers.recv_timeout(MASTER_LIMIT) {
            Ok(answer) => Ok((answer, answers)),
            Err(_) => Err(Refusal::new(
                RefusalCode::Temporary,
                "the agent does not answer: it is stopping, or its machine is frozen; try again",
            )),
        }
    }

    fn status(&self) -> Result<Status, Refusal> {
        match self.ask(Ask::Status)?.0 {
            Answer::Status(status) => Ok(*status),
            _ => Err(odd_answer()),
        }
    }

    /// The configuration in effect: it may have been read again.
    pub fn config(&self) -> Result<std::sync::Arc<Config>, Refusal> {
        match self.ask(Ask::Config)?.0 {
            Answer::Config(config) => Ok(config),
            _ => Err(odd_answer()),
        }
    }

    // ---- looking ----

    /// Every message once, but for those that move while the list is made: they may be in it twice, or not at all.
    fn list(&self, say: Say<'_>, wanted: Wanted<'_>) -> Result<(), Trouble> {
        for place in [Place::Incoming, Place::Active, Place::Deferred, Place::Hold, Place::Corrupt] {
            for entry in self.spool.names(place).map_err(|error| unreadable(place, &error))? {
                wanted().map_err(Trouble::Listener)?;
                let entry = entry.map_err(|error| unreadable(place, &error))?;
                let listed = listing::entry(self.spool, self.caller, place, &entry)
                    .map_err(|error| unreadable(place, &error))?;
                if let Some(listed) = listed {
                    tell(say, Line::Message(Box::new(listed)))?;
                }
            }
        }
        Ok(())
    }

    fn show(&self, id: QueueId, content: bool, say: Say<'_>) -> Result<(), Trouble> {
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::new(RefusalCode::Temporary, format!("{id} cannot be read: {error}; nothing was changed"))
        };
        let (place, opened) =
            self.open(id).map_err(|error| failed(&error))?.ok_or_else(|| self.not_found(id))?;
        match opened {
            Opened::Message(file) => {
                tell(say, Line::Message(Box::new(listing::of_message(place, &file))))?;
                self.show_recipients(id, &file, say).map_err(|error| match error {
                    Shown::Load(error) => Trouble::from(failed(&error)),
                    Shown::Trouble(trouble) => trouble,
                })?;
                if content {
                    send_content(&mut file.content(), say, &failed)?;
                }
            }
            Opened::Other(examined, problem) => {
                show_other(place, id.as_str(), examined, problem, content, say, &failed)?;
            }
        }
        Ok(())
    }

    /// A file in `incoming/` by its name.
    fn show_dropped(&self, name: &str, content: bool, say: Say<'_>) -> Result<(), Trouble> {
        let name = incoming_name(name)?;
        let failed = |error: &dyn std::fmt::Display| {
            let text = format!("incoming/{name} cannot be read: {error}; nothing was changed");
            Refusal::new(RefusalCode::Temporary, text)
        };
        let opened = listing::open(self.spool, Place::Incoming, name.as_str().as_ref());
        match opened.map_err(|error| failed(&error))? {
            Some(Opened::Other(examined, problem))
                if self.caller.may_see(&format!("uid={}", examined.uid)) =>
            {
                show_other(Place::Incoming, name.as_str(), examined, problem, content, say, &failed)
            }
            _ => {
                let whose = if self.caller.is_privileged() { "" } else { " of yours" };
                let text = format!("there is no file incoming/{name}{whose} in the queue");
                Err(Refusal::new(RefusalCode::NotFound, text).into())
            }
        }
    }

    /// A message that the caller may see, wherever it is.
    fn open(&self, id: QueueId) -> io::Result<Option<(Place, Opened)>> {
        for _ in 0..LOOKS_MAX {
            let Some(place) = self.spool.find(id)? else { return Ok(None) };
            let Some(opened) = listing::open(self.spool, place, id.as_str().as_ref())? else { continue };
            let is_visible = match &opened {
                Opened::Message(file) => self.caller.may_see(&file.envelope().origin),
                Opened::Other(examined, _) => self.caller.may_see(&format!("uid={}", examined.uid)),
            };
            return Ok(is_visible.then_some((place, opened)));
        }
        Ok(None)
    }

    /// Whether there is such a message of somebody else is not told.
    fn not_found(&self, id: QueueId) -> Refusal {
        let whose = if self.caller.is_privileged() { "" } else { " of yours" };
        Refusal::new(RefusalCode::NotFound, format!("there is no message {id}{whose} in the queue"))
    }

    fn show_recipients(&self, id: QueueId, file: &QueueFile, say: Say<'_>) -> Result<(), Shown> {
        for recipient in file.recipients()? {
            let (recipient, state) = recipient?;
            tell(say, Line::Recipient(Box::new(RecipientLine::new(recipient, state))))?;
        }
        for reply in self.spool.replies(id).map_err(LoadError::Io)?.into_iter().flatten() {
            tell(say, Line::Attempt(Box::new(reply.map_err(LoadError::Io)?)))?;
        }
        Ok(())
    }

    // ---- changing ----

    /// Nobody has such a file in memory: it is unlinked before the pickup claims it, or not found.
    fn delete_dropped(&self, names: &[String], say: Say<'_>) -> Result<(), Trouble> {
        // All of them are names before anything is done.
        let names = names.iter().map(|name| incoming_name(name)).collect::<Result<Vec<_>, _>>()?;
        for name in names {
            let (outcome, text) = match self.spool.remove_dropped(&name) {
                Ok(true) => (Outcome::Done, Action::Delete.done(Some(Place::Incoming)).to_owned()),
                Ok(false) => (Outcome::NotFound, "there is no such file (any more)".to_owned()),
                Err(error) => (Outcome::Failed, format!("{error}; it stays where it is")),
            };
            if outcome == Outcome::Done {
                log::info!(target: PICKUP, "incoming/{name}: {text}");
            }
            let name = Some(format!("incoming/{name}"));
            tell(say, Line::Done(Done { id: None, name, action: Action::Delete, outcome, text }))?;
        }
        Ok(())
    }

    fn act(&self, action: Action, messages: &Selection, say: Say<'_>) -> Result<(), Trouble> {
        let mut linger = LINGER;
        match messages {
            Selection::These(ids) => {
                for id in ids {
                    let done = self.act_on(*id, action, &mut linger)?;
                    tell(say, Line::Done(done))?;
                }
                Ok(())
            }
            Selection::All(_) if action == Action::Flush && matches!(self.hands, Hands::Agent(_)) => {
                match self.ask(Ask::Flush)?.0 {
                    Answer::Flushing => tell(say, Line::Done(flushing())),
                    _ => Err(odd_answer().into()),
                }
            }
            Selection::All(_) => self.act_on_all(action, &mut linger, say),
        }
    }

    fn act_on_all(&self, action: Action, linger: &mut Duration, say: Say<'_>) -> Result<(), Trouble> {
        for &place in action.places() {
            for entry in self.spool.names(place).map_err(|error| unreadable(place, &error))? {
                let Some(id) = entry.map_err(|error| unreadable(place, &error))?.id() else { continue };
                let done = self.act_on(id, action, linger)?;
                // It has gone by itself, or was seen in two places: neither is worth a word.
                if !matches!(done.outcome, Outcome::NotFound | Outcome::Unchanged) {
                    tell(say, Line::Done(done))?;
                }
            }
        }
        Ok(())
    }

    fn act_on(&self, id: QueueId, action: Action, linger: &mut Duration) -> Result<Done, Refusal> {
        let done = |outcome, text: String| Done { id: Some(id), name: None, action, outcome, text };
        let acted = match self.hands {
            Hands::Ours => action.carry_out(self.spool, id),
            Hands::Agent(_) => match self.spool.find(id) {
                // The master need not let go of a message for nothing.
                Ok(Some(place)) if !action.changes(place) => Ok(Some(place)),
                Ok(None) | Err(_) | Ok(Some(_)) => match self.ask_to_act(id, action, linger)? {
                    Some(result) => result,
                    None => {
                        let text = "a batch of it is under way: it will be done when that ends".to_owned();
                        return Ok(done(Outcome::Waits, text));
                    }
                },
            },
        };
        Ok(match acted {
            Ok(place) => {
                let outcome = match place {
                    None => Outcome::NotFound,
                    Some(place) if action.changes(place) => Outcome::Done,
                    Some(_) => Outcome::Unchanged,
                };
                done(outcome, action.done(place).to_owned())
            }
            Err(error) => done(Outcome::Failed, format!("{error}; the message stays where it is")),
        })
    }

    /// `None`: it will be done later.
    fn ask_to_act(
        &self,
        id: QueueId,
        action: Action,
        linger: &mut Duration,
    ) -> Result<Option<io::Result<Option<Place>>>, Refusal> {
        let (mut answer, answers) = self.ask(Ask::Act(id, action))?;
        if matches!(answer, Answer::WhenItEnds) {
            // It may be over in a moment.
            let began = Instant::now();
            let second = answers.recv_timeout(*linger);
            *linger = linger.saturating_sub(began.elapsed());
            answer = match second {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
            };
        }
        match answer {
            Answer::Acted(result) => Ok(Some(result)),
            _ => Err(odd_answer()),
        }
    }
}

enum Shown {
    Load(LoadError),
    Trouble(Trouble),
}

impl From<LoadError> for Shown {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<Trouble> for Shown {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

fn tell(say: Say<'_>, line: Line) -> Result<(), Trouble> {
    say(line).map_err(Trouble::Listener)
}

fn incoming_name(name: &str) -> Result<IncomingName, Refusal> {
    let text = "a file in incoming/ has a name of 1 to 64 of A-Z a-z 0-9 . _ - with no dot in front; nothing was changed";
    IncomingName::new(name).ok_or_else(|| Refusal::new(RefusalCode::BadRequest, text))
}

/// What is no message of ours: as much of it as anybody can say.
fn show_other(
    place: Place,
    name: &str,
    examined: Examined,
    problem: Option<String>,
    content: bool,
    say: Say<'_>,
    failed: &dyn Fn(&dyn std::fmt::Display) -> Refusal,
) -> Result<(), Trouble> {
    let listed = listing::of_other(place, name.as_ref(), &examined, problem);
    tell(say, Line::Message(Box::new(listed)))?;
    match examined.file.filter(|_| content) {
        // No further than it was long when we looked.
        Some(file) => send_content(&mut file.take(examined.size), say, failed),
        None => Ok(()),
    }
}

fn send_content(
    content: &mut dyn Read,
    say: Say<'_>,
    failed: &dyn Fn(&dyn std::fmt::Display) -> Refusal,
) -> Result<(), Trouble> {
    loop {
        let mut data = Vec::new();
        content.take(PIECE as u64).read_to_end(&mut data).map_err(|error| failed(&error))?;
        let octets = data.len() as u64;
        tell(say, Line::Content { octets, data })?;
        if octets == 0 {
            return Ok(());
        }
    }
}

fn flushing() -> Done {
    let text = "everything deferred is tried now".to_owned();
    Done { id: None, name: None, action: Action::Flush, outcome: Outcome::Done, text }
}

fn unreadable(place: Place, error: &io::Error) -> Refusal {
    let text = format!("{place}/ cannot be listed: {error}; nothing more of the queue is told");
    Refusal::new(RefusalCode::Temporary, text)
}

fn no_agent(what: &str) -> Refusal {
    Refusal::new(RefusalCode::Temporary, format!("no agent is running to {what}"))
}

fn odd_answer() -> Refusal {
    Refusal::new(RefusalCode::Temporary, "the agent gave an answer to another question; try again")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::mail::Recipient;
    use crate::spool::{Draft, SubmitLimits};

    #[test]
    fn a_list_that_nobody_waits_for_ends_among_messages_of_others() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _lock) = Spool::prepare(directory.path(), None).unwrap();
        for _ in 0..10 {
            let recipients = vec![Recipient::new(0, "b@example.org".parse().unwrap())];
            let draft = Draft { recipients, origin: "uid=1000".to_owned(), ..Draft::default() };
            spool.submit(draft, &mut &b"Subject: x\r\n\r\n"[..], &SubmitLimits::default()).unwrap();
        }
        let answer = |uid, looks: usize| {
            let (left, mut lines) = (Cell::new(looks), 0);
            let executor = Executor { spool: &spool, hands: &Hands::Ours, caller: Caller::new(uid, 25) };
            let mut say = |_| {
                lines += 1;
                Ok(())
            };
            let wanted = || match left.replace(left.get().saturating_sub(1)) {
                0 => Err(io::ErrorKind::ConnectionAborted.into()),
                _ => Ok(()),
            };
            let result = executor.answer(&Request::List {}, &mut say, &wanted);
            (result.is_ok(), lines)
        };
        assert_eq!(answer(1000, 10), (true, 11));
        assert_eq!(answer(1001, 10), (true, 1));
        assert_eq!(answer(1001, 9), (false, 0));
        assert_eq!(answer(1000, 3), (false, 3));
    }
}
