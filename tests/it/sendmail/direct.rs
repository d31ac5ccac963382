//! Delivery at once, as `smtpc` and as `lastmile sendmail`, to our own sink.
//!
//! - Owns: what the caller hears and what arrives; exit codes; addresses, content and options on their way.
//! - Leaves to others: servers that are slow or gone, and signals (`trouble`); real servers (`peers`).
//! - Always true: the command runs as a process of its own, with nothing in its environment but a configuration.

mod served;
mod trouble;

use lastmile::mail::Protocol;
use lastmile::sink::{Extension, Listen};

use crate::common::agent::run;

use served::{Heard, Place, Served};

const MESSAGE: &[u8] = b"Subject: hi\n\nbody\n";

/// Both ways to call it.
const NAMES: [&str; 2] = ["smtpc", "sendmail"];

#[test]
fn each_recipient_has_a_line_and_refusals_keep_nobody_else_from_the_mail() {
    let script =
        "rcpt bob@y 550 5.1.1 no such user\nrcpt late@y 450 4.2.1 busy\ndata-done carol@y 452 4.2.2 full";
    for (name, code) in [("smtpc", 253), ("sendmail", 75)] {
        let server = Served::by(script);
        let heard = server.lmtp(name, &["bob@y", "ann@y", "late@y", "carol@y", "dora@y"], MESSAGE);
        assert_eq!((heard.code, heard.stdout.as_str()), (Some(code), ""), "{}", heard.stderr);
        assert_eq!(heard.stderr.lines().count(), 5, "{}", heard.stderr);
        let relay = format!("relay=localhost[{}], delay=", server.place.socket());
        for (address, end) in [
            ("ann@y", "dsn=2.0.0, status=sent (250 2.0.0 <ann@y> stored)"),
            ("bob@y", "550 5.1.1 no such user (in reply to RCPT TO command))"),
            ("carol@y", "452 4.2.2 full (in reply to end of DATA command))"),
            ("late@y", "450 4.2.1 busy (in reply to RCPT TO command))"),
            ("dora@y", "status=sent (250 2.0.0 <dora@y> stored)"),
        ] {
            let line = heard.of(address);
            assert!(line.contains(&relay) && line.ends_with(end), "{line}");
            let stored = if end.contains("status=sent") { &["Subject: hi\r\n\r\nbody\r\n"][..] } else { &[] };
            assert_eq!(server.mail_of(address), stored, "{address}");
        }
        let counts = server.sink.stop();
        assert_eq!((counts.connections, counts.transactions), (1, 1));
    }
}

#[test]
fn exit_codes_tell_what_the_server_did() {
    // Only where nothing else can come.
    let patience = |script: &str| match script {
        "greeting silence" | "greeting partial 220 al" => "[transport.lmtp]\nlhlo_timeout = \"1s\"\n",
        "data-done silence" => "[transport.lmtp]\ndata_done_timeout = \"1s\"\n",
        _ => "",
    };
    let doubt = "while sending end of data -- message may be sent more than once)";
    for (script, smtpc, sendmail, words) in [
        ("", 0, 0, "status=sent (250 2.0.0 "),
        ("rcpt 550 5.1.1 no", 253, 67, "dsn=5.1.1, status=bounced (host "),
        ("rcpt 550 5.1.2 no", 253, 68, "dsn=5.1.2"),
        ("rcpt 550 no", 253, 69, "dsn=5.0.0"),
        ("rcpt 450 4.2.1 no", 253, 75, "dsn=4.2.1, status=deferred (host "),
        ("rcpt 421 4.3.2 no", 253, 75, "421 4.3.2 no (in reply to RCPT TO command)"),
        ("greeting 554 5.7.1 no", 253, 75, "refused to talk to me: 554 5.7.1 no)"),
        ("greeting 421 4.3.2 no", 253, 75, "refused to talk to me: 421 4.3.2 no)"),
        ("lhlo 550 5.5.1 no", 253, 75, "refused to talk to me: 550 5.5.1 no)"),
        ("mail 550 5.7.1 no", 253, 77, "550 5.7.1 no (in reply to MAIL FROM command)"),
        ("data-done 554 5.6.0 no", 253, 65, "554 5.6.0 no (in reply to end of DATA command)"),
        ("data-done 552 5.2.2 full", 253, 69, "552 5.2.2 full (in reply to end of DATA command)"),
        ("greeting garbage", 254, 75, "while receiving the initial server greeting: the server sent \"?!"),
        ("lhlo garbage", 254, 75, "while performing the LHLO handshake: the server sent"),
        ("rcpt garbage", 254, 75, "protocol error of "),
        ("rcpt 354 odd", 254, 75, "the server answered \"354 odd\", which does not fit the command"),
        ("data-done garbage", 254, 75, "-- message may be sent more than once: the server sent"),
        ("greeting close", 255, 75, "lost connection with "),
        ("greeting silence", 255, 75, "timed out while receiving the initial server greeting)"),
        ("mail close", 255, 75, "lost connection with "),
        ("greeting partial 220 al", 255, 75, "timed out while receiving the initial server greeting)"),
        ("data-done close", 255, 75, doubt),
        ("data-done silence", 255, 75, doubt),
        ("data-done 421 4.3.2 bye", 253, 75, "421 4.3.2 bye (in reply to end of DATA command)"),
    ] {
        for (name, code) in [("smtpc", smtpc), ("sendmail", sendmail)] {
            let server = Served::with(patience(script), script, |_| {});
            let heard = server.lmtp(name, &["b@y"], MESSAGE);
            assert_eq!(heard.code, Some(code), "{name}: {script}: {}", heard.stderr);
            assert!(heard.of("b@y").contains(words), "{name}: {script}: {}", heard.stderr);
            assert_eq!(heard.stderr.lines().count(), 1, "{name}: {script}: {}", heard.stderr);
        }
    }
}

#[test]
fn a_reply_settles_its_recipient_and_no_other() {
    for (name, code) in [("smtpc", 255), ("sendmail", 75)] {
        let server = Served::by("data-done carol@y close");
        let heard = server.lmtp(name, &["ann@y", "bob@y", "carol@y", "dora@y"], MESSAGE);
        assert_eq!(heard.code, Some(code), "{}", heard.stderr);
        for address in ["ann@y", "bob@y"] {
            let line = heard.of(address);
            assert!(line.ends_with(&format!("status=sent (250 2.0.0 <{address}> stored)")), "{line}");
        }
        for address in ["carol@y", "dora@y"] {
            let line = heard.of(address);
            assert!(line.ends_with("-- message may be sent more than once)"), "{line}");
        }
    }
    // Of the first the server speaks; of the other nobody knows.
    let server = Served::by("data-done ann@y 421 4.3.2 bye");
    let heard = server.lmtp("sendmail", &["ann@y", "bob@y"], MESSAGE);
    assert_eq!(heard.code, Some(75), "{}", heard.stderr);
    let said = "said: 421 4.3.2 bye (in reply to end of DATA command)";
    assert!(heard.of("ann@y").ends_with(&format!("{said})")), "{}", heard.stderr);
    let in_doubt = format!("{said} -- message may be sent more than once)");
    assert!(heard.of("bob@y").ends_with(&in_doubt), "{}", heard.stderr);
}

#[test]
fn servers_are_paths_hosts_and_addresses() {
    let server = Served::with("", "", |sink| {
        sink.listen.extend(["inet:127.0.0.1:0".parse().unwrap(), "inet:[::1]:0".parse().unwrap()]);
    });
    let port = |at: usize| match &server.sink.addresses()[at] {
        Listen::Tcp(address) => address.port(),
        Listen::Unix(path) => panic!("{}", path.display()),
    };
    let (four, six, socket) = (port(1), port(2), server.place.socket());
    let missing = server.place.path("missing").display().to_string();
    for (written, relay) in [
        (format!("unix:{socket}"), format!("localhost[{socket}]")),
        (format!("127.0.0.1:{four}"), format!("127.0.0.1[127.0.0.1]:{four}")),
        (format!("[127.0.0.1]:{four}"), format!("127.0.0.1[127.0.0.1]:{four}")),
        (format!("inet:[::1]:{six}"), format!("::1[::1]:{six}")),
        (format!("[::1]:{six}"), format!("::1[::1]:{six}")),
        (format!("[IPv6:::1]:{six}"), format!("::1[::1]:{six}")),
        (format!("{missing}, {socket}"), format!("localhost[{socket}]")),
    ] {
        for name in NAMES {
            let option = format!("--lmtp={written}");
            let heard = server.place.call(name, &[&option, "-f", "a@x", "b@y"], MESSAGE);
            assert_eq!(heard.code, Some(0), "{written}: {}", heard.stderr);
            assert!(heard.of("b@y").contains(&format!(" relay={relay}, ")), "{written}: {}", heard.stderr);
        }
    }
    let count = server.sink.counts().connections;
    for written in ["::1", "run/lmtp", "lmtp:/run/lmtp", "mx:0", "mx:smtp", "", " ", "smtp:mx:24"] {
        for name in NAMES {
            let heard = server.place.call(name, &["--lmtp", written, "-f", "a@x", "b@y"], MESSAGE);
            assert_eq!(heard.code, Some(64), "{written}: {}", heard.stderr);
            let start = format!("{name}: the message was not sent: option --lmtp");
            assert!(
                heard.stderr.starts_with(&start) && heard.stderr.lines().count() == 1,
                "{}",
                heard.stderr
            );
        }
    }
    assert_eq!(server.sink.counts().connections, count);
}

#[test]
fn the_ports_are_those_of_the_protocols() {
    // Nobody who runs tests has anything there.
    let place = Place::new("[transport.lmtp]\ntcp_port = 7\n[transport.smtp]\ntcp_port = 9\n");
    for (option, port) in [("--lmtp", 7), ("--esmtp", 9)] {
        let heard = place.call("smtpc", &[option, "127.0.0.1", "-f", "a@x", "b@y"], MESSAGE);
        let end = format!("status=deferred (connect to 127.0.0.1[127.0.0.1]:{port}: Connection refused)");
        assert!(heard.of("b@y").ends_with(&end), "{}", heard.stderr);
    }
}

#[test]
fn the_option_says_what_is_spoken_whatever_the_transport_of_that_name_speaks() {
    let server = Served::with("[transport.lmtp]\nprotocol = \"smtp\"\n", "", |_| {});
    let heard = server.lmtp("smtpc", &["--dump", "b@y"], MESSAGE);
    assert_eq!(heard.code, Some(0), "{}", heard.stderr);
    assert!(heard.stderr.contains("C: LHLO localhost\n"), "{}", heard.stderr);
}

#[test]
fn esmtp_has_one_answer_for_all_whom_it_has_accepted() {
    for (script, smtpc, sendmail, word) in [
        ("rcpt bob@* 550 5.1.1 no", 253, 67, "sent"),
        ("rcpt bob@* 550 5.1.1 no\ndata-done 451 4.3.0 no", 253, 75, "deferred"),
    ] {
        for (name, code) in [("smtpc", smtpc), ("sendmail", sendmail)] {
            let server = Served::with("", script, |sink| sink.protocol = Protocol::Smtp);
            let (socket, dump) = (server.place.socket(), "--dump");
            let args = ["--esmtp", &socket, dump, "-f", "a@x", "ann@y", "bob@y", "carol@y"];
            let heard = server.place.call(name, &args, MESSAGE);
            assert_eq!(heard.code, Some(code), "{}", heard.stderr);
            assert!(heard.stderr.contains("\nC: EHLO localhost\n"), "{}", heard.stderr);
            for address in ["ann@y", "carol@y"] {
                assert!(heard.of(address).contains(&format!("status={word} (")), "{}", heard.stderr);
            }
        }
    }
}

#[test]
fn content_goes_out_unaltered() {
    let text = "From mailer Sat Nov 21\nTo: ann@y,\n bob\nBcc: carol@y\nReturn-Path: <z@z>\n\n.\n..\nFrom here\n\u{e9}\nend";
    let body = "\r\n.\r\n..\r\nFrom here\r\n\u{e9}\r\nend\r\n";
    for without in [&[][..], &[Extension::Chunking, Extension::Pipelining]] {
        let server = Served::with("", "", |sink| sink.without = without.to_vec());
        let heard = server.lmtp("smtpc", &["dora@y"], text.as_bytes());
        assert_eq!(heard.code, Some(0), "{}", heard.stderr);
        let whole = format!("To: ann@y,\r\n bob\r\nBcc: carol@y\r\nReturn-Path: <z@z>\r\n{body}");
        assert_eq!(server.mail_of("dora@y"), [whole]);

        let heard = server.lmtp("smtpc", &["-t", "ann@y"], text.as_bytes());
        assert_eq!((heard.code, heard.stderr.lines().count()), (Some(0), 3), "{}", heard.stderr);
        let visible = format!("To: ann@y,\r\n bob\r\nReturn-Path: <z@z>\r\n{body}");
        for address in ["ann@y", "bob", "carol@y"] {
            assert_eq!(server.mail_of(address), [visible.as_str()], "{address}");
        }
    }
    let server = Served::by("");
    assert_eq!(server.lmtp("sendmail", &["b@y"], b"").code, Some(0));
    assert_eq!(server.mail_of("b@y"), [""]);
}

#[test]
fn addresses_and_options_reach_the_server_as_they_were_given() {
    let server = Served::with("myorigin = \"example\"\n[aliases]\nroot = [\"ops@y\"]\n", "", |_| {});
    for (sender, args, said) in [
        ("a@x", &["root"][..], "LHLO localhost|MAIL FROM:<a@x> SIZE=21 BODY=7BIT|RCPT TO:<root>"),
        ("<>", &["--", "-b@y"], "LHLO localhost|MAIL FROM:<> SIZE=21 BODY=7BIT|RCPT TO:<-b@y>"),
        (
            "",
            &["<b@Y>", "b@Y", "b@y", "B@y"],
            "LHLO localhost|MAIL FROM:<> SIZE=21 BODY=7BIT|RCPT TO:<b@Y>|RCPT TO:<B@y>",
        ),
        ("ann", &["\"b c\"@y"], "LHLO localhost|MAIL FROM:<ann> SIZE=21 BODY=7BIT|RCPT TO:<\"b c\"@y>"),
        (
            "a@x",
            &["--iam", "me.example", "-N", "success,delay", "-V", "Q+1", "-R", "hdrs", "b@y", "c"],
            "LHLO me.example|MAIL FROM:<a@x> SIZE=21 BODY=7BIT ENVID=Q+2B1 RET=HDRS|\
             RCPT TO:<b@y> ORCPT=rfc822;b@y NOTIFY=SUCCESS,DELAY|RCPT TO:<c> NOTIFY=SUCCESS,DELAY",
        ),
    ] {
        let socket = server.place.socket();
        let args = [&["--dump", "--lmtp", &socket, "-f", sender], args].concat();
        let heard = server.place.call("smtpc", &args, MESSAGE);
        assert_eq!(heard.code, Some(0), "{}", heard.stderr);
        let commands: Vec<_> = heard.stderr.lines().filter_map(|line| line.strip_prefix("C: ")).collect();
        assert_eq!(commands.join("|"), format!("{said}|BDAT 21 LAST|(message of 21 octets)|QUIT"));
    }
    for (args, code, words) in [
        (&["-f", "a@x", "b@y, c@y"][..], 65, "\"b@y, c@y\" is not one address"),
        (&["-f", "a@x", "b@y", ""], 65, "\"\" is not one address"),
        (&["-f", "a@x, b@x", "b@y"], 65, "option -f: \"a@x, b@x\" is not one address"),
        (&["-f", "a@x", "b@y\r\nQUIT"], 65, "is not"),
        (&["-f", "a@x", "-t"], 65, "its header names no recipients"),
        (&["-f", "a@x"], 64, "nobody to send to"),
        (&["-f", "a@x", "--iam", "a b", "b@y"], 64, "option --iam: \"a b\" is no host name"),
    ] {
        let count = server.sink.counts().connections;
        for name in NAMES {
            let socket = server.place.socket();
            let heard = server.place.call(name, &[&["--lmtp", &socket], args].concat(), MESSAGE);
            assert_eq!(heard.code, Some(code), "{args:?}: {}", heard.stderr);
            assert!(heard.stderr.contains(words) && heard.stderr.lines().count() == 1, "{}", heard.stderr);
        }
        assert_eq!(server.sink.counts().connections, count, "{args:?}");
    }
}

#[test]
fn smtputf8_is_asked_for_where_it_is_needed() {
    let plain = "Subject: hi\n\nbody\n";
    let utf8 = "Subject: \u{e9}\nTo: c@z\n\nbody\n";
    for (args, message, offered, asked) in [
        (&["b@y"][..], plain, true, Some(false)),
        (&["b@y"], utf8, true, Some(false)),
        (&["-t"], utf8, true, Some(false)),
        (&["-t"], utf8, false, Some(false)),
        (&["\u{e9}@y"], plain, true, Some(true)),
        (&["--smtputf8", "b@y"], plain, true, Some(false)),
        (&["--smtputf8", "b@y"], plain, false, Some(false)),
        (&["--smtputf8", "b@y"], utf8, true, Some(true)),
        // What cannot be sent as it is, is not sent.
        (&["--smtputf8", "b@y"], utf8, false, None),
        (&["\u{e9}@y"], plain, false, None),
    ] {
        let without = if offered { Vec::new() } else { vec![Extension::SmtpUtf8] };
        let server = Served::with("", "", |sink| sink.without = without);
        let heard = server.lmtp("sendmail", &[&["--dump"], args].concat(), message.as_bytes());
        let mail = heard.stderr.lines().find(|line| line.starts_with("C: MAIL"));
        match asked {
            Some(asked) => {
                assert_eq!(heard.code, Some(0), "{args:?}: {}", heard.stderr);
                assert_eq!(mail.unwrap().ends_with(" SMTPUTF8"), asked, "{args:?} {message:?}: {mail:?}");
            }
            None => {
                assert_eq!((heard.code, mail), (Some(65), None), "{args:?}: {}", heard.stderr);
                assert!(heard.stderr.contains("SMTPUTF8 is required"), "{}", heard.stderr);
            }
        }
    }
}

#[test]
fn the_dialogue_is_shown_where_it_is_asked_for() {
    let server = Served::by("lhlo 250 me\\nSIZE\ngreeting 220 \u{1b}[2Jhello");
    let heard = server.lmtp("smtpc", &["--dump", "--verbose", "ann@y", "bob@y"], MESSAGE);
    assert_eq!(heard.code, Some(0), "{}", heard.stderr);
    let shown: Vec<_> = heard.stderr.lines().filter(|line| !line.starts_with("to=")).collect();
    let expected = [
        "S: 220 \\u{1b}[2Jhello",
        "C: LHLO localhost",
        "C: MAIL FROM:<a@x> SIZE=21",
        "S: 250 2.1.0 ok",
        "C: RCPT TO:<ann@y>",
        "C: RCPT TO:<bob@y>",
        "C: DATA",
        "C: (message of 21 octets)",
        "S: 250 2.0.0 <bob@y> stored",
        "C: QUIT",
        "S: 221 2.0.0 bye",
    ];
    let mut rest = shown.iter();
    for line in expected {
        assert!(rest.any(|shown| *shown == line), "{line:?} is not in its place:\n{}", heard.stderr);
    }
    assert_eq!(heard.stdout, "250 2.0.0 <bob@y> stored\n");
    let quiet = server.lmtp("smtpc", &["ann@y"], MESSAGE);
    assert_eq!((quiet.stderr.lines().count(), quiet.stdout.as_str()), (1, ""));
    // What cannot be understood is what one wants to see most.
    for (script, shown) in
        [("greeting garbage 22 what\u{7}", "S: 22 what\\u{7}"), ("mail garbage odd", "S: odd")]
    {
        let heard = Served::by(script).lmtp("smtpc", &["--dump", "ann@y"], MESSAGE);
        assert_eq!(heard.code, Some(254), "{}", heard.stderr);
        assert!(heard.stderr.lines().any(|line| line == shown), "{shown:?} is not in {}", heard.stderr);
    }
}

#[test]
fn verbose_prints_the_last_reply_as_it_came() {
    for (script, code, printed) in [
        ("rcpt 550 5.1.1 no", 253, "550 5.1.1 no\n"),
        ("rcpt 550 5.1.1 one\\n5.1.1 two", 253, "550-5.1.1 one\n550 5.1.1 two\n"),
        ("data-done close", 255, ""),
    ] {
        let server = Served::by(script);
        let heard = server.lmtp("smtpc", &["--verbose", "b@y"], MESSAGE);
        assert_eq!((heard.code, heard.stdout.as_str()), (Some(code), printed), "{script}: {}", heard.stderr);
    }
}

#[test]
fn many_recipients_take_as_few_transactions_as_may_be() {
    let addresses: Vec<String> = (0..200).map(|at| format!("r{at}@y")).collect();
    let args: Vec<&str> = addresses.iter().map(String::as_str).collect();
    for (config, server_limit, transactions) in [
        ("", 1000, 4),
        ("[transport.lmtp]\ndestination_recipient_limit = 0\n", 1000, 1),
        ("[transport.lmtp]\ndestination_recipient_limit = 0\n", 90, 3),
        // What a transport adds to mail is the agent's affair, and so is what follows from that.
        ("[transport.lmtp]\nflags = \"DORX\"\n", 1000, 4),
    ] {
        let server =
            Served::with(config, "rcpt r77@y 550 5.1.1 no", |sink| sink.recipient_limit = server_limit);
        let heard = server.lmtp("smtpc", &args, MESSAGE);
        assert_eq!((heard.code, heard.stderr.lines().count()), (Some(253), 200), "{}", heard.stderr);
        let sent: Vec<_> = heard.stderr.lines().filter(|line| line.contains("status=sent")).collect();
        assert_eq!(sent.len(), 199);
        assert_eq!(server.mail_of("r199@y"), ["Subject: hi\r\n\r\nbody\r\n"]);
        assert_eq!(sent.iter().any(|line| line.contains("conn_use=2, ")), transactions > 1);
        let counts = server.sink.stop();
        assert_eq!((counts.connections, counts.transactions), (1, transactions), "{config:?}");
    }
}

#[test]
fn a_message_that_is_too_large_is_not_begun() {
    for (config, server_limit, code, words) in [
        (
            "message_size_limit = 1000\n",
            50_000,
            69,
            "it is larger than the 1000 octets of message_size_limit",
        ),
        ("", 1000, 69, "message size 8114 exceeds size limit 1000 of server localhost["),
    ] {
        let server = Served::with(config, "", |sink| sink.message_size_limit = server_limit);
        let message = format!("Subject: x\n\n{}", "1234567\n".repeat(900));
        let heard = server.lmtp("sendmail", &["b@y"], message.as_bytes());
        assert_eq!(heard.code, Some(code), "{}", heard.stderr);
        assert!(heard.stderr.contains(words), "{}", heard.stderr);
        let counts = server.sink.stop();
        assert_eq!(counts.transactions, 0);
        assert_eq!(counts.connections, u64::from(config.is_empty()));
    }
}

#[test]
fn a_wrong_configuration_sends_nothing_and_a_missing_one_is_none() {
    let server = Served::with("workers = \"many\"\n", "", |_| {});
    for name in NAMES {
        let heard = server.lmtp(name, &["b@y"], MESSAGE);
        assert_eq!((heard.code, heard.stderr.lines().count()), (Some(78), 1), "{}", heard.stderr);
        let start = format!("{name}: the message was not sent: ");
        assert!(heard.stderr.starts_with(&start) && heard.stderr.contains("many"), "{}", heard.stderr);
    }
    assert_eq!(server.sink.counts().connections, 0);
    if std::path::Path::new("/etc/lastmile/lastmile.toml").exists() {
        eprintln!("skipped: this machine has a configuration of its own");
        return;
    }
    let socket = server.place.socket();
    let mut command = server.place.command("smtpc", &["--lmtp", &socket, "-f", "a@x", "b@y"]);
    command.env_remove("LASTMILE_CONFIG");
    let heard = Heard::from(run(&mut command, MESSAGE));
    assert_eq!(heard.code, Some(0), "{}", heard.stderr);
}
