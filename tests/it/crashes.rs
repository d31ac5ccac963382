//! Kills without warning, in numbers: the agent while it delivers, the submitters while they submit.
//!
//! - Owns: kills at random moments, and the count of what was lost (nothing) and doubled (what was in flight).
//! - Leaves to others: kills at a chosen moment (`agent`), power that fails (`power_loss`).
//! - Always true: no test knows when its kills come, and each says the seed of its moments.
