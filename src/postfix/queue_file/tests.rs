//! Queue files on disk.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

fn layout(names: &[&str], depth: usize) -> Layout {
    Layout {
        hash_queue_names: names.iter().map(|name| (*name).to_owned()).collect(),
        hash_queue_depth: depth,
    }
}

#[test]
fn messages_lie_where_postfix_puts_them() {
    let deferred_only = layout(&["deferred", "defer"], 1);
    let active = layout(&["deferred", "ACTIVE"], 2);
    for (layout, queue, id, path) in [
        (&deferred_only, "active", "364569B87C0", "active/364569B87C0"),
        (&deferred_only, "deferred", "364569B87C0", "deferred/3/364569B87C0"),
        (&active, "active", "364569B87C0", "active/3/6/364569B87C0"),
        (&active, "active", "4jX2yh2zbPz1Tr1c", "active/6/6/4jX2yh2zbPz1Tr1c"),
        (&active, "active", "A", "active/A/_/A"),
        (&layout(&["active"], 9), "active", "4jX2yh2zbPz1Tr1c", "active/6/6/B/9/1/_/_/_/_/4jX2yh2zbPz1Tr1c"),
        (&layout(&["active"], 0), "active", "ABC", "active/ABC"),
        (&layout(&["active"], 99), "active", "ABC", "active/A/B/C/_/_/_/_/_/_/_/_/_/_/_/_/_/ABC"),
        // The last z counts, and only behind six digits of seconds and four of microseconds.
        (&active, "active", "123456789z12", "active/1/2/123456789z12"),
        (&active, "active", "1234560001z12", "active/0/0/1234560001z12"),
        (&active, "active", "123456zzzzz12", "active/6/F/123456zzzzz12"),
        (&active, "active", "123456000Az12", "active/0/0/123456000Az12"),
    ] {
        assert_eq!(layout.path(queue, id).unwrap(), Path::new(path));
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let layout = layout(&["active"], 2);
    let long = "a".repeat(256);
    for (queue, id) in [
        ("", "A"),
        ("..", "A"),
        ("a/b", "A"),
        ("active_1", "A"),
        ("active\n", "A"),
        (&long[..101], "A"),
        ("active", ""),
        ("active", ".."),
        ("active", "../x"),
        ("active", "A B"),
        ("active", "A\0"),
        ("active", "é"),
        ("active", "A-B"),
        ("active", &long),
    ] {
        assert!(layout.path(queue, id).is_err(), "{queue:?} {id:?}");
    }
    assert!(layout.path(&long[..100], &long[..255]).is_ok());
    assert_eq!(layout.path("a\nb", "A").unwrap_err().to_string(), "\"a\\nb\" is not the name of a queue");
}

fn message(mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("364569B87C0");
    fs::write(&path, b"R\x03a@bM\0N\x01xX\0E\0").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

#[test]
fn a_message_is_opened_for_delivery_if_its_mode_says_that_it_is_complete() {
    for (mode, is_ready) in
        [(0o700, true), (0o744, true), (0o600, false), (0o400, false), (0o500, false), (0o077, false)]
    {
        let (_directory, path) = message(mode);
        match QueueFile::open(&path) {
            Ok(file) => assert!(is_ready && file.path() == path, "{mode:o}"),
            Err(OpenError::NotDeliverable { .. }) => assert!(!is_ready, "{mode:o}"),
            Err(error) => panic!("{mode:o}: {error}"),
        }
    }
}

#[test]
fn what_is_gone_or_no_file_or_locked_is_told_apart() {
    let (directory, path) = message(0o700);
    let gone = QueueFile::open(&directory.path().join("gone"));
    assert!(matches!(gone, Err(OpenError::Gone(_))), "{gone:?}");
    assert!(matches!(QueueFile::open(directory.path()), Err(OpenError::NotDeliverable { .. })));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(QueueFile::open(&link), Err(OpenError::NotDeliverable { .. })));
    let below_a_file = QueueFile::open(&path.join("x"));
    assert!(matches!(&below_a_file, Err(OpenError::Io { action: "examine", .. })), "{below_a_file:?}");

    let locked = File::open(&path).unwrap();
    rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = QueueFile::open(&path);
    assert!(matches!(refused, Err(OpenError::Locked(_))), "{refused:?}");
    drop(locked);

    // Deliveries to several recipients run at a time, and qmgr keeps away from all of them.
    let first = QueueFile::open(&path).unwrap();
    let second = QueueFile::open(&path).unwrap();
    let qmgr = File::open(&path).unwrap();
    let try_lock = || rustix::fs::flock(&qmgr, FlockOperation::NonBlockingLockExclusive);
    drop(first);
    assert_eq!(try_lock(), Err(Errno::WOULDBLOCK));
    drop(second);
    assert_eq!(try_lock(), Ok(()));
}

#[test]
fn a_mark_changes_one_octet() {
    let (_directory, path) = message(0o700);
    let before = fs::read(&path).unwrap();
    let file = QueueFile::open(&path).unwrap();
    file.mark_done(0).unwrap_err();
    file.mark_done(before.len() as u64).unwrap_err();
    file.mark_done(u64::MAX).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), before);
    let at = before.len() - 2;
    file.mark_done(at as u64).unwrap();
    let mut expected = before;
    expected[at] = b'D';
    assert_eq!(fs::read(&path).unwrap(), expected);
}

#[test]
fn a_corrupt_message_gets_the_mode_that_qmgr_looks_for() {
    let (_directory, path) = message(0o700);
    QueueFile::open(&path).unwrap().make_corrupt().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
    assert!(matches!(QueueFile::open(&path), Err(OpenError::NotDeliverable { .. })));
}

#[test]
fn the_content_is_read_from_where_the_request_says() {
    let (_directory, path) = message(0o700);
    let file = QueueFile::open(&path).unwrap();
    let form = Form { line_length_limit: 998, seven_bit: false };
    let loaded = file.load(7, form, 100).unwrap();
    assert_eq!((loaded.measured.size, loaded.octets.as_deref()), (3, Some(&b"x\r\n"[..])));
    let mut found = Vec::new();
    let taken = file.for_each_piece::<()>(7, form, &mut Vec::new(), |piece| {
        found.extend_from_slice(piece);
        Ok(())
    });
    assert_eq!((taken.unwrap(), &found[..]), (0, &b"x\r\n"[..]));
    assert!(file.delivered_to(7).unwrap().is_empty());
    assert!(matches!(file.load(0, form, 100), Err(ContentError::Corrupt(82))));
    assert!(matches!(file.load(99, form, 100), Err(ContentError::Corrupt(-1))));
}
