//! The job FIFO under those who may not use it, and under a writer who may and does it badly.
//!
//! - Owns: who gets at `jobs`, and what torn, endless and foreign lines do to those of others.
//! - Leaves to others: the grammar of job lines (`queue::job`).
//! - Always true: a bad line spoils itself; the next one of somebody else is obeyed.

use serde_json::json;

use super::{AGENT, ANN, MALLORY, Scene, Server, message, soon};
use crate::common::agent::SOON;
use crate::common::process::Process;

/// Drops a bare message as Ann and has it delivered by a job line of root's.
#[track_caller]
fn anns_job_is_done(scene: &Scene, subject: &str) {
    let name = format!("bare-{}", subject.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let drop = format!("drop('{name}', sys.stdin.buffer.read())");
    let output = crate::common::agent::run(&mut scene.python(ANN, ANN, &drop), &message(subject));
    scene.accomplished(&output, &drop);
    let job = json!({
        "queue_file": format!("incoming/{name}"), "sender": "ann@example.org", "recipients": ["ann@example.org"],
    });
    scene.site.write_job(&job);
    scene.has_arrived(subject, "ann@example.org");
}

#[test]
fn who_is_not_in_the_group_gets_nowhere_near_the_fifo() {
    let Some(scene) = Scene::new("") else { return };
    scene.attack(
        "jobs = QUEUE + '/jobs'
for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
    denied(os.open, jobs, flags | os.O_NONBLOCK)
denied(os.unlink, jobs); denied(os.rename, jobs, INCOMING + 'jobs'); denied(os.rename, jobs, QUEUE + '/x')
denied(os.chmod, jobs, 0o666); denied(os.mkfifo, QUEUE + '/jobs2'); denied(os.utime, jobs)
denied(os.link, jobs, INCOMING + 'jobs'); denied(os.symlink, '/etc', QUEUE + '/x')
os.mkfifo(INCOMING + '.jobs'); denied(os.rename, INCOMING + '.jobs', jobs)",
    );
    anns_job_is_done(&scene, "after the FIFO was tried");
    scene.ends_well();
}

/// Mallory in the group that may write job lines: trusted, and clumsy.
#[track_caller]
fn writes(scene: &Scene, script: &str) {
    let prelude = "fifo = os.open(QUEUE + '/jobs', os.O_WRONLY | os.O_NONBLOCK)\n";
    let script = format!("{prelude}{script}");
    let output = crate::common::agent::run(&mut scene.python(MALLORY, AGENT, &script), b"");
    scene.accomplished(&output, &script);
}

#[test]
fn a_bad_line_spoils_only_itself() {
    let Some(scene) = Scene::new("") else { return };
    for (situation, script) in [
        ("half a line", "os.write(fifo, b'{\"queue_file\":\"incoming/')"),
        ("octets", "os.write(fifo, bytes(range(256)))"),
        ("NUL and terminal codes", "os.write(fifo, b'\\0\\x1b[2J\\n\\x1b]0;x\\x07\\n')"),
        (
            "lines that name what is not theirs",
            "for name in ('active/../agent.lock', 'incoming/../hold/x', '/etc/shadow',
    'tmp/x.in', 'deferred/X', 'incoming/.x', 'incoming/', 'active/0NOSUCHMESSAGE'):
    os.write(fifo, b'\\n' + json.dumps({'queue_file': name}).encode() + b'\\n')",
        ),
        (
            "a line without end",
            "deadline = time.time() + 30
sent = 0
while sent < (2 << 20) and time.time() < deadline:
    try: sent += os.write(fifo, b'x' * 4096)
    except BlockingIOError: time.sleep(0.01)
assert sent >= 2 << 20, sent",
        ),
        (
            "a descriptor that stays open",
            "if os.fork() == 0:
    os.write(fifo, b'{\"queue_file\":'); os.closerange(0, 3); time.sleep(5); os._exit(0)",
        ),
    ] {
        writes(&scene, script);
        anns_job_is_done(&scene, &format!("after {situation}"));
    }
    let skipped = scene.site.lines_with(&["error: job line skipped"]);
    assert!((4..=10).contains(&skipped.len()), "each is told of, up to ten a minute: {skipped:#?}");
    // None can begin a line of the log, or speak to a terminal.
    let log = scene.site.log();
    assert!(log.lines().all(|line| line.contains(" mx lastmile/")) && !log.contains('\x1b'), "{log}");
    scene.ends_well();
}

#[test]
fn a_writer_who_fills_the_fifo_holds_up_nobody_for_long() {
    let Some(scene) = Scene::new("") else { return };
    let script = "fifo = os.open(QUEUE + '/jobs', os.O_WRONLY | os.O_NONBLOCK)
line = b'\\n' + b'{\"queue_file\":\"active/0NOSUCHMESSAGE\"}' + b'\\n'
say('ready')
while True:
    try: os.write(fifo, line * 40)
    except BlockingIOError: time.sleep(0.001)";
    let mut command = scene.python(MALLORY, AGENT, script);
    let _flood = Process::start(
        "the flood",
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()),
    );
    for number in 0..3 {
        scene.anns_mail_arrives(&format!("through the flood {number}"));
    }
    anns_job_is_done(&scene, "a job through the flood");
    scene.ends_well();
}

/// Who writes a job line says where a message goes, and whose it is the agent finds out: a stranger who was there first
/// with a file of that name gets nothing by it but their own mail delivered.
#[test]
fn a_job_line_for_a_strangers_file_sends_the_strangers_mail_and_says_so() {
    let Some(scene) = Scene::new("") else { return };
    let chosen = Server::start(&scene.site, "chosen", "");
    let nexthop = format!("unix:{}", chosen.socket.display());
    let job = |name: &str| {
        json!({"queue_file": format!("incoming/{name}"), "sender": "list@example.org",
            "recipients": ["ann@example.org"], "nexthop": nexthop})
    };
    scene.attack("drop('bare', b'Subject: bare\\n\\nof mallory\\n')");
    // Nobody can put a file of theirs in its place any more, nor take it away.
    let denied = "denied(os.rename, INCOMING + 'bare', INCOMING + 'x'); denied(os.unlink, INCOMING + 'bare')";
    let output = crate::common::agent::run(&mut scene.python(ANN, ANN, denied), b"");
    scene.accomplished(&output, denied);
    scene.site.write_job(&job("bare"));
    scene.site.wait_for_line(&["/pickup[", &format!("uid={MALLORY} from=<list@example.org>")], SOON);
    soon("the bare message at the nexthop", || (chosen.mail_of("ann@example.org").len() == 1).then_some(()));
    // A queue file speaks for itself, and a stranger's not about the nexthop; whoever is first, listing or line.
    scene.attack("drop('whole', queue_file(content='Subject: whole\\r\\n\\r\\n'))");
    scene.site.write_job(&job("whole"));
    soon("the queue file's own recipient", || {
        (scene.server.mail_of("mallory@example.org").len() == 1).then_some(())
    });
    assert_eq!((chosen.all_mail().len(), scene.server.all_mail().len()), (1, 1));
    scene.ends_well();
}
