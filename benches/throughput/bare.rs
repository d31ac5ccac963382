//! The limit: threads that write prebuilt flights and read replies, and do nothing else.
//!
//! - Owns: the octets of a transaction, those that the agent sends on a connection that it has used before.
//! - Leaves to others: the server.
//! - Always true: a reply that is not 2yz ends the measurement.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use crate::site::{address, content};

/// Replies to one transaction: RSET, MAIL, RCPT, BDAT.
const REPLIES: usize = 4;

/// A measurement.
pub struct Bare {
    /// Where the server listens.
    pub socket: PathBuf,
    /// Threads, each with one connection.
    pub connections: usize,
    /// Of all threads together.
    pub messages: usize,
}

impl Bare {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        let start = Instant::now();
        thread::scope(|scope| {
            for number in 0..self.connections {
                let messages = self.messages / self.connections;
                scope.spawn(move || send(&self.socket, number, messages));
            }
        });
        (self.messages / self.connections * self.connections) as f64 / start.elapsed().as_secs_f64()
    }
}

fn send(socket: &Path, number: usize, messages: usize) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    expect(&mut replies, 1);
    stream.write_all(b"LHLO bare.example\r\n").unwrap();
    expect(&mut replies, 1);
    let flight = flight(number);
    for _ in 0..messages {
        stream.write_all(&flight).unwrap();
        expect(&mut replies, REPLIES);
    }
    stream.write_all(b"QUIT\r\n").unwrap();
    expect(&mut replies, 1);
}

fn flight(number: usize) -> Vec<u8> {
    let content = content();
    let commands = format!(
        "RSET\r\nMAIL FROM:<a@x.example> SIZE={size}\r\nRCPT TO:<{to}>\r\nBDAT {size} LAST\r\n",
        size = content.len(),
        to = address(number),
    );
    [commands.as_bytes(), &content].concat()
}

/// Reads replies; the lines before the last of each do not count.
fn expect(replies: &mut impl BufRead, count: usize) {
    let (mut line, mut seen) = (Vec::new(), 0);
    while seen < count {
        line.clear();
        replies.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line.first(), Some(&b'2'), "{}", line.escape_ascii());
        seen += usize::from(line[3] != b'-');
    }
}
