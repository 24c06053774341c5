"""The order example as one run: participants, `tidemill dev`, a thousand orders, and the check of what came out.

Started by demo.sh, which builds the programs. Ends with the check's exit code.
"""

import argparse
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from orders import LOOK_SECONDS, ORDERS, ROOT, SAGA, Failed, Tidemill, check, read_totals, wait_until_done

RUN = pathlib.Path(os.environ.get("TIDEMILL_DEMO_DIR", ROOT / ".tidemill/demo")).absolute()
# In the manifests shipping is at its usual port; here it takes a free one.
SHIPPING_USUAL = "127.0.0.1:7081"

START_SECONDS_MAX = 60
# A thousand orders take seconds; this long only when something is stuck.
RUN_SECONDS_MAX = 300
STOP_SECONDS_MAX = 15


class Child:
    """A program in the background with its output in a file."""

    running = []

    def __init__(self, name, command, **more):
        self.name, self.log = name, RUN / f"{name}.log"
        with open(self.log, "wb") as out:
            # A group of its own: Ctrl-C is for us, who stop the children in order.
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True, **more,
            )
        Child.running.append(self)

    def wait_for(self, what, look):
        """Looks until there is something, and returns it."""
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            found = look()
            if found:
                return found
            if ended:
                raise Failed(f"{self.name} ended before {what}")
            time.sleep(0.02)
        raise Failed(f"{self.name}: no {what} within {START_SECONDS_MAX} s")

    def line(self, begin):
        """The first whole line of its output that begins so."""
        lines = self.log.read_text(errors="replace").rpartition("\n")[0].splitlines()
        return next((line for line in lines if line.startswith(begin)), None)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                print(f"demo: {self.name} did not stop, killed", file=sys.stderr)
                self.process.kill()
                self.process.wait()

    @classmethod
    def stop_all(cls):
        # `dev` first: the workers finish what is in flight while the participants are still there.
        for child in reversed(cls.running):
            child.stop()


def say(text):
    print(f"demo: {text}", flush=True)


def copy_manifests(shipping_port):
    folder = RUN / "manifests"
    folder.mkdir()
    for source in sorted((ORDERS / "manifests").glob("*.yaml")):
        text = source.read_text().replace(SHIPPING_USUAL, f"127.0.0.1:{shipping_port}")
        (folder / source.name).write_text(text)
    return folder


def address():
    for place in [RUN / ".tidemill/dev.json", RUN / "manifests/.tidemill/dev.json"]:
        try:
            return json.loads(place.read_text())["nats"]
        except (FileNotFoundError, KeyError, ValueError):
            pass
    return None


def start(tidemill, programs):
    shipping = Child("shipping", [
        sys.executable, ORDERS / "shipping/shipping.py", "--port", "0", "--ledger", RUN / "shipping.jsonl",
    ])
    port = shipping.wait_for("its `ready` line", lambda: shipping.line("ready")).split()[1]
    dev = Child("dev", [tidemill.program, "dev", copy_manifests(port)], cwd=RUN)
    url = dev.wait_for("its address in .tidemill/dev.json", address)
    inventory = Child("inventory", [
        programs / "inventory", "--nats", url, "--ledger", RUN / "inventory.jsonl", "--stock", ORDERS / "stock.json",
    ])
    payments = Child("payments", [
        sys.executable, ORDERS / "payments/payments.py", "--nats", url, "--ledger", RUN / "payments.jsonl",
        "--cards", ORDERS / "cards.json",
    ])
    for child in [inventory, payments]:
        child.wait_for("its `ready` line", lambda child=child: child.line("ready"))
    return url


def keep(programs):
    here = os.path.relpath(RUN)
    print(f"""
It runs on until Ctrl-C. In another terminal:
    cd {here} && export PATH={programs}:$PATH
    tidemill saga list                           how many orders came to what
    tidemill saga show {SAGA} o-000001   one order's saga, step by step
    tidemill query customer-orders               a read model
    tidemill event tail orders                   what is published from now on
Logs of the programs and ledgers of the participants are in {here}.""", flush=True)
    while all(child.process.poll() is None for child in Child.running):
        time.sleep(LOOK_SECONDS)
    raise Failed("a program ended: " + ", ".join(c.name for c in Child.running if c.process.poll() is not None))


def run(args, seconds):
    tidemill = Tidemill(args.programs, RUN)
    url = start(tidemill, args.programs)
    say(f"NATS and the workers run at {url}, the participants are ready")
    events = ORDERS / "events.jsonl"
    totals = read_totals(events)
    started = time.monotonic()
    tidemill.run("event", "publish", "orders", "--file", events)
    say(f"{len(totals):,} orders published")
    wait_until_done(tidemill, totals, RUN_SECONDS_MAX)
    say(f"all done {time.monotonic() - started:.1f} s after the first order")
    print(flush=True)
    code = check(tidemill, RUN)
    print()
    say(f"{'as it should be' if code == 0 else 'NOT as it should be'}; {seconds():.0f} s in all")
    if args.keep:
        keep(args.programs)
    return code


def stop(signum, _frame):
    # Only the first one: the children are being stopped from then on.
    for one in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + signum)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="folder of tidemill and inventory")
    parser.add_argument("--begin", type=float, default=time.time(), help="when the whole began, seconds since 1970")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    args = parser.parse_args()
    for one in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
        signal.signal(one, stop)
    # Where the caller's own NATS is must not matter here.
    for name in ["TIDEMILL_NATS", "TIDEMILL_CREDS", "TIDEMILL_NAMESPACE"]:
        os.environ.pop(name, None)

    RUN.parent.mkdir(parents=True, exist_ok=True)
    with open(RUN.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"demo: another one runs in {RUN}"
        shutil.rmtree(RUN, ignore_errors=True)
        RUN.mkdir()
        try:
            return run(args, lambda: time.time() - args.begin)
        except Failed as failed:
            return f"demo: {failed}; logs are in {RUN}"
        finally:
            Child.stop_all()


if __name__ == "__main__":
    sys.exit(main())
