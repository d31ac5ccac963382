//! Values that are one of few words.
//!
//! - Owns: the words of `log_target`, `over_quota`, `inet_protocols`, `notify_classes` and `flags`.
//! - Leaves to others: what they make happen.
//! - Always true: what these types can say is all that can be configured.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// syslog(3), facility mail.
    Syslog,
}

impl FromStr for LogTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stderr" => Ok(Self::Stderr),
            "syslog" => Ok(Self::Syslog),
            _ => Err("log lines go to \"stderr\" or \"syslog\""),
        }
    }
}

/// Which address families connections use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InetProtocols {
    /// Whatever the server has.
    All,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl InetProtocols {
    /// Whether an address may be used.
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for InetProtocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// Something the postmaster can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyClass {
    /// Mail was returned to its sender.
    Bounce,
    /// Mail is late.
    Delay,
    /// A server broke the protocol.
    Protocol,
    /// Mail was not delivered for lack of resources here.
    Resource,
    /// Mail was not delivered because of a fault of this software.
    Software,
    /// A bounce could not be delivered.
    DoubleBounce,
}

impl NotifyClass {
    /// Every class and its word.
    const WORDS: [(&str, Self); 6] = [
        ("bounce", Self::Bounce),
        ("delay", Self::Delay),
        ("protocol", Self::Protocol),
        ("resource", Self::Resource),
        ("software", Self::Software),
        ("2bounce", Self::DoubleBounce),
    ];
}

impl FromStr for NotifyClass {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let class = Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, class)| *class);
        class.ok_or("the classes are bounce, delay, protocol, resource, software and 2bounce")
    }
}

/// What the postmaster is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyClasses(u8);

impl NotifyClasses {
    /// Whether `class` is among them.
    pub fn contains(self, class: NotifyClass) -> bool {
        self.0 & (1 << class as u8) != 0
    }
}

impl FromIterator<NotifyClass> for NotifyClasses {
    fn from_iter<I: IntoIterator<Item = NotifyClass>>(classes: I) -> Self {
        Self(classes.into_iter().fold(0, |bits, class| bits | 1 << class as u8))
    }
}

/// Headers that are added on delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `D`: `Delivered-To:`, and a message that has it already for this recipient is returned as looping.
    pub delivered_to: bool,
    /// `O`: `X-Original-To:`.
    pub original_to: bool,
    /// `R`: `Return-Path:`.
    pub return_path: bool,
    /// `X`: this delivery is final, for delivery status notices.
    pub final_delivery: bool,
}

impl FromStr for Flags {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut flags = Self::default();
        for letter in text.chars().filter(|c| !matches!(c, ' ' | ',')) {
            match letter {
                'D' => flags.delivered_to = true,
                'O' => flags.original_to = true,
                'R' => flags.return_path = true,
                'X' => flags.final_delivery = true,
                other => return Err(format!("there is no flag {other:?}; the flags are D, O, R and X")),
            }
        }
        Ok(flags)
    }
}
