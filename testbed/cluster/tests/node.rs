//! A whole Kubernetes on this machine: it runs pods as any cluster does, and leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tidemill_testbed::Process;
use tidemill_testbed::wait::within;
use tidemill_testbed_cluster::{Image, Node, skip, why_no_node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CAP: Duration = Duration::from_secs(120);
const IMAGE: &str = "localhost/tidemill/busybox:testbed";

/// A namespace as strict as Kubernetes has them, and what runs in it: a server behind a service, and somebody to ask it.
const SHOP: &str = r#"
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Namespace
    metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}
  - apiVersion: v1
    kind: Service
    metadata: {name: server, namespace: shop}
    spec:
      selector: {app: server}
      ports: [{port: 80, targetPort: 8080}]
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {name: server, namespace: shop}
    spec:
      selector: {matchLabels: {app: server}}
      template:
        metadata: {labels: {app: server}}
        spec: &strict
          securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
          containers:
            - name: main
              image: localhost/tidemill/busybox:testbed
              imagePullPolicy: IfNotPresent
              command: [/bin/sh, -c, "echo it begins; exec httpd -f -p 8080 -h /www"]
              resources: {limits: {memory: 32Mi}}
              securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
              readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
  - apiVersion: v1
    kind: Pod
    metadata: {name: asking, namespace: shop}
    spec: *strict
"#;

fn image() -> Image {
    let applets = ["sh", "cat", "httpd", "id", "nslookup", "touch", "wget"];
    let busybox = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("busybox"))
        .find(|path| path.is_file())
        .unwrap();
    let image = Image::new(IMAGE)
        .file("/bin/busybox", busybox)
        .text("/www/index.html", "here I am");
    let link = |image: Image, name: &&str| image.link(format!("/bin/{name}"), "busybox");
    applets.iter().fold(image, link).env("PATH", "/bin")
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_as_in_any_cluster_and_nothing_is_left() {
    if let Some(reason) = why_no_node() {
        return skip(&reason);
    }
    let begin = Instant::now();
    let node = Node::start().await.unwrap();
    println!("ready after {:?}", begin.elapsed());
    node.load(&image()).await.unwrap();
    let kubectl = async |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        node.kubectl(&words)
            .await
            .map_err(|error| error.to_string())
    };
    let must = async |line: &str| match kubectl(line).await {
        Ok(said) => said,
        Err(error) => panic!("{error}\n{}", node.report().await),
    };
    let manifest = node.folders().unwrap()[0].join("shop.yaml");
    std::fs::write(&manifest, SHOP).unwrap();
    // A namespace has no account for pods in its first moment.
    let applied = within(CAP, async || {
        kubectl(&format!("apply -f {}", manifest.display())).await
    });
    applied.await.unwrap();
    must("wait -n shop --for=condition=Available deployment/server --timeout=120s").await;
    must("wait -n shop --for=condition=Ready pod/asking --timeout=120s").await;
    println!("pods ready after {:?}", begin.elapsed());

    // Their surroundings are what the manifest says.
    assert_eq!(must("logs -n shop asking").await, "it begins\n");
    let ask = async |line: &str| kubectl(&format!("exec -n shop asking -- {line}")).await;
    assert_eq!(ask("id -u").await.unwrap(), "65532\n");
    let refused = ask("touch /tried").await.unwrap_err();
    assert!(refused.contains("Read-only file system"), "{refused}");
    let limit = match ask("cat /sys/fs/cgroup/memory/memory.limit_in_bytes").await {
        Ok(limit) => limit,
        Err(_) => ask("cat /sys/fs/cgroup/memory.max").await.unwrap(),
    };
    assert_eq!(limit.trim().parse::<u64>().unwrap(), 32 << 20);
    let refused = kubectl("run -n shop loose --image localhost/tidemill/busybox:testbed").await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("violates PodSecurity"), "{refused}");

    // What was built for this machine runs there with its libraries, as the image says.
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let shell = Image::new("localhost/tidemill/shell:testbed").program("/bin/sh", shell);
    let shell = shell
        .entrypoint(["/bin/sh", "-c", "echo I am $NAME"])
        .env("NAME", "dash");
    node.load(&shell).await.unwrap();
    must("run shell --image localhost/tidemill/shell:testbed --restart Never").await;
    must("wait --for=jsonpath={.status.phase}=Succeeded pod/shell --timeout=120s").await;
    assert_eq!(must("logs shell").await, "I am dash\n");

    let python = Image::new("localhost/tidemill/python:testbed");
    let python = python.python(&tidemill_testbed::binaries::python().unwrap());
    let program =
        "import asyncio, ssl, socket, nats; print(socket.gethostbyname('kube-dns.kube-system'))";
    let python = python
        .unwrap()
        .entrypoint(["/usr/bin/python3", "-c", program]);
    node.load(&python).await.unwrap();
    println!("python loaded after {:?}", begin.elapsed());
    must("run python --image localhost/tidemill/python:testbed --restart Never").await;
    must("wait --for=jsonpath={.status.phase}=Succeeded pod/python --timeout=120s").await;
    assert_eq!(must("logs python").await, "10.96.0.10\n");
    println!("python done after {:?}", begin.elapsed());

    // Services by name, from a pod; by address, from a test. kube-proxy may need a moment.
    for name in ["server", "server.shop.svc.cluster.local"] {
        let got = within(CAP, async || {
            ask(&format!("wget -q -O - http://{name}/")).await
        })
        .await;
        assert_eq!(got.as_deref(), Ok("here I am"), "{name}");
    }
    let address = must("get service -n shop server -o jsonpath={.spec.clusterIP}").await;
    let inside = SocketAddr::new(address.parse().unwrap(), 80);
    assert!(
        get(node.forward(inside).unwrap())
            .await
            .ends_with("here I am")
    );

    // No device leads out.
    let links = node
        .command("ip")
        .args(["-o", "link"])
        .output()
        .await
        .unwrap();
    for link in String::from_utf8(links.stdout).unwrap().lines() {
        let name = link.split(": ").nth(1).unwrap();
        let own = ["lo", "node", "pods"].contains(&name) || name.starts_with("veth");
        assert!(own, "{link}");
    }

    // What is killed is started again.
    node.kill("shop", "asking", "main").await.unwrap();
    let again = within(CAP, async || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}{.status.containerStatuses[0].ready}";
        match must(&format!("get pod -n shop asking -o {path}")).await {
            seen if seen == "1true" => Ok(()),
            seen => Err(seen),
        }
    });
    if let Err(seen) = again.await {
        panic!("{seen}\n{}", node.report().await);
    }
    println!("restarted after {:?}", begin.elapsed());

    let traces = Traces::of(node.pid(), node.folders().unwrap());
    assert!(traces.processes().len() > 10, "{:?}", traces.processes());
    drop(node);
    traces.expect_none();
    println!("gone after {:?}", begin.elapsed());
}

async fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /index.html HTTP/1.0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_takes_the_node_along_and_the_next_start_clears_the_rest() {
    if let Some(reason) = why_no_node() {
        return skip(&reason);
    }
    let mut owner = owner();
    let traces = ready(&mut owner).await;
    assert!(traces.processes().len() > 10, "{:?}", traces.processes());
    owner.kill9();
    let gone = within(CAP, async || match traces.processes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    gone.await.unwrap();
    // Files stay until somebody comes.
    std::fs::write(traces.folders[0].join("left"), "").unwrap();
    drop(owner);

    let mut owner = self::owner();
    let next = ready(&mut owner).await;
    assert!(!traces.folders[0].join("left").exists());
    owner.terminate().unwrap();
    assert!(owner.wait_exit(CAP).await.unwrap().success());
    next.expect_none();
}

fn owner() -> Process {
    let program = env!("CARGO_BIN_EXE_tidemill-cluster");
    Process::builder(program).spawn().unwrap()
}

/// Waits until its node is ready.
async fn ready(owner: &mut Process) -> Traces {
    let line = owner.wait_for_line("its node", 3 * CAP, |_| true);
    let kubeconfig = PathBuf::from(line.await.unwrap());
    let folder = kubeconfig.ancestors().nth(2).unwrap();
    let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
    let number = folder.file_name().unwrap().to_str().unwrap();
    let mut folders = vec![folder.to_owned()];
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap();
    let hierarchies = hierarchies.map(|entry| entry.unwrap().path());
    folders.extend(
        hierarchies
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|hierarchy| hierarchy.join(format!("tidemill-node-{number}")))
            .filter(|cgroup| cgroup.is_dir()),
    );
    Traces::of(pid.trim().parse().unwrap(), folders)
}

/// What a node may leave behind.
struct Traces {
    network: PathBuf,
    folders: Vec<PathBuf>,
}

impl Traces {
    fn of(pid: u32, folders: Vec<PathBuf>) -> Traces {
        assert!(folders.len() > 1 && folders.iter().all(|folder| folder.is_dir()));
        let network = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        Traces { network, folders }
    }

    /// Processes, and threads of ours, in the node's network; pods have others, but end with it.
    fn processes(&self) -> Vec<String> {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let ours = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let all = all.chain(ours);
        let inside = all.filter(|process| {
            std::fs::read_link(process.path().join("ns/net")).is_ok_and(|net| net == self.network)
        });
        inside
            .map(|process| std::fs::read_to_string(process.path().join("comm")).unwrap_or_default())
            .collect()
    }

    fn expect_none(&self) {
        assert_eq!(self.processes(), Vec::<String>::new());
        for folder in &self.folders {
            assert!(!folder.exists(), "{folder:?}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let folder = self.folders[0].to_str().unwrap();
        let left = mounts.lines().filter(|line| line.contains(folder));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
