//! The service extensions that the server offers, each of which can be left out.

use std::fmt;
use std::str::FromStr;

/// A service extension (RFC 5321 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// RFC 2920.
    Pipelining,
    /// RFC 3030: BDAT.
    Chunking,
    /// RFC 6152.
    EightBitMime,
    /// RFC 1870.
    Size,
    /// RFC 2034.
    EnhancedStatusCodes,
    /// RFC 3461.
    Dsn,
    /// RFC 6531.
    SmtpUtf8,
    /// RFC 9422: how many recipients and transactions are taken.
    Limits,
    /// RFC 3207; offered where there is a certificate, and no TLS yet.
    StartTls,
    /// RFC 4954; offered where there are logins.
    Auth,
}

impl Extension {
    /// Every one, in the order in which they are announced.
    pub const ALL: [Self; 10] = [
        Self::Pipelining,
        Self::Chunking,
        Self::EightBitMime,
        Self::Size,
        Self::EnhancedStatusCodes,
        Self::Dsn,
        Self::SmtpUtf8,
        Self::Limits,
        Self::StartTls,
        Self::Auth,
    ];

    /// The keyword in the reply to LHLO and EHLO.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Chunking => "CHUNKING",
            Self::EightBitMime => "8BITMIME",
            Self::Size => "SIZE",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::Dsn => "DSN",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Limits => "LIMITS",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
        }
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword())
    }
}

impl FromStr for Extension {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|known| known.keyword().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let known = Self::ALL.map(Self::keyword).join(", ");
            format!("\"{text}\" is no extension of this server, which has {known}")
        })
    }
}
