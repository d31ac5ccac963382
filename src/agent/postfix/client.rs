//! The transport as it holds for one request: TLS and login by what main.cf's tables say of its next hop.
//!
//! - Owns: which words of a next hop stand for which server, and what becomes of mail where the tables have no good answer.
//! - Leaves to others: what entries mean (`postfix::tls_policy`, `postfix::login`), what a transport makes happen (`net`).
//! - Always true: a connection made by one policy or login carries no mail of another one: the transports differ, and
//!   cached connections go by that.

use std::sync::Arc;

use super::delivery::Context;
use crate::config::{Tls, TlsLevel, Transport};
use crate::mail::{Destination, EnhancedStatus, Outcome, Protocol, Reason, Server};
use crate::postfix::request::Request;
use crate::postfix::{login, tls_policy};

impl Context {
    /// The transport for a request to `destination`. Otherwise the mail is deferred, without an attempt.
    pub fn transport_for(
        &self,
        request: &Request,
        destination: &Destination,
    ) -> Result<Arc<Transport>, Outcome> {
        let usual = &self.transport;
        let (mut exact, mut credentials) = (Vec::new(), Vec::new());
        for (server, word) in destination.servers().iter().zip(self.words(&request.nexthop)) {
            let tls = self.tls_for(server, word, request)?;
            if tls != usual.tls {
                exact.push((server.clone(), tls));
            }
            if usual.sasl.auth_enable {
                let host = match server {
                    Server::Unix(_) => &self.settings.myhostname,
                    Server::Tcp { host, .. } => host,
                };
                let found = login::find(&self.passwords, &self.settings.logins, host, word);
                let found = found.map_err(|error| {
                    log::warn!("{}: {error}", request.queue_id);
                    deferred(4, 3, 0, "Temporary lookup error")
                })?;
                credentials.extend(found.map(|found| (server.clone(), found)));
            }
        }
        if exact.is_empty() && credentials.is_empty() {
            return Ok(Arc::clone(usual));
        }
        let mut transport = Transport::clone(usual);
        transport.tls.exact = exact;
        transport.secrets = transport.secrets.with_credentials(credentials);
        Ok(Arc::new(transport))
    }

    /// The words of a next hop, and of the relays behind it, in the order of its servers. A socket is its path.
    fn words<'a>(&'a self, next_hop: &'a str) -> impl Iterator<Item = &'a str> {
        let is_lmtp = self.transport.protocol == Protocol::Lmtp;
        let socket = next_hop.strip_prefix("unix:").filter(|_| is_lmtp);
        let list = if socket.is_some() { "" } else { next_hop };
        let relays = self.settings.fallback_relay.iter().map(String::as_str);
        let words = list.split([',', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).chain(relays);
        let words = words.map(move |word| word.strip_prefix("inet:").filter(|_| is_lmtp).unwrap_or(word));
        socket.into_iter().chain(words)
    }

    /// TLS for one server, which `word` names.
    fn tls_for(&self, server: &Server, word: &str, request: &Request) -> Result<Tls, Outcome> {
        let (usual, settings) = (&self.transport.tls, &self.settings.tls);
        let may_do_without = request.needs.tls_not_required();
        let policy = match may_do_without {
            // The sender wants the mail to arrive whatever the policy is (RFC 8689 section 5).
            true => None,
            false => tls_policy::find(&self.tls_policies, word)
                .map_err(|error| self.misconfigured_tls(request, &error))?,
        };
        let mut tls = match policy {
            None => usual.clone(),
            Some(policy) => policy.over(usual, settings).map_err(|what| {
                self.misconfigured_tls(request, &format_args!("next-hop destination \"{word}\": {what}"))
            })?,
        };
        let level = tls.security_level.unwrap_or(TlsLevel::None);
        let needed = match server {
            // Nobody listens in on a socket, and there is no second attempt in clear for one.
            Server::Unix(_) if level == TlsLevel::May || may_do_without => TlsLevel::None,
            _ if may_do_without && level.is_mandatory() => TlsLevel::May,
            _ => level,
        };
        if needed != level {
            tls.security_level = Some(needed);
            tls.protocols = settings.protocols_at(needed);
        }
        if tls.wrappermode && !needed.is_mandatory() && matches!(server, Server::Tcp { .. }) {
            let protocol = self.transport.protocol;
            log::warn!(
                "{}: {protocol}_tls_wrappermode requires \"{protocol}_tls_security_level = encrypt\" (or stronger)",
                request.queue_id
            );
            return Err(deferred(4, 3, 0, "server unavailable or unable to receive mail"));
        }
        Ok(tls)
    }

    fn misconfigured_tls(&self, request: &Request, what: &dyn std::fmt::Display) -> Outcome {
        log::warn!("{}: {}_tls_policy_maps, {what}", request.queue_id, self.transport.protocol);
        deferred(4, 7, 5, "client TLS configuration problem")
    }
}

fn deferred(class: u8, subject: u16, detail: u16, text: &str) -> Outcome {
    Outcome::Deferred(Reason::local(EnhancedStatus::new(class, subject, detail), text))
}
