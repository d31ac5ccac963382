//! What a worker's TLS connections share: how each server is spoken to, and the sessions that can be resumed.
//!
//! - Owns: rustls's configurations, which connection may use which, what name a handshake asks for.
//! - Leaves to others: the handshake (`handshake`), whom it has led to (`verify`), keys and certificates (`config`).
//! - Always true: sessions of one server are offered to no other, and none outlives the certificate that we have shown.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};
use socket2::Socket;

use super::handshake::shake_hands;
use super::stream::TlsStream;
use super::verify::SignaturesOnly;
use super::{TlsError, words};
use crate::config::{Secrets, TlsPolicy, TlsProtocols, TlsServerName, Transport};
use crate::mail::{Server, TransportName};

/// Servers that a worker remembers. The one that was not spoken to for longest makes room.
const SERVERS_MAX: usize = 16;
/// Sessions that are kept of one of them. A server gives out two or more at each connection, and each is used once.
const SESSIONS_MAX: usize = 8;

/// A worker's TLS: what its connections share, so that sessions can be resumed.
#[derive(Debug, Default)]
pub struct TlsSessions {
    /// The one that was used last stands last.
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    /// By what two configurations differ, sessions included.
    by: By,
    config: Arc<ClientConfig>,
}

/// Everything that has a say in a handshake. Level and authorities have none: the certificate is judged afterwards.
#[derive(Debug, PartialEq, Eq)]
struct By {
    transport: TransportName,
    server: Server,
    /// The certificate that we show.
    identity: Option<[u8; 32]>,
    servername: TlsServerName,
    protocols: TlsProtocols,
}

impl TlsSessions {
    /// Makes the handshake on `socket`, until `deadline`. Whom it has led to is to be judged next. After an error the socket
    /// is closed.
    pub fn start(
        &mut self,
        socket: Socket,
        server: &Server,
        transport: &Transport,
        policy: &TlsPolicy<'_>,
        deadline: Instant,
    ) -> Result<TlsStream, TlsError> {
        let config = self.config(server, transport, policy)?;
        let refused = |error: rustls::Error| TlsError::Handshake(words::broken(&error));
        let mut connection =
            ClientConnection::new(config, name_asked_for(server, policy)?).map_err(refused)?;
        shake_hands(&mut connection, &socket, policy.protocols, deadline)?;
        Ok(TlsStream::new(socket, connection))
    }

    /// The configuration for `server`, with its sessions: a known one, or a new one.
    fn config(
        &mut self,
        server: &Server,
        transport: &Transport,
        policy: &TlsPolicy<'_>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let by = By {
            transport: transport.name.clone(),
            server: server.clone(),
            identity: transport.secrets.identity_mark(),
            servername: policy.servername.clone(),
            protocols: policy.protocols,
        };
        // What a configuration of before has shown is nobody's any more.
        self.known.retain(|known| known.by.transport != by.transport || known.by.identity == by.identity);
        let known = match self.known.iter().position(|known| known.by == by) {
            Some(at) => self.known.remove(at),
            None => Known { config: client_config(&by, &transport.secrets)?, by },
        };
        if self.known.len() >= SERVERS_MAX {
            self.known.remove(0);
        }
        let config = known.config.clone();
        self.known.push(known);
        Ok(config)
    }
}

fn client_config(by: &By, secrets: &Secrets) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(SignaturesOnly::new(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider as Arc<CryptoProvider>)
        .with_protocol_versions(&versions(by.protocols))
        .map_err(|error| TlsError::Handshake(words::broken(&error)))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match secrets.identity() {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(Arc::new(config))
}

fn versions(protocols: TlsProtocols) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(protocols.v1_3, &TLS13), (protocols.v1_2, &TLS12)];
    all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, version)| version).collect()
}

/// The name that the handshake asks for (RFC 6066 section 3). An address is none that can be asked for: rustls keeps it to
/// itself. So where there is no name, any address will do.
fn name_asked_for(server: &Server, policy: &TlsPolicy<'_>) -> Result<ServerName<'static>, TlsError> {
    let nameless = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let asked = |name: &str| ServerName::try_from(name.to_owned());
    match (policy.servername, server) {
        (TlsServerName::Name(name), _) => asked(name)
            .map_err(|_| TlsError::Handshake(format!("{name:?} is no name that a handshake can ask for"))),
        // A host whose name is none to DNS is spoken to all the same.
        (TlsServerName::Hostname, Server::Tcp { host, .. }) => {
            Ok(asked(host.strip_suffix('.').unwrap_or(host)).unwrap_or(nameless))
        }
        (TlsServerName::Hostname, Server::Unix(_)) | (TlsServerName::None, _) => Ok(nameless),
    }
}
