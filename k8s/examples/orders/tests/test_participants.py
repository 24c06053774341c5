"""The three participants as real processes, against the contract of docs/guide/participants.md.

Needs nats-py, a nats-server and `cargo build -p inventory`; see harness.py for how each is found.
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402

HERE = harness.HERE


class Contract:
    """What every participant must hold. A subclass says how one is started and what it is asked."""

    # Set by subclasses: a body that is accepted, one that is refused for a real reason, and that refusal.
    good = None
    bad = None
    refusal = None

    @classmethod
    def setUpClass(cls):
        cls.server = harness.NatsServer()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.ledger = self.folder / "ledger.jsonl"
        self.running = None
        self.caller = None
        self.addCleanup(self.stop)

    def start(self, *faults):
        self.running = harness.Process([*self.command(), "--ledger", str(self.ledger), *faults])
        self.caller = self.new_caller()
        return self.caller

    def stop(self):
        if self.caller:
            self.caller.close()
            self.caller = None
        if self.running:
            self.running.kill()
            self.running = None

    def kill_and_start(self, *faults):
        self.stop()
        return self.start(*faults)

    def lines(self):
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def done(self, op):
        return [line for line in self.lines() if line["op"] == op and "answer" in line]

    def test_the_same_command_id_gets_the_same_answer_and_does_nothing_twice(self):
        caller = self.start()
        first = caller.act("c1", self.good)
        self.assertEqual(first.code, 200, first)
        self.assertEqual(caller.act("c1", self.good), first)
        self.assertEqual(len(self.lines()), 1)
        second = caller.act("c2", self.good)
        self.assertEqual(second.code, 200, second)
        self.assertEqual(len(self.lines()), 2)

    def test_what_was_answered_is_known_after_a_kill(self):
        caller = self.start()
        good, bad = caller.act("c1", self.good), caller.act("c2", self.bad)
        undone = caller.take_back("c1/compensate", "c1")
        before = self.ledger.read_bytes()
        caller = self.kill_and_start()
        self.assertEqual(caller.act("c1", self.good), good)
        self.assertEqual(caller.act("c2", self.bad), bad)
        self.assertEqual(caller.take_back("c1/compensate", "c1"), undone)
        self.assertEqual(self.ledger.read_bytes(), before)

    def test_a_refusal_says_why_and_is_repeated(self):
        caller = self.start()
        first = caller.act("c1", self.bad)
        self.assertEqual((first.code, first.text), self.refusal)
        self.assertEqual(caller.act("c1", self.bad), first)
        self.assertEqual(len(self.lines()), 1)

    def test_a_compensation_takes_back_once_and_is_repeatable(self):
        caller = self.start()
        action = caller.act("c1", self.good)
        first = caller.take_back("c1/compensate", "c1")
        self.assertEqual((first.code, first.body), (200, {"undone": True}))
        self.assertEqual(caller.take_back("c1/compensate", "c1"), first)
        other = caller.take_back("somebody else's", "c1")
        self.assertEqual((other.code, other.body), (200, {"undone": False}))
        # A late copy of the action gets the answer it had, and nothing is done again.
        self.assertEqual(caller.act("c1", self.good), action)
        self.assertEqual([line.get("undone") for line in self.lines()], [None, True, False])

    def test_a_compensation_that_comes_first_makes_its_action_refused(self):
        caller = self.start()
        reply = caller.take_back("c1/compensate", "c1")
        self.assertEqual((reply.code, reply.body), (200, {"undone": False}))
        caller = self.kill_and_start()
        reply = caller.act("c1", self.good)
        self.assertEqual((reply.code, reply.text), (409, "taken back before it arrived"))
        self.assertEqual(caller.act("c1", self.good), reply)
        self.assertEqual(self.done(self.operations[0]), [])

    def test_a_compensation_of_something_refused_succeeds(self):
        caller = self.start()
        caller.act("c1", self.bad)
        reply = caller.take_back("c1/compensate", "c1")
        self.assertEqual((reply.code, reply.body), (200, {"undone": False}))

    def test_what_is_no_request_is_refused_and_harms_nobody(self):
        caller = self.start()
        bodies = [b"", b"\xff", b"{", b"null", b"[1]", b'"x"', b"{}", b"1e999", b"NaN", b"[" * 100_000, b'{"orderId":7}']
        for number, body in enumerate(bodies):
            with self.subTest(body=body[:20]):
                reply = caller.act(f"c{number}", body)
                self.assertEqual(reply.code, 400, reply)
        self.assertEqual(caller.send_raw({}).code, 400)
        self.assertEqual(caller.act("good", self.good).code, 200)

    def test_killed_in_the_middle_of_many_nothing_answered_is_forgotten_or_done_twice(self):
        caller = self.start()
        bodies = {f"c{number:04}": self.good for number in range(self.many)}
        replies = caller.act_many(bodies, seconds=3)
        # Any moment will do, as long as work has begun and is not over: when a few lines are in the ledger.
        harness.wait_until(lambda: self.ledger.stat().st_size >= 2000 or replies.done())
        self.running.kill()
        replies = replies.result()
        answered = {command: reply for command, reply in replies.items() if reply.code == 200}
        known = {line["command"] for line in self.done(self.operations[0])}
        self.assertLessEqual(set(answered), known)
        caller = self.kill_and_start()
        again = {command: caller.act(command, body) for command, body in bodies.items()}
        for command, reply in answered.items():
            self.assertEqual(again[command], reply)
        self.assertEqual({reply.code for reply in again.values()}, {200})
        commands = [line["command"] for line in self.done(self.operations[0])]
        self.assertEqual(sorted(commands), sorted(bodies))

    def test_a_lost_answer_is_work_done_and_a_failure_is_none(self):
        caller = self.start("--drop-rate", "1")
        self.assertEqual(caller.act("c1", self.good, seconds=0.5).code, None)
        self.assertEqual(len(self.done(self.operations[0])), 1)
        caller = self.kill_and_start("--fail-rate", "1")
        self.assertEqual(caller.act("c1", self.good).code, 503)
        self.assertEqual(caller.act("c2", self.good).code, 503)
        caller = self.kill_and_start("--delay-ms", "1")
        self.assertEqual(caller.act("c1", self.good).code, 200)
        self.assertEqual(len(self.done(self.operations[0])), 1)

    def test_faults_are_the_same_for_the_same_seed(self):
        runs = []
        for seed in ("1", "1", "2"):
            caller = self.kill_and_start("--fail-rate", "0.5", "--fault-seed", seed)
            codes = [caller.act(f"c{number}", self.good).code for number in range(20) for _ in range(2)]
            runs.append(codes)
            self.assertEqual(set(codes), {200, 503})
        self.assertEqual(runs[0], runs[1])
        self.assertNotEqual(runs[0], runs[2])

    def test_it_stops_cleanly_and_a_second_one_on_the_same_ledger_is_refused(self):
        self.start()
        second = subprocess.run(
            [*self.command(), "--ledger", str(self.ledger)],
            capture_output=True,
            text=True,
            timeout=harness.START_SECONDS_MAX,
        )
        self.assertNotEqual(second.returncode, 0)
        self.assertIn("is using this ledger", second.stderr)
        running, self.running = self.running, None
        self.assertEqual(running.terminate(), 0)

    def test_a_torn_last_line_is_cut_off(self):
        caller = self.start()
        first = caller.act("c1", self.good)
        self.stop()
        with self.ledger.open("ab") as file:
            file.write(b'{"op":"tor')
        caller = self.start()
        self.assertEqual(caller.act("c1", self.good), first)
        self.assertEqual(caller.act("c2", self.good).code, 200)
        self.assertEqual([line["command"] for line in self.lines()], ["c1", "c2"])


class OverNats(Contract):
    def new_caller(self):
        return harness.NatsCaller(self.server.url, *self.subjects)

    def test_without_a_server_it_says_so(self):
        command = [*self.command("nats://127.0.0.1:1"), "--ledger", str(self.ledger)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=harness.START_SECONDS_MAX)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("no NATS server at nats://127.0.0.1:1", run.stderr)
        self.assertNotIn("Traceback", run.stderr)


class Inventory(OverNats, unittest.TestCase):
    subjects = ("inventory.reserve", "inventory.release")
    operations = ("reserve", "release")
    good = {"orderId": "o-1", "items": [{"sku": "mug", "qty": 2}]}
    bad = {"orderId": "o-2", "items": [{"sku": "mug", "qty": 1}, {"sku": "lamp", "qty": 2}]}
    refusal = (409, "out of stock: lamp")
    many = 300

    def command(self, url=None):
        stock = self.folder / "stock.json"
        stock.write_text('{"mug": 700, "lamp": 1}')
        return [harness.inventory_path(), "--nats", url or self.server.url, "--stock", str(stock)]

    def test_stock_is_given_back_and_never_oversold(self):
        caller = self.start()
        lamp = {"orderId": "o-1", "items": [{"sku": "lamp", "qty": 1}]}
        self.assertEqual(caller.act("c1", lamp).body, {"reserved": 1})
        self.assertEqual(caller.act("c2", lamp).text, "out of stock: lamp")
        caller = self.kill_and_start()
        self.assertEqual(caller.act("c3", lamp).text, "out of stock: lamp")
        caller.take_back("c1/compensate", "c1")
        self.assertEqual(caller.act("c4", lamp).code, 200)
        self.assertEqual(caller.act("c2", lamp).code, 409)

    def test_a_name_with_a_line_break_can_not_forge_headers(self):
        caller = self.start()
        reply = caller.act("c1", {"orderId": "o", "items": [{"sku": "x\r\nNats-Rollup: all", "qty": 1}]})
        self.assertEqual(reply.code, 409)


class Payments(OverNats, unittest.TestCase):
    subjects = ("payments.charge", "payments.refund")
    operations = ("charge", "refund")
    good = {"orderId": "o-1", "customer": "c-1", "amount": 19.99}
    bad = {"orderId": "o-2", "customer": "c-2", "amount": 10.01}
    refusal = (402, "card declined: over the limit")
    many = 300

    def command(self, url=None):
        cards = self.folder / "cards.json"
        cards.write_text('{"c-1": {"limit": 100000.00}, "c-2": {"limit": 10}}')
        program = [harness.PYTHON, str(HERE / "payments/payments.py")]
        return [*program, "--nats", url or self.server.url, "--cards", str(cards)]

    def charge(self, caller, command, amount):
        reply = caller.act(command, b'{"orderId": "o", "customer": "c-2", "amount": %s}' % amount.encode())
        return reply.code

    def test_sums_are_exact_and_a_refund_frees_the_card(self):
        caller = self.start()
        # In binary floating point ten times 0.1 is below 1, and an eleventh might pass.
        self.assertEqual(self.charge(caller, "c0", "9.00"), 200)
        for number in range(10):
            self.assertEqual(self.charge(caller, f"dime{number}", "0.10"), 200)
        self.assertEqual(self.charge(caller, "c1", "0.01"), 402)
        caller = self.kill_and_start()
        self.assertEqual(self.charge(caller, "c2", "0.01"), 402)
        caller.take_back("dime3/compensate", "dime3")
        self.assertEqual(self.charge(caller, "c3", "0.1"), 200)
        self.assertEqual(self.charge(caller, "c4", "0.01"), 402)

    def test_what_is_no_amount_is_refused(self):
        caller = self.start()
        for amount in ["0", "-1", "0.001", "1e9999999999", "-1e999999", "1e7", "true", '"1"', "null", "9" * 5000]:
            with self.subTest(amount=amount[:20]):
                self.assertEqual(self.charge(caller, f"c {amount[:20]}", amount), 400)

    def test_an_unknown_customer_has_no_card(self):
        reply = self.start().act("c1", {"orderId": "o", "customer": "nobody", "amount": 1})
        self.assertEqual((reply.code, reply.text), (402, "card declined: no card on file"))


class Shipping(Contract, unittest.TestCase):
    operations = ("ship", "cancel")
    good = {"orderId": "o-1", "address": {"country": "DE", "postalCode": "10115", "city": "Berlin"}}
    bad = {"orderId": "o-2", "address": {"country": "AQ", "postalCode": "1"}}
    refusal = (422, "address undeliverable: no delivery to AQ")
    many = 200

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def command(self):
        return [harness.PYTHON, str(HERE / "shipping/shipping.py"), "--port", "0"]

    def new_caller(self):
        return harness.HttpCaller(int(self.running.ready[1]))

    def test_places_are_refused_for_real_reasons(self):
        caller = self.start()
        cases = [
            ({"country": "DE"}, "address undeliverable: postal code missing"),
            ({"country": "DE", "postalCode": ""}, "address undeliverable: postal code missing"),
            ({"country": "DE", "postalCode": "1011"}, "address undeliverable: no such postal code in DE"),
            ({"country": ["DE"], "postalCode": "10115"}, "address undeliverable: no delivery to ['DE']"),
            ({}, "address undeliverable: no delivery to None"),
        ]
        for number, (address, text) in enumerate(cases):
            reply = caller.act(f"c{number}", {"orderId": "o", "address": address})
            self.assertEqual((reply.code, reply.text), (422, text))
        dutch = {"orderId": "o", "address": {"country": "NL", "postalCode": "1012 AB"}}
        self.assertEqual(caller.act("nl", dutch).code, 200)

    def test_the_tracking_number_comes_from_the_command(self):
        first = self.start().act("c1", self.good).body
        self.stop()
        self.ledger.unlink()
        self.assertEqual(self.start().act("c1", self.good).body, first)

    def test_half_a_request_is_not_remembered(self):
        caller = self.start()
        with socket.create_connection(("127.0.0.1", int(self.running.ready[1]))) as half:
            half.sendall(b"POST /shipments HTTP/1.1\r\nIdempotency-Key: c1\r\nContent-Length: 100\r\n\r\n{")
            half.shutdown(socket.SHUT_WR)
            self.assertEqual(half.recv(1000), b"")
        self.assertEqual(caller.act("c1", self.good).code, 200)

    def test_a_port_in_use_is_said(self):
        self.start()
        command = [harness.PYTHON, str(HERE / "shipping/shipping.py"), "--port", self.running.ready[1]]
        command += ["--ledger", str(self.folder / "other.jsonl")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=harness.START_SECONDS_MAX)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("can't listen on", run.stderr)

    def test_an_answer_under_way_is_sent_before_it_stops(self):
        caller = self.start("--delay-ms", "300")
        replies = {}
        thread = threading.Thread(target=lambda: replies.update(c1=caller.act("c1", self.good)))
        thread.start()
        harness.wait_until(lambda: self.ledger.stat().st_size > 0)
        running, self.running = self.running, None
        self.assertEqual(running.terminate(), 0)
        thread.join()
        self.assertEqual(replies["c1"].code, 200)


if __name__ == "__main__":
    unittest.main()
