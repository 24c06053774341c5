"""How each order must have ended, from its event and the ledgers, against what the saga and the stream say."""

from collections import Counter, defaultdict
from decimal import Decimal

from .inputs import instant
from .ledgers import units

OUTCOMES = {"completed": "OrderConfirmed", "compensated": "OrderRejected"}


def is_order(event):
    """Whether the event starts an order: the trigger's condition, said again."""
    return event["type"] == "OrderPlaced" and event["data"]["total"] > 0


def check_stream(placed, stream, differences):
    """Every event that was published is in the stream once, unchanged, and nothing else but outcomes."""
    found = defaultdict(list)
    for event in stream:
        if event["type"] not in OUTCOMES.values():
            found[(event["type"], event["subject"])].append(event)
    for event in placed:
        same = found.pop((event["type"], event["subject"]), [])
        name = f"event {event['type']} of {event['subject']}"
        if len(same) != 1:
            differences.append(f"{name}: {len(same)} times in the stream, expected once")
        elif same[0]["data"] != event["data"]:
            differences.append(f"{name}: its data in the stream differ from what was published")
        elif instant(same[0].get("time")) != instant(event["time"]):
            differences.append(f"{name}: time {same[0].get('time')} in the stream, published with {event['time']}")
    for kind, subject in found:
        differences.append(f"event {kind} of {subject} is in the stream, and nobody published it")


class Orders:
    """All orders of a run, judged one by one. `counts` is {(state, reason): orders} for the summary."""

    def __init__(self, placed, inventory, payments, shipping, sagas, stream, differences):
        self.counts = Counter()
        self._inventory, self._payments, self._shipping = inventory, payments, shipping
        self._differences = differences
        self._outcomes = defaultdict(list)
        for event in stream:
            if event["type"] in OUTCOMES.values():
                self._outcomes[event["subject"]].append(event)
        instances = defaultdict(list)
        for instance in sagas:
            instances[instance["id"]].append(instance)
        self.orders = {event["subject"]: event["data"] for event in placed if is_order(event)}
        self.completed = []
        for order, data in self.orders.items():
            self._judge(order, data, instances.pop(order, []))
        self._nothing_else(instances)

    def _differ(self, order, text):
        self._differences.append(f"order {order}: {text}")

    def _judge(self, order, data, instances):
        if len(instances) != 1:
            self.counts[("not one instance", "")] += 1
            return self._differ(order, f"{len(instances)} saga instances, expected one")
        instance = instances[0]
        state, refusals = instance["state"], self._refusals(order)
        if state == "completed":
            self.completed.append(order)
            self.counts[(state, "")] += 1
            if refusals:
                self._differ(order, f"completed, though it was refused: {refusals[0]}")
            self._everything_stands(order, data)
        elif state == "compensated":
            reason = refusals[0].split(":")[0] if refusals else "a step was given up"
            self.counts[(state, reason)] += 1
            self._nothing_stands(order)
        else:
            self.counts[(state, instance.get("reason") or "")] += 1
            return self._differ(order, f"its saga is {state} ({instance.get('reason') or 'no reason given'}), not finished")
        return self._one_outcome(order, data, instance, refusals)

    def _refusals(self, order):
        ledgers = (self._inventory, self._payments, self._shipping)
        return [text for ledger in ledgers for text in ledger.refused.get(order, [])]

    def _everything_stands(self, order, data):
        for ledger in (self._inventory, self._payments, self._shipping):
            count = len(ledger.standing.get(order, []))
            if count != 1:
                self._differ(order, f"completed, with {count} standing entries in the {ledger.name} ledger, expected one")
        for entry in self._inventory.standing.get(order, []):
            if units(entry["items"]) != units(data["items"]):
                self._differ(order, f"reserved {dict(units(entry['items']))}, ordered {dict(units(data['items']))}")
        for entry in self._payments.standing.get(order, []):
            if Decimal(entry["amount"]) != data["total"] or entry["customer"] != data["customer"]["id"]:
                expected = f"{data['total']} of {data['customer']['id']}"
                self._differ(order, f"charged {entry['amount']} of {entry['customer']}, expected {expected}")
        for entry in self._shipping.standing.get(order, []):
            address = data["address"]
            if (entry["country"], entry["postalCode"]) != (address.get("country"), address.get("postalCode")):
                self._differ(order, f"shipped to {entry['country']} {entry['postalCode']}, not to its address")

    def _nothing_stands(self, order):
        for ledger in (self._inventory, self._payments, self._shipping):
            for entry in ledger.standing.get(order, []):
                self._differ(order, f"compensated, but left behind in the {ledger.name} ledger: {entry['command']}")

    def _one_outcome(self, order, data, instance, refusals):
        events = self._outcomes.get(order, [])
        kinds = [event["type"] for event in events]
        expected = OUTCOMES[instance["state"]]
        if kinds != [expected]:
            return self._differ(order, f"outcome events {kinds}, expected one {expected}")
        said = events[0]["data"]
        if said.get("customer") != {"id": data["customer"]["id"]} or said.get("total") != data["total"]:
            self._differ(order, f"{expected} names customer {said.get('customer')} and total {said.get('total')}")
        if instance["state"] == "completed":
            trackings = [entry["answer"]["tracking"] for entry in self._shipping.standing.get(order, [])]
            if said.get("tracking") not in trackings:
                self._differ(order, f"OrderConfirmed names the tracking number {said.get('tracking')}, shipping {trackings}")
            return None
        # The saga may put the refusal into words of its own around it, but must not swallow it.
        told = [said.get("reason"), instance.get("reason"), instance.get("message")]
        if not isinstance(said.get("reason"), str) or not said["reason"]:
            self._differ(order, "OrderRejected gives no reason")
        elif refusals and not any(refusals[0] in text for text in told if isinstance(text, str)):
            self._differ(order, f"refused because {refusals[0]!r}, but said to be {said['reason']!r}")
        return None

    def _nothing_else(self, instances):
        for order, strange in instances.items():
            self._differ(order, f"{len(strange)} saga instances of something that is no order")
        for order in self._outcomes.keys() - self.orders.keys():
            self._differ(order, "an outcome event of something that is no order")
        for ledger in (self._inventory, self._payments, self._shipping):
            for order in ledger.standing.keys() - self.orders.keys():
                self._differ(order, f"stands in the {ledger.name} ledger and is no order")

    def check_sums(self, stock, cards):
        """Nothing was lost or made: what is gone from stock and cards is what completed orders took."""
        gone, charged = Counter(), defaultdict(Decimal)
        for order in self.completed:
            data = self.orders[order]
            gone.update(units(data["items"]))
            charged[data["customer"]["id"]] += data["total"]
        for sku in sorted(stock.left.keys() | gone.keys()):
            taken = stock.at_start.get(sku, 0) - stock.left[sku]
            if taken != gone[sku]:
                self._differences.append(f"stock of {sku}: {taken} taken, completed orders hold {gone[sku]}")
        for customer in sorted(cards.charged.keys() | charged.keys()):
            if cards.charged[customer] != charged[customer]:
                self._differences.append(
                    f"card of {customer}: {cards.charged[customer]} charged, completed orders cost {charged[customer]}"
                )
