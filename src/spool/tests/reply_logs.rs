//! Reply logs: kept wherever the message is, gone with it, never in its way.

use jiff::Timestamp;

use super::*;
use crate::mail::{EnhancedStatus, Outcome, Reason};

fn reply(position: u32, outcome: fn(Reason) -> Outcome, text: &str) -> LoggedReply {
    let recipient = Recipient::new(position, format!("r{position}@y").parse().unwrap());
    let mut reason = Reason::local(EnhancedStatus::new(4, 2, 2), text);
    reason.reply = Some(format!("452-4.2.2 one\n452 4.2.2 {text}"));
    LoggedReply::new(Timestamp::UNIX_EPOCH, &recipient, &outcome(reason), Some("mx1[::1]:24"))
}

#[test]
fn replies_are_read_back_in_order_and_the_last_one_counts() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "x\n");
    assert!(queue.spool.replies(id).unwrap().is_none());
    let first = [reply(0, Outcome::Deferred, "mailbox full"), reply(1, Outcome::Deferred, "locked")];
    let second = [reply(0, Outcome::Bounced, "no such \"user\"\r\n\u{e9}")];
    queue.spool.append_replies(id, &first).unwrap();
    queue.spool.append_replies(id, &second).unwrap();
    let read: Vec<LoggedReply> = queue.spool.replies(id).unwrap().unwrap().map(Result::unwrap).collect();
    assert_eq!(read, [&first[..], &second[..]].concat());
    let last = queue.spool.last_replies(id, &[0, 7]).unwrap();
    assert_eq!(last.into_values().collect::<Vec<_>>(), second);
    assert_eq!(mode_of(&queue.at(Place::Deferred, format!("{id}.log"))), 0o600);
    let text = fs::read_to_string(queue.at(Place::Deferred, format!("{id}.log"))).unwrap();
    let start = "{\"time\":\"1970-01-01T00:00:00Z\",\"recipient\":0,\
        \"address\":\"r0@y\",\"outcome\":\"deferred\",\"dsn\":\"4.2.2\",\"text\":\"mailbox full\"";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn the_last_line_about_each_of_many_is_found_and_read_by_itself() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "x\n");
    assert_eq!(queue.spool.find_last_replies(id, &[0]).unwrap().of(0).unwrap(), None, "there is no log");
    let path = queue.at(Place::Deferred, format!("{id}.log"));
    fs::write(&path, b"{\"half\": a line\n\n{\"time\":\"20").unwrap();
    let early: Vec<_> = (0..300).map(|at| reply(at, Outcome::Deferred, "later")).collect();
    let late: Vec<_> = (0..300).rev().step_by(3).map(|at| reply(at, Outcome::Bounced, "n\u{f6}")).collect();
    queue.spool.append_replies(id, &early).unwrap();
    queue.spool.append_replies(id, &late).unwrap();
    let positions: Vec<u32> = (0..299).filter(|at| at % 2 == 0).chain([299, 300]).collect();
    let found = queue.spool.find_last_replies(id, &positions).unwrap();
    let one_by_one: Vec<_> = positions.iter().filter_map(|&at| found.of(at).unwrap()).collect();
    let at_once: Vec<_> = queue.spool.last_replies(id, &positions).unwrap().into_values().collect();
    assert_eq!(one_by_one, at_once);
    assert_eq!(one_by_one.len(), 151, "all but the one that nothing was logged of");
    assert_eq!(found.of(1).unwrap(), None, "who was not asked for");
    assert_eq!(found.of(299).unwrap().unwrap().outcome, "bounced");
    // A line that is appended later does not move those that were found.
    queue.spool.append_replies(id, &[reply(0, Outcome::Bounced, "never")]).unwrap();
    assert_eq!(found.of(0).unwrap().unwrap().outcome, "deferred");
}

#[test]
fn a_torn_line_costs_itself_only() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "x\n");
    let path = queue.at(Place::Deferred, format!("{id}.log"));
    fs::write(&path, [&b"{\"time\":\"20"[..]].concat()).unwrap();
    queue.spool.append_replies(id, &[reply(3, Outcome::Deferred, "later")]).unwrap();
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(&[b'x'; 200_000]);
    text.extend_from_slice(b"\n\xff\xfe\n\n");
    fs::write(&path, text).unwrap();
    queue.spool.append_replies(id, &[reply(4, Outcome::Deferred, "later")]).unwrap();
    let read: Vec<u32> =
        queue.spool.replies(id).unwrap().unwrap().map(|reply| reply.unwrap().recipient).collect();
    assert_eq!(read, [3, 4]);
}

#[test]
fn a_full_log_still_takes_what_a_bounce_needs() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "x\n");
    let path = queue.at(Place::Deferred, format!("{id}.log"));
    queue.spool.append_replies(id, &[reply(0, Outcome::Deferred, &"long ".repeat(10_000))]).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 16 << 10, "a server's text is cut");
    fs::File::options().write(true).open(&path).unwrap().set_len(LOG_SIZE_MAX).unwrap();
    let refused = [reply(1, Outcome::Deferred, "later"), reply(2, Outcome::Bounced, "never")];
    queue.spool.append_replies(id, &refused).unwrap();
    let found = queue.spool.last_replies(id, &[1, 2]).unwrap();
    assert_eq!(found.into_values().collect::<Vec<_>>(), refused[1..]);
}

#[test]
fn a_log_goes_with_its_message_and_orphans_go_at_start() {
    let queue = TestQueue::new();
    let (one, two, three) =
        (queue.submit(&["b@y"], "1"), queue.submit(&["b@y"], "2"), queue.submit(&["b@y"], "3"));
    for id in [one, two, three] {
        queue.spool.append_replies(id, &[reply(0, Outcome::Deferred, "later")]).unwrap();
    }
    queue.spool.remove(one, Place::Active).unwrap();
    queue.spool.move_to(two, Place::Active, Place::Hold).unwrap();
    fs::remove_file(queue.at(Place::Active, three.as_str())).unwrap();
    assert_eq!(queue.spool.remove_orphan_logs().unwrap(), [three]);
    assert_eq!(queue.listing(), [format!("deferred/{two}.log"), format!("hold/{two}")]);
}
