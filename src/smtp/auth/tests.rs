//! Exchanges played from both sides in memory: lines out, replies in.

mod hostile;
mod mechanisms;
mod rules;
mod scram;
mod scram_server;

use super::*;
use crate::smtp::parse_auth_reply;
use crate::smtp::reply::Reply;

const PEER: &str = "mx.example.org[192.0.2.1]";

/// What a [`Login`] borrows.
#[derive(Clone)]
struct Setup {
    credentials: Credentials,
    options: SecurityOptions,
    filter: Vec<String>,
    host: String,
    port: u16,
    channel_binding: Option<Vec<u8>>,
    is_server_known: bool,
}

impl Setup {
    fn new(username: &str, proof: Proof) -> Self {
        Self {
            credentials: Credentials { username: username.to_owned(), proof },
            options: SecurityOptions::default(),
            filter: Vec::new(),
            host: "server.example.com".to_owned(),
            port: 143,
            channel_binding: None,
            is_server_known: false,
        }
    }

    fn password(username: &str, password: &str) -> Self {
        Self::new(username, Proof::Password(Secret::new(password.to_owned())))
    }

    fn token(username: &str, token: &str) -> Self {
        Self::new(username, Proof::Token(Secret::new(token.to_owned())))
    }

    fn certificate(username: &str) -> Self {
        Self::new(username, Proof::Certificate)
    }

    /// With `offered` as EHLO has listed it.
    fn begin(&self, offered: &str) -> Result<(Exchange, Line), Reason> {
        let offered: Vec<String> = offered.split_ascii_whitespace().map(ToOwned::to_owned).collect();
        let login = Login {
            credentials: &self.credentials,
            options: self.options,
            filter: &self.filter,
            host: &self.host,
            port: self.port,
            channel_binding: self.channel_binding.as_deref(),
            is_server_known: self.is_server_known,
        };
        Exchange::begin(PEER, &offered, &login)
    }

    /// What is written, what is shown of it, and the answer to the last of `replies`.
    fn play(&self, offered: &str, replies: &[&str]) -> (Vec<String>, Vec<String>, Answer) {
        let (mut exchange, line) = self.begin(offered).unwrap();
        let mut lines = vec![line];
        let mut last = None;
        for text in replies {
            let answer = exchange.on_reply(&reply(text));
            if let Answer::Send(line) = &answer {
                lines.push(line.clone());
            }
            last = Some(answer);
        }
        let written = lines.iter().map(written).collect();
        let shown = lines.into_iter().map(|line| line.shown).collect();
        (written, shown, last.unwrap())
    }
}

fn reply(text: &str) -> Reply {
    parse_auth_reply(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0
}

/// A line without its end.
fn written(line: &Line) -> String {
    let text = std::str::from_utf8(&line.octets).unwrap();
    text.strip_suffix("\r\n").expect("a line ends").to_owned()
}

/// The reason of a refusal: its status, and its text after the words with which all begin.
#[track_caller]
fn refusal(answer: Answer) -> (String, String) {
    let Answer::Refused(reason) = answer else { panic!("{answer:?}") };
    let text = reason.text.strip_prefix("SASL authentication failed; ").expect("as Postfix begins");
    (reason.status.to_string(), text.to_owned())
}
