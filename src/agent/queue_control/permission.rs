//! Who may ask what. PURE.
//!
//! - Owns: the one place where it is decided.
//! - Leaves to others: finding out who asks (the kernel tells), whom a nexthop is believed of (`pickup`).
//! - Always true: who asks is a uid that the caller cannot choose; a message is somebody's by the origin in its
//!   envelope, which nobody but the agent writes.

use super::protocol::{Refusal, RefusalCode, Request};
use crate::agent::control::Action;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    uid: u32,
    is_privileged: bool,
}

impl Caller {
    /// The process at the other end of a socket; `owner` is the agent's user.
    pub fn new(uid: u32, owner: u32) -> Self {
        Self { uid, is_privileged: uid == 0 || uid == owner }
    }

    /// Whoever holds the agent's lock: only root and the queue's owner can.
    pub fn holding_the_lock(uid: u32) -> Self {
        Self { uid, is_privileged: true }
    }

    /// The user.
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// Root, or the agent's user.
    pub fn is_privileged(self) -> bool {
        self.is_privileged
    }

    /// Who submits, in an envelope.
    pub fn origin(self) -> String {
        format!("uid={}", self.uid)
    }

    /// Whether a message of that origin may be shown.
    pub fn may_see(self, origin: &str) -> bool {
        self.is_privileged || origin == self.origin()
    }

    /// Whether the question may be asked at all. `list` and `show` then tell only what [`Caller::may_see`] allows.
    pub fn may_ask(self, request: &Request) -> Result<(), Refusal> {
        let action = match request {
            Request::Act { action, .. } => *action,
            Request::DeleteDropped { .. } => Action::Delete,
            Request::Status {}
            | Request::List {}
            | Request::Show { .. }
            | Request::ShowDropped { .. }
            | Request::Submit(_) => return Ok(()),
        };
        if self.is_privileged {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::NotPermitted,
            format!(
                "uid {} may not {action} messages: root and the agent's user may; nothing was changed",
                self.uid
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Selection;
    use super::*;

    #[test]
    fn everybody_sees_their_own_and_privileged_callers_everything() {
        for (uid, origin, may) in [
            (0, "uid=1000", true),
            (25, "uid=1000", true),
            (25, "bounce", true),
            (1000, "uid=1000", true),
            (1000, "uid=100", false),
            (100, "uid=1000", false),
            (1000, "uid=10000", false),
            (1000, "bounce", false),
            (1000, "", false),
            (1000, "uid=1000 ", false),
        ] {
            assert_eq!(Caller::new(uid, 25).may_see(origin), may, "{uid} {origin:?}");
        }
    }

    #[test]
    fn only_privileged_callers_change_anything() {
        let show = Request::Show { id: "A".parse().unwrap(), content: true };
        for request in [Request::Status {}, Request::List {}, show] {
            assert_eq!(Caller::new(1000, 25).may_ask(&request), Ok(()));
        }
        let dropped = Request::DeleteDropped { names: vec!["a".into()] };
        assert_eq!(Caller::new(1000, 25).may_ask(&dropped).unwrap_err().code, RefusalCode::NotPermitted);
        assert_eq!(Caller::new(25, 25).may_ask(&dropped), Ok(()));
        for action in Action::ALL {
            for messages in [Selection::ALL, Selection::These(Vec::new())] {
                let request = Request::Act { action, messages };
                assert_eq!(Caller::new(0, 25).may_ask(&request), Ok(()));
                assert_eq!(Caller::new(25, 25).may_ask(&request), Ok(()));
                let refusal = Caller::new(1000, 25).may_ask(&request).unwrap_err();
                assert_eq!(refusal.code, RefusalCode::NotPermitted);
                assert!(refusal.text.contains("uid 1000") && refusal.text.contains(&action.to_string()));
            }
        }
    }
}
