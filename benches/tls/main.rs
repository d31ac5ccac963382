//! What TLS costs: messages a second over warm connections, plain and encrypted; connections a second, plain, with a full
//! handshake each, and with resumption.
//!
//! ```sh
//! cargo bench --bench tls                                   # all of it
//! cargo bench --bench tls -- --rounds 9 --messages 20000
//! ```
//!
//! - Owns: the measurements and the table they print.
//! - Leaves to others: the client (`lastmile::net`), the server (`lastmile::sink`), which throws the mail away and runs in
//!   the same process: what is measured is what both ends cost together.
//! - Always true: all ways take turns within each round, and each figure is the median of its rounds: on a busy machine the
//!   ratio is worth more than the rates.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made fails by panicking")]

#[path = "../../tests/common/mod.rs"]
mod common;

mod client;

use std::time::Instant;

use clap::Parser;
use lastmile::sink::{Handle, Listen, Sink, SinkConfig, TlsConfig};

use client::{Keep, Load, Way};
use common::certificates::{Certificates, Kind};

/// Measures connections with TLS beside plain ones.
#[derive(Parser)]
struct Options {
    /// Rounds of which the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages of 2 KB over warm connections, in each round; a hundredth of it of 1 MB.
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    /// Connections with one message each, in each round.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// What cargo adds for its own harness.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(directory.path(), &["localhost"]);
    let (_server, port) = server(&certificates);
    let small = Load { size: 2048, messages: options.messages, keep: Keep::Connection };
    let large = Load { size: 1 << 20, messages: options.messages / 100, keep: Keep::Connection };
    for (title, load) in [("warm, 2 KB", small), ("warm, 1 MB", large)] {
        let ways = ["none", "TLSv1.2", "TLSv1.3"].map(|tls| Way::new(port, &certificates.authority, tls));
        show(title, &ways, &vec![load; ways.len()], options.rounds);
    }
    let ways = ["none", "TLSv1.2", "TLSv1.2", "TLSv1.3", "TLSv1.3"];
    let ways = ways.map(|tls| Way::new(port, &certificates.authority, tls));
    let once = |keep| Load { size: 2048, messages: options.connections, keep };
    let loads = [Keep::Sessions, Keep::Nothing, Keep::Sessions, Keep::Nothing, Keep::Sessions].map(once);
    show("one message a connection", &ways, &loads, options.rounds);
}

/// A server that throws mail away.
fn server(certificates: &Certificates) -> (Handle, u16) {
    let identity = certificates.of(Kind::Good);
    let config = SinkConfig {
        tls: Some(TlsConfig::new(&identity.chain, &identity.key)),
        ..SinkConfig::new("inet:127.0.0.1:0".parse().unwrap())
    };
    let handle = Sink::start(config).unwrap();
    let Listen::Tcp(address) = handle.addresses()[0] else { panic!("a TCP address was asked for") };
    (handle, address.port())
}

/// Measures each way with its load, in turns, and prints messages a second beside the first way's.
fn show(title: &str, ways: &[Way], loads: &[Load], rounds: usize) {
    println!("{title} (median of {rounds} rounds)");
    let mut rates = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for ((way, load), rates) in ways.iter().zip(loads).zip(&mut rates) {
            let start = Instant::now();
            way.deliver(load);
            rates.push(load.messages as f64 / start.elapsed().as_secs_f64());
        }
    }
    let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    for ((way, load), rate) in ways.iter().zip(loads).zip(&medians) {
        println!("{:>10} {:<16} {rate:>9.0} msg/s {:>6.2}", way.tls(), load.keep.word(), rate / medians[0]);
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
