//! Wrong resources: what `kubectl apply` prints of each, or what its condition says.

use crate::world::{CAP, World};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::Stdio;
use tidemill_crds::eventstream::EventStream;
use tidemill_testbed::wait::within;
use tokio::io::AsyncWriteExt;

const SPECS: &str = include_str!("wrong/specs.yaml");

impl World {
    /// Runs kubectl in the namespace of the test; gives what it printed, and whether it was content.
    async fn kubectl(&self, arguments: &str, input: &str) -> (bool, String) {
        let mut kubectl = self.plane.kubectl().unwrap();
        let mut kubectl = kubectl
            .args(["--namespace", "shop"])
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = kubectl.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = kubectl.wait_with_output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        (output.status.success(), said)
    }

    /// What the operator says of something that isn't ready.
    async fn said_of(&self, kind: &str, name: &str) -> String {
        let said = within(CAP, async || {
            let (_, found) = self
                .kubectl(&format!("get {kind} {name} -o json"), "")
                .await;
            let found: Value = serde_json::from_str(&found).map_err(|_| found)?;
            let conditions = found["status"]["conditions"].as_array().cloned();
            let ready = conditions
                .into_iter()
                .flatten()
                .find(|one| one["type"] == "Ready");
            match ready {
                Some(ready) => Ok(ready),
                None => Err("nothing is said".to_owned()),
            }
        });
        let ready = said
            .await
            .unwrap_or_else(|last| panic!("{kind} {name} isn't wrong: {last}"));
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        format!("{}: {}", text("reason"), text("message"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_its_place_and_what_would_do() {
    let world = World::start().await;
    let operator = world.operator("a").await;
    world.apply::<EventStream>("orders", json!({})).await;
    world.namespace("finance").await;
    let payments = world.at("finance");
    payments.apply::<EventStream>("payments", json!({})).await;
    payments.expect::<EventStream>("payments", "InForce").await;
    world.expect::<EventStream>("orders", "InForce").await;
    let mut all = String::new();
    for spec in SPECS.split("\n---\n") {
        let field = |start: &str| {
            let line = spec.lines().find_map(|line| line.strip_prefix(start));
            line.unwrap().trim_end_matches('}')
        };
        let (kind, name) = (field("kind: "), field("metadata: {name: "));
        let (taken, printed) = world.kubectl("apply --filename -", spec).await;
        let _ = writeln!(all, "{kind} {name}");
        let said = match taken {
            true => world.said_of(kind, name).await,
            false => format!("kubectl: {printed}"),
        };
        for line in said.lines() {
            let _ = writeln!(all, "    {line}");
        }
    }
    operator.stop().await;
    insta::assert_snapshot!("wrong_specs", all);
}
