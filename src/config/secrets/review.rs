//! What can be told of secrets without showing any: which servers get a login, and which files are needed for it.
//!
//! - Owns: the questions of `lastmile check`.
//! - Leaves to others: reading the files (`files`), what is probably not meant (`cli::check`).
//! - Always true: the answers are paths, numbers of lines, yes and no.

use std::path::{Path, PathBuf};

use super::files::Place;
use super::{PasswordMaps, Secrets, credentials_directory};
use crate::config::Transport;
use crate::mail::Server;

/// A file with secrets that a transport needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// What names it: a key, or a line of the table that a key names.
    pub named_by: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is read each time that it is used, and not only at the start and on a signal.
    pub is_read_each_time: bool,
}

impl Secrets {
    /// Whether we have a login for `server`; `None`: no table has been read that could say so.
    pub fn has_login(&self, server: &Server) -> Option<bool> {
        if self.given.iter().any(|(known, _)| known == server) {
            return Some(true);
        }
        Some(self.held.as_ref()?.passwords.as_ref()?.value.has_entry(server))
    }

    /// The lines of the table that leave the password out, but for sockets: there, other things than a certificate can say
    /// who we are.
    pub fn lines_without_password(&self) -> Vec<usize> {
        let passwords = self.held.as_ref().and_then(|held| held.passwords.as_ref());
        passwords.map(|passwords| passwords.value.lines_without_password()).unwrap_or_default()
    }
}

impl Transport {
    /// The files with secrets that it needs, as far as this process can say where they are: its key, its table of passwords,
    /// and the tokens that this names.
    pub fn secret_files(&self) -> Vec<SecretFile> {
        let credentials = credentials_directory();
        let place = Place { credentials: credentials.as_deref() };
        let file = |named_by: String, path: &Path, is_read_each_time| {
            let path = place.find(path).ok()?;
            Some(SecretFile { named_by, path, is_read_each_time })
        };
        let key = match (&self.tls.cert_file, &self.tls.key_file) {
            (Some(_), Some(key)) => file("tls_key_file".to_owned(), key, false),
            (Some(both), None) => file("tls_cert_file".to_owned(), both, false),
            (None, _) => None,
        };
        let maps = self.sasl.password_maps.as_ref().filter(|_| self.sasl.auth_enable);
        let table = maps.and_then(|maps| match maps {
            PasswordMaps::Texthash(path) | PasswordMaps::File { path, .. } => {
                file("sasl_password_maps".to_owned(), path, false)
            }
        });
        let passwords = self.secrets.held.as_ref().and_then(|held| held.passwords.as_ref());
        let tokens = passwords.into_iter().flat_map(|passwords| passwords.value.token_files());
        let tokens = tokens
            .filter_map(|(line, path)| file(format!("sasl_password_maps: line {line}"), path, true))
            .collect::<Vec<_>>();
        key.into_iter().chain(table).chain(tokens).collect()
    }
}
