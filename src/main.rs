//! The program: finds its role and turns the result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    lastmile::cli::main()
}
