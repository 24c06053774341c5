//! kubectl itself reads every example, and what people write that could be read in two ways: what is accepted here means the same to it.

use super::json;
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tidemill_testbed_cluster::Programs;

/// What kubectl makes of documents: it writes them as JSON, with a label that it needs something to do for.
fn kubectl(text: &str) -> Vec<Value> {
    let mut kubectl = Command::new(Programs::find().unwrap().path("kubectl").unwrap())
        .args("label --local --filename - --output json read=here".split(' '))
        .env("KUBECONFIG", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = kubectl.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = kubectl.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
    let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let documents: Result<Vec<Value>, _> = documents.collect();
    documents.unwrap()
}

fn ours(text: &str) -> Value {
    let mut document = json(text);
    document["metadata"]["labels"]["read"] = "here".into();
    document
}

/// Manifests of a page of the documentation, or of a file.
fn manifests(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> = match path.extension().is_some_and(|of| of == "md") {
        true => text
            .split("```yaml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap())
            .collect(),
        false => vec![&text],
    };
    blocks
        .into_iter()
        .filter(|block| block.contains("apiVersion: tidemill.dev/"))
        .flat_map(|block| block.split("\n---\n"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_example_is_read_as_kubectl_reads_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let within = |folder: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let mut files = vec![
        root.join("README.md"),
        root.join("cli/tests/data/hotel.yaml"),
    ];
    files.extend(within("docs/guide"));
    files.extend(within("k8s/examples/orders/manifests"));
    let all: Vec<String> = files.iter().flat_map(|file| manifests(file)).collect();
    assert!(all.len() > 12, "only {} manifests", all.len());
    let theirs = kubectl(&all.join("\n---\n"));
    assert_eq!(theirs.len(), all.len());
    for (text, theirs) in all.iter().zip(theirs) {
        assert_eq!(ours(text), theirs, "{text}");
    }
}

#[test]
fn whatever_is_accepted_means_the_same_to_kubectl() {
    let values = [
        "event.subject",
        "'on'",
        "\"yes\"",
        "true",
        "false",
        "null",
        "~",
        "1",
        "-1",
        "0",
        "1.5",
        "1e3",
        "'1e3'",
        "10Gi",
        "720h",
        "'0755'",
        "\"2026-01-02\"",
        "=event.data.total * 2",
        "'=event.data.note == \"a: b\"'",
        "|\n    two\n    lines",
        ">-\n    folded\n    lines",
        "\"\\u00e9\\n\"",
        "[a, 'b, c', {d: 1}]",
        "{a: {b: []}, c: {}}",
        "\"\"",
        "a # a comment",
        "'it''s'",
        "https://example.com/a?b=c#d",
        "9007199254740991",
        "-0.25",
        "<<",
        "a:b",
        "'a: b'",
    ];
    let document = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  value: {value}\n")
    };
    let accepted: Vec<String> = values
        .iter()
        .map(|value| document(value))
        .filter(|text| super::problems(text).is_empty())
        .collect();
    // Most are, or nothing is shown.
    assert!(accepted.len() >= 28, "only {}", accepted.len());
    for (text, theirs) in accepted.iter().zip(kubectl(&accepted.join("---\n"))) {
        assert_eq!(ours(text)["data"], theirs["data"], "{text}");
    }
}
