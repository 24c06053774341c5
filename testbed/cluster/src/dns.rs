//! Names of services, for pods.

use crate::image::Image;
use crate::namespace::Entrance;
use crate::node::NodeError;
use crate::programs::{Programs, ProgramsError};

/// The address of the service, as `dns.yaml` has it.
pub(crate) const ADDRESS: &str = "10.96.0.10";
/// What names of services end with.
pub(crate) const DOMAIN: &str = "cluster.local";
const IMAGE: &str = "localhost/tidemill/coredns:testbed";

/// Its image.
pub(crate) fn image(programs: &Programs) -> Result<Image, ProgramsError> {
    let coredns = programs.path("coredns")?;
    let image = Image::new(IMAGE).file("/coredns", coredns);
    Ok(image.entrypoint(["/coredns"]))
}

/// What runs it.
pub(crate) const MANIFESTS: &str = include_str!("dns.yaml");

/// Whether the service answers, as a pod would ask it; else what it says.
pub(crate) async fn answers(inside: &Entrance) -> Result<(), String> {
    let mut ask = inside.command("busybox");
    ask.args(["nslookup", &format!("kubernetes.default.svc.{DOMAIN}")])
        .arg(ADDRESS);
    let answer = NodeError::of_command(&mut ask).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}
