//! What tests share.
//!
//! - Owns: [`ScriptedPeer`], a server that says its lines and checks the client's.
//! - Leaves to others: where the lines come from (`dialogue`).
//! - Always true: every wait is bounded, so that a client that hangs fails its test with the line it stands at.

use std::fmt;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lastmile::mail::Server;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ServerConnection;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::common::certificates::{Certificates, Kind};
use tls::{decrypt, send, server_side};

mod tls;

/// How long the peer waits for a client that should speak, connect or close.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the peer listens for what should not come, before it answers.
const QUIET: Duration = Duration::from_millis(3);
/// Octets of a client's line.
const LINE_LENGTH_MAX: usize = 8192;

/// What the peer does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waits for a connection; the one before must be over.
    Accept,
    /// Stops listening: whoever connects from now on is refused.
    Refuse,
    /// Hears this line.
    Hear(String),
    /// Hears the content as the command before announced it: after DATA with dots, after BDAT its octets. With a
    /// number, only that many octets of it.
    HearMessage(Option<usize>),
    /// Hears the client close; before, QUIT where that is allowed.
    HearClose {
        /// Whether QUIT may come first.
        may_quit: bool,
    },
    /// Makes a handshake of TLS as the server, with a certificate of this kind; what follows is encrypted.
    Tls(Kind),
    /// Hears the client begin a handshake, and leaves it at that. A client that closes then may send an alert before.
    HearHello,
    /// Says these octets.
    Say(Vec<u8>),
    /// Says them one by one.
    Drip(Vec<u8>, Duration),
    /// What it says next may come before the client has finished.
    Early,
    /// Waits.
    Pause(Duration),
    /// Closes the connection, in TLS with a word.
    Close,
    /// Closes it without one.
    BreakOff,
    /// Waits until there is something to read, and closes without reading it: the client sees ECONNRESET.
    Reset,
    /// Waits until the test says so.
    AwaitGo,
    /// Tells the test so.
    TellReady,
}

/// Where client and script differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The script's line.
    pub line: usize,
    /// What was expected there, and what came.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// A server that plays its part of a conversation in a thread of its own.
pub struct ScriptedPeer {
    server: Server,
    go: Sender<()>,
    ready: Receiver<()>,
    thread: JoinHandle<Result<(), Difference>>,
}

impl ScriptedPeer {
    /// Listens on `server` (TCP: on any free port), and plays `steps`, each with its line in the script. `contents`
    /// are the messages, one for each [`Step::AwaitGo`] and one before.
    pub fn start(server: &Server, steps: Vec<(usize, Step)>, contents: Vec<Vec<u8>>) -> io::Result<Self> {
        Self::start_with(server, steps, contents, None)
    }

    /// The same with what [`Step::Tls`] shows.
    pub fn start_with(
        server: &Server,
        steps: Vec<(usize, Step)>,
        contents: Vec<Vec<u8>>,
        certificates: Option<Certificates>,
    ) -> io::Result<Self> {
        let (listener, server) = listen(server)?;
        // A peer that refuses from the start must do so before the client can try.
        let refuses = matches!(steps.first(), Some((_, Step::Refuse)));
        let ((go, await_go), (tell_ready, ready)) = (channel(), channel());
        let mut play = Play {
            listener: Some(listener).filter(|_| !refuses),
            connection: None,
            certificates,
            tls: None,
            heard: Vec::new(),
            hello: false,
            quit: false,
            early: false,
            listened: false,
            form: Form::Unannounced,
            contents: contents.into_iter(),
            content: Vec::new(),
            offset: 0,
            go: await_go,
            ready: tell_ready,
        };
        let thread = std::thread::Builder::new().name("peer".to_owned()).spawn(move || play.play(&steps))?;
        Ok(Self { server, go, ready, thread })
    }

    /// Where it listens.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Lets the peer go on after a transaction; returns once it has done what comes before the next.
    pub fn go_on(&self) {
        // A peer that has given up already says why in `finish`.
        if self.go.send(()).is_ok() {
            let _ = self.ready.recv_timeout(2 * PATIENCE);
        }
    }

    /// Waits for the end; the first difference, if there is one.
    pub fn finish(self) -> Result<(), Difference> {
        drop(self.go);
        self.thread.join().expect("the peer's thread must not panic")
    }
}

fn listen(server: &Server) -> io::Result<(Socket, Server)> {
    let (socket, address) = match server {
        Server::Unix(path) => (Socket::new(Domain::UNIX, Type::STREAM, None)?, SockAddr::unix(path)?),
        Server::Tcp { .. } => {
            let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
            (Socket::new(Domain::IPV4, Type::STREAM, None)?, any.into())
        }
    };
    socket.bind(&address)?;
    socket.listen(16)?;
    let port = socket.local_addr()?.as_socket().and_then(|bound| NonZeroU16::new(bound.port()));
    let server = match port {
        Some(port) => Server::Tcp { host: Ipv4Addr::LOCALHOST.to_string(), port },
        None => server.clone(),
    };
    Ok((socket, server))
}

/// How the content is to come.
enum Form {
    Unannounced,
    Dotted,
    Chunk(usize),
}

/// The peer's side, in its thread.
struct Play {
    listener: Option<Socket>,
    connection: Option<Socket>,
    certificates: Option<Certificates>,
    /// What the connection is encrypted with.
    tls: Option<ServerConnection>,
    heard: Vec<u8>,
    /// The client has begun a handshake that has no end.
    hello: bool,
    /// The client has said QUIT, and need not listen any more.
    quit: bool,
    early: bool,
    /// It was quiet since the client's last line.
    listened: bool,
    form: Form,
    contents: std::vec::IntoIter<Vec<u8>>,
    content: Vec<u8>,
    /// Octets of it that BDAT has brought in this transaction.
    offset: usize,
    go: Receiver<()>,
    ready: Sender<()>,
}

impl Play {
    fn play(&mut self, steps: &[(usize, Step)]) -> Result<(), Difference> {
        self.content = self.contents.next().unwrap_or_default();
        for (line, step) in steps {
            self.step(step).map_err(|what| Difference { line: *line, what })?;
        }
        let line = steps.last().map_or(0, |(line, _)| *line);
        let end = |what| Difference { line, what: format!("after the last line: {what}") };
        self.hear_close(false).map_err(end)
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Accept => self.accept(),
            Step::Refuse => {
                self.listener = None;
                Ok(())
            }
            Step::Tls(kind) => self.start_tls(*kind),
            Step::HearHello => self.hear_hello(),
            Step::Hear(expected) => self.hear(expected),
            Step::HearMessage(octets) => self.hear_message(*octets),
            Step::HearClose { may_quit } => self.hear_close(*may_quit),
            Step::Say(octets) => self.say(octets),
            Step::Drip(octets, interval) => octets.chunks(1).try_for_each(|octet| {
                std::thread::sleep(*interval);
                // A client that has lost its patience is what drips are for.
                self.say(octet)
                    .or_else(|_| if self.is_gone() { Ok(()) } else { Err("cannot drip".to_owned()) })
            }),
            Step::Early => {
                self.early = true;
                Ok(())
            }
            Step::Pause(time) => {
                std::thread::sleep(*time);
                Ok(())
            }
            Step::Close => {
                if let (Some(tls), Some(connection)) = (&mut self.tls, &mut self.connection) {
                    tls.send_close_notify();
                    // A client that has gone need not hear it.
                    let _ = send(tls, connection);
                }
                self.hang_up();
                Ok(())
            }
            Step::BreakOff => {
                self.hang_up();
                Ok(())
            }
            Step::Reset => self.reset(),
            Step::AwaitGo => {
                self.content = self.contents.next().unwrap_or_default();
                self.go.recv_timeout(2 * PATIENCE).map_err(|_| "the transaction did not end".to_owned())
            }
            Step::TellReady => self.ready.send(()).map_err(|_| "the test has ended".to_owned()),
        }
    }

    fn hang_up(&mut self) {
        (self.connection, self.tls) = (None, None);
        self.heard.clear();
    }

    fn accept(&mut self) -> Result<(), String> {
        if self.connection.is_some() {
            self.hear_close(false)?;
        }
        let listener = self.listener.as_ref().ok_or("the peer does not listen any more")?;
        if !is_readable(listener, PATIENCE) {
            return Err(format!("the client did not connect within {PATIENCE:?}"));
        }
        let (connection, _) = listener.accept().map_err(|error| format!("cannot accept: {error}"))?;
        connection.set_write_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        self.hang_up();
        self.connection = Some(connection);
        (self.hello, self.quit, self.early, self.listened) = (false, false, false, false);
        self.form = Form::Unannounced;
        Ok(())
    }

    /// Reads more; `false` at the end of file.
    fn read(&mut self, until: Instant) -> Result<bool, String> {
        let heard = shown(&self.heard);
        let connection = self.connection.as_mut().ok_or("there is no connection")?;
        if !is_readable(connection, until.saturating_duration_since(Instant::now())) {
            return Err(format!("nothing more came within {PATIENCE:?} after {heard}"));
        }
        if let Some(tls) = &mut self.tls {
            return match decrypt(tls, connection, &mut self.heard) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
                other => other.map_err(|error| format!("cannot read: {error}")),
            };
        }
        let mut piece = [0; 16384];
        match connection.read(&mut piece) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.heard.extend_from_slice(&piece[..length]);
                Ok(true)
            }
            // A client that closed without reading everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(format!("cannot read: {error}")),
        }
    }

    /// The whole handshake, with the certificate of that kind.
    fn start_tls(&mut self, kind: Kind) -> Result<(), String> {
        if !self.heard.is_empty() {
            return Err(format!("the client should begin TLS, and said {}", shown(&self.heard)));
        }
        let identity = self.certificates.as_ref().ok_or("the peer has no certificates")?.of(kind);
        let mut tls = server_side(identity).map_err(|error| format!("cannot prepare TLS: {error}"))?;
        let connection = self.connection.as_mut().ok_or("there is no connection")?;
        let until = Instant::now() + PATIENCE;
        while tls.is_handshaking() {
            if !is_readable(connection, until.saturating_duration_since(Instant::now())) {
                return Err(format!("the handshake did not end within {PATIENCE:?}"));
            }
            if !decrypt(&mut tls, connection, &mut self.heard).map_err(|error| format!("TLS: {error}"))? {
                return Err("the client closed within the handshake".to_owned());
            }
        }
        self.tls = Some(tls);
        Ok(())
    }

    /// Hears one record of a handshake (RFC 8446 section 5.1): the client's hello.
    fn hear_hello(&mut self) -> Result<(), String> {
        (self.early, self.listened) = (false, false);
        let until = Instant::now() + PATIENCE;
        loop {
            let length = match self.heard[..] {
                [22, 3, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([high, low])),
                _ => 5,
            };
            if self.heard.len() >= length {
                break;
            }
            if !self.read(until)? {
                return Err(format!("the client should begin TLS, but closed after {}", shown(&self.heard)));
            }
        }
        match std::mem::take(&mut self.heard)[..] {
            [22, 3, ..] => {
                self.hello = true;
                Ok(())
            }
            ref other => Err(format!("the client should begin TLS, and said {}", shown(other))),
        }
    }

    fn hear(&mut self, expected: &str) -> Result<(), String> {
        (self.early, self.listened) = (false, false);
        let until = Instant::now() + PATIENCE;
        let end = loop {
            if let Some(end) = self.heard.iter().position(|octet| *octet == b'\n') {
                break end + 1;
            }
            if self.heard.len() > LINE_LENGTH_MAX {
                return Err(format!("expected {expected:?}, heard a line without end"));
            }
            match self.read(until) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(format!(
                        "expected {expected:?}, but the client closed after {}",
                        shown(&self.heard)
                    ));
                }
                Err(error) => return Err(format!("expected {expected:?}: {error}")),
            }
        };
        let line: Vec<u8> = self.heard.drain(..end).collect();
        if line != format!("{expected}\r\n").as_bytes() {
            return Err(format!("expected {expected:?}, heard {}", shown(&line)));
        }
        match expected.split(' ').collect::<Vec<_>>()[..] {
            ["QUIT"] => self.quit = true,
            ["DATA"] => self.form = Form::Dotted,
            ["BDAT", octets, ..] => self.form = octets.parse().map_or(Form::Unannounced, Form::Chunk),
            ["MAIL", ..] => self.offset = 0,
            _ => {}
        }
        Ok(())
    }

    fn hear_message(&mut self, octets: Option<usize>) -> Result<(), String> {
        (self.early, self.listened) = (false, false);
        let expected = match self.form {
            Form::Unannounced => return Err("no DATA or BDAT announced a message".to_owned()),
            Form::Dotted => dotted(&self.content),
            Form::Chunk(length) => {
                let rest = &self.content[self.offset..];
                self.offset += length.min(rest.len());
                let chunk = rest.get(..length);
                chunk.ok_or_else(|| format!("{length} octets announced, {} are left", rest.len()))?.to_vec()
            }
        };
        let expected = &expected[..octets.unwrap_or(expected.len()).min(expected.len())];
        let until = Instant::now() + PATIENCE;
        while self.heard.len() < expected.len() {
            match self.read(until) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(format!(
                        "the client closed within the message, after {}",
                        shown(&self.heard)
                    ));
                }
                Err(error) => return Err(format!("expected the message: {error}")),
            }
        }
        let heard: Vec<u8> = self.heard.drain(..expected.len()).collect();
        if let Some(at) = heard.iter().zip(expected).position(|(heard, expected)| heard != expected) {
            let from = at.saturating_sub(20);
            let (heard, expected) = (shown(&heard[from..]), shown(&expected[from..]));
            return Err(format!("the message differs at octet {at}: expected {expected}, heard {heard}"));
        }
        Ok(())
    }

    fn hear_close(&mut self, may_quit: bool) -> Result<(), String> {
        (self.early, self.listened) = (false, false);
        if self.connection.is_none() {
            return Ok(());
        }
        let until = Instant::now() + PATIENCE;
        while self.read(until).map_err(|error| format!("the client should close: {error}"))? {
            if self.heard == b"QUIT\r\n" && may_quit {
                self.quit = true;
                self.say(b"221 bye\r\n")?;
            }
        }
        let heard = std::mem::take(&mut self.heard);
        self.hang_up();
        match &heard[..] {
            b"" => Ok(()),
            b"QUIT\r\n" if may_quit => Ok(()),
            [21, 3, _, 0, 2, _, _] if self.hello => Ok(()),
            other => Err(format!("the client should close, and said {}", shown(other))),
        }
    }

    fn say(&mut self, octets: &[u8]) -> Result<(), String> {
        // Once is enough for several replies in a row.
        let quiet = if self.listened { Duration::ZERO } else { QUIET };
        let more = self.has_more(quiet)?;
        self.listened = true;
        if more && !self.early && !self.quit {
            // Only to show it.
            self.read(Instant::now()).ok();
            return Err(format!("the client did not wait for the answer, and said {}", shown(&self.heard)));
        }
        let connection = self.connection.as_mut().ok_or("there is no connection")?;
        let written = match &mut self.tls {
            Some(tls) => tls.writer().write_all(octets).and_then(|()| send(tls, connection)),
            None => connection.write_all(octets),
        };
        match written {
            // Who has said QUIT need not wait for the answer.
            Err(_) if self.quit => Ok(()),
            other => other.map_err(|error| format!("cannot say it: {error}")),
        }
    }

    /// Whether the client has said more, within that time. Its close is no word.
    fn has_more(&mut self, quiet: Duration) -> Result<bool, String> {
        let connection = self.connection.as_ref().ok_or("there is no connection")?;
        if !self.heard.is_empty() || !is_readable(connection, quiet) {
            return Ok(!self.heard.is_empty());
        }
        if self.tls.is_none() {
            return Ok(!self.is_gone());
        }
        self.read(Instant::now())?;
        Ok(!self.heard.is_empty())
    }

    /// Whether the client has closed.
    fn is_gone(&self) -> bool {
        let Some(connection) = &self.connection else { return true };
        let peeked = connection.peek(&mut [MaybeUninit::uninit()]);
        is_readable(connection, Duration::ZERO) && peeked.map_or(true, |octets| octets == 0)
    }

    fn reset(&mut self) -> Result<(), String> {
        self.tls = None;
        let connection = self.connection.take().ok_or("there is no connection")?;
        if self.heard.is_empty() && !is_readable(&connection, PATIENCE) {
            return Err(format!("nothing came within {PATIENCE:?} that could be left unread"));
        }
        self.heard.clear();
        // On UNIX sockets unread octets make the reset.
        let is_tcp = connection.local_addr().is_ok_and(|address| address.is_ipv4());
        if is_tcp {
            connection.set_linger(Some(Duration::ZERO)).map_err(|error| error.to_string())
        } else {
            Ok(())
        }
    }
}

/// Waits for something to read, or the end of file.
fn is_readable(socket: &Socket, time: Duration) -> bool {
    let Ok(time) = Timespec::try_from(time) else { return false };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&time)).is_ok_and(|ready| ready > 0)
}

/// Content as DATA sends it (RFC 5321 section 4.5.2), with the final dot.
pub fn dotted(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Octets for a message to people, cut where they are many.
fn shown(octets: &[u8]) -> String {
    let cut = if octets.len() > 200 { "…" } else { "" };
    format!("\"{}{cut}\"", octets[..octets.len().min(200)].escape_ascii())
}
