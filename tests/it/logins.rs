//! Logging in to servers: by whom, with what, and what becomes of mail where that fails.
//!
//! - Owns: servers that ask for a login, tables of passwords, what the log says and does not say.
//! - Leaves to others: exchanges octet by octet (dialogues, `smtp::auth`), real mail servers (`peers`).
//! - Always true: no password of a test is in any file that the agent writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lastmile::mail::Protocol;
use lastmile::sink::{Script, SinkConfig};
use rustix::process::Signal;

use crate::common::agent::{SOON, Site};
use crate::common::certificates::{Certificates, Kind};
use crate::tls::{Server, shown};

const MESSAGE: &[u8] = b"Subject: s\n\nfor who may\n";
/// Part of each password and token.
const CANARY: &str = "canary";
/// What PLAIN makes of `agent` and `canary-one`.
const PLAIN_RESPONSE: &str = "AGFnZW50AGNhbmFyeS1vbmU";

/// A server that takes mail from who has logged in.
fn server(site: &Site, change: impl FnOnce(&mut SinkConfig)) -> Server {
    Server::start_with(site, |config| {
        config.protocol = Protocol::Smtp;
        config.logins = vec![("agent".to_owned(), format!("{CANARY}-one"))];
        change(config);
    })
}

/// Writes a table that only its owner may read.
fn write_passwords(site: &Site, lines: &str) {
    let path = passwords(site);
    fs::write(&path, lines).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn passwords(site: &Site) -> PathBuf {
    site.path().join("passwords")
}

/// The keys of `[transport.smtp]` for logging in.
fn keys(site: &Site, more: &str) -> String {
    let passwords = passwords(site);
    format!(
        "[transport.smtp]\ninet_protocols = \"ipv4\"\nsasl_auth_enable = \"yes\"\n\
         sasl_password_maps = \"texthash:{}\"\n{more}\n",
        passwords.display()
    )
}

/// Nothing that the agent has written repeats a secret.
#[track_caller]
fn assert_secret_kept(site: &Site) {
    for secret in [CANARY, PLAIN_RESPONSE] {
        assert!(!site.log().contains(secret), "{secret}: {}", site.log());
        for file in site.files() {
            let octets = fs::read(site.queue().join(&file)).unwrap_or_default();
            assert!(memchr::memmem::find(&octets, secret.as_bytes()).is_none(), "{secret}: {file}");
        }
    }
}

#[test]
fn each_server_gets_its_own_password_and_who_has_none_is_not_asked() {
    let site = Site::new("");
    let one = server(&site, |_| {});
    let two = server(&site, |config| {
        config.logins = vec![("other".to_owned(), format!("{CANARY}-two:with colon"))];
    });
    let open = server(&site, |config| config.logins.clear());
    write_passwords(
        &site,
        &format!(
            "# by port, and by name\nlocalhost:{}  agent:{CANARY}-one\n[127.0.0.1]:{}\tother:{CANARY}-two:with colon\n",
            one.port, two.port
        ),
    );
    let routes = format!(
        "[routes]\n\"one.example\" = \"smtp:localhost:{}\"\n\"two.example\" = \"smtp:[127.0.0.1]:{}\"\n\
         \"open.example\" = \"smtp:localhost:{}\"\n",
        one.port, two.port, open.port
    );
    site.configure(&format!("{routes}{}", keys(&site, "debug_peer_list = \"localhost, 127.0.0.1\"")));
    let agent = site.start_agent_with(&[("RUST_LOG", "trace")]);
    let recipients = ["b@one.example", "b@two.example", "b@open.example"];
    site.sendmail(&recipients, MESSAGE);
    for (address, server) in recipients.iter().zip([&one, &two, &open]) {
        site.wait_for_line(&[&format!("to=<{address}>"), "status=sent"], SOON);
        assert_eq!(server.mail_of(address), 1, "{address}");
    }
    let said = site.lines_with(&["> AUTH "]);
    assert!(
        said.len() == 2 && said.iter().all(|line| line.contains("AUTH SCRAM-SHA-256 [...]")),
        "{said:#?}"
    );
    assert_secret_kept(&site);
    agent.stop();
}

#[test]
fn a_wrong_password_keeps_the_mail_and_rests_the_destination_until_it_is_mended() {
    let site = Site::new("");
    let server = server(&site, |_| {});
    let route = format!(
        "minimal_backoff_time = 1\nmaximal_backoff_time = 1\nqueue_run_delay = 1\n\
         notify_classes = [\"protocol\", \"resource\"]\ndefault_transport = \"smtp:localhost:{}\"\n",
        server.port
    );
    write_passwords(&site, &format!("localhost agent:{CANARY}-wrong\n"));
    site.configure(&format!("{route}{}", keys(&site, "")));
    let agent = site.start_agent();
    site.sendmail(&["b@y.example"], MESSAGE);
    let line = site.wait_for_line(&["to=<b@y.example>", "status=deferred"], SOON);
    assert!(line.contains("dsn=4.7.8"), "{line}");
    assert!(
        line.contains("SASL authentication failed; server localhost[127.0.0.1] said: 535 5.7.8"),
        "{line}"
    );
    write_passwords(&site, &format!("localhost agent:{CANARY}-one\n"));
    agent.signal(Signal::HUP);
    site.wait_for_line(&["to=<b@y.example>", "status=sent"], SOON);
    assert_eq!(server.mail_of("b@y.example"), 1);
    assert_eq!(site.lines_with(&["status=bounced"]), Vec::<String>::new());
    assert_secret_kept(&site);
    agent.stop();
}

#[test]
fn a_password_goes_in_clear_to_nobody_and_over_tls_to_who_has_proved_who_it_is() {
    let site = Site::new("");
    let certificates = Certificates::make(&site.path().join("certificates"), &["localhost"]);
    let server = server(&site, |config| config.tls = Some(shown(&certificates, Kind::Good)));
    write_passwords(&site, &format!("localhost agent:{CANARY}-one\n"));
    let authority = certificates.authority.display();
    let base = format!(
        "protocol = \"smtp\"\ninet_protocols = \"ipv4\"\ntls_CAfile = \"{authority}\"\nsasl_auth_enable = \"yes\"\n\
         sasl_password_maps = \"texthash:{}\"\nsasl_mechanism_filter = \"PLAIN\"\n",
        passwords(&site).display()
    );
    let (mut routes, mut transports) = ("queue_run_delay = 3600\n[routes]\n".to_owned(), String::new());
    let cases = [
        ("clear", "tls_security_level = \"none\"", false),
        ("anybody", "tls_security_level = \"encrypt\"", false),
        ("proved", "tls_security_level = \"secure\"", true),
        ("wanted", "tls_security_level = \"encrypt\"\nsasl_tls_security_options = \"noanonymous\"", true),
        ("reckless", "tls_security_level = \"none\"\nsasl_security_options = \"noanonymous\"", true),
        ("strict", "tls_security_level = \"secure\"\nsasl_tls_security_options = \"noplaintext\"", false),
    ];
    for (name, keys, _) in &cases {
        routes += &format!("\"{name}.example\" = \"{name}:localhost:{}\"\n", server.port);
        transports += &format!("[transport.{name}]\n{base}{keys}\n");
    }
    site.configure(&format!("{routes}{transports}"));
    let agent = site.start_agent();
    let recipients: Vec<_> = cases.iter().map(|(name, ..)| format!("b@{name}.example")).collect();
    site.sendmail(&recipients.iter().map(String::as_str).collect::<Vec<_>>(), MESSAGE);
    for ((name, _, goes), address) in cases.iter().zip(&recipients) {
        let line = site.wait_for_line(&[&format!("to=<{address}>")], SOON);
        if *goes {
            assert!(line.contains("status=sent"), "{line}");
        } else {
            assert!(
                line.contains("status=deferred (SASL authentication failed; cannot authenticate"),
                "{line}"
            );
            assert!(line.contains("PLAIN"), "{line}");
        }
        assert_eq!(server.mail_of(address), usize::from(*goes), "{name}");
    }
    assert_secret_kept(&site);
    agent.stop();
}

#[test]
fn a_token_is_read_from_its_file_each_time() {
    let site = Site::new("");
    let certificates = Certificates::make(&site.path().join("certificates"), &["localhost"]);
    let server = server(&site, |config| config.tls = Some(shown(&certificates, Kind::Good)));
    let token = site.path().join("token");
    let write_token = |text: &str| {
        fs::write(&token, text).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write_token("canary-old\n");
    write_passwords(&site, &format!("localhost agent:token-file:{}\n", token.display()));
    let top = format!(
        "minimal_backoff_time = 1\nmaximal_backoff_time = 1\nqueue_run_delay = 1\n\
         default_transport = \"smtp:localhost:{}\"\n",
        server.port
    );
    let more =
        format!("tls_security_level = \"secure\"\ntls_CAfile = \"{}\"\n", certificates.authority.display());
    site.configure(&format!("{top}{}", keys(&site, &more)));
    let agent = site.start_agent();
    site.sendmail(&["b@y.example"], MESSAGE);
    site.wait_for_line(&["to=<b@y.example>", "status=deferred", "SASL authentication failed"], SOON);
    // Nobody tells the agent.
    write_token(&format!("{CANARY}-one\n"));
    site.wait_for_line(&["to=<b@y.example>", "status=sent"], SOON);
    assert_eq!(server.mail_of("b@y.example"), 1);
    assert_secret_kept(&site);
    agent.stop();
}

#[test]
fn a_server_that_no_longer_asks_for_the_login_gets_no_mail() {
    let site = Site::new("");
    let server = server(&site, |config| config.logins.clear());
    write_passwords(&site, &format!("localhost agent:{CANARY}-one\n"));
    let top = format!("queue_run_delay = 3600\ndefault_transport = \"smtp:localhost:{}\"\n", server.port);
    site.configure(&format!("{top}{}", keys(&site, "")));
    let agent = site.start_agent();
    site.sendmail(&["b@y.example"], MESSAGE);
    let line = site.wait_for_line(&["to=<b@y.example>", "status=deferred"], SOON);
    assert!(line.contains("it does not offer AUTH, and a login is configured for it"), "{line}");
    assert_eq!(server.handle.counts().messages, 0);
    agent.stop();
}

#[test]
fn what_a_server_repeats_of_a_login_reaches_nobody() {
    let site = Site::new("");
    let certificates = Certificates::make(&site.path().join("certificates"), &["localhost"]);
    let repeats = format!("your last good command was AUTH PLAIN {PLAIN_RESPONSE}= with {CANARY}-one");
    let script = format!(
        "mail *@b.example 550 5.7.1 {repeats}\nmail *@g.example garbage {repeats}\nauth after 2 535 5.7.8 {repeats}\n"
    );
    let server = server(&site, |config| {
        config.tls = Some(shown(&certificates, Kind::Good));
        config.script = Script::parse(&script).unwrap();
        // The third login is refused.
        config.transaction_limit = Some(1);
    });
    write_passwords(&site, &format!("localhost agent:{CANARY}-one\n"));
    // Bounces and notices stay in the queue.
    let top = format!(
        "workers = 1\nqueue_run_delay = 3600\nnotify_classes = [\"protocol\", \"bounce\"]\n\
         bounce_nexthop = \"unix:/nonexistent/socket\"\ndefault_transport = \"smtp:localhost:{}\"\n",
        server.port
    );
    let more = format!(
        "tls_security_level = \"secure\"\ntls_CAfile = \"{}\"\nsasl_mechanism_filter = \"PLAIN\"\n\
         debug_peer_list = \"localhost\"\n",
        certificates.authority.display()
    );
    site.configure(&format!("{top}{}", keys(&site, &more)));
    let agent = site.start_agent_with(&[("RUST_LOG", "trace")]);
    for (sender, fate) in [
        ("a@b.example", "status=bounced (host localhost[127.0.0.1] said: 550 5.7.1 your last good"),
        ("a@g.example", "which is no SMTP reply"),
        (
            "a@c.example",
            "SASL authentication failed; server localhost[127.0.0.1] said: 535 5.7.8 your last good",
        ),
    ] {
        site.sendmail(&["-f", sender, "r@y.example"], MESSAGE);
        let line = site.wait_for_line(&["to=<r@y.example>", fate], SOON);
        assert!(line.contains("[...]"), "{line}");
    }
    assert!(site.files().iter().any(|file| file.contains("active/") || file.contains("deferred/")));
    assert_secret_kept(&site);
    agent.stop();
}

#[test]
fn the_dialogue_that_a_command_shows_has_no_password_in_it() {
    let site = Site::new("");
    let certificates = Certificates::make(&site.path().join("certificates"), &["localhost"]);
    let echo = format!("auth times 1 garbage AUTH PLAIN {PLAIN_RESPONSE}=\n");
    let unfinished = format!("auth times 1 partial 502 what is AUTH PLAIN {PLAIN_RESPONSE}\n");
    for (script, said) in [
        (String::new(), "S: 235 "),
        (echo, "which is no SMTP reply"),
        (unfinished, "status=deferred"),
        (format!("auth inject 500 what is {PLAIN_RESPONSE}=\n"), "S: 500 what is [...]"),
    ] {
        let server = server(&site, |config| {
            config.tls = Some(shown(&certificates, Kind::Good));
            config.script = Script::parse(&script).unwrap();
        });
        write_passwords(&site, &format!("localhost agent:{CANARY}-one\n"));
        let more = format!(
            "tls_security_level = \"secure\"\ntls_CAfile = \"{}\"\nsasl_mechanism_filter = \"PLAIN\"\n\
             lhlo_timeout = 1\n",
            certificates.authority.display()
        );
        site.configure(&keys(&site, &more));
        let to = format!("localhost:{}", server.port);
        let arguments = ["sendmail", "--esmtp", &to, "--dump", "-f", "a@x.example", "b@y.example"];
        let output = site.run(&arguments, MESSAGE);
        let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(shown.contains("C: AUTH PLAIN [...]") && shown.contains(said), "{script}{shown}");
        assert!(!shown.contains(CANARY) && !shown.contains(PLAIN_RESPONSE), "{script}{shown}");
    }
}

#[test]
fn a_probe_says_whether_we_have_logged_in_where_that_is_offered() {
    let site = Site::new("");
    let (asking, open) = (server(&site, |_| {}), server(&site, |config| config.logins.clear()));
    write_passwords(&site, &format!("localhost agent:{CANARY}-one\n"));
    let probe = |server: &Server, keys: &str| {
        site.configure(&format!("default_transport = \"smtp:localhost:{}\"\n{keys}", server.port));
        let output = site.run(&["check", "--probe"], b"");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let (_, end) = said.split_once(" is ready for mail").unwrap();
        end.trim_end().to_owned()
    };
    let ipv4 = "[transport.smtp]\ninet_protocols = \"ipv4\"\n";
    assert_eq!(probe(&asking, ipv4), "; it offers logins, and we have not logged in");
    assert_eq!(probe(&asking, &keys(&site, "")), ", and has accepted our login");
    assert_eq!(probe(&open, ipv4), "");
    // Without --probe nothing but the server for bounces is looked at, and it gets no password.
    assert_eq!(asking.handle.counts().logins, 1);
    site.configure(&format!("default_transport = \"smtp:localhost:{}\"\n{}", asking.port, keys(&site, "")));
    assert_eq!(site.run(&["check"], b"").status.code(), Some(0));
    assert_eq!((asking.handle.counts().logins, asking.handle.counts().connections), (1, 3));
}
