//! Access tokens that Dovecot can check by itself: JSON Web Tokens (RFC 7519) signed with HS256 (RFC 7518).
//!
//! - Owns: the key, where Dovecot looks for it, tokens for a name.
//! - Leaves to others: where a client keeps them.
//! - Always true: a token is good for an hour.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::tls13::OkmBlock;

/// What signs them. No longer than SHA-256's output, as the hands that do the signing want it.
const KEY: &[u8] = b"the key of those tests' tokens..";
/// Seconds.
const VALID_FOR: u64 = 3600;

/// Writes the key below a directory, where Dovecot looks for the key of a token that names none.
pub fn write_key(directory: &Path) {
    let directory = directory.join("default/HS256");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("default"), BASE64_STANDARD.encode(KEY)).unwrap();
}

/// A token for a name.
pub fn token_for(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let head = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = format!(r#"{{"sub":"{name}","iat":{now},"exp":{}}}"#, now + VALID_FOR);
    let signed = format!("{head}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims));
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    let signature = suite.hkdf_provider.hmac_sign(&OkmBlock::new(KEY), signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
}
