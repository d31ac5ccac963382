//! Which mechanism is taken.
//!
//! - Owns: the mechanisms that we know, their strength, and every rule that excludes one.
//! - Leaves to others: what a mechanism says (`client`).
//! - Always true: the strongest that is offered and allowed is taken; where there is none, each that was offered is named
//!   with the rule that excludes it, and the rule with the key that sets it.

use super::{Login, Proof, SecurityOptions};

/// Octets of a name (RFC 4422 section 3.1): what is longer is none.
const NAME_SIZE_MAX: usize = 20;
/// Names that are told of those that we do not know.
const UNKNOWN_MAX: usize = 8;

/// A mechanism that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    External,
    ScramSha256Plus,
    ScramSha1Plus,
    ScramSha256,
    ScramSha1,
    CramMd5,
    Plain,
    Login,
    OauthBearer,
    Xoauth2,
}

/// All of them by name, the strongest first. What proves a name in another way never competes.
const ALL: [(Mechanism, &str); 10] = [
    (Mechanism::External, "EXTERNAL"),
    (Mechanism::ScramSha256Plus, "SCRAM-SHA-256-PLUS"),
    (Mechanism::ScramSha1Plus, "SCRAM-SHA-1-PLUS"),
    (Mechanism::ScramSha256, "SCRAM-SHA-256"),
    (Mechanism::ScramSha1, "SCRAM-SHA-1"),
    (Mechanism::CramMd5, "CRAM-MD5"),
    (Mechanism::Plain, "PLAIN"),
    (Mechanism::Login, "LOGIN"),
    (Mechanism::OauthBearer, "OAUTHBEARER"),
    (Mechanism::Xoauth2, "XOAUTH2"),
];

/// The mechanisms that can be used, the strongest first.
pub fn known_mechanisms() -> &'static [&'static str] {
    const NAMES: [&str; ALL.len()] = {
        let (mut names, mut at) = ([""; ALL.len()], 0);
        while at < ALL.len() {
            names[at] = ALL[at].1;
            at += 1;
        }
        names
    };
    &NAMES
}

impl Mechanism {
    /// As servers write it.
    pub(super) fn name(self) -> &'static str {
        ALL.iter().find(|(mechanism, _)| *mechanism == self).map_or("", |(_, name)| name)
    }

    /// Those of `offered` that we know, the strongest first.
    pub(super) fn known_of(offered: &[String]) -> impl Iterator<Item = Self> {
        let is_offered = |name: &str| offered.iter().any(|word| word.eq_ignore_ascii_case(name));
        ALL.iter().filter(move |(_, name)| is_offered(name)).map(|(mechanism, _)| *mechanism)
    }

    /// Ties the exchange to the TLS connection.
    pub(super) fn is_bound(self) -> bool {
        matches!(self, Self::ScramSha256Plus | Self::ScramSha1Plus)
    }

    /// Proves to each side that the other knows the password.
    pub(super) fn is_scram(self) -> bool {
        self.is_bound() || matches!(self, Self::ScramSha256 | Self::ScramSha1)
    }

    /// Sends an OAuth token.
    pub(super) fn is_bearer(self) -> bool {
        matches!(self, Self::OauthBearer | Self::Xoauth2)
    }

    fn fits(self, proof: &Proof) -> bool {
        match proof {
            Proof::Certificate => self == Self::External,
            Proof::Token(_) => self.is_bearer(),
            Proof::Password(_) => self != Self::External && !self.is_bearer(),
        }
    }

    fn needs_name(self) -> bool {
        !matches!(self, Self::External | Self::OauthBearer)
    }

    /// The options that exclude this mechanism, as they are written. None that we know is without a name, so that
    /// `noanonymous` excludes none.
    fn excluded_by(self, options: SecurityOptions) -> Vec<&'static str> {
        let is_plain = matches!(self, Self::Plain | Self::Login) || self.is_bearer();
        [
            ("noplaintext", options.no_plaintext && is_plain),
            ("noactive", options.no_active && (is_plain || self == Self::CramMd5)),
            ("nodictionary", options.no_dictionary && self != Self::External && !self.is_bearer()),
            ("mutual_auth", options.mutual_auth && !self.is_scram()),
        ]
        .into_iter()
        .filter_map(|(word, excludes)| excludes.then_some(word))
        .collect()
    }

    /// The rule that excludes this mechanism, in words that follow its name.
    fn bar(self, login: &Login<'_>) -> Option<String> {
        let (needed, has) = match (self, &login.credentials.proof) {
            (Self::External, _) => ("an entry without a password", "one"),
            (_, Proof::Password(_)) => ("a token", "a password"),
            (_, Proof::Token(_)) => ("a password", "a token"),
            (_, Proof::Certificate) => ("a password or a token", "none"),
        };
        if !self.fits(&login.credentials.proof) {
            return Some(format!("would need {needed}, and the entry in sasl_password_maps has {has}"));
        }
        if self.needs_name() && login.credentials.username.is_empty() {
            return Some("would need a user name, and the entry in sasl_password_maps has none".to_owned());
        }
        if !login.filter.is_empty() && !login.filter.iter().any(|name| name == self.name()) {
            return Some("not in sasl_mechanism_filter".to_owned());
        }
        let options = self.excluded_by(login.options);
        if !options.is_empty() {
            return Some(excluded(&options));
        }
        let lacks_binding = self.is_bound() && login.channel_binding.is_none();
        lacks_binding.then(|| "would need TLS 1.3".to_owned())
    }
}

/// Which keys set `options`. The caller has put them together, so all are named.
fn excluded(options: &[&str]) -> String {
    let unless_set = if options.contains(&"noplaintext") {
        ", or where that is empty because the server's certificate is not verified"
    } else {
        ""
    };
    format!(
        "excluded by {}: without TLS by sasl_security_options, over TLS by sasl_tls_security_options{unless_set}",
        options.join(", ")
    )
}

/// The strongest mechanism that is `offered` and that `login` allows; or why there is none.
pub(super) fn choose(offered: &[String], login: &Login<'_>) -> Result<Mechanism, String> {
    let allowed = |mechanism: &Mechanism| mechanism.bar(login).is_none();
    Mechanism::known_of(offered).find(allowed).ok_or_else(|| why_none(offered, login))
}

fn why_none(offered: &[String], login: &Login<'_>) -> String {
    if offered.is_empty() {
        return "the server offers no AUTH here".to_owned();
    }
    // Each rule once, with all that it excludes.
    let mut rules: Vec<(String, Vec<&str>)> = Vec::new();
    let mut add = |rule: String, name| match rules.iter_mut().find(|(known, _)| *known == rule) {
        Some((_, names)) => names.push(name),
        None => rules.push((rule, vec![name])),
    };
    for mechanism in Mechanism::known_of(offered) {
        add(mechanism.bar(login).unwrap_or_default(), mechanism.name());
    }
    let unknown = |name: &&String| !known_mechanisms().iter().any(|known| name.eq_ignore_ascii_case(known));
    for name in offered.iter().filter(unknown).filter(|name| is_name(name)).take(UNKNOWN_MAX) {
        add("not known here".to_owned(), name);
    }
    let rules: Vec<_> = rules.iter().map(|(rule, names)| format!("{} ({rule})", names.join(", "))).collect();
    let which = if rules.is_empty() { "nothing that is a name".to_owned() } else { rules.join("; ") };
    format!("no mechanism is both offered and allowed: the server offers {which}")
}

fn is_name(name: &str) -> bool {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=NAME_SIZE_MAX).contains(&name.len()) && name.bytes().all(fits)
}
