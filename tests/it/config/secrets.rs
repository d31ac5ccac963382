//! Files with secrets: who opens them and when, what is said where that fails, and that nothing of them is ever shown.
//!
//! - Owns: `check`, the agent and both ways of sendmail as processes of their own.
//! - Leaves to others: what is wrong with single files (`config::secrets`), logins (`peers`).
//! - Always true: what stands in a table of passwords is in no output.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Signal, getuid};

use super::*;
use crate::common::agent::{LASTMILE, SOON, Site, run};

/// What nobody may ever see.
const CANARY: &str = "canary-5e1f";
/// The account that Debian has for this.
const NOBODY: u32 = 65534;

/// Writes a file with a mode.
fn write(site: &Site, name: &str, content: &str, mode: u32) -> String {
    let path = site.path().join(name);
    let _ = fs::remove_file(&path);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

/// The keys of a transport that logs in by a table.
fn login(table: &str) -> String {
    format!(
        "[transport.smtp]\ntls_security_level = \"encrypt\"\nsasl_auth_enable = \"yes\"\nsasl_password_maps = \
         \"texthash:{table}\"\n"
    )
}

/// A site with a good table.
fn site_with_login() -> Site {
    let site = Site::new("");
    let table = write(&site, "passwords", &format!("relay.example.org {CANARY}:{CANARY}\n"), 0o600);
    site.configure(&login(&table));
    site
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Runs a command as somebody else; `None`, and a word about it, where that is not possible.
fn run_as(site: &Site, uid: u32, arguments: &[&str], input: &[u8]) -> Option<Output> {
    if !getuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return None;
    }
    // The build directory may be closed to others.
    let copy = site.path().join("lastmile");
    fs::copy(LASTMILE, &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).args(["--clear-groups", "--"]);
    command.arg(copy).args(arguments).env_clear().env("LASTMILE_CONFIG", site.config()).current_dir("/");
    Some(run(&mut command, input))
}

#[test]
fn check_opens_what_the_agent_will_and_tells_what_is_wrong() {
    let site = site_with_login();
    let output = site.run(&["check"], b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said(&output).contains("sasl_password_maps = \"texthash:/"), "{output:?}");
    assert!(!said(&output).contains(CANARY), "{output:?}");
    let table = write(&site, "passwords", &format!("{CANARY}\nrelay {CANARY}\n"), 0o600);
    let output = site.run(&["check"], b"");
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        said(&output),
        format!(
            "lastmile: error: transport.smtp.sasl_password_maps: {table}: line 1 has no name and password behind the \
             server\n\
             lastmile: error: transport.smtp.sasl_password_maps: {table}: line 2 has no colon: username:password is \
             needed\n\
             lastmile: nothing starts with this configuration until these are mended\n"
        )
    );
}

#[test]
fn check_by_somebody_who_may_not_read_a_file_warns_and_goes_on() {
    let site = site_with_login();
    let Some(output) = run_as(&site, NOBODY, &["check"], b"") else { return };
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let table = site.path().join("passwords").display().to_string();
    let warning = format!(
        "lastmile: warning: not checked: transport.smtp.sasl_password_maps: {table}: uid {NOBODY} may not read it: \
         Permission denied (os error 13); it belongs to uid 0, mode 0600\n"
    );
    assert!(said(&output).contains(&warning), "{}", said(&output));
}

#[test]
fn check_warns_of_a_token_that_cannot_be_used_yet() {
    let site = Site::new("");
    let table = write(&site, "passwords", "relay.example.org me:token-file:/nonexistent/token\n", 0o600);
    site.configure(&login(&table));
    let output = site.run(&["check"], b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let warning = "lastmile: warning: transport.smtp.sasl_password_maps: line 1: /nonexistent/token: it cannot be read: \
                   No such file or directory (os error 2)\n";
    assert!(said(&output).contains(warning), "{}", said(&output));
}

#[test]
fn check_warns_of_servers_that_get_no_login_and_of_logins_that_nothing_proves() {
    let site = Site::new("");
    let table = write(
        &site,
        "passwords",
        &format!("relay.example.org:465 me:{CANARY}\n/run/lmtp :\nmx.example.org {CANARY}:\n[192.0.2.1] :\n"),
        0o600,
    );
    let warned = |top: &str, more: &str| -> Vec<String> {
        site.configure(&format!("{top}{}{more}", login(&table)));
        let config = Config::load(&Sources { file: Some(site.config()), ..Sources::default() }).unwrap();
        let (config, unchecked) = config.check_secrets().unwrap();
        assert!(unchecked.is_empty());
        let warnings = check::warnings(&config, &Sources::default());
        warnings
            .into_iter()
            .filter_map(|warning| Some(warning.strip_prefix("transport.smtp.")?.to_owned()))
            .collect()
    };
    let top = "default_transport = \"smtp:relay.example.org:587, relay.example.org:465, mx.example.org:25\"\n\
               bounce_nexthop = \"smtp:relay.example.org:587\"\n[routes]\n\"x.example\" = \"lmtp:other.example\"\n\
               \"y.example\" = \"smtp:[192.0.2.2]:25\"\n";
    let unproved = |line| {
        format!(
            "sasl_password_maps: line {line} has no password, so a certificate would have to say who we are, and \
             tls_cert_file is not set"
        )
    };
    let no_entry = |server| {
        format!("sasl_password_maps has no entry for inet:{server}: mail goes to it without a login")
    };
    let expected =
        vec![no_entry("[192.0.2.2]:25"), no_entry("relay.example.org:587"), unproved(3), unproved(4)];
    let mut found = warned(top, "");
    found.retain(|warning| warning.starts_with("sasl_password_maps"));
    found.sort();
    let mut sorted = expected;
    sorted.sort();
    assert_eq!(found, sorted);
    let is_about_lines = |warning: &String| warning.contains("line ");
    let certificate = rcgen::generate_simple_self_signed(["us".to_owned()]).unwrap();
    let both = certificate.cert.pem() + &certificate.signing_key.serialize_pem();
    let path = write(&site, "both", &both, 0o600);
    assert!(!warned("", &format!("tls_cert_file = \"{path}\"\n")).iter().any(is_about_lines));
}

#[test]
fn root_is_warned_of_secrets_that_the_agent_cannot_read() {
    if !getuid().is_root() {
        eprintln!("skipped: only root starts an agent that becomes another user");
        return;
    }
    let site = Site::new("");
    let token = write(&site, "token", CANARY, 0o600);
    let table = write(&site, "passwords", &format!("relay.example.org me:token-file:{token}\n"), 0o600);
    site.configure(&login(&table));
    let warned = |user: &str| {
        let output = site.run(&["check", "-o", &format!("user={user}")], b"");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        said.lines().filter(|line| line.contains("may not read it")).map(str::to_owned).collect::<Vec<_>>()
    };
    let key = "lastmile: warning: transport.smtp.sasl_password_maps";
    let of_table = format!(
        "{key}: {table}: user \"nobody\" may not read it again at SIGHUP: what changes in it holds from the next start on"
    );
    let of_token = format!(
        "{key}: line 1: {token}: user \"nobody\" may not read it, and a token is read each time that it is used: logins \
         with it fail"
    );
    assert_eq!(warned("nobody"), [of_table, of_token.clone()]);
    assert_eq!(warned("root"), [""; 0]);
    chown(&table, None, Some(NOBODY)).unwrap();
    fs::set_permissions(&table, Permissions::from_mode(0o640)).unwrap();
    // Its owner goes by the owner's right alone.
    chown(&token, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o040)).unwrap();
    assert_eq!(warned("nobody"), [of_token]);
    fs::set_permissions(&token, Permissions::from_mode(0o400)).unwrap();
    assert_eq!(warned("nobody"), [""; 0]);
}

#[test]
fn check_warns_of_passwords_that_go_too_far_or_nowhere() {
    let enabled = &["sasl_auth_enable=yes", "sasl_password_maps=texthash:/x"][..];
    let in_clear = "sasl_security_options has no noplaintext";
    let to_anybody = "sasl_tls_security_options has no noplaintext";
    let nowhere = "tls_security_level is not verify or higher";
    for (options, found) in [
        (&["tls_security_level=none", "sasl_security_options=noanonymous"][..], &[in_clear][..]),
        (&["tls_security_level=may", "sasl_security_options=noanonymous"], &[in_clear]),
        (&["sasl_security_options=noanonymous"], &[in_clear]),
        (&["tls_security_level=encrypt", "sasl_security_options=noanonymous"], &[]),
        (&["tls_wrappermode=yes", "sasl_security_options=noanonymous"], &[]),
        (&["tls_security_level=encrypt", "sasl_tls_security_options=noanonymous"], &[to_anybody]),
        (&["tls_security_level=encrypt", "sasl_tls_security_options=noplaintext"], &[]),
        (&["tls_security_level=verify", "sasl_tls_security_options=noanonymous"], &[]),
        (&["tls_policy={ \"relay\" = \"verify\" }", "sasl_tls_security_options=noanonymous"], &[]),
        (&[], &[nowhere]),
        (&["tls_security_level=encrypt"], &[nowhere]),
        (&["tls_security_level=secure"], &[]),
        (&["tls_policy={ \"relay\" = \"secure\" }"], &[]),
    ] {
        let options = enabled.iter().chain(options).map(|option| format!("transport.smtp.{option}"));
        let options: Vec<_> = options.chain(["default_transport=smtp:relay".to_owned()]).collect();
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        assert_eq!(warned_of(&options), found, "{options:?}");
    }
    // On sockets nobody listens in.
    let local = ["transport.lmtp.sasl_auth_enable=yes", "transport.lmtp.sasl_password_maps=texthash:/x"];
    let plain = "transport.lmtp.sasl_security_options=noanonymous";
    assert_eq!(warned_of(&[local[0], local[1], plain, "default_transport=/run/lmtp"]), [""; 0]);
}

/// The warnings about transports, each as far as a part that the tables know.
fn warned_of(options: &[&str]) -> Vec<String> {
    let given = Given { overrides: options, ..Given::default() };
    let config = given.load().unwrap();
    let warnings = check::warnings(&config, &given.sources("/dev/null".into()));
    let of_transports = warnings.iter().filter_map(|warning| warning.strip_prefix("transport."));
    let known = ["sasl_security_options has no noplaintext", "sasl_tls_security_options has no noplaintext"];
    let known = known.into_iter().chain(["tls_security_level is not verify or higher"]);
    let short = |warning: &str| {
        let warning = warning.split_once('.').unwrap().1;
        let part = known.clone().find(|part| warning.starts_with(part));
        part.unwrap_or(warning).to_owned()
    };
    of_transports.map(short).collect()
}

#[test]
fn check_warns_of_keys_without_effect() {
    let one = "ab".repeat(32);
    let fingerprints = format!("tls_fingerprints={one}");
    let own_fingerprint = format!("tls_policy={{ \"a\" = \"fingerprint match={one}\" }}");
    let no_effect = |key: &str, level: &str| {
        format!("{key} has no effect: no server has the level {level} without a match= of its own")
    };
    for (options, warning) in [
        (&["sasl_password_maps=texthash:/x"][..], "sasl_password_maps has no effect: sasl_auth_enable is no"),
        (&["send_dummy_mail_auth=yes"], "send_dummy_mail_auth has no effect: sasl_auth_enable is no"),
        (
            &["tls_security_level=none", "tls_CAfile=/x"],
            "tls_CAfile has no effect: tls_security_level is none",
        ),
        (
            &["tls_security_level=none", "tls_cert_file=/x"],
            "tls_cert_file has no effect: tls_security_level is none",
        ),
        (&[&*fingerprints], &no_effect("tls_fingerprints", "fingerprint")),
        (&["tls_security_level=none", &fingerprints], &no_effect("tls_fingerprints", "fingerprint")),
        (
            &["tls_security_level=verify", &fingerprints, &own_fingerprint],
            &no_effect("tls_fingerprints", "fingerprint"),
        ),
        (
            &["tls_security_level=secure", "tls_verify_cert_match=mx.example"],
            &no_effect("tls_verify_cert_match", "verify"),
        ),
        (
            &["tls_security_level=verify", "tls_secure_cert_match=mx.example"],
            &no_effect("tls_secure_cert_match", "secure"),
        ),
    ] {
        let options: Vec<_> = options.iter().map(|option| format!("transport.smtp.{option}")).collect();
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        assert_eq!(warned_of(&options), [warning], "{options:?}");
    }
    for options in [
        &["tls_security_level=fingerprint", &*fingerprints][..],
        &[&fingerprints, "tls_policy={ \"a\" = \"fingerprint\" }"],
        &["tls_security_level=verify", "tls_verify_cert_match=mx.example"],
        &["tls_verify_cert_match=mx.example", "tls_policy={ \"a\" = \"verify\" }"],
        &["tls_security_level=secure", "tls_secure_cert_match=mx.example", "tls_verify_cert_match=hostname"],
    ] {
        let options: Vec<_> = options.iter().map(|option| format!("transport.smtp.{option}")).collect();
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        assert_eq!(warned_of(&options), [""; 0], "{options:?}");
    }
    let used = ["transport.smtp.tls_security_level=none", "transport.smtp.tls_CAfile=/x"];
    assert_eq!(warned_of(&[used[0], used[1], "transport.smtp.tls_policy={ \"a\" = \"verify\" }"]), [""; 0]);
}

#[test]
fn a_password_in_the_wrong_place_is_refused_and_not_shown() {
    let named = written(&format!("relay {CANARY}:{CANARY}"));
    let path = named.path().to_str().unwrap();
    let key = "sasl_password_maps";
    let files = [
        format!("[transport.smtp]\n{key} = \"relay me:{CANARY}\""),
        format!("[transport.smtp]\n{key} = \"me:{CANARY}\""),
        format!("[transport.smtp]\n{key} = \"{CANARY}\""),
        format!("[transport.smtp]\n{key} = \"texthash:/x relay me:{CANARY}\""),
        format!("[transport.smtp]\n{key} = \"\"\"\nrelay me:{CANARY}\nother me:{CANARY}\n\"\"\""),
        format!("[transport.smtp]\n{key} = [\"relay\", \"me:{CANARY}\"]"),
        format!("[transport.smtp]\n{key} = {{ relay = \"me:{CANARY}\" }}"),
        format!("[transport.smtp]\n{key} = \"inline:{{relay=me:{CANARY}}}\""),
        format!("[transport.smtp]\n{key} = relay me:{CANARY}"),
        format!("[transport.smtp]\n{key} = \"relay me:{CANARY}"),
        format!("[transport.smtp]\n{key} = '{CANARY}' '{CANARY}'"),
        format!("[transport.smtp]\n{key} = \"a\"\n{key} = \"{CANARY}\""),
        format!("[transport.smtp]\nsasl_pasword_maps = \"{CANARY}\""),
        format!("[transport.smtp]\nsasl_passwd_maps = \"{CANARY}\""),
        format!("[transport.smtp]\npassword = \"{CANARY}\""),
        format!("[transport.smtp.{key}]\nrelay = \"me:{CANARY}\""),
        format!("[transport.my-site]\n{key} = \"{CANARY}\""),
        format!("{key} = \"relay me:{CANARY}\""),
        format!("smtp_{key} = \"relay me:{CANARY}\""),
        format!("[passwords]\nrelay = \"me:{CANARY}\""),
        format!("smtp_pass = \"{CANARY}\""),
        format!("[transport.smtp]\npwd = \"{CANARY}\""),
        format!("[transport.smtp]\nclient_secret = [\"{CANARY}\"]"),
        format!("[transport.smtp]\napi_key = \"{CANARY}\""),
        format!("key = \"{CANARY}\""),
        format!("relayhost = \"smtp://me:{CANARY}@relay.example.org\""),
        format!("default_transport = \"smtp:me:{CANARY}@relay.example.org:587\""),
        format!("default_transport = \"me:{CANARY}@relay.example.org:587\""),
        format!("bounce_nexthop = \"smtp:{CANARY}@relay.example.org\""),
        format!("[routes]\n\"a@example.org\" = \"{CANARY}:x@relay\""),
        format!("[transport.smtp.tls_policy]\nmx = \"secure password={CANARY}\""),
        format!("[transport.smtp.tls_policy]\nmx = \"secure login me:{CANARY}\""),
        format!("[transport.smtp]\ntls_policy = \"{{ mx = 'secure password={CANARY} }}\""),
        format!("[transport.smtp]\ntls_key_file = \"-----BEGIN PRIVATE KEY-----{CANARY}\""),
        format!("[transport.smtp]\ntls_cert_file = \"\"\"\n-----BEGIN PRIVATE KEY-----\n{CANARY}\n\"\"\""),
    ];
    let site = Site::new("");
    for file in &files {
        let problems = from_file(file).unwrap_err();
        assert!(!problems.is_empty() && !problems.concat().contains(CANARY), "{file}: {problems:?}");
        fs::write(site.config(), file).unwrap();
        let output = site.run(&["check"], b"");
        assert_eq!(output.status.code(), Some(78), "{file}: {output:?}");
        assert!(!format!("{output:?}").contains(CANARY), "{file}: {output:?}");
    }
    let variables = [
        ("LASTMILE_TRANSPORT__SMTP__SASL_PASSWORD_MAPS", format!("relay me:{CANARY}")),
        ("LASTMILE_TRANSPORT__SMTP__SASL_PASSWORD_MAPS", CANARY.to_owned()),
        ("LASTMILE_TRANSPORT__SMTP__SASL_PASSWORD_MAPS_FILE", format!("relay me:{CANARY}")),
        ("LASTMILE_TRANSPORT__SMTP__SASL_PASSWORD_FILE", path.to_owned()),
        ("LASTMILE_TRANSPORT__SMPT__SASL_PASSWORD_MAPS_FILE", path.to_owned()),
        ("LASTMILE_TRANSPORT__SMTP__SASL_PASSWORD", CANARY.to_owned()),
        ("LASTMILE_SASL_PASSWORD_MAPS_FILE", path.to_owned()),
        ("LASTMILE_TRANSPORT__SASL_PASSWORD_MAPS", CANARY.to_owned()),
        ("LASTMILE_SECRET_TOKEN", CANARY.to_owned()),
    ];
    for (name, value) in &variables {
        let problems = from_environment(&[(name, value)]).unwrap_err();
        assert!(!problems.is_empty() && !problems.concat().contains(CANARY), "{name}: {problems:?}");
    }
    let options = [
        format!("transport.smtp.{key}=relay me:{CANARY}"),
        format!("transport.smtp.{key}.relay=me:{CANARY}"),
        format!("{key}={CANARY}"),
        format!("{key}.relay={CANARY}"),
        format!("transport.smtp.{key} {CANARY}"),
        format!("transport.nobody.{key}={CANARY}"),
        format!("transport.smtp.tls_policy.mx=secure password={CANARY}"),
        format!("default_transport=smtp:me:{CANARY}@relay"),
        format!("api.key={CANARY}"),
    ];
    for option in &options {
        let problems = from_options(&[option]).unwrap_err();
        assert!(!problems.is_empty() && !problems.concat().contains(CANARY), "{option}: {problems:?}");
    }
    // What is no secret is told, and what is wrong with a nexthop.
    assert_eq!(
        from_file("default_transport = \"smtp:me:x@relay\"\nkeys = \"x\"").unwrap_err(),
        [
            "default_transport = \"(not shown)\" (FILE): a nexthop has no name or password in it: they stand in the file \
             that sasl_password_maps of its transport names",
            "keys = \"x\" (FILE): there is no such key",
        ]
    );
    assert_eq!(
        from_file("[transport.smtp.tls_policy]\nmx = \"secure ciphers=high\"").unwrap_err(),
        [
            "transport.smtp.tls_policy.\"mx\" = \"secure ciphers=(not shown)\" (FILE): there is no attribute \"ciphers\": \
          behind the level, match=, servername= and protocols= can stand"
        ]
    );
    assert_eq!(
        from_file(&files[4]).unwrap_err(),
        [
            "transport.smtp.sasl_password_maps = \"(a table of 2 lines, not shown)\" (FILE): texthash:/FILE is needed; \
          names and passwords stand in that file, never here"
        ]
    );
    assert_eq!(
        from_file(&files[0]).unwrap_err(),
        [
            "transport.smtp.sasl_password_maps = \"(not shown)\" (FILE): texthash:/FILE is needed; names and passwords \
          stand in that file, never here"
        ]
    );
}

#[test]
fn a_file_variable_is_enough_and_the_listing_names_only_the_file() {
    let table = written(&format!("relay {CANARY}:{CANARY}\n"));
    let path = table.path().to_str().unwrap();
    let environment = [
        ("LASTMILE_TRANSPORT__SMTP__SASL_PASSWORD_MAPS_FILE", path),
        ("LASTMILE_TRANSPORT__SMTP__SASL_AUTH_ENABLE", "yes"),
    ];
    let config = from_environment(&environment).unwrap().open_secrets().unwrap();
    let transport = config.transport(&"smtp".parse().unwrap()).unwrap();
    let relay = lastmile::mail::Server::Tcp { host: "relay".into(), port: 587.try_into().unwrap() };
    assert_eq!(transport.secrets.credentials(&relay).unwrap().unwrap().username, CANARY);
    let listing = check::listing(&config);
    let line = format!("transport.smtp.sasl_password_maps = \"file:{path}\"");
    assert!(listing.contains(&line) && !listing.contains(CANARY), "{listing}");
    let listed = from_file(&listing).unwrap().open_secrets().unwrap();
    assert_eq!(listed.transport(&transport.name).unwrap().secrets, transport.secrets);
    assert!(!format!("{config:?}").contains(CANARY));
    // What a variable names was put there for us alone; what the configuration names may lie anywhere.
    fs::set_permissions(table.path(), Permissions::from_mode(0o644)).unwrap();
    assert!(from_environment(&environment).unwrap().open_secrets().is_ok());
    assert!(from_file(&listing).unwrap().open_secrets().is_err());
}

#[test]
fn an_agent_does_not_start_with_a_secret_that_it_cannot_use() {
    let site = site_with_login();
    let table = write(&site, "passwords", &format!("relay {CANARY}:{CANARY}\n"), 0o644);
    let (status, said) = site.start_agent_in_vain();
    assert_eq!(status.code(), Some(78), "{said}");
    let cure = format!("everybody may read it (mode 0644), and it holds secrets: chmod o-r {table}\n");
    assert!(
        said.contains(&format!("lastmile: error: transport.smtp.sasl_password_maps: {table}: {cure}")),
        "{said}"
    );
    assert!(!said.contains(CANARY), "{said}");
    assert!(!site.queue().exists(), "the queue was touched");
}

#[test]
fn a_hup_reads_secrets_again_and_refuses_wrong_ones() {
    let site = site_with_login();
    let agent = site.start_agent_with(&[("RUST_LOG", "trace")]);
    agent.signal(Signal::HUP);
    site.wait_for_lines(1, &["the configuration was read again"], SOON);
    write(&site, "passwords", &format!("relay {CANARY}\n"), 0o600);
    agent.signal(Signal::HUP);
    site.wait_for_line(&["error: ", "passwords: line 1 has no colon"], SOON);
    site.wait_for_line(&["error: ", "was not read again"], SOON);
    write(&site, "passwords", &format!("relay {CANARY}:token-file:/nonexistent/{CANARY}\n"), 0o600);
    agent.signal(Signal::HUP);
    let warning = site.wait_for_line(&["warning: ", "line 1: /nonexistent/"], SOON);
    assert!(warning.ends_with("mail for the servers of that entry is deferred"), "{warning}");
    site.wait_for_lines(2, &["the configuration was read again"], SOON);
    let named = format!("/nonexistent/{CANARY}");
    assert!(!site.log().replace(&named, "FILE").contains(CANARY), "{}", site.log());
    agent.stop();
}

#[test]
fn an_agent_reads_secrets_as_root_and_keeps_them_where_it_cannot_read_them_again() {
    if !getuid().is_root() {
        return eprintln!("skipped: only root can become another user");
    }
    let site = site_with_login();
    let text = fs::read_to_string(site.config()).unwrap();
    let text = text.replace("user = \"root\"", "user = \"nobody\"\ngroup = \"nogroup\"");
    fs::write(site.config(), text).unwrap();
    let agent = site.start_agent();
    agent.signal(Signal::HUP);
    let warning = site.wait_for_line(&["warning: ", "transport.smtp.sasl_password_maps: "], SOON);
    assert!(warning.contains(&format!("passwords: uid {NOBODY} may not read it: ")), "{warning}");
    assert!(warning.ends_with("; what it held before stays in use until a restart"), "{warning}");
    site.wait_for_lines(1, &["the configuration was read again"], SOON);
    // What is gone is another matter.
    fs::remove_file(site.path().join("passwords")).unwrap();
    agent.signal(Signal::HUP);
    site.wait_for_line(&["error: ", "passwords: it cannot be read: No such file"], SOON);
    site.wait_for_line(&["error: ", "was not read again"], SOON);
    assert_eq!(site.lines_with(&["stays in use"]).len(), 1, "{}", site.log());
    // One that it may read is read anew.
    let table = write(&site, "passwords", "relay me:secret\n", 0o600);
    chown(&table, Some(NOBODY), None).unwrap();
    agent.signal(Signal::HUP);
    site.wait_for_lines(2, &["the configuration was read again"], SOON);
    assert_eq!(site.lines_with(&["stays in use"]).len(), 1, "{}", site.log());
    agent.stop();
}

#[test]
fn secrets_hidden_by_a_new_root_directory_stay_in_use() {
    if !getuid().is_root() {
        return eprintln!("skipped: only root can become another user");
    }
    let site = site_with_login();
    let root = site.path().join("root");
    let inside = root.join(site.config().strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    let text = fs::read_to_string(site.config()).unwrap();
    let user = format!("user = \"nobody\"\ngroup = \"nogroup\"\nchroot = \"{}\"", root.display());
    fs::write(site.config(), text.replace("user = \"root\"", &user)).unwrap();
    fs::copy(site.config(), &inside).unwrap();
    let agent = site.start_agent();
    agent.signal(Signal::HUP);
    let warning = site.wait_for_line(&["warning: ", "transport.smtp.sasl_password_maps: "], SOON);
    assert!(
        warning.contains("No such file") && warning.ends_with("stays in use until a restart"),
        "{warning}"
    );
    site.wait_for_line(&["the configuration was read again"], SOON);
    agent.stop();
}

#[test]
fn who_queues_mail_opens_no_secrets_and_who_delivers_it_does() {
    let message = b"Subject: x\n\nx\n";
    let site = site_with_login();
    let arguments = ["sendmail", "-f", "a@example.org", "b@example.org"];
    let table = write(&site, "passwords", CANARY, 0o666);
    // There has to be a queue.
    fs::rename(&table, site.path().join("away")).unwrap();
    let config = fs::read_to_string(site.config()).unwrap();
    site.configure("");
    site.start_agent().stop();
    fs::write(site.config(), config).unwrap();
    let output = site.run(&arguments, message);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    fs::rename(site.path().join("away"), &table).unwrap();
    let output = site.run(&arguments, message);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let direct = ["sendmail", "--esmtp", "relay.example.org:587", "-f", "a@example.org", "b@example.org"];
    let output = site.run(&direct, message);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let cure = format!("everybody may read it (mode 0666), and it holds secrets: chmod o-r {table}\n");
    assert_eq!(
        said(&output),
        format!("sendmail: the message was not sent: transport.smtp.sasl_password_maps: {table}: {cure}")
    );
    // The transport that is not used has nothing to say.
    let other = ["sendmail", "--lmtp", "/nonexistent/lmtp", "-f", "a@example.org", "b@example.org"];
    let other = site.run(&other, message);
    assert_eq!(other.status.code(), Some(75), "{other:?}");
    write(&site, "passwords", &format!("relay.example.org {CANARY}:{CANARY}\n"), 0o600);
    let Some(output) = run_as(&site, NOBODY, &direct, message) else { return };
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(said(&output).contains(&format!("uid {NOBODY} may not read it")), "{output:?}");
    assert_eq!(said(&output).lines().count(), 1, "{output:?}");
    let output = run_as(&site, NOBODY, &arguments, message).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(Path::new(&table).exists());
}
