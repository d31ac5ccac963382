//! Keys of the configuration, by what a running agent makes of them.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lastmile::sink::{Handle, Listen, Sink, SinkConfig, Store};
use serde_json::json;

use super::{HURRY, Server, mounts_of_our_own, submit, submit_job, to_socket, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;

#[test]
fn notices_go_to_whom_the_postmaster_has_named() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "rcpt no@* 550 5.1.1 no such user\n");
    server.serves(&site, "notify_classes = \"bounce\"\nerror_notice_recipient = \"boss@example.net\"\n");
    let agent = site.start_agent();
    submit(&site, "refused", &["no@example.org"]);
    assert!(server.only_mail_of("boss@example.net").contains("no@example.org"));
    wait_until_nothing_is_left(&site, SOON);
    assert!(server.mail_of("postmaster@mx.example.org").is_empty());
    agent.stop();
}

#[test]
fn a_bounce_is_given_up_at_an_age_of_its_own() {
    let site = Site::new("");
    let server = Server::start(
        &site,
        "mail",
        "rcpt no@* 550 5.1.1 no such user\nrcpt late@* 450 4.2.1 full for now\n",
    );
    server.serves(&site, &format!("{HURRY}bounce_queue_lifetime = 1\n"));
    let agent = site.start_agent();
    let job = |to: &str| json!({"sender": "late@example.org", "recipients": [to]});
    submit_job(&site, "bounces", job("no@example.org"));
    submit_job(&site, "waits", job("late@example.org"));
    let expired = site.wait_for_line(&["status=expired"], SOON);
    assert!(expired.contains("from=<>"), "{expired}");
    // The postmaster hears of a bounce that was given up; other mail has its five days.
    server.only_mail_of("postmaster@mx.example.org");
    assert_eq!(site.lines_with(&["status=expired"]).len(), 1);
    let left: Vec<_> = site
        .queued()
        .into_iter()
        .map(|message| (message["sender"].clone(), message["place"].clone()))
        .collect();
    assert!(left.iter().any(|(sender, _)| sender == "late@example.org"), "{left:?}");
    // It is kept for a person to look at.
    assert!(left.contains(&(json!(""), json!("corrupt"))), "{left:?}");
    agent.stop();
}

#[test]
fn long_lines_are_folded_where_the_transport_says_so() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "");
    server.serves(&site, "[transport.lmtp]\nline_length_limit = 100\n");
    let agent = site.start_agent();
    let text = (0..100).map(|number| format!("word{number}")).collect::<Vec<_>>().join("-");
    site.sendmail(&["-i", "b@example.org"], format!("Subject: long\n\n{text}\nshort\n").as_bytes());
    let mail = server.only_mail_of("b@example.org");
    let (_, body) = mail.split_once("\n\n").unwrap();
    assert!(body.lines().all(|line| line.len() <= 100) && body.lines().count() > 2, "{body}");
    assert_eq!(body.replace("\n ", ""), format!("{text}\nshort\n"));
    agent.stop();
}

/// What a thread with mounts of its own does; without these, a word about it.
fn with_mounts_of_its_own(test: fn()) {
    let thread = std::thread::spawn(move || {
        if mounts_of_our_own() {
            test();
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Puts one file or directory over another, for this thread and its children.
#[track_caller]
fn bind(from: &Path, over: &str) {
    let output = Command::new("mount").arg("--rbind").arg(from).arg(over).output().unwrap();
    assert!(output.status.success(), "{over}: {output:?}");
}

#[test]
fn a_port_that_nobody_names_is_the_one_of_the_service() {
    with_mounts_of_its_own(|| {
        if !Path::new("/etc/services").exists() {
            return eprintln!("skipped: there is no /etc/services to put another one over");
        }
        let site = Site::new("");
        let listen = |name: &str| {
            let store = Store::Maildir(site.path().join(name));
            let config = SinkConfig { store, ..SinkConfig::new(Listen::Tcp("127.0.0.1:0".parse().unwrap())) };
            Sink::start(config).unwrap()
        };
        let (by_service, by_key) = (listen("service"), listen("key"));
        let port = |sink: &Handle| match sink.addresses() {
            [Listen::Tcp(address)] => address.port(),
            other => panic!("{other:?}"),
        };
        let services = site.path().join("services");
        fs::write(&services, format!("smtp 25/tcp\nlmtp {}/tcp\n", port(&by_service))).unwrap();
        bind(&services, "/etc/services");
        for (key, sink) in [
            (String::new(), &by_service),
            (format!("[transport.lmtp]\ntcp_port = {}\n", port(&by_key)), &by_key),
        ] {
            site.configure(&format!("default_transport = \"lmtp:inet:127.0.0.1\"\n{key}"));
            let agent = site.start_agent();
            let before = site.lines_with(&["status=sent"]).len();
            submit(&site, "port", &["b@example.org"]);
            let lines = site.wait_for_lines(before + 1, &["status=sent"], SOON);
            assert!(
                lines[before].contains(&format!("relay=127.0.0.1[127.0.0.1]:{}, ", port(sink))),
                "{lines:?}"
            );
            wait_until_nothing_is_left(&site, SOON);
            agent.stop();
        }
    });
}

/// The next line that a syslog is sent.
#[track_caller]
fn next_line(syslog: &UnixDatagram, part: &str) -> String {
    wait_for(&format!("a line to syslog with {part}"), SOON, || {
        let mut octets = [0; 4096];
        let length = syslog.recv(&mut octets).ok()?;
        Some(String::from_utf8_lossy(&octets[..length]).into_owned()).filter(|line| line.contains(part))
    })
}

#[test]
fn lines_go_to_syslog_under_the_name_that_was_asked_for_also_when_it_comes_back() {
    with_mounts_of_its_own(|| {
        let site = Site::new("");
        let server = Server::start(&site, "mail", "");
        site.configure(&to_socket(&server.socket, "log_target = \"syslog\"\nsyslog_name = \"post\"\n"));
        let devices = site.path().join("dev");
        fs::create_dir(&devices).unwrap();
        fs::write(devices.join("null"), "").unwrap();
        bind(Path::new("/dev/null"), devices.join("null").to_str().unwrap());
        let listen = || {
            // Left over from the one before.
            let _ = fs::remove_file(devices.join("log"));
            let syslog = UnixDatagram::bind(devices.join("log")).unwrap();
            syslog.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            syslog
        };
        let syslog = listen();
        bind(&devices, "/dev");
        let agent = site.start_agent();
        let pid = agent.pid();
        for syslog in [syslog, listen()] {
            submit(&site, "logged", &["b@example.org"]);
            let line = next_line(&syslog, "status=sent");
            // Facility mail, severity info.
            let (front, text) = line.split_once(" post/").unwrap();
            assert!(front.starts_with("<22>") && front.len() == "<22>Nov 22 02:12:10".len(), "{line}");
            assert!(text.starts_with(&format!("lmtp[{pid}]: ")) && !text.ends_with('\n'), "{line}");
        }
        assert_eq!(site.log(), "", "nothing is left for standard error");
        agent.stop();
    });
}
