//! The order example: installed, upgraded, crashed, uninstalled and installed again.

use crate::listing;
use crate::shop::{NEXT, ORDERS, Shop};
use data_encoding::BASE64;
use serde_json::Value;
use std::net::SocketAddr;
use tidemill_core::contract::Connection;
use tidemill_nats::Nats;
use tidemill_testbed::binaries::{tidemill, workspace_root};
use tidemill_testbed_cluster::{skip, why_no_node};

const SAGA: &str = "saga-order-fulfilment";

/// NATS of the example, from outside.
struct Outside {
    url: String,
    nats: Nats,
    /// Folder and path of the credentials file with all rights.
    _folder: tempfile::TempDir,
    creds: String,
}

impl Outside {
    /// Through a port of this machine, to the service as it is now.
    async fn of(shop: &Shop) -> Outside {
        let path = "jsonpath={.spec.clusterIP}";
        let address = shop
            .kubectl(&format!("get service -n tidemill tidemill-nats -o {path}"))
            .await;
        let inside = SocketAddr::new(address.parse().unwrap(), 4222);
        let url = format!("nats://{}", shop.node.forward(inside).unwrap());
        let path = r"jsonpath={.data.nats\.creds}";
        let admin = shop
            .kubectl(&format!(
                "get secret -n tidemill tidemill-nats-admin -o {path}"
            ))
            .await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nats.creds");
        let admin = BASE64.decode(admin.as_bytes()).unwrap();
        std::fs::write(&file, admin).unwrap();
        let creds = file.to_str().unwrap().to_owned();
        let connection = Connection {
            credentials_file: Some(creds.clone()),
            ..Connection::plain(&url)
        };
        let nats = Nats::connect(&connection, "test").await.unwrap();
        Outside {
            url,
            nats,
            _folder: folder,
            creds,
        }
    }

    /// What the command says.
    async fn tidemill(&self, line: &str) -> Result<Value, String> {
        let mut command = tokio::process::Command::new(tidemill().unwrap());
        command.args(line.split_whitespace());
        command.args(["--namespace", "shop", "-o", "json", "--nats", &self.url]);
        command.args(["--creds", &self.creds]);
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => serde_json::from_str(&text).map_err(|_| format!("{output:?}")),
            false => Err(format!("{output:?}")),
        }
    }

    /// What it says of the example's saga.
    async fn saga(&self) -> Result<Value, String> {
        Ok(self.tidemill("saga list").await?[0].clone())
    }

    async fn messages(&self, stream: &str) -> Result<u64, String> {
        let state = self.nats.stream_state(stream).await;
        Ok(state.map_err(|error| error.to_string())?.messages)
    }
}

/// The whole life of an installation, in one test: starting a node and installing all of it is most of the work.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_example_survives_what_happens_to_clusters() {
    if let Some(reason) = why_no_node() {
        return skip(&reason);
    }
    let shop = Shop::start().await;
    shop.ended(shop.demo("up")).await;

    // Another operator, and another image for workers: those that run are left alone.
    let workers = shop.workers().await;
    assert_eq!(workers.len(), 3, "{workers:?}");
    let chart = workspace_root().join("helm/tidemill");
    let chart = chart.to_str().unwrap();
    shop.helm(&format!(
        "upgrade tidemill {chart} --namespace tidemill --reuse-values --set image.tag={NEXT} --set worker.image.tag={NEXT}"
    ))
    .await;
    shop.kubectl("rollout status -n tidemill deployment/tidemill-operator --timeout=300s")
        .await;
    shop.until("the new operator has looked at all", async || {
        for one in shop.list("projections,sagas -n shop").await {
            if one["status"]["outdatedWorkers"] != 1 {
                return Err(one["status"].to_string());
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(shop.workers().await, workers);

    // Two crashes of the saga's worker and one of a projection's, while orders come in.
    let outside = Outside::of(&shop).await;
    let run = shop.demo("run");
    // An instance takes six messages or more.
    for inputs in [ORDERS, 3 * ORDERS] {
        shop.until("sagas are on their way", async || {
            match outside.messages("shop_order-fulfilment_log").await? {
                messages if messages >= inputs => Ok(()),
                messages => Err(format!("{messages} of {inputs} messages in the log")),
            }
        })
        .await;
        shop.kill_worker(SAGA).await;
        if inputs == ORDERS {
            shop.kill_worker("projection-order-status").await;
        }
    }
    // Each order that ended has published how, but for few that cost nothing.
    let events = outside.messages("shop_orders").await.unwrap();
    assert!(
        events < ORDERS + ORDERS * 9 / 10,
        "too late a crash: {events} events"
    );
    let said = shop.ended(run).await;
    assert!(said.contains(": all equal"), "{said}");
    println!("{said}");
    listing::is_as_the_guide_says(&said);
    let restarts: Vec<_> = shop
        .workers()
        .await
        .into_iter()
        .map(|one| (one.0, one.2))
        .collect();
    let expected = [
        ("projection-customer-orders", 0),
        ("projection-order-status", 1),
        (SAGA, 2),
    ];
    assert_eq!(
        restarts,
        expected.map(|(name, count)| (name.to_owned(), count))
    );

    shop.command_says_what_kubectl_shows().await;
    shop.command_outlives_a_crash_of_nats().await;

    // Another definition: its rows are built beside the others, and whoever reads finds the one or the other.
    let listed = outside.tidemill("query order-status --limit 1").await;
    let key = listed.unwrap()[0]["key"].as_str().unwrap().to_owned();
    let revision = async || {
        let found = shop.list("projections -n shop").await;
        let mut found = found.into_iter();
        let found = found
            .find(|one| one["metadata"]["name"] == "order-status")
            .unwrap();
        found["status"]["revision"].as_str().unwrap().to_owned()
    };
    let first = revision().await;
    let change = r#"[{"op": "add", "path": "/spec/handlers/0/set/channel", "value": "web"}]"#;
    let patch = ["patch", "projection", "order-status", "-n", "shop"];
    let patch = [patch.as_slice(), &["--type=json", "-p", change]].concat();
    shop.node.kubectl(&patch).await.unwrap();
    shop.until("rows of the other definition", async || {
        let row = outside.tidemill(&format!("query order-status {key}")).await;
        let row = row.unwrap_or_else(|gap| panic!("no row: {gap}"));
        match row["channel"] == "web" {
            true => Ok(()),
            false => Err(row.to_string()),
        }
    })
    .await;

    shop.until(
        "another key space, in the status too",
        async || match revision().await {
            now if now != first => Ok(()),
            now => Err(now),
        },
    )
    .await;

    // What is left: the resources and the volume with the streams.
    let before = outside.saga().await.unwrap();
    let stored = async |outside: &Outside| {
        let mut stored = Vec::new();
        for stream in [
            "shop_orders",
            "shop_order-fulfilment_log",
            "KV_shop_customer-orders_rows",
        ] {
            stored.push(outside.messages(stream).await.unwrap());
        }
        stored
    };
    let kept = stored(&outside).await;
    shop.helm("uninstall tidemill --namespace tidemill --wait")
        .await;
    let kinds = "all,configmaps,secrets,serviceaccounts,leases,roles,rolebindings,persistentvolumeclaims,poddisruptionbudgets,networkpolicies";
    shop.until("nothing else is left", async || {
        let left = shop
            .kubectl(&format!("get -n tidemill -o name {kinds}"))
            .await;
        let mut left: Vec<String> = left.lines().map(str::to_owned).collect();
        left.sort();
        let expected = [
            "configmap/kube-root-ca.crt",
            "persistentvolumeclaim/data-tidemill-nats-0",
            "secret/tidemill-nats-admin",
            "secret/tidemill-nats-app",
            "secret/tidemill-nats-auth",
            "secret/tidemill-nats-keys",
            "serviceaccount/default",
        ];
        match left == expected {
            true => Ok(()),
            false => Err(format!("{left:?}")),
        }
    })
    .await;
    let of_release =
        "get clusterroles,clusterrolebindings -o name -l app.kubernetes.io/instance=tidemill";
    assert_eq!(shop.kubectl(of_release).await, "");
    assert_eq!(
        shop.list("eventstreams,projections,sagas -n shop")
            .await
            .len(),
        4
    );

    // Installed again it finds everything as it was.
    shop.helm(&format!(
        "install tidemill {chart} --namespace tidemill --set nats.enabled=true"
    ))
    .await;
    shop.kubectl("rollout status -n tidemill deployment/tidemill-operator --timeout=300s")
        .await;
    let outside = Outside::of(&shop).await;
    shop.until("the same figures", async || match outside.saga().await? {
        after if after == before => Ok(()),
        after => Err(format!("{after}, not {before}")),
    })
    .await;
    assert_eq!(stored(&outside).await, kept);
    shop.until(
        "all are ready, and their workers the operator's again",
        async || {
            for one in shop.list("eventstreams,projections,sagas -n shop").await {
                let conditions = one["status"]["conditions"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let ready = conditions
                    .iter()
                    .find(|condition| condition["type"] == "Ready");
                if ready.is_none_or(|ready| ready["status"] != "True") {
                    return Err(one["status"].to_string());
                }
            }
            Ok(())
        },
    )
    .await;
    shop.ended(shop.demo("down")).await;
}
