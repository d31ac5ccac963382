//! Content on its way through: wire form, transparency dots, and back.

use lastmile::sink::DotDecoder;
use lastmile::smtp::DotStuffing;
use lastmile::spool::Normaliser;

use super::PIECES;

/// Limits on the length of a line; 0 is none.
const LIMITS: [usize; 5] = [0, 2, 16, 78, 998];

/// Content that was sent is the content that was given, line ends apart; it ends where it ends and nowhere before.
pub fn content(input: &[u8]) {
    let wire = slow_wire_form(input);
    let normal = normalised([input].into_iter());
    assert_eq!(normal, wire, "in one piece");
    assert_eq!(normalised([&wire[..]].into_iter()), wire, "normalised again");
    for size in PIECES {
        assert_eq!(normalised(input.chunks(size)), wire, "in pieces of {size}");
    }
    let mut measured = Normaliser::default();
    measured.push(input, &mut Vec::new());
    measured.finish(&mut Vec::new());
    assert_eq!(measured.eight_bit(), wire.iter().any(|&octet| octet > 127));
    let longest = lines(&wire).map(|line| line.len() as u64).max();
    assert_eq!(measured.longest_line(), longest.unwrap_or(0));

    for limit in LIMITS {
        let sent = stuffed(limit, [input].into_iter());
        for size in PIECES {
            assert_eq!(stuffed(limit, input.chunks(size)), sent, "limit {limit}, in pieces of {size}");
        }
        assert_eq!(stuffed(limit, [&wire[..]].into_iter()), sent, "limit {limit}, from wire form");
        check_sent(limit, &sent);
        let expected = slow_folding(limit, &wire);
        for size in [1, 2, 3, 1000, sent.len()] {
            assert_eq!(received(&sent, size), expected, "limit {limit}, received in pieces of {size}");
        }
    }
}

fn normalised<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut normaliser, mut output) = (Normaliser::default(), Vec::new());
    for piece in pieces {
        let before = output.len();
        normaliser.push(piece, &mut output);
        assert!(output.len() - before <= 2 * piece.len() + 1, "{piece:?} grows too much");
    }
    normaliser.finish(&mut output);
    output
}

fn stuffed<'a>(limit: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut encoder, mut output) = (DotStuffing::new(limit), Vec::new());
    for piece in pieces {
        let before = output.len();
        encoder.push(piece, &mut output);
        // A held CR, dots and line ends double; a fold adds three octets, at most one for each octet.
        assert!(output.len() - before <= 5 * piece.len() + 5, "{piece:?} grows too much");
    }
    encoder.finish(&mut output);
    output
}

/// The one end is at the end; no CR and no LF stands alone.
fn check_sent(limit: usize, sent: &[u8]) {
    assert!(sent == b".\r\n" || sent.ends_with(b"\r\n.\r\n"));
    for (at, &octet) in sent.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(sent.get(at + 1), Some(&b'\n'), "a bare CR at {at}"),
            b'\n' => assert_eq!(sent.get(at.wrapping_sub(1)), Some(&b'\r'), "a bare LF at {at}"),
            _ => {}
        }
    }
    let count = lines(sent).count();
    for (at, line) in lines(sent).enumerate() {
        assert_eq!(line == b".", at + 1 == count, "a line of one dot is line {at} of {count}");
        assert!(
            !line.starts_with(b".") || line == b"." || line.starts_with(b".."),
            "a dot that would be lost"
        );
        let dot = usize::from(line.starts_with(b"."));
        assert!(limit == 0 || line.len() <= limit + dot, "{} octets in a line", line.len());
    }
}

/// What the sink takes for the content; the end has to come, at the very end.
fn received(sent: &[u8], size: usize) -> Vec<u8> {
    let (mut decoder, mut buffer, mut content) = (DotDecoder::default(), Vec::new(), Vec::new());
    let (mut consumed, mut ended) = (0, false);
    for piece in sent.chunks(size) {
        assert!(!ended, "the content ends {} octets too early", sent.len() - consumed);
        buffer.extend_from_slice(piece);
        let (used, done) = decoder.decode(&buffer, &mut |octets: &[u8]| content.extend_from_slice(octets));
        buffer.drain(..used);
        consumed += used;
        ended = done;
    }
    assert!(ended && consumed == sent.len(), "{consumed} of {} octets taken, ended: {ended}", sent.len());
    content
}

/// Lines without their CRLF, of text in wire form.
fn lines(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    wire.split_inclusive(|&octet| octet == b'\n').map(|line| line.strip_suffix(b"\r\n").unwrap_or(line))
}

/// Wire form, octet by octet: each LF ends a line, with or without its CR; any other CR is a blank.
fn slow_wire_form(input: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for (at, &octet) in input.iter().enumerate() {
        match octet {
            b'\r' if input.get(at + 1) == Some(&b'\n') => {}
            b'\r' => wire.push(b' '),
            b'\n' => wire.extend_from_slice(b"\r\n"),
            _ => wire.push(octet),
        }
    }
    if !wire.is_empty() && !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

/// Folding, line by line: what follows the first `limit` octets stands behind a blank, which counts.
fn slow_folding(limit: usize, wire: &[u8]) -> Vec<u8> {
    if limit == 0 {
        return wire.to_vec();
    }
    let mut folded = Vec::new();
    for line in lines(wire) {
        let (first, rest) = line.split_at(limit.min(line.len()));
        folded.extend_from_slice(first);
        for piece in rest.chunks(limit - 1) {
            folded.extend_from_slice(b"\r\n ");
            folded.extend_from_slice(piece);
        }
        folded.extend_from_slice(b"\r\n");
    }
    folded
}
