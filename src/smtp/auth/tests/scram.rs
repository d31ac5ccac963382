//! SCRAM against a server's half that is not our library's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::scram_server::{Hash, Server};
use super::*;
use crate::smtp::auth::scram::{ITERATIONS_MAX, check_server_final, check_server_first};

const HASHES: [(Hash, &str); 2] = [(Hash::Sha1, "SCRAM-SHA-1"), (Hash::Sha256, "SCRAM-SHA-256")];

fn decoded(line: &str) -> String {
    String::from_utf8(STANDARD.decode(line).unwrap()).unwrap()
}

fn challenge(text: &str) -> Reply {
    reply(&format!("334 {}", STANDARD.encode(text)))
}

/// An exchange up to the server's last message, or its error: what we said first, and what it says.
struct Played {
    exchange: Exchange,
    header: String,
    last: Result<String, &'static str>,
}

fn play(setup: &Setup, offered: &str, server: &mut Server) -> Played {
    let (mut exchange, line) = setup.begin(offered).unwrap();
    let words = written(&line);
    let mut words = words.split(' ').skip(1);
    server.is_plus = words.next().unwrap().ends_with("-PLUS");
    let first = decoded(words.next().unwrap());
    let header = first.split(",n=").next().unwrap().to_owned();
    let last = server.first(&first).and_then(|message| {
        let Answer::Send(line) = exchange.on_reply(&challenge(&message)) else {
            panic!("no answer to {message}")
        };
        assert_eq!(line.shown, "[...]");
        server.last(&decoded(&written(&line)))
    });
    Played { exchange, header, last }
}

/// The server's last message in a 334, its empty answer, and 235.
fn finish(played: &mut Played) -> Answer {
    let last = played.last.clone().unwrap();
    let answer = played.exchange.on_reply(&challenge(&last));
    assert_eq!(answer, Answer::Send(Line { octets: Zeroizing::new(b"\r\n".to_vec()), shown: String::new() }));
    played.exchange.on_reply(&reply("235 2.7.0 ok"))
}

#[test]
fn both_sides_prove_that_they_know_the_password() {
    for (hash, name) in HASHES {
        let mut server = Server::new(hash, "user", "pencil");
        let mut played = play(&Setup::password("user", "pencil"), name, &mut server);
        assert_eq!(played.header, "n,");
        assert_eq!(finish(&mut played), Answer::Accepted, "{name}");
    }
}

#[test]
fn names_and_passwords_are_prepared_as_the_rfc_says() {
    // RFC 4013 section 3: a soft hyphen is nothing, and the ordinal indicator is an "a"; "=" and "," have names of their own.
    let mut server = Server::new(Hash::Sha256, "u=3Ds=2Cer", "pencil a");
    let setup = Setup::password("u=s,er", "pen\u{ad}cil\u{a0}\u{aa}");
    assert_eq!(finish(&mut play(&setup, "SCRAM-SHA-256", &mut server)), Answer::Accepted);
}

#[test]
fn a_wrong_password_is_the_servers_to_refuse() {
    for (hash, name) in HASHES {
        let mut played =
            play(&Setup::password("user", "wrong"), name, &mut Server::new(hash, "user", "pencil"));
        assert_eq!(played.last, Err("invalid-proof"));
        let (status, text) = refusal(played.exchange.on_reply(&reply("535 5.7.8 authentication failed")));
        assert_eq!(
            (status.as_str(), text.ends_with("said: 535 5.7.8 authentication failed")),
            ("4.7.8", true)
        );
        // Some say why first.
        let mut played =
            play(&Setup::password("user", "wrong"), name, &mut Server::new(hash, "user", "pencil"));
        let Answer::Send(line) = played.exchange.on_reply(&challenge("e=invalid-proof")) else { panic!() };
        assert_eq!(line.shown, "*");
        let (status, text) = refusal(played.exchange.on_reply(&reply("535 5.7.8 authentication failed")));
        assert_eq!((status.as_str(), text.contains("invalid proof")), ("4.7.0", true), "{text}");
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_believed() {
    let not_proved = "the server has not proved that it knows the password";
    for (_, name) in HASHES {
        let setup = Setup::password("user", "pencil");
        // It says yes at once, after its first message, and in place of the last.
        let (mut exchange, _) = setup.begin(name).unwrap();
        let (status, text) = refusal(exchange.on_reply(&reply("235 2.7.0 ok")));
        assert_eq!((status.as_str(), text.ends_with(not_proved)), ("4.7.0", true), "{text}");
    }
    for (hash, name) in HASHES {
        let setup = Setup::password("user", "pencil");
        let begun = || play(&setup, name, &mut Server::new(hash, "user", "pencil"));
        let mut played = begun();
        assert!(refusal(played.exchange.on_reply(&reply("235 2.7.0 ok"))).1.ends_with(not_proved));
        // The right signature in a 235 is text (RFC 4954 section 4).
        let mut played = begun();
        let text = format!("235 {}", STANDARD.encode(played.last.clone().unwrap()));
        assert!(refusal(played.exchange.on_reply(&reply(&text))).1.ends_with(not_proved));
        // A wrong signature.
        let mut played = begun();
        let wrong = format!("v={}", STANDARD.encode([0; 32]));
        let Answer::Send(line) = played.exchange.on_reply(&challenge(&wrong)) else { panic!() };
        assert_eq!(written(&line), "*");
        assert!(refusal(played.exchange.on_reply(&reply("235 2.7.0 ok"))).1.ends_with(not_proved));
        // A nonce that is not ours.
        let (mut exchange, _) = setup.begin(name).unwrap();
        let Answer::Send(line) = exchange.on_reply(&challenge("r=foreign,s=QQ==,i=64")) else { panic!() };
        assert_eq!(written(&line), "*");
    }
}

#[test]
fn plus_ties_the_exchange_to_its_connection() {
    let mut setup = Setup::password("user", "pencil");
    setup.channel_binding = Some(vec![7; 32]);
    for (hash, name) in HASHES {
        let offered = format!("{name} {name}-PLUS");
        let mut server = Server::new(hash, "user", "pencil");
        server.channel_binding = Some(vec![7; 32]);
        let mut played = play(&setup, &offered, &mut server);
        assert_eq!((played.header.as_str(), server.is_plus), ("p=tls-exporter,", true));
        assert_eq!(finish(&mut played), Answer::Accepted);
        // Somebody in between has another connection to the server than we have to him.
        server.channel_binding = Some(vec![8; 32]);
        assert_eq!(play(&setup, &offered, &mut server).last, Err("channel-bindings-dont-match"));
    }
}

/// Cyrus offers -PLUS over TLS 1.3 and then knows none of its bindings: we go on without, if it is Cyrus for certain.
#[test]
fn a_server_that_cannot_keep_its_offer_of_plus_gets_a_second_login_without() {
    for (known, offered, filter, code, second) in [
        (true, "SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS", "", 501, Some("SCRAM-SHA-256")),
        (true, "SCRAM-SHA-1 SCRAM-SHA-256-PLUS", "", 504, Some("SCRAM-SHA-1")),
        (true, "SCRAM-SHA-1-PLUS SCRAM-SHA-1 SCRAM-SHA-256-PLUS", "", 501, Some("SCRAM-SHA-1")),
        // The password is wrong.
        (true, "SCRAM-SHA-256 SCRAM-SHA-256-PLUS", "", 535, None),
        // Somebody in between can refuse, too.
        (false, "SCRAM-SHA-256 SCRAM-SHA-256-PLUS", "", 501, None),
        // The server is in trouble, whatever we say.
        (true, "SCRAM-SHA-256 SCRAM-SHA-256-PLUS", "", 454, None),
        // Weaker by more than the binding.
        (true, "SCRAM-SHA-256-PLUS CRAM-MD5 PLAIN", "", 501, None),
        (true, "SCRAM-SHA-256 SCRAM-SHA-256-PLUS", "SCRAM-SHA-256-PLUS", 501, None),
    ] {
        let mut setup = Setup::password("user", "pencil");
        setup.channel_binding = Some(vec![7; 32]);
        setup.is_server_known = known;
        setup.filter = filter.split_ascii_whitespace().map(ToOwned::to_owned).collect();
        let mut server = Server::new(Hash::Sha256, "user", "pencil");
        let mut exchange = play(&setup, offered, &mut server).exchange;
        let refused = reply(&format!("{code} 5.5.4 undefined error!"));
        let Some(second) = second else {
            refusal(exchange.on_reply(&refused));
            continue;
        };
        let Answer::Send(line) = exchange.on_reply(&refused) else { panic!("{offered}") };
        let words = written(&line);
        let first = decoded(words.strip_prefix(&format!("AUTH {second} ")).expect(&words));
        assert!(first.starts_with("n,,n=user,r="), "{first}");
        assert_eq!(line.shown, format!("AUTH {second} [...]"));
        // It is a login as any other, and the last.
        let hash = if second.contains("256") { Hash::Sha256 } else { Hash::Sha1 };
        let mut server = Server::new(hash, "user", "pencil");
        let message = server.first(&first).unwrap();
        let Answer::Send(line) = exchange.on_reply(&challenge(&message)) else { panic!("{offered}") };
        let last = server.last(&decoded(&written(&line)));
        let mut played = Played { exchange, header: String::new(), last };
        assert_eq!(finish(&mut played), Answer::Accepted, "{offered}");
        let mut exchange = play(&setup, offered, &mut Server::new(Hash::Sha256, "user", "pencil")).exchange;
        assert!(matches!(exchange.on_reply(&refused), Answer::Send(_)));
        assert_eq!(
            refusal(exchange.on_reply(&refused)).1,
            format!("server {PEER} said: {code} 5.5.4 undefined error!")
        );
    }
}

#[test]
fn a_server_finds_out_that_somebody_has_removed_plus_from_its_offer() {
    for (hash, name) in HASHES {
        let plus = format!("{name} {name}-PLUS");
        let without_plus = vec![name.to_owned()];
        for (binding, offered, filter, header) in [
            // We could, it does not offer it.
            (true, name, &[][..], "y,"),
            (true, name, &without_plus, "y,"),
            // We could, it offers it, and our administrator does not want it.
            (true, &plus, &without_plus, "n,"),
            // We cannot.
            (false, name, &[], "n,"),
            (false, &plus, &[], "n,"),
        ] {
            let mut setup = Setup::password("user", "pencil");
            setup.channel_binding = binding.then(|| vec![7; 32]);
            setup.filter = filter.to_vec();
            let mut server = Server::new(hash, "user", "pencil");
            let mut played = play(&setup, offered, &mut server);
            assert_eq!(played.header, header, "{binding} {offered} {filter:?}");
            assert_eq!(finish(&mut played), Answer::Accepted);
            server.channel_binding = Some(vec![7; 32]);
            let last = play(&setup, offered, &mut server).last;
            assert_eq!(last.err(), (header == "y,").then_some("server-does-support-channel-binding"));
        }
    }
}

#[test]
fn messages_that_upset_the_library_never_reach_it() {
    for message in [
        "",
        "r",
        "r=",
        "r=a",
        "r=a,",
        "r=a,s",
        "r=a,s=",
        "r=a,s=b,",
        "r=a,s=b,i",
        "s=b,r=a,i=1",
        "m=a,r=a,s=b,i=1",
    ] {
        assert!(check_server_first(message.as_bytes()).is_err(), "{message}");
        let (mut exchange, _) = Setup::password("user", "pencil").begin("SCRAM-SHA-1").unwrap();
        // Something before it, lest it be a request for our first message.
        let message = if message.is_empty() { "," } else { message };
        let Answer::Send(line) = exchange.on_reply(&challenge(message)) else { panic!() };
        assert_eq!(line.shown, "*", "{message}");
    }
    for message in ["", "v", "e", ",", "x=y", "=v="] {
        assert!(check_server_final(message.as_bytes()).is_err(), "{message}");
        let mut server = Server::new(Hash::Sha1, "user", "pencil");
        let mut played = play(&Setup::password("user", "pencil"), "SCRAM-SHA-1", &mut server);
        let Answer::Send(line) = played.exchange.on_reply(&challenge(message)) else { panic!() };
        assert_eq!(line.shown, "*", "{message}");
        assert!(refusal(played.exchange.on_reply(&reply("235 ok"))).1.ends_with("message is none of SCRAM"));
    }
}

#[test]
fn a_server_cannot_keep_us_busy_for_hours() {
    let first = |count: &str| check_server_first(format!("r=a,s=b,i={count}").as_bytes());
    assert_eq!(first(&ITERATIONS_MAX.to_string()), Ok(()));
    for count in ["1000001", "4294967295", "4294967296", "99999999999999999999", "", "x", "-1"] {
        assert!(first(count).is_err(), "{count}");
    }
    let words = first("4294967295").unwrap_err();
    assert_eq!(words, "the server asks for 4294967295 rounds of hashing, more than 1000000");
}
