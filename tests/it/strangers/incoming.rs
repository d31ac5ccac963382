//! What a stranger may drop into `incoming/`, and what can be done there to somebody else's file.
//!
//! - Owns: names, kinds, modes and sizes of dropped files; the directory's own protection.
//! - Leaves to others: what a dropped queue file says (`heads`), files that change meanwhile (`moving`), many of them
//!   (`crowd`).
//! - Always true: after each attack the other's mail arrives; whatever is of no use is kept in `corrupt/` and told of.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::json;

use super::{A_WHILE, AGENT, ANN, MALLORY, Scene, message, soon};
use crate::common::agent::SOON;
use crate::common::mailbox::header;

/// Something that a stranger drops.
struct Dropped {
    situation: &'static str,
    attack: &'static str,
    /// How many files it leaves in `corrupt/`.
    corrupt: usize,
    /// Subjects of Mallory's mail that arrives.
    arrives: &'static [&'static str],
    /// Words of lines that the log must have.
    log: &'static [&'static [&'static str]],
}

const DROPPED: &[Dropped] = &[
    Dropped {
        situation: "a link to a file that only the agent may read",
        attack: "os.symlink(os.environ['SITE'] + '/secret', INCOMING + 'link')",
        corrupt: 1,
        arrives: &[],
        log: &[&["error: ", "incoming/link", "it is a link, a socket or a device, not a regular file"]],
    },
    Dropped {
        situation: "a link to a directory, one to the FIFO, and one to nothing",
        attack: "os.symlink(QUEUE + '/active', INCOMING + 'to-active'); os.symlink(QUEUE + '/jobs', INCOMING + 'to-jobs')
os.symlink('/nowhere', INCOMING + 'to-nothing')",
        corrupt: 3,
        arrives: &[],
        log: &[&["incoming/to-active", "a link"], &["incoming/to-jobs", "a link"], &["incoming/to-nothing", "a link"]],
    },
    Dropped {
        situation: "a FIFO, and a socket",
        attack: "os.mkfifo(INCOMING + 'fifo')
socket.socket(socket.AF_UNIX).bind(INCOMING + 'socket')",
        corrupt: 2,
        arrives: &[],
        log: &[
            &["incoming/fifo", "it is not a regular file"],
            &["incoming/socket", "it is a link, a socket or a device"],
        ],
    },
    Dropped {
        situation: "a directory with a message in it",
        attack: "os.mkdir(INCOMING + 'directory', 0o777)
open(INCOMING + 'directory/message', 'wb').write(queue_file(content='Subject: in a directory\\r\\n\\r\\n'))
drop('wakes-the-agent', queue_file(content='Subject: beside a directory\\r\\n\\r\\n'))",
        corrupt: 0,
        arrives: &["beside a directory"],
        log: &[&["error: ", "incoming/directory cannot be moved", "it stays"]],
    },
    Dropped {
        situation: "a terabyte without a single block",
        attack: "file = open(INCOMING + '.sparse', 'wb'); file.write(queue_file()); file.truncate(1 << 40); file.close()
os.rename(INCOMING + '.sparse', INCOMING + 'sparse')",
        corrupt: 1,
        arrives: &[],
        log: &[&["incoming/sparse of uid 54321", "it is larger than message_size_limit"]],
    },
    Dropped {
        situation: "a hole that is less than the limit on files and more than the one on messages",
        attack: "file = open(INCOMING + '.hole', 'wb'); file.write(queue_file(size=(40 << 20))); file.truncate(40 << 20)
file.close(); os.rename(INCOMING + '.hole', INCOMING + 'hole')",
        corrupt: 1,
        arrives: &[],
        log: &[&["incoming/hole of uid 54321", "it is larger than message_size_limit"]],
    },
    Dropped {
        situation: "a file that nobody may read",
        attack: "drop('unreadable', queue_file(), 0o000)",
        corrupt: 1,
        arrives: &[],
        log: &[&["incoming/unreadable", "the agent may not read it (mode 0640 would let it)"]],
    },
    Dropped {
        situation: "set-user-ID bits",
        attack: "drop('setuid', queue_file(content='Subject: setuid\\r\\n\\r\\n'), 0o6755)",
        corrupt: 0,
        arrives: &["setuid"],
        log: &[],
    },
    Dropped {
        situation: "times far in the past and in the future",
        attack: "for when, name in ((1, 'past'), (1 << 33, 'future')):
    open(INCOMING + '.' + name, 'wb').write(queue_file(content=f'Subject: {name}\\r\\n\\r\\n'))
    os.chmod(INCOMING + '.' + name, 0o640); os.utime(INCOMING + '.' + name, (when, when))
    os.rename(INCOMING + '.' + name, INCOMING + name)",
        corrupt: 0,
        arrives: &["past", "future"],
        log: &[],
    },
    Dropped {
        situation: "names that none may have",
        attack: "line = 'x\\n0ABC: to=<ann@example.org>, relay=forged, delay=0, status=sent (250 forged)'
for name in ('a b', line, 'm\u{e4}il', '\\x1b[2J', 'n' * 65, 'a%', '*', '~root', 'a;b'):
    drop(name, queue_file())
drop(b'\\xff\\xfe'.decode(errors='surrogateescape'), queue_file())",
        corrupt: 10,
        arrives: &[],
        log: &[&["its name is not 1 to 64 letters"], &["incoming/a b", "kept as corrupt/"]],
    },
    Dropped {
        situation: "names of the longest and oddest that are allowed",
        attack: "for name in ('n' * 64, '-', '--help', '-rf', '_', '0.in', 'x.in', 'jobs', 'agent.lock', 'a..b'):
    drop(name, queue_file(content=f'Subject: odd\\r\\n\\r\\n'))",
        corrupt: 0,
        arrives: &["odd"; 10],
        log: &[],
    },
    Dropped {
        situation: "a name with a dot in front, and one that leads upwards",
        attack: "open(INCOMING + '..up', 'wb').write(queue_file(content='Subject: hidden\\r\\n\\r\\n'))
os.chmod(INCOMING + '..up', 0o644)
denied(os.rename, INCOMING + '..up', INCOMING + '../active/up')
denied(os.rename, INCOMING + '..up', INCOMING + '../tmp/up')
denied(os.rename, INCOMING + '..up', INCOMING + '../up')",
        corrupt: 0,
        arrives: &[],
        log: &[],
    },
    Dropped {
        situation: "an empty file, and the first octets of a queue file",
        attack: "drop('empty', b''); drop('magic', b'lastmile/'); drop('version', b'lastmile/1\\n')
drop('endless', b'lastmile/1\\n{' + b' ' * (2 << 20)); drop('deep', b'lastmile/1\\n' + b'[' * 100000 + b'\\n')",
        corrupt: 4,
        arrives: &[],
        log: &[
            &["incoming/magic", "its first line does not end"],
            &["incoming/version", "its head"],
            &["incoming/endless", "its head ends nowhere"],
            &["incoming/deep", "its head does not parse"],
        ],
    },
    Dropped {
        situation: "a queue file of a version to come",
        attack: "drop('version2', b'lastmile/2\\nbinary')",
        corrupt: 0,
        arrives: &[],
        log: &[&["incoming/version2 of uid 54321", "of another version", "kept as hold/"]],
    },
];

#[test]
fn whatever_is_dropped_harms_only_itself() {
    let Some(scene) = Scene::new("message_size_limit = \"1M\"") else { return };
    let secret = scene.site.path().join("secret");
    fs::write(&secret, "lastmile/1\nSECRET of the agent").unwrap();
    chown(&secret, Some(AGENT), Some(AGENT)).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let of_ann = |situation: &str| format!("Ann's, beside {situation}");
    for Dropped { situation, attack, .. } in DROPPED {
        scene.attack(attack);
        scene.sends(ANN, &of_ann(situation), "ann@example.org");
    }
    for Dropped { situation, log, .. } in DROPPED {
        scene.has_arrived(&of_ann(situation), "ann@example.org");
        for words in *log {
            scene.site.wait_for_line(words, SOON);
        }
    }
    let corrupt: usize = DROPPED.iter().map(|dropped| dropped.corrupt).sum();
    soon("all that is of no use in corrupt/", || (scene.files_in("corrupt").len() >= corrupt).then_some(()));
    assert_eq!(scene.files_in("corrupt").len(), corrupt, "{:?}", scene.site.files());
    let mut expected: Vec<_> =
        DROPPED.iter().flat_map(|dropped| dropped.arrives).map(|&s| s.to_owned()).collect();
    expected.sort();
    let subjects = || {
        let mail = scene.server.mail_of("mallory@example.org");
        let mut subjects: Vec<_> = mail.iter().filter_map(|mail| header(mail, "Subject")).collect();
        subjects.sort();
        subjects
    };
    soon("Mallory's mail", || (subjects().len() >= expected.len()).then_some(()));
    assert_eq!(subjects(), expected);
    for mail in scene.server.all_mail() {
        let text = String::from_utf8_lossy(&mail);
        assert!(
            !text.contains("SECRET") && !text.contains("hidden") && !text.contains("in a directory"),
            "{text}"
        );
    }
    assert!(!scene.site.log().contains("SECRET"));
    // A name in the log cannot begin a line of its own, nor speak to a terminal.
    assert!(scene.site.log().lines().all(|line| line.contains(" mx lastmile/")), "{}", scene.site.log());
    assert!(!scene.site.log().contains('\x1b'));
    // Every one of Ann's messages came once, and went nowhere else.
    assert_eq!(scene.server.mail_of("ann@example.org").len(), DROPPED.len());
    scene.ends_well();
}

/// What a stranger might do with the file of somebody else, whose name has become known. Nothing of it is possible.
const AT_ANOTHERS_FILE: &str = "
name = INCOMING + 'anns'
denied(os.listdir, INCOMING)
denied(os.open, INCOMING, os.O_RDONLY | os.O_DIRECTORY)
libc = ctypes.CDLL(None, use_errno=True)
watch = libc.inotify_init()
assert libc.inotify_add_watch(watch, INCOMING.encode(), 0xfff) == -1 and ctypes.get_errno() == errno.EACCES
assert libc.inotify_add_watch(watch, name.encode(), 0xfff) == -1 and ctypes.get_errno() == errno.EACCES
for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
    denied(os.open, name, flags)
denied(os.truncate, name, 0)
denied(os.chmod, name, 0o666)
denied(os.chown, name, os.getuid(), -1)
denied(os.utime, name)
denied(os.unlink, name)
denied(os.rename, name, INCOMING + 'mallorys')
denied(os.rename, name, '/tmp/mallorys')
open(INCOMING + '.mine', 'wb').write(b'Subject: replaced\\n\\n')
denied(os.rename, INCOMING + '.mine', name)
# RENAME_EXCHANGE
assert libc.renameat2(-100, (INCOMING + '.mine').encode(), -100, name.encode(), 2) == -1
denied(os.open, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, errors=(errno.EEXIST,))
denied(os.link, INCOMING + '.mine', name, errors=(errno.EEXIST,))
denied(os.symlink, '/etc/passwd', name, errors=(errno.EEXIST,))
denied(os.rmdir, INCOMING, errors=REFUSALS + (errno.ENOTEMPTY, errno.EBUSY))
denied(os.rename, INCOMING, QUEUE + '/mine')
denied(os.chmod, INCOMING, 0o777)
";

#[test]
fn anothers_file_cannot_be_read_changed_moved_or_replaced() {
    let Some(scene) = Scene::new("") else { return };
    let sent = message("bare");
    // A bare message waits for its job line: there is time to do something to it.
    let drop = "os.umask(0); drop('anns', sys.stdin.buffer.read())";
    let output = crate::common::agent::run(&mut scene.python(ANN, ANN, drop), &sent);
    scene.accomplished(&output, drop);
    scene.attack(AT_ANOTHERS_FILE);
    assert_eq!(fs::read(scene.site.queue().join("incoming/anns")).unwrap(), sent);
    scene.site.write_job(&json!({
        "queue_file": "incoming/anns", "sender": "ann@example.org", "recipients": ["ann@example.org"],
    }));
    scene.has_arrived("bare", "ann@example.org");
    scene.site.wait_for_line(&["pickup", &format!("uid={ANN} from=<ann@example.org>")], SOON);
    assert_eq!(scene.server.all_mail().len(), 1);
    scene.ends_well();
}

/// Where `fs.protected_hardlinks` is off, a stranger can give anybody's file another name: root does it here for them.
#[test]
fn a_file_with_a_second_name_is_nobodys_message() {
    let Some(scene) = Scene::new("") else { return };
    let (theirs, beside) = (scene.site.path().join("theirs"), scene.site.queue().join("incoming/linked"));
    let nexthop = format!("unix:{}", scene.site.path().join("mallory.sock").display());
    for (owner, mode) in [(0, 0o644), (AGENT, 0o600), (ANN, 0o640)] {
        let head = json!({"id": "A", "sender": "a@example.org", "arrival": "2026-11-21T19:30:00Z", "recipients": 1,
            "nexthop": nexthop, "origin": "uid=0", "size": 10});
        let text =
            format!("lastmile/1\n{head}\n-P\n{{\"address\":\"x@example.org\"}}\n\nSECRET of {owner}\r\n");
        fs::write(&theirs, &text).unwrap();
        fs::set_permissions(&theirs, Permissions::from_mode(mode)).unwrap();
        chown(&theirs, Some(owner), Some(AGENT)).unwrap();
        fs::hard_link(&theirs, &beside).unwrap();
        scene.attack("drop('wakes-the-agent', queue_file())");
        let told = format!("incoming/linked of uid {owner} is not queued: it has more than one name");
        scene.site.wait_for_line(&["error: ", &told], SOON);
        assert_eq!(fs::read_to_string(&theirs).unwrap(), text);
        fs::remove_file(&theirs).unwrap();
    }
    scene.anns_mail_arrives("beside links");
    for mail in scene.server.all_mail() {
        assert!(!String::from_utf8_lossy(&mail).contains("SECRET"));
    }
    scene.ends_well();
}

/// How long a draft may stay is 36 hours, by a time that nobody can set; `spool::recovery` holds that.
#[test]
fn unfinished_files_are_nobodys_mail_and_stay() {
    let Some(scene) = Scene::new("") else { return };
    scene.attack("open(INCOMING + '.draft', 'wb').write(queue_file(content='Subject: draft\\r\\n\\r\\n'))");
    scene.anns_mail_arrives("beside a draft");
    std::thread::sleep(A_WHILE);
    assert_eq!(scene.site.files(), ["incoming/.draft"]);
    assert!(scene.site.lines_with(&[".draft"]).is_empty());
    let uid = format!("uid={MALLORY}");
    assert!(scene.site.lines_with(&["pickup", &uid]).is_empty(), "{}", scene.site.log());
    scene.ends_well();
}
