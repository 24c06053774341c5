"""The order example on a Kubernetes cluster: charts, resources, participants, orders, the check of what came out, and teardown.

    cluster_demo.py --programs target/release             all of it, on the cluster that KUBECONFIG names
    cluster_demo.py --programs target/release up          installs the charts and the example
    cluster_demo.py --programs target/release run         publishes the orders, waits, checks
    cluster_demo.py --programs target/release down        takes everything away again

Images are named as the charts have them; REGISTRY=registry.example.com/team goes before their names, TAG is their tag. Ends with the
check's exit code. It works in the namespaces `tidemill` and `shop` and refuses to begin where they exist.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from orders import ORDERS, PARTICIPANTS, ROOT, Failed, Progress, Tidemill, check, read_totals, wait_until_done

RUN = pathlib.Path(os.environ.get("TIDEMILL_DEMO_DIR", ROOT / ".tidemill/cluster-demo")).absolute()
RELEASE = SYSTEM = "tidemill"
SHOP = "shop"
KINDS = "eventstreams,projections,sagas"
CRDS = [f"{kind}.tidemill.dev" for kind in KINDS.split(",")]
# Label of the namespaces that are made here, and so may be deleted here.
DEMO = "tidemill.dev/demo"
PLACED = "events.jsonl"

# Images may have to be fetched first.
READY_SECONDS_MAX = 300
RUN_SECONDS_MAX = 600
FORWARD_SECONDS_MAX = 30
LOOK_SECONDS = 0.5


def say(text):
    print(f"cluster-demo: {text}", flush=True)


def call(*command, text=None, fails=False):
    """What a program prints. With `fails`: None if it doesn't end well."""
    words = [str(word) for word in command]
    # Not of this repository's folder: paths in it are given as a whole.
    done = subprocess.run(words, input=text, stdin=None if text else subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout
    if fails:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    raise Failed(f"`{' '.join(words[:6])}` failed: {said[-1] if said else done.returncode}")


def kubectl(*args, **more):
    return call("kubectl", *args, **more)


def until(what, look):
    """Looks until there is nothing missing; `look` says what is."""
    progress, end = Progress(), time.monotonic() + READY_SECONDS_MAX
    while True:
        missing = look()
        if not missing:
            return
        progress.show(f"waiting for {what}: {missing}")
        if time.monotonic() > end:
            raise Failed(f"{what} not there within {READY_SECONDS_MAX} s: {missing}; `kubectl get pods -A` says more")
        time.sleep(LOOK_SECONDS)


def deployments_missing(namespace):
    """Names of those whose pods aren't ready."""
    listed = json.loads(kubectl("get", "deployments,statefulsets", "-n", namespace, "-o", "json"))["items"]
    waiting = [
        one["metadata"]["name"]
        for one in listed
        if one.get("status", {}).get("readyReplicas", 0) < one["spec"]["replicas"]
        or one["status"].get("observedGeneration") != one["metadata"]["generation"]
    ]
    return ", ".join(waiting)


def resources_missing():
    """What those say that aren't Ready."""
    listed = json.loads(kubectl("get", KINDS, "-n", SHOP, "-o", "json"))["items"]
    waiting = []
    for one in listed:
        conditions = one.get("status", {}).get("conditions", [])
        ready = next((condition for condition in conditions if condition["type"] == "Ready"), {})
        if ready.get("status") != "True":
            waiting.append(f"{one['kind']} {one['metadata']['name']}: {ready.get('message', 'not looked at yet')}")
    return "; ".join(waiting)


def figures_missing(ended, events):
    """What the status of the resources doesn't count yet: it is written every few seconds."""
    statuses = {one["kind"]: one["status"] for one in json.loads(kubectl("get", "eventstreams,sagas", "-n", SHOP, "-o", "json"))["items"]}
    saga, stream = statuses["Saga"], statuses["EventStream"]
    counted = sum(saga.get(name, 0) for name in ["completed", "compensated", "parked"])
    if (counted, stream.get("messages")) == (ended, events):
        return None
    return f"{counted:,} of {ended:,} orders, {stream.get('messages', 0):,} of {events:,} events"


def listening_missing():
    """Participants that haven't printed `ready`."""
    def is_ready(name):
        printed = kubectl("logs", "-n", SHOP, f"deployment/{name}", fails=True) or ""
        return any(line.startswith("ready") for line in printed.splitlines())

    return ", ".join(name for name in PARTICIPANTS if not is_ready(name))


def chart_values():
    """Where images are, as arguments of helm."""
    registry, tag = os.environ.get("REGISTRY"), os.environ.get("TAG")
    values = ["--set", "nats.enabled=true"]
    for key, name in [("image", "tidemill-operator"), ("worker.image", "tidemill-worker")]:
        if registry:
            values += ["--set", f"{key}.repository={registry}/{name}"]
        if tag:
            values += ["--set-string", f"{key}.tag={tag}"]
    return values


def example(orders):
    """The example's kustomization with the images and the stock of this run, as one manifest."""
    folder = RUN / "example"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["stock.json", "cards.json"]:
        shutil.copy(orders / name, folder / name)
    image = {"name": "tidemill-orders", "newTag": os.environ.get("TAG", "0.1.0")}
    if os.environ.get("REGISTRY"):
        image["newName"] = f"{os.environ['REGISTRY']}/tidemill-orders"
    wanted = {
        "resources": [os.path.relpath(ORDERS, folder.resolve())],
        "images": [image],
        "configMapGenerator": [{"name": "orders", "behavior": "merge", "files": ["stock.json", "cards.json"]}],
    }
    # JSON is YAML.
    (folder / "kustomization.yaml").write_text(json.dumps(wanted))
    return kubectl("kustomize", folder)


def credentials(whose):
    """A credentials file that the operator made: `admin` for people, `app` for participants and publishers."""
    listed = json.loads(kubectl("get", "secrets", "-n", SYSTEM, "-l", f"tidemill.dev/credentials={whose}", "-o", "json"))["items"]
    content = base64.b64decode(listed[0]["data"]["nats.creds"])
    file = RUN / f"{whose}.creds"
    file.touch(mode=0o600)
    file.write_bytes(content)
    return file


def make_namespace(name):
    labels = {DEMO: "true", "pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "-f", "-", text=json.dumps(namespace))


def is_of_the_demo(namespace):
    found = kubectl("get", "namespace", namespace, "-o", "json", fails=True)
    return found is not None and json.loads(found)["metadata"].get("labels", {}).get(DEMO) == "true"


def up(orders):
    for namespace in [SYSTEM, SHOP]:
        if kubectl("get", "namespace", namespace, fails=True) is not None:
            raise Failed(f"namespace {namespace} exists already: the demo needs one of its own. If an earlier run left it, `make cluster-demo-down` deletes it")
    if kubectl("get", "crd", "--ignore-not-found", "-o", "name", *CRDS).strip():
        raise Failed("Tidemill is on this cluster already: the demo would take away its definitions, and with them every resource")
    say("installing the charts")
    call("helm", "upgrade", "--install", "tidemill-crds", ROOT / "helm/tidemill-crds")
    make_namespace(SYSTEM)
    call("helm", "install", RELEASE, ROOT / "helm/tidemill", "--namespace", SYSTEM, *chart_values())
    until("NATS and the operator", lambda: deployments_missing(SYSTEM))
    say("applying the example: a stream, two projections, a saga and three participants")
    make_namespace(SHOP)
    kubectl("create", "secret", "generic", "-n", SHOP, f"{RELEASE}-nats-app", f"--from-file=nats.creds={credentials('app')}")
    kubectl("apply", "-n", SHOP, "-f", "-", text=example(orders))
    until("pods", lambda: deployments_missing(SHOP))
    until("resources", resources_missing)
    until("participants", listening_missing)
    say("everything is ready")


class Forward:
    """A port of 127.0.0.1 that leads to NATS."""

    def __enter__(self):
        command = ["kubectl", "port-forward", "-n", SYSTEM, "--address", "127.0.0.1", f"service/{RELEASE}-nats", ":4222"]
        log = RUN / "port-forward.log"
        # In a file: it says something of every connection, and nobody would empty a pipe.
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + FORWARD_SECONDS_MAX
        while True:
            ended = self.process.poll() is not None
            said = log.read_text()
            found = re.search(r"127\.0\.0\.1:(\d+) ->", said)
            if found:
                return f"nats://127.0.0.1:{found[1]}"
            if ended or time.monotonic() > end:
                self.__exit__()
                raise Failed(f"no way to NATS: kubectl port-forward said {said.strip()!r}")
            time.sleep(0.02)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def run(args):
    orders = args.orders
    with Forward() as url:
        where = {"TIDEMILL_NATS": url, "TIDEMILL_NAMESPACE": SHOP}
        tidemill = Tidemill(args.programs, RUN, {**where, "TIDEMILL_CREDS": str(credentials("admin"))})
        publisher = Tidemill(args.programs, RUN, {**where, "TIDEMILL_CREDS": str(credentials("app"))})
        totals = read_totals(orders / PLACED)
        started = time.monotonic()
        publisher.run("event", "publish", "orders", "--file", orders / PLACED)
        say(f"{len(totals):,} orders published")
        wait_until_done(tidemill, totals, RUN_SECONDS_MAX)
        say(f"all done {time.monotonic() - started:.1f} s after the first order")
        for name in PARTICIPANTS:
            ledger = kubectl("exec", "-n", SHOP, f"deployment/{name}", "--", "cat", f"/ledger/{name}.jsonl")
            (RUN / f"{name}.jsonl").write_text(ledger)
        print(flush=True)
        code = check(tidemill, RUN, orders)
    ended = sum(total > 0 for total in totals)
    events = len((RUN / "stream.json").read_text().splitlines())
    print(flush=True)
    until("figures in the resources' status", lambda: figures_missing(ended, events))
    print(f"$ kubectl get {KINDS} --namespace {SHOP}")
    print(kubectl("get", KINDS, "--namespace", SHOP), flush=True)
    say("as it should be" if code == 0 else "NOT as it should be")
    return code


def down():
    there = [one for one in [SHOP, SYSTEM] if kubectl("get", "namespace", one, fails=True) is not None]
    others = [one for one in there if not is_of_the_demo(one)]
    if others:
        raise Failed(f"namespace {others[0]} wasn't made by the demo (label {DEMO}): nothing is deleted")
    if SYSTEM not in there:
        # Made first, taken away last but the definitions, which may be somebody's then.
        kubectl("delete", "namespace", SHOP, "--ignore-not-found", "--wait")
        say("no Tidemill of the demo is there")
        return
    # The resources first: their operator ends their workers.
    kubectl("delete", "namespace", SHOP, "--ignore-not-found", "--wait")
    call("helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait")
    call("helm", "uninstall", "tidemill-crds", "--ignore-not-found")
    # Kept by the chart, so that nobody loses resources by accident.
    if kubectl("get", KINDS, "--all-namespaces", "-o", "name", fails=True):
        say("the definitions stay: other namespaces have resources")
    else:
        kubectl("delete", "crd", "--ignore-not-found", *CRDS)
    # Last, as it says that the rest is the demo's.
    kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--wait")
    say("everything is taken away")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, help="folder of tidemill")
    parser.add_argument("--orders", type=pathlib.Path, default=ORDERS, help="folder of events.jsonl, stock.json and cards.json")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="up, run, down; default all three")
    args = parser.parse_args()
    steps = args.steps or ["up", "run", "down"]
    unknown = set(steps) - {"up", "run", "down"}
    if unknown:
        parser.error(f"no such step: {', '.join(unknown)}")
    if "run" in steps and not args.programs:
        parser.error("run needs --programs")
    args.orders = args.orders.absolute()
    args.programs = args.programs and args.programs.absolute()
    # The address comes from the cluster.
    for name in ["TIDEMILL_CREDS"]:
        os.environ.pop(name, None)
    RUN.mkdir(parents=True, exist_ok=True)
    code = 0
    try:
        if "up" in steps:
            up(args.orders)
        if "run" in steps:
            code = run(args)
        if "down" in steps:
            down()
    except Failed as failed:
        return f"cluster-demo: {failed}"
    return code


if __name__ == "__main__":
    sys.exit(main())
