//! Every parameter that Postfix's lmtp(8) and smtp(8) know, and what becomes of it here.
//!
//! - Owns: the three fates of a parameter (obeyed, accepted without effect, refused) and which values are refused.
//! - Leaves to others: the rows (`client`, `service`), what an obeyed value does (`settings`, `transport`).
//! - Always true: a parameter that would change what becomes of mail is obeyed or refused, never passed over.
//!
//! The manual has the same rows, in the same words; a test holds it.

mod client;
mod service;

use std::fmt;

use super::values::{Reader, Values};
use crate::mail::Protocol;

/// Parameters that share a fate, and its reason.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Their names.
    pub names: &'static [Names],
    /// What becomes of them.
    pub fate: Fate,
    /// What they do here, why they have no effect, or what would be lost if they were accepted: part of a sentence,
    /// without a full stop.
    pub about: &'static str,
}

/// The names of a parameter in the two programs. One of them may not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of lmtp(8).
    pub lmtp: Option<&'static str>,
    /// Of smtp(8).
    pub smtp: Option<&'static str>,
}

impl Names {
    /// The name where this protocol is spoken.
    pub fn of(self, protocol: Protocol) -> Option<&'static str> {
        match protocol {
            Protocol::Lmtp => self.lmtp,
            Protocol::Smtp => self.smtp,
        }
    }
}

/// What becomes of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It is obeyed.
    Honoured {
        /// A value other than the default.
        example: &'static str,
        /// What else must be set for the value to be seen.
        with: &'static [(Names, &'static str)],
    },
    /// Any value is taken, for none changes what becomes of mail.
    Accepted,
    /// The service does not start with some values.
    Refused(When),
}

/// When a value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// There is a value.
    Set,
    /// It is `yes`.
    Yes,
    /// It is none of these, of which the first is what to set instead.
    NoneOf(&'static [&'static str]),
}

impl When {
    /// Whether `value` is refused.
    fn holds(self, value: &str) -> bool {
        match self {
            Self::Set => !value.is_empty(),
            Self::Yes => value.eq_ignore_ascii_case("yes"),
            Self::NoneOf(fine) => {
                !value.is_empty() && !fine.iter().any(|word| word.eq_ignore_ascii_case(value))
            }
        }
    }

    /// A value that can be set for this service alone, so that it starts.
    fn remedy(self) -> &'static str {
        match self {
            Self::Set => "",
            Self::Yes => "no",
            Self::NoneOf(fine) => fine.first().copied().unwrap_or_default(),
        }
    }
}

/// As the manual says it: "refused if …".
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set => f.write_str("not empty"),
            Self::Yes => f.write_str("yes"),
            Self::NoneOf(fine) => write!(f, "neither empty nor {}", fine.join(" nor ")),
        }
    }
}

/// Which parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that begin with `lmtp_` or `smtp_`.
    Client,
    /// Others of Postfix's.
    Service,
    /// Ours.
    Own,
}

impl Scope {
    /// Their rows.
    pub fn rows(self) -> &'static [Row] {
        match self {
            Self::Client => client::ROWS,
            Self::Service => service::ROWS,
            Self::Own => service::OWN_ROWS,
        }
    }
}

/// The names of all parameters of a scope.
pub fn names(protocol: Protocol, scope: Scope) -> impl Iterator<Item = &'static str> {
    let names = scope.rows().iter().flat_map(|row| row.names);
    names.filter_map(move |names| names.of(protocol))
}

/// The name of a client's parameter; `suffix` is what stands behind `lmtp_`.
pub(in crate::postfix) fn name(protocol: Protocol, suffix: &str) -> String {
    match (protocol, suffix) {
        (Protocol::Lmtp, _) => format!("lmtp_{suffix}"),
        (Protocol::Smtp, "lhlo_name") => "smtp_helo_name".to_owned(),
        (Protocol::Smtp, "lhlo_timeout") => "smtp_helo_timeout".to_owned(),
        (Protocol::Smtp, "discard_lhlo_keywords") => "smtp_discard_ehlo_keywords".to_owned(),
        (Protocol::Smtp, "discard_lhlo_keyword_address_maps") => {
            "smtp_discard_ehlo_keyword_address_maps".to_owned()
        }
        (Protocol::Smtp, _) => format!("smtp_{suffix}"),
    }
}

/// Whether a parameter that somebody sets has any meaning: to us, or to qmgr(8), which knows it by the name of a service.
pub(super) fn is_known(name: &str, protocol: Protocol) -> bool {
    let of_queue_manager = |name: &str| {
        let suffixes = client::QUEUE_MANAGER.iter().filter_map(|names| names.lmtp?.strip_prefix("lmtp"));
        suffixes.into_iter().any(|suffix| name.ends_with(suffix))
    };
    let scopes = [Scope::Client, Scope::Own].into_iter();
    scopes.flat_map(|scope| names(protocol, scope)).any(|known| known == name) || of_queue_manager(name)
}

/// Notes every value that is refused.
pub(super) fn refuse(reader: &mut Reader<'_>, values: &Values, protocol: Protocol) {
    let rows = Scope::Client.rows().iter().chain(Scope::Service.rows());
    for row in rows {
        let Fate::Refused(when) = row.fate else { continue };
        for name in row.names.iter().filter_map(|names| names.of(protocol)) {
            if when.holds(values.text(name)) {
                reader.refuse(
                    name,
                    format_args!(
                        "{}; start with -o {name}={}, or let Postfix's own {protocol} deliver this mail",
                        row.about,
                        when.remedy()
                    ),
                );
            }
        }
    }
}

/// Names of parameters: both programs', one's, or any program's.
macro_rules! parameter {
    ($suffix:literal) => {
        $crate::postfix::parameters::table::Names {
            lmtp: Some(concat!("lmtp_", $suffix)),
            smtp: Some(concat!("smtp_", $suffix)),
        }
    };
    ($lmtp:literal, $smtp:literal) => {
        $crate::postfix::parameters::table::Names {
            lmtp: Some(concat!("lmtp_", $lmtp)),
            smtp: Some(concat!("smtp_", $smtp)),
        }
    };
    (lmtp $suffix:literal) => {
        $crate::postfix::parameters::table::Names { lmtp: Some(concat!("lmtp_", $suffix)), smtp: None }
    };
    (smtp $suffix:literal) => {
        $crate::postfix::parameters::table::Names { lmtp: None, smtp: Some(concat!("smtp_", $suffix)) }
    };
    (any $name:literal) => {
        $crate::postfix::parameters::table::Names { lmtp: Some($name), smtp: Some($name) }
    };
}
use parameter;

/// A row of parameters that are obeyed.
const fn honoured(names: &'static [Names], example: &'static str, about: &'static str) -> Row {
    Row { names, fate: Fate::Honoured { example, with: &[] }, about }
}

/// The same, where something else must be set too.
const fn honoured_with(
    names: &'static [Names],
    example: &'static str,
    with: &'static [(Names, &'static str)],
    about: &'static str,
) -> Row {
    Row { names, fate: Fate::Honoured { example, with }, about }
}

/// A row of parameters without effect.
const fn accepted(names: &'static [Names], about: &'static str) -> Row {
    Row { names, fate: Fate::Accepted, about }
}

/// A row of parameters of which some values are refused.
const fn refused(names: &'static [Names], when: When, about: &'static str) -> Row {
    Row { names, fate: Fate::Refused(when), about }
}
