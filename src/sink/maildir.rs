//! Maildirs: one directory for each recipient, a message a file.
//!
//! - Owns: the directories' names, unique file names, and the step from `tmp` to `new`.
//! - Leaves to others: what is written into a file (`content`).
//! - Always true: a file in `new` is complete, and no file is ever written over.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::mail::Address;

/// Octets of a directory's name; file systems take 255.
const NAME_LENGTH_MAX: usize = 200;

/// Tells apart the files of one process, however many servers it runs.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// The directory that holds all Maildirs.
#[derive(Debug, Clone)]
pub(super) struct Maildirs {
    root: PathBuf,
    hostname: String,
}

/// A file in some `tmp`, on its way.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub path: PathBuf,
    pub file: File,
}

/// The name of a recipient's Maildir: the address, with octets other than letters, digits and `@._+=-` (and a
/// leading dot) as `%XX`; a very long one is cut and gets a hash.
pub fn maildir_name(address: &Address) -> String {
    let mut name = String::new();
    for octet in address.unquoted().bytes() {
        let plain =
            octet.is_ascii_alphanumeric() || b"@_+=-".contains(&octet) || octet == b'.' && !name.is_empty();
        if plain {
            name.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(name, "%{octet:02X}");
        }
    }
    if name.len() > NAME_LENGTH_MAX {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        name.truncate(NAME_LENGTH_MAX - 18);
        let _ = write!(name, "%%{:016x}", hasher.finish());
    }
    name
}

impl Maildirs {
    /// Maildirs under `root`, which is made if it is missing.
    pub fn open(root: &Path, hostname: &str) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        // What separates the parts of a Maildir's file names must not come from the host's name.
        Ok(Self { root: root.to_owned(), hostname: hostname.replace(['/', ':'], "_") })
    }

    /// A new file in the `tmp` of `recipient`.
    pub fn create(&self, recipient: &Address) -> io::Result<Unfinished> {
        let directory = self.root.join(maildir_name(recipient));
        let path = directory.join("tmp").join(self.unique_name());
        let open = || OpenOptions::new().write(true).create_new(true).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_maildir(&directory)?;
                open()?
            }
            other => other?,
        };
        Ok(Unfinished { path, file })
    }

    /// Puts the file at `path` into the `new` of `recipient` too: a link, for every recipient gets the same octets.
    pub fn link(&self, path: &Path, recipient: &Address) -> io::Result<()> {
        self.place(recipient, |target| fs::hard_link(path, target))
    }

    /// Moves the file at `path` into the `new` of `recipient`.
    pub fn rename(&self, path: &Path, recipient: &Address) -> io::Result<()> {
        self.place(recipient, |target| fs::rename(path, target))
    }

    fn place(&self, recipient: &Address, put: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let directory = self.root.join(maildir_name(recipient));
        let target = directory.join("new").join(self.unique_name());
        match put(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_maildir(&directory)?;
                put(&target)
            }
            other => other,
        }
    }

    fn unique_name(&self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let (seconds, micros, pid) = (now.as_secs(), now.subsec_micros(), std::process::id());
        format!("{seconds}.M{micros:06}P{pid}Q{sequence}.{}", self.hostname)
    }
}

fn make_maildir(directory: &Path) -> io::Result<()> {
    for part in ["tmp", "new", "cur"] {
        fs::create_dir_all(directory.join(part))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_safe() {
        for (local, domain, name) in [
            ("a", "example.org", "a@example.org"),
            ("list+b=c", "x", "list+b=c@x"),
            ("..", "", "%2E."),
            ("../../etc", "x", "%2E.%2F..%2Fetc@x"),
            ("é%", "x", "%C3%A9%25@x"),
        ] {
            assert_eq!(maildir_name(&Address::from_parts(local, domain).unwrap()), name);
        }
    }

    #[test]
    fn long_names_stay_apart() {
        let name = |end: &str| maildir_name(&Address::from_parts(&("a".repeat(500) + end), "x").unwrap());
        assert_ne!(name("1"), name("2"));
        assert!(name("1").len() <= NAME_LENGTH_MAX);
    }

    proptest! {
        #[test]
        fn no_address_leaves_the_directory(local in "\\PC{1,300}", domain in "[a-z.-]{0,20}") {
            if let Ok(address) = Address::from_parts(&local, &domain) {
                let name = maildir_name(&address);
                prop_assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty());
                prop_assert!(name.len() <= NAME_LENGTH_MAX);
            }
        }
    }
}
