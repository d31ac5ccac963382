//! Nouns in JSON, as the text that people write; and what is shown of texts that others have written.

use std::borrow::Cow;

/// Serializes through `Display`, and reads back through `FromStr`.
macro_rules! serde_as_text {
    ($($noun:ty),*) => { $(
        impl serde::Serialize for $noun {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $noun {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )* };
}

pub(super) use serde_as_text;

/// Octets shown of the beginning of a text that is too long to be shown whole.
const BEGINNING_MAX: usize = 200;
/// Octets shown of its end: a parser says there where the mistake is.
const END_MAX: usize = 80;

/// A text as a sentence for people can hold it: of a long one its beginning and its end. What others have written can
/// be a whole megabyte, which a parser repeats in its error, and no such line belongs in a log.
pub fn shortened(text: &str) -> String {
    if text.len() <= BEGINNING_MAX + END_MAX {
        return text.to_owned();
    }
    let (beginning, end) =
        (text.floor_char_boundary(BEGINNING_MAX), text.ceil_char_boundary(text.len() - END_MAX));
    format!("{}...{}", text.get(..beginning).unwrap_or_default(), text.get(end..).unwrap_or_default())
}

/// Octets of others as a log can hold them: control characters, and octets that are no UTF-8, become question marks.
pub fn printable(octets: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(octets) {
        Ok(text) if !text.chars().any(char::is_control) => Cow::Borrowed(text),
        _ => {
            let mut shown = String::with_capacity(octets.len());
            for chunk in octets.utf8_chunks() {
                shown.extend(chunk.valid().chars().map(|c| if c.is_control() { '?' } else { c }));
                shown.extend(chunk.invalid().iter().map(|_| '?'));
            }
            Cow::Owned(shown)
        }
    }
}

/// Whether two texts are the same when case is folded, that of letters beyond ASCII included.
pub fn same_but_for_case(one: &str, other: &str) -> bool {
    // There and back, so that letters with two lower cases, or with two letters as upper case, are equal too.
    let folded = |text: &str| -> String {
        text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
    };
    one.eq_ignore_ascii_case(other) || (!(one.is_ascii() && other.is_ascii()) && folded(one) == folded(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_cannot_hold_becomes_question_marks() {
        for (octets, shown) in [
            (&b"a@x"[..], "a@x"),
            ("\u{e9}@x".as_bytes(), "\u{e9}@x"),
            (b"a\tb\r\n\x7f", "a?b???"),
            (b"\xe9@x\xe2\x82", "?@x??"),
            ("\u{9b}x".as_bytes(), "?x"),
        ] {
            assert_eq!(printable(octets), shown, "{octets:?}");
        }
    }

    #[test]
    fn case_is_folded_beyond_ascii() {
        for (one, other, same) in [
            ("a@x", "A@X", true),
            ("a@x", "b@x", false),
            ("\u{e9}@x", "\u{c9}@x", true),
            ("\u{e9}@x", "e@x", false),
            ("stra\u{df}e", "STRASSE", true),
            ("\u{3c3}", "\u{3c2}", true),
        ] {
            assert_eq!(same_but_for_case(one, other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        for text in ["", "a", &"ä".repeat(140)] {
            assert_eq!(shortened(text), text);
        }
        let long = format!("x{} at column 5", "ä".repeat(1 << 19));
        let short = shortened(&long);
        assert!(
            short.starts_with("xää") && short.ends_with("ä at column 5") && short.contains("ä...ä"),
            "{short}"
        );
        assert!(short.len() <= BEGINNING_MAX + END_MAX + 3);
    }
}
