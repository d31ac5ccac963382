//! Queue files as Postfix writes them, and as nobody should.

use std::fs;
use std::path::Path;

use lastmile::postfix::content::{Form, Loaded, Measured, Stopped, delivered_to, for_each_piece, load};
use lastmile::postfix::record::{ContentError, ContentReader, Header, Source, TEXT_MAX, Text};
use proptest::prelude::*;

use super::{AS_IS, SEVEN_BIT, captured, content_offset, wire};

/// Gives a few octets at a time.
struct Slow<'a>(&'a [u8], usize);

impl Source for Slow<'_> {
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

#[test]
fn however_a_file_is_read_its_content_is_the_same() {
    for (name, path) in captured() {
        let file = fs::read(path.with_extension("queue")).unwrap();
        let offset = content_offset(&file);
        let at_once = wire(&file[..], offset, AS_IS).unwrap();
        for count in [1, 7, 1000] {
            assert_eq!(
                wire(&Slow(&file, count), offset, AS_IS).unwrap(),
                at_once,
                "{name}, {count} at a time"
            );
        }
    }
}

/// Counts how often it is read.
struct Counting<'a>(&'a [u8], std::cell::Cell<u32>);

impl Source for Counting<'_> {
    fn read_at(&self, at: u64, into: &mut Vec<u8>) -> std::io::Result<usize> {
        self.1.set(self.1.get() + 1);
        self.0.read_at(at, into)
    }

    fn length(&self) -> u64 {
        self.0.length()
    }
}

#[test]
fn a_small_message_is_read_at_once() {
    for (name, reads_max) in [("dsn", 1), ("long_lines", 1), ("milter_everything", 2), ("empty", 1)] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/queue_files");
        let file = fs::read(directory.join(name).with_extension("queue")).unwrap();
        let source = Counting(&file, std::cell::Cell::new(0));
        wire(&source, content_offset(&file), AS_IS).unwrap();
        assert!(source.1.get() <= reads_max, "{name} takes {} reads", source.1.get());
    }
}

/// A record.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut octets = vec![kind];
    let mut length = payload.len();
    loop {
        let digit = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        octets.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    octets.extend_from_slice(payload);
    octets
}

fn pointer(to: usize) -> Vec<u8> {
    record(b'p', format!("{to:15}").as_bytes())
}

fn records(of: &[(u8, &[u8])]) -> Vec<u8> {
    of.iter().flat_map(|(kind, payload)| record(*kind, payload)).collect()
}

#[test]
fn records_make_lines() {
    let zero = format!("{:15}", 0);
    for (content, expected) in [
        (&[(b'X', &b""[..])][..], &b""[..]),
        (&[(b'N', b""), (b'X', b"")], b"\r\n"),
        (&[(b'N', b"a"), (b'N', b".b"), (b'X', b"")], b"a\r\n.b\r\n"),
        (&[(b'L', b"a"), (b'N', b"b"), (b'X', b"")], b"ab\r\n"),
        (&[(b'L', b"a"), (b'L', b""), (b'X', b"")], b"a\r\n"),
        (&[(b'L', b"a"), (b'w', b"pad"), (b'p', zero.as_bytes()), (b'N', b"b"), (b'X', b"")], b"ab\r\n"),
        (&[(b'N', b"a"), (b'X', b""), (b'N', b"b")], b"a\r\n"),
        (&[(b'p', b"0"), (b'X', b"")], b""),
    ] {
        let file = records(content);
        assert_eq!(wire(&file[..], 0, AS_IS).unwrap().0, expected, "{}", file.escape_ascii());
    }
}

#[test]
fn what_is_no_content_is_an_error_with_the_letter_that_stood_there() {
    let long = record(b'N', &[b'a'; 300]);
    let with = |octets: &[u8]| [&record(b'N', b"first")[..], octets].concat();
    for (octets, letter) in [
        (with(b""), -1),
        (with(b"N"), -2),
        (with(b"N\x80"), -2),
        (with(b"N\x01"), -2),
        (with(&long[..long.len() - 1]), -2),
        (with(&record(b'E', b"")), i32::from(b'E')),
        (with(&record(b'R', b"a@b")), i32::from(b'R')),
        (with(&record(b'D', b"a@b")), i32::from(b'D')),
        (with(b"\0\0"), 0),
        (with(b"\xff\0"), 255),
        (with(b"N\xff\xff\xff\xff\x07x"), -2),
        (with(b"N\xff\xff\xff\xff\x08x"), -2),
        (with(b"N\x80\x80\x80\x80\x80\0x"), -2),
        (with(&record(b'w', b"pad")[..4]), -2),
        (with(&record(b'p', b"")), -2),
        (with(&record(b'p', b"12a")), -2),
        (with(&record(b'p', b"-1")), -2),
        (with(&record(b'p', b"9223372036854775808")), -2),
        (with(&record(b'p', &[b' '; 100])), -2),
        (with(&pointer(1_000_000)), -1),
        (with(&record(b'p', b"9223372036854775807")), -1),
        // Padding that goes beyond the end, behind a leap over what would make room for it.
        (with(&[&pointer(44)[..], &[b'?'; 20], &record(b'w', b"pad")[..4]].concat()), -2),
        // Pointers in a circle: to itself, and to what was read already.
        (with(&pointer(7)), -2),
        (with(&[record(b'N', b"again"), pointer(7)].concat()), -2),
    ] {
        match wire(&octets[..], 0, AS_IS) {
            Err(ContentError::Corrupt(found)) => assert_eq!(found, letter, "{}", octets.escape_ascii()),
            other => panic!("{}: {other:?}", octets.escape_ascii()),
        }
    }
    assert!(matches!(wire(&b""[..], 5, AS_IS), Err(ContentError::Corrupt(-1))));
    assert_eq!(ContentError::Corrupt(69).to_string(), "bad record type: 69 in message content");
}

#[test]
fn a_circle_of_pointers_ends_in_its_first_round() {
    let file = [record(b'N', &[b'x'; 30_000]), pointer(0)].concat();
    let file = [&record(b'N', b"")[..], &file[..file.len() - 1], b"2"].concat();
    let (mut reader, mut octets) = (ContentReader::new(&file[..], 0), 0);
    let ended = loop {
        match reader.next() {
            Ok(Some((_, piece))) => octets += piece.len(),
            other => break other.map(|_| ()),
        }
    };
    assert!(matches!(ended, Err(ContentError::Corrupt(ContentError::BROKEN))), "{ended:?}");
    assert_eq!(octets, 30_000);
}

/// A file of a milter that has edited it without end.
#[test]
fn as_many_jumps_back_as_postfix_makes_are_followed() {
    for (jumps, is_sound) in [(10_000, true), (10_001, false)] {
        let link = pointer(0).len();
        // The first link points to the last, and each other one to the one before it.
        let mut file = record(b'X', b"");
        file.resize(link, 0);
        file.splice(0..0, pointer(link * (jumps + 1)));
        let end = link;
        let mut chain = Vec::new();
        for at in 0..jumps {
            chain.extend(pointer(if at == 0 { end } else { link * (at + 1) }));
        }
        file.truncate(link);
        file.extend(record(b'X', b""));
        file.resize(2 * link, 0);
        file.extend(chain);
        assert_eq!(wire(&file[..], 0, AS_IS).is_ok(), is_sound, "{jumps}");
    }
}

#[test]
fn a_record_that_is_longer_than_memory_should_hold_comes_in_pieces() {
    let long = vec![b'x'; 1_000_000];
    let file = [record(b'N', &long), record(b'L', &long), record(b'N', b"y"), record(b'X', b"")].concat();
    let (octets, breaks) = wire(&file[..], 0, Form { line_length_limit: 0, seven_bit: false }).unwrap();
    assert_eq!((octets, breaks), ([&long[..], b"\r\n", &long, b"y\r\n"].concat(), 0));
    let mut reader = ContentReader::new(&file[..], 0);
    while let Some((_, piece)) = reader.next().unwrap() {
        assert!(piece.len() <= TEXT_MAX);
    }
}

#[test]
fn small_content_is_kept_and_all_content_is_measured() {
    let file = records(&[(b'N', b"0123456789abc"), (b'L', b"caf\xe9"), (b'X', b"")]);
    let form = Form { line_length_limit: 10, seven_bit: false };
    let whole = b"0123456789\r\n abc\r\ncaf\xe9\r\n";
    let measured = Measured { size: 24, breaks: 1 };
    for (keep, octets) in [(24, Some(whole.to_vec())), (23, None), (0, None)] {
        assert_eq!(load(&file[..], 0, form, keep).unwrap(), Loaded { measured, octets }, "{keep}");
    }
    let large = [record(b'N', &vec![b'x'; 100_000]), record(b'X', b"")].concat();
    assert_eq!(load(&large[..], 0, form, 100_000).unwrap().octets, None);
    let corrupt = records(&[(b'N', b"a"), (b'E', b"")]);
    assert!(matches!(load(&corrupt[..], 0, form, 9), Err(ContentError::Corrupt(69))));
}

#[test]
fn whoever_takes_content_can_stop_it() {
    let file = [record(b'N', &vec![b'x'; 100_000]), record(b'E', b"")].concat();
    let mut pieces = 0;
    let ended = for_each_piece(&file[..], 0, AS_IS, &mut Vec::new(), |_| {
        pieces += 1;
        Err("enough")
    });
    assert!(matches!(ended, Err(Stopped::Taker("enough"))));
    assert_eq!(pieces, 1);
}

#[test]
fn those_who_have_had_a_message_are_named_in_its_header() {
    let long = [b"Delivered-To: ".as_slice(), &[b'x'; 1001]].concat();
    let file = records(&[
        (b'N', b"Delivered-To: a@b"),
        (b'N', b"Subject: x"),
        (b'N', b" Delivered-To: folded@x"),
        (b'N', b"delivered-to:\t C@D "),
        (b'L', b"X-Long: "),
        (b'N', b"Delivered-To: inside@x"),
        (b'N', &long),
        (b'N', b""),
        (b'N', b"Delivered-To: body@x"),
        (b'X', b""),
    ]);
    assert_eq!(delivered_to(&file[..], 0).unwrap(), [b"a@b", b"C@D"]);
    let many = [record(b'N', b"Delivered-To: a@b").repeat(1001), record(b'X', b"")].concat();
    assert_eq!(delivered_to(&many[..], 0).unwrap().len(), 1000);
    let garbage = records(&[(b'N', b"no field"), (b'N', b"Delivered-To: a@b"), (b'X', b"")]);
    assert!(delivered_to(&garbage[..], 0).unwrap().is_empty());
    assert!(delivered_to(&b"E\0"[..], 0).is_err());
}

/// Lines of text as the records of one message, each with what stands before it in the file.
fn texts() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..30)
}

/// Lays a message out as milters do: runs of records in any order, each ending in a pointer to the next, with the rest
/// of something else behind it, and padding anywhere.
fn laid_out(texts: &[(bool, Vec<u8>)], order: &[usize]) -> (Vec<u8>, u64) {
    let mut blocks: Vec<Vec<u8>> = texts
        .iter()
        .map(|(is_line, text)| {
            let padding = record(b'w', &vec![b' '; text.len() % 5]);
            [padding, record(if *is_line { b'N' } else { b'L' }, text)].concat()
        })
        .collect();
    blocks.push([pointer(0), record(b'X', b"")].concat());
    let garbage = b"\xff\xffgarbage";
    let mut places: Vec<usize> = (0..blocks.len()).collect();
    places.sort_by_key(|&at| order.get(at).copied().unwrap_or(at));
    let size = |block: usize| blocks[block].len() + pointer(0).len() + garbage.len();
    let start = 10;
    let place_of = |block: usize| {
        start + places.iter().take_while(|&&other| other != block).map(|&other| size(other)).sum::<usize>()
    };
    let mut file = vec![b'?'; start];
    for &block in &places {
        file.extend_from_slice(&blocks[block]);
        file.extend(pointer(if block + 1 < blocks.len() { place_of(block + 1) } else { 0 }));
        file.extend_from_slice(garbage);
    }
    let first = place_of(0);
    (file, first as u64)
}

proptest! {
    #[test]
    fn text_is_found_wherever_it_lies(texts in texts(), order in prop::collection::vec(0..40_usize, 31)) {
        let (file, offset) = laid_out(&texts, &order);
        let mut reader = ContentReader::new(&file[..], offset);
        let mut found = Vec::new();
        while let Some((text, piece)) = reader.next().unwrap() {
            found.push((text == Text::Line, piece.to_vec()));
        }
        prop_assert_eq!(&found, &texts);
        for form in [AS_IS, SEVEN_BIT] {
            prop_assert_eq!(wire(&Slow(&file, 5), offset, form).unwrap(), wire(&file[..], offset, form).unwrap());
        }
    }

    #[test]
    fn a_damaged_file_is_read_to_an_end(
        texts in texts(),
        order in prop::collection::vec(0..40_usize, 31),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let (mut file, offset) = laid_out(&texts, &order);
        for (at, octet) in damage {
            let at = at.index(file.len());
            file[at] = octet;
        }
        for form in [AS_IS, SEVEN_BIT] {
            if let Ok((octets, _)) = wire(&file[..], offset, form) {
                prop_assert!(octets.len() <= 10 * file.len() + 1000);
            }
        }
    }

    #[test]
    fn headers_of_every_length_read_back(length in 0..300_000_usize) {
        let octets = record(b'N', &vec![b'x'; length]);
        let header = Header::parse(&octets).unwrap().unwrap();
        prop_assert_eq!((header.kind, header.length as usize, header.size), (b'N', length, octets.len() - length));
        for size in 0..header.size {
            prop_assert_eq!(Header::parse(&octets[..size]), Ok(None));
        }
    }
}
