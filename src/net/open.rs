//! From a destination to a connection that is ready for mail.
//!
//! - Owns: the order of servers, which failure of which of them counts, what holds for each of them, the one connection
//!   in clear after TLS that may be done without has failed.
//! - Leaves to others: sockets (`connect`), the conversation (`connection`), and how long a destination that fails rests
//!   (`queue`).
//! - Always true: each address has one deadline of its own; no server gets a login or a connection that is meant for
//!   another.

use std::io;
use std::time::Duration;

use socket2::Socket;

use super::connect::{connect, peers_of};
use super::connection::{Connection, NotReady};
use super::observer::Observer;
use super::peer::Peer;
use super::shake_hands::Opening;
use super::tap::{Tap, Watcher};
use super::tls::TlsSessions;
use super::transcript::is_about_protocol;
use crate::config::{Timeout, TlsLevel, Transport};
use crate::mail::{Destination, EnhancedStatus, Reason, Server};
use crate::smtp::{Capabilities, Credentials, Settled};

/// How long each stage of a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug)]
pub enum NotConnected {
    /// The server has no room for another connection now (a UNIX socket's backlog is full): not a failure.
    Busy(Reason),
    /// All servers of the destination failed, none of them for being busy; or one of them has decided for all of them.
    Failed {
        /// Why: the last one's reason. One of class 5 is one for returning the mail.
        reason: Reason,
        /// That server, if it could be connected to, and was not ready for mail then.
        connected: Option<Peer>,
        /// It does not take our login.
        login_failed: bool,
    },
}

impl NotConnected {
    pub(super) fn unreachable(reason: Reason) -> Self {
        Self::Failed { reason, connected: None, login_failed: false }
    }

    /// Whether no other server need be asked: this one has refused the mail for good.
    fn decides_for_all(&self) -> bool {
        matches!(self, Self::Failed { reason, connected: Some(_), .. } if reason.status.class() == 5)
    }

    /// Why, in words.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Busy(reason) | Self::Failed { reason, .. } => reason,
        }
    }
}

/// Who wants a connection.
#[derive(Debug)]
pub struct Caller<'a> {
    /// What to call ourselves.
    pub myhostname: &'a str,
    /// Who hears what is said while it is said.
    pub watcher: Option<Watcher>,
    /// What earlier TLS connections have left for the next one.
    pub sessions: &'a mut TlsSessions,
}

/// Opens a connection to the first server of `destination`, from the one at `first` on, that is ready for mail.
pub fn open(
    destination: &Destination,
    first: usize,
    transport: &Transport,
    caller: &mut Caller<'_>,
    observer: &mut dyn Observer,
) -> Result<Connection, NotConnected> {
    // A name is looked up only when its turn comes.
    let myhostname = caller.myhostname;
    let candidates = destination.servers().iter().enumerate().skip(first).flat_map(|(place, server)| {
        let peers = match peers_of(server, transport, myhostname) {
            Ok(peers) => peers.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(reason) => vec![Err(reason)],
        };
        peers.into_iter().map(move |peer| Candidate { place, server, peer })
    });
    first_ready(candidates, transport, caller, observer)
}

/// An address at which a server may be ready for mail, or why there is none.
struct Candidate<'a> {
    /// The server's place among the destination's.
    place: usize,
    server: &'a Server,
    peer: Result<Peer, Reason>,
}

/// Connects to one candidate after the other, until one is ready for mail.
fn first_ready<'a>(
    candidates: impl Iterator<Item = Candidate<'a>>,
    transport: &Transport,
    caller: &mut Caller<'_>,
    observer: &mut dyn Observer,
) -> Result<Connection, NotConnected> {
    let mut last: Option<NotConnected> = None;
    // How many addresses of which server were spoken to.
    let (mut spoken_to, mut sessions) = (None, 0);
    // A password that one address of a server refuses is wrong at the others, too; and who tries it often is locked out.
    let mut unwelcome_at = None;
    for Candidate { place, server, peer } in candidates {
        if spoken_to != Some(place) {
            (spoken_to, sessions) = (Some(place), 0);
        }
        let has_enough = transport.habits.session_limit.is_some_and(|limit| sessions >= limit.max(1));
        if has_enough || unwelcome_at == Some(place) {
            continue;
        }
        let socket = peer.map_err(NotConnected::unreachable).and_then(|peer| {
            let socket = connect(&peer, transport, observer)?;
            Ok((socket, peer))
        });
        let connection = socket.and_then(|(socket, peer)| {
            sessions += 1;
            start(socket, &peer, place, server, transport, caller, observer)
        });
        match connection {
            Ok(connection) => {
                if let Some(failure) = &last {
                    observer.note(&failure.reason().text);
                }
                return Ok(connection);
            }
            Err(failure) => {
                let decides = failure.decides_for_all();
                if matches!(failure, NotConnected::Failed { login_failed: true, .. }) {
                    unwelcome_at = Some(place);
                }
                note(&mut last, failure, &mut |reason| observer.note(&reason.text));
                if decides {
                    break;
                }
            }
        }
    }
    let nobody =
        || Reason::local(EnhancedStatus::new(4, 3, 0), "server unavailable or unable to receive mail");
    Err(last.unwrap_or_else(|| NotConnected::unreachable(nobody())))
}

/// Takes a connected socket so far that it is ready for mail. Where TLS may be done without and its handshake fails, a
/// second connection to the same address does without, unless we have a login for the server.
fn start(
    socket: Socket,
    peer: &Peer,
    place: usize,
    server: &Server,
    transport: &Transport,
    caller: &mut Caller<'_>,
    observer: &mut dyn Observer,
) -> Result<Connection, NotConnected> {
    let unusable =
        |reason| NotConnected::Failed { reason, connected: Some(peer.clone()), login_failed: false };
    let discard = observer.keywords_to_discard(peer).map_err(|error| {
        let text = format!("local data error while talking to {}: {error}", peer.name());
        unusable(Reason::local(EnhancedStatus::new(4, 3, 0), text))
    })?;
    let credentials = credentials_for(server, transport, peer).map_err(unusable)?;
    let mut opening = Opening {
        server,
        place,
        transport,
        hello: transport.habits.lhlo_name.as_deref().unwrap_or(caller.myhostname),
        discard: discard.as_deref().unwrap_or(&transport.discard_lhlo_keywords),
        policy: transport.tls.policy_for(server),
        credentials: credentials.as_ref(),
        sessions: &mut *caller.sessions,
    };
    let (watcher, is_kept) = (caller.watcher, observer.wants_conversations());
    let tap = || {
        let mut tap = Tap::new(watcher);
        tap.transcript().turn(is_kept);
        tap
    };
    let mut started = Connection::start(socket, peer.clone(), &mut opening, tap());
    if let Err(failure) = &started
        && failure.tls_failed
        && opening.policy.level == TlsLevel::May
        // Who breaks a handshake must not get to see a login in clear for it.
        && opening.credentials.is_none()
    {
        observer.note(&format!("{}; it is tried again without TLS", failure.reason.text));
        opening.policy.level = TlsLevel::None;
        started = Connection::start(connect(peer, transport, observer)?, peer.clone(), &mut opening, tap());
    }
    let connection = started.map_err(|failure| {
        let NotReady { reason, transcript, login_failed, .. } = *failure;
        if is_about_protocol(&reason) {
            observer.protocol_error(&reason.text);
            observer.conversation(&transcript);
        }
        NotConnected::Failed { reason, connected: Some(peer.clone()), login_failed }
    })?;
    if let Some(security) = connection.security().filter(|_| transport.habits.tls_log) {
        observer.secured(&security);
    }
    Ok(connection)
}

/// Whom we are to `server`, if to anybody.
fn credentials_for(
    server: &Server,
    transport: &Transport,
    peer: &Peer,
) -> Result<Option<Credentials>, Reason> {
    if !transport.sasl.auth_enable {
        return Ok(None);
    }
    transport.secrets.credentials(server).map_err(|what| {
        let text =
            format!("SASL authentication failed; cannot authenticate to server {}: {what}", peer.name());
        Reason::local(EnhancedStatus::new(4, 7, 0), text)
    })
}

/// A server that is ready for mail.
#[derive(Debug)]
pub struct Ready {
    /// Which one, as the log names it.
    pub relay: String,
    /// How the connection is secured: `Verified TLS connection established to …`; `None` in clear.
    pub security: Option<String>,
    /// Whether we have logged in.
    pub is_logged_in: bool,
    /// Whether it offers logins.
    pub offers_login: bool,
    /// What was to be told on the way there: servers that were passed over, TLS that failed.
    pub notes: Vec<String>,
}

/// Whether anything is ready for mail where `destination` leads: says LHLO or EHLO, makes TLS and logs in as it is done
/// for mail, and says QUIT. Somebody may be waiting for the answer, so each stage has at most [`PROBE_TIMEOUT`].
pub fn answers(destination: &Destination, transport: &Transport, myhostname: &str) -> Result<Ready, Reason> {
    let mut transport = transport.clone();
    if let Some(limit) = Timeout::new(PROBE_TIMEOUT) {
        let timeouts = &mut transport.timeouts;
        for stage in [&mut timeouts.connect, &mut timeouts.lhlo, &mut timeouts.starttls, &mut timeouts.quit] {
            *stage = limit.min(*stage);
        }
    }
    let transport = &transport;
    let mut sessions = TlsSessions::default();
    let mut caller = Caller { myhostname, watcher: None, sessions: &mut sessions };
    let mut told = Notes::default();
    let opened = open(destination, 0, transport, &mut caller, &mut told);
    let mut connection = opened.map_err(|failure| failure.reason().clone())?;
    connection.quit(transport, &|| false);
    Ok(Ready {
        relay: connection.peer().relay(),
        security: connection.security(),
        is_logged_in: connection.is_logged_in(),
        offers_login: !connection.offered().auth.is_empty(),
        notes: told.0,
    })
}

/// Hears notes alone: there is no mail.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn ready(&mut self, _: &Peer, _: &Capabilities, _: u32) {}

    fn end_of_data(&mut self, _: &[u32]) -> io::Result<()> {
        Ok(())
    }

    fn settled(&mut self, _: Vec<Settled>) {}

    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }

    /// It is the reason for which the server is not ready, too.
    fn protocol_error(&mut self, _: &str) {}
}

/// The last failure is the batch's outcome; the others are only told. But a busy server is alive: with one of
/// them in the list the batch waits, whatever became of the others.
fn note(last: &mut Option<NotConnected>, failure: NotConnected, passed_over: &mut dyn FnMut(&Reason)) {
    match (&last, &failure) {
        (Some(NotConnected::Busy(_)), NotConnected::Failed { reason, .. }) => passed_over(reason),
        _ => {
            if let Some(before) = last.replace(failure) {
                passed_over(before.reason());
            }
        }
    }
}

#[cfg(test)]
mod tests;
