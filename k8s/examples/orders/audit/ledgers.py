"""Replays the participants' ledgers: what stands at the end, and whether each line was right when it was written."""

import re
from collections import Counter, defaultdict
from decimal import Decimal

TAKEN_BACK = "taken back before it arrived"


class Ledger:
    """One participant's ledger, replayed.

    `standing` {order: [entries that were done and not taken back]}, `refused` {order: [texts of refusals for the
    participant's own reasons]}, `lines` their number.
    """

    def __init__(self, name, lines, book, differences):
        self.name = name
        self.lines = len(lines)
        self.refused = defaultdict(list)
        self._book = book
        self._differences = differences
        self._actions = set()
        self._compensations = set()
        self._done = {}
        self._taken_back = set()
        for number, entry in enumerate(lines, 1):
            self._where = f"{name} ledger line {number}"
            if entry["op"] == book.action:
                self._act(entry)
            elif entry["op"] == book.compensation:
                self._take_back(entry)
            else:
                self._differ(f"unknown operation {entry['op']}")
        self.standing = defaultdict(list)
        for entry in self._done.values():
            self.standing[entry["order"]].append(entry)

    def _differ(self, text):
        self._differences.append(f"{self._where}: {text}")

    def _act(self, entry):
        command, order = entry["command"], entry["order"]
        if command in self._actions:
            self._differ(f"command {command} was worked on a second time")
        self._actions.add(command)
        if "answer" in entry:
            if command in self._taken_back:
                self._differ(f"command {command} was done after it was taken back")
            self._done[command] = entry
            wrong = self._book.done(entry)
        else:
            text = entry["refused"]["text"]
            if text == TAKEN_BACK:
                # It came too late to be why its order failed.
                wrong = None if command in self._taken_back else "refused as taken back, and nobody had taken it back"
            else:
                self.refused[order].append(text)
                wrong = self._book.refused(entry, text)
        if wrong:
            self._differ(f"order {order}: {wrong}")

    def _take_back(self, entry):
        command, compensates = entry["command"], entry["compensates"]
        if command in self._compensations:
            self._differ(f"compensation {command} was worked on a second time")
        self._compensations.add(command)
        self._taken_back.add(compensates)
        done = self._done.pop(compensates, None)
        if entry["undone"] != (done is not None):
            self._differ(f"{compensates} {'was' if done else 'was not'} there to take back, the ledger says otherwise")
        if done is not None:
            self._book.undone(done)


class Inventory:
    """Stock must never be oversold, and an order only be refused when goods were short at that moment."""

    action, compensation = "reserve", "release"

    def __init__(self, stock):
        self.at_start = dict(stock)
        self.left = Counter(stock)

    def done(self, entry):
        items = units(entry["items"])
        self.left.subtract(items)
        short = [sku for sku in items if self.left[sku] < 0]
        return f"reserved more than there was of {', '.join(short)}" if short else None

    def undone(self, entry):
        self.left.update(units(entry["items"]))

    def refused(self, entry, text):
        match = re.fullmatch("out of stock: (.*)", text)
        if match is None:
            return f"refused for no reason of stock: {text}"
        asked, left = units(entry["items"])[match[1]], self.left[match[1]]
        return None if asked > left else f"refused {asked} of {match[1]} while {left} were left"


class Payments:
    """A card must never be charged above its limit, and only be declined when the amount would have done that."""

    action, compensation = "charge", "refund"

    def __init__(self, cards):
        self.limits = {customer: Decimal(card["limit"]) for customer, card in cards.items()}
        self.charged = defaultdict(Decimal)

    def done(self, entry):
        customer = entry["customer"]
        self.charged[customer] += Decimal(entry["amount"])
        limit = self.limits.get(customer, Decimal(0))
        if self.charged[customer] > limit:
            return f"{self.charged[customer]} is charged on the card of {customer}, above its limit of {limit}"
        return None

    def undone(self, entry):
        self.charged[entry["customer"]] -= Decimal(entry["amount"])

    def refused(self, entry, text):
        customer = entry.get("customer")
        if text == "card declined: no card on file":
            return f"declined, but {customer} has a card" if customer in self.limits else None
        if text != "card declined: over the limit":
            return f"refused for no reason of payment: {text}"
        total = self.charged[customer] + Decimal(entry["amount"])
        if total <= self.limits.get(customer, Decimal(0)):
            return f"declined, though {total} is within the limit of {customer}"
        return None


class Shipping:
    """Parcels go to places that are served, and only to them."""

    action, compensation = "ship", "cancel"

    def __init__(self, places):
        self._places = places

    def _reachable(self, entry):
        pattern = self._places.get(entry.get("country"))
        return pattern is not None and re.fullmatch(pattern, entry.get("postalCode") or "") is not None

    def done(self, entry):
        return None if self._reachable(entry) else "shipped to where nothing can be delivered"

    def undone(self, entry):
        pass

    def refused(self, entry, text):
        if not text.startswith("address undeliverable: "):
            return f"refused for no reason of shipping: {text}"
        return "refused an address that is served" if self._reachable(entry) else None


def units(items):
    """Units per SKU; an order may name one SKU twice."""
    total = Counter()
    for item in items:
        total[item["sku"]] += item["qty"]
    return total
