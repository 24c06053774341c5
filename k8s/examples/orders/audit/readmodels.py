"""The two read models, folded again here from the events of the stream, in exact decimal numbers."""

from decimal import Decimal

from .inputs import instant
from .outcomes import is_order


def order_status(stream):
    rows = {}
    for event in stream:
        data = event["data"]
        if is_order(event):
            columns = {
                "status": "placed",
                "total": data["total"],
                "customer": data["customer"]["id"],
                "lines": len(data["items"]),
                "country": data["address"].get("country", "unknown"),
                "placedAt": event.get("time"),
            }
        elif event["type"] == "OrderConfirmed":
            columns = {"status": "confirmed", "tracking": data.get("tracking"), "closedAt": event.get("time")}
        elif event["type"] == "OrderRejected":
            columns = {"status": "rejected", "reason": data.get("reason"), "closedAt": event.get("time")}
        else:
            continue
        rows.setdefault(event["subject"], {}).update(columns)
    return rows


def customer_orders(stream):
    rows = {}

    def row(event):
        return rows.setdefault(event["data"]["customer"]["id"], {})

    def add(row, column, number):
        row[column] = row.get(column, Decimal(0)) + number

    for event in stream:
        if is_order(event):
            row(event)["lastOrder"] = event["subject"]
            add(row(event), "orders", 1)
            add(row(event), "ordered", event["data"]["total"])
        elif event["type"] == "OrderConfirmed":
            add(row(event), "confirmed", 1)
            add(row(event), "spent", event["data"]["total"])
        elif event["type"] == "OrderRejected":
            add(row(event), "rejected", 1)
    return rows


def compare(name, expected, actual, differences):
    """Every row, every column, both ways."""
    for key in sorted(expected.keys() | actual.keys()):
        where = f"{name} row {key}"
        if key not in actual:
            differences.append(f"{where}: missing, expected {show(expected[key])}")
        elif key not in expected:
            differences.append(f"{where}: there, and no event makes it")
        else:
            for column in sorted(expected[key].keys() | actual[key].keys()):
                ours, theirs = expected[key].get(column, NOTHING), actual[key].get(column, NOTHING)
                if not equal(column, ours, theirs):
                    differences.append(f"{where}: {column} is {theirs}, expected {ours}")


class _Nothing:
    def __str__(self):
        return "absent"


NOTHING = _Nothing()


def equal(column, ours, theirs):
    if column.endswith("At") and instant(ours) is not None:
        return instant(ours) == instant(theirs)
    if isinstance(ours, bool) != isinstance(theirs, bool):
        return False  # Python thinks that True is 1
    return ours == theirs


def show(row):
    return ", ".join(f"{column} {value}" for column, value in row.items())
