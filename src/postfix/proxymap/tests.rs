//! The client against servers in threads: both forms of requests, and servers that misbehave.
//!
//! - Owns: a small proxymap server that is strict about the form it knows.
//! - Leaves to others: the real proxymap(8) (`tests/peers`).
//! - Always true: no request may hang: each has a deadline, long or short.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);
/// What the server returns for a table that it has opened.
const OPENED: i32 = 92;

/// How a server answers.
#[derive(Clone, Copy)]
struct Manner {
    new_form: bool,
    announces: bool,
    /// Requests after which a connection is closed.
    requests: usize,
}

const OLD: Manner = Manner { new_form: false, announces: true, requests: usize::MAX };
const OLDEST: Manner = Manner { announces: false, ..OLD };
const NEW: Manner = Manner { new_form: true, ..OLD };

/// A server with one table, `hash:/t`, in which `key` has `value`.
struct Server {
    directory: tempfile::TempDir,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(manner: Manner) -> Self {
        Self::with(move |stream| serve(stream, manner))
    }

    /// Each connection is handed to `serve`, one after the other.
    fn with(serve: impl Fn(UnixStream) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("proxymap")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                serve(stream.unwrap());
            }
        });
        Self { directory, connections }
    }

    fn client(&self, new_form: bool, timeout: Duration) -> Proxymap {
        Proxymap::new(self.directory.path().join("proxymap"), new_form, timeout)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves one connection.
fn serve(mut stream: UnixStream, manner: Manner) {
    if manner.announces {
        stream.write_all(&Writer::new().text("protocol", "proxymap_protocol").end()).unwrap();
    }
    for _ in 0..manner.requests {
        let Some(request) = read_list(&mut stream) else { return };
        let reply = reply_to(&request, manner.new_form);
        let is_malformed = reply == Writer::new().int("status", 3).end();
        stream.write_all(&reply).unwrap();
        if is_malformed {
            // The rest of the request poisons the stream: nothing sensible comes any more.
            read_list(&mut stream);
            return;
        }
    }
}

fn read_list(stream: &mut UnixStream) -> Option<List> {
    let (mut octets, mut some) = (Vec::new(), [0; 1]);
    loop {
        if let Some((list, _)) = List::parse(&octets).unwrap() {
            return Some(list);
        }
        if stream.read(&mut some).ok()? == 0 {
            return None;
        }
        octets.push(some[0]);
    }
}

/// What a server says that wants its attributes in order.
fn reply_to(request: &List, new_form: bool) -> Vec<u8> {
    let names: Vec<_> = request.names().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let word = request.text("request").unwrap();
    let expected: &[&str] = match (word.as_str(), new_form) {
        ("open", false) => &["request", "table", "flags"],
        ("open", true) => &["request", "table", "instance_flags"],
        ("lookup", false) => &["request", "table", "flags", "key"],
        _ => &["request", "table", "instance_flags", "flags", "key"],
    };
    let status = match request.text("table").unwrap().as_str() {
        _ if names != expected => 3,
        "hash:/t" => 0,
        "hash:/broken" => 5,
        "hash:/slow" => 2,
        _ => 4,
    };
    if status == 3 {
        return Writer::new().int("status", 3).end();
    }
    let instance = request.int(if new_form { "instance_flags" } else { "flags" }).unwrap();
    if word == "open" {
        let flags = if status == 0 { OPENED | instance } else { 0 };
        return Writer::new().int("status", status).int("flags", flags).end();
    }
    // The flags that opening returned must come back.
    assert!(!new_form || request.int("flags") == Ok(OPENED | instance));
    let key = request.text("key").unwrap();
    let key = if instance & FOLD == 0 { key } else { key.to_lowercase() };
    let status = if status == 0 && key != "key" { 1 } else { status };
    let reply = Writer::new().int("status", status);
    let reply = if new_form { reply.int("flags", OPENED) } else { reply };
    reply.text("value", if status == 0 { "value" } else { "" }).end()
}

#[test]
fn a_key_is_looked_up_in_either_form() {
    for (manner, new_form) in [(OLDEST, false), (OLD, false), (NEW, true)] {
        let server = Server::start(manner);
        let client = server.client(new_form, LONG);
        client.open("hash:/t", Case::Kept).unwrap();
        for (key, case, value) in [
            ("key", Case::Kept, Some("value")),
            ("other", Case::Kept, None),
            ("Key", Case::Kept, None),
            ("Key", Case::Folded, Some("value")),
            ("a\0key", Case::Kept, None),
        ] {
            let found = client.look_up("hash:/t", case, key.as_bytes()).unwrap();
            assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key:?} {case:?}");
        }
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn the_other_form_is_used_over_a_new_connection_if_the_first_is_malformed() {
    for manner in [OLD, NEW] {
        for start_with_open in [true, false] {
            let server = Server::start(manner);
            let client = server.client(!manner.new_form, LONG);
            if start_with_open {
                client.open("hash:/t", Case::Kept).unwrap();
            }
            for _ in 0..3 {
                let found = client.look_up("hash:/t", Case::Kept, b"key").unwrap();
                assert_eq!(found.as_deref(), Some(&b"value"[..]));
            }
            assert_eq!(server.connections(), 2);
        }
    }
}

#[test]
fn each_status_has_its_meaning() {
    for manner in [OLD, NEW] {
        let server = Server::start(manner);
        let client = server.client(manner.new_form, LONG);
        let lookup = |table| client.look_up(table, Case::Kept, b"key").unwrap_err();
        assert!(matches!(lookup("hash:/none"), ProxymapError::NotApproved));
        assert!(matches!(lookup("hash:/broken"), ProxymapError::Unusable));
        assert!(matches!(lookup("hash:/slow"), ProxymapError::TryAgain));
        assert!(matches!(client.open("hash:/none", Case::Kept), Err(ProxymapError::NotApproved)));
        assert_eq!(server.connections(), 1);
    }
    // A server that calls both forms malformed.
    let server = Server::with(|mut stream| {
        read_list(&mut stream);
        stream.write_all(&Writer::new().int("status", 3).end()).unwrap();
    });
    let told = server.client(false, LONG).look_up("hash:/t", Case::Kept, b"key").unwrap_err();
    assert!(matches!(told, ProxymapError::Malformed));
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_connection_that_the_server_closed_is_made_anew() {
    for manner in [OLD, NEW] {
        let server = Server::start(Manner { requests: 2, ..manner });
        let client = server.client(manner.new_form, LONG);
        for _ in 0..4 {
            assert!(client.look_up("hash:/t", Case::Kept, b"key").unwrap().is_some());
        }
        assert!(server.connections() >= 2, "{}", server.connections());
    }
}

#[test]
fn a_new_connection_that_breaks_is_not_tried_again() {
    let server = Server::with(drop);
    let told = server.client(false, LONG).look_up("hash:/t", Case::Kept, b"key").unwrap_err();
    assert!(matches!(told, ProxymapError::Unreachable { .. }), "{told}");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_server_that_is_not_there_is_told_with_its_path() {
    let told = Proxymap::new("/nonexistent/proxymap", false, LONG).open("hash:/t", Case::Kept).unwrap_err();
    assert!(told.to_string().starts_with("proxymap(8) at /nonexistent/proxymap does not answer: "), "{told}");
}

#[test]
fn a_silent_server_has_a_deadline_however_it_drips() {
    let silent = Server::with(|mut stream| while read_list(&mut stream).is_some() {});
    let dripping = Server::with(|mut stream| {
        while stream.write_all(b"protocol\0").is_ok() {
            thread::sleep(SHORT / 20);
        }
    });
    for server in [silent, dripping] {
        let before = Instant::now();
        let told = server.client(false, SHORT).look_up("hash:/t", Case::Kept, b"key").unwrap_err();
        assert!(told.to_string().ends_with("timed out"), "{told}");
        assert!(before.elapsed() < LONG);
    }
}

#[test]
fn nonsense_is_no_answer() {
    let reply = |octets: &'static [u8]| {
        let server = Server::with(move |mut stream| {
            read_list(&mut stream);
            // The client may have closed already.
            let _ = stream.write_all(octets);
            read_list(&mut stream);
        });
        let told = server.client(false, LONG).look_up("hash:/t", Case::Kept, b"key").unwrap_err();
        assert!(matches!(told, ProxymapError::BadReply(_)), "{told}");
    };
    reply(b"status\0x\0\0");
    reply(b"status\x007\0\0");
    reply(b"status\x000\0\0");
    reply(b"something\0else\0\0");
    reply(b"status\x001\0value\0\0\0status\x001\0\0");
}

#[test]
fn many_threads_ask_at_once() {
    let (directory, connections) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
    let listener = UnixListener::bind(directory.path().join("proxymap")).unwrap();
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || serve(stream.unwrap(), NEW));
        }
    });
    let client = Proxymap::new(directory.path().join("proxymap"), true, LONG);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let found = client.look_up("hash:/t", Case::Folded, b"KEY").unwrap();
                    assert_eq!(found.as_deref(), Some(&b"value"[..]));
                }
            });
        }
    });
    assert!(client.kept.lock().unwrap().len() <= KEPT_MAX);
    assert!(connections.load(Ordering::SeqCst) < 400);
}
