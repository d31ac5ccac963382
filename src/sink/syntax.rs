//! Commands taken apart (RFC 5321 section 4.1.1), and the refusals that this brings.
//!
//! - Owns: paths, parameters, chunk sizes.
//! - Leaves to others: what a command does (`session`).
//! - Always true: nothing here keeps or changes anything.

use super::reply::Reply;

/// For a command without its path.
pub(super) fn syntax() -> Reply {
    Reply::new(501, "5.5.4", "an address in angle brackets belongs there")
}

/// For a message over the limit (RFC 1870 section 6.1).
pub(super) fn too_large() -> Reply {
    Reply::new(552, "5.3.4", "the message is too large")
}

/// For an address that the transaction does not allow (RFC 6531 section 3.5).
pub(super) fn needs_smtputf8() -> Reply {
    Reply::new(553, "5.6.7", "such an address needs SMTPUTF8")
}

/// For a parameter that no offered extension knows.
pub(super) fn unknown_parameter(parameter: &str) -> Reply {
    Reply::new(555, "5.5.4", format!("unknown parameter: {parameter}"))
}

/// Whether `value` is one of `known`, in any case.
pub(super) fn is_one_of(value: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(value))
}

/// The path after `keyword` (in any case) without its angle brackets, and the parameters behind it.
pub fn split_path<'t>(rest: &'t str, keyword: &str) -> Option<(&'t str, &'t str)> {
    let (head, rest) = rest.split_at_checked(keyword.len())?;
    let rest = rest.trim_start().strip_prefix('<').filter(|_| head.eq_ignore_ascii_case(keyword))?;
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in rest.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some((rest.get(..at)?, rest.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

/// The address of a MAIL or RCPT as rules see it; empty for the null sender and for what is no address.
pub(super) fn path_of(rest: &str) -> &str {
    let path = rest.find(':').and_then(|colon| split_path(rest, &rest[..=colon]));
    path.map_or("", |(path, _)| path)
}

/// Reads `n` or `n LAST`.
pub fn parse_chunk(rest: &str) -> Option<(u64, bool)> {
    let mut words = rest.split_ascii_whitespace();
    let octets =
        words.next().filter(|word| word.bytes().all(|octet| octet.is_ascii_digit()))?.parse().ok()?;
    match (words.next(), words.next()) {
        (None, None) => Some((octets, false)),
        (Some(last), None) if last.eq_ignore_ascii_case("LAST") => Some((octets, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_end_at_their_own_bracket() {
        for (rest, parts) in [
            ("FROM:<a@x>", Some(("a@x", ""))),
            ("from: <a@x> SIZE=1", Some(("a@x", " SIZE=1"))),
            ("FROM:<>", Some(("", ""))),
            (r#"FROM:<"a>b"@x> Y"#, Some((r#""a>b"@x"#, " Y"))),
            (r#"FROM:<"a\">b"@x>"#, Some((r#""a\">b"@x"#, ""))),
            ("FROM:a@x", None),
            ("FROM:<a@x", None),
            ("FRÖM:<a@x>", None),
            ("", None),
        ] {
            assert_eq!(split_path(rest, "FROM:"), parts, "{rest}");
        }
        assert_eq!(path_of("TO:<a@x> NOTIFY=NEVER"), "a@x");
        assert_eq!(path_of("nonsense"), "");
    }

    #[test]
    fn chunks_are_counted_strictly() {
        for (rest, chunk) in [
            ("0 LAST", Some((0, true))),
            ("22 last", Some((22, true))),
            ("22", Some((22, false))),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("22 MORE", None),
            ("22 LAST x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_chunk(rest), chunk, "{rest:?}");
        }
    }
}
