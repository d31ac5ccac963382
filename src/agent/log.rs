//! The log: who may wait for it, how lines look, where they go.
//!
//! - Owns: the set-up of the `log` facade, the log thread, Postfix's tags, syslog.
//! - Leaves to others: what is logged. Filtering is env_logger's (`LASTMILE_LOG`, `RUST_LOG`).
//! - Always true: the master never waits for the log. A line it cannot hand over is counted, and the count logged.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use jiff::Zoned;
use log::{Level, Log, Metadata, Record};

use crate::config::{Config, LogTarget};

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

/// Lines that wait for the log thread.
const WAITING_MAX: usize = 4096;
/// Octets written at once.
const GATHERED_MAX: usize = 64 * 1024;
/// How long syslog may block the log thread.
const SYSLOG_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the program may wait for the log.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// syslog(3)'s LOG_MAIL.
const FACILITY_MAIL: u8 = 2 << 3;

thread_local! {
    static MAY_NOT_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread as one that must never wait for the log.
pub fn this_thread_may_not_wait() {
    MAY_NOT_WAIT.set(true);
}

enum Order {
    Line(Level, String),
    Flush(Sender<()>),
}

struct AgentLog {
    filter: env_logger::Logger,
    name: String,
    lines: Sender<Order>,
    dropped: AtomicU64,
}

/// Starts the log thread and installs it as the program's logger. Must be called once, before other threads start.
pub fn start(config: &Config) -> io::Result<()> {
    let target = match config.log_target {
        LogTarget::Stderr => Target::stderr(&config.myhostname),
        LogTarget::Syslog => Target::Syslog(connect_syslog()?),
    };
    let (lines, waiting) = bounded(WAITING_MAX);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&waiting, target))?;
    let logger =
        AgentLog { filter: filter(), name: config.syslog_name.clone(), lines, dropped: AtomicU64::new(0) };
    log::set_max_level(logger.filter.filter());
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)
}

/// `LASTMILE_LOG`, else `RUST_LOG`, else everything from `info` up.
fn filter() -> env_logger::Logger {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let wanted =
        variable("LASTMILE_LOG").or_else(|| variable("RUST_LOG")).unwrap_or_else(|| "info".to_owned());
    env_logger::Builder::new().parse_filters(&wanted).build()
}

impl Log for AgentLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            self.hand_over(record.level(), self.line(record));
        }
    }

    fn flush(&self) {
        let (done, wait) = bounded(1);
        // A log that is stuck stays behind.
        if self.lines.send_timeout(Order::Flush(done), FLUSH_TIMEOUT).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl AgentLog {
    fn line(&self, record: &Record<'_>) -> String {
        let tag = match record.target() {
            known @ (LMTP | SMTP | QMGR | PICKUP | BOUNCE) => &known["lastmile::".len()..],
            _ => "agent",
        };
        let mut line = format!("{}/{tag}[{}]: ", self.name, std::process::id());
        line.push_str(match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        });
        let start = line.len();
        let _ = write!(line, "{}", record.args());
        // Text from outside cannot start a line of its own.
        if line[start..].contains(|c: char| c.is_control()) {
            let printable = line[start..].replace(|c: char| c.is_control(), "?");
            line.replace_range(start.., &printable);
        }
        line
    }

    fn hand_over(&self, level: Level, line: String) {
        if !MAY_NOT_WAIT.get() {
            // No receiver: the log thread is gone, and there is nobody to tell.
            let _ = self.lines.send(Order::Line(level, line));
            return;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text =
                format!("{}/agent[{}]: warning: {dropped} log lines dropped", self.name, std::process::id());
            if self.lines.try_send(Order::Line(Level::Warn, text)).is_err() {
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Order::Line(level, line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where lines go.
enum Target {
    /// With date and host in front, as in a mail log file.
    Stderr(String),
    /// With a priority in front, as the journal reads it; it adds date and host itself.
    Journal,
    Syslog(UnixDatagram),
}

impl Target {
    fn stderr(myhostname: &str) -> Self {
        let by_journal = std::env::var_os("JOURNAL_STREAM").is_some_and(|value| !value.is_empty());
        let host = myhostname.split('.').next().unwrap_or(myhostname);
        if by_journal { Self::Journal } else { Self::Stderr(host.to_owned()) }
    }
}

fn write_lines(waiting: &Receiver<Order>, mut target: Target) {
    let mut gathered = Vec::new();
    while let Ok(order) = waiting.recv() {
        let mut next = Some(order);
        let mut flushed = Vec::new();
        while let Some(order) = next {
            match order {
                Order::Line(level, line) => target.take(level, &line, &mut gathered),
                Order::Flush(done) => flushed.push(done),
            }
            next = if gathered.len() < GATHERED_MAX { waiting.try_recv().ok() } else { None };
        }
        // A log that cannot be written has nowhere to say so.
        let _ = io::stderr().write_all(&gathered);
        gathered.clear();
        for done in flushed {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

impl Target {
    fn take(&mut self, level: Level, line: &str, gathered: &mut Vec<u8>) {
        let severity = severity(level);
        let time = || Zoned::now().strftime("%b %e %H:%M:%S").to_string();
        // Writing to a Vec cannot fail.
        let _ = match self {
            Self::Stderr(host) => writeln!(gathered, "{} {host} {line}", time()),
            Self::Journal => writeln!(gathered, "<{severity}>{line}"),
            Self::Syslog(socket) => {
                let datagram = format!("<{}>{} {line}", FACILITY_MAIL | severity, time());
                match send_to_syslog(socket, datagram.as_bytes()) {
                    Ok(()) => Ok(()),
                    Err(error) => writeln!(gathered, "{line} (syslog: {error})"),
                }
            }
        };
    }
}

/// syslog(3)'s number.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn connect_syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SYSLOG_TIMEOUT))?;
    socket.connect("/dev/log")?;
    Ok(socket)
}

/// Sends one line; a syslog server that was restarted is connected to again.
fn send_to_syslog(socket: &mut UnixDatagram, datagram: &[u8]) -> io::Result<()> {
    if socket.send(datagram).is_ok() {
        return Ok(());
    }
    *socket = connect_syslog()?;
    socket.send(datagram).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logger(lines: Sender<Order>) -> AgentLog {
        let filter = env_logger::Builder::new().parse_filters("info").build();
        AgentLog { filter, name: "lastmile".into(), lines, dropped: AtomicU64::new(0) }
    }

    fn texts(waiting: &Receiver<Order>) -> Vec<String> {
        let text = |order| match order {
            Order::Line(_, line) => line.split_once("]: ").unwrap().1.to_owned(),
            Order::Flush(_) => "flush".to_owned(),
        };
        waiting.try_iter().map(text).collect()
    }

    fn info(logger: &AgentLog, target: &str, text: &str) {
        logger.log(&Record::builder().level(Level::Info).target(target).args(format_args!("{text}")).build());
    }

    #[test]
    fn tags_are_postfix_s_and_a_line_stays_one_line() {
        let (lines, waiting) = bounded(10);
        let logger = logger(lines);
        for (target, text, line) in [
            (LMTP, "ID: to=<a@x>", format!("lastmile/lmtp[{}]: ID: to=<a@x>", std::process::id())),
            ("lastmile::net", "a\nb", format!("lastmile/agent[{}]: a?b", std::process::id())),
        ] {
            info(&logger, target, text);
            let Ok(Order::Line(_, got)) = waiting.try_recv() else { panic!("nothing logged") };
            assert_eq!(got, line);
        }
    }

    #[test]
    fn a_thread_that_may_not_wait_drops_and_counts() {
        let (lines, waiting) = bounded(2);
        let logger = logger(lines);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                this_thread_may_not_wait();
                for text in ["1", "2", "3", "4"] {
                    info(&logger, QMGR, text);
                }
            });
        });
        assert_eq!(texts(&waiting), ["1", "2"]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                this_thread_may_not_wait();
                info(&logger, QMGR, "5");
            });
        });
        assert_eq!(texts(&waiting), ["warning: 2 log lines dropped", "5"]);
    }
}
