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
            exact.push((server.clone(), self.tls_for(server, word, request)?));
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
        // All of them or none: a server that is named twice goes by its first name.
        if exact.iter().all(|(_, tls)| *tls == usual.tls) {
            exact.clear();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::log::OpenMailLog;
    use crate::config::{CertMatch, Flags, TlsServerName};
    use crate::postfix::maps::Tables;
    use crate::postfix::parameters::{Settings, Values};
    use crate::postfix::request::{Client, Needs, RequestFlags, Times};
    use crate::smtp::{Credentials, Proof, Secret};

    /// A service, with these parameters.
    fn context(protocol: Protocol, pairs: &[(&str, &str)]) -> Context {
        let least = [
            ("mail_version", "3.10.1"),
            ("queue_directory", "/var/spool/postfix"),
            ("myhostname", "our.example.org"),
        ];
        let values: Values = least.into_iter().chain(pairs.iter().copied()).collect();
        let settings = Settings::from_values(&values, protocol, Flags::default()).unwrap();
        let tables = Tables::open(&settings).unwrap();
        super::super::start::context(settings, tables, "lastmile".to_owned(), OpenMailLog::unheard())
    }

    fn request(next_hop: &str, needs: u32) -> Request {
        Request {
            flags: RequestFlags::default(),
            queue_name: "active".to_owned(),
            queue_id: "4ABC".to_owned(),
            content_offset: 0,
            size: 0,
            nexthop: next_hop.to_owned(),
            encoding: String::new(),
            needs: Needs(needs),
            sender: Vec::new(),
            envelope_id: Vec::new(),
            ret: 0,
            times: Times::default(),
            client: Client::default(),
            recipients: Vec::new(),
        }
    }

    /// The transport for a next hop, and its first server.
    fn transport(context: &Context, next_hop: &str, needs: u32) -> Result<(Arc<Transport>, Server), Outcome> {
        let destination = context.destination(next_hop).unwrap();
        let transport = context.transport_for(&request(next_hop, needs), &destination)?;
        Ok((transport, destination.servers()[0].clone()))
    }

    fn level(context: &Context, next_hop: &str, needs: u32) -> TlsLevel {
        let (transport, server) = transport(context, next_hop, needs).unwrap();
        transport.tls.policy_for(&server).level
    }

    const TLS_NOT_REQUIRED: u32 = 16;

    #[test]
    fn a_next_hop_has_the_level_of_its_policy_as_it_is_written() {
        let maps = "inline:{ {mx.example.org = none}, {[mx.example.org] = verify}, {mx.example.org:24 = secure}, \
                    {.example.net = encrypt}, {192.0.2.1 = may}, {/run/lmtp = encrypt} }";
        let context = context(
            Protocol::Lmtp,
            &[("lmtp_tls_security_level", "fingerprint"), ("lmtp_tls_policy_maps", maps)],
        );
        for (next_hop, expected) in [
            ("mx.example.org", TlsLevel::None),
            ("inet:mx.example.org", TlsLevel::None),
            ("[mx.example.org]", TlsLevel::Verify),
            // The same server, and another policy.
            ("mx.example.org:24", TlsLevel::Secure),
            ("mx.example.org:2424", TlsLevel::Fingerprint),
            ("a.b.example.net", TlsLevel::Encrypt),
            ("[a.b.example.net]", TlsLevel::Fingerprint),
            ("192.0.2.1", TlsLevel::May),
            ("unix:/run/lmtp", TlsLevel::Encrypt),
        ] {
            assert_eq!(level(&context, next_hop, 0), expected, "{next_hop}");
        }
    }

    #[test]
    fn each_server_of_a_list_and_each_relay_has_its_own_policy() {
        let maps =
            "inline:{a.example=none, b.example=encrypt, {[relay.example]:25 = secure match=relay.example}}";
        let context = context(
            Protocol::Lmtp,
            &[
                ("lmtp_tls_security_level", "may"),
                ("lmtp_tls_policy_maps", maps),
                ("lmtp_fallback_relay", "[relay.example]:25"),
            ],
        );
        let next_hop = "a.example, inet:b.example c.example";
        let destination = context.destination(next_hop).unwrap();
        let transport = context.transport_for(&request(next_hop, 0), &destination).unwrap();
        let policies: Vec<_> =
            destination.servers().iter().map(|server| transport.tls.policy_for(server)).collect();
        let levels: Vec<_> = policies.iter().map(|policy| policy.level).collect();
        assert_eq!(levels, [TlsLevel::None, TlsLevel::Encrypt, TlsLevel::May, TlsLevel::Secure]);
        assert_eq!(policies[3].matches, [CertMatch::Name("relay.example".to_owned())]);
        assert_eq!(policies[3].servername, &TlsServerName::None);
    }

    #[test]
    fn without_a_policy_or_login_the_transport_is_the_one_of_all() {
        let context = context(Protocol::Lmtp, &[("lmtp_tls_security_level", "encrypt")]);
        for next_hop in ["mx.example.org", "unix:/run/lmtp"] {
            let (transport, server) = transport(&context, next_hop, 0).unwrap();
            assert!(Arc::ptr_eq(&transport, &context.transport));
            assert_eq!(transport.tls.policy_for(&server).level, TlsLevel::Encrypt);
        }
    }

    #[test]
    fn to_a_socket_there_is_no_tls_for_the_sake_of_it() {
        let context = context(Protocol::Lmtp, &[("lmtp_tls_security_level", "may")]);
        assert_eq!(level(&context, "unix:/run/lmtp", 0), TlsLevel::None);
        assert_eq!(level(&context, "mx.example.org", 0), TlsLevel::May);
    }

    #[test]
    fn a_sender_who_does_not_require_tls_gets_no_more_than_may() {
        for (usual, expected) in [
            ("none", TlsLevel::None),
            ("may", TlsLevel::May),
            ("encrypt", TlsLevel::May),
            ("secure", TlsLevel::May),
        ] {
            let maps = "inline:{bad.example=dane, mx.example.org=secure}";
            let pairs = [("smtp_tls_security_level", usual), ("smtp_tls_policy_maps", maps)];
            let context = context(Protocol::Smtp, &pairs);
            for next_hop in ["[mx.example.org]", "[bad.example]"] {
                assert_eq!(level(&context, next_hop, TLS_NOT_REQUIRED), expected, "{usual} {next_hop}");
            }
        }
        let context = context(Protocol::Lmtp, &[("lmtp_tls_security_level", "encrypt")]);
        assert_eq!(level(&context, "unix:/run/lmtp", TLS_NOT_REQUIRED), TlsLevel::None);
    }

    #[test]
    fn a_policy_that_cannot_be_followed_defers_its_mail_alone() {
        let maps = "inline:{bad.example=dane, {worse.example=secure match=}, mx.example.org=encrypt}";
        let context = context(Protocol::Lmtp, &[("lmtp_tls_policy_maps", maps)]);
        for next_hop in ["bad.example", "worse.example", "mx.example.org, bad.example"] {
            let outcome = transport(&context, next_hop, 0).unwrap_err();
            assert!(matches!(outcome, Outcome::Deferred(_)), "{outcome:?}");
            let reason = outcome.reason();
            assert_eq!(reason.text, "client TLS configuration problem");
            assert_eq!(reason.status, EnhancedStatus::new(4, 7, 5));
        }
        assert_eq!(level(&context, "mx.example.org", 0), TlsLevel::Encrypt);
    }

    #[test]
    fn a_table_that_gives_no_answer_defers_mail() {
        let pairs = [("lmtp_tls_policy_maps", "proxy:mysql:/nonexistent")];
        let outcome = transport(&context(Protocol::Lmtp, &pairs), "mx.example.org", 0).unwrap_err();
        assert_eq!(outcome.reason().status, EnhancedStatus::new(4, 7, 5));
    }

    #[test]
    fn wrappermode_and_a_policy_that_does_without_tls_cannot_be() {
        let pairs = [
            ("lmtp_tls_wrappermode", "yes"),
            ("lmtp_tls_security_level", "encrypt"),
            ("lmtp_tls_policy_maps", "inline:{mx.example.org=may}"),
        ];
        let context = context(Protocol::Lmtp, &pairs);
        let outcome = transport(&context, "mx.example.org", 0).unwrap_err();
        assert_eq!(outcome.reason().text, "server unavailable or unable to receive mail");
        let (transport, server) = transport(&context, "other.example.org", 0).unwrap();
        assert!(transport.tls.policy_for(&server).wrappermode);
    }

    #[test]
    fn we_log_in_to_servers_that_the_table_names_and_connections_go_by_it() {
        let maps = "inline:{mx.example.org=a:1, [relay.example]:25=b:2, /run/lmtp=c:3, our.example.org=d:4}";
        let pairs = [("lmtp_sasl_auth_enable", "yes"), ("lmtp_sasl_password_maps", maps)];
        let context = context(Protocol::Lmtp, &pairs);
        let password = |text: &str| Proof::Password(Secret::new(text.to_owned()));
        for (next_hop, found) in [
            ("[mx.example.org]:2424", Some(("a", "1"))),
            ("[relay.example]:25", Some(("b", "2"))),
            ("[relay.example]", None),
            // A socket's host is our own.
            ("unix:/run/lmtp", Some(("d", "4"))),
            ("unix:/run/other", Some(("d", "4"))),
        ] {
            let (transport, server) = transport(&context, next_hop, 0).unwrap();
            let found =
                found.map(|(name, proof)| Credentials { username: name.to_owned(), proof: password(proof) });
            assert_eq!(transport.secrets.credentials(&server).unwrap(), found, "{next_hop}");
            assert_eq!(*transport == *context.transport, found.is_none(), "{next_hop}");
            let again = self::transport(&context, next_hop, 0).unwrap().0;
            assert!(*transport == *again, "a connection to {next_hop} could not be used again");
        }
        let first = transport(&context, "mx.example.org", 0).unwrap().0;
        let second = transport(&context, "[relay.example]:25", 0).unwrap().0;
        assert!(*first != *second);
    }
}
