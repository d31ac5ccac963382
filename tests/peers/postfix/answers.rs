//! What servers answer, and what becomes of each recipient.
//!
//! - Owns: answers to MAIL, RCPT, DATA and the content; what main.cf lets become of them.
//! - Leaves to others: conversations that break (`broken`).

use std::time::Duration;

use super::client::{Difference, EVERYTHING, NOTHING, both};
use super::instance::{Place, Postfix, Settings};
use super::mail::{message, submit, submit_with};
use super::observation::{Observation, observe};
use super::server::{Answer, At, OFFERS_WITHOUT_BDAT, Server, Stage, say};

/// A server whose answers go by the recipient's local part, and the sender's.
fn choosy(at: &At<'_>) -> Answer {
    let name = at.sender.split('@').next().unwrap_or_default();
    let name = name.strip_suffix(BDAT).unwrap_or(name);
    match (at.stage, at.user(), name) {
        (Stage::Mail, _, "mail-busy") => say("451 4.3.0 not now"),
        (Stage::Mail, _, "mail-refused") => say("550 5.7.1 not you"),
        (Stage::Mail, _, "mail-no-status") => say("554 no"),
        (Stage::Mail, _, "mail-syntax") => say("501 5.5.4 what?"),
        (Stage::Mail, _, "mail-wrong-class") => say("354 go on"),
        (Stage::Data, _, "data-syntax") => say("503 5.5.1 not yet"),
        (Stage::Rcpt, "syntax", _) => say("501 5.5.4 what?"),
        (Stage::Data, _, "data-busy") => say("451 4.3.0 not now"),
        (Stage::Data, _, "data-refused") => say("554 5.6.0 not that"),
        (Stage::Data, _, "data-wrong-class") => say("250 2.0.0 thanks"),
        (Stage::Rcpt, "busy", _) => say("450 4.2.1 mailbox busy"),
        (Stage::Rcpt, "nosuch", _) => say("550-5.1.1 no such user\n550 5.1.1 really not"),
        (Stage::Rcpt, "bare", _) => say("550 no status at all"),
        (Stage::Rcpt, "other-class", _) => say("550 4.1.1 a status of another class"),
        (Stage::Rcpt, "odd-status", _) => say("450 4.1234.1 no status"),
        (Stage::Rcpt, "wrong-class", _) => say("354 go on"),
        (Stage::Rcpt, "unprintable", _) => Answer::Say("550 5.1.1 a\u{1}b\tc é".to_owned()),
        (Stage::Rcpt, "long", _) => Answer::Say(format!("450 4.2.0 {}", "long ".repeat(300))),
        (Stage::Rcpt, "many-lines", _) => {
            let lines: String = (0..20).map(|line| format!("450-4.2.0 line {line}\n")).collect();
            Answer::Say(format!("{lines}450 4.2.0 the last"))
        }
        (Stage::DataDone, "later", _) => say("452 4.2.2 over quota for now"),
        (Stage::DataDone, "full", _) => say("552 5.2.2 over quota for good"),
        (Stage::DataDone, "other-sent", _) => say("250 5.0.0 a status of another class"),
        (Stage::DataDone, "lines", _) => say("250-2.0.0 stored\n250 2.6.0 for good"),
        _ => Answer::Usual,
    }
}

/// Postfix's own waits for the answer to a QUIT that it has not said where it has decided to give up a connection that
/// it meant to keep.
const QUIT: &str = "lmtp_quit_timeout = 1s\n";

/// At the end of the names of messages that go to a server with CHUNKING.
const BDAT: &str = "-bdat";

/// What is submitted: a name, which the sender has, and recipients.
const MIXES: [(&str, &[&str]); 14] = [
    ("one", &["alice"]),
    ("at-rcpt", &["busy", "alice", "nosuch"]),
    ("at-end", &["later", "alice", "full"]),
    ("both-ends", &["busy", "later", "alice", "full", "nosuch"]),
    ("nobody", &["busy", "nosuch"]),
    ("nobody-ever", &["nosuch", "bare"]),
    ("statuses", &["bare", "other-class", "odd-status", "unprintable", "other-sent", "alice"]),
    ("texts", &["long", "many-lines", "lines"]),
    ("mail-busy", &["alice", "bob"]),
    ("mail-refused", &["alice", "bob"]),
    ("mail-no-status", &["alice"]),
    ("mail-syntax", &["alice"]),
    ("data-busy", &["alice", "nosuch", "busy"]),
    ("data-refused", &["alice", "nosuch", "busy"]),
];

/// Submits one of them.
fn submit_mix(postfix: &Postfix<'_>, name: &str, users: &[&str], domain: &str) {
    let recipients: Vec<_> = users.iter().map(|user| format!("{user}@{domain}")).collect();
    submit(postfix, name, &recipients.iter().map(String::as_str).collect::<Vec<_>>());
}

/// A server that hears DATA, and one that hears BDAT where there is a client for it.
fn both_servers(place: &Place) -> [Server; 2] {
    [Server::offering(place.path(), &OFFERS_WITHOUT_BDAT, choosy), Server::start(place.path(), choosy)]
}

fn both_routes(settings: Settings, [data, bdat]: &[Server; 2]) -> Settings {
    settings.route("test.example", data.unix()).route("bdat.example", bdat.unix())
}

/// Submits all of them, to both servers. An answer to DATA is nothing that BDAT would ask for.
fn submit_mixes(postfix: &Postfix<'_>) {
    for (name, users) in MIXES {
        submit_mix(postfix, name, users, "test.example");
        if !name.starts_with("data-") {
            submit_mix(postfix, &format!("{name}{BDAT}"), users, "bdat.example");
        }
    }
}

/// A reply may end with blanks.
const BLANKS: Difference<'_> = Difference {
    topic: "texts*",
    stock: "long  (in reply",
    ours: "long (in reply",
    why: "blanks at the end of a reply say nothing",
};

/// What pflogsumm makes of the log.
#[track_caller]
fn totals(postfix: &Postfix<'_>) -> Vec<String> {
    let log = postfix.path().join("log");
    let output = std::process::Command::new("pflogsumm").arg("--verbose-msg-detail").arg(log).output();
    let output = output.expect("pflogsumm is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    // By hour of the day, and delays: these are times.
    let is_time =
        |line: &&str| line.contains(':') || line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let (front, _) = text.split_once("Per-Hour").unwrap_or((&text, ""));
    assert!(front.contains("delivered"), "{text}");
    let lines = front.lines().filter(|line| is_time(line)).map(|line| line.trim().to_owned());
    lines.filter(|line| !line.contains("bytes")).collect()
}

#[test]
fn each_recipient_has_an_outcome_of_its_own() {
    let pair = both(|client| {
        let place = Place::new();
        let servers = both_servers(&place);
        let postfix = Postfix::start(&place, client, both_routes(Settings::main(QUIT), &servers));
        submit_mixes(&postfix);
        postfix.settle();
        let mut seen = observe(&postfix, &servers.each_ref());
        for line in totals(&postfix) {
            seen.add("totals", line);
        }
        seen
    });
    let Some(pair) = pair else { return };
    pair.show("at-rcpt log", &["to=<alice@test.example>", "dsn=2.0.0", "status=sent (250 2.0.0 "]);
    pair.show(
        "at-rcpt log",
        &["to=<busy@test.example>", "dsn=4.2.1", "status=deferred (host mx.test.example[DIR/"],
    );
    pair.show(
        "at-rcpt log",
        &["to=<nosuch@test.example>", "dsn=5.1.1", "said: 550-5.1.1 no such user 550 5.1.1 really"],
    );
    pair.show("at-rcpt queue", &["done_recipient: nosuch@test.example"]);
    pair.show("at-rcpt mailq", &["450 4.2.1 mailbox busy"]);
    pair.show("at-rcpt notices", &["Final-Recipient: rfc822; nosuch@test.example"]);
    pair.show("at-end queue", &["done_recipient: full@test.example"]);
    pair.show("statuses log", &["to=<other-class@test.example>", "dsn=5.0.0", "status=bounced"]);
    pair.show("statuses log", &["to=<odd-status@test.example>", "dsn=4.0.0", "status=deferred"]);
    pair.show("mail-refused log", &["to=<bob@test.example>", "(in reply to MAIL FROM command)"]);
    pair.show("data-busy log", &["to=<alice@test.example>", "(in reply to DATA command)"]);
    // What is taken, put off and returned, as the report's first lines count it.
    for total in ["26   received", "14   delivered", "16   deferred  (23  deferrals)", "31   bounced"] {
        pair.show("totals", &[total]);
    }
    pair.agree_but(&[BLANKS]);
}

#[test]
fn main_cf_turns_outcomes_into_others() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::start(place.path(), choosy);
        let filter = place.path().join("filter");
        // A refusal to be tried again, a deferral for good, and other words for a success.
        let table = "/^5\\.1\\.1 .*really not/ 4.1.1 may come back\n/^4\\.2\\.1 / 5.2.1 busy for good\n\
                     /^2\\.0\\.0 .*alice/ 2.3.4 filtered\n/^2\\.0\\.0 .*bob/ 5.3.4 not allowed\n";
        std::fs::write(&filter, table).unwrap();
        let main = format!("lmtp_delivery_status_filter = proxy:regexp:{}", filter.display());
        let settings = Settings::main(&main).route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        submit(&postfix, "filtered", &["alice@test.example", "bob@test.example"]);
        submit(&postfix, "turned", &["busy@test.example", "nosuch@test.example", "full@test.example"]);
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("filtered log", &["to=<alice@test.example>", "dsn=2.3.4", "status=sent (filtered)"]);
    pair.show("turned log", &["to=<busy@test.example>", "dsn=5.2.1", "status=bounced (busy for good)"]);
    pair.show("turned log", &["to=<nosuch@test.example>", "dsn=4.1.1", "status=deferred (may come back)"]);
    pair.show("turned log", &["to=<full@test.example>", "dsn=5.2.2", "status=bounced"]);
    let why = "who reads the warning learns which mail it is about, and what has become of it";
    pair.agree_but(&[
        Difference {
            topic: "warnings",
            stock: "CLIENT: warning: smtp_delivery_status_filter: bad status code: 5.3.4 not allowed",
            ours: "",
            why,
        },
        Difference {
            topic: "filtered log",
            stock: "postfix/cleanup: <filtered>: ",
            ours: "CLIENT: warning: <filtered>: bad status code in the delivery status filter: 5.3.4 not allowed; the \
                   status stays as it was\npostfix/cleanup: <filtered>: ",
            why,
        },
    ]);
}

#[test]
fn soft_bounce_lets_nothing_return() {
    let pair = both(|client| {
        let place = Place::new();
        let servers = both_servers(&place);
        let settings = both_routes(Settings::main(&format!("{QUIT}soft_bounce = yes")), &servers);
        let postfix = Postfix::start(&place, client, settings);
        submit_mixes(&postfix);
        postfix.settle();
        assert!(postfix.notices().heard().transactions.is_empty(), "soft_bounce lets nothing return");
        observe(&postfix, &servers.each_ref())
    });
    let Some(pair) = pair else { return };
    pair.show("at-rcpt log", &["to=<nosuch@test.example>", "dsn=4.1.1", "status=SOFTBOUNCE (host "]);
    pair.show("at-rcpt mailq", &["550-5.1.1 no such user"]);
    pair.agree_but(&[BLANKS]);
}

/// Answers that fit no command: where a client and a server are out of step nobody knows what an answer is about.
#[test]
fn a_server_that_is_out_of_step_is_no_reason_to_return_mail() {
    let pair = both(|client| {
        let place = Place::new();
        let servers = both_servers(&place);
        let postfix = Postfix::start(&place, client, both_routes(Settings::main(QUIT), &servers));
        for (name, users) in [
            ("mail-wrong-class", &["alice"][..]),
            ("rcpt-wrong-class", &["alice", "wrong-class"]),
            ("data-wrong-class", &["alice", "nosuch"]),
        ] {
            submit_mix(&postfix, name, users, "test.example");
            postfix.settle();
        }
        let topics = observe(&postfix, &[]).topics.into_iter().filter(|(topic, _)| topic.ends_with(" log"));
        // What follows from the outcomes is no news.
        let of_client = |lines: Vec<String>| lines.into_iter().filter(|line| line.starts_with("CLIENT: "));
        Observation { topics: topics.map(|(topic, lines)| (topic, of_client(lines).collect())).collect() }
    });
    let Some(pair) = pair else { return };
    let why =
        "where client and server are out of step nobody knows what an answer is about: mail is not returned";
    let error = |stage: &str, reply: &str| {
        format!(
            "protocol error of mx.test.example[DIR/server-1.sock] while sending {stage}: the server answered \
             \"{reply}\", which does not fit the command"
        )
    };
    let deferred = |stage, reply| format!("dsn=4.5.0, status=deferred ({})", error(stage, reply));
    let bounced = |before: &str, reply: &str, command: &str| {
        format!(
            "dsn=5.5.0, status=bounced ({before}host mx.test.example[DIR/server-1.sock] said: {reply} (in reply to \
             {command} command))"
        )
    };
    let difference = |topic, stock, ours| Difference { topic, stock, ours, why };
    let stepwise = format!(
        "{}\nCLIENT: <mail-wrong-class>: {}; lmtp:unix:DIR/server-1.sock is spoken to without pipelining for an hour",
        deferred("MAIL FROM", "354 go on"),
        error("MAIL FROM", "354 go on"),
    );
    pair.agree_but(&[
        difference("mail-wrong-class log", &bounced("", "354 go on", "MAIL FROM"), &stepwise),
        difference(
            "rcpt-wrong-class log",
            &bounced("", "354 go on", "RCPT TO"),
            &deferred("RCPT TO", "354 go on"),
        ),
        // Whoever has been asked for before waits with the others.
        difference(
            "rcpt-wrong-class log",
            "dsn=2.0.0, status=sent (250 2.0.0 alice@test.example stored)",
            &deferred("RCPT TO", "354 go on"),
        ),
        difference(
            "data-wrong-class log",
            &bounced("Protocol error: ", "250 2.0.0 thanks", "DATA"),
            &deferred("DATA command", "250 2.0.0 thanks"),
        ),
    ]);
}

/// A server takes three recipients at a time and says so.
#[test]
fn too_many_recipients_are_not_told_to_come_back_later() {
    let pair = both(|client| {
        let place = Place::new();
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(place.path(), move |at| match at.stage {
            Stage::Mail => {
                taken.store(0, std::sync::atomic::Ordering::SeqCst);
                Answer::Usual
            }
            Stage::Rcpt if taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 3 => {
                say("452 4.5.3 too many recipients")
            }
            _ => Answer::Usual,
        });
        let postfix =
            Postfix::start(&place, client, Settings::default().route("test.example", server.unix()));
        let recipients: Vec<_> = (0..5).map(|number| format!("u{number}@test.example")).collect();
        submit(&postfix, "five", &recipients.iter().map(String::as_str).collect::<Vec<_>>());
        postfix.settle();
        // How many transactions it takes is seen by who got it.
        let mut seen = observe(&postfix, &[]);
        for transaction in server.heard().transactions {
            seen.add("taken", transaction.accepted.join(" "));
        }
        seen
    });
    let Some(pair) = pair else { return };
    pair.stock.shows("five log", &["to=<u4@test.example>", "dsn=4.5.3", "status=deferred"]);
    let why =
        "who did not fit into one transaction goes with the next, at once (RFC 5321 section 4.5.3.1.10)";
    let difference = |topic, stock, ours| Difference { topic, stock, ours, why };
    let refused = |user: &str| {
        format!(
            "to=<{user}@test.example>, relay=mx.test.example[DIR/server-1.sock], delay=T, delays=T, dsn=4.5.3, \
             status=deferred (host mx.test.example[DIR/server-1.sock] said: 452 4.5.3 too many recipients (in reply to \
             RCPT TO command))"
        )
    };
    let taken = |user: &str| {
        format!(
            "to=<{user}@test.example>, relay=mx.test.example[DIR/server-1.sock], delay=T, delays=T, dsn=2.0.0, \
             status=sent (250 2.0.0 {user}@test.example stored)"
        )
    };
    pair.agree_but(&[
        difference("taken", "u2@test.example", "u2@test.example\nu3@test.example u4@test.example"),
        difference("five log", &refused("u3"), &taken("u3")),
        difference("five log", &refused("u4"), &format!("{}\npostfix/qmgr: <five>: removed", taken("u4"))),
        difference("five queue", EVERYTHING, ""),
        difference("five mailq", EVERYTHING, ""),
    ]);
}

/// A transcript of what went wrong goes to the postmaster who wants it.
#[test]
fn the_postmaster_reads_what_was_said() {
    let pair = both(|client| {
        let place = Place::new();
        // A connection that is kept would show what was said of the mail before, too.
        let servers = [(); 3].map(|()| Server::offering(place.path(), &OFFERS_WITHOUT_BDAT, choosy));
        let main = "notify_classes = protocol, data\nerror_notice_recipient = postmaster@sender.example\n";
        let settings = Settings::main(&format!("{QUIT}{main}"))
            .route("mail.example", servers[0].unix())
            .route("data.example", servers[1].unix())
            .route("test.example", servers[2].unix());
        let postfix = Postfix::start(&place, client, settings);
        submit(&postfix, "mail-syntax", &["alice@mail.example"]);
        submit(&postfix, "data-syntax", &["alice@data.example"]);
        // Refusals that are no fault of anybody's are of no interest.
        submit(&postfix, "one", &["alice@test.example", "nosuch@test.example"]);
        postfix.sendmail(&["-i", "-f", "", "syntax@test.example"], b"Subject: null\n\ntext\n");
        postfix.settle();
        let mut seen = observe(&postfix, &[]);
        // The words around it are each program's own.
        let notices = seen.topics.remove("postmaster notices").unwrap_or_default();
        let fields = ["MAIL FROM:", "From: Mail", "To: ", "Subject: ", "In: ", "Out: "];
        // How Postfix's own ends a connection depends on what else waits; ours ends it, or not, after the notice.
        let ends = ["Out: RSET", "In:  250 2.0.0 ok", "Out: QUIT", "In:  221 2.0.0 bye"];
        for line in notices.iter().map(|line| line.trim_start()) {
            if fields.iter().any(|field| line.starts_with(field)) && !ends.contains(&line) {
                seen.add("postmaster", line);
            }
        }
        seen
    });
    let Some(pair) = pair else { return };
    pair.show("postmaster", &["Subject: Postfix LMTP client: errors from mx.test.example[DIR/"]);
    pair.show("postmaster", &["In:  501 5.5.4 what?"]);
    pair.show("postmaster", &["Out: MAIL FROM:<mail-syntax@sender.example>"]);
    let told = |topic, ours| Difference {
        topic,
        stock: NOTHING,
        ours,
        why: "whoever reads the log finds the notice, and whoever has the notice the mail",
    };
    pair.agree_but(&[
        told("mail-syntax log", "CLIENT: <mail-syntax>: postmaster notification: <notice>"),
        told("data-syntax log", "CLIENT: <data-syntax>: postmaster notification: <notice>"),
    ]);
}

/// The server is busy until the mail is late, and then no more.
#[test]
fn a_late_delivery_clears_the_notice_of_its_delay() {
    let pair = both(|client| {
        let place = Place::new();
        let is_busy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let asked = std::sync::Arc::clone(&is_busy);
        let server = Server::start(place.path(), move |at| match at.stage {
            Stage::Rcpt if asked.load(std::sync::atomic::Ordering::SeqCst) => say("450 4.2.1 busy"),
            _ => Answer::Usual,
        });
        let main = "delay_warning_time = 1s\nconfirm_delay_cleared = yes\n";
        let postfix =
            Postfix::start(&place, client, Settings::main(main).route("test.example", server.unix()));
        submit(&postfix, "late", &["alice@test.example"]);
        submit_with(
            &postfix,
            "late-never",
            &["-N", "never"],
            &["alice@test.example"],
            &message("late-never"),
        );
        postfix.settle();
        // Late is what is older than a second at an attempt.
        std::thread::sleep(Duration::from_millis(1500));
        postfix.succeed("postqueue", &["-f"], b"");
        postfix.wait_for_line(&["sender delay notification"]);
        postfix.settle();
        is_busy.store(false, std::sync::atomic::Ordering::SeqCst);
        postfix.succeed("postqueue", &["-f"], b"");
        postfix.wait_for_lines(2, &["to=<alice@test.example>", "status=sent"]);
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("late notices", &["Action: delayed"]);
    pair.show("late notices", &["Subject: Successful Mail Delivery Report"]);
    pair.agree();
}

/// The program for ESMTP, to servers that need no look-up of mail exchangers.
#[test]
fn esmtp_has_one_answer_for_all() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::start(place.path(), choosy);
        let nexthop = format!("[127.0.0.1]:{}", server.port());
        let settings = Settings { esmtp: true, ..Settings::main("smtp_quit_timeout = 1s") };
        let postfix = Postfix::start(&place, client, settings.route("test.example", nexthop));
        for (name, users) in [
            ("one", &["alice"][..]),
            ("two", &["alice", "bob"]),
            ("at-rcpt", &["busy", "alice", "nosuch"]),
            ("at-end", &["full", "later", "zoe"]),
            ("later", &["later"]),
            ("nobody", &["busy", "nosuch"]),
        ] {
            let recipients: Vec<_> = users.iter().map(|user| format!("{user}@test.example")).collect();
            submit(&postfix, name, &recipients.iter().map(String::as_str).collect::<Vec<_>>());
        }
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("lhlo", &["EHLO mx.test.example"]);
    pair.show("two log", &["to=<bob@test.example>", "status=sent (250 2.0.0 alice@test.example stored)"]);
    pair.show(
        "at-end log",
        &["to=<zoe@test.example>", "status=bounced", "(in reply to end of DATA command)"],
    );
    pair.agree();
}

/// The seconds in a log line: the whole delay, and its four parts.
fn delays(line: &str) -> (f64, Vec<f64>) {
    let after = |word: &str| line.split_once(word).unwrap().1.split(',').next().unwrap().to_owned();
    let parts = after(" delays=").split('/').map(|part| part.parse().unwrap()).collect();
    (after(" delay=").parse().unwrap(), parts)
}

/// Before the queue manager had it, waiting for us, connecting, transmitting: other lines mask these.
#[test]
fn delays_tell_where_the_time_went() {
    const WAIT: Duration = Duration::from_millis(600);
    let pair = both(|client| {
        let place = Place::new();
        let slow = |stage| {
            Server::start(
                place.path(),
                move |at| if at.stage == stage { Answer::After(WAIT) } else { Answer::Usual },
            )
        };
        let (greeting, end) = (slow(Stage::Greeting), slow(Stage::DataDone));
        let settings = Settings::default()
            .route("greeting.example", greeting.inet())
            .route("end.example", end.unix())
            .route("gone.example", format!("unix:{}/gone", place.path().display()));
        let postfix = Postfix::start(&place, client, settings);
        let mut seen = Observation::default();
        for name in ["greeting", "end", "gone"] {
            submit(&postfix, name, &[&format!("u@{name}.example")]);
            let line = postfix.wait_for_line(&[&format!("to=<u@{name}.example>, ")]);
            let (whole, parts) = delays(&line);
            let sum: f64 = parts.iter().sum();
            assert!(parts.len() == 4 && (whole - sum).abs() < 0.05 + whole / 10.0, "{line}");
            let is_long: Vec<_> = parts[2..].iter().map(|part| *part >= 0.6).collect();
            seen.add(name, format!("connecting, transmitting: {is_long:?}"));
        }
        postfix.settle();
        seen
    });
    let Some(pair) = pair else { return };
    pair.show("greeting", &["[true, false]"]);
    pair.show("end", &["[false, true]"]);
    pair.show("gone", &["[false, false]"]);
    pair.agree();
}
