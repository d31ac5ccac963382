//! Command lines, well and badly spelled.

use std::os::unix::ffi::OsStrExt as _;

use super::*;
use proptest::prelude::*;

/// "''" stands for an empty argument, as in a shell.
fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(|word| if word == "''" { "".into() } else { word.into() }).collect()
}

fn parse_as(role: Role, line: &str) -> Result<Options, UsageError> {
    Options::parse(role, false, &words(line))
}

fn parse(line: &str) -> Result<Options, UsageError> {
    parse_as(Role::Sendmail, line)
}

fn strictly(line: &str) -> Result<Options, UsageError> {
    Options::parse(Role::Sendmail, true, &words(line))
}

fn to(recipients: &[&str]) -> Options {
    Options { recipients: recipients.iter().map(ToString::to_string).collect(), ..Options::default() }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn values_are_attached_or_follow() {
    for (line, expected) in [
        ("", Options::default()),
        ("-fa@x b@y", Options { sender: some("a@x"), ..to(&["b@y"]) }),
        ("-f a@x", Options { sender: some("a@x"), ..Options::default() }),
        ("-r a@x", Options { sender: some("a@x"), ..Options::default() }),
        ("-f b@x -fa@x", Options { sender: some("a@x"), ..Options::default() }),
        ("-f ''", Options { sender: some(""), ..Options::default() }),
        ("-f <>", Options { sender: some("<>"), ..Options::default() }),
        ("-f -- b@y", Options { sender: some("--"), ..to(&["b@y"]) }),
        ("-ti", Options { dots_are_content: true, recipients_from_header: true, ..Options::default() }),
        ("-oi", Options { dots_are_content: true, ..Options::default() }),
        ("-o i", Options { dots_are_content: true, ..Options::default() }),
        ("-tfa@x", Options { recipients_from_header: true, sender: some("a@x"), ..Options::default() }),
        ("-F Ann", Options { full_name: some("Ann"), ..Options::default() }),
        ("-F ''", Options { full_name: some(""), ..Options::default() }),
        ("-n", Options { no_aliases: true, ..Options::default() }),
        ("-N never", Options { notify: Notify::NEVER, ..Options::default() }),
        ("-R hdrs -V QQ7", Options { ret: Some(Return::Headers), envid: some("QQ7"), ..Options::default() }),
        ("-V00001234", Options { envid: some("00001234"), ..Options::default() }),
        ("-V =x", Options { envid: some("=x"), ..Options::default() }),
        ("-V +", Options { envid: some("+"), ..Options::default() }),
        ("--nexthop unix:/run/lmtp", Options { nexthop: some("unix:/run/lmtp"), ..Options::default() }),
        ("--nexthop=mx:24", Options { nexthop: some("mx:24"), ..Options::default() }),
    ] {
        assert_eq!(parse(line), Ok(expected), "{line:?}");
    }
}

#[test]
fn options_end_at_two_dashes_and_at_the_first_recipient() {
    for (line, recipients) in [
        ("-- -b@y -f c@z", &["-b@y", "-f", "c@z"][..]),
        ("-- -- b@y", &["--", "b@y"]),
        ("b@y -c@z d@z", &["b@y", "-c@z", "d@z"]),
        ("-", &["-"]),
        ("- b@y", &["-", "b@y"]),
        ("'' b@y", &["", "b@y"]),
    ] {
        assert_eq!(parse(line), Ok(to(recipients)), "{line:?}");
    }
    for line in ["b@y -f a@x", "b@y --", "b@y --nexthop mx"] {
        assert!(matches!(parse(line), Err(UsageError::Misplaced(_))), "{line:?}");
    }
}

#[test]
fn what_other_programs_pass_along_is_ignored() {
    for line in [
        "-bm -odi -oem -om -o7 -oQ/x",
        "-G -U -c -m -v -x -vv",
        "-Am -A c -C/etc/x -ep -h 3 -L tag -O Opt=1 -p SMTP:x",
        "-B8BITMIME -B 7BIT -X /tmp/log -L ''",
    ] {
        assert_eq!(parse(line), Ok(Options::default()), "{line:?}");
    }
}

#[test]
fn names_and_options_choose_what_is_done() {
    let one = Mode::Flush(Some("ABC123".parse().unwrap()));
    for (role, line, mode) in [
        (Role::Sendmail, "", Mode::Submit),
        (Role::Sendmail, "-bs", Mode::Smtp),
        (Role::Sendmail, "-b p", Mode::ShowQueue),
        (Role::Sendmail, "-bp -bm", Mode::Submit),
        (Role::Sendmail, "-bi", Mode::RebuildAliases),
        (Role::Sendmail, "-I", Mode::RebuildAliases),
        (Role::Sendmail, "-q", Mode::Flush(None)),
        (Role::Sendmail, "-qf", Mode::Flush(None)),
        (Role::Sendmail, "-qIABC123", one),
        (Role::Sendmail, "--help", Mode::Help),
        (Role::Sendmail, "--version", Mode::Version),
        (Role::Mailq, "", Mode::ShowQueue),
        (Role::Mailq, "-Ac -v", Mode::ShowQueue),
        (Role::Mailq, "-q", Mode::Flush(None)),
        (Role::Newaliases, "", Mode::RebuildAliases),
    ] {
        assert_eq!(parse_as(role, line).map(|options| options.mode), Ok(mode), "{role:?} {line:?}");
    }
    assert_eq!(Role::named(OsStr::new("mailq")), Some(Role::Mailq));
    assert_eq!(Role::named(OsStr::new("lastmile")), None);
}

#[test]
fn delivery_without_a_queue_has_a_server_and_a_sender() {
    let direct = |protocol, server: &str| Some(Direct { protocol, server: server.to_owned() });
    let base = Options { dots_are_content: true, sender: some("a@x"), ..to(&["b@y"]) };
    for (line, expected) in [
        (
            "--lmtp /run/lmtp -f a@x b@y",
            Options { direct: direct(Protocol::Lmtp, "/run/lmtp"), ..base.clone() },
        ),
        (
            "--esmtp=[::1]:25 -fa@x -- b@y",
            Options { direct: direct(Protocol::Smtp, "[::1]:25"), ..base.clone() },
        ),
        (
            "--dump --smtputf8 --verbose --iam me.example --lmtp mx -f a@x b@y",
            Options {
                direct: direct(Protocol::Lmtp, "mx"),
                iam: some("me.example"),
                dump: true,
                smtputf8: true,
                verbose: true,
                ..base
            },
        ),
    ] {
        for role in [Role::Sendmail, Role::Smtpc] {
            assert_eq!(parse_as(role, line), Ok(expected.clone()), "{role:?} {line:?}");
        }
    }
}

#[test]
fn smtpc_ignores_what_it_does_not_know() {
    for line in ["-z", "-dq -k", "--gecos --gecos=7", "-bp", "-q -I -qx", "-bz", "-oi -oem -odi"] {
        let line = format!("{line} --lmtp mx -f a@x b@y");
        let options = parse_as(Role::Smtpc, &line).unwrap();
        assert_eq!((options.mode, options.recipients), (Mode::Submit, vec!["b@y".to_owned()]), "{line:?}");
    }
    let error = parse_as(Role::Smtpc, "-f a@x b@y").unwrap_err().to_string();
    assert!(error.starts_with("smtpc needs --lmtp or --esmtp"), "{error}");
}

#[test]
fn what_cannot_be_done_is_refused() {
    for (line, words) in [
        ("-bv", "-bv (verifying addresses) is not"),
        ("-b z", "-bz (a mode that is not known here) is not"),
        ("-bd", "-bd (running as a mail server)"),
        ("-q30m", "-q30m (running the queue at intervals"),
        ("-qRexample", "-qRexample (running a part of the queue)"),
        ("-tqSx", "-qSx (running a part of the queue)"),
        ("-qI../x", "option -qI does not take \"../x\": a queue ID"),
        ("-XV", "-XV (one sender for each recipient)"),
        ("-XV+=", "-XV+= (one sender for each recipient)"),
        ("-V+=", "-V+= (one sender for each recipient)"),
        ("-V -+", "-V-+ (one sender for each recipient)"),
        ("-V ''", "option -V does not take \"\": an envelope ID"),
        ("-z", "there is no option -z"),
        ("-é", "there is no option -é"),
        ("--x\u{1b}[2J", "there is no option --x\\u{1b}[2J"),
        ("-bx\u{1b}", "-bx\\u{1b} (a mode"),
        ("--gecos", "there is no option --gecos"),
        ("--dump=x", "there is no option --dump"),
        ("-f", "option -f needs a value"),
        ("--nexthop", "option --nexthop needs a value"),
        ("--lmtp ''", "option --lmtp needs a value"),
        ("-N maybe", "option -N does not take \"maybe\": NOTIFY is"),
        ("-N ''", "option -N does not take \"\": NOTIFY is"),
        ("-R half", "option -R does not take \"half\": RET is"),
        ("-bp b@y", "only a message has recipients"),
        ("-bs -t", "only a message has recipients"),
        ("-bi /etc/aliases", "only a message has recipients"),
        ("-V \u{fc}ber", "option -V does not take \"\u{fc}ber\": an envelope ID"),
        ("-q b@y", "only a message has recipients"),
        ("-bs --lmtp mx -f a@x", "--lmtp and --esmtp deliver a message"),
        ("--lmtp mx --esmtp mx -f a@x b@y", "--lmtp and --esmtp name one server"),
        ("--lmtp mx b@y", "--lmtp and --esmtp need a sender"),
        ("--lmtp mx -f a@x --nexthop mx b@y", "--nexthop is for the queue"),
        ("--iam me b@y", "--iam, --dump, --smtputf8 and --verbose go with"),
        ("--verbose b@y", "--iam, --dump, --smtputf8 and --verbose go with"),
    ] {
        let text = parse(line).unwrap_err().to_string();
        assert!(text.starts_with(words), "{line:?} gave {text:?}");
    }
    let long = format!("-V{}", "x".repeat(101));
    assert!(parse(&long).is_err());
    let latin1 = OsStr::from_bytes(b"-f\xe9@x").to_owned();
    assert!(matches!(Options::parse(Role::Sendmail, false, &[latin1]), Err(UsageError::NotUtf8(_))));
}

#[test]
fn strict_callers_name_no_files_and_no_recipients_among_options() {
    for (line, forbidden) in [
        ("b@y", "recipients before \"--\""),
        ("-t b@y", "recipients before \"--\""),
        ("-C/etc/x -- b@y", "-C"),
        ("-C /etc/x -- b@y", "-C"),
        ("-O QueueDirectory=/tmp -- b@y", "-O"),
        ("-X/var/www/x.php -- b@y", "-X"),
        ("-tX /x", "-X"),
        ("-oQ/tmp -- b@y", "-oQ"),
        ("-o Q/tmp -- b@y", "-oQ"),
        ("--nexthop mx -- b@y", "--nexthop"),
        ("--nexthop=mx -- b@y", "--nexthop"),
        ("--lmtp mx -f a@x -- b@y", "--lmtp"),
        ("-f a@x --esmtp=mx:25 -- b@y", "--esmtp"),
    ] {
        match strictly(line) {
            Err(UsageError::Strict(text)) => {
                assert!(text.starts_with(forbidden), "{line:?} gave {text:?}");
            }
            other => panic!("{line:?} gave {other:?}"),
        }
    }
    assert_eq!(strictly("-oi -- b@y"), Ok(Options { dots_are_content: true, ..to(&["b@y"]) }));
    assert_eq!(strictly("-t"), Ok(Options { recipients_from_header: true, ..Options::default() }));
    let smtpc = |line| Options::parse(Role::Smtpc, true, &words(line));
    assert!(smtpc("--lmtp mx -f a@x -- b@y").is_ok());
    assert!(smtpc("--lmtp mx -f a@x --esmtp evil -- b@y").is_err());
}

proptest! {
    #[test]
    fn no_command_line_panics(args in proptest::collection::vec("-{0,2}[A-Za-zé=]{0,3}\\PC{0,3}", 0..6)) {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        for (role, strict) in [(Role::Sendmail, false), (Role::Sendmail, true), (Role::Smtpc, false)] {
            let _ = Options::parse(role, strict, &args);
        }
    }
}
