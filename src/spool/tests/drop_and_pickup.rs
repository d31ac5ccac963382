//! Pickup: what anybody may drop, what becomes of it, and whom nobody can fool.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode};

use super::*;
use crate::mail::BodyType;

const FILE: &str = "lastmile/1
{\"sender\":\"a@x\",\"recipients\":2,\"nexthop\":\"lmtp:unix:/evil\",\"id\":\"../../etc\",\
\"arrival\":\"1970-01-01T00:00:00Z\",\"origin\":\"uid=0\"}
-SB
{\"address\":\"b@y\"}
{\"address\":\"c@y\",\"notify\":\"NEVER\",\"unknown\":1}

Subject: x

b\u{e9}
";

fn take(queue: &TestQueue, name: &str) -> PickedUp {
    queue.pickup().take_queue_file(name.as_ref(), &nobody_trusted)
}

fn queued(picked_up: PickedUp) -> Taken {
    match picked_up {
        PickedUp::Queued(taken) => taken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_a_dropped_file_only_what_its_owner_may_say_counts() {
    let queue = TestQueue::new();
    queue.drop_file("one", FILE);
    let taken = queued(take(&queue, "one"));
    assert_eq!(taken.ignored_nexthop.as_deref(), Some("lmtp:unix:/evil"));
    let loaded = queue.spool.load(taken.id, Cursor::default(), 9).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let envelope = &loaded.envelope;
    assert_eq!((envelope.id, envelope.origin.clone()), (taken.id, format!("uid={uid}")));
    assert_eq!((envelope.nexthop.as_deref(), envelope.body), (None, BodyType::EightBitMime));
    assert!(envelope.arrival.as_second() > 1_700_000_000);
    assert_eq!(envelope.size, taken.size);
    let states: Vec<State> = loaded.recipients.iter().map(|(_, state)| *state).collect();
    assert_eq!(states, [State::Pending; 2], "states are ours");
    assert!(loaded.recipients[1].0.notify.never());
    assert_eq!(queue.content(taken.id), "Subject: x\r\n\r\nb\u{e9}\r\n", "wire form, whatever the file had");
    assert_eq!(queue.listing(), [format!("active/{}", taken.id)]);
}

#[test]
fn a_nexthop_counts_for_trusted_users() {
    let queue = TestQueue::new();
    queue.drop_file("one", FILE);
    let uid = rustix::process::geteuid().as_raw();
    let taken = queued(queue.pickup().take_queue_file("one".as_ref(), &|found| found == uid));
    assert_eq!(taken.ignored_nexthop, None);
    let envelope = queue.spool.load(taken.id, Cursor::default(), 1).unwrap().envelope;
    assert_eq!(envelope.nexthop.as_deref(), Some("lmtp:unix:/evil"));
}

#[test]
fn addresses_without_a_domain_get_one_on_every_way_in() {
    const BARE_ADDRESSES: &str = "lastmile/1\n{\"sender\":\"ann\",\"recipients\":2}\n-PP\n{\"address\":\"bob\"}\n\
        {\"address\":\"c@y\",\"sender\":\"list\"}\n\nhi\n";
    let queue = TestQueue::new();
    let mut pickup = queue.pickup();
    pickup.complete_with("example.org");
    queue.drop_file("queue-file", BARE_ADDRESSES);
    queue.drop_file("bare", "hi\n");
    let mut message = draft(&["bob", "c@y"]);
    message.sender = "ann".parse().unwrap();
    message.recipients[1].sender = Some("list".parse().unwrap());
    // As the agent's socket takes it.
    let submitted = message.clone().completed("example.org");
    let ids = [
        queued(pickup.take_queue_file("queue-file".as_ref(), &nobody_trusted)).id,
        queued(pickup.take_bare("bare".as_ref(), message, &nobody_trusted)).id,
        queue.spool.submit(submitted, &mut &b"hi\n"[..], &SubmitLimits::default()).unwrap(),
    ];
    for id in ids {
        let loaded = queue.spool.load(id, Cursor::default(), 9).unwrap();
        let recipients: Vec<_> = loaded.recipients.iter().map(|(one, _)| one.address.to_string()).collect();
        let sender = loaded.recipients[1].0.sender.as_ref().unwrap();
        assert_eq!(loaded.envelope.sender, "ann@example.org".parse().unwrap(), "{id}");
        assert_eq!(recipients, ["bob@example.org", "c@y"], "{id}");
        assert_eq!(*sender, "list@example.org".parse().unwrap(), "{id}");
    }
}

#[test]
fn what_our_own_submitters_drop_is_picked_up() {
    let queue = TestQueue::new();
    let limits = SubmitLimits::default();
    let name = queue.spool.drop_incoming(draft(&["b@y", "c@y"]), &mut &b"hi\n"[..], &limits).unwrap();
    assert_eq!(queue.pickup().peek(name.as_ref()).unwrap(), Peek::QueueFile);
    let taken = queued(take(&queue, &name));
    assert_eq!(queue.content(taken.id), "hi\r\n");
    assert!(matches!(take(&queue, &name), PickedUp::Gone), "once");
}

#[test]
fn names_and_first_lines_tell_what_a_file_seems_to_be() {
    let queue = TestQueue::new();
    queue.drop_file("queue-file", FILE);
    queue.drop_file("other.version", "lastmile/7\n");
    queue.drop_file("bare", "Subject: x\n\n");
    queue.drop_file("empty", "");
    queue.drop_file(".unfinished", FILE);
    queue.drop_file("bad name", FILE);
    queue.drop_file(&"x".repeat(65), FILE);
    fs::create_dir(queue.at(Place::Incoming, "directory")).unwrap();
    symlink("bare", queue.at(Place::Incoming, "link")).unwrap();
    let pickup = queue.pickup();
    for (name, seems) in [
        ("queue-file", Peek::QueueFile),
        ("other.version", Peek::QueueFile),
        ("bare", Peek::Bare),
        ("empty", Peek::Bare),
        (".unfinished", Peek::Nothing),
        ("missing", Peek::Nothing),
        ("bad name", Peek::Unusable),
        (&"x".repeat(65), Peek::Unusable),
        ("directory", Peek::Unusable),
        ("link", Peek::Unusable),
        ("x/../../active/x", Peek::Unusable),
    ] {
        assert_eq!(pickup.peek(name.as_ref()).unwrap(), seems, "{name}");
    }
}

#[test]
fn what_is_of_no_use_is_kept_aside_with_a_reason() {
    let edited = |from: &str, to: &str| {
        assert!(FILE.contains(from), "{from}");
        FILE.replacen(from, to, 1)
    };
    let queue = TestQueue::new();
    for (file, place, says) in [
        (edited("lastmile/1", "lastmile/2"), Place::Hold, "another version"),
        ("Subject: x\n\n".into(), Place::Corrupt, "does not begin"),
        (String::new(), Place::Corrupt, "does not begin"),
        (edited("\"recipients\":2", "\"recipients\":3"), Place::Corrupt, "states line"),
        (edited("\"recipients\":2", "\"recipients\":1"), Place::Corrupt, "states line"),
        (edited("\"recipients\":2", "\"recipients\":-1"), Place::Corrupt, "head does not parse"),
        (edited("-SB", "-SX"), Place::Corrupt, "unknown"),
        (edited("\"b@y\"", "\"b@y\\r\\nDATA\""), Place::Corrupt, "recipient 0 does not parse"),
        (edited("\n\nSubject", "\n{\"address\":\"d@y\"}\n\nSubject"), Place::Corrupt, "more recipients"),
        (edited("{\"address\":\"b@y\"}\n", ""), Place::Corrupt, "recipient 1 does not parse"),
        (edited("\"id\"", "\"size\":null,\"id\""), Place::Corrupt, "never finished"),
        (edited("\"id\"", "\"size\":5,\"id\""), Place::Corrupt, "says that the content has 5 octets"),
        (edited("/evil", "/evil\\u0000"), Place::Corrupt, "nexthop has control characters"),
        (edited("\n", "\r\n"), Place::Hold, "another version"),
        (FILE[..40].into(), Place::Corrupt, "head ends nowhere"),
        (FILE[..FILE.find("\n\nSubject").unwrap() + 1].into(), Place::Corrupt, "ends within"),
    ] {
        queue.drop_file("one", &file);
        let PickedUp::SetAside { id, place: found, reason, .. } = take(&queue, "one") else {
            panic!("{file}");
        };
        assert_eq!(found, place, "{reason}");
        assert!(reason.contains(says), "{reason}");
        assert_eq!(queue.listing(), [format!("{place}/{id}")], "{reason}");
        assert_eq!(fs::read_to_string(queue.at(place, id.as_str())).unwrap(), file, "kept as it was");
        fs::remove_file(queue.at(place, id.as_str())).unwrap();
    }
    let size = FILE.split_once("\n\n").unwrap().1.len();
    queue.drop_file("one", edited("\"id\"", &format!("\"size\":{size},\"id\"")));
    queued(take(&queue, "one"));
}

#[test]
fn no_beginning_of_what_our_submitters_drop_passes_for_a_message() {
    let queue = TestQueue::new();
    let limits = SubmitLimits::default();
    let name = queue.spool.drop_incoming(draft(&["b@y"]), &mut &b"Subject: x\n\nhi\n"[..], &limits).unwrap();
    let whole = fs::read(queue.at(Place::Incoming, &name)).unwrap();
    for length in 0..whole.len() {
        fs::write(queue.at(Place::Incoming, &name), &whole[..length]).unwrap();
        let taken = take(&queue, &name);
        let PickedUp::SetAside { place: Place::Corrupt, id, .. } = taken else {
            panic!("{length}: {taken:?}")
        };
        fs::remove_file(queue.at(Place::Corrupt, id.as_str())).unwrap();
    }
    queue.drop_file(&name, whole);
    queued(take(&queue, &name));
    assert_eq!(queue.listing().len(), 1);
}

#[test]
fn what_is_no_plain_file_is_kept_aside_and_never_followed() {
    let queue = TestQueue::new();
    let secret = queue.path.join("secret");
    fs::write(&secret, FILE).unwrap();
    let at = queue.at(Place::Incoming, "one");
    type Make = fn(&Path, &Path);
    let makes: [(Make, &str); 5] = [
        (|at, secret| symlink(secret, at).unwrap(), "it is a link"),
        (|at, secret| fs::hard_link(secret, at).unwrap(), "more than one name"),
        (|at, _| fs::create_dir(at).unwrap(), "not a regular file"),
        (
            |at, _| rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::from(0o666), 0).unwrap(),
            "not a regular file",
        ),
        (|at, _| drop(UnixListener::bind(at).unwrap()), "a socket"),
    ];
    for (make, says) in makes {
        make(&at, &secret);
        let PickedUp::SetAside { id, place, reason, .. } = take(&queue, "one") else { panic!("{says}") };
        assert!(reason.contains(says), "{reason}");
        assert_eq!(queue.listing(), [format!("corrupt/{id}")]);
        let kept = queue.at(place, id.as_str());
        fs::remove_file(&kept).or_else(|_| fs::remove_dir(&kept)).unwrap();
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), FILE);
}

#[test]
fn a_name_that_none_may_have_is_kept_aside_and_one_that_leads_elsewhere_touched_never() {
    let queue = TestQueue::new();
    for name in [OsString::from("a b"), OsString::from_vec(b"\xff\n".to_vec()), "x".repeat(65).into()] {
        fs::write(queue.at(Place::Incoming, &name), FILE).unwrap();
        let taken = queue.pickup().take_queue_file(&name, &nobody_trusted);
        let PickedUp::SetAside { reason, place: Place::Corrupt, id, .. } = taken else { panic!("{taken:?}") };
        assert!(reason.contains("its name is not 1 to 64"), "{reason}");
        fs::remove_file(queue.at(Place::Corrupt, id.as_str())).unwrap();
    }
    let id = queue.submit(&["b@y"], "x\n");
    for name in [format!("../active/{id}"), "..".into(), ".".into(), String::new(), "/etc/hosts".into()] {
        let taken = queue.pickup().take_queue_file(name.as_ref(), &nobody_trusted);
        assert!(matches!(taken, PickedUp::Stuck { .. }), "{name}: {taken:?}");
        let taken = queue.pickup().take_bare(name.as_ref(), draft(&["b@y"]), &nobody_trusted);
        assert!(matches!(taken, PickedUp::Stuck { .. }), "{name}: {taken:?}");
    }
    assert_eq!(queue.listing(), [format!("active/{id}")]);
}

#[test]
fn a_bare_message_gets_its_envelope_from_its_job_line() {
    let queue = TestQueue::new();
    queue.drop_file("bare", "Subject: x\n\nhi");
    let line = Draft { nexthop: Some("lmtp:unix:/run/lmtp".into()), ..draft(&["b@y", "c@y"]) };
    let taken = queued(queue.pickup().take_bare("bare".as_ref(), line.clone(), &nobody_trusted));
    let loaded = queue.spool.load(taken.id, Cursor::default(), 9).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!((loaded.envelope.nexthop.clone(), loaded.unsettled), (line.nexthop.clone(), 2));
    assert_eq!(loaded.envelope.origin, format!("uid={uid}"), "the file's owner, not the line's word");
    assert_eq!(queue.content(taken.id), "Subject: x\r\n\r\nhi\r\n");
    assert_eq!(queue.listing(), [format!("active/{}", taken.id)]);

    let missing = queue.pickup().take_bare("bare".as_ref(), line.clone(), &nobody_trusted);
    assert!(matches!(missing, PickedUp::Gone), "{missing:?}");
    queue.drop_file("queue-file", FILE);
    let taken = queued(queue.pickup().take_bare("queue-file".as_ref(), line, &nobody_trusted));
    assert_eq!(taken.ignored_nexthop.as_deref(), Some("lmtp:unix:/evil"), "a queue file speaks for itself");
    assert!(queue.listing().iter().all(|name| name.starts_with("active/")), "{:?}", queue.listing());
}

#[test]
fn a_message_that_is_too_large_is_kept_aside_and_one_that_finds_no_room_waits() {
    let queue = TestQueue::new();
    let limits = SubmitLimits { message_size_limit: 100, minfree: 0 };
    let mut small = Pickup::new(Arc::clone(&queue.spool), limits);
    queue.drop_file("bare", "x".repeat(99));
    queue.drop_file("file", format!("{FILE}{}", "x".repeat(100)));
    let taken = [
        small.take_bare("bare".as_ref(), draft(&["b@y"]), &nobody_trusted),
        small.take_queue_file("file".as_ref(), &nobody_trusted),
    ];
    for taken in taken {
        let PickedUp::SetAside { reason, place: Place::Corrupt, id, .. } = taken else { panic!("{taken:?}") };
        assert!(reason.contains("message_size_limit"), "{reason}");
        fs::remove_file(queue.at(Place::Corrupt, id.as_str())).unwrap();
    }
    let mut full = Pickup::new(Arc::clone(&queue.spool), SubmitLimits { minfree: u64::MAX, ..limits });
    queue.drop_file("bare", "x");
    queue.drop_file("file", FILE);
    let taken = full.take_bare("bare".as_ref(), draft(&["b@y"]), &nobody_trusted);
    assert!(matches!(&taken, PickedUp::Postponed { error, .. } if !error.is_permanent()), "{taken:?}");
    let taken = full.take_queue_file("file".as_ref(), &nobody_trusted);
    assert!(matches!(&taken, PickedUp::Postponed { error, .. } if !error.is_permanent()), "{taken:?}");
    assert_eq!(queue.listing(), ["incoming/bare", "incoming/file"], "both are where they were");
    full.set_limits(SubmitLimits::default());
    queued(full.take_queue_file("file".as_ref(), &nobody_trusted));
}

#[test]
fn a_foreign_file_in_the_queue_is_taken_in_like_a_dropped_one() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let queue = TestQueue::new();
    let id = queue.spool.new_id().unwrap();
    fs::write(queue.at(Place::Active, id.as_str()), FILE).unwrap();
    std::os::unix::fs::chown(queue.at(Place::Active, id.as_str()), Some(1000), None).unwrap();
    let taken = queued(queue.pickup().take_foreign(id, Place::Active, &nobody_trusted));
    assert_eq!((taken.id, taken.uid), (id, 1000));
    assert_eq!(taken.ignored_nexthop.as_deref(), Some("lmtp:unix:/evil"));
    assert_eq!(queue.spool.load(id, Cursor::default(), 9).unwrap().unsettled, 2);
    assert_eq!(queue.listing(), [format!("active/{id}")]);
}

#[test]
fn what_cannot_be_moved_is_said_once() {
    let (agent, group) = (4711, 4712);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let queue = TestQueue::owned_by(Some((Uid::from_raw(agent), Gid::from_raw(group))));
    // Somebody's directory: to move it the agent would have to write to it.
    as_user(1000, 1000, || {
        let made = queue.at(Place::Incoming, "directory");
        fs::create_dir(&made).unwrap();
        fs::set_permissions(&made, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(queue.at(Place::Incoming, "private"), FILE).unwrap();
        fs::set_permissions(queue.at(Place::Incoming, "private"), fs::Permissions::from_mode(0o600)).unwrap();
    });
    let taken = as_user(agent, group, || {
        let mut pickup = queue.pickup();
        ["directory", "directory", "private"]
            .map(|name| pickup.take_queue_file(name.as_ref(), &nobody_trusted))
    });
    let Some([first, second, private]) = taken else { return };
    assert!(matches!(first, PickedUp::Stuck { .. }), "{first:?}");
    assert!(matches!(second, PickedUp::Gone), "{second:?}");
    let PickedUp::SetAside { reason, place: Place::Corrupt, .. } = private else { panic!("{private:?}") };
    assert!(reason.contains("may not read it"), "{reason}");
}

#[test]
fn what_cannot_be_put_into_active_keeps_its_dropped_file() {
    let queue = TestQueue::new();
    queue.drop_file("one", FILE);
    // The last step before the claimed file goes is the one that fails.
    fs::remove_dir(queue.at(Place::Active, "")).unwrap();
    assert!(matches!(take(&queue, "one"), PickedUp::Postponed { .. }));
    assert_eq!(fs::read_to_string(queue.at(Place::Incoming, "one")).unwrap(), FILE);
}
