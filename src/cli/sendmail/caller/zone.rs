//! The caller's time zone, for a message without a date and for Received.
//!
//! - Owns: finding the zone's own file.
//! - Leaves to others: what such a file says, and every zone that is not in one: rules in `$TZ`, a machine without
//!   `/etc/localtime` (jiff).
//! - Always true: it is the zone that jiff finds; but before jiff looks for any it lists all that the machine knows, which
//!   is a hundred system calls, and more than everything else that a call of sendmail computes.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use jiff::tz::TimeZone;

/// The zone of this machine.
const MACHINE: &str = "/etc/localtime";
/// The zones that `$TZ` may name.
const NAMED: &str = "/usr/share/zoneinfo";
/// Octets that a zone's file has room for at first; most have fewer.
const FILE_SIZE: usize = 4096;
/// Octets of a zone's file.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// The local time zone.
pub(super) fn zone() -> TimeZone {
    // Whoever keeps zones elsewhere has few of them.
    let is_elsewhere = env::var_os("TZDIR").is_some();
    let variable = env::var_os("TZ").map(|value| value.into_string().unwrap_or_default());
    if variable.as_deref().is_some_and(|value| !is_usable(value)) {
        return TimeZone::UTC;
    }
    let file = if is_elsewhere { None } else { file(variable.as_deref()) };
    file.and_then(|file| read(file).ok()).unwrap_or_else(TimeZone::system)
}

/// Whether a value of `$TZ` can be looked up without waiting: it may be the path of a FIFO.
fn is_usable(variable: &str) -> bool {
    let path = variable.strip_prefix(':').unwrap_or(variable);
    !path.starts_with('/') || std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// The file to look into, for a value of `$TZ`; `None` where only jiff knows.
fn file(variable: Option<&str>) -> Option<PathBuf> {
    let Some(name) = variable else { return Some(MACHINE.into()) };
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_-+".contains(&octet))
    };
    name.split('/').all(is_part).then(|| PathBuf::from(NAMED).join(name))
}

fn read(file: PathBuf) -> io::Result<TimeZone> {
    let mut octets = Vec::with_capacity(FILE_SIZE);
    File::open(file)?.take(FILE_SIZE_MAX).read_to_end(&mut octets)?;
    TimeZone::tzif("local", &octets).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn names_are_files_and_rules_are_not() {
        for (variable, expected) in [
            (None, Some(MACHINE)),
            (Some("Europe/Berlin"), Some("/usr/share/zoneinfo/Europe/Berlin")),
            (Some("America/Argentina/Ushuaia"), Some("/usr/share/zoneinfo/America/Argentina/Ushuaia")),
            (Some("Etc/GMT+1"), Some("/usr/share/zoneinfo/Etc/GMT+1")),
            (Some("UTC"), Some("/usr/share/zoneinfo/UTC")),
            (Some("CET-1CEST,M3.5.0,M10.5.0/3"), None),
            (Some("<+01>-1"), None),
            (Some(":Europe/Berlin"), None),
            (Some("/etc/passwd"), None),
            (Some("../../../etc/passwd"), None),
            (Some("Europe/../../../etc/passwd"), None),
            (Some("Europe/"), None),
            (Some(""), None),
        ] {
            assert_eq!(file(variable), expected.map(PathBuf::from), "{variable:?}");
        }
    }

    #[test]
    fn the_zone_is_the_one_that_jiff_finds() {
        let (winter, summer): (Timestamp, Timestamp) =
            ("2026-01-15T12:00:00Z".parse().unwrap(), "2026-07-15T12:00:00Z".parse().unwrap());
        let offsets = |zone: &TimeZone| [winter, summer].map(|time| zone.to_offset(time));
        assert_eq!(offsets(&zone()), offsets(&TimeZone::system()));
        for name in ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Etc/GMT+1"] {
            // Not every machine has them.
            let Ok(by_jiff) = TimeZone::get(name) else { continue };
            let Ok(by_file) = read(file(Some(name)).unwrap()) else { continue };
            assert_eq!(offsets(&by_file), offsets(&by_jiff), "{name}");
        }
    }

    #[test]
    fn nobody_waits_for_a_zone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        for (variable, usable) in [
            ("Europe/Berlin", true),
            ("CET-1", true),
            ("", true),
            ("/etc/passwd", true),
            (":/etc/passwd", true),
        ] {
            assert_eq!(is_usable(variable), usable, "{variable:?}");
        }
        for variable in [path, "/dev/zero", ":/dev/tty", "/nonexistent"] {
            assert!(!is_usable(variable), "{variable:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_zone_is_none() {
        assert!(read("/dev/null".into()).is_err());
        assert!(read("/dev/zero".into()).is_err());
    }
}
