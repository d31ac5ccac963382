//! Which recipients a refusal or an error hits, and how.
//!
//! - Owns: every rule that turns a reply or a broken conversation into outcomes, and their words.
//! - Leaves to others: whose turn a reply is (`transaction`), and what a failure means for a destination (`net`).
//! - Always true: what the destination does wrong before a transaction defers mail and never bounces it; only a
//!   reply to the message or to the recipient bounces.

use std::fmt;
use std::io;
use std::str::FromStr;

use super::reply::{BadReply, Class, Reply};
use super::stage::Stage;
use crate::mail::{EnhancedStatus, Outcome, Protocol, Reason};

/// A conversation that broke. A 4yz or 5yz reply is not an error: it is somebody's outcome.
///
/// Display: `conversation with mx.example[192.0.2.1] timed out while sending RCPT TO`.
#[derive(Debug)]
pub struct SessionError {
    /// The peer as the log writes it: `host[address]`.
    pub peer: String,
    /// What was spoken.
    pub protocol: Protocol,
    /// Where it broke: the reply that was awaited.
    pub stage: Stage,
    /// What broke.
    pub cause: Cause,
    /// Whether the end of data had left. From then on the peer may hold the message, whatever stage we wait in:
    /// a pipelining server may keep even the reply to RSET back until the message is stored.
    pub end_of_data_written: bool,
}

/// What broke a conversation.
#[derive(Debug)]
pub enum Cause {
    /// The stage's time ran out.
    TimedOut,
    /// The peer closed.
    LostConnection,
    /// Reading or writing failed, a reset included.
    Io(io::Error),
    /// What the peer sent is no reply, or none that fits.
    BadReply(BadReply),
    /// The message could not be read from our own disk.
    LocalData(io::Error),
}

impl SessionError {
    /// Whether trying again can duplicate the message.
    pub fn may_have_delivered(&self) -> bool {
        self.end_of_data_written
    }

    /// Whether the peer broke the protocol, as opposed to going away.
    pub fn is_protocol_error(&self) -> bool {
        matches!(self.cause, Cause::BadReply(_))
    }

    /// Whether our own disk is at fault.
    pub fn is_local(&self) -> bool {
        matches!(self.cause, Cause::LocalData(_))
    }

    /// The reason for recipients that this leaves without an answer.
    pub fn reason(&self) -> Reason {
        let status = match self.cause {
            Cause::BadReply(_) => EnhancedStatus::new(4, 5, 0),
            Cause::LocalData(_) => EnhancedStatus::new(4, 3, 0),
            Cause::TimedOut | Cause::LostConnection | Cause::Io(_) => EnhancedStatus::new(4, 4, 2),
        };
        Reason::local(status, self.to_string())
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Once the end of data has left, the log must say so, whichever reply is awaited first.
        let stage = if self.end_of_data_written { Stage::DataDone } else { self.stage };
        let (peer, doing) = (&self.peer, stage.while_doing(self.protocol));
        match &self.cause {
            Cause::TimedOut => write!(f, "conversation with {peer} timed out while {doing}"),
            Cause::LostConnection => write!(f, "lost connection with {peer} while {doing}"),
            Cause::Io(error) if is_disconnect(error) => {
                write!(f, "lost connection with {peer} while {doing}")
            }
            Cause::Io(error) => write!(f, "lost connection with {peer} while {doing}: {error}"),
            Cause::BadReply(bad) => write!(f, "protocol error of {peer} while {doing}: {bad}"),
            Cause::LocalData(error) => write!(f, "local data error while talking to {peer}: {error}"),
        }
    }
}

impl std::error::Error for SessionError {}

fn is_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}

/// What a full mailbox (552 5.2.2) means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OverQuota {
    /// The sender is told at once.
    #[default]
    Bounce,
    /// It is tried again until the message is too old.
    Defer,
}

/// What becomes of 8-bit mail where 8BITMIME is not offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EightBit {
    /// It is returned: 5.6.3.
    #[default]
    Refuse,
    /// MIME parts that say they are 8bit or binary go out as quoted-printable; all else as it is.
    Convert,
    /// It goes out as it is.
    Send,
}

impl FromStr for OverQuota {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "bounce" => Ok(Self::Bounce),
            "defer" => Ok(Self::Defer),
            _ => Err("mail over quota can \"bounce\" or \"defer\""),
        }
    }
}

/// Why a server that answered the connection, or LHLO, with `reply` cannot be used. The destination is at fault,
/// so this is transient whatever the reply's class, unless 5yz `bounces`.
pub fn refused_to_talk(peer: &str, reply: &Reply, bounces: bool) -> Reason {
    let is_final = bounces && reply.class() == Class::Permanent;
    Reason {
        status: if is_final { reply.status() } else { transient(reply.status()) },
        text: format!("host {peer} refused to talk to me: {}", reply.one_line()),
        reply: Some(reply.text().to_owned()),
    }
}

/// Why a server that answered STARTTLS with `reply` cannot be used: transient whatever the reply's class.
pub fn refused_start_tls(peer: &str, reply: &Reply) -> Reason {
    Reason {
        status: transient(reply.status()),
        text: format!("TLS is required, but host {peer} refused to start TLS: {}", reply.one_line()),
        reply: Some(reply.text().to_owned()),
    }
}

/// The outcome of everybody whom a negative `reply` at `stage` hits: for MAIL and DATA the whole batch, for RCPT
/// and the end of data the recipient whose turn it is.
pub fn refused(peer: &str, stage: Stage, reply: &Reply, over_quota: OverQuota) -> Outcome {
    let mut reason = said(peer, stage, reply);
    let mailbox_full = reply.code() == 552 && reply.status().subject_and_detail() == (2, 2);
    if reply.class() == Class::Permanent && !(mailbox_full && over_quota == OverQuota::Defer) {
        return Outcome::Bounced(reason);
    }
    reason.status = transient(reason.status);
    Outcome::Deferred(reason)
}

/// The outcome of recipients to whom `reply` does not speak, as a 421, which ends the session: transient whatever its
/// class.
pub fn not_about_mail(peer: &str, stage: Stage, reply: &Reply) -> Outcome {
    let mut reason = said(peer, stage, reply);
    reason.status = transient(reason.status);
    Outcome::Deferred(reason)
}

/// The outcome of a recipient whose message `reply` accepts.
pub fn accepted(reply: &Reply) -> Outcome {
    Outcome::Delivered(Reason {
        status: reply.status(),
        text: reply.one_line(),
        reply: Some(reply.text().to_owned()),
    })
}

/// Whether a reply to RCPT means "too many recipients" (RFC 5321 section 4.5.3.1.10): 452 or 552 with X.5.3, or
/// without an enhanced status code. 552 5.2.2 is a full mailbox, not this.
pub fn is_too_many_recipients(reply: &Reply) -> bool {
    matches!(reply.code(), 452 | 552)
        && reply.enhanced_status().is_none_or(|status| status.subject_and_detail() == (5, 3))
}

fn said(peer: &str, stage: Stage, reply: &Reply) -> Reason {
    let (text, command) = (reply.one_line(), stage.command());
    Reason {
        status: reply.status(),
        text: format!("host {peer} said: {text} (in reply to {command})"),
        reply: Some(reply.text().to_owned()),
    }
}

fn transient(status: EnhancedStatus) -> EnhancedStatus {
    status.with_class(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::parse_reply;

    fn reply(text: &str) -> Reply {
        parse_reply(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn the_class_of_a_refusal_decides_and_over_quota_is_a_matter_of_choice() {
        for (text, over_quota, word, dsn) in [
            ("450 4.2.1 busy", OverQuota::Bounce, "deferred", "4.2.1"),
            ("550 5.1.1 unknown", OverQuota::Bounce, "bounced", "5.1.1"),
            ("550 unknown", OverQuota::Bounce, "bounced", "5.0.0"),
            ("552 5.2.2 full", OverQuota::Bounce, "bounced", "5.2.2"),
            ("552 5.2.2 full", OverQuota::Defer, "deferred", "4.2.2"),
            ("552 5.3.4 too big", OverQuota::Defer, "bounced", "5.3.4"),
            ("452 4.2.2 full", OverQuota::Bounce, "deferred", "4.2.2"),
        ] {
            let outcome = refused("mx[/run/lmtp]", Stage::Rcpt, &reply(text), over_quota);
            assert_eq!((outcome.word(), outcome.reason().status.to_string().as_str()), (word, dsn), "{text}");
            assert_eq!(
                outcome.reason().text,
                format!("host mx[/run/lmtp] said: {text} (in reply to RCPT TO command)")
            );
        }
    }

    #[test]
    fn a_server_that_does_not_want_us_never_bounces_mail() {
        let reason = refused_to_talk("mx[192.0.2.1]", &reply("554 5.7.1 no service here"), false);
        assert_eq!(reason.status.to_string(), "4.7.1");
        assert_eq!(reason.text, "host mx[192.0.2.1] refused to talk to me: 554 5.7.1 no service here");
    }

    #[test]
    fn too_many_recipients_is_not_a_full_mailbox() {
        for (text, too_many) in [
            ("452 4.5.3 too many", true),
            ("452 too many", true),
            ("552 too many", true),
            ("552 5.5.3 too many", true),
            ("552 5.2.2 full", false),
            ("452 4.2.2 full", false),
            ("452 4.3.1 disk", false),
            ("450 4.5.3 odd", false),
        ] {
            assert_eq!(is_too_many_recipients(&reply(text)), too_many, "{text}");
        }
    }

    #[test]
    fn an_error_after_the_end_of_data_warns_of_duplicates() {
        let error = |end_of_data_written, cause| SessionError {
            peer: "mx[192.0.2.1]".into(),
            protocol: Protocol::Lmtp,
            stage: Stage::Rcpt,
            cause,
            end_of_data_written,
        };
        assert_eq!(
            error(false, Cause::TimedOut).to_string(),
            "conversation with mx[192.0.2.1] timed out while sending RCPT TO"
        );
        assert_eq!(
            error(true, Cause::LostConnection).to_string(),
            "lost connection with mx[192.0.2.1] while sending end of data -- message may be sent more than once"
        );
        assert_eq!(error(false, Cause::BadReply(BadReply::Surplus)).reason().status.to_string(), "4.5.0");
    }
}
