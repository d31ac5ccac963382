//! Each level against each fault of a certificate.

use rcgen::{GeneralSubtree, NameConstraints};
use rustls::version::{TLS12, TLS13};

use super::*;
use crate::config::Fingerprint;

/// What a server shows, and what becomes of it.
struct Case {
    what: &'static str,
    shown: Shown,
    /// At the levels that look no further than the chain.
    trust: Trust,
    /// At `verify` and `secure`: what is wrong, if anything.
    fault: Option<&'static str>,
}

fn cases(root: &Authority) -> Vec<Case> {
    let case = |what, shown, trust, fault| Case { what, shown, trust, fault };
    let good = params("mx", &[HOST]);
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = good.clone();
        change(&mut params);
        params
    };
    let self_signed = |params: &CertificateParams| {
        let key = key();
        Shown { chain: vec![params.self_signed(&key).unwrap().into()], key }
    };
    let below = |params: CertificateParams, is_shown: bool| {
        let between = CertifiedIssuer::signed_by(params, key(), root).unwrap();
        let mut shown = issued(&good, &between);
        shown.chain.extend(is_shown.then(|| between.der().clone()));
        shown
    };
    let between = authority_params("between");
    let with_stranger = |is_shown: bool| {
        let stranger = authority("stranger");
        let mut shown = issued(&good, &stranger);
        shown.chain.extend(is_shown.then(|| stranger.der().clone()));
        shown
    };
    let old = {
        let key = key();
        Shown { chain: vec![unread::version_1("mx", &key)], key }
    };
    let below_old = {
        let stranger = authority("stranger");
        let mut shown = issued(&good, &stranger);
        shown.chain.push(unread::version_1("stranger", stranger.key()));
        shown
    };
    vec![
        case("good", issued(&good, root), Trust::Trusted, None),
        case("good, chained", below(between.clone(), true), Trust::Trusted, None),
        case("any host of the domain", issued(&params("mx", &["*.example.org"]), root), Trust::Trusted, None),
        case(
            "others",
            issued(&params("mx", &["a.example", "b.example", "192.0.2.7"]), root),
            Trust::Trusted,
            Some("not verified: it is for a.example, b.example, 192.0.2.7 and not for mx.example.org"),
        ),
        case(
            "many others",
            issued(&params("mx", &["a.x", "b.x", "c.x", "d.x", "e.x", "f.x", "g.x"]), root),
            Trust::Trusted,
            Some("not verified: it is for a.x, b.x, c.x, d.x, e.x and 2 more and not for mx.example.org"),
        ),
        case(
            "common name alone",
            issued(&params(HOST, &[]), root),
            Trust::Trusted,
            Some(
                "not verified: it is for no host (a common name alone does not count) and not for mx.example.org",
            ),
        ),
        case(
            "expired",
            issued(&with(&|params| params.not_after = date_time_ymd(2021, 2, 3)), root),
            Trust::Untrusted,
            Some("not trusted: it expired on 2021-02-03 00:00:00 UTC"),
        ),
        case(
            "expired above",
            below(
                {
                    let mut params = between.clone();
                    params.not_after = date_time_ymd(2021, 2, 3);
                    params
                },
                true,
            ),
            Trust::Untrusted,
            Some("not trusted: a certificate of its authority expired on 2021-02-03 00:00:00 UTC"),
        ),
        case(
            "not yet valid",
            issued(&with(&|params| params.not_before = date_time_ymd(2098, 7, 6)), root),
            Trust::Untrusted,
            Some("not trusted: it is not valid before 2098-07-06 00:00:00 UTC (it is "),
        ),
        case(
            "self-signed",
            self_signed(&good),
            Trust::Untrusted,
            Some("not trusted: it is signed by itself, and is not among those that are trusted"),
        ),
        case(
            "self-signed authority",
            self_signed(&with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
            Trust::Untrusted,
            Some("not trusted: it is signed by itself, and is not among those that are trusted"),
        ),
        case(
            "a stranger's",
            with_stranger(true),
            Trust::Untrusted,
            Some("not trusted: its authority \"stranger\" is not among those that are trusted"),
        ),
        case(
            "chain incomplete",
            below(between.clone(), false),
            Trust::Untrusted,
            Some(
                "not trusted: its authority \"between\" is not among those that are trusted, and the server sent no \
                 certificate that leads from there to one of them",
            ),
        ),
        case(
            "for clients",
            issued(
                &with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
                root,
            ),
            Trust::Untrusted,
            Some("not trusted: it is not meant for servers"),
        ),
        case(
            "an authority's",
            issued(&with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), root),
            Trust::Untrusted,
            Some("not trusted: it is that of an authority and not of a server"),
        ),
        case(
            "of version 1",
            old,
            Trust::Untrusted,
            Some(
                "not trusted: it is older than version 3 of X.509, so it names no host: make it anew with a ",
            ),
        ),
        case(
            "below one of version 1",
            below_old,
            Trust::Untrusted,
            Some("not trusted: a certificate of its authority is older than version 3 of X.509"),
        ),
        case(
            "with a demand that nobody knows",
            issued(&with(&|params| params.custom_extensions = vec![unread::unknown_demand()]), root),
            Trust::Untrusted,
            Some("not trusted: it demands something that is not known here"),
        ),
        case(
            "below one with such a demand",
            below(
                {
                    let mut params = between.clone();
                    params.custom_extensions = vec![unread::unknown_demand()];
                    params
                },
                true,
            ),
            Trust::Untrusted,
            Some("not trusted: a certificate of its authority demands something that is not known here"),
        ),
        case(
            "forged",
            issued(&good, &authority("root")),
            Trust::Untrusted,
            Some("not trusted: it was not signed by the authority that it names"),
        ),
        case(
            "for a name that its authority may not vouch for",
            below(
                {
                    let mut params = between.clone();
                    let permitted_subtrees = vec![GeneralSubtree::DnsName("example.com".into())];
                    params.name_constraints =
                        Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
                    params
                },
                true,
            ),
            Trust::Untrusted,
            Some("not trusted: it is for a name that its authority may not vouch for"),
        ),
    ]
}

/// Connections of both versions by `policy` to a server that shows `shown`: whom they lead to, or what is wrong.
fn attempt(shown: &Shown, transport: &Transport, policy: &TlsPolicy<'_>) -> Result<Trust, TlsError> {
    let [old, new] = [&TLS12, &TLS13].map(|version| {
        let config = Arc::new(shown.server(&[version]));
        let (socket, server) = served(&config, |mut stream| {
            let _ = stream.write_all(b"220 hi\r\n");
        });
        let started = start_first(socket, transport, policy).map(|stream| stream.trust());
        server.join().unwrap();
        started
    });
    // Some words tell what time it is.
    let is_alike =
        old == new || matches!((&old, &new), (Err(TlsError::Certificate(_)), Err(TlsError::Certificate(_))));
    assert!(is_alike, "{old:?} and {new:?}");
    new
}

#[test]
fn each_level_takes_each_certificate_for_what_it_proves() {
    let root = authority("root");
    let transport = trusting(roots(&[root.der()]));
    for Case { what, shown, trust, fault } in cases(&root) {
        for level in [TlsLevel::May, TlsLevel::Encrypt] {
            assert_eq!(attempt(&shown, &transport, &policy(level)), Ok(trust), "{what} at {level}");
        }
        for level in [TlsLevel::Verify, TlsLevel::Secure] {
            match (attempt(&shown, &transport, &policy(level)), fault) {
                (Ok(trust), None) => assert_eq!(trust, Trust::Verified, "{what} at {level}"),
                (Err(TlsError::Certificate(words)), Some(fault)) => {
                    let wanted = format!("Server certificate {fault}");
                    assert!(words.starts_with(&wanted), "{what} at {level}: {words}");
                }
                (got, _) => panic!("{what} at {level}: {got:?}"),
            }
        }
        let [whole, key, other] = fingerprints(&shown);
        for (known, is_met) in
            [(vec![other, whole], true), (vec![key], true), (vec![other], false), (vec![], false)]
        {
            let policy = TlsPolicy { fingerprints: &known, ..policy(TlsLevel::Fingerprint) };
            match attempt(&shown, &transport, &policy) {
                Ok(trust) => assert!(is_met && trust == Trust::Verified, "{what}: {trust}"),
                Err(TlsError::Certificate(words)) => {
                    assert!(!is_met, "{what}: {words}");
                    let wanted = "Server certificate not verified: neither its fingerprint ";
                    assert!(words.starts_with(wanted) && words.contains(&written(key)), "{words}");
                }
                Err(error) => panic!("{what}: {error:?}"),
            }
        }
    }
}

/// Of the certificate, of its key, of nothing.
fn fingerprints(shown: &Shown) -> [Fingerprint; 3] {
    use ::ring::digest::{SHA256, digest};
    use rcgen::PublicKeyData;
    let of = |der: &[u8]| Fingerprint(digest(&SHA256, der).as_ref().try_into().unwrap());
    [of(&shown.chain[0]), of(&shown.key.subject_public_key_info()), of(b"")]
}

fn written(Fingerprint(octets): Fingerprint) -> String {
    let pairs: Vec<_> = octets.iter().map(|octet| format!("{octet:02X}")).collect();
    pairs.join(":")
}

#[test]
fn a_server_is_trusted_whose_own_certificate_is() {
    for is_authority in [false, true] {
        let mut params = params("mx", &[HOST]);
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = key();
        let shown = Shown { chain: vec![params.self_signed(&key).unwrap().into()], key };
        let transport = trusting(roots(&[&shown.chain[0]]));
        assert_eq!(
            attempt(&shown, &transport, &policy(TlsLevel::Verify)),
            Ok(Trust::Verified),
            "{is_authority}"
        );
        // The same name and no other key.
        let other = Shown { chain: vec![params.self_signed(&shown.key).unwrap().into()], key: self::key() };
        let impostor = Shown { chain: vec![params.self_signed(&other.key).unwrap().into()], key: other.key };
        let got = attempt(&impostor, &transport, &policy(TlsLevel::Verify));
        assert!(matches!(got, Err(TlsError::Certificate(_))), "{is_authority}: {got:?}");
    }
    // Trusted as it is, it ends all the same.
    let mut params = authority_params("mx");
    params.subject_alt_names = super::params("mx", &[HOST]).subject_alt_names;
    params.not_after = date_time_ymd(2021, 2, 3);
    let key = key();
    let shown = Shown { chain: vec![params.self_signed(&key).unwrap().into()], key };
    let got = attempt(&shown, &trusting(roots(&[&shown.chain[0]])), &policy(TlsLevel::Verify));
    let words = "Server certificate not trusted: it expired on 2021-02-03 00:00:00 UTC";
    assert_eq!(got, Err(TlsError::Certificate(words.into())));
}

#[test]
fn where_nobody_is_trusted_the_words_say_so() {
    let shown = issued(&params("mx", &[HOST]), &authority("root"));
    let got = attempt(&shown, &trusting(RootCertStore::empty()), &policy(TlsLevel::Verify));
    let Err(TlsError::Certificate(words)) = got else { panic!("{got:?}") };
    assert!(words.ends_with("\"root\" is not among those that are trusted (there are none here)"), "{words}");
}

#[test]
fn what_a_certificate_says_is_shown_printable_and_short() {
    let name = format!("\u{1b}]0;x\u{7}\r\nstatus=sent {}", "long ".repeat(1000));
    let shown = issued(&params("mx", &[HOST]), &authority(&name));
    let got = attempt(&shown, &trusting(RootCertStore::empty()), &policy(TlsLevel::Verify));
    let Err(TlsError::Certificate(words)) = got else { panic!("{got:?}") };
    assert!(words.len() < 300 && !words.contains(char::is_control), "{words:?}");
}
