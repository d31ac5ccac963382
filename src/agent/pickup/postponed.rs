//! What could not be queued for want of room, and is tried again a minute later.
//!
//! - Owns: how often such a file is tried and talked about, and the envelopes of bare ones, which no listing brings
//!   back.
//! - Always true: trying wakes nobody: giving a file its name back looks to inotify like a new one, and would be
//!   tried again at once, for ever.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use crate::queue::job::IncomingName;
use crate::spool::Draft;

/// Time between two tries of one file.
const AGAIN: Duration = Duration::from_secs(60);
/// Files that are remembered; with more of them all are tried again early.
const NAMES_MAX: usize = 10_000;
/// Job lines that are kept for another try.
const DRAFTS_MAX: usize = 1000;
/// Files that the log speaks of in a minute.
const SAID_MAX: usize = 10;

/// Files of `incoming/` that wait for room.
#[derive(Debug, Default)]
pub(super) struct Postponed {
    names: HashMap<OsString, Instant>,
    drafts: VecDeque<(Instant, IncomingName, Box<Draft>)>,
}

impl Postponed {
    /// Whether a file may be tried now.
    pub(super) fn may_try(&self, name: &OsStr) -> bool {
        self.names.get(name).is_none_or(|since| since.elapsed() >= AGAIN)
    }

    /// Remembers a file that could not be queued; whether the log should speak of it.
    pub(super) fn add(&mut self, name: &OsStr) -> bool {
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        let recently = self.names.values().filter(|since| since.elapsed() < AGAIN).take(SAID_MAX).count();
        self.names.insert(name.to_owned(), Instant::now());
        recently < SAID_MAX
    }

    /// Keeps the envelope of a bare message; `false` if there are too many, and its job line has to be written again.
    pub(super) fn add_draft(&mut self, name: IncomingName, draft: Box<Draft>) -> bool {
        let has_room = self.drafts.len() < DRAFTS_MAX;
        if has_room {
            self.drafts.push_back((Instant::now(), name, draft));
        }
        has_room
    }

    /// The envelopes whose time has come, and forgets files that were not seen again.
    pub(super) fn due(&mut self) -> Vec<(IncomingName, Box<Draft>)> {
        self.names.retain(|_, since| since.elapsed() < 2 * AGAIN);
        let mut due = Vec::new();
        while self.drafts.front().is_some_and(|(since, ..)| since.elapsed() >= AGAIN) {
            due.extend(self.drafts.pop_front().map(|(_, name, draft)| (name, draft)));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_not_tried_again_at_once_and_not_talked_about_for_ever() {
        let mut postponed = Postponed::default();
        let name = OsStr::new("a");
        assert!(postponed.may_try(name));
        assert!(postponed.add(name));
        assert!(!postponed.may_try(name));
        let said = (0..100).filter(|number| postponed.add(OsStr::new(&number.to_string()))).count();
        assert_eq!(said, SAID_MAX - 1);
    }

    #[test]
    fn envelopes_are_kept_up_to_a_limit_and_not_due_at_once() {
        let mut postponed = Postponed::default();
        let name = || IncomingName::new("a").unwrap();
        let kept = (0..DRAFTS_MAX + 5).filter(|_| postponed.add_draft(name(), Box::default())).count();
        assert_eq!((kept, postponed.due().len()), (DRAFTS_MAX, 0));
    }
}
