//! The limits: threads that write prebuilt flights and read replies, and do nothing else; the same with the system calls
//! that a queue on disk needs for each message, and nothing that decides about them.
//!
//! - Owns: the octets of a transaction, those that the agent sends on a connection that it has used before; the least
//!   that must be done to a queue file.
//! - Leaves to others: the server.
//! - Always true: a reply that is not 2yz ends the measurement.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use crate::site::{CONTENT_SIZE, address, content};

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
    /// Queue files to be read, marked and removed on the way.
    pub files: Vec<PathBuf>,
}

impl Bare {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        let start = Instant::now();
        thread::scope(|scope| {
            for number in 0..self.connections {
                let messages = self.messages / self.connections;
                let files = self.files.get(number * messages..(number + 1) * messages).unwrap_or_default();
                scope.spawn(move || send(&self.socket, number, messages, files));
            }
        });
        (self.messages / self.connections * self.connections) as f64 / start.elapsed().as_secs_f64()
    }
}

fn send(socket: &Path, number: usize, messages: usize, files: &[PathBuf]) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    expect(&mut replies, 1);
    stream.write_all(b"LHLO bare.example\r\n").unwrap();
    expect(&mut replies, 1);
    let flight = flight(number);
    let mut transact = || {
        stream.write_all(&flight).unwrap();
        expect(&mut replies, REPLIES);
    };
    if files.is_empty() {
        (0..messages).for_each(|_| transact());
    } else {
        files.iter().for_each(|file| with_file(file, &mut transact));
    }
    stream.write_all(b"QUIT\r\n").unwrap();
    expect(&mut replies, 1);
}

/// Loads a queue file; opens it again, reads its content, marks it before and after the transaction, looks at its states,
/// and removes it.
fn with_file(path: &Path, transact: &mut impl FnMut()) {
    let mut buffer = [0; CONTENT_SIZE];
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.read_at(&mut buffer[..1000], 0).unwrap();
    drop(file);
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let content_at = file.metadata().unwrap().len().min(length) - CONTENT_SIZE as u64;
    file.read_exact_at(&mut buffer, content_at).unwrap();
    // Where the state is does not matter here: the file is about to go.
    file.write_all_at(b"I", 0).unwrap();
    transact();
    file.write_all_at(b"S", 0).unwrap();
    file.read_exact_at(&mut buffer[..3], 0).unwrap();
    drop(file);
    fs::remove_file(path).unwrap();
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
