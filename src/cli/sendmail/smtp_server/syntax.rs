//! Commands taken apart (RFC 5321 section 4.1, RFC 1870, RFC 3461, RFC 6152, RFC 6531), and what is wrong with them.
//!
//! - Owns: verbs, paths, parameters. PURE.
//! - Leaves to others: what a command does (`session`).
//! - Always true: blanks and missing angle brackets are forgiven, as programs rely on that; what is not clearly one
//!   address, or one known parameter, is refused. No reply repeats anything that could leave its line.

use crate::cli::sendmail::address_list::{self, BadList};
use crate::cli::sendmail::options::is_envid;
use crate::mail::{Address, BodyType, Notify, OriginalRecipient, Return, from_xtext, shortened};
use crate::sink::{Reply, split_path};

/// Where words end.
const BLANKS: [char; 2] = [' ', '\t'];

/// A reply with words that are not ours: short, of printable ASCII, on one line.
pub(super) fn refusal(code: u16, status: &'static str, text: impl AsRef<str>) -> Reply {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    Reply::new(code, status, shortened(text.as_ref()).chars().map(printable).collect::<String>())
}

/// The verb of a line, and what follows it. `None` for what cannot be a command in any language.
pub(super) fn split(line: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(line).ok()?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return None;
    }
    let text = text.trim_matches(BLANKS);
    let (verb, rest) = text.split_once(BLANKS).unwrap_or((text, ""));
    Some((verb, rest.trim_start_matches(BLANKS)))
}

/// The path after `keyword` (in any case), with its angle brackets if it has any, and the parameters behind it.
pub(super) fn path<'t>(verb: &str, keyword: &str, rest: &'t str) -> Result<(&'t str, &'t str), Reply> {
    let syntax = || refusal(501, "5.5.4", format!("write {verb} {keyword}<ADDRESS>"));
    if let Some((_, parameters)) = split_path(rest, keyword) {
        let path = rest.strip_suffix(parameters).and_then(|path| path.get(keyword.len()..));
        return Ok((path.ok_or_else(syntax)?.trim_matches(BLANKS), parameters));
    }
    let (head, bare) = rest.split_at_checked(keyword.len()).ok_or_else(syntax)?;
    let bare = bare.trim_start_matches(BLANKS);
    if !head.eq_ignore_ascii_case(keyword) || bare.is_empty() {
        return Err(syntax());
    }
    Ok(bare.split_once(BLANKS).unwrap_or((bare, "")))
}

/// The address of a path; `None` for `<>`.
pub(super) fn address(path: &str) -> Result<Option<Address>, String> {
    if path
        .strip_prefix('<')
        .and_then(|path| path.strip_suffix('>'))
        .is_some_and(|path| path.trim().is_empty())
    {
        return Ok(None);
    }
    let none = || format!("{:?} is not one address", shortened(path));
    // Routes and quoted strings are the same there as in a header.
    let mut list = address_list::parse(path).map_err(|error| match error {
        BadList::Address { why, .. } => format!("{}: {why}", none()),
        _ => none(),
    })?;
    match (list.pop(), list.is_empty()) {
        (Some(address), true) => Ok(Some(address)),
        _ => Err(none()),
    }
}

/// What MAIL says besides the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MailParameters {
    /// Octets of the message, 0 if nobody said.
    pub(super) size: u64,
    pub(super) ret: Option<Return>,
    pub(super) envid: Option<String>,
    pub(super) smtputf8: bool,
}

impl MailParameters {
    pub(super) fn parse(text: &str) -> Result<Self, Reply> {
        let mut parameters = Self::default();
        for (keyword, value) in each(text)? {
            let is_valid = match keyword.as_str() {
                "SIZE" => number(value).map(|size| parameters.size = size).is_some(),
                // What the content is shows when it has come.
                "BODY" => value.parse::<BodyType>().is_ok(),
                "RET" => value.parse().map(|ret| parameters.ret = Some(ret)).is_ok(),
                "ENVID" => {
                    parameters.envid = from_xtext(value).filter(|envid| is_envid(envid));
                    parameters.envid.is_some()
                }
                "SMTPUTF8" => {
                    parameters.smtputf8 = true;
                    value.is_empty()
                }
                _ => return Err(unknown(&keyword)),
            };
            check(is_valid, &keyword, value)?;
        }
        Ok(parameters)
    }
}

/// What RCPT says besides the recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RcptParameters {
    pub(super) notify: Option<Notify>,
    pub(super) orcpt: Option<OriginalRecipient>,
}

impl RcptParameters {
    pub(super) fn parse(text: &str) -> Result<Self, Reply> {
        let mut parameters = Self::default();
        for (keyword, value) in each(text)? {
            let is_valid = match keyword.as_str() {
                "NOTIFY" => value.parse().map(|notify| parameters.notify = Some(notify)).is_ok(),
                "ORCPT" => OriginalRecipient::from_parameter(value)
                    .map(|orcpt| parameters.orcpt = Some(orcpt))
                    .is_ok(),
                _ => return Err(unknown(&keyword)),
            };
            check(is_valid, &keyword, value)?;
        }
        Ok(parameters)
    }
}

/// Keywords in upper case, each at most once, and their values.
fn each(text: &str) -> Result<Vec<(String, &str)>, Reply> {
    let mut found: Vec<(String, &str)> = Vec::new();
    for word in text.split(BLANKS).filter(|word| !word.is_empty()) {
        let (keyword, value) = word.split_once('=').unwrap_or((word, ""));
        let keyword = keyword.to_ascii_uppercase();
        if found.iter().any(|(known, _)| *known == keyword) {
            return Err(refusal(501, "5.5.4", format!("{keyword} stands there twice")));
        }
        // Only these exist; the bound on the line is the bound on how many there are.
        found.push((keyword, value));
    }
    Ok(found)
}

fn check(is_valid: bool, keyword: &str, value: &str) -> Result<(), Reply> {
    if is_valid {
        return Ok(());
    }
    Err(refusal(501, "5.5.4", format!("{keyword} cannot be {value:?}")))
}

fn unknown(keyword: &str) -> Reply {
    refusal(555, "5.5.4", format!("there is no parameter {keyword}"))
}

/// A number of up to 20 digits (RFC 1870 section 5); what is more than anybody counts is very much.
fn number(text: &str) -> Option<u64> {
    let is_number = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}
