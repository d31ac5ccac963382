//! Recovery: each instruction of a pickup after which a crash may come, and what is left of it.

use std::time::{Duration, SystemTime};

use super::*;

const QUEUE_FILE: &str =
    "lastmile/1\n{\"sender\":\"a@x\",\"recipients\":1}\n-P\n{\"address\":\"b@y\"}\n\nhi\n";

/// Recovers, and checks that there is exactly one message, whole.
fn one_message(queue: &TestQueue, content: &str, what: &str) -> QueueId {
    for result in queue.pickup().recover_tmp(&nobody_trusted).unwrap() {
        assert!(matches!(result, PickedUp::Queued(_)), "{what}: {result:?}");
    }
    let listing = queue.listing();
    let [name] = &listing[..] else { panic!("{what}: {listing:?}") };
    let id: QueueId = name.strip_prefix("active/").expect(what).parse().unwrap();
    assert_eq!(queue.content(id), content, "{what}");
    let loaded = queue.spool.load(id, Cursor::default(), 9).unwrap();
    assert_eq!((loaded.unsettled, loaded.recipients[0].1), (1, State::Pending), "{what}");
    assert!(queue.pickup().recover_tmp(&nobody_trusted).unwrap().is_empty(), "{what}: a second start");
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
        let begun = queue.pickup().begin_bare(draft(&["b@y"])).unwrap();
        let id = begun.envelope.id;
        std::io::Write::write_all(&mut &begun.file, more.as_bytes()).unwrap();
        drop(begun);
        assert!(
            queue.pickup().recover_tmp(&nobody_trusted).unwrap().is_empty(),
            "not claimed: nothing to do"
        );
        fs::write(queue.at(Place::Tmp, format!("{id}.in")), "hi\n").unwrap();
        assert_eq!(one_message(&queue, "hi\r\n", what), id, "{what}");
    }
}

#[test]
fn a_bare_message_without_its_envelope_is_kept_aside() {
    let queue = TestQueue::new();
    let id = queue.spool.new_id().unwrap();
    fs::write(queue.at(Place::Tmp, format!("{id}.in")), "hi\n").unwrap();
    let results = queue.pickup().recover_tmp(&nobody_trusted).unwrap();
    let [PickedUp::SetAside { place: Place::Corrupt, reason, .. }] = &results[..] else {
        panic!("{results:?}")
    };
    assert!(reason.contains("envelope"), "{reason}");
    assert_eq!(queue.listing(), [format!("corrupt/{id}")]);
}

#[test]
fn a_message_that_has_moved_on_is_not_queued_twice() {
    for place in [Place::Active, Place::Deferred, Place::Hold] {
        let queue = TestQueue::new();
        let id = queue.submit(&["b@y"], "hi\n");
        if place != Place::Active {
            queue.spool.move_to(id, Place::Active, place).unwrap();
        }
        fs::write(queue.at(Place::Tmp, format!("{id}.in")), QUEUE_FILE).unwrap();
        assert!(queue.pickup().recover_tmp(&nobody_trusted).unwrap().is_empty());
        assert_eq!(queue.listing(), [format!("{place}/{id}")]);
    }
}

#[test]
fn while_the_disk_is_full_a_claimed_file_waits_where_it_is() {
    let queue = TestQueue::new();
    let id = queue.spool.new_id().unwrap();
    let begun = queue.pickup().begin_bare(draft(&["b@y"])).unwrap().envelope.id;
    fs::write(queue.at(Place::Tmp, format!("{id}.in")), QUEUE_FILE).unwrap();
    fs::write(queue.at(Place::Tmp, format!("{begun}.in")), "hi\n").unwrap();
    let before = queue.listing();
    let limits = SubmitLimits { minfree: u64::MAX, ..SubmitLimits::default() };
    let mut full = Pickup::new(Arc::clone(&queue.spool), limits);
    let results = full.recover_tmp(&nobody_trusted).unwrap();
    assert!(results.iter().all(|result| matches!(result, PickedUp::Postponed { .. })), "{results:?}");
    assert_eq!((results.len(), queue.listing()), (2, before));
    full.set_limits(SubmitLimits::default());
    assert_eq!(full.recover_tmp(&nobody_trusted).unwrap().len(), 2);
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
    let claimed = queue.pickup().begin_bare(draft(&["b@y"])).unwrap().envelope.id;
    let unclaimed = queue.pickup().begin_bare(draft(&["b@y"])).unwrap().envelope.id;
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
