//! An agent that root starts and that then is somebody else. Only root can try this; others see a message instead.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use rustix::process::{Signal, getuid};
use serde_json::json;

use super::{
    QueueFile, Server, id, in_memory, message, mounts_of_our_own, only_message_in, submit,
    wait_until_nothing_is_left,
};
use crate::common::agent::{LASTMILE, SOON, Site, run};
use crate::common::process::wait_for;

/// The account that Debian has for this, and its group.
const NOBODY: u32 = 65534;
/// Somebody without an account.
const STRANGER: u32 = 54321;

/// Whether the test can be run; says so where it cannot.
fn is_root() -> bool {
    let is_root = getuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can become another user");
    }
    is_root
}

/// A site whose agent is to be nobody, and a server that nobody may speak to.
fn for_nobody(keys: &str, destination: impl FnOnce(&Server) -> String) -> (Site, Server) {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    fs::set_permissions(&server.socket, Permissions::from_mode(0o666)).unwrap();
    let text = format!(
        "queue_directory = \"{}\"\nmyhostname = \"mx.example.org\"\nuser = \"nobody\"\ngroup = \"nogroup\"\n\
         default_transport = \"unix:{}\"\n{keys}\n",
        site.queue().display(),
        destination(&server)
    );
    fs::write(site.config(), text).unwrap();
    (site, server)
}

fn socket(server: &Server) -> String {
    server.socket.display().to_string()
}

/// Owner, group and mode of a file of the queue.
fn owner_and_mode(site: &Site, name: &str) -> (u32, u32, u32) {
    let metadata = fs::metadata(site.queue().join(name)).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

/// Runs the sendmail command as somebody else.
fn sendmail_as(site: &Site, uid: u32, subject: &str) {
    // The build directory may be closed to others.
    let copy = site.path().join("lastmile");
    fs::copy(LASTMILE, &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).args(["--clear-groups", "--"]);
    command.arg(copy).args(["sendmail", "-i", "-f", "a@example.org", "b@example.org"]);
    command.env_clear().env("LASTMILE_CONFIG", site.config()).current_dir("/");
    let output = run(&mut command, &message(subject));
    assert!(output.status.success(), "{output:?}");
}

/// The IDs in a line of /proc/PID/status.
fn identities(site: &Site, field: &str) -> Vec<u32> {
    let pid = fs::read_to_string(site.queue().join("agent.lock")).unwrap();
    let status = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn an_agent_that_root_starts_runs_as_its_user_and_so_does_its_queue() {
    if !is_root() {
        return;
    }
    let (site, server) = for_nobody("", socket);
    let agent = site.start_agent();
    assert_eq!(identities(&site, "Uid:"), [NOBODY; 4]);
    assert_eq!(identities(&site, "Gid:"), [NOBODY; 4]);
    assert!(!identities(&site, "Groups:").contains(&0));
    for (name, mode) in [("jobs", 0o620), ("incoming", 0o3733), ("active", 0o700), ("corrupt", 0o700)] {
        assert_eq!(owner_and_mode(&site, name), (NOBODY, NOBODY, mode), "{name}");
    }
    assert!(site.lines_with(&["runs as root"]).is_empty());
    sendmail_as(&site, STRANGER, "from a stranger");
    site.wait_for_line(&["pickup", &format!("uid={STRANGER} from=<a@example.org>")], SOON);
    assert!(server.only_mail_of("b@example.org").contains("from a stranger"));
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
}

#[test]
fn a_stranger_may_not_choose_the_nexthop() {
    if !is_root() {
        return;
    }
    for (keys, is_trusted) in [(String::new(), false), (format!("trusted_users = [\"{STRANGER}\"]"), true)] {
        let (site, server) = for_nobody(&keys, socket);
        let other = Server::start(&site, "other", "");
        fs::set_permissions(&other.socket, Permissions::from_mode(0o666)).unwrap();
        let agent = site.start_agent();
        // The sendmail command would not do it; an editor would.
        let head = json!({ "nexthop": format!("unix:{}", socket(&other)) });
        let recipients = [json!({"address": "b@example.org"})];
        let (id, content) = (id(1), "Subject: diverted\r\n\r\n");
        let file = QueueFile { id: &id, head, states: "-P", recipients: &recipients, content };
        let drafted = file.write(&site, "hold");
        chown(&drafted, Some(STRANGER), None).unwrap();
        fs::set_permissions(&drafted, Permissions::from_mode(0o644)).unwrap();
        fs::rename(drafted, site.queue().join("incoming/diverted")).unwrap();
        let (reached, passed_over) = if is_trusted { (&other, &server) } else { (&server, &other) };
        reached.only_mail_of("b@example.org");
        assert_eq!(passed_over.mail_of("b@example.org"), Vec::<String>::new());
        let warned = site.lines_with(&["warning: ", &format!("uid {STRANGER} may not choose the nexthop")]);
        assert_eq!(warned.len(), usize::from(!is_trusted), "{}", site.log());
        agent.stop();
    }
}

#[test]
fn root_queues_as_the_owner_of_the_queue() {
    if !is_root() {
        return;
    }
    let (site, server) = for_nobody("", socket);
    site.start_agent().stop();
    submit(&site, "from root", &["b@example.org"]);
    let metadata = fs::metadata(only_message_in(&site, "active")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY));
    let agent = site.start_agent();
    assert!(server.only_mail_of("b@example.org").contains("from root"));
    wait_until_nothing_is_left(&site, SOON);
    agent.stop();
}

#[test]
fn paths_of_sockets_are_inside_the_new_root_directory() {
    if !is_root() {
        return;
    }
    let inside =
        |server: &Server| PathBuf::from("/").join(server.socket.file_name().unwrap()).display().to_string();
    let (site, server) = for_nobody("", inside);
    let config = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{config}chroot = \"{}\"\n", site.path().display())).unwrap();
    let agent = site.start_agent();
    let pid = fs::read_to_string(site.queue().join("agent.lock")).unwrap();
    let root = fs::read_link(Path::new("/proc").join(pid.trim()).join("root")).unwrap();
    assert_eq!(root, site.path());
    sendmail_as(&site, STRANGER, "from outside");
    assert!(server.only_mail_of("b@example.org").contains("from outside"));
    submit(&site, "from root", &["c@example.org"]);
    server.only_mail_of("c@example.org");
    wait_until_nothing_is_left(&site, SOON);
    // A second look at the queue from in there: everything is reached by descriptors that were opened before.
    wait_for("an empty memory", SOON, || (in_memory(&site, &agent) == (0, 0)).then_some(()));
    agent.stop();
}

/// Puts a stranger's message into `incoming/`, with a nexthop in its head: the sendmail command would not do it, an
/// editor would.
fn drop_with_nexthop(site: &Site, number: u32, owner: u32, nexthop: &str) {
    let recipients = [json!({"address": "b@example.org"})];
    let (id, content) = (id(number), "Subject: diverted\r\n\r\n");
    let head = json!({ "nexthop": nexthop });
    let file = QueueFile { id: &id, head, states: "-P", recipients: &recipients, content };
    let drafted = file.write(site, "hold");
    chown(&drafted, Some(owner), None).unwrap();
    fs::set_permissions(&drafted, Permissions::from_mode(0o644)).unwrap();
    fs::rename(drafted, site.queue().join("incoming").join(&id)).unwrap();
}

#[test]
fn a_trusted_user_is_one_below_a_new_root_directory_too() {
    if !is_root() {
        return;
    }
    let (site, server) = for_nobody("trusted_users = [\"daemon\"]", |_| "/mail.sock".to_owned());
    let config = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{config}chroot = \"{}\"\n", site.path().display())).unwrap();
    let other = Server::start(&site, "other", "");
    fs::set_permissions(&other.socket, Permissions::from_mode(0o666)).unwrap();
    let agent = site.start_agent();
    drop_with_nexthop(&site, 1, 1, "unix:/other.sock");
    wait_for("the mail at its nexthop", SOON, || (other.mail_of("b@example.org").len() == 1).then_some(()));
    // Inside there is no list of users; what the names meant is still known.
    agent.signal(Signal::HUP);
    let line = site.wait_for_line(&["error: ", "was not read again"], SOON);
    assert!(line.contains("below chroot") && line.contains("a restart reads them"), "{line}");
    let inside = site.path().join(site.config().strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    fs::copy(site.config(), inside).unwrap();
    agent.signal(Signal::HUP);
    site.wait_for_line(&["the configuration was read again"], SOON);
    drop_with_nexthop(&site, 2, 1, "unix:/other.sock");
    wait_for("more mail at its nexthop", SOON, || (other.mail_of("b@example.org").len() == 2).then_some(()));
    assert_eq!(server.mail_of("b@example.org"), Vec::<String>::new());
    assert_eq!(site.lines_with(&["trusted_users"]), Vec::<String>::new());
    agent.stop();
}

/// The groups of the agent with a list of groups that only this thread and its children see; `None`, and a word about
/// it, where that is not possible.
fn groups_with_list(keys: &str) -> Option<Vec<u32>> {
    let (site, _server) = for_nobody("", |_| "/mail.sock".to_owned());
    let config = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), config + &keys.replace("SITE", &site.path().display().to_string())).unwrap();
    let list = site.path().join("group");
    fs::write(&list, "root:x:0:\nnogroup:x:65534:\nmailers:x:4711:nobody\n").unwrap();
    if !mounts_of_our_own() {
        return None;
    }
    let output = Command::new("mount").arg("--bind").arg(&list).arg("/etc/group").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let agent = site.start_agent();
    let groups = identities(&site, "Groups:");
    agent.stop();
    Some(groups)
}

#[test]
fn the_users_groups_are_taken_on_with_a_new_root_directory_too() {
    if !is_root() {
        return;
    }
    for keys in ["", "chroot = \"SITE\"\n"] {
        // The mounts end with the thread.
        let groups = std::thread::spawn(|| groups_with_list(keys)).join().unwrap();
        let Some(groups) = groups else { return };
        assert!(groups.contains(&4711), "{keys:?}: {groups:?}");
    }
}

#[test]
fn the_time_zone_is_found_out_before_the_root_directory_changes() {
    if !is_root() || !Path::new("/usr/share/zoneinfo/Pacific/Kiritimati").exists() {
        return eprintln!("skipped: this needs root and the list of time zones (tzdata)");
    }
    let (site, _server) = for_nobody("", |_| "/mail.sock".to_owned());
    let config = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{config}chroot = \"{}\"\n", site.path().display())).unwrap();
    // Fourteen hours ahead: never the hour that it is in UTC.
    let agent = site.start_agent_with(&[("TZ", "Pacific/Kiritimati")]);
    in_memory(&site, &agent);
    let hour_of = |line: &str| line.split(' ').find(|word| word.contains(':')).unwrap()[..2].to_owned();
    let hours: Vec<_> =
        ["started: ", "status: "].iter().map(|part| site.wait_for_line(&[part], SOON)).collect();
    let ahead = |seconds| Timestamp::now().as_second() + 14 * 3600 - seconds;
    let may_be = [0, 60].map(|seconds| format!("{:02}", ahead(seconds) / 3600 % 24));
    for line in hours {
        assert!(may_be.contains(&hour_of(&line)), "{line}: {may_be:?}");
    }
    agent.stop();
}

#[test]
fn root_that_does_not_say_so_is_warned() {
    if !is_root() {
        return;
    }
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    let text = format!(
        "queue_directory = \"{}\"\ndefault_transport = \"unix:{}\"\n",
        site.queue().display(),
        socket(&server)
    );
    fs::write(site.config(), text).unwrap();
    let agent = site.start_agent();
    site.wait_for_line(&["warning: ", "runs as root", "user"], SOON);
    agent.stop();
}
