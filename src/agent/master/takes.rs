//! Files of `incoming/` named by job lines that the pickup thread has not come to yet.
//!
//! - Owns: how many there may be, and how much memory their envelopes may take.
//! - Leaves to others: the errands themselves (`pickup`).
//! - Always true: the pickup thread answers them in the order in which they were sent.

use std::collections::VecDeque;

use crate::spool::Draft;

/// Files.
const TAKES_MAX: usize = 256;
/// Recipients of their envelopes, together. A job line may name more than a hundred thousand, and one is always read.
const RECIPIENTS_MAX: usize = 100_000;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Takes {
    /// Recipients of each, in the order in which they were sent.
    under_way: VecDeque<usize>,
    recipients: usize,
}

impl Takes {
    /// Another one is sent.
    pub(super) fn begin(&mut self, draft: Option<&Draft>) {
        let recipients = draft.map_or(0, |draft| draft.recipients.len());
        self.under_way.push_back(recipients);
        self.recipients += recipients;
    }

    /// The oldest has been answered.
    pub(super) fn end(&mut self) {
        self.recipients -= self.under_way.pop_front().unwrap_or(0);
    }

    /// Whether more job lines may be read.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < TAKES_MAX && self.recipients < RECIPIENTS_MAX
    }

    /// Whether all have been answered.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Recipient;

    fn with(recipients: usize) -> Draft {
        let recipients = vec![Recipient::new(0, "b@y".parse().unwrap()); recipients];
        Draft { recipients, ..Draft::default() }
    }

    #[test]
    fn few_files_with_many_recipients_fill_it_as_many_files_do() {
        let mut takes = Takes::default();
        for draft in [None, Some(with(1))] {
            (0..TAKES_MAX).for_each(|_| takes.begin(draft.as_ref()));
            assert!(!takes.has_room());
            takes.end();
            assert!(takes.has_room());
            (1..TAKES_MAX).for_each(|_| takes.end());
            assert!(takes.is_empty());
        }
        let (large, small) = (with(RECIPIENTS_MAX - 1), with(1));
        takes.begin(Some(&large));
        assert!(takes.has_room());
        takes.begin(Some(&small));
        assert!(!takes.has_room(), "a hundred thousand recipients are enough");
        takes.end();
        assert!(takes.has_room(), "the large one was the first");
        takes.end();
        assert!(takes.has_room() && takes.is_empty());
    }
}
