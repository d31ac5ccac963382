//! A server that writes down what it hears, parameters and all, and likes everything but large messages.
//!
//! - Owns: one step of ESMTP after the other. No code is shared with our own client or server.
//! - Always true: reading has a limit in time, and the server ends when it is dropped.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::case::Trouble;

/// How long a client may keep silent.
const PATIENCE: Duration = Duration::from_secs(30);
/// Octets of a line, or of what is read of a message.
const LENGTH_MAX: u64 = 1 << 20;
/// Octets of a message, as for the others.
const MESSAGE_SIZE_LIMIT: usize = 10_240;

/// A transaction.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// What follows `MAIL FROM:`.
    pub mail: String,
    /// What follows `RCPT TO:`.
    pub recipients: Vec<String>,
    /// With CRLF, without dots for transparency.
    pub content: Vec<u8>,
}

/// A running server.
pub struct Recorder {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Listens on any free port, and has this trouble.
    pub fn start(trouble: Trouble) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (record, over) = (Arc::clone(&heard), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // A client that breaks off has submitted nothing more.
                let _ = stream.and_then(|stream| converse(stream, trouble, &record));
            }
        });
        Self { address, heard, is_over, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What has been accepted.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes it; if that fails it is not there to be woken.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn converse(mut stream: TcpStream, trouble: Trouble, record: &Mutex<Vec<Heard>>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut say = |reply: &str| stream.write_all(format!("{reply}\r\n").as_bytes());
    if trouble == Trouble::Closed {
        return say("421 4.3.2 rec.example not now");
    }
    say("220 rec.example ESMTP")?;
    let mut heard = Heard::default();
    loop {
        let mut line = Vec::new();
        reader.by_ref().take(LENGTH_MAX).read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (verb, rest) = line.split_at(line.find([' ', ':']).unwrap_or(line.len()));
        let reply = match verb.to_ascii_uppercase().as_str() {
            "" => return Ok(()),
            "EHLO" => {
                let extensions = ["SIZE 10240", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"];
                let replies: Vec<_> = extensions.iter().map(|word| format!("250-{word}\r\n")).collect();
                format!("250-rec.example\r\n{}250 HELP", replies.concat())
            }
            "MAIL" if trouble == Trouble::Full => "452 4.3.1 no room".to_owned(),
            "MAIL" => {
                heard = Heard { mail: after_colon(rest), ..Heard::default() };
                "250 2.1.0 ok".to_owned()
            }
            "RCPT" => {
                heard.recipients.push(after_colon(rest));
                "250 2.1.5 ok".to_owned()
            }
            "DATA" => {
                say("354 go ahead")?;
                heard.content = content(&mut reader)?;
                if heard.content.len() > MESSAGE_SIZE_LIMIT {
                    "552 5.3.4 too large".to_owned()
                } else {
                    record.lock().unwrap().push(std::mem::take(&mut heard));
                    "250 2.0.0 ok".to_owned()
                }
            }
            "QUIT" => return say("221 2.0.0 bye"),
            "RSET" | "NOOP" => "250 2.0.0 ok".to_owned(),
            _ => "500 5.5.2 what?".to_owned(),
        };
        say(&reply)?;
    }
}

fn after_colon(text: &str) -> String {
    text.split_once(':').map_or_else(String::new, |(_, rest)| rest.trim().to_owned())
}

/// Reads up to the lone dot.
fn content(reader: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(LENGTH_MAX).read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &line[..] {
            b".\r\n" => return Ok(content),
            [b'.', rest @ ..] => content.extend_from_slice(rest),
            line => content.extend_from_slice(line),
        }
    }
}
