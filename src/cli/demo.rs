//! `lastmile demo`: an agent, a sink and some messages in a temporary directory.
//!
//! - Owns: the tour: what is sent, what is awaited, what is told in plain words.
//! - Leaves to others: everything else. The agent and sendmail run as the real commands, in processes of their own.
//! - Always true: it touches nothing outside of its directory, and ends within [`LIMIT`].

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::EX_SOFTWARE;
use crate::mail::Address;
use crate::sink::{Handle, Listen, Script, Sink, SinkConfig, Store, maildir_name};
use crate::spool::{JobWritten, Spool};

/// How long the whole tour may take.
const LIMIT: Duration = Duration::from_secs(14);
/// How often the log and the mailboxes are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How the mail server of the tour behaves.
const SCRIPT: &str = "rcpt nobody@* 550 5.1.1 no such user here\n\
                      data-done dora@* times 1 451 4.2.1 mailbox is locked, come back later\n";

/// Everything of one tour.
struct Demo {
    directory: tempfile::TempDir,
    sink: Handle,
    agent: Agent,
    log: Arc<Mutex<Vec<String>>>,
    deadline: Instant,
}

/// The agent's process; it does not outlive the tour, however that ends.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // It may have ended meanwhile.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Shows the main job.
pub fn run() -> ExitCode {
    match tour() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lastmile demo: {error}; the demonstration ends here");
            EX_SOFTWARE.into()
        }
    }
}

fn tour() -> io::Result<()> {
    let mut demo = Demo::start()?;
    let result = demo.show();
    let stopped = demo.stop();
    result.and(stopped)
}

impl Demo {
    fn start() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("lastmile-demo.").tempdir()?;
        let path = directory.path();
        say(&format!(
            "This is lastmile at work, in {}.\n\n\
             A mail server of our own (lastmile sink) speaks LMTP on a socket and delivers into Maildirs. It knows\n\
             no \"nobody\", and dora's mailbox is locked at the first try. Between it and you stands the agent.",
            path.display()
        ))?;
        let sink = Sink::start(SinkConfig {
            store: Store::Maildir(path.join("mail")),
            script: Script::parse(SCRIPT).map_err(io::Error::other)?,
            ..SinkConfig::new(Listen::Unix(path.join("lmtp")))
        })?;
        std::fs::write(path.join("lastmile.toml"), configuration(path))?;
        let mut agent = Agent(command(path, &["agent"])?.stderr(Stdio::piped()).spawn()?);
        let log = Arc::<Mutex<Vec<String>>>::default();
        if let Some(lines) = agent.0.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::Builder::new().name("demo log".to_owned()).spawn(move || show_log(lines, &log))?;
        }
        let demo = Self { directory, sink, agent, log, deadline: Instant::now() + LIMIT };
        demo.wait_for_log(&["started:"])?;
        Ok(demo)
    }

    fn show(&mut self) -> io::Result<()> {
        self.through_the_fifo()?;
        self.through_sendmail()?;
        self.with_a_refusal()?;
        self.with_a_second_try()
    }

    fn through_the_fifo(&self) -> io::Result<()> {
        say("\n1. A program drops a message into incoming/ and writes one line into the FIFO.")?;
        let spool = Spool::open(&self.path().join("queue")).map_err(io::Error::other)?;
        let content =
            "From: news@example.org\nTo: alice@example.org\nSubject: through the FIFO\n\nHello, Alice.\n";
        std::fs::write(self.path().join("queue/incoming/demo-1"), content)?;
        let job = json!({
            "queue_file": "incoming/demo-1", "sender": "news@example.org", "recipients": ["alice@example.org"],
        });
        say(&format!("   {job}"))?;
        match spool.write_job(&job.to_string())? {
            JobWritten::Written => {}
            other => return Err(io::Error::other(format!("the FIFO did not take the line ({other:?})"))),
        }
        self.wait_for_log(&["to=<alice@", "status=sent"])?;
        self.show_mailbox("alice@example.org", "through the FIFO")
    }

    fn through_sendmail(&self) -> io::Result<()> {
        say(
            "\n2. A list server sends one message to three people, with the sendmail command. They share one transaction,\n   \
             and the server answers for each of them.",
        )?;
        self.sendmail(
            "list@example.org",
            &["alice@example.org", "bob@example.org", "carol@example.org"],
            "to three",
        )?;
        for recipient in ["alice", "bob", "carol"] {
            self.wait_for_log(&[&format!("to=<{recipient}@"), "status=sent"])?;
        }
        self.show_mailbox("carol@example.org", "to three")
    }

    fn with_a_refusal(&self) -> io::Result<()> {
        say(
            "\n3. One of two recipients does not exist. The other gets the mail, and the sender gets a bounce.",
        )?;
        self.sendmail("erin@example.org", &["bob@example.org", "nobody@example.org"], "half of it")?;
        self.wait_for_log(&["to=<nobody@", "status=bounced"])?;
        self.wait_for_log(&["to=<erin@", "status=sent"])?;
        self.show_mailbox("erin@example.org", "")
    }

    fn with_a_second_try(&self) -> io::Result<()> {
        say(
            "\n4. dora's mailbox is locked. The message is deferred, waits on disk, and arrives at the second try.",
        )?;
        self.sendmail("erin@example.org", &["dora@example.org"], "in the end")?;
        self.wait_for_log(&["to=<dora@", "status=deferred"])?;
        self.wait_for_log(&["to=<dora@", "status=sent"])?;
        self.show_mailbox("dora@example.org", "in the end")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn sendmail(&self, sender: &str, recipients: &[&str], subject: &str) -> io::Result<()> {
        say(&format!("   lastmile sendmail -i -f {sender} {}", recipients.join(" ")))?;
        let arguments = [&["sendmail", "-i", "-f", sender], recipients].concat();
        let mut sendmail = command(self.path(), &arguments)?.stdin(Stdio::piped()).spawn()?;
        if let Some(mut input) = sendmail.stdin.take() {
            write!(input, "From: {sender}\nTo: {}\nSubject: {subject}\n\nHello.\n", recipients.join(", "))?;
        }
        let status = sendmail.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("sendmail failed ({status})"))) }
    }

    /// Waits for a log line that holds all of `words`.
    fn wait_for_log(&self, words: &[&str]) -> io::Result<()> {
        let is_it = |line: &String| words.iter().all(|word| line.contains(word));
        self.wait(&format!("a log line with {words:?}"), || {
            self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().any(is_it).then_some(())
        })
    }

    /// Shows the message with `subject` in its mailbox; of a bounce, what it says.
    fn show_mailbox(&self, recipient: &str, subject: &str) -> io::Result<()> {
        let address: Address = recipient.parse().map_err(io::Error::other)?;
        let new = self.path().join("mail").join(maildir_name(&address)).join("new");
        let (path, message) = self.wait(&format!("mail for {recipient}"), || find_message(&new, subject))?;
        say(&format!("   {recipient} has it: {}", path.display()))?;
        for line in message.lines().filter(|line| is_worth_showing(line)) {
            say(&format!("   | {line}"))?;
        }
        Ok(())
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> io::Result<T> {
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if Instant::now() > self.deadline {
                return Err(io::Error::other(format!("waited in vain for {what}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn stop(mut self) -> io::Result<()> {
        say("\nThe agent is told to stop (SIGTERM).")?;
        if let Some(pid) = rustix::process::Pid::from_raw(self.agent.0.id().cast_signed()) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let agent = &mut self.agent.0;
        let mut stopped = agent.try_wait()?;
        while stopped.is_none() {
            if Instant::now() > self.deadline {
                return Err(io::Error::other("the agent did not stop in time"));
            }
            std::thread::sleep(LOOK);
            stopped = agent.try_wait()?;
        }
        let stopped = stopped.map_or_else(String::new, |status| status.to_string());
        let counts = self.sink.stop();
        say(&format!(
            "\nThe server counted: {counts}.\nThe agent ended with {stopped}; its directory is removed."
        ))?;
        self.directory.close()
    }
}

/// A short way to a second try; otherwise what a site would write.
fn configuration(path: &Path) -> String {
    let user = if rustix::process::geteuid().is_root() { "user = \"root\"\n" } else { "" };
    format!(
        "queue_directory = \"{0}/queue\"\n\
         default_transport = \"lmtp:unix:{0}/lmtp\"\n\
         {user}myhostname = \"mail.example.org\"\n\
         myorigin = \"example.org\"\n\
         minimal_backoff_time = \"1s\"\n\
         maximal_backoff_time = \"1s\"\n\
         queue_run_delay = \"1s\"\n",
        path.display()
    )
}

/// One of our commands, with the tour's configuration alone: other variables of ours must not reach into it.
fn command(path: &Path, arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.to_ascii_uppercase().starts_with("LASTMILE_") || name == "RUST_LOG" || name == "NOTIFY_SOCKET"
        {
            command.env_remove(name);
        }
    }
    command.env("LASTMILE_CONFIG", path.join("lastmile.toml")).args(arguments).stdin(Stdio::null());
    Ok(command)
}

fn show_log(lines: ChildStderr, log: &Mutex<Vec<String>>) {
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        // If standard output is gone the tour is over anyway.
        let _ = say(&format!("   log: {line}"));
        log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

fn find_message(new: &Path, subject: &str) -> Option<(PathBuf, String)> {
    let field = format!("Subject: {subject}");
    std::fs::read_dir(new).ok()?.flatten().find_map(|entry| {
        let message = std::fs::read(entry.path()).ok()?;
        let message = String::from_utf8_lossy(&message).into_owned();
        message.lines().any(|line| line.starts_with(&field)).then(|| (entry.path(), message))
    })
}

/// Of a whole message, what tells the story.
fn is_worth_showing(line: &str) -> bool {
    ["Subject:", "From:", "Final-Recipient:", "Action:", "Diagnostic-Code:"]
        .iter()
        .any(|name| line.starts_with(name))
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
