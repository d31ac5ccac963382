//! Logins with servers that say anything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastmile::smtp::{
    Answer, Credentials, Exchange, Line, Login, Proof, Reply, Secret, SecurityOptions, known_mechanisms,
    parse_auth_reply,
};

use super::assert_one_line;

/// Replies before a server must have come to its end: no mechanism has more messages.
const REPLIES_MAX: usize = 6;
/// What nobody may see.
const CANARY: &str = "canary-7Jz0qX";

/// A server's lines. The first names a mechanism; `334+` and octets is a challenge of these, in which `%r` is our nonce;
/// any other line is a reply as it stands. However it goes, the exchange ends, logs in nowhere where the server has to prove
/// something and has not, and shows no secret.
pub fn auth(input: &[u8]) {
    let mut lines = input.split(|&octet| octet == b'\n');
    let (name, can_bind) = mechanism(lines.next().unwrap_or_default());
    let proof = match name {
        "EXTERNAL" => Proof::Certificate,
        "OAUTHBEARER" | "XOAUTH2" => Proof::Token(Secret::new(CANARY.to_owned())),
        _ => Proof::Password(Secret::new(CANARY.to_owned())),
    };
    let login = Login {
        credentials: &Credentials { username: "tim".to_owned(), proof },
        options: SecurityOptions::default(),
        filter: &[name.to_owned()],
        host: "mx.example.org",
        port: 25,
        channel_binding: can_bind.then_some(&[7; 32]),
        is_server_known: false,
    };
    let offered: Vec<String> = known_mechanisms().iter().map(ToString::to_string).collect();
    match Exchange::begin("mx.example.org[192.0.2.1]", &offered, &login) {
        Ok((exchange, first)) => converse(exchange, &first, name, lines),
        Err(reason) => assert!(!can_bind && name.ends_with("-PLUS"), "{}", reason.text),
    }
}

/// Which one, and whether there is something to bind to: a `+` behind its name.
fn mechanism(line: &[u8]) -> (&'static str, bool) {
    let (line, can_bind) = line.strip_suffix(b"+").map_or((line, false), |name| (name, true));
    let named = known_mechanisms().iter().find(|name| name.as_bytes() == line);
    (named.copied().unwrap_or(known_mechanisms()[line.len() % known_mechanisms().len()]), can_bind)
}

fn converse<'a>(mut exchange: Exchange, first: &Line, name: &str, lines: impl Iterator<Item = &'a [u8]>) {
    let mut shown = first.shown.clone();
    let nonce = nonce(first);
    // A server that never comes to an end.
    let endless = std::iter::repeat(&b"334+"[..]);
    for (count, line) in lines.chain(endless).filter_map(|line| reply(line, &nonce)).enumerate() {
        assert!(count < REPLIES_MAX, "{name} goes on after {count} replies");
        shown += &exchange.shown(&line);
        let answer = exchange.on_reply(&line);
        shown += &format!("{exchange:?}");
        match answer {
            Answer::Send(line) => {
                let ends = line.octets.iter().filter(|octet| octet.is_ascii_control()).count();
                assert!(line.octets.ends_with(b"\r\n") && ends == 2, "{line:?}");
                assert!(line.octets.len() <= 12_290, "{} octets", line.octets.len());
                assert_one_line(&line.shown);
                shown += &line.shown;
            }
            Answer::Accepted => {
                assert!(!name.starts_with("SCRAM"), "nobody has proved to know the password");
                break;
            }
            Answer::Refused(reason) => {
                assert_eq!(reason.status.class(), 4);
                assert_one_line(&reason.text);
                // A reply is told as it came; what we say of it is short.
                let said = reason.reply.as_ref().map_or(0, String::len);
                assert!(reason.text.len() <= said + 500, "{}", reason.text);
                shown += &format!("{reason:?}");
                break;
            }
        }
    }
    assert!(!shown.contains(CANARY), "{shown}");
}

/// The nonce of a first message of SCRAM.
fn nonce(first: &Line) -> Vec<u8> {
    let line = String::from_utf8(first.octets.to_vec()).unwrap();
    let message = STANDARD.decode(line.trim_end().rsplit(' ').next().unwrap()).unwrap_or_default();
    let at = message.windows(3).position(|window| window == b",r=");
    at.map_or_else(Vec::new, |at| message[at + 3..].to_vec())
}

fn reply(line: &[u8], nonce: &[u8]) -> Option<Reply> {
    let octets = match line.strip_prefix(b"334+") {
        Some(challenge) => {
            let parts: Vec<&[u8]> = match challenge.windows(2).position(|window| window == b"%r") {
                Some(at) => vec![&challenge[..at], nonce, &challenge[at + 2..]],
                None => vec![challenge],
            };
            format!("334 {}\r\n", STANDARD.encode(parts.concat())).into_bytes()
        }
        None => [line, b"\n"].concat(),
    };
    parse_auth_reply(&octets).ok()?.map(|(reply, _)| reply)
}
