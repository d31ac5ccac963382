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
    /// Responses as they were sent, in base64.
    sent: Vec<Zeroizing<Vec<u8>>>,
}

impl Redactor {
    pub(super) fn new(secret: Option<&Secret>) -> Self {
        let encoded = secret.map(|secret| encoded(secret.expose().as_bytes()));
        Self { secret: secret.cloned(), sent: encoded.into_iter().collect() }
    }

    /// Remembers a response. There are no more of them than steps in an exchange.
    pub(super) fn add(&mut self, response: &[u8]) {
        self.sent.push(Zeroizing::new(response.to_vec()));
    }

    /// Remembers what another one does of the same login.
    pub(super) fn add_all(&mut self, other: Self) {
        self.sent.extend(other.sent);
    }

    /// `text` without secrets, and without words that hold a response or a piece of one, in whatever case: servers cut what
    /// they repeat, glue it to other words, and some make it upper case.
    pub fn redact(&self, text: &str) -> String {
        let secret =
            self.secret.as_ref().map(Secret::expose).filter(|secret| secret.len() >= SECRET_SIZE_MIN);
        let text = secret.map_or_else(|| text.to_owned(), |secret| text.replace(secret, HIDDEN));
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
        let is_sent = |piece: &[u8]| {
            self.sent
                .iter()
                .any(|sent| sent.windows(PIECE_SIZE_MIN).any(|window| window.eq_ignore_ascii_case(piece)))
        };
        word.windows(PIECE_SIZE_MIN).any(is_sent)
    }
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
