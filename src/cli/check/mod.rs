//! `lastmile check`: whether the configuration can be used, and what is in effect.
//!
//! - Owns: the listing, and warnings about what is possible but probably not meant.
//! - Leaves to others: what makes a configuration impossible (`config`); the conversation with servers (`net`).
//! - Always true: the listing is itself a configuration file with the same effect; nothing is changed; nothing secret is
//!   shown.

mod logins;
mod secrecy;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::unistd::{Group, User};

use crate::agent::trust;
use crate::config::{Config, ConfigError, Sources, Transport, quoted};
use crate::mail::{Destination, Server};
use crate::net::{self, Ready};

/// EX_CONFIG of sysexits(3).
const EX_CONFIG: u8 = 78;
/// EX_UNAVAILABLE of sysexits(3).
const EX_UNAVAILABLE: u8 = 69;
/// EX_IOERR of sysexits(3).
const EX_IOERR: u8 = 74;
/// Beyond this column sources are no longer aligned.
const SOURCE_COLUMN_MAX: usize = 72;
/// RFC 5321 section 4.5.3.2.6 asks for ten minutes; below one, servers under load are cut off regularly.
const DATA_DONE_TIMEOUT_SHORT: Duration = Duration::from_secs(60);

/// Reads the configuration and shows it with its sources; or tells everything that is wrong with it. With `probe`,
/// tries every destination that it names.
pub fn run(sources: &Sources, probe: bool) -> ExitCode {
    let written = match Config::load(sources).and_then(Config::check_secrets) {
        Ok((config, unchecked)) => show(&config, sources, &unchecked).and_then(|()| reach(&config, probe)),
        Err(error) => io::stderr().write_all(complaint(&error).as_bytes()).map(|()| EX_CONFIG.into()),
    };
    match written {
        Ok(code) => code,
        // Somebody closed the pipe, as head(1) does: nobody is left to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => EX_IOERR.into(),
    }
}

fn show(config: &Config, sources: &Sources, unchecked: &[String]) -> io::Result<()> {
    io::stdout().write_all(listing(config).as_bytes())?;
    let mut stderr = io::stderr();
    let unchecked = unchecked.iter().map(|file| format!("not checked: {file}"));
    for warning in warnings(config, sources).into_iter().chain(unchecked) {
        writeln!(stderr, "lastmile: warning: {warning}")?;
    }
    Ok(())
}

/// Tries the servers. Without `all` only the one for bounces: that they go nowhere is found out too late otherwise.
fn reach(config: &Config, all: bool) -> io::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    if all {
        for destination in config.destinations() {
            match answer(config, destination, Transport::clone) {
                Ok(ready) => io::stdout().write_all(found(destination, &ready).as_bytes())?,
                Err(text) => {
                    code = EX_UNAVAILABLE.into();
                    writeln!(io::stderr(), "lastmile: error: {destination}: not ready for mail: {text}")?;
                }
            }
        }
    // No password is sent for a mere look: a wrong one would count against us.
    } else if let Err(text) = answer(config, config.bounce_destination(), Transport::without_login) {
        let destination = config.bounce_destination();
        writeln!(
            io::stderr(),
            "lastmile: warning: bounces would go to {destination}, where nothing is ready for mail: {text}"
        )?;
    }
    Ok(code)
}

/// What a probe has found, as lines of comment: the listing is a configuration file.
fn found(destination: &Destination, ready: &Ready) -> String {
    let mut text: String = ready.notes.iter().map(|note| format!("# {destination}: {note}\n")).collect();
    if let Some(security) = &ready.security {
        text.push_str(&format!("# {destination}: {security}\n"));
    }
    let login = match (ready.is_logged_in, ready.offers_login) {
        (true, _) => ", and has accepted our login",
        (false, true) => "; it offers logins, and we have not logged in",
        (false, false) => "",
    };
    text.push_str(&format!("# {destination}: {} is ready for mail{login}\n", ready.relay));
    text
}

/// Which server of a destination is ready for mail, asked by what `change` makes of its transport, or why none is.
fn answer(
    config: &Config,
    destination: &Destination,
    change: impl Fn(&Transport) -> Transport,
) -> Result<Ready, String> {
    let transport = config.transport(destination.transport()).ok_or("its transport is not configured")?;
    net::answers(destination, &change(transport), &config.myhostname).map_err(|reason| reason.text)
}

/// One line for each problem, and one that says what they mean.
pub fn complaint(error: &ConfigError) -> String {
    let problems = error.problems();
    let lines = problems.iter().map(|problem| format!("lastmile: error: {problem}\n")).collect::<String>();
    let these = if problems.len() == 1 { "this is" } else { "these are" };
    format!("{lines}lastmile: nothing starts with this configuration until {these} mended\n")
}

/// Every value in effect, aligned, with its source behind it.
pub fn listing(config: &Config) -> String {
    let lines: Vec<_> = config
        .settings()
        .iter()
        .map(|setting| {
            (section(&setting.key), format!("{} = {}", setting.key, quoted(&setting.value)), &setting.source)
        })
        .collect();
    let widths = lines.iter().map(|(_, line, _)| line.chars().count());
    let column = widths.filter(|width| *width < SOURCE_COLUMN_MAX).max().unwrap_or(0);
    let (mut text, mut last_section) = (String::new(), "");
    for (section, line, source) in &lines {
        if *section != last_section {
            text.push('\n');
            last_section = section;
        }
        text.push_str(&format!("{line:column$}  # {}\n", source.escape_debug()));
    }
    text
}

/// The section of a transport's key, `transport.NAME`; empty for others, also for entries of tables, whose names have dots of
/// their own.
fn section(key: &str) -> &str {
    let name = key.strip_prefix("transport.").and_then(|rest| rest.split('.').next());
    name.and_then(|name| key.get(.."transport.".len() + name.len())).unwrap_or_default()
}

/// What is possible, and yet probably not meant.
pub fn warnings(config: &Config, sources: &Sources) -> Vec<String> {
    let mut warnings = of_privileges(config);
    warnings.extend(of_files(config, sources));
    warnings.extend(of_values(config));
    warnings.extend(of_transports(config));
    warnings.extend(config.transports().flat_map(|transport| secrecy::warnings(config, transport)));
    warnings.extend(config.transports().flat_map(|transport| logins::warnings(config, transport)));
    warnings.extend(config.token_troubles());
    warnings
}

/// Whom the agent runs as, and whom it trusts.
fn of_privileges(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if config.user.is_none() && rustix::process::geteuid().is_root() {
        found.push(
            "started by root, the agent stays root: name an unprivileged user, or say user = \"root\""
                .to_owned(),
        );
    }
    if config.chroot.is_some() && config.user.as_deref().is_none_or(|user| user == "root") {
        found.push("chroot keeps nothing in while the agent is root: name a user".to_owned());
    }
    let is_user = |user: &&String| matches!(User::from_name(user), Ok(Some(_)));
    let nobody = config.user.iter().filter(|user| !is_user(user)).map(|user| ("user", user));
    let untrusted = config.trusted_users.iter().filter(|user| trust::uid_of(user).is_none());
    for (key, user) in nobody.chain(untrusted.map(|user| ("trusted_users", user))) {
        found.push(format!("{key}: this machine has no user {user:?}"));
    }
    if let Some(group) = &config.group
        && !matches!(Group::from_name(group), Ok(Some(_)))
    {
        found.push(format!("group: this machine has no group {group:?}"));
    }
    found
}

/// What should be on disk.
fn of_files(config: &Config, sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    let (file, _) = sources.file();
    // A device such as /dev/null means that no file is wanted.
    if let Some(metadata) = fs::metadata(&file).ok().filter(fs::Metadata::is_file) {
        let file = file.display();
        if metadata.mode() & 0o004 == 0 {
            found.push(format!(
                "{file} is not readable for everybody: sendmail fails for those who cannot read it"
            ));
        }
        if metadata.mode() & 0o022 != 0 {
            found.push(format!("{file} can be changed by others than its owner"));
        }
    }
    let directories =
        [("queue_directory", Some(&config.queue_directory)), ("chroot", config.chroot.as_ref())];
    for (key, path) in directories.into_iter().filter_map(|(key, path)| Some((key, path?))) {
        if !path.is_dir() {
            found.push(format!("{key}: {} is not there, or is no directory", path.display()));
        }
    }
    let sockets = config.destinations().into_iter().flat_map(|destination| {
        let servers = destination.servers().iter();
        servers.filter_map(move |server| match server {
            Server::Unix(path) => Some((destination, inside(config, path))),
            Server::Tcp { .. } => None,
        })
    });
    for (destination, socket) in sockets {
        if let Err(error) = fs::metadata(&socket) {
            found.push(format!("{destination}: there is no server at {}: {error}", socket.display()));
        }
    }
    found
}

/// A socket's path as this process sees it, before any change of root.
fn inside(config: &Config, path: &Path) -> PathBuf {
    match &config.chroot {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

/// Values at the top that get in each other's way.
fn of_values(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if !config.myhostname.contains('.') {
        found.push(format!(
            "myhostname: {:?} is not fully qualified; some servers refuse it, and it ends up in Message-IDs",
            config.myhostname
        ));
    }
    let eighth = config.workers / 8;
    if config.workers_reserved > eighth && is_set(config, "workers_reserved") {
        found.push(format!(
            "workers_reserved: no more than an eighth of the workers, {eighth}, is ever reserved"
        ));
    }
    if config.queue_run_delay > config.minimal_backoff_time {
        found.push(
            "queue_run_delay is longer than minimal_backoff_time: attempts come later than they could".into(),
        );
    }
    if config.delay_warning_time >= config.maximal_queue_lifetime && !config.delay_warning_time.is_zero() {
        found
            .push("delay_warning_time is not below maximal_queue_lifetime: nobody is ever warned".to_owned());
    }
    if config.bounce_queue_lifetime > config.maximal_queue_lifetime {
        found.push(
            "bounce_queue_lifetime is longer than maximal_queue_lifetime: bounces outlive mail".to_owned(),
        );
    }
    if config.queue_minfree > 0 && config.queue_minfree < config.message_size_limit {
        found.push("queue_minfree is below message_size_limit: one message can fill the disk".to_owned());
    }
    found
}

/// The same for each transport.
fn of_transports(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for transport in config.transports() {
        let key = |key: &str| format!("transport.{}.{key}", transport.name);
        let limit = transport.destination_concurrency_limit;
        let limit_key = key("destination_concurrency_limit");
        if limit > config.workers && is_set(config, &limit_key) {
            found.push(format!("{limit_key}: {limit} cannot be reached with {} workers", config.workers));
        }
        let recipients_key = key("destination_recipient_limit");
        if transport.effective_recipient_limit() != transport.destination_recipient_limit
            && is_set(config, &recipients_key)
        {
            found.push(format!("{recipients_key} has no effect: the flags D and O make it 1"));
        }
        if transport.timeouts.data_done.get() < DATA_DONE_TIMEOUT_SHORT {
            found.push(format!(
                "{} is below a minute: a server that is slow to store mail gets it again and again",
                key("data_done_timeout")
            ));
        }
    }
    found
}

/// Whether somebody gave the value.
fn is_set(config: &Config, key: &str) -> bool {
    config.settings().iter().any(|setting| setting.key == key && setting.source != "default")
}
