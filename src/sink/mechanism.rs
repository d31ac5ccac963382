//! SASL mechanisms, the server's side: what each asks, and whom it believes.
//!
//! - Owns: PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), XOAUTH2, OAUTHBEARER (RFC 7628), EXTERNAL (RFC 4422).
//! - Leaves to others: SCRAM (`scram`), base64 and lines (`auth`).
//! - Always true: written here and not taken from the library that the client uses, so that one mistake cannot hide
//!   on both sides; names and passwords are compared as they are, without SASLprep.

use hmac::{Hmac, Mac};
use md5::Md5;
use ring::error::Unspecified;
use ring::rand::{SystemRandom, generate};

use super::scram::{Hash, Scram};

/// What a failed login with a token hears before its 535 (RFC 7628 section 3.2.2).
const BAD_TOKEN: &[u8] = br#"{"status":"invalid_token","schemes":"bearer","scope":"mail"}"#;

/// A mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    External,
    ScramSha256Plus,
    ScramSha1Plus,
    ScramSha256,
    ScramSha1,
    CramMd5,
    Plain,
    Login,
    OAuthBearer,
    XOAuth2,
}

/// What a mechanism may build upon.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    /// The client has shown a certificate that we believe.
    pub has_certificate: bool,
    /// `tls-exporter` of the connection.
    pub binding: Option<[u8; 32]>,
}

impl Mechanism {
    const ALL: [Self; 10] = [
        Self::External,
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::CramMd5,
        Self::Plain,
        Self::Login,
        Self::OAuthBearer,
        Self::XOAuth2,
    ];

    /// Those that such a connection allows.
    pub fn usable(connection: &Connection) -> impl Iterator<Item = Self> + use<> {
        let connection = *connection;
        Self::ALL.into_iter().filter(move |mechanism| match mechanism {
            Self::External => connection.has_certificate,
            Self::ScramSha256Plus | Self::ScramSha1Plus => connection.binding.is_some(),
            _ => true,
        })
    }

    /// Its name (RFC 4422 section 3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::External => "EXTERNAL",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
        }
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The client has to answer this.
    Ask(Vec<u8>),
    /// It is this user.
    Accepted(String),
    /// It is nobody that we know.
    Refused,
}

impl Step {
    /// The user, if it is one.
    fn of(user: Option<String>) -> Self {
        user.map_or(Self::Refused, Self::Accepted)
    }
}

/// One exchange. A step after [`Step::Accepted`] or [`Step::Refused`] is refused.
#[derive(Debug)]
pub(super) enum Exchange {
    External,
    Plain,
    LoginName,
    LoginPassword(String),
    CramMd5 { challenge: String, asked: bool },
    Scram(Box<Scram>),
    OAuthBearer,
    XOAuth2,
    Over,
}

/// Names and passwords.
type Logins = [(String, String)];

impl Exchange {
    /// Begins. Fails where the system gives no randomness.
    pub fn new(mechanism: Mechanism, connection: Connection, hostname: &str) -> Result<Self, Unspecified> {
        let random = || generate::<[u8; 18]>(&SystemRandom::new()).map(ring::rand::Random::expose);
        let scram = |hash, is_plus| {
            Ok(Self::Scram(Box::new(Scram::new(hash, is_plus, connection.binding, random()?, random()?))))
        };
        match mechanism {
            Mechanism::External => Ok(Self::External),
            Mechanism::ScramSha256Plus => scram(Hash::Sha256, true),
            Mechanism::ScramSha1Plus => scram(Hash::Sha1, true),
            Mechanism::ScramSha256 => scram(Hash::Sha256, false),
            Mechanism::ScramSha1 => scram(Hash::Sha1, false),
            Mechanism::CramMd5 => {
                let number: String = random()?.iter().map(|octet| format!("{octet:02x}")).collect();
                Ok(Self::CramMd5 { challenge: format!("<{number}@{hostname}>"), asked: false })
            }
            Mechanism::Plain => Ok(Self::Plain),
            Mechanism::Login => Ok(Self::LoginName),
            Mechanism::OAuthBearer => Ok(Self::OAuthBearer),
            Mechanism::XOAuth2 => Ok(Self::XOAuth2),
        }
    }

    /// Takes a response; without one, nothing has been said yet.
    pub fn step(&mut self, response: Option<&[u8]>, logins: &Logins) -> Step {
        let Some(response) = response else { return self.begin() };
        match std::mem::replace(self, Self::Over) {
            Self::External => Step::of(external(response, logins)),
            Self::Plain => Step::of(plain(response, logins)),
            Self::LoginName => match String::from_utf8(response.to_vec()) {
                Ok(user) => {
                    *self = Self::LoginPassword(user);
                    Step::Ask(b"Password:".to_vec())
                }
                Err(_) => Step::Refused,
            },
            Self::LoginPassword(user) => Step::of(known(logins, user.as_bytes(), response)),
            Self::CramMd5 { challenge, asked: true } => Step::of(cram_md5(&challenge, response, logins)),
            Self::Scram(mut scram) => {
                let step = scram.step(response, logins);
                *self = Self::Scram(scram);
                step
            }
            Self::OAuthBearer => token(oauthbearer(response, logins)),
            Self::XOAuth2 => token(xoauth2(response, logins)),
            // A first response to a mechanism where the server speaks first, or one too many.
            Self::CramMd5 { .. } | Self::Over => Step::Refused,
        }
    }

    /// What the server says where the client has not spoken first.
    fn begin(&mut self) -> Step {
        Step::Ask(match self {
            Self::CramMd5 { challenge, asked } => {
                *asked = true;
                challenge.clone().into_bytes()
            }
            Self::LoginName => b"Username:".to_vec(),
            _ => Vec::new(),
        })
    }
}

/// The user with this name and password.
fn known(logins: &Logins, user: &[u8], password: &[u8]) -> Option<String> {
    let is_it = |login: &&(String, String)| login.0.as_bytes() == user && login.1.as_bytes() == password;
    logins.iter().find(is_it).map(|(user, _)| user.clone())
}

/// The certificate has spoken already; a name may be added, but must be a known one.
fn external(response: &[u8], logins: &Logins) -> Option<String> {
    let user = std::str::from_utf8(response).ok()?;
    let is_known = user.is_empty() || logins.iter().any(|(known, _)| known == user);
    is_known.then(|| user.to_owned())
}

/// Whom the client wants to act for may be left out, or is the user: nobody acts for others here.
fn plain(response: &[u8], logins: &Logins) -> Option<String> {
    let parts: Vec<_> = response.split(|octet| *octet == 0).collect();
    let [acts_for, user, password] = parts[..] else { return None };
    if acts_for.is_empty() || acts_for == user { known(logins, user, password) } else { None }
}

fn cram_md5(challenge: &str, response: &[u8], logins: &Logins) -> Option<String> {
    let (user, digest) = std::str::from_utf8(response).ok()?.rsplit_once(' ')?;
    let (_, password) = logins.iter().find(|(known, _)| known == user)?;
    let mut mac = Hmac::<Md5>::new_from_slice(password.as_bytes()).ok()?;
    mac.update(challenge.as_bytes());
    let expected: String = mac.finalize().into_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
    (digest == expected).then(|| user.to_owned())
}

/// A token that is not accepted is answered with what is wrong with it; what comes then is refused, whatever it is.
fn token(user: Option<String>) -> Step {
    user.map_or_else(|| Step::Ask(BAD_TOKEN.to_vec()), Step::Accepted)
}

fn xoauth2(response: &[u8], logins: &Logins) -> Option<String> {
    let text = std::str::from_utf8(response).ok()?.strip_suffix("\x01\x01")?;
    let (user, token) = text.strip_prefix("user=")?.split_once('\x01')?;
    known(logins, user.as_bytes(), token.strip_prefix("auth=Bearer ")?.as_bytes())
}

/// A name is optional: the token itself says whose it is.
fn oauthbearer(response: &[u8], logins: &Logins) -> Option<String> {
    let text = std::str::from_utf8(response).ok()?.strip_suffix("\x01\x01")?;
    let (header, pairs) = text.split_once('\x01')?;
    let name = header.strip_prefix("n,")?.strip_suffix(',')?;
    let token = pairs.split('\x01').find_map(|pair| pair.strip_prefix("auth=Bearer "))?;
    match name.strip_prefix("a=") {
        Some(user) => known(logins, unescape(user)?.as_bytes(), token.as_bytes()),
        None if name.is_empty() => {
            logins.iter().find(|(_, known)| known == token).map(|(user, _)| user.clone())
        }
        None => None,
    }
}

/// A name as GS2 headers and SCRAM write it (RFC 5801 section 4): `=2C` is a comma, `=3D` an equals sign.
pub(super) fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = match part.strip_prefix("2C") {
            Some(rest) => (',', rest),
            None => ('=', part.strip_prefix("3D")?),
        };
        plain.push(escaped);
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins() -> Vec<(String, String)> {
        [("tim", "tanstaaftanstaaf"), ("a,b=c", "x")].map(|(user, word)| (user.into(), word.into())).to_vec()
    }

    /// Plays the responses; the challenges, and how it ended.
    fn play(mut exchange: Exchange, responses: &[Option<&[u8]>]) -> (Vec<String>, Step) {
        let mut asked = Vec::new();
        for response in responses {
            match exchange.step(*response, &logins()) {
                Step::Ask(challenge) => asked.push(String::from_utf8(challenge).unwrap()),
                end => {
                    assert_eq!(exchange.step(Some(b""), &logins()), Step::Refused, "{response:?}");
                    return (asked, end);
                }
            }
        }
        panic!("the exchange has no end: {asked:?}");
    }

    #[test]
    fn each_mechanism_believes_the_right_response_alone() {
        let tim = || Step::Accepted("tim".to_owned());
        let cram = || Exchange::CramMd5 {
            challenge: "<1896.697170952@postoffice.reston.mci.net>".to_owned(),
            asked: false,
        };
        for (exchange, responses, asked, end) in [
            (Exchange::Plain, &[Some(&b"\0tim\0tanstaaftanstaaf"[..])][..], &[][..], tim()),
            (Exchange::Plain, &[None, Some(b"tim\0tim\0tanstaaftanstaaf")], &[""], tim()),
            (Exchange::Plain, &[Some(b"root\0tim\0tanstaaftanstaaf")], &[], Step::Refused),
            (Exchange::Plain, &[Some(b"\0tim\0tanstaaf")], &[], Step::Refused),
            (Exchange::Plain, &[Some(b"\0tim\0tanstaaftanstaaf\0")], &[], Step::Refused),
            (Exchange::Plain, &[Some(b"")], &[], Step::Refused),
            (
                Exchange::LoginName,
                &[None, Some(b"tim"), Some(b"tanstaaftanstaaf")],
                &["Username:", "Password:"],
                tim(),
            ),
            (Exchange::LoginName, &[Some(b"tim"), Some(b"tanstaaftanstaaf")], &["Password:"], tim()),
            (Exchange::LoginName, &[Some(b"tim"), Some(b"")], &["Password:"], Step::Refused),
            (Exchange::LoginName, &[Some(b"\xff")], &[], Step::Refused),
            // The example of RFC 2195 section 2.
            (
                cram(),
                &[None, Some(b"tim b913a602c7eda7a495b4e6e7334d3890")],
                &["<1896.697170952@postoffice.reston.mci.net>"],
                tim(),
            ),
            (
                cram(),
                &[None, Some(b"tim b913a602c7eda7a495b4e6e7334d3891")],
                &["<1896.697170952@postoffice.reston.mci.net>"],
                Step::Refused,
            ),
            (cram(), &[Some(b"tim b913a602c7eda7a495b4e6e7334d3890")], &[], Step::Refused),
            (Exchange::External, &[Some(b"tim")], &[], tim()),
            (Exchange::External, &[None, Some(b"")], &[""], Step::Accepted(String::new())),
            (Exchange::External, &[Some(b"root")], &[], Step::Refused),
            (Exchange::XOAuth2, &[Some(b"user=tim\x01auth=Bearer tanstaaftanstaaf\x01\x01")], &[], tim()),
            (
                Exchange::XOAuth2,
                &[Some(b"user=tim\x01auth=tanstaaftanstaaf\x01\x01"), Some(b"")],
                &[std::str::from_utf8(BAD_TOKEN).unwrap()],
                Step::Refused,
            ),
            (
                Exchange::OAuthBearer,
                &[None, Some(b"n,a=tim,\x01auth=Bearer tanstaaftanstaaf\x01\x01")],
                &[""],
                tim(),
            ),
            (
                Exchange::OAuthBearer,
                &[Some(b"n,,\x01host=mx\x01port=25\x01auth=Bearer tanstaaftanstaaf\x01\x01")],
                &[],
                tim(),
            ),
            (
                Exchange::OAuthBearer,
                &[Some(b"n,a=a=2Cb=3Dc,\x01auth=Bearer x\x01\x01")],
                &[],
                Step::Accepted("a,b=c".to_owned()),
            ),
            (
                Exchange::OAuthBearer,
                &[Some(b"n,a=tim,\x01auth=Bearer x\x01\x01"), Some(b"\x01")],
                &[std::str::from_utf8(BAD_TOKEN).unwrap()],
                Step::Refused,
            ),
        ] {
            let name = format!("{exchange:?} {responses:?}");
            assert_eq!(
                play(exchange, responses),
                (asked.iter().map(|&text| text.into()).collect(), end),
                "{name}"
            );
        }
    }

    #[test]
    fn a_mechanism_is_offered_where_it_can_work() {
        let names = |connection: &Connection| -> Vec<_> {
            Mechanism::usable(connection).map(Mechanism::name).collect()
        };
        let usual = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"];
        assert_eq!(names(&Connection::default()), usual);
        let all = names(&Connection { has_certificate: true, binding: Some([0; 32]) });
        assert_eq!(all[..3], ["EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"]);
        assert_eq!(all[3..], usual);
    }

    #[test]
    fn names_are_unescaped_strictly() {
        for (written, name) in [
            ("tim", Some("tim")),
            ("a=2Cb=3Dc", Some("a,b=c")),
            ("=3D2C", Some("=2C")),
            ("a=b", None),
            ("a=", None),
            ("a=2c", None),
        ] {
            assert_eq!(unescape(written).as_deref(), name, "{written}");
        }
    }

    #[test]
    fn every_challenge_of_cram_md5_is_new() {
        let challenge = || {
            let mut exchange = Exchange::new(Mechanism::CramMd5, Connection::default(), "h").unwrap();
            exchange.step(None, &[])
        };
        assert_ne!(challenge(), challenge());
    }
}
