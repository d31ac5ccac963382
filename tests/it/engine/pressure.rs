//! More mail than memory has room for.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::peer::{Manner, Peer};
use super::{
    QueueFile, Server, id, in_memory, messages_in, submit, submit_job, to_socket, wait_until_nothing_is_left,
};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;
use crate::holding::{END_OF_DATA, Holding};

#[test]
fn no_more_than_the_limit_is_ever_in_memory() {
    const EACH: u32 = 250;
    const LIMIT: usize = 50;
    let site = Site::new("");
    let manner = Manner { pause: Duration::from_millis(30), ..Manner::default() };
    let peer = Peer::start(&site, "peer", manner);
    site.configure(&to_socket(&peer.socket, &format!("active_limit = {LIMIT}\nworkers = 8\n")));
    let agent = site.start_agent();
    let mut expected = Vec::new();
    for number in 0..EACH {
        let (address, other) =
            (format!("fifo{number:03}@example.org"), format!("file{number:03}@example.org"));
        submit_job(&site, &format!("m{number}"), json!({"sender": "a@example.org", "recipients": [address]}));
        let recipients = [json!({ "address": other })];
        let file = QueueFile {
            id: &id(number),
            head: json!({}),
            states: "-P",
            recipients: &recipients,
            content: "Subject: file\r\n\r\n",
        };
        file.write(&site, "incoming");
        expected.extend([address, other]);
    }
    expected.sort();
    let (until, mut most) = (Instant::now() + 2 * SOON, 0);
    while !site.files().is_empty() {
        let (_, recipients) = in_memory(&site, &agent);
        most = most.max(recipients);
        assert!(recipients <= LIMIT, "{recipients} recipients in memory");
        assert!(Instant::now() < until, "{:?}\n{}", site.files(), site.log());
    }
    // It was full at times, or the limit was not tried.
    assert!(most > LIMIT / 2, "there were never more than {most} in memory");
    assert_eq!(peer.recipients(), expected, "each exactly once");
    agent.stop();
}

#[test]
fn a_dead_destination_with_much_mail_leaves_room_for_others() {
    const DEAD: usize = 200;
    let site = Site::new("");
    let peer = Peer::start(&site, "peer", Manner::default());
    let dead = site.path().join("dead.sock");
    let keys = format!("active_limit = 40\n[routes]\n\"dead.example\" = \"unix:{}\"\n", dead.display());
    site.configure(&to_socket(&peer.socket, &keys));
    let agent = site.start_agent();
    for number in 0..DEAD {
        let to = format!("u{number}@dead.example");
        submit_job(&site, &format!("m{number}"), json!({"sender": "a@example.org", "recipients": [to]}));
    }
    let others: Vec<_> = (0..30).map(|number| format!("u{number:02}@live.example")).collect();
    for (number, to) in others.iter().enumerate() {
        submit_job(&site, &format!("o{number}"), json!({"sender": "a@example.org", "recipients": [to]}));
    }
    site.wait_for_lines(others.len(), &["@live.example>", "status=sent"], SOON);
    assert_eq!(peer.recipients(), others);
    let (_, recipients) = in_memory(&site, &agent);
    assert!((20..=40).contains(&recipients), "{recipients} of the dead destination's in memory");
    let failed = site.lines_with(&["@dead.example>", "status=deferred"]).len();
    assert!(failed < DEAD / 2, "{failed} were tried: the destination did not rest");
    agent.stop();
    // Nothing is lost: those who live are gone, the others wait.
    let left = site.files().iter().filter(|file| !file.ends_with(".log")).count();
    assert_eq!(left, DEAD);
}

#[test]
fn a_message_larger_than_memory_is_delivered_in_windows() {
    let site = Site::new("");
    let peer = Peer::start(&site, "peer", Manner::default());
    site.configure(&to_socket(&peer.socket, "active_limit = 8\n"));
    let agent = site.start_agent();
    let recipients: Vec<_> = (0..100).map(|number| format!("u{number:03}@example.org")).collect();
    submit_job(&site, "large", json!({"sender": "a@example.org", "recipients": recipients}));
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(peer.recipients(), recipients);
    wait_for("an empty memory", SOON, || (in_memory(&site, &agent) == (0, 0)).then_some(()));
    agent.stop();
}

#[test]
fn several_lists_in_windows_stay_within_memory_together() {
    // Windows are of a sixteenth: all lists together would like to have half as much again.
    const LIMIT: usize = 64;
    const LISTS: usize = 24;
    let site = Site::new("");
    let manner = Manner { pause: Duration::from_millis(20), ..Manner::default() };
    let peer = Peer::start(&site, "peer", manner);
    site.configure(&to_socket(
        &peer.socket,
        &format!("active_limit = {LIMIT}\nworkers = 8\n[transport.lmtp]\ndestination_recipient_limit = 2\n"),
    ));
    let agent = site.start_agent();
    let mut expected = Vec::new();
    for list in 0..LISTS {
        let to: Vec<_> = (0..30).map(|number| format!("u{number:02}@list{list}.example")).collect();
        submit_job(&site, &format!("list{list}"), json!({"sender": "a@example.org", "recipients": to}));
        expected.extend(to);
    }
    expected.sort();
    let (until, mut most) = (Instant::now() + 2 * SOON, 0);
    while !site.files().is_empty() {
        let (_, recipients) = in_memory(&site, &agent);
        most = most.max(recipients);
        assert!(Instant::now() < until, "{:?}\n{}", site.files(), site.log());
    }
    // Where there is no room left a list that has begun still gets on, by one recipient at a time.
    assert!((LIMIT / 2..=LIMIT + LISTS).contains(&most), "{most} recipients in memory");
    assert_eq!(peer.recipients(), expected, "each exactly once");
    agent.stop();
}

#[test]
fn refused_recipients_in_a_later_window_leave_nothing_behind_in_memory() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "data-done u1@* delay 300ms");
    // Windows of two; the second is read while a recipient of the first is still under way.
    site.configure(&format!(
        "default_transport = \"local:unix:{}\"\nactive_limit = 8\n",
        server.socket.display()
    ));
    site.start_agent().stop();
    let recipients: Vec<_> =
        (0..4).map(|number| json!({"address": format!("u{number}@example.org")})).collect();
    // An attempt was interrupted before the bounce for the last two was on disk.
    let file = QueueFile {
        id: &id(1),
        head: json!({}),
        states: "-PPRR",
        recipients: &recipients,
        content: "Subject: windows\r\n\r\n",
    };
    file.write(&site, "active");
    let agent = site.start_agent();
    site.wait_for_line(&["sender non-delivery notification"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    let bounce = server.only_mail_of("a@example.org");
    let tells_of = |number: u32| bounce.contains(&format!("Final-Recipient: rfc822; u{number}@example.org"));
    assert_eq!([0, 1, 2, 3].map(tells_of), [false, false, true, true], "{bounce}");
    assert_eq!([0, 1].map(|number| server.mail_of(&format!("u{number}@example.org")).len()), [1, 1]);
    wait_for("an empty memory", SOON, || (in_memory(&site, &agent) == (0, 0)).then_some(()));
    agent.stop();
}

#[test]
fn a_message_that_waits_for_room_costs_nothing() {
    let site = Site::new("");
    let server = Holding::start(&site, &[END_OF_DATA, "", "", "", "", "", "", "", ""]);
    let keys = format!(
        "active_limit = 8\nbounce_nexthop = \"unix:{}.none\"\n[transport.lmtp]\ncache_connection = \"no\"\n",
        server.socket.display()
    );
    site.configure(&to_socket(&server.socket, &keys));
    let agent = site.start_agent();
    for number in 0..8 {
        let to = ["b@example.org"];
        submit_job(&site, &format!("m{number}"), json!({"sender": "a@example.org", "recipients": to}));
    }
    server.wait_until_it_holds(&site);
    wait_for("all of the messages", SOON, || (messages_in(&site, "active").len() == 8).then_some(()));
    let before = processor_time(&site);
    std::thread::sleep(Duration::from_secs(1));
    let spent = processor_time(&site) - before;
    assert!(spent < 20, "{spent} ticks of 100 while nothing could be done");
    // The last quarter is not for a destination that holds so much.
    assert_eq!(in_memory(&site, &agent), (6, 6));
    server.release();
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
}

#[test]
fn job_lines_that_wait_for_room_cost_no_processor_time() {
    const WAITING: usize = 50;
    let site = Site::new("");
    let mut held = [""; 1 + WAITING];
    held[0] = END_OF_DATA;
    let server = Holding::start(&site, &held);
    // The probe at the start goes elsewhere.
    let keys = format!(
        "active_limit = 1\nbounce_nexthop = \"unix:{}.none\"\n[transport.lmtp]\ncache_connection = \"no\"\n",
        server.socket.display()
    );
    site.configure(&to_socket(&server.socket, &keys));
    let agent = site.start_agent();
    submit_job(&site, "held", json!({"sender": "a@example.org", "recipients": ["b@example.org"]}));
    server.wait_until_it_holds(&site);
    for number in 0..WAITING {
        let job = json!({"sender": "a@example.org", "recipients": [format!("c{number}@example.org")]});
        submit_job(&site, &format!("m{number}"), job);
    }
    std::thread::sleep(Duration::from_millis(300));
    let fifo = fs::File::open(site.queue().join("jobs")).unwrap();
    assert!(rustix::io::ioctl_fionread(&fifo).unwrap() > 0, "the lines were read: nothing was tried");
    let before = agent.cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    let spent = agent.cpu_time() - before;
    assert!(spent < Duration::from_millis(200), "{spent:?} of a second while nothing could be done");
    assert_eq!(in_memory(&site, &agent), (1, 1));
    server.release();
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(site.wait_for_lines(1 + WAITING, &["status=sent"], SOON).len(), 1 + WAITING);
    agent.stop();
}

#[test]
fn mail_whose_line_found_no_room_in_the_fifo_is_not_left_for_the_next_listing() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "");
    let agent = site.start_agent();
    // The first listings are over; the next are a minute away.
    submit(&site, "before", &["before@example.org"]);
    server.only_mail_of("before@example.org");
    std::thread::sleep(Duration::from_millis(500));
    agent.signal(Signal::STOP);
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut fifo = fs::OpenOptions::new();
    let mut fifo = fifo.write(true).custom_flags(nonblocking).open(site.queue().join("jobs")).unwrap();
    // Empty lines mean nothing, but take room.
    for size in [4096, 1] {
        while fifo.write(&vec![b'\n'; size]).is_ok() {}
    }
    let recipients = ["b@example.org", "c@example.org", "d@example.org"];
    recipients.iter().for_each(|recipient| submit(&site, "no room", &[recipient]));
    agent.signal(Signal::CONT);
    recipients.iter().for_each(|recipient| drop(server.only_mail_of(recipient)));
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
}

/// Ticks (of 10 ms) that the agent's threads have run.
fn processor_time(site: &Site) -> u64 {
    let pid = fs::read_to_string(site.queue().join("agent.lock")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
    // The second field, in parentheses, is the only one that may hold blanks.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
