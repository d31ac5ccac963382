//! What is said on the wire, command by command: here the programs differ on purpose.
//!
//! - Owns: flights of commands, how content travels, how long connections are kept.
//! - Leaves to others: what the server is left with (all other scenarios compare that).

use super::client::{Difference, both};
use super::instance::{Place, Postfix, Settings};
use super::mail::{message, submit, submit_with};
use super::observation::{Observation, observe};
use super::server::{Answer, Heard, Server};

/// The verbs of all commands, `+` in front of those that did not wait for the answer to the one before.
fn verbs(heard: &Heard) -> String {
    let verbs = heard.commands.iter().map(|command| {
        let mark = if command.is_pipelined { "+" } else { "" };
        let words: Vec<_> = command.line.split([' ', ':']).collect();
        let last = if words.last() == Some(&"LAST") { " LAST" } else { "" };
        format!("{mark}{}{last}", words[0])
    });
    verbs.collect::<Vec<_>>().join(" ")
}

#[test]
fn commands_travel_together_and_connections_are_kept() {
    let pair = both(|client| {
        let place = Place::new();
        let ways: [(&str, &[&str]); 4] = [
            ("chunking", &["PIPELINING", "CHUNKING", "8BITMIME"]),
            ("pipelining", &["PIPELINING", "8BITMIME"]),
            ("stepwise", &["8BITMIME"]),
            ("bare", &[]),
        ];
        let servers = ways.map(|(_, offers)| Server::offering(place.path(), offers, |_| Answer::Usual));
        let mut settings = Settings::default();
        for ((name, _), server) in ways.iter().zip(&servers) {
            settings = settings.route(&format!("{name}.example"), server.unix());
        }
        let postfix = Postfix::start(&place, client, settings);
        for number in 0..3 {
            for (name, _) in ways {
                let recipients = ["a", "b"].map(|user| format!("{user}@{name}.example"));
                submit(&postfix, &format!("{name}-{number}"), &recipients.each_ref().map(String::as_str));
                postfix.settle();
            }
        }
        let mut seen = Observation::default();
        for ((name, _), server) in ways.iter().zip(&servers) {
            let heard = server.heard();
            seen.add(name, format!("{} connections: {}", heard.connections, verbs(&heard)));
        }
        let log = postfix.log();
        seen.add("conn_use", format!("{} times", log.matches(", conn_use=").count()));
        seen
    });
    let Some(pair) = pair else { return };
    // Postfix's own: a connection for each message, four waits for a message and one for the greeting.
    let once = "LHLO MAIL +RCPT +RCPT +DATA +QUIT";
    assert_eq!(pair.stock.lines("pipelining"), [format!("3 connections: {once} {once} {once}")]);
    pair.agree_but(&[
        Difference {
            topic: "chunking",
            stock: "3 connections: LHLO MAIL +RCPT +RCPT +DATA +QUIT LHLO MAIL +RCPT +RCPT +DATA +QUIT \
                    LHLO MAIL +RCPT +RCPT +DATA +QUIT",
            ours: "1 connections: LHLO MAIL +RCPT +RCPT +BDAT LAST RSET +MAIL +RCPT +RCPT +BDAT LAST \
                   RSET +MAIL +RCPT +RCPT +BDAT LAST",
            why: "a message is one flight on a connection that stays",
        },
        Difference {
            topic: "pipelining",
            stock: "3 connections: LHLO MAIL +RCPT +RCPT +DATA +QUIT LHLO MAIL +RCPT +RCPT +DATA +QUIT \
                    LHLO MAIL +RCPT +RCPT +DATA +QUIT",
            ours: "1 connections: LHLO MAIL +RCPT +RCPT +DATA RSET +MAIL +RCPT +RCPT +DATA \
                   RSET +MAIL +RCPT +RCPT +DATA",
            why: "the connection stays",
        },
        Difference {
            topic: "stepwise",
            stock: "3 connections: LHLO MAIL RCPT RCPT DATA QUIT LHLO MAIL RCPT RCPT DATA QUIT \
                    LHLO MAIL RCPT RCPT DATA QUIT",
            ours: "1 connections: LHLO MAIL RCPT RCPT DATA RSET MAIL RCPT RCPT DATA RSET MAIL RCPT RCPT DATA",
            why: "the connection stays",
        },
        Difference {
            topic: "bare",
            stock: "3 connections: LHLO MAIL RCPT RCPT DATA QUIT LHLO MAIL RCPT RCPT DATA QUIT \
                    LHLO MAIL RCPT RCPT DATA QUIT",
            ours: "1 connections: LHLO MAIL RCPT RCPT DATA RSET MAIL RCPT RCPT DATA RSET MAIL RCPT RCPT DATA",
            why: "the connection stays",
        },
        Difference {
            topic: "conn_use",
            stock: "0 times",
            // Two of three messages to each of four servers, two recipients each.
            ours: "16 times",
            why: "the connection stays, whether or not qmgr asks for it",
        },
    ]);
}

#[test]
fn keywords_that_main_cf_discards_are_not_used() {
    let pair = both(|client| {
        let place = Place::new();
        let offers = ["PIPELINING", "CHUNKING", "8BITMIME", "SIZE 1000000", "DSN", "SMTPUTF8"];
        let server = Server::offering(place.path(), &offers, |_| Answer::Usual);
        // Whatever is offered beyond these, CHUNKING too, is of no use to Postfix's own.
        let main = "lmtp_discard_lhlo_keywords = pipelining, size, dsn, chunking\n";
        let postfix =
            Postfix::start(&place, client, Settings::main(main).route("test.example", server.unix()));
        submit_with(&postfix, "one", &["-N", "success"], &["a@test.example"], &message("one"));
        postfix.settle();
        let heard = server.heard();
        let mut seen = observe(&postfix, &[&server]);
        seen.add("verbs", verbs(&heard).split(" QUIT").next().unwrap_or_default());
        seen
    });
    let Some(pair) = pair else { return };
    pair.show("one wire", &["RCPT TO:<a@test.example>"]);
    assert_eq!(pair.ours.lines("verbs"), ["LHLO MAIL RCPT DATA"]);
    assert!(!pair.ours.lines("one wire").iter().any(|line| line.contains("NOTIFY") || line.contains("SIZE")));
    pair.agree();
}
