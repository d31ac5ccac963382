//! One conversation: commands in, replies and stored messages out (RFC 5321, RFC 2033).
//!
//! - Owns: the order of commands, what each does, how a rule changes that.
//! - Leaves to others: octets (`wire`), DATA and BDAT (`transfer`), STARTTLS (`starttls`), AUTH (`auth`).
//! - Always true: a refused command changes nothing.

use std::sync::Arc;

use socket2::Socket;

use super::Extension;
use super::content::Content;
use super::counts::add;
use super::reply::Reply;
use super::script::{Action, Stage, What};
use super::server::Shared;
use super::syntax::{is_one_of, needs_smtputf8, path_of, split_path, syntax, too_large, unknown_parameter};
use super::wire::{Ended, Line, Wire};
use crate::mail::{Address, Protocol, Sender};

/// Bad commands in a row after which the peer is taken for something that speaks another language.
const BAD_COMMANDS_MAX: u32 = 50;

/// Serves a connection to its end.
pub(super) fn serve(shared: &Shared, socket: Arc<Socket>) {
    let wire = match Wire::new(socket, Arc::clone(&shared.stop), shared.config.timeout) {
        Ok(wire) => wire,
        Err(error) => return log::warn!("sink: cannot prepare a connection, which is closed: {error}"),
    };
    let mut session = Session {
        shared,
        wire,
        greeted: false,
        enhanced: false,
        login: None,
        transactions: 0,
        bad_commands: 0,
        transaction: None,
    };
    // How a conversation ends does not matter here: the peer's messages that got their 250 are stored.
    if let Err(Ended::AfterReply) = session.converse() {
        session.wire.close_gently();
    } else {
        let _ = session.wire.flush();
    }
}

pub(super) struct Session<'a> {
    pub(super) shared: &'a Shared,
    pub(super) wire: Wire,
    greeted: bool,
    enhanced: bool,
    /// Who has logged in.
    pub(super) login: Option<String>,
    transactions: usize,
    bad_commands: u32,
    pub(super) transaction: Option<Transaction<'a>>,
}

/// From an accepted MAIL to the last reply.
pub(super) struct Transaction<'a> {
    pub smtputf8: bool,
    pub recipients: Vec<Address>,
    /// What BDAT has brought so far.
    pub content: Option<Content<'a>>,
    /// The replies to the content were already given: the rest is read and forgotten.
    pub answered: bool,
    /// A chunk was refused: only RSET helps (RFC 3030 section 2).
    pub failed: bool,
}

impl<'a> Session<'a> {
    fn converse(&mut self) -> Result<(), Ended> {
        if self.shared.config.wrappermode {
            self.begin_tls()?;
        }
        let greeting = format!("{} {} sink", self.shared.config.hostname, self.protocol_word());
        self.answer(Stage::Greeting, "", |_| Reply::new(220, "", greeting))?;
        let mut line = Vec::new();
        loop {
            match self.wire.read_line(&mut line)? {
                Line::Complete => match std::str::from_utf8(&line) {
                    Ok(text) if !text.bytes().any(|octet| octet == 0) => self.command(text)?,
                    _ => self.bad(&Reply::new(500, "5.5.2", "a command is UTF-8 without NUL"))?,
                },
                Line::TooLong => self.bad(&Reply::new(500, "5.5.2", "line too long"))?,
                Line::TimedOut => return self.say(&Reply::new(421, "4.4.2", "timed out waiting for you")),
            }
            self.wire.relieve()?;
        }
    }

    fn protocol_word(&self) -> &'static str {
        match self.shared.config.protocol {
            Protocol::Lmtp => "LMTP",
            Protocol::Smtp => "ESMTP",
        }
    }

    pub(super) fn is_lmtp(&self) -> bool {
        self.shared.config.protocol == Protocol::Lmtp
    }

    fn offers(&self, extension: Extension) -> bool {
        match extension {
            Extension::StartTls => self.may_offer_tls(),
            Extension::Auth => self.may_offer_auth(),
            _ => !self.shared.config.without.contains(&extension),
        }
    }

    /// Whether the client has yet to say who it is.
    pub(super) fn is_new(&self) -> bool {
        !self.greeted
    }

    /// The command that every client begins with.
    pub(super) fn hello_word(&self) -> &'static str {
        if self.is_lmtp() { "LHLO" } else { "EHLO" }
    }

    /// Forgets what the client has said so far (RFC 3207 section 4.2).
    pub(super) fn forget_client(&mut self) {
        (self.greeted, self.enhanced) = (false, false);
        (self.login, self.transaction) = (None, None);
    }

    fn command(&mut self, line: &str) -> Result<(), Ended> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        let verb = verb.to_ascii_uppercase();
        let may_be_followed = matches!(verb.as_str(), "BDAT" | "QUIT");
        if !self.offers(Extension::Pipelining) && !may_be_followed && !self.wire.available().is_empty() {
            self.say(&Reply::new(503, "5.5.0", "you pipelined, which was not offered"))?;
            return self.part();
        }
        let bad_commands = std::mem::take(&mut self.bad_commands);
        match verb.as_str() {
            "LHLO" if self.is_lmtp() => self.hello(rest),
            "EHLO" if !self.is_lmtp() => self.hello(rest),
            "HELO" if !self.is_lmtp() => self.answer(Stage::Helo, "", |session| session.helo(rest)).map(drop),
            "STARTTLS" if self.knows_starttls() => self.starttls(rest),
            "AUTH" if self.offers(Extension::Auth) => self.auth(rest),
            "MAIL" => self.answer(Stage::Mail, path_of(rest), |session| session.mail(rest)).map(drop),
            "RCPT" => self.answer(Stage::Rcpt, path_of(rest), |session| session.rcpt(rest)).map(drop),
            "DATA" => self.data(),
            "BDAT" if self.offers(Extension::Chunking) => self.bdat(rest),
            "RSET" => self.answer(Stage::Rset, "", Self::reset).map(drop),
            "NOOP" => self.answer(Stage::Noop, "", |_| Reply::new(250, "2.0.0", "ok")).map(drop),
            "VRFY" => self.say(&Reply::new(252, "2.5.0", "send it and see")),
            "QUIT" => {
                self.wire.held = false;
                self.answer(Stage::Quit, "", |_| Reply::new(221, "2.0.0", "bye"))?;
                self.part()
            }
            _ => {
                self.bad_commands = bad_commands;
                self.bad(&Reply::new(500, "5.5.1", "no such command here"))
            }
        }
    }

    /// Answers what was no command. Too many in a row end the connection.
    fn bad(&mut self, reply: &Reply) -> Result<(), Ended> {
        self.bad_commands += 1;
        if self.bad_commands > BAD_COMMANDS_MAX {
            return self.say(&Reply::new(421, "4.7.0", "too many bad commands"));
        }
        self.say(reply)
    }

    fn hello(&mut self, name: &str) -> Result<(), Ended> {
        if self.answer(Stage::Lhlo, "", |session| session.greet(name))? {
            self.enhanced = self.offers(Extension::EnhancedStatusCodes);
        }
        Ok(())
    }

    fn greet(&mut self, name: &str) -> Reply {
        let reply = self.helo(name);
        if !reply.is_positive() {
            return reply;
        }
        let config = &self.shared.config;
        let mut text = config.hostname.clone();
        for extension in Extension::ALL.into_iter().filter(|extension| self.offers(*extension)) {
            text.push('\n');
            text.push_str(extension.keyword());
            match extension {
                Extension::Size => text.push_str(&format!(" {}", config.message_size_limit)),
                Extension::Limits => {
                    text.push_str(&format!(" RCPTMAX={}", config.recipient_limit));
                    if let Some(limit) = config.transaction_limit {
                        text.push_str(&format!(" MAILMAX={limit}"));
                    }
                }
                Extension::Auth => text.push_str(&self.mechanism_words()),
                _ => {}
            }
        }
        Reply::new(250, "", text)
    }

    fn helo(&mut self, name: &str) -> Reply {
        if name.is_empty() {
            return Reply::new(501, "", "say your name, too");
        }
        self.greeted = true;
        self.enhanced = false;
        self.transaction = None;
        Reply::new(250, "", self.shared.config.hostname.clone())
    }

    fn reset(&mut self) -> Reply {
        self.transaction = None;
        Reply::new(250, "2.0.0", "ok")
    }

    fn mail(&mut self, rest: &str) -> Reply {
        if self.is_new() {
            return Reply::new(503, "5.5.1", format!("say {} first", self.hello_word()));
        }
        if self.lacks_login() {
            return Reply::new(530, "5.7.0", "log in first");
        }
        if self.transaction.is_some() {
            return Reply::new(503, "5.5.1", "there is a transaction already");
        }
        if self.shared.config.transaction_limit.is_some_and(|limit| self.transactions >= limit) {
            return Reply::new(421, "4.7.0", "too many transactions on this connection");
        }
        let smtputf8 = match self.mail_parameters(rest) {
            Ok(smtputf8) => smtputf8,
            Err(refusal) => return refusal,
        };
        self.transactions += 1;
        add(&self.shared.counters.transactions, 1);
        let (recipients, content) = (Vec::new(), None);
        self.transaction =
            Some(Transaction { smtputf8, recipients, content, answered: false, failed: false });
        Reply::new(250, "2.1.0", "ok")
    }

    /// Checks a MAIL command; whether it asks for SMTPUTF8.
    fn mail_parameters(&self, rest: &str) -> Result<bool, Reply> {
        let (path, parameters) = split_path(rest, "FROM:").ok_or_else(syntax)?;
        let sender: Sender = path.parse().map_err(|error| Reply::new(501, "5.1.7", format!("{error}")))?;
        let mut smtputf8 = false;
        for parameter in parameters.split_ascii_whitespace() {
            let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let keyword = keyword.to_ascii_uppercase();
            let (extension, is_valid) = match keyword.as_str() {
                "SIZE" => (Extension::Size, value.parse::<u64>().is_ok()),
                "BODY" => (Extension::EightBitMime, is_one_of(value, &["7BIT", "8BITMIME"])),
                "RET" => (Extension::Dsn, is_one_of(value, &["FULL", "HDRS"])),
                "ENVID" => (Extension::Dsn, !value.is_empty()),
                "SMTPUTF8" => (Extension::SmtpUtf8, value.is_empty()),
                "AUTH" => (Extension::Auth, !value.is_empty()),
                _ => return Err(unknown_parameter(&keyword)),
            };
            self.check(extension, is_valid, parameter)?;
            smtputf8 |= extension == Extension::SmtpUtf8;
            let limit = self.shared.config.message_size_limit;
            if extension == Extension::Size && value.parse().is_ok_and(|size: u64| size > limit) {
                return Err(too_large());
            }
        }
        let needs = sender.address().is_some_and(Address::needs_smtputf8);
        if needs && !smtputf8 { Err(needs_smtputf8()) } else { Ok(smtputf8) }
    }

    fn rcpt(&mut self, rest: &str) -> Reply {
        let Some(transaction) = &self.transaction else {
            return Reply::new(503, "5.5.1", "say MAIL first");
        };
        if transaction.recipients.len() >= self.shared.config.recipient_limit {
            return Reply::new(452, "4.5.3", "too many recipients");
        }
        let address = match self.rcpt_parameters(rest, transaction.smtputf8) {
            Ok(address) => address,
            Err(refusal) => return refusal,
        };
        add(&self.shared.counters.recipients, 1);
        if let Some(transaction) = &mut self.transaction {
            transaction.recipients.push(address);
        }
        Reply::new(250, "2.1.5", "ok")
    }

    fn rcpt_parameters(&self, rest: &str, smtputf8: bool) -> Result<Address, Reply> {
        let (path, parameters) = split_path(rest, "TO:").ok_or_else(syntax)?;
        let address: Address = path.parse().map_err(|error| Reply::new(501, "5.1.3", format!("{error}")))?;
        for parameter in parameters.split_ascii_whitespace() {
            let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let keyword = keyword.to_ascii_uppercase();
            let is_valid = match keyword.as_str() {
                "NOTIFY" => value.parse::<crate::mail::Notify>().is_ok(),
                "ORCPT" => value.parse::<crate::mail::OriginalRecipient>().is_ok(),
                _ => return Err(unknown_parameter(&keyword)),
            };
            self.check(Extension::Dsn, is_valid, parameter)?;
        }
        if address.needs_smtputf8() && !smtputf8 { Err(needs_smtputf8()) } else { Ok(address) }
    }

    fn check(&self, extension: Extension, is_valid: bool, parameter: &str) -> Result<(), Reply> {
        match (self.offers(extension), is_valid) {
            (false, _) => Err(unknown_parameter(parameter)),
            (true, false) => Err(Reply::new(501, "5.5.4", format!("bad parameter: {parameter}"))),
            (true, true) => Ok(()),
        }
    }

    /// Runs a command through the script: `usual` does what it asks for, unless a rule refuses it. Whether it
    /// was done.
    pub(super) fn answer(
        &mut self,
        stage: Stage,
        address: &str,
        usual: impl FnOnce(&mut Self) -> Reply,
    ) -> Result<bool, Ended> {
        let Some(action) = self.shared.config.script.action(stage, address) else {
            let reply = usual(self);
            let is_positive = reply.is_positive();
            return self.say(&reply).map(|()| is_positive);
        };
        self.before(action)?;
        if let Some(refusal) = action.refusal() {
            return self.emit(action, refusal).map(|()| false);
        }
        let reply = usual(self);
        let is_positive = reply.is_positive();
        let own = action.reply().filter(|_| is_positive);
        self.emit(action, own.unwrap_or(&reply))?;
        // A DATA that a rule answers with 250 is followed by no content.
        let goes_on = stage != Stage::Data || own.is_none_or(|own| own.code == 354);
        Ok(is_positive && goes_on)
    }

    /// What a rule wants before the command is done: waiting, or the end.
    pub(super) fn before(&mut self, action: &Action) -> Result<(), Ended> {
        if !action.delay.is_zero() {
            self.wire.pause(action.delay)?;
        }
        self.close_as(&action.what)
    }

    fn close_as(&mut self, what: &What) -> Result<(), Ended> {
        match what {
            What::Close => Err(Ended::Abruptly),
            What::CloseNotify => self.part(),
            What::Reset => {
                self.wire.flush()?;
                self.wire.reset_on_close()?;
                Err(Ended::Abruptly)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn emit_or_say(&mut self, action: Option<&Action>, reply: &Reply) -> Result<(), Ended> {
        match action {
            Some(action) => {
                self.emit(action, action.reply().filter(|_| reply.is_positive()).unwrap_or(reply))
            }
            None => self.say(reply),
        }
    }

    /// Writes `reply`, or what the rule puts in its place.
    pub(super) fn emit(&mut self, action: &Action, reply: &Reply) -> Result<(), Ended> {
        self.close_as(&action.what)?;
        self.wire.held |= action.hold;
        if action.rekey {
            self.wire.channel.refresh_keys();
        }
        let mut octets = Vec::new();
        match &action.what {
            What::Silence | What::Close | What::CloseNotify | What::Reset | What::FirstOctets(_) => {}
            What::Inject(text) => {
                reply.write(&mut octets, self.enhanced);
                octets.extend_from_slice(text);
            }
            What::Garbage(text) | What::Partial(text) => octets.extend_from_slice(text),
            What::Usual | What::Reply(_) => reply.write(&mut octets, self.enhanced),
        }
        for _ in 0..=usize::from(action.twice) {
            match action.drip {
                Some(drip) => self.wire.drip(&octets, drip.octets, drip.interval)?,
                None => self.wire.output().extend_from_slice(&octets),
            }
        }
        if matches!(action.what, What::Partial(_)) {
            self.wire.held = false;
            self.wire.flush()?;
            self.wire.muted = true;
        }
        let is_closing =
            reply.code == 421 && matches!(action.what, What::Usual | What::Reply(_) | What::Inject(_));
        if action.close_after || is_closing { self.part() } else { Ok(()) }
    }

    /// Writes a reply of the server's own; 421 ends the connection.
    pub(super) fn say(&mut self, reply: &Reply) -> Result<(), Ended> {
        reply.write(self.wire.output(), self.enhanced);
        if reply.code == 421 { self.part() } else { Ok(()) }
    }

    /// Ends the conversation after a last reply, which goes out also where a rule held replies back.
    pub(super) fn part(&mut self) -> Result<(), Ended> {
        self.wire.held = false;
        Err(Ended::AfterReply)
    }
}
