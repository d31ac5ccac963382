//! Power that fails right after an acknowledgement: a copy of the disk, mounted again.
//!
//! - Owns: a file system of its own in a file, its image taken at a chosen moment.
//! - Leaves to others: kills of a process, after which the kernel still writes (`crashes`).
//! - Always true: what was acknowledged is in the image.
