//! Queueing from within a service that systemd has hardened: `NoNewPrivileges=`, `ProtectSystem=strict` and
//! `ReadWritePaths=`, made here by the same means: a mount namespace and prctl(2).

use std::process::{Command, Output};

use super::is_root;
use crate::common::agent::{SOON, Site, run};

/// A service's user.
const SERVICE: u32 = 54_400;

/// What a service is started with.
#[derive(Clone, Copy, Debug)]
struct Service {
    uid: u32,
    /// Whether it sees the file system read-only.
    is_strict: bool,
    /// Places of the queue that it may write to all the same.
    writable: &'static [&'static str],
}

impl Service {
    /// Runs sendmail in it.
    fn send(self, site: &Site, subject: &str) -> Output {
        let inner = site.command(&["sendmail", "-i", "-f", "a@x.example", "b@y.example"]);
        let mut script = "set -e\n".to_owned();
        let queue = site.queue();
        if self.is_strict {
            script += "mount --bind \"$QUEUE\" \"$QUEUE\"; mount -o remount,bind,ro \"$QUEUE\"\n";
        }
        for place in self.writable {
            let path = format!("\"$QUEUE/{place}\"");
            script += &format!("mount --bind {path} {path}; mount -o remount,bind,rw {path}\n");
        }
        let uid = self.uid;
        script +=
            &format!("exec setpriv --no-new-privs --reuid {uid} --regid {uid} --clear-groups -- \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        command.arg(inner.get_program()).args(inner.get_args()).env("QUEUE", queue);
        for (key, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        run(&mut command, format!("Subject: {subject}\n\nhello\n").as_bytes())
    }
}

const PLAIN: Service = Service { uid: SERVICE, is_strict: false, writable: &[] };
const STRICT: Service = Service { uid: SERVICE, is_strict: true, writable: &[] };
const ALLOWED: Service = Service { uid: SERVICE, is_strict: true, writable: &["incoming"] };
const ROOT: Service = Service { uid: 0, is_strict: true, writable: &[] };

/// Whether namespaces and mounts can be made here.
fn is_possible(site: &Site) -> bool {
    let possible =
        is_root() && Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|s| s.success());
    if !possible {
        eprintln!("left out: only root can make a mount namespace, for {}", site.path().display());
    }
    possible
}

fn site() -> Site {
    // Nobody listens there: whatever is queued stays.
    Site::new("default_transport = \"lmtp:unix:/nonexistent/lmtp\"")
}

#[test]
fn hardened_services_queue_through_the_agent() {
    let site = site();
    if !is_possible(&site) {
        return;
    }
    let agent = site.start_agent();
    for service in [PLAIN, STRICT, ALLOWED, ROOT] {
        let subject = format!("{service:?}");
        let output = service.send(&site, &subject);
        assert_eq!(output.status.code(), Some(0), "{service:?}: {output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{service:?}: {output:?}");
        let uid = format!("uid={}", service.uid);
        site.wait_for_line(&[&uid, "from=<a@x.example>"], SOON);
    }
    site.wait_for_lines(4, &["from=<a@x.example>", "nrcpt=1 (queue active)"], SOON);
    let queued = site.queued();
    assert_eq!(queued.len(), 4);
    for message in queued {
        let (id, place) = (message["id"].as_str().unwrap(), message["place"].as_str().unwrap());
        let text = std::fs::read_to_string(site.queue().join(place).join(id)).unwrap();
        // Whoever gives the ID writes it into the field that the submitter has made.
        assert!(text.contains(&format!(")\r\n\tid {id}; ")), "{text}");
    }
    agent.stop();
}

#[test]
fn without_an_agent_a_service_needs_incoming_and_is_told_so() {
    let site = site();
    if !is_possible(&site) {
        return;
    }
    site.start_agent().stop();
    for service in [PLAIN, ALLOWED] {
        let output = service.send(&site, "waits");
        assert_eq!(output.status.code(), Some(0), "{service:?}: {output:?}");
    }
    for (service, places) in [(STRICT, &["incoming"][..]), (ROOT, &["active", "tmp"])] {
        let output = service.send(&site, "is not taken");
        assert_eq!(output.status.code(), Some(73), "{service:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let paths = places.iter().map(|place| site.queue().join(place).display().to_string());
        let advice = format!("ReadWritePaths={}", paths.collect::<Vec<_>>().join(" "));
        assert!(said.contains("no agent is running") && said.contains(&advice), "{service:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let agent = site.start_agent();
    site.wait_for_lines(2, &["from=<a@x.example>", "nrcpt=1 (queue active)"], SOON);
    assert_eq!(site.queued().len(), 2);
    agent.stop();
}
