//! Files that are right, and all that can be wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::config::{Config, Sources};
use crate::smtp::Proof;

/// What nobody may ever see.
const CANARY: &str = "canary-93c1";

/// A directory with files, and a transport that names them.
struct Files {
    directory: TempDir,
    options: Vec<String>,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), options: Vec::new() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Writes a file that its owner alone may read.
    fn write(&self, name: &str, content: &str) -> String {
        self.write_with(name, content, 0o600)
    }

    fn write_with(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.path(name);
        // Another file, so that no mode of an older one stands in the way.
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn set(&mut self, key: &str, value: &str) {
        self.options.push(format!("transport.smtp.{key}={value}"));
    }

    /// A file for a key, not private.
    fn give(&mut self, key: &str, content: &str) {
        let path = self.write_with(key, content, 0o644);
        self.set(key, &path);
    }

    fn passwords(&mut self, table: &str) {
        let path = self.write("passwords", table);
        self.set("sasl_auth_enable", "yes");
        self.set("sasl_password_maps", &format!("texthash:{path}"));
    }

    fn load(&self) -> Config {
        let sources = Sources {
            file: Some("/dev/null".into()),
            environment: Vec::new(),
            overrides: self.options.clone(),
        };
        Config::load(&sources).unwrap()
    }

    fn open(&self) -> Transport {
        let config = self.load().open_secrets().unwrap();
        Transport::clone(config.transport(&"smtp".parse().unwrap()).unwrap())
    }

    /// What is wrong, with `DIR` for the directory.
    fn said(&self) -> Vec<String> {
        let error = self.load().open_secrets().unwrap_err();
        let directory = self.directory.path().display().to_string();
        error.problems().iter().map(|problem| problem.to_string().replace(&directory, "DIR")).collect()
    }
}

struct Made {
    certificate: String,
    key: String,
}

fn made(name: &str) -> Made {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    Made { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn server(host: &str) -> Server {
    Server::Tcp { host: host.to_owned(), port: 587.try_into().unwrap() }
}

#[test]
fn everything_that_is_named_is_read() {
    let (authority, other, own) = (made("ca"), made("other"), made("us"));
    let mut files = Files::new();
    files.give("tls_CAfile", &authority.certificate);
    fs::create_dir(files.path("ca")).unwrap();
    files.write_with("ca/1234abcd.0", &format!("a comment\n{}", other.certificate), 0o644);
    files.write_with("ca/again.pem", &other.certificate, 0o644);
    files.write_with("ca/README", "no certificate", 0o644);
    let directory = files.path("ca");
    files.set("tls_CApath", &directory);
    files.give("tls_cert_file", &format!("{}{}", own.certificate, authority.certificate));
    let key = files.write("key", &own.key);
    files.set("tls_key_file", &key);
    files.passwords(&format!("relay.example {CANARY}:p\n"));
    let secrets = files.open().secrets;
    assert_eq!(secrets.roots().unwrap().len(), 2);
    assert_eq!(secrets.identity().unwrap().cert.len(), 2);
    assert_eq!(secrets.credentials(&server("relay.example")).unwrap().unwrap().username, CANARY);
    assert_eq!(secrets.credentials(&server("elsewhere")), Ok(None));
    assert_eq!(format!("{secrets:?}"), "Secrets { .. }");
}

#[test]
fn without_files_there_are_no_secrets_and_with_one_for_both_there_is_an_identity() {
    let secrets = Files::new().open().secrets;
    assert!(secrets.roots().is_none() && secrets.identity().is_none());
    assert_eq!(secrets.credentials(&server("relay.example")), Ok(None));
    let own = made("us");
    let mut files = Files::new();
    let path = files.write("both", &format!("{}{}", own.key, own.certificate));
    files.set("tls_cert_file", &path);
    assert_eq!(files.open().secrets.identity().unwrap().cert.len(), 1);
}

#[test]
fn a_table_is_not_opened_where_nobody_logs_in() {
    let mut files = Files::new();
    files.set("sasl_password_maps", "texthash:/nonexistent");
    assert_eq!(files.open().secrets.credentials(&server("relay.example")), Ok(None));
}

#[test]
fn what_is_wrong_with_certificates_and_keys_is_said() {
    let (own, other) = (made("us"), made("other"));
    let broken = own.certificate.replace("-----END", "-----");
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let key_in_ec = "-----BEGIN PRIVATE KEY-----\ncanary-93c1\n-----END PRIVATE KEY-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old_encrypted =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let unknown = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (certificate, key, said) in [
        ("", &*own.key, &["tls_cert_file: DIR/cert: there is no certificate in PEM in it"][..]),
        (&*own.key, &own.key, &["tls_cert_file: DIR/cert: there is no certificate in PEM in it"]),
        (&broken, &own.key, &["tls_cert_file: DIR/cert: it is no PEM: one of its sections has no END line"]),
        (damaged, &own.key, &["tls_cert_file: DIR/cert: its first certificate cannot be understood"]),
        (&own.certificate, "", &["tls_key_file: DIR/key: there is no private key in PEM in it"]),
        (&own.certificate, CANARY, &["tls_key_file: DIR/key: there is no private key in PEM in it"]),
        (
            &own.certificate,
            key_in_ec,
            &["tls_key_file: DIR/key: it is no PEM: one of its sections is not base64"],
        ),
        (
            &own.certificate,
            encrypted,
            &[
                "tls_key_file: DIR/key: the key in it is encrypted, and nobody is there to type its passphrase",
            ],
        ),
        (
            &own.certificate,
            old_encrypted,
            &[
                "tls_key_file: DIR/key: the key in it is encrypted, and nobody is there to type its passphrase",
            ],
        ),
        (
            &own.certificate,
            unknown,
            &[
                "tls_key_file: DIR/key: its key is of no kind that can be used: RSA (2048 to 8192 bits), ECDSA P-256 or \
               P-384, or Ed25519",
            ],
        ),
        (
            &own.certificate,
            &other.key,
            &["tls_key_file: DIR/key: the key in it is not that of the certificate in DIR/cert"],
        ),
        (
            CANARY,
            CANARY,
            &[
                "tls_cert_file: DIR/cert: there is no certificate in PEM in it",
                "tls_key_file: DIR/key: there is no private key in PEM in it",
            ],
        ),
    ] {
        let mut files = Files::new();
        let path = files.write_with("cert", certificate, 0o644);
        files.set("tls_cert_file", &path);
        let path = files.write("key", key);
        files.set("tls_key_file", &path);
        let expected: Vec<_> = said.iter().map(|said| format!("transport.smtp.{said}")).collect();
        assert_eq!(files.said(), expected, "{certificate:.40} and {key:.40}");
    }
}

#[test]
fn what_is_wrong_with_authorities_is_said() {
    let authority = made("ca");
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let half = format!("{}{damaged}", authority.certificate);
    for (content, what) in [
        ("", "there is no certificate in PEM in it"),
        ("no PEM", "there is no certificate in PEM in it"),
        (damaged, "1 of its 1 certificates cannot be understood"),
        (&half, "1 of its 2 certificates cannot be understood"),
        ("-----BEGIN CERTIFICATE-----\n", "it is no PEM: one of its sections has no END line"),
    ] {
        let mut files = Files::new();
        files.give("tls_CAfile", content);
        assert_eq!(
            files.said(),
            [format!("transport.smtp.tls_CAfile: DIR/tls_CAfile: {what}")],
            "{content:.40}"
        );
    }
    let mut files = Files::new();
    fs::create_dir(files.path("ca")).unwrap();
    files.write_with("ca/README", damaged, 0o644);
    let directory = files.path("ca");
    files.set("tls_CApath", &directory);
    let none = "transport.smtp.tls_CApath: DIR/ca: there is no certificate in PEM in any of its files";
    assert_eq!(files.said(), [none]);
    files.set("tls_CApath", &format!("{directory}/none"));
    assert_eq!(
        files.said(),
        ["transport.smtp.tls_CApath: DIR/ca/none: it cannot be read: No such file or directory (os error 2)"]
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let mut files = Files::new();
    files.set("tls_CAfile", "/nonexistent/ca");
    files.set("tls_cert_file", "/nonexistent/cert");
    let path = files.write_with("key", CANARY, 0o644);
    files.set("tls_key_file", &path);
    files.passwords(&format!("{CANARY}\nrelay {CANARY}\n"));
    files.options.push("transport.lmtp.tls_CApath=$CREDENTIALS_DIRECTORY/ca".to_owned());
    let none = "it cannot be read: No such file or directory (os error 2)";
    assert_eq!(
        files.said(),
        [
            "transport.lmtp.tls_CApath: $CREDENTIALS_DIRECTORY/ca: the variable CREDENTIALS_DIRECTORY is not set; \
             systemd sets it for a service with LoadCredential"
                .to_owned(),
            format!("transport.smtp.tls_CAfile: /nonexistent/ca: {none}"),
            format!("transport.smtp.tls_cert_file: /nonexistent/cert: {none}"),
            "transport.smtp.tls_key_file: DIR/key: everybody may read it (mode 0644), and it holds secrets: chmod o-r \
             DIR/key"
                .to_owned(),
            "transport.smtp.sasl_password_maps: DIR/passwords: line 1 has no name and password behind the server"
                .to_owned(),
            "transport.smtp.sasl_password_maps: DIR/passwords: line 2 has no colon: username:password is needed"
                .to_owned(),
        ]
    );
}

#[test]
fn a_key_and_a_table_that_everybody_may_read_are_refused() {
    let own = made("us");
    let mut files = Files::new();
    let path = files.write_with("both", &format!("{}{}", own.key, own.certificate), 0o604);
    files.set("tls_cert_file", &path);
    files.passwords("relay a:b\n");
    files.write_with("passwords", "relay a:b\n", 0o666);
    let cure = "and it holds secrets: chmod o-r DIR";
    assert_eq!(
        files.said(),
        [
            format!("transport.smtp.tls_cert_file: DIR/both: everybody may read it (mode 0604), {cure}/both"),
            format!(
                "transport.smtp.sasl_password_maps: DIR/passwords: everybody may read it (mode 0666), {cure}/passwords"
            ),
        ]
    );
}

#[test]
fn a_certificate_without_its_key_is_told_what_is_missing_before_its_mode() {
    let (own, other) = (made("us"), made("other"));
    let missing = "; without tls_key_file the private key must stand in it, too: set tls_key_file";
    let broken = own.certificate.replace("-----END", "-----");
    let open = "everybody may read it (mode 0644), and it holds secrets: chmod o-r DIR/both";
    let foreign = format!("{}{}", own.certificate, other.key);
    let damaged = own.key.replace("-----END", "-----");
    for (content, mode, what) in [
        (&*own.certificate, 0o644, &*format!("there is no private key in PEM in it{missing}")),
        (&own.certificate, 0o600, &format!("there is no private key in PEM in it{missing}")),
        ("\x30\x03in DER", 0o644, &format!("there is no certificate in PEM in it{missing}")),
        (&broken, 0o644, &format!("it is no PEM: one of its sections has no END line{missing}")),
        (&own.key, 0o644, open),
        (&damaged, 0o644, open),
        (&own.key, 0o600, "there is no certificate in PEM in it"),
        (&damaged, 0o600, "it is no PEM: one of its sections has no END line"),
        (&foreign, 0o600, "the key in it is not that of the certificate in DIR/both"),
    ] {
        let mut files = Files::new();
        let path = files.write_with("both", content, mode);
        files.set("tls_cert_file", &path);
        assert_eq!(
            files.said(),
            [format!("transport.smtp.tls_cert_file: DIR/both: {what}")],
            "{content:.40}"
        );
    }
}

#[test]
fn a_file_variable_brings_the_table_or_the_word_for_it() {
    let mut files = Files::new();
    let table = files.write_with("table", "relay a:first\n", 0o600);
    files.set("sasl_auth_enable", "yes");
    files.set("sasl_password_maps", &format!("file:{table}"));
    let password = |files: &Files| {
        let credentials = files.open().secrets.credentials(&server("relay")).unwrap().unwrap();
        match credentials.proof {
            Proof::Password(password) => password.expose().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(password(&files), "first");
    // Only a variable can say that the file is for us alone.
    files.write_with("table", "relay a:first\n", 0o644);
    assert!(files.said()[0].contains("DIR/table: everybody may read it"), "{:?}", files.said());
    let named = files.write("named", "relay a:second\n");
    files.write_with("table", &format!("texthash:{named}\n"), 0o600);
    assert_eq!(password(&files), "second");
    files.write_with("table", &format!("\u{feff}texthash:{named}\n"), 0o600);
    assert_eq!(password(&files), "second");
    files.write_with("named", "relay a:second\n", 0o604);
    assert!(files.said()[0].contains("DIR/named: everybody may read it"), "{:?}", files.said());
    for word in ["texthash:named", "texthash:", &format!("texthash:{named}\nrelay {CANARY}:b")] {
        files.write("table", word);
        let what = "behind texthash: it has no path that begins with /, or more than that";
        assert_eq!(files.said(), [format!("transport.smtp.sasl_password_maps: DIR/table: {what}")], "{word}");
    }
}

#[test]
fn two_readings_are_equal_if_the_files_held_the_same() {
    let (one, other) = (made("one"), made("other"));
    let mut files = Files::new();
    files.give("tls_CAfile", &one.certificate);
    files.give("tls_cert_file", &one.certificate);
    let key = files.write("key", &one.key);
    files.set("tls_key_file", &key);
    files.passwords("relay a:b\n");
    let first = files.open();
    assert_eq!(first, files.open());
    assert_ne!(first.secrets, Files::new().open().secrets);
    files.write("passwords", "relay a:c\n");
    assert_ne!(first, files.open());
    files.write("passwords", "relay a:b\n");
    assert_eq!(first, files.open());
    files.give("tls_CAfile", &other.certificate);
    assert_ne!(first, files.open());
    files.give("tls_CAfile", &one.certificate);
    files.give("tls_cert_file", &other.certificate);
    files.write("key", &other.key);
    assert_ne!(first, files.open());
    let given = first.secrets.with_credentials(vec![]);
    assert_eq!(given, first.secrets);
}

#[test]
fn given_credentials_go_before_the_table() {
    let mut files = Files::new();
    files.passwords("relay a:b\n");
    let secrets = files.open().secrets;
    let certificate = Credentials { username: "c".to_owned(), proof: Proof::Certificate };
    let given = secrets.with_credentials(vec![(server("relay"), certificate.clone())]);
    assert_ne!(given, secrets);
    assert_eq!(given.credentials(&server("relay")), Ok(Some(certificate)));
}

#[test]
fn who_trusts_no_authorities_of_the_system_trusts_those_that_were_named() {
    assert!(Secrets::default().without_system_authorities().roots().unwrap().is_empty());
    let mut files = Files::new();
    files.give("tls_CAfile", &made("ca").certificate);
    let secrets = files.open().secrets;
    assert_eq!(secrets.without_system_authorities().roots().unwrap().len(), 1);
    assert_eq!(secrets.without_system_authorities(), secrets);
}

/// A file that is not to be read, for a reason.
fn trouble(why: Why) -> Troubles {
    vec![("tls_CAfile", Trouble { why, text: "/ca: so it is".to_owned() })]
}

#[test]
fn a_file_that_we_may_not_read_any_more_leaves_what_it_held_and_any_other_trouble_does_not() {
    let before = Transport::clone(Config::default().transport(&"smtp".parse().unwrap()).unwrap());
    let kept = |is_hidden| Unreadable::Kept { before: Some(&before), is_hidden };
    let stays = "tls_CAfile: /ca: so it is; what it held before stays in use until a restart";
    let wrong = "tls_CAfile: /ca: so it is";
    for (unreadable, why, was_there, notes, wrongs) in [
        (kept(false), Why::Closed, true, &[stays][..], &[][..]),
        (kept(false), Why::Closed, false, &[], &[wrong]),
        (kept(false), Why::Missing, true, &[], &[wrong]),
        (kept(true), Why::Missing, true, &[stays], &[]),
        (kept(true), Why::Missing, false, &[], &[wrong]),
        (kept(true), Why::Wrong, true, &[], &[wrong]),
        (kept(true), Why::NotOurs, true, &[], &[wrong]),
        (Unreadable::Refused, Why::Closed, true, &[], &[wrong]),
        (Unreadable::LeftOut, Why::Closed, true, &[wrong], &[]),
        (Unreadable::LeftOut, Why::NotOurs, true, &[wrong], &[]),
        (Unreadable::LeftOut, Why::Missing, true, &[], &[wrong]),
        (Unreadable::LeftOut, Why::Wrong, true, &[], &[wrong]),
    ] {
        let mut found = Found::default();
        let part = found.part(Err(trouble(why)), unreadable, |_| was_there.then(|| Part::new((), [])));
        assert_eq!(part.is_some(), notes == [stays], "{why:?}");
        let said = |list: &[WrongSecret]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((said(&found.notes), said(&found.wrong)), (owned(notes), owned(wrongs)), "{why:?}");
    }
    // One of two files is wrong: nothing of the old stays.
    let mut found = Found::default();
    let both = trouble(Why::Closed).into_iter().chain(trouble(Why::Wrong)).collect();
    assert!(found.part(Err(both), kept(false), |_| Some(Part::new((), []))).is_none());
    assert_eq!((found.notes.len(), found.wrong.len()), (0, 2));
}

fn owned(said: &[&str]) -> Vec<String> {
    said.iter().map(|said| (*said).to_owned()).collect()
}

#[test]
fn a_file_that_was_moved_away_below_a_new_root_leaves_what_it_held() {
    let mut files = Files::new();
    files.passwords("relay a:b\n");
    files.give("tls_CAfile", &made("ca").certificate);
    let before = files.load().open_secrets().unwrap();
    fs::remove_file(files.path("passwords")).unwrap();
    fs::remove_file(files.path("tls_CAfile")).unwrap();
    let (again, notes) = files.load().open_secrets_again(&before, true).unwrap();
    assert_eq!(again, before);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[1].starts_with("transport.smtp.sasl_password_maps: "), "{notes:?}");
    assert!(files.load().open_secrets_again(&before, false).is_err());
    // Another file is not kept, nor is one that was not read before.
    files.set("sasl_password_maps", "texthash:/nonexistent/other");
    assert!(files.load().open_secrets_again(&before, true).is_err());
    files.options.pop();
    assert!(files.load().open_secrets_again(&files.load(), true).is_err());
}

#[test]
fn a_check_passes_over_credentials_of_a_service_that_is_not_this_process() {
    let mut files = Files::new();
    files.set("sasl_auth_enable", "yes");
    files.set("sasl_password_maps", "texthash:$CREDENTIALS_DIRECTORY/passwords");
    let (_, notes) = files.load().check_secrets().unwrap();
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].starts_with("transport.smtp.sasl_password_maps: $CREDENTIALS_DIRECTORY/passwords: "),
        "{notes:?}"
    );
    files.set("sasl_password_maps", "texthash:/nonexistent");
    assert!(files.load().check_secrets().is_err());
}

#[test]
fn a_check_that_may_not_see_whom_to_trust_trusts_nobody() {
    let mut files = Files::new();
    files.set("tls_CAfile", "$CREDENTIALS_DIRECTORY/authorities");
    let (config, notes) = files.load().check_secrets().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    let transport = config.transport(&"smtp".parse().unwrap()).unwrap();
    assert!(transport.secrets.roots().is_some_and(|roots| roots.is_empty()));
}

#[test]
fn no_error_and_no_debug_output_has_anything_of_a_table() {
    let tables = [
        format!("relay {CANARY}"),
        CANARY.to_owned(),
        format!("relay\n{CANARY}"),
        format!("{CANARY} {CANARY}:{CANARY}\n{CANARY} other:{CANARY}"),
        format!("[{CANARY} {CANARY}:{CANARY}"),
        format!("relay :{CANARY}"),
        format!("relay a:token-file:{CANARY}"),
        format!("relay {CANARY}:{CANARY}\u{7}"),
        format!("{CANARY}@x {CANARY}:{CANARY}"),
        format!("texthash:{CANARY}"),
    ];
    for table in &tables {
        let mut files = Files::new();
        files.passwords(table);
        assert!(!files.said().concat().contains(CANARY), "{table:?} gives {:?}", files.said());
    }
    let mut files = Files::new();
    files.passwords(&format!("relay me:{CANARY}"));
    let config = files.load().open_secrets().unwrap();
    let shown = format!("{config:?} {:?}", config.transport(&"smtp".parse().unwrap()).unwrap().secrets);
    assert!(!shown.contains(CANARY));
    let credentials = files.open().secrets.credentials(&server("relay"));
    assert!(!format!("{credentials:?}").contains(CANARY));
}
