//! Address lists as they stand in header fields (RFC 5322 section 3.4) and on command lines.
//!
//! - Owns: display names, groups, comments, quoted strings, routes (which are dropped).
//! - Leaves to others: what an address may be (`mail`), completing it with a domain.
//! - Always true: what is not clearly one address, or a list of them, is refused, not guessed; work and memory
//!   grow with the text and no faster.

use crate::mail::{Address, BadAddress};

/// Characters of the part of a list that an error shows.
const SHOWN: usize = 80;

/// Why a text is no list of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// A quoted string, comment, `<` or `[` that does not end, or an end without a beginning.
    #[error("{0:?} has an unbalanced quote, parenthesis or bracket")]
    Unbalanced(String),
    /// Words that make no address.
    #[error("{0:?} is not one address; is a comma missing?")]
    NotOne(String),
    /// A group within a group, or the end of one that never began.
    #[error("{0:?} has a \":\" or \";\" that belongs to no group")]
    Group(String),
    /// Something in the place of an address that is none.
    #[error("{text:?} is not an address: {why}")]
    Address {
        /// As written.
        text: String,
        /// Why not.
        why: BadAddress,
    },
}

/// Reads a list; empty places in it, and empty groups, mean nobody.
pub fn parse(text: &str) -> Result<Vec<Address>, BadList> {
    let mut addresses = Vec::new();
    let mut rest = text;
    let mut item = Item::starting(rest);
    let mut in_group = false;
    while let Some(token) = next_token(&mut rest).map_err(|()| BadList::Unbalanced(shown(item.text)))? {
        match token {
            Token::Special(',') if !item.in_route() => {
                addresses.extend(std::mem::replace(&mut item, Item::starting(rest)).finish()?);
            }
            Token::Special(';') if in_group => {
                addresses.extend(std::mem::replace(&mut item, Item::starting(rest)).finish()?);
                in_group = false;
                item.closed = true;
            }
            // Within angle brackets it ends a route, and the item knows that.
            Token::Special(':') if !item.in_angle => {
                if in_group || item.angle.is_some() || item.words.is_empty() {
                    return Err(BadList::Group(shown(item.text)));
                }
                item = Item::starting(rest);
                in_group = true;
            }
            Token::Special(';') => return Err(BadList::Group(shown(item.text))),
            token => item.push(token)?,
        }
    }
    if in_group {
        return Err(BadList::Group(shown(item.text)));
    }
    addresses.extend(item.finish()?);
    Ok(addresses)
}

/// A piece of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// Characters without meaning to the list.
    Atom(&'a str),
    /// A quoted string's value.
    Quoted(String),
    /// `[…]`, with its brackets.
    Literal(&'a str),
    Special(char),
}

/// One mailbox in the making.
#[derive(Default)]
struct Item<'a> {
    /// The list from here on, to show what could not be read.
    text: &'a str,
    /// What stood before an angle bracket, or the bare address.
    words: Vec<Token<'a>>,
    /// What stood within.
    angle: Option<Vec<Token<'a>>>,
    in_angle: bool,
    /// A group has just ended: only a comma or the end may follow.
    closed: bool,
}

impl<'a> Item<'a> {
    fn starting(text: &'a str) -> Self {
        Self { text, ..Self::default() }
    }

    /// Within the relays that old mail has before an address: their commas end nothing.
    fn in_route(&self) -> bool {
        let first = self.angle.as_ref().and_then(|angle| angle.first());
        self.in_angle && first == Some(&Token::Special('@'))
    }

    fn push(&mut self, token: Token<'a>) -> Result<(), BadList> {
        let is_place_for_more = !self.closed && (self.in_angle || self.angle.is_none());
        match token {
            Token::Special('<') if is_place_for_more && !self.in_angle => {
                self.angle = Some(Vec::new());
                self.in_angle = true;
            }
            Token::Special('>') if self.in_angle => self.in_angle = false,
            Token::Special('<' | '>') => return Err(BadList::Unbalanced(shown(self.text))),
            // What follows a route's ":" is the address (RFC 5322 section 4.4).
            Token::Special(':') => match &mut self.angle {
                Some(route) if route.first() == Some(&Token::Special('@')) => route.clear(),
                _ => return Err(BadList::Group(shown(self.text))),
            },
            token if is_place_for_more => match &mut self.angle {
                Some(angle) => angle.push(token),
                None => self.words.push(token),
            },
            _ => return Err(BadList::NotOne(shown(self.text))),
        }
        Ok(())
    }

    fn finish(self) -> Result<Option<Address>, BadList> {
        if self.in_angle {
            return Err(BadList::Unbalanced(shown(self.text)));
        }
        match self.angle {
            Some(angle) => mailbox(&angle, self.text).map(Some),
            None if self.words.is_empty() => Ok(None),
            None => mailbox(&self.words, self.text).map(Some),
        }
    }
}

/// Puts an address together: words and dots, and a domain after the last `@`.
fn mailbox(tokens: &[Token<'_>], text: &str) -> Result<Address, BadList> {
    let at = tokens.iter().rposition(|token| *token == Token::Special('@'));
    let (local, domain) = match at {
        Some(at) => (tokens.get(..at).unwrap_or_default(), tokens.get(at + 1..).unwrap_or_default()),
        None => (tokens, &[][..]),
    };
    // What is left of a route without an address, or a second "@": whose domain counts is anybody's guess.
    if local.iter().chain(domain).any(|token| matches!(token, Token::Special(c) if *c != '.')) {
        return Err(BadList::NotOne(shown(text)));
    }
    // Two words side by side are a name, or two addresses.
    let adjoining = |side: &[Token<'_>]| {
        side.windows(2).any(|pair| !pair.iter().any(|token| matches!(token, Token::Special(_))))
    };
    if adjoining(local) || adjoining(domain) {
        return Err(BadList::NotOne(shown(text)));
    }
    let bad = |why| BadList::Address { text: shown(text), why };
    if domain.iter().any(|token| matches!(token, Token::Quoted(_))) {
        return Err(bad(BadAddress::Quoting));
    }
    if at.is_some() && domain.is_empty() {
        return Err(bad(BadAddress::Incomplete));
    }
    let (local, domain) = (joined(local), joined(domain));
    // What stands for octets that were no UTF-8 cannot be part of an address.
    if local.contains(char::REPLACEMENT_CHARACTER) || domain.contains(char::REPLACEMENT_CHARACTER) {
        return Err(bad(BadAddress::Character));
    }
    Address::from_parts(&local, &domain).map_err(bad)
}

fn joined(tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::Atom(atom) | Token::Literal(atom) => text.push_str(atom),
            Token::Quoted(value) => text.push_str(value),
            Token::Special(c) => text.push(*c),
        }
    }
    text
}

/// Takes the next token off `rest`, blanks and comments skipped; `Err` if it does not end.
fn next_token<'a>(rest: &mut &'a str) -> Result<Option<Token<'a>>, ()> {
    *rest = skip_blanks_and_comments(rest)?;
    let Some(first) = rest.chars().next() else { return Ok(None) };
    let (token, used) = match first {
        '"' => quoted(rest)?,
        '[' => {
            let end = rest.find(']').ok_or(())? + 1;
            (Token::Literal(rest.get(..end).ok_or(())?), end)
        }
        ')' | ']' => return Err(()),
        ',' | ';' | ':' | '<' | '>' | '@' | '.' => (Token::Special(first), 1),
        _ => {
            let end = rest.find(is_delimiter).unwrap_or(rest.len());
            (Token::Atom(rest.get(..end).ok_or(())?), end)
        }
    };
    *rest = rest.get(used..).ok_or(())?;
    Ok(Some(token))
}

/// What ends an atom.
fn is_delimiter(c: char) -> bool {
    is_blank(c) || "\",;:<>@.()[]".contains(c)
}

/// Field values may be folded, and programs pass them along so.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// The quoted string at the front, and its octets.
fn quoted(text: &str) -> Result<(Token<'_>, usize), ()> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Quoted(value), at + 1)),
            '\\' => value.push(chars.next().ok_or(())?.1),
            // The line ends of folding are not part of the value (RFC 5322 section 2.2.3).
            '\r' | '\n' => {}
            c => value.push(c),
        }
    }
    Err(())
}

/// Comments nest; a counter is enough to follow them.
fn skip_blanks_and_comments(text: &str) -> Result<&str, ()> {
    let mut depth = 0_usize;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            '\\' if depth > 0 => drop(chars.next()),
            c if depth == 0 && !is_blank(c) => return text.get(at..).ok_or(()),
            _ => {}
        }
    }
    if depth == 0 { Ok("") } else { Err(()) }
}

/// As much of a list as an error needs to show.
fn shown(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<String, BadList> {
        let list: Vec<_> = parse(text)?.iter().map(ToString::to_string).collect();
        Ok(list.join(" "))
    }

    #[test]
    fn lists_as_people_and_programs_write_them() {
        for (text, addresses) in [
            ("", ""),
            (" , ,", ""),
            ("a@x", "a@x"),
            ("root", "root"),
            ("a@x, b@y", "a@x b@y"),
            ("Ann <a@x>", "a@x"),
            ("\"Doe, Ann\" <a@x>,b@y (Bob (junior), \\) too)", "a@x b@y"),
            ("<a@x>", "a@x"),
            ("=?utf-8?Q?=C3=89?= <a@x>", "a@x"),
            ("Ann B. Doe <a.b@x>", "a.b@x"),
            ("a . b @ x . y", "a.b@x.y"),
            ("a(c)@(c)x", "a@x"),
            ("\"a b\"@x", "\"a b\"@x"),
            ("\"a\\\"b\".c@x", "\"a\\\"b.c\"@x"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
            ("a@[IPv6:2001:db8::1], b@y", "a@[IPv6:2001:db8::1] b@y"),
            ("undisclosed-recipients:;", ""),
            ("friends: a@x, Bob <b@y>;, c@z", "a@x b@y c@z"),
            ("\"a:b\": a@x;", "a@x"),
            ("<@relay,@other:a@x>", "a@x"),
            ("a@x,\r\n\tb@y", "a@x b@y"),
            ("Jos\u{e9} <jos\u{e9}@x>", "jos\u{e9}@x"),
            ("J\u{fffd}rg <j@x>", "j@x"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(addresses), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for text in [
            "Ann Doe",
            "a@x b@y",
            "<a@x> <b@y>",
            "<a@x> b",
            "a@x <b@y",
            "a@x>",
            "<<a@x>>",
            "<>",
            "\"a@x",
            "a@x (comment",
            "a@x )",
            "a@[x",
            "a@x]",
            "a@",
            "@x",
            "a@\"x\"",
            "friends: a@x",
            "friends: a@x; b@y",
            "<@relay,@other>",
            "a@b@x",
            "friends: more: a@x;;",
            "a@x;",
            ": a@x;",
            "<x:a@x>",
            "j\u{fffd}@x",
            "a@x y",
        ] {
            assert!(parse(text).is_err(), "{text:?} gave {:?}", read(text));
        }
        let text = parse("a@x, b@y, Carl Doe, d@z").unwrap_err().to_string();
        assert_eq!(text, "\"Carl Doe, d@z\" is not one address; is a comma missing?");
        let long = format!("{} b", "a".repeat(5000));
        assert!(parse(&long).unwrap_err().to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c@.,;:<>()\\[\\]\"\\\\ \r\n\u{e9}]{0,40}|\\PC{0,40}") {
            for address in parse(&text).unwrap_or_default() {
                prop_assert!(!address.to_string().contains(['\r', '\n', '\0']));
            }
        }

        #[test]
        fn any_address_is_found_behind_any_name(local in "[^\\pC\\\\\"\u{fffd}]{1,12}", name in "[^\\pC\\\\\"]{0,12}") {
            let address = Address::from_parts(&local, "x.example").unwrap();
            let list = format!("\"{name}\" <{address}>, {address} (x), g: {address};");
            prop_assert_eq!(parse(&list).unwrap(), vec![address; 3]);
        }
    }
}
