//! TERM, INT and HUP while a message is delivered.
//!
//! - Owns: when a signal ends the process, and when it has to wait.
//! - Leaves to others: signals while the message is read (`stdin`).
//! - Always true: before the end of a message leaves for the first time a signal ends the process at once, and nobody got
//!   anything. From then on somebody may have the mail: what runs is carried to its end, so that the exit code is true, and
//!   nothing more begins. A second signal ends the process in any case, also while nobody reads what it has to say.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::results::say_without_waiting;
use crate::cli::sendmail::die_as_told;
use crate::cli::sendmail::options::Role;
use crate::cli::sendmail::stdin::{Stdin, Stopped};

/// timeout(1) sends its signal to a command, and then to the command's group: two of a kind within this time are one.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// What the thread that waits for signals and the one that delivers know of each other.
#[derive(Clone, Debug)]
pub(super) struct Signals(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The end of a message has left, or is about to.
    may_be_delivered: bool,
    /// Which signal came, and when, that waits for the end.
    told: Option<(Option<i32>, Instant)>,
}

impl Signals {
    /// Waits for signals in a thread of its own from now on, one that has come already included.
    pub(super) fn take_over(role: Role, stdin: Stdin) -> io::Result<Self> {
        let signals = Self(Arc::default());
        let (bell, stopped) = stdin.into_bell();
        let shared = signals.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || shared.listen(role, bell, &stopped))?;
        Ok(signals)
    }

    fn listen(&self, role: Role, mut bell: File, stopped: &Stopped) {
        let mut ring = [0];
        while bell.read_exact(&mut ring).is_ok() {
            // Held until the process has ended: nothing can leave meanwhile.
            let mut state = self.state();
            let same = |(signal, at): (_, Instant)| signal == stopped.by() && at.elapsed() < SAME_SIGNAL;
            if state.told.is_some_and(same) {
                continue;
            }
            if state.told.is_some() {
                say_without_waiting(&format!(
                    "{}: ended by a second signal; recipients who are not named above may have the mail, and get it \
                     twice if it is sent again",
                    role.name()
                ));
            }
            if state.told.is_some() || !state.may_be_delivered {
                die_as_told(stopped);
            }
            state.told = Some((stopped.by(), Instant::now()));
            say_without_waiting(&format!(
                "{}: a signal came when the mail had left; the server's answer is waited for, unless another signal \
                 comes",
                role.name()
            ));
        }
    }

    /// The end of a message is about to leave. An error means that it must not.
    pub(super) fn point_of_no_return(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.told.is_some() {
            return Err(io::Error::other("a signal came"));
        }
        state.may_be_delivered = true;
        Ok(())
    }

    /// Whether a signal waits for the end.
    pub(super) fn is_told(&self) -> bool {
        self.state().told.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
