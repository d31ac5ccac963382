//! One connection that speaks TLS: plain text in and out, records on the wire.
//!
//! - Owns: what was encrypted and is not written yet, what was read and is no record yet, how TLS says goodbye.
//! - Leaves to others: the protocol itself (rustls), timeouts and deadlines (`link`).
//! - Always true: a call reads from the socket once or writes to it once, so that whoever calls can look at the clock in
//!   between; what a failed write has left behind is never written afterwards.

use std::io::{self, BufRead, Read, Write};

use rustix::net::{RecvFlags, SendFlags};
use rustls::{CipherSuite, ClientConnection, ProtocolVersion};
use socket2::Socket;

use super::{TlsError, Trust, verify, words};
use crate::config::{TlsPolicy, Transport};
use crate::mail::Server;
use crate::net::peer::Peer;

/// Looks at an idle connection that bring nothing but TLS's own affairs. Servers send two to four tickets at once; who
/// goes on like that has nothing good in mind.
const LOOKS_MAX: usize = 16;
/// RFC 9266 section 4.2.
const BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
const BINDING_SIZE: usize = 32;

/// A socket that speaks TLS. Reading and writing wait as long as the socket's own timeouts say.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    connection: ClientConnection,
    trust: Trust,
    /// Plain text was taken in that has not left completely.
    is_writing: bool,
    /// What the server broke; told when all that came before it has been read.
    failure: Option<String>,
}

impl TlsStream {
    /// Takes a connection whose handshake is done.
    pub(super) fn new(socket: Socket, connection: ClientConnection) -> Self {
        Self { socket, connection, trust: Trust::Untrusted, is_writing: false, failure: None }
    }

    /// Judges the certificate of `peer`, in this handshake or in the one whose session it has taken up, by what `policy`
    /// asks of `server`. After an error no mail may go this way.
    pub fn judge(
        &mut self,
        peer: &Peer,
        server: &Server,
        transport: &Transport,
        policy: &TlsPolicy<'_>,
    ) -> Result<(), TlsError> {
        let chain = self.connection.peer_certificates().unwrap_or_default();
        let judged = verify::judge(chain, peer, server, &transport.secrets, policy);
        self.trust = judged.map_err(TlsError::Certificate)?;
        Ok(())
    }

    /// The socket below, for its timeouts and for poll.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whom it leads to; untrusted until [`TlsStream::judge`] has found out.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Version and cipher, as the log has them: `TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)`.
    pub fn summary(&self) -> String {
        let version = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        match self.connection.negotiated_cipher_suite().map(|suite| suite.suite()) {
            Some(suite) => format!("{version} with cipher {}", cipher(suite)),
            None => version.to_owned(),
        }
    }

    /// Whether an earlier session was taken up again, which spares both sides most of the handshake.
    #[cfg(test)]
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// What ties a login to this connection: `tls-exporter` of RFC 9266, of TLS 1.3 alone.
    pub fn channel_binding(&self) -> Option<Vec<u8>> {
        if self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        self.connection.export_keying_material(vec![0; BINDING_SIZE], BINDING_LABEL, None).ok()
    }

    /// Reads plain text; 0 is the end, with or without goodbye: SMTP knows by itself whether something is missing.
    ///
    /// # Errors
    /// `Interrupted`: what came was no plain text yet, a part of a record or TLS's own affair. Call again, if there is
    /// time left. `InvalidData`: the server broke TLS.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(taken) = self.take_plain_text(buffer)? {
            return Ok(taken);
        }
        self.connection.read_tls(&mut &self.socket)?;
        self.take_in();
        self.take_plain_text(buffer)?.ok_or_else(|| io::ErrorKind::Interrupted.into())
    }

    /// Plain text that is here already, 0 at its end, or what broke after it. `None`: more has to be read first.
    fn take_plain_text(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.connection.reader().read(buffer) {
            Ok(taken) => Ok(Some(taken)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.failure.is_none() => {
                Ok(Some(0))
            }
            Err(_) => match &self.failure {
                Some(words) => Err(io::Error::new(io::ErrorKind::InvalidData, words.clone())),
                None => Ok(None),
            },
        }
    }

    /// Makes plain text of what was read.
    fn take_in(&mut self) {
        if let Err(error) = self.connection.process_new_packets() {
            self.failure.get_or_insert_with(|| words::broken(&error));
        }
        // An alert, or the refusal to negotiate anew.
        self.flush_without_waiting();
    }

    /// Takes in as much of `octets` as there is room for, encrypts it, and writes once: how much was taken in, 0 while
    /// earlier octets are still leaving. After the last call [`TlsStream::is_writing`] tells whether something is left,
    /// for which calls without octets are due.
    ///
    /// # Errors
    /// After one, half a record may have left: the connection can still be read from, but no more written to.
    pub fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let taken = if self.connection.wants_write() { 0 } else { self.connection.writer().write(octets)? };
        self.is_writing |= taken > 0;
        match self.connection.write_tls(&mut &self.socket) {
            Ok(0) if self.connection.wants_write() => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(_) | Err(_) => {}
        }
        self.is_writing &= self.connection.wants_write();
        Ok(taken)
    }

    /// Whether octets that were taken in have not left yet.
    pub fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Whether plain text, the end or an error can be read without waiting. Takes in what the server sends for TLS alone.
    pub fn has_news(&mut self) -> bool {
        for _ in 0..LOOKS_MAX {
            if self.failure.is_some() || self.has_plain_text_or_end() {
                return true;
            }
            match self.connection.read_tls(&mut Unwaiting(&self.socket)) {
                Ok(_) => self.take_in(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        true
    }

    fn has_plain_text_or_end(&mut self) -> bool {
        !matches!(self.connection.reader().fill_buf(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says that nothing more follows, if that takes no time.
    pub fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
        self.flush_without_waiting();
    }

    /// Writes what TLS has to say for itself. But the rest of a write that failed must not leave with it: the server could
    /// get the end of a message that counts as not sent, and the message twice.
    fn flush_without_waiting(&mut self) {
        while !self.is_writing && self.connection.wants_write() {
            match self.connection.write_tls(&mut Unwaiting(&self.socket)) {
                Ok(written) if written > 0 => {}
                // What is left goes with the next write, if there is one.
                _ => return,
            }
        }
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

/// A socket that is asked for what takes no time.
pub(super) struct Unwaiting<'a>(pub(super) &'a Socket);

impl Read for Unwaiting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (_, read) = rustix::net::recv(self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(read)
    }
}

impl Write for Unwaiting<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A cipher suite and its strength, by the names that OpenSSL gives them, and so Postfix.
fn cipher(suite: CipherSuite) -> String {
    let (name, bits) = match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => ("TLS_AES_256_GCM_SHA384", 256),
        CipherSuite::TLS13_AES_128_GCM_SHA256 => ("TLS_AES_128_GCM_SHA256", 128),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => ("TLS_CHACHA20_POLY1305_SHA256", 256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-ECDSA-AES256-GCM-SHA384", 256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-ECDSA-AES128-GCM-SHA256", 128),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => ("ECDHE-ECDSA-CHACHA20-POLY1305", 256),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-RSA-AES256-GCM-SHA384", 256),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-RSA-AES128-GCM-SHA256", 128),
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => ("ECDHE-RSA-CHACHA20-POLY1305", 256),
        other => return format!("{other:?}"),
    };
    format!("{name} ({bits}/{bits} bits)")
}
