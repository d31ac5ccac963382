//! A server that counts what runs at a time, and keeps every command it was given.
//!
//! - Owns: conversations without PIPELINING, LMTP or ESMTP as it is greeted; how many run at a time, and for whom.
//! - Leaves to others: storing and misbehaving (our sink).
//! - Always true: a transaction runs from DATA until just before its last reply, so never longer than for the agent.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::agent::Site;

/// How the server is to be.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// What it offers, beside its name.
    pub keywords: &'static [&'static str],
    /// How long it takes for a message.
    pub pause: Duration,
}

/// One transaction that came to its end.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The whole command.
    pub mail: String,
    /// The whole commands.
    pub rcpt: Vec<String>,
    /// Lines of the content, as they came.
    pub content: Vec<String>,
    /// When it was begun, and when it was about to be answered.
    pub time: (Instant, Instant),
}

impl Transaction {
    fn new(mail: String) -> Self {
        let now = Instant::now();
        Self { mail, rcpt: Vec::new(), content: Vec::new(), time: (now, now) }
    }

    /// The addresses in the commands.
    pub fn recipients(&self) -> Vec<String> {
        self.rcpt.iter().map(|command| address(command)).collect()
    }
}

/// What was seen so far.
#[derive(Default)]
pub struct Seen {
    /// In the order of their ends.
    pub transactions: Vec<Transaction>,
    /// The most that ran at a time.
    pub most: usize,
    /// The same, with one recipient among theirs.
    pub most_for: HashMap<String, usize>,
    running: usize,
    running_for: HashMap<String, usize>,
}

/// The server.
pub struct Peer {
    /// Where it listens.
    pub socket: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

impl Peer {
    /// Starts to listen; each connection has a thread, which ends with its client.
    pub fn start(site: &Site, name: &str, manner: Manner) -> Self {
        let socket = site.path().join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let for_thread = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&for_thread);
                thread::spawn(move || serve(&stream, manner, &seen));
            }
        });
        Self { socket, seen }
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Everybody who has got mail, sorted, once for each time.
    pub fn recipients(&self) -> Vec<String> {
        let mut all: Vec<_> = self.seen().transactions.iter().flat_map(Transaction::recipients).collect();
        all.sort();
        all
    }
}

fn address(command: &str) -> String {
    let (start, end) = (command.find('<').unwrap(), command.find('>').unwrap());
    command[start + 1..end].to_owned()
}

/// Ends when the client's end does.
fn serve(stream: &UnixStream, manner: Manner, seen: &Mutex<Seen>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let say = |text: &str| {
        let mut stream = stream;
        // A client that has gone is found out by the next line.
        let _ = stream.write_all(text.as_bytes());
    };
    let mut current = Transaction::new(String::new());
    let mut is_lmtp = true;
    say("220 peer.example.org\r\n");
    while let Some(line) = lines.next() {
        match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            verb @ ("LHLO" | "EHLO") => {
                is_lmtp = verb == "LHLO";
                let keywords: String = manner.keywords.iter().map(|word| format!("250-{word}\r\n")).collect();
                say(&format!("250-peer.example.org\r\n{keywords}250 HELP\r\n"));
            }
            "MAIL" => {
                current = Transaction::new(line);
                say("250 2.1.0 ok\r\n");
            }
            "RCPT" => {
                current.rcpt.push(line);
                say("250 2.1.5 ok\r\n");
            }
            "DATA" => {
                begin(seen, &current.recipients());
                say("354 go ahead\r\n");
                current.content = lines.by_ref().take_while(|line| line != ".").collect();
                thread::sleep(manner.pause);
                let replies = if is_lmtp { current.rcpt.len() } else { 1 };
                current.time.1 = Instant::now();
                end(seen, &current);
                say(&"250 2.0.0 taken\r\n".repeat(replies));
            }
            "QUIT" => return say("221 2.0.0 bye\r\n"),
            _ => say("250 2.0.0 ok\r\n"),
        }
    }
}

fn begin(seen: &Mutex<Seen>, recipients: &[String]) {
    let seen = &mut *seen.lock().unwrap();
    seen.running += 1;
    seen.most = seen.most.max(seen.running);
    for recipient in recipients {
        let running = seen.running_for.entry(recipient.clone()).or_default();
        *running += 1;
        let most = seen.most_for.entry(recipient.clone()).or_default();
        *most = (*most).max(*running);
    }
}

fn end(seen: &Mutex<Seen>, transaction: &Transaction) {
    let seen = &mut *seen.lock().unwrap();
    seen.running -= 1;
    for recipient in transaction.recipients() {
        *seen.running_for.get_mut(&recipient).unwrap() -= 1;
    }
    seen.transactions.push(transaction.clone());
}
