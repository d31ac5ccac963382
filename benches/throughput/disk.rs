//! A journalled file system in a file, for what durability costs.
//!
//! - Owns: its making, mounting and unmounting.
//! - Leaves to others: what is written to it.
//! - Always true: it is unmounted and removed when it is dropped, also when a measurement fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Large enough for 100,000 queue files.
const SIZE: u64 = 3 << 30;

/// A mounted file system.
pub struct Disk {
    mount_point: PathBuf,
    _directory: TempDir,
}

impl Disk {
    /// Makes it below `directory`.
    pub fn mount(directory: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("throughput-").tempdir_in(directory).unwrap();
        let (image, mount_point) = (directory.path().join("image"), directory.path().join("mounted"));
        // Sparse: it takes what is written to it.
        std::fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
        std::fs::create_dir(&mount_point).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-i", "8192"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount_point));
        Self { mount_point, _directory: directory }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // In the middle of a panic a second one would end the process with the file system mounted.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount_point).status();
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}
