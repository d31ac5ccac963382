//! The sendmail command line: short options in getopt's manner, as programs have passed them for forty years.
//!
//! - Owns: which options there are, which of them are taken and ignored, which are refused. PURE.
//! - Leaves to others: addresses (`address_list`), and everything that options make happen.
//! - Always true: an option that would change where mail goes or who hears of it is obeyed or refused, never
//!   ignored.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::mail::{Notify, Return};

/// Octets of an envelope ID (RFC 3461 section 4.4).
const ENVID_LENGTH_MAX: usize = 100;
/// Options with a value that say nothing to us: submission class, configuration, error mode, hop count, label,
/// other options, protocol.
const IGNORED_WITH_VALUE: &str = "ACehLOp";
/// Options without a value that say nothing to us: gateway, initial submission, verbose and their like.
const IGNORED: &str = "GUcmvx";

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-f`, `-r`: the envelope sender as written.
    pub sender: Option<String>,
    /// `-F`: the sender's full name, for From.
    pub full_name: Option<String>,
    /// `-i`, `-oi`: a line with a lone dot does not end the message.
    pub dots_are_content: bool,
    /// `-t`: recipients stand in the header.
    pub recipients_from_header: bool,
    /// `-n`: local names mean themselves, whatever aliases there are.
    pub no_aliases: bool,
    /// `-N`: the reports that are wanted.
    pub notify: Notify,
    /// `-V`: the submitter's own name for the message.
    pub envid: Option<String>,
    /// `-R`: what a bounce returns.
    pub ret: Option<Return>,
    /// `--nexthop`: where to, against the routes.
    pub nexthop: Option<String>,
    /// Recipients as written.
    pub recipients: Vec<String>,
}

/// Why a command line cannot be obeyed. To a person it is a whole sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An option that sendmail does not have either.
    #[error("there is no option {0}")]
    Unknown(String),
    /// An option without its value.
    #[error("option {0} needs a value")]
    NoValue(String),
    /// A value that cannot be.
    #[error("option {option} does not take {value:?}: {why}")]
    BadValue {
        /// The option.
        option: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something that sendmail can and this command does not do.
    #[error("{option} ({what}) is not something that this command does")]
    Unsupported {
        /// As written.
        option: String,
        /// What it would be.
        what: &'static str,
    },
    /// An option after the first recipient.
    #[error("{0:?} stands where only recipients stand; options come first, and \"--\" ends them")]
    Misplaced(String),
    /// Octets that are no UTF-8.
    #[error("{0:?} is not UTF-8")]
    NotUtf8(OsString),
}

impl Options {
    /// Reads the arguments, without the name of the command.
    pub fn parse(args: &[OsString]) -> Result<Self, UsageError> {
        let mut options = Self::default();
        let mut args = Args { rest: args.iter() };
        let mut ended = false;
        while let Some(arg) = args.rest.next() {
            let text = utf8(arg)?;
            match text.strip_prefix('-') {
                Some("-") if !ended && options.recipients.is_empty() => ended = true,
                Some(_) if ended => options.recipients.push(text.to_owned()),
                Some(_) if !options.recipients.is_empty() => {
                    return Err(UsageError::Misplaced(text.to_owned()));
                }
                Some(long) if long.starts_with('-') => options.long(text, &mut args)?,
                Some(letters) if !letters.is_empty() => options.short(letters, &mut args)?,
                _ => options.recipients.push(text.to_owned()),
            }
        }
        Ok(options)
    }

    /// `--name VALUE` or `--name=VALUE`.
    fn long(&mut self, text: &str, args: &mut Args<'_>) -> Result<(), UsageError> {
        let (name, attached) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match name {
            "--nexthop" => self.nexthop = Some(args.value(name, attached.unwrap_or(""))?.to_owned()),
            "--lmtp" | "--esmtp" => {
                return Err(unsupported(name, "delivery without a queue"));
            }
            _ => return Err(UsageError::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// The letters behind one dash; the first that takes a value takes what follows it, or the next argument.
    fn short(&mut self, letters: &str, args: &mut Args<'_>) -> Result<(), UsageError> {
        for (at, letter) in letters.char_indices() {
            let option = format!("-{letter}");
            if self.switch(letter) {
                continue;
            }
            let attached = letters.get(at + letter.len_utf8()..).unwrap_or("");
            return match letter {
                'I' => Err(unsupported(&option, "rebuilding the alias table")),
                // Its value is optional and must be attached.
                'q' => Err(unsupported(&format!("-q{attached}"), "running the queue")),
                // The null sender is an empty value of its own.
                'f' | 'r' if attached.is_empty() => {
                    self.sender = Some(args.next(&option)?.to_owned());
                    Ok(())
                }
                _ => {
                    let is_known = "BFNRVXbfor".contains(letter) || IGNORED_WITH_VALUE.contains(letter);
                    if !is_known {
                        return Err(UsageError::Unknown(option));
                    }
                    self.valued(letter, args.value(&option, attached)?)
                }
            };
        }
        Ok(())
    }

    /// Takes a letter that has no value.
    fn switch(&mut self, letter: char) -> bool {
        match letter {
            'i' => self.dots_are_content = true,
            't' => self.recipients_from_header = true,
            'n' => self.no_aliases = true,
            _ => return IGNORED.contains(letter),
        }
        true
    }

    fn valued(&mut self, letter: char, value: &str) -> Result<(), UsageError> {
        let bad = |why: &dyn ToString| UsageError::BadValue {
            option: format!("-{letter}"),
            value: value.to_owned(),
            why: why.to_string(),
        };
        match letter {
            'f' | 'r' => self.sender = Some(value.to_owned()),
            'F' => self.full_name = Some(value.to_owned()),
            'N' => self.notify = value.parse().map_err(|error| bad(&error))?,
            'R' => self.ret = Some(value.parse().map_err(|error| bad(&error))?),
            'V' => {
                let fits = value.len() <= ENVID_LENGTH_MAX && !value.chars().any(char::is_control);
                let why = "an envelope ID is 1 to 100 printable characters";
                self.envid = Some(fits.then(|| value.to_owned()).ok_or_else(|| bad(&why))?);
            }
            'X' if value.starts_with('V') => return Err(unsupported("-XV", "one sender for each recipient")),
            'o' if value.starts_with('i') => self.dots_are_content = true,
            'b' => mode(value)?,
            // -B: whether content has eight bits is seen from the content. -X: a log of the conversation.
            _ => {}
        }
        Ok(())
    }
}

/// `-bm`, reading a message from standard input, is what this command does anyway.
fn mode(value: &str) -> Result<(), UsageError> {
    let what = match value {
        "m" | "l" => return Ok(()),
        "s" => "speaking SMTP on standard input",
        "p" => "showing the queue",
        "i" => "rebuilding the alias table",
        "d" | "D" => "running as a mail server",
        "v" => "verifying addresses",
        "t" => "testing addresses",
        "h" | "H" => "showing or clearing host status",
        _ => "a mode that is not known here",
    };
    Err(unsupported(&format!("-b{value}"), what))
}

fn unsupported(option: &str, what: &'static str) -> UsageError {
    UsageError::Unsupported { option: option.to_owned(), what }
}

/// The arguments that are still to be read.
struct Args<'a> {
    rest: std::slice::Iter<'a, OsString>,
}

impl<'a> Args<'a> {
    /// The next argument, whatever it is.
    fn next(&mut self, option: &str) -> Result<&'a str, UsageError> {
        utf8(self.rest.next().ok_or_else(|| UsageError::NoValue(option.to_owned()))?)
    }

    /// The value that is attached to an option, or else the next argument; never empty.
    fn value<'b>(&mut self, option: &str, attached: &'b str) -> Result<&'b str, UsageError>
    where
        'a: 'b,
    {
        let value = if attached.is_empty() { self.next(option)? } else { attached };
        if value.is_empty() { Err(UsageError::NoValue(option.to_owned())) } else { Ok(value) }
    }
}

fn utf8(arg: &OsStr) -> Result<&str, UsageError> {
    std::str::from_utf8(arg.as_bytes()).map_err(|_| UsageError::NotUtf8(arg.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Options, UsageError> {
        // "''" stands for an empty argument, as in a shell.
        let args: Vec<OsString> =
            line.split_whitespace().map(|word| if word == "''" { "".into() } else { word.into() }).collect();
        Options::parse(&args)
    }

    #[test]
    fn values_are_attached_or_follow() {
        let sender = |text: &str| Some(text.to_owned());
        for (line, expected) in [
            ("", Options::default()),
            (
                "-fa@x b@y",
                Options { sender: sender("a@x"), recipients: vec!["b@y".into()], ..Options::default() },
            ),
            ("-f a@x", Options { sender: sender("a@x"), ..Options::default() }),
            ("-r a@x", Options { sender: sender("a@x"), ..Options::default() }),
            ("-f ''", Options { sender: sender(""), ..Options::default() }),
            ("-f <>", Options { sender: sender("<>"), ..Options::default() }),
            ("-ti", Options { dots_are_content: true, recipients_from_header: true, ..Options::default() }),
            ("-oi", Options { dots_are_content: true, ..Options::default() }),
            ("-o i", Options { dots_are_content: true, ..Options::default() }),
            ("-tfa@x", Options { recipients_from_header: true, sender: sender("a@x"), ..Options::default() }),
            ("-F Ann", Options { full_name: Some("Ann".into()), ..Options::default() }),
            ("-n", Options { no_aliases: true, ..Options::default() }),
            ("-N never", Options { notify: Notify::NEVER, ..Options::default() }),
            (
                "-R hdrs -V QQ7",
                Options { ret: Some(Return::Headers), envid: Some("QQ7".into()), ..Options::default() },
            ),
            (
                "--nexthop unix:/run/lmtp",
                Options { nexthop: Some("unix:/run/lmtp".into()), ..Options::default() },
            ),
            ("--nexthop=mx:24", Options { nexthop: Some("mx:24".into()), ..Options::default() }),
            ("-- -b@y", Options { recipients: vec!["-b@y".into()], ..Options::default() }),
            (
                "-i -- b@y",
                Options { dots_are_content: true, recipients: vec!["b@y".into()], ..Options::default() },
            ),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn what_other_programs_pass_along_is_ignored() {
        for line in [
            "-bm -odi -oem -om -o7 -oQ/x",
            "-G -U -c -m -v -x -vv",
            "-Am -A c -C/etc/x -ep -h 3 -L tag -O Opt=1 -p SMTP:x",
            "-B8BITMIME -B 7BIT -X /tmp/log",
        ] {
            assert_eq!(parse(line), Ok(Options::default()), "{line:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (line, words) in [
            ("-bs", "-bs (speaking SMTP on standard input) is not"),
            ("-b p", "-bp (showing the queue) is not"),
            ("-bi", "-bi (rebuilding"),
            ("-I", "-I (rebuilding"),
            ("-q", "-q (running the queue)"),
            ("-q30m", "-q30m (running the queue)"),
            ("-tqf", "-qf (running the queue)"),
            ("-XV", "-XV (one sender for each recipient)"),
            ("--lmtp mx:24", "--lmtp (delivery without a queue)"),
            ("--esmtp=mx", "--esmtp (delivery without a queue)"),
            ("--verbose", "there is no option --verbose"),
            ("-z", "there is no option -z"),
            ("-é", "there is no option -é"),
            ("-f", "option -f needs a value"),
            ("-F ''", "option -F needs a value"),
            ("--nexthop", "option --nexthop needs a value"),
            ("-N maybe", "option -N does not take \"maybe\": NOTIFY is"),
            ("-R half", "option -R does not take \"half\": RET is"),
            ("b@y -f a@x", "\"-f\" stands where only recipients stand"),
            ("b@y --", "\"--\" stands where only recipients stand"),
        ] {
            let text = parse(line).unwrap_err().to_string();
            assert!(text.starts_with(words), "{line:?} gave {text:?}");
        }
        let long = format!("-V{}", "x".repeat(101));
        assert!(parse(&long).is_err());
        let latin1 = OsStr::from_bytes(b"-f\xe9@x").to_owned();
        assert!(matches!(Options::parse(&[latin1]), Err(UsageError::NotUtf8(_))));
    }

    proptest! {
        #[test]
        fn no_command_line_panics(args in proptest::collection::vec("-{0,2}[A-Za-zé=]{0,3}\\PC{0,3}", 0..6)) {
            let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
            let _ = Options::parse(&args);
        }
    }
}
