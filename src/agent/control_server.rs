//! Serves the control socket.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use super::report::Reporter;
use crate::config::Config;
use crate::spool::Spool;

/// Makes the socket.
pub fn bind(queue_directory: &Path) -> io::Result<UnixListener> {
    let path = queue_directory.join("agent.sock");
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    UnixListener::bind(path)
}

/// Starts the thread.
pub fn start(
    _listener: UnixListener,
    _spool: Arc<Spool>,
    _config: Arc<Config>,
    _reporter: Reporter,
) -> io::Result<()> {
    Ok(())
}
