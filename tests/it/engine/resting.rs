//! Destinations that cannot be reached, and mail that waits for them or goes elsewhere.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::peer::{Manner, Peer};
use super::{HURRY, Server, submit, submit_job, to_socket, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;

#[test]
fn mail_waits_while_its_destination_rests_and_one_batch_tries_alone() {
    let site = Site::new("");
    let socket = site.path().join("peer.sock");
    // A rest is no longer than the first backoff. What was deferred stays away.
    let keys = "minimal_backoff_time = 2\nqueue_run_delay = 3600\n[transport.lmtp]\ndestination_recipient_limit = 1\n";
    site.configure(&to_socket(&socket, keys));
    let agent = site.start_agent();
    submit(&site, "first", &["first@example.org"]);
    let line = site.wait_for_line(&["to=<first@example.org>", "relay=none", "status=deferred"], SOON);
    assert!(line.contains("dsn=4.4.1") && line.contains("peer.sock]: No such file or directory)"), "{line}");
    let rested = Instant::now();
    let waiting = ["b1@example.org", "b2@example.org", "b3@example.org", "b4@example.org", "b5@example.org"];
    submit(&site, "more", &waiting);
    // The one that tries alone fails too; the others go on waiting.
    site.wait_for_lines(2, &["status=deferred"], SOON);
    assert!(rested.elapsed() >= Duration::from_millis(1800), "it rested for {:?} only", rested.elapsed());
    let peer = Peer::start(&site, "peer", Manner { pause: Duration::from_millis(200), ..Manner::default() });
    wait_for("those who waited", SOON, || (peer.seen().transactions.len() == 4).then_some(()));
    assert_eq!(site.lines_with(&["status=deferred"]).len(), 2, "{}", site.log());
    let times: Vec<_> = peer.seen().transactions.iter().map(|one| one.time).collect();
    assert!(times[1..].iter().all(|time| time.0 >= times[0].1), "it did not go ahead alone: {times:?}");
    assert!(peer.seen().most > 1, "its success did not restore the limit");
    agent.stop();
}

#[test]
fn a_new_route_counts_for_mail_that_waits() {
    let site = Site::new("");
    let keys = format!("{HURRY}[routes]\n\"example.org\" = \"unix:{}/none.sock\"\n", site.path().display());
    let server = Server::start(&site, "mail", "");
    server.serves(&site, &keys);
    let agent = site.start_agent();
    submit(&site, "moved", &["b@example.org"]);
    site.wait_for_line(&["to=<b@example.org>", "none.sock]", "status=deferred"], SOON);
    server.serves(&site, HURRY);
    agent.signal(Signal::HUP);
    site.wait_for_line(&["the configuration was read again"], SOON);
    let line = site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    assert!(line.contains("mail.sock]"), "{line}");
    wait_until_nothing_is_left(&site, SOON);
    server.only_mail_of("b@example.org");
    agent.stop();
}

#[test]
fn a_configuration_that_cannot_be_read_again_changes_nothing_and_says_why() {
    let site = Site::new("");
    let (old, new) = (Server::start(&site, "old", ""), Server::start(&site, "new", ""));
    old.serves(&site, "");
    let agent = site.start_agent();
    new.serves(&site, "no_such_key = 1\nworkers = \"many\"\n");
    agent.signal(Signal::HUP);
    site.wait_for_line(&["error: ", "was not read again: the agent goes on with what it has"], SOON);
    for (key, value) in [("no_such_key", "1"), ("workers", "many")] {
        assert!(!site.lines_with(&["error: ", key, value]).is_empty(), "{key}: {}", site.log());
    }
    // The sendmail command would refuse to go by such a file.
    submit_job(&site, "before", json!({"sender": "a@example.org", "recipients": ["b@example.org"]}));
    old.only_mail_of("b@example.org");
    assert_eq!(new.mail_of("b@example.org"), Vec::<String>::new());
    agent.stop();
}
