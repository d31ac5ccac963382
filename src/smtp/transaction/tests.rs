//! Transactions played from both sides in memory: flights out, replies in, outcomes compared.

use super::*;
use crate::mail::{Envelope, Nexthop, QueueId};
use crate::smtp::{Origin, OverQuota, parse_reply};
use proptest::prelude::*;

const PEER: &str = "mx[/run/lmtp]";

fn manner(protocol: Protocol) -> Manner {
    Manner {
        protocol,
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
    }
}

fn offered(pipelining: bool, chunking: bool) -> Capabilities {
    Capabilities { pipelining, chunking, ..Capabilities::default() }
}

fn batch(recipients: &[&str]) -> Batch {
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
    let recipients =
        recipients.iter().zip(0..).map(|(a, at)| Recipient::new(at, a.parse().unwrap())).collect();
    Batch::new(envelope.into(), "s@x".parse().unwrap(), destination, recipients).unwrap()
}

/// What happened: what was written (`|` between flights), and each outcome as `position word dsn`.
#[derive(Debug, PartialEq)]
struct Played {
    wire: String,
    outcomes: Vec<String>,
    reusable: bool,
    closes_abruptly: bool,
    closed_on_others: bool,
    left_over: usize,
    learnt_limit: Option<usize>,
}

/// Plays a transaction against a server that says `replies`, one after the other.
fn play(manner: Manner, offered: &Capabilities, recipients: &[&str], replies: &[&str]) -> Played {
    play_in(manner, offered, recipients, replies, 10_000)
}

fn play_in(
    manner: Manner,
    offered: &Capabilities,
    recipients: &[&str],
    replies: &[&str],
    room: usize,
) -> Played {
    let batch = batch(recipients);
    let mut transaction =
        Transaction::new(manner, PEER, offered, &batch, batch.recipients(), Message::of(&batch, 5));
    let (mut wire, mut replies, mut flights) = (Vec::new(), replies.iter(), 0);
    loop {
        match transaction.next_step(room) {
            Step::Write(flight) => {
                flights += 1;
                if flights > 1 {
                    wire.push("|".to_owned());
                }
                wire.extend(
                    String::from_utf8(flight.commands).unwrap().lines().map(|line| line[..4].to_owned()),
                );
                if let Some(encoding) = flight.content {
                    wire.push(format!("{encoding:?}"));
                    transaction.content_has_left();
                }
            }
            Step::Read(stage) => {
                let text = format!("{}\r\n", replies.next().expect("a reply for what was written"));
                let read = parse_reply(text.as_bytes()).unwrap().unwrap().0;
                if let Err(bad) = transaction.on_reply(&read) {
                    let error = SessionError {
                        peer: PEER.into(),
                        protocol: manner.protocol,
                        stage,
                        cause: super::super::Cause::BadReply(bad),
                        end_of_data_written: false,
                    };
                    transaction.fail(&error);
                }
            }
            Step::Done => break,
        }
    }
    assert_eq!(replies.next(), None, "a reply was not read");
    let word = |s: Settled| {
        let doubt = if s.in_doubt { " in doubt" } else { "" };
        format!("{} {} {}{doubt}", s.position, s.outcome.word(), s.outcome.reason().status)
    };
    Played {
        wire: wire.join(" "),
        outcomes: transaction.take_settled().into_iter().map(word).collect(),
        reusable: transaction.is_reusable(),
        closes_abruptly: transaction.must_close_abruptly(),
        closed_on_others: transaction.closed_on().is_some(),
        learnt_limit: transaction.recipients_before_too_many(),
        left_over: transaction.left_over().len(),
    }
}

#[test]
fn nobody_is_vouched_for_only_where_that_is_asked_for_and_auth_is_offered() {
    for (dummy_auth, mechanisms, mail) in [
        (false, &[][..], "MAIL FROM:<s@x>\r\n"),
        (false, &["PLAIN"], "MAIL FROM:<s@x>\r\n"),
        (true, &[], "MAIL FROM:<s@x>\r\n"),
        (true, &["PLAIN"], "MAIL FROM:<s@x> AUTH=<>\r\n"),
    ] {
        let auth = mechanisms.iter().map(ToString::to_string).collect();
        let offered = Capabilities { auth, ..offered(false, false) };
        let (manner, batch) = (Manner { dummy_auth, ..manner(Protocol::Lmtp) }, batch(&["a@x"]));
        let message = Message::of(&batch, 5);
        let mut transaction = Transaction::new(manner, PEER, &offered, &batch, batch.recipients(), message);
        let Step::Write(flight) = transaction.next_step(10_000) else { panic!("nothing is written") };
        assert_eq!(String::from_utf8(flight.commands).unwrap(), mail, "{dummy_auth} {mechanisms:?}");
    }
}

#[test]
fn one_round_trip_with_pipelining_and_chunking() {
    let manner = Manner { reset: true, ..manner(Protocol::Lmtp) };
    let replies = ["250 ok", "250 ok", "250 ok", "550 5.1.1 no", "250 2.0.0 stored"];
    let played = play(manner, &offered(true, true), &["a@x", "b@x"], &replies);
    assert_eq!(played.wire, "RSET MAIL RCPT RCPT BDAT Chunk");
    assert_eq!(played.outcomes, ["1 bounced 5.1.1", "0 sent 2.0.0"]);
    assert!(played.reusable);
}

#[test]
fn two_round_trips_with_pipelining_alone() {
    let replies = ["250 ok", "250 ok", "250 ok", "354 go", "250 ok", "452 4.2.2 full"];
    let played = play(manner(Protocol::Lmtp), &offered(true, false), &["a@x", "b@x"], &replies);
    assert_eq!(played.wire, "MAIL RCPT RCPT DATA | Dots");
    assert_eq!(played.outcomes, ["0 sent 2.0.0", "1 deferred 4.2.2"]);
}

#[test]
fn step_by_step_without_pipelining() {
    let replies = ["250 ok", "250 ok", "250 ok", "250 ok"];
    let played = play(manner(Protocol::Smtp), &offered(false, true), &["a@x", "b@x"], &replies);
    assert_eq!(played.wire, "MAIL | RCPT | RCPT | BDAT Chunk");
    assert_eq!(played.outcomes, ["0 sent 2.0.0", "1 sent 2.0.0"], "one reply is everybody's in ESMTP");
}

#[test]
fn content_waits_where_the_connection_may_be_stale_or_the_content_is_large() {
    let replies = ["250 ok", "250 ok", "250 ok"];
    let rested = Manner { hold_content: true, ..manner(Protocol::Lmtp) };
    let large = Manner { eager_content_limit: 4, ..manner(Protocol::Lmtp) };
    for manner in [rested, large] {
        assert_eq!(play(manner, &offered(true, true), &["a@x"], &replies).wire, "MAIL RCPT | BDAT Chunk");
    }
}

#[test]
fn content_is_not_sent_when_everybody_was_refused_before() {
    let large = Manner { eager_content_limit: 4, ..manner(Protocol::Lmtp) };
    let played = play(large, &offered(true, true), &["a@x"], &["250 ok", "550 no"]);
    assert_eq!((played.wire.as_str(), played.reusable), ("MAIL RCPT", true));
}

#[test]
fn flights_stay_within_their_room() {
    let replies = ["250 ok", "250 ok", "250 ok", "250 ok", "354 go", "250 a", "250 b", "250 c"];
    let played = play_in(manner(Protocol::Lmtp), &offered(true, false), &["a@x", "b@x", "c@x"], &replies, 40);
    assert_eq!(played.wire, "MAIL RCPT | RCPT RCPT DATA | Dots");
}

#[test]
fn a_refused_mail_is_everybodys_outcome_and_all_replies_are_read() {
    for (chunking, wire, last) in
        [(true, "MAIL RCPT RCPT BDAT Chunk", "503 no"), (false, "MAIL RCPT RCPT DATA", "503 no")]
    {
        let replies = ["451 4.3.0 later", "503 no", "250 odd", last];
        let played = play(manner(Protocol::Lmtp), &offered(true, chunking), &["a@x", "b@x"], &replies);
        assert_eq!(played.wire, wire);
        assert_eq!(played.outcomes, ["0 deferred 4.3.0", "1 deferred 4.3.0"]);
        assert!(played.reusable);
    }
}

#[test]
fn bdat_with_nobody_accepted_has_exactly_one_reply() {
    let replies = ["250 ok", "550 5.1.1 no", "550 5.1.1 no", "503 5.5.1 nobody"];
    let played = play(manner(Protocol::Lmtp), &offered(true, true), &["a@x", "b@x"], &replies);
    assert_eq!(played.outcomes, ["0 bounced 5.1.1", "1 bounced 5.1.1"]);
    assert!(played.reusable);
}

#[test]
fn a_354_with_nobody_accepted_closes_without_a_dot() {
    let played =
        play(manner(Protocol::Lmtp), &offered(true, false), &["a@x"], &["250 ok", "550 5.1.1 no", "354 go"]);
    assert_eq!(played.wire, "MAIL RCPT DATA");
    assert_eq!(played.outcomes, ["0 bounced 5.1.1"]);
    assert!(!played.reusable && played.closes_abruptly);
}

#[test]
fn a_421_ends_the_session_and_replies_already_given_stand() {
    let lmtp = manner(Protocol::Lmtp);
    let three = ["a@x", "b@x", "c@x"];
    for (replies, outcomes, on_others) in [
        (&["421 4.3.2 bye"][..], &["0 deferred 4.3.2", "1 deferred 4.3.2", "2 deferred 4.3.2"][..], false),
        (
            &["250 ok", "550 5.1.1 no", "421 bye"],
            &["0 bounced 5.1.1", "1 deferred 4.0.0 in doubt", "2 deferred 4.0.0 in doubt"],
            true,
        ),
        (
            &["250 ok", "250 ok", "250 ok", "250 ok", "250 stored", "421 bye"],
            &["0 sent 2.0.0", "1 deferred 4.0.0", "2 deferred 4.0.0 in doubt"],
            true,
        ),
        (
            &["250 ok", "550 5.1.1 no", "550 5.1.1 no", "421 bye"],
            &["0 bounced 5.1.1", "1 bounced 5.1.1", "2 deferred 4.0.0 in doubt"],
            false,
        ),
        (
            &["250 ok", "250 ok", "550 5.1.1 no", "421 bye"],
            &["1 bounced 5.1.1", "0 deferred 4.0.0 in doubt", "2 deferred 4.0.0 in doubt"],
            true,
        ),
    ] {
        let played = play(lmtp, &offered(true, true), &three, replies);
        assert_eq!(played.outcomes, outcomes, "{replies:?}");
        assert_eq!(played.closed_on_others, on_others, "{replies:?}");
        assert!(!played.reusable && played.closes_abruptly);
    }
}

#[test]
fn before_the_content_has_left_it_can_be_refused_and_not_accepted() {
    for (protocol, outcomes) in [
        (Protocol::Lmtp, &["0 bounced 5.7.1", "1 deferred 4.4.2"][..]),
        (Protocol::Smtp, &["0 bounced 5.7.1", "1 bounced 5.7.1"]),
    ] {
        let (offered, batch) = (offered(true, true), batch(&["a@x", "b@x"]));
        for (finals, outcomes) in [
            (["554 5.7.1 no", "250 2.0.0 stored"], outcomes),
            (["250 2.0.0 stored", "554 5.7.1 no"], &["0 deferred 4.4.2", "1 deferred 4.4.2"]),
        ] {
            let mut transaction = Transaction::new(
                manner(protocol),
                PEER,
                &offered,
                &batch,
                batch.recipients(),
                Message::of(&batch, 5),
            );
            assert!(matches!(transaction.next_step(10_000), Step::Write(flight) if flight.content.is_some()));
            // Writing failed, and this is what the server had said.
            for text in ["250 ok", "250 ok", "250 ok"].iter().chain(&finals) {
                let reply = parse_reply(format!("{text}\r\n").as_bytes()).unwrap().unwrap().0;
                if transaction.replies_due() == 0 || transaction.on_reply(&reply).is_err() {
                    break;
                }
            }
            transaction.fail(&SessionError {
                peer: PEER.into(),
                protocol,
                stage: Stage::DataXfer,
                cause: super::super::Cause::LostConnection,
                end_of_data_written: false,
            });
            let settled = transaction.take_settled();
            let word = |s: &Settled| {
                assert!(!s.in_doubt);
                format!("{} {} {}", s.position, s.outcome.word(), s.outcome.reason().status)
            };
            assert_eq!(settled.iter().map(word).collect::<Vec<_>>(), outcomes, "{protocol:?} {finals:?}");
        }
    }
}

#[test]
fn a_refused_rset_leaves_the_outcomes_alone_but_ends_reuse() {
    let manner = Manner { reset: true, ..manner(Protocol::Lmtp) };
    let played = play(manner, &offered(true, true), &["a@x"], &["500 what", "250 ok", "250 ok", "250 ok"]);
    assert_eq!((played.outcomes, played.reusable), (vec!["0 sent 2.0.0".to_owned()], false));
}

#[test]
fn a_bad_sequence_after_a_refused_rset_bounces_nobody() {
    let manner = Manner { reset: true, ..manner(Protocol::Lmtp) };
    let replies = ["451 later", "503 5.5.1 nested MAIL", "250 ok", "503 5.5.1 no"];
    let played = play(manner, &offered(true, true), &["a@x"], &replies);
    assert_eq!((played.outcomes, played.reusable), (vec!["0 deferred 4.5.1".to_owned()], false));
}

#[test]
fn too_many_recipients_go_into_the_next_transaction_if_this_one_settles_somebody() {
    let lmtp = manner(Protocol::Lmtp);
    let accepted = ["250 ok", "250 ok", "452 4.5.3 enough", "250 ok"];
    let played = play(lmtp, &offered(true, true), &["a@x", "b@x"], &accepted);
    assert_eq!((played.outcomes, played.left_over), (vec!["0 sent 2.0.0".to_owned()], 1));
    assert_eq!(played.learnt_limit, Some(1));
    let nobody = ["250 ok", "452 4.5.3 enough", "552 enough", "503 no"];
    let played = play(lmtp, &offered(true, true), &["a@x", "b@x"], &nobody);
    assert_eq!(
        (played.outcomes, played.left_over),
        (vec!["0 deferred 4.5.3".to_owned(), "1 bounced 5.0.0".to_owned()], 0)
    );
    assert_eq!(played.learnt_limit, None);
}

#[test]
fn what_is_said_of_the_transaction_does_not_touch_whom_it_has_no_room_for() {
    // After MAIL, one accepted and one too many: the replies, the outcomes, and how many go into the next transaction.
    for (chunking, replies, outcomes, left_over) in [
        (false, &["554 5.7.1 no"][..], &["0 bounced 5.7.1"][..], 1),
        (false, &["451 4.3.0 later"], &["0 deferred 4.3.0"], 1),
        (false, &["354 go", "554 5.7.1 no"], &["0 bounced 5.7.1"], 1),
        (true, &["554 5.7.1 no"], &["0 bounced 5.7.1"], 1),
        // The conversation is over: tried again later, and nobody has the message who had no room.
        (false, &["421 4.3.2 bye"], &["0 deferred 4.3.2", "1 deferred 4.5.3"], 0),
        (false, &["354 go", "421 4.3.2 bye"], &["0 deferred 4.3.2", "1 deferred 4.5.3"], 0),
        (true, &["421 4.3.2 bye"], &["0 deferred 4.3.2", "1 deferred 4.5.3"], 0),
        (true, &["354 go"], &["0 deferred 4.5.0", "1 deferred 4.5.3"], 0),
    ] {
        for (protocol, enough) in
            [(Protocol::Lmtp, "452 4.5.3 enough"), (Protocol::Smtp, "552 5.5.3 enough, and no bounce")]
        {
            let all: Vec<_> = ["250 ok", "250 ok", enough].iter().chain(replies).copied().collect();
            let played = play(manner(protocol), &offered(true, chunking), &["a@x", "b@x"], &all);
            assert_eq!(
                (&played.outcomes[..], played.left_over),
                (&owned(outcomes)[..], left_over),
                "{all:?}"
            );
        }
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn a_limit_is_learnt_only_where_nobody_fits_behind_it() {
    for (rcpt, limit) in [
        (["250 ok", "250 ok", "452 4.5.3 enough", "452 4.5.3 enough"], Some(2)),
        (["250 ok", "452 4.5.3 enough", "550 5.1.1 no", "452 4.5.3 enough"], Some(1)),
        (["250 ok", "452 4.5.3 enough", "250 ok", "250 ok"], None),
        (["250 ok", "452 4.5.3 enough", "250 ok", "452 4.5.3 enough"], Some(3)),
        (["452 4.5.3 enough", "250 ok", "250 ok", "250 ok"], None),
        (["550 5.1.1 no", "250 ok", "250 ok", "250 ok"], None),
    ] {
        let finals = rcpt.iter().filter(|reply| reply.starts_with("250")).map(|_| "250 stored");
        let replies: Vec<_> = ["250 ok"].into_iter().chain(rcpt).chain(finals).collect();
        let four = ["a@x", "b@x", "c@x", "d@x"];
        assert_eq!(
            play(manner(Protocol::Lmtp), &offered(true, true), &four, &replies).learnt_limit,
            limit,
            "{rcpt:?}"
        );
    }
}

#[test]
fn what_the_server_cannot_take_is_bounced_without_being_sent() {
    let lmtp = manner(Protocol::Lmtp);
    let small = Capabilities { size: Some(4), ..offered(true, true) };
    let played = play(lmtp, &small, &["a@x"], &[]);
    assert_eq!((played.wire.as_str(), played.outcomes), ("", vec!["0 bounced 5.3.4".to_owned()]));
    assert!(played.reusable);
    let played = play(lmtp, &offered(true, true), &["é@x", "b@x"], &["250 ok", "250 ok", "250 ok"]);
    assert_eq!(played.outcomes, ["0 bounced 5.6.7", "1 sent 2.0.0"], "only the address that needs it");
}

#[test]
fn a_reply_of_the_wrong_class_breaks_the_conversation_and_bounces_nobody() {
    for replies in [
        &["354 go"][..],
        &["250 ok", "354 go"],
        &["250 ok", "250 ok", "250 ok"],
        &["250 ok", "250 ok", "354 go", "354 go"],
    ] {
        let played = play(manner(Protocol::Lmtp), &offered(true, false), &["a@x"], replies);
        assert_eq!(
            (played.outcomes, played.reusable),
            (vec!["0 deferred 4.5.0".to_owned()], false),
            "{replies:?}"
        );
    }
}

proptest! {
    /// Whatever a server answers, everybody gets exactly one outcome, or is left over beside somebody who did.
    #[test]
    fn every_recipient_ends_in_exactly_one_outcome(
        lmtp in any::<bool>(),
        pipelining in any::<bool>(),
        chunking in any::<bool>(),
        reset in any::<bool>(),
        converts in any::<bool>(),
        origin in prop::option::of(Just(Origin { name: "mx.example", helo: "x", ..Origin::default() })),
        probe in prop::sample::select(vec![None, Some(Probe::UntilRcpt), Some(Probe::UntilData)]),
        count in 1..5_usize,
        room in prop::sample::select(vec![1_usize, 60, 10_000]),
        codes in prop::collection::vec(prop::sample::select(vec![220, 250, 354, 421, 450, 452, 550, 552]), 30),
    ) {
        let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let eight_bit = if converts { EightBit::Convert } else { EightBit::Refuse };
        let manner = Manner { reset, probe, eight_bit, ..manner(protocol) };
        let mut offered = offered(pipelining, chunking);
        offered.xforward.add("HELO");
        let batch = batch(&["a@x", "b@x", "c@x", "d@x"][..count]);
        let message = Message { origin, body: None, ..Message::of(&batch, 5) };
        let mut transaction = Transaction::new(manner, PEER, &offered, &batch, batch.recipients(), message);
        let mut codes = codes.into_iter();
        let mut steps = 0;
        loop {
            steps += 1;
            prop_assert!(steps < 60, "it goes on for ever");
            match transaction.next_step(room) {
                Step::Write(flight) => {
                    prop_assert!(!flight.commands.is_empty() || flight.content.is_some());
                    prop_assert!(flight.content.is_none() || probe.is_none(), "a probe sends nothing");
                    if flight.content.is_some() {
                        prop_assert_eq!(flight.content == Some(Encoding::SevenBitDots), converts);
                        transaction.content_has_left();
                    }
                }
                Step::Read(stage) => {
                    let text = format!("{} ok\r\n", codes.next().unwrap());
                    let reply = parse_reply(text.as_bytes()).unwrap().unwrap().0;
                    if let Err(bad) = transaction.on_reply(&reply) {
                        let cause = super::super::Cause::BadReply(bad);
                        let error = SessionError { peer: PEER.into(), protocol, stage, cause, end_of_data_written: true };
                        transaction.fail(&error);
                    }
                }
                Step::Done => break,
            }
        }
        let mut positions: Vec<u32> = transaction.take_settled().iter().map(|settled| settled.position).collect();
        let left_over: Vec<u32> = transaction.left_over().iter().map(|recipient| recipient.position).collect();
        prop_assert!(left_over.is_empty() || !positions.is_empty());
        positions.extend(left_over);
        positions.sort_unstable();
        prop_assert_eq!(positions, (0..count as u32).collect::<Vec<_>>());
    }
}
