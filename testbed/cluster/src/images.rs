//! The images of Tidemill and of its order example, from programs of this machine.
//!
//! For people with a container engine `images/Dockerfile` makes the same from source.

use crate::image::{Image, ImageError};
use crate::programs::on_path;
use std::path::{Path, PathBuf};
use tidemill_testbed::binaries::workspace_root;

/// Whom to trust on TLS connections; where distributions keep it, and where programs look for it.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An image of one program, which is its entrypoint.
#[must_use]
pub fn of_program(name: impl Into<String>, program: &Path) -> Image {
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    let place = format!("/{file}");
    let mut image = Image::new(name)
        .program(&place, program)
        .entrypoint([place]);
    // A machine without them has no use for them.
    if Path::new(AUTHORITIES).is_file() {
        image = image.file(AUTHORITIES, AUTHORITIES);
    }
    image
}

/// The participants of the order example in one image: Python with nats-py, the services in `/orders`, and `/usr/bin/inventory`. It has
/// `cat`, with which ledgers are read.
///
/// # Errors
/// If Python doesn't run, or there is no busybox.
pub fn orders(
    name: impl Into<String>,
    inventory: &Path,
    python: &Path,
) -> Result<Image, ImageError> {
    let image = Image::new(name);
    let missing = || ImageError::Read {
        image: image.name().to_owned(),
        path: PathBuf::from("busybox"),
        source: std::io::ErrorKind::NotFound.into(),
    };
    let busybox = on_path("busybox").ok_or_else(missing)?;
    let example = workspace_root().join("k8s/examples/orders");
    let mut image = image
        .program("/usr/bin/inventory", inventory)
        .file("/bin/busybox", busybox)
        .link("/bin/cat", "busybox")
        .env("PATH", "/usr/bin:/bin")
        .python(python)?;
    for part in [
        "payments",
        "shipping",
        "faults.py",
        "jsontext.py",
        "memory.py",
    ] {
        image = image.tree(format!("/orders/{part}"), example.join(part));
    }
    Ok(image)
}
