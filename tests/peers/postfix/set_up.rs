//! The ways to set the service up: main.cf, master.cf, more than one server; and ways that it refuses.
//!
//! - Owns: IPv6 and lists of servers, fallback relays, `-o`, columns of master.cf, what stops the start.
//! - Leaves to others: what is said to servers (`wire`, `envelopes`), reload and stop under load (`life`).

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::{Duration, Instant};

use super::client::{Client, Difference, NOTHING, both, can_run, ours_takes_part};
use super::instance::{Place, Postfix, SERVICE, Settings};
use super::mail::submit;
use super::observation::{Observation, observe};
use super::server::{Answer, At, OFFERS_WITHOUT_BDAT, Server, Stage};

/// A port on which nobody listens, at both loopback addresses.
fn unused_port() -> u16 {
    (0..100)
        .find_map(|_| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
            let port = listener.local_addr().ok()?.port();
            TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok().map(|_| port)
        })
        .expect("there is one")
}

/// Lines about addresses that nobody listens at.
const FOUR: &str = "connect to 127.0.0.1[127.0.0.1]:PORT: Connection refused";
const SIX: &str = "connect to ::1[::1]:PORT: Connection refused";

/// These lines of the stock program's are about no message; ours are.
fn with_queue_ids<'a>(stock: &'a [String], ours: &'a [(String, String)]) -> Vec<Difference<'a>> {
    let why = "a line of the log tells which mail it is about";
    let gone = stock.iter().map(|stock| Difference { topic: "warnings", stock, ours: "", why });
    let told = ours.iter().map(|(topic, ours)| Difference { topic, stock: NOTHING, ours, why });
    gone.chain(told).collect()
}

#[test]
fn servers_have_addresses_of_both_families() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("skipped: this machine has no ::1");
        return;
    }
    let pair = both(|client| {
        let place = Place::new();
        let usual = |_: &At<'_>| Answer::Usual;
        let six = Server::listening(place.path(), Ipv6Addr::LOCALHOST.into(), &OFFERS_WITHOUT_BDAT, usual);
        let four = Server::offering(place.path(), &OFFERS_WITHOUT_BDAT, usual);
        let unused = unused_port();
        let main = "lmtp_host_lookup = native\nlmtp_address_preference = ipv6\n";
        let settings = Settings { both_families: true, ..Settings::main(main) };
        let settings = settings
            .route("six.example", format!("inet:[::1]:{}", six.port()))
            .route("list.example", format!("inet:[::1]:{unused}, 127.0.0.1:{}", four.port()))
            .route("localhost.example", format!("inet:localhost:{}", four.port()))
            .route("refused.example", format!("inet:[::1]:{unused}"))
            .route("all-refused.example", format!("inet:[::1]:{unused}, 127.0.0.1:{unused}"));
        let postfix = Postfix::start(&place, client, settings);
        for name in ["six", "list", "localhost", "refused", "all-refused"] {
            submit(&postfix, name, &[&format!("u@{name}.example")]);
            postfix.settle();
        }
        observe(&postfix, &[&six, &four])
    });
    let Some(pair) = pair else { return };
    pair.show("six log", &["relay=::1[::1]:PORT, ", "status=sent"]);
    pair.show("list log", &["relay=127.0.0.1[127.0.0.1]:PORT, ", "status=sent"]);
    pair.show("localhost log", &["relay=localhost[127.0.0.1]:PORT, ", "status=sent"]);
    pair.show("refused log", &["relay=none", "dsn=4.4.1", "connect to ::1[::1]:PORT: Connection refused"]);
    let stock = [SIX, FOUR].map(|text| format!("CLIENT: {text}"));
    let told = |name: &str, text: &str| (format!("{name} log"), format!("CLIENT: <{name}>: {text}"));
    let ours = [told("list", SIX), told("refused", SIX), told("all-refused", SIX), told("all-refused", FOUR)];
    pair.agree_but(&with_queue_ids(&stock, &ours));
}

#[test]
fn a_fallback_relay_takes_what_the_first_server_does_not() {
    let pair = both(|client| {
        let place = Place::new();
        let (first, relay) = (Server::obliging(place.path()), Server::obliging(place.path()));
        let main = format!("lmtp_host_lookup = native\nlmtp_fallback_relay = 127.0.0.1:{}\n", relay.port());
        let settings = Settings::main(&main)
            .route("first.example", first.inet())
            .route("refused.example", format!("inet:127.0.0.1:{}", unused_port()))
            .route("socket.example", format!("unix:{}/gone", place.path().display()));
        let postfix = Postfix::start(&place, client, settings);
        for name in ["first", "refused", "socket"] {
            submit(&postfix, name, &[&format!("u@{name}.example")]);
            postfix.settle();
        }
        let mut seen = observe(&postfix, &[&first, &relay]);
        seen.add("relayed", relay.heard().transactions.len());
        seen
    });
    let Some(pair) = pair else { return };
    pair.show("relayed", &["1"]);
    pair.show("refused log", &["status=sent"]);
    // A socket has no other server behind it.
    pair.show("socket log", &["dsn=4.4.1", "status=deferred"]);
    let stock = [format!("CLIENT: {FOUR}")];
    let ours = [("refused log".to_owned(), format!("CLIENT: <refused>: {FOUR}"))];
    let ignored = Difference {
        topic: "warnings",
        stock: "CLIENT: warning: ignoring \"lmtp_fallback_relay = 127.0.0.1:PORT\" setting for non-TCP connections",
        ours: "",
        why: "the manual says so, once",
    };
    pair.agree_but(&[with_queue_ids(&stock, &ours), vec![ignored]].concat());
}

/// `-o` in both forms, with blanks, and under another name in the log.
#[test]
fn options_in_master_cf_go_before_main_cf() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::obliging(place.path());
        let arguments = "-o { lmtp_lhlo_name = other.example } -o syslog_name=postfix-carry -v \
                         -o lmtp_send_xforward_command=no";
        let settings = Settings::main("lmtp_lhlo_name = main.example\nlmtp_send_xforward_command = yes\n")
            .arguments(arguments)
            .route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        submit(&postfix, "one", &["u@test.example"]);
        postfix.settle();
        let line = postfix.wait_for_line(&["to=<u@test.example>", "status=sent"]);
        let tag = line.split(' ').find(|word| word.starts_with("postfix")).unwrap_or_default();
        let mut seen = Observation::default();
        seen.add("name in the log", tag.split('/').next().unwrap_or_default());
        seen.add("lhlo", &server.heard().commands[0].line);
        seen
    });
    let Some(pair) = pair else { return };
    pair.show("name in the log", &["postfix-carry"]);
    pair.show("lhlo", &["LHLO other.example"]);
    pair.agree();
}

#[test]
fn a_peer_to_debug_is_listened_to_and_gets_its_mail() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::offering(place.path(), &OFFERS_WITHOUT_BDAT, |_| Answer::Usual);
        let settings = Settings::main("debug_peer_list = 127.0.0.1").route("test.example", server.inet());
        let postfix = Postfix::start(&place, client, settings);
        submit(&postfix, "one", &["u@test.example"]);
        postfix.settle();
        let log = postfix.log();
        let mut seen = Observation::default();
        for said in ["220 store.example LMTP", "LHLO mx.test.example", "250 2.1.5 u@test.example welcome"] {
            seen.add("told", format!("{said}: {}", log.contains(said)));
        }
        seen.add("sent", log.contains("status=sent"));
        seen
    });
    let Some(pair) = pair else { return };
    assert!(pair.ours.lines("told").iter().all(|line| line.ends_with(": true")), "{:?}", pair.ours.topics);
    pair.show("sent", &["true"]);
    pair.agree();
}

/// Lines of main.cf that are refused.
const REFUSED: &str = "lmtp_tls_security_level = dane\nlmtp_sasl_auth_enable = yes\n\
                       lmtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd\n\
                       lmtp_generic_maps = inline:{a@b=c@d}\n";

/// Arguments of the service, and what the log says of them and these lines.
const TOLD: [(&str, &[&str]); 3] = [
    ("", &["lmtp_tls_security_level", "say texthash:/etc/postfix/sasl_passwd, ", "lmtp_generic_maps"]),
    ("-Q", &["-Q"]),
    ("nonsense", &["nonsense"]),
];

#[test]
fn what_would_treat_mail_otherwise_stops_the_start_and_mail_waits() {
    if !can_run() || !ours_takes_part() {
        return;
    }
    let place = Place::new();
    let server = Server::obliging(place.path());
    let pace = "service_throttle_time = 1s\ntransport_retry_time = 1s\n";
    let settings = Settings::main(&format!("{pace}{REFUSED}")).route("test.example", server.unix());
    let mut postfix = Postfix::start(&place, Client::Ours, settings);
    for (arguments, told) in TOLD {
        postfix.change(|settings| settings.arguments = arguments.to_owned());
        postfix.reload();
        submit(&postfix, "waits", &["u@test.example"]);
        for words in told {
            let line = postfix.wait_for_line(&["postfix/lastmile-lmtp[", words]);
            assert!(line.contains("]: fatal: ") || line.contains("]: error: "), "{line}");
        }
    }
    postfix.wait_for_line(&["bad command startup"]);
    assert_eq!(server.heard().connections, 0);
    postfix.change(|settings| {
        settings.main = pace.to_owned();
        settings.arguments.clear();
    });
    postfix.reload();
    let mut last = Instant::now();
    postfix.wait_for("the mail that waited", || {
        if last.elapsed() > Duration::from_secs(1) {
            postfix.succeed("postqueue", &["-f"], b"");
            last = Instant::now();
        }
        (server.heard().transactions.len() >= TOLD.len()).then_some(())
    });
    postfix.settle();
    assert_eq!(server.heard().transactions.len(), TOLD.len());
    let log = postfix.log();
    // Connections of a queue manager that has gone with a reload are nothing to speak of.
    let warning = log.lines().find(|line| line.contains("lastmile-lmtp[") && line.contains("warning: "));
    assert_eq!(warning, None);
}

/// More processes than one are no use, and do no harm; nor does being woken up.
#[test]
fn columns_of_master_cf_that_are_not_as_advised_lose_and_double_nothing() {
    if !can_run() || !ours_takes_part() {
        return;
    }
    let place = Place::new();
    let server = Server::start(place.path(), |at| match at.stage {
        Stage::DataDone => Answer::After(Duration::from_millis(20)),
        _ => Answer::Usual,
    });
    let settings = Settings { processes: Some(5), wakeup: Some(1), ..Settings::main("max_idle = 2s") };
    let postfix = Postfix::start(&place, Client::Ours, settings.smtpd().route("test.example", server.unix()));
    postfix.flood(150, "many", "u@test.example");
    postfix.settle();
    let mut heard: Vec<_> = server.heard().transactions.into_iter().flat_map(|it| it.accepted).collect();
    let count = heard.len();
    heard.sort();
    heard.dedup();
    assert_eq!((count, heard.len()), (150, 150));
    // Between two calls of master's it may become idle, and end.
    std::thread::sleep(Duration::from_millis(2500));
    let log = postfix.log();
    for word in ["fatal:", "panic:", "error:", "killed by signal", "exit status"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

/// What an administrator sees of `postfix check` and `postfix reload`.
#[test]
fn postfix_finds_nothing_wrong_with_the_service() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::obliging(place.path());
        let settings = Settings::default().route("test.example", server.unix());
        let postfix = Postfix::start(&place, client, settings);
        let mut seen = Observation::default();
        for command in ["check", "reload", "status"] {
            let output = postfix.run("postfix", &[command], b"");
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let about_us = |line: &&str| ["lastmile", SERVICE].iter().any(|word| line.contains(word));
            seen.add(command, output.status.success());
            text.lines().filter(about_us).for_each(|line| seen.add(command, line));
        }
        submit(&postfix, "one", &["u@test.example"]);
        postfix.settle();
        observe(&postfix, &[&server]).join(seen)
    });
    let Some(pair) = pair else { return };
    pair.show("check", &["true"]);
    pair.show("one log", &["status=sent"]);
    pair.agree();
}
