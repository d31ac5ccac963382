//! The log: who may wait for it, how lines look, where they go.
//!
//! - Owns: the set-up of the `log` facade, the log thread, Postfix's tags, syslog.
//! - Leaves to others: what is logged. Filtering is env_logger's (`LASTMILE_LOG`, `RUST_LOG`).
//! - Always true: the master never waits for the log. A line it cannot hand over is counted, and the count logged.

mod buffer;
mod target;

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use log::{Level, Log, Metadata, Record};

use self::buffer::Buffer;
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

thread_local! {
    static MAY_NOT_WAIT: Cell<bool> = const { Cell::new(false) };
    /// Each thread puts its lines together in a place of its own.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Marks the calling thread as one that must never wait for the log.
pub fn this_thread_may_not_wait() {
    MAY_NOT_WAIT.set(true);
}

struct AgentLog {
    filter: env_logger::Logger,
    /// Before the tag: `syslog_name` and a slash. Behind it: the process ID in brackets.
    name: String,
    pid: String,
    front: Front,
    date: Mutex<Date>,
    lines: Arc<Buffer>,
}

/// Starts the log thread and installs it as the program's logger. Must be called once, before other threads start.
pub fn start(config: &Config) -> io::Result<()> {
    let mut target = Target::open(config)?;
    let logger = AgentLog::new(config, filter());
    let lines = Arc::clone(&logger.lines);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        let mut taken = Vec::new();
        loop {
            lines.take(&mut taken);
            lines.lost(target.write(&taken));
        }
    })?;
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
        if !self.filter.matches(record) {
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
    fn new(config: &Config, filter: env_logger::Logger) -> Self {
        Self {
            filter,
            name: format!("{}/", config.syslog_name),
            pid: format!("[{}]: ", std::process::id()),
            front: Front::new(config),
            date: Mutex::new(Date::local()),
            lines: Arc::new(Buffer::new()),
        }
    }

    /// `line` is empty.
    fn hand_over(&self, record: &Record<'_>, line: &mut String) {
        line.push_str(match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        });
        // Writing to a String cannot fail; what cannot be formatted says so no better.
        let _ = write!(line, "{}", record.args());
        // Text from outside cannot start a line of its own. Octets are looked at first, all of
        // them, since that needs no branches: nearly every line is clean.
        if line.bytes().fold(false, |found, octet| found | may_begin_control(octet)) {
            *line = line.replace(|c: char| c.is_control(), "?");
        }
        let tag = match record.target() {
            known @ (LMTP | SMTP | QMGR | PICKUP | BOUNCE) => &known["lastmile::".len()..],
            _ => "agent",
        };
        self.lines.append(!MAY_NOT_WAIT.get(), |octets, dropped| {
            if dropped > 0 {
                let said = format!("warning: {dropped} log lines dropped");
                self.append(octets, Level::Warn, "agent", &said);
            }
            self.append(octets, record.level(), tag, line);
        });
    }

    fn append(&self, octets: &mut Vec<u8>, level: Level, tag: &str, line: &str) {
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        self.front.append(level, &mut date, octets);
        for part in [&self.name, tag, &self.pid, line, "\n"] {
            octets.extend_from_slice(part.as_bytes());
        }
    }
}

/// Whether a control character may begin with this octet: those of ASCII, and U+0080 to U+009F.
fn may_begin_control(octet: u8) -> bool {
    octet < b' ' || octet == 0x7f || octet == 0xc2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line looks like behind date and host.
    fn logged(target: &str, level: Level, text: &str) -> String {
        let filter = env_logger::Builder::new().parse_filters("info").build();
        let logger = AgentLog::new(&Config::default(), filter);
        let record = |text| logger.log(&Record::builder().level(level).target(target).args(text).build());
        record(format_args!("{text}"));
        let mut taken = Vec::new();
        logger.lines.take(&mut taken);
        let line = String::from_utf8(taken).unwrap();
        line.split_once(" lastmile/").unwrap().1.to_owned()
    }

    #[test]
    fn tags_are_postfix_s_and_a_line_stays_one_line() {
        let pid = std::process::id();
        for (target, level, text, line) in [
            (LMTP, Level::Info, "ID: to=<a@x>", format!("lmtp[{pid}]: ID: to=<a@x>\n")),
            (QMGR, Level::Info, "ID: removed", format!("qmgr[{pid}]: ID: removed\n")),
            ("lastmile::net", Level::Info, "a\nb", format!("agent[{pid}]: a?b\n")),
            ("lastmile::net", Level::Warn, "a\u{85}b\u{a9}", format!("agent[{pid}]: warning: a?b\u{a9}\n")),
            ("lastmile::net", Level::Error, "\u{7f}", format!("agent[{pid}]: error: ?\n")),
        ] {
            assert_eq!(logged(target, level, text), line);
        }
    }

    #[test]
    fn what_logs_while_it_is_logged_logs_both() {
        struct Talks<'a>(&'a AgentLog);
        impl std::fmt::Display for Talks<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.log(&Record::builder().level(Level::Info).args(format_args!("inner")).build());
                f.write_str("outer")
            }
        }
        let filter = env_logger::Builder::new().parse_filters("info").build();
        let logger = AgentLog::new(&Config::default(), filter);
        logger.log(&Record::builder().level(Level::Info).args(format_args!("{}", Talks(&logger))).build());
        let mut taken = Vec::new();
        logger.lines.take(&mut taken);
        let text = String::from_utf8(taken).unwrap();
        let ends: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(ends, ["inner", "outer"]);
    }
}
