//! Patterns for addresses.
//!
//! - Owns: what `*` and `?` stand for.
//! - Leaves to others: which rule has a pattern (`script`).
//! - Always true: the time is bounded by the product of the lengths.

/// Whether `text` fits `pattern`, without regard to case. Goes back only to the last `*`, so that the time is
/// bounded by the product of the lengths.
pub fn pattern_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut retry) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, t));
            }
            Some(&octet) if octet == b'?' || octet.eq_ignore_ascii_case(&text[t]) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                (p, t) = (star, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|&octet| octet == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_addresses() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("*", "a@x", true),
            ("a@*", "A@example", true),
            ("a@*", "ba@example", false),
            ("*@x", "a@x", true),
            ("*@x", "a@xy", false),
            ("*a*a*", "xaya", true),
            ("?@x", "a@x", true),
            ("?@x", "@x", false),
            ("", "", true),
            ("", "a@x", false),
        ] {
            assert_eq!(pattern_matches(pattern, text), matches, "{pattern:?} {text:?}");
        }
    }
}
