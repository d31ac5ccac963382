//! A disk that can lose its power: a file system in a file, mounted where a site has its queue.
//!
//! - Owns: making and mounting it; the copy of what has reached the device; stopping a process for that long.
//! - Leaves to others: what ought to be in the copy.
//! - Always true: a copy is of one moment, because nothing was written to the device meanwhile. The mounts are in a
//!   namespace of the test's thread, so that none outlives the test, however that ends.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getuid};
use rustix::thread::UnshareFlags;

use crate::common::agent::{Agent, SOON, Site};
use crate::common::long::is_long;
use crate::common::process::wait_for;

/// Copies tried before something else must be writing.
const COPIES_TRIED: usize = 20;
/// Free loop devices are found and taken in two steps, and others take them too.
const MOUNTS_TRIED: usize = 5;

/// What the queue is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    /// Those of this run.
    pub fn all() -> &'static [Self] {
        if is_long() { &[Self::Ext4, Self::Xfs, Self::Btrfs] } else { &[Self::Ext4] }
    }

    /// The command that makes it, the package it comes in, and the smallest size it takes (the file has holes).
    fn maker(self) -> (&'static [&'static str], &'static str, u64) {
        match self {
            // Nothing is left to be initialised later, so that the device rests between two syncs.
            Self::Ext4 => (
                &["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,nodiscard"],
                "e2fsprogs",
                192 << 20,
            ),
            Self::Xfs => (&["mkfs.xfs", "-q", "-f", "-K"], "xfsprogs", 320 << 20),
            Self::Btrfs => (&["mkfs.btrfs", "-q", "-f", "-K"], "btrfs-progs", 320 << 20),
        }
    }

    /// The journal is written when a sync asks for it, not by the clock.
    fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Btrfs => "loop,noatime,commit=600",
            // The copy has the identity of the original, which is mounted too.
            Self::Xfs => "loop,noatime,nouuid",
        }
    }
}

/// A machine: a site whose queue directory is a disk.
pub struct Machine {
    // Unmounted before the site's directory is removed.
    disk: Mount,
    pub site: Site,
    kind: FileSystem,
}

impl Machine {
    /// A machine with an empty disk; `None`, and a line that says why, where there can be none.
    pub fn new(kind: FileSystem) -> Option<Self> {
        let skipped = |why: &str| {
            eprintln!("skipped: {why}");
            None
        };
        if !getuid().is_root() {
            return skipped("only root can mount a disk image");
        }
        if let Err(why) = mounts_of_our_own() {
            return skipped(&format!("no loop mounts here: {why}"));
        }
        let (command, package, size) = kind.maker();
        let site = Site::new("");
        let image = image(&site);
        File::create_new(&image).unwrap().set_len(size).unwrap();
        match Command::new(command[0]).args(&command[1..]).arg(&image).output() {
            Ok(output) => assert!(output.status.success(), "{command:?}: {output:?}"),
            Err(error) if kind == FileSystem::Ext4 => {
                panic!("{}: {error} (apt-get install {package})", command[0])
            }
            Err(error) => return skipped(&format!("{}: {error} (apt-get install {package})", command[0])),
        }
        let machine = match Mount::new(&image, &site.queue(), kind) {
            Ok(disk) => Self { disk, site, kind },
            Err(NoMount::NotAllowed(why)) => return skipped(&format!("no loop mounts here: {why}")),
            Err(NoMount::Unknown(why)) if kind != FileSystem::Ext4 => return skipped(&why),
            Err(NoMount::Unknown(why) | NoMount::Failed(why)) => panic!("{why}"),
        };
        let _ = fs::remove_dir(machine.site.queue().join("lost+found"));
        Some(machine)
    }

    /// What another machine would find on the disk if the power failed now. Whoever writes must rest.
    #[track_caller]
    pub fn after_power_loss(&self) -> Self {
        let site = Site::new("");
        let image = image(&site);
        self.copy_disk(&image);
        let disk = Mount::new(&image, &site.queue(), self.kind)
            .unwrap_or_else(|error| panic!("the copy cannot be mounted: {error:?}"));
        Self { disk, site, kind: self.kind }
    }

    fn copy_disk(&self, copy: &Path) {
        for _ in 0..COPIES_TRIED {
            let before = self.disk.writes();
            let mut command = Command::new("cp");
            command.arg("--sparse=always").arg(image(&self.site)).arg(copy);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{command:?}: {output:?}");
            let rested = before.in_flight == 0 && before == self.disk.writes();
            if rested {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the disk was written to during each of {COPIES_TRIED} copies");
    }
}

/// The file that stands for the device.
fn image(site: &Site) -> PathBuf {
    site.path().join("disk.img")
}

/// Mounts made by this thread and its children are nobody else's from now on.
fn mounts_of_our_own() -> Result<(), String> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of file descriptors, which stay shared here"
    )]
    let unshared = rustix::thread::unshare(UnshareFlags::NEWNS);
    unshared.map_err(|error| format!("a mount namespace of one's own: {error}"))?;
    // Where this fails the mounts are seen by others too, and are unmounted all the same.
    let _ = Command::new("mount").args(["--make-rprivate", "/"]).output();
    Ok(())
}

/// Why there is no mount.
#[derive(Debug)]
enum NoMount {
    NotAllowed(String),
    /// The kernel does not know the file system.
    Unknown(String),
    Failed(String),
}

/// What has reached the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Writes {
    writes: u64,
    in_flight: u64,
    flushes: u64,
}

struct Mount {
    point: PathBuf,
    /// `loop0`, say.
    device: String,
}

impl Mount {
    fn new(image: &Path, point: &Path, kind: FileSystem) -> Result<Self, NoMount> {
        fs::create_dir(point).unwrap();
        let mut said = String::new();
        for _ in 0..MOUNTS_TRIED {
            let mut command = Command::new("mount");
            command.args(["-o", kind.mount_options()]).arg(image).arg(point).env("LC_ALL", "C");
            let output = command.output().map_err(|error| NoMount::Failed(format!("mount: {error}")))?;
            if output.status.success() {
                return Ok(Self { point: point.to_owned(), device: device_of(point) });
            }
            said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if !said.contains("busy") && !said.contains("temporarily unavailable") {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let lower = said.to_lowercase();
        let means = |signs: &[&str]| signs.iter().any(|sign| lower.contains(sign));
        Err(if means(&["permission denied", "not permitted", "failed to setup loop device"]) {
            NoMount::NotAllowed(said)
        } else if means(&["unknown filesystem type"]) {
            NoMount::Unknown(said)
        } else {
            NoMount::Failed(said)
        })
    }

    fn writes(&self) -> Writes {
        let text = fs::read_to_string(format!("/sys/block/{}/stat", self.device)).unwrap();
        let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        Writes { writes: numbers[4], in_flight: numbers[8], flushes: numbers.get(15).copied().unwrap_or(0) }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmount = |options: &[&str]| {
            let output = Command::new("umount").args(options).arg(&self.point).output();
            output.is_ok_and(|output| output.status.success())
        };
        // Whoever still has a file open there keeps it alive a little longer, out of everybody's sight.
        if !unmount(&[]) && !unmount(&["-l"]) {
            eprintln!("{} is still mounted", self.point.display());
        }
    }
}

/// The loop device that is mounted there.
fn device_of(point: &Path) -> String {
    // Not /proc/self: the namespace is the thread's.
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(4) == point.to_str());
    let line = line.unwrap_or_else(|| panic!("{} is not in:\n{mounts}", point.display()));
    let (_, file_system) = line.split_once(" - ").unwrap();
    let device = file_system.split(' ').nth(1).unwrap();
    device.strip_prefix("/dev/").unwrap_or_else(|| panic!("no device in {line}")).to_owned()
}

/// Stops an agent where it is, for as long as the result lives.
pub fn stop(agent: &Agent) -> Stopped<'_> {
    agent.signal(Signal::STOP);
    let stopped = Stopped { agent };
    // A thread within a system call ends that first, a sync for one.
    wait_for("all threads to stop", SOON, || all_threads_rest(agent).then_some(()));
    stopped
}

/// Stops an agent as soon as `now` says so; `None` if it has not within the time for it.
pub fn stop_when(agent: &Agent, mut now: impl FnMut() -> bool) -> Option<Stopped<'_>> {
    let deadline = std::time::Instant::now() + SOON;
    // No pause between two looks: what is to be caught takes a few milliseconds.
    while !now() {
        if std::time::Instant::now() > deadline {
            return None;
        }
    }
    Some(stop(agent))
}

fn all_threads_rest(agent: &Agent) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid().as_raw_nonzero())).unwrap();
    tasks.flatten().all(|task| {
        // A thread may have ended since.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { return true };
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// A stopped agent; dropping this lets it go on.
pub struct Stopped<'a> {
    agent: &'a Agent,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.agent.signal(Signal::CONT);
    }
}

/// Writes some of what the kernel has in memory to the disk, as it may do at any time: nothing, or the names alone, or
/// also the content of some files.
pub fn write_back_some(machine: &Machine) {
    let queue = machine.site.queue();
    let (names, content) = (fastrand::bool(), fastrand::bool());
    if content {
        let some = machine.site.files().into_iter().filter(|_| fastrand::bool());
        // A file may have been renamed by another process since.
        some.filter_map(|name| File::open(queue.join(name)).ok()).for_each(|file| file.sync_all().unwrap());
    }
    if names {
        // Whatever is synced, a journal takes all names with it.
        let (path, mut file) = (queue.join("journal"), tempfile::NamedTempFile::new_in(&queue).unwrap());
        file.write_all(b"something").unwrap();
        file.as_file().sync_all().unwrap();
        file.persist(path).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without this the other tests would prove nothing.
    #[test]
    fn what_was_not_synced_is_not_in_the_copy() {
        for &kind in FileSystem::all() {
            let Some(machine) = Machine::new(kind) else { continue };
            let at = |machine: &Machine, name: &str| machine.site.queue().join(name);
            let write = |name: &str, content: &[u8]| {
                let mut file = File::create_new(at(&machine, name)).unwrap();
                file.write_all(content).unwrap();
                file
            };
            write("synced", b"text").sync_all().unwrap();
            // Renamed after the sync: the content is safe, the name is not.
            fs::rename(at(&machine, "synced"), at(&machine, "renamed")).unwrap();
            write(".whole", b"text");
            fs::rename(at(&machine, ".whole"), at(&machine, "whole")).unwrap();
            let copy = machine.after_power_loss();
            let read = |name: &str| fs::read(at(&copy, name)).ok();
            assert_eq!(read("synced").as_deref(), Some(&b"text"[..]), "{kind:?}");
            assert_eq!(read("renamed"), None, "{kind:?}");
            assert!(read("whole").is_none_or(|content| content.is_empty()), "{kind:?}");
            // The copy is a disk of its own.
            assert_eq!(fs::read(at(&machine, "whole")).unwrap(), b"text");
            assert!(!at(&machine, "synced").exists());

            // The sync of another file may bring a name to the disk, and never the content.
            write("another", b"text").sync_all().unwrap();
            let copy = machine.after_power_loss();
            let whole = fs::read(at(&copy, "whole")).ok();
            assert!(whole.is_none_or(|content| content.is_empty()), "{kind:?}");
            assert_eq!(fs::read(at(&copy, "another")).unwrap(), b"text", "{kind:?}");
        }
    }
}
