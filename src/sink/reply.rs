//! Replies as a server writes them (RFC 5321 section 4.2, RFC 2034).

use std::borrow::Cow;

/// A reply: a code, an enhanced status or none, and one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Stands in front of each line; empty for none.
    pub status: &'static str,
    /// The text, its lines separated by LF.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply of the server's own.
    pub fn new(code: u16, status: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status, text: text.into() }
    }

    /// Whether the command did what it asked for, or may go on (354).
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// Appends the reply as it goes on the wire, without the enhanced status where that was not offered.
    pub fn write(&self, out: &mut Vec<u8>, enhanced: bool) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            out.extend_from_slice(self.code.to_string().as_bytes());
            out.push(if lines.peek().is_some() { b'-' } else { b' ' });
            if enhanced && !self.status.is_empty() {
                out.extend_from_slice(self.status.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_but_the_last_has_a_hyphen() {
        for (reply, enhanced, wire) in [
            (Reply::new(250, "2.0.0", "ok"), true, "250 2.0.0 ok\r\n"),
            (Reply::new(250, "2.0.0", "ok"), false, "250 ok\r\n"),
            (Reply::new(550, "", "5.1.1 no\n5.1.1 really"), true, "550-5.1.1 no\r\n550 5.1.1 really\r\n"),
        ] {
            let mut out = Vec::new();
            reply.write(&mut out, enhanced);
            assert_eq!(String::from_utf8(out).unwrap(), wire);
        }
    }
}
