//! The queue ID in the Received field of a submission.
//!
//! - Owns: the place that a submitter leaves for an ID in the field, and filling it in.
//! - Leaves to others: the field itself (`cli`), IDs (`submit`, `pickup`).
//! - Always true: the text grows by nothing, so that what was within the size limit stays there; a message that does not
//!   begin with such a field passes as it is.

use std::io::{self, Read};

use crate::mail::QueueId;

/// What stands for the ID while nobody knows it: an ID is the queue's to give. As long as one, and a comment for whoever
/// finds it unfilled.
pub const PENDING_ID: &str = "(not-yet-in-a-queue)";
/// What a field that is ours begins with.
const START: &[u8] = b"Received: by ";
/// What its second line begins with.
const PLACE: &[u8] = b"\tid ";
/// Octets in which the place stands: a host name and two numbers before it.
const FRONT_MAX: u64 = 1024;

/// Content with the ID in its place.
pub(super) struct Numbered<'a> {
    content: &'a mut dyn Read,
    id: QueueId,
    /// The beginning, once it was read, and how much of that was handed on.
    front: Option<Vec<u8>>,
    given: usize,
}

impl<'a> Numbered<'a> {
    /// Reads `content`.
    pub(super) fn new(content: &'a mut dyn Read, id: QueueId) -> Self {
        Self { content, id, front: None, given: 0 }
    }

    fn read_front(&mut self) -> io::Result<Vec<u8>> {
        let mut front = Vec::new();
        Read::take(&mut self.content, FRONT_MAX).read_to_end(&mut front)?;
        if let Some(at) = place(&front) {
            let id = self.id.as_str().bytes();
            // A short ID, as no queue gives any more, leaves blanks.
            let padded = id.chain(std::iter::repeat(b' '));
            front.iter_mut().skip(at).take(PENDING_ID.len()).zip(padded).for_each(|(to, from)| *to = from);
        }
        Ok(front)
    }
}

/// Where the placeholder stands in a message that begins like this.
fn place(front: &[u8]) -> Option<usize> {
    let line = front.starts_with(START).then(|| memchr::memchr(b'\n', front))?? + 1;
    let rest = front.get(line..)?.strip_prefix(PLACE)?;
    rest.starts_with(PENDING_ID.as_bytes()).then_some(line + PLACE.len())
}

impl Read for Numbered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.front.is_none() {
            self.front = Some(self.read_front()?);
        }
        let front = self.front.as_deref().unwrap_or_default();
        match front.get(self.given..) {
            Some(mut left) if !left.is_empty() => {
                let length = left.read(buffer)?;
                self.given += length;
                Ok(length)
            }
            _ => self.content.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(mut text: &[u8]) -> String {
        let mut out = Vec::new();
        Numbered::new(&mut text, QueueId::new(1, 2)).read_to_end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_id_stands_in_its_place_and_nothing_else_changes() {
        let id = QueueId::new(1, 2);
        assert_eq!(id.as_str().len(), PENDING_ID.len());
        let rest = format!("; Sat\r\nSubject: {PENDING_ID}\r\n\r\n{}", "x".repeat(5000));
        for end in ["\r\n", "\n"] {
            let field = |id: &str| format!("Received: by mx (lastmile, from userid 7){end}\tid {id}{rest}");
            assert_eq!(numbered(field(PENDING_ID).as_bytes()), field(id.as_str()));
            assert_eq!(numbered(field("ABC").as_bytes()), field("ABC"));
        }
        for text in [
            "",
            "Received: by mx",
            "Received: by mx\n\tid (not-yet",
            "Subject: x\r\n\tid (not-yet-in-a-queue); Sat\r\n",
            "Received: by mx; Sat\r\nX: y\r\n\tid (not-yet-in-a-queue); Sat\r\n",
        ] {
            assert_eq!(numbered(text.as_bytes()), text);
        }
        let far = format!("Received: by {}\n\tid {PENDING_ID}; Sat", "x".repeat(2000));
        assert_eq!(numbered(far.as_bytes()), far);
    }

    #[test]
    fn a_source_that_fails_is_not_taken_for_one_that_ends() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut source = b"Received: by mx".chain(Broken);
        let mut out = Vec::new();
        let error = Numbered::new(&mut source, QueueId::new(1, 2)).read_to_end(&mut out).unwrap_err();
        assert_eq!((error.kind(), out.len()), (io::ErrorKind::BrokenPipe, 0));
    }
}
