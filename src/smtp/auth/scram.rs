//! SCRAM (RFC 5802, RFC 7677): what a server's messages must be before rsasl gets to see them.
//!
//! - Owns: the form of the two messages as far as rsasl takes it for granted, and how much work a server may ask for; the
//!   preparation of names and passwords (SASLprep, RFC 4013), which rsasl leaves to its callers.
//! - Leaves to others: everything else of SCRAM (rsasl).
//! - Always true: an attribute that is too short to have a name never reaches rsasl 2.3, whose parser would panic.

use stringprep::saslprep;

use super::Secret;

/// Rounds of the password's hash: about a second's work. RFC 5802 section 9 tells clients to have such a limit: a server
/// could keep us busy for hours.
pub(super) const ITERATIONS_MAX: u32 = 1_000_000;

/// Looks at the server's first message: `r=nonce,s=salt,i=count`.
pub(super) fn check_server_first(message: &[u8]) -> Result<(), String> {
    let mut attributes = message.split(|&octet| octet == b',');
    for name in *b"rsi" {
        let value = attributes.next().and_then(|attribute| attribute.strip_prefix(&[name, b'='][..]));
        let value = value.ok_or("the server's first message is none of SCRAM")?;
        if name == b'i' {
            check_iterations(value)?;
        }
    }
    Ok(())
}

fn check_iterations(value: &[u8]) -> Result<(), String> {
    let count = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok());
    match count.ok_or("the server asks for a number of rounds that is none")? {
        count if count > u64::from(ITERATIONS_MAX) => {
            Err(format!("the server asks for {count} rounds of hashing, more than {ITERATIONS_MAX}"))
        }
        _ => Ok(()),
    }
}

/// Looks at the server's last message: `v=signature` or `e=error`.
pub(super) fn check_server_final(message: &[u8]) -> Result<(), String> {
    if message.starts_with(b"v=") || message.starts_with(b"e=") {
        return Ok(());
    }
    Err("the server's last message is none of SCRAM".to_owned())
}

/// The password as SCRAM hashes it. The error does not tell which character is at fault.
pub(super) fn prepared_password(password: &Secret) -> Result<Secret, String> {
    match saslprep(password.expose()) {
        Ok(prepared) if !prepared.is_empty() => Ok(Secret::new(prepared.into_owned())),
        Ok(_) => Err("the password is empty".to_owned()),
        Err(_) => {
            Err("the password holds a character that no password may hold (SASLprep, RFC 4013)".to_owned())
        }
    }
}

/// The name as SCRAM sends it.
pub(super) fn prepared_name(name: &str) -> Result<String, String> {
    match saslprep(name) {
        Ok(prepared) if !prepared.is_empty() => Ok(prepared.into_owned()),
        _ => Err("the user name holds a character that no name may hold (SASLprep, RFC 4013)".to_owned()),
    }
}
