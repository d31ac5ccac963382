//! The sink's scripts, the patterns in them, and the commands it takes apart.

use lastmile::sink::{Script, parse_chunk, pattern_matches, split_path};

use super::text_of;

/// Rules stand each for itself: a script is as good as its first bad line, and blank lines, comments and line ends
/// change nothing.
pub fn script(input: &[u8]) {
    let text = &*text_of(input);
    // Ten thousand rules are too many, which is not what this is about.
    let lines: Vec<&str> = text.lines().take(1000).collect();
    let whole = Script::parse(&lines.join("\n"));
    let first_bad = lines.iter().position(|line| Script::parse(line).is_err());
    match &whole {
        Ok(_) => assert_eq!(first_bad, None, "a bad line went unnoticed"),
        Err(error) => {
            assert_eq!(Some(error.line), first_bad.map(|at| at + 1), "{error}");
            assert!(error.why.len() <= 300 + lines[error.line - 1].len(), "{error}");
        }
    }
    let shown = |script: &Script| format!("{script:?}");
    if let Ok(whole) = &whole {
        for altered in [lines.join("\r\n"), lines.join("\n# a comment\n\n"), lines.join("\n  ") + "\n"] {
            assert_eq!(shown(&Script::parse(&altered).unwrap()), shown(whole), "{altered:?}");
        }
    }
    if let Some((pattern, address)) = text.split_once('\n') {
        check_pattern(pattern, address);
    }
    check_commands(text);
}

fn check_pattern(pattern: &str, text: &str) {
    // The table has as many fields as the product of the lengths.
    if pattern.len() <= 200 && text.len() <= 200 {
        assert_eq!(pattern_matches(pattern, text), slow_match(pattern.as_bytes(), text.as_bytes()));
    } else {
        pattern_matches(pattern, text);
    }
}

/// One field for each beginning of the pattern: which beginnings of the text it fits.
fn slow_match(pattern: &[u8], text: &[u8]) -> bool {
    let mut fits: Vec<bool> = (0..=text.len()).map(|length| length == 0).collect();
    for &octet in pattern {
        let before = fits.clone();
        for length in 0..=text.len() {
            fits[length] = match (octet, length.checked_sub(1)) {
                (b'*', None) => before[0],
                (b'*', Some(shorter)) => before[length] || fits[shorter],
                (_, None) => false,
                (b'?', Some(shorter)) => before[shorter],
                (_, Some(shorter)) => before[shorter] && octet.eq_ignore_ascii_case(&text[shorter]),
            };
        }
    }
    fits[text.len()]
}

/// What is taken off a command is a part of it, in its place.
fn check_commands(text: &str) {
    for keyword in ["FROM:", "TO:"] {
        if let Some((path, parameters)) = split_path(text, keyword) {
            assert!(text.ends_with(&format!("<{path}>{parameters}")), "{text:?}");
            assert!(text[..keyword.len()].eq_ignore_ascii_case(keyword));
        }
        let written = format!("{keyword}<{text}> SIZE=1");
        if !text.contains(['"', '\\', '>']) {
            assert_eq!(split_path(&written, keyword), Some((text, " SIZE=1")));
        }
    }
    if let Some((octets, is_last)) = parse_chunk(text) {
        let printed = if is_last { format!("{octets} LAST") } else { octets.to_string() };
        assert_eq!(parse_chunk(&printed), Some((octets, is_last)));
        assert!(text.trim_ascii_start().starts_with(|c: char| c.is_ascii_digit()), "{text:?}");
    } else {
        assert!(text.parse::<u64>().is_err() || !text.starts_with(|c: char| c.is_ascii_digit()), "{text:?}");
    }
}
