//! How sendmail fails: one sentence for standard error and a code of sysexits(3), which callers go by.
//!
//! - Owns: which failure has which code, and which reply where SMTP is spoken.
//! - Always true: a failure means that nothing was queued or sent; where that cannot be known, its sentence says so.

use std::fmt;
use std::io;

use super::message::BadMessage;
use super::options::{Role, UsageError};
use crate::agent::queue_control::RefusalCode;
use crate::cli::control_client::ClientError;
use crate::cli::identity::OpenError;
use crate::config::ConfigError;
use crate::spool::{SpoolError, SubmitError};

/// How sentences about a message that stays out of the queue begin.
pub(super) const NOT_QUEUED: &str = "the message was not queued: ";
/// What is said where no message was to be.
const NOTHING: &str = "nothing was done";

/// What a command that was not understood has left undone.
pub(super) fn undone(role: Role) -> &'static str {
    match role {
        Role::Sendmail | Role::Smtpc => "the message was not sent",
        Role::Mailq | Role::Newaliases => NOTHING,
    }
}

/// The codes of sysexits(3) that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_DATAERR: an address or the header is wrong, or nobody is to get the message.
    Data = 65,
    /// EX_NOUSER: the caller has no name, or the server no such user.
    NoUser = 67,
    /// EX_NOHOST: the recipient's domain does not exist.
    NoHost = 68,
    /// EX_UNAVAILABLE: there is no queue, or the message is larger than it takes; or the server refused it for another
    /// reason than those that have codes. (Others use this code for large messages too, and what calls sendmail knows it.)
    Unavailable = 69,
    /// EX_SOFTWARE: the agent and this command do not understand each other.
    Software = 70,
    /// EX_OSERR: something that the system always gives was refused.
    System = 71,
    /// EX_CANTCREAT: no file could be made in the queue.
    CannotCreate = 73,
    /// EX_IOERR: reading the message or writing the file failed.
    Io = 74,
    /// EX_TEMPFAIL: the same may succeed later.
    Temporary = 75,
    /// EX_NOPERM: the caller may not do this.
    NoPermission = 77,
    /// EX_CONFIG: the configuration is wrong.
    Config = 78,
}

/// Why nothing was queued or sent.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    text: String,
    trouble: Trouble,
}

/// What SMTP has replies of its own for, and what has to be told in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The message is too large.
    Size,
    /// There is no room in the queue.
    Room,
    /// The message is queued or may be, and who sent it does not know.
    Kept,
    Other,
}

impl Failure {
    /// A failure in words.
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), trouble: Trouble::Other }
    }

    /// A failure to tell what became of a message.
    pub(super) fn of_answer(text: impl Into<String>) -> Self {
        Self { trouble: Trouble::Kept, ..Self::new(Code::Io, text) }
    }

    /// Whether the message is queued or may be, and who sent it does not know: then no signal is a reason to keep silent.
    pub(super) fn may_be_queued(&self) -> bool {
        self.trouble == Trouble::Kept
    }

    /// A command line that cannot be obeyed.
    pub(super) fn of_usage(role: Role, error: &UsageError) -> Self {
        let is_mode = matches!(error, UsageError::Unsupported { option, .. }
            if ["-b", "-q"].iter().any(|mode| option.starts_with(mode)));
        let what = if is_mode { NOTHING } else { undone(role) };
        Self::new(Code::Usage, format!("{what}: {error}; lastmile-sendmail(1) has the options"))
    }

    /// The code and enhanced status that answer a message with this failure (RFC 5321 section 4.2, RFC 3463). What
    /// is the message's own fault is permanent; all else may be mended, and is worth trying again.
    pub(super) fn reply_code(&self) -> (u16, &'static str) {
        match (self.trouble, self.code) {
            (Trouble::Size, _) => (552, "5.3.4"),
            (Trouble::Room, _) => (452, "4.3.1"),
            (Trouble::Other, Code::Usage | Code::Data) => (554, "5.6.0"),
            (Trouble::Kept | Trouble::Other, _) => (451, "4.3.0"),
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code as u8
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let text = error.in_one_line();
        Self::new(Code::Config, format!("{NOT_QUEUED}{text}"))
    }
}

impl From<BadMessage> for Failure {
    fn from(error: BadMessage) -> Self {
        Self::new(of_message(&error), format!("{NOT_QUEUED}{error}"))
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        let code = match &error {
            SpoolError::NoQueue(_) | SpoolError::Incomplete { .. } => Code::Unavailable,
            SpoolError::Io { source, .. } => of_system(source, Code::Io),
            SpoolError::Unsafe { .. } => Code::Config,
            SpoolError::Locked { .. } => Code::Temporary,
        };
        Self::new(code, format!("{NOT_QUEUED}{error}"))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Spool(error) => error.into(),
            OpenError::Become { .. } => Self::new(Code::System, format!("{NOT_QUEUED}{error}")),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::NoAgent(_) => Code::CannotCreate,
            ClientError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Code::NoPermission
            }
            // The caller sends it again: at least once.
            ClientError::Io { .. } | ClientError::Unanswered(_) => Code::Temporary,
            ClientError::Content(_) | ClientError::Output(_) => Code::Io,
            ClientError::Refused(refusal) => match refusal.code {
                RefusalCode::NotPermitted => Code::NoPermission,
                RefusalCode::TooLarge => Code::Unavailable,
                RefusalCode::BadMessage => Code::Data,
                RefusalCode::Temporary | RefusalCode::Busy => Code::Temporary,
                RefusalCode::BadRequest | RefusalCode::NotFound => Code::Software,
            },
        };
        let text = error.to_string();
        // A refusal of the agent's own spool says what became of the message already.
        let is_said = ["the message was", "the message may"].iter().any(|start| text.starts_with(start))
            || matches!(error, ClientError::Unanswered(_));
        let trouble = match &error {
            ClientError::Refused(refusal) if refusal.code == RefusalCode::TooLarge => Trouble::Size,
            ClientError::Unanswered(_) => Trouble::Kept,
            ClientError::Refused(_) if text.starts_with("the message may") => Trouble::Kept,
            _ => Trouble::Other,
        };
        Self { trouble, ..Self::new(code, if is_said { text } else { format!("{NOT_QUEUED}{text}") }) }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let code = match &error {
            SubmitError::TooLarge(_) => Code::Unavailable,
            SubmitError::Recipients(_) | SubmitError::Envelope(_) => Code::Data,
            // What is in doubt the caller sends again: at least once.
            SubmitError::NoRoom { .. } | SubmitError::InDoubt { .. } => Code::Temporary,
            SubmitError::Content(_) => Code::Io,
            SubmitError::Io { doing: "make", source, .. } => of_system(source, Code::CannotCreate),
            SubmitError::Io { source, .. } => of_system(source, Code::Io),
        };
        let trouble = match &error {
            SubmitError::TooLarge(_) => Trouble::Size,
            SubmitError::NoRoom { .. } => Trouble::Room,
            SubmitError::InDoubt { .. } => Trouble::Kept,
            SubmitError::Io { source, .. } if is_about_room(source) => Trouble::Room,
            _ => Trouble::Other,
        };
        Self { trouble, ..Self::new(code, error.to_string()) }
    }
}

/// The code for a message that cannot be taken.
pub(super) fn of_message(error: &BadMessage) -> Code {
    match error {
        BadMessage::HeaderTooLarge | BadMessage::Recipients { .. } => Code::Data,
        BadMessage::Io(_) => Code::Io,
    }
}

/// Whether the system said that there is no room.
fn is_about_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The code for what the system said, where that is telling.
fn of_system(error: &io::Error, otherwise: Code) -> Code {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Code::NoPermission,
        _ if is_about_room(error) => Code::Temporary,
        _ => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn codes_say_whether_trying_again_may_help() {
        let io = |doing, errno: Errno| SubmitError::Io { doing, path: "/q".into(), source: errno.into() };
        for (error, code, reply) in [
            (io("make", Errno::NOENT), 73, 451),
            (io("make", Errno::ACCESS), 77, 451),
            (io("write", Errno::IO), 74, 451),
            (io("write", Errno::NOSPC), 75, 452),
            (io("write", Errno::DQUOT), 75, 452),
            (io("write", Errno::FBIG), 75, 452),
            (SubmitError::TooLarge(7), 69, 552),
            (SubmitError::Recipients(0), 65, 554),
            (SubmitError::Envelope("x".into()), 65, 554),
            (SubmitError::NoRoom { path: "/q".into(), free: 1, wanted: 2 }, 75, 452),
            (SubmitError::InDoubt { path: "/q/incoming/x".into(), source: Errno::IO.into() }, 75, 451),
        ] {
            let text = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.code(), failure.reply_code().0), (code, reply), "{text}");
        }
    }

    #[test]
    fn a_queue_that_is_gone_is_worth_trying_again_and_a_large_message_is_not() {
        use crate::agent::queue_control::Refusal;
        let gone = Failure::from(SpoolError::NoQueue("/q".into()));
        assert_eq!((gone.code(), gone.reply_code()), (69, (451, "4.3.0")));
        let large = Refusal::new(RefusalCode::TooLarge, "it is larger than that");
        let large = Failure::from(ClientError::Refused(large));
        assert_eq!((large.code(), large.reply_code()), (69, (552, "5.3.4")));
    }

    #[test]
    fn what_may_be_queued_is_never_called_not_queued() {
        let error = SubmitError::InDoubt { path: "/q/incoming/x".into(), source: Errno::IO.into() };
        let by_socket = Failure::from(ClientError::Refused((&error).into()));
        for failure in [Failure::from(error), by_socket] {
            let text = failure.to_string();
            assert!(text.starts_with("the message may be queued: "), "{text}");
            assert!(failure.may_be_queued(), "{text}");
            assert_eq!(failure.code(), 75, "{text}");
        }
    }
}
