//! Questions and answers, as values. PURE.
//!
//! - Owns: their members, which are a promise to whoever reads `--json`.
//! - Leaves to others: octets (`wire`), permission (`permission`).
//! - Always true: what parses as a question is complete; members that nobody knows are refused.

use serde::{Deserialize, Serialize};

use super::listing::{Listed, RecipientLine};
use crate::agent::control::{Action, Status};
use crate::mail::{QueueId, Return, Sender};
use crate::queue::job::SubmittedRecipient;
use crate::spool::{Draft, LoggedReply, SubmitError};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Numbers of the running agent.
    Status {},
    /// All messages that the caller may see.
    List {},
    /// One message.
    Show {
        /// Which.
        id: QueueId,
        /// Also what it says.
        #[serde(default)]
        content: bool,
    },
    /// A file in `incoming/` that is no message yet: it has a name, and no ID.
    ShowDropped {
        /// Which.
        name: String,
        /// Also what it says.
        #[serde(default)]
        content: bool,
    },
    /// Such files are to be removed.
    DeleteDropped {
        /// Which.
        names: Vec<String>,
    },
    /// Something is to be done with messages.
    Act {
        /// What.
        action: Action,
        /// With which.
        messages: Selection,
    },
    /// A message is to be queued; its content follows.
    Submit(Box<Submission>),
}

/// Messages that an action is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Selection {
    /// All that it can apply to.
    All(All),
    /// These.
    These(Vec<QueueId>),
}

/// The word `ALL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum All {
    /// In capitals, as nobody types it by mistake.
    #[serde(rename = "ALL")]
    All,
}

impl Selection {
    /// Every message.
    pub const ALL: Self = Self::All(All::All);
}

/// The envelope of a message that is submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Whom it comes from.
    pub sender: Sender,
    /// To whom.
    pub recipients: Vec<SubmittedRecipient>,
    /// Where it goes; only for those whom the agent trusts with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nexthop: Option<String>,
    /// The submitter's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// What a bounce returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Return>,
    /// Whether it is an internationalised message.
    #[serde(default)]
    pub smtputf8: bool,
}

impl From<Draft> for Submission {
    fn from(draft: Draft) -> Self {
        Self {
            sender: draft.sender,
            recipients: draft.recipients.into_iter().map(SubmittedRecipient::from).collect(),
            nexthop: draft.nexthop,
            envid: draft.envid,
            ret: draft.ret,
            smtputf8: draft.smtputf8,
        }
    }
}

impl Submission {
    /// The draft of whoever submits it. Who that is the submission cannot say.
    pub fn into_draft(self, origin: String) -> Draft {
        Draft {
            sender: self.sender,
            recipients: self
                .recipients
                .into_iter()
                .zip(0..)
                .map(|(recipient, position)| recipient.at(position))
                .collect(),
            nexthop: self.nexthop,
            envid: self.envid,
            ret: self.ret,
            smtputf8: self.smtputf8,
            origin,
        }
    }
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The greeting.
    Ready {
        /// The agent's version.
        version: String,
    },
    /// Numbers.
    Status(Box<Status>),
    /// A message.
    Message(Box<Listed>),
    /// A recipient of the message that is shown.
    Recipient(Box<RecipientLine>),
    /// What became of a recipient in one attempt.
    Attempt(Box<LoggedReply>),
    /// A piece of content; the octets follow the line.
    Content {
        /// How many octets; 0 at the end.
        octets: u64,
        /// The octets.
        #[serde(skip)]
        data: Vec<u8>,
    },
    /// What became of a message that something was to be done with.
    Done(Done),
    /// A submission is on disk.
    Queued {
        /// Its name.
        id: QueueId,
    },
    /// It cannot or must not be done. The last line.
    Refused(Refusal),
    /// That was all. The last line.
    End {},
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// On which message; `None`: on all of them at once.
    #[serde(default)]
    pub id: Option<QueueId>,
    /// Or on which file in `incoming/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was to be done.
    pub action: Action,
    /// Whether it was.
    pub outcome: Outcome,
    /// The same in words.
    pub text: String,
}

/// Whether an action was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was.
    Done,
    /// The message is being delivered: it will be when that ends.
    Waits,
    /// There was nothing to do.
    Unchanged,
    /// There is no such message.
    NotFound,
    /// The system refused.
    Failed,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// One sentence for people.
    pub text: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The question is none.
    BadRequest,
    /// Somebody else may ask this.
    NotPermitted,
    /// There is no such message.
    NotFound,
    /// The message is larger than is taken.
    TooLarge,
    /// The envelope cannot be used.
    BadMessage,
    /// Not now: trying again may help.
    Temporary,
    /// The agent has too many connections.
    Busy,
}

impl Refusal {
    /// Puts one together.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<&SubmitError> for Refusal {
    fn from(error: &SubmitError) -> Self {
        let code = match error {
            SubmitError::TooLarge(_) => RefusalCode::TooLarge,
            SubmitError::Recipients(_) | SubmitError::Envelope(_) => RefusalCode::BadMessage,
            SubmitError::NoRoom { .. }
            | SubmitError::Content(_)
            | SubmitError::Io { .. }
            | SubmitError::InDoubt { .. } => RefusalCode::Temporary,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_read_as_the_protocol_says() {
        for (text, request) in [
            (r#"{"ask":"status"}"#, Request::Status {}),
            (r#"{"ask":"list"}"#, Request::List {}),
            (r#"{"ask":"show","id":"A1"}"#, Request::Show { id: "A1".parse().unwrap(), content: false }),
            (
                r#"{"ask":"act","action":"hold","messages":["A1","B2"]}"#,
                Request::Act {
                    action: Action::Hold,
                    messages: Selection::These(vec!["A1".parse().unwrap(), "B2".parse().unwrap()]),
                },
            ),
            (
                r#"{"ask":"show_dropped","name":"a.b"}"#,
                Request::ShowDropped { name: "a.b".into(), content: false },
            ),
            (
                r#"{"ask":"delete_dropped","names":["a.b"]}"#,
                Request::DeleteDropped { names: vec!["a.b".into()] },
            ),
            (
                r#"{"ask":"act","action":"delete","messages":"ALL"}"#,
                Request::Act { action: Action::Delete, messages: Selection::ALL },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request, "{text}");
            let again = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&again).unwrap(), request, "{again}");
        }
        for bad in [
            "",
            "[]",
            r#"{"ask":"stop"}"#,
            r#"{"ask":"status","more":1}"#,
            r#"{"ask":"show","id":"../x"}"#,
            r#"{"ask":"act","action":"delete","messages":"all"}"#,
            r#"{"ask":"act","action":"delete"}"#,
            r#"{"ask":"submit","sender":"a@x"}"#,
            r#"{"ask":"submit","sender":"a@x","recipients":[{"address":"b@y"}],"origin":"uid=0"}"#,
            r#"{"ask":"submit","sender":"a@x\r\nRCPT","recipients":[]}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_submission_keeps_everything_but_its_origin() {
        let text = r#"{"ask":"submit","sender":"","recipients":[{"address":"b@y","notify":"FAILURE","sender":"v@x"},
            {"address":"c@y","orcpt":"rfc822;c@y"}],"nexthop":"unix:/l","envid":"e","ret":"HDRS","smtputf8":true}"#;
        let Request::Submit(submission) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        let draft = submission.clone().into_draft("uid=7".into());
        assert_eq!((draft.recipients[1].position, draft.origin.as_str()), (1, "uid=7"));
        assert_eq!(Submission::from(draft), *submission);
    }

    proptest! {
        #[test]
        fn no_question_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Request>(&text);
        }

        #[test]
        fn no_damaged_question_panics(
            at in 0usize..90,
            octet in any::<u8>(),
            which in 0usize..3,
        ) {
            let mut text = [
                br#"{"ask":"act","action":"hold","messages":["A1","B2"]}"#.to_vec(),
                br#"{"ask":"submit","sender":"","recipients":[{"address":"b@y","notify":"NEVER"}]}"#.to_vec(),
                br#"{"ask":"show","id":"A1","content":true}"#.to_vec(),
            ][which].clone();
            let at = at % text.len();
            text[at] = octet;
            let _ = serde_json::from_slice::<Request>(&text);
            text.truncate(at);
            prop_assert!(serde_json::from_slice::<Request>(&text).is_err());
        }
    }
}
