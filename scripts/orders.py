"""What the demos of the order example share: the command `tidemill`, waiting until all orders have ended, and the check of what came out."""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ORDERS = ROOT / "k8s/examples/orders"
SAGA, PROJECTIONS = "order-fulfilment", ["order-status", "customer-orders"]
PARTICIPANTS = ["inventory", "payments", "shipping"]

LOOK_SECONDS = 0.25


class Failed(Exception):
    """Told in one line; logs say the rest."""


class Tidemill:
    """The command, run in a folder where it finds `.tidemill/dev.json`, or told by its environment where NATS is."""

    def __init__(self, programs, folder, environment=None):
        self.program, self.folder = programs / "tidemill", folder
        self.environment = {**os.environ, **(environment or {})}

    def run(self, *args):
        done = subprocess.run(
            [self.program, *args], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Failed(f"`tidemill {' '.join(map(str, args))}` failed: {said[-1] if said else done.returncode}")
        return done.stdout

    def json(self, *args):
        return json.loads(self.run(*args, "-o", "json"))


class Progress:
    """One line that is written over on a terminal, a line now and then elsewhere."""

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.shown, self.at = None, 0.0

    def show(self, text, last=False):
        if self.terminal:
            print(f"\r\x1b[K{text}", end="\n" if last else "", flush=True)
        elif last or (text != self.shown and time.monotonic() - self.at > 2):
            print(text, flush=True)
            self.shown, self.at = text, time.monotonic()


def look(tidemill, published, expected):
    """(a line for people, whether all is done)."""
    saga = next(saga for saga in tidemill.json("saga", "list") if saga["name"] == SAGA)
    projections = {one["name"]: one for one in tidemill.json("projection", "list") if one["name"] in PROJECTIONS}
    ended = saga["completed"] + saga["compensated"] + saga["parked"]
    text = (
        f"sagas: {ended:,} of {expected:,} ended ({saga['completed']:,} completed, {saga['compensated']:,} compensated, "
        f"{saga['parked']:,} parked, {saga['running']:,} running)"
    )
    # Every order that ended otherwise than parked has published how.
    events = published + ended - saga["parked"]
    text += f"; events in read models, of {events:,}: "
    text += ", ".join(f"{name} {one['seen']:,}" for name, one in projections.items())
    caught_up = [one["name"] for one in projections.values() if one["seen"] >= events and one["lag"] == 0]
    if ended < expected or saga["running"] > 0 or len(caught_up) < len(PROJECTIONS):
        return text, False
    # The list of instances is written behind, so it may be a moment older than the figures.
    instances = tidemill.json("saga", "list", SAGA)
    listed = sum(one["state"] not in ("running", "compensating") for one in instances)
    if listed < ended:
        text += f"; {ended - listed:,} not listed as ended yet"
    return text, listed >= ended


def wait_until_done(tidemill, totals, seconds_max):
    """Until every order's saga has ended and the read models have seen everything."""
    # Free samples start no saga.
    published, expected = len(totals), sum(total > 0 for total in totals)
    progress, end = Progress(), time.monotonic() + seconds_max
    while True:
        text, done = look(tidemill, published, expected)
        late = time.monotonic() > end
        progress.show(text, last=done or late)
        if done:
            return
        if late:
            raise Failed(f"not done within {seconds_max} s")
        time.sleep(LOOK_SECONDS)


def read_totals(events):
    """What each order is to cost, of a file of orders."""
    return [json.loads(line)["data"]["total"] for line in events.read_text().splitlines()]


def check(tidemill, folder, inputs=ORDERS):
    """Writes down in `folder`, beside the ledgers, what came out of the orders in `inputs`, and has it compared; the exit code of check.py."""
    results = {
        "sagas": tidemill.run("saga", "list", SAGA, "-o", "json"),
        "stream": tidemill.run("event", "get", "orders", "-o", "json"),
        "order-status": tidemill.run("query", "order-status", "-o", "json"),
        "customer-orders": tidemill.run("query", "customer-orders", "-o", "json"),
    }
    command = [sys.executable, ORDERS / "check.py"]
    command += ["--events", inputs / "events.jsonl", "--stock", inputs / "stock.json", "--cards", inputs / "cards.json"]
    for participant in PARTICIPANTS:
        command += [f"--{participant}-ledger", folder / f"{participant}.jsonl"]
    for name, text in results.items():
        file = folder / f"{name}.json"
        file.write_text(text)
        command += [f"--{name}", file]
    return subprocess.run([str(part) for part in command]).returncode
