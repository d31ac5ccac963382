//! The client that ships, as a dialogue tries it.
//!
//! - Owns: setting it up from a file's directives, and collecting what becomes of whom.
//! - Leaves to others: the conversation (`lastmile::net`), and what is right (the files).
//! - Always true: a recipient that is settled twice shows up twice, and nobody is at stake who was not told of.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use lastmile::config::{Config, EightBit, Habits, Sources, Timeout, Timeouts, Transport};
use lastmile::mail::{Batch, Destination, Outcome, Protocol, Reason};
use lastmile::net;
use lastmile::net::{CachedConnection, Content, Delivered, FileContent, Observer, Peer, Stepwise, Taken};
use lastmile::smtp::{Capabilities, Origin, Settled, Stage};

use super::{Became, Client, Delivery, Setup};

/// Our own name in LHLO.
pub const MYHOSTNAME: &str = "client.example";

/// A worker's connection, without the worker.
pub struct Shipped {
    pub cached: CachedConnection,
    pub transport: Arc<Transport>,
    pub destination: Destination,
}

impl Shipped {
    /// Sets the client up as a file asks for.
    pub fn new(setup: &Setup) -> Self {
        let name = match setup.protocol {
            Protocol::Lmtp => "lmtp",
            Protocol::Smtp => "smtp",
        };
        let mut client = Self::to(&format!("{name}:{}", setup.server), &setup.options, &setup.timeouts);
        let mut transport = Transport::clone(&client.transport);
        for (name, value) in &setup.habits {
            set_habit(&mut transport.habits, name, value);
        }
        client.transport = Arc::new(transport);
        client
    }

    /// Sets it up for `nexthop`, which names its transport.
    pub fn to(nexthop: &str, options: &[(String, String)], timeouts: &[(Stage, Duration)]) -> Self {
        let (name, _) = nexthop.split_once(':').expect("a transport");
        let overrides = options.iter().map(|(key, value)| format!("transport.{name}.{key}={value}"));
        let sources = Sources {
            file: Some("/dev/null".into()),
            environment: Vec::new(),
            overrides: overrides.collect(),
        };
        let config = Config::load(&sources).expect("the options are valid");
        let config = config.open_secrets().expect("the files can be used");
        let destination = config.destination(nexthop).expect("a nexthop");
        let mut transport = Transport::clone(config.transport(destination.transport()).expect("is built in"));
        for stage in Stage::ALL {
            set_timeout(&mut transport.timeouts, stage, Setup::DEFAULT_TIMEOUT);
        }
        for (stage, limit) in timeouts {
            set_timeout(&mut transport.timeouts, *stage, *limit);
        }
        let cached = CachedConnection::new(MYHOSTNAME.to_owned(), Arc::new(Stepwise::default()));
        Self { cached, transport: Arc::new(transport), destination }
    }
}

fn set_habit(habits: &mut Habits, name: &str, value: &str) {
    let time = || Duration::from_millis(value.strip_suffix("ms").expect("a time in ms").parse().expect("ms"));
    let yes = value == "yes";
    match name {
        "lhlo_name" => habits.lhlo_name = Some(value.to_owned()),
        "refused_hello_bounces" => habits.refused_hello_bounces = yes,
        "refused_greeting_bounces" => habits.refused_greeting_bounces = yes,
        "eight_bit" => {
            habits.eight_bit = match value {
                "convert" => EightBit::Convert,
                "send" => EightBit::Send,
                _ => EightBit::Refuse,
            }
        }
        "xforward" => habits.xforward = Timeout::new(time()),
        "reuse_time_limit" => habits.reuse_time_limit = Some(time()),
        "unquoted_envelope" => habits.unquoted_envelope = yes,
        "probe_until_data" => habits.probe_until_data = yes,
        _ => panic!("{name:?} is no habit that a dialogue can have"),
    }
}

/// The greeting and AUTH have no limits of their own.
fn set_timeout(timeouts: &mut Timeouts, stage: Stage, limit: Duration) {
    let place = match stage {
        Stage::Connect => &mut timeouts.connect,
        Stage::Greeting | Stage::Lhlo | Stage::Auth => &mut timeouts.lhlo,
        Stage::StartTls => &mut timeouts.starttls,
        Stage::Rset => &mut timeouts.rset,
        Stage::XforwardName | Stage::XforwardProtocol | Stage::Mail => &mut timeouts.mail,
        Stage::Rcpt => &mut timeouts.rcpt,
        Stage::DataInit => &mut timeouts.data_init,
        Stage::DataXfer => &mut timeouts.data_xfer,
        Stage::DataDone => &mut timeouts.data_done,
        Stage::Quit => &mut timeouts.quit,
    };
    *place = Timeout::new(limit).expect("a limit is not zero");
}

impl Client for Shipped {
    fn deliver(&mut self, delivery: &Delivery) -> Vec<Became> {
        // The connection looks at the clock itself.
        std::thread::sleep(delivery.rested);
        let (envelope, recipients) = (delivery.envelope.clone().into(), delivery.recipients.clone());
        let batch = Batch::new(envelope, delivery.sender.clone(), self.destination.clone(), recipients);
        let batch = batch.expect("a delivery has recipients");
        let file = file_of(&delivery.content).expect("a temporary file");
        let as_it_is =
            FileContent { prefix: b"", file: &file, offset: 0, length: delivery.content.len() as u64 };
        let content = Odd { as_it_is, delivery };
        let mut collector = Collector { is_probe: delivery.probe, ..Collector::default() };
        let mut asked = net::Delivery::new(&batch, &content, &self.transport);
        let origin = delivery.origin.as_ref().map(|words| words.each_ref().map(String::as_str));
        asked.origin = origin.map(|[name, address, port, protocol, helo, ident, rewrite_context]| Origin {
            name,
            address,
            port,
            protocol,
            helo,
            ident,
            rewrite_context,
        });
        (asked.body, asked.smtputf8, asked.probe) = (delivery.body, delivery.smtputf8, delivery.probe);
        let delivered = self.cached.deliver(&asked, &mut collector);
        self.cached.say_goodbye(&|| false);
        assert!(!matches!(delivered, Delivered::Busy(_)), "the peer's backlog has room");
        collector.outcomes(&batch)
    }

    fn close(&mut self) {
        self.cached.close(&|| false);
    }
}

/// Content that may be declared with another size than it has, and that may have a seven-bit form.
struct Odd<'a> {
    as_it_is: FileContent<'a>,
    delivery: &'a Delivery,
}

impl Content for Odd<'_> {
    fn size(&self) -> u64 {
        self.as_it_is.size()
    }

    fn declared_size(&self) -> u64 {
        self.delivery.declared_size.unwrap_or(self.size())
    }

    fn for_each_piece(&self, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken {
        self.as_it_is.for_each_piece(buffer, take)
    }

    fn for_each_seven_bit_piece(&self, buffer: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Taken) -> Taken {
        match &self.delivery.seven_bit {
            // Octet by octet, as a converter may well do it.
            Some(content) => content.chunks(1).try_for_each(take),
            None => self.as_it_is.for_each_seven_bit_piece(buffer, take),
        }
    }
}

/// A file that holds `content`.
pub fn file_of(content: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    Ok(file)
}

/// Hears what becomes of a batch.
#[derive(Debug, Default)]
pub struct Collector {
    pub settled: Vec<Settled>,
    pub notes: Vec<String>,
    pub protocol_errors: Vec<String>,
    pub warnings: Vec<String>,
    /// Why the destination is to be spared.
    pub failed: Vec<String>,
    pub is_probe: bool,
    pub at_stake: BTreeSet<u32>,
}

impl Collector {
    fn outcomes(self, batch: &Batch) -> Vec<Became> {
        let address = |position| {
            let found = batch.recipients().iter().find(|recipient| recipient.position == position);
            found.expect("a recipient of the batch").address.clone()
        };
        let became = |Settled { position, outcome, in_doubt }| Became {
            address: address(position),
            outcome,
            in_doubt,
        };
        self.settled.into_iter().map(became).collect()
    }
}

impl Observer for Collector {
    fn ready(&mut self, _: &Peer, _: &Capabilities, _: u32) {}

    fn end_of_data(&mut self, positions: &[u32]) -> io::Result<()> {
        assert!(!self.is_probe, "a probe delivers nothing");
        self.at_stake.extend(positions);
        Ok(())
    }

    fn settled(&mut self, settled: Vec<Settled>) {
        for one in &settled {
            let at_stake = self.at_stake.contains(&one.position);
            let got_it = matches!(one.outcome, Outcome::Delivered(_)) || one.in_doubt;
            assert!(
                at_stake || !got_it || self.is_probe,
                "{one:?} may have the message, and was not marked before"
            );
        }
        self.settled.extend(settled);
    }

    fn destination_failed(&mut self, reason: &Reason) {
        let before = self.settled.len();
        self.failed.push(format!("{before}: {} {}", reason.status, reason.text));
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn warning(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }

    fn protocol_error(&mut self, text: &str) {
        self.protocol_errors.push(text.to_owned());
    }
}
