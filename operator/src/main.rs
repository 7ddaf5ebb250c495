//! Starts, and ends with the exit code of what was asked for.

use std::process::ExitCode;

fn main() -> ExitCode {
    xmpp_edge_operator::cli::main()
}
