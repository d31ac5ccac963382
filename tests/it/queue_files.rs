//! Real queue files of Postfix, and what its own lmtp(8) made of them.
//!
//! - Owns: comparing the octets that we send with those that it sends, transparency dots included.
//! - Leaves to others: made-up and broken queue files (the unit tests, the fuzz targets).
//! - Always true: a difference is shown by the name of the file and the place in it.

mod content;

use std::fs;
use std::path::{Path, PathBuf};

use lastmile::postfix::content::{Form, Stopped, for_each_piece};
use lastmile::postfix::lines::Lines;
use lastmile::postfix::record::Text::{self, Line, Part};
use lastmile::postfix::record::{ContentError, Header, Source};
use lastmile::smtp::DotStuffing;
use proptest::prelude::*;

const AS_IS: Form = Form { line_length_limit: 998, seven_bit: false };
const SEVEN_BIT: Form = Form { seven_bit: true, ..AS_IS };

/// Queue files of Postfix 3.7.11: name and path without extension.
fn captured() -> Vec<(String, PathBuf)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/queue_files");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let queue_files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "queue"));
    let stem =
        |path: PathBuf| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path.with_extension(""));
    queue_files.map(stem).collect()
}

/// Where the first record says that the content begins.
fn content_offset(file: &[u8]) -> u64 {
    let header = Header::parse(file).unwrap().unwrap();
    assert_eq!((header.kind, header.length), (b'C', 95));
    let text = std::str::from_utf8(&file[header.size..header.size + 95]).unwrap();
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// All of the content, and how often a line was broken.
fn wire(source: &(impl Source + ?Sized), offset: u64, form: Form) -> Result<(Vec<u8>, u64), ContentError> {
    let mut octets = Vec::new();
    let ended = for_each_piece::<()>(source, offset, form, &mut Vec::new(), |piece| {
        assert!(piece.len() < 200 * 1024);
        octets.extend_from_slice(piece);
        Ok(())
    });
    match ended {
        Ok(breaks) => Ok((octets, breaks)),
        Err(Stopped::Content(error)) => Err(error),
        Err(Stopped::Taker(())) => unreachable!(),
    }
}

/// As DATA sends it, without the final dot.
fn dotted(octets: &[u8]) -> Vec<u8> {
    let (mut stuffing, mut out) = (DotStuffing::new(0), Vec::new());
    stuffing.push(octets, &mut out);
    stuffing.finish(&mut out);
    out.truncate(out.len() - b".\r\n".len());
    out
}

#[track_caller]
fn assert_same(ours: &[u8], theirs: &[u8], name: &str) {
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(ours.len().min(theirs.len()));
    let around =
        |octets: &[u8]| octets[at.saturating_sub(60)..octets.len().min(at + 60)].escape_ascii().to_string();
    assert!(ours == theirs, "{name}, octet {at}:\n{}\n{}", around(ours), around(theirs));
}

#[test]
fn the_wire_form_is_that_of_postfix_octet_by_octet() {
    let files = captured();
    assert!(files.len() >= 40, "{} queue files", files.len());
    for (name, path) in files {
        let file = fs::read(path.with_extension("queue")).unwrap();
        let (ours, breaks) = wire(&file[..], content_offset(&file), AS_IS).unwrap();
        let theirs = fs::read(path.with_extension("sent")).unwrap();
        assert_same(&dotted(&ours), &theirs, &name);
        assert_eq!(breaks > 0, has_broken_line(&theirs), "{name}");
    }
}

/// Whether a line as long as lines may be goes on in the next one, behind a blank.
fn has_broken_line(wire: &[u8]) -> bool {
    let lines: Vec<&[u8]> = wire.split(|&octet| octet == b'\n').collect();
    lines.windows(2).any(|pair| pair[0].len() == 998 + b"\r".len() && pair[1].starts_with(b" "))
}

#[test]
fn the_seven_bit_form_is_that_of_postfix_but_for_labels_that_lie() {
    for (name, path) in captured() {
        let file = fs::read(path.with_extension("queue")).unwrap();
        let (ours, _) = wire(&file[..], content_offset(&file), SEVEN_BIT).unwrap();
        let theirs = fs::read(path.with_extension("sent_7bit"));
        let mut theirs = theirs.unwrap_or_else(|_| fs::read(path.with_extension("sent")).unwrap());
        if ["mime_partial", "mime_delivery_status"].contains(&&*name) {
            let text = theirs.escape_ascii().to_string();
            let label = "Content-Transfer-Encoding: 7bit\\r\\n\\r\\n";
            assert_eq!(text.matches(label).count(), 1);
            let at = memchr::memmem::find(&theirs, b"7bit\r\n\r\n").unwrap();
            theirs.splice(at..at + 4, *b"quoted-printable");
        }
        assert_same(&dotted(&ours), &theirs, &name);
    }
}

/// The octets of one message, and how often a line was broken.
fn lines(limit: usize, pieces: &[(Text, &[u8])]) -> (Vec<u8>, u64) {
    let (mut lines, mut out) = (Lines::new(limit), Vec::new());
    for (text, piece) in pieces {
        lines.push(*text, piece, &mut out);
    }
    lines.finish(&mut out);
    (out, lines.breaks())
}

/// Postfix breaks lines and doubles dots in one go. Written down as a person would explain it: record by record,
/// with a column that counts down.
fn as_postfix_does(limit: usize, records: &[(Text, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut left) = (Vec::new(), limit);
    for (text, record) in records {
        let mut rest = &record[..];
        loop {
            if left == limit && rest.first() == Some(&b'.') {
                out.push(b'.');
            }
            if rest.len() < left {
                out.extend_from_slice(rest);
                left -= rest.len();
                if *text == Line {
                    out.extend_from_slice(b"\r\n");
                    left = limit;
                }
                break;
            }
            let (line, after) = rest.split_at(left);
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
            (left, rest) = (limit, after);
            if !rest.is_empty() || *text == Part {
                out.push(b' ');
                left -= 1;
            }
            if rest.is_empty() {
                break;
            }
        }
    }
    if records.last().is_some_and(|(text, _)| *text == Part) {
        out.extend_from_slice(b"\r\n");
    }
    out
}

proptest! {
    // What fails here belongs into a table, by hand, not into a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Dots are doubled where the line begins, and a line that goes on begins with a blank: so it does not matter
    /// that another does it, behind this.
    #[test]
    fn with_dots_doubled_behind_it_this_is_what_postfix_sends(
        records in prop::collection::vec((any::<bool>(), "[.a ]{0,12}"), 0..12),
        limit in 2..9_usize,
    ) {
        let record = |(is_line, text): &(bool, String)| (if *is_line { Line } else { Part }, text.clone().into_bytes());
        let records: Vec<_> = records.iter().map(record).collect();
        let pieces: Vec<_> = records.iter().map(|(text, piece)| (*text, &piece[..])).collect();
        let (wire, breaks) = lines(limit, &pieces);
        for line in wire.split(|&octet| octet == b'\n') {
            prop_assert!(line.strip_suffix(b"\r").unwrap_or(line).len() <= limit);
        }
        let (mut stuffing, mut out) = (DotStuffing::new(0), Vec::new());
        stuffing.push(&wire, &mut out);
        stuffing.finish(&mut out);
        prop_assert_eq!(out, [&as_postfix_does(limit, &records)[..], b".\r\n"].concat());
        let text: usize = pieces.iter().map(|(_, piece)| piece.len()).sum();
        let ends = wire.iter().filter(|&&octet| octet == b'\n').count();
        prop_assert_eq!(wire.len(), text + 2 * ends + usize::try_from(breaks).unwrap());
    }
}
