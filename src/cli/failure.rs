//! How the commands that look at the queue fail: one sentence, and a code of sysexits(3).
//!
//! - Owns: which failure has which code.
//! - Leaves to others: sendmail's failures, which its callers go by in more detail (`sendmail`).

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use super::control_client::ClientError;
use super::identity::OpenError;
use super::{EX_CONFIG, EX_IOERR, EX_NOPERM, EX_OSERR, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE};
use crate::agent::queue_control::RefusalCode;
use crate::config::ConfigError;
use crate::spool::SpoolError;

/// A message was named that is not there.
pub const EX_NOT_FOUND: u8 = 1;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// `None`: there is nobody to tell it, or it has been told.
    text: Option<String>,
}

impl Failure {
    /// A failure in words.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: Some(text.into()) }
    }

    /// A failure of which everything is said already.
    pub fn silent(code: u8) -> Self {
        Self { code, text: None }
    }

    /// Says it on standard error, after the command's name; returns the exit code.
    pub fn tell(&self, command: &str) -> ExitCode {
        if let Some(text) = &self.text {
            // If nobody can read it, the exit code still says the same.
            let _ = writeln!(io::stderr(), "{command}: {text}");
        }
        self.code.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.as_deref().unwrap_or_default())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(EX_CONFIG, error.in_one_line())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Spool(
                SpoolError::NoQueue(_) | SpoolError::Incomplete { .. } | SpoolError::Locked { .. },
            ) => EX_UNAVAILABLE,
            OpenError::Spool(SpoolError::Unsafe { .. }) => EX_CONFIG,
            OpenError::Spool(SpoolError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                EX_NOPERM
            }
            OpenError::Spool(SpoolError::Io { .. }) => EX_IOERR,
            OpenError::Become { .. } => EX_OSERR,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            // Somebody closed the pipe, as head(1) does: nobody is left to tell, and nothing is wrong.
            ClientError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Self::silent(0);
            }
            ClientError::Output(_) | ClientError::Content(_) => EX_IOERR,
            ClientError::NoAgent(_) => EX_UNAVAILABLE,
            ClientError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => EX_NOPERM,
            ClientError::Io { .. } | ClientError::Unanswered(_) => EX_UNAVAILABLE,
            ClientError::Refused(refusal) => match refusal.code {
                RefusalCode::NotPermitted => EX_NOPERM,
                RefusalCode::NotFound => EX_NOT_FOUND,
                RefusalCode::BadRequest | RefusalCode::BadMessage => EX_USAGE,
                RefusalCode::TooLarge => EX_UNAVAILABLE,
                RefusalCode::Temporary | RefusalCode::Busy => EX_TEMPFAIL,
            },
        };
        Self::new(code, error.to_string())
    }
}
