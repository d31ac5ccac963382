//! What senders are told: delivery status notifications, and probes of addresses.
//!
//! - Owns: NOTIFY, RET, ENVID and ORCPT with servers that have DSN and servers that have not; `sendmail -bv` and `-v`;
//!   smtpd's probes.
//! - Leaves to others: bounces of plain mail (`answers`).

use super::client::{Client, both};
use super::instance::{Place, Postfix, Settings};
use super::mail::{Smtp, message, submit_with};
use super::observation::{Observation, observe};
use super::server::{Answer, At, OFFERS, Server, Stage, say};

fn choosy(at: &At<'_>) -> Answer {
    match (at.stage, at.user()) {
        (Stage::Rcpt, "busy") => say("450 4.2.1 mailbox busy"),
        (Stage::Rcpt, "nosuch") => say("550 5.1.1 no such user"),
        (Stage::DataDone, "full") => say("552 5.2.2 over quota"),
        _ => Answer::Usual,
    }
}

#[test]
fn senders_hear_what_they_asked_for() {
    let pair = both(|client| {
        let place = Place::new();
        let offers = [&OFFERS[..], &["DSN"]].concat();
        let (with, without) =
            (Server::offering(place.path(), &offers, choosy), Server::start(place.path(), choosy));
        let settings = Settings::main("virtual_alias_maps = inline:{alias@with.example=real@with.example}")
            .smtpd()
            .route("with.example", with.unix())
            .route("without.example", without.unix());
        let postfix = Postfix::start(&place, client, settings);
        for domain in ["with", "without"] {
            let users = ["alice", "busy", "nosuch", "full"].map(|user| format!("{user}@{domain}.example"));
            let users = users.each_ref().map(String::as_str);
            for (case, options) in [
                ("success", &["-N", "success"][..]),
                ("all", &["-N", "success,failure,delay", "-V", "an+id=1", "-R", "hdrs"]),
                ("full", &["-N", "failure", "-R", "full"]),
                ("never", &["-N", "never"]),
            ] {
                let name = format!("{case}-{domain}");
                submit_with(&postfix, &name, options, &users, &message(&name));
            }
            let name = format!("smtp-{domain}");
            let original =
                format!("<suc@{domain}.example> ORCPT=rfc822;orig+2B@x.example NOTIFY=SUCCESS,DELAY");
            Smtp::connect(&postfix).send(
                &format!("<{name}@sender.example> RET=HDRS ENVID=QQ+2B314"),
                &[&original, &format!("<fail@{domain}.example> NOTIFY=FAILURE")],
                &message(&name),
            );
        }
        submit_with(&postfix, "alias", &["-N", "success"], &["alias@with.example"], &message("alias"));
        postfix.settle();
        observe(&postfix, &[&with, &without])
    });
    let Some(pair) = pair else { return };
    // The server tells of a success where it can, else Postfix does.
    pair.show(
        "success-with wire",
        &["RCPT TO:<alice@with.example> ORCPT=rfc822;alice@with.example NOTIFY=SUCCESS"],
    );
    assert!(!pair.ours.lines("success-with notices").iter().any(|line| line.contains("Successful")));
    pair.show("success-without notices", &["Action: relayed"]);
    pair.show("all-with wire", &["MAIL FROM:<all-with@sender.example> ", "ENVID=an+2Bid+3D1 RET=HDRS"]);
    pair.show(
        "smtp-with wire",
        &["RCPT TO:<suc@with.example> ORCPT=rfc822;orig+2B@x.example NOTIFY=SUCCESS,DELAY"],
    );
    pair.show("alias log", &["to=<real@with.example>, orig_to=<alias@with.example>"]);
    pair.agree();
}

/// `sendmail -bv` and `-v`, for recipients with all kinds of outcomes, and one that cannot be reached.
#[test]
fn reports_on_deliveries_come_back() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::start(place.path(), choosy);
        let settings = Settings::default()
            .route("test.example", server.unix())
            .route("gone.example", format!("unix:{}/gone", place.path().display()));
        let postfix = Postfix::start(&place, client, settings);
        let users = ["alice@test.example", "busy@test.example", "nosuch@test.example", "full@test.example"];
        submit_with(&postfix, "bv", &["-bv"], &users, b"");
        submit_with(&postfix, "bv-gone", &["-bv"], &["u@gone.example"], b"");
        submit_with(&postfix, "v", &["-v"], &users, &message("v"));
        submit_with(&postfix, "v-gone", &["-v"], &["u@gone.example"], &message("v-gone"));
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show(
        "bv log",
        &["to=<alice@test.example>", "status=deliverable (250 2.1.5 alice@test.example welcome)"],
    );
    pair.show("bv log", &["to=<busy@test.example>", "dsn=4.2.1", "status=undeliverable"]);
    pair.show("bv notices", &["Action: deliverable"]);
    pair.show("bv-gone log", &["status=undeliverable (connect to "]);
    pair.show("v notices", &["Action: delayed"]);
    assert!(
        !pair.ours.lines("bv wire").iter().any(|line| line.starts_with("Subject:")),
        "a probe has no content"
    );
    pair.agree();
}

/// What smtpd says to recipients that it asks us about.
fn probe(client: Client, main: &str) -> Observation {
    let place = Place::new();
    let server = Server::start(place.path(), choosy);
    let main = format!(
        "smtpd_recipient_restrictions = reject_unverified_recipient, permit_mynetworks, reject\n\
         unverified_recipient_reject_code = 550\naddress_verify_poll_delay = 1s\naddress_verify_map =\n{main}\n"
    );
    let settings = Settings::main(&main)
        .smtpd()
        .route("test.example", server.unix())
        .route("gone.example", format!("unix:{}/gone", place.path().display()));
    let postfix = Postfix::start(&place, client, settings);
    let mut replies = Observation::default();
    let recipients = ["alice@test", "nosuch@test", "busy@test", "u@gone"];
    // All at a time: each waits for a second.
    let asked = std::thread::scope(|scope| {
        let ask = |recipient| {
            let mut smtp = Smtp::connect(&postfix);
            smtp.says("MAIL FROM:<probing@sender.example>", "250");
            smtp.ask(&format!("RCPT TO:<{recipient}.example>"))
        };
        let asking = recipients.map(|recipient| scope.spawn(move || ask(recipient)));
        asking.map(|asking| asking.join().unwrap())
    });
    for reply in asked {
        replies.add("replies", reply.replace(&place.path().display().to_string(), "DIR"));
    }
    postfix.settle();
    observe(&postfix, &[&server]).join(replies)
}

#[test]
fn smtpd_asks_about_recipients() {
    let Some(pair) = both(|client| probe(client, "")) else { return };
    pair.show("replies", &["250 2.1.5 Ok"]);
    pair.show(
        "replies",
        &["550 5.1.1 <nosuch@test.example>: Recipient address rejected: undeliverable address: host "],
    );
    pair.show("replies", &["450 4.1.1 <busy@test.example>"]);
    pair.show("probes", &["to=<alice@test.example>", "status=deliverable"]);
    pair.agree();
}

#[test]
fn smtpd_asks_about_recipients_up_to_data() {
    let Some(pair) = both(|client| probe(client, "lmtp_address_verify_target = data")) else { return };
    pair.show("probes", &["to=<alice@test.example>", "status=deliverable"]);
    pair.agree();
}

#[test]
fn refusals_of_probes_need_not_be_remembered() {
    let Some(pair) = both(|client| probe(client, "address_verify_negative_cache = no")) else { return };
    pair.show("probes", &["to=<nosuch@test.example>", "status=undeliverable-but-not-cached"]);
    pair.agree();
}
