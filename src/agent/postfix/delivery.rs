//! A request on its way through a worker: queue file, content, conversation, reports, answer.
//!
//! - Owns: the order of these.
//! - Leaves to others: the thread (`worker`), each step.
//! - Always true: the queue file is open, with its shared lock, from before the first octet is sent until the last mark
//!   is made, whoever has gone meanwhile; a job is answered when each of its recipients has an outcome.

use std::io;
use std::sync::Arc;

use super::content::{MeasuredContent, unreadable};
use super::job::{self, Job};
use super::master::Report;
use super::recorder::Recorder;
use crate::agent::log::OpenMailLog;
use crate::agent::prepend;
use crate::agent::source::Source;
use crate::config::Transport;
use crate::mail::{Batch, Destination, EnhancedStatus, Outcome, PostfixNexthops, Reason};
use crate::net::{CachedConnection, Delivered, Delivery, Observer, Peer};
use crate::postfix::address::{self, Form};
use crate::postfix::maps::{Maps, MatchList};
use crate::postfix::parameters::{ConnectionCache, Settings};
use crate::postfix::queue_file::{BadName, Layout, OpenError, QueueFile};
use crate::postfix::record::ContentError;
use crate::postfix::report::{LineFormat, Reporter};
use crate::postfix::request::Release;
use crate::queue::scheduler::{BatchEnd, Health, WorkerId};
use crate::smtp::{Origin, Smtputf8};

/// What all threads of the process share.
#[derive(Debug)]
pub struct Context {
    /// What main.cf says.
    pub settings: Settings,
    /// The name of the service in master.cf.
    pub service: String,
    /// The transport's parameters.
    pub transport: Arc<Transport>,
    /// Which protocols Postfix speaks.
    pub release: Release,
    /// Where queue files lie.
    pub layout: Layout,
    /// How log lines are written.
    pub line_format: LineFormat,
    /// Where outcomes are told.
    pub reporter: Reporter,
    /// The mail log.
    pub log: OpenMailLog,
    /// Next hops to which connections are kept, where Postfix's ways are followed.
    pub kept_destinations: MatchList,
    /// Keywords that count as not offered, by the server's address.
    pub discarded_keywords: Maps,
    /// What TLS has to be for single next hops.
    pub tls_policies: Maps,
    /// Names and passwords, by server and by next hop.
    pub passwords: Maps,
}

/// Why a queue file cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error(transparent)]
    File(#[from] OpenError),
}

impl Context {
    /// Where a next hop leads. One that leads nowhere defers the mail: it is for the administrator to mend.
    pub fn destination(&self, nexthop: &str) -> Result<Destination, Outcome> {
        let nexthops = PostfixNexthops {
            transport: &self.transport.name,
            protocol: self.transport.protocol,
            default_port: self.transport.tcp_port,
            port_of: |name: &str| self.settings.known_ports.port_of(name),
        };
        let relays = &self.settings.fallback_relay;
        // A socket has no other servers behind it.
        let destination = match relays.is_empty() || nexthop.starts_with("unix:") {
            true => nexthops.destination(nexthop),
            false => nexthops.destination(&format!("{nexthop}, {}", relays.join(", "))),
        };
        destination.map_err(Outcome::Deferred)
    }

    fn open(&self, job: &Job) -> Result<QueueFile, Unusable> {
        let request = &job.request;
        let path = self.layout.path(&request.queue_name, &request.queue_id)?;
        Ok(QueueFile::open(&path)?)
    }

    /// Keywords that count as not offered by a server; `None` where no table knows it.
    pub fn keywords_to_discard(&self, peer: &Peer) -> io::Result<Option<Vec<String>>> {
        let address = match peer {
            Peer::Unix { path, .. } => path.display().to_string(),
            Peer::Tcp { address, .. } => address.ip().to_string(),
        };
        let found = self.discarded_keywords.look_up(&address).map_err(io::Error::other)?;
        let words = |text: String| {
            text.split([',', ' ', '\t'])
                .map(str::to_ascii_uppercase)
                .filter(|word| !word.is_empty())
                .collect()
        };
        Ok(found.map(words))
    }

    /// Whether a request may use a connection from before, and whether it should leave one.
    fn connection_wishes(&self, job: &Job) -> (bool, bool) {
        let ConnectionCache::Postfix { on_demand } = self.settings.connection_cache else {
            return (true, true);
        };
        let request = &job.request;
        let is_kept = self.kept_destinations.contains(&request.nexthop).unwrap_or_else(|error| {
            log::warn!("{}: {error}; the connection is not kept", job.queue_id());
            false
        });
        let (load, store) = (request.flags.conn_load(), request.flags.conn_store());
        (is_kept || on_demand && load, is_kept || on_demand && store)
    }
}

/// A batch on its way to a worker.
#[derive(Debug)]
pub struct Order {
    /// All of the job that can be said to a server.
    pub batch: Batch,
    /// The job.
    pub job: Arc<Job>,
}

/// Postfix, as workers need it.
#[derive(Clone, Debug)]
pub struct PostfixSource {
    /// What all threads share.
    pub context: Arc<Context>,
}

impl Source for PostfixSource {
    type Order = Order;
    type Report = Report;

    fn deliver(&self, worker: WorkerId, order: &Order, connection: &mut CachedConnection) -> Report {
        let health = self.attempt(order, connection);
        let answered = !matches!(health, Health::Busy(..));
        let cached = connection.destination() == Some(order.batch.destination());
        let end = BatchEnd { cached, destination: health };
        Report::Ended { worker, key: order.job.key, end, answered }
    }

    fn lost(worker: WorkerId, order: Order) -> Report {
        Report::Lost { worker, order: Box::new(order) }
    }

    fn gone(worker: WorkerId) -> Report {
        Report::Gone { worker }
    }

    #[cfg(test)]
    fn reported(order: &Order) {
        super::tests::panic_if_asked(&order.job, "after");
    }
}

impl PostfixSource {
    fn attempt(&self, order: &Order, connection: &mut CachedConnection) -> Health {
        let Order { batch, job } = order;
        let context = &*self.context;
        let file = match context.open(job) {
            Ok(file) => file,
            Err(error) => {
                leave(job, &error);
                return Health::Untouched;
            }
        };
        #[cfg(test)]
        super::tests::panic_if_asked(job, "early");
        let mut recorder = Recorder::new(context, job, &file);
        recorder.settle_refused();
        let (reuse, keep) = context.connection_wishes(job);
        if !reuse {
            connection.close(&|| true);
        }
        let health = self.deliver_file(batch, &file, connection, &mut recorder);
        if !keep {
            connection.close(&|| true);
        }
        #[cfg(test)]
        super::tests::panic_if_asked(job, "late");
        if !matches!(health, Health::Busy(..)) {
            recorder.answer();
        }
        health
    }

    fn deliver_file(
        &self,
        batch: &Batch,
        file: &QueueFile,
        connection: &mut CachedConnection,
        recorder: &mut Recorder<'_>,
    ) -> Health {
        let job = recorder.job();
        let request = &job.request;
        if let Some(outcome) = self.misconfigured(batch) {
            recorder.decided_here();
            recorder.settle_rest(&outcome);
            return Health::Untouched;
        }
        let transport = match self.context.transport_for(request, batch.destination()) {
            Ok(transport) => transport,
            Err(outcome) => {
                recorder.destination_failed(outcome.reason());
                recorder.settle_rest(&outcome);
                return Health::Untouched;
            }
        };
        let content = match self.content(batch, file, job) {
            Ok(content) => content,
            Err(Undeliverable::Content(error)) => {
                let outcome = unreadable(job, &error);
                recorder.settle_rest(&outcome);
                if matches!(outcome, Outcome::Bounced(_)) && job.is_done() {
                    set_aside(job, file);
                }
                return Health::Untouched;
            }
            Err(Undeliverable::Loop(outcome)) => {
                recorder.decided_here();
                recorder.settle_rest(&outcome);
                return Health::Untouched;
            }
        };
        let needs = request.needs;
        let client = &request.client;
        let delivery = Delivery {
            body: job::body(request),
            smtputf8: Smtputf8::Told {
                wanted: needs.smtputf8_requested(),
                required: needs.requires_smtputf8(),
            },
            origin: Some(Origin {
                name: &client.name,
                address: &client.address,
                port: &client.port,
                protocol: &client.protocol,
                helo: &client.helo,
                ident: &client.ident,
                rewrite_context: &client.rewrite_context,
            }),
            probe: request.flags.is_probe(),
            ..Delivery::new(batch, &content, &transport)
        };
        match connection.deliver(&delivery, recorder) {
            // What failed is no reason to spare the destination here: the answer tells qmgr, whose affair that is.
            Delivered::Reached | Delivered::Failed(_) => Health::Reached,
            Delivered::Busy(reason) => Health::Busy(batch.clone(), reason),
        }
    }

    /// A header field that names the recipient cannot name several.
    fn misconfigured(&self, batch: &Batch) -> Option<Outcome> {
        let flags = self.context.transport.flags;
        let flag = if flags.delivered_to { "D" } else { "O" };
        let names_recipient = flags.delivered_to || flags.original_to;
        (names_recipient && batch.recipients().len() > 1).then(|| {
            let service = &self.context.service;
            log::warn!("flag `{flag}' requires {service}_destination_recipient_limit = 1");
            Outcome::Deferred(Reason::local(EnhancedStatus::new(4, 3, 5), "mail system configuration error"))
        })
    }

    fn content<'a>(
        &self,
        batch: &Batch,
        file: &'a QueueFile,
        job: &'a Job,
    ) -> Result<MeasuredContent<'a>, Undeliverable> {
        let transport = &self.context.transport;
        let request = &job.request;
        // With a flag that needs it, there is one recipient.
        let original = request.recipients.first().map(|recipient| &recipient.original);
        let original = original.filter(|original| !original.is_empty());
        let original = original.map(|original| {
            String::from_utf8_lossy(&address::externalised(original, Form::Header)).into_owned()
        });
        let delivered_to = match transport.flags.delivered_to {
            true => file.delivered_to(request.content_offset)?,
            false => Vec::new(),
        };
        let was_delivered_to =
            |address: &str| delivered_to.iter().any(|known| known.eq_ignore_ascii_case(address.as_bytes()));
        let prefix = prepend::headers(batch, transport.flags, original.as_deref(), was_delivered_to)
            .map_err(Undeliverable::Loop)?;
        Ok(MeasuredContent::read(prefix, file, job, transport.line_length_limit)?)
    }
}

/// Why a message is not even tried.
enum Undeliverable {
    Content(ContentError),
    Loop(Outcome),
}

impl From<ContentError> for Undeliverable {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

/// qmgr puts a file of that mode into the corrupt queue.
fn set_aside(job: &Job, file: &QueueFile) {
    let path = file.path().display();
    match file.make_corrupt() {
        Ok(()) => log::warn!("corrupted queue file: {path}"),
        Err(error) => {
            let id = job.queue_id();
            log::error!("{id}: the queue file {path} is corrupt, and cannot be marked as such: {error}");
        }
    }
}

/// Settles whoever is left of a job without an attempt, and answers it. With `destination_failed` qmgr hears that the
/// destination is at fault.
pub fn settle(context: &Context, job: &Job, outcome: Option<&Outcome>, destination_failed: bool) {
    match context.open(job) {
        Ok(file) => {
            let mut recorder = Recorder::new(context, job, &file);
            recorder.settle_refused();
            if let Some(outcome) = outcome {
                if destination_failed {
                    recorder.destination_failed(outcome.reason());
                }
                recorder.settle_rest(outcome);
            }
            recorder.answer();
        }
        Err(error) => leave(job, &error),
    }
}

/// A message whose file cannot be used is left to qmgr: nobody is told anything about it.
fn leave(job: &Job, error: &Unusable) {
    let id = job.queue_id();
    log::warn!("{id}: {error}; the message is left to the queue manager");
    job.answer(None);
}
