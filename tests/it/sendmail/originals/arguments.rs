//! Options for the envelope, options that mean nothing any more, and how they are written.

use super::case::{Case, case, misuse, refuses, submits, submits_as};
use super::check;

/// An address goes out as it was written: the server is to say what is wrong with it.
const AS_WRITTEN: &str = "it sends addresses as they are written, and leaves it to the server to refuse them";
/// msmtp: options that others have.
const NO_OPTION: &str =
    "it does not have the option; callers pass it, and for us a sendmail has the options of Postfix's";
const VALUE_IGNORED: &str =
    "it warns and goes on without: the sender would wait for reports that never come, or get the wrong ones";
const VERP: &str = "two characters after -V are its old way to ask for VERP, which we do not have";

#[test]
fn the_sender() {
    check(&[
        case(&["b@y"], submits("<me> -> <b@y>")),
        case(&["-f", "a@x", "b@y"], submits("<a@x> -> <b@y>")),
        case(&["-fa@x", "b@y"], submits("<a@x> -> <b@y>")),
        case(&["-r", "a@x", "b@y"], submits("<a@x> -> <b@y>")).msmtp(refuses(64), NO_OPTION),
        case(&["-ra@x", "b@y"], submits("<a@x> -> <b@y>")).msmtp(refuses(64), NO_OPTION),
        case(&["-f", "a@x", "-f", "c@z", "b@y"], submits("<c@z> -> <b@y>")),
        case(&["-f", "a@x", "-r", "c@z", "b@y"], submits("<c@z> -> <b@y>")).msmtp(refuses(64), NO_OPTION),
        case(&["-f", "", "b@y"], submits("<> -> <b@y>")),
        case(&["-r", "", "b@y"], submits("<> -> <b@y>")).msmtp(refuses(64), NO_OPTION),
        case(&["-f", "<>", "b@y"], submits("<> -> <b@y>")),
        case(&["-f<>", "b@y"], submits("<> -> <b@y>")),
        case(&["-f", " ", "b@y"], submits("<> -> <b@y>")).msmtp(submits("< > -> <b@y>"), AS_WRITTEN),
        case(&["-f", "<a@x>", "b@y"], submits("<a@x> -> <b@y>"))
            .msmtp(submits("<a@x>> -> <b@y>"), AS_WRITTEN),
        case(&["-f", "Ann Doe <a@x>", "b@y"], submits("<a@x> -> <b@y>"))
            .msmtp(submits("<Ann Doe <a@x>> -> <b@y>"), AS_WRITTEN),
        case(&["-f", "a@x (Ann)", "b@y"], submits("<a@x> -> <b@y>"))
            .msmtp(submits("<a@x (Ann)> -> <b@y>"), AS_WRITTEN),
        case(&["-f", "ann", "b@y"], submits("<ann@example> -> <b@y>"))
            .msmtp(submits("<ann> -> <b@y>"), AS_WRITTEN),
        case(&["-f", "\"a b\"@x", "b@y"], submits("<\"a b\"@x> -> <b@y>")),
        case(&["-f", "j\u{fc}rgen@x", "b@y"], submits("<j\u{fc}rgen@x> SMTPUTF8 -> <b@y>"))
            .postfix(
                submits("<j\u{fc}rgen@x> -> <b@y>"),
                "its cleanup(8) finds out later that SMTPUTF8 is needed",
            )
            .msmtp(submits("<j\u{fc}rgen@x> -> <b@y>"), "it sends the address without asking for SMTPUTF8"),
        case(&["-f", "-i", "b@y"], submits("<-i@example> -> <b@y>"))
            .msmtp(submits("<-i> -> <b@y>"), AS_WRITTEN),
        misuse(&["-f"]),
        misuse(&["-r"]),
    ]);
}

#[test]
fn what_is_no_sender() {
    const FIRST: &str =
        "it warns and takes the first address: bounces would go to one whom nobody has chosen";
    check(&[
        case(&["-f", "a@x, c@z", "b@y"], refuses(65))
            .postfix(submits("<a@x> -> <b@y>"), FIRST)
            .msmtp(submits("<a@x, c@z> -> <b@y>"), AS_WRITTEN),
        case(&["-f", "a b", "b@y"], refuses(65))
            .postfix(submits("<a@example> -> <b@y>"), FIRST)
            .msmtp(submits("<a b> -> <b@y>"), AS_WRITTEN),
        case(&["-f", "a@x\nRCPT TO:<c@z>", "b@y"], refuses(65)).postfix(submits("<a@x> -> <b@y>"), FIRST),
        case(&["-f", "a\rb@x", "b@y"], refuses(65)).postfix(submits("<a@example> -> <b@y>"), FIRST).msmtp(
            submits("<a\rb@x> -> <b@y>"),
            "it sends the CR, which some servers take for the end of the command",
        ),
        case(&["-f", "a@", "b@y"], refuses(65))
            .postfix(submits("<a@> -> <b@y>"), "its cleanup(8) makes a local name of it")
            .msmtp(submits("<a@> -> <b@y>"), AS_WRITTEN),
    ]);
}

#[test]
fn notify() {
    let never = "<a@x> -> <b@y> NOTIFY=NEVER, <c@z> NOTIFY=NEVER";
    let bare = submits("<a@x> -> <b@y>");
    const SMALL: &str = "it takes small letters only";
    check(&[
        case(&["-f", "a@x", "-N", "never", "b@y", "c@z"], submits(never)),
        case(&["-f", "a@x", "-Nfailure", "b@y"], submits("<a@x> -> <b@y> NOTIFY=FAILURE")),
        case(&["-f", "a@x", "-N", "delay", "b@y"], submits("<a@x> -> <b@y> NOTIFY=DELAY")),
        case(
            &["-f", "a@x", "-N", "success,delay,failure", "b@y"],
            submits("<a@x> -> <b@y> NOTIFY=SUCCESS,FAILURE,DELAY"),
        )
        .msmtp(submits("<a@x> -> <b@y> NOTIFY=SUCCESS,DELAY,FAILURE"), "the order means nothing"),
        case(&["-f", "a@x", "-N", "SUCCESS", "b@y"], submits("<a@x> -> <b@y> NOTIFY=SUCCESS"))
            .msmtp(refuses(64), SMALL),
        case(&["-f", "a@x", "-N", "never", "-N", "delay", "b@y"], submits("<a@x> -> <b@y> NOTIFY=DELAY")),
        case(&["-f", "a@x", "-N", "failure,failure", "b@y"], submits("<a@x> -> <b@y> NOTIFY=FAILURE"))
            .msmtp(refuses(64), "it wants each word once"),
        case(&["-f", "a@x", "-N", "maybe", "b@y"], refuses(64)).postfix(bare.clone(), VALUE_IGNORED),
        case(&["-f", "a@x", "-N", "never,failure", "b@y"], refuses(64)).postfix(bare.clone(), VALUE_IGNORED),
        case(&["-f", "a@x", "-N", "failure,", "b@y"], refuses(64))
            .postfix(submits("<a@x> -> <b@y> NOTIFY=FAILURE"), "it passes over empty words"),
        case(&["-f", "a@x", "-N", "", "b@y"], refuses(64)).postfix(bare, VALUE_IGNORED),
        misuse(&["-N"]),
    ]);
}

#[test]
fn ret_and_envid() {
    let hundred = "x".repeat(100);
    let with_hundred = format!("<a@x> ENVID={hundred} -> <b@y>");
    let bare = || submits("<a@x> -> <b@y>");
    check(&[
        case(&["-f", "a@x", "-R", "hdrs", "b@y"], submits("<a@x> RET=HDRS -> <b@y>")),
        case(&["-f", "a@x", "-Rfull", "b@y"], submits("<a@x> RET=FULL -> <b@y>")),
        case(&["-f", "a@x", "-R", "HDRS", "b@y"], submits("<a@x> RET=HDRS -> <b@y>"))
            .msmtp(refuses(64), "it takes small letters only"),
        case(&["-f", "a@x", "-R", "half", "b@y"], refuses(64)).postfix(bare(), VALUE_IGNORED),
        misuse(&["-R"]),
        case(&["-f", "a@x", "-V", "QQ7", "b@y"], submits("<a@x> ENVID=QQ7 -> <b@y>"))
            .msmtp(refuses(64), NO_OPTION),
        case(&["-f", "a@x", "-VQQ7", "b@y"], submits("<a@x> ENVID=QQ7 -> <b@y>"))
            .msmtp(refuses(64), NO_OPTION),
        case(&["-f", "a@x", "-V", "a b", "b@y"], submits("<a@x> ENVID=a b -> <b@y>"))
            .msmtp(refuses(64), NO_OPTION),
        case(&["-f", "a@x", "-V", &hundred, "b@y"], submits(&with_hundred)).msmtp(refuses(64), NO_OPTION),
        case(&["-f", "a@x", "-V", &"x".repeat(101), "b@y"], refuses(64)).postfix(bare(), VALUE_IGNORED),
        case(&["-f", "a@x", "-V", "a\tb", "b@y"], refuses(64)).postfix(bare(), VALUE_IGNORED),
        case(&["-f", "a@x", "-V", "\u{fc}ber", "b@y"], refuses(64)).postfix(bare(), VALUE_IGNORED),
        case(&["-f", "a@x", "-V", "", "b@y"], refuses(64)).postfix(bare(), VALUE_IGNORED),
        misuse(&["-V"]),
    ]);
}

#[test]
fn verp() {
    const QQ: &str = "<a@x> VERP=+= -> <QQ@example>, <b@y>";
    const ALONE: &str = "it has VERP with the delimiters of its configuration";
    const LOG: &str = "it writes a log file of that name";
    check(&[
        // An envelope ID may have two characters.
        case(&["-f", "a@x", "-V", "QQ", "b@y"], submits("<a@x> ENVID=QQ -> <b@y>"))
            .postfix(submits(QQ), "two characters after -V ask for VERP, and then \"QQ\" gets the mail too")
            .msmtp(refuses(64), NO_OPTION),
        case(&["-f", "a@x", "-VQQ", "b@y"], submits("<a@x> ENVID=QQ -> <b@y>"))
            .postfix(refuses(75), VERP)
            .msmtp(refuses(64), NO_OPTION),
        case(&["-f", "a@x", "-V", "+=", "b@y"], refuses(64))
            .postfix(submits("<a@x> VERP=+= -> <+=@example>, <b@y>"), VERP),
        case(&["-f", "a@x", "-V+=", "b@y"], refuses(64)).postfix(submits("<a@x> VERP=+= -> <b@y>"), VERP),
        case(&["-f", "a@x", "-XV", "b@y"], refuses(64))
            .postfix(submits("<a@x> VERP=+= -> <b@y>"), ALONE)
            .msmtp(submits("<a@x> -> <b@y>"), LOG),
        case(&["-f", "a@x", "-XV+=", "b@y"], refuses(64))
            .postfix(submits("<a@x> VERP=+= -> <b@y>"), ALONE)
            .msmtp(submits("<a@x> -> <b@y>"), LOG),
    ]);
}

#[test]
fn the_body_type() {
    const SEEN: &str = "we look at the content, which cannot be wrong";
    let eight_bits = "From: a@x\nDate: Sat, 21 Nov 2026 19:30:00 +0000\nMessage-ID: <1@x>\n\nf\u{fc}r\n";
    let bare = || submits("<a@x> -> <b@y>");
    check(&[
        case(&["-f", "a@x", "-B", "8BITMIME", "b@y"], bare())
            .postfix(submits("<a@x> BODY=8BITMIME -> <b@y>"), SEEN),
        case(&["-f", "a@x", "-B8BITMIME", "b@y"], bare())
            .postfix(submits("<a@x> BODY=8BITMIME -> <b@y>"), SEEN),
        case(&["-f", "a@x", "-B", "7BIT", "b@y"], bare()).postfix(submits("<a@x> BODY=7BIT -> <b@y>"), SEEN),
        case(&["-f", "a@x", "-B", "BINARY", "b@y"], bare()).postfix(refuses(75), SEEN),
        case(&["-f", "a@x", "b@y"], submits("<a@x> BODY=8BITMIME -> <b@y>"))
            .input(eight_bits)
            .postfix(bare(), "its cleanup(8) looks at the content later")
            .msmtp(bare(), "it sends eight bits without saying so"),
        misuse(&["-B"]),
    ]);
}

#[test]
fn the_full_name() {
    let input = "Subject: x\n\nbody\n";
    let rest = "Date: *\nMessage-ID: <*@mx.example>\n\nbody\n";
    let named = |args: &[&str], from: &str, by_msmtp: &str| {
        case(args, submits_as("<a@x> -> <b@y>", format!("Subject: x\nFrom: {from}\n{rest}")))
            .input(input)
            .postfix(submits("<a@x> -> <b@y>"), "its cleanup(8) adds From later")
            .msmtp(
                submits_as(
                    "<a@x> -> <b@y>",
                    format!("From: {by_msmtp}\nDate: *\nMessage-ID: <*@x>\n{input}"),
                ),
                "what it adds stands first; a name is written as it is",
            )
    };
    check(&[
        named(&["-f", "a@x", "-F", "Ann B. Doe", "b@y"], "\"Ann B. Doe\" <a@x>", "Ann B. Doe <a@x>"),
        named(&["-f", "a@x", "-FAnn", "b@y"], "\"Ann\" <a@x>", "Ann <a@x>"),
        named(&["-f", "a@x", "b@y"], "\"Ann Doe\" <a@x>", "a@x"),
        named(&["-f", "a@x", "-F", "", "b@y"], "<a@x>", " <a@x>"),
        // With a line end in it, what msmtp writes has one field more.
        named(&["-f", "a@x", "-F", "Ann\nBcc: c@z", "b@y"], "\"Ann Bcc: c@z\" <a@x>", "Ann\nBcc: c@z <a@x>"),
        misuse(&["-F"]),
    ]);
}

fn with_options(line: &str) -> Case {
    let args: Vec<_> = ["-f", "a@x"].into_iter().chain(line.split(' ')).chain(["b@y"]).collect();
    case(&args, submits("<a@x> -> <b@y>"))
}

#[test]
fn what_means_nothing_any_more() {
    let mut cases = Vec::new();
    for line in [
        "-bm", "-b m", "-odi", "-odb", "-odq", "-oem", "-oee", "-om", "-o7", "-o8", "-oQ/x", "-oA/x", "-o m",
        "-O Opt=1", "-OOpt=1", "-Am", "-Ac", "-A c", "-h 3", "-h3", "-L tag", "-Ltag", "-m", "-i", "-oi",
        "-o i", "-vv",
    ] {
        cases.push(with_options(line));
    }
    for line in ["-em", "-ee", "-e m", "-U", "-p SMTP:x", "-pSMTP:x", "-x", "-c", "-mxUc"] {
        cases.push(with_options(line).msmtp(refuses(64), NO_OPTION));
    }
    check(&cases);
}

#[test]
fn what_means_something_to_an_original() {
    check(&[
        with_options("-G").postfix(
            submits("<a@x> REMOTE -> <b@y>"),
            "its cleanup(8) will complete less; we change no header",
        ),
        with_options("-v").postfix(
            submits("<a@x> TRACE=1024 -> <b@y>"),
            "it mails a report when the delivery is done; callers pass -v out of habit, and want none",
        ),
        with_options("-n").postfix(refuses(75), "it cannot leave aliases out; we can"),
        with_options("-C nowhere.cf")
            .postfix(refuses(75), "another configuration; a file for another program says nothing to us")
            .msmtp(refuses(74), "another configuration; a file for another program says nothing to us"),
        with_options("-X log")
            .postfix(refuses(75), "only -XV means something to it; Sendmail logs the conversation there"),
    ]);
}

#[test]
fn how_options_are_written() {
    check(&[
        case(&["-tfa@x"], submits("<a@x> -> <bob@y.example>")),
        case(&["-itfa@x"], submits("<a@x> -> <bob@y.example>")),
        case(&["-tf", "a@x"], submits("<a@x> -> <bob@y.example>")),
        case(&["-f", "a@x", "-ti"], submits("<a@x> -> <bob@y.example>")),
        case(&["-f", "a@x", "-iN", "never", "b@y"], submits("<a@x> -> <b@y> NOTIFY=NEVER")),
        misuse(&["-f", "a@x", "-z", "b@y"]),
        misuse(&["-f", "a@x", "-iz", "b@y"]),
        misuse(&["-f", "a@x", "-8", "b@y"]),
        misuse(&["-f", "a@x", "--unknown", "b@y"]),
        misuse(&["-f", "a@x", "--unknown=1", "b@y"]),
        misuse(&["-f", "a@x", "-\u{e9}", "b@y"]),
    ]);
    check(&["-o", "-O", "-A", "-C", "-L", "-X", "-b", "-e", "-h", "-p"].map(|option| misuse(&[option])));
}

#[test]
fn where_options_end() {
    const RECIPIENTS: &str = "what follows a recipient is one: a mistake becomes mail to a user \"-f\"";
    const ANYWHERE: &str =
        "it takes options anywhere; then a recipient from a form on a web page can be an option";
    check(&[
        case(&["-f", "a@x", "--", "b@y"], submits("<a@x> -> <b@y>")),
        case(&["-f", "a@x", "--", "-b@y"], submits("<a@x> -> <-b@y>")),
        case(&["-f", "a@x", "--", "-f"], submits("<a@x> -> <-f@example>"))
            .msmtp(submits("<a@x> -> <-f>"), AS_WRITTEN),
        case(&["-f", "a@x", "--", "b@y", "--", "c@z"], submits("<a@x> -> <b@y>, <--@example>, <c@z>"))
            .msmtp(submits("<a@x> -> <b@y>, <-->, <c@z>"), AS_WRITTEN),
        case(&["-f", "a@x", "--", "--"], submits("<a@x> -> <--@example>"))
            .msmtp(submits("<a@x> -> <-->"), AS_WRITTEN),
        case(&["-f", "a@x", "-"], submits("<a@x> -> <-@example>")).msmtp(submits("<a@x> -> <->"), AS_WRITTEN),
        case(&["b@y", "-f", "a@x"], refuses(64))
            .postfix(submits("<me> -> <b@y>, <-f@example>, <a@x>"), RECIPIENTS)
            .msmtp(submits("<a@x> -> <b@y>"), ANYWHERE),
        case(&["b@y", "-f"], refuses(64)).postfix(submits("<me> -> <b@y>, <-f@example>"), RECIPIENTS),
        case(&["b@y", "-i"], refuses(64))
            .postfix(submits("<me> -> <b@y>, <-i@example>"), RECIPIENTS)
            .msmtp(submits("<me> -> <b@y>"), ANYWHERE),
        case(&["-f", "a@x", "b@y", "--", "c@z"], refuses(64))
            .postfix(submits("<a@x> -> <b@y>, <--@example>, <c@z>"), RECIPIENTS)
            .msmtp(submits("<a@x> -> <b@y>, <c@z>"), ANYWHERE),
        case(&["-f", "a@x", "b@y", "-c@z"], submits("<a@x> -> <b@y>, <-c@z>")).msmtp(refuses(64), ANYWHERE),
    ]);
}
