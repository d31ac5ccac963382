//! How a service lives and ends: the process that master(8) knows, and its worker.

use std::fs;
use std::os::unix::fs::chown;

use rustix::process::{Signal, getuid};

use super::master::{Master, descriptors, of_process, signal_of, status_field};
use crate::common::agent::SOON;

/// The account that Debian has for this, and its group.
const NOBODY: u32 = 65534;
/// In /proc/PID/fdinfo: O_CLOEXEC.
const CLOSED_ON_EXEC: u32 = 0o2_000_000;

#[test]
fn the_worker_has_the_sockets_and_the_supervisor_nothing_to_lose() {
    let mut master = Master::new();
    let running = master.start_verbose();
    let (supervisor, worker) = (running.supervisor.pid(), running.worker.pid());
    let (listening, status) = (master.listening_inode(), master.status_inode());
    let (theirs, own) = (descriptors(supervisor), descriptors(worker));
    assert_eq!(theirs.get(&5), Some(&status), "{theirs:?}");
    assert!(!theirs.values().any(|what| *what == listening), "{theirs:?}");
    assert_eq!((own.get(&5), own.get(&6)), (Some(&status), Some(&listening)), "{own:?}");
    for all in [&theirs, &own] {
        assert!(!all.values().any(|what| what.contains("flow-control")), "{all:?}");
        assert_eq!(all.values().filter(|what| **what == status).count(), 1, "{all:?}");
    }
    // What the shell has left lying about is in both, and nobody's.
    let is_ours =
        |number: &u32| [5, 6].contains(number) || *number > 2 && own.get(number) != theirs.get(number);
    for number in own.keys().filter(|number| is_ours(number)) {
        let text = fs::read_to_string(of_process(worker, &format!("fdinfo/{number}"))).unwrap();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        assert_ne!(u32::from_str_radix(flags, 8).unwrap() & CLOSED_ON_EXEC, 0, "{number}: {}", own[number]);
    }
    assert_eq!(status_field(supervisor, "Threads:").as_deref(), Some("1"));
    for field in ["SigIgn:", "SigCgt:", "SigBlk:"] {
        let signals = u64::from_str_radix(&status_field(supervisor, field).unwrap(), 16).unwrap();
        for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
            assert_eq!(signals >> (signal.as_raw() - 1) & 1, 0, "{field} {signal:?}");
        }
    }
    assert_eq!(own.get(&0).map(String::as_str), Some("/dev/null"));
    assert_eq!(master.stderr(), "");
}

#[test]
fn the_worker_is_the_same_program_in_the_same_place() {
    let mut master = Master::new();
    let running = master.start(&["-o", "a = b c", "flags=R"]);
    let (supervisor, worker) = (running.supervisor.pid(), running.worker.pid());
    for name in ["cmdline", "comm"] {
        let read = |pid| fs::read_to_string(of_process(pid, name)).unwrap();
        assert_eq!(read(worker), read(supervisor), "{name}");
    }
    for name in ["cwd", "exe"] {
        let read = |pid| fs::read_link(of_process(pid, name)).unwrap();
        assert_eq!(read(worker), read(supervisor), "{name}");
    }
    // SIGTERM of `postfix stop` goes to the process group.
    let group = |pid| {
        let stat = fs::read_to_string(of_process(pid, "stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').map(str::to_owned).collect();
        fields[3..5].to_vec()
    };
    assert_eq!(group(worker), group(supervisor));
}

#[test]
fn master_hears_once_of_the_process_that_it_knows() {
    let mut master = Master::new();
    let running = master.start(&[]);
    assert!(!master.is_told_more(), "nobody has connected");
    let _first = master.connect();
    let pid = running.supervisor.pid().as_raw_nonzero().get();
    let expected: Vec<u8> = [pid, 0o74, 0, pid, 0o74, 1].into_iter().flat_map(i32::to_ne_bytes).collect();
    assert_eq!(master.told(24), expected);
    let _second = master.connect();
    assert!(!master.is_told_more(), "once is enough");
}

#[test]
fn at_the_end_of_the_status_channel_the_supervisor_leaves_at_once_and_the_worker_finishes() {
    let mut master = Master::new();
    let mut running = master.start_verbose();
    // As if it had deliveries under way.
    running.worker.signal(Signal::STOP);
    master.close_status();
    let status = running.supervisor.wait(SOON);
    assert_eq!(status.code(), Some(0), "{status}");
    running.worker.signal(Signal::CONT);
    running.worker.wait();
    assert!(!master.log().contains("fatal"), "{}", master.log());
}

#[test]
fn a_supervisor_dies_of_any_signal_at_once_and_its_worker_finishes() {
    for signal in [Signal::TERM, Signal::KILL, Signal::HUP, Signal::INT] {
        let mut master = Master::new();
        let mut running = master.start_verbose();
        assert!(running.worker.lives_on());
        running.supervisor.signal(signal);
        let status = running.supervisor.wait(SOON);
        assert_eq!(signal_of(status), Some(signal.as_raw()), "{status}");
        running.worker.wait();
    }
}

#[test]
fn a_worker_that_dies_takes_its_supervisor_along_with_a_line_in_the_log() {
    for (signal, word) in [(Signal::KILL, "SIGKILL"), (Signal::ABORT, "SIGABRT")] {
        let mut master = Master::new();
        let mut running = master.start_verbose();
        running.worker.signal(signal);
        let status = running.supervisor.wait(SOON);
        assert_eq!(status.code(), Some(1), "{status}");
        let supervisor = running.supervisor.pid().as_raw_nonzero();
        let worker = running.worker.pid().as_raw_nonzero();
        let tag =
            format!(" mx postfix-test/lastmile-lmtp[{supervisor}]: fatal: the worker, process {worker}, ");
        master.wait_for_line(&[&tag, word, "stays in the queue"]);
    }
}

#[test]
fn with_u_the_supervisor_becomes_the_owner_of_the_private_sockets() {
    if !getuid().is_root() {
        return eprintln!("skipped: only root can become another user");
    }
    let mut master = Master::new();
    chown(master.queue().join("private"), Some(NOBODY), None).unwrap();
    let mut running = master.start(&["-u", "-v"]);
    let supervisor = running.supervisor.pid();
    master.wait_for_line(&["started"]);
    let ids = |field| status_field(supervisor, field).unwrap();
    crate::common::process::wait_for("another user", SOON, || (!ids("Uid:").contains("0 0 0")).then_some(()));
    let four = vec![NOBODY.to_string(); 4].join(" ");
    assert_eq!((ids("Uid:"), ids("Gid:")), (four.clone(), four));
    assert!(!ids("Groups:").split(' ').any(|group| group == "0"), "{}", ids("Groups:"));
    assert_eq!(ids("CapPrm:"), "0000000000000000");
    // It still does what it is there for.
    running.worker.signal(Signal::KILL);
    assert_eq!(running.supervisor.wait(SOON).code(), Some(1));
}
