//! The start of a conversation: greeting, LHLO or EHLO, HELO where EHLO is not known, STARTTLS (RFC 3207), AUTH (RFC 4954).
//!
//! - Owns: the order of these, and what is asked of a server before it gets mail.
//! - Leaves to others: the TLS handshake (`net`), the lines of a login (`auth`).
//! - Always true: what was offered before TLS is forgotten after it; where TLS or a login is asked for, no connection
//!   without it is ever ready; none of this returns mail, but for the refusals that were asked for.

use super::auth::{Answer, Credentials, Exchange, Line, Login, Redactor, SecurityOptions};
use super::capabilities::Capabilities;
use super::command;
use super::failure::{refused_start_tls, refused_to_talk};
use super::reply::{Class, Reply};
use super::stage::Stage;
use crate::mail::{EnhancedStatus, Protocol, Reason};

/// What to do after a reply of the handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this and read one reply.
    Send(Vec<u8>),
    /// Write this, which may hold a secret, and read one reply.
    SendLine(Line),
    /// Make the TLS handshake, then go on with [`Handshake::secured`].
    StartTls,
    /// Mail can be sent.
    Ready(Capabilities),
    /// The server does not want us, or does not do what is asked of it.
    Refused(Reason),
}

/// Which 5yz replies before any mail return the mail. The other ones keep it, as the server may be at fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// The greeting.
    pub greeting_bounces: bool,
    /// LHLO, EHLO, or the HELO after it.
    pub hello_bounces: bool,
}

/// Whether STARTTLS is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartTls {
    /// Never: TLS is not wanted, or has begun with the connection.
    #[default]
    Never,
    /// Where it is offered.
    IfOffered,
    /// Always: without it no mail is sent.
    Required,
}

/// An account on a server.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// Whom we are.
    pub credentials: &'a Credentials,
    /// The mechanisms that may be used, in upper case; empty: all.
    pub filter: &'a [String],
    /// The server's name or address.
    pub host: &'a str,
    /// Its port; 0 for a UNIX-domain socket.
    pub port: u16,
}

/// What a login may rest on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footing {
    /// What a mechanism must not do on this connection.
    pub options: SecurityOptions,
    /// What ties a login to the TLS connection, if anything does.
    pub channel_binding: Option<Vec<u8>>,
    /// Whether the server has proved by its certificate who it is.
    pub is_server_known: bool,
}

/// The handshake: fed with replies, starting with the greeting, until it is `Ready` or `Refused`.
#[derive(Debug)]
pub struct Handshake<'a> {
    protocol: Protocol,
    peer: &'a str,
    myhostname: &'a str,
    discard: &'a [String],
    refusals: Refusals,
    start_tls: StartTls,
    account: Option<Account<'a>>,
    footing: Footing,
    /// Of a login that is over.
    redactor: Option<Redactor>,
    awaited: Awaited,
}

#[derive(Debug)]
enum Awaited {
    Greeting,
    Hello,
    Helo,
    /// With what was offered in clear, which is forgotten if it comes to TLS.
    StartTls(Capabilities),
    Auth(Box<Exchange>, Capabilities),
}

impl<'a> Handshake<'a> {
    /// Waits for the greeting of `peer`; keywords in `discard` count as not offered.
    pub fn new(protocol: Protocol, peer: &'a str, myhostname: &'a str, discard: &'a [String]) -> Self {
        Self {
            protocol,
            peer,
            myhostname,
            discard,
            refusals: Refusals::default(),
            start_tls: StartTls::default(),
            account: None,
            footing: Footing::default(),
            redactor: None,
            awaited: Awaited::Greeting,
        }
    }

    /// The same, with what refusals mean.
    pub fn with_refusals(self, refusals: Refusals) -> Self {
        Self { refusals, ..self }
    }

    /// The same, saying STARTTLS or not.
    pub fn with_start_tls(self, start_tls: StartTls) -> Self {
        Self { start_tls, ..self }
    }

    /// The same, logging in where there is an account, and on which footing as long as STARTTLS has not changed it.
    pub fn with_login(self, account: Option<Account<'a>>, footing: Footing) -> Self {
        Self { account, footing, ..self }
    }

    /// The stage whose reply is awaited.
    pub fn stage(&self) -> Stage {
        match self.awaited {
            Awaited::Greeting => Stage::Greeting,
            Awaited::Hello | Awaited::Helo => Stage::Lhlo,
            Awaited::StartTls(_) => Stage::StartTls,
            Awaited::Auth(..) => Stage::Auth,
        }
    }

    /// Takes the reply that was awaited.
    pub fn on_reply(&mut self, reply: &Reply) -> Next {
        match (std::mem::replace(&mut self.awaited, Awaited::Hello), reply.class()) {
            (Awaited::Greeting, Class::Success) => Next::Send(self.hello()),
            (Awaited::Hello, Class::Success) => {
                self.after_hello(Capabilities::from_reply(reply, self.discard))
            }
            (Awaited::Helo, Class::Success) => self.after_hello(Capabilities::default()),
            // RFC 5321 section 3.2: a server that knows no EHLO is greeted with HELO. LMTP has no such fallback.
            (Awaited::Hello, Class::Permanent) if self.protocol == Protocol::Smtp => {
                let mut out = Vec::new();
                command::helo(&mut out, self.myhostname);
                self.awaited = Awaited::Helo;
                Next::Send(out)
            }
            (Awaited::Greeting, _) => self.refused(reply, self.refusals.greeting_bounces),
            (Awaited::Hello | Awaited::Helo, _) => self.refused(reply, self.refusals.hello_bounces),
            (Awaited::StartTls(_), Class::Success) => Next::StartTls,
            (Awaited::StartTls(offered), _)
                if self.start_tls == StartTls::IfOffered && !reply.is_closing() =>
            {
                self.log_in(offered)
            }
            (Awaited::StartTls(_), _) if self.start_tls == StartTls::IfOffered => self.refused(reply, false),
            (Awaited::StartTls(_), _) => Next::Refused(refused_start_tls(self.peer, reply)),
            (Awaited::Auth(mut exchange, offered), _) => match exchange.on_reply(reply) {
                Answer::Send(line) => self.await_login(exchange, offered, line),
                Answer::Accepted => {
                    self.redactor = Some(exchange.into_redactor());
                    Next::Ready(offered)
                }
                Answer::Refused(reason) => {
                    self.redactor = Some(exchange.into_redactor());
                    Next::Refused(reason)
                }
            },
        }
    }

    /// The reply that is awaited, as transcripts and logs may show it.
    pub fn shown(&self, reply: &Reply) -> String {
        match &self.awaited {
            Awaited::Auth(exchange, _) => exchange.shown(reply),
            Awaited::Greeting | Awaited::Hello | Awaited::Helo | Awaited::StartTls(_) => {
                reply.text().to_owned()
            }
        }
    }

    /// What must not be shown of the server's words from now on, if we have tried to log in.
    pub fn into_redactor(self) -> Option<Redactor> {
        match self.awaited {
            Awaited::Auth(exchange, _) => Some(exchange.into_redactor()),
            Awaited::Greeting | Awaited::Hello | Awaited::Helo | Awaited::StartTls(_) => self.redactor,
        }
    }

    /// TLS has begun: all starts anew, with the LHLO or EHLO that this returns (RFC 3207 section 4.2).
    pub fn secured(&mut self, footing: Footing) -> Vec<u8> {
        (self.start_tls, self.footing) = (StartTls::Never, footing);
        self.hello()
    }

    fn hello(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        command::hello(&mut out, self.protocol, self.myhostname);
        self.awaited = Awaited::Hello;
        out
    }

    fn after_hello(&mut self, offered: Capabilities) -> Next {
        match self.start_tls {
            StartTls::IfOffered | StartTls::Required if offered.starttls => {
                let mut out = Vec::new();
                command::plain(&mut out, "STARTTLS");
                self.awaited = Awaited::StartTls(offered);
                Next::Send(out)
            }
            StartTls::Required => {
                let text = format!("TLS is required, but was not offered by host {}", self.peer);
                Next::Refused(Reason::local(EnhancedStatus::new(4, 7, 4), text))
            }
            StartTls::Never | StartTls::IfOffered => self.log_in(offered),
        }
    }

    fn log_in(&mut self, offered: Capabilities) -> Next {
        let Some(account) = self.account else { return Next::Ready(offered) };
        if offered.auth.is_empty() {
            // Without the login it would refuse the mail for good, as if it were ours to lose.
            let text = format!(
                "SASL authentication failed; cannot authenticate to server {}: it does not offer AUTH, and a login is \
                 configured for it",
                self.peer
            );
            return Next::Refused(Reason::local(EnhancedStatus::new(4, 7, 0), text));
        }
        let login = Login {
            credentials: account.credentials,
            options: self.footing.options,
            filter: account.filter,
            host: account.host,
            port: account.port,
            channel_binding: self.footing.channel_binding.as_deref(),
            is_server_known: self.footing.is_server_known,
        };
        match Exchange::begin(self.peer, &offered.auth, &login) {
            Ok((exchange, line)) => self.await_login(Box::new(exchange), offered, line),
            Err(reason) => Next::Refused(reason),
        }
    }

    fn await_login(&mut self, exchange: Box<Exchange>, offered: Capabilities, line: Line) -> Next {
        self.awaited = Awaited::Auth(exchange, offered);
        Next::SendLine(line)
    }

    /// Whoever stands in the way of TLS can refuse us, too: what is said in clear never returns mail that must not go in
    /// clear.
    fn refused(&self, reply: &Reply, bounces: bool) -> Next {
        let bounces = bounces && self.start_tls != StartTls::Required;
        Next::Refused(refused_to_talk(self.peer, reply, bounces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::parse_reply;
    use crate::smtp::{Proof, Secret};

    /// Plays replies; returns what was sent, and how it ended.
    fn play(protocol: Protocol, replies: &[&str]) -> (Vec<String>, Next) {
        play_with(Refusals::default(), protocol, replies)
    }

    fn play_with(refusals: Refusals, protocol: Protocol, replies: &[&str]) -> (Vec<String>, Next) {
        let handshake = Handshake::new(protocol, "mx[192.0.2.1]", "client.example", &[]);
        let mut handshake = handshake.with_refusals(refusals);
        let (mut sent, mut last) = (Vec::new(), Next::Send(Vec::new()));
        for text in replies {
            last = handshake.on_reply(&parse_reply(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0);
            if let Next::Send(bytes) = &last {
                sent.push(String::from_utf8(bytes.clone()).unwrap());
            }
        }
        (sent, last)
    }

    #[test]
    fn lmtp_says_lhlo_and_takes_no_for_an_answer() {
        let (sent, end) = play(Protocol::Lmtp, &["220 mx", "250-mx\r\n250 PIPELINING"]);
        assert_eq!(sent, ["LHLO client.example\r\n"]);
        assert!(matches!(end, Next::Ready(Capabilities { pipelining: true, .. })));
        assert!(matches!(play(Protocol::Lmtp, &["220 mx", "500 what"]).1, Next::Refused(_)));
    }

    #[test]
    fn esmtp_falls_back_to_helo_where_ehlo_is_not_known() {
        let (sent, end) = play(Protocol::Smtp, &["220 mx", "502 what", "250 mx PIPELINING"]);
        assert_eq!(sent, ["EHLO client.example\r\n", "HELO client.example\r\n"]);
        assert_eq!(end, Next::Ready(Capabilities::default()));
        assert!(matches!(play(Protocol::Smtp, &["220 mx", "451 later"]).1, Next::Refused(_)));
        assert!(matches!(play(Protocol::Smtp, &["220 mx", "500 what", "500 what"]).1, Next::Refused(_)));
    }

    #[test]
    fn a_refusing_greeting_is_transient() {
        for text in ["421 4.3.2 busy", "554 5.7.1 go away", "354 odd"] {
            let Next::Refused(reason) = play(Protocol::Lmtp, &[text]).1 else { panic!("{text}") };
            assert_eq!(reason.status.class(), 4, "{text}");
        }
    }

    fn secure(start_tls: StartTls, replies: &[&str]) -> (Vec<String>, Next) {
        let handshake = Handshake::new(Protocol::Lmtp, "mx[192.0.2.1]", "client.example", &[])
            .with_refusals(Refusals { greeting_bounces: true, hello_bounces: true });
        let mut handshake = handshake.with_start_tls(start_tls);
        let (mut sent, mut last) = (Vec::new(), Next::Send(Vec::new()));
        for text in replies {
            last = match *text {
                "<tls>" => Next::Send(handshake.secured(Footing::default())),
                text => {
                    handshake.on_reply(&parse_reply(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0)
                }
            };
            match &last {
                Next::Send(bytes) => sent.push(String::from_utf8(bytes.clone()).unwrap().trim().to_owned()),
                Next::StartTls => sent.push("<tls>".to_owned()),
                _ => {}
            }
        }
        (sent, last)
    }

    const LHLO: &str = "LHLO client.example";
    const OFFER: &str = "250-mx\r\n250-PIPELINING\r\n250 STARTTLS";

    #[test]
    fn after_tls_lhlo_is_said_again_and_what_was_offered_before_is_forgotten() {
        for start_tls in [StartTls::IfOffered, StartTls::Required] {
            let (sent, end) =
                secure(start_tls, &["220 mx", OFFER, "220 go", "<tls>", "250-mx\r\n250 CHUNKING"]);
            assert_eq!(sent, [LHLO, "STARTTLS", "<tls>", LHLO]);
            let Next::Ready(offered) = end else { panic!("{end:?}") };
            assert!(offered.chunking && !offered.pipelining && !offered.starttls);
        }
    }

    #[test]
    fn a_server_that_offers_tls_inside_of_tls_is_not_asked_twice() {
        let (sent, end) = secure(StartTls::Required, &["220 mx", OFFER, "220 go", "<tls>", OFFER]);
        assert_eq!(sent.len(), 4, "{sent:?}");
        assert!(matches!(end, Next::Ready(_)), "{end:?}");
    }

    #[test]
    fn without_tls_goes_only_what_may() {
        let (never, may, must) = (StartTls::Never, StartTls::IfOffered, StartTls::Required);
        for (start_tls, replies, ready) in [
            (never, &["220 mx", OFFER][..], Ok(true)),
            (may, &["220 mx", "250 mx"], Ok(false)),
            (may, &["220 mx", OFFER, "454 4.7.0 no certificate"], Ok(true)),
            (may, &["220 mx", OFFER, "554 5.7.0 never"], Ok(true)),
            (may, &["220 mx", OFFER, "421 4.3.0 bye"], Err("4.3.0 refused to talk to me: 421 4.3.0 bye")),
            (
                must,
                &["220 mx", "250 mx"],
                Err("4.7.4 TLS is required, but was not offered by host mx[192.0.2.1]"),
            ),
            (
                must,
                &["220 mx", OFFER, "554 5.7.0 never"],
                Err("4.7.0 TLS is required, but host mx[192.0.2.1] refused to start TLS: 554 5.7.0 never"),
            ),
            (must, &["220 mx", OFFER, "354 odd"], Err("4.5.0 ")),
            // Who can strip STARTTLS can refuse, too: it is no reason to return mail.
            (must, &["554 5.7.1 no"], Err("4.7.1 ")),
            (must, &["220 mx", "554 5.7.1 no"], Err("4.7.1 ")),
            (must, &["220 mx", OFFER, "220 go", "<tls>", "554 5.7.1 no"], Err("5.7.1 ")),
        ] {
            match (secure(start_tls, replies).1, ready) {
                (Next::Ready(offered), Ok(pipelining)) => {
                    assert_eq!(offered.pipelining, pipelining, "{replies:?}");
                }
                (Next::Refused(reason), Err(expected)) => {
                    let (status, text) = expected.split_once(' ').unwrap();
                    assert_eq!(reason.status.to_string(), status, "{replies:?}");
                    assert!(reason.text.contains(text), "{}", reason.text);
                }
                (next, _) => panic!("{start_tls:?} {replies:?}: {next:?}"),
            }
        }
    }

    #[test]
    fn a_login_that_is_configured_is_never_left_out() {
        let credentials =
            Credentials { username: "u".into(), proof: Proof::Password(Secret::new("canary".into())) };
        let account = Account { credentials: &credentials, filter: &[], host: "mx", port: 25 };
        let handshake = Handshake::new(Protocol::Smtp, "mx[192.0.2.1]", "client.example", &[]);
        let mut handshake = handshake.with_login(Some(account), Footing::default());
        let mut last = None;
        for text in ["220 mx", "250 mx"] {
            let reply = parse_reply(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0;
            last = Some(handshake.on_reply(&reply));
        }
        let Some(Next::Refused(reason)) = last else { panic!("{last:?}") };
        assert_eq!(reason.status.class(), 4);
        assert!(reason.text.contains("it does not offer AUTH"), "{}", reason.text);
    }

    #[test]
    fn a_refusal_for_good_returns_mail_only_where_that_is_asked_for() {
        let none = Refusals::default();
        let greeting = Refusals { greeting_bounces: true, ..none };
        let hello = Refusals { hello_bounces: true, ..none };
        let (lmtp, smtp) = (Protocol::Lmtp, Protocol::Smtp);
        for (refusals, protocol, replies, status) in [
            (none, lmtp, &["554 5.7.1 go away"][..], "4.7.1"),
            (greeting, lmtp, &["554 5.7.1 go away"], "5.7.1"),
            (hello, lmtp, &["554 5.7.1 go away"], "4.7.1"),
            (greeting, lmtp, &["421 4.3.2 busy"], "4.3.2"),
            (greeting, lmtp, &["354 odd"], "4.5.0"),
            (none, lmtp, &["220 mx", "502 5.5.1 what"], "4.5.1"),
            (greeting, lmtp, &["220 mx", "502 5.5.1 what"], "4.5.1"),
            (hello, lmtp, &["220 mx", "502 5.5.1 what"], "5.5.1"),
            (hello, lmtp, &["220 mx", "451 4.3.0 later"], "4.3.0"),
            (hello, smtp, &["220 mx", "502 5.5.1 what", "550 go away"], "5.0.0"),
        ] {
            let Next::Refused(reason) = play_with(refusals, protocol, replies).1 else {
                panic!("{replies:?}")
            };
            assert_eq!(reason.status.to_string(), status, "{refusals:?} {replies:?}");
        }
    }
}
