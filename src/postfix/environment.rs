//! The environment that master(8) leaves to its services.
//!
//! - Owns: the variables that count, and what holds where one is missing.
//! - Leaves to others: main.cf, which says the rest.
//! - Always true: a number that is none is missing, and who needs it says so; the log is found all the same.
//!
//! `MAIL_DEBUG`, which asks for `debugger_command`, is passed over: a debugger attaches to a running process by itself.

use std::ffi::OsString;
use std::path::PathBuf;

/// The directory of main.cf where `MAIL_CONFIG` names none.
const CONFIG_DIRECTORY: &str = "/etc/postfix";
/// The name in front of log lines until main.cf is read, where `MAIL_LOGTAG` gives none.
const LOG_TAG: &str = "postfix";

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Where main.cf is.
    pub config_directory: PathBuf,
    /// The name in front of log lines until `syslog_name` is known.
    pub log_tag: String,
    /// The socket of postlogd(8), where it keeps the log.
    pub postlog_socket: Option<PathBuf>,
    /// The name of this host in lines to it, until `myhostname` is known.
    pub postlog_host: Option<String>,
    /// Which of master(8)'s generations of processes this is. Only its children have one.
    pub generation: Option<u32>,
    /// Whether everything is to be logged.
    pub is_verbose: bool,
    /// The process that master(8) has started and that has started this one; see `supervisor`.
    pub supervisor: Option<i32>,
}

/// The variable by which a supervisor tells its worker who it is. master(8) passes on only what `import_environment`
/// names, so nobody else's finds its way here. (It does not begin with LASTMILE_, as keys of our configuration do.)
pub const SUPERVISOR: &str = "SUPERVISOR_PID";

impl Environment {
    /// Understands the variables of this process.
    pub fn of_this_process() -> Self {
        Self::read(|name| std::env::var_os(name))
    }

    /// Understands the variables that `lookup` finds. An empty one is none.
    pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let value = |name| lookup(name).filter(|value| !value.is_empty());
        let text = |name| value(name).and_then(|value| value.into_string().ok());
        let number = |name, radix| text(name).and_then(|digits| digits_in(radix, &digits));
        Self {
            config_directory: value("MAIL_CONFIG").map_or_else(|| CONFIG_DIRECTORY.into(), PathBuf::from),
            log_tag: text("MAIL_LOGTAG").unwrap_or_else(|| LOG_TAG.to_owned()),
            postlog_socket: value("POSTLOG_SERVICE").map(PathBuf::from),
            postlog_host: text("POSTLOG_HOSTNAME"),
            generation: number("GENERATION", 8),
            // Any value, also an empty one.
            is_verbose: lookup("MAIL_VERBOSE").is_some(),
            supervisor: number(SUPERVISOR, 10).map(u32::cast_signed),
        }
    }
}

/// Digits and nothing else.
fn digits_in(radix: u32, text: &str) -> Option<u32> {
    let is_number = text.chars().all(|c| c.is_digit(radix));
    u32::from_str_radix(text, radix).ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value))
        })
    }

    #[test]
    fn what_is_missing_has_postfix_s_defaults() {
        let environment = read(&[]);
        assert_eq!(environment.config_directory, PathBuf::from("/etc/postfix"));
        assert_eq!(environment.log_tag, "postfix");
        assert_eq!((environment.generation, environment.supervisor), (None, None));
        assert_eq!(environment.postlog_socket, None);
        assert!(!environment.is_verbose);
        assert_eq!(read(&[("MAIL_CONFIG", ""), ("MAIL_LOGTAG", ""), ("POSTLOG_SERVICE", "")]), read(&[]));
    }

    #[test]
    fn what_master_says_is_understood() {
        let environment = read(&[
            ("MAIL_CONFIG", "/etc/postfix-out"),
            ("MAIL_LOGTAG", "postfix-out"),
            ("POSTLOG_SERVICE", "/var/spool/postfix/public/postlog"),
            ("POSTLOG_HOSTNAME", "mx.example.org"),
            ("GENERATION", "74"),
            ("MAIL_VERBOSE", ""),
            (SUPERVISOR, "4711"),
        ]);
        let expected = Environment {
            config_directory: "/etc/postfix-out".into(),
            log_tag: "postfix-out".into(),
            postlog_socket: Some("/var/spool/postfix/public/postlog".into()),
            postlog_host: Some("mx.example.org".into()),
            generation: Some(0o74),
            is_verbose: true,
            supervisor: Some(4711),
        };
        assert_eq!(environment, expected);
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        for (name, value) in [
            ("GENERATION", "8"),
            ("GENERATION", "+7"),
            ("GENERATION", "0x7"),
            ("GENERATION", "77777777777777"),
            (SUPERVISOR, "-1"),
            (SUPERVISOR, "me"),
        ] {
            let environment = read(&[(name, value)]);
            assert_eq!((environment.generation, environment.supervisor), (None, None), "{name}={value}");
        }
    }
}
