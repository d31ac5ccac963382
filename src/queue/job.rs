//! Job lines: what trusted writers put into the FIFO, one JSON object a line.
//!
//! - Owns: the line's grammar and bounds, how a bad line is shown.
//! - Leaves to others: cutting a stream into lines (`line_reader`), the FIFO itself and the files that are named
//!   (`spool`), whether to trust the writer (the mode
//!   of the FIFO).
//! - Always true: a name that parsed stays within its directory; no line is longer than [`LINE_LENGTH_MAX`].

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::mail::{
    Address, BodyType, Notify, OriginalRecipient, QueueId, Recipient, Return, Sender, shortened,
};

/// Octets in a job line, its LF not counted.
pub const LINE_LENGTH_MAX: usize = 1 << 20;
/// Octets in the name of a dropped file.
const NAME_LENGTH_MAX: usize = 64;
/// Octets of a bad line that the log shows, and of what is said about it.
const SHOWN_MAX: usize = 200;
/// Octets of a nexthop or an envelope ID: what a queue file takes.
const MEMBER_LENGTH_MAX: usize = 4096;

/// A job line.
#[derive(Clone, Debug, PartialEq)]
pub enum JobLine {
    /// `{"queue_file":"active/ID"}`: a queue file, which speaks for itself.
    QueueFile(QueueId),
    /// `{"queue_file":"incoming/NAME"}`: a file in `incoming/` that has to be a queue file.
    Incoming(IncomingName),
    /// A bare message in `incoming/` with its envelope.
    Submission(Submission),
}

/// A bare message and its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// The file in `incoming/`.
    pub file: IncomingName,
    /// Whom it comes from.
    pub sender: Sender,
    /// To whom; at least one.
    pub recipients: Vec<SubmittedRecipient>,
    /// Where it goes, as written; routes decide if it is absent.
    pub nexthop: Option<String>,
    /// The submitter's own name for it.
    pub envid: Option<String>,
    /// What a bounce returns.
    pub ret: Option<Return>,
    /// What the submitter says of its content.
    pub body: Option<BodyType>,
    /// Whether it is an internationalised message.
    pub smtputf8: bool,
}

/// A recipient in a job line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedRecipient {
    /// Where to.
    pub address: Address,
    /// A sender for this recipient alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// Which reports are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// The recipient as the sender wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<OriginalRecipient>,
}

impl SubmittedRecipient {
    /// The recipient at `position` of the message.
    pub fn at(self, position: u32) -> Recipient {
        let Self { address, sender, notify, orcpt } = self;
        Recipient { position, address, notify: notify.unwrap_or_default(), orcpt, sender }
    }
}

impl From<Recipient> for SubmittedRecipient {
    fn from(recipient: Recipient) -> Self {
        let Recipient { position: _, address, notify, orcpt, sender } = recipient;
        Self { address, sender, notify: Some(notify).filter(|notify| !notify.is_default()), orcpt }
    }
}

/// The name of a file in `incoming/`: letters, digits, `.`, `_` and `-`, at most 64, no leading dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IncomingName(Box<str>);

impl IncomingName {
    /// Takes a name as a file's; `None` if it is none that we would pick up.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=NAME_LENGTH_MAX).contains(&name.len()) && !name.starts_with('.');
        let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        (fits && is_plain).then(|| Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IncomingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a line is no job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadJobLine {
    /// Longer than [`LINE_LENGTH_MAX`].
    #[error("the line is longer than {LINE_LENGTH_MAX} octets")]
    TooLong,
    /// Not a JSON object.
    #[error("the line is no JSON object: {0}")]
    Json(String),
    /// A member that is required is not there.
    #[error("the line has no member \"{0}\"")]
    Missing(&'static str),
    /// A member has a value that it cannot have.
    #[error("the member \"{0}\" cannot be used: {1}")]
    Member(&'static str, String),
}

/// The members that we know; their values are read only once it is clear that they count.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    queue_file: Option<&'a RawValue>,
    #[serde(borrow)]
    sender: Option<&'a RawValue>,
    #[serde(borrow)]
    recipients: Option<&'a RawValue>,
    #[serde(borrow)]
    nexthop: Option<&'a RawValue>,
    #[serde(borrow)]
    envid: Option<&'a RawValue>,
    #[serde(borrow)]
    ret: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    smtputf8: Option<&'a RawValue>,
}

impl JobLine {
    /// Reads a line, without its LF. Members that we do not know are ignored.
    pub fn parse(line: &[u8]) -> Result<Self, BadJobLine> {
        if line.len() > LINE_LENGTH_MAX {
            return Err(BadJobLine::TooLong);
        }
        if line.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
            return Err(BadJobLine::Json("it does not begin with \"{\"".into()));
        }
        let members: Members<'_> =
            serde_json::from_slice(line).map_err(|error| BadJobLine::Json(shown(&error)))?;
        let file: String = required("queue_file", members.queue_file)?;
        let bad_file = |why: &str| {
            let file = shortened(&escape_for_log(file.as_bytes()));
            BadJobLine::Member("queue_file", format!("\"{file}\" {why}"))
        };
        if let Some(id) = file.strip_prefix("active/") {
            let is_none = |_| bad_file("does not end in a queue ID, 1 to 30 letters and digits");
            return id.parse().map(Self::QueueFile).map_err(is_none);
        }
        let Some(name) = file.strip_prefix("incoming/") else {
            return Err(bad_file("is neither active/ID nor incoming/NAME"));
        };
        let name = IncomingName::new(name).ok_or_else(|| {
            bad_file("does not end in a name of 1 to 64 of A-Z a-z 0-9 . _ - with no dot in front")
        })?;
        if members.sender.is_none() && members.recipients.is_none() {
            return Ok(Self::Incoming(name));
        }
        members.submission(name).map(Self::Submission)
    }

    /// The line as a writer sends it: between two LF, so that a line that somebody else left torn spoils only itself.
    pub fn to_line(&self) -> Vec<u8> {
        let mut object = serde_json::Map::new();
        let mut put = |name: &str, value: serde_json::Value| object.insert(name.to_owned(), value);
        match self {
            Self::QueueFile(id) => put("queue_file", format!("active/{id}").into()),
            Self::Incoming(name) => put("queue_file", format!("incoming/{name}").into()),
            Self::Submission(submission) => {
                put("queue_file", format!("incoming/{}", submission.file).into());
                put("sender", submission.sender.to_string().into());
                let recipients = submission.recipients.iter().map(SubmittedRecipient::to_value);
                put("recipients", recipients.collect());
                let optional = [
                    ("nexthop", submission.nexthop.clone()),
                    ("envid", submission.envid.clone()),
                    ("ret", submission.ret.map(|ret| ret.to_string())),
                    ("body", submission.body.map(|body| body.to_string())),
                ];
                for (name, value) in optional {
                    value.map(|value| put(name, value.into()));
                }
                submission.smtputf8.then(|| put("smtputf8", true.into())).flatten()
            }
        };
        format!("\n{}\n", serde_json::Value::from(object)).into_bytes()
    }
}

impl Members<'_> {
    fn submission(&self, file: IncomingName) -> Result<Submission, BadJobLine> {
        let recipients: Vec<&RawValue> = required("recipients", self.recipients)?;
        if recipients.is_empty() {
            return Err(BadJobLine::Member("recipients", "it is empty".into()));
        }
        let recipients = recipients.into_iter().zip(1..).map(|(value, number)| read_recipient(value, number));
        Ok(Submission {
            file,
            sender: required("sender", self.sender)?,
            recipients: recipients.collect::<Result<_, _>>()?,
            nexthop: text("nexthop", self.nexthop)?,
            envid: text("envid", self.envid)?,
            ret: optional("ret", self.ret)?,
            body: optional("body", self.body)?,
            smtputf8: optional("smtputf8", self.smtputf8)?.unwrap_or(false),
        })
    }
}

/// A recipient is a string, or an object where more than its address is said.
fn read_recipient(value: &RawValue, number: usize) -> Result<SubmittedRecipient, BadJobLine> {
    let recipient = if value.get().starts_with('{') {
        serde_json::from_str(value.get())
    } else {
        let only = |address| SubmittedRecipient { address, sender: None, notify: None, orcpt: None };
        serde_json::from_str(value.get()).map(only)
    };
    recipient
        .map_err(|error| BadJobLine::Member("recipients", format!("recipient {number}: {}", shown(&error))))
}

impl SubmittedRecipient {
    fn to_value(&self) -> serde_json::Value {
        if self.sender.is_none() && self.notify.is_none() && self.orcpt.is_none() {
            return self.address.to_string().into();
        }
        let mut object = serde_json::Map::new();
        let members = [
            ("address", Some(self.address.to_string())),
            ("sender", self.sender.as_ref().map(ToString::to_string)),
            ("notify", self.notify.map(|notify| notify.to_string())),
            ("orcpt", self.orcpt.as_ref().map(|orcpt| orcpt.as_str().to_owned())),
        ];
        for (name, value) in members {
            value.map(|value| object.insert(name.to_owned(), value.into()));
        }
        object.into()
    }
}

fn required<'a, T: Deserialize<'a>>(
    name: &'static str,
    value: Option<&'a RawValue>,
) -> Result<T, BadJobLine> {
    optional(name, value)?.ok_or(BadJobLine::Missing(name))
}

/// A member's value; `null` is as good as none.
fn optional<'a, T: Deserialize<'a>>(
    name: &'static str,
    value: Option<&'a RawValue>,
) -> Result<Option<T>, BadJobLine> {
    let Some(value) = value else { return Ok(None) };
    serde_json::from_str(value.get()).map_err(|error| BadJobLine::Member(name, shown(&error)))
}

/// A member that goes into log lines and commands as it is: no queue file takes one that could leave them, however often
/// it is tried.
fn text(name: &'static str, value: Option<&RawValue>) -> Result<Option<String>, BadJobLine> {
    let text: Option<String> = optional(name, value)?;
    let is_bad = |text: &String| text.len() > MEMBER_LENGTH_MAX || text.chars().any(char::is_control);
    if text.as_ref().is_some_and(is_bad) {
        let why = format!("it has control characters or more than {MEMBER_LENGTH_MAX} octets");
        return Err(BadJobLine::Member(name, why));
    }
    Ok(text)
}

/// What a parser says of a line; it may repeat all of it.
fn shown(error: &serde_json::Error) -> String {
    shortened(&error.to_string())
}

/// The first 200 octets of a line for the log: printable ASCII, everything else as `\xNN`.
pub fn escape_for_log(line: &[u8]) -> String {
    let cut = if line.len() > SHOWN_MAX { "..." } else { "" };
    line.iter()
        .take(SHOWN_MAX)
        .copied()
        .map(std::ascii::escape_default)
        .map(|c| c.to_string())
        .collect::<String>()
        + cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::line_reader::LineReader;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<JobLine, String> {
        JobLine::parse(line.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_queue_file_speaks_for_itself() {
        for line in [
            r#"{"queue_file":"active/0ABC"}"#,
            r#" {"queue_file" : "active/0ABC", "sender": 7, "recipients": "none", "new": [1, {}]} "#,
        ] {
            assert_eq!(parse(line), Ok(JobLine::QueueFile("0ABC".parse().unwrap())), "{line}");
        }
        let name = IncomingName::new("a-b_c.9").unwrap();
        assert_eq!(parse(r#"{"queue_file":"incoming/a-b_c.9"}"#), Ok(JobLine::Incoming(name)));
    }

    #[test]
    fn a_submission_says_all_of_its_envelope() {
        let line = r#"{"queue_file":"incoming/m1","sender":"","recipients":["b@y",{"address":"c@y","sender":"v@x",
            "notify":"failure","orcpt":"rfc822;c@y","later":1}],"nexthop":"unix:/run/lmtp","envid":"e 1",
            "ret":"hdrs","body":"8bitmime","smtputf8":true}"#;
        let plain = |address: &str| SubmittedRecipient {
            address: address.parse().unwrap(),
            sender: None,
            notify: None,
            orcpt: None,
        };
        let full = SubmittedRecipient {
            sender: Some("v@x".parse().unwrap()),
            notify: Some(Notify::FAILURE),
            orcpt: Some("rfc822;c@y".parse().unwrap()),
            ..plain("c@y")
        };
        let submission = Submission {
            file: IncomingName::new("m1").unwrap(),
            sender: Sender::NULL,
            recipients: vec![plain("b@y"), full],
            nexthop: Some("unix:/run/lmtp".into()),
            envid: Some("e 1".into()),
            ret: Some(Return::Headers),
            body: Some(BodyType::EightBitMime),
            smtputf8: true,
        };
        assert_eq!(parse(line), Ok(JobLine::Submission(submission)));
        let nulls =
            r#"{"queue_file":"incoming/m1","sender":"a@x","recipients":["b@y"],"nexthop":null,"ret":null}"#;
        assert!(matches!(parse(nulls), Ok(JobLine::Submission(s)) if s.nexthop.is_none() && !s.smtputf8));
    }

    #[test]
    fn a_bad_line_is_told_by_the_member_that_is_wrong() {
        for (line, told) in [
            ("", "no JSON object"),
            ("{", "no JSON object"),
            (r#"["active/0ABC"]"#, "does not begin with"),
            (r#"{"queue_file":"active/0ABC"} {"#, "trailing characters"),
            ("{}", "no member \"queue_file\""),
            (r#"{"queue_file":7}"#, "\"queue_file\" cannot be used"),
            (r#"{"queue_file":"active/../x"}"#, "queue ID"),
            (r#"{"queue_file":"active/"}"#, "queue ID"),
            (r#"{"queue_file":"deferred/0ABC"}"#, "neither"),
            (r#"{"queue_file":"/var/spool/active/0ABC"}"#, "neither"),
            (r#"{"queue_file":"incoming/"}"#, "1 to 64"),
            (r#"{"queue_file":"incoming/.x"}"#, "no dot in front"),
            (r#"{"queue_file":"incoming/../active/x"}"#, "1 to 64"),
            (r#"{"queue_file":"incoming/a\nb"}"#, "1 to 64"),
            (r#"{"queue_file":"incoming/x","sender":"a@x"}"#, "no member \"recipients\""),
            (r#"{"queue_file":"incoming/x","recipients":["a@x"]}"#, "no member \"sender\""),
            (r#"{"queue_file":"incoming/x","sender":"a b@x","recipients":["a@x"]}"#, "\"sender\" cannot"),
            (r#"{"queue_file":"incoming/x","sender":"","recipients":[]}"#, "it is empty"),
            (r#"{"queue_file":"incoming/x","sender":"","recipients":"a@x"}"#, "\"recipients\" cannot"),
            (
                r#"{"queue_file":"incoming/x","sender":"","recipients":["a@x","a@"]}"#,
                "recipient 2: the address",
            ),
            (r#"{"queue_file":"incoming/x","sender":"","recipients":[{"notify":"DELAY"}]}"#, "`address`"),
            (
                r#"{"queue_file":"incoming/x","sender":"","recipients":["a@x"],"ret":"SOME"}"#,
                "\"ret\" cannot",
            ),
            (
                r#"{"queue_file":"incoming/x","sender":"","recipients":["a@x"],"envid":"a\u0007b"}"#,
                "\"envid\" cannot be used: it has control characters",
            ),
            (
                r#"{"queue_file":"incoming/x","sender":"","recipients":["a@x"],"nexthop":"unix:/a\nb"}"#,
                "\"nexthop\" cannot be used: it has control characters",
            ),
            (
                r#"{"queue_file":"incoming/x","sender":"","recipients":["a@x"],"smtputf8":1}"#,
                "\"smtputf8\" cannot",
            ),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
            assert!(!error.contains('\n'), "{line}: {error}");
        }
        assert!(IncomingName::new(&"a".repeat(64)).is_some());
        assert!(IncomingName::new(&"a".repeat(65)).is_none());
        assert_eq!(JobLine::parse(&[b' '; LINE_LENGTH_MAX + 1]), Err(BadJobLine::TooLong));
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_exhaust_the_stack() {
        let deep = format!("{{\"x\":{}", "[".repeat(LINE_LENGTH_MAX - 10));
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn what_is_said_about_a_line_does_not_repeat_all_of_it() {
        let long = "é".repeat(LINE_LENGTH_MAX / 4);
        for line in [
            format!(r#"{{"queue_file":"{long}"}}"#),
            format!(r#"{{"queue_file":"incoming/{long}"}}"#),
            format!(r#"{{"queue_file":"incoming/x","sender":"{long}","recipients":["b@x"]}}"#),
            format!(r#"{{"queue_file":"incoming/x","sender":"","recipients":["{long}"]}}"#),
            format!(r#"{{"queue_file":"incoming/x","sender":"","recipients":[{{"address":7,"{long}":1}}]}}"#),
            format!(r#"{{"queue_file":"incoming/x","sender":"","recipients":["b@x"],"ret":"{long}"}}"#),
            format!(r#"{{"queue_file":"incoming/x","sender":"","recipients":["b@x"],"body":"{long}"}}"#),
            format!(r#"{{"queue_file":"incoming/x","sender":"","recipients":["b@x"],"envid":"{long}"}}"#),
            format!(r#"{{"queue_file":"incoming/x","sender":"","recipients":["b@x"],"smtputf8":"{long}"}}"#),
        ] {
            let error = parse(&line).unwrap_err();
            // 200 octets, each as four characters at most, and the words around them.
            assert!(error.len() < 1000, "{} octets: {:?}", error.len(), error.get(..100));
        }
    }

    #[test]
    fn the_log_shows_200_octets_that_cannot_break_it() {
        assert_eq!(escape_for_log(b"{\"a\"\n\x1b[2J\xff"), r#"{\"a\"\n\x1b[2J\xff"#);
        assert_eq!(escape_for_log(&[b'a'; 300]), format!("{}...", "a".repeat(200)));
    }

    fn address() -> impl Strategy<Value = Address> {
        "[a-z \"é.]{1,8}"
            .prop_filter_map("an address", |local| Address::from_parts(&local, "example.org").ok())
    }

    fn job_line() -> impl Strategy<Value = JobLine> {
        let name =
            "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}".prop_filter_map("a name", |name| IncomingName::new(&name));
        let sender = proptest::option::of(address()).prop_map(|a| a.map_or(Sender::NULL, Sender::from));
        let notify = prop_oneof![Just(Notify::NEVER), Just(Notify::SUCCESS), Just(Notify::DELAY)];
        let orcpt = Just("rfc822;\"é@x").prop_map(|text| text.parse().unwrap());
        let option = proptest::option::of::<BoxedStrategy<Sender>>;
        let sender = sender.boxed();
        let recipient =
            (address(), option(sender.clone()), proptest::option::of(notify), proptest::option::of(orcpt))
                .prop_map(|(address, sender, notify, orcpt)| SubmittedRecipient {
                    address,
                    sender,
                    notify,
                    orcpt,
                });
        let text = || proptest::option::of("\\PC{0,12}");
        let ret = proptest::option::of(prop_oneof![Just(Return::Full), Just(Return::Headers)]);
        let body = proptest::option::of(prop_oneof![Just(BodyType::SevenBit), Just(BodyType::EightBitMime)]);
        let rest = (text(), text(), ret, body, any::<bool>());
        prop_oneof![
            "[A-Z0-9]{1,30}".prop_map(|id| JobLine::QueueFile(id.parse().unwrap())),
            name.clone().prop_map(JobLine::Incoming),
            (name, sender, vec(recipient, 1..4), rest).prop_map(|(file, sender, recipients, rest)| {
                let (nexthop, envid, ret, body, smtputf8) = rest;
                let submission = Submission { file, sender, recipients, nexthop, envid, ret, body, smtputf8 };
                JobLine::Submission(submission)
            }),
        ]
    }

    proptest! {
        #[test]
        fn no_line_panics(line in vec(any::<u8>(), 0..300)) {
            let _ = JobLine::parse(&line);
            prop_assert!(escape_for_log(&line).bytes().all(|b| (b' '..=b'~').contains(&b)));
        }

        #[test]
        fn no_damage_to_a_line_panics(job in job_line(), at in any::<prop::sample::Index>(), octet: u8) {
            let mut line = job.to_line();
            let at = at.index(line.len());
            line[at] = octet;
            let _ = JobLine::parse(&line);
            let _ = JobLine::parse(&line[..at]);
        }

        #[test]
        fn what_is_written_reads_back_whatever_torn_line_is_before_it(
            jobs in vec(job_line(), 1..4), torn in "[^\n]{0,20}",
        ) {
            let mut stream = torn.clone().into_bytes();
            jobs.iter().for_each(|job| stream.extend(job.to_line()));
            let mut reader = LineReader::new();
            reader.push(&stream);
            let lines = std::iter::from_fn(|| reader.next());
            let mut read = lines.map(|line| JobLine::parse(&line.unwrap()));
            if !torn.is_empty() {
                let _ = read.next();
            }
            prop_assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), jobs);
        }
    }
}
