//! A case: a call, what we make of it, and what an original makes of it that does otherwise.
//!
//! - Owns: comparing what was expected with what was observed.
//! - Always true: a case that passes has been looked at; one that needs root says so and passes for others.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use lastmile::sink::pattern_matches;

use super::program::{Kind, Observed, Program, text, words};

/// A message that lacks nothing, so that nothing needs to be added.
pub const MESSAGE: &str = "From: Ann <ann@x.example>\nTo: Bob <bob@y.example>\nSubject: hello\n\
                           Date: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <1@x.example>\n\nHi,\nit is me.\n";

/// More than any of them needs, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a program that waits for something is watched.
const A_WHILE: Duration = Duration::from_secs(2);

/// Postfix: whatever goes wrong.
const ALWAYS_75: &str = "its sendmail(1) ends whatever it refuses with 75; a caller that goes by sysexits(3) would try a \
                         wrong command line again for ever";

/// What surrounds a call.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The caller's uid, where it is not the test's; only root can try that.
    pub caller: Option<u32>,
    /// What is wrong.
    pub trouble: Trouble,
}

/// What may be wrong with the place where mail goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// There is no queue (msmtp: nobody listens).
    Missing,
    /// The queue takes nothing (msmtp: the server greets with 421).
    Closed,
    /// The disk is full, as far as the configuration is concerned (msmtp: the server has no room).
    Full,
    /// The configuration cannot be used.
    Configuration,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    pub args: Vec<OsString>,
    /// argv[0], where it is to be another one.
    pub name: Option<&'static str>,
    pub input: Vec<u8>,
    pub world: World,
}

/// What a program does when it is called so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// Ends with this code, and submits nothing.
    Refuses(i32),
    /// Ends with 0, and has submitted this. The content is as the input, unless it stands here; `*` is any text, on
    /// every line for itself.
    Submits { envelope: String, content: Option<String> },
    /// Ends with 0, submits nothing, and begins its standard output so; where that is empty, says nothing.
    Answers(&'static str),
    /// Has not ended after a while, and has submitted nothing.
    Waits,
}

/// The usual: envelope as given, content as the input.
pub fn submits(envelope: &str) -> Does {
    Does::Submits { envelope: envelope.to_owned(), content: None }
}

/// Another content than the input.
pub fn submits_as(envelope: &str, content: impl Into<String>) -> Does {
    Does::Submits { envelope: envelope.to_owned(), content: Some(content.into()) }
}

pub const fn refuses(code: i32) -> Does {
    Does::Refuses(code)
}

pub const fn answers(output: &'static str) -> Does {
    Does::Answers(output)
}

/// A program that does otherwise.
#[derive(Debug)]
struct Departure {
    program: Kind,
    does: Does,
    /// Why we do not do it.
    why: &'static str,
}

/// One line of the table.
#[derive(Debug)]
pub struct Case {
    call: Call,
    does: Does,
    departures: Vec<Departure>,
}

/// A call with [`MESSAGE`] as its input.
pub fn case(args: &[&str], does: Does) -> Case {
    let args = args.iter().map(OsString::from).collect();
    let call = Call { args, name: None, input: MESSAGE.into(), world: World::default() };
    Case { call, does, departures: Vec::new() }
}

/// A command line that is wrong.
pub fn misuse(args: &[&str]) -> Case {
    refused(args, 64)
}

/// Something that all of them refuse.
pub fn refused(args: &[&str], code: i32) -> Case {
    case(args, refuses(code)).postfix(refuses(75), ALWAYS_75)
}

impl Case {
    pub fn input(mut self, input: impl AsRef<[u8]>) -> Self {
        input.as_ref().clone_into(&mut self.call.input);
        self
    }

    /// One more argument, of any octets.
    pub fn octets(mut self, argument: &[u8]) -> Self {
        self.call.args.push(OsString::from_vec(argument.to_owned()));
        self
    }

    pub fn named(mut self, name: &'static str) -> Self {
        self.call.name = Some(name);
        self
    }

    pub fn by(mut self, uid: u32) -> Self {
        self.call.world.caller = Some(uid);
        self
    }

    pub fn with(mut self, trouble: Trouble) -> Self {
        self.call.world.trouble = trouble;
        self
    }

    /// Postfix does otherwise, and why we do not follow.
    pub fn postfix(mut self, does: Does, why: &'static str) -> Self {
        self.departures.push(Departure { program: Kind::Postfix, does, why });
        self
    }

    /// msmtp does otherwise, and why we do not follow.
    pub fn msmtp(mut self, does: Does, why: &'static str) -> Self {
        self.departures.push(Departure { program: Kind::Msmtp, does, why });
        self
    }

    /// Whether this program does otherwise than we do.
    pub fn departs(&self, program: Kind) -> bool {
        self.departures.iter().any(|departure| departure.program == program)
    }

    /// Tries it.
    pub fn check(&self, program: &Program) -> Result<(), String> {
        if let Some(none) = self.departures.iter().find(|departure| departure.does == self.does) {
            return Err(format!(
                "{}: {:?} does what we do: that is no departure",
                self.title(),
                none.program
            ));
        }
        if self.call.world.caller.is_some() && !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can call {} as somebody else", words(&self.call.args));
            return Ok(());
        }
        let departure = self.departures.iter().find(|departure| departure.program == program.kind);
        let waits = departure.map_or(&self.does, |departure| &departure.does) == &Does::Waits;
        let observed = program.call(&self.call, if waits { A_WHILE } else { PATIENCE });
        let result = match departure {
            None => agrees(&self.does, &observed, &self.call.input),
            Some(departure) => self.check_departure(departure, &observed),
        };
        let result = result.and_then(|()| self.check_manners(program.kind, &observed));
        result.map_err(|why| format!("{} <<< {:?}\n  {why}\n  {observed}", self.title(), self.shown_input()))
    }

    fn title(&self) -> String {
        let name = self.call.name.unwrap_or("sendmail");
        let caller = self.call.world.caller.map_or_else(String::new, |uid| format!("[uid {uid}] "));
        let trouble = self.call.world.trouble;
        let trouble = if trouble == Trouble::None { String::new() } else { format!("[{trouble:?}] ") };
        let mut line = words(&self.call.args);
        if line.len() > 300 {
            line = format!("{}...", line.chars().take(300).collect::<String>());
        }
        format!("{caller}{trouble}{name} {line}")
    }

    fn shown_input(&self) -> String {
        let shown =
            if self.call.input == MESSAGE.as_bytes() { b"(the usual message)" } else { &self.call.input[..] };
        String::from_utf8_lossy(&shown[..shown.len().min(200)]).into_owned()
    }

    fn check_departure(&self, departure: &Departure, observed: &Observed) -> Result<(), String> {
        let Departure { program, does, why } = departure;
        agrees(does, observed, &self.call.input).map_err(|error| {
            let now = match agrees(&self.does, observed, &self.call.input) {
                Ok(()) => " (it does what we do now)",
                Err(_) => "",
            };
            format!("{program:?} no longer departs so{now}: {error} ({why})")
        })
    }

    /// What callers of ours count on in every case: silence, or one line that says why.
    fn check_manners(&self, program: Kind, observed: &Observed) -> Result<(), String> {
        if program != Kind::Ours {
            return Ok(());
        }
        let is_one_line = observed.errors.ends_with('\n') && observed.errors.lines().count() == 1;
        match self.does {
            Does::Refuses(_) if !is_one_line => Err("a refusal has one line on standard error".to_owned()),
            Does::Refuses(_) if !observed.output.is_empty() => {
                Err("a refusal has nothing on standard output".to_owned())
            }
            // With -bs there is a conversation.
            Does::Submits { .. } if !(observed.output.is_empty() || observed.output.starts_with("220 ")) => {
                Err("who submits mail hears nothing".to_owned())
            }
            Does::Submits { .. } if !observed.errors.is_empty() => {
                Err("nothing is wrong, and standard error says otherwise".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Whether this is what was observed; if not, what differs.
fn agrees(does: &Does, observed: &Observed, input: &[u8]) -> Result<(), String> {
    let expect = |what: &str, expected: &str, is: bool| {
        if is { Ok(()) } else { Err(format!("expected {what} {expected}")) }
    };
    let code = match does {
        Does::Refuses(code) => Some(*code),
        Does::Submits { .. } | Does::Answers(_) => Some(0),
        Does::Waits => None,
    };
    expect("exit code", &format!("{code:?}"), observed.code == code)?;
    match does {
        Does::Refuses(_) | Does::Waits => expect("no", "mail", observed.mail.is_empty()),
        Does::Answers(words) => {
            expect("no", "mail", observed.mail.is_empty())?;
            let is = if words.is_empty() {
                observed.output.is_empty()
            } else {
                observed.output.starts_with(words)
            };
            expect("standard output", &format!("{words:?}"), is)
        }
        Does::Submits { envelope, content } => {
            let [mail] = &observed.mail[..] else { return Err("expected one message".to_owned()) };
            expect("envelope", envelope, mail.envelope == *envelope)?;
            let content = content.clone().unwrap_or_else(|| text(input));
            expect("content", &format!("{content:?}"), is_like(&mail.content, &content))
        }
    }
}

/// Line by line, so that a `*` stays within its line.
fn is_like(text: &str, pattern: &str) -> bool {
    let (mut lines, mut patterns) = (text.split('\n'), pattern.split('\n'));
    loop {
        match (lines.next(), patterns.next()) {
            (None, None) => return true,
            (Some(line), Some(pattern)) if line == pattern => {}
            (Some(line), Some(pattern)) if pattern.contains('*') && pattern_matches(pattern, line) => {}
            _ => return false,
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "got: code {:?}", self.code)?;
        for mail in &self.mail {
            let content: String = mail.content.chars().take(1000).collect();
            write!(f, "\n  mail: {:?} {content:?}", mail.envelope)?;
        }
        write!(f, "\n  output: {:?}\n  errors: {:?}", self.output, self.errors)
    }
}
