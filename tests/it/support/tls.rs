//! The scripted peer's side of TLS.
//!
//! - Owns: its certificate, records in and out.
//! - Leaves to others: what is said, and how long it is awaited (`support`).
//! - Always true: nothing here waits but for the socket to take what is written.

use std::io::{self, Read};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use socket2::Socket;

use crate::common::certificates::Identity;

/// The server's side of TLS with this certificate.
pub fn server_side(identity: &Identity) -> io::Result<ServerConnection> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&identity.chain).map_err(io::Error::other)?.collect();
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain.map_err(io::Error::other)?, key);
    ServerConnection::new(Arc::new(config.map_err(io::Error::other)?)).map_err(io::Error::other)
}

/// Takes in what has arrived, and answers what TLS has to answer; `false` at the end.
pub fn decrypt(tls: &mut ServerConnection, socket: &mut Socket, heard: &mut Vec<u8>) -> io::Result<bool> {
    let arrived = tls.read_tls(socket)?;
    let processed = tls.process_new_packets();
    match send(tls, socket) {
        // Tickets for a client that has said what it had to say, and gone: that is still to be heard.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
        other => other?,
    }
    let state = processed.map_err(io::Error::other)?;
    let before = heard.len();
    match tls.reader().read_to_end(heard) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(heard.len() > before),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
        _ => {}
    }
    Ok(heard.len() > before || arrived > 0 && !state.peer_has_closed())
}

/// Writes the records that wait.
pub fn send(tls: &mut ServerConnection, socket: &mut Socket) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    Ok(())
}
