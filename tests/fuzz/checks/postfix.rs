//! What Postfix hands over: requests, queue files, and content that has to be converted.

use std::convert::Infallible;

use lastmile::postfix::attribute::Writer;
use lastmile::postfix::content::{Form, Stopped, delivered_to, for_each_piece, load};
use lastmile::postfix::lines::Lines;
use lastmile::postfix::record::{ContentError, ContentReader, Header, Source, Text};
use lastmile::postfix::request::{BadRequest, Request, RequestReader};
use lastmile::postfix::seven_bit::SevenBit;

use super::{PIECES, assert_short};

/// However a request arrives it is the same; written down again it reads as it was; what is none has a sentence.
pub fn request(input: &[u8]) {
    let whole = read(input.chunks(input.len().max(1)));
    for size in PIECES {
        // Each piece is looked at from the start of its list: octet by octet that is only for short ones.
        if input.len() <= 1000 * size {
            let cut = read(input.chunks(size));
            // What is surplus may come with the end or behind it.
            let surplus = |read: &Result<_, _>| matches!(read, Err(BadRequest::Surplus(_)));
            assert!(
                cut == whole || surplus(&cut) && surplus(&whole),
                "in pieces of {size}: {cut:?}, {whole:?}"
            );
        }
    }
    match whole {
        Ok(None) => {}
        Err(error) => assert_short(&error.to_string()),
        Ok(Some(request)) => {
            assert!(!request.recipients.is_empty());
            assert!(request.recipients.iter().all(|recipient| recipient.offset != Some(0)));
            let (again, times) = (written(&request), request.times);
            let again = read([&again[..]].into_iter()).unwrap().unwrap();
            assert_eq!(Request { times, ..again }, request);
        }
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<Request>, BadRequest> {
    let (mut reader, mut found) = (RequestReader::new(), None);
    for piece in pieces {
        if let Some(request) = reader.push(piece)? {
            assert!(found.replace(request).is_none(), "two requests at once");
        }
    }
    Ok(found)
}

/// As Postfix 3.10 writes it, without time stamps.
fn written(request: &Request) -> Vec<u8> {
    let time = "A".repeat(118) + "==";
    let mut octets = Writer::new()
        .number("flags", request.flags.0)
        .text("queue_name", &request.queue_name)
        .text("queue_id", &request.queue_id)
        .number("offset", request.content_offset)
        .number("size", request.size)
        .text("nexthop", &request.nexthop)
        .text("encoding", &request.encoding)
        .number("sendopts", request.needs.0)
        .text("sender", &request.sender)
        .text("envelope_id", &request.envelope_id)
        .number("ret_flags", request.ret)
        .text("time", time)
        .text("log_client_name", &request.client.name)
        .text("log_client_address", &request.client.address)
        .text("log_client_port", &request.client.port)
        .text("log_protocol_name", &request.client.protocol)
        .text("log_helo_name", &request.client.helo)
        .text("log_ident", &request.client.ident)
        .text("rewrite_context", &request.client.rewrite_context)
        .number("recipient_count", u32::try_from(request.recipients.len()).unwrap())
        .end();
    request
        .recipients
        .iter()
        .for_each(|recipient| octets.extend(recipient.write_to(recipient.notify, Writer::new()).end()));
    octets
}

const FORMS: [Form; 3] = [
    Form { line_length_limit: 0, seven_bit: false },
    Form { line_length_limit: 10, seven_bit: false },
    Form { line_length_limit: 998, seven_bit: true },
];

/// However a file is read its content is the same, and the slow reader below agrees about it; what is measured is what
/// is sent.
pub fn record(input: &[u8]) {
    let offset = content_offset(input);
    let found = texts(input, offset);
    let slow = slow_texts(input, offset);
    assert_eq!(found, slow, "offset {offset}");
    for size in PIECES {
        assert_eq!(texts(&Dripping(input, size), offset), found, "{size} octets at a time");
    }
    for form in FORMS {
        let (sent, breaks) = match wire(input, offset, form) {
            Ok(sent) => sent,
            Err(error) => {
                assert!(slow.is_err(), "{error}");
                assert_short(&error.to_string());
                assert!(load(input, offset, form, 1000).is_err());
                continue;
            }
        };
        assert!(sent.len() <= 6 * input.len() + 200, "{} octets become {}", input.len(), sent.len());
        let loaded = load(input, offset, form, sent.len()).unwrap();
        let measured = loaded.measured;
        assert_eq!((loaded.octets.as_deref(), measured.breaks), (Some(&sent[..]), breaks));
        assert_eq!(measured.size, sent.len() as u64);
        assert!(sent.is_empty() || load(input, offset, form, sent.len() - 1).unwrap().octets.is_none());
    }
    if let Ok(named) = delivered_to(input, offset) {
        assert!(named.len() <= 1000 && named.iter().all(|name| name.len() <= 1000));
    }
}

/// Where the first record says that the content begins; else the second octet may say it.
fn content_offset(file: &[u8]) -> u64 {
    let said = || {
        let header = Header::parse(file).ok()??;
        let text = file.get(header.size..header.size + 95).filter(|_| header.kind == b'C')?;
        std::str::from_utf8(text).ok()?.split_whitespace().nth(1)?.parse().ok()
    };
    said().unwrap_or_else(|| file.get(1).copied().unwrap_or(0).into())
}

type Texts = Result<Vec<(bool, Vec<u8>)>, i32>;

fn texts(source: &(impl Source + ?Sized), offset: u64) -> Texts {
    let mut reader = ContentReader::new(source, offset);
    let mut found = Vec::new();
    loop {
        match reader.next() {
            Ok(Some((text, piece))) => found.push((text == Text::Line, piece.to_vec())),
            Ok(None) => return Ok(found),
            Err(ContentError::Corrupt(letter)) => return Err(letter),
            Err(ContentError::Io(error)) => panic!("{error}"),
        }
    }
}

/// The rules once more, a record at a time. Whoever comes by the same record twice, runs in a circle.
fn slow_texts(file: &[u8], offset: u64) -> Texts {
    let mut found = Vec::new();
    let mut at = usize::try_from(offset).unwrap();
    let mut passed = 0;
    loop {
        let Some(rest) = file.get(at..).filter(|rest| !rest.is_empty()) else { return Err(-1) };
        let mut length = 0_u64;
        let mut digits = rest[1..].iter().take(5);
        let mut size = 1;
        loop {
            let Some(digit) = digits.next() else { return Err(-2) };
            length |= u64::from(digit % 128) << (7 * (size - 1));
            size += 1;
            if *digit < 128 {
                break;
            }
        }
        let length = usize::try_from(length).unwrap();
        passed += size;
        if length >= 1 << 31 || passed > file.len() {
            return Err(-2);
        }
        let payload = rest.get(size..size + length);
        match (rest[0], payload) {
            (b'X', _) => return Ok(found),
            (b'N' | b'L' | b'p' | b'w', None) => return Err(-2),
            (b'p', Some(payload)) => {
                let text = String::from_utf8_lossy(payload).trim_ascii().to_owned();
                let target = text.parse::<i64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
                let Some(target) = target.filter(|_| length <= 32) else { return Err(-2) };
                passed += length;
                if passed > file.len() {
                    return Err(-2);
                }
                at += size + length;
                if target != 0 {
                    at = usize::try_from(target).unwrap();
                }
                continue;
            }
            (letter @ (b'N' | b'L'), Some(payload)) => {
                let pieces = payload.chunks(32 * 1024);
                let count = pieces.len();
                let is_line = |place: usize| letter == b'N' && place + 1 == count;
                found.extend(pieces.enumerate().map(|(place, piece)| (is_line(place), piece.to_vec())));
                if payload.is_empty() {
                    found.push((letter == b'N', Vec::new()));
                }
            }
            (b'w', Some(_)) => {}
            (letter, _) => return Err(letter.into()),
        }
        passed += length;
        if passed > file.len() {
            return Err(-2);
        }
        at += size + length;
    }
}

/// Gives a few octets at a time.
struct Dripping<'a>(&'a [u8], usize);

impl Source for Dripping<'_> {
    fn read_at(&self, at: u64, into: &mut Vec<u8>) -> std::io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let count = rest.len().min(self.1).min(into.capacity() - into.len());
        into.extend_from_slice(&rest[..count]);
        Ok(count)
    }

    fn length(&self) -> u64 {
        self.0.len() as u64
    }
}

fn wire(source: &[u8], offset: u64, form: Form) -> Result<(Vec<u8>, u64), ContentError> {
    let mut octets = Vec::new();
    let ended = for_each_piece::<Infallible>(source, offset, form, &mut Vec::new(), |piece| {
        octets.extend_from_slice(piece);
        Ok(())
    });
    match ended {
        Ok(breaks) => Ok((octets, breaks)),
        Err(Stopped::Content(error)) => Err(error),
        Err(Stopped::Taker(never)) => match never {},
    }
}

/// What does not say that it is 8-bit stays as it is. What was converted has nothing left to convert. Text is given in
/// lines; a record separator ends a piece within a line.
pub fn seven_bit(input: &[u8]) {
    let pieces: Vec<(Text, &[u8])> = input
        .split_inclusive(|octet| matches!(octet, b'\n' | b'\x1e'))
        .map(|piece| match piece.split_last() {
            Some((b'\n', line)) => (Text::Line, line),
            Some((b'\x1e', part)) => (Text::Part, part),
            _ => (Text::Part, piece),
        })
        .collect();
    let (mut lines, mut plain) = (Lines::new(0), Vec::new());
    pieces.iter().for_each(|(text, piece)| lines.push(*text, piece, &mut plain));
    lines.finish(&mut plain);
    let once = converted(&pieces);
    assert!(once.len() <= 6 * input.len() + 200, "{} octets become {}", input.len(), once.len());
    let lower = plain.to_ascii_lowercase();
    let says = |word: &[u8]| lower.windows(word.len()).any(|window| window == word);
    if !says(b"8bit") && !says(b"binary") {
        // A header that ends in garbage gets the empty line that it lacks.
        let differs = once.iter().zip(&plain).position(|(a, b)| a != b).unwrap_or(plain.len());
        let at = plain[..differs].iter().rposition(|&octet| octet == b'\n').map_or(0, |at| at + 1);
        let completed = [&plain[..at], b"\r\n", &plain[at..]].concat();
        assert!(
            once == plain || once == completed,
            "{} becomes {}",
            plain.escape_ascii(),
            once.escape_ascii()
        );
    }
    // Once more, for the header may have been completed, and lines that came in pieces are whole now.
    let twice = converted(&whole_lines(&once));
    assert_eq!(
        converted(&whole_lines(&twice)).escape_ascii().to_string(),
        twice.escape_ascii().to_string(),
        "converted again"
    );
}

fn converted(pieces: &[(Text, &[u8])]) -> Vec<u8> {
    let (mut seven_bit, mut lines, mut out) = (SevenBit::new(), Lines::new(0), Vec::new());
    pieces.iter().for_each(|(text, piece)| seven_bit.push(*text, piece, &mut lines, &mut out));
    seven_bit.finish(&mut lines, &mut out);
    out
}

/// The lines of wire form. Within lines there may be LF.
fn whole_lines(wire: &[u8]) -> Vec<(Text, &[u8])> {
    let mut lines = Vec::new();
    let mut rest = wire;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push((Text::Line, &rest[..end]));
        rest = &rest[end + 2..];
    }
    assert_eq!(rest, b"", "a line without end");
    lines
}
