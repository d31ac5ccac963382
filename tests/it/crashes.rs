//! Kills without warning, in numbers: the agent while it delivers and takes in, submitters while they submit,
//! administrators while they move mail about.
//!
//! - Owns: kills at random moments, and the count of what was lost (nothing) and doubled (what was in flight).
//! - Leaves to others: kills at a chosen moment (`agent`), power that fails (`power_loss`).
//! - Always true: no test knows when its kills come, and each says the seed of its moments. `TESTS_SEED` sets it; the
//!   same seed gives the same mail and the same plan of kills, not the same races.

mod commands;
mod delivering;
mod ledger;
mod mail;
mod submitting;
mod taking_in;

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// For everything that a campaign has queued.
const ALL_DELIVERED: Duration = Duration::from_secs(90);
/// How long a run of an agent may keep a kill waiting for its goal.
const GOAL_LIMIT: Duration = Duration::from_secs(10);
/// Retries within seconds, so that a campaign can wait for them.
const HURRY: &str = "minimal_backoff_time = 1\nmaximal_backoff_time = 1\nqueue_run_delay = 1\n";

/// The dice of a campaign, and the seed that they were made of.
fn dice() -> (Rng, u64) {
    let seed = match std::env::var("TESTS_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("TESTS_SEED is no number: {text}")),
        Err(_) => fastrand::u64(..1_000_000),
    };
    // Shown where the test fails, or where somebody wants to see it.
    eprintln!("TESTS_SEED={seed}");
    (Rng::with_seed(seed), seed)
}

/// Sleeps for a random time.
fn nap(dice: &mut Rng, longest: Duration) {
    thread::sleep(longest.mul_f64(dice.f64()));
}

/// Waits until `reached`, for a limited time: the moment that comes after it is what a campaign is about, so it looks
/// more often than other tests.
fn wait_for_goal(mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + GOAL_LIMIT;
    while !reached() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
}
