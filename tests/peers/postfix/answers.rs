//! What servers answer, and what becomes of each recipient.

use super::client::both;
use super::instance::{Place, Postfix, Settings};
use super::observation::observe;
use super::server::{Answer, Server, Stage, say};

/// A message with all its header fields.
pub fn message(name: &str) -> Vec<u8> {
    format!(
        "From: <{name}@sender.example>\nTo: somebody@example.org\nSubject: {name}\n\
         Date: Sat, 21 Nov 2026 19:30:00 +0000 (UTC)\nMessage-ID: <{name}@id.example>\n\nThe text of {name}.\n"
    )
    .into_bytes()
}

/// Submits a message of that name.
#[track_caller]
pub fn submit(postfix: &Postfix<'_>, name: &str, recipients: &[&str]) {
    let sender = format!("{name}@sender.example");
    let arguments = [&["-i", "-f", &sender][..], recipients].concat();
    postfix.sendmail(&arguments, &message(name));
}

#[test]
fn each_recipient_has_an_outcome_of_its_own() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::start(place.path(), |at| match (at.stage, at.user()) {
            (Stage::Rcpt, "busy") => say("450 4.2.1 mailbox busy"),
            (Stage::Rcpt, "nosuch") => say("550-5.1.1 no such user\n550 5.1.1 really not"),
            (Stage::DataDone, "later") => say("452 4.2.2 over quota for now"),
            (Stage::DataDone, "full") => say("552 5.2.2 over quota for good"),
            _ => Answer::Usual,
        });
        let settings = Settings::default().route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        submit(&postfix, "one", &["alice@test.example"]);
        submit(&postfix, "at-rcpt", &["busy@test.example", "alice@test.example", "nosuch@test.example"]);
        submit(&postfix, "at-end", &["later@test.example", "alice@test.example", "full@test.example"]);
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    eprintln!("{:#?}", pair.stock);
    pair.agree();
}
