//! From a configuration to a running agent: what is opened first, and as whom.
//!
//! - Owns: the order of opening, dropping privileges and starting threads; signals; reading the configuration again.
//! - Leaves to others: everything that runs then.
//! - Always true: nothing is opened as root that need not be, and no thread but the log's exists before privileges
//!   are dropped.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::control_server;
use super::crew::Crew;
use super::delivery::SpoolSource;
use super::doorbell::doorbell;
use super::master::{Master, Parts};
use super::message::Counters;
use super::pickup::PickupThread;
use super::report::{Report, Reporter};
use super::sweeper::Sweeper;
use super::trust;
use crate::config::{Config, ConfigError, LogTarget, Sources};
use crate::net;
use crate::spool::{Lock, Spool, SpoolError, Watch};
use crate::system::{Identity, Refused};

/// How long the end of the agent waits for files of delivered messages to be removed.
const SWEEPING_MAX: Duration = Duration::from_secs(1);

/// Why an agent did not start, or ended badly. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// `user` or `group` cannot be used.
    #[error("{key} = \"{name}\": {reason}; the agent does not start")]
    Identity {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file with a password, a key or a certificate cannot be used.
    #[error("{}; the agent does not start", .0.in_one_line())]
    Secrets(ConfigError),
    /// The queue directory cannot be used.
    #[error("{0}; the agent does not start")]
    Queue(#[from] SpoolError),
    /// Something else could not be set up.
    #[error("{what}: {error}; the agent does not start")]
    SetUp {
        /// What was tried.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// The master's poll failed.
    #[error("the agent cannot go on waiting for jobs: {0}; all mail is kept on disk")]
    Poll(io::Error),
}

impl AgentError {
    /// Whether another set-up is needed, as opposed to another time.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Identity { .. } | Self::Secrets(_) | Self::Queue(SpoolError::Unsafe { .. }))
    }
}

fn set_up(what: impl Into<String>) -> impl FnOnce(io::Error) -> AgentError {
    let what = what.into();
    move |error| AgentError::SetUp { what, error }
}

/// Runs an agent until it is told to stop.
pub fn run(config: Config, sources: Sources) -> Result<(), AgentError> {
    let log = match config.log_target {
        LogTarget::Stderr => "the log on standard error cannot be started",
        LogTarget::Syslog => "log_target = \"syslog\": /dev/log cannot be opened",
    };
    super::log::start(&config).map_err(set_up(log))?;
    let sources = sources.pinned();
    let identity = identity_of(&config)?;
    // Before the root directory changes and root is somebody else: then they may be out of reach.
    let mut config = config.open_secrets().map_err(AgentError::Secrets)?;
    crate::spool::survive_file_size_limit().map_err(set_up("SIGXFSZ cannot be ignored"))?;
    let present = (rustix::process::geteuid(), rustix::process::getegid());
    let identified = (identity.uid(), identity.gid());
    let wanted = (identified != present).then_some(identified);
    let (spool, lock) = Spool::prepare(&config.queue_directory, wanted)?;
    let watch = Watch::new(&spool).map_err(set_up("incoming/ cannot be watched"))?;
    let control = bind_control(&config.queue_directory, identified)?;
    // Before the root directory changes: it may lie outside of the new one, or be closed to the new user.
    let manager = ServiceManager::find();
    let mut trusted = trust::Names::default();
    trusted.resolve(&mut config);
    if config.chroot.is_some() {
        trusted.confine();
    }
    let refused = |refused: Refused| AgentError::SetUp { what: refused.what, error: refused.error };
    identity.take_on(config.chroot.as_deref()).map_err(refused)?;
    warn_of_tokens(&config);
    let config = Arc::new(config);
    let reader =
        ConfigReader { sources, trusted, chroot: config.chroot.clone(), current: Arc::clone(&config) };
    start(config, reader, Arc::new(spool), lock, watch, control, manager)
}

fn start(
    config: Arc<Config>,
    reader: ConfigReader,
    spool: Arc<Spool>,
    lock: Lock,
    watch: Watch,
    control: Option<UnixListener>,
    manager: ServiceManager,
) -> Result<(), AgentError> {
    let (doorbell, chime) = doorbell().map_err(set_up("a pipe cannot be made"))?;
    let (sender, reports) = unbounded();
    let reporter = Reporter::new(sender, doorbell);
    let (errands, errand_list) = unbounded();
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let (sweeper, sweeping) =
        Sweeper::start(Arc::clone(&spool)).map_err(set_up("a thread cannot be started"))?;
    let counters = Arc::<Counters>::default();
    let pickup =
        PickupThread::new(Arc::clone(&spool), sweeper.clone(), Arc::clone(&config), reporter.clone())
            .counting_in(Arc::clone(&counters));
    thread("pickup").spawn(move || pickup.run(&errand_list)).map_err(set_up("a thread cannot be started"))?;
    let (workers, hostname) = (config.workers, config.myhostname.clone());
    let source = SpoolSource { spool: Arc::clone(&spool), sweeper, protocol_notices: Arc::default() };
    let crew = Crew::start(workers, source, reporter.clone(), hostname)
        .map_err(set_up("a worker cannot be started"))?;
    let manager = Arc::new(manager);
    watch_signals(reader, reporter.clone(), Arc::clone(&manager))?;
    if let Some(control) = control {
        control_server::start(control, Arc::clone(&spool), reporter)
            .map_err(set_up("the control socket cannot be served"))?;
    }
    let probed = Arc::clone(&config);
    thread("probe")
        .spawn(move || warn_if_bounces_go_nowhere(&probed))
        .map_err(set_up("a thread cannot be started"))?;
    log::info!(
        "started: lastmile {}, {} workers, queue {}",
        env!("CARGO_PKG_VERSION"),
        config.workers,
        config.queue_directory.display()
    );
    manager.tell(&sd_notify::NotifyState::Ready);
    super::log::this_thread_may_not_wait();
    let socket = Arc::clone(&spool);
    let result = Master::new(Parts { config, spool, counters, crew, errands, reports, chime, watch }).run();
    wait_for_sweeper(&sweeping);
    // Only for tidiness: nobody answers there any more, and whoever connects to a leftover is told so.
    if let Err(error) = socket.remove_socket() {
        log::debug!("agent.sock cannot be removed: {error}; the next start replaces it");
    }
    // Threads may still be at work: only the end of the process lets another agent in.
    std::mem::forget(lock);
    result.map_err(AgentError::Poll)
}

/// What is not removed in time is removed at the next start.
fn wait_for_sweeper(thread: &JoinHandle<()>) {
    let by = Instant::now() + SWEEPING_MAX;
    while !thread.is_finished() && Instant::now() < by {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The control socket; `None` on a full disk: it is the mail that has to get out then, so that there is room again.
fn bind_control(
    queue: &Path,
    owner: (rustix::fs::Uid, rustix::fs::Gid),
) -> Result<Option<UnixListener>, AgentError> {
    match control_server::bind(queue, owner) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            log::error!(
                "{}/agent.sock cannot be made: {error}; mail is delivered, but the commands queue and status cannot be \
                 answered before a restart",
                queue.display()
            );
            Ok(None)
        }
        Err(error) => Err(set_up(format!("{}/agent.sock cannot be made", queue.display()))(error)),
    }
}

/// The identity that the agent is to run under.
fn identity_of(config: &Config) -> Result<Identity, AgentError> {
    let unusable = |key, name: &str, reason| AgentError::Identity { key, name: name.to_owned(), reason };
    let mut identity = Identity::present();
    if let Some(name) = &config.user {
        identity = Identity::of_user(name).map_err(|reason| unusable("user", name, reason))?;
    }
    if let Some(name) = &config.group {
        identity = identity.with_group(name).map_err(|reason| unusable("group", name, reason))?;
    }
    let present = rustix::process::geteuid();
    if !present.is_root() && identity.uid() != present {
        let name = config.user.as_deref().unwrap_or_default();
        return Err(unusable("user", name, "only root can become another user".into()));
    }
    if present.is_root() && config.user.is_none() {
        log::warn!(
            "the agent runs as root: set user to an account of its own, or to \"root\" if that is meant"
        );
    }
    Ok(identity)
}

/// TERM and INT stop gracefully, a second one at once; HUP reads the configuration again, USR1 logs a summary.
fn watch_signals(
    mut reader: ConfigReader,
    reporter: Reporter,
    manager: Arc<ServiceManager>,
) -> Result<(), AgentError> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(set_up("signals cannot be watched"))?;
    let watch = move || {
        // A blocked log must not keep a signal from being heard.
        super::log::this_thread_may_not_wait();
        let mut is_stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP => reader.read_again(&reporter),
                SIGUSR1 => reporter.send_signal(Report::StatusWanted),
                _ if is_stopping => {
                    log::warn!("stopped at once: batches under way are tried again at the next start");
                    log::logger().flush();
                    std::process::exit(exit_code(signal));
                }
                _ => {
                    is_stopping = true;
                    manager.tell(&sd_notify::NotifyState::Stopping);
                    reporter.send_signal(Report::Stop);
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .map_err(set_up("a thread cannot be started"))
        .map(drop)
}

/// As a shell reports a process that a signal has ended.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}

/// Reads the configuration again when the agent is told to.
struct ConfigReader {
    sources: Sources,
    trusted: trust::Names,
    /// The root directory that was changed to.
    chroot: Option<PathBuf>,
    /// What was read last.
    current: Arc<Config>,
}

impl ConfigReader {
    fn read_again(&mut self, reporter: &Reporter) {
        match self.read() {
            Ok(config) => {
                self.current = Arc::new(config);
                reporter.send_signal(Report::Reconfigured(Arc::clone(&self.current)));
            }
            Err(error) => {
                for problem in error.problems() {
                    log::error!("{problem}");
                }
                let below = self.chroot.as_ref().map(|root| {
                    format!(
                        " (its files are looked for below chroot, {}: a restart reads them outside)",
                        root.display()
                    )
                });
                let below = below.unwrap_or_default();
                log::error!(
                    "the configuration was not read again{below}: the agent goes on with what it has"
                );
            }
        }
    }

    fn read(&mut self) -> Result<Config, ConfigError> {
        let config = Config::load(&self.sources)?;
        let (mut config, kept) = config.open_secrets_again(&self.current, self.chroot.is_some())?;
        for sentence in kept {
            log::warn!("{sentence}");
        }
        self.trusted.resolve(&mut config);
        warn_of_tokens(&config);
        Ok(config)
    }
}

/// Tokens are read when they are used, by the user that the agent is by then: who made their files hears of it now.
fn warn_of_tokens(config: &Config) {
    for trouble in config.token_troubles() {
        log::warn!("{trouble}; until that is mended, mail for the servers of that entry is deferred");
    }
}

/// The socket of the service manager that has started us, if one has.
struct ServiceManager(Option<UnixDatagram>);

impl ServiceManager {
    fn find() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self(None);
        };
        let connected = UnixDatagram::unbound().and_then(|socket| {
            match path.as_bytes().strip_prefix(b"@") {
                Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
                None => socket.connect(&path)?,
            }
            Ok(socket)
        });
        let connected = connected.inspect_err(|error| {
            log::warn!("the service manager cannot be told anything: {}: {error}", path.display());
        });
        Self(connected.ok())
    }

    fn tell(&self, state: &sd_notify::NotifyState<'_>) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(format!("{state}\n").as_bytes()) {
            log::warn!("the service manager cannot be told {state}: {error}");
        }
    }
}

/// A bounce that goes nowhere is found out when somebody misses it, long after.
fn warn_if_bounces_go_nowhere(config: &Config) {
    let destination = config.bounce_destination();
    let Some(transport) = config.transport(destination.transport()) else { return };
    // No password is sent for a mere look: a wrong one would count against us.
    let transport = transport.without_login();
    if let Err(reason) = net::answers(destination, &transport, &config.myhostname) {
        log::warn!("bounces would go to {destination}, where nothing is ready for mail: {}", reason.text);
    }
}
