//! Warnings about logins: servers that get none, and files that the agent cannot read once it is somebody else.
//!
//! - Owns: those warnings.
//! - Leaves to others: what is wrong with the files themselves (`config`), how far a password goes (`secrecy`).
//! - Always true: who may read a file is told by owner, group and mode alone, and only to root, who sees all of them.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group, User, getgrouplist};

use crate::config::{Config, Transport};
use crate::mail::Destination;

/// What is possible with the logins of one transport, and yet probably not meant.
pub(super) fn warnings(config: &Config, transport: &Transport) -> Vec<String> {
    let key = |key: &str| format!("transport.{}.{key}", transport.name);
    let mut found = Vec::new();
    if transport.sasl.auth_enable {
        let destinations = config.destinations().into_iter();
        let ours = destinations.filter(|destination| *destination.transport() == transport.name);
        let servers: BTreeSet<_> = ours.flat_map(Destination::servers).collect();
        let is_unknown = |server: &&_| transport.secrets.has_login(server) == Some(false);
        found.extend(servers.into_iter().filter(is_unknown).map(|server| {
            format!(
                "{} has no entry for {server}: mail goes to it without a login",
                key("sasl_password_maps")
            )
        }));
    }
    if transport.tls.cert_file.is_none() {
        found.extend(transport.secrets.lines_without_password().into_iter().map(|line| {
            format!(
                "{}: line {line} has no password, so a certificate would have to say who we are, and tls_cert_file is \
                 not set",
                key("sasl_password_maps")
            )
        }));
    }
    found.extend(Account::of_agent(config).iter().flat_map(|account| account.cannot_read(transport)));
    found
}

/// Whom the agent becomes.
struct Account {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

impl Account {
    /// Another one than root, who asks; `None` also where files are to be found below another root directory then.
    fn of_agent(config: &Config) -> Option<Self> {
        let name = config.user.as_deref().filter(|_| rustix::process::geteuid().is_root())?;
        let user =
            User::from_name(name).ok()?.filter(|user| !user.uid.is_root() && config.chroot.is_none())?;
        let gid = match &config.group {
            Some(group) => Group::from_name(group).ok()??.gid,
            None => user.gid,
        };
        let groups = getgrouplist(&CString::new(name).ok()?, gid).ok()?;
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Some(Self { name: name.to_owned(), uid: user.uid.as_raw(), groups })
    }

    /// The files of a transport that it may not read, and what that means.
    fn cannot_read(&self, transport: &Transport) -> Vec<String> {
        let files = transport.secret_files().into_iter();
        let closed = files.filter(|file| self.may_read(&file.path) == Some(false));
        let sentences = closed.map(|file| {
            let means = match file.is_read_each_time {
                true => "may not read it, and a token is read each time that it is used: logins with it fail",
                false => "may not read it again at SIGHUP: what changes in it holds from the next start on",
            };
            let path = file.path.display();
            format!("transport.{}.{}: {path}: user {:?} {means}", transport.name, file.named_by, self.name)
        });
        sentences.collect()
    }

    /// `None`: nobody can say.
    fn may_read(&self, path: &Path) -> Option<bool> {
        let path = fs::canonicalize(path).ok()?;
        for directory in path.ancestors().skip(1) {
            if !self.has(&fs::metadata(directory).ok()?, 0o1) {
                return Some(false);
            }
        }
        Some(self.has(&fs::metadata(&path).ok()?, 0o4))
    }

    /// Whether the mode of a file gives it a right, as others have it in `bit`.
    fn has(&self, metadata: &fs::Metadata, bit: u32) -> bool {
        let shift = match () {
            () if metadata.uid() == self.uid => 6,
            () if self.groups.contains(&metadata.gid()) => 3,
            () => 0,
        };
        metadata.mode() >> shift & bit != 0
    }
}
