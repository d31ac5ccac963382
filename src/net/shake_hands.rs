//! From a connected socket to one that is ready for mail: greeting, LHLO or EHLO, TLS, login.
//!
//! - Owns: the loop that does what the handshake (`smtp`) says, and when plain text ends.
//! - Leaves to others: what is said and in which order (`smtp`), TLS itself (`tls`), what is asked of a server (`config`).
//! - Always true: nothing that came before TLS is taken for something that came after it; a socket whose TLS has failed
//!   says nothing any more.

use std::time::{Duration, Instant};

use super::link::{Link, Written};
use super::tls::{TlsError, TlsSessions, Trust};
use crate::config::{TlsLevel, TlsPolicy, Transport};
use crate::mail::{EnhancedStatus, Reason, Server};
use crate::smtp::{
    self, Account, BadReply, Capabilities, Cause, Credentials, Footing, Handshake, Next, Refusals,
    SessionError, Stage, StartTls,
};

/// How long saying QUIT may take.
const QUIT_TIME: Duration = Duration::from_millis(20);

/// What a connection is opened by.
pub struct Opening<'a> {
    /// The server.
    pub server: &'a Server,
    /// Its place among the destination's.
    pub place: usize,
    /// The parameters.
    pub transport: &'a Transport,
    /// What we call ourselves.
    pub hello: &'a str,
    /// Keywords that count as not offered.
    pub discard: &'a [String],
    /// What is asked of the server.
    pub policy: TlsPolicy<'a>,
    /// Whom we are to it, if to anybody.
    pub credentials: Option<&'a Credentials>,
    /// What earlier connections have left for the next one.
    pub sessions: &'a mut TlsSessions,
}

/// Why a server is not ready for mail.
pub struct Failure {
    /// In words.
    pub reason: Reason,
    /// The TLS handshake failed, and nothing else.
    pub tls_failed: bool,
    /// The server says that name or password are wrong.
    pub login_failed: bool,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, tls_failed: false, login_failed: false }
    }
}

/// What the server offers, once it is ready for mail.
pub fn shake_hands(link: &mut Link, name: &str, opening: &mut Opening<'_>) -> Result<Capabilities, Failure> {
    let Opening { server, transport, hello, discard, policy, credentials, sessions, .. } = opening;
    let mut tls = Tls { server, transport, policy, sessions, name };
    let (host, port) = host_and_port(server);
    let filter = &transport.sasl.mechanism_filter[..];
    let account = credentials.map(|credentials| Account { credentials, filter, host, port });
    let footing = if policy.wrappermode { tls.start(link)? } else { in_clear(transport) };
    let mut handshake = Handshake::new(transport.protocol, name, hello, discard)
        .with_refusals(refusals(transport))
        .with_start_tls(start_tls(policy))
        .with_login(account, footing);
    let result = converse(link, &mut handshake, &mut tls);
    link.hide(handshake.into_redactor());
    result
}

/// Does what the handshake says, until it is over.
fn converse(
    link: &mut Link,
    handshake: &mut Handshake<'_>,
    tls: &mut Tls<'_>,
) -> Result<Capabilities, Failure> {
    // TLS 1.3 is begun for us before the server has looked at our part of it.
    let mut has_answered = false;
    loop {
        let stage = handshake.stage();
        let deadline = tls.deadline(stage);
        let reply = match stage {
            Stage::Auth => link.read_auth_reply(deadline, |reply| handshake.shown(reply)),
            _ => link.read_reply(deadline),
        };
        let reply = reply.map_err(|cause| {
            let tls_failed = !has_answered && link.tls().is_some() && is_refusal_of_tls(&cause);
            Failure { tls_failed, ..tls.broken(stage, cause) }
        })?;
        has_answered = true;
        let written = match handshake.on_reply(&reply) {
            Next::Send(command) => write(link, &command, tls.deadline(handshake.stage())),
            Next::SendLine(line) => {
                link.expect_no_surplus(false).and_then(|()| link.write_line(&line, tls.deadline(Stage::Auth)))
            }
            Next::StartTls if link.has_surplus() => Err(BadReply::BehindStartTls.into()),
            Next::StartTls => {
                let hello = handshake.secured(tls.start(link)?);
                has_answered = false;
                write(link, &hello, tls.deadline(Stage::Lhlo))
            }
            Next::Ready(offered) => {
                link.expect_no_surplus(false).map_err(|cause| tls.broken(stage, cause))?;
                return Ok(offered);
            }
            Next::Refused(reason) => {
                // RFC 5321 section 3.1: a client is expected to say QUIT all the same. Nobody waits for the
                // answer: the next server is to be tried.
                if !reply.is_closing() {
                    let _ = say_quit(link);
                }
                // RFC 4954 section 6.
                let login_failed = stage == Stage::Auth && reply.code() == 535;
                return Err(Failure { login_failed, ..reason.into() });
            }
        };
        written.map_err(|cause| {
            if has_answered || link.tls().is_none() {
                return tls.broken(stage, cause);
            }
            // It has closed behind its part of the handshake, and has perhaps said why.
            let cause = link.early_reply().err().filter(|why| matches!(why, Cause::Io(_))).unwrap_or(cause);
            Failure { tls_failed: is_refusal_of_tls(&cause), ..tls.broken(handshake.stage(), cause) }
        })?;
    }
}

/// Whether a server that says so instead of its first reply over TLS may have refused our part of the handshake: by an
/// alert, as where it wants a certificate of ours, or without a word.
fn is_refusal_of_tls(cause: &Cause) -> bool {
    matches!(cause, Cause::LostConnection | Cause::Io(_))
}

/// Writes a command, with no reply due.
fn write(link: &mut Link, command: &[u8], deadline: Instant) -> Written {
    link.expect_no_surplus(false)?;
    link.write_commands(command, deadline)
}

/// Says QUIT, if that takes no time.
pub fn say_quit(link: &mut Link) -> Written {
    let mut command = Vec::new();
    smtp::plain(&mut command, "QUIT");
    link.write_commands(&command, Instant::now() + QUIT_TIME)
}

fn refusals(transport: &Transport) -> Refusals {
    let habits = &transport.habits;
    Refusals {
        greeting_bounces: habits.refused_greeting_bounces,
        hello_bounces: habits.refused_hello_bounces,
    }
}

fn start_tls(policy: &TlsPolicy<'_>) -> StartTls {
    match policy.level {
        _ if policy.wrappermode => StartTls::Never,
        TlsLevel::None => StartTls::Never,
        TlsLevel::May => StartTls::IfOffered,
        TlsLevel::Encrypt | TlsLevel::Fingerprint | TlsLevel::Verify | TlsLevel::Secure => StartTls::Required,
    }
}

/// What a login may rest on without TLS.
fn in_clear(transport: &Transport) -> Footing {
    Footing { options: transport.sasl.options_for(false, false), ..Footing::default() }
}

fn host_and_port(server: &Server) -> (&str, u16) {
    match server {
        Server::Unix(_) => ("localhost", 0),
        Server::Tcp { host, port } => (host, port.get()),
    }
}

/// TLS on one connection, and the words for what goes wrong before mail.
struct Tls<'a> {
    server: &'a Server,
    transport: &'a Transport,
    policy: &'a TlsPolicy<'a>,
    sessions: &'a mut TlsSessions,
    name: &'a str,
}

impl Tls<'_> {
    fn deadline(&self, stage: Stage) -> Instant {
        Instant::now() + self.transport.timeouts.at(stage).get()
    }

    /// Makes the handshake; what a login may rest on then.
    fn start(&mut self, link: &mut Link) -> Result<Footing, Failure> {
        let deadline = self.deadline(Stage::StartTls);
        let started = link.start_tls(self.sessions, self.server, self.transport, self.policy, deadline);
        started.map_err(|error| self.failure(error, link))?;
        let Some(tls) = link.tls() else { return Ok(in_clear(self.transport)) };
        let (is_server_known, channel_binding) = (tls.trust() == Trust::Verified, tls.channel_binding());
        let begun = format!("{} TLS begins: {}", tls.trust(), tls.summary());
        link.tap().note(&begun);
        let options = self.transport.sasl.options_for(true, is_server_known);
        Ok(Footing { options, channel_binding, is_server_known })
    }

    fn failure(&self, error: TlsError, link: &mut Link) -> Failure {
        let reason = |text| Reason::local(EnhancedStatus::new(4, 7, 5), text);
        match error {
            TlsError::Handshake(what) => {
                let text = format!("Cannot start TLS with {}: handshake failure: {what}", self.name);
                Failure { tls_failed: true, ..reason(text).into() }
            }
            TlsError::Certificate(what) => {
                // The server has done nothing wrong that it knows of.
                let _ = say_quit(link);
                reason(format!("{what} (host {})", self.name)).into()
            }
            TlsError::TimedOut => {
                let text = format!("Cannot start TLS with {}: the handshake timed out", self.name);
                Failure { tls_failed: true, ..reason(text).into() }
            }
            TlsError::LostConnection => {
                let text =
                    format!("Cannot start TLS with {}: lost connection during the handshake", self.name);
                Failure { tls_failed: true, ..reason(text).into() }
            }
        }
    }

    fn broken(&self, stage: Stage, cause: Cause) -> Failure {
        let (peer, protocol) = (self.name.to_owned(), self.transport.protocol);
        SessionError { peer, protocol, stage, cause, end_of_data_written: false }.reason().into()
    }
}
