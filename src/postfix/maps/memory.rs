//! Tables that are read once: `texthash:`, `inline:` and `static:`.
//!
//! - Owns: their syntax.
//! - Leaves to others: all other types of tables (`proxymap`).
//! - Always true: of a key that stands twice, that entry counts which counts in Postfix. What a table says is shown
//!   nowhere, and wiped when the table is dropped: it may be a password.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use zeroize::Zeroizing;

use super::super::parameters::{elements, logical_lines, without_braces};
use super::super::proxymap::Case;

/// Octets of a file. Larger tables have better types.
const FILE_SIZE_MAX: u64 = 64 << 20;

/// A table in memory.
#[derive(PartialEq, Eq)]
pub(super) enum Memory {
    /// Entries by key.
    Entries { entries: Entries, case: Case },
    /// One value for every key.
    Static(Zeroizing<String>),
}

type Entries = HashMap<String, Zeroizing<String>>;

/// Who may read the file of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Whoever may.
    Any,
    /// Not everybody: there are passwords in it.
    NotEverybody,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries { entries, case } => write!(f, "{} entries, {case:?}", entries.len()),
            Self::Static(_) => f.write_str("one entry for every key"),
        }
    }
}

impl Memory {
    /// Reads a table of these types; `None` for another type.
    pub(super) fn read(kind: &str, name: &str, case: Case, readers: Readers) -> Result<Option<Self>, String> {
        match kind {
            "static" => Ok(Some(Self::Static(static_value(name)?.into()))),
            "inline" => Ok(Some(Self::Entries { entries: inline_entries(name, case)?, case })),
            "texthash" => {
                let text = read_file(name, readers)?;
                Ok(Some(Self::Entries { entries: file_entries(&text, name, case), case }))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn look_up(&self, key: &str) -> Option<&str> {
        match self {
            Self::Static(value) => Some(value),
            Self::Entries { entries, case } => entries.get(&folded(key, *case)).map(|value| value.as_str()),
        }
    }
}

fn folded(key: &str, case: Case) -> String {
    match case {
        Case::Kept => key.to_owned(),
        Case::Folded => key.to_lowercase(),
    }
}

/// `static:text`, or `static:{ text with blanks }`.
fn static_value(name: &str) -> Result<String, String> {
    let value = without_braces(name).unwrap_or(name);
    if value.is_empty() { Err("it has no value".to_owned()) } else { Ok(value.to_owned()) }
}

/// `inline:{key=value, {key = value with blanks}}`. The last entry of a key counts.
fn inline_entries(name: &str, case: Case) -> Result<Entries, String> {
    let text = without_braces(name).ok_or("it is written as inline:{name=value, { name = text }}")?;
    let entries = elements(text)?.into_iter().map(|element| {
        let assignment = without_braces(element).unwrap_or(element);
        let (key, value) = assignment.split_once('=').ok_or_else(|| format!("\"{element}\" has no \"=\""))?;
        match key.trim() {
            "" => Err(format!("\"{element}\" has no key")),
            key => Ok((folded(key, case), Zeroizing::new(value.trim().to_owned()))),
        }
    });
    let entries: HashMap<_, _> = entries.collect::<Result<_, String>>()?;
    if entries.is_empty() { Err("it is empty".to_owned()) } else { Ok(entries) }
}

fn read_file(path: &str, readers: Readers) -> Result<Zeroizing<String>, String> {
    let cannot = |error: std::io::Error| format!("{path} cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    let mode = about.permissions().mode() & 0o7777;
    if readers == Readers::NotEverybody && mode & 0o004 != 0 {
        return Err(format!(
            "everybody may read the passwords in {path}, whose mode is {mode:04o}: say chmod o-r {path}"
        ));
    }
    // With room for all of it, so that no copy of a part is left behind when it would have to grow.
    let size = usize::try_from(about.len().min(FILE_SIZE_MAX)).unwrap_or_default();
    let mut octets = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(FILE_SIZE_MAX + 1).read_to_end(&mut octets).map_err(cannot)?;
    if octets.len() as u64 > FILE_SIZE_MAX {
        return Err(format!("{path} cannot be read: it is larger than 64 MB"));
    }
    Ok(Zeroizing::new(String::from_utf8_lossy(&octets).into_owned()))
}

/// The entries of a file as postmap(1) takes them. The first entry of a key counts; what is none is passed over with a
/// warning, as Postfix does.
fn file_entries(text: &str, name: &str, case: Case) -> Entries {
    let (mut entries, mut ignored) = (Entries::new(), 0);
    for line in Zeroizing::new(logical_lines(text)).iter() {
        match split_entry(line) {
            Some((key, value)) => {
                entries.entry(folded(key, case)).or_insert_with(|| Zeroizing::new(value.to_owned()));
            }
            None => ignored += 1,
        }
    }
    if ignored > 0 {
        // Without their text, which may be a secret.
        log::warn!("texthash:{name}: {ignored} lines are passed over that are no key with a value");
    }
    entries
}

/// A key, which ends at the first blank outside of quotes, and what follows it. A backslash hides the character behind it.
fn split_entry(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (mut is_quoted, mut is_hidden) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if is_hidden => is_hidden = false,
            '\\' => is_hidden = true,
            '"' => is_quoted = !is_quoted,
            c if c.is_ascii_whitespace() && !is_quoted => {
                let (key, value) = line.split_at(at);
                return Some((key, value.trim()));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_has_entries_as_postmap_takes_them() {
        let text =
            "a b  c  \n# x\n\n  d\n\"q r\" v\nA two\na three\nk: v\nonly\n\\\" z\nq\\ w y\n\"open x\nÄx u\n";
        let entries = file_entries(text, "t", Case::Folded);
        for (key, value) in [
            ("a", Some("b  c    d")),
            ("\"q r\"", Some("v")),
            ("q r", None),
            ("k:", Some("v")),
            ("only", None),
            ("\\\"", Some("z")),
            ("q\\ w", Some("y")),
            ("\"open", None),
            ("äx", Some("u")),
        ] {
            assert_eq!(entries.get(key).map(|value| value.as_str()), value, "{key}");
        }
        let kept = file_entries(text, "t", Case::Kept);
        assert_eq!(kept.get("A").map(|value| value.as_str()), Some("two"));
    }

    #[test]
    fn tables_stand_in_the_parameter_itself() {
        for (kind, name, key, value) in [
            ("inline", "{a=1, b=2}", "b", Ok(Some("2"))),
            ("inline", "{a=1,a=2}", "a", Ok(Some("2"))),
            ("inline", "{ {A = x, y} b= }", "a", Ok(Some("x, y"))),
            ("inline", "{ {A = x, y} b= }", "b", Ok(Some(""))),
            ("inline", "{{2.1.5 ok = 2.0.0 = fine}}", "2.1.5 ok", Ok(Some("2.0.0 = fine"))),
            ("inline", "{a=1}", "b", Ok(None)),
            ("inline", "{a = 1}", "a", Err(())),
            ("inline", "{a}", "a", Err(())),
            ("inline", "{=1}", "a", Err(())),
            ("inline", "{}", "a", Err(())),
            ("inline", "a=1", "a", Err(())),
            ("static", "x y", "any", Ok(Some("x y"))),
            ("static", "{ x y }", "any", Ok(Some("x y"))),
            ("static", "{}", "any", Err(())),
            ("static", "", "any", Err(())),
            ("texthash", "/nonexistent/x", "a", Err(())),
        ] {
            let table = Memory::read(kind, name, Case::Folded, Readers::Any);
            let found = table.as_ref().map(|table| table.as_ref().unwrap().look_up(key)).map_err(|_| ());
            assert_eq!(found, value, "{kind}:{name} {key}");
        }
        assert_eq!(Memory::read("hash", "/etc/aliases", Case::Folded, Readers::Any), Ok(None));
    }

    #[test]
    fn case_counts_where_it_is_kept() {
        let table = Memory::read("inline", "{A=1}", Case::Kept, Readers::Any).unwrap().unwrap();
        assert_eq!((table.look_up("A"), table.look_up("a")), (Some("1"), None));
    }

    #[test]
    fn passwords_that_everybody_may_read_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "mx.example.org user:secret\n").unwrap();
        let path = file.path().to_str().unwrap();
        for (mode, readers, is_read) in [
            (0o600, Readers::NotEverybody, true),
            (0o640, Readers::NotEverybody, true),
            (0o644, Readers::NotEverybody, false),
            (0o604, Readers::NotEverybody, false),
            (0o644, Readers::Any, true),
        ] {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            match Memory::read("texthash", path, Case::Folded, readers) {
                Ok(Some(table)) => {
                    assert!(is_read, "{mode:o}");
                    assert_eq!(table.look_up("MX.example.org"), Some("user:secret"));
                    assert!(!format!("{table:?}").contains("secret"), "{table:?}");
                }
                other => {
                    let told = other.unwrap_err();
                    assert!(!is_read && told.contains(&format!("chmod o-r {path}")), "{told}");
                    assert!(told.contains(&format!("{mode:04o}")) && !told.contains("secret"), "{told}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_line_is_an_entry_or_none(line in "[ab \"\\\\ä\t]{0,20}") {
            if let Some((key, value)) = split_entry(&line) {
                prop_assert!(!key.is_empty() && !value.is_empty());
                prop_assert_eq!(value, value.trim());
            }
        }
    }
}
