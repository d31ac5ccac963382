//! Replies of servers that want to confuse us, or to learn or leak what they should not.

use proptest::prelude::*;

use super::*;

const CANARY: &str = "canary-7Jz0qX";

#[test]
fn what_is_no_challenge_ends_the_exchange_with_a_star() {
    for (text, words) in [
        ("334 Username:", "the server's challenge is not base64: \"Username:\""),
        ("334 Zm9", "the server's challenge is not base64: \"Zm9\""),
        ("334 Zm9v Zm9v", "the server's challenge is not base64: \"Zm9v Zm9v\""),
        ("334 =", "the server's challenge is not base64: \"=\""),
        ("334-Zm9v\r\n334 Zm9v", "the server answers \"334-Zm9v 334 Zm9v\", which is no challenge"),
        ("354 go ahead", "the server answers \"354 go ahead\", which is no challenge"),
        (
            &format!("334 {}", "?".repeat(100)),
            &format!("the server's challenge is not base64: \"{}...\"", "?".repeat(60)),
        ),
    ] {
        let (written, shown, end) =
            Setup::password("tim", CANARY).play("LOGIN", &[text, "501 5.7.0 cancelled"]);
        assert_eq!((written[1].as_str(), shown[1].as_str()), ("*", "*"), "{text}");
        let expected = format!("cannot authenticate to server {PEER}: LOGIN: {words}");
        assert_eq!(refusal(end), ("4.7.0".to_owned(), expected));
    }
}

#[test]
fn a_challenge_may_have_12288_octets_and_no_more() {
    let begun = || Setup::password("tim", CANARY).begin("LOGIN").unwrap().0;
    let longest = "A".repeat(12_288);
    let Answer::Send(line) = begun().on_reply(&reply(&format!("334 {longest}"))) else { panic!() };
    assert_eq!(line.shown, "[...]");
    let octets = format!("334 {longest}A\r\n");
    assert_eq!(parse_auth_reply(octets.as_bytes()), Err(crate::smtp::BadReply::TooLong));
}

#[test]
fn an_exchange_without_end_is_ended() {
    let mut setup = Setup::password("tim", CANARY);
    setup.filter = vec!["LOGIN".to_owned()];
    let (mut exchange, _) = setup.begin("LOGIN").unwrap();
    let mut sent = Vec::new();
    let end = loop {
        match exchange.on_reply(&reply("334 ")) {
            Answer::Send(line) => sent.push(written(&line)),
            end => break end,
        }
    };
    assert_eq!(sent.len(), 3, "{sent:?}");
    assert_eq!(sent[2], "*");
    assert!(refusal(end).1.ends_with("LOGIN: the server asks for more than there is to say"));
    assert!(refusal(exchange.on_reply(&reply("235 after all"))).1.ends_with("the exchange is over"));
}

#[test]
fn whatever_the_server_says_to_a_star_we_are_not_logged_in() {
    for text in ["235 2.7.0 welcome", "334 Zm9v", "421 4.3.2 bye", "501 ok"] {
        let (_, _, end) = Setup::password("tim", CANARY).play("LOGIN", &["334 ?", text]);
        assert!(refusal(end).1.contains("is not base64"), "{text}");
    }
}

#[test]
fn a_refusal_is_transient_whatever_it_says() {
    for (text, status) in [
        ("432 4.7.12 A password transition is needed", "4.7.12"),
        ("454 4.7.0 Temporary authentication failure", "4.7.0"),
        ("454 later", "4.7.0"),
        ("534 5.7.9 mechanism is too weak", "4.7.9"),
        ("534 mechanism is too weak", "4.7.8"),
        ("535 5.7.8 Authentication credentials invalid", "4.7.8"),
        ("535 no", "4.7.8"),
        ("538 5.7.11 Encryption required", "4.7.11"),
        ("500 5.5.6 line too long", "4.5.6"),
        ("504 5.5.4 unknown mechanism", "4.5.4"),
        ("504 unknown mechanism", "4.7.0"),
        ("421 4.3.2 closing", "4.3.2"),
        ("530-5.7.0 first\r\n530 5.7.0 second", "4.7.0"),
    ] {
        let (_, _, end) = Setup::password("tim", CANARY).play("PLAIN", &[text]);
        let Answer::Refused(reason) = &end else { panic!("{end:?}") };
        assert_eq!(reason.reply.as_deref(), Some(text.replace("\r\n", "\n").as_str()));
        let said = format!("server {PEER} said: {}", text.replace("\r\n", " "));
        assert_eq!(refusal(end), (status.to_owned(), said));
    }
}

#[test]
fn what_the_server_repeats_of_us_is_told_to_nobody() {
    let setup = Setup::password("tim", CANARY);
    let (mut exchange, line) = setup.begin("PLAIN").unwrap();
    let command = written(&line);
    for text in [
        format!("502 5.5.2 unknown command {command}"),
        format!("502 5.5.2 unknown command {}", &command[..command.len() - 5]),
        format!("502 5.5.2 UNKNOWN COMMAND {}", command.to_ascii_uppercase()),
        format!("535-5.7.8 {CANARY}\r\n535 5.7.8 is not your password"),
    ] {
        let answer = exchange.on_reply(&reply(&text));
        exchange = setup.begin("PLAIN").unwrap().0;
        let shown = format!("{answer:?} {}", exchange.shown(&reply(&text)));
        for hidden in [CANARY, &command[11..], &command[11..25], &command[11..].to_ascii_uppercase()] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
        assert!(shown.contains("[...]"), "{shown}");
    }
}

#[test]
fn a_line_after_auth_that_the_server_repeats_is_told_to_nobody() {
    let kept = Setup::password("tim", &"x".repeat(500));
    for (setup, offered, replies) in [
        (Setup::password("tim", CANARY), "LOGIN", &["334 ", "334 "][..]),
        (Setup::password("tim", CANARY), "CRAM-MD5", &["334 PDFAeD4="]),
        (kept, "PLAIN", &["334 "]),
    ] {
        let (sent, _, _) = setup.play(offered, replies);
        let text = format!("500 5.5.2 what is {}?", sent.last().unwrap());
        let (_, _, end) = setup.play(offered, &[replies, &[&text]].concat());
        let Answer::Refused(reason) = end else { panic!("{end:?}") };
        assert!(reason.text.ends_with("said: 500 5.5.2 what is [...]?"), "{offered}: {}", reason.text);
        assert_eq!(reason.reply.as_deref(), Some("500 5.5.2 what is [...]?"));
    }
}

#[test]
fn challenges_are_not_shown() {
    let (exchange, _) = Setup::password("tim", CANARY).begin("LOGIN").unwrap();
    for (text, shown) in [
        ("334 VXNlcm5hbWU6", "334 [...]"),
        ("334 ", "334"),
        ("235-a\r\n235 b", "235-a\n235 b"),
        ("535 no", "535 no"),
    ] {
        assert_eq!(exchange.shown(&reply(text)), shown);
    }
}

/// Challenges that are nearly right, and anything else.
fn replies() -> impl Strategy<Value = Vec<u8>> {
    use base64::Engine as _;
    let encode = |octets: Vec<u8>| base64::engine::general_purpose::STANDARD.encode(octets);
    let attribute = prop::sample::select(vec![
        "r=", "s=", "i=", "v=", "e=", "m=", "r", "", "=", "i=1", "s=QQ==", "\u{ff}",
    ]);
    let scram = prop::collection::vec(attribute, 0..6).prop_map(|parts| parts.join(",").into_bytes());
    let json = "\\{\"status\":\"[a-z\\\\u0001\"]{0,9}\"?\\}?".prop_map(String::into_bytes);
    let octets = prop::collection::vec(any::<u8>(), 0..40);
    let challenge = prop_oneof![scram, json, octets]
        .prop_map(move |octets| format!("334 {}\r\n", encode(octets)).into_bytes());
    let code = prop::sample::select(vec![
        "235 ",
        "334 ",
        "334-x\r\n334 ",
        "354 ",
        "421 ",
        "454 ",
        "535 5.7.8 ",
        "250 ",
    ]);
    let anything = (code, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(code, octets)| [code.as_bytes(), &octets, b"\r\n"].concat());
    prop_oneof![3 => challenge, 1 => anything]
}

proptest! {
    #[test]
    fn no_reply_panics_leaks_or_keeps_us_for_ever(
        mechanism in prop::sample::select(known_mechanisms().to_vec()),
        mut texts in prop::collection::vec(replies(), 1..16),
        can_bind: bool,
        offers_more: bool,
    ) {
        let mut setup = match mechanism {
            "EXTERNAL" => Setup::certificate(CANARY),
            "OAUTHBEARER" | "XOAUTH2" => Setup::token("tim", CANARY),
            _ => Setup::password("tim", CANARY),
        };
        setup.channel_binding = can_bind.then(|| vec![1; 32]);
        setup.filter = vec![mechanism.to_owned()];
        let offered = if offers_more { known_mechanisms().join(" ") } else { mechanism.to_owned() };
        let Ok((mut exchange, first)) = setup.begin(&offered) else {
            prop_assert!(mechanism.ends_with("-PLUS") && !can_bind);
            return Ok(());
        };
        let mut seen = first.shown;
        // A server that never comes to an end.
        texts.extend(std::iter::repeat_n(b"334 \r\n".to_vec(), 20));
        let mut steps = 0;
        for text in texts {
            let Ok(Some((reply, _))) = parse_auth_reply(&text) else { continue };
            seen.push_str(&exchange.shown(&reply));
            steps += 1;
            let answer = exchange.on_reply(&reply);
            seen.push_str(&format!("{exchange:?}"));
            match answer {
                Answer::Send(line) => {
                    prop_assert!(line.octets.ends_with(b"\r\n"));
                    prop_assert_eq!(line.octets.iter().filter(|octet| octet.is_ascii_control()).count(), 2);
                    seen.push_str(&line.shown);
                }
                Answer::Accepted => {
                    prop_assert!(!mechanism.starts_with("SCRAM"), "nobody has proved anything");
                    break;
                }
                Answer::Refused(reason) => {
                    prop_assert_eq!(reason.status.class(), 4);
                    prop_assert!(!reason.text.contains(char::is_control), "{:?}", reason.text);
                    prop_assert!(reason.text.len() < 700, "{}", reason.text);
                    seen.push_str(&format!("{reason:?}"));
                    break;
                }
            }
            prop_assert!(steps <= 6);
        }
        prop_assert!(mechanism == "EXTERNAL" || !seen.contains(CANARY), "{}", seen);
    }
}
