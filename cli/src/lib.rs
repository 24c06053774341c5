//! The command `tidemill`: lint and run manifests on a laptop, publish and read events, look at sagas, projections and
//! what is parked.
//!
//! Each command is a file in [`commands`]; all share the resolution of where NATS is ([`context`]), the forms of output
//! ([`output`]) and of errors ([`error`]).

mod args;
mod ask;
mod catalog;
mod clock;
mod cluster;
mod commands;
mod context;
mod dev;
mod dev_file;
mod error;
mod figures;
mod manifests;
mod output;
mod summaries;
mod yaml;

use std::process::ExitCode;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let args = args::Cli::of_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return error::CliError::failed(format!("no threads can be started: {error}")).report();
        }
    };
    let code = match runtime.block_on(commands::run(args)) {
        Ok(code) => code,
        Err(error) => error.report(),
    };
    // Not waited for: a thread may sit in a read of standard input that never ends.
    runtime.shutdown_background();
    code
}
