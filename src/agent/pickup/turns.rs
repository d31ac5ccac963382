//! Turns in `incoming/`: whoever drops thousands of files waits for them alone.
//!
//! - Owns: how many files of one user are taken before the listing begins again from its start.
//! - Leaves to others: the listing, and who owns a file (`listing`, `spool`).
//! - Always true: another round follows only where this one has taken something, so that a directory full of what
//!   cannot be taken comes to an end.

use std::collections::HashMap;

/// Files of one user in a round. Each costs two syncs of a disk, so another user's mail waits for about as many as
/// users have files in the crowd times this.
const SHARE: usize = 64;
/// One more for each so many that were passed over in the round before: in a crowd of a million, looking at the names
/// again and again would cost more than taking the files.
const CROWD: usize = 1024;

/// Who has had how much of the present round.
#[derive(Debug)]
pub(super) struct Turns {
    taken: HashMap<u32, usize>,
    share: usize,
    passed_over: usize,
}

impl Default for Turns {
    fn default() -> Self {
        Self { taken: HashMap::new(), share: SHARE, passed_over: 0 }
    }
}

impl Turns {
    /// Whether a file of this user is taken in this round.
    pub(super) fn may_take(&mut self, uid: u32) -> bool {
        let may = self.taken.get(&uid).is_none_or(|taken| *taken < self.share);
        self.passed_over += usize::from(!may);
        may
    }

    /// A file of this user was taken: queued, set aside or postponed. What stays where it is does not count: it would
    /// use up its owner's share again in each round.
    pub(super) fn took(&mut self, uid: u32) {
        *self.taken.entry(uid).or_default() += 1;
    }

    /// The listing has come to its end; whether another round follows.
    pub(super) fn end_round(&mut self) -> bool {
        let passed_over = self.passed_over;
        *self = Self { share: SHARE + passed_over / CROWD, ..Self::default() };
        passed_over > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what may be taken of files, given by their owners, round after round; who was served in each.
    fn rounds(mut files: Vec<u32>) -> Vec<Vec<u32>> {
        let (mut turns, mut rounds) = (Turns::default(), Vec::new());
        loop {
            let (taken, left): (Vec<_>, Vec<_>) = files.into_iter().partition(|&uid| {
                let may = turns.may_take(uid);
                if may {
                    turns.took(uid);
                }
                may
            });
            rounds.push(taken);
            files = left;
            if !turns.end_round() {
                assert!(files.is_empty());
                return rounds;
            }
        }
    }

    #[test]
    fn everybody_has_a_share_of_each_round() {
        let crowd = std::iter::repeat_n(1, 10 * SHARE).chain([2, 3, 2]).collect();
        let rounds = rounds(crowd);
        assert_eq!(rounds.len(), 10);
        assert_eq!(rounds[0].len(), SHARE + 3);
        assert!(rounds[1..].iter().all(|round| round.len() == SHARE));
    }

    #[test]
    fn a_few_files_are_one_round() {
        assert_eq!(rounds(Vec::new()).len(), 1);
        assert_eq!(rounds(vec![1; SHARE]).len(), 1);
        assert_eq!(rounds(vec![1; SHARE + 1]).len(), 2);
    }

    #[test]
    fn in_a_crowd_of_a_million_shares_are_larger() {
        let mut turns = Turns::default();
        (0..SHARE).for_each(|_| turns.took(1));
        assert!((0..1_000_000).all(|_| !turns.may_take(1)));
        assert!(turns.end_round());
        assert_eq!(turns.share, SHARE + 1_000_000 / CROWD);
        assert!(!turns.end_round(), "nobody was passed over in this one");
        assert_eq!(turns.share, SHARE);
    }

    #[test]
    fn what_cannot_be_taken_ends() {
        let mut turns = Turns::default();
        assert!((0..1000).all(|_| turns.may_take(1)));
        assert!(!turns.end_round());
    }
}
