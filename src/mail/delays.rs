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

    /// The four times, written as finely as `resolution` allows.
    pub fn written(self, resolution: Resolution) -> impl fmt::Display {
        let Self { before_queue, in_queue, connection, transmission } = self;
        let times = [before_queue, in_queue, connection, transmission];
        let [a, b, c, d] = times.map(|time| Delay::new(time, resolution));
        fmt::from_fn(move |f| write!(f, "{a}/{b}/{c}/{d}"))
    }
}

/// How finely times are written: the decimals of a second, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution(u8);

impl Resolution {
    /// Whole seconds are 0 decimals, microseconds 6; `None` for more.
    pub fn new(decimals: u8) -> Option<Self> {
        (decimals <= 6).then_some(Self(decimals))
    }

    /// Microseconds of the last decimal.
    fn unit(self) -> u64 {
        10_u64.pow(6 - u32::from(self.0))
    }
}

impl Default for Resolution {
    /// 10 ms.
    fn default() -> Self {
        Self(2)
    }
}

/// A time as the log has it: two significant digits, never finer than the resolution, rounded half up, trailing zeros
/// dropped, whole seconds from 10 s on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    time: Duration,
    resolution: Resolution,
}

impl Delay {
    /// A time that is to be written.
    pub fn new(time: Duration, resolution: Resolution) -> Self {
        Self { time, resolution }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX);
        let mut digit = match micros {
            10_000_000.. => 1_000_000,
            1_000_000.. => 100_000,
            _ => 1,
        };
        while micros < 1_000_000 && micros / digit >= 100 {
            digit *= 10;
        }
        let unit = digit.max(self.resolution.unit());
        let rounded = micros.saturating_add(unit / 2) / unit * unit;
        let (seconds, fraction) = (rounded / 1_000_000, rounded % 1_000_000);
        write!(f, "{seconds}")?;
        if fraction > 0 {
            let digits = format!("{fraction:06}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
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
            (94_999, "0.09"),
            (95_000, "0.1"),
            (123_000, "0.12"),
            (995_000, "1"),
            (1_050_000, "1.1"),
            (9_950_000, "10"),
            (10_500_000, "11"),
            (100_000_000, "100"),
            (3_600_100_000, "3600"),
            (u64::MAX, "18446744073709"),
        ] {
            assert_eq!(
                Delay::new(Duration::from_micros(micros), Resolution::default()).to_string(),
                text,
                "{micros}"
            );
        }
    }

    #[test]
    fn the_resolution_bounds_the_digits() {
        for (decimals, micros, text) in [
            (0, 499_999, "0"),
            (0, 500_000, "1"),
            (0, 1_500_000, "2"),
            (0, 9_400_000, "9"),
            (1, 49_999, "0"),
            (1, 123_000, "0.1"),
            (1, 1_230_000, "1.2"),
            (3, 499, "0"),
            (3, 12_345, "0.012"),
            (3, 99_500, "0.1"),
            (3, 123_456, "0.12"),
            (6, 7, "0.000007"),
            (6, 1_234, "0.0012"),
            (6, 12_345_678, "12"),
        ] {
            let delay = Delay::new(Duration::from_micros(micros), Resolution::new(decimals).unwrap());
            assert_eq!(delay.to_string(), text, "{decimals} {micros}");
        }
        assert_eq!(Resolution::new(7), None);
    }
}
