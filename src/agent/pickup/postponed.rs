//! What could not be queued for want of room, and is tried again a minute later.
//!
//! - Owns: how often such a file is tried and talked about, and the envelopes of bare ones, which no listing brings
//!   back.
//! - Always true: one user's files, however many, put off nobody else's; trying wakes nobody: giving a file its name
//!   back looks to inotify like a new one, and would be tried again at once, for ever.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use crate::queue::job::IncomingName;
use crate::spool::{Draft, Fingerprint};

/// Time between two tries of one file.
const AGAIN: Duration = Duration::from_secs(60);
/// Files of one user that are remembered; a user with more of them is left alone for a while.
const NAMES_MAX: usize = 1000;
/// Users that are remembered; with more of them nothing is tried for a while.
const USERS_MAX: usize = 100;
/// Job lines that are kept for another try.
const DRAFTS_MAX: usize = 1000;
/// Recipients of theirs, together. Of one line alone there may be more.
const RECIPIENTS_MAX: usize = 100_000;
/// Files that the log speaks of in a minute.
const SAID_MAX: usize = 10;

/// Whose a file is; `None`: it is claimed, and nobody's any more.
type Owner = Option<u32>;

/// Files of `incoming/` that wait for room.
#[derive(Debug, Default)]
pub(super) struct Postponed {
    users: HashMap<Owner, User>,
    /// There are too many users: nothing is tried before this.
    not_before: Option<Instant>,
    drafts: VecDeque<Kept>,
    /// Of all drafts.
    recipients: usize,
}

/// One user's files that wait.
#[derive(Debug, Default)]
struct User {
    names: HashMap<OsString, Instant>,
    /// There are too many names: none of this user's is tried before this.
    not_before: Option<Instant>,
}

impl User {
    fn may_try(&self, name: &OsStr) -> bool {
        !is_ahead(self.not_before) && self.names.get(name).is_none_or(|since| !is_recent(*since))
    }
}

fn is_ahead(moment: Option<Instant>) -> bool {
    moment.is_some_and(|moment| Instant::now() < moment)
}

fn is_recent(since: Instant) -> bool {
    since.elapsed() < AGAIN
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
    pub(super) fn may_try(&self, owner: Owner, name: &OsStr) -> bool {
        !is_ahead(self.not_before) && self.users.get(&owner).is_none_or(|user| user.may_try(name))
    }

    /// Remembers a file that could not be queued; whether the log should speak of it.
    pub(super) fn add(&mut self, owner: Owner, name: &OsStr) -> bool {
        let all = self.users.values().flat_map(|user| user.names.values());
        let recently = all.filter(|since| is_recent(**since)).take(SAID_MAX).count();
        if self.users.len() >= USERS_MAX && !self.users.contains_key(&owner) {
            self.users.clear();
            self.not_before = Some(Instant::now() + AGAIN);
        }
        let user = self.users.entry(owner).or_default();
        if user.names.len() >= NAMES_MAX {
            user.names.clear();
            user.not_before = Some(Instant::now() + AGAIN);
        }
        let before = user.names.insert(name.to_owned(), Instant::now());
        !before.is_some_and(is_recent) && recently < SAID_MAX
    }

    /// Keeps the envelope of a bare message in the place of an older one for that name; `false` if there are too many,
    /// and its job line has to be written again.
    pub(super) fn keep(&mut self, name: &IncomingName, file: Fingerprint, draft: Box<Draft>) -> bool {
        self.forget(name);
        let recipients = self.recipients + draft.recipients.len();
        let has_room =
            self.drafts.is_empty() || self.drafts.len() < DRAFTS_MAX && recipients <= RECIPIENTS_MAX;
        if has_room {
            self.recipients = recipients;
            self.drafts.push_back(Kept { since: Instant::now(), name: name.clone(), file, draft });
        }
        has_room
    }

    /// The file of this name was dealt with: what was kept for it is of no more use.
    pub(super) fn forget(&mut self, name: &IncomingName) {
        let recipients = &mut self.recipients;
        self.drafts.retain(|kept| {
            let stays = kept.name != *name;
            *recipients -= if stays { 0 } else { kept.draft.recipients.len() };
            stays
        });
    }

    /// The envelopes whose time has come, with the file that each belongs to; forgets files that were not seen again.
    pub(super) fn due(&mut self) -> Vec<(IncomingName, Fingerprint, Box<Draft>)> {
        self.users.retain(|_, user| {
            user.names.retain(|_, since| since.elapsed() < 2 * AGAIN);
            !user.names.is_empty() || is_ahead(user.not_before)
        });
        let mut due = Vec::new();
        while self.drafts.front().is_some_and(|kept| kept.since.elapsed() >= AGAIN) {
            let Some(kept) = self.drafts.pop_front() else { break };
            self.recipients -= kept.draft.recipients.len();
            due.push((kept.name, kept.file, kept.draft));
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
    use crate::mail::Recipient;
    use crate::spool::Spool;

    const ANN: Owner = Some(1000);
    const MALLORY: Owner = Some(1001);

    #[test]
    fn a_file_is_not_tried_again_at_once_and_not_talked_about_for_ever() {
        let mut postponed = Postponed::default();
        let name = OsStr::new("a");
        assert!(postponed.may_try(ANN, name));
        assert!(postponed.add(ANN, name) && !postponed.add(ANN, name), "once a minute");
        assert!(!postponed.may_try(ANN, name) && postponed.may_try(ANN, OsStr::new("b")));
        assert!(postponed.may_try(None, name), "another file of that name");
        let said = (0..100).filter(|number| postponed.add(Some(*number), OsStr::new("c"))).count();
        assert_eq!(said, SAID_MAX - 1);
    }

    #[test]
    fn who_has_more_files_than_can_be_remembered_waits_alone() {
        let mut postponed = Postponed::default();
        for number in 0..=NAMES_MAX {
            postponed.add(MALLORY, OsStr::new(&number.to_string()));
        }
        assert!(!postponed.may_try(MALLORY, OsStr::new("one more")));
        assert!(postponed.may_try(ANN, OsStr::new("one more")));
    }

    #[test]
    fn with_more_users_than_can_be_remembered_nothing_is_tried() {
        let mut postponed = Postponed::default();
        for uid in 0..=USERS_MAX as u32 {
            postponed.add(Some(uid), OsStr::new("a"));
        }
        assert!(!postponed.may_try(ANN, OsStr::new("a")));
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

    #[test]
    fn envelopes_are_kept_for_so_many_recipients_in_all() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _lock) = Spool::prepare(directory.path(), None).unwrap();
        std::fs::write(directory.path().join("incoming/a"), "x").unwrap();
        let file = spool.fingerprint(OsStr::new("a")).unwrap();
        let name = |number: usize| IncomingName::new(&format!("a{number}")).unwrap();
        let draft = |recipients: usize| {
            let recipients = vec![Recipient::new(0, "b@y".parse().unwrap()); recipients];
            Box::new(Draft { recipients, ..Draft::default() })
        };
        let mut postponed = Postponed::default();
        for round in 0..2 {
            assert!(postponed.keep(&name(0), file, draft(RECIPIENTS_MAX - 10)), "{round}");
            assert!(!postponed.keep(&name(1), file, draft(11)), "{round}");
            assert!(postponed.keep(&name(1), file, draft(10)), "{round}");
            assert!(!postponed.keep(&name(2), file, draft(1)), "{round}");
            assert!(postponed.keep(&name(1), file, draft(9)), "in the place of the older one");
            assert!(postponed.keep(&name(2), file, draft(1)), "{round}");
            assert_eq!(postponed.drafts.len(), 3);
            // Once by name, once because their time has come.
            if round == 0 {
                (0..3).for_each(|number| postponed.forget(&name(number)));
            } else {
                postponed.drafts.iter_mut().for_each(|kept| kept.since -= AGAIN);
                assert_eq!(postponed.due().len(), 3);
            }
            assert_eq!(postponed.recipients, 0);
        }
        assert!(postponed.keep(&name(0), file, draft(RECIPIENTS_MAX + 1)), "one line alone is kept");
        assert!(!postponed.keep(&name(1), file, draft(1)));
    }
}
