//! What can't be changed once there is data is refused by `tidemill dev` too, while it watches and from one run to the next.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{Dev, STATUS, participant, until, write_manifests};
use support::Shell;
use tidemill_testbed::NatsServer;

/// Adds a line to the spec of a manifest.
fn with(shell: &Shell, file: &str, line: &str) -> String {
    let text = std::fs::read_to_string(shell.path().join(file)).unwrap();
    text.replacen("spec:", &format!("spec:\n  {line}"), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_keeps_its_partitions_and_no_instance_begins_again() {
    let shell = Shell::new();
    write_manifests(&shell);
    let saga = "manifests/fulfilment.yaml";
    let as_it_was = std::fs::read_to_string(shell.path().join(saga)).unwrap();
    let changed = with(&shell, saga, "partitions: 8");
    let mut run = Dev::start(&shell, "").await;
    let _participant = participant(&run.url).await;
    let placed = "event publish orders --type OrderPlaced --subject o-1 --data '{\"total\": 1}'";
    shell.run(placed).ok();
    let completed = "\"completed\": 1";
    until(&shell, "saga list -o json", |ran| {
        ran.stdout.contains(completed)
    })
    .await;

    let refused = "Saga default/fulfilment can't run: spec.partitions is 8, but stream default_fulfilment_log was made with 64";
    shell.write(saga, &changed);
    run.line(refused).await;
    shell.write(saga, &as_it_was);
    run.line("default/saga/fulfilment: started").await;
    run.stop().await;

    // While nobody watched.
    shell.write(saga, &changed);
    let mut run = Dev::start(&shell, "").await;
    run.line(refused).await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_its_prefix_and_a_projection_its_bucket() {
    let shell = Shell::new();
    write_manifests(&shell);
    let mut run = Dev::start(&shell, "").await;
    let bucket = STATUS.replace("sink: {kv: {}}", "sink: {kv: {bucket: other}}");
    assert_ne!(bucket, STATUS);
    shell.write("manifests/status.yaml", &bucket);
    run.line("Projection default/status can't run: spec.sink.kv.bucket is other, but stream default_status_projection_parked was made with default_status_rows")
        .await;
    shell.write("manifests/status.yaml", STATUS);
    run.line("default/projection/status: started").await;
    shell.write(
        "manifests/stream.yaml",
        "apiVersion: tidemill.dev/v1alpha1\nkind: EventStream\nmetadata: {name: orders}\nspec: {prefix: elsewhere}\n",
    );
    run.line("EventStream default/orders can't run: spec.prefix is elsewhere, but stream default_orders was made with default.orders")
        .await;
    run.line("Projection default/status can't run: EventStream default/orders can't be had")
        .await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_there_under_another_name_is_not_made_twice() {
    let shell = Shell::new();
    write_manifests(&shell);
    let mut run = Dev::start(&shell, "").await;
    run.line("default/projection/status: started").await;
    let stream = "manifests/stream.yaml";
    let as_it_was = std::fs::read_to_string(shell.path().join(stream)).unwrap();
    let renamed = as_it_was.replace("spec: {}", "spec: {streamName: other, prefix: foo.bar}");
    assert_ne!(renamed, as_it_was);
    shell.write(stream, &renamed);
    run.line("EventStream default/orders can't run: spec.streamName is other, but this EventStream was made with default_orders: its events are there; write the old name")
        .await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(&run.url).await.unwrap());
    assert!(jetstream.get_stream("other").await.is_err());
    shell.write(stream, &as_it_was);
    run.line("all manifests are in force").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_could_not_be_had_can_be_changed() {
    let shell = Shell::new();
    write_manifests(&shell);
    let saga = std::fs::read_to_string(shell.path().join("manifests/fulfilment.yaml")).unwrap();
    let mut run = Dev::start(&shell, "").await;
    run.line("default/saga/fulfilment: started").await;
    let projection = STATUS.replace("name: status", "name: status2");
    let saga = saga.replace("name: fulfilment", "name: fulfilment2");
    let bucket = projection.replace("kv: {}", "kv: {bucket: default_status_rows}");
    let log = saga.replacen(
        "spec:",
        "spec:\n  log: {streamName: default_fulfilment_log}",
        1,
    );
    // What the old ones had stays in NATS, and theirs.
    for file in ["manifests/status.yaml", "manifests/fulfilment.yaml"] {
        std::fs::remove_file(shell.path().join(file)).unwrap();
    }
    shell.write("manifests/status2.yaml", &bucket);
    run.line("Projection default/status2 can't run: stream KV_default_status_rows belongs to dev/default/projection/status: give the resource another name")
        .await;
    shell.write("manifests/fulfilment2.yaml", &log);
    run.line("Saga default/fulfilment2 can't run: stream default_fulfilment_log belongs to dev/default/saga/fulfilment: give the resource another name")
        .await;
    shell.write("manifests/status2.yaml", &projection);
    run.line("default/projection/status2: started").await;
    shell.write("manifests/fulfilment2.yaml", &saga);
    run.line("default/saga/fulfilment2: started").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_subjects_are_taken_says_by_whom() {
    let server = NatsServer::start().await.unwrap();
    let jetstream = async_nats::jetstream::new(server.client().await.unwrap());
    let theirs = async_nats::jetstream::stream::Config {
        name: "theirs".to_owned(),
        subjects: vec!["default.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(theirs).await.unwrap();
    let shell = Shell::new();
    write_manifests(&shell);
    let mut run = Dev::start(&shell, &format!("--nats {}", server.url())).await;
    run.line("EventStream default/orders can't run: stream default_orders can't take `default.orders.>`: stream theirs, which wasn't made by Tidemill, takes it already")
        .await;
    run.line("Saga default/fulfilment can't run: EventStream default/orders can't be had")
        .await;
    run.stop().await;
}
