//! The caller's time zone, for a message without a date and for Received.
//!
//! - Owns: finding the zone's own file.
//! - Leaves to others: what such a file or a rule in `$TZ` says, and a machine without `/etc/localtime` (jiff).
//! - Always true: nothing that `$TZ` names is waited for, or read without end. (Nor would jiff do: before it looks for a
//!   zone it lists all that the machine knows, which is more than everything else that a call of sendmail computes.)

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use rustix::fs::{Mode, OFlags};

/// The zone of this machine.
const MACHINE: &str = "/etc/localtime";
/// The zones that `$TZ` may name.
const NAMED: &str = "/usr/share/zoneinfo";
/// Octets that a zone's file has room for at first; most have fewer.
const FILE_SIZE: usize = 4096;
/// Octets of a zone's file.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// The local time zone; UTC where the caller's wish leads nowhere.
pub(super) fn zone() -> TimeZone {
    match env::var_os("TZ") {
        None => read(MACHINE.into()).unwrap_or_else(|_| TimeZone::system()),
        Some(value) => {
            let directory = env::var_os("TZDIR").map_or_else(|| NAMED.into(), PathBuf::from);
            value.to_str().map_or(TimeZone::UTC, |value| wished(value, &directory))
        }
    }
}

/// What a value of `$TZ` means: a file, by its name below `directory` or by its path, or a rule (POSIX.1-2024 section
/// 8.3).
fn wished(value: &str, directory: &Path) -> TimeZone {
    let by_file = file(value, directory).and_then(|file| read(file).ok());
    by_file.or_else(|| TimeZone::posix(value).ok()).unwrap_or(TimeZone::UTC)
}

/// The file that a value of `$TZ` names, if it can be a name.
fn file(value: &str, directory: &Path) -> Option<PathBuf> {
    let name = value.strip_prefix(':').unwrap_or(value);
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_-+".contains(&octet))
    };
    match name.strip_prefix('/') {
        Some(_) => Some(name.into()),
        None => name.split('/').all(is_part).then(|| directory.join(name)),
    }
}

/// Nobody waits for what the caller's environment names: it may be a FIFO, or have no end.
fn read(file: PathBuf) -> io::Result<TimeZone> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(file, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut octets = Vec::with_capacity(FILE_SIZE);
    file.take(FILE_SIZE_MAX).read_to_end(&mut octets)?;
    TimeZone::tzif("local", &octets).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_files_and_rules_are_not() {
        for (value, expected) in [
            ("Europe/Berlin", Some("/zones/Europe/Berlin")),
            (":Europe/Berlin", Some("/zones/Europe/Berlin")),
            ("America/Argentina/Ushuaia", Some("/zones/America/Argentina/Ushuaia")),
            ("Etc/GMT+1", Some("/zones/Etc/GMT+1")),
            ("UTC", Some("/zones/UTC")),
            ("/etc/localtime", Some("/etc/localtime")),
            (":/etc/localtime", Some("/etc/localtime")),
            ("CET-1CEST,M3.5.0,M10.5.0/3", None),
            ("<+01>-1", None),
            ("./fifo", None),
            ("../../../etc/passwd", None),
            (":../../../etc/passwd", None),
            ("Europe/../../../etc/passwd", None),
            ("Europe/", None),
            ("", None),
        ] {
            assert_eq!(file(value, Path::new("/zones")), expected.map(PathBuf::from), "{value:?}");
        }
    }

    const WINTER: &str = "2026-01-15T12:00:00Z";
    const SUMMER: &str = "2026-07-15T12:00:00Z";

    fn offsets(zone: &TimeZone) -> [i32; 2] {
        [WINTER, SUMMER].map(|time| zone.to_offset(time.parse().unwrap()).seconds())
    }

    #[test]
    fn the_zone_is_the_one_that_jiff_finds() {
        assert_eq!(offsets(&zone()), offsets(&TimeZone::system()));
        for name in ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Etc/GMT+1"] {
            // Not every machine has them.
            let Ok(by_jiff) = TimeZone::get(name) else { continue };
            let Ok(by_file) = read(file(name, Path::new(NAMED)).unwrap()) else { continue };
            assert_eq!(offsets(&by_file), offsets(&by_jiff), "{name}");
        }
    }

    #[test]
    fn rules_are_obeyed_and_what_is_neither_is_utc() {
        let nowhere = Path::new("/nonexistent");
        for (value, expected) in [
            ("CET-1CEST,M3.5.0,M10.5.0/3", [3600, 7200]),
            ("<+0330>-3:30", [12_600; 2]),
            ("CET-1", [3600; 2]),
            ("nonsense", [0; 2]),
            ("", [0; 2]),
            ("/dev/zero", [0; 2]),
            ("/etc/passwd", [0; 2]),
        ] {
            assert_eq!(offsets(&wished(value, nowhere)), expected, "{value:?}");
        }
    }

    #[test]
    fn nobody_waits_for_a_zone() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("Fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        for value in ["Fifo", fifo.to_str().unwrap()] {
            assert_eq!(offsets(&wished(value, directory.path())), [0; 2], "{value:?}");
        }
        assert!(read("/dev/null".into()).is_err() && read(directory.path().into()).is_err());
    }
}
