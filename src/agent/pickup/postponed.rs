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
use crate::spool::{Draft, Fingerprint};

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
    /// There are too many names: nothing is tried before this.
    not_before: Option<Instant>,
    drafts: VecDeque<Kept>,
}

/// The envelope of a bare message, from its job line.
#[derive(Debug)]
struct Kept {
    since: Instant,
    name: IncomingName,
    /// The file that the line spoke of. A later one of its name is another message.
    file: Fingerprint,
    draft: Box<Draft>,
}

impl Postponed {
    /// Whether a file may be tried now.
    pub(super) fn may_try(&self, name: &OsStr) -> bool {
        let too_many = self.not_before.is_some_and(|moment| Instant::now() < moment);
        !too_many && self.names.get(name).is_none_or(|since| since.elapsed() >= AGAIN)
    }

    /// Remembers a file that could not be queued; whether the log should speak of it.
    pub(super) fn add(&mut self, name: &OsStr) -> bool {
        let is_recent = |since: &&Instant| since.elapsed() < AGAIN;
        let was_recent = self.names.get(name).as_ref().is_some_and(is_recent);
        let recently = self.names.values().filter(is_recent).take(SAID_MAX).count();
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
            self.not_before = Some(Instant::now() + AGAIN);
        }
        self.names.insert(name.to_owned(), Instant::now());
        !was_recent && recently < SAID_MAX
    }

    /// Keeps the envelope of a bare message in the place of an older one for that name; `false` if there are too many,
    /// and its job line has to be written again.
    pub(super) fn keep(&mut self, name: &IncomingName, file: Fingerprint, draft: Box<Draft>) -> bool {
        self.forget(name);
        let has_room = self.drafts.len() < DRAFTS_MAX;
        if has_room {
            self.drafts.push_back(Kept { since: Instant::now(), name: name.clone(), file, draft });
        }
        has_room
    }

    /// The file of this name was dealt with: what was kept for it is of no more use.
    pub(super) fn forget(&mut self, name: &IncomingName) {
        self.drafts.retain(|kept| kept.name != *name);
    }

    /// The envelopes whose time has come, with the file that each belongs to; forgets files that were not seen again.
    pub(super) fn due(&mut self) -> Vec<(IncomingName, Fingerprint, Box<Draft>)> {
        self.names.retain(|_, since| since.elapsed() < 2 * AGAIN);
        let mut due = Vec::new();
        while self.drafts.front().is_some_and(|kept| kept.since.elapsed() >= AGAIN) {
            due.extend(self.drafts.pop_front().map(|kept| (kept.name, kept.file, kept.draft)));
        }
        due
    }

    /// Whose envelopes are kept; the first few.
    pub(super) fn names_of_drafts(&self) -> impl Iterator<Item = &IncomingName> {
        self.drafts.iter().map(|kept| &kept.name).take(SAID_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Spool;

    #[test]
    fn a_file_is_not_tried_again_at_once_and_not_talked_about_for_ever() {
        let mut postponed = Postponed::default();
        let name = OsStr::new("a");
        assert!(postponed.may_try(name));
        assert!(postponed.add(name) && !postponed.add(name), "once a minute");
        assert!(!postponed.may_try(name));
        let said = (0..100).filter(|number| postponed.add(OsStr::new(&number.to_string()))).count();
        assert_eq!(said, SAID_MAX - 1);
    }

    #[test]
    fn more_files_than_can_be_remembered_are_not_tried_at_all() {
        let mut postponed = Postponed::default();
        for number in 0..=NAMES_MAX {
            postponed.add(OsStr::new(&number.to_string()));
        }
        assert!(!postponed.may_try(OsStr::new("one more")));
    }

    #[test]
    fn one_envelope_is_kept_for_a_name_and_not_due_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _lock) = Spool::prepare(directory.path(), None).unwrap();
        std::fs::write(directory.path().join("incoming/a"), "x").unwrap();
        let file = spool.fingerprint(OsStr::new("a")).unwrap();
        let name = |number: usize| IncomingName::new(&format!("a{number}")).unwrap();
        let mut postponed = Postponed::default();
        assert!(
            postponed.keep(&name(0), file, Box::default()) && postponed.keep(&name(0), file, Box::default())
        );
        assert_eq!(postponed.drafts.len(), 1);
        postponed.forget(&name(0));
        let is_kept = |number: &usize| postponed.keep(&name(*number), file, Box::default());
        let kept = (0..DRAFTS_MAX + 5).filter(is_kept).count();
        assert_eq!((kept, postponed.due().len()), (DRAFTS_MAX, 0));
    }
}
