//! The command line that master(8) gives to a service, and the role that a program's name gives it.
//!
//! - Owns: the options that all daemons of Postfix have in common, the arguments of this one, the words for what is
//!   wrong with them.
//! - Leaves to others: what an option makes happen.
//! - Always true: what is not known is refused, never passed over. No file is read here, and no clock asked.
//!
//! Options and arguments may come in any order, as getopt(3) of the GNU C library allows; `--` ends the options.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::config::Flags;
use crate::mail::Protocol;

/// Listening sockets of one service, at most; master(8) makes one for each address of an `inet` service.
const SOCKETS_MAX: usize = 256;

/// What the program's own name makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its name, for the log, and for the service where `-n` names none.
    pub process: String,
}

impl Role {
    /// The role of a program that is called like this; only the last part of a path counts. `None`: it is no service.
    pub fn named(program: &OsStr) -> Option<Self> {
        let process = Path::new(program).file_name()?.to_str()?;
        let protocol = match process {
            "lastmile-lmtp" => Protocol::Lmtp,
            "lastmile-smtp" => Protocol::Smtp,
            _ => return None,
        };
        Some(Self { protocol, process: process.to_owned() })
    }
}

/// The command line, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-c`: the queue directory becomes the root directory.
    pub chroot: bool,
    /// `-d`: standard input may be a terminal.
    pub terminal: bool,
    /// `-D`: a debugger is wanted. It has no effect but a word about that.
    pub debugger: bool,
    /// `-l`: there is only one process of this service at a time.
    pub alone: bool,
    /// `-n`: the name of the service, where it is not the program's.
    pub service: Option<String>,
    /// `-o`, and `-i` and `-m` as `max_idle` and `max_use`: values that beat those of main.cf, the last of a name first
    /// of all. They are not expanded yet.
    pub overrides: Vec<(String, String)>,
    /// `-r`: seconds after which an idle process ends.
    pub retire: Option<u32>,
    /// `-s`: how many sockets there are to listen at.
    pub sockets: usize,
    /// `-S`: serve the one client on standard input.
    pub one_client: bool,
    /// `-u`: become `mail_owner`.
    pub unprivileged: bool,
    /// How many `-v`.
    pub verbose: u32,
    /// `-V`: log to standard error too.
    pub log_to_stderr: bool,
    /// `-z`: the number of processes is not limited.
    pub unlimited: bool,
    /// `flags=`: headers that are added on delivery.
    pub flags: Flags,
}

/// What is wrong with a command line, as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommandLine {
    /// An option that no daemon has.
    #[error("the option -{0} is not known; see the arguments of this service in master.cf")]
    UnknownOption(char),
    /// An option without its value.
    #[error("the option -{0} has no value; see the arguments of this service in master.cf")]
    NoValue(char),
    /// A value that the option cannot have.
    #[error("-{option} {value:?}: {reason}; see the arguments of this service in master.cf")]
    BadValue {
        /// The option.
        option: char,
        /// What was given.
        value: String,
        /// What it should have been.
        reason: &'static str,
    },
    /// An argument that this service does not have.
    #[error(
        "the argument {0:?} is not known: the arguments of this service in master.cf are options and flags="
    )]
    UnknownArgument(String),
    /// A flag that there is not.
    #[error("flags={value}: {reason}; see the arguments of this service in master.cf")]
    BadFlags {
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Octets that are no text.
    #[error("the argument {0:?} is no UTF-8; see the arguments of this service in master.cf")]
    NoText(OsString),
}

impl Options {
    /// Understands the arguments behind the program's name.
    pub fn parse(arguments: &[OsString]) -> Result<Self, BadCommandLine> {
        let mut options = Self { sockets: 1, ..Self::default() };
        let mut rest = arguments.iter();
        let mut only_arguments = false;
        while let Some(argument) = rest.next() {
            let text = text_of(argument)?;
            match text.strip_prefix('-') {
                Some("-") if !only_arguments => only_arguments = true,
                Some(cluster) if !only_arguments && !cluster.is_empty() => {
                    options.take_cluster(cluster, || rest.next().map(|next| text_of(next)).transpose())?;
                }
                _ => options.take_argument(text)?,
            }
        }
        Ok(options)
    }

    /// The service's name: in the log line of a request that cannot be served, for example.
    pub fn service_name<'a>(&'a self, role: &'a Role) -> &'a str {
        self.service.as_deref().unwrap_or(&role.process)
    }

    /// Options behind one dash. One that has a value takes the rest, or else the next element.
    fn take_cluster<'a>(
        &mut self,
        cluster: &'a str,
        mut next: impl FnMut() -> Result<Option<&'a str>, BadCommandLine>,
    ) -> Result<(), BadCommandLine> {
        let mut letters = cluster.chars();
        while let Some(letter) = letters.next() {
            if !has_value(letter) {
                self.take_switch(letter)?;
                continue;
            }
            let value = match letters.as_str() {
                "" => next()?.ok_or(BadCommandLine::NoValue(letter))?,
                rest => rest,
            };
            return self.take_value(letter, value);
        }
        Ok(())
    }

    fn take_switch(&mut self, letter: char) -> Result<(), BadCommandLine> {
        let switch = match letter {
            'c' => &mut self.chroot,
            'd' => &mut self.terminal,
            'D' => &mut self.debugger,
            'l' => &mut self.alone,
            'S' => &mut self.one_client,
            'u' => &mut self.unprivileged,
            'V' => &mut self.log_to_stderr,
            'z' => &mut self.unlimited,
            'v' => {
                self.verbose = self.verbose.saturating_add(1);
                return Ok(());
            }
            other => return Err(BadCommandLine::UnknownOption(other)),
        };
        *switch = true;
        Ok(())
    }

    fn take_value(&mut self, option: char, value: &str) -> Result<(), BadCommandLine> {
        let bad = |reason| BadCommandLine::BadValue { option, value: value.to_owned(), reason };
        match option {
            'i' => self.overrides.push(("max_idle".to_owned(), value.to_owned())),
            'm' => self.overrides.push(("max_use".to_owned(), value.to_owned())),
            'n' if value.is_empty() => return Err(bad("a service has a name")),
            'n' => self.service = Some(value.to_owned()),
            'o' => self.overrides.push(name_and_value(value).map_err(bad)?),
            'r' => {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                self.retire = Some(seconds.ok_or_else(|| bad("this is no number of seconds above zero"))?);
            }
            's' => {
                let count = value.parse().ok().filter(|count| (1..=SOCKETS_MAX).contains(count));
                self.sockets = count.ok_or_else(|| bad("this is no number of sockets, which is 1 to 256"))?;
            }
            't' if value == "unix" => {}
            't' => return Err(bad("qmgr(8) finds delivery agents in private/: their type must be unix")),
            other => return Err(BadCommandLine::UnknownOption(other)),
        }
        Ok(())
    }

    fn take_argument(&mut self, text: &str) -> Result<(), BadCommandLine> {
        let Some(value) = text.strip_prefix("flags=") else {
            return Err(BadCommandLine::UnknownArgument(text.to_owned()));
        };
        self.flags =
            value.parse().map_err(|reason| BadCommandLine::BadFlags { value: value.to_owned(), reason })?;
        Ok(())
    }
}

fn has_value(option: char) -> bool {
    matches!(option, 'i' | 'm' | 'n' | 'o' | 'r' | 's' | 't')
}

fn text_of(argument: &OsStr) -> Result<&str, BadCommandLine> {
    argument.to_str().ok_or_else(|| BadCommandLine::NoText(argument.to_owned()))
}

/// `name=value`, or `name = value` where master.cf had it in braces.
fn name_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("this is not name=value")?;
    let name = name.trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("in front of = is no name of a parameter");
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    fn parse(words: &[&str]) -> Result<Options, BadCommandLine> {
        Options::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn plain() -> Options {
        Options { sockets: 1, ..Options::default() }
    }

    fn overriding(pairs: &[(&str, &str)]) -> Options {
        let overrides = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Options { overrides, ..plain() }
    }

    #[test]
    fn the_name_of_the_program_decides_what_it_speaks() {
        for (name, protocol) in [
            ("lastmile-lmtp", Some(Protocol::Lmtp)),
            ("lastmile-smtp", Some(Protocol::Smtp)),
            ("../alt/lastmile-lmtp", Some(Protocol::Lmtp)),
            ("/usr/lib/postfix/sbin/lastmile-smtp", Some(Protocol::Smtp)),
            ("lmtp", None),
            ("lastmile", None),
            ("lastmile-lmtp2", None),
            ("lastmile-lmtp/..", None),
            ("", None),
        ] {
            let role = Role::named(OsStr::new(name));
            assert_eq!(role.as_ref().map(|role| role.protocol), protocol, "{name}");
            assert!(role.is_none_or(|role| name.ends_with(&role.process)), "{name}");
        }
    }

    #[test]
    fn what_master_passes_is_understood() {
        let words = ["-l", "-n", "lastmile", "-t", "unix", "-u", "-c", "-o", "stress="];
        let expected = Options {
            alone: true,
            service: Some("lastmile".to_owned()),
            unprivileged: true,
            chroot: true,
            ..overriding(&[("stress", "")])
        };
        assert_eq!(parse(&words), Ok(expected));
        let expected = Options { unlimited: true, terminal: true, verbose: 2, sockets: 3, ..plain() };
        assert_eq!(parse(&["-z", "-t", "unix", "-d", "-v", "-v", "-s", "3"]), Ok(expected));
    }

    #[test]
    fn options_may_share_a_dash_and_hold_their_value() {
        for (words, expected) in [
            (
                &["-lunlm"][..],
                Options { alone: true, unprivileged: true, service: Some("lm".into()), ..plain() },
            ),
            (&["-vvV"], Options { verbose: 2, log_to_stderr: true, ..plain() }),
            (&["-vtunix", "-S"], Options { verbose: 1, one_client: true, ..plain() }),
            (&["-oa=b"], overriding(&[("a", "b")])),
            (
                &["-Di5s", "-m", "7"],
                Options { debugger: true, ..overriding(&[("max_idle", "5s"), ("max_use", "7")]) },
            ),
            (&["-r", "30"], Options { retire: Some(30), ..plain() }),
        ] {
            assert_eq!(parse(words), Ok(expected), "{words:?}");
        }
    }

    #[test]
    fn overrides_keep_their_order_and_lose_blanks_around_them() {
        for (given, name, value) in [
            ("a=b", "a", "b"),
            ("a = b c ", "a", "b c"),
            ("\ta\t=\tb", "a", "b"),
            ("a=", "a", ""),
            ("a==b=c", "a", "=b=c"),
            ("syslog_name=postfix/$service_name", "syslog_name", "postfix/$service_name"),
        ] {
            assert_eq!(parse(&["-o", given]), Ok(overriding(&[(name, value)])), "{given:?}");
        }
        assert_eq!(parse(&["-o", "a=1", "-o", "a=2"]), Ok(overriding(&[("a", "1"), ("a", "2")])));
    }

    #[test]
    fn arguments_may_stand_before_and_behind_options() {
        let flags = Flags { delivered_to: true, return_path: true, ..Flags::default() };
        for words in
            [&["-u", "flags=DR"][..], &["flags=DR", "-u"], &["-u", "--", "flags=DR"], &["flags=RD", "-u"]]
        {
            assert_eq!(parse(words), Ok(Options { unprivileged: true, flags, ..plain() }), "{words:?}");
        }
        let all = Flags { delivered_to: true, original_to: true, return_path: true, final_delivery: true };
        assert_eq!(parse(&["flags=XORD"]), Ok(Options { flags: all, ..plain() }));
        assert_eq!(parse(&["flags="]), Ok(plain()));
    }

    #[test]
    fn what_is_not_known_is_refused_in_words() {
        for (words, part) in [
            (&["-x"][..], "the option -x is not known"),
            (&["-ux"], "the option -x is not known"),
            (&["--help"], "the option -- is not known"),
            (&["-é"], "the option -é is not known"),
            (&["-"], "the argument \"-\" is not known"),
            (&["user=mail"], "the argument \"user=mail\" is not known"),
            (&["--", "-u"], "the argument \"-u\" is not known"),
            (&["flags=DQ"], "flags=DQ: there is no flag 'Q'"),
            (&["-n"], "the option -n has no value"),
            (&["-un"], "the option -n has no value"),
            (&["-n", ""], "-n \"\": a service has a name"),
            (&["-o", "a"], "-o \"a\": this is not name=value"),
            (&["-o", "=b"], "-o \"=b\": in front of = is no name"),
            (&["-o", "a b=c"], "-o \"a b=c\": in front of = is no name"),
            (&["-s", "0"], "-s \"0\": this is no number of sockets"),
            (&["-s", "257"], "-s \"257\": this is no number of sockets"),
            (&["-s", "-1"], "-s \"-1\": this is no number of sockets"),
            (&["-r", "soon"], "-r \"soon\": this is no number of seconds above zero"),
            (&["-r", "0"], "-r \"0\": this is no number of seconds above zero"),
            (&["-t", "inet"], "-t \"inet\": qmgr(8) finds delivery agents in private/"),
            (&["-t", "pass"], "-t \"pass\": qmgr(8) finds delivery agents in private/"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.starts_with(part) && error.contains("master.cf"), "{words:?}: {error}");
        }
        let error = Options::parse(&[OsString::from_vec(b"flags=\xff".to_vec())]).unwrap_err();
        assert!(error.to_string().contains("no UTF-8"), "{error}");
    }

    #[test]
    fn a_service_has_its_own_name_or_the_program_s() {
        let role = Role::named(OsStr::new("lastmile-lmtp")).unwrap();
        assert_eq!(parse(&["-n", "dovecot"]).unwrap().service_name(&role), "dovecot");
        assert_eq!(plain().service_name(&role), "lastmile-lmtp");
    }

    proptest! {
        #[test]
        fn any_words_are_understood_or_refused(words in prop::collection::vec("[-a-zA-Z= é]{0,6}", 0..6)) {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            if let Ok(options) = parse(&words) {
                prop_assert!((1..=SOCKETS_MAX).contains(&options.sockets));
                prop_assert!(options.overrides.iter().all(|(name, _)| !name.is_empty()));
            }
        }
    }
}
