//! The harness tests itself, by an LMTP client that shares nothing with ours: what it shows is Dovecot's behaviour.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::common::mailbox::assert_same;
use crate::common::process::{is_running, wait_for};
use crate::dovecot::Dovecot;

const MESSAGE: &str = "Subject: harness\r\n\r\n.leading dot\r\n..two\r\n\r\nend\r\n";
const ADDED: [&str; 3] = ["Return-Path", "Delivered-To", "Received"];

/// Any stream: one command, one reply.
struct Client<S> {
    stream: BufReader<S>,
}

impl<S: std::io::Read + Write> Client<S> {
    fn new(stream: S) -> Self {
        let mut client = Self { stream: BufReader::new(stream) };
        assert!(client.reply().starts_with("220 "));
        client.says("LHLO client.example.org", "250");
        client
    }

    /// The last line of a reply.
    fn reply(&mut self) -> String {
        for _ in 0..100 {
            let mut line = String::new();
            assert_ne!(self.stream.read_line(&mut line).unwrap(), 0, "Dovecot closed the connection");
            if line.as_bytes().get(3) == Some(&b' ') {
                return line.trim_end().to_owned();
            }
        }
        panic!("a reply that does not end");
    }

    #[track_caller]
    fn says(&mut self, command: &str, reply: &str) {
        write!(self.stream.get_mut(), "{command}\r\n").unwrap();
        let got = self.reply();
        assert!(got.starts_with(reply), "{command}: {got}");
    }
}

/// One message to three mailboxes: stored, refused at RCPT, refused after the end of data.
fn deliver(stream: impl std::io::Read + Write) {
    let mut client = Client::new(stream);
    client.says("MAIL FROM:<sender@example.org>", "250 2.1.0 ");
    client.says("RCPT TO:<alice@example.org>", "250 2.1.5 ");
    client.says("RCPT TO:<nosuch@example.org>", "550 5.1.1 <nosuch@example.org> ");
    client.says("RCPT TO:<full@example.org>", "250 2.1.5 ");
    client.says("DATA", "354 ");
    let stuffed = MESSAGE.replace("\r\n.", "\r\n..");
    client.says(&format!("{stuffed}."), "250 2.0.0 <alice@example.org> ");
    assert!(client.reply().starts_with("552 5.2.2 <full@example.org> "));
    client.says("QUIT", "221 ");
}

#[test]
fn dovecot_stores_refuses_and_counts_over_both_sockets() {
    let dovecot = Dovecot::start();
    let unix = UnixStream::connect(dovecot.socket()).unwrap();
    unix.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    deliver(unix);
    let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, dovecot.port())).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    deliver(tcp);
    let stored = dovecot.mailbox("alice");
    assert_eq!(stored.len(), 2, "{}", dovecot.log());
    for message in stored {
        assert_same(&message, MESSAGE.as_bytes(), &ADDED);
    }
    assert!(dovecot.mailbox("full").is_empty());
}

#[test]
fn dovecot_comes_back_on_the_same_sockets() {
    let mut dovecot = Dovecot::start();
    let port = dovecot.port();
    dovecot.stop();
    dovecot.start_again();
    assert_eq!(dovecot.port(), port);
    deliver(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
}

#[test]
fn dovecot_ends_with_a_test_that_fails() {
    let (pid_out, pid) = std::sync::mpsc::channel();
    let failing = std::thread::spawn(move || {
        let dovecot = Dovecot::start();
        pid_out.send(dovecot.pid()).unwrap();
        panic!("as a test does");
    });
    assert!(failing.join().is_err());
    let pid = pid.recv().unwrap();
    wait_for("Dovecot's end", Duration::from_secs(10), || (!is_running(pid)).then_some(()));
}

#[test]
fn dovecot_ends_with_a_thread_that_runs_no_destructor() {
    let (out, started) = std::sync::mpsc::channel();
    let leaking = std::thread::spawn(move || {
        let dovecot = Dovecot::start();
        out.send((dovecot.pid(), dovecot.path().to_owned())).unwrap();
        // As when the test is killed.
        std::mem::forget(dovecot);
    });
    leaking.join().unwrap();
    let (pid, directory) = started.recv().unwrap();
    // Nobody waits for it then: what is left of it is a zombie of ours, its sockets closed.
    wait_for("Dovecot's end", Duration::from_secs(20), || {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        status.map_or(true, |status| status.contains(") Z ")).then_some(())
    });
    std::fs::remove_dir_all(directory).unwrap();
}
