//! One suite for us and for the originals: options and exit codes of `lastmile sendmail`, of Postfix's sendmail(1) and
//! of msmtp(1).
//!
//! `TESTS_SENDMAIL` names the program; without it, it is ours:
//!
//! ```text
//! TESTS_SENDMAIL=/usr/sbin/sendmail cargo nextest run -E 'test(/^sendmail::originals/)'
//! TESTS_SENDMAIL=/usr/bin/msmtp     cargo nextest run -E 'test(/^sendmail::originals/)'
//! ```
//!
//! - Owns: the table of cases. A case says what we do; where an original does otherwise the case has what that does,
//!   and why we do not follow. So where the originals differ, we follow the one that the case does not name. Departures
//!   are checked too: one that is no longer true of its program fails, as does one that has become agreement.
//! - Leaves to others: what only we have (`sendmail`): our files, our words, delivery without a queue.
//! - Always true: nothing of the system's configuration and queues is used, and no mail server is started. Of Postfix
//!   only sendmail(1) and postdrop(1) run, and smtpd(8) for `-bs`; what its cleanup(8) would add or remove later is not
//!   compared.

mod arguments;
mod case;
mod failures;
mod message;
mod modes;
mod msmtp;
mod ours;
mod postfix;
mod program;
mod recipients;
mod recorder;

use case::Case;
use program::Program;

/// Tries all cases of a table, and tells of all that fail at once.
#[track_caller]
fn check(cases: &[Case]) {
    let program = Program::under_test();
    let count = cases.len();
    let departures = cases.iter().filter(|case| case.departs(program.kind)).count();
    eprintln!("{:?}: {count} cases, {departures} departures", program.kind);
    let wrong: Vec<String> = cases.iter().filter_map(|case| case.check(&program).err()).collect();
    assert!(
        wrong.is_empty(),
        "{}: {} of {count} cases:\n\n{}",
        program.path(),
        wrong.len(),
        wrong.join("\n\n")
    );
}
