//! CRAM-MD5 (RFC 2195).
//!
//! - Owns: what answers its only challenge.
//! - Leaves to others: MD5 and HMAC (their crates), base64 and the order of lines (`exchange`).
//! - Always true: the password itself is not in the answer.

use hmac::{Hmac, Mac};
use md5::Md5;
use zeroize::Zeroizing;

/// The name, a blank, and the digest of the challenge under the password in lower-case hexadecimal digits.
pub(super) fn response(
    username: &str,
    password: &str,
    challenge: &[u8],
) -> Result<Zeroizing<Vec<u8>>, String> {
    // HMAC takes keys of any length; the type cannot say so.
    let mut mac = Hmac::<Md5>::new_from_slice(password.as_bytes()).map_err(|error| error.to_string())?;
    mac.update(challenge);
    let digest = mac.finalize().into_bytes();
    Ok(Zeroizing::new(format!("{username} {digest:x}").into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_in_rfc_2195_and_rfc_2202() {
        for (username, password, challenge, expected) in [
            (
                "tim",
                "tanstaaftanstaaf",
                &b"<1896.697170952@postoffice.reston.mci.net>"[..],
                "tim b913a602c7eda7a495b4e6e7334d3890",
            ),
            // RFC 2202, cases 2 and 6: a short key, and one that is longer than a block.
            ("a b", "Jefe", b"what do ya want for nothing?", "a b 750c783e6ab0b503eaa86e310a5db738"),
            ("", "", b"", " 74e6f7298a9c2d168935f58c001bad88"),
        ] {
            let response = response(username, password, challenge).unwrap();
            assert_eq!(std::str::from_utf8(&response), Ok(expected));
        }
    }
}
