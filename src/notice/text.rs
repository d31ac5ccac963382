//! Text from elsewhere, made safe for a line of ours.
//!
//! - Owns: what may stand in a line of a notice, cutting and wrapping.
//! - Always true: what comes out holds no CR, LF or other control character, and no word over [`WORD_MAX`] octets.

/// Octets of one word: a line can only be folded between words, and RFC 5322 section 2.1.1 allows 998 octets.
pub(super) const WORD_MAX: usize = 900;
/// Columns of the text for people. Longer lines would make mail-builder choose quoted-printable.
const WIDTH: usize = 72;
/// Blanks in a row that are kept: a line cannot be folded within them.
const BLANKS_MAX: usize = 16;
/// What stands where something was cut off.
const CUT: &str = "[...]";

/// Which characters a part of the notice may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charset {
    /// Others become `?`.
    Ascii,
    /// All but control characters (RFC 6532, RFC 6533).
    Utf8,
}

/// Makes one line of `text`, of at most `max` octets and a mark where it was cut.
pub(super) fn one_line(text: &str, charset: Charset, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    let (mut word, mut blanks) = (0, 0);
    for c in text.trim().chars() {
        let c = match c {
            c if c.is_control() => ' ',
            c if charset == Charset::Ascii && !c.is_ascii() => '?',
            c => c,
        };
        blanks = if c == ' ' { blanks + 1 } else { 0 };
        if blanks > BLANKS_MAX {
            continue;
        }
        if line.len() + c.len_utf8() > max {
            line.push_str(CUT);
            return line;
        }
        word = if c == ' ' { 0 } else { word + c.len_utf8() };
        if word > WORD_MAX {
            line.push(' ');
            word = c.len_utf8();
        }
        line.push(c);
    }
    line.truncate(line.trim_end().len());
    line
}

/// Makes a word of an address: as [`one_line`], but cut where it is too long for a line.
pub(super) fn address_word(address: &str, charset: Charset) -> String {
    one_line(address, charset, WORD_MAX - CUT.len())
}

/// Wraps one line of text, each line with `indent` before it and CRLF after it. Words are never broken.
pub(super) fn wrap(out: &mut String, indent: &str, line: &str) {
    let mut column = 0;
    for word in line.split_ascii_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            out.push_str("\r\n");
            column = 0;
        }
        if column == 0 {
            out.push_str(indent);
            column = indent.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    if column > 0 {
        out.push_str("\r\n");
    }
}

/// Wraps one line of somebody's words behind `who` of two columns, further lines aligned with the first. Nothing of it
/// is lost or added but blanks at the ends of lines; a word that fills a line is broken.
pub(super) fn wrap_words(out: &mut String, who: &str, line: &str) {
    let room = WIDTH - who.len() - 1;
    let (mut margin, mut rest) = (who, line);
    loop {
        let end = rest.char_indices().nth(room).map_or(rest.len(), |(at, _)| at);
        let (fits, more) = rest.split_at(end);
        // Words stay whole where that leaves no line nearly empty.
        let cut = match fits.rfind(' ').filter(|&at| at > end / 2) {
            Some(at) if !more.is_empty() && !more.starts_with(' ') => at,
            _ => end,
        };
        let (text, more) = rest.split_at(cut);
        out.push_str(format!("{margin} {text}").trim_end());
        out.push_str("\r\n");
        rest = more.trim_start();
        if rest.is_empty() {
            return;
        }
        margin = "  ";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_of_others_stays_on_its_line() {
        for (text, charset, max, line) in [
            ("550-no\r\n550 user", Charset::Ascii, 99, "550-no  550 user"),
            ("nul\0 bell\x07", Charset::Ascii, 99, "nul  bell"),
            ("Größe", Charset::Ascii, 99, "Gr??e"),
            ("Größe", Charset::Utf8, 99, "Größe"),
            ("Größe", Charset::Utf8, 3, "Gr[...]"),
            ("next\u{85}line", Charset::Utf8, 99, "next line"),
        ] {
            assert_eq!(one_line(text, charset, max), line, "{text:?}");
        }
    }

    #[test]
    fn text_for_people_is_wrapped_between_words() {
        let mut out = String::new();
        wrap(&mut out, "    ", &"word ".repeat(20));
        let lines: Vec<_> = out.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.starts_with("    word") && line.len() <= WIDTH));
    }

    #[test]
    fn somebody_s_words_are_aligned_and_none_is_lost() {
        let said = format!("250-{} end {}", "word ".repeat(20), "x".repeat(150));
        let mut out = String::new();
        wrap_words(&mut out, "S:", &said);
        let lines: Vec<_> = out.split_terminator("\r\n").collect();
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:#?}");
        assert!(lines[0].starts_with("S: 250-word") && lines[1..].iter().all(|line| line.starts_with("   ")));
        let words: String = lines.iter().map(|line| line[3..].replace(' ', "")).collect();
        assert_eq!(words, said.replace(' ', ""));
        for (said, written) in [("", "S:\r\n"), ("250 ok", "S: 250 ok\r\n")] {
            let mut out = String::new();
            wrap_words(&mut out, "S:", said);
            assert_eq!(out, written);
        }
    }

    proptest! {
        #[test]
        fn somebody_s_words_never_make_a_long_line(text in "\\PC{0,900}") {
            let mut out = String::new();
            wrap_words(&mut out, "S:", &text);
            prop_assert!(out.ends_with("\r\n"));
            for line in out.split_terminator("\r\n") {
                prop_assert!(line.chars().count() <= WIDTH && !line.contains(['\r', '\n']), "{line:?}");
            }
        }

        #[test]
        fn no_text_makes_a_long_or_second_line(text in ".{0,3000}", max in 1..3000_usize) {
            let line = one_line(&text, Charset::Utf8, max);
            prop_assert!(!line.chars().any(char::is_control));
            let mut wrapped = String::new();
            wrap(&mut wrapped, "    ", &line);
            prop_assert!(wrapped.split("\r\n").all(|l| l.len() <= 998 && !l.contains(['\r', '\n'])));
        }
    }
}
