"""Shipping: makes shipments over plain HTTP for the countries it serves, and cancels them.

POST /shipments         {"orderId", "address": {"country", "postalCode", ...}} -> 201 {"tracking"},
                        or 422 "address undeliverable: ..."; header Idempotency-Key is the command id
POST /shipments/cancel  header Tidemill-Compensates names the shipment's command id -> 200 {"undone": true|false}
GET  /healthz           200

Every shipment and cancellation is in the ledger file before it is answered.
"""

import argparse
import hashlib
import json
import pathlib
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from faults import Faults  # noqa: E402
from memory import Answer, BadLedger, Ledger, Memory  # noqa: E402

BODY_BYTES_MAX = 1 << 20
# Requests that run when the process is told to stop get this long to be answered.
STOP_SECONDS_MAX = 5


class Shipments:
    """Which places can be reached. Shipping has room for everything, so it keeps no sums."""

    action = "ship"
    compensation = "cancel"

    def __init__(self, places):
        self._places = places

    def decide(self, command, body):
        if not isinstance(body, dict):
            return {"order": None}, Answer.refused(400, "the request must be a JSON object")
        order, address = body.get("orderId"), body.get("address")
        facts = {"order": order if isinstance(order, str) else None}
        if not isinstance(order, str) or not isinstance(address, dict):
            return facts, Answer.refused(400, "orderId must be a string and address an object")
        country, code = address.get("country"), address.get("postalCode")
        # No more of the address than the decision needs: a ledger is no place for where people live.
        facts["country"] = country if isinstance(country, str) else None
        facts["postalCode"] = code if isinstance(code, str) else None
        pattern = self._places.get(country) if isinstance(country, str) else None
        if pattern is None:
            return facts, Answer.refused(422, f"address undeliverable: no delivery to {country}")
        if not isinstance(code, str) or code == "":
            return facts, Answer.refused(422, "address undeliverable: postal code missing")
        if not pattern.fullmatch(code):
            return facts, Answer.refused(422, f"address undeliverable: no such postal code in {country}")
        # Derived from the command: asking again can't name another parcel.
        tracking = "TM" + hashlib.sha256(command.encode()).hexdigest()[:10].upper() + country
        return facts, Answer.done({"tracking": tracking})

    def apply(self, facts):
        pass

    def undo(self, facts):
        pass


class Running:
    """How many requests are being answered, so that stopping can wait for them."""

    def __init__(self):
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self):
        with self._changed:
            self._count += 1

    def __exit__(self, *_):
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_for_none(self, seconds):
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0, seconds)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one small write; waiting to fill a packet would cost 40 ms each.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        if self.path == "/healthz":
            self._send(200, {"ok": True})
        else:
            self._send(404, {"error": "no such path; POST /shipments or /shipments/cancel"})

    def do_POST(self):
        with self.server.running:
            self._post()

    def _post(self):
        body = self._body()
        if body is None:
            return
        if self.path not in ("/shipments", "/shipments/cancel"):
            return self._send(404, {"error": "no such path; POST /shipments or /shipments/cancel"})
        command = self.headers.get("Idempotency-Key")
        fault = self.server.faults.next(command or "")
        if fault.fail:
            return self._send(503, {"error": "failed on request"})
        given = self._answer(command, body)
        if fault.drop:
            self.close_connection = True
            return None
        if fault.delay_s:
            time.sleep(fault.delay_s)
        if given.code == 200:
            return self._send(201 if self.path == "/shipments" else 200, given.body)
        return self._send(given.code, given.body)

    def _answer(self, command, body):
        if not command:
            return Answer.refused(400, "header Idempotency-Key is missing")
        if self.path == "/shipments/cancel":
            compensates = self.headers.get("Tidemill-Compensates")
            if not compensates:
                return Answer.refused(400, "header Tidemill-Compensates is missing")
            return self.server.memory.take_back(command, compensates)
        try:
            return self.server.memory.act(command, json.loads(body))
        except (ValueError, RecursionError):
            return self.server.memory.act(command, None)

    def _body(self):
        """The request's bytes, or None when there is nothing to act on; the connection is then closed."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True
            return self._send(411, {"error": "Content-Length is missing"})
        if len(length) > 9 or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            return self._send(413, {"error": f"at most {BODY_BYTES_MAX} bytes"})
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            # The caller went away in the middle. Half a request must not become a remembered refusal.
            self.close_connection = True
            return None
        return body

    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_):
        """Silent: the ledger tells what happened."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # As many callers as a saga worker opens at once may knock in the same moment.
    request_queue_size = 1024

    def __init__(self, address, memory, faults):
        super().__init__(address, Handler)
        self.memory = memory
        self.faults = faults
        self.running = Running()

    def handle_error(self, request, client_address):
        """A caller that went away mid-way is its own business; anything else is worth a line."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            print(f"shipping: {type(error).__name__}: {error}", file=sys.stderr)


def read_places(path):
    places = json.loads(pathlib.Path(path).read_bytes())
    return {country: re.compile(pattern) for country, pattern in places.items()}


def main():
    parser = argparse.ArgumentParser(prog="shipping", description=__doc__.splitlines()[0])
    default_places = pathlib.Path(__file__).resolve().parent.parent / "places.json"
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7081, help="0 takes a free one; it stands in the line `ready PORT`")
    parser.add_argument("--ledger", required=True, metavar="FILE", help="kept between runs; made when missing")
    parser.add_argument("--places", default=default_places, metavar="FILE.json", help="countries served, with their postal codes")
    Faults.add_arguments(parser)
    args = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        memory = Memory(Ledger(args.ledger), Shipments(read_places(args.places)))
    except (OSError, ValueError, TypeError, AttributeError, re.error, BadLedger) as error:
        print(f"shipping: can't start: {error}", file=sys.stderr)
        return 1
    try:
        server = Server((args.host, args.port), memory, Faults(args))
    except (OSError, OverflowError) as error:
        print(f"shipping: can't listen on {args.host}:{args.port}: {error}", file=sys.stderr)
        return 1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"ready {server.server_port}", flush=True)
    stop.wait()
    server.shutdown()
    server.running.wait_for_none(STOP_SECONDS_MAX)
    return 0


if __name__ == "__main__":
    sys.exit(main())
