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
use crate::sink::{
    Counts, Extension, Handle, Listen, SCRIPT_HELP, Script, Sink, SinkConfig, Store, TlsConfig, TlsVersion,
};

/// sysexits(3): the server cannot listen or store.
const EX_UNAVAILABLE: u8 = 69;
/// sysexits(3): the script, the certificate or its key cannot be used.
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
    /// Offer STARTTLS with the certificate in FILE, and those that lead to its authority (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Ask clients for a certificate that one of the authorities in FILE has signed (PEM); none is required
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Speak this version only: TLSv1.2 or TLSv1.3; may be repeated
    #[arg(long, value_name = "VERSION", requires = "tls_cert")]
    tls_protocol: Vec<TlsVersion>,
    /// Begin with TLS, without STARTTLS
    #[arg(long, requires = "tls_cert")]
    wrappermode: bool,
    /// Refuse mail until the client has logged in as USER; may be repeated
    #[arg(long, value_name = "USER:PASSWORD", value_parser = parse_login)]
    auth: Vec<(String, String)>,
    /// Also print the counts each second while they change
    #[arg(long)]
    count: bool,
}

impl Options {
    /// The server that the options describe; what of them is of no use, in words.
    fn into_config(self) -> Result<SinkConfig, String> {
        let script = self.script.as_deref().map_or_else(|| Ok(Script::default()), Script::load);
        let tls = self.tls_cert.zip(self.tls_key).map(|(cert, key)| TlsConfig {
            cert,
            key,
            client_ca: self.tls_client_ca,
            versions: self.tls_protocol,
        });
        // The server reads the files for itself; here they are tried, so that the exit code tells them from a socket.
        tls.as_ref().map(TlsConfig::open).transpose().map_err(|error| error.to_string())?;
        Ok(SinkConfig {
            protocol: if self.esmtp { Protocol::Smtp } else { Protocol::Lmtp },
            listen: self.listen,
            store: self.maildir.map_or(Store::Discard, Store::Maildir),
            script: script.map_err(|error| error.to_string())?,
            without: self.without,
            hostname: self.hostname,
            connection_limit: self.connection_limit,
            message_size_limit: self.size_limit,
            recipient_limit: self.recipient_limit,
            transaction_limit: self.transaction_limit,
            timeout: Duration::from_secs(300),
            tls,
            wrappermode: self.wrappermode,
            logins: self.auth,
        })
    }
}

/// Reads `USER:PASSWORD`. The password may have colons, too.
fn parse_login(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok((user.to_owned(), password.to_owned()))
        }
        _ => Err("a login is a name, a colon and a password".to_owned()),
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
            "--listen unix:/x --discard --tls-cert a",
            "--listen unix:/x --discard --tls-key a",
            "--listen unix:/x --discard --wrappermode",
            "--listen unix:/x --discard --tls-client-ca a",
            "--listen unix:/x --discard --tls-cert a --tls-key a --tls-protocol SSLv3",
            "--listen unix:/x --discard --auth tim",
            "--listen unix:/x --discard --auth :x",
            "--listen unix:/x --discard --auth tim:",
        ] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn tls_and_logins_become_a_server() {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["sink.example".to_owned()]).unwrap();
        let (cert, key) = (directory.path().join("cert"), directory.path().join("key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (shown_cert, shown_key) = (cert.display(), key.display());
        let base = "--listen unix:/x --discard --auth tim:a:b --auth jo:x";
        let arguments = format!(
            "{base} --tls-cert {shown_cert} --tls-key {shown_key} --tls-client-ca {shown_cert} --wrappermode \
             --tls-protocol tlsv1.3"
        );
        let config = parse(&arguments).unwrap().into_config().unwrap();
        let (client_ca, versions) = (Some(cert.clone()), vec![TlsVersion::V1_3]);
        let expected = TlsConfig { cert: cert.clone(), key: key.clone(), client_ca, versions };
        assert_eq!(config.tls, Some(expected));
        assert!(config.wrappermode);
        let logins = [("tim", "a:b"), ("jo", "x")].map(|(user, word)| (user.to_owned(), word.to_owned()));
        assert_eq!(config.logins, logins);
        let error = parse(&format!("{base} --tls-cert {shown_cert} --tls-key {shown_cert}"));
        let error = error.unwrap().into_config().unwrap_err();
        assert!(error.starts_with(&format!("cannot use {shown_cert} for TLS: ")), "{error}");
    }

    #[test]
    fn a_script_that_cannot_be_used_stops_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("rules");
        std::fs::write(&script, "mail explode\n").unwrap();
        let arguments = format!("--listen unix:/x --discard --script {}", script.display());
        let error = parse(&arguments).unwrap().into_config().unwrap_err();
        assert!(error.contains("rules: line 1: \"explode\""), "{error}");
    }

    #[test]
    fn the_long_help_describes_scripts() {
        let mut command = Options::augment_args(clap::Command::new("sink"));
        assert!(command.render_long_help().to_string().contains("rcpt bob@*"));
        assert!(!command.render_help().to_string().contains("rcpt bob@*"));
    }
}
