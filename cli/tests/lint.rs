//! `tidemill lint` as a process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use support::Shell;

const STREAM: &str = "\
apiVersion: tidemill.dev/v1alpha1
kind: EventStream
metadata:
  name: orders
spec: {}
";

const PROJECTION: &str = "\
apiVersion: tidemill.dev/v1alpha1
kind: Projection
metadata:
  name: order-status
spec:
  from: [{stream: {name: orders}}]
  key: event.subject
  handlers:
    - type: OrderPlaced
      set: {status: placed}
  sink: {kv: {}}
";

#[test]
fn good_manifests_are_listed() {
    let shell = Shell::new();
    shell.write("manifests/stream.yaml", STREAM);
    shell.write("manifests/deep/projection.yaml", PROJECTION);
    shell.write(
        "manifests/other.yaml",
        "apiVersion: v1\nkind: Secret\nstringData: {y: yes}\n",
    );
    shell.write(
        "manifests/.hidden/broken.yaml",
        "apiVersion: tidemill.dev/v1alpha1\nkind: {\n",
    );
    shell.write("manifests/notes.txt", "tidemill.dev {");
    let mut seen = shell.run("lint manifests").ok().seen();
    seen.push_str(
        &shell
            .run_with("lint -", &format!("{STREAM}---\n{PROJECTION}"))
            .ok()
            .seen(),
    );
    seen.push_str(&shell.run("lint manifests/deep/projection.yaml").ok().seen());
    seen.push_str(
        &shell
            .run("lint manifests/deep/projection.yaml --strict")
            .seen(),
    );
    seen.push_str(&shell.run("lint manifests -n shop -o json").ok().seen());
    insta::assert_snapshot!("good_manifests_are_listed", seen);
}

#[test]
fn every_error_has_its_place_and_says_what_would_do() {
    let shell = Shell::new();
    shell.write("stream.yaml", STREAM);
    shell.write(
        "projection.yaml",
        "\
apiVersion: tidemill.dev/v1alpha1
kind: Projection
metadata:
  name: order-status
spec:
  from: [{stream: {name: order}}]
  key: event.subject
  key: event.id
  handlers:
    - type: OrderPlaced
      when: event.data.total >
      set:
        on: true
        placed: =evnt.time
        total: 0777
    - type: OrderPaid
      sett: {status: paid}
  sink: {kv: {}}
  suspend: yes
---
apiVersion: tidemill.dev/v1alpha2
kind: Projection
metadata: {name: next}
spec: {}
---
apiVersion: tidemill.dev/v1alpha1
kind: Projektion
metadata: {name: other}
---
apiVersion: tidemill.dev/v1alpha1
kind: Saga
metadata: {name: broken}
spec:
  steps:
    - name: one
      when: event.data.x ? 'a' : 'b'
",
    );
    shell.write("twice.yaml", STREAM);
    let mut seen = shell
        .run("lint stream.yaml projection.yaml twice.yaml")
        .seen();
    let json = shell.run("lint projection.yaml -o json");
    assert_eq!(json.code, Some(1));
    let errors = json.json()["errors"].as_array().unwrap().clone();
    assert!(
        errors
            .iter()
            .all(|error| error["line"].as_u64().unwrap() > 0),
        "{errors:?}"
    );
    shell.write("deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\n");
    std::fs::create_dir(shell.path().join("empty")).unwrap();
    for line in [
        "lint deployment.yaml",
        "lint empty",
        "lint nothing.yaml",
        "lint",
    ] {
        seen.push_str(&shell.run(line).seen());
    }
    insta::assert_snapshot!("every_error_has_its_place_and_says_what_would_do", seen);
}

#[test]
fn the_example_is_linted() {
    let shell = Shell::new();
    let examples = root().join("k8s/examples");
    let mut folders = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let folder = entry.unwrap().path();
        if folder.is_dir() {
            // With --strict: an example declares what it uses, and nobody wonders about a warning.
            let ran = shell.run(&format!("lint --strict '{}'", folder.display()));
            assert_eq!(ran.code, Some(0), "{}", ran.seen());
            folders += 1;
        }
    }
    assert!(folders > 0);
}

#[test]
fn every_manifest_in_the_documentation_is_linted() {
    let shell = Shell::new();
    let mut files = vec![root().join("README.md")];
    markdown(&root().join("docs"), &mut files);
    for entry in std::fs::read_dir(root().join("k8s/examples")).unwrap() {
        markdown(&entry.unwrap().path(), &mut files);
    }
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (line, block) in yaml_blocks(&text) {
            if block.contains("apiVersion: tidemill.dev") {
                let ran = shell.run_with("lint -", &block);
                assert_eq!(
                    ran.code,
                    Some(0),
                    "{}:{line}: {}",
                    file.display(),
                    ran.seen()
                );
            }
        }
    }
}

#[test]
fn nobody_reading_on_is_no_failure_but_errors_are() {
    let shell = Shell::new();
    shell.write("good.yaml", STREAM);
    shell.write("bad.yaml", &STREAM.replace("spec:", "spek:"));
    for (file, code) in [("good.yaml", 0), ("bad.yaml", 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = shell.command(&format!("lint {file}"));
        let ran = command.stdout(writer).output().unwrap();
        assert_eq!(ran.status.code(), Some(code), "{file}");
        assert_eq!(String::from_utf8(ran.stderr).unwrap(), "", "{file}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn markdown(folder: &Path, into: &mut Vec<PathBuf>) {
    if !folder.is_dir() {
        return;
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path);
        }
    }
}

/// The blocks fenced as YAML, each with the line it begins in.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut open) = (Vec::new(), None);
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim_start();
        match &mut open {
            None if fence.starts_with("```yaml") || fence.starts_with("```yml") => {
                open = Some((index + 1, String::new()))
            }
            None => {}
            Some(_) if fence.starts_with("```") => blocks.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

#[test]
fn blocks_are_found() {
    let text = "a\n```yaml\nb: 1\n```\n```sh\nc\n```\n  ```yaml\n  d: 1\n  ```\n";
    assert_eq!(
        yaml_blocks(text),
        [(2, "b: 1\n".to_owned()), (8, "  d: 1\n".to_owned())]
    );
}
