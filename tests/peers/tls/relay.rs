//! A Postfix that takes mail from those alone who have logged in, or shown a certificate; a Dovecot knows the logins.
//!
//! - Owns: both their configurations, the ports by what they ask for, what has arrived, what they have logged.
//! - Leaves to others: starting a Postfix (`postfix::instance`) and a Dovecot (`dovecot`).
//! - Always true: accepted mail ends in a Maildir of the test's; nothing is relayed to anybody.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use super::carrier::Papers;
use super::tokens;
use crate::common::certificates::Kind;
use crate::common::mailbox;
use crate::dovecot::Dovecot;
use crate::postfix::client::{Client, can_run};
use crate::postfix::instance::{Place, Postfix, SERVICE, Settings};

/// Owner of the mail: virtual(8) stores none as root.
const NOBODY: u32 = 65534;

/// A port of the relay, by what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// TLS is offered, and logins also without.
    May,
    /// Logins are offered over TLS alone.
    LoginOverTls,
    /// Mail and logins over TLS alone.
    Encrypt,
    /// The same over TLS 1.3 alone.
    Newest,
    /// TLS from the first octet.
    Wrapped,
    /// A certificate of the client's is asked for, and as good as a login.
    AskForCertificate,
    /// There is no mail without a certificate of the client's.
    RequireCertificate,
    /// Logins are offered, and nobody needs one.
    Open,
    /// TLS is not offered.
    Clear,
}

impl Port {
    const ALL: [Self; 9] = [
        Self::May,
        Self::LoginOverTls,
        Self::Encrypt,
        Self::Newest,
        Self::Wrapped,
        Self::AskForCertificate,
        Self::RequireCertificate,
        Self::Open,
        Self::Clear,
    ];

    /// Its smtpd's arguments, in master.cf.
    fn arguments(self) -> &'static str {
        match self {
            Self::May => "",
            Self::LoginOverTls => "-o smtpd_tls_auth_only=yes",
            Self::Encrypt => "-o smtpd_tls_security_level=encrypt -o smtpd_tls_auth_only=yes",
            Self::Newest => "-o smtpd_tls_security_level=encrypt -o smtpd_tls_mandatory_protocols=>=TLSv1.3",
            Self::Wrapped => "-o smtpd_tls_wrappermode=yes",
            Self::AskForCertificate => "-o smtpd_tls_ask_ccert=yes -o smtpd_sasl_auth_enable=no",
            Self::RequireCertificate => {
                "-o smtpd_tls_security_level=encrypt -o smtpd_tls_req_ccert=yes -o smtpd_sasl_auth_enable=no"
            }
            Self::Open => "-o smtpd_relay_restrictions=reject_unauth_destination",
            Self::Clear => "-o smtpd_tls_security_level=none",
        }
    }
}

/// A running Postfix with its Dovecot.
pub struct Relay<'a> {
    postfix: Postfix<'a>,
    dovecot: Dovecot,
}

impl<'a> Relay<'a> {
    /// Starts both; for each login there is a name and a password. Domains of mail: `example.org`. `None`, and a word
    /// about it, where no Postfix can run.
    pub fn start(place: &'a Place, papers: &Papers, logins: &[[&str; 2]]) -> Option<Self> {
        if !can_run() {
            return None;
        }
        let lines = logins.iter().map(|[name, password]| format!("{name}:{{PLAIN}}{password}::::::\n"));
        let logins: String = lines.collect();
        let dovecot = Dovecot::start_with(&|directory, _| logins_of_dovecot(directory, &logins));
        let mail = place.path().join("mail");
        fs::create_dir(&mail).unwrap();
        chown(&mail, Some(NOBODY), Some(NOBODY)).unwrap();
        let settings = Settings {
            main: main_cf(&mail, papers, &socket(&dovecot)),
            listeners: Port::ALL.iter().map(|port| port.arguments().to_owned()).collect(),
            without: vec![SERVICE],
            ..Settings::default()
        };
        Some(Self { postfix: Postfix::start(place, Client::Stock, settings), dovecot })
    }

    /// A port's number.
    pub fn port(&self, port: Port) -> u16 {
        self.postfix.port(Port::ALL.iter().position(|&one| one == port).unwrap())
    }

    /// A port as a next hop.
    pub fn nexthop(&self, port: Port) -> String {
        format!("smtp:inet:localhost:{}", self.port(port))
    }

    /// A port as the log names it.
    pub fn name(&self, port: Port) -> String {
        format!("localhost[127.0.0.1]:{}", self.port(port))
    }

    /// What has arrived, once everything that was accepted is stored.
    pub fn mailbox(&self) -> Vec<Vec<u8>> {
        self.postfix.settle();
        mailbox::messages(&self.postfix.path().join("mail"))
    }

    /// Lines of Postfix's log with all `parts`, once it has told of all mail.
    pub fn lines_with(&self, parts: &[&str]) -> Vec<String> {
        self.postfix.settle();
        let log = self.postfix.log();
        let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
        log.lines().filter(fits).map(str::to_owned).collect()
    }

    /// What both have logged.
    pub fn log(&self) -> String {
        format!("{}\n{}", self.postfix.log(), self.dovecot.log())
    }
}

/// Where Postfix asks Dovecot.
fn socket(dovecot: &Dovecot) -> PathBuf {
    dovecot.path().join("logins.sock")
}

/// Logins by password and by token, for smtpd.
fn logins_of_dovecot(directory: &Path, logins: &str) -> String {
    fs::write(directory.join("logins"), logins).unwrap();
    tokens::write_key(&directory.join("token-keys"));
    let directory = directory.display();
    fs::write(
        format!("{directory}/tokens.conf"),
        format!(
            "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={directory}/token-keys/\n\
             username_attribute = sub\n"
        ),
    )
    .unwrap();
    // Who errs waits longer and longer, unless nobody counts (penalty).
    format!(
        "auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer\n\
         auth_failure_delay = 0\n\
         passdb {{\n  driver = passwd-file\n  args = {directory}/logins\n}}\n\
         passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {directory}/tokens.conf\n}}\n\
         service anvil {{\n  unix_listener anvil-auth-penalty {{\n    mode = 0\n  }}\n}}\n\
         service auth {{\n  unix_listener {directory}/logins.sock {{\n    mode = 0666\n  }}\n}}\n"
    )
}

/// What the ports have in common.
fn main_cf(mail: &Path, papers: &Papers, socket: &Path) -> String {
    let server = papers.of(Kind::Good);
    let (chain, key, authority) = (server.chain.display(), server.key.display(), papers.authority.display());
    let (mail, socket) = (mail.display(), socket.display());
    // Being near (mynetworks) is no reason to take mail.
    format!(
        "smtpd_relay_restrictions = permit_sasl_authenticated, permit_tls_all_clientcerts, reject\n\
         smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {chain}\nsmtpd_tls_key_file = {key}\n\
         smtpd_tls_CAfile = {authority}\nsmtpd_tls_loglevel = 1\nsmtpd_error_sleep_time = 0\n\
         smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {socket}\n\
         virtual_mailbox_domains = example.org\nvirtual_mailbox_base = {mail}\n\
         virtual_mailbox_maps = static:inbox/\nvirtual_uid_maps = static:{NOBODY}\n\
         virtual_gid_maps = static:{NOBODY}\nvirtual_minimum_uid = 1\n"
    )
}
