//! Replies of servers, and what they offer.

use lastmile::mail::Protocol;
use lastmile::smtp::{BadReply, Capabilities, Class, Handshake, Next, Reply, parse_auth_reply, parse_reply};

use super::PIECES;

/// Octets of a line, of one that answers AUTH, and of a whole reply that are accepted, as `smtp` documents them.
const LINE_SIZE_MAX: usize = 4096;
const AUTH_LINE_SIZE_MAX: usize = 4 + 12_288;
const REPLY_SIZE_MAX: usize = 16 * 1024;

/// The same grammar with two bounds.
const GRAMMARS: [Grammar; 2] = [
    Grammar { parse: parse_reply, line_size_max: LINE_SIZE_MAX },
    Grammar { parse: parse_auth_reply, line_size_max: AUTH_LINE_SIZE_MAX },
];

/// A reply, and the octets that it used.
type Parsed = Result<Option<(Reply, usize)>, BadReply>;

struct Grammar {
    parse: fn(&[u8]) -> Parsed,
    line_size_max: usize,
}

/// What a stream holds: replies with the octets that each used, and why no further one can be read.
type Conversation = (Vec<(Reply, usize)>, Option<BadReply>);

/// Reads a stream as a connection does: what arrives is added to what is there, and replies are taken off its front.
fn converse<'a>(grammar: &Grammar, pieces: impl Iterator<Item = &'a [u8]>) -> Conversation {
    let (mut buffer, mut replies) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match (grammar.parse)(&buffer) {
                Ok(Some((reply, used))) => {
                    assert!((4..=buffer.len()).contains(&used), "{used} of {} octets used", buffer.len());
                    buffer.drain(..used);
                    replies.push((reply, used));
                }
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
        assert!(
            buffer.len() <= REPLY_SIZE_MAX,
            "an unfinished reply of {} octets is waited for",
            buffer.len()
        );
    }
    (replies, None)
}

/// A reply means the same however it arrives; the slow grammar below agrees with the parser; what was printed reads
/// back; nothing in it upsets a log.
pub fn reply(input: &[u8]) {
    for grammar in &GRAMMARS {
        reply_by(grammar, input);
    }
}

fn reply_by(grammar: &Grammar, input: &[u8]) {
    // Whole at once, unless that would be more than any connection reads at once.
    let whole = converse(grammar, input.chunks(REPLY_SIZE_MAX));
    for size in PIECES {
        // Each piece is looked at from the start of its reply: octet by octet that is only for short ones.
        if input.len() <= 1000 * size {
            assert_eq!(converse(grammar, input.chunks(size)), whole, "in pieces of {size}");
        }
    }
    // Cut right before and right behind each LF, where a line may seem longer than it is.
    let ends = input.split_inclusive(|&octet| octet == b'\n').flat_map(|line| {
        let (line, end) = line.split_at(line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len));
        line.chunks(REPLY_SIZE_MAX).chain([end])
    });
    assert_eq!(converse(grammar, ends), whole, "cut at LF");
    let mut rest = input;
    for (reply, used) in &whole.0 {
        let (octets, behind) = rest.split_at(*used);
        assert_eq!(slow_reply(grammar, octets), Slow::Reply(reply.code(), *used), "{octets:?}");
        check_reply(grammar, reply, octets);
        rest = behind;
    }
    match whole.1 {
        None => assert_eq!(slow_reply(grammar, rest), Slow::Unfinished, "{rest:?}"),
        Some(BadReply::Surplus | BadReply::WrongClass(_)) => panic!("the grammar cannot say that"),
        Some(error) => {
            assert!(error.to_string().len() <= 500, "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            assert_eq!(slow_reply(grammar, rest), Slow::Bad, "{rest:?} was refused: {error}");
        }
    }
}

#[derive(Debug, PartialEq)]
enum Slow {
    Reply(u16, usize),
    Unfinished,
    Bad,
}

/// RFC 5321 section 4.2 in slow motion: line by line, each as text.
fn slow_reply(grammar: &Grammar, input: &[u8]) -> Slow {
    let (mut used, mut first) = (0, None);
    for line in input.split_inclusive(|&octet| octet == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        used += line.len() + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let code: String = line.iter().take(3).map(|&octet| char::from(octet)).collect();
        let number = code.parse::<u16>().ok().filter(|number| (200..=599).contains(number));
        let is_last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Slow::Bad,
        };
        let Some(number) = number.filter(|_| line.len() <= grammar.line_size_max && used <= REPLY_SIZE_MAX)
        else {
            return Slow::Bad;
        };
        if *first.get_or_insert(number) != number {
            return Slow::Bad;
        }
        if is_last {
            return Slow::Reply(number, used);
        }
    }
    let unfinished = input[used..].strip_suffix(b"\r").unwrap_or(&input[used..]).len();
    if unfinished > grammar.line_size_max || input.len() > REPLY_SIZE_MAX {
        Slow::Bad
    } else {
        Slow::Unfinished
    }
}

fn check_reply(grammar: &Grammar, reply: &Reply, octets: &[u8]) {
    assert!((200..=599).contains(&reply.code()));
    assert!(reply.text().len() <= octets.len(), "the text is longer than what was read");
    assert!(!reply.text().contains(|c: char| c.is_control() && c != '\n'), "{:?}", reply.text());
    assert!(!reply.one_line().contains(char::is_control), "{:?}", reply.one_line());
    let lines = octets.iter().filter(|&&octet| octet == b'\n').count();
    assert_eq!(reply.lines().count(), lines, "{:?}", reply.text());
    let class = match reply.class() {
        Class::Success => 2,
        Class::Continue => 3,
        Class::Transient => 4,
        Class::Permanent => 5,
    };
    assert_eq!(reply.code() / 100, class);
    if let Some(status) = reply.enhanced_status() {
        assert_eq!(u16::from(status.class()), class, "{:?}", reply.text());
    }
    let printed = format!("{}\r\n", reply.text().replace('\n', "\r\n"));
    let (again, used) = (grammar.parse)(printed.as_bytes()).unwrap().unwrap();
    assert_eq!((used, again.code(), again.text()), (printed.len(), reply.code(), reply.text()));
    assert_eq!(again.enhanced_status(), reply.enhanced_status(), "{printed:?}");
}

/// What a server offers does not depend on the order of its lines, nor on their case; what is discarded is not
/// offered; a limit is never zero; what was printed reads back.
pub fn capabilities(input: &[u8]) {
    let lines: Vec<&[u8]> = input.split(|&octet| octet == b'\n').take(100).collect();
    let Some(offered) = offer(&lines, &[]) else { return };
    check_capabilities(&offered);
    let canonical = printed(&offered);
    let canonical: Vec<&[u8]> = canonical.iter().map(String::as_bytes).collect();
    // Names of mechanisms may stand in more lines than before, and then be too long for one reply.
    if canonical.iter().map(|line| line.len()).sum::<usize>() < REPLY_SIZE_MAX / 2 {
        assert_eq!(offer(&canonical, &[]).unwrap(), offered, "{canonical:?}");
    }

    for altered in [<[u8]>::to_ascii_uppercase as fn(&[u8]) -> Vec<u8>, <[u8]>::to_ascii_lowercase] {
        let altered: Vec<Vec<u8>> = lines.iter().map(|line| altered(line)).collect();
        let altered: Vec<&[u8]> = altered.iter().map(Vec::as_slice).collect();
        assert_eq!(offer(&altered, &[]).unwrap(), offered, "in another case");
    }
    let reversed: Vec<&[u8]> = lines.iter().rev().copied().collect();
    let other = offer(&reversed, &[]).unwrap();
    let flags = |of: &Capabilities| {
        let Capabilities {
            pipelining,
            chunking,
            eight_bit_mime,
            smtputf8,
            dsn,
            enhanced_status_codes,
            starttls,
            ..
        } = *of;
        let has_auth = !of.auth.is_empty();
        [pipelining, chunking, eight_bit_mime, smtputf8, dsn, enhanced_status_codes, starttls, has_auth]
    };
    assert_eq!(flags(&other), flags(&offered), "in another order");
    assert_eq!(other.size.is_some(), offered.size.is_some());
    let keywords = [
        "PIPELINING",
        "chunking",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "EnhancedStatusCodes",
        "size",
        "LIMITS",
        "StartTLS",
        "AUTH",
    ];
    let all: Vec<String> = keywords.iter().map(ToString::to_string).collect();
    assert_eq!(offer(&lines, &all).unwrap(), Capabilities::default(), "although discarded");
    for keyword in keywords {
        let without = offer(&lines, &[keyword.to_owned()]).unwrap();
        let lost =
            flags(&offered).iter().zip(flags(&without)).filter(|(before, after)| **before != *after).count();
        // 8BITMIME may go with SMTPUTF8.
        assert!(lost <= 2, "{keyword} takes {lost} others with it");
        assert!(!flags(&without).iter().zip(flags(&offered)).any(|(after, before)| *after && !before));
    }
}

/// What LHLO is answered, when each of `lines` is one of the reply's; `None` if that is no reply.
fn offer(lines: &[&[u8]], discard: &[String]) -> Option<Capabilities> {
    let mut octets = b"250-mx.example.org\r\n".to_vec();
    for line in lines {
        octets.extend_from_slice(b"250-");
        octets.extend_from_slice(line);
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(b"250 XEND\r\n");
    let (answer, _) = parse_reply(&octets).ok()??;
    let mut handshake =
        Handshake::new(Protocol::Lmtp, "mx.example.org[192.0.2.1]", "client.example.org", discard);
    let (greeting, _) = parse_reply(b"220 mx.example.org\r\n").unwrap().unwrap();
    assert_eq!(handshake.on_reply(&greeting), Next::Send(b"LHLO client.example.org\r\n".to_vec()));
    let Next::Ready(offered) = handshake.on_reply(&answer) else { panic!("{answer:?} is no success") };
    assert_eq!(offered, Capabilities::from_reply(&answer, discard));
    Some(offered)
}

fn check_capabilities(offered: &Capabilities) {
    assert!(
        offered.rcpt_max != Some(0) && offered.mail_max != Some(0),
        "a server that takes no mail: {offered:?}"
    );
    assert!(offered.size_limit() != Some(0));
    let is_name =
        |name: &String| !name.is_empty() && !name.contains([' ', '=']) && *name == name.to_ascii_uppercase();
    assert!(offered.auth.iter().all(is_name), "{:?}", offered.auth);
    assert!(offered.eight_bit_mime || !offered.smtputf8, "RFC 6531 section 3.1 item 8");
}

fn printed(offered: &Capabilities) -> Vec<String> {
    let words = [
        (offered.pipelining, "PIPELINING"),
        (offered.chunking, "CHUNKING"),
        (offered.eight_bit_mime, "8BITMIME"),
        (offered.smtputf8, "SMTPUTF8"),
        (offered.dsn, "DSN"),
        (offered.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
        (offered.starttls, "STARTTLS"),
    ];
    let mut lines: Vec<String> =
        words.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).to_owned()).collect();
    lines.extend(offered.auth.iter().map(|name| format!("AUTH {name}")));
    lines.extend(offered.size.map(|size| format!("SIZE {size}")));
    lines.extend(offered.rcpt_max.map(|limit| format!("LIMITS RCPTMAX={limit}")));
    lines.extend(offered.mail_max.map(|limit| format!("LIMITS MAILMAX={limit}")));
    lines
}
