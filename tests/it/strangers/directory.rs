//! The queue directory itself: what is not for strangers, locks, a directory that somebody else has made.
//!
//! - Owns: modes as a stranger meets them, and what a stranger could prepare before the agent starts.
//! - Leaves to others: the modes in numbers (`engine::privileges`), `incoming/` (`incoming`).
//! - Always true: an agent starts only in a directory that no stranger can change.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use super::{MALLORY, Scene};
use crate::common::agent::SOON;

/// Everything that is the agent's alone.
const THE_REST: &str = "
for name in ('active', 'deferred', 'hold', 'corrupt', 'tmp'):
    path = QUEUE + '/' + name
    denied(os.listdir, path); denied(os.chdir, path); denied(os.stat, path + '/x'); denied(os.rmdir, path)
    denied(os.rename, path, path + '2'); denied(os.chmod, path, 0o777); denied(os.mkdir, path + '/x')
    denied(os.open, path + '/x', os.O_CREAT | os.O_WRONLY); denied(os.symlink, '/etc', path + '/x')
    denied(os.open, path, os.O_RDONLY | os.O_DIRECTORY)
    # Over it by a rename of one's own.
    os.makedirs(f'/tmp/mallory-{os.getpid()}', exist_ok=True)
    denied(os.rename, f'/tmp/mallory-{os.getpid()}', path, errors=REFUSALS + (errno.EXDEV,))
    os.rmdir(f'/tmp/mallory-{os.getpid()}')
for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
    denied(os.open, QUEUE + '/agent.lock', flags)
for name in ('agent.lock', 'agent.sock', 'jobs'):
    denied(os.unlink, QUEUE + '/' + name); denied(os.rename, QUEUE + '/' + name, QUEUE + '/x')
    denied(os.chmod, QUEUE + '/' + name, 0o666); denied(os.link, QUEUE + '/' + name, INCOMING + 'x')
denied(os.mkdir, QUEUE + '/x'); denied(os.rename, QUEUE, QUEUE + '2'); denied(os.chmod, QUEUE, 0o777)
denied(socket.socket(socket.AF_UNIX).bind, QUEUE + '/agent.sock2')
denied(os.kill, int(sys.stdin.read()), 9)
";

#[test]
fn the_rest_of_the_queue_is_closed() {
    let Some(scene) = Scene::new("") else { return };
    let pid = scene.pid().as_raw_nonzero().to_string();
    let output = crate::common::agent::run(&mut scene.python(MALLORY, MALLORY, THE_REST), pid.as_bytes());
    scene.accomplished(&output, THE_REST);
    let proc = format!(
        "for name in ('fd', 'environ', 'mem', 'maps'):\n    denied(os.listdir if name == 'fd' else open, \
         f'/proc/{pid}/{{name}}')"
    );
    scene.attack(&proc);
    scene.anns_mail_arrives("beside closed doors");
    scene.ends_well();
}

/// Whoever can open a file for reading can lock it.
const LOCKS: &str = "
held = []
for path in ('', '/incoming', '/active', '/tmp', '/jobs', '/agent.lock', '/agent.sock'):
    try:
        fd = os.open(QUEUE + path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        continue
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held.append(path)
mine = os.open(INCOMING + 'locked', os.O_CREAT | os.O_RDWR, 0o640)
os.write(mine, queue_file(content='Subject: locked\\r\\n\\r\\n'))
fcntl.flock(mine, fcntl.LOCK_EX); fcntl.lockf(mine, fcntl.LOCK_EX)
assert held == [''], held
say('ready'); time.sleep(600)
";

#[test]
fn a_strangers_locks_hold_up_neither_a_start_nor_a_command() {
    let Some(mut scene) = Scene::new("") else { return };
    let _siege = scene.siege(LOCKS);
    scene.anns_mail_arrives("beside locks");
    scene.agent.take().unwrap().stop();
    // Without an agent, root's command takes the lock itself.
    let listed = scene.site.run(&["queue", "list"], b"");
    assert!(listed.status.success(), "{listed:?}");
    scene.agent = Some(scene.site.start_agent());
    scene.anns_mail_arrives("after a start among locks");
    let mail = || (scene.server.mail_of("mallory@example.org").len() == 1).then_some(());
    super::soon("the locked file's message", mail);
    scene.ends_well();
}

/// A lease lets its owner be asked before anybody opens the file: 45 s, if the one who opens it waits.
#[test]
fn a_lease_makes_nobody_wait() {
    let Some(scene) = Scene::new("") else { return };
    let _siege = scene.siege(
        "signal.signal(signal.SIGIO, signal.SIG_IGN)
held = []
for number in range(20):
    drop(f'.leased{number}', queue_file(content='Subject: leased\\r\\n\\r\\n'))
    held.append(os.open(INCOMING + f'.leased{number}', os.O_RDWR))
    fcntl.fcntl(held[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)
    os.rename(INCOMING + f'.leased{number}', INCOMING + f'leased{number}')
say('ready'); time.sleep(600)",
    );
    scene.anns_mail_arrives("beside leases");
    scene.site.wait_for_line(&["incoming/leased", "it stays"], SOON);
    let listed = scene.site.run(&["queue", "list", "--json"], b"");
    assert!(
        listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("leased0"),
        "{listed:?}"
    );
    assert!(
        scene.files_in("incoming").len() >= 20 && scene.files_in("tmp").is_empty(),
        "{:?}",
        scene.site.files()
    );
    scene.ends_well();
}

#[test]
fn an_agent_does_not_start_in_a_directory_that_a_stranger_can_change() {
    let Some(scene) = Scene::without_agent("") else { return };
    let queue = scene.site.queue();
    for (situation, owner, mode, prepared, told) in [
        ("a stranger's directory", MALLORY, 0o755, "", "it belongs to uid 54321"),
        (
            "a directory for everybody, a socket in it",
            0,
            0o777,
            "socket.socket(socket.AF_UNIX).bind(QUEUE + '/agent.sock')",
            "others than its owner may write",
        ),
        (
            "the same, sticky, a link for the lock",
            0,
            0o1777,
            "os.symlink('/etc/passwd', QUEUE + '/agent.lock')",
            "others than its owner may write",
        ),
        ("a stranger's incoming/", 0, 0o755, "", "it belongs to uid 54321"),
    ] {
        fs::create_dir(&queue).unwrap();
        fs::set_permissions(&queue, Permissions::from_mode(mode)).unwrap();
        chown(&queue, Some(owner), None).unwrap();
        if situation.ends_with("incoming/") {
            fs::create_dir(queue.join("incoming")).unwrap();
            chown(queue.join("incoming"), Some(MALLORY), None).unwrap();
        }
        scene.attack(prepared);
        let (status, said) = scene.site.start_agent_in_vain();
        assert_eq!(status.code(), Some(78), "{situation}: {said}");
        assert!(said.contains(told), "{situation}: {said}");
        fs::remove_dir_all(&queue).unwrap();
    }
    assert!(!fs::read_to_string("/etc/passwd").unwrap().is_empty());
}

/// A stranger's own agent, own queue and own configuration are nobody else's business.
#[test]
fn a_stranger_cannot_be_the_agent_of_the_queue() {
    let Some(scene) = Scene::new("") else { return };
    for arguments in
        [&["agent"][..], &["queue", "flush"], &["queue", "delete", "ALL"], &["queue", "hold", "ALL"]]
    {
        let output = scene.lastmile(MALLORY, arguments, b"");
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
    }
    scene.anns_mail_arrives("beside another agent");
    scene.ends_well();
}
