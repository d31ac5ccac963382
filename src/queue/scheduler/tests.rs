//! Each rule of the scheduler, as a table of events and what they start.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::mail::{Address, BodyType, EnhancedStatus, Envelope, Nexthop, Reason, Sender};

pub(super) fn destination(host: &str) -> Destination {
    let port = NonZeroU16::new(24).unwrap();
    Nexthop::parse(&format!("lmtp:inet:{host}:24"), |name| name == "lmtp").unwrap().destination(port)
}

pub(super) fn address(local: &str) -> Address {
    Address::from_parts(local, "example.org").unwrap()
}

pub(super) fn envelope(number: u64) -> Arc<Envelope> {
    Arc::new(Envelope {
        id: QueueId::new(number, 0),
        sender: Sender::from(address("sender")),
        arrival: Timestamp::UNIX_EPOCH,
        nexthop: None,
        body: BodyType::SevenBit,
        smtputf8: false,
        envid: None,
        ret: None,
        origin: "uid=1000".into(),
        size: 1,
    })
}

pub(super) fn failure() -> Reason {
    Reason::local(EnhancedStatus::new(4, 4, 1), "connect to mx: Connection refused")
}

pub(super) fn settings(workers: usize, limits: Limits) -> Settings {
    Settings {
        workers,
        workers_reserved: 2,
        active_limit: 20_000,
        minimal_backoff_time: Duration::from_secs(300),
        limits: HashMap::from([("lmtp".parse().unwrap(), limits)]),
    }
}
