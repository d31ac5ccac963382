//! The server's half of SCRAM (RFC 5802, RFC 7677) on another library's hashes, for tests: so that our half is not
//! measured by itself.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

#[derive(Clone, Copy, Debug)]
pub enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn digest(self, octets: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, octets).as_ref().to_vec()
    }

    fn hmac(self, key: &[u8], octets: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), octets).as_ref().to_vec()
    }

    fn stretched(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        let (algorithm, size) = match self {
            Self::Sha1 => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        };
        let mut out = vec![0; size];
        pbkdf2::derive(algorithm, NonZeroU32::new(iterations).unwrap(), salt, password.as_bytes(), &mut out);
        out
    }
}

/// A server that knows one user.
#[derive(Clone)]
pub struct Server {
    pub hash: Hash,
    pub username: String,
    pub password: String,
    pub salt: Vec<u8>,
    pub iterations: u32,
    /// Its half of the nonce.
    pub nonce: String,
    /// What it knows of the TLS connection, if it offers -PLUS.
    pub channel_binding: Option<Vec<u8>>,
    /// The exchange goes by -PLUS.
    pub is_plus: bool,
    /// So far: the header of the client's first message, its rest, our first message.
    said: [String; 3],
}

impl Server {
    pub fn new(hash: Hash, username: &str, password: &str) -> Self {
        Self {
            hash,
            username: username.to_owned(),
            password: password.to_owned(),
            salt: b"salty".to_vec(),
            iterations: 64,
            nonce: "3rfcNHYJY1ZVvWVs7j".to_owned(),
            channel_binding: None,
            is_plus: false,
            said: Default::default(),
        }
    }

    /// Our first message to the client's.
    pub fn first(&mut self, message: &str) -> Result<String, &'static str> {
        let at = message.match_indices(',').nth(1).expect("a header").0 + 1;
        let (header, bare) = message.split_at(at);
        match header {
            "n,," if !self.is_plus => {}
            // RFC 5802 section 6: it thinks that we offer no -PLUS.
            "y,," if self.channel_binding.is_some() => return Err("server-does-support-channel-binding"),
            "y,," if !self.is_plus => {}
            "p=tls-exporter,," if self.is_plus => {}
            _ => return Err("unsupported-channel-binding-type"),
        }
        let (name, nonce) =
            bare.strip_prefix("n=").and_then(|rest| rest.split_once(",r=")).expect("n= and r=");
        if name != self.username {
            return Err("unknown-user");
        }
        let (salt, iterations) = (STANDARD.encode(&self.salt), self.iterations);
        let first = format!("r={nonce}{},s={salt},i={iterations}", self.nonce);
        self.said = [header.to_owned(), bare.to_owned(), first.clone()];
        Ok(first)
    }

    /// Our last message to the client's.
    pub fn last(&self, message: &str) -> Result<String, &'static str> {
        let [header, client_first, server_first] = &self.said;
        let (without_proof, proof) = message.rsplit_once(",p=").expect("p=");
        let binding = self.channel_binding.as_deref().filter(|_| self.is_plus).unwrap_or_default();
        let expected = STANDARD.encode([header.as_bytes(), binding].concat());
        let nonce = server_first.split(',').next().unwrap();
        if without_proof != format!("c={expected},{nonce}") {
            return Err("channel-bindings-dont-match");
        }
        let all = format!("{client_first},{server_first},{without_proof}");
        let salted = self.hash.stretched(&self.password, &self.salt, self.iterations);
        let stored_key = self.hash.digest(&self.hash.hmac(&salted, b"Client Key"));
        let signature = self.hash.hmac(&stored_key, all.as_bytes());
        let proof = STANDARD.decode(proof).unwrap();
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        if self.hash.digest(&client_key) != stored_key {
            return Err("invalid-proof");
        }
        let server_key = self.hash.hmac(&salted, b"Server Key");
        Ok(format!("v={}", STANDARD.encode(self.hash.hmac(&server_key, all.as_bytes()))))
    }
}

#[test]
fn the_examples_of_rfc_5802_and_rfc_7677_are_reproduced() {
    for (hash, client, server, salt, proof, signature) in [
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
        let mut half = Server::new(hash, "user", "pencil");
        (half.iterations, half.nonce) = (4096, server.to_owned());
        half.salt = STANDARD.decode(salt).unwrap();
        let first = half.first(&format!("n,,n=user,r={client}")).unwrap();
        assert_eq!(first, format!("r={client}{server},s={salt},i=4096"));
        let last = half.last(&format!("c=biws,r={client}{server},p={proof}")).unwrap();
        assert_eq!(last, format!("v={signature}"));
    }
}
