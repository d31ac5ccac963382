//! Servers that cannot be reached, and conversations that break: every row of the local reasons that needs neither
//! DNS nor TLS.
//!
//! - Owns: where it breaks, what the recipients hear of it, whether the destination rests then.
//! - Leaves to others: refusals in good order (`answers`).

use super::client::{Client, Difference, NOTHING, both};
use super::instance::{Place, Postfix, Settings};
use super::mail::{message, submit, submit_with};
use super::observation::{Observation, observe};
use super::server::{Answer, At, OFFERS, OFFERS_WITHOUT_BDAT, Server, Stage, say};

/// How a server is to behave.
type Fault = fn(&At<'_>) -> Answer;

/// Servers with one fault each, by their name: spoken to over TCP.
const FAULTS: [(&str, Fault); 27] = [
    ("greeting-closed", |at| on(at, Stage::Greeting, Answer::Close)),
    ("greeting-421", |at| on(at, Stage::Greeting, Answer::Part("421 4.3.2 go away for now".to_owned()))),
    ("greeting-450", |at| on(at, Stage::Greeting, say("450 4.7.1 not now"))),
    ("greeting-554", |at| on(at, Stage::Greeting, say("554 5.7.1 no service here"))),
    ("greeting-garbage", |at| on(at, Stage::Greeting, Answer::Part("SSH-2.0-OpenSSH_9.2".to_owned()))),
    ("greeting-silence", |at| on(at, Stage::Greeting, Answer::Silence)),
    ("greeting-lines", |at| on(at, Stage::Greeting, say("220-one\n220 two"))),
    ("lhlo-502", |at| on(at, Stage::Lhlo, say("502 5.5.1 not implemented"))),
    ("lhlo-451", |at| on(at, Stage::Lhlo, say("451 4.3.0 not now"))),
    ("lhlo-closed", |at| on(at, Stage::Lhlo, Answer::Close)),
    ("lhlo-silence", |at| on(at, Stage::Lhlo, Answer::Silence)),
    ("mail-closed", |at| on(at, Stage::Mail, Answer::Close)),
    ("mail-421", |at| on(at, Stage::Mail, Answer::Part("421 4.3.2 closing".to_owned()))),
    ("mail-silence", |at| on(at, Stage::Mail, Answer::Silence)),
    ("rcpt-closed", |at| on(at, Stage::Rcpt, Answer::Close)),
    ("rcpt-421", |at| on(at, Stage::Rcpt, Answer::Part("421 4.3.2 closing".to_owned()))),
    ("rcpt-silence", |at| on(at, Stage::Rcpt, Answer::Silence)),
    ("data-closed", |at| on(at, Stage::Data, Answer::Close)),
    ("data-421", |at| on(at, Stage::Data, Answer::Part("421 4.3.2 closing".to_owned()))),
    ("data-silence", |at| on(at, Stage::Data, Answer::Silence)),
    ("content-closed", |at| on(at, Stage::Content, Answer::Close)),
    ("dot-closed", |at| on(at, Stage::DataDone, Answer::Close)),
    ("dot-421", |at| on(at, Stage::DataDone, Answer::Part("421 4.3.2 closing".to_owned()))),
    ("dot-silence", |at| on(at, Stage::DataDone, Answer::Silence)),
    ("dot-second-closed", |at| on_second(at, Answer::Close)),
    ("quit-closed", |at| on(at, Stage::Quit, Answer::Close)),
    ("quit-garbage", |at| on(at, Stage::Quit, say("what?"))),
];

/// The fault at its stage, and good manners elsewhere.
fn on(at: &At<'_>, stage: Stage, fault: Answer) -> Answer {
    if at.stage == stage { fault } else { Answer::Usual }
}

fn on_second(at: &At<'_>, fault: Answer) -> Answer {
    if at.stage == Stage::DataDone && at.user() == "zoe" { fault } else { Answer::Usual }
}

/// One failure decides on a destination: so each shows whether its kind lets the destination rest.
const AT_ONCE: &str = "initial_destination_concurrency = 1\nlmtp_lhlo_timeout = 1s\nlmtp_mail_timeout = 1s\n\
                       lmtp_rcpt_timeout = 1s\nlmtp_data_init_timeout = 1s\nlmtp_data_done_timeout = 1s\n\
                       lmtp_quit_timeout = 1s\n";

/// The faults with what servers offer; a second message tells whether the destination rests.
fn play(client: Client, offers: &[&str], faults: &[(&str, Fault)]) -> Observation {
    let place = Place::new();
    let servers: Vec<_> =
        faults.iter().map(|&(_, fault)| Server::offering(place.path(), offers, fault)).collect();
    let mut settings = Settings::main(AT_ONCE);
    for ((name, _), server) in faults.iter().zip(&servers) {
        settings = settings.route(&format!("{name}.example"), server.inet());
    }
    let postfix = Postfix::start(&place, client, settings);
    for again in ["", "-again"] {
        for (name, _) in faults {
            let recipients = ["alice", "zoe"].map(|user| format!("{user}@{name}.example"));
            submit(&postfix, &format!("{name}{again}"), &recipients.each_ref().map(String::as_str));
        }
        postfix.settle();
    }
    observe(&postfix, &servers.iter().collect::<Vec<_>>())
}

#[test]
fn a_conversation_that_breaks_defers() {
    let Some(pair) = both(|client| play(client, &OFFERS_WITHOUT_BDAT, &FAULTS)) else { return };
    for (name, dsn, words) in [
        (
            "greeting-closed",
            "4.4.2",
            "lost connection with 127.0.0.1[127.0.0.1] while receiving the initial server greeting",
        ),
        (
            "greeting-421",
            "4.3.2",
            "host 127.0.0.1[127.0.0.1] refused to talk to me: 421 4.3.2 go away for now",
        ),
        (
            "greeting-554",
            "4.7.1",
            "host 127.0.0.1[127.0.0.1] refused to talk to me: 554 5.7.1 no service here",
        ),
        ("greeting-silence", "4.4.2", "timed out while receiving the initial server greeting"),
        ("lhlo-closed", "4.4.2", "while performing the LHLO handshake"),
        ("mail-closed", "4.4.2", "while sending MAIL FROM"),
        ("rcpt-closed", "4.4.2", "while sending RCPT TO"),
        ("dot-closed", "4.4.2", "while sending end of data -- message may be sent more than once"),
        ("dot-silence", "4.4.2", "timed out while sending end of data -- message may be sent more than once"),
    ] {
        pair.show(&format!("{name} log"), &["to=<alice@", dsn, "status=deferred (", words]);
        pair.show(&format!("{name}-again log"), &["relay=none", "delivery temporarily suspended: "]);
    }
    pair.show(
        "lhlo-502 log",
        &["dsn=5.5.1", "status=bounced (host 127.0.0.1[127.0.0.1] refused to talk to me: 502"],
    );
    pair.show("dot-second-closed log", &["to=<alice@", "status=sent"]);
    pair.show("dot-second-closed log", &["to=<zoe@", "status=deferred"]);
    pair.show("quit-closed-again log", &["status=sent"]);
    pair.agree_but(&[&words_of_421()[..], &words_of_garbage(), &no_quit(), &no_advice()].concat());
}

/// A server that closes has said so: who is left hears it.
fn words_of_421() -> [Difference<'static>; 4] {
    let difference = |topic, stock, ours| {
        let why = "a server that says that it closes (421) has answered for all who are left";
        Difference { topic, stock, ours, why }
    };
    [
        difference("rcpt-421*", "dsn=4.4.2, status=deferred (", "dsn=4.3.2, status=deferred ("),
        difference(
            "rcpt-421*",
            "lost connection with 127.0.0.1[127.0.0.1] while sending RCPT TO",
            "host 127.0.0.1[127.0.0.1] said: 421 4.3.2 closing (in reply to RCPT TO command)",
        ),
        difference("dot-421*", "dsn=4.4.2, status=deferred (", "dsn=4.3.2, status=deferred ("),
        difference(
            "dot-421*",
            "lost connection with 127.0.0.1[127.0.0.1] while sending end of data -- message may be sent more than once",
            "host 127.0.0.1[127.0.0.1] said: 421 4.3.2 closing (in reply to end of DATA command)",
        ),
    ]
}

/// What has been sent in the place of a reply is worth a look.
fn words_of_garbage() -> [Difference<'static>; 2] {
    let difference = |stock, ours| {
        let why = "who speaks another protocol is told from who goes away, and what he said is shown";
        Difference { topic: "greeting-garbage*", stock, ours, why }
    };
    [
        difference("dsn=4.4.2, ", "dsn=4.5.0, "),
        difference(
            "lost connection with 127.0.0.1[127.0.0.1] while receiving the initial server greeting",
            "protocol error of 127.0.0.1[127.0.0.1] while receiving the initial server greeting: the server sent \
             \"SSH-2.0-OpenSSH_9.2\", which is no SMTP reply",
        ),
    ]
}

/// What a server says to QUIT is heard by whoever says it.
fn no_quit() -> [Difference<'static>; 2] {
    let difference = |topic, stock| {
        let why = "a connection that is kept hears no QUIT with its message";
        Difference { topic, stock, ours: "", why }
    };
    [
        difference(
            "quit-garbage log",
            "CLIENT: warning: <quit-garbage>: non-LMTP response from 127.0.0.1[127.0.0.1]:PORT: what?",
        ),
        difference(
            "quit-garbage-again log",
            "CLIENT: warning: <quit-garbage-again>: non-LMTP response from 127.0.0.1[127.0.0.1]:PORT: what?",
        ),
    ]
}

/// Postfix's own advises to turn pipelining off.
fn no_advice() -> [Difference<'static>; 1] {
    [Difference {
        topic: "warnings",
        stock: "CLIENT: warning: to prevent loss of mail, turn off command pipelining for 127.0.0.1 with the \
                lmtp_discard_lhlo_keyword_address_maps parameter",
        ours: "",
        why: "no mail is lost, and where pipelining fails it is left off without anybody's help",
    }]
}

#[test]
fn a_conversation_that_breaks_step_by_step_defers() {
    // Without PIPELINING each stage has an end of its own.
    let Some(pair) = both(|client| play(client, &["8BITMIME"], &FAULTS)) else { return };
    pair.show("data-closed log", &["to=<alice@", "status=deferred", "while sending DATA command"]);
    pair.agree_but(&[&words_of_421()[..], &words_of_garbage()].concat());
}

#[test]
fn a_conversation_that_breaks_around_bdat_defers() {
    // Before MAIL nothing is other than without CHUNKING, and there is no answer to DATA.
    let stages = ["mail-", "rcpt-", "content-", "dot-"];
    let is_later = |(name, _): &&(&str, Fault)| stages.iter().any(|stage| name.starts_with(stage));
    let faults: Vec<_> = FAULTS.iter().filter(is_later).copied().collect();
    let Some(pair) = both(|client| play(client, &OFFERS, &faults)) else { return };
    // The stage that failed is the latest of what has been sent.
    let early = [("mail-closed*", "MAIL FROM"), ("rcpt-closed*", "RCPT TO")];
    let late = [("mail-silence*", "MAIL FROM"), ("rcpt-silence*", "RCPT TO")];
    let of_flight = [early, late].concat().into_iter().map(|(topic, stock)| Difference {
        topic,
        stock: if stock == "MAIL FROM" { "while sending MAIL FROM" } else { "while sending RCPT TO" },
        ours: "while sending end of data -- message may be sent more than once",
        why: "the whole message has left with its commands, and who knows what has become of it",
    });
    pair.agree_but(&[&words_of_421()[..], &of_flight.collect::<Vec<_>>()].concat());
}

#[test]
fn what_cannot_be_reached_or_used_is_named() {
    let pair = both(|client| {
        let place = Place::new();
        let all = Server::start(place.path(), |_| Answer::Usual);
        let small = Server::offering(place.path(), &["PIPELINING", "SIZE 300"], |_| Answer::Usual);
        let early = Server::start(place.path(), |at| {
            on(at, Stage::Content, Answer::Part("552 5.3.4 enough".to_owned()))
        });
        let gone = place.path().join("gone.sock").display().to_string();
        let long = format!("{}/{}", place.path().display(), "long/".repeat(30));
        let unused = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        let refused = format!("inet:127.0.0.1:{}", unused.local_addr().unwrap().port());
        drop(unused);
        let settings =
            Settings::main(&format!("{AT_ONCE}lmtp_host_lookup = native\nlmtp_tcp_port = {}\n", all.port()))
                .route("gone.example", format!("unix:{gone}"))
                .route("long.example", format!("unix:{long}"))
                .route("refused.example", refused.clone())
                .route("small.example", small.unix())
                .route("name.example", "inet:nowhere.invalid:24")
                .route("second.example", format!("{refused}, 127.0.0.1:{}", all.port()))
                .route("early.example", early.unix())
                .route("localhost.example", format!("inet:localhost:{}", all.port()))
                .route("brackets.example", format!("inet:[127.0.0.1]:{}", all.port()))
                .route("bare.example", format!("127.0.0.1:{}", all.port()))
                .route("no-port.example", "inet:127.0.0.1")
                .route("ascii.example", all.unix());
        let postfix = Postfix::start(&place, client, settings);
        for again in ["", "-again"] {
            for name in
                ["gone", "long", "refused", "name", "second", "localhost", "brackets", "bare", "no-port"]
            {
                let recipient = format!("u@{name}.example");
                submit(&postfix, &format!("{name}{again}"), &[&recipient]);
            }
            let large = [message(&format!("small{again}")), vec![b'x'; 200], vec![b'\n']].concat();
            submit_with(&postfix, &format!("small{again}"), &[], &["u@small.example"], &large);
            // More than any socket holds: the answer comes while it is written.
            let huge = [message(&format!("early{again}")), b"a line of the body\n".repeat(100_000)].concat();
            submit_with(&postfix, &format!("early{again}"), &[], &["u@early.example"], &huge);
            submit_with(
                &postfix,
                &format!("utf8{again}"),
                &[],
                &["é1@ascii.example", "plain@ascii.example"],
                &message("utf8"),
            );
            postfix.settle();
        }
        observe(&postfix, &[&all, &small, &early])
    });
    let Some(pair) = pair else { return };
    for (name, dsn, words) in [
        ("gone", "4.4.1", "connect to mx.test.example[DIR/gone.sock]: No such file or directory"),
        ("refused", "4.4.1", "connect to 127.0.0.1[127.0.0.1]:PORT: Connection refused"),
        ("long", "4.3.5", "Server configuration error"),
    ] {
        pair.show(&format!("{name} log"), &["relay=none", dsn, "status=deferred (", words]);
        pair.show(&format!("{name}-again log"), &["delivery temporarily suspended: "]);
    }
    pair.show(
        "small log",
        &["dsn=5.3.4", "status=bounced (message size ", "exceeds size limit 300 of server "],
    );
    pair.show(
        "utf8 log",
        &["dsn=5.6.7", "status=bounced (SMTPUTF8 is required, but was not offered by host "],
    );
    pair.show("early log", &["dsn=5.3.4", "status=bounced (host ", "said: 552 5.3.4 enough"]);
    for name in ["second", "localhost", "brackets", "bare", "no-port"] {
        pair.show(&format!("{name} log"), &["status=sent"]);
    }
    let path = format!("DIR/{}", "long/".repeat(30));
    let stock = format!("CLIENT: warning: unix-domain name too long: {path}");
    let warning = |name: &str| {
        format!("CLIENT: warning: <{name}>: next hop unix:{path} cannot be used: Server configuration error")
    };
    let refused = "CLIENT: connect to 127.0.0.1[127.0.0.1]:PORT: Connection refused";
    let difference = |topic, stock, ours| Difference {
        topic,
        stock,
        ours,
        why: "a line of the log tells which mail it is about",
    };
    pair.agree_but(&[
        difference("warnings", &stock, ""),
        difference("long log", NOTHING, &warning("long")),
        difference("warnings", refused, ""),
        difference(
            "refused log",
            NOTHING,
            "CLIENT: <refused>: connect to 127.0.0.1[127.0.0.1]:PORT: Connection refused",
        ),
        difference(
            "second log",
            NOTHING,
            "CLIENT: <second>: connect to 127.0.0.1[127.0.0.1]:PORT: Connection refused",
        ),
    ]);
}
