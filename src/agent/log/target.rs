//! Where lines go: standard error, the journal, syslog, the mail log of Postfix.
//!
//! - Owns: what stands in front of a line (date, host, priority), and the agent's socket to syslog.
//! - Leaves to others: what a line says, and when it is written; the mail log of Postfix (`mail`).
//! - Always true: lines of the agent that cannot be sent to syslog are written to standard error, with the reason.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::Severity;
use super::mail::{Facility, MailLog, MailLogTarget, MailSocket};
use crate::config::{Config, LogTarget};

/// How long syslog may block the log thread.
const SYSLOG_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one wait for standard error takes.
const STDERR_PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The date in front of a line.
const DATE: &str = "%b %e %H:%M:%S";
/// The same as postlogd(8) expects it.
const POSTLOG_DATE: &str = "%b %d %H:%M:%S";

/// What stands in front of each line.
#[derive(Debug)]
pub(super) enum Front {
    /// Date and host, as in a mail log file: the date's form, and the host.
    DateAndHost(&'static str, String),
    /// A priority, as the journal reads it; it adds date and host itself.
    Priority,
    /// Priority and date, as in RFC 3164.
    PriorityAndDate(Facility),
}

impl Front {
    /// What belongs to the configured target.
    pub(super) fn new(config: &Config) -> Self {
        match config.log_target {
            LogTarget::Syslog => Self::PriorityAndDate(Facility::MAIL),
            LogTarget::Stderr if is_read_by_journal() => Self::Priority,
            LogTarget::Stderr => Self::DateAndHost(DATE, first_label(&config.myhostname)),
        }
    }

    /// What belongs to a mail log of Postfix.
    pub(super) fn of_mail_log(log: &MailLog) -> Self {
        match &log.target {
            MailLogTarget::Syslog(facility) => Self::PriorityAndDate(*facility),
            MailLogTarget::Postlog { host, .. } => Self::DateAndHost(POSTLOG_DATE, first_label(host)),
        }
    }

    /// Appends it.
    pub(super) fn append(&self, severity: Severity, date: &mut Date, octets: &mut Vec<u8>) {
        let severity = severity.number();
        // Writing to a Vec cannot fail.
        let _ = match self {
            Self::DateAndHost(form, host) => write!(octets, "{} {host} ", date.now(form)),
            Self::Priority => write!(octets, "<{severity}>"),
            Self::PriorityAndDate(facility) => {
                write!(octets, "<{}>{} ", facility.priority(severity), date.now(DATE))
            }
        };
    }
}

/// A host's name without its domain.
fn first_label(host: &str) -> String {
    host.split('.').next().unwrap_or(host).to_owned()
}

fn is_read_by_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some_and(|value| !value.is_empty())
}

/// The date of a line, in local time; written anew only when the second has changed.
#[derive(Debug)]
pub(super) struct Date {
    /// As it was at the start: below another root directory it cannot be found.
    zone: TimeZone,
    /// What `text` was written for.
    written: Option<(&'static str, i64)>,
    text: String,
}

impl Date {
    /// Dates in what is the local time zone now.
    pub(super) fn local() -> Self {
        Self { zone: TimeZone::system(), written: None, text: String::new() }
    }

    fn now(&mut self, form: &'static str) -> &str {
        self.at(Timestamp::now(), form)
    }

    fn at(&mut self, now: Timestamp, form: &'static str) -> &str {
        let wanted = Some((form, now.as_second()));
        if self.written != wanted {
            self.written = wanted;
            self.text = now.to_zoned(self.zone.clone()).strftime(form).to_string();
        }
        &self.text
    }
}

/// Where gathered lines go.
#[derive(Debug)]
pub(super) enum Target {
    /// Standard error: a file, a pipe, or the journal; whether it ends in the middle of a line.
    Stderr(bool),
    /// One datagram for each line.
    Syslog(UnixDatagram),
    /// The mail log of Postfix.
    Mail(MailSocket),
}

impl Target {
    /// Opens what is configured.
    pub(super) fn open(config: &Config) -> io::Result<Self> {
        match config.log_target {
            LogTarget::Stderr => Ok(Self::Stderr(false)),
            LogTarget::Syslog => connect_syslog().map(Self::Syslog),
        }
    }

    /// Writes lines, each with its LF. Returns how many could not be written.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        match self {
            Self::Stderr(is_torn) => return write_to(io::stderr(), lines, is_torn),
            Self::Mail(socket) => return socket.write(lines),
            Self::Syslog(socket) => {
                for line in lines.split_inclusive(|&octet| octet == b'\n') {
                    let line = line.trim_ascii_end();
                    if let Err(error) = send_to_syslog(socket, line) {
                        let line = line.escape_ascii();
                        // Where this cannot be written either nobody can be told.
                        let _ = writeln!(io::stderr(), "{line} (syslog: {error})");
                    }
                }
            }
        }
        0
    }
}

/// Writes lines to standard error, which may be a pipe that does not block: then this thread waits for room, for it is
/// its own time. A line of which a part was written is ended before the next one.
fn write_to(log: impl AsFd, mut lines: &[u8], is_torn: &mut bool) -> u64 {
    if *is_torn {
        // If it cannot be ended, neither can the others be written.
        *is_torn = rustix::io::write(&log, b"\n").is_err();
    }
    while !lines.is_empty() {
        match rustix::io::write(&log, lines) {
            Ok(written) => {
                let (done, rest) = lines.split_at_checked(written).unwrap_or((lines, &[]));
                *is_torn = !done.ends_with(b"\n");
                lines = rest;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut set = [PollFd::new(&log, PollFlags::OUT)];
                // What poll says shows in the next write.
                let _ = rustix::event::poll(&mut set, Some(&STDERR_PAUSE));
            }
            Err(_) => return lines.iter().filter(|&&octet| octet == b'\n').count() as u64,
        }
    }
    0
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
    use std::fs::File;
    use std::io::Read;
    use std::thread;

    #[test]
    fn the_day_is_padded_as_whoever_reads_expects_it() {
        let mut date = Date { zone: TimeZone::UTC, written: None, text: String::new() };
        let now: Timestamp = "2026-11-02T03:04:05Z".parse().unwrap();
        assert_eq!(date.at(now, DATE), "Nov  2 03:04:05");
        assert_eq!(date.at(now, POSTLOG_DATE), "Nov 02 03:04:05");
        let later: Timestamp = "2026-11-12T03:04:06.9Z".parse().unwrap();
        assert_eq!(date.at(later, POSTLOG_DATE), "Nov 12 03:04:06");
    }

    #[test]
    fn a_pipe_that_does_not_block_gets_every_line() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let reading = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).map(|_| text)
        });
        let lines = b"a line of the log\n".repeat(50_000);
        let mut is_torn = false;
        assert_eq!(write_to(&writer, &lines, &mut is_torn), 0);
        drop(writer);
        assert!(!is_torn && reading.join().unwrap().unwrap() == lines);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_a_torn_one_is_ended() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut is_torn = true;
        assert_eq!(write_to(&full, b"one\ntwo\n", &mut is_torn), 2);
        assert!(is_torn);
        let (mut reader, writer) = io::pipe().unwrap();
        assert_eq!(write_to(&writer, b"three\n", &mut is_torn), 0);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nthree\n");
    }
}
