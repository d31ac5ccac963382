//! `lastmile agent`: the delivery agent in the foreground.

use std::process::ExitCode;

use super::{EX_CONFIG, EX_OSERR, check};
use crate::agent::{self, AgentError};
use crate::config::{Config, Sources};

/// Runs the agent until a signal stops it.
pub fn run(sources: Sources) -> ExitCode {
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(error) => {
            eprint!("{}", check::complaint(&error));
            return EX_CONFIG.into();
        }
    };
    let result = agent::run(config, sources);
    log::logger().flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(AgentError::Secrets(error)) => {
            eprint!("{}", check::complaint(&error));
            EX_CONFIG.into()
        }
        Err(error) => {
            eprintln!("lastmile agent: {error}");
            if error.is_configuration() { EX_CONFIG.into() } else { EX_OSERR.into() }
        }
    }
}
