//! What a server offers in its reply to LHLO or EHLO.

use super::Reply;
use super::xforward::Attributes;

/// Mechanisms that are remembered of one line.
const MECHANISMS_MAX: usize = 32;

/// Service extensions that we use. Nothing is offered by default, as after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 3030, BDAT.
    pub chunking: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 2034.
    pub enhanced_status_codes: bool,
    /// RFC 1870: offered, and the largest message in octets (`Some(0)` is "no limit").
    pub size: Option<u64>,
    /// RFC 9422: recipients in a transaction.
    pub rcpt_max: Option<usize>,
    /// RFC 9422: transactions on a connection.
    pub mail_max: Option<u32>,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 4954: the mechanisms, in upper case; empty where a login is not offered.
    pub auth: Vec<String>,
    /// XFORWARD: what the server wants to know of where a message came from.
    pub xforward: Attributes,
}

impl Capabilities {
    /// Reads the reply to LHLO or EHLO; keywords in `discard` count as not offered.
    pub fn from_reply(reply: &Reply, discard: &[String]) -> Self {
        let mut offered = Self::default();
        // The first line is the server's name and greeting.
        for line in reply.lines().skip(1) {
            // Some old servers write "SIZE=100" and "AUTH=LOGIN".
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            let keyword = words.next().unwrap_or("").to_ascii_uppercase();
            if !discard.iter().any(|word| word.eq_ignore_ascii_case(&keyword)) {
                match keyword.as_str() {
                    "LIMITS" => offered.add_limits(line),
                    "XFORWARD" => words.for_each(|name| offered.xforward.add(name)),
                    "AUTH" => offered.add_mechanisms(words),
                    _ => offered.add(&keyword, words.next()),
                }
            }
        }
        // RFC 6531 section 3.1 item 8 makes 8BITMIME part of SMTPUTF8.
        offered.eight_bit_mime |= offered.smtputf8;
        offered
    }

    fn add(&mut self, keyword: &str, parameter: Option<&str>) {
        match keyword {
            "PIPELINING" => self.pipelining = true,
            "CHUNKING" => self.chunking = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "SIZE" => self.size = Some(parameter.and_then(|limit| limit.parse().ok()).unwrap_or(0)),
            _ => {}
        }
    }

    /// Servers that say `AUTH` and `AUTH=` both name each mechanism twice.
    fn add_mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names.map(str::to_ascii_uppercase).take(MECHANISMS_MAX) {
            if !self.auth.contains(&name) {
                self.auth.push(name);
            }
        }
    }

    fn add_limits(&mut self, line: &str) {
        for (name, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            // RFC 9422 section 3 allows 1 to 999999; zero would be a server that takes no mail at all.
            let Some(value) = value.parse::<u32>().ok().filter(|&value| value > 0) else { continue };
            match name.to_ascii_uppercase().as_str() {
                "RCPTMAX" => self.rcpt_max = Some(value as usize),
                "MAILMAX" => self.mail_max = Some(value),
                _ => {}
            }
        }
    }

    /// The largest message the server takes, where it names a limit.
    pub fn size_limit(&self) -> Option<u64> {
        self.size.filter(|&limit| limit > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::parse_reply;

    fn offered(text: &str, discard: &[&str]) -> Capabilities {
        let discard: Vec<String> = discard.iter().map(|&word| word.to_owned()).collect();
        Capabilities::from_reply(&parse_reply(text.as_bytes()).unwrap().unwrap().0, &discard)
    }

    #[test]
    fn keywords_are_read_without_regard_to_case_or_form() {
        let found = offered(
            "250-mx PIPELINING\r\n250-chunking\r\n250-Size=100\r\n250-LIMITS MAILMAX=5 RCPTMAX=20 X=0\r\n250 SMTPUTF8\r\n",
            &[],
        );
        assert!(found.chunking && found.smtputf8 && found.eight_bit_mime && !found.pipelining);
        assert_eq!((found.size_limit(), found.mail_max, found.rcpt_max), (Some(100), Some(5), Some(20)));
    }

    #[test]
    fn xforward_lists_what_may_be_said() {
        let of = |text: &str, discard: &[&str]| offered(text, discard).xforward;
        let listed = of("250-mx\r\n250-XFORWARD NAME ADDR\r\n250 xforward=helo\r\n", &[]);
        let mut expected = Attributes::default();
        ["NAME", "ADDR", "HELO"].iter().for_each(|name| expected.add(name));
        assert_eq!(listed, expected);
        assert_eq!(of("250-mx\r\n250 XFORWARD\r\n", &[]), Attributes::default());
        assert_eq!(of("250-mx\r\n250 XFORWARD NAME\r\n", &["XFORWARD"]), Attributes::default());
    }

    #[test]
    fn mechanisms_are_listed_once_in_whatever_form() {
        let found =
            offered("250-mx\r\n250-STARTTLS\r\n250-AUTH PLAIN login\r\n250 AUTH=PLAIN SCRAM-SHA-1\r\n", &[]);
        assert!(found.starttls);
        assert_eq!(found.auth, ["PLAIN", "LOGIN", "SCRAM-SHA-1"]);
        assert!(offered("250-mx\r\n250 AUTH\r\n", &[]).auth.is_empty());
        assert!(offered("250-mx\r\n250 AUTH PLAIN\r\n", &["AUTH"]).auth.is_empty());
    }

    #[test]
    fn discarded_keywords_are_not_offered() {
        let found = offered("250-mx\r\n250-PIPELINING\r\n250 SIZE\r\n", &["pipelining"]);
        assert!(!found.pipelining);
        assert_eq!((found.size, found.size_limit()), (Some(0), None));
    }
}
