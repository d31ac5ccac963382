//! What became of a recipient: delivered, deferred or bounced, and why.

use std::fmt;
use std::str::FromStr;

use super::text::serde_as_text;

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedStatus {
    class: u8,
    subject: u16,
    detail: u16,
}

impl EnhancedStatus {
    /// A status known to the program. The class must be 2, 4 or 5.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// 2 for success, 4 for a transient failure, 5 for a permanent one.
    pub fn class(self) -> u8 {
        self.class
    }

    /// The second and third number.
    pub fn subject_and_detail(self) -> (u16, u16) {
        (self.subject, self.detail)
    }

    /// The same status in another class: a permanent refusal that we treat as transient is logged as one.
    pub fn with_class(self, class: u8) -> Self {
        Self { class, ..self }
    }
}

impl FromStr for EnhancedStatus {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let plain = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|_| plain)
        };
        let mut parts = text.split('.');
        match (parts.next(), parts.next().and_then(number), parts.next().and_then(number), parts.next()) {
            (Some(class @ ("2" | "4" | "5")), Some(subject), Some(detail), None) => {
                Ok(Self { class: class.as_bytes()[0] - b'0', subject, detail })
            }
            _ => Err("an enhanced status code is 2, 4 or 5 and two more numbers, as in 5.1.1"),
        }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

serde_as_text!(EnhancedStatus);

/// Why a recipient's attempt ended as it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The status for the log and for reports.
    pub status: EnhancedStatus,
    /// One line in words, as in the log: the reply, or what went wrong on our side.
    pub text: String,
    /// The server's reply as it came, lines joined by LF, where this is one; `None` where we decided ourselves.
    pub reply: Option<String>,
}

impl Reason {
    /// A reason of our own, with no reply behind it.
    pub fn local(status: EnhancedStatus, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), reply: None }
    }
}

/// What became of a recipient in one attempt. There is no fourth case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has taken responsibility.
    Delivered(Reason),
    /// Not now: to be tried again.
    Deferred(Reason),
    /// Never: the sender is to be told.
    Bounced(Reason),
}

impl Outcome {
    /// Why.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Delivered(reason) | Self::Deferred(reason) | Self::Bounced(reason) => reason,
        }
    }

    /// The log's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "sent",
            Self::Deferred(_) => "deferred",
            Self::Bounced(_) => "bounced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_as_written() {
        for text in ["2.0.0", "4.4.2", "5.1.1", "5.999.0"] {
            assert_eq!(text.parse::<EnhancedStatus>().unwrap().to_string(), text);
        }
        for text in ["", "3.0.0", "5.1", "5.1.1.1", "5.1000.0", "5.+1.0", "55.1.1", "5..1"] {
            assert!(text.parse::<EnhancedStatus>().is_err(), "{text:?}");
        }
    }
}
