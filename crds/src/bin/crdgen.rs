//! Writes the CustomResourceDefinitions to `crds/*.yaml`, or to the folder that is named.

use std::path::PathBuf;
use std::process::ExitCode;

use tidemill_crds::crd::{ResourceKind, yaml};

fn main() -> ExitCode {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    for kind in ResourceKind::ALL {
        let path = folder.join(kind.file_name());
        let written = yaml(kind)
            .map_err(|error| error.to_string())
            .and_then(|text| {
                std::fs::write(&path, text)
                    .map_err(|error| format!("can't write {}: {error}", path.display()))
            });
        if let Err(problem) = written {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
