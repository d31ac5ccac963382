//! The server over real sockets: what is written, and what comes back.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use std::sync::Arc;

use proptest::prelude::*;
use socket2::{Domain, Socket, Type};

use super::server::Shared;
use super::session::serve;
use super::{Counts, Extension, Handle, Listen, Script, Sink, SinkConfig, Store};
use crate::mail::Protocol;

mod auth;
mod tls;

/// A server on a UNIX socket, with its directory.
struct Running {
    handle: Handle,
    directory: tempfile::TempDir,
}

fn start(script: &str, change: impl FnOnce(&mut SinkConfig)) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let mut config = SinkConfig::new(Listen::Unix(directory.path().join("lmtp")));
    config.store = Store::Maildir(directory.path().join("mail"));
    config.script = Script::parse(script).unwrap();
    config.timeout = Duration::from_secs(5);
    change(&mut config);
    Running { handle: Sink::start(config).unwrap(), directory }
}

impl Running {
    fn connect(&self) -> UnixStream {
        let Listen::Unix(path) = &self.handle.addresses()[0] else { panic!("a UNIX socket") };
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Writes everything at once, then reads until the server closes.
    fn talk(&self, said: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(said.as_bytes()).unwrap();
        read_all(stream)
    }

    fn mail_of(&self, recipient: &str) -> Vec<String> {
        messages(&self.directory.path().join("mail").join(recipient).join("new"))
    }
}

fn read_all(mut stream: impl Read) -> String {
    let mut heard = Vec::new();
    if let Err(error) = stream.read_to_end(&mut heard) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {heard:?}");
    }
    String::from_utf8_lossy(&heard).replace("\r\n", "\n")
}

fn messages(new: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(new) else { return Vec::new() };
    entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

/// The codes of the replies, one a reply.
fn codes(heard: &str) -> Vec<&str> {
    heard.lines().filter(|line| line.as_bytes().get(3) != Some(&b'-')).map(|line| &line[..3]).collect()
}

const HELLO: &str = "LHLO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\n";
const DATA: &str = "DATA\r\nSubject: hi\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
const BDAT: &str = "BDAT 15\r\nSubject: hi\r\n\r\nBDAT 6 LAST\r\n.dot\r\nQUIT\r\n";
const STORED: &str = "Subject: hi\r\n\r\n.dot\r\n";

#[test]
fn a_message_reaches_each_recipient_by_data_and_by_bdat() {
    for content in [DATA, BDAT] {
        let running = start("", |_| {});
        let heard = running.talk(&format!("{HELLO}{content}"));
        assert!(heard.contains("250 2.0.0 <a@x> stored\n250 2.0.0 <b@x> stored\n221 2.0.0 bye\n"), "{heard}");
        assert_eq!(running.mail_of("a@x"), [STORED]);
        assert_eq!(running.mail_of("b@x"), [STORED]);
        assert_eq!(messages(&running.directory.path().join("mail/a@x/tmp")), Vec::<String>::new());
        let (messages, deliveries, bytes) = (1, 2, STORED.len() as u64);
        let counts = Counts {
            connections: 1,
            transactions: 1,
            recipients: 2,
            messages,
            deliveries,
            bytes,
            ..Counts::default()
        };
        assert_eq!(running.handle.stop(), counts);
    }
}

#[test]
fn a_whole_conversation_in_esmtp() {
    let running = start("", |config| config.protocol = Protocol::Smtp);
    let said = "EHLO c\r\nMAIL FROM:<> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x SMTPUTF8\r\n\
                RCPT TO:<\u{e9}@x> NOTIFY=NEVER\r\nRCPT TO:<b@x>\r\n";
    assert_eq!(
        running.talk(&format!("{said}{DATA}")),
        "220 sink.example ESMTP sink\n\
         250-sink.example\n250-PIPELINING\n250-CHUNKING\n250-8BITMIME\n250-SIZE 52428800\n\
         250-ENHANCEDSTATUSCODES\n250-DSN\n250-SMTPUTF8\n250 LIMITS RCPTMAX=1000\n\
         250 2.1.0 ok\n250 2.1.5 ok\n250 2.1.5 ok\n354 end it with a dot\n250 2.0.0 stored\n221 2.0.0 bye\n"
    );
    assert_eq!(running.mail_of("%C3%A9@x"), [STORED]);
    let helo = running.talk("HELO c\r\nMAIL FROM:<s@x>\r\nLHLO c\r\nQUIT\r\n");
    assert_eq!(codes(&helo), ["220", "250", "250", "500", "221"]);
    assert!(helo.contains("\n250 ok\n"), "no enhanced status after HELO: {helo}");
}

#[test]
fn what_is_switched_off_is_refused() {
    for (extension, said, code) in [
        (Extension::Chunking, "BDAT 0 LAST\r\n", "500"),
        (Extension::Size, "MAIL FROM:<s@x> SIZE=1\r\n", "555"),
        (Extension::EightBitMime, "MAIL FROM:<s@x> BODY=8BITMIME\r\n", "555"),
        (Extension::Dsn, "MAIL FROM:<s@x> RET=FULL\r\n", "555"),
        (Extension::SmtpUtf8, "MAIL FROM:<s@x> SMTPUTF8\r\n", "555"),
        (Extension::Pipelining, "MAIL FROM:<s@x>\r\nRCPT TO:<a@x>\r\n", "503"),
    ] {
        let running = start("", |config| config.without = vec![extension]);
        let mut stream = running.connect();
        stream.write_all(b"LHLO c\r\n").unwrap();
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains("250 ") {
            let mut piece = [0; 1000];
            let length = stream.read(&mut piece).unwrap();
            heard.extend_from_slice(&piece[..length]);
        }
        assert!(!String::from_utf8_lossy(&heard).contains(extension.keyword()));
        stream.write_all(said.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(codes(&read_all(stream)), [code], "{extension}");
    }
}

#[test]
fn commands_out_of_order_are_refused_and_change_nothing() {
    let over = "9".repeat(9000);
    for (said, expected) in [
        ("MAIL FROM:<a@x>\r\n", &["503"][..]),
        ("LHLO\r\n", &["501"]),
        ("EHLO c\r\n", &["500"]),
        (
            "LHLO c\r\nRCPT TO:<a@x>\r\nDATA\r\nBDAT 3 LAST\r\nabcNOOP\r\n",
            &["250", "503", "503", "503", "250"],
        ),
        (
            "LHLO c\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\nRSET\r\nMAIL FROM:<a@x>\r\n",
            &["250", "250", "503", "250", "250"],
        ),
        ("LHLO c\r\nMAIL FROM:<a@x>\r\nDATA\r\nBDAT 2 LAST\r\nxx", &["250", "250", "503", "503"]),
        (
            "LHLO c\r\nMAIL FROM:a@x\r\nMAIL FROM:<a@>\r\nMAIL FROM:<\u{e9}@x>\r\n",
            &["250", "501", "501", "553"],
        ),
        ("LHLO c\r\nMAIL FROM:<a@x> SIZE=x\r\nMAIL FROM:<a@x> SIZE=999999999\r\n", &["250", "501", "552"]),
        (
            "LHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<a@x> NOTIFY=NOW\r\nRCPT TO:<a@x> X=1\r\n",
            &["250", "250", "501", "555"],
        ),
        (
            "LHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<a@x>\r\nBDAT 1\r\nxDATA\r\n",
            &["250", "250", "250", "250", "503"],
        ),
        ("BDAT x\r\n", &["501"]),
        ("\r\nVRFY x\r\n\u{1}\0\r\n", &["500", "252", "500"]),
        (&over, &[]),
        (&format!("{over}\r\nNOOP\r\n"), &["500", "250"]),
    ] {
        let running = start("", |_| {});
        let mut stream = running.connect();
        stream.write_all(said.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let heard = read_all(stream);
        assert_eq!(codes(&heard)[1..], *expected, "{said:.80}\n{heard}");
    }
}

#[test]
fn limits_are_kept() {
    let running = start("", |config| {
        config.recipient_limit = 1;
        config.transaction_limit = Some(1);
        config.message_size_limit = 10;
    });
    let heard = running.talk(&format!("{HELLO}DATA\r\n0123456789\r\n.\r\nMAIL FROM:<s@x>\r\n"));
    assert!(heard.contains("250 LIMITS RCPTMAX=1 MAILMAX=1\n"));
    assert_eq!(codes(&heard), ["220", "250", "250", "250", "452", "354", "552", "421"]);
    assert_eq!(running.mail_of("a@x"), Vec::<String>::new());
    let chunks = running.talk(&format!("{HELLO}BDAT 11\r\n0123456789aBDAT 1 LAST\r\nbQUIT\r\n"));
    assert_eq!(codes(&chunks)[5..], ["552", "503", "221"]);
}

#[test]
fn too_many_connections_are_turned_away() {
    let running = start("", |config| config.connection_limit = 1);
    let mut first = running.connect();
    let mut octet = [0];
    first.read_exact(&mut octet).unwrap();
    assert_eq!(read_all(running.connect()), "421 4.3.2 too many connections\n");
    drop(first);
    let freed = Instant::now();
    while read_all_of_a_quit(&running) != ["220", "221"] {
        assert!(freed.elapsed() < Duration::from_secs(5), "the place is not given free");
    }
}

fn read_all_of_a_quit(running: &Running) -> Vec<String> {
    let mut stream = running.connect();
    // One that is turned away may be closed already.
    let _ = stream.write_all(b"QUIT\r\n");
    codes(&read_all(stream)).into_iter().map(str::to_owned).collect()
}

#[test]
fn rules_change_replies() {
    for (script, said, expected) in [
        ("greeting 421 4.3.2 closing", "", "421"),
        ("lhlo 502 no", HELLO, "220 502 503 503 503 221"),
        ("rcpt a@* 550 5.1.1 no such user", HELLO, "220 250 250 550 250 221"),
        ("rcpt * times 1 450 4.2.0 busy", HELLO, "220 250 250 450 250 221"),
        ("mail 550 no", HELLO, "220 250 550 503 503 221"),
        ("mail <> 550 no", HELLO, "220 250 250 250 250 221"),
        ("mail twice", HELLO, "220 250 250 250 250 250 221"),
        ("mail silence", HELLO, "220 250 250 250 221"),
        ("rcpt a@x close-after", HELLO, "220 250 250 250"),
        ("rcpt b@x 421 4.3.2 down", HELLO, "220 250 250 250 421"),
        ("quit drip 3/1ms", HELLO, "220 250 250 250 250 221"),
    ] {
        let running = start(script, |_| {});
        let heard = running.talk(&if said.is_empty() { String::new() } else { format!("{said}QUIT\r\n") });
        assert_eq!(codes(&heard).join(" "), expected, "{script}\n{heard}");
    }
}

#[test]
fn rules_break_conversations() {
    let prefix = "250 2.1.0 ok\n";
    for (script, ending) in [
        ("rcpt close", prefix.to_owned()),
        ("rcpt garbage oops", format!("{prefix}oops\noops\n221 2.0.0 bye\n")),
        ("rcpt close-after partial 25", format!("{prefix}25")),
        ("rcpt a@x 250 x\\ny", format!("{prefix}250-x\n250 y\n250 2.1.5 ok\n221 2.0.0 bye\n")),
        ("rcpt hold", format!("{prefix}250 2.1.5 ok\n250 2.1.5 ok\n221 2.0.0 bye\n")),
        ("rcpt hold\nquit close", format!("{prefix}250 2.1.5 ok\n250 2.1.5 ok\n")),
    ] {
        let heard = start(script, |_| {}).talk(&format!("{HELLO}QUIT\r\n"));
        assert!(heard.ends_with(&ending), "{script}\n{heard}");
    }
}

#[test]
fn rules_at_the_end_of_the_content_speak_for_one_recipient() {
    for content in [DATA, BDAT] {
        for (script, ending, stored) in [
            (
                "data-done a@* 552 5.2.2 full",
                "552 5.2.2 full\n250 2.0.0 <b@x> stored\n221 2.0.0 bye\n",
                (0, 1),
            ),
            (
                "data-done b@* 451 4.2.0 busy",
                "250 2.0.0 <a@x> stored\n451 4.2.0 busy\n221 2.0.0 bye\n",
                (1, 0),
            ),
            (
                "data-done a@* swallow",
                "250 2.0.0 <a@x> stored\n250 2.0.0 <b@x> stored\n221 2.0.0 bye\n",
                (0, 1),
            ),
            ("data-done b@* close", "250 2.0.0 <a@x> stored\n", (1, 1)),
            ("data-done b@* swallow close", "250 2.0.0 <a@x> stored\n", (1, 0)),
            ("content 552 5.3.4 big", "552 5.3.4 big\n552 5.3.4 big\n221 2.0.0 bye\n", (0, 0)),
            ("content close", "250 2.1.5 ok\n", (0, 0)),
            ("mail hold", "250 2.0.0 <a@x> stored\n250 2.0.0 <b@x> stored\n221 2.0.0 bye\n", (1, 1)),
        ] {
            let running = start(script, |_| {});
            let heard = running.talk(&format!("{HELLO}{content}"));
            let heard =
                heard.replace("354 end it with a dot\n", "").replace("250 2.0.0 15 octets received\n", "");
            assert!(heard.ends_with(ending), "{script}\n{heard}");
            assert_eq!((running.mail_of("a@x").len(), running.mail_of("b@x").len()), stored, "{script}");
        }
    }
}

#[test]
fn a_refused_bdat_keeps_the_replies_in_step() {
    let running = start("data 451 4.3.0 no", |_| {});
    let last = running.talk(&format!("{HELLO}BDAT 2 LAST\r\nxxQUIT\r\n"));
    assert_eq!(codes(&last)[5..], ["451", "451", "221"]);
    let two = running.talk(&format!("{HELLO}BDAT 2\r\nxxBDAT 1 LAST\r\nxQUIT\r\n"));
    assert_eq!(codes(&two)[5..], ["451", "503", "221"]);
    assert_eq!(codes(&running.talk(&format!("{HELLO}DATA\r\nQUIT\r\n")))[5..], ["451", "221"]);
}

#[test]
fn tcp_serves_too_and_can_be_reset() {
    let running = start("mail reset", |config| config.listen = vec!["inet:127.0.0.1:0".parse().unwrap()]);
    let Listen::Tcp(address) = running.handle.addresses()[0].clone() else { panic!("TCP") };
    assert_ne!(address.port(), 0);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"LHLO c\r\nMAIL FROM:<>\r\n").unwrap();
    let mut heard = Vec::new();
    assert_eq!(stream.read_to_end(&mut heard).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_silent_client_is_told_and_left() {
    let running = start("", |config| config.timeout = Duration::from_millis(50));
    assert_eq!(codes(&running.talk("LHLO c\r\nMAIL")), ["220", "250", "421"]);
}

#[test]
fn a_delay_holds_up_its_own_connection_and_not_the_stop() {
    let running = start("mail slow@* delay 1h", |_| {});
    let mut slow = running.connect();
    slow.write_all(b"LHLO c\r\nMAIL FROM:<slow@x>\r\n").unwrap();
    assert_eq!(codes(&running.talk(&format!("{HELLO}{DATA}"))).len(), 9);
    let began = Instant::now();
    let Running { handle, directory } = running;
    assert_eq!(handle.stop().connections, 2);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(codes(&read_all(slow)), ["220", "250"]);
    assert!(!directory.path().join("lmtp").exists(), "the socket is removed");
}

#[test]
fn many_connections_at_once_lose_nothing() {
    let running = start("", |_| {});
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let transaction = "MAIL FROM:<s@x>\r\nRCPT TO:<a@x>\r\nBDAT 3 LAST\r\nx\r\n".repeat(20);
                let heard = running.talk(&format!("LHLO c\r\n{transaction}QUIT\r\n"));
                assert_eq!(heard.matches("stored").count(), 20, "{heard}");
            });
        }
    });
    assert_eq!(running.mail_of("a@x").len(), 400);
    assert_eq!(running.handle.counts().messages, 400);
}

#[test]
fn a_large_message_streams_through() {
    let running = start("", |_| {});
    let line = "x".repeat(76) + "\r\n";
    let body = line.repeat(20_000);
    let heard = running.talk(&format!("{HELLO}DATA\r\n{body}.\r\nQUIT\r\n"));
    assert_eq!(heard.matches("stored").count(), 2);
    assert_eq!(running.mail_of("b@x"), [body]);
}

#[test]
fn two_servers_do_not_share_an_address() {
    let running = start("", |_| {});
    let taken = SinkConfig::new(running.handle.addresses()[0].clone());
    let error = Sink::start(taken).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on unix:"), "{error}");
}

/// Serves `said` in this thread, so that a panic fails the test; what comes back.
fn serve_here(config: SinkConfig, said: &[u8]) -> (Counts, String) {
    let shared = Shared::new(config).unwrap();
    let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    (&near).write_all(said).unwrap();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    let far = Arc::new(far);
    serve(&shared, Arc::clone(&far));
    drop(far);
    (shared.counters.read(), read_all(near))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_input_is_answered_with_replies(
        pieces in prop::collection::vec(prop_oneof![
            Just(b"LHLO c\r\n".to_vec()),
            Just(b"MAIL FROM:<a@x>\r\n".to_vec()),
            Just(b"RCPT TO:<b@x>\r\n".to_vec()),
            Just(b"DATA\r\n".to_vec()),
            Just(b".\r\n".to_vec()),
            Just(b"BDAT 5\r\n".to_vec()),
            Just(b"BDAT 3 LAST\r\n".to_vec()),
            Just(b"RSET\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..20),
        ], 0..30),
        script in prop::sample::select(vec![
            "", "data 451 no", "content 552 no", "rcpt twice", "mail hold", "rcpt partial 2",
            "data-done swallow silence",
        ]),
    ) {
        let mut config = SinkConfig::new("unix:/unused".parse().unwrap());
        config.script = Script::parse(script).unwrap();
        let (counts, heard) = serve_here(config, &pieces.concat());
        let is_reply = |line: &str| line.len() >= 4 && line.as_bytes()[..3].iter().all(u8::is_ascii_digit);
        prop_assert!(heard.lines().all(is_reply) || script.contains("partial"), "{heard}");
        prop_assert!(counts.deliveries <= counts.recipients);
        prop_assert!(counts.messages <= counts.transactions);
    }
}

#[test]
fn without_pipelining_nothing_may_follow_a_command() {
    let mut config = SinkConfig::new("unix:/unused".parse().unwrap());
    config.without = vec![Extension::Pipelining];
    let (_, heard) = serve_here(config, b"LHLO c\r\nMAIL FROM:<>\r\n");
    assert_eq!(codes(&heard), ["220", "503"]);
}
