"""Payments: charges customers' cards over NATS, up to each card's credit limit, and gives refunds.

payments.charge   {"orderId", "customer", "amount"} -> {"payment", "amount"}, or 402 "card declined: ..."
payments.refund   header Tidemill-Compensates names the charge to take back -> {"undone": true|false}

Every charge and refund is in the ledger file before it is answered.
"""

import argparse
import asyncio
import hashlib
import json
import pathlib
import signal
import sys
from decimal import Decimal

import nats

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import jsontext  # noqa: E402
from faults import Faults  # noqa: E402
from memory import Answer, BadLedger, Ledger, Memory  # noqa: E402

# Long enough to be started a moment before the server, short enough that a wrong address is noticed.
CONNECT_SECONDS_MAX = 5
CENT = Decimal("0.01")
AMOUNT_MAX = Decimal(1_000_000)


class Cards:
    """What is charged on each customer's card."""

    action = "charge"
    compensation = "refund"

    def __init__(self, limits):
        self._limits = limits
        self._charged = {}

    def decide(self, command, body):
        if not isinstance(body, dict):
            return {"order": None}, Answer.refused(400, "the request must be a JSON object")
        order, customer, amount = body.get("orderId"), body.get("customer"), money(body.get("amount"))
        facts = {"order": order if isinstance(order, str) else None}
        if not isinstance(order, str) or not isinstance(customer, str):
            return facts, Answer.refused(400, "orderId and customer must be strings")
        if amount is None or amount <= 0:
            return facts, Answer.refused(400, "amount must be above 0, with at most two decimals")
        facts |= {"customer": customer, "amount": str(amount)}
        limit = self._limits.get(customer)
        if limit is None:
            return facts, Answer.refused(402, "card declined: no card on file")
        if self._charged.get(customer, Decimal(0)) + amount > limit:
            return facts, Answer.refused(402, "card declined: over the limit")
        # Derived from the command: asking again can't name another payment.
        payment = "pay-" + hashlib.sha256(command.encode()).hexdigest()[:12]
        return facts, Answer.done({"payment": payment, "amount": str(amount)})

    def apply(self, facts):
        customer = facts["customer"]
        self._charged[customer] = self._charged.get(customer, Decimal(0)) + Decimal(facts["amount"])

    def undo(self, facts):
        self._charged[facts["customer"]] -= Decimal(facts["amount"])


def money(value):
    """An amount of whole cents, or None. Never a float: JSON is read with Decimal."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or not -AMOUNT_MAX <= amount <= AMOUNT_MAX or amount != amount.quantize(CENT):
        return None
    return amount.quantize(CENT)


def read_limits(path):
    cards = jsontext.load(pathlib.Path(path).read_bytes())
    limits = {customer: money(card["limit"]) for customer, card in cards.items()}
    for customer, limit in limits.items():
        if limit is None:
            raise ValueError(f"limit of {customer} must be an amount of whole cents")
    return limits


def reply(memory, message, op):
    """The answer to one message, as far as it can be given without the network."""
    headers = message.headers or {}
    command = headers.get("Tidemill-Command-Id")
    if not command:
        return Answer.refused(400, "header Tidemill-Command-Id is missing")
    try:
        body = jsontext.load(message.data) if message.data else None
    except (ValueError, RecursionError):
        body = None
    if op == Cards.action:
        return memory.act(command, body)
    compensates = headers.get("Tidemill-Compensates")
    if not compensates:
        return Answer.refused(400, "header Tidemill-Compensates is missing")
    return memory.take_back(command, compensates)


async def serve(args, memory):
    faults = Faults(args)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def log_error(error):
        print(f"payments: nats: {error or type(error).__name__}", file=sys.stderr)

    try:
        connection = await asyncio.wait_for(
            nats.connect(
                args.nats,
                name="payments",
                user_credentials=args.creds,
                # A server that is restarted must find its participants there again, however long it was away.
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.2,
                error_cb=log_error,
            ),
            CONNECT_SECONDS_MAX,
        )
    except (asyncio.TimeoutError, OSError, nats.errors.Error) as error:
        print(f"payments: no NATS server at {args.nats}: {error or 'timed out'}", file=sys.stderr)
        return 1

    delayed = set()

    async def answer(message, given):
        headers = None
        if given.code != 200:
            headers = {"Nats-Service-Error-Code": str(given.code), "Nats-Service-Error": given.text}
        await connection.publish(message.reply, json.dumps(given.body).encode(), headers=headers)

    async def answer_later(message, given, seconds):
        await asyncio.sleep(seconds)
        await answer(message, given)

    def handler(op):
        async def handle(message):
            if not message.reply:
                return
            fault = faults.next((message.headers or {}).get("Tidemill-Command-Id", ""))
            given = Answer.refused(503, "failed on request") if fault.fail else reply(memory, message, op)
            if fault.drop:
                return
            if fault.delay_s:
                task = loop.create_task(answer_later(message, given, fault.delay_s))
                delayed.add(task)
                task.add_done_callback(delayed.discard)
            else:
                await answer(message, given)

        return handle

    await connection.subscribe("payments.charge", cb=handler(Cards.action))
    await connection.subscribe("payments.refund", cb=handler(Cards.compensation))
    await connection.flush()
    print("ready", flush=True)

    await stop.wait()
    for task in delayed:
        task.cancel()
    if connection.is_connected:
        await connection.drain()
    else:
        await connection.close()
    return 0


def main():
    parser = argparse.ArgumentParser(prog="payments", description=__doc__.splitlines()[0])
    parser.add_argument("--nats", default="nats://127.0.0.1:4222", metavar="URL")
    parser.add_argument("--creds", metavar="FILE", help="NATS credentials; none = the server asks for none")
    parser.add_argument("--ledger", required=True, metavar="FILE", help="kept between runs; made when missing")
    parser.add_argument("--cards", required=True, metavar="FILE.json", help='{"customer": {"limit": 500.00}}')
    Faults.add_arguments(parser)
    args = parser.parse_args()
    try:
        memory = Memory(Ledger(args.ledger), Cards(read_limits(args.cards)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadLedger) as error:
        print(f"payments: can't start: {error}", file=sys.stderr)
        return 1
    return asyncio.run(serve(args, memory))


if __name__ == "__main__":
    sys.exit(main())
