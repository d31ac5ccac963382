//! One conversation of the remembering server.
//!
//! - Owns: commands in, answers out, DATA and BDAT.
//! - Leaves to others: which answer (`server`, and the test).
//! - Always true: each accepted recipient has one answer after the end of the content; in ESMTP they share it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::server::{Answer, At, Command, Shared, Stage, Stream, Transaction};

/// Room for what one read brings: more than any socket holds, so that a flight is seen as one.
const READ_SIZE: usize = 256 << 10;
/// A command is shorter.
const LINE_MAX: usize = 64 * 1024;
/// How long a server that does not answer stays.
const SILENCE: Duration = Duration::from_secs(120);

/// Serves a connection. An error is the client's end of it, or ours.
pub(super) fn serve(shared: &Arc<Shared>, stream: impl Stream) {
    let mut conversation = Conversation {
        shared,
        stream,
        room: vec![0; READ_SIZE],
        input: Vec::new(),
        used: 0,
        transaction: None,
        chunks: Vec::new(),
        forwarded: Vec::new(),
        is_open: false,
        is_esmtp: false,
    };
    let _ = conversation.run();
}

struct Conversation<'a, S> {
    shared: &'a Shared,
    stream: S,
    /// Where reads go; made once.
    room: Vec<u8>,
    input: Vec<u8>,
    used: usize,
    /// The transaction that is open, by its place among all that was heard: a client that keeps its connection leaves
    /// one open until its next message.
    transaction: Option<usize>,
    /// What BDAT has brought of its content.
    chunks: Vec<u8>,
    forwarded: Vec<String>,
    /// MAIL was accepted.
    is_open: bool,
    /// The client said EHLO: one answer to the content speaks for all recipients.
    is_esmtp: bool,
}

/// The end of a conversation.
fn over<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// The address between `<` and `>`.
fn path(words: &str) -> String {
    let inner = words.split_once('<').map_or("", |(_, rest)| rest);
    inner.rsplit_once('>').map_or(inner, |(path, _)| path).to_owned()
}

impl<S: Stream> Conversation<'_, S> {
    fn run(&mut self) -> io::Result<()> {
        self.answer(Stage::Greeting, "", "220 store.example LMTP")?;
        loop {
            let is_pipelined = self.used < self.input.len();
            let line = self.line()?.escape_ascii().to_string();
            let command = Command { line: line.clone(), is_pipelined };
            self.shared.heard().commands.push(command);
            self.command(&line)?;
        }
    }

    fn command(&mut self, line: &str) -> io::Result<()> {
        let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let (_, words) = line.split_once(':').unwrap_or_default();
        match verb.as_str() {
            "LHLO" | "EHLO" => {
                self.is_esmtp = verb == "EHLO";
                let text =
                    std::iter::once("store.example").chain(self.shared.offers.iter().map(String::as_str));
                let lines: Vec<_> = text.collect();
                let (last, first) = lines.split_last().unwrap();
                let mut reply: String = first.iter().map(|line| format!("250-{line}\n")).collect();
                reply.push_str(&format!("250 {last}"));
                self.answer(Stage::Lhlo, "", &reply).map(drop)
            }
            "XFORWARD" => {
                self.forwarded.push(line.to_owned());
                self.answer(Stage::Xforward, "", "250 2.0.0 ok").map(drop)
            }
            "MAIL" => {
                let (mail, sender) = (words.to_owned(), path(words));
                let forwarded = std::mem::take(&mut self.forwarded);
                self.begin(Transaction { mail, sender, forwarded, ..Transaction::default() });
                self.is_open = self.answer(Stage::Mail, "", "250 2.1.0 ok")?;
                Ok(())
            }
            "RCPT" => self.recipient(words),
            "DATA" => self.data(),
            "BDAT" => self.chunk(line),
            "RSET" => {
                self.transaction = None;
                self.answer(Stage::Rset, "", "250 2.0.0 ok").map(drop)
            }
            "QUIT" => {
                self.answer(Stage::Quit, "", "221 2.0.0 bye")?;
                over()
            }
            _ => self.write("502 5.5.1 what?"),
        }
    }

    fn begin(&mut self, transaction: Transaction) {
        let mut heard = self.shared.heard();
        self.transaction = Some(heard.transactions.len());
        heard.transactions.push(transaction);
        self.chunks.clear();
    }

    /// Looks at the transaction that is open, or changes it.
    fn transaction<T>(&self, look: impl FnOnce(&mut Transaction) -> T) -> Option<T> {
        let at = self.transaction?;
        self.shared.heard().transactions.get_mut(at).map(look)
    }

    fn recipient(&mut self, words: &str) -> io::Result<()> {
        let address = path(words);
        self.transaction(|transaction| transaction.recipients.push(words.to_owned()));
        if !self.is_open {
            return self.write("503 5.5.1 MAIL first");
        }
        let reply = format!("250 2.1.5 {address} welcome");
        if self.answer(Stage::Rcpt, &address, &reply)? {
            self.transaction(|transaction| transaction.accepted.push(address));
        }
        Ok(())
    }

    fn accepted(&self) -> Vec<String> {
        self.transaction(|transaction| transaction.accepted.clone()).unwrap_or_default()
    }

    fn data(&mut self) -> io::Result<()> {
        if self.accepted().is_empty() {
            return self.write("503 5.5.1 nobody to send it to");
        }
        if !self.answer(Stage::Data, "", "354 go ahead")? {
            return Ok(());
        }
        self.answer(Stage::Content, "", "")?;
        let mut content = Vec::new();
        loop {
            let line = self.line()?;
            match line.strip_prefix(b".") {
                Some(b"") => break,
                Some(rest) => content.extend_from_slice(rest),
                None => content.extend_from_slice(&line),
            }
            content.extend_from_slice(b"\r\n");
        }
        self.finish(content)
    }

    fn chunk(&mut self, line: &str) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let Some(Ok(size)) = words.next().map(str::parse::<usize>) else { return over() };
        let is_last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        self.answer(Stage::Content, "", "")?;
        let octets = self.octets(size)?;
        if self.accepted().is_empty() {
            return self.write("503 5.5.1 nobody to send it to");
        }
        self.chunks.extend_from_slice(&octets);
        if is_last {
            let content = std::mem::take(&mut self.chunks);
            return self.finish(content);
        }
        self.write("250 2.0.0 more")
    }

    /// The message is whole: it counts as stored before any answer is written.
    fn finish(&mut self, content: Vec<u8>) -> io::Result<()> {
        let mut recipients = self.accepted();
        if self.is_esmtp {
            recipients.truncate(1);
        }
        let stored = self.transaction(|transaction| {
            transaction.content = Some(content);
            transaction.sender.clone()
        });
        let sender = stored.unwrap_or_default();
        self.transaction = None;
        for recipient in recipients {
            let reply = format!("250 2.0.0 {recipient} stored");
            self.answer_to(Stage::DataDone, &sender, &recipient, &reply)?;
        }
        Ok(())
    }

    fn answer(&mut self, stage: Stage, recipient: &str, usual: &str) -> io::Result<bool> {
        let sender = self.transaction(|transaction| transaction.sender.clone()).unwrap_or_default();
        self.answer_to(stage, &sender, recipient, usual)
    }

    /// Answers; whether what was asked for is done.
    fn answer_to(&mut self, stage: Stage, sender: &str, recipient: &str, usual: &str) -> io::Result<bool> {
        let at = At { stage, sender, recipient };
        let text = match (self.shared.answers)(&at) {
            Answer::Usual => usual.to_owned(),
            Answer::Say(text) => text,
            Answer::After(time) => {
                std::thread::sleep(time);
                usual.to_owned()
            }
            Answer::Held => {
                self.shared.pass();
                usual.to_owned()
            }
            Answer::Part(text) => {
                self.write(&text)?;
                return over();
            }
            Answer::Close => return over(),
            Answer::Silence => {
                std::thread::sleep(SILENCE);
                return over();
            }
        };
        if !text.is_empty() {
            self.write(&text)?;
        }
        Ok(text.is_empty() || text.starts_with(if stage == Stage::Data { '3' } else { '2' }))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let lines: String = text.split('\n').map(|line| format!("{line}\r\n")).collect();
        self.stream.write_all(lines.as_bytes())
    }

    fn more(&mut self) -> io::Result<()> {
        self.input.drain(..self.used);
        self.used = 0;
        let got = self.stream.read(&mut self.room)?;
        self.input.extend_from_slice(&self.room[..got]);
        if got == 0 { over() } else { Ok(()) }
    }

    /// The next line, without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let rest = &self.input[self.used..];
            if let Some(at) = memchr::memmem::find(rest, b"\r\n") {
                let line = rest[..at].to_vec();
                self.used += at + 2;
                return Ok(line);
            }
            if rest.len() > LINE_MAX {
                return over();
            }
            self.more()?;
        }
    }

    fn octets(&mut self, size: usize) -> io::Result<Vec<u8>> {
        while self.input.len() - self.used < size {
            self.more()?;
        }
        let octets = self.input[self.used..self.used + size].to_vec();
        self.used += size;
        Ok(octets)
    }
}
