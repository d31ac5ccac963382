//! Times and sizes as an administrator writes them.

use std::time::Duration;

use lastmile::config::{read_size, read_time};

use super::{assert_short, text_of};

/// Ten years, as `config` documents it.
const TIME_MAX: u128 = 520 * 7 * 24 * 3600;

/// A value is a number and one letter, in arithmetic that cannot overflow; printed plainly, it is the same value.
pub fn value(input: &[u8]) {
    let text = &*text_of(input);
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, unit)) if !unit.is_ascii_digit() => (&text[..at], Some(unit)),
        _ => (text, None),
    };
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    // More digits than 64 bits have, other than zeros in front, are too many for the parser; the rest fits in here.
    let digits = number.trim_start_matches('0');
    let number = is_number.then(|| digits.get(..38).unwrap_or(digits).parse::<u128>().unwrap_or(0));

    let seconds = match unit {
        None | Some('s') => Some(1),
        Some('m') => Some(60),
        Some('h') => Some(3600),
        Some('d') => Some(86_400),
        Some('w') => Some(604_800),
        Some(_) => None,
    };
    let expected = number.zip(seconds).map(|(number, unit): (u128, u128)| number.saturating_mul(unit));
    match read_time(text) {
        Ok(time) => {
            assert_eq!(
                Some(u128::from(time.as_secs())),
                expected.filter(|&seconds| seconds <= TIME_MAX),
                "{text:?}"
            );
            assert_eq!(time.subsec_nanos(), 0);
            for printed in [time.as_secs().to_string(), format!("{}s", time.as_secs())] {
                assert_eq!(read_time(&printed), Ok(time), "{text:?}");
            }
            assert!(time <= Duration::from_secs(TIME_MAX as u64));
        }
        Err(sentence) => {
            assert_short(&sentence);
            assert!(expected.is_none_or(|seconds| seconds > TIME_MAX), "{text:?} is a time");
        }
    }

    let octets = match unit {
        None => Some(1),
        Some('K' | 'k') => Some(1 << 10),
        Some('M' | 'm') => Some(1 << 20),
        Some('G' | 'g') => Some(1 << 30),
        Some(_) => None,
    };
    let expected = number.zip(octets).map(|(number, unit): (u128, u128)| number.saturating_mul(unit));
    match read_size(text) {
        Ok(size) => {
            assert_eq!(Some(u128::from(size)), expected.filter(|&size| size <= i64::MAX as u128), "{text:?}");
            assert_eq!(read_size(&size.to_string()), Ok(size));
        }
        Err(sentence) => {
            assert_short(&sentence);
            assert!(expected.is_none_or(|size| size > i64::MAX as u128), "{text:?} is a size");
        }
    }
}
