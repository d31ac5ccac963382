//! The sendmail command line: short options in getopt's manner, as programs have passed them for forty years, and the
//! long ones of smtpc.
//!
//! - Owns: which options there are, which of them are taken and ignored, which are refused, what each name of the
//!   program takes for granted. PURE.
//! - Leaves to others: addresses (`address_list`), and everything that options make happen.
//! - Always true: an option that would change where mail goes or who hears of it is obeyed or refused, never
//!   ignored; options end at `--` and at the first recipient.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::mail::{Notify, Protocol, QueueId, Return};

/// Octets of an envelope ID (RFC 3461 section 4.4).
const ENVID_LENGTH_MAX: usize = 100;
/// Options with a value. The list is that of Postfix's sendmail(1), so that nobody's value becomes a recipient.
const WITH_VALUE: &str = "ABCFLNORVXbefhopr";
/// Options without a value that say nothing to us: gateway, initial submission, verbose and their like.
const IGNORED: &str = "GUcmvx";
/// What stands between sender and recipient where each recipient gets a sender of its own (VERP). Postfix takes two of
/// these after `-V` for that.
const VERP_DELIMITERS: &str = "+-=";

/// The names under which the program is a sendmail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `sendmail`, and `lastmile sendmail`.
    Sendmail,
    /// `smtpc`: delivers at once, and ignores options that it does not know.
    Smtpc,
    /// `mailq`: shows the queue unless options say otherwise.
    Mailq,
    /// `newaliases`: as with `-bi`.
    Newaliases,
}

impl Role {
    /// The role that the program has under a name; `None`: it is no sendmail then.
    pub fn named(name: &OsStr) -> Option<Self> {
        [Self::Sendmail, Self::Smtpc, Self::Mailq, Self::Newaliases]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sendmail => "sendmail",
            Self::Smtpc => "smtpc",
            Self::Mailq => "mailq",
            Self::Newaliases => "newaliases",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `-bm`: a message stands on standard input.
    #[default]
    Submit,
    /// `-bs`: SMTP is spoken there.
    Smtp,
    /// `-bp`.
    ShowQueue,
    /// `-bi`, `-I`.
    RebuildAliases,
    /// `-q`; `-qI` names one message.
    Flush(Option<QueueId>),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// Delivery without a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// `--lmtp` or `--esmtp`.
    pub protocol: Protocol,
    /// Where to, as written.
    pub server: String,
}

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-b`, `-q`, `-I`, or what the program's name says.
    pub mode: Mode,
    /// `-f`, `-r`: the envelope sender as written.
    pub sender: Option<String>,
    /// `-F`: the sender's full name, for From.
    pub full_name: Option<String>,
    /// `-i`, `-oi`, and whatever delivers at once: a line with a lone dot does not end the message.
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
    /// `--lmtp`, `--esmtp`: deliver now.
    pub direct: Option<Direct>,
    /// `--iam`: our name in LHLO or EHLO.
    pub iam: Option<String>,
    /// `--dump`: show what is said.
    pub dump: bool,
    /// `--smtputf8`: SMTPUTF8 may be asked for.
    pub smtputf8: bool,
    /// `--verbose`: print the server's last reply.
    pub verbose: bool,
    /// Recipients as written.
    pub recipients: Vec<String>,
}

/// Why a command line cannot be obeyed. To a person it is a whole sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An option that sendmail does not have either.
    #[error("there is no option {}", .0.escape_debug())]
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
    #[error("{} ({what}) is not something that this command does", .option.escape_debug())]
    Unsupported {
        /// As written.
        option: String,
        /// What it would be.
        what: &'static str,
    },
    /// Options that do not go together, or one that another needs.
    #[error("{0}")]
    Combination(&'static str),
    /// An option after the first recipient.
    #[error("{0:?} stands where only recipients stand; options come first, and \"--\" ends them")]
    Misplaced(String),
    /// Something that `LASTMILE_SENDMAIL_STRICT` forbids.
    #[error("LASTMILE_SENDMAIL_STRICT is set and does not allow {0}")]
    Strict(String),
    /// Octets that are no UTF-8.
    #[error("{0:?} is not UTF-8")]
    NotUtf8(OsString),
}

impl Options {
    /// Reads the arguments, without the name of the command. `strict` is for callers that pass along what strangers
    /// give them: recipients stand only after `--`; `-C`, `-O`, `-X`, `-oQ`, `--nexthop` and, but for smtpc, `--lmtp` and
    /// `--esmtp` are refused.
    pub fn parse(role: Role, strict: bool, args: &[OsString]) -> Result<Self, UsageError> {
        let mode = match role {
            Role::Sendmail | Role::Smtpc => Mode::Submit,
            Role::Mailq => Mode::ShowQueue,
            Role::Newaliases => Mode::RebuildAliases,
        };
        let options = Self { mode, dots_are_content: role == Role::Smtpc, ..Self::default() };
        let mut parser = Parser { role, strict, options, rest: args.iter() };
        parser.parse()?;
        parser.options.dots_are_content |= parser.options.direct.is_some();
        parser.options.check(role)?;
        Ok(parser.options)
    }

    /// What goes together.
    fn check(&self, role: Role) -> Result<(), UsageError> {
        let no = |text| Err(UsageError::Combination(text));
        let is_named = !self.recipients.is_empty() || self.recipients_from_header;
        match self.mode {
            Mode::Help | Mode::Version => return Ok(()),
            Mode::Submit => {}
            _ if is_named => {
                return no("only a message has recipients: leave them and -t out with -bi, -bp, -bs and -q");
            }
            _ if self.direct.is_some() => {
                return no("--lmtp and --esmtp deliver a message: leave -bi, -bp, -bs and -q out");
            }
            _ => {}
        }
        if role == Role::Smtpc && self.mode == Mode::Submit && self.direct.is_none() {
            return no("smtpc needs --lmtp or --esmtp and a server; what queues is called sendmail");
        }
        match &self.direct {
            Some(_) if self.nexthop.is_some() => {
                no("--nexthop is for the queue, and --lmtp and --esmtp use none")
            }
            Some(_) if self.sender.is_none() => no("--lmtp and --esmtp need a sender: name it with -f"),
            None if self.iam.is_some() || self.dump || self.smtputf8 || self.verbose => {
                no("--iam, --dump, --smtputf8 and --verbose go with --lmtp or --esmtp")
            }
            _ => Ok(()),
        }
    }
}

/// The command line, half read.
struct Parser<'a> {
    role: Role,
    strict: bool,
    options: Options,
    /// The arguments that are still to be read.
    rest: std::slice::Iter<'a, OsString>,
}

impl<'a> Parser<'a> {
    fn parse(&mut self) -> Result<(), UsageError> {
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
pub(super) fn is_envid(text: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// "''" stands for an empty argument, as in a shell.
    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(|word| if word == "''" { "".into() } else { word.into() }).collect()
    }

    fn parse_as(role: Role, line: &str) -> Result<Options, UsageError> {
        Options::parse(role, false, &words(line))
    }

    fn parse(line: &str) -> Result<Options, UsageError> {
        parse_as(Role::Sendmail, line)
    }

    fn strictly(line: &str) -> Result<Options, UsageError> {
        Options::parse(Role::Sendmail, true, &words(line))
    }

    fn to(recipients: &[&str]) -> Options {
        Options { recipients: recipients.iter().map(ToString::to_string).collect(), ..Options::default() }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn values_are_attached_or_follow() {
        for (line, expected) in [
            ("", Options::default()),
            ("-fa@x b@y", Options { sender: some("a@x"), ..to(&["b@y"]) }),
            ("-f a@x", Options { sender: some("a@x"), ..Options::default() }),
            ("-r a@x", Options { sender: some("a@x"), ..Options::default() }),
            ("-f b@x -fa@x", Options { sender: some("a@x"), ..Options::default() }),
            ("-f ''", Options { sender: some(""), ..Options::default() }),
            ("-f <>", Options { sender: some("<>"), ..Options::default() }),
            ("-f -- b@y", Options { sender: some("--"), ..to(&["b@y"]) }),
            ("-ti", Options { dots_are_content: true, recipients_from_header: true, ..Options::default() }),
            ("-oi", Options { dots_are_content: true, ..Options::default() }),
            ("-o i", Options { dots_are_content: true, ..Options::default() }),
            ("-tfa@x", Options { recipients_from_header: true, sender: some("a@x"), ..Options::default() }),
            ("-F Ann", Options { full_name: some("Ann"), ..Options::default() }),
            ("-F ''", Options { full_name: some(""), ..Options::default() }),
            ("-n", Options { no_aliases: true, ..Options::default() }),
            ("-N never", Options { notify: Notify::NEVER, ..Options::default() }),
            (
                "-R hdrs -V QQ7",
                Options { ret: Some(Return::Headers), envid: some("QQ7"), ..Options::default() },
            ),
            ("-V00001234", Options { envid: some("00001234"), ..Options::default() }),
            ("-V =x", Options { envid: some("=x"), ..Options::default() }),
            ("-V +", Options { envid: some("+"), ..Options::default() }),
            ("--nexthop unix:/run/lmtp", Options { nexthop: some("unix:/run/lmtp"), ..Options::default() }),
            ("--nexthop=mx:24", Options { nexthop: some("mx:24"), ..Options::default() }),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn options_end_at_two_dashes_and_at_the_first_recipient() {
        for (line, recipients) in [
            ("-- -b@y -f c@z", &["-b@y", "-f", "c@z"][..]),
            ("-- -- b@y", &["--", "b@y"]),
            ("b@y -c@z d@z", &["b@y", "-c@z", "d@z"]),
            ("-", &["-"]),
            ("- b@y", &["-", "b@y"]),
            ("'' b@y", &["", "b@y"]),
        ] {
            assert_eq!(parse(line), Ok(to(recipients)), "{line:?}");
        }
        for line in ["b@y -f a@x", "b@y --", "b@y --nexthop mx"] {
            assert!(matches!(parse(line), Err(UsageError::Misplaced(_))), "{line:?}");
        }
    }

    #[test]
    fn what_other_programs_pass_along_is_ignored() {
        for line in [
            "-bm -odi -oem -om -o7 -oQ/x",
            "-G -U -c -m -v -x -vv",
            "-Am -A c -C/etc/x -ep -h 3 -L tag -O Opt=1 -p SMTP:x",
            "-B8BITMIME -B 7BIT -X /tmp/log -L ''",
        ] {
            assert_eq!(parse(line), Ok(Options::default()), "{line:?}");
        }
    }

    #[test]
    fn names_and_options_choose_what_is_done() {
        let one = Mode::Flush(Some("ABC123".parse().unwrap()));
        for (role, line, mode) in [
            (Role::Sendmail, "", Mode::Submit),
            (Role::Sendmail, "-bs", Mode::Smtp),
            (Role::Sendmail, "-b p", Mode::ShowQueue),
            (Role::Sendmail, "-bp -bm", Mode::Submit),
            (Role::Sendmail, "-bi", Mode::RebuildAliases),
            (Role::Sendmail, "-I", Mode::RebuildAliases),
            (Role::Sendmail, "-q", Mode::Flush(None)),
            (Role::Sendmail, "-qf", Mode::Flush(None)),
            (Role::Sendmail, "-qIABC123", one),
            (Role::Sendmail, "--help", Mode::Help),
            (Role::Sendmail, "--version", Mode::Version),
            (Role::Mailq, "", Mode::ShowQueue),
            (Role::Mailq, "-Ac -v", Mode::ShowQueue),
            (Role::Mailq, "-q", Mode::Flush(None)),
            (Role::Newaliases, "", Mode::RebuildAliases),
        ] {
            assert_eq!(parse_as(role, line).map(|options| options.mode), Ok(mode), "{role:?} {line:?}");
        }
        assert_eq!(Role::named(OsStr::new("mailq")), Some(Role::Mailq));
        assert_eq!(Role::named(OsStr::new("lastmile")), None);
    }

    #[test]
    fn delivery_without_a_queue_has_a_server_and_a_sender() {
        let direct = |protocol, server: &str| Some(Direct { protocol, server: server.to_owned() });
        let base = Options { dots_are_content: true, sender: some("a@x"), ..to(&["b@y"]) };
        for (line, expected) in [
            (
                "--lmtp /run/lmtp -f a@x b@y",
                Options { direct: direct(Protocol::Lmtp, "/run/lmtp"), ..base.clone() },
            ),
            (
                "--esmtp=[::1]:25 -fa@x -- b@y",
                Options { direct: direct(Protocol::Smtp, "[::1]:25"), ..base.clone() },
            ),
            (
                "--dump --smtputf8 --verbose --iam me.example --lmtp mx -f a@x b@y",
                Options {
                    direct: direct(Protocol::Lmtp, "mx"),
                    iam: some("me.example"),
                    dump: true,
                    smtputf8: true,
                    verbose: true,
                    ..base
                },
            ),
        ] {
            for role in [Role::Sendmail, Role::Smtpc] {
                assert_eq!(parse_as(role, line), Ok(expected.clone()), "{role:?} {line:?}");
            }
        }
    }

    #[test]
    fn smtpc_ignores_what_it_does_not_know() {
        for line in ["-z", "-dq -k", "--gecos --gecos=7", "-bp", "-q -I -qx", "-bz", "-oi -oem -odi"] {
            let line = format!("{line} --lmtp mx -f a@x b@y");
            let options = parse_as(Role::Smtpc, &line).unwrap();
            assert_eq!(
                (options.mode, options.recipients),
                (Mode::Submit, vec!["b@y".to_owned()]),
                "{line:?}"
            );
        }
        let error = parse_as(Role::Smtpc, "-f a@x b@y").unwrap_err().to_string();
        assert!(error.starts_with("smtpc needs --lmtp or --esmtp"), "{error}");
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (line, words) in [
            ("-bv", "-bv (verifying addresses) is not"),
            ("-b z", "-bz (a mode that is not known here) is not"),
            ("-bd", "-bd (running as a mail server)"),
            ("-q30m", "-q30m (running the queue at intervals"),
            ("-qRexample", "-qRexample (running a part of the queue)"),
            ("-tqSx", "-qSx (running a part of the queue)"),
            ("-qI../x", "option -qI does not take \"../x\": a queue ID"),
            ("-XV", "-XV (one sender for each recipient)"),
            ("-XV+=", "-XV+= (one sender for each recipient)"),
            ("-V+=", "-V+= (one sender for each recipient)"),
            ("-V -+", "-V-+ (one sender for each recipient)"),
            ("-V ''", "option -V does not take \"\": an envelope ID"),
            ("-z", "there is no option -z"),
            ("-é", "there is no option -é"),
            ("--x\u{1b}[2J", "there is no option --x\\u{1b}[2J"),
            ("-bx\u{1b}", "-bx\\u{1b} (a mode"),
            ("--gecos", "there is no option --gecos"),
            ("--dump=x", "there is no option --dump"),
            ("-f", "option -f needs a value"),
            ("--nexthop", "option --nexthop needs a value"),
            ("--lmtp ''", "option --lmtp needs a value"),
            ("-N maybe", "option -N does not take \"maybe\": NOTIFY is"),
            ("-N ''", "option -N does not take \"\": NOTIFY is"),
            ("-R half", "option -R does not take \"half\": RET is"),
            ("-bp b@y", "only a message has recipients"),
            ("-bs -t", "only a message has recipients"),
            ("-bi /etc/aliases", "only a message has recipients"),
            ("-V \u{fc}ber", "option -V does not take \"\u{fc}ber\": an envelope ID"),
            ("-q b@y", "only a message has recipients"),
            ("-bs --lmtp mx -f a@x", "--lmtp and --esmtp deliver a message"),
            ("--lmtp mx --esmtp mx -f a@x b@y", "--lmtp and --esmtp name one server"),
            ("--lmtp mx b@y", "--lmtp and --esmtp need a sender"),
            ("--lmtp mx -f a@x --nexthop mx b@y", "--nexthop is for the queue"),
            ("--iam me b@y", "--iam, --dump, --smtputf8 and --verbose go with"),
            ("--verbose b@y", "--iam, --dump, --smtputf8 and --verbose go with"),
        ] {
            let text = parse(line).unwrap_err().to_string();
            assert!(text.starts_with(words), "{line:?} gave {text:?}");
        }
        let long = format!("-V{}", "x".repeat(101));
        assert!(parse(&long).is_err());
        let latin1 = OsStr::from_bytes(b"-f\xe9@x").to_owned();
        assert!(matches!(Options::parse(Role::Sendmail, false, &[latin1]), Err(UsageError::NotUtf8(_))));
    }

    #[test]
    fn strict_callers_name_no_files_and_no_recipients_among_options() {
        for (line, forbidden) in [
            ("b@y", "recipients before \"--\""),
            ("-t b@y", "recipients before \"--\""),
            ("-C/etc/x -- b@y", "-C"),
            ("-C /etc/x -- b@y", "-C"),
            ("-O QueueDirectory=/tmp -- b@y", "-O"),
            ("-X/var/www/x.php -- b@y", "-X"),
            ("-tX /x", "-X"),
            ("-oQ/tmp -- b@y", "-oQ"),
            ("-o Q/tmp -- b@y", "-oQ"),
            ("--nexthop mx -- b@y", "--nexthop"),
            ("--nexthop=mx -- b@y", "--nexthop"),
            ("--lmtp mx -f a@x -- b@y", "--lmtp"),
            ("-f a@x --esmtp=mx:25 -- b@y", "--esmtp"),
        ] {
            match strictly(line) {
                Err(UsageError::Strict(text)) => {
                    assert!(text.starts_with(forbidden), "{line:?} gave {text:?}");
                }
                other => panic!("{line:?} gave {other:?}"),
            }
        }
        assert_eq!(strictly("-oi -- b@y"), Ok(Options { dots_are_content: true, ..to(&["b@y"]) }));
        assert_eq!(strictly("-t"), Ok(Options { recipients_from_header: true, ..Options::default() }));
        let smtpc = |line| Options::parse(Role::Smtpc, true, &words(line));
        assert!(smtpc("--lmtp mx -f a@x -- b@y").is_ok());
        assert!(smtpc("--lmtp mx -f a@x --esmtp evil -- b@y").is_err());
    }

    proptest! {
        #[test]
        fn no_command_line_panics(args in proptest::collection::vec("-{0,2}[A-Za-zé=]{0,3}\\PC{0,3}", 0..6)) {
            let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
            for (role, strict) in [(Role::Sendmail, false), (Role::Sendmail, true), (Role::Smtpc, false)] {
                let _ = Options::parse(role, strict, &args);
            }
        }
    }
}
