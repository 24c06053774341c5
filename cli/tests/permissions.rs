//! `tidemill permissions` as a process, and that a server takes what it prints.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Shell;
use tidemill_core::contract::Connection;
use tidemill_nats::{Nats, Publish, PublishError, Publisher};
use tidemill_testbed::NatsServer;
use tidemill_testbed::binaries::workspace_root;

const MANIFESTS: &str = "\
apiVersion: tidemill.dev/v1alpha1
kind: EventStream
metadata: {name: orders, namespace: shop}
spec: {}
---
apiVersion: tidemill.dev/v1alpha1
kind: Projection
metadata: {name: status, namespace: shop}
spec:
  from: [{stream: {name: orders}}]
  key: event.subject
  handlers:
    - type: OrderPlaced
      set: {status: placed}
  sink: {kv: {}}
---
apiVersion: tidemill.dev/v1alpha1
kind: Saga
metadata: {name: fulfilment, namespace: shop}
spec:
  startOn: [{stream: {name: orders}, type: OrderPlaced, id: event.subject}]
  steps:
    - name: reserve
      request: {subject: inventory.reserve, allowLongReplies: true}
      compensate:
        request: {subject: inventory.release}
      timeout: 3m
    - name: tell
      publish: {stream: {name: orders}, type: order.told, entity: =input.subject}
";

/// The page shows what the command prints for the order example.
#[test]
fn the_documented_list_is_what_is_printed() {
    let root = workspace_root();
    let page = std::fs::read_to_string(root.join("docs/guide/permissions.md")).unwrap();
    let manifests = root.join("k8s/examples/orders/manifests");
    let shell = Shell::new();
    for command in page.split("\n$ tidemill ").skip(1) {
        let (line, rest) = command.split_once('\n').unwrap();
        let shown = rest.split("```").next().unwrap();
        let line = line.replace("manifests/", &manifests.display().to_string());
        assert_eq!(shell.run(&line).ok().stdout, shown, "{line}");
    }
    assert_eq!(page.matches("\n$ tidemill ").count(), 3);
}

#[test]
fn for_people_and_for_programs() {
    let shell = Shell::new();
    shell.write("m/all.yaml", MANIFESTS);
    let mut seen = String::new();
    for line in [
        "permissions m --resource saga/fulfilment",
        "permissions m --resource projection/shop/status -o json --jetstream-domain hub",
        "permissions m --participant inventory.* -o yaml",
        "permissions m --participant inventory.reserve -o nats",
        "permissions m --participant inventory.nothing",
        "permissions m --resource saga/nothing",
        "permissions m --resource eventstream/orders",
        "lint m -o nats",
    ] {
        seen.push_str(&shell.run(line).seen());
    }
    // A list that is made without the stream would lack its lines.
    let alone = MANIFESTS.split("---\n").nth(1).unwrap();
    seen.push_str(&shell.run_with("permissions -", alone).seen());
    insta::assert_snapshot!("for_people_and_for_programs", seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_the_configuration() {
    let shell = Shell::new();
    shell.write("m/all.yaml", MANIFESTS);
    let workers = shell.run("permissions m -o nats").ok().stdout;
    // The passwords, as the server's environment would hold them.
    let mut config = String::new();
    for user in ["SHOP_PROJECTION_STATUS", "SHOP_SAGA_FULFILMENT"] {
        config.push_str(&format!("{user}: secret\n"));
    }
    config.push_str(&workers);
    let server = NatsServer::builder().config(&config).start().await.unwrap();
    let connect = async |user: &str, password: &str| {
        let address = format!("nats://{user}:{password}@127.0.0.1:{}", server.port());
        let connection = Connection {
            inbox_prefix: Some(format!("_tm.inbox.{}", user.replacen('-', ".", 2))),
            ..Connection::plain(&address)
        };
        Nats::connect(&connection, "test").await
    };
    assert!(connect("shop-saga-fulfilment", "guessed").await.is_err());
    let nats = connect("shop-saga-fulfilment", "secret").await.unwrap();
    let publisher = Publisher::new(&nats, 1);
    let publish = async |subject: &str| {
        let sent = publisher.publish(Publish::new(subject, "{}")).await;
        sent.await.unwrap_err()
    };
    // Nobody made a stream, so it reaches no one; the other is refused.
    let told = "shop.orders.o-1.order=2Etold".to_owned();
    assert_eq!(publish(&told).await, PublishError::NoStream(told));
    let placed = "shop.orders.o-1.OrderPlaced".to_owned();
    assert_eq!(publish(&placed).await, PublishError::Denied(placed));
}
