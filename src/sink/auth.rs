//! AUTH (RFC 4954): who a client is, before its mail is taken.
//!
//! - Owns: the command, the lines of the exchange, what rules do to them.
//! - Leaves to others: what a mechanism asks and believes (`mechanism`).
//! - Always true: an exchange has few steps and each of them a limit; a client that cancels or fails is nobody.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Extension;
use super::counts::add;
use super::mechanism::{Connection, Exchange, Mechanism, Step};
use super::reply::Reply;
use super::script::Stage;
use super::session::Session;
use super::wire::{Ended, Line};

/// Challenges of one exchange. The longest mechanism has three.
const CHALLENGES_MAX: usize = 4;

impl Session<'_> {
    /// AUTH, with all its lines.
    pub(super) fn auth(&mut self, rest: &str) -> Result<(), Ended> {
        let action = self.shared.config.script.action(Stage::Auth, "");
        if let Some(action) = action {
            self.before(action)?;
            if let Some(refusal) = action.refusal() {
                return self.emit(action, refusal);
            }
        }
        let challenge = action.and_then(|action| action.reply()).filter(|reply| reply.code == 334);
        let reply = match (self.may_log_in(rest), challenge) {
            (Err(refusal), _) => refusal,
            (Ok(_), Some(challenge)) => self.puzzle(challenge)?,
            (Ok((mechanism, initial)), None) => self.exchange(mechanism, initial)?,
        };
        self.emit_or_say(action, &reply)
    }

    /// Whether logins are possible here.
    pub(super) fn may_offer_auth(&self) -> bool {
        let config = &self.shared.config;
        !config.logins.is_empty() && !config.without.contains(&Extension::Auth)
    }

    /// Whether mail is refused until the client has logged in.
    pub(super) fn lacks_login(&self) -> bool {
        !self.shared.config.logins.is_empty() && self.login.is_none()
    }

    /// The mechanisms that can be used on this connection, as the reply to EHLO lists them.
    pub(super) fn mechanism_words(&self) -> String {
        Mechanism::usable(&self.connection()).map(|mechanism| format!(" {}", mechanism.name())).collect()
    }

    fn connection(&self) -> Connection {
        Connection {
            has_certificate: self.wire.channel.has_client_certificate(),
            binding: self.wire.channel.channel_binding(),
        }
    }

    /// Checks the command; the mechanism and the initial response, if it has one.
    fn may_log_in(&self, rest: &str) -> Result<(Mechanism, Option<Vec<u8>>), Reply> {
        match () {
            () if self.is_new() => {
                return Err(Reply::new(503, "5.5.1", format!("say {} first", self.hello_word())));
            }
            () if self.login.is_some() => return Err(Reply::new(503, "5.5.1", "you have logged in already")),
            () if self.transaction.is_some() => {
                return Err(Reply::new(503, "5.5.1", "not within a transaction"));
            }
            () => {}
        }
        let mut words = rest.split_ascii_whitespace();
        let (name, initial, surplus) = (words.next().unwrap_or(""), words.next(), words.next());
        if name.is_empty() || surplus.is_some() {
            return Err(Reply::new(501, "5.5.4", "AUTH takes a mechanism, and at most one response"));
        }
        let mut usable = Mechanism::usable(&self.connection());
        let mechanism = usable
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| Reply::new(504, "5.5.4", "no such mechanism here"))?;
        Ok((mechanism, initial.map(decode).transpose()?))
    }

    fn exchange(&mut self, mechanism: Mechanism, initial: Option<Vec<u8>>) -> Result<Reply, Ended> {
        let Ok(mut exchange) = Exchange::new(mechanism, self.connection(), &self.shared.config.hostname)
        else {
            return Ok(Reply::new(454, "4.7.0", "there is no randomness to be had"));
        };
        let mut response = initial;
        for _ in 0..=CHALLENGES_MAX {
            match exchange.step(response.as_deref(), &self.shared.config.logins) {
                Step::Ask(challenge) => match self.ask(&Reply::new(334, "", BASE64.encode(challenge)))? {
                    Ok(said) => response = Some(said),
                    Err(refusal) => return Ok(refusal),
                },
                Step::Accepted(user) => {
                    self.login = Some(user);
                    add(&self.shared.counters.logins, 1);
                    return Ok(Reply::new(235, "2.7.0", "welcome"));
                }
                Step::Refused => break,
            }
        }
        Ok(Reply::new(535, "5.7.8", "these credentials are not valid"))
    }

    /// A rule's challenge, to which there is no right response.
    fn puzzle(&mut self, challenge: &Reply) -> Result<Reply, Ended> {
        let said = self.ask(challenge)?;
        Ok(said.err().unwrap_or_else(|| Reply::new(535, "5.7.8", "that was not the right response")))
    }

    /// Says a challenge; the response to it, or what is to be said to something else.
    fn ask(&mut self, challenge: &Reply) -> Result<Result<Vec<u8>, Reply>, Ended> {
        challenge.write(self.wire.output(), false);
        self.wire.held = false;
        let mut line = Vec::new();
        let said = match self.wire.read_line(&mut line)? {
            Line::Complete if line == b"*" => Err(Reply::new(501, "5.7.0", "as you like")),
            Line::Complete => decode(&String::from_utf8_lossy(&line)),
            Line::TooLong => Err(Reply::new(500, "5.5.6", "line too long")),
            Line::TimedOut => Err(Reply::new(421, "4.4.2", "timed out waiting for you")),
        };
        Ok(said)
    }
}

/// What a response says; `=` is the empty initial one (RFC 4954 section 4).
fn decode(response: &str) -> Result<Vec<u8>, Reply> {
    let response = if response == "=" { "" } else { response };
    BASE64.decode(response).map_err(|_| Reply::new(501, "5.5.2", "that is not base64"))
}
