//! `--lmtp` and `--esmtp`: the message goes to a server while the caller waits.
//!
//! - Owns: where the message goes, to whom, and in how many transactions.
//! - Leaves to others: the conversation (`net`), the message (`content`), what the caller hears (`results`, `exit`), signals
//!   (`signals`).
//! - Always true: nothing is sent before the whole message has come; no address is changed; exit code 0 means that every
//!   recipient's mail was accepted.

mod content;
mod exit;
mod results;
mod signals;

use std::collections::HashSet;
use std::io::BufReader;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::failure::{Code, Failure};
use super::options::{Direct, Options, Role};
use super::recipients::comparable;
use super::stdin::Stdin;
use super::{PIECE, die_as_told, named_sender, one_address};
use crate::config::{Config, Sources, Transport};
use crate::mail::{
    Address, Batch, Destination, EnhancedStatus, Envelope, Notify, Outcome, Protocol, QueueId, Reason,
    Recipient, Sender, TransportName,
};
use crate::net::{CachedConnection, Delivered, Delivery, FileContent};
use crate::spool::{self, RECIPIENTS_MAX};

use content::Message;
use results::{Results, Times};
use signals::Signals;

/// What we call ourselves unless `--iam` says otherwise.
const NAMELESS: &str = "localhost";
/// Octets of a host name, as in RFC 1035.
const NAME_LENGTH_MAX: usize = 255;
/// How long the answer to QUIT is waited for. The mail is delivered by then, and the caller waits.
const GOODBYE: Duration = Duration::from_secs(2);

/// Delivers the message on standard input. The exit code tells what became of it; an error means that nothing was sent.
pub(super) fn deliver(
    role: Role,
    options: &Options,
    direct: &Direct,
    sources: &Sources,
) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let config = Config::load(sources).map_err(|error| not_sent(Code::Config, error.in_one_line()))?;
    let (destination, transport) = destination(direct, &config)?;
    let iam = own_name(options.iam.as_deref().unwrap_or(NAMELESS))?;
    let sender = sender(options.sender.as_deref().unwrap_or_default())?;
    let mut recipients = Recipients::new(options.notify);
    for argument in &options.recipients {
        recipients.add(one_address(argument).map_err(|error| not_sent(Code::Data, error))?);
    }

    let (mut message, signals) = read(role, options, config.message_size_limit)?;
    std::mem::take(&mut message.recipients).into_iter().for_each(|address| recipients.add(address));
    let recipients = recipients.into_list()?;
    let envelope = Envelope {
        // Nobody asks for the ID of what is in no queue.
        id: QueueId::new(0, 0),
        sender,
        arrival: Timestamp::now(),
        nexthop: None,
        body: message.written.body,
        // An address that is not ASCII needs it in any case, and the engine sees to that.
        smtputf8: options.smtputf8 && message.has_utf8_header,
        envid: options.envid.clone(),
        ret: options.ret,
        origin: role.name().to_owned(),
        size: message.written.size,
    };
    let mut results = Results::new(role, &recipients, Times::new(begun), &signals);
    let mut cached = CachedConnection::new(iam, Arc::default());
    if options.dump {
        cached.watch(results::show_line);
    }
    let mail = Mail { envelope: Arc::new(envelope), message: &message, destination, transport };
    mail.deliver(&recipients, &mut cached, &mut results);
    if options.verbose {
        results.show_last_reply();
    }
    Ok(results.exit_code())
}

/// A failure before anything was sent.
fn not_sent(code: Code, text: impl std::fmt::Display) -> Failure {
    Failure::new(code, format!("the message was not sent: {text}"))
}

/// Where the option says, by the parameters of the transport that bears the protocol's name. What such a transport adds to
/// mail (`flags`) is the agent's affair: here content goes out as it came.
fn destination(direct: &Direct, config: &Config) -> Result<(Destination, Arc<Transport>), Failure> {
    let Direct { protocol, server } = direct;
    let option = match protocol {
        Protocol::Lmtp => "--lmtp",
        Protocol::Smtp => "--esmtp",
    };
    let is_relative = server.contains('/') && !server.starts_with('/') && !server.contains(":/");
    let hint = if is_relative { "; a socket is named by its absolute path" } else { "" };
    let bad =
        |error: &dyn std::fmt::Display| not_sent(Code::Usage, format_args!("option {option}: {error}{hint}"));
    let name: TransportName = protocol.to_string().parse().map_err(|error: &str| bad(&error))?;
    let destination = config.destination_of(name, server).map_err(|error| bad(&error))?;
    let transport = config.transport(destination.transport()).ok_or_else(|| bad(&"it has no transport"))?;
    let transport = Transport { protocol: *protocol, ..Transport::clone(transport) };
    // Of this one transport, and as our caller, who may well not be allowed to.
    let transport = transport.open_secrets().map_err(|wrong| {
        let said: Vec<_> = wrong.iter().map(|wrong| format!("transport.{protocol}.{wrong}")).collect();
        not_sent(Code::Config, said.join("; "))
    })?;
    Ok((destination, Arc::new(transport)))
}

/// What LHLO or EHLO says: a host name, or an address in brackets.
fn own_name(name: &str) -> Result<String, Failure> {
    let is_word = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
    if is_word && name.len() <= NAME_LENGTH_MAX {
        return Ok(name.to_owned());
    }
    Err(not_sent(Code::Usage, format_args!("option --iam: {name:?} is no host name")))
}

/// `-f`, as it was written.
fn sender(text: &str) -> Result<Sender, Failure> {
    let named =
        named_sender(text).map_err(|error| not_sent(Code::Data, format_args!("option -f: {error}")))?;
    Ok(named.map_or(Sender::NULL, Sender::from))
}

/// Recipients as they were written, each once.
struct Recipients {
    notify: Notify,
    seen: HashSet<Address>,
    list: Vec<Recipient>,
}

impl Recipients {
    fn new(notify: Notify) -> Self {
        Self { notify, seen: HashSet::new(), list: Vec::new() }
    }

    /// No alias and no domain is added: a server may well know its users by their bare names. A report that was asked for
    /// names the recipient as our caller did, whoever rewrites the address on its way.
    fn add(&mut self, address: Address) {
        if !self.seen.insert(comparable(&address)) {
            return;
        }
        let kind = if address.needs_smtputf8() { "utf-8" } else { "rfc822" };
        let is_told = !self.notify.is_default() && !address.domain().is_empty();
        let orcpt = is_told.then(|| format!("{kind};{address}").parse().ok()).flatten();
        // Beyond the limit nothing is done with them.
        let position = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(Recipient { notify: self.notify, orcpt, ..Recipient::new(position, address) });
    }

    /// All of them, in the order in which they were named. There are no more than a queued message may have.
    fn into_list(self) -> Result<Vec<Recipient>, Failure> {
        match self.list.len() {
            0 => Err(not_sent(Code::Data, "its header names no recipients")),
            count if count > RECIPIENTS_MAX as usize => {
                let text = format_args!("it has {count} recipients, not 1 to {RECIPIENTS_MAX}");
                Err(not_sent(Code::Data, text))
            }
            _ => Ok(self.list),
        }
    }
}

/// Takes the message in. From then on signals may no longer end the process at any moment.
fn read(role: Role, options: &Options, limit: u64) -> Result<(Message, Signals), Failure> {
    let system = |what: &str, error| not_sent(Code::System, format_args!("{what}: {error}"));
    spool::survive_file_size_limit().map_err(|error| system("SIGXFSZ cannot be ignored", error))?;
    let mut stdin = Stdin::open().map_err(|error| system("standard input cannot be taken over", error))?;
    let stopped = stdin.stopped();
    let message = Message::read(&mut BufReader::with_capacity(PIECE, &mut stdin), options, limit);
    let message = message.inspect_err(|_| die_as_told(&stopped))?;
    let signals =
        Signals::take_over(role, stdin).map_err(|error| system("signals cannot be waited for", error))?;
    Ok((message, signals))
}

/// A message on its way.
struct Mail<'a> {
    envelope: Arc<Envelope>,
    message: &'a Message,
    destination: Destination,
    transport: Arc<Transport>,
}

impl Mail<'_> {
    /// Settles every recipient.
    fn deliver(&self, recipients: &[Recipient], cached: &mut CachedConnection, results: &mut Results<'_>) {
        let limit = match self.transport.destination_recipient_limit {
            0 => usize::MAX,
            limit => limit,
        };
        let content = FileContent {
            prefix: b"",
            file: &self.message.file,
            offset: 0,
            length: self.message.written.size,
        };
        // Why there is no sense in going on.
        let mut hopeless = None;
        let mut is_silent = false;
        for recipients in recipients.chunks(limit) {
            results.begin();
            if results.is_told_to_stop() {
                hopeless.get_or_insert_with(|| {
                    Reason::local(EnhancedStatus::new(4, 3, 2), "not tried, because a signal came")
                });
            }
            if let Some(reason) = &hopeless {
                results.settle_all(recipients, &Outcome::Deferred(reason.clone()));
                continue;
            }
            let (envelope, destination) = (Arc::clone(&self.envelope), self.destination.clone());
            let sender = envelope.sender.clone();
            // A chunk is never empty.
            let Some(batch) = Batch::new(envelope, sender, destination, recipients.to_vec()) else {
                continue;
            };
            let settled = results.count();
            hopeless = match cached.deliver(&Delivery::new(&batch, &content, &self.transport), results) {
                Delivered::Reached => {
                    let was_silent = std::mem::replace(&mut is_silent, results.broke_off_since(settled));
                    // Each further transaction could keep the caller waiting for another hour.
                    (was_silent && is_silent).then(|| {
                        let text = "not tried, because the server fell silent or away twice before";
                        Reason::local(EnhancedStatus::new(4, 4, 2), text)
                    })
                }
                Delivered::Failed(reason) => Some(suspended(&reason)),
                Delivered::Busy(reason) => {
                    results.settle_all(recipients, &Outcome::Deferred(reason.clone()));
                    Some(suspended(&reason))
                }
            };
        }
        let until = Instant::now() + GOODBYE;
        let enough = || Instant::now() >= until;
        cached.say_goodbye(&enough);
        cached.close(&enough);
    }
}

/// The reason for those whose turn had not come when no server was ready.
fn suspended(reason: &Reason) -> Reason {
    let text = format!("delivery temporarily suspended: {}", reason.text);
    Reason { text, ..reason.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_recipients_as_in_a_queue_file_at_most() {
        let one = Recipient::new(0, "a@x".parse().unwrap());
        let most = RECIPIENTS_MAX as usize;
        for (count, code) in [(0, Some(65)), (1, None), (most, None), (most + 1, Some(65))] {
            let list = vec![one.clone(); count];
            let recipients = Recipients { list, ..Recipients::new(Notify::default()) };
            assert_eq!(recipients.into_list().err().map(|failure| failure.code()), code, "{count}");
        }
    }
}
