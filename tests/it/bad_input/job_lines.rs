//! Job lines that are none, or lead nowhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;

use super::{
    assert_rests, assert_still_delivers, id, job, message, prepared, put, queue_file, submit, wait_for_files,
};
use crate::common::agent::{SOON, Site};
use crate::common::long::{is_long, short_or_long};
use crate::common::process::wait_for;
use crate::holding::{END_OF_DATA, Holding};

/// Bad lines that are logged in a minute; a table is cut by it.
const LOGGED_MAX: usize = 10;
/// Octets of a line.
const LINE_LENGTH_MAX: usize = 1 << 20;

/// What a line is, and what the log says of it.
const BAD_LINES: [(&str, &str); 36] = [
    ("rubbish", r#"does not begin with "{": "rubbish""#),
    ("Subject: a message in the wrong place", "does not begin"),
    ("[]", "does not begin"),
    ("\"incoming/bare\"", "does not begin"),
    ("null", "does not begin"),
    ("{", "the line is no JSON object"),
    ("{]}", "the line is no JSON object"),
    (r#"{"queue_file":"incoming/bare""#, "the line is no JSON object"),
    (r#"{"queue_file":"incoming/bare"} {}"#, "trailing characters"),
    (r#"{"queue_file":"incoming/bare","queue_file":"incoming/bare"}"#, "duplicate field"),
    ("{}", r#"no member \"queue_file\""#),
    (r#"{"sender":"a@x","recipients":["b@example.org"]}"#, r#"no member \"queue_file\""#),
    (r#"{"queue_file":5}"#, r#"the member \"queue_file\" cannot be used"#),
    (r#"{"queue_file":["incoming/bare"]}"#, r#"the member \"queue_file\" cannot be used"#),
    (r#"{"queue_file":"bare"}"#, "neither active/ID nor incoming/NAME"),
    (r#"{"queue_file":"/etc/passwd"}"#, "neither active/ID nor incoming/NAME"),
    (r#"{"queue_file":"deferred/0ABC"}"#, "neither active/ID nor incoming/NAME"),
    (r#"{"queue_file":"active/../incoming/bare"}"#, "does not end in a queue ID"),
    (
        r#"{"queue_file":"incoming/../../secret","sender":"","recipients":["b@example.org"]}"#,
        "a name of 1 to 64",
    ),
    (r#"{"queue_file":"incoming/.bare"}"#, "no dot in front"),
    (
        r#"{"queue_file":"incoming/bare\u0000","sender":"","recipients":["b@example.org"]}"#,
        "a name of 1 to 64",
    ),
    (r#"{"queue_file":"incoming/bare","recipients":["b@example.org"]}"#, r#"no member \"sender\""#),
    (r#"{"queue_file":"incoming/bare","sender":"a@example.org"}"#, r#"no member \"recipients\""#),
    (r#"{"queue_file":"incoming/bare","sender":7,"recipients":["b@example.org"]}"#, r#"member \"sender\""#),
    (
        r#"{"queue_file":"incoming/bare","sender":"a@x\r\nRCPT TO:<c@x>","recipients":["b@x"]}"#,
        r#"member \"sender\""#,
    ),
    (
        r#"{"queue_file":"incoming/bare","sender":"","recipients":"b@example.org"}"#,
        r#"member \"recipients\""#,
    ),
    (r#"{"queue_file":"incoming/bare","sender":"","recipients":[]}"#, "it is empty"),
    (r#"{"queue_file":"incoming/bare","sender":"","recipients":["b@example.org",7]}"#, "recipient 2"),
    (r#"{"queue_file":"incoming/bare","sender":"","recipients":["b@example.org",""]}"#, "recipient 2"),
    (r#"{"queue_file":"incoming/bare","sender":"","recipients":[{"notify":"FAILURE"}]}"#, "recipient 1"),
    (
        r#"{"queue_file":"incoming/bare","sender":"","recipients":[{"address":"b@x","notify":"SOME"}]}"#,
        "recipient 1",
    ),
    (
        r#"{"queue_file":"incoming/bare","sender":"","recipients":["b@x"],"nexthop":7}"#,
        r#"member \"nexthop\""#,
    ),
    (
        r#"{"queue_file":"incoming/bare","sender":"","recipients":["b@x"],"smtputf8":"yes"}"#,
        r#"member \"smtputf8\""#,
    ),
    (r#"{"queue_file":"incoming/bare","sender":"","recipients":["b@x"],"ret":"SOME"}"#, r#"member \"ret\""#),
    (
        r#"{"queue_file":"incoming/bare","sender":"","recipients":["b@x"],"envid":"a\u001b[2J"}"#,
        r#"member \"envid\""#,
    ),
    (
        r#"{"queue_file":"incoming/bare","sender":"","recipients":["b@x"],"nexthop":"unix:/a\r\nb"}"#,
        r#"member \"nexthop\""#,
    ),
];

/// Each is named by its error, the file stays, and the next line is read as if nothing had been.
#[test]
fn a_line_that_is_no_job_is_logged_and_its_file_stays() {
    let (site, server) = prepared("");
    fs::write(site.path().join("secret"), "secret").unwrap();
    site.drop_message("bare", message("bare").as_bytes());
    for lines in BAD_LINES.chunks(LOGGED_MAX) {
        let agent = site.start_agent();
        for (line, told) in lines {
            let before = site.lines_with(&["error: "]).len();
            site.write_to_fifo(format!("\n{line}\n").as_bytes());
            let logged = site.wait_for_lines(before + 1, &["error: "], SOON);
            let logged = logged.last().unwrap();
            let told = told.replace("\\\"", "\"");
            assert!(logged.contains("agent[") && logged.contains("error: job line skipped: "), "{logged}");
            assert!(logged.contains(&told), "{line}: {logged}, not {told}");
        }
        assert_eq!(site.files(), ["incoming/bare"]);
        agent.stop();
    }
    let agent = site.start_agent();
    site.write_job(&job("bare", "b@example.org"));
    server.wait_for_mail_of(&site, "b@example.org", 1);
    wait_for_files(&site, &[]);
    assert_eq!(server.count(), 1);
    assert_eq!(fs::read_to_string(site.path().join("secret")).unwrap(), "secret");
    agent.stop();
}

#[test]
fn octets_that_are_no_text_do_not_reach_the_log_as_they_are() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    let random = fastrand::Rng::with_seed(7).u64(..).to_be_bytes().repeat(40);
    for (octets, shown) in [
        (&b"\x00\x01\x02\x7f\xff\xfe"[..], r#""\x00\x01\x02\x7f\xff\xfe""#),
        (b"{\"queue_file\":\"incoming/x\x1b[2J\x07\"}", r#"incoming/x\x1b[2J\x07"#),
        (b"{\"queue_file\":\"incoming/\xc3\"}", r#"incoming/\xc3"#),
        ("{\"queue_file\":\"incoming/\u{202e}gnp\"}".as_bytes(), r#"incoming/\xe2\x80\xaegnp"#),
        (b"\0{\"queue_file\":\"incoming/x\"}", r#""\x00{\"#),
        (&[0; 5000], r#"\x00\x00"..."#),
        (&random, "job line skipped"),
        // What is said about a line could repeat all of it.
        (&[&b"{\"queue_file\":\""[..], &[b'x'; 100_000], b"\"}"].concat(), "xxx"),
    ] {
        let before = site.lines_with(&["error: job line skipped: "]).len();
        site.write_to_fifo(&[b"\n", octets, b"\n"].concat());
        let logged = site.wait_for_lines(before + 1, &["error: job line skipped: "], SOON);
        let logged = logged.last().unwrap();
        let shown = shown.replace("\"...", "...\"");
        assert!(logged.contains(&shown), "{logged}, not {shown}");
        // 200 octets of four characters each, and about the same of what is said about them.
        assert!(logged.is_ascii() && logged.len() < 2000, "{} octets: {logged}", logged.len());
        assert!(!logged.contains(|c: char| c.is_control()), "{logged:?}");
    }
    assert_still_delivers(&site, &server);
    agent.stop();
}

#[test]
fn ten_bad_lines_are_told_in_a_minute_and_then_their_number() {
    const LINES: usize = 35;
    let (site, server) = prepared("");
    let agent = site.start_agent();
    for number in 0..LINES {
        site.write_to_fifo(format!("\nrubbish {number}\n").as_bytes());
    }
    // What comes after them is taken, whatever their number.
    site.drop_message("good", message("good").as_bytes());
    site.write_job(&job("good", "b@example.org"));
    server.wait_for_mail_of(&site, "b@example.org", 1);
    let told = site.lines_with(&["error: job line skipped: "]);
    assert_eq!(told.len(), LOGGED_MAX, "{told:?}");
    assert!(told[9].contains("rubbish 9"), "{told:?}");
    if is_long() {
        let count =
            format!("error: {} more bad job lines were skipped in the last minute", LINES - LOGGED_MAX);
        site.wait_for_line(&[&count], Duration::from_secs(75));
        site.write_to_fifo(b"\nrubbish again\n");
        site.wait_for_line(&["rubbish again"], SOON);
        assert_eq!(site.lines_with(&["more bad job lines"]).len(), 1);
    }
    agent.stop();
}

#[test]
fn a_stop_tells_the_number_of_bad_lines_that_were_not_told() {
    let (site, _server) = prepared("");
    let agent = site.start_agent();
    site.write_to_fifo(b"\nrubbish\n".repeat(12).as_slice());
    site.wait_for_lines(LOGGED_MAX, &["error: job line skipped: "], SOON);
    agent.stop();
    site.wait_for_line(&["error: 2 more bad job lines were skipped"], SOON);
}

/// The longest line that is one, one octet more, and one that does not end for three times as long.
#[test]
fn a_line_has_a_mebibyte_and_what_is_longer_spoils_only_itself() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    for (name, length) in [("fits", LINE_LENGTH_MAX), ("exceeds", LINE_LENGTH_MAX + 1), ("endless", 3 << 20)]
    {
        site.drop_message(name, message(name).as_bytes());
        let line = job(name, &format!("{name}@example.org")).to_string();
        let line = line.replacen('{', &format!("{{{}", " ".repeat(length - line.len())), 1);
        assert_eq!(line.len(), length);
        site.write_to_fifo(format!("\n{line}\n").as_bytes());
    }
    site.drop_message("next", message("next").as_bytes());
    site.write_job(&job("next", "next@example.org"));
    server.wait_for_mail_of(&site, "next@example.org", 1);
    server.wait_for_mail_of(&site, "fits@example.org", 1);
    let told = site.lines_with(&["error: job line skipped: it is longer than 1048576 octets"]);
    assert_eq!((told.len(), site.lines_with(&["error: "]).len()), (2, 2), "{}", site.log());
    wait_for_files(&site, &["incoming/endless", "incoming/exceeds"]);
    agent.stop();
}

#[test]
fn a_torn_line_spoils_itself_whatever_it_is_torn_in() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    let torn = job("torn", "torn@example.org").to_string();
    site.drop_message("torn", message("torn").as_bytes());
    // Within a word, a string, behind a member, before the last bracket: never more than are logged.
    for (number, at) in [1, 5, 20, 31, 55, torn.len() - 1].into_iter().enumerate() {
        let name = format!("whole{number}");
        site.drop_message(&name, message(&name).as_bytes());
        site.write_to_fifo(&torn.as_bytes()[..at]);
        site.write_job(&job(&name, &format!("{name}@example.org")));
        server.wait_for_mail_of(&site, &format!("{name}@example.org"), 1);
    }
    assert_eq!(site.lines_with(&["error: job line skipped: "]).len(), 6, "{}", site.log());
    wait_for_files(&site, &["incoming/torn"]);
    agent.stop();
}

#[test]
fn members_that_nobody_knows_and_nulls_change_nothing() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    let mut odd = job("odd", "b@example.org");
    for (member, value) in [
        ("priority", json!(9)),
        ("nested", json!({"deep": [1, {"sender": "c@example.org"}]})),
        ("nexthop", json!(null)),
        ("envid", json!(null)),
        ("ret", json!(null)),
        ("Sender", json!("other@example.org")),
    ] {
        odd[member] = value;
    }
    site.drop_message("odd", message("odd").as_bytes());
    site.write_job(&odd);
    let mail = server.wait_for_mail_of(&site, "b@example.org", 1);
    assert_eq!((mail[0].sender.as_str(), mail[0].recipients.len()), ("a@example.org", 1));
    assert!(site.lines_with(&["error: "]).is_empty(), "{}", site.log());
    agent.stop();
}

#[test]
fn a_nexthop_that_cannot_be_used_is_told_and_the_file_stays() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    site.drop_message("bare", message("bare").as_bytes());
    for nexthop in ["gone:unix:/x", "", "unix:", "lmtp:inet:[::1", "a b c:0", "unix:/a,:"] {
        let before = site.lines_with(&["error: job line for incoming/bare skipped: nexthop "]).len();
        let mut job = job("bare", "b@example.org");
        job["nexthop"] = json!(nexthop);
        site.write_job(&job);
        let told = ["error: job line for incoming/bare skipped: nexthop ", "the file stays"];
        site.wait_for_lines(before + 1, &told, SOON);
        assert_eq!(site.files(), ["incoming/bare"], "{nexthop}");
    }
    site.write_job(&job("bare", "b@example.org"));
    server.wait_for_mail_of(&site, "b@example.org", 1);
    agent.stop();
}

#[test]
fn a_list_of_very_many_recipients_reaches_each_of_them_once() {
    let count = short_or_long(5_000, 100_000);
    let (site, server) = prepared("active_limit = 2000\n");
    let agent = site.start_agent();
    let address = |number: usize| format!("{number:x}@x");
    let mut list = job("list", "nobody");
    list["recipients"] = (0..count).map(address).collect();
    site.drop_message("list", message("list").as_bytes());
    site.write_job(&list);
    let limit = short_or_long(SOON, Duration::from_secs(600));
    site.wait_for_line(&[": removed"], limit);
    let mut reached: Vec<_> = server.all().into_iter().flat_map(|received| received.recipients).collect();
    reached.sort();
    let mut expected: Vec<_> = (0..count).map(address).collect();
    expected.sort();
    assert!(reached == expected, "{} of {count} were reached", reached.len());
    agent.stop();
}

#[test]
fn a_file_that_is_named_twice_is_one_message() {
    let (site, server) = prepared("");
    let agent = site.start_agent();
    let path = site.drop_message("twice", message("twice").as_bytes());
    let line = format!("\n{}\n", job("twice", "b@example.org"));
    site.write_to_fifo(line.repeat(5).as_bytes());
    server.wait_for_mail_of(&site, "b@example.org", 1);
    let told = format!("job line for {path}: there is no such file (any more)");
    site.wait_for_lines(4, &["pickup", &told], SOON);
    wait_for_files(&site, &[]);
    assert_eq!(server.count(), 1);
    assert!(site.lines_with(&["error: "]).is_empty(), "{}", site.log());
    agent.stop();
}

#[test]
fn a_line_for_a_message_that_is_elsewhere_does_nothing() {
    let (site, server) = prepared("");
    for place in ["deferred", "hold", "corrupt"] {
        let id = id(place.len());
        let path = put(&site, &format!("{place}/{id}"), queue_file(&id, &["b@example.org"], "X: y\r\n\r\n"));
        // In deferred/ this is when it is tried next.
        let hour = std::time::SystemTime::now() + Duration::from_secs(3600);
        fs::File::options().write(true).open(path).unwrap().set_modified(hour).unwrap();
    }
    let before = site.files();
    let agent = site.start_agent();
    for place in ["deferred", "hold", "corrupt"] {
        site.write_job(&json!({"queue_file": format!("active/{}", id(place.len()))}));
        site.write_job(&json!({"queue_file": format!("{place}/{}", id(place.len()))}));
    }
    site.wait_for_lines(3, &["error: job line skipped: ", "is neither active/ID nor incoming/NAME"], SOON);
    assert_still_delivers(&site, &server);
    wait_for("the mail after them to go", SOON, || (site.files() == before).then_some(()));
    assert_eq!(server.count(), 1);
    agent.stop();
}

#[test]
fn a_line_for_a_message_that_is_under_way_does_not_double_it() {
    let site = Site::new("");
    let server = Holding::start(&site, &[END_OF_DATA, "none"]);
    site.configure(&format!(
        "default_transport = \"unix:{}\"\nbounce_nexthop = \"unix:/nowhere\"\n",
        server.socket.display()
    ));
    let agent = site.start_agent();
    submit(&site, "under way", &["b@example.org"]);
    server.wait_until_it_holds(&site);
    let files = site.files();
    assert_eq!(files.len(), 1, "{files:?}");
    for _ in 0..20 {
        site.write_job(&json!({"queue_file": files[0]}));
    }
    site.write_to_fifo(b"\nlast of them\n");
    site.wait_for_line(&["last of them"], SOON);
    server.release();
    wait_for_files(&site, &[]);
    // Lines that are read when the message has gone lead nowhere.
    site.write_job(&json!({"queue_file": files[0]}));
    assert_rests(&site, &agent);
    assert_eq!(server.stored(), [["b@example.org"]]);
    assert_eq!(site.lines_with(&["status=sent"]).len(), 1, "{}", site.log());
    agent.stop();
}

/// What leads out of the directory by a link is refused where it is opened.
#[test]
fn a_link_that_a_line_names_is_set_aside_and_never_read() {
    let (site, server) = prepared("");
    let secret = site.path().join("secret");
    fs::write(&secret, message("secret")).unwrap();
    let agent = site.start_agent();
    for (name, target) in
        [("absolute", secret.clone()), ("relative", "../../secret".into()), ("dangling", "/none".into())]
    {
        symlink(target, site.queue().join("incoming").join(name)).unwrap();
        site.write_job(&job(name, "b@example.org"));
        site.wait_for_line(
            &["pickup", "error: ", &format!("incoming/{name} is not queued: it is a link")],
            SOON,
        );
    }
    assert_still_delivers(&site, &server);
    wait_for("what is left", SOON, || (site.files().len() == 3).then_some(()));
    assert!(site.files().iter().all(|file| file.starts_with("corrupt/")), "{:?}", site.files());
    assert!(server.mail_of("b@example.org").is_empty());
    assert_eq!(fs::read_to_string(&secret).unwrap(), message("secret"));
    agent.stop();
}
