//! SMTP on standard input: what a client writes, up to the messages that come of it.

use std::io::{self, BufRead, Read};
use std::sync::OnceLock;

use lastmile::cli::sendmail::smtp_server::{Session, Transaction, Wire, converse};
use lastmile::cli::sendmail::{Failure, Options};
use lastmile::config::{Config, Sources};
use lastmile::mail::{Address, Recipient};
use lastmile::smtp::parse_reply;

use super::{PIECES, addresses, assert_one_line, assert_short};

/// Octets of a line (RFC 5321 section 4.5.3.1.5).
const REPLY_LINE_MAX: usize = 512;

/// Everything that came of a session.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    replies: Vec<u8>,
    /// Sender, recipients and content of each message.
    queued: Vec<(Option<Address>, Vec<Recipient>, Vec<u8>)>,
    /// The sentence and the code of its end, if that was not one that both wanted.
    failure: Option<(u8, String)>,
}

/// However a session arrives it has the same outcome; a message is what stood between DATA and its end, and no more; each
/// reply is one that our own client reads.
pub fn session(input: &[u8]) {
    let outcome = play(input, input.len().max(1));
    for size in PIECES {
        assert_eq!(play(input, size), outcome, "in pieces of {size}");
    }
    let mut replies = &outcome.replies[..];
    let mut accepted = 0;
    while let Some((reply, used)) = parse_reply(replies).unwrap() {
        let (text, rest) = replies.split_at(used);
        assert!(text.split_inclusive(|&octet| octet == b'\n').all(|line| line.len() <= REPLY_LINE_MAX));
        accepted += usize::from(reply.code() == 250 && text.windows(6).any(|word| word == b"queued"));
        replies = rest;
    }
    assert_eq!(replies, b"", "half a reply");
    assert_eq!(accepted, outcome.queued.len(), "a message is queued if, and only if, that was said");
    if let Some((code, sentence)) = &outcome.failure {
        assert!((64..=78).contains(code), "{code}");
        assert_short(sentence);
        assert_one_line(sentence);
    }
    let possible = if outcome.queued.is_empty() { Vec::new() } else { slow_contents(input) };
    for (sender, recipients, content) in &outcome.queued {
        assert!(!recipients.is_empty());
        sender.iter().chain(recipients.iter().map(|recipient| &recipient.address)).for_each(|address| {
            addresses::check(address);
            assert!(!address.domain().is_empty());
        });
        assert!(possible.contains(content), "\"{}\" is no message of these", content.escape_ascii());
    }
}

/// Hands its input out in pieces.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.1.min(buffer.len());
        self.0.by_ref().take(length as u64).read(buffer)
    }
}

fn play(input: &[u8], size: usize) -> Outcome {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let overrides =
            ["myhostname=mx.example", "myorigin=example", "aliases={ root = [\"ann\", \"ops@x\"] }"];
        let overrides = overrides.map(ToOwned::to_owned).to_vec();
        Config::load(&Sources { file: Some("/dev/null".into()), environment: Vec::new(), overrides }).unwrap()
    });
    let (options, mut replies, mut queued) = (Options::default(), Vec::new(), Vec::new());
    let mut queue = |transaction: Transaction<'_>, content: &mut dyn BufRead| {
        let mut octets = Vec::new();
        if content.read_to_end(&mut octets).is_err() {
            assert!(content.read(&mut [0]).is_err(), "what has broken off does not end");
            return Err(Failure::from(lastmile::spool::SubmitError::Recipients(0)));
        }
        assert_eq!(content.read(&mut [0]).unwrap(), 0, "after its end");
        let sender = transaction.sender.address().cloned();
        queued.push((sender, transaction.recipients.into_vec(), octets));
        Ok(None)
    };
    let mut wire = Wire::new(Pieces(input, size), &mut replies);
    let ended = converse(Session::new(config, &options), &mut wire, &mut queue);
    let failure = ended.err().map(|failure| (failure.code(), failure.to_string()));
    Outcome { replies, queued, failure }
}

/// Everything that could be a message by the letter: what stands behind a line of DATA, up to a lone dot on a line that
/// ends in CR LF; or in LF, if no CR LF comes before.
fn slow_contents(input: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut begin = 0;
    for line in input.split_inclusive(|&octet| octet == b'\n') {
        begin += line.len();
        if !line.ends_with(b"\n") || !line.trim_ascii().eq_ignore_ascii_case(b"DATA") {
            continue;
        }
        for line_end in [&b"\n"[..], b"\r\n"] {
            let mut content = Vec::new();
            let (mut end, mut has_ended) = (begin, false);
            for line in lines(&input[begin..], line_end) {
                end += line.len();
                has_ended = line == [b".", line_end].concat();
                if has_ended {
                    break;
                }
                content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            }
            let has_cr_lf = input[..end].windows(2).any(|pair| pair == b"\r\n");
            if has_ended && has_cr_lf == (line_end == b"\r\n") {
                found.push(content);
            }
        }
    }
    found
}

/// Lines with their ends; the last may have none.
fn lines<'a>(text: &'a [u8], line_end: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let at = rest.windows(line_end.len()).position(|window| window == line_end);
        let (line, after) = rest.split_at(at.map_or(rest.len(), |at| at + line_end.len()));
        rest = after;
        (!line.is_empty()).then_some(line)
    })
}
