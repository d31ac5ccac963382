//! How a service ends that has deliveries under way, and one that has none.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use lastmile::sink::Handle;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

use super::master::descriptors;
use super::queue::{Caller, DONE, Message, Site, Wish, a_while};
use crate::common::agent::SOON;
use crate::common::process::{Process, look_for};

/// A service with a delivery that cannot end until bounce(8) answers.
fn busy(main_cf: &str) -> (Site, Handle, Message, Caller) {
    let site = Site::start(main_cf);
    let server = site.serve("rcpt no@* 550 5.1.1 no such user");
    let message = site.queue("3C0A1", &["a@example.org", "no@example.org"]);
    site.bounce.hold();
    let mut caller = Caller::connect(&site.master);
    caller.say(&message.request(&Wish::default()));
    site.bounce.wait_for(1);
    (site, server, message, caller)
}

#[test]
fn what_is_under_way_is_finished_when_master_or_the_supervisor_is_gone() {
    for by_master in [true, false] {
        let (mut site, _server, message, caller) = busy("");
        if by_master {
            site.master.close_status();
            assert_eq!(site.running.supervisor.wait(SOON).code(), Some(0));
        } else {
            site.running.supervisor.signal(Signal::TERM);
            site.running.supervisor.wait(SOON);
        }
        assert!(site.running.worker.lives_on());
        // Whoever comes now is the successor's.
        let late = Caller::begin(&site.master);
        assert!(!late.is_answered() && !caller.is_answered());
        site.bounce.release();
        assert_eq!(caller.answer(), DONE);
        assert_eq!(message.records(), "DD");
        site.running.worker.wait();
        assert_eq!(site.mail_of("a@example.org").len(), 1);
        assert!(!site.has_line(&["warning: "]), "{}", site.master.log());
    }
}

#[test]
fn connections_that_nobody_needs_any_more_are_closed_while_the_rest_is_finished() {
    let (mut site, _server, _message, caller) = busy("");
    let second = site.queue("3C0A2", &["b@example.org"]);
    assert_eq!(site.deliver(&second), DONE);
    let worker = site.running.worker.pid();
    // What belongs to the request that was answered is closed by then.
    a_while();
    let before = descriptors(worker).len();
    site.master.close_status();
    // The listening socket goes, and the connection of the worker that has nothing to do.
    look_for(SOON, || (descriptors(worker).len() + 2 <= before).then_some(())).unwrap();
    assert!(site.running.worker.lives_on() && !caller.is_answered());
    site.bounce.release();
    assert_eq!(caller.answer(), DONE);
    site.running.worker.wait();
}

#[test]
fn a_request_that_has_come_with_the_end_is_served() {
    let mut site = Site::start("");
    let _server = site.serve("");
    let message = site.queue("3C0A1", &["a@example.org"]);
    let (mut caller, silent) = (Caller::connect(&site.master), Caller::connect(&site.master));
    // Both are there when it looks.
    site.running.worker.signal(Signal::STOP);
    caller.say(&message.request(&Wish::default()));
    site.master.close_status();
    site.running.worker.signal(Signal::CONT);
    assert_eq!(caller.answer(), DONE);
    assert_eq!(silent.answer(), "", "who has not asked is not waited for");
    site.running.worker.wait();
}

#[test]
fn postfix_stop_leaves_a_moment_to_what_is_under_way() {
    let (site, _server, message, caller) = busy("");
    site.running.worker.signal(Signal::TERM);
    assert!(site.running.worker.lives_on());
    site.bounce.release();
    assert_eq!(caller.answer(), DONE);
    assert_eq!(message.records(), "DD");
    site.running.worker.wait();
    // And no more than a moment.
    let (mut site, _server, message, caller) = busy("lastmile_shutdown_timeout = 1s");
    let before = Instant::now();
    site.running.worker.signal(Signal::TERM);
    site.running.worker.wait();
    assert!(before.elapsed() >= Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(caller.answer(), "");
    assert!(message.records().ends_with('R'), "{}", message.records());
    site.master
        .wait_for_line(&["warning: 1 deliveries were still under way after lastmile_shutdown_timeout"]);
}

#[test]
fn a_service_without_work_ends_after_max_idle() {
    let mut site = Site::start("max_idle = 1s");
    let _server = site.serve("");
    let before = Instant::now();
    assert_eq!(site.deliver(&site.queue("3C0A1", &["a@example.org"])), DONE);
    assert_eq!(site.running.supervisor.wait(SOON).code(), Some(0));
    assert!(before.elapsed() >= Duration::from_secs(1), "{:?}", before.elapsed());
    assert!(!site.has_line(&["warning: "]) && !site.has_line(&["fatal: "]), "{}", site.master.log());
    // Who is waited for is work.
    let (mut site, _server, _message, caller) = busy("max_idle = 1s");
    std::thread::sleep(Duration::from_millis(1200));
    // Whoever wants nothing makes it look at the time.
    drop(Caller::connect(&site.master));
    assert!(site.running.worker.lives_on());
    site.bounce.release();
    assert_eq!(caller.answer(), DONE);
    assert_eq!(site.running.supervisor.wait(SOON).code(), Some(0));
}

#[test]
fn a_service_retires_however_much_it_has_to_do() {
    let mut site = Site::start_with("", &["-r", "1"]);
    let _server = site.serve("");
    let (mut served, before) = (0, Instant::now());
    while site.running.supervisor.ended().is_none() && before.elapsed() < SOON / 4 {
        served += 1;
        let message = site.queue(&format!("3C0A{served}"), &["a@example.org"]);
        let mut caller = Caller::begin(&site.master);
        caller.say(&message.request(&Wish::default()));
        // Who comes too late waits for the successor, who is not started here.
        let is_late = || site.running.worker.has_ended().then_some(None);
        let answer = look_for(SOON, || if caller.is_answered() { Some(Some(())) } else { is_late() });
        if answer.flatten().is_none() {
            break;
        }
        caller.hear_announcement("protocol~delivery_request_protocol~~");
        assert_eq!(caller.answer(), DONE);
    }
    assert_eq!(site.running.supervisor.wait(SOON).code(), Some(0));
    assert!(served > 3, "{served}");
}

#[test]
fn one_client_on_standard_input_is_served_and_no_other() {
    let site = Site::start("");
    let _server = site.serve("");
    let message = site.queue("3C0A1", &["a@example.org"]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(site.master.program("lastmile-lmtp"));
    command.args(["-S", "-n", "lastmile"]).env_clear().envs(site.master.environment());
    command.current_dir(site.master.queue()).stdin(OwnedFd::from(theirs));
    let mut process = Process::start("the service", &mut command);
    drop(command);
    let mut caller = Caller::over(ours);
    caller.hear_announcement("protocol~delivery_request_protocol~~");
    caller.say(&message.request(&Wish::default()));
    assert_eq!(caller.answer(), DONE);
    assert_eq!(process.wait(SOON).code(), Some(0));
    assert_eq!(message.records(), "D");
}

#[test]
fn who_has_no_descriptor_left_lets_mail_wait_and_goes_on() {
    let mut site = Site::start("");
    let _server = site.serve("");
    let worker = site.running.worker.pid();
    let limit = |current: Option<u64>| {
        // It has inherited ours.
        let limit = Rlimit { current, maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Some(worker), Resource::Nofile, limit).unwrap()
    };
    assert_eq!(site.deliver(&site.queue("3C0A1", &["a@example.org"])), DONE);
    // The first number that is free is too high from now on.
    let open = descriptors(worker);
    let before = limit((0..).find(|number| !open.contains_key(number)).map(u64::from));
    let message = site.queue("3C0A2", &["a@example.org"]);
    let mut caller = Caller::begin(&site.master);
    site.master
        .wait_for_line(&["error: the queue manager's connection cannot be accepted: ", "its mail waits"]);
    a_while();
    let lines = site.master.log().matches("cannot be accepted").count();
    assert!(lines < 20, "{lines} lines");
    limit(before.current);
    caller.hear_announcement("protocol~delivery_request_protocol~~");
    caller.say(&message.request(&Wish::default()));
    assert_eq!(caller.answer(), DONE);
}
