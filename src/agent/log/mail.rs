//! The mail log, as programs of Postfix write it: to syslog, or to postlogd(8) where that keeps it.
//!
//! - Owns: what such a log needs to know, syslog's facilities, the socket.
//! - Leaves to others: how lines look (`target`, and the module above).
//! - Always true: the socket is connected before it is used first, so that a new root directory or user changes
//!   nothing; a line that cannot be sent is dropped and counted, for there is no other place where it would be read.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::count_in;

/// Where syslog listens.
const SYSLOG: &str = "/dev/log";
/// How long the log thread waits for whoever reads.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A mail log, and as whom a program writes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailLog {
    /// `syslog_name`, the first part of the tag.
    pub syslog_name: String,
    /// The second part: the program's own name.
    pub process: String,
    /// Who keeps it.
    pub target: MailLogTarget,
    /// Whether lines go to standard error too.
    pub to_stderr: bool,
}

/// Who keeps a mail log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailLogTarget {
    /// syslog(3).
    Syslog(Facility),
    /// postlogd(8).
    Postlog {
        /// Its socket. A path that is relative to the queue directory is good in every root directory.
        socket: PathBuf,
        /// The name of this host; its first label is logged.
        host: String,
    },
}

/// One of syslog(3)'s facilities, shifted to its place in a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// LOG_MAIL.
    pub const MAIL: Self = Self(2 << 3);

    /// The number in front of a line of that severity.
    pub(super) fn priority(self, severity: u8) -> u8 {
        self.0 | severity
    }
}

impl FromStr for Facility {
    type Err = String;

    /// A name as `syslog_facility` has it.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        const NAMES: [&str; 24] = [
            "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
            "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
            "local7",
        ];
        let number = (0..).zip(NAMES).find(|(_, known)| !known.is_empty() && *known == name);
        let unknown = || format!("there is no syslog facility {name:?}");
        number.map(|(number, _): (u8, _)| Self(number << 3)).ok_or_else(unknown)
    }
}

/// A socket that takes one datagram for each line.
#[derive(Debug)]
pub(super) struct MailSocket {
    path: PathBuf,
    /// `None`: nobody listens, or not now.
    socket: Option<UnixDatagram>,
    to_stderr: bool,
}

impl MailSocket {
    /// Connects, if somebody listens; else each line tries again.
    pub(super) fn open(log: &MailLog) -> Self {
        let path = match &log.target {
            MailLogTarget::Syslog(_) => PathBuf::from(SYSLOG),
            MailLogTarget::Postlog { socket, .. } => socket.clone(),
        };
        Self { socket: connect(&path).ok(), path, to_stderr: log.to_stderr }
    }

    /// Sends lines, each with its LF. Returns how many were lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        let (mut lost, mut is_stuck) = (0, false);
        for line in lines.split_inclusive(|&octet| octet == b'\n').map(<[u8]>::trim_ascii_end) {
            // Where whoever reads hangs, one wait for all that has gathered is enough.
            let result = if is_stuck { Err(io::ErrorKind::WouldBlock.into()) } else { self.send(line) };
            if let Err(error) = result {
                is_stuck = error.kind() == io::ErrorKind::WouldBlock;
                lost += count_in(line);
            }
            if self.to_stderr {
                // Where this cannot be written either nobody can be told.
                let _ = io::stderr().write_all(&[without_priority(line), b"\n"].concat());
            }
        }
        lost
    }

    /// Sends one line; a server that was restarted is connected to again.
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match socket.send(line) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => self.socket = None,
            }
        }
        let socket = connect(&self.path)?;
        socket.send(line)?;
        self.socket = Some(socket);
        Ok(())
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.connect(path)?;
    Ok(socket)
}

/// A line without what only syslog reads.
fn without_priority(line: &[u8]) -> &[u8] {
    let number =
        line.strip_prefix(b"<").and_then(|rest| memchr::memchr(b'>', rest).map(|end| &rest[end + 1..]));
    number.unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn postlog(directory: &TempDir) -> MailLog {
        let target = MailLogTarget::Postlog {
            socket: directory.path().join("postlog"),
            host: "mx.example.org".to_owned(),
        };
        MailLog {
            syslog_name: "postfix".to_owned(),
            process: "lastmile-lmtp".to_owned(),
            target,
            to_stderr: false,
        }
    }

    fn listen(directory: &TempDir) -> UnixDatagram {
        let socket = UnixDatagram::bind(directory.path().join("postlog")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut octets = [0; 4096];
        let length = socket.recv(&mut octets).unwrap();
        String::from_utf8_lossy(&octets[..length]).into_owned()
    }

    #[test]
    fn facilities_have_the_names_and_numbers_of_syslog() {
        for (name, number) in [
            ("kern", 0),
            ("mail", 2),
            ("daemon", 3),
            ("cron", 9),
            ("ftp", 11),
            ("local0", 16),
            ("local7", 23),
        ] {
            assert_eq!(name.parse(), Ok(Facility(number * 8)), "{name}");
        }
        assert_eq!("mail".parse(), Ok(Facility::MAIL));
        assert_eq!(Facility::MAIL.priority(6), 22);
        for name in ["", "Mail", "local8", "mail "] {
            assert!(name.parse::<Facility>().unwrap_err().contains(&format!("{name:?}")));
        }
    }

    #[test]
    fn each_line_is_a_datagram_without_line_end() {
        let directory = TempDir::new().unwrap();
        let server = listen(&directory);
        let mut socket = MailSocket::open(&postlog(&directory));
        assert_eq!(socket.write(b"one\ntwo\n"), 0);
        assert_eq!([heard(&server), heard(&server)], ["one", "two"]);
        assert!(server.recv(&mut [0]).is_err());
    }

    #[test]
    fn lines_without_a_reader_are_counted_and_a_new_reader_is_found() {
        let directory = TempDir::new().unwrap();
        let mut socket = MailSocket::open(&postlog(&directory));
        assert_eq!(socket.write(b"lost\nlost\n"), 2);
        let server = listen(&directory);
        assert_eq!(socket.write(b"found\n"), 0);
        assert_eq!(heard(&server), "found");
        drop(server);
        assert_eq!(socket.write(b"lost\n"), 1);
        std::fs::remove_file(directory.path().join("postlog")).unwrap();
        let server = listen(&directory);
        assert_eq!(socket.write(b"found\n"), 0);
        assert_eq!(heard(&server), "found");
    }

    #[test]
    fn a_lost_word_about_lost_lines_counts_for_all_of_them() {
        let directory = TempDir::new().unwrap();
        let mut socket = MailSocket::open(&postlog(&directory));
        assert_eq!(socket.write(b"x y[1]: warning: 17 log lines dropped\nlost\n"), 18);
    }

    #[test]
    fn a_reader_that_hangs_is_waited_for_once() {
        let directory = TempDir::new().unwrap();
        let server = listen(&directory);
        let mut socket = MailSocket::open(&postlog(&directory));
        socket.socket.as_ref().unwrap().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let start = std::time::Instant::now();
        let lost = socket.write(&b"line\n".repeat(100_000));
        assert!(start.elapsed() < Duration::from_secs(20), "every line was waited for");
        let mut arrived = 0;
        while server.recv(&mut [0; 16]).is_ok() {
            arrived += 1;
        }
        assert_eq!((lost > 0, lost + arrived), (true, 100_000));
        assert_eq!(socket.write(b"found\n"), 0);
        assert_eq!(heard(&server), "found");
    }

    #[test]
    fn what_only_syslog_reads_is_left_out_elsewhere() {
        assert_eq!(without_priority(b"<22>Nov  2 x"), b"Nov  2 x");
        for line in [&b"Nov 02 <a>"[..], b"<22", b""] {
            assert_eq!(without_priority(line), line);
        }
    }
}
