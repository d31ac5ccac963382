//! A machine as its programs see it: sendmail under its names, a home, and a queue from which nobody delivers.
//!
//! - Owns: the private directory, running a caller in it, what it called (every argument, every octet), what lies in
//!   the queue then.
//! - Leaves to others: which programs call, and what is right.
//! - Always true: a caller runs with an environment and a home of its own. Between it and the program under test
//!   stands a script that notes down the call and changes nothing: standard output and error, and the exit status are
//!   the program's, and where the program stops reading its caller gets SIGPIPE.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lastmile::spool::{Lock, Spool};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::agent::{self, LASTMILE};
use crate::common::process::tied_to_this_thread;

/// The names of the program under test. `bin/` has the script that notes calls down, `original/` the program itself.
const NAMES: [&str; 4] = ["sendmail", "smtpc", "mailq", "newaliases"];

/// Configurations with which nothing can be queued, and the exit code that says so: no room now, a message that is
/// too large, a configuration that is wrong.
pub const REFUSALS: [(&str, i32); 3] =
    [("queue_minfree = \"1000000G\"", 75), ("message_size_limit = \"30\"", 69), ("workers = \"many\"", 78)];

/// A private directory with `bin/sendmail` and its other names, `home/` and `queue/`.
pub struct Machine {
    spool: Spool,
    _lock: Lock,
    directory: TempDir,
}

/// One call of the program, as its caller made it.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// The arguments, without the name.
    pub arguments: Vec<String>,
    /// What came on standard input, at least as far as the program read it.
    pub input: Vec<u8>,
}

/// A message in the queue.
#[derive(Debug)]
pub struct Queued {
    /// The head: `sender`, `envid`, `ret`, `smtputf8`, …
    pub head: Value,
    /// The recipients: `address`, and where they were given `notify`, `orcpt`.
    pub recipients: Vec<Value>,
    /// The content, with CRLF.
    pub content: Vec<u8>,
}

impl Machine {
    /// `myhostname` is `mx.example.org`, `myorigin` is `example.org`; there are no aliases.
    pub fn new() -> Self {
        Self::with_config("")
    }

    /// The same with more in the configuration of lastmile; it starts with top-level keys.
    pub fn with_config(config: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("lastmile-callers-").tempdir().unwrap();
        // Callers that run as other users come here.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let (spool, lock) = Spool::prepare(&directory.path().join("queue"), None).unwrap();
        let machine = Self { spool, _lock: lock, directory };
        for name in ["home", "bin", "original", "calls"] {
            fs::create_dir(machine.path().join(name)).unwrap();
        }
        fs::set_permissions(machine.path().join("calls"), Permissions::from_mode(0o1777)).unwrap();
        machine.configure(config);
        machine.provide(Path::new(LASTMILE));
        machine
    }

    /// Writes the configuration anew.
    pub fn configure(&self, config: &str) {
        let queue = self.spool.path().display();
        let text = format!(
            "queue_directory = \"{queue}\"\nmyhostname = \"mx.example.org\"\nmyorigin = \"example.org\"\n{config}\n"
        );
        fs::write(self.path().join("lastmile.toml"), text).unwrap();
    }

    /// Puts the program under its names.
    fn provide(&self, lastmile: &Path) {
        for name in NAMES {
            let original = self.path().join("original").join(name);
            symlink(lastmile, &original).unwrap();
            self.provide_as(name, &original);
        }
    }

    /// Puts any program under a name in `bin/`; its calls are noted down too.
    pub fn provide_as(&self, name: &str, program: &Path) -> PathBuf {
        let script = self.path().join("bin").join(name);
        write_script(&script, &recorder(self.path(), program));
        script
    }

    /// The machine's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `$HOME` of what runs here.
    pub fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// Writes a file into the home, and returns its path.
    pub fn write_home(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The command that callers are told to call, instead of /usr/sbin/sendmail.
    pub fn sendmail(&self) -> String {
        self.named("sendmail")
    }

    /// The program under one of its names.
    pub fn named(&self, name: &str) -> String {
        self.path().join("bin").join(name).to_str().unwrap().to_owned()
    }

    /// A program that finds sendmail in its `PATH` and its files in the private home, and ends with its test. Nothing
    /// else of the environment reaches it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = tied_to_this_thread("KILL", program);
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/sbin:/sbin", self.path().join("bin").display());
        command.env_clear().env("PATH", path).env("HOME", self.home()).env("TMPDIR", self.home());
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env("USER", "ann").env("LOGNAME", "ann");
        command.current_dir(self.home());
        command
    }

    /// Runs such a program to its end, with `input` on its standard input.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str], input: &[u8]) -> Output {
        agent::run(self.command(program).args(arguments), input)
    }

    /// What was called since the last look, in order.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        for directory in (1..).map(|number| self.path().join("calls").join(number.to_string())) {
            let Ok(arguments) = fs::read(directory.join("arguments")) else { break };
            let input = fs::read(directory.join("input")).unwrap();
            fs::remove_dir_all(&directory).unwrap();
            let arguments = String::from_utf8(arguments).unwrap();
            let arguments = arguments.split_terminator('\0').map(str::to_owned).collect();
            calls.push(Call { arguments, input });
        }
        calls
    }

    /// The one call since the last look.
    #[track_caller]
    pub fn call(&self) -> Call {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    /// Takes what is queued out of the queue, oldest first. Nothing may lie about unfinished.
    #[track_caller]
    pub fn take_queued(&self) -> Vec<Queued> {
        assert_eq!(self.names_in("tmp"), Vec::<String>::new());
        let mut messages = Vec::new();
        for place in ["active", "incoming"] {
            for name in self.names_in(place) {
                let path = self.spool.path().join(place).join(name);
                messages.push(Queued::parse(&fs::read(&path).unwrap()));
                fs::remove_file(path).unwrap();
            }
        }
        messages
    }

    /// How many messages are queued, whole.
    pub fn count_queued(&self) -> usize {
        let names = ["active", "incoming"].map(|place| self.names_in(place)).concat();
        names.iter().filter(|name| !name.starts_with('.')).count()
    }

    /// Takes the one message out of the queue.
    #[track_caller]
    pub fn take_one(&self) -> Queued {
        let mut messages = self.take_queued();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    /// Fails unless nothing is queued, not even in part.
    #[track_caller]
    pub fn assert_nothing_queued(&self) {
        assert_eq!(self.take_queued().len(), 0);
    }

    /// Sorted; queue IDs begin with the time.
    fn names_in(&self, place: &str) -> Vec<String> {
        let entries = fs::read_dir(self.spool.path().join(place)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// The script between a caller and `program`. What the caller did with its environment is no matter: a real machine
/// has its configuration in /etc.
fn recorder(directory: &Path, program: &Path) -> String {
    format!(
        r#"#!/bin/bash
number=1
until mkdir "{directory}/calls/$number" 2>/dev/null; do number=$((number + 1)); done
call="{directory}/calls/$number"
if (($#)); then printf '%s\0' "$@"; fi >"$call/arguments"
export LASTMILE_CONFIG="{directory}/lastmile.toml"
mkfifo "$call/pipe"
: >"$call/input"
# What the program reads is noted down before. It may end while its caller still waits for an answer. A caller that
# writes at its leisure gets SIGPIPE only for what it writes after that, and not for what it was about to.
tee "$call/pipe" <&0 >>"$call/input" 2>/dev/null &
"{program}" "$@" <"$call/pipe"
"#,
        directory = directory.display(),
        program = program.display(),
    )
}

/// Whether a caller is installed. Where it is not, its test says so and ends.
pub fn has(program: &str, package: &str) -> bool {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        eprintln!("skipped: there is no {program} (apt-get install {package})");
    }
    found
}

/// The login name of whoever runs the tests, which is the envelope sender where a caller names none.
pub fn login() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().expect("a user with a name").name
}

/// Standard output and error as text, for comparing and for showing.
pub fn said(output: &Output) -> String {
    format!("{}{}", shown(&output.stdout), shown(&output.stderr))
}

/// Writes an executable file.
pub fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

impl Queued {
    #[track_caller]
    fn parse(octets: &[u8]) -> Self {
        let mut lines = octets.split_inclusive(|&octet| octet == b'\n');
        assert_eq!(lines.next(), Some(&b"lastmile/1\n"[..]));
        let head: Value = serde_json::from_slice(lines.next().unwrap()).unwrap();
        let count = usize::try_from(head["recipients"].as_u64().unwrap()).unwrap();
        assert_eq!(lines.next().unwrap(), format!("-{}\n", "P".repeat(count)).as_bytes());
        let recipient = |line: &[u8]| serde_json::from_slice(line).unwrap();
        let recipients = lines.by_ref().take(count).map(recipient).collect();
        assert_eq!(lines.next(), Some(&b"\n"[..]));
        Self { head, recipients, content: lines.flatten().copied().collect() }
    }

    /// The envelope sender; empty for the null sender.
    pub fn sender(&self) -> &str {
        self.head["sender"].as_str().unwrap()
    }

    /// The recipients' addresses, in order.
    pub fn addresses(&self) -> Vec<&str> {
        self.recipients.iter().map(|recipient| recipient["address"].as_str().unwrap()).collect()
    }

    /// The content as a person reads it, with LF.
    pub fn text(&self) -> String {
        String::from_utf8(self.content.clone()).unwrap().replace("\r\n", "\n")
    }

    /// The first field of that name in the header.
    pub fn field(&self, name: &str) -> Option<String> {
        crate::common::mailbox::header(&self.content, name)
    }

    /// Fails unless the content is `submitted`, octet by octet with CRLF for its line ends, after our Received field
    /// and with exactly the fields of the names `added` at the end of its header, in this order.
    #[track_caller]
    pub fn assert_is(&self, submitted: &[u8], added: &[&str]) {
        let (head, body) = split(&with_crlf(submitted));
        let (our_head, our_body) = split(&self.content);
        assert_eq!(shown(&our_body), shown(&body));
        let rest = without_received(&our_head);
        let Some(after) = rest.strip_prefix(&head[..]) else {
            panic!("the header was changed:\n{:?}\n{:?}", shown(rest), shown(&head));
        };
        let after = String::from_utf8(after.to_vec()).unwrap();
        let names = after.split_terminator("\r\n").filter(|line| !line.starts_with([' ', '\t']));
        let names: Vec<_> = names.map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(names, added, "{after:?}");
    }
}

/// The header after the Received field, which is there, whole, and ours.
#[track_caller]
fn without_received(head: &[u8]) -> &[u8] {
    assert!(head.starts_with(b"Received: by mx.example.org (lastmile, from userid "), "{:?}", shown(head));
    let lines = head.split_inclusive(|&octet| octet == b'\n').skip(1);
    let length = |line: &[u8]| line.len();
    let folded = lines.clone().take_while(|line| line.starts_with(b" ") || line.starts_with(b"\t"));
    let first = head.split_inclusive(|&octet| octet == b'\n').next().map_or(0, length);
    &head[first + folded.map(length).sum::<usize>()..]
}

/// The header's lines, and what follows the empty line. A message may end with its header.
fn split(message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let at = message.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = at.map_or((message, &b""[..]), |at| (&message[..at + 2], &message[at + 4..]));
    (head.to_vec(), body.to_vec())
}

/// What the queue holds of lines: their ends are CRLF, and the last one has its end too.
pub fn with_crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    for (at, &octet) in octets.iter().enumerate() {
        if octet == b'\n' && (at == 0 || octets[at - 1] != b'\r') {
            out.push(b'\r');
        }
        out.push(octet);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
