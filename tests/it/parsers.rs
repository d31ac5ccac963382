//! What reads octets from outside, fed with a fixed set of odd ones.
//!
//! - Owns: the corpus of the fuzz targets, played in each normal run.
//! - Leaves to others: finding new ones (`tests/fuzz`, by hand).
//! - Always true: no panic, no memory without bound, and what was printed parses back to itself.
