//! The control socket: questions and answers, both ways.

use std::io::{self, BufReader, Read};
use std::time::{Duration, Instant};

use lastmile::agent::queue_control::{
    ContentReader, Line, Request, WrittenContent, read_line, read_request, write_content, write_line,
};

use super::{PIECES, addresses, assert_short};

/// Questions that are read of one input.
const QUESTIONS_MAX: usize = 100;

/// What a client has said, up to where it stops making sense.
#[derive(Debug, PartialEq)]
enum Said {
    Question(Request),
    Content(Vec<u8>),
    /// A sentence for the client; the connection ends.
    Refused,
    /// Something is missing at the end, or a piece of content has no length.
    Broken(io::ErrorKind),
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Questions mean the same however they arrive, take no more memory than they have octets, and read back as they are
/// printed.
pub fn request(input: &[u8]) {
    let whole = hear(&mut BufReader::with_capacity(1 << 20, input));
    for size in PIECES {
        assert_eq!(hear(&mut BufReader::with_capacity(size, input)), whole, "with a buffer of {size}");
    }
    for said in &whole {
        match said {
            Said::Question(question) => check_question(question),
            Said::Content(content) => check_content(content, input.len()),
            Said::Refused | Said::Broken(_) => {}
        }
    }
}

fn hear(reader: &mut BufReader<&[u8]>) -> Vec<Said> {
    let mut heard = Vec::new();
    while heard.len() < QUESTIONS_MAX {
        let question = match read_request(reader, far_away()) {
            Ok(None) => break,
            Ok(Some(Ok(question))) => question,
            Ok(Some(Err(sentence))) => {
                assert_short(&sentence);
                heard.push(Said::Refused);
                break;
            }
            Err(error) => {
                heard.push(Said::Broken(error.kind()));
                break;
            }
        };
        let has_content = matches!(question, Request::Submit(_));
        heard.push(Said::Question(question));
        if !has_content {
            continue;
        }
        let mut content = Vec::new();
        match ContentReader::new(reader, far_away()).read_to_end(&mut content) {
            Ok(_) => heard.push(Said::Content(content)),
            Err(error) => {
                heard.push(Said::Broken(error.kind()));
                break;
            }
        }
    }
    heard
}

fn check_question(question: &Request) {
    let mut line = serde_json::to_vec(question).unwrap();
    assert!(!line.contains(&b'\n'));
    line.push(b'\n');
    let again = read_request(&mut &line[..], far_away()).unwrap().unwrap();
    assert_eq!(again.as_ref(), Ok(question));
    if let Request::Submit(submission) = question {
        let draft = submission.clone().into_draft("uid=1".to_owned());
        assert_eq!(draft.recipients.len(), submission.recipients.len());
        draft.recipients.iter().for_each(|recipient| addresses::check(&recipient.address));
        assert!(draft.recipients.iter().zip(0..).all(|(recipient, at)| recipient.position == at));
    }
}

fn check_content(content: &[u8], read: usize) {
    assert!(content.len() <= read);
    let mut written = Vec::new();
    let mut source = content;
    assert!(matches!(write_content(&mut written, &mut source), Ok(WrittenContent::Whole)));
    for size in PIECES {
        let mut reader = BufReader::with_capacity(size, &written[..]);
        let mut again = Vec::new();
        ContentReader::new(&mut reader, far_away()).read_to_end(&mut again).unwrap();
        assert_eq!(again, content);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "something is left behind the content");
    }
}

/// Answers take no more memory than they have octets, and read back as they are printed.
pub fn answer(input: &[u8]) {
    let whole = listen(&mut BufReader::with_capacity(1 << 20, input));
    for size in PIECES {
        assert_eq!(listen(&mut BufReader::with_capacity(size, input)), whole, "with a buffer of {size}");
    }
    let mut written = Vec::new();
    for line in &whole {
        if let Line::Content { octets, data } = line {
            assert_eq!(data.len() as u64, *octets);
            assert!(
                data.len() <= input.len() && data.capacity() <= 4 * input.len() + 64,
                "{}",
                data.capacity()
            );
        }
        write_line(&mut written, line).unwrap();
    }
    assert_eq!(listen(&mut &written[..]), whole);
}

fn listen(reader: &mut impl io::BufRead) -> Vec<Line> {
    let mut lines = Vec::new();
    loop {
        match read_line(reader) {
            Ok(line) => lines.push(line),
            Err(error) => {
                assert_short(&error.to_string());
                return lines;
            }
        }
    }
}
