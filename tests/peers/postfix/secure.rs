//! TLS and logins as main.cf wants them.
//!
//! - Owns: levels and policies against good and bad certificates, logins by right and wrong passwords.
//! - Leaves to others: TLS and mechanisms by themselves (`net`, `smtp`), our own configuration (`tls`).
//! - Always true: every server is our sink, on its own port, and whose certificate is good is told to both programs.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lastmile::mail::Protocol;
use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, TlsConfig, TlsVersion};

use super::client::{Client, Difference, Pair, both, ours_takes_part};
use super::instance::{Place, Postfix, Settings};
use super::mail::submit;
use super::observation::{Observation, observe};
use crate::common::certificates::{Certificates, Kind};

/// The name that both programs connect to.
const HOST: &str = "localhost";

/// A server with a name for the scenario.
struct Peer {
    /// The name of the message that goes there; its domain is `NAME.example`.
    name: String,
    handle: Handle,
}

impl Peer {
    fn start(name: &str, config: impl FnOnce(SinkConfig) -> SinkConfig) -> Self {
        let listen = Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let handle = Sink::start(config(SinkConfig::new(listen))).unwrap();
        Self { name: name.to_owned(), handle }
    }

    /// One that shows this certificate.
    fn showing(name: &str, certificates: &Certificates, kind: Kind) -> Self {
        Self::start(name, |config| SinkConfig { tls: Some(shown(certificates, kind)), ..config })
    }

    fn port(&self) -> u16 {
        match self.handle.addresses() {
            [Listen::Tcp(address)] => address.port(),
            other => panic!("it listens on {other:?}"),
        }
    }

    /// As a next hop, and so as a key of Postfix's tables.
    fn nexthop(&self) -> String {
        format!("{HOST}:{}", self.port())
    }

    fn domain(&self) -> String {
        format!("{}.example", self.name)
    }
}

fn shown(certificates: &Certificates, kind: Kind) -> TlsConfig {
    let identity = certificates.of(kind);
    TlsConfig::new(&identity.chain, &identity.key)
}

/// A place with certificates for [`HOST`].
fn place() -> (Place, Certificates) {
    let place = Place::new();
    let certificates = Certificates::make(&place.path().join("certificates"), &[HOST]);
    (place, certificates)
}

/// Writes a table that root alone may read; its name in main.cf.
fn table(place: &Place, name: &str, lines: impl Iterator<Item = String>) -> String {
    let path: PathBuf = place.path().join(name);
    fs::write(&path, lines.map(|line| line + "\n").collect::<String>()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    format!("texthash:{}", path.display())
}

/// Sends each server its message, and gathers what became of it.
fn play(place: &Place, client: Client, settings: Settings, peers: &[&Peer]) -> Observation {
    // Without brackets Postfix would look for MX records.
    let nexthop = |peer: &Peer| match settings.esmtp {
        true => format!("[{HOST}]:{}", peer.port()),
        false => peer.nexthop(),
    };
    let nexthops: Vec<_> = peers.iter().map(|peer| (peer.domain(), nexthop(peer))).collect();
    let route = |settings: Settings, (domain, nexthop): (String, String)| settings.route(&domain, nexthop);
    let settings = nexthops.into_iter().fold(settings, route);
    let postfix = Postfix::start(place, client, settings);
    for peer in peers {
        submit(&postfix, &peer.name, &[&format!("u@{}", peer.domain())]);
    }
    postfix.settle();
    let mut seen = observe(&postfix, &[]);
    for peer in peers {
        let counts = peer.handle.counts();
        seen.add(&format!("{} stored", peer.name), counts.deliveries);
        seen.add(&format!("{} logged in", peer.name), counts.logins > 0);
    }
    let is_told = |line: &&str| line.contains(WRONG_POLICY) && line.contains(": warning: ");
    seen.add("policies that were told of", postfix.log().lines().filter(is_told).count());
    normal(&mut seen);
    seen
}

/// How both programs begin to tell what is wrong with a policy.
const WRONG_POLICY: &str = "lmtp_tls_policy_maps, next-hop destination \"localhost:";

/// What ours explains, in words of its own, and where each program says more of a connection than the other: cut to what
/// both have to say.
fn normal(seen: &mut Observation) {
    for lines in seen.topics.values_mut() {
        *lines = lines.iter().filter_map(|line| normal_line(line)).collect();
        lines.sort();
        lines.dedup();
    }
    // Which of them has a topic left is no difference.
    seen.topics.retain(|_, lines| !lines.is_empty());
}

fn normal_line(line: &str) -> Option<String> {
    // What OpenSSL and Cyrus SASL say beside the reason.
    const OF_LIBRARY: [&str; 5] = [
        "SASL authentication failure: No worthy mechs found",
        "certificate verification failed for",
        "server certificate verification failed for",
        "SSL_connect error to",
        "TLS library problem:",
    ];
    if OF_LIBRARY.iter().any(|words| line.contains(words)) {
        return None;
    }
    // What is wrong is told by each in its words; of the consequence Postfix warns, too.
    if line.contains(WRONG_POLICY) || line.contains("warning: TLS policy lookup for ") {
        return None;
    }
    if line.contains(" TLS connection established to ") {
        let end = line.find(" bits)")?;
        return Some(format!("{} bits)", &line[..end]));
    }
    let no_login = format!("cannot authenticate to server {HOST}[127.0.0.1]");
    for words in ["Server certificate not trusted", "Server certificate not verified", &no_login] {
        if let Some(at) = line.find(words) {
            let (front, rest) = line.split_at(at + words.len());
            let rest = if rest.ends_with(')') { ")" } else { "" };
            return Some(format!("{front}{rest}"));
        }
    }
    if let Some(at) = line.find("Cannot start TLS").filter(|_| !line.ends_with("without TLS")) {
        let rest = if line.ends_with(')') { ")" } else { "" };
        return Some(format!("{}Cannot start TLS: handshake failure{rest}", &line[..at]));
    }
    Some(line.to_owned())
}

/// What ours says of a certificate that is from nobody who is trusted, or not of this time.
fn not_trusted(topic: &str) -> Difference<'_> {
    Difference {
        topic,
        stock: "Server certificate not verified",
        ours: "Server certificate not trusted",
        why: "it tells who has signed it from whom it is for",
    }
}

/// How the one that holds for a server is written in the table of policies.
const LEVELS: [&str; 4] = ["may", "encrypt", "verify", "secure"];

#[test]
fn mail_goes_to_a_server_whose_certificate_is_as_good_as_its_level_wants() {
    let kinds =
        [Kind::Good, Kind::Chained, Kind::WrongName, Kind::Expired, Kind::UnknownAuthority, Kind::SelfSigned];
    let pair = both(|client| {
        let (place, certificates) = place();
        let peers: Vec<_> = kinds
            .into_iter()
            .flat_map(|kind| LEVELS.map(|level| (kind, level)))
            .map(|(kind, level)| Peer::showing(&format!("{level}-{}", kind.word()), &certificates, kind))
            .collect();
        let level = |peer: &Peer| LEVELS.into_iter().find(|level| peer.name.starts_with(level)).unwrap();
        let policies = peers.iter().map(|peer| format!("{} {}", peer.nexthop(), level(peer)));
        let main = format!(
            "lmtp_tls_policy_maps = {}\nlmtp_tls_CAfile = {}\nlmtp_tls_loglevel = 1\nlmtp_host_lookup = native\n",
            table(&place, "policies", policies),
            certificates.authority.display()
        );
        play(&place, client, Settings::main(&main), &peers.iter().collect::<Vec<_>>())
    });
    let Some(pair) = pair else { return };
    for kind in kinds {
        for level in LEVELS {
            let name = format!("{level}-{}", kind.word());
            let is_sent = matches!(level, "may" | "encrypt") || matches!(kind, Kind::Good | Kind::Chained);
            pair.show(
                &format!("{name} log"),
                &[if is_sent { "status=sent" } else { "dsn=4.7.5, status=deferred" }],
            );
            pair.show(&format!("{name} stored"), &[if is_sent { "1" } else { "0" }]);
        }
    }
    for trust in ["Untrusted", "Trusted", "Verified"] {
        pair.show(
            "warnings",
            &[&format!("{trust} TLS connection established to localhost[127.0.0.1]:PORT: TLSv1.3")],
        );
    }
    let untrusted = [Kind::Expired, Kind::UnknownAuthority, Kind::SelfSigned];
    let names = untrusted
        .iter()
        .flat_map(|kind| ["verify", "secure"].map(|level| format!("{level}-{}", kind.word())));
    let topics: Vec<_> = names.map(|name| format!("{name} *")).collect();
    pair.agree_but(&topics.iter().map(|topic| not_trusted(topic)).collect::<Vec<_>>());
}

/// Policies and servers without TLS, or with another one.
#[test]
fn where_there_is_no_tls_mail_goes_in_clear_or_waits() {
    let pair = both(|client| {
        let (place, certificates) = place();
        let old = |config: SinkConfig| {
            let versions = vec![TlsVersion::V1_2];
            SinkConfig { tls: Some(TlsConfig { versions, ..shown(&certificates, Kind::Good) }), ..config }
        };
        let refusing = |config: SinkConfig| {
            let script = Script::parse("starttls 454 4.7.0 not now").unwrap();
            SinkConfig { tls: Some(shown(&certificates, Kind::Good)), script, ..config }
        };
        let wrapped = |config: SinkConfig| SinkConfig {
            tls: Some(shown(&certificates, Kind::Good)),
            wrappermode: true,
            ..config
        };
        let peers = [
            (Peer::start("may-plain", |config| config), "may"),
            (Peer::start("encrypt-plain", |config| config), "encrypt"),
            (Peer::start("may-refusing", refusing), "may"),
            (Peer::start("encrypt-refusing", refusing), "encrypt"),
            (Peer::start("may-old", old), "may protocols=TLSv1.3"),
            (Peer::start("encrypt-old", old), "encrypt protocols=>=TLSv1.3"),
            (Peer::start("encrypt-older", old), "encrypt protocols=!TLSv1.3"),
            (Peer::showing("none", &certificates, Kind::Good), "none"),
            (Peer::showing("invalid", &certificates, Kind::Good), "must"),
            (Peer::showing("attribute", &certificates, Kind::Good), "encrypt match=localhost"),
            (Peer::showing("matched", &certificates, Kind::WrongName), "secure match=other.example.net"),
            (Peer::showing("below", &certificates, Kind::WrongName), "secure match=x.example:.example.net"),
            (Peer::showing("unmatched", &certificates, Kind::Good), "verify match=other.example.net"),
        ];
        let wrapped = Peer::start("wrapped", wrapped);
        let policies = peers.iter().map(|(peer, policy)| format!("{} {policy}", peer.nexthop()));
        let main = format!(
            "lmtp_tls_policy_maps = {}\nlmtp_tls_CAfile = {}\nlmtp_host_lookup = native\n",
            table(&place, "policies", policies),
            certificates.authority.display()
        );
        let seen = {
            let peers: Vec<_> = peers.iter().map(|(peer, _)| peer).collect();
            play(&place, client, Settings::main(&main), &peers)
        };
        let (place, certificates) = (Place::new(), certificates);
        let main = format!(
            "lmtp_tls_security_level = verify\nlmtp_tls_wrappermode = yes\nlmtp_tls_CAfile = {}\n\
             lmtp_host_lookup = native\nlmtp_tls_servername = hostname\nlmtp_tls_loglevel = 1\n",
            certificates.authority.display()
        );
        seen.join(play(&place, client, Settings::main(&main), &[&wrapped]))
    });
    let Some(pair) = pair else { return };
    for (name, status) in [
        ("may-plain", "status=sent"),
        (
            "encrypt-plain",
            "dsn=4.7.4, status=deferred (TLS is required, but was not offered by host localhost[",
        ),
        ("may-refusing", "status=sent"),
        (
            "encrypt-refusing",
            "status=deferred (TLS is required, but host localhost[127.0.0.1] refused to start TLS: 454",
        ),
        ("encrypt-old", "dsn=4.7.5, status=deferred (Cannot start TLS: handshake failure"),
        ("encrypt-older", "status=sent"),
        ("none", "status=sent"),
        ("invalid", "relay=none"),
        ("invalid", "dsn=4.7.5, status=deferred (client TLS configuration problem)"),
        ("attribute", "dsn=4.7.5, status=deferred (client TLS configuration problem)"),
        ("matched", "status=sent"),
        ("below", "status=sent"),
        ("unmatched", "dsn=4.7.5, status=deferred (Server certificate not verified"),
        ("wrapped", "status=sent"),
    ] {
        pair.show(&format!("{name} log"), &[status]);
    }
    pair.show("policies that were told of", &["2"]);
    // Postfix does so, too, once mail has waited for minimal_backoff_time.
    let mut pair = pair;
    pair.stock.shows("may-old log", &["status=deferred (Cannot start TLS"]);
    if ours_takes_part() {
        pair.ours.shows("may-old log", &["status=sent"]);
        pair.ours.shows("may-old log", &["it is tried again without TLS"]);
    }
    for seen in [&mut pair.stock, &mut pair.ours] {
        seen.topics.retain(|topic, _| !topic.starts_with("may-old "));
    }
    pair.agree();
}

#[test]
fn fingerprints_stand_for_a_certificate_or_its_key() {
    let pair = both(|client| {
        let (place, certificates) = place();
        let [certificate, key] = certificates.of(Kind::SelfSigned).written_fingerprints();
        let [other, _] = certificates.of(Kind::Good).written_fingerprints();
        let peers = [
            (Peer::showing("certificate", &certificates, Kind::SelfSigned), format!("match={certificate}")),
            (Peer::showing("key", &certificates, Kind::SelfSigned), format!("match={other}|{key}")),
            (Peer::showing("other", &certificates, Kind::SelfSigned), format!("match={other}")),
            (Peer::showing("usual", &certificates, Kind::Good), String::new()),
        ];
        let policies = peers.iter().map(|(peer, policy)| format!("{} fingerprint {policy}", peer.nexthop()));
        let main = format!(
            "lmtp_tls_policy_maps = {}\nlmtp_tls_fingerprint_cert_match = {other}\nlmtp_host_lookup = native\n\
             lmtp_tls_fingerprint_digest = sha256\nlmtp_tls_loglevel = 1\n",
            table(&place, "policies", policies)
        );
        let peers: Vec<_> = peers.iter().map(|(peer, _)| peer).collect();
        play(&place, client, Settings::main(&main), &peers)
    });
    let Some(pair) = pair else { return };
    for (name, status) in [
        ("certificate", "sent"),
        ("key", "sent"),
        ("usual", "sent"),
        ("other", "deferred (Server certificate not verified"),
    ] {
        pair.show(&format!("{name} log"), &[&format!("status={status}")]);
    }
    let established = format!(
        "CLIENT: Untrusted TLS connection established to {HOST}[127.0.0.1]:PORT: TLSv1.3 with cipher \
         TLS_AES_256_GCM_SHA384 (256/256 bits)"
    );
    pair.agree_but(&[Difference {
        topic: "warnings",
        stock: &established,
        ours: "",
        why: "a connection that is closed at once for its certificate is told of by the reason alone",
    }]);
}

/// The client for ESMTP, with what Debian's main.cf says.
#[test]
fn what_debian_says_of_tls_is_good_for_both() {
    let pair = both(|client| {
        let (place, certificates) = place();
        let esmtp = |config: SinkConfig| SinkConfig { protocol: Protocol::Smtp, ..config };
        let with_tls = |config| SinkConfig { tls: Some(shown(&certificates, Kind::Good)), ..esmtp(config) };
        let peers = [Peer::start("tls", with_tls), Peer::start("plain", esmtp)];
        let main = "smtp_tls_CApath=/etc/ssl/certs\nsmtp_tls_security_level=may\nsmtp_tls_loglevel = 1\n\
                    smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache\n\
                    smtp_host_lookup = native\n";
        let settings = Settings { esmtp: true, ..Settings::main(main) };
        play(&place, client, settings, &peers.iter().collect::<Vec<_>>())
    });
    let Some(pair) = pair else { return };
    pair.show("warnings", &["Untrusted TLS connection established to localhost[127.0.0.1]:PORT: TLSv1.3"]);
    for name in ["tls", "plain"] {
        pair.show(&format!("{name} log"), &["status=sent"]);
    }
    pair.agree();
}

/// Without `tls_append_default_CA` and without a file, nobody is trusted.
#[test]
fn nobody_is_trusted_who_was_not_named() {
    let pair = both(|client| {
        let (place, certificates) = place();
        let peer = Peer::showing("nobody", &certificates, Kind::Good);
        let main = "lmtp_tls_security_level = verify\nlmtp_host_lookup = native\n";
        play(&place, client, Settings::main(main), &[&peer])
    });
    let Some(pair) = pair else { return };
    pair.show("nobody log", &["dsn=4.7.5, status=deferred (Server certificate not "]);
    pair.agree_but(&[not_trusted("nobody *")]);
}

/// Logs in at servers that want it, over TLS and in clear. Keys and passwords are root's alone, and outside of the new root
/// directory.
#[track_caller]
fn log_in(filter: &str) -> Option<Pair> {
    both(|client| {
        let (place, certificates) = place();
        let wanting = |config: SinkConfig| SinkConfig {
            tls: Some(shown(&certificates, Kind::Good)),
            logins: vec![("carrier".to_owned(), "se:cret".to_owned())],
            ..config
        };
        let in_clear = |config: SinkConfig| SinkConfig { tls: None, ..wanting(config) };
        let peers = [
            ("right", Peer::start("right", wanting), Some("carrier:se:cret")),
            ("wrong", Peer::start("wrong", wanting), Some("carrier:guess")),
            ("clear", Peer::start("clear", in_clear), Some("carrier:se:cret")),
            ("nobody", Peer::start("nobody", wanting), None),
        ];
        let entries =
            peers.iter().filter_map(|(_, peer, login)| Some(format!("{} {}", peer.nexthop(), (*login)?)));
        let main = format!(
            "lmtp_tls_security_level = may\nlmtp_sasl_auth_enable = yes\nlmtp_sasl_password_maps = {}\n\
             lmtp_sasl_mechanism_filter = {filter}\nlmtp_sasl_tls_security_options = noanonymous\n\
             lmtp_host_lookup = native\n",
            table(&place, "passwords", entries),
        );
        let settings = Settings { chroot: true, ..Settings::main(&main) };
        // The resolver's files are not in the queue directory.
        fs::create_dir_all(place.path().join("queue/etc")).unwrap();
        for name in ["hosts", "nsswitch.conf", "services"] {
            let _ = fs::copy(format!("/etc/{name}"), place.path().join("queue/etc").join(name));
        }
        let peers: Vec<_> = peers.iter().map(|(_, peer, _)| peer).collect();
        play(&place, client, settings, &peers)
    })
}

#[test]
fn a_password_opens_a_server_and_a_wrong_one_keeps_the_mail() {
    for (filter, in_clear) in
        [("plain", false), ("login", false), ("cram-md5", true), ("scram-sha-256", true)]
    {
        let Some(pair) = log_in(filter) else { return };
        pair.show("right log", &["status=sent"]);
        pair.show("right logged in", &["true"]);
        pair.show(
            "wrong log",
            &["status=deferred (SASL authentication failed; server localhost[127.0.0.1] said: 535"],
        );
        pair.show("wrong log", &["dsn=4.7.8"]);
        pair.show(
            "clear log",
            &[if in_clear { "status=sent" } else { "status=deferred (SASL authentication failed" }],
        );
        pair.show("nobody logged in", &["false"]);
        pair.show("nobody stored", &["0"]);
        pair.agree();
    }
}

#[test]
fn a_login_is_not_shown_in_clear_because_tls_has_failed() {
    let pair = both(|client| {
        let (place, certificates) = place();
        let old = |config: SinkConfig| SinkConfig {
            tls: Some(TlsConfig { versions: vec![TlsVersion::V1_2], ..shown(&certificates, Kind::Good) }),
            logins: vec![("carrier".to_owned(), "secret".to_owned())],
            ..config
        };
        let peer = Peer::start("old", old);
        let main = "lmtp_tls_security_level = may\nlmtp_tls_protocols = >=TLSv1.3\nlmtp_host_lookup = native\n\
                    lmtp_sasl_auth_enable = yes\nlmtp_sasl_password_maps = static:carrier:secret\n\
                    lmtp_sasl_mechanism_filter = cram-md5\n";
        play(&place, client, Settings::main(main), &[&peer])
    });
    let Some(pair) = pair else { return };
    pair.show("old log", &["dsn=4.7.5, status=deferred (Cannot start TLS"]);
    pair.agree();
}

/// The server of the table is no more who it was, or somebody is in between.
#[test]
fn a_server_that_offers_no_login_does_not_make_mail_bounce() {
    let pair = both(|client| {
        let (place, certificates) = place();
        let closed = |config: SinkConfig| {
            let script = Script::parse("mail 530 5.7.0 log in first").unwrap();
            SinkConfig { tls: Some(shown(&certificates, Kind::Good)), script, ..config }
        };
        let peer = Peer::start("closed", closed);
        let entries = [format!("{HOST} carrier:secret")].into_iter();
        let main = format!(
            "lmtp_tls_security_level = encrypt\nlmtp_sasl_auth_enable = yes\nlmtp_sasl_password_maps = {}\n\
             lmtp_host_lookup = native\n",
            table(&place, "passwords", entries),
        );
        play(&place, client, Settings::main(&main), &[&peer])
    });
    let Some(pair) = pair else { return };
    pair.stock.shows("closed log", &["status=bounced"]);
    if ours_takes_part() {
        pair.ours.shows("closed log", &["dsn=4.7.0, status=deferred (SASL authentication failed"]);
        pair.ours.shows("closed stored", &["0"]);
    }
}
