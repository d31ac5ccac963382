//! Content: what is in a queue file is what the server gets, octet by octet.
//!
//! - Owns: contents that a client gets wrong, edits by milters and header checks, conversion for servers without
//!   8BITMIME, where long lines break.
//! - Leaves to others: envelopes (`envelopes`).

use super::client::{Client, both};
use super::instance::{Place, Postfix, Settings};
use super::mail::{header, submit_with};
use super::milter;
use super::observation::{Observation, observe};
use super::server::Server;

/// Names, options of sendmail's, and what follows the header; the header too where it is `None`.
fn contents() -> Vec<(&'static str, &'static [&'static str], Vec<u8>)> {
    let all: Vec<u8> = (1..=255).filter(|octet| !b"\r\n".contains(octet)).collect();
    let line = |length: usize| [vec![b'x'; length], b"\nnext\n".to_vec()].concat();
    let large: Vec<u8> =
        (0..30_000).flat_map(|at| format!("{at:07} {}\n", "0123456789".repeat(6)).into_bytes()).collect();
    let body = |text: &[u8]| [b"\n", text].concat();
    vec![
        ("plain", &[], body(b"one\ntwo\n")),
        ("no-body", &[], Vec::new()),
        ("empty-body", &[], body(b"")),
        ("no-last-end", &[], body(b"one\ntwo")),
        ("blank-lines", &[], body(b"\n\n\none\n\n\n\n")),
        ("dots", &[], body(b".\n..\n...\n.one\n\n.\n. \n.two")),
        ("dot-alone", &[], body(b".")),
        ("words", &[], body(b"QUIT\nDATA\nRSET\nFrom me\n>From you\nBDAT 5 LAST\n")),
        ("octets", &["-B", "8BITMIME"], body(&[&all[..], b"\n"].concat())),
        ("octets-unnamed", &[], body(&[&all[..], b"\n"].concat())),
        ("seven", &["-B", "7BIT"], body(b"seven bits\n")),
        ("nul", &[], body(b"a\0b\n\0\n")),
        ("bare-cr", &[], body(b"a\rb\r\nc\r\r\nd\r")),
        ("crlf", &[], body(b"one\r\ntwo\r\n.three\r\n")),
        ("line-997", &[], body(&line(997))),
        ("line-998", &[], body(&line(998))),
        ("line-999", &[], body(&line(999))),
        ("line-1996", &[], body(&line(1996))),
        ("line-2048", &[], body(&line(2048))),
        ("line-2049", &[], body(&line(2049))),
        ("line-3000", &[], body(&line(3000))),
        ("line-5000", &[], body(&line(5000))),
        ("line-5000-end", &[], body(&[b'y'; 5000])),
        ("line-4096-end", &[], body(&[b'y'; 4096])),
        ("dots-long", &[], body(&[vec![b'.'; 3000], b"\n".to_vec()].concat())),
        ("dot-at-break", &[], body(&[vec![b'x'; 998], vec![b'.'; 1200], b"\n.\n".to_vec()].concat())),
        ("long-header", &[], [b"X-Long: ".to_vec(), vec![b'h'; 3000], b"\n\ntext\n".to_vec()].concat()),
        ("large", &[], body(&large)),
    ]
}

/// A server with BDAT, one with DATA alone, one without any extension.
fn play(client: Client, main: &str) -> Observation {
    let place = Place::new();
    let usual = |offers: &[&str]| Server::offering(place.path(), offers, |_| super::server::Answer::Usual);
    let servers = [
        usual(&["PIPELINING", "8BITMIME", "CHUNKING", "SIZE"]),
        usual(&["PIPELINING", "8BITMIME"]),
        usual(&[]),
    ];
    let names = ["bdat", "data", "step"];
    let mut settings = Settings::main(main);
    for (name, server) in names.iter().zip(&servers) {
        settings = settings.route(&format!("{name}.example"), server.unix());
    }
    let postfix = Postfix::start(&place, client, settings);
    // Each message goes all ways.
    let recipients = names.map(|name| format!("u@{name}.example"));
    for (name, options, rest) in contents() {
        let message = [header(name).into_bytes(), rest].concat();
        submit_with(&postfix, name, options, &recipients.each_ref().map(String::as_str), &message);
    }
    submit_with(&postfix, "nothing", &[], &["u@bdat.example"], b"");
    submit_with(&postfix, "no-header", &[], &["u@data.example"], b"just text\n");
    postfix.settle();
    observe(&postfix, &servers.iter().collect::<Vec<_>>())
}

#[test]
fn content_arrives_octet_by_octet() {
    let Some(pair) = both(|client| play(client, "")) else { return };
    for (name, line) in
        [("line-998", "x".repeat(998)), ("line-999", " x".to_owned()), ("dots", "...".to_owned())]
    {
        let lines = pair.ours.lines(&format!("{name} wire"));
        assert_eq!(lines.iter().filter(|it| **it == line).count(), 3, "{name}, three ways: {lines:?}");
    }
    pair.show("line-999 log", &["breaking line > 998 bytes with <CR><LF>SPACE"]);
    pair.agree();
}

#[test]
fn lines_break_where_main_cf_says() {
    for limit in ["0", "60"] {
        let main = format!("lmtp_line_length_limit = {limit}");
        let Some(pair) = both(|client| play_lines(client, &main)) else { return };
        pair.agree();
    }
}

/// Lines around the limits alone, with one server.
fn play_lines(client: Client, main: &str) -> Observation {
    let place = Place::new();
    let server = Server::obliging(place.path());
    let postfix = Postfix::start(&place, client, Settings::main(main).route("test.example", server.unix()));
    for length in [59, 60, 61, 119, 120, 121, 2047, 2048, 2049, 4100] {
        let name = format!("line-{length}");
        let body = [b"\n".to_vec(), vec![b'.'; length], b"\nend\n".to_vec()].concat();
        submit_with(&postfix, &name, &[], &["u@test.example"], &[header(&name).into_bytes(), body].concat());
    }
    postfix.settle();
    observe(&postfix, &[&server])
}

#[test]
fn edits_by_header_checks_and_milters_arrive() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::obliging(place.path());
        let edits = vec![
            milter::add("X-Added", "by a milter"),
            milter::insert(0, "X-First", "inserted"),
            milter::insert(3, "X-Fourth", "inserted, too,\n\tin two lines"),
            milter::change("Subject", "a longer subject than the one that stood here before"),
            milter::change("X-Deleted", ""),
            milter::replace_body("another body\r\n.with a dot\r\n"),
            milter::add_recipient("added@test.example"),
        ];
        let checks = place.path().join("checks");
        std::fs::write(&checks, "/^X-Marked:/ PREPEND X-Prepended: yes\n/^X-Dropped:/ IGNORE\n").unwrap();
        let main = format!(
            "header_checks = regexp:{}\nnon_smtpd_milters = inet:127.0.0.1:{}\nmilter_default_action = tempfail\n",
            checks.display(),
            milter::start(&edits)
        );
        let postfix =
            Postfix::start(&place, client, Settings::main(&main).route("test.example", server.unix()));
        for (name, fields, body) in [
            ("edited", "X-Deleted: yes\nX-Marked: yes\nX-Dropped: yes\n", "short\n".to_owned()),
            ("edited-long", "X-Deleted: yes\n", "a body of many lines\n".repeat(500)),
            ("edited-none", "", String::new()),
        ] {
            let message = format!("{}{fields}\n{body}", header(name));
            submit_with(&postfix, name, &[], &["u@test.example"], message.as_bytes());
        }
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("edited wire", &["X-First: inserted"]);
    pair.show("edited wire", &["X-Prepended: yes"]);
    pair.show("edited wire", &["..with a dot"].map(|line| &line[1..]));
    pair.show("edited wire", &["RCPT TO:<added@test.example>"]);
    assert!(!pair.ours.lines("edited wire").iter().any(|line| line.starts_with("X-Deleted")));
    pair.agree();
}

/// Messages of MIME's, in 8 bits, for a server that takes 7.
#[test]
fn eight_bits_become_seven_where_the_server_has_no_more() {
    let pair = both(|client| {
        let place = Place::new();
        let server = Server::offering(place.path(), &["PIPELINING"], |_| super::server::Answer::Usual);
        let postfix =
            Postfix::start(&place, client, Settings::default().route("test.example", server.unix()));
        let text = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n";
        let long =
            "Grüße aus Köln = viel länger als eine Zeile von quoted-printable sein darf, \t\n".repeat(3);
        let parts = format!(
            "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\npreamble é\n--b\n{text}\n\
             erster Teil: ä \n--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: inner\n\
             {text}\ninnen: ö\n--b\nContent-Type: text/plain\n\nplain\n--b--\nepilogue\n"
        );
        let garbage = format!(
            "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\
             Content-Transfer-Encoding: 8bit\nno field: é\n\nkeine Nachricht: ä\n--b\n\
             Content-Type: multipart/mixed; boundary=c\nContent-Transfer-Encoding: 8bit\nno field é\n\nvor den \
             Teilen: ä\n--c\n{text}\nTeil: ö\n--c--\n--b--\n"
        );
        for (name, rest) in [
            ("garbage", format!("MIME-Version: 1.0\n{garbage}")),
            ("text", format!("MIME-Version: 1.0\n{text}\n{long}.ü\n ü \n\n=\n")),
            ("binary", format!("MIME-Version: 1.0\n{}\nbinär\n", text.replace("8bit", "binary"))),
            ("no-end", format!("MIME-Version: 1.0\n{text}\nohne Ende: ä")),
            ("parts", format!("MIME-Version: 1.0\n{parts}")),
            ("undeclared", "\nnicht erklärt\n".to_owned()),
            ("ascii", format!("MIME-Version: 1.0\n{text}\nonly ASCII\n")),
            ("encoded", "MIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\nR3LDvMOfZQ==\n".to_owned()),
            ("long-line", format!("MIME-Version: 1.0\n{text}\n{}\n", "äö".repeat(1500))),
        ] {
            let message = format!("{}{rest}", header(name));
            submit_with(&postfix, name, &["-B", "8BITMIME"], &["u@test.example"], message.as_bytes());
        }
        postfix.settle();
        observe(&postfix, &[&server])
    });
    let Some(pair) = pair else { return };
    pair.show("text wire", &["Content-Transfer-Encoding: quoted-printable"]);
    pair.show("text wire", &["Gr=C3=BC=C3=9Fe"]);
    pair.show("parts wire", &["erster Teil: =C3=A4"]);
    pair.agree();
}
