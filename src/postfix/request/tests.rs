//! Requests as Postfix sends them, and as nobody should.

use proptest::prelude::*;

use super::super::attribute::{BadAttributes, LIST_SIZE_MAX, Writer};
use super::*;

/// Octets that were captured, NUL written as a tilde.
fn captured(text: &str) -> Vec<u8> {
    text.bytes().map(|octet| if octet == b'~' { 0 } else { octet }).collect()
}

/// Postfix 3.7.11, mail that was submitted locally.
const PLAIN: &str = "flags~3~queue_name~active~queue_id~364569B87C0~offset~262~size~261~nexthop~inet:127.0.0.1:12424~\
    encoding~~smtputf8~0~sender~s@test.example~envelope_id~~ret_flags~0~time~\
    DvkBawAAAAB2YAMAAAAAAA75AWsAAAAAU2gDAAAAAAAAAAAAAAAAAAAAAAAA\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==~\
    log_client_name~~\
    log_client_address~~log_client_port~~log_protocol_name~~log_helo_name~~sasl_method~~sasl_username~~sasl_sender~~\
    log_ident~~rewrite_context~local~recipient_count~1~~original_recipient~r550@tcp.example~recipient~r550@tcp.example~\
    offset~242~dsn_orig_rcpt~rfc822;r550@tcp.example~notify_flags~0~~";

/// Postfix 3.7.11, mail from a client, with everything that RFC 3461 has to offer.
const WITH_DSN: &str = "flags~3~queue_name~active~queue_id~170E299801C~offset~972~size~335~nexthop~\
    unix:/run/lmtp.sock~encoding~8bit~smtputf8~0~sender~s@test.example~envelope_id~a+b~ret_flags~2~time~\
    g4wCawAAAAD/YwEAAAAAAIOMAmsAAAAAcncBAAAAAAAAAAAAAAAAAAAAAAAA\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==~\
    log_client_name~localhost~log_client_address~127.0.0.1~log_client_port~\
    55024~log_protocol_name~ESMTP~\
    log_helo_name~client.example~sasl_method~~sasl_username~~sasl_sender~~log_ident~170E299801C~rewrite_context~local~\
    recipient_count~2~~original_recipient~nev@done.example~recipient~nev@done.example~offset~803~dsn_orig_rcpt~\
    rfc822;nev@done.example~notify_flags~1~~original_recipient~suc@done.example~recipient~suc@done.example~offset~712~\
    dsn_orig_rcpt~rfc822;orig+@x.example~notify_flags~10~~";

/// Postfix 3.7.11, a report about mail of a sender whose address is not ASCII.
const UTF8: &str = "flags~6147~queue_name~active~queue_id~B3DFC99811C~offset~259~size~2295~nexthop~\
    unix:/run/lmtp.sock~encoding~8bit~smtputf8~11~sender~~envelope_id~~ret_flags~0~time~\
    g4wCawAAAAB+PQsAAAAAAIiMAmsAAAAAjUUIAAAAAAAAAAAAAAAAAAAAAAAA\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==~\
    log_client_name~~log_client_address~~log_client_port~~log_protocol_name~~log_helo_name~~sasl_method~~sasl_username~~\
    sasl_sender~~log_ident~~rewrite_context~local~recipient_count~1~~original_recipient~sé@test.example~recipient~\
    sé@test.example~offset~239~dsn_orig_rcpt~utf-8;sé@test.example~notify_flags~0~~";

fn read(octets: &[u8]) -> Result<Option<Request>, BadRequest> {
    RequestReader::new().push(octets)
}

fn request(text: &str) -> Request {
    read(&captured(text)).unwrap().unwrap()
}

#[test]
fn a_request_of_postfix_reads_as_it_was_meant() {
    let expected = Request {
        flags: RequestFlags(3),
        queue_name: "active".into(),
        queue_id: "170E299801C".into(),
        content_offset: 972,
        size: 335,
        nexthop: "unix:/run/lmtp.sock".into(),
        encoding: "8bit".into(),
        needs: Needs(0),
        sender: b"s@test.example".into(),
        envelope_id: b"a+b".into(),
        ret: 2,
        times: Times {
            arrival: Some(Duration::new(1_795_329_155, 91_135_000)),
            active: Some(Duration::new(1_795_329_155, 96_114_000)),
            handoff: None,
        },
        client: Client {
            name: "localhost".into(),
            address: "127.0.0.1".into(),
            port: "55024".into(),
            protocol: "ESMTP".into(),
            helo: "client.example".into(),
            ident: "170E299801C".into(),
            rewrite_context: "local".into(),
        },
        recipients: vec![
            Recipient {
                original: b"nev@done.example".into(),
                address: b"nev@done.example".into(),
                offset: Some(803),
                dsn_orcpt: b"rfc822;nev@done.example".into(),
                notify: 1,
            },
            Recipient {
                original: b"suc@done.example".into(),
                address: b"suc@done.example".into(),
                offset: Some(712),
                dsn_orcpt: b"rfc822;orig+@x.example".into(),
                notify: 10,
            },
        ],
    };
    assert_eq!(request(WITH_DSN), expected);
}

#[test]
fn a_null_sender_and_addresses_beyond_ascii_are_kept() {
    let request = request(UTF8);
    assert_eq!(
        (&*request.sender, request.recipients[0].address.as_slice()),
        (&b""[..], "sé@test.example".as_bytes())
    );
    assert!(request.needs.requires_smtputf8());
    assert_eq!(request.client, Client { rewrite_context: "local".into(), ..Client::default() });
}

/// What 3.5, 3.10 and 3.11 write otherwise than 3.7, and what a later release might.
#[test]
fn releases_differ_in_one_name_and_may_add_more() {
    let of_3_7 = request(PLAIN);
    for (from, to, needs) in [
        ("smtputf8~0", "smtputf8~0", 0),
        ("smtputf8~0", "sendopts~0", 0),
        ("smtputf8~0", "sendopts~16", 16),
        ("smtputf8~0", "sendopts~43", 43),
        ("flags~3~", "new_in_3_13~~flags~3~", 0),
        ("recipient_count~1~~", "recipient_count~1~more~x~~", 0),
        ("notify_flags~0~~", "notify_flags~0~more~x~~", 0),
    ] {
        let expected = Request { needs: Needs(needs), ..of_3_7.clone() };
        assert_eq!(request(&PLAIN.replacen(from, to, 1)), expected, "{to}");
    }
}

#[test]
fn what_is_missing_or_malformed_is_told_by_name() {
    use BadAttributes::{Malformed, Missing, Number};
    let of_recipient = |error| BadRequest::Recipient { number: 1, error };
    for (from, to, error) in [
        ("queue_id~364569B87C0~", "", BadRequest::Message(Missing("queue_id"))),
        ("smtputf8~0~", "", BadRequest::Message(Missing("smtputf8"))),
        ("flags~3~", "flags~x~", BadRequest::Message(Number("flags"))),
        ("offset~262~", "offset~18446744073709551615~", BadRequest::Message(Number("offset"))),
        ("size~261~", "size~9223372036854775808~", BadRequest::Message(Number("size"))),
        ("time~DvkB", "time~AAAADvkB", BadRequest::Message(Malformed("time"))),
        ("time~DvkB", "time~Dvk", BadRequest::Message(Malformed("time"))),
        ("recipient_count~1~", "recipient_count~0~", BadRequest::NoRecipients),
        ("recipient_count~1~", "recipient_count~100001~", BadRequest::TooManyRecipients(100_001)),
        (
            "recipient_count~1~",
            "recipient_count~4294967295~",
            BadRequest::TooManyRecipients(u32::MAX as usize),
        ),
        ("offset~242~", "offset~0~", of_recipient(Number("offset"))),
        ("offset~242~", "offset~18446744073709551614~", of_recipient(Number("offset"))),
        ("offset~242~", "", of_recipient(Missing("offset"))),
        ("notify_flags~0~~", "notify_flags~0~~~", BadRequest::Surplus(1)),
        ("notify_flags~0~~", "notify_flags~0~~flags~3~~", BadRequest::Surplus(9)),
    ] {
        assert!(PLAIN.contains(from), "{from}");
        assert_eq!(read(&captured(&PLAIN.replacen(from, to, 1))), Err(error), "{to}");
    }
}

#[test]
fn a_recipient_without_a_record_has_no_offset() {
    let without = request(&PLAIN.replace("offset~242~", "offset~18446744073709551615~"));
    assert_eq!(without.recipients[0].offset, None);
}

#[test]
fn nothing_may_follow_a_request() {
    let mut reader = RequestReader::new();
    assert!(reader.is_empty());
    assert!(reader.push(&captured(PLAIN)).unwrap().is_some());
    assert!(!reader.is_empty());
    assert_eq!(reader.push(b""), Ok(None));
    assert_eq!(reader.push(b"f"), Err(BadRequest::Surplus(1)));
}

/// One recipient's list, of this many octets.
fn recipient_list(length: usize) -> Vec<u8> {
    let of = |address: &str| {
        let recipient = Recipient { address: address.into(), offset: Some(1), ..Recipient::default() };
        recipient.write_to(0, Writer::new()).end()
    };
    of(&"a".repeat(length - of("").len()))
}

#[test]
fn many_recipients_come_in_pieces_and_fill_no_buffer() {
    let head = PLAIN.split_once("original_recipient").unwrap().0;
    let mut octets = captured(&head.replace("recipient_count~1~", "recipient_count~10000~"));
    (0..10_000).for_each(|_| octets.extend(recipient_list(100)));
    let mut reader = RequestReader::new();
    let pieces: Vec<&[u8]> = octets.chunks(4096).collect();
    let (last, pieces) = pieces.split_last().unwrap();
    for piece in pieces {
        assert_eq!(reader.push(piece), Ok(None));
        assert!(reader.pending.len() < 800, "{} octets are kept", reader.pending.len());
    }
    assert_eq!(reader.push(last).unwrap().unwrap().recipients.len(), 10_000);
}

#[test]
fn a_request_without_end_is_refused_at_last() {
    let mut reader = RequestReader::new();
    assert_eq!(reader.push(&[b'a'; LIST_SIZE_MAX]), Ok(None));
    assert_eq!(reader.push(b"a"), Err(BadRequest::Message(BadAttributes::TooLong)));

    let head = PLAIN.split_once("original_recipient").unwrap().0;
    let mut reader = RequestReader::new();
    assert_eq!(
        reader.push(&captured(&head.replace("recipient_count~1~", "recipient_count~100000~"))),
        Ok(None)
    );
    let list = recipient_list(LIST_SIZE_MAX);
    let refused = (0..1000).find_map(|_| reader.push(&list).err());
    assert_eq!(refused, Some(BadRequest::TooLong));
}

/// The structure as compilers of other machines lay it out, made of what this one has captured.
#[test]
fn time_stamps_of_every_width_are_read() {
    let base64 = |octets: &[u8]| {
        let digit = |bits: u32| {
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[bits as usize & 63]
        };
        let mut text = Vec::new();
        for group in octets.chunks(3) {
            let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(*group.get(at).unwrap_or(&0)));
            let digits = (0..4).map(|at| if at <= group.len() { digit(bits >> (18 - 6 * at)) } else { b'=' });
            text.extend(digits);
        }
        String::from_utf8(text).unwrap()
    };
    let with_time = |octets: &[u8]| {
        let (before, rest) = PLAIN.split_once("~time~").unwrap();
        let (_, after) = rest.split_once('~').unwrap();
        read(&captured(&format!("{before}~time~{}~{after}", base64(octets))))
            .map(|request| request.unwrap().times)
    };
    let stamps = [1_795_291_406_i64, 221_302, 1_795_291_406, 223_315, 5, 999_999, 0, 0, 0, 0];
    let wide: Vec<u8> = stamps.iter().flat_map(|number| number.to_ne_bytes()).collect();
    let narrow: Vec<u8> =
        stamps.iter().flat_map(|&number| i32::try_from(number).unwrap().to_ne_bytes()).collect();
    let expected = Times {
        arrival: Some(Duration::new(1_795_291_406, 221_302_000)),
        active: Some(Duration::new(1_795_291_406, 223_315_000)),
        handoff: Some(Duration::new(5, 999_999_000)),
    };
    for octets in
        [[&wide[..], &[0; 8]].concat(), [&wide[..], &[0; 4]].concat(), [&narrow[..], &[0; 4]].concat()]
    {
        assert_eq!(with_time(&octets), Ok(expected), "{} octets", octets.len());
    }
    for length in [0, 43, 45, 80, 83, 85, 87, 89, 96] {
        let error = BadRequest::Message(BadAttributes::Malformed("time"));
        assert_eq!(with_time(&vec![0; length]), Err(error), "{length} octets");
    }
    let odd = [-1_i64, 0, 5, 1_000_000, 0, 5, 0, 0, 0, 0, 0].map(i64::to_ne_bytes).concat();
    assert_eq!(with_time(&odd), Ok(Times::default()));
    assert_eq!(request(PLAIN).times, Times { handoff: None, ..expected });
}

#[test]
fn flags_say_what_they_were_seen_to_mean() {
    let said = |flags: u32| {
        let flags = RequestFlags(flags);
        let bits = [
            flags.success_marks(),
            flags.is_probe_mta(),
            flags.is_probe_usr(),
            flags.record(),
            flags.conn_load(),
            flags.conn_store(),
            flags.rec_dly_sent(),
        ];
        (bits.map(u8::from), flags.is_probe(), flags.trace_flags())
    };
    for (flags, expected) in [
        (0, ([0, 0, 0, 0, 0, 0, 0], false, 0)),
        // Normal mail; sendmail -bv; sendmail -v; a question of smtpd; normal mail under load; all there is.
        (3, ([1, 0, 0, 0, 0, 0, 0], false, 0)),
        (515, ([1, 0, 1, 0, 0, 0, 0], true, 512)),
        (1027, ([1, 0, 0, 1, 0, 0, 0], false, 1024)),
        (259, ([1, 1, 0, 0, 0, 0, 0], true, 256)),
        (6147, ([1, 0, 0, 0, 1, 1, 0], false, 0)),
        (u32::MAX, ([1, 1, 1, 1, 1, 1, 1], true, 256 + 512 + 1024 + 8192)),
    ] {
        assert_eq!(said(flags), expected, "{flags}");
    }
    assert!(RequestFlags(8192).rec_dly_sent());
}

#[test]
fn smtputf8_is_required_where_it_was_asked_for_and_is_used() {
    for (bits, requires, any) in [
        (0, false, false),
        (1, false, true),
        (2, false, true),
        (3, true, true),
        (5, true, true),
        (9, true, true),
        (11, true, true),
        (14, false, true),
        (17, false, true),
        (16, false, false),
        (1 | 32 | 64, false, true),
    ] {
        let needs = Needs(bits);
        assert_eq!((needs.requires_smtputf8(), needs.any_utf8()), (requires, any), "{bits}");
        assert_eq!(needs.smtputf8_requested(), bits & 1 != 0);
    }
}

#[test]
fn the_announcement_is_that_of_the_release() {
    for (version, expected) in [
        ("3.5.27", "status~0~~"),
        ("3.6.0", "protocol~delivery_request_protocol~~"),
        ("3.7.11", "protocol~delivery_request_protocol~~"),
        ("3.10.13", "protocol~delivery_request_protocol~~"),
        ("3.12-20260821", "protocol~delivery_request_protocol~~"),
        ("4.0", "protocol~delivery_request_protocol~~"),
    ] {
        let release = Release::parse(version).unwrap();
        assert_eq!(announcement(release), captured(expected), "{version}");
    }
    assert_eq!(Release::parse("3.12-20260821"), Some(Release { major: 3, minor: 12 }));
    for version in ["", "3", "3.", "x.1", "3.x", "-3.7"] {
        assert_eq!(Release::parse(version), None, "{version:?}");
    }
}

#[test]
fn the_final_reply_tells_qmgr_what_to_do() {
    let done = "status~~diag_type~~diag_text~~mta_type~~mta_mname~~action~~reason~~status~0~~";
    let deferred = "status~4.4.1~diag_type~~diag_text~~mta_type~~mta_mname~~action~~\
        reason~connect to 127.0.0.1[127.0.0.1]:12499: Connection refused~status~4294967295~~";
    let hop = HopStatus {
        status: EnhancedStatus::new(4, 4, 1),
        reason: "connect to 127.0.0.1[127.0.0.1]:12499: Connection refused".into(),
    };
    assert_eq!(final_reply(RequestResult::Done, None), captured(done));
    assert_eq!(final_reply(RequestResult::Deferred, Some(&hop)), captured(deferred));
}

#[test]
fn reports_name_a_recipient_as_the_request_did() {
    let of = |text: &str| {
        let recipient = &request(text).recipients[0];
        recipient.write_to(recipient.notify, Writer::new()).end()
    };
    let list = |text: &str| {
        text.split_once("~~original_recipient").map(|(_, rest)| format!("original_recipient{rest}"))
    };
    let without_offset = PLAIN.replace("offset~242~", "offset~18446744073709551615~");
    for text in [PLAIN, UTF8, &without_offset] {
        assert_eq!(of(text), captured(&list(text).unwrap()));
    }
}

proptest! {
    #[test]
    fn however_a_request_is_cut_it_is_the_same(cuts in prop::collection::vec(0..900_usize, 0..8)) {
        let octets = captured(WITH_DSN);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(octets.len())).collect();
        cuts.extend([0, octets.len()]);
        cuts.sort_unstable();
        let mut reader = RequestReader::new();
        let mut found = Vec::new();
        for pair in cuts.windows(2) {
            found.extend(reader.push(&octets[pair[0]..pair[1]]).unwrap());
        }
        prop_assert_eq!(found, [request(WITH_DSN)]);
    }

    #[test]
    fn a_damaged_request_is_another_one_or_an_error(at in 0..800_usize, octet: u8) {
        let mut octets = captured(WITH_DSN);
        if let Some(place) = octets.get_mut(at) {
            *place = octet;
        }
        if let Ok(Some(request)) = read(&octets) {
            prop_assert!(!request.recipients.is_empty());
        }
    }
}
