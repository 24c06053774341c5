//! The shape of the workspace: who may depend on whom, what stays pure, what no file may say.
//!
//! The checks are functions on data, so that each is tried on something that breaks it as well.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tidemill_testbed::binaries::workspace_root;

/// What each crate of the workspace may use of the workspace, at run time, names without `tidemill-`. `*` is everything.
const ALLOWED: &[(&str, &str)] = &[
    ("core", ""),
    ("crds", "core"),
    ("nats", "core"),
    ("provision", "core crds nats"),
    ("service", "nats"),
    ("operator", "core crds nats provision service"),
    ("worker-runtime", "core nats service"),
    ("worker-projection", "core nats worker-runtime"),
    ("worker-saga", "core nats worker-runtime"),
    (
        "worker",
        "core nats worker-runtime worker-projection worker-saga",
    ),
    (
        "cli",
        "core crds nats provision worker-runtime worker-projection worker-saga",
    ),
    ("inventory", ""),
    ("testbed", "*"),
    ("testbed-cluster", "testbed"),
    ("bench", "*"),
];

const TESTBED: &str = "tidemill-testbed";

/// Crates that talk to the world, read a clock, draw numbers or run tasks: none may be anywhere below `core`.
const IO: &str = "\
    async-io async-nats async-std axum chrono curl dirs fastrand getrandom hyper hyper-util kube \
    kube-client kube-runtime mio notify polling quinn rand rand_core rayon reqwest rustix rustls \
    smol socket2 sqlx tempfile time tokio tokio-postgres tokio-util tower tracing-subscriber \
    ureq walkdir";

/// Crates that no worker may have anywhere below it: a worker knows no Kubernetes.
const KUBERNETES: &str = "\
    kube kube-client kube-core kube-derive kube-runtime k8s-openapi tidemill-crds";

/// Modules and types of `std` that `core`'s sources may not name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::net",
    "std::thread",
    "std::process",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "std::time::SystemTime",
    "std::time::Instant",
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
];

/// `cargo metadata` of this workspace, for this platform only (others' crates need not be downloaded).
fn metadata() -> Value {
    let rustc = Command::new("rustc")
        .arg("-vV")
        .current_dir(workspace_root())
        .output()
        .unwrap();
    let text = String::from_utf8(rustc.stdout).unwrap();
    let host = text
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace_root())
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--locked",
            "--filter-platform",
            host,
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Dependencies between packages by name, each with its kinds (`normal`, `build`, `dev`). Several versions of one package
/// are kept apart as `name@version`: what one of them depends on says nothing of the other.
struct Graph {
    members: BTreeSet<String>,
    edges: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Graph {
    fn read(metadata: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let packages = metadata["packages"].as_array().unwrap();
        let mut versions: BTreeMap<String, usize> = BTreeMap::new();
        for package in packages {
            *versions.entry(text(&package["name"])).or_default() += 1;
        }
        let name = |package: &Value| match text(&package["name"]) {
            name if versions[&name] > 1 => format!("{name}@{}", text(&package["version"])),
            name => name,
        };
        let names: BTreeMap<String, String> = packages
            .iter()
            .map(|package| (text(&package["id"]), name(package)))
            .collect();
        let members = metadata["workspace_members"].as_array().unwrap().iter();
        let members = members
            .map(|id| names[id.as_str().unwrap()].clone())
            .collect();
        let mut edges: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().unwrap() {
            let from = edges
                .entry(names[node["id"].as_str().unwrap()].clone())
                .or_default();
            for dep in node["deps"].as_array().unwrap() {
                let kinds = from
                    .entry(names[dep["pkg"].as_str().unwrap()].clone())
                    .or_default();
                for kind in dep["dep_kinds"].as_array().unwrap() {
                    kinds.insert(kind["kind"].as_str().unwrap_or("normal").to_owned());
                }
            }
        }
        Self { members, edges }
    }

    /// Everything below a package by normal dependencies, each with the way to it.
    fn below(&self, root: &str) -> BTreeMap<String, String> {
        let mut ways = BTreeMap::from([(root.to_owned(), root.to_owned())]);
        let mut open = vec![root.to_owned()];
        while let Some(from) = open.pop() {
            for (to, kinds) in self.edges.get(&from).into_iter().flatten() {
                if kinds.contains("normal") && !ways.contains_key(to) {
                    ways.insert(to.clone(), format!("{} -> {to}", ways[&from]));
                    open.push(to.clone());
                }
            }
        }
        ways.remove(root);
        ways
    }
}

fn forbidden_edges(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for member in &graph.members {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == short(member)) else {
            found.push(format!(
                "{member}: new in the workspace; say in testbed/tests/tidy.rs what it may use"
            ));
            continue;
        };
        for (to, kinds) in graph.edges.get(member).into_iter().flatten() {
            let allowed = || {
                allowed
                    .split(' ')
                    .any(|name| name == "*" || name == short(to))
            };
            if !graph.members.contains(to) || allowed() {
                continue;
            }
            let dev_only = kinds.iter().all(|kind| kind == "dev");
            if !(dev_only && to.starts_with(TESTBED) && member != "tidemill-core") {
                let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
                found.push(format!("{member} -> {to} ({})", kinds.join(", ")));
            }
        }
    }
    found
}

fn short(name: &str) -> &str {
    name.strip_prefix("tidemill-").unwrap_or(name)
}

/// The way to a package in any of its versions.
fn way_to<'a>(below: &'a BTreeMap<String, String>, name: &str) -> Option<&'a String> {
    let is_it = |package: &str| package.split('@').next() == Some(name);
    below
        .iter()
        .find(|(package, _)| is_it(package))
        .map(|(_, way)| way)
}

fn io_below_core(graph: &Graph) -> Vec<String> {
    let below = graph.below("tidemill-core");
    IO.split(' ')
        .filter_map(|name| way_to(&below, name))
        .map(|way| format!("I/O crate below core: {way}"))
        .collect()
}

fn kubernetes_below_workers(graph: &Graph) -> Vec<String> {
    let workers = graph
        .members
        .iter()
        .filter(|name| name.starts_with("tidemill-worker"));
    let ways = workers.flat_map(|worker| {
        let below = graph.below(worker);
        KUBERNETES
            .split(' ')
            .filter_map(|name| below.get(name).cloned())
            .collect::<Vec<_>>()
    });
    ways.map(|way| format!("Kubernetes below a worker: {way}"))
        .collect()
}

/// Names of `std` in a source that `core` may not use. Comments are not looked at; grouped imports are taken apart.
fn impure_names(source: &str) -> Vec<&'static str> {
    let code: Vec<&str> = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect();
    let code: String = code
        .join("\n")
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("std::") {
        paths(&code[at..], "", &mut names);
    }
    let uses = |wanted: &str| {
        names
            .iter()
            .any(|name| name == wanted || name.starts_with(&format!("{wanted}::")))
    };
    IMPURE
        .iter()
        .copied()
        .filter(|wanted| uses(wanted))
        .collect()
}

/// Every path that begins at the start of `code`, with `{a,b::{c}}` taken apart; returns how long it was.
fn paths(code: &str, prefix: &str, found: &mut BTreeSet<String>) -> usize {
    let end = code
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(code.len());
    let path = format!("{prefix}{}", &code[..end]);
    if !code[end..].starts_with('{') || !path.ends_with("::") {
        found.insert(path);
        return end;
    }
    let mut at = end + 1;
    loop {
        at += paths(&code[at..], &path, found);
        match code[at..].chars().next() {
            Some(',') => at += 1,
            Some(c) => return at + c.len_utf8(),
            None => return at,
        }
    }
}

/// The first path in a text that exists only on somebody's machine. The needles are put together so as not to find themselves.
fn machine_path(text: &str) -> Option<&str> {
    let needles = [
        concat!("/", "work/"),
        concat!("/", "root/"),
        concat!("/", "home/"),
        concat!("/", "Users/"),
    ];
    let inside = |c: char| c.is_alphanumeric() || "_-./}".contains(c);
    text.lines().find(|line| {
        needles.iter().any(|needle| {
            let mut hits = line.match_indices(needle).map(|(at, _)| at);
            hits.any(|at| !line[..at].ends_with(inside))
        })
    })
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1);
    lines.find(|line| !line.is_empty()) == Some("workspace = true")
}

/// Files that git knows of.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.split('\0')
        .filter(|name| !name.is_empty())
        .map(|name| workspace_root().join(name))
        .collect()
}

#[test]
fn dependencies_between_crates_are_the_allowed_ones() {
    let graph = Graph::read(&metadata());
    assert_eq!(forbidden_edges(&graph), Vec::<String>::new());
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let members: BTreeSet<&str> = graph.members.iter().map(|name| short(name)).collect();
    assert_eq!(
        known, members,
        "the table names exactly the crates there are"
    );
}

#[test]
fn nothing_below_core_talks_to_the_world() {
    assert_eq!(
        io_below_core(&Graph::read(&metadata())),
        Vec::<String>::new()
    );
}

#[test]
fn workers_know_no_kubernetes() {
    assert_eq!(
        kubernetes_below_workers(&Graph::read(&metadata())),
        Vec::<String>::new()
    );
}

#[test]
fn core_names_nothing_impure_of_std() {
    let sources = workspace_root().join("core/src");
    let files: Vec<PathBuf> = tracked()
        .into_iter()
        .filter(|file| file.starts_with(&sources))
        .collect();
    assert!(!files.is_empty(), "core has sources");
    for file in files.iter().filter(|file| file.exists()) {
        assert_eq!(
            impure_names(&std::fs::read_to_string(file).unwrap()),
            Vec::<&str>::new(),
            "{}",
            file.display()
        );
    }
}

#[test]
fn no_tracked_file_names_a_path_of_a_machine() {
    for file in tracked() {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        assert_eq!(machine_path(&text), None, "{}", file.display());
    }
}

#[test]
fn every_member_takes_the_workspace_lints() {
    let metadata = metadata();
    let members = metadata["workspace_members"].as_array().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    for package in packages
        .iter()
        .filter(|package| members.contains(&package["id"]))
    {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        assert!(
            inherits_lints(&std::fs::read_to_string(manifest).unwrap()),
            "{}",
            manifest.display()
        );
    }
}

/// Metadata as cargo writes it, of packages whose first part is in the workspace.
fn fabricated(members: &[&str], edges: &[(&str, &str, Value)]) -> Value {
    let names: BTreeSet<&str> = edges
        .iter()
        .flat_map(|(from, to, _)| [*from, *to])
        .chain(members.iter().copied())
        .collect();
    let node = |name: &str| {
        let deps = edges.iter().filter(|(from, _, _)| *from == name);
        let deps: Vec<Value> = deps
            .map(|(_, to, kind)| json!({"pkg": format!("id {to}"), "dep_kinds": [{"kind": kind}]}))
            .collect();
        json!({"id": format!("id {name}"), "deps": deps})
    };
    json!({
        "packages": names.iter().map(|name| json!({"id": format!("id {name}"), "name": name})).collect::<Vec<_>>(),
        "workspace_members": members.iter().map(|name| format!("id {name}")).collect::<Vec<_>>(),
        "resolve": {"nodes": names.iter().map(|name| node(name)).collect::<Vec<_>>()},
    })
}

#[test]
fn the_checker_catches_forbidden_edges() {
    let members = [
        "tidemill-core",
        "tidemill-crds",
        "tidemill-nats",
        "tidemill-worker-saga",
        "tidemill-cli",
        TESTBED,
        "odd",
    ];
    let check =
        |from, to, kind| forbidden_edges(&Graph::read(&fabricated(&members, &[(from, to, kind)])));
    let odd = "odd: new in the workspace; say in testbed/tests/tidy.rs what it may use";
    assert_eq!(check("tidemill-crds", "tidemill-core", Value::Null), [odd]);
    assert_eq!(
        check("tidemill-worker-saga", "tidemill-crds", Value::Null),
        [odd, "tidemill-worker-saga -> tidemill-crds (normal)"]
    );
    assert_eq!(
        check("tidemill-nats", "tidemill-crds", json!("dev")),
        [odd, "tidemill-nats -> tidemill-crds (dev)"]
    );
    assert_eq!(check("tidemill-cli", TESTBED, json!("dev")), [odd]);
    assert_eq!(
        check("tidemill-cli", TESTBED, Value::Null),
        [odd, "tidemill-cli -> tidemill-testbed (normal)"]
    );
    assert_eq!(
        check("tidemill-core", TESTBED, json!("dev")),
        [
            "odd: new in the workspace; say in testbed/tests/tidy.rs what it may use",
            "tidemill-core -> tidemill-testbed (dev)"
        ]
    );
}

#[test]
fn the_checker_looks_below_the_first_level() {
    let graph = |kind| {
        let edges = [
            ("tidemill-core", "helper", Value::Null),
            ("helper", "tokio", kind),
        ];
        Graph::read(&fabricated(&["tidemill-core"], &edges))
    };
    assert_eq!(
        io_below_core(&graph(Value::Null)),
        ["I/O crate below core: tidemill-core -> helper -> tokio"]
    );
    assert_eq!(io_below_core(&graph(json!("dev"))), Vec::<String>::new());
    let edges = [
        ("tidemill-worker", "middle", Value::Null),
        ("middle", "kube", Value::Null),
    ];
    let workers = Graph::read(&fabricated(&["tidemill-worker"], &edges));
    assert_eq!(
        kubernetes_below_workers(&workers),
        ["Kubernetes below a worker: tidemill-worker -> middle -> kube"]
    );
}

#[test]
fn the_checker_reads_sources() {
    assert_eq!(impure_names("use std::fs;"), ["std::fs"]);
    assert_eq!(
        impure_names("let now = std::time::Instant::now();"),
        ["std::time::Instant"]
    );
    assert_eq!(
        impure_names(
            "use std::{\n  collections::BTreeMap,\n  time::{Duration, SystemTime},\n  env,\n};"
        ),
        ["std::env", "std::time::SystemTime"]
    );
    assert_eq!(
        impure_names("// std::fs is for others\nuse std::{fmt, time::Duration};"),
        Vec::<&str>::new()
    );
    assert_eq!(
        machine_path(concat!("see /", "home/me/x")),
        Some(concat!("see /", "home/me/x"))
    );
    assert_eq!(
        machine_path(concat!(
            "$HOME/x and docs/",
            "work/x and https://e.org/",
            "home/"
        )),
        None
    );
    assert!(inherits_lints("[package]\n[lints]\nworkspace = true\n"));
    assert!(!inherits_lints(
        "[package]\n[lints.rust]\nunsafe_code = \"allow\"\n"
    ));
}
