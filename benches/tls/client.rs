//! The client: a worker's connection, without the worker.
//!
//! - Owns: what is sent, and what is kept between two messages.
//! - Leaves to others: the measurement.
//! - Always true: a message that is not delivered, or not over TLS where that was asked for, ends the measurement.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use lastmile::config::{Config, Sources, Transport};
use lastmile::mail::{Batch, BodyType, Destination, Envelope, Outcome, QueueId, Recipient, Sender};
use lastmile::net::{CachedConnection, Delivery, FileContent, Observer, Peer};
use lastmile::smtp::{Capabilities, Settled};

/// What is kept between two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The connection.
    Connection,
    /// TLS sessions alone.
    Sessions,
    /// Nothing.
    Nothing,
}

impl Keep {
    /// Its words in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connection => "kept",
            Self::Sessions => "anew, resumed",
            Self::Nothing => "anew",
        }
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load {
    /// Octets of each message.
    pub size: usize,
    /// How many.
    pub messages: usize,
    /// What is kept in between.
    pub keep: Keep,
}

/// A way to the server.
pub struct Way {
    tls: &'static str,
    transport: Arc<Transport>,
    destination: Destination,
}

impl Way {
    /// Over this version of TLS, or `none`.
    pub fn new(port: u16, authority: &Path, tls: &'static str) -> Self {
        let mut keys = vec!["inet_protocols=ipv4".to_owned(), "max_use=1000000".to_owned()];
        if tls == "none" {
            keys.push("tls_security_level=none".to_owned());
        } else {
            keys.push("tls_security_level=secure".to_owned());
            keys.push(format!("tls_CAfile={}", authority.display()));
            keys.push(format!("tls_protocols={tls}"));
        }
        let overrides = keys.iter().map(|key| format!("transport.lmtp.{key}")).collect();
        let sources = Sources { file: Some("/dev/null".into()), environment: Vec::new(), overrides };
        let config = Config::load(&sources).unwrap().open_secrets().unwrap();
        let destination = config.destination(&format!("inet:localhost:{port}")).unwrap();
        let transport = Arc::clone(config.transport(destination.transport()).unwrap());
        Self { tls, transport, destination }
    }

    /// Its name in the table.
    pub fn tls(&self) -> &'static str {
        self.tls
    }

    /// Sends it all.
    pub fn deliver(&self, load: &Load) {
        let new = || CachedConnection::new("bench.example".to_owned(), Arc::default());
        let file = content(load.size);
        let content = FileContent { prefix: b"", file: &file, offset: 0, length: load.size as u64 };
        let batch = batch(&self.destination, load.size);
        let mut cached = new();
        for _ in 0..load.messages {
            let is_new = cached.destination().is_none();
            let mut heard = Heard { delivered: 0, is_secured: false };
            cached.deliver(&Delivery::new(&batch, &content, &self.transport), &mut heard);
            assert_eq!(heard.delivered, 1);
            assert_eq!(heard.is_secured, is_new && self.tls != "none");
            match load.keep {
                Keep::Connection => {}
                Keep::Sessions => cached.close(&|| true),
                Keep::Nothing => {
                    cached.close(&|| true);
                    cached = new();
                }
            }
        }
        cached.close(&|| true);
    }
}

fn batch(destination: &Destination, size: usize) -> Batch {
    let sender: Sender = "a@x.example".parse().unwrap();
    let envelope = Envelope {
        id: QueueId::new(0, 0),
        sender: sender.clone(),
        arrival: jiff::Timestamp::now(),
        nexthop: None,
        body: BodyType::SevenBit,
        smtputf8: false,
        envid: None,
        ret: None,
        origin: "bench".to_owned(),
        size: size as u64,
    };
    let recipient = Recipient::new(0, "b@y.example".parse().unwrap());
    Batch::new(Arc::new(envelope), sender, destination.clone(), vec![recipient]).unwrap()
}

/// A file of lines, of that size.
fn content(size: usize) -> File {
    let line = [&[b'x'; 62][..], b"\r\n"].concat();
    let text: Vec<u8> = line.iter().copied().cycle().take(size).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&text).unwrap();
    file
}

/// Counts what was delivered.
struct Heard {
    delivered: usize,
    is_secured: bool,
}

impl Observer for Heard {
    fn secured(&mut self, _: &str) {
        self.is_secured = true;
    }

    fn ready(&mut self, _: &Peer, _: &Capabilities, _: u32) {}

    fn end_of_data(&mut self, _: &[u32]) -> io::Result<()> {
        Ok(())
    }

    fn settled(&mut self, settled: Vec<Settled>) {
        self.delivered += settled.iter().filter(|one| matches!(one.outcome, Outcome::Delivered(_))).count();
    }

    fn note(&mut self, text: &str) {
        panic!("{text}");
    }

    fn protocol_error(&mut self, text: &str) {
        panic!("{text}");
    }
}
