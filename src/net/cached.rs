//! A worker's one connection: when it may be used again, and when a failure on it may be tried again.
//!
//! - Owns: the cached connection, and the rules under which a batch is sent a second time.
//! - Leaves to others: the conversation (`connection`), which batch comes next (`queue`).
//! - Always true: a batch is sent again only where the server cannot have it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::content::Content;
use super::observer::Observer;
use super::open::{self, Caller, NotConnected};
use super::put_off::PutOff;
use super::stepwise::Stepwise;
use super::tap::Watcher;
use super::tls::TlsSessions;
use crate::config::Transport;
use crate::mail::{Batch, BodyType, Destination, Outcome, Reason, Recipient};
use crate::smtp::{Manner, Message, Origin, Probe, SessionError, Settled, Smtputf8, Transaction};

/// A connection that has rested longer may be stale: its first flight stops before the content.
const FRESH: Duration = Duration::from_secs(1);

/// What is to be delivered, and how.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    /// To whom, and where.
    pub batch: &'a Batch,
    /// What.
    pub content: &'a dyn Content,
    /// By which parameters: those of the batch's transport.
    pub transport: &'a Arc<Transport>,
    /// Whether there are octets over 127 in the content; `None` where nobody knows: then MAIL says nothing about it.
    pub body: Option<BodyType>,
    /// Who decides whether SMTPUTF8 is needed.
    pub smtputf8: Smtputf8,
    /// Where the message came from: servers that ask are told, where the transport has the habit.
    pub origin: Option<Origin<'a>>,
    /// Ask only who would be taken: nothing is delivered, and nobody is at stake.
    pub probe: bool,
}

impl<'a> Delivery<'a> {
    /// The delivery of a batch of which all is known that there is to know.
    pub fn new(batch: &'a Batch, content: &'a dyn Content, transport: &'a Arc<Transport>) -> Self {
        let body = Some(batch.envelope().body);
        Self { batch, content, transport, body, smtputf8: Smtputf8::ByAddress, origin: None, probe: false }
    }

    fn message(&self) -> Message<'a> {
        Message {
            size: self.content.size(),
            declared_size: self.content.declared_size(),
            body: self.body,
            smtputf8: self.smtputf8,
            origin: self.origin.filter(|_| self.transport.habits.xforward.is_some()),
        }
    }
}

/// How the delivery of a batch went for its destination.
#[derive(Debug)]
pub enum Delivered {
    /// The destination spoke to us; whatever came then was the batch's own affair.
    Reached,
    /// No server of it was ready for mail. By its class, the reason has deferred or returned what was not settled.
    Failed(Reason),
    /// It was too busy for another connection. Nobody of the batch is settled.
    Busy(Reason),
}

/// A worker's one connection.
#[derive(Debug)]
pub struct CachedConnection {
    myhostname: String,
    stepwise: Arc<Stepwise>,
    watcher: Option<Watcher>,
    sessions: TlsSessions,
    cached: Option<Cached>,
    /// Not to be used again, and not closed yet.
    leaving: Option<Cached>,
}

#[derive(Debug)]
struct Cached {
    connection: Connection,
    destination: Destination,
    transport: Arc<Transport>,
}

impl CachedConnection {
    /// Starts without a connection. `stepwise` is shared by all workers.
    pub fn new(myhostname: String, stepwise: Arc<Stepwise>) -> Self {
        Self {
            myhostname,
            stepwise,
            watcher: None,
            sessions: TlsSessions::default(),
            cached: None,
            leaving: None,
        }
    }

    /// Lets `watcher` hear what is said on connections from now on.
    pub fn watch(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    /// Takes another name for LHLO or EHLO, for connections from now on.
    pub fn set_myhostname(&mut self, myhostname: &str) {
        if self.myhostname != myhostname {
            self.myhostname = myhostname.to_owned();
        }
    }

    /// Where the cached connection leads.
    pub fn destination(&self) -> Option<&Destination> {
        self.cached.as_ref().map(|cached| &cached.destination)
    }

    /// How long the connection may still rest; `None` without one.
    pub fn idle_limit(&self) -> Option<Duration> {
        let cached = self.cached.as_ref()?;
        Some(cached.connection.may_rest(&cached.transport))
    }

    /// Says goodbye and closes.
    pub fn close(&mut self, work_is_waiting: &dyn Fn() -> bool) {
        if let Some(mut cached) = self.cached.take() {
            cached.connection.quit(&cached.transport, work_is_waiting);
        }
    }

    /// Says goodbye to the server whose connection the last batch has ended. To be called when that batch has been
    /// reported: a server may be long in answering QUIT.
    pub fn say_goodbye(&mut self, work_is_waiting: &dyn Fn() -> bool) {
        if let Some(mut leaving) = self.leaving.take() {
            leaving.connection.quit(&leaving.transport, work_is_waiting);
        }
    }

    /// Delivers a batch: every recipient is settled through `observer`, unless the destination is busy. Then
    /// [`CachedConnection::say_goodbye`] is due.
    pub fn deliver(&mut self, delivery: &Delivery<'_>, observer: &mut dyn Observer) -> Delivered {
        let Delivery { batch, transport, .. } = *delivery;
        let last_server = transport.habits.fail_over.then(|| batch.destination().servers().len() - 1);
        let mut round =
            Round { recipients: batch.recipients().iter().collect(), first_server: 0, may_retry: true };
        // A transaction has come to its end: whatever breaks now, the destination is alive.
        let mut is_alive = false;
        // By the server that has put them off.
        let mut put_off = BTreeMap::<usize, Vec<&Recipient>>::new();
        // Each round begins further on in the list for whoever is in it.
        loop {
            let mut told = PutOff::new(observer, last_server);
            let delivered = self.deliver_round(round, delivery, &mut is_alive, &mut told);
            let held = told.into_held();
            if held.is_empty() && put_off.is_empty() {
                return delivered;
            }
            let by_position: HashMap<_, _> = batch.recipients().iter().map(|r| (r.position, r)).collect();
            for (server, position) in held {
                put_off.entry(server).or_default().extend(by_position.get(&position));
            }
            let Some((server, recipients)) = put_off.pop_first() else { return delivered };
            self.close(&|| true);
            round = Round { recipients, first_server: server + 1, may_retry: false };
        }
    }

    /// Settles everybody of a round through `observer`.
    fn deliver_round(
        &mut self,
        round: Round<'_>,
        delivery: &Delivery<'_>,
        is_alive: &mut bool,
        observer: &mut PutOff<'_>,
    ) -> Delivered {
        let Delivery { batch, transport, .. } = *delivery;
        let Round { recipients: mut pending, mut first_server, mut may_retry } = round;
        // Each turn settles somebody, is the one retry, or gets on in the list of servers.
        while !pending.is_empty() {
            let reused = self.take_fitting(batch.destination(), transport);
            let retry = may_retry && reused.is_some();
            let connection = match reused
                .map_or_else(|| self.open(batch.destination(), first_server, transport, observer), Ok)
            {
                Ok(connection) => connection,
                Err(failure) => {
                    observer.no_server_is_left();
                    return without_connection(batch, &pending, failure, *is_alive, observer);
                }
            };
            let limit = connection.offered().rcpt_max.unwrap_or(pending.len()).min(pending.len());
            let later = pending.split_off(limit);
            observer.is_at(connection.server());
            let standing = Standing { retry, is_alive: *is_alive };
            pending = match self.attempt(connection, delivery, &pending, standing, observer) {
                Attempted::Done { left_over, has_ended } => {
                    *is_alive |= has_ended;
                    [left_over, later].concat()
                }
                Attempted::Unsent { unsettled, try_from } => {
                    (may_retry, first_server) = (false, try_from);
                    [unsettled, later].concat()
                }
                Attempted::Broken(error) => {
                    observer.settled(not_delivered(&later, &untried(&error)));
                    return Delivered::Reached;
                }
            };
        }
        Delivered::Reached
    }

    /// The cached connection, if it leads to `destination` and nothing speaks against it. Any other is closed.
    fn take_fitting(&mut self, destination: &Destination, transport: &Arc<Transport>) -> Option<Connection> {
        let fits = |cached: &Cached| {
            let Cached { connection, destination: leads_to, transport: by } = cached;
            leads_to == destination && by == transport && !connection.is_too_old(transport)
        };
        if !self.cached.as_ref().is_some_and(fits) {
            self.close(&|| true);
        }
        let mut cached = self.cached.take()?;
        (!cached.connection.is_stale()).then_some(cached.connection)
    }

    fn open(
        &mut self,
        destination: &Destination,
        first_server: usize,
        transport: &Transport,
        observer: &mut dyn Observer,
    ) -> Result<Connection, NotConnected> {
        let Self { myhostname, watcher, sessions, .. } = self;
        let mut caller = Caller { myhostname, watcher: *watcher, sessions };
        open::open(destination, first_server, transport, &mut caller, observer)
    }

    /// One transaction on `connection`.
    fn attempt<'a>(
        &mut self,
        mut connection: Connection,
        delivery: &Delivery<'a>,
        recipients: &[&'a Recipient],
        Standing { retry, is_alive }: Standing,
        observer: &mut dyn Observer,
    ) -> Attempted<'a> {
        let Delivery { batch, content, transport, .. } = *delivery;
        observer.ready(connection.peer(), connection.offered(), connection.uses());
        // The configuration may have been read again since the connection was opened.
        connection.keep_transcript(observer.wants_conversations());
        let manner = self.manner(&connection, delivery);
        let (peer, offered) = (connection.name().to_owned(), connection.offered().clone());
        let each = recipients.iter().copied();
        let mut transaction = Transaction::new(manner, &peer, &offered, batch, each, delivery.message());
        let result = connection.transact(&mut transaction, content, transport, retry, observer);
        match result {
            Ok(()) => {
                observer.conversation(connection.transcript());
                if let Some(limit) = transaction.recipients_before_too_many() {
                    connection.learn_recipient_limit(limit);
                }
                let has_ended = !transaction.must_close_abruptly();
                if let Some(reason) = transaction.closed_on().filter(|_| !is_alive) {
                    observer.destination_failed(reason);
                }
                if has_ended {
                    let reusable = transaction.is_reusable();
                    self.keep_or_leave(connection, batch.destination(), transport, reusable);
                }
                Attempted::Done { left_over: transaction.left_over(), has_ended }
            }
            Err(error) => {
                if error.is_protocol_error() {
                    observer.protocol_error(&error.to_string());
                    connection.note_break();
                }
                self.remember_protocol_error(batch.destination(), manner, &error, observer);
                let goes_on = transport.habits.fail_over;
                let next = next_server(&connection, batch.destination(), retry, goes_on, &error);
                if let Some(try_from) = next {
                    if goes_on && !retry {
                        // As it is logged of a server that could not be connected to.
                        observer.note(&error.to_string());
                    } else if !retry {
                        observer.note(&format!("{error}; the next server of the list is tried"));
                    }
                    // Replies that had come before it broke stand.
                    observer.settled(transaction.take_settled());
                    observer.conversation(connection.transcript());
                    return Attempted::Unsent { unsettled: transaction.unsettled(), try_from };
                }
                if !is_alive && !transaction.unsettled().is_empty() {
                    observer.destination_failed(&error.reason());
                }
                transaction.fail(&error);
                observer.settled(transaction.take_settled());
                observer.conversation(connection.transcript());
                Attempted::Broken(error)
            }
        }
    }

    fn manner(&self, connection: &Connection, delivery: &Delivery<'_>) -> Manner {
        let Delivery { batch, content, transport, probe, .. } = *delivery;
        let habits = &transport.habits;
        // Folding changes the size, which BDAT must tell in advance. A file that cannot be read now will say so
        // when it is sent.
        let limit = transport.line_length_limit;
        let must_fold = || limit > 0 && content.has_line_over(limit).unwrap_or(true);
        let is_used = connection.uses() > 0;
        Manner {
            protocol: transport.protocol,
            pipelining: transport.pipelining
                && connection.offered().pipelining
                && !self.stepwise.contains(batch.destination(), Instant::now()),
            chunking: transport.chunking && connection.offered().chunking && !must_fold(),
            eager_content_limit: transport.eager_content_limit,
            reset: is_used,
            hold_content: is_used && connection.rested_since().elapsed() > FRESH,
            over_quota: transport.over_quota,
            eight_bit: habits.eight_bit,
            unquoted: habits.unquoted_envelope,
            dummy_auth: connection.is_logged_in() && transport.send_dummy_mail_auth,
            probe: probe.then_some(if habits.probe_until_data { Probe::UntilData } else { Probe::UntilRcpt }),
        }
    }

    fn keep_or_leave(
        &mut self,
        connection: Connection,
        destination: &Destination,
        transport: &Arc<Transport>,
        reusable: bool,
    ) {
        let keep = reusable && connection.may_be_kept(transport);
        let cached =
            Cached { connection, destination: destination.clone(), transport: Arc::clone(transport) };
        if keep {
            self.cached = Some(cached);
        } else {
            // The rest of the batch goes first, so whoever left before is not waited for.
            self.say_goodbye(&|| true);
            self.leaving = Some(cached);
        }
    }

    /// Some servers cannot be pipelined to, whatever they say. End of file and timeouts prove nothing of the kind.
    fn remember_protocol_error(
        &self,
        destination: &Destination,
        manner: Manner,
        error: &SessionError,
        observer: &mut dyn Observer,
    ) {
        if manner.pipelining
            && error.is_protocol_error()
            && self.stepwise.remember(destination, Instant::now())
        {
            let text = format!("{error}; {destination} is spoken to without pipelining for an hour");
            observer.manner_changed(&text);
        }
    }
}

/// What came before a transaction.
#[derive(Clone, Copy)]
struct Standing {
    /// The connection was used before, and a failure that cannot have delivered may be tried again.
    retry: bool,
    /// A transaction of the batch has come to its end.
    is_alive: bool,
}

/// How one transaction ended.
enum Attempted<'a> {
    /// All replies were read; the server wants these in a transaction of their own. It `has_ended` unless the server
    /// closed, or had to be left.
    Done { left_over: Vec<&'a Recipient>, has_ended: bool },
    /// The server cannot have the message for these, and they can be tried again, from this server of the list on.
    Unsent { unsettled: Vec<&'a Recipient>, try_from: usize },
    /// The conversation broke; everybody of the transaction is settled.
    Broken(SessionError),
}

/// Recipients who are to be tried from one server of the list on.
struct Round<'a> {
    recipients: Vec<&'a Recipient>,
    first_server: usize,
    may_retry: bool,
}

/// Where to try again at once after `error`: anywhere if the connection had been used before (`retry`), and further on
/// in the list if the server cannot speak the protocol, or if mail `goes_on` there after any trouble. Never where the
/// message may be delivered twice.
fn next_server(
    connection: &Connection,
    destination: &Destination,
    retry: bool,
    goes_on: bool,
    error: &SessionError,
) -> Option<usize> {
    let next = connection.server() + 1;
    let is_broken = (error.is_protocol_error() || goes_on) && next < destination.servers().len();
    if error.may_have_delivered() || error.is_local() {
        None
    } else if retry {
        Some(0)
    } else {
        is_broken.then_some(next)
    }
}

/// No server was ready for `pending`, who are what is left of `batch`.
fn without_connection(
    batch: &Batch,
    pending: &[&Recipient],
    failure: NotConnected,
    is_alive: bool,
    observer: &mut dyn Observer,
) -> Delivered {
    let nobody_is_settled = pending.len() == batch.recipients().len();
    match failure {
        NotConnected::Busy(reason) if nobody_is_settled => Delivered::Busy(reason),
        NotConnected::Busy(reason) => {
            // A batch waits whole or not at all. The destination is alive: it has just taken some of it.
            observer.not_ready(None);
            observer.settled(not_delivered(pending, &reason));
            Delivered::Reached
        }
        NotConnected::Failed { reason, connected, .. } => {
            if !is_alive && reason.status.class() == 4 {
                observer.destination_failed(&reason);
            }
            observer.not_ready(connected.as_ref());
            observer.settled(not_delivered(pending, &reason));
            Delivered::Failed(reason)
        }
    }
}

/// The reason for recipients whose turn did not come: for them nothing is in doubt.
fn untried(error: &SessionError) -> Reason {
    let reason = error.reason();
    let text = format!("not tried after a transaction for other recipients failed: {}", reason.text);
    Reason::local(reason.status, text)
}

/// The same outcome for all of `recipients`: by its class, `reason` defers them or returns their mail.
fn not_delivered(recipients: &[&Recipient], reason: &Reason) -> Vec<Settled> {
    let outcome = if reason.status.class() == 5 { Outcome::Bounced } else { Outcome::Deferred };
    let settle = |recipient: &&Recipient| Settled {
        position: recipient.position,
        outcome: outcome(reason.clone()),
        in_doubt: false,
    };
    recipients.iter().map(settle).collect()
}
