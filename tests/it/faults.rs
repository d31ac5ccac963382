//! Whose fault it is that mail is not delivered, as an observer hears it; and what it may say before there is any mail.
//!
//! - Owns: which failures are the destination's, and when that is told; warnings; keywords to discard.
//! - Leaves to others: what becomes of the recipients (`dialogue`), which server gets the mail (`connection`).
//! - Always true: each test has sockets of its own.

use std::io::{self, BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lastmile::config::{Habits, Timeout, Transport};
use lastmile::mail::{Batch, Reason};
use lastmile::net::{Delivered, Delivery, FileContent, Observer, Peer};
use lastmile::smtp::{Capabilities, Origin, Settled, Stage};
use socket2::Socket;

use crate::connection::{
    Heard, Manner, OBLIGING, Site, TEXT, batch, client, deliver_to, oblige, outcomes, recipients,
};
use crate::dialogue::client::{Collector, Shipped, file_of};

/// Says `lines`, one after each line that it hears but for the first, then closes. An empty line is silence.
fn recite(socket: &Socket, lines: &[&str]) -> io::Result<()> {
    let mut input = BufReader::new(socket);
    let mut line = String::new();
    let mut lines = lines.iter();
    let Some(greeting) = lines.next() else { return Ok(()) };
    let say = |text: &str| {
        if text.is_empty() { Ok(()) } else { write!(&*socket, "{text}\r\n") }
    };
    say(greeting)?;
    for text in lines {
        input.read_line(&mut line)?;
        say(text)?;
    }
    // A server that closes with unread octets resets the connection, which is another story.
    if greeting.is_empty() { io::copy(&mut input, &mut io::sink()).map(drop) } else { Ok(()) }
}

#[test]
fn the_destination_is_at_fault_for_what_breaks_and_not_for_what_it_answers() {
    const LHLO: [&str; 2] = ["220 hi", "250 hi"];
    for (says, fault) in [
        (&["421 4.3.2 busy"][..], Some("4.3.2 host H refused to talk to me: 421 4.3.2 busy")),
        (&["554 5.7.1 go away"], Some("4.7.1 host H refused to talk to me: 554 5.7.1 go away")),
        (&[], Some("4.4.2 lost connection with H while receiving the initial server greeting")),
        (&[""], Some("4.4.2 conversation with H timed out while receiving the initial server greeting")),
        (&["220 hi", "502 5.5.1 no"], Some("4.5.1 host H refused to talk to me: 502 5.5.1 no")),
        (&["220 hi", "250 hi", "451 4.3.0 later"], None),
        (&["220 hi", "250 hi", "550 5.7.1 never"], None),
        (&["220 hi", "250 hi", "421 4.3.2 closing"], None),
        (&["220 hi", "250-hi\r\n250 SIZE 1"], None),
        (&LHLO, Some("4.4.2 lost connection with H while sending MAIL FROM")),
        (&["220 hi", "250 hi", "250 ok"], Some("4.4.2 lost connection with H while sending RCPT TO")),
        (&["220 hi", "250 hi", "250 ok", "450 4.2.1 busy", "550 5.1.1 no"], None),
        (
            &["220 hi", "250 hi", "250 ok", "250 ok", "550 5.1.1 no"],
            Some("4.4.2 lost connection with H while sending DATA command"),
        ),
        (&["220 hi", "250 hi", "250 ok", "250 ok", "550 5.1.1 no", "451 4.3.0 later"], None),
        (
            &["220 hi", "250 hi", "what?"],
            Some(
                "4.5.0 protocol error of H while sending MAIL FROM: the server sent \"what?\", which is no SMTP reply",
            ),
        ),
    ] {
        let site = Site::new();
        site.serve("a", move |socket| recite(&socket, says));
        let mut client = client(&site.nexthop(&["a"]), &[], &[(Stage::Lhlo, 300)]);
        let (_, collector) = deliver_to(&mut client, 2, TEXT);
        assert_eq!(collector.settled.len(), 2, "{says:?}");
        let name = format!("client.example[{}]", site.path("a").display());
        let failed: Vec<_> = collector.failed.iter().map(|text| text.replace(&name, "H")).collect();
        // Whoever was refused before it broke is settled before it is told.
        let before = usize::from(says.contains(&"550 5.1.1 no"));
        let expected: Vec<_> = fault.iter().map(|text| format!("{before}: {text}")).collect();
        assert_eq!(failed, expected, "{says:?}: {:?}", outcomes(&collector));
    }
}

#[test]
fn a_destination_that_cannot_be_connected_to_is_at_fault_and_a_refusal_for_good_is_none() {
    let site = Site::new();
    let mut nobody = client(&site.nexthop(&["a"]), &[], &[]);
    let (_, collector) = deliver_to(&mut nobody, 2, TEXT);
    let name = format!("client.example[{}]", site.path("a").display());
    assert_eq!(collector.failed, [format!("0: 4.4.1 connect to {name}: No such file or directory")]);
    site.oblige("b", Manner { greeting: "554 5.7.1 go away", ..OBLIGING });
    let mut refuses = with_habits(&site, "b", |habits| habits.refused_greeting_bounces = true);
    let (delivered, collector) = deliver_to(&mut refuses, 2, TEXT);
    assert!(matches!(delivered, Delivered::Failed(_)), "{delivered:?}");
    assert!(outcomes(&collector)[1].0.starts_with("bounced 5.7.1 host "), "{collector:?}");
    assert!(collector.failed.is_empty(), "{collector:?}");
}

#[test]
fn a_destination_that_has_just_taken_mail_is_not_spared() {
    // Takes one recipient for each transaction, and goes. Four lines of content come after DATA, the dot included.
    const ONE: [&str; 9] = [
        "220 hi",
        "250-hi\r\n250 LIMITS RCPTMAX=1",
        "250 ok",
        "250 ok",
        "354 go",
        "",
        "",
        "",
        "250 2.0.0 stored",
    ];
    for then in [&[][..], &["220 hi", "250 hi"], &["421 busy"]] {
        let site = Site::new();
        let connections = Arc::new(AtomicUsize::new(0));
        site.serve("a", move |socket| {
            let is_first = connections.fetch_add(1, Ordering::SeqCst) == 0;
            recite(&socket, if is_first { &ONE } else { then })
        });
        let mut client = client(&site.nexthop(&["a"]), &[], &[]);
        let (_, collector) = deliver_to(&mut client, 2, TEXT);
        let words: Vec<_> = collector.settled.iter().map(|settled| settled.outcome.word()).collect();
        assert_eq!(words, ["sent", "deferred"], "{:?}", outcomes(&collector));
        assert!(collector.failed.is_empty(), "{collector:?}");
    }
}

#[test]
fn a_server_that_closed_within_a_transaction_has_ended_none() {
    let site = Site::new();
    let connections = Arc::new(AtomicUsize::new(0));
    let says = &["220 hi", "250-hi\r\n250 LIMITS RCPTMAX=1", "421 4.3.2 closing"];
    site.serve("a", move |socket| {
        let is_first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        recite(&socket, if is_first { says } else { &[] })
    });
    let mut client = client(&site.nexthop(&["a"]), &[], &[]);
    let (_, collector) = deliver_to(&mut client, 2, TEXT);
    let name = format!("client.example[{}]", site.path("a").display());
    let text = format!("1: 4.4.2 lost connection with {name} while receiving the initial server greeting");
    assert_eq!(collector.failed, [text]);
}

#[test]
fn a_server_that_goes_when_everybody_has_an_answer_has_done_no_harm() {
    let site = Site::new();
    site.serve("a", |socket| recite(&socket, &["220 hi", "250 hi", "250 ok", "250 taken"]));
    let mut client = client(&site.nexthop(&["a"]), &[], &[]);
    let (batch, file) = (batch(&client.destination, &recipients(1)), file_of(TEXT).unwrap());
    let content = FileContent { prefix: b"", file: &file, offset: 0, length: TEXT.len() as u64 };
    let mut delivery = Delivery::new(&batch, &content, &client.transport);
    delivery.probe = true;
    let mut collector = Collector { is_probe: true, ..Collector::default() };
    client.cached.deliver(&delivery, &mut collector);
    assert_eq!(outcomes(&collector), [("sent 2.0.0 250 taken".to_owned(), false)]);
    assert!(collector.failed.is_empty(), "{collector:?}");
}

#[test]
fn where_a_conversation_breaks_the_next_server_gets_the_mail_if_that_is_the_habit() {
    let site = Site::new();
    site.serve("a", |socket| recite(&socket, &["220 hi", "250 hi", "250 ok", "550 5.1.1 no"]));
    site.oblige("b", OBLIGING);
    let lost =
        format!("lost connection with client.example[{}] while sending RCPT TO", site.path("a").display());
    for goes_on in [false, true] {
        let mut client = client(&site.nexthop(&["a", "b"]), &[], &[]);
        change_habits(&mut client, |habits| habits.fail_over = goes_on);
        let (_, collector) = deliver_to(&mut client, 2, TEXT);
        let became: Vec<_> = outcomes(&collector).into_iter().map(|(outcome, _)| outcome).collect();
        assert!(became[0].starts_with("bounced 5.1.1 "), "replies that had come stand: {became:?}");
        if goes_on {
            assert!(became[1].starts_with("sent "), "{became:?}");
            assert_eq!(collector.notes, std::slice::from_ref(&lost));
            assert!(collector.failed.is_empty(), "{collector:?}");
        } else {
            assert_eq!(became[1], format!("deferred 4.4.2 {lost}"));
            assert_eq!(collector.failed, [format!("1: 4.4.2 {lost}")]);
        }
    }
}

#[test]
fn whom_a_server_puts_off_the_next_one_gets_if_that_is_the_habit() {
    // Puts one off at RCPT and one after the content; takes the third.
    let first =
        &["220 hi", "250 hi", "250 ok", "450 4.2.1 busy", "250 ok", "250 ok", "354 go", "", "", "", ""];
    for goes_on in [false, true] {
        let site = Site::new();
        site.serve("a", move |socket| {
            let mut input = BufReader::new(&socket);
            let mut line = String::new();
            for says in first.iter().take(7) {
                write!(&socket, "{says}\r\n")?;
                line.clear();
                input.read_line(&mut line)?;
            }
            while line != ".\r\n" {
                line.clear();
                input.read_line(&mut line)?;
            }
            write!(&socket, "452 4.3.1 full\r\n250 2.0.0 taken\r\n")?;
            io::copy(&mut input, &mut io::sink()).map(drop)
        });
        let heard = site.oblige("b", OBLIGING);
        let mut client = client(&site.nexthop(&["a", "b"]), &[("pipelining", "no")], &[]);
        change_habits(&mut client, |habits| habits.fail_over = goes_on);
        let (_, collector) = deliver_to(&mut client, 3, TEXT);
        let became: Vec<_> = outcomes(&collector).into_iter().map(|(outcome, _)| outcome).collect();
        let sent = became.iter().filter(|outcome| outcome.starts_with("sent ")).count();
        assert_eq!((sent, became.len()), (if goes_on { 3 } else { 1 }, 3), "{became:?}");
        let expected = if goes_on { "connect LHLO MAIL RCPT RCPT " } else { "" };
        assert!(heard.all().starts_with(expected) && heard.all().is_empty() != goes_on, "{}", heard.all());
        assert_eq!(collector.notes.len(), if goes_on { 2 } else { 0 }, "{:?}", collector.notes);
        assert!(collector.failed.is_empty(), "{collector:?}");
        // The last one of the list has the last word.
        let site = Site::new();
        let says = &["220 hi", "250 hi", "250 ok", "450 4.2.1 busy"];
        site.serve("a", move |socket| recite(&socket, says));
        site.serve("b", move |socket| recite(&socket, says));
        let mut client = self::client(&site.nexthop(&["a", "b"]), &[], &[]);
        change_habits(&mut client, |habits| habits.fail_over = goes_on);
        let (_, collector) = deliver_to(&mut client, 1, TEXT);
        let by = site.path(if goes_on { "b" } else { "a" }).display().to_string();
        let [(outcome, false)] = &outcomes(&collector)[..] else { panic!("{collector:?}") };
        assert!(outcome.starts_with("deferred 4.2.1 ") && outcome.contains(&by), "{outcome}");
    }
}

#[test]
fn nobody_who_was_put_off_is_forgotten_or_passes_a_server_over() {
    let deliver = |site: &Site, names: &[&str], count| {
        let mut client = client(&site.nexthop(names), &[("pipelining", "no")], &[]);
        change_habits(&mut client, |habits| habits.fail_over = true);
        let (_, collector) = deliver_to(&mut client, count, TEXT);
        let became = outcomes(&collector);
        assert_eq!(became.len(), count, "{collector:?}");
        (became.iter().filter(|(outcome, _)| outcome.starts_with("sent ")).count(), collector)
    };
    // Puts one off, and breaks off before the other; the last server of the list is down.
    let says = &["220 hi", "250 hi", "250 ok", "450 4.2.1 busy"];
    let site = Site::new();
    site.serve("a", move |socket| recite(&socket, says));
    assert_eq!(deliver(&site, &["a", "nobody"], 2).0, 0);
    let site = Site::new();
    site.serve("a", move |socket| recite(&socket, says));
    site.oblige("b", OBLIGING);
    assert_eq!(deliver(&site, &["a", "b", "nobody"], 2).0, 2);
    // Says goodbye in the middle: no fault of a destination whose next server takes all.
    let site = Site::new();
    let says = &["220 hi", "250 hi", "250 ok", "250 ok", "421 4.3.2 bye"];
    site.serve("a", move |socket| recite(&socket, says));
    site.oblige("b", OBLIGING);
    let (sent, collector) = deliver(&site, &["a", "b"], 3);
    assert_eq!((sent, collector.failed.len()), (3, 0), "{collector:?}");
    // Takes one at a time: puts the first off, and may have stored the mail of the second.
    let site = Site::new();
    let says = &[
        "220 hi",
        "250-hi\r\n250 LIMITS RCPTMAX=1",
        "250 ok",
        "450 4.2.1 busy",
        "250 ok",
        "250 ok",
        "250 ok",
        "354 go",
        "",
        "",
        "",
        "",
    ];
    site.serve("a", move |socket| recite(&socket, says));
    site.oblige("b", OBLIGING);
    let (sent, collector) = deliver(&site, &["a", "b"], 2);
    assert_eq!((sent, collector.failed.len()), (1, 0), "{collector:?}");
}

#[test]
fn what_a_server_may_have_stored_is_not_given_to_the_next() {
    let site = Site::new();
    let says = &["220 hi", "250 hi", "250 ok", "250 ok", "354 go", "", "", "", ""];
    site.serve("a", move |socket| recite(&socket, says));
    let heard = site.oblige("b", OBLIGING);
    let mut client = client(&site.nexthop(&["a", "b"]), &[], &[]);
    change_habits(&mut client, |habits| habits.fail_over = true);
    let (_, collector) = deliver_to(&mut client, 1, TEXT);
    let [(outcome, true)] = &outcomes(&collector)[..] else { panic!("{collector:?}") };
    assert!(outcome.ends_with("message may be sent more than once"), "{outcome}");
    assert_eq!(heard.all(), "");
}

/// A client for a server of `site`, with habits that `change` makes.
fn with_habits(site: &Site, name: &str, change: impl FnOnce(&mut Habits)) -> Shipped {
    let mut client = client(&site.nexthop(&[name]), &[], &[]);
    change_habits(&mut client, change);
    client
}

fn change_habits(client: &mut Shipped, change: impl FnOnce(&mut Habits)) {
    let mut transport = Transport::clone(&client.transport);
    change(&mut transport.habits);
    client.transport = transport.into();
}

#[test]
fn a_refused_xforward_is_worth_a_warning_and_nothing_more() {
    let site = Site::new();
    let says = &[
        "220 hi",
        "250-hi\r\n250 XFORWARD ADDR HELO",
        "550 5.7.0 not you",
        "501 what",
        "250 ok",
        "550 5.1.1 no",
    ];
    site.serve("a", move |socket| recite(&socket, says));
    let mut client = with_habits(&site, "a", |habits| habits.xforward = Timeout::new(Duration::from_secs(4)));
    let (batch, file) = (batch(&client.destination, &recipients(1)), file_of(TEXT).unwrap());
    let content = FileContent { prefix: b"", file: &file, offset: 0, length: TEXT.len() as u64 };
    let mut delivery = Delivery::new(&batch, &content, &client.transport);
    delivery.origin = Some(Origin { address: "192.0.2.1", helo: "x", ..Origin::default() });
    let mut collector = Collector::default();
    client.cached.deliver(&delivery, &mut collector);
    let host = format!("host client.example[{}] said: ", site.path("a").display());
    assert_eq!(
        collector.warnings,
        [
            format!("{host}550 5.7.0 not you (in reply to XFORWARD name/address command)"),
            format!("{host}501 what (in reply to XFORWARD helo/protocol command)"),
        ]
    );
    assert!(outcomes(&collector)[0].0.starts_with("bounced 5.1.1 "), "{collector:?}");
}

/// Knows what a server should not have offered, or does not.
struct Discarding {
    peers: Vec<String>,
    says: Result<Option<Vec<String>>, io::ErrorKind>,
    collector: Collector,
}

impl Observer for Discarding {
    fn ready(&mut self, peer: &Peer, offered: &Capabilities, uses: u32) {
        self.collector.ready(peer, offered, uses);
    }

    fn keywords_to_discard(&mut self, peer: &Peer) -> io::Result<Option<Vec<String>>> {
        self.peers.push(peer.relay());
        self.says.clone().map_err(io::Error::from)
    }

    fn end_of_data(&mut self, positions: &[u32]) -> io::Result<()> {
        self.collector.end_of_data(positions)
    }

    fn settled(&mut self, settled: Vec<Settled>) {
        self.collector.settled(settled);
    }

    fn destination_failed(&mut self, reason: &Reason) {
        self.collector.destination_failed(reason);
    }

    fn note(&mut self, text: &str) {
        self.collector.note(text);
    }

    fn protocol_error(&mut self, text: &str) {
        self.collector.protocol_error(text);
    }
}

fn discarding(says: Result<Option<Vec<String>>, io::ErrorKind>) -> Discarding {
    Discarding { peers: Vec::new(), says, collector: Collector::default() }
}

/// Delivers to one recipient.
fn deliver_with(client: &mut Shipped, batch: &Batch, observer: &mut dyn Observer) {
    let file = file_of(TEXT).unwrap();
    let content = FileContent { prefix: b"", file: &file, offset: 0, length: TEXT.len() as u64 };
    client.cached.deliver(&Delivery::new(batch, &content, &client.transport), observer);
    client.cached.say_goodbye(&|| false);
}

#[test]
fn keywords_are_discarded_by_server_and_else_by_transport() {
    let chunking = || vec!["chunking".to_owned()];
    for (usual, says, verbs) in [
        ("", None, "connect LHLO MAIL RCPT BDAT"),
        ("", Some(chunking()), "connect LHLO MAIL RCPT DATA ."),
        ("CHUNKING", None, "connect LHLO MAIL RCPT DATA ."),
        ("CHUNKING", Some(Vec::new()), "connect LHLO MAIL RCPT BDAT"),
    ] {
        let site = Site::new();
        let heard = Heard::default();
        let kept = heard.clone();
        site.serve("a", move |socket| oblige(&socket, OBLIGING, &kept));
        let mut client = client(&site.nexthop(&["a"]), &[("discard_lhlo_keywords", usual)], &[]);
        let batch = batch(&client.destination, &recipients(1));
        let mut observer = discarding(Ok(says));
        for _ in 0..2 {
            deliver_with(&mut client, &batch, &mut observer);
        }
        let path = site.path("a").display().to_string();
        assert_eq!(observer.peers, [format!("client.example[{path}]")], "asked once for a connection");
        assert!(heard.all().starts_with(verbs), "{}", heard.all());
    }
}

#[test]
fn a_server_of_which_nothing_can_be_known_is_not_spoken_to() {
    let site = Site::new();
    let heard = site.oblige("a", OBLIGING);
    let mut client = client(&site.nexthop(&["a"]), &[], &[]);
    let batch = batch(&client.destination, &recipients(1));
    let mut observer = discarding(Err(io::ErrorKind::Other));
    deliver_with(&mut client, &batch, &mut observer);
    let name = format!("client.example[{}]", site.path("a").display());
    let text = format!("4.3.0 local data error while talking to {name}: other error");
    assert_eq!(outcomes(&observer.collector), [(format!("deferred {text}"), false)]);
    assert_eq!(observer.collector.failed, [format!("0: {text}")]);
    assert!(!heard.all().contains("LHLO"), "{}", heard.all());
}
