//! The `delay=` and `delays=` fields of the log line, in Postfix's format.

use std::fmt;
use std::time::Duration;

/// Where the time of one delivery went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// From arrival until the master had the message.
    pub before_queue: Duration,
    /// Then until a worker had it.
    pub in_queue: Duration,
    /// Then until the connection was ready for MAIL.
    pub connection: Duration,
    /// Then until the outcome was known.
    pub transmission: Duration,
}

impl Delays {
    /// The whole time since arrival.
    pub fn total(&self) -> Duration {
        self.before_queue + self.in_queue + self.connection + self.transmission
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before_queue, in_queue, connection, transmission } = *self;
        let [a, b, c, d] = [before_queue, in_queue, connection, transmission].map(Delay);
        write!(f, "{a}/{b}/{c}/{d}")
    }
}

/// Two significant digits, never finer than 10 ms, rounded half up, trailing zeros dropped, whole seconds from
/// 10 s on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay(pub Duration);

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        let unit: u64 = match micros {
            10_000_000.. => 1_000_000,
            1_000_000.. => 100_000,
            _ => 10_000,
        };
        let hundredths = micros.saturating_add(unit / 2) / unit * (unit / 10_000);
        match (hundredths / 100, hundredths % 100) {
            (seconds, 0) => write!(f, "{seconds}"),
            (seconds, fraction) if fraction % 10 == 0 => write!(f, "{seconds}.{}", fraction / 10),
            (seconds, fraction) => write!(f, "{seconds}.{fraction:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_have_two_significant_digits() {
        for (micros, text) in [
            (0, "0"),
            (4_999, "0"),
            (5_000, "0.01"),
            (123_000, "0.12"),
            (995_000, "1"),
            (1_050_000, "1.1"),
            (9_950_000, "10"),
            (10_500_000, "11"),
            (100_000_000, "100"),
            (3_600_100_000, "3600"),
            (u64::MAX, "18446744073709"),
        ] {
            assert_eq!(Delay(Duration::from_micros(micros)).to_string(), text, "{micros}");
        }
    }
}
