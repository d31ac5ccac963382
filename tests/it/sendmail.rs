//! `lastmile sendmail`: exit codes, and what lies in the queue afterwards.

mod direct;
mod hardened;
mod hostile;
mod names;
mod originals;
mod smtp_server;

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use lastmile::spool::Spool;
use rustix::fs::{Gid, Uid};
use tempfile::TempDir;

/// A queue in a directory of its own. Nobody delivers from it, but its FIFO is open, as with an agent.
struct Queue {
    spool: Spool,
    /// Held as an agent would, so that the commands look for one.
    lock: Option<lastmile::spool::Lock>,
    _directory: TempDir,
}

impl Queue {
    fn new() -> Self {
        Self::owned_by(None)
    }

    fn owned_by(owner: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let owner = owner.map(|id| (Uid::from_raw(id), Gid::from_raw(id)));
        let (spool, lock) = Spool::prepare(&directory.path().join("queue"), owner).unwrap();
        Self { spool, lock: Some(lock), _directory: directory }
    }

    fn path(&self) -> &Path {
        self.spool.path()
    }

    fn files(&self, place: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join(place)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The only message in a place.
    fn message(&self, place: &str) -> String {
        let files = self.files(place);
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::read_to_string(&files[0]).unwrap()
    }

    fn is_empty(&self) -> bool {
        ["incoming", "active", "tmp"].iter().all(|place| self.files(place).is_empty())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("sendmail").args(args);
        command
    }

    /// The program under another name.
    fn command_named(&self, name: &str, args: &[&str]) -> Command {
        let mut command = self.program();
        command.arg0(name).args(args);
        command
    }

    fn program(&self) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lastmile"));
        command.env("LASTMILE_CONFIG", "/dev/null").env("LASTMILE_QUEUE_DIRECTORY", self.path());
        command.env("LASTMILE_MYHOSTNAME", "mx.example").env("LASTMILE_MYORIGIN", "example");
        command.env("LASTMILE_MESSAGE_SIZE_LIMIT", "10K").env("NAME", "Ann Doe");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Runs a command to its end, with `input` on its standard input.
fn run(mut command: Command, input: &str) -> Output {
    let mut child: Child = command.spawn().unwrap();
    // A command that refuses does not read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn assert_queued(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_message_is_queued_with_what_its_header_lacks() {
    let queue = Queue::new();
    let args = ["-f", "ann@x.example", "-N", "never", "-V", "QQ7", "-R", "hdrs", "bob@y.example", "carl"];
    let output = run(queue.command(&args), "Subject: hello\n\nHi,\nit is me.\n.\nnot any more\n");
    assert_queued(&output);

    let message = queue.message("active");
    let (head, content) = message.split_once("\n\n").unwrap();
    let lines: Vec<_> = head.lines().collect();
    assert_eq!((lines[0], lines[2]), ("lastmile/1", "-PP"));
    for member in [
        r#""sender":"ann@x.example""#,
        r#""recipients":2"#,
        r#""envid":"QQ7""#,
        r#""ret":"HDRS""#,
        r#""origin":"uid="#,
    ] {
        assert!(lines[1].contains(member), "{member} is not in {}", lines[1]);
    }
    assert_eq!(lines[3], r#"{"address":"bob@y.example","notify":"NEVER"}"#);
    assert_eq!(lines[4], r#"{"address":"carl@example","notify":"NEVER"}"#);

    let fields: Vec<_> = content.split("\r\n").map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        fields,
        ["Received:", "\tid", "Subject:", "From:", "Date:", "Message-ID:", "", "Hi,", "it", ""]
    );
    assert!(content.contains("\r\nFrom: \"Ann Doe\" <ann@x.example>\r\n"), "{content}");
    assert!(content.starts_with("Received: by mx.example (lastmile, from userid "), "{content}");
}

/// Whoever may write to `active/` makes files that are the agent's already; it has to read and to mark them.
#[test]
fn no_umask_keeps_the_agent_from_what_root_or_its_own_user_queues() {
    let queue = Queue::new();
    let program = queue.program();
    for (count, umask) in ["0777", "0400", "0"].into_iter().enumerate() {
        let mut command = Command::new("sh");
        command.args(["-c", "umask \"$1\"; exec \"$2\" sendmail -f a@x b@y", "sh", umask]);
        command.arg(program.get_program());
        command.envs(program.get_envs().map(|(name, value)| (name, value.unwrap())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        assert_queued(&run(command, "Subject: x\n\n"));
        let files = queue.files("active");
        assert_eq!(files.len(), count + 1, "{umask}");
        for file in files {
            assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o7777, 0o600, "{umask}");
        }
    }
}

#[test]
fn the_agent_is_told_through_the_fifo() {
    let queue = Queue::new();
    assert_queued(&run(queue.command(&["bob@y.example"]), "Subject: x\n\n"));
    let id = queue.files("active")[0].file_name().unwrap().to_str().unwrap().to_owned();
    let mut buffer = [0; 200];
    let length = queue.spool.jobs().unwrap().read(&mut buffer).unwrap();
    let line = std::str::from_utf8(&buffer[..length]).unwrap();
    assert_eq!(line, format!("\n{{\"queue_file\":\"active/{id}\"}}\n"));
}

#[test]
fn recipients_in_the_header_are_found_and_bcc_is_removed() {
    let queue = Queue::new();
    let input = "To: Bob <bob@y.example>\nBcc: dora@z.example,\n eve\nFrom: a@x\n\nhello\n";
    assert_queued(&run(queue.command(&["-ti", "carl@y.example"]), input));
    let message = queue.message("active");
    for address in ["carl@y.example", "bob@y.example", "dora@z.example", "eve@example"] {
        assert!(message.contains(&format!("\n{{\"address\":\"{address}\"}}\n")), "{message}");
    }
    let (_, content) = message.split_once("\n\n").unwrap();
    assert!(!content.contains("dora") && !content.contains("eve"), "{content}");
    assert!(content.contains("\r\nTo: Bob <bob@y.example>\r\n"), "{content}");
}

#[test]
fn who_gets_a_blind_copy_stays_unknown_also_where_recipients_are_named() {
    let queue = Queue::new();
    let input = "To: bob@y.example\nBCC: dora@z.example,\n eve@z.example\nResent-Bcc: fay@z.example\nFrom: a@x\n\nBcc: text\n";
    assert_queued(&run(queue.command(&["-f", "a@x", "bob@y.example"]), input));
    let message = queue.message("active");
    assert!(!message.contains("z.example"), "{message}");
    assert!(message.ends_with("\r\n\r\nBcc: text\r\n"), "{message}");
}

#[test]
fn what_cannot_be_queued_says_why_and_leaves_nothing() {
    let large = format!("Subject: x\n\n{}", "line\n".repeat(4000));
    for (args, input, code, words) in [
        (&[][..], "", 64, "sendmail: the message was not sent: nobody to send to"),
        (&["-bv", "b@y"], "", 64, "sendmail: nothing was done: -bv (verifying addresses)"),
        (
            &["--nexthop", "bad:host:name", "b@y"],
            "",
            64,
            "sendmail: the message was not queued: option --nexthop",
        ),
        (
            &["-t"],
            "Subject: x\n\n",
            65,
            "sendmail: the message was not queued: its header names no recipients",
        ),
        (&["-t"], "To: Ann Doe\n\n", 65, "sendmail: the message was not queued: the To field"),
        (&["a b"], "", 65, "sendmail: the message was not queued: \"a b\" is not one address"),
        (&["-f", "a@x, b@y", "c@z"], "", 65, "sendmail: the message was not queued: option -f"),
        (&["b@y"], &large, 69, "sendmail: the message was not queued: it is larger than"),
    ] {
        let queue = Queue::new();
        let output = run(queue.command(args), input);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.starts_with(words) && text.lines().count() == 1, "{args:?}: {text}");
        assert!(queue.is_empty(), "{args:?}");
    }
}

#[test]
fn a_queue_that_is_missing_and_a_wrong_configuration_have_their_codes() {
    let queue = Queue::new();
    for (variable, value, code) in
        [("LASTMILE_QUEUE_DIRECTORY", "/nonexistent/queue", 69), ("LASTMILE_WORKERS", "many", 78)]
    {
        let mut command = queue.command(&["b@y"]);
        command.env(variable, value);
        let output = run(command, "Subject: x\n\n");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(value) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn root_queues_as_the_owner_of_the_queue() {
    if !is_root() {
        eprintln!("only root can become somebody else");
        return;
    }
    let queue = Queue::owned_by(Some(54_321));
    assert_queued(&run(queue.command(&["-f", "a@x", "b@y"]), "Subject: x\n\n"));
    let file = std::fs::metadata(&queue.files("active")[0]).unwrap();
    assert_eq!((file.uid(), file.gid()), (54_321, 54_321));
    assert!(queue.message("active").contains("\"origin\":\"uid=0\""));
}

#[test]
fn anybody_else_drops_into_incoming_and_names_no_nexthop() {
    if !is_root() {
        eprintln!("only root can run a command as somebody else");
        return;
    }
    let queue = Queue::owned_by(Some(54_321));
    let as_user = |args: &[&str]| {
        let mut command = queue.command(args);
        command.uid(54_322).gid(54_322);
        run(command, "Subject: x\n\n")
    };
    assert_queued(&as_user(&["-f", "a@x", "b@y"]));
    let dropped = queue.files("incoming");
    assert_eq!(dropped.len(), 1);
    let file = std::fs::metadata(&dropped[0]).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (54_322, 54_321, 0o640));
    assert!(queue.files("active").is_empty() && queue.files("tmp").is_empty());

    for (args, code) in [(&["-f", "a@x", "--nexthop", "mx:24", "b@y"][..], 77), (&["b@y"], 67)] {
        let output = as_user(args);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(queue.files("incoming").len(), 1);
}

#[test]
fn a_trusted_user_may_be_a_number_and_may_name_a_nexthop() {
    if !is_root() {
        eprintln!("only root can run a command as somebody else");
        return;
    }
    let queue = Queue::owned_by(Some(54_321));
    for (trusted, code) in [("root 54322", 0), ("54323", 77), ("root", 77)] {
        let mut command = queue.command(&["-f", "a@x", "--nexthop", "mx:24", "b@y"]);
        command.uid(54_322).gid(54_322).env("LASTMILE_TRUSTED_USERS", trusted);
        let output = run(command, "Subject: x\n\n");
        assert_eq!(output.status.code(), Some(code), "{trusted}: {output:?}");
    }
    assert_eq!(queue.files("incoming").len(), 1);
}

#[test]
fn without_an_agent_the_advice_names_what_this_process_would_write_to() {
    if !is_root() {
        eprintln!("only root can run a command as somebody else");
        return;
    }
    for (closed, uid, named, others) in [
        ("active", 0, &["/active", "/tmp"][..], &["/incoming"][..]),
        ("tmp", 54_321, &["/active", "/tmp"], &["/incoming"]),
        ("incoming", 54_322, &["/incoming"], &["/active", "/tmp"]),
    ] {
        let queue = Queue::owned_by(Some(54_321));
        let path = queue.path().join(closed);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o555)).unwrap();
        let mut command = queue.command(&["-f", "a@x", "b@y"]);
        command.uid(uid).gid(uid);
        let output = run(command, "Subject: x\n\n");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(73), "{closed}: {text}");
        let advice = text.split_once("ReadWritePaths=").unwrap().1;
        let queue = queue.path().display().to_string();
        assert!(named.iter().all(|place| advice.contains(&format!("{queue}{place}"))), "{text}");
        assert!(!others.iter().any(|place| advice.contains(&format!("{queue}{place}"))), "{text}");
    }
}
