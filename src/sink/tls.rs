//! What the server shows when a client asks for TLS: its certificate, and the versions that it speaks.
//!
//! - Owns: reading the files, what is wrong with them in words.
//! - Leaves to others: when TLS begins (`starttls`), the encrypted octets (`channel`).
//! - Always true: a server that starts has a certificate and the key that belongs to it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

/// How the server does TLS. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate, and those between it and an authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities whose clients are asked for a certificate. Whoever has none is served all the same.
    pub client_ca: Option<PathBuf>,
    /// The versions that are spoken; empty for all that there are.
    pub versions: Vec<TlsVersion>,
}

impl TlsConfig {
    /// With a certificate and its key; no client is asked for one.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { cert: cert.into(), key: key.into(), client_ca: None, versions: Vec::new() }
    }

    /// Reads the files. The error says which of them is of no use, and why.
    pub fn open(&self) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let provider = Arc::new(ring::default_provider());
        let bad = |path: &Path, why: String| TlsConfigError { path: path.to_owned(), why };
        let verifier = match &self.client_ca {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(path) => client_verifier(path, &provider)?,
        };
        let chain = read_certificates(&self.cert)?;
        let key = read(&self.key)
            .and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(|error| error.to_string()))
            .map_err(|why| bad(&self.key, format!("it has no private key in PEM ({why})")))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.protocol_versions())
            .map_err(|error| bad(&self.cert, error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| bad(&self.key, format!("with {}: {error}", self.cert.display())))?;
        Ok(Arc::new(config))
    }

    fn protocol_versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let wanted = |version: &TlsVersion| self.versions.is_empty() || self.versions.contains(version);
        TlsVersion::ALL.into_iter().filter(wanted).map(TlsVersion::of_rustls).collect()
    }
}

/// Asks clients for a certificate from the authorities in this file.
fn client_verifier(
    path: &Path,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsConfigError> {
    let bad = |why: String| TlsConfigError { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.allow_unauthenticated().build().map_err(|error| bad(error.to_string()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let bad = |why: String| TlsConfigError { path: path.to_owned(), why };
    let pem = read(path).map_err(bad)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(bad("it has no certificate in PEM".to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(bad(format!("it has no certificate in PEM ({error})"))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| error.to_string())
}

/// Why a certificate or a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {} for TLS: {why}", path.display())]
pub struct TlsConfigError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl From<TlsConfigError> for io::Error {
    fn from(error: TlsConfigError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

impl TlsVersion {
    /// Every one, the older first.
    pub const ALL: [Self; 2] = [Self::V1_2, Self::V1_3];

    fn of_rustls(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::V1_2 => &rustls::version::TLS12,
            Self::V1_3 => &rustls::version::TLS13,
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        })
    }
}

impl FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(text));
        known.ok_or_else(|| format!("\"{text}\" is no version of TLS: TLSv1.2 and TLSv1.3 are"))
    }
}
