//! A connected socket, and TLS over it once that has begun.
//!
//! - Owns: encryption of what is written, decryption of what is read, the order of the two.
//! - Leaves to others: the handshake (`starttls`), buffers and lines (`wire`).
//! - Always true: what was written has left when a write returns; a read waits no longer than the socket's limit,
//!   though a peer sends records without content.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use socket2::Socket;

/// What goes over the wire, in clear or not.
pub(super) struct Channel {
    socket: Arc<Socket>,
    tls: Option<Box<ServerConnection>>,
    limit: Duration,
}

impl Channel {
    /// A socket without TLS. `limit` is that of its reads and writes.
    pub fn new(socket: Arc<Socket>, limit: Duration) -> Self {
        Self { socket, tls: None, limit }
    }

    /// The socket below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Speaks TLS from here on: its handshake is over.
    pub fn encrypt(&mut self, tls: Box<ServerConnection>) {
        self.tls = Some(tls);
    }

    /// Whether TLS has begun.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the handshake took up an earlier session.
    pub fn is_resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        matches!(kind, Some(HandshakeKind::Resumed))
    }

    /// Whether the client has shown a certificate. One that no known authority has signed ends the handshake.
    pub fn has_client_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.peer_certificates().is_some())
    }

    /// What ties a login to this connection: `tls-exporter` (RFC 9266), which needs TLS 1.3.
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        let tls = self.tls.as_ref().filter(|tls| tls.protocol_version() == Some(ProtocolVersion::TLSv1_3))?;
        tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok()
    }

    /// Asks for new keys (RFC 8446 section 4.6.3), with what is written next. TLS 1.2 cannot, and does not.
    pub fn refresh_keys(&mut self) {
        if let Some(tls) = &mut self.tls
            && let Err(error) = tls.refresh_traffic_keys()
        {
            log::debug!("sink: the keys of a connection stay as they are: {error}");
        }
    }

    /// Reads; 0 is the end. `WouldBlock` where nothing came in time.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return (&*self.socket).read(room) };
        let until = Instant::now() + self.limit;
        loop {
            match tls.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if Instant::now() >= until {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            tls.read_tls(&mut &*self.socket)?;
            let processed = tls.process_new_packets();
            // An answer to new keys, or what we think of a broken record.
            send(tls, &self.socket)?;
            processed.map_err(io::Error::other)?;
        }
    }

    /// Writes everything.
    pub fn write_all(&mut self, mut octets: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return (&*self.socket).write_all(octets) };
        while !octets.is_empty() {
            let taken = tls.writer().write(octets)?;
            octets = octets.get(taken..).filter(|_| taken > 0).ok_or(io::ErrorKind::WriteZero)?;
            send(tls, &self.socket)?;
        }
        Ok(())
    }

    /// Says that nothing more follows, where TLS has a word for it. The peer may be gone.
    pub fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            if let Err(error) = send(tls, &self.socket) {
                log::debug!("sink: a connection ends without close_notify: {error}");
            }
        }
    }
}

/// Writes all the records that wait.
fn send(tls: &mut ServerConnection, mut socket: &Socket) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(&mut socket) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
