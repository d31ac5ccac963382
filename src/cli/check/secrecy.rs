//! Warnings about TLS and logins: what lets a password go further than it was probably meant to, or nowhere.
//!
//! - Owns: those warnings.
//! - Leaves to others: what cannot work at all (`config`).
//! - Always true: the defaults give none.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::config::{CertMatch, Config, PasswordMaps, Tls, TlsLevel, Transport};
use crate::mail::{Destination, Server};

/// What is possible with one transport, and yet probably not meant.
pub(super) fn warnings(config: &Config, transport: &Transport) -> Vec<String> {
    let (tls, sasl) = (&transport.tls, &transport.sasl);
    let mut found = Vec::new();
    let mut note = |key: &str, what: &str| found.push(format!("transport.{}.{key}{what}", transport.name));
    let is_unprotected = !level(config, transport).is_mandatory();
    if sasl.auth_enable && is_unprotected && !sasl.security_options.no_plaintext {
        note(
            "sasl_security_options",
            " has no noplaintext, and tls_security_level is not encrypt or higher: passwords may go over the network in \
             clear",
        );
    }
    let never_authenticates =
        !level(config, transport).authenticates() && !tls.policy.levels().any(TlsLevel::authenticates);
    match sasl.tls_security_options {
        Some(options) if sasl.auth_enable && never_authenticates && !options.no_plaintext => note(
            "sasl_tls_security_options",
            " has no noplaintext, and tls_security_level is not verify or higher: passwords go to whoever answers in the \
             place of the server",
        ),
        None if sasl.auth_enable && never_authenticates && sasl.security_options.no_plaintext => note(
            "tls_security_level",
            " is not verify or higher: without a server that proves who it is, PLAIN, LOGIN and tokens are not used, and \
             mail waits where a server offers nothing else",
        ),
        _ => {}
    }
    if !sasl.auth_enable {
        let unused = [
            ("sasl_password_maps", sasl.password_maps.is_some()),
            ("send_dummy_mail_auth", transport.send_dummy_mail_auth),
        ];
        for (key, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
            note(key, " has no effect: sasl_auth_enable is no");
        }
    }
    let is_off = tls.security_level == Some(TlsLevel::None) && tls.policy.levels().next().is_none();
    let of_tls = [
        ("tls_CAfile", tls.ca_file.is_some()),
        ("tls_CApath", tls.ca_path.is_some()),
        ("tls_cert_file", tls.cert_file.is_some()),
    ];
    for (key, _) in of_tls.into_iter().filter(|(_, is_set)| is_off && *is_set) {
        note(key, " has no effect: tls_security_level is none");
    }
    for (key, level) in unread_matches(tls) {
        note(key, &format!(" has no effect: no server has the level {level} without a match= of its own"));
    }
    if let Some(PasswordMaps::File { path, .. }) = &sasl.password_maps
        && fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
    {
        note("sasl_password_maps", &format!(": everybody who gets at {} may read it", path.display()));
    }
    found
}

/// Keys for one level that somebody has set, while nothing at that level goes by them.
fn unread_matches(tls: &Tls) -> impl Iterator<Item = (&'static str, TlsLevel)> {
    let (hostname, nexthop) = ([CertMatch::Hostname], [CertMatch::Nexthop, CertMatch::DotNexthop]);
    let keys = [
        ("tls_fingerprints", TlsLevel::Fingerprint, !tls.fingerprints.is_empty()),
        ("tls_verify_cert_match", TlsLevel::Verify, tls.verify_cert_match != hostname),
        ("tls_secure_cert_match", TlsLevel::Secure, tls.secure_cert_match != nexthop),
    ];
    let is_read = |level| {
        tls.security_level == Some(level) || tls.policy.levels_without_match().any(|other| other == level)
    };
    keys.into_iter()
        .filter(move |(_, level, is_set)| *is_set && !is_read(*level))
        .map(|(key, level, _)| (key, level))
}

/// What is asked of the servers of a transport that have no policy of their own. A default counts as that of TCP only where
/// something goes to TCP: nobody listens in on a socket.
fn level(config: &Config, transport: &Transport) -> TlsLevel {
    let is_tcp = |server: &Server| matches!(server, Server::Tcp { .. });
    let leads_to_tcp =
        |to: &&Destination| *to.transport() == transport.name && to.servers().iter().any(is_tcp);
    let unsaid = match () {
        () if transport.tls.wrappermode || !config.destinations().iter().any(leads_to_tcp) => {
            TlsLevel::Encrypt
        }
        () => TlsLevel::May,
    };
    transport.tls.security_level.unwrap_or(unsaid)
}
