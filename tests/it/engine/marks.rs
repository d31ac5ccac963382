//! What a queue file says while its message is under way.

use super::{HURRY, Server, messages_in, only_message_in, states, submit, wait_until_nothing_is_left};
use crate::common::agent::{SOON, Site};
use crate::common::process::wait_for;
use crate::holding::{END_OF_DATA, Holding, SECOND_ANSWER};

#[test]
fn who_waits_for_the_last_answer_is_in_doubt() {
    for (stage, expected) in [("DATA", "-PP"), (END_OF_DATA, "-II"), (SECOND_ANSWER, "-SI")] {
        let site = Site::new("");
        let server = Holding::start(&site, &[stage]);
        // The agent looks whether its bounces have a server: that is not to be this one.
        let keys = format!("bounce_nexthop = \"unix:{}.none\"\n", server.socket.display());
        site.configure(&super::to_socket(&server.socket, &keys));
        let agent = site.start_agent();
        submit(&site, "for two", &["b@example.org", "c@example.org"]);
        server.wait_until_it_holds(&site);
        let file = only_message_in(&site, "active");
        let look = || states(&file).filter(|states| states == expected);
        wait_for(&format!("{expected} while {stage} is held, not {:?}", states(&file)), SOON, look);
        server.release();
        wait_until_nothing_is_left(&site, SOON);
        agent.stop();
    }
}

#[test]
fn a_connection_lost_after_the_end_of_data_leaves_doubt_and_warns() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "data-done * times 1 close");
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    submit(&site, "twice", &["b@example.org"]);
    let line = site.wait_for_line(&["to=<b@example.org>", "status=deferred"], SOON);
    let words = "while sending end of data -- message may be sent more than once)";
    assert!(line.contains("dsn=4.4.2") && line.ends_with(words), "{line}");
    assert_eq!(states(&only_message_in(&site, "deferred")).as_deref(), Some("-I"));
    site.wait_for_line(&["warning: ", "<b@example.org>", "delivered twice"], SOON);
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    assert_eq!(server.mail_of("b@example.org").len(), 2, "this server had stored it both times");
    agent.stop();
}

#[test]
fn a_server_that_says_that_it_cannot_leaves_no_doubt() {
    let site = Site::new("");
    let server = Server::start(&site, "mail", "data-done * times 1 451 4.3.0 disk full");
    server.serves(&site, HURRY);
    let agent = site.start_agent();
    submit(&site, "once", &["b@example.org"]);
    site.wait_for_line(&["to=<b@example.org>", "status=deferred"], SOON);
    let file = only_message_in(&site, "deferred");
    assert_eq!(states(&file).as_deref(), Some("-P"));
    site.wait_for_line(&["to=<b@example.org>", "status=sent"], SOON);
    wait_until_nothing_is_left(&site, SOON);
    assert!(site.lines_with(&["delivered twice"]).is_empty(), "{}", site.log());
    assert_eq!(messages_in(&site, "corrupt").len(), 0);
    agent.stop();
}
