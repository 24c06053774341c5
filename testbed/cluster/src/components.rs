//! Kubernetes' own programs around the API server: controllers, scheduler, kubelet and kube-proxy.

use crate::containers::{PODS, SOCKET};
use crate::control_plane::ControlPlane;
use crate::dns;
use crate::identity::User;
use crate::namespace::{Entrance, NODE};
use crate::node::NodeError;
use serde_json::json;
use std::path::Path;
use tidemill_testbed::Process;

/// The node's name.
pub(crate) const NAME: &str = "node";

/// Starts all of them; none waits for another.
pub(crate) fn start(
    inside: &Entrance,
    plane: &ControlPlane,
    cgroup: &str,
) -> Result<Vec<Process>, NodeError> {
    let folder = inside.folder();
    let begin = |name: &str, user| -> Result<_, NodeError> {
        let process = inside.process(plane.programs().path(name)?);
        let process = process.arg("--kubeconfig").arg(plane.kubeconfig_as(user)?);
        Ok(process)
    };
    let config = folder.join("kubelet.json");
    std::fs::write(&config, kubelet(plane, folder, cgroup).to_string())
        .and_then(|()| std::fs::write(folder.join("resolv.conf"), ""))
        .map_err(|source| NodeError::io("writing kubelet's configuration", source))?;
    let identity = plane.identity();
    let controllers = begin("kube-controller-manager", User::ControllerManager)?
        .arg("--leader-elect=false")
        .arg("--bind-address=127.0.0.1")
        // Each controller with the rights that Kubernetes has for it.
        .arg("--use-service-account-credentials")
        .arg("--root-ca-file")
        .arg(&identity.authority)
        .arg("--service-account-private-key-file")
        .arg(&identity.accounts_key)
        .spawn()?;
    let scheduler = begin("kube-scheduler", User::Scheduler)?
        .arg("--leader-elect=false")
        .arg("--bind-address=127.0.0.1")
        .spawn()?;
    let kubelet = begin("kubelet", User::Kubelet)?
        .arg("--config")
        .arg(config)
        .arg(format!("--hostname-override={NAME}"))
        .arg(format!("--node-ip={NODE}"))
        .spawn()?;
    let proxy = begin("kube-proxy", User::Proxy)?
        .arg(format!("--hostname-override={NAME}"))
        .arg("--proxy-mode=iptables")
        .arg(format!("--cluster-cidr={PODS}"))
        // The limit is the machine's.
        .arg("--conntrack-max-per-core=0")
        .spawn()?;
    Ok(vec![controllers, scheduler, kubelet, proxy])
}

fn kubelet(plane: &ControlPlane, folder: &Path, cgroup: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": plane.identity().authority},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "clusterDomain": dns::DOMAIN,
        "clusterDNS": [dns::ADDRESS],
        // Empty: names of the world aren't for pods.
        "resolvConf": folder.join("resolv.conf"),
        // Both versions of cgroups will do.
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "cgroupRoot": format!("/{cgroup}"),
        "failSwapOn": false,
        // A machine whose disk is nearly full runs tests too.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        // Images come from tests; nobody could get them back.
        "imageGCHighThresholdPercent": 100,
        // Less needs CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        // The default is in /usr.
        "volumePluginDir": "/var/lib/kubelet/plugins",
    })
}
