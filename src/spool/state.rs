//! States: what is known of each recipient, one byte each, overwritten in place.
//!
//! - Owns: the bytes and the line they stand in.
//! - Leaves to others: who marks whom and when (`queue_file`, `agent`).
//! - Always true: a [`States`] has one known state for each recipient.

use std::io::Read;

use super::format::{FormatError, cut_short};

/// What is known of one recipient, as one byte that is overwritten in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// `P`: to be delivered.
    Pending,
    /// `I`: the end of data was on its way when we last wrote; the server may have the message.
    InDoubt,
    /// `R`: refused for good, and the sender has not been told yet.
    Refused,
    /// `S`: delivered.
    Sent,
    /// `B`: refused, and the bounce is on disk (or nobody wants one).
    Bounced,
}

impl State {
    /// The byte in the file.
    pub fn byte(self) -> u8 {
        match self {
            Self::Pending => b'P',
            Self::InDoubt => b'I',
            Self::Refused => b'R',
            Self::Sent => b'S',
            Self::Bounced => b'B',
        }
    }

    /// The state that a byte means.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'P' => Some(Self::Pending),
            b'I' => Some(Self::InDoubt),
            b'R' => Some(Self::Refused),
            b'S' => Some(Self::Sent),
            b'B' => Some(Self::Bounced),
            _ => None,
        }
    }

    /// Whether nothing is owed to this recipient any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Sent | Self::Bounced => true,
            Self::Pending | Self::InDoubt | Self::Refused => false,
        }
    }
}

/// The states line: one byte for the message, one per recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct States {
    pub(super) delay_notice_sent: bool,
    /// With the byte for the message in front.
    line: Vec<u8>,
}

impl States {
    /// Reads the line of a message with `count` recipients: exactly as many bytes, each one known.
    pub(super) fn read(reader: &mut impl Read, count: u32) -> Result<Self, FormatError> {
        let mut line = vec![0; count as usize + 2];
        reader.read_exact(&mut line).map_err(|error| cut_short(error, "its states line"))?;
        let (Some(b'\n'), Some(first)) = (line.pop(), line.first().copied()) else {
            return Err(FormatError::bad(format!("its states line is not {count} recipients long")));
        };
        if !matches!(first, b'-' | b'W') {
            return Err(FormatError::bad("its states line begins with neither \"-\" nor \"W\""));
        }
        match line.iter().skip(1).position(|&byte| State::from_byte(byte).is_none()) {
            Some(at) => Err(FormatError::bad(format!("the state of its recipient {at} is unknown"))),
            None => Ok(Self { delay_notice_sent: first == b'W', line }),
        }
    }

    /// All of them, by position.
    pub(super) fn iter(&self) -> impl Iterator<Item = State> + '_ {
        // `read` has seen that every byte means a state.
        self.line.iter().skip(1).filter_map(|&byte| State::from_byte(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_states_line_has_one_known_byte_for_each_recipient() {
        let states = States::read(&mut &b"WPIRSB\nrest"[..], 5).unwrap();
        assert!(states.delay_notice_sent);
        use State::{Bounced, InDoubt, Pending, Refused, Sent};
        assert_eq!(states.iter().collect::<Vec<_>>(), [Pending, InDoubt, Refused, Sent, Bounced]);
        for bad in [&b"-PP\n"[..], b"-P\n\n", b"-PPPP\n", b"-PXP\n", b"PPPP\n", b"-PP", b""] {
            assert!(States::read(&mut &bad[..], 3).is_err(), "{:?}", bad.escape_ascii().to_string());
        }
    }
}
