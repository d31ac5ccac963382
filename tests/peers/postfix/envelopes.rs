//! Envelopes: addresses that need care, and what main.cf and master.cf let us add to them and to the content.
//!
//! - Owns: quoting, SMTPUTF8, XFORWARD, `flags=`, very many recipients.
//! - Leaves to others: DSN's parameters (`notices`).

use super::client::{Client, Difference, NOTHING, both};
use super::instance::{Place, Postfix, Settings};
use super::mail::{Smtp, header, message, submit, submit_with};
use super::observation::{Observation, observe};
use super::server::{Answer, OFFERS, Server, Stage, say};

/// Local parts as a person writes them on sendmail's command line.
const ODD: [&str; 16] = [
    r#""a b""#,
    r#""a..b""#,
    r#""a\"q""#,
    r#""back\\slash""#,
    r#""trail.""#,
    r#"".lead""#,
    r#""at@in""#,
    r#""<x>""#,
    "\"tab\tx\"",
    "!#$%&'*+-/=?^_`{|}~",
    r#""(comment)""#,
    r#""semi;colon:comma,""#,
    r#""[x]""#,
    "a.b.c",
    r#"" ""#,
    "UPPER.lower",
];

#[test]
fn odd_addresses_are_quoted_as_they_must_be() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::offering(place.path(), &[&OFFERS[..], &["DSN"]].concat(), |at| match at.stage {
            // A refusal shows the address in the bounce, too.
            Stage::DataDone if at.user().contains("a..b") => say("550 5.0.0 no"),
            _ => Answer::Usual,
        });
        let main = "smtpd_recipient_restrictions = permit_mynetworks, reject\nstrict_rfc821_envelopes = no\n\
                    allow_percent_hack = no\nswap_bangpath = no\nallow_min_user = yes\n";
        let settings = Settings::main(main).smtpd().route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        for (at, local) in ODD.iter().enumerate() {
            let name = format!("odd-{at}");
            let recipient = format!("<{local}@test.example> NOTIFY=SUCCESS,FAILURE");
            let mut smtp = Smtp::connect(&postfix);
            smtp.send(&format!("<{name}@sender.example>"), &[&recipient], &message(&name));
        }
        Smtp::connect(&postfix).send(
            r#"<"odd sender"@sender.example>"#,
            &["<u@test.example>"],
            &message("odd"),
        );
        postfix.sendmail(&["-i", "-f", "", "u@test.example"], &message("null"));
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("odd-0 wire", &[r#"RCPT TO:<\"a b\"@test.example>"#]);
    pair.show("odd-0 log", &[r#"to=<"a b"@test.example>"#]);
    pair.show("null wire", &["MAIL FROM:<>"]);
    pair.agree();
}

#[test]
fn international_mail_needs_a_server_for_it() {
    let pair = both(|client| {
        let place = Place::new();
        let full =
            Server::offering(place.path(), &[&OFFERS[..], &["SMTPUTF8", "DSN"]].concat(), |_| Answer::Usual);
        let plain = Server::obliging(place.path());
        let settings =
            Settings::default().route("full.example", full.unix()).route("plain.example", plain.unix());
        let postfix = Postfix::start(&place, client, settings);
        for domain in ["full", "plain"] {
            let recipient = |user: &str| format!("{user}@{domain}.example");
            let submit = |case: &str, users: &[&str], head: &str| {
                let name = format!("{case}-{domain}");
                let recipients: Vec<_> = users.iter().map(|user| recipient(user)).collect();
                let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
                let text = format!("{}{head}\ntext\n", header(&name));
                submit_with(&postfix, &name, &["-N", "success"], &recipients, text.as_bytes());
            };
            submit("recipient", &["é1", "plain"], "");
            submit("header", &["plain"], "X-Name: Grüße\n");
            submit("neither", &["plain"], "");
        }
        postfix.settle();
        observe(&postfix, &[&full, &plain])
    });
    let Some(pair) = pair else { return };
    pair.show("recipient-full wire", &["MAIL FROM:<recipient-full@sender.example> ", " SMTPUTF8"]);
    pair.show("recipient-plain log", &["dsn=5.6.7", "SMTPUTF8 is required, but was not offered by host "]);
    pair.agree();
}

#[test]
fn xforward_names_the_first_client() {
    let pair = both(|client| {
        let place = Place::new();
        let all = "XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT";
        let offering =
            |offer: &str| Server::offering(place.path(), &["PIPELINING", offer], |_| Answer::Usual);
        let (all, some) = (offering(all), offering("XFORWARD HELO ADDR"));
        let refusing =
            Server::offering(place.path(), &["PIPELINING", "XFORWARD NAME ADDR HELO"], |at| match at.stage {
                Stage::Xforward => say("501 5.5.4 not that"),
                _ => Answer::Usual,
            });
        let settings = Settings::main("lmtp_send_xforward_command = yes")
            .smtpd()
            .route("all.example", all.unix())
            .route("some.example", some.unix())
            .route("refusing.example", refusing.unix());
        let postfix = Postfix::start(&place, client, settings);
        for domain in ["all", "some", "refusing"] {
            let recipient = format!("<u@{domain}.example>");
            let name = format!("smtp-{domain}");
            Smtp::connect(&postfix).send(&format!("<{name}@sender.example>"), &[&recipient], &message(&name));
            submit(&postfix, &format!("local-{domain}"), &[&format!("u@{domain}.example")]);
        }
        postfix.settle();
        observe(&postfix, &[&all, &some, &refusing])
    });
    let Some(pair) = pair else { return };
    pair.show("smtp-all wire", &["XFORWARD ", "ADDR=127.0.0.1"]);
    pair.show("smtp-all wire", &["XFORWARD ", "HELO=client.example", "SOURCE="]);
    pair.show("smtp-refusing log", &["status=sent"]);
    let words = |part: &str| {
        format!(
            "host mx.test.example[DIR/server-3.sock] said: 501 5.5.4 not that (in reply to XFORWARD {part} command)"
        )
    };
    let (name, protocol) = (words("name/address"), words("helo/protocol"));
    let stock = [&name, &protocol].map(|words| format!("CLIENT: warning: {words}"));
    let ours = [&name, &protocol].map(|words| format!("CLIENT: warning: <smtp-refusing>: {words}"));
    let difference =
        |topic, stock, ours| Difference { topic, stock, ours, why: "a warning tells which mail it is about" };
    pair.agree_but(&[
        difference("warnings", &stock[0], ""),
        difference("warnings", &stock[1], ""),
        difference("smtp-refusing log", NOTHING, &ours[0]),
        difference("smtp-refusing log", NOTHING, &ours[1]),
    ]);
}

/// Mail with `flags=`, to one recipient, to an alias, to one that has had it before.
fn flagged(client: Client, flags: &str, main: &str) -> Observation {
    let place = Place::new();
    let server = Server::obliging(place.path());
    let main = format!("virtual_alias_maps = inline:{{alias@test.example=real@test.example}}\n{main}");
    let settings =
        Settings::main(&main).arguments(&format!("flags={flags}")).route("test.example", server.unix());
    let postfix = Postfix::start(&place, client, settings);
    submit(&postfix, "one", &["u@test.example"]);
    submit(&postfix, "alias", &["alias@test.example"]);
    submit(&postfix, "two", &["a@test.example", "b@test.example"]);
    submit_with(&postfix, "success", &["-N", "success"], &["u@test.example"], &message("success"));
    for (name, field) in [
        ("loop", "Delivered-To: u@test.example\n"),
        ("loop-case", "X-Other: x\nDELIVERED-TO:  U@TEST.example\n"),
        ("loop-folded", "Delivered-To:\n u@test.example\n"),
        ("no-loop", "Delivered-To: other@test.example\n"),
    ] {
        let text = format!("{field}{}\ntext\n", header(name));
        submit_with(&postfix, name, &[], &["u@test.example"], text.as_bytes());
    }
    postfix.sendmail(&["-i", "-f", "", "u@test.example"], &message("null"));
    postfix.settle();
    observe(&postfix, &[&server])
}

#[test]
fn flags_add_header_fields() {
    let one = "carry_destination_recipient_limit = 1\n";
    let Some(pair) = both(|client| flagged(client, "DORX", one)) else { return };
    pair.show("alias wire", &["Delivered-To: real@test.example"]);
    pair.show("alias wire", &["X-Original-To: alias@test.example"]);
    pair.show("alias wire", &["Return-Path: <alias@sender.example>"]);
    pair.show("loop log", &["dsn=5.4.6", "status=bounced (mail forwarding loop for u@test.example)"]);
    pair.show("success notices", &["Action: delivered"]);
    pair.agree();
}

#[test]
fn flags_that_need_one_recipient_get_one() {
    let Some(pair) = both(|client| flagged(client, "D", "")) else { return };
    pair.show("two log", &["dsn=4.3.5", "status=deferred (mail system configuration error)"]);
    pair.agree();
}

#[test]
fn ten_thousand_recipients_of_one_message_each_have_an_outcome() {
    const COUNT: usize = 10_000;
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::start(place.path(), |at| match (at.stage, at.user().as_bytes().last()) {
            (Stage::Rcpt, Some(b'3')) => say("450 4.2.1 busy"),
            (Stage::DataDone, Some(b'7')) => say("550 5.2.2 full"),
            _ => Answer::Usual,
        });
        let settings = Settings::main(&format!("carry_destination_recipient_limit = {COUNT}\n"))
            .route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        let recipients: Vec<_> = (0..COUNT).map(|at| format!("u{at:05}@test.example")).collect();
        submit(&postfix, "many", &recipients.iter().map(String::as_str).collect::<Vec<_>>());
        postfix.settle();
        postfix.wait_for_lines(COUNT, &["]: ", ": to=<u"]);
        let mut seen = observe(&postfix, &[&server]);
        let log = postfix.log();
        for (word, status) in [("sent", "sent ("), ("deferred", "deferred ("), ("bounced", "bounced (")] {
            let status = format!("status={status}");
            let lines = log.lines().filter(|line| line.contains(": to=<u") && line.contains(&status));
            seen.add("counts", format!("{word} {}", lines.count()));
        }
        let accepted: usize = server.heard().transactions.iter().map(|it| it.accepted.len()).sum();
        seen.add("counts", format!("accepted {accepted}"));
        seen
    });
    let Some(pair) = pair else { return };
    for count in ["sent 8000", "deferred 1000", "bounced 1000", "accepted 9000"] {
        pair.show("counts", &[count]);
    }
    pair.agree();
}
