//! `lastmile status`: what the running agent is doing.
//!
//! - Owns: the columns.
//! - Leaves to others: the numbers (`agent`).
//! - Always true: 69 and one sentence where no agent runs.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::Configured;
use super::control_client::{Client, ClientError};
use super::failure::Failure;
use crate::agent::control::{DestinationStatus, Status};
use crate::agent::queue_control::{Line, Request};
use crate::config::Config;

/// Options of `lastmile status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Everybody may ask. Exit codes: 0; 69 no agent is running, or it does not answer; 78 wrong \
                        configuration."
)]
pub struct Options {
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// Runs the command.
pub fn run(options: Options) -> ExitCode {
    let json = options.json;
    let result = Config::load(&options.configured.sources()).map_err(Failure::from).and_then(|config| {
        let status = ask(&config)?;
        let text =
            if json { serde_json::to_string(&status).map(|line| line + "\n") } else { Ok(text(&status)) };
        let written = text.map_err(io::Error::from).and_then(|text| io::stdout().write_all(text.as_bytes()));
        Ok(written.map_err(ClientError::Output)?)
    });
    result.map_or_else(|failure| failure.tell("lastmile status"), |()| ExitCode::SUCCESS)
}

fn ask(config: &Config) -> Result<Status, Failure> {
    let mut client = Client::connect(&config.queue_directory)?;
    let mut status = None;
    client.ask(&Request::Status {}, &mut |line| {
        if let Line::Status(numbers) = line {
            status = Some(*numbers);
        }
        Ok(())
    })?;
    status.ok_or_else(|| Failure::new(super::EX_UNAVAILABLE, "the agent has answered without its numbers"))
}

/// The numbers for people.
fn text(status: &Status) -> String {
    let Status { pid, workers_busy, workers_idle, messages, recipients, active_limit, .. } = status;
    let mut text = format!(
        "agent         pid {pid}, up {}\n\
         workers       {workers_busy} busy, {workers_idle} idle\n\
         connections   {} open\n\
         in memory     {messages} messages, {recipients} of at most {active_limit} recipients\n",
        span(status.uptime),
        status.connections,
    );
    // Writing to a String cannot fail.
    for (name, total) in [("sent", status.sent), ("deferred", status.deferred), ("bounced", status.bounced)] {
        let _ = writeln!(text, "{name:<13} {total:<10} {}", rate(total, status.uptime));
    }
    text.push('\n');
    text.push_str(&destinations(&status.destinations));
    text
}

/// How many in a minute since the start.
fn rate(total: u64, uptime: u64) -> String {
    // Tenths, without a float that would show more than is known.
    let tenths = total.saturating_mul(600) / uptime.max(1);
    format!("{}.{} a minute since the start", tenths / 10, tenths % 10)
}

fn destinations(destinations: &[DestinationStatus]) -> String {
    if destinations.is_empty() {
        return "no destination has mail, or a failure that is remembered\n".to_owned();
    }
    let width = destinations.iter().map(|d| d.destination.chars().count()).max().unwrap_or(0).clamp(11, 60);
    let mut text = format!("{:<width$}  {:>10}  {:>9}  condition\n", "destination", "waiting", "under way");
    for DestinationStatus { destination, waiting, in_flight, resting, reason } in destinations {
        let condition = match (resting, reason) {
            (Some(seconds), Some(reason)) => format!("rests for {}: {reason}", span(*seconds)),
            (Some(seconds), None) => format!("rests for {}", span(*seconds)),
            (None, Some(reason)) => format!("tried again after: {reason}"),
            (None, None) => "well".to_owned(),
        };
        let condition: String = condition.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let _ = writeln!(text, "{destination:<width$}  {waiting:>10}  {in_flight:>9}  {condition}");
    }
    text
}

/// A time of this many seconds, in its two largest units.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3_661, "1h 1m"), (90_000, "1d 1h"), (864_000, "10d 0h")]
        {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(rate(0, 0), "0.0 a minute since the start");
        assert_eq!(rate(90, 120), "45.0 a minute since the start");
        assert_eq!(rate(1, 3600), "0.0 a minute since the start");
        assert_eq!(rate(u64::MAX, 1).len(), "1844674407370955161.5 a minute since the start".len());
    }

    #[test]
    fn each_destination_has_a_line_with_its_condition() {
        let destination = |name: &str, resting, reason: Option<&str>| DestinationStatus {
            destination: name.into(),
            waiting: 3,
            in_flight: 1,
            resting,
            reason: reason.map(str::to_owned),
        };
        let text = destinations(&[
            destination("lmtp:unix:/a", None, None),
            destination("lmtp:unix:/bb", Some(61), Some("refused\nforged")),
        ]);
        let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[1], ["lmtp:unix:/a", "3", "1", "well"]);
        assert_eq!(lines[2][..3], ["lmtp:unix:/bb", "3", "1"]);
        assert!(text.contains("rests for 1m 1s: refused?forged"), "{text}");
    }
}
