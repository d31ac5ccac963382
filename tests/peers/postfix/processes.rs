//! Processes by their group, from proc(5).
//!
//! - Owns: who is in a process group and still runs.
//! - Leaves to others: starting and ending them.
//! - Always true: a zombie does not run.

use std::fs;

use rustix::process::Pid;

/// A process that runs.
pub struct Running {
    pub pid: Pid,
    /// The name that the kernel shows, 15 octets at most.
    pub command: String,
    /// Its arguments, with blanks between them.
    pub arguments: String,
}

/// Processes of a group that have not ended.
pub fn of_group(group: Pid) -> Vec<Running> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| look(pid, group)).collect()
}

/// Who started a process, or has taken it over since.
pub fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    Pid::from_raw(stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?)
}

/// A process that ends while it is looked at is none.
fn look(pid: i32, group: Pid) -> Option<Running> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (front, rest) = stat.rsplit_once(") ")?;
    let command = front.split_once('(')?.1.to_owned();
    let mut words = rest.split(' ');
    let (state, _parent, of) = (words.next()?, words.next()?, words.next()?);
    if state == "Z" || of.parse() != Ok(group.as_raw_nonzero().get()) {
        return None;
    }
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    Some(Running { pid: Pid::from_raw(pid)?, command, arguments })
}
