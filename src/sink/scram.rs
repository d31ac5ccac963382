//! SCRAM, the server's side (RFC 5802, RFC 7677), with channel binding by `tls-exporter` (RFC 9266).
//!
//! - Owns: both messages of the server, the proof of the client.
//! - Leaves to others: other mechanisms (`mechanism`), base64 of the lines (`auth`).
//! - Always true: a client that was talked out of channel binding is refused; nonces are those of this exchange.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use super::mechanism::{Step, unescape};

/// Rounds of PBKDF2. RFC 7677 section 4 asks for as many at least; the passwords here are not worth more.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);

/// The hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), message)
    }

    fn salted(self, password: &str, salt: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut salted = vec![0; self.digest().output_len()];
        pbkdf2::derive(algorithm, ITERATIONS, salt, password.as_bytes(), &mut salted);
        salted
    }
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Scram {
    hash: Hash,
    is_plus: bool,
    binding: Option<[u8; 32]>,
    /// The server's part of it.
    nonce: String,
    salt: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    AwaitsFirst,
    AwaitsFinal(Final),
    /// The server has proved itself, too; the client only has to agree.
    AwaitsNothing(String),
    Over,
}

/// What the client's final message must fit to.
#[derive(Debug)]
struct Final {
    user: String,
    password: String,
    /// The client's first message without its GS2 header.
    first: String,
    /// Ours.
    challenge: String,
    /// `c=…,r=…`, as the client's message has to begin.
    beginning: String,
}

impl Scram {
    /// Begins, with channel binding if `is_plus`. `binding` is that of the connection, asked for or not; `nonce` and
    /// `salt` are random.
    pub fn new(
        hash: Hash,
        is_plus: bool,
        binding: Option<[u8; 32]>,
        nonce: [u8; 18],
        salt: [u8; 18],
    ) -> Self {
        let (nonce, salt) = (BASE64.encode(nonce), salt.to_vec());
        Self { hash, is_plus, binding, nonce, salt, state: State::AwaitsFirst }
    }

    /// Takes a message of the client.
    pub fn step(&mut self, response: &[u8], logins: &[(String, String)]) -> Step {
        let Ok(response) = std::str::from_utf8(response) else { return Step::Refused };
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitsFirst => self.first(response, logins).map_or(Step::Refused, |expected| {
                let challenge = expected.challenge.clone();
                self.state = State::AwaitsFinal(expected);
                Step::Ask(challenge.into_bytes())
            }),
            State::AwaitsFinal(expected) => match self.verify(&expected, response) {
                Some(verifier) => {
                    self.state = State::AwaitsNothing(expected.user);
                    Step::Ask(verifier.into_bytes())
                }
                None => Step::Refused,
            },
            State::AwaitsNothing(user) if response.is_empty() => Step::Accepted(user),
            State::AwaitsNothing(_) | State::Over => Step::Refused,
        }
    }

    /// Reads `GS2-HEADER n=USER,r=NONCE`.
    fn first(&self, message: &str, logins: &[(String, String)]) -> Option<Final> {
        let (flag, rest) = message.split_once(',')?;
        let (acts_for, first) = rest.split_once(',')?;
        let (written, nonce) = first.strip_prefix("n=")?.split_once(",r=")?;
        let user = unescape(written)?;
        let is_himself = acts_for.is_empty() || acts_for.strip_prefix("a=") == Some(written);
        let is_bound = match flag {
            "n" => !self.is_plus,
            // "I could, but you cannot": somebody has taken our -PLUS out of the list (RFC 5802 section 6).
            "y" => !self.is_plus && self.binding.is_none(),
            "p=tls-exporter" => self.is_plus,
            _ => false,
        };
        if !is_himself || !is_bound || nonce.is_empty() || nonce.contains(',') {
            return None;
        }
        let (_, password) = logins.iter().find(|(known, _)| *known == user)?;
        let mut binding = format!("{flag},{acts_for},").into_bytes();
        if self.is_plus {
            binding.extend_from_slice(&self.binding?);
        }
        let nonce = format!("{nonce}{}", self.nonce);
        Some(Final {
            password: password.clone(),
            first: first.to_owned(),
            challenge: format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(&self.salt)),
            beginning: format!("c={},r={nonce}", BASE64.encode(binding)),
            user,
        })
    }

    /// Reads `c=BINDING,r=NONCE,p=PROOF`; our own proof, if that one is right.
    fn verify(&self, expected: &Final, message: &str) -> Option<String> {
        let proof = message.strip_prefix(&expected.beginning)?.strip_prefix(",p=")?;
        let salted = self.hash.salted(&expected.password, &self.salt);
        let client_key = self.hash.hmac(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let agreed = format!("{},{},{}", expected.first, expected.challenge, expected.beginning);
        let signature = self.hash.hmac(stored_key.as_ref(), agreed.as_bytes());
        let pairs = client_key.as_ref().iter().zip(signature.as_ref());
        let right: Vec<u8> = pairs.map(|(key, signature)| key ^ signature).collect();
        if BASE64.decode(proof).ok()? != right {
            return None;
        }
        let server_key = self.hash.hmac(&salted, b"Server Key");
        let verifier = self.hash.hmac(server_key.as_ref(), agreed.as_bytes());
        Some(format!("v={}", BASE64.encode(verifier)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An exchange with the nonce and salt of an example.
    fn example(hash: Hash, nonce: &str, salt: &str) -> Scram {
        let mut scram = Scram::new(hash, false, None, [0; 18], [0; 18]);
        (scram.nonce, scram.salt) = (nonce.to_owned(), BASE64.decode(salt).unwrap());
        scram
    }

    fn logins() -> Vec<(String, String)> {
        vec![("user".to_owned(), "pencil".to_owned())]
    }

    fn ask(text: &str) -> Step {
        Step::Ask(text.as_bytes().to_vec())
    }

    #[test]
    fn the_examples_of_the_standards_come_out() {
        // RFC 5802 section 5, RFC 7677 section 3.
        for (hash, client, server, salt, proof, verifier) in [
            (
                Hash::Sha1,
                "fyko+d2lbbFgONRv9qkxdawL",
                "3rfcNHYJY1ZVvWVs7j",
                "QSXCR+Q6sek8bf92",
                "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Hash::Sha256,
                "rOprNGfwEbeRWgbNEkqO",
                "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ] {
            let first = format!("n,,n=user,r={client}");
            let last = format!("c=biws,r={client}{server},p={proof}");
            let mut scram = example(hash, server, salt);
            assert_eq!(
                scram.step(first.as_bytes(), &logins()),
                ask(&format!("r={client}{server},s={salt},i=4096"))
            );
            assert_eq!(scram.step(last.as_bytes(), &logins()), ask(&format!("v={verifier}")));
            assert_eq!(scram.step(b"", &logins()), Step::Accepted("user".to_owned()));
            assert_eq!(scram.step(b"", &logins()), Step::Refused);
            for wrong in [
                last.replace("biws", "eSws"),
                last.replace(server, ""),
                last.replace(&proof[..4], "AAAA"),
                last.replace(",p=", ",p"),
                "*".to_owned(),
            ] {
                let mut scram = example(hash, server, salt);
                scram.step(first.as_bytes(), &logins());
                assert_eq!(scram.step(wrong.as_bytes(), &logins()), Step::Refused, "{wrong}");
            }
        }
    }

    #[test]
    fn the_header_says_whether_the_channel_is_bound() {
        let bound = Some([1; 32]);
        for (header, is_plus, binding, is_taken) in [
            ("n,,", false, None, true),
            ("n,,", false, bound, true),
            ("n,a=user,", false, None, true),
            ("n,a=root,", false, None, false),
            ("y,,", false, None, true),
            ("y,,", false, bound, false),
            ("p=tls-exporter,,", false, bound, false),
            ("p=tls-exporter,,", true, bound, true),
            ("p=tls-unique,,", true, bound, false),
            ("n,,", true, bound, false),
            ("x,,", false, None, false),
            ("n,", false, None, false),
        ] {
            let mut scram = Scram::new(Hash::Sha256, is_plus, binding, [0; 18], [0; 18]);
            let step = scram.step(format!("{header}n=user,r=abc").as_bytes(), &logins());
            assert_eq!(matches!(step, Step::Ask(_)), is_taken, "{header} {is_plus} {binding:?}");
        }
        for first in [
            "n,,n=root,r=abc",
            "n,,n=user,r=",
            "n,,n=user",
            "n,,r=abc,n=user",
            "n,,m=x,n=user,r=abc",
            "",
            "\u{e9}",
        ] {
            let mut scram = Scram::new(Hash::Sha1, false, None, [0; 18], [0; 18]);
            assert_eq!(scram.step(first.as_bytes(), &logins()), Step::Refused, "{first}");
        }
    }
}
