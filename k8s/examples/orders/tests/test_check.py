"""check.py against small runs made by hand: it passes the right one, and catches each way to be wrong."""

import copy
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
import jsontext  # noqa: E402

TIME = "2026-03-02T08:00:00.000Z"
LATER = "2026-03-02T08:00:01.5Z"


def placed(order, customer, qty, total, country="DE", code="10115"):
    data = {
        "orderId": order,
        "customer": {"id": customer},
        "items": [{"sku": "mug", "qty": qty, "price": jsontext.load("0.10")}],
        "total": jsontext.load(total),
        "address": {"country": country, "postalCode": code},
    }
    return {"type": "OrderPlaced", "subject": order, "id": f"placed-{order}", "time": TIME, "data": data}


def outcome(kind, order, customer, total, **more):
    data = {"customer": {"id": customer}, "total": jsontext.load(total), **more}
    return {"type": kind, "subject": order, "time": LATER, "data": data}


def reserved(order, qty):
    items = [{"sku": "mug", "qty": qty}]
    return {"op": "reserve", "command": f"{order}/reserve", "order": order, "items": items, "answer": {"reserved": qty}}


def charged(order, customer, amount):
    facts = {"order": order, "customer": customer, "amount": amount}
    return {"op": "charge", "command": f"{order}/charge", **facts, "answer": {"payment": "p"}}


def shipped(order):
    facts = {"order": order, "country": "DE", "postalCode": "10115"}
    return {"op": "ship", "command": f"{order}/ship", **facts, "answer": {"tracking": f"T{order}"}}


def refused(entry, code, text):
    return {name: value for name, value in entry.items() if name != "answer"} | {"refused": {"code": code, "text": text}}


def taken_back(entry, operation):
    return {
        "op": operation,
        "command": f"{entry['command']}/compensate",
        "compensates": entry["command"],
        "order": entry["order"],
        "undone": True,
        "answer": {"undone": True},
    }


def right():
    """One order of each outcome, and a free sample: a (done), b (no stock), c (declined), d (no address), e (free)."""
    events = [
        placed("a", "c1", 3, "0.30"),
        placed("b", "c1", 9, "0.90"),
        placed("c", "c2", 2, "0.20"),
        placed("d", "c2", 1, "0.10", country="AQ", code=""),
        placed("e", "c2", 1, "0.00"),
    ]
    short, declined, nowhere = "out of stock: mug", "card declined: over the limit", "address undeliverable: no delivery to AQ"
    lost = refused(shipped("d") | {"country": "AQ", "postalCode": ""}, 422, nowhere)
    stream = [
        *copy.deepcopy(events),
        outcome("OrderConfirmed", "a", "c1", "0.3", tracking="Ta"),
        outcome("OrderRejected", "b", "c1", "0.90", reason=short),
        outcome("OrderRejected", "c", "c2", "0.20", reason=declined),
        outcome("OrderRejected", "d", "c2", "0.10", reason=nowhere),
    ]
    status = {
        order: {"total": event["data"]["total"], "customer": event["data"]["customer"]["id"], "lines": 1}
        | {"country": event["data"]["address"]["country"], "placedAt": TIME, "closedAt": "2026-03-02T09:00:01.500+01:00"}
        for order, event in zip("abcd", events)
    }
    status["a"] |= {"status": "confirmed", "tracking": "Ta"}
    for order, reason in (("b", short), ("c", declined), ("d", nowhere)):
        status[order] |= {"status": "rejected", "reason": reason}
    return {
        "events": events,
        "stock": {"mug": 10},
        "cards": {"c1": {"limit": 1}, "c2": {"limit": jsontext.load("0.15")}},
        "inventory-ledger": [
            reserved("a", 3),
            refused(reserved("b", 9), 409, short),
            reserved("c", 2),
            taken_back(reserved("c", 2), "release"),
            reserved("d", 1),
            taken_back(reserved("d", 1), "release"),
        ],
        "payments-ledger": [
            charged("a", "c1", "0.30"),
            refused(charged("c", "c2", "0.20"), 402, declined),
            charged("d", "c2", "0.10"),
            taken_back(charged("d", "c2", "0.10"), "refund"),
        ],
        "shipping-ledger": [shipped("a"), lost],
        "sagas": [
            {"id": "a", "state": "completed"},
            {"id": "b", "state": "compensated", "reason": short},
            {"id": "c", "state": "compensated", "reason": declined},
            {"id": "d", "state": "compensated", "reason": nowhere},
        ],
        "stream": stream,
        "order-status": status,
        "customer-orders": {
            "c1": {"lastOrder": "b", "orders": 2, "ordered": jsontext.load("1.2"), "confirmed": 1, "rejected": 1}
            | {"spent": jsontext.load("0.30")},
            "c2": {"lastOrder": "d", "orders": 2, "ordered": jsontext.load("0.30"), "rejected": 2},
        },
    }


def run_check(run):
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"--places={HERE / 'places.json'}"]
        for name, content in run.items():
            path = pathlib.Path(folder, name)
            if isinstance(content, str):
                path.write_text(content)
            elif name in ("events", "stream") or name.endswith("ledger"):
                path.write_text("".join(jsontext.dump(line) + "\n" for line in content))
            else:
                path.write_text(jsontext.dump(content))
            arguments.append(f"--{name}={path}")
        command = [sys.executable, HERE / "check.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True)


class Check(unittest.TestCase):
    def setUp(self):
        self.run_ = right()

    def differs(self, *texts):
        result = run_check(self.run_)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        for text in texts:
            self.assertIn(text, result.stdout)

    def test_a_right_run_is_all_equal(self):
        result = run_check(self.run_)
        self.assertEqual(result.stderr, "")
        expected = """\
outcome      reason                 orders
compensated  address undeliverable       1
compensated  card declined               1
compensated  out of stock                1
completed                                1
no order     nothing to pay              1

read model       rows
order-status        4
customer-orders     2

stock: 10 units at the start, 7 left; cards: 0.30 charged

checked: 4 orders, 6 rows, 9 events, 12 ledger lines: all equal
"""
        self.assertEqual(result.stdout, expected)
        self.assertEqual(result.returncode, 0)

    def test_lists_of_the_command_line_are_read_in_either_form(self):
        self.run_["sagas"] = {"items": self.run_["sagas"], "seen": 4}
        rows = [{"key": key, "row": row} for key, row in self.run_["order-status"].items()]
        self.run_["order-status"] = {"rows": rows, "matched": 4}
        self.assertEqual(run_check(self.run_).returncode, 0)

    def test_a_reservation_left_behind(self):
        del self.run_["inventory-ledger"][3]
        self.differs("order c: compensated, but left behind in the inventory ledger: c/reserve", "stock of mug: 5 taken")

    def test_a_charge_left_behind(self):
        del self.run_["payments-ledger"][3]
        self.differs("order d: compensated, but left behind in the payments ledger", "card of c2: 0.10 charged")

    def test_a_parcel_sent_for_a_rejected_order(self):
        self.run_["shipping-ledger"].append(shipped("c"))
        self.differs("order c: compensated, but left behind in the shipping ledger: c/ship")

    def test_a_double_charge(self):
        self.run_["payments-ledger"].append(charged("a", "c1", "0.30") | {"command": "other/charge"})
        self.differs("order a: completed, with 2 standing entries in the payments ledger", "card of c1: 0.60 charged")

    def test_a_command_done_twice(self):
        self.run_["payments-ledger"].append(charged("a", "c1", "0.30"))
        self.differs("command a/charge was worked on a second time")

    def test_a_wrong_amount(self):
        self.run_["payments-ledger"][0]["amount"] = "0.31"
        self.differs("order a: charged 0.31 of c1, expected 0.30 of c1")

    def test_wrong_goods(self):
        self.run_["inventory-ledger"][0]["items"][0]["qty"] = 2
        self.differs("order a: reserved {'mug': 2}, ordered {'mug': 3}")

    def test_a_step_missing_from_a_completed_order(self):
        self.run_["shipping-ledger"] = self.run_["shipping-ledger"][1:]
        self.differs("order a: completed, with 0 standing entries in the shipping ledger")

    def test_refusals_that_had_no_reason(self):
        self.run_["stock"] = {"mug": 100}
        self.run_["cards"]["c2"]["limit"] = 5
        self.differs("refused 9 of mug while 97 were left", "declined, though 0.20 is within the limit of c2")

    def test_stock_sold_twice_and_a_card_over_its_limit(self):
        self.run_["stock"] = {"mug": 2}
        self.run_["cards"]["c1"]["limit"] = jsontext.load("0.29")
        self.differs("reserved more than there was of mug", "0.30 is charged on the card of c1, above its limit of 0.29")

    def test_an_action_done_after_it_was_taken_back(self):
        ledger = self.run_["inventory-ledger"]
        ledger[2], ledger[3] = ledger[3], ledger[2]
        self.differs("command c/reserve was done after it was taken back")

    def test_an_action_that_came_after_its_compensation_is_no_reason(self):
        ledger = self.run_["payments-ledger"]
        text = "over its time"
        late = refused(charged("b", "c1", "0.90"), 409, "taken back before it arrived")
        ledger += [taken_back(charged("b", "c1", "0.90"), "refund") | {"order": None, "undone": False}, late]
        # As if the reservation had been given up without an answer, and the charge been overtaken.
        self.run_["inventory-ledger"] = [line for line in self.run_["inventory-ledger"] if line["order"] != "b"]
        self.run_["stream"][6]["data"]["reason"] = self.run_["order-status"]["b"]["reason"] = text
        result = run_check(self.run_)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("a step was given up", result.stdout)
        ledger[-2:] = [late]
        self.differs("refused as taken back, and nobody had taken it back")

    def test_a_missing_outcome_and_a_second_one(self):
        stream = self.run_["stream"]
        stream[6] = stream[5]
        self.differs(
            "order a: outcome events ['OrderConfirmed', 'OrderConfirmed'], expected one OrderConfirmed",
            "order b: outcome events [], expected one OrderRejected",
        )

    def test_an_outcome_of_the_wrong_kind(self):
        self.run_["stream"][5]["type"] = "OrderRejected"
        self.differs("order a: outcome events ['OrderRejected'], expected one OrderConfirmed")

    def test_a_wrong_tracking_number_and_a_swallowed_reason(self):
        self.run_["stream"][5]["data"]["tracking"] = "T?"
        self.run_["stream"][6]["data"]["reason"] = "StepFailed"
        self.run_["sagas"][1]["reason"] = "StepFailed"
        self.differs("order a: OrderConfirmed names the tracking number T?", "but said to be 'StepFailed'")

    def test_a_saga_that_is_missing_or_not_finished_or_too_many(self):
        sagas = self.run_["sagas"]
        sagas[0]["state"] = "parked"
        sagas[1]["id"] = "e"
        self.differs(
            "order a: its saga is parked",
            "order b: 0 saga instances, expected one",
            "order e: 1 saga instances of something that is no order",
        )

    def test_a_row_with_a_wrong_sum(self):
        self.run_["customer-orders"]["c1"]["ordered"] = jsontext.load("1.2000000000000002")
        self.differs("customer-orders row c1: ordered is 1.2000000000000002, expected 1.20")

    def test_rows_that_are_stale_missing_or_made_up(self):
        rows = self.run_["order-status"]
        rows["b"]["status"] = "placed"
        rows["f"] = rows.pop("c")
        del rows["d"]["reason"]
        self.differs(
            "order-status row b: status is placed, expected rejected",
            "order-status row c: missing",
            "order-status row f: there, and no event makes it",
            "order-status row d: reason is absent",
        )

    def test_an_event_lost_doubled_or_changed_in_the_stream(self):
        stream = self.run_["stream"]
        stream[4] = copy.deepcopy(stream[0])
        stream[1]["data"]["total"] = 1
        self.differs(
            "event OrderPlaced of a: 2 times in the stream",
            "event OrderPlaced of b: its data in the stream differ",
            "event OrderPlaced of e: 0 times in the stream",
        )

    def test_what_can_not_be_read_is_said(self):
        for name, content, text in [
            ("events", '{"type": 1}\n', "events:1: no subject, data, time"),
            ("stream", "[]\n{", "stream:1: no type, subject, data"),
            ("sagas", "{}", "sagas: expected a list"),
            ("sagas", '[{"id": "a"}]', "sagas: expected objects with id, state"),
            ("order-status", "7", "order-status: expected a list"),
            ("stock", "NaN", "stock: NaN is no JSON number"),
            ("cards", "[]", "an input has another shape"),
        ]:
            with self.subTest(name=name, content=content):
                result = run_check(right() | {name: content})
                self.assertEqual(result.returncode, 2)
                self.assertIn(text, result.stderr)
                self.assertNotIn("Traceback", result.stderr)


if __name__ == "__main__":
    unittest.main()
