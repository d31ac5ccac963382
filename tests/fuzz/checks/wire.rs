//! Commands as a server reads them: the client's words, taken apart by the sink, which shares no code with it.

use std::num::NonZeroU16;
use std::sync::Arc;

use lastmile::mail::{
    Batch, BodyType, Envelope, Nexthop, Notify, OriginalRecipient, Protocol, QueueId, Recipient, Return,
    Sender,
};
use lastmile::sink::split_path;
use lastmile::smtp::{Capabilities, EightBit, Manner, Message, OverQuota, Step, Transaction};

/// Octets of one flight: enough for all that a check sends.
const ROOM: usize = 1 << 20;

/// Sends MAIL and RCPT to a server that offers everything; each is one line, and says what was meant.
pub fn check(sender: &Sender, recipients: &[Recipient], envid: Option<&str>) {
    let commands = first_flight(sender, recipients, envid);
    assert!(!commands.contains('\0') && commands.ends_with("\r\n"), "{commands:?}");
    let lines: Vec<&str> = commands.trim_end_matches("\r\n").split("\r\n").collect();
    assert!(!lines.iter().any(|line| line.contains(['\r', '\n'])), "{lines:?}");
    let (mail, rest) = lines.split_first().unwrap();
    let (rcpt, last) = rest.split_at(recipients.len());
    assert_eq!(last, ["BDAT 9 LAST"], "{lines:?}");

    let (path, parameters) = path_in(mail, "FROM:");
    assert_eq!(path.parse::<Sender>().as_ref(), Ok(sender), "{mail:?}");
    let said = parameter(parameters, "ENVID").map(|envid| decode_xtext(envid).unwrap());
    assert_eq!(said, envid.map(|envid| envid.as_bytes().to_vec()), "{mail:?}");
    for (line, recipient) in rcpt.iter().zip(recipients) {
        let (path, parameters) = path_in(line, "TO:");
        assert_eq!(path.parse().as_ref(), Ok(&recipient.address), "{line:?}");
        let notify = parameter(parameters, "NOTIFY").map(|notify| notify.parse::<Notify>().unwrap());
        assert_eq!(notify.unwrap_or_default(), recipient.notify, "{line:?}");
        let orcpt = parameter(parameters, "ORCPT").map(ToOwned::to_owned);
        assert_eq!(orcpt, recipient.orcpt.as_ref().map(OriginalRecipient::parameter), "{line:?}");
    }
}

fn first_flight(sender: &Sender, recipients: &[Recipient], envid: Option<&str>) -> String {
    let destination = Nexthop::parse("unix:/run/lmtp", |_| false).unwrap().destination(NonZeroU16::MIN);
    let envelope = Envelope {
        id: QueueId::new(1, 1),
        sender: sender.clone(),
        arrival: "2026-11-21T19:30:00Z".parse().unwrap(),
        nexthop: None,
        body: BodyType::EightBitMime,
        smtputf8: true,
        envid: envid.map(ToOwned::to_owned),
        ret: Some(Return::Headers),
        origin: "uid=1000".to_owned(),
        size: 9,
    };
    let batch = Batch::new(Arc::new(envelope), sender.clone(), destination, recipients.to_vec()).unwrap();
    let offered = Capabilities {
        pipelining: true,
        chunking: true,
        eight_bit_mime: true,
        smtputf8: true,
        dsn: true,
        enhanced_status_codes: true,
        size: Some(0),
        ..Capabilities::default()
    };
    let manner = Manner {
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
    let mut transaction =
        Transaction::new(manner, "mx", &offered, &batch, batch.recipients(), Message::of(&batch, 9));
    let Step::Write(flight) = transaction.next_step(ROOM) else { panic!("nothing is sent") };
    String::from_utf8(flight.commands).expect("commands are text")
}

/// The path of MAIL or RCPT and its parameters, as the server reads them.
fn path_in<'l>(line: &'l str, keyword: &str) -> (&'l str, &'l str) {
    let (_, rest) = line.split_once(' ').unwrap();
    split_path(rest, keyword).unwrap_or_else(|| panic!("{line:?} has no path"))
}

fn parameter<'l>(parameters: &'l str, keyword: &str) -> Option<&'l str> {
    let mut words = parameters.split(' ').filter_map(|word| word.split_once('='));
    words.find(|(name, _)| *name == keyword).map(|(_, value)| value)
}

/// RFC 3461 section 4, the other way round.
pub fn decode_xtext(text: &str) -> Option<Vec<u8>> {
    let (mut octets, mut rest) = (Vec::new(), text.bytes());
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => {
                let digits = [char::from(rest.next()?), char::from(rest.next()?)];
                let is_digit = |c: &char| matches!(c, '0'..='9' | 'A'..='F');
                let digits = digits.iter().all(is_digit).then(|| String::from_iter(digits))?;
                u8::from_str_radix(&digits, 16).ok()?
            }
            b'!'..=b'~' if octet != b'=' => octet,
            _ => return None,
        });
    }
    Some(octets)
}
