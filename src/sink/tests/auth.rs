//! AUTH, with the clients of rsasl: code of somebody else's on the other side.

use std::io::{Cursor, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::{SCRAM_SHA1_PLUS, SCRAM_SHA256_PLUS};
use rsasl::mechname::Mechname;
use rsasl::prelude::{Mechanism, Registry, SASLClient, SASLConfig, SessionError};
use rsasl::property::{AuthId, OAuthBearerToken, Password};

use super::tls::{BOTH, Client, Files};
use super::{Running, codes, start};
use crate::sink::{Extension, SinkConfig};

/// What the client of a test knows.
#[derive(Debug)]
struct Credentials {
    user: &'static str,
    password: &'static str,
    binding: Option<[u8; 32]>,
}

impl SessionCallback for Credentials {
    fn callback(
        &self,
        _session: &SessionData,
        _context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        request
            .satisfy::<AuthId>(self.user)?
            .satisfy::<Password>(self.password.as_bytes())?
            .satisfy::<OAuthBearerToken>(self.password)?;
        if let Some(binding) = &self.binding {
            request.satisfy::<rsasl::property::ChannelBindings>(binding)?;
        }
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        self.binding.is_some()
    }
}

/// Given a choice, rsasl would take the same mechanism without channel binding.
static BOUND: [Mechanism; 2] = [SCRAM_SHA1_PLUS, SCRAM_SHA256_PLUS];

/// Logs in with one mechanism; the last reply.
fn log_in<S: Read + Write>(
    client: &mut Client<S>,
    mechanism: &str,
    credentials: Credentials,
    initial: bool,
) -> String {
    let builder = SASLConfig::builder();
    let builder = match credentials.binding {
        Some(_) => builder.with_registry(Registry::with_mechanisms(&BOUND)),
        None => builder.with_default_mechanisms(),
    };
    let config = builder.with_callback(credentials).unwrap();
    let name = Mechname::parse(mechanism.as_bytes()).unwrap();
    let mut session = SASLClient::new(config).start_suggested([&name]).unwrap();
    let mut respond = |challenge: Option<&[u8]>| {
        let mut out = Cursor::new(Vec::new());
        session.step(challenge, &mut out).map(|_| BASE64.encode(out.into_inner()))
    };
    let first =
        if initial && mechanism != "LOGIN" { format!(" {}", respond(None).unwrap()) } else { String::new() };
    let started = !first.is_empty();
    let mut reply = client.say(&format!("AUTH {mechanism}{first}"));
    let mut first = !started;
    for _ in 0..6 {
        let Some(challenge) = reply.strip_prefix("334 ") else { break };
        let challenge = BASE64.decode(challenge.trim_end()).unwrap();
        let is_ours = first && mechanism != "LOGIN";
        first = false;
        let response = respond(if is_ours { None } else { Some(&challenge) });
        // A client that does not like what it hears gives up.
        reply = client.say(response.as_deref().unwrap_or("*"));
    }
    reply
}

fn start_with(change: impl FnOnce(&mut SinkConfig)) -> Running {
    start("", |config| {
        config.logins =
            [("tim", "tanstaaf"), ("jo", "x")].map(|(user, word)| (user.into(), word.into())).to_vec();
        change(config);
    })
}

fn tim(password: &'static str) -> Credentials {
    Credentials { user: "tim", password, binding: None }
}

const IN_CLEAR: [&str; 6] = ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"];

#[test]
fn the_clients_of_others_get_in_with_the_right_password_alone() {
    let running = start_with(|_| {});
    for mechanism in IN_CLEAR {
        for initial in [true, false] {
            let mut client = Client::connect(&running);
            let hello = client.say("LHLO c");
            let expected = "AUTH SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN OAUTHBEARER XOAUTH2\n";
            assert!(hello.contains(expected), "{hello}");
            assert_eq!(client.say("MAIL FROM:<>"), "530 5.7.0 log in first\n");
            let reply = log_in(&mut client, mechanism, tim("wrong"), initial);
            // A client that is told why in a challenge may give up by itself.
            let told = ["535 5.7.8 these credentials are not valid\n", "501 5.7.0 as you like\n"];
            assert!(told.contains(&reply.as_str()), "{mechanism}: {reply}");
            assert_eq!(client.say("MAIL FROM:<>"), "530 5.7.0 log in first\n");
            let reply = log_in(&mut client, mechanism, tim("tanstaaf"), initial);
            assert_eq!(reply, "235 2.7.0 welcome\n", "{mechanism} {initial}");
            assert_eq!(client.say("MAIL FROM:<> AUTH=<>"), "250 2.1.0 ok\n");
            assert_eq!(client.say("AUTH PLAIN"), "503 5.5.1 you have logged in already\n");
        }
    }
    assert_eq!(running.handle.stop().logins, 2 * IN_CLEAR.len() as u64);
}

#[test]
fn a_login_can_be_bound_to_its_channel() {
    let files = Files::make();
    let running = start_with(|config| config.tls = Some(files.tls()));
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"] {
        for is_ours in [true, false] {
            let mut client =
                Client::connect(&running).start_tls(files.client(&[&rustls::version::TLS13], false));
            assert!(client.say("LHLO c").contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 "));
            let tls = &client.stream().conn;
            let mut binding =
                tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).unwrap();
            // As if somebody in between had made another connection to us.
            binding[0] ^= u8::from(!is_ours);
            let credentials = Credentials { binding: Some(binding), ..tim("tanstaaf") };
            let reply = log_in(&mut client, mechanism, credentials, true);
            let expected = if is_ours { "235" } else { "535" };
            assert_eq!(codes(&reply), [expected], "{mechanism}: {reply}");
        }
    }
    let mut client = Client::connect(&running).start_tls(files.client(&[&rustls::version::TLS12], false));
    let hello = client.say("LHLO c");
    assert!(hello.contains("AUTH SCRAM-SHA-256 ") && !hello.contains("PLUS"), "{hello}");
}

#[test]
fn a_certificate_is_a_login_where_its_authority_is_known() {
    let files = Files::make();
    let running = start_with(|config| {
        let mut tls = files.tls();
        tls.client_ca = Some(files.path("ca.pem"));
        config.tls = Some(tls);
    });
    let mut client = Client::connect(&running).start_tls(files.client(BOTH, true));
    assert!(client.say("LHLO c").contains("AUTH EXTERNAL "));
    assert_eq!(codes(&client.say("AUTH EXTERNAL =")), ["235"]);
    for (said, expected) in [("AUTH EXTERNAL dGlt", "235"), ("AUTH EXTERNAL cm9vdA==", "535")] {
        let mut client = Client::connect(&running).start_tls(files.client(BOTH, true));
        client.say("LHLO c");
        assert_eq!(codes(&client.say(said)), [expected], "{said}");
    }
    // Who shows none is served, too, and logs in otherwise.
    let mut client = Client::connect(&running).start_tls(files.client(BOTH, false));
    assert!(!client.say("LHLO c").contains("EXTERNAL"));
    assert_eq!(codes(&client.say("AUTH EXTERNAL =")), ["504"]);
    assert_eq!(codes(&log_in(&mut client, "PLAIN", tim("tanstaaf"), true)), ["235"]);
}

#[test]
fn what_is_no_login_is_refused_and_changes_nothing() {
    let plain = BASE64.encode("\0tim\0tanstaaf");
    let long = "A".repeat(13_000);
    for (said, expected) in [
        ("AUTH PLAIN", "503"),
        ("LHLO c\r\nAUTH", "250 501"),
        ("LHLO c\r\nAUTH KERBEROS_V4", "250 504"),
        ("LHLO c\r\nAUTH SCRAM-SHA-256-PLUS", "250 504"),
        ("LHLO c\r\nAUTH PLAIN !!!", "250 501"),
        ("LHLO c\r\nAUTH PLAIN = x", "250 501"),
        ("LHLO c\r\nAUTH PLAIN =", "250 535"),
        ("LHLO c\r\nAUTH PLAIN\r\n*", "250 334 501"),
        ("LHLO c\r\nAUTH PLAIN\r\n???", "250 334 501"),
        (&format!("LHLO c\r\nAUTH PLAIN\r\n{long}"), "250 334 500"),
        ("LHLO c\r\nAUTH LOGIN\r\ndGlt\r\n*", "250 334 334 501"),
        ("LHLO c\r\nAUTH CRAM-MD5 dGlt", "250 535"),
        (&format!("LHLO c\r\nAUTH plain {plain}\r\nMAIL FROM:<>\r\nAUTH PLAIN"), "250 235 250 503"),
        (&format!("LHLO c\r\nAUTH PLAIN {plain}\r\nMAIL FROM:<> AUTH="), "250 235 501"),
    ] {
        let running = start_with(|_| {});
        let heard = running.talk(&format!("{said}\r\nQUIT\r\n"));
        let shown = &said[..said.len().min(80)];
        assert_eq!(codes(&heard).join(" "), format!("220 {expected} 221"), "{shown}\n{heard}");
    }
}

#[test]
fn without_logins_nobody_has_to_log_in() {
    let running = start_with(|config| config.logins.clear());
    let heard = running.talk("LHLO c\r\nAUTH PLAIN\r\nMAIL FROM:<> AUTH=<>\r\nMAIL FROM:<>\r\nQUIT\r\n");
    assert_eq!(codes(&heard), ["220", "250", "500", "555", "250", "221"]);
    assert!(!heard.contains("AUTH PLAIN"), "{heard}");
    // Who hides AUTH and asks for it all the same cannot be satisfied: as some servers are.
    let hidden = start_with(|config| config.without = vec![Extension::Auth]);
    let heard = hidden.talk("LHLO c\r\nAUTH PLAIN\r\nMAIL FROM:<>\r\nQUIT\r\n");
    assert_eq!(codes(&heard), ["220", "250", "500", "530", "221"]);
    assert!(!heard.contains("AUTH PLAIN"), "{heard}");
}

#[test]
fn a_login_does_not_survive_starttls() {
    let files = Files::make();
    let running = start_with(|config| config.tls = Some(files.tls()));
    let mut client = Client::connect(&running);
    client.say("LHLO c");
    assert_eq!(codes(&log_in(&mut client, "PLAIN", tim("tanstaaf"), true)), ["235"]);
    let mut client = client.start_tls(files.client(BOTH, false));
    client.say("LHLO c");
    assert_eq!(client.say("MAIL FROM:<>"), "530 5.7.0 log in first\n");
    // LHLO alone does not undo one.
    assert_eq!(codes(&log_in(&mut client, "LOGIN", tim("tanstaaf"), false)), ["235"]);
    client.say("LHLO c");
    assert_eq!(codes(&client.say("MAIL FROM:<>")), ["250"]);
}

#[test]
fn rules_spoil_logins() {
    let plain = BASE64.encode("\0tim\0tanstaaf");
    for (script, said, expected) in [
        ("auth 535 5.7.8 no", format!("AUTH PLAIN {plain}"), "535"),
        ("auth 454 4.7.0 later", format!("AUTH PLAIN {plain}"), "454"),
        ("auth 235 in you go", format!("AUTH PLAIN {plain}"), "235"),
        ("auth 334 ???", format!("AUTH PLAIN {plain}\r\n*"), "334 501"),
        ("auth 334 ???", format!("AUTH PLAIN {plain}\r\n="), "334 535"),
        ("auth twice", format!("AUTH PLAIN {plain}"), "235 235"),
        ("auth silence", format!("AUTH PLAIN {plain}"), ""),
        ("auth close", format!("AUTH PLAIN {plain}"), "closed"),
        ("auth 421 4.3.2 bye", format!("AUTH PLAIN {plain}"), "421 closed"),
    ] {
        let running = start(script, |config| config.logins = vec![("tim".into(), "tanstaaf".into())]);
        let heard = running.talk(&format!("LHLO c\r\n{said}\r\nNOOP\r\nQUIT\r\n"));
        let end = if expected.contains("closed") { "" } else { "250 221" };
        let expected = format!("220 250 {} {end}", expected.replace("closed", ""));
        let expected: Vec<_> = expected.split_whitespace().collect();
        assert_eq!(codes(&heard), expected, "{script}\n{heard}");
    }
}

#[test]
fn cram_md5_is_asked_and_answered() {
    use hmac::{Hmac, Mac};
    for (password, expected) in [("tanstaaf", "235"), ("wrong", "535")] {
        let running = start_with(|_| {});
        let mut client = Client::connect(&running);
        client.say("LHLO c");
        let reply = client.say("AUTH CRAM-MD5");
        let challenge = BASE64.decode(reply.strip_prefix("334 ").unwrap().trim_end()).unwrap();
        assert!(challenge.starts_with(b"<") && challenge.ends_with(b"@sink.example>"));
        let mut mac = Hmac::<md5::Md5>::new_from_slice(password.as_bytes()).unwrap();
        mac.update(&challenge);
        let digest: String = mac.finalize().into_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
        let reply = client.say(&BASE64.encode(format!("tim {digest}")));
        assert_eq!(codes(&reply), [expected]);
    }
}
