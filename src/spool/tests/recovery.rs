//! Recovery: each instruction of a pickup after which a crash may come, and what is left of it.

use std::time::{Duration, SystemTime};

use super::*;

const QUEUE_FILE: &str =
    "lastmile/1\n{\"sender\":\"a@x\",\"recipients\":1}\n-P\n{\"address\":\"b@y\"}\n\nhi\n";

/// Recovers, and checks that there is exactly one message, whole.
fn one_message(queue: &TestQueue, content: &str, what: &str) -> QueueId {
    for result in queue.pickup().recover(&nobody_trusted).unwrap() {
        assert!(matches!(result, PickedUp::Queued(_)), "{what}: {result:?}");
    }
    let listing = queue.listing();
    let [name] = &listing[..] else { panic!("{what}: {listing:?}") };
    let id: QueueId = name.strip_prefix("active/").expect(what).parse().unwrap();
    assert_eq!(queue.content(id), content, "{what}");
    let loaded = queue.spool.load(id, Cursor::default(), 9).unwrap();
    assert_eq!((loaded.unsettled, loaded.recipients[0].1), (1, State::Pending), "{what}");
    assert!(queue.pickup().recover(&nobody_trusted).unwrap().is_empty(), "{what}: a second start");
    id
}

#[test]
fn a_queue_file_whose_pickup_was_interrupted_becomes_one_message() {
    let whole = {
        let queue = TestQueue::new();
        let id = queue.submit(&["b@y"], "hi\n");
        (id, fs::read(queue.at(Place::Active, id.as_str())).unwrap())
    };
    let (id, copy) = (whole.0, &whole.1[..]);
    let half = copy.len() - 2;
    for (what, files) in [
        ("claimed", vec![(Place::Tmp, copy, 0)]),
        ("copy begun", vec![(Place::Tmp, copy, 20)]),
        ("copy half done", vec![(Place::Tmp, copy, half)]),
        ("copy done", vec![(Place::Tmp, copy, copy.len())]),
        ("renamed", vec![(Place::Active, copy, copy.len())]),
        ("renamed, and a power loss took its end", vec![(Place::Active, copy, half)]),
        ("renamed, and a power loss took it all", vec![(Place::Active, copy, 0)]),
    ] {
        let queue = TestQueue::new();
        fs::write(queue.at(Place::Tmp, format!("{id}.in")), QUEUE_FILE).unwrap();
        for (place, copy, length) in files {
            fs::write(queue.at(place, id.as_str()), &copy[..length]).unwrap();
        }
        assert_eq!(one_message(&queue, "hi\r\n", what), id, "{what}");
    }
}

#[test]
fn a_bare_message_whose_pickup_was_interrupted_keeps_its_envelope() {
    for (what, more) in [
        ("claimed", ""),
        ("copy begun", "h"),
        ("copy done but for the head", "hi\r\n"),
        ("more than there should be", "something else entirely\r\n"),
    ] {
        let queue = TestQueue::new();
        let begun = queue.pickup().begin_bare("bare".as_ref(), draft(&["b@y"])).unwrap();
        let id = begun.envelope.id;
        std::io::Write::write_all(&mut &begun.file, more.as_bytes()).unwrap();
        drop(begun);
        assert!(queue.pickup().recover(&nobody_trusted).unwrap().is_empty(), "not claimed: nothing to do");
        fs::write(queue.at(Place::Tmp, format!("{id}.in")), "hi\n").unwrap();
        assert_eq!(one_message(&queue, "hi\r\n", what), id, "{what}");
    }
}

#[test]
fn a_bare_message_without_its_envelope_is_kept_aside() {
    let queue = TestQueue::new();
    let id = queue.spool.new_id().unwrap();
    fs::write(queue.at(Place::Tmp, format!("{id}.in")), "hi\n").unwrap();
    let results = queue.pickup().recover(&nobody_trusted).unwrap();
    let [PickedUp::SetAside { place: Place::Corrupt, reason, .. }] = &results[..] else {
        panic!("{results:?}")
    };
    assert!(reason.contains("envelope"), "{reason}");
    assert_eq!(queue.listing(), [format!("corrupt/{id}")]);
}

/// What a power loss may leave of a copy that was renamed and not synced yet.
#[test]
fn a_bare_message_whose_copy_was_in_active_and_not_on_disk_keeps_its_envelope() {
    const BARE: &str = "Subject: x\n\nhi\n";
    // How much of the content had reached the disk, and whether its length had.
    for (what, synced, has_length) in
        [("nothing", 0, false), ("a part of it", 3, false), ("its length, before zeros", 0, true)]
    {
        let queue = TestQueue::new();
        let claim = |id: QueueId| fs::write(queue.at(Place::Tmp, format!("{id}.in")), BARE).unwrap();
        let unfinished = queue.pickup().begin_bare("bare".as_ref(), draft(&["b@y"])).unwrap();
        let id = unfinished.envelope.id;
        let envelope = unfinished.file.metadata().unwrap().len();
        claim(id);
        assert!(queue.pickup().copy_bare(unfinished, &nobody_trusted).is_ok(), "{what}");
        // Step 5 was not reached, or not synced.
        claim(id);
        let copy = fs::File::options().write(true).open(queue.at(Place::Active, id.as_str())).unwrap();
        let length = copy.metadata().unwrap().len();
        copy.set_len(envelope + synced).unwrap();
        if has_length {
            copy.set_len(length).unwrap();
        }
        assert_eq!(one_message(&queue, "Subject: x\r\n\r\nhi\r\n", what), id, "{what}");
    }
}

#[test]
fn a_claim_that_a_power_loss_has_undone_is_made_again_for_the_same_file_only() {
    let queue = TestQueue::new();
    queue.drop_file("bare", "hi\n");
    let id = queue.pickup().begin_bare("bare".as_ref(), draft(&["b@y"])).unwrap().envelope.id;
    assert!(queue.pickup().retry_claimed(&nobody_trusted).unwrap().is_empty(), "only a start does that");
    assert_eq!(one_message(&queue, "hi\r\n", "the same file"), id);

    // The copy was whole when the power failed, and neither its name nor the claim was on disk.
    let queue = TestQueue::new();
    queue.drop_file("bare", "hi\n");
    let mut unfinished = queue.pickup().begin_bare("bare".as_ref(), draft(&["b@y"])).unwrap();
    unfinished.envelope.origin = "uid=1000".into();
    assert!(unfinished.add_content(&mut &b"hi\n"[..], &SubmitLimits::default()).is_ok());
    assert_eq!(one_message(&queue, "hi\r\n", "a whole copy"), unfinished.envelope.id);

    let queue = TestQueue::new();
    queue.drop_file("bare", "hi\n");
    let id = queue.pickup().begin_bare("bare".as_ref(), draft(&["b@y"])).unwrap().envelope.id;
    // The name is in use again, for another message to somebody else.
    queue.drop_file("other", "secret\n");
    fs::rename(queue.at(Place::Incoming, "other"), queue.at(Place::Incoming, "bare")).unwrap();
    assert!(queue.pickup().recover(&nobody_trusted).unwrap().is_empty());
    assert_eq!(queue.listing(), ["incoming/bare".to_owned(), format!("tmp/{id}")]);
}

#[test]
fn while_the_agent_runs_a_copy_that_it_may_be_delivering_stays_where_it_is() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "hi\n");
    let inode =
        || std::os::unix::fs::MetadataExt::ino(&fs::metadata(queue.at(Place::Active, id.as_str())).unwrap());
    let before = inode();
    fs::write(queue.at(Place::Tmp, format!("{id}.in")), QUEUE_FILE).unwrap();
    assert!(queue.pickup().retry_claimed(&nobody_trusted).unwrap().is_empty());
    assert_eq!((queue.listing(), inode()), (vec![format!("active/{id}")], before));
}

#[test]
fn a_message_that_has_moved_on_is_not_queued_twice() {
    for place in [Place::Active, Place::Deferred, Place::Hold] {
        let queue = TestQueue::new();
        let id = queue.submit(&["b@y", "c@y"], "hi\n");
        if place == Place::Active {
            let file = queue.spool.open_active(id).unwrap().unwrap();
            file.mark(&[0], State::Sent).unwrap();
        } else {
            queue.spool.move_to(id, Place::Active, place).unwrap();
        }
        fs::write(queue.at(Place::Tmp, format!("{id}.in")), QUEUE_FILE).unwrap();
        assert!(queue.pickup().recover(&nobody_trusted).unwrap().is_empty());
        assert_eq!(queue.listing(), [format!("{place}/{id}")]);
    }
}

#[test]
fn while_the_disk_is_full_a_claimed_file_waits_where_it_is() {
    let queue = TestQueue::new();
    let id = queue.spool.new_id().unwrap();
    let begun = queue.pickup().begin_bare("bare".as_ref(), draft(&["b@y"])).unwrap().envelope.id;
    fs::write(queue.at(Place::Tmp, format!("{id}.in")), QUEUE_FILE).unwrap();
    fs::write(queue.at(Place::Tmp, format!("{begun}.in")), "hi\n").unwrap();
    let before = queue.listing();
    let limits = SubmitLimits { minfree: u64::MAX, ..SubmitLimits::default() };
    let mut full = Pickup::new(Arc::clone(&queue.spool), limits);
    let results = full.recover(&nobody_trusted).unwrap();
    assert!(results.iter().all(|result| matches!(result, PickedUp::Postponed { .. })), "{results:?}");
    assert_eq!((results.len(), queue.listing()), (2, before));
    full.set_limits(SubmitLimits::default());
    assert_eq!(full.recover(&nobody_trusted).unwrap().len(), 2);
    let mut queued = [format!("active/{begun}"), format!("active/{id}")];
    queued.sort();
    assert_eq!(queue.listing(), queued);
}

#[test]
fn abandoned_drafts_go_after_36_hours_and_nothing_else_does() {
    let queue = TestQueue::new();
    queue.drop_file(".draft", "x");
    queue.drop_file("finished", QUEUE_FILE);
    fs::create_dir(queue.at(Place::Incoming, ".directory")).unwrap();
    let claimed = queue.pickup().begin_bare("bare".as_ref(), draft(&["b@y"])).unwrap().envelope.id;
    let unclaimed = queue.pickup().begin_bare("bare".as_ref(), draft(&["b@y"])).unwrap().envelope.id;
    fs::write(queue.at(Place::Tmp, format!("{claimed}.in")), "hi\n").unwrap();
    let message = queue.submit(&["b@y"], "x\n");
    let mut pickup = queue.pickup();
    let hours = |hours: u64| SystemTime::now() + Duration::from_secs(hours * 3600);
    assert!(pickup.remove_stale_drafts(hours(35)).unwrap().is_empty());
    let mut removed = pickup.remove_stale_drafts(hours(37)).unwrap();
    removed.sort_by(|a, b| a.0.cmp(&b.0));
    let removed: Vec<(PathBuf, bool)> =
        removed.into_iter().map(|(path, result)| (path.into(), result.is_ok())).collect();
    let expected = [
        (queue.at(Place::Incoming, ".directory"), false),
        (queue.at(Place::Incoming, ".draft"), true),
        (queue.at(Place::Tmp, unclaimed.as_str()), true),
    ];
    assert_eq!(removed, expected);
    assert!(pickup.remove_stale_drafts(hours(38)).unwrap().is_empty(), "what cannot be removed is said once");
    let mut left = [
        format!("active/{message}"),
        "incoming/.directory".into(),
        "incoming/finished".into(),
        format!("tmp/{claimed}"),
        format!("tmp/{claimed}.in"),
    ];
    left.sort();
    assert_eq!(queue.listing(), left);
}

/// Puts a directory in the place of a claimed file, which unlink(2) refuses and rename(2) does not, and back.
fn swap(queue: &TestQueue, id: QueueId) {
    let (claimed, aside) = (queue.at(Place::Tmp, format!("{id}.in")), queue.path.join("aside"));
    let _ = fs::create_dir(&aside);
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, claimed, rustix::fs::CWD, aside, exchange).unwrap();
}

/// The ID under which something is claimed.
fn claimed(queue: &TestQueue) -> QueueId {
    let listing = queue.listing();
    let id = listing.iter().find_map(|name| name.strip_prefix("tmp/")?.strip_suffix(".in")).unwrap();
    id.parse().unwrap()
}

#[test]
fn a_message_whose_claimed_file_cannot_be_removed_is_not_delivered_yet() {
    const WITH_NEXTHOP: &str = "lastmile/1\n{\"sender\":\"a@x\",\"recipients\":1,\"nexthop\":\"unix:/x\"}\n-P\n\
        {\"address\":\"b@y\"}\n\nhi\n";
    let queue = TestQueue::new();
    queue.drop_file("one", WITH_NEXTHOP);
    let mut pickup = queue.pickup();
    // Whether a nexthop counts is asked for while the file is open and being copied.
    let swaps = |_: u32| {
        swap(&queue, claimed(&queue));
        true
    };
    let PickedUp::Postponed { error, .. } = pickup.take_queue_file("one".as_ref(), &swaps) else {
        panic!("{:?}", queue.listing())
    };
    let error = error.to_string();
    assert!(error.contains("cannot remove") && error.contains("/tmp/"), "{error}");
    assert_eq!(queue.listing(), ["incoming/one"], "it has its name back");
    fs::remove_dir(queue.at(Place::Incoming, "one")).unwrap();
    fs::rename(queue.path.join("aside"), queue.at(Place::Incoming, "one")).unwrap();
    let PickedUp::Queued(taken) = pickup.take_queue_file("one".as_ref(), &nobody_trusted) else {
        panic!("{:?}", queue.listing())
    };
    assert_eq!(queue.listing(), [format!("active/{}", taken.id)]);
}

#[test]
fn a_claimed_file_that_stays_after_its_message_is_delivered_is_not_queued_again() {
    let queue = TestQueue::new();
    let (id, other) = (queue.submit(&["b@y"], "hi\n"), queue.spool.new_id().unwrap());
    for id in [id, other] {
        fs::write(queue.at(Place::Tmp, format!("{id}.in")), QUEUE_FILE).unwrap();
    }
    swap(&queue, id);
    let mut pickup = queue.pickup();
    let results = pickup.retry_claimed(&nobody_trusted).unwrap();
    let leftovers = results.iter().filter(|result| matches!(result, PickedUp::Leftover { .. })).count();
    assert_eq!((leftovers, results.len()), (1, 2), "it is said, and in nobody's way: {results:?}");
    assert!(pickup.retry_claimed(&nobody_trusted).unwrap().is_empty(), "it is said once");
    for id in [id, other] {
        assert!(queue.spool.remove(id, Place::Active).unwrap());
    }
    swap(&queue, id);
    assert!(pickup.retry_claimed(&nobody_trusted).unwrap().is_empty());
    assert_eq!(queue.listing(), Vec::<String>::new());
}
