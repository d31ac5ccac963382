//! Becoming the owner of the queue.
//!
//! - Owns: the change of identity that root makes before it touches a queue.
//! - Leaves to others: who the caller is, and what they may (`sendmail`, `queue`).
//! - Always true: what root would write in the queue nobody else could move, and what others can write there root
//!   should not touch; so root is nobody special there.

use std::path::Path;

use nix::unistd::{Gid, Uid};

use crate::spool::{Spool, SpoolError};

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is at fault.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The system does not let root become its owner.
    #[error("cannot become uid {uid}: {error}")]
    Become {
        /// Whom.
        uid: u32,
        /// What the system said.
        error: nix::Error,
    },
}

/// Opens the queue, for root as the queue's owner, whom this process stays from now on. A root that may not change its
/// uid (in some containers) stays what it is.
pub fn open_as_owner(path: &Path) -> Result<Spool, OpenError> {
    let spool = Spool::open(path)?;
    let (user, group) = spool.owner();
    if !Uid::effective().is_root() || user.is_root() {
        return Ok(spool);
    }
    match become_user(Uid::from_raw(user.as_raw()), Gid::from_raw(group.as_raw())) {
        Ok(()) => Ok(Spool::open(path)?),
        Err(nix::Error::EPERM | nix::Error::EINVAL) => Ok(spool),
        Err(error) => Err(OpenError::Become { uid: user.as_raw(), error }),
    }
}

/// Groups first: afterwards there is no right to change them.
fn become_user(user: Uid, group: Gid) -> nix::Result<()> {
    nix::unistd::setgroups(&[group])?;
    nix::unistd::setgid(group)?;
    nix::unistd::setuid(user)
}
