//! Files with secrets, and those that go with them: opened once, read whole, wiped.
//!
//! - Owns: where a path leads that begins with `$CREDENTIALS_DIRECTORY`, who may read a file with secrets, how large one
//!   may be; why a file gave nothing, in words.
//! - Leaves to others: what stands in them.
//! - Always true: what was read lies in one buffer that is wiped when it is dropped, and was never moved; no words have
//!   anything of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::config::parse::CREDENTIALS;

/// Octets of a table of passwords, and of a private key with its certificates.
pub(super) const SECRETS_SIZE_MAX: u64 = 4 << 20;
/// Octets of a file with the certificates of authorities; systems have a quarter of a million.
pub(super) const AUTHORITIES_SIZE_MAX: u64 = 16 << 20;
/// Octets of a file with a token.
pub(super) const TOKEN_SIZE_MAX: u64 = 16 << 10;
/// What a file is read into at least: some file systems do not know how much there is in a file.
const BUFFER_MIN: u64 = 16 << 10;
/// Files of a directory with certificates.
const FILES_MAX: usize = 10_000;

/// Why a file gave nothing.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) why: Why,
    /// The file, and what is wrong with it: a sentence without its end.
    pub(super) text: String,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// We may not read it.
    Closed,
    /// It is not there.
    Missing,
    /// Only a service that systemd starts can find it.
    NotOurs,
    /// Whoever reads it, it is of no use.
    Wrong,
}

impl Trouble {
    /// A file that is of no use, because of `what`.
    pub(super) fn wrong(path: &Path, what: impl std::fmt::Display) -> Self {
        Self { why: Why::Wrong, text: format!("{}: {what}", path.display()) }
    }

    fn io(path: &Path, error: &io::Error) -> Self {
        let reader = rustix::process::geteuid().as_raw();
        let (why, text) = match error.kind() {
            ErrorKind::PermissionDenied => {
                (Why::Closed, format!("uid {reader} may not read it: {error}{}", owner(path)))
            }
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                (Why::Missing, format!("it cannot be read: {error}"))
            }
            _ => (Why::Wrong, format!("it cannot be read: {error}")),
        };
        Self { why, text: format!("{}: {text}", path.display()) }
    }
}

/// Who may read a file that we may not, where that much can be seen.
fn owner(path: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else { return String::new() };
    format!("; it belongs to uid {}, mode {:04o}", metadata.uid(), metadata.mode() & 0o7777)
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Anybody.
    All,
    /// Not everybody: it holds secrets.
    Few,
    /// Not everybody where a private key stands in it.
    FewOfKeys,
}

/// Whether a private key in PEM stands in `content`, whatever may be wrong with it.
pub(super) fn has_private_key(content: &[u8]) -> bool {
    memchr::memmem::find(content, b"PRIVATE KEY-----").is_some()
}

/// Where files are looked for: a path may begin with `$CREDENTIALS_DIRECTORY`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// What that variable says.
    pub(super) credentials: Option<&'a OsStr>,
}

impl Place<'_> {
    /// The file behind a path of the configuration.
    pub(super) fn find(self, path: &Path) -> Result<PathBuf, Trouble> {
        let Ok(below) = path.strip_prefix(CREDENTIALS) else { return Ok(path.to_owned()) };
        match self.credentials.map(Path::new) {
            Some(directory) if directory.is_absolute() => Ok(directory.join(below)),
            _ => Err(Trouble {
                why: Why::NotOurs,
                text: format!(
                    "{}: the variable {} is not set; systemd sets it for a service with LoadCredential",
                    path.display(),
                    CREDENTIALS.trim_start_matches('$')
                ),
            }),
        }
    }

    /// The content of the file behind a path of the configuration.
    pub(super) fn read(
        self,
        path: &Path,
        limit: u64,
        readers: Readers,
    ) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        read(&self.find(path)?, limit, readers)
    }
}

/// The content of a file of at most `limit` octets.
pub(super) fn read(path: &Path, limit: u64, readers: Readers) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let failed = |error| Trouble::io(path, &error);
    // Of what is no file, only a pipe could keep us waiting.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let mut file = File::from(file);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Trouble::wrong(path, "it is no regular file"));
    }
    let mode = metadata.mode() & 0o7777;
    let is_open = mode & 0o004 != 0;
    let too_open = || {
        let what = format!(
            "everybody may read it (mode {mode:04o}), and it holds secrets: chmod o-r {}",
            path.display()
        );
        Trouble::wrong(path, what)
    };
    if readers == Readers::Few && is_open {
        return Err(too_open());
    }
    let too_large = || Trouble::wrong(path, format_args!("it is larger than {limit} bytes"));
    if metadata.len() > limit {
        return Err(too_large());
    }
    // One more, so that the end is seen.
    let size = metadata.len().max(BUFFER_MIN.min(limit)) + 1;
    let mut content = Zeroizing::new(vec![0; usize::try_from(size).map_err(|_| too_large())?]);
    let length = fill(&mut file, &mut content).map_err(failed)?;
    if length == content.len() {
        return Err(Trouble::wrong(path, "it grew while it was read"));
    }
    content.truncate(length);
    if readers == Readers::FewOfKeys && is_open && has_private_key(&content) {
        return Err(too_open());
    }
    Ok(content)
}

/// Reads until the end or until the buffer is full; how much there was.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// The regular files of a directory, by name, without hidden ones.
pub(super) fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let failed = |error: io::Error| Trouble::io(directory, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden || !path.is_file() {
            continue;
        }
        if files.len() == FILES_MAX {
            return Err(Trouble::wrong(
                directory,
                format_args!("there are more than {FILES_MAX} files in it"),
            ));
        }
        files.push(path);
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn said(path: &Path, limit: u64, readers: Readers) -> (Why, String) {
        let trouble = read(path, limit, readers).unwrap_err();
        (trouble.why, trouble.text.replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_file_is_read_whole_and_no_larger_than_its_limit() {
        for length in [0, 1, 100, BUFFER_MIN as usize, 100_000] {
            let content = vec![b'x'; length];
            let file = file(&content, 0o600);
            assert_eq!(*read(file.path(), 100_000, Readers::Few).unwrap(), content, "{length}");
        }
        let file = file(&[0; 101], 0o600);
        assert_eq!(
            said(file.path(), 100, Readers::Few),
            (Why::Wrong, "FILE: it is larger than 100 bytes".into())
        );
    }

    #[test]
    fn a_secret_that_everybody_may_read_is_refused_with_the_cure() {
        for mode in [0o604, 0o644, 0o664, 0o4755] {
            let file = file(b"x", mode);
            let what = format!(
                "FILE: everybody may read it (mode {mode:04o}), and it holds secrets: chmod o-r FILE"
            );
            assert_eq!(said(file.path(), 9, Readers::Few), (Why::Wrong, what));
            assert_eq!(*read(file.path(), 9, Readers::All).unwrap(), b"x");
            assert_eq!(*read(file.path(), 9, Readers::FewOfKeys).unwrap(), b"x");
        }
        let key = b"-----BEGIN RSA PRIVATE KEY-----\nA";
        assert!(said(file(key, 0o644).path(), 99, Readers::FewOfKeys).1.contains("chmod o-r FILE"));
        assert_eq!(*read(file(key, 0o640).path(), 99, Readers::FewOfKeys).unwrap(), key);
        for mode in [0o600, 0o640, 0o400, 0o460] {
            assert!(read(file(b"x", mode).path(), 9, Readers::Few).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            said(directory.path(), 9, Readers::Few),
            (Why::Wrong, "FILE: it is no regular file".into())
        );
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(said(&pipe, 9, Readers::Few), (Why::Wrong, "FILE: it is no regular file".into()));
        assert_eq!(said(Path::new("/dev/zero"), 9, Readers::All).0, Why::Wrong);
        let (why, text) = said(&directory.path().join("none"), 9, Readers::Few);
        assert_eq!(
            (why, text.as_str()),
            (Why::Missing, "FILE: it cannot be read: No such file or directory (os error 2)")
        );
        let below = file(b"x", 0o600).path().join("x");
        assert_eq!(said(&below, 9, Readers::Few).0, Why::Missing);
    }

    #[test]
    fn a_credential_is_looked_for_where_the_service_manager_puts_it() {
        let path = Path::new("$CREDENTIALS_DIRECTORY/key");
        let find = |credentials: Option<&str>| Place { credentials: credentials.map(OsStr::new) }.find(path);
        assert_eq!(find(Some("/run/credentials/x")).unwrap(), Path::new("/run/credentials/x/key"));
        for credentials in [None, Some(""), Some("relative")] {
            let trouble = find(credentials).unwrap_err();
            assert_eq!(trouble.why, Why::NotOurs);
            assert_eq!(
                trouble.text,
                "$CREDENTIALS_DIRECTORY/key: the variable CREDENTIALS_DIRECTORY is not set; systemd sets it for a \
                 service with LoadCredential"
            );
        }
        let place = Place { credentials: None };
        assert_eq!(place.find(Path::new("/etc/key")).unwrap(), Path::new("/etc/key"));
    }

    #[test]
    fn the_files_of_a_directory_come_in_order_and_without_hidden_ones() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.pem", "a.0", ".hidden"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        fs::create_dir(directory.path().join("c")).unwrap();
        std::os::unix::fs::symlink("b.pem", directory.path().join("d")).unwrap();
        let names = files_of(directory.path()).unwrap();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.0", "b.pem", "d"]);
        assert_eq!(files_of(&directory.path().join("none")).unwrap_err().why, Why::Missing);
    }
}
