//! `tidemill saga`, `projection`, `query` and `parked` as processes, against workers of a `tidemill dev`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{Dev, participant, until, write_manifests};
use support::{Ran, Shell};

fn publish(shell: &Shell, subject: &str, data: &str) {
    shell.run(&format!("event publish orders --type OrderPlaced --subject {subject} --id {subject} --data '{data}'")).ok();
}

/// Output without what differs from run to run: durations, revisions, times.
fn stable(ran: &Ran) -> String {
    let mut lines = Vec::new();
    for line in ran.seen().lines() {
        let words = line.split(' ').map(|word| {
            let number = word.trim_end_matches(['s', 'm', 'h', ',']);
            let duration = number.len() < word.len()
                && !number.is_empty()
                && number.parse::<f64>().is_ok()
                && !word.ends_with(',');
            if duration { "<age>" } else { word }
        });
        let mut line = words
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        // `12 ms` and `1.2 s` are two words.
        for unit in [" ms", " s"] {
            while let Some(at) = line.find(unit) {
                let number = line[..at].rfind(' ').map_or(0, |space| space + 1);
                let ends = line[at + unit.len()..]
                    .chars()
                    .next()
                    .is_none_or(|next| !next.is_alphanumeric());
                if !ends || line[number..at].parse::<f64>().is_err() {
                    break;
                }
                line.replace_range(number..at + unit.len(), "<age>");
            }
        }
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_listed_shown_started_and_cancelled() {
    let shell = Shell::new();
    write_manifests(&shell);
    let mut dev = Dev::start(&shell, "").await;
    let participant = participant(&dev.url).await;
    dev.line("Saga default/fulfilment: ready").await;
    let mut seen = stable(&shell.run("saga list fulfilment").ok());

    publish(&shell, "o-1", "{\"total\": 1}");
    // Its outcome is an event too, so positions are the same each time.
    until(&shell, "event get orders -o json", |ran| {
        ran.json_lines().len() == 2
    })
    .await;
    publish(
        &shell,
        "o-2",
        "{\"total\": 2, \"do\": {\"charge\": \"refuse\"}}",
    );
    until(
        &shell,
        "saga list fulfilment --state completed -o json",
        |ran| ran.json().as_array().unwrap().len() == 1,
    )
    .await;
    until(
        &shell,
        "saga list fulfilment --state compensated -o json",
        |ran| ran.json().as_array().unwrap().len() == 1,
    )
    .await;
    // Counters are written behind.
    until(&shell, "saga list fulfilment", |ran| {
        ran.stdout.contains("seen 3") && ran.stdout.contains("compensated 1, ")
    })
    .await;
    for line in [
        "saga list",
        "saga list fulfilment --reason Refused",
        "saga list fulfilment --limit 1",
        "saga show fulfilment o-2",
        "saga show fulfilment o-9",
        "saga list fulfilments",
    ] {
        seen.push_str(&stable(&shell.run(line)));
    }

    let started = shell
        .run("saga start fulfilment o-3 --data '{\"total\": 3}' --await -o json")
        .ok()
        .json();
    assert_eq!(started["summary"]["state"], "completed");
    assert_eq!(started["steps"][0]["output"]["number"], 7);
    seen.push_str(&stable(
        &shell
            .run("saga start fulfilment o-3 --data '{\"total\": 3}'")
            .ok(),
    ));
    let refused = shell.run(
        "saga start fulfilment o-4 --data '{\"do\": {\"reserve\": \"refuse\"}}' --await -o json",
    );
    assert_eq!(
        (refused.code, refused.json()["summary"]["state"].as_str()),
        (Some(1), Some("compensated")),
        "{}",
        refused.seen()
    );

    // A namespace that is given holds for lists too.
    for line in ["saga list", "projection list"] {
        for (namespace, is_there) in [("default", true), ("other", false)] {
            let ran = shell.run(&format!("{line} -n {namespace}")).ok();
            let listed = ran.stdout.contains("default/");
            assert_eq!(listed, is_there, "{}", ran.seen());
        }
        let ran = shell.run(&format!("{line} -n 'Bad NS'"));
        assert!(
            ran.code == Some(2) && ran.stderr.contains("names have lower-case letters"),
            "{}",
            ran.seen()
        );
    }
    seen.push_str(&stable(&shell.run("saga list -n other").ok()));

    // One that waits for an answer that never comes.
    seen.push_str(&stable(
        &shell
            .run("saga start fulfilment o-5 --data '{\"do\": {\"charge\": \"silent\"}}'")
            .ok(),
    ));
    let waiting = shell.run("saga start fulfilment o-5 --await --timeout 1");
    assert_eq!(waiting.code, Some(1), "{}", waiting.seen());
    seen.push_str(&stable(&waiting));
    let cancelled = shell
        .run("saga cancel fulfilment o-5 --why 'customer called' --by tests")
        .ok();
    seen.push_str(&stable(&cancelled));
    seen.push_str(&stable(&shell.run("saga cancel fulfilment o-1 --by tests")));
    shell
        .run("saga start fulfilment o-6 --data '{\"do\": {\"charge\": \"silent\"}}'")
        .ok();
    shell.run("saga cancel fulfilment o-6 --by tests").ok();
    until(&shell, "saga show fulfilment o-6", |ran| {
        ran.stdout.contains("\nCancelled\n")
    })
    .await;
    insta::assert_snapshot!("instances", seen);
    participant.abort();
    dev.stop().await;
}

/// Takes a stream away and makes it again, as after a backup that knows nothing of it.
async fn replace_stream(url: &str, name: &str) {
    let jetstream = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    let mut stream = jetstream.get_stream(name).await.unwrap();
    let config = stream.info().await.unwrap().config.clone();
    jetstream.delete_stream(name).await.unwrap();
    jetstream.create_stream(config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_whose_stream_was_set_back_goes_on_when_that_is_accepted() {
    let shell = Shell::new();
    write_manifests(&shell);
    std::fs::remove_file(shell.path().join("manifests/status.yaml")).unwrap();
    let mut dev = Dev::start(&shell, "").await;
    let participant = participant(&dev.url).await;
    dev.line("Saga default/fulfilment: ready").await;
    publish(&shell, "o-1", "{\"total\": 1}");
    until(&shell, "saga list -o json", |ran| {
        let listed = ran.json();
        (&listed[0]["state"], &listed[0]["seen"]) == (&"Ready".into(), &2.into())
    })
    .await;
    let mut seen = stable(&shell.run("saga accept-source fulfilment"));
    replace_stream(&dev.url, "default_orders").await;
    let listed = until(&shell, "saga list", |ran| {
        ran.stdout.contains("SourceReset")
    })
    .await;
    seen.push_str(&stable(&listed));
    assert_eq!(
        shell.run("saga list -o json").json()[0]["state"],
        "SourceReset"
    );
    publish(&shell, "o-2", "{\"total\": 2}");
    for line in [
        "saga list fulfilment --state running",
        "saga accept-source fulfilment --stream others",
        "saga accept-source fulfilment --stream orders",
        "saga accept-source fulfilment",
        "saga accept-source fulfilments",
    ] {
        seen.push_str(&stable(&shell.run(line)));
    }
    until(&shell, "saga list -o json", |ran| {
        ran.json()[0]["state"] == "Ready"
    })
    .await;
    publish(&shell, "o-3", "{\"total\": 3}");
    until(
        &shell,
        "saga list fulfilment --state completed -o json",
        |ran| ran.json().as_array().unwrap().len() == 2,
    )
    .await;
    // What the stream held when it was accepted starts nothing.
    assert_eq!(shell.run("saga show fulfilment o-2").code, Some(3));
    participant.abort();
    let stopped = dev.stop().await;
    assert!(stopped.contains("tidemill saga accept-source"), "{stopped}");
    // Who notices first gives the reason.
    let mut parts = seen.split("replaced (");
    let mut shown = parts.next().unwrap().to_owned();
    for part in parts {
        let (_, after) = part.split_once(')').unwrap();
        shown.push_str(&format!("replaced (<reason>){after}"));
    }
    insta::assert_snapshot!("source_reset_of_a_saga", shown);
}

/// Publishes something of nobody's, and waits until a stream has it.
async fn put(url: &str, subject: &'static str) {
    let client = async_nats::connect(url).await.unwrap();
    let stored = client.request(subject, "by hand".into()).await.unwrap();
    let stored = String::from_utf8_lossy(&stored.payload).into_owned();
    assert!(stored.contains("\"seq\""), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_instances_wait_for_a_decision() {
    let shell = Shell::new();
    write_manifests(&shell);
    let dev = Dev::start(&shell, "").await;
    let participant = participant(&dev.url).await;
    // The compensation is refused for good: nobody but a person knows what to do.
    let data = "{\"total\": 1, \"do\": {\"charge\": \"refuse\", \"release\": \"refuse\"}}";
    publish(&shell, "o-1", data);
    until(&shell, "parked list fulfilment -o json", |ran| {
        ran.json().as_array().unwrap().len() == 1
    })
    .await;
    publish(&shell, "o-2", data);
    let listed = until(&shell, "parked list fulfilment -o json", |ran| {
        ran.json().as_array().unwrap().len() == 2
    })
    .await
    .json();
    assert_eq!(listed[0]["kind"], "saga");
    until(&shell, "parked list fulfilment", |ran| {
        ran.stdout.contains("parked 2")
    })
    .await;
    // What somebody else puts there is no parked trigger event.
    put(&dev.url, "_tm.parked.default.saga.fulfilment.0.x").await;
    let mut seen = stable(&shell.run("parked list fulfilment").ok());
    for line in [
        "parked list -n other",
        "parked show fulfilment o-1",
        "parked redrive fulfilment o-1 --by tests --why 'tried again'",
        "parked skip fulfilment o-9 --by tests",
        "parked skip fulfilment",
    ] {
        seen.push_str(&stable(&shell.run(line)));
    }
    // Tried again it is refused again; given up it is over.
    until(&shell, "saga show fulfilment o-1 -o json", |ran| {
        let described = ran.json();
        let inputs = described["timeline"].as_array().unwrap().len();
        described["summary"]["state"] == "parked" && inputs == 6
    })
    .await;
    let show = shell.run("saga show fulfilment o-1").ok();
    seen.push_str(&stable(&show));
    // An event that gives no id is no instance: it is said that it is there, and that it stays.
    shell
        .run("event publish orders --type OrderPlaced --id no-id --data '{}'")
        .ok();
    let listed = until(&shell, "saga list", |ran| {
        ran.stdout.contains("1 parked trigger event: ")
    })
    .await;
    seen.push_str(&stable(&listed));
    let skipped = shell.run("parked skip fulfilment --all --by tests").ok();
    seen.push_str(&stable(&skipped));
    until(
        &shell,
        "saga list fulfilment --state compensated -o json",
        |ran| ran.json().as_array().unwrap().len() == 2,
    )
    .await;
    until(&shell, "parked list fulfilment -o json", |ran| {
        ran.json().as_array().unwrap().len() == 2
    })
    .await;
    seen.push_str(&stable(
        &shell.run("parked redrive fulfilment --all --by tests"),
    ));
    seen.push_str(&stable(&shell.run("parked skip fulfilment 'message 1'")));
    seen.push_str(&stable(
        &shell.run("parked redrive fulfilment o-1 --by tests"),
    ));
    insta::assert_snapshot!("parked_instances", seen);
    participant.abort();
    dev.stop().await;
}

/// It isn't parked, and waits for the same decisions: every command says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_stops_a_projection_is_listed_and_decided() {
    let shell = Shell::new();
    write_manifests(&shell);
    std::fs::remove_file(shell.path().join("manifests/fulfilment.yaml")).unwrap();
    let status = std::fs::read_to_string(shell.path().join("manifests/status.yaml")).unwrap();
    let stops = status.replace("\nspec:\n", "\nspec:\n  onError: {then: Stop}\n");
    assert_ne!(stops, status);
    shell.write("manifests/status.yaml", &stops);
    let mut dev = Dev::start(&shell, "").await;
    dev.line("Projection default/status: ready").await;
    publish(&shell, "o-1", "{}");
    publish(&shell, "o-2", "{\"total\": 7}");
    until(&shell, "parked list -o json", |ran| {
        ran.json()[0]["reason"] == "FoldError"
    })
    .await;
    let mut seen = String::new();
    for line in [
        "parked list status",
        "parked show status o-1",
        "parked redrive status o-1 --by tests",
        "parked redrive status --all --by tests",
        "parked skip status --all --by tests",
    ] {
        seen.push_str(&stable(&shell.run(line)));
    }
    until(&shell, "query status o-2 -o json", |ran| {
        ran.code == Some(0)
    })
    .await;
    until(&shell, "parked list status", |ran| {
        ran.stdout.contains("nothing is parked")
    })
    .await;
    insta::assert_snapshot!("stopped_projection", seen);
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_queried_and_parked_keys_are_decided() {
    let shell = Shell::new();
    write_manifests(&shell);
    std::fs::remove_file(shell.path().join("manifests/fulfilment.yaml")).unwrap();
    let mut dev = Dev::start(&shell, "").await;
    dev.line("Projection default/status: ready").await;
    let mut seen = stable(&shell.run("query status").ok());

    publish(&shell, "o-1", "{\"total\": 12.50}");
    publish(&shell, "o-2", "{\"total\": 7}");
    // No total: the expression fails, the key is parked, and what follows waits.
    publish(&shell, "o-3", "{}");
    shell
        .run("event publish orders --type OrderConfirmed --subject o-3 --id confirmed")
        .ok();
    shell
        .run("event publish orders --type SomethingElse --subject o-4 --id else")
        .ok();
    until(&shell, "projection list", |ran| ran.stdout.contains(" 5 ")).await;
    until(&shell, "query status", |ran| {
        ran.stdout.contains("seen 5") && ran.stdout.contains("1 key parked")
    })
    .await;
    // What no worker wrote is named as that, and harms nobody.
    put(&dev.url, "_tm.parked.default.projection.status.0.o-3").await;
    put(&dev.url, "_tm.parked.default.projection.status.0.x.=zz").await;
    for line in [
        "query status",
        "query status o-1",
        "query status o-1 -o json",
        "query status -o json",
        "query status --limit 1",
        "query status o-3",
        "projection list",
        "parked list",
        "parked list status -o yaml",
        "parked show status o-3",
        "parked show status o-1",
        "parked show status 'message 3'",
        "parked redrive status o-3 --by tests",
        "parked skip status o-3 --by tests --position default/orders=x:3",
        "parked skip status o-3 --by tests --why 'test data'",
        "parked skip status o-3 --by tests",
        "parked skip status --all --by tests",
        "query status o-3 -o json",
        "projection accept-source status",
    ] {
        seen.push_str(&stable(&shell.run(line)));
    }
    let rebuilt = shell.run("projection rebuild status").ok();
    assert!(
        rebuilt.stdout.contains("-1 is built from the beginning"),
        "{}",
        rebuilt.seen()
    );
    until(&shell, "projection list", |ran| {
        ran.stdout.contains("-1 ") || ran.stdout.contains("-1\n")
    })
    .await;
    let rows = shell.run("query status -o json").ok().json();
    assert_eq!(
        rows[0],
        serde_json::json!({"key": "o-1", "row": {"state": "placed", "total": 12.50}})
    );
    assert_eq!(rows.as_array().unwrap().len(), 3);
    insta::assert_snapshot!("rows_and_parked_keys", seen);

    // What waits for rows that nobody reads any more is nobody's trouble.
    publish(&shell, "o-5", "{}");
    let decidable = |ran: &Ran| {
        let listed = ran.json();
        let of = |one: &serde_json::Value| one["decidable"] == true && one["key"] == "o-5";
        listed
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| of(one))
            .count()
    };
    let list = "parked list status -o json";
    let led = |number: u32| {
        let live = format!("-{number}");
        let is = move |one: &serde_json::Value| {
            one["live"].as_str().is_some_and(|of| of.ends_with(&live)) && one["building"].is_null()
        };
        move |ran: &Ran| ran.json().as_array().unwrap().iter().any(&is)
    };
    until(&shell, "projection list -o json", led(1)).await;
    until(&shell, list, |ran| decidable(ran) == 1).await;
    shell.run("projection rebuild status").ok();
    until(&shell, "projection list -o json", led(2)).await;
    let listed = shell.run(list).ok();
    assert_eq!(decidable(&listed), 1, "{}", listed.seen());
    let shown = shell.run("parked show status o-5 -o json").ok();
    assert_eq!(
        shown.json().as_array().unwrap().len(),
        1,
        "{}",
        shown.seen()
    );
    dev.stop().await;
}
