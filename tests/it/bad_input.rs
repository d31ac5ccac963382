//! Files and lines that are wrong: what is logged, and where the message stands afterwards.
//!
//! - Owns: job lines, dropped files, queue files, each broken in one way; a disk that is full.
//! - Leaves to others: parsers by themselves (`parsers`, unit tests).
//! - Always true: nothing is deleted unread.
