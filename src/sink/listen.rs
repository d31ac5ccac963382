//! Addresses to listen on.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A UNIX-domain socket. A leftover of an earlier server is replaced; a socket in use is not.
    Unix(PathBuf),
    /// TCP. Port 0 is any free port; [`super::Handle::addresses`] tells which.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    /// Reads `unix:PATH`, `/PATH` or `inet:HOST:PORT`. A host name is looked up; its first address is taken.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            return if path.is_empty() {
                Err("unix: needs a path".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let Some(host_and_port) = text.strip_prefix("inet:") else {
            return Err(format!("\"{text}\" is no address to listen on: unix:PATH or inet:HOST:PORT is"));
        };
        let mut addresses = host_and_port
            .to_socket_addrs()
            .map_err(|error| format!("\"{host_and_port}\" is no HOST:PORT to listen on: {error}"))?;
        addresses.next().map(Self::Tcp).ok_or_else(|| format!("\"{host_and_port}\" has no address"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "inet:{address}"),
        }
    }
}

impl Listen {
    /// Opens the listening socket, non-blocking; returns it with the address as it came to be.
    pub(super) fn open(&self) -> io::Result<(Socket, Self)> {
        match self {
            Self::Unix(path) => Ok((open_unix(path)?, self.clone())),
            Self::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                start(&socket, &SockAddr::from(*address))?;
                let bound = socket.local_addr()?.as_socket().unwrap_or(*address);
                Ok((socket, Self::Tcp(bound)))
            }
        }
    }
}

fn open_unix(path: &Path) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match start(&socket, &address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_leftover(path) => {
            fs::remove_file(path)?;
            start(&socket, &address)?;
        }
        other => other?,
    }
    Ok(socket)
}

fn start(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    socket.bind(address)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)
}

/// Whether `path` is a socket that nobody listens on any more.
fn is_leftover(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_written() {
        for text in ["unix:/run/x", "inet:127.0.0.1:24", "inet:[::1]:24"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert_eq!("/run/x".parse(), Ok(Listen::Unix("/run/x".into())));
        for text in ["", "unix:", "run/x", "inet:", "inet:127.0.0.1", "inet:127.0.0.1:x", "127.0.0.1:24"] {
            assert!(text.parse::<Listen>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_leftover_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let listen = Listen::Unix(directory.path().join("s"));
        let (first, _) = listen.open().unwrap();
        assert_eq!(listen.open().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen.open().unwrap();
    }

    #[test]
    fn a_file_in_the_way_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(Listen::Unix(path.clone()).open().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
