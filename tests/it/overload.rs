//! Too much of everything at once: writers, files, recipients, servers that do not answer.
//!
//! - Owns: rates beside rates, memory and descriptors of an agent under load.
//! - Leaves to others: the scheduler's rules by themselves (unit tests), single limits (`engine`).
//! - Always true: ratios within one run, since machines differ.
