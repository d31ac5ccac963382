//! The certificates that tests show each other are what they are called.
//!
//! - Owns: a look at each of them through webpki.
//! - Leaves to others: making them (`common::certificates`), how our client judges them.
//! - Always true: nothing here asks a network or a clock's time zone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::common::certificates::{Certificates, Identity, Kind};

/// Some time in 2026.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_795_000_000));

/// What webpki says of a chain, for a server or a client of that name: the variant of its error, without details.
fn judge(set: &Certificates, identity: &Identity, name: &str, usage: KeyUsage) -> String {
    let authority = CertificateDer::from_pem_file(&set.authority).unwrap();
    let anchors = [anchor_from_trusted_cert(&authority).unwrap()];
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&identity.chain).unwrap().map(|one| one.unwrap()).collect();
    let certificate = EndEntityCert::try_from(&chain[0]).unwrap();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let verified =
        certificate.verify_for_usage(algorithms.all, &anchors, &chain[1..], NOW, usage, None, None);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let said = verified.map(drop).and_then(|()| certificate.verify_is_valid_for_subject_name(&name));
    match said {
        Ok(()) => "good".to_owned(),
        Err(error) => format!("{error:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn every_certificate_is_what_it_is_called() {
    let directory = tempfile::tempdir().unwrap();
    let set = Certificates::make(&directory.path().join("certificates"), &["mx.example.org", "127.0.0.1"]);
    for (kind, said) in [
        (Kind::Good, "good"),
        (Kind::Chained, "good"),
        (Kind::ChainIncomplete, "UnknownIssuer"),
        (Kind::WrongName, "CertNotValidForName"),
        (Kind::Expired, "CertExpired"),
        (Kind::NotYetValid, "CertNotValidYet"),
        (Kind::SelfSigned, "UnknownIssuer"),
        (Kind::UnknownAuthority, "UnknownIssuer"),
        (Kind::Client, "RequiredEkuNotFoundContext"),
    ] {
        for name in ["mx.example.org", "127.0.0.1"] {
            assert_eq!(judge(&set, set.of(kind), name, KeyUsage::server_auth()), said, "{kind:?}");
        }
        assert_eq!(Kind::of_word(kind.word()), Some(kind));
    }
    let client = set.of(Kind::Client);
    assert_eq!(judge(&set, client, "client.example.org", KeyUsage::client_auth()), "good");
    assert_eq!(
        judge(&set, set.of(Kind::Good), "mail.example.org", KeyUsage::server_auth()),
        "CertNotValidForName"
    );
}

#[test]
fn keys_fit_their_certificates_and_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let set = Certificates::make(directory.path(), &["mx.example.org"]);
    for kind in Kind::ALL {
        let identity = set.of(kind);
        let mode = fs::metadata(&identity.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{kind:?}");
        let chain = CertificateDer::pem_file_iter(&identity.chain).unwrap().map(|one| one.unwrap()).collect();
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let certified = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
        certified.keys_match().unwrap();
        let [certificate, key] = identity.written_fingerprints();
        assert_eq!((certificate.len(), key.len()), (95, 95));
        assert_ne!(certificate, key);
    }
}
