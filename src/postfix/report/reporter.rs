//! Carries out plans: tells the daemons, warns where one does not hear, has the line written in between.
//!
//! - Owns: what is remembered between the recipients of one request.
//! - Leaves to others: who is told what (`decision`), how (`services`), log lines and marks (the caller's).
//! - Always true: one daemon that does not answer costs one timeout a request, not one a recipient; no lock is held
//!   while a daemon is waited for, so that threads report side by side.

use std::collections::BTreeSet;
use std::fmt;

use super::call::{self, Call, Service};
use super::decision::{Act, Attempted, Logged, Policy, Verdict, decide};
use super::services::Services;
use crate::mail::{printable, shortened};

/// The tables of the delivery status filter: what they have for `status text`.
pub type StatusFilter = Box<dyn Fn(&str) -> Result<Option<String>, String> + Send + Sync>;

/// The domains whose waiting mail flush(8) keeps count of (`fast_flush_domains`): whether this is one.
pub type FlushDomains = Box<dyn Fn(&str) -> Result<bool, String> + Send + Sync>;

/// Reports for all requests, from any thread.
pub struct Reporter {
    services: Services,
    policy: Policy,
    filter: Option<StatusFilter>,
    flush: Option<FlushDomains>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, policy, .. } = self;
        f.debug_struct("Reporter").field("services", services).field("policy", policy).finish_non_exhaustive()
    }
}

impl Reporter {
    /// Without a filter no status is changed; without domains flush(8) hears nothing.
    pub fn new(
        services: Services,
        policy: Policy,
        filter: Option<StatusFilter>,
        flush: Option<FlushDomains>,
    ) -> Self {
        Self { services, policy, filter, flush }
    }

    /// The daemons.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Begins with a request.
    pub fn begin(&self) -> Reports<'_> {
        Reports { reporter: self, silent: BTreeSet::new(), hinted: BTreeSet::new() }
    }
}

/// The reports of one request.
#[derive(Debug)]
pub struct Reports<'r> {
    reporter: &'r Reporter,
    /// Who has not answered in time.
    silent: BTreeSet<Service>,
    /// Domains that flush(8) has heard of, or need not.
    hinted: BTreeSet<Vec<u8>>,
}

impl Reports<'_> {
    /// Tells everybody who has to know how an attempt ended. `log` writes the line, at its time: after what decides
    /// about it, before what does not. Mark the recipient as the verdict says, once this returns.
    pub fn report<'a>(&mut self, attempted: &Attempted<'a>, log: &mut dyn FnMut(&Logged<'_>)) -> Verdict<'a> {
        let Reporter { policy, filter, .. } = self.reporter;
        let filter = filter.as_ref().map(|filter| &**filter as &dyn Fn(&str) -> _);
        let (plan, problem) = decide(policy, attempted, filter);
        let queue_id = attempted.queue_id;
        if let Some(problem) = problem {
            log::warn!("{queue_id}: {}; the status stays as it was", shortened(&problem));
        }
        plan.carry_out(&mut |act| match act {
            Act::Tell(call) => self.tell(call),
            Act::WaitsFor(domain) => self.waits_for(domain, queue_id),
            Act::Log(line) => {
                log(line);
                true
            }
            Act::Warn(service) => {
                log::warn!("{queue_id}: {} service failure", policy.names.of(service));
                true
            }
        })
    }

    fn tell(&mut self, call: &Call) -> bool {
        // qmgr(8) waits for the whole request, and not for ever.
        if self.silent.contains(&call.service) {
            return false;
        }
        let Err(failure) = self.reporter.services.tell(call) else { return true };
        log::warn!("{failure}");
        if failure.is_timeout() {
            self.silent.insert(call.service);
        }
        false
    }

    /// Once for a domain is enough: flush(8) keeps messages, not recipients.
    fn waits_for(&mut self, domain: &[u8], queue_id: &str) -> bool {
        let Some(flush) = &self.reporter.flush else { return true };
        if self.hinted.contains(domain) {
            return true;
        }
        self.hinted.insert(domain.to_vec());
        // flush(8) knows no domain with other octets than these.
        let Ok(name) = std::str::from_utf8(domain) else { return true };
        match flush(name) {
            Ok(true) => self.tell(&call::waits_for(domain, queue_id)),
            Ok(false) => true,
            Err(problem) => {
                log::warn!("{queue_id}: fast_flush_domains: {}: {problem}", printable(domain));
                false
            }
        }
    }
}
