//! What the sendmail command line asks for.
//!
//! - Owns: what each name of the program takes for granted, what options mean, which of them go together. PURE.
//! - Leaves to others: how they are spelled (`parser`), addresses (`address_list`), and everything that options make happen.
//! - Always true: an option that would change where mail goes or who hears of it is obeyed or refused, never
//!   ignored; options end at `--` and at the first recipient.

mod parser;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};

use crate::mail::{Notify, Protocol, QueueId, Return};

pub(super) use parser::is_envid;

use parser::Parser;

/// The names under which the program is a sendmail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `sendmail`, and `lastmile sendmail`.
    Sendmail,
    /// `smtpc`: delivers at once, and ignores options that it does not know.
    Smtpc,
    /// `mailq`: shows the queue unless options say otherwise.
    Mailq,
    /// `newaliases`: as with `-bi`.
    Newaliases,
}

impl Role {
    /// The role that the program has under a name; `None`: it is no sendmail then.
    pub fn named(name: &OsStr) -> Option<Self> {
        [Self::Sendmail, Self::Smtpc, Self::Mailq, Self::Newaliases]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sendmail => "sendmail",
            Self::Smtpc => "smtpc",
            Self::Mailq => "mailq",
            Self::Newaliases => "newaliases",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `-bm`: a message stands on standard input.
    #[default]
    Submit,
    /// `-bs`: SMTP is spoken there.
    Smtp,
    /// `-bp`.
    ShowQueue,
    /// `-bi`, `-I`.
    RebuildAliases,
    /// `-q`; `-qI` names one message.
    Flush(Option<QueueId>),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// Delivery without a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// `--lmtp` or `--esmtp`.
    pub protocol: Protocol,
    /// Where to, as written.
    pub server: String,
}

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-b`, `-q`, `-I`, or what the program's name says.
    pub mode: Mode,
    /// `-f`, `-r`: the envelope sender as written.
    pub sender: Option<String>,
    /// `-F`: the sender's full name, for From.
    pub full_name: Option<String>,
    /// `-i`, `-oi`, and whatever delivers at once: a line with a lone dot does not end the message.
    pub dots_are_content: bool,
    /// `-t`: recipients stand in the header.
    pub recipients_from_header: bool,
    /// `-n`: local names mean themselves, whatever aliases there are.
    pub no_aliases: bool,
    /// `-N`: the reports that are wanted.
    pub notify: Notify,
    /// `-V`: the submitter's own name for the message.
    pub envid: Option<String>,
    /// `-R`: what a bounce returns.
    pub ret: Option<Return>,
    /// `--nexthop`: where to, against the routes.
    pub nexthop: Option<String>,
    /// `--lmtp`, `--esmtp`: deliver now.
    pub direct: Option<Direct>,
    /// `--iam`: our name in LHLO or EHLO.
    pub iam: Option<String>,
    /// `--dump`: show what is said.
    pub dump: bool,
    /// `--smtputf8`: SMTPUTF8 may be asked for.
    pub smtputf8: bool,
    /// `--verbose`: print the server's last reply.
    pub verbose: bool,
    /// Recipients as written.
    pub recipients: Vec<String>,
}

/// Why a command line cannot be obeyed. To a person it is a whole sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An option that sendmail does not have either.
    #[error("there is no option {}", .0.escape_debug())]
    Unknown(String),
    /// An option without its value.
    #[error("option {0} needs a value")]
    NoValue(String),
    /// A value that cannot be.
    #[error("option {option} does not take {value:?}: {why}")]
    BadValue {
        /// The option.
        option: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something that sendmail can and this command does not do.
    #[error("{} ({what}) is not something that this command does", .option.escape_debug())]
    Unsupported {
        /// As written.
        option: String,
        /// What it would be.
        what: &'static str,
    },
    /// Options that do not go together, or one that another needs.
    #[error("{0}")]
    Combination(&'static str),
    /// An option after the first recipient.
    #[error("{0:?} stands where only recipients stand; options come first, and \"--\" ends them")]
    Misplaced(String),
    /// Something that `LASTMILE_SENDMAIL_STRICT` forbids.
    #[error("LASTMILE_SENDMAIL_STRICT is set and does not allow {0}")]
    Strict(String),
    /// Octets that are no UTF-8.
    #[error("{0:?} is not UTF-8")]
    NotUtf8(OsString),
}

impl Options {
    /// Reads the arguments, without the name of the command. `strict` is for callers that pass along what strangers
    /// give them: recipients stand only after `--`; `-C`, `-O`, `-X`, `-oQ`, `--nexthop` and, but for smtpc, `--lmtp` and
    /// `--esmtp` are refused.
    pub fn parse(role: Role, strict: bool, args: &[OsString]) -> Result<Self, UsageError> {
        let mode = match role {
            Role::Sendmail | Role::Smtpc => Mode::Submit,
            Role::Mailq => Mode::ShowQueue,
            Role::Newaliases => Mode::RebuildAliases,
        };
        let options = Self { mode, dots_are_content: role == Role::Smtpc, ..Self::default() };
        let mut parser = Parser { role, strict, options, rest: args.iter() };
        parser.parse()?;
        parser.options.dots_are_content |= parser.options.direct.is_some();
        parser.options.check(role)?;
        Ok(parser.options)
    }

    /// What goes together.
    fn check(&self, role: Role) -> Result<(), UsageError> {
        let no = |text| Err(UsageError::Combination(text));
        let is_named = !self.recipients.is_empty() || self.recipients_from_header;
        match self.mode {
            Mode::Help | Mode::Version => return Ok(()),
            Mode::Submit => {}
            _ if is_named => {
                return no("only a message has recipients: leave them and -t out with -bi, -bp, -bs and -q");
            }
            _ if self.direct.is_some() => {
                return no("--lmtp and --esmtp deliver a message: leave -bi, -bp, -bs and -q out");
            }
            _ => {}
        }
        if role == Role::Smtpc && self.mode == Mode::Submit && self.direct.is_none() {
            return no("smtpc needs --lmtp or --esmtp and a server; what queues is called sendmail");
        }
        match &self.direct {
            Some(_) if self.nexthop.is_some() => {
                no("--nexthop is for the queue, and --lmtp and --esmtp use none")
            }
            Some(_) if self.sender.is_none() => no("--lmtp and --esmtp need a sender: name it with -f"),
            None if self.iam.is_some() || self.dump || self.smtputf8 || self.verbose => {
                no("--iam, --dump, --smtputf8 and --verbose go with --lmtp or --esmtp")
            }
            _ => Ok(()),
        }
    }
}
