//! An exchange, reply after reply (RFC 4954 section 4).
//!
//! - Owns: AUTH and the lines after it, what each reply to them means, when it is enough.
//! - Leaves to others: what a mechanism says (`client`), reading and writing (`net`).
//! - Always true: each mechanism has a fixed number of messages, and the first challenge past them ends the exchange; a
//!   refusal is followed by one other mechanism at most, and never by the same password where that was wrong. What goes
//!   wrong on our side ends it with `*`, so that the server still knows where it is.

use std::{fmt, mem};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::client::Client;
use super::mechanism::{self, Mechanism};
use super::redact::{HIDDEN, Redactor};
use super::{Answer, Line, Login, Proof};
use crate::mail::{EnhancedStatus, Reason};
use crate::smtp::reply::{CHALLENGE_SIZE_MAX, Class, Reply};

/// Octets of AUTH with all that stands in its line (RFC 5321 section 4.5.3.1.4).
const COMMAND_SIZE_MAX: usize = 512;
/// Characters that are shown of a challenge that is none.
const SHOWN_MAX: usize = 60;

/// An exchange under way.
pub struct Exchange {
    /// The server as reasons name it.
    peer: String,
    mechanism: Mechanism,
    client: Client,
    /// What we say first, as base64, until the server has shown that it has it.
    initial: Initial,
    state: State,
    redactor: Redactor,
    /// What follows a refusal, with its AUTH.
    second: Option<Box<(Exchange, Line)>>,
}

enum Initial {
    /// It is the server's turn.
    None,
    /// Was too long for AUTH, so the server asks for it.
    Kept(Zeroizing<Vec<u8>>),
    /// Has been sent with AUTH. A server that does not know that form asks for it all the same.
    Sent(Zeroizing<Vec<u8>>),
}

enum State {
    Open,
    /// `*` has been written, for this reason.
    Aborted(Reason),
    Over,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange {{ {} with {} }}", self.mechanism.name(), self.peer)
    }
}

impl Exchange {
    /// Begins with the strongest of the `offered` mechanisms that `login` allows: the exchange, and AUTH. The error is the
    /// reason why there is none, which keeps the mail. `peer` is the server as reasons name it.
    pub fn begin(peer: &str, offered: &[String], login: &Login<'_>) -> Result<(Self, Line), Reason> {
        Self::try_begin(peer, offered, login).map_err(|why| cannot(peer, &why))
    }

    fn try_begin(peer: &str, offered: &[String], login: &Login<'_>) -> Result<(Self, Line), String> {
        let mechanism = mechanism::choose(offered, login)?;
        let named = |why| format!("{}: {why}", mechanism.name());
        let mut client = Client::new(mechanism, offered, login).map_err(named)?;
        let initial = client.begin().map_err(named)?.map(|message| encoded(&message));
        if initial.as_ref().is_some_and(|response| response.len() > CHALLENGE_SIZE_MAX) {
            return Err(named(format!("the response is longer than {CHALLENGE_SIZE_MAX} octets")));
        }
        let mut redactor = Redactor::new(match &login.credentials.proof {
            Proof::Password(secret) | Proof::Token(secret) => Some(secret),
            Proof::Certificate => None,
        });
        let (line, initial) = command(mechanism, initial);
        if let Initial::Kept(response) | Initial::Sent(response) = &initial {
            redactor.add(response);
        }
        let second = Self::unbound(mechanism, peer, offered, login);
        let (peer, state) = (peer.to_owned(), State::Open);
        Ok((Self { peer, mechanism, client, initial, state, redactor, second }, line))
    }

    /// The strongest SCRAM that is not tied to the TLS connection, for a server that refuses the one that is: some offer
    /// -PLUS and know no binding that TLS 1.3 has (Cyrus 3.6 knows `tls-unique` alone). Only where the certificate has
    /// proved who the server is: else somebody in between could refuse the one in order to pass the other on.
    fn unbound(
        mechanism: Mechanism,
        peer: &str,
        offered: &[String],
        login: &Login<'_>,
    ) -> Option<Box<(Self, Line)>> {
        if !mechanism.is_bound() || !login.is_server_known {
            return None;
        }
        let login = Login { channel_binding: None, ..login.clone() };
        let (second, line) = Self::try_begin(peer, offered, &login).ok()?;
        second.mechanism.is_scram().then(|| Box::new((second, line)))
    }

    /// Takes the reply to the last line, as [`parse_auth_reply`](crate::smtp::parse_auth_reply) has read it.
    pub fn on_reply(&mut self, reply: &Reply) -> Answer {
        match mem::replace(&mut self.state, State::Over) {
            // Whatever the server says to `*`, we have stopped.
            State::Aborted(reason) => Answer::Refused(reason),
            State::Over => Answer::Refused(cannot(&self.peer, "the exchange is over")),
            State::Open => match reply.class() {
                Class::Success if self.client.may_succeed() => Answer::Accepted,
                Class::Success => {
                    Answer::Refused(self.failed("the server has not proved that it knows the password"))
                }
                Class::Continue => self.on_challenge(reply),
                Class::Transient => Answer::Refused(self.refused(reply)),
                // Who tries a wrong password twice is locked out in half the time.
                Class::Permanent if reply.code() == 535 => Answer::Refused(self.refused(reply)),
                Class::Permanent => self.second_or_refused(reply),
            },
        }
    }

    fn second_or_refused(&mut self, reply: &Reply) -> Answer {
        match self.second.take() {
            Some(second) => {
                let (mut exchange, line) = *second;
                exchange.redactor.add_all(&self.redactor);
                *self = exchange;
                Answer::Send(line)
            }
            None => Answer::Refused(self.refused(reply)),
        }
    }

    fn on_challenge(&mut self, reply: &Reply) -> Answer {
        match self.response(reply) {
            Ok(response) => {
                self.state = State::Open;
                Answer::Send(self.line(&response))
            }
            Err(why) => {
                self.state = State::Aborted(self.failed(&why));
                Answer::Send(Line { octets: Zeroizing::new(b"*\r\n".to_vec()), shown: "*".to_owned() })
            }
        }
    }

    /// What answers a challenge, as base64. The error is a reason to stop.
    fn response(&mut self, reply: &Reply) -> Result<Zeroizing<Vec<u8>>, String> {
        let challenge = self.challenge(reply)?;
        match mem::replace(&mut self.initial, Initial::None) {
            Initial::Kept(response) | Initial::Sent(response) if challenge.is_empty() => return Ok(response),
            Initial::Kept(_) => return Err("the server begins where we must".to_owned()),
            Initial::Sent(_) | Initial::None => {}
        }
        let response = encoded(&self.client.answer(&challenge)?);
        if response.len() > CHALLENGE_SIZE_MAX {
            return Err(format!("the response is longer than {CHALLENGE_SIZE_MAX} octets"));
        }
        self.redactor.add(&response);
        Ok(response)
    }

    /// What a 334 holds. That it is not too long was seen when it was read.
    fn challenge(&self, reply: &Reply) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut lines = reply.lines();
        let text = lines.next().unwrap_or("");
        if reply.code() != 334 || lines.next().is_some() {
            return Err(format!(
                "the server answers {}, which is no challenge",
                self.glimpse(&reply.one_line())
            ));
        }
        let challenge = STANDARD.decode(text).map(Zeroizing::new);
        challenge.map_err(|_| format!("the server's challenge is not base64: {}", self.glimpse(text)))
    }

    /// The beginning of something that may be anything.
    fn glimpse(&self, text: &str) -> String {
        let shown = self.redactor.redact(text);
        match shown.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => format!("\"{}...\"", &shown[..end]),
            None => format!("\"{shown}\""),
        }
    }

    fn line(&self, response: &[u8]) -> Line {
        let shown = if response.is_empty() { String::new() } else { HIDDEN.to_owned() };
        Line { octets: Zeroizing::new([response, b"\r\n"].concat()), shown }
    }

    fn failed(&self, why: &str) -> Reason {
        cannot(&self.peer, &format!("{}: {why}", self.mechanism.name()))
    }

    /// A refusal keeps the mail, whatever its class: the password may be wrong on our side, or on the server's.
    fn refused(&self, reply: &Reply) -> Reason {
        let otherwise = || match reply.code() {
            // RFC 4954 section 6.
            534 | 535 => EnhancedStatus::new(4, 7, 8),
            _ => EnhancedStatus::new(4, 7, 0),
        };
        let said = self.redactor.redact(&reply.one_line());
        let objection = self.client.objection().map(|status| self.redactor.redact(status));
        let objection = objection.map_or_else(String::new, |status| format!(" (to the token: {status})"));
        Reason {
            status: reply.enhanced_status().map_or_else(otherwise, |status| status.with_class(4)),
            text: format!("SASL authentication failed; server {} said: {said}{objection}", self.peer),
            reply: Some(self.redactor.redact(reply.text())),
        }
    }

    /// What must not be shown of the server's words, now and later.
    pub fn into_redactor(self) -> Redactor {
        self.redactor
    }

    /// A reply of this exchange as transcripts and logs may show it, a line for each of its own. A challenge is hidden too:
    /// with SCRAM's, a password can be guessed by trying a dictionary.
    pub fn shown(&self, reply: &Reply) -> String {
        let has_text = reply.lines().any(|line| !line.is_empty());
        match reply.class() {
            Class::Continue if has_text => format!("{} {HIDDEN}", reply.code()),
            _ => self.redactor.redact(reply.text()),
        }
    }
}

/// AUTH, with the first response where that fits in its line.
fn command(mechanism: Mechanism, initial: Option<Zeroizing<Vec<u8>>>) -> (Line, Initial) {
    let name = mechanism.name();
    let Some(response) = initial else { return (bare(name), Initial::None) };
    let head = format!("AUTH {name} ");
    // RFC 4954 section 4: "=" is a response of no octets, which would else be no response.
    let word: &[u8] = if response.is_empty() { b"=" } else { &response };
    if head.len() + word.len() + b"\r\n".len() > COMMAND_SIZE_MAX {
        return (bare(name), Initial::Kept(response));
    }
    let shown = format!("{head}{}", if response.is_empty() { "=" } else { HIDDEN });
    let octets = Zeroizing::new([head.as_bytes(), word, b"\r\n"].concat());
    (Line { octets, shown }, Initial::Sent(response))
}

fn bare(name: &str) -> Line {
    Line { octets: Zeroizing::new(format!("AUTH {name}\r\n").into_bytes()), shown: format!("AUTH {name}") }
}

/// `message` in base64, in a buffer that never grew and left a copy.
pub(super) fn encoded(message: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(vec![0; message.len().div_ceil(3) * 4]);
    // The size is exact, so that this writes all of it.
    if let Ok(length) = STANDARD.encode_slice(message, &mut text) {
        text.truncate(length);
    }
    text
}

/// Why we cannot log in, when no reply says so.
fn cannot(peer: &str, why: &str) -> Reason {
    let text = format!("SASL authentication failed; cannot authenticate to server {peer}: {why}");
    Reason::local(EnhancedStatus::new(4, 7, 0), text)
}
