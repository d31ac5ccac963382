//! What a queue file says while its message is under way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::thread;

use socket2::{Domain, SockAddr, Socket, Type};

use super::{HURRY, Server, messages_in, only_message_in, states, submit, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;
use crate::holding::{END_OF_DATA, Holding, SECOND_ANSWER};

#[test]
fn who_waits_for_the_last_answer_is_in_doubt() {
    for (stage, expected) in [("DATA", "-PP"), (END_OF_DATA, "-II"), (SECOND_ANSWER, "-SI")] {
        let site = Site::new("");
        let server = Holding::start(&site, &[stage]);
        // The agent looks whether its bounces have a server: that is not to be this one.
        let keys = format!("bounce_nexthop = \"unix:{}.none\"\n", server.socket.display());
        site.configure(&super::to_socket(&server.socket, &keys));
        let agent = site.start_agent();
        submit(&site, "for two", &["b@example.org", "c@example.org"]);
        server.wait_until_it_holds(&site);
        let file = only_message_in(&site, "active");
        let look = || states(&file).filter(|states| states == expected);
        wait_for(&format!("{expected} while {stage} is held, not {:?}", states(&file)), SOON, look);
        server.release();
        wait_until_nothing_is_left(&site, SOON);
        agent.stop();
    }
}

#[test]
fn a_connection_lost_after_the_end_of_data_leaves_doubt_and_warns() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "data-done * times 1 close");
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    submit(&site, "twice", &["b@example.org"]);
    let line = site.wait_for_line(&["to=<b@example.org>", "status=deferred"], SOON);
    let words = "while sending end of data -- message may be sent more than once)";
    assert!(line.contains("dsn=4.4.2") && line.ends_with(words), "{line}");
    assert_eq!(states(&only_message_in(&site, "deferred")).as_deref(), Some("-I"));
    site.wait_for_line(&["warning: ", "<b@example.org>", "delivered twice"], SOON);
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(server.mail_of("b@example.org").len(), 2, "this server had stored it both times");
    agent.stop();
}

#[test]
fn a_server_that_says_that_it_cannot_leaves_no_doubt() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "data-done * times 1 451 4.3.0 disk full");
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    submit(&site, "once", &["b@example.org"]);
    site.wait_for_line(&["to=<b@example.org>", "status=deferred"], SOON);
    let file = only_message_in(&site, "deferred");
    assert_eq!(states(&file).as_deref(), Some("-P"));
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    assert!(site.lines_with(&["delivered twice"]).is_empty(), "{}", site.log());
    assert_eq!(messages_in(&site, "corrupt").len(), 0);
    agent.stop();
}

/// Takes one message; of the next it reads an octet, and says that it closes: by then its backlog is full. Returns what
/// keeps it full.
fn serve_once_and_be_busy(listener: &Socket, path: &Path) -> io::Result<Vec<Socket>> {
    let (stream, _) = listener.accept()?;
    let (mut input, mut output) = (BufReader::new(&stream), &stream);
    write!(output, "220 hi\r\n")?;
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            ["LHLO", ..] => write!(output, "250-hi\r\n250-PIPELINING\r\n250 CHUNKING\r\n")?,
            ["BDAT", octets, ..] => {
                let octets = octets.parse().map_err(io::Error::other)?;
                io::copy(&mut (&mut input).take(octets), &mut io::sink())?;
                break;
            }
            _ => {}
        }
    }
    let waiting = fill_backlog(path)?;
    write!(output, "250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.0.0 stored\r\n")?;
    input.fill_buf()?;
    write!(output, "421 4.4.2 idle for too long\r\n")?;
    Ok(waiting)
}

fn fill_backlog(path: &Path) -> io::Result<Vec<Socket>> {
    let mut waiting = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&SockAddr::unix(path)?) {
            Ok(()) => waiting.push(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(waiting),
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn mail_that_waits_for_a_busy_server_is_not_in_doubt() {
    let site = Site::new("");
    let socket = site.path().join("busy.sock");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&socket).unwrap()).unwrap();
    listener.listen(1).unwrap();
    let keys = format!(
        "workers = 1\nworkers_reserved = 0\nbounce_nexthop = \"unix:{}.none\"\n\
         [transport.lmtp]\nconnect_timeout = 1\n",
        socket.display()
    );
    site.configure(&super::to_socket(&socket, &keys));
    let agent = site.start_agent();
    // Both are there before the server says a word: the second does not find a connection that has rested, and goes
    // in one flight with its content.
    submit(&site, "first", &["b@example.org"]);
    submit(&site, "second", &["b@example.org"]);
    let server =
        thread::spawn(move || serve_once_and_be_busy(&listener, &socket).map(|kept| (kept, listener)));
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    site.wait_for_line(&["the server is busy, and the mail waits"], SOON);
    assert_eq!(states(&only_message_in(&site, "active")).as_deref(), Some("-P"));
    drop(server.join().unwrap().unwrap());
    agent.stop();
    assert!(site.lines_with(&["delivered twice"]).is_empty(), "{}", site.log());
}
