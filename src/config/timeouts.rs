//! How long each stage of a conversation may take.
//!
//! - Owns: the timeouts of a transport and which stage goes by which.
//! - Leaves to others: enforcing them (`net`).
//! - Always true: a [`Timeout`] is never zero.

use std::time::Duration;

use super::keys::keys;
use super::parse;
use crate::smtp::Stage;

/// How long one stage may take. Never zero: to a socket, zero means "wait for ever".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(Duration);

impl Timeout {
    /// `None` for zero.
    pub fn new(limit: Duration) -> Option<Self> {
        if limit.is_zero() { None } else { Some(Self(limit)) }
    }

    /// The time.
    pub fn get(self) -> Duration {
        self.0
    }
}

keys! {
    /// The limits of one transport, by the names of their keys less `_timeout`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Timeouts reads();
    names "", "_timeout";
    given {}

    /// Opening the connection.
    connect: Timeout = "30s", parse::timeout;
    /// The greeting, LHLO or EHLO, and AUTH, each.
    lhlo: Timeout = "300s", parse::timeout;
    /// MAIL.
    mail: Timeout = "300s", parse::timeout;
    /// RCPT.
    rcpt: Timeout = "300s", parse::timeout;
    /// DATA, until the 354.
    data_init: Timeout = "120s", parse::timeout;
    /// Each progress of the content.
    data_xfer: Timeout = "180s", parse::timeout;
    /// The end of data.
    data_done: Timeout = "600s", parse::timeout;
    /// RSET.
    rset: Timeout = "20s", parse::timeout;
    /// QUIT.
    quit: Timeout = "300s", parse::timeout;
    /// STARTTLS and the handshake.
    starttls: Timeout = "300s", parse::timeout;
}

impl Timeouts {
    /// The limit of a stage. There is no `_` arm: a new stage does not compile until somebody has chosen its limit.
    pub fn at(&self, stage: Stage) -> Timeout {
        match stage {
            Stage::Connect => self.connect,
            Stage::Greeting | Stage::Lhlo | Stage::Auth => self.lhlo,
            Stage::StartTls => self.starttls,
            Stage::Rset => self.rset,
            // Only Postfix's clients say XFORWARD, and they have a limit of its own for it.
            Stage::XforwardName | Stage::XforwardProtocol | Stage::Mail => self.mail,
            Stage::Rcpt => self.rcpt,
            Stage::DataInit => self.data_init,
            Stage::DataXfer => self.data_xfer,
            Stage::DataDone => self.data_done,
            Stage::Quit => self.quit,
        }
    }
}
