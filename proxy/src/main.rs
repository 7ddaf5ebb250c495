//! `xmpp-edge-proxy`: start and stop.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use xmpp_edge_proxy::logging;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    logging::start(cli.log_format, &[]);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(cause) => {
            eprintln!("error: cannot start: {cause}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            cli::ProxyCommand::Run(run) => cli::run(run).await,
            cli::ProxyCommand::Probe(probe) => cli::probe(probe).await,
            cli::ProxyCommand::Sidecar(sidecar) => cli::sidecar(sidecar).await,
        }
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
