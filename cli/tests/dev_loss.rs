//! `tidemill dev` and what would cost data: limits that would delete events, a second server on one store.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{CAP, Dev, until, write_manifests};
use std::os::unix::fs::PermissionsExt as _;
use support::Shell;
use tidemill_testbed::{NatsServer, Process, eventually};

fn stream(shell: &Shell, spec: &str) {
    let text = format!(
        "apiVersion: tidemill.dev/v1alpha1\nkind: EventStream\nmetadata: {{name: orders}}\nspec:\n  description: a stream\n{spec}"
    );
    shell.write("manifests/stream.yaml", &text);
}

fn publish(shell: &Shell, subjects: impl IntoIterator<Item = &'static str>) {
    for subject in subjects {
        shell
            .run(&format!(
                "event publish orders --type OrderPlaced --subject {subject} --data '{{\"total\": 1}}'"
            ))
            .ok();
    }
}

async fn config(dev: &Dev) -> async_nats::jetstream::stream::Info {
    let client = async_nats::connect(&dev.url).await.unwrap();
    let stream = async_nats::jetstream::new(client)
        .get_stream("default_orders")
        .await;
    stream.unwrap().cached_info().clone()
}

const HELD: &str = "; limits, onFull and duplicateWindow stay as they are in NATS until `tidemill dev` runs with --allow-loss default/orders";

#[tokio::test(flavor = "multi_thread")]
async fn smaller_limits_delete_nothing_until_that_is_allowed() {
    let shell = Shell::new();
    stream(&shell, "");
    let mut dev = Dev::start(&shell, "").await;
    publish(&shell, ["o-1", "o-1", "o-1", "o-2", "o-2"]);
    let held = async |dev: &mut Dev, spec: &str, wanted: &str| {
        stream(&shell, spec);
        dev.line(&format!("manifests/stream.yaml:{wanted}{HELD}"))
            .await;
        assert_eq!(config(dev).await.state.messages, 5);
    };
    held(
        &mut dev,
        "  limits: {maxMessages: 2, onFull: DropOldest}\n",
        "6:12: EventStream default/orders: spec.limits.maxMessages: this would delete at once the oldest 3 events (onFull: DropOldest)",
    )
    .await;
    held(
        &mut dev,
        "  maxMessagesPerSubject: 1\n",
        "6:3: EventStream default/orders: spec.maxMessagesPerSubject: this would delete at once 3 events with newer ones on the same subject",
    )
    .await;
    let bytes = config(&dev).await.state.bytes;
    held(
        &mut dev,
        &format!("  limits: {{maxBytes: \"{}\", onFull: DropOldest}}\n", bytes - 1),
        "6:12: EventStream default/orders: spec.limits.maxBytes: this would delete at once the oldest events, at least 1 byte (onFull: DropOldest)",
    )
    .await;
    // The rest of the manifest is in force, and what deletes nothing is too.
    stream(
        &shell,
        "  limits: {maxMessages: 2}\n  maxMessageSize: 64Ki\n",
    );
    dev.line("stream default_orders changed (max_msg_size, max_msgs)")
        .await;
    held(
        &mut dev,
        "  limits: {maxMessages: 3, onFull: DropOldest}\n  maxMessageSize: 32Ki\n",
        "6:12: EventStream default/orders: spec.limits.maxMessages: this would delete at once the oldest 2 events (onFull: DropOldest)",
    )
    .await;
    let now = config(&dev).await.config;
    assert_eq!((now.max_messages, now.max_message_size), (2, 32 * 1024));
    stream(&shell, "  limits: {maxMessages: 20, onFull: DropOldest}\n");
    dev.line("stream default_orders changed (discard, max_msg_size, max_msgs)")
        .await;
    assert_eq!(config(&dev).await.state.messages, 5);

    eventually("events that are 1 s old", CAP, async || {
        let info = config(&dev).await;
        let age = time::OffsetDateTime::now_utc() - info.state.last_timestamp;
        if age > time::Duration::milliseconds(1100) {
            Ok(())
        } else {
            Err(age)
        }
    })
    .await;
    stream(&shell, "  limits: {maxAge: 1s}\n");
    dev.line("spec.limits.maxAge: this would delete at once 5 events older than that; limits, ")
        .await;
    dev.stop().await;

    // Said at the start too, and done when it is allowed.
    let mut dev = Dev::start(&shell, "").await;
    dev.line("spec.limits.maxAge: this would delete at once 5 events older than that; limits, ")
        .await;
    assert_eq!(config(&dev).await.state.messages, 5);
    dev.stop().await;
    stream(&shell, "  limits: {maxMessages: 2, onFull: DropOldest}\n");
    let dev = Dev::start(&shell, "--allow-loss orders").await;
    assert_eq!(config(&dev).await.state.messages, 2);
    let said = dev.stop().await;
    assert!(!said.contains("would delete"), "{said}");

    let ran = shell.run("dev manifests --allow-loss payments");
    assert!(
        ran.code == Some(2)
            && ran
                .stderr
                .contains("no manifest has an EventStream payments"),
        "{}",
        ran.seen()
    );
}

/// Processes as `ps` tells them: number, parent, program.
fn processes() -> Vec<(u32, u32, String)> {
    let listed = std::process::Command::new("ps")
        .args(["-A", "-o", "pid=,ppid=,comm="])
        .output();
    let text = String::from_utf8(listed.unwrap().stdout).unwrap();
    let read = text.lines().map(|line| {
        let mut words = line.split_whitespace();
        let mut number = || words.next().unwrap().parse().unwrap();
        let (pid, parent) = (number(), number());
        (pid, parent, words.collect())
    });
    read.collect()
}

fn child_of(dev: &Dev, program: &str) -> u32 {
    let children = processes().into_iter();
    let mut found = children
        .filter(|(_, parent, name)| *parent == dev.process.pid() && name.ends_with(program));
    found.next().unwrap().0
}

/// Kills `dev` and the shell that would stop its server; gives the server, which lives on.
fn orphan(mut dev: Dev) -> u32 {
    let server = child_of(&dev, "nats-server");
    let watchdog = child_of(&dev, "sh").to_string();
    let killed = std::process::Command::new("kill")
        .args(["-9", &watchdog])
        .status();
    assert!(killed.unwrap().success());
    dev.process.kill9();
    let address = dev.url.strip_prefix("nats://").unwrap();
    std::net::TcpStream::connect(address).unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_left_behind_is_ended_before_another_has_its_store() {
    let shell = Shell::new();
    write_manifests(&shell);
    let dev = Dev::start(&shell, "").await;
    publish(&shell, ["o-1"]);
    until(&shell, "query status -o json", |ran| {
        ran.stdout.contains("placed")
    })
    .await;
    let left = orphan(dev);
    let mut dev = Dev::start(&shell, "").await;
    dev.line(&format!("warning: a nats-server of an earlier run (process {left}) still had the store and was ended"))
        .await;
    // One that nobody has waited for yet is shown as defunct.
    let lives = |(pid, _, name): &(u32, u32, String)| *pid == left && name.ends_with("nats-server");
    eventually("the server's end", CAP, async || {
        let found = processes().into_iter().find(lives);
        found.map_or(Ok(()), |(_, _, name)| Err(name))
    })
    .await;
    until(&shell, "query status -o json", |ran| {
        ran.stdout.contains("placed")
    })
    .await;

    // Emptied, but not under a server's feet.
    let left = orphan(dev);
    let mut dev = Dev::start(&shell, "--fresh").await;
    dev.line(&format!("(process {left}) still had the store"))
        .await;
    let events = shell.run("event get orders -o json").ok();
    assert_eq!(events.json_lines().len(), 0);
    dev.stop().await;

    // Whoever has the store and isn't known is left alone.
    let lock = std::fs::File::create(shell.path().join("manifests/.tidemill/server.lock")).unwrap();
    lock.lock().unwrap();
    let refused = Dev::spawn(&shell, "").wait_exit(CAP).await.unwrap();
    assert_eq!(refused.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_although_its_server_does_not_come_up() {
    let shell = Shell::new();
    write_manifests(&shell);
    shell.write(
        "nats-server",
        "#!/bin/sh\ncase \"$*\" in *version*) echo 'nats-server: v2.15.2'; exit 0;; esac\nexec sleep 600\n",
    );
    let program = shell.path().join("nats-server");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut dev = Process::builder(env!("CARGO_BIN_EXE_tidemill"))
        .current_dir(shell.path())
        .args(["dev", "manifests"])
        .env("TIDEMILL_NATS_SERVER", &program)
        .env_remove("TIDEMILL_NATS")
        .name("dev")
        .spawn()
        .unwrap();
    let lock = shell.path().join("manifests/.tidemill/server.lock");
    eventually("its server's process number", CAP, async || {
        let text = std::fs::read_to_string(&lock).unwrap_or_default();
        if text.ends_with('\n') {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    dev.interrupt().unwrap();
    // Else it ends with an error, as the server took too long.
    assert!(dev.wait_exit(CAP).await.unwrap().success());
    assert_eq!(dev.stdout(), "stopped before NATS was there\n");
    // The child holds the lock as long as it lives.
    let lock = std::fs::File::open(&lock).unwrap();
    eventually("the end of its server", CAP, async || lock.try_lock()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_deleted_and_made_again_is_said() {
    let server = NatsServer::start().await.unwrap();
    let options = format!("--nats {}", server.url());
    let shell = Shell::new();
    write_manifests(&shell);
    let jetstream = async_nats::jetstream::new(server.client().await.unwrap());
    let delete = async || {
        jetstream
            .delete_stream("default_fulfilment_log")
            .await
            .unwrap()
    };
    let said = async |resets: u64, note: &str| {
        until(&shell, "saga list -o json", |ran| {
            let saga = &ran.json()[0];
            saga["logResets"] == resets
                && saga["note"].as_str().unwrap_or_default().starts_with(note)
        })
        .await;
    };
    let mut dev = Dev::start(&shell, &options).await;
    publish(&shell, ["o-1", "o-2"]);
    dev.line("Saga default/fulfilment: seen 2, matched 2, skipped 0, started 2, running 2")
        .await;
    dev.stop().await;

    // While nothing ran.
    delete().await;
    let mut dev = Dev::start(&shell, &options).await;
    dev.line("error: Saga default/fulfilment: LogReset: ").await;
    dev.line("started 0, running 0, completed 0, compensated 0, parked 0, LogReset: the log was set back")
        .await;
    said(1, "LogReset: the log was set back or made again").await;

    // While it runs: the log is made again with the next look at the manifests.
    publish(&shell, ["o-3"]);
    dev.line("started 1, running 1, completed 0, compensated 0, parked 0, LogReset: the log was set back")
        .await;
    delete().await;
    dev.line("Saga default/fulfilment: not ready: stream default_fulfilment_log doesn't exist")
        .await;
    let stream = "manifests/stream.yaml";
    let text = std::fs::read_to_string(shell.path().join(stream)).unwrap();
    shell.write(stream, &format!("{text}# again\n"));
    dev.line("Saga default/fulfilment: stream default_fulfilment_log made")
        .await;
    said(2, "LogReset (2 times): the log was set back or made again").await;

    // While it runs, and made again by the next run, when the counters of this one have begun anew.
    publish(&shell, ["o-4"]);
    dev.line("started 1, running 1, completed 0, compensated 0, parked 0, LogReset: the log was set back")
        .await;
    until(&shell, "saga list -o json", |ran| {
        ran.json()[0]["started"] == 1
    })
    .await;
    delete().await;
    until(&shell, "saga list -o json", |ran| {
        ran.json()[0]["started"] == 0
    })
    .await;
    dev.stop().await;
    let dev = Dev::start(&shell, &options).await;
    said(3, "LogReset (3 times): the log was set back or made again").await;
    dev.stop().await;
}
