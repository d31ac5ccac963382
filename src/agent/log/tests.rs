//! How lines look, and where they go.

use super::*;

/// What a line looks like behind date and host.
fn logged(target: &str, level: Level, text: &str) -> String {
    let filter = env_logger::Builder::new().parse_filters("info").build();
    let logger = AgentLog::new(Look::of_agent(&Config::default()), filter, usize::MAX);
    let record = |text| logger.log(&Record::builder().level(level).target(target).args(text).build());
    record(format_args!("{text}"));
    let mut taken = Vec::new();
    logger.lines.take(&mut taken);
    let line = String::from_utf8(taken).unwrap();
    line.split_once(" lastmile/").unwrap().1.to_owned()
}

#[test]
fn tags_are_postfix_s_and_a_line_stays_one_line() {
    let pid = std::process::id();
    for (target, level, text, line) in [
        (LMTP, Level::Info, "ID: to=<a@x>", format!("lmtp[{pid}]: ID: to=<a@x>\n")),
        (QMGR, Level::Info, "ID: removed", format!("qmgr[{pid}]: ID: removed\n")),
        ("lastmile::net", Level::Info, "a\nb", format!("agent[{pid}]: a?b\n")),
        ("lastmile::net", Level::Warn, "a\u{85}b\u{a9}", format!("agent[{pid}]: warning: a?b\u{a9}\n")),
        ("lastmile::net", Level::Error, "\u{7f}", format!("agent[{pid}]: error: ?\n")),
    ] {
        assert_eq!(logged(target, level, text), line);
    }
}

#[test]
fn what_logs_while_it_is_logged_logs_both() {
    struct Talks<'a>(&'a AgentLog);
    impl std::fmt::Display for Talks<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.log(&Record::builder().level(Level::Info).args(format_args!("inner")).build());
            f.write_str("outer")
        }
    }
    let filter = env_logger::Builder::new().parse_filters("info").build();
    let logger = AgentLog::new(Look::of_agent(&Config::default()), filter, usize::MAX);
    logger.log(&Record::builder().level(Level::Info).args(format_args!("{}", Talks(&logger))).build());
    let mut taken = Vec::new();
    logger.lines.take(&mut taken);
    let text = String::from_utf8(taken).unwrap();
    let ends: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(ends, ["inner", "outer"]);
}

fn mail_log(target: MailLogTarget) -> MailLog {
    let (syslog_name, process) = ("postfix".to_owned(), "lastmile-lmtp".to_owned());
    MailLog { syslog_name, process, target, to_stderr: false }
}

fn in_postlog() -> MailLog {
    mail_log(MailLogTarget::Postlog { socket: "postlog".into(), host: "mx.example.org".to_owned() })
}

/// Whole lines of a mail log.
fn mail_logged(log: &MailLog, records: &[(&str, Level, &str)]) -> Vec<String> {
    let filter = env_logger::Builder::new().parse_filters("warn").build();
    let logger = AgentLog::new(Look::of_mail_log(log), filter, MAIL_LOG_TEXT_MAX);
    for (target, level, text) in records {
        let log = |text| logger.log(&Record::builder().level(*level).target(target).args(text).build());
        log(format_args!("{text}"));
    }
    let mut taken = Vec::new();
    logger.lines.take(&mut taken);
    String::from_utf8(taken).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_mail_log_has_one_tag_and_postfix_s_severities() {
    let records = [
        (LMTP, Level::Warn, "w"),
        (QMGR, Level::Error, "e"),
        (FATAL, Level::Error, "f"),
        (PANIC, Level::Error, "p"),
    ];
    let pid = std::process::id();
    let texts = ["warning: w", "error: e", "fatal: f", "panic: p"];
    for (line, text) in mail_logged(&in_postlog(), &records).iter().zip(texts) {
        let (date, rest) = line.split_at("Nov 22 06:00:00 ".len());
        assert!(date.as_bytes()[4].is_ascii_digit() && date.ends_with(' '), "{line}");
        assert_eq!(rest, format!("mx postfix/lastmile-lmtp[{pid}]: {text}"));
    }
    let syslog = mail_log(MailLogTarget::Syslog("local3".parse().unwrap()));
    for ((line, text), severity) in mail_logged(&syslog, &records).iter().zip(texts).zip([4, 3, 2, 2]) {
        assert!(line.starts_with(&format!("<{}>", 19 * 8 + severity)), "{line}");
        assert!(line.ends_with(&format!(" postfix/lastmile-lmtp[{pid}]: {text}")), "{line}");
    }
}

#[test]
fn a_fatal_line_passes_every_filter() {
    let filter = env_logger::Builder::new().parse_filters("off").build();
    let logger = AgentLog::new(Look::of_mail_log(&in_postlog()), filter, MAIL_LOG_TEXT_MAX);
    for target in [LMTP, FATAL] {
        logger.log(&Record::builder().level(Level::Error).target(target).args(format_args!("x")).build());
    }
    let mut taken = Vec::new();
    logger.lines.take(&mut taken);
    assert_eq!(String::from_utf8(taken).unwrap().matches("]: ").count(), 1);
}

#[test]
fn a_long_text_is_cut_behind_its_severity_and_between_characters() {
    let long = "x".repeat(1999) + "é and more";
    let lines = mail_logged(&in_postlog(), &[(LMTP, Level::Warn, &long), (LMTP, Level::Warn, &long[1..])]);
    let text = |line: &str| line.split_once("]: warning: ").unwrap().1.to_owned();
    assert_eq!(text(&lines[0]), "x".repeat(1999));
    assert_eq!(text(&lines[1]), "x".repeat(1998) + "é");
}

#[test]
fn a_mail_log_that_is_opened_again_gets_what_comes_then_and_its_own_look() {
    let directory = tempfile::TempDir::new().unwrap();
    let server = |name: &str| {
        let socket = std::os::unix::net::UnixDatagram::bind(directory.path().join(name)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        socket
    };
    let heard = |server: &std::os::unix::net::UnixDatagram| {
        let mut octets = [0; 4096];
        let length = server.recv(&mut octets).unwrap();
        String::from_utf8_lossy(&octets[..length]).into_owned()
    };
    let log_at = |name: &str, syslog_name: &str| MailLog {
        target: MailLogTarget::Postlog { socket: directory.path().join(name), host: name.to_owned() },
        syslog_name: syslog_name.to_owned(),
        ..in_postlog()
    };
    let (first, second) = (server("first"), server("second"));
    let filter = env_logger::Builder::new().parse_filters("info").build();
    let (logger, open) = open_mail_log(&log_at("first", "postfix"), filter);
    write_in_a_thread(&open.lines, &open.target).unwrap();
    let log = |text| logger.log(&Record::builder().level(Level::Info).args(text).build());
    log(format_args!("one"));
    open.reopen(&log_at("second", "postfix-out"));
    log(format_args!("two"));
    logger.flush();
    for (server, tag, text) in [
        (&first, " first postfix/lastmile-lmtp[", "one"),
        (&second, " second postfix-out/lastmile-lmtp[", "two"),
    ] {
        let line = heard(server);
        assert!(line.contains(tag) && line.ends_with(&format!("]: {text}")), "{line}");
    }
}

#[test]
fn what_is_written_now_needs_no_log_thread() {
    let directory = tempfile::TempDir::new().unwrap();
    let socket = directory.path().join("postlog");
    let server = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    server.set_nonblocking(true).unwrap();
    let target = MailLogTarget::Postlog { socket, host: "mx".to_owned() };
    let filter = env_logger::Builder::new().parse_filters("info").build();
    let (logger, open) = open_mail_log(&MailLog { target, ..in_postlog() }, filter);
    for text in ["one", "two"] {
        logger.log(&Record::builder().level(Level::Info).args(format_args!("{text}")).build());
    }
    let mut octets = [0; 1000];
    assert!(server.recv(&mut octets).is_err(), "nobody has written it yet");
    open.write_now();
    for text in ["]: one", "]: two"] {
        let length = server.recv(&mut octets).unwrap();
        assert!(octets[..length].ends_with(text.as_bytes()), "{}", String::from_utf8_lossy(&octets));
    }
}

#[test]
fn a_panic_is_told_with_its_thread_and_place() {
    let (sender, told) = std::sync::mpsc::channel();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Other tests may be running, and failing, in this process.
        let _ = sender.send(words_of(info));
    }));
    let thread = std::thread::Builder::new().name("unlucky".to_owned());
    let result = thread.spawn(|| panic!("for a test: {}", 1 + 1)).unwrap().join();
    std::panic::set_hook(before);
    assert!(result.is_err());
    let expected = "for a test: 2 (thread unlucky at src/agent/log/tests.rs:";
    assert!(told.try_iter().any(|told| told.starts_with(expected)));
}
