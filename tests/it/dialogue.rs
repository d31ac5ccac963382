//! Conversations as files: `tests/dialogues/*.txt`, each with every recipient's outcome.
//!
//! - Owns: the format, and playing a file against a client.
//! - Leaves to others: reading it (`parse`), the server's part (`support::ScriptedPeer`),
//!   the client (whatever is a [`Client`]).
//! - Always true: what is written in a file is checked exactly; the first difference is named by file and line.
//!
//! A file is read from the top. A connection begins with `S: <accepts>`, which may be left out at the very start.
//!
//! | line | means |
//! | --- | --- |
//! | `# …` | nothing |
//! | `C: TEXT` | the client says this line |
//! | `C: <message>` | the client sends the content: with dots after DATA, as octets after BDAT |
//! | `C: <message N>` | the same, but the peer reads no more than its first N octets |
//! | `C: <client hello>` | the client begins a handshake of TLS, of which no more is heard than an alert |
//! | `C: <closes>` | the client closes, without a word; so does the end of the file |
//! | `C: <may quit>` | the client closes, perhaps with QUIT, which is answered |
//! | `S: TEXT` | the server says this line |
//! | `S: <accepts>` | a new connection; the client must have closed the one before |
//! | `S: <refuses>` | nobody listens any more |
//! | `S: <tls>` | a handshake of TLS, whole, with a good certificate for `client.example` and `127.0.0.1` |
//! | `S: <tls KIND>` | the same with a certificate of another kind, as `common::certificates` names them |
//! | `S: <closes>` | the server closes, in TLS with a word |
//! | `S: <breaks off>` | the server closes without one |
//! | `S: <resets>` | the server closes as soon as something has come, without reading it |
//! | `S: <silence>` | the server says nothing: for people, the lines around it do the same |
//! | `S: <holds>` | the server has not answered yet: the same |
//! | `S: <early>` | what follows is said before the client has finished |
//! | `S: <pause TIME>` | nothing for so long |
//! | `S: <partial>TEXT` | TEXT without a line end; `\r \n \t \\ \xNN` are escapes |
//! | `S: <drip TIME>TEXT` | a line, one octet each TIME |
//! | `S: <flood N>` | N octets without a line end |
//! | `= ADDRESS OUTCOME DSN [TEXT]` | `delivered`, `deferred`, `in-doubt` or `bounced`, and its text, if given, exactly |
//! | `--` | the next transaction begins; what the server says first here is said before the client starts |
//!
//! What stands before a transaction's first outcome belongs to delivering, what stands behind the last transaction's
//! outcomes to closing. A client whose QUIT may come now or before the next transaction says it after the `--`.
//! `in-doubt` is deferred too, but the server may hold the message all the same; `deferred` says that it cannot.
//!
//! A client for a file with `<tls>` trusts the authority that has signed the good certificate, and nobody else.
//!
//! Lines of the client without one of the server between them have to come without waiting for an answer; where
//! the server answers, nothing more may have come. In outcomes `H` stands for the server as the log names it, and
//! `P` for the same with a port. Directives stand before the first line of their transaction:
//!
//! | directive | default | |
//! | --- | --- | --- |
//! | `@protocol lmtp\|smtp` | `lmtp` | |
//! | `@listen unix\|tcp` | `unix` | |
//! | `@option KEY VALUE` | | a key of `[transport.NAME]` |
//! | `@login USER:PASSWORD` | none | whom the client logs in as |
//! | `@timeout STAGE TIME` | 4s | `greeting`, `lhlo`, `rset`, `mail`, `rcpt`, `data_init`, `data_xfer`, `data_done`, `quit` |
//! | `@sender ADDRESS` | `a@example.org` | `<>` for none; from here on for each transaction |
//! | `@recipients ADDRESS…` | those of the outcomes | in the order of RCPT |
//! | `@notify ADDRESS WORDS`, `@orcpt ADDRESS TYPE;ADDRESS` | | |
//! | `@envid TEXT`, `@ret FULL\|HDRS`, `@smtputf8 yes` | | |
//! | `@content TEXT` | `Subject: hi\r\n\r\nhello\r\n` (22 octets) | with escapes |
//! | `@content-octets N` | | lines of `x`, N octets in all |
//! | `@seven-bit TEXT` | none | the content in its seven-bit form |
//! | `@declared-size N` | its octets | of the content |
//! | `@body unknown` | by its octets | what is known of the content |
//! | `@utf8 WANTED REQUIRED` | by address | `yes` or `no` each: whether SMTPUTF8 is needed |
//! | `@origin NAME ADDR PORT PROTO HELO IDENT CONTEXT` | none | where the message came from; `-` is unknown |
//! | `@probe yes` | no | nothing is to be delivered |
//! | `@habit NAME VALUE` | ours | a field of `config::Habits` |
//! | `@rested TIME` | 0s | how long the connection has been idle before this transaction |

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lastmile::mail::{
    Address, BodyType, EnhancedStatus, Envelope, Outcome, Protocol, Recipient, Sender, Server,
};
use lastmile::smtp::{Smtputf8, Stage};

use crate::common::certificates::{Certificates, write_private};
use crate::support::{ScriptedPeer, Step};
use client::MYHOSTNAME;

pub mod client;
mod parse;
mod tests;

/// Files that are played at the same time. Most of them wait most of the time.
const THREADS: usize = 8;

/// The client that a dialogue tries.
pub trait Client {
    /// Delivers one message to recipients of one destination; what became of each.
    fn deliver(&mut self, delivery: &Delivery) -> Vec<Became>;
    /// Closes the connection in order, if there still is one.
    fn close(&mut self);
}

/// How the client is to be set up.
#[derive(Clone, Debug)]
pub struct Setup {
    pub protocol: Protocol,
    pub server: Server,
    /// Keys of a transport, and their values.
    pub options: Vec<(String, String)>,
    /// Fields of `config::Habits`, and their values.
    pub habits: Vec<(String, String)>,
    /// Limits of stages; the others have [`Setup::DEFAULT_TIMEOUT`].
    pub timeouts: Vec<(Stage, Duration)>,
    /// Name, colon and password.
    pub login: Option<String>,
}

impl Setup {
    /// Less than the peer's patience, so that a client that waits in vain is not taken for one that hangs.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(4);
}

/// One message to deliver.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub envelope: Envelope,
    pub sender: Sender,
    pub recipients: Vec<Recipient>,
    pub content: Vec<u8>,
    /// The content as it goes to a server that takes seven bits only.
    pub seven_bit: Option<Vec<u8>>,
    pub declared_size: Option<u64>,
    pub body: Option<BodyType>,
    pub smtputf8: Smtputf8,
    /// Name, address, port, protocol, HELO, queue name and rewrite context.
    pub origin: Option<[String; 7]>,
    pub probe: bool,
    /// How long the connection is to have been idle.
    pub rested: Duration,
}

impl Delivery {
    /// The content that the peer is to hear.
    pub fn on_the_wire(&self) -> &[u8] {
        self.seven_bit.as_ref().unwrap_or(&self.content)
    }
}

/// What became of a recipient.
#[derive(Clone, Debug)]
pub struct Became {
    pub address: Address,
    pub outcome: Outcome,
    /// The server may hold the message all the same.
    pub in_doubt: bool,
}

impl Became {
    /// The outcome as a file writes it.
    fn word(&self) -> &'static str {
        match (&self.outcome, self.in_doubt) {
            (Outcome::Delivered(_), false) => "delivered",
            (Outcome::Deferred(_), false) => "deferred",
            (Outcome::Deferred(_), true) => "in-doubt",
            (Outcome::Bounced(_), false) => "bounced",
            (Outcome::Delivered(_) | Outcome::Bounced(_), true) => "answered, and in doubt all the same",
        }
    }
}

/// A file, read.
#[derive(Clone, Debug)]
pub struct Dialogue {
    pub setup: Setup,
    pub transactions: Vec<Transaction>,
}

/// A transaction: what to deliver, what is said, what becomes of whom.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub delivery: Delivery,
    pub steps: Vec<(usize, Step)>,
    /// Steps before the first outcome; the rest belongs to closing.
    pub steps_to_deliver: usize,
    pub outcomes: Vec<Expected>,
}

/// An outcome as written in a file.
#[derive(Clone, Debug)]
pub struct Expected {
    pub line: usize,
    pub address: Address,
    pub word: String,
    pub status: EnhancedStatus,
    pub text: Option<String>,
}

/// The peer's part of a dialogue, with the places where it waits for the test.
fn peer_steps(dialogue: &Dialogue) -> Vec<(usize, Step)> {
    let mut all = Vec::new();
    for (number, transaction) in dialogue.transactions.iter().enumerate() {
        let (before, steps) = match number {
            0 => (0, &transaction.steps[..]),
            _ => (leading(&transaction.steps), &transaction.steps[..]),
        };
        let line = steps.first().map_or(0, |(line, _)| *line);
        if number > 0 {
            all.push((line, Step::AwaitGo));
            all.extend_from_slice(&steps[..before]);
            all.push((line, Step::TellReady));
        }
        all.extend_from_slice(&steps[before..]);
    }
    all
}

/// Steps that the server takes of its own accord, before the client begins.
fn leading(steps: &[(usize, Step)]) -> usize {
    let own = |step: &Step| {
        matches!(
            step,
            Step::Say(_)
                | Step::Close
                | Step::BreakOff
                | Step::Early
                | Step::Pause(_)
                | Step::Drip(..)
                | Step::Refuse
        )
    };
    steps.iter().take_while(|(_, step)| own(step)).count()
}

/// Plays a dialogue against the client that `connect` makes; the differences, one a line.
pub fn play<C: Client>(dialogue: &Dialogue, connect: impl FnOnce(&Setup) -> C) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let server = match &dialogue.setup.server {
        Server::Unix(_) => Server::Unix(directory.path().join("lmtp")),
        tcp @ Server::Tcp { .. } => tcp.clone(),
    };
    let contents =
        dialogue.transactions.iter().map(|transaction| transaction.delivery.on_the_wire().to_vec());
    let steps = peer_steps(dialogue);
    let uses_tls = steps.iter().any(|(_, step)| matches!(step, Step::Tls(_)));
    let certificates = uses_tls.then(|| Certificates::make(directory.path(), &[MYHOSTNAME, "127.0.0.1"]));
    let mut setup = dialogue.setup.clone();
    if let Some(certificates) = &certificates {
        setup.options.push(("tls_CAfile".to_owned(), certificates.authority.display().to_string()));
    }
    let peer = ScriptedPeer::start_with(&server, steps, contents.collect(), certificates)
        .map_err(|error| format!("the peer cannot start: {error}"))?;
    setup.server = peer.server().clone();
    if let Some(login) = &setup.login {
        let table = directory.path().join("passwords");
        write_private(&table, &format!("{} {login}\n", setup.server)).map_err(|error| error.to_string())?;
        setup.options.push(("sasl_auth_enable".to_owned(), "yes".to_owned()));
        setup.options.push(("sasl_password_maps".to_owned(), format!("texthash:{}", table.display())));
    }
    let mut client = connect(&setup);
    let mut differences = Vec::new();
    for (number, transaction) in dialogue.transactions.iter().enumerate() {
        if number > 0 {
            peer.go_on();
        }
        let outcomes = client.deliver(&transaction.delivery);
        differences.extend(compare(&transaction.outcomes, &outcomes, &setup.server));
    }
    client.close();
    drop(client);
    // What the peer heard explains what became of the recipients, not the other way round.
    let mut all: Vec<_> = peer.finish().err().map(|difference| difference.to_string()).into_iter().collect();
    all.append(&mut differences);
    if all.is_empty() { Ok(()) } else { Err(all.join("\n")) }
}

fn compare(expected: &[Expected], outcomes: &[Became], server: &Server) -> Vec<String> {
    let mut differences = Vec::new();
    for expected in expected {
        let mut of_this = outcomes.iter().filter(|became| became.address == expected.address);
        let (Some(became), None) = (of_this.next(), of_this.next()) else {
            let count = outcomes.iter().filter(|became| became.address == expected.address).count();
            differences.push(format!("line {}: {} has {count} outcomes", expected.line, expected.address));
            continue;
        };
        let (word, reason) = (became.word(), became.outcome.reason());
        let text = with_h(&reason.text, server);
        let fits = word == expected.word
            && reason.status == expected.status
            && expected.text.as_ref().is_none_or(|expected| *expected == text);
        if !fits {
            let Expected { line, address, word: e, status: s, text: t } = expected;
            let wanted = format!("{e} {s} {}", t.as_deref().unwrap_or(""));
            differences.push(format!(
                "line {line}: {address}: expected {wanted}, is {word} {} {text}",
                reason.status
            ));
        }
    }
    if outcomes.len() > expected.len() {
        differences.push(format!("{} outcomes for {} recipients", outcomes.len(), expected.len()));
    }
    differences
}

/// Puts `H` for `host[address]` of the server, `P` where the port follows.
fn with_h(text: &str, server: &Server) -> String {
    let (address, port) = match server {
        Server::Unix(path) => (format!("[{}]", path.display()), String::new()),
        Server::Tcp { host, port } => (format!("[{host}]"), format!(":{port}")),
    };
    let Some((before, after)) = text.split_once(&address) else { return text.to_owned() };
    let host = before.rfind(' ').map_or(0, |at| at + 1);
    match after.strip_prefix(&port).filter(|_| !port.is_empty()) {
        Some(after) => format!("{}P{after}", &before[..host]),
        None => format!("{}H{after}", &before[..host]),
    }
}

/// Plays every file of `tests/dialogues`; the differences, each under its file's name.
pub fn play_all<C: Client>(connect: impl Fn(&Setup, &Dialogue) -> C + Sync) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("the dialogues are there")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no dialogues in {}", directory.display());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A client that panics fails its file, not the others.
                    let played = catch_unwind(AssertUnwindSafe(|| play_file(path, &connect)));
                    if let Err(why) = played.unwrap_or_else(|_| Err("panicked, see above".to_owned())) {
                        let name = path.file_name().unwrap_or_default().display().to_string();
                        failures.lock().expect("no thread panics").push(format!("{name}: {why}"));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no thread panics");
    failures.sort();
    failures
}

fn play_file<C: Client>(path: &Path, connect: impl Fn(&Setup, &Dialogue) -> C) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let dialogue = Dialogue::parse(&text).map_err(|(line, why)| format!("line {line}: {why}"))?;
    play(&dialogue, |setup| connect(setup, &dialogue))
}
