//! `tidemill dev` as a process: its server, its folder, changed manifests, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{CAP, Dev, STATUS, until, write_manifests};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use support::{Shell, redact};
use tidemill_testbed::{NatsServer, eventually};

const PLACED: &str =
    "event publish orders --type OrderPlaced --subject o-1 --id 1 --data '{\"total\": 12.50}'";

/// A folder with manifests, and `tidemill dev` of it.
async fn begun(options: &str) -> (Shell, Dev) {
    let shell = Shell::new();
    write_manifests(&shell);
    let dev = Dev::start(&shell, options).await;
    (shell, dev)
}

/// Waits until a query shows a word.
async fn shows(shell: &Shell, query: &str, word: &str) {
    until(shell, &format!("{query} -o json"), |ran| {
        ran.stdout.contains(word)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_screen_says_where_and_what_next_and_ctrl_c_stops_everything() {
    let (shell, mut dev) = begun("").await;
    dev.line("Saga default/fulfilment: ready").await;
    dev.line("Projection default/status: ready").await;
    shell.run(PLACED).ok();
    dev.line("Saga default/fulfilment: seen 1, matched 1").await;
    let url = dev.url.clone();
    let said = dev.stop().await;
    let first: Vec<&str> = said
        .lines()
        .skip_while(|line| !line.starts_with("NATS: "))
        .take(7)
        .collect();
    let first = first.join("\n").replace(&url, "<url>");
    insta::assert_snapshot!("the_first_screen", redact(&first));
    assert!(
        said.contains("stopped; the next run goes on from here"),
        "{said}"
    );

    // Nothing is left: no server, and no word of one.
    assert!(async_nats::connect(&url).await.is_err());
    assert!(!shell.path().join(".tidemill/dev.json").exists());
    assert!(!shell.path().join("manifests/.tidemill/dev.json").exists());
    let ran = shell.run("saga list");
    assert!(
        ran.code == Some(4) && ran.stderr.contains("tidemill dev"),
        "{}",
        ran.seen()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn data_stays_between_runs_until_fresh() {
    let (shell, run) = begun("").await;
    shell.run(PLACED).ok();
    shows(&shell, "query status o-1", "placed").await;
    run.stop().await;

    let run = Dev::start(&shell, "").await;
    // By the worker of the second run, which continues where the first stood.
    until(&shell, "projection list -o json", |ran| {
        ran.stdout.contains("\"running\": true")
    })
    .await;
    let row = shell.run("query status o-1 -o json").ok().json();
    assert_eq!(row, serde_json::json!({"state": "placed", "total": 12.50}));
    assert_eq!(
        shell
            .run("event get orders -o json")
            .ok()
            .json_lines()
            .len(),
        1
    );
    run.stop().await;

    let run = Dev::start(&shell, "--fresh").await;
    assert_eq!(
        shell
            .run("event get orders -o json")
            .ok()
            .json_lines()
            .len(),
        0
    );
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_manifests_are_taken_over_and_wrong_ones_are_not() {
    let (shell, mut dev) = begun("").await;
    shell.run(PLACED).ok();
    shows(&shell, "query status o-1", "placed").await;

    // Wrong: said with its place, and the old goes on.
    shell.write(
        "manifests/status.yaml",
        &STATUS.replace("=event.data.total", "=evnt.data.total"),
    );
    dev.line("manifests/status.yaml:9:28: Projection default/status: spec.handlers[0].set.total: `evnt` isn't declared")
        .await;
    dev.line("what ran before goes on").await;
    shell
        .run("event publish orders --type OrderPlaced --subject o-2 --data '{\"total\": 2}'")
        .ok();
    shows(&shell, "query status o-2", "placed").await;

    // Mended and changed: the rows are made anew.
    shell.write(
        "manifests/status.yaml",
        &STATUS.replace("state: placed", "state: taken"),
    );
    dev.line("all manifests are in force").await;
    shows(&shell, "query status o-2", "taken").await;

    // New and removed.
    shell.write(
        "manifests/deep/more.yaml",
        &STATUS.replace("name: status", "name: more"),
    );
    dev.line("default/projection/more: started").await;
    shows(&shell, "query more o-1", "placed").await;
    std::fs::remove_file(shell.path().join("manifests/fulfilment.yaml")).unwrap();
    dev.line("default/saga/fulfilment: stopped; its data stays")
        .await;
    let ran = shell.run("saga start fulfilment o-9");
    assert!(
        ran.code == Some(4) && ran.stderr.contains("no worker of default/saga/fulfilment"),
        "{}",
        ran.seen()
    );
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dev_per_folder() {
    let (shell, dev) = begun("").await;
    let pid = dev.process.pid().to_string();
    let second = shell.run("dev manifests");
    assert_eq!(second.code, Some(5), "{}", second.seen());
    insta::assert_snapshot!("one_dev_per_folder", second.seen().replace(&pid, "<pid>"));
    dev.stop().await;
    // Killed or stopped, a lock isn't left behind.
    Dev::start(&shell, "").await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_dev_leaves_no_server_behind() {
    let (shell, mut dev) = begun("").await;
    shell.run(PLACED).ok();
    dev.process.kill9();
    let address = dev.url.strip_prefix("nats://").unwrap().to_owned();
    eventually(
        "the server's end",
        CAP,
        async || match std::net::TcpStream::connect(&address) {
            Ok(_) => Err("it still listens"),
            Err(_) => Ok(()),
        },
    )
    .await;
    // The next one takes over at once what it left.
    let mut dev = Dev::start(&shell, "").await;
    dev.line("Saga default/fulfilment: ready").await;
    shows(&shell, "query status o-1", "placed").await;
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_used_and_left_running() {
    let server = NatsServer::start().await.unwrap();
    let (shell, dev) = begun(&format!("--nats {}", server.url())).await;
    assert_eq!(dev.url, server.url());
    shell.run(PLACED).ok();
    shows(&shell, "query status o-1", "placed").await;
    dev.stop().await;
    // Its marks tell what there is, without any dev.
    let ran = Shell::on(&server.url())
        .run("query status o-1 -o json")
        .ok();
    assert_eq!(ran.json()["state"], "placed");
    // Without a worker nothing is claimed of what came since.
    let shell = Shell::on(&server.url());
    shell.run(&PLACED.replace("--id 1", "--id 2")).ok();
    for line in ["query status", "query status o-2"] {
        let ran = shell.run(line);
        assert!(
            (ran.stdout + &ran.stderr).contains("no worker answers; as last counted: seen 1, "),
            "{line}"
        );
    }
    let ran = shell.run("projection list").ok();
    assert!(
        ran.stdout
            .contains("the figures are those of the last worker"),
        "{}",
        ran.seen()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_owns_is_left_alone_and_said() {
    let server = NatsServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let theirs = async_nats::jetstream::stream::Config {
        name: "default_orders".to_owned(),
        subjects: vec!["theirs.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(theirs).await.unwrap();
    let (_shell, mut dev) = begun(&format!("--nats {}", server.url())).await;
    dev.line("EventStream default/orders can't run: stream default_orders wasn't made by Tidemill")
        .await;
    dev.stop().await;
    let subjects = jetstream
        .get_stream("default_orders")
        .await
        .unwrap()
        .cached_info()
        .config
        .subjects
        .clone();
    assert_eq!(
        subjects.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["theirs.>"]
    );
}

#[test]
fn what_is_wrong_from_the_start_is_one_clear_line() {
    let shell = Shell::new();
    write_manifests(&shell);
    std::fs::create_dir(shell.path().join("empty")).unwrap();
    shell.write(
        "broken/a.yaml",
        &STATUS.replace("key: event.subject", "kee: event.subject"),
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    let mut seen = String::new();
    for line in [
        "dev nothing",
        "dev empty",
        "dev broken",
        "dev manifests -o json",
        "dev manifests --fresh --nats nats://127.0.0.1:1",
        "dev manifests --nats nats://127.0.0.1:1",
        "dev manifests --nats http://127.0.0.1:1",
        "saga list --nats ''",
    ] {
        seen.push_str(&shell.run(line).seen());
    }
    let mut command = shell.command(&format!("dev manifests --port {port}"));
    let in_use = command
        .env(
            "TIDEMILL_NATS_SERVER",
            tidemill_testbed::nats_server::find_binary().unwrap(),
        )
        .output()
        .unwrap();
    seen.push_str(
        &String::from_utf8(in_use.stderr)
            .unwrap()
            .replace(&port.to_string(), "<port>"),
    );
    // Nothing is forgotten for a run that can't be.
    shell.write("manifests/.tidemill/nats/kept", "by an earlier run");
    let no_server = shell
        .command("dev manifests --fresh")
        .env("TIDEMILL_NATS_SERVER", "/nowhere/nats-server")
        .output()
        .unwrap();
    seen.push_str(&String::from_utf8(no_server.stderr).unwrap());
    assert!(shell.path().join("manifests/.tidemill/nats/kept").exists());
    insta::assert_snapshot!("what_is_wrong_from_the_start", redact(&seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_says_whose_it_is() {
    let (shell, mut dev) = begun("").await;
    shell
        .run("event publish orders --type OrderPlaced --subject o-9 --id 9 --data '{}'")
        .ok();
    dev.line("warning: Projection default/status: an event can't be folded")
        .await;
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_of_changed_manifests_are_said_once() {
    let shell = Shell::new();
    write_manifests(&shell);
    let counting = STATUS.replace(
        "state: confirmed}",
        "state: confirmed}\n      increment: {payments: 1}",
    );
    let short = "apiVersion: tidemill.dev/v1alpha1\nkind: EventStream\nmetadata: {name: orders}\nspec: {maxMessagesPerSubject: 5}\n";
    // Sagas don't publish to such a stream.
    std::fs::remove_file(shell.path().join("manifests/fulfilment.yaml")).unwrap();
    shell.write("manifests/stream.yaml", short);
    let mut dev = Dev::start(&shell, "").await;
    shell.write("manifests/status.yaml", &counting);
    let warning = "manifests/status.yaml:12:7: warning: Projection default/status: spec.handlers[1].increment: EventStream default/orders drops older events";
    dev.line(warning).await;
    shell.write(
        "manifests/more.yaml",
        &STATUS.replace("name: status", "name: more"),
    );
    dev.line("default/projection/more: started").await;
    let said = dev.stop().await;
    assert_eq!(said.matches(warning).count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_written_and_emptied_files_remove_nothing() {
    let (shell, mut dev) = begun("").await;
    dev.line("Saga default/fulfilment: ready").await;
    let file = "manifests/fulfilment.yaml";
    let nothing_left =
        "manifests/fulfilment.yaml:1:1: nothing is left of the resources in this file";
    shell.write(file, "a: [\n");
    dev.line("manifests/fulfilment.yaml:1:4: a[0]: this is not YAML")
        .await;
    for text in ["", "# later\n---\n", "apiVersion: v1\n"] {
        shell.write(file, text);
        dev.line(nothing_left).await;
        write_manifests(&shell);
        dev.line("all manifests are in force").await;
    }
    shell.run("saga start fulfilment o-9").ok();
    assert!(!dev.process.stdout().contains("stopped; its data stays"));

    // What became something else is removed.
    shell.write(file, "apiVersion: v1\nkind: ConfigMap\n");
    dev.line("default/saga/fulfilment: stopped; its data stays")
        .await;
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_among_the_manifests_is_not_waited_for() {
    let (shell, mut dev) = begun("").await;
    let pipe = shell.path().join("manifests/pipe.yaml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    dev.line(
        "manifests/pipe.yaml:1:1: the file can't be read: it is a folder, pipe, socket or device",
    )
    .await;
    dev.line("what ran before goes on").await;
    std::fs::remove_file(&pipe).unwrap();
    dev.line("all manifests are in force").await;
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_is_said_at_once() {
    let (shell, mut dev) = begun("").await;
    dev.line("Saga default/fulfilment: ready").await;
    shell.run(PLACED).ok();
    dev.line("Saga default/fulfilment: seen 1, matched 1").await;
    let ports = std::fs::read_dir(shell.path().join("manifests/.tidemill/ports")).unwrap();
    let names = ports.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let server = names
        .filter_map(|name| {
            Some(
                name.strip_prefix("nats-server_")?
                    .split_once('.')?
                    .0
                    .to_owned(),
            )
        })
        .next()
        .unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-9", &server])
        .status();
    assert!(killed.unwrap().success());
    // Well below the 10 s that a worker may take to finish what is in flight.
    let status = dev.process.wait_exit(Duration::from_secs(6)).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let said = dev.process.stdout() + &dev.process.stderr();
    assert!(
        said.contains("error: nats-server ended (signal: 9 (SIGKILL)); its log is ")
            && said.contains(".tidemill/nats.log"),
        "{said}"
    );
    assert!(
        !said.contains("a fault") && !said.contains("cancelled"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_complains_of_is_said() {
    let (_shell, mut dev) = begun("").await;
    let address = dev.url.trim_start_matches("nats://").to_owned();
    let mut stranger = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    dev.line("error: nats-server: ").await;
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_although_the_server_is_frozen() {
    let mut server = NatsServer::start().await.unwrap();
    let (_shell, mut dev) = begun(&format!("--nats {}", server.url())).await;
    dev.line("Saga default/fulfilment: ready").await;
    server.sigstop().await.unwrap();
    // It only waits for its workers; the rest of what it waits for is bounded by less.
    let said = dev.stop().await;
    server.sigcont().unwrap();
    assert!(said.contains("stopping: workers finish"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_not_shown() {
    let server = NatsServer::start().await.unwrap();
    let address = server.url().replace("nats://", "nats://somebody:secret@");
    let (shell, mut dev) = begun(&format!("--nats {address}")).await;
    assert_eq!(dev.url, server.url());
    dev.line("Saga default/fulfilment: ready").await;
    // Other commands find it there; other people don't.
    let told = shell.path().join("manifests/.tidemill/dev.json");
    let mode = std::fs::metadata(told).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let said = dev.stop().await;
    assert!(!said.contains("secret"), "{said}");
}

/// The manifests of the order example, without its events.
fn order_example(shell: &Shell) {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../k8s/examples/orders/manifests"
    );
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".yaml") {
            shell.write(
                &format!("manifests/{name}"),
                &std::fs::read_to_string(&path).unwrap(),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_screen_offers_can_be_typed_in() {
    let shell = Shell::new();
    order_example(&shell);
    let mut dev = Dev::start(&shell, "").await;
    dev.line("tidemill event publish ").await;
    dev.line("Saga default/order-fulfilment: ready").await;
    let said = dev.process.stdout();
    let offered = said
        .lines()
        .find_map(|line| line.strip_prefix("  tidemill event publish "))
        .unwrap();
    assert!(
        offered.contains("--type OrderPlaced --subject id-1 --data '{\"address\":{"),
        "{offered}"
    );
    shell.run(&format!("event publish {offered}")).ok();
    for projection in ["order-status", "customer-orders"] {
        until(&shell, &format!("query {projection} -o json"), |ran| {
            ran.json().as_array().unwrap().len() == 1
        })
        .await;
    }
    // Its first request waits for the participant, which isn't there.
    until(&shell, "saga show order-fulfilment id-1 -o json", |ran| {
        ran.code == Some(0) && ran.stdout.contains("NoResponders")
    })
    .await;
    assert_eq!(
        shell.run("parked list -o json").ok().json(),
        serde_json::json!([])
    );
    dev.stop().await;

    // The events beside the folder are better than a made one.
    shell.write("events.jsonl", "");
    let dev = Dev::start(&shell, "").await;
    let said = dev.stop().await;
    assert!(
        said.contains("event publish orders --file events.jsonl"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_other_than_one_are_said_and_zero_runs_nothing() {
    let shell = Shell::new();
    write_manifests(&shell);
    shell.write(
        "manifests/status.yaml",
        &STATUS.replace("spec:", "spec:\n  replicas: 0"),
    );
    let fulfilment =
        std::fs::read_to_string(shell.path().join("manifests/fulfilment.yaml")).unwrap();
    shell.write(
        "manifests/fulfilment.yaml",
        &fulfilment.replace("spec:", "spec:\n  replicas: 5"),
    );
    let mut dev = Dev::start(&shell, "").await;
    dev.line("Saga default/fulfilment: ready").await;
    for warning in [
        "warning: manifests/status.yaml:5:3: Projection default/status: spec.replicas: 0, so `tidemill dev` runs no worker of it",
        "warning: manifests/fulfilment.yaml:5:3: Saga default/fulfilment: spec.replicas: 5; `tidemill dev` runs one worker of it",
    ] {
        dev.line(warning).await;
    }
    let listed = shell.run("projection list -o json").ok().json();
    assert_eq!(listed[0]["running"], false, "{listed}");
    // Taken over when it changes, and not said again.
    shell.write("manifests/status.yaml", STATUS);
    dev.line("Projection default/status: ready").await;
    shell.write(
        "manifests/status.yaml",
        &STATUS.replace("spec:", "spec:\n  replicas: 0"),
    );
    dev.line("default/projection/status: stopped; its data stays")
        .await;
    let said = dev.stop().await;
    assert_eq!(said.matches("runs no worker of it").count(), 1, "{said}");
}
