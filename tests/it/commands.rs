//! Commands as a newcomer runs them: demo, check, sink, and wrong words.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::agent::{SOON, Site};
use crate::common::process::{Process, wait_for};

/// What the demonstration promises.
const DEMO_LIMIT: Duration = Duration::from_secs(15);

fn text(output: &Output) -> (String, String) {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_demonstration_shows_everything_and_leaves_nothing() {
    let site = Site::new("");
    let mut command = site.command(&["demo"]);
    command.env("TMPDIR", site.path());
    let before = std::fs::read_dir(site.path()).unwrap().count();
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (shown, complaints) = text(&output);
    assert!(output.status.success(), "{complaints}\n{shown}");
    assert!(started.elapsed() < DEMO_LIMIT, "{:?}", started.elapsed());
    for words in [
        "{\"queue_file\":\"incoming/demo-1\"",
        "to=<alice@example.org>",
        "to=<carol@example.org>",
        "status=bounced (host mail.example.org",
        "sender non-delivery notification",
        "Diagnostic-Code: smtp; 550 5.1.1",
        "status=deferred (host mail.example.org",
        "dora@example.org has it",
        "The agent ended with exit status: 0",
    ] {
        assert!(shown.contains(words), "{words:?} is missing in:\n{shown}");
    }
    assert_eq!(std::fs::read_dir(site.path()).unwrap().count(), before, "its directory is still there");
}

#[test]
fn check_tells_values_and_what_is_not_ready() {
    let site = Site::new("");
    let missing = site.path().join("nobody.sock");
    site.configure(&format!("default_transport = \"lmtp:unix:{}\"", missing.display()));
    let (values, warnings) = text(&site.run(&["check"], b""));
    let line = values.lines().find(|line| line.starts_with("default_transport")).unwrap_or_default();
    assert!(line.contains("lastmile.toml"), "the source is missing: {line}");
    assert!(
        warnings.contains("bounces would go to") && warnings.contains("No such file or directory"),
        "{warnings}"
    );

    let probed = site.run(&["check", "--probe"], b"");
    assert_eq!(probed.status.code(), Some(69), "{:?}", text(&probed));
    assert!(text(&probed).1.contains("not ready for mail: connect to"), "{}", text(&probed).1);

    site.configure("workerz = 3");
    let wrong = site.run(&["check"], b"");
    assert_eq!(wrong.status.code(), Some(78));
    assert!(text(&wrong).1.contains("did you mean workers?"), "{}", text(&wrong).1);
}

#[test]
fn check_finds_a_server_that_is_ready() {
    let site = Site::new("");
    let socket = site.path().join("ready.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 ready\r\n").unwrap();
        let mut heard = Vec::new();
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            stream.write_all(b"250 ok\r\n").unwrap();
            heard.push(line);
        }
        heard
    });
    site.configure(&format!("default_transport = \"lmtp:unix:{}\"", socket.display()));
    let probed = site.run(&["check", "--probe"], b"");
    assert!(probed.status.success(), "{:?}", text(&probed));
    assert!(text(&probed).0.contains("is ready for mail"), "{}", text(&probed).0);
    let heard = server.join().unwrap();
    assert!(heard[0].starts_with("LHLO ") && heard[1] == "QUIT" && heard.len() == 2, "{heard:?}");
}

#[test]
fn the_sink_listens_until_it_is_told_to_stop_and_counts() {
    let site = Site::new("");
    let socket = site.path().join("sink.sock");
    let listen = format!("unix:{}", socket.display());
    let mut command = site.command(&["sink", "--lmtp", "--listen", &listen, "--discard"]);
    let counts = site.path().join("counts");
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&counts).unwrap());
    let mut sink = Process::start("the sink", &mut command);
    let mut stream = wait_for("the sink's socket", SOON, || UnixStream::connect(&socket).ok());
    stream.write_all(b"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n").unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    assert!(replies.any(|reply| reply.starts_with("354")));
    stream.write_all(b"hello\r\n.\r\nQUIT\r\n").unwrap();
    assert!(replies.next().is_some_and(|reply| reply.starts_with("250")));
    sink.signal(Signal::TERM);
    assert!(sink.wait(SOON).success());
    let counts = std::fs::read_to_string(counts).unwrap();
    assert!(
        counts.starts_with("listening on unix:") && counts.contains("messages=1 deliveries=1"),
        "{counts}"
    );
}

#[test]
fn wrong_words_are_a_matter_of_usage() {
    let site = Site::new("");
    for words in [&["frobnicate"][..], &["agent", "--no-such-option"], &["queue", "show"], &[]] {
        let output = site.run(words, b"");
        assert_eq!(output.status.code(), Some(64), "{words:?}: {:?}", text(&output));
        assert!(text(&output).1.contains("Usage:"), "{words:?}");
    }
    for words in [&["--help"][..], &["--version"], &["agent", "--help"]] {
        assert!(site.run(words, b"").status.success(), "{words:?}");
    }
}
