//! Files in the queue: our own, dropped ones, and the replies that are kept beside them.
//!
//! - Owns: a queue for each thread, on tmpfs where nobody has chosen another place, emptied for each input.
//! - Leaves to others: who may write where, and crashes (the tests in `spool`, `tests/it/crashes.rs`).
//! - Always true: nothing that was in a queue is gone before it is read: it is a message, or it is set aside whole.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastmile::mail::{QueueId, Recipient};
use lastmile::spool::{
    Cursor, Draft, LoadError, Loaded, Lock, LoggedReply, Normaliser, PickedUp, Pickup, Place, QueueFile,
    Spool, State, SubmitLimits,
};

use super::{addresses, assert_short};

/// Octets of a line in a reply log, as `spool` documents them.
const LOG_LINE_MAX: usize = 128 << 10;
const NO_LIMITS: SubmitLimits = SubmitLimits { message_size_limit: 0, minfree: 0 };

/// A queue in a directory of its own, which goes with it.
struct Queue {
    spool: Arc<Spool>,
    path: PathBuf,
    _lock: Lock,
    _directory: tempfile::TempDir,
}

thread_local! {
    /// Making one takes longer than most checks.
    static QUEUE: Queue = Queue::new();
}

impl Queue {
    fn new() -> Self {
        let mut place = tempfile::Builder::new();
        place.prefix("lastmile-fuzz-");
        let chosen = std::env::var_os("TMPDIR").unwrap_or_else(|| "/dev/shm".into());
        let directory = place.tempdir_in(chosen).or_else(|_| place.tempdir()).unwrap();
        let path = directory.path().join("queue");
        let (spool, lock) = Spool::prepare(&path, None).unwrap();
        Self { spool: Arc::new(spool), path, _lock: lock, _directory: directory }
    }

    fn path_of(&self, place: Place, name: &str) -> PathBuf {
        self.path.join(place.name()).join(name)
    }

    fn put(&self, place: Place, name: &str, octets: &[u8]) -> PathBuf {
        let path = self.path_of(place, name);
        fs::write(&path, octets).unwrap();
        path
    }

    /// Gives a check the queue, empty: what an earlier one left when it failed is none of its business.
    fn lend(check: impl FnOnce(&Self)) {
        QUEUE.with(|queue| {
            queue.files().into_iter().for_each(|file| fs::remove_file(file).unwrap());
            check(queue);
            assert_eq!(queue.files(), Vec::<PathBuf>::new(), "left behind");
        });
    }

    fn files(&self) -> Vec<PathBuf> {
        let places = Place::ALL.into_iter().map(|place| self.path.join(place.name()));
        let entries = places.flat_map(|place| fs::read_dir(place).unwrap());
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// Whatever a file in `active/` holds, it is a message of which every part agrees with every other, or it is refused
/// in a short sentence. A message that is written again is the same.
pub fn queue_file(input: &[u8]) {
    Queue::lend(|queue| {
        check_queue_file(queue, input);
        // Few inputs have sizes and counts that fit: here they are made to.
        if let Some(repaired) = repaired(input) {
            check_queue_file(queue, &repaired);
        }
    });
}

fn check_queue_file(queue: &Queue, octets: &[u8]) {
    let head = octets.split(|&octet| octet == b'\n').nth(1).unwrap_or_default();
    let said: Option<serde_json::Value> = serde_json::from_slice(head).ok();
    let id = said.as_ref().and_then(|head| head["id"].as_str()).and_then(|id| id.parse().ok());
    let id = id.unwrap_or_else(|| QueueId::new(1, 1));
    let path = queue.put(Place::Active, id.as_str(), octets);
    if let Some(loaded) = load(queue, id, usize::MAX) {
        check_loaded(queue, &loaded, octets);
    }
    fs::remove_file(path).unwrap();
}

fn load(queue: &Queue, id: QueueId, window: usize) -> Option<Loaded> {
    match queue.spool.load(id, Cursor::default(), window) {
        Ok(loaded) => Some(loaded),
        Err(error @ (LoadError::Corrupt(_) | LoadError::Version(_))) => {
            assert_short(&error.to_string());
            assert!(error.place().is_some());
            None
        }
        Err(error) => panic!("the file is there, and ours: {error}"),
    }
}

fn check_loaded(queue: &Queue, loaded: &Loaded, octets: &[u8]) {
    let id = loaded.envelope.id;
    assert!(loaded.count as usize <= octets.len() && loaded.envelope.size <= octets.len() as u64);
    assert_eq!((loaded.recipients.len(), loaded.rest, loaded.next), (loaded.unsettled, 0, None));
    assert!(!loaded.recipients.iter().any(|(_, state)| is_settled(*state)));
    for (recipient, _) in &loaded.recipients {
        addresses::check(&recipient.address);
    }
    assert_eq!(in_windows(queue, id), loaded.recipients, "in windows");

    let file = queue.spool.open_message(id, Place::Active).unwrap();
    let content = content_of(&file);
    assert!(octets.ends_with(&content), "the content is not the file's end");
    let states = file.states().unwrap();
    assert_eq!(states.len(), loaded.count as usize);
    assert_eq!(states.iter().filter(|state| !is_settled(**state)).count(), loaded.unsettled);
    // Lines of recipients that are settled are only read here.
    let all: Result<Vec<(Recipient, State)>, LoadError> = file.recipients().unwrap().collect();
    let Ok(all) = all else { return };
    assert_eq!(
        all.iter().filter(|(_, state)| !is_settled(*state)).cloned().collect::<Vec<_>>(),
        loaded.recipients
    );
    check_written_again(queue, loaded, all.into_iter().map(|(recipient, _)| recipient).collect(), &content);
    check_marks(queue, loaded, &content);
}

/// Delivered, or bounced with the bounce on disk: nothing else ends the work for a recipient.
fn is_settled(state: State) -> bool {
    matches!(state, State::Sent | State::Bounced)
}

fn in_windows(queue: &Queue, id: QueueId) -> Vec<(Recipient, State)> {
    let (mut found, mut from) = (Vec::new(), Cursor::default());
    loop {
        let window = queue.spool.load(id, from, 2).unwrap();
        assert!(window.recipients.len() <= 2);
        found.extend(window.recipients);
        match window.next {
            Some(next) => from = next,
            None => return found,
        }
    }
}

fn content_of(file: &QueueFile) -> Vec<u8> {
    let mut content = Vec::new();
    file.content().read_to_end(&mut content).unwrap();
    assert_eq!(content.len() as u64, file.envelope().size);
    content
}

/// Another file with the same message: only ID, arrival, origin's file and states are its own.
fn check_written_again(queue: &Queue, loaded: &Loaded, recipients: Vec<Recipient>, content: &[u8]) {
    let envelope = loaded.envelope.clone();
    let draft = Draft {
        sender: envelope.sender.clone(),
        recipients: recipients.clone(),
        nexthop: envelope.nexthop.clone(),
        envid: envelope.envid.clone(),
        ret: envelope.ret,
        smtputf8: envelope.smtputf8,
        origin: envelope.origin.clone(),
    };
    let id = queue.spool.submit(draft, &mut &content[..], &NO_LIMITS).expect("what was read can be written");
    let again = load(queue, id, usize::MAX).expect("what was written can be read");
    let expected: Vec<_> = recipients.into_iter().map(|recipient| (recipient, State::Pending)).collect();
    assert_eq!(again.recipients, expected);
    let (size, body, arrival) = (again.envelope.size, again.envelope.body, again.envelope.arrival);
    let expected = lastmile::mail::Envelope { id, size, body, arrival, ..(*envelope).clone() };
    assert_eq!(*again.envelope, expected);
    let written = content_of(&queue.spool.open_message(id, Place::Active).unwrap());
    assert_eq!(written, wire_form(content));
    assert!(queue.spool.remove(id, Place::Active).unwrap());
}

fn wire_form(content: &[u8]) -> Vec<u8> {
    let (mut normaliser, mut wire) = (Normaliser::default(), Vec::new());
    normaliser.push(content, &mut wire);
    normaliser.finish(&mut wire);
    wire
}

/// A mark changes the states it is for, and nothing else.
fn check_marks(queue: &Queue, loaded: &Loaded, content: &[u8]) {
    let id = loaded.envelope.id;
    let file = queue.spool.open_active(id).unwrap().expect("it is there");
    let positions: Vec<u32> = loaded.recipients.iter().map(|(recipient, _)| recipient.position).collect();
    for state in [State::InDoubt, State::Refused, State::Sent] {
        file.mark(&positions, state).unwrap();
        let marked = queue.spool.load(id, Cursor::default(), usize::MAX).unwrap();
        let expected = loaded.recipients.iter().map(|(recipient, _)| (recipient.clone(), state));
        let expected: Vec<_> = expected.filter(|(_, state)| !is_settled(*state)).collect();
        assert_eq!(marked.recipients, expected, "marked {state:?}");
        assert_eq!((&marked.envelope, marked.count), (&loaded.envelope, loaded.count));
    }
    assert_eq!(content_of(&file), content);
    assert!(file.mark(&[loaded.count], State::Sent).is_err(), "there is no such recipient");
}

/// The input with a version, counts and a size that fit, if it has a head at all.
fn repaired(input: &[u8]) -> Option<Vec<u8>> {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (front, content) = end.map_or((input, &[][..]), |at| (&input[..at], &input[at + 2..]));
    let mut lines = front.split(|&octet| octet == b'\n').skip(1);
    let (head, states) = (lines.next()?, lines.next()?);
    let recipients: Vec<&[u8]> = lines.collect();
    let mut head: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(head).ok()?;
    head.insert("recipients".to_owned(), recipients.len().into());
    head.insert("size".to_owned(), content.len().into());
    let mut states = states.to_vec();
    states.resize(recipients.len() + 1, b'P');
    let head = serde_json::to_vec(&head).ok()?;
    let lines = [b"lastmile/1", &head[..], &states].into_iter().chain(recipients);
    Some([&lines.collect::<Vec<_>>().join(&b'\n')[..], b"\n\n", content].concat())
}

/// Whatever somebody dropped is picked up as a message, or is set aside octet by octet as it was.
pub fn dropped_file(input: &[u8]) {
    Queue::lend(|queue| {
        check_dropped(queue, input);
        if let Some(repaired) = repaired(input) {
            check_dropped(queue, &repaired);
        }
    });
}

fn check_dropped(queue: &Queue, octets: &[u8]) {
    let name = "dropped";
    queue.put(Place::Incoming, name, octets);
    let mut pickup = Pickup::new(Arc::clone(&queue.spool), NO_LIMITS);
    let nobody = |_| false;
    let is_queue_file = octets.starts_with(b"lastmile/");
    let picked_up = if is_queue_file {
        pickup.take_queue_file(name.as_ref(), &nobody)
    } else {
        pickup.take_bare(name.as_ref(), draft_of_a_job(), &nobody)
    };
    let path = match picked_up {
        PickedUp::Queued(taken) => {
            let loaded = load(queue, taken.id, usize::MAX).expect("what was picked up can be read");
            assert_eq!((loaded.count, loaded.envelope.size), (taken.recipients, taken.size));
            assert_eq!(loaded.unsettled, taken.recipients as usize, "states are ours, not the file's");
            assert_eq!(loaded.envelope.nexthop, None, "whom nobody trusts names no nexthop");
            assert_eq!(loaded.envelope.origin, format!("uid={}", taken.uid));
            let file = queue.spool.open_message(taken.id, Place::Active).unwrap();
            check_picked_up_content(&content_of(&file), octets, is_queue_file);
            let path = queue.path_of(Place::Active, taken.id.as_str());
            check_queue_file_in_place(queue, &path, &loaded);
            path
        }
        PickedUp::SetAside { id, place, reason, .. } => {
            assert_short(&reason);
            assert!(is_queue_file, "any content makes a message: {reason}");
            let is_other_version = !octets.starts_with(b"lastmile/1\n");
            assert!(place == Place::Corrupt || place == Place::Hold && is_other_version, "{place}: {reason}");
            let path = queue.path_of(place, id.as_str());
            assert_eq!(fs::read(&path).unwrap(), octets, "what is set aside is whole");
            path
        }
        other => panic!("a file in our own queue can be taken: {other:?}"),
    };
    fs::remove_file(path).unwrap();
}

fn draft_of_a_job() -> Draft {
    let recipient = |address: &str| Recipient::new(0, address.parse().unwrap());
    Draft {
        sender: "a@example.org".parse().unwrap(),
        recipients: vec![recipient("b@example.org"), recipient("c@example.org")],
        origin: "uid=0".to_owned(),
        ..Draft::default()
    }
}

fn check_picked_up_content(content: &[u8], octets: &[u8], is_queue_file: bool) {
    if is_queue_file {
        let at = octets.windows(2).position(|pair| pair == b"\n\n").expect("a blank line");
        assert_eq!(content, wire_form(&octets[at + 2..]));
    } else {
        assert_eq!(content, wire_form(octets));
    }
}

/// What pickup has written passes for one of our own, to the last octet.
fn check_queue_file_in_place(queue: &Queue, path: &Path, loaded: &Loaded) {
    check_loaded(queue, loaded, &fs::read(path).unwrap());
}

/// A log is its lines that parse, in their order, whatever stands between them; what is appended to it is read back.
pub fn reply_log(input: &[u8]) {
    Queue::lend(|queue| {
        let id = QueueId::new(2, 2);
        let path = queue.put(Place::Deferred, &format!("{id}.log"), input);
        let read = || -> Vec<LoggedReply> {
            queue.spool.replies(id).unwrap().expect("there is a log").map(Result::unwrap).collect()
        };
        let found = read();
        let lines = input.split(|&octet| octet == b'\n').filter(|line| line.len() < LOG_LINE_MAX);
        let expected: Vec<LoggedReply> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        // A line that is too long may end in something that is read as a line of its own.
        if input.len() < LOG_LINE_MAX {
            assert_eq!(found, expected);
        }
        for reply in &found {
            addresses::check(&reply.address);
        }
        let positions = {
            let mut positions: Vec<u32> = found.iter().map(|reply| reply.recipient).collect();
            positions.sort_unstable();
            positions.dedup();
            positions
        };
        let last = queue.spool.last_replies(id, &positions).unwrap();
        assert_eq!(last.keys().copied().collect::<Vec<_>>(), positions);
        for (position, reply) in &last {
            assert_eq!(found.iter().rfind(|reply| reply.recipient == *position), Some(reply));
        }
        // A torn end costs itself only: what is appended starts a line of its own.
        queue.spool.append_replies(id, &found).unwrap();
        let twice = read();
        assert!(twice.ends_with(&found), "what was appended is not read back");
        assert_eq!(twice.len(), 2 * found.len());
        fs::remove_file(path).unwrap();
    });
}
