//! Servers that cannot be reached, and conversations that break: every row of the local reasons that needs neither
//! DNS nor TLS.
//!
//! - Owns: where it breaks, what the recipients hear of it, whether the destination rests then.
//! - Leaves to others: refusals in good order (`answers`).

use super::client::{Client, both};
use super::instance::{Place, Postfix, Settings};
use super::mail::{message, submit, submit_with};
use super::observation::{Observation, observe};
use super::server::{Answer, At, OFFERS, Server, Stage, say};

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

/// Every fault with what servers offer; a second message tells whether the destination rests.
fn play(client: Client, offers: &[&str]) -> Observation {
    let place = Place::new();
    let servers: Vec<_> =
        FAULTS.iter().map(|(_, fault)| Server::offering(place.path(), offers, fault)).collect();
    let mut settings = Settings::main(AT_ONCE);
    for ((name, _), server) in FAULTS.iter().zip(&servers) {
        settings = settings.route(&format!("{name}.example"), server.inet());
    }
    let postfix = Postfix::start(&place, client, settings);
    for again in ["", "-again"] {
        for (name, _) in FAULTS {
            let recipients = ["alice", "zoe"].map(|user| format!("{user}@{name}.example"));
            submit(&postfix, &format!("{name}{again}"), &recipients.each_ref().map(String::as_str));
        }
        postfix.settle();
    }
    observe(&postfix, &servers.iter().collect::<Vec<_>>())
}

#[test]
fn a_conversation_that_breaks_defers() {
    let Some(pair) = both(|client| play(client, &OFFERS)) else { return };
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
    pair.agree();
}

#[test]
fn a_conversation_that_breaks_step_by_step_defers() {
    // Without PIPELINING each stage has an end of its own.
    let Some(pair) = both(|client| play(client, &["8BITMIME"])) else { return };
    pair.show("data-closed log", &["to=<alice@", "status=deferred", "while sending DATA command"]);
    pair.agree();
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
    pair.agree();
}
