//! What a call of the sendmail command costs: calls a second that queue one message of 2 KB each, on disk when the command
//! ends, beside Postfix's sendmail(1) on the same disk in the same run.
//!
//! ```sh
//! cargo bench --bench sendmail                              # one call after the other, and 4 at a time (root: all ways)
//! cargo bench --bench sendmail -- --directory /mnt/disk     # on another disk
//! cargo bench --bench sendmail -- --ext4                    # on an ext4 with a journal in a file (root)
//! cargo bench --bench sendmail -- calls                     # system calls, syncs and instructions of one call
//! ```
//!
//! - Owns: the measurements and the tables they print.
//! - Leaves to others: the commands and their queues (`way`), what a single call does (`trace`), the file system (`disk`).
//! - Always true: all ways take turns within each round and are compared round by round, so that a busy machine hits all of
//!   them; every call's message is counted on the disk afterwards; what is removed again is removed between measurements.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made fails by panicking")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../throughput/disk.rs"]
mod disk;

mod trace;
mod way;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use disk::Disk;
use way::Way;

/// Octets of each message.
const MESSAGE_SIZE: usize = 2048;

/// Measures calls of the sendmail command.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Where queues are made: a real disk, or the syncs cost nothing.
    #[arg(long, global = true, default_value = "/var/tmp")]
    directory: PathBuf,
    /// Makes queues on an ext4 with a journal, in a file below --directory (needs root).
    #[arg(long, global = true)]
    ext4: bool,
    /// What cargo adds for its own harness.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Calls a second, and what each does (this is the default).
    Rates {
        /// Rounds of which the median counts.
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Calls of each way in a round.
        #[arg(long, default_value_t = 100)]
        calls: usize,
        /// Calls at a time.
        #[arg(long, value_delimiter = ',', default_value = "1,4")]
        parallel: Vec<usize>,
    },
    /// What one call of each way does: system calls, syncs, instructions.
    Calls,
}

fn main() {
    let options = Options::parse();
    let disk = options.ext4.then(|| Disk::mount(&options.directory));
    let directory = disk.as_ref().map_or(options.directory.as_path(), Disk::path);
    tempfile::env::override_temp_dir(directory).unwrap();
    println!("queues in {}, messages of {MESSAGE_SIZE} octets", directory.display());
    let ways = way::all(&message());
    match options.what.unwrap_or(What::Rates { rounds: 9, calls: 100, parallel: vec![1, 4] }) {
        What::Rates { rounds, calls, parallel } => {
            for parallel in parallel {
                rates(&ways, rounds.max(1), calls.max(1), parallel.max(1));
            }
            show_calls(&ways);
        }
        What::Calls => show_calls(&ways),
    }
}

/// A message with all the header fields that a sendmail command would add.
fn message() -> Vec<u8> {
    let mut message =
        b"From: a@x.example\nTo: b@y.example\nSubject: calls\nDate: Sun, 22 Nov 2026 03:00:00 +0000\n\
        Message-ID: <1@x.example>\n\n"
            .to_vec();
    while message.len() < MESSAGE_SIZE {
        let length = (MESSAGE_SIZE - message.len()).min(72);
        message.extend(std::iter::repeat_n(b'x', length - 1));
        message.push(b'\n');
    }
    message
}

/// One way in one round.
#[derive(Clone, Copy)]
struct Run {
    /// Calls a second.
    rate: f64,
    /// Microseconds of CPU for each call, of the command and the commands it starts: a mean, as the kernel tells whole
    /// hundredths of a second.
    cpu: f64,
}

fn rates(ways: &[Way], rounds: usize, calls: usize, parallel: usize) {
    println!(
        "\n{parallel} at a time, median (least to most) of {rounds} rounds of {calls} calls; CPU is a mean"
    );
    println!("{:<42} {:>22} {:>24} {:>9}", "", "calls/s", "times Postfix's calls/s", "CPU/call");
    let mut runs = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        for turn in 0..ways.len() {
            // Nobody always comes after the same neighbour's syncs.
            let at = (round + turn) % ways.len();
            runs[at].push(run(&ways[at], calls, parallel));
        }
    }
    let reference = ways.iter().position(Way::is_reference);
    for (way, own) in ways.iter().zip(&runs) {
        let rates = Spread::of(own.iter().map(|run| run.rate));
        let ratios = reference.map(|at| {
            Spread::of(own.iter().zip(&runs[at]).map(|(own, reference)| own.rate / reference.rate))
                .with_digits(2)
        });
        println!(
            "{:<42} {:>22} {:>24} {:>6.0} us",
            way.name,
            rates.with_digits(0),
            ratios.unwrap_or_else(|| "-".into()),
            own.iter().map(|run| run.cpu).sum::<f64>() / own.len() as f64,
        );
    }
}

fn run(way: &Way, calls: usize, parallel: usize) -> Run {
    let calls_of_each = calls.div_ceil(parallel);
    let calls = calls_of_each * parallel;
    let (cpu, start) = (cpu_of_children(), Instant::now());
    thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| (0..calls_of_each).for_each(|_| way.call()));
        }
    });
    let (took, cpu) = (start.elapsed(), cpu_of_children() - cpu);
    assert_eq!(way.take_away(), calls, "{}: not every message is in the queue", way.name);
    Run { rate: calls as f64 / took.as_secs_f64(), cpu: cpu.as_secs_f64() * 1e6 / calls as f64 }
}

/// What all children that have ended have computed so far, and their children.
fn cpu_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The name, in parentheses, may hold anything; cutime and cstime are the 16th and 17th word (proc(5)), in
    // hundredths of a second.
    let words: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = words[13..15].iter().map(|word| word.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

fn show_calls(ways: &[Way]) {
    println!(
        "\n{:<42} {:>12} {:>13}  synced after the last rename",
        "one call", "system calls", "instructions"
    );
    for way in ways.iter().filter(|way| way.is_command()) {
        let count = |count: Option<u64>| count.map_or_else(|| "-".into(), |count| count.to_string());
        println!(
            "{:<42} {:>12} {:>13}  {}",
            way.name,
            count(trace::system_calls(way)),
            count(trace::instructions(way)),
            trace::syncs(way).map_or_else(|| "-".into(), |syncs| syncs.join(", ")),
        );
        way.take_away();
    }
}

/// Figures of several rounds.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(f64::total_cmp);
        Self { least: figures[0], median: figures[figures.len() / 2], most: figures[figures.len() - 1] }
    }

    fn with_digits(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.least, self.most)
    }
}
