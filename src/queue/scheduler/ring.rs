//! A queue of turns from whose middle an entry can leave.
//!
//! - Owns: the order of entries.
//! - Leaves to others: what a turn gives.
//! - Always true: every operation takes logarithmic time, also where 100,000 entries wait.

use std::collections::BTreeMap;

/// The place of an entry in its ring; never used twice within one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Turn(i64);

/// Entries that take turns.
#[derive(Debug)]
pub(super) struct Ring<T> {
    entries: BTreeMap<Turn, T>,
    first: i64,
    last: i64,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), first: 0, last: 0 }
    }
}

impl<T> Ring<T> {
    /// Lines an entry up behind all others.
    pub(super) fn push_back(&mut self, entry: T) -> Turn {
        self.last += 1;
        self.entries.insert(Turn(self.last), entry);
        Turn(self.last)
    }

    /// Lets an entry go before all others.
    pub(super) fn push_front(&mut self, entry: T) -> Turn {
        let turn = Turn(self.first);
        self.first -= 1;
        self.entries.insert(turn, entry);
        turn
    }

    /// Takes the entry whose turn it is.
    pub(super) fn pop_front(&mut self) -> Option<T> {
        self.entries.pop_first().map(|(_, entry)| entry)
    }

    /// The entry whose turn it is, to be changed in its place.
    pub(super) fn front_mut(&mut self) -> Option<(Turn, &mut T)> {
        self.entries.first_entry().map(|entry| (*entry.key(), entry.into_mut()))
    }

    /// Takes the entry that lined up last.
    pub(super) fn pop_back(&mut self) -> Option<T> {
        self.entries.pop_last().map(|(_, entry)| entry)
    }

    /// Takes an entry out, wherever it stands.
    pub(super) fn remove(&mut self, turn: Turn) -> Option<T> {
        self.entries.remove(&turn)
    }

    /// An entry, wherever it stands.
    pub(super) fn get_mut(&mut self, turn: Turn) -> Option<&mut T> {
        self.entries.get_mut(&turn)
    }

    /// All entries, the one whose turn it is first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.values()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_take_turns_and_may_leave_or_go_first() {
        let mut ring = Ring::default();
        let [_, b, _] = ["a", "b", "c"].map(|entry| ring.push_back(entry));
        ring.push_front("first");
        assert_eq!(ring.remove(b), Some("b"));
        assert_eq!(ring.remove(b), None);
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), ["first", "a", "c"]);
        assert_eq!((ring.pop_front(), ring.pop_back(), ring.len()), (Some("first"), Some("c"), 1));
    }
}
