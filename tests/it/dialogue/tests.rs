//! Every dialogue, played; and the format and the peer, tried with a client that knows the dialogue by heart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use std::sync::Arc;

use lastmile::mail::{BodyType, Reason};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::client::Shipped;
use super::parse::parse_outcome;
use super::*;
use crate::support::dotted;

/// A connection of either kind.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A client that knows the dialogue by heart: it says the client's lines, checks the server's, and reports the
/// outcomes that are expected. It shows that a file can be played, and that the peer notices who departs from it.
struct Mirror {
    server: Server,
    dialogue: Dialogue,
    at: usize,
    stream: Option<Box<dyn Stream>>,
    is_encrypted: bool,
    form: String,
    offset: usize,
}

impl Mirror {
    fn new(setup: &Setup, dialogue: &Dialogue) -> Self {
        let (server, dialogue) = (setup.server.clone(), dialogue.clone());
        Self { server, dialogue, at: 0, stream: None, is_encrypted: false, form: String::new(), offset: 0 }
    }

    fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        match &self.server {
            Server::Unix(path) => Ok(Box::new(UnixStream::connect(path)?)),
            Server::Tcp { host, port } => Ok(Box::new(TcpStream::connect((host.as_str(), port.get()))?)),
        }
    }

    fn say(&mut self, octets: &[u8]) {
        self.stream.as_mut().expect("a connection").write_all(octets).unwrap();
    }

    fn step(&mut self, step: &Step, content: &[u8]) {
        match step {
            Step::Accept => {
                self.stream = Some(self.connect().unwrap());
                self.is_encrypted = false;
            }
            Step::Refuse => {}
            Step::Tls(_) => {
                let stream = self.stream.take().expect("a connection");
                self.stream = Some(Box::new(encrypted(stream)));
                self.is_encrypted = true;
            }
            Step::HearHello => self.say(&[22, 3, 1, 0, 1, 1]),
            Step::Hear(line) => {
                self.form.clone_from(line);
                if line.starts_with("MAIL ") {
                    self.offset = 0;
                }
                self.say(format!("{line}\r\n").as_bytes());
            }
            Step::HearMessage(octets) => {
                let message = match self.form.strip_prefix("BDAT ") {
                    None => dotted(content),
                    Some(rest) => {
                        let length: usize = rest.trim_end_matches(" LAST").parse().unwrap();
                        let chunk = content[self.offset..self.offset + length].to_vec();
                        self.offset += length;
                        chunk
                    }
                };
                self.say(&message[..octets.unwrap_or(message.len())]);
            }
            Step::HearClose { .. } => self.stream = None,
            Step::Say(octets) | Step::Drip(octets, _) => {
                let mut heard = vec![0; octets.len()];
                self.stream.as_mut().expect("a connection").read_exact(&mut heard).unwrap();
                assert_eq!(heard, *octets);
            }
            Step::Close | Step::BreakOff | Step::Reset => {
                let mut stream = self.stream.take().expect("a connection");
                if *step == Step::Reset {
                    stream.write_all(b"unread\r\n").unwrap();
                }
                let mut rest = Vec::new();
                let end = stream.read_to_end(&mut rest);
                let in_order = end.is_ok();
                assert!(rest.is_empty(), "{rest:?}");
                match step {
                    Step::Close => assert!(in_order, "{end:?}"),
                    Step::BreakOff => assert_eq!(in_order, !self.is_encrypted, "{end:?}"),
                    _ => assert!(!in_order, "the connection should be reset"),
                }
            }
            Step::Pause(time) => std::thread::sleep(*time),
            Step::Early | Step::AwaitGo | Step::TellReady => {}
        }
    }
}

/// TLS with whoever is there.
fn encrypted(stream: Box<dyn Stream>) -> StreamOwned<ClientConnection, Box<dyn Stream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
        .with_no_client_auth();
    let tls = ClientConnection::new(Arc::new(config), "peer.example".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(tls, stream);
    stream.flush().unwrap();
    stream
}

/// Believes any certificate: here the peer is tried, not a client.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Client for Mirror {
    fn deliver(&mut self, _: &Delivery) -> Vec<Became> {
        let transaction = self.dialogue.transactions[self.at].clone();
        self.at += 1;
        let is_last = self.at == self.dialogue.transactions.len();
        let end = if is_last { transaction.steps_to_deliver } else { transaction.steps.len() };
        for (_, step) in &transaction.steps[..end] {
            self.step(step, transaction.delivery.on_the_wire());
        }
        let outcome = |expected: &Expected| {
            let reason = Reason::local(expected.status, expected.text.clone().unwrap_or_default());
            let outcome = match expected.word.as_str() {
                "delivered" => Outcome::Delivered(reason),
                "deferred" | "in-doubt" => Outcome::Deferred(reason),
                _ => Outcome::Bounced(reason),
            };
            Became { address: expected.address.clone(), outcome, in_doubt: expected.word == "in-doubt" }
        };
        transaction.outcomes.iter().map(outcome).collect()
    }

    fn close(&mut self) {
        let transaction = self.dialogue.transactions[self.at - 1].clone();
        for (_, step) in &transaction.steps[transaction.steps_to_deliver..] {
            self.step(step, transaction.delivery.on_the_wire());
        }
        self.stream = None;
    }
}

#[test]
fn every_dialogue_can_be_played() {
    let failures = play_all(Mirror::new);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_client_plays_every_dialogue() {
    let failures = play_all(|setup, _| Shipped::new(setup));
    assert!(failures.is_empty(), "{} files differ:\n{}", failures.len(), failures.join("\n"));
}

const SHORT: &str = "\
@option pipelining no
@timeout rcpt 200ms
@notify b@example.org SUCCESS
S: 220 peer.example
C: LHLO client.example
S: 250 peer.example
C: MAIL FROM:<a@example.org>
S: 250 ok
C: DATA
S: 354 go
C: <message>
S: 250 2.0.0 stored
= b@example.org delivered 2.0.0 250 2.0.0 stored
--
@rested 2s
@sender <>
@content .\\r\\n\\xe9\\r\\n
S: 421 bye
S: <closes>
S: <accepts>
S: 220 again
C: BDAT 6 LAST
C: <message>
S: 250 stored
= c@example.org deferred 4.4.2 lost connection with H while sending MAIL FROM
C: QUIT
S: 221 bye
";

#[test]
fn a_file_describes_its_deliveries() {
    let dialogue = Dialogue::parse(SHORT).unwrap();
    assert_eq!(dialogue.setup.options, [("pipelining".to_owned(), "no".to_owned())]);
    assert_eq!(dialogue.setup.timeouts, [(Stage::Rcpt, Duration::from_millis(200))]);
    assert!(dialogue.setup.timeouts[0].1 < Setup::DEFAULT_TIMEOUT);
    assert_eq!(dialogue.setup.protocol, Protocol::Lmtp);
    let [first, second] = &dialogue.transactions[..] else { panic!("two transactions") };
    assert_eq!(first.delivery.content, b"Subject: hi\r\n\r\nhello\r\n");
    assert_eq!(first.delivery.envelope.size, 22);
    assert!(first.delivery.recipients[0].notify.on_success());
    assert_eq!(second.delivery.content, b".\r\n\xe9\r\n");
    assert_eq!(second.delivery.envelope.body, BodyType::EightBitMime);
    assert!(second.delivery.sender.is_null());
    assert_eq!(second.delivery.rested, Duration::from_secs(2));
    assert_eq!(second.delivery.recipients[0].address.to_string(), "c@example.org");
    play(&dialogue, |setup| Mirror::new(setup, &dialogue)).unwrap();
}

#[test]
fn the_peer_notices_who_departs_from_the_dialogue() {
    for (here, there, difference) in [
        ("LHLO client", "LHLO other", "line 5: expected \"LHLO client.example\", heard \"LHLO other"),
        ("C: DATA", "C: DATA\nC: NOOP", "line 10: the client did not wait for the answer"),
        ("@content .", "@content x", "line 23: the message differs at octet 0"),
        ("C: QUIT\nS: 221 bye", "C: <closes>", "line 26: expected \"QUIT\", but the client closed"),
        (
            "stored\n=",
            "stored\nC: QUIT\n=",
            "line 18: the client did not wait for the answer, and said \"QUIT",
        ),
        (
            "C: <message>\nS: 250 2",
            "C: <message 9>\nC: <closes>\nS: 250 2",
            "line 11: the client closed within",
        ),
    ] {
        let heard = departing(SHORT, here, there);
        assert!(heard.starts_with(difference), "{there}: {heard}");
    }
}

const SECURE: &str = "\
S: 220 peer.example
C: STARTTLS
S: 220 ready
S: <tls>
C: LHLO client.example
S: <pause 100ms>
S: 250 ok
C: NOOP
S: 250 ok
= b@example.org delivered 2.0.0
C: <closes>
";

#[test]
fn the_peer_notices_who_departs_from_it_over_tls() {
    for (here, there, difference) in [
        ("S: <tls>\n", "C: QUIT\n", "line 4: TLS: "),
        ("S: <tls>\n", "C: <closes>\n", "line 4: the client closed within the handshake"),
        ("LHLO client", "LHLO other", "line 5: expected \"LHLO client.example\", heard \"LHLO other"),
        (
            "S: <pause 100ms>\n",
            "S: <pause 20ms>\nC: RSET\n",
            "line 7: the client did not wait for the answer, and said \"RSET",
        ),
        ("C: NOOP\n", "C: <closes>\n", "line 8: expected \"NOOP\", but the client closed"),
        ("C: <closes>\n", "C: QUIT\n", "line 11: the client should close, and said \"QUIT"),
    ] {
        let heard = departing(SECURE, here, there);
        assert!(heard.starts_with(difference), "{there}: {heard}");
    }
    let dialogue = Dialogue::parse(SECURE).unwrap();
    play(&dialogue, |setup| Mirror::new(setup, &dialogue)).unwrap();
}

/// What the peer of `text` has to say of a client that takes `there` for `here`.
fn departing(text: &str, here: &str, there: &str) -> String {
    let dialogue = Dialogue::parse(text).unwrap();
    let mistaken = Dialogue::parse(&text.replacen(here, there, 1)).unwrap();
    // The mirror panics when it hears what it did not expect; the peer's account is what counts.
    let directory = tempfile::tempdir().unwrap();
    let contents = dialogue.transactions.iter().map(|t| t.delivery.content.clone()).collect();
    let server = Server::Unix(directory.path().join("s"));
    let certificates = Certificates::make(directory.path(), &["peer.example"]);
    let peer =
        ScriptedPeer::start_with(&server, peer_steps(&dialogue), contents, Some(certificates)).unwrap();
    let setup = Setup { server: peer.server().clone(), ..dialogue.setup.clone() };
    let mut mirror = Mirror::new(&setup, &mistaken);
    let played = catch_unwind(AssertUnwindSafe(|| {
        for number in 0..mistaken.transactions.len() {
            if number > 0 {
                peer.go_on();
            }
            mirror.deliver(&mistaken.transactions[number].delivery);
        }
        mirror.close();
    }));
    drop((mirror.stream.take(), played));
    peer.finish().unwrap_err().to_string()
}

#[test]
fn outcomes_are_compared_one_by_one() {
    let server = Server::Unix("/run/s".into());
    let text = "lost connection with peer.example[/run/s] while sending MAIL FROM";
    let lost = Outcome::Deferred(Reason::local("4.4.2".parse().unwrap(), text));
    let became = |in_doubt| Became { address: "b@x".parse().unwrap(), outcome: lost.clone(), in_doubt };
    for (expected, fits) in [
        ("b@x deferred 4.4.2 lost connection with H while sending MAIL FROM", true),
        ("b@x deferred 4.4.2", true),
        ("b@x in-doubt 4.4.2", false),
        ("b@x deferred 4.4.1", false),
        ("b@x bounced 5.4.2", false),
        ("b@x deferred 4.4.2 lost connection", false),
        ("c@x deferred 4.4.2", false),
    ] {
        let expected = [parse_outcome(1, expected).unwrap()];
        assert_eq!(compare(&expected, &[became(false)], &server).is_empty(), fits, "{expected:?}");
    }
    for (word, fits) in [("in-doubt", true), ("deferred", false)] {
        let expected = [parse_outcome(1, &format!("b@x {word} 4.4.2")).unwrap()];
        assert_eq!(compare(&expected, &[became(true)], &server).is_empty(), fits, "{word}");
    }
    let twice = [became(false), became(false)];
    assert!(!compare(&[parse_outcome(1, "b@x deferred 4.4.2").unwrap()], &twice, &server).is_empty());
    let tcp = Server::Tcp { host: "127.0.0.1".to_owned(), port: 24.try_into().unwrap() };
    assert_eq!(
        with_h("connect to h[127.0.0.1]:24: Connection refused", &tcp),
        "connect to P: Connection refused"
    );
    assert_eq!(with_h("host h[127.0.0.1] said: no", &tcp), "host H said: no");
}

#[test]
fn what_is_no_dialogue_is_refused_with_its_line() {
    for (text, line) in [
        ("S: 220 hi\nhello\n= b@x delivered 2.0.0", 2),
        ("C: <dances>\n= b@x delivered 2.0.0", 1),
        ("S: <dances>\n= b@x delivered 2.0.0", 1),
        ("@frobnicate\n= b@x delivered 2.0.0", 1),
        ("S: 220 hi\n@sender a@x\n= b@x delivered 2.0.0", 2),
        ("S: 220 hi\n= b@x delivered 4.0.0", 2),
        ("S: 220 hi\n= b@x exploded 4.0.0", 2),
        ("S: 220 hi", 1),
        ("@recipients b@x c@x\nS: 220 hi\n= b@x delivered 2.0.0", 3),
        ("S: 220 hi\n= b@x delivered 2.0.0\n= b@x delivered 2.0.0", 3),
        ("S: <partial>\\q\n= b@x delivered 2.0.0", 1),
        ("@timeout rcpt 5\n= b@x delivered 2.0.0", 1),
        ("@timeout lunch 5s\n= b@x delivered 2.0.0", 1),
        ("@origin a b c\n= b@x delivered 2.0.0", 1),
        ("@login tim\n= b@x delivered 2.0.0", 1),
        ("S: <tls rotten>\n= b@x delivered 2.0.0", 1),
        ("@body 7bit\n= b@x delivered 2.0.0", 1),
        ("@utf8 yes\n= b@x delivered 2.0.0", 1),
    ] {
        assert_eq!(Dialogue::parse(text).unwrap_err().0, line, "{text}");
    }
}
