//! A milter that edits every message: added, inserted, changed and deleted header fields, another body, one more
//! recipient. Such edits leave queue files in which records are not in the order of their bytes.
//!
//! - Owns: the milter protocol's few words that this takes.
//! - Leaves to others: what becomes of the edited message.
//! - Always true: its thread ends with the process.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

/// Edits that it asks for, as commands and their data.
pub type Edits = Vec<(u8, Vec<u8>)>;

/// Starts a milter that makes these edits; its port.
pub fn start(edits: &Edits) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let edits = edits.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let edits = edits.clone();
            thread::spawn(move || serve(stream, &edits));
        }
    });
    port
}

/// Adds a header field at the end.
pub fn add(name: &str, value: &str) -> (u8, Vec<u8>) {
    (b'h', format!("{name}\0{value}\0").into_bytes())
}

/// Inserts a header field at a place.
pub fn insert(at: u32, name: &str, value: &str) -> (u8, Vec<u8>) {
    (b'i', [&at.to_be_bytes()[..], format!("{name}\0{value}\0").as_bytes()].concat())
}

/// Changes the first header field of a name; without a value it is deleted.
pub fn change(name: &str, value: &str) -> (u8, Vec<u8>) {
    (b'm', [&1_u32.to_be_bytes()[..], format!("{name}\0{value}\0").as_bytes()].concat())
}

/// Puts another body in the place of the message's.
pub fn replace_body(text: &str) -> (u8, Vec<u8>) {
    (b'b', text.as_bytes().to_vec())
}

/// One more recipient.
pub fn add_recipient(address: &str) -> (u8, Vec<u8>) {
    (b'+', format!("<{address}>\0").into_bytes())
}

/// Serves a connection to its end, which is the mail system's.
fn serve(mut stream: TcpStream, edits: &Edits) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut packet)?;
        match packet.first() {
            // Version 6, all edits allowed, every step wanted.
            Some(b'O') => {
                let words = [6_u32, 0x1ff, 0].map(u32::to_be_bytes).concat();
                say(&mut stream, b'O', &words)?;
            }
            Some(b'D' | b'A' | b'K') => {}
            Some(b'Q') | None => return Ok(()),
            Some(b'E') => {
                for (command, data) in edits {
                    say(&mut stream, *command, data)?;
                }
                say(&mut stream, b'c', b"")?;
            }
            Some(_) => say(&mut stream, b'c', b"")?,
        }
    }
}

fn say(stream: &mut TcpStream, command: u8, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len() + 1).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], &[command], data].concat())
}
