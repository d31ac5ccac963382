//! A message's content on its way in: in memory while it is small, then in a Maildir's `tmp`.
//!
//! - Owns: what has arrived so far, the size limit, the unfinished file.
//! - Leaves to others: where the content ends (`receive`), who gets it (`session`).
//! - Always true: at most [`MEMORY_MAX`] octets and one read are in memory; an unfinished file does not outlive its
//!   content.

use std::fs;
use std::io::{self, Write as _};

use super::maildir::{Maildirs, Unfinished};
use crate::mail::Address;

/// Octets that are kept in memory before they are written.
const MEMORY_MAX: usize = 64 * 1024;

/// The content of one message.
#[derive(Debug)]
pub(super) struct Content<'a> {
    maildirs: Option<&'a Maildirs>,
    first: Address,
    limit: u64,
    size: u64,
    memory: Vec<u8>,
    unfinished: Option<Unfinished>,
    failure: Option<io::Error>,
}

impl<'a> Content<'a> {
    /// Nothing yet. Without `maildirs` the content is only counted. `first` lends its `tmp`.
    pub fn new(maildirs: Option<&'a Maildirs>, first: Address, limit: u64) -> Self {
        Self { maildirs, first, limit, size: 0, memory: Vec::new(), unfinished: None, failure: None }
    }

    /// Octets that have arrived, kept or not.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it has outgrown the limit; then nothing is kept.
    pub fn is_too_large(&self) -> bool {
        self.size > self.limit
    }

    /// Takes what has arrived. A disk that fails is reported by [`Content::deliver`], when a reply is due.
    pub fn push(&mut self, octets: &[u8]) {
        self.size = self.size.saturating_add(octets.len() as u64);
        if self.maildirs.is_none() || self.is_too_large() || self.failure.is_some() {
            return;
        }
        self.memory.extend_from_slice(octets);
        if self.memory.len() > MEMORY_MAX
            && let Err(error) = self.write_out()
        {
            self.failure = Some(error);
        }
    }

    /// Writes what is in memory to the unfinished file.
    fn write_out(&mut self) -> io::Result<()> {
        let Some(maildirs) = self.maildirs else { return Ok(()) };
        if self.unfinished.is_none() {
            self.unfinished = Some(maildirs.create(&self.first)?);
        }
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.file.write_all(&self.memory)?;
        }
        self.memory.clear();
        Ok(())
    }

    /// Puts the content into the recipient's Maildir; `is_last` spares a link where nobody comes after.
    pub fn deliver(&mut self, recipient: &Address, is_last: bool) -> io::Result<()> {
        let Some(maildirs) = self.maildirs else { return Ok(()) };
        if let Some(failure) = &self.failure {
            return Err(io::Error::new(failure.kind(), failure.to_string()));
        }
        if self.unfinished.is_none() || !self.memory.is_empty() {
            self.write_out()?;
        }
        let Some(unfinished) = &self.unfinished else { return Ok(()) };
        if !is_last {
            return maildirs.link(&unfinished.path, recipient);
        }
        maildirs.rename(&unfinished.path, recipient)?;
        self.unfinished = None;
        Ok(())
    }
}

impl Drop for Content<'_> {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished
            && let Err(error) = fs::remove_file(&unfinished.path)
        {
            log::warn!("cannot remove the unfinished file {}: {error}; it stays", unfinished.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::maildir_name;

    fn files(directory: &std::path::Path) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn every_recipient_gets_the_whole_content_and_tmp_ends_empty() {
        let directory = tempfile::tempdir().unwrap();
        let maildirs = Maildirs::open(directory.path(), "h").unwrap();
        let [a, b]: [Address; 2] = ["a@x", "b@x"].map(|text| text.parse().unwrap());
        for (size, is_last) in [(10, true), (10, false), (MEMORY_MAX * 3, true), (0, true)] {
            let mut content = Content::new(Some(&maildirs), a.clone(), 1 << 30);
            for chunk in vec![b'x'; size].chunks(1000) {
                content.push(chunk);
            }
            content.deliver(&a, false).unwrap();
            content.deliver(&b, is_last).unwrap();
            drop(content);
            for address in [&a, &b] {
                let maildir = directory.path().join(maildir_name(address));
                assert_eq!(files(&maildir.join("tmp")), Vec::<Vec<u8>>::new());
                assert_eq!(files(&maildir.join("new")), [vec![b'x'; size]]);
            }
            for address in [&a, &b] {
                fs::remove_dir_all(directory.path().join(maildir_name(address))).unwrap();
            }
        }
    }

    #[test]
    fn nothing_is_left_of_a_message_nobody_took() {
        let directory = tempfile::tempdir().unwrap();
        let maildirs = Maildirs::open(directory.path(), "h").unwrap();
        let mut content = Content::new(Some(&maildirs), "a@x".parse().unwrap(), 100_000);
        content.push(&[b'x'; 90_000]);
        content.push(&[b'x'; 90_000]);
        assert!(content.is_too_large());
        assert_eq!(files(&directory.path().join("a@x/tmp")).len(), 1);
        drop(content);
        assert_eq!(files(&directory.path().join("a@x/tmp")).len(), 0);
    }
}
