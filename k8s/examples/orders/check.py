"""Checks a finished run of the order example against figures that owe nothing to Tidemill.

What each order must have come to is computed from the published events and the three participants' ledgers
alone; sagas, outcome events and both read models are compared with that. The read models are folded again here,
in exact decimal numbers. Ends with 0 when everything is equal and nothing was left behind, with 1 when not, and
with 2 when an input can't be read.

    python3 check.py --inventory-ledger i.jsonl --payments-ledger p.jsonl --shipping-ledger s.jsonl \\
        --sagas sagas.json --stream stream.jsonl --order-status status.json --customer-orders customers.json

    sagas      tidemill saga list order-fulfilment -o json    [{"id", "state", "reason"}]
    stream     every event of the stream, one per line        {"type", "subject", "time", "data"}
    the rows   tidemill query PROJECTION -o json              {key: row} or [{"key", "row"}]
"""

import argparse
import pathlib
import sys
from decimal import Decimal

from audit import inputs, ledgers, outcomes, readmodels

# Enough to see the pattern; the number of all is said.
DIFFERENCES_SHOWN = 20
LEDGER_LINE = ["op", "command", "order"]
EVENT = ["type", "subject", "data"]


def check(args):
    """(lines of the summary for people, differences)."""
    differences = []
    placed = inputs.lines(args.events, [*EVENT, "time"])
    stream = inputs.lines(args.stream, EVENT)
    sagas = inputs.listed(args.sagas, ["id", "state"])
    stock = ledgers.Inventory(inputs.document(args.stock))
    cards = ledgers.Payments(inputs.document(args.cards))
    places = ledgers.Shipping(inputs.document(args.places))
    inventory, payments, shipping = (
        ledgers.Ledger(name, inputs.lines(path, LEDGER_LINE), book, differences)
        for name, path, book in [
            ("inventory", args.inventory_ledger, stock),
            ("payments", args.payments_ledger, cards),
            ("shipping", args.shipping_ledger, places),
        ]
    )

    outcomes.check_stream(placed, stream, differences)
    orders = outcomes.Orders(placed, inventory, payments, shipping, sagas, stream, differences)
    orders.check_sums(stock, cards)
    models = {
        "order-status": (readmodels.order_status(stream), inputs.rows(args.order_status)),
        "customer-orders": (readmodels.customer_orders(stream), inputs.rows(args.customer_orders)),
    }
    for name, (expected, actual) in models.items():
        readmodels.compare(name, expected, actual, differences)

    summary = table(
        ["outcome", "reason", "orders"],
        [[state, reason, count] for (state, reason), count in sorted(orders.counts.items())]
        + [["no order", "nothing to pay", len(placed) - len(orders.orders)]],
    )
    summary += [""] + table(["read model", "rows"], [[name, len(actual)] for name, (_, actual) in models.items()])
    left, at_start = sum(stock.left.values()), sum(stock.at_start.values())
    charged = sum(cards.charged.values(), Decimal(0))
    summary += ["", f"stock: {at_start:,} units at the start, {left:,} left; cards: {charged:,.2f} charged", ""]
    rows = sum(len(actual) for _, actual in models.values())
    lines = inventory.lines + payments.lines + shipping.lines
    checked = f"checked: {len(orders.orders):,} orders, {rows:,} rows, {len(stream):,} events, {lines:,} ledger lines"
    if differences:
        shown = [f"  {text}" for text in differences[:DIFFERENCES_SHOWN]]
        more = len(differences) - len(shown)
        if more > 0:
            shown.append(f"  and {more:,} more")
        return [*summary, f"{checked}: {len(differences):,} differences", *shown], differences
    return [*summary, f"{checked}: all equal"], differences


def table(head, rows):
    """Text columns to the left, numbers to the right."""
    cells = [head] + [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        aligned = [cell.ljust(width) for cell, width in zip(row[:-1], widths)]
        lines.append("  ".join([*aligned, row[-1].rjust(widths[-1])]))
    return lines


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", default=here / "events.jsonl", metavar="FILE", help="what was published")
    parser.add_argument("--stock", default=here / "stock.json", metavar="FILE", help="what inventory began with")
    parser.add_argument("--cards", default=here / "cards.json", metavar="FILE", help="the credit limits")
    parser.add_argument("--places", default=here / "places.json", metavar="FILE", help="where shipping delivers")
    for name in ("inventory-ledger", "payments-ledger", "shipping-ledger"):
        parser.add_argument(f"--{name}", required=True, metavar="FILE")
    for name in ("sagas", "stream", "order-status", "customer-orders"):
        parser.add_argument(f"--{name}", required=True, metavar="FILE")
    args = parser.parse_args()
    try:
        summary, differences = check(args)
    except inputs.BadInput as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        print(f"check: an input has another shape than expected: {type(error).__name__} {error}", file=sys.stderr)
        return 2
    print("\n".join(summary))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
