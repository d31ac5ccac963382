//! Tests with two forms: a short one for every run, and a long one that is asked for.
//!
//! - Owns: whether this is a long run.
//! - Leaves to others: how much longer each of them is then.
//! - Always true: the short form tests the same thing, only fewer times.

/// Whether `tests/run.sh --long` runs us.
pub fn is_long() -> bool {
    std::env::var_os("TESTS_LONG").is_some_and(|value| value == "yes")
}

/// The first number, or in a long run the second.
pub fn short_or_long<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}
