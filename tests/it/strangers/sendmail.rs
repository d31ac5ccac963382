//! The sendmail command, run by strangers in odd surroundings. It has no rights but theirs.
//!
//! - Owns: environment, umask, descriptors and limits that a caller may set.
//! - Leaves to others: options and addresses (`sendmail`).
//! - Always true: either the message arrives whole, or the exit code is not 0 and one sentence says that it was not
//!   queued; nothing half-queued stays.

use std::fs;

use super::{ANN, Scene, Server, message, soon};
use crate::common::agent::SOON;
use crate::common::mailbox::header;

/// What happens to the message.
enum End {
    Arrives,
    /// Words of the sentence.
    Refused(&'static str),
    /// One of the two, as the system likes.
    Either,
}

/// What is done in the caller's process before it becomes sendmail.
const SURROUNDINGS: &[(&str, &str, End)] = &[
    ("an umask of 0", "os.umask(0)", End::Arrives),
    ("an umask that takes everything", "os.umask(0o777)", End::Arrives),
    (
        "a directory that is gone",
        "os.mkdir('/tmp/gone'); os.chdir('/tmp/gone'); os.rmdir('/tmp/gone')",
        End::Arrives,
    ),
    ("a directory that is closed", "os.chdir('/proc/self/fdinfo')", End::Arrives),
    ("no standard output and no standard error", "os.close(1); os.close(2)", End::Arrives),
    ("no environment", "environment = {'LASTMILE_CONFIG': environment['LASTMILE_CONFIG']}", End::Arrives),
    (
        "an environment that is no text",
        "environment[b'NAME'] = b'\\xff\\xfe\\r\\nBcc: ann@example.org'; environment[b'LC_ALL'] = b'\\xff'",
        End::Arrives,
    ),
    (
        "time zones that are none",
        "environment['TZ'] = '/etc/shadow'; environment['TZDIR'] = '/proc'",
        End::Arrives,
    ),
    (
        "libraries of one's own",
        "environment['LD_PRELOAD'] = '/nowhere.so'; environment['RUST_LOG'] = 'trace'",
        End::Either,
    ),
    (
        "no room in files",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))",
        End::Refused("cannot write"),
    ),
    ("4 descriptors", "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))", End::Either),
    ("5 descriptors", "resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))", End::Either),
    ("7 descriptors", "resource.setrlimit(resource.RLIMIT_NOFILE, (7, 7))", End::Either),
    ("9 descriptors", "resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))", End::Either),
    ("11 descriptors", "resource.setrlimit(resource.RLIMIT_NOFILE, (11, 11))", End::Either),
    ("13 descriptors", "resource.setrlimit(resource.RLIMIT_NOFILE, (13, 13))", End::Either),
    ("32 descriptors", "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))", End::Arrives),
    ("no processes of one's own", "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))", End::Arrives),
    (
        "no core and a tiny stack",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))",
        End::Arrives,
    ),
    (
        "signals that are ignored",
        "[signal.signal(s, signal.SIG_IGN) for s in (signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ)]",
        End::Arrives,
    ),
    ("signals that are blocked", "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))", End::Arrives),
    (
        "another queue by a variable",
        "environment['LASTMILE_QUEUE_DIRECTORY'] = '/nowhere'",
        End::Refused("there is no mail queue"),
    ),
    (
        "a configuration that is somebody's secret",
        "environment['LASTMILE_CONFIG'] = os.environ['SITE'] + '/secret'",
        End::Refused("secret"),
    ),
    (
        "a key whose value stands in a secret file",
        "environment['LASTMILE_MYHOSTNAME_FILE'] = os.environ['SITE'] + '/secret'",
        End::Refused("secret"),
    ),
];

#[test]
fn odd_surroundings_lose_no_mail_in_silence() {
    let Some(scene) = Scene::new("") else { return };
    let secret = scene.site.path().join("secret");
    fs::write(&secret, "TOPSECRET").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut queued_ones = Vec::new();
    for (situation, setting, end) in SURROUNDINGS {
        let script = format!(
            "import resource\nenvironment = dict(os.environ)
for number in (signal.SIGXFSZ, signal.SIGPIPE): signal.signal(number, signal.SIG_DFL) # Python ignores them.
{setting}\nprogram = os.environ['LASTMILE']
os.execve(program, ['lastmile', 'sendmail', '-i', '-f', 'ann@example.org', 'ann@example.org'], environment)"
        );
        let output = crate::common::agent::run(&mut scene.python(ANN, ANN, &script), &message(situation));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("TOPSECRET"), "{situation}: {said}");
        let queued = output.status.success();
        match end {
            End::Arrives => assert!(queued, "{situation}: {output:?}"),
            End::Refused(words) => {
                assert!(
                    output.status.code().is_some_and(|code| (64..=78).contains(&code)),
                    "{situation}: {output:?}"
                );
                assert!(said.contains(words), "{situation}: {said}");
            }
            End::Either => {}
        }
        if queued {
            queued_ones.push(*situation);
        } else {
            let said: Vec<_> = said.lines().filter(|line| line.contains("sendmail: ")).collect();
            assert_eq!(said.len(), 1, "{situation}: {said:?}");
            assert!(said[0].starts_with("sendmail: the message was not queued: "), "{situation}: {said:?}");
        }
    }
    for situation in &queued_ones {
        scene.has_arrived(situation, "ann@example.org");
    }
    scene.site.wait_until_empty(SOON);
    assert_eq!(scene.server.all_mail().len(), queued_ones.len());
    scene.ends_well();
}

/// Without standard input there is no message but an empty one; what must not be is that a file of the queue takes its
/// place among the descriptors.
#[test]
fn closed_descriptors_are_not_taken_for_files_of_the_queue() {
    let Some(scene) = Scene::new("") else { return };
    for closed in ["0", "0 1", "0 1 2", "0 2"] {
        let script = format!(
            "for fd in '{closed}'.split(): os.close(int(fd))
os.execve(os.environ['LASTMILE'], ['lastmile', 'sendmail', '-i', '-f', 'ann@example.org', 'ann@example.org'], os.environ)"
        );
        let output = crate::common::agent::run(&mut scene.python(ANN, ANN, &script), b"");
        assert!(output.status.success() && output.stdout.is_empty(), "{closed}: {output:?}");
    }
    scene.site.wait_until_empty(SOON);
    for mail in scene.server.all_mail() {
        let text = String::from_utf8_lossy(&mail).into_owned();
        assert!(!text.contains("lastmile/1") && text.ends_with("\n\n"), "{text}");
    }
    scene.ends_well();
}

#[test]
fn a_callers_name_stays_within_its_field() {
    let Some(scene) = Scene::new("") else { return };
    let script = "environment = dict(os.environ, NAME='Ann\\r\\nBcc: mallory@example.org\\r\\n\\r\\nbody')
os.execve(os.environ['LASTMILE'], ['lastmile', 'sendmail', '-t', '-f', 'ann@example.org'], environment)";
    let sent = b"To: ann@example.org\nSubject: no sender\n\ntext\n";
    let output = crate::common::agent::run(&mut scene.python(ANN, ANN, script), sent);
    scene.accomplished(&output, script);
    let find = || scene.server.mail_of("ann@example.org").pop();
    let mail = soon("Ann's mail", find);
    assert!(header(&mail, "From").is_some_and(|from| from.contains("ann@example.org")));
    assert_eq!((header(&mail, "Bcc"), scene.server.all_mail().len()), (None, 1));
    assert!(mail.ends_with(b"\n\ntext\n"));
    scene.ends_well();
}

#[test]
fn a_strangers_own_configuration_leads_only_their_own_mail() {
    let Some(scene) = Scene::new("") else { return };
    let mallorys = Server::start(&scene.site, "mallorys", "");
    let script = format!(
        "import resource
own = f'/tmp/mallory-{{os.getpid()}}'
os.mkdir(own)
for place in ('incoming', 'active', 'deferred', 'hold', 'corrupt', 'tmp'): os.mkdir(own + '/' + place)
open(own + '/own.toml', 'w').write(f'''queue_directory = \"{{own}}\"
default_transport = \"lmtp:unix:{}\"
trusted_users = [\"54321\"]
''')
environment = dict(os.environ, LASTMILE_CONFIG=own + '/own.toml')
def run(environment, *arguments):
    child = os.fork()
    if child == 0: os.execve(os.environ['LASTMILE'], ['lastmile'] + list(arguments), environment)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert run(environment, 'sendmail', '-f', 'a@b.org', 'ann@example.org') == 0
assert len(os.listdir(own + '/active')) == 1
# Trust that one gives to oneself is worth nothing in the other queue.
environment = dict(os.environ, LASTMILE_TRUSTED_USERS='54321')
assert run(environment, 'sendmail', '--nexthop', 'unix:{}', '-f', 'a@b.org', 'ann@example.org') in (0, 77)
import shutil; shutil.rmtree(own)",
        mallorys.socket.display(),
        mallorys.socket.display()
    );
    scene.attack(&script);
    scene.anns_mail_arrives("beside a configuration");
    assert!(mallorys.all_mail().is_empty());
    scene.ends_well();
}
