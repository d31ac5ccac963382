//! Requests as they come: torn, malformed, too many, or not at all.

use super::queue::{Caller, DONE, KEPT, Site, Wish, a_while};

#[test]
fn a_request_may_come_octet_by_octet_while_others_are_served() {
    let site = Site::start("");
    let _server = site.serve("");
    let slow = site.queue("3C0A1", &["slow@example.org"]);
    let octets = slow.request(&Wish::default());
    let (first, rest) = octets.split_at(octets.len() / 2);
    let mut caller = Caller::connect(&site.master);
    first.iter().for_each(|octet| caller.say(&[*octet]));
    let fast = site.queue("3C0A2", &["fast@example.org"]);
    assert_eq!(site.deliver(&fast), DONE);
    assert_eq!(slow.records(), "R");
    rest.iter().for_each(|octet| caller.say(&[*octet]));
    assert_eq!(caller.answer(), DONE);
    assert_eq!((slow.records(), fast.records()), ("D".to_owned(), "D".to_owned()));
}

#[test]
fn what_is_no_request_is_answered_and_its_message_kept() {
    let mut site = Site::start("");
    let server = site.serve("");
    let message = site.queue("3C0A1", &["a@example.org"]);
    let good = String::from_utf8(message.request(&Wish::default())).unwrap();
    let offset = format!("offset\0{}\0dsn_orig_rcpt", message.recipients[0].1);
    let without = |part: &str| {
        assert!(good.contains(part), "{part}");
        good.replace(part, "").into_bytes()
    };
    let with = |part: &str, other: &str| {
        assert!(good.contains(part), "{part}");
        good.replace(part, other).into_bytes()
    };
    for (octets, part) in [
        (
            without("nexthop\0unix:private/lmtp\0"),
            "about the message is malformed: it has no attribute \"nexthop\"",
        ),
        (with("flags\x003\0", "flags\0-3\0"), "its attribute \"flags\" is no number"),
        (with("time\0AAAA", "time\0AAA"), "its attribute \"time\" is malformed"),
        (with("recipient_count\x001\0", "recipient_count\x000\0"), "it has no recipients"),
        (with("recipient_count\x001\0", "recipient_count\x004000000000\0"), "it has 4000000000 recipients"),
        (
            with(&offset, "offset\x000\0dsn_orig_rcpt"),
            "about its recipient 1 is malformed: its attribute \"offset\"",
        ),
        (
            without("notify_flags\x000\0"),
            "about its recipient 1 is malformed: it has no attribute \"notify_flags\"",
        ),
        ([good.as_bytes(), b"more"].concat(), "there are 4 octets behind its last recipient"),
        ([b"flags\0".as_slice(), &vec![b'3'; 400_000]].concat(), "it is longer than 262144 octets"),
        (b"W\0\0\0".to_vec(), "it has no attribute"),
    ] {
        let mut caller = Caller::connect(&site.master);
        caller.say(&octets);
        assert_eq!(caller.answer(), KEPT, "{part}");
        site.master.wait_for_line(&[
            "warning: a delivery request cannot be used: ",
            part,
            "stays in the queue",
        ]);
    }
    assert_eq!((message.records().as_str(), server.counts().connections), ("R", 0));
    assert_eq!(site.deliver(&message), DONE);
}

#[test]
fn who_says_nothing_is_no_trouble_and_who_hangs_up_in_between_is_told_of() {
    let mut site = Site::start("");
    let _server = site.serve("");
    // They hold their places, and no more.
    let silent: Vec<_> = (0..6).map(|_| Caller::connect(&site.master)).collect();
    let message = site.queue("3C0A1", &["a@example.org"]);
    assert_eq!(site.deliver(&message), DONE);
    for caller in &silent {
        caller.end();
    }
    for caller in silent {
        assert_eq!(caller.answer(), "", "it wants nothing");
    }
    let message = site.queue("3C0A2", &["a@example.org"]);
    let octets = message.request(&Wish::default());
    let mut caller = Caller::connect(&site.master);
    caller.say(&octets[..octets.len() - 1]);
    caller.end();
    assert_eq!(caller.answer(), "", "nobody is there to hear it");
    site.master.wait_for_line(&["warning: the queue manager has hung up in the middle of a request: "]);
    assert_eq!(message.records(), "R");
    assert_eq!(site.deliver(&message), DONE);
    assert_eq!(site.master.log().matches("hung up").count(), 1, "{}", site.master.log());
}

#[test]
fn who_does_not_wait_for_the_announcement_is_served_too() {
    let site = Site::start("");
    let _server = site.serve("");
    let message = site.queue("3C0A1", &["a@example.org"]);
    let mut caller = Caller::begin(&site.master);
    caller.say(&message.request(&Wish::default()));
    caller.hear_announcement("protocol~delivery_request_protocol~~");
    assert_eq!(caller.answer(), DONE);
}

#[test]
fn what_there_is_no_worker_for_is_not_let_in() {
    let site = Site::start("lastmile_workers = 2");
    let _server = site.serve("rcpt * 550 5.1.1 no such user");
    // Whoever cannot be reported keeps his worker.
    site.bounce.hold();
    let messages: Vec<_> = (0..6).map(|at| site.queue(&format!("3C0A{at}"), &["a@example.org"])).collect();
    let mut callers: Vec<_> = messages.iter().map(|_| Caller::begin(&site.master)).collect();
    for caller in &mut callers[..2] {
        caller.hear_announcement("protocol~delivery_request_protocol~~");
    }
    assert!(callers[2..].iter().all(|caller| !caller.is_answered()), "two places are taken");
    for (caller, message) in callers.iter_mut().zip(&messages) {
        caller.say(&message.request(&Wish::default()));
    }
    site.bounce.wait_for(2);
    assert!(callers.iter().all(|caller| !caller.is_answered()));
    assert_eq!(site.bounce.heard().len(), 2);
    site.bounce.release();
    for (at, caller) in callers.into_iter().enumerate() {
        let mut caller = caller;
        if at >= 2 {
            caller.hear_announcement("protocol~delivery_request_protocol~~");
        }
        assert_eq!(caller.answer(), DONE);
        assert_eq!(messages[at].records(), "D");
    }
}

#[test]
fn two_requests_of_one_message_are_served_side_by_side() {
    let mut site = Site::start("");
    let _server = site.serve("rcpt no@* 550 5.1.1 no such user");
    let message =
        site.queue("3C0A1", &["a@example.org", "no@example.org", "b@example.org", "no@example.net"]);
    site.bounce.hold();
    let mut callers: Vec<_> = (0..2).map(|_| Caller::connect(&site.master)).collect();
    for (caller, range) in callers.iter_mut().zip([0..2, 2..4]) {
        caller.say(&message.request_for(&Wish::default(), range));
    }
    site.bounce.wait_for(2);
    site.bounce.release();
    for caller in callers {
        assert_eq!(caller.answer(), DONE);
    }
    assert_eq!(message.records(), "DDDD");
    for recipient in ["a@example.org", "no@example.org", "b@example.org", "no@example.net"] {
        site.line_of(&message, recipient);
    }
    assert_eq!(site.mail_of("a@example.org").len() + site.mail_of("b@example.org").len(), 2);
}

#[test]
fn a_request_may_have_ten_thousand_recipients() {
    let site = Site::start("");
    let server = site.serve_with("rcpt no*@* 550 5.1.1 no such user", |config| {
        config.recipient_limit = 10_000;
        config.store = lastmile::sink::Store::Discard;
    });
    let addresses: Vec<_> = (0..10_000)
        .map(|at| if at % 1000 == 7 { format!("no{at}@example.org") } else { format!("a{at}@example.org") })
        .collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let message = site.queue("3C0A1", &addresses);
    assert_eq!(site.deliver(&message), DONE);
    assert!(message.records().bytes().all(|record| record == b'D'));
    assert_eq!((server.counts().messages, server.counts().deliveries), (1, 9990));
    assert_eq!(site.bounce.heard().len(), 10);
}

#[test]
fn no_descriptor_and_no_memory_is_kept_of_what_is_over() {
    let site = Site::start("lastmile_workers = 2");
    let _server = site.serve("rcpt no@* 550 5.1.1 no such user\nrcpt late@* 450 4.2.1 busy");
    let worker = site.running.worker.pid();
    let mut number = 0;
    let mut round = || {
        number += 1;
        let id = format!("3C0A{number}");
        let message = site.queue(&id, &["a@example.org", "no@example.org", "late@example.org"]);
        assert_eq!(site.deliver(&message), KEPT);
        let wish = Wish { nexthop: "unix:private/nobody", ..Wish::default() };
        assert_ne!(site.ask(&message, &wish), DONE);
        std::fs::remove_file(&message.path).unwrap();
        assert_eq!(site.deliver(&message), KEPT);
        let mut caller = Caller::connect(&site.master);
        caller.say(&[&b"flags\0"[..], &[b'3'; 100_000], b"\0\0"].concat());
        assert_eq!(caller.answer(), KEPT);
    };
    let counted = || {
        // What was answered last may still be on its way out.
        a_while();
        let resident = super::master::status_field(worker, "VmRSS:").unwrap();
        let kilobytes: u64 = resident.split(' ').next().unwrap().parse().unwrap();
        (super::master::descriptors(worker).len(), kilobytes)
    };
    (0..30).for_each(|_| round());
    let (descriptors, before) = counted();
    (0..60).for_each(|_| round());
    let (now, after) = counted();
    assert_eq!(now, descriptors);
    assert!(after < before + 2048, "{before} kB, and 240 requests later {after} kB");
}
