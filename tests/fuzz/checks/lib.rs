//! What must hold for whatever comes from outside, one check for each way in.
//!
//! - Owns: the properties. A check takes octets, gives them to the parser, and panics where a property fails.
//! - Leaves to others: inventing octets (the fuzz targets), playing the fixed corpus and structured inputs
//!   (`tests/it/parsers.rs`).
//! - Always true: a check depends on its input alone. Where it can, it compares the parser with a slow and simple
//!   one of its own, and what was printed with what it was parsed from.

mod addresses;
mod answers;
mod config;
mod content;
mod control;
mod jobs;
mod logins;
mod nexthops;
mod parameters;
mod postfix;
mod queue;
mod scripts;
mod sessions;
mod wire;

/// Gives octets to one parser; panics where a property fails.
pub type Check = fn(&[u8]);

/// All checks, by the names of their fuzz targets and of their directories in `corpus`.
pub const CHECKS: &[(&str, Check)] = &[
    ("address", addresses::address),
    ("address_list", addresses::address_list),
    ("auth", logins::auth),
    ("capabilities", answers::capabilities),
    ("config_value", config::value),
    ("content", content::content),
    ("control_answer", control::answer),
    ("control_request", control::request),
    ("dropped_file", queue::dropped_file),
    ("job_line", jobs::job_line),
    ("line_reader", jobs::line_reader),
    ("nexthop", nexthops::nexthop),
    ("parameters", parameters::parameters),
    ("postfix_record", postfix::record),
    ("postfix_request", postfix::request),
    ("queue_file", queue::queue_file),
    ("reply", answers::reply),
    ("reply_log", queue::reply_log),
    ("script", scripts::script),
    ("seven_bit", postfix::seven_bit),
    ("smtp_session", sessions::session),
];

/// Runs the check of that name.
pub fn run(name: &str, input: &[u8]) {
    let found = CHECKS.iter().find(|(known, _)| *known == name);
    let (_, check) = found.unwrap_or_else(|| panic!("there is no check {name}"));
    check(input);
}

/// Octets of the longest sentence about a mistake. Somebody else's text in it must not fill the log.
const SENTENCE_MAX: usize = 1500;

/// A sentence about a mistake is short, however long what it is about.
#[track_caller]
fn assert_short(sentence: &str) {
    assert!(!sentence.is_empty(), "a mistake without a sentence");
    assert!(sentence.len() <= SENTENCE_MAX, "{} octets in a sentence: {sentence:.200}", sentence.len());
}

/// Nothing that ends a command, a log line or a string in C.
#[track_caller]
fn assert_one_line(text: &str) {
    assert!(!text.contains(['\r', '\n', '\0']), "{text:?} can leave its line");
}

/// The input as text; what is no UTF-8 is replaced.
fn text_of(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// Sizes of the pieces in which the same input is given again.
const PIECES: [usize; 4] = [1, 2, 7, 1000];
