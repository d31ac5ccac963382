//! TLS with servers of rustls at the other end of a pair of sockets.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use socket2::Socket;

use super::*;
use crate::config::{CertMatch, Secrets, TlsLevel, TlsPolicy, TlsProtocols, TlsServerName, Transport};
use crate::mail::Server;
use crate::net::peer::Peer;
use crate::net::progress::tests::transport;

mod faults;
mod hostile;
mod names;
mod resumption;
mod stream;
mod unread;

/// The host that is asked for in most tests.
pub const HOST: &str = "mx.example.org";
/// More than any of this takes.
pub const LONG: Duration = Duration::from_secs(60);
/// All that is offered.
pub const BOTH: TlsProtocols = TlsProtocols { v1_2: true, v1_3: true };

/// An authority, with its key.
pub type Authority = CertifiedIssuer<'static, KeyPair>;
/// The server's end of a connection.
pub type Served = StreamOwned<ServerConnection, UnixStream>;

/// A certificate with what leads from it to an authority, and its key.
pub struct Shown {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

pub fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// A certificate of `name` for `hosts`, valid in all our lives.
pub fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
    params
}

pub fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

pub fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), key()).unwrap()
}

/// What `authority` issues by `params`.
pub fn issued(params: &CertificateParams, authority: &Authority) -> Shown {
    let key = key();
    Shown { chain: vec![params.signed_by(&key, authority).unwrap().into()], key }
}

/// Trusted authorities.
pub fn roots(trusted: &[&CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    trusted.iter().for_each(|der| roots.add((*der).clone()).unwrap());
    roots
}

impl Shown {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// How a server is set up that shows this.
    pub fn server(&self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        let key = ring::default_provider().key_provider.load_private_key(self.key()).unwrap();
        server_with(self.chain.clone(), key, versions)
    }

    /// The same for one that asks for a certificate from one of `roots`.
    pub fn demanding_server(
        &self,
        roots: RootCertStore,
        version: &'static SupportedProtocolVersion,
    ) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key())
            .unwrap()
    }

    /// The same for a client.
    pub fn identity(&self) -> Arc<CertifiedKey> {
        let identity = CertifiedKey::from_der(self.chain.clone(), self.key(), &ring::default_provider());
        Arc::new(identity.unwrap())
    }
}

/// How a server is set up that shows `chain` and signs with `key`. Nobody asks whether one fits the other, or whether
/// anybody can read either.
pub fn server_with(
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown))
}

/// A transport that trusts `roots`.
pub fn trusting(roots: RootCertStore) -> Transport {
    Transport { secrets: Secrets::for_tests(1, roots, None), ..transport() }
}

/// One where nothing was configured but a level.
pub fn policy(level: TlsLevel) -> TlsPolicy<'static> {
    let matches: &[CertMatch] = match level {
        TlsLevel::Verify => &[CertMatch::Hostname],
        TlsLevel::Secure => &[CertMatch::Nexthop, CertMatch::DotNexthop],
        _ => &[],
    };
    TlsPolicy {
        level,
        wrappermode: false,
        matches,
        fingerprints: &[],
        servername: &TlsServerName::Hostname,
        protocols: BOTH,
    }
}

pub fn tcp(host: &str) -> Server {
    Server::Tcp { host: host.to_owned(), port: 25.try_into().unwrap() }
}

pub fn peer_of(server: &Server) -> Peer {
    match server {
        Server::Unix(path) => Peer::Unix { host: "here.example.org".into(), path: path.clone() },
        Server::Tcp { host, .. } => {
            Peer::Tcp { host: host.clone(), address: "192.0.2.1:25".parse().unwrap() }
        }
    }
}

/// Our end of a connection to what `serve` does.
pub fn connected<T: Send + 'static>(
    serve: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (Socket, JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    theirs.set_write_timeout(Some(LONG)).unwrap();
    (ours.into(), thread::spawn(move || serve(theirs)))
}

/// Our end of a connection to a server that speaks TLS, and then does what `serve` does.
pub fn served<T: Send + 'static>(
    config: &Arc<ServerConfig>,
    serve: impl FnOnce(Served) -> T + Send + 'static,
) -> (Socket, JoinHandle<T>) {
    let connection = ServerConnection::new(config.clone()).unwrap();
    connected(move |socket| serve(StreamOwned::new(connection, socket)))
}

/// A handshake with `server` over `socket`, and what its certificate is worth.
pub fn start(
    sessions: &mut TlsSessions,
    socket: Socket,
    server: &Server,
    transport: &Transport,
    policy: &TlsPolicy<'_>,
) -> Result<TlsStream, TlsError> {
    let mut stream = sessions.start(socket, server, transport, policy, Instant::now() + LONG)?;
    stream.judge(&peer_of(server), server, transport, policy)?;
    Ok(stream)
}

/// The same for a worker's first connection to [`HOST`].
pub fn start_first(
    socket: Socket,
    transport: &Transport,
    policy: &TlsPolicy<'_>,
) -> Result<TlsStream, TlsError> {
    start(&mut TlsSessions::default(), socket, &tcp(HOST), transport, policy)
}

/// Reads exactly so much.
pub fn read_exactly(stream: &mut TlsStream, count: usize) -> Vec<u8> {
    let mut octets = vec![0; count];
    let mut filled = 0;
    while filled < count {
        match stream.read(&mut octets[filled..]) {
            Ok(0) => panic!("the end after {filled} octets"),
            Ok(read) => filled += read,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "{error}"),
        }
    }
    octets
}

/// Writes everything.
pub fn write_all(stream: &mut TlsStream, mut octets: &[u8]) {
    while !octets.is_empty() || stream.is_writing() {
        let written = stream.write(octets).unwrap();
        octets = &octets[written..];
    }
}
