//! Certificates for tests: an authority, what it signs, and everything that can be wrong with a certificate.
//!
//! - Owns: making them, their files (PEM), their fingerprints.
//! - Leaves to others: who shows them, and what that leads to.
//! - Always true: each set is new, so that no test trusts what another has made; a private key is readable by its
//!   owner alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// The authority that tests trust, as certificates name it.
pub const AUTHORITY: &str = "lastmile test authority";
/// One between it and a server.
pub const INTERMEDIATE: &str = "lastmile intermediate authority";
/// One that nobody trusts.
pub const STRANGER: &str = "nobody's authority";
/// Whom [`Kind::WrongName`] is for.
pub const WRONG_NAME: &str = "other.example.net";
/// Whom [`Kind::Client`] is for.
pub const CLIENT: &str = "client.example.org";
/// When [`Kind::Expired`] ended, as the notes of a log may put it: year, month and day, UTC.
pub const EXPIRED_ON: (i32, u8, u8) = (2021, 2, 3);
/// When [`Kind::NotYetValid`] begins.
pub const VALID_FROM: (i32, u8, u8) = (2098, 7, 6);

/// What a certificate is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the authority, for the names that were asked for.
    Good,
    /// The same by way of [`INTERMEDIATE`], whose certificate is shown, too.
    Chained,
    /// The same, but the server forgets to show the one in between.
    ChainIncomplete,
    /// From the authority, for [`WRONG_NAME`].
    WrongName,
    /// Over since [`EXPIRED_ON`].
    Expired,
    /// Valid only from [`VALID_FROM`].
    NotYetValid,
    /// Signed by itself, for the names that were asked for.
    SelfSigned,
    /// From [`STRANGER`], for the names that were asked for.
    UnknownAuthority,
    /// From the authority, for a client: [`CLIENT`].
    Client,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Good,
        Self::Chained,
        Self::ChainIncomplete,
        Self::WrongName,
        Self::Expired,
        Self::NotYetValid,
        Self::SelfSigned,
        Self::UnknownAuthority,
        Self::Client,
    ];

    /// Its word, in files and dialogues.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Chained => "chained",
            Self::ChainIncomplete => "chain-incomplete",
            Self::WrongName => "wrong-name",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::SelfSigned => "self-signed",
            Self::UnknownAuthority => "unknown-authority",
            Self::Client => "client",
        }
    }

    /// The kind with that word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// One certificate with its files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, and those that lead to the authority, in PEM.
    pub chain: PathBuf,
    /// The private key, in PEM, readable by its owner alone.
    pub key: PathBuf,
    /// SHA-256 of the certificate, in DER.
    pub fingerprint: [u8; 32],
    /// SHA-256 of its public key (the SubjectPublicKeyInfo, in DER).
    pub key_fingerprint: [u8; 32],
}

impl Identity {
    /// Both fingerprints as people write them: pairs of upper-case digits with colons; of the certificate, of the key.
    pub fn written_fingerprints(&self) -> [String; 2] {
        [self.fingerprint, self.key_fingerprint].map(|digest| {
            let pairs: Vec<_> = digest.iter().map(|octet| format!("{octet:02X}")).collect();
            pairs.join(":")
        })
    }
}

/// A set of certificates in a directory.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
    /// The certificate of the authority, in PEM: what a client trusts.
    pub authority: PathBuf,
    identities: Vec<(Kind, Identity)>,
}

impl Certificates {
    /// Makes one certificate of each kind in `directory`, which is made if it does not exist. `names` are those of the
    /// server: host names, `*.example.org`, or IP addresses.
    pub fn make(directory: &Path, names: &[&str]) -> Self {
        fs::create_dir_all(directory).unwrap();
        let authority = authority(AUTHORITY);
        let intermediate =
            CertifiedIssuer::signed_by(authority_params(INTERMEDIATE), key(), &authority).unwrap();
        let stranger = self::authority(STRANGER);
        let mut set = Self {
            directory: directory.to_owned(),
            authority: directory.join("authority.pem"),
            identities: Vec::new(),
        };
        fs::write(&set.authority, authority.pem()).unwrap();
        for kind in Kind::ALL {
            let key = key();
            let params = params_of(kind, names);
            let certificate = match kind {
                Kind::SelfSigned => params.self_signed(&key),
                Kind::UnknownAuthority => params.signed_by(&key, &stranger),
                Kind::Chained | Kind::ChainIncomplete => params.signed_by(&key, &intermediate),
                _ => params.signed_by(&key, &authority),
            };
            let above = if kind == Kind::Chained { intermediate.pem() } else { String::new() };
            set.add(kind, &certificate.unwrap(), &key, &above);
        }
        set
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The certificate of this kind.
    pub fn of(&self, kind: Kind) -> &Identity {
        let found = self.identities.iter().find(|(this, _)| *this == kind);
        &found.expect("one of each kind is made").1
    }

    fn add(&mut self, kind: Kind, certificate: &Certificate, key: &KeyPair, above: &str) {
        let path = |end: &str| self.directory.join(format!("{}{end}", kind.word()));
        let identity = Identity {
            chain: path(".pem"),
            key: path(".key"),
            fingerprint: sha256(certificate.der()),
            key_fingerprint: sha256(&key.subject_public_key_info()),
        };
        fs::write(&identity.chain, certificate.pem() + above).unwrap();
        write_private(&identity.key, &key.serialize_pem()).unwrap();
        self.identities.push((kind, identity));
    }
}

/// ECDSA over P-256, which costs next to nothing.
fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::self_signed(authority_params(name), key()).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(&[], name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn params_of(kind: Kind, names: &[&str]) -> CertificateParams {
    let wrong = [WRONG_NAME];
    let client = [CLIENT];
    let names = match kind {
        Kind::WrongName => &wrong,
        Kind::Client => &client,
        _ => names,
    };
    let mut params = params(names, names.first().copied().unwrap_or("server without a name"));
    let (year, month, day) = match kind {
        Kind::NotYetValid => VALID_FROM,
        _ => (2020, 1, 1),
    };
    params.not_before = date_time_ymd(year, month, day);
    if kind == Kind::Expired {
        let (year, month, day) = EXPIRED_ON;
        params.not_after = date_time_ymd(year, month, day);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match kind {
        Kind::Client => ExtendedKeyUsagePurpose::ClientAuth,
        _ => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    suite.common.hash_provider.hash(octets).as_ref().try_into().expect("32 octets")
}
