//! The message that is delivered at once: from standard input into a file that has no name.
//!
//! - Owns: what is read of the header, and what is left out of the content: Bcc with `-t`, the separator line of a mailbox
//!   file.
//! - Leaves to others: line ends and size (`spool`), addresses.
//! - Always true: nothing of it stays on disk when the process ends, however it ends.

use std::fs::File;
use std::io::{self, BufRead, Read};

use super::not_sent;
use crate::cli::sendmail::failure::{Code, Failure, of_message};
use crate::cli::sendmail::message::{Header, skip_separators};
use crate::cli::sendmail::options::Options;
use crate::mail::Address;
use crate::spool::{ContentError, Written, append_content};

/// A message that has come to its end.
#[derive(Debug)]
pub(super) struct Message {
    /// Its content in wire form, and nothing else.
    pub(super) file: File,
    pub(super) written: Written,
    /// Recipients that its header names, where they were asked for.
    pub(super) recipients: Vec<Address>,
    /// Whether its header has octets over 127, where that was asked for.
    pub(super) has_utf8_header: bool,
}

impl Message {
    /// Reads a message of at most `limit` octets, to the end of input.
    pub(super) fn read(input: &mut impl BufRead, options: &Options, limit: u64) -> Result<Self, Failure> {
        let (mut recipients, mut has_utf8_header) = (Vec::new(), false);
        let start = if options.recipients_from_header || options.smtputf8 {
            let bad = |error| not_sent(of_message(&error), error);
            let (mut header, body) = Header::read(input).map_err(bad)?;
            if options.recipients_from_header {
                recipients = header.recipients().map_err(bad)?;
                header.remove_bcc();
            }
            has_utf8_header = !header.is_ascii();
            // Where we read recipients from the header, others must see its end where we did: a Bcc behind that is text.
            let is_open = options.recipients_from_header && !body.is_empty();
            let divider: &[u8] = if is_open { b"\n" } else { b"" };
            [&header.as_it_came(), divider, &body].concat()
        } else {
            skip_separators(input)
                .map_err(|error| not_sent(Code::Io, format_args!("it cannot be read: {error}")))?
        };
        let mut file = tempfile::tempfile().map_err(|error| no_file("make", &error))?;
        let written =
            append_content(&mut file, &mut start.as_slice().chain(input), limit).map_err(bad_content)?;
        Ok(Self { file, written, recipients, has_utf8_header })
    }
}

fn bad_content(error: ContentError) -> Failure {
    match error {
        ContentError::Source(error) => not_sent(Code::Io, format_args!("it cannot be read: {error}")),
        ContentError::Disk(error) => no_file("write", &error),
        ContentError::TooLarge(limit) => {
            let text = format_args!("it is larger than the {limit} octets of message_size_limit");
            not_sent(Code::Unavailable, text)
        }
    }
}

/// Whatever is wrong with the directory for temporary files, the message is not at fault: who keeps mail on 75 keeps it.
fn no_file(doing: &str, error: &io::Error) -> Failure {
    let place = std::env::temp_dir();
    let text = format_args!("cannot {doing} a temporary file in {}: {error}", place.display());
    not_sent(Code::Temporary, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::BodyType;
    use std::io::{BufReader, Seek as _};

    fn read(text: &[u8], options: &Options) -> (Message, Vec<u8>) {
        // A pipe may give octets one by one.
        let mut input = BufReader::with_capacity(1, text);
        let mut message = Message::read(&mut input, options, 0).unwrap();
        let mut content = Vec::new();
        message.file.rewind().unwrap();
        message.file.read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, message.written.size);
        (message, content)
    }

    #[test]
    fn content_goes_out_as_it_came() {
        let extract = Options { recipients_from_header: true, ..Options::default() };
        for (text, content) in [
            ("", ""),
            ("To: a@x\nSubject: y\n\nbody\n.\n..\n", "To: a@x\r\nSubject: y\r\n\r\nbody\r\n.\r\n..\r\n"),
            ("To: a@x\r\n\r\nbody\r\n", "To: a@x\r\n\r\nbody\r\n"),
            ("From ann Sat\nTo: a@x\n\nFrom b\n", "To: a@x\r\n\r\nFrom b\r\n"),
            ("From ann", ""),
            ("From ann Sat\n>From bob Fri\nTo: a@x\n", "To: a@x\r\n"),
            ("From: ann@x\n", "From: ann@x\r\n"),
            ("To: a@x", "To: a@x\r\n"),
            ("\n\nblank lines\n", "\r\n\r\nblank lines\r\n"),
        ] {
            for options in [&Options::default(), &extract] {
                assert_eq!(String::from_utf8(read(text.as_bytes(), options).1).unwrap(), content, "{text:?}");
            }
        }
    }

    #[test]
    fn with_t_the_header_ends_for_others_where_it_ends_for_us() {
        let extract = Options { recipients_from_header: true, ..Options::default() };
        let text = b"To: a@x\nno field\nBcc: b@y\n\ntext\n";
        let (message, content) = read(text, &extract);
        assert_eq!(message.recipients.len(), 1);
        assert_eq!(content, b"To: a@x\r\n\r\nno field\r\nBcc: b@y\r\n\r\ntext\r\n");
        for (text, sent) in [
            ("Bcc: b@y\nX y\nBcc: c@z\n\n", "\r\nX y\r\nBcc: c@z\r\n\r\n"),
            ("no header\n", "\r\nno header\r\n"),
        ] {
            assert_eq!(read(text.as_bytes(), &extract).1, sent.as_bytes(), "{text:?}");
        }
        for text in ["Fro", "no header"] {
            assert_eq!(read(text.as_bytes(), &Options::default()).1, format!("{text}\r\n").as_bytes());
        }
        let (_, content) = read(text, &Options::default());
        assert_eq!(content, b"To: a@x\r\nno field\r\nBcc: b@y\r\n\r\ntext\r\n");
    }

    #[test]
    fn only_with_t_bcc_is_read_and_removed() {
        let text = b"To: a@x\nBcc: b@y,\n c\nSubject: z\n\nBcc: d\n";
        let extract = Options { recipients_from_header: true, ..Options::default() };
        let (message, content) = read(text, &extract);
        assert_eq!(content, b"To: a@x\r\nSubject: z\r\n\r\nBcc: d\r\n");
        let addresses: Vec<_> = message.recipients.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["a@x", "b@y", "c"]);
        let (message, content) = read(text, &Options::default());
        assert!(message.recipients.is_empty() && content.starts_with(b"To: a@x\r\nBcc: b@y,\r\n"));
    }

    #[test]
    fn octets_over_127_are_noticed_and_in_the_header_where_that_matters() {
        let utf8 = Options { smtputf8: true, ..Options::default() };
        for (text, body, has_utf8_header) in [
            ("Subject: z\n\nz\n", BodyType::SevenBit, false),
            ("Subject: z\n\n\u{e9}\n", BodyType::EightBitMime, false),
            ("Subject: \u{e9}\n\nz\n", BodyType::EightBitMime, true),
        ] {
            let (message, _) = read(text.as_bytes(), &utf8);
            assert_eq!((message.written.body, message.has_utf8_header), (body, has_utf8_header), "{text:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_not_sent() {
        let text = "Subject: z\n\n12345\n";
        for (limit, code) in [(21, None), (20, Some(69))] {
            let failure = Message::read(&mut text.as_bytes(), &Options::default(), limit).err();
            assert_eq!(failure.map(|failure| failure.code()), code, "{limit}");
        }
    }

    #[test]
    fn a_disk_that_fails_is_not_the_fault_of_the_message() {
        let error = || io::Error::from(rustix::io::Errno::IO);
        for (failure, code) in [
            (bad_content(ContentError::Disk(error())), 75),
            (bad_content(ContentError::Source(error())), 74),
            (bad_content(ContentError::TooLarge(7)), 69),
        ] {
            assert_eq!(failure.code(), code, "{failure}");
        }
    }
}
