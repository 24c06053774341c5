//! What a real kube-apiserver and the real kubectl make of the manifests that `lint` reads.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;
use support::mistakes::{MISTAKES, RIGHT, made};
use support::{Shell, documented_manifests};
use tidemill_testbed::binaries::workspace_root;
use tidemill_testbed::wait::within;
use tidemill_testbed_cluster::ControlPlane;

/// Longest wait for a kind's schema to be published: a second or two on an idle machine.
const PUBLISHED_MAX: Duration = Duration::from_secs(60);

/// An API server that knows Tidemill's kinds.
struct Cluster {
    plane: ControlPlane,
    shell: Shell,
}

impl Cluster {
    async fn start() -> Cluster {
        let plane = ControlPlane::start().await.unwrap();
        let cluster = Cluster {
            plane,
            shell: Shell::new(),
        };
        for kind in ["eventstream", "projection", "saga"] {
            let crd = workspace_root().join(format!("crds/{kind}.yaml"));
            let crd = crd.to_str().unwrap();
            cluster.kubectl(&["create", "-f", crd]).await.unwrap();
        }
        let established = ["wait", "--for=condition=Established", "crd", "--all"];
        cluster.kubectl(&established).await.unwrap();
        for kind in ["eventstreams", "projections", "sagas"] {
            // An established kind is served at once, but found and explained a while later: discovery and its schemas are
            // published by controllers of their own.
            let explained = within(PUBLISHED_MAX, async || {
                cluster.kubectl(&["explain", kind]).await.map(drop)
            });
            explained.await.unwrap();
        }
        cluster
    }

    /// What kubectl printed; an error if it didn't end well.
    async fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut kubectl = self.plane.kubectl().unwrap();
        let output = kubectl.current_dir(self.shell.path()).args(args).output();
        let output = output.await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// Whether `kubectl apply` takes a manifest, or what it says. Nothing is stored.
    async fn apply(&self, manifest: &str) -> Result<String, String> {
        self.shell.write("manifest.yaml", manifest);
        let args = ["apply", "--dry-run=server", "-f", "manifest.yaml"];
        self.kubectl(&args).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_manifest_is_taken() {
    let cluster = Cluster::start().await;
    let mut namespaces = BTreeSet::new();
    let (mut taken, mut wrong) = (0, Vec::new());
    for (page, manifests) in documented_manifests() {
        for manifest in manifests {
            for namespace in named_namespaces(&manifest) {
                if namespaces.insert(namespace.clone()) && namespace != "default" {
                    let create = ["create", "namespace", &namespace];
                    cluster.kubectl(&create).await.unwrap();
                }
            }
            match cluster.apply(&manifest).await {
                Ok(_) => taken += 1,
                Err(said) => wrong.push(format!("{}: {said}{manifest}", page.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken >= 8, "only {taken} manifests were found");
}

/// The words after `namespace:`.
fn named_namespaces(manifest: &str) -> Vec<String> {
    let after = manifest.split("namespace:").skip(1);
    let word = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    after.map(word).filter(|name| !name.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_refused_with_the_field_and_the_reason() {
    let cluster = Cluster::start().await;
    cluster.apply(RIGHT).await.unwrap();
    let mut seen = String::new();
    for (right, wrong) in MISTAKES {
        let (manifest, what) = made(right, wrong);
        seen.push_str(&what);
        seen.push('\n');
        match cluster.apply(&manifest).await {
            // Expressions, other resources, what only YAML 1.2 reads differently.
            Ok(_) => seen.push_str("  taken\n"),
            Err(said) => {
                for line in said.lines() {
                    seen.push_str(&format!("  {line}\n"));
                }
            }
        }
    }
    insta::assert_snapshot!("mistakes_by_kubectl", seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_lists_and_explains_them() {
    let cluster = Cluster::start().await;
    let mut seen = String::new();
    for line in [
        "api-resources --categories tidemill",
        "explain projection.spec",
        "explain saga.spec.steps.retry",
        "explain eventstream.spec.limits",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let shown = cluster.kubectl(&args).await.unwrap();
        seen.push_str(&format!("$ kubectl {line}\n{shown}\n"));
    }
    insta::assert_snapshot!("kubectl_explains", seen);
}
