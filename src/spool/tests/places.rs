//! The queue directory: modes, owners, the lock, the FIFO, moves.

use std::os::unix::fs::{FileTypeExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;

#[test]
fn a_new_queue_has_the_modes_that_keep_it_safe() {
    let queue = TestQueue::new();
    for (name, mode) in [
        ("", 0o755),
        ("incoming", 0o3733),
        ("active", 0o700),
        ("deferred", 0o700),
        ("hold", 0o700),
        ("corrupt", 0o700),
        ("tmp", 0o700),
        ("agent.lock", 0o600),
        ("jobs", 0o620),
    ] {
        assert_eq!(mode_of(&queue.path.join(name)), mode, "{name:?}");
    }
    assert!(fs::metadata(queue.path.join("jobs")).unwrap().file_type().is_fifo());
}

#[test]
fn a_queue_with_unsafe_parts_is_refused_in_one_sentence() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 9] = [
        ("incoming listed", |q| chmod(&q.join("incoming"), 0o3777), "mode is 3777 (chmod 3733"),
        ("incoming not sticky", |q| chmod(&q.join("incoming"), 0o2733), "mode is 2733 (chmod 3733"),
        ("active open", |q| chmod(&q.join("active"), 0o755), "mode is 0755 (chmod 0700"),
        ("queue open", |q| chmod(q, 0o777), "others than its owner may write"),
        ("jobs open", |q| chmod(&q.join("jobs"), 0o622), "its mode is 0622"),
        (
            "a link as directory",
            |q| replace(q, "hold", |at| symlink("/tmp", at).unwrap()),
            "is not a directory",
        ),
        ("a file as directory", |q| replace(q, "tmp", |at| fs::write(at, "").unwrap()), "is not a directory"),
        ("a file as FIFO", |q| replace(q, "jobs", |at| fs::write(at, "").unwrap()), "not a FIFO"),
        (
            "a second name of the lock",
            |q| fs::hard_link(q.join("agent.lock"), q.join("other")).unwrap(),
            "not a plain file with one name",
        ),
    ];
    for (what, damage, says) in cases {
        let TestQueue { spool, path, _lock, _directory } = TestQueue::new();
        drop((spool, _lock));
        damage(&path);
        let error = Spool::prepare(&path, None).expect_err(what).to_string();
        assert!(error.contains(says), "{what}: {error}");
        assert!(!error.contains('\n'), "{what}: {error}");
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn replace(queue: &Path, name: &str, make: impl FnOnce(&Path)) {
    let path = queue.join(name);
    fs::remove_dir(&path).or_else(|_| fs::remove_file(&path)).unwrap();
    make(&path);
}

#[test]
fn a_stricter_incoming_is_the_sites_choice() {
    let TestQueue { spool, path, _lock, _directory } = TestQueue::new();
    drop((spool, _lock));
    for mode in [0o3730, 0o700, 0o3720] {
        chmod(&path.join("incoming"), mode);
        Spool::prepare(&path, None).unwrap();
        assert_eq!(mode_of(&path.join("incoming")), mode);
    }
}

#[test]
fn one_agent_per_queue() {
    let queue = TestQueue::new();
    let error = Spool::prepare(&queue.path, None).unwrap_err();
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    assert!(Spool::open(&queue.path).unwrap().lock().unwrap().is_none());
    let TestQueue { path, _lock, _directory, .. } = queue;
    drop(_lock);
    let lock = Spool::open(&path).unwrap().lock().unwrap();
    assert!(lock.is_some());
}

#[test]
fn without_a_queue_a_command_says_how_to_make_one() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("missing")] {
        let error = Spool::open(&path).unwrap_err();
        assert!(matches!(error, SpoolError::NoQueue(_)), "{error}");
        assert!(error.to_string().contains("lastmile agent"));
    }
}

#[test]
fn a_message_moves_without_overwriting_another() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "x\n");
    assert!(queue.spool.move_to(id, Place::Active, Place::Hold).unwrap());
    assert!(!queue.spool.move_to(id, Place::Active, Place::Hold).unwrap(), "it is gone from there");
    assert_eq!(queue.spool.find(id).unwrap(), Some(Place::Hold));
    fs::write(queue.at(Place::Active, id.as_str()), "another").unwrap();
    assert!(queue.spool.move_to(id, Place::Hold, Place::Active).is_err());
    assert_eq!(fs::read(queue.at(Place::Active, id.as_str())).unwrap(), b"another");
    assert!(queue.spool.remove(id, Place::Active).unwrap());
    assert!(queue.spool.remove(id, Place::Hold).unwrap());
    assert!(!queue.spool.remove(id, Place::Hold).unwrap());
    assert_eq!(queue.spool.find(id).unwrap(), None);
}

#[test]
fn a_listing_goes_on_where_it_stopped_and_tells_when_to_try_again() {
    let queue = TestQueue::new();
    let next = SystemTime::UNIX_EPOCH + Duration::new(2_000_000_000, 5_000);
    let mut ids = Vec::new();
    for _ in 0..30 {
        let id = queue.submit(&["b@y"], "x\n");
        queue.spool.open_active(id).unwrap().unwrap().set_next_attempt(next).unwrap();
        queue.spool.move_to(id, Place::Active, Place::Deferred).unwrap();
        ids.push(id);
    }
    fs::write(queue.at(Place::Deferred, format!("{}.log", ids[0])), "").unwrap();
    let mut names = queue.spool.names(Place::Deferred).unwrap();
    let mut found = Vec::new();
    loop {
        let chunk: Vec<Entry> = names.by_ref().take(7).map(Result::unwrap).collect();
        if chunk.is_empty() {
            break;
        }
        found.extend(chunk.iter().filter_map(|entry| Some((entry.id()?, entry.modified?))));
    }
    found.sort();
    ids.sort_unstable();
    assert_eq!(found, ids.iter().map(|&id| (id, next)).collect::<Vec<_>>());
}

#[test]
fn the_queue_works_when_its_path_is_gone() {
    let queue = TestQueue::new();
    fs::rename(&queue.path, queue.path.with_extension("moved")).unwrap();
    let id = queue.submit(&["b@y"], "x\n");
    assert_eq!(queue.content(id), "x\r\n");
}

#[test]
fn job_lines_reach_the_agent_whole_and_nobody_waits() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "x\n");
    let jobs = queue.spool.jobs().unwrap();
    let mut buffer = [0; 8192];
    assert_eq!(jobs.read(&mut buffer).unwrap(), 0, "nothing there");
    assert_eq!(Spool::open(&queue.path).unwrap().announce(id).unwrap(), JobWritten::Written);
    let length = jobs.read(&mut buffer).unwrap();
    assert_eq!(buffer[..length], *format!("\n{{\"queue_file\":\"active/{id}\"}}\n").as_bytes());
    for bad in ["{}\n{}".to_owned(), "x".repeat(JOB_LINE_ATOMIC)] {
        assert!(queue.spool.write_job(&bad).is_err());
    }
    let line = "x".repeat(4000);
    let written = (0..100).map(|_| queue.spool.write_job(&line).unwrap()).collect::<Vec<_>>();
    assert_eq!(written.last(), Some(&JobWritten::Full));
    assert_eq!(written.first(), Some(&JobWritten::Written));
}

#[test]
fn without_an_agent_a_job_line_is_no_error() {
    let TestQueue { spool, path, _lock, _directory } = TestQueue::new();
    drop((spool, _lock));
    let spool = Spool::open(&path).unwrap();
    assert_eq!(spool.write_job("{}").unwrap(), JobWritten::NoAgent);
    fs::remove_file(path.join("jobs")).unwrap();
    assert_eq!(spool.write_job("{}").unwrap(), JobWritten::NoAgent);
    fs::write(path.join("jobs"), "").unwrap();
    assert!(spool.write_job("{}").is_err(), "never into a plain file");
    assert_eq!(fs::read(path.join("jobs")).unwrap(), b"");
}

#[test]
fn the_watch_notices_finished_names_only() {
    let queue = TestQueue::new();
    let watch = Watch::new(&queue.spool).unwrap();
    assert!(!watch.drain().unwrap());
    queue.drop_file(".unfinished", "x");
    assert!(!watch.drain().unwrap());
    fs::rename(queue.at(Place::Incoming, ".unfinished"), queue.at(Place::Incoming, "finished")).unwrap();
    assert!(watch.drain().unwrap());
    assert!(!watch.drain().unwrap());
}

#[test]
fn an_agent_that_gives_up_root_owns_its_queue() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (user, group) = (Uid::from_raw(4711), Gid::from_raw(4712));
    let queue = TestQueue::owned_by(Some((user, group)));
    assert_eq!(queue.spool.owner(), (user, group));
    assert!(!queue.spool.is_ours());
    for name in ["incoming", "active", "deferred", "hold", "corrupt", "tmp", "jobs", "agent.lock"] {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(queue.path.join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712), "{name}");
    }
    let error = Spool::prepare(&queue.path, None).unwrap_err().to_string();
    assert!(error.contains("belongs to uid 4711, not"), "{error}");
}
