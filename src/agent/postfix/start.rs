//! From a process that master(8) has started to one that takes requests.
//!
//! - Owns: the order of opening: main.cf, the log under its final name, the queue directory, tables, keys and
//!   certificates, privileges, threads.
//! - Leaves to others: how the process came to be (`postfix::supervisor`), everything that runs then.
//! - Always true: nothing is opened after privileges are given up that may be closed to the queue's owner or outside of
//!   a new root directory, and whatever is wrong with main.cf is told at once, in the mail log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use super::clerk;
use super::delivery::{Context, PostfixSource};
use super::master::{Master, Parts, Report};
use crate::agent::crew::Crew;
use crate::agent::doorbell::doorbell;
use crate::agent::log::{Facility, MailLog, MailLogTarget, OpenMailLog};
use crate::agent::report::Reporter;
use crate::config::{Transport, WrongSecret};
use crate::postfix::maps::Tables;
use crate::postfix::options::{Options, Role};
use crate::postfix::parameters::{Problems, Settings, Source};
use crate::postfix::report::{self, FlushDomains, Policy, Services, StatusFilter};
use crate::postfix::service::{self, Door, ServiceError, Started};

/// Why a service did not begin, or ended badly. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum PostfixError {
    /// main.cf or the service's `-o` options.
    #[error("{0}")]
    Settings(String),
    /// The process cannot be what it was started as.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Something else could not be set up.
    #[error("{what}: {error}; no mail is delivered by this service")]
    SetUp {
        /// What was tried.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// The master thread cannot go on.
    #[error("{0}; mail that was being delivered stays in the queue")]
    Master(io::Error),
}

fn set_up(what: impl Into<String>) -> impl FnOnce(io::Error) -> PostfixError {
    let what = what.into();
    move |error| PostfixError::SetUp { what, error }
}

/// Runs the worker of a service until it is told to end, or nothing comes any more.
pub fn run(started: Started, log: &OpenMailLog) -> Result<(), PostfixError> {
    let Started { role, options, environment, door } = started;
    let source = Source {
        config_directory: environment.config_directory.clone(),
        overrides: options.overrides.clone(),
    };
    let settings =
        Settings::read(&source, role.protocol, options.flags).map_err(|problems| all_told(&problems))?;
    log.reopen(&mail_log(&settings, &role, &options)?);
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    let queue = &settings.queue_directory;
    std::env::set_current_dir(queue)
        .map_err(set_up(format!("queue_directory = {} cannot be entered", queue.display())))?;
    let tables = Tables::open(&settings).map_err(|problems| all_told(&problems))?;
    let mut settings = open_secrets(settings)?;
    let owner = options.unprivileged.then_some(settings.mail_owner.as_str());
    let root = options.chroot.then_some(settings.queue_directory.as_path());
    service::drop_privileges(owner, root)?;
    settings.config.workers = allow_descriptors(settings.config.workers);
    let service = options.service_name(&role).to_owned();
    let retire = options.retire.map(|seconds| Duration::from_secs(seconds.into()));
    serve(Arc::new(context(settings, tables, service, log.clone())), door, retire)
}

fn serve(context: Arc<Context>, door: Door, retire: Option<Duration>) -> Result<(), PostfixError> {
    let thread = || set_up("a thread cannot be started");
    let (doorbell, chime) = doorbell().map_err(set_up("a pipe cannot be made"))?;
    let (sender, reports) = unbounded();
    let reporter = Reporter::new(sender, doorbell);
    let config = &context.settings.config;
    let source = PostfixSource { context: Arc::clone(&context) };
    let crew = Crew::start(config.workers, source, reporter.clone(), config.myhostname.clone())
        .map_err(set_up("a worker cannot be started"))?;
    let clerk = clerk::start(Arc::clone(&context), reporter.clone()).map_err(thread())?;
    listen_to_signals(reporter).map_err(thread())?;
    log::debug!("started: lastmile {}, {} workers", env!("CARGO_PKG_VERSION"), config.workers);
    crate::agent::log::this_thread_may_not_wait();
    let master = Master::new(Parts { context, door, crew, clerk, reports, chime, retire });
    master.and_then(Master::run).map_err(PostfixError::Master)
}

/// Reads keys and certificates, which may be root's alone, and lie outside of a new root directory.
fn open_secrets(mut settings: Settings) -> Result<Settings, PostfixError> {
    let protocol = settings.client.protocol;
    let opened = open_for(&settings.client);
    let mut transport = opened.map_err(|wrong| {
        let sentences = wrong.into_iter().map(|wrong| format!("{protocol}_{wrong}"));
        all_told(&sentences.collect())
    })?;
    transport.secrets = match settings.tls.trusts_system {
        true => transport.secrets.with_system_authorities(),
        false => transport.secrets.without_system_authorities(),
    };
    settings.client = Arc::new(transport.clone());
    settings.config = settings.config.with_transport(transport);
    Ok(settings)
}

/// A transport with its files. A directory without authorities is nothing to stop for: distributions name one that may be
/// empty, nobody is trusted because of it, and the level decides what that means.
fn open_for(client: &Transport) -> Result<Transport, Vec<WrongSecret>> {
    let protocol = client.protocol;
    match client.clone().open_secrets() {
        Err(wrong) if wrong.iter().all(|wrong| wrong.key == "tls_CApath") => {
            for wrong in wrong {
                log::warn!("{protocol}_{wrong}; nobody is trusted because of it");
            }
            let mut without = client.clone();
            without.tls.ca_path = None;
            without.open_secrets()
        }
        opened => opened,
    }
}

/// All of them are told; the last one is why the service does not begin.
fn all_told(problems: &Problems) -> PostfixError {
    let mut sentences: Vec<_> = problems.sentences().map(str::to_owned).collect();
    let last = sentences.pop().unwrap_or_else(|| "main.cf cannot be used".to_owned());
    for sentence in sentences {
        log::error!("{sentence}");
    }
    PostfixError::Settings(last)
}

/// The log under its final name.
fn mail_log(settings: &Settings, role: &Role, options: &Options) -> Result<MailLog, PostfixError> {
    let facility: Facility = settings
        .syslog_facility
        .parse()
        .map_err(|error| PostfixError::Settings(format!("syslog_facility: {error}")))?;
    let target = match settings.logs_to_postlogd {
        // Relative to the queue directory, so that it is good with every root directory.
        true => MailLogTarget::Postlog {
            socket: settings.queue_directory.join(&settings.postlog_socket),
            host: settings.myhostname.clone(),
        },
        false => MailLogTarget::Syslog(facility),
    };
    Ok(MailLog {
        syslog_name: settings.syslog_name.clone(),
        process: role.process.clone(),
        target,
        to_stderr: options.log_to_stderr,
    })
}

pub(super) fn context(settings: Settings, tables: Tables, service: String, log: OpenMailLog) -> Context {
    let Tables {
        delivery_status_filter,
        discard_keyword_address_maps,
        fast_flush_domains,
        connection_cache_destinations,
        tls_policy_maps,
        sasl_password_maps,
    } = tables;
    let transport = Arc::clone(&settings.client);
    let filter: Option<StatusFilter> = (!delivery_status_filter.is_empty()).then(|| -> StatusFilter {
        Box::new(move |key| delivery_status_filter.look_up(key).map_err(|error| error.to_string()))
    });
    let flush: Option<FlushDomains> = (!fast_flush_domains.is_empty()).then(|| -> FlushDomains {
        Box::new(move |domain| fast_flush_domains.contains(domain).map_err(|error| error.to_string()))
    });
    let policy = Policy {
        names: settings.services.clone(),
        soft_bounce: settings.soft_bounce,
        negative_cache: settings.address_verify_negative_cache,
        protocol: transport.protocol,
        final_delivery: transport.flags.final_delivery,
    };
    let services = Services::new(".", settings.services.clone(), settings.ipc_timeout);
    Context {
        service,
        log,
        transport,
        release: settings.mail_version,
        layout: settings.layout.clone(),
        line_format: settings.line_format,
        reporter: report::Reporter::new(services, policy, filter, flush),
        kept_destinations: connection_cache_destinations,
        discarded_keywords: discard_keyword_address_maps,
        tls_policies: tls_policy_maps,
        passwords: sasl_password_maps,
        settings,
    }
}

/// Descriptors of a delivery: the connection to qmgr, the queue file, the server, a daemon of Postfix.
const DESCRIPTORS_OF_WORKER: usize = 4;
/// Descriptors of the process itself, with some to spare: sockets, log, look-ups of hosts.
const DESCRIPTORS_OF_PROCESS: usize = 32;

/// Raises the limit of descriptors as far as `workers` need it; returns how many there may be within what the system
/// allows. What one more would accept it could not deliver.
fn allow_descriptors(workers: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = (DESCRIPTORS_OF_WORKER * workers + DESCRIPTORS_OF_PROCESS) as u64;
    let Some(current) = current.filter(|current| *current < wanted) else { return workers };
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        Ok(()) => allowed,
        Err(_) => current,
    };
    let fit = workers_within(limit).min(workers);
    if fit < workers {
        log::warn!(
            "{workers} workers need {wanted} file descriptors, and the system allows {limit}: there are {fit} workers"
        );
    }
    fit
}

/// How many workers have room within a limit of descriptors.
fn workers_within(limit: u64) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    (limit.saturating_sub(DESCRIPTORS_OF_PROCESS) / DESCRIPTORS_OF_WORKER).max(1)
}

/// `postfix stop` ends all processes at once: what is under way then has a moment.
fn listen_to_signals(reporter: Reporter<Report>) -> io::Result<()> {
    let mut signals = Signals::new(service::SIGNALS)?;
    let listen = move || {
        for signal in signals.forever().filter(|signal| *signal == SIGTERM) {
            log::debug!("signal {signal}");
            reporter.send_signal(Report::Stop);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use crate::mail::Protocol;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let least = [
            ("mail_version", "3.7.11"),
            ("queue_directory", "/var/spool/postfix"),
            ("myhostname", "mx.example.org"),
        ];
        let values = least.into_iter().chain(pairs.iter().copied()).collect();
        Settings::from_values(&values, Protocol::Lmtp, Flags::default()).unwrap()
    }

    /// How many authorities are trusted; `None`: those of the system.
    fn trusted(pairs: &[(&str, &str)]) -> Option<usize> {
        let opened = open_secrets(settings(pairs)).unwrap();
        let of_engine = opened.config.transport(&opened.transport).unwrap();
        assert_eq!(**of_engine, *opened.client);
        opened.client.secrets.roots().map(|roots| roots.len())
    }

    #[test]
    fn nobody_is_trusted_but_who_is_named_unless_the_system_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let authority = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
        std::fs::write(&file, authority.cert.pem()).unwrap();
        let file = ("lmtp_tls_CAfile", file.to_str().unwrap());
        let system = ("tls_append_default_CA", "yes");
        assert_eq!(trusted(&[]), Some(0));
        assert_eq!(trusted(&[file]), Some(1));
        let nowhere = ("lmtp_tls_CApath", "/nonexistent");
        assert_eq!(trusted(&[nowhere]), Some(0));
        assert_eq!(trusted(&[nowhere, file]), Some(1));
        assert_eq!(trusted(&[system]), None);
        assert_eq!(trusted(&[file, system]), Some(1 + crate::config::system_roots().len()));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_by_the_name_of_its_parameter() {
        let pairs = [("lmtp_tls_cert_file", "/nonexistent/own.pem"), ("lmtp_tls_security_level", "may")];
        let told = open_secrets(settings(&pairs)).unwrap_err().to_string();
        assert!(told.starts_with("lmtp_tls_cert_file: /nonexistent/own.pem: "), "{told}");
    }

    #[test]
    fn there_are_no_more_workers_than_descriptors_allow() {
        for (limit, workers) in [(0, 1), (32, 1), (39, 1), (40, 2), (64, 8), (1024, 248)] {
            assert_eq!(workers_within(limit), workers, "{limit}");
        }
    }
}
