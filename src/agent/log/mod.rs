//! The log: who may wait for it, how lines look, where they go.
//!
//! - Owns: the set-up of the `log` facade, the log thread, Postfix's tags and severities, syslog and postlogd(8).
//! - Leaves to others: what is logged. Filtering is env_logger's (`LASTMILE_LOG`, `RUST_LOG`).
//! - Always true: the master never waits for the log. A line it cannot hand over is counted, and the count logged.
//!
//! The agent of its own queue logs as `lastmile/lmtp` and the like, where its configuration says ([`start`]). A program
//! under Postfix's master(8) logs as Postfix's do ([`start_mail_log`]): its own name is the tag, and it opens its log
//! twice, first as the environment has it, and once main.cf is read as that does ([`OpenMailLog::reopen`]).

mod buffer;
mod mail;
mod target;

use std::cell::{Cell, RefCell};
use std::fmt::{self, Display, Write as _};
use std::io;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{Level, Log, Metadata, Record};

use self::buffer::{Buffer, By};
use self::mail::MailSocket;
pub use self::mail::{Facility, MailLog, MailLogTarget};
use self::target::{Date, Front, Target};
use crate::config::Config;

/// Log targets that become tags: analysers of mail logs tell programs apart by them.
pub const LMTP: &str = "lastmile::lmtp";
/// See [`LMTP`].
pub const SMTP: &str = "lastmile::smtp";
/// See [`LMTP`].
pub const QMGR: &str = "lastmile::qmgr";
/// See [`LMTP`].
pub const PICKUP: &str = "lastmile::pickup";
/// See [`LMTP`].
pub const BOUNCE: &str = "lastmile::bounce";

/// A log target whose lines begin with `fatal: `: the program ends for this reason. No filter holds them back.
const FATAL: &str = "lastmile::fatal";
/// The same for `panic: `: a fault of this software.
const PANIC: &str = "lastmile::panic";

/// Octets of a line's text in a mail log: more is cut off, as Postfix's programs do it.
const MAIL_LOG_TEXT_MAX: usize = 2000;
/// The end of the line that tells how many were lost.
const DROPPED: &str = " log lines dropped";

thread_local! {
    static MAY_NOT_WAIT: Cell<bool> = const { Cell::new(false) };
    /// The thread is about to write what it logs.
    static WRITES: Cell<bool> = const { Cell::new(false) };
    /// Each thread puts its lines together in a place of its own.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Marks the calling thread as one that must never wait for the log.
pub fn this_thread_may_not_wait() {
    MAY_NOT_WAIT.set(true);
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Panic,
    Fatal,
    Error,
    Warning,
    Info,
    Debug,
}

impl Severity {
    fn of(target: &str, level: Level) -> Self {
        match (target, level) {
            (FATAL, _) => Self::Fatal,
            (PANIC, _) => Self::Panic,
            (_, Level::Error) => Self::Error,
            (_, Level::Warn) => Self::Warning,
            (_, Level::Info) => Self::Info,
            (_, Level::Debug | Level::Trace) => Self::Debug,
        }
    }

    /// What stands in front of the text.
    fn word(self) -> &'static str {
        match self {
            Self::Panic => "panic: ",
            Self::Fatal => "fatal: ",
            Self::Error => "error: ",
            Self::Warning => "warning: ",
            Self::Info | Self::Debug => "",
        }
    }

    /// syslog(3)'s number.
    fn number(self) -> u8 {
        match self {
            Self::Panic | Self::Fatal => 2,
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

/// What stands around a line's text.
struct Look {
    front: Front,
    date: Date,
    /// Before the tag: `syslog_name` and a slash. Behind it: the process ID in brackets.
    name: String,
    pid: String,
    /// The tag of all lines; `None`: their log targets have tags.
    process: Option<String>,
}

impl Look {
    fn of_agent(config: &Config) -> Self {
        Self::new(Front::new(config), &config.syslog_name, None)
    }

    fn of_mail_log(log: &MailLog) -> Self {
        Self::new(Front::of_mail_log(log), &log.syslog_name, Some(log.process.clone()))
    }

    fn new(front: Front, syslog_name: &str, process: Option<String>) -> Self {
        let pid = format!("[{}]: ", std::process::id());
        Self { front, date: Date::local(), name: format!("{syslog_name}/"), pid, process }
    }

    fn append(&mut self, octets: &mut Vec<u8>, severity: Severity, tag: &str, line: &str) {
        self.front.append(severity, &mut self.date, octets);
        let tag = self.process.as_deref().unwrap_or(tag);
        for part in [&self.name, tag, &self.pid, line, "\n"] {
            octets.extend_from_slice(part.as_bytes());
        }
    }
}

struct AgentLog {
    filter: env_logger::Logger,
    text_max: usize,
    look: Arc<Mutex<Look>>,
    lines: Arc<Buffer>,
}

/// Starts the log thread and installs it as the program's logger. Must be called once, before other threads start.
pub fn start(config: &Config) -> io::Result<()> {
    let target = Arc::new(Mutex::new(Target::open(config)?));
    let logger = AgentLog::new(Look::of_agent(config), filter("info"), usize::MAX);
    write_in_a_thread(&logger.lines, &target)?;
    install(logger)
}

/// The same for a program under Postfix's master(8), whose panics are logged too, since nobody sees its standard error.
/// That nobody listens is no error: lines are dropped until somebody does.
pub fn start_mail_log(log: &MailLog, is_verbose: bool) -> io::Result<OpenMailLog> {
    let filter = filter(if is_verbose { "debug" } else { "info" });
    let (logger, open) = open_mail_log(log, filter);
    write_in_a_thread(&open.lines, &open.target)?;
    install(logger)?;
    std::panic::set_hook(Box::new(|info| log::error!(target: PANIC, "{}", words_of(info))));
    Ok(open)
}

fn open_mail_log(log: &MailLog, filter: env_logger::Logger) -> (AgentLog, OpenMailLog) {
    let logger = AgentLog::new(Look::of_mail_log(log), filter, MAIL_LOG_TEXT_MAX);
    let (look, lines) = (Arc::clone(&logger.look), Arc::clone(&logger.lines));
    let target = Arc::new(Mutex::new(Target::Mail(MailSocket::open(log))));
    (logger, OpenMailLog { look, lines, target })
}

fn write_in_a_thread(lines: &Arc<Buffer>, target: &Arc<Mutex<Target>>) -> io::Result<()> {
    let (lines, target) = (Arc::clone(lines), Arc::clone(target));
    let write = move || {
        let mut taken = Vec::new();
        loop {
            lines.wait();
            write_now(&lines, &target, &mut taken);
        }
    };
    std::thread::Builder::new().name("log".to_owned()).spawn(write).map(drop)
}

/// Whoever holds the target takes the lines: so all that was logged before this is written when it returns.
fn write_now(lines: &Buffer, target: &Mutex<Target>, room: &mut Vec<u8>) {
    let mut target = locked(target);
    lines.take(room);
    lines.lost(target.write(room));
}

fn install(logger: AgentLog) -> io::Result<()> {
    log::set_max_level(logger.filter.filter());
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)
}

/// A mail log that can be changed for another.
#[derive(Clone)]
pub struct OpenMailLog {
    look: Arc<Mutex<Look>>,
    lines: Arc<Buffer>,
    target: Arc<Mutex<Target>>,
}

impl fmt::Debug for OpenMailLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenMailLog").finish_non_exhaustive()
    }
}

impl OpenMailLog {
    /// One that nobody reads.
    #[cfg(test)]
    pub fn unheard() -> Self {
        let log = MailLog {
            syslog_name: "postfix".to_owned(),
            process: "test".to_owned(),
            target: MailLogTarget::Postlog { socket: "/nonexistent".into(), host: "mx".to_owned() },
            to_stderr: false,
        };
        open_mail_log(&log, filter("info")).1
    }

    /// Does what logs, and writes its lines as soon as it is done, see [`OpenMailLog::write_now`].
    pub fn writing<R>(&self, log: impl FnOnce() -> R) -> R {
        WRITES.set(true);
        let result = log();
        WRITES.set(false);
        self.write_now();
        result
    }

    /// Writes all that was logged so far, here and now: what somebody else logs from what he hears next comes behind it.
    /// Where whoever reads the log hangs, this takes as long as the log waits for him.
    pub fn write_now(&self) {
        write_now(&self.lines, &self.target, &mut Vec::new());
    }

    /// What is logged from now on goes to `log`; what was logged before still goes where it should. To be called
    /// before the root directory or the user changes, and while only one thread logs.
    pub fn reopen(&self, log: &MailLog) {
        // Half a second at most. What a stuck log has not taken by then goes to the new one, in its old form.
        self.lines.flush();
        let (look, target) = (Look::of_mail_log(log), Target::Mail(MailSocket::open(log)));
        *locked(&self.target) = target;
        *locked(&self.look) = look;
    }
}

/// Logs why the program ends, and waits until that is written, for half a second at most.
pub fn fatal(reason: impl Display) {
    log::error!(target: FATAL, "{reason}");
    log::logger().flush();
}

fn words_of(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("no text");
    let place = info.location().map(|location| format!(" at {location}")).unwrap_or_default();
    let thread = std::thread::current();
    format!("{text} (thread {}{place})", thread.name().unwrap_or("without name"))
}

/// Nothing that is locked here is left half done by a thread that panics.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines that are lost with this one: a word about lost lines stands for them.
fn count_in(line: &[u8]) -> u64 {
    let told =
        line.strip_suffix(DROPPED.as_bytes()).and_then(|rest| rest.rsplit(|&octet| octet == b' ').next());
    told.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok()).unwrap_or(1)
}

/// `LASTMILE_LOG`, else `RUST_LOG`, else everything from `default` up.
fn filter(default: &str) -> env_logger::Logger {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let wanted =
        variable("LASTMILE_LOG").or_else(|| variable("RUST_LOG")).unwrap_or_else(|| default.to_owned());
    env_logger::Builder::new().parse_filters(&wanted).build()
}

impl Log for AgentLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) && record.target() != FATAL {
            return;
        }
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => {
                line.clear();
                self.hand_over(record, &mut line);
            }
            // What is being put into words logs something itself.
            Err(_) => self.hand_over(record, &mut String::new()),
        });
    }

    fn flush(&self) {
        self.lines.flush();
    }
}

impl AgentLog {
    fn new(look: Look, filter: env_logger::Logger, text_max: usize) -> Self {
        Self { filter, text_max, look: Arc::new(Mutex::new(look)), lines: Arc::new(Buffer::new()) }
    }

    /// `line` is empty.
    fn hand_over(&self, record: &Record<'_>, line: &mut String) {
        let severity = Severity::of(record.target(), record.level());
        line.push_str(severity.word());
        // Writing to a String cannot fail; what cannot be formatted says so no better.
        let _ = write!(line, "{}", record.args());
        // Text from outside cannot start a line of its own. Octets are looked at first, all of
        // them, since that needs no branches: nearly every line is clean.
        if line.bytes().fold(false, |found, octet| found | may_begin_control(octet)) {
            *line = line.replace(|c: char| c.is_control(), "?");
        }
        let length = line.floor_char_boundary(self.text_max.saturating_add(severity.word().len()));
        line.truncate(length);
        let tag = match record.target() {
            known @ (LMTP | SMTP | QMGR | PICKUP | BOUNCE) => &known["lastmile::".len()..],
            _ => "agent",
        };
        let by = if WRITES.get() {
            By::Writer
        } else if MAY_NOT_WAIT.get() {
            By::MayNotWait
        } else {
            By::MayWait
        };
        self.lines.append(by, |octets, dropped| {
            let mut look = locked(&self.look);
            if dropped > 0 {
                let said = format!("warning: {dropped}{DROPPED}");
                look.append(octets, Severity::Warning, "agent", &said);
            }
            look.append(octets, severity, tag, line);
        });
    }
}

/// Whether a control character may begin with this octet: those of ASCII, and U+0080 to U+009F.
fn may_begin_control(octet: u8) -> bool {
    octet < b' ' || octet == 0x7f || octet == 0xc2
}

#[cfg(test)]
mod tests;
