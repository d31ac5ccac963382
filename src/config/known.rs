//! Which keys there are, and which one a wrong key was probably meant to be.
//!
//! - Owns: the guess, from spelling, from Postfix's names, and from keys in the wrong section; which values may be secrets.
//! - Leaves to others: the tables of keys (`mod.rs`, `transport.rs`, `timeouts.rs`, `tls.rs`, `sasl.rs`).
//! - Always true: a guess names a key that exists; a password under a misspelt key is not shown.

use super::Config;
use super::error::nearest;
use super::parse::is_bare_secret_path;
use super::tls_policy;
use super::transport::Transport;

fn top_keys() -> impl Iterator<Item = &'static str> {
    Config::KEYS.iter().map(|key| key.name)
}

fn transport_keys() -> impl Iterator<Item = &'static str> {
    Transport::keys().map(|key| key.name)
}

/// The key that a path names, with its last word as it is spelled; case does not matter there.
pub(super) fn spelled(path: &[String]) -> Option<Vec<String>> {
    let (last, section) = path.split_last()?;
    let is_it = |known: &&str| known.eq_ignore_ascii_case(last);
    let known = match section {
        [] => top_keys().find(is_it),
        [section, _] if section == "transport" => transport_keys().find(is_it),
        _ => None,
    };
    Some(section.iter().cloned().chain([known?.to_owned()]).collect())
}

/// Words of keys that hold secrets, here or elsewhere.
const SECRET_WORDS: [&str; 8] =
    ["pass", "pwd", "secret", "token", "sasl_user", "sasl_pw", "login", "credential"];
/// What Postfix and we put in front of the name of a file with a table.
const MAP_TYPES: [&str; 11] =
    ["texthash", "file", "hash", "lmdb", "btree", "cdb", "dbm", "sqlite", "mysql", "pgsql", "ldap"];

/// A value as it was written, less what may be a secret in it.
pub(super) fn shown(key: &str, written: &str) -> String {
    if may_be_secret(key, written) {
        return match written.lines().count() {
            0 | 1 => "(not shown)".to_owned(),
            lines => format!("(a table of {lines} lines, not shown)"),
        };
    }
    // A table in its place is shown as such.
    let is_policy = key.contains(".tls_policy.") && !matches!(written, "{…}" | "[…]");
    if is_policy { tls_policy::shown(written) } else { written.to_owned() }
}

/// Whether `value` may hold a secret, given for `key`: a password in the place of a file's name, under whatever key somebody
/// took for the right one, a private key, or a login in front of a host.
pub(super) fn may_be_secret(key: &str, value: &str) -> bool {
    if value.contains("-----BEGIN") {
        return true;
    }
    let is_map = value
        .split_once(':')
        .is_some_and(|(kind, path)| MAP_TYPES.contains(&kind) && is_bare_secret_path(path));
    if is_map || matches!(value, "" | "{}" | "{…}" | "[…]") {
        return false;
    }
    let key = key.to_ascii_lowercase();
    // Not the name of a transport or a route.
    let key = match key.split_once('.') {
        Some(("transport", rest)) => rest.split_once('.').map_or(rest, |(_, key)| key),
        _ => &key,
    };
    let is_route = key.starts_with("routes.");
    let last = key.rsplit('.').next().unwrap_or_default();
    let sounds_secret = |text: &str| SECRET_WORDS.iter().any(|word| text.contains(word));
    !is_route && sounds_secret(key)
        || last.rsplit(['_', '-']).next() == Some("key")
        || nearest(last, transport_keys()) == Some("sasl_password_maps")
        || last == "tls_policy" && sounds_secret(&value.to_ascii_lowercase())
        || has_login(key, value)
}

/// Whether a name and a password may stand in front of a host, as in a URL. No nexthop has an `@`.
fn has_login(key: &str, value: &str) -> bool {
    let is_nexthop = matches!(key, "default_transport" | "bounce_nexthop") || key.starts_with("routes.");
    // A path may well have an `@` in it.
    let is_nexthop = is_nexthop && !value.contains("unix:") && !value.starts_with('/');
    let is_login = |word: &str| word.split_once('@').is_some_and(|(login, _)| login.contains(':'));
    is_nexthop && value.contains('@') || value.split([',', ' ']).any(is_login)
}

/// Names of Postfix's that are not ours with another word in front.
const OF_POSTFIX: [(&str, &str); 6] = [
    ("tls_policy_maps", "the table is a section, [transport.NAME.tls_policy]"),
    ("tls_fingerprint_cert_match", "it is tls_fingerprints here"),
    ("tls_mandatory_protocols", "it is tls_protocols here"),
    ("tls_chain_files", "they are tls_cert_file and tls_key_file here"),
    ("use_tls", "it is tls_security_level here"),
    ("enforce_tls", "it is tls_security_level here"),
];

/// What an unknown key at the top may have been meant to be; empty where nothing comes to mind.
pub(super) fn hint_for_top_key(key: &str) -> String {
    if key == "transports" {
        return "a transport is a section, [transport.NAME]".to_owned();
    }
    // Postfix's names have the program in front.
    let stripped = ["lmtp_", "smtp_", "virtual_", "local_"]
        .iter()
        .find_map(|prefix| Some((prefix.trim_end_matches('_'), key.strip_prefix(prefix)?)));
    if let Some((_, what)) = stripped.and_then(|(_, bare)| OF_POSTFIX.iter().find(|(name, _)| *name == bare))
    {
        return (*what).to_owned();
    }
    let bare =
        stripped.and_then(|(prefix, bare)| Some((prefix, transport_keys().find(|known| *known == bare)?)));
    match (bare, transport_keys().find(|known| *known == key)) {
        (Some((transport @ ("lmtp" | "smtp" | "local"), known)), _) => {
            format!("it is transport.{transport}.{known} here")
        }
        (_, Some(known)) => format!("it belongs to a transport: transport.lmtp.{known}"),
        _ => match (nearest(key, top_keys()), nearest(key, transport_keys())) {
            (Some(known), _) => format!("did you mean {known}?"),
            (None, Some(known)) => format!("did you mean transport.lmtp.{known}?"),
            (None, None) => String::new(),
        },
    }
}

/// The same for a key of a transport.
pub(super) fn hint_for_transport_key(key: &str) -> String {
    if top_keys().any(|known| known == key) {
        return format!("{key} is no key of a transport: in the file it stands above the first [section]");
    }
    if let Some((_, what)) = OF_POSTFIX.iter().find(|(name, _)| *name == key) {
        return (*what).to_owned();
    }
    nearest(key, transport_keys()).map(|known| format!("did you mean {known}?")).unwrap_or_default()
}
