//! Files to dialogues. The format is described one level up.
//!
//! - Owns: lines, directives, outcomes, escapes.
//! - Leaves to others: playing (`dialogue`).
//! - Always true: what is not understood is an error with its line; nothing is skipped.

use std::collections::HashMap;
use std::time::Duration;

use lastmile::mail::{
    Address, BodyType, EnhancedStatus, Envelope, Protocol, QueueId, Recipient, Sender, Server,
};
use lastmile::smtp::{Smtputf8, Stage};

use super::{Delivery, Dialogue, Expected, Setup, Transaction};
use crate::common::certificates::Kind;
use crate::support::Step;

/// The content where a file names none.
const CONTENT: &str = "Subject: hi\\r\\n\\r\\nhello\\r\\n";
/// Octets that a file may ask for at once.
const OCTETS_MAX: usize = 16 << 20;

/// A file that cannot be read: its line, and why.
type Bad = (usize, String);

impl Dialogue {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, Bad> {
        let mut parser = Parser::default();
        for (at, line) in text.lines().enumerate() {
            parser.line(at + 1, line).map_err(|why| (at + 1, why))?;
        }
        parser.finish().map_err(|why| (text.lines().count(), why))
    }
}

/// What directives say; kept from one transaction to the next.
#[derive(Clone, Default)]
struct Directives {
    sender: Option<Sender>,
    recipients: Vec<Address>,
    notify: HashMap<Address, String>,
    orcpt: HashMap<Address, String>,
    envid: Option<String>,
    ret: Option<String>,
    smtputf8: bool,
    content: Option<Vec<u8>>,
    seven_bit: Option<Vec<u8>>,
    declared_size: Option<u64>,
    body_unknown: bool,
    utf8: Smtputf8,
    origin: Option<[String; 7]>,
    probe: bool,
    rested: Duration,
}

#[derive(Default)]
struct Parser {
    protocol: Option<Protocol>,
    tcp: bool,
    options: Vec<(String, String)>,
    habits: Vec<(String, String)>,
    timeouts: Vec<(Stage, Duration)>,
    login: Option<String>,
    directives: Directives,
    steps: Vec<(usize, Step)>,
    steps_to_deliver: Option<usize>,
    outcomes: Vec<Expected>,
    transactions: Vec<Transaction>,
}

impl Parser {
    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if line == "--" {
            return self.end_transaction();
        }
        if let Some(directive) = line.strip_prefix('@') {
            return self.directive(directive);
        }
        if let Some(outcome) = line.strip_prefix("= ") {
            self.steps_to_deliver.get_or_insert(self.steps.len());
            self.outcomes.push(parse_outcome(number, outcome)?);
            return Ok(());
        }
        let step = match line.split_once(": ") {
            Some(("C", text)) => parse_client(text)?,
            Some(("S", text)) => parse_server(text)?,
            _ => return Err(format!("{line:?} is no line of a dialogue")),
        };
        if let Some(step) = step {
            let opens = matches!(step, Step::Accept | Step::Refuse);
            if self.transactions.is_empty() && self.steps.is_empty() && !opens {
                self.steps.push((number, Step::Accept));
            }
            self.steps.push((number, step));
        }
        Ok(())
    }

    fn directive(&mut self, text: &str) -> Result<(), String> {
        if !self.steps.is_empty() || !self.outcomes.is_empty() {
            return Err("directives stand before what is said".to_owned());
        }
        let (key, value) = text.split_once(' ').unwrap_or((text, ""));
        let pair = || value.split_once(' ').ok_or_else(|| format!("@{key} needs two words"));
        let address = |text: &str| text.parse::<Address>().map_err(|error| format!("{text}: {error}"));
        let directives = &mut self.directives;
        match key {
            "protocol" => self.protocol = Some(value.parse()?),
            "listen" if matches!(value, "unix" | "tcp") => self.tcp = value == "tcp",
            "option" => self.options.push(pair().map(|(key, value)| (key.to_owned(), value.to_owned()))?),
            "habit" => self.habits.push(pair().map(|(key, value)| (key.to_owned(), value.to_owned()))?),
            "login" if value.contains(':') => self.login = Some(value.to_owned()),
            "timeout" => self.timeouts.push((parse_stage(pair()?.0)?, parse_time(pair()?.1)?)),
            "sender" => directives.sender = Some(value.parse().map_err(|error| format!("{error}"))?),
            "recipients" => {
                directives.recipients = value.split(' ').map(address).collect::<Result<_, _>>()?;
            }
            "notify" => drop(directives.notify.insert(address(pair()?.0)?, pair()?.1.to_owned())),
            "orcpt" => drop(directives.orcpt.insert(address(pair()?.0)?, pair()?.1.to_owned())),
            "envid" => directives.envid = Some(value.to_owned()),
            "ret" => directives.ret = Some(value.to_owned()),
            "smtputf8" => directives.smtputf8 = value == "yes",
            "content" => directives.content = Some(unescape(value)?),
            "content-octets" => directives.content = Some(filler(parse_octets(value)?)),
            "seven-bit" => directives.seven_bit = Some(unescape(value)?),
            "declared-size" => directives.declared_size = Some(parse_octets(value)? as u64),
            "body" if value == "unknown" => directives.body_unknown = true,
            "utf8" => directives.utf8 = parse_utf8(pair()?)?,
            "origin" => directives.origin = Some(parse_origin(value)?),
            "probe" => directives.probe = value == "yes",
            "rested" => directives.rested = parse_time(value)?,
            _ => return Err(format!("@{key} {value} is no directive")),
        }
        Ok(())
    }

    fn end_transaction(&mut self) -> Result<(), String> {
        let steps = std::mem::take(&mut self.steps);
        let outcomes = std::mem::take(&mut self.outcomes);
        let steps_to_deliver =
            self.steps_to_deliver.take().ok_or("a transaction says what becomes of its recipients")?;
        let delivery = self.directives.delivery(&outcomes, self.transactions.len() as u64)?;
        let expected: Vec<_> = outcomes.iter().map(|outcome| &outcome.address).collect();
        let mut asked: Vec<_> = delivery.recipients.iter().map(|recipient| &recipient.address).collect();
        if asked.len() != expected.len() || !expected.iter().all(|address| asked.contains(address)) {
            return Err(format!("recipients {asked:?} and outcomes {expected:?} do not fit together"));
        }
        asked.sort();
        asked.dedup();
        if asked.len() != expected.len() {
            return Err("a recipient stands twice".to_owned());
        }
        self.transactions.push(Transaction { delivery, steps, steps_to_deliver, outcomes });
        (self.directives.recipients, self.directives.rested) = (Vec::new(), Duration::ZERO);
        Ok(())
    }

    fn finish(mut self) -> Result<Dialogue, String> {
        self.end_transaction()?;
        let server = if self.tcp {
            Server::Tcp { host: "127.0.0.1".to_owned(), port: std::num::NonZeroU16::MIN }
        } else {
            Server::Unix("/".into())
        };
        let setup = Setup {
            protocol: self.protocol.unwrap_or(Protocol::Lmtp),
            server,
            options: self.options,
            habits: self.habits,
            timeouts: self.timeouts,
            login: self.login,
        };
        Ok(Dialogue { setup, transactions: self.transactions })
    }
}

impl Directives {
    fn delivery(&self, outcomes: &[Expected], number: u64) -> Result<Delivery, String> {
        let content = match &self.content {
            Some(content) => content.clone(),
            None => unescape(CONTENT)?,
        };
        let addresses: Vec<Address> = match &self.recipients[..] {
            [] => outcomes.iter().map(|outcome| outcome.address.clone()).collect(),
            named => named.to_vec(),
        };
        let recipient = |(position, address): (usize, &Address)| -> Result<Recipient, String> {
            let mut recipient = Recipient::new(position as u32, address.clone());
            if let Some(words) = self.notify.get(address) {
                recipient.notify = words.parse().map_err(|error| format!("{error}"))?;
            }
            let orcpt = self.orcpt.get(address).map(|text| text.parse());
            recipient.orcpt = orcpt.transpose().map_err(|error| format!("{error}"))?;
            Ok(recipient)
        };
        let sender = match &self.sender {
            Some(sender) => sender.clone(),
            None => "a@example.org".parse().map_err(|error| format!("{error}"))?,
        };
        let envelope = Envelope {
            id: QueueId::new(1_795_000_000_000_000, number),
            sender: sender.clone(),
            arrival: jiff::Timestamp::UNIX_EPOCH,
            nexthop: None,
            body: if content.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime },
            smtputf8: self.smtputf8,
            envid: self.envid.clone(),
            ret: self.ret.as_deref().map(str::parse).transpose().map_err(|error| format!("{error}"))?,
            origin: "uid=1000".to_owned(),
            size: content.len() as u64,
        };
        let recipients = addresses.iter().enumerate().map(recipient).collect::<Result<_, _>>()?;
        Ok(Delivery {
            body: (!self.body_unknown).then_some(envelope.body),
            envelope,
            sender,
            recipients,
            content,
            seven_bit: self.seven_bit.clone(),
            declared_size: self.declared_size,
            smtputf8: self.utf8,
            origin: self.origin.clone(),
            probe: self.probe,
            rested: self.rested,
        })
    }
}

/// The inside of `<…>` at the start, and what follows it.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('<')?.split_once('>')
}

fn parse_client(text: &str) -> Result<Option<Step>, String> {
    Ok(Some(match bracketed(text) {
        Some(("message", "")) => Step::HearMessage(None),
        Some(("client hello", "")) => Step::HearHello,
        Some(("closes", "")) => Step::HearClose { may_quit: false },
        Some(("may quit", "")) => Step::HearClose { may_quit: true },
        Some((other, "")) => match other.strip_prefix("message ") {
            Some(octets) => Step::HearMessage(Some(parse_octets(octets)?)),
            None => return Err(format!("a client does not <{other}>")),
        },
        _ => Step::Hear(text.to_owned()),
    }))
}

fn parse_server(text: &str) -> Result<Option<Step>, String> {
    let Some((what, rest)) = bracketed(text) else {
        return Ok(Some(Step::Say(format!("{text}\r\n").into_bytes())));
    };
    let (what, value) = what.split_once(' ').unwrap_or((what, ""));
    Ok(Some(match (what, value, rest) {
        ("accepts", "", "") => Step::Accept,
        ("refuses", "", "") => Step::Refuse,
        ("tls", "", "") => Step::Tls(Kind::Good),
        ("tls", kind, "") => {
            Step::Tls(Kind::of_word(kind).ok_or_else(|| format!("{kind:?} is no certificate"))?)
        }
        ("closes", "", "") => Step::Close,
        ("breaks", "off", "") => Step::BreakOff,
        ("resets", "", "") => Step::Reset,
        ("early", "", "") => Step::Early,
        ("silence" | "holds", "", "") => return Ok(None),
        ("partial", "", text) => Step::Say(unescape(text)?),
        ("pause", time, "") => Step::Pause(parse_time(time)?),
        ("flood", octets, "") => Step::Say(vec![b'x'; parse_octets(octets)?]),
        ("drip", time, text) => Step::Drip(format!("{text}\r\n").into_bytes(), parse_time(time)?),
        _ => return Err(format!("a server does not {text}")),
    }))
}

pub fn parse_outcome(line: usize, text: &str) -> Result<Expected, String> {
    let mut words = text.splitn(4, ' ');
    let (Some(address), Some(word), Some(status)) = (words.next(), words.next(), words.next()) else {
        return Err("an outcome is ADDRESS OUTCOME DSN [TEXT]".to_owned());
    };
    let status: EnhancedStatus = status.parse()?;
    let class = match word {
        "delivered" => 2,
        "deferred" | "in-doubt" => 4,
        "bounced" => 5,
        _ => return Err(format!("{word:?} is no outcome")),
    };
    if status.class() != class {
        return Err(format!("{word} does not go with {status}"));
    }
    let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
    Ok(Expected { line, address, word: word.to_owned(), status, text: words.next().map(str::to_owned) })
}

fn parse_utf8(words: (&str, &str)) -> Result<Smtputf8, String> {
    let yes = |word: &str| match word {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{word:?} is neither yes nor no")),
    };
    Ok(Smtputf8::Told { wanted: yes(words.0)?, required: yes(words.1)? })
}

fn parse_origin(text: &str) -> Result<[String; 7], String> {
    let words: Vec<_> = text.split(' ').map(|word| if word == "-" { "" } else { word }.to_owned()).collect();
    words.try_into().map_err(|words: Vec<_>| format!("an origin has seven words, not {}", words.len()))
}

fn parse_stage(name: &str) -> Result<Stage, String> {
    let names = [
        "connect",
        "greeting",
        "starttls",
        "lhlo",
        "auth",
        "rset",
        "xforward_name",
        "xforward_protocol",
        "mail",
        "rcpt",
        "data_init",
        "data_xfer",
        "data_done",
        "quit",
    ];
    let found = names.iter().zip(Stage::ALL).find(|(known, _)| **known == name);
    found.map(|(_, stage)| stage).ok_or_else(|| format!("{name:?} is no stage"))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or(""), 1000),
    };
    match number.parse::<u64>() {
        Ok(number @ 0..=60_000) => Ok(Duration::from_millis(number * unit)),
        _ => Err(format!("{text:?} is no time, as 200ms or 2s are")),
    }
}

fn parse_octets(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|octets| *octets <= OCTETS_MAX)
        .ok_or_else(|| format!("{text:?} is no number of octets"))
}

/// Lines of `x`, `octets` octets in all.
fn filler(octets: usize) -> Vec<u8> {
    let mut content: Vec<u8> = b"xxxxxxxxxxxxxx\r\n".iter().copied().cycle().take(octets).collect();
    if let Some(end) = content.last_chunk_mut() {
        *end = *b"\r\n";
    }
    content
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let bad = || format!("{:?} is no escape", &rest[at..]);
        let (octet, length) = match rest.as_bytes().get(at + 1) {
            Some(b'r') => (b'\r', 2),
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'\\') => (b'\\', 2),
            Some(b'x') => {
                let digits = rest.get(at + 2..at + 4).ok_or_else(bad)?;
                (u8::from_str_radix(digits, 16).map_err(|_| bad())?, 4)
            }
            _ => return Err(bad()),
        };
        out.push(octet);
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}
