//! One mail transaction: from RSET or MAIL to the last reply after the end of data.
//!
//! - Owns: what is written in which flight, which reply answers what, and which recipient each reply settles.
//! - Leaves to others: reading, writing and deadlines (`net`); what a refusal means (`failure`).
//! - Always true: a reply settles its recipient by position, the moment it arrives, and once. Every reply that is
//!   due is read, whatever an earlier one said; only a 421, silence or a broken reply ends that. Nobody is delivered
//!   to before all of the content has left; a probe delivers to nobody.

mod terms;

use std::collections::VecDeque;

use super::capabilities::Capabilities;
use super::command::{self, Mail};
use super::failure::{self, EightBit, SessionError};
use super::reply::{BadReply, Class, Reply};
use super::stage::Stage;
use super::xforward::Part;
use crate::mail::{Address, Batch, BodyType, EnhancedStatus, Outcome, Protocol, Reason, Recipient};
pub use terms::{Encoding, Flight, Manner, Message, Probe, Settled, Smtputf8, Step};

/// Octets of the commands for one recipient, roughly.
const COMMANDS_SIZE: usize = 256;

/// A reply that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Rset,
    Xforward(Part),
    Mail,
    Rcpt(usize),
    /// RSET at the end of a probe.
    FinalRset,
    DataInit,
    /// The end of data, as long as the answers to RCPT are not all known.
    EndOfData,
    /// The end of data, for one recipient (LMTP).
    Final(usize),
    /// The end of data, for all accepted recipients (ESMTP).
    FinalAll,
    /// The end of data, when nobody was accepted.
    FinalNobody,
}

impl Due {
    fn stage(self) -> Stage {
        match self {
            Self::Rset | Self::FinalRset => Stage::Rset,
            Self::Xforward(part) => part.stage(),
            Self::Mail => Stage::Mail,
            Self::Rcpt(_) => Stage::Rcpt,
            Self::DataInit => Stage::DataInit,
            Self::EndOfData | Self::Final(_) | Self::FinalAll | Self::FinalNobody => Stage::DataDone,
        }
    }
}

/// What is to be written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Rset,
    Xforward(Part),
    Mail,
    Rcpt(usize),
    FinalRset,
    Data,
    Content,
    Nothing,
}

/// What is known of a recipient.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Not answered yet.
    Open,
    /// RCPT was accepted.
    Accepted,
    /// RCPT was answered by "too many recipients".
    TooMany(Reply),
    /// Has its outcome.
    Settled,
}

#[derive(Debug)]
struct Slot<'a> {
    recipient: &'a Recipient,
    fate: Fate,
}

/// One transaction, from its first command to its last reply: `'s` is the session it runs in, `'a` its batch.
#[derive(Debug)]
pub struct Transaction<'s, 'a> {
    manner: Manner,
    peer: &'s str,
    offered: &'s Capabilities,
    mail: Mail<'a>,
    message: Message<'a>,
    /// The content goes out in its seven-bit form.
    converts: bool,
    slots: Vec<Slot<'a>>,
    turn: Turn,
    due: VecDeque<Due>,
    settled: Vec<Settled>,
    mail_refused: bool,
    /// The first of those at the end who were "too many".
    too_many_from: Option<usize>,
    /// All of the content has left, the end of data with it.
    content_sent: bool,
    replies_read: usize,
    reusable: bool,
    close_abruptly: bool,
    /// A 421 decided for others than those whom its reply was about.
    closed_on: Option<Reason>,
    warnings: Vec<String>,
}

impl<'s, 'a> Transaction<'s, 'a> {
    /// Prepares the transaction of `recipients`, who are of `batch`, with the content of `message`. Recipients whom the
    /// server cannot serve by what it offers are settled at once.
    pub fn new(
        manner: Manner,
        peer: &'s str,
        offered: &'s Capabilities,
        batch: &'a Batch,
        recipients: impl IntoIterator<Item = &'a Recipient>,
        message: Message<'a>,
    ) -> Self {
        let is_seven_bit = message.body == Some(BodyType::SevenBit);
        let converts = manner.eight_bit == EightBit::Convert && !offered.eight_bit_mime && !is_seven_bit;
        let manner = Manner {
            pipelining: manner.pipelining && offered.pipelining,
            // BDAT must tell a size in advance, and how long the seven-bit form is shows only at its end.
            chunking: manner.chunking && offered.chunking && !converts && manner.probe.is_none(),
            ..manner
        };
        let slots = recipients.into_iter().map(|recipient| Slot { recipient, fate: Fate::Open }).collect();
        let envelope = batch.envelope();
        let mail = Mail {
            sender: batch.sender(),
            size: Some(message.declared_size).filter(|_| !converts),
            body: message.body,
            envid: envelope.envid.as_deref(),
            ret: envelope.ret,
            smtputf8: match message.smtputf8 {
                Smtputf8::ByAddress => {
                    envelope.smtputf8 || batch.sender().address().is_some_and(Address::needs_smtputf8)
                }
                Smtputf8::Told { wanted, .. } => wanted,
            },
            unquoted: manner.unquoted,
            dummy_auth: manner.dummy_auth,
        };
        let turn = if manner.reset { Turn::Rset } else { Turn::Mail };
        let mut transaction = Self {
            manner,
            peer,
            offered,
            mail,
            message,
            converts,
            slots,
            turn,
            due: VecDeque::new(),
            settled: Vec::new(),
            mail_refused: false,
            too_many_from: None,
            content_sent: false,
            replies_read: 0,
            reusable: true,
            close_abruptly: false,
            closed_on: None,
            warnings: Vec::new(),
        };
        if transaction.turn == Turn::Mail {
            transaction.turn = transaction.after_reset();
        }
        transaction.refuse_what_is_not_offered();
        transaction
    }

    /// RFC 1870 section 6.3, RFC 6152 section 3, RFC 6531 section 3.2: what the server does not take is not sent.
    fn refuse_what_is_not_offered(&mut self) {
        let peer = self.peer;
        let size = self.message.declared_size;
        let refuses_eight_bit = self.manner.eight_bit == EightBit::Refuse;
        let everybody = if let Some(limit) = self.offered.size_limit().filter(|&limit| size > limit) {
            Some(((5, 3, 4), format!("message size {size} exceeds size limit {limit} of server {peer}")))
        } else if refuses_eight_bit
            && self.message.body == Some(BodyType::EightBitMime)
            && !self.offered.eight_bit_mime
        {
            Some(((5, 6, 3), format!("8BITMIME is required, but was not offered by host {peer}")))
        } else {
            None
        };
        for at in 0..self.slots.len() {
            let needs_utf8 = match self.message.smtputf8 {
                Smtputf8::ByAddress => {
                    self.mail.smtputf8 || self.slots[at].recipient.address.needs_smtputf8()
                }
                Smtputf8::Told { required, .. } => required,
            };
            let no_utf8 = needs_utf8 && !self.offered.smtputf8;
            let utf8 = || ((5, 6, 7), format!("SMTPUTF8 is required, but was not offered by host {peer}"));
            if let Some(((class, subject, detail), text)) = everybody.clone().or_else(|| no_utf8.then(utf8)) {
                let status = EnhancedStatus::new(class, subject, detail);
                self.settle(at, Outcome::Bounced(Reason::local(status, text)), false);
            }
        }
        let remaining = || self.slots.iter().filter(|slot| slot.fate == Fate::Open);
        let utf8 = remaining().any(|slot| slot.recipient.address.needs_smtputf8());
        if remaining().next().is_none() {
            self.turn = Turn::Nothing;
        }
        self.mail.smtputf8 |= utf8 && self.message.smtputf8 == Smtputf8::ByAddress;
    }

    /// The turn before MAIL: XFORWARD, where there is something to say.
    fn after_reset(&self) -> Turn {
        self.xforward_from(&[Part::Client, Part::Session])
    }

    fn xforward_from(&self, parts: &[Part]) -> Turn {
        let has_words = |part: &&Part| !self.xforward_arguments(**part).is_empty();
        parts.iter().find(has_words).map_or(Turn::Mail, |part| Turn::Xforward(*part))
    }

    fn xforward_arguments(&self, part: Part) -> String {
        self.message.origin.map_or_else(String::new, |origin| part.arguments(&origin, self.offered.xforward))
    }

    /// What to do next. A flight has at most `room` octets, content included, unless one command or the content
    /// alone is more.
    pub fn next_step(&mut self, room: usize) -> Step {
        self.expand_end_of_data();
        if let Some(due) = self.due.front() {
            return Step::Read(due.stage());
        }
        match self.compose(room) {
            Some(flight) => Step::Write(flight),
            None => Step::Done,
        }
    }

    fn compose(&mut self, room: usize) -> Option<Flight> {
        let commands = Vec::with_capacity(COMMANDS_SIZE);
        let mut flight = Flight { commands, content: None, stage: Stage::Rset };
        while flight.content.is_none() && self.turn != Turn::Nothing {
            let before = flight.commands.len();
            if !self.add_command(&mut flight, room) {
                break;
            }
            if before > 0 && flight.commands.len() > room {
                // Too much by this command: it waits for the next flight.
                flight.commands.truncate(before);
                self.take_back_command();
                break;
            }
            let waits_for_354 = self.turn == Turn::Content;
            if !self.manner.pipelining || waits_for_354 {
                break;
            }
        }
        if let Some(due) = self.due.back() {
            flight.stage = due.stage();
        }
        (!flight.commands.is_empty() || flight.content.is_some()).then_some(flight)
    }

    /// Adds the command whose turn it is; `false` if it must not join this flight.
    fn add_command(&mut self, flight: &mut Flight, room: usize) -> bool {
        let out = &mut flight.commands;
        match self.turn {
            Turn::Rset => {
                command::plain(out, "RSET");
                self.await_reply(Due::Rset, self.after_reset());
            }
            Turn::Xforward(part) => {
                command::xforward(out, &self.xforward_arguments(part));
                let rest: &[Part] = if part == Part::Client { &[Part::Session] } else { &[] };
                self.await_reply(Due::Xforward(part), self.xforward_from(rest));
            }
            Turn::Mail => {
                self.mail.write(out, self.offered);
                self.await_reply(Due::Mail, self.rcpt_from(0));
            }
            Turn::Rcpt(at) => {
                if self.mail_refused {
                    self.turn = Turn::Nothing;
                    return false;
                }
                command::rcpt(out, self.slots[at].recipient, self.offered, self.manner.unquoted);
                self.await_reply(Due::Rcpt(at), self.rcpt_from(at + 1));
            }
            Turn::FinalRset => {
                command::plain(out, "RSET");
                self.await_reply(Due::FinalRset, Turn::Nothing);
            }
            Turn::Data => return self.add_data(flight, room),
            Turn::Content => {
                let encoding = if self.converts { Encoding::SevenBitDots } else { Encoding::Dots };
                flight.content = Some(encoding);
                self.await_reply(Due::EndOfData, Turn::Nothing);
            }
            Turn::Nothing => return false,
        }
        true
    }

    fn add_data(&mut self, flight: &mut Flight, room: usize) -> bool {
        if self.due.is_empty() && !self.somebody_is_accepted() {
            self.turn = Turn::Nothing;
            return false;
        }
        if !self.manner.chunking {
            command::plain(&mut flight.commands, "DATA");
            self.await_reply(Due::DataInit, Turn::Content);
            return true;
        }
        let is_first = flight.commands.is_empty();
        let before = flight.commands.len();
        let size = self.message.size;
        command::bdat_last(&mut flight.commands, size);
        let fits = size <= self.manner.eager_content_limit
            && (flight.commands.len() as u64).saturating_add(size) <= room as u64;
        if !is_first && (!fits || self.manner.hold_content) {
            flight.commands.truncate(before);
            return false;
        }
        flight.content = Some(Encoding::Chunk);
        self.await_reply(Due::EndOfData, Turn::Nothing);
        true
    }

    fn await_reply(&mut self, due: Due, next: Turn) {
        self.due.push_back(due);
        self.turn = next;
    }

    fn take_back_command(&mut self) {
        self.turn = match self.due.pop_back() {
            Some(Due::Rset) => Turn::Rset,
            Some(Due::Xforward(part)) => Turn::Xforward(part),
            Some(Due::Mail) => Turn::Mail,
            Some(Due::Rcpt(at)) => Turn::Rcpt(at),
            Some(Due::FinalRset) => Turn::FinalRset,
            Some(Due::DataInit) => Turn::Data,
            _ => self.turn,
        };
    }

    /// The turn of the first recipient from `at` on who is still to be asked for.
    fn rcpt_from(&self, at: usize) -> Turn {
        let open = self.slots.iter().skip(at).position(|slot| slot.fate == Fate::Open);
        let last = if self.manner.probe == Some(Probe::UntilRcpt) { Turn::FinalRset } else { Turn::Data };
        open.map_or(last, |skipped| Turn::Rcpt(at + skipped))
    }

    /// A flight with content was written to its last octet: from now on the server may hold the message.
    pub fn content_has_left(&mut self) {
        self.content_sent = true;
    }

    /// Takes the reply that was due. An error means that the conversation is broken: see [`Transaction::fail`].
    pub fn on_reply(&mut self, reply: &Reply) -> Result<(), BadReply> {
        self.expand_end_of_data();
        let due = self.due.pop_front().ok_or(BadReply::Surplus)?;
        self.replies_read += 1;
        if reply.is_closing() {
            self.close(due, reply);
            return Ok(());
        }
        match due {
            Due::Rset | Due::FinalRset => self.reusable &= reply.is_success(),
            Due::Xforward(part) => self.on_xforward(part, reply),
            Due::Mail => self.on_mail(reply)?,
            Due::Rcpt(at) => self.on_rcpt(at, reply)?,
            Due::DataInit => self.on_data_init(reply)?,
            Due::EndOfData | Due::FinalNobody => {}
            Due::Final(at) => self.on_final(at, reply)?,
            Due::FinalAll => {
                for at in self.accepted() {
                    self.on_final(at, reply)?;
                }
            }
        }
        Ok(())
    }

    /// Nothing but the server's own log is the poorer for a refusal.
    fn on_xforward(&mut self, part: Part, reply: &Reply) {
        if !reply.is_success() {
            let (peer, text, command) = (self.peer, reply.one_line(), part.stage().command());
            self.warnings.push(format!("host {peer} said: {text} (in reply to {command})"));
        }
    }

    fn on_mail(&mut self, reply: &Reply) -> Result<(), BadReply> {
        match reply.class() {
            Class::Success => {}
            Class::Continue => return self.wrong_class(Due::Mail, reply),
            Class::Transient | Class::Permanent => {
                self.mail_refused = true;
                self.refuse_all(Stage::Mail, reply);
            }
        }
        Ok(())
    }

    fn on_rcpt(&mut self, at: usize, reply: &Reply) -> Result<(), BadReply> {
        // After a refused MAIL its reply was everybody's; this one only had to be read.
        if self.mail_refused {
            return Ok(());
        }
        match reply.class() {
            Class::Success => {
                // Who comes later fits: so the one before was not one too many.
                self.too_many_from = None;
                match self.manner.probe {
                    Some(Probe::UntilRcpt) => self.settle(at, failure::accepted(reply), false),
                    _ => self.slots[at].fate = Fate::Accepted,
                }
            }
            Class::Continue => return self.wrong_class(Due::Rcpt(at), reply),
            _ if failure::is_too_many_recipients(reply) && self.manner.probe.is_some() => {
                self.settle(at, failure::not_about_mail(self.peer, Stage::Rcpt, reply), false);
            }
            _ if failure::is_too_many_recipients(reply) => {
                self.too_many_from.get_or_insert(at);
                self.slots[at].fate = Fate::TooMany(reply.clone());
            }
            _ => self.settle(at, self.refused(Stage::Rcpt, reply), false),
        }
        if !self.slots.iter().any(|slot| slot.fate == Fate::Open) {
            self.settle_too_many();
        }
        Ok(())
    }

    /// "Too many" sends a recipient into the next transaction only if this one settles somebody; else it would
    /// go on for ever, and the reply is taken as it stands.
    fn settle_too_many(&mut self) {
        if self.somebody_is_accepted() {
            return;
        }
        for at in 0..self.slots.len() {
            if let Fate::TooMany(reply) = &self.slots[at].fate {
                let outcome = self.refused(Stage::Rcpt, reply);
                self.settle(at, outcome, false);
            }
        }
    }

    fn on_data_init(&mut self, reply: &Reply) -> Result<(), BadReply> {
        match (reply.class(), reply.code()) {
            (Class::Continue, 354) if self.manner.probe.is_some() => self.end_probe(reply),
            (Class::Continue, 354) if self.somebody_is_accepted() => return Ok(()),
            // The server waits for content that nobody is to get. A dot would make it deliver an empty message.
            (Class::Continue, 354) => self.close_abruptly = true,
            (Class::Success | Class::Continue, _) => return self.wrong_class(Due::DataInit, reply),
            (Class::Transient | Class::Permanent, _) => self.refuse_all(Stage::DataInit, reply),
        }
        self.turn = Turn::Nothing;
        Ok(())
    }

    /// The server waits for content that there is not. The reply says nothing of a recipient, so neither does the status.
    fn end_probe(&mut self, reply: &Reply) {
        for at in self.accepted() {
            let reason = Reason {
                status: EnhancedStatus::new(2, 0, 0),
                text: reply.one_line(),
                reply: Some(reply.text().to_owned()),
            };
            self.settle(at, Outcome::Delivered(reason), false);
        }
        self.close_abruptly = true;
    }

    fn on_final(&mut self, at: usize, reply: &Reply) -> Result<(), BadReply> {
        let outcome = match reply.class() {
            Class::Success if self.content_sent => failure::accepted(reply),
            // Whatever is accepted before the end of data has left, it is not the message.
            Class::Success | Class::Continue => return self.wrong_class(Due::Final(at), reply),
            _ => self.refused(Stage::DataDone, reply),
        };
        self.settle(at, outcome, false);
        Ok(())
    }

    /// 421: the server closes. Replies already given stand.
    fn close(&mut self, due: Due, reply: &Reply) {
        // If the very first thing read is a 421, the server has not looked at the message.
        let may_have_delivered = self.content_sent && self.replies_read > 1;
        if let Due::Final(at) = due {
            self.settle(at, failure::not_about_mail(self.peer, Stage::DataDone, reply), false);
        }
        let outcome = failure::not_about_mail(self.peer, due.stage(), reply);
        let in_doubt = may_have_delivered && due != Due::FinalAll;
        let is_answer_to_all = matches!(due, Due::Mail | Due::DataInit | Due::FinalAll | Due::FinalNobody);
        let is_of_one = |at: usize| matches!(due, Due::Rcpt(only) if only == at);
        if !is_answer_to_all
            && (0..self.slots.len()).any(|at| self.slots[at].fate != Fate::Settled && !is_of_one(at))
        {
            self.closed_on = Some(outcome.reason().clone());
        }
        self.settle_rest(&outcome, in_doubt);
        self.close_abruptly = true;
    }

    /// The conversation broke: settles everybody who has no answer yet.
    pub fn fail(&mut self, error: &SessionError) {
        self.settle_rest(&Outcome::Deferred(error.reason()), error.may_have_delivered());
    }

    fn settle_rest(&mut self, outcome: &Outcome, in_doubt: bool) {
        for at in 0..self.slots.len() {
            if let Fate::TooMany(reply) = &self.slots[at].fate {
                // What ended the session hit a transaction that they are not in.
                let outcome = failure::not_about_mail(self.peer, Stage::Rcpt, reply);
                self.settle(at, outcome, false);
            } else {
                self.settle(at, outcome.clone(), in_doubt);
            }
        }
        self.turn = Turn::Nothing;
        self.due.clear();
        self.reusable = false;
    }

    /// What a refusal means. After a refused RSET, 503 (bad sequence of commands) speaks of the transaction before,
    /// not of this message.
    fn refused(&self, stage: Stage, reply: &Reply) -> Outcome {
        if !self.reusable && reply.code() == 503 {
            return failure::not_about_mail(self.peer, stage, reply);
        }
        failure::refused(self.peer, stage, reply, self.manner.over_quota)
    }

    /// A refused MAIL or DATA is the outcome of everybody who is in the transaction. Who was one too many is not: the
    /// reply does not speak of them.
    fn refuse_all(&mut self, stage: Stage, reply: &Reply) {
        let outcome = self.refused(stage, reply);
        for at in 0..self.slots.len() {
            if !matches!(self.slots[at].fate, Fate::TooMany(_)) {
                self.settle(at, outcome.clone(), false);
            }
        }
    }

    fn settle(&mut self, at: usize, outcome: Outcome, in_doubt: bool) {
        let slot = &mut self.slots[at];
        if slot.fate != Fate::Settled {
            slot.fate = Fate::Settled;
            self.settled.push(Settled { position: slot.recipient.position, outcome, in_doubt });
        }
    }

    /// Leaves the reply due, so that the error names its stage.
    fn wrong_class(&mut self, due: Due, reply: &Reply) -> Result<(), BadReply> {
        self.due.push_front(due);
        Err(BadReply::WrongClass(reply.one_line()))
    }

    /// Once all RCPT are answered, LMTP owes a reply for each accepted recipient (RFC 2033 section 4.2), ESMTP
    /// one; BDAT with nobody accepted has exactly one in both.
    fn expand_end_of_data(&mut self) {
        if self.due.front() != Some(&Due::EndOfData) {
            return;
        }
        self.due.pop_front();
        let accepted = self.accepted();
        match (self.manner.protocol, accepted.is_empty()) {
            (_, true) => self.due.push_front(Due::FinalNobody),
            (Protocol::Smtp, false) => self.due.push_front(Due::FinalAll),
            (Protocol::Lmtp, false) => self.due.extend(accepted.into_iter().map(Due::Final)),
        }
    }

    fn accepted(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&at| self.slots[at].fate == Fate::Accepted).collect()
    }

    fn somebody_is_accepted(&self) -> bool {
        self.slots.iter().any(|slot| slot.fate == Fate::Accepted)
    }

    /// Outcomes since the last call, in the order in which they became known.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// What went wrong without any mail being the worse for it, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Why the server closed the connection on recipients of whom it had not been asked yet, if it did: that is a fault of
    /// its own, and none of theirs.
    pub fn closed_on(&self) -> Option<&Reason> {
        self.closed_on.as_ref()
    }

    /// Positions of those who may get the message if the end of data leaves now, in ascending order of asking.
    pub fn at_stake(&self) -> Vec<u32> {
        let at_stake = |slot: &&Slot<'_>| matches!(slot.fate, Fate::Open | Fate::Accepted);
        self.slots.iter().filter(at_stake).map(|slot| slot.recipient.position).collect()
    }

    /// Recipients without an outcome.
    pub fn unsettled(&self) -> Vec<&'a Recipient> {
        let unsettled = |slot: &&Slot<'_>| slot.fate != Fate::Settled;
        self.slots.iter().filter(unsettled).map(|slot| slot.recipient).collect()
    }

    /// Recipients whom the server wants in a transaction of their own. Empty unless somebody else was accepted.
    pub fn left_over(&self) -> Vec<&'a Recipient> {
        let too_many = |slot: &&Slot<'_>| matches!(slot.fate, Fate::TooMany(_));
        self.slots.iter().filter(too_many).map(|slot| slot.recipient).collect()
    }

    /// How many recipients the server heard of before it had enough, if it had.
    pub fn recipients_before_too_many(&self) -> Option<usize> {
        self.too_many_from.filter(|&count| count > 0)
    }

    /// How many replies the end of data still brings, as far as known: the shared deadline goes by it.
    pub fn replies_due(&self) -> usize {
        self.due.len()
    }

    /// Whether a reply that is awaited now is one to the end of data.
    pub fn awaits_end_of_data(&self) -> bool {
        self.due.front().is_some_and(|due| due.stage() == Stage::DataDone)
    }

    /// How many replies were read.
    pub fn replies_read(&self) -> usize {
        self.replies_read
    }

    /// Whether another transaction may follow on the connection.
    pub fn is_reusable(&self) -> bool {
        self.reusable && !self.close_abruptly
    }

    /// Whether the connection must be closed without another word: the server waits for content, or has said that
    /// it closes.
    pub fn must_close_abruptly(&self) -> bool {
        self.close_abruptly
    }
}

#[cfg(test)]
mod tests;
