//! Power that fails right after an acknowledgement: a copy of the disk, mounted again.
//!
//! - Owns: a file system of its own in a file, its image taken at a chosen moment; what an agent makes of it.
//! - Leaves to others: kills of a process, after which the kernel still writes (`crashes`).
//! - Always true: what was acknowledged is in the image. The file system writes nothing by itself for ten minutes
//!   (`commit=600`), so only what the program has synced is there; the first test shows that this can be told.
//!
//! It takes root and loop mounts: others see a message instead. A short run tries ext4, a long one also XFS and btrfs
//! where their programs (`mkfs.xfs`, `mkfs.btrfs`) are installed.

mod disk;
mod mail;

mod finishing;
mod moving;
mod pickup;
mod submission;
