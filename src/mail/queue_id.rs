//! Queue IDs: the name of a message in the queue, the log and its file.

use std::fmt;
use std::str::FromStr;

use super::text::serde_as_text;

const LENGTH_MAX: usize = 30;
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";

/// The name of a message: letters and digits, at most 30. Ours have 20; Postfix's are shorter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    length: u8,
    text: [u8; LENGTH_MAX],
}

impl QueueId {
    /// A new ID: 11 characters of time, so that names sort by arrival, and 9 of randomness, so that they are
    /// never used twice.
    pub fn new(microseconds: u64, random: u64) -> Self {
        let mut text = [0; LENGTH_MAX];
        for (at, octet) in text[..11].iter_mut().enumerate() {
            *octet = BASE32[(microseconds >> (5 * (10 - at)) & 31) as usize];
        }
        for (at, octet) in text[11..20].iter_mut().enumerate() {
            *octet = BASE32[(random >> (5 * at) & 31) as usize];
        }
        Self { length: 20, text }
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl FromStr for QueueId {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name.is_empty() || name.len() > LENGTH_MAX || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err("a queue ID is 1 to 30 letters and digits");
        }
        let mut text = [0; LENGTH_MAX];
        text[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self { length: name.len() as u8, text })
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

serde_as_text!(QueueId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_hold_20_characters() {
        let (first, second) =
            (QueueId::new(1_795_000_000_000_000, u64::MAX), QueueId::new(1_795_000_000_000_001, 0));
        assert!(first < second);
        assert_eq!((first.as_str().len(), second.as_str().len()), (20, 20));
        assert_eq!(first.to_string().parse(), Ok(first));
    }

    #[test]
    fn a_name_that_could_leave_the_directory_is_no_id() {
        for name in ["", ".", "..", "a/b", "a.in", "A-B", &"A".repeat(31)] {
            assert!(name.parse::<QueueId>().is_err(), "{name:?}");
        }
    }
}
