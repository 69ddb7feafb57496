//! The binary: parses arguments, runs a subcommand, turns its outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    revguard::cli::main()
}
