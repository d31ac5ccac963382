//! The start of a conversation: greeting, LHLO or EHLO, HELO where EHLO is not known.

use super::capabilities::Capabilities;
use super::command;
use super::failure::refused_to_talk;
use super::reply::{Class, Reply};
use super::stage::Stage;
use crate::mail::{Protocol, Reason};

/// What to do after a reply of the handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this and read one reply.
    Send(Vec<u8>),
    /// Mail can be sent.
    Ready(Capabilities),
    /// The server does not want us.
    Refused(Reason),
}

/// Which 5yz replies before any mail return the mail. The other ones keep it, as the server may be at fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// The greeting.
    pub greeting_bounces: bool,
    /// LHLO, EHLO, or the HELO after it.
    pub hello_bounces: bool,
}

/// The handshake: fed with replies, starting with the greeting, until it is `Ready` or `Refused`.
#[derive(Debug)]
pub struct Handshake<'a> {
    protocol: Protocol,
    peer: &'a str,
    myhostname: &'a str,
    discard: &'a [String],
    refusals: Refusals,
    awaited: Awaited,
}

#[derive(Debug, Clone, Copy)]
enum Awaited {
    Greeting,
    Hello,
    Helo,
}

impl<'a> Handshake<'a> {
    /// Waits for the greeting of `peer`; keywords in `discard` count as not offered.
    pub fn new(protocol: Protocol, peer: &'a str, myhostname: &'a str, discard: &'a [String]) -> Self {
        let (refusals, awaited) = (Refusals::default(), Awaited::Greeting);
        Self { protocol, peer, myhostname, discard, refusals, awaited }
    }

    /// The same, with what refusals mean.
    pub fn with_refusals(self, refusals: Refusals) -> Self {
        Self { refusals, ..self }
    }

    /// The stage whose reply is awaited.
    pub fn stage(&self) -> Stage {
        match self.awaited {
            Awaited::Greeting => Stage::Greeting,
            Awaited::Hello | Awaited::Helo => Stage::Lhlo,
        }
    }

    /// Takes the reply that was awaited.
    pub fn on_reply(&mut self, reply: &Reply) -> Next {
        let mut out = Vec::new();
        match (self.awaited, reply.class()) {
            (Awaited::Greeting, Class::Success) => {
                command::hello(&mut out, self.protocol, self.myhostname);
                self.awaited = Awaited::Hello;
                Next::Send(out)
            }
            (Awaited::Hello, Class::Success) => Next::Ready(Capabilities::from_reply(reply, self.discard)),
            (Awaited::Helo, Class::Success) => Next::Ready(Capabilities::default()),
            // RFC 5321 section 3.2: a server that knows no EHLO is greeted with HELO. LMTP has no such fallback.
            (Awaited::Hello, Class::Permanent) if self.protocol == Protocol::Smtp => {
                command::helo(&mut out, self.myhostname);
                self.awaited = Awaited::Helo;
                Next::Send(out)
            }
            (Awaited::Greeting, _) => self.refused(reply, self.refusals.greeting_bounces),
            (Awaited::Hello | Awaited::Helo, _) => self.refused(reply, self.refusals.hello_bounces),
        }
    }

    fn refused(&self, reply: &Reply, bounces: bool) -> Next {
        Next::Refused(refused_to_talk(self.peer, reply, bounces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::parse_reply;

    /// Plays replies; returns what was sent, and how it ended.
    fn play(protocol: Protocol, replies: &[&str]) -> (Vec<String>, Next) {
        play_with(Refusals::default(), protocol, replies)
    }

    fn play_with(refusals: Refusals, protocol: Protocol, replies: &[&str]) -> (Vec<String>, Next) {
        let handshake = Handshake::new(protocol, "mx[192.0.2.1]", "client.example", &[]);
        let mut handshake = handshake.with_refusals(refusals);
        let (mut sent, mut last) = (Vec::new(), Next::Send(Vec::new()));
        for text in replies {
            last = handshake.on_reply(&parse_reply(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0);
            if let Next::Send(bytes) = &last {
                sent.push(String::from_utf8(bytes.clone()).unwrap());
            }
        }
        (sent, last)
    }

    #[test]
    fn lmtp_says_lhlo_and_takes_no_for_an_answer() {
        let (sent, end) = play(Protocol::Lmtp, &["220 mx", "250-mx\r\n250 PIPELINING"]);
        assert_eq!(sent, ["LHLO client.example\r\n"]);
        assert!(matches!(end, Next::Ready(Capabilities { pipelining: true, .. })));
        assert!(matches!(play(Protocol::Lmtp, &["220 mx", "500 what"]).1, Next::Refused(_)));
    }

    #[test]
    fn esmtp_falls_back_to_helo_where_ehlo_is_not_known() {
        let (sent, end) = play(Protocol::Smtp, &["220 mx", "502 what", "250 mx PIPELINING"]);
        assert_eq!(sent, ["EHLO client.example\r\n", "HELO client.example\r\n"]);
        assert_eq!(end, Next::Ready(Capabilities::default()));
        assert!(matches!(play(Protocol::Smtp, &["220 mx", "451 later"]).1, Next::Refused(_)));
        assert!(matches!(play(Protocol::Smtp, &["220 mx", "500 what", "500 what"]).1, Next::Refused(_)));
    }

    #[test]
    fn a_refusing_greeting_is_transient() {
        for text in ["421 4.3.2 busy", "554 5.7.1 go away", "354 odd"] {
            let Next::Refused(reason) = play(Protocol::Lmtp, &[text]).1 else { panic!("{text}") };
            assert_eq!(reason.status.class(), 4, "{text}");
        }
    }

    #[test]
    fn a_refusal_for_good_returns_mail_only_where_that_is_asked_for() {
        let none = Refusals::default();
        let greeting = Refusals { greeting_bounces: true, ..none };
        let hello = Refusals { hello_bounces: true, ..none };
        let (lmtp, smtp) = (Protocol::Lmtp, Protocol::Smtp);
        for (refusals, protocol, replies, status) in [
            (none, lmtp, &["554 5.7.1 go away"][..], "4.7.1"),
            (greeting, lmtp, &["554 5.7.1 go away"], "5.7.1"),
            (hello, lmtp, &["554 5.7.1 go away"], "4.7.1"),
            (greeting, lmtp, &["421 4.3.2 busy"], "4.3.2"),
            (greeting, lmtp, &["354 odd"], "4.5.0"),
            (none, lmtp, &["220 mx", "502 5.5.1 what"], "4.5.1"),
            (greeting, lmtp, &["220 mx", "502 5.5.1 what"], "4.5.1"),
            (hello, lmtp, &["220 mx", "502 5.5.1 what"], "5.5.1"),
            (hello, lmtp, &["220 mx", "451 4.3.0 later"], "4.3.0"),
            (hello, smtp, &["220 mx", "502 5.5.1 what", "550 go away"], "5.0.0"),
        ] {
            let Next::Refused(reason) = play_with(refusals, protocol, replies).1 else {
                panic!("{replies:?}")
            };
            assert_eq!(reason.status.to_string(), status, "{refusals:?} {replies:?}");
        }
    }
}
