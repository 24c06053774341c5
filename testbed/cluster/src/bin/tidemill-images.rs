//! Writes the images of Tidemill as archives, for machines without a container engine. `scripts/images.sh` runs it.
//!
//! Arguments: the folder with `tidemill-operator`, `tidemill-worker` and `inventory`, the tag, and the folder to write to. The paths of the
//! archives are printed. nats-server and Python are found as tests find them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidemill_testbed::binaries::python;
use tidemill_testbed::nats_server;
use tidemill_testbed_cluster::{Image, images};

/// As the chart's `nats.image` names it.
const NATS: &str = "nats:2.15.2";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [programs, tag, folder] = arguments.as_slice() else {
        eprintln!("tidemill-images: three arguments, please: PROGRAMS TAG FOLDER");
        return ExitCode::from(2);
    };
    match write(Path::new(programs), tag, Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemill-images: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(programs: &Path, tag: &str, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    let own = |name: &str| images::of_program(format!("{name}:{tag}"), &programs.join(name));
    let nats: PathBuf = nats_server::find_binary()?;
    let inventory = programs.join("inventory");
    let all: [(&str, Image); 4] = [
        ("tidemill-operator", own("tidemill-operator")),
        ("tidemill-worker", own("tidemill-worker")),
        ("nats", images::of_program(NATS, &nats)),
        (
            "tidemill-orders",
            images::orders(format!("tidemill-orders:{tag}"), &inventory, &python()?)?,
        ),
    ];
    for (name, image) in all {
        let archive = folder.join(format!("{name}.tar"));
        image.write(&archive)?;
        println!("{}", archive.display());
    }
    Ok(())
}
