//! Certificates and private keys in PEM (RFC 7468): our own, and those of authorities.
//!
//! - Owns: reading them, and whether a key fits its certificate.
//! - Leaves to others: the files (`files`), what a server's certificate proves (`net`).
//! - Always true: authorities that were configured are at least one; a key fits the certificate that it comes with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

use super::files::{self, AUTHORITIES_SIZE_MAX, Place, Readers, SECRETS_SIZE_MAX, Trouble, has_private_key};

/// The authorities that the system trusts, read when somebody first asks. What is wrong with them is logged then.
pub fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            log::warn!("the certificates of the authorities that this system trusts cannot all be read: {error}");
        }
        let mut roots = RootCertStore::empty();
        let (_, unreadable) = roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            log::warn!(
                "this system trusts no authority ({unreadable} certificates could not be used), so no server can be \
                 verified: install its certificates (ca-certificates), or set tls_CAfile"
            );
        }
        Arc::new(roots)
    })
}

/// Authorities, with what tells them from others.
pub(super) struct Authorities {
    pub(super) roots: RootCertStore,
    /// Each certificate in DER.
    pub(super) certificates: BTreeSet<Vec<u8>>,
}

/// Reads the certificates of a file and of all files of a directory. The errors come with the key that is to blame.
pub(super) fn authorities(
    file: Option<&Path>,
    directory: Option<&Path>,
    place: Place<'_>,
) -> Result<Authorities, Vec<(&'static str, Trouble)>> {
    let (mut certificates, mut wrong) = (BTreeSet::new(), Vec::new());
    let of_file = file.map(|path| ("tls_CAfile", place.find(path).and_then(|path| in_file(&path))));
    let of_directory =
        directory.map(|path| ("tls_CApath", place.find(path).and_then(|path| in_directory(&path))));
    for (key, found) in of_file.into_iter().chain(of_directory) {
        match found {
            Ok(found) => certificates.extend(found),
            Err(trouble) => wrong.push((key, trouble)),
        }
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().map(|der| CertificateDer::from(der.as_slice())));
    if wrong.is_empty() { Ok(Authorities { roots, certificates }) } else { Err(wrong) }
}

/// The certificates of a file: at least one, all of them usable.
fn in_file(path: &Path) -> Result<Vec<Vec<u8>>, Trouble> {
    let found = certificates_in(path, &files::read(path, AUTHORITIES_SIZE_MAX, Readers::All)?)?;
    let unusable = found.iter().filter(|der| !is_usable(der)).count();
    match (found.len(), unusable) {
        (0, _) => Err(Trouble::wrong(path, "there is no certificate in PEM in it")),
        (_, 0) => Ok(found.into_iter().map(|der| der.to_vec()).collect()),
        (all, bad) => {
            Err(Trouble::wrong(path, format_args!("{bad} of its {all} certificates cannot be understood")))
        }
    }
}

/// The certificates of all files of a directory. Other files and unusable ones may lie there, too: systems' directories have
/// both.
fn in_directory(path: &Path) -> Result<Vec<Vec<u8>>, Trouble> {
    let mut found = Vec::new();
    for file in files::files_of(path)? {
        let content = files::read(&file, AUTHORITIES_SIZE_MAX, Readers::All)?;
        found.extend(certificates_in(&file, &content).unwrap_or_default());
    }
    found.retain(|der| is_usable(der));
    if found.is_empty() {
        return Err(Trouble::wrong(path, "there is no certificate in PEM in any of its files"));
    }
    Ok(found.into_iter().map(|der| der.to_vec()).collect())
}

fn is_usable(der: &CertificateDer<'_>) -> bool {
    RootCertStore::empty().add(der.clone()).is_ok()
}

fn certificates_in(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    CertificateDer::pem_slice_iter(content).collect::<Result<_, _>>().map_err(|error| not_pem(path, &error))
}

/// Nothing of the file is repeated: a private key may stand in it.
fn not_pem(path: &Path, error: &pem::Error) -> Trouble {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "one of its sections has no END line",
        pem::Error::IllegalSectionStart { .. } => "one of its BEGIN lines is damaged",
        pem::Error::Base64Decode(_) => "one of its sections is not base64",
        _ => "it cannot be understood",
    };
    Trouble::wrong(path, format_args!("it is no PEM: {what}"))
}

/// Our certificate with its chain and key, and what tells it from another.
pub(super) struct Identity {
    pub(super) certified: CertifiedKey,
    /// The key, as the file has it.
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// Reads our certificate and its key. Without `key` they stand in the same file.
pub(super) fn identity(
    certificate: &Path,
    key: Option<&Path>,
    place: Place<'_>,
) -> Result<Identity, Vec<(&'static str, Trouble)>> {
    let Some(key) = key else {
        let both = place.find(certificate).and_then(|path| in_one_file(&path));
        return both.map_err(|trouble| vec![("tls_cert_file", trouble)]);
    };
    let chain = place
        .find(certificate)
        .and_then(|path| own_chain(&path, &files::read(&path, SECRETS_SIZE_MAX, Readers::All)?));
    let key =
        place.find(key).and_then(|path| own_key(&path, files::read(&path, SECRETS_SIZE_MAX, Readers::Few)?));
    let blamed_key = |trouble| ("tls_key_file", trouble);
    match (chain, key) {
        (Ok(chain), Ok(key)) => pair(chain, key, certificate).map_err(|trouble| vec![blamed_key(trouble)]),
        (chain, key) => {
            let of_chain = chain.err().map(|trouble| ("tls_cert_file", trouble));
            Err(of_chain.into_iter().chain(key.err().map(blamed_key)).collect())
        }
    }
}

/// A certificate and its key from the same file.
fn in_one_file(path: &Path) -> Result<Identity, Trouble> {
    let content = files::read(path, SECRETS_SIZE_MAX, Readers::FewOfKeys)?;
    let chain = own_chain(path, &content);
    if !has_private_key(&content) {
        // Who has two files need not be told that this one is open, which it may be.
        let mut trouble =
            chain.err().unwrap_or_else(|| Trouble::wrong(path, "there is no private key in PEM in it"));
        trouble.text += "; without tls_key_file the private key must stand in it, too: set tls_key_file";
        return Err(trouble);
    }
    pair(chain?, own_key(path, content)?, path)
}

fn own_chain(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let found = certificates_in(path, content)?;
    match found.first() {
        None => Err(Trouble::wrong(path, "there is no certificate in PEM in it")),
        Some(first) if webpki::EndEntityCert::try_from(first).is_err() => {
            Err(Trouble::wrong(path, "its first certificate cannot be understood"))
        }
        Some(_) => Ok(found),
    }
}

/// A private key, and the file in which it stands.
struct OwnKey {
    path: PathBuf,
    content: Zeroizing<Vec<u8>>,
    signing: Arc<dyn rustls::sign::SigningKey>,
}

fn own_key(path: &Path, content: Zeroizing<Vec<u8>>) -> Result<OwnKey, Trouble> {
    let mut key = PrivateKeyDer::from_pem_slice(&content).map_err(|error| match error {
        _ if is_encrypted(&content) => {
            Trouble::wrong(path, "the key in it is encrypted, and nobody is there to type its passphrase")
        }
        pem::Error::NoItemsFound => Trouble::wrong(path, "there is no private key in PEM in it"),
        error => not_pem(path, &error),
    })?;
    let signing = any_supported_type(&key);
    key.zeroize();
    let signing = signing.map_err(|_| {
        Trouble::wrong(
            path,
            "its key is of no kind that can be used: RSA (2048 to 8192 bits), ECDSA P-256 or P-384, \
            or Ed25519",
        )
    })?;
    Ok(OwnKey { path: path.to_owned(), content, signing })
}

/// Puts a certificate from the file `certificate` and a key together, if they belong together.
fn pair(chain: Vec<CertificateDer<'static>>, key: OwnKey, certificate: &Path) -> Result<Identity, Trouble> {
    let certified = CertifiedKey::new(chain, key.signing);
    if certified.keys_match().is_err() {
        let what = format!("the key in it is not that of the certificate in {}", certificate.display());
        return Err(Trouble::wrong(&key.path, what));
    }
    Ok(Identity { certified, key: key.content })
}

fn is_encrypted(content: &[u8]) -> bool {
    let has = |words: &[u8]| memchr::memmem::find(content, words).is_some();
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}
