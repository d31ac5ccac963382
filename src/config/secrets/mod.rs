//! What stands in the files that only who delivers opens: passwords, private keys, and the certificates that go with them.
//!
//! - Owns: which of them a transport has, when they are opened and by whom, what stays where one cannot be opened again.
//! - Leaves to others: which of them a server gets to see (`net`, `smtp::auth`).
//! - Always true: a secret is in no log line, listing or error; memory that held one is wiped; a file with secrets that
//!   everybody may read is refused.

mod certificates;
mod files;
mod passwords;
mod review;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use super::error::{ConfigError, Problem, Problems};
use super::keys::Given;
use super::parse::{CREDENTIALS, is_bare_secret_path};
use super::transport::Transport;
use crate::mail::Server;
use crate::smtp::Credentials;

pub use certificates::system_roots;
use files::{Place, Readers, SECRETS_SIZE_MAX, Trouble, Why};
use passwords::{Passwords, without_mark};
pub use review::SecretFile;

/// Where names and passwords stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordMaps {
    /// `texthash:/FILE`: a table, which not everybody may read.
    Texthash(PathBuf),
    /// `file:/FILE`, what a variable that ends in `_FILE` amounts to: the table, or the word for one.
    File {
        /// The file.
        path: PathBuf,
        /// A variable does name it: it was put there for us alone, whatever its mode says. That is how containers get their
        /// secrets.
        is_ours_alone: bool,
    },
}

impl PasswordMaps {
    /// The value of `sasl_password_maps`. The error does not repeat it.
    pub(super) fn read(given: &Given) -> Result<Self, String> {
        Self::parse(given.text()?, given.is_of_a_named_file()).ok_or_else(|| {
            "texthash:/FILE is needed; names and passwords stand in that file, never here".to_owned()
        })
    }

    fn parse(text: &str, is_ours_alone: bool) -> Option<Self> {
        let (kind, path) = text.split_once(':')?;
        let path = is_bare_secret_path(path).then(|| PathBuf::from(path))?;
        match kind {
            "texthash" => Some(Self::Texthash(path)),
            "file" => Some(Self::File { path, is_ours_alone }),
            _ => None,
        }
    }
}

/// The secrets of one transport. Two are equal if all their files held the same.
#[derive(Clone, Default)]
pub struct Secrets {
    held: Option<Arc<Held>>,
    given: Vec<(Server, Credentials)>,
}

#[derive(Clone, Default)]
struct Held {
    roots: Option<Part<RootCertStore>>,
    identity: Option<Part<CertifiedKey>>,
    passwords: Option<Part<Passwords>>,
}

/// What one or two files held.
struct Part<T> {
    value: Arc<T>,
    /// SHA-256 of it, by which two can be compared.
    digest: [u8; 32],
}

impl<T> Part<T> {
    fn new<'a>(value: T, octets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for octets in octets {
            // With their length, so that no two lists look alike.
            context.update(&octets.len().to_be_bytes());
            context.update(octets);
        }
        let mut digest = [0; 32];
        digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self { value: Arc::new(value), digest }
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), digest: self.digest }
    }
}

impl<T> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Secrets {
    /// The authorities that are trusted; `None`: those of the system ([`system_roots`]).
    pub fn roots(&self) -> Option<&Arc<RootCertStore>> {
        Some(&self.held.as_ref()?.roots.as_ref()?.value)
    }

    /// The certificate that we show, with its chain and key.
    pub fn identity(&self) -> Option<&Arc<CertifiedKey>> {
        Some(&self.held.as_ref()?.identity.as_ref()?.value)
    }

    /// By what two of them can be told apart; nothing secret.
    pub fn identity_mark(&self) -> Option<[u8; 32]> {
        Some(self.held.as_ref()?.identity.as_ref()?.digest)
    }

    /// Whom we are to `server`; `None`: there is no entry for it. A token is read from its file each time. The error names
    /// that file and what is wrong with it.
    pub fn credentials(&self, server: &Server) -> Result<Option<Credentials>, String> {
        if let Some((_, credentials)) = self.given.iter().find(|(known, _)| known == server) {
            return Ok(Some(credentials.clone()));
        }
        let passwords = self.held.as_ref().and_then(|held| held.passwords.as_ref());
        let Some(passwords) = passwords else { return Ok(None) };
        passwords.value.find(server, Place { credentials: credentials_directory().as_deref() })
    }

    /// The same secrets, and whom we are to these servers.
    #[must_use]
    pub fn with_credentials(&self, given: Vec<(Server, Credentials)>) -> Self {
        Self { held: self.held.clone(), given }
    }

    /// The same secrets, where nobody is trusted but who was named.
    #[must_use]
    pub fn without_system_authorities(&self) -> Self {
        let mut held = self.held.as_deref().cloned().unwrap_or_default();
        held.roots.get_or_insert_with(nobody);
        Self { held: Some(Arc::new(held)), given: self.given.clone() }
    }

    /// The same secrets, where the system's authorities are trusted beside those that were named. They are read now.
    #[must_use]
    pub fn with_system_authorities(&self) -> Self {
        let of_system = system_roots();
        let mut held = self.held.as_deref().cloned().unwrap_or_default();
        if let Some(named) = &mut held.roots {
            let mut roots = RootCertStore::clone(&named.value);
            roots.extend(of_system.roots.iter().cloned());
            *named = Part::new(roots, [named.digest.as_slice(), b"and those of the system"]);
        }
        Self { held: Some(Arc::new(held)), given: self.given.clone() }
    }
}

#[cfg(test)]
impl Secrets {
    /// Those of a transport with these authorities and this certificate; `mark` stands for what the files held.
    pub fn for_tests(mark: u8, roots: RootCertStore, identity: Option<Arc<CertifiedKey>>) -> Self {
        let digest = [mark; 32];
        let roots = Some(Part { value: Arc::new(roots), digest });
        let identity = identity.map(|value| Part { value, digest });
        Self { held: Some(Arc::new(Held { roots, identity, passwords: None })), given: Vec::new() }
    }
}

/// No authority is trusted.
fn nobody() -> Part<RootCertStore> {
    Part::new(RootCertStore::empty(), [])
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        let parts = |secrets: &Self| {
            let held = secrets.held.as_deref().cloned().unwrap_or_default();
            (held.roots, held.identity, held.passwords)
        };
        parts(self) == parts(other) && self.given == other.given
    }
}

impl Eq for Secrets {}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets { .. }")
    }
}

/// What the service manager says about its credentials.
fn credentials_directory() -> Option<OsString> {
    std::env::var_os(CREDENTIALS.trim_start_matches('$'))
}

/// What is wrong with a file that a key names. `Display` gives a sentence: key, file, what is wrong; nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSecret {
    /// The key, without the transport.
    pub key: &'static str,
    /// The file, and what is wrong with it.
    pub what: String,
}

impl fmt::Display for WrongSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// What becomes of a file that we may not read.
#[derive(Clone, Copy)]
enum Unreadable<'a> {
    /// It is wrong.
    Refused,
    /// What an earlier reading has brought stays, which is in this transport.
    Kept {
        before: Option<&'a Transport>,
        /// Whether a file may be missing only because the root directory has changed.
        is_hidden: bool,
    },
    /// It is left out.
    LeftOut,
}

/// What was found on the way.
#[derive(Default)]
struct Found {
    wrong: Vec<WrongSecret>,
    /// Files that could not be read, and what becomes of that.
    notes: Vec<WrongSecret>,
}

type Troubles = Vec<(&'static str, Trouble)>;

impl Found {
    /// A part that was read, or what takes its place.
    fn part<T>(
        &mut self,
        read: Result<Part<T>, Troubles>,
        unreadable: Unreadable<'_>,
        before: impl FnOnce(&Transport) -> Option<Part<T>>,
    ) -> Option<Part<T>> {
        let troubles = match read {
            Ok(part) => return Some(part),
            Err(troubles) => troubles,
        };
        let is_ours = |why| match unreadable {
            Unreadable::Refused => false,
            Unreadable::Kept { is_hidden, .. } => why == Why::Closed || is_hidden && why == Why::Missing,
            Unreadable::LeftOut => matches!(why, Why::Closed | Why::NotOurs),
        };
        let (excused, blamed): (Vec<_>, Vec<_>) =
            troubles.into_iter().partition(|(_, trouble)| is_ours(trouble.why));
        let kept = match unreadable {
            Unreadable::Kept { before: Some(transport), .. } if blamed.is_empty() => before(transport),
            _ => None,
        };
        let is_excused = kept.is_some() || matches!(unreadable, Unreadable::LeftOut);
        let suffix = if kept.is_some() { "; what it held before stays in use until a restart" } else { "" };
        let wrong = |(key, trouble): (_, Trouble), suffix| WrongSecret {
            key,
            what: format!("{}{suffix}", trouble.text),
        };
        let excused = excused.into_iter().map(|trouble| wrong(trouble, suffix));
        if is_excused {
            self.notes.extend(excused);
        } else {
            self.wrong.extend(excused);
        }
        self.wrong.extend(blamed.into_iter().map(|trouble| wrong(trouble, "")));
        kept
    }

    /// Opens everything that a transport names.
    fn open(&mut self, transport: &Transport, place: Place<'_>, unreadable: Unreadable<'_>) -> Secrets {
        let (tls, sasl) = (&transport.tls, &transport.sasl);
        let mut held = Held::default();
        if tls.ca_file.is_some() || tls.ca_path.is_some() {
            let read = certificates::authorities(tls.ca_file.as_deref(), tls.ca_path.as_deref(), place);
            let part = read.map(|found| Part::new(found.roots, found.certificates.iter().map(Vec::as_slice)));
            held.roots = self.part(part, unreadable, |before| {
                let is_same = (&before.tls.ca_file, &before.tls.ca_path) == (&tls.ca_file, &tls.ca_path);
                before.secrets.held.as_ref().filter(|_| is_same)?.roots.clone()
            });
            // Whoever may not see whom to trust must not trust somebody else instead: without a word those of the system
            // would do.
            held.roots.get_or_insert_with(nobody);
        }
        if let Some(certificate) = &tls.cert_file {
            let part = read_identity(certificate, tls.key_file.as_deref(), place);
            held.identity = self.part(part, unreadable, |before| {
                let is_same =
                    (&before.tls.cert_file, &before.tls.key_file) == (&tls.cert_file, &tls.key_file);
                before.secrets.held.as_ref().filter(|_| is_same)?.identity.clone()
            });
        }
        if let Some(maps) = sasl.password_maps.as_ref().filter(|_| sasl.auth_enable) {
            held.passwords = self.part(read_passwords(maps, place), unreadable, |before| {
                let is_same = before.sasl.password_maps.as_ref() == Some(maps);
                before.secrets.held.as_ref().filter(|_| is_same)?.passwords.clone()
            });
        }
        Secrets { held: Some(Arc::new(held)), given: transport.secrets.given.clone() }
    }
}

fn read_identity(
    certificate: &Path,
    key: Option<&Path>,
    place: Place<'_>,
) -> Result<Part<CertifiedKey>, Troubles> {
    let identity = certificates::identity(certificate, key, place)?;
    let chain: Vec<_> = identity.certified.cert.iter().map(|der| der.to_vec()).collect();
    let octets = chain.iter().map(Vec::as_slice).chain([identity.key.as_slice()]);
    Ok(Part::new(identity.certified, octets))
}

fn read_passwords(maps: &PasswordMaps, place: Place<'_>) -> Result<Part<Passwords>, Troubles> {
    const KEY: &str = "sasl_password_maps";
    let blamed = |trouble| vec![(KEY, trouble)];
    let (mut path, readers) = match maps {
        PasswordMaps::Texthash(path) => (path.clone(), Readers::Few),
        PasswordMaps::File { path, is_ours_alone } => {
            (path.clone(), if *is_ours_alone { Readers::All } else { Readers::Few })
        }
    };
    let mut table = place.read(&path, SECRETS_SIZE_MAX, readers).map_err(blamed)?;
    let content = without_mark(&table);
    if let (PasswordMaps::File { .. }, Some(Ok(word))) =
        (maps, content.starts_with(b"texthash:").then(|| std::str::from_utf8(content)))
    {
        let Some(PasswordMaps::Texthash(named)) = PasswordMaps::parse(word.trim_end(), false) else {
            let what = "behind texthash: it has no path that begins with /, or more than that";
            return Err(blamed(Trouble::wrong(&path, what)));
        };
        let content = place.read(&named, SECRETS_SIZE_MAX, Readers::Few).map_err(blamed)?;
        (path, table) = (named, content);
    }
    match Passwords::parse(&table) {
        Ok(passwords) => Ok(Part::new(passwords, [table.as_slice()])),
        Err(wrong) => Err(wrong.into_iter().map(|what| (KEY, Trouble::wrong(&path, what))).collect()),
    }
}

impl Transport {
    /// The same transport with the files read that it names. The error tells everything that is wrong with them.
    pub fn open_secrets(mut self) -> Result<Self, Vec<WrongSecret>> {
        let credentials = credentials_directory();
        let mut found = Found::default();
        self.secrets = found.open(&self, Place { credentials: credentials.as_deref() }, Unreadable::Refused);
        if found.wrong.is_empty() { Ok(self) } else { Err(found.wrong) }
    }

    /// What is wrong with the files of tokens that its table of passwords names, by now: they are read when they are used.
    pub fn token_troubles(&self) -> Vec<WrongSecret> {
        let credentials = credentials_directory();
        let place = Place { credentials: credentials.as_deref() };
        let passwords = self.secrets.held.as_ref().and_then(|held| held.passwords.as_ref());
        let troubles = passwords.map(|passwords| passwords.value.token_troubles(place)).unwrap_or_default();
        troubles.into_iter().map(|what| WrongSecret { key: "sasl_password_maps", what }).collect()
    }
}

impl super::Config {
    /// Reads the files with secrets and certificates of all transports: once, before privileges and the root directory are
    /// given up, and by who delivers alone. The error tells everything that is wrong.
    pub fn open_secrets(self) -> Result<Self, ConfigError> {
        if self.chroot.is_some() {
            // They are not where they were, once the root directory has changed.
            system_roots();
        }
        let (config, found) = self.open_each(|_| Unreadable::Refused);
        config_or(config, found.wrong)
    }

    /// Reads them again, while `before` is in use. A file that we may not read any more, or that is hidden by a change of the
    /// root directory (`is_hidden`), leaves in use what it held before; each gives one sentence.
    pub fn open_secrets_again(
        self,
        before: &Self,
        is_hidden: bool,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let (config, found) = self.open_each(|transport| Unreadable::Kept {
            before: before.transport(&transport.name).map(|transport| &**transport),
            is_hidden,
        });
        Ok((config_or(config, found.wrong)?, found.notes))
    }

    /// Reads those that the caller may read, to see what is wrong with them. The others give one sentence each.
    pub fn check_secrets(self) -> Result<(Self, Vec<String>), ConfigError> {
        let (config, found) = self.open_each(|_| Unreadable::LeftOut);
        Ok((config_or(config, found.wrong)?, found.notes))
    }

    /// Tokens that cannot be used by now, in sentences: they are read when they are used, and may come until then.
    pub fn token_troubles(&self) -> Vec<String> {
        let of = |transport: &Transport| {
            let prefix = format!("transport.{}", transport.name);
            let troubles = transport.token_troubles().into_iter();
            troubles.map(|wrong| format!("{prefix}.{wrong}")).collect::<Vec<_>>()
        };
        self.transports().flat_map(|transport| of(transport)).collect()
    }

    fn open_each<'a>(mut self, unreadable: impl Fn(&Transport) -> Unreadable<'a>) -> (Self, FoundInAll) {
        let credentials = credentials_directory();
        let place = Place { credentials: credentials.as_deref() };
        let mut all = FoundInAll::default();
        let open = |(name, transport): (_, Arc<Transport>)| {
            let mut found = Found::default();
            let secrets = found.open(&transport, place, unreadable(&transport));
            let sentence = |wrong: WrongSecret| format!("transport.{}.{wrong}", transport.name);
            all.wrong.extend(found.wrong.into_iter().map(sentence));
            all.notes.extend(found.notes.into_iter().map(sentence));
            (name, Arc::new(Transport { secrets, ..Transport::clone(&transport) }))
        };
        self.transports =
            std::mem::take(&mut self.transports).into_iter().map(open).collect::<BTreeMap<_, _>>();
        (self, all)
    }
}

/// The same of all transports, in sentences.
#[derive(Default)]
struct FoundInAll {
    wrong: Vec<String>,
    notes: Vec<String>,
}

fn config_or(config: super::Config, wrong: Vec<String>) -> Result<super::Config, ConfigError> {
    let mut problems = Problems::default();
    wrong.into_iter().for_each(|what| problems.push(Problem::general(what)));
    problems.or(Some(config))
}
