//! Certificates that webpki does not read, and keys of which nothing can be checked.

use std::os::unix::net::UnixStream;

use rcgen::{CustomExtension, PublicKeyData, SigningKey as _};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::sign::{Signer, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, SignatureAlgorithm, SignatureScheme};

use super::*;
use crate::net::tls::certificate::Certificate;
use crate::net::tls::verify::SignaturesOnly;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// 2.5.4.3, in a set of one attribute.
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 0x04, 0x03];
/// ecdsa-with-SHA256.
const ECDSA_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0];
const PSS: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const P_256: &[u8] = &[
    0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07,
];
const P_521: &[u8] =
    &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x23];
const BRAINPOOL: &[u8] =
    &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7];
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];
const ED448: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x71];
const DSA: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01];

/// An element of DER.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        short @ 0..=0x7f => vec![short as u8],
        longer @ 0x80..=0xff => vec![0x81, longer as u8],
        long => [&[0x82][..], &(long as u16).to_be_bytes()].concat(),
    };
    [&[tag][..], &length, &content].concat()
}

/// What `openssl x509 -req -signkey` makes of `public_key` where no extensions are asked for.
fn signed_by_itself(name: &str, public_key: &[u8], key: &KeyPair) -> CertificateDer<'static> {
    let algorithm = element(SEQUENCE, &[ECDSA_SHA256]);
    let common_name = element(SEQUENCE, &[COMMON_NAME, &element(0x0c, &[name.as_bytes()])]);
    let name = element(SEQUENCE, &[&element(0x31, &[&common_name])]);
    let validity = [b"20200101000000Z", b"20990101000000Z"].map(|date| element(0x18, &[date]));
    let validity = element(SEQUENCE, &[&validity[0], &validity[1]]);
    let parts: [&[u8]; 6] = [&[0x02, 1, 7], &algorithm, &name, &validity, &name, public_key];
    let to_be_signed = element(SEQUENCE, &parts);
    let signature = element(BIT_STRING, &[&[0], &key.sign(&to_be_signed).unwrap()]);
    element(SEQUENCE, &[&to_be_signed, &algorithm, &signature]).into()
}

/// A certificate of version 1 for `key`.
pub fn version_1(name: &str, key: &KeyPair) -> CertificateDer<'static> {
    signed_by_itself(name, &key.subject_public_key_info(), key)
}

/// A critical extension that is this test's own invention.
pub fn unknown_demand() -> CustomExtension {
    let mut demand = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![0x05, 0]);
    demand.set_criticality(true);
    demand
}

/// A public key that none but its kind is known of.
fn public_key(kind: &[u8], key: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&element(SEQUENCE, &[kind]), &element(BIT_STRING, &[&[0], key])])
}

/// One of RSA whose modulus begins with `first`, after a zero, and has `octets` in all.
fn rsa(first: u8, octets: usize) -> Vec<u8> {
    let mut modulus = vec![0xff; octets + 1];
    (modulus[0], modulus[1]) = (0, first);
    let exponent = [0x02, 3, 1, 0, 1];
    public_key(RSA, &element(SEQUENCE, &[&element(0x02, &[&modulus]), &exponent]))
}

/// Every key that there is, and what is told of it.
fn keys() -> Vec<(Vec<u8>, Option<&'static str>)> {
    vec![
        (rsa(0xff, 128), Some("of RSA with 1024 bits")),
        (rsa(0x7f, 256), Some("of RSA with 2047 bits")),
        (rsa(0x80, 256), None),
        (rsa(0xff, 1024), None),
        (rsa(0x01, 1025), Some("of RSA with 8193 bits")),
        (public_key(PSS, &[1; 64]), Some("of RSA for PSS alone")),
        (public_key(P_256, &[4; 65]), None),
        (public_key(P_521, &[4; 133]), Some("of P-521")),
        (public_key(BRAINPOOL, &[4; 65]), Some("of a curve that is not known here")),
        (public_key(ED25519, &[1; 32]), None),
        (public_key(ED448, &[1; 57]), Some("of Ed448")),
        (public_key(DSA, &[1; 64]), Some("of a kind that is not known here")),
        // What is malformed is told by others.
        (public_key(RSA, &[]), None),
        (public_key(RSA, &[0x30, 3, 0x02, 1, 0]), None),
        (element(SEQUENCE, &[]), None),
    ]
}

/// Signs with nothing, by a scheme that nobody has asked for.
#[derive(Clone, Copy, Debug)]
struct Scribbler(SignatureScheme);

impl SigningKey for Scribbler {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(*self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Scribbler {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![1; 64])
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}

/// What comes of a server that shows a certificate for `public_key` and does not know how to sign.
fn scribbled(
    public_key: &[u8],
    scheme: SignatureScheme,
    version: &'static SupportedProtocolVersion,
) -> String {
    let chain = vec![signed_by_itself("mx", public_key, &key())];
    let config = server_with(chain, Arc::new(Scribbler(scheme)), &[version]);
    let (socket, server) = served(&Arc::new(config), |mut stream| stream.read(&mut [0]).is_ok());
    let got = start_first(socket, &trusting(RootCertStore::empty()), &policy(TlsLevel::Encrypt)).err();
    assert!(!server.join().unwrap());
    let Some(TlsError::Handshake(words)) = got else { panic!("{got:?}") };
    words
}

#[test]
fn a_key_of_which_nothing_can_be_checked_is_told() {
    for (key, told) in keys() {
        for version in [&TLS12, &TLS13] {
            for scheme in [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP521_SHA512] {
                let words = scribbled(&key, scheme, version);
                let wanted = told.map(|told| {
                    format!("the server's certificate cannot be used: it has a key {told}; RSA of 2048 to 8192 bits, ")
                });
                match wanted {
                    Some(wanted) => assert!(words.starts_with(&wanted), "{version:?} {scheme:?}: {words}"),
                    None => assert!(!words.contains("it has a key "), "{version:?} {scheme:?}: {words}"),
                }
            }
        }
    }
}

#[test]
fn a_signature_by_a_key_of_another_kind_proves_nothing() {
    for version in [&TLS12, &TLS13] {
        let words = scribbled(&rsa(0x80, 256), SignatureScheme::ECDSA_NISTP256_SHA256, version);
        assert_eq!(words, "the server did not prove that it has the key of its certificate", "{version:?}");
    }
}

#[test]
fn the_key_of_each_version_is_the_one_that_stands_there() {
    let key = key();
    let wanted = key.subject_public_key_info();
    let old = version_1("mx", &key);
    let new = params("mx", &[HOST]).self_signed(&key).unwrap();
    for der in [&old[..], &new.der()[..]] {
        assert_eq!(Certificate::parse(der).unwrap().public_key(), wanted);
    }
    assert_eq!(Certificate::parse(&old).unwrap().issuer(), "\"mx\"");
    assert!(webpki::EndEntityCert::try_from(&old).is_err());
    for end in 0..old.len() {
        assert!(Certificate::parse(&old[..end]).is_none(), "{end}");
    }
}

#[test]
fn a_certificate_that_nobody_can_read_is_told_as_such() {
    for version in [&TLS12, &TLS13] {
        let chain = vec![CertificateDer::from(b"no certificate".to_vec())];
        let scribbler = Arc::new(Scribbler(SignatureScheme::ECDSA_NISTP256_SHA256));
        let config = server_with(chain, scribbler, &[version]);
        let (socket, server) = served(&Arc::new(config), |mut stream| stream.read(&mut [0]).is_ok());
        let got = start_first(socket, &trusting(RootCertStore::empty()), &policy(TlsLevel::May)).err();
        let words = "the server's certificate cannot be used: it cannot be read";
        assert_eq!(got, Some(TlsError::Handshake(words.into())), "{version:?}");
        assert!(!server.join().unwrap());
    }
}

/// The scheme of the servers of this test, with the curve that they do not use first.
static OTHER_CURVE_FIRST: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[],
    mapping: &[(
        SignatureScheme::ECDSA_NISTP256_SHA256,
        &[webpki::ring::ECDSA_P384_SHA256, webpki::ring::ECDSA_P256_SHA256],
    )],
};

#[test]
fn before_tls_1_3_a_scheme_may_be_of_several_curves() {
    let key = key();
    let shown = Shown { chain: vec![version_1("mx", &key)], key };
    let (socket, server) =
        served(&Arc::new(shown.server(&[&TLS12])), |mut stream| stream.write_all(b"220 hi\r\n").is_ok());
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SignaturesOnly::new(OTHER_CURVE_FIRST)))
        .with_no_client_auth();
    let connection = ClientConnection::new(config.into(), HOST.try_into().unwrap()).unwrap();
    let mut greeting = [0; 8];
    let socket = UnixStream::from(std::os::fd::OwnedFd::from(socket));
    StreamOwned::new(connection, socket).read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 hi\r\n");
    assert!(server.join().unwrap());
}
