//! DATA and BDAT: content in, stored messages and their replies out (RFC 5321, RFC 3030, RFC 2033 section 4.2).
//!
//! - Owns: what may begin when, who gets the message, the replies after its end.
//! - Leaves to others: other commands (`session`), where content ends (`receive`), files (`content`).
//! - Always true: after the end of data each accepted recipient gets one reply in LMTP, all together one in ESMTP;
//!   a chunk is read to its end whatever is said to it.

use super::content::Content;
use super::counts::add;
use super::receive::{receive_chunk, receive_data};
use super::reply::Reply;
use super::script::{Action, Stage};
use super::session::{Session, Transaction};
use super::syntax::{parse_chunk, too_large};
use super::wire::Ended;
use crate::mail::Address;

impl<'a> Session<'a> {
    /// DATA, and the content that follows it.
    pub(super) fn data(&mut self) -> Result<(), Ended> {
        let go_ahead = |session: &mut Self| match &session.transaction {
            None => Reply::new(503, "5.5.1", "say MAIL and RCPT first"),
            Some(transaction) if transaction.content.is_some() || transaction.failed => {
                Reply::new(503, "5.5.1", "DATA and BDAT do not mix")
            }
            Some(transaction) if transaction.recipients.is_empty() => {
                Reply::new(503, "5.5.1", "there is no valid recipient")
            }
            Some(_) => Reply::new(354, "", "end it with a dot"),
        };
        if !self.answer(Stage::Data, "", go_ahead)? {
            return Ok(());
        }
        let Some(mut transaction) = self.transaction.take() else { return Ok(()) };
        let Some(mut content) = self.begin_content(&mut transaction)? else { return Ok(()) };
        receive_data(&mut self.wire, |octets| content.push(octets))?;
        self.finish(&transaction, content)
    }

    /// BDAT with its chunk.
    pub(super) fn bdat(&mut self, rest: &str) -> Result<(), Ended> {
        let Some((octets, is_last)) = parse_chunk(rest) else {
            // Where the next command begins is anybody's guess now.
            self.say(&Reply::new(501, "5.5.4", "BDAT takes a number of octets, and LAST"))?;
            return self.part();
        };
        let usable =
            |transaction: &Transaction<'_>| !transaction.recipients.is_empty() && !transaction.failed;
        let Some(mut transaction) = self.transaction.take_if(|transaction| usable(transaction)) else {
            receive_chunk(&mut self.wire, octets, |_| {})?;
            return self.say(&Reply::new(503, "5.5.1", "there is no transaction with a valid recipient"));
        };
        let action = self.shared.config.script.action(Stage::Data, "");
        if let Some(action) = action {
            self.before(action)?;
        }
        if let Some((action, refusal)) = action.and_then(|action| Some((action, action.refusal()?))) {
            receive_chunk(&mut self.wire, octets, |_| {})?;
            let replies = if is_last && self.is_lmtp() { transaction.recipients.len() } else { 1 };
            transaction.failed = true;
            self.transaction = Some(transaction).filter(|_| !is_last);
            return (0..replies).try_for_each(|_| self.emit(action, refusal));
        }
        let content = match transaction.content.take() {
            Some(content) => Some(content),
            None => self.begin_content(&mut transaction)?,
        };
        let Some(mut content) = content else { return Ok(()) };
        receive_chunk(&mut self.wire, octets, |octets| content.push(octets))?;
        if is_last {
            return self.finish(&transaction, content);
        }
        let (reply, failed) = match content.is_too_large() {
            true => (too_large(), true),
            false => (Reply::new(250, "2.0.0", format!("{octets} octets received")), false),
        };
        self.transaction = Some(Transaction { content: Some(content), failed, ..transaction });
        match action {
            Some(action) => self.emit(action, action.reply().unwrap_or(&reply)),
            None => self.say(&reply),
        }
    }

    /// Makes room for the content, and follows the rule for its beginning.
    fn begin_content(&mut self, transaction: &mut Transaction<'a>) -> Result<Option<Content<'a>>, Ended> {
        if let Some(action) = self.shared.config.script.action(Stage::Content, "") {
            self.before(action)?;
            if let Some(reply) = action.reply() {
                let replies = if self.is_lmtp() { transaction.recipients.len() } else { 1 };
                (0..replies).try_for_each(|_| self.emit(action, reply))?;
                self.wire.flush()?;
                transaction.answered = true;
            }
        }
        let Some(first) = transaction.recipients.first() else { return Ok(None) };
        let maildirs = self.shared.maildirs.as_ref().filter(|_| !transaction.answered);
        Ok(Some(Content::new(maildirs, first.clone(), self.shared.config.message_size_limit)))
    }

    /// Stores a complete content and replies: once in ESMTP, once for each recipient in LMTP.
    fn finish(&mut self, transaction: &Transaction<'a>, mut content: Content<'a>) -> Result<(), Ended> {
        add(&self.shared.counters.bytes, content.size());
        if transaction.answered {
            return Ok(());
        }
        if self.is_lmtp() {
            self.finish_each(&transaction.recipients, &mut content)?;
        } else {
            self.finish_all(&transaction.recipients, &mut content)?;
        }
        self.wire.held = false;
        Ok(())
    }

    fn finish_each(&mut self, recipients: &[Address], content: &mut Content<'a>) -> Result<(), Ended> {
        let mut taken = 0;
        for (at, recipient) in recipients.iter().enumerate() {
            let action = self.shared.config.script.action(Stage::DataDone, recipient.unquoted());
            if let Some(action) = action.filter(|action| !action.delay.is_zero()) {
                self.wire.pause(action.delay)?;
            }
            let is_last = at + 1 == recipients.len();
            let reply = match action.and_then(Action::refusal) {
                Some(refusal) => refusal.clone(),
                None => self.store(content, recipient, is_last, action),
            };
            taken += u64::from(reply.is_positive());
            if taken == 1 && reply.is_positive() {
                add(&self.shared.counters.messages, 1);
            }
            self.emit_or_say(action, &reply)?;
            self.wire.relieve()?;
        }
        Ok(())
    }

    fn finish_all(&mut self, recipients: &[Address], content: &mut Content<'a>) -> Result<(), Ended> {
        let script = &self.shared.config.script;
        let action =
            recipients.iter().find_map(|recipient| script.action(Stage::DataDone, recipient.unquoted()));
        if let Some(action) = action.filter(|action| !action.delay.is_zero()) {
            self.wire.pause(action.delay)?;
        }
        if let Some((action, refusal)) = action.and_then(|action| Some((action, action.refusal()?))) {
            return self.emit(action, refusal);
        }
        let mut reply = Reply::new(250, "2.0.0", "stored");
        for (at, recipient) in recipients.iter().enumerate() {
            let stored = self.store(content, recipient, at + 1 == recipients.len(), action);
            if !stored.is_positive() {
                // One reply speaks for all: those stored before will get the message again.
                reply = stored;
                break;
            }
        }
        if reply.is_positive() {
            add(&self.shared.counters.messages, 1);
        }
        self.emit_or_say(action, &reply)
    }

    /// Stores the content for one recipient; the usual reply.
    fn store(
        &self,
        content: &mut Content<'a>,
        recipient: &Address,
        is_last: bool,
        action: Option<&Action>,
    ) -> Reply {
        if content.is_too_large() {
            return too_large();
        }
        if !action.is_some_and(|action| action.swallow)
            && let Err(error) = content.deliver(recipient, is_last)
        {
            log::warn!("sink: cannot store a message for <{recipient}>, which is deferred: {error}");
            return Reply::new(451, "4.3.0", format!("<{recipient}> cannot be stored: {error}"));
        }
        add(&self.shared.counters.deliveries, 1);
        Reply::new(250, "2.0.0", format!("<{recipient}> stored"))
    }
}
