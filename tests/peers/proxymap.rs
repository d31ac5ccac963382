//! Postfix's own proxymap(8), asked for keys of real tables.
//!
//! - Owns: a Postfix that runs nothing but proxymap(8) and its log, on a configuration of its own.
//! - Leaves to others: servers that misbehave, and releases of Postfix that are not installed (unit tests).
//! - Always true: needs root, as master(8) does, and Postfix; says so and passes without them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lastmile::config::Flags;
use lastmile::mail::Protocol;
use lastmile::postfix::maps::Opener;
use lastmile::postfix::parameters::{Problems, Settings, Source};
use lastmile::postfix::proxymap::{Case, Proxymap, ProxymapError};
use rustix::process::Signal;

use crate::common::process::{Process, tied_to_this_thread, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const MASTER: &str = "/usr/lib/postfix/sbin/master";

/// A Postfix of our own.
struct Postfix {
    // Stopped before its directory goes.
    master: Process,
    place: tempfile::TempDir,
}

impl Postfix {
    /// `None`, with a line that says why, where there can be none.
    fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(MASTER).is_file() {
            println!("skipped: needs root and {MASTER}");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        // Postfix's user must get through to the queue.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        configure(place.path());
        let mut command = tied_to_this_thread("TERM", MASTER);
        command.arg("-c").arg(place.path().join("etc")).arg("-s").env_clear().env("LANG", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master =
            Process::start("Postfix", &mut command).stopped_by(Signal::TERM, Duration::from_secs(10));
        let postfix = Self { master, place };
        wait_for("Postfix's socket", LIMIT, || postfix.log().contains("daemon started").then_some(()));
        Some(postfix)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn client(&self, new_form: bool) -> Proxymap {
        Proxymap::new(self.path("queue/private/proxymap"), new_form, LIMIT)
    }
}

/// main.cf, master.cf, the queue's directories, and tables.
fn configure(place: &Path) {
    let user = nix::unistd::User::from_name("postfix").unwrap().expect("Postfix has its user");
    for directory in ["etc", "data", "queue", "queue/pid", "queue/private", "queue/public"] {
        fs::create_dir(place.join(directory)).unwrap();
        if !["etc", "queue", "queue/pid"].contains(&directory) {
            chown(place.join(directory), Some(user.uid.as_raw()), None).unwrap();
        }
    }
    let at = place.display();
    let main_cf = format!(
        "compatibility_level = 3.6\nqueue_directory = {at}/queue\ndata_directory = {at}/data\n\
         myhostname = mx.example.org\ninet_interfaces = 127.0.0.1\nmaillog_file = {at}/log\n\
         maillog_file_prefixes = {at}\ntables = {at}\n\
         lmtp_delivery_status_filter = proxy:hash:$tables/filter, proxy:regexp:$tables/patterns\n\
         proxy_read_maps = $lmtp_delivery_status_filter proxy:hash:$tables/missing\n"
    );
    fs::write(place.join("etc/main.cf"), main_cf).unwrap();
    let master_cf = "proxymap unix - - n - - proxymap\npostlog unix-dgram n - n - 1 postlogd\n";
    fs::write(place.join("etc/master.cf"), master_cf).unwrap();
    fs::write(place.join("filter"), "# a comment\nkey value\nLarge v2\n").unwrap();
    fs::write(place.join("patterns"), "/^4\\.2\\.[0-9]+ (.*)$/ 5.2.0 no: $1\n").unwrap();
    let postmap =
        Command::new("/usr/sbin/postmap").arg("-c").arg(place.join("etc")).arg(place.join("filter")).status();
    assert!(postmap.unwrap().success());
}

#[test]
fn keys_are_found_whatever_release_is_expected() {
    let Some(postfix) = Postfix::start() else { return };
    let filter = format!("hash:{}", postfix.path("filter").display());
    for new_form in [false, true] {
        let client = postfix.client(new_form);
        client.open(&filter, Case::Kept).unwrap();
        for (key, case, value) in [
            ("key", Case::Kept, Some("value")),
            ("KEY", Case::Kept, None),
            ("KEY", Case::Folded, Some("value")),
            ("nothing", Case::Kept, None),
        ] {
            let found = client.look_up(&filter, case, key.as_bytes()).unwrap();
            assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key} {case:?}\n{}", postfix.log());
        }
        let missing = format!("hash:{}", postfix.path("missing").display());
        let told = client.look_up(&missing, Case::Kept, b"key").unwrap_err();
        assert!(matches!(told, ProxymapError::TryAgain | ProxymapError::Unusable), "{told}");
        let told = client.open("hash:/etc/aliases", Case::Kept).unwrap_err();
        assert!(matches!(told, ProxymapError::NotApproved), "{told}");
    }
}

#[test]
fn a_reload_does_not_stop_lookups() {
    let Some(postfix) = Postfix::start() else { return };
    let filter = format!("hash:{}", postfix.path("filter").display());
    let client = postfix.client(false);
    for round in 1..=3 {
        assert_eq!(client.look_up(&filter, Case::Kept, b"key").unwrap().as_deref(), Some(&b"value"[..]));
        // Its proxymap ends, and with it the connection that was kept.
        postfix.master.signal(Signal::HUP);
        wait_for("the reload", LIMIT, || {
            (postfix.log().matches("reload -- ").count() == round).then_some(())
        });
    }
}

#[test]
fn tables_of_main_cf_are_opened_and_asked() {
    let Some(postfix) = Postfix::start() else { return };
    let read = |overrides: &[(&str, &str)]| {
        let overrides = overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let source = Source { config_directory: postfix.path("etc"), overrides: overrides.collect() };
        Settings::read(&source, Protocol::Lmtp, Flags::default()).unwrap()
    };
    let open = |settings: &Settings| {
        let mut opener = Opener { proxymap: Arc::new(postfix.client(false)), problems: Problems::default() };
        let maps =
            opener.maps("lmtp_delivery_status_filter", &settings.tables.delivery_status_filter, Case::Kept);
        (maps, opener.problems.to_string())
    };
    let (maps, problems) = open(&read(&[]));
    assert_eq!(problems, "");
    for (key, value) in
        [("key", Some("value")), ("4.2.1 mailbox busy", Some("5.2.0 no: mailbox busy")), ("x", None)]
    {
        assert_eq!(maps.look_up(key).unwrap().as_deref(), value, "{key}");
    }
    // What an override says, proxymap(8) does not hear of.
    let (_, problems) = open(&read(&[("lmtp_delivery_status_filter", "regexp:/etc/x")]));
    assert_eq!(
        problems,
        "lmtp_delivery_status_filter: the table regexp:/etc/x cannot be used: proxymap(8) may not read it: \
         proxy:regexp:/etc/x must stand in main.cf, in a parameter that proxy_read_maps names or in proxy_read_maps itself"
    );
}
