//! An LMTP and ESMTP server that remembers every command and every octet, and answers as a test tells it.
//!
//! - Owns: the conversation, what was heard in it ([`Heard`]), holding answers back until a test lets them go.
//! - Leaves to others: what a test makes of it. No code is shared with any client.
//! - Always true: dropping it ends its threads; a client that says nothing is waited for a minute at most.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::conversation;

/// A client that is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Where in a conversation an answer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Greeting,
    Lhlo,
    Xforward,
    Mail,
    Rcpt,
    /// DATA; a BDAT is asked for as content alone.
    Data,
    /// Before the content is read. Only what ends the connection has an effect.
    Content,
    /// After the end of the content, for each accepted recipient.
    DataDone,
    Rset,
    Quit,
}

/// What an answer is due to.
pub struct At<'a> {
    pub stage: Stage,
    /// The envelope's sender, once it is known.
    pub sender: &'a str,
    /// The recipient that the answer is about.
    pub recipient: &'a str,
}

impl At<'_> {
    /// The recipient's local part.
    pub fn user(&self) -> &str {
        self.recipient.rsplit_once('@').map_or(self.recipient, |(user, _)| user)
    }
}

/// What the server does.
pub enum Answer {
    /// What a server without faults does.
    Usual,
    /// These lines (LF between them), as they are.
    Say(String),
    /// These lines, then the end of the connection.
    Part(String),
    /// The end of the connection, without a word.
    Close,
    /// No answer, for so long as the client waits.
    Silence,
    /// The usual answer, later.
    After(Duration),
    /// The usual answer, when the test says so ([`Server::release`]).
    Held,
}

/// [`Answer::Say`].
pub fn say(text: &str) -> Answer {
    Answer::Say(text.to_owned())
}

/// One transaction: what was said from MAIL to the end.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The words after `MAIL FROM:`.
    pub mail: String,
    /// The sender in it.
    pub sender: String,
    /// The words after each `RCPT TO:`, accepted or not.
    pub recipients: Vec<String>,
    /// The recipients that were accepted, as addresses.
    pub accepted: Vec<String>,
    /// The octets of the content, dots taken off; `None` where it did not come to its end.
    pub content: Option<Vec<u8>>,
    /// XFORWARD commands before it.
    pub forwarded: Vec<String>,
}

/// One command, as it was heard.
#[derive(Clone, Debug)]
pub struct Command {
    pub line: String,
    /// It had come before the answer to the command in front of it was written.
    pub is_pipelined: bool,
}

/// All that was heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub connections: usize,
    pub commands: Vec<Command>,
    pub transactions: Vec<Transaction>,
}

/// How an answer is found.
pub type Answers = dyn Fn(&At<'_>) -> Answer + Send + Sync;

/// What the conversations share.
pub(super) struct Shared {
    pub offers: Vec<String>,
    pub answers: Box<Answers>,
    heard: Mutex<Heard>,
    gate: Mutex<Gate>,
    bell: Condvar,
}

/// Who waits at the gate, and whether it is open.
#[derive(Default)]
struct Gate {
    is_open: bool,
    waiting: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    /// Waits until the gate is open.
    pub fn pass(&self) {
        let mut gate = lock(&self.gate);
        gate.waiting += 1;
        let gate = self.bell.wait_timeout_while(gate, SILENCE_MAX, |gate| !gate.is_open);
        gate.unwrap_or_else(PoisonError::into_inner).0.waiting -= 1;
    }
}

/// A stream of either family.
pub(super) trait Stream: Read + Write + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    socket: PathBuf,
    address: SocketAddr,
    acceptors: Vec<JoinHandle<()>>,
}

/// What a modern LMTP server offers.
pub const OFFERS: [&str; 5] = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "SIZE 52428800"];

/// The same without CHUNKING: only there a client says DATA, and waits for the answer.
pub const OFFERS_WITHOUT_BDAT: [&str; 4] = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE 52428800"];

impl Server {
    /// One that offers what Dovecot does.
    pub fn start(directory: &Path, answers: impl Fn(&At<'_>) -> Answer + Send + Sync + 'static) -> Self {
        Self::offering(directory, &OFFERS, answers)
    }

    /// One that takes all mail.
    pub fn obliging(directory: &Path) -> Self {
        Self::start(directory, |_| Answer::Usual)
    }

    /// Listens at a socket in `directory` and on a loopback port; offers these extensions.
    pub fn offering(
        directory: &Path,
        offers: &[&str],
        answers: impl Fn(&At<'_>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listening(directory, Ipv4Addr::LOCALHOST.into(), offers, answers)
    }

    /// The same at another address of this machine.
    pub fn listening(
        directory: &Path,
        address: IpAddr,
        offers: &[&str],
        answers: impl Fn(&At<'_>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            offers: offers.iter().map(|&offer| offer.to_owned()).collect(),
            answers: Box::new(answers),
            heard: Mutex::default(),
            gate: Mutex::default(),
            bell: Condvar::new(),
        });
        let tcp = TcpListener::bind((address, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        // Named by their order, so that texts with the name in them can be compared.
        let name = |number: usize| directory.join(format!("server-{number}.sock"));
        let socket = (1..100).map(name).find(|path| !path.exists()).unwrap();
        let unix = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let (by_tcp, by_unix) = (Arc::clone(&shared), Arc::clone(&shared));
        let accept_tcp = move || accept(&by_tcp, || tcp.accept().and_then(|(stream, _)| prepared(stream)));
        let accept_unix = move || accept(&by_unix, || unix.accept().and_then(|(stream, _)| limited(stream)));
        let acceptors = vec![thread::spawn(accept_tcp), thread::spawn(accept_unix)];
        Self { shared, socket, address, acceptors }
    }

    /// As a next hop, over its UNIX socket.
    pub fn unix(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// As a next hop, over TCP.
    pub fn inet(&self) -> String {
        format!("inet:127.0.0.1:{}", self.port())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it has heard so far.
    pub fn heard(&self) -> Heard {
        self.shared.heard().clone()
    }

    /// How many answers are held back now.
    pub fn held(&self) -> usize {
        lock(&self.shared.gate).waiting
    }

    /// Lets all held answers go, and the later ones too.
    pub fn release(&self) {
        lock(&self.shared.gate).is_open = true;
        self.shared.bell.notify_all();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.release();
        lock(&self.shared.heard).connections = usize::MAX;
        // Each acceptor sees that it is over at its next connection.
        let _ = TcpStream::connect(self.address);
        let _ = UnixStream::connect(&self.socket);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

fn limited(stream: UnixStream) -> io::Result<UnixStream> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

/// Starts a conversation for each connection. Its thread ends with the client, or with the process.
fn accept<S: Stream + 'static>(shared: &Arc<Shared>, mut next: impl FnMut() -> io::Result<S>) {
    loop {
        let accepted = next();
        let mut heard = lock(&shared.heard);
        if heard.connections == usize::MAX {
            return;
        }
        let Ok(stream) = accepted else { continue };
        heard.connections += 1;
        drop(heard);
        let shared = Arc::clone(shared);
        thread::spawn(move || conversation::serve(&shared, stream));
    }
}
