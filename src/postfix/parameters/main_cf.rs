//! main.cf, read without Postfix: for the one value that is needed to find postconf(1).
//!
//! - Owns: logical lines of main.cf and texthash tables, and a value as it stands there.
//! - Leaves to others: `$` expansion and all other values (`postconf`).
//! - Always true: any text has logical lines; what is no assignment is passed over.

/// Logical lines: comments and empty lines are left out wherever they stand, and a line that begins with white space
/// continues the one before.
pub fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let written = line.trim_start_matches(is_blank);
        if written.is_empty() || written.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some(last) if line.starts_with(is_blank) => last.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// The value of a parameter where it stands in `text`, unless it is empty or refers to another one. The last assignment
/// wins.
pub fn literal_value(text: &str, name: &str) -> Option<String> {
    let lines = logical_lines(text);
    let mut assignments = lines.iter().filter_map(|line| line.split_once('='));
    let value = assignments.rfind(|(known, _)| known.trim() == name)?.1.trim();
    (!value.is_empty() && !value.contains('$')).then(|| value.to_owned())
}

/// The names of the parameters that `text` sets.
pub fn assigned_names(text: &str) -> Vec<String> {
    let lines = logical_lines(text);
    let names = lines.iter().filter_map(|line| line.split_once('='));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_and_empty_lines_end_no_line() {
        let text = "# a\na = 1\n  2\n\n # b\n\t3\n#c\nb=4\n   \n=5\nc\n";
        assert_eq!(logical_lines(text), ["a = 1  2\t3", "b=4", "=5", "c"]);
    }

    #[test]
    fn the_last_literal_value_counts() {
        for (text, value) in [
            ("command_directory = /a\n", Some("/a")),
            ("command_directory=/a\nmyhostname = x\ncommand_directory =\n /b \n", Some("/b")),
            ("command_directory = /a\ncommand_directory = $x/b", None),
            ("command_directory =", None),
            ("#command_directory = /a", None),
            ("xcommand_directory = /a", None),
            ("", None),
        ] {
            assert_eq!(literal_value(text, "command_directory").as_deref(), value, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_lines(text in "[a# =\n\t\r]{0,60}") {
            for line in logical_lines(&text) {
                prop_assert!(!line.trim().is_empty() && !line.contains('\n'));
            }
        }
    }
}
