//! Scripts: how the server is told to misbehave.
//!
//! - Owns: the script language ([`SCRIPT_HELP`] describes it), and which rule meets which command.
//! - Leaves to others: doing what a rule says (`session`).
//! - Always true: a rule that exists is complete; the n-th match of a rule is counted once, over all connections.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::pattern::pattern_matches;
use super::reply::Reply;

/// The script language, for people.
pub const SCRIPT_HELP: &str = "\
Scripts:
  A script has one rule a line; empty lines and lines that start with # mean nothing. The first rule that
  fits a command is followed, once; where none fits the server does as usual.

    STAGE [PATTERN] [MODIFIER]... [ACTION]

  STAGE     greeting, lhlo (also EHLO), helo, starttls, handshake (of TLS), auth, mail, rcpt, data (DATA, and each
            BDAT), content (as it begins), data-done (the end of the content; LMTP: for each recipient), rset,
            noop, quit
  PATTERN   for mail a sender, for rcpt and data-done a recipient: * is any text, ? any character, <> the
            null sender. A pattern has an @ or a *.
  MODIFIER  times N           only the first N matches
            after N           not the first N matches
            delay TIME        wait before replying (TIME: 500ms, 2s, 1m)
            drip N/TIME       write the reply N octets at a time
            twice             reply twice
            hold              keep all replies back, from this one to the end of the content
            swallow           data-done: say 250, and store nothing
            close-after       close the connection after the reply
            rekey             over TLS 1.3: take new keys before replying
  ACTION    CODE TEXT         reply so; \\n in TEXT starts another line. 421 closes the connection.
            inject TEXT       reply as usual, and write TEXT behind that, in the same write
            garbage [TEXT]    write a line that is no reply
            partial CODE TEXT write this much, without a line end, and never write again
            silence           do not reply
            close             close the connection instead of replying
            close-notify      the same, after the word that TLS has for it
            reset             the same, so that the client sees ECONNRESET (TCP)

  Without an action the server does and replies as usual. A refusal in stage content is written at once, the
  content is then read and forgotten. At data-done, the closing actions come after the message was stored. At
  auth, 334 TEXT is written as a challenge, to which no response is right. A handshake has no replies: partial N
  writes its first N octets there.

    rcpt bob@*               550 5.1.1 no such user
    rcpt slow@*              delay 2s
    data-done carol@*        times 1 451 4.2.0 mailbox busy
    greeting                 after 10 times 5 421 4.3.2 closing
    mail                     close
    rcpt *                   drip 1/100ms
    starttls                 inject 250-sink.example\\n250 PIPELINING
    handshake                times 1 partial 20
";

/// Rules in a script.
const RULES_MAX: usize = 10_000;
/// The longest wait a rule may ask for.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where in a conversation a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Greeting,
    /// LHLO or EHLO.
    Lhlo,
    Helo,
    StartTls,
    /// The server's part of the handshake that begins TLS.
    Handshake,
    Auth,
    Mail,
    Rcpt,
    /// DATA, and each BDAT.
    Data,
    /// The first octet of the content.
    Content,
    DataDone,
    Rset,
    Noop,
    Quit,
}

impl Stage {
    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "greeting" => Self::Greeting,
            "lhlo" | "ehlo" => Self::Lhlo,
            "helo" => Self::Helo,
            "starttls" => Self::StartTls,
            "handshake" => Self::Handshake,
            "auth" => Self::Auth,
            "mail" => Self::Mail,
            "rcpt" => Self::Rcpt,
            "data" => Self::Data,
            "content" => Self::Content,
            "data-done" => Self::DataDone,
            "rset" => Self::Rset,
            "noop" => Self::Noop,
            "quit" => Self::Quit,
            _ => return None,
        })
    }

    /// Whether a pattern can choose between commands of this stage.
    fn has_address(self) -> bool {
        matches!(self, Self::Mail | Self::Rcpt | Self::DataDone)
    }
}

/// What a rule asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Action {
    pub delay: Duration,
    pub drip: Option<Drip>,
    pub twice: bool,
    pub hold: bool,
    pub swallow: bool,
    pub close_after: bool,
    pub rekey: bool,
    pub what: What,
}

/// A reply written bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drip {
    pub octets: usize,
    pub interval: Duration,
}

/// What is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum What {
    #[default]
    Usual,
    Reply(Reply),
    /// The usual reply, and these octets behind it.
    Inject(Vec<u8>),
    Garbage(Vec<u8>),
    Partial(Vec<u8>),
    /// So many octets of a handshake.
    FirstOctets(usize),
    Silence,
    Close,
    CloseNotify,
    Reset,
}

impl Action {
    /// The rule's own reply, where it has one.
    pub fn reply(&self) -> Option<&Reply> {
        if let What::Reply(reply) = &self.what { Some(reply) } else { None }
    }

    /// The rule's own reply, where it refuses the command.
    pub fn refusal(&self) -> Option<&Reply> {
        self.reply().filter(|reply| !reply.is_positive())
    }
}

/// One rule, and how often it has matched.
#[derive(Debug)]
struct Rule {
    stage: Stage,
    pattern: Option<String>,
    after: u32,
    times: u32,
    matched: AtomicU32,
    action: Action,
}

/// A script: rules in order. The empty one changes nothing.
#[derive(Debug, Default)]
pub struct Script {
    rules: Vec<Rule>,
}

/// A line that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadRule {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// Why a script could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file could not be read.
    #[error("cannot read the script {}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line in it is no rule.
    #[error("{}: {error}", path.display())]
    Rule {
        /// Which file.
        path: PathBuf,
        /// Which line, and why.
        error: BadRule,
    },
}

impl Script {
    /// Reads a script from a file.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let text =
            fs::read_to_string(path).map_err(|error| ScriptError::Io { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|error| ScriptError::Rule { path: path.to_owned(), error })
    }

    /// Reads a script.
    pub fn parse(text: &str) -> Result<Self, BadRule> {
        let mut rules = Vec::new();
        for (line, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let bad = |why| BadRule { line: line + 1, why };
            if rules.len() == RULES_MAX {
                return Err(bad(format!("a script has at most {RULES_MAX} rules")));
            }
            rules.push(parse_rule(text).map_err(bad)?);
        }
        Ok(Self { rules })
    }

    /// What to do at `stage`, with `address` as the command's; `None` for the usual thing. Counts the match.
    pub(super) fn action(&self, stage: Stage, address: &str) -> Option<&Action> {
        let fits = |rule: &&Rule| {
            rule.stage == stage
                && rule.pattern.as_ref().is_none_or(|pattern| pattern_matches(pattern, address))
                && rule.counts_this()
        };
        self.rules.iter().find(fits).map(|rule| &rule.action)
    }
}

impl Rule {
    /// Counts a match; whether it is one of those that the rule is about.
    fn counts_this(&self) -> bool {
        if self.after == 0 && self.times == u32::MAX {
            return true;
        }
        // Counting stops at the end of the range, so that a long run never wraps around to its start.
        let end = self.after.saturating_add(self.times);
        let count = |matched: u32| (matched < end).then_some(matched + 1);
        match self.matched.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count) {
            Ok(matched) => matched >= self.after,
            Err(_) => false,
        }
    }
}

/// Splits off the first word.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let (first, mut rest) = word(text);
    let stage = Stage::parse(first).ok_or_else(|| format!("\"{first}\" is no stage"))?;
    let mut pattern = None;
    let (second, after_second) = word(rest);
    if second == "<>" || second.contains(['@', '*']) {
        if !stage.has_address() {
            return Err(format!("{first} has no address that \"{second}\" could match"));
        }
        pattern = Some(if second == "<>" { String::new() } else { second.to_owned() });
        rest = after_second;
    }
    if rest.is_empty() {
        return Err("the rule does not say what to do".to_owned());
    }
    let mut rule = Rule {
        stage,
        pattern,
        after: 0,
        times: u32::MAX,
        matched: AtomicU32::new(0),
        action: Action::default(),
    };
    while !rest.is_empty() {
        rest = parse_step(&mut rule, rest)?;
    }
    let action = &rule.action;
    if action.swallow && stage != Stage::DataDone {
        return Err("swallow belongs to data-done".to_owned());
    }
    if stage == Stage::Handshake && !suits_handshake(action) {
        return Err("a handshake can be slow, dripped, cut off, closed, reset, silent or garbage".to_owned());
    }
    Ok(rule)
}

/// Whether an action makes sense where there are no replies.
fn suits_handshake(action: &Action) -> bool {
    let has_replies = matches!(action.what, What::Reply(_) | What::Inject(_) | What::CloseNotify);
    !(has_replies || action.twice || action.hold || action.rekey)
}

/// Takes one modifier, or the action with all that follows it, off the front.
fn parse_step<'a>(rule: &mut Rule, text: &'a str) -> Result<&'a str, String> {
    let (name, rest) = word(text);
    let (value, after_value) = word(rest);
    let action = &mut rule.action;
    match name {
        "times" => rule.times = parse_number(name, value)?,
        "after" => rule.after = parse_number(name, value)?,
        "delay" => action.delay = parse_time(value)?,
        "drip" => action.drip = Some(parse_drip(value)?),
        "twice" => action.twice = true,
        "hold" => action.hold = true,
        "swallow" => action.swallow = true,
        "close-after" => action.close_after = true,
        "rekey" => action.rekey = true,
        "partial" if rule.stage == Stage::Handshake => {
            action.what = What::FirstOctets(parse_octets(rest)?);
            return Ok("");
        }
        _ => {
            action.what = parse_what(name, rest, text)?;
            return Ok("");
        }
    }
    Ok(if matches!(name, "times" | "after" | "delay" | "drip") { after_value } else { rest })
}

fn parse_what(name: &str, rest: &str, text: &str) -> Result<What, String> {
    let alone = |what| match rest {
        "" => Ok(what),
        _ => Err(format!("nothing may follow \"{name}\": modifiers stand before it")),
    };
    match name {
        "silence" => alone(What::Silence),
        "close" => alone(What::Close),
        "close-notify" => alone(What::CloseNotify),
        "reset" => alone(What::Reset),
        "inject" if rest.is_empty() => Err("inject needs what is to be written".to_owned()),
        "inject" => Ok(What::Inject(format!("{}\r\n", rest.replace("\\n", "\r\n")).into_bytes())),
        "garbage" if rest.is_empty() => Ok(What::Garbage(b"?!\x80\xff this is not a reply\r\n".to_vec())),
        "garbage" => Ok(What::Garbage(format!("{rest}\r\n").into_bytes())),
        "partial" if rest.is_empty() => Err("partial needs what is to be written".to_owned()),
        "partial" => Ok(What::Partial(rest.as_bytes().to_vec())),
        _ if name.starts_with(|c: char| c.is_ascii_digit()) => Ok(What::Reply(parse_reply(text)?)),
        _ => Err(format!("\"{name}\" is no modifier and no action")),
    }
}

fn parse_reply(text: &str) -> Result<Reply, String> {
    let (code, text) = word(text);
    match code.parse() {
        Ok(number @ 200..=599) if code.len() == 3 => Ok(Reply::new(number, "", text.replace("\\n", "\n"))),
        _ => Err(format!("\"{code}\" is no reply code: 200 to 599")),
    }
}

fn parse_octets(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("partial needs a number of octets in a handshake, not \"{text}\""))
}

fn parse_number(name: &str, text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{name} needs a number, not \"{text}\""))
}

fn parse_drip(text: &str) -> Result<Drip, String> {
    let usage = || format!("drip needs octets and an interval as in 1/100ms, not \"{text}\"");
    let (octets, interval) = text.split_once('/').ok_or_else(usage)?;
    match octets.parse() {
        Ok(octets @ 1..) => Ok(Drip { octets, interval: parse_time(interval)? }),
        _ => Err(usage()),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" | "" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let time = milliseconds.zip(number.parse().ok()).and_then(|(unit, n): (u64, u64)| unit.checked_mul(n));
    match time.map(Duration::from_millis) {
        Some(time) if time <= WAIT_MAX => Ok(time),
        Some(_) => Err(format!("\"{text}\" is too long: a rule waits for a day at most")),
        None => Err(format!("\"{text}\" is no time: 500ms, 2s, 1m and 1h are")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(rule: &str) -> Action {
        Script::parse(rule).unwrap().rules.remove(0).action
    }

    #[test]
    fn rules_say_what_they_mean() {
        let usual = Action::default();
        let drip = Drip { octets: 1, interval: Duration::from_millis(100) };
        for (rule, expected) in [
            (
                "rcpt bob@* 550 5.1.1 no such user",
                Action { what: What::Reply(Reply::new(550, "", "5.1.1 no such user")), ..usual.clone() },
            ),
            ("rcpt slow@* delay 2s", Action { delay: Duration::from_secs(2), ..usual.clone() }),
            ("mail close", Action { what: What::Close, ..usual.clone() }),
            ("rcpt * drip 1/100ms", Action { drip: Some(drip), ..usual.clone() }),
            (
                "quit close-after twice 221 a\\nb",
                Action {
                    close_after: true,
                    twice: true,
                    what: What::Reply(Reply::new(221, "", "a\nb")),
                    ..usual.clone()
                },
            ),
            ("data partial 35", Action { what: What::Partial(b"35".to_vec()), ..usual.clone() }),
            ("lhlo garbage oops", Action { what: What::Garbage(b"oops\r\n".to_vec()), ..usual.clone() }),
            (
                "starttls inject 250-a\\n250 b",
                Action { what: What::Inject(b"250-a\r\n250 b\r\n".to_vec()), ..usual.clone() },
            ),
            (
                "handshake close-after partial 20",
                Action { close_after: true, what: What::FirstOctets(20), ..usual.clone() },
            ),
            ("handshake silence", Action { what: What::Silence, ..usual.clone() }),
            ("mail rekey", Action { rekey: true, ..usual.clone() }),
            ("data close-notify", Action { what: What::CloseNotify, ..usual.clone() }),
            ("auth 334 ???", Action { what: What::Reply(Reply::new(334, "", "???")), ..usual.clone() }),
        ] {
            assert_eq!(action(rule), expected, "{rule}");
        }
        assert!(matches!(action("lhlo garbage").what, What::Garbage(_)));
    }

    #[test]
    fn a_bad_rule_is_named_with_its_line() {
        for (rule, why) in [
            ("hello 250 ok", "\"hello\" is no stage"),
            ("rcpt", "the rule does not say what to do"),
            ("rcpt bob@*", "the rule does not say what to do"),
            ("data bob@* close", "data has no address"),
            ("mail 199 x", "no reply code"),
            ("mail 6000 x", "no reply code"),
            ("mail times x close", "times needs a number"),
            ("mail delay 2w close", "is no time"),
            ("mail delay 25h close", "too long"),
            ("mail drip 0/1s", "drip needs"),
            ("mail drip 1", "drip needs"),
            ("mail close twice", "nothing may follow \"close\""),
            ("mail partial", "partial needs"),
            ("mail swallow", "swallow belongs to data-done"),
            ("mail frobnicate", "no modifier and no action"),
            ("starttls inject", "inject needs"),
            ("starttls a@* close", "starttls has no address"),
            ("handshake partial 35x", "number of octets"),
            ("handshake 220 go", "a handshake can be"),
            ("handshake twice", "a handshake can be"),
            ("handshake rekey", "a handshake can be"),
        ] {
            let error = Script::parse(&format!("# first\n\n{rule}\n")).unwrap_err();
            assert_eq!(error.line, 3, "{rule}");
            assert!(error.why.contains(why), "{rule}: {}", error.why);
        }
    }

    #[test]
    fn a_script_that_cannot_be_used_names_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules");
        assert!(Script::load(&path).unwrap_err().to_string().contains("rules: "));
        fs::write(&path, "mail nonsense\n").unwrap();
        assert!(
            Script::load(&path)
                .unwrap_err()
                .to_string()
                .ends_with("rules: line 1: \"nonsense\" is no modifier and no action")
        );
    }

    #[test]
    fn the_first_rule_that_fits_wins_and_times_run_out() {
        let script =
            Script::parse("rcpt a@* after 1 times 2 450 busy\nrcpt a@* 550 no\nrcpt b@* close").unwrap();
        let codes: Vec<_> = (0..5)
            .map(|_| script.action(Stage::Rcpt, "A@x").and_then(Action::reply).map(|reply| reply.code))
            .collect();
        assert_eq!(codes, [Some(550), Some(450), Some(450), Some(550), Some(550)]);
        assert!(script.action(Stage::Rcpt, "c@x").is_none());
        assert!(script.action(Stage::Mail, "a@x").is_none());
    }
}
