//! `lastmile sink`: an LMTP or ESMTP server for tests and demonstrations.
//!
//! - Owns: the command line, and the words on standard output and standard error.
//! - Leaves to others: the server (`crate::sink`).
//! - Always true: once the line `listening on …` is out, connections are taken; the counts are the last line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::mail::Protocol;
use crate::sink::{Counts, Extension, Handle, Listen, SCRIPT_HELP, Script, Sink, SinkConfig, Store};

/// sysexits(3): the server cannot listen or store.
const EX_UNAVAILABLE: u8 = 69;
/// sysexits(3): the script cannot be used.
const EX_CONFIG: u8 = 78;
/// How often `--count` looks for news.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Options of `lastmile sink`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The long help (--help) describes the script language.", after_long_help = SCRIPT_HELP)]
pub struct Options {
    /// Speak LMTP (the default)
    #[arg(long, conflicts_with = "esmtp")]
    lmtp: bool,
    /// Speak ESMTP
    #[arg(long)]
    esmtp: bool,
    /// Where to listen: unix:PATH or inet:HOST:PORT (port 0: any free one); may be repeated
    #[arg(long, required = true, value_name = "ADDRESS")]
    listen: Vec<Listen>,
    /// Deliver into DIR/RECIPIENT/{tmp,new,cur}
    #[arg(long, value_name = "DIR", required_unless_present = "discard")]
    maildir: Option<PathBuf>,
    /// Throw the mail away
    #[arg(long, conflicts_with = "maildir")]
    discard: bool,
    /// Misbehave as the rules in FILE say
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Do not offer an extension, such as PIPELINING or CHUNKING; may be repeated
    #[arg(long, value_name = "KEYWORD")]
    without: Vec<Extension>,
    /// The server's name in its greeting
    #[arg(long, value_name = "NAME", default_value = "sink.example")]
    hostname: String,
    /// Octets of a message at most
    #[arg(long, value_name = "OCTETS", default_value_t = 50 * 1024 * 1024)]
    size_limit: u64,
    /// Recipients of a transaction at most; further ones get a 452
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    recipient_limit: usize,
    /// Transactions of a connection at most; a further one gets a 421
    #[arg(long, value_name = "NUMBER")]
    transaction_limit: Option<usize>,
    /// Connections at a time; further ones get a 421
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    connection_limit: usize,
    /// Also print the counts each second while they change
    #[arg(long)]
    count: bool,
}

impl Options {
    /// The server that the options describe.
    fn into_config(self) -> Result<SinkConfig, crate::sink::ScriptError> {
        Ok(SinkConfig {
            protocol: if self.esmtp { Protocol::Smtp } else { Protocol::Lmtp },
            listen: self.listen,
            store: self.maildir.map_or(Store::Discard, Store::Maildir),
            script: self.script.as_deref().map_or_else(|| Ok(Script::default()), Script::load)?,
            without: self.without,
            hostname: self.hostname,
            connection_limit: self.connection_limit,
            message_size_limit: self.size_limit,
            recipient_limit: self.recipient_limit,
            transaction_limit: self.transaction_limit,
            timeout: Duration::from_secs(300),
            tls: None,
            wrappermode: false,
            logins: Vec::new(),
        })
    }
}

/// Runs the server until SIGINT or SIGTERM.
pub fn run(options: Options) -> ExitCode {
    let counting = options.count;
    let config = match options.into_config() {
        Ok(config) => config,
        Err(error) => return fail(EX_CONFIG, &format!("{error}; the sink does not start")),
    };
    // Before the server starts: a signal that comes early must not end it without its counts.
    let signals = match listen_for_signals() {
        Ok(signals) => signals,
        Err(error) => return fail(EX_UNAVAILABLE, &format!("cannot wait for signals: {error}")),
    };
    match Sink::start(config) {
        Ok(handle) => serve(handle, &signals, counting),
        Err(error) => fail(EX_UNAVAILABLE, &format!("{error}; the sink does not start")),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("lastmile sink: {message}");
    ExitCode::from(code)
}

/// A channel that brings one message when the first signal has come, or that closes.
fn listen_for_signals() -> io::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (sender, receiver) = bounded(1);
    std::thread::Builder::new().name("sink signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            // Without a receiver the command is ending anyway.
            let _ = sender.send(());
        }
    })?;
    Ok(receiver)
}

fn serve(handle: Handle, signals: &Receiver<()>, counting: bool) -> ExitCode {
    let addresses: Vec<_> = handle.addresses().iter().map(Listen::to_string).collect();
    let mut printed = say(&format!("listening on {}", addresses.join(" ")));
    let mut last = Counts::default();
    while signals.recv_timeout(COUNT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let counts = handle.counts();
        if counting && counts != last {
            printed = printed.and(say(&counts.to_string()));
            last = counts;
        }
    }
    printed = printed.and(say(&handle.stop().to_string()));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EX_UNAVAILABLE, &format!("cannot write to standard output: {error}")),
    }
}

/// Prints a line at once, also into a pipe. The server goes on when nobody reads any more.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn parse(arguments: &str) -> Result<Options, clap::Error> {
        let command = Options::augment_args(clap::Command::new("sink").no_binary_name(true));
        Options::from_arg_matches(&command.try_get_matches_from(arguments.split_whitespace())?)
    }

    #[test]
    fn options_become_a_server() {
        let options =
            parse("--esmtp --listen unix:/x --listen inet:127.0.0.1:0 --discard --without chunking");
        let config = options.unwrap().into_config().unwrap();
        assert_eq!((config.protocol, config.store), (Protocol::Smtp, Store::Discard));
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.without, [Extension::Chunking]);
        let config = parse("--listen unix:/x --maildir /m").unwrap().into_config().unwrap();
        assert_eq!((config.protocol, config.store), (Protocol::Lmtp, Store::Maildir("/m".into())));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for arguments in [
            "",
            "--listen unix:/x",
            "--discard",
            "--listen unix:/x --maildir /m --discard",
            "--listen unix:/x --discard --lmtp --esmtp",
            "--listen x --discard",
            "--listen unix:/x --discard --without HELP",
        ] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn a_script_that_cannot_be_used_stops_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("rules");
        std::fs::write(&script, "mail explode\n").unwrap();
        let arguments = format!("--listen unix:/x --discard --script {}", script.display());
        let error = parse(&arguments).unwrap().into_config().unwrap_err().to_string();
        assert!(error.contains("rules: line 1: \"explode\""), "{error}");
    }

    #[test]
    fn the_long_help_describes_scripts() {
        let mut command = Options::augment_args(clap::Command::new("sink"));
        assert!(command.render_long_help().to_string().contains("rcpt bob@*"));
        assert!(!command.render_help().to_string().contains("rcpt bob@*"));
    }
}
