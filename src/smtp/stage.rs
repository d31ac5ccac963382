//! The stages of a conversation: what is awaited, and the words for it.

use crate::mail::Protocol;

/// Where a conversation stands: named by the reply that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Opening the connection.
    Connect,
    /// Waiting for the server's first line.
    Greeting,
    /// STARTTLS and the handshake.
    StartTls,
    /// LHLO, EHLO or HELO.
    Lhlo,
    /// The SASL exchange.
    Auth,
    /// RSET, before a connection is used again.
    Rset,
    /// XFORWARD with the client's name and address.
    XforwardName,
    /// XFORWARD with the protocol and what came with it.
    XforwardProtocol,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, until the 354.
    DataInit,
    /// The content.
    DataXfer,
    /// The end of data: the dot, or the last BDAT chunk.
    DataDone,
    /// QUIT.
    Quit,
}

impl Stage {
    /// Every stage, in the order of a conversation.
    pub const ALL: [Self; 14] = [
        Self::Connect,
        Self::Greeting,
        Self::StartTls,
        Self::Lhlo,
        Self::Auth,
        Self::Rset,
        Self::XforwardName,
        Self::XforwardProtocol,
        Self::Mail,
        Self::Rcpt,
        Self::DataInit,
        Self::DataXfer,
        Self::DataDone,
        Self::Quit,
    ];

    /// The words after "while" in the log, as Postfix has them, so that log searches keep working.
    pub fn while_doing(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Self::Connect, _) => "connecting",
            (Self::Greeting, _) => "receiving the initial server greeting",
            (Self::StartTls, _) => "receiving the STARTTLS response",
            (Self::Lhlo, Protocol::Lmtp) => "performing the LHLO handshake",
            (Self::Lhlo, Protocol::Smtp) => "performing the EHLO handshake",
            (Self::Auth, _) => "performing SASL authentication",
            (Self::Rset, _) => "sending RSET probe",
            (Self::XforwardName, _) => "sending XFORWARD name/address",
            (Self::XforwardProtocol, _) => "sending XFORWARD protocol/helo_name",
            (Self::Mail, _) => "sending MAIL FROM",
            (Self::Rcpt, _) => "sending RCPT TO",
            (Self::DataInit, _) => "sending DATA command",
            (Self::DataXfer, _) => "sending message body",
            (Self::DataDone, _) => "sending end of data -- message may be sent more than once",
            (Self::Quit, _) => "sending QUIT",
        }
    }

    /// The words after "in reply to" in the log.
    pub fn command(self) -> &'static str {
        match self {
            Self::Connect | Self::Greeting => "connection",
            Self::StartTls => "STARTTLS command",
            Self::Lhlo => "LHLO command",
            Self::Auth => "AUTH command",
            Self::Rset => "RSET command",
            Self::XforwardName => "XFORWARD name/address command",
            Self::XforwardProtocol => "XFORWARD helo/protocol command",
            Self::Mail => "MAIL FROM command",
            Self::Rcpt => "RCPT TO command",
            Self::DataInit => "DATA command",
            Self::DataXfer | Self::DataDone => "end of DATA command",
            Self::Quit => "QUIT command",
        }
    }
}
