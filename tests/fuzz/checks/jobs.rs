//! Job lines, and the reader that cuts a stream into them.

use lastmile::queue::job::{JobLine, LINE_LENGTH_MAX, escape_for_log};
use lastmile::queue::line_reader::{LineReader, TooLong};

use super::{PIECES, addresses, assert_short};

/// A line that parses reads back as it is printed, and names nothing outside of the queue; one that does not is
/// told in a short sentence.
pub fn job_line(input: &[u8]) {
    let shown = escape_for_log(input);
    assert!(shown.len() <= 4 * 200 + 3 && shown.bytes().all(|b| (b' '..=b'~').contains(&b)), "{shown:?}");
    let job = match JobLine::parse(input) {
        Ok(job) => job,
        Err(error) => return assert_short(&error.to_string()),
    };
    let file = file_of(&job);
    // In a member that nobody knows, or that does not count, even octets that are no text mean nothing.
    if let Ok(said) = serde_json::from_slice::<serde_json::Value>(input) {
        assert_eq!(said["queue_file"].as_str(), Some(&*file));
        let recipients = said["recipients"].as_array().map(Vec::len);
        assert!(!matches!(&job, JobLine::Submission(it) if Some(it.recipients.len()) != recipients));
    }
    if let JobLine::Submission(submission) = &job {
        assert!(!submission.recipients.is_empty());
        submission.recipients.iter().for_each(|recipient| addresses::check(&recipient.address));
        submission.sender.address().into_iter().for_each(addresses::check);
    }
    let line = job.to_line();
    let object = line.strip_prefix(b"\n").and_then(|line| line.strip_suffix(b"\n")).expect("between two LF");
    assert!(!object.contains(&b'\n') && !object.contains(&0), "a job would be torn: {job:?}");
    // Printing may quote more than the writer did.
    if object.len() <= LINE_LENGTH_MAX {
        assert_eq!(JobLine::parse(object).as_ref(), Ok(&job));
    }
    assert_eq!(JobLine::parse(object).map_or_else(|_| line.clone(), |again| again.to_line()), line);
}

/// The file that a job names, which has to stay where it is said to be.
fn file_of(job: &JobLine) -> String {
    let (folder, name) = match job {
        JobLine::QueueFile(id) => ("active", id.as_str()),
        JobLine::Incoming(name) => ("incoming", name.as_str()),
        JobLine::Submission(submission) => ("incoming", submission.file.as_str()),
    };
    assert!(
        (1..=64).contains(&name.len()) && !name.starts_with('.') && !name.contains(['/', '\0']),
        "{name:?}"
    );
    format!("{folder}/{name}")
}

/// Octets that stand for one octet 255 of the input: enough of them make a line too long.
const STRETCH: usize = LINE_LENGTH_MAX / 2 - 1;
/// Octets 255 that are stretched; more stand for themselves.
const STRETCHED_MAX: usize = 4;

/// The lines are those between the LF, whatever the pieces; one that is too long takes no other with it.
pub fn line_reader(input: &[u8]) {
    let stream = stretched(input);
    let expected = slow_lines(&stream);
    let kept: usize = expected.iter().flatten().map(Vec::len).sum();
    assert!(kept <= stream.len());
    for size in PIECES.into_iter().chain([1 << 16, stream.len().max(1)]) {
        // Pushing a long stream octet by octet takes long and tells nothing more.
        if stream.len() <= 5000 * size {
            assert_eq!(read(stream.chunks(size)), expected, "in pieces of {size}");
        }
    }
    // Cut right before and right behind each LF.
    assert_eq!(read(stream.split_inclusive(|&octet| octet == b'\n')), expected);
    let behind = stream.split(|&octet| octet == b'\n').flat_map(|line| [line, b"\n"]);
    let count = stream.iter().filter(|&&octet| octet == b'\n').count();
    assert_eq!(read(behind.take(2 * count)), expected);
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Result<Vec<u8>, TooLong>> {
    let (mut reader, mut lines) = (LineReader::new(), Vec::new());
    for piece in pieces {
        reader.push(piece);
        while let Some(line) = reader.next() {
            assert!(line.as_ref().is_ok_and(|line| line.len() <= LINE_LENGTH_MAX) || line.is_err());
            lines.push(line);
        }
    }
    lines
}

fn slow_lines(stream: &[u8]) -> Vec<Result<Vec<u8>, TooLong>> {
    let mut lines: Vec<&[u8]> = stream.split(|&octet| octet == b'\n').collect();
    // What has no LF behind it has not ended.
    lines.pop();
    let judged = lines.into_iter().filter(|line| !line.is_empty());
    judged.map(|line| if line.len() > LINE_LENGTH_MAX { Err(TooLong) } else { Ok(line.to_vec()) }).collect()
}

fn stretched(input: &[u8]) -> Vec<u8> {
    let (mut stream, mut left) = (Vec::with_capacity(input.len()), STRETCHED_MAX);
    for &octet in input {
        if octet == 0xff && left > 0 {
            left -= 1;
            stream.resize(stream.len() + STRETCH, b'x');
        } else {
            stream.push(octet);
        }
    }
    stream
}
