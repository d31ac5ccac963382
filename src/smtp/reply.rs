//! Server replies (RFC 5321 section 4.2).
//!
//! - Owns: the reply grammar, and how much reply text we keep.
//! - Leaves to others: sockets and timeouts (`net`), what a reply means for a recipient (`failure`).
//! - Always true: a [`Reply`] is 2yz to 5yz and printable; bytes after it stay untouched.

use crate::mail::EnhancedStatus;

/// Octets in one line of a reply. RFC 5321 section 4.5.3.1.5 asks for 512; real servers write longer ones.
pub const LINE_SIZE_MAX: usize = 4096;
/// Octets of a challenge after AUTH, or of what answers it, as base64 (RFC 4954 section 4).
pub const CHALLENGE_SIZE_MAX: usize = 12_288;
/// Octets in one line of a reply to AUTH: code, blank, challenge.
pub const AUTH_LINE_SIZE_MAX: usize = 4 + CHALLENGE_SIZE_MAX;
/// Octets in a whole reply. The longest honest ones answer LHLO.
pub const REPLY_SIZE_MAX: usize = 16 * 1024;

/// Octets shown of a line that is no reply.
const SHOWN_SIZE_MAX: usize = 100;

/// What the first digit of a reply asks of us. There is no fifth case to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 2yz: done.
    Success,
    /// 3yz: go on.
    Continue,
    /// 4yz: not now.
    Transient,
    /// 5yz: never.
    Permanent,
}

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: Option<EnhancedStatus>,
    text: String,
}

/// Why bytes are no reply. A conversation in which this happens is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// A line without a three-digit code of 200 to 599, or without a blank or hyphen behind it.
    #[error("the server sent \"{0}\", which is no SMTP reply")]
    Syntax(String),
    /// A multi-line reply whose lines have different codes.
    #[error("the server changed the code in the middle of a reply")]
    CodeChanged,
    /// A line or a reply without end.
    #[error("the server sent a reply that is too long")]
    TooLong,
    /// Bytes that answer no command.
    #[error("the server sent a reply that nothing asked for")]
    Surplus,
    /// Bytes that came together with the reply to STARTTLS, before anything was encrypted.
    #[error("plain text came behind the reply to STARTTLS, where somebody in between may have put it")]
    BehindStartTls,
    /// A reply whose class the command cannot have, as 250 to DATA.
    #[error("the server answered \"{0}\", which does not fit the command")]
    WrongClass(String),
}

/// Parses the reply at the front of `input`; `None` until its last line has arrived. Also returns the bytes it
/// used: what follows answers the next pipelined command.
pub fn parse_reply(input: &[u8]) -> Result<Option<(Reply, usize)>, BadReply> {
    parse_within(input, LINE_SIZE_MAX)
}

/// The same for what answers AUTH and the lines after it, where a line may be longer (RFC 4954 section 4). A challenge
/// that is too long even so is [`BadReply::TooLong`]: what follows it cannot be told from its rest, so the conversation is
/// broken, and no `*` could mend it.
pub fn parse_auth_reply(input: &[u8]) -> Result<Option<(Reply, usize)>, BadReply> {
    parse_within(input, AUTH_LINE_SIZE_MAX)
}

fn parse_within(input: &[u8], line_size_max: usize) -> Result<Option<(Reply, usize)>, BadReply> {
    let (mut used, mut code) = (0, None);
    while let Some(length) = memchr::memchr(b'\n', &input[used..]) {
        let line = &input[used..used + length];
        used += length + 1;
        // Before its grammar: what is too long while it arrives must not turn out to be something else once it has.
        if used > REPLY_SIZE_MAX {
            return Err(BadReply::TooLong);
        }
        let line = Line::parse(line, line_size_max)?;
        if *code.get_or_insert(line.code) != line.code {
            return Err(BadReply::CodeChanged);
        }
        if line.is_last {
            // Only now: a reply that comes octet by octet is looked at once for each.
            let text = text_of(&input[..used]);
            return Ok(Some((Reply { code: line.code, status: line.status(), text }, used)));
        }
    }
    // A peer that never ends its line or its reply must not fill our memory.
    let unfinished = without_cr(&input[used..]);
    if unfinished.len() > line_size_max || input.len() > REPLY_SIZE_MAX {
        return Err(BadReply::TooLong);
    }
    Ok(None)
}

/// The CR of a line's end does not count, whether or not its LF has come.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// One line: code, blank or hyphen, text.
struct Line<'a> {
    code: u16,
    is_last: bool,
    octets: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8], size_max: usize) -> Result<Self, BadReply> {
        let octets = without_cr(line);
        if octets.len() > size_max {
            return Err(BadReply::TooLong);
        }
        let syntax = || BadReply::Syntax(shown(octets));
        let (digits, rest) = octets.split_at_checked(3).ok_or_else(syntax)?;
        if !(b'2'..=b'5').contains(&digits[0]) || !digits.iter().all(u8::is_ascii_digit) {
            return Err(syntax());
        }
        let is_last = match rest.first() {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(syntax()),
        };
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        Ok(Self { code, is_last, octets })
    }

    /// An enhanced status code counts only where its class agrees with the reply's (RFC 2034 section 4).
    fn status(&self) -> Option<EnhancedStatus> {
        // Less the blanks that the text loses too, so that the text shows what was understood.
        let word = self.octets.trim_ascii_end().get(4..)?.split(|&b| b == b' ').next()?;
        let status: EnhancedStatus = std::str::from_utf8(word).ok()?.parse().ok()?;
        (u16::from(status.class()) == self.code / 100).then_some(status)
    }
}

/// The lines of a whole reply as text, joined by LF.
fn text_of(reply: &[u8]) -> String {
    let lines = reply.strip_suffix(b"\n").unwrap_or(reply).split(|&octet| octet == b'\n');
    let mut text = String::with_capacity(reply.len());
    for line in lines {
        if !text.is_empty() {
            text.push('\n');
        }
        let line = without_cr(line);
        match std::str::from_utf8(line) {
            // Nearly every line is plain ASCII, and needs no look at each character.
            Ok(plain) if plain.bytes().all(|octet| matches!(octet, b' '..=b'~')) => {
                text.push_str(plain.trim_ascii_end());
            }
            _ => text.push_str(&printable(line)),
        }
    }
    text
}

/// `octets` as text, without what would upset a log or a terminal.
fn printable(octets: &[u8]) -> String {
    let printable = |c: char| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '?' } else { c };
    String::from_utf8_lossy(octets.trim_ascii_end()).chars().map(printable).collect()
}

/// The beginning of a line that is no reply: enough to see what it is instead.
fn shown(octets: &[u8]) -> String {
    match octets.get(..SHOWN_SIZE_MAX) {
        Some(start) => format!("{}...", printable(start)),
        None => printable(octets),
    }
}

impl Reply {
    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// What the first digit asks of us.
    pub fn class(&self) -> Class {
        match self.code / 100 {
            2 => Class::Success,
            3 => Class::Continue,
            4 => Class::Transient,
            _ => Class::Permanent,
        }
    }

    /// Whether this is a success.
    pub fn is_success(&self) -> bool {
        self.class() == Class::Success
    }

    /// Whether the server is about to close the connection (RFC 5321 section 3.8).
    pub fn is_closing(&self) -> bool {
        self.code == 421
    }

    /// The enhanced status code of the last line, where there is a valid one.
    pub fn enhanced_status(&self) -> Option<EnhancedStatus> {
        self.status
    }

    /// The status for log and reports: the server's own, else one made of the reply's class alone.
    pub fn status(&self) -> EnhancedStatus {
        self.status.unwrap_or(match self.class() {
            Class::Success => EnhancedStatus::new(2, 0, 0),
            Class::Transient => EnhancedStatus::new(4, 0, 0),
            Class::Permanent => EnhancedStatus::new(5, 0, 0),
            // Nothing waits for a 3yz but DATA: elsewhere it is a protocol error (RFC 3463: 5.5.0).
            Class::Continue => EnhancedStatus::new(5, 5, 0),
        })
    }

    /// All lines with their codes, joined by LF.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All lines with their codes on one line, as in the log.
    pub fn one_line(&self) -> String {
        self.text.replace('\n', " ")
    }

    /// Puts another text in the place of the one that came: what must not be shown is left out of it.
    pub fn hide(&mut self, hide: impl Fn(&str) -> String) {
        self.text = hide(&self.text);
    }

    /// The texts behind the codes, a line each.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n').map(|line| line.get(4..).unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(input: &[u8]) -> Result<Option<(u16, String, usize)>, BadReply> {
        parse_reply(input)
            .map(|found| found.map(|(reply, used)| (reply.code(), reply.text().to_owned(), used)))
    }

    #[test]
    fn replies_end_with_their_last_line() {
        for (input, text, used) in [
            (&b"250 ok\r\n"[..], "250 ok", 8),
            (b"250 ok\n", "250 ok", 7),
            (b"250\r\n", "250", 5),
            (b"250 \r\n", "250", 6),
            (b"250-a\r\n250-b\r\n250 c\r\n221 bye\r\n", "250-a\n250-b\n250 c", 21),
            (b"550 5.1.1 \xff\x07no\r\n", "550 5.1.1 ??no", 16),
        ] {
            let code = text[..3].parse().unwrap();
            assert_eq!(
                one(input),
                Ok(Some((code, text.to_owned(), used))),
                "{:?}",
                String::from_utf8_lossy(input)
            );
        }
    }

    #[test]
    fn every_prefix_of_a_reply_waits_for_more() {
        let whole = b"250-mx.example greets you\r\n250-PIPELINING\r\n250 SIZE 100\r\n";
        for end in 0..whole.len() {
            assert_eq!(one(&whole[..end]), Ok(None), "{end}");
        }
        assert!(one(whole).unwrap().is_some());
    }

    #[test]
    fn the_longest_line_may_arrive_in_any_pieces() {
        let whole = [b"250 ".as_slice(), &[b'x'; LINE_SIZE_MAX - 4], b"\r\n"].concat();
        for end in [whole.len() - 2, whole.len() - 1] {
            assert_eq!(one(&whole[..end]), Ok(None), "{end}");
        }
        assert!(one(&whole).unwrap().is_some());
    }

    #[test]
    fn a_reply_that_is_too_long_is_nothing_else_whenever_one_looks() {
        let line = [b"250-".as_slice(), &[b'x'; 1000], b"\r\n"].concat();
        let whole =
            [line.repeat(16), b"2x0 no reply, and past the limit ".repeat(20), b"\r\n".to_vec()].concat();
        assert_eq!(one(&whole[..whole.len() - 1]), Err(BadReply::TooLong));
        assert_eq!(one(&whole), Err(BadReply::TooLong));
    }

    #[test]
    fn a_status_counts_as_it_is_shown() {
        for (input, text, status) in [
            (&b"550 5.1.1\t\r\n"[..], "550 5.1.1", Some(EnhancedStatus::new(5, 1, 1))),
            (b"550 5.1.1\xc2\xa0\r\n", "550 5.1.1\u{a0}", None),
            (b"550 5.1.1\tno\r\n", "550 5.1.1?no", None),
        ] {
            let (reply, _) = parse_reply(input).unwrap().unwrap();
            assert_eq!((reply.text(), reply.enhanced_status()), (text, status));
        }
    }

    #[test]
    fn anything_else_is_a_broken_conversation() {
        for (input, shown) in [
            (&b"\r\n"[..], ""),
            (b"hello\r\n", "hello"),
            (b"25 ok\r\n", "25 ok"),
            (b"2500 ok\r\n", "2500 ok"),
            (b"150 ok\r\n", "150 ok"),
            (b"650 ok\r\n", "650 ok"),
            (b"250_ok\r\n", "250_ok"),
            (b"250-a\r\n\x1bb\xff\r\n", "?b?"),
        ] {
            assert_eq!(one(input), Err(BadReply::Syntax(shown.to_owned())));
        }
        assert_eq!(one(b"250-a\r\n251 b\r\n"), Err(BadReply::CodeChanged));
        let Err(BadReply::Syntax(shown)) = one(&[&[b'x'; 4000][..], b"\r\n"].concat()) else { panic!() };
        assert_eq!(shown.len(), SHOWN_SIZE_MAX + 3, "an error is no place for the whole of it");
    }

    #[test]
    fn replies_are_bounded_in_line_and_in_total() {
        assert_eq!(one(&[b'2'; LINE_SIZE_MAX + 1]), Err(BadReply::TooLong));
        let long_line = [b"250 ".as_slice(), &[b'a'; LINE_SIZE_MAX], b"\r\n"].concat();
        assert_eq!(one(&long_line), Err(BadReply::TooLong));
        let endless = b"250-and so on\r\n".repeat(REPLY_SIZE_MAX / 15 + 1);
        assert_eq!(one(&endless), Err(BadReply::TooLong));
    }

    #[test]
    fn only_a_reply_to_auth_may_have_a_line_of_a_challenge() {
        for (size, is_reply, is_answer) in [
            (LINE_SIZE_MAX, true, true),
            (LINE_SIZE_MAX + 1, false, true),
            (4 + 12_288, false, true),
            (4 + 12_289, false, false),
        ] {
            let whole = [b"334 ".as_slice(), &vec![b'x'; size - 4], b"\r\n"].concat();
            for (line_size_max, fits) in [(LINE_SIZE_MAX, is_reply), (AUTH_LINE_SIZE_MAX, is_answer)] {
                let of = |input| parse_within(input, line_size_max).map(|found| found.map(|(_, used)| used));
                let expected = if fits { Ok(Some(whole.len())) } else { Err(BadReply::TooLong) };
                assert_eq!(of(&whole), expected, "{size}");
                // Before its end has come, too.
                assert_eq!(of(&whole[..size]), expected.map(|_| None), "{size}");
            }
            assert_eq!(parse_reply(&whole).is_ok(), is_reply);
            assert_eq!(parse_auth_reply(&whole).is_ok(), is_answer);
        }
        let endless = [b"334-".as_slice(), &[b'x'; 9000], b"\r\n"].concat().repeat(2);
        assert_eq!(parse_auth_reply(&endless), Err(BadReply::TooLong));
    }

    #[test]
    fn an_enhanced_status_counts_only_in_its_class() {
        for (input, status) in [
            (&b"250 2.1.5 ok\r\n"[..], "2.1.5"),
            (b"250 ok\r\n", "2.0.0"),
            (b"550 2.1.5 no\r\n", "5.0.0"),
            (b"451 4.7.1\r\n", "4.7.1"),
            (b"550-5.1.1 no such user\r\n550 5.1.2 really\r\n", "5.1.2"),
            (b"354 go ahead\r\n", "5.5.0"),
        ] {
            assert_eq!(parse_reply(input).unwrap().unwrap().0.status().to_string(), status);
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_and_what_parses_is_printable(input in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((reply, used))) = parse_reply(&input) {
                prop_assert!(used <= input.len());
                prop_assert!((200..600).contains(&reply.code()));
                prop_assert!(!reply.one_line().chars().any(char::is_control));
            }
        }
    }
}
