//! Messages on their way into memory, and why one is not.

use std::sync::Arc;

use super::{Load, PickupThread, is_trusted};
use crate::agent::finish;
use crate::agent::log::PICKUP;
use crate::agent::message::Message;
use crate::agent::recorder::logged;
use crate::agent::report::{Loaded, Report};
use crate::mail::{Address, Destination, EnhancedStatus, Envelope, Protocol, QueueId, Reason};
use crate::spool::{Cursor, LoadError, Place, State};

impl PickupThread {
    pub(super) fn load(&mut self, load: Load) -> Report {
        let Load { id, errand, .. } = load;
        let dismissed = |queued| Report::Dismissed { id, errand, queued };
        if load.from == Place::Deferred {
            match self.spool.move_to(id, Place::Deferred, Place::Active) {
                Ok(true) => {}
                Ok(false) => return dismissed(Vec::new()),
                Err(error) => {
                    log::error!(
                        "{id}: it cannot be moved from deferred/ to active/: {error}; tried again later"
                    );
                    return dismissed(Vec::new());
                }
            }
        }
        let loaded = match &load.next {
            None => self.spool.load(id, Cursor::default(), load.window),
            Some((message, cursor)) => match self.spool.open_again(&message.envelope, &message.layout) {
                Ok(Some(file)) => file.load(*cursor, load.window),
                // Or somebody has put another file in its place: what is in memory is not about that one.
                Ok(None) => Err(LoadError::Gone),
                Err(error) => Err(error),
            },
        };
        match loaded {
            Ok(loaded) => self.loaded(load, loaded),
            Err(error) => dismissed(self.not_loaded(id, &error)),
        }
    }

    pub(super) fn loaded(&self, load: Load, loaded: crate::spool::Loaded) -> Report {
        let Load { id, errand, .. } = load;
        let refused = loaded.recipients.iter().filter(|(_, state)| *state == State::Refused).count();
        let is_first = load.next.is_none();
        let Envelope { origin, sender, .. } = &*loaded.envelope;
        if load.is_new && origin.starts_with("uid=") {
            log::info!(target: PICKUP, "{id}: {origin} {}", logged(sender));
        }
        let message = match load.next {
            Some((message, _)) => message,
            None => Arc::new(Message::new(loaded.envelope, loaded.layout, loaded.unsettled)),
        };
        // Refused ones were settled by an earlier attempt; only their bounce is owed, which finishing sees to.
        if loaded.unsettled == 0 && self.sweeper.has_backlog() {
            // It is about to be removed; if not, the next listing finds it again.
            return Report::Dismissed { id, errand, queued: Vec::new() };
        }
        let is_done = loaded.unsettled == 0 || message.count_down(refused);
        if is_done {
            let finished =
                finish::finish(&self.spool, &self.sweeper, &self.config, &message, Protocol::Lmtp, None);
            return Report::Dismissed { id, errand, queued: finished.queued };
        }
        #[cfg(test)]
        crate::agent::tests::panic_if_any(loaded.recipients.iter().map(|(r, _)| r), "load@test.invalid");
        let nexthop = match self.nexthop(&message.envelope) {
            Ok(nexthop) => nexthop,
            Err(reason) => {
                let unplaced = loaded.recipients.into_iter().filter(|(_, state)| *state != State::Refused);
                let unplaced: Vec<_> = unplaced.map(|(recipient, _)| recipient).collect();
                if let Some(finished) = self.defer_unplaced(&message, &unplaced, reason) {
                    return Report::Dismissed { id, errand, queued: finished.queued };
                }
                let (rest, next, count) = (loaded.rest, loaded.next, loaded.count);
                let recipients = Vec::new();
                return Report::Loaded(Box::new(Loaded {
                    message,
                    errand,
                    recipients,
                    rest,
                    next,
                    is_first,
                    count,
                }));
            }
        };
        let mut recipients = Vec::with_capacity(loaded.recipients.len());
        for (recipient, state) in loaded.recipients {
            match state {
                State::Refused => continue,
                State::InDoubt => log::warn!(
                    "{id}: an earlier attempt for <{}> ended without an answer to the end of data; \
                     the message may be delivered twice",
                    recipient.address
                ),
                State::Pending | State::Sent | State::Bounced => {}
            }
            let destination =
                nexthop.clone().unwrap_or_else(|| self.route(&message.envelope, &recipient.address));
            recipients.push((destination, recipient));
        }
        Report::Loaded(Box::new(Loaded {
            message,
            errand,
            recipients,
            rest: loaded.rest,
            next: loaded.next,
            is_first,
            count: loaded.count,
        }))
    }

    /// Where the message itself says that it goes. Whoever said so may have chosen that way for privacy: where it has
    /// gone, after a reload say, the mail waits, and takes no other.
    fn nexthop(&self, envelope: &Envelope) -> Result<Option<Destination>, Reason> {
        let Some(nexthop) = &envelope.nexthop else { return Ok(None) };
        self.config.destination(nexthop).map(Some).map_err(|error| {
            let text = format!("the nexthop of this message cannot be used: {error}");
            Reason::local(EnhancedStatus::new(4, 3, 5), text)
        })
    }

    /// Asked again at every attempt, so that a changed route counts for mail that waits.
    fn route(&self, envelope: &Envelope, recipient: &Address) -> Destination {
        match &self.config.bounce_nexthop {
            Some(destination) if envelope.sender.is_null() && !envelope.origin.starts_with("uid=") => {
                destination.clone()
            }
            _ => self.config.route(recipient),
        }
    }

    /// Returns what is to be loaded in its place. The master must hear of that together with the end of this try: as long
    /// as the ID is in its table, it loads nothing of that name.
    pub(super) fn not_loaded(&mut self, id: QueueId, error: &LoadError) -> Vec<QueueId> {
        match error {
            LoadError::Gone => {}
            LoadError::Foreign(_) => {
                let config = Arc::clone(&self.config);
                let picked_up = self.pickup.take_foreign(id, Place::Active, &|uid| is_trusted(&config, uid));
                return self.log(picked_up).into_iter().collect();
            }
            LoadError::Io(error) => {
                log::error!("{id}: the queue file cannot be read: {error}; tried again in a minute");
            }
            LoadError::Version(_) | LoadError::Corrupt(_) => self.set_aside(id, error),
        }
        Vec::new()
    }

    pub(super) fn set_aside(&self, id: QueueId, error: &LoadError) {
        let Some(place) = error.place() else { return };
        match self.spool.move_to(id, Place::Active, place) {
            Ok(true) => log::error!("{id}: {error}; it is kept in {}/", place.name()),
            Ok(false) => {}
            Err(moving) => {
                log::error!("{id}: {error}; and it cannot be moved to {}/: {moving}", place.name());
            }
        }
    }
}
