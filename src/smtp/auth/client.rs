//! Our half of a mechanism: challenges in, responses out.
//!
//! - Owns: what rsasl is told of us, and which of the servers' messages it gets to see.
//! - Leaves to others: base64, lines and replies (`exchange`), which mechanism it is (`mechanism`).
//! - Always true: rsasl is never asked again once it has finished or failed, as it may panic then. Its own copies of what
//!   the password is hashed to are the only ones that are not wiped.

use std::cmp::Ordering;
use std::mem;

use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::external::EXTERNAL;
use rsasl::mechanisms::login::LOGIN;
use rsasl::mechanisms::oauthbearer::OAUTHBEARER;
use rsasl::mechanisms::plain::PLAIN;
use rsasl::mechanisms::scram::{SCRAM_SHA1, SCRAM_SHA1_PLUS, SCRAM_SHA256, SCRAM_SHA256_PLUS};
use rsasl::mechanisms::xoauth2::XOAUTH2;
use rsasl::prelude::{
    ChannelBindingCallback, Mechname, Registry, SASLClient, SASLConfig, Session, SessionError,
};
use rsasl::property::{AuthId, AuthzId, OAuthBearerKV, OAuthBearerToken, Password};
use rsasl::validate::NoValidation;
use zeroize::Zeroizing;

use super::mechanism::Mechanism;
use super::{Login, Proof, Secret, cram_md5, oauth, scram};

/// The only channel binding that we have (RFC 9266), by the name that SCRAM asks for first.
const TLS_EXPORTER: &str = "tls-exporter";
/// Octets of a message beside name, secret and host, so that a buffer never grows and leaves a copy behind.
const MESSAGE_SIZE: usize = 512;
/// Characters of an error that are shown.
const ERROR_SIZE_MAX: usize = 100;

/// The mechanisms that rsasl speaks for us.
static SPOKEN: [rsasl::prelude::Mechanism; 9] = [
    EXTERNAL,
    SCRAM_SHA256_PLUS,
    SCRAM_SHA1_PLUS,
    SCRAM_SHA256,
    SCRAM_SHA1,
    PLAIN,
    LOGIN,
    OAUTHBEARER,
    XOAUTH2,
];

/// One side of one exchange.
pub(super) struct Client {
    mechanism: Mechanism,
    state: State,
    /// Octets that the longest message with a secret has.
    size: usize,
    /// What the server holds against us, in its own word.
    objection: Option<String>,
}

enum State {
    /// The server's first challenge is awaited.
    CramMd5 { username: String, password: Secret },
    /// rsasl has more to say, after so many challenges.
    Spoken { session: Box<Session<NoValidation, Binding>>, challenges: usize },
    /// The token has been sent. A challenge now is the server's objection.
    TokenSent,
    /// Nothing is left to say, and the server has proved what it must.
    Finished,
    /// Something went wrong.
    Failed,
}

impl Client {
    /// Prepares the exchange. The error tells what is wrong with the credentials.
    pub(super) fn new(mechanism: Mechanism, offered: &[String], login: &Login<'_>) -> Result<Self, String> {
        let username = &login.credentials.username;
        if username.contains(char::is_control) {
            return Err("the user name holds a control character".to_owned());
        }
        let secret = match &login.credentials.proof {
            Proof::Password(secret) | Proof::Token(secret) => secret.expose(),
            Proof::Certificate => "",
        };
        let size = MESSAGE_SIZE + 3 * username.len() + secret.len() + login.host.len();
        let state = match (mechanism, &login.credentials.proof) {
            (Mechanism::CramMd5, Proof::Password(password)) => {
                State::CramMd5 { username: username.clone(), password: password.clone() }
            }
            _ => State::Spoken { session: Box::new(session(mechanism, offered, login)?), challenges: 0 },
        };
        Ok(Self { mechanism, state, size, objection: None })
    }

    /// What is said before the server has challenged us, if that is ours to begin.
    pub(super) fn begin(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let State::Spoken { session, .. } = &self.state else { return Ok(None) };
        if !session.are_we_first() {
            return Ok(None);
        }
        let message = self.step(None)?;
        if self.mechanism.is_bearer() {
            self.state = State::TokenSent;
        }
        Ok(Some(message))
    }

    /// The answer to a challenge. After an error nothing more can be said.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        match mem::replace(&mut self.state, State::Failed) {
            State::CramMd5 { username, password } => {
                let response = cram_md5::response(&username, password.expose(), challenge)?;
                self.state = State::Finished;
                Ok(response)
            }
            State::Spoken { session, challenges } => {
                match challenges {
                    0 if self.mechanism.is_scram() => scram::check_server_first(challenge)?,
                    _ if self.mechanism.is_scram() => scram::check_server_final(challenge)?,
                    _ => {}
                }
                self.state = State::Spoken { session, challenges: challenges + 1 };
                self.step(Some(challenge))
            }
            State::TokenSent => {
                self.objection = oauth::status(challenge);
                self.state = State::Finished;
                // RFC 7628 section 3.2.3: a single %x01; XOAUTH2: nothing. Then the server refuses.
                let is_standard = self.mechanism == Mechanism::OauthBearer;
                Ok(Zeroizing::new(if is_standard { vec![1] } else { Vec::new() }))
            }
            State::Finished => Err("the server asks for more than there is to say".to_owned()),
            State::Failed => Err("the exchange has failed before".to_owned()),
        }
    }

    fn step(&mut self, input: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, String> {
        let State::Spoken { mut session, challenges } = mem::replace(&mut self.state, State::Failed) else {
            return Err("the exchange is over".to_owned());
        };
        let mut message = Zeroizing::new(Vec::with_capacity(self.size));
        let state = session.step(input, &mut *message).map_err(|error| in_words(&error))?;
        self.state = if state.is_running() { State::Spoken { session, challenges } } else { State::Finished };
        Ok(message)
    }

    /// Whether the server may say that we are logged in: with SCRAM not before it has proved that it knows the password.
    pub(super) fn may_succeed(&self) -> bool {
        match self.state {
            State::Finished => true,
            State::Failed => false,
            State::CramMd5 { .. } | State::Spoken { .. } | State::TokenSent => !self.mechanism.is_scram(),
        }
    }

    /// What the server holds against our token, in its own word.
    pub(super) fn objection(&self) -> Option<&str> {
        self.objection.as_deref()
    }
}

/// Our side of `mechanism` as rsasl speaks it. It gets to know all that the server offers, and whether we could bind the
/// channel: so SCRAM says `y` where we could and the server offers no -PLUS, and a server that does offer it finds out that
/// somebody in between has removed it (RFC 5802 section 6); and `n` where we could not.
fn session(
    mechanism: Mechanism,
    offered: &[String],
    login: &Login<'_>,
) -> Result<Session<NoValidation, Binding>, String> {
    let answers = Answers::new(mechanism, login)?;
    let config =
        SASLConfig::builder().with_registry(Registry::with_mechanisms(&SPOKEN)).with_callback(answers);
    let config = config.map_err(|error| error.to_string())?;
    let names: Vec<&Mechname> = Mechanism::known_of(offered)
        .filter_map(|mechanism| Mechname::parse(mechanism.name().as_bytes()).ok())
        .collect();
    let binding = Binding(login.channel_binding.map(<[u8]>::to_vec));
    SASLClient::with_cb(config, binding).start_suggested(&names).map_err(|error| error.to_string())
}

/// What ties an exchange to its TLS connection.
struct Binding(Option<Vec<u8>>);

impl ChannelBindingCallback for Binding {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        self.0.as_deref().filter(|_| name == TLS_EXPORTER)
    }
}

/// What rsasl is told when it asks.
struct Answers {
    /// The only mechanism that is wanted.
    name: &'static str,
    can_bind: bool,
    username: String,
    /// Whom we want to act as, where the mechanism says that beside or instead of the name.
    authzid: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    /// The server, for OAUTHBEARER.
    fields: Vec<(&'static str, String)>,
}

impl Answers {
    fn new(mechanism: Mechanism, login: &Login<'_>) -> Result<Self, String> {
        let given = login.credentials;
        let mut answers = Self {
            name: mechanism.name(),
            can_bind: login.channel_binding.is_some(),
            username: given.username.clone(),
            authzid: None,
            password: None,
            token: None,
            fields: Vec::new(),
        };
        match &given.proof {
            Proof::Password(password) if mechanism.is_scram() => {
                answers.username = scram::prepared_name(&given.username)?;
                answers.password = Some(scram::prepared_password(password)?);
            }
            Proof::Password(password) => answers.password = Some(password.clone()),
            Proof::Token(token) if !oauth::is_token(token.expose()) => {
                return Err(
                    "the token is empty or holds a character that no token may hold (RFC 6750)".to_owned()
                );
            }
            Proof::Token(token) => {
                let name = Some(oauth::saslname(&given.username)).filter(|name| !name.is_empty());
                answers.authzid = name.filter(|_| mechanism == Mechanism::OauthBearer);
                answers.token = Some(token.clone());
                answers.add_server(login);
            }
            Proof::Certificate => answers.authzid = Some(given.username.clone()),
        }
        Ok(answers)
    }

    /// RFC 7628 section 3.1: host and port, where there are any.
    fn add_server(&mut self, login: &Login<'_>) {
        if !login.host.is_empty() && !login.host.contains(char::is_control) {
            self.fields.push(("host", login.host.to_owned()));
        }
        if login.port > 0 {
            self.fields.push(("port", login.port.to_string()));
        }
    }
}

impl SessionCallback for Answers {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        request.satisfy::<AuthId>(&self.username)?;
        if let Some(authzid) = &self.authzid {
            request.satisfy::<AuthzId>(authzid)?;
        }
        if let Some(password) = &self.password {
            request.satisfy::<Password>(password.expose().as_bytes())?;
        }
        if let Some(token) = &self.token {
            request.satisfy::<OAuthBearerToken>(token.expose())?;
        }
        let fields: Vec<(&str, &str)> =
            self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        request.satisfy::<OAuthBearerKV>(&fields)?;
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        self.can_bind
    }

    /// We have chosen already; rsasl must not choose otherwise.
    fn prefer<'a>(
        &self,
        _: Option<&'a rsasl::prelude::Mechanism>,
        other: &'a rsasl::prelude::Mechanism,
    ) -> Ordering {
        if other.mechanism.as_str() == self.name { Ordering::Less } else { Ordering::Greater }
    }
}

/// What rsasl says of a server's message, printable and short. Nothing in it comes from us.
fn in_words(error: &SessionError) -> String {
    let text = match error {
        SessionError::MutualAuthenticationFailed => {
            "the server has not proved that it knows the password".to_owned()
        }
        SessionError::MechanismError(error) => error.to_string(),
        other => other.to_string(),
    };
    text.chars().filter(|c| !c.is_control()).take(ERROR_SIZE_MAX).collect()
}
