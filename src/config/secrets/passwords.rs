//! The table of names and passwords: lines `server  username:password`, as Postfix has them.
//!
//! - Owns: its syntax, which entry is for a server, tokens in files of their own.
//! - Leaves to others: reading the table's file (`files`), what is done with an entry (`smtp::auth`).
//! - Always true: what is said of a line has its number and nothing of what stands in it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::files::{Place, Readers, TOKEN_SIZE_MAX, Trouble};
use crate::config::parse::is_secret_path;
use crate::config::server_key::ServerKey;
use crate::mail::Server;
use crate::smtp::{Credentials, Proof, Secret};

/// Octets of a name, a password or a token: more than this would not fit into a line of the exchange.
const LENGTH_MAX: usize = 8192;
/// Problems of one table that are told.
const PROBLEMS_MAX: usize = 10;

/// Names and passwords, by server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passwords(BTreeMap<ServerKey, Login>);

/// Whom we are to one server.
#[derive(Debug, PartialEq, Eq)]
struct Login {
    /// The line of the table, counted from 1.
    line: usize,
    username: String,
    proof: StoredProof,
}

#[derive(Debug, PartialEq, Eq)]
enum StoredProof {
    Password(Secret),
    /// A file whose first line is a token, and another one after a while.
    TokenFile(PathBuf),
    Certificate,
}

impl Passwords {
    /// Reads a table. The error has everything that is wrong, up to a bound, each with the number of its line.
    pub(super) fn parse(table: &[u8]) -> Result<Self, Vec<String>> {
        let table = without_mark(table);
        let text = std::str::from_utf8(table).map_err(|error| {
            let before = table.get(..error.valid_up_to()).unwrap_or_default();
            vec![format!("line {} is not UTF-8", memchr::memchr_iter(b'\n', before).count() + 1)]
        })?;
        let (mut logins, mut wrong) = (BTreeMap::new(), Vec::new());
        for (line, text) in logical_lines(text) {
            if let Err(what) = add(&mut logins, line, &text) {
                wrong.push(format!("line {line} {what}"));
            }
        }
        if logins.is_empty() && wrong.is_empty() {
            wrong.push("there is no entry in it".to_owned());
        }
        if let Some(more) = wrong.len().checked_sub(PROBLEMS_MAX).filter(|more| *more > 0) {
            wrong.truncate(PROBLEMS_MAX);
            wrong.push(format!("{more} more of its lines are wrong"));
        }
        if wrong.is_empty() { Ok(Self(logins)) } else { Err(wrong) }
    }

    /// Whom we are to `server`: by host and port, by host, then by each domain above it, the longest first. A token is read
    /// now. The error is a sentence without its end.
    pub(super) fn find(&self, server: &Server, place: Place<'_>) -> Result<Option<Credentials>, String> {
        let Some(login) = keys_of(server).iter().find_map(|key| self.0.get(key)) else { return Ok(None) };
        let proof = match &login.proof {
            StoredProof::Password(password) => Proof::Password(password.clone()),
            StoredProof::Certificate => Proof::Certificate,
            StoredProof::TokenFile(path) => Proof::Token(token(path, place).map_err(|trouble| trouble.text)?),
        };
        Ok(Some(Credentials { username: login.username.clone(), proof }))
    }

    /// Whether there is an entry for `server`, whatever may be wrong with its token.
    pub(super) fn has_entry(&self, server: &Server) -> bool {
        keys_of(server).iter().any(|key| self.0.contains_key(key))
    }

    /// The lines that leave the password out, but for sockets.
    pub(super) fn lines_without_password(&self) -> Vec<usize> {
        let is_it = |key: &ServerKey, login: &Login| {
            !matches!(key, ServerKey::Socket(_)) && login.proof == StoredProof::Certificate
        };
        let logins = self.0.iter().filter(|(key, login)| is_it(key, login));
        let mut lines: Vec<_> = logins.map(|(_, login)| login.line).collect();
        lines.sort_unstable();
        lines
    }

    /// The files with tokens, and the lines that name them.
    pub(super) fn token_files(&self) -> impl Iterator<Item = (usize, &Path)> {
        self.0.values().filter_map(|login| match &login.proof {
            StoredProof::TokenFile(path) => Some((login.line, path.as_path())),
            StoredProof::Password(_) | StoredProof::Certificate => None,
        })
    }

    /// What is wrong with files of tokens right now: of each, a sentence without its end.
    pub(super) fn token_troubles(&self, place: Place<'_>) -> Vec<String> {
        self.token_files()
            .filter_map(|(line, path)| Some(format!("line {line}: {}", token(path, place).err()?.text)))
            .collect()
    }
}

/// A text without the mark that some editors put in front of UTF-8.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

/// The keys of a table that stand for `server`, the closest first. Unlike in other tables, a domain stands for what is below
/// it with and without a dot in front.
fn keys_of(server: &Server) -> Vec<ServerKey> {
    let keys = ServerKey::of(server).into_iter().flat_map(|key| {
        let without_dot = match &key {
            ServerKey::Below(domain) => Some(ServerKey::Host { host: domain.clone(), port: None }),
            _ => None,
        };
        [Some(key), without_dot]
    });
    keys.flatten().collect()
}

/// Lines with what continues them, each with the number of its first one: a line that begins with a blank continues the one
/// before; empty lines and those that begin with `#` are none.
fn logical_lines(text: &str) -> Vec<(usize, Zeroizing<String>)> {
    let mut lines: Vec<(usize, Zeroizing<String>)> = Vec::new();
    let mut physical = (1..).zip(text.lines()).peekable();
    while let Some((number, first)) = physical.next() {
        if is_nothing(first) {
            continue;
        }
        let mut parts = vec![first];
        while let Some((_, next)) =
            physical.next_if(|(_, next)| is_nothing(next) || next.starts_with([' ', '\t']))
        {
            parts.extend(Some(next).filter(|next| !is_nothing(next)));
        }
        // Joined in one piece: a string that grows leaves copies behind.
        lines.push((number, Zeroizing::new(parts.concat())));
    }
    lines
}

fn is_nothing(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// Adds the entry that a line has. The error goes behind the number of the line.
fn add(logins: &mut BTreeMap<ServerKey, Login>, line: usize, text: &str) -> Result<(), String> {
    if text.starts_with([' ', '\t']) {
        return Err("begins with a blank, and there is no entry before it that it could continue".to_owned());
    }
    let (key, value) = text.split_once([' ', '\t']).ok_or("has no name and password behind the server")?;
    let key = ServerKey::parse(key).map_err(|what| match key.contains('@') {
        true => "begins with a mail address; logins go by servers".to_owned(),
        false => format!("begins with no server: {what}"),
    })?;
    let login = login(line, value.trim())?;
    match logins.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert(login);
            Ok(())
        }
        // Postfix wants `[host]` and `host` both, where we have no look-up in between.
        Entry::Occupied(other)
            if (&other.get().username, &other.get().proof) == (&login.username, &login.proof) =>
        {
            Ok(())
        }
        Entry::Occupied(other) => {
            Err(format!("is for the same server as line {}, and says something else", other.get().line))
        }
    }
}

/// `username:password`, `username:token-file:/PATH`, `username:` or `:`.
fn login(line: usize, value: &str) -> Result<Login, String> {
    // Taken as they are, these would be part of a name or password that no server knows.
    if value.starts_with('=') {
        return Err("has = behind the server: only blanks stand before username:password".to_owned());
    }
    if value.len() > 1 && value.starts_with('"') && value.ends_with('"') {
        return Err("has double quotes around name and password, where none are needed".to_owned());
    }
    let (username, proof) = value.split_once(':').ok_or("has no colon: username:password is needed")?;
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return Err("has a control character".to_owned());
    }
    if username.len() > LENGTH_MAX || proof.len() > LENGTH_MAX {
        return Err(format!("is too long: a name or password has at most {LENGTH_MAX} bytes"));
    }
    let proof = match proof.strip_prefix("token-file:") {
        _ if proof.is_empty() => StoredProof::Certificate,
        _ if username.is_empty() => return Err("has a password, but no name".to_owned()),
        _ if username == "token-file" && is_secret_path(proof) => {
            return Err("names a file with a token, but no name before it: username:token-file:/PATH is \
                        needed"
                .to_owned());
        }
        Some(path) if is_secret_path(path) => StoredProof::TokenFile(path.into()),
        Some(_) => return Err("names the file of its token by no path that begins with /".to_owned()),
        None => StoredProof::Password(Secret::new(proof.to_owned())),
    };
    Ok(Login { line, username: username.to_owned(), proof })
}

/// The first line of a file.
fn token(path: &Path, place: Place<'_>) -> Result<Secret, Trouble> {
    let content = place.read(path, TOKEN_SIZE_MAX, Readers::Few)?;
    let first = content.split(|octet| *octet == b'\n').next().unwrap_or_default().trim_ascii();
    let token =
        std::str::from_utf8(first).ok().filter(|token| token.bytes().all(|octet| octet.is_ascii_graphic()));
    match token {
        Some("") => Err(Trouble::wrong(path, "its first line, which should be a token, is empty")),
        Some(token) if token.len() <= LENGTH_MAX => Ok(Secret::new(token.to_owned())),
        Some(_) => Err(Trouble::wrong(
            path,
            format_args!("its first line is longer than {LENGTH_MAX} bytes, which no token is"),
        )),
        None => Err(Trouble::wrong(
            path,
            "its first line is no token: there are blanks in it, or what is not ASCII",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    const NOWHERE: Place<'_> = Place { credentials: None };

    fn tcp(host: &str, port: u16) -> Server {
        Server::Tcp { host: host.to_owned(), port: port.try_into().unwrap() }
    }

    fn said(table: &str) -> Vec<String> {
        Passwords::parse(table.as_bytes()).unwrap_err()
    }

    /// Name and password for a server.
    fn found(table: &Passwords, server: &Server) -> Option<(String, String)> {
        let credentials = table.find(server, NOWHERE).unwrap()?;
        let proof = match credentials.proof {
            Proof::Password(password) => password.expose().to_owned(),
            Proof::Token(token) => format!("token {}", token.expose()),
            Proof::Certificate => "certificate".to_owned(),
        };
        Some((credentials.username, proof))
    }

    #[test]
    fn the_closest_entry_is_taken() {
        let table = Passwords::parse(
            b"relay.a.example:587 port:1\n[relay.a.example] host:2\na.example domain:3\n.b.example below:4\nexample top:5\n\
              [2001:db8::1]:24 six:6\nunix:/run/lmtp socket:7\n",
        )
        .unwrap();
        for (server, name) in [
            (tcp("relay.a.example", 587), Some("port")),
            (tcp("Relay.A.Example", 25), Some("host")),
            (tcp("other.a.example", 25), Some("domain")),
            (tcp("deep.other.a.example", 25), Some("domain")),
            (tcp("a.example", 25), Some("domain")),
            (tcp("x.b.example", 25), Some("below")),
            (tcp("b.example", 25), Some("top")),
            (tcp("example", 25), Some("top")),
            (tcp("example.org", 25), None),
            (tcp("2001:db8::1", 24), Some("six")),
            (tcp("2001:db8::1", 25), None),
            (Server::Unix("/run/lmtp".into()), Some("socket")),
            (Server::Unix("/run/other".into()), None),
        ] {
            assert_eq!(found(&table, &server).map(|(name, _)| name).as_deref(), name, "{server}");
        }
    }

    #[test]
    fn a_line_may_be_continued_and_a_password_may_hold_anything_visible() {
        let table = Passwords::parse(
            "# a comment\n\n  # another\nmx1\tme@x.example:a:b c#d\u{e9} \r\nmx2\n  # within\n\n   \
                you:pass\n\tword\nmx3 :\nmx4 name:\nmx5 token-file:word\nmx6 a=:=b\nmx7 a:\"b\"\nmx8 \":\n"
                .as_bytes(),
        )
        .unwrap();
        for (host, name, proof) in [
            ("mx1", "me@x.example", "a:b c#d\u{e9}"),
            ("mx2", "you", "pass\tword"),
            ("mx3", "", "certificate"),
            ("mx4", "name", "certificate"),
            ("mx5", "token-file", "word"),
            ("mx6", "a=", "=b"),
            ("mx7", "a", "\"b\""),
            ("mx8", "\"", "certificate"),
        ] {
            assert_eq!(found(&table, &tcp(host, 25)), Some((name.to_owned(), proof.to_owned())), "{host}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_line_without_what_stands_there() {
        let server = "a server is named as host, host:port, [address], .domain (all hosts below it) or by its \
            socket's path";
        for (table, what) in [
            ("mx1 a:canary\nmx2 canary", "line 2 has no colon: username:password is needed"),
            ("canary:canary", "line 1 has no name and password behind the server"),
            ("\n\nmx1 :canary", "line 3 has a password, but no name"),
            (
                "mx1 a:canary\nMX1 a:canaries",
                "line 2 is for the same server as line 1, and says something else",
            ),
            ("me@canary a:canary", "line 1 begins with a mail address; logins go by servers"),
            ("*canary a:canary", &format!("line 1 begins with no server: {server}")),
            (
                "  mx1 a:canary",
                "line 1 begins with a blank, and there is no entry before it that it could continue",
            ),
            ("mx1 a:canary\u{0}", "line 1 has a control character"),
            ("mx1 a:token-file:canary", "line 1 names the file of its token by no path that begins with /"),
            ("mx1 :token-file:/canary", "line 1 has a password, but no name"),
            (
                "mx1 token-file:/canary",
                "line 1 names a file with a token, but no name before it: username:token-file:/PATH is needed",
            ),
            (
                "mx1 token-file:$CREDENTIALS_DIRECTORY/canary",
                "line 1 names a file with a token, but no name before it: username:token-file:/PATH is needed",
            ),
            ("mx1 = a:canary", "line 1 has = behind the server: only blanks stand before username:password"),
            ("mx1 =a:canary", "line 1 has = behind the server: only blanks stand before username:password"),
            ("mx1 \"a:canary\"", "line 1 has double quotes around name and password, where none are needed"),
            (
                "mx1 \"a\":\"canary\"",
                "line 1 has double quotes around name and password, where none are needed",
            ),
            ("", "there is no entry in it"),
            ("# canary\n", "there is no entry in it"),
            (
                &format!("mx1 a:{}", "x".repeat(8193)),
                "line 1 is too long: a name or password has at most 8192 bytes",
            ),
        ] {
            assert_eq!(said(table), [what], "{table:.30}");
        }
        assert_eq!(Passwords::parse(b"mx1 a:b\nmx2 c:\xff").unwrap_err(), ["line 2 is not UTF-8"]);
        let many = said(&"canary\n".repeat(1000));
        assert_eq!((many.len(), many[10].as_str()), (11, "990 more of its lines are wrong"));
    }

    #[test]
    fn the_mark_of_an_editor_in_front_is_no_part_of_the_first_server() {
        let table = Passwords::parse("\u{feff}mx1 a:b\nmx2 c:d".as_bytes()).unwrap();
        assert_eq!(found(&table, &tcp("mx1", 25)), Some(("a".into(), "b".into())));
        assert_eq!(said("mx1 a:b\n\u{feff}mx2 c:d").len(), 1, "elsewhere it is no such mark");
    }

    #[test]
    fn the_same_entry_in_two_forms_is_taken() {
        let table = Passwords::parse(b"[mx1]:587 a:b\nmx1:587 a:b").unwrap();
        assert_eq!(found(&table, &tcp("mx1", 587)), Some(("a".into(), "b".into())));
    }

    #[test]
    fn a_token_is_read_at_each_use_from_a_file_that_few_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let write = |content: &str, mode| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let table = Passwords::parse(format!("mx1 me:token-file:{}", path.display()).as_bytes()).unwrap();
        let find = || found(&table, &tcp("mx1", 25)).unwrap().1;
        let wrong =
            || table.find(&tcp("mx1", 25), NOWHERE).unwrap_err().replace(&path.display().to_string(), "FILE");
        assert!(wrong().starts_with("FILE: it cannot be read: No such file"), "{}", wrong());
        write("first\n", 0o600);
        assert_eq!(find(), "token first");
        assert_eq!(table.token_troubles(NOWHERE), [""; 0]);
        write(" second \r\nmore\n", 0o600);
        assert_eq!(find(), "token second");
        write("canary", 0o644);
        assert_eq!(wrong(), "FILE: everybody may read it (mode 0644), and it holds secrets: chmod o-r FILE");
        for (content, what) in [
            ("", "its first line, which should be a token, is empty"),
            ("\ncanary", "its first line, which should be a token, is empty"),
            ("can ary", "its first line is no token: there are blanks in it, or what is not ASCII"),
            ("canary\u{e9}", "its first line is no token: there are blanks in it, or what is not ASCII"),
            (&"x".repeat(8193), "its first line is longer than 8192 bytes, which no token is"),
            (&"x".repeat(16385), "it is larger than 16384 bytes"),
        ] {
            write(content, 0o600);
            assert_eq!(wrong(), format!("FILE: {what}"));
            assert_eq!(table.token_troubles(NOWHERE).len(), 1);
        }
    }

    proptest! {
        #[test]
        fn no_table_panics_and_none_is_repeated(table in "([a-z\\[\\]:. #\t]{0,12}QQQ[\\PC]{0,6}\r?\n?){0,5}") {
            if let Err(said) = Passwords::parse(table.as_bytes()) {
                prop_assert!(said.iter().all(|said| !said.contains("QQQ")), "{:?}", said);
            }
        }

        #[test]
        fn no_octets_panic(table in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Passwords::parse(&table);
        }
    }
}
