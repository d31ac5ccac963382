//! Each mechanism's messages, by the examples of its RFC where it has any; AUTH and the lines after it.

use super::*;

const TIM: &str = "AHRpbQB0YW5zdGFhZnRhbnN0YWFm";
const TOKEN: &str = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==";
const OAUTHBEARER: &str = "AUTH OAUTHBEARER bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg\
                           9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB";
const XOAUTH2: &str = "AUTH XOAUTH2 dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhk\
                       SFJoZG1semRHRXVZMjl0Q2cBAQ==";

fn tim() -> Setup {
    Setup::password("tim", "tanstaaftanstaaf")
}

#[test]
fn every_mechanism_says_what_the_examples_say() {
    let user = Setup::token("user@example.com", TOKEN);
    let google = Setup::token("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg");
    for (setup, offered, replies, lines) in [
        (tim(), "PLAIN", &["235 2.7.0 ok"][..], &[format!("AUTH PLAIN {TIM}")][..]),
        (
            tim(),
            "CRAM-MD5",
            &["334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+", "235 ok"],
            &["AUTH CRAM-MD5".to_owned(), "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw".to_owned()],
        ),
        (user, "OAUTHBEARER", &["235 ok"], &[OAUTHBEARER.to_owned()]),
        (google, "XOAUTH2", &["235 ok"], &[XOAUTH2.to_owned()]),
        (Setup::certificate(""), "EXTERNAL", &["235 ok"], &["AUTH EXTERNAL =".to_owned()]),
        (Setup::certificate("tim"), "EXTERNAL", &["235 ok"], &["AUTH EXTERNAL dGlt".to_owned()]),
    ] {
        let (written, _, end) = setup.play(offered, replies);
        assert_eq!((&written[..], end), (lines, Answer::Accepted), "{offered}");
    }
}

#[test]
fn login_answers_two_questions_of_any_wording() {
    for [first, second] in [
        // "Username:" and "Password:", "User Name\0" and "Password\0", nothing at all, and neither.
        ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"],
        ["334 VXNlciBOYW1lAA==", "334 UGFzc3dvcmQA"],
        ["334 ", "334"],
        ["334 UGFzc3dvcmQ6", "334 VXNlcm5hbWU6"],
    ] {
        let (written, shown, end) = tim().play("LOGIN", &[first, second, "235 ok"]);
        assert_eq!(written, ["AUTH LOGIN", "dGlt", "dGFuc3RhYWZ0YW5zdGFhZg=="]);
        assert_eq!(shown, ["AUTH LOGIN", "[...]", "[...]"]);
        assert_eq!(end, Answer::Accepted);
    }
}

#[test]
fn what_is_shown_tells_the_mechanism_and_nothing_else() {
    for (setup, offered, shown) in [
        (tim(), "PLAIN", "AUTH PLAIN [...]"),
        (tim(), "SCRAM-SHA-256", "AUTH SCRAM-SHA-256 [...]"),
        (tim(), "CRAM-MD5", "AUTH CRAM-MD5"),
        (Setup::certificate(""), "EXTERNAL", "AUTH EXTERNAL ="),
        (Setup::certificate("tim"), "EXTERNAL", "AUTH EXTERNAL [...]"),
        (Setup::token("tim", TOKEN), "XOAUTH2", "AUTH XOAUTH2 [...]"),
    ] {
        let (exchange, line) = setup.begin(offered).unwrap();
        assert_eq!(line.shown, shown);
        assert_eq!(format!("{exchange:?}"), format!("Exchange {{ {offered} with {PEER} }}"));
        let debugged = format!("{:?}", setup.credentials);
        assert!(!debugged.contains("tanstaaf") && !debugged.contains(TOKEN), "{debugged}");
    }
}

#[test]
fn a_refused_token_is_answered_and_its_fault_is_told() {
    let challenge = "334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJleGFtcGxlX3Njb3BlIn0=";
    for (offered, answer) in [("OAUTHBEARER", "AQ=="), ("XOAUTH2", "")] {
        let setup = Setup::token("user@example.com", TOKEN);
        let (written, shown, end) = setup.play(offered, &[challenge, "535 5.7.8 Authentication failed"]);
        assert_eq!(
            (written[1].as_str(), shown[1].as_str()),
            (answer, if answer.is_empty() { "" } else { "[...]" })
        );
        let said =
            format!("server {PEER} said: 535 5.7.8 Authentication failed (to the token: invalid_token)");
        assert_eq!(refusal(end), ("4.7.8".to_owned(), said), "{offered}");
    }
    // What is no JSON is answered too.
    let (written, _, end) = Setup::token("u", TOKEN).play("OAUTHBEARER", &["334 Zm9v", "535 no"]);
    assert_eq!(written[1], "AQ==");
    assert_eq!(refusal(end), ("4.7.8".to_owned(), format!("server {PEER} said: 535 no")));
}

#[test]
fn oauthbearer_names_the_server_and_the_user_only_where_there_is_one() {
    let mut setup = Setup::token("a=b,c", "t");
    (setup.host, setup.port) = (String::new(), 0);
    let begun = |setup: &Setup| {
        let line = written(&setup.begin("OAUTHBEARER").unwrap().1);
        let message = line.strip_prefix("AUTH OAUTHBEARER ").unwrap().to_owned();
        String::from_utf8(
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, message).unwrap(),
        )
        .unwrap()
    };
    assert_eq!(begun(&setup), "n,a=a=3Db=2Cc,\x01auth=Bearer t\x01\x01");
    setup.credentials.username.clear();
    (setup.host, setup.port) = ("/run/lmtp".to_owned(), 0);
    assert_eq!(begun(&setup), "n,,\x01host=/run/lmtp\x01auth=Bearer t\x01\x01");
}

#[test]
fn auth_holds_the_first_response_up_to_512_octets() {
    let x = |count| "x".repeat(count);
    for (setup, offered, size, fits) in [
        (Setup::password("tim", &x(367)), "PLAIN", 509, true),
        (Setup::password("tim", &x(368)), "PLAIN", 513, false),
        (Setup::password("tim", &x(2000)), "PLAIN", 2689, false),
        (Setup::certificate(&x(372)), "EXTERNAL", 512, true),
        (Setup::certificate(&x(373)), "EXTERNAL", 516, false),
    ] {
        // Asked for by an empty challenge, the response stands alone.
        let (written, shown, _) = setup.play(offered, &["334 ", "235 ok"]);
        let (bare, whole) = (format!("AUTH {offered}"), format!("AUTH {offered} {}", written[1]));
        assert_eq!(whole.len() + 2, size);
        assert_eq!(&written[0], if fits { &whole } else { &bare });
        assert_eq!(shown, [if fits { bare + " [...]" } else { bare }, "[...]".to_owned()]);
    }
}

#[test]
fn a_kept_response_goes_only_to_a_server_that_asks_for_it() {
    let setup = Setup::password("tim", &"x".repeat(500));
    let (written, _, end) = setup.play("PLAIN", &["334 Zm9v", "501 5.7.0 stopped"]);
    assert_eq!(written[1..], ["*"]);
    assert_eq!(
        refusal(end),
        (
            "4.7.0".to_owned(),
            format!("cannot authenticate to server {PEER}: PLAIN: the server begins where we must")
        )
    );
}

#[test]
fn a_server_that_overlooks_the_first_response_hears_it_once_more() {
    let (written, _, end) = tim().play("PLAIN", &["334 ", "235 ok"]);
    assert_eq!((written[1].as_str(), end), (TIM, Answer::Accepted));
    let (written, _, _) = tim().play("PLAIN", &["334 ", "334 ", "501 no"]);
    assert_eq!(written[1..], [TIM, "*"]);
    // A response of no octets is an empty line then.
    let (written, shown, end) = Setup::certificate("").play("EXTERNAL", &["334", "235 ok"]);
    assert_eq!((&written[1], &shown[1], end), (&String::new(), &String::new(), Answer::Accepted));
}

#[test]
fn a_response_longer_than_a_server_must_take_is_not_sent() {
    for (size, fits) in [(9211, true), (9212, false)] {
        let setup = Setup::password("tim", &"x".repeat(size));
        let begun = setup.begin("PLAIN");
        assert_eq!(begun.is_ok(), fits, "{size}");
        if let Err(reason) = begun {
            assert!(
                reason.text.ends_with("PLAIN: the response is longer than 12288 octets"),
                "{}",
                reason.text
            );
        }
    }
}
