//! What reads octets from outside, fed with a fixed set of odd ones and with texts that are almost right.
//!
//! - Owns: the corpus of the fuzz targets, played in each normal run; inputs made by the rules of each grammar, and
//!   damaged a little.
//! - Leaves to others: what must hold (`tests/fuzz/checks`), inventing octets (`tests/fuzz`, by hand).
//! - Always true: no panic, no memory without bound, and what was printed parses back to itself.

#[path = "../fuzz/checks/lib.rs"]
mod checks;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::Union;

/// Inputs of each grammar in one run.
const CASES: u32 = 48;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_target_has_a_check_a_program_and_a_corpus() {
    let checks: BTreeSet<String> = checks::CHECKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(checks.len(), checks::CHECKS.len(), "two checks of one name");
    assert_eq!(names_in(&fuzz().join("corpus")), checks, "directories in corpus");
    let programs = checks.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names_in(&fuzz().join("targets")), programs, "programs in targets");
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &checks {
        let count = names_in(&fuzz().join("corpus").join(name)).len();
        assert!(count >= 15, "{name} has a corpus of {count}");
        let program = fs::read_to_string(fuzz().join(format!("targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("checks::run(\"{name}\", input)")), "{name} runs another check");
        assert!(
            manifest.contains(&format!("[[bin]]\nname = \"{name}\"\npath = \"targets/{name}.rs\"\n")),
            "{name}"
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), checks.len(), "programs in Cargo.toml");
}

#[test]
fn the_corpus_of_every_target_passes_its_check() {
    let mut failed = Vec::new();
    for (name, check) in checks::CHECKS {
        let directory = fuzz().join("corpus").join(name);
        for file in names_in(&directory) {
            let input = fs::read(directory.join(&file)).unwrap();
            // Each is tried, so that one look shows all that fail; why stands above.
            if catch_unwind(|| check(&input)).is_err() {
                failed.push(format!("tests/fuzz/corpus/{name}/{file}"));
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// One of these texts.
fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(texts).prop_map(ToOwned::to_owned)
}

/// Any of these, equally often.
fn any_of<const N: usize>(strategies: [BoxedStrategy<String>; N]) -> BoxedStrategy<String> {
    Union::new(strategies).boxed()
}

/// What a text becomes on a bad day.
#[derive(Clone, Debug)]
enum Damage {
    None,
    Removed(Index, Index),
    Inserted(Index, Vec<u8>),
    Replaced(Index, u8),
    Doubled(Index, Index),
}

impl Damage {
    fn done_to(&self, mut octets: Vec<u8>) -> Vec<u8> {
        let place = |index: &Index| index.index(octets.len() + 1);
        let range = |a, b| place(a).min(place(b))..place(a).max(place(b));
        match self {
            Self::None => {}
            Self::Removed(a, b) => drop(octets.drain(range(a, b))),
            Self::Inserted(at, piece) => drop(octets.splice(place(at)..place(at), piece.iter().copied())),
            Self::Replaced(at, octet) => {
                let at = place(at);
                octets.get_mut(at).into_iter().for_each(|old| *old = *octet);
            }
            Self::Doubled(a, b) => {
                let piece = octets[range(a, b)].to_vec();
                octets.extend(piece);
            }
        }
        octets
    }
}

fn damaged(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let index = any::<Index>;
    let odd = select(vec![
        &b"\r\n"[..],
        b"\n",
        b"\r",
        b"\0",
        b"\"",
        b"\\",
        b"\xff",
        b"\xc3\xa9",
        b"\t",
        b".",
        b"@",
    ]);
    let damage = prop_oneof![
        4 => Just(Damage::None),
        1 => (index(), index()).prop_map(|(a, b)| Damage::Removed(a, b)),
        2 => (index(), odd).prop_map(|(at, piece)| Damage::Inserted(at, piece.to_vec())),
        1 => (index(), any::<u8>()).prop_map(|(at, octet)| Damage::Replaced(at, octet)),
        1 => (index(), index()).prop_map(|(a, b)| Damage::Doubled(a, b)),
    ];
    (text, damage).prop_map(|(text, damage)| damage.done_to(text.into_bytes()))
}

/// Local parts and domains, plain and quoted, with and without what belongs there.
fn address() -> BoxedStrategy<String> {
    let atom = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~äöü日-]{1,8}";
    let quoted = r#""([ -!#-\[\]-~\té]|\\[ -~]){0,8}""#.prop_map(String::from).boxed();
    let local = any_of([
        vec(atom, 1..4).prop_map(|atoms| atoms.join(".")).boxed(),
        quoted,
        r"[.a-c@\\ \[\]<>,;:()]{1,5}".boxed(),
    ]);
    let domain = any_of([
        r"([a-z0-9][a-z0-9-]{0,5}\.){0,3}[a-z]{1,5}".boxed(),
        one_of(&["[192.0.2.1]", "[IPv6:::1]", "ö.example", "x.", ".x", "a_b"]).boxed(),
    ]);
    any_of([(local.clone(), domain).prop_map(|(local, domain)| format!("{local}@{domain}")).boxed(), local])
}

fn address_list() -> impl Strategy<Value = String> {
    let mailbox = any_of([
        address(),
        address().prop_map(|address| format!("<{address}>")).boxed(),
        ("[A-Z][a-z]{0,6}", address()).prop_map(|(name, address)| format!("{name} <{address}>")).boxed(),
        ("[ -!#-\\[\\]-~]{0,6}", address()).prop_map(|(name, a)| format!("\"{name}\" <{a}>")).boxed(),
        ("[a-z ()]{0,6}", address()).prop_map(|(comment, a)| format!("({comment}){a} ({comment})")).boxed(),
        address().prop_map(|address| format!("<@relay.example,@x:{address}>")).boxed(),
    ]);
    let group = ("[a-z]{1,5}", vec(mailbox.clone(), 0..3))
        .prop_map(|(name, list)| format!("{name}: {};", list.join(",")));
    let separator = one_of(&[",", ", ", ",\r\n ", " , ,", ";"]);
    vec((any_of([mailbox, group.boxed()]), separator), 0..5)
        .prop_map(|items| items.into_iter().map(|(item, separator)| item + &separator).collect::<String>())
}

fn reply() -> impl Strategy<Value = String> {
    let text = any_of([
        "[ -~]{0,30}".boxed(),
        r"[245]\.[0-9]{1,3}\.[0-9]{1,3}( [ -~]{0,10})?".boxed(),
        r"[\x00-\x7fäé�]{0,10}".prop_map(|text: String| text.replace('\n', "")).boxed(),
    ]);
    let end = one_of(&["\r\n", "\r\n", "\r\n", "\n"]);
    let one = ("[2-5][0-9][0-9]", vec((text, end), 1..5)).prop_map(|(code, lines)| {
        let last = lines.len() - 1;
        let mark = |at: usize| if at == last { ' ' } else { '-' };
        let lines = lines.iter().enumerate();
        lines.map(|(at, (text, end))| format!("{code}{}{text}{end}", mark(at))).collect::<String>()
    });
    vec(one, 1..4).prop_map(|replies| replies.concat())
}

/// A mechanism, and what its server says; see the check for the form.
fn login() -> impl Strategy<Value = String> {
    let mechanism = select(lastmile::smtp::known_mechanisms()).prop_map(ToOwned::to_owned);
    let attribute = one_of(&[
        "r=%rx",
        "s=QSXCR+Q6",
        "i=3",
        "v=AAAA",
        "e=other-error",
        "m=x",
        "r",
        "s",
        "i",
        "v",
        "=",
        "",
    ]);
    let scram = prop_oneof![
        2 => vec(attribute, 0..5).prop_map(|attributes| format!("334+{}", attributes.join(","))),
        3 => Just("334+r=%rx,s=QSXCR+Q6,i=3".to_owned()),
    ];
    let line = any_of([
        scram.boxed(),
        one_of(&[
            "334 ",
            "334+Username:",
            "334+<1@x>",
            "235 2.7.0 ok",
            "535 5.7.8 no",
            "421 bye",
            "334 ?",
            "354 go",
        ])
        .boxed(),
        r#"334\+\{"status":("[a-z0-9\\"]{0,9}"|[0-9]{1,3})(,"scope":"x")?\}"#.boxed(),
        "(235|334|454|535|504)[ -][ -~]{0,20}".boxed(),
    ]);
    (mechanism, one_of(&["", "+"]), vec(line, 0..6))
        .prop_map(|(mechanism, binds, lines)| format!("{mechanism}{binds}\n{}", lines.join("\n")))
}

fn capabilities() -> impl Strategy<Value = String> {
    let line = any_of([
        one_of(&["PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS"])
            .boxed(),
        "(SIZE|size)[ =]{0,2}[+-]?[0-9]{0,22}".boxed(),
        "(AUTH|Auth)[ =]{0,2}((PLAIN|login|[!-~]{1,8})[ =]){0,4}".boxed(),
        "(LIMITS|Limits)( (RCPTMAX|rcptmax|MAILMAX|FOO)=[0-9]{0,11}){0,3}".boxed(),
        "[A-Z0-9]{1,8}( [!-~]{1,8}){0,3}".boxed(),
    ]);
    vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

/// A JSON text between quotes.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The members of an envelope, in JSON, each with or without a comma's worth of sense.
fn members() -> impl Strategy<Value = String> {
    let member = any_of([
        one_of(&[
            r#""nexthop":"unix:/run/lmtp""#,
            r#""nexthop":null"#,
            r#""envid":"a b+c""#,
            r#""ret":"HDRS""#,
            r#""ret":"full""#,
            r#""body":"8BITMIME""#,
            r#""smtputf8":true"#,
            r#""smtputf8":"yes""#,
            r#""future":{"a":[1,2]}"#,
        ])
        .boxed(),
        "[ -~é]{0,12}".prop_map(|envid: String| format!("\"envid\":{}", json(&envid))).boxed(),
    ]);
    vec(member, 0..4).prop_map(|members| members.into_iter().map(|member| member + ",").collect::<String>())
}

fn recipient() -> impl Strategy<Value = String> {
    let more = one_of(&[
        "",
        r#","notify":"NEVER""#,
        r#","notify":"delay,failure""#,
        r#","orcpt":"rfc822;a+b=c@y""#,
        r#","orcpt":"utf-8;ä@ö""#,
        r#","sender":"""#,
        r#","sender":"list+b=y@x""#,
    ]);
    (address(), more).prop_map(|(address, more)| format!("{{\"address\":{}{more}}}", json(&address)))
}

fn job_line() -> impl Strategy<Value = String> {
    let recipient = any_of([recipient().boxed(), address().prop_map(|address| json(&address)).boxed()]);
    let submission = ("[A-Za-z0-9._-]{1,12}", address(), vec(recipient, 0..4), members()).prop_map(
        |(name, sender, recipients, members)| {
            let (sender, recipients) = (json(&sender), recipients.join(","));
            format!(
                r#"{{{members}"queue_file":"incoming/{name}","sender":{sender},"recipients":[{recipients}]}}"#
            )
        },
    );
    any_of([submission.boxed(), r#"\{"queue_file":"(active|incoming)/[A-Za-z0-9]{1,31}"\}"#.boxed()])
}

/// A queue file whose counts and size fit.
fn queue_file() -> impl Strategy<Value = String> {
    let content = "[a-c.\r\n é]{0,20}";
    let states = vec(select(vec!['P', 'P', 'I', 'R', 'S', 'B']), 4);
    (address(), members(), vec(recipient(), 1..5), states, content).prop_map(
        |(sender, members, recipients, states, content)| {
            let (count, size, sender) = (recipients.len(), content.len(), json(&sender));
            let states: String = states.into_iter().take(count).collect();
            let recipients = recipients.join("\n");
            format!(
                "lastmile/1\n{{{members}\"id\":\"A1\",\"sender\":{sender},\"arrival\":\"2026-11-21T19:30:00Z\",\
                 \"recipients\":{count},\"origin\":\"uid=1\",\"size\":{size}}}\n-{states}\n{recipients}\n\n{content}"
            )
        },
    )
}

fn reply_log() -> impl Strategy<Value = String> {
    let line = (0..4u32, address(), "(2.0.0|4[.]2[.]1|5.1.1|9.9.9)", "[ -~é]{0,20}", one_of(&["\n", "\n\n", "", "\r\n"]))
        .prop_map(|(position, address, dsn, text, end)| {
            let (address, text) = (json(&address), json(&text));
            format!(
                r#"{{"time":"t","recipient":{position},"address":{address},"outcome":"deferred","dsn":"{dsn}","text":{text}}}"#
            ) + &end
        });
    vec(line, 0..5).prop_map(|lines| lines.concat())
}

fn nexthop() -> impl Strategy<Value = String> {
    let port = one_of(&["", "", ":24", ":0", ":65536", ":lmtp", ":", ":0025"]);
    let host = any_of([
        r"[A-Za-z0-9_-]{1,6}(\.[a-z0-9-]{0,6}){0,3}".boxed(),
        one_of(&["[::1]", "[IPv6:2001:DB8::0:1]", "[192.0.2.1]", "192.0.2.1", "[mx]", "::1", "lmtp", "unix"])
            .boxed(),
    ]);
    let tcp = ("(inet:)?", host, port).prop_map(|(inet, host, port)| inet + &host + &port);
    let path = r"(unix:)?/[a-z/.:ä]{0,12}[ \x00-\x1f\u{a0}]?";
    let server = any_of([tcp.boxed(), path.boxed(), Just(format!("/{}", "a".repeat(106))).boxed()]);
    let separator = one_of(&[",", ", ", " ", "\t", ",,"]);
    let transport = one_of(&["", "", "lmtp:", "smtp:", "my_site:", "nosuch:", "LMTP:"]);
    (transport, server.clone(), vec((separator, server), 0..4)).prop_map(|(transport, first, more)| {
        let more = more.into_iter().map(|(separator, server)| separator + &server);
        transport + &first + &more.collect::<String>()
    })
}

fn parameters() -> impl Strategy<Value = String> {
    any_of([
        "((NEVER|success|FAILURE|Delay),?){1,4}".boxed(),
        "(rfc822|UTF-8|x-y|a_b|);[ -~éä日]{0,12}".boxed(),
        r"[0-9]\.[0-9]{1,4}\.[0-9]{1,4}".boxed(),
        "[A-Za-z0-9._-]{1,66}".boxed(),
        "(FULL|hdrs|7BIT|8bitmime)x?".boxed(),
    ])
}

fn control_request() -> impl Strategy<Value = String> {
    let submission = (address(), vec(recipient(), 0..3), vec("[a-z\n{}]{0,9}", 0..4));
    let submission = submission.prop_map(|(sender, recipients, pieces)| {
        let piece = |piece: &str| format!("{{\"content\":{{\"octets\":{}}}}}\n{piece}", piece.len());
        let content: String =
            pieces.iter().filter(|piece| !piece.is_empty()).map(|text| piece(text)).collect();
        let (sender, recipients, end) = (json(&sender), recipients.join(","), piece(""));
        format!("{{\"ask\":\"submit\",\"sender\":{sender},\"recipients\":[{recipients}]}}\n{content}{end}")
    });
    let action = "(hold|flush|release|delete|requeue|eat)";
    let messages = "(\"ALL\"|\\[(\"[A-Z]{1,3}\")?\\])";
    let act = (action, messages).prop_map(|(action, which)| {
        format!("{{\"ask\":\"act\",\"action\":\"{action}\",\"messages\":{which}}}\n")
    });
    let others = one_of(&[
        "{\"ask\":\"status\"}\n",
        "{\"ask\":\"list\"}\n",
        "{\"ask\":\"show\",\"id\":\"A1\",\"content\":true}\n",
    ]);
    vec(any_of([others.boxed(), act.boxed(), submission.boxed()]), 0..4)
        .prop_map(|questions| questions.concat())
}

fn control_answer() -> impl Strategy<Value = String> {
    let content = "[a-z\n]{0,9}"
        .prop_map(|content: String| format!("{{\"content\":{{\"octets\":{}}}}}\n{content}", content.len()));
    let recipient = (address(), one_of(&["null", "\"5.1.1\"", "\"x\""])).prop_map(|(address, dsn)| {
        let address = json(&address);
        format!(
            "{{\"recipient\":{{\"address\":{address},\"state\":\"sent\",\"reason\":null,\"dsn\":{dsn}}}}}\n"
        )
    });
    let others = one_of(&[
        "{\"queued\":{\"id\":\"A1\"}}\n",
        "{\"done\":{\"id\":\"A1\",\"action\":\"hold\",\"outcome\":\"waits\",\"text\":\"x\"}}\n",
        "{\"done\":{\"id\":\"A1\",\"action\":\"hold\",\"outcome\":\"odd\",\"text\":\"x\"}}\n",
        "{\"refused\":{\"code\":\"busy\",\"text\":\"\"}}\n",
        "{\"ready\":{\"version\":\"1\"}}\n",
        "{\"end\":{}}\n",
    ]);
    let line = any_of([content.boxed(), recipient.boxed(), others.boxed()]);
    vec(line, 0..5).prop_map(|lines| lines.concat())
}

fn script() -> impl Strategy<Value = String> {
    let rule = (
        "(greeting|lhlo|ehlo|mail|rcpt|data|data-done|quit|connect)",
        "( ([a-c?]{0,3}[*@][a-c*?]{0,3}|<>))?",
        "( (times|after|delay|drip) ([0-9]{1,3}(ms|s|m|h|d)?|[0-9]/[0-9]ms)| (twice|hold|swallow|close-after)){0,3}",
        "( ([1-6][0-9]{2} [ -~]{0,8}|garbage|partial x|silence|close|reset))?",
    );
    let rules = vec((rule, one_of(&["\n", "\r\n", "\n#\n", ""])), 0..5).prop_map(|rules| {
        rules
            .into_iter()
            .map(|((stage, pattern, steps, action), end)| stage + &pattern + &steps + &action + &end)
            .collect()
    });
    any_of([
        rules.boxed(),
        "[ab*?]{0,12}\n[abAB]{0,12}".boxed(),
        ("(FROM|to|TO):( )?", address(), "( SIZE=1)?")
            .prop_map(|(keyword, a, more)| format!("{keyword}<{a}>{more}"))
            .boxed(),
        "[0-9]{1,21}( (LAST|last|x))?".boxed(),
    ])
}

/// Lines of a session, some of them out of order and some that end otherwise.
fn smtp_session() -> impl Strategy<Value = String> {
    let line = one_of(&[
        "EHLO x",
        "MAIL FROM:<a@x>",
        "mail from: <> SIZE=7 RET=HDRS ENVID=7",
        "RCPT TO:<b@y>",
        "RCPT TO:<root> NOTIFY=NEVER ORCPT=rfc822;+41@x",
        "RCPT TO:<>",
        "DATA",
        "RSET",
        "NOOP",
        "Subject: x",
        "",
        "hello",
        ".",
        "..",
        ". ",
        ".x",
        "\r.",
        "a\r.\rb",
        "QUIT",
        "BDAT 7",
    ]);
    let beginning = one_of(&["", "EHLO x\n", "MAIL FROM:<a@x>\nRCPT TO:<b@y>\nDATA\nx\n"]);
    let line_end = one_of(&["\n", "\r\n"]);
    let odd_end = prop_oneof![9 => Just(None), 1 => one_of(&["\n", "\r\n", "\r", ""]).prop_map(Some)];
    (beginning, line_end, vec((line, odd_end), 0..14)).prop_map(|(beginning, line_end, lines)| {
        let mut text = beginning.replace('\n', &line_end);
        for (line, odd_end) in lines {
            text += &line;
            text += &odd_end.unwrap_or_else(|| line_end.clone());
        }
        text
    })
}

/// A request of Postfix's qmgr.
fn postfix_request() -> impl Strategy<Value = String> {
    let number = "(0|[1-9][0-9]{0,3}|18446744073709551615)";
    let recipient = (address(), address(), number, "(rfc822;[a-z@.]{0,8})?", "[0-9]{1,2}").prop_map(
        |(original, address, offset, orcpt, notify)| {
            format!(
                "original_recipient~{original}~recipient~{address}~offset~{offset}~dsn_orig_rcpt~{orcpt}~\
                 notify_flags~{notify}~~"
            )
        },
    );
    let needs = one_of(&["smtputf8~0", "smtputf8~11", "sendopts~16", "x~y~sendopts~43", "smtputf8~x"]);
    (needs, address(), "[A-Za-z0-9_]{1,12}", vec(recipient, 0..4)).prop_map(|(needs, sender, id, recipients)| {
        let (count, recipients, time) = (recipients.len(), recipients.concat(), "A".repeat(118));
        format!(
            "flags~3~queue_name~active~queue_id~{id}~offset~262~size~261~nexthop~inet:x:24~encoding~8bit~{needs}~\
             sender~{sender}~envelope_id~~ret_flags~1~time~{time}==~log_client_name~mx~log_client_address~::1~\
             log_client_port~1~log_protocol_name~ESMTP~log_helo_name~x~log_ident~~rewrite_context~local~\
             recipient_count~{count}~~{recipients}"
        )
        .replace('~', "\0")
    })
}

/// Records as they stand in Postfix's queue files, from the third octet on.
fn postfix_record() -> impl Strategy<Value = String> {
    let record = |kind: char, text: String| {
        // Lengths up to 127, so that one octet says it.
        let length = char::from(u8::try_from(text.len()).unwrap_or(0));
        format!("{kind}{length}{text}")
    };
    let text = any_of([
        "[a-c. é]{0,20}".boxed(),
        one_of(&["", "Subject: x", "Delivered-To: a@b", "--b", "Content-Transfer-Encoding: 8bit"]).boxed(),
    ]);
    let texts = (select(vec!['N', 'N', 'L', 'w']), text).prop_map(move |(kind, text)| record(kind, text));
    let pointers = (0..200_usize).prop_map(move |to| record('p', format!("{:15}", to.saturating_sub(100))));
    let end = one_of(&["X\0", "X\0E\0", "E\0", ""]);
    let records = vec(prop_oneof![9 => texts, 1 => pointers], 0..20);
    (records, end).prop_map(|(records, end)| format!("?\x02{}{end}", records.concat()))
}

/// Messages in parts that say what they are, or do not.
fn mime() -> impl Strategy<Value = String> {
    let line = one_of(&[
        "Content-Type: multipart/mixed; boundary=b",
        "Content-Type: multipart/digest; boundary=\"b2\"",
        "Content-Type: message/rfc822",
        "Content-Type: message/partial",
        "Content-Type: text/plain",
        "Content-Transfer-Encoding: 8bit",
        "Content-Transfer-Encoding: binary",
        "Content-Transfer-Encoding: base64",
        "Subject: \u{e9}",
        "\tfolded",
        "",
        "",
        "--b",
        "--b2",
        "--b--",
        "--b2--",
        "caf\u{e9} = ",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx--b",
        "garbage",
    ]);
    let end = one_of(&["\n", "\n", "\n", "\n", "\n", "\n", "\x1e"]);
    vec((line, end), 0..25).prop_map(|lines| lines.into_iter().map(|(line, end)| line + &end).collect())
}

fn content() -> impl Strategy<Value = String> {
    let piece = one_of(&[
        "\r\n",
        "\n",
        "\r",
        ".",
        "..",
        ".\r\n",
        "\r\n.\r\n",
        "a",
        "é",
        " ",
        "abcdefghijklmno",
        "MAIL FROM:<>\r\n",
    ]);
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    // What fails here belongs into the corpus, by hand and under a name, not into a file of seeds.
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn addresses(input in damaged(address())) {
        checks::run("address", &input);
    }

    #[test]
    fn address_lists(input in damaged(address_list())) {
        checks::run("address_list", &input);
    }

    #[test]
    fn logins(input in damaged(login())) {
        checks::run("auth", &input);
    }

    #[test]
    fn capabilities_of_servers(input in damaged(capabilities())) {
        checks::run("capabilities", &input);
    }

    #[test]
    fn values_of_the_configuration(input in damaged("[0-9]{1,22}[smhdwKMGkg]?")) {
        checks::run("config_value", &input);
    }

    #[test]
    fn contents(input in damaged(content())) {
        checks::run("content", &input);
    }

    #[test]
    fn answers_of_the_agent(input in damaged(control_answer())) {
        checks::run("control_answer", &input);
    }

    #[test]
    fn questions_to_the_agent(input in damaged(control_request())) {
        checks::run("control_request", &input);
    }

    #[test]
    fn dropped_files(input in damaged(queue_file())) {
        checks::run("dropped_file", &input);
    }

    #[test]
    fn job_lines(input in damaged(job_line())) {
        checks::run("job_line", &input);
    }

    #[test]
    fn streams_of_job_lines(input in damaged(vec(job_line(), 0..4).prop_map(|lines| lines.join("\n") + "\n"))) {
        checks::run("line_reader", &input);
    }

    #[test]
    fn nexthops(input in damaged(nexthop())) {
        checks::run("nexthop", &input);
    }

    #[test]
    fn parameters_and_names(input in damaged(parameters())) {
        checks::run("parameters", &input);
    }

    #[test]
    fn queue_files_of_postfix(input in damaged(postfix_record())) {
        checks::run("postfix_record", &input);
    }

    #[test]
    fn requests_of_postfix(input in damaged(postfix_request())) {
        checks::run("postfix_request", &input);
    }

    #[test]
    fn queue_files(input in damaged(queue_file())) {
        checks::run("queue_file", &input);
    }

    #[test]
    fn replies(input in damaged(reply())) {
        checks::run("reply", &input);
    }

    #[test]
    fn reply_logs(input in damaged(reply_log())) {
        checks::run("reply_log", &input);
    }

    #[test]
    fn scripts(input in damaged(script())) {
        checks::run("script", &input);
    }

    #[test]
    fn eight_bit_messages(input in damaged(mime())) {
        checks::run("seven_bit", &input);
    }

    #[test]
    fn smtp_sessions(input in damaged(smtp_session())) {
        checks::run("smtp_session", &input);
    }
}
