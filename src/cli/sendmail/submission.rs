//! How a message comes into the queue: its header completed, its way onto the disk found.
//!
//! - Owns: the submitter's side of queueing: who may name a nexthop, where this process may write, what to do where it may
//!   not.
//! - Leaves to others: how a message comes onto the disk (`spool`), when it is delivered (`agent`).
//! - Always true: once [`Submitter::queue`] has returned the message is on disk, whether or not an agent runs; an error
//!   means that nothing was queued. Only where an agent that was given the message goes away before it answers, or takes
//!   it before it turns out that it cannot be written to disk, nobody knows; then the error says that.

use std::io::{BufRead, Read};

use jiff::fmt::rfc2822;
use rustix::fs::Access;
use rustix::io::Errno;

use super::caller::Caller;
use super::failure::{Code, Failure};
use super::message::{Additions, Header};
use super::options::{Options, Role};
use super::recipients::Recipients;
use super::{complain, system};
use crate::agent::queue_control::Request;
use crate::agent::trust;
use crate::cli::control_client::{Client, ClientError};
use crate::cli::identity::open_as_owner;
use crate::config::Config;
use crate::mail::{Address, QueueId, Return, Sender};
use crate::spool::{self, Draft, Place, Spool, SubmitLimits};

/// Queues messages for one caller.
pub(super) struct Submitter<'a> {
    role: Role,
    config: &'a Config,
    caller: &'a Caller,
    spool: Spool,
}

/// A message that only lacks its recipients and its content.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    pub(super) sender: Sender,
    /// The sender's full name, if the message has no From.
    pub(super) full_name: Option<String>,
    /// More recipients stand in the header.
    pub(super) recipients_from_header: bool,
    pub(super) nexthop: Option<String>,
    pub(super) envid: Option<String>,
    pub(super) ret: Option<Return>,
    /// It was submitted as an internationalised message.
    pub(super) smtputf8: bool,
}

impl Submission {
    /// What a command line asks for.
    pub(super) fn new(options: &Options, sender: Sender) -> Self {
        let Options { full_name, recipients_from_header, nexthop, envid, ret, .. } = options.clone();
        Self { sender, full_name, recipients_from_header, nexthop, envid, ret, smtputf8: false }
    }
}

impl<'a> Submitter<'a> {
    /// Opens the queue. Root becomes its owner, and stays that.
    pub(super) fn open(role: Role, config: &'a Config, caller: &'a Caller) -> Result<Self, Failure> {
        spool::survive_file_size_limit().map_err(|error| system("SIGXFSZ cannot be ignored", &error))?;
        let spool = open_as_owner(&config.queue_directory)?;
        Ok(Self { role, config, caller, spool })
    }

    /// Whoever names a nexthop decides who gets the mail of others; the agent would not believe it of anybody else.
    pub(super) fn check_nexthop(&self, nexthop: &str) -> Result<(), Failure> {
        self.config.destination(nexthop).map_err(|error| {
            let text = format!("the message was not queued: option --nexthop: {nexthop:?}: {error}");
            Failure::new(Code::Usage, text)
        })?;
        let is_trusted = self.caller.uid == 0
            || self.caller.uid == self.spool.owner().0.as_raw()
            || trust::is_among(&self.config.trusted_users, self.caller.uid);
        if is_trusted {
            return Ok(());
        }
        let text =
            "the message was not queued: only root, the agent's user and trusted_users may use --nexthop";
        Err(Failure::new(Code::NoPermission, text))
    }

    /// Queues a message. Its ID is known unless it is the agent's to give.
    pub(super) fn queue(
        &self,
        submission: Submission,
        mut recipients: Recipients<'_>,
        mut input: impl BufRead,
    ) -> Result<Option<QueueId>, Failure> {
        let (mut header, body) = Header::read(&mut input)?;
        if submission.recipients_from_header {
            recipients.add_all(header.recipients()?)?;
        }
        // Whether or not it was obeyed: what is queued goes to people who must not read it.
        header.remove_bcc();
        let recipients = recipients.into_vec();
        if recipients.is_empty() {
            let text = "the message was not queued: its header names no recipients";
            return Err(Failure::new(Code::Data, text));
        }
        let id = self.spool.new_id()?;
        let way = Way::find(&self.spool);
        let head = self.head(&submission, &header, id)?;
        let needs_smtputf8 = recipients.iter().any(|recipient| recipient.address.needs_smtputf8())
            || submission.sender.address().is_some_and(Address::needs_smtputf8);
        let draft = Draft {
            sender: submission.sender,
            recipients,
            nexthop: submission.nexthop,
            envid: submission.envid,
            ret: submission.ret,
            smtputf8: submission.smtputf8 || needs_smtputf8,
            origin: format!("uid={}", self.caller.uid),
        };
        let mut content = head.as_slice().chain(body.as_slice()).chain(input);
        self.put(&way, id, draft, &mut content)
    }

    /// The header as it is queued.
    fn head(&self, submission: &Submission, header: &Header, id: QueueId) -> Result<Vec<u8>, Failure> {
        let date = rfc2822::to_string(&Caller::now()).map_err(|error| {
            Failure::new(Code::System, format!("the message was not queued: cannot write the date: {error}"))
        })?;
        let full_name = match &submission.full_name {
            None if header.lacks_from() => self.caller.full_name()?,
            given => given.clone(),
        };
        Ok(header.write(&Additions {
            host: &self.config.myhostname,
            uid: self.caller.uid,
            unique: id.as_str(),
            date: &date,
            sender: &submission.sender,
            full_name: full_name.as_deref(),
            origin: &self.config.myorigin,
        }))
    }

    fn put(
        &self,
        way: &Way,
        id: QueueId,
        draft: Draft,
        content: &mut dyn Read,
    ) -> Result<Option<QueueId>, Failure> {
        let limits = SubmitLimits {
            message_size_limit: self.config.message_size_limit,
            minfree: self.config.queue_minfree,
        };
        match way {
            Way::Socket => hand_over_by_socket(&self.spool, draft, content).map(Some),
            Way::Incoming => {
                self.spool.drop_incoming(draft, content, &limits)?;
                Ok(None)
            }
            Way::Active => {
                self.spool.submit_as(id, draft, content, &limits)?;
                self.announce(id);
                Ok(Some(id))
            }
        }
    }

    /// The message is on disk: without agent, or with one that is too busy to listen, it is found by listing.
    fn announce(&self, id: QueueId) {
        if let Err(error) = self.spool.announce(id) {
            let text = format!(
                "{id} is queued, but the agent could not be told ({error}); it finds it within a minute"
            );
            complain(self.role, &text);
        }
    }
}

/// Where this process writes, if it may.
fn places(spool: &Spool) -> &'static [Place] {
    if spool.is_ours() { &[Place::Active, Place::Tmp] } else { &[Place::Incoming] }
}

/// How the message comes onto the disk.
enum Way {
    /// We are the queue's owner.
    Active,
    /// As everybody else: the agent looks whenever something appears.
    Incoming,
    /// For those who cannot write to the queue: services are hardened so.
    Socket,
}

impl Way {
    fn find(spool: &Spool) -> Self {
        let way = if spool.is_ours() { Self::Active } else { Self::Incoming };
        let is_closed = |place: &Place| {
            let path = spool.path().join(place.name());
            let access = rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK);
            // Whatever else is wrong, making the file will tell.
            matches!(access, Err(Errno::ROFS | Errno::ACCESS | Errno::PERM))
        };
        if places(spool).iter().any(is_closed) { Self::Socket } else { way }
    }
}

/// Gives the message to the running agent.
fn hand_over_by_socket(spool: &Spool, draft: Draft, content: &mut dyn Read) -> Result<QueueId, Failure> {
    let mut client = Client::connect(spool.path()).map_err(|error| match error {
        ClientError::NoAgent(_) => {
            let paths = places(spool).iter().map(|place| spool.path().join(place.name()).display().to_string());
            let paths: Vec<_> = paths.collect();
            let text = format!(
                "the message was not queued: this process may not write to {}, and no agent is running to take it; \
                 start the agent, or let it write there (systemd: ReadWritePaths={})",
                paths.join(" and "),
                paths.join(" ")
            );
            Failure::new(Code::CannotCreate, text)
        }
        error => error.into(),
    })?;
    let request = Request::Submit(Box::new(draft.into()));
    Ok(client.submit(&request, content)?)
}
