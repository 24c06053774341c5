//! Keeps a Kubernetes with one node running until it is told to stop (SIGTERM, Ctrl-C). `make cluster-up` runs it.
//!
//! Arguments are archives of images to take in. The one line of output, when all is ready, is the path of the kubeconfig.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use tidemill_testbed_cluster::{Node, NodeError};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    // Whichever ends first, the node is dropped, and so ended.
    tokio::select! {
        failed = run() => {
            if let Err(error) = failed {
                eprintln!("{error}");
            }
            ExitCode::FAILURE
        }
        () = told(SignalKind::terminate()) => ExitCode::SUCCESS,
        () = told(SignalKind::interrupt()) => ExitCode::SUCCESS,
    }
}

async fn run() -> Result<(), NodeError> {
    let node = Node::start().await?;
    for archive in std::env::args_os().skip(1) {
        node.load_archive(Path::new(&archive)).await?;
    }
    // Whoever started it may have stopped reading.
    let _ = writeln!(std::io::stdout(), "{}", node.kubeconfig().display());
    std::future::pending().await
}

async fn told(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(error) => eprintln!("can't be told to stop: {error}"),
    }
}
