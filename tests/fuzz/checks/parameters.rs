//! Delivery report parameters (RFC 3461, RFC 6533), status codes, IDs and names.

use lastmile::mail::{
    BodyType, EnhancedStatus, Notify, OriginalRecipient, QueueId, Recipient, Return, Sender, TransportName,
    xtext,
};
use lastmile::queue::job::IncomingName;

use super::{assert_short, text_of, wire};

/// Octets in an ORCPT, decoded, as `mail` documents it.
const PARAMETER_LENGTH_MAX: usize = 500;

/// What parses prints as something that parses to itself; what is encoded for the wire decodes to what it was.
pub fn parameters(input: &[u8]) {
    let text = &*text_of(input);
    let notify = text.parse::<Notify>().ok().inspect(|notify| {
        assert_eq!(notify.to_string().parse::<Notify>().unwrap(), *notify);
        assert!(!notify.is_default());
        assert!(!(notify.never() && (notify.on_success() || notify.on_failure() || notify.on_delay())));
        let asked = [notify.on_success(), notify.on_failure(), notify.asks_delay()];
        assert!(notify.never() || asked.contains(&true), "{text:?} asks for nothing");
    });
    let orcpt = match text.parse::<OriginalRecipient>() {
        Ok(orcpt) => Some(orcpt).inspect(check_original_recipient),
        Err(error) => {
            assert_short(&error.to_string());
            None
        }
    };
    let is_one_line = !text.contains(char::is_control);
    let recipient = Recipient {
        notify: notify.unwrap_or_default(),
        orcpt,
        ..Recipient::new(0, "b@example.org".parse().unwrap())
    };
    // What a head or a job line may hold as the envelope's ID (`spool` sees to that).
    wire::check(&Sender::NULL, &[recipient], Some(text).filter(|_| is_one_line));

    let encoded = xtext(text);
    assert!(encoded.len() <= 3 * text.len());
    assert_eq!(wire::decode_xtext(&encoded).as_deref(), Some(text.as_bytes()), "{encoded:?}");

    let upper = text.to_ascii_uppercase();
    let ret = text.parse::<Return>().ok();
    assert_eq!(ret.map(|ret| ret.to_string()), matches!(&*upper, "FULL" | "HDRS").then(|| upper.clone()));
    let body = text.parse::<BodyType>().ok();
    assert_eq!(body.map(|body| body.to_string()), matches!(&*upper, "7BIT" | "8BITMIME").then_some(upper));
    check_names(text);
}

fn check_original_recipient(orcpt: &OriginalRecipient) {
    let text = orcpt.as_str();
    assert!(text.len() <= PARAMETER_LENGTH_MAX && !text.contains(char::is_control), "{text:?}");
    assert_eq!(text.parse::<OriginalRecipient>().as_ref(), Ok(orcpt));
    let (kind, address) = text.split_once(';').unwrap();
    assert_eq!(address, orcpt.address());
    let parameter = orcpt.parameter();
    assert!(parameter.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'='), "{parameter:?}");
    let (sent_kind, sent) = parameter.split_once(';').unwrap();
    assert_eq!(sent_kind, kind);
    let decoded = if kind.eq_ignore_ascii_case("utf-8") {
        decode_utf8_xtext(sent)
    } else {
        wire::decode_xtext(sent).and_then(|octets| String::from_utf8(octets).ok())
    };
    assert_eq!(decoded.as_deref(), Some(address), "{parameter:?}");
}

/// RFC 6533 section 3, the other way round.
fn decode_utf8_xtext(text: &str) -> Option<String> {
    let (mut decoded, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            decoded.push(c);
            continue;
        }
        let (digits, behind) = rest.strip_prefix("x{")?.split_once('}')?;
        let is_number = (2..=6).contains(&digits.len())
            && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
            && (digits.len() == 2 || !digits.starts_with('0'));
        decoded.push(u32::from_str_radix(digits, 16).ok().filter(|_| is_number).and_then(char::from_u32)?);
        rest = behind;
    }
    Some(decoded)
}

/// Names are made of what they may be made of, and read back.
fn check_names(text: &str) {
    let is_within = |most, fits: fn(u8) -> bool| (1..=most).contains(&text.len()) && text.bytes().all(fits);
    let id = text.parse::<QueueId>();
    assert_eq!(id.is_ok(), is_within(30, |b| b.is_ascii_alphanumeric()), "{text:?}");
    assert_eq!(id.map(|id| id.to_string()).unwrap_or_else(|_| text.to_owned()), text);
    let name = IncomingName::new(text);
    let is_plain =
        is_within(64, |b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !text.starts_with('.');
    assert_eq!(name.is_some(), is_plain, "{text:?}");
    assert_eq!(name.map_or_else(|| text.to_owned(), |name| name.to_string()), text);
    let transport = text.parse::<TransportName>();
    let is_transport = is_within(64, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !text.starts_with('_')
        && !text.ends_with('_')
        && !text.contains("__");
    assert_eq!(transport.is_ok(), is_transport, "{text:?}");
    assert_eq!(transport.map_or_else(|_| text.to_owned(), |transport| transport.to_string()), text);
    if let Ok(status) = text.parse::<EnhancedStatus>() {
        assert!(matches!(status.class(), 2 | 4 | 5));
        let (subject, detail) = status.subject_and_detail();
        assert!(subject <= 999 && detail <= 999);
        assert_eq!(status.to_string().parse::<EnhancedStatus>(), Ok(status));
    }
}
