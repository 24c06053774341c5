//! Persistent volumes: a few folders of the node, and the class that claims get which name none.

use crate::components::NAME;
use crate::node::NodeError;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// As many claims as can be made; nobody makes more folders later.
const VOLUMES: usize = 32;
/// What they claim to hold. Nobody measures it.
const SIZE: &str = "10Gi";

/// Makes the folders in the node's `/var/lib`, which is `folder` on this machine, and the manifest that names them.
pub(crate) fn make(folder: &Path) -> Result<String, NodeError> {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "local",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    let mut items = vec![class];
    for number in 0..VOLUMES {
        let name = format!("volume-{number}");
        let place = folder.join("volumes").join(&name);
        // Whatever user a pod runs as, as other provisioners do.
        std::fs::create_dir_all(&place)
            .and_then(|()| std::fs::set_permissions(&place, PermissionsExt::from_mode(0o777)))
            .map_err(|source| NodeError::io("making folders for volumes", source))?;
        items.push(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "storageClassName": "local",
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": SIZE},
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": format!("/var/lib/volumes/{name}")},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{
                    "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}],
                }]}},
            },
        }));
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())
}
