//! Values of parameters, and how they are written: times, numbers, booleans, lists.
//!
//! - Owns: Postfix's syntax of each kind of value, and the words for one that does not follow it.
//! - Leaves to others: which parameter is of which kind (`settings`, `transport`), `$` expansion (`postconf`).
//! - Always true: reading goes on behind a value that is wrong, so that everything wrong is told at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Ten years: longer than any mail waits, and far from the end of any clock.
pub(super) const TIME_MAX: Duration = Duration::from_secs(520 * 7 * 24 * 3600);
/// Characters of a value that are shown.
const SHOWN_MAX: usize = 200;
/// Problems that are told.
const PROBLEMS_MAX: usize = 50;

/// Values of parameters by their names, expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<String, String>);

impl Values {
    /// Reads what postconf printed: `name = value` in each line.
    pub(super) fn printed(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.trim(), value.trim())).collect()
    }

    /// The value of a parameter; `None` for one that this release of Postfix does not have.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a parameter; empty for one that this release of Postfix does not have.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The same values, but for one.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The names that have a value.
    #[cfg(test)]
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Values {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(values: I) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// What is wrong with a configuration: a sentence each, for the mail log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// The sentences.
    pub fn sentences(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a sentence; of very many, the first are enough.
    pub(in crate::postfix) fn push(&mut self, sentence: String) {
        if self.0.len() < PROBLEMS_MAX {
            self.0.push(sentence);
        }
    }
}

impl From<String> for Problems {
    fn from(sentence: String) -> Self {
        Self(vec![sentence])
    }
}

impl FromIterator<String> for Problems {
    fn from_iter<I: IntoIterator<Item = String>>(sentences: I) -> Self {
        Self(sentences.into_iter().take(PROBLEMS_MAX).collect())
    }
}

/// One line for each problem.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// A sentence about a value.
pub(super) fn about(name: &str, value: &str, what: impl fmt::Display) -> String {
    let shown = match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    };
    format!("{name} = {}: {what}", shown.escape_debug())
}

/// Reads values one after the other, and keeps what is wrong.
pub(super) struct Reader<'a> {
    values: &'a Values,
    problems: Problems,
}

impl<'a> Reader<'a> {
    pub(super) fn new(values: &'a Values) -> Self {
        Self { values, problems: Problems::default() }
    }

    /// All that was wrong.
    pub(super) fn problems(self) -> Problems {
        self.problems
    }

    /// Notes that a value is wrong.
    pub(super) fn refuse(&mut self, name: &str, what: impl fmt::Display) {
        self.problems.push(about(name, self.values.text(name), what));
    }

    /// The same, where the value may hold a secret: it is not shown.
    pub(super) fn refuse_hidden(&mut self, name: &str, what: impl fmt::Display) {
        self.problems.push(format!("{name}: {what}"));
    }

    /// A value as it stands; `default` where this release has no such parameter.
    pub(super) fn text(&self, name: &str, default: &'a str) -> &'a str {
        self.values.get(name).unwrap_or(default)
    }

    /// A value that must not be empty.
    pub(super) fn word(&mut self, name: &str, default: &'a str) -> String {
        let text = self.text(name, default);
        if text.is_empty() {
            self.refuse(name, "it must have a value");
        }
        text.to_owned()
    }

    /// What `parse` makes of a value. Its error says what is needed.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        default: &'a str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.text(name, default)) {
            Ok(value) => Some(value),
            Err(what) => {
                self.refuse(name, what);
                None
            }
        }
    }

    /// `yes` or `no`.
    pub(super) fn yes(&mut self, name: &str, default: bool) -> bool {
        let default = if default { "yes" } else { "no" };
        self.parsed(name, default, yes_no).unwrap_or_default()
    }

    /// `yes` or `no` for a parameter of our own, whose default is `yes`.
    pub(super) fn own_yes(&mut self, name: &str) -> bool {
        match self.text(name, "") {
            "" => true,
            _ => self.yes(name, true),
        }
    }

    /// A time in seconds, where no unit is given. Zero where it has a problem.
    pub(super) fn time(&mut self, name: &str, default: &'a str) -> Duration {
        self.parsed(name, default, time).unwrap_or_default()
    }

    /// A whole number. `least` where it has a problem.
    pub(super) fn number(&mut self, name: &str, default: &'a str, least: u64, most: u64) -> u64 {
        self.parsed(name, default, |text| number(text, least, most)).unwrap_or(least)
    }

    /// A list.
    pub(super) fn list(&mut self, name: &str, default: &'a str) -> Vec<String> {
        self.parsed(name, default, list).unwrap_or_default()
    }
}

/// `yes` or `no`, in capital or small letters.
pub(super) fn yes_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("\"yes\" or \"no\" is needed".to_owned()),
    }
}

/// A time: a whole number, of seconds or of what is named behind it.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        "w" => Some(7 * 24 * 3600),
        _ => None,
    };
    let seconds = unit.zip(digits.parse::<u64>().ok()).and_then(|(unit, count)| count.checked_mul(unit));
    let time = seconds.map(Duration::from_secs).filter(|time| *time <= TIME_MAX);
    time.ok_or_else(|| {
        "a time is needed: a whole number with s, m, h, d or w behind it, at most 520w".to_owned()
    })
}

/// A whole number within bounds.
fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = is_number.then(|| text.parse().ok()).flatten();
    let value = value.filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| match most {
        u64::MAX => format!("a whole number of at least {least} is needed"),
        most => format!("a whole number from {least} to {most} is needed"),
    })
}

/// The elements of a list, between commas or blanks. Within braces both are part of an element, and braces around a
/// whole element are taken off.
pub(in crate::postfix) fn list(text: &str) -> Result<Vec<String>, String> {
    let elements = elements(text)?.into_iter();
    Ok(elements.map(|element| without_braces(element).unwrap_or(element).to_owned()).collect())
}

/// The text between the braces around `element`, if they are its own.
pub(in crate::postfix) fn without_braces(element: &str) -> Option<&str> {
    Some(element.strip_prefix('{')?.strip_suffix('}')?.trim())
}

/// The elements of a list with their braces.
pub(in crate::postfix) fn elements(text: &str) -> Result<Vec<&str>, String> {
    let is_separator = |c: char| c == ',' || c.is_ascii_whitespace();
    let (mut found, mut depth, mut start) = (Vec::new(), 0_usize, None);
    for (at, c) in text.char_indices() {
        if depth == 0 && is_separator(c) {
            found.extend(start.take().and_then(|start| text.get(start..at)));
            continue;
        }
        start = start.or(Some(at));
        match c {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1).ok_or("it has a \"}\" without its \"{\"")?,
            _ => {}
        }
    }
    found.extend(start.and_then(|start| text.get(start..)));
    if depth == 0 { Ok(found) } else { Err("it has a \"{\" without its \"}\"".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn printed_values_are_found_by_name() {
        let values = Values::printed("a = 1\nb =\nc = x = y\nnonsense\n d = \t2 \n");
        let expected =
            [("a", Some("1")), ("b", Some("")), ("c", Some("x = y")), ("d", Some("2")), ("e", None)];
        for (name, value) in expected {
            assert_eq!(values.get(name), value, "{name}");
        }
        assert_eq!(values.text("e"), "");
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("5", Some(5)),
            ("5s", Some(5)),
            ("2m", Some(120)),
            ("1h", Some(3600)),
            ("1d", Some(86400)),
            ("520w", Some(520 * 604_800)),
            ("521w", None),
            ("99999999999999999999", None),
            ("99999999999999999w", None),
            ("5 s", None),
            ("5S", None),
            ("-5", None),
            ("s", None),
            ("", None),
        ] {
            assert_eq!(time(text).ok(), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn booleans_are_yes_or_no() {
        for (text, value) in
            [("yes", Some(true)), ("No", Some(false)), ("true", None), ("", None), ("1", None)]
        {
            assert_eq!(yes_no(text).ok(), value, "{text:?}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        for (text, value) in
            [("16", Some(16)), ("0", None), ("101", None), ("+5", None), ("5 ", None), ("", None)]
        {
            assert_eq!(number(text, 1, 100).ok(), value, "{text:?}");
        }
    }

    #[test]
    fn a_list_has_commas_blanks_and_groups() {
        for (text, elements) in [
            ("", Some(&[][..])),
            (" , \t", Some(&[])),
            ("a, b c,d", Some(&["a", "b", "c", "d"])),
            ("a {b c, d} e", Some(&["a", "b c, d", "e"])),
            ("inline:{a=1, {b = 2}} x", Some(&["inline:{a=1, {b = 2}}", "x"])),
            ("{ a }", Some(&["a"])),
            ("{a", None),
            ("a}", None),
            ("}{", None),
        ] {
            let read = list(text).ok();
            assert_eq!(
                read.as_deref(),
                elements.map(|e| e.iter().map(|&e| e.to_owned()).collect::<Vec<_>>()).as_deref(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let values: Values = [("a", "5x"), ("b", "maybe"), ("c", "1"), ("d", "")].into_iter().collect();
        let mut reader = Reader::new(&values);
        reader.time("a", "1s");
        reader.yes("b", true);
        assert_eq!((reader.number("c", "7", 0, 9), reader.number("none", "7", 0, 9)), (1, 7));
        reader.word("d", "x");
        let problems = reader.problems();
        let told: Vec<_> = problems.sentences().collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("a = 5x: a time is needed"), "{told:?}");
        assert_eq!(told[1..], ["b = maybe: \"yes\" or \"no\" is needed", "d = : it must have a value"]);
    }

    #[test]
    fn what_is_shown_of_a_value_is_one_short_line() {
        let shown = about("x", &"a\n".repeat(300), "no");
        assert!(shown.len() < 420 && !shown.contains('\n'), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_none(text in "[a, {}=]{0,30}") {
            if let Ok(elements) = elements(&text) {
                let braces = |c| text.matches(c).count();
                prop_assert_eq!(braces('{'), braces('}'));
                for element in elements {
                    prop_assert!(!element.is_empty());
                }
            }
        }
    }
}
