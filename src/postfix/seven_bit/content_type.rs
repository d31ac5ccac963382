//! What the header fields of a part say (RFC 2045 sections 5 and 6), as far as that decides about its encoding.

/// What a part is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Parts between boundaries.
    Multipart,
    /// Another message.
    Message,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether what is in it has labels of its own.
    pub(super) fn has_parts(self) -> bool {
        self != Self::Other
    }
}

/// Takes a line apart that begins a header field: name, and what stands behind the colon. `None` for any other line.
pub(in crate::postfix) fn is_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&octet| octet == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    // Blanks before the colon are an old habit (RFC 5322 section 4.5).
    let name = name.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let gap = line.get(name.len()..colon)?;
    (is_name && gap.iter().all(is_blank)).then_some((name, value.get(1..)?))
}

/// Reads Content-Transfer-Encoding: whether it says 8bit or binary. `None`: it says nothing that is known.
pub(super) fn parse_encoding(value: &[u8]) -> Option<bool> {
    let Some(Token::Word(word)) = Tokens { rest: value }.next() else { return None };
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("8bit") || is("binary") {
        Some(true)
    } else {
        ["7bit", "base64", "quoted-printable"].into_iter().any(is).then_some(false)
    }
}

/// Reads Content-Type. Each boundary of a multipart is handed on with what its parts are by default: there may be one
/// too many, and nobody knows which the reader's program believes.
pub(super) fn parse_type(value: &[u8], mut take_boundary: impl FnMut(&[u8], Kind)) -> Kind {
    let mut tokens = Tokens { rest: value };
    let head = tokens.parameter().unwrap_or_default();
    let is = |at: usize, name: &str| match head.get(at) {
        Some(Token::Word(word)) => word.eq_ignore_ascii_case(name.as_bytes()),
        _ => false,
    };
    let is_subtype = |name| head.get(1) == Some(&Token::Special(b'/')) && is(2, name);
    if is(0, "message") && is_subtype("rfc822") {
        return Kind::Message;
    }
    if !is(0, "multipart") {
        return Kind::Other;
    }
    let default = if is_subtype("digest") { Kind::Message } else { Kind::Other };
    while let Some(parameter) = tokens.parameter() {
        if let [Token::Word(name), Token::Special(b'='), Token::Word(text) | Token::Quoted(text)] =
            &parameter[..]
            && name.eq_ignore_ascii_case(b"boundary")
        {
            take_boundary(text, default);
        }
    }
    Kind::Multipart
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Vec<u8>),
    Quoted(Vec<u8>),
    Special(u8),
}

/// Words, quoted strings and special characters of a field, without comments.
struct Tokens<'a> {
    rest: &'a [u8],
}

impl Tokens<'_> {
    /// The first three tokens up to the next semicolon; `None` at the end of the field.
    fn parameter(&mut self) -> Option<Vec<Token>> {
        let mut tokens = Vec::with_capacity(3);
        let mut is_there = false;
        for token in self.by_ref() {
            is_there = true;
            if token == Token::Special(b';') {
                break;
            }
            if tokens.len() < 3 {
                tokens.push(token);
            }
        }
        is_there.then_some(tokens)
    }

    fn skip_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some((&octet, rest)) = self.rest.split_first() {
            self.rest = rest;
            match octet {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'\\' => self.rest = rest.get(1..).unwrap_or_default(),
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// The rest of a quoted string whose first quote has been read.
    fn quoted(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        while let Some((&octet, rest)) = self.rest.split_first() {
            self.rest = rest;
            match (octet, rest.split_first()) {
                (b'"', _) => break,
                (b'\\', Some((&escaped, rest))) => {
                    self.rest = rest;
                    text.push(escaped);
                }
                _ => text.push(octet),
            }
        }
        text
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            match first {
                b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => self.rest = rest,
                b'(' => self.skip_comment(),
                b'"' => {
                    self.rest = rest;
                    return Some(Token::Quoted(self.quoted()));
                }
                _ if is_special(first) => {
                    self.rest = rest;
                    return Some(Token::Special(first));
                }
                _ => {
                    let is_end =
                        |octet: &u8| octet.is_ascii_whitespace() || *octet == 0x0b || is_special(*octet);
                    let end = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
                    let (word, rest) = self.rest.split_at(end);
                    self.rest = rest;
                    return Some(Token::Word(word.to_vec()));
                }
            }
        }
    }
}

/// The tspecials of RFC 2045 section 5.1.
fn is_special(octet: u8) -> bool {
    br#"()<>@,;:\"/[]?="#.contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_from_other_lines() {
        for (line, field) in [
            (&b"Subject: x"[..], Some((&b"Subject"[..], &b" x"[..]))),
            (b"Subject \t:x", Some((b"Subject", b"x"))),
            (b"X:", Some((b"X", b""))),
            (b"a:b:c", Some((b"a", b"b:c"))),
            (b"", None),
            (b":x", None),
            (b" : x", None),
            (b" a: x", None),
            (b"a b: x", None),
            (b"a\x0b: x", None),
            (b"\xe9: x", None),
            (b"a\0: x", None),
            (b"no colon", None),
        ] {
            assert_eq!(is_field(line), field, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn encodings_are_read_whatever_stands_around_them() {
        for (value, said) in [
            (&b" 8bit"[..], Some(true)),
            (b"\r\n\t(comment (nested \\) )) BINARY (x)", Some(true)),
            (b"8bit;x=y", Some(true)),
            (b" 7bit", Some(false)),
            (b"Base64", Some(false)),
            (b"quoted-printable ", Some(false)),
            (b"", None),
            (b"\"8bit\"", None),
            (b"8bitx", None),
            (b"; 8bit", None),
            (b"(8bit", None),
        ] {
            assert_eq!(parse_encoding(value), said, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn types_and_their_boundaries_are_read() {
        use Kind::{Message, Multipart, Other};
        let two: &[(&[u8], Kind)] = &[(b"a\"b;c", Other), (b"second", Other)];
        for (value, kind, boundaries) in [
            (&b" text/plain; boundary=x"[..], Other, &[][..]),
            (b"multipart/mixed; boundary=x", Multipart, &[(&b"x"[..], Other)]),
            (b"Multipart / Digest (c);\n\tBOUNDARY = \"x y\"", Multipart, &[(b"x y", Message)]),
            (b"multipart/mixed; (c) boundary (d) = \"a\\\"b;c\" ; boundary=second", Multipart, two),
            (b"multipart/mixed; boundary=\"\"", Multipart, &[(b"", Other)]),
            (b"multipart/mixed; boundary*0=x; boundary; boundary=; boundary x", Multipart, &[]),
            (b"multipart/mixed; boundary=\"x", Multipart, &[(b"x", Other)]),
            (b"multipart;;boundary=x", Multipart, &[(b"x", Other)]),
            (b"message/rfc822", Message, &[]),
            (b"message/RFC822; x=y", Message, &[]),
            (b"message/partial; id=x", Other, &[]),
            (b"message/global", Other, &[]),
            (b"message", Other, &[]),
            (b"\"multipart\"/mixed; boundary=x", Other, &[]),
            (b"application/x; name=\"multipart/mixed; boundary=o\"", Other, &[]),
            (b"", Other, &[]),
        ] {
            let mut found = Vec::new();
            let read = parse_type(value, |boundary, default| found.push((boundary.to_vec(), default)));
            let expected: Vec<_> = boundaries.iter().map(|(text, kind)| (text.to_vec(), *kind)).collect();
            assert_eq!((read, found), (kind, expected), "{}", value.escape_ascii());
        }
    }
}
