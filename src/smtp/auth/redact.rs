//! What a server says, without what it says of our secrets.
//!
//! - Owns: finding a password, a token or a response in a server's words: some repeat the command that they refuse, or the
//!   last one that they understood.
//! - Leaves to others: where the words go.
//! - Always true: what is remembered is wiped in the end.

use std::fmt;

use zeroize::Zeroizing;

use super::Secret;
use super::exchange::encoded;

/// What stands for a secret.
pub(super) const HIDDEN: &str = "[...]";
/// Octets of the shortest secret that is looked for: a shorter one is found in every sentence.
const SECRET_SIZE_MIN: usize = 4;
/// Octets of the shortest piece of a response that is looked for. Less tells nothing that matters.
const PIECE_SIZE_MIN: usize = 8;

/// What must not be shown of a server's words, in the login and after it.
#[derive(Default)]
pub struct Redactor {
    secret: Option<Secret>,
    /// All pieces of responses as they were sent, in base64: in lower case and sorted, so that a long reply takes no time
    /// to look through.
    pieces: Zeroizing<Vec<Piece>>,
}

type Piece = [u8; PIECE_SIZE_MIN];

impl Redactor {
    pub(super) fn new(secret: Option<&Secret>) -> Self {
        let mut redactor = Self { secret: secret.cloned(), pieces: Zeroizing::default() };
        if let Some(secret) = secret {
            redactor.add(&encoded(secret.expose().as_bytes()));
        }
        redactor
    }

    /// Remembers a response. There are no more of them than steps in an exchange.
    pub(super) fn add(&mut self, response: &[u8]) {
        self.add_pieces(pieces_of(response));
    }

    /// Remembers what another one does of the same login.
    pub(super) fn add_all(&mut self, other: &Self) {
        self.add_pieces(other.pieces.iter().copied());
    }

    fn add_pieces(&mut self, more: impl Iterator<Item = Piece>) {
        let more: Zeroizing<Vec<Piece>> = Zeroizing::new(more.collect());
        // Into a new one: a vector that grows leaves copies behind.
        let mut pieces = Zeroizing::new(Vec::with_capacity(self.pieces.len() + more.len()));
        pieces.extend_from_slice(&self.pieces);
        pieces.extend_from_slice(&more);
        pieces.sort_unstable();
        self.pieces = pieces;
    }

    /// `text` without secrets, and without words that hold a response or a piece of one, in whatever case: servers cut what
    /// they repeat, glue it to other words, and some make it upper case.
    pub fn redact(&self, text: &str) -> String {
        let secret =
            self.secret.as_ref().map(Secret::expose).filter(|secret| secret.len() >= SECRET_SIZE_MIN);
        let text = secret.map_or_else(|| text.to_owned(), |secret| without(text, secret));
        let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        let (mut shown, mut rest) = (String::with_capacity(text.len()), text.as_str());
        while let Some(c) = rest.chars().next() {
            let end = rest.find(|c| !is_base64(c)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(if end == 0 { c.len_utf8() } else { end });
            shown.push_str(if self.has_piece(word.as_bytes()) { HIDDEN } else { word });
            rest = behind;
        }
        shown
    }

    fn has_piece(&self, word: &[u8]) -> bool {
        pieces_of(word).any(|piece| self.pieces.binary_search(&piece).is_ok())
    }
}

/// All runs of [`PIECE_SIZE_MIN`] octets, in lower case.
fn pieces_of(octets: &[u8]) -> impl Iterator<Item = Piece> {
    octets.windows(PIECE_SIZE_MIN).filter_map(|window| Piece::try_from(window.to_ascii_lowercase()).ok())
}

/// `text` without `secret`, in whatever case.
fn without(text: &str, secret: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    let is_it = |window: &[u8]| window.eq_ignore_ascii_case(secret.as_bytes());
    while let Some(at) = rest.as_bytes().windows(secret.len()).position(is_it) {
        // Letters that differ by case alone are ASCII, so these are the bounds of characters.
        let (Some(before), Some(behind)) = (rest.get(..at), rest.get(at + secret.len()..)) else { break };
        shown.push_str(before);
        shown.push_str(HIDDEN);
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor { .. }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_repeats_is_hidden_and_nothing_else() {
        let mut redactor = Redactor::new(Some(&Secret::new("tanstaaf".to_owned())));
        redactor.add(b"AHRpbQB0YW5zdGFhZg==");
        redactor.add(b"");
        for (text, shown) in [
            ("535 5.7.8 Authentication failed.", "535 5.7.8 Authentication failed."),
            ("535 no \"tanstaaf\" for tim", "535 no \"[...]\" for tim"),
            ("535 ä TANstaafTANSTAAF ü", "535 ä [...][...] ü"),
            ("535 no dGFuc3RhYWY= for tim", "535 no [...] for tim"),
            ("502 what is AUTH PLAIN AHRpbQB0YW5zdGFhZg==?", "502 what is AUTH PLAIN [...]?"),
            ("502 what is AUTH PLAIN AHRpbQB0YW5", "502 what is AUTH PLAIN [...]"),
            ("502 AUTH PLAIN AHRPBQB0YW5ZDGFHZG== ä", "502 AUTH PLAIN [...] ä"),
            ("502 <xxAHRpbQB0YW5zdGFhZg==xx>", "502 <[...]>"),
            ("501 5.5.2 bad: arg=AHRpbQB0YW5", "501 5.5.2 bad: [...]"),
            ("", ""),
        ] {
            assert_eq!(redactor.redact(text), shown);
        }
        let short = Redactor::new(Some(&Secret::new("a".to_owned())));
        assert_eq!(short.redact("535 a"), "535 a");
    }
}
