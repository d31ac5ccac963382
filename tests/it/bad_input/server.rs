//! A server that keeps what it got as it came over the wire.
//!
//! - Owns: LMTP without extensions, one command at a time; refusals by the recipient's name.
//! - Leaves to others: servers that misbehave (our sink), Maildirs.
//! - Always true: what is kept is octets, so that a comparison finds any difference.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::agent::{SOON, Site};
use crate::common::process::look_for;

/// One message, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Between the brackets of MAIL FROM.
    pub sender: String,
    /// The recipients that were accepted.
    pub recipients: Vec<String>,
    /// The content, without dots for transparency.
    pub content: Vec<u8>,
}

/// The server.
pub struct Server {
    socket: PathBuf,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Starts to listen; each connection has a thread, which ends with its client.
    pub fn start(site: &Site) -> Self {
        let socket = site.path().join("server.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let for_thread = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let received = Arc::clone(&for_thread);
                thread::spawn(move || serve(&stream, &received));
            }
        });
        Self { socket, received }
    }

    /// The configuration that leads all mail here.
    pub fn as_default(&self) -> String {
        format!("default_transport = \"lmtp:unix:{}\"\n", self.socket.display())
    }

    /// Messages so far.
    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// What came for a recipient.
    pub fn mail_of(&self, recipient: &str) -> Vec<Received> {
        let is_for = |received: &Received| received.recipients.iter().any(|to| to == recipient);
        self.all().into_iter().filter(is_for).collect()
    }

    /// The same, once there are `count`.
    #[track_caller]
    pub fn wait_for_mail_of(&self, site: &Site, recipient: &str, count: usize) -> Vec<Received> {
        let look = || Some(self.mail_of(recipient)).filter(|mail| mail.len() >= count);
        match look_for(SOON, look) {
            Some(mail) => mail,
            None => panic!("no mail for {recipient}; there is {:?}\n{}", site.files(), site.log()),
        }
    }
}

/// Who begins with "no" is refused, with "later" told to come again.
fn reply_to(recipient: &str) -> &'static str {
    match recipient {
        name if name.starts_with("no") => "550 5.1.1 no such mailbox",
        name if name.starts_with("later") => "450 4.2.1 mailbox busy",
        _ => "250 2.1.5 ok",
    }
}

/// Ends when the client's end does.
fn serve(stream: &UnixStream, all: &Mutex<Vec<Received>>) {
    let mut reader = BufReader::new(stream);
    let say = |text: &str| {
        let mut stream = stream;
        // A client that has gone is found out by the next line.
        let _ = stream.write_all(format!("{text}\r\n").as_bytes());
    };
    let mut current = Received { sender: String::new(), recipients: Vec::new(), content: Vec::new() };
    say("220 keeps.example.org");
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line) {
        let command = String::from_utf8_lossy(&line).trim_end().to_owned();
        match command.get(..4).unwrap_or_default() {
            "LHLO" => say("250-keeps.example.org\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 HELP"),
            "MAIL" => {
                current = Received { sender: path(&command), recipients: Vec::new(), content: Vec::new() };
                say("250 2.1.0 ok");
            }
            "RCPT" => {
                let (to, reply) = (path(&command), reply_to(&path(&command)));
                if reply.starts_with('2') {
                    current.recipients.push(to);
                }
                say(reply);
            }
            "DATA" if current.recipients.is_empty() => say("554 5.5.1 nobody to get it"),
            "DATA" => {
                say("354 go ahead");
                loop {
                    if !read_line(&mut reader, &mut line) {
                        return;
                    }
                    match &line[..] {
                        b".\r\n" => break,
                        [b'.', rest @ ..] => current.content.extend_from_slice(rest),
                        whole => current.content.extend_from_slice(whole),
                    }
                }
                all.lock().unwrap().push(current.clone());
                current.recipients.iter().for_each(|_| say("250 2.0.0 kept"));
            }
            "QUIT" => return say("221 2.0.0 bye"),
            _ => say("250 2.0.0 ok"),
        }
    }
}

/// Up to CR LF, which alone ends a line in SMTP; `false` at the client's end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> bool {
    line.clear();
    while !line.ends_with(b"\r\n") {
        if !matches!(reader.read_until(b'\n', line), Ok(1..)) {
            return false;
        }
    }
    true
}

fn path(command: &str) -> String {
    let (start, end) = (command.find('<').unwrap(), command.rfind('>').unwrap());
    command[start + 1..end].to_owned()
}
