//! The way to the queue: the running agent, or its lock.
//!
//! - Owns: which of the two it is, and what to say where it is neither.
//! - Leaves to others: the answers (`agent::queue_control`).
//! - Always true: no file is moved without the agent's lock, by it or by us.

use std::io;
use std::time::Duration;

use crate::agent::queue_control::{Caller, Executor, Hands, Line, Request};
use crate::cli::control_client::{Client, ClientError};
use crate::cli::failure::Failure;
use crate::cli::identity::open_as_owner;
use crate::cli::{EX_IOERR, EX_NOPERM, EX_UNAVAILABLE};
use crate::config::Config;
use crate::spool::{Lock, Spool, SpoolError};

/// Tries to reach an agent that holds the lock and does not listen: it may just be starting or stopping.
const TRIES: usize = 10;
/// Time between them.
const TRY_INTERVAL: Duration = Duration::from_millis(200);

/// The way to the queue.
pub(super) enum Access {
    /// The agent does it.
    Agent(Client),
    /// We do; no agent can start meanwhile.
    Ours { spool: Spool, caller: Caller, _lock: Lock },
}

impl Access {
    /// Finds the way. Without an agent, root becomes the queue's owner.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let queue = &config.queue_directory;
        let mut owned = None;
        for _ in 0..TRIES {
            match Client::connect(queue) {
                Ok(client) => return Ok(Self::Agent(client)),
                Err(ClientError::NoAgent(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let uid = rustix::process::getuid().as_raw();
            let spool = match owned.take() {
                Some(spool) => spool,
                None => open_as_owner(queue)?,
            };
            let caller = Caller::holding_the_lock(uid);
            match spool.lock().map_err(|error| not_without_agent(&spool, &error))? {
                Some(lock) => return Ok(Self::Ours { spool, caller, _lock: lock }),
                None => owned = Some(spool),
            }
            std::thread::sleep(TRY_INTERVAL);
        }
        let text = format!(
            "an agent or another command holds {}/agent.lock, but nobody answers at agent.sock beside it; nothing \
             was changed: try again, or restart the agent",
            queue.display()
        );
        Err(Failure::new(EX_UNAVAILABLE, text))
    }

    /// Asks, and gives each line of the answer but the last to `each`.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(Line) -> io::Result<()>,
    ) -> Result<(), Failure> {
        match self {
            Self::Agent(client) => client.ask(request, each).map_err(Failure::from),
            Self::Ours { spool, caller, .. } => {
                let executor = Executor { spool, hands: &Hands::Ours, caller: *caller };
                let mut refused = None;
                let mut say = |line| match line {
                    Line::End {} => Ok(()),
                    Line::Refused(refusal) => {
                        refused = Some(refusal);
                        Ok(())
                    }
                    line => each(line),
                };
                // Whoever does not want to wait ends this process.
                let result = executor.answer(request, &mut say, &|| Ok(()));
                result.map_err(ClientError::Output)?;
                refused.map_or(Ok(()), |refusal| Err(ClientError::Refused(refusal).into()))
            }
        }
    }
}

fn not_without_agent(spool: &Spool, error: &SpoolError) -> Failure {
    match error {
        SpoolError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Failure::new(
            EX_NOPERM,
            format!(
                "no agent is running, and without one only root and the queue's owner (uid {}) may look into {}: start \
                 the agent, or become one of them",
                spool.owner().0.as_raw(),
                spool.path().display()
            ),
        ),
        SpoolError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => Failure::new(
            EX_UNAVAILABLE,
            format!("no agent is running, and the queue is read-only for this process: {error}"),
        ),
        _ => Failure::new(EX_IOERR, error.to_string()),
    }
}
