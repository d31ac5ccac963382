//! `lastmile sendmail`: queues the message on standard input.
//!
//! - Owns: the submitter's side: options, recipients, header fields, who may do what, exit codes.
//! - Leaves to others: how a message comes onto the disk (`spool`), when it is delivered (`agent`).
//! - Always true: exit code 0 means that the message is on disk, whether or not an agent runs; any other means that
//!   nothing was queued, and says why in one line on standard error. Only where an agent that was given the message goes
//!   away before it answers, or takes it before it turns out that it cannot be written to disk, nobody knows; then the
//!   line says that.

pub mod address_list;
mod caller;
mod failure;
mod message;
mod options;
mod recipients;
mod stdin;

use std::ffi::OsString;
use std::io::{self, BufReader, Read, Write as _};

use jiff::Zoned;
use jiff::fmt::rfc2822;
use rustix::fs::Access;
use rustix::io::Errno;

use super::control_client::{Client, ClientError};
use super::identity::open_as_owner;
use crate::agent::queue_control::Request;
use crate::agent::trust;
use crate::config::{Config, Sources};
use crate::mail::{Address, QueueId, Sender};
use crate::spool::{self, Draft, Place, Spool, SubmitLimits};

pub use failure::{Code, Failure};
pub use options::{Options, UsageError};

use caller::Caller;
use message::{Additions, Header, Input};
use recipients::Recipients;
use stdin::{Stdin, Stopped};

/// Octets that are read from standard input at a time.
const PIECE: usize = 64 << 10;

/// Runs the command with the arguments after its name; returns the exit code.
pub fn run(args: &[OsString], sources: &Sources) -> u8 {
    match queue(args, sources) {
        Ok(()) => 0,
        Err(failure) => {
            complain(&failure.to_string());
            failure.code()
        }
    }
}

/// Writes a line to standard error. If nobody can read it, the exit code still says the same.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "sendmail: {text}");
}

fn queue(args: &[OsString], sources: &Sources) -> Result<(), Failure> {
    let options = Options::parse(args)?;
    if options.recipients.is_empty() && !options.recipients_from_header {
        return Err(Failure::new(
            Code::Usage,
            "the message was not queued: nobody to send to: name recipients, or use -t",
        ));
    }
    let config = Config::load(sources)?;
    let caller = Caller::find()?;
    let sender = sender(&options, &caller, &config)?;
    let mut recipients = Recipients::new(&config, &options);
    recipients.add_arguments(&options.recipients)?;

    spool::survive_file_size_limit().map_err(|error| system("SIGXFSZ cannot be ignored", &error))?;
    let spool = open_as_owner(&config.queue_directory)?;
    check_nexthop(&options, &caller, &config, &spool)?;

    let stdin = Stdin::open().map_err(|error| system("standard input cannot be taken over", &error))?;
    let stopped = stdin.stopped();
    let input = Input::new(BufReader::with_capacity(PIECE, stdin), !options.dots_are_content);
    let submission = Submission { options, config: &config, caller: &caller, sender, spool: &spool };
    let queued = submission.queue(recipients, BufReader::with_capacity(PIECE, input));
    if queued.is_err() {
        die_as_told(&stopped);
    }
    queued
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
    let address = match options.sender.as_deref().map(str::trim) {
        Some("" | "<>") => return Ok(Sender::NULL),
        Some(text) => {
            let mut list = address_list::parse(text).map_err(|error| bad(format!("option -f: {error}")))?;
            match (list.pop(), list.is_empty()) {
                (Some(address), true) => address,
                _ => return Err(bad(format!("option -f: {text:?} is not one address"))),
            }
        }
        None => {
            let login = caller.login()?;
            Address::from_parts(login, "")
                .map_err(|error| bad(format!("{login:?} cannot be a sender: {error}")))?
        }
    };
    let completed = address.completed_with(&config.myorigin);
    completed.map(Sender::from).map_err(|error| bad(format!("{address} cannot be a sender: {error}")))
}

/// Whoever names a nexthop decides who gets the mail of others; the agent would not believe it of anybody else.
fn check_nexthop(options: &Options, caller: &Caller, config: &Config, spool: &Spool) -> Result<(), Failure> {
    let Some(nexthop) = &options.nexthop else { return Ok(()) };
    config.destination(nexthop).map_err(|error| {
        let text = format!("the message was not queued: option --nexthop: {nexthop:?}: {error}");
        Failure::new(Code::Usage, text)
    })?;
    let is_trusted = caller.uid == 0
        || caller.uid == spool.owner().0.as_raw()
        || trust::is_among(&config.trusted_users, caller.uid);
    if is_trusted {
        return Ok(());
    }
    let text = "the message was not queued: only root, the agent's user and trusted_users may use --nexthop";
    Err(Failure::new(Code::NoPermission, text))
}

/// A message that only lacks its content.
struct Submission<'a> {
    options: Options,
    config: &'a Config,
    caller: &'a Caller,
    sender: Sender,
    spool: &'a Spool,
}

impl Submission<'_> {
    fn queue(self, mut recipients: Recipients<'_>, mut input: BufReader<impl Read>) -> Result<(), Failure> {
        let (mut header, body) = Header::read(&mut input)?;
        if self.options.recipients_from_header {
            recipients.add_all(header.recipients()?)?;
            header.remove_bcc();
        }
        let recipients = recipients.into_vec();
        if recipients.is_empty() {
            let text = "the message was not queued: its header names no recipients";
            return Err(Failure::new(Code::Data, text));
        }
        let id = self.spool.new_id()?;
        let way = Way::find(self.spool);
        let head = self.head(&header, &way, id)?;
        let needs_smtputf8 = recipients.iter().any(|recipient| recipient.address.needs_smtputf8())
            || self.sender.address().is_some_and(Address::needs_smtputf8);
        let draft = Draft {
            sender: self.sender,
            recipients,
            nexthop: self.options.nexthop,
            envid: self.options.envid,
            ret: self.options.ret,
            smtputf8: needs_smtputf8,
            origin: format!("uid={}", self.caller.uid),
        };
        let limits = SubmitLimits {
            message_size_limit: self.config.message_size_limit,
            minfree: self.config.queue_minfree,
        };
        let mut content = head.as_slice().chain(body.as_slice()).chain(input);
        way.put(self.spool, id, draft, &mut content, &limits)
    }

    /// The header as it is queued.
    fn head(&self, header: &Header, way: &Way, id: QueueId) -> Result<Vec<u8>, Failure> {
        let date = rfc2822::to_string(&Zoned::now()).map_err(|error| {
            Failure::new(Code::System, format!("the message was not queued: cannot write the date: {error}"))
        })?;
        Ok(header.write(&Additions {
            host: &self.config.myhostname,
            uid: self.caller.uid,
            // Elsewhere the agent gives it an ID, and nobody knows yet which.
            id: matches!(way, Way::Active).then_some(id.as_str()),
            unique: id.as_str(),
            date: &date,
            sender: &self.sender,
            full_name: self.options.full_name.as_deref().or(self.caller.full_name.as_deref()),
            origin: &self.config.myorigin,
        }))
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

    fn put(
        &self,
        spool: &Spool,
        id: QueueId,
        draft: Draft,
        content: &mut dyn Read,
        limits: &SubmitLimits,
    ) -> Result<(), Failure> {
        match self {
            Self::Socket => hand_over_by_socket(spool, draft, content),
            Self::Incoming => Ok(spool.drop_incoming(draft, content, limits).map(drop)?),
            Self::Active => {
                spool.submit_as(id, draft, content, limits)?;
                announce(spool, id);
                Ok(())
            }
        }
    }
}

/// The message is on disk: without agent, or with one that is too busy to listen, it is found by listing.
fn announce(spool: &Spool, id: QueueId) {
    if let Err(error) = spool.announce(id) {
        complain(&format!(
            "{id} is queued, but the agent could not be told ({error}); it finds it within a minute"
        ));
    }
}

/// Gives the message to the running agent.
fn hand_over_by_socket(spool: &Spool, draft: Draft, content: &mut dyn Read) -> Result<(), Failure> {
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
