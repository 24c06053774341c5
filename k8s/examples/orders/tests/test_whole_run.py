"""The committed orders against the real participants, with a few lines in place of Tidemill's saga worker, under
faults; then check.py. Shows that participants, orders and check fit together and that every outcome occurs."""

import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
import jsontext  # noqa: E402
from audit import readmodels  # noqa: E402
from audit.outcomes import is_order  # noqa: E402

HERE = harness.HERE
# Seldom enough to be quick, often enough that some steps are given up after two attempts.
FAULTS = ["--fail-rate", "0.05", "--drop-rate", "0.01", "--fault-seed", "4"]
ATTEMPTS_MAX = 2
# A lost compensation would be parked by a real saga; here it is asked for until it is answered.
COMPENSATION_ATTEMPTS_MAX = 50
ATTEMPT_SECONDS_MAX = 1
ORDERS_AT_ONCE = 8


class Saga:
    """Reserve, charge, ship; on trouble take back in reverse order, also what may have happened."""

    def __init__(self, inventory, payments, shipping_port):
        self._inventory, self._payments = inventory, payments
        self._shipping_port = shipping_port
        self._of_thread = threading.local()
        self._callers = []

    def close(self):
        for caller in self._callers:
            caller.close()

    def _shipping(self):
        if not hasattr(self._of_thread, "shipping"):
            self._of_thread.shipping = harness.HttpCaller(self._shipping_port)
            self._callers.append(self._of_thread.shipping)
        return self._of_thread.shipping

    def run(self, data):
        """(state, reason, tracking)"""
        order, amount = jsontext.dump(data["orderId"]), jsontext.dump(data["total"])
        steps = [
            ("reserve", self._inventory, f'{{"orderId":{order},"items":{jsontext.dump(data["items"])}}}'),
            ("charge", self._payments, f'{{"orderId":{order},"customer":"{data["customer"]["id"]}","amount":{amount}}}'),
            ("ship", self._shipping(), f'{{"orderId":{order},"address":{jsontext.dump(data["address"])}}}'),
        ]
        to_take_back = []
        for step, caller, body in steps:
            command = f"shop/order-fulfilment/{data['orderId']}/0badcafe/{step}"
            reply, unknown = self._try(caller, command, body.encode())
            if reply.code == 200 or unknown:
                to_take_back.append((caller, command))
            if reply.code != 200:
                self._take_back(to_take_back)
                return "compensated", reply.text or "given up", None
        return "completed", None, reply.body["tracking"]

    def _try(self, caller, command, body):
        unknown = False
        for _ in range(ATTEMPTS_MAX):
            reply = caller.act(command, body, ATTEMPT_SECONDS_MAX)
            if reply.code is not None and reply.code < 500:
                break
            unknown = True
        return reply, unknown

    def _take_back(self, commands):
        for caller, command in reversed(commands):
            for _ in range(COMPENSATION_ATTEMPTS_MAX):
                if caller.take_back(f"{command}/compensate", command, ATTEMPT_SECONDS_MAX).code == 200:
                    break
            else:
                raise AssertionError(f"{command} could not be taken back")


def outcome(event, state, reason, tracking):
    data = event["data"]
    said = {"customer": {"id": data["customer"]["id"]}, "total": data["total"]}
    said |= {"tracking": tracking} if state == "completed" else {"reason": reason}
    kind = "OrderConfirmed" if state == "completed" else "OrderRejected"
    return {"type": kind, "subject": event["subject"], "time": event["time"], "data": said}


class WholeRun(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        server = harness.NatsServer()
        self.addCleanup(server.stop)
        python, nats = harness.PYTHON, ["--nats", server.url]
        self.start("inventory", [harness.inventory_path(), *nats, "--stock", str(HERE / "stock.json")])
        self.start("payments", [python, str(HERE / "payments/payments.py"), *nats, "--cards", str(HERE / "cards.json")])
        shipping = self.start("shipping", [python, str(HERE / "shipping/shipping.py"), "--port", "0"])
        inventory = harness.NatsCaller(server.url, "inventory.reserve", "inventory.release")
        self.addCleanup(inventory.close)
        payments = harness.NatsCaller(server.url, "payments.charge", "payments.refund")
        self.addCleanup(payments.close)
        self.saga = Saga(inventory, payments, int(shipping.ready[1]))
        self.addCleanup(self.saga.close)

    def start(self, name, command):
        process = harness.Process([*command, "--ledger", str(self.folder / f"{name}.jsonl"), *FAULTS])
        self.addCleanup(process.kill)
        return process

    def write(self, name, lines):
        path = self.folder / name
        path.write_text("".join(jsontext.dump(line) + "\n" for line in lines))
        return path

    def test_every_outcome_occurs_and_nothing_is_left_behind(self):
        events = [jsontext.load(line) for line in (HERE / "events.jsonl").read_bytes().splitlines()]
        orders = [event for event in events if is_order(event)]
        with ThreadPoolExecutor(ORDERS_AT_ONCE) as pool:
            results = list(pool.map(lambda event: self.saga.run(event["data"]), orders))

        sagas = [{"id": event["subject"], "state": result[0]} for event, result in zip(orders, results)]
        stream = events + [outcome(event, *result) for event, result in zip(orders, results)]
        arguments = [f"--{name}-ledger={self.folder}/{name}.jsonl" for name in ("inventory", "payments", "shipping")]
        arguments += [
            f"--sagas={self.write('sagas', [sagas])}",
            f"--stream={self.write('stream', stream)}",
            f"--order-status={self.write('status', [readmodels.order_status(stream)])}",
            f"--customer-orders={self.write('customers', [readmodels.customer_orders(stream)])}",
        ]
        check = subprocess.run([sys.executable, HERE / "check.py", *arguments], capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)
        said = ("completed", "out of stock", "card declined", "address undeliverable", "a step was given up", "no order")
        for outcome_or_reason in said:
            self.assertIn(outcome_or_reason, check.stdout)


if __name__ == "__main__":
    unittest.main()
