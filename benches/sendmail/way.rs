//! Ways of queueing a message: our command in each of its roles, Postfix's, and the bare limit.
//!
//! - Owns: their configurations and queues, one call, counting and removing what calls have left.
//! - Leaves to others: how often and how many at a time (`main`).
//! - Always true: a call that fails ends the measurement; every command is started in the same manner, by fork and exec with
//!   the message as its standard input; nothing runs beside it, neither an agent nor Postfix.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{getgid, getuid};
use tempfile::TempDir;

use crate::common::agent::{LASTMILE, Site, run};

/// The account that Debian has for whoever owns nothing, and its group.
const NOBODY: u32 = 65534;
/// Where Postfix has its command.
const POSTFIX: &str = "/usr/sbin/sendmail";
/// What a site has that has just been installed: every key, commented.
const SHIPPED: &str = include_str!("../../etc/lastmile/lastmile.toml");
/// Octets of a FIFO.
const FIFO_SIZE: usize = 64 << 10;

/// One way.
pub struct Way {
    /// For the tables.
    pub name: &'static str,
    what: What,
    /// The message as it is submitted.
    message: PathBuf,
    /// The directory that messages arrive in.
    arrives: PathBuf,
    /// The agent's end of the job FIFO.
    fifo: Option<File>,
    /// What all of it lies in.
    site: Place,
}

enum What {
    /// A sendmail command, with what it needs in its environment.
    Command { program: PathBuf, environment: (&'static str, PathBuf), user: (u32, u32) },
    /// A command that does nothing, and a file that is written, renamed and synced in this process.
    Bare(AtomicUsize),
}

enum Place {
    Ours(Site),
    Other(TempDir),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Ours(site) => site.path(),
            Self::Other(directory) => directory.path(),
        }
    }
}

/// Every way that can be tried here; says which cannot.
pub fn all(message: &[u8]) -> Vec<Way> {
    let mut ways = vec![ours("lastmile, owner, no agent", false, false, message)];
    ways.push(ours("lastmile, owner, the agent's FIFO open", false, true, message));
    if getuid().is_root() {
        ways.push(ours("lastmile, another user, into incoming/", true, false, message));
        ways.extend(postfix(message));
    } else {
        println!("skipped: another user, and Postfix with a queue of its own: only root can set them up");
    }
    ways.push(bare(message));
    ways
}

/// Puts the message where a command can have it as its standard input.
fn write_message(site: &Path, message: &[u8]) -> PathBuf {
    let path = site.join("message");
    fs::write(&path, message).unwrap();
    path
}

fn ours(name: &'static str, dropped: bool, with_fifo: bool, message: &[u8]) -> Way {
    let site = Site::new(SHIPPED);
    // Its first start makes the directories.
    site.start_agent().stop();
    // The build directory may be closed to others.
    let program = site.path().join("lastmile");
    fs::copy(LASTMILE, &program).unwrap();
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut fifo = OpenOptions::new();
    fifo.read(true).write(true).custom_flags(nonblocking);
    Way {
        name,
        what: What::Command {
            program,
            environment: ("LASTMILE_CONFIG", site.config()),
            user: if dropped { (NOBODY, NOBODY) } else { (getuid().as_raw(), getgid().as_raw()) },
        },
        message: write_message(site.path(), message),
        arrives: site.queue().join(if dropped { "incoming" } else { "active" }),
        fifo: with_fifo.then(|| fifo.open(site.queue().join("jobs")).unwrap()),
        site: Place::Ours(site),
    }
}

/// `None` where Postfix is not installed.
fn postfix(message: &[u8]) -> Option<Way> {
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let user =
        accounts.lines().find_map(|line| line.strip_prefix("postfix:")?.split(':').nth(1)?.parse().ok());
    let (Some(user), true) = (user, Path::new(POSTFIX).exists()) else {
        println!("skipped: Postfix is not installed");
        return None;
    };
    let defaults = run(Command::new("postconf").args(["-d", "-h", "mail_version", "command_directory"]), b"");
    let defaults = String::from_utf8(defaults.stdout).unwrap();
    let (version, installed) = defaults.trim_end().split_once('\n').unwrap();
    println!("beside Postfix {version}");
    let site = tempfile::Builder::new().prefix("postfix-").tempdir().unwrap();
    fs::set_permissions(site.path(), Permissions::from_mode(0o755)).unwrap();
    let [queue, data, commands] = ["queue", "data", "commands"].map(|name| site.path().join(name));
    // A copy that is not setgid, which root does not need: valgrind does not run setgid programs.
    fs::create_dir(&commands).unwrap();
    fs::copy(Path::new(installed).join("postdrop"), commands.join("postdrop")).unwrap();
    fs::set_permissions(commands.join("postdrop"), Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\ncommand_directory = {}\n\
         myhostname = mx.example.org\n",
        queue.display(),
        data.display(),
        commands.display()
    );
    fs::write(site.path().join("main.cf"), text).unwrap();
    for (directory, mode) in
        [(&data, 0o700), (&queue.join("maildrop"), 0o730), (&queue.join("public"), 0o710)]
    {
        fs::create_dir_all(directory).unwrap();
        chown(directory, Some(user), None).unwrap();
        fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
    }
    // What a Postfix that is stopped leaves; without it each call would log a warning.
    drop(UnixListener::bind(queue.join("public/pickup")).unwrap());
    Some(Way {
        name: "Postfix, root, into maildrop/",
        what: What::Command {
            program: POSTFIX.into(),
            environment: ("MAIL_CONFIG", site.path().to_owned()),
            user: (getuid().as_raw(), getgid().as_raw()),
        },
        message: write_message(site.path(), message),
        arrives: queue.join("maildrop"),
        fifo: None,
        site: Place::Other(site),
    })
}

fn bare(message: &[u8]) -> Way {
    let site = tempfile::Builder::new().prefix("bare-").tempdir().unwrap();
    let arrives = site.path().join("queue");
    fs::create_dir(&arrives).unwrap();
    Way {
        name: "true(1), and one file written and synced",
        what: What::Bare(AtomicUsize::new(0)),
        message: write_message(site.path(), message),
        arrives,
        fifo: None,
        site: Place::Other(site),
    }
}

impl Way {
    /// Whether the others are compared with it.
    pub fn is_reference(&self) -> bool {
        self.name.starts_with("Postfix")
    }

    /// Whether it is a sendmail command.
    pub fn is_command(&self) -> bool {
        matches!(self.what, What::Command { .. })
    }

    /// A directory for what a measurement leaves; anybody may write there.
    pub fn scratch(&self) -> PathBuf {
        let path = self.site.path().join("scratch");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        path
    }

    /// Queues the message once.
    pub fn call(&self) {
        self.call_under(&[]);
    }

    /// The same, with a command in front that runs the command after it.
    pub fn call_under(&self, prefix: &[OsString]) {
        let mut words = prefix.to_vec();
        match &self.what {
            What::Command { program, .. } => {
                words.push(program.into());
                words.extend(self.arguments());
            }
            What::Bare(_) => words.push("true".into()),
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir("/");
        command.stdin(File::open(&self.message).unwrap()).stdout(Stdio::null());
        if let What::Command { environment: (name, value), user: (user, group), .. } = &self.what {
            // Also where they are ours: whoever changes users is started by fork and exec, anybody else by vfork.
            command.env_clear().env("PATH", "/usr/bin:/bin").env(name, value).uid(*user).gid(*group);
        }
        let status = command.status().unwrap_or_else(|error| panic!("{}: {words:?}: {error}", self.name));
        assert!(status.success(), "{}: {words:?} ended with {status}", self.name);
        if let What::Bare(count) = &self.what {
            self.write_and_sync(count.fetch_add(1, Ordering::Relaxed));
        }
    }

    fn arguments(&self) -> Vec<OsString> {
        let ours: &[&str] = if self.is_reference() { &[] } else { &["sendmail"] };
        let words = ours.iter().chain(&["-i", "-f", "a@x.example", "--", "b@y.example"]);
        words.map(OsString::from).collect()
    }

    fn write_and_sync(&self, number: usize) {
        let (unfinished, path) =
            (self.site.path().join(number.to_string()), self.arrives.join(number.to_string()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished).unwrap();
        file.write_all(&fs::read(&self.message).unwrap()).unwrap();
        fs::rename(unfinished, path).unwrap();
        file.sync_all().unwrap();
    }

    /// Removes the messages and what the agent would have been told; returns how many messages there were.
    pub fn take_away(&self) -> usize {
        let files: Vec<_> = fs::read_dir(&self.arrives).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
        if let Some(mut fifo) = self.fifo.as_ref() {
            // The whole of it fits, and nobody writes any more.
            let length = fifo.read(&mut vec![0; FIFO_SIZE]).unwrap();
            assert!(length > files.len(), "{}: the agent was not told of every message", self.name);
        }
        // What is removed must not be anybody's sync to wait for.
        File::open(&self.arrives).unwrap().sync_all().unwrap();
        files.len()
    }
}
