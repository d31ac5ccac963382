//! What the agent costs: messages a second of the agent with its queue and log, beside a bare loop that sends the
//! same octets over the same kind of connections, prebuilt, and only counts replies.
//!
//! ```sh
//! cargo bench --bench throughput                            # the ratio at 1, 4 and 16 connections, queue in memory
//! cargo bench --bench throughput -- --ext4                  # the same on a journalled file system (root)
//! cargo bench --bench throughput -- backlog                 # peak memory with 100,000 queue files waiting
//! cargo bench --bench throughput -- list                    # one message to 100,000 recipients
//! cargo bench --bench throughput -- instructions            # instructions per message (valgrind)
//! ```
//!
//! - Owns: the measurements and the tables they print.
//! - Leaves to others: the queue files and agents (`site`), the bare loop (`bare`), the file system (`disk`).
//! - Always true: what removes files too is compared with the time until the queue is empty, what does not with the time
//!   until all has arrived; agent and bare loop take turns within one run, against the same server, and each figure is the
//!   median of its rounds: on a busy machine the ratio is worth more than the rates.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made fails by panicking")]

#[path = "../../tests/common/mod.rs"]
mod common;

mod bare;
mod disk;
mod site;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use lastmile::sink::{Handle, Listen, Sink, SinkConfig};

use bare::Bare;
use disk::Disk;
use site::{Queue, Run};

/// Measures the agent against the bare limit.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Where queues are made; a tmpfs shows what the code costs.
    #[arg(long, global = true, default_value = "/dev/shm")]
    directory: PathBuf,
    /// Makes queues on an ext4 with a journal, in a file below --directory, which should be on a real disk then
    /// (needs root; /var/tmp unless --directory is given).
    #[arg(long, global = true)]
    ext4: bool,
    /// Rounds of which the median counts.
    #[arg(long, global = true, default_value_t = 5)]
    rounds: usize,
    /// What cargo adds for its own harness.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Rates beside the bare limit (this is the default).
    Ratio {
        /// Queue files of 2 KB for each round.
        #[arg(long, default_value_t = 20_000)]
        messages: usize,
        /// Connections at a time.
        #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
        connections: Vec<usize>,
    },
    /// Memory and rate with many queue files waiting.
    Backlog {
        /// How many.
        #[arg(long, default_value_t = 100_000)]
        messages: usize,
    },
    /// One message to many recipients.
    List {
        /// How many.
        #[arg(long, default_value_t = 100_000)]
        recipients: usize,
    },
    /// Instructions that the agent runs for a message, counted by callgrind: they repeat where times do not.
    Instructions {
        /// Connections at a time.
        #[arg(long, default_value_t = 4)]
        connections: usize,
    },
}

fn main() {
    let mut options = Options::parse();
    if options.ext4 && options.directory == std::path::Path::new("/dev/shm") {
        options.directory = "/var/tmp".into();
    }
    let disk = options.ext4.then(|| Disk::mount(&options.directory));
    let directory = disk.as_ref().map_or(options.directory.as_path(), Disk::path);
    tempfile::env::override_temp_dir(directory).unwrap();
    println!("queues in {}", directory.display());
    let ratio = What::Ratio { messages: 20_000, connections: vec![1, 4, 16] };
    match options.what.unwrap_or(ratio) {
        What::Ratio { messages, connections } => ratios(messages, &connections, options.rounds),
        What::Backlog { messages } => backlog(messages),
        What::List { recipients } => list(recipients),
        What::Instructions { connections } => instructions(connections),
    }
}

/// A server that throws mail away, in this process.
fn server(queue: &Queue) -> Handle {
    Sink::start(SinkConfig::new(Listen::Unix(queue.socket()))).unwrap()
}

fn ratios(messages: usize, connections: &[usize], rounds: usize) {
    println!("{messages} messages of {} octets, median of {rounds} rounds", site::CONTENT_SIZE);
    println!(
        "{:>11} {:>12} {:>12} {:>10} {:>13} {:>16} {:>14} {:>13} {:>11}",
        "connections",
        "agent msg/s",
        "bare msg/s",
        "agent/bare",
        "emptied msg/s",
        "with files msg/s",
        "emptied/files",
        "agent CPU/msg",
        "agent peak"
    );
    for &connections in connections {
        let (mut runs, mut limits, mut file_limits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            let queue = Queue::new(connections);
            let server = server(&queue);
            let bare = |files| Bare { socket: queue.socket(), connections, messages, files }.rate();
            limits.push(bare(Vec::new()));
            queue.fill(messages);
            file_limits.push(bare(queue.files()));
            queue.clear();
            queue.fill(messages);
            runs.push(queue.run(&server, messages));
        }
        let agent = median(runs.iter().map(|run| run.rate(messages)));
        let emptied = median(runs.iter().map(|run| run.emptied_rate(messages)));
        let (bare, with_files) = (median(limits), median(file_limits));
        println!(
            "{connections:>11} {agent:>12.0} {bare:>12.0} {:>10.2} {emptied:>13.0} {with_files:>16.0} {:>14.2} \
             {:>10.1} us {:>11}",
            agent / bare,
            emptied / with_files,
            median(runs.iter().map(|run| run.cpu_per_message(messages))),
            mebioctets(runs.iter().map(|run| run.peak_memory).max().unwrap_or(0)),
        );
    }
}

fn backlog(messages: usize) {
    let queue = Queue::new(16);
    let server = server(&queue);
    queue.fill(messages);
    show(&format!("{messages} queue files"), &queue.run(&server, messages), messages);
}

fn list(recipients: usize) {
    let queue = Queue::new(16);
    let server = server(&queue);
    queue.put_list(recipients);
    show(&format!("one message to {recipients} recipients"), &queue.run(&server, recipients), recipients);
}

fn show(what: &str, run: &Run, deliveries: usize) {
    println!(
        "{what}: {:.0} deliveries/s, {:.1} us of the agent's CPU for each, peak memory {}, at most {} descriptors",
        run.rate(deliveries),
        run.cpu_per_message(deliveries),
        mebioctets(run.peak_memory),
        run.descriptors,
    );
}

/// The difference between two runs: what the start and the end cost falls out.
fn instructions(connections: usize) {
    let count = |messages| {
        let queue = Queue::new(connections);
        let server = server(&queue);
        queue.fill(messages);
        queue.count_instructions(&server, messages)
    };
    let (few, many) = (500, 2500);
    let each = (count(many) - count(few)) / (many - few) as u64;
    println!("{each} instructions for each message, at {connections} connections");
}

fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn mebioctets(octets: u64) -> String {
    format!("{:.1} MiB", Duration::from_micros(octets).as_secs_f64() * 1e6 / f64::from(1 << 20))
}
