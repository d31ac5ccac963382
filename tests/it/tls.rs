//! TLS between the agent and servers, good ones and bad ones.
//!
//! - Owns: a server for each certificate, transports for each level, what becomes of mail then and what the log says.
//! - Leaves to others: conversations octet by octet (dialogues), real mail servers (`peers`), certificates as such (`net`).
//! - Always true: what must not go in clear is looked for at the server's end, too.

mod hostile;
mod kept;
mod levels;

use std::fmt::Write as _;
use std::path::PathBuf;

use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store, TlsConfig, maildir_name};

use crate::common::agent::Site;
use crate::common::certificates::{Certificates, Kind};
use crate::common::mailbox;

/// The name that servers are asked for.
const HOST: &str = "localhost";

/// Certificates in the site's directory, for [`HOST`].
fn certificates(site: &Site) -> Certificates {
    Certificates::make(&site.path().join("certificates"), &[HOST])
}

/// A server on a port of its own, in this process.
pub struct Server {
    pub handle: Handle,
    pub port: u16,
    maildirs: PathBuf,
}

impl Server {
    /// Shows the certificate of that kind, and follows the script.
    fn start(site: &Site, certificates: &Certificates, kind: Kind, script: &str) -> Self {
        Self::start_with(site, |config| {
            config.tls = Some(shown(certificates, kind));
            config.script = Script::parse(script).unwrap();
        })
    }

    /// Keeps its mail in the site's directory, and does otherwise as `change` says.
    pub fn start_with(site: &Site, change: impl FnOnce(&mut SinkConfig)) -> Self {
        let maildirs = tempfile::tempdir_in(site.path()).unwrap().keep();
        let mut config = SinkConfig {
            store: Store::Maildir(maildirs.clone()),
            ..SinkConfig::new("inet:127.0.0.1:0".parse().unwrap())
        };
        change(&mut config);
        let handle = Sink::start(config).unwrap();
        let Listen::Tcp(address) = handle.addresses()[0] else { panic!("{:?}", handle.addresses()) };
        Self { port: address.port(), handle, maildirs }
    }

    /// How many messages have come for an address.
    pub fn mail_of(&self, address: &str) -> usize {
        mailbox::messages(&self.maildirs.join(maildir_name(&address.parse().unwrap()))).len()
    }
}

/// What a server shows that has the certificate of that kind.
pub fn shown(certificates: &Certificates, kind: Kind) -> TlsConfig {
    let identity = certificates.of(kind);
    TlsConfig::new(&identity.chain, &identity.key)
}

/// One transport for each level, with the same keys otherwise.
fn transports(keys: &str) -> String {
    let mut text = String::new();
    for level in ["none", "may", "encrypt", "fingerprint", "verify", "secure"] {
        let head = format!("[transport.{level}]\nprotocol = \"lmtp\"\ninet_protocols = \"ipv4\"\n");
        writeln!(text, "{head}tls_security_level = \"{level}\"\n{keys}\n").unwrap();
    }
    text
}

/// A message with as little in it as possible.
const MESSAGE: &[u8] = b"Subject: s\n\nover TLS or not at all\n";
