//! What can be asked about the queue, and done with it: through the control socket, or by a command that holds the
//! agent's lock while no agent runs.
//!
//! - Owns: the grammar of questions and answers ([`Request`], [`Line`]), who may ask what, carrying it out.
//! - Leaves to others: sockets (`control_server`), the master's part (`master`), what people read (`cli`).
//! - Always true: both ways give the same answers, because both run this; memory does not grow with the queue.
//!
//! # The protocol
//! A client connects to `agent.sock`, and the agent greets it: `{"ready":{"version":"0.1.0"}}`, or a refusal where it
//! has too many connections. Then the client asks, any number of times one after the other. Each question is one JSON
//! object on a line of at most [`REQUEST_MAX`] octets; the answer is one or more such lines, the last of which is
//! `{"end":{}}` or `{"refused":{"code":…,"text":…}}`.
//!
//! | question | lines of the answer |
//! | --- | --- |
//! | `{"ask":"status"}` | one `status` |
//! | `{"ask":"list"}` | one `message` for each message |
//! | `{"ask":"show","id":"ID","content":true}` | `message`, `recipient`s, `attempt`s, `content`s |
//! | `{"ask":"act","action":"hold","messages":["ID",…]}` | one `done` for each; also flush, release, delete, requeue |
//! | `{"ask":"act","action":"delete","messages":"ALL"}` | one `done` for each; flush: one for all |
//! | `{"ask":"show_dropped","name":"NAME","content":true}` | `message`, `content`: a file in `incoming/` |
//! | `{"ask":"delete_dropped","names":["NAME",…]}` | one `done` for each |
//! | `{"ask":"submit","sender":"a@x","recipients":[{"address":"b@y"}]}` | `queued`, once the message is on disk |
//!
//! Content, either way, is any number of lines `{"content":{"octets":N}}`, each followed by N octets; with N = 0 it
//! has ended. A submission without that end was given up, and nothing of it is queued.

mod execute;
mod listing;
mod permission;
mod protocol;
mod wire;

pub use execute::{Executor, Hands};
pub use listing::{Listed, RecipientLine};
pub use permission::Caller;
pub use protocol::{Done, Line, Outcome, Refusal, RefusalCode, Request, Selection, Submission};
pub use wire::{
    ContentReader, REQUEST_MAX, WrittenContent, read_line, read_request, write_content, write_line,
};
