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

/// The handshake: fed with replies, starting with the greeting, until it is `Ready` or `Refused`.
#[derive(Debug)]
pub struct Handshake<'a> {
    protocol: Protocol,
    peer: &'a str,
    myhostname: &'a str,
    discard: &'a [String],
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
        Self { protocol, peer, myhostname, discard, awaited: Awaited::Greeting }
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
            _ => Next::Refused(refused_to_talk(self.peer, reply)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::parse_reply;

    /// Plays replies; returns what was sent, and how it ended.
    fn play(protocol: Protocol, replies: &[&str]) -> (Vec<String>, Next) {
        let mut handshake = Handshake::new(protocol, "mx[192.0.2.1]", "client.example", &[]);
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
}
