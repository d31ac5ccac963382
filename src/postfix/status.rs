//! What a process tells master(8) about itself.
//!
//! - Owns: the records on the status channel.
//! - Leaves to others: the channel, and when there is something to tell (`service`).
//! - Always true: a record is written whole or not at all, and nobody answers.
//!
//! Only two are ever sent, once, after the first connection was accepted. A process that master(8) has counted as used
//! may die without its service being throttled: its successor starts at the next connection, not a minute later. With
//! one process for everything, when it is busy is of no interest to master(8).

/// Octets of one record.
pub const RECORD_SIZE: usize = 12;

/// Whether a process could take a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is busy.
    Taken,
    /// It waits for connections.
    Available,
}

/// One record: three numbers of Postfix's type `int`, as this machine keeps them in memory. `pid` is the process that
/// master(8) has started; `generation` is what `GENERATION` said.
pub fn record(pid: i32, generation: u32, status: Status) -> [u8; RECORD_SIZE] {
    let status: i32 = match status {
        Status::Taken => 0,
        Status::Available => 1,
    };
    let mut record = [0; RECORD_SIZE];
    let numbers = [pid.to_ne_bytes(), generation.to_ne_bytes(), status.to_ne_bytes()];
    record.copy_from_slice(numbers.as_flattened());
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_what_postfix_s_own_programs_send() {
        // As captured from lmtp(8) of Postfix 3.7 on a little-endian machine, process 5859, GENERATION=74.
        let generation = u32::from_str_radix("74", 8).unwrap();
        let head = [5859_i32.to_ne_bytes(), 60_i32.to_ne_bytes()];
        for (status, last) in [(Status::Taken, 0_i32), (Status::Available, 1)] {
            let octets = record(5859, generation, status);
            assert_eq!(octets, *[head[0], head[1], last.to_ne_bytes()].as_flattened());
            if cfg!(target_endian = "little") {
                let captured = [0xe3, 0x16, 0, 0, 0x3c, 0, 0, 0, last as u8, 0, 0, 0];
                assert_eq!(octets, captured);
            }
        }
    }
}
