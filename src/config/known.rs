//! Which keys there are, and which one a wrong key was probably meant to be.
//!
//! - Owns: the guess, from spelling, from Postfix's names, and from keys in the wrong section.
//! - Leaves to others: the tables of keys (`mod.rs`, `transport.rs`, `timeouts.rs`).
//! - Always true: a guess names a key that exists.

use super::Config;
use super::error::nearest;
use super::transport::Transport;

fn top_keys() -> impl Iterator<Item = &'static str> {
    Config::KEYS.iter().map(|key| key.name)
}

fn transport_keys() -> impl Iterator<Item = &'static str> {
    Transport::keys().map(|key| key.name)
}

/// Whether a path names a key.
pub(super) fn is_known(path: &[String]) -> bool {
    match path {
        [key] => top_keys().any(|known| known == key),
        [section, _, key] => section == "transport" && transport_keys().any(|known| known == key),
        _ => false,
    }
}

/// What an unknown key at the top may have been meant to be; empty where nothing comes to mind.
pub(super) fn hint_for_top_key(key: &str) -> String {
    if key == "transports" {
        return "a transport is a section, [transport.NAME]".to_owned();
    }
    // Postfix's names have the program in front.
    let bare = ["lmtp_", "smtp_", "virtual_", "local_"].iter().find_map(|prefix| {
        let bare = key.strip_prefix(prefix)?;
        transport_keys().find(|known| *known == bare).map(|known| (prefix.trim_end_matches('_'), known))
    });
    match (bare, transport_keys().find(|known| *known == key)) {
        (Some((transport @ ("lmtp" | "smtp" | "local"), known)), _) => {
            format!("it is transport.{transport}.{known} here")
        }
        (_, Some(known)) => format!("it belongs to a transport: transport.lmtp.{known}"),
        _ => match (nearest(&key.to_lowercase(), top_keys()), nearest(&key.to_lowercase(), transport_keys()))
        {
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
    nearest(&key.to_lowercase(), transport_keys())
        .map(|known| format!("did you mean {known}?"))
        .unwrap_or_default()
}
