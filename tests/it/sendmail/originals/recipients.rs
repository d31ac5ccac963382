//! Who gets the message: arguments, and the header with `-t`.

use super::case::{Case, case, misuse, refused, refuses, submits, submits_as};
use super::check;

/// The rest of a message that lacks nothing.
const REST: &str =
    "From: Ann <ann@x.example>\nDate: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <1@x.example>\n\nHi\n";

const TWICE: &str = "who is named twice gets one copy; Postfix's cleanup(8) sees to that later";
const TWO_COPIES: &str = "who is named twice gets two copies";
const GUESSED: &str = "words that make no address are addresses, each for itself: mail to whom nobody named";
const LAST_WORD: &str = "it takes the last word: mail to whom nobody named";
const BCC_LATER: &str = "its cleanup(8) removes the field later";
const BOUNCES: &str = "it is queued, and bounces: the caller believes that it was sent";
const SERVER: &str = "it leaves it to the server to refuse the address";
const COMPLETED: &str = "it has no domain for local names";
const UTF8_LATER: &str = "its cleanup(8) finds out later that SMTPUTF8 is needed";
const UTF8: &str = "it sends the address without asking for SMTPUTF8";

#[test]
fn in_arguments() {
    check(&[
        case(&["-f", "a@x", "b@y", "c@z"], submits("<a@x> -> <b@y>, <c@z>")),
        case(&["-f", "a@x", "b@y, c@z"], submits("<a@x> -> <b@y>, <c@z>")),
        case(&["-f", "a@x", "b@y,c@z", "d@w"], submits("<a@x> -> <b@y>, <c@z>, <d@w>")),
        case(&["-f", "a@x", "Bob Doe <b@y>"], submits("<a@x> -> <b@y>")),
        case(&["-f", "a@x", "<b@y>"], submits("<a@x> -> <b@y>")),
        case(&["-f", "a@x", "b@y (Bob)"], submits("<a@x> -> <b@y>")),
        case(&["-f", "a@x", " b@y "], submits("<a@x> -> <b@y>")),
        case(&["-f", "a@x", "friends: b@y, c@z;"], submits("<a@x> -> <b@y>, <c@z>")),
        case(&["-f", "a@x", "b@[192.0.2.1]"], submits("<a@x> -> <b@[192.0.2.1]>")),
        case(&["-f", "a@x", "b@y", "b@y"], submits("<a@x> -> <b@y>"))
            .postfix(submits("<a@x> -> <b@y>, <b@y>"), TWICE)
            .msmtp(submits("<a@x> -> <b@y>, <b@y>"), TWO_COPIES),
        case(&["-f", "a@x", "b@Y", "b@y"], submits("<a@x> -> <b@Y>"))
            .postfix(submits("<a@x> -> <b@Y>, <b@y>"), TWICE)
            .msmtp(submits("<a@x> -> <b@Y>, <b@y>"), TWO_COPIES),
        misuse(&["-f", "a@x"]),
        misuse(&[]),
        misuse(&["--"]),
    ]);
}

#[test]
fn in_arguments_that_name_nobody() {
    const LEFT_OUT: &str =
        "an argument that names nobody is left out: the caller believes that somebody gets the mail";
    let empty = |args: &[&str]| {
        case(args, refuses(65)).postfix(submits("<a@x> -> <>"), BOUNCES).msmtp(
            refuses(64),
            "to it the command line is wrong; to us it is the data, as the value of an argument is",
        )
    };
    check(&[
        empty(&["-f", "a@x", ""]),
        empty(&["-f", "a@x", ","]),
        empty(&["-f", "a@x", "<>"]),
        case(&["-f", "a@x", "b@y", ""], refuses(65))
            .postfix(submits("<a@x> -> <b@y>, <>"), BOUNCES)
            .msmtp(submits("<a@x> -> <b@y>"), LEFT_OUT),
    ]);
}

#[test]
fn in_arguments_that_are_no_address() {
    const CUT: &str = "what follows a line end is not looked at";
    let longer = format!("{}@y", "b".repeat(2000));
    let long_envelope = format!("<a@x> -> <{longer}>");
    let wrong = |argument: &str, by_postfix: &str, why, by_msmtp: &str, why_msmtp| {
        let case = case(&["-f", "a@x", argument], refuses(65));
        case.postfix(submits(by_postfix), why).msmtp(submits(by_msmtp), why_msmtp)
    };
    check(&[
        wrong("b@y c@z", "<a@x> -> <b@y>, <c@z>", GUESSED, "<a@x> -> <c@z>", LAST_WORD),
        wrong("b c", "<a@x> -> <b@example>, <c@example>", GUESSED, "<a@x> -> <c>", LAST_WORD),
        wrong("b@", "<a@x> -> <b@>", BOUNCES, "<a@x> -> <b@>", SERVER),
        wrong("@y", "<a@x> -> <@y>", BOUNCES, "<a@x> -> <@y>", SERVER),
        wrong("b@c@y", "<a@x> -> <\"b@c\"@y>", BOUNCES, "<a@x> -> <b@c@y>", SERVER),
        wrong("<b@y", "<a@x> -> <\"<b\"@y>", BOUNCES, "<a@x> -> <b@y>", "it guesses where the address ends"),
        wrong("b@y\nc@z", "<a@x> -> <b@y>, <c@z>", GUESSED, "<a@x> -> <b@y>", CUT),
        wrong("b@y\r\nDATA", "<a@x> -> <b@y>, <DATA@example>", GUESSED, "<a@x> -> <b@y>", CUT),
        wrong("b\u{1}@y", "<a@x> -> <\"b\u{1}\"@y>", BOUNCES, "<a@x> -> <b_@y>", "it writes another octet"),
        wrong(&longer, &long_envelope, BOUNCES, &long_envelope, SERVER),
    ]);
}

#[test]
fn quoted_and_beyond_ascii() {
    const QUOTED: &str = "it drops the quoted part of an address: mail to somebody else";
    let quoted = |argument: &str, envelope: &str| {
        case(&["-f", "a@x", argument], submits(envelope)).msmtp(submits("<a@x> -> <@y>"), QUOTED)
    };
    check(&[
        quoted("\"a b\"@y", "<a@x> -> <\"a b\"@y>"),
        quoted("\"b\"@y", "<a@x> -> <b@y>"),
        quoted("\"a\\\"b\"@y", "<a@x> -> <\"a\\\"b\"@y>"),
        quoted("\"a,b\"@y", "<a@x> -> <\"a,b\"@y>"),
        case(&["-f", "a@x", "j\u{fc}rgen@y"], submits("<a@x> SMTPUTF8 -> <j\u{fc}rgen@y>"))
            .postfix(submits("<a@x> -> <j\u{fc}rgen@y>"), UTF8_LATER)
            .msmtp(submits("<a@x> -> <j\u{fc}rgen@y>"), UTF8),
        case(&["-f", "a@x"], refuses(64))
            .octets(b"j\xfcrgen@y")
            .postfix(submits("<a@x> -> <j\u{fffd}rgen@y>"), BOUNCES)
            .msmtp(submits("<a@x> -> <j\u{fffd}rgen@y>"), SERVER),
    ]);
}

#[test]
fn local_ones() {
    check(&[
        case(&["-f", "a@x", "bob"], submits("<a@x> -> <bob@example>"))
            .msmtp(submits("<a@x> -> <bob>"), COMPLETED),
        case(&["-f", "a@x", "bob", "bob@example"], submits("<a@x> -> <bob@example>"))
            .postfix(submits("<a@x> -> <bob@example>, <bob@example>"), TWICE)
            .msmtp(submits("<a@x> -> <bob>, <bob@example>"), COMPLETED),
        case(&["-f", "a@x", "root"], submits("<a@x> -> <ann@alias.example> ORCPT=rfc822;root@example"))
            .postfix(submits("<a@x> -> <root@example>"), "its local(8) looks for aliases when it delivers")
            .msmtp(
                submits("<a@x> -> <ann@alias.example>"),
                "reports will name an address that the sender does not know",
            ),
        case(&["-f", "a@x", "root@example"], submits("<a@x> -> <root@example>")),
    ]);
}

/// A call with `-t` of a message that begins so, and keeps `left` of it.
fn header(fields: &str, args: &[&str], envelope: &str, left: &str) -> Case {
    let args = [&["-f", "a@x", "-t"], args].concat();
    case(&args, submits_as(envelope, format!("{left}{REST}"))).input(format!("{fields}{REST}"))
}

/// The same where nothing is removed.
fn kept(fields: &str, args: &[&str], envelope: &str) -> Case {
    header(fields, args, envelope, fields)
}

/// The same where Bcc is removed.
fn bcc(fields: &str, envelope: &str, left: &str) -> Case {
    header(fields, &[], envelope, left).postfix(submits(envelope), BCC_LATER)
}

#[test]
fn in_the_header() {
    let to_b = "<a@x> -> <b@y>";
    check(&[
        kept("To: b@y\n", &[], to_b),
        kept("Cc: b@y\n", &[], to_b),
        kept("to: b@y\nCC: c@z\n", &[], "<a@x> -> <b@y>, <c@z>"),
        kept("To: b@y\nTo: c@z\n", &[], "<a@x> -> <b@y>, <c@z>"),
        kept("To: b@y,\n\tc@z\n", &[], "<a@x> -> <b@y>, <c@z>"),
        kept("To: Bob <b@y>, \"Doe, C.\" <c@z>\n", &[], "<a@x> -> <b@y>, <c@z>"),
        kept("To: friends: b@y, c@z;\n", &[], "<a@x> -> <b@y>, <c@z>"),
        kept("To: b@y\n", &["c@z"], "<a@x> -> <c@z>, <b@y>"),
        kept("X-To: n@n\n", &["c@z"], "<a@x> -> <c@z>"),
        kept("To: bob\n", &[], "<a@x> -> <bob@example>").msmtp(submits("<a@x> -> <bob>"), COMPLETED),
        kept("To: b@y, b@y\n", &[], to_b)
            .postfix(submits("<a@x> -> <b@y>, <b@y>"), TWICE)
            .msmtp(submits("<a@x> -> <b@y>, <b@y>"), TWO_COPIES),
        kept("To: b@y\n", &["b@y"], to_b)
            .postfix(submits("<a@x> -> <b@y>, <b@y>"), TWICE)
            .msmtp(submits("<a@x> -> <b@y>, <b@y>"), TWO_COPIES),
        // RFC 5322 section 4.5: as old programs wrote it.
        kept("To : b@y\n", &[], to_b)
            .postfix(submits_as(to_b, format!("To: b@y\n{REST}")), "it writes the field as it should be")
            .msmtp(refuses(64), "to it that is no field"),
        kept("To: j\u{fc}rgen@y\n", &[], "<a@x> BODY=8BITMIME SMTPUTF8 -> <j\u{fc}rgen@y>")
            .postfix(submits("<a@x> -> <j\u{fc}rgen@y>"), UTF8_LATER)
            .msmtp(submits("<a@x> -> <j\u{fc}rgen@y>"), UTF8),
    ]);
}

#[test]
fn in_bcc() {
    let mut cases = vec![
        bcc("Bcc: b@y\n", "<a@x> -> <b@y>", ""),
        bcc("To: b@y\nCc: c@z\nBcc: d@w\n", "<a@x> -> <b@y>, <c@z>, <d@w>", "To: b@y\nCc: c@z\n"),
        bcc("Bcc: d@w\nTo: b@y\n", "<a@x> -> <d@w>, <b@y>", "To: b@y\n"),
        bcc("To: b@y\nBCC: d@w\n", "<a@x> -> <b@y>, <d@w>", "To: b@y\n"),
        bcc("To: b@y\nBcc: c@z,\n d@w\n", "<a@x> -> <b@y>, <c@z>, <d@w>", "To: b@y\n"),
        bcc("To: undisclosed-recipients:;\nBcc: b@y\n", "<a@x> -> <b@y>", "To: undisclosed-recipients:;\n"),
    ];
    let all = "<a@x> -> <c@z> NOTIFY=NEVER, <e@v> NOTIFY=NEVER";
    let input = format!("To: c@z\nBcc: e@v\n{REST}");
    cases.push(
        case(&["-f", "a@x", "-N", "never", "-t"], submits_as(all, format!("To: c@z\n{REST}")))
            .input(&input)
            .postfix(submits(all), BCC_LATER),
    );
    // Without -t nobody is added, and it is not for others to read either. A program that leaves it in counts on that.
    cases.push(
        case(&["-f", "a@x", "b@y"], submits_as("<a@x> -> <b@y>", format!("To: c@z\n{REST}")))
            .input(&input)
            .postfix(submits("<a@x> -> <b@y>"), BCC_LATER),
    );
    check(&cases);
}

#[test]
fn of_a_message_that_is_resent() {
    const ALSO_RESENT_BCC: &str = "it leaves Resent-Bcc for all to see";
    let blind = "<a@x> -> <c@z>, <d@w>";
    let fields = |left: &str| format!("To: b@y\n{left}{REST}");
    check(&[
        kept("To: b@y\nResent-To: c@z\n", &[], "<a@x> -> <c@z>"),
        bcc("To: b@y\nBcc: e@e\nResent-Cc: c@z\nResent-Bcc: d@w\n", blind, "To: b@y\nResent-Cc: c@z\n")
            .msmtp(submits_as(blind, fields("Resent-Cc: c@z\nResent-Bcc: d@w\n")), ALSO_RESENT_BCC),
        kept("To: b@y\nResent-From: a@x\n", &[], "<a@x> -> <b@y>")
            .msmtp(refuses(64), "Resent-From alone makes it a resent message, to nobody"),
    ]);
}

#[test]
fn of_a_header_that_names_nobody() {
    const DATA: &str = "the header is data: nothing is wrong with the command line";
    let none = |input: &str| refused(&["-f", "a@x", "-t"], 65).input(input).msmtp(refuses(64), DATA);
    check(&[
        none(REST),
        none(&format!("To: \n{REST}")),
        none(&format!("To: undisclosed-recipients:;\n{REST}")),
        none(""),
        none("no header\n\nTo: b@y\n"),
    ]);
}

#[test]
fn of_a_header_that_is_no_list() {
    let wrong = |fields: &str, by_postfix: &str, by_msmtp: &str, why| {
        let case = case(&["-f", "a@x", "-t"], refuses(65)).input(format!("{fields}{REST}"));
        case.postfix(submits(by_postfix), GUESSED).msmtp(submits(by_msmtp), why)
    };
    check(&[
        wrong("To: Ann Doe\n", "<a@x> -> <Ann@example>, <Doe@example>", "<a@x> -> <Doe>", LAST_WORD),
        wrong("To: b@y c@z\n", "<a@x> -> <b@y>, <c@z>", "<a@x> -> <c@z>", LAST_WORD),
        wrong("To: <b@y\n", "<a@x> -> <\"<b\"@y>", "<a@x> -> <b@y>", "it guesses where the address ends"),
        wrong(
            "To: b@y\nCc: \"c@z\n",
            "<a@x> -> <b@y>, <c@z>",
            "<a@x> -> <b@y>",
            "it leaves out what it cannot read",
        ),
    ]);
}
