//! Queue files and the services beside them, in every state that they can be found in.
//!
//! - Owns: corrupt content, long queue IDs in hashed directories, a root directory of our own, services that are
//!   missing.
//! - Leaves to others: records one by one (tests of the code itself).

use std::path::Path;

use super::client::{Difference, EVERYTHING, NOTHING, both};
use super::instance::{Place, Postfix, Settings};
use super::mail::{header, message, submit, submit_with};
use super::observation::observe;
use super::server::{Answer, Server, Stage, say};

/// Changes octets of a queue file: `find` becomes `put`, which is as long.
fn spoil(path: &Path, find: &[u8], put: &[u8]) {
    let mut octets = std::fs::read(path).unwrap();
    let at = octets.windows(find.len()).position(|window| window == find).expect("the record is there");
    octets[at..at + put.len()].copy_from_slice(put);
    std::fs::write(path, octets).unwrap();
}

#[test]
fn a_corrupt_queue_file_is_put_aside() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::obliging(place.path());
        // The mail waits until its file has been spoilt.
        // bounce(8) dies of such a file; that must not keep it from the next.
        let main = "defer_transports = carry\nservice_throttle_time = 1s\n";
        let settings = Settings::main(main).route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        // The record of the line behind the header: its type, its length, the line.
        let spoilt: [(&str, &[u8], &[u8]); 4] = [
            ("type", b"N\x0dA line to spo", b"?\x0dA line to spo"),
            ("length", b"N\x0dA line to spo", b"N\xff\xff\xff\x7fine"),
            ("end", b"N\x0dA line to spo", b"E\x0dA line to spo"),
            ("none", b"A line to spoil", b"A line to spoil"),
        ];
        for (name, _, _) in spoilt {
            let text = format!("{}\nA line to spo\nA line to spoil\n", header(name));
            submit_with(&postfix, name, &[], &["a@test.example", "b@test.example"], text.as_bytes());
        }
        postfix.settle();
        let log = postfix.log();
        for id in postfix.ids(&log) {
            let named = |name: &str| log.contains(&format!("{id}: from=<{name}@sender.example>"));
            let (_, find, put) = spoilt.iter().find(|(name, ..)| named(name)).unwrap();
            spoil(&postfix.queue_file(&id).unwrap(), find, put);
        }
        postfix.succeed("postqueue", &["-f"], b"");
        postfix.wait_for_lines(3, &["qmgr[", "saving corrupt file"]);
        postfix.wait_for_lines(2, &["status=sent"]);
        postfix.settle();
        let mut seen = observe(&postfix, &[&server]);
        if let Some(warnings) = seen.topics.get_mut("warnings") {
            // It is the master's luck which of its processes had done something before.
            warnings.retain(|line| !line.contains("bad command startup"));
        }
        seen.add("corrupt", postfix.queued("corrupt").len());
        seen
    });
    let Some(pair) = pair else { return };
    pair.show("corrupt", &["3"]);
    pair.show("type log", &["dsn=5.3.0", "status=bounced (unreadable mail queue entry)"]);
    pair.show("type log", &["warning: corrupted queue file: active/<type>"]);
    pair.show("none log", &["status=sent"]);
    let why = "content is read to its end before a server is spoken to";
    let difference = |topic, stock, ours| Difference { topic, stock, ours, why };
    let (relay, none) = ("relay=mx.test.example[DIR/server-1.sock], ", "relay=none, ");
    let eof = "CLIENT: warning: active/<length>: unexpected EOF in data, record type 78 length 268435455";
    let eof = Difference {
        why: "that it is corrupt is all that can be made of it",
        ..difference("length log", eof, "")
    };
    let of = |name| [(name, "log", relay, none), (name, "wire", EVERYTHING, "")];
    let differences = ["type", "length", "end"].map(of).concat();
    let topics: Vec<_> = differences.iter().map(|(name, what, ..)| format!("{name} {what}")).collect();
    let differences = topics.iter().zip(&differences).map(|(topic, it)| difference(topic, it.2, it.3));
    pair.agree_but(&differences.chain([eof]).collect::<Vec<_>>());
}

#[test]
fn long_queue_ids_and_hashed_directories_are_found() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::start(place.path(), |at| match (at.stage, at.user()) {
            (Stage::Rcpt, "busy") => say("450 4.2.1 mailbox busy"),
            _ => Answer::Usual,
        });
        let main = "enable_long_queue_ids = yes\nhash_queue_names = active, deferred, defer, incoming\n\
                    hash_queue_depth = 2\n";
        let postfix =
            Postfix::start(&place, client, Settings::main(main).route("test.example", server.unix()));
        for number in 0..5 {
            submit(&postfix, &format!("long-{number}"), &["alice@test.example", "busy@test.example"]);
        }
        postfix.settle();
        let ids = postfix.ids(&postfix.log());
        assert!(ids.len() == 5 && ids.iter().all(|id| id.len() > 12), "{ids:?}");
        let below = postfix.queue_file(&ids[0]).unwrap();
        assert_eq!(below.strip_prefix(postfix.queue()).unwrap().iter().count(), 4, "{}", below.display());
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("long-4 queue", &["done_recipient: alice@test.example"]);
    pair.agree();
}

#[test]
fn sockets_are_inside_of_the_queue_for_a_service_that_is_locked_in() {
    let pair = both(|client| {
        let place = Place::new();
        // Made here so that the socket is inside of what becomes the root directory.
        let inside = place.path().join("queue/lmtp");
        std::fs::create_dir_all(&inside).unwrap();
        let server = Server::obliging(&inside);
        let settings = Settings { chroot: true, ..Settings::default() };
        let settings = settings
            .route("absolute.example", "unix:/lmtp/server-1.sock")
            .route("relative.example", "unix:lmtp/server-1.sock")
            .route("tcp.example", server.inet())
            .route("outside.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        for name in ["absolute", "relative", "tcp", "outside"] {
            submit(&postfix, name, &[&format!("u@{name}.example")]);
        }
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    for name in ["absolute", "relative", "tcp"] {
        pair.show(&format!("{name} log"), &["status=sent"]);
    }
    pair.show("outside log", &["dsn=4.4.1", "No such file or directory"]);
    pair.agree();
}

#[test]
fn nothing_is_lost_where_a_service_is_missing() {
    for without in ["bounce", "trace", "defer", "flush"] {
        let pair = both(|client| {
            let place = Place::new();
            let server = Server::start(place.path(), |at| match (at.stage, at.user()) {
                (Stage::Rcpt, "busy") => say("450 4.2.1 mailbox busy"),
                (Stage::Rcpt, "nosuch") => say("550 5.1.1 no such user"),
                _ => Answer::Usual,
            });
            let main = "fast_flush_domains = test.example".to_owned();
            let settings = Settings { main, without: vec![without], ..Settings::default() };
            let postfix = Postfix::start(&place, client, settings.route("test.example", server.unix()));
            for (name, user) in [("sent", "alice"), ("deferred", "busy"), ("bounced", "nosuch")] {
                let recipient = format!("{user}@test.example");
                submit(&postfix, name, &[&recipient]);
                let traced = format!("traced-{name}");
                submit_with(&postfix, &traced, &["-N", "success,failure"], &[&recipient], &message(&traced));
            }
            submit_with(&postfix, "verbose", &["-v"], &["alice@test.example"], &message("verbose"));
            postfix.settle();
            observe(&postfix, &[&server])
        });
        let Some(pair) = pair else { return };
        let (topic, words) = match without {
            "bounce" => ("bounced log", "dsn=4.3.0, status=deferred (bounce or trace service failure)"),
            "trace" => ("traced-sent log", "trace service failed)"),
            "defer" => ("deferred log", "defer service failure"),
            _ => ("warnings", "connect to public/flush: "),
        };
        pair.show(topic, &[words]);
        let warning = "CLIENT: warning: <verbose>: trace service failure";
        let twice = format!("{warning}\n{warning}");
        let difference = |stock, ours| Difference {
            topic: "verbose log",
            stock,
            ours,
            why: "each report that fails is told of once",
        };
        match without {
            // Postfix's own tells of it three times.
            "trace" => pair.agree_but(&[difference(warning, ""), difference(NOTHING, &twice)]),
            _ => pair.agree(),
        }
    }
}

#[test]
fn a_site_that_comes_back_can_ask_for_its_mail() {
    let pair = both(|client| {
        let place = Place::new();
        let is_busy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let asked = std::sync::Arc::clone(&is_busy);
        let server = Server::start(place.path(), move |at| match at.stage {
            Stage::Rcpt if asked.load(std::sync::atomic::Ordering::SeqCst) => say("450 4.2.1 busy"),
            _ => Answer::Usual,
        });
        let main = "relay_domains = site.example\nfast_flush_domains = $relay_domains\n";
        let settings = Settings::main(main)
            .route("site.example", server.unix())
            .route("sub.site.example", server.unix())
            .route("other.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        for name in ["site", "sub.site", "other"] {
            submit(&postfix, name, &[&format!("u@{name}.example")]);
        }
        postfix.settle();
        is_busy.store(false, std::sync::atomic::Ordering::SeqCst);
        // flush(8) knows the messages from who deferred them.
        postfix.succeed("postqueue", &["-s", "site.example"], b"");
        postfix.wait_for_line(&["to=<u@site.example>", "status=sent"]);
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("other queue", &["in deferred"]);
    pair.agree();
}
