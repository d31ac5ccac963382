//! How much runs at a time: for a destination, for a recipient, in a transaction.

use std::time::Duration;

use super::peer::{Manner, Peer};
use super::{in_memory, submit, to_socket, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;

fn slow(milliseconds: u64) -> Manner {
    Manner { pause: Duration::from_millis(milliseconds), ..Manner::default() }
}

/// Addresses with a number each.
fn addresses(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("u{number:04}@example.org")).collect()
}

fn as_str(addresses: &[String]) -> Vec<&str> {
    addresses.iter().map(String::as_str).collect()
}

#[test]
fn a_destination_has_no_more_transactions_at_a_time_than_it_may() {
    let site = Site::new("");
    let peer = Peer::start(&site, "peer", slow(100));
    let keys = "workers = 8\n[transport.lmtp]\ndestination_concurrency_limit = 3\n";
    site.configure(&to_socket(&peer.socket, keys));
    let agent = site.start_agent();
    let addresses = addresses(12);
    for address in &addresses {
        submit(&site, "one of many", &[address]);
    }
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(peer.seen().most, 3);
    assert_eq!(peer.recipients(), addresses);
    agent.stop();
}

#[test]
fn a_recipient_has_no_more_transactions_at_a_time_than_it_may() {
    let site = Site::new("");
    let peer = Peer::start(&site, "peer", slow(150));
    let keys = "workers = 8\n[transport.lmtp]\nrecipient_concurrency_limit = 2\n";
    site.configure(&to_socket(&peer.socket, keys));
    let agent = site.start_agent();
    for _ in 0..6 {
        submit(&site, "popular", &["popular@example.org"]);
    }
    submit(&site, "for both", &["popular@example.org", "other@example.org"]);
    for address in addresses(4) {
        submit(&site, "other", &[&address]);
    }
    wait_until_nothing_is_left(&site, SOON);
    let seen = peer.seen();
    assert_eq!(seen.most_for["popular@example.org"], 2);
    assert!(seen.most > 2, "it held up the others too");
    drop(seen);
    assert_eq!(peer.recipients().iter().filter(|to| *to == "popular@example.org").count(), 7);
    agent.stop();
}

#[test]
fn a_transaction_has_no_more_recipients_than_it_may() {
    for (transport, limit, sizes) in [
        ("lmtp", "[transport.lmtp]\ndestination_recipient_limit = 4", &[4, 4, 2][..]),
        ("lmtp", "[transport.lmtp]\ndestination_recipient_limit = 0", &[10]),
        ("local", "", &[1; 10]),
    ] {
        let site = Site::new("");
        let peer = Peer::start(&site, "peer", Manner::default());
        let socket = peer.socket.display();
        // One worker, so that the batches come in order.
        let first = format!("default_transport = \"{transport}:unix:{socket}\"\n");
        site.configure(&format!("{first}workers = 1\nworkers_reserved = 0\n{limit}\n"));
        let agent = site.start_agent();
        let addresses = addresses(10);
        submit(&site, "for ten", &as_str(&addresses));
        wait_until_nothing_is_left(&site, SOON);
        let found: Vec<_> = peer.seen().transactions.iter().map(|one| one.rcpt.len()).collect();
        assert_eq!(found, sizes, "{transport} {limit}");
        assert_eq!(peer.recipients(), addresses);
        agent.stop();
    }
}

#[test]
fn a_slow_destination_leaves_workers_for_others() {
    const PAUSE: u64 = 3000;
    let site = Site::new("");
    let (snail, hare) = (Peer::start(&site, "snail", slow(PAUSE)), Peer::start(&site, "hare", slow(0)));
    let keys = format!(
        "workers = 16\nworkers_reserved = 2\n[routes]\n\"snail.example\" = \"unix:{}\"\n\
         [transport.lmtp]\ndestination_concurrency_limit = 100\ndestination_recipient_limit = 1\n",
        snail.socket.display()
    );
    site.configure(&to_socket(&hare.socket, &keys));
    let agent = site.start_agent();
    let slow: Vec<_> = (0..40).map(|number| format!("u{number}@snail.example")).collect();
    submit(&site, "slow", &as_str(&slow));
    wait_for("all that may be busy", SOON, || (snail.seen().most == 14).then_some(()));
    // The first few have shown that the snail answers at all.
    let before = snail.seen().transactions.len();
    submit(&site, "quick", &["b@hare.example"]);
    site.wait_for_line(&["to=<b@hare.example>", "status=sent"], SOON);
    assert_eq!(snail.seen().transactions.len(), before, "the quick one had to wait for a slow one");
    assert_eq!(snail.seen().most, 14);
    // What is under way is kept; it need not be waited for here.
    agent.kill();
}

#[test]
fn small_mail_overtakes_a_posting_to_a_large_list() {
    const LIST: usize = 3000;
    const BATCHES: usize = LIST / 50;
    let site = Site::new("");
    let peer = Peer::start(&site, "peer", slow(60));
    site.configure(&to_socket(&peer.socket, "workers = 4\nworkers_reserved = 0\n"));
    let agent = site.start_agent();
    let mut expected = addresses(LIST);
    submit(&site, "list", &as_str(&expected));
    wait_for("the posting to begin", SOON, || (!peer.seen().transactions.is_empty()).then_some(()));
    let (messages, recipients) = in_memory(&site, &agent);
    assert_eq!(messages, 1);
    assert!(recipients <= 1500, "{recipients} recipients in memory, of windows of 1,000");
    submit(&site, "small", &["small@example.org"]);
    wait_until_nothing_is_left(&site, 2 * SOON);
    let place = peer.seen().transactions.iter().position(|one| one.recipients() == ["small@example.org"]);
    let place = place.unwrap();
    assert!(place < BATCHES / 2, "the small one came as number {place} of {}", BATCHES + 1);
    expected.insert(0, "small@example.org".to_owned());
    assert_eq!(peer.recipients(), expected, "each exactly once");
    assert_eq!(peer.seen().transactions.len(), BATCHES + 1);
    wait_for("an empty memory", SOON, || (in_memory(&site, &agent) == (0, 0)).then_some(()));
    agent.stop();
}
