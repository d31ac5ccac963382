//! Submitters are killed while they submit, and the agent meanwhile too.
//!
//! Where root runs it the queue is nobody's, and there are four ways in: root's sendmail becomes the owner and queues
//! directly; a user of the queue's group drops into `incoming/`; another one, who may not write there, hands over by the
//! socket; and a script drops bare files and writes job lines. Anybody else has the first and the last of them.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use lastmile::spool::{Pickup, Spool, SubmitLimits};
use rustix::process::getuid;

use super::ledger::{Ledger, names, wait_until_done};
use super::mail::{Arrived, Mail, Totals, assert_one_id_each, write_jobs};
use super::{ALL_DELIVERED, HURRY, dice, nap};
use crate::common::agent::{LASTMILE, Site};
use crate::common::long::short_or_long;
use crate::common::process::tied_to_this_thread;
use crate::common::sink::SinkProcess;

const WORKERS: usize = 4;
/// Submitters at a time.
const SUBMITTERS: usize = 3;
/// Somebody whose group is the queue's.
const MEMBER: (u32, u32) = (54321, 65534);
/// Somebody who may not write to `incoming/` here.
const STRANGER: (u32, u32) = (54322, 54322);
/// How long a submission may take.
const SUBMISSION_LIMIT: Duration = Duration::from_secs(60);
/// What a submission is thought to take before one has been seen.
const TYPICAL: Duration = Duration::from_millis(50);
/// After this a file that nobody has finished is removed.
const STALE: Duration = Duration::from_secs(37 * 3600);

/// How a message is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Owner,
    Member,
    Socket,
    Fifo,
}

impl Way {
    fn all() -> &'static [Self] {
        if getuid().is_root() {
            &[Self::Owner, Self::Member, Self::Socket, Self::Fifo]
        } else {
            eprintln!("skipped: only root can submit as another user; two of four ways are tried");
            &[Self::Owner, Self::Fifo]
        }
    }

    /// The command that reads the message from its standard input.
    fn command(self, place: &Place, mail: &Mail) -> Command {
        let mut command = match self {
            Self::Owner => tied_to_this_thread("KILL", &place.program),
            Self::Member => place.as_user(MEMBER),
            Self::Socket => place.as_user(STRANGER),
            Self::Fifo => return place.script(mail),
        };
        command.arg("sendmail").args(mail.arguments());
        command
    }
}

/// Where submitters find what they need.
struct Place {
    queue: PathBuf,
    config: PathBuf,
    /// A copy of the program: the build directory may be closed to others.
    program: PathBuf,
}

impl Place {
    fn new(site: &Site) -> Self {
        let program = site.path().join("lastmile");
        fs::copy(LASTMILE, &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        Self { queue: site.queue(), config: site.config(), program }
    }

    fn as_user(&self, (uid, gid): (u32, u32)) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
        command.args(["--clear-groups", "--pdeathsig", "KILL", "--"]).arg(&self.program);
        command
    }

    /// What software does that injects mail, in the words of a shell. Opening the FIFO for both waits for nobody.
    fn script(&self, mail: &Mail) -> Command {
        let mut command = tied_to_this_thread("KILL", "/bin/sh");
        let script = r#"umask 027; cd "$1" && cat >"incoming/.$2" && mv -T "incoming/.$2" "incoming/$2" &&
            printf '\n%s\n' "$3" 1<>jobs"#;
        command.args(["-c", script, "sh"]).arg(&self.queue).arg(mail.bare_name()).arg(mail.job().to_string());
        command
    }
}

/// How a submission ended.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Exit code 0: it must arrive.
    Acknowledged,
    /// It may arrive, but only whole.
    Killed,
    /// Any other exit code, and what was said.
    Refused(String),
}

/// What is to happen to a submitter.
enum Plan {
    Finish,
    /// Killed after this part of the time that a submission typically takes.
    KillAt(f64),
    /// The same, but it never gets more than this many octets of its message, so that it cannot end by itself.
    KillWithin(usize, f64),
}

fn plan(dice: &mut Rng, mail: &Mail) -> Plan {
    match dice.u8(..4) {
        0 | 1 => Plan::Finish,
        2 => Plan::KillAt(1.2 * dice.f64()),
        _ => Plan::KillWithin(dice.usize(..mail.content.len()), 3.0 * dice.f64()),
    }
}

/// Submits one message, by the plan.
fn submit(place: &Place, way: Way, mail: &Mail, plan: &Plan, typical: &mut Duration) -> Fate {
    let mut command = way.command(place, mail);
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    command.env_clear().env("PATH", path).env("LASTMILE_CONFIG", &place.config).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take();
    let part = if let Plan::KillWithin(octets, _) = plan { *octets } else { mail.content.len() };
    // Who refuses does not read on.
    let _ = stdin.as_mut().unwrap().write_all(&mail.content[..part]);
    let whole = typical.as_secs_f64();
    let kill_at = |child: &mut Child, part: &f64| {
        thread::sleep(Duration::from_secs_f64(part * whole).saturating_sub(started.elapsed()));
        child.kill().unwrap();
    };
    match plan {
        Plan::Finish => stdin = None,
        Plan::KillAt(part) => {
            stdin = None;
            kill_at(&mut child, part);
        }
        // With its standard input still open: it must not see an end of a message that has none.
        Plan::KillWithin(_, part) => kill_at(&mut child, part),
    }
    let fate = fate(child, stdin);
    if matches!(plan, Plan::Finish) {
        *typical = (*typical + started.elapsed()) / 2;
    }
    fate
}

fn fate(mut child: Child, stdin: Option<ChildStdin>) -> Fate {
    let deadline = Instant::now() + SUBMISSION_LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("a submission has not ended within {SUBMISSION_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
    // What a killed shell has started ends now, and with it its hold on standard error.
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) => Fate::Acknowledged,
        (None, Some(9)) => Fate::Killed,
        _ => Fate::Refused(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// The queue is nobody's where root may make it so, and its `incoming/` its group's alone.
fn configure(site: &Site, sink: &SinkProcess) {
    let is_root = getuid().is_root();
    let user = if is_root { "user = \"nobody\"\ngroup = \"nogroup\"\n" } else { "" };
    let text = format!(
        "queue_directory = \"{}\"\nmyhostname = \"mx.example.org\"\n{user}default_transport = \"lmtp:unix:{}\"\n\
         workers = {WORKERS}\nworkers_reserved = 0\n{HURRY}",
        site.queue().display(),
        sink.socket.display()
    );
    fs::write(site.config(), text).unwrap();
    fs::set_permissions(&sink.socket, Permissions::from_mode(0o666)).unwrap();
    site.start_agent().stop();
    if is_root {
        fs::set_permissions(site.queue().join("incoming"), Permissions::from_mode(0o3730)).unwrap();
    }
}

/// Kills the agent again and again until all submitters have ended, and at least so often.
fn kill_agents(
    site: &Site,
    sink: &SinkProcess,
    mails: &[Mail],
    dice: &mut Rng,
    ledger: &mut Ledger,
    go_on: impl Fn(&Ledger) -> bool,
) {
    while go_on(ledger) {
        let agent = if dice.u8(..4) == 0 {
            site.begin_agent()
        } else {
            let agent = site.start_agent();
            write_jobs(site, mails);
            agent
        };
        nap(dice, Duration::from_millis(400));
        agent.kill();
        ledger.after_kill(site, sink, WORKERS);
        // Some submit while nobody runs.
        nap(dice, Duration::from_millis(60));
    }
}

/// What killed submitters have left: dot files and drafts, which go when they are old, and not before.
fn assert_leftovers_go_when_they_are_old(site: &Site) -> usize {
    let drafts = [names(site, "incoming"), names(site, "tmp")].concat();
    assert_eq!(site.files().len(), drafts.len(), "something else is left: {:?}", site.files());
    assert!(names(site, "incoming").iter().all(|name| name.starts_with('.')), "{drafts:?}");
    // A file's age goes by the time of its last change of status, which nobody can set: so the clock is set instead.
    let mut pickup = Pickup::new(Spool::open(&site.queue()).unwrap().into(), SubmitLimits::default());
    assert!(pickup.remove_stale_drafts(SystemTime::now()).unwrap().is_empty());
    let removed = pickup.remove_stale_drafts(SystemTime::now() + STALE).unwrap();
    assert!(removed.iter().all(|(_, result)| result.is_ok()), "{removed:?}");
    assert_eq!((removed.len(), site.files()), (drafts.len(), Vec::new()));
    drafts.len()
}

#[test]
fn a_kill_of_submitters_and_agents_at_any_moment_loses_nothing_that_was_acknowledged() {
    let (count, kills) = short_or_long((90, 5), (800, 30));
    let (mut dice, seed) = dice();
    let ways = Way::all();
    let plans: Vec<_> = (0..count)
        .map(|number| {
            let recipient = format!("r{}@example.org", dice.usize(..30));
            let mail = Mail::new(&mut dice, number, vec![recipient], Vec::new());
            (ways[dice.usize(..ways.len())], plan(&mut dice, &mail), mail)
        })
        .collect();
    let mails: Vec<_> = plans.iter().map(|(_, _, mail)| mail.clone()).collect();
    let site = Site::new("");
    let sink = SinkProcess::start(&site, "mail", "data-done * delay 5ms\n");
    configure(&site, &sink);
    let (place, next) = (Place::new(&site), AtomicUsize::new(0));
    let mut ledger = Ledger::default();
    let fates = thread::scope(|scope| {
        let submit_some = || {
            let (mut fates, mut typical) = (Vec::new(), TYPICAL);
            while let Some((way, plan, mail)) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                fates.push((*way, mail, submit(&place, *way, mail, plan, &mut typical)));
            }
            fates
        };
        let submitters: Vec<_> = (0..SUBMITTERS).map(|_| scope.spawn(submit_some)).collect();
        // Also one that has failed is finished.
        let are_busy = || submitters.iter().any(|submitter| !submitter.is_finished());
        let go_on = |ledger: &Ledger| are_busy() || ledger.kills < kills;
        kill_agents(&site, &sink, &mails, &mut dice, &mut ledger, go_on);
        submitters.into_iter().flat_map(|submitter| submitter.join().unwrap()).collect::<Vec<_>>()
    });
    let agent = site.start_agent();
    write_jobs(&site, &mails);
    wait_until_done(&site, ALL_DELIVERED);
    agent.stop();
    ledger.after_the_end(&site);

    let (arrived, mut totals) = (Arrived::look(&sink), Totals::default());
    let (mut acknowledged, mut killed, mut refused, mut came_anyway) = (0, 0, 0, 0);
    for (way, mail, fate) in &fates {
        let has_come = arrived.has_all_of(mail);
        match fate {
            Fate::Acknowledged => acknowledged += 1,
            Fate::Killed => killed += 1,
            // Without an agent nobody listens at the socket.
            Fate::Refused(why) => {
                refused += 1;
                assert!(*way == Way::Socket && why.lines().count() == 1, "{way:?}, {}: {why}", mail.id);
                let may_come = why.contains("did not say that it is queued");
                let is_true = may_come || why.contains("was not queued") && !has_come;
                assert!(is_true, "it has come: {has_come}: {}: {why}", mail.id);
            }
        }
        if *fate == Fate::Acknowledged || has_come {
            came_anyway += usize::from(*fate != Fate::Acknowledged);
            arrived.count(mail, &ledger, &sink, &mut totals);
        }
    }
    arrived.assert_nothing_else(&totals);
    assert_one_id_each(&site);
    let leftovers = assert_leftovers_go_when_they_are_old(&site);
    eprintln!(
        "seed {seed}: {count} submissions: {acknowledged} acknowledged, {refused} refused, {killed} killed, {came_anyway} \
         of these arrived; {} kills of the agent, {} recipients in doubt, {totals:?}, {leftovers} drafts left, 0 lost",
        ledger.kills,
        ledger.doubts()
    );
    assert!(acknowledged > 0 && killed > 0, "it tests nothing");
}
