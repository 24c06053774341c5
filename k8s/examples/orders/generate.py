"""Makes orders: any number of them, varied, and the same bytes for the same seed on every machine.

    python3 generate.py --count 1000 --seed 1

writes events.jsonl, stock.json and cards.json: orders as `tidemill event publish orders --file events.jsonl`
reads them, and the stock and the credit limits that go with them, chosen so that every outcome occurs. Some
orders can't be fulfilled whatever happens (undeliverable addresses, cards with a small limit); who gets the last
piece of what is scarce depends on who comes first.
"""

import argparse
import datetime
import pathlib
import sys
from decimal import Decimal

from jsontext import dump

# Shares of orders, chosen so that a few hundred show every outcome and most still succeed.
UNDELIVERABLE = 0.05
FREE_SAMPLES = 0.02
TIGHT_CARDS = 0.12  # of customers
SCARCE_GOODS = 0.08  # of goods
CARD_COVERS = Decimal("0.5")  # of what a customer with a tight card wants to spend
STOCK_COVERS = Decimal("0.6")  # of what is asked of scarce goods
ITEMS_MAX = 5

PLACES = {
    "DE": [("10115", "Berlin"), ("50667", "Köln"), ("80331", "München"), ("20095", "Hamburg")],
    "AT": [("1010", "Wien"), ("5020", "Salzburg"), ("8010", "Graz")],
    "CH": [("8001", "Zürich"), ("1201", "Genève"), ("3011", "Bern")],
    "FR": [("75001", "Paris"), ("69001", "Lyon"), ("31000", "Toulouse")],
    "NL": [("1012 AB", "Amsterdam"), ("3011 AD", "Rotterdam"), ("3511 EX", "Utrecht")],
}
UNSERVED = [("AQ", "96599", "McMurdo Station"), ("IS", "101", "Reykjavík"), ("FO", "100", "Tórshavn")]
STREETS = ["Mühlenweg", "Rue des Lilas", "Hafenstraße", "Kerkstraat", "Bahnhofplatz", "Quai de la Gare", "Am Wehr"]
THINGS = ["mug", "lamp", "kettle", "chair", "blanket", "teapot", "shelf", "clock", "basket", "vase", "rug", "tray"]
MATERIALS = ["oak", "steel", "linen", "glass", "clay", "wool"]
NOTES = [
    "Please ring twice",
    "Bitte beim Nachbarn abgeben – 3. Stock",
    'Write "Happy birthday" on the card',
    "Fragile!\nThis side up",
    "Cadeau 🎁 à emballer",
    "=not a formula",
]


class Random:
    """SplitMix64. Python's own generator promises the same numbers on every version for `random()` only."""

    def __init__(self, seed):
        self._state = seed & MASK

    def next(self):
        self._state = (self._state + 0x9E3779B97F4A7C15) & MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        return mixed ^ (mixed >> 31)

    def below(self, limit):
        return self.next() % limit

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def chance(self, share):
        return self.next() < share * 2**64

    def pick(self, choices):
        return choices[self.below(len(choices))]


MASK = 2**64 - 1


def goods(random):
    """Every SKU with its price. Prices are written as shops write them: 12, 12.5 or 12.50."""
    prices = {}
    for material in MATERIALS:
        for thing in THINGS:
            cents = random.pick([random.between(1, 40) * 100, random.between(99, 9999), random.between(2, 99) * 50])
            prices[f"{material}-{thing}"] = cents
    return prices


def amount(random, cents):
    """Cents as a JSON number; now and then without the zeros at its end, as serializers differ in that."""
    exact = Decimal(cents) / 100
    if random.chance(0.3):
        whole = exact == exact.to_integral_value()
        return exact.quantize(Decimal(1)) if whole else exact.normalize()
    return exact.quantize(Decimal("0.01"))


def address(random):
    country = random.pick(list(PLACES))
    code, city = random.pick(PLACES[country])
    where = {"street": f"{random.pick(STREETS)} {random.between(1, 99)}", "city": city, "postalCode": code}
    if random.chance(UNDELIVERABLE):
        fault = random.below(3)
        if fault == 0:
            country, where["postalCode"], where["city"] = random.pick(UNSERVED)
        elif fault == 1:
            del where["postalCode"]
        else:
            where["postalCode"] = code[:-1]
    return where | {"country": country}


def timestamp(random, millis):
    """RFC 3339; some with the offset of the shop's own clock."""
    start = datetime.datetime(2026, 3, 2, 8, tzinfo=datetime.timezone.utc)
    moment = start + datetime.timedelta(milliseconds=millis)
    if random.chance(0.05):
        moment = moment.astimezone(datetime.timezone(datetime.timedelta(hours=1)))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def order(random, number, customers, prices, weighted):
    """One OrderPlaced event and its total in cents."""
    free = random.chance(FREE_SAMPLES)
    items, total = [], 0
    for _ in range(random.between(1, ITEMS_MAX)):
        sku, qty = random.pick(weighted), random.between(1, 4)
        cents = 0 if free else prices[sku]
        items.append({"sku": sku, "qty": qty, "price": amount(random, cents)})
        total += cents * qty
    customer = {"id": f"c-{random.below(customers) + 1:04}"}
    if random.chance(0.3):
        customer["tier"] = random.pick(["silver", "gold"])
    data = {
        "orderId": f"o-{number:06}",
        "customer": customer,
        "items": items,
        "total": amount(random, total),
        "address": address(random),
        "channel": random.pick(["web", "web", "app", "phone"]),
    }
    if random.chance(0.2):
        data["note"] = random.pick(NOTES)
    if random.chance(0.1):
        data["gift"] = True
    return data, total


def generate(count, seed):
    """The events, the stock and the cards."""
    random = Random(seed)
    prices = goods(random)
    # Some goods sell far better than others, as in every shop.
    weighted = [sku for sku in prices for _ in range(random.pick([1, 1, 1, 2, 4, 8]))]
    customers = max(1, count // 6)
    events, asked, wanted, millis = [], dict.fromkeys(prices, 0), {}, 0
    for number in range(1, count + 1):
        data, total = order(random, number, customers, prices, weighted)
        millis += random.between(5, 4000)
        events.append(
            {
                "type": "OrderPlaced",
                "subject": data["orderId"],
                "id": f"placed-{number:06}",
                "time": timestamp(random, millis),
                "data": data,
            }
        )
        if total > 0:
            wanted[data["customer"]["id"]] = wanted.get(data["customer"]["id"], 0) + total
            for item in data["items"]:
                asked[item["sku"]] += item["qty"]
    stock = {sku: units(random, asked[sku]) for sku in sorted(prices)}
    names = (f"c-{number:04}" for number in range(1, customers + 1))
    cards = {name: {"limit": limit(random, wanted.get(name, 0))} for name in names}
    return events, stock, cards


def units(random, asked):
    if random.chance(SCARCE_GOODS):
        return int(asked * STOCK_COVERS)
    return asked + random.between(0, 50)


def limit(random, wanted):
    cents = wanted * CARD_COVERS if random.chance(TIGHT_CARDS) else Decimal(wanted + random.between(0, 500) * 100)
    return (cents / 100).quantize(Decimal("0.01"))


def pretty(mapping):
    """One entry per line, so that a difference between two files can be read."""
    lines = ",\n".join(f"  {dump(key)}: {dump(value)}" for key, value in mapping.items())
    return "{\n" + lines + "\n}\n"


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--events", type=pathlib.Path, default=here / "events.jsonl", metavar="FILE")
    parser.add_argument("--stock", type=pathlib.Path, default=here / "stock.json", metavar="FILE")
    parser.add_argument("--cards", type=pathlib.Path, default=here / "cards.json", metavar="FILE")
    args = parser.parse_args()
    if args.count < 1:
        parser.error("--count must be at least 1")
    events, stock, cards = generate(args.count, args.seed)
    try:
        args.events.write_text("".join(dump(event) + "\n" for event in events), encoding="utf-8")
        args.stock.write_text(pretty(stock), encoding="utf-8")
        args.cards.write_text(pretty(cards), encoding="utf-8")
    except OSError as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    print(f"{len(events)} orders in {args.events}, stock in {args.stock}, cards in {args.cards}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
