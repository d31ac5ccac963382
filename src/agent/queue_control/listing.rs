//! Messages as `queue list` and `queue show` tell of them.
//!
//! - Owns: what is said of a message, and of a file that is none.
//! - Leaves to others: the files (`spool`), who may see what (`permission`), columns (`cli`).
//! - Always true: one message at a time is in memory, and of its recipients at most [`LISTED_MAX`]; what is damaged is
//!   listed all the same.

use std::ffi::OsStr;
use std::io;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::permission::Caller;
use crate::mail::{Address, EnhancedStatus, Notify, OriginalRecipient, QueueId, Recipient, Return, Sender};
use crate::spool::{Cursor, Entry, Examined, LoadError, Place, QueueFile, Spool, State};

/// Recipients of a message that a list names.
const LISTED_MAX: usize = 200;

/// A message in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its ID; in `incoming/`, the name of its file.
    pub id: String,
    /// `incoming`, `active`, `deferred`, `hold` or `corrupt`.
    pub place: String,
    /// Whom it comes from; `""` is the null sender, `null`: not known.
    pub sender: Option<Sender>,
    /// When it was submitted (RFC 3339).
    pub arrival: Option<String>,
    /// Octets of its content; where that is not known, of its file.
    pub size: u64,
    /// Who submitted it: `uid=1000`, or the part of the program that wrote it.
    pub origin: String,
    /// When it is tried again, if it is deferred (RFC 3339).
    pub next_attempt: Option<String>,
    /// Where it goes, if its submitter has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nexthop: Option<String>,
    /// The submitter's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// What a bounce returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Return>,
    /// All recipients, those that are done with included.
    pub recipient_count: u32,
    /// Recipients that are not done with. `queue show` has all of them, each on a line of its own.
    pub recipients: Vec<RecipientLine>,
    /// Recipients not done with that are left out here, because they are too many.
    #[serde(default)]
    pub recipients_omitted: usize,
    /// Why it cannot be delivered as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A recipient of a message in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientLine {
    /// Its place among the message's recipients, from 0: attempts name it.
    #[serde(default)]
    pub position: u32,
    /// Where to.
    pub address: Address,
    /// `pending`, `in_doubt`, `refused`, `sent` or `bounced`.
    pub state: String,
    /// What its last attempt came to, in words.
    pub reason: Option<String>,
    /// The same as an enhanced status code.
    pub dsn: Option<EnhancedStatus>,
    /// Which reports are wanted, if anybody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// The recipient as the sender wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<OriginalRecipient>,
    /// A sender for this recipient alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
}

/// The word for a state.
fn recipient_state(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::InDoubt => "in_doubt",
        State::Refused => "refused",
        State::Sent => "sent",
        State::Bounced => "bounced",
    }
}

impl RecipientLine {
    pub(super) fn new(recipient: Recipient, state: State) -> Self {
        Self {
            position: recipient.position,
            address: recipient.address,
            state: recipient_state(state).to_owned(),
            reason: None,
            dsn: None,
            notify: Some(recipient.notify).filter(|notify| !notify.is_default()),
            orcpt: recipient.orcpt,
            sender: recipient.sender,
        }
    }
}

/// A file in the queue: a message, or something else that has to be shown.
pub(super) enum Opened {
    Message(Box<QueueFile>),
    /// What it is, and what is wrong with it.
    Other(Examined, Option<String>),
}

/// Opens a file of the queue; `None` if it is gone.
pub(super) fn open(spool: &Spool, place: Place, name: &OsStr) -> io::Result<Option<Opened>> {
    let id = name.to_str().and_then(|name| name.parse::<QueueId>().ok());
    let error = match id.filter(|_| place != Place::Incoming) {
        Some(id) => match spool.open_message(id, place) {
            Ok(file) => return Ok(Some(Opened::Message(Box::new(file)))),
            Err(LoadError::Gone) => return Ok(None),
            Err(error) => Some(error),
        },
        None => None,
    };
    let Some(examined) = spool.examine(place, name)? else { return Ok(None) };
    let problem = match place {
        Place::Incoming => dropped(&examined),
        _ => Some(match (error, examined.fault()) {
            (None, _) => "its name is no queue ID".to_owned(),
            // What pickup has set aside is its owner's still, and lacks what only we write; neither was the reason.
            (Some(LoadError::Foreign(_)), Some(fault)) if is_set_aside(place) => fault,
            (Some(LoadError::Corrupt(_)), Some(fault)) => LoadError::Corrupt(fault).to_string(),
            (Some(error), _) => error.to_string(),
        }),
    };
    Ok(Some(Opened::Other(examined, problem)))
}

/// Whether pickup puts there what it cannot queue.
fn is_set_aside(place: Place) -> bool {
    matches!(place, Place::Hold | Place::Corrupt)
}

/// Why what lies in `incoming/` waits there; `None` if it is a queue file, which will soon be taken.
fn dropped(examined: &Examined) -> Option<String> {
    if let Some(kind) = examined.other_kind {
        return Some(format!("{kind}, no message"));
    }
    if examined.file.is_none() {
        return Some("a file that the agent may not read (mode 0640 would let it)".to_owned());
    }
    (!examined.is_queue_file).then(|| "a bare message: it waits for its job line".to_owned())
}

/// What is said of one name in a directory; `None` if it is gone, no message, or not the caller's to see.
pub(super) fn entry(
    spool: &Spool,
    caller: Caller,
    place: Place,
    entry: &Entry,
) -> io::Result<Option<Listed>> {
    if !is_listed(place, entry) {
        return Ok(None);
    }
    let listed = match open(spool, place, &entry.name)? {
        None => return Ok(None),
        Some(Opened::Other(examined, problem)) => of_other(place, &entry.name, &examined, problem),
        Some(Opened::Message(file)) => {
            if !caller.may_see(&file.envelope().origin) {
                return Ok(None);
            }
            let mut listed = of_message(place, &file);
            if let Err(error) = add_recipients(spool, &file, &mut listed) {
                listed.problem = Some(error.to_string());
            }
            listed
        }
    };
    Ok(caller.may_see(&listed.origin).then_some(listed))
}

/// Unfinished files and reply logs are no messages; anything in `corrupt/` was put there for somebody to look at.
fn is_listed(place: Place, entry: &Entry) -> bool {
    match place {
        Place::Incoming => !entry.name.as_encoded_bytes().starts_with(b"."),
        Place::Corrupt => true,
        Place::Active | Place::Deferred | Place::Hold => entry.id().is_some(),
        Place::Tmp => false,
    }
}

/// Everything but the recipients.
pub(super) fn of_message(place: Place, file: &QueueFile) -> Listed {
    let envelope = file.envelope();
    let modified = (place == Place::Deferred).then(|| file.modified());
    Listed {
        id: envelope.id.to_string(),
        place: place.to_string(),
        sender: Some(envelope.sender.clone()),
        arrival: Some(envelope.arrival.to_string()),
        size: envelope.size,
        origin: envelope.origin.clone(),
        next_attempt: modified.and_then(time),
        nexthop: envelope.nexthop.clone(),
        envid: envelope.envid.clone(),
        ret: envelope.ret,
        recipient_count: file.recipient_count(),
        ..Listed::default()
    }
}

pub(super) fn of_other(place: Place, name: &OsStr, examined: &Examined, problem: Option<String>) -> Listed {
    Listed {
        id: name.to_string_lossy().escape_debug().to_string(),
        place: place.to_string(),
        arrival: time(examined.modified),
        size: examined.size,
        origin: format!("uid={}", examined.uid),
        problem,
        ..Listed::default()
    }
}

/// Those who are not done with, each with what its last attempt came to.
fn add_recipients(spool: &Spool, file: &QueueFile, listed: &mut Listed) -> Result<(), LoadError> {
    let loaded = file.load(Cursor::default(), LISTED_MAX)?;
    let positions: Vec<u32> = loaded.recipients.iter().map(|(recipient, _)| recipient.position).collect();
    let mut replies = spool.last_replies(file.envelope().id, &positions)?;
    listed.recipients_omitted = loaded.rest;
    for (recipient, state) in loaded.recipients {
        let reply = replies.remove(&recipient.position);
        let mut line = RecipientLine::new(recipient, state);
        if let Some(reply) = reply {
            (line.reason, line.dsn) = (Some(reply.text), Some(reply.dsn));
        }
        listed.recipients.push(line);
    }
    Ok(())
}

fn time(time: SystemTime) -> Option<String> {
    let time = Timestamp::try_from(time).ok()?;
    // Fractions of the second in which a file was touched tell nobody anything.
    Some(Timestamp::from_second(time.as_second()).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::mail::QueueId;

    fn problem(spool: &Spool, place: Place, name: &str) -> Option<String> {
        match open(spool, place, name.as_ref()).unwrap() {
            Some(Opened::Other(_, problem)) => problem,
            Some(Opened::Message(_)) => panic!("{name} is a message"),
            None => panic!("{name} is gone"),
        }
    }

    #[test]
    fn what_lies_in_incoming_is_called_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _lock) = Spool::prepare(directory.path(), None).unwrap();
        let incoming = directory.path().join("incoming");
        fs::create_dir(incoming.join("directory")).unwrap();
        symlink("bare", incoming.join("link")).unwrap();
        fs::write(incoming.join("bare"), "Subject: x\n\n").unwrap();
        fs::write(incoming.join("queue-file"), "lastmile/1\n").unwrap();
        for (name, is) in [
            ("directory", Some("a directory, no message")),
            ("link", Some("a symbolic link, no message")),
            ("bare", Some("a bare message: it waits for its job line")),
            ("queue-file", None),
        ] {
            assert_eq!(problem(&spool, Place::Incoming, name).as_deref(), is, "{name}");
        }
    }

    #[test]
    fn what_was_set_aside_is_shown_with_the_reason() {
        const REST: &str = "-P\n{\"address\":\"b@y\"}\n\nhi\n";
        let directory = tempfile::tempdir().unwrap();
        let (spool, _lock) = Spool::prepare(directory.path(), None).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            eprintln!("less is tested: only root can make a file of somebody else");
        }
        let good = format!("lastmile/1\n{{\"sender\":\"a@x\",\"recipients\":1}}\n{REST}");
        for (place, text, reason) in [
            (Place::Hold, good.replace("lastmile/1", "lastmile/7"), "another version"),
            (Place::Corrupt, good.replace("\"sender\"", "\"from\""), "its head does not parse"),
            (Place::Corrupt, good.replace("b@y", "b y"), "recipient 0"),
            (Place::Corrupt, good.replace(":1}", ":1,\"size\":99}"), "has 99 octets, but it has 3"),
            (Place::Corrupt, good.replace("-P\n", "-Q\n"), "state"),
            // Nothing to be seen but whose it is.
            (Place::Hold, good.clone(), if is_root { "belongs to uid 4711" } else { "does not parse" }),
        ] {
            let id = QueueId::new(1, text.len() as u64);
            let path = directory.path().join(place.name()).join(id.as_str());
            fs::write(&path, &text).unwrap();
            if is_root {
                std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
            }
            let problem = problem(&spool, place, id.as_str()).unwrap();
            assert!(problem.contains(reason), "{problem:?} instead of {reason:?}");
            fs::remove_file(path).unwrap();
        }
        fs::create_dir(directory.path().join("corrupt/00000000002000000000")).unwrap();
        let problem = problem(&spool, Place::Corrupt, "00000000002000000000").unwrap();
        assert!(problem.contains("a directory"), "{problem}");
    }
}
