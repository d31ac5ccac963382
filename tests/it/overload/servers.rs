//! Servers as one meets them: quick, silent, dead, dripping, full.
//!
//! - Owns: starting them; each ends with its test.
//! - Leaves to others: what the agent is to make of them.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::common::agent::Site;

/// Our own sink, which counts and forgets.
pub struct Server {
    pub handle: Handle,
    pub socket: PathBuf,
}

impl Server {
    pub fn start(site: &Site, name: &str, script: &str) -> Self {
        let socket = site.path().join(format!("{name}.sock"));
        let script = Script::parse(script).unwrap();
        let config = SinkConfig { script, ..SinkConfig::new(Listen::Unix(socket.clone())) };
        Self { handle: Sink::start(config).unwrap(), socket }
    }

    /// Recipients for whom mail was taken so far.
    pub fn deliveries(&self) -> u64 {
        self.handle.counts().deliveries
    }

    pub fn nexthop(&self) -> String {
        format!("unix:{}", self.socket.display())
    }
}

/// Takes a message every `milliseconds`, on each connection.
pub fn thinking(milliseconds: u64) -> String {
    format!("data delay {milliseconds}ms")
}

/// Accepts connections and never says a word.
pub const SILENT: &str = "greeting silence";
/// Says everything an octet at a time.
pub const DRIPPING: &str =
    "greeting drip 1/100ms\nlhlo drip 1/100ms\nmail * drip 1/100ms\nrcpt * drip 1/100ms\n";

/// A socket on which nobody listens any more.
pub fn dead_socket(site: &Site) -> String {
    let path = site.path().join("dead.sock");
    drop(UnixListener::bind(&path).unwrap());
    format!("unix:{}", path.display())
}

/// A TCP port on which nobody listens.
pub fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("inet:{}", listener.local_addr().unwrap())
}

/// A server that listens and accepts nobody, so that connecting blocks as soon as its backlog is full.
pub struct NeverAccepting {
    listener: Socket,
    pub nexthop: String,
}

impl NeverAccepting {
    pub fn start(site: &Site, name: &str) -> Self {
        let path = site.path().join(format!("{name}.sock"));
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(1).unwrap();
        Self { listener, nexthop: format!("unix:{}", path.display()) }
    }

    /// Lets go whoever has connected; returns how many had.
    pub fn accept_and_drop(&self) -> usize {
        self.listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| self.listener.accept().ok()).count()
    }
}
