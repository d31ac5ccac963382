//! In which order a recipient is reported, logged and marked, and how long the message is locked.

use super::queue::{Caller, DONE, Site, Wish, a_while, is_locked, kept_and_spared};

#[test]
fn a_recipient_is_reported_before_it_is_logged_and_logged_before_it_is_marked() {
    let mut site = Site::start("");
    let _server = site.serve("rcpt no@* 550 5.1.1 no such user");
    let message = site.queue("3C0A1", &["no@example.org"]);
    site.bounce.hold();
    let mut caller = Caller::connect(&site.master);
    caller.say(&message.request(&Wish::default()));
    site.bounce.wait_for(1);
    a_while();
    assert!(!site.has_line(&["3C0A1: to="]), "it could still be deferred");
    assert_eq!(message.records(), "R");
    assert!(!caller.is_answered());
    site.bounce.release();
    assert_eq!(caller.answer(), DONE);
    assert!(site.line_of(&message, "no@example.org").contains("status=bounced"));
    assert_eq!(message.records(), "D");
}

#[test]
fn a_message_is_locked_until_its_last_mark_also_when_qmgr_has_gone() {
    let site = Site::start("");
    let _server = site.serve("rcpt no@* 550 5.1.1 no such user");
    let message = site.queue("3C0A1", &["a@example.org", "no@example.org"]);
    site.bounce.hold();
    let mut caller = Caller::connect(&site.master);
    caller.say(&message.request(&Wish::default()));
    site.bounce.wait_for(1);
    drop(caller);
    a_while();
    assert!(is_locked(&message.path));
    site.bounce.release();
    message.wait_for_records("DD");
    crate::common::process::wait_for("the end of the lock", crate::common::agent::SOON, || {
        (!is_locked(&message.path)).then_some(())
    });
    assert_eq!(site.mail_of("a@example.org").len(), 1);
    assert_eq!(site.deliver(&site.queue("3C0A2", &["a@example.org"])), DONE);
}

#[test]
fn each_recipient_is_marked_as_soon_as_the_server_has_taken_the_mail_for_it() {
    let mut site = Site::start("");
    let server = site.serve("data-done b@* silence");
    let message = site.queue("3C0A1", &["a@example.org", "b@example.org"]);
    let mut caller = Caller::connect(&site.master);
    caller.say(&message.request(&Wish::default()));
    message.wait_for_records("DR");
    assert!(site.line_of(&message, "a@example.org").contains("status=sent"));
    assert!(!caller.is_answered());
    server.stop();
    let reason = "lost connection with mx.example.org[private/lmtp] while sending end of data -- message may be sent \
                  more than once";
    assert_eq!(caller.answer(), kept_and_spared("4.4.2", reason));
    assert_eq!(message.records(), "DR");
    assert_eq!(site.defer.heard().len(), 1);
}

#[test]
fn a_report_that_cannot_be_made_keeps_the_recipient() {
    let mut site = Site::start("");
    let _server = site.serve("rcpt no@* 550 5.1.1 no such user\nrcpt late@* 450 4.2.1 busy");
    for daemon in [&site.bounce, &site.defer, &site.verify] {
        daemon.refuse();
    }
    let message = site.queue("3C0A1", &["no@example.org", "a@example.org", "late@example.org"]);
    assert_eq!(site.deliver(&message), super::queue::KEPT);
    assert_eq!(message.records(), "RDR");
    let line = site.line_of(&message, "no@example.org");
    assert!(line.ends_with("dsn=4.3.0, status=deferred (bounce or trace service failure)"), "{line}");
    site.master.wait_for_line(&["warning: 3C0A1: defer service failure"]);
    let probe = site.queue("3C0A2", &["a@example.org"]);
    assert_eq!(site.ask(&probe, &Wish { flags: 259, ..Wish::default() }), super::queue::KEPT);
    assert_eq!(probe.records(), "R");
    site.master.wait_for_line(&["warning: 3C0A2: verify service failure"]);
    assert!(!site.has_line(&["3C0A2: to="]), "{}", site.master.log());
}
