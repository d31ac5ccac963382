//! Nouns in JSON, as the text that people write; and what is shown of texts that others have written.

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

#[cfg(test)]
mod tests {
    use super::*;

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
