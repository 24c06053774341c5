//! Names of services, for pods.

use crate::control_plane::ControlPlane;
use crate::image::Image;
use crate::namespace::Entrance;
use crate::node::NodeError;
use crate::programs::{Programs, ProgramsError};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

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

/// Applies the manifests.
pub(crate) async fn install(plane: &ControlPlane) -> Result<(), NodeError> {
    let mut kubectl = plane.kubectl()?;
    kubectl
        .args(["apply", "--server-side", "--filename", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let io = |source| NodeError::io("applying the manifests of coredns", source);
    let mut child = kubectl.spawn().map_err(io)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(include_bytes!("dns.yaml"))
            .await
            .map_err(io)?;
    }
    let output = child.wait_with_output().await.map_err(io)?;
    NodeError::of_output("kubectl apply", &output).map(|_| ())
}

/// Whether the service answers, as a pod would ask it; else what it says.
pub(crate) async fn answers(inside: &Entrance) -> Result<(), String> {
    let mut ask = inside.command("busybox");
    ask.args(["nslookup", &format!("kubernetes.default.svc.{DOMAIN}")])
        .arg(ADDRESS);
    let answer = NodeError::of_command(&mut ask).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}
