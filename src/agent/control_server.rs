//! Serves the control socket, `agent.sock` in the queue directory.
//!
//! - Owns: the socket, its connections and their bounds, submissions while their content comes in.
//! - Leaves to others: the protocol and every other answer (`queue_control`, which describes it), what the master knows.
//! - Always true: who asks is what the kernel says (SO_PEERCRED). A connection has a thread of its own, so that a slow
//!   or hostile client blocks only itself; nobody can take so many that root and the agent's user find none.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use super::log::PICKUP;
use super::pickup::{is_trusted, limits};
use super::queue_control::{
    Caller, ContentReader, Executor, Hands, Line, Refusal, RefusalCode, Request, Submission, read_request,
    write_line,
};
use super::recorder::logged;
use super::report::{Report, Reporter};
use crate::mail::QueueId;
use crate::spool::{SOCKET_NAME, Spool};

/// As nice(1) counts.
const LOWEST_PRIORITY: i32 = 19;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// Those of them that anybody may have.
const UNPRIVILEGED_MAX: usize = 24;
/// Those of one user.
const USER_MAX: usize = 8;
/// How long a client may take for a question.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How long a client may leave an answer unread: somebody may be paging through it.
const WRITE_LIMIT: Duration = Duration::from_secs(300);
/// How long nothing of a submission may come: what writes it may be thinking.
const CONTENT_LIMIT: Duration = Duration::from_secs(600);
/// How long one question may take from its first octet to its answer's last.
const WHOLE_LIMIT: Duration = Duration::from_secs(3600);
/// How long the search for the next line of an answer may take: a client of ours waits no longer for one.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// How long we rest when no connection can be taken, for want of descriptors, say.
const ACCEPT_REST: Duration = Duration::from_secs(1);

/// Makes the socket, for everybody to connect to. `owner` is the agent's user and group. Call it before privileges are
/// dropped, while there is one thread: the umask is changed for a moment. Whoever calls it holds the agent's lock, so
/// that a socket that is there is a leftover.
pub fn bind(queue_directory: &Path, owner: (Uid, Gid)) -> io::Result<UnixListener> {
    let path = queue_directory.join(SOCKET_NAME);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(&path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has that name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let before = rustix::process::umask(Mode::from(0o111));
    let listener = UnixListener::bind(&path);
    rustix::process::umask(before);
    let listener = listener?;
    give_to(&path, owner)?;
    Ok(listener)
}

/// The directory may be the agent's user's, who could put a link in the place of the socket: so what is given away is
/// what was opened and looked at, not a path.
fn give_to(path: &Path, (user, group): (Uid, Gid)) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    let is_socket = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket;
    if !is_socket || stat.st_nlink != 1 {
        return Err(io::Error::other("somebody has put something else in its place"));
    }
    Ok(rustix::fs::chownat(&fd, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?)
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    spool: Arc<Spool>,
    hands: Hands,
    reporter: Reporter,
    connections: Mutex<Connections>,
}

/// Starts the thread that takes connections. It ends with the process.
pub fn start(listener: UnixListener, spool: Arc<Spool>, reporter: Reporter) -> io::Result<()> {
    let hands = Hands::Agent(reporter.clone());
    let shared = Arc::new(Shared { spool, hands, reporter, connections: Mutex::default() });
    let accept = move || {
        // Nor may those who ask have to wait for a log that is stuck: not with a message that is on disk already.
        super::log::this_thread_may_not_wait();
        loop {
            match listener.accept() {
                Ok((stream, _)) => Shared::take(&shared, stream),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("the control socket cannot be served: {error}; tried again in a second");
                    std::thread::sleep(ACCEPT_REST);
                }
            }
        }
    };
    std::thread::Builder::new().name("control".to_owned()).spawn(accept).map(drop)
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        // Counts are right whoever has panicked.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection a thread, or a refusal.
    fn take(shared: &Arc<Self>, stream: UnixStream) {
        let uid = match rustix::net::sockopt::socket_peercred(&stream) {
            Ok(credentials) => credentials.uid.as_raw(),
            Err(error) => return log::warn!("a connection to the control socket has no user: {error}"),
        };
        let caller = Caller::new(uid, rustix::process::geteuid().as_raw());
        if !shared.connections().enter(caller) {
            return refuse(&stream);
        }
        let connection = Connection { shared: Arc::clone(shared), caller };
        let thread = std::thread::Builder::new().name(format!("control uid {uid}"));
        if let Err(error) = thread.spawn(move || {
            super::log::this_thread_may_not_wait();
            connection.serve(&stream);
        }) {
            log::warn!("a connection to the control socket cannot be served: {error}");
        }
    }
}

/// Whether the other end is closed. One that has only ended its questions may still read.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut ends = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut ends, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// From now on everything else on this machine goes before this thread. To find what is a user's own, each message of
/// the queue has to be opened, and a user may ask for that all day.
fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
        log::debug!("a question of an unprivileged user is answered at normal priority: {error}");
    }
}

/// A new connection's buffer takes a line; a client that has gone already misses nothing.
fn refuse(stream: &UnixStream) {
    let text = "the agent has too many control connections at the moment; try again";
    let line = Line::Refused(Refusal::new(RefusalCode::Busy, text));
    let _ = stream.set_nonblocking(true).and_then(|()| write_line(&mut &*stream, &line));
}

/// How many connections there are, and whose.
#[derive(Debug, Default)]
struct Connections {
    all: usize,
    unprivileged: usize,
    by_user: HashMap<u32, usize>,
}

impl Connections {
    /// Counts another connection; `false` if there are too many.
    fn enter(&mut self, caller: Caller) -> bool {
        let of_user = self.by_user.get(&caller.uid()).copied().unwrap_or(0);
        let is_full = self.all >= CONNECTIONS_MAX
            || !caller.is_privileged() && (self.unprivileged >= UNPRIVILEGED_MAX || of_user >= USER_MAX);
        if is_full {
            return false;
        }
        self.all += 1;
        self.unprivileged += usize::from(!caller.is_privileged());
        self.by_user.insert(caller.uid(), of_user + 1);
        true
    }

    fn leave(&mut self, caller: Caller) {
        self.all = self.all.saturating_sub(1);
        self.unprivileged = self.unprivileged.saturating_sub(usize::from(!caller.is_privileged()));
        match self.by_user.get_mut(&caller.uid()) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.by_user.remove(&caller.uid());
            }
        }
    }
}

/// One connection. Dropping it makes room for another, also when its thread panics.
#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    caller: Caller,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.connections().leave(self.caller);
    }
}

/// What comes after a question.
enum Next {
    Question,
    /// The client and we no longer agree on where it would begin.
    Close,
}

impl Connection {
    fn serve(self, stream: &UnixStream) {
        if let Err(error) = self.converse(stream) {
            // Its own fault or its own wish: nothing that an administrator could do about.
            log::debug!("the control connection of uid {} ended: {error}", self.caller.uid());
        }
    }

    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        let (mut reader, mut writer) = (BufReader::new(stream), BufWriter::new(stream));
        write_line(&mut writer, &Line::Ready { version: env!("CARGO_PKG_VERSION").to_owned() })?;
        writer.flush()?;
        loop {
            stream.set_read_timeout(Some(REQUEST_LIMIT))?;
            let request = match read_request(&mut reader, Instant::now() + REQUEST_LIMIT)? {
                Some(Ok(request)) => request,
                Some(Err(reason)) => {
                    let text = format!("the question cannot be understood: {reason}");
                    write_line(&mut writer, &Line::Refused(Refusal::new(RefusalCode::BadRequest, text)))?;
                    return writer.flush();
                }
                None => return Ok(()),
            };
            stream.set_read_timeout(Some(CONTENT_LIMIT))?;
            let next = self.answer(request, &mut reader, &mut writer)?;
            writer.flush()?;
            if matches!(next, Next::Close) {
                return Ok(());
            }
        }
    }

    fn answer(
        &self,
        request: Request,
        reader: &mut BufReader<&UnixStream>,
        writer: &mut BufWriter<&UnixStream>,
    ) -> io::Result<Next> {
        let deadline = Instant::now() + WHOLE_LIMIT;
        let Shared { spool, hands, .. } = &*self.shared;
        let executor = Executor { spool, hands, caller: self.caller };
        if let Request::Submit(submission) = request {
            return match self.submit(&executor, *submission, &mut ContentReader::new(reader, deadline)) {
                Ok(id) => {
                    write_line(writer, &Line::Queued { id })?;
                    write_line(writer, &Line::End {}).map(|()| Next::Question)
                }
                // What is left of its content would be taken for questions.
                Err(refusal) => write_line(writer, &Line::Refused(refusal)).map(|()| Next::Close),
            };
        }
        if matches!(request, Request::List {}) && !self.caller.is_privileged() {
            step_back();
        }
        let (stream, said) = (*reader.get_ref(), Cell::new(Instant::now()));
        let wanted = || {
            if deadline < Instant::now() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer was not read in time"));
            }
            if said.get().elapsed() > SILENCE_LIMIT || has_hung_up(stream) {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "nobody waits for the answer"));
            }
            Ok(())
        };
        let mut say = |line| {
            wanted()?;
            write_line(writer, &line)?;
            said.set(Instant::now());
            Ok(())
        };
        executor.answer(&request, &mut say, &wanted)?;
        Ok(Next::Question)
    }

    /// Queues a message. The answer is for its submitter; the log hears of it as of every pickup.
    fn submit(
        &self,
        executor: &Executor<'_>,
        submission: Submission,
        content: &mut dyn io::Read,
    ) -> Result<QueueId, Refusal> {
        let uid = self.caller.uid();
        let config = executor.config()?;
        if let Some(nexthop) = &submission.nexthop {
            if !is_trusted(&config, uid) {
                let text = "the message was not queued: only root, the agent's user and trusted_users may name a nexthop";
                return Err(Refusal::new(RefusalCode::NotPermitted, text));
            }
            config.destination(nexthop).map_err(|error| {
                let text =
                    format!("the message was not queued: nexthop \"{nexthop}\" cannot be used: {error}");
                Refusal::new(RefusalCode::BadMessage, text)
            })?;
        }
        let draft = submission.into_draft(self.caller.origin()).completed(&config.myorigin);
        let sender = logged(&draft.sender);
        let id = self
            .shared
            .spool
            .submit(draft, content, &limits(&config))
            .map_err(|error| Refusal::from(&error))?;
        self.shared.reporter.send(Report::Queued(vec![id]));
        log::info!(target: PICKUP, "{id}: uid={uid} {sender}");
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: u32 = 25;

    #[test]
    fn nobody_takes_the_last_connections_from_the_administrator() {
        let mut connections = Connections::default();
        let users = (1000..1032).flat_map(|uid| std::iter::repeat_n(uid, USER_MAX + 1));
        let taken = users.filter(|uid| connections.enter(Caller::new(*uid, AGENT))).count();
        assert_eq!(taken, UNPRIVILEGED_MAX);
        let privileged = (0..40).filter(|_| connections.enter(Caller::new(0, AGENT))).count();
        assert_eq!(privileged, CONNECTIONS_MAX - UNPRIVILEGED_MAX);
        assert!(!connections.enter(Caller::new(AGENT, AGENT)));
        connections.leave(Caller::new(0, AGENT));
        assert!(!connections.enter(Caller::new(2000, AGENT)));
        assert!(connections.enter(Caller::new(AGENT, AGENT)));
    }

    #[test]
    fn one_user_has_a_share_and_gets_it_back() {
        let (mut connections, ann) = (Connections::default(), Caller::new(1000, AGENT));
        for _ in 0..3 {
            assert_eq!((0..USER_MAX + 5).filter(|_| connections.enter(ann)).count(), USER_MAX);
            assert!(connections.enter(Caller::new(1001, AGENT)));
            (0..USER_MAX).for_each(|_| connections.leave(ann));
            connections.leave(Caller::new(1001, AGENT));
            assert_eq!((connections.all, connections.unprivileged, connections.by_user.len()), (0, 0, 0));
        }
    }

    #[test]
    fn whoever_has_closed_does_not_wait_any_more() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!has_hung_up(&ours));
        (&theirs).write_all(b"another question").unwrap();
        assert!(!has_hung_up(&ours));
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!has_hung_up(&ours), "it may still read");
        drop(theirs);
        assert!(has_hung_up(&ours));
    }

    #[test]
    fn the_socket_is_everybodys_to_connect_to_and_replaces_a_leftover() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let directory = tempfile::tempdir().unwrap();
        // Only root can give it to somebody else.
        let is_root = rustix::process::geteuid().is_root();
        let uid = if is_root { Uid::from_raw(65534) } else { rustix::process::geteuid() };
        let owner = (uid, rustix::process::getegid());
        for _ in 0..2 {
            let _listener = bind(directory.path(), owner).unwrap();
            let metadata = std::fs::metadata(directory.path().join(SOCKET_NAME)).unwrap();
            assert_eq!((metadata.permissions().mode() & 0o777, metadata.uid()), (0o666, uid.as_raw()));
        }
        std::fs::remove_file(directory.path().join(SOCKET_NAME)).unwrap();
        std::fs::write(directory.path().join(SOCKET_NAME), "precious").unwrap();
        assert!(bind(directory.path(), owner).is_err());
    }
}
