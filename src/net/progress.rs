//! How long each reply of a transaction is awaited.
//!
//! - Owns: the deadline of each reply.
//! - Leaves to others: keeping to it (`link`), what has been written (`connection`).
//! - Always true: no server, however it spreads its replies, has more than an hour for all of a stage; only replies to
//!   the end of data have their full time each, because who gives up on these leaves doubt.

use std::time::{Duration, Instant};

use crate::config::Transport;
use crate::smtp::{Stage, Transaction};

/// The replies of a stage share a deadline, but never a longer one.
const SHARED_DEADLINE_MAX: Duration = Duration::from_secs(3600);

/// Where a transaction stands, for deadlines and for what an error means.
#[derive(Default)]
pub struct Progress {
    /// When the end of data had left completely.
    pub end_of_data_written: Option<Instant>,
    /// Until when the replies to it share their time; known once the first of them is awaited.
    shared_deadline: Option<Instant>,
    /// The stage whose replies are awaited, and since when.
    stage: Option<(Stage, Instant)>,
}

impl Progress {
    /// Until when the reply of `stage` is awaited, as of `now`.
    ///
    /// Each reply has its stage's time, since RFC 5321 section 4.5.3.2 gives it to each command: a server that looks
    /// up every recipient is honest. But all replies of a stage have an hour together, or one that answers a
    /// moment before each limit would hold a worker for half a day.
    ///
    /// Once the end of data is written, a pipelining server may hold back every reply until the message is
    /// stored. And Dovecot sends none of its replies to the end of data before it has stored the message for the
    /// last recipient: so these share a deadline, and each that arrives leaves the next its full time.
    pub fn deadline(
        &mut self,
        now: Instant,
        stage: Stage,
        transaction: &Transaction<'_, '_>,
        transport: &Transport,
    ) -> Instant {
        let each = match self.end_of_data_written {
            None => transport.timeout_at(stage).get(),
            Some(_) => transport.timeouts.data_done.get(),
        };
        if let Some(written) = self.end_of_data_written.filter(|_| transaction.awaits_end_of_data()) {
            // Only now it is known who was accepted.
            let shared = || written + shared_limit(each, transaction.at_stake().len());
            return (*self.shared_deadline.get_or_insert_with(shared)).max(now + each);
        }
        let since = match self.stage {
            Some((known, since)) if known == stage => since,
            _ => self.stage.insert((stage, now)).1,
        };
        (now + each).min(since + each.max(SHARED_DEADLINE_MAX))
    }
}

/// How long the replies to the end of data may take together, where one may take `each`.
fn shared_limit(each: Duration, recipients: usize) -> Duration {
    let recipients = u32::try_from(recipients).unwrap_or(u32::MAX).max(1);
    each.saturating_mul(recipients).min(SHARED_DEADLINE_MAX).max(each)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{Config, Sources, Timeout};
    use crate::mail::{Batch, BodyType, Envelope, Nexthop, Protocol, QueueId, Recipient};
    use crate::smtp::{Capabilities, EightBit, Manner, Message, OverQuota, Step, parse_reply};

    /// Everything that saves a round trip.
    pub const MANNER: Manner = Manner {
        protocol: Protocol::Lmtp,
        pipelining: true,
        chunking: true,
        eager_content_limit: 1000,
        reset: false,
        hold_content: false,
        over_quota: OverQuota::Bounce,
        eight_bit: EightBit::Refuse,
        unquoted: false,
        dummy_auth: false,
        probe: None,
    };

    fn offered() -> Capabilities {
        Capabilities { pipelining: true, chunking: true, ..Capabilities::default() }
    }

    /// LMTP as it is without a word in the configuration.
    pub fn transport() -> Transport {
        let sources = Sources { file: Some("/dev/null".into()), ..Sources::default() };
        let config = Config::load(&sources).unwrap();
        Transport::clone(config.transport(&"lmtp".parse().unwrap()).unwrap())
    }

    /// A message for so many.
    pub fn batch(count: u32) -> Batch {
        let envelope = Envelope {
            id: QueueId::new(1, 2),
            sender: "s@x".parse().unwrap(),
            arrival: jiff::Timestamp::UNIX_EPOCH,
            nexthop: None,
            body: BodyType::SevenBit,
            smtputf8: false,
            envid: None,
            ret: None,
            origin: "uid=0".into(),
            size: 5,
        };
        let destination = Nexthop::parse("/run/lmtp", |_| true).unwrap().destination(24.try_into().unwrap());
        let recipient = |at| Recipient::new(at, format!("r{at}@x").parse().unwrap());
        Batch::new(envelope.into(), "s@x".parse().unwrap(), destination, (0..count).map(recipient).collect())
            .unwrap()
    }

    fn hear(transaction: &mut Transaction<'_, '_>, reply: &str) {
        let reply = parse_reply(format!("{reply}\r\n").as_bytes()).unwrap().unwrap().0;
        transaction.on_reply(&reply).unwrap();
    }

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn replies_to_the_end_of_data_have_the_time_of_those_who_were_accepted() {
        let (offered, batch, transport) = (offered(), batch(8), transport());
        let mut transaction =
            Transaction::new(MANNER, "mx", &offered, &batch, batch.recipients(), Message::of(&batch, 5));
        let start = Instant::now();
        let mut progress = Progress { end_of_data_written: Some(start), ..Progress::default() };
        assert!(matches!(transaction.next_step(10_000), Step::Write(_)));
        transaction.content_has_left();
        let mut at = |transaction: &mut Transaction<'_, '_>, after| {
            let Step::Read(stage) = transaction.next_step(10_000) else { panic!("a reply is due") };
            progress.deadline(start + seconds(after), stage, transaction, &transport) - start
        };
        assert_eq!(at(&mut transaction, 0), seconds(600), "the reply to MAIL");
        hear(&mut transaction, "250 ok");
        for _ in 0..6 {
            hear(&mut transaction, "450 no");
        }
        for _ in 0..2 {
            assert_eq!(at(&mut transaction, 100), seconds(700), "a reply to RCPT");
            hear(&mut transaction, "250 ok");
        }
        assert_eq!(at(&mut transaction, 200), seconds(1200), "two have twice the time");
        hear(&mut transaction, "250 ok");
        assert_eq!(at(&mut transaction, 300), seconds(1200), "and it stays with that");
        assert_eq!(at(&mut transaction, 1000), seconds(1600), "but each has its own in any case");
    }

    #[test]
    fn each_reply_has_its_time_and_all_of_a_stage_have_an_hour() {
        let (offered, batch, mut transport) = (offered(), batch(50), transport());
        let start = Instant::now();
        for (limit, last) in [(300, 3600), (7200, 7200)] {
            transport.timeouts.rcpt = Timeout::new(seconds(limit)).unwrap();
            let mut transaction = Transaction::new(
                MANNER,
                "mx",
                &offered,
                &batch,
                batch.recipients(),
                Message::of(&batch, 5000),
            );
            assert!(matches!(transaction.next_step(10_000), Step::Write(_)));
            let mut progress = Progress::default();
            let mut at = |transaction: &mut Transaction<'_, '_>, after| {
                let Step::Read(stage) = transaction.next_step(10_000) else { panic!("a reply is due") };
                progress.deadline(start + seconds(after), stage, transaction, &transport) - start
            };
            assert_eq!(at(&mut transaction, 0), seconds(300), "MAIL");
            hear(&mut transaction, "250 ok");
            for number in 0..50 {
                let now = 100 + 250 * number;
                assert_eq!(
                    at(&mut transaction, now),
                    seconds((now + limit).min(100 + last)),
                    "RCPT {number}"
                );
                hear(&mut transaction, "250 ok");
            }
        }
    }

    #[test]
    fn replies_to_the_end_of_data_share_their_time_up_to_an_hour() {
        for (each, recipients, limit) in [
            (600, 1, 600),
            (600, 0, 600),
            (600, 5, 3000),
            (600, 50, 3600),
            (7200, 50, 7200),
            (600, usize::MAX, 3600),
        ] {
            assert_eq!(
                shared_limit(Duration::from_secs(each), recipients).as_secs(),
                limit,
                "{each} {recipients}"
            );
        }
    }
}
