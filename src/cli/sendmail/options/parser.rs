//! The sendmail command line as it is spelled: short options in getopt's manner, as programs have passed them for forty
//! years, and the long ones of smtpc.
//!
//! - Owns: which options there are, which take a value, which are taken and ignored, which are refused. PURE.
//! - Leaves to others: which options go together (`options`).
//! - Always true: options end at `--` and at the first recipient; an option with a value never leaves it to be taken for a
//!   recipient.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::{Direct, Mode, Options, Role, UsageError};
use crate::mail::Protocol;

/// Octets of an envelope ID (RFC 3461 section 4.4).
const ENVID_LENGTH_MAX: usize = 100;
/// Options with a value. The list is that of Postfix's sendmail(1), so that nobody's value becomes a recipient.
const WITH_VALUE: &str = "ABCFLNORVXbefhopr";
/// Options without a value that say nothing to us: gateway, initial submission, verbose and their like.
const IGNORED: &str = "GUcmvx";
/// What stands between sender and recipient where each recipient gets a sender of its own (VERP). Postfix takes two of
/// these after `-V` for that.
const VERP_DELIMITERS: &str = "+-=";

/// The command line, half read.
pub(super) struct Parser<'a> {
    pub(super) role: Role,
    pub(super) strict: bool,
    pub(super) options: Options,
    /// The arguments that are still to be read.
    pub(super) rest: std::slice::Iter<'a, OsString>,
}

impl<'a> Parser<'a> {
    /// Reads all of it.
    pub(super) fn parse(&mut self) -> Result<(), UsageError> {
        while let Some(arg) = self.rest.next() {
            let text = utf8(arg)?;
            match text.strip_prefix('-') {
                Some("-") => return self.recipients(),
                Some(long) if long.starts_with('-') => self.long(text)?,
                Some(letters) if !letters.is_empty() => self.short(letters)?,
                _ if self.strict => {
                    return Err(UsageError::Strict(format!("recipients before \"--\", such as {text:?}")));
                }
                _ => {
                    self.options.recipients.push(text.to_owned());
                    return self.recipients_after_one();
                }
            }
        }
        Ok(())
    }

    /// All that is left, whatever it looks like.
    fn recipients(&mut self) -> Result<(), UsageError> {
        for arg in &mut self.rest {
            self.options.recipients.push(utf8(arg)?.to_owned());
        }
        Ok(())
    }

    /// The same where no `--` has said so: what looks like an option and like no address is a mistake, and mail to a
    /// user "-f" nobody's wish.
    fn recipients_after_one(&mut self) -> Result<(), UsageError> {
        for arg in &mut self.rest {
            let text = utf8(arg)?;
            if text.starts_with('-') && !text.contains('@') {
                return Err(UsageError::Misplaced(text.to_owned()));
            }
            self.options.recipients.push(text.to_owned());
        }
        Ok(())
    }

    /// `--name VALUE` or `--name=VALUE`.
    fn long(&mut self, text: &'a str) -> Result<(), UsageError> {
        let (name, attached) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match name {
            "--nexthop" if self.strict => return Err(UsageError::Strict(name.to_owned())),
            "--nexthop" => self.options.nexthop = Some(self.long_value(name, attached)?),
            // smtpc delivers wherever it is told: there the server is the caller's choice, and a second one is refused.
            "--lmtp" | "--esmtp" if self.strict && self.role != Role::Smtpc => {
                return Err(UsageError::Strict(name.to_owned()));
            }
            "--lmtp" => self.direct(Protocol::Lmtp, name, attached)?,
            "--esmtp" => self.direct(Protocol::Smtp, name, attached)?,
            "--iam" => self.options.iam = Some(self.long_value(name, attached)?),
            "--dump" if attached.is_none() => self.options.dump = true,
            "--smtputf8" if attached.is_none() => self.options.smtputf8 = true,
            "--verbose" if attached.is_none() => self.options.verbose = true,
            "--help" if attached.is_none() => self.options.mode = Mode::Help,
            "--version" if attached.is_none() => self.options.mode = Mode::Version,
            _ => return self.unknown(name),
        }
        Ok(())
    }

    fn long_value(&mut self, name: &str, attached: Option<&'a str>) -> Result<String, UsageError> {
        let value = attached.map_or_else(|| self.next(name), Ok)?;
        if value.is_empty() { Err(UsageError::NoValue(name.to_owned())) } else { Ok(value.to_owned()) }
    }

    fn direct(
        &mut self,
        protocol: Protocol,
        name: &str,
        attached: Option<&'a str>,
    ) -> Result<(), UsageError> {
        let server = self.long_value(name, attached)?;
        if self.options.direct.replace(Direct { protocol, server }).is_some() {
            return Err(UsageError::Combination("--lmtp and --esmtp name one server in all"));
        }
        Ok(())
    }

    fn unknown(&self, option: &str) -> Result<(), UsageError> {
        if self.role == Role::Smtpc { Ok(()) } else { Err(UsageError::Unknown(option.to_owned())) }
    }

    /// The letters behind one dash; the first that takes a value takes what follows it, or the next argument.
    fn short(&mut self, letters: &'a str) -> Result<(), UsageError> {
        for (at, letter) in letters.char_indices() {
            let attached = letters.get(at + letter.len_utf8()..).unwrap_or("");
            let option = format!("-{letter}");
            match letter {
                // Its value is optional and must be attached.
                'q' => return self.flush(attached),
                _ if WITH_VALUE.contains(letter) => {
                    let value = if attached.is_empty() { self.next(&option)? } else { attached };
                    return self.valued(letter, value);
                }
                _ if self.switch(letter) => {}
                _ => self.unknown(&option)?,
            }
        }
        Ok(())
    }

    /// Takes a letter that has no value.
    fn switch(&mut self, letter: char) -> bool {
        let options = &mut self.options;
        match letter {
            'i' => options.dots_are_content = true,
            't' => options.recipients_from_header = true,
            'n' => options.no_aliases = true,
            'I' => self.set_mode(Mode::RebuildAliases),
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
        let is_verp = |value: &str| value.len() == 2 && value.chars().all(|c| VERP_DELIMITERS.contains(c));
        let forbidden = matches!(letter, 'C' | 'O' | 'X') || letter == 'o' && value.starts_with('Q');
        if self.strict && forbidden {
            let option = if letter == 'o' { "-oQ".to_owned() } else { format!("-{letter}") };
            return Err(UsageError::Strict(option));
        }
        let options = &mut self.options;
        match letter {
            'f' | 'r' => options.sender = Some(value.to_owned()),
            'F' => options.full_name = Some(value.to_owned()),
            'N' => options.notify = value.parse().map_err(|error| bad(&error))?,
            'R' => options.ret = Some(value.parse().map_err(|error| bad(&error))?),
            'V' if is_verp(value) => return Err(unsupported(&format!("-V{value}"), VERP)),
            'V' => {
                let why = "an envelope ID is 1 to 100 printable ASCII characters";
                let envid = Some(value.to_owned()).filter(|value| is_envid(value));
                options.envid = Some(envid.ok_or_else(|| bad(&why))?);
            }
            'X' if value.starts_with('V') => return Err(unsupported(&format!("-X{value}"), VERP)),
            'o' if value.starts_with('i') => options.dots_are_content = true,
            'b' => return self.mode(value),
            // -B: whether content has eight bits is seen from the content. -X: a log of the conversation. The others
            // are submission class, configuration, error mode, hop count, label, other options and protocol.
            _ => {}
        }
        Ok(())
    }

    fn mode(&mut self, value: &str) -> Result<(), UsageError> {
        let mode = match value {
            "m" => Mode::Submit,
            "s" => Mode::Smtp,
            "p" => Mode::ShowQueue,
            "i" => Mode::RebuildAliases,
            _ if self.role == Role::Smtpc => return Ok(()),
            other => return Err(unsupported(&format!("-b{other}"), what_mode(other))),
        };
        self.set_mode(mode);
        Ok(())
    }

    /// smtpc delivers, and nothing else.
    fn set_mode(&mut self, mode: Mode) {
        if self.role != Role::Smtpc {
            self.options.mode = mode;
        }
    }

    /// `-q`, and `-qIID` for one message.
    fn flush(&mut self, attached: &str) -> Result<(), UsageError> {
        let option = || format!("-q{attached}");
        let id = match attached.strip_prefix('I') {
            _ if self.role == Role::Smtpc => return Ok(()),
            Some(id) => Some(id.parse().map_err(|why: &'static str| UsageError::BadValue {
                option: "-qI".to_owned(),
                value: id.to_owned(),
                why: why.to_owned(),
            })?),
            // In the foreground, which is what happens anyway.
            None if matches!(attached, "" | "f") => None,
            None if attached.starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(unsupported(
                    &option(),
                    "running the queue at intervals; lastmile agent does that",
                ));
            }
            None => return Err(unsupported(&option(), "running a part of the queue")),
        };
        self.set_mode(Mode::Flush(id));
        Ok(())
    }

    /// The next argument, whatever it is.
    fn next(&mut self, option: &str) -> Result<&'a str, UsageError> {
        utf8(self.rest.next().ok_or_else(|| UsageError::NoValue(option.to_owned()))?)
    }
}

/// Whether this can be an envelope ID, decoded.
pub(in crate::cli::sendmail) fn is_envid(text: &str) -> bool {
    let is_printable = text.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic());
    (1..=ENVID_LENGTH_MAX).contains(&text.len()) && is_printable
}

/// What Postfix makes of `-XV` and of `-V` with two delimiters.
const VERP: &str = "one sender for each recipient";

/// What other sendmails do in a mode that this one does not have.
fn what_mode(value: &str) -> &'static str {
    match value {
        "d" | "D" | "l" => "running as a mail server",
        "v" => "verifying addresses",
        "t" => "testing addresses",
        "h" | "H" => "showing or clearing host status",
        _ => "a mode that is not known here",
    }
}

fn unsupported(option: &str, what: &'static str) -> UsageError {
    UsageError::Unsupported { option: option.to_owned(), what }
}

fn utf8(arg: &OsStr) -> Result<&str, UsageError> {
    std::str::from_utf8(arg.as_bytes()).map_err(|_| UsageError::NotUtf8(arg.to_owned()))
}
