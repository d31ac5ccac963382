//! STARTTLS, wrapper mode, and what rules do to a handshake, with a client on rustls.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::{HELLO, Running, codes, start};
use crate::sink::{Extension, Sink, SinkConfig, TlsConfig, TlsVersion};

const NAME: &str = "sink.example";

/// Certificates in a directory of their own.
pub(super) struct Files {
    pub directory: tempfile::TempDir,
}

impl Files {
    /// `server.pem` and `server.key`; `client.pem` and `client.key`, signed by `ca.pem`.
    pub fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        let server = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        write("server.pem", server.cert.pem());
        write("server.key", server.signing_key.serialize_pem());
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        write("ca.pem", authority.pem());
        let key = KeyPair::generate().unwrap();
        let client = CertificateParams::new(["client.example".to_owned()]).unwrap();
        write("client.pem", client.signed_by(&key, &authority).unwrap().pem());
        write("client.key", key.serialize_pem());
        Self { directory }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub fn tls(&self) -> TlsConfig {
        TlsConfig::new(self.path("server.pem"), self.path("server.key"))
    }

    /// A client that trusts the server, and shows its certificate if it is to.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], shows: bool) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.path("server.pem"))).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match shows {
            false => builder.with_no_client_auth(),
            true => {
                let key = PrivateKeyDer::from_pem_file(self.path("client.key")).unwrap();
                builder.with_client_auth_cert(vec![certificate(&self.path("client.pem"))], key).unwrap()
            }
        })
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

pub(super) const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// A client that says a line and reads the reply.
pub(super) struct Client<S: Read + Write>(BufReader<S>);

impl Client<UnixStream> {
    /// Connects, and hears the greeting.
    pub fn connect(running: &Running) -> Self {
        let mut client = Self(BufReader::new(running.connect()));
        assert!(client.hear().starts_with("220 "));
        client
    }

    /// Makes the handshake; what was read before is gone, as it must be.
    pub fn shake_hands(self, config: Arc<ClientConfig>) -> io::Result<Client<Tls>> {
        assert_eq!(self.0.buffer(), b"", "something came in clear");
        encrypt(self.0.into_inner(), config).map(|tls| Client(BufReader::new(tls)))
    }

    /// Greets, and goes over to TLS.
    pub fn start_tls(mut self, config: Arc<ClientConfig>) -> Client<Tls> {
        assert!(self.say("LHLO c").contains("STARTTLS"));
        assert_eq!(self.say("STARTTLS"), "220 2.0.0 ready to start TLS\n");
        self.shake_hands(config).unwrap()
    }
}

pub(super) type Tls = StreamOwned<ClientConnection, UnixStream>;

fn encrypt(mut stream: UnixStream, config: Arc<ClientConfig>) -> io::Result<Tls> {
    let mut tls = ClientConnection::new(config, NAME.try_into().unwrap()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(tls, stream))
}

impl<S: Read + Write> Client<S> {
    pub fn say(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n").as_bytes());
        self.hear()
    }

    pub fn write(&mut self, octets: &[u8]) {
        self.0.get_mut().write_all(octets).unwrap();
        self.0.get_mut().flush().unwrap();
    }

    /// One reply; less where the server closes within.
    pub fn hear(&mut self) -> String {
        let mut reply = String::new();
        while reply.lines().last().is_none_or(|line| line.as_bytes().get(3) == Some(&b'-')) {
            if self.0.read_line(&mut reply).unwrap() == 0 {
                break;
            }
        }
        reply.replace("\r\n", "\n")
    }

    /// What comes until the server closes; whether it said so.
    pub fn hear_all(&mut self) -> (String, bool) {
        let mut heard = Vec::new();
        let end = self.0.read_to_end(&mut heard);
        (String::from_utf8(heard).unwrap().replace("\r\n", "\n"), end.is_ok())
    }

    pub fn stream(&mut self) -> &mut S {
        self.0.get_mut()
    }
}

/// A server with a certificate, and a script.
fn start_with(files: &Files, script: &str, change: impl FnOnce(&mut SinkConfig)) -> Running {
    start(script, |config| {
        config.tls = Some(files.tls());
        change(config);
    })
}

const TRANSACTION: &[u8] = b"MAIL FROM:<s@x>\r\nRCPT TO:<a@x>\r\nBDAT 4 LAST\r\nhi\r\nQUIT\r\n";

#[test]
fn mail_arrives_over_each_version_of_tls() {
    let files = Files::make();
    for (version, name) in BOTH.iter().zip(["TLSv1.2", "TLSv1.3"]) {
        let running = start_with(&files, "", |config| {
            config.tls.as_mut().unwrap().versions = vec![name.parse().unwrap()];
        });
        let other = BOTH.iter().find(|other| other.version != version.version).unwrap();
        let mut refused = Client::connect(&running);
        refused.say("LHLO c");
        refused.say("STARTTLS");
        let error = refused.shake_hands(files.client(&[other], false)).map(drop).unwrap_err().to_string();
        assert!(error.contains("ProtocolVersion"), "{error}");
        let mut client = Client::connect(&running).start_tls(files.client(&[version], false));
        let hello = client.say("LHLO c");
        assert!(hello.contains("PIPELINING") && !hello.contains("STARTTLS"), "{hello}");
        client.write(TRANSACTION);
        let (heard, closed_in_order) = client.hear_all();
        assert_eq!(codes(&heard), ["250", "250", "250", "221"]);
        assert!(closed_in_order, "close_notify is missing");
        assert_eq!(running.mail_of("a@x"), ["hi\r\n"]);
        let counts = running.handle.stop();
        assert_eq!((counts.handshakes, counts.resumed), (1, 0), "{name}");
    }
}

#[test]
fn in_wrapper_mode_tls_comes_before_the_greeting() {
    let files = Files::make();
    let running = start_with(&files, "", |config| config.wrappermode = true);
    let config = files.client(BOTH, false);
    for resumed in [0, 1] {
        let mut client = Client(BufReader::new(encrypt(running.connect(), Arc::clone(&config)).unwrap()));
        assert_eq!(client.hear(), "220 sink.example LMTP sink\n");
        assert!(!client.say("LHLO c").contains("STARTTLS"));
        assert_eq!(client.say("STARTTLS"), "503 5.5.1 TLS has begun already\n");
        assert_eq!(codes(&client.say("QUIT")), ["221"]);
        assert_eq!(running.handle.counts().resumed, resumed);
    }
    let mut in_clear = running.connect();
    in_clear.write_all(b"LHLO c\r\nMAIL FROM:<>\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = in_clear.read_to_end(&mut heard);
    // An alert record, and no greeting.
    assert!(heard.starts_with(&[21, 3]), "{heard:?}");
    assert_eq!(running.handle.counts().transactions, 0);
}

#[test]
fn starttls_has_its_place() {
    let files = Files::make();
    for (offered, script, said, expected) in [
        (true, "", "STARTTLS\r\n", "503 5.5.1 say LHLO first\n"),
        (true, "", "LHLO c\r\nSTARTTLS x\r\n", "501 5.5.4 STARTTLS takes no parameters\n"),
        (true, "", "LHLO c\r\nMAIL FROM:<>\r\nSTARTTLS\r\n", "503 5.5.1 not within a transaction\n"),
        (true, "starttls 454 4.7.0 not today", "LHLO c\r\nSTARTTLS\r\n", "454 4.7.0 not today\n"),
        (false, "", "LHLO c\r\nSTARTTLS\r\n", "500 5.5.1 no such command here\n"),
    ] {
        let running = start_with(&files, script, |config| {
            if !offered {
                config.without = vec![Extension::StartTls];
            }
        });
        let mut client = Client::connect(&running);
        let mut last = String::new();
        for line in said.split_terminator("\r\n") {
            last = client.say(line);
            assert_eq!(last.contains("STARTTLS\n") && last.starts_with("250"), offered && line == "LHLO c");
        }
        assert_eq!(last.split_once(' ').unwrap().0, expected.split_once(' ').unwrap().0, "{said}");
        assert!(last.ends_with(expected.rsplit_once(' ').unwrap().1), "{last}");
        assert_eq!(codes(&client.say("NOOP")), ["250"], "the conversation goes on in clear");
    }
}

#[test]
fn what_was_said_in_clear_does_not_count() {
    let files = Files::make();
    let running = start_with(&files, "", |_| {});
    let mut client = Client::connect(&running).start_tls(files.client(BOTH, false));
    assert_eq!(client.say("MAIL FROM:<>"), "503 say LHLO first\n");
    // Behind STARTTLS in the same write: refused, and the connection with it.
    let mut client = Client::connect(&running);
    client.write(b"LHLO c\r\nSTARTTLS\r\nMAIL FROM:<>\r\n");
    let (heard, _) = client.hear_all();
    assert_eq!(codes(&heard), ["250", "501"]);
    // Behind the 220: that is no handshake.
    let mut client = Client::connect(&running);
    client.say("LHLO c");
    client.say("STARTTLS");
    client.write(b"LHLO c\r\nMAIL FROM:<>\r\n");
    let mut heard = Vec::new();
    let _ = client.stream().read_to_end(&mut heard);
    assert!(heard.starts_with(&[21, 3]), "{heard:?}");
    let counts = running.handle.stop();
    assert_eq!((counts.transactions, counts.handshakes), (0, 1));
}

#[test]
fn an_injected_line_leaves_with_the_220() {
    let files = Files::make();
    let running = start_with(&files, "starttls inject 250-sink.example\\n250 PIPELINING", |_| {});
    let mut client = Client::connect(&running);
    client.say("LHLO c");
    client.write(b"STARTTLS\r\n");
    let mut heard = [0; 1000];
    let length = client.stream().read(&mut heard).unwrap();
    let heard = std::str::from_utf8(&heard[..length]).unwrap();
    assert_eq!(heard, "220 2.0.0 ready to start TLS\r\n250-sink.example\r\n250 PIPELINING\r\n");
    // A client that throws it away gets its handshake.
    let mut client = client.shake_hands(files.client(BOTH, false)).unwrap();
    assert_eq!(codes(&client.say("LHLO c")), ["250"]);
}

#[test]
fn rules_break_handshakes() {
    let files = Files::make();
    let early = Duration::from_millis(100);
    for (script, error) in [
        ("handshake close", io::ErrorKind::UnexpectedEof),
        ("handshake close-after partial 0", io::ErrorKind::UnexpectedEof),
        ("handshake close-after partial 20", io::ErrorKind::UnexpectedEof),
        ("handshake close-after partial 300", io::ErrorKind::UnexpectedEof),
        ("handshake partial 300", io::ErrorKind::WouldBlock),
        ("handshake silence", io::ErrorKind::WouldBlock),
        ("handshake delay 1h", io::ErrorKind::WouldBlock),
        ("handshake garbage", io::ErrorKind::InvalidData),
    ] {
        let running = start_with(&files, script, |_| {});
        let mut client = Client::connect(&running);
        client.say("LHLO c");
        assert_eq!(codes(&client.say("STARTTLS")), ["220"], "{script}");
        client.stream().set_read_timeout(Some(early)).unwrap();
        let mut stream = client.0.into_inner();
        let mut tls = ClientConnection::new(files.client(BOTH, false), NAME.try_into().unwrap()).unwrap();
        let failed = loop {
            match tls.complete_io(&mut stream) {
                Ok(_) => assert!(tls.is_handshaking(), "{script}: the handshake succeeded"),
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(failed, error, "{script}");
        assert_eq!(running.handle.stop().handshakes, 0, "{script}");
    }
}

#[test]
fn a_slow_handshake_succeeds_in_the_end() {
    let files = Files::make();
    let running = start_with(&files, "handshake delay 5ms drip 200/1ms", |_| {});
    let mut client = Client::connect(&running).start_tls(files.client(BOTH, false));
    assert_eq!(codes(&client.say("LHLO c")), ["250"]);
}

#[test]
fn rules_close_within_a_message_with_and_without_a_word() {
    let files = Files::make();
    for (rule, in_order) in [("close", false), ("close-notify", true)] {
        for stage in ["mail", "content", "data-done"] {
            let running = start_with(&files, &format!("{stage} {rule}"), |_| {});
            let mut client = Client::connect(&running).start_tls(files.client(BOTH, false));
            client.write(HELLO.as_bytes());
            client.write(b"BDAT 4 LAST\r\nhi\r\n");
            let (heard, said_so) = client.hear_all();
            assert_eq!(said_so, in_order, "{stage} {rule}: {heard}");
            assert!(!heard.contains("stored"), "{heard}");
            assert_eq!(running.mail_of("a@x").len(), usize::from(stage == "data-done"), "{stage} {rule}");
        }
    }
}

#[test]
fn keys_can_change_within_a_conversation() {
    let files = Files::make();
    for version in BOTH {
        let running = start_with(&files, "mail rekey\nrcpt rekey 250 new keys", |_| {});
        let mut client = Client::connect(&running).start_tls(files.client(&[version], false));
        client.say("LHLO c");
        for _ in 0..5 {
            client.write(b"MAIL FROM:<s@x>\r\nRCPT TO:<a@x>\r\nBDAT 4 LAST\r\nhi\r\n");
            assert_eq!(client.hear(), "250 2.1.0 ok\n");
            assert_eq!(client.hear(), "250 new keys\n");
            assert_eq!(client.hear(), "250 2.0.0 <a@x> stored\n");
        }
        assert_eq!(running.mail_of("a@x").len(), 5);
    }
}

#[test]
fn a_large_message_streams_through_tls() {
    let files = Files::make();
    let running = start_with(&files, "", |_| {});
    let mut client = Client::connect(&running).start_tls(files.client(BOTH, false));
    let body = ("x".repeat(76) + "\r\n").repeat(20_000);
    client.write(HELLO.as_bytes());
    client.write(format!("BDAT {} LAST\r\n{body}QUIT\r\n", body.len()).as_bytes());
    assert_eq!(client.hear_all().0.matches("stored").count(), 2);
    assert_eq!(running.mail_of("b@x"), [body]);
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start() {
    let files = Files::make();
    let refused = |change: &dyn Fn(&mut SinkConfig)| {
        let mut config = SinkConfig::new("unix:/nonexistent/sink".parse().unwrap());
        config.tls = Some(files.tls());
        change(&mut config);
        Sink::start(config).map(drop).unwrap_err().to_string()
    };
    for (cert, key, ca, culprit, words) in [
        ("none.pem", "server.key", None, "none.pem", "No such file"),
        ("server.pem", "none.key", None, "none.key", "No such file"),
        ("server.pem", "server.pem", None, "server.pem", "no private key in PEM"),
        ("server.key", "server.key", None, "server.key", "no certificate in PEM"),
        ("server.pem", "client.key", None, "client.key", "KeyMismatch"),
        ("server.pem", "server.key", Some("server.key"), "server.key", "no certificate in PEM"),
    ] {
        let client_ca = ca.map(|ca| files.path(ca));
        let tls = TlsConfig { client_ca, ..TlsConfig::new(files.path(cert), files.path(key)) };
        let error = refused(&|config| config.tls = Some(tls.clone()));
        let expected = format!("cannot use {} for TLS: ", files.path(culprit).display());
        assert!(error.starts_with(&expected) && error.contains(words), "{error}");
    }
    let without = refused(&|config| (config.tls, config.wrappermode) = (None, true));
    assert_eq!(without, "wrapper mode needs a certificate");
    assert!(refused(&|_| {}).starts_with("cannot listen on"));
}

#[test]
fn versions_are_named_as_people_name_them() {
    for version in TlsVersion::ALL {
        assert_eq!(version.to_string().to_lowercase().parse(), Ok(version));
    }
    assert!("TLSv1.1".parse::<TlsVersion>().unwrap_err().contains("TLSv1.2 and TLSv1.3"));
}
