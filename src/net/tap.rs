//! Who hears what is said on a connection, besides the two who talk.
//!
//! - Owns: the log lines of `debug_peer_list`, and whoever watches while it is said; it hands the rest to the transcript.
//! - Leaves to others: what is kept of a conversation (`transcript`), who watches and why (`cli`).
//! - Always true: of content nobody hears more than its size, and nothing secret may go this way. Where nobody listens
//!   nothing is put together.

use super::transcript::{self, Line, Transcript};
use crate::smtp::Reply;

/// Hears each line as it is said, printable. Everything waits for it.
pub type Watcher = fn(Line<'_>);

/// What is heard of one connection.
#[derive(Debug, Default)]
pub struct Tap {
    transcript: Transcript,
    log: Option<DebugLog>,
    watcher: Option<Watcher>,
}

/// Log lines for a server whose conversations are logged.
#[derive(Debug)]
struct DebugLog {
    relay: String,
    /// 1: replies, 2: commands too.
    level: usize,
}

impl Tap {
    /// Nobody hears anything but `watcher`, if there is one.
    pub fn new(watcher: Option<Watcher>) -> Self {
        Self { watcher, ..Self::default() }
    }

    /// Logs from now on what is said to and by `relay`, as far as `level` goes.
    pub fn log(&mut self, relay: String, level: usize) {
        self.log = Some(DebugLog { relay, level });
    }

    /// What is kept.
    pub fn transcript(&mut self) -> &mut Transcript {
        &mut self.transcript
    }

    /// Command lines of ours.
    pub fn commands(&mut self, commands: &[u8]) {
        self.transcript.client(commands);
        if let Some(DebugLog { relay, .. }) = self.log.as_ref().filter(|log| log.level > 1) {
            let thread = thread_name();
            for line in String::from_utf8_lossy(commands).lines() {
                log::info!("{thread}: {relay}: > {line}");
            }
        }
        self.watched(commands, |text| Line::Client(text));
    }

    /// What happens beside what is said.
    pub fn note(&mut self, text: &str) {
        self.transcript.note(format_args!("{text}"));
        if let Some(DebugLog { relay, .. }) = &self.log {
            log::info!("{}: {relay}: {text}", thread_name());
        }
        if let Some(watch) = self.watcher {
            watch(Line::Note(text));
        }
    }

    /// The content of a message, after the commands that announce it.
    pub fn content(&mut self, size: u64) {
        self.transcript.note(format_args!("message content, {size} octets"));
        if let Some(watch) = self.watcher {
            watch(Line::Client(&format!("(message of {size} octets)")));
        }
    }

    /// A reply, as it was understood and as it came.
    pub fn reply(&mut self, reply: &Reply, octets: &[u8]) {
        self.transcript.server(octets);
        if let Some(DebugLog { relay, .. }) = &self.log {
            log::info!("{}: {relay}: < {}", thread_name(), reply.one_line());
        }
        self.watched(octets, |text| Line::Server(text));
    }

    /// A reply of which only this is to be heard.
    pub fn shown_reply(&mut self, shown: &str) {
        self.transcript.server(shown.as_bytes());
        if let Some(DebugLog { relay, .. }) = &self.log {
            log::info!("{}: {relay}: < {}", thread_name(), shown.replace('\n', " "));
        }
        self.watched(shown.as_bytes(), |text| Line::Server(text));
    }

    /// What the server sent and nobody could use.
    pub fn surplus(&mut self, octets: &[u8]) {
        self.transcript.server(octets);
        self.watched(octets, |text| Line::Server(text));
    }

    fn watched(&self, octets: &[u8], line: fn(&str) -> Line<'_>) {
        if let Some(watch) = self.watcher {
            transcript::for_each_line(octets, |text| watch(line(text)));
        }
    }
}

/// Tells conversations with one server apart that go on at a time.
fn thread_name() -> String {
    std::thread::current().name().unwrap_or("unnamed").to_owned()
}
