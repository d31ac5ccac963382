//! OAuth 2.0 tokens: OAUTHBEARER (RFC 7628) and XOAUTH2.
//!
//! - Owns: what a token may be made of, how a name stands in OAUTHBEARER, what the server's error says.
//! - Leaves to others: the message with the token (rsasl), where tokens come from (`config`).
//! - Always true: nothing in a name or a token can begin another field of the message.

use serde_json::Value;

/// Octets that are shown of a server's word.
const STATUS_SIZE_MAX: usize = 60;

/// Whether `token` is made of what RFC 6750 and RFC 6749 allow: visible ASCII. A line's end, or the %x01 that separates
/// fields, is none.
pub(super) fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|octet| octet.is_ascii_graphic())
}

/// A name in the header of OAUTHBEARER (saslname of RFC 5801), which rsasl would send as it is.
pub(super) fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// What the server holds against the token: the `status` of the JSON that both mechanisms send before they refuse
/// (RFC 7628 section 3.2.2), printable and short.
pub(super) fn status(challenge: &[u8]) -> Option<String> {
    let status = match serde_json::from_slice::<Value>(challenge).ok()?.get("status")? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(status.chars().filter(|c| !c.is_control()).take(STATUS_SIZE_MAX).collect())
        .filter(|s: &String| !s.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_from_whatever_json_servers_send() {
        for (challenge, expected) in [
            // RFC 7628 section 4.3, and what Google sends.
            (
                &br#"{"status":"invalid_token","scope":"s","openid-configuration":"https://example.com/o"}"#
                    [..],
                Some("invalid_token"),
            ),
            (
                br#"{"status":"401","schemes":"bearer mac","scope":"https:\/\/mail.google.com\/"}"#,
                Some("401"),
            ),
            (br#"{"status":400}"#, Some("400")),
            (b"{\"status\":\"a\\u0000\\nb\"}", Some("ab")),
            (br#"{"status":""}"#, None),
            (br#"{"status":["x"]}"#, None),
            (br#"{"scope":"x"}"#, None),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(status(challenge).as_deref(), expected, "{}", String::from_utf8_lossy(challenge));
        }
        let long = format!("{{\"status\":\"{}\"}}", "x".repeat(1000));
        assert_eq!(status(long.as_bytes()).unwrap().len(), STATUS_SIZE_MAX);
    }

    #[test]
    fn no_name_and_no_token_begins_another_field() {
        assert_eq!(saslname("a,b=c"), "a=2Cb=3Dc");
        for (token, expected) in [
            ("ya29.-_~+/==", true),
            ("", false),
            ("a b", false),
            ("a\x01b", false),
            ("a\r", false),
            ("ä", false),
        ] {
            assert_eq!(is_token(token), expected, "{token:?}");
        }
    }
}
