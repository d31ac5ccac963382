//! Starts that fail: what is wrong is in the mail log, as `fatal`.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::getuid;

use super::master::{Master, run_by_hand};

/// Whoever starts this program otherwise than master(8) does is told so.
const BY_HAND: &str =
    "this program is started by Postfix's master(8), as the command of a service in master.cf";

#[test]
fn a_command_line_that_is_not_understood_is_fatal_and_in_the_mail_log() {
    for (arguments, part) in [
        (&["-x"][..], "the option -x is not known"),
        (&["-o"], "the option -o has no value"),
        (&["-t", "inet"], "-t \"inet\": qmgr(8) finds delivery agents in private/"),
        (&["flags=Q"], "flags=Q: there is no flag 'Q'"),
        (&["user=mail"], "the argument \"user=mail\" is not known"),
    ] {
        let mut master = Master::new();
        let command = master.command("lastmile-lmtp", arguments);
        let (status, log) = master.start_in_vain(command);
        assert_eq!(status.code(), Some(1), "{arguments:?}");
        // Date, host, tag, process, severity, text.
        let words: Vec<_> = log.splitn(7, ' ').collect();
        assert_eq!((words[3], words[5]), ("mx", "fatal:"), "{log}");
        assert!(words[1].len() == 2 && words[4].starts_with("postfix-test/lastmile-lmtp["), "{log}");
        assert!(words[6].starts_with(part), "{log}");
        assert!(master.stderr().starts_with("lastmile-lmtp: fatal: "), "{}", master.stderr());
    }
}

#[test]
fn both_programs_log_under_their_own_names() {
    let mut master = Master::new();
    let command = master.command("lastmile-smtp", &["-x"]);
    let (_, log) = master.start_in_vain(command);
    assert!(log.contains(" postfix-test/lastmile-smtp["), "{log}");
}

#[test]
fn with_v_for_standard_error_lines_go_there_too_and_once() {
    let mut master = Master::new();
    let command = master.command("lastmile-lmtp", &["-V", "-u", "-n", "lastmile"]);
    fs::remove_dir_all(master.queue().join("private")).unwrap();
    let (status, log) = master.start_in_vain(command);
    assert_eq!(status.code(), Some(1));
    assert_eq!(master.stderr().trim_end(), log);
}

#[test]
fn a_worker_that_cannot_begin_says_so_and_ends_its_supervisor() {
    let mut master = Master::new();
    let mut command = master.command("lastmile-lmtp", &[]);
    command.env("GENERATION", "9");
    let (status, log) = master.start_in_vain(command);
    assert_eq!(status.code(), Some(1));
    assert!(log.contains(&format!(": fatal: {BY_HAND}")) && log.contains("no GENERATION"), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}

/// The program without the descriptors of a service, with its log where the test can see it.
fn by_hand(master: &Master, arguments: &[&str]) -> Command {
    let mut command = Command::new(master.program("lastmile-lmtp"));
    command.args(arguments).env_clear().envs(master.environment()).current_dir(master.queue());
    command
}

#[test]
fn who_starts_it_by_hand_is_told_how_it_is_started() {
    let mut master = Master::new();
    let mut command = by_hand(&master, &["-v"]);
    command.env_remove("GENERATION");
    let (status, errors) = run_by_hand(command);
    assert_eq!(status.code(), Some(1));
    assert!(errors.starts_with(&format!("lastmile-lmtp: fatal: {BY_HAND}")), "{errors}");
    assert!(errors.contains("descriptor 5 should be the status channel, and is not open"), "{errors}");
    assert!(master.log().contains(": fatal: this program is started"), "{}", master.log());
}

#[test]
fn one_client_is_a_socket_on_standard_input() {
    let master = Master::new();
    let (status, errors) = run_by_hand(by_hand(&master, &["-S"]));
    assert_eq!(status.code(), Some(1));
    assert!(
        errors.contains("-S: the client on standard input cannot be served: it is no socket"),
        "{errors}"
    );
}

#[test]
fn who_says_to_be_a_supervisor_and_is_none_is_told_the_same() {
    let master = Master::new();
    let mut command = by_hand(&master, &[]);
    command.env("SUPERVISOR_PID", "1");
    let (status, errors) = run_by_hand(command);
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains(BY_HAND) && errors.contains("descriptor 5"), "{errors}");
}

#[test]
fn a_socket_that_does_not_listen_is_no_service() {
    let mut master = Master::new();
    let mut command = master.command("lastmile-lmtp", &[]);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    command.stdout(std::os::fd::OwnedFd::from(ours));
    let (status, log) = master.start_in_vain(command);
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("descriptor 6 should be a listening socket, and is something else"), "{log}");
}

#[test]
fn with_u_private_sockets_without_a_fit_owner_are_fatal() {
    let mut master = Master::new();
    fs::remove_dir_all(master.queue().join("private")).unwrap();
    let command = master.command("lastmile-lmtp", &["-u"]);
    let (status, log) = master.start_in_vain(command);
    assert_eq!(status.code(), Some(1));
    assert!(
        log.contains("the owner of private/ in the queue directory should be mail_owner: No such file"),
        "{log}"
    );
    if !getuid().is_root() {
        return eprintln!("skipped: only root can give a directory to somebody else");
    }
    for (owner, part) in [(0, "it is root"), (54321, "uid 54321: there is no such user")] {
        let mut master = Master::new();
        chown(master.queue().join("private"), Some(owner), None).unwrap();
        let command = master.command("lastmile-lmtp", &["-u"]);
        let (status, log) = master.start_in_vain(command);
        assert_eq!(status.code(), Some(1));
        assert!(log.contains(part), "{log}");
    }
}
