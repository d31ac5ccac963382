//! The handshake on a blocking socket, until a deadline.
//!
//! - Owns: how long each read and write of it may wait, what of a server that speaks no TLS is told to people.
//! - Leaves to others: the protocol itself (rustls), whom it leads to (`verify`).
//! - Always true: a server that drips octets cannot stretch the deadline, since each read and write gets what is left.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use socket2::Socket;

use super::stream::Unwaiting;
use super::{TlsError, words};
use crate::config::TlsProtocols;

/// Octets kept of what a server said first.
const HEARD_MAX: usize = 100;

/// Makes the handshake of `connection` over `socket`. `offered` are the versions that it may lead to.
pub(super) fn shake_hands(
    connection: &mut ClientConnection,
    socket: &Socket,
    offered: TlsProtocols,
    deadline: Instant,
) -> Result<(), TlsError> {
    let mut hearing = Hearing { socket, heard: Vec::new() };
    while connection.is_handshaking() || connection.wants_write() {
        let left = time_left(deadline)?;
        let step = if connection.wants_write() {
            socket.set_write_timeout(Some(left)).and_then(|()| connection.write_tls(&mut &*socket))
        } else {
            socket.set_read_timeout(Some(left)).and_then(|()| connection.read_tls(&mut hearing))
        };
        match step {
            Ok(0) => return Err(closed(&hearing.heard)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(&error, &hearing.heard)),
        }
        if let Err(error) = connection.process_new_packets() {
            // The server may want to know why. Nobody waits for that.
            let _ = connection.write_tls(&mut Unwaiting(socket));
            return Err(TlsError::Handshake(words::handshake(&error, offered, &hearing.heard)));
        }
    }
    Ok(())
}

/// To a socket, zero means "wait for ever".
fn time_left(deadline: Instant) -> Result<Duration, TlsError> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(TlsError::TimedOut),
        left => Ok(left.max(Duration::from_millis(1))),
    }
}

fn closed(heard: &[u8]) -> TlsError {
    if heard.is_empty() {
        return TlsError::LostConnection;
    }
    TlsError::Handshake("the server closed the connection in the middle of the handshake".to_owned())
}

fn failed(error: &io::Error, heard: &[u8]) -> TlsError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, WouldBlock};
    match error.kind() {
        WouldBlock | TimedOut => TlsError::TimedOut,
        ConnectionReset | ConnectionAborted | BrokenPipe => closed(heard),
        _ => TlsError::Handshake(error.to_string()),
    }
}

/// Keeps the beginning of what is read.
struct Hearing<'a> {
    socket: &'a Socket,
    heard: Vec<u8>,
}

impl Read for Hearing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.socket;
        let read = socket.read(buffer)?;
        let room = HEARD_MAX.saturating_sub(self.heard.len());
        self.heard.extend(buffer.iter().take(read.min(room)));
        Ok(read)
    }
}
