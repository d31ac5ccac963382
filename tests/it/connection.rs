//! The client's connection against servers that a dialogue cannot play: several of them, slow ones, full ones.
//!
//! - Owns: when a connection is kept or left, which server of a list gets the mail, and that no peer stretches a
//!   limit or stops us for ever.
//! - Leaves to others: what is said, word by word (`dialogue`).
//! - Always true: each test has sockets of its own, and ends although its servers do not.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lastmile::mail::{Batch, BodyType, Destination, Envelope, Outcome, QueueId, Recipient};
use lastmile::net::{Delivered, Delivery, FileContent, Observer, Peer};
use lastmile::smtp::{Capabilities, Settled, Stage};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::common::agent::{self, SOON};
use crate::common::process::wait_for;
use crate::dialogue::client::{Collector, Shipped, file_of};

/// Far more than anything here should take, far less than a default limit.
pub const AT_ONCE: Duration = Duration::from_secs(2);
pub const TEXT: &[u8] = b"Subject: hi\r\n\r\nhello\r\n";

/// Verbs in the order in which a server heard them.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub fn push(&self, verb: &str) {
        self.0.lock().unwrap().push(verb.to_owned());
    }

    pub fn all(&self) -> String {
        self.0.lock().unwrap().join(" ")
    }

    pub fn ends_with(&self, verb: &str) -> bool {
        self.0.lock().unwrap().last().is_some_and(|last| last == verb)
    }
}

pub fn unix_listener(path: &Path, backlog: i32) -> Socket {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(path).unwrap()).unwrap();
    socket.listen(backlog).unwrap();
    socket
}

pub fn tcp_listener() -> (Socket, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener.into(), port)
}

/// Converses with whoever connects, each in a thread that ends with its client.
pub fn serve(listener: Socket, converse: impl Fn(Socket) -> io::Result<()> + Clone + Send + 'static) {
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let converse = converse.clone();
            // A client that goes away ends the conversation with an error, as it should.
            thread::spawn(move || converse(socket).ok());
        }
    });
}

/// What an obliging server says that is not a plain yes.
#[derive(Clone, Copy)]
pub struct Manner {
    pub greeting: &'static str,
    pub offers: &'static [&'static str],
    pub goodbye: &'static str,
}

pub const OBLIGING: Manner =
    Manner { greeting: "220 peer.example LMTP", offers: &["PIPELINING", "CHUNKING"], goodbye: "221 bye" };

/// Says yes to everything, one command after the other, as Dovecot and Postfix do.
pub fn oblige(socket: &Socket, manner: Manner, heard: &Heard) -> io::Result<()> {
    let (mut input, mut output) = (BufReader::new(socket), socket);
    let mut recipients = 0;
    heard.push("connect");
    write!(output, "{}\r\n", manner.greeting)?;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace();
        let verb = words.next().unwrap_or("");
        heard.push(verb);
        let mut replies = 1;
        match verb {
            "LHLO" => {
                write!(output, "250-peer.example\r\n")?;
                for offer in manner.offers {
                    write!(output, "250-{offer}\r\n")?;
                }
            }
            "RSET" | "MAIL" => recipients = 0,
            "RCPT" => recipients += 1,
            "BDAT" => {
                let octets = words.next().and_then(|octets| octets.parse().ok()).unwrap_or(0);
                io::copy(&mut (&mut input).take(octets), &mut io::sink())?;
                replies = recipients;
            }
            "DATA" => {
                write!(output, "354 go on\r\n")?;
                if !reads_to_the_dot(&mut input)? {
                    return Ok(());
                }
                heard.push(".");
                replies = recipients;
            }
            "QUIT" => {
                write!(output, "{}\r\n", manner.goodbye)?;
                return Ok(());
            }
            _ => return Ok(()),
        }
        for _ in 0..replies {
            write!(output, "250 2.0.0 ok\r\n")?;
        }
    }
}

/// Whether the content ends as it should.
fn reads_to_the_dot(input: &mut impl BufRead) -> io::Result<bool> {
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        if line == ".\r\n" {
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
}

/// A directory for sockets, and the servers in it.
pub struct Site(TempDir);

impl Site {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn nexthop(&self, names: &[&str]) -> String {
        let servers: Vec<_> =
            names.iter().map(|name| format!("unix:{}", self.path(name).display())).collect();
        format!("lmtp:{}", servers.join(","))
    }

    /// Starts a server; what it hears.
    pub fn oblige(&self, name: &str, manner: Manner) -> Heard {
        let heard = Heard::default();
        let kept = heard.clone();
        self.serve(name, move |socket| oblige(&socket, manner, &kept));
        heard
    }

    pub fn serve(&self, name: &str, converse: impl Fn(Socket) -> io::Result<()> + Clone + Send + 'static) {
        serve(unix_listener(&self.path(name), 16), converse);
    }
}

pub fn client(nexthop: &str, options: &[(&str, &str)], timeouts: &[(Stage, u64)]) -> Shipped {
    let options: Vec<_> = options.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let timeouts: Vec<_> = timeouts.iter().map(|&(stage, ms)| (stage, Duration::from_millis(ms))).collect();
    Shipped::to(nexthop, &options, &timeouts)
}

pub fn batch(destination: &Destination, recipients: &[String]) -> Batch {
    let envelope = Envelope {
        id: QueueId::new(1_795_000_000_000_000, 1),
        sender: "a@example.org".parse().unwrap(),
        arrival: jiff::Timestamp::UNIX_EPOCH,
        nexthop: None,
        body: BodyType::SevenBit,
        smtputf8: false,
        envid: None,
        ret: None,
        origin: "uid=1000".to_owned(),
        size: 22,
    };
    let recipients =
        recipients.iter().zip(0..).map(|(address, at)| Recipient::new(at, address.parse().unwrap()));
    Batch::new(envelope.into(), "a@example.org".parse().unwrap(), destination.clone(), recipients.collect())
        .unwrap()
}

/// So long that some thousands are far more than a socket's buffers hold.
pub fn recipients(count: usize) -> Vec<String> {
    let long = "x".repeat(55);
    (0..count).map(|at| format!("{long}{at}@{long}.example.org")).collect()
}

/// Delivers `text` to `count` recipients, while no other work waits.
pub fn deliver_to(client: &mut Shipped, count: usize, text: &[u8]) -> (Delivered, Collector) {
    let batch = batch(&client.destination, &recipients(count));
    let file = file_of(text).unwrap();
    let content = FileContent { prefix: b"", file: &file, offset: 0, length: text.len() as u64 };
    let mut collector = Collector::default();
    let delivered =
        client.cached.deliver(&Delivery::new(&batch, &content, &client.transport), &mut collector);
    client.cached.say_goodbye(&|| false);
    (delivered, collector)
}

pub fn deliver(client: &mut Shipped) -> (Delivered, Collector) {
    deliver_to(client, 1, TEXT)
}

/// Outcomes as `word dsn text`, and whether they are in doubt.
pub fn outcomes(collector: &Collector) -> Vec<(String, bool)> {
    let shown = |settled: &Settled| {
        let reason = settled.outcome.reason();
        (format!("{} {} {}", settled.outcome.word(), reason.status, reason.text), settled.in_doubt)
    };
    collector.settled.iter().map(shown).collect()
}

#[track_caller]
pub fn assert_sent(collector: &Collector, count: usize) {
    assert_eq!(collector.settled.len(), count);
    let sent = |settled: &&Settled| matches!(settled.outcome, Outcome::Delivered(_));
    assert_eq!(collector.settled.iter().filter(sent).count(), count, "{:?}", outcomes(collector).first());
}

#[test]
fn a_connection_says_how_long_it_may_still_rest() {
    let site = Site::new();
    let heard = site.oblige("a", OBLIGING);
    let mut client = client(&site.nexthop(&["a"]), &[("max_idle", "2s")], &[]);
    assert_eq!(client.cached.idle_limit(), None, "without a connection there is nothing to wait for");
    assert_sent(&deliver(&mut client).1, 1);
    let first = client.cached.idle_limit().unwrap();
    thread::sleep(Duration::from_millis(50));
    let second = client.cached.idle_limit().unwrap();
    assert!(
        first <= Duration::from_secs(2) && second <= first - Duration::from_millis(50),
        "{first:?} {second:?}"
    );
    assert_sent(&deliver(&mut client).1, 1);
    assert!(client.cached.idle_limit().unwrap() > second, "use gives it its time again");
    client.cached.close(&|| false);
    assert_eq!((client.cached.idle_limit(), client.cached.destination()), (None, None));
    assert_eq!(heard.all(), "connect LHLO MAIL RCPT BDAT RSET MAIL RCPT BDAT QUIT");
}

#[test]
fn a_worker_without_work_says_goodbye_when_its_connection_has_rested_for_long() {
    let site = Site::new();
    let heard = site.oblige("a", OBLIGING);
    let (nexthop, none) = (site.nexthop(&["a"]), site.path("none"));
    // The agent looks whether its bounces have a server: that is not to be this one.
    let queue = agent::Site::new(&format!(
        "default_transport = \"{nexthop}\"\nbounce_nexthop = \"unix:{}\"\n[transport.lmtp]\nmax_idle = 1\n",
        none.display()
    ));
    let agent = queue.start_agent();
    let start = Instant::now();
    queue.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], b"Subject: hi\n\nhello\n");
    wait_for("the goodbye", SOON, || heard.ends_with("QUIT").then_some(()));
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(heard.all(), "connect LHLO MAIL RCPT BDAT QUIT");
    agent.stop();
}

#[test]
fn a_batch_for_another_destination_takes_the_place_of_the_connection() {
    let site = Site::new();
    let (a, b) = (site.oblige("a", OBLIGING), site.oblige("b", OBLIGING));
    let mut client = client(&site.nexthop(&["a"]), &[], &[]);
    assert_sent(&deliver(&mut client).1, 1);
    client.destination = self::client(&site.nexthop(&["b"]), &[], &[]).destination;
    assert_sent(&deliver(&mut client).1, 1);
    wait_for("the goodbye", AT_ONCE, || a.ends_with("QUIT").then_some(()));
    assert_eq!(a.all(), "connect LHLO MAIL RCPT BDAT QUIT");
    assert_eq!(b.all(), "connect LHLO MAIL RCPT BDAT");
    assert_eq!(client.cached.destination(), Some(&client.destination));
}

#[test]
fn a_transport_that_a_reload_has_changed_gets_a_connection_of_its_own() {
    let site = Site::new();
    let heard = site.oblige("a", OBLIGING);
    let mut client = client(&site.nexthop(&["a"]), &[], &[]);
    assert_sent(&deliver(&mut client).1, 1);
    let same = self::client(&site.nexthop(&["a"]), &[], &[]).transport;
    client.transport = same;
    assert_sent(&deliver(&mut client).1, 1);
    client.transport = self::client(&site.nexthop(&["a"]), &[("chunking", "no")], &[]).transport;
    assert_sent(&deliver(&mut client).1, 1);
    assert_eq!(heard.all().matches("connect").count(), 2, "{}", heard.all());
}

#[test]
fn work_that_waits_does_not_wait_for_a_goodbye() {
    let site = Site::new();
    // Says nothing to QUIT, and keeps the connection open.
    let heard = site.oblige("a", Manner { goodbye: "", ..OBLIGING });
    let mut client = client(&site.nexthop(&["a"]), &[], &[(Stage::Quit, 60_000)]);
    assert_sent(&deliver(&mut client).1, 1);
    let start = Instant::now();
    client.cached.close(&|| true);
    assert!(start.elapsed() < AT_ONCE);
    wait_for("the goodbye", AT_ONCE, || heard.ends_with("QUIT").then_some(()));
}

#[test]
fn the_next_server_gets_the_mail_where_the_first_refuses_to_connect() {
    let site = Site::new();
    drop(unix_listener(&site.path("a"), 1));
    let heard = site.oblige("b", OBLIGING);
    let mut client = client(&site.nexthop(&["a", "b"]), &[], &[]);
    let (delivered, collector) = deliver(&mut client);
    assert!(matches!(delivered, Delivered::Reached), "{delivered:?}");
    assert_sent(&collector, 1);
    let path = site.path("a").display().to_string();
    assert_eq!(collector.notes, [format!("connect to client.example[{path}]: Connection refused")]);
    assert_sent(&deliver(&mut client).1, 1);
    assert_eq!(heard.all().matches("connect").count(), 1, "the connection serves for the whole list");
}

#[test]
fn the_next_server_gets_the_mail_where_the_first_does_not_want_us() {
    for (greeting, text) in [
        ("554 5.7.1 go away", "host H refused to talk to me: 554 5.7.1 go away"),
        ("250 hello?\r\n250 hello??", "protocol error of H while receiving the initial server greeting"),
        ("HTTP/1.1 400 Bad Request", "protocol error of H while receiving the initial server greeting"),
    ] {
        let site = Site::new();
        let a = site.oblige("a", Manner { greeting, ..OBLIGING });
        site.oblige("b", OBLIGING);
        let mut client = client(&site.nexthop(&["a", "b"]), &[], &[]);
        let (delivered, collector) = deliver(&mut client);
        assert!(matches!(delivered, Delivered::Reached), "{delivered:?}");
        assert_sent(&collector, 1);
        let name = format!("client.example[{}]", site.path("a").display());
        let [note] = &collector.notes[..] else { panic!("{:?}", collector.notes) };
        assert!(note.replace(&name, "H").starts_with(text), "{note}");
        if greeting.starts_with("554") {
            wait_for("the goodbye", AT_ONCE, || a.ends_with("QUIT").then_some(()));
        }
    }
}

#[test]
fn the_next_server_gets_the_mail_where_the_first_breaks_the_protocol() {
    let site = Site::new();
    site.serve("a", |socket| {
        let mut input = BufReader::new(&socket);
        let mut line = String::new();
        for says in ["220 hi", "250-hi\r\n250 PIPELINING", "what do you want?"] {
            write!(&socket, "{says}\r\n")?;
            input.read_line(&mut line)?;
        }
        io::copy(&mut input, &mut io::sink()).map(drop)
    });
    let heard = site.oblige("b", OBLIGING);
    let mut client = client(&site.nexthop(&["a", "b"]), &[], &[]);
    let (delivered, collector) = deliver_to(&mut client, 2, TEXT);
    assert!(matches!(delivered, Delivered::Reached), "{delivered:?}");
    assert_sent(&collector, 2);
    assert!(heard.all().starts_with("connect LHLO MAIL RCPT RCPT BDAT"), "{}", heard.all());
    let error = format!(
        "protocol error of client.example[{}] while sending MAIL FROM: \
         the server sent \"what do you want?\", which is no SMTP reply",
        site.path("a").display()
    );
    let stepwise = format!("{error}; {} is spoken to without pipelining for an hour", client.destination);
    assert_eq!(collector.notes, [stepwise, format!("{error}; the next server of the list is tried")]);
}

#[test]
fn where_no_server_is_ready_the_last_ones_reason_is_the_outcome() {
    let site = Site::new();
    drop(unix_listener(&site.path("a"), 1));
    site.oblige("b", Manner { greeting: "554 5.7.1 go away", ..OBLIGING });
    let mut client = client(&site.nexthop(&["a", "b"]), &[], &[]);
    let (delivered, collector) = deliver_to(&mut client, 2, TEXT);
    let Delivered::Failed(reason) = delivered else { panic!("{delivered:?}") };
    let text =
        format!("host client.example[{}] refused to talk to me: 554 5.7.1 go away", site.path("b").display());
    assert_eq!((reason.text.as_str(), reason.status.to_string().as_str()), (text.as_str(), "4.7.1"));
    assert_eq!(outcomes(&collector), vec![(format!("deferred 4.7.1 {text}"), false); 2]);
    assert_eq!(collector.notes.len(), 1, "{:?}", collector.notes);
}

#[test]
fn a_name_with_several_addresses_leads_to_the_one_that_listens() {
    let (listener, port) = tcp_listener();
    serve(listener, |socket| oblige(&socket, OBLIGING, &Heard::default()));
    let mut client = client(&format!("lmtp:inet:localhost:{port}"), &[], &[]);
    let (_, collector) = deliver(&mut client);
    assert_sent(&collector, 1);
    let addresses = ("localhost", port).to_socket_addrs().unwrap();
    let before = addresses.take_while(|address| !address.is_ipv4()).count();
    assert_eq!(collector.notes.len(), before, "{:?}", collector.notes);
}

#[test]
fn a_name_that_leads_nowhere_is_a_failure_of_the_destination() {
    // RFC 6761 section 6.4: this name never exists.
    let mut client = client("lmtp:inet:mx.invalid:24", &[], &[]);
    let (delivered, collector) = deliver(&mut client);
    assert!(matches!(delivered, Delivered::Failed(_)), "{delivered:?}");
    let [(outcome, false)] = &outcomes(&collector)[..] else { panic!("{collector:?}") };
    assert!(outcome.starts_with("deferred 4.4.4 unable to look up host mx.invalid: "), "{outcome}");
}

/// A listener whose backlog is full, and those who fill it.
fn full_listener(path: &Path) -> (Socket, Vec<Socket>) {
    let listener = unix_listener(path, 1);
    let address = SockAddr::unix(path).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => waiting.push(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (listener, waiting),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the backlog is never full");
}

#[test]
fn a_server_without_room_is_busy_and_nobody_is_settled() {
    let site = Site::new();
    let (listener, waiting) = full_listener(&site.path("a"));
    let mut client = client(&site.nexthop(&["a"]), &[], &[(Stage::Connect, 200)]);
    let start = Instant::now();
    let (delivered, collector) = deliver(&mut client);
    assert!(matches!(delivered, Delivered::Busy(_)), "{delivered:?}");
    assert!(
        start.elapsed() >= Duration::from_millis(190) && start.elapsed() < AT_ONCE,
        "{:?}",
        start.elapsed()
    );
    assert!(collector.settled.is_empty() && collector.notes.is_empty(), "{collector:?}");
    // As soon as there is room, it goes on: a blocking connect waits for that.
    drop(waiting);
    serve(listener, |socket| oblige(&socket, OBLIGING, &Heard::default()));
    assert_sent(&deliver(&mut client).1, 1);
}

#[test]
fn a_flight_of_thousands_does_not_deadlock_with_a_server_that_answers_one_by_one() {
    let site = Site::new();
    let heard = site.oblige("a", OBLIGING);
    let mut client = client(&site.nexthop(&["a"]), &[], &[]);
    // A client that wrote all of it first would wait for ever, as would the server.
    let (_, collector) = deliver_to(&mut client, 5000, TEXT);
    assert_sent(&collector, 5000);
    assert_eq!(heard.all().matches("RCPT").count(), 5000);
}

#[test]
fn a_server_that_reads_nothing_does_not_hold_up_the_flight() {
    let site = Site::new();
    site.serve("a", |socket| {
        write!(&socket, "220 hi\r\n")?;
        io::copy(&mut (&socket).take("LHLO client.example\r\n".len() as u64), &mut io::sink())?;
        write!(&socket, "250-hi\r\n250 PIPELINING\r\n")?;
        thread::sleep(10 * AT_ONCE);
        Ok(())
    });
    let mut client = client(&site.nexthop(&["a"]), &[], &[(Stage::Mail, 300), (Stage::Rcpt, 10_000)]);
    let start = Instant::now();
    let (_, collector) = deliver_to(&mut client, 5000, TEXT);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(collector.settled.len(), 5000);
    let name = format!("client.example[{}]", site.path("a").display());
    let text = format!("deferred 4.4.2 conversation with {name} timed out while sending MAIL FROM");
    assert_eq!(outcomes(&collector)[4999], (text, false), "writing was no problem, the answer is");
}

/// Up to the end of data as [`oblige`], with `count` recipients; then `answer`.
fn until_end_of_data(
    socket: &Socket,
    count: usize,
    answer: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<()> {
    let (mut input, mut output) = (BufReader::new(socket), socket);
    write!(output, "220 hi\r\n")?;
    for at in 0.. {
        let mut line = String::new();
        input.read_line(&mut line)?;
        match line.get(..4) {
            Some("LHLO") => write!(output, "250-hi\r\n250-PIPELINING\r\n250 CHUNKING\r\n")?,
            Some("MAIL" | "RCPT") => write!(output, "250 ok\r\n")?,
            _ => break,
        }
        assert!(at < count + 2, "too many commands");
    }
    io::copy(&mut input.take(TEXT.len() as u64), &mut io::sink())?;
    answer(socket)
}

#[test]
fn a_server_that_drips_cannot_stretch_the_end_of_data() {
    let site = Site::new();
    site.serve("a", |socket| {
        until_end_of_data(&socket, 1, |mut socket| {
            loop {
                socket.write_all(b"2")?;
                thread::sleep(Duration::from_millis(20));
            }
        })
    });
    let mut client = client(&site.nexthop(&["a"]), &[], &[(Stage::DataDone, 300)]);
    let start = Instant::now();
    let (delivered, collector) = deliver(&mut client);
    let time = start.elapsed();
    assert!(time >= Duration::from_millis(290) && time < AT_ONCE, "{time:?}");
    assert!(matches!(delivered, Delivered::Reached), "it did speak to us: {delivered:?}");
    let [(outcome, in_doubt)] = &outcomes(&collector)[..] else { panic!("{collector:?}") };
    assert!(
        outcome.ends_with("timed out while sending end of data -- message may be sent more than once"),
        "{outcome}"
    );
    assert!(in_doubt);
}

#[test]
fn replies_to_the_end_of_data_share_a_limit_for_each_recipient() {
    let site = Site::new();
    // Stores for three recipients before it answers for the first, as Dovecot does.
    site.serve("a", |socket| {
        until_end_of_data(&socket, 3, |mut socket| {
            thread::sleep(Duration::from_millis(700));
            socket.write_all(b"250 2.0.0 stored\r\n250 2.0.0 stored\r\n250 2.0.0 stored\r\n")?;
            io::copy(&mut socket, &mut io::sink()).map(drop)
        })
    });
    let nexthop = site.nexthop(&["a"]);
    let mut patient = client(&nexthop, &[], &[(Stage::DataDone, 300)]);
    assert_sent(&deliver_to(&mut patient, 3, TEXT).1, 3);
    let mut impatient = client(&nexthop, &[], &[(Stage::DataDone, 150)]);
    let start = Instant::now();
    let (_, collector) = deliver_to(&mut impatient, 3, TEXT);
    let time = start.elapsed();
    assert!(time >= Duration::from_millis(440), "{time:?}");
    assert!(collector.settled.iter().all(|settled| settled.in_doubt), "{collector:?}");
}

#[test]
fn each_reply_to_the_end_of_data_leaves_the_next_its_full_time() {
    let site = Site::new();
    // The second comes when the shared time is over, the third never.
    site.serve("a", |socket| {
        until_end_of_data(&socket, 3, |mut socket| {
            for pause in [700, 200] {
                thread::sleep(Duration::from_millis(pause));
                socket.write_all(b"250 2.0.0 stored\r\n")?;
            }
            io::copy(&mut socket, &mut io::sink()).map(drop)
        })
    });
    let mut client = client(&site.nexthop(&["a"]), &[], &[(Stage::DataDone, 300)]);
    let start = Instant::now();
    let (_, collector) = deliver_to(&mut client, 3, TEXT);
    let words: Vec<_> =
        collector.settled.iter().map(|settled| (settled.outcome.word(), settled.in_doubt)).collect();
    assert_eq!(words, [("sent", false), ("sent", false), ("deferred", true)]);
    assert!(
        start.elapsed() >= Duration::from_millis(1190) && start.elapsed() < AT_ONCE,
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_server_that_reads_content_too_slowly_is_left() {
    let site = Site::new();
    site.serve("a", |mut socket| {
        write!(&socket, "220 hi\r\n")?;
        let mut piece = [0; 4096];
        let _ = socket.read(&mut piece)?;
        write!(&socket, "250-hi\r\n250 CHUNKING\r\n")?;
        for _ in ["MAIL", "RCPT"] {
            let _ = socket.read(&mut piece)?;
            write!(&socket, "250 ok\r\n")?;
        }
        // Progress all the time, but little of it.
        while socket.read(&mut piece)? > 0 {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
    let text = b"xxxxxxxxxxxxxx\r\n".repeat(1 << 18);
    let slow = client(&site.nexthop(&["a"]), &[("min_data_rate", "100M")], &[(Stage::DataXfer, 400)]);
    let mut client = slow;
    let start = Instant::now();
    let (_, collector) = deliver_to(&mut client, 1, &text);
    let time = start.elapsed();
    assert!(time >= Duration::from_millis(390) && time < 2 * AT_ONCE, "{time:?}");
    let name = format!("client.example[{}]", site.path("a").display());
    let text = format!("deferred 4.4.2 conversation with {name} timed out while sending message body");
    assert_eq!(outcomes(&collector), [(text, false)]);
}

/// Cannot mark the queue file.
#[derive(Default)]
struct Unmarkable(Collector);

impl Observer for Unmarkable {
    fn ready(&mut self, peer: &Peer, offered: &Capabilities, uses: u32) {
        self.0.ready(peer, offered, uses);
    }

    fn end_of_data(&mut self, _: &[u32]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn settled(&mut self, settled: Vec<Settled>) {
        self.0.settled(settled);
    }

    fn note(&mut self, text: &str) {
        self.0.note(text);
    }

    fn protocol_error(&mut self, text: &str) {
        self.0.protocol_error(text);
    }
}

#[test]
fn a_batch_that_cannot_be_marked_is_not_sent() {
    let site = Site::new();
    let heard = site.oblige("a", OBLIGING);
    let mut client = client(&site.nexthop(&["a"]), &[], &[]);
    let batch = batch(&client.destination, &recipients(2));
    let file = file_of(TEXT).unwrap();
    let content = FileContent { prefix: b"", file: &file, offset: 0, length: TEXT.len() as u64 };
    let mut observer = Unmarkable::default();
    client.cached.deliver(&Delivery::new(&batch, &content, &client.transport), &mut observer);
    for (outcome, in_doubt) in outcomes(&observer.0) {
        assert!(outcome.starts_with("deferred 4.3.0 local data error while talking to "), "{outcome}");
        assert!(!in_doubt);
    }
    assert_eq!(observer.0.settled.len(), 2);
    assert!(!heard.all().contains("BDAT"), "{}", heard.all());
    assert_eq!(
        client.cached.destination(),
        None,
        "the server waits for the rest: the connection is of no more use"
    );
}

#[test]
fn a_message_that_cannot_be_read_to_its_end_is_not_delivered_in_part() {
    for chunking in ["yes", "no"] {
        let site = Site::new();
        let heard = Heard::default();
        let kept = heard.clone();
        site.serve("a", move |socket| {
            let ended = oblige(&socket, OBLIGING, &kept);
            kept.push("ended");
            ended
        });
        let mut client = client(&site.nexthop(&["a"]), &[("chunking", chunking)], &[]);
        let batch = batch(&client.destination, &recipients(1));
        let text = TEXT.repeat(20_000);
        let file = file_of(&text).unwrap();
        let content = FileContent { prefix: b"", file: &file, offset: 0, length: text.len() as u64 + 1 };
        let mut collector = Collector::default();
        client.cached.deliver(&Delivery::new(&batch, &content, &client.transport), &mut collector);
        let [(outcome, false)] = &outcomes(&collector)[..] else { panic!("{collector:?}") };
        assert!(outcome.starts_with("deferred 4.3.0 local data error while talking to "), "{outcome}");
        wait_for("the server's end", AT_ONCE, || heard.ends_with("ended").then_some(()));
        let last = if chunking == "yes" { "BDAT ended" } else { "DATA ended" };
        assert!(heard.all().ends_with(last), "neither a dot nor QUIT: {}", heard.all());
    }
}

#[test]
fn a_port_on_which_nobody_listens_is_a_failure_of_the_destination() {
    let (listener, port) = tcp_listener();
    drop(listener);
    let mut client = client(&format!("lmtp:inet:[127.0.0.1]:{port}"), &[], &[]);
    let (delivered, collector) = deliver(&mut client);
    assert!(matches!(delivered, Delivered::Failed(_)), "{delivered:?}");
    let text = format!("deferred 4.4.1 connect to 127.0.0.1[127.0.0.1]:{port}: Connection refused");
    assert_eq!(outcomes(&collector), [(text, false)]);
}
