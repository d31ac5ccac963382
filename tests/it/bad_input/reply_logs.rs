//! `deferred/ID.log` that is missing, damaged or huge: it costs the words of a bounce, never the bounce.

use std::fs;

use serde_json::json;

use super::{HURRY, assert_rests, id, prepared, put, queue_file, wait_for_files};
use crate::common::agent::SOON;

/// A line as an attempt leaves it.
fn line(recipient: u32, address: &str, text: &str) -> String {
    let line = json!({
        "time": "2026-11-21T19:30:00Z", "recipient": recipient, "address": address, "outcome": "bounced",
        "dsn": "5.1.1", "text": text,
    });
    format!("{line}\n")
}

#[test]
fn a_bounce_is_written_whatever_the_log_of_replies_holds() {
    const WORDS: &str = "said by the server";
    let good = line(0, "b@example.org", WORDS);
    let other = line(0, "c@example.org", "said of another");
    let half = &good.as_bytes()[..good.len() / 2];
    let (zeros, garbage) = (vec![0; 100_000], b"\xff\xfe no log\n\n{\n[]\n".repeat(100));
    let long = format!("{{\"x\":\"{}\"}}\n", "x".repeat(200_000));
    for (what, log, has_words) in [
        ("missing", None, false),
        ("empty", Some(Vec::new()), false),
        ("whole", Some(good.clone().into_bytes()), true),
        ("zeros", Some(zeros.clone()), false),
        ("garbage", Some(garbage.clone()), false),
        ("half a line", Some(half.to_vec()), false),
        ("garbage before a good line", Some([&garbage[..], good.as_bytes()].concat()), true),
        ("a torn line after a good one", Some([good.as_bytes(), half].concat()), true),
        ("without its last LF", Some(good.trim_end().as_bytes().to_vec()), true),
        (
            "a line too long for one before a good one",
            Some([long.as_bytes(), good.as_bytes()].concat()),
            true,
        ),
        ("of nobody in the message", Some(line(4_000_000_000, "b@example.org", "none").into_bytes()), false),
        ("of another's address", Some(other.clone().into_bytes()), true),
        ("huge", Some([other.repeat(120_000).as_bytes(), good.as_bytes()].concat()), true),
    ] {
        let (site, server) = prepared(HURRY);
        let text = queue_file(&id(1), &["b@example.org"], "X: y\r\n\r\n").replace("-P\n", "-R\n");
        put(&site, &format!("active/{}", id(1)), text);
        if let Some(log) = &log {
            put(&site, &format!("deferred/{}.log", id(1)), log);
        }
        let agent = site.start_agent();
        let bounce = server.wait_for_mail_of(&site, "a@example.org", 1);
        let text = String::from_utf8_lossy(&bounce[0].content).into_owned();
        assert!(text.contains("b@example.org"), "{what}: {text}");
        let said = if what == "of another's address" { "said of another" } else { WORDS };
        assert_eq!(text.contains(said), has_words, "{what}: {text}");
        wait_for_files(&site, &[]);
        assert_eq!(server.count(), 1, "{what}");
        agent.stop();
    }
}

/// Where the log cannot be read or written, the bounce waits and the log of the agent says why.
#[test]
fn a_log_of_replies_that_is_no_file_holds_up_its_message_alone() {
    let (site, server) = prepared(HURRY);
    let text = queue_file(&id(1), &["no@example.org", "c@example.org"], "X: y\r\n\r\n");
    put(&site, &format!("active/{}", id(1)), text);
    let log = site.queue().join(format!("deferred/{}.log", id(1)));
    fs::create_dir(&log).unwrap();
    let agent = site.start_agent();
    server.wait_for_mail_of(&site, "c@example.org", 1);
    site.wait_for_lines(2, &["<no@example.org>", "status=deferred", "550 5.1.1", "cannot be recorded"], SOON);
    assert_rests(&site, &agent);
    fs::remove_dir(&log).unwrap();
    server.wait_for_mail_of(&site, "a@example.org", 1);
    wait_for_files(&site, &[]);
    assert_eq!(server.count(), 2);
    agent.stop();
}

#[test]
fn a_log_without_a_message_is_removed_at_start_and_no_other_file() {
    let (site, _server) = prepared("");
    for (number, place) in [(1, "hold"), (2, "corrupt")] {
        put(&site, &format!("{place}/{}", id(number)), queue_file(&id(number), &["b@x"], "X: y\r\n\r\n"));
        put(&site, &format!("deferred/{}.log", id(number)), line(0, "b@x", "kept"));
    }
    let kept =
        ["old.log.bak".to_owned(), ".hidden.log".to_owned(), format!("{}.LOG", id(3)), "a-b.log".to_owned()];
    for name in &kept {
        put(&site, &format!("deferred/{name}"), "not ours to remove");
    }
    let before = site.files();
    for name in [id(3), id(4), "0ABC".to_owned()] {
        put(&site, &format!("deferred/{name}.log"), line(0, "b@x", "orphan"));
    }
    let agent = site.start_agent();
    wait_for_files(&site, &before.iter().map(String::as_str).collect::<Vec<_>>());
    agent.stop();
    assert_eq!(site.files(), before);
}
