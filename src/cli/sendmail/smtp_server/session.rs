//! The order of commands, and what each of them does (RFC 5321). PURE: lines in, replies and what comes next out.
//!
//! - Owns: what is answered to a command, what MAIL and RCPT have brought together, when patience ends.
//! - Leaves to others: octets (`wire`), how commands are written (`syntax`), what becomes of a message (the parent module).
//! - Always true: a refused command changes nothing; a transaction that is handed out has recipients; content that
//!   nobody has asked for is not taken for commands.

use super::syntax::{self, MailParameters, RcptParameters, refusal};
use crate::cli::sendmail::options::Options;
use crate::cli::sendmail::recipients::{BadRecipient, Recipients, Wishes};
use crate::config::Config;
use crate::mail::{Return, Sender};
use crate::sink::{LineEnd, Reply};

/// Bad commands in a row after which the client is taken for something that speaks another language.
const BAD_COMMANDS_MAX: u32 = 50;

/// What a client says that has heard its DATA refused. One that did not wait goes on with the message.
pub(super) const AFTER_DATA: [&str; 8] = ["RSET", "QUIT", "MAIL", "RCPT", "DATA", "NOOP", "EHLO", "HELO"];
/// Why a session ends that cannot be told from a message any more.
const UNASKED: &str = "that is part of a message, and no message was asked for";

/// What MAIL and RCPT have brought together.
#[derive(Debug)]
pub struct Transaction<'a> {
    /// From MAIL.
    pub sender: Sender,
    /// ENVID.
    pub envid: Option<String>,
    /// RET.
    pub ret: Option<Return>,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// From RCPT, those behind aliases, at least one.
    pub recipients: Recipients<'a>,
}

/// What comes after a reply.
#[derive(Debug)]
pub enum Next<'a> {
    /// Another command.
    Command,
    /// The content of a message, whose lines end so.
    Content(Box<Transaction<'a>>, LineEnd),
    /// Nothing: QUIT was said.
    Quit,
    /// Nothing: the client is not understood, and more of it could be misunderstood. Says why.
    GiveUp(&'static str),
}

/// A conversation.
#[derive(Debug)]
pub struct Session<'a> {
    config: &'a Config,
    options: &'a Options,
    transaction: Option<Box<Transaction<'a>>>,
    /// Every line so far has ended in LF alone.
    only_lf: bool,
    bad_commands: u32,
    /// The last command was a DATA that was refused.
    refused_data: bool,
}

impl<'a> Session<'a> {
    /// A new one. `options` say what is meant where the client says nothing.
    pub fn new(config: &'a Config, options: &'a Options) -> Self {
        Self { config, options, transaction: None, only_lf: true, bad_commands: 0, refused_data: false }
    }

    /// The first reply.
    pub fn greeting(&self) -> Reply {
        Reply::new(220, "", format!("{} ESMTP lastmile", self.config.myhostname))
    }

    /// Whether nothing would be lost if the session ended now.
    pub fn is_idle(&self) -> bool {
        self.transaction.is_none()
    }

    /// Takes a command line, without its end.
    pub fn command(&mut self, line: &[u8], line_end: LineEnd) -> (Reply, Next<'a>) {
        self.only_lf &= line_end == LineEnd::Lf;
        let words = syntax::split(line).map(|(verb, rest)| (verb.to_ascii_uppercase(), rest));
        let goes_on = words.as_ref().is_some_and(|(verb, _)| AFTER_DATA.contains(&verb.as_str()));
        if std::mem::take(&mut self.refused_data) && !goes_on {
            return give_up(554, UNASKED);
        }
        let Some((verb, rest)) = words else {
            return self.bad("a command is UTF-8 without control characters");
        };
        let bad_commands = std::mem::take(&mut self.bad_commands);
        let reply = match verb.as_str() {
            "EHLO" => self.ehlo(rest),
            "HELO" => self.helo(rest),
            "MAIL" => self.mail(rest).unwrap_or_else(|refusal| refusal),
            "RCPT" => self.rcpt(rest).unwrap_or_else(|refusal| refusal),
            "DATA" => return self.data(rest),
            "RSET" => self.reset(rest),
            "NOOP" => Reply::new(250, "2.0.0", "ok"),
            "VRFY" => Reply::new(252, "2.5.0", "only delivery will tell; send the message"),
            "HELP" => Reply::new(214, "2.0.0", HELP),
            "QUIT" => return (Reply::new(221, "2.0.0", "bye"), Next::Quit),
            "EXPN" => Reply::new(502, "5.5.1", "EXPN is not done here"),
            "STARTTLS" => {
                Reply::new(502, "5.5.1", "STARTTLS is not offered: nothing leaves this machine here")
            }
            "AUTH" => Reply::new(503, "5.5.1", "AUTH is not offered: who runs this command is known"),
            // A chunk of content follows it, whatever is answered.
            "BDAT" => return give_up(502, "BDAT is not offered, and what follows it cannot be told apart"),
            // A field of a header.
            _ if verb.contains(':') => return give_up(554, UNASKED),
            _ => {
                self.bad_commands = bad_commands;
                return self.bad("no such command; HELP lists them");
            }
        };
        (reply, Next::Command)
    }

    /// Takes a line that is too long to be a command.
    pub fn too_long(&mut self, line_end: LineEnd) -> (Reply, Next<'a>) {
        self.only_lf &= line_end == LineEnd::Lf;
        if std::mem::take(&mut self.refused_data) {
            return give_up(554, UNASKED);
        }
        self.bad("the line is too long")
    }

    /// Answers what was no command. Too many in a row end the session.
    fn bad(&mut self, text: &'static str) -> (Reply, Next<'a>) {
        self.bad_commands += 1;
        if self.bad_commands > BAD_COMMANDS_MAX {
            let text = "too many bad commands";
            return (Reply::new(421, "4.7.0", text), Next::GiveUp(text));
        }
        (Reply::new(500, "5.5.2", text), Next::Command)
    }

    fn ehlo(&mut self, name: &str) -> Reply {
        if name.is_empty() {
            return Reply::new(501, "5.5.4", "EHLO comes with a name");
        }
        self.transaction = None;
        let size = match self.config.message_size_limit {
            0 => "SIZE".to_owned(),
            limit => format!("SIZE {limit}"),
        };
        let lines = [
            self.config.myhostname.as_str(),
            "PIPELINING",
            &size,
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "DSN",
            "SMTPUTF8",
        ];
        Reply::new(250, "", lines.join("\n"))
    }

    fn helo(&mut self, name: &str) -> Reply {
        if name.is_empty() {
            return Reply::new(501, "5.5.4", "HELO comes with a name");
        }
        self.transaction = None;
        Reply::new(250, "", self.config.myhostname.clone())
    }

    /// MAIL, also before EHLO: who types or scripts a message need not say who he is.
    fn mail(&mut self, rest: &str) -> Result<Reply, Reply> {
        if self.transaction.is_some() {
            return Err(Reply::new(503, "5.5.1", "there is a transaction already; RSET ends it"));
        }
        let (path, parameters) = syntax::path("MAIL", "FROM:", rest)?;
        let sender = self.sender(path)?;
        let MailParameters { size, ret, envid, smtputf8 } = MailParameters::parse(parameters)?;
        let limit = self.config.message_size_limit;
        if limit > 0 && size > limit {
            return Err(refusal(552, "5.3.4", format!("a message has at most {limit} octets here")));
        }
        let recipients = Recipients::new(self.config, self.options);
        self.transaction = Some(Box::new(Transaction { sender, envid, ret, smtputf8, recipients }));
        Ok(Reply::new(250, "2.1.0", "ok"))
    }

    fn sender(&self, path: &str) -> Result<Sender, Reply> {
        let bad = |text: String| refusal(501, "5.1.7", text);
        match syntax::address(path).map_err(bad)? {
            None => Ok(Sender::NULL),
            Some(address) => {
                let completed = address.completed_with(&self.config.myorigin);
                completed
                    .map(Sender::from)
                    .map_err(|error| bad(format!("{address} cannot be a sender: {error}")))
            }
        }
    }

    fn rcpt(&mut self, rest: &str) -> Result<Reply, Reply> {
        let Some(transaction) = &mut self.transaction else {
            return Err(Reply::new(503, "5.5.1", "MAIL comes first"));
        };
        let (path, parameters) = syntax::path("RCPT", "TO:", rest)?;
        let bad = |text: String| refusal(501, "5.1.3", text);
        let address = syntax::address(path).map_err(bad)?;
        let address = address.ok_or_else(|| bad("nobody is named there".to_owned()))?;
        let RcptParameters { notify, orcpt } = RcptParameters::parse(parameters)?;
        transaction.recipients.add(&address, &Wishes { notify, orcpt }).map_err(|error| match &error {
            BadRecipient::Address(..) => bad(error.to_string()),
            BadRecipient::TooMany(_) => refusal(452, "4.5.3", error.to_string()),
        })?;
        Ok(Reply::new(250, "2.1.5", "ok"))
    }

    fn data(&mut self, rest: &str) -> (Reply, Next<'a>) {
        let is_ready = |transaction: &Transaction<'_>| rest.is_empty() && !transaction.recipients.is_empty();
        if let Some(transaction) = self.transaction.take_if(|transaction| is_ready(transaction)) {
            // All have to agree: an LF that ends one line in a hundred ends no message.
            let line_end = if self.only_lf { LineEnd::Lf } else { LineEnd::CrLf };
            let text = "end the message with a dot on a line of its own";
            return (Reply::new(354, "", text), Next::Content(transaction, line_end));
        }
        self.refused_data = true;
        let refusal = match &self.transaction {
            _ if !rest.is_empty() => Reply::new(501, "5.5.4", "DATA comes alone"),
            None => Reply::new(503, "5.5.1", "MAIL and RCPT come first"),
            Some(_) => Reply::new(554, "5.5.1", "there are no valid recipients"),
        };
        (refusal, Next::Command)
    }

    fn reset(&mut self, rest: &str) -> Reply {
        if !rest.is_empty() {
            return Reply::new(501, "5.5.4", "RSET comes alone");
        }
        self.transaction = None;
        Reply::new(250, "2.0.0", "ok")
    }
}

fn give_up<'a>(code: u16, text: &'static str) -> (Reply, Next<'a>) {
    (Reply::new(code, "5.5.1", text), Next::GiveUp(text))
}

/// What HELP says.
const HELP: &str = "\
EHLO NAME, then for each message:
MAIL FROM:<SENDER>
RCPT TO:<RECIPIENT>, once for each
DATA, then the message, then a dot on a line of its own
RSET forgets the message; QUIT ends the session; also: HELO NOOP VRFY
lastmile-sendmail(1) has more";
